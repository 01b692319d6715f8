/* Accounts, products and single orders in SQLite.
 *
 * Runs on pool threads of the workers, in the recorder (reads) and in the tools. Owns nothing: statements are
 * the connection's, rows are copied out. A failed statement rolls back and is a sentence in store_error(). */
#include "sqlite.h"

#include "doorbuster/clock.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SHELF_BITS 12 /* orders_by_user is sorted by id >> 12 first: 0001_first.sql says why */

static void copy_text(sqlite3_stmt *row, int column, char *out, size_t out_bytes)
{
    const char *text = (const char *)sqlite3_column_text(row, column);
    snprintf(out, out_bytes, "%s", text == NULL ? "" : text);
}

/* Column lists: sqlite_statements.c. */
static void read_user(sqlite3_stmt *row, void *out)
{
    struct store_user *user = out;
    user->id = sqlite3_column_int64(row, 0);
    copy_text(row, 1, user->username, sizeof user->username);
    copy_text(row, 2, user->email, sizeof user->email);
    copy_text(row, 3, user->password_hash, sizeof user->password_hash);
    user->role = sqlite3_column_int(row, 4) == USER_ADMIN ? USER_ADMIN : USER_BUYER;
    user->created_at_ms = sqlite3_column_int64(row, 5);
}

static void read_product(sqlite3_stmt *row, void *out)
{
    struct store_product *product = out;
    product->id = sqlite3_column_int64(row, 0);
    copy_text(row, 1, product->name, sizeof product->name);
    copy_text(row, 2, product->description, sizeof product->description);
    product->price = sqlite3_column_int64(row, 3);
    product->per_customer_limit = sqlite3_column_int64(row, 4);
    product->planned_stock = sqlite3_column_int64(row, 5);
    product->opened = sqlite3_column_int(row, 6) != 0;
    product->stock = sqlite3_column_int64(row, 7);
    product->opening = sqlite3_column_int64(row, 8);
    product->restocked = sqlite3_column_int64(row, 9);
    product->cancelled = sqlite3_column_int64(row, 10);
    product->sold = sqlite3_column_int64(row, 11);
    product->created_at_ms = sqlite3_column_int64(row, 12);
    product->updated_at_ms = sqlite3_column_int64(row, 13);
    product->starts_at_ms = sqlite3_column_int64(row, 14);
    product->ends_at_ms = sqlite3_column_int64(row, 15);
    product->component_count = sqlite3_column_int(row, 16) != 0; /* of a bundle more: add_components() */
}

static void read_order(sqlite3_stmt *row, void *out)
{
    struct store_order *order = out;
    order->sale.id = sqlite3_column_int64(row, 0);
    order->state = sqlite3_column_int(row, 1) == ORDER_REJECTED ? ORDER_REJECTED : ORDER_CONFIRMED;
    order->sale.request = sqlite3_column_int64(row, 2);
    order->sale.user_id = sqlite3_column_int64(row, 3);
    order->sale.product_id = sqlite3_column_int64(row, 4);
    order->sale.quantity = sqlite3_column_int64(row, 5);
    order->sale.unit_price = sqlite3_column_int64(row, 6);
    order->sale.remaining = sqlite3_column_int64(row, 7);
    order->at_ms = sqlite3_column_int64(row, 8);
    order->position.epoch = (uint64_t)sqlite3_column_int64(row, 9);
    order->position.n = (uint64_t)sqlite3_column_int64(row, 10);
    order->sale.key = NULL;
    order->sale.key_bytes = 0;
    order->sale.more = NULL;
    order->sale.more_count = 0;
    copy_text(row, 11, order->idempotency_key, sizeof order->idempotency_key);
    order->part_count = (size_t)sqlite3_column_int64(row, 12);
    order->cancelled_at_ms = sqlite3_column_int64(row, 13); /* NULL reads as 0 */
    order->cancelled_by = sqlite3_column_int64(row, 14);
    if (sqlite3_column_type(row, 13) != SQLITE_NULL)
        order->state = ORDER_CANCELLED;
}

static void read_part(sqlite3_stmt *row, void *out)
{
    *(struct order_part *)out = (struct order_part){.product_id = sqlite3_column_int64(row, 0),
                                                    .quantity = sqlite3_column_int64(row, 1),
                                                    .unit_price = sqlite3_column_int64(row, 2),
                                                    .remaining = sqlite3_column_int64(row, 3),
                                                    .is_component = sqlite3_column_int(row, 4) != 0};
}

