/* The stock on the nodes of the Redlock gate, with five real Redis processes: what a majority says, what nodes that are away, hang or were edited by
 * hand do to it. */
#include "testing.h"

#include "redis_fixture.h"

#include "doorbuster/clock.h"
#include "doorbuster/node_books.h"
#include "node_stock.h"

#include <stdio.h>
#include <string.h>

#define NODES 5
#define STORE 4711
#define TIMEOUT_MS 300
#define PATIENCE_MS 5000

static struct redis_fixture nodes[NODES];
static struct gate_place place;
static struct node_books *books;

static int start_nodes(void **state)
{
    (void)state;
    place = (struct gate_place){.kind = GATE_REDLOCK, .node_count = NODES};
    for (unsigned i = 0; i < NODES; i++) {
        redis_fixture_start(&nodes[i], false);
        place.nodes[i] = nodes[i].address;
    }
    books = node_books_open(&place, STORE, TIMEOUT_MS);
    return 0;
}

static int end_nodes(void **state)
{
    (void)state;
    node_books_close(&books);
    assert_null(books);
    for (unsigned i = 0; i < NODES; i++) {
        redis_fixture_end(&nodes[i]);
    }
    return 0;
}

/* On one node, behind everybody's back. */
static void do_on(unsigned node, const char *command)
{
    redisContext *redis = redis_fixture_connect(&nodes[node]);
    redis_do(redis, command);
    redisFree(redis);
}

static void edit(unsigned node, const char *figure)
{
    redisContext *redis = redis_fixture_connect(&nodes[node]);
    redis_do(redis, "SET {doorbuster}:stock:4711:1 %s", figure);
    redisFree(redis);
}

static void start_again(unsigned node)
{
    redis_fixture_launch(&nodes[node], REDIS_NOTHING_KEPT);
    int64_t deadline = deadline_in(PATIENCE_MS);
    while (!redis_fixture_answers(&nodes[node])) {
        assert_true(wait_a_moment(deadline));
    }
}

static bool tell(int64_t product, int64_t stock, uint64_t epoch, uint64_t n)
{
    static struct stock_moves moves;
    moves.position = (struct log_position){epoch, n};
    moves.count = 1;
    moves.each[0] = (struct stock_move){product, stock};
    return node_books_write(books, &moves);
}

static void expect(int64_t product, int64_t stock, uint64_t epoch, uint64_t n)
{
    struct node_stock said;
    if (!node_books_read(books, &product, 1, &said)) {
        fail_msg("no majority: %s", node_books_failure(books));
    }
    assert_true(said.known);
    assert_int_equal(said.stock, stock);
    assert_int_equal(said.version.epoch, epoch);
    assert_int_equal(said.version.n, n);
}

static bool knows(int64_t product)
{
    struct node_stock said;
    assert_true(node_books_read(books, &product, 1, &said));
    return said.known;
}

/* --- all is well ------------------------------------------------------------------------------------------------------------------- */
static void test_newer_wins(void **state)
{
    (void)state;
    assert_false(knows(1));
    assert_true(tell(1, 100, 7, 5));
    assert_int_equal(node_books_answering(books), NODES);
    expect(1, 100, 7, 5);
    assert_true(tell(1, 99, 7, 6));
    assert_true(tell(1, 100, 7, 5)); /* comes late */
    assert_true(tell(1, 100, 6, 900));
    expect(1, 99, 7, 6);
    assert_true(tell(1, 0, 8, 0)); /* a new epoch */
    expect(1, 0, 8, 0);
    assert_false(knows(2));
    assert_string_equal(node_books_failure(books), "");
}

/* A cart may move thousands of products at once. */
static void test_many_at_once(void **state)
{
    static struct stock_moves moves;
    static int64_t ids[SALES_LOG_PARTS_MAX];
    static struct node_stock said[SALES_LOG_PARTS_MAX];
    (void)state;
    moves.position = (struct log_position){3, 1};
    moves.count = SALES_LOG_PARTS_MAX;
    for (size_t i = 0; i < moves.count; i++) {
        ids[i] = (int64_t)i + 1;
        moves.each[i] = (struct stock_move){ids[i], 10 * ids[i]};
    }
    assert_true(node_books_write(books, &moves));
    assert_true(node_books_read(books, ids, moves.count, said));
    for (size_t i = 0; i < moves.count; i++) {
        assert_true(said[i].known);
        assert_int_equal(said[i].stock, 10 * ids[i]);
    }
    moves.count = 0; /* nothing to tell: told */
    assert_true(node_books_write(books, &moves));
}

static void test_stores_are_apart(void **state)
{
    struct node_books *other = node_books_open(&place, STORE + 1, TIMEOUT_MS);
    struct node_stock said;
    int64_t product = 1;
    (void)state;
    assert_true(tell(1, 5, 1, 1));
    assert_true(node_books_read(other, &product, 1, &said));
    assert_false(said.known);
    node_books_close(&other);
}

