/* The store that decides itself, without a sales log: what it sells and refuses, changes and cancellations, two processes that sell at once, the
 * Lua gate's recorder in between, failing at each step, and stores from before. Against a real SQLite store in a temporary folder. That it
 * decides as the scripts do is test_selling_parity.c's. */
#include "doorbuster/store.h"

#include "doorbuster/clock.h"
#include "embedded.h"
#include "folder.h"
#include "testing.h"
#ifdef DOORBUSTER_FAILPOINTS
#include "failpoints.h"
#endif

#include <inttypes.h>
#include <signal.h>
#include "store_fixture.h"
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define STOCK 10
#define LIMIT 3
#define DAY_MS IDEMPOTENCY_KEY_LIFETIME_MS
#define PATIENCE_MS 10000

/* A lamp may be bought LIMIT times; 1 lamp and 2 chairs make a set; the bench is planned, but not open. */
enum { LAMP = 1, CHAIR, TABLE, SET, BENCH, UNKNOWN = 99 };
enum { ADA = 11, BOB, ADMIN };

struct fixture {
    char folder[FOLDER_BYTES], path[FOLDER_BYTES + 16], url[STORE_FIXTURE_URL_BYTES];
    struct store *store; /* a writer */
    struct stock_moves moves;
    struct purchase purchase; /* the last one of buy() */
    struct order_part more[CART_LINES_MAX];
    struct change_result result;
};

#define assert_ok(f, status) assert_status((f), (status), STORE_OK, __LINE__)

static void assert_status(struct fixture *f, enum store_status status, enum store_status expected, int line)
{
    if (status != expected)
        fail_msg("line %d: status %d, not %d: %s", line, (int)status, (int)expected, store_error(f->store));
}

static struct store *open_another(struct fixture *f)
{
    struct store *store;
    char error[512] = "";
    if (store_open(&store, f->url, STORE_WRITER, error, sizeof error) != STORE_OK)
        fail_msg("opening %s: %s", f->url, error);
    return store;
}

static int set_up_closed(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    assert_non_null(f);
    folder_make(f->folder);
    snprintf(f->path, sizeof f->path, "%s/shop.db", f->folder);
    store_fixture_new(f->folder, "shop.db", f->url, sizeof f->url);
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;
    store_close(&f->store);
    folder_remove(f->folder);
    free(f);
    return 0;
}

/* --- asking --- */
static enum change_outcome change(struct fixture *f, enum stock_cause cause, int64_t product, int64_t delta,
                                  const char *key)
{
    struct stock_change change = {.product_id = product,
                                  .delta = delta,
                                  .cause = cause,
                                  .actor = ADMIN,
                                  .note = "a pallet",
                                  .key = key,
                                  .key_bytes = key == NULL ? 0 : strlen(key)};
    enum change_outcome outcome = CHANGE_FAILED;
    assert_ok(f, store_change_stock(f->store, &change, &outcome, &f->result));
    return outcome;
}

static enum change_outcome change_price(struct fixture *f, int64_t product, int64_t price, const char *key)
{
    struct price_change change = {.product_id = product,
                                  .to = price,
                                  .actor = ADMIN,
                                  .note = "second hour",
                                  .key = key,
                                  .key_bytes = key == NULL ? 0 : strlen(key)};
    enum change_outcome outcome = CHANGE_FAILED;
    assert_ok(f, store_change_price(f->store, &change, &outcome, &f->result));
    return outcome;
}

static enum change_outcome change_window(struct fixture *f, int64_t product, int64_t starts, int64_t ends,
                                         const char *key)
{
    struct window_change change = {.product_id = product,
                                   .to = {starts, ends},
                                   .actor = ADMIN,
                                   .note = "enough",
                                   .key = key,
                                   .key_bytes = key == NULL ? 0 : strlen(key)};
    enum change_outcome outcome = CHANGE_FAILED;
    assert_ok(f, store_change_window(f->store, &change, &outcome, &f->result));
    return outcome;
}

static enum change_outcome cancel(struct fixture *f, int64_t order_id)
{
    enum change_outcome outcome = CHANGE_FAILED;
    assert_ok(f, store_cancel(f->store, order_id, ADMIN, &outcome, &f->result, &f->moves));
    return outcome;
}

static void add_product(struct fixture *f, struct store_product product, const char *name)
{
    snprintf(product.name, sizeof product.name, "%s", name);
    assert_ok(f, store_add_product(f->store, &product));
    if (strcmp(name, "Bench") != 0)
        assert_int_equal(change(f, STOCK_OPENING, product.id, product.planned_stock, NULL), CHANGE_MADE);
}

static int set_up(void **state)
{
    set_up_closed(state);
    struct fixture *f = *state;
    f->store = open_another(f);
    assert_ok(f, store_take_over(f->store));
    add_product(f, (struct store_product){.price = 100, .per_customer_limit = LIMIT, .planned_stock = STOCK},
                "Lamp");
    add_product(f, (struct store_product){.price = 200, .planned_stock = STOCK}, "Chair");
    add_product(f, (struct store_product){.price = 300, .planned_stock = STOCK}, "Table");
    add_product(
        f, (struct store_product){.price = 250, .components = {{LAMP, 1}, {CHAIR, 2}}, .component_count = 2},
        "Set");
    add_product(f, (struct store_product){.price = 500, .planned_stock = STOCK}, "Bench");
    return 0;
}

static struct purchase purchase_of(int64_t user, int64_t product, int64_t quantity, const char *key)
{
    static int64_t request;
    return (struct purchase){.state = PURCHASE_ASKED,
                             .order = {.request = ++request,
                                       .user_id = user,
                                       .product_id = product,
                                       .quantity = quantity,
                                       .key = key,
                                       .key_bytes = key == NULL ? 0 : strlen(key)}};
}

static struct purchase *buy_on(struct fixture *f, struct store *store, int64_t user, int64_t product,
                               int64_t quantity, const char *key)
{
    struct purchase *purchases[] = {&f->purchase};
    f->purchase = purchase_of(user, product, quantity, key);
    assert_ok(f, store_sell(store, purchases, 1, &f->moves));
    return &f->purchase;
}

static struct purchase *buy(struct fixture *f, int64_t user, int64_t product, int64_t quantity)
{
    return buy_on(f, f->store, user, product, quantity, NULL);
}

/* A cart of the product and others behind it. */
static struct purchase *buy_cart(struct fixture *f, int64_t user, int64_t product, int64_t quantity,
                                 const struct bundle_component *more, size_t count)
{
    struct purchase *purchases[] = {&f->purchase};
    f->purchase = purchase_of(user, product, quantity, NULL);
    f->purchase.order.more = f->more;
    f->purchase.order.more_count = count;
    for (size_t i = 0; i < count; i++)
        f->more[i] = (struct order_part){.product_id = more[i].product_id, .quantity = more[i].quantity};
    assert_ok(f, store_sell(f->store, purchases, 1, &f->moves));
    return &f->purchase;
}

static void assert_refused(const struct purchase *purchase, enum refusal refusal, int64_t product,
                           int64_t figure)
{
    assert_int_equal(purchase->refusal, refusal);
    assert_int_equal(purchase->refused_product_id, product);
    assert_int_equal(purchase->figure, figure);
    assert_int_equal(purchase->order.id, 0);
    assert_int_equal(purchase->position.epoch, 0);
}

/* --- looking --- */
static struct store_position position_of(struct fixture *f)
{
    struct store_position position;
    assert_ok(f, store_position(f->store, &position));
    return position;
}

static int64_t stock_of(struct fixture *f, int64_t id)
{
    struct store_product product;
    assert_ok(f, store_find_product(f->store, id, &product));
    return product.stock;
}

