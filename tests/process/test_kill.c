/* kill -9 in the middle of a sale, with the real server and nobody to help it: every confirmed order is in
 * the store, nothing is sold twice, the sale goes on. Also the orderly ways to go: SIGTERM and SIGHUP. Runs on
 * both gates, but for what is about the Lua gate's Redis and recorder.
 *
 * DOORBUSTER_ROUNDS: rounds of the random killing. DOORBUSTER_SEED repeats a run. */
#include "testing.h"

#include "crowd.h"
#include "ledger.h"
#include "server_fixture.h"

#include "doorbuster/redis.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define BUYERS 120
#define PRODUCTS 3
#define LIMIT 40 /* units of the third product that one may have */
#define WORKERS_MAX 3
#define CALM_MS 150      /* between two kills at most */
#define GO_ON_ORDERS 300 /* so many more orders after the last kill: the sale goes on */
#define PATIENCE_MS 30000
#define LEAVE_MS 20000 /* for what a dead supervisor leaves behind */
#define ROUNDS_USUAL 10
#define ROUNDS_USUAL_REDLOCK 3 /* each number of workers once */

static struct kill_test {
    struct server_fixture server;
    struct crowd *crowd;
    struct ledger ledger;
    uint64_t random;
    int64_t first_user, products[PRODUCTS], stocks[PRODUCTS];
    char tokens[BUYERS][JWT_TOKEN_BYTES_MAX];
    int64_t product_of[BUYERS], quantity_of[BUYERS]; /* what each is asking for now */
    bool selling;                                    /* buyers come again */
} test;

/* --- the buyers
 * ------------------------------------------------------------------------------------------------------------------
 */
static void buy(size_t client)
{
    test.product_of[client] = test.products[random_below(&test.random, PRODUCTS)];
    test.quantity_of[client] = 1 + random_below(&test.random, 3);
    crowd_buy(test.crowd, client, test.tokens[client], test.product_of[client], test.quantity_of[client]);
}

static void answer_cb(void *context, size_t client, const struct crowd_answer *answer)
{
    (void)context;
    ledger_note(&test.ledger, answer, test.first_user + (int64_t)client, test.product_of[client],
                test.quantity_of[client]);
    if (test.selling) {
        buy(client);
    }
}

static void start_buying(void)
{
    test.crowd = crowd_new(test.server.port, BUYERS, answer_cb, NULL);
    assert_true(crowd_connect(test.crowd, PATIENCE_MS));
    test.selling = true;
    for (size_t i = 0; i < BUYERS; i++) {
        buy(i);
    }
}

static void buy_for(int ms)
{
    int64_t deadline = deadline_in(ms);
    while (now_us() < deadline) {
        crowd_step(test.crowd, 1);
    }
}

/* Lets them buy until so many more have been confirmed, or all is sold. */
static void buy_until_more(size_t orders)
{
    int64_t deadline = deadline_in(PATIENCE_MS);
    size_t from = test.ledger.confirmed, sold_out_from = test.ledger.sold_out;
    while (test.ledger.confirmed < from + orders && test.ledger.sold_out < sold_out_from + 20 * BUYERS) {
        crowd_step(test.crowd, 10);
        if (now_us() > deadline) {
            fail_msg("the sale does not go on: %zu confirmed, %zu sold out, %zu limited, %zu unavailable, "
                     "%zu broken since long",
                     test.ledger.confirmed - from, test.ledger.sold_out, test.ledger.over_limit,
                     test.ledger.unavailable, test.ledger.broken);
        }
    }
}

static void stop_buying(void)
{
    test.selling = false;
    assert_true(crowd_finish(test.crowd, PATIENCE_MS));
    crowd_free(&test.crowd);
}

/* --- the sale
 * ----------------------------------------------------------------------------------------------------------------------
 */
