/* Reads over many orders in SQLite: the audits, and the buyers of limited products and recent idempotency keys for rebuilding Redis.
 *
 * Runs on pool threads, in the recorder (buyers, keys) and in `verify`. Owns the per-product counts of a snapshot:
 * the first question about a product counts all products in one pass over the orders, further ones in the
 * same snapshot read that. There is no index by product: it would cost every purchase, and only audits would
 * use it. */
#include "sqlite.h"

#include <stdlib.h>
#include <string.h>

static const char doing[] = "auditing orders";

/* --- by product --- */
void sqlite_audit_forget(struct sqlite_store *store)
{
    free(store->sales);
    store->sales = NULL;
    store->sales_count = 0;
}

/* Where product_id is in sales[0..count), or where it would be inserted. */
static size_t find_sales(const struct sqlite_sales *sales, size_t count, int64_t product_id)
{
    size_t low = 0, high = count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (sales[middle].product_id < product_id)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* The counts of a product, made if it has none yet. NULL: out of memory. */
static struct sqlite_sales *sales_of(struct sqlite_store *store, int64_t product_id)
{
    size_t i = find_sales(store->sales, store->sales_count, product_id);
    if (i < store->sales_count && store->sales[i].product_id == product_id)
        return &store->sales[i];
    bool is_full =
        (store->sales_count & (store->sales_count - 1)) == 0; /* capacity is the next power of two */
    if (is_full || store->sales == NULL) {
        size_t capacity = store->sales_count == 0 ? 1 : 2 * store->sales_count;
        struct sqlite_sales *larger = realloc(store->sales, capacity * sizeof *larger);
        if (larger == NULL)
            return NULL;
        store->sales = larger;
    }
    memmove(&store->sales[i + 1], &store->sales[i], (store->sales_count - i) * sizeof *store->sales);
    store->sales[i] = (struct sqlite_sales){.product_id = product_id};
    store->sales_count++;
    return &store->sales[i];
}

static enum store_status out_of_memory(struct sqlite_store *store)
{
    return sqlite_refuse(store, "%s in %s failed: out of memory", doing, store->path);
}

static enum store_status count_sales(struct sqlite_store *store)
{
    sqlite3_stmt *row = store->statements[SQL_AUDIT_SALES];
    struct sqlite_sales *sales = NULL;
    int code;
    while ((code = sqlite3_step(row)) == SQLITE_ROW) {
        int64_t product_id = sqlite3_column_int64(row, 1);
        if (sales == NULL || sales->product_id != product_id)
            sales = sales_of(store, product_id);
        if (sales == NULL) {
            sqlite3_reset(row);
            return out_of_memory(store);
        }
        sales->order_count++;
        sales->order_units += sqlite3_column_int64(row, 2);
        sales->last_order_id = sqlite3_column_int64(row, 0);
        sales->last_order_at_ms = sqlite3_column_int64(row, 3);
    }
    enum store_status status = code == SQLITE_DONE ? STORE_OK : sqlite_fail(store, doing);
    sqlite3_reset(row);
    return status;
}

static enum store_status count_over_limit(struct sqlite_store *store)
{
    sqlite3_stmt *row = store->statements[SQL_AUDIT_OVER_LIMIT];
    enum store_status status = STORE_OK;
    int code;
    while (status == STORE_OK && (code = sqlite3_step(row)) != SQLITE_DONE) {
        struct sqlite_sales *sales = NULL;
        if (code != SQLITE_ROW)
            status = sqlite_fail(store, doing);
        else if ((sales = sales_of(store, sqlite3_column_int64(row, 0))) == NULL)
            status = out_of_memory(store);
        else
            sales->over_limit_customers = sqlite3_column_int64(row, 1);
    }
    sqlite3_reset(row);
    return status;
}

static enum store_status count_all_products(struct sqlite_store *store)
{
    if (store->sales != NULL)
        return STORE_OK;
    if (sales_of(store, 0) == NULL) /* no product has id 0: marks "counted", even if there are no orders */
        return out_of_memory(store);
    enum store_status status = count_sales(store);
    if (status == STORE_OK)
        status = count_over_limit(store);
    if (status != STORE_OK)
        sqlite_audit_forget(store);
    return status;
}

static enum store_status sum_stock_changes(struct sqlite_store *store, int64_t product_id,
                                           struct store_product_audit *out)
{
    sqlite3_stmt *row = store->statements[SQL_AUDIT_STOCK];
    sqlite3_bind_int64(row, 1, product_id);
    enum store_status status = STORE_OK;
    if (sqlite3_step(row) == SQLITE_ROW) {
        out->opening_units = sqlite3_column_int64(row, 0);
        out->restock_units = sqlite3_column_int64(row, 1);
    } else {
        status = sqlite_fail(store, "auditing stock changes");
    }
    sqlite3_reset(row);
    return status;
}

static enum store_status audit_product_now(struct sqlite_store *store, int64_t product_id,
                                           struct store_product_audit *out)
{
    enum store_status status = count_all_products(store);
    if (status != STORE_OK)
        return status;
    *out = (struct store_product_audit){0};
    size_t i = find_sales(store->sales, store->sales_count, product_id);
    if (i < store->sales_count && store->sales[i].product_id == product_id) {
        out->order_count = store->sales[i].order_count;
        out->order_units = store->sales[i].order_units;
        out->over_limit_customers = store->sales[i].over_limit_customers;
        out->last_order_id = store->sales[i].last_order_id;
        out->last_order_at_ms = store->sales[i].last_order_at_ms;
    }
    return sum_stock_changes(store, product_id, out);
}

enum store_status sqlite_audit_product(struct store *base, int64_t product_id,
                                       struct store_product_audit *out)
{
    struct sqlite_store *store = sqlite_of(base);
    enum store_status status = sqlite_read_begin(store);
    if (status != STORE_OK)
        return status;
    status = audit_product_now(store, product_id, out);
    sqlite_read_end(store);
    return status;
}

/* --- all orders --- */
struct previous_order {
    int64_t id, at_ms;
    struct log_position position;
};

static void audit_order(sqlite3_stmt *row, struct log_position recorded, struct previous_order *previous,
                        struct store_orders_audit *out)
{
    struct previous_order order = {
        .id = sqlite3_column_int64(row, 0),
        .at_ms = sqlite3_column_int64(row, 2),
        .position = {(uint64_t)sqlite3_column_int64(row, 3), (uint64_t)sqlite3_column_int64(row, 4)},
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
    out->rejected += sqlite3_column_int(row, 1) == ORDER_REJECTED;
    out->out_of_log_order += out_of_log;
    out->out_of_time_order += out_of_time;
    out->beyond_position += log_position_compare(order.position, recorded) > 0;
    out->unknown_user += sqlite3_column_type(row, 5) == SQLITE_NULL;
    out->unknown_product += sqlite3_column_type(row, 6) == SQLITE_NULL;
    *previous = order;
}

static enum store_status audit_orders_now(struct sqlite_store *store, struct store_orders_audit *out)
{
    struct store_position position;
    enum store_status status = sqlite_position(&store->base, &position);
    if (status != STORE_OK)
        return status;
    *out = (struct store_orders_audit){0};
    struct previous_order previous = {0};
    sqlite3_stmt *row = store->statements[SQL_AUDIT_ORDERS];
    int code;
    while ((code = sqlite3_step(row)) == SQLITE_ROW)
        audit_order(row, position.recorded, &previous, out);
    if (code != SQLITE_DONE)
        status = sqlite_fail(store, doing);
    sqlite3_reset(row);
    return status;
}

enum store_status sqlite_audit_orders(struct store *base, struct store_orders_audit *out)
{
    struct sqlite_store *store = sqlite_of(base);
    enum store_status status = sqlite_read_begin(store);
    if (status != STORE_OK)
        return status;
    status = audit_orders_now(store, out);
    sqlite_read_end(store);
    return status;
}

/* --- buyers --- */
enum store_status sqlite_each_buyer(struct store *base, store_buyer_cb cb, void *context)
{
    struct sqlite_store *store = sqlite_of(base);
    sqlite3_stmt *row = store->statements[SQL_BUYERS];
    bool go_on = true;
    int code = SQLITE_DONE;
    while (go_on && (code = sqlite3_step(row)) == SQLITE_ROW)
        go_on = cb(context, sqlite3_column_int64(row, 0), sqlite3_column_int64(row, 1),
                   sqlite3_column_int64(row, 2));
    enum store_status status = STORE_OK;
    if (go_on && code != SQLITE_DONE)
        status = sqlite_fail(store, "reading buyers");
    sqlite3_reset(row);
    return status;
}

/* --- idempotency keys --- */
/* Is there an order with this id or a higher one, and is the first such older than `since_ms`? */
static enum store_status is_older(struct sqlite_store *store, int64_t id, int64_t since_ms, bool *older)
{
    sqlite3_stmt *row = store->statements[SQL_ORDER_FROM];
    sqlite3_bind_int64(row, 1, id);
    int code = sqlite3_step(row);
    *older = code == SQLITE_ROW && sqlite3_column_int64(row, 1) < since_ms;
    enum store_status status =
        code == SQLITE_ROW || code == SQLITE_DONE ? STORE_OK : sqlite_fail(store, "reading orders");
    sqlite3_reset(row);
    return status;
}

/* Times rise with the ids. No order below *id is of `since_ms` or later. */
static enum store_status first_since(struct sqlite_store *store, int64_t since_ms, int64_t *id)
{
    struct store_position position;
    enum store_status status = sqlite_position(&store->base, &position);
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

static enum store_status each_key_now(struct sqlite_store *store, int64_t since_ms, store_key_cb cb,
                                      void *context)
{
    int64_t first;
    enum store_status status = first_since(store, since_ms, &first);
    if (status != STORE_OK)
        return status;
    sqlite3_stmt *row = store->statements[SQL_KEYS];
    sqlite3_bind_int64(row, 1, first);
    sqlite3_bind_int64(row, 2, since_ms);
    bool go_on = true;
    int code = SQLITE_DONE;
    while (go_on && (code = sqlite3_step(row)) == SQLITE_ROW) {
        const char *key = (const char *)sqlite3_column_text(row, 3);
        go_on = key == NULL || cb(context, sqlite3_column_int64(row, 1), key, sqlite3_column_int64(row, 0),
                                  sqlite3_column_int64(row, 2));
    }
    if (go_on && code != SQLITE_DONE)
        status = sqlite_fail(store, "reading idempotency keys");
    sqlite3_reset(row);
    return status;
}

enum store_status sqlite_each_key(struct store *base, int64_t since_ms, store_key_cb cb, void *context)
{
    struct sqlite_store *store = sqlite_of(base);
    enum store_status status = sqlite_read_begin(store);
    if (status != STORE_OK)
        return status;
    status = each_key_now(store, since_ms, cb, context);
    sqlite_read_end(store);
    return status;
}
