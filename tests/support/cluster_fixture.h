/* A Redis Cluster on loopback ports: three masters with a third of the slots each, and a replica of the one that has a key's slot. */
#ifndef DOORBUSTER_TEST_CLUSTER_FIXTURE_H
#define DOORBUSTER_TEST_CLUSTER_FIXTURE_H

#include "folder.h"
#include "tcp_redis.h"

#define CLUSTER_NODES 4 /* the last one is the replica */

struct cluster_fixture {
    char folder[FOLDER_BYTES];
    struct tcp_redis nodes[CLUSTER_NODES];
    char ids[CLUSTER_NODES][41];
    int slot;
    unsigned owner; /* the node that had it at first */
    char url[160];  /* of the masters */
};

/* Returns when all of them say that the cluster is whole. */
void cluster_fixture_start(struct cluster_fixture *fixture, const char *key);
void cluster_fixture_end(struct cluster_fixture *fixture);
/* Which node says that it has the slot? */
unsigned cluster_fixture_owner(const struct cluster_fixture *fixture);
/* The owner and the replica change places. Again not before CLUSTER_REST_MS: so long the other masters give no second vote. */
#define CLUSTER_REST_MS 2200 /* twice the node timeout */
void cluster_fixture_fail_over(struct cluster_fixture *fixture);
/* Moving the slot to another master, in steps: begun; some of its keys are there; all of them, and everybody knows. */
void cluster_fixture_begin_move(struct cluster_fixture *fixture, unsigned from, unsigned to);
void cluster_fixture_move_keys(struct cluster_fixture *fixture, unsigned from, unsigned to, unsigned at_most);
void cluster_fixture_end_move(struct cluster_fixture *fixture, unsigned from, unsigned to);

#endif
