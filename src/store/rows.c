/* Accounts, products and single orders.
 *
 * Runs on pool threads of the workers, in the recorder (reads) and in the tools. Owns nothing: statements are
 * the connection's, rows are copied out. A failed statement rolls back and is a sentence in store_error(). */
#include "sql.h"

#include "doorbuster/check.h"
#include "doorbuster/clock.h"

#include <stdlib.h>
#include <string.h>

#define SHELF_BITS 12 /* orders_by_user is sorted by id >> 12 first: 0001_first.sql says why */

/* Column lists: statements.c. */
static void read_user(struct store *store, enum sql_statement row, void *out)
{
    struct store_user *user = out;
    user->id = sql_int(store, row, 0);
    sql_copy_text(store, row, 1, user->username, sizeof user->username);
    sql_copy_text(store, row, 2, user->email, sizeof user->email);
    sql_copy_text(store, row, 3, user->password_hash, sizeof user->password_hash);
    user->role = sql_int(store, row, 4) == USER_ADMIN ? USER_ADMIN : USER_BUYER;
    user->created_at_ms = sql_int(store, row, 5);
}

static void read_product(struct store *store, enum sql_statement row, void *out)
{
    struct store_product *product = out;
    product->id = sql_int(store, row, 0);
    sql_copy_text(store, row, 1, product->name, sizeof product->name);
    sql_copy_text(store, row, 2, product->description, sizeof product->description);
    product->price = sql_int(store, row, 3);
    product->per_customer_limit = sql_int(store, row, 4);
    product->planned_stock = sql_int(store, row, 5);
    product->opened = sql_int(store, row, 6) != 0;
    product->stock = sql_int(store, row, 7);
    product->opening = sql_int(store, row, 8);
    product->restocked = sql_int(store, row, 9);
    product->cancelled = sql_int(store, row, 10);
    product->sold = sql_int(store, row, 11);
    product->created_at_ms = sql_int(store, row, 12);
    product->updated_at_ms = sql_int(store, row, 13);
    product->starts_at_ms = sql_int(store, row, 14);
    product->ends_at_ms = sql_int(store, row, 15);
    product->component_count = sql_int(store, row, 16) != 0; /* of a bundle more: add_components() */
}

static void read_order(struct store *store, enum sql_statement row, void *out)
{
    struct store_order *order = out;
    order->sale.id = sql_int(store, row, 0);
    order->state = sql_int(store, row, 1) == ORDER_REJECTED ? ORDER_REJECTED : ORDER_CONFIRMED;
    order->sale.request = sql_int(store, row, 2);
    order->sale.user_id = sql_int(store, row, 3);
    order->sale.product_id = sql_int(store, row, 4);
    order->sale.quantity = sql_int(store, row, 5);
    order->sale.unit_price = sql_int(store, row, 6);
    order->sale.remaining = sql_int(store, row, 7);
    order->at_ms = sql_int(store, row, 8);
    order->position.epoch = (uint64_t)sql_int(store, row, 9);
    order->position.n = (uint64_t)sql_int(store, row, 10);
    order->sale.key = NULL;
    order->sale.key_bytes = 0;
    order->sale.more = NULL;
    order->sale.more_count = 0;
    sql_copy_text(store, row, 11, order->idempotency_key, sizeof order->idempotency_key);
    order->part_count = (size_t)sql_int(store, row, 12);
    order->cancelled_at_ms = sql_int(store, row, 13); /* NULL reads as 0 */
    order->cancelled_by = sql_int(store, row, 14);
    if (!sql_is_null(store, row, 13))
        order->state = ORDER_CANCELLED;
}

static void read_part(struct store *store, enum sql_statement row, void *out)
{
    *(struct order_part *)out = (struct order_part){.product_id = sql_int(store, row, 0),
                                                    .quantity = sql_int(store, row, 1),
                                                    .unit_price = sql_int(store, row, 2),
                                                    .remaining = sql_int(store, row, 3),
                                                    .is_component = sql_int(store, row, 4) != 0};
}

static void read_component(struct store *store, enum sql_statement row, void *out)
{
    *(struct bundle_component *)out =
        (struct bundle_component){.product_id = sql_int(store, row, 0), .quantity = sql_int(store, row, 1)};
}

