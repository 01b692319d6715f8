/* The two books side by side, and the changes to the catalogue that must reach both. Blocking; pool threads, setup, verify. Owns nothing. A
 * failure is a status; store_error() and redis_failure() have the words. */
#include "doorbuster/books.h"

#include "doorbuster/clock.h"

#include <stdio.h>
#include <time.h>

#define READ_TRIES 5
#define RECORD_TIMEOUT_MS 5000
#define RECORD_POLL_MS 2
#define GATE_PATIENCE_MS 5000

static enum books_status read_store_side(struct store *reader, int64_t product_id, struct books *out)
{
    struct store_position position;
    if (store_snapshot_begin(reader) != STORE_OK) {
        return BOOKS_STORE_FAILED;
    }
    enum store_status status = store_position(reader, &position);
    if (status == STORE_OK) {
        status = store_find_product(reader, product_id, &out->product);
    }
    store_snapshot_end(reader);
    out->position = position.recorded;
    return status == STORE_OK          ? BOOKS_READ
           : status == STORE_NOT_FOUND ? BOOKS_NO_PRODUCT
                                       : BOOKS_STORE_FAILED;
}

enum books_status books_read(struct store *reader, redisContext *redis, int64_t product_id, struct books *out)
{
    for (int try = 0; try < READ_TRIES; try++) {
        enum books_status status = read_store_side(reader, product_id, out);
        if (status != BOOKS_READ) {
            return status;
        }
        if (!gate_read_stock(redis, product_id, out->position, &out->gate)) {
            return BOOKS_REDIS_FAILED;
        }
        if (out->gate.at_known) {
            break;
        }
    }
    /* stock_at is 0 for a product that Redis does not know, before its opening and in the log up to there. */
    out->equal = out->gate.at_known && out->gate.stock_at == out->product.stock &&
                 out->gate.on_sale >= out->product.opened;
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
                       const void *what)
{
    int64_t deadline_us = clock_monotonic_us() + (int64_t)RECORD_TIMEOUT_MS * 1000;
    while (!is_so(store, what)) {
        if (clock_monotonic_us() > deadline_us) {
            return false;
        }
        nanosleep(&(struct timespec){.tv_nsec = RECORD_POLL_MS * 1000000}, NULL);
    }
    return true;
}

enum catalog_status catalog_add(struct store *writer, redisContext *redis, struct store_product *product,
                                int64_t actor)
{
    enum store_status status = store_add_product(writer, product);
    if (status != STORE_OK) {
        return status == STORE_TAKEN ? CATALOG_NAME_TAKEN : CATALOG_STORE_FAILED;
    }
    /* If we die here, or Redis is away, the recorder opens the product when it next attaches. */
    struct stock_change change = {.product_id = product->id,
                                  .delta = product->planned_stock,
                                  .cause = STOCK_OPENING,
                                  .actor = actor,
                                  .note = "opening stock"};
    struct gate_opening opening = {.price = product->price, .limit = product->per_customer_limit};
    struct log_position position = {0};
    int64_t stock;
    if (gate_change_stock(redis, &change, &opening, GATE_PATIENCE_MS, &position, &stock) >= GATE_CLOSED) {
        return CATALOG_REDIS_FAILED;
    }
    /* Opened by us, or by the recorder, which was faster. */
    if (!wait_until(product_is_open, writer, &product->id)) {
        return CATALOG_NOT_RECORDED;
    }
    return store_find_product(writer, product->id, product) == STORE_OK ? CATALOG_ADDED
                                                                        : CATALOG_STORE_FAILED;
}

enum catalog_status catalog_withdraw_all(struct store *reader, redisContext *redis, int64_t product_id,
                                         int64_t actor, const char *note)
{
    struct gate_stock now;
    struct log_position position = {0};
    int64_t stock = 1;
    while (stock > 0) { /* buyers may be faster than we are */
        if (!gate_read_stock(redis, product_id, position, &now)) {
            return CATALOG_REDIS_FAILED;
        }
        struct stock_change change = {
            .product_id = product_id, .delta = -now.available, .cause = STOCK_WITHDRAWAL, .actor = actor};
        snprintf(change.note, sizeof change.note, "%s", note);
        enum gate_change changed =
            gate_change_stock(redis, &change, NULL, GATE_PATIENCE_MS, &position, &stock);
        if (changed == GATE_CLOSED) {
            break;
        }
        if (changed != GATE_CHANGED && changed != GATE_SHORT) {
            return CATALOG_REDIS_FAILED;
        }
    }
    return wait_until(position_is_recorded, reader, &position) ? CATALOG_ADDED : CATALOG_NOT_RECORDED;
}