/* Triggers that a sentence drops first stand aside in PostgreSQL. */
static void edit(struct fixture *f, const char *sql)
{
    static const char drop[] = "DROP TRIGGER ";
    bool drops = strncmp(sql, drop, strlen(drop)) == 0;
    if (store_fixture_is_postgres() && drops)
        assert_true(store_fixture_edit(f->url, strchr(sql, ';') + 1));
    else
        assert_true(store_fixture_try(f->url, sql));
}

static int64_t number_of(struct fixture *f, const char *sql)
{
    return store_fixture_ask(f->url, sql);
}

/* The books, the orders and the audit log say the same, ids are dense, the chain is whole, nobody has more than the limit. */
static void assert_agrees(struct fixture *f)
{
    struct store_product products[10];
    struct store_chain_audit chain;
    struct store_orders_audit orders;
    size_t count;
    assert_ok(f, store_products(f->store, 0, products, 10, &count));
    for (size_t i = 0; i < count; i++) {
        struct store_product_audit audit;
        assert_ok(f, store_audit_product(f->store, products[i].id, &audit));
        assert_int_equal(audit.order_units, products[i].sold);
        assert_int_equal(audit.cancelled_units, products[i].cancelled);
        assert_int_equal(audit.component_units, audit.bundled_units);
        assert_int_equal(audit.logged_stock, products[i].stock);
        assert_int_equal(audit.over_limit_customers, 0);
    }
    assert_ok(f, store_audit_chain(f->store, &chain));
    assert_int_equal(chain.first_gap + chain.first_forged + chain.first_off + chain.first_backwards, 0);
    assert_ok(f, store_audit_orders(f->store, &orders));
    assert_int_equal(orders.first_gap + orders.rejected + orders.out_of_log_order + orders.out_of_time_order,
                     0);
    assert_int_equal(orders.beyond_position, 0);
    assert_int_equal(orders.last_id, orders.count);
    if (position_of(f).seller == STORE_SOLD_BY_REDLOCK)
        assert_int_equal(
            number_of(f, "SELECT count(*) FROM (SELECT product_id, user_id, units FROM limited_buyers"
                         " WHERE units > 0 EXCEPT SELECT product_id, user_id, sum(quantity) FROM sold_parts"
                         " WHERE state = 0 AND NOT cancelled GROUP BY 1, 2) AS other"),
            0);
}

/* --- selling --- */
static void test_a_sale(void **state)
{
    struct fixture *f = *state;
    struct log_position before = position_of(f).recorded;
    int64_t now_ms = clock_wall_ms();
    struct purchase *purchase = buy(f, ADA, CHAIR, 2);
    assert_int_equal(purchase->order.id, 1);
    assert_int_equal(purchase->order.unit_price, 200);
    assert_int_equal(purchase->order.remaining, STOCK - 2);
    assert_int_equal(purchase->state, PURCHASE_ASKED);
    assert_int_equal(purchase->position.epoch, 1);
    assert_int_equal(purchase->position.n, before.n + 1);
    assert_in_range(purchase->at_ms, now_ms, now_ms + PATIENCE_MS);
    assert_int_equal(log_position_compare(position_of(f).recorded, purchase->position), 0);
    assert_int_equal(log_position_compare(f->moves.position, purchase->position), 0);
    assert_int_equal(f->moves.count, 1);
    assert_int_equal(f->moves.each[0].product_id, CHAIR);
    assert_int_equal(f->moves.each[0].stock, STOCK - 2);
    struct store_order order;
    assert_ok(f, store_find_order(f->store, 1, &order));
    assert_int_equal(order.sale.request, purchase->order.request);
    assert_int_equal(order.at_ms, purchase->at_ms);
    assert_agrees(f);
}

static void test_what_is_refused_is_not_written(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(buy(f, ADA, LAMP, LIMIT)->order.id, 1);
    int64_t version = number_of(f, "SELECT recorded_n FROM state");
    assert_refused(buy(f, ADA, UNKNOWN, 1), REFUSAL_NOT_ON_SALE, UNKNOWN, 0);
    assert_refused(buy(f, ADA, BENCH, 1), REFUSAL_NOT_ON_SALE, BENCH, 0);
    assert_refused(buy(f, ADA, 0, 1), REFUSAL_NOT_ON_SALE, 0, 0);
    assert_refused(buy(f, ADA, CHAIR, STOCK + 1), REFUSAL_INSUFFICIENT_STOCK, 0, 0);
    assert_int_equal(f->purchase.short_lines, 1);
    assert_int_equal(f->purchase.order.remaining, STOCK);
    assert_refused(buy(f, ADA, LAMP, 1), REFUSAL_CUSTOMER_LIMIT, LAMP, LIMIT);
    assert_int_equal(f->purchase.limit, LIMIT);
    assert_int_equal(f->purchase.requested, 1);
    assert_int_equal(f->moves.count, 0);
    assert_int_equal(f->moves.position.epoch, 0);
    assert_int_equal(number_of(f, "SELECT recorded_n FROM state"), version);
    assert_int_equal(number_of(f, "SELECT count(*) FROM orders"), 1);
    assert_agrees(f);
}

static void test_a_batch_in_order(void **state)
{
    struct fixture *f = *state;
    struct purchase all[STOCK + 4], *purchases[STOCK + 4];
    uint64_t n = position_of(f).recorded.n;
    for (size_t i = 0; i < STOCK + 4; i++) {
        all[i] = purchase_of(ADA + (int64_t)i % 2, TABLE, 1, NULL);
        purchases[i] = &all[i];
    }
    all[3] = purchase_of(ADA, UNKNOWN, 1, NULL);
    all[5] = purchase_of(BOB, CHAIR, 1, NULL);
    assert_ok(f, store_sell(f->store, purchases, STOCK + 4, &f->moves));
    int64_t id = 0, left = STOCK;
    for (size_t i = 0; i < STOCK + 4; i++) {
        bool sold = i == 5 || (i != 3 && left > 0);
        left -= sold && i != 5;
        assert_int_equal(all[i].order.id, sold ? ++id : 0);
        assert_int_equal(all[i].order.remaining, i == 5 ? STOCK - 1 : i == 3 ? 0 : left);
    }
    assert_int_equal(id, STOCK + 1);
    assert_int_equal(position_of(f).recorded.n, n + 1);
    assert_int_equal(f->moves.count, 2);
    assert_agrees(f);
}

static void test_a_cart_with_a_bundle(void **state)
{
    struct fixture *f = *state;
    const struct bundle_component more[] = {{SET, 2}, {LAMP, 1}};
    struct purchase *purchase = buy_cart(f, ADA, TABLE, 1, more, 2);
    assert_int_equal(purchase->order.id, 1);
    assert_int_equal(purchase->order.more_count, 2);
    assert_int_equal(f->more[0].unit_price, 250);
    assert_int_equal(f->more[0].remaining, 3); /* by the chairs */
    assert_int_equal(f->more[1].remaining, STOCK - 3);
    struct order_part parts[ORDER_PARTS_MAX];
    size_t count;
    assert_ok(f, store_order_parts(f->store, 1, parts, ORDER_PARTS_MAX, &count));
    assert_int_equal(count, 4);
    assert_int_equal(parts[1].product_id, LAMP);
    assert_true(parts[1].is_component && parts[2].is_component && !parts[3].is_component);
    assert_int_equal(parts[2].quantity, 4);
    assert_int_equal(parts[2].remaining, STOCK - 4);
    assert_int_equal(f->moves.count, 3); /* not the set */
    assert_refused(buy(f, ADA, SET, 1), REFUSAL_CUSTOMER_LIMIT, LAMP, LIMIT);
    const struct bundle_component short_one[] = {{SET, 4}, {CHAIR, 1}};
    assert_refused(buy_cart(f, BOB, TABLE, 20, short_one, 2), REFUSAL_INSUFFICIENT_STOCK, 0, 0);
    assert_int_equal(f->purchase.short_lines, 3);
    assert_int_equal(f->purchase.order.remaining, STOCK - 1);
    assert_int_equal(f->more[0].remaining, 3);
    assert_agrees(f);
    assert_int_equal(cancel(f, 1), CHANGE_MADE);
    assert_int_equal(f->moves.count, 3);
    assert_int_equal(stock_of(f, LAMP) + stock_of(f, CHAIR) + stock_of(f, TABLE), 3 * STOCK);
    assert_int_equal(buy(f, ADA, SET, LIMIT)->order.id, 2);
    assert_agrees(f);
}

