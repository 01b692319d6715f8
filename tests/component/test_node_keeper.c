/* The keeper of the Redlock gate's nodes, pass by pass, with a real store and five real Redis processes: what a node forgot or missed it is told
 * again, what somebody changed there by hand is put right and counted, and nothing that a worker does is taken for a fault. */
#include "testing.h"

#include "redis_fixture.h"

#include "doorbuster/metrics.h"
#include "doorbuster/node_books.h"
#include "doorbuster/store.h"
#include "node_keeper.h"

#include <inttypes.h>
#include <pthread.h>
#include <sqlite3.h>
#include <stdio.h>
#include <string.h>

#define NODES 5
#define PRODUCTS 150 /* three pages */
#define STOCK 100
#define PATIENCE_MS 5000

static struct redis_fixture nodes[NODES];
static struct gate_place place;
static char folder[FOLDER_BYTES], url[FOLDER_BYTES + 32], path[FOLDER_BYTES + 16];
static struct store *store;
static struct store_position position;
static struct node_books *books;
static struct node_keeper *keeper;
static struct metrics_page *metrics;
static struct board board;
static struct board_sale shown;

static struct change_result change(int64_t product, int64_t delta, enum stock_cause cause)
{
    struct stock_change asked = {.product_id = product, .delta = delta, .cause = cause, .note = "test"};
    struct change_result result;
    enum change_outcome outcome;
    assert_int_equal(store_change_stock(store, &asked, &outcome, &result), STORE_OK);
    assert_int_equal(outcome, CHANGE_MADE);
    return result;
}

static int64_t add_product(int64_t stock, const struct bundle_component *component)
{
    static unsigned serial;
    struct store_product product = {.price = 500, .planned_stock = stock};
    snprintf(product.name, sizeof product.name, "product %u", ++serial);
    if (component != NULL) {
        product.components[0] = *component;
        product.component_count = 1;
    }
    assert_int_equal(store_add_product(store, &product), STORE_OK);
    return product.id;
}

static int begin(void **state)
{
    char error[512];
    (void)state;
    metrics = metrics_page_new();
    metrics_use_slot(&metrics->recorder);
    folder_make(folder);
    snprintf(path, sizeof path, "%s/doorbuster.db", folder);
    snprintf(url, sizeof url, "sqlite:%s", path);
    place = (struct gate_place){.kind = GATE_REDLOCK, .node_count = NODES};
    for (unsigned i = 0; i < NODES; i++) {
        redis_fixture_start(&nodes[i], false);
        place.nodes[i] = nodes[i].address;
    }
    assert_int_equal(store_open(&store, url, STORE_WRITER, error, sizeof error), STORE_OK);
    assert_int_equal(store_take_over(store), STORE_OK);
    for (int64_t i = 1; i <= PRODUCTS; i++) {
        assert_int_equal(add_product(STOCK, NULL), i);
        change(i, STOCK, STOCK_OPENING);
    }
    assert_int_equal(store_position(store, &position), STORE_OK);
    books = node_books_open(&place, position.store_id, 1000);
    keeper = node_keeper_new(&place, url, &board);
    assert_true(node_keeper_pass(keeper));
    return 0;
}

static int end(void **state)
{
    (void)state;
    node_keeper_free(&keeper);
    node_books_close(&books);
    store_close(&store);
    for (unsigned i = 0; i < NODES; i++) {
        redis_fixture_end(&nodes[i]);
    }
    folder_remove(folder);
    return 0;
}

static struct node_stock said_by(unsigned node, int64_t product)
{
    struct node_stock said;
    if (!node_books_read_node(books, node, &product, 1, &said)) {
        fail_msg("%s", node_books_failure(books));
    }
    return said;
}

static void expect(unsigned node, int64_t product, int64_t stock)
{
    struct node_stock said = said_by(node, product);
    if (!said.known || said.stock != stock) {
        fail_msg("node %u says of product %" PRId64 ": %" PRId64 " (known: %d), wanted %" PRId64, node + 1,
                 product, said.stock, said.known, stock);
    }
}

static void expect_everywhere(int64_t product, int64_t stock)
{
    for (unsigned i = 0; i < NODES; i++) {
        expect(i, product, stock);
    }
}

static uint64_t healed(void)
{
    return metrics_sum(metrics, METRICS_nodes_healed);
}

static uint64_t refilled(void)
{
    return metrics_sum(metrics, METRICS_nodes_refilled);
}

