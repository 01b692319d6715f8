/* The nodes under redlock.c: independent Redis servers, who of them may vote, and the commands to them. */
#ifndef DOORBUSTER_GATE_REDLOCK_NODES_H
#define DOORBUSTER_GATE_REDLOCK_NODES_H

#include "redlock.h"

#include "doorbuster/text.h"

#define REDLOCK_RANDOM_BYTES 16 /* 128 bits */
/* "<server>-<run>-<pid>-<random>", in hex but for the pid */
#define REDLOCK_TOKEN_BYTES (3 * (TEXT_INT64_BYTES + 1) + 2 * REDLOCK_RANDOM_BYTES + 1)

enum redlock_command { REDLOCK_TAKE, REDLOCK_EXTEND };
enum redlock_answer { REDLOCK_YES, REDLOCK_NO, REDLOCK_NO_ANSWER };

/* One attempt to have a lock: the key, and the value that no other attempt has. */
struct redlock_key {
    char name[REDLOCK_KEY_BYTES];
    char token[REDLOCK_TOKEN_BYTES];
};

/* `context` and `round` are those of redlock_nodes_ask(). Once for each ask; on the loop's thread, never before that has returned. */
typedef void (*redlock_answer_cb)(void *context, uint64_t round, unsigned node, enum redlock_answer answer);
/* The lock of this resource was let go on that node, or somebody wants it and could not have it: `context` of redlock_nodes_open(). On the loop's
 * thread. News get lost; nobody may rely on them. */
enum redlock_news { REDLOCK_RELEASED, REDLOCK_WANTED };
typedef void (*redlock_news_cb)(void *context, unsigned node, enum redlock_news news, const char *resource);
/* `reply` is NULL if there will be none; it may be an error. Once for each redlock_nodes_command(); on the loop's thread, never before that has
 * returned. */
typedef void (*redlock_reply_cb)(void *context, unsigned node, const redisReply *reply);

struct redlock_nodes;

/* The timer is closed with the nodes; its memory, like theirs, goes when the loop has closed it. */
struct redlock_nodes *redlock_nodes_open(const struct redlock_settings *settings, redlock_answer_cb answer_cb,
                                         redlock_news_cb news_cb, void *context);
unsigned redlock_nodes_count(const struct redlock_nodes *nodes);
unsigned redlock_nodes_voting(const struct redlock_nodes *nodes);
/* False: the node may not vote, or has too much on its way; no answer will come. */
bool redlock_nodes_ask(struct redlock_nodes *nodes, unsigned node, enum redlock_command command,
                       const struct redlock_key *key, void *context, uint64_t round);
bool redlock_nodes_votes(const struct redlock_nodes *nodes, unsigned node);
/* "up": it votes; "young": restarted, it does not yet; "unknown": it has not said who it is, or is the same as another; "down". */
const char *redlock_nodes_state(const struct redlock_nodes *nodes, unsigned node);
/* Any command, on the node's connection, behind what was sent before. False: it is down, or has too much on its way; no reply will come. */
bool redlock_nodes_command(struct redlock_nodes *nodes, unsigned node, redlock_reply_cb cb, void *context,
                           int argc, const char **argv);
/* Compare-and-delete on every node. Those of `touched` (a bit a node) that cannot be told now are told when they are back. All who listen are told,
 * too: that the lock may be had, if it `was_held`; else that it is wanted. */
void redlock_nodes_release(struct redlock_nodes *nodes, const struct redlock_key *key, unsigned touched,
                           bool was_held);
void redlock_nodes_turn(struct redlock_nodes *nodes);
/* Pending asks are answered REDLOCK_NO_ANSWER before it returns. */
void redlock_nodes_close(struct redlock_nodes **nodes);

#endif
