/* The stock after a round: every movement of it is worked out from the orders, from what was cancelled and from what the
 * admins asked for, and must be what the audit log and the products' books say.
 *
 * The audit log is walked entry by entry of the sales log. Owns the points of stock over time that come of it, which
 * chaos_audit_answers.c reads. */
#include "chaos_audit.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ROWS_AT_ONCE 256

/* --- the audit log's rows of the round ----------------------------------------------------------------- */
int64_t audit_last_row(void)
{
    struct store *store = audit_open_store();
    struct store_audit_row row = {0};
    size_t count;
    assert_int_equal(store_audit_log(store, INT64_MAX, 0, &row, 1, &count), STORE_OK);
    store_close(&store);
    return row.seq;
}

static void turn_around(struct store_audit_row *rows, size_t count)
{
    for (size_t i = 0; i < count / 2; i++) {
        struct store_audit_row row = rows[i];
        rows[i] = rows[count - 1 - i];
        rows[count - 1 - i] = row;
    }
}

void audit_read_rows(struct audit *audit)
{
    struct readings *read = &audit->read;
    int64_t before = INT64_MAX;
    size_t room = 0, count = ROWS_AT_ONCE;
    while (count == ROWS_AT_ONCE && before > audit->round->row_before + 1) {
        room = read->row_count + ROWS_AT_ONCE + 1; /* and one for who falsifies */
        read->rows = realloc(read->rows, room * sizeof *read->rows);
        assert_non_null(read->rows);
        assert_int_equal(
            store_audit_log(audit->store, before, 0, &read->rows[read->row_count], ROWS_AT_ONCE, &count),
            STORE_OK);
        read->row_count += count;
        before = count > 0 ? read->rows[read->row_count - 1].seq : 0;
    }
    while (read->row_count > 0 && read->rows[read->row_count - 1].seq <= audit->round->row_before) {
        read->row_count--;
    }
    turn_around(read->rows, read->row_count);
}

/* --- the walk ------------------------------------------------------------------------------------------ */
struct walk {
    struct audit *audit;
    int64_t stock[PRODUCTS],
        before[PRODUCTS]; /* after the entry, and before it. The bundle's: less those sold */
    size_t next_order;    /* the first that the audit log has not come to */
};

static bool has_cause(const struct store_audit_row *row, const char *cause)
{
    return strcmp(row->cause, cause) == 0;
}

static bool is_change(const struct store_audit_row *row)
{
    return has_cause(row, "restock") || has_cause(row, "withdrawal");
}

static bool same_position(struct log_position a, struct log_position b)
{
    return log_position_compare(a, b) == 0;
}

/* What Redis said of its stock may then be wrong; what it did may not. */
static bool is_edited(const struct round *round)
{
    return (round->flags & (REJECTS | EDITED)) != 0;
}

/* What it says that was left must be what was. A bundle's components follow it, and had been taken already. */
static void check_remaining(const struct walk *walk, int64_t order, const struct order_part *part,
                            unsigned place)
{
    int64_t stock[PRODUCTS];
    memcpy(stock, walk->stock, sizeof stock);
    for (unsigned i = 0; place == BUNDLE && i < PRODUCTS; i++) {
        stock[i] -= bundle_units[i] * part->quantity;
    }
    int64_t left = place == BUNDLE ? audit_bundles_in(stock) : stock[place];
    if (part->remaining != left && !is_edited(walk->audit->round)) {
        violation(walk->audit->round,
                  "order %" PRId64 " says that it left %" PRId64 " of product %" PRId64 "; it left %" PRId64,
                  order, part->remaining, part->product_id, left);
    }
}

static void take_order(struct walk *walk, const struct sale_order *sale)
{
    for (size_t i = 0; i < order_part_count(sale); i++) {
        struct order_part part = order_part_at(sale, i);
        unsigned place = audit_place_of(walk->audit->round, part.product_id);
        if (place == PRODUCTS) {
            violation(walk->audit->round,
                      "order %" PRId64 " is of product %" PRId64 ", which is none of the round's", sale->id,
                      part.product_id);
            continue;
        }
        walk->stock[place] -= part.quantity;
        check_remaining(walk, sale->id, &part, place);
    }
}

static void take_orders(struct walk *walk, struct log_position position)
{
    const struct readings *read = &walk->audit->read;
    for (; walk->next_order < read->order_count; walk->next_order++) {
        const struct store_order *order = &read->orders[walk->next_order].order;
        if (order->state == ORDER_REJECTED) {
            continue;
        }
        int later = log_position_compare(order->position, position);
        if (later > 0) {
            return;
        }
        if (later < 0) {
            violation(walk->audit->round, "order %" PRId64 " has moved no stock in the audit log",
                      order->sale.id);
        } else {
            take_order(walk, &order->sale);
        }
    }
}

/* All rows of one cancellation name its order. */
static void give_back(struct walk *walk, const struct store_audit_row *row, bool first)
{
    int64_t id = 0;
    struct audited_order *audited = NULL;
    if (sscanf(row->note, "order %" SCNd64, &id) == 1) {
        audited = audit_find_order(walk->audit, id);
    }
    unsigned place = audit_place_of(walk->audit->round, row->product_id);
    if (audited == NULL || place == PRODUCTS) {
        violation(walk->audit->round,
                  "row %" PRId64 " of the audit log gives %" PRId64 " of product %" PRId64 " back of \"%s\"",
                  row->seq, row->delta, row->product_id, row->note);
        return;
    }
    audited->given_back[place]++;
    if (audited->order.cancelled_at_ms != row->at_ms || audited->order.cancelled_by != row->actor) {
        violation(walk->audit->round,
                  "order %" PRId64 " was cancelled at %" PRId64 " by user %" PRId64 "; row %" PRId64
                  " of the audit log says at %" PRId64 " by user %" PRId64,
                  id, audited->order.cancelled_at_ms, audited->order.cancelled_by, row->seq, row->at_ms,
                  row->actor);
    }
    for (size_t i = 0; first && i < order_part_count(&audited->order.sale); i++) {
        struct order_part part = order_part_at(&audited->order.sale, i);
        place = audit_place_of(walk->audit->round, part.product_id);
        if (place < PRODUCTS) {
            walk->stock[place] += part.quantity;
        }
    }
}

/* --- what admins asked for ----------------------------------------------------------------------------- */
static bool is_of_change(const struct audit *audit, const struct store_audit_row *row,
                         const struct wish *wish)
{
    char key[KEY_BYTES];
    buyers_key(wish, key);
    return wish->kind == WISH_CHANGE && row->actor == buyers_user(wish->person) &&
           strcmp(row->key, key) == 0 && row->product_id == audit->round->products[wish->lines[0].product] &&
           row->delta == wish->lines[0].quantity;
}

/* By the key. Without one it is that which was told this entry, else any whose outcome nobody knows. */
static struct wish *find_change(const struct audit *audit, const struct store_audit_row *row)
{
    struct wish *unknown = NULL;
    for (size_t i = 0; i < history.wish_count; i++) {
        struct wish *wish = &history.wishes[i];
        if (!is_of_change(audit, row, wish)) {
            continue;
        }
        if (wish->keyed || (wish->outcome == CONFIRMED && same_position(wish->position, row->position))) {
            return wish;
        }
        if (wish->outcome == UNKNOWN && !wish->matched) {
            unknown = wish;
        }
    }
    return unknown;
}

static void apply_change(struct walk *walk, const struct store_audit_row *row)
{
    struct round *round = walk->audit->round;
    struct wish *wish = find_change(walk->audit, row);
    unsigned place = audit_place_of(round, row->product_id);
    const char *fault = wish == NULL                 ? "nobody asked for that"
                        : wish->matched              ? "it was applied already"
                        : wish->outcome == SOLD_OUT  ? "the admin was told that there is too little"
                        : wish->outcome != CONFIRMED ? NULL
                        : wish->stock != row->to && !is_edited(round) ? "the admin was told another stock"
                        : !same_position(wish->position, row->position)
                            ? "the admin was told another position"
                            : NULL;
    if (fault != NULL) {
        violation(round,
                  "row %" PRId64 " of the audit log: %s of %" PRId64 " of product %" PRId64
                  " by user %" PRId64 ", key \"%s\", %" PRId64 " afterwards; but %s",
                  row->seq, row->cause, row->delta, row->product_id, row->actor, row->key, row->to, fault);
    }
    if (wish != NULL) {
        wish->matched = true;
    }
    if (place < BUNDLE) {
        walk->stock[place] += row->delta;
    }
}

static void check_changes(const struct audit *audit)
{
    for (size_t i = 0; i < history.wish_count; i++) {
        const struct wish *wish = &history.wishes[i];
        if (wish->kind == WISH_CHANGE && wish->outcome == CONFIRMED && !wish->matched) {
            char key[KEY_BYTES];
            buyers_key(wish, key);
            violation(audit->round,
                      "user %" PRId64 " was told that the stock of product %" PRId64
                      " was changed by %" PRId64 " (key \"%s\", entry %" PRIu64 "-%" PRIu64
                      "), and the audit log does not have it; %+" PRId64 " ms from the fault",
                      buyers_user(wish->person), audit->round->products[wish->lines[0].product],
                      wish->lines[0].quantity, key, wish->position.epoch, wish->position.n,
                      (wish->got_us - audit->round->fault_us) / 1000);
        }
    }
}

/* --- entry by entry ------------------------------------------------------------------------------------ */
static void apply_row(struct walk *walk, const struct store_audit_row *row, bool first)
{
    struct round *round = walk->audit->round;
    unsigned place = audit_place_of(round, row->product_id);
    if (!row->applied) {
        bool may_be = is_change(row) && (round->flags & REJECTS) != 0;
        if (!may_be) {
            violation(round,
                      "row %" PRId64 " of the audit log, a %s of %" PRId64 " of product %" PRId64
                      " (%s), did not fit the store",
                      row->seq, row->cause, row->delta, row->product_id, row->note);
        }
    } else if (has_cause(row, "sale")) {
        take_orders(walk, row->position);
    } else if (has_cause(row, "cancel")) {
        give_back(walk, row, first);
    } else if (is_change(row)) {
        apply_change(walk, row);
    } else if (has_cause(row, "opening") && place < BUNDLE) {
        walk->stock[place] += round->stocks[place];
    }
}

static void check_row(const struct walk *walk, const struct store_audit_row *row)
{
    unsigned place = audit_place_of(walk->audit->round, row->product_id);
    if (place == PRODUCTS) {
        if (row->delta != 0) {
            violation(walk->audit->round,
                      "row %" PRId64 " of the audit log moves product %" PRId64 " of another round", row->seq,
                      row->product_id);
        }
        return;
    }
    bool has_stock = place != BUNDLE;
    int64_t from = has_stock ? walk->before[place] : 0, to = has_stock ? walk->stock[place] : 0;
    int64_t delta = walk->stock[place] - walk->before[place];
    if (row->from != from || row->to != to || (row->applied && row->delta != delta)) {
        violation(walk->audit->round,
                  "row %" PRId64 " of the audit log: a %s of %" PRId64 " of product %" PRId64 ", %" PRId64
                  " to %" PRId64 "; by orders, cancels and changes it was %" PRId64 ", %" PRId64
                  " to %" PRId64,
                  row->seq, row->cause, row->delta, row->product_id, row->from, row->to, delta, from, to);
    }
}

static void add_point(struct audit *audit, unsigned place, const struct stock_point *point)
{
    audit->points[place][audit->point_count[place]++] = *point;
}

/* The wish that this row, of a cancel or a change, has fulfilled, and whose answer says so. */
static bool has_heard_of(const struct audit *audit, const struct store_audit_row *row,
                         const struct wish *wish)
{
    int64_t order;
    if (wish->outcome != CONFIRMED || buyers_user(wish->person) != row->actor) {
        return false;
    }
    return wish->kind == WISH_CANCEL
               ? has_cause(row, "cancel") && sscanf(row->note, "order %" SCNd64, &order) == 1 &&
                     wish->order == order
               : wish->kind == WISH_CHANGE && is_of_change(audit, row, wish) &&
                     same_position(wish->position, row->position);
}

/* See struct stock_point. */
static int64_t told_ms(const struct audit *audit, const struct store_audit_row *row)
{
    if (has_cause(row, "opening")) {
        return row->at_ms; /* the buyers came later */
    }
    for (size_t i = 0; (has_cause(row, "cancel") || has_cause(row, "restock")) && i < history.wish_count;
         i++) {
        if (has_heard_of(audit, row, &history.wishes[i])) {
            return audit_wall_ms(audit, history.wishes[i].got_us);
        }
    }
    return INT64_MAX;
}