static void start_sale(unsigned workers, uint32_t stock_max)
{
    ledger_free(&test.ledger);
    server_fixture_start(&test.server, workers, NULL, NULL);
    test.first_user = server_fixture_add_users(&test.server, BUYERS);
    for (size_t i = 0; i < BUYERS; i++) {
        server_fixture_token(&test.server, test.first_user + (int64_t)i, USER_BUYER, test.tokens[i]);
    }
    for (size_t i = 0; i < PRODUCTS; i++) {
        test.stocks[i] = 100 + random_below(&test.random, stock_max);
        test.products[i] = server_fixture_add_product(&test.server, test.stocks[i], i == 2 ? LIMIT : 0);
    }
}

static struct store *read_store(void)
{
    struct store *store;
    char error[512];
    assert_int_equal(store_open(&store, test.server.store_url, STORE_READER, error, sizeof error), STORE_OK);
    return store;
}

/* What the store has, against what the buyers heard and what there was to sell. */
static void check_books(void)
{
    int64_t orders = 0;
    if (test.ledger.other > 0) {
        fail_msg("status %d: %s", test.ledger.other_status, test.ledger.other_body);
    }
    ledger_check_store(&test.ledger, test.server.store_url);
    ledger_check_order(&test.ledger);
    struct store *store = read_store();
    assert_int_equal(store_snapshot_begin(store), STORE_OK);
    for (size_t i = 0; i < PRODUCTS; i++) {
        struct store_product product;
        struct store_product_audit sums;
        assert_int_equal(store_find_product(store, test.products[i], &product), STORE_OK);
        assert_int_equal(store_audit_product(store, test.products[i], &sums), STORE_OK);
        assert_int_equal(sums.order_units, product.sold);
        assert_int_equal(product.opening, test.stocks[i]);
        assert_int_equal(product.sold + product.stock, test.stocks[i]);
        assert_true(ledger_units(&test.ledger, test.products[i]) <= product.sold);
        assert_int_equal(sums.over_limit_customers, 0);
        orders += sums.order_count;
    }
    store_snapshot_end(store);
    store_close(&store);
    /* Beyond what was confirmed there is at most one order for each request that got no answer. */
    assert_in_range(orders, test.ledger.confirmed,
                    test.ledger.confirmed + test.ledger.broken + test.ledger.unavailable);
}

static void end_sale(void)
{
    stop_buying();
    server_fixture_verify(&test.server, 0);
    check_books();
    server_fixture_stop(&test.server);
}

static void kill_child(const char *title)
{
    pid_t pid = server_fixture_child(&test.server, title);
    assert_int_equal(kill(pid, SIGKILL), 0);
    /* Until it is another one, so that the next kill finds a living process. */
    pid_t now;
    int64_t deadline = deadline_in(PATIENCE_MS);
    while (server_fixture_find(&test.server, title, &now, 1) != 1 || now == pid) {
        crowd_step(test.crowd, 1);
        assert_true(now_us() < deadline);
    }
}

/* --- workers and the recorder, at random moments
 * ------------------------------------------------------------------------------------- */
static void shuffle(unsigned *list, unsigned count)
{
    for (unsigned i = count; i > 1; i--) {
        unsigned j = random_below(&test.random, i), kept = list[i - 1];
        list[i - 1] = list[j];
        list[j] = kept;
    }
}

/* Kills every worker and the recorder (or keeper), in some order, at some moments. */
static void kill_round(unsigned round, size_t *confirmed, size_t *lost)
{
    unsigned workers = 1 + round % WORKERS_MAX, victims[WORKERS_MAX + 1];
    char title[32];
    start_sale(workers, round % 2 ? 1000 : 20000);
    start_buying();
    for (unsigned i = 0; i <= workers; i++) {
        victims[i] = i; /* the last is the recorder */
    }
    shuffle(victims, workers + 1);
    for (unsigned i = 0; i <= workers; i++) {
        buy_for((int)random_below(&test.random, CALM_MS));
        snprintf(title, sizeof title, "doorbuster: worker %u", victims[i]);
        kill_child(victims[i] == workers ? server_fixture_bookkeeper() : title);
    }
    buy_until_more(GO_ON_ORDERS);
    assert_int_equal(server_fixture_metric(&test.server, "process_restarts"), workers + 1);
    /* Nobody but those whose connection died went without an answer. */
    assert_int_equal(test.ledger.unavailable, 0);
    *confirmed += test.ledger.confirmed;
    *lost += test.ledger.broken;
    end_sale();
}

