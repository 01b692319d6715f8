/* Two servers' recorders on one Redis and one store, and what goes wrong while Redis is filled or when one server alone has a fault: see test_several_servers.c
 * for the rest. Real servers, a Redis of the test's own. Judged by the store: all that was confirmed is in it, once, and within each customer's limit. */
#include "testing.h"

#include "redis_fixture.h"
#include "sale_fixture.h"
#include "tool.h"

#ifdef DOORBUSTER_FAILPOINTS
#include "failpoints.h"
#endif

#include "doorbuster/json.h"

#include <inttypes.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#define RECORDER "doorbuster: recorder"
#define SERVERS 2
#define WORKERS 2
#define BUYERS 40
#define FIRST_OF_OTHER (BUYERS / 2) /* these buyers and all behind go to the second server */
#define PLENTY 10000000
#define LIMITED 100  /* units of it for each buyer */
#define EPOCHS_MAX 3 /* of one event: its own, and those of a recorder that did not know yet */
#define BUSY_US 5000000

static struct {
    struct redis_fixture redis;
    char url[FOLDER_BYTES + 64];
    struct sale_fixture sale;    /* and the first server */
    struct server_fixture other; /* the second */
    struct server_fixture *servers[SERVERS];
    const char *const *environments[SERVERS];
} test;

/* --- the two servers ------------------------------------------------------------------------------------------------------------ */
static void start_server(size_t i)
{
    struct server_fixture *server = test.servers[i];
    server->wanted_port = server->port; /* the one that its buyers know */
    server_fixture_start(server, WORKERS, LIST("--redis", test.url, "--store", test.sale.server.store_url),
                         test.environments[i]);
}

/* Its buyers go to the other one from now on, or come back. None of them may be waiting. */
static void move_buyers(size_t from, size_t to)
{
    for (size_t i = from == 0 ? 0 : FIRST_OF_OTHER; i < (from == 0 ? FIRST_OF_OTHER : BUYERS); i++) {
        crowd_move(test.sale.crowd, i, test.servers[to]->port);
    }
}

static bool records(size_t i)
{
    return server_fixture_sample(test.servers[i], "recorder_active", "") > 0;
}

static size_t await_one_recorder(void)
{
    int64_t deadline = deadline_in(SALE_PATIENCE_MS);
    while (records(0) == records(1) || sale_fixture_epoch(&test.sale) == 0) {
        assert_true(wait_a_moment(deadline));
    }
    return records(0) ? 0 : 1;
}

/* A recorder that stands still seems to record until it goes on. */
static void await_standing_by(size_t i)
{
    int64_t deadline = deadline_in(SALE_PATIENCE_MS);
    while (records(i)) {
        assert_true(wait_a_moment(deadline));
    }
}

static void await_logged(size_t server, const char *words)
{
    int64_t deadline = deadline_in(SALE_PATIENCE_MS);
    while (!server_fixture_logged(test.servers[server], words)) {
        if (!wait_a_moment(deadline)) {
            fail_msg("server %zu does not say \"%s\"", server, words);
        }
    }
}

static void begin(const char *const *environment, const char *const *other_environment)
{
    signal(SIGPIPE, SIG_IGN);
    redis_fixture_start(&test.redis, true);
    test.environments[0] = environment;
    test.environments[1] = other_environment;
    snprintf(test.url, sizeof test.url, "unix:%s", test.redis.address.path);
    sale_fixture_begin(&test.sale, WORKERS, BUYERS, test.url, environment);
    server_fixture_begin(&test.other);
    test.servers[0] = &test.sale.server;
    test.servers[1] = &test.other;
    sale_fixture_add_product(&test.sale, PLENTY, 0);
    sale_fixture_add_product(&test.sale, PLENTY, LIMITED);
    start_server(1);
    move_buyers(1, 1);
    assert_int_equal(await_one_recorder(), 0);
}

static int begin_two_servers(void **state)
{
    (void)state;
    begin(NULL, NULL);
    sale_fixture_start_buying(&test.sale);
    return 0;
}

static int end_two_servers(void **state)
{
    (void)state;
    sale_fixture_end(&test.sale);
    if (test.other.folder[0] != '\0') {
        server_fixture_end(&test.other);
    }
    redis_fixture_end(&test.redis);
    memset(&test, 0, sizeof test);
    return 0;
}

/* --- the sale ------------------------------------------------------------------------------------------------------------------- */
/* Until both servers, or the one, have confirmed something that was asked for from now on. */
static void await_sold_by(size_t first, size_t end)
{
    int64_t since_us = now_us(), deadline = deadline_in(SALE_PATIENCE_MS);
    for (bool sold = false; !sold;) {
        for (size_t i = test.sale.ledger.count; i > 0 && !sold; i--) {
            const struct ledger_entry *entry = &test.sale.ledger.entries[i - 1];
            size_t buyer = (size_t)(entry->user_id - test.sale.first_user);
            if (entry->got_us < since_us) {
                break;
            }
            sold = entry->order > 0 && entry->sent_us > since_us && buyer >= first && buyer < end;
        }
        if (!sold && !wait_a_moment(deadline)) {
            fail_msg("nothing is sold to buyers %zu to %zu: %zu confirmed, %zu unavailable, %zu broken",
                     first, end - 1, test.sale.ledger.confirmed, test.sale.ledger.unavailable,
                     test.sale.ledger.broken);
        }
    }
}

