/* Two servers on one Redis and one store. One records, the other stands by; then the one that records leaves, is killed, stands still, loses its link to
 * Redis in one direction, or does not know that it is not its turn. Real servers, a Redis of the test's own; each server behind a proxy of its own.
 * Judged by the store: all that was confirmed is in it, once. */
#include "testing.h"

#include "proxy.h"
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
#define LIMITED 100 /* units of it for each buyer */
#define ENOUGH 100  /* purchases that show that a sale goes on */
#define MANY 1000000000
#define EPOCHS_MAX 3 /* of one event: its own, and those of a recorder that did not know yet */
/* From the end of one that says nothing more: the lease's 1.5 s, a look at it, an attach. On a machine that is busy with other things a try may
 * take longer. */
#define TAKE_OVER_US 2000000
#define TRIES 3
#define BUSY_US 5000000
#define HAND_OVER_US 1000000

static struct {
    struct redis_fixture redis;
    struct proxy proxies[SERVERS];
    char urls[SERVERS][FOLDER_BYTES + 64];
    struct sale_fixture sale;    /* and the first server */
    struct server_fixture other; /* the second */
    struct server_fixture *servers[SERVERS];
    const char *const *environments[SERVERS];
} test;

/* --- the two servers ------------------------------------------------------------------------------------------------------------ */
static void start_proxy(size_t i)
{
    char path[FOLDER_BYTES + 32];
    snprintf(path, sizeof path, "%s/link%zu.sock", test.redis.folder, i);
    snprintf(test.urls[i], sizeof test.urls[i], "unix:%s", path);
    proxy_start_for(&test.proxies[i], path, test.redis.address.path, ""); /* every word is a call */
}