static void test_killed_workers_and_recorder_lose_nothing(void **state)
{
    unsigned rounds = rounds_wanted(gate_is_redlock() ? ROUNDS_USUAL_REDLOCK : ROUNDS_USUAL);
    size_t confirmed = 0, lost = 0;
    int64_t began_us = now_us();
    (void)state;
    for (unsigned i = 0; i < rounds; i++) {
        kill_round(i, &confirmed, &lost);
    }
    print_message("[          ] %u rounds, %zu orders confirmed, %zu requests without an answer, %.1f s\n",
                  rounds, confirmed, lost, (double)(now_us() - began_us) / 1e6);
}

/* --- the recorder, again and again within one sale
 * -------------------------------------------------------------------------------------- */
static void test_recorder_killed_while_it_attaches(void **state)
{
    (void)state;
    start_sale(2, 20000);
    start_buying();
    for (unsigned i = 0; i < 6; i++) {
        buy_for((int)random_below(&test.random, 20)); /* now and then in the middle of attaching */
        kill_child("doorbuster: recorder");
    }
    buy_until_more(GO_ON_ORDERS);
    end_sale();
}

/* In the store, to the last one. */
static size_t recorded(void)
{
    struct store *store = read_store();
    struct store_position position;
    assert_int_equal(store_position(store, &position), STORE_OK);
    store_close(&store);
    return (size_t)position.last_order_id;
}

/* What was recorded before is still announced; not more is. */
static void expect_nothing_confirmed_for(int ms)
{
    buy_for(ms);
    size_t confirmed = test.ledger.confirmed;
    assert_in_range(confirmed, 1, recorded());
}

/* --- a recorder that stands still
 * -------------------------------------------------------------------------------------------------------- */
static void test_nothing_is_confirmed_without_the_recorder(void **state)
{
    (void)state;
    start_sale(2, 20000);
    start_buying();
    buy_until_more(GO_ON_ORDERS);
    pid_t recorder = server_fixture_child(&test.server, "doorbuster: recorder");
    kill(recorder, SIGSTOP);
    expect_nothing_confirmed_for(600);
    kill(recorder, SIGCONT);
    buy_until_more(GO_ON_ORDERS);
    assert_int_equal(test.ledger.unavailable + test.ledger.broken, 0);
    end_sale();
}

/* --- the supervisor
 * ------------------------------------------------------------------------------------------------------------------------
 */
static void test_killed_supervisor_takes_all_with_it(void **state)
{
    pid_t children[SERVER_CHILDREN_MAX];
    (void)state;
    start_sale(2, 20000);
    start_buying();
    buy_until_more(GO_ON_ORDERS);
    size_t count = server_fixture_children(&test.server, children, SERVER_CHILDREN_MAX);
    assert_int_equal(count, server_fixture_family(2));
    server_fixture_kill_supervisor(&test.server);
    test.selling = false; /* those on their way get their answer, or lose their connection */
    assert_true(crowd_finish(test.crowd, PATIENCE_MS));
    crowd_free(&test.crowd);
    if (!server_fixture_wait_gone(children, count, LEAVE_MS)) {
        for (size_t i = 0; i < count; i++) {
            kill(children[i], SIGKILL);
        }
        fail_msg("a child outlives its supervisor by more than %d ms", LEAVE_MS);
    }
    check_books(); /* what was confirmed is in the store already */
    server_fixture_start(&test.server, 2, NULL, NULL);
    server_fixture_verify(&test.server, 0);
    start_buying();
    buy_until_more(GO_ON_ORDERS);
    end_sale();
}

