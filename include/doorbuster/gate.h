/* The gate: who may buy. A worker's side of it, on its loop. Drivers: the Lua gate (lua_gate.c).
 *
 * gate_submit() queues a purchase; gate_turn(), once a turn of the loop, sends the whole queue as one call. The answer comes when the
 * purchase is CONFIRMED (recorded in the store), REFUSED or UNAVAILABLE. Loop thread only; nothing blocks. */
#ifndef DOORBUSTER_GATE_H
#define DOORBUSTER_GATE_H

#include "doorbuster/redis.h"
#include "doorbuster/sale.h"

#include <uv.h>

#define GATE_BATCH_MAX SALES_LOG_ORDERS_MAX
#define GATE_DEADLINE_MS 5000
#define GATE_PENDING_MAX 20000 /* purchases in the gate at once; beyond: UNAVAILABLE */

struct gate;
struct gate_purchase;

/* On the loop's thread; may be called from within gate_submit(). The purchase is the caller's again. */
typedef void (*gate_answer_cb)(struct gate_purchase *purchase, void *context);

struct gate_purchase {
    struct purchase
        purchase; /* in: order.user_id, product_id, quantity, key (which must live until the answer);
                                 the rest is the gate's */
    gate_answer_cb cb;
    void *context;
    int64_t deadline_us;
    struct gate_purchase *next; /* the gate's lists */
};

struct gate_settings {
    uv_loop_t *loop;
    struct redis_address redis;
    /* Purchases whose record the gate cannot tell from the news (a new epoch, or news missed): look each up in the store, off the loop,
     * and call gate_settled() for each. RESERVED ones by order id and request; ASKED ones are in doubt, their answer was lost: by
     * request, among the orders at purchase.position or later; what is found is filled in. False: could not even be queued. */
    bool (*settle_cb)(void *context, struct gate_purchase *list);
    void *context;
};

enum gate_finding { GATE_NOT_IN_STORE, GATE_IN_STORE, GATE_REJECTED_BY_STORE, GATE_STORE_UNREADABLE };

struct gate *gate_open_for_worker(const struct gate_settings *settings);
/* Is the gate open to sell: both links up, the script known? */
bool gate_is_ready(const struct gate *gate);
void gate_submit(struct gate *gate, struct gate_purchase *purchase);
void gate_turn(struct gate *gate);
/* One of the list given to settle_cb. */
void gate_settled(struct gate *gate, struct gate_purchase *purchase, enum gate_finding finding);
/* Purchases submitted so far, less those that a sold-out mark answered at once: how busy the sale is. */
uint64_t gate_decisions(const struct gate *gate);
/* Purchases queued, asked or waiting for their record. */
size_t gate_pending(const struct gate *gate);
/* Nothing may be pending. The loop must run until its handles are closed. */
void gate_close_for_worker(struct gate **gate);

#endif
