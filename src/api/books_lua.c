/* The books of the Lua gate: the store's side at its position in the sales log, Redis's at the same position, and changes by its scripts. Blocking;
 * pool threads, setup, verify. Owns nothing. */
#include "books_sides.h"

#include <string.h>

#define READ_TRIES 5

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

enum books_status books_lua_read(struct store *reader, struct gate_side *side, int64_t product_id,
                                 struct books *out)
{
    for (int try = 0; try < READ_TRIES; try++) {
        enum books_status status = read_store_side(reader, product_id, out);
        if (status != BOOKS_READ) {
            return status;
        }
        if (!read_gate_side(side->redis, out)) {
            return BOOKS_GATE_FAILED;
        }
        if (out->gate.at_known) {
            break;
        }
    }
    out->equal = out->equal && out->gate.at_known;
    return BOOKS_READ;
}

enum catalog_status books_lua_available(struct store *reader, struct gate_side *side, int64_t product_id,
                                        int64_t *available)
{
    const struct sale_product product = {.id = product_id};
    struct gate_stock now;
    struct store_position at; /* Redis sends the log from there along */
    if (store_position(reader, &at) != STORE_OK) {
        return CATALOG_STORE_FAILED;
    }
    if (!gate_read_stock(side->redis, &product, at.recorded, &now)) {
        books_fail(redis_failure());
        return CATALOG_GATE_FAILED;
    }
    *available = now.available;
    return CATALOG_ADDED;
}

static enum change_outcome note_failure(enum change_outcome outcome)
{
    if (outcome == CHANGE_FAILED || outcome == CHANGE_CLOSED) {
        books_fail(redis_failure());
    }
    return outcome;
}

enum change_outcome books_lua_change_stock(struct gate_side *side, const struct stock_change *change,
                                           const struct sale_product *opening, int patience_ms,
                                           struct change_result *result)
{
    return note_failure(gate_change_stock(side->redis, change, opening, patience_ms, result));
}

enum change_outcome books_lua_change_price(struct gate_side *side, const struct price_change *change,
                                           int patience_ms, struct change_result *result)
{
    return note_failure(gate_change_price(side->redis, change, patience_ms, result));
}

enum change_outcome books_lua_change_window(struct gate_side *side, const struct window_change *change,
                                            int patience_ms, struct change_result *result)
{
    return note_failure(gate_change_window(side->redis, change, patience_ms, result));
}
