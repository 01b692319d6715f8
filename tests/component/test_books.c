/* The books of the Redlock gate, with a real store and five real Redis processes: what the API and the tools see of both sides, and the changes that
 * must reach both. */
#include "testing.h"

#include "redis_fixture.h"

#include "doorbuster/books.h"
#include "doorbuster/clock.h"

#include <stdio.h>
#include <string.h>

#define NODES 5
#define TIMEOUT_MS 300
#define PATIENCE_MS 5000

static struct redis_fixture nodes[NODES];
static struct gate_place place;
static char folder[FOLDER_BYTES], url[FOLDER_BYTES + 32];
static struct store *store;
static struct gate_side side;

static void open_store(void)
{
    char error[512];
    folder_make(folder);
    snprintf(url, sizeof url, "sqlite:%s/doorbuster.db", folder);
    if (store_open(&store, url, STORE_WRITER, error, sizeof error) != STORE_OK) {
        fail_msg("%s", error);
    }
}

static int setup(void **state)
{
    struct store_position position;
    char error[512];
    (void)state;
    open_store();
    assert_int_equal(store_take_over(store), STORE_OK);
    assert_int_equal(store_position(store, &position), STORE_OK);
    place = (struct gate_place){.kind = GATE_REDLOCK, .node_count = NODES};
    for (unsigned i = 0; i < NODES; i++) {
        redis_fixture_start(&nodes[i], false);
        place.nodes[i] = nodes[i].address;
    }
    side = (struct gate_side){.place = &place, .store_id = position.store_id, .timeout_ms = TIMEOUT_MS};
    assert_true(gate_side_ready(&side, error, sizeof error));
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    gate_side_close(&side);
    store_close(&store);
    for (unsigned i = 0; i < NODES; i++) {
        redis_fixture_end(&nodes[i]);
    }
    folder_remove(folder);
    return 0;
}

static int64_t deadline_us(void)
{
    return clock_monotonic_us() + (int64_t)PATIENCE_MS * 1000;
}

static int64_t add(const char *name, int64_t stock)
{
    struct store_product product = {.price = 100, .planned_stock = stock};
    snprintf(product.name, sizeof product.name, "%s", name);
    assert_int_equal(catalog_add(store, &side, &product, 0, NULL, deadline_us()), CATALOG_ADDED);
    assert_int_equal(product.stock, stock);
    return product.id;
}

static int64_t add_bundle(int64_t first, int64_t second)
{
    struct store_product product = {
        .name = "bundle", .price = 250, .components = {{first, 1}, {second, 2}}, .component_count = 2};
    assert_int_equal(catalog_add(store, &side, &product, 0, NULL, deadline_us()), CATALOG_ADDED);
    return product.id;
}

static enum change_outcome change(int64_t product, int64_t delta, struct change_result *result)
{
    struct stock_change change = {.product_id = product,
                                  .delta = delta,
                                  .cause = delta > 0 ? STOCK_RESTOCK : STOCK_WITHDRAWAL,
                                  .note = "test"};
    return books_change_stock(&side, store, &change, NULL, PATIENCE_MS, result);
}

/* In the store alone, as a batch that is sold and not told yet. */
static void change_untold(int64_t product, int64_t delta)
{
    enum change_outcome outcome;
    struct change_result result;
    struct stock_change change = {.product_id = product, .delta = delta, .cause = STOCK_WITHDRAWAL};
    assert_int_equal(store_change_stock(store, &change, &outcome, &result), STORE_OK);
    assert_int_equal(outcome, CHANGE_MADE);
}

static void read_books(int64_t product, struct books *books)
{
    enum books_status status = books_read(store, &side, product, books);
    if (status != BOOKS_READ) {
        fail_msg("status %d: %s, %s", (int)status, store_error(store), gate_side_failure(&side));
    }
}

static void expect_equal(int64_t product, int64_t stock)
{
    struct books books;
    read_books(product, &books);
    assert_true(books.equal && books.gate.at_known && books.gate.on_sale);
    assert_int_equal(books.stock, stock);
    assert_int_equal(books.gate.stock_at, stock);
    assert_int_equal(books.gate.available, stock);
    assert_int_equal(books.gate.in_flight, 0);
}

/* By hand, on all nodes. */
static void edit(int64_t product, const char *figure)
{
    for (unsigned i = 0; i < NODES; i++) {
        redisContext *redis = redis_fixture_connect(&nodes[i]);
        redis_do(redis, "SET {doorbuster}:stock:%lld:%lld %s", (long long)side.store_id, (long long)product,
                 figure);
        redisFree(redis);
    }
}

static void empty_all(void)
{
    for (unsigned i = 0; i < NODES; i++) {
        redisContext *redis = redis_fixture_connect(&nodes[i]);
        redis_do(redis, "FLUSHALL");
        redisFree(redis);
    }
}

static struct store_position position_now(void)
{
    struct store_position now;
    assert_int_equal(store_position(store, &now), STORE_OK);
    return now;
}

