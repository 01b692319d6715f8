/* What a gate driver is: gate.c calls it, a driver file fills it in. The other interface with drivers is the store; there is no third. */
#ifndef DOORBUSTER_GATE_DRIVER_H
#define DOORBUSTER_GATE_DRIVER_H

#include "doorbuster/gate.h"

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

/* A driver's own struct begins with this. */
struct gate {
    const struct gate_driver *driver;
    struct gate_settings settings;
    size_t pending;
    uint64_t decisions; /* counted by the driver */
    int64_t last_request;
};

struct gate *lua_gate_open(const struct gate_settings *settings);
struct gate *redlock_gate_open(const struct gate_settings *settings);

/* Moves the purchase to its last state, counts it and hands it back. For drivers. */
void gate_answer(struct gate *gate, struct gate_purchase *purchase, enum purchase_state state);

/* A first-in, first-out list of purchases. */
struct purchase_list {
    struct gate_purchase *first, *last;
    size_t count;
};
void purchase_list_append(struct purchase_list *list, struct gate_purchase *purchase);
void purchase_list_prepend(struct purchase_list *list, struct gate_purchase *purchase);
void purchase_list_join(struct purchase_list *list, struct purchase_list *tail); /* empties `tail` */
struct gate_purchase *purchase_list_take(struct purchase_list *list);            /* the first, or NULL */

#endif
