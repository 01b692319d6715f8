/* Several servers sell from one store through one Redis. One records; when it is killed, stopped, cut off or asked to leave another goes on, and nothing is
 * lost, sold twice or recorded twice. Real servers, real Redis; judged by the store.
 *
 * All buyers are of one sale: one half asks the first server, the other the second. The first records when a test begins. */
#include "testing.h"

#include "proxy.h"
#include "redis_fixture.h"
#include "sale_fixture.h"
#include "tool.h"

#ifdef DOORBUSTER_FAILPOINTS
#include "failpoints.h"
#endif

#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define RECORDER "doorbuster: recorder"
#define BUYERS 24
#define WORKERS 2
#define STOCK 1000000
#define SMALL_STOCK 700
#define TAKE_OVER_MS 2500 /* 2 s are promised; the rest is for a busy machine */
#define HAND_OVER_MS 1000
#define PATIENCE_MS 10000
#define SETTLED_US 700000
#define EVERYTHING 100000
#define URL_BYTES (FOLDER_BYTES + 64)

static struct sale_fixture sale; /* with the first server, whose store it is */
static struct server_fixture second;
static struct redis_fixture redis;
static struct proxy proxy; /* between the first server and Redis, if it runs */
static char url[URL_BYTES], first_url[URL_BYTES];

/* --- two servers --------------------------------------------------------------------------------------------------------- */
static bool records(const struct server_fixture *server)
{
    return server_fixture_sample(server, "recorder_active", "") > 0;
}

static bool folder_is_copied; /* the second's data folder is a copy of the first's */

static void copy_id(void)
{
    char from[URL_BYTES], to[URL_BYTES];
    snprintf(from, sizeof from, "%s/server.id", sale.server.data);
    snprintf(to, sizeof to, "%s/server.id", second.data);
    assert_int_equal(mkdir(second.data, 0700), 0);
    char *id = file_read(from);
    FILE *file = fopen(to, "w");
    assert_non_null(file);
    assert_true(fputs(id, file) >= 0);
    assert_int_equal(fclose(file), 0);
    free(id);
}

static void start_second(const char *const *environment)
{
    server_fixture_begin(&second);
    if (folder_is_copied) {
        copy_id();
    }
    memcpy(second.store_url, sale.server.store_url, sizeof second.store_url);
    if (store_fixture_is_postgres()) { /* a second store of its own was made ready for it */
        setenv("DATABASE_URL", sale.server.store_url, 1);
    }
    server_fixture_start(&second, WORKERS, LIST("--redis", url, "--store", second.store_url), environment);
}

static void start_redis(void)
{
    redis_fixture_start(&redis, false);
    snprintf(url, sizeof url, "unix:%s", redis.address.path);
    snprintf(first_url, sizeof first_url, "%s", url);
}

static void begin_servers(const char *const *first_environment, const char *const *second_environment)
{
    sale_fixture_begin(&sale, WORKERS, BUYERS, first_url, first_environment);
    start_second(second_environment);
    for (size_t i = 1; i < BUYERS; i += 2) {
        crowd_move(sale.crowd, i, second.port);
    }
}

static double confirmed_by(const struct server_fixture *server)
{
    return server_fixture_sample(server, "purchases_total", "outcome=\"confirmed\"");
}

static void await_more_confirmed_by(const struct server_fixture *server, const char *what)
{
    double before = confirmed_by(server);
    int64_t deadline = deadline_in(PATIENCE_MS);
    while (confirmed_by(server) <= before) {
        if (!wait_a_moment(deadline)) {
            fail_msg("%s: one of the servers confirms nothing", what);
        }
    }
}

static void expect_both_sell(const char *what)
{
    await_more_confirmed_by(&sale.server, what);
    await_more_confirmed_by(&second, what);
}

static void begin_selling(void)
{
    assert_int_equal(records(&sale.server), !folder_is_copied);
    assert_int_equal(records(&second), folder_is_copied);
    sale_fixture_add_product(&sale, STOCK, 0);
    sale_fixture_add_product(&sale, STOCK, 0);
    sale_fixture_start_buying(&sale);
    sale_fixture_expect_going_on(&sale, now_us(), "at the beginning");
    expect_both_sell("at the beginning");
}

static void send_all_to(const struct server_fixture *server)
{
    for (size_t i = 0; i < BUYERS; i++) {
        sale.buyers[i].port = server->port;
    }
}

