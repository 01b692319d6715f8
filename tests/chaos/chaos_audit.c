/* What must hold after a round, judged by the store: the answers are held against it, never taken for it. Here the
 * orders; their stock is in chaos_audit_books.c.
 *
 * Opens the store as a reader and Redis past the proxy. Every violation is a sentence with its figures. */
#include "chaos_audit.h"

#include "doorbuster/gate_books.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define DRAIN_TIMEOUT_MS 10000
#define HEALING_TIMEOUT_MS                                                                                   \
    10000 /* the recorder compares 64 products every half second, and verify has to read them all */
#define LINES_BYTES 128
#define CANNOT_TELL 2 /* verify's exit code */

struct store *audit_open_store(void)
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
    struct store *store = audit_open_store();
    struct store_position position;
    assert_int_equal(store_position(store, &position), STORE_OK);
    store_close(&store);
    return position.last_order_id;
}

int64_t audit_store_id(void)
{
    struct store *store = audit_open_store();
    struct store_position position;
    assert_int_equal(store_position(store, &position), STORE_OK);
    store_close(&store);
    return position.store_id;
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
    int64_t deadline = deadline_in((audit->round->flags & (EDITED | LIES)) != 0 ? HEALING_TIMEOUT_MS : 0);
    char *text = bench_verify(&exit_code), *rest;
    bool fails_over =
        (audit->round->flags & FAILED_OVER) != 0; /* a late one leaves it nothing to compare for a moment */
    deadline = fails_over ? deadline_in(HEALING_TIMEOUT_MS) : deadline;
    while ((fails_over ? exit_code == CANNOT_TELL : exit_code != 0) &&
           wait_a_moment(deadline)) { /* the healing is on its way */
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
static void read_order(struct audit *audit, int64_t id, struct audited_order *out)
{
    struct round *round = audit->round;
    struct store_order *order = &out->order;
    size_t room = sizeof out->more / sizeof out->more[0];
    if (store_find_order(audit->store, id, order) != STORE_OK) {
        violation(round, "order %" PRId64 " is missing: the ids have a gap", id);
        *out = (struct audited_order){.order.state = ORDER_REJECTED, .explained = true};
        return;
    }
    order->sale.more = out->more;
    if (order->part_count > 1 &&
        (order->part_count - 1 > room ||
         store_order_parts(audit->store, id, out->more, room, &order->sale.more_count) != STORE_OK)) {
        violation(round, "order %" PRId64 " has %zu parts, which cannot be read", id, order->part_count);
    }
    if (order_part_count(&order->sale) != order->part_count) {
        violation(round, "order %" PRId64 " says that it has %zu parts, and has %zu", id, order->part_count,
                  order_part_count(&order->sale));
    }
    out->explained = order->state == ORDER_REJECTED;
    if (order->state == ORDER_REJECTED && (round->flags & REJECTS) == 0) {
        violation(round, "order %" PRId64 " was rejected by the store", id);
    }
}

static void read_orders(struct audit *audit)
{
    struct round *round = audit->round;
    struct readings *read = &audit->read;
    audit->first = round->order_before + 1;
    round->order_last = audit_last_order();
    read->order_count = (size_t)(round->order_last - round->order_before);
    read->orders = calloc(read->order_count + 1, sizeof *read->orders);
    assert_non_null(read->orders);
    for (size_t i = 0; i < read->order_count; i++) {
        read_order(audit, audit->first + (int64_t)i, &read->orders[i]);
    }
}

static void read_products(struct audit *audit)
{
    for (size_t i = 0; i < PRODUCTS; i++) {
        int64_t id = audit->round->products[i];
        if (store_find_product(audit->store, id, &audit->read.products[i]) != STORE_OK) {
            violation(audit->round, "product %" PRId64 " is not in the store", id);
        }
    }
}

struct audited_order *audit_find_order(struct audit *audit, int64_t id)
{
    bool within = id >= audit->first && id < audit->first + (int64_t)audit->read.order_count;
    return within ? &audit->read.orders[id - audit->first] : NULL;
}

unsigned audit_place_of(const struct round *round, int64_t product_id)
{
    unsigned i = 0;
    while (i < PRODUCTS && round->products[i] != product_id) {
        i++;
    }
    return i;
}

/* Is there this part in the order, at *at? Steps over it. */
static bool has_part(const struct sale_order *sale, size_t *at, int64_t product_id, int64_t quantity,
                     bool is_component)
{
    if (*at >= order_part_count(sale)) {
        return false;
    }
    struct order_part part = order_part_at(sale, (*at)++);
    return part.product_id == product_id && part.quantity == quantity && part.is_component == is_component;
}

static bool has_line(const struct audit *audit, const struct sale_order *sale, size_t *at,
                     const struct wish_line *line, bool remaining_too)
{
    const int64_t *products = audit->round->products;
    bool so = *at < order_part_count(sale) &&
              (!remaining_too || order_part_at(sale, *at).remaining == line->remaining);
    so = has_part(sale, at, products[line->product], line->quantity, false) && so;
    for (unsigned i = 0; line->product == BUNDLE && i < PRODUCTS; i++) {
        if (bundle_units[i] > 0) {
            so = has_part(sale, at, products[i], bundle_units[i] * line->quantity, true) && so;
        }
    }
    return so;
}

/* Exactly what was wished for, by whom, with which key: nothing more, nothing less. `told`: and was its buyer told what
 * remained? */
static bool is_of(const struct audit *audit, const struct store_order *order, const struct wish *wish,
                  bool told)
{
    char key[KEY_BYTES];
    size_t at = 0;
    bool so = wish->kind == WISH_PURCHASE && order->sale.user_id == buyers_user(wish->person);
    for (size_t i = 0; so && i < wish->line_count; i++) {
        so = has_line(audit, &order->sale, &at, &wish->lines[i], told);
    }
    if (!so || at != order_part_count(&order->sale)) {
        return false;
    }
    buyers_key(wish, key);
    return strcmp(order->idempotency_key, key) == 0;
}

static const char *parts_text(const struct sale_order *sale, char out[LINES_BYTES])
{
    size_t used = 0;
    out[0] = '\0';
    for (size_t i = 0; i < order_part_count(sale) && used < LINES_BYTES; i++) {
        struct order_part part = order_part_at(sale, i);
        used += (size_t)snprintf(out + used, LINES_BYTES - used,
                                 "%s%" PRId64 " of %" PRId64 " (%" PRId64 " left)",
                                 i == 0              ? ""
                                 : part.is_component ? " - "
                                                     : " + ",
                                 part.quantity, part.product_id, part.remaining);
    }
    return out;
}

static const char *lines_text(const struct round *round, const struct wish *wish, char out[LINES_BYTES])
{
    size_t used = 0;
    for (size_t i = 0; i < wish->line_count && used < LINES_BYTES; i++) {
        const struct wish_line *line = &wish->lines[i];
        used += (size_t)snprintf(out + used, LINES_BYTES - used,
                                 "%s%" PRId64 " of %" PRId64 " (%" PRId64 " left)", i == 0 ? "" : " + ",
                                 line->quantity, round->products[line->product], line->remaining);
    }
    return out;
}

static void check_confirmed(struct audit *audit, const struct wish *wish)
{
    struct audited_order *audited = audit_find_order(audit, wish->order);
    int64_t user_id = buyers_user(wish->person);
    if (audited == NULL || audited->order.state == ORDER_REJECTED) {
        violation(audit->round, "order %" PRId64 " was confirmed to user %" PRId64 ", but is %s", wish->order,
                  user_id,
                  audited == NULL ? "not one of this round's orders in the store" : "not in the store");
        return;
    }
    if (audited->explained) {
        violation(audit->round, "order %" PRId64 " was confirmed twice, the second time to user %" PRId64,
                  wish->order, user_id);
    }
    audited->explained = true;
    if (!is_of(audit, &audited->order, wish, true)) {
        char told[LINES_BYTES], stored[LINES_BYTES], key[KEY_BYTES];
        buyers_key(wish, key);
        violation(audit->round,
                  "order %" PRId64 " was confirmed to user %" PRId64 " as %s, key \"%s\"; the store has %s "
                  "to %" PRId64 ", key \"%s\"",
                  wish->order, user_id, lines_text(audit->round, wish, told), key,
                  parts_text(&audited->order.sale, stored), audited->order.sale.user_id,
                  audited->order.idempotency_key);
    }
}

int64_t audit_wall_ms(const struct audit *audit, int64_t monotonic_us)
{
    return (monotonic_us + audit->wall_less_monotonic_us) / 1000;
}

/* An order that nobody was told of: somebody must have asked for it, and not know what came of it. */
static void explain(struct audit *audit, const struct store_order *order)
{
    const struct wish *settled = NULL;
    char stored[LINES_BYTES];
    for (size_t i = 0; i < history.wish_count; i++) {
        struct wish *wish = &history.wishes[i];
        bool fits = !wish->matched && is_of(audit, order, wish, false) &&
                    audit_wall_ms(audit, wish->first_sent_us) <= order->at_ms + CLOCK_TOLERANCE_MS;
        if (fits && wish->outcome == UNKNOWN) {
            wish->matched = true;
            history.sold_unavailable += wish->unavailable;
            history.sold_broken += !wish->unavailable;
            return;
        }
        if (fits && wish->attempts > 1) {
            settled = wish; /* repeated with its key, and then told something else */
        }
    }
    violation(audit->round, "order %" PRId64 " (user %" PRId64 ", %s) is in the store, but %s",
              order->sale.id, order->sale.user_id, parts_text(&order->sale, stored),
              settled == NULL ? "nobody asked for it who does not know its outcome"
              : settled->outcome == CONFIRMED
                  ? "its buyer, repeating with the same key, was given another order"
                  : "its buyer, repeating with the same key, was refused");
}

static void check_orders(struct audit *audit)
{
    for (size_t i = 0; i < history.wish_count; i++) {
        const struct wish *wish = &history.wishes[i];
        if (wish->kind == WISH_PURCHASE && wish->outcome == CONFIRMED) {
            check_confirmed(audit, wish);
        }
    }
    for (size_t i = 0; i < audit->read.order_count; i++) {
        if (!audit->read.orders[i].explained) {
            explain(audit, &audit->read.orders[i].order);
        }
    }
}

/* --- 4: first come ------------------------------------------------------------------------------------- */
static int by_first_sent(const void *a, const void *b)
{
    const struct wish *x = *(const struct wish *const *)a, *y = *(const struct wish *const *)b;
    return x->first_sent_us < y->first_sent_us ? -1 : x->first_sent_us > y->first_sent_us;
}

static int by_got(const void *a, const void *b)
{
    const struct wish *x = *(const struct wish *const *)a, *y = *(const struct wish *const *)b;
    return x->got_us < y->got_us ? -1 : x->got_us > y->got_us;
}

static void compare_in_turn(struct audit *audit, const struct wish **sent, const struct wish **got,
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
    const struct wish **sent = calloc(history.confirmed + 1, sizeof *sent),
                      **got = calloc(history.confirmed + 1, sizeof *got);
    size_t count = 0;
    assert_non_null(sent);
    assert_non_null(got);
    for (size_t i = 0; i < history.wish_count; i++) {
        if (history.wishes[i].kind == WISH_PURCHASE && history.wishes[i].outcome == CONFIRMED) {
            sent[count] = got[count] = &history.wishes[i];
            count++;
        }
    }
    qsort(sent, count, sizeof *sent, by_first_sent);
    qsort(got, count, sizeof *got, by_got);
    compare_in_turn(audit, sent, got, count);
    free(sent);
    free(got);
}

/* --- the whole ----------------------------------------------------------------------------------------- */
/* Broken or answered 503. Of several servers a breaker may have been open from the round before, until the fault. */
static size_t failed(const struct round *round)
{
    size_t count = 0;
    for (size_t i = 0; i < history.request_count; i++) {
        const struct request *request = &history.requests[i];
        count += (request->status == CROWD_BROKEN || request->status == 503) &&
                 !(is_several(round->mode) && request->got_us < round->first_fault_us);
    }
    return count;
}

static void check_answers(struct audit *audit)
{
    struct round *round = audit->round;
    bool strict = (round->flags & STRICT) != 0 && round->fault_count == 1;
    if (strict && failed(round) > 0) {
        violation(round, "%zu requests broken and %zu answered 503; not one may fail here", history.broken,
                  history.unavailable);
    }
    if (history.refused > history.rejected || (history.rejected > 0 && (round->flags & REJECTS) == 0)) {
        violation(round, "%zu purchases were answered 409 (%zu of them \"rejected\")", history.refused,
                  history.rejected);
    }
    bool may_be_missing = (round->flags & EDITED) != 0 && history.other_status == 404;
    if (history.other > 0 && !may_be_missing) {
        violation(round, "%zu requests were answered with a status that none may get, the last %d",
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

void audit_chain(struct round *round, struct store *store)
{
    struct store_chain_audit chain;
    if (store_audit_chain(store, &chain) != STORE_OK) {
        violation(round, "the audit log cannot be read: %s", store_error(store));
    } else if (chain.first_gap + chain.first_forged + chain.first_off + chain.first_backwards != 0) {
        violation(round,
                  "the audit log's chain is not whole: of its %" PRId64 " rows %" PRId64
                  " is missing, %" PRId64 " is not as it was written, %" PRId64
                  " does not follow on its product's, %" PRId64 " is before its predecessor (0: none)",
                  chain.rows, chain.first_gap, chain.first_forged, chain.first_off, chain.first_backwards);
    }
}

void audit_round(struct round *round)
{
    struct audit audit = {.round = round, .wall_less_monotonic_us = clock_difference_us()};
    audit.store = audit_open_store();
    if (is_redlock(round->mode)) {
        audit_meeting(&audit);
    } else {
        wait_until_drained(&audit);
    }
    check_verify(&audit);
    read_orders(&audit);
    read_products(&audit);
    audit_read_rows(&audit);
    if (options.self_test) {
        selftest_falsify_readings(&audit.read);
    }
    audit_by_sql(&audit);
    check_orders(&audit);
    audit_books(&audit);
    audit_cancels(&audit);
    audit_shortages(&audit);
    check_first_come(&audit);
    if (is_redlock(round->mode)) {
        audit_majority(&audit);
    } else if (is_several(round->mode)) {
        audit_going_on(&audit);
    }
    audit_chain(round, audit.store);
    check_answers(&audit);
    audit_remember(&audit);
    audit_books_free(&audit);
    free(audit.read.orders);
    store_close(&audit.store);
}
