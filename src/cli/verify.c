/* verify's body: asks both books and the log, and says line by line what it compared and what it found. One thread, blocking, reads only.
 * Owns its two connections. It may run in the middle of a sale: everything about the store is read in one snapshot, and Redis's figures are
 * taken back to that snapshot's position in the log. */
#include "cli.h"

#include "doorbuster/books.h"
#include "doorbuster/check.h"

#include <cjson/cJSON.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define REDIS_TIMEOUT_MS 5000
#define PRODUCTS_MAX 10000
#define TAIL_ENTRIES_AT_ONCE 256
#define TAIL_ORDERS_MAX 100000

enum verdict { HOLDS, BROKEN, UNKNOWN };

struct audit {
    struct store *store;
    redisContext *redis; /* NULL: could not be reached */
    bool json;
    int64_t only_product; /* 0: all */
    size_t broken, unknown;
    cJSON *checks, *products;
    struct store_position position;
    struct store_orders_audit orders;
};

/* One check: its name, whether it holds, and the figures. */
static void report(struct audit *audit, const char *name, enum verdict verdict, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
static void report(struct audit *audit, const char *name, enum verdict verdict, const char *format, ...)
{
    char detail[512];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(detail, sizeof detail, format, arguments);
    va_end(arguments);
    audit->broken += verdict == BROKEN;
    audit->unknown += verdict == UNKNOWN;
    if (!audit->json) {
        static const char *const words[] = {[HOLDS] = "ok     ", [BROKEN] = "BROKEN ", [UNKNOWN] = "unknown"};
        printf("%s  %-28s %s\n", words[verdict], name, detail);
        return;
    }
    cJSON *check = cJSON_CreateObject();
    cJSON_AddStringToObject(check, "name", name);
    cJSON_AddBoolToObject(check, "ok", verdict == HOLDS);
    cJSON_AddStringToObject(check, "detail", detail);
    cJSON_AddItemToArray(audit->checks, check);
}

static enum verdict holds(bool condition)
{
    return condition ? HOLDS : BROKEN;
}

static void report_store_failure(struct audit *audit, const char *name)
{
    report(audit, name, UNKNOWN, "%s", store_error(audit->store));
}

/* --- one product ------------------------------------------------------------------------------------------------------------------ */
static void check_arithmetic(struct audit *audit, const struct store_product *product,
                             const struct store_product_audit *sums)
{
    int64_t expected = product->opening + product->restocked + product->cancelled - product->sold;
    report(audit, "stock arithmetic", holds(expected == product->stock),
           "product %" PRId64 ": opening %" PRId64 " + restocked %" PRId64 " + cancelled %" PRId64
           " - sold %" PRId64 " = %" PRId64 ", stock %" PRId64,
           product->id, product->opening, product->restocked, product->cancelled, product->sold, expected,
           product->stock);
    report(audit, "stock changes",
           holds(sums->opening_units == product->opening && sums->restock_units == product->restocked),
           "product %" PRId64 ": recorded changes add up to opening %" PRId64 " and restocked %" PRId64
           ", the book says %" PRId64 " and %" PRId64,
           product->id, sums->opening_units, sums->restock_units, product->opening, product->restocked);
    report(audit, "stock not negative", holds(product->stock >= 0), "product %" PRId64 ": stock %" PRId64,
           product->id, product->stock);
    report(audit, "units sold = sum of orders", holds(sums->order_units == product->sold),
           "product %" PRId64 ": %" PRId64 " units in %" PRId64 " orders, the book says %" PRId64 " sold",
           product->id, sums->order_units, sums->order_count, product->sold);
    report(audit, "customer limit", holds(sums->over_limit_customers == 0),
           product->per_customer_limit > 0
               ? "product %" PRId64 ": %" PRId64 " customers have more than %" PRId64
               : "product %" PRId64 ": no limit (%" PRId64 " customers over %" PRId64 ")",
           product->id, sums->over_limit_customers, product->per_customer_limit);
}

static void check_first_come(struct audit *audit, const struct store_product *product,
                             const struct store_product_audit *sums, const struct gate_stock *gate)
{
    if (!gate->sold_out) {
        report(audit, "last sale before sold out", HOLDS,
               "product %" PRId64 ": no sold-out answer since stock was last added", product->id);
        return;
    }
    bool in_order =
        sums->last_order_id <= gate->sold_out_order && sums->last_order_at_ms <= gate->sold_out_at_ms;
    report(audit, "last sale before sold out", holds(in_order),
           "product %" PRId64 ": last sale order %" PRId64 " at %" PRId64
           " ms, first sold-out answer after order %" PRId64 " at %" PRId64 " ms",
           product->id, sums->last_order_id, sums->last_order_at_ms, gate->sold_out_order,
           gate->sold_out_at_ms);
}

/* Redis's side; the store's was read in the snapshot. */
static void check_books(struct audit *audit, const struct store_product *product,
                        const struct store_product_audit *sums, cJSON *json)
{
    static const char name[] = "Redis = store";
    char at[SALES_LOG_POSITION_BYTES];
    struct gate_stock gate = {0};
    bool read =
        audit->redis != NULL && gate_read_stock(audit->redis, product->id, audit->position.recorded, &gate);
    log_position_format(audit->position.recorded, at);
    if (!read || !gate.at_known) {
        report(audit, name, UNKNOWN, "product %" PRId64 ": %s", product->id,
               audit->redis == NULL ? "Redis cannot be reached"
               : read               ? "the log at the store's position is gone"
                                    : redis_failure());
        return;
    }
    bool equal = gate.stock_at == product->stock && gate.on_sale >= product->opened;
    report(audit, name, holds(equal),
           "product %" PRId64 ": Redis %" PRId64 ", store %" PRId64 " at log position %s (now %" PRId64
           ", %" PRId64 " in flight)",
           product->id, gate.stock_at, product->stock, at, gate.available, gate.in_flight);
    check_first_come(audit, product, sums, &gate);
    cJSON_AddNumberToObject(json, "redis_stock", (double)gate.stock_at);
}

static void check_product(struct audit *audit, const struct store_product *product)
{
    struct store_product_audit sums;
    if (store_audit_product(audit->store, product->id, &sums) != STORE_OK) {
        report_store_failure(audit, "stock arithmetic");
        return;
    }
    cJSON *json = cJSON_CreateObject();
    cJSON_AddItemToArray(audit->products, json);
    cJSON_AddNumberToObject(json, "id", (double)product->id);
    cJSON_AddStringToObject(json, "name", product->name);
    cJSON_AddNumberToObject(json, "opening", (double)product->opening);
    cJSON_AddNumberToObject(json, "restocked", (double)product->restocked);
    cJSON_AddNumberToObject(json, "cancelled", (double)product->cancelled);
    cJSON_AddNumberToObject(json, "sold", (double)product->sold);
    cJSON_AddNumberToObject(json, "stock", (double)product->stock);
    check_arithmetic(audit, product, &sums);
    check_books(audit, product, &sums, json);
}

static void check_products(struct audit *audit)
{
    struct store_product *products = calloc(PRODUCTS_MAX, sizeof *products);
    size_t count = 0;
    CHECK(products != NULL);
    if (store_products(audit->store, 0, products, PRODUCTS_MAX, &count) != STORE_OK) {
        report_store_failure(audit, "products");
    }
    bool found = audit->only_product == 0;
    for (size_t i = 0; i < count; i++) {
        if (audit->only_product == 0 || products[i].id == audit->only_product) {
            check_product(audit, &products[i]);
            found = true;
        }
    }
    if (!found) {
        report(audit, "products", UNKNOWN, "there is no product %" PRId64, audit->only_product);
    }
    free(products);
}

/* --- all orders ----------------------------------------------------------------------------------------------------------------------- */
static void check_orders(struct audit *audit)
{
    struct store_orders_audit *orders = &audit->orders;
    if (store_audit_orders(audit->store, orders) != STORE_OK) {
        report_store_failure(audit, "order ids without gaps");
        return;
    }
    report(audit, "order ids without gaps",
           holds(orders->first_gap == 0 && orders->last_id == orders->count &&
                 audit->position.last_order_id == orders->last_id),
           "%" PRId64 " orders, ids %" PRId64 " to %" PRId64 ", first gap %" PRId64 " (0: none)",
           orders->count, orders->first_id, orders->last_id, orders->first_gap);
    report(audit, "first come, first served",
           holds(orders->out_of_log_order == 0 && orders->out_of_time_order == 0),
           "%" PRId64 " orders before their predecessor in the log, %" PRId64 " in time (the first: %" PRId64
           ")",
           orders->out_of_log_order, orders->out_of_time_order, orders->first_out_of_order);
    report(audit, "orders known to the log", holds(orders->beyond_position == 0),
           "%" PRId64 " orders beyond the recorded log position", orders->beyond_position);
    report(audit, "orders complete", holds(orders->unknown_user == 0 && orders->unknown_product == 0),
           "%" PRId64 " of an unknown user, %" PRId64 " of an unknown product", orders->unknown_user,
           orders->unknown_product);
    report(audit, "orders rejected", holds(orders->rejected == 0),
           "%" PRId64 " reservations did not fit the store", orders->rejected);
}

/* --- the log's tail ---------------------------------------------------------------------------------------------------------------------- */
struct tail {
    int64_t recorded, in_flight, different, out_of_sequence;
    int64_t next_id; /* expected of the first order that is not recorded yet */
};

static bool same_key(const struct store_order *stored, const struct sale_order *logged)
{
    return strlen(stored->idempotency_key) == logged->key_bytes &&
           (logged->key == NULL || memcmp(stored->idempotency_key, logged->key, logged->key_bytes) == 0);
}

static bool same_order(const struct store_order *stored, const struct sale_order *logged,
                       const struct log_entry *entry)
{
    return stored->sale.request == logged->request && stored->sale.user_id == logged->user_id &&
           stored->sale.product_id == logged->product_id && stored->sale.quantity == logged->quantity &&
           stored->sale.unit_price == logged->unit_price && stored->at_ms == entry->at_ms &&
           same_key(stored, logged) && log_position_compare(stored->position, entry->position) == 0;
}

static void compare_entry(struct audit *audit, const struct log_entry *entry, struct tail *tail)
{
    bool recorded = log_position_compare(entry->position, audit->position.recorded) <= 0;
    for (size_t i = 0; i < entry->order_count; i++) {
        const struct sale_order *logged = &entry->orders[i];
        struct store_order stored;
        if (recorded) {
            bool same = store_find_order(audit->store, logged->id, &stored) == STORE_OK &&
                        same_order(&stored, logged, entry);
            tail->recorded++;
            tail->different += !same;
        } else {
            tail->in_flight++;
            tail->out_of_sequence += logged->id != tail->next_id;
            tail->next_id = logged->id + 1;
        }
    }
}

/* Every order that is still in the log, against the store's row; then those that are not recorded yet: their ids must follow on. */
static void check_tail(struct audit *audit)
{
    static const char name[] = "orders = log";
    struct gate_head head;
    if (audit->redis == NULL || !gate_read_head(audit->redis, &head)) {
        report(audit, name, UNKNOWN, "%s",
               audit->redis == NULL ? "Redis cannot be reached" : redis_failure());
        return;
    }
    static struct log_entry entries[TAIL_ENTRIES_AT_ONCE];
    static struct sale_order orders[TAIL_ENTRIES_AT_ONCE * SALES_LOG_ORDERS_MAX];
    struct log_position at = head.log_lost;
    struct tail tail = {.next_id = audit->position.last_order_id + 1};
    size_t count = 1;
    while (count > 0 && tail.recorded + tail.in_flight < TAIL_ORDERS_MAX) {
        redisReply *reply;
        if (!gate_read_log(audit->redis, NULL, at, 0, entries, TAIL_ENTRIES_AT_ONCE, orders,
                           sizeof orders / sizeof orders[0], &count, &reply)) {
            report(audit, name, UNKNOWN, "%s", redis_failure());
            return;
        }
        for (size_t i = 0; i < count; i++) {
            compare_entry(audit, &entries[i], &tail);
            at = entries[i].position;
        }
        freeReplyObject(reply);
    }
    report(audit, name, holds(tail.different == 0 && tail.out_of_sequence == 0),
           "%" PRId64 " recorded orders in the log's tail, %" PRId64 " differ from the store; %" PRId64
           " in flight, %" PRId64 " out of sequence",
           tail.recorded, tail.different, tail.in_flight, tail.out_of_sequence);
}

/* --- the whole ------------------------------------------------------------------------------------------------------------------------------ */
static void print_json(struct audit *audit)
{
    cJSON *json = cJSON_CreateObject();
    cJSON_AddBoolToObject(json, "ok", audit->broken == 0 && audit->unknown == 0);
    cJSON_AddItemToObject(json, "checks", audit->checks);
    cJSON_AddItemToObject(json, "products", audit->products);
    cJSON_AddNumberToObject(json, "orders", (double)audit->orders.count);
    char *text = cJSON_Print(json);
    puts(text);
    cJSON_free(text);
    cJSON_Delete(json);
}

static void print_summary(const struct audit *audit)
{
    if (audit->broken > 0) {
        printf("%zu checks do not hold.\n", audit->broken);
    } else if (audit->unknown > 0) {
        printf("%zu checks could not be made; the others hold.\n", audit->unknown);
    } else {
        printf("All hold: %" PRId64 " orders, every book equal.\n", audit->orders.count);
    }
}

int verify_run(const struct settings *settings)
{
    static struct audit audit;
    struct cli_place place;
    char error[512], redis_error[512] = "";
    cli_read_place(settings, &place);
    audit.json = settings_get(settings, "json") != NULL;
    if (settings_get(settings, "product") != NULL) {
        audit.only_product = settings_get_integer(settings, "product", 1, INT64_MAX);
    }
    if (store_open(&audit.store, place.store_url, STORE_READER, error, sizeof error) != STORE_OK) {
        fprintf(stderr, "doorbuster-verify: %s\n", error);
        return 2;
    }
    audit.redis = redis_connect_blocking(&place.redis, REDIS_TIMEOUT_MS, redis_error, sizeof redis_error);
    if (audit.redis == NULL) {
        fprintf(stderr, "doorbuster-verify: %s; only the store can be checked\n", redis_error);
    }
    audit.checks = cJSON_CreateArray();
    audit.products = cJSON_CreateArray();
    if (store_snapshot_begin(audit.store) != STORE_OK ||
        store_position(audit.store, &audit.position) != STORE_OK) {
        fprintf(stderr, "doorbuster-verify: %s\n", store_error(audit.store));
        return 2;
    }
    check_products(&audit);
    check_orders(&audit);
    check_tail(&audit);
    store_snapshot_end(audit.store);
    if (audit.json) {
        print_json(&audit);
    } else {
        print_summary(&audit);
        cJSON_Delete(audit.checks);
        cJSON_Delete(audit.products);
    }
    store_close(&audit.store);
    if (audit.redis != NULL) {
        redisFree(audit.redis);
    }
    return audit.broken > 0 ? 1 : audit.unknown > 0 ? 2 : 0;
}