static void await_standby(const struct server_fixture *server)
{
    int64_t deadline = deadline_in(PATIENCE_MS);
    while (records(server)) {
        assert_true(wait_a_moment(deadline));
    }
}

/* One of them, and it stays so. */
static void expect_one_records(void)
{
    int64_t deadline = deadline_in(PATIENCE_MS), since_us = now_us();
    uint64_t epoch = 0;
    bool first = false;
    while (epoch == 0 || now_us() - since_us < SETTLED_US) {
        bool now_first = records(&sale.server), one = now_first != records(&second);
        uint64_t now_epoch = sale_fixture_epoch(&sale);
        if (!one || now_first != first || now_epoch != epoch) {
            since_us = now_us();
            first = now_first;
            epoch = one ? now_epoch : 0;
        }
        assert_true(wait_a_moment(deadline));
    }
}

/* The longest time without a 201 for anybody, since then. */
static int64_t longest_gap_ms(int64_t since_us)
{
    int64_t longest_us = 0, last_us = since_us;
    for (size_t i = 0; i < sale.ledger.count; i++) {
        const struct ledger_entry *entry = &sale.ledger.entries[i];
        if (entry->order > 0 && entry->got_us > last_us) {
            longest_us = entry->got_us - last_us > longest_us ? entry->got_us - last_us : longest_us;
            last_us = entry->got_us;
        }
    }
    return longest_us / 1000;
}

static void expect_taken_over(const char *what, int64_t since_us, uint64_t epoch, int limit_ms)
{
    sale_fixture_await_epoch_after(&sale, epoch);
    int64_t taken_ms = (now_us() - since_us) / 1000;
    sale_fixture_expect_going_on(&sale, now_us(), what);
    assert_true(records(&second));
    print_message("%s: a new epoch after %" PRId64 " ms, nobody confirmed for %" PRId64
                  " ms; %zu confirmed, %zu unavailable, %zu broken\n",
                  what, taken_ms, longest_gap_ms(since_us), sale.ledger.confirmed, sale.ledger.unavailable,
                  sale.ledger.broken);
    assert_in_range(taken_ms, 0, limit_ms);
}

static void end_both(void)
{
    sale_fixture_judge(&sale);
    server_fixture_stop(&sale.server);
    server_fixture_stop(&second);
}

/* Whoever stands by looks at two books that move; what it sees is no reason to wake somebody. */
static void expect_no_alarm(const struct server_fixture *server)
{
    assert_true(server_fixture_sample(server, "products_differing", "") == 0);
    assert_true(server_fixture_sample(server, "recorder_lag_seconds", "") < 2);
    assert_true(server_fixture_sample(server, "recorder_silent_seconds", "") < 5);
}

/* --- nothing fails --------------------------------------------------------------------------------------------------------- */
static void test_two_servers_sell_one_stock(void **state)
{
    char ready[4096];
    (void)state;
    start_redis();
    begin_servers(NULL, NULL);
    uint64_t epoch = sale_fixture_epoch(&sale);
    int64_t product = sale_fixture_add_product(&sale, SMALL_STOCK, 0);
    sale_fixture_start_buying(&sale);
    int64_t deadline = deadline_in(SALE_PATIENCE_MS);
    while (ledger_units(&sale.ledger, product) < SMALL_STOCK) {
        assert_true(wait_a_moment(deadline));
        expect_no_alarm(&second);
    }
    sale_fixture_stop_buying(&sale);
    assert_true(confirmed_by(&sale.server) > 0 && confirmed_by(&second) > 0);
    assert_int_equal(sale.ledger.unavailable + sale.ledger.broken, 0);
    assert_int_equal(sale_fixture_epoch(&sale), epoch);
    assert_int_equal(server_fixture_get(&second, "/health/ready", ready, sizeof ready), 200);
    deadline = deadline_in(PATIENCE_MS); /* whoever stands by shows the books as the store has them */
    while (server_fixture_sample(&second, "product_units", "state=\"sold\"") != SMALL_STOCK) {
        assert_true(wait_a_moment(deadline));
    }
    assert_true(server_fixture_logged(&second, "standing by"));
    end_both();
}

/* Each takes the other for its own predecessor, once. */
static void test_a_copied_data_folder(void **state)
{
    (void)state;
    folder_is_copied = true;
    start_redis();
    begin_servers(NULL, NULL);
    begin_selling();
    expect_one_records();
    assert_true(server_fixture_logged(&sale.server, "a data folder was copied"));
    end_both();
}