/* The largest batch: each line another bundle of ten others. */
static void test_the_largest_batch(void **state)
{
    struct fixture *f = *state;
    static struct order_part more[13][CART_LINES_MAX];
    static struct purchase all[13];
    struct purchase *purchases[13];
    int64_t bundles[SALES_LOG_LINES_MAX];
    for (size_t i = 0; i < SALES_LOG_LINES_MAX / 8; i++) {
        struct store_product bundle = {
            .price = 9, .per_customer_limit = 100, .component_count = BUNDLE_COMPONENTS_MAX};
        for (size_t j = 0; j < BUNDLE_COMPONENTS_MAX; j++) {
            struct store_product part = {.price = 1, .per_customer_limit = 100};
            snprintf(part.name, sizeof part.name, "Part %zu of %zu", j, i);
            assert_ok(f, store_add_product(f->store, &part));
            assert_int_equal(change(f, STOCK_OPENING, part.id, 100, NULL), CHANGE_MADE);
            bundle.components[j] = (struct bundle_component){part.id, 1};
        }
        snprintf(bundle.name, sizeof bundle.name, "Bundle %zu", i);
        assert_ok(f, store_add_product(f->store, &bundle));
        assert_int_equal(change(f, STOCK_OPENING, bundle.id, 0, NULL), CHANGE_MADE);
        for (size_t j = 0; j < 8; j++)
            bundles[i * 8 + j] = bundle.id;
    }
    for (size_t line = 0; line < SALES_LOG_LINES_MAX; line++) {
        size_t i = line / CART_LINES_MAX, at = line % CART_LINES_MAX;
        purchases[i] = &all[i];
        if (at == 0) {
            all[i] = purchase_of(ADA, bundles[line], 1, NULL);
            all[i].order.more = more[i];
        } else {
            more[i][all[i].order.more_count++] =
                (struct order_part){.product_id = bundles[line], .quantity = 1};
        }
    }
    assert_ok(f, store_sell(f->store, purchases, 13, &f->moves));
    for (size_t i = 0; i < 13; i++)
        assert_int_equal(all[i].order.id, i + 1);
    assert_int_equal(f->moves.count, SALES_LOG_LINES_MAX / 8 * BUNDLE_COMPONENTS_MAX);
    for (size_t i = 0; i < f->moves.count; i++)
        assert_int_equal(f->moves.each[i].stock, 92);
    assert_int_equal(number_of(f, "SELECT count(*) FROM order_parts"), SALES_LOG_PARTS_MAX - 13);
}

/* --- limits and keys --- */
static void test_the_limit_over_batches_and_cancellations(void **state)
{
    struct fixture *f = *state;
    struct store *other = open_another(f);
    assert_int_equal(buy(f, ADA, LAMP, 2)->order.id, 1);
    assert_refused(buy_on(f, other, ADA, LAMP, 2, NULL), REFUSAL_CUSTOMER_LIMIT, LAMP, 2);
    assert_int_equal(buy_on(f, other, ADA, SET, 1, NULL)->order.id, 2);
    assert_refused(buy(f, ADA, SET, 1), REFUSAL_CUSTOMER_LIMIT, LAMP, LIMIT);
    assert_int_equal(cancel(f, 1), CHANGE_MADE);
    assert_int_equal(buy_on(f, other, ADA, LAMP, 2, NULL)->order.id, 3);
    assert_refused(buy(f, ADA, LAMP, 1), REFUSAL_CUSTOMER_LIMIT, LAMP, LIMIT);
    assert_int_equal(cancel(f, 2), CHANGE_MADE); /* of a bundle, its component's limit */
    assert_int_equal(buy(f, ADA, LAMP, 1)->order.id, 4);
    assert_agrees(f);
    store_close(&other);
}

/* A table that lost a row: the order counts, and the buyer gets his cancellation. */
static void test_a_cancellation_of_units_that_nobody_knows_of(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(buy(f, ADA, LAMP, 2)->order.id, 1);
    edit(f, "DELETE FROM limited_buyers");
    assert_int_equal(cancel(f, 1), CHANGE_MADE);
    assert_int_equal(stock_of(f, LAMP), STOCK);
    assert_agrees(f);
}

static void test_a_key_is_one_order_for_a_day(void **state)
{
    struct fixture *f = *state;
    char sql[160];
    assert_refused(buy_on(f, f->store, ADA, CHAIR, 99, "k"), REFUSAL_INSUFFICIENT_STOCK, 0, 0);
    assert_int_equal(buy_on(f, f->store, ADA, CHAIR, 1, "k")->order.id, 1);
    assert_refused(buy_on(f, f->store, ADA, CHAIR, 1, "k"), REFUSAL_ALREADY_ORDERED, 0, 1);
    assert_refused(buy_on(f, f->store, ADA, UNKNOWN, 5, "k"), REFUSAL_ALREADY_ORDERED, 0, 1);
    assert_int_equal(buy_on(f, f->store, BOB, CHAIR, 1, "k")->order.id, 2);
    assert_int_equal(cancel(f, 1), CHANGE_MADE); /* it still is that order */
    assert_refused(buy_on(f, f->store, ADA, CHAIR, 1, "k"), REFUSAL_ALREADY_ORDERED, 0, 1);
    snprintf(sql, sizeof sql, "UPDATE recent_keys SET at_ms = %" PRId64 " WHERE user_id = 11",
             clock_wall_ms() - DAY_MS + PATIENCE_MS);
    edit(f, sql);
    assert_refused(buy_on(f, f->store, ADA, CHAIR, 1, "k"), REFUSAL_ALREADY_ORDERED, 0, 1);
    snprintf(sql, sizeof sql, "UPDATE recent_keys SET at_ms = %" PRId64 " WHERE user_id = 11",
             clock_wall_ms() - DAY_MS);
    edit(f, sql);
    assert_int_equal(buy_on(f, f->store, ADA, CHAIR, 1, "k")->order.id, 3);
    assert_refused(buy_on(f, f->store, ADA, CHAIR, 1, "k"), REFUSAL_ALREADY_ORDERED, 0, 3);
    assert_agrees(f);
}

static void test_a_key_twice_in_a_batch(void **state)
{
    struct fixture *f = *state;
    struct purchase all[] = {purchase_of(ADA, CHAIR, 99, "k"), purchase_of(ADA, CHAIR, 1, "k"),
                             purchase_of(BOB, CHAIR, 1, "k"), purchase_of(ADA, TABLE, 1, "k"),
                             purchase_of(ADA, TABLE, 1, "l")};
    struct purchase *purchases[] = {&all[0], &all[1], &all[2], &all[3], &all[4]};
    assert_ok(f, store_sell(f->store, purchases, 5, &f->moves));
    assert_refused(&all[0], REFUSAL_INSUFFICIENT_STOCK, 0, 0);
    assert_int_equal(all[1].order.id, 1);
    assert_int_equal(all[2].order.id, 2);
    assert_refused(&all[3], REFUSAL_ALREADY_ORDERED, 0, 1);
    assert_int_equal(all[4].order.id, 3);
    assert_int_equal(number_of(f, "SELECT count(*) FROM recent_keys"), 3);
}

