/* The two books side by side, and the changes to the catalogue that must reach both. Blocking; pool threads, setup, verify. Owns nothing. A
 * failure is a status; store_error() and redis_failure() have the words. */
#include "doorbuster/books.h"

#include "doorbuster/clock.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

#define READ_TRIES 5
#define RECORD_POLL_MS 2

enum store_status books_store_stock(struct store *store, const struct store_product *product, int64_t *stock,
                                    int64_t component_stocks[BUNDLE_COMPONENTS_MAX])
{
    *stock = product->component_count > 0 ? INT64_MAX : product->stock;
    for (size_t i = 0; i < product->component_count; i++) {
        struct store_product component;
        enum store_status status = store_find_product(store, product->components[i].product_id, &component);
        if (status != STORE_OK) {
            return status;
        }
        int64_t allows = component.stock / product->components[i].quantity;
        *stock = allows < *stock ? allows : *stock;
        if (component_stocks != NULL) {
            component_stocks[i] = component.stock;
        }
    }
    return STORE_OK;
}

static enum books_status read_store_side(struct store *reader, int64_t product_id, struct books *out)
{
    struct store_position position = {0};
    if (store_snapshot_begin(reader) != STORE_OK) {
        return BOOKS_STORE_FAILED;
    }
    enum store_status status = store_position(reader, &position);
    if (status == STORE_OK) {
        status = store_find_product(reader, product_id, &out->product);
    }
    if (status == STORE_OK &&
        books_store_stock(reader, &out->product, &out->stock, out->component_stocks) != STORE_OK) {
        status = STORE_FAILED; /* a component cannot be missing: the schema sees to that */
    }
    store_snapshot_end(reader);
    out->position = position.recorded;
    return status == STORE_OK          ? BOOKS_READ
           : status == STORE_NOT_FOUND ? BOOKS_NO_PRODUCT
                                       : BOOKS_STORE_FAILED;
}

struct sale_product books_sale_product(const struct store_product *product)
{
    struct sale_product gate = {.id = product->id,
                                .stock = product->stock,
                                .price = product->price,
                                .limit = product->per_customer_limit,
                                .starts_at_ms = product->starts_at_ms,
                                .ends_at_ms = product->ends_at_ms,
                                .component_count = product->component_count};
    memcpy(gate.components, product->components, sizeof gate.components);
    return gate;
}

cJSON *books_components_json(const struct store_product *product)
{
    cJSON *list = cJSON_CreateArray();
    for (size_t i = 0; i < product->component_count; i++) {
        cJSON *component = cJSON_CreateObject();
        cJSON_AddNumberToObject(component, "product_id", (double)product->components[i].product_id);
        cJSON_AddNumberToObject(component, "quantity", (double)product->components[i].quantity);
        cJSON_AddItemToArray(list, component);
    }
    return list;
}

/* A bundle's components have a book each; what they allow may be equal while they are not. */
static bool components_are_equal(const struct books *books)
{
    return memcmp(books->gate.components_at, books->component_stocks,
                  books->product.component_count * sizeof books->component_stocks[0]) == 0;
}

static bool read_gate_side(redisContext *redis, struct books *books)
{
    const struct sale_product product = books_sale_product(&books->product);
    if (!gate_read_stock(redis, &product, books->position, &books->gate)) {
        return false;
    }
    /* stock_at is 0 for a product that Redis does not know, before its opening and in the log up to there. */
    books->equal = books->gate.stock_at == books->stock && books->gate.on_sale >= books->product.opened &&
                   components_are_equal(books);
    return true;
}

enum books_status books_read(struct store *reader, redisContext *redis, int64_t product_id, struct books *out)
{
    for (int try = 0; try < READ_TRIES; try++) {
        enum books_status status = read_store_side(reader, product_id, out);
        if (status != BOOKS_READ) {
            return status;
        }
        if (!read_gate_side(redis, out)) {
            return BOOKS_REDIS_FAILED;
        }
        if (out->gate.at_known) {
            break;
        }
    }
    out->equal = out->equal && out->gate.at_known;
    return BOOKS_READ;
}

static bool position_is_recorded(struct store *store, const void *position)
{
    struct store_position now;
    return store_position(store, &now) == STORE_OK &&
           log_position_compare(now.recorded, *(const struct log_position *)position) >= 0;
}