static void edit(unsigned node, int64_t product, const char *figure)
{
    redisContext *redis = redis_fixture_connect(&nodes[node]);
    redis_do(redis, "SET {doorbuster}:stock:%lld:%lld %s", (long long)position.store_id, (long long)product,
             figure);
    redisFree(redis);
}

static void do_on(unsigned node, const char *command)
{
    redisContext *redis = redis_fixture_connect(&nodes[node]);
    redis_do(redis, command);
    redisFree(redis);
}

static void passes(unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        assert_true(node_keeper_pass(keeper));
    }
}

/* --- what a node does not know ------------------------------------------------------------------------------------------------------ */
static void test_new_nodes_are_filled(void **state)
{
    (void)state;
    expect_everywhere(1, STOCK);
    expect_everywhere(PRODUCTS, STOCK);
    assert_false(said_by(0, PRODUCTS + 1).known);
    assert_int_equal(refilled(), 0);
    assert_int_equal(healed(), 0);
}

static void test_an_emptied_node_is_filled_again(void **state)
{
    (void)state;
    do_on(1, "FLUSHALL");
    passes(1);
    for (int64_t i = 1; i <= PRODUCTS; i++) {
        expect(1, i, STOCK);
    }
    assert_int_equal(refilled(), 1);
    assert_int_equal(healed(), 0);
}

static void test_a_restarted_node_is_filled_again(void **state)
{
    (void)state;
    redis_fixture_kill(&nodes[2]);
    passes(2);
    redis_fixture_launch(&nodes[2], REDIS_NOTHING_KEPT);
    int64_t deadline = deadline_in(PATIENCE_MS);
    while (refilled() == 0) {
        passes(1);
        assert_true(wait_a_moment(deadline));
    }
    expect(2, PRODUCTS, STOCK);
    assert_int_equal(healed(), 0);
}

/* A new keeper knows by the mark that a node was told everything once. */
static void test_a_node_emptied_under_another_keeper(void **state)
{
    (void)state;
    node_keeper_free(&keeper);
    keeper = node_keeper_new(&place, url, &board);
    passes(1);
    do_on(1, "FLUSHALL");
    passes(1);
    expect(1, PRODUCTS, STOCK);
    assert_int_equal(refilled(), 1);
}

static void test_a_deleted_figure_is_told_again(void **state)
{
    char command[160];
    (void)state;
    snprintf(command, sizeof command, "DEL {doorbuster}:stock:%lld:140", (long long)position.store_id);
    do_on(4, command);
    passes(3); /* its page comes round */
    expect(4, 140, STOCK);
    assert_int_equal(healed() + refilled(), 0);
}

/* --- what a node has missed ----------------------------------------------------------------------------------------------------------- */
/* As when a worker died between its commit and the telling, or has not come to it yet: no fault. */
static void test_a_node_that_is_behind_is_told(void **state)
{
    (void)state;
    change(140, -30, STOCK_WITHDRAWAL);
    passes(1); /* not in this pass's page, but it has moved */
    expect_everywhere(140, STOCK - 30);
    change(140, -30, STOCK_WITHDRAWAL);
    change(140, -30, STOCK_WITHDRAWAL);
    change(1, 7, STOCK_RESTOCK);
    passes(1);
    expect_everywhere(140, STOCK - 90);
    expect_everywhere(1, STOCK + 7);
    assert_int_equal(healed() + refilled(), 0);
}

static void test_more_products_move_than_a_pass_looks_at(void **state)
{
    (void)state;
    for (int64_t i = 1; i <= PRODUCTS; i++) {
        change(i, -1, STOCK_WITHDRAWAL);
    }
    passes(3);
    for (int64_t i = 1; i <= PRODUCTS; i++) {
        expect(0, i, STOCK - 1);
    }
    assert_int_equal(healed() + refilled(), 0);
}

static void test_one_node_missed_it(void **state)
{
    (void)state;
    redis_fixture_freeze(&nodes[3]);
    change(10, -5, STOCK_WITHDRAWAL);
    passes(1);
    expect(0, 10, STOCK - 5);
    redis_fixture_thaw(&nodes[3]);
    int64_t deadline = deadline_in(PATIENCE_MS);
    while (said_by(3, 10).stock != STOCK - 5) {
        passes(1);
        assert_true(wait_a_moment(deadline));
    }
    assert_int_equal(healed() + refilled(), 0);
}

