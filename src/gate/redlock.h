/* Redlock: a lock on a majority of independent Redis nodes. For a gate driver in a worker; what it promises and what not: redlock.c.
 *
 * Loop thread only; nothing blocks. An event comes from the loop, never before the call that asked for it has returned. Within an event
 * every function of a lease may be called, redlock_lease_free() too, but not redlock_close(). */
#ifndef DOORBUSTER_GATE_REDLOCK_H
#define DOORBUSTER_GATE_REDLOCK_H

#include "doorbuster/gate.h"

#include "keys.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define REDLOCK_NODES_MAX GATE_NODES_MAX
#define REDLOCK_KEY_BYTES 96

#define REDLOCK_NODE_TIMEOUT_MS 50
#define REDLOCK_EXTENSIONS_MAX 10

struct redlock;
struct redlock_lease;

struct redlock_settings {
    uv_loop_t *loop;
    const struct redis_address *nodes; /* copied */
    unsigned node_count;               /* odd, 1 to REDLOCK_NODES_MAX */
    int ttl_ms;                        /* of every lock; all who share the nodes should have the same */
    int node_timeout_ms;               /* for a node's answer; much less than ttl_ms */
    int attempts;                      /* of one redlock_acquire(), the first included */
    int retry_delay_ms; /* before the second attempt at most so long, then twice, … with full jitter */
    int extensions_max; /* of one tenure: nobody keeps a lock for ever */
    struct gate_holder holder;   /* server 0: nobody of ours can have died and left locks */
    const uint32_t *node_starts; /* as in struct gate_settings; must outlive it */
};

enum redlock_event {
    REDLOCK_ACQUIRED,     /* held until redlock_left_us() is 0 */
    REDLOCK_NOT_ACQUIRED, /* no attempt or no time is left; nothing is held */
    REDLOCK_EXTENDED,
    REDLOCK_NOT_EXTENDED, /* still held, to the old end */
    REDLOCK_LOST,         /* the validity is over; it was released */
};
typedef void (*redlock_event_cb)(struct redlock_lease *lease, enum redlock_event event, void *context);

struct redlock *redlock_open(const struct redlock_settings *settings);
/* May a majority vote? */
bool redlock_is_ready(const struct redlock *redlock);
unsigned redlock_voting(const struct redlock *redlock); /* how many nodes may */
/* For what else is kept on them: redlock_stock.c. */
struct redlock_nodes *redlock_nodes(struct redlock *redlock);
/* Writes what the leases have asked: once a turn of the loop, before it waits. */
void redlock_turn(struct redlock *redlock);
/* No lease may be left. Sends what is unsent; whatever waits for a node's answer has got none before it returns. The loop must run until its
 * handles are closed. */
void redlock_close(struct redlock **redlock);

/* A lease is one resource that this worker wants now and then; free at first. The key is gate_keys.lock and the resource. */
struct redlock_lease *redlock_lease_new(struct redlock *redlock, const char *resource, redlock_event_cb cb,
                                        void *context);
/* Releases it first. The loop must run until its handle is closed. Sets NULL. */
void redlock_lease_free(struct redlock_lease **lease);

/* Of a free lease. ACQUIRED or NOT_ACQUIRED follows, the latter by the deadline (clock_monotonic_us). */
void redlock_acquire(struct redlock_lease *lease, int64_t deadline_us);
/* For how long the lock is surely ours; 0: it is not. Ask again right before each thing that needs the lock: a process may have been
 * stopped for longer than a lock lives. */
int64_t redlock_left_us(const struct redlock_lease *lease);
/* A whole TTL more, from now. False: not held, an extension is on its way, or there were too many; no event follows. */
bool redlock_extend(struct redlock_lease *lease);
/* Has somebody else asked for it in vain since it was ours? By news that may be lost. */
bool redlock_is_wanted(const struct redlock_lease *lease);
/* In any state; no event follows. The lease is free at once and may be acquired again. */
void redlock_release(struct redlock_lease *lease);
bool redlock_is_free(const struct redlock_lease *lease);

#endif
