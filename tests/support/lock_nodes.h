/* The nodes of a Redlock for a test: five real Redis that keep nothing. */
#ifndef DOORBUSTER_TEST_LOCK_NODES_H
#define DOORBUSTER_TEST_LOCK_NODES_H

#include "redis_fixture.h"

#define LOCK_NODES 5
#define LOCK_NODES_MAJORITY 3
#define LOCK_NODE_TEXT_BYTES 128

struct lock_nodes {
    struct redis_fixture redis[LOCK_NODES];
    struct redis_address addresses[LOCK_NODES];
};

void lock_nodes_start(struct lock_nodes *nodes);
/* All of them run and are empty, whatever a test did. */
void lock_nodes_refresh(struct lock_nodes *nodes);
void lock_nodes_end(struct lock_nodes *nodes);

void lock_nodes_freeze(struct lock_nodes *nodes, unsigned first, unsigned count);
void lock_nodes_thaw(struct lock_nodes *nodes, unsigned first, unsigned count);

/* What the node has under the key: "" for nothing. */
void lock_nodes_read(struct lock_nodes *nodes, unsigned node, const char *key,
                     char out[LOCK_NODE_TEXT_BYTES]);
/* How many of those that run have the key. */
unsigned lock_nodes_with(struct lock_nodes *nodes, const char *key);
/* A command whose answer does not matter; as redisCommand has it. */
void lock_nodes_do(struct lock_nodes *nodes, unsigned node, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
void lock_nodes_do_on_all(struct lock_nodes *nodes, const char *command);

#endif
