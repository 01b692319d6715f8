/* Rate limits: arithmetic, a table that is too small, and several processes at one bucket. The clock is ours. */
#include "testing.h"

#include "doorbuster/rate_limit.h"

#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#define SECOND 1000000
#define DAY ((int64_t)86400 * SECOND)

static struct rate_limit limit_of(const char *text)
{
    struct rate_limit limit;
    assert_true(rate_limit_parse(text, &limit));
    return limit;
}

/* Spread over the sets and the tags as a hash would. */
static uint64_t key_of(uint64_t number)
{
    number *= UINT64_C(0x9e3779b97f4a7c15);
    number = (number ^ number >> 32) * UINT64_C(0xd6e8feb86659fd93);
    return number ^ number >> 32;
}

static unsigned take_all(struct rate_limit_table *table, const struct rate_limit *limit, uint64_t key,
                         int64_t now_us)
{
    unsigned taken = 0;
    while (rate_limit_take(table, limit, key, now_us).allowed) {
        assert_in_range(++taken, 1, 1000000);
    }
    return taken;
}

static void test_limits_as_text(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "",        "50",    "/s",       "0/s",           "-1/s",      "50/h",         "50/ss",
        "50/m",    "50/s:", "50/s:0",   "50/s:x",        "50/s:1 ",   "1e3/s",        " 50/s",
        "10001/s", "50 /s", "50:100/s", "50/s:10000000", "50/min:/s", "1/min:1000000"};
    struct rate_limit limit = {7, 7};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        assert_false(rate_limit_parse(bad[i], &limit));
        assert_int_equal(limit.burst, 7);
    }
    limit = limit_of("50/s");
    assert_int_equal(limit.burst, 50);
    assert_in_range(rate_limit_window_us(&limit), SECOND - 1000, SECOND);
    limit = limit_of("50/s:100");
    assert_int_equal(limit.burst, 100);
    assert_in_range(rate_limit_window_us(&limit), 2 * SECOND - 2000, 2 * SECOND);
    limit = limit_of("10/min");
    assert_int_equal(limit.burst, 10);
    assert_in_range(rate_limit_window_us(&limit), 60 * SECOND - 1000, 60 * SECOND);
}

static void test_a_burst_and_then_the_rate(void **state)
{
    (void)state;
    struct rate_limit limit = limit_of("10/s:20");
    struct rate_limit_table *table = rate_limit_table_new(64);
    int64_t now_us = 5 * SECOND;
    struct rate_limit_verdict verdict = rate_limit_look(table, &limit, 42, now_us);
    assert_true(verdict.allowed);
    assert_int_equal(verdict.remaining, 20);
    assert_int_equal(take_all(table, &limit, 42, now_us), 20);
    verdict = rate_limit_take(table, &limit, 42, now_us);
    assert_int_equal(verdict.remaining, 0);
    assert_in_range(verdict.retry_after_us, 99000, 100100);
    assert_in_range(verdict.full_after_us, 2 * SECOND - 1000, 2 * SECOND);
    /* who comes when it was told to is let in, and nobody before that */
    assert_false(rate_limit_take(table, &limit, 42, now_us + verdict.retry_after_us - 100).allowed);
    assert_true(rate_limit_take(table, &limit, 42, now_us + verdict.retry_after_us).allowed);
    /* refusals cost nothing */
    for (int i = 0; i < 1000; i++) {
        (void)rate_limit_take(table, &limit, 42, now_us + verdict.retry_after_us);
    }
    assert_int_equal(take_all(table, &limit, 42, now_us + SECOND), 9);
    assert_int_equal(take_all(table, &limit, 42, now_us + 100 * SECOND), 20);
    assert_int_equal(take_all(table, &limit, 43, now_us), 20);
}