static void test_all_killed_at_once(void **state)
{
    pid_t children[SERVER_CHILDREN_MAX];
    (void)state;
    start_sale(2, 20000);
    start_buying();
    buy_until_more(GO_ON_ORDERS);
    size_t count = server_fixture_children(&test.server, children, SERVER_CHILDREN_MAX);
    server_fixture_kill_supervisor(&test.server);
    for (size_t i = 0; i < count; i++) {
        kill(children[i], SIGKILL);
    }
    assert_true(server_fixture_wait_gone(children, count, LEAVE_MS));
    test.selling = false;
    assert_true(crowd_finish(test.crowd, PATIENCE_MS));
    crowd_free(&test.crowd);
    server_fixture_start(&test.server, 3, NULL, NULL);
    server_fixture_verify(&test.server, 0);
    check_books();
    start_buying();
    buy_until_more(GO_ON_ORDERS);
    end_sale();
}

/* Nobody was turned away or left without an answer. */
static void expect_only_slower_answers(void)
{
    assert_int_equal(test.ledger.unavailable, 0);
    assert_int_equal(test.ledger.broken, 0);
}

/* --- Redis
 * ---------------------------------------------------------------------------------------------------------------------------------
 */
static void test_killed_redis_comes_back(void **state)
{
    (void)state;
    start_sale(2, 20000);
    start_buying();
    for (unsigned i = 0; i < 3; i++) {
        buy_until_more(GO_ON_ORDERS);
        kill_child("redis-server");
    }
    buy_until_more(GO_ON_ORDERS);
    assert_int_equal(server_fixture_metric(&test.server, "process_restarts"), 3);
    expect_only_slower_answers();
    end_sale();
}

/* Redis forgets everything, without so much as a broken connection. */
static void test_flushed_redis_is_rebuilt(void **state)
{
    (void)state;
    start_sale(2, 20000);
    start_buying();
    for (unsigned i = 0; i < 3; i++) {
        buy_until_more(GO_ON_ORDERS);
        redisContext *redis = server_fixture_redis(&test.server);
        freeReplyObject(redis_ask(redis, i == 1 ? "FLUSHALL SYNC" : "FLUSHALL ASYNC"));
        redisFree(redis);
    }
    buy_until_more(GO_ON_ORDERS);
    assert_true(server_fixture_metric(&test.server, "recorder_rebuilds") >= 3);
    expect_only_slower_answers();
    end_sale();
}

/* --- the store
 * ------------------------------------------------------------------------------------------------------------------------------
 */
/* Another program holds the database for longer than the recorder waits. Nothing is confirmed meanwhile, and hardly anything reserved;
 * afterwards all that was reserved is recorded. */
static void test_locked_database_stops_the_sale(void **state)
{
    char path[FOLDER_BYTES + 32];
    sqlite3 *database;
    (void)state;
    start_sale(2, 20000);
    start_buying();
    buy_until_more(GO_ON_ORDERS);
    snprintf(path, sizeof path, "%s/doorbuster.db", test.server.data);
    assert_int_equal(sqlite3_open(path, &database), SQLITE_OK);
    sqlite3_busy_timeout(database, 5000);
    assert_int_equal(sqlite3_exec(database, "BEGIN IMMEDIATE", NULL, NULL, NULL), SQLITE_OK);
    expect_nothing_confirmed_for(2700);
    int64_t reserved = server_fixture_orders_given(&test.server);
    buy_for(1000);
    assert_int_equal(server_fixture_orders_given(&test.server), reserved);
    assert_int_equal(sqlite3_exec(database, "COMMIT", NULL, NULL, NULL), SQLITE_OK);
    sqlite3_close(database);
    buy_until_more(GO_ON_ORDERS);
    assert_int_equal(test.ledger.broken, 0);
    end_sale();
}

