/* The gate: who may buy. A worker's side of it, on its loop. Drivers: the Lua gate (lua_gate.c), the Redlock gate (redlock_gate.c).
 *
 * gate_submit() queues a purchase; gate_turn(), once a turn of the loop, sends what is queued on its way. The answer comes when the
 * purchase is CONFIRMED (recorded in the store), REFUSED or UNAVAILABLE. Loop thread only; nothing blocks. */
#ifndef DOORBUSTER_GATE_H
#define DOORBUSTER_GATE_H

#include "doorbuster/change.h"
#include "doorbuster/gate_place.h"
#include "doorbuster/product.h"
#include "doorbuster/sale.h"

#include <uv.h>

#define GATE_BATCH_MAX SALES_LOG_ORDERS_MAX
#define GATE_DEADLINE_MS 5000
#define GATE_PENDING_MAX 20000 /* purchases in the gate at once; beyond they are turned away */

struct gate;
struct gate_purchase;

/* On the loop's thread; may be called from within gate_submit(). The purchase is the caller's again. */
typedef void (*gate_answer_cb)(struct gate_purchase *purchase, void *context);

struct gate_purchase {
    /* in: order.user_id, product_id, quantity, key (which must live until the answer); the rest is the gate's */
    struct purchase purchase;
    gate_answer_cb cb;
    void *context;
    int64_t deadline_us;        /* the gate's: monotonic, GATE_DEADLINE_MS after gate_submit() */
    struct gate_purchase *next; /* the gate's lists */
};

/* --- the Redlock gate: what it has done in the store, off the loop. Both belong to the gate; between the callback and the answer to it they
 * are lent to whoever works on them. */
#define GATE_LESSON_MAX 64
/* On which terms are these products sold? */
struct gate_lesson {
    int64_t product_ids[GATE_LESSON_MAX];
    size_t count;
    /* out */
    bool read; /* false: the store could not be read */
    /* there is such a product; whether it is open is decided with the purchase */
    bool known[GATE_LESSON_MAX];
    struct sale_product products[GATE_LESSON_MAX]; /* terms; the stock is not looked at */
    struct log_position position;                  /* of the store, before all that is asked for after this */
};

enum gate_batch_end {
    GATE_BATCH_DECIDED, /* each purchase has an order id, or a refusal with its figures; durable */
    GATE_BATCH_FAILED,  /* the store failed: nothing was sold, or it was the COMMIT whose answer was lost */
    GATE_BATCH_FENCED   /* the store belongs to another gate: nothing was sold */
};
/* Purchases to be decided, in this order, in one transaction of the store: store_sell(). */
struct gate_batch {
    struct purchase *purchases[GATE_BATCH_MAX];
    size_t count;
    /* out */
    enum gate_batch_end end;
    struct stock_moves moves;
};

/* Who holds the locks, so that those of the dead can be told from those of the living: a token begins with "<server>-<run>-<pid>-". */
struct gate_holder {
    uint64_t server;  /* of the data folder: the same in all runs of this server */
    uint64_t run;     /* of the supervisor: all processes of another run of this server are dead */
    int64_t dead_pid; /* the last worker that died in this worker's place; 0: none */
};

struct gate_settings {
    uv_loop_t *loop;
    const struct gate_place *place; /* must outlive the gate */
    /* Purchases whose record the gate cannot tell from the news (a new epoch, or news missed): look each up in the store, off the loop,
     * and call gate_settled() for each. RESERVED ones by order id and request; ASKED ones are in doubt, their answer was lost: by
     * request, among the orders at purchase.position or later; what is found is filled in. False: could not even be queued. */
    bool (*settle_cb)(void *context, struct gate_purchase *list);
    /* GATE_REDLOCK: false: could not even be queued. Answered by gate_learned() and gate_sold(). At most one of each is under way. */
    bool (*learn_cb)(void *context, struct gate_lesson *lesson);
    bool (*sell_cb)(void *context, struct gate_batch *batch);
    void *context;
    struct gate_holder holder;
    int64_t store_id;
    /* How often each private node was started by the supervisor; its first run cannot have forgotten a lock. NULL: they are not ours. */
    const uint32_t *node_starts;
};

enum gate_finding { GATE_NOT_IN_STORE, GATE_IN_STORE, GATE_REJECTED_BY_STORE, GATE_STORE_UNREADABLE };

/* Never fails: what cannot be reached is tried again and again. */
struct gate *gate_open_for_worker(const struct gate_settings *settings);
/* Would a purchase be sent on its way now? Of the Lua gate: both links are up, the script is known, the record follows; of the Redlock gate:
 * a majority of the nodes votes. */
bool gate_is_ready(const struct gate *gate);
/* state QUEUED and all that is "in" above; *purchase is the gate's until its callback. */
void gate_submit(struct gate *gate, struct gate_purchase *purchase);
void gate_turn(struct gate *gate);
/* One of the list given to settle_cb. */
void gate_settled(struct gate *gate, struct gate_purchase *purchase, enum gate_finding finding);
/* What was lent to learn_cb and sell_cb is the gate's again. */
void gate_learned(struct gate *gate, struct gate_lesson *lesson);
void gate_sold(struct gate *gate, struct gate_batch *batch);

/* The parts that the gate needs, for /health/ready: "redis", "gate" and "recorder", or each lock node. */
#define GATE_PART_WORDS_BYTES 24
#define GATE_PART_NAME_BYTES (320 + GATE_PART_WORDS_BYTES) /* a whole address, and the words around it */
struct gate_part {
    char name[GATE_PART_NAME_BYTES]; /* "lock node 3 (redis://127.0.0.1:7003/0)" */
    const char *state;               /* "up", "down", "young" (restarted; does not vote yet), … */
    bool up;                         /* it does its part */
};
#define GATE_PARTS_MAX (GATE_NODES_MAX + 2)
size_t gate_parts(const struct gate *gate, struct gate_part out[GATE_PARTS_MAX]);

/* Its breakers: "redis", and of the Lua gate "record". For showing; loop thread. */
#define GATE_BREAKERS 2
struct breaker;
size_t gate_breakers(struct gate *gate, struct breaker *out[GATE_BREAKERS]);

/* Purchases submitted so far, less those that a sold-out mark answered at once: how busy the sale is. */
uint64_t gate_decisions(const struct gate *gate);
/* Of the Lua gate: the newest epoch that was heard of; with another one Redis may be another. Any thread. */
uint64_t gate_epoch(const struct gate *gate);
/* Purchases queued, asked or waiting for their record. */
size_t gate_pending(const struct gate *gate);
/* Nothing may be pending. The loop must run until its handles are closed. */
void gate_close_for_worker(struct gate **gate);

#endif