static void read_component(sqlite3_stmt *row, void *out)
{
    *(struct bundle_component *)out = (struct bundle_component){.product_id = sqlite3_column_int64(row, 0),
                                                                .quantity = sqlite3_column_int64(row, 1)};
}

typedef void (*read_row)(sqlite3_stmt *row, void *out);

/* The one row of a bound statement. */
static enum store_status find_one(struct sqlite_store *store, sqlite3_stmt *statement, read_row read,
                                  void *out, const char *doing)
{
    enum store_status status = STORE_OK;
    int code = sqlite3_step(statement);
    if (code == SQLITE_ROW)
        read(statement, out);
    else if (code == SQLITE_DONE)
        status = STORE_NOT_FOUND;
    else
        status = sqlite_fail(store, doing);
    sqlite3_reset(statement);
    return status;
}

/* All rows of a bound statement, which has a LIMIT of what `out` holds. */
static enum store_status find_many(struct sqlite_store *store, sqlite3_stmt *statement, read_row read,
                                   void *out, size_t row_bytes, size_t *count, const char *doing)
{
    enum store_status status = STORE_OK;
    int code;
    for (*count = 0; (code = sqlite3_step(statement)) == SQLITE_ROW; (*count)++)
        read(statement, (char *)out + *count * row_bytes);
    if (code != SQLITE_DONE)
        status = sqlite_fail(store, doing);
    sqlite3_reset(statement);
    return status;
}

static int64_t limit_of(size_t max)
{
    return max > INT32_MAX ? INT32_MAX : (int64_t)max;
}

/* --- accounts --- */
enum store_status sqlite_find_user(struct store *base, const char *username, struct store_user *out)
{
    struct sqlite_store *store = sqlite_of(base);
    sqlite3_stmt *statement = store->statements[SQL_USER_BY_NAME];
    sqlite_bind_text(statement, 1, username);
    return find_one(store, statement, read_user, out, "looking a user up");
}

enum store_status sqlite_find_user_by_id(struct store *base, int64_t id, struct store_user *out)
{
    struct sqlite_store *store = sqlite_of(base);
    sqlite3_stmt *statement = store->statements[SQL_USER_BY_ID];
    sqlite3_bind_int64(statement, 1, id);
    return find_one(store, statement, read_user, out, "looking a user up");
}

static enum store_status insert_user(struct sqlite_store *store, struct store_user *user, const char *doing)
{
    sqlite3_stmt *statement = store->statements[SQL_ADD_USER];
    user->created_at_ms = clock_wall_ms();
    sqlite_bind_text(statement, 1, user->username);
    sqlite_bind_text(statement, 2, user->email);
    sqlite_bind_text(statement, 3, user->password_hash);
    sqlite3_bind_int(statement, 4, (int)user->role);
    sqlite3_bind_int64(statement, 5, user->created_at_ms);
    if (sqlite_run(statement) != SQLITE_DONE)
        return sqlite_fail(store, doing);
    if (sqlite3_changes(store->db) == 0)
        return STORE_TAKEN;
    user->id = sqlite3_last_insert_rowid(store->db);
    return STORE_OK;
}

enum store_status sqlite_add_user(struct store *base, struct store_user *user)
{
    static const char doing[] = "adding a user";
    struct sqlite_store *store = sqlite_of(base);
    /* A crowd that registers names it already has must not queue for the recorder's lock. */
    struct store_user holder;
    enum store_status status = sqlite_find_user(base, user->username, &holder);
    if (status != STORE_NOT_FOUND)
        return status == STORE_OK ? STORE_TAKEN : status;
    status = sqlite_write_begin(store, doing);
    return status == STORE_OK ? sqlite_write_end(store, insert_user(store, user, doing), doing) : status;
}

static enum store_status write_user(struct sqlite_store *store, int64_t id, enum user_role role,
                                    const char *password_hash, const char *doing)
{
    sqlite3_stmt *statement = store->statements[SQL_UPDATE_USER];
    sqlite3_bind_int64(statement, 1, id);
    sqlite3_bind_int(statement, 2, (int)role);
    sqlite_bind_text(statement, 3, password_hash);
    if (sqlite_run(statement) != SQLITE_DONE)
        return sqlite_fail(store, doing);
    return sqlite3_changes(store->db) == 0 ? STORE_NOT_FOUND : STORE_OK;
}

