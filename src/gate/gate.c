/* The gate's front: bounds what is in it, numbers the requests, counts the answers, and leaves the decision to a driver. A worker's loop
 * thread. Owns nothing; a gate that is full or away answers UNAVAILABLE at once (admission.c). */
#include "driver.h"

#include "doorbuster/check.h"
#include "doorbuster/clock.h"
#include "doorbuster/failpoint.h"
#include "doorbuster/metrics.h"

#include <sys/random.h>

struct gate *gate_open_for_worker(const struct gate_settings *settings)
{
    struct gate *gate =
        settings->place->kind == GATE_REDLOCK ? redlock_gate_open(settings) : lua_gate_open(settings);
    gate->settings = *settings;
    gate_admission_init(gate);
    /* Rising numbers from a random start, of 2^62, in each worker of each server, and in its successors: none knows of the others. Two ranges meet so seldom
     * (of a thousand workers that each have numbered a thousand million purchases, at 2 in 10,000) that order id, or user, and request together never do. */
    CHECK(getrandom(&gate->last_request, sizeof gate->last_request, 0) == sizeof gate->last_request);
    gate->last_request &= INT64_MAX >> 1;
    return gate;
}

bool gate_is_ready(const struct gate *gate)
{
    return gate->driver->is_ready(gate);
}

static void count_answer(const struct purchase *purchase)
{
    static const enum metrics_counter refused[REFUSALS] = {
        [-REFUSAL_INSUFFICIENT_STOCK] = METRICS_purchases_sold_out,
        [-REFUSAL_CUSTOMER_LIMIT] = METRICS_purchases_over_limit,
        [-REFUSAL_NOT_ON_SALE] = METRICS_purchases_not_on_sale,
        [-REFUSAL_REJECTED] = METRICS_purchases_rejected,
        [-REFUSAL_ALREADY_ORDERED] = METRICS_purchases_repeated,
        [-REFUSAL_NOT_OPEN] = METRICS_purchases_closed,
        [-REFUSAL_OVER] = METRICS_purchases_closed,
    };
    metrics_add(purchase->state == PURCHASE_CONFIRMED ? METRICS_purchases_confirmed
                : purchase->state == PURCHASE_REFUSED ? refused[-purchase->refusal]
                                                      : METRICS_purchases_unavailable,
                1);
}

void gate_answer(struct gate *gate, struct gate_purchase *purchase, enum purchase_state state)
{
    if (state == PURCHASE_CONFIRMED && failpoint("gate.confirm")) {
        state = PURCHASE_UNAVAILABLE; /* as if it had been too late */
    }
    purchase_move(&purchase->purchase, state);
    count_answer(&purchase->purchase);
    if (state != PURCHASE_UNAVAILABLE) {
        gate_call_succeeded(gate);
    }
    gate->pending--;
    purchase->cb(purchase, purchase->context);
}

void gate_refuse(struct gate *gate, struct gate_purchase *purchase, enum refusal refusal)
{
    purchase->purchase.refusal = refusal;
    gate_answer(gate, purchase, PURCHASE_REFUSED);
}

void gate_expire(struct gate *gate, struct purchase_list *list, int64_t until_us)
{
    struct purchase_list kept = {0};
    struct gate_purchase *purchase;
    while ((purchase = purchase_list_take(list)) != NULL) {
        if (purchase->deadline_us <= until_us) {
            gate_answer(gate, purchase, PURCHASE_UNAVAILABLE);
        } else {
            purchase_list_append(&kept, purchase);
        }
    }
    purchase_list_join(&kept, list); /* whatever an answer has let in meanwhile */
    *list = kept;
}

/* It was never in here: safe to say that nothing was bought. */
static void turn_away(struct gate *gate, struct gate_purchase *purchase)
{
    metrics_add(METRICS_shed_purchase, 1);
    purchase->purchase.turned_away = true;
    purchase->purchase.wait_ms = gate->admission.wait_ms;
    gate->pending++;
    gate_answer(gate, purchase, PURCHASE_UNAVAILABLE);
}

void gate_submit(struct gate *gate, struct gate_purchase *purchase)
{
    struct purchase *asked = &purchase->purchase;
    CHECK(asked->state == PURCHASE_QUEUED && asked->order.id == 0);
    CHECK(asked->order.more_count < CART_LINES_MAX);
    asked->order.request = ++gate->last_request;
    purchase->deadline_us = clock_monotonic_us() + (int64_t)GATE_DEADLINE_MS * 1000;
    if (!gate_admits(gate)) {
        turn_away(gate, purchase);
        return;
    }
    gate->pending++;
    gate->driver->submit(gate, purchase);
}

void gate_turn(struct gate *gate)
{
    gate->driver->turn(gate);
}

void gate_settled(struct gate *gate, struct gate_purchase *purchase, enum gate_finding finding)
{
    gate->driver->settled(gate, purchase, finding);
}

void gate_learned(struct gate *gate, struct gate_lesson *lesson)
{
    gate->driver->learned(gate, lesson);
}

void gate_sold(struct gate *gate, struct gate_batch *batch)
{
    gate->driver->sold(gate, batch);
}

size_t gate_parts(const struct gate *gate, struct gate_part out[GATE_PARTS_MAX])
{
    return gate->driver->parts(gate, out);
}

uint64_t gate_decisions(const struct gate *gate)
{
    return gate->decisions;
}

uint64_t gate_epoch(const struct gate *gate)
{
    return gate->epoch;
}

size_t gate_pending(const struct gate *gate)
{
    return gate->pending;
}

void gate_close_for_worker(struct gate **gate)
{
    CHECK((*gate)->pending == 0);
    (*gate)->driver->close(*gate);
    *gate = NULL;
}

/* --- lists ------------------------------------------------------------------------------------------------------------------ */
void purchase_list_append(struct purchase_list *list, struct gate_purchase *purchase)
{
    purchase->next = NULL;
    list->count++;
    if (list->last != NULL) {
        list->last->next = purchase;
    } else {
        list->first = purchase;
    }
    list->last = purchase;
}

void purchase_list_prepend(struct purchase_list *list, struct gate_purchase *purchase)
{
    purchase->next = list->first;
    list->first = purchase;
    list->count++;
    if (list->last == NULL) {
        list->last = purchase;
    }
}

void purchase_list_join(struct purchase_list *list, struct purchase_list *tail)
{
    if (tail->first != NULL) {
        if (list->last != NULL) {
            list->last->next = tail->first;
        } else {
            list->first = tail->first;
        }
        list->last = tail->last;
        list->count += tail->count;
    }
    *tail = (struct purchase_list){0};
}

struct gate_purchase *purchase_list_take(struct purchase_list *list)
{
    struct gate_purchase *first = list->first;
    if (first != NULL) {
        list->count--;
        list->first = first->next;
        if (list->first == NULL) {
            list->last = NULL;
        }
        first->next = NULL;
    }
    return first;
}