static void test_old_keys_are_forgotten_a_few_at_a_time(void **state)
{
    struct fixture *f = *state;
    edit(f, "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 100)"
            " INSERT INTO recent_keys (user_id, key, order_id, at_ms) SELECT i, 'old', i, i FROM n");
    assert_int_equal(buy(f, ADA, CHAIR, 1)->order.id, 1);
    assert_int_equal(number_of(f, "SELECT count(*) FROM recent_keys"), 100);
    assert_int_equal(buy_on(f, f->store, ADA, CHAIR, 1, "k")->order.id, 2);
    assert_int_equal(number_of(f, "SELECT count(*) FROM recent_keys"), 99);
    assert_int_equal(number_of(f, "SELECT min(at_ms) FROM recent_keys"), 3);
    assert_int_equal(buy_on(f, f->store, ADA, CHAIR, 1, "l")->order.id, 3);
    assert_int_equal(number_of(f, "SELECT count(*) FROM recent_keys WHERE key <> 'old'"), 2);
}

/* --- time --- */
static void test_a_window_opens_and_ends(void **state)
{
    struct fixture *f = *state;
    int64_t starts_ms = clock_wall_ms() + 60, ends_ms = starts_ms + 200, deadline = deadline_in(PATIENCE_MS);
    add_product(f,
                (struct store_product){
                    .price = 1, .planned_stock = 1000, .starts_at_ms = starts_ms, .ends_at_ms = ends_ms},
                "Flash");
    int64_t flash = BENCH + 1;
    assert_refused(buy(f, ADA, flash, 1), REFUSAL_NOT_OPEN, flash, starts_ms);
    assert_in_range(f->purchase.wait_ms, 1, 60);
    while (buy(f, ADA, flash, 1)->refusal == REFUSAL_NOT_OPEN)
        assert_true(wait_a_moment(deadline));
    assert_true(f->purchase.order.id > 0);
    assert_in_range(f->purchase.at_ms, starts_ms, ends_ms - 1);
    while (buy(f, ADA, flash, 1)->order.id > 0)
        assert_true(wait_a_moment(deadline));
    assert_refused(&f->purchase, REFUSAL_OVER, flash, ends_ms);
}

/* --- the Lua gate in between --- */
static void record(struct fixture *f, struct log_entry entry)
{
    struct store_position position = position_of(f);
    int64_t rejected[8];
    size_t count;
    entry.position = (struct log_position){position.epoch, position.recorded.n + 1};
    entry.at_ms = entry.at_ms != 0 ? entry.at_ms : clock_wall_ms();
    assert_ok(f, store_record(f->store, position.epoch, position.recorded, &entry, 1, rejected, 8, &count));
}

static struct sale_order lua_order(int64_t id, int64_t user, int64_t product, int64_t quantity,
                                   const char *key)
{
    return (struct sale_order){.id = id,
                               .request = 7,
                               .user_id = user,
                               .product_id = product,
                               .quantity = quantity,
                               .unit_price = 100 * product,
                               .key = key,
                               .key_bytes = key == NULL ? 0 : strlen(key)};
}

static void assert_all_fenced(struct fixture *f)
{
    struct purchase purchase = purchase_of(ADA, CHAIR, 1, "fenced"), before = purchase,
                    *purchases[] = {&purchase};
    struct stock_change stock = {.product_id = CHAIR, .delta = 1, .cause = STOCK_RESTOCK};
    struct price_change price = {.product_id = CHAIR, .to = 1};
    enum change_outcome outcome;
    assert_status(f, store_sell(f->store, purchases, 1, &f->moves), STORE_FENCED, __LINE__);
    assert_memory_equal(&purchase, &before, sizeof purchase);
    assert_status(f, store_change_stock(f->store, &stock, &outcome, &f->result), STORE_FENCED, __LINE__);
    assert_status(f, store_change_price(f->store, &price, &outcome, &f->result), STORE_FENCED, __LINE__);
    assert_status(f, store_cancel(f->store, 1, ADMIN, &outcome, &f->result, &f->moves), STORE_FENCED,
                  __LINE__);
    assert_int_equal(f->moves.count, 0);
}

static void test_from_one_gate_to_the_other_and_back(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(position_of(f).seller, STORE_SOLD_BY_REDLOCK);
    assert_int_equal(buy_on(f, f->store, ADA, LAMP, 2, "ours")->order.id, 1);
    assert_ok(f, store_take_over(f->store)); /* it is already */
    assert_int_equal(position_of(f).epoch, 1);

    assert_ok(f, store_raise_epoch(f->store, 1, 2));
    assert_int_equal(position_of(f).seller, STORE_SOLD_BY_LUA);
    assert_all_fenced(f);
    struct sale_order orders[] = {lua_order(2, BOB, LAMP, 2, "theirs"), lua_order(3, ADA, CHAIR, 1, "ours"),
                                  lua_order(4, BOB, CHAIR, 99, "rejected")};
    record(f, (struct log_entry){.kind = LOG_ENTRY_SALE, .orders = orders, .order_count = 3});
    record(f, (struct log_entry){.kind = LOG_ENTRY_CANCEL,
                                 .cancel = {.order_id = 1, .user_id = ADA, .actor = ADA}});
    assert_int_equal(number_of(f, "SELECT units FROM limited_buyers WHERE user_id = 11"), 2); /* as it was */

    assert_ok(f, store_take_over(f->store));
    struct store_position now = position_of(f);
    assert_int_equal(now.epoch, 3);
    assert_int_equal(now.seller, STORE_SOLD_BY_REDLOCK);
    assert_refused(buy(f, BOB, LAMP, 2), REFUSAL_CUSTOMER_LIMIT, LAMP, 2);
    assert_int_equal(buy(f, ADA, LAMP, LIMIT)->order.id, 5);
    assert_int_equal(f->purchase.position.epoch, 3);
    assert_int_equal(f->purchase.position.n, now.recorded.n + 1);
    assert_refused(buy_on(f, f->store, BOB, LAMP, 1, "theirs"), REFUSAL_ALREADY_ORDERED, 0, 2);
    assert_refused(buy_on(f, f->store, ADA, LAMP, 1, "ours"), REFUSAL_ALREADY_ORDERED, 0, 3); /* the newer */
    assert_int_equal(buy_on(f, f->store, BOB, LAMP, 1, "rejected")->order.id, 6);
}

static void test_the_recorder_is_fenced_off(void **state)
{
    struct fixture *f = *state;
    assert_ok(f, store_raise_epoch(f->store, 1, 2));
    struct store_position before = position_of(f);
    assert_ok(f, store_take_over(f->store));
    struct sale_order order = lua_order(1, BOB, LAMP, 1, NULL);
    struct log_entry entry = {.kind = LOG_ENTRY_SALE,
                              .position = {2, before.recorded.n + 1},
                              .at_ms = clock_wall_ms(),
                              .orders = &order,
                              .order_count = 1};
    int64_t rejected[1];
    size_t count;
    assert_status(f, store_record(f->store, 2, before.recorded, &entry, 1, rejected, 1, &count), STORE_FENCED,
                  __LINE__);
    assert_status(f, store_raise_epoch(f->store, 2, 3), STORE_FENCED, __LINE__);
    assert_int_equal(position_of(f).seller, STORE_SOLD_BY_REDLOCK);
    assert_int_equal(buy(f, BOB, LAMP, 1)->order.id, 1);
    assert_agrees(f);
}

