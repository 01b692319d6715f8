/* A real redis-server for a test: on a Unix socket in a folder of its own, nothing on the network. */
#ifndef DOORBUSTER_TEST_REDIS_FIXTURE_H
#define DOORBUSTER_TEST_REDIS_FIXTURE_H

#include "folder.h"

#include "doorbuster/redis.h"

#include <sys/types.h>

enum redis_persistence { REDIS_NOTHING_KEPT, REDIS_RDB, REDIS_AOF_EVERYSEC, REDIS_AOF_ALWAYS };

struct redis_fixture {
    char folder[FOLDER_BYTES];
    struct redis_address address;
    pid_t pid; /* 0: not running */
};

/* Starts it and waits until it answers. `persistent`: with an append-only file, so that it survives
 * redis_fixture_restart(). */
void redis_fixture_start(struct redis_fixture *fixture, bool persistent);
/* A connection that fails the test if there is none; redisFree it. */
redisContext *redis_fixture_connect(const struct redis_fixture *fixture);
void redis_fixture_kill(struct redis_fixture *fixture); /* kill -9 */
void redis_fixture_restart(struct redis_fixture *fixture);
/* The same two with a choice; the start is begun only: redis_fixture_answers() says when it is over. */
void redis_fixture_begin(struct redis_fixture *fixture);
void redis_fixture_launch(struct redis_fixture *fixture, enum redis_persistence persistence);
bool redis_fixture_answers(const struct redis_fixture *fixture);
void redis_fixture_freeze(const struct redis_fixture *fixture); /* SIGSTOP */
void redis_fixture_thaw(const struct redis_fixture *fixture);
void redis_fixture_end(struct redis_fixture *fixture);

/* One command whose answer does not matter, but must not be an error. */
void redis_do(redisContext *redis, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif
