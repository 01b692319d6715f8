/* What people were told besides their orders: that one is cancelled, that there is too little in stock. The store must
 * have the one, and its stock over time must bear out the other. */
#include "chaos_audit.h"

#include <inttypes.h>

#define FORGOTTEN_BEFORE_US 200000 /* reservations that were not recorded when the fault came are younger */
#define FORGOTTEN_AFTER_US 1100000 /* a worker remembers "sold out" for a second */
#define MARK_MS 1000               /* and so long if the news of new stock does not reach it, */
#define NEWS_MS 20                 /* which it does within this */
#define TOLD_MS 100  /* so long after a commit all workers know of it, from a majority of nodes, */
#define KEPT_MS 1000 /* or so long if the keeper has to tell them */

/* --- cancels ------------------------------------------------------------------------------------------- */
static void check_cancel(struct audit *audit, const struct wish *wish)
{
    const struct audited_order *audited = audit_find_order(audit, wish->order);
    if (audited == NULL || audited->order.state != ORDER_CANCELLED ||
        audited->order.cancelled_at_ms != wish->cancelled_at_ms) {
        bool is_cancelled = audited != NULL && audited->order.state == ORDER_CANCELLED;
        violation(audit->round,
                  "user %" PRId64 " was told that order %" PRId64 " is cancelled, at %" PRId64
                  "; in the store it is %s, at %" PRId64 "; %+" PRId64 " ms from the fault",
                  buyers_user(wish->person), wish->order, wish->cancelled_at_ms,
                  is_cancelled ? "cancelled" : "not cancelled",
                  is_cancelled ? audited->order.cancelled_at_ms : 0,
                  (wish->got_us - audit->round->fault_us) / 1000);
    }
}

static bool was_asked_for(const struct audit *audit, const struct store_order *order)
{
    for (size_t i = 0; i < history.wish_count; i++) {
        const struct wish *wish = &history.wishes[i];
        if (wish->kind == WISH_CANCEL && wish->order == order->sale.id &&
            buyers_user(wish->person) == order->cancelled_by &&
            audit_wall_ms(audit, wish->first_sent_us) <= order->cancelled_at_ms + CLOCK_TOLERANCE_MS) {
            return true;
        }
    }
    return false;
}

static bool has_product(const struct sale_order *sale, int64_t product_id)
{
    for (size_t i = 0; i < order_part_count(sale); i++) {
        if (order_part_at(sale, i).product_id == product_id) {
            return true;
        }
    }
    return false;
}

static void check_given_back(const struct audit *audit, const struct audited_order *audited)
{
    const struct store_order *order = &audited->order;
    for (unsigned i = 0; i < PRODUCTS; i++) {
        int64_t id = audit->round->products[i];
        unsigned due = order->state == ORDER_CANCELLED && has_product(&order->sale, id);
        if (audited->given_back[i] != due) {
            violation(audit->round,
                      "product %" PRId64 " of order %" PRId64
                      ", which is %s, was given back %d times by the audit log",
                      id, order->sale.id, order->state == ORDER_CANCELLED ? "cancelled" : "not cancelled",
                      audited->given_back[i]);
        }
    }
}

void audit_cancels(struct audit *audit)
{
    for (size_t i = 0; i < history.wish_count; i++) {
        if (history.wishes[i].kind == WISH_CANCEL && history.wishes[i].outcome == CONFIRMED) {
            check_cancel(audit, &history.wishes[i]);
        }
    }
    for (size_t i = 0; i < audit->read.order_count; i++) {
        const struct audited_order *audited = &audit->read.orders[i];
        check_given_back(audit, audited);
        if (audited->order.state == ORDER_CANCELLED && !was_asked_for(audit, &audited->order)) {
            violation(audit->round,
                      "order %" PRId64 " was cancelled at %" PRId64 " by user %" PRId64
                      ", who did not ask for it",
                      audited->order.sale.id, audited->order.cancelled_at_ms, audited->order.cancelled_by);
        }
    }
}

/* --- too little only when there was -------------------------------------------------------------------- */
/* How many bundles that is. */
int64_t audit_bundles_in(const int64_t stock[PRODUCTS])
{
    int64_t least = INT64_MAX;
    for (unsigned i = 0; i < PRODUCTS; i++) {
        if (bundle_units[i] > 0 && stock[i] / bundle_units[i] < least) {
            least = stock[i] / bundle_units[i];
        }
    }
    return least;
}