/* Redis's clock was ahead of ours: the log's time goes on from there. Keys are as old as they say. */
static void test_the_time_of_the_log_never_goes_back(void **state)
{
    struct fixture *f = *state;
    int64_t ahead_ms = clock_wall_ms() + 60000;
    assert_ok(f, store_raise_epoch(f->store, 1, 2));
    struct sale_order rejected = lua_order(1, BOB, CHAIR, 99, NULL); /* leaves no row in the audit log */
    record(f, (struct log_entry){
                  .kind = LOG_ENTRY_SALE, .at_ms = ahead_ms, .orders = &rejected, .order_count = 1});
    assert_ok(f, store_take_over(f->store));
    assert_int_equal(buy_on(f, f->store, BOB, CHAIR, 1, "k")->at_ms, ahead_ms);
    assert_int_equal(change(f, STOCK_RESTOCK, CHAIR, 5, NULL), CHANGE_MADE);
    assert_int_equal(number_of(f, "SELECT max(at_ms) FROM audit_log"), ahead_ms);
    struct store_orders_audit orders;
    assert_ok(f, store_audit_orders(f->store, &orders));
    assert_int_equal(orders.out_of_time_order, 0);
}

static void test_keys_of_the_last_day_are_taken_over(void **state)
{
    struct fixture *f = *state;
    assert_ok(f, store_raise_epoch(f->store, 1, 2));
    struct sale_order old = lua_order(1, BOB, CHAIR, 1, "old"), young = lua_order(2, BOB, CHAIR, 1, "young");
    int64_t now_ms = clock_wall_ms();
    edit(f, "DROP TRIGGER audit_log_no_delete; DELETE FROM audit_log");
    record(f, (struct log_entry){
                  .kind = LOG_ENTRY_SALE, .at_ms = now_ms - DAY_MS - 1000, .orders = &old, .order_count = 1});
    record(f,
           (struct log_entry){
               .kind = LOG_ENTRY_SALE, .at_ms = now_ms - DAY_MS + 60000, .orders = &young, .order_count = 1});
    assert_ok(f, store_take_over(f->store));
    assert_int_equal(number_of(f, "SELECT count(*) FROM recent_keys"), 1);
    assert_refused(buy_on(f, f->store, BOB, CHAIR, 1, "young"), REFUSAL_ALREADY_ORDERED, 0, 2);
    assert_int_equal(buy_on(f, f->store, BOB, CHAIR, 1, "old")->order.id, 3);
}

/* --- changes --- */
static void test_stock_changes(void **state)
{
    struct fixture *f = *state;
    uint64_t n = position_of(f).recorded.n;
    assert_int_equal(change(f, STOCK_RESTOCK, CHAIR, 5, NULL), CHANGE_MADE);
    assert_int_equal(f->result.stock, STOCK + 5);
    assert_int_equal(f->result.product_id, CHAIR);
    assert_int_equal(f->result.figure, 5);
    assert_int_equal(f->result.kind, CHANGE_OF_STOCK);
    assert_int_equal(f->result.position.n, n + 1);
    assert_int_equal(change(f, STOCK_WITHDRAWAL, CHAIR, -STOCK - 6, NULL), CHANGE_SHORT);
    assert_int_equal(f->result.stock, STOCK + 5);
    assert_int_equal(change(f, STOCK_WITHDRAWAL, CHAIR, -STOCK - 5, NULL), CHANGE_MADE);
    assert_int_equal(f->result.stock, 0);
    assert_int_equal(change(f, STOCK_RESTOCK, CHAIR, PRODUCT_STOCK_MAX, NULL), CHANGE_MADE);
    assert_int_equal(change(f, STOCK_RESTOCK, CHAIR, 1, NULL), CHANGE_FULL);
    assert_int_equal(change(f, STOCK_RESTOCK, UNKNOWN, 1, NULL), CHANGE_CLOSED);
    assert_int_equal(change(f, STOCK_RESTOCK, BENCH, 1, NULL), CHANGE_CLOSED);
    assert_int_equal(change(f, STOCK_RESTOCK, SET, 1, NULL), CHANGE_CLOSED);
    assert_int_equal(change(f, STOCK_OPENING, UNKNOWN, 1, NULL), CHANGE_CLOSED);
    assert_int_equal(change(f, STOCK_HEALING, LAMP, 0, NULL), CHANGE_MADE);
    assert_int_equal(position_of(f).recorded.n, n + 4);
    assert_agrees(f);
}

static void test_a_product_opens_once(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(change(f, STOCK_OPENING, BENCH, 7, NULL), CHANGE_MADE);
    assert_int_equal(f->result.stock, 7);
    assert_int_equal(buy(f, ADA, BENCH, 1)->order.unit_price, 500);
    struct log_position position = position_of(f).recorded;
    assert_int_equal(change(f, STOCK_OPENING, BENCH, 7, NULL), CHANGE_MADE_BEFORE);
    assert_int_equal(f->result.stock, 6);
    assert_int_equal(f->result.position.epoch, 0);
    assert_int_equal(change(f, STOCK_OPENING, SET, 0, NULL), CHANGE_MADE_BEFORE);
    assert_int_equal(f->result.stock, STOCK / 2); /* by the chairs */
    assert_int_equal(log_position_compare(position_of(f).recorded, position), 0);
    assert_agrees(f);
}

static void test_a_price_is_for_what_comes_after(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(change_price(f, CHAIR, 150, NULL), CHANGE_MADE);
    assert_int_equal(f->result.stock, 200);
    assert_int_equal(f->result.figure, 150);
    assert_int_equal(f->result.kind, CHANGE_OF_PRICE);
    assert_int_equal(buy(f, ADA, CHAIR, 1)->order.unit_price, 150);
    assert_int_equal(change_price(f, SET, 240, NULL), CHANGE_MADE);
    assert_int_equal(buy(f, ADA, SET, 1)->order.unit_price, 240);
    assert_int_equal(change_price(f, BENCH, 1, NULL), CHANGE_CLOSED);
    assert_int_equal(change_price(f, UNKNOWN, 1, NULL), CHANGE_CLOSED);
    assert_agrees(f);
}

static void test_a_window_is_for_what_comes_after(void **state)
{
    struct fixture *f = *state;
    int64_t before = clock_wall_ms();
    assert_int_equal(buy(f, ADA, CHAIR, 1)->order.id, 1);
    struct log_position sold = position_of(f).recorded;
    assert_int_equal(change_window(f, CHAIR, SALE_WINDOW_KEEP, SALE_WINDOW_NOW, "w"), CHANGE_MADE);
    struct change_result first = f->result;
    assert_int_equal(first.kind, CHANGE_OF_WINDOW);
    assert_int_equal(first.figure, 0);
    assert_in_range(first.stock, before, clock_wall_ms());
    assert_int_equal(buy(f, ADA, CHAIR, 1)->refusal, REFUSAL_OVER);
    assert_int_equal(buy(f, ADA, SET, 1)->refusal, REFUSAL_OVER);
    assert_int_equal(change_window(f, LAMP, 5, 6, "w"), CHANGE_MADE_BEFORE);
    assert_memory_equal(&f->result, &first, sizeof first);
    assert_int_equal(change_window(f, CHAIR, SALE_WINDOW_NOW, SALE_WINDOW_KEEP, NULL), CHANGE_NEVER_OPEN);
    assert_int_equal(change_window(f, CHAIR, SALE_WINDOW_KEEP, 0, NULL), CHANGE_MADE);
    assert_int_equal(buy(f, ADA, CHAIR, 1)->order.id, 2);
    assert_int_equal(change_window(f, BENCH, 1, 2, NULL), CHANGE_CLOSED);
    assert_int_equal(change_window(f, UNKNOWN, 2, 1, NULL), CHANGE_CLOSED);
    /* The rows of a window say nothing of the stock. */
    bool known;
    int64_t stock;
    assert_ok(f, store_stock_at(f->store, CHAIR, sold, &known, &stock));
    assert_true(known);
    assert_int_equal(stock, STOCK - 1);
    assert_agrees(f);
}