typedef void (*read_row)(struct store *store, enum sql_statement row, void *out);

/* The one row of a bound statement. */
static enum store_status find_one(struct store *store, enum sql_statement statement, read_row read, void *out,
                                  const char *doing)
{
    enum store_status status = STORE_OK;
    enum sql_result result = sql_step(store, statement);
    if (result == SQL_ROW)
        read(store, statement, out);
    else if (result == SQL_DONE)
        status = STORE_NOT_FOUND;
    else
        status = sql_fail(store, doing);
    sql_reset(store, statement);
    return status;
}

/* All rows of a bound statement, which has a LIMIT of what `out` holds. */
static enum store_status find_many(struct store *store, enum sql_statement statement, read_row read,
                                   void *out, size_t row_bytes, size_t *count, const char *doing)
{
    enum store_status status = STORE_OK;
    enum sql_result result;
    for (*count = 0; (result = sql_step(store, statement)) == SQL_ROW; (*count)++)
        read(store, statement, (char *)out + *count * row_bytes);
    if (result != SQL_DONE)
        status = sql_fail(store, doing);
    sql_reset(store, statement);
    return status;
}

static int64_t limit_of(size_t max)
{
    return max > INT32_MAX ? INT32_MAX : (int64_t)max;
}

/* --- accounts --- */
enum store_status store_find_user(struct store *store, const char *username, struct store_user *out)
{
    const enum sql_statement statement = SQL_USER_BY_NAME;
    sql_bind_string(store, statement, 1, username);
    return find_one(store, statement, read_user, out, "looking a user up");
}

enum store_status store_find_user_by_id(struct store *store, int64_t id, struct store_user *out)
{
    const enum sql_statement statement = SQL_USER_BY_ID;
    sql_bind_int(store, statement, 1, id);
    return find_one(store, statement, read_user, out, "looking a user up");
}

/* Runs a bound statement that adds a row under a name and returns its id; no row: the name is in use. */
static enum store_status add_row(struct store *store, enum sql_statement statement, int64_t *id,
                                 const char *doing)
{
    enum store_status status = STORE_OK;
    enum sql_result result = sql_step(store, statement);
    if (result == SQL_ROW)
        *id = sql_int(store, statement, 0);
    else
        status = result == SQL_DONE ? STORE_TAKEN : sql_fail(store, doing);
    sql_reset(store, statement);
    return status;
}

static enum store_status insert_user(struct store *store, struct store_user *user, const char *doing)
{
    const enum sql_statement statement = SQL_ADD_USER;
    user->created_at_ms = clock_wall_ms();
    sql_bind_string(store, statement, 1, user->username);
    sql_bind_string(store, statement, 2, user->email);
    sql_bind_string(store, statement, 3, user->password_hash);
    sql_bind_int(store, statement, 4, (int)user->role);
    sql_bind_int(store, statement, 5, user->created_at_ms);
    return add_row(store, statement, &user->id, doing);
}

enum store_status store_add_user(struct store *store, struct store_user *user)
{
    static const char doing[] = "adding a user";
    CHECK(store_may_write(store));
    /* A crowd that registers names it already has must not queue for the recorder's lock. */
    struct store_user holder;
    enum store_status status = store_find_user(store, user->username, &holder);
    if (status != STORE_NOT_FOUND)
        return status == STORE_OK ? STORE_TAKEN : status;
    status = sql_write_begin(store, doing);
    return status == STORE_OK ? sql_write_end(store, insert_user(store, user, doing), doing) : status;
}

static enum store_status write_user(struct store *store, int64_t id, enum user_role role,
                                    const char *password_hash, const char *doing)
{
    const enum sql_statement statement = SQL_UPDATE_USER;
    sql_bind_int(store, statement, 1, id);
    sql_bind_int(store, statement, 2, (int)role);
    sql_bind_string(store, statement, 3, password_hash);
    if (sql_run(store, statement) != SQL_DONE)
        return sql_fail(store, doing);
    return sql_changes(store) == 0 ? STORE_NOT_FOUND : STORE_OK;
}

enum store_status store_update_user(struct store *store, int64_t id, enum user_role role,
                                    const char *password_hash)
{
    static const char doing[] = "changing a user";
    CHECK(store_may_write(store));
    enum store_status status = sql_write_begin(store, doing);
    return status == STORE_OK ? sql_write_end(store, write_user(store, id, role, password_hash, doing), doing)
                              : status;
}

