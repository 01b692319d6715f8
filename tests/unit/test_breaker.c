/* breaker.h: every move, and every call that is none. The clock is the test's. */
#include "doorbuster/breaker.h"
#include "doorbuster/log.h"

#include "child.h"

#include <string.h>

#define FAILURES 3
#define OPEN_MS 200
#define T0 5000000

static struct breaker breaker;

static bool allows(int64_t at_ms, unsigned retry_ms)
{
    unsigned said_ms = 12345;
    bool yes = breaker_allows(&breaker, T0 + at_ms * 1000, &said_ms);
    assert_int_equal(said_ms, retry_ms);
    return yes;
}

static void fail_at(int64_t at_ms, const char *reason)
{
    breaker_failed(&breaker, T0 + at_ms * 1000, reason);
}

static void expect(enum breaker_state state, int64_t since_ms, uint64_t openings)
{
    assert_int_equal(breaker.state, state);
    assert_true(breaker.since_us == T0 + since_ms * 1000);
    assert_int_equal(breaker.openings, openings);
}

static int setup(void **state)
{
    (void)state;
    log_set_level(LOG_ERROR);
    breaker_init(&breaker, "store", FAILURES, OPEN_MS);
    return 0;
}

static void open_it(void)
{
    for (int i = 0; i < FAILURES; i++) {
        fail_at(0, "down");
    }
}

static void test_it_begins_closed(void **state)
{
    (void)state;
    assert_int_equal(breaker.state, BREAKER_CLOSED);
    assert_string_equal(breaker.reason, "");
    for (int i = 0; i < 100; i++) { /* however many are on their way */
        assert_true(allows(0, 0));
    }
}

static void test_failures_in_a_row_open_it(void **state)
{
    (void)state;
    fail_at(0, "one");
    fail_at(1, "two");
    breaker_succeeded(&breaker, T0);
    fail_at(2, "one");
    fail_at(3, "two");
    assert_int_equal(breaker.state, BREAKER_CLOSED);
    fail_at(4, "three");
    expect(BREAKER_OPEN, 4, 1);
    assert_string_equal(breaker.reason, "three");
}

static void test_open_refuses_and_says_when_to_come(void **state)
{
    (void)state;
    open_it();
    assert_false(allows(0, OPEN_MS));
    assert_false(allows(150, 50));
    assert_false(allows(199, 1));
    expect(BREAKER_OPEN, 0, 1);
}

/* Calls that were on their way when it opened. */
static void test_late_failures_do_not_prolong_it(void **state)
{
    (void)state;
    open_it();
    fail_at(150, "late");
    expect(BREAKER_OPEN, 0, 1);
    assert_string_equal(breaker.reason, "down");
    breaker_open(&breaker, T0 + 160000, "late");
    expect(BREAKER_OPEN, 0, 1);
}

static void test_half_open_lets_one_through(void **state)
{
    (void)state;
    open_it();
    assert_true(allows(OPEN_MS, 0));
    expect(BREAKER_HALF_OPEN, OPEN_MS, 1);
    assert_false(allows(OPEN_MS, OPEN_MS));
    assert_false(allows(OPEN_MS + 1000, OPEN_MS));
}

static void test_a_success_closes_it(void **state)
{
    (void)state;
    open_it();
    assert_true(allows(OPEN_MS, 0));
    breaker_succeeded(&breaker, T0 + 201000);
    expect(BREAKER_CLOSED, 201, 1);
    fail_at(202, "one");
    fail_at(203, "two");
    assert_int_equal(breaker.state, BREAKER_CLOSED); /* failures from before do not count */
    fail_at(204, "three");
    expect(BREAKER_OPEN, 204, 2);
}

static void test_a_failure_opens_it_again(void **state)
{
    (void)state;
    open_it();
    assert_true(allows(OPEN_MS, 0));
    fail_at(210, "still down");
    expect(BREAKER_OPEN, 210, 1);
    assert_string_equal(breaker.reason, "still down");
    assert_false(allows(211, OPEN_MS - 1));
    assert_true(allows(410, 0));
    expect(BREAKER_HALF_OPEN, 410, 1);
}