enum store_status sqlite_update_user(struct store *base, int64_t id, enum user_role role,
                                     const char *password_hash)
{
    static const char doing[] = "changing a user";
    struct sqlite_store *store = sqlite_of(base);
    enum store_status status = sqlite_write_begin(store, doing);
    return status == STORE_OK
               ? sqlite_write_end(store, write_user(store, id, role, password_hash, doing), doing)
               : status;
}

/* --- products --- */
enum store_status sqlite_components(struct sqlite_store *store, int64_t bundle_id,
                                    struct bundle_component out[BUNDLE_COMPONENTS_MAX], size_t *count)
{
    sqlite3_stmt *statement = store->statements[SQL_COMPONENTS];
    sqlite3_bind_int64(statement, 1, bundle_id);
    sqlite3_bind_int64(statement, 2, BUNDLE_COMPONENTS_MAX);
    return find_many(store, statement, read_component, out, sizeof *out, count,
                     "reading a bundle's components");
}

/* A product and its components are written in one transaction and the components never change, so this needs no snapshot. */
static enum store_status add_components(struct sqlite_store *store, struct store_product *product)
{
    return product->component_count == 0
               ? STORE_OK
               : sqlite_components(store, product->id, product->components, &product->component_count);
}

static enum store_status find_product(struct sqlite_store *store, sqlite3_stmt *statement,
                                      struct store_product *out)
{
    enum store_status status = find_one(store, statement, read_product, out, "looking a product up");
    return status == STORE_OK ? add_components(store, out) : status;
}

enum store_status sqlite_find_product(struct store *base, int64_t id, struct store_product *out)
{
    struct sqlite_store *store = sqlite_of(base);
    sqlite3_stmt *statement = store->statements[SQL_PRODUCT_BY_ID];
    sqlite3_bind_int64(statement, 1, id);
    return find_product(store, statement, out);
}

enum store_status sqlite_find_product_by_name(struct store *base, const char *name, struct store_product *out)
{
    struct sqlite_store *store = sqlite_of(base);
    sqlite3_stmt *statement = store->statements[SQL_PRODUCT_BY_NAME];
    sqlite_bind_text(statement, 1, name);
    return find_product(store, statement, out);
}

enum store_status sqlite_products(struct store *base, int64_t after, struct store_product *out, size_t max,
                                  size_t *count)
{
    struct sqlite_store *store = sqlite_of(base);
    sqlite3_stmt *statement = store->statements[SQL_PRODUCTS_AFTER];
    sqlite3_bind_int64(statement, 1, after);
    sqlite3_bind_int64(statement, 2, limit_of(max));
    enum store_status status =
        find_many(store, statement, read_product, out, sizeof *out, count, "listing products");
    for (size_t i = 0; i < *count && status == STORE_OK; i++)
        status = add_components(store, &out[i]);
    return status;
}

enum store_status sqlite_catalog_size(struct store *base, size_t newest, int64_t *count, int64_t *first)
{
    struct sqlite_store *store = sqlite_of(base);
    sqlite3_stmt *row = store->statements[SQL_CATALOG_SIZE];
    enum store_status status = STORE_OK;
    sqlite3_bind_int64(row, 1, limit_of(newest));
    if (sqlite3_step(row) == SQLITE_ROW) {
        *count = sqlite3_column_int64(row, 0);
        *first = sqlite3_column_int64(row, 1);
    } else
        status = sqlite_fail(store, "counting the products");
    sqlite3_reset(row);
    return status;
}

static enum store_status check_components(struct sqlite_store *store, struct store_product *product,
                                          const char *doing)
{
    sqlite3_stmt *statement = store->statements[SQL_IS_COMPONENT];
    for (size_t i = 0; i < product->component_count; i++) {
        sqlite3_bind_int64(statement, 1, product->components[i].product_id);
        int code = sqlite_run(statement);
        if (code == SQLITE_DONE) {
            product->id = product->components[i].product_id;
            return STORE_NOT_FOUND;
        }
        if (code != SQLITE_ROW)
            return sqlite_fail(store, doing);
    }
    return STORE_OK;
}