/* --- the one that records is gone --------------------------------------------------------------------------------------------- */
static void kill_first_server(void)
{
    pid_t children[SERVER_CHILDREN_MAX];
    size_t count = server_fixture_children(&sale.server, children, SERVER_CHILDREN_MAX);
    server_fixture_kill_supervisor(&sale.server);
    for (size_t i = 0; i < count; i++) {
        kill(children[i], SIGKILL);
    }
    assert_true(server_fixture_wait_gone(children, count, PATIENCE_MS));
}

static void test_the_server_that_records_is_killed(void **state)
{
    (void)state;
    start_redis();
    begin_servers(NULL, NULL);
    begin_selling();
    uint64_t epoch = sale_fixture_epoch(&sale);
    send_all_to(&second);
    int64_t since_us = now_us();
    kill_first_server();
    expect_taken_over("killed", since_us, epoch, TAKE_OVER_MS);
    epoch = sale_fixture_epoch(&sale);
    server_fixture_start(&sale.server, WORKERS, LIST("--redis", first_url), NULL); /* and comes back */
    expect_one_records();
    assert_true(records(&second));
    assert_int_equal(sale_fixture_epoch(&sale), epoch);
    end_both();
}

static void test_the_server_that_records_is_asked_to_leave(void **state)
{
    (void)state;
    start_redis();
    begin_servers(NULL, NULL);
    begin_selling();
    uint64_t epoch = sale_fixture_epoch(&sale);
    send_all_to(&second);
    int64_t since_us = now_us();
    server_fixture_stop(&sale.server);
    assert_true(server_fixture_logged(&sale.server, "recording no more: the server stops"));
    expect_taken_over("asked to leave", since_us, epoch, TAKE_OVER_MS);
    assert_in_range(longest_gap_ms(since_us), 0, HAND_OVER_MS);
    assert_in_range(sale_fixture_epoch(&sale), epoch + 1, epoch + 2);
    assert_int_equal(sale.ledger.unavailable, 0);
    sale_fixture_judge(&sale);
    server_fixture_stop(&second);
}

/* A recorder that dies is succeeded by its own server's, without a wait for the lease. */
static void test_a_recorder_is_succeeded_at_home(void **state)
{
    (void)state;
    start_redis();
    begin_servers(NULL, NULL);
    begin_selling();
    uint64_t epoch = sale_fixture_epoch(&sale);
    int64_t since_us = now_us();
    sale_fixture_kill(&sale, RECORDER);
    sale_fixture_await_epoch_after(&sale, epoch);
    print_message("a recorder alone is killed: a new epoch after %" PRId64 " ms\n",
                  (now_us() - since_us) / 1000);
    sale_fixture_expect_going_on(&sale, now_us(), "its successor");
    assert_true(records(&sale.server));
    assert_false(records(&second));
    end_both();
}

/* --- the one that records does not know that its turn is over ------------------------------------------------------------------- */
static void test_a_recorder_that_stood_still_stands_by(void **state)
{
    (void)state;
    start_redis();
    begin_servers(NULL, NULL);
    begin_selling();
    sale_fixture_stop_buying(&sale); /* so that it does not hold the file's lock */
    uint64_t epoch = sale_fixture_epoch(&sale);
    sale_fixture_signal(&sale, RECORDER, SIGSTOP);
    int64_t since_us = now_us();
    sale_fixture_await_epoch_after(&sale, epoch);
    sale_fixture_start_buying(&sale);
    expect_taken_over("stood still", since_us, epoch, TAKE_OVER_MS);
    uint64_t next = sale_fixture_epoch(&sale);
    sale_fixture_signal(&sale, RECORDER, SIGCONT);
    await_standby(&sale.server);
    expect_one_records();
    assert_true(records(&second));
    assert_in_range(next, epoch + 1, epoch + 2);
    assert_in_range(sale_fixture_epoch(&sale), next, epoch + 2);
    expect_both_sell("it stands by");
    end_both();
}