/* A call that never came to the point must not keep it half-open for ever. */
static void test_an_abandoned_call_makes_room_for_another(void **state)
{
    (void)state;
    open_it();
    assert_true(allows(OPEN_MS, 0));
    breaker_abandoned(&breaker);
    expect(BREAKER_HALF_OPEN, OPEN_MS, 1);
    assert_true(allows(300, 0));
    assert_false(allows(300, OPEN_MS));
}

static void test_opened_from_outside(void **state)
{
    char reason[400];
    (void)state;
    memset(reason, 'x', sizeof reason - 1);
    reason[sizeof reason - 1] = '\0';
    breaker_open(&breaker, T0, reason);
    expect(BREAKER_OPEN, 0, 1);
    assert_int_equal(strlen(breaker.reason), BREAKER_REASON_BYTES - 1);
    breaker_succeeded(&breaker, T0 + 1000); /* seen from elsewhere, before anything was tried */
    expect(BREAKER_CLOSED, 1, 1);
    breaker_open(&breaker, T0 + 2000, "gone");
    assert_true(allows(202, 0));
    breaker_open(&breaker, T0 + 203000, "gone again");
    expect(BREAKER_OPEN, 203, 2);
}

/* After the outage nobody comes to try: it does not stay open, and shown as such, until somebody does. */
static void test_it_closes_when_nobody_asks(void **state)
{
    (void)state;
    open_it();
    breaker_rest(&breaker, T0 + (BREAKER_REST_MS - 1) * 1000);
    expect(BREAKER_OPEN, 0, 1);
    assert_true(allows(BREAKER_REST_MS - 1, 0));
    breaker_rest(&breaker, T0 + (INT64_C(10) * BREAKER_REST_MS) * 1000);
    expect(BREAKER_HALF_OPEN, BREAKER_REST_MS - 1, 1); /* the one call is on its way */
    fail_at(10 * BREAKER_REST_MS, "still down");
    breaker_rest(&breaker, T0 + (INT64_C(11) * BREAKER_REST_MS - 1) * 1000);
    expect(BREAKER_OPEN, 10 * BREAKER_REST_MS, 1);
    breaker_rest(&breaker, T0 + (INT64_C(11) * BREAKER_REST_MS) * 1000);
    expect(BREAKER_CLOSED, 11 * BREAKER_REST_MS, 1);
}

/* The reason it was open for is none any more once it closes. */
static void open_and_close(void *context)
{
    unsigned retry_ms;
    (void)context;
    log_set_level(LOG_INFO);
    open_it();
    (void)breaker_allows(&breaker, T0 + OPEN_MS * 1000, &retry_ms);
    breaker_succeeded(&breaker, T0 + (OPEN_MS + 34) * 1000);
    log_flush(true);
}

static void test_what_the_log_says(void **state)
{
    struct child child;
    (void)state;
    child_run(open_and_close, NULL, &child);
    assert_int_equal(child.exit_code, 0);
    assert_non_null(strstr(child.err, "breaker store: open (down)"));
    assert_non_null(strstr(child.err, "breaker store: half-open: trying whether it works again"));
    assert_non_null(strstr(child.err, "breaker store: closed again after 234 ms (was: down)"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_it_begins_closed, setup),
        cmocka_unit_test_setup(test_failures_in_a_row_open_it, setup),
        cmocka_unit_test_setup(test_open_refuses_and_says_when_to_come, setup),
        cmocka_unit_test_setup(test_late_failures_do_not_prolong_it, setup),
        cmocka_unit_test_setup(test_half_open_lets_one_through, setup),
        cmocka_unit_test_setup(test_a_success_closes_it, setup),
        cmocka_unit_test_setup(test_a_failure_opens_it_again, setup),
        cmocka_unit_test_setup(test_an_abandoned_call_makes_room_for_another, setup),
        cmocka_unit_test_setup(test_opened_from_outside, setup),
        cmocka_unit_test_setup(test_it_closes_when_nobody_asks, setup),
        cmocka_unit_test_setup(test_what_the_log_says, setup),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