static void test_given_back(void **state)
{
    (void)state;
    struct rate_limit limit = limit_of("10/min");
    struct rate_limit_table *table = rate_limit_table_new(64);
    for (int i = 0; i < 1000; i++) {
        assert_true(rate_limit_take(table, &limit, 42, SECOND).allowed);
        rate_limit_give_back(table, &limit, 42, SECOND);
    }
    assert_int_equal(take_all(table, &limit, 42, SECOND), 10);
    rate_limit_give_back(table, &limit, 42, SECOND);
    assert_int_equal(take_all(table, &limit, 42, SECOND), 1);
    rate_limit_give_back(table, &limit, 43, SECOND); /* never taken */
    assert_int_equal(take_all(table, &limit, 43, SECOND), 10);
    for (int i = 0; i < 100; i++) { /* no credit beyond a full bucket */
        rate_limit_give_back(table, &limit, 42, SECOND);
    }
    assert_int_equal(take_all(table, &limit, 42, SECOND), 10);
}

/* The table's time comes round every 12 days. */
static void test_an_old_debt_is_no_debt(void **state)
{
    (void)state;
    struct rate_limit limit = limit_of("1/min:5");
    struct rate_limit_table *table = rate_limit_table_new(64);
    assert_int_equal(take_all(table, &limit, 42, SECOND), 5);
    for (int64_t days = 1; days < 40; days++) {
        int64_t now_us = SECOND + days * DAY;
        assert_int_equal(rate_limit_look(table, &limit, 42, now_us).remaining, 5);
    }
    /* a clock read a moment earlier than another's is no excuse */
    assert_int_equal(take_all(table, &limit, 42, 60 * DAY), 5);
    assert_false(rate_limit_take(table, &limit, 42, 60 * DAY - SECOND).allowed);
}

static void test_a_table_under_100000_keys_keeps_nobody_out(void **state)
{
    (void)state;
    struct rate_limit limit = limit_of("10/s:20");
    struct rate_limit_table *table = rate_limit_table_new(1024);
    int64_t now_us = 5 * SECOND;
    assert_int_equal(take_all(table, &limit, key_of(1), now_us), 20);
    unsigned refused = 0;
    for (uint64_t i = 2; i < 100002; i++) {
        refused += !rate_limit_take(table, &limit, key_of(i), now_us).allowed;
    }
    /* Of 28 bits of the key, eight are compared each time: fewer than one in 10 million is taken for another. */
    assert_in_range(refused, 0, 1);
    /* the fullest debt is the last to be forgotten */
    assert_false(rate_limit_take(table, &limit, key_of(1), now_us).allowed);
}

/* What all get together at one instant is the burst, whoever asks. */
static void test_processes_at_one_bucket(void **state)
{
    (void)state;
    enum { PROCESSES = 4, BURST = 20000 };
    struct rate_limit limit = limit_of("1000/s:20000");
    struct rate_limit_table *table = rate_limit_table_new(64);
    int counts[2];
    unsigned sum = 0, taken;
    assert_int_equal(pipe(counts), 0);
    for (int i = 0; i < PROCESSES; i++) {
        pid_t pid = fork();
        assert_true(pid >= 0);
        if (pid == 0) {
            taken = take_all(table, &limit, 42, 5 * SECOND);
            _exit(write(counts[1], &taken, sizeof taken) == sizeof taken ? 0 : 1);
        }
    }
    for (int i = 0; i < PROCESSES; i++) {
        assert_int_equal(read(counts[0], &taken, sizeof taken), sizeof taken);
        assert_true(wait(NULL) > 0);
        sum += taken;
    }
    /* Exactly, but for those who lost eight races in a row, and four who may have entered the key at once. */
    assert_in_range(sum, BURST, BURST + BURST / 20);
    close(counts[0]);
    close(counts[1]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_limits_as_text),
        cmocka_unit_test(test_a_burst_and_then_the_rate),
        cmocka_unit_test(test_given_back),
        cmocka_unit_test(test_an_old_debt_is_no_debt),
        cmocka_unit_test(test_a_table_under_100000_keys_keeps_nobody_out),
        cmocka_unit_test(test_processes_at_one_bucket),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