/* The row must go on from where the stock was; if it does not, that is said once, and the walk goes on from the row. */
static void begin_row(struct walk *walk, const struct store_audit_row *row)
{
    unsigned place = audit_place_of(walk->audit->round, row->product_id);
    if (place < BUNDLE && row->from != walk->stock[place]) {
        violation(walk->audit->round,
                  "row %" PRId64 " of the audit log: a %s of %" PRId64 " of product %" PRId64
                  " found %" PRId64 " in stock; by orders, cancels and changes it was %" PRId64,
                  row->seq, row->cause, row->delta, row->product_id, row->from, walk->stock[place]);
        walk->stock[place] = row->from;
    }
}

/* All rows of one entry of the sales log. */
static void walk_entry(struct walk *walk, const struct store_audit_row *rows, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        begin_row(walk, &rows[i]);
    }
    memcpy(walk->before, walk->stock, sizeof walk->before);
    for (size_t i = 0; i < count; i++) {
        apply_row(walk, &rows[i], i == 0);
    }
    for (size_t i = 0; i < count; i++) {
        check_row(walk, &rows[i]);
    }
    for (unsigned place = 0; place < BUNDLE; place++) {
        if (walk->stock[place] != walk->before[place]) {
            struct stock_point point = {.at_ms = rows[0].at_ms,
                                        .stock = walk->stock[place],
                                        .told_ms = told_ms(walk->audit, &rows[0])};
            add_point(walk->audit, place, &point);
        }
    }
}

static void walk_rows(struct walk *walk)
{
    struct audit *audit = walk->audit;
    const struct readings *read = &audit->read;
    for (unsigned i = 0; i < PRODUCTS; i++) {
        audit->points[i] = calloc(read->row_count + 1, sizeof *audit->points[i]);
        assert_non_null(audit->points[i]);
    }
    for (size_t i = 0, end; i < read->row_count; i = end) {
        for (end = i + 1;
             end < read->row_count && same_position(read->rows[end].position, read->rows[i].position);
             end++) {
        }
        walk_entry(walk, &read->rows[i], end - i);
    }
    take_orders(walk, (struct log_position){UINT64_MAX, UINT64_MAX});
}

void audit_books_free(struct audit *audit)
{
    for (unsigned i = 0; i < PRODUCTS; i++) {
        free(audit->points[i]);
    }
    free(audit->read.rows);
}

/* --- the products' books ------------------------------------------------------------------------------- */
static void check_product(const struct walk *walk, unsigned place)
{
    const struct audit *audit = walk->audit;
    const struct store_product *product = &audit->read.products[place];
    int64_t sold = 0, cancelled = 0, restocked = 0;
    for (size_t i = 0; i < audit->read.order_count; i++) {
        const struct store_order *order = &audit->read.orders[i].order;
        for (size_t j = 0; order->state != ORDER_REJECTED && j < order_part_count(&order->sale); j++) {
            struct order_part part = order_part_at(&order->sale, j);
            int64_t units = part.product_id == product->id ? part.quantity : 0;
            sold += units;
            cancelled += order->state == ORDER_CANCELLED ? units : 0;
        }
    }
    for (size_t i = 0; i < history.wish_count; i++) {
        const struct wish *wish = &history.wishes[i];
        restocked += wish->kind == WISH_CHANGE && wish->matched && wish->lines[0].product == place
                         ? wish->lines[0].quantity
                         : 0;
    }
    int64_t opening = audit->round->stocks[place];
    int64_t stock = place == BUNDLE ? 0 : opening + restocked + cancelled - sold;
    if (product->opening != opening || product->sold != sold || product->cancelled != cancelled ||
        product->restocked != restocked || product->stock != stock || stock < 0) {
        violation(audit->round,
                  "product %" PRId64 ": opening %" PRId64 ", restocked %" PRId64 ", cancelled %" PRId64
                  ", sold %" PRId64 ", stock %" PRId64 "; put up were %" PRId64 ", admins added %" PRId64
                  ", the orders have %" PRId64 " units, cancelled ones %" PRId64 ": %" PRId64 " are left",
                  product->id, product->opening, product->restocked, product->cancelled, product->sold,
                  product->stock, opening, restocked, sold, cancelled, stock);
    }
}

void audit_books(struct audit *audit)
{
    struct walk walk = {.audit = audit};
    walk_rows(&walk);
    check_changes(audit);
    for (unsigned i = 0; i < PRODUCTS; i++) {
        check_product(&walk, i);
    }
}
