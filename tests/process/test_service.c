/* The server as a service: what the service manager is told while it starts, sells, is reloaded, breaks and stops. */
#include "testing.h"

#include "http_client.h"
#include "server_fixture.h"
#include "service_manager.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define PATIENCE_MS 20000
#define WATCHDOG_US 300000 /* so it is told every 150 ms */
#define KILLS 6            /* of the only worker; then it is away for longer than WATCHDOG_US */

static struct {
    struct server_fixture server;
    struct service_manager manager;
} test;

static void expect(const char *text)
{
    char heard[256];
    assert_true(service_manager_hear(&test.manager, heard, sizeof heard, PATIENCE_MS));
    if (strncmp(heard, text, strlen(text)) != 0) {
        fail_msg("the service manager was told \"%s\", not \"%s\"", heard, text);
    }
}

/* Nothing but states and signs of life for so long. */
static void listen_for(int ms)
{
    char heard[256];
    if (service_manager_hear(&test.manager, heard, sizeof heard, ms)) {
        fail_msg("the service manager was told \"%s\"", heard);
    }
}

static void await_status(const char *status)
{
    char heard[256];
    int64_t deadline = deadline_in(PATIENCE_MS);
    while (strcmp(test.manager.status, status) != 0) {
        assert_false(service_manager_hear(&test.manager, heard, sizeof heard, 5));
        if (!wait_a_moment(deadline)) {
            fail_msg("the state is \"%s\", not \"%s\"", test.manager.status, status);
        }
    }
}

static void test_the_service_manager_is_told(void **state)
{
    char heard[256], watchdog[64];
    long long at = 0;
    (void)state;
    snprintf(watchdog, sizeof watchdog, "WATCHDOG_USEC=%d", WATCHDOG_US);
    const char *const environment[] = {test.manager.setting, watchdog, NULL};
    server_fixture_start(&test.server, 1, NULL, environment);
    expect("READY=1");
    await_status("serving: 1 of 1 workers ready, recorder ready");

    assert_int_equal(kill(test.server.pid, SIGHUP), 0);
    int64_t asked_us = now_us();
    assert_true(service_manager_hear(&test.manager, heard, sizeof heard, PATIENCE_MS));
    assert_int_equal(sscanf(heard, "RELOADING=1\nMONOTONIC_USEC=%lld", &at), 1);
    assert_in_range(at, asked_us - 1000000, now_us());
    expect("READY=1");
    await_status("serving: 1 of 1 workers ready, recorder ready");

    assert_int_equal(kill(test.server.pid, SIGTERM), 0);
    expect("STOPPING=1\nSTATUS=");
    server_fixture_stop(&test.server);
}

/* A Redis that hangs is no reason to start everything anew; a worker that cannot be kept is. */
static void test_the_watchdog_is_fed_while_the_parts_are_there(void **state)
{
    char watchdog[64];
    pid_t redis, worker;
    (void)state;
    snprintf(watchdog, sizeof watchdog, "WATCHDOG_USEC=%d", WATCHDOG_US);
    const char *const environment[] = {test.manager.setting, watchdog, NULL};
    server_fixture_start(&test.server, 1, NULL, environment);
    expect("READY=1");
    redis = server_fixture_child(&test.server, "redis-server");
    assert_int_equal(kill(redis, SIGSTOP), 0);
    test.manager.watchdogs = 0;
    listen_for(900);
    assert_int_equal(kill(redis, SIGCONT), 0);
    assert_in_range(test.manager.watchdogs, 3, 20);

    test.manager.longest_us = 0;
    for (int i = 0; i < KILLS; i++) {
        worker = server_fixture_child(&test.server, "doorbuster: worker 0");
        assert_int_equal(kill(worker, SIGKILL), 0);
        while (kill(worker, 0) == 0) {
            listen_for(2);
        }
    }
    await_status("serving: 0 of 1 workers ready, recorder ready");
    await_status("serving: 1 of 1 workers ready, recorder ready");
    listen_for(300);
    assert_true(test.manager.longest_us > WATCHDOG_US);
    server_fixture_stop(&test.server);
}

static bool is_pending(pid_t pid, int signal_number)
{
    char path[64], line[256];
    unsigned long long pending = 0;
    bool found = false;
    snprintf(path, sizeof path, "/proc/%d/status", (int)pid);
    FILE *file = fopen(path, "r");
    assert_non_null(file);
    while (!found && fgets(line, sizeof line, file) != NULL) {
        found = sscanf(line, "ShdPnd: %llx", &pending) == 1;
    }
    fclose(file);
    assert_true(found);
    return (pending >> (signal_number - 1) & 1) != 0;
}

/* One that leaves has been told so: told again while it closes its loop it would die of the signal, before it has let go of what it holds. */
static void test_who_leaves_is_told_once(void **state)
{
    struct http_client client;
    (void)state;
    server_fixture_start(&test.server, 1, NULL, NULL);
    pid_t old = server_fixture_child(&test.server, "doorbuster: worker 0");
    assert_int_equal(http_client_open(&client, "127.0.0.1", test.server.port, PATIENCE_MS), HTTP_CLIENT_OK);
    assert_int_equal(http_client_send(&client, "GET /", 5, PATIENCE_MS, NULL), HTTP_CLIENT_OK);
    assert_int_equal(kill(test.server.pid, SIGHUP), 0);
    int64_t deadline = deadline_in(PATIENCE_MS);
    while (!server_fixture_logged(&test.server, "all workers replaced")) {
        assert_true(wait_a_moment(deadline));
    }
    while (is_pending(old, SIGTERM)) {
        assert_true(wait_a_moment(deadline));
    }
    assert_int_equal(kill(old, SIGSTOP), 0); /* so that it is still there when all are told to leave */
    assert_int_equal(kill(test.server.pid, SIGTERM), 0);
    while (!server_fixture_logged(&test.server, "worker 0 has left")) { /* its successor */
        assert_true(wait_a_moment(deadline));
    }
    bool told_again = is_pending(old, SIGTERM);
    assert_int_equal(kill(old, SIGCONT), 0);
    http_client_close(&client);
    server_fixture_stop(&test.server);
    assert_false(told_again);
}

static int setup(void **state)
{
    char path[FOLDER_BYTES + 16];
    (void)state;
    server_fixture_begin(&test.server);
    snprintf(path, sizeof path, "%s/notify", test.server.folder);
    service_manager_begin(&test.manager, path);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    service_manager_end(&test.manager);
    server_fixture_end(&test.server);
    return 0;
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_the_service_manager_is_told),
        TEST(test_the_watchdog_is_fed_while_the_parts_are_there),
        TEST(test_who_leaves_is_told_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
