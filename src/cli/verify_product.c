/* verify's checks of one product: its book in the store, what its orders and its rows in the audit log add up to, and Redis's side of it at the
 * same position of the log. A bundle has no stock of its own. One thread, blocking, reads only; within the audit's snapshot. */
#include "verify.h"

#include "doorbuster/books.h"
#include "doorbuster/check.h"
#include "doorbuster/clock.h"
#include "doorbuster/gate_books.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PRODUCTS_AT_ONCE 64

static bool is_bundle(const struct store_product *product)
{
    return product->component_count > 0;
}

/* --- the store's side ---------------------------------------------------------------------------------------------------------------- */
static void check_bundle_has_no_stock(struct audit *audit, const struct store_product *product)
{
    audit_report(audit, "stock arithmetic",
                 audit_holds(product->stock == 0 && product->opening == 0 && product->restocked == 0),
                 "bundle %" PRId64 ": no stock of its own (opening %" PRId64 ", restocked %" PRId64
                 ", stock %" PRId64 "); %" PRId64 " sold, %" PRId64 " cancelled",
                 product->id, product->opening, product->restocked, product->stock, product->sold,
                 product->cancelled);
}

static void check_arithmetic(struct audit *audit, const struct store_product *product)
{
    int64_t expected = product->opening + product->restocked + product->cancelled - product->sold;
    audit_report(audit, "stock arithmetic", audit_holds(expected == product->stock),
                 "product %" PRId64 ": opening %" PRId64 " + restocked %" PRId64 " + cancelled %" PRId64
                 " - sold %" PRId64 " = %" PRId64 ", stock %" PRId64,
                 product->id, product->opening, product->restocked, product->cancelled, product->sold,
                 expected, product->stock);
}

/* Beyond them the scripts take Redis for damaged. Only cancellations lift a stock above what it can be filled up to. */
static void check_ranges(struct audit *audit, const struct store_product *product)
{
    bool stock_fits = product->stock >= 0 && product->stock - product->cancelled <= PRODUCT_STOCK_MAX;
    bool price_fits = product->price >= 1 && product->price <= PRODUCT_PRICE_MAX;
    audit_report(audit, "stock and price in range", audit_holds(stock_fits && price_fits),
                 "product %" PRId64 ": stock %" PRId64 " (0 to %" PRId64 " and %" PRId64
                 " cancelled), price %" PRId64 " (1 to %" PRId64 ")",
                 product->id, product->stock, PRODUCT_STOCK_MAX, product->cancelled, product->price,
                 PRODUCT_PRICE_MAX);
}

static void check_sums(struct audit *audit, const struct store_product *product,
                       const struct store_product_audit *sums)
{
    audit_report(
        audit, "stock changes",
        audit_holds(sums->opening_units == product->opening && sums->restock_units == product->restocked),
        "product %" PRId64 ": recorded changes add up to opening %" PRId64 " and restocked %" PRId64
        ", the book says %" PRId64 " and %" PRId64,
        product->id, sums->opening_units, sums->restock_units, product->opening, product->restocked);
    audit_report(audit, "units sold = sum of orders", audit_holds(sums->order_units == product->sold),
                 "product %" PRId64 ": %" PRId64 " units in %" PRId64 " orders, the book says %" PRId64
                 " sold",
                 product->id, sums->order_units, sums->order_count, product->sold);
    audit_report(audit, "units cancelled", audit_holds(sums->cancelled_units == product->cancelled),
                 "product %" PRId64 ": %" PRId64 " units in cancelled orders, the book says %" PRId64
                 " cancelled",
                 product->id, sums->cancelled_units, product->cancelled);
    audit_report(
        audit, "bundles took their components", audit_holds(sums->component_units == sums->bundled_units),
        "product %" PRId64 ": %" PRId64 " units taken by bundles, those in orders are made of %" PRId64,
        product->id, sums->component_units, sums->bundled_units);
    audit_report(audit, "customer limit", audit_holds(sums->over_limit_customers == 0),
                 product->per_customer_limit > 0
                     ? "product %" PRId64 ": %" PRId64 " customers have more than %" PRId64
                     : "product %" PRId64 ": no limit (%" PRId64 " customers over %" PRId64 ")",
                 product->id, sums->over_limit_customers, product->per_customer_limit);
}

