/* What must hold after a round, judged by the store: the answers are held against it, never taken for it.
 *
 * Opens the store as a reader and Redis past the proxy. Every violation is a sentence with its figures. Keeps the
 * list of everything that was ever confirmed from this store, for the last audit. */
#include "chaos.h"

#include "doorbuster/gate_books.h"
#include "doorbuster/store.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define DRAIN_TIMEOUT_MS 10000
#define HEALING_TIMEOUT_MS                                                                                   \
    10000 /* the recorder compares 64 products every half second, and verify has to read them all */
#define CLOCK_TOLERANCE_MS 3
#define FORGOTTEN_BEFORE_US 200000 /* reservations that were not recorded when the fault came are younger */
#define FORGOTTEN_AFTER_US 1100000 /* a worker remembers "sold out" for a second */

struct acknowledged {
    int64_t order, user_id, product_id, quantity;
};

static struct {
    struct acknowledged *list;
    size_t count, room;
} told;

struct audit {
    struct round *round;
    struct store *store;
    struct store_order *orders; /* first .. first + count - 1 */
    bool *explained;            /* by a confirmed purchase, or by one of unknown outcome */
    int64_t first;
    size_t count;
    int64_t wall_less_monotonic_us;
};

static struct store *open_store(void)
{
    struct store *store;
    char error[512];
    if (store_open(&store, bench.server.store_url, STORE_READER, error, sizeof error) != STORE_OK) {
        fail_msg("%s", error);
    }
    return store;
}

int64_t audit_last_order(void)
{
    struct store *store = open_store();
    struct store_position position;
    assert_int_equal(store_position(store, &position), STORE_OK);
    store_close(&store);
    return position.last_order_id;
}

/* --- 1: drained, and what verify says ------------------------------------------------------------------ */
static bool is_drained(struct store *store, struct gate_head *head, struct store_position *position)
{
    redisContext *redis = bench_connect();
    bool known = redis != NULL && gate_read_head(redis, head) && store_position(store, position) == STORE_OK;
    if (redis != NULL) {
        redisFree(redis);
    }
    return known && head->exists && head->epoch == position->epoch &&
           log_position_compare(head->log_last, position->recorded) == 0;
}

static void wait_until_drained(struct audit *audit)
{
    struct gate_head head = {0};
    struct store_position position = {0};
    int64_t deadline = deadline_in(DRAIN_TIMEOUT_MS);
    while (!is_drained(audit->store, &head, &position)) {
        if (!wait_a_moment(deadline)) {
            violation(audit->round,
                      "%d ms after the last answer the gate (epoch %" PRIu64 ", log at %" PRIu64 "-%" PRIu64
                      ") and the store (epoch %" PRIu64 ", %" PRIu64 "-%" PRIu64 ") do not meet",
                      DRAIN_TIMEOUT_MS, head.epoch, head.log_last.epoch, head.log_last.n, position.epoch,
                      position.recorded.epoch, position.recorded.n);
            return;
        }
    }
}

static void check_verify(struct audit *audit)
{
    int exit_code;
    int64_t deadline = deadline_in((audit->round->flags & EDITED) != 0 ? HEALING_TIMEOUT_MS : 0);
    char *text = bench_verify(&exit_code), *rest;
    while (exit_code != 0 && wait_a_moment(deadline)) { /* the healing is on its way */
        free(text);
        text = bench_verify(&exit_code);
    }
    for (char *line = exit_code != 0 ? strtok_r(text, "\n", &rest) : NULL; line != NULL;
         line = strtok_r(NULL, "\n", &rest)) {
        if (strncmp(line, "ok ", 3) != 0) {
            violation(audit->round, "verify (exit %d): %s", exit_code, line);
        }
    }
    free(text);
}