/* --- orderly ways to go
 * ------------------------------------------------------------------------------------------------------------------------
 */
static void test_sigterm_in_mid_sale(void **state)
{
    (void)state;
    for (unsigned round = 0; round < 3; round++) {
        start_sale(1 + round, 20000);
        start_buying();
        buy_until_more(GO_ON_ORDERS);
        buy_for((int)random_below(&test.random, 50));
        kill(test.server.pid, SIGTERM);
        /* Those on their way get an answer; who comes again is turned away. */
        test.selling = false;
        assert_true(crowd_finish(test.crowd, PATIENCE_MS));
        crowd_free(&test.crowd);
        server_fixture_stop(&test.server);
        assert_int_equal(test.ledger.unavailable, 0);
        check_books();
    }
}

static void test_sighup_replaces_the_workers(void **state)
{
    pid_t before[2], after[2];
    char title[32];
    (void)state;
    start_sale(2, 20000);
    start_buying();
    buy_until_more(GO_ON_ORDERS);
    for (unsigned i = 0; i < 2; i++) {
        snprintf(title, sizeof title, "doorbuster: worker %u", i);
        before[i] = server_fixture_child(&test.server, title);
    }
    kill(test.server.pid, SIGHUP);
    int64_t deadline = deadline_in(PATIENCE_MS);
    while (!server_fixture_logged(&test.server, "all workers replaced")) {
        assert_true(now_us() < deadline);
        buy_for(20);
    }
    for (unsigned i = 0; i < 2; i++) {
        snprintf(title, sizeof title, "doorbuster: worker %u", i);
        while (server_fixture_find(&test.server, title, after, 2) !=
               1) { /* the old one finishes what it holds */
            assert_true(now_us() < deadline);
            buy_for(20);
        }
        assert_int_not_equal(after[0], before[i]);
    }
    buy_until_more(GO_ON_ORDERS);
    assert_int_equal(server_fixture_metric(&test.server, "process_restarts"), 0);
    assert_int_equal(test.ledger.unavailable, 0);
    assert_int_equal(test.ledger.broken, 0); /* no request went without its answer */
    end_sale();
}

/* The successor of a rolling restart is killed: its predecessor still serves, and it gets another one. There
 * must not be a worker too many afterwards. */
static pid_t find_successor(const pid_t *before, size_t count)
{
    pid_t now[SERVER_CHILDREN_MAX];
    size_t found = server_fixture_find(&test.server, "doorbuster: worker", now, SERVER_CHILDREN_MAX);
    for (size_t i = 0; i < found; i++) {
        bool is_new = true;
        for (size_t j = 0; j < count; j++) {
            is_new = is_new && now[i] != before[j];
        }
        if (is_new) {
            return now[i];
        }
    }
    return 0;
}

static bool has_one_of_each_worker(unsigned workers)
{
    pid_t pids[SERVER_CHILDREN_MAX];
    char title[32];
    bool each =
        server_fixture_children(&test.server, pids, SERVER_CHILDREN_MAX) == server_fixture_family(workers);
    for (unsigned i = 0; each && i < workers; i++) {
        snprintf(title, sizeof title, "doorbuster: worker %u", i);
        each = server_fixture_find(&test.server, title, pids, SERVER_CHILDREN_MAX) == 1;
    }
    return each;
}