static bool product_is_open(struct store *store, const void *product_id)
{
    struct store_product product;
    return store_find_product(store, *(const int64_t *)product_id, &product) == STORE_OK && product.opened;
}

static bool wait_until(bool (*is_so)(struct store *store, const void *what), struct store *store,
                       const void *what, int64_t deadline_us)
{
    while (!is_so(store, what)) {
        if (clock_monotonic_us() > deadline_us) {
            return false;
        }
        nanosleep(&(struct timespec){.tv_nsec = RECORD_POLL_MS * 1000000}, NULL);
    }
    return true;
}

bool books_await_recorded(struct store *reader, struct log_position position, int64_t deadline_us)
{
    return wait_until(position_is_recorded, reader, &position, deadline_us);
}

enum catalog_status catalog_add(struct store *writer, redisContext *redis, struct store_product *product,
                                int64_t actor, int64_t deadline_us)
{
    enum store_status status = store_add_product(writer, product);
    if (status != STORE_OK) {
        return status == STORE_TAKEN       ? CATALOG_NAME_TAKEN
               : status == STORE_NOT_FOUND ? CATALOG_NO_COMPONENT
                                           : CATALOG_STORE_FAILED;
    }
    /* If we die here, or Redis is away, the recorder opens the product when it next attaches. */
    struct stock_change change = {.product_id = product->id,
                                  .delta = product->planned_stock,
                                  .cause = STOCK_OPENING,
                                  .actor = actor,
                                  .note = "opening stock"};
    const struct sale_product opening = books_sale_product(product);
    struct change_result result;
    if (gate_change_stock(redis, &change, &opening, clock_left_ms(deadline_us), &result) >= CHANGE_CLOSED) {
        return CATALOG_REDIS_FAILED;
    }
    /* Opened by us, or by the recorder, which was faster. */
    if (!wait_until(product_is_open, writer, &product->id, deadline_us)) {
        return CATALOG_NOT_RECORDED;
    }
    return store_find_product(writer, product->id, product) == STORE_OK ? CATALOG_ADDED
                                                                        : CATALOG_STORE_FAILED;
}

static enum catalog_status withdraw_stock(struct store *reader, redisContext *redis, int64_t product_id,
                                          int64_t actor, const char *note, int64_t deadline_us)
{
    const struct sale_product product = {.id = product_id};
    struct gate_stock now;
    struct store_position at; /* Redis sends the log from there along */
    struct change_result result = {.stock = 1};
    while (result.stock > 0) { /* buyers may be faster than we are */
        if (store_position(reader, &at) != STORE_OK) {
            return CATALOG_STORE_FAILED;
        }
        if (!gate_read_stock(redis, &product, at.recorded, &now)) {
            return CATALOG_REDIS_FAILED;
        }
        /* Cancellations may have brought more back than one change can take. */
        int64_t units = now.available < PRODUCT_STOCK_MAX ? now.available : PRODUCT_STOCK_MAX;
        struct stock_change change = {
            .product_id = product_id, .delta = -units, .cause = STOCK_WITHDRAWAL, .actor = actor};
        snprintf(change.note, sizeof change.note, "%s", note);
        enum change_outcome changed =
            gate_change_stock(redis, &change, NULL, clock_left_ms(deadline_us), &result);
        if (changed == CHANGE_CLOSED) {
            break;
        }
        if (changed != CHANGE_MADE && changed != CHANGE_SHORT) {
            return CATALOG_REDIS_FAILED;
        }
    }
    return books_await_recorded(reader, result.position, deadline_us) ? CATALOG_ADDED : CATALOG_NOT_RECORDED;
}

enum catalog_status catalog_withdraw_all(struct store *reader, redisContext *redis, int64_t product_id,
                                         int64_t actor, const char *note, int64_t deadline_us)
{
    struct store_product product;
    if (store_find_product(reader, product_id, &product) != STORE_OK) {
        return CATALOG_STORE_FAILED;
    }
    return product.component_count > 0 ? CATALOG_ADDED
                                       : withdraw_stock(reader, redis, product_id, actor, note, deadline_us);
}