/* --- 2: every 201, every order ------------------------------------------------------------------------- */
static void read_orders(struct audit *audit)
{
    struct round *round = audit->round;
    audit->first = round->order_before + 1;
    round->order_last = audit_last_order();
    audit->count = (size_t)(round->order_last - round->order_before);
    audit->orders = calloc(audit->count + 1, sizeof *audit->orders);
    audit->explained = calloc(audit->count + 1, sizeof *audit->explained);
    assert_non_null(audit->orders);
    assert_non_null(audit->explained);
    for (size_t i = 0; i < audit->count; i++) {
        int64_t id = audit->first + (int64_t)i;
        if (store_find_order(audit->store, id, &audit->orders[i]) != STORE_OK) {
            violation(round, "order %" PRId64 " is missing: the ids have a gap", id);
            audit->explained[i] = true;
        } else if (audit->orders[i].state == ORDER_REJECTED) {
            audit->explained[i] = true;
            if ((round->flags & REJECTS) == 0) {
                violation(round, "order %" PRId64 " was rejected by the store", id);
            }
        }
    }
}

static struct store_order *find_order(struct audit *audit, int64_t id)
{
    bool within = id >= audit->first && id < audit->first + (int64_t)audit->count;
    return within ? &audit->orders[id - audit->first] : NULL;
}

static bool is_of(const struct sale_order *sale, const struct purchase *purchase)
{
    return sale->user_id == buyers_user(purchase->buyer) && sale->product_id == purchase->product_id &&
           sale->quantity == purchase->quantity;
}

static void check_confirmed(struct audit *audit, const struct purchase *purchase)
{
    const struct store_order *order = find_order(audit, purchase->order);
    int64_t user_id = buyers_user(purchase->buyer);
    if (order == NULL || order->sale.id == 0 || order->state != ORDER_CONFIRMED) {
        violation(audit->round, "order %" PRId64 " was confirmed to user %" PRId64 ", but is %s",
                  purchase->order, user_id,
                  order == NULL ? "not one of this round's orders in the store" : "not in the store");
        return;
    }
    bool *explained = &audit->explained[purchase->order - audit->first];
    if (*explained) {
        violation(audit->round, "order %" PRId64 " was confirmed twice, the second time to user %" PRId64,
                  purchase->order, user_id);
    }
    *explained = true;
    if (!is_of(&order->sale, purchase) || order->sale.remaining != purchase->remaining) {
        violation(audit->round,
                  "order %" PRId64 " was confirmed as %" PRId64 " of product %" PRId64 " to user %" PRId64
                  ", %" PRId64 " left; the store has %" PRId64 " of %" PRId64 " to %" PRId64 ", %" PRId64
                  " left",
                  purchase->order, purchase->quantity, purchase->product_id, user_id, purchase->remaining,
                  order->sale.quantity, order->sale.product_id, order->sale.user_id, order->sale.remaining);
    }
}

static int64_t wall_ms(const struct audit *audit, int64_t monotonic_us)
{
    return (monotonic_us + audit->wall_less_monotonic_us) / 1000;
}

/* An order that nobody was told of: somebody must have asked for it, and not know what came of it. */
static void explain(struct audit *audit, const struct store_order *order)
{
    const struct purchase *settled = NULL;
    for (size_t i = 0; i < history.purchase_count; i++) {
        struct purchase *purchase = &history.purchases[i];
        bool fits = !purchase->matched && is_of(&order->sale, purchase) &&
                    wall_ms(audit, purchase->first_sent_us) <= order->at_ms + CLOCK_TOLERANCE_MS;
        if (fits && purchase->outcome == UNKNOWN) {
            purchase->matched = true;
            history.sold_unavailable += purchase->unavailable;
            history.sold_broken += !purchase->unavailable;
            return;
        }
        if (fits && purchase->attempts > 1) {
            settled = purchase; /* repeated with its key, and then told something else */
        }
    }
    violation(
        audit->round,
        "order %" PRId64 " (user %" PRId64 ", %" PRId64 " of product %" PRId64 ") is in the store, but %s",
        order->sale.id, order->sale.user_id, order->sale.quantity, order->sale.product_id,
        settled == NULL                 ? "nobody asked for it who does not know its outcome"
        : settled->outcome == CONFIRMED ? "its buyer, repeating with the same key, was given another order"
                                        : "its buyer, repeating with the same key, was refused");
}

static void check_orders(struct audit *audit)
{
    for (size_t i = 0; i < history.purchase_count; i++) {
        if (history.purchases[i].outcome == CONFIRMED) {
            check_confirmed(audit, &history.purchases[i]);
        }
    }
    for (size_t i = 0; i < audit->count; i++) {
        if (!audit->explained[i]) {
            explain(audit, &audit->orders[i]);
        }
    }
}