static void test_a_killed_successor_leaves_no_worker_too_many(void **state)
{
    pid_t before[2], successor;
    char title[32];
    (void)state;
    start_sale(2, 20000);
    start_buying();
    buy_until_more(GO_ON_ORDERS);
    for (unsigned i = 0; i < 2; i++) {
        snprintf(title, sizeof title, "doorbuster: worker %u", i);
        before[i] = server_fixture_child(&test.server, title);
    }
    int64_t deadline = deadline_in(PATIENCE_MS);
    test.server.bug_lines_allowed = true; /* "left by a signal" */
    kill(test.server.pid, SIGHUP);
    while ((successor = find_successor(before, 2)) == 0) {
        crowd_step(test.crowd, 0);
        assert_true(now_us() < deadline);
    }
    assert_int_equal(kill(successor, SIGKILL), 0);
    while (!server_fixture_logged(&test.server, "all workers replaced") || !has_one_of_each_worker(2)) {
        buy_for(20);
        assert_true(now_us() < deadline);
    }
    buy_until_more(GO_ON_ORDERS);
    assert_true(has_one_of_each_worker(2));
    assert_int_equal(test.ledger.unavailable, 0);
    assert_false(server_fixture_logged(&test.server, "doorbuster: bug:"));
    assert_false(server_fixture_logged(&test.server, "Sanitizer"));
    end_sale();
}

/* --- a log and a store that are not what the recorder left
 * -------------------------------------------------------------------------------- */
/* Somebody writes into the log. The sale goes on behind it. */
static void test_a_foreign_log_entry_does_not_stop_the_sale(void **state)
{
    (void)state;
    start_sale(2, 20000);
    start_buying();
    for (unsigned i = 0; i < 3; i++) {
        buy_until_more(GO_ON_ORDERS);
        redisContext *redis = server_fixture_redis(&test.server);
        redisReply *epoch = redis_ask(redis, "HGET {doorbuster}:head epoch");
        assert_non_null(epoch);
        redisReply *entry = redis_ask(redis, "XADD {doorbuster}:log %s-* foo bar", epoch->str);
        assert_non_null(entry);
        freeReplyObject(entry);
        freeReplyObject(epoch);
        redisFree(redis);
    }
    buy_until_more(GO_ON_ORDERS);
    assert_int_equal(test.ledger.unavailable + test.ledger.broken, 0);
    end_sale();
}

static const char *const store_suffixes[] = {"", "-wal", "-shm"};
#define STORE_FILES (sizeof store_suffixes / sizeof store_suffixes[0])

static void store_path(const char *suffix, const char *more, char out[2 * FOLDER_BYTES])
{
    snprintf(out, 2 * (size_t)FOLDER_BYTES, "%s/doorbuster.db%s%s", test.server.data, suffix, more);
}

static void delete_store(void)
{
    char path[2 * FOLDER_BYTES];
    for (size_t i = 0; i < STORE_FILES; i++) {
        store_path(store_suffixes[i], "", path);
        assert_true(unlink(path) == 0 || errno == ENOENT);
    }
}

/* Copies the files of the store that are there; the server does not run. */
static void copy_store(const char *from_more, const char *to_more)
{
    char path[2 * FOLDER_BYTES], bytes[65536];
    for (size_t i = 0; i < STORE_FILES; i++) {
        store_path(store_suffixes[i], from_more, path);
        FILE *from = fopen(path, "rb");
        if (from == NULL) {
            assert_true(i > 0 && errno == ENOENT);
            continue;
        }
        store_path(store_suffixes[i], to_more, path);
        FILE *to = fopen(path, "wb");
        assert_non_null(to);
        size_t count;
        while ((count = fread(bytes, 1, sizeof bytes, from)) > 0) {
            assert_int_equal(fwrite(bytes, 1, count, to), count);
        }
        assert_int_equal(fclose(to), 0);
        fclose(from);
    }
}

static int64_t stock_in_redis(int64_t product)
{
    redisContext *redis = server_fixture_redis(&test.server);
    redisReply *reply = redis_ask(redis, "HGET {doorbuster}:product:%lld stock", (long long)product);
    assert_non_null(reply);
    assert_int_equal(reply->type, REDIS_REPLY_STRING);
    int64_t stock = strtoll(reply->str, NULL, 10);
    freeReplyObject(reply);
    redisFree(redis);
    return stock;
}

