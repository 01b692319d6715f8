/* Processes that stop turning their loop in the middle of a sale, and nobody who wakes them: SIGSTOP to a worker, the recorder or keeper, a private
 * redis-server, and to whoever is in the middle of a commit and so holds the store's lock for everybody. The supervisor takes each for dead after the hang
 * timeout, the sale goes on, the books are right. And those who wait long but lawfully are left alone. Runs on both gates. */
#include "testing.h"

#ifdef DOORBUSTER_FAILPOINTS
#include "failpoints.h"
#endif
#include "sale_fixture.h"

#include "doorbuster/json.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#define BUYERS 60
#define PLENTY 1000000
#define HANG_MS 2000
#define KILL_MS                                                                                              \
    3000 /* from the stop until there is another one: the timeout, a look, a start, on a busy machine */
#define HELD_MS 2500 /* longer than HANG_MS */
#define REDIS "redis-server"
#define FIGURES_BYTES 16384

static struct {
    struct sale_fixture sale;
    char failpoints[FOLDER_BYTES];
} test;

static int64_t hung(void)
{
    return server_fixture_metric(&test.sale.server, "processes_hung");
}

/* Until none of this title is that one, and there is one again. */
static void await_other(const char *title, pid_t old)
{
    pid_t now;
    int64_t deadline = deadline_in(HANG_MS + KILL_MS);
    while (server_fixture_find(&test.sale.server, title, &now, 1) != 1 || now == old) {
        if (!wait_a_moment(deadline)) {
            fail_msg("%s hangs, and is still there after %d ms", title, HANG_MS + KILL_MS);
        }
    }
}

static void stop_and_expect_another(const char *title)
{
    pid_t pid;
    int64_t hung_before = hung(), stopped_us = now_us();
    assert_true(server_fixture_find(&test.sale.server, title, &pid, 1) == 1);
    assert_int_equal(kill(pid, SIGSTOP), 0);
    await_other(title, pid);
    assert_true(now_us() - stopped_us > (int64_t)HANG_MS * 1000 / 2); /* and not at once */
    sale_fixture_expect_going_on(&test.sale, now_us(), title);
    /* With a timeout as short as the recorder's own patience with Redis, the recorder may be next. */
    assert_in_range(hung(), hung_before + 1, hung_before + (strcmp(title, REDIS) == 0 ? 2 : 1));
}

/* --- lawful waits ------------------------------------------------------------------------------------------------------------------------- */
/* Another program has the turn at writing: a long one of `setup`, say. */
static void hold_the_store(void)
{
    char path[FOLDER_BYTES + 64];
    snprintf(path, sizeof path, "%s/doorbuster.db.lock", test.sale.server.data);
    int fd = open(path, O_RDWR | O_CLOEXEC);
    int64_t deadline = deadline_in(SALE_PATIENCE_MS);
    assert_true(fd >= 0);
    while (flock(fd, LOCK_EX | LOCK_NB) != 0) {
        assert_true(wait_a_moment(deadline));
    }
    sale_fixture_buy_for(&test.sale, HELD_MS);
    close(fd);
    sale_fixture_expect_going_on(&test.sale, now_us(), "the store was held");
}

/* The machine stands still, or the whole group was stopped: the supervisor is the first to go on. */
static void stop_everybody(void)
{
    pid_t children[SERVER_CHILDREN_MAX];
    size_t count = server_fixture_children(&test.sale.server, children, SERVER_CHILDREN_MAX);
    assert_int_equal(kill(test.sale.server.pid, SIGSTOP), 0);
    for (size_t i = 0; i < count; i++) {
        assert_int_equal(kill(children[i], SIGSTOP), 0);
    }
    sale_fixture_buy_for(&test.sale, HELD_MS);
    assert_int_equal(kill(test.sale.server.pid, SIGCONT), 0);
    sale_fixture_buy_for(&test.sale, 300); /* it looks at them all */
    for (size_t i = 0; i < count; i++) {
        assert_int_equal(kill(children[i], SIGCONT), 0);
    }
    sale_fixture_expect_going_on(&test.sale, now_us(), "everybody was stopped");
}

static void expect_lawful_waits_to_be_no_hang(void)
{
    hold_the_store();
    stop_everybody();
    assert_int_equal(hung(), 0);
    assert_int_equal(test.sale.ledger.broken, 0);
}