static void test_a_keyed_change_is_made_once_in_a_day(void **state)
{
    struct fixture *f = *state;
    char sql[200];
    assert_int_equal(change(f, STOCK_RESTOCK, CHAIR, 5, "k"), CHANGE_MADE);
    struct change_result first = f->result;
    assert_int_equal(change_price(f, CHAIR, 150, "p"), CHANGE_MADE);
    assert_int_equal(buy(f, ADA, CHAIR, 1)->order.id, 1);
    /* Whatever is asked for now, it tells what was done then. */
    assert_int_equal(change(f, STOCK_WITHDRAWAL, LAMP, -1, "k"), CHANGE_MADE_BEFORE);
    assert_memory_equal(&f->result, &first, sizeof first);
    assert_int_equal(change_price(f, LAMP, 1, "k"), CHANGE_MADE_BEFORE);
    assert_int_equal(f->result.figure, 5);
    assert_int_equal(change(f, STOCK_RESTOCK, LAMP, 1, "p"), CHANGE_MADE_BEFORE);
    assert_int_equal(f->result.kind, CHANGE_OF_PRICE);
    assert_int_equal(f->result.stock, 200);
    assert_int_equal(f->result.figure, 150);
    assert_int_equal(change(f, STOCK_WITHDRAWAL, CHAIR, -99, "s"), CHANGE_SHORT); /* not kept */
    assert_int_equal(change(f, STOCK_WITHDRAWAL, CHAIR, -1, "s"), CHANGE_MADE);
    struct stock_change other = {
        .product_id = CHAIR, .delta = 1, .cause = STOCK_RESTOCK, .actor = BOB, .key = "k", .key_bytes = 1};
    enum change_outcome outcome;
    assert_ok(f, store_change_stock(f->store, &other, &outcome, &f->result));
    assert_int_equal(outcome, CHANGE_MADE);
    assert_agrees(f);
    snprintf(sql, sizeof sql,
             "DROP TRIGGER audit_log_no_update; UPDATE audit_log SET at_ms = %" PRId64
             " WHERE idempotency_key = 'k'",
             clock_wall_ms() - DAY_MS);
    edit(f, sql);
    assert_int_equal(change(f, STOCK_RESTOCK, CHAIR, 2, "k"), CHANGE_MADE);
}

static void test_cancelled_once(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(buy(f, ADA, SET, 2)->order.id, 1);
    assert_int_equal(cancel(f, 1), CHANGE_MADE);
    struct log_position position = f->result.position;
    assert_int_equal(log_position_compare(position, position_of(f).recorded), 0);
    assert_int_equal(log_position_compare(position, f->moves.position), 0);
    assert_int_equal(f->moves.count, 2);
    assert_int_equal(f->moves.each[0].product_id, LAMP);
    assert_int_equal(f->moves.each[1].stock, STOCK);
    assert_int_equal(cancel(f, 1), CHANGE_MADE_BEFORE);
    assert_int_equal(log_position_compare(position, f->result.position), 0);
    assert_int_equal(f->moves.count, 0);
    assert_int_equal(cancel(f, 2), CHANGE_CLOSED);
    assert_int_equal(stock_of(f, CHAIR), STOCK);
    struct store_order order;
    assert_ok(f, store_find_order(f->store, 1, &order));
    assert_int_equal(order.state, ORDER_CANCELLED);
    assert_int_equal(order.cancelled_by, ADMIN);
    assert_agrees(f);
}

static void test_a_rejected_order_cannot_be_cancelled(void **state)
{
    struct fixture *f = *state;
    assert_ok(f, store_raise_epoch(f->store, 1, 2));
    struct sale_order order = lua_order(1, BOB, CHAIR, 99, NULL);
    record(f, (struct log_entry){.kind = LOG_ENTRY_SALE, .orders = &order, .order_count = 1});
    assert_ok(f, store_take_over(f->store));
    assert_int_equal(cancel(f, 1), CHANGE_CLOSED);
}

/* Somebody has edited the books: nothing is written, not even that it did not fit. */
static void test_a_cancellation_that_does_not_fit_the_books(void **state)
{
    struct fixture *f = *state;
    enum change_outcome outcome;
    assert_int_equal(buy(f, ADA, CHAIR, 2)->order.id, 1);
    edit(f, "UPDATE products SET sold = 0, stock = 10 WHERE id = 2");
    struct log_position before = position_of(f).recorded;
    assert_status(f, store_cancel(f->store, 1, ADMIN, &outcome, &f->result, &f->moves), STORE_FAILED,
                  __LINE__);
    assert_non_null(strstr(store_error(f->store), "order 1"));
    assert_int_equal(f->moves.count, 0);
    assert_int_equal(log_position_compare(position_of(f).recorded, before), 0);
    assert_int_equal(stock_of(f, CHAIR), STOCK);
    assert_int_equal(buy(f, ADA, CHAIR, 1)->order.remaining, STOCK - 1); /* no book of before is believed */
}

/* --- what the stock was --- */
static void assert_stock_at(struct fixture *f, int64_t product, struct log_position position,
                            int64_t expected)
{
    bool known = false;
    int64_t stock = -1;
    assert_ok(f, store_stock_at(f->store, product, position, &known, &stock));
    assert_true(known);
    assert_int_equal(stock, expected);
}

static void test_what_the_stock_was(void **state)
{
    struct fixture *f = *state;
    struct log_position opened = position_of(f).recorded, later = opened;
    bool known = true;
    int64_t stock;
    buy(f, ADA, CHAIR, 3);
    change_price(f, CHAIR, 1, NULL);
    buy(f, ADA, TABLE, 1);
    buy(f, ADA, SET, 1);
    const int64_t chairs[] = {STOCK, STOCK - 3, STOCK - 3, STOCK - 3, STOCK - 5};
    for (size_t i = 0; i < 5; i++, later.n++) {
        assert_stock_at(f, CHAIR, later, chairs[i]);
        assert_stock_at(f, TABLE, later, i < 3 ? STOCK : STOCK - 1);
        assert_stock_at(f, SET, later, 0);
    }
    assert_ok(f, store_stock_at(f->store, CHAIR, later, &known, &stock));
    assert_false(known); /* there is no such entry yet */
    assert_status(f, store_stock_at(f->store, UNKNOWN, opened, &known, &stock), STORE_NOT_FOUND, __LINE__);
    assert_stock_at(f, CHAIR, (struct log_position){0, 0}, 0);
    assert_ok(f, store_snapshot_begin(f->store));
    assert_stock_at(f, CHAIR, opened, STOCK);
    store_snapshot_end(f->store);
}

static void test_too_long_ago(void **state)
{
    struct fixture *f = *state;
    struct log_position before = position_of(f).recorded, after = {before.epoch, before.n + 1};
    char sql[700];
    bool known = true;
    int64_t stock;
    buy(f, ADA, TABLE, 1);
    snprintf(
        sql, sizeof sql,
        "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < %d)"
        " INSERT INTO audit_log (seq, at_ms, log_epoch, log_n, product_id, cause, delta, from_figure, "
        "to_figure, applied,"
        " actor, note, idempotency_key, hash) SELECT (SELECT count(*) FROM audit_log) + i, 1, 1, %" PRIu64
        " + i, 3, 'healing', 0, 9, 9, 1, 0, '', NULL, zeroblob(32) FROM n;"
        "UPDATE state SET recorded_n = recorded_n + %d",
        STORE_STOCK_AT_ROWS_MAX, after.n, STORE_STOCK_AT_ROWS_MAX);
    edit(f, sql);
    assert_stock_at(f, CHAIR, after, STOCK);
    assert_ok(f, store_stock_at(f->store, CHAIR, before, &known, &stock));
    assert_false(known);
}