/* A worker that was quicker than the keeper's look is left alone. */
static void test_a_right_figure_is_not_written_again(void **state)
{
    (void)state;
    struct change_result result = change(20, -5, STOCK_WITHDRAWAL);
    struct stock_moves moves = {.position = result.position, .count = 1, .each[0] = {20, result.stock}};
    assert_true(node_books_write(books, &moves));
    change(21, -1, STOCK_WITHDRAWAL);
    passes(3);
    assert_int_equal(log_position_compare(said_by(0, 20).version, result.position), 0);
    assert_int_equal(healed() + refilled(), 0);
}

/* A worker on its own connections: commits, and tells the nodes, some late, some never. */
#define BUSY_CHANGES 600

static void *work_busily(void *done)
{
    char error[512];
    struct store *own;
    struct node_books *own_books = node_books_open(&place, position.store_id, 1000);
    uint64_t random = 5;
    struct stock_moves moves = {.count = 0};
    assert_int_equal(store_open(&own, url, STORE_WRITER, error, sizeof error), STORE_OK);
    for (int i = 0; i < BUSY_CHANGES; i++) {
        struct stock_change asked = {
            .product_id = 1 + random_below(&random, 20), .delta = 1, .cause = STOCK_RESTOCK, .note = "busy"};
        struct change_result result;
        enum change_outcome outcome;
        assert_int_equal(store_change_stock(own, &asked, &outcome, &result), STORE_OK);
        uint32_t lot = random_below(&random, 10);
        if (lot < 8) { /* else it died in between; the one before comes late, behind newer ones */
            node_books_write(own_books, &moves);
            moves.count = 1;
            moves.position = result.position;
            moves.each[0] = (struct stock_move){asked.product_id, result.stock};
        }
        if (lot < 6) {
            node_books_write(own_books, &moves);
        }
    }
    node_books_close(&own_books);
    store_close(&own);
    __atomic_store_n((bool *)done, true, __ATOMIC_RELEASE);
    return NULL;
}

static void test_a_busy_sale_heals_nothing(void **state)
{
    struct store_product product;
    pthread_t worker;
    bool done = false;
    (void)state;
    assert_int_equal(pthread_create(&worker, NULL, work_busily, &done), 0);
    while (!__atomic_load_n(&done, __ATOMIC_ACQUIRE)) {
        passes(1);
    }
    pthread_join(worker, NULL);
    passes(3);
    for (int64_t i = 1; i <= 20; i++) {
        assert_int_equal(store_find_product(store, i, &product), STORE_OK);
        expect_everywhere(i, product.stock);
    }
    assert_int_equal(healed() + refilled(), 0);
}

/* --- what nobody of ours has written ---------------------------------------------------------------------------------------------------- */
static void test_hand_edits_are_healed(void **state)
{
    char figure[96];
    (void)state;
    struct change_result result = change(30, -5, STOCK_WITHDRAWAL);
    passes(1);
    snprintf(figure, sizeof figure, "7 %" PRIu64 " %" PRIu64, result.position.epoch, result.position.n);
    edit(0, 30, figure); /* another stock at a version of ours */
    snprintf(figure, sizeof figure, "95 %" PRIu64 " %" PRIu64, result.position.epoch,
             result.position.n + 1000);
    edit(1, 30, figure); /* the right stock, of a commit that never was: it would outlast the next ones */
    edit(2, 30, "what is this");
    edit(3, 30, "9007199254740991 9007199254740991 9007199254740991");
    snprintf(figure, sizeof figure, "95 %" PRIu64 " %" PRIu64, result.position.epoch, result.position.n - 1);
    edit(4, 30, figure); /* it became so one position later: nobody minds as long as it is so */
    passes(3);
    expect_everywhere(30, STOCK - 5);
    assert_int_equal(healed(), 4);
    change(30, -5, STOCK_WITHDRAWAL);
    passes(1);
    expect_everywhere(30, STOCK - 10);
    assert_int_equal(healed(), 5);
}

static void test_an_older_figure_that_never_was_is_healed(void **state)
{
    char figure[96];
    (void)state;
    struct change_result first = change(31, -5, STOCK_WITHDRAWAL);
    change(31, -5, STOCK_WITHDRAWAL);
    snprintf(figure, sizeof figure, "%d %" PRIu64 " %" PRIu64, STOCK - 5, first.position.epoch,
             first.position.n);
    edit(0, 31, figure); /* it was so: behind */
    snprintf(figure, sizeof figure, "%d %" PRIu64 " %" PRIu64, STOCK - 6, first.position.epoch,
             first.position.n);
    edit(1, 31, figure); /* it never was so */
    passes(1);
    expect_everywhere(31, STOCK - 10);
    assert_int_equal(healed(), 1);
}