static void test_one_node(void **state)
{
    static struct stock_moves moves = {
        .position = {2, 2}, .count = 1, .each[0] = {.product_id = 1, .stock = 8}};
    struct node_stock said;
    int64_t product = 1;
    (void)state;
    assert_true(node_books_write_node(books, 3, &moves));
    assert_int_equal(node_books_answering(books), 1);
    assert_true(node_books_read_node(books, 2, &product, 1, &said));
    assert_false(said.known);
    assert_true(node_books_read_node(books, 3, &product, 1, &said));
    assert_true(said.known);
    assert_int_equal(said.stock, 8);
    expect(1, 8, 2, 2); /* one of those who answer knows it */
}

/* --- nodes that are away ---------------------------------------------------------------------------------------------------------- */
static void test_a_minority_lags(void **state)
{
    (void)state;
    assert_true(tell(1, 50, 4, 1));
    edit(0, "60 3 9");
    do_on(4, "DEL {doorbuster}:stock:4711:1");
    expect(1, 50, 4, 1);
}

static void test_two_dead_of_five(void **state)
{
    (void)state;
    assert_true(tell(1, 50, 4, 1));
    redis_fixture_kill(&nodes[1]);
    redis_fixture_kill(&nodes[3]);
    expect(1, 50, 4, 1);
    assert_int_equal(node_books_answering(books), 3);
    assert_non_null(strstr(node_books_failure(books), "node 2 ("));
    assert_non_null(strstr(node_books_failure(books), "node 4 ("));
    assert_null(strstr(node_books_failure(books), "node 3 ("));
    assert_true(tell(1, 49, 4, 2));
    expect(1, 49, 4, 2);
}

static void test_three_dead_of_five(void **state)
{
    struct node_stock said;
    int64_t product = 1;
    (void)state;
    assert_true(tell(1, 50, 4, 1));
    for (unsigned i = 0; i < 3; i++) {
        redis_fixture_kill(&nodes[i]);
    }
    assert_false(node_books_read(books, &product, 1, &said));
    assert_false(tell(1, 49, 4, 2));
    assert_int_equal(node_books_answering(books), 2);
    start_again(1); /* refused before, so tried again with the next call */
    expect(1, 49, 4, 2);
    assert_true(tell(1, 48, 4, 3));
}

/* It has forgotten everything, and is a node like the others: its silence counts as an answer. */
static void test_a_restarted_node(void **state)
{
    struct node_stock said;
    int64_t product = 1;
    (void)state;
    assert_true(tell(1, 50, 4, 1));
    redis_fixture_kill(&nodes[2]);
    start_again(2);
    expect(1, 50, 4, 1);
    assert_int_equal(node_books_answering(books), NODES);
    assert_true(node_books_read_node(books, 2, &product, 1, &said));
    assert_false(said.known);
}

/* --- nodes that hang ---------------------------------------------------------------------------------------------------------------- */
static void test_hung_nodes_cost_one_timeout_a_second(void **state)
{
    (void)state;
    assert_true(tell(1, 50, 4, 1));
    redis_fixture_freeze(&nodes[0]);
    redis_fixture_freeze(&nodes[3]);
    int64_t began = now_us();
    expect(1, 50, 4, 1);
    assert_in_range(now_us() - began, TIMEOUT_MS * 1000 - 50000, 2 * TIMEOUT_MS * 1000);
    began = now_us();
    for (int i = 0; i < 10; i++) {
        expect(1, 50, 4, 1);
    }
    assert_in_range(now_us() - began, 0, 3 * TIMEOUT_MS * 1000); /* and not ten */
    assert_non_null(strstr(node_books_failure(books), "timed out"));
    redis_fixture_thaw(&nodes[0]);
    redis_fixture_thaw(&nodes[3]);
    int64_t deadline = deadline_in(PATIENCE_MS);
    do {
        expect(1, 50, 4, 1);
    } while (node_books_answering(books) < NODES && wait_a_moment(deadline));
    assert_int_equal(node_books_answering(books), NODES);
}

static int64_t time_of_ten_writes(const struct stock_moves *moves)
{
    int64_t began = now_us();
    int done = 0;
    for (int i = 0; i < 10; i++) { /* a busy machine may not be through with each in TIMEOUT_MS */
        done += node_books_write(books, moves);
    }
    assert_true(done > 0);
    return now_us() - began;
}

/* One that takes nothing any more: more is written than its socket holds. */
static void test_a_hung_node_and_much_to_write(void **state)
{
    static struct stock_moves moves;
    (void)state;
    assert_true(tell(1, 50, 4, 1));
    moves.position = (struct log_position){4, 2};
    moves.count = SALES_LOG_PARTS_MAX;
    for (size_t i = 0; i < moves.count; i++) {
        moves.each[i] =
            (struct stock_move){INT64_C(1000000000000000) + (int64_t)i, INT64_C(1000000000000000)};
    }
    int64_t usual = time_of_ten_writes(&moves);
    redis_fixture_freeze(&nodes[0]);
    assert_in_range(time_of_ten_writes(&moves), 0, 2 * usual + 6 * TIMEOUT_MS * 1000);
    redis_fixture_thaw(&nodes[0]);
}

