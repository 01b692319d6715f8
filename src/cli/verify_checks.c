/* verify's checks: asks both books and the log, and says check by check what it compared and what it found. One thread, blocking, reads
 * only. Owns what a pass has found. It may run in the middle of a sale: everything about the store is read in one snapshot, and Redis's
 * figures are taken back to that snapshot's position in the log. */
#include "verify.h"

#include "doorbuster/check.h"
#include "doorbuster/gate_books.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PRODUCTS_AT_ONCE 64
#define TAIL_ENTRIES_AT_ONCE 256
#define TAIL_ORDERS_MAX 100000

/* --- what was found --------------------------------------------------------------------------------------------------------------- */
void audit_add_name(char *names, size_t bytes, const char *name)
{
    size_t used = strlen(names);
    if (strstr(names, name) == NULL && used + strlen(name) + 3 < bytes) {
        snprintf(names + used, bytes - used, "%s%s", used > 0 ? ", " : "", name);
    }
}

static void add_json_check(struct audit *audit, const char *name, bool ok, const char *detail)
{
    cJSON *check = cJSON_CreateObject();
    cJSON_AddStringToObject(check, "name", name);
    cJSON_AddBoolToObject(check, "ok", ok);
    cJSON_AddStringToObject(check, "detail", detail);
    cJSON_AddItemToArray(audit->checks, check);
}

void audit_report(struct audit *audit, const char *name, enum verdict verdict, const char *format, ...)
{
    static const char *const words[] = {[HOLDS] = "ok     ", [BROKEN] = "BROKEN ", [UNKNOWN] = "unknown"};
    char detail[512];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(detail, sizeof detail, format, arguments);
    va_end(arguments);
    audit->made++;
    audit->broken += verdict == BROKEN;
    audit->unknown += verdict == UNKNOWN;
    if (verdict == BROKEN) {
        audit_add_name(audit->broken_names, sizeof audit->broken_names, name);
    } else if (verdict == UNKNOWN) {
        audit_add_name(audit->unknown_names, sizeof audit->unknown_names, name);
    }
    if (audit->output == OUTPUT_LINES) {
        printf("%s  %-28s %s\n", words[verdict], name, detail);
    } else if (audit->output == OUTPUT_JSON) {
        add_json_check(audit, name, verdict == HOLDS, detail);
    }
}

enum verdict audit_holds(bool condition)
{
    return condition ? HOLDS : BROKEN;
}

int audit_exit_code(const struct audit *audit)
{
    return audit->broken > 0 ? 1 : audit->unknown > 0 ? 2 : 0;
}

static void note_book(struct audit *audit, const struct verify_book *book)
{
    if (audit->book_count == audit->books_room) {
        audit->books_room = audit->books_room > 0 ? 2 * audit->books_room : 64;
        audit->books = realloc(audit->books, audit->books_room * sizeof *audit->books);
        CHECK(audit->books != NULL);
    }
    audit->books[audit->book_count++] = *book;
}

static void report_store_failure(struct audit *audit, const char *name)
{
    audit_report(audit, name, UNKNOWN, "%s", store_error(audit->store));
}

