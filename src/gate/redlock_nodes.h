/* The nodes under redlock.c: independent Redis servers, who of them may vote, and the commands to them. */
#ifndef DOORBUSTER_GATE_REDLOCK_NODES_H
#define DOORBUSTER_GATE_REDLOCK_NODES_H

#include "redlock.h"

#define REDLOCK_TOKEN_BYTES 33 /* 128 random bits in hex */

enum redlock_command { REDLOCK_TAKE, REDLOCK_EXTEND };
enum redlock_answer { REDLOCK_YES, REDLOCK_NO, REDLOCK_NO_ANSWER };

/* One attempt to have a lock: the key, and the value that no other attempt has. */
struct redlock_key {
    char name[REDLOCK_KEY_BYTES];
    char token[REDLOCK_TOKEN_BYTES];
};

/* `context` and `round` are those of redlock_nodes_ask(). Once for each ask; on the loop's thread, never before that has returned. */
typedef void (*redlock_answer_cb)(void *context, uint64_t round, unsigned node, enum redlock_answer answer);

struct redlock_nodes;

/* The timer is closed with the nodes; its memory, like theirs, goes when the loop has closed it. */
struct redlock_nodes *redlock_nodes_open(const struct redlock_settings *settings, redlock_answer_cb cb);
unsigned redlock_nodes_voting(const struct redlock_nodes *nodes);
/* False: the node may not vote, or has too much on its way; no answer will come. */
bool redlock_nodes_ask(struct redlock_nodes *nodes, unsigned node, enum redlock_command command,
                       const struct redlock_key *key, void *context, uint64_t round);
/* Compare-and-delete on every node. Those of `touched` (a bit a node) that cannot be told now are told when they are back. */
void redlock_nodes_release(struct redlock_nodes *nodes, const struct redlock_key *key, unsigned touched);
void redlock_nodes_turn(struct redlock_nodes *nodes);
/* Pending asks are answered REDLOCK_NO_ANSWER before it returns. */
void redlock_nodes_close(struct redlock_nodes **nodes);

#endif