/* What it answers late belongs to a question that nobody waits for any more. */
static void test_late_answers_are_not_mixed_up(void **state)
{
    struct node_stock said;
    int64_t first = 1, second = 2;
    (void)state;
    assert_true(tell(1, 50, 4, 1));
    assert_true(tell(2, 70, 4, 2));
    redis_fixture_freeze(&nodes[0]);
    assert_false(node_books_read_node(books, 0, &first, 1, &said));
    redis_fixture_thaw(&nodes[0]);
    int64_t deadline = deadline_in(PATIENCE_MS);
    while (!node_books_read_node(books, 0, &second, 1, &said)) {
        assert_true(wait_a_moment(deadline));
    }
    assert_int_equal(said.stock, 70);
}

/* --- hand edits ---------------------------------------------------------------------------------------------------------------------- */
static void test_what_is_no_figure_is_not_known(void **state)
{
    static const char *const figures[] = {"x", "5", "", "-5 1 1", "5 1 1 1", "5 1 99999999999999999999"};
    struct node_stock said;
    int64_t product = 1;
    (void)state;
    for (size_t i = 0; i < sizeof figures / sizeof figures[0]; i++) {
        edit(2, figures[i]);
        assert_true(node_books_read_node(books, 2, &product, 1, &said));
        assert_false(said.known);
        assert_true(said.damaged);
        assert_false(knows(1));
    }
    /* A newer figure takes its place. */
    assert_true(tell(1, 7, 1, 1));
    assert_true(node_books_read_node(books, 2, &product, 1, &said));
    assert_true(said.known && !said.damaged);
    do_on(2, "DEL {doorbuster}:stock:4711:1");
    do_on(2, "RPUSH {doorbuster}:stock:4711:1 a b");
    assert_true(node_books_read_node(books, 2, &product, 1, &said));
    assert_false(said.known);
    assert_true(tell(1, 6, 1, 2));
    assert_int_equal(node_books_answering(books), NODES);
    assert_true(node_books_read_node(books, 2, &product, 1, &said));
    assert_int_equal(said.stock, 6);
}

static void test_figures_and_what_is_none(void **state)
{
    static const char *const none[] = {"",
                                       "1",
                                       "1 2",
                                       "1 2 3 4",
                                       " 1 2 3",
                                       "1 2 3 ",
                                       "1  2 3",
                                       "-1 2 3",
                                       "1 -2 3",
                                       "1 2 x",
                                       "1.5 2 3",
                                       "0x1 2 3",
                                       "1\t2\t3",
                                       "1 2 99999999999999999999",
                                       "9007199254740992 1 1",
                                       "nan 1 1"};
    struct node_stock said = {.stock = 77};
    char text[NODE_STOCK_VALUE_BYTES];
    (void)state;
    for (size_t i = 0; i < sizeof none / sizeof none[0]; i++) {
        if (node_stock_parse(none[i], strlen(none[i]), &said)) {
            fail_msg("\"%s\" was taken", none[i]);
        }
    }
    assert_int_equal(said.stock, 77);
    assert_false(node_stock_parse("1 2 3\0", 6, &said));
    node_stock_format(&(struct node_stock){.stock = 12, .version = {34, 56}}, text);
    assert_string_equal(text, "12 34 56");
    assert_true(node_stock_parse(text, strlen(text), &said));
    assert_true(said.known && said.stock == 12 && said.version.epoch == 34 && said.version.n == 56);
}

/* The keeper's means against a version that none of ours can have written. */
static void test_force(void **state)
{
    struct node_stock to = {.known = true, .stock = 40, .version = {4, 2}};
    (void)state;
    assert_true(tell(1, 40, 4, 2));
    edit(1, "9999 9 9");
    expect(1, 9999, 9, 9);
    assert_true(tell(1, 39, 4, 3));
    expect(1, 9999, 9, 9); /* it is newer */
    assert_true(node_books_force(books, 1, 1, &to));
    expect(1, 39, 4, 3);
}

int main(void)
{
#define WITH_NODES(test) cmocka_unit_test_setup_teardown(test, start_nodes, end_nodes)
    const struct CMUnitTest tests[] = {
        WITH_NODES(test_newer_wins),
        WITH_NODES(test_many_at_once),
        WITH_NODES(test_stores_are_apart),
        WITH_NODES(test_one_node),
        WITH_NODES(test_a_minority_lags),
        WITH_NODES(test_two_dead_of_five),
        WITH_NODES(test_three_dead_of_five),
        WITH_NODES(test_a_restarted_node),
        WITH_NODES(test_hung_nodes_cost_one_timeout_a_second),
        WITH_NODES(test_a_hung_node_and_much_to_write),
        WITH_NODES(test_late_answers_are_not_mixed_up),
        WITH_NODES(test_what_is_no_figure_is_not_known),
        cmocka_unit_test(test_figures_and_what_is_none),
        WITH_NODES(test_force),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