/* --- one product ------------------------------------------------------------------------------------------------------------------ */
static void check_arithmetic(struct audit *audit, const struct store_product *product)
{
    int64_t expected = product->opening + product->restocked + product->cancelled - product->sold;
    audit_report(audit, "stock arithmetic", audit_holds(expected == product->stock),
                 "product %" PRId64 ": opening %" PRId64 " + restocked %" PRId64 " + cancelled %" PRId64
                 " - sold %" PRId64 " = %" PRId64 ", stock %" PRId64,
                 product->id, product->opening, product->restocked, product->cancelled, product->sold,
                 expected, product->stock);
    audit_report(audit, "stock not negative", audit_holds(product->stock >= 0),
                 "product %" PRId64 ": stock %" PRId64, product->id, product->stock);
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
    audit_report(audit, "customer limit", audit_holds(sums->over_limit_customers == 0),
                 product->per_customer_limit > 0
                     ? "product %" PRId64 ": %" PRId64 " customers have more than %" PRId64
                     : "product %" PRId64 ": no limit (%" PRId64 " customers over %" PRId64 ")",
                 product->id, sums->over_limit_customers, product->per_customer_limit);
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

/* Redis's side; the store's was read in the snapshot. False: unknown. */
static bool check_books(struct audit *audit, const struct store_product *product, struct gate_stock *gate)
{
    static const char name[] = "Redis = store";
    char at[SALES_LOG_POSITION_BYTES];
    *gate = (struct gate_stock){0};
    bool read =
        audit->redis != NULL && gate_read_stock(audit->redis, product->id, audit->position.recorded, gate);
    bool known = read && gate->at_known;
    note_book(audit, &(struct verify_book){product->id, gate->stock_at, product->stock, known});
    if (!known) {
        audit_report(audit, name, UNKNOWN, "product %" PRId64 ": %s", product->id,
                     audit->redis == NULL ? "Redis cannot be reached"
                     : read               ? "the log at the store's position is gone"
                                          : redis_failure());
        return false;
    }
    log_position_format(audit->position.recorded, at);
    audit_report(audit, name,
                 audit_holds(gate->stock_at == product->stock && gate->on_sale >= product->opened),
                 "product %" PRId64 ": Redis %" PRId64 ", store %" PRId64 " at log position %s (now %" PRId64
                 ", %" PRId64 " in flight)",
                 product->id, gate->stock_at, product->stock, at, gate->available, gate->in_flight);
    return true;
}

static cJSON *product_json(const struct store_product *product)
{
    cJSON *json = cJSON_CreateObject();
    cJSON_AddNumberToObject(json, "id", (double)product->id);
    cJSON_AddStringToObject(json, "name", product->name);
    cJSON_AddNumberToObject(json, "opening", (double)product->opening);
    cJSON_AddNumberToObject(json, "restocked", (double)product->restocked);
    cJSON_AddNumberToObject(json, "cancelled", (double)product->cancelled);
    cJSON_AddNumberToObject(json, "sold", (double)product->sold);
    cJSON_AddNumberToObject(json, "stock", (double)product->stock);
    return json;
}

static void check_product(struct audit *audit, const struct store_product *product)
{
    struct store_product_audit sums;
    struct gate_stock gate;
    if (!audit->quick && store_audit_product(audit->store, product->id, &sums) != STORE_OK) {
        report_store_failure(audit, "units sold = sum of orders");
        return;
    }
    check_arithmetic(audit, product);
    if (!audit->quick) {
        check_sums(audit, product, &sums);
    }
    bool known = check_books(audit, product, &gate);
    if (known && !audit->quick) {
        check_first_come(audit, product, &sums, &gate);
    }
    if (audit->output == OUTPUT_JSON) {
        cJSON *json = product_json(product);
        if (known) {
            cJSON_AddNumberToObject(json, "redis_stock", (double)gate.stock_at);
        }
        cJSON_AddItemToArray(audit->products, json);
    }
}

static void check_products(struct audit *audit)
{
    struct store_product *products = calloc(PRODUCTS_AT_ONCE, sizeof *products);
    size_t count = PRODUCTS_AT_ONCE;
    int64_t after = 0;
    bool found = audit->only_product == 0;
    CHECK(products != NULL);
    while (count == PRODUCTS_AT_ONCE) {
        if (store_products(audit->store, after, products, PRODUCTS_AT_ONCE, &count) != STORE_OK) {
            report_store_failure(audit, "products");
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

/* --- all orders ----------------------------------------------------------------------------------------------------------------------- */
static void check_orders(struct audit *audit)
{
    struct store_orders_audit *orders = &audit->orders;
    if (store_audit_orders(audit->store, orders) != STORE_OK) {
        report_store_failure(audit, "order ids without gaps");
        return;
    }
    audit_report(audit, "order ids without gaps",
                 audit_holds(orders->first_gap == 0 && orders->last_id == orders->count &&
                             audit->position.last_order_id == orders->last_id),
                 "%" PRId64 " orders (%" PRId64 " of them rejected), ids %" PRId64 " to %" PRId64
                 ", first gap %" PRId64 " (0: none)",
                 orders->count, orders->rejected, orders->first_id, orders->last_id, orders->first_gap);
    audit_report(audit, "first come, first served",
                 audit_holds(orders->out_of_log_order == 0 && orders->out_of_time_order == 0),
                 "%" PRId64 " orders before their predecessor in the log, %" PRId64
                 " in time (the first: %" PRId64 ")",
                 orders->out_of_log_order, orders->out_of_time_order, orders->first_out_of_order);
    audit_report(audit, "orders known to the log", audit_holds(orders->beyond_position == 0),
                 "%" PRId64 " orders beyond the recorded log position", orders->beyond_position);
    audit_report(audit, "orders complete",
                 audit_holds(orders->unknown_user == 0 && orders->unknown_product == 0),
                 "%" PRId64 " of an unknown user, %" PRId64 " of an unknown product", orders->unknown_user,
                 orders->unknown_product);
}

/* --- the log's tail ---------------------------------------------------------------------------------------------------------------------- */
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

/* Takes one entry into the tail; false: enough. */
typedef bool (*tail_step)(struct audit *audit, const struct log_entry *entry);

/* Every order in here is in the store, as it is in the log. */
static bool compare_recorded(struct audit *audit, const struct log_entry *entry)
{
    struct verify_tail *tail = &audit->tail;
    if (log_position_compare(entry->position, audit->position.recorded) > 0) {
        return false;
    }
    for (size_t i = 0; i < entry->order_count; i++) {
        const struct sale_order *logged = &entry->orders[i];
        struct store_order stored;
        bool same = store_find_order(audit->store, logged->id, &stored) == STORE_OK &&
                    same_order(&stored, logged, entry);
        tail->recorded++;
        tail->different += !same;
    }
    return tail->recorded < TAIL_ORDERS_MAX;
}

/* What is not recorded yet: the ids must follow on. */
static bool follow_on(struct audit *audit, const struct log_entry *entry)
{
    struct verify_tail *tail = &audit->tail;
    tail->entries_behind++;
    if (tail->oldest_at_ms == 0) {
        tail->oldest_at_ms = entry->at_ms;
    }
    for (size_t i = 0; i < entry->order_count; i++) {
        tail->in_flight++;
        tail->out_of_sequence += entry->orders[i].id != tail->next_id;
        tail->next_id = entry->orders[i].id + 1;
    }
    return tail->in_flight < TAIL_ORDERS_MAX;
}

/* Reads the log behind `at` as far as `step` wants. False: redis_failure(). */
static bool walk_log(struct audit *audit, struct log_position at, tail_step step)
{
    static struct log_entry entries[TAIL_ENTRIES_AT_ONCE];
    static struct sale_order orders[TAIL_ENTRIES_AT_ONCE * SALES_LOG_ORDERS_MAX];
    size_t count = 1;
    bool more = true;
    while (count > 0 && more) {
        redisReply *reply;
        if (!gate_read_log(audit->redis, NULL, at, 0, entries, TAIL_ENTRIES_AT_ONCE, orders,
                           sizeof orders / sizeof orders[0], &count, &reply)) {
            return false;
        }
        for (size_t i = 0; i < count && more; i++) {
            more = step(audit, &entries[i]);
            at = entries[i].position;
        }
        freeReplyObject(reply);
    }
    return true;
}

/* First what is in flight, as close to the snapshot as can be; then every order that is still in the log against the store's row. */
static void read_tail(struct audit *audit)
{
    struct gate_head head;
    audit->tail.next_id = audit->position.last_order_id + 1;
    if (audit->redis == NULL || !gate_read_head(audit->redis, &head)) {
        return;
    }
    audit->tail.epoch = head.epoch;
    struct log_position from = log_position_compare(head.log_lost, audit->position.recorded) > 0
                                   ? head.log_lost
                                   : audit->position.recorded;
    audit->tail.read = walk_log(audit, from, follow_on) &&
                       (audit->quick || walk_log(audit, head.log_lost, compare_recorded));
}

static void check_tail(struct audit *audit)
{
    static const char name[] = "orders = log";
    const struct verify_tail *tail = &audit->tail;
    if (!tail->read) {
        audit_report(audit, name, UNKNOWN, "%s",
                     audit->redis == NULL ? "Redis cannot be reached" : redis_failure());
        return;
    }
    audit_report(audit, name, audit_holds(tail->different == 0 && tail->out_of_sequence == 0),
                 "%" PRId64 " recorded orders in the log's tail, %" PRId64 " differ from the store; %" PRId64
                 " in flight, %" PRId64 " out of sequence",
                 tail->recorded, tail->different, tail->in_flight, tail->out_of_sequence);
}

/* --- the whole ------------------------------------------------------------------------------------------------------------------------------ */
bool audit_begin(struct audit *audit)
{
    audit_clear(audit);
    if (store_snapshot_begin(audit->store) != STORE_OK ||
        store_position(audit->store, &audit->position) != STORE_OK) {
        fprintf(stderr, VERIFY_PROGRAM ": %s\n", store_error(audit->store));
        return false;
    }
    if (audit->output == OUTPUT_JSON) {
        audit->checks = cJSON_CreateArray();
        audit->products = cJSON_CreateArray();
    }
    return true;
}

void audit_check(struct audit *audit)
{
    read_tail(audit);
    check_products(audit);
    if (!audit->quick) {
        check_orders(audit);
    }
    check_tail(audit);
}

void audit_end(struct audit *audit)
{
    store_snapshot_end(audit->store);
}

void audit_clear(struct audit *audit)
{
    cJSON_Delete(audit->checks);
    cJSON_Delete(audit->products);
    free(audit->books);
    *audit = (struct audit){.place = audit->place,
                            .store = audit->store,
                            .redis = audit->redis,
                            .output = audit->output,
                            .quick = audit->quick,
                            .only_product = audit->only_product};
}

bool audit_connect(struct audit *audit, char *error, size_t error_bytes)
{
    if (audit->redis != NULL && !redis_done(redis_ask(audit->redis, "PING"))) {
        redisFree(audit->redis);
        audit->redis = NULL;
    }
    if (audit->redis == NULL) {
        audit->redis =
            redis_connect_blocking(&audit->place->redis, VERIFY_REDIS_TIMEOUT_MS, error, error_bytes);
    }
    return audit->redis != NULL;
}