/* --- several at once --- */
#define SELLERS 3
#define HERD_STOCK 900
#define HERD_BATCH 16
#define HERD_BATCHES 40 /* each asks for more than a third of all */

/* A process of its own; no asserts, they are the parent's. The exit code: the units that were sold, by a file. */
static int sell_in_herd(const char *url, int seller, const char *report)
{
    struct store *store;
    char error[512];
    static struct stock_moves moves;
    int64_t sold = 0;
    if (store_open(&store, url, STORE_WRITER, error, sizeof error) != STORE_OK)
        return 2;
    for (int batch = 0; batch < HERD_BATCHES; batch++) {
        struct purchase all[HERD_BATCH], *purchases[HERD_BATCH];
        for (int i = 0; i < HERD_BATCH; i++) {
            all[i] = purchase_of(1 + (batch * HERD_BATCH + i) % 200, BENCH + 1, 1 + i % 3, NULL);
            purchases[i] = &all[i];
        }
        if (store_sell(store, purchases, HERD_BATCH, &moves) != STORE_OK)
            return 3;
        for (int i = 0; i < HERD_BATCH; i++)
            sold += all[i].order.id > 0 ? all[i].order.quantity : 0;
    }
    store_close(&store);
    FILE *file = fopen(report, "w");
    if (file == NULL || fprintf(file, "%" PRId64, sold) < 1 || fclose(file) != 0)
        return 4;
    return seller < 0;
}

static void test_several_processes_sell_at_once(void **state)
{
    struct fixture *f = *state;
    pid_t pids[SELLERS];
    char reports[SELLERS][FOLDER_BYTES + 16];
    int64_t sold = 0;
    add_product(f, (struct store_product){.price = 1, .per_customer_limit = 6, .planned_stock = HERD_STOCK},
                "Herd");
    store_close(&f->store);
    for (int i = 0; i < SELLERS; i++) {
        snprintf(reports[i], sizeof reports[i], "%s/report%d", f->folder, i);
        pids[i] = fork();
        assert_true(pids[i] >= 0);
        if (pids[i] == 0)
            _exit(sell_in_herd(f->url, i, reports[i]));
    }
    for (int i = 0; i < SELLERS; i++) {
        int status;
        assert_int_equal(waitpid(pids[i], &status, 0), pids[i]);
        assert_true(WIFEXITED(status));
        assert_int_equal(WEXITSTATUS(status), 0);
        char *text = file_read(reports[i]);
        sold += strtoll(text, NULL, 10);
        free(text);
    }
    f->store = open_another(f);
    assert_int_equal(stock_of(f, BENCH + 1), HERD_STOCK - sold);
    assert_int_equal(sold, HERD_STOCK); /* 200 customers may have 1,200 */
    assert_agrees(f);
}

/* Killed at any instruction, once it has sold something: the others go on, and the books say what the orders say. */
static void test_a_process_dies_while_it_sells(void **state)
{
    struct fixture *f = *state;
    char reports[SELLERS][FOLDER_BYTES + 16];
    pid_t pids[SELLERS];
    add_product(f, (struct store_product){.price = 1, .per_customer_limit = 6, .planned_stock = HERD_STOCK},
                "Herd");
    store_close(&f->store);
    for (int i = 0; i < SELLERS; i++) {
        snprintf(reports[i], sizeof reports[i], "%s/report%d", f->folder, i);
        pids[i] = fork();
        assert_true(pids[i] >= 0);
        if (pids[i] == 0)
            _exit(sell_in_herd(f->url, i, reports[i]));
    }
    int64_t deadline = deadline_in(PATIENCE_MS);
    f->store = open_another(f);
    while (position_of(f).last_order_id < HERD_STOCK / 20)
        assert_true(wait_a_moment(deadline));
    kill(pids[0], SIGKILL);
    for (int i = 0; i < SELLERS; i++) {
        int status;
        assert_int_equal(waitpid(pids[i], &status, 0), pids[i]);
        assert_true(i == 0 || (WIFEXITED(status) && WEXITSTATUS(status) == 0));
    }
    assert_int_equal(stock_of(f, BENCH + 1), 0);
    assert_agrees(f);
    int64_t last = position_of(f).last_order_id;
    assert_int_equal(buy(f, ADA, CHAIR, 1)->order.id, last + 1);
}

/* Somebody has edited the highest order id. */
static void test_no_order_id_is_left(void **state)
{
    struct fixture *f = *state;
    struct purchase purchase = purchase_of(ADA, CHAIR, 1, NULL), *purchases[] = {&purchase};
    assert_int_equal(buy(f, ADA, CHAIR, 1)->order.id, 1);
    edit(f, "UPDATE orders SET id = 9223372036854775807");
    assert_status(f, store_sell(f->store, purchases, 1, &f->moves), STORE_FAILED, __LINE__);
    assert_int_equal(stock_of(f, CHAIR), STOCK - 1);
}

/* --- failing --- */
#ifdef DOORBUSTER_FAILPOINTS
static struct failpoint_page *failpoints;

static void fail_at(struct fixture *f, const char *spec, bool is_written)
{
    struct order_part more = {.product_id = SET, .quantity = 1}, more_before = more;
    struct purchase purchase = purchase_of(ADMIN + position_of(f).last_order_id, TABLE, 1, spec), before,
                    *purchases[] = {&purchase};
    struct stock_change restock = {.product_id = TABLE, .delta = 1, .cause = STOCK_RESTOCK};
    enum change_outcome outcome;
    int64_t last = position_of(f).last_order_id, stock = stock_of(f, TABLE);
    purchase.order.more = &more;
    purchase.order.more_count = 1;
    before = purchase;
    failpoints_arm(failpoints, spec);
    assert_status(f, store_sell(f->store, purchases, 1, &f->moves), STORE_FAILED, __LINE__);
    assert_memory_equal(&purchase, &before, sizeof purchase);
    assert_memory_equal(&more, &more_before, sizeof more);
    assert_int_equal(f->moves.count, 0);
    assert_int_equal(f->moves.position.epoch, 0);
    assert_int_equal(position_of(f).last_order_id, last + is_written);
    assert_int_equal(stock_of(f, TABLE), stock - is_written);
    failpoints_arm(failpoints, spec);
    assert_status(f, store_change_stock(f->store, &restock, &outcome, &f->result), STORE_FAILED, __LINE__);
    assert_int_equal(stock_of(f, TABLE), stock);
    failpoints_arm(failpoints, spec);
    assert_status(f, store_cancel(f->store, 1, ADMIN, &outcome, &f->result, &f->moves), STORE_FAILED,
                  __LINE__);
    assert_int_equal(f->moves.count, 0);
    failpoints_disarm(failpoints);
    /* The lost answer is found by the key, or nothing was sold. */
    assert_ok(f, store_sell(f->store, purchases, 1, &f->moves));
    assert_int_equal(purchase.refusal, is_written ? REFUSAL_ALREADY_ORDERED : REFUSAL_NONE);
    assert_int_equal(is_written ? purchase.figure : purchase.order.id, last + 1);
    assert_agrees(f);
}

static void test_failing_at_each_step(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(buy(f, BOB, CHAIR, 1)->order.id, 1);
    fail_at(f, "store.begun:error", false);
    fail_at(f, "store.commit:error", false);
    if (!store_fixture_is_postgres()) /* its disk is its own */
        fail_at(f, "vfs.sync:error", false);
    fail_at(f, "store.committed:error", true);
}