#define WINDOW_WORDS_BYTES (2 * CLOCK_RFC3339_BYTES + 16)

/* 0: no such time. */
static void show_window(int64_t starts_at_ms, int64_t ends_at_ms, char out[WINDOW_WORDS_BYTES])
{
    char starts[CLOCK_RFC3339_BYTES], ends[CLOCK_RFC3339_BYTES];
    clock_rfc3339(starts_at_ms, starts);
    clock_rfc3339(ends_at_ms, ends);
    if (starts_at_ms == 0 && ends_at_ms == 0) {
        snprintf(out, WINDOW_WORDS_BYTES, "always");
    } else if (ends_at_ms == 0) {
        snprintf(out, WINDOW_WORDS_BYTES, "from %s", starts);
    } else if (starts_at_ms == 0) {
        snprintf(out, WINDOW_WORDS_BYTES, "until %s", ends);
    } else {
        snprintf(out, WINDOW_WORDS_BYTES, "from %s to %s", starts, ends);
    }
}

/* What the book would be if there were nothing but the audit log. A price and a window that were never changed have no row. */
static void check_audit_log(struct audit *audit, const struct store_product *product,
                            const struct store_product_audit *sums)
{
    int64_t price = sums->logged_price > 0 ? sums->logged_price : product->price;
    audit_report(audit, "stock from the audit log",
                 audit_holds(sums->logged_stock == product->stock && price == product->price),
                 "product %" PRId64 ": the audit log adds up to stock %" PRId64 " and price %" PRId64
                 ", the book says %" PRId64 " and %" PRId64,
                 product->id, sums->logged_stock, price, product->stock, product->price);
    const struct sale_window logged = sums->window_logged
                                          ? sums->logged_window
                                          : (struct sale_window){product->starts_at_ms, product->ends_at_ms};
    char by_log[WINDOW_WORDS_BYTES], by_book[WINDOW_WORDS_BYTES];
    show_window(logged.starts_at_ms, logged.ends_at_ms, by_log);
    show_window(product->starts_at_ms, product->ends_at_ms, by_book);
    audit_report(
        audit, "window from the audit log",
        audit_holds(logged.starts_at_ms == product->starts_at_ms && logged.ends_at_ms == product->ends_at_ms),
        "product %" PRId64 ": on sale %s by the audit log, %s by the book", product->id, by_log, by_book);
}

static void check_first_come(struct audit *audit, const struct store_product *product,
                             const struct store_product_audit *sums, const struct gate_stock *gate)
{
    if (!gate->sold_out) {
        audit_report(audit, "last sale before sold out", HOLDS,
                     "product %" PRId64 ": no sold-out answer since stock was last added", product->id);
        return;
    }
    bool in_order =
        sums->last_order_id <= gate->sold_out_order && sums->last_order_at_ms <= gate->sold_out_at_ms;
    audit_report(audit, "last sale before sold out", audit_holds(in_order),
                 "product %" PRId64 ": last sale order %" PRId64 " at %" PRId64
                 " ms, first sold-out answer after order %" PRId64 " at %" PRId64 " ms",
                 product->id, sums->last_order_id, sums->last_order_at_ms, gate->sold_out_order,
                 gate->sold_out_at_ms);
}

/* --- Redis's side ---------------------------------------------------------------------------------------------------------------------- */
static void note_book(struct audit *audit, const struct verify_book *book)
{
    if (audit->book_count == audit->books_room) {
        audit->books_room = audit->books_room > 0 ? 2 * audit->books_room : 64;
        audit->books = realloc(audit->books, audit->books_room * sizeof *audit->books);
        CHECK(audit->books != NULL);
    }
    audit->books[audit->book_count++] = *book;
}

