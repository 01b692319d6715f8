/* The two books side by side, and the changes to the catalogue that must reach both, whichever gate it is: here is what both have in common, and
 * the choice; books_lua.c and books_redlock.c do the rest. Blocking; pool threads, setup, verify. Owns nothing. A failure is a status;
 * store_error(), gate_side_failure() and books_failure() have the words. */
#include "books_sides.h"

#include "doorbuster/check.h"
#include "doorbuster/clock.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

#define RECORD_POLL_MS 2

static _Thread_local char failure[512];

const char *books_failure(void)
{
    return failure;
}

enum change_outcome books_fail(const char *why)
{
    snprintf(failure, sizeof failure, "%s", why);
    return CHANGE_FAILED;
}

static bool is_redlock(const struct gate_side *side)
{
    return side->place->kind == GATE_REDLOCK;
}

/* --- reading ----------------------------------------------------------------------------------------------------------------------------- */
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

enum books_status books_read(struct store *reader, struct gate_side *side, int64_t product_id,
                             struct books *out)
{
    return is_redlock(side) ? books_redlock_read(reader, side, product_id, out)
                            : books_lua_read(reader, side, product_id, out);
}

/* --- changing ---------------------------------------------------------------------------------------------------------------------------- */
enum change_outcome books_change_stock(struct gate_side *side, struct store *writer,
                                       const struct stock_change *change, const struct sale_product *opening,
                                       int patience_ms, struct change_result *result)
{
    CHECK(writer != NULL || !is_redlock(side));
    return is_redlock(side) ? books_redlock_change_stock(side, writer, change, opening, result)
                            : books_lua_change_stock(side, change, opening, patience_ms, result);
}

enum change_outcome books_change_price(struct gate_side *side, struct store *writer,
                                       const struct price_change *change, int patience_ms,
                                       struct change_result *result)
{
    CHECK(writer != NULL || !is_redlock(side));
    return is_redlock(side) ? books_redlock_change_price(writer, change, result)
                            : books_lua_change_price(side, change, patience_ms, result);
}

enum change_outcome books_change_window(struct gate_side *side, struct store *writer,
                                        const struct window_change *change, int patience_ms,
                                        struct change_result *result)
{
    CHECK(writer != NULL || !is_redlock(side));
    return is_redlock(side) ? books_redlock_change_window(side, writer, change, result)
                            : books_lua_change_window(side, change, patience_ms, result);
}

/* --- the catalogue ------------------------------------------------------------------------------------------------------------------------ */
/* CATALOG_ADDED: nothing has been made for it yet. */
static enum catalog_status find_repeated(struct store *writer, const struct store_product_request *request,
                                         struct store_product *product, int64_t deadline_us)
{
    struct store_product made;
    bool same;
    enum store_status status =
        request == NULL ? STORE_NOT_FOUND : store_find_product_of_request(writer, request, &made, &same);
    if (status != STORE_OK) {
        return status == STORE_NOT_FOUND ? CATALOG_ADDED : CATALOG_STORE_FAILED;
    }
    product->id = made.id;
    if (!same) {
        return CATALOG_KEY_REUSED;
    }
    return wait_until(product_is_open, writer, &product->id, deadline_us) ? CATALOG_REPEATED
                                                                          : CATALOG_NOT_RECORDED;
}

enum catalog_status catalog_add(struct store *writer, struct gate_side *side, struct store_product *product,
                                int64_t actor, const struct store_product_request *request,
                                int64_t deadline_us)
{
    enum catalog_status repeated = find_repeated(writer, request, product, deadline_us);
    if (repeated != CATALOG_ADDED) {
        return repeated;
    }
    enum store_status status = store_add_product_for(writer, product, request);
    if (status == STORE_TAKEN) { /* by the same request, which came twice at once? */
        repeated = find_repeated(writer, request, product, deadline_us);
    }
    if (status != STORE_OK) {
        return repeated != CATALOG_ADDED   ? repeated
               : status == STORE_TAKEN     ? CATALOG_NAME_TAKEN
               : status == STORE_NOT_FOUND ? CATALOG_NO_COMPONENT
                                           : CATALOG_STORE_FAILED;
    }
    /* If we die here, or the gate is away, the recorder (of the Redlock gate the keeper) opens the product. */
    struct stock_change change = {.product_id = product->id,
                                  .delta = product->planned_stock,
                                  .cause = STOCK_OPENING,
                                  .actor = actor,
                                  .note = "opening stock"};
    const struct sale_product opening = books_sale_product(product);
    struct change_result result;
    if (books_change_stock(side, writer, &change, &opening, clock_left_ms(deadline_us), &result) >=
        CHANGE_CLOSED) {
        return CATALOG_GATE_FAILED;
    }
    /* Opened by us, or by the recorder, which was faster. */
    if (!wait_until(product_is_open, writer, &product->id, deadline_us)) {
        return CATALOG_NOT_RECORDED;
    }
    return store_find_product(writer, product->id, product) == STORE_OK ? CATALOG_ADDED
                                                                        : CATALOG_STORE_FAILED;
}

/* What is left now, as the gate sees it: of the Redlock gate that is what the store says. */
static enum catalog_status read_available(struct store *reader, struct gate_side *side, int64_t product_id,
                                          int64_t *available)
{
    struct store_product product;
    if (!is_redlock(side)) {
        return books_lua_available(reader, side, product_id, available);
    }
    if (store_find_product(reader, product_id, &product) != STORE_OK) {
        return CATALOG_STORE_FAILED;
    }
    *available = product.stock;
    return CATALOG_ADDED;
}

static enum catalog_status withdraw_stock(struct store *writer, struct gate_side *side, int64_t product_id,
                                          int64_t actor, const char *note, int64_t deadline_us)
{
    struct change_result result = {.stock = 1};
    while (result.stock > 0) { /* buyers may be faster than we are */
        int64_t available;
        enum catalog_status status = read_available(writer, side, product_id, &available);
        if (status != CATALOG_ADDED) {
            return status;
        }
        /* Cancellations may have brought more back than one change can take. */
        int64_t units = available < PRODUCT_STOCK_MAX ? available : PRODUCT_STOCK_MAX;
        struct stock_change change = {
            .product_id = product_id, .delta = -units, .cause = STOCK_WITHDRAWAL, .actor = actor};
        snprintf(change.note, sizeof change.note, "%s", note);
        enum change_outcome changed =
            books_change_stock(side, writer, &change, NULL, clock_left_ms(deadline_us), &result);
        if (changed == CHANGE_CLOSED) {
            break;
        }
        if (changed != CHANGE_MADE && changed != CHANGE_SHORT) {
            return CATALOG_GATE_FAILED;
        }
    }
    return books_await_recorded(writer, result.position, deadline_us) ? CATALOG_ADDED : CATALOG_NOT_RECORDED;
}

enum catalog_status catalog_withdraw_all(struct store *writer, struct gate_side *side, int64_t product_id,
                                         int64_t actor, const char *note, int64_t deadline_us)
{
    struct store_product product;
    if (store_find_product(writer, product_id, &product) != STORE_OK) {
        return CATALOG_STORE_FAILED;
    }
    return product.component_count > 0 ? CATALOG_ADDED
                                       : withdraw_stock(writer, side, product_id, actor, note, deadline_us);
}
