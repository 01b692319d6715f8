/* What a gate driver is: gate.c calls it, a driver file fills it in. The other interface with drivers is the store; there is no third. */
#ifndef DOORBUSTER_GATE_DRIVER_H
#define DOORBUSTER_GATE_DRIVER_H

#include "doorbuster/breaker.h"
#include "doorbuster/gate.h"

#define GATE_PATIENCE_US 2000000
#define GATE_BREAKER_OPEN_MS 200

struct gate_driver {
    bool (*is_ready)(const struct gate *gate);
    void (*submit)(struct gate *gate,
                   struct gate_purchase *purchase); /* state QUEUED, request id given, within bounds */
    void (*turn)(struct gate *gate);
    void (*settled)(struct gate *gate, struct gate_purchase *purchase, enum gate_finding finding);
    void (*learned)(struct gate *gate, struct gate_lesson *lesson); /* NULL of one that never asks */
    void (*sold)(struct gate *gate, struct gate_batch *batch);      /* likewise */
    size_t (*parts)(const struct gate *gate, struct gate_part out[GATE_PARTS_MAX]);
    void (*close)(struct gate *gate);
};

/* admission.c's. */
struct admission {
    int64_t away_since_us; /* since when purchases cannot be sent; 0: they can */
    /* the first and the last of failed calls with no success between; 0: none */
    int64_t failing_since_us, failed_us;
    bool is_closed;  /* newcomers are turned away, whatever the breaker of Redis says */
    int64_t wait_ms; /* and told to come back after this */
    unsigned probes; /* half-open: let in since the last time they were counted anew */
    int64_t next_probes_us;
};

/* A driver's own struct begins with this. */
struct gate {
    const struct gate_driver *driver;
    struct gate_settings settings;
    size_t pending;
    uint64_t decisions;     /* counted by the driver */
    _Atomic uint64_t epoch; /* the driver's: see gate_epoch() */
    int64_t last_request;
    struct breaker redis, record; /* record: the driver's */
    struct admission admission;
};

struct gate *lua_gate_open(const struct gate_settings *settings);
struct gate *redlock_gate_open(const struct gate_settings *settings);

void gate_admission_init(struct gate *gate);
bool gate_admits(struct gate *gate);
/* For drivers, every few milliseconds. `away`: why purchases cannot be sent; NULL: they can. `wait_us`: what a newcomer would wait, as far as one knows. */
void gate_watch(struct gate *gate, int64_t now_us, const char *away, int64_t wait_us);
/* For drivers: a call, or a batch, that brought no answers. gate_answer() tells of the others. */
void gate_call_failed(struct gate *gate, const char *why);
void gate_call_succeeded(struct gate *gate);

/* Moves the purchase to its last state, counts it and hands it back. For drivers. */
void gate_answer(struct gate *gate, struct gate_purchase *purchase, enum purchase_state state);
void gate_refuse(struct gate *gate, struct gate_purchase *purchase,
                 enum refusal refusal); /* REFUSED, for this */

/* A first-in, first-out list of purchases. */
struct purchase_list {
    struct gate_purchase *first, *last;
    size_t count;
};
void purchase_list_append(struct purchase_list *list, struct gate_purchase *purchase);
void purchase_list_prepend(struct purchase_list *list, struct gate_purchase *purchase);
void purchase_list_join(struct purchase_list *list, struct purchase_list *tail); /* empties `tail` */
struct gate_purchase *purchase_list_take(struct purchase_list *list);            /* the first, or NULL */

/* Answers UNAVAILABLE whose deadline is not after `until_us`. All of the list is looked at: those that came back to it are not in the order of
 * their deadlines. For drivers. */
void gate_expire(struct gate *gate, struct purchase_list *list, int64_t until_us);

#endif