static void start_server(size_t i)
{
    struct server_fixture *server = test.servers[i];
    server->wanted_port = server->port; /* the one that its buyers know */
    server_fixture_start(server, WORKERS,
                         LIST("--redis", test.urls[i], "--store", test.sale.server.store_url),
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
    start_proxy(0);
    start_proxy(1);
    sale_fixture_begin(&test.sale, WORKERS, BUYERS, test.urls[0], environment);
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
    for (size_t i = 0; i < SERVERS; i++) {
        proxy_end(&test.proxies[i]);
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

/* The longest time in which nobody heard of a purchase, since then. */
static int64_t longest_gap_us(int64_t since_us)
{
    int64_t last_us = since_us, longest_us = 0;
    for (size_t i = 0; i < test.sale.ledger.count; i++) {
        const struct ledger_entry *entry = &test.sale.ledger.entries[i];
        if (entry->order > 0 && entry->got_us > last_us) {
            longest_us = entry->got_us - last_us > longest_us ? entry->got_us - last_us : longest_us;
            last_us = entry->got_us;
        }
    }
    return longest_us;
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

static void stop_buying_of(size_t server)
{
    test.sale.selling = false;
    for (size_t i = server == 0 ? 0 : FIRST_OF_OTHER; i < (server == 0 ? FIRST_OF_OTHER : BUYERS); i++) {
        sale_fixture_await_answer(&test.sale, i);
    }
}

static void kill_server(size_t i)
{
    pid_t children[SERVER_CHILDREN_MAX];
    size_t count = server_fixture_children(test.servers[i], children, SERVER_CHILDREN_MAX);
    server_fixture_kill_supervisor(test.servers[i]);
    for (size_t j = 0; j < count; j++) {
        kill(children[j], SIGKILL);
    }
    assert_true(server_fixture_wait_gone(children, count, SALE_PATIENCE_MS));
}

static void judge(void)
{
    sale_fixture_judge(&test.sale);
    sale_fixture_start_buying(&test.sale);
}

/* --- one after the other on the same two servers ---------------------------------------------------------------------------------- */
static bool figures_say_active(const struct server_fixture *server)
{
    char body[65536];
    assert_int_equal(server_fixture_get(server, "/api/figures", body, sizeof body), 200);
    cJSON *json = json_parse_object(body, strlen(body));
    const cJSON *recorder = cJSON_GetObjectItemCaseSensitive(json, "recorder");
    assert_true(cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(recorder, "up")));
    bool active = cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(recorder, "active"));
    cJSON_Delete(json);
    return active;
}

static void test_one_records_and_both_sell(void **state)
{
    (void)state;
    await_sold_by_both();
    assert_true(records(0));
    assert_false(records(1));
    assert_true(figures_say_active(test.servers[0]));
    assert_false(figures_say_active(test.servers[1]));
    assert_int_equal(server_fixture_get(test.servers[1], "/health/ready", NULL, 0), 200);
    sale_fixture_buy_for(&test.sale, 1000);
    assert_int_equal(server_fixture_sample(test.servers[1], "products_differing", ""), 0);
    assert_true(server_fixture_sample(test.servers[1], "recorder_silent_seconds", "") < 2);
    assert_int_equal(server_fixture_metric(test.servers[1], "recorder_attaches"), 0);
    assert_true(server_fixture_logged(test.servers[1], "records: standing by"));
    assert_false(server_fixture_logged(test.servers[1], "JWT_SECRET_KEY"));
    assert_int_equal(test.sale.ledger.unavailable + test.sale.ledger.broken, 0);
    judge();
}

/* Server 0 leaves, server 1 goes on, server 0 comes back and stands by. */
static void test_a_server_that_stops_hands_over(void **state)
{
    (void)state;
    uint64_t epoch = sale_fixture_epoch(&test.sale);
    stop_buying_of(0);
    sale_fixture_stop_buying(&test.sale);
    move_buyers(0, 1);
    sale_fixture_start_buying(&test.sale);
    await_sold_by_both();
    int64_t since_us = now_us();
    server_fixture_stop(test.servers[0]);
    await_sold_by_both();
    expect_epochs(epoch, 1);
    int64_t gap_us = longest_gap_us(since_us);
    print_message("a server stops: nobody is confirmed for %d ms\n", (int)(gap_us / 1000));
    assert_in_range(gap_us, 0, HAND_OVER_US);
    assert_int_equal(test.sale.ledger.unavailable + test.sale.ledger.broken, 0);
    assert_true(records(1));
    assert_int_equal(server_fixture_metric(test.servers[1], "recorder_turns"), 1);
    start_server(0);
    sale_fixture_stop_buying(&test.sale);
    move_buyers(0, 0);
    sale_fixture_start_buying(&test.sale);
    await_sold_by_both();
    assert_false(records(0));
    expect_epochs(epoch, 1);
    judge();
}

/* Supervisor, workers and recorder of the server that records, as if its machine had stopped. From that to the other's epoch. */
static int64_t kill_who_records(void)
{
    size_t victim = await_one_recorder(), stays = 1 - victim;
    uint64_t epoch = sale_fixture_epoch(&test.sale);
    int64_t since_us = now_us();
    kill_server(victim);
    int64_t took_us = await_epoch(epoch, since_us);
    await_sold_by_server(stays);
    print_message("a server is killed: the other has attached after %d ms, nobody was confirmed for %d ms\n",
                  (int)(took_us / 1000), (int)(longest_gap_us(since_us) / 1000));
    expect_epochs(epoch, 1);
    stop_buying_of(victim);
    sale_fixture_stop_buying(&test.sale);
    start_server(victim); /* and its folder can be asked again */
    judge();              /* what it has confirmed is there */
    await_sold_by_both();
    assert_true(records(stays));
    assert_false(records(victim));
    expect_epochs(epoch, 1);
    return took_us;
}

static void test_a_server_that_is_killed_is_succeeded(void **state)
{
    int64_t took_us = INT64_MAX;
    (void)state;
    for (int i = 0; i < TRIES && took_us > TAKE_OVER_US; i++) {
        took_us = kill_who_records();
    }
    assert_in_range(took_us, 0, TAKE_OVER_US);
}

/* With its own turn at the store's file it would stop everybody's writing, until the supervisor takes it for dead. */
static bool holds_store(void)
{
    char path[FOLDER_BYTES + 64];
    snprintf(path, sizeof path, "%s/doorbuster.db.lock", test.sale.server.data);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    assert_true(fd >= 0);
    bool held = flock(fd, LOCK_EX | LOCK_NB) != 0;
    close(fd);
    return held;
}

static void stop_outside_of_store(pid_t recorder)
{
    int64_t deadline = deadline_in(SALE_PATIENCE_MS);
    assert_int_equal(kill(recorder, SIGSTOP), 0);
    while (holds_store()) {
        assert_int_equal(kill(recorder, SIGCONT), 0);
        assert_true(wait_a_moment(deadline));
        assert_int_equal(kill(recorder, SIGSTOP), 0);
    }
}

static void test_a_recorder_that_stands_still_is_succeeded(void **state)
{
    (void)state;
    uint64_t epoch = sale_fixture_epoch(&test.sale);
    size_t stopped = await_one_recorder();
    pid_t recorder = server_fixture_child(test.servers[stopped], RECORDER);
    stop_outside_of_store(recorder);
    int64_t since_us = now_us();
    int64_t took_us = await_epoch(epoch, since_us);
    print_message("a recorder stands still: the other has attached after %d ms\n", (int)(took_us / 1000));
    assert_in_range(took_us, 0, BUSY_US);
    await_sold_by_both();
    assert_int_equal(kill(recorder, SIGCONT), 0);
    await_standing_by(stopped);
    await_sold_by_both();
    assert_int_equal(await_one_recorder(), 1 - stopped);
    expect_epochs(epoch, 1);
    expect_no_fight();
    judge();
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

/* --- one-way cuts ---------------------------------------------------------------------------------------------------------------- */
/* Between the server that records and Redis nothing comes through in one direction. */
static void cut(enum proxy_action action, const char *what)
{
    uint64_t epoch = sale_fixture_epoch(&test.sale);
    size_t cut_off = await_one_recorder(), stays = 1 - cut_off;
    int64_t since_us = now_us();
    proxy_do(&test.proxies[cut_off], action, 0, MANY);
    int64_t took_us = await_epoch(epoch, since_us);
    await_sold_by_server(stays);
    print_message("%s: the other has attached after %d ms\n", what, (int)(took_us / 1000));
    assert_in_range(took_us, 0, BUSY_US);
    await_standing_by(cut_off);
    assert_true(proxy_calm(&test.proxies[cut_off], SALE_PATIENCE_MS));
    await_sold_by_both();
    assert_int_equal(await_one_recorder(), stays);
    await_logged(cut_off, "records: standing by");
    expect_epochs(epoch, 2); /* workers in doubt may ask for one */
    judge();
}

static void test_redis_answers_do_not_arrive(void **state)
{
    (void)state;
    cut(PROXY_MUTE_ANSWER, "Redis's answers do not arrive");
}

static void test_calls_do_not_arrive_at_redis(void **state)
{
    (void)state;
    cut(PROXY_MUTE_CALL, "calls do not arrive at Redis");
}

static void test_both_leave_as_they_should(void **state)
{
    (void)state;
    sale_fixture_judge(&test.sale);
    server_fixture_stop(test.servers[1]);
    server_fixture_stop(test.servers[0]);
}

/* --- who should not be there ------------------------------------------------------------------------------------------------------- */
static void copy_server_id(const char *from, const char *to)
{
    char path[FOLDER_BYTES + 64];
    snprintf(path, sizeof path, "%s/server.id", from);
    char *id = file_read(path);
    assert_true(id[0] != '\0');
    snprintf(path, sizeof path, "%s/server.id", to);
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    fputs(id, file);
    assert_int_equal(fclose(file), 0);
    free(id);
}

static void test_a_copied_data_folder(void **state)
{
    (void)state;
    sale_fixture_stop_buying(&test.sale);
    server_fixture_stop(test.servers[1]);
    copy_server_id(test.servers[0]->data, test.servers[1]->data);
    uint64_t epoch = sale_fixture_epoch(&test.sale);
    start_server(1);
    sale_fixture_start_buying(&test.sale);
    await_sold_by_both();
    size_t stands_by = 1 - await_one_recorder();
    await_logged(stands_by, "another server has this one's id: a data folder was copied");
    expect_no_fight();
    assert_in_range(sale_fixture_epoch(&test.sale) - epoch, 0, 1);
    judge();
    test_both_leave_as_they_should(state);
}

static void test_another_secret_is_warned_of(void **state)
{
    (void)state;
    sale_fixture_stop_buying(&test.sale);
    server_fixture_stop(test.servers[1]);
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

static void record_both(const char *spec, int ms, const char *what)
{
    size_t confirmed = test.sale.ledger.confirmed;
    uint64_t epoch = sale_fixture_epoch(&test.sale);
    int64_t attaches[SERVERS];
    for (size_t i = 0; i < SERVERS; i++) {
        attaches[i] = server_fixture_metric(test.servers[i], "recorder_attaches");
    }
    failpoints_arm(failpoints, spec);
    sale_fixture_buy_for(&test.sale, ms);
    assert_true(records(0) && records(1));
    failpoints_disarm(failpoints);
    await_sold_by_both();
    await_one_recorder();
    for (size_t i = 0; i < SERVERS; i++) {
        attaches[i] = server_fixture_metric(test.servers[i], "recorder_attaches") - attaches[i];
        assert_true(attaches[i] > 1);
    }
    expect_no_fight();
    print_message("%s: %d and %d attaches, %d epochs, %zu confirmed, %zu unavailable so far\n", what,
                  (int)attaches[0], (int)attaches[1], (int)(sale_fixture_epoch(&test.sale) - epoch),
                  test.sale.ledger.confirmed - confirmed, test.sale.ledger.unavailable);
    judge();
}

static void test_two_record_at_once(void **state)
{
    (void)state;
    record_both("leading.ignore:error~2000", 2000, "two that record at once");
}

/* Each finds out by the store alone that the other is there. */
static void test_two_record_at_once_and_do_not_see_each_other(void **state)
{
    (void)state;
    record_both("leading.ignore:error~2000,attach.beside:error~2000", 2000,
                "two that record at once, side by side");
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
    const struct CMUnitTest servers[] = {
        cmocka_unit_test(test_one_records_and_both_sell),
        cmocka_unit_test(test_a_server_that_stops_hands_over),
        cmocka_unit_test(test_a_server_that_is_killed_is_succeeded),
        cmocka_unit_test(test_a_recorder_that_stands_still_is_succeeded),
        cmocka_unit_test(test_redis_is_killed_and_comes_back),
        cmocka_unit_test(test_redis_is_flushed),
        cmocka_unit_test(test_redis_answers_do_not_arrive),
        cmocka_unit_test(test_calls_do_not_arrive_at_redis),
        cmocka_unit_test(test_redis_comes_back_without_its_data),
        cmocka_unit_test(test_both_leave_as_they_should),
    };
    const struct CMUnitTest strangers[] = {
        cmocka_unit_test_setup_teardown(test_a_copied_data_folder, begin_two_servers, end_two_servers),
        cmocka_unit_test_setup_teardown(test_another_secret_is_warned_of, begin_two_servers, end_two_servers),
    };
    int failed = cmocka_run_group_tests(servers, begin_two_servers, end_two_servers);
    failed += cmocka_run_group_tests(strangers, NULL, NULL);
#ifdef DOORBUSTER_FAILPOINTS
    const struct CMUnitTest ignorant[] = {
        cmocka_unit_test(test_two_record_at_once),
        cmocka_unit_test(test_two_record_at_once_and_do_not_see_each_other),
        cmocka_unit_test(test_two_fill_redis_at_once),
        cmocka_unit_test(test_both_leave_as_they_should),
    };
    const struct CMUnitTest still[] = {
        cmocka_unit_test(test_a_recorder_that_stood_still_while_it_filled_redis),
    };
    const struct CMUnitTest failing[] = {
        cmocka_unit_test(test_the_store_of_who_records_fails),
    };
    failed += cmocka_run_group_tests(still, begin_with_failpoints, end_with_failpoints);
    failed += cmocka_run_group_tests(failing, begin_with_failpoints_in_the_first, end_with_failpoints);
    failed += cmocka_run_group_tests(ignorant, begin_with_failpoints, end_with_failpoints);
#endif
    return failed;
}
