/* What Redlock reckons, at the edges, with times made up: no Redis, no clock. */
#include "testing.h"

#include "redlock_arithmetic.h"

#include <string.h>

#define SECOND_US INT64_C(1000000)
#define TTL_US (10 * SECOND_US)
#define QUARANTINE_US (TTL_US + 102000) /* and the drift of a TTL */
#define RUN_ID "0123456789abcdef0123456789abcdef01234567"

static void test_majority(void **state)
{
    (void)state;
    assert_int_equal(redlock_majority(1), 1);
    assert_int_equal(redlock_majority(3), 2);
    assert_int_equal(redlock_majority(5), 3);
    assert_int_equal(redlock_majority(9), 5);
    for (unsigned nodes = 1; nodes <= 9; nodes++) {
        assert_true(2 * redlock_majority(nodes) > nodes); /* any two majorities share a node */
    }
}

/* A majority is one of all nodes, not of those that can be asked. */
static void test_verdicts(void **state)
{
    (void)state;
    assert_int_equal(redlock_count(5, 3, 0), REDLOCK_WON);
    assert_int_equal(redlock_count(5, 3, 2), REDLOCK_WON);
    assert_int_equal(redlock_count(5, 2, 1), REDLOCK_OPEN);
    assert_int_equal(redlock_count(5, 0, 5), REDLOCK_OPEN);
    assert_int_equal(redlock_count(5, 0, 3), REDLOCK_OPEN);
    assert_int_equal(redlock_count(5, 2, 0), REDLOCK_NOT_WON);
    assert_int_equal(redlock_count(5, 0, 2), REDLOCK_NOT_WON);
    assert_int_equal(redlock_count(5, 0, 0), REDLOCK_NOT_WON);
    assert_int_equal(redlock_count(1, 1, 0), REDLOCK_WON);
}

static void test_validity(void **state)
{
    (void)state;
    assert_int_equal(redlock_drift_us(TTL_US), 102000); /* 1 % + 2 ms */
    assert_int_equal(redlock_drift_us(0), 2000);
    assert_int_equal(redlock_drift_us(1), 2001); /* rounded up */
    assert_int_equal(redlock_valid_until_us(500, TTL_US), 500 + TTL_US - 102000);
    /* Counted from before the asking: what is left after 3 s of asking is 3 s less. */
    int64_t now_us = 7 * SECOND_US + 3 * SECOND_US;
    assert_int_equal(redlock_valid_until_us(7 * SECOND_US, TTL_US) - now_us, 7 * SECOND_US - 102000);
    /* A TTL that the drift eats is never valid. */
    assert_true(redlock_valid_until_us(500, 2000) < 500);
}

static void test_backoff(void **state)
{
    (void)state;
    assert_int_equal(redlock_backoff_ceiling_ms(100, 1), 100);
    assert_int_equal(redlock_backoff_ceiling_ms(100, 2), 200);
    assert_int_equal(redlock_backoff_ceiling_ms(100, 3), 400);
    assert_int_equal(redlock_backoff_ceiling_ms(100, 6), REDLOCK_BACKOFF_MAX_MS);
    assert_int_equal(redlock_backoff_ceiling_ms(100, UINT32_MAX), REDLOCK_BACKOFF_MAX_MS);
    assert_int_equal(redlock_backoff_ceiling_ms(5000, 1), REDLOCK_BACKOFF_MAX_MS);
    assert_int_equal(redlock_backoff_ceiling_ms(0, UINT32_MAX), 0);
}

static void test_jitter(void **state)
{
    uint64_t seed = 7;
    size_t seen[11] = {0};
    (void)state;
    assert_int_equal(redlock_jitter_ms(100, 0), 0);
    assert_int_equal(redlock_jitter_ms(100, UINT32_MAX), 100); /* full: from 0 to the ceiling */
    assert_int_equal(redlock_jitter_ms(0, UINT32_MAX), 0);
    for (int i = 0; i < 11000; i++) {
        seen[redlock_jitter_ms(10, random_next(&seed))]++;
    }
    for (size_t i = 0; i < 11; i++) {
        assert_in_range(seen[i], 800, 1200);
    }
}