/* --- products --- */
enum store_status store_components(struct store *store, int64_t bundle_id,
                                   struct bundle_component out[BUNDLE_COMPONENTS_MAX], size_t *count)
{
    const enum sql_statement statement = SQL_COMPONENTS;
    sql_bind_int(store, statement, 1, bundle_id);
    sql_bind_int(store, statement, 2, BUNDLE_COMPONENTS_MAX);
    return find_many(store, statement, read_component, out, sizeof *out, count,
                     "reading a bundle's components");
}

/* A product and its components are written in one transaction and the components never change, so this needs no snapshot. */
static enum store_status add_components(struct store *store, struct store_product *product)
{
    return product->component_count == 0
               ? STORE_OK
               : store_components(store, product->id, product->components, &product->component_count);
}

static enum store_status find_product(struct store *store, enum sql_statement statement,
                                      struct store_product *out)
{
    enum store_status status = find_one(store, statement, read_product, out, "looking a product up");
    return status == STORE_OK ? add_components(store, out) : status;
}

enum store_status store_find_product(struct store *store, int64_t id, struct store_product *out)
{
    const enum sql_statement statement = SQL_PRODUCT_BY_ID;
    sql_bind_int(store, statement, 1, id);
    return find_product(store, statement, out);
}

enum store_status store_find_product_by_name(struct store *store, const char *name, struct store_product *out)
{
    const enum sql_statement statement = SQL_PRODUCT_BY_NAME;
    sql_bind_string(store, statement, 1, name);
    return find_product(store, statement, out);
}

enum store_status store_products(struct store *store, int64_t after, struct store_product *out, size_t max,
                                 size_t *count)
{
    const enum sql_statement statement = SQL_PRODUCTS_AFTER;
    sql_bind_int(store, statement, 1, after);
    sql_bind_int(store, statement, 2, limit_of(max));
    enum store_status status =
        find_many(store, statement, read_product, out, sizeof *out, count, "listing products");
    for (size_t i = 0; i < *count && status == STORE_OK; i++)
        status = add_components(store, &out[i]);
    return status;
}

enum store_status store_catalog_size(struct store *store, size_t newest, int64_t *count, int64_t *first)
{
    CHECK(newest > 0);
    const enum sql_statement row = SQL_CATALOG_SIZE;
    enum store_status status = STORE_OK;
    sql_bind_int(store, row, 1, limit_of(newest));
    if (sql_step(store, row) == SQL_ROW) {
        *count = sql_int(store, row, 0);
        *first = sql_int(store, row, 1);
    } else
        status = sql_fail(store, "counting the products");
    sql_reset(store, row);
    return status;
}

static enum store_status check_components(struct store *store, struct store_product *product,
                                          const char *doing)
{
    const enum sql_statement statement = SQL_IS_COMPONENT;
    for (size_t i = 0; i < product->component_count; i++) {
        sql_bind_int(store, statement, 1, product->components[i].product_id);
        enum sql_result result = sql_run(store, statement);
        if (result == SQL_DONE) {
            product->id = product->components[i].product_id;
            return STORE_NOT_FOUND;
        }
        if (result != SQL_ROW)
            return sql_fail(store, doing);
    }
    return STORE_OK;
}

static enum store_status insert_components(struct store *store, const struct store_product *product,
                                           int64_t id, const char *doing)
{
    const enum sql_statement statement = SQL_ADD_COMPONENT;
    for (size_t i = 0; i < product->component_count; i++) {
        sql_bind_int(store, statement, 1, id);
        sql_bind_int(store, statement, 2, product->components[i].product_id);
        sql_bind_int(store, statement, 3, product->components[i].quantity);
        if (sql_run(store, statement) != SQL_DONE)
            return sql_fail(store, doing);
    }
    return STORE_OK;
}

/* A key makes one product, whatever its name: of two that come with it at once the second finds the first here. */
static enum store_status check_request(struct store *store, const struct store_product_request *request,
                                       const char *doing)
{
    const enum sql_statement statement = SQL_PRODUCT_BY_REQUEST;
    if (request == NULL)
        return STORE_OK;
    sql_bind_string(store, statement, 1, request->key);
    enum sql_result result = sql_run(store, statement);
    return result == SQL_DONE ? STORE_OK : result == SQL_ROW ? STORE_TAKEN : sql_fail(store, doing);
}