static void check_product(struct audit *audit, size_t which)
{
    struct store_product product;
    int64_t units = 0, id = audit->round->products[which];
    if (store_find_product(audit->store, id, &product) != STORE_OK) {
        violation(audit->round, "product %" PRId64 " is not in the store", id);
        return;
    }
    for (size_t i = 0; i < audit->count; i++) {
        const struct store_order *order = &audit->orders[i];
        bool counts = order->sale.product_id == id && order->state == ORDER_CONFIRMED;
        units += counts ? order->sale.quantity : 0;
    }
    if (product.opening != audit->round->stocks[which] || product.sold + product.stock != product.opening ||
        product.stock < 0 || units != product.sold) {
        violation(audit->round,
                  "product %" PRId64 ": put up %" PRId64 ", opening %" PRId64 ", sold %" PRId64
                  ", stock %" PRId64 ", units in orders %" PRId64,
                  id, audit->round->stocks[which], product.opening, product.sold, product.stock, units);
    }
}

/* --- 3: sold out only when it was ---------------------------------------------------------------------- */
/* Products of a round are never restocked, so the stock at the end of the call was the lowest within it. */
static int64_t stock_at(const struct audit *audit, size_t which, int64_t at_ms)
{
    int64_t stock = audit->round->stocks[which];
    for (size_t i = 0; i < audit->count && audit->orders[i].at_ms <= at_ms; i++) {
        const struct store_order *order = &audit->orders[i];
        if (order->sale.product_id == audit->round->products[which] && order->state == ORDER_CONFIRMED) {
            stock -= order->sale.quantity;
        }
    }
    return stock;
}

/* Told on the strength of reservations that Redis then lost? */
static bool may_be_forgotten(const struct round *round, const struct purchase *purchase)
{
    return (round->flags & (FORGETS | REJECTS)) != 0 &&
           purchase->got_us >= round->first_fault_us - FORGOTTEN_BEFORE_US &&
           (round->recovered_us == 0 || purchase->first_sent_us <= round->recovered_us + FORGOTTEN_AFTER_US);
}

static void check_sold_out(struct audit *audit)
{
    for (size_t i = 0; i < history.purchase_count; i++) {
        const struct purchase *purchase = &history.purchases[i];
        if (purchase->outcome != SOLD_OUT || may_be_forgotten(audit->round, purchase)) {
            continue;
        }
        size_t which = purchase->product_id == audit->round->products[1];
        int64_t stock = stock_at(audit, which, wall_ms(audit, purchase->got_us) + CLOCK_TOLERANCE_MS);
        if (stock >= purchase->quantity) {
            violation(audit->round,
                      "user %" PRId64 " was told that %" PRId64 " of product %" PRId64
                      " cannot be had (%" PRId64 " available) when %" PRId64 " were left, %+" PRId64
                      " ms from the fault",
                      buyers_user(purchase->buyer), purchase->quantity, purchase->product_id,
                      purchase->remaining, stock, (purchase->got_us - audit->round->fault_us) / 1000);
        }
    }
}

/* --- 4: first come ------------------------------------------------------------------------------------- */
static int by_first_sent(const void *a, const void *b)
{
    const struct purchase *x = *(const struct purchase *const *)a, *y = *(const struct purchase *const *)b;
    return x->first_sent_us < y->first_sent_us ? -1 : x->first_sent_us > y->first_sent_us;
}

static int by_got(const void *a, const void *b)
{
    const struct purchase *x = *(const struct purchase *const *)a, *y = *(const struct purchase *const *)b;
    return x->got_us < y->got_us ? -1 : x->got_us > y->got_us;
}

static void compare_in_turn(struct audit *audit, const struct purchase **sent, const struct purchase **got,
                            size_t count)
{
    int64_t highest = 0; /* heard of before the purchase at hand was sent */
    for (size_t i = 0, heard = 0; i < count; i++) {
        for (; heard < count && got[heard]->got_us < sent[i]->first_sent_us; heard++) {
            highest = got[heard]->order > highest ? got[heard]->order : highest;
        }
        if (sent[i]->order < highest) {
            violation(audit->round,
                      "order %" PRId64 " was first asked for after order %" PRId64 " had been confirmed",
                      sent[i]->order, highest);
        }
    }
}