static enum store_status insert_components(struct sqlite_store *store, const struct store_product *product,
                                           int64_t id, const char *doing)
{
    sqlite3_stmt *statement = store->statements[SQL_ADD_COMPONENT];
    sqlite3_bind_int64(statement, 1, id);
    for (size_t i = 0; i < product->component_count; i++) {
        sqlite3_bind_int64(statement, 2, product->components[i].product_id);
        sqlite3_bind_int64(statement, 3, product->components[i].quantity);
        if (sqlite_run(statement) != SQLITE_DONE)
            return sqlite_fail(store, doing);
    }
    return STORE_OK;
}

static enum store_status insert_product(struct sqlite_store *store, struct store_product *product,
                                        const char *doing)
{
    sqlite3_stmt *statement = store->statements[SQL_ADD_PRODUCT];
    sqlite_bind_text(statement, 1, product->name);
    sqlite_bind_text(statement, 2, product->description);
    sqlite3_bind_int64(statement, 3, product->price);
    sqlite3_bind_int64(statement, 4, product->per_customer_limit);
    sqlite3_bind_int64(statement, 5, product->planned_stock);
    sqlite3_bind_int64(statement, 6, clock_wall_ms());
    sqlite3_bind_int64(statement, 7, product->starts_at_ms);
    sqlite3_bind_int64(statement, 8, product->ends_at_ms);
    sqlite3_bind_int(statement, 9, product->component_count > 0);
    enum store_status status = check_components(store, product, doing);
    if (status != STORE_OK)
        return status;
    if (sqlite_run(statement) != SQLITE_DONE)
        return sqlite_fail(store, doing);
    if (sqlite3_changes(store->db) == 0)
        return STORE_TAKEN;
    int64_t id = sqlite3_last_insert_rowid(store->db);
    status = insert_components(store, product, id, doing);
    return status == STORE_OK ? sqlite_find_product(&store->base, id, product) : status;
}

enum store_status sqlite_add_product(struct store *base, struct store_product *product)
{
    static const char doing[] = "adding a product";
    struct sqlite_store *store = sqlite_of(base);
    enum store_status status = sqlite_write_begin(store, doing);
    return status == STORE_OK ? sqlite_write_end(store, insert_product(store, product, doing), doing)
                              : status;
}

static enum store_status write_name(struct sqlite_store *store, int64_t id, const char *name,
                                    const char *doing)
{
    sqlite3_stmt *statement = store->statements[SQL_RENAME_PRODUCT];
    sqlite3_bind_int64(statement, 1, id);
    sqlite_bind_text(statement, 2, name);
    sqlite3_bind_int64(statement, 3, clock_wall_ms());
    int code = sqlite_run(statement);
    if (code == SQLITE_CONSTRAINT_UNIQUE)
        return STORE_TAKEN;
    if (code != SQLITE_DONE)
        return sqlite_fail(store, doing);
    return sqlite3_changes(store->db) == 0 ? STORE_NOT_FOUND : STORE_OK;
}

enum store_status sqlite_rename_product(struct store *base, int64_t id, const char *name)
{
    static const char doing[] = "renaming a product";
    struct sqlite_store *store = sqlite_of(base);
    enum store_status status = sqlite_write_begin(store, doing);
    return status == STORE_OK ? sqlite_write_end(store, write_name(store, id, name, doing), doing) : status;
}

/* --- orders --- */
enum store_status sqlite_find_order(struct store *base, int64_t id, struct store_order *out)
{
    struct sqlite_store *store = sqlite_of(base);
    sqlite3_stmt *statement = store->statements[SQL_ORDER_BY_ID];
    sqlite3_bind_int64(statement, 1, id);
    return find_one(store, statement, read_order, out, "looking an order up");
}

enum store_status sqlite_order_parts(struct store *base, int64_t id, struct order_part *out, size_t max,
                                     size_t *count)
{
    struct sqlite_store *store = sqlite_of(base);
    sqlite3_stmt *statement = store->statements[SQL_ORDER_PARTS];
    sqlite3_bind_int64(statement, 1, id);
    sqlite3_bind_int64(statement, 2, limit_of(max));
    return find_many(store, statement, read_part, out, sizeof *out, count, "reading the parts of an order");
}