static void await_sold_by_server(size_t i)
{
    await_sold_by(i == 0 ? 0 : FIRST_OF_OTHER, i == 0 ? FIRST_OF_OTHER : BUYERS);
}

static void await_sold_by_both(void)
{
    await_sold_by_server(0);
    await_sold_by_server(1);
}

/* From `since_us` to the next epoch. */
static int64_t await_epoch(uint64_t before, int64_t since_us)
{
    sale_fixture_await_epoch_after(&test.sale, before);
    return now_us() - since_us;
}

static void expect_epochs(uint64_t before, uint64_t most)
{
    assert_in_range(sale_fixture_epoch(&test.sale) - before, 1, most);
}

/* Nobody attaches any more. */
static void expect_no_fight(void)
{
    uint64_t epoch = sale_fixture_epoch(&test.sale);
    sale_fixture_buy_for(&test.sale, 600);
    assert_int_equal(sale_fixture_epoch(&test.sale), epoch);
}

static void judge(void)
{
    sale_fixture_judge(&test.sale);
    sale_fixture_start_buying(&test.sale);
}

/* --- Redis ------------------------------------------------------------------------------------------------------------------------ */
static void connect_again(void)
{
    redisFree(test.sale.redis);
    test.sale.redis = redis_fixture_connect(&test.redis);
}

static void restart_redis(enum redis_persistence persistence)
{
    int64_t deadline = deadline_in(SALE_PATIENCE_MS);
    redis_fixture_launch(&test.redis, persistence);
    while (!redis_fixture_answers(&test.redis)) {
        assert_true(wait_a_moment(deadline));
    }
    connect_again();
}

static void expect_all_well(uint64_t epoch, const char *what)
{
    sale_fixture_await_epoch_after(&test.sale, epoch);
    await_sold_by_both();
    await_one_recorder();
    print_message("%s: %d epochs\n", what, (int)(sale_fixture_epoch(&test.sale) - epoch));
    expect_epochs(epoch, EPOCHS_MAX);
    expect_no_fight();
    judge();
}

static void test_redis_is_killed_and_comes_back(void **state)
{
    (void)state;
    uint64_t epoch = sale_fixture_epoch(&test.sale);
    redis_fixture_kill(&test.redis);
    restart_redis(REDIS_AOF_ALWAYS);
    expect_all_well(epoch, "Redis comes back");
}

static void test_redis_comes_back_without_its_data(void **state)
{
    (void)state;
    uint64_t epoch = sale_fixture_epoch(&test.sale);
    redis_fixture_kill(&test.redis);
    restart_redis(REDIS_NOTHING_KEPT);
    expect_all_well(epoch, "Redis comes back empty");
}

static void test_redis_is_flushed(void **state)
{
    (void)state;
    for (int i = 0; i < 2; i++) {
        uint64_t epoch = sale_fixture_epoch(&test.sale);
        redis_do(test.sale.redis, "FLUSHALL"); /* the lease is gone too */
        expect_all_well(epoch, "Redis is flushed");
    }
}

/* --- the end of a test ---------------------------------------------------------------------------------------------------------------- */
static void test_both_leave_as_they_should(void **state)
{
    (void)state;
    sale_fixture_judge(&test.sale);
    server_fixture_stop(test.servers[1]);
    server_fixture_stop(test.servers[0]);
}

/* --- who should not be there ------------------------------------------------------------------------------------------------------- */
static void test_another_secret_is_warned_of(void **state)
{
    (void)state;
    sale_fixture_stop_buying(&test.sale);
    server_fixture_stop(test.servers[1]);
    int64_t deadline = deadline_in(SALE_PATIENCE_MS);
    while (!records(0)) {
        assert_true(wait_a_moment(deadline));
    }
    test.environments[1] = LIST("JWT_SECRET_KEY=a secret that the other server does not know of");
    start_server(1);
    await_logged(1, "signs tokens with another key");
    await_logged(1, "the same JWT_SECRET_KEY");
    test_both_leave_as_they_should(state);
}

/* --- who does not know that it is not its turn ---------------------------------------------------------------------------------------- */
#ifdef DOORBUSTER_FAILPOINTS
static struct failpoint_page *failpoints;

static char failpoints_folder[FOLDER_BYTES];

