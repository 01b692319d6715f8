/* A master "shop", its replica and three Sentinels that are quick to act, on loopback ports. */
#ifndef DOORBUSTER_TEST_SENTINEL_FIXTURE_H
#define DOORBUSTER_TEST_SENTINEL_FIXTURE_H

#include "folder.h"
#include "tcp_redis.h"

#define SENTINELS 3

struct sentinel_fixture {
    char folder[FOLDER_BYTES];
    struct tcp_redis redis[2]; /* 0 is the master at first */
    struct tcp_redis sentinels[SENTINELS];
    char url[256]; /* of all Sentinels */
    const char
        *host; /* where all say that they are; set before the start, as what follows; NULL: 127.0.0.1 */
    const char *password;          /* of both Redis; NULL: none */
    const char *sentinel_password; /* likewise */
};

/* Returns when all know each other. The URL has no password. */
void sentinel_fixture_start(struct sentinel_fixture *fixture);
void sentinel_fixture_end(struct sentinel_fixture *fixture);
/* Port of the master, as a majority of the Sentinels says. */
int sentinel_fixture_master(const struct sentinel_fixture *fixture);
struct tcp_redis *sentinel_fixture_redis_at(struct sentinel_fixture *fixture, int port);
/* Until they have another than this one; its port. */
int sentinel_fixture_await_another(const struct sentinel_fixture *fixture, int port);
/* SENTINEL FAILOVER, and until it is done, the old master being a replica of the new. */
void sentinel_fixture_fail_over(struct sentinel_fixture *fixture);
/* From now on the replica does not hear what its master does; it has heard all before. Until it is promoted. */
void sentinel_fixture_deafen_replica(struct sentinel_fixture *fixture);

#endif