static int set_up_failpoints(void **state)
{
    (void)state;
    char folder[FOLDER_BYTES], path[FOLDER_BYTES + 16];
    folder_make(folder);
    snprintf(path, sizeof path, "%s/failpoints", folder);
    failpoints = failpoints_file_make(path);
    setenv("DOORBUSTER_FAILPOINT_FILE", path, 1);
    failpoint_init(0, NULL);
    folder_remove(folder); /* the page is mapped */
    return 0;
}

static int tear_down_failpoints(void **state)
{
    (void)state;
    failpoints_file_close(&failpoints);
    return 0;
}
#else
#define set_up_failpoints NULL
#define tear_down_failpoints NULL
#endif

/* --- stores from before --- */
static void make_old_store(struct fixture *f, const char *const *scripts, size_t count)
{
    sqlite3 *db;
    assert_int_equal(sqlite3_open(f->path, &db), SQLITE_OK);
    for (size_t i = 0; i < count; i++) {
        if (sqlite3_exec(db, scripts[i], NULL, NULL, NULL) != SQLITE_OK)
            fail_msg("%.40s: %s", scripts[i], sqlite3_errmsg(db));
    }
    sqlite3_close(db);
}

static void go_on(struct fixture *f)
{
    struct store *reader;
    char error[512] = "";
    assert_int_equal(store_open(&reader, f->url, STORE_READER, error, sizeof error), STORE_FAILED);
    assert_non_null(strstr(error, "start the server"));
    f->store = open_another(f);
    struct store_position position = position_of(f);
    assert_int_equal(position.seller, STORE_SOLD_BY_LUA);
    assert_int_equal(position.epoch, 2);
    assert_int_equal(position.recorded.n, 9);
    assert_all_fenced(f);
    assert_ok(f, store_take_over(f->store));
    assert_int_equal(position_of(f).epoch, 3);
    assert_refused(buy(f, ADA, LAMP, 1), REFUSAL_CUSTOMER_LIMIT, LAMP, LIMIT);
    assert_int_equal(buy(f, BOB, LAMP, 1)->order.id, 2);
    assert_int_equal(f->purchase.order.remaining, STOCK - LIMIT - 1);
    assert_int_equal(f->purchase.position.n, 10);
    store_close(&f->store);
    f->store = open_another(f); /* only once */
    assert_int_equal(position_of(f).seller, STORE_SOLD_BY_REDLOCK);
}

#define OLD_ROWS                                                                                             \
    "INSERT INTO products (id, name, description, price, per_customer_limit, planned_stock, opened, stock,"  \
    " opening, restocked, cancelled, sold, created_at_ms, updated_at_ms)"                                    \
    " VALUES (1, 'Lamp', '', 100, 3, 10, 1, 7, 10, 0, 0, 3, 5, 6);"                                          \
    "INSERT INTO orders (id, state, request, user_id, product_id, quantity, unit_price, remaining, at_ms,"   \
    " log_epoch, log_n, idempotency_key) VALUES (1, 0, 71, 11, 1, 3, 100, 7, 1003, 2, 9, 'k');"              \
    "UPDATE state SET epoch = 2, recorded_epoch = 2, recorded_n = 9;"

static void test_a_store_of_version_2(void **state)
{
    const char *const scripts[] = {
        "PRAGMA journal_mode = WAL", embedded__0001_first_sql, embedded__0002_carts_sql,
        OLD_ROWS "DROP TABLE stock_changes; PRAGMA application_id = 1145205620; PRAGMA user_version = 2"};
    make_old_store(*state, scripts, 4);
    go_on(*state);
}

/* Its audit log is taken over as it is, with what keeps it from being changed. */
static void test_a_store_of_version_3(void **state)
{
    struct fixture *f = *state;
    const char *const scripts[] = {"PRAGMA journal_mode = WAL", embedded__0001_first_sql,
                                   embedded__0002_carts_sql, embedded__0003_redlock_sql,
                                   OLD_ROWS "DROP TABLE stock_changes;"
                                            "INSERT INTO audit_log VALUES (1, 5, 2, 1, 1, 'price', -10, 110, "
                                            "100, 1, 13, 'cheaper', 'p', zeroblob(32));"
                                            "PRAGMA application_id = 1145205620; PRAGMA user_version = 3"};
    struct store_audit_row row;
    size_t count;
    sqlite3 *db;
    make_old_store(f, scripts, 5);
    go_on(f);
    assert_ok(f, store_audit_log(f->store, 2, 0, &row, 1, &count));
    assert_int_equal(count, 1);
    assert_string_equal(row.cause, "price");
    assert_string_equal(row.key, "p");
    assert_int_equal(row.to, 100);
    assert_int_equal(change_window(f, LAMP, SALE_WINDOW_KEEP, SALE_WINDOW_NOW, NULL), CHANGE_MADE);
    assert_int_equal(sqlite3_open(f->path, &db), SQLITE_OK);
    assert_int_equal(sqlite3_exec(db, "UPDATE audit_log SET actor = 1", NULL, NULL, NULL), SQLITE_CONSTRAINT);
    assert_int_equal(sqlite3_exec(db, "DELETE FROM audit_log", NULL, NULL, NULL), SQLITE_CONSTRAINT);
    sqlite3_close(db);
}

static void test_a_store_of_version_1(void **state)
{
    const char *const scripts[] = {"PRAGMA journal_mode = WAL", embedded__0001_first_sql,
                                   OLD_ROWS "PRAGMA application_id = 1145205620; PRAGMA user_version = 1"};
    make_old_store(*state, scripts, 3);
    go_on(*state);
}

#define SHOP(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)
#define CLOSED(test) cmocka_unit_test_setup_teardown(test, set_up_closed, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        SHOP(test_a_sale),
        SHOP(test_what_is_refused_is_not_written),
        SHOP(test_a_batch_in_order),
        SHOP(test_a_cart_with_a_bundle),
        SHOP(test_the_largest_batch),
        SHOP(test_the_limit_over_batches_and_cancellations),
        SHOP(test_a_cancellation_of_units_that_nobody_knows_of),
        SHOP(test_a_key_is_one_order_for_a_day),
        SHOP(test_a_key_twice_in_a_batch),
        SHOP(test_old_keys_are_forgotten_a_few_at_a_time),
        SHOP(test_a_window_opens_and_ends),
        SHOP(test_from_one_gate_to_the_other_and_back),
        SHOP(test_the_recorder_is_fenced_off),
        SHOP(test_the_time_of_the_log_never_goes_back),
        SHOP(test_keys_of_the_last_day_are_taken_over),
        SHOP(test_stock_changes),
        SHOP(test_a_product_opens_once),
        SHOP(test_a_price_is_for_what_comes_after),
        SHOP(test_a_window_is_for_what_comes_after),
        SHOP(test_a_keyed_change_is_made_once_in_a_day),
        SHOP(test_cancelled_once),
        SHOP(test_a_rejected_order_cannot_be_cancelled),
        SHOP(test_a_cancellation_that_does_not_fit_the_books),
        SHOP(test_what_the_stock_was),
        SHOP(test_too_long_ago),
        SHOP(test_several_processes_sell_at_once),
        SHOP(test_a_process_dies_while_it_sells),
        SHOP(test_no_order_id_is_left),
#ifdef DOORBUSTER_FAILPOINTS
        SHOP(test_failing_at_each_step),
#endif
    };
    const struct CMUnitTest in_a_file[] = {
        CLOSED(test_a_store_of_version_3),
        CLOSED(test_a_store_of_version_2),
        CLOSED(test_a_store_of_version_1),
    };
    int failed = cmocka_run_group_tests(tests, set_up_failpoints, tear_down_failpoints);
    if (!store_fixture_is_postgres())
        failed += cmocka_run_group_tests(in_a_file, NULL, NULL);
    return failed;
}
