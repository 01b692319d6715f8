/* What a service manager is told (notify.c), over a socket on a path and in the abstract namespace, and by nobody's leave over none. */
#include "testing.h"

#include "folder.h"
#include "notify.h"
#include "service_manager.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define QUIET_MS 30 /* what was told is there already */

static struct {
    char folder[FOLDER_BYTES];
    struct service_manager manager;
    struct notify notify;
} test;

static void begin(const char *name)
{
    service_manager_begin(&test.manager, name);
    setenv("NOTIFY_SOCKET", name, 1);
    notify_open(&test.notify);
    assert_true(test.notify.fd >= 0);
}

static void expect(const char *text)
{
    char heard[256];
    assert_true(service_manager_hear(&test.manager, heard, sizeof heard, 2000));
    assert_string_equal(heard, text);
}

static void test_a_socket_on_a_path(void **state)
{
    char path[FOLDER_BYTES + 16];
    (void)state;
    snprintf(path, sizeof path, "%s/notify", test.folder);
    begin(path);
    notify_tell(&test.notify, "READY=1");
    expect("READY=1");
    notify_reloading(&test.notify, 1234567);
    expect("RELOADING=1\nMONOTONIC_USEC=1234567");
}

static void test_an_abstract_socket(void **state)
{
    char name[64];
    (void)state;
    snprintf(name, sizeof name, "@doorbuster-test-%d", (int)getpid());
    begin(name);
    notify_tell(&test.notify, "%s=%d", "STOPPING", 1);
    expect("STOPPING=1");
}

static void test_a_status_is_told_once(void **state)
{
    char heard[256], path[FOLDER_BYTES + 16];
    (void)state;
    snprintf(path, sizeof path, "%s/notify", test.folder);
    begin(path);
    notify_status(&test.notify, "2 of 2 workers ready");
    assert_false(service_manager_hear(&test.manager, heard, sizeof heard, QUIET_MS));
    assert_string_equal(test.manager.status, "2 of 2 workers ready");
    test.manager.status[0] = '\0';
    notify_status(&test.notify, "2 of 2 workers ready");
    assert_false(service_manager_hear(&test.manager, heard, sizeof heard, QUIET_MS));
    assert_string_equal(test.manager.status, "");
}

static void test_the_watchdog_is_fed_at_half_of_its_time(void **state)
{
    char heard[256], path[FOLDER_BYTES + 16];
    (void)state;
    setenv("WATCHDOG_USEC", "30000000", 1);
    snprintf(path, sizeof path, "%s/notify", test.folder);
    begin(path);
    assert_int_equal(test.notify.watchdog_us, 30000000);
    int64_t now = 1000000000;
    for (int i = 0; i <= 60; i++) { /* seconds */
        notify_feed_watchdog(&test.notify, now + i * 1000000);
    }
    assert_false(service_manager_hear(&test.manager, heard, sizeof heard, QUIET_MS));
    assert_int_equal(test.manager.watchdogs, 5); /* at 0, 15, 30, 45, 60 */
}

static void test_another_process_s_watchdog_is_not_ours(void **state)
{
    char path[FOLDER_BYTES + 16];
    (void)state;
    setenv("WATCHDOG_USEC", "30000000", 1);
    setenv("WATCHDOG_PID", "1", 1);
    snprintf(path, sizeof path, "%s/notify", test.folder);
    begin(path);
    assert_int_equal(test.notify.watchdog_us, 0);
}

static void test_without_a_manager_nothing_is_told(void **state)
{
    (void)state;
    setenv("WATCHDOG_USEC", "30000000", 1);
    notify_open(&test.notify);
    assert_int_equal(test.notify.fd, -1);
    assert_int_equal(test.notify.watchdog_us, 0);
    notify_tell(&test.notify, "READY=1");
    setenv("NOTIFY_SOCKET", "no/socket", 1);
    notify_open(&test.notify);
    assert_int_equal(test.notify.fd, -1);
}

static int setup(void **state)
{
    (void)state;
    notify_forget();
    assert_null(getenv("NOTIFY_SOCKET"));
    assert_null(getenv("WATCHDOG_USEC"));
    folder_make(test.folder);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    service_manager_end(&test.manager);
    if (test.notify.fd > 0) {
        close(test.notify.fd);
    }
    test.notify.fd = -1;
    folder_remove(test.folder);
    return 0;
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_a_socket_on_a_path),
        TEST(test_an_abstract_socket),
        TEST(test_a_status_is_told_once),
        TEST(test_the_watchdog_is_fed_at_half_of_its_time),
        TEST(test_another_process_s_watchdog_is_not_ours),
        TEST(test_without_a_manager_nothing_is_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
