/* The real thing: a redis-server, a store in a folder (in memory if there is /dev/shm), a worker's gate on its loop, and the recorder's own
 * functions, all driven from the test's one thread. Nothing here knows what should come out. */
#ifndef DOORBUSTER_TEST_WORLD_H
#define DOORBUSTER_TEST_WORLD_H

#include "redis_fixture.h"

#include "attach.h"

#include "doorbuster/gate.h"
#include "doorbuster/gate_books.h"
#include "doorbuster/store.h"

#define WORLD_PURCHASES 720 /* of a sequence */

/* One purchase: what the gate has of it, and whether it was answered. */
struct world_purchase {
    struct gate_purchase gate;
    struct order_part more[CART_LINES_MAX - 1];
    bool answered;
};

#define WORLD_KEYS 400 /* in Redis at once */
struct world_key {
    char *name, *payload;
    size_t payload_bytes;
    int64_t ttl_ms;
};

struct world {
    struct redis_fixture redis;
    struct gate_place place;
    char folder[FOLDER_BYTES];
    redisContext *books; /* a pool thread's connection */
    uv_loop_t loop;
    uv_timer_t tick;
    /* of the sequence */
    struct gate *gate;
    struct recorder *recorder;
    struct recorder *overtaken; /* another took over, and it does not know; or NULL */
    struct world_purchase *purchases;
    size_t purchase_count, answer_count;
    uint64_t failures,
        fenced; /* how often a failpoint fired, a recorder was told that it is overtaken: since the start */
    struct world_key keys[WORLD_KEYS]; /* remembered */
    size_t key_count;
    struct gate_purchase *settling; /* given to settle_cb */
};

void world_start(struct world *world);
void world_end(struct world *world);

/* An empty Redis, a new store with the users 1 to `users`, the gate open and ready. False: `error` says what does not work. */
bool world_begin(struct world *world, int64_t users, char *error, size_t error_bytes);
void world_finish(struct world *world);

/* Puts a purchase into the gate; world_decide() sends all of them as one call and turns until each is decided: refused, or reserved. */
struct world_purchase *world_submit(struct world *world, const struct sale_order *order);
bool world_decide(struct world *world);
/* The answer to what was submitted is lost on its way, and the recorder has heard that the gate wants a new epoch; all of it is recorded, nothing
 * is attached yet. */
bool world_can_fail(void); /* has the build failpoints? */
bool world_lose_answer(struct world *world);
/* Everything in the log into the store, and the workers told; every purchase is answered afterwards. */
bool world_record(struct world *world);
/* The link with the gate's news breaks, and is there again. */
bool world_cut(struct world *world);
/* What Redis has now, and Redis as it was then (empty, if that never was), without its scripts. */
void world_remember(struct world *world);
void world_forget_keys(struct world *world);
void world_turn_back(struct world *world);
/* What is armed at this failpoint fails once: first in recording what there is, then in attaching, again and again until it works. Without
 * failpoints in the build it is an attach. */
bool world_fail(struct world *world, const char *failpoint);
/* Another recorder takes over. */
bool world_restart(struct world *world);
/* A new epoch, and a gate that has heard of it. */
bool world_attach(struct world *world);
/* Turns until every purchase has its answer. */
bool world_answer_all(struct world *world);
/* What was published is heard by the gate. */
void world_listen(struct world *world);

#endif