/* Nobody is buying: what Redis has is what the store has. */
static void expect_redis_is_store(void)
{
    struct store *store = read_store();
    struct store_product product;
    for (size_t i = 0; i < PRODUCTS; i++) {
        int64_t deadline = deadline_in(PATIENCE_MS), in_redis;
        do {
            in_redis = stock_in_redis(test.products[i]);
            assert_int_equal(store_find_product(store, test.products[i], &product), STORE_OK);
        } while (product.stock != in_redis && wait_a_moment(deadline));
        assert_int_equal(product.stock, in_redis);
        assert_int_equal(product.sold + product.stock, test.stocks[i]);
    }
    store_close(&store);
}

/* The store comes from a copy of a run before: the epoch in it is below the log's. */
static void test_an_older_store_goes_on_selling(void **state)
{
    (void)state;
    start_sale(2, 20000);
    start_buying();
    buy_until_more(GO_ON_ORDERS);
    stop_buying();
    server_fixture_stop(&test.server);
    copy_store("", ".copy");
    server_fixture_start(&test.server, 2, NULL, NULL);
    start_buying();
    buy_until_more(GO_ON_ORDERS);
    kill_child("doorbuster: recorder"); /* one more epoch */
    buy_until_more(GO_ON_ORDERS);
    stop_buying();
    server_fixture_stop(&test.server);
    delete_store();
    copy_store(".copy", "");
    server_fixture_start(&test.server, 2, NULL, NULL);
    expect_redis_is_store();
    start_buying();
    buy_until_more(GO_ON_ORDERS);
    stop_buying();
    expect_redis_is_store();
    server_fixture_verify(&test.server, 0);
    server_fixture_stop(&test.server);
}

/* Redis was filled from another store: nothing in it counts. */
static void test_a_new_store_does_not_believe_the_old_redis(void **state)
{
    (void)state;
    start_sale(2, 20000);
    start_buying();
    buy_until_more(GO_ON_ORDERS);
    stop_buying();
    server_fixture_stop(&test.server);
    delete_store();
    start_sale(2, 20000); /* the same product ids, other stocks */
    expect_redis_is_store();
    for (size_t i = 0; i < PRODUCTS; i++) {
        assert_int_equal(stock_in_redis(test.products[i]), test.stocks[i]);
    }
    start_buying();
    buy_until_more(GO_ON_ORDERS);
    end_sale();
}

/* --- the tests
 * ------------------------------------------------------------------------------------------------------------------------------------
 */
static int setup(void **state)
{
    (void)state;
    server_fixture_begin(&test.server);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    if (test.crowd != NULL) {
        crowd_free(&test.crowd);
    }
    ledger_free(&test.ledger);
    server_fixture_end(&test.server);
    return 0;
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest both[] = {
        TEST(test_killed_workers_and_recorder_lose_nothing),
        TEST(test_killed_supervisor_takes_all_with_it),
        TEST(test_all_killed_at_once),
        TEST(test_locked_database_stops_the_sale),
        TEST(test_sigterm_in_mid_sale),
        TEST(test_sighup_replaces_the_workers),
        TEST(test_a_killed_successor_leaves_no_worker_too_many),
    };
    const struct CMUnitTest lua[] = {
        TEST(test_recorder_killed_while_it_attaches),
        TEST(test_nothing_is_confirmed_without_the_recorder),
        TEST(test_killed_redis_comes_back),
        TEST(test_flushed_redis_is_rebuilt),
        TEST(test_a_foreign_log_entry_does_not_stop_the_sale),
        TEST(test_an_older_store_goes_on_selling),
        TEST(test_a_new_store_does_not_believe_the_old_redis),
    };
    test.random = random_seed("test_kill");
    int failed = cmocka_run_group_tests(both, NULL, NULL);
    return failed + (gate_is_redlock() ? 0 : cmocka_run_group_tests(lua, NULL, NULL));
}