/* --- all is well ------------------------------------------------------------------------------------------------------------------- */
static void test_changes_reach_both(void **state)
{
    struct change_result result;
    struct price_change price = {.to = 90, .note = "cheaper"};
    (void)state;
    int64_t product = price.product_id = add("one", 10);
    expect_equal(product, 10);
    assert_int_equal(change(product, 5, &result), CHANGE_MADE);
    assert_int_equal(result.stock, 15);
    expect_equal(product, 15);
    assert_int_equal(change(product, -20, &result), CHANGE_SHORT);
    assert_int_equal(result.stock, 15);
    assert_int_equal(books_change_price(&side, store, &price, PATIENCE_MS, &result), CHANGE_MADE);
    assert_int_equal(result.stock, 100);
    expect_equal(product, 15);
    assert_int_equal(change(product, -15, &result), CHANGE_MADE);
    expect_equal(product, 0);
    assert_int_equal(side.untold, 0);
}

static void test_what_is_not_there(void **state)
{
    struct books books;
    struct change_result result;
    (void)state;
    assert_int_equal(books_read(store, &side, 99, &books), BOOKS_NO_PRODUCT);
    assert_int_equal(change(99, 1, &result), CHANGE_CLOSED);
    assert_string_equal(books_failure(), "the product is not open");
}

/* Both sides at the position that the nodes name: what was sold since is in flight, no difference. */
static void test_nodes_behind_the_store(void **state)
{
    struct books books;
    (void)state;
    int64_t product = add("one", 10);
    change_untold(product, -3);
    read_books(product, &books);
    assert_true(books.equal);
    assert_int_equal(books.stock, 10);
    assert_int_equal(books.gate.stock_at, 10);
    assert_int_equal(books.gate.available, 7);
    assert_int_equal(books.gate.in_flight, 3);
}

static void test_a_product_that_is_not_open(void **state)
{
    struct books books;
    struct store_product product = {.name = "closed", .price = 1, .planned_stock = 5};
    (void)state;
    assert_int_equal(store_add_product(store, &product), STORE_OK);
    read_books(product.id, &books);
    assert_true(books.equal && books.gate.at_known && !books.gate.on_sale);
    assert_int_equal(books.stock, 0);
    assert_int_equal(books.gate.stock_at, 0);
}

static void test_withdraw_all(void **state)
{
    (void)state;
    int64_t one = add("one", 10), two = add("two", 4), bundle = add_bundle(one, two);
    assert_int_equal(catalog_withdraw_all(store, &side, bundle, 0, "retired", deadline_us()), CATALOG_ADDED);
    expect_equal(two, 4);
    assert_int_equal(catalog_withdraw_all(store, &side, two, 0, "retired", deadline_us()), CATALOG_ADDED);
    expect_equal(two, 0);
    expect_equal(bundle, 0);
    expect_equal(one, 10);
}

/* --- bundles ----------------------------------------------------------------------------------------------------------------------- */
static void test_a_bundle_at_its_components_versions(void **state)
{
    struct change_result result;
    struct books books;
    (void)state;
    int64_t one = add("one", 10), two = add("two", 9), bundle = add_bundle(one, two);
    expect_equal(bundle, 4);
    assert_int_equal(change(two, -3, &result), CHANGE_MADE);
    expect_equal(bundle, 3);
    change_untold(two, -4);
    read_books(bundle, &books);
    assert_true(books.equal);
    assert_int_equal(books.stock, 3);
    assert_int_equal(books.gate.available, 1);
    assert_int_equal(books.gate.in_flight, 2);
    assert_int_equal(books.component_stocks[0], 10);
    assert_int_equal(books.component_stocks[1], 6);
}

/* What they allow may be the same while one of them is not. */
static void test_a_bundle_with_a_wrong_component(void **state)
{
    char figure[64];
    struct books books;
    (void)state;
    int64_t one = add("one", 10), two = add("two", 9), bundle = add_bundle(one, two);
    struct store_position now = position_now();
    snprintf(figure, sizeof figure, "11 %llu %llu", (unsigned long long)now.recorded.epoch,
             (unsigned long long)now.recorded.n);
    edit(one, figure);
    read_books(bundle, &books);
    assert_false(books.equal);
    assert_int_equal(books.stock, 4);
    assert_int_equal(books.gate.stock_at, 4);
}

/* --- what is wrong is seen --------------------------------------------------------------------------------------------------------- */
static void test_a_wrong_figure(void **state)
{
    char figure[64];
    struct books books;
    (void)state;
    int64_t product = add("one", 10);
    struct store_position now = position_now();
    snprintf(figure, sizeof figure, "9 %llu %llu", (unsigned long long)now.recorded.epoch,
             (unsigned long long)now.recorded.n);
    edit(product, figure);
    read_books(product, &books);
    assert_true(!books.equal && books.gate.at_known);
    assert_int_equal(books.stock, 10);
    assert_int_equal(books.gate.stock_at, 9);
}