static void check_first_come(struct audit *audit)
{
    const struct purchase **sent = calloc(history.confirmed + 1, sizeof *sent),
                          **got = calloc(history.confirmed + 1, sizeof *got);
    size_t count = 0;
    assert_non_null(sent);
    assert_non_null(got);
    for (size_t i = 0; i < history.purchase_count; i++) {
        if (history.purchases[i].outcome == CONFIRMED) {
            sent[count] = got[count] = &history.purchases[i];
            count++;
        }
    }
    qsort(sent, count, sizeof *sent, by_first_sent);
    qsort(got, count, sizeof *got, by_got);
    compare_in_turn(audit, sent, got, count);
    free(sent);
    free(got);
}

/* --- 5: nothing confirmed is lost later either ---------------------------------------------------------- */
static void remember(void)
{
    for (size_t i = 0; i < history.purchase_count; i++) {
        const struct purchase *purchase = &history.purchases[i];
        if (purchase->outcome != CONFIRMED) {
            continue;
        }
        if (told.count == told.room) {
            told.room = told.room ? 2 * told.room : 4096;
            told.list = realloc(told.list, told.room * sizeof *told.list);
            assert_non_null(told.list);
        }
        told.list[told.count++] = (struct acknowledged){purchase->order, buyers_user(purchase->buyer),
                                                        purchase->product_id, purchase->quantity};
        report_acks_line(purchase->order, buyers_user(purchase->buyer), purchase->product_id,
                         purchase->quantity);
    }
}

size_t acknowledged_count(void)
{
    return told.count;
}

void acknowledged_forget(void)
{
    free(told.list);
    told.list = NULL;
    told.count = told.room = 0;
}

size_t audit_acknowledged(struct round *round)
{
    struct store *store = open_store();
    struct store_order order;
    size_t lost = 0;
    for (size_t i = 0; i < told.count; i++) {
        const struct acknowledged *one = &told.list[i];
        if (store_find_order(store, one->order, &order) != STORE_OK || order.state != ORDER_CONFIRMED ||
            order.sale.user_id != one->user_id || order.sale.product_id != one->product_id ||
            order.sale.quantity != one->quantity) {
            lost++;
            violation(round,
                      "order %" PRId64 " of user %" PRId64
                      " was confirmed, and is not in the store at the end",
                      one->order, one->user_id);
        }
    }
    store_close(&store);
    return lost;
}

/* --- the whole ----------------------------------------------------------------------------------------- */
static void check_answers(struct audit *audit)
{
    struct round *round = audit->round;
    if ((round->flags & STRICT) != 0 && history.broken + history.unavailable > 0) {
        violation(round, "%zu requests broken and %zu answered 503; not one may fail here", history.broken,
                  history.unavailable);
    }
    if (history.refused > history.rejected || (history.rejected > 0 && (round->flags & REJECTS) == 0)) {
        violation(round, "%zu purchases were answered 409 (%zu of them \"rejected\")", history.refused,
                  history.rejected);
    }
    bool may_be_missing = (round->flags & EDITED) != 0 && history.other_status == 404;
    if (history.other > 0 && !may_be_missing) {
        violation(round, "%zu purchases were answered with a status that none may get, the last %d",
                  history.other, history.other_status);
    }
    const char *bug = bench_log_bug();
    if (bug != NULL) {
        violation(round, "the server's log: %s", bug);
    }
}

static int64_t clock_difference_us(void)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000 - now_us();
}

void audit_round(struct round *round)
{
    struct audit audit = {.round = round, .wall_less_monotonic_us = clock_difference_us()};
    audit.store = open_store();
    wait_until_drained(&audit);
    check_verify(&audit);
    read_orders(&audit);
    check_orders(&audit);
    check_product(&audit, 0);
    check_product(&audit, 1);
    check_sold_out(&audit);
    check_first_come(&audit);
    check_answers(&audit);
    remember();
    free(audit.orders);
    free(audit.explained);
    store_close(&audit.store);
}