/* The last order below `before`, 0 if there is none. */
static enum store_status last_order_before(struct sqlite_store *store, int64_t before, int64_t *id,
                                           const char *doing)
{
    sqlite3_stmt *row = store->statements[SQL_LAST_ORDER_BEFORE];
    sqlite3_bind_int64(row, 1, before);
    enum store_status status = STORE_OK;
    if (sqlite3_step(row) == SQLITE_ROW)
        *id = sqlite3_column_int64(row, 0);
    else
        status = sqlite_fail(store, doing);
    sqlite3_reset(row);
    return status;
}

/* From the newest shelf down, skipping to the next that has any orders at all, so that a gap in the ids costs
 * nothing. */
static enum store_status walk_shelves(struct sqlite_store *store, int64_t user_id, int64_t before,
                                      struct store_order *out, size_t max, size_t *count, const char *doing)
{
    sqlite3_stmt *statement = store->statements[SQL_ORDERS_OF_USER];
    int64_t last = 0;
    enum store_status status = last_order_before(store, before, &last, doing);
    while (status == STORE_OK && last > 0 && *count < max) {
        size_t found = 0;
        int64_t shelf = last >> SHELF_BITS;
        sqlite3_bind_int64(statement, 1, shelf);
        sqlite3_bind_int64(statement, 2, user_id);
        sqlite3_bind_int64(statement, 3, before);
        sqlite3_bind_int64(statement, 4, limit_of(max - *count));
        status = find_many(store, statement, read_order, out + *count, sizeof *out, &found, doing);
        *count += found;
        if (status == STORE_OK)
            status = last_order_before(store, shelf << SHELF_BITS, &last, doing);
    }
    return status;
}

enum store_status sqlite_orders_of(struct store *base, int64_t user_id, int64_t before,
                                   struct store_order *out, size_t max, size_t *count)
{
    static const char doing[] = "listing a user's orders";
    struct sqlite_store *store = sqlite_of(base);
    *count = 0;
    enum store_status status = sqlite_read_begin(store);
    if (status != STORE_OK)
        return status;
    status = walk_shelves(store, user_id, before, out, max, count, doing);
    sqlite_read_end(store);
    return status;
}

enum store_status sqlite_latest_orders(struct store *base, struct store_order *out, size_t max, size_t *count)
{
    struct sqlite_store *store = sqlite_of(base);
    sqlite3_stmt *statement = store->statements[SQL_LATEST_ORDERS];
    sqlite3_bind_int64(statement, 1, limit_of(max));
    return find_many(store, statement, read_order, out, sizeof *out, count, "listing the newest orders");
}

/* --- requests --- */
static int compare_requests(const void *a, const void *b)
{
    const struct store_request *first = a, *second = b;
    return (first->request > second->request) - (first->request < second->request);
}

static struct store_request *find_request(struct store_request *wanted, size_t count,
                                          const struct store_order *order)
{
    const struct store_request key = {.request = order->sale.request};
    struct store_request *found = bsearch(&key, wanted, count, sizeof *wanted, compare_requests);
    return found != NULL && found->user_id == order->sale.user_id ? found : NULL;
}

enum store_status sqlite_find_requests(struct store *base, struct log_position from,
                                       struct store_request *wanted, size_t count)
{
    struct sqlite_store *store = sqlite_of(base);
    sqlite3_stmt *rows = store->statements[SQL_ORDERS_BACKWARDS];
    struct store_order order;
    size_t missing = count;
    int code = SQLITE_ROW;
    for (size_t i = 0; i < count; i++)
        wanted[i].found = false;
    qsort(wanted, count, sizeof *wanted, compare_requests);
    while (missing > 0 && (code = sqlite3_step(rows)) == SQLITE_ROW) {
        read_order(rows, &order);
        if (log_position_compare(order.position, from) < 0)
            break;
        struct store_request *found = find_request(wanted, count, &order);
        if (found != NULL && !found->found) {
            found->found = true;
            found->order = order;
            missing--;
        }
    }
    enum store_status status =
        code == SQLITE_ROW || code == SQLITE_DONE ? STORE_OK : sqlite_fail(store, "looking requests up");
    sqlite3_reset(rows);
    return status;
}
