/* The shared page of counters, between processes. */
#include "testing.h"

#include "doorbuster/metrics.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define PROCESSES 4
#define ADDITIONS 10000

static void test_before_a_slot_is_chosen_nothing_is_seen(void **state)
{
    struct metrics_page *page = metrics_page_new();
    (void)state;
    assert_non_null(page);
    metrics_add(METRICS_requests, 5);
    assert_int_equal(metrics_sum(page, METRICS_requests), 0);
}

static void test_processes_add_up(void **state)
{
    struct metrics_page *page = metrics_page_new();
    pid_t pids[PROCESSES];
    (void)state;
    for (int i = 0; i < PROCESSES; i++) {
        pids[i] = fork();
        assert_true(pids[i] >= 0);
        if (pids[i] == 0) {
            metrics_use_slot(i == 0   ? &page->supervisor
                             : i == 1 ? &page->recorder
                                      : &page->workers[i == 2 ? 0 : METRICS_WORKERS_MAX - 1]);
            for (int n = 0; n < ADDITIONS; n++) {
                metrics_add(METRICS_requests, 1);
                metrics_add(METRICS_recorder_orders, 3);
            }
            _exit(0);
        }
    }
    for (int i = 0; i < PROCESSES; i++) {
        int status;
        assert_int_equal(waitpid(pids[i], &status, 0), pids[i]);
        assert_int_equal(status, 0);
    }
    /* The counts outlive their processes. */
    assert_int_equal(metrics_sum(page, METRICS_requests), PROCESSES * ADDITIONS);
    assert_int_equal(metrics_sum(page, METRICS_recorder_orders), 3 * PROCESSES * ADDITIONS);
    assert_int_equal(metrics_sum(page, METRICS_responses_5xx), 0);
    /* A successor goes on where the dead one stopped. */
    metrics_use_slot(&page->workers[0]);
    metrics_add(METRICS_requests, 1);
    assert_int_equal(metrics_sum(page, METRICS_requests), PROCESSES * ADDITIONS + 1);
}

/* A worker and its successor share a slot for a moment. */
static void test_two_in_one_slot(void **state)
{
    struct metrics_page *page = metrics_page_new();
    (void)state;
    metrics_use_slot(&page->workers[3]);
    pid_t pid = fork();
    assert_true(pid >= 0);
    for (int n = 0; n < 20 * ADDITIONS; n++) {
        metrics_add(METRICS_requests, 1);
    }
    if (pid == 0) {
        _exit(0);
    }
    assert_int_equal(waitpid(pid, NULL, 0), pid);
    assert_int_equal(metrics_sum(page, METRICS_requests), 40 * ADDITIONS);
}

static void test_prometheus_text(void **state)
{
    struct metrics_page *page = metrics_page_new();
    static char text[32768];
    (void)state;
    metrics_use_slot(&page->workers[0]);
    metrics_add(METRICS_purchases_confirmed, UINT64_MAX);
    size_t bytes = metrics_format(page, text, sizeof text);
    assert_int_equal(bytes, strlen(text));
    assert_non_null(strstr(text, "\n# TYPE doorbuster_purchases_confirmed_total counter\n"
                                 "doorbuster_purchases_confirmed_total 18446744073709551615\n"));
    size_t lines = 0, samples = 0;
    for (char *line = strtok(text, "\n"); line != NULL; line = strtok(NULL, "\n"), lines++) {
        char name[128];
        unsigned long long value;
        if (strstr(line, "doorbuster_lock_wait_seconds") != NULL) {
            lines--; /* the histogram; see below */
        } else if (line[0] != '#') {
            assert_int_equal(sscanf(line, "doorbuster_%127[a-z0-9_] %llu", name, &value), 2);
            samples++;
        } else {
            assert_true(strncmp(line, "# HELP doorbuster_", 18) == 0 ||
                        strncmp(line, "# TYPE doorbuster_", 18) == 0);
        }
    }
    assert_int_equal(samples, METRICS_COUNT);
    assert_int_equal(lines, 3 * METRICS_COUNT);
}

static void expect_sample(const char *text, const char *sample)
{
    char line[128];
    snprintf(line, sizeof line, "\ndoorbuster_lock_wait_seconds%s\n", sample);
    if (strstr(text, line) == NULL) {
        fail_msg("no line \"%s\" in %s", sample, text);
    }
}

static void test_lock_waits_in_buckets(void **state)
{
    struct metrics_page *page = metrics_page_new();
    static char text[32768];
    (void)state;
    metrics_use_slot(&page->workers[0]);
    metrics_add_lock_wait(0);
    metrics_add_lock_wait(200);
    metrics_add_lock_wait(201);
    metrics_use_slot(&page->workers[1]);
    metrics_add_lock_wait(50000);
    metrics_add_lock_wait(5000001);
    metrics_format(page, text, sizeof text);
    assert_non_null(strstr(text, "\n# TYPE doorbuster_lock_wait_seconds histogram\n"));
    expect_sample(text, "_bucket{le=\"0.0002\"} 2"); /* an edge belongs to the bucket below it */
    expect_sample(text, "_bucket{le=\"0.0005\"} 3");
    expect_sample(text, "_bucket{le=\"0.02\"} 3");
    expect_sample(text, "_bucket{le=\"0.05\"} 4");
    expect_sample(text, "_bucket{le=\"5\"} 4");
    expect_sample(text, "_bucket{le=\"+Inf\"} 5");
    expect_sample(text, "_sum 5.050402");
    expect_sample(text, "_count 5");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_before_a_slot_is_chosen_nothing_is_seen),
        cmocka_unit_test(test_processes_add_up),
        cmocka_unit_test(test_two_in_one_slot),
        cmocka_unit_test(test_prometheus_text),
        cmocka_unit_test(test_lock_waits_in_buckets),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