/* The lowest that the stock was between two moments. */
static int64_t lowest(const struct audit *audit, unsigned place, int64_t from_ms, int64_t to_ms)
{
    const struct stock_point *points = audit->points[place];
    size_t count = audit->point_count[place], low = 0, high = count;
    while (low < high) { /* the first point that is not before it */
        size_t middle = low + (high - low) / 2;
        if (points[middle].at_ms < from_ms) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    int64_t least = low > 0 ? points[low - 1].stock : INT64_MAX;
    for (; low < count && points[low].at_ms <= to_ms; low++) {
        least = points[low].stock < least ? points[low].stock : least;
    }
    return least;
}

/* The lowest that a majority of the nodes can have said between two moments: of the versions from the last on that
 * somebody had been told of. */
static int64_t lowest_on_nodes(const struct audit *audit, unsigned place, int64_t from_ms, int64_t to_ms)
{
    int64_t least = INT64_MAX;
    for (size_t i = audit->point_count[place]; i > 0; i--) {
        const struct stock_point *point = &audit->points[place][i - 1];
        if (point->at_ms <= to_ms) {
            least = point->stock < least ? point->stock : least;
            if (point->told_ms < from_ms) {
                return least;
            }
        }
    }
    return least;
}

static bool is_near_fault(const struct round *round, const struct wish *wish)
{
    int64_t end_us = round->recovered_us > round->calm_us ? round->recovered_us : round->calm_us;
    if (round->unasked_failover) {
        return true; /* whenever that was */
    }
    return wish->got_us >= round->first_fault_us - FORGOTTEN_BEFORE_US &&
           (round->recovered_us == 0 || wish->first_sent_us <= end_us + FORGOTTEN_AFTER_US);
}

/* Is it what the nodes of the Redlock gate say that it was told, or what the store says? */
static bool is_by_nodes(const struct round *round, const struct wish *wish)
{
    return is_redlock(round->mode) && wish->kind == WISH_PURCHASE && !wish->keyed && !wish->as_cart &&
           wish->lines[0].product != BUNDLE;
}

/* Told on the strength of reservations that Redis then lost, or of figures that somebody edited? */
static bool may_be_forgotten(const struct round *round, const struct wish *wish)
{
    bool may_be = is_redlock(round->mode) ? (round->flags & LIES) != 0 && is_by_nodes(round, wish)
                                          : (round->flags & (FORGETS | REJECTS)) != 0;
    return may_be && is_near_fault(round, wish);
}

/* Do the nodes know of new stock before anybody is told of it? Not if they forget, or if it is left to the keeper. */
static bool nodes_know(const struct round *round)
{
    bool know = true;
    for (size_t i = 0; i < round->fault_count; i++) {
        know = know && (round->faults[i]->flags & NODES_KNOW) != 0;
    }
    return know;
}

static void take_units(int64_t stock[PRODUCTS], const struct wish_line *line)
{
    for (unsigned i = 0; i < PRODUCTS; i++) {
        stock[i] -= line->quantity * (line->product == BUNDLE ? bundle_units[i] : i == line->product);
    }
}

/* For how long new stock may be unknown to the worker that answers. */
static int64_t news_ms(const struct round *round, const struct wish *wish)
{
    bool near = is_near_fault(round, wish);
    if (wish->kind != WISH_PURCHASE || wish->keyed ||
        (is_redlock(round->mode) && !is_by_nodes(round, wish))) {
        return 0; /* the store decides, or Redis: at once */
    }
    return is_redlock(round->mode) ? (near ? KEPT_MS : TOLD_MS) : near ? MARK_MS : NEWS_MS;
}

static int64_t lowest_for(const struct audit *audit, const struct wish *wish, unsigned place)
{
    const struct round *round = audit->round;
    int64_t from_ms = audit_wall_ms(audit, wish->last_sent_us) - CLOCK_TOLERANCE_MS,
            to_ms = audit_wall_ms(audit, wish->got_us) + CLOCK_TOLERANCE_MS;
    if (is_by_nodes(round, wish) && nodes_know(round)) {
        return lowest_on_nodes(audit, place, from_ms, to_ms);
    }
    return lowest(audit, place, from_ms - news_ms(round, wish), to_ms);
}

/* Of a cart a line must be had beside those before it that can be. */
static void check_short(const struct audit *audit, const struct wish *wish)
{
    int64_t stock[PRODUCTS] = {0};
    for (unsigned i = 0; i < BUNDLE; i++) {
        stock[i] = lowest_for(audit, wish, i);
    }
    for (size_t i = 0; i < wish->line_count; i++) {
        const struct wish_line *line = &wish->lines[i];
        int64_t had = line->product == BUNDLE ? audit_bundles_in(stock) : stock[line->product];
        int64_t wanted = wish->kind == WISH_CHANGE ? -line->quantity : line->quantity;
        if (!line->is_short) {
            take_units(stock, line);
        } else if (had >= wanted) {
            violation(audit->round,
                      "user %" PRId64 " was told that %" PRId64 " of product %" PRId64
                      " cannot be %s%s (%" PRId64 " available) when %" PRId64 " were left, %+" PRId64
                      " ms from the fault",
                      buyers_user(wish->person), wanted, audit->round->products[line->product],
                      wish->kind == WISH_CHANGE ? "withdrawn" : "had", wish->as_cart ? " in a cart" : "",
                      line->remaining, had, (wish->got_us - audit->round->fault_us) / 1000);
        }
    }
}

void audit_shortages(struct audit *audit)
{
    for (size_t i = 0; i < history.wish_count; i++) {
        const struct wish *wish = &history.wishes[i];
        if (wish->outcome == SOLD_OUT && !may_be_forgotten(audit->round, wish)) {
            check_short(audit, wish);
        }
    }
}