static void begin_with_failpoints_in(bool both)
{
    static char variable[FOLDER_BYTES + 64];
    static const char *environment[] = {variable, NULL};
    char path[FOLDER_BYTES + 32];
    folder_make(failpoints_folder);
    snprintf(path, sizeof path, "%s/failpoints", failpoints_folder);
    snprintf(variable, sizeof variable, "DOORBUSTER_FAILPOINT_FILE=%s", path);
    failpoints = failpoints_file_make(path);
    begin(environment, both ? environment : NULL);
    sale_fixture_start_buying(&test.sale);
}

static int begin_with_failpoints(void **state)
{
    (void)state;
    begin_with_failpoints_in(true);
    return 0;
}

static int begin_with_failpoints_in_the_first(void **state)
{
    (void)state;
    begin_with_failpoints_in(false);
    return 0;
}

static int end_with_failpoints(void **state)
{
    if (failpoints != NULL) {
        failpoints_file_close(&failpoints);
        folder_remove(failpoints_folder);
    }
    return end_two_servers(state);
}

static void test_two_fill_redis_at_once(void **state)
{
    (void)state;
    failpoints_arm(failpoints, "leading.ignore:error~2500");
    for (int i = 0; i < 5; i++) {
        redis_do(test.sale.redis, "FLUSHALL");
        sale_fixture_buy_for(&test.sale, 400);
    }
    failpoints_disarm(failpoints);
    await_sold_by_both();
    await_one_recorder();
    expect_no_fight();
    judge();
}

static bool is_stopped(pid_t pid)
{
    char path[64], state = '?';
    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    FILE *file = fopen(path, "r");
    if (file == NULL || fscanf(file, "%*d (%*[^)]) %c", &state) != 1) {
        state = '?';
    }
    if (file != NULL) {
        fclose(file);
    }
    return state == 'T';
}

/* Stopped in the middle of filling Redis, it goes on when the other has filled it and sells. */
static void test_a_recorder_that_stood_still_while_it_filled_redis(void **state)
{
    pid_t recorders[SERVERS];
    (void)state;
    for (size_t i = 0; i < SERVERS; i++) {
        recorders[i] = server_fixture_child(test.servers[i], RECORDER);
    }
    failpoints_arm(failpoints, "attach.wiped:stop");
    redis_do(test.sale.redis, "FLUSHALL"); /* the lease too: whoever asks first has it */
    int64_t deadline = deadline_in(SALE_PATIENCE_MS);
    while (!is_stopped(recorders[0]) && !is_stopped(recorders[1])) {
        assert_true(wait_a_moment(deadline));
    }
    size_t stopped = is_stopped(recorders[0]) ? 0 : 1;
    await_sold_by_both();
    assert_true(records(1 - stopped));
    uint64_t epoch = sale_fixture_epoch(&test.sale);
    await_logged(1 - stopped, "closed the connection to Redis of another recorder");
    assert_int_equal(kill(recorders[stopped], SIGCONT), 0);
    await_standing_by(stopped);
    await_sold_by_both();
    assert_int_equal(sale_fixture_epoch(&test.sale), epoch);
    judge();
    test_both_leave_as_they_should(state);
}

/* It closes the gate and lets go; the other one's store works. */
static void test_the_store_of_who_records_fails(void **state)
{
    (void)state;
    uint64_t epoch = sale_fixture_epoch(&test.sale);
    assert_true(records(0));
    int64_t since_us = now_us();
    failpoints_arm(failpoints, "vfs.write:error~3000");
    int64_t took_us = await_epoch(epoch, since_us);
    await_sold_by_both();
    print_message("a store fails: the other has attached after %d ms\n", (int)(took_us / 1000));
    assert_in_range(took_us, 0, BUSY_US);
    assert_true(records(1));
    assert_false(records(0));
    assert_true(server_fixture_metric(test.servers[0], "recorder_store_failures") > 0);
    expect_epochs(epoch, EPOCHS_MAX);
    failpoints_disarm(failpoints);
    expect_no_fight();
    judge();
    test_both_leave_as_they_should(state);
}
#endif

/* --- the tests ----------------------------------------------------------------------------------------------------------------------- */
int main(void)
{
    const struct CMUnitTest one_after_the_other[] = {
        cmocka_unit_test(test_redis_is_killed_and_comes_back),
        cmocka_unit_test(test_redis_is_flushed),
        cmocka_unit_test(test_redis_comes_back_without_its_data),
        cmocka_unit_test(test_another_secret_is_warned_of),
    };
    int failed = cmocka_run_group_tests(one_after_the_other, begin_two_servers, end_two_servers);
#ifdef DOORBUSTER_FAILPOINTS
    const struct CMUnitTest filling[] = {
        cmocka_unit_test(test_two_fill_redis_at_once),
        cmocka_unit_test(test_a_recorder_that_stood_still_while_it_filled_redis),
    };
    const struct CMUnitTest failing[] = {
        cmocka_unit_test(test_the_store_of_who_records_fails),
    };
    failed += cmocka_run_group_tests(filling, begin_with_failpoints, end_with_failpoints);
    failed += cmocka_run_group_tests(failing, begin_with_failpoints_in_the_first, end_with_failpoints);
#endif
    return failed;
}
