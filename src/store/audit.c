/* Reads over many orders: the audits, and the buyers of limited products and recent idempotency keys for rebuilding Redis.
 *
 * Runs on pool threads, in the recorder (buyers, keys) and in `verify`. Owns the per-product counts of a snapshot:
 * the first question about a product counts all products in one pass each over the orders, their parts and the audit log, further ones in the
 * same snapshot read that. Of the audit log, what a walk along its chain has counted before the snapshot is not read again. There is no index
 * by product: it would cost every purchase, and only audits would use it. */
#include "sql.h"

#include <stdlib.h>
#include <string.h>

static const char doing[] = "auditing orders";

/* --- by product --- */
void store_tallies_free(struct store_tallies *tallies)
{
    free(tallies->rows);
    *tallies = (struct store_tallies){0};
}

void store_tallies_forget(struct store *store)
{
    store_tallies_free(&store->tallies);
    store_tallies_free(&store->walked);
}

/* Where product_id is among the tallies, or where it would be inserted. */
static size_t find_tally(const struct store_tallies *tallies, int64_t product_id)
{
    size_t low = 0, high = tallies->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (tallies->rows[middle].product_id < product_id)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

struct store_tally *store_tally_of(struct store_tallies *tallies, int64_t product_id)
{
    size_t i = find_tally(tallies, product_id);
    if (i < tallies->count && tallies->rows[i].product_id == product_id)
        return &tallies->rows[i];
    bool is_full = (tallies->count & (tallies->count - 1)) == 0; /* capacity is the next power of two */
    if (is_full || tallies->rows == NULL) {
        size_t capacity = tallies->count == 0 ? 1 : 2 * tallies->count;
        struct store_tally *larger = realloc(tallies->rows, capacity * sizeof *larger);
        if (larger == NULL)
            return NULL;
        tallies->rows = larger;
    }
    memmove(&tallies->rows[i + 1], &tallies->rows[i], (tallies->count - i) * sizeof *tallies->rows);
    tallies->rows[i] = (struct store_tally){.product_id = product_id};
    tallies->count++;
    return &tallies->rows[i];
}

/* Passes each row of a statement to `count`, with the tally of the product that its column `product_column` names. */
static enum store_status count_rows(struct store *store, enum sql_statement statement, int product_column,
                                    void (*count)(struct store *store, enum sql_statement row,
                                                  struct store_tally *tally))
{
    const enum sql_statement row = statement;
    struct store_tally *tally = NULL;
    enum store_status status = STORE_OK;
    enum sql_result result = SQL_DONE;
    while (status == STORE_OK && (result = sql_step(store, row)) == SQL_ROW) {
        int64_t product_id = sql_int(store, row, product_column);
        if (tally == NULL || tally->product_id != product_id)
            tally = store_tally_of(&store->tallies, product_id);
        if (tally == NULL)
            status = store_refuse(store, "%s in %s failed: out of memory", doing, sql_where(store));
        else
            count(store, row, tally);
    }
    if (status == STORE_OK && result != SQL_DONE)
        status = sql_fail(store, doing);
    sql_reset(store, row);
    return status;
}

/* A sum that overflows is of no units that were ever sold: it wraps, and the book does not agree with it. */
static void add_units(int64_t *sum, int64_t units)
{
    (void)__builtin_add_overflow(*sum, units, sum);
}

static void count_units(struct store *store, enum sql_statement row, struct store_product_audit *audit)
{
    add_units(&audit->order_units, sql_int(store, row, 2));
    if (audit->last_order_id < sql_int(store, row, 0)) {
        audit->last_order_id = sql_int(store, row, 0);
        audit->last_order_at_ms = sql_int(store, row, 3);
    }
}

static void count_sale(struct store *store, enum sql_statement row, struct store_tally *tally)
{
    tally->audit.order_count++;
    count_units(store, row, &tally->audit);
}

/* A product may be in several parts of an order, which still is one order. */
static void count_part(struct store *store, enum sql_statement row, struct store_tally *tally)
{
    int64_t order_id = sql_int(store, row, 0);
    bool is_in_first_line = sql_int(store, row, 4) == tally->product_id;
    if (!is_in_first_line && tally->last_part_order_id != order_id)
        tally->audit.order_count++;
    tally->last_part_order_id = order_id;
    if (sql_int(store, row, 5) != 0)
        add_units(&tally->audit.component_units, sql_int(store, row, 2));
    count_units(store, row, &tally->audit);
}

static void count_cancelled(struct store *store, enum sql_statement row, struct store_tally *tally)
{
    tally->audit.cancelled_units = sql_int(store, row, 1);
}

void store_tally_log_row(struct store_tally *tally, const char *cause, int64_t delta, int64_t to)
{
    struct store_product_audit *audit = &tally->audit;
    if (strcmp(cause, "price") == 0) {
        audit->logged_price = to;
        return;
    }
    if (!store_cause_is_of_stock(cause)) {
        audit->window_logged = true;
        *(strcmp(cause, "starts") == 0 ? &audit->logged_window.starts_at_ms
                                       : &audit->logged_window.ends_at_ms) = to;
        return;
    }
    add_units(&audit->logged_stock, delta);
    if (strcmp(cause, "opening") == 0)
        add_units(&audit->opening_units, delta);
    else if (strcmp(cause, "sale") != 0 && strcmp(cause, "cancel") != 0)
        add_units(&audit->restock_units, delta);
}

static void count_change(struct store *store, enum sql_statement row, struct store_tally *tally)
{
    const char *cause = sql_text(store, row, 1);
    store_tally_log_row(tally, cause == NULL ? "" : cause, sql_int(store, row, 2), sql_int(store, row, 3));
}

/* It has no stock, though its rows say how many were sold. */
static void count_bundle(struct store *store, enum sql_statement row, struct store_tally *tally)
{
    (void)store;
    (void)row;
    tally->audit.logged_stock = 0;
}

static void count_over_limit(struct store *store, enum sql_statement row, struct store_tally *tally)
{
    tally->audit.over_limit_customers = sql_int(store, row, 1);
}

/* What all bundles in orders take of each product, by what they are made of: their units are counted before. */
static enum store_status count_components(struct store *store)
{
    const enum sql_statement row = SQL_AUDIT_COMPONENTS;
    enum store_status status = STORE_OK;
    enum sql_result result = SQL_DONE;
    while (status == STORE_OK && (result = sql_step(store, row)) == SQL_ROW) {
        struct store_tally *bundle = store_tally_of(&store->tallies, sql_int(store, row, 1));
        int64_t units = bundle != NULL ? bundle->audit.order_units : 0;
        struct store_tally *tally = store_tally_of(&store->tallies, sql_int(store, row, 0));
        if (bundle == NULL || tally == NULL)
            status = store_refuse(store, "%s in %s failed: out of memory", doing, sql_where(store));
        else if (__builtin_mul_overflow(units, sql_int(store, row, 2), &units))
            tally->audit.bundled_units = INT64_MAX; /* no orders of ours */
        else
            add_units(&tally->audit.bundled_units, units);
    }
    if (status == STORE_OK && result != SQL_DONE)
        status = sql_fail(store, doing);
    sql_reset(store, row);
    return status;
}

static enum store_status count_all_products(struct store *store)
{
    static const struct {
        enum sql_statement statement;
        int product_column;
        void (*count)(struct store *store, enum sql_statement row, struct store_tally *tally);
    } passes[] = {{SQL_AUDIT_SALES, 1, count_sale},          {SQL_AUDIT_PARTS, 1, count_part},
                  {SQL_AUDIT_CANCELLED, 0, count_cancelled}, {SQL_AUDIT_OVER_LIMIT, 0, count_over_limit},
                  {SQL_AUDIT_CHANGES, 0, count_change},      {SQL_BUNDLES, 0, count_bundle}};
    if (store->tallies.rows != NULL)
        return STORE_OK;
    store->tallies = store->walked;
    store->walked = (struct store_tallies){0};
    sql_bind_int(store, SQL_AUDIT_CHANGES, 1, store->tallies.audit_seq);
    /* No product has id 0: marks "counted", even if there are no orders. */
    enum store_status status =
        store_tally_of(&store->tallies, 0) != NULL
            ? STORE_OK
            : store_refuse(store, "%s in %s failed: out of memory", doing, sql_where(store));
    for (size_t i = 0; i < sizeof passes / sizeof passes[0] && status == STORE_OK; i++)
        status = count_rows(store, passes[i].statement, passes[i].product_column, passes[i].count);
    if (status == STORE_OK)
        status = count_components(store);
    if (status != STORE_OK)
        store_tallies_forget(store);
    return status;
}

static enum store_status audit_product_now(struct store *store, int64_t product_id,
                                           struct store_product_audit *out)
{
    enum store_status status = count_all_products(store);
    if (status != STORE_OK)
        return status;
    *out = (struct store_product_audit){0};
    size_t i = find_tally(&store->tallies, product_id);
    if (i < store->tallies.count && store->tallies.rows[i].product_id == product_id)
        *out = store->tallies.rows[i].audit;
    return STORE_OK;
}

enum store_status store_audit_product(struct store *store, int64_t product_id,
                                      struct store_product_audit *out)
{
    enum store_status status = sql_read_begin(store);
    if (status != STORE_OK)
        return status;
    status = audit_product_now(store, product_id, out);
    sql_read_end(store);
    return status;
}

/* --- all orders --- */
struct previous_order {
    int64_t id, at_ms;
    struct log_position position;
};

static void audit_order(struct store *store, enum sql_statement row, struct log_position recorded,
                        struct previous_order *previous, struct store_orders_audit *out)
{
    struct previous_order order = {
        .id = sql_int(store, row, 0),
        .at_ms = sql_int(store, row, 2),
        .position = {(uint64_t)sql_int(store, row, 3), (uint64_t)sql_int(store, row, 4)},
    };
    bool is_first = out->count == 0;
    bool out_of_log = !is_first && log_position_compare(order.position, previous->position) < 0;
    bool out_of_time = !is_first && order.at_ms < previous->at_ms;
    if (is_first)
        out->first_id = order.id;
    if (out->first_gap == 0 && order.id != previous->id + 1) /* before the first order: 0 */
        out->first_gap = previous->id + 1;
    if (out->first_out_of_order == 0 && (out_of_log || out_of_time))
        out->first_out_of_order = order.id;
    out->count++;
    out->last_id = order.id;
    out->rejected += sql_int(store, row, 1) == ORDER_REJECTED;
    out->out_of_log_order += out_of_log;
    out->out_of_time_order += out_of_time;
    out->beyond_position += log_position_compare(order.position, recorded) > 0;
    out->unknown_user += sql_int(store, row, 5) == 0;
    out->unknown_product += sql_int(store, row, 6) == 0;
    out->lost += sql_int(store, row, 7);
    *previous = order;
}

static enum store_status audit_orders_now(struct store *store, struct store_orders_audit *out)
{
    struct store_position position;
    enum store_status status = store_position(store, &position);
    if (status != STORE_OK)
        return status;
    *out = (struct store_orders_audit){0};
    struct previous_order previous = {0};
    const enum sql_statement row = SQL_AUDIT_ORDERS;
    enum sql_result result;
    while ((result = sql_step(store, row)) == SQL_ROW)
        audit_order(store, row, position.recorded, &previous, out);
    if (result != SQL_DONE)
        status = sql_fail(store, doing);
    sql_reset(store, row);
    return status;
}

enum store_status store_audit_orders(struct store *store, struct store_orders_audit *out)
{
    enum store_status status = sql_read_begin(store);
    if (status != STORE_OK)
        return status;
    status = audit_orders_now(store, out);
    sql_read_end(store);
    return status;
}

/* --- buyers --- */
enum store_status store_each_buyer(struct store *store, store_buyer_cb cb, void *context)
{
    const enum sql_statement row = SQL_BUYERS;
    bool go_on = true;
    enum sql_result result = SQL_DONE;
    while (go_on && (result = sql_step(store, row)) == SQL_ROW)
        go_on = cb(context, sql_int(store, row, 0), sql_int(store, row, 1), sql_int(store, row, 2));
    enum store_status status = STORE_OK;
    if (go_on && result != SQL_DONE)
        status = sql_fail(store, "reading buyers");
    sql_reset(store, row);
    return status;
}

/* --- idempotency keys --- */
/* Is there an order with this id or a higher one, and is the first such older than `since_ms`? */
static enum store_status is_older(struct store *store, int64_t id, int64_t since_ms, bool *older)
{
    const enum sql_statement row = SQL_ORDER_FROM;
    sql_bind_int(store, row, 1, id);
    enum sql_result result = sql_step(store, row);
    *older = result == SQL_ROW && sql_int(store, row, 1) < since_ms;
    enum store_status status =
        result == SQL_ROW || result == SQL_DONE ? STORE_OK : sql_fail(store, "reading orders");
    sql_reset(store, row);
    return status;
}

/* Times rise with the ids. */
enum store_status store_first_order_since(struct store *store, int64_t since_ms, int64_t *id)
{
    struct store_position position;
    enum store_status status = store_position(store, &position);
    int64_t low = 1, high = status == STORE_OK ? position.last_order_id + 1 : 1;
    while (status == STORE_OK && low < high) {
        bool older = false;
        int64_t middle = low + (high - low) / 2;
        status = is_older(store, middle, since_ms, &older);
        if (older)
            low = middle + 1;
        else
            high = middle;
    }
    *id = low;
    return status;
}

static enum store_status each_key_now(struct store *store, int64_t since_ms, store_key_cb cb, void *context)
{
    int64_t first;
    enum store_status status = store_first_order_since(store, since_ms, &first);
    if (status != STORE_OK)
        return status;
    const enum sql_statement row = SQL_KEYS;
    sql_bind_int(store, row, 1, first);
    sql_bind_int(store, row, 2, since_ms);
    bool go_on = true;
    enum sql_result result = SQL_DONE;
    while (go_on && (result = sql_step(store, row)) == SQL_ROW) {
        const char *key = sql_text(store, row, 3);
        go_on = key == NULL ||
                cb(context, sql_int(store, row, 1), key, sql_int(store, row, 0), sql_int(store, row, 2));
    }
    if (go_on && result != SQL_DONE)
        status = sql_fail(store, "reading idempotency keys");
    sql_reset(store, row);
    return status;
}

enum store_status store_each_key(struct store *store, int64_t since_ms, store_key_cb cb, void *context)
{
    enum store_status status = sql_read_begin(store);
    if (status != STORE_OK)
        return status;
    status = each_key_now(store, since_ms, cb, context);
    sql_read_end(store);
    return status;
}