static void take_difference(struct verify_book *book, const char *what, int64_t redis, int64_t store)
{
    if (book->differ_in == NULL && redis != store) {
        book->differ_in = what;
        book->redis_has = redis;
        book->store_has = store;
    }
}

static void compare_components(struct verify_book *book, const struct sale_product *redis,
                               const struct store_product *store)
{
    take_difference(book, "number of components", (int64_t)redis->component_count,
                    (int64_t)store->component_count);
    for (size_t i = 0; book->differ_in == NULL && i < store->component_count; i++) {
        const struct bundle_component *of = &redis->components[i];
        take_difference(book, "a component", of->product_id, store->components[i].product_id);
        take_difference(book, "a component's quantity", of->quantity, store->components[i].quantity);
    }
}

/* A product that Redis does not know agrees if it is not open yet. */
static void compare_sides(struct verify_book *book, const struct gate_stock *gate,
                          const struct store_product *product)
{
    if (!is_bundle(product)) {
        book->redis = gate->stock_at;
        take_difference(book, "stock", gate->stock_at, product->stock);
    }
    if (!gate->on_sale) {
        take_difference(book, "being on sale", 0, product->opened);
        return;
    }
    take_difference(book, "price", gate->price_at, product->price);
    take_difference(book, "customer limit", gate->now.limit, product->per_customer_limit);
    take_difference(book, "sale's begin", gate->window_at.starts_at_ms, product->starts_at_ms);
    take_difference(book, "sale's end", gate->window_at.ends_at_ms, product->ends_at_ms);
    compare_components(book, &gate->now, product);
}

static bool read_redis(struct audit *audit, const struct store_product *product, struct gate_stock *gate)
{
    struct sale_product asked = books_sale_product(product);
    return audit->redis != NULL && gate_read_stock(audit->redis, &asked, audit->position.recorded, gate);
}

static void report_sides(struct audit *audit, const struct store_product *product,
                         const struct gate_stock *gate, const struct verify_book *book)
{
    char at[SALES_LOG_POSITION_BYTES], sides[160] = "", difference[160] = "";
    log_position_format(audit->position.recorded, at);
    if (is_bundle(product)) {
        snprintf(sides, sizeof sides, "of %zu components, which allow %" PRId64, product->component_count,
                 gate->stock_at);
    } else {
        snprintf(sides, sizeof sides, "Redis %" PRId64 ", store %" PRId64, gate->stock_at, product->stock);
    }
    if (book->differ_in != NULL) {
        snprintf(difference, sizeof difference, "; they differ in %s: Redis %" PRId64 ", store %" PRId64,
                 book->differ_in, book->redis_has, book->store_has);
    }
    audit_report(audit, "Redis = store", audit_holds(book->differ_in == NULL),
                 "%s %" PRId64 ": %s at log position %s (now %" PRId64 ", %" PRId64 " in flight)%s",
                 is_bundle(product) ? "bundle" : "product", product->id, sides, at, gate->available,
                 gate->in_flight, difference);
}

/* A bundle has nothing on the nodes: its components are checked as products of their own. */
static bool check_node_books(struct audit *audit, const struct store_product *product,
                             struct gate_stock *gate)
{
    struct verify_book book = {.product_id = product->id, .store = product->stock};
    *gate = (struct gate_stock){0};
    if (is_bundle(product)) {
        return false;
    }
    audit_check_node_book(audit, product, &book);
    gate->stock_at = book.redis;
    note_book(audit, &book);
    return book.known;
}