static void test_what_is_no_string_is_replaced(void **state)
{
    char command[160];
    (void)state;
    snprintf(command, sizeof command, "DEL {doorbuster}:stock:%lld:1", (long long)position.store_id);
    do_on(0, command);
    snprintf(command, sizeof command, "RPUSH {doorbuster}:stock:%lld:1 a", (long long)position.store_id);
    do_on(0, command);
    passes(3);
    expect(0, 1, STOCK);
}

static void test_a_lock_without_an_end_is_deleted(void **state)
{
    (void)state;
    static const char lock[] = "{doorbuster}:lock:30";
    char command[128];
    static const char *const edits[][2] = {
        {"SET", "x"}, {"SET", "x PX 70000"}, {"RPUSH", "x"}, {"SET", "x PX 9000"}};
    passes(2);
    uint64_t before = healed();
    for (unsigned i = 0; i < 4; i++) {
        snprintf(command, sizeof command, "%s %s %s", edits[i][0], lock, edits[i][1]);
        do_on(i, command);
    }
    passes(10); /* all pages */
    for (unsigned i = 0; i < 4; i++) {
        redisContext *redis = redis_fixture_connect(&nodes[i]);
        redisReply *reply = redisCommand(redis, "EXISTS %s", lock);
        assert_int_equal(reply->integer, i == 3); /* that one may be a server's */
        freeReplyObject(reply);
        redisFree(redis);
    }
    assert_int_equal(healed() - before, 3);
}

static void test_many_hand_edits(void **state)
{
    (void)state;
    for (int64_t i = 1; i <= PRODUCTS; i++) {
        edit(0, i, "1 1 1");
    }
    passes(3);
    for (int64_t i = 1; i <= PRODUCTS; i++) {
        expect(0, i, STOCK);
    }
}

/* --- faults ------------------------------------------------------------------------------------------------------------------------------- */
static void test_majorities(void **state)
{
    (void)state;
    redis_fixture_kill(&nodes[0]);
    redis_fixture_kill(&nodes[1]);
    passes(1);
    change(40, -1, STOCK_WITHDRAWAL);
    redis_fixture_kill(&nodes[2]);
    assert_false(node_keeper_pass(keeper));
    expect(3, 40, STOCK - 1); /* who answers is told all the same */
    for (unsigned i = 0; i < 3; i++) {
        redis_fixture_launch(&nodes[i], REDIS_NOTHING_KEPT);
    }
    int64_t deadline = deadline_in(PATIENCE_MS);
    while (refilled() < 3) {
        node_keeper_pass(keeper);
        assert_true(wait_a_moment(deadline));
    }
    expect_everywhere(40, STOCK - 1);
}

static void test_no_store(void **state)
{
    struct node_keeper *other = node_keeper_new(&place, "sqlite:/no/such/folder/doorbuster.db", NULL);
    (void)state;
    assert_false(node_keeper_pass(other));
    assert_false(node_keeper_pass(other));
    node_keeper_free(&other);
}

/* An attach of the Lua gate's recorder came in between: the nodes are kept right, for nobody can say when it is over. */
static void test_the_store_is_the_lua_gates(void **state)
{
    struct store_position now;
    (void)state;
    assert_int_equal(store_position(store, &now), STORE_OK);
    assert_int_equal(store_raise_epoch(store, now.epoch, now.epoch + 1), STORE_OK);
    int64_t product = add_product(5, NULL);
    passes(2);
    assert_false(said_by(0, product).known);
    assert_int_equal(store_take_over(store), STORE_OK);
    change(product, 5, STOCK_OPENING);
    passes(1);
    expect_everywhere(product, 5);
}

/* --- the board ------------------------------------------------------------------------------------------------------------------------------ */
static const struct board_product *show(int64_t product)
{
    assert_true(board_read_sale(&board, &shown));
    for (int64_t i = 0; i < shown.product_count; i++) {
        if (shown.products[i].id == product) {
            return &shown.products[i];
        }
    }
    fail_msg("product %" PRId64 " is not on the board", product);
    return NULL;
}

/* A pass that shows: it does so a few times a second. */
static void show_next(void)
{
    int64_t before = board.sale.written_us, deadline = deadline_in(PATIENCE_MS);
    while (board.sale.written_us == before) {
        node_keeper_pass(keeper);
        assert_true(wait_a_moment(deadline));
    }
}