static void test_a_position_where_the_store_never_was(void **state)
{
    char figure[64];
    struct books books;
    (void)state;
    int64_t product = add("one", 10);
    struct store_position now = position_now();
    snprintf(figure, sizeof figure, "10 %llu %llu", (unsigned long long)now.recorded.epoch,
             (unsigned long long)now.recorded.n + 1000);
    edit(product, figure);
    read_books(product, &books);
    assert_true(!books.equal && !books.gate.at_known);
}

/* A window's two rows say when, not how many. */
static void test_a_window_is_told_with_the_stock(void **state)
{
    struct change_result result;
    struct window_change window = {.to = {SALE_WINDOW_KEEP, SALE_WINDOW_NOW}, .note = "enough"};
    struct books books;
    (void)state;
    int64_t product = window.product_id = add("one", 10);
    add("two", 5);
    assert_int_equal(books_change_window(&side, store, &window, PATIENCE_MS, &result), CHANGE_MADE);
    read_books(product, &books);
    assert_int_equal(log_position_compare(books.position, result.position), 0);
    expect_equal(product, 10);
    assert_int_equal(side.untold, 0);
}

/* The keeper names the position that it read the store at, which is not that of the product's own entry. */
static void test_a_position_of_another_product(void **state)
{
    char figure[64];
    struct change_result result;
    struct price_change price = {.to = 90, .note = "cheaper"};
    (void)state;
    int64_t product = price.product_id = add("one", 10);
    add("two", 5);
    struct store_position now = position_now();
    snprintf(figure, sizeof figure, "10 %llu %llu", (unsigned long long)now.recorded.epoch,
             (unsigned long long)now.recorded.n);
    edit(product, figure);
    expect_equal(product, 10);
    assert_int_equal(books_change_price(&side, store, &price, PATIENCE_MS, &result), CHANGE_MADE);
    now = position_now(); /* a price's row says what the price was, not the stock */
    snprintf(figure, sizeof figure, "10 %llu %llu", (unsigned long long)now.recorded.epoch,
             (unsigned long long)now.recorded.n);
    edit(product, figure);
    expect_equal(product, 10);
}

static void test_nodes_that_know_nothing(void **state)
{
    struct books books;
    (void)state;
    int64_t one = add("one", 10), two = add("two", 4), bundle = add_bundle(one, two);
    empty_all();
    read_books(one, &books);
    assert_true(!books.equal && !books.gate.at_known);
    assert_int_equal(books.stock, 10);
    read_books(bundle, &books);
    assert_true(!books.equal && !books.gate.at_known);
    assert_int_equal(books.stock, 2);
}

/* --- nodes that are away ----------------------------------------------------------------------------------------------------------- */
static void test_a_minority_away(void **state)
{
    struct change_result result;
    (void)state;
    int64_t product = add("one", 10);
    redis_fixture_kill(&nodes[0]);
    redis_fixture_kill(&nodes[3]);
    assert_int_equal(change(product, -1, &result), CHANGE_MADE);
    expect_equal(product, 9);
    assert_int_equal(side.untold, 0);
}

/* The change stands, and is left to the keeper. */
static void test_no_majority(void **state)
{
    struct books books;
    struct change_result result;
    (void)state;
    int64_t product = add("one", 10);
    for (unsigned i = 0; i < 3; i++) {
        redis_fixture_kill(&nodes[i]);
    }
    assert_int_equal(change(product, -1, &result), CHANGE_MADE);
    assert_int_equal(result.stock, 9);
    assert_int_equal(side.untold, 1);
    assert_int_equal(books_read(store, &side, product, &books), BOOKS_GATE_FAILED);
    assert_non_null(strstr(gate_side_failure(&side), "node 1"));
}

/* --- whose store it is ------------------------------------------------------------------------------------------------------------- */
static void test_a_store_of_the_lua_gate(void **state)
{
    struct change_result result;
    (void)state;
    int64_t product = add("one", 10);
    struct store_position now = position_now();
    assert_int_equal(store_raise_epoch(store, now.epoch, now.epoch + 1), STORE_OK);
    assert_int_equal(change(product, -1, &result), CHANGE_FAILED);
    assert_string_equal(books_failure(), "the store belongs to the Lua gate");
    expect_equal(product, 10);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_changes_reach_both),
        TEST(test_what_is_not_there),
        TEST(test_nodes_behind_the_store),
        TEST(test_a_product_that_is_not_open),
        TEST(test_withdraw_all),
        TEST(test_a_bundle_at_its_components_versions),
        TEST(test_a_bundle_with_a_wrong_component),
        TEST(test_a_wrong_figure),
        TEST(test_a_position_where_the_store_never_was),
        TEST(test_a_position_of_another_product),
        TEST(test_a_window_is_told_with_the_stock),
        TEST(test_nodes_that_know_nothing),
        TEST(test_a_minority_away),
        TEST(test_no_majority),
        TEST(test_a_store_of_the_lua_gate),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