static enum store_status insert_product(struct store *store, struct store_product *product,
                                        const struct store_product_request *request, const char *doing)
{
    const enum sql_statement statement = SQL_ADD_PRODUCT;
    sql_bind_string(store, statement, 1, product->name);
    sql_bind_string(store, statement, 2, product->description);
    sql_bind_int(store, statement, 3, product->price);
    sql_bind_int(store, statement, 4, product->per_customer_limit);
    sql_bind_int(store, statement, 5, product->planned_stock);
    sql_bind_int(store, statement, 6, clock_wall_ms());
    sql_bind_int(store, statement, 7, product->starts_at_ms);
    sql_bind_int(store, statement, 8, product->ends_at_ms);
    sql_bind_int(store, statement, 9, product->component_count > 0);
    sql_bind_text(store, statement, 10, request ? request->key : NULL, request ? strlen(request->key) : 0);
    sql_bind_text(store, statement, 11, request ? request->hash : NULL, request ? strlen(request->hash) : 0);
    enum store_status status = check_request(store, request, doing);
    if (status == STORE_OK)
        status = check_components(store, product, doing);
    if (status != STORE_OK)
        return status;
    int64_t id;
    status = add_row(store, statement, &id, doing);
    if (status == STORE_OK)
        status = insert_components(store, product, id, doing);
    return status == STORE_OK ? store_find_product(store, id, product) : status;
}

static bool components_are_sound(const struct store_product *product)
{
    bool sound = product->component_count <= BUNDLE_COMPONENTS_MAX;
    for (size_t i = 0; sound && i < product->component_count; i++) {
        const struct bundle_component *component = &product->components[i];
        sound = component->quantity >= 1 && component->quantity <= PURCHASE_QUANTITY_MAX;
        for (size_t j = 0; sound && j < i; j++)
            sound = product->components[j].product_id != component->product_id;
    }
    return sound;
}

enum store_status store_add_product(struct store *store, struct store_product *product)
{
    return store_add_product_for(store, product, NULL);
}

enum store_status store_find_product_of_request(struct store *store,
                                                const struct store_product_request *request,
                                                struct store_product *out, bool *same)
{
    const enum sql_statement statement = SQL_PRODUCT_BY_REQUEST;
    enum store_status status = STORE_OK;
    int64_t id = 0;
    sql_bind_string(store, statement, 1, request->key);
    enum sql_result result = sql_step(store, statement);
    if (result == SQL_ROW) {
        id = sql_int(store, statement, 0);
        *same = strcmp(sql_text(store, statement, 1), request->hash) == 0;
    } else
        status = result == SQL_DONE ? STORE_NOT_FOUND : sql_fail(store, "looking a request for a product up");
    sql_reset(store, statement);
    return status == STORE_OK ? store_find_product(store, id, out) : status;
}

enum store_status store_add_product_for(struct store *store, struct store_product *product,
                                        const struct store_product_request *request)
{
    static const char doing[] = "adding a product";
    CHECK(store_may_write(store));
    CHECK(product->price > 0 && product->per_customer_limit >= 0 && product->planned_stock >= 0);
    CHECK(product->starts_at_ms >= 0 && product->ends_at_ms >= 0 && components_are_sound(product));
    enum store_status status = sql_write_begin(store, doing);
    return status == STORE_OK ? sql_write_end(store, insert_product(store, product, request, doing), doing)
                              : status;
}

static enum store_status write_name(struct store *store, int64_t id, const char *name, const char *doing)
{
    const enum sql_statement statement = SQL_RENAME_PRODUCT;
    sql_bind_int(store, statement, 1, id);
    sql_bind_string(store, statement, 2, name);
    sql_bind_int(store, statement, 3, clock_wall_ms());
    if (sql_run(store, statement) != SQL_DONE)
        return sql_fail(store, doing);
    if (sql_changes(store) == 1)
        return STORE_OK;
    struct store_product product;
    enum store_status status = store_find_product(store, id, &product);
    return status == STORE_OK ? STORE_TAKEN : status;
}