/* --- hanging ------------------------------------------------------------------------------------------------------------------------------ */
#ifdef DOORBUSTER_FAILPOINTS
/* The recorder, or under the Redlock gate a worker: it has the store's lock, and nobody else can write until it is gone. */
static void stop_in_mid_commit(void)
{
    struct failpoint_page *points = failpoints_file_make(test.failpoints);
    int64_t hung_before = hung(), deadline;
    failpoints_arm(points, "store.commit:stop");
    deadline = deadline_in(SALE_PATIENCE_MS);
    while (failpoints_fired(points) == 0) {
        assert_true(wait_a_moment(deadline));
    }
    size_t confirmed = test.sale.ledger.confirmed;
    deadline = deadline_in(HANG_MS + KILL_MS);
    while (!server_fixture_logged(&test.sale.server, "taken for dead") || hung() == hung_before) {
        assert_true(wait_a_moment(deadline));
    }
    sale_fixture_expect_going_on(&test.sale, now_us(), "stopped in mid-commit");
    assert_true(test.sale.ledger.confirmed > confirmed);
    assert_int_equal(hung(), hung_before + 1);
    failpoints_file_close(&points);
}
#else
#define stop_in_mid_commit() ((void)0)
#endif

/* --- the table that people look at ---------------------------------------------------------------------------------------------------------- */
static bool is_listed(const char *name, pid_t pid, int64_t restarts)
{
    static char body[FIGURES_BYTES];
    assert_int_equal(server_fixture_get(&test.sale.server, "/api/figures", body, sizeof body), 200);
    cJSON *json = json_parse_object(body, strlen(body));
    const cJSON *one = NULL;
    bool listed = false;
    cJSON_ArrayForEach(one, cJSON_GetObjectItemCaseSensitive(json, "processes"))
    {
        if (strcmp(cJSON_GetObjectItemCaseSensitive(one, "name")->valuestring, name) == 0) {
            listed = cJSON_GetObjectItemCaseSensitive(one, "pid")->valuedouble == (double)pid &&
                     cJSON_GetObjectItemCaseSensitive(one, "restarts")->valuedouble == (double)restarts &&
                     cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(one, "up"));
        }
    }
    cJSON_Delete(json);
    return listed;
}

static void expect_listed(const char *name, const char *title, int64_t restarts)
{
    pid_t pid = server_fixture_child(&test.sale.server, title);
    int64_t deadline = deadline_in(SALE_PATIENCE_MS);
    while (!is_listed(name, pid, restarts)) {
        if (!wait_a_moment(deadline)) {
            fail_msg("the table does not have %s with pid %d and %d restarts", name, (int)pid, (int)restarts);
        }
    }
}

static void test_who_hangs_is_replaced_and_who_waits_is_not(void **state)
{
    bool redlock = gate_is_redlock();
    (void)state;
    sale_fixture_start_buying(&test.sale);
    sale_fixture_buy_for(&test.sale, 200);
    if (!redlock) { /* the same code with either gate; once is enough */
        expect_lawful_waits_to_be_no_hang();
    }
    stop_and_expect_another("doorbuster: worker 1");
    stop_and_expect_another(server_fixture_bookkeeper());
    expect_listed("worker 0", "doorbuster: worker 0", 0);
    expect_listed("worker 1", "doorbuster: worker 1", 1);
    expect_listed(redlock ? "keeper" : "recorder", server_fixture_bookkeeper(), 1);
    stop_and_expect_another(REDIS);
    stop_in_mid_commit();
    sale_fixture_judge(&test.sale);
    server_fixture_stop(&test.sale.server);
}

static int setup(void **state)
{
    static char points[FOLDER_BYTES + 32];
    const char *const environment[] = {"DOORBUSTER_HANG_TIMEOUT=2", "LOCK_TIMEOUT_SECONDS=1", points, NULL};
    (void)state;
    snprintf(test.failpoints, sizeof test.failpoints, "/tmp/doorbuster-test-hang-%d", (int)getpid());
    snprintf(points, sizeof points, "DOORBUSTER_FAILPOINT_FILE=%s", test.failpoints);
#ifdef DOORBUSTER_FAILPOINTS
    struct failpoint_page *page = failpoints_file_make(test.failpoints);
    failpoints_file_close(&page);
#endif
    sale_fixture_begin(&test.sale, 2, BUYERS, NULL, environment);
    sale_fixture_add_product(&test.sale, PLENTY, 0);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    sale_fixture_end(&test.sale);
    unlink(test.failpoints);
    return 0;
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_who_hangs_is_replaced_and_who_waits_is_not),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