/* The store's side was read in the snapshot. False: Redis's is unknown. */
static bool check_books(struct audit *audit, const struct store_product *product, struct gate_stock *gate)
{
    *gate = (struct gate_stock){0};
    bool read = read_redis(audit, product, gate);
    struct verify_book book = {
        .product_id = product->id, .store = product->stock, .known = read && gate->at_known};
    if (book.known) {
        compare_sides(&book, gate, product);
        report_sides(audit, product, gate, &book);
    } else {
        audit_report(audit, "Redis = store", UNKNOWN, "product %" PRId64 ": %s", product->id,
                     audit->redis == NULL ? "Redis cannot be reached"
                     : read               ? "the log at the store's position is gone"
                                          : redis_failure());
    }
    note_book(audit, &book);
    return book.known;
}

/* --- the whole product ------------------------------------------------------------------------------------------------------------------ */
/* `gate` is NULL if Redis's side is unknown. */
static cJSON *product_json(const struct store_product *product, const struct gate_stock *gate)
{
    cJSON *json = cJSON_CreateObject();
    cJSON_AddNumberToObject(json, "id", (double)product->id);
    cJSON_AddStringToObject(json, "name", product->name);
    cJSON_AddNumberToObject(json, "price", (double)product->price);
    cJSON_AddBoolToObject(json, "is_bundle", is_bundle(product));
    if (is_bundle(product)) {
        cJSON_AddItemToObject(json, "components", books_components_json(product));
    }
    cJSON_AddNumberToObject(json, "opening", (double)product->opening);
    cJSON_AddNumberToObject(json, "restocked", (double)product->restocked);
    cJSON_AddNumberToObject(json, "cancelled", (double)product->cancelled);
    cJSON_AddNumberToObject(json, "sold", (double)product->sold);
    cJSON_AddNumberToObject(json, "stock", (double)product->stock);
    if (gate != NULL) { /* of a bundle: what its components allow */
        cJSON_AddNumberToObject(json, is_bundle(product) ? "redis_available" : "redis_stock",
                                (double)gate->stock_at);
    }
    return json;
}

static void check_product(struct audit *audit, const struct store_product *product)
{
    struct store_product_audit sums;
    struct gate_stock gate;
    if (!audit->quick && store_audit_product(audit->store, product->id, &sums) != STORE_OK) {
        audit_report_store_failure(audit, "units sold = sum of orders");
        return;
    }
    if (is_bundle(product)) {
        check_bundle_has_no_stock(audit, product);
    } else {
        check_arithmetic(audit, product);
    }
    check_ranges(audit, product);
    if (!audit->quick) {
        check_sums(audit, product, &sums);
        check_audit_log(audit, product, &sums);
    }
    bool has_log = audit->place->gate.kind == GATE_LUA;
    bool known = has_log ? check_books(audit, product, &gate) : check_node_books(audit, product, &gate);
    if (known && has_log && !audit->quick) { /* the scripts alone keep when they said sold out first */
        check_first_come(audit, product, &sums, &gate);
    }
    if (audit->output == OUTPUT_JSON) {
        cJSON_AddItemToArray(audit->products, product_json(product, known ? &gate : NULL));
    }
}

void audit_check_products(struct audit *audit)
{
    struct store_product *products = calloc(PRODUCTS_AT_ONCE, sizeof *products);
    size_t count = PRODUCTS_AT_ONCE;
    int64_t after = 0;
    bool found = audit->only_product == 0;
    CHECK(products != NULL);
    while (count == PRODUCTS_AT_ONCE) {
        if (store_products(audit->store, after, products, PRODUCTS_AT_ONCE, &count) != STORE_OK) {
            audit_report_store_failure(audit, "products");
            break;
        }
        for (size_t i = 0; i < count; i++) {
            after = products[i].id;
            if (audit->only_product == 0 || products[i].id == audit->only_product) {
                check_product(audit, &products[i]);
                found = true;
            }
        }
    }
    if (!found) {
        audit_report(audit, "products", UNKNOWN, "there is no product %" PRId64, audit->only_product);
    }
    free(products);
}