/* Each makes a key of its own if nobody gives it one: who signs in at the one is a stranger at the other, and the log says why. */
static void test_keys_that_differ_are_said(void **state)
{
    (void)state;
    start_redis();
    begin_servers(NULL, LIST("JWT_SECRET_KEY=another key, of more than thirty-two bytes"));
    int64_t deadline = deadline_in(PATIENCE_MS);
    while (!server_fixture_logged(&second, "signs tokens with another key")) {
        assert_true(wait_a_moment(deadline));
    }
    assert_false(server_fixture_logged(&sale.server, "signs tokens with another key"));
    server_fixture_stop(&second);
    server_fixture_end(&second);
    start_second(NULL); /* of the same key nothing is said */
    deadline = deadline_in(PATIENCE_MS);
    while (!server_fixture_logged(&second, "standing by")) {
        assert_true(wait_a_moment(deadline));
    }
    assert_false(server_fixture_logged(&second, "signs tokens with another key"));
    server_fixture_stop(&sale.server);
    server_fixture_stop(&second);
}

/* Everything on its links goes one way only: calls arrive whose answers do not, or answers would if calls did. */
static void cut_one_way(enum proxy_action action, const char *what)
{
    char path[FOLDER_BYTES + 16];
    start_redis();
    snprintf(path, sizeof path, "%s/proxy.sock", redis.folder);
    snprintf(first_url, sizeof first_url, "unix:%s", path);
    proxy_start_for(&proxy, path, redis.address.path, "*"); /* each request has one */
    begin_servers(NULL, NULL);
    begin_selling();
    redisFree(sale.redis); /* it was behind the proxy */
    sale.redis = redis_fixture_connect(&redis);
    uint64_t epoch = sale_fixture_epoch(&sale);
    int64_t since_us = now_us();
    proxy_do(&proxy, action, 0, EVERYTHING);
    expect_taken_over(what, since_us, epoch, TAKE_OVER_MS);
    sale_fixture_buy_for(&sale, 2500); /* so that the first one tries again and again */
    proxy_calm(&proxy, 0);
    proxy_do(&proxy, PROXY_CUT, 0, 0);
    expect_one_records();
    assert_true(records(&second));
    expect_both_sell("the network is whole again");
    assert_in_range(sale_fixture_epoch(&sale), epoch + 1, epoch + 30);
    end_both();
}

static void test_redis_does_not_answer_the_one_that_records(void **state)
{
    (void)state;
    cut_one_way(PROXY_MUTE_ANSWER, "answers are lost");
}

static void test_redis_does_not_hear_the_one_that_records(void **state)
{
    (void)state;
    cut_one_way(PROXY_MUTE_CALL, "calls are lost");
}

/* --- Redis ------------------------------------------------------------------------------------------------------------------ */
static void test_redis_forgets_under_two_servers(void **state)
{
    (void)state;
    start_redis();
    begin_servers(NULL, NULL);
    begin_selling();
    for (unsigned i = 0; i < 2; i++) {
        redis_fixture_kill(&redis);
        redis_fixture_restart(&redis);
        int64_t since_us = now_us();
        sale_fixture_find_redis(&sale);
        sale_fixture_expect_going_on(&sale, since_us, "Redis forgot everything");
        print_message("Redis forgot everything: went on after %" PRId64 " ms\n",
                      (now_us() - since_us) / 1000);
        expect_both_sell("Redis forgot everything");
        expect_one_records();
    }
    end_both();
}

/* --- two at once -------------------------------------------------------------------------------------------------------------- */
#ifdef DOORBUSTER_FAILPOINTS
#define TWO_AT_ONCE_MS 3000
#define BOTH_LEAD "leading.ignore:error~3000,attach.beside:error~3000"

static double recorded_by(const struct server_fixture *server)
{
    return server_fixture_sample(server, "recorder_batch_orders_sum", "");
}