enum store_status store_rename_product(struct store *store, int64_t id, const char *name)
{
    static const char doing[] = "renaming a product";
    CHECK(store_may_write(store));
    enum store_status status = sql_write_begin(store, doing);
    return status == STORE_OK ? sql_write_end(store, write_name(store, id, name, doing), doing) : status;
}

/* --- orders --- */
enum store_status store_find_order(struct store *store, int64_t id, struct store_order *out)
{
    const enum sql_statement statement = SQL_ORDER_BY_ID;
    sql_bind_int(store, statement, 1, id);
    return find_one(store, statement, read_order, out, "looking an order up");
}

enum store_status store_order_parts(struct store *store, int64_t id, struct order_part *out, size_t max,
                                    size_t *count)
{
    const enum sql_statement statement = SQL_ORDER_PARTS;
    sql_bind_int(store, statement, 1, id);
    sql_bind_int(store, statement, 2, limit_of(max));
    return find_many(store, statement, read_part, out, sizeof *out, count, "reading the parts of an order");
}

/* The last order below `before`, 0 if there is none; of this user, if the database has an index for that. */
static enum store_status last_order_before(struct store *store, int64_t before, int64_t user_id, int64_t *id,
                                           const char *doing)
{
    const enum sql_statement row = SQL_LAST_ORDER_BEFORE;
    sql_bind_int(store, row, 1, before);
    sql_bind_int(store, row, 2, user_id);
    enum store_status status = STORE_OK;
    if (sql_step(store, row) == SQL_ROW)
        *id = sql_int(store, row, 0);
    else
        status = sql_fail(store, doing);
    sql_reset(store, row);
    return status;
}

/* From the newest shelf down, skipping to the next that has any orders at all, so that a gap in the ids costs
 * nothing. A driver without shelves finds all at once, below the shelf too. */
static enum store_status walk_shelves(struct store *store, int64_t user_id, int64_t before,
                                      struct store_order *out, size_t max, size_t *count, const char *doing)
{
    const enum sql_statement statement = SQL_ORDERS_OF_USER;
    int64_t last = 0;
    enum store_status status = last_order_before(store, before, user_id, &last, doing);
    while (status == STORE_OK && last > 0 && *count < max) {
        size_t found = 0;
        const int64_t shelf = last >> SHELF_BITS;
        sql_bind_int(store, statement, 1, shelf);
        sql_bind_int(store, statement, 2, user_id);
        sql_bind_int(store, statement, 3, before);
        sql_bind_int(store, statement, 4, limit_of(max - *count));
        status = find_many(store, statement, read_order, out + *count, sizeof *out, &found, doing);
        *count += found;
        before = shelf << SHELF_BITS;
        if (found > 0 && out[*count - 1].sale.id < before)
            before = out[*count - 1].sale.id;
        if (status == STORE_OK && *count < max)
            status = last_order_before(store, before, user_id, &last, doing);
    }
    return status;
}

enum store_status store_orders_of(struct store *store, int64_t user_id, int64_t before,
                                  struct store_order *out, size_t max, size_t *count)
{
    static const char doing[] = "listing a user's orders";
    *count = 0;
    enum store_status status = sql_read_begin(store);
    if (status != STORE_OK)
        return status;
    status = walk_shelves(store, user_id, before, out, max, count, doing);
    sql_read_end(store);
    return status;
}

enum store_status store_latest_orders(struct store *store, struct store_order *out, size_t max, size_t *count)
{
    const enum sql_statement statement = SQL_LATEST_ORDERS;
    sql_bind_int(store, statement, 1, limit_of(max));
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

enum store_status store_find_requests(struct store *store, struct log_position from,
                                      struct store_request *wanted, size_t count)
{
    const enum sql_statement rows = SQL_ORDERS_BACKWARDS;
    struct store_order order;
    size_t missing = count;
    enum sql_result result = SQL_ROW;
    for (size_t i = 0; i < count; i++)
        wanted[i].found = false;
    qsort(wanted, count, sizeof *wanted, compare_requests);
    while (missing > 0 && (result = sql_step(store, rows)) == SQL_ROW) {
        read_order(store, rows, &order);
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
        result == SQL_ROW || result == SQL_DONE ? STORE_OK : sql_fail(store, "looking requests up");
    sql_reset(store, rows);
    return status;
}