static void test_runs_are_read(void **state)
{
    static const char info[] = "# Server\r\nredis_version:7.0.15\r\nrun_id:" RUN_ID
                               "\r\ntcp_port:0\r\nuptime_in_seconds:4711\r\nuptime_in_days:0\r\n";
    struct redlock_run run;
    (void)state;
    assert_true(redlock_run_parse(info, strlen(info), &run));
    assert_string_equal(run.id, RUN_ID);
    assert_int_equal(run.uptime_s, 4711);
    /* Cut off anywhere: never read beyond, and not taken for a run before the uptime is there. */
    for (size_t bytes = 0; bytes < strlen(info); bytes++) {
        bool is_there = redlock_run_parse(info, bytes, &run);
        assert_true(!is_there || bytes > (size_t)(strstr(info, "seconds:") - info));
    }
    static const char *const bad[] = {
        "run_id:" RUN_ID "\r\n",
        "uptime_in_seconds:1\r\n",
        "run_id:short\r\nuptime_in_seconds:1\r\n",
        "run_id:" RUN_ID "0\r\nuptime_in_seconds:1\r\n",
        "run_id:" RUN_ID "\r\nuptime_in_seconds:-1\r\n",
        "run_id:" RUN_ID "\r\nuptime_in_seconds:99999999999999999999\r\n",
        "run_id:" RUN_ID "\r\nuptime_in_seconds:\r\n",
        "xrun_id:" RUN_ID "\r\nuptime_in_seconds:1\r\n",
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        assert_false(redlock_run_parse(bad[i], strlen(bad[i]), &run));
    }
}

static int64_t waits(int64_t now_us, int64_t uptime_s, int64_t seen_us)
{
    return redlock_may_vote_at_us(now_us, uptime_s, seen_us, TTL_US) - now_us;
}

/* At first contact the node's age is what it says, less the second that uptime may be too high by. */
static void test_a_young_node_waits(void **state)
{
    (void)state;
    assert_int_equal(waits(50 * SECOND_US, 0, REDLOCK_NEVER), QUARANTINE_US);
    assert_int_equal(waits(50 * SECOND_US, 1, REDLOCK_NEVER), QUARANTINE_US);
    assert_int_equal(waits(50 * SECOND_US, 4, REDLOCK_NEVER), QUARANTINE_US - 3 * SECOND_US);
    assert_int_equal(waits(50 * SECOND_US, 11, REDLOCK_NEVER), 102000);
    assert_int_equal(waits(50 * SECOND_US, 12, REDLOCK_NEVER), 0);
    assert_int_equal(waits(50 * SECOND_US, INT64_C(1) << 40, REDLOCK_NEVER), 0);
}

/* A node whose clock was set forward says that it is old. It cannot be older than our last word with the run before. */
static void test_a_restarted_node_cannot_lie_about_its_age(void **state)
{
    int64_t now_us = 50 * SECOND_US;
    (void)state;
    assert_int_equal(waits(now_us, 1000000, now_us), QUARANTINE_US);
    assert_int_equal(waits(now_us, 1000000, now_us - 3 * SECOND_US), QUARANTINE_US - 3 * SECOND_US);
    assert_int_equal(waits(now_us, 1000000, now_us - 60 * SECOND_US), 0);
    /* And one whose clock was set back waits longer than it has to, not less. */
    assert_int_equal(waits(now_us, 0, now_us - 60 * SECOND_US), QUARANTINE_US);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_majority),
        cmocka_unit_test(test_verdicts),
        cmocka_unit_test(test_validity),
        cmocka_unit_test(test_backoff),
        cmocka_unit_test(test_jitter),
        cmocka_unit_test(test_runs_are_read),
        cmocka_unit_test(test_a_young_node_waits),
        cmocka_unit_test(test_a_restarted_node_cannot_lie_about_its_age),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