static void expect_what_moved(void)
{
    show_next();
    assert_int_equal(show(50)->stock, STOCK);
    assert_int_equal(show(50)->available, STOCK);
    assert_int_equal(show(50)->opening, STOCK);
    assert_memory_equal(show(50)->name, "product ", 8);
    assert_int_equal(shown.products_total, PRODUCTS);
    assert_int_equal(shown.product_count, PRODUCTS);
    assert_int_equal(shown.orders_total, 0);
    change(50, -3, STOCK_WITHDRAWAL);
    show_next();
    assert_int_equal(show(50)->stock, STOCK - 3);
    assert_int_equal(show(50)->restocked, -3);
    assert_true(show(50)->books_equal);
    assert_int_equal(shown.differences, 0);
    assert_int_not_equal(shown.compared_at_ms, 0);
}

static void expect_what_differed(void)
{
    edit(3, 2, "7 1 1");
    int64_t most = 0, deadline = deadline_in(PATIENCE_MS);
    while (most == 0) {
        show_next();
        assert_true(board_read_sale(&board, &shown));
        most = shown.differences;
        assert_true(wait_a_moment(deadline));
    }
    assert_int_equal(most, 1);
    show_next();
    assert_true(board_read_sale(&board, &shown));
    assert_int_equal(shown.differences, 0);
}

static void expect_the_store_without_a_majority(void)
{
    for (unsigned i = 0; i < 3; i++) {
        redis_fixture_kill(&nodes[i]);
    }
    show_next();
    assert_int_equal(show(50)->available, -1);
    assert_int_equal(show(50)->stock, STOCK - 3);
    for (unsigned i = 0; i < 3; i++) {
        redis_fixture_launch(&nodes[i], REDIS_NOTHING_KEPT);
    }
    int64_t deadline = deadline_in(PATIENCE_MS);
    do {
        show_next();
        assert_true(wait_a_moment(deadline));
    } while (show(50)->available != STOCK - 3);
}

static void test_the_board(void **state)
{
    (void)state;
    expect_what_moved();
    expect_what_differed();
    expect_the_store_without_a_majority();
}

/* --- products ------------------------------------------------------------------------------------------------------------------------------- */
static void make_older(int64_t product)
{
    sqlite3 *db;
    char sql[128];
    snprintf(sql, sizeof sql, "UPDATE products SET created_at_ms = created_at_ms - 60000 WHERE id = %" PRId64,
             product);
    assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
    assert_int_equal(sqlite3_exec(db, sql, NULL, NULL, NULL), SQLITE_OK);
    assert_int_equal(sqlite3_changes(db), 1);
    sqlite3_close(db);
}

static void test_a_product_that_was_never_opened_is_opened(void **state)
{
    struct store_product product;
    (void)state;
    int64_t young = add_product(11, NULL), old = add_product(12, NULL);
    struct bundle_component component = {.product_id = 1, .quantity = 2};
    int64_t bundle = add_product(0, &component);
    make_older(old);
    make_older(bundle);
    passes(4);
    expect_everywhere(old, 12);
    assert_false(said_by(0, young).known);
    assert_int_equal(store_find_product(store, bundle, &product), STORE_OK);
    assert_true(product.opened);
    assert_false(said_by(0, bundle).known); /* it has no stock of its own */
    assert_int_equal(healed() + refilled(), 0);
}

int main(void)
{
#define WITH_ALL(test) cmocka_unit_test_setup_teardown(test, begin, end)
    const struct CMUnitTest tests[] = {
        WITH_ALL(test_the_board),
        WITH_ALL(test_new_nodes_are_filled),
        WITH_ALL(test_an_emptied_node_is_filled_again),
        WITH_ALL(test_a_restarted_node_is_filled_again),
        WITH_ALL(test_a_node_emptied_under_another_keeper),
        WITH_ALL(test_a_deleted_figure_is_told_again),
        WITH_ALL(test_a_node_that_is_behind_is_told),
        WITH_ALL(test_more_products_move_than_a_pass_looks_at),
        WITH_ALL(test_one_node_missed_it),
        WITH_ALL(test_a_right_figure_is_not_written_again),
        WITH_ALL(test_a_busy_sale_heals_nothing),
        WITH_ALL(test_hand_edits_are_healed),
        WITH_ALL(test_an_older_figure_that_never_was_is_healed),
        WITH_ALL(test_what_is_no_string_is_replaced),
        WITH_ALL(test_a_lock_without_an_end_is_deleted),
        WITH_ALL(test_many_hand_edits),
        WITH_ALL(test_majorities),
        WITH_ALL(test_no_store),
        WITH_ALL(test_the_store_is_the_lua_gates),
        WITH_ALL(test_a_product_that_was_never_opened_is_opened),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