/* Both believe for some seconds that it is their turn, and neither closes the other's connection. */
static void test_two_record_at_once(void **state)
{
    struct failpoint_page *files[2];
    char paths[2][URL_BYTES], variables[2][URL_BYTES + 64];
    (void)state;
    start_redis();
    for (size_t i = 0; i < 2; i++) {
        snprintf(paths[i], sizeof paths[i], "%s/failpoints%zu", redis.folder, i);
        snprintf(variables[i], sizeof variables[i], "DOORBUSTER_FAILPOINT_FILE=%s", paths[i]);
        files[i] = failpoints_file_make(paths[i]);
    }
    begin_servers(LIST(variables[0]), LIST(variables[1]));
    begin_selling();
    double before = recorded_by(&sale.server);
    assert_true(before > 0 && recorded_by(&second) == 0);
    for (size_t i = 0; i < 2; i++) {
        failpoints_arm(files[i], BOTH_LEAD);
    }
    int64_t deadline = deadline_in(TWO_AT_ONCE_MS);
    bool both = false, both_have_recorded = false;
    do {
        both = both || (records(&sale.server) && records(&second));
        both_have_recorded =
            both_have_recorded || (recorded_by(&sale.server) > before && recorded_by(&second) > 0);
    } while (wait_a_moment(deadline));
    assert_true(both && both_have_recorded);
    int64_t since_us = now_us();
    for (size_t i = 0; i < 2; i++) {
        failpoints_file_close(&files[i]);
    }
    sale_fixture_expect_going_on(&sale, since_us, "two recorded at once");
    print_message("two at once: %g and %g orders recorded; %zu confirmed, %zu unavailable; epoch %" PRIu64
                  "\n",
                  recorded_by(&sale.server), recorded_by(&second), sale.ledger.confirmed,
                  sale.ledger.unavailable, sale_fixture_epoch(&sale));
    expect_one_records();
    expect_both_sell("two recorded at once");
    sale_fixture_stop_buying(&sale);
    assert_int_equal(recorded_by(&sale.server) + recorded_by(&second), sale_fixture_orders_given(&sale));
    end_both();
}
#endif

/* --- a Redis that writes no more
 * ------------------------------------------------------------------------------------------------------- */
static uint64_t epoch_in_store(void)
{
    struct store *store;
    struct store_position position;
    char error[512];
    assert_int_equal(store_open(&store, sale.server.store_url, STORE_READER, error, sizeof error), STORE_OK);
    assert_int_equal(store_position(store, &position), STORE_OK);
    store_close(&store);
    return position.epoch;
}

/* An old master without its replicas: the epoch in the store is that of the server at the new one. */
static void test_whose_redis_writes_no_more_leaves_the_epoch_alone(void **state)
{
    (void)state;
    start_redis();
    sale_fixture_begin(&sale, WORKERS, BUYERS, first_url, NULL);
    sale_fixture_add_product(&sale, STOCK, 0);
    redis_do(sale.redis, "CONFIG SET min-replicas-to-write 1");
    redis_do(sale.redis, "CLIENT KILL TYPE normal SKIPME yes"); /* so that it would attach */
    int64_t deadline = deadline_in(PATIENCE_MS);
    while (!server_fixture_logged(&sale.server, "asking whose turn it is to record: NOREPLICAS")) {
        assert_true(wait_a_moment(deadline));
    }
    uint64_t epoch = epoch_in_store();
    sale_fixture_buy_for(&sale, 700);
    assert_int_equal(epoch_in_store(), epoch);
    redis_do(sale.redis, "CONFIG SET min-replicas-to-write 0");
    sale_fixture_start_buying(&sale);
    sale_fixture_expect_going_on(&sale, now_us(), "Redis writes again");
    sale_fixture_end_sale(&sale, 0);
}

/* --- the tests
 * ------------------------------------------------------------------------------------------------------------------------- */
static int teardown(void **state)
{
    (void)state;
    sale_fixture_end(&sale);
    if (second.folder[0] != '\0') {
        server_fixture_end(&second);
        second.folder[0] = '\0';
    }
    proxy_end(&proxy);
    redis_fixture_end(&redis);
    folder_is_copied = false;
    return 0;
}

#define TEST(name) cmocka_unit_test_teardown(name, teardown)

int main(void)
{
    const struct CMUnitTest of_the_store[] = {
        TEST(test_the_server_that_records_is_killed),
        TEST(test_the_server_that_records_is_asked_to_leave),
        TEST(test_a_recorder_that_stood_still_stands_by),
#ifdef DOORBUSTER_FAILPOINTS
        TEST(test_two_record_at_once),
#endif
    };
    const struct CMUnitTest others[] = {
        TEST(test_two_servers_sell_one_stock),
        TEST(test_a_copied_data_folder),
        TEST(test_keys_that_differ_are_said),
        TEST(test_a_recorder_is_succeeded_at_home),
        TEST(test_redis_does_not_answer_the_one_that_records),
        TEST(test_redis_does_not_hear_the_one_that_records),
        TEST(test_redis_forgets_under_two_servers),
        TEST(test_whose_redis_writes_no_more_leaves_the_epoch_alone),
    };
    signal(SIGPIPE, SIG_IGN);
    int failed = cmocka_run_group_tests(of_the_store, NULL, NULL);
    return store_fixture_is_postgres() ? failed : failed + cmocka_run_group_tests(others, NULL, NULL);
}
