/* The gate's door (src/gate/admission.c): who is let in, who is turned away, and when that changes. The clock is the test's. */
#include "driver.h"

#include "doorbuster/clock.h"
#include "doorbuster/log.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#define SWEEP_US 20000
#define SECOND_US 1000000

static int64_t now;
static struct gate gate;
static const struct gate_place place = {.kind = GATE_LUA};

int64_t __wrap_clock_monotonic_us(void);
int64_t __wrap_clock_monotonic_us(void)
{
    return now;
}

static int setup(void **state)
{
    (void)state;
    log_set_level(LOG_ERROR);
    now = 100 * SECOND_US;
    gate = (struct gate){.settings = {.place = &place}};
    gate_admission_init(&gate);
    return 0;
}

/* So long it is like this. */
static void pass(int64_t us, const char *away, int64_t wait_us)
{
    for (int64_t end = now + us; now < end;) {
        now += SWEEP_US;
        gate_watch(&gate, now, away, wait_us);
    }
}

static void expect(enum breaker_state state, bool admits)
{
    assert_int_equal(gate.redis.state, state);
    assert_int_equal(gate_admits(&gate), admits);
}

static void test_a_short_outage_is_invisible(void **state)
{
    (void)state;
    for (int i = 0; i < 5; i++) {
        pass(GATE_PATIENCE_US, "no link", 0);
        expect(BREAKER_CLOSED, true);
        pass(SWEEP_US, NULL, 0); /* there for a moment */
        expect(BREAKER_CLOSED, true);
    }
}

static void test_a_long_outage_and_its_end(void **state)
{
    (void)state;
    pass(GATE_PATIENCE_US + 2 * SWEEP_US, "no link", 0);
    expect(BREAKER_OPEN, false);
    assert_string_equal(gate.redis.reason, "for 2 s: no link");
    pass(10 * SECOND_US, "no link", 0);
    expect(BREAKER_OPEN, false);
    pass(SWEEP_US, NULL, 0);
    assert_int_equal(gate.redis.state, BREAKER_HALF_OPEN);
    unsigned let_in = 0;
    for (int i = 0; i < 1000; i++) {
        let_in += gate_admits(&gate);
    }
    assert_int_equal(let_in, 32);
    gate.pending = let_in;
    pass(GATE_BREAKER_OPEN_MS * 1000 + SWEEP_US, NULL, 0); /* none of them has been answered: a few more */
    expect(BREAKER_HALF_OPEN, true);
    gate_call_succeeded(&gate);
    expect(BREAKER_CLOSED, true);
}

static void test_away_again_while_half_open(void **state)
{
    (void)state;
    pass(3 * SECOND_US, "no link", 0);
    pass(SWEEP_US, NULL, 0);
    assert_int_equal(gate.redis.state, BREAKER_HALF_OPEN);
    pass(SWEEP_US, "no link", 0); /* no patience this time */
    expect(BREAKER_OPEN, false);
    pass(SWEEP_US, NULL, 0);
    expect(BREAKER_OPEN, false);
    pass(GATE_BREAKER_OPEN_MS * 1000, NULL, 0);
    assert_int_equal(gate.redis.state, BREAKER_HALF_OPEN);
    gate_call_failed(&gate, "OOM");
    expect(BREAKER_OPEN, false);
    assert_string_equal(gate.redis.reason, "OOM");
}

/* A late answer to what was in the gate before says nothing of now. */
static void test_a_success_while_open_opens_no_door(void **state)
{
    (void)state;
    pass(3 * SECOND_US, "no link", 0);
    gate_call_succeeded(&gate);
    expect(BREAKER_OPEN, false);
}

static void test_it_closes_with_nobody_there(void **state)
{
    (void)state;
    pass(3 * SECOND_US, "no link", 0);
    pass(GATE_PATIENCE_US, NULL, 0);
    assert_int_equal(gate.redis.state, BREAKER_HALF_OPEN);
    pass(SECOND_US, NULL, 0);
    expect(BREAKER_CLOSED, true);
}

static void test_failed_calls_for_two_seconds(void **state)
{
    (void)state;
    for (int i = 0; i < 20; i++) {
        gate_call_failed(&gate, "OOM");
        pass(100000, NULL, 0);
        expect(BREAKER_CLOSED, true);
    }
    gate_call_succeeded(&gate);
    for (int i = 0; i < 20; i++) {
        gate_call_failed(&gate, "OOM");
        pass(100000, NULL, 0);
        expect(BREAKER_CLOSED, true);
    }
    pass(SWEEP_US, NULL, 0);
    gate_call_failed(&gate, "OOM");
    pass(SWEEP_US, NULL, 0);
    expect(BREAKER_OPEN, false);
}

/* Now and then one, with nobody in between who could have had a success. */
static void test_failures_far_apart_are_no_row(void **state)
{
    (void)state;
    for (int i = 0; i < 10; i++) {
        gate_call_failed(&gate, "the link broke");
        pass(3 * SECOND_US, NULL, 0);
        expect(BREAKER_CLOSED, true);
    }
}

static void test_the_record_does_not_follow(void **state)
{
    (void)state;
    breaker_open(&gate.record, now, "silent");
    pass(GATE_PATIENCE_US, NULL, 0);
    expect(BREAKER_CLOSED, true);
    pass(2 * SWEEP_US, NULL, 0);
    expect(BREAKER_CLOSED, false);
    breaker_succeeded(&gate.record, now);
    pass(SWEEP_US, NULL, 0);
    expect(BREAKER_CLOSED, true);
}

static void test_who_would_wait_too_long(void **state)
{
    (void)state;
    pass(SWEEP_US, NULL, 3 * SECOND_US);
    expect(BREAKER_CLOSED, true);
    pass(SWEEP_US, NULL, 7 * SECOND_US);
    expect(BREAKER_CLOSED, false);
    assert_int_equal(gate.admission.wait_ms, 7000);
    pass(SWEEP_US, NULL, 0);
    expect(BREAKER_CLOSED, true);
    gate.pending = GATE_PENDING_MAX;
    expect(BREAKER_CLOSED, false);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_a_short_outage_is_invisible, setup),
        cmocka_unit_test_setup(test_a_long_outage_and_its_end, setup),
        cmocka_unit_test_setup(test_away_again_while_half_open, setup),
        cmocka_unit_test_setup(test_a_success_while_open_opens_no_door, setup),
        cmocka_unit_test_setup(test_it_closes_with_nobody_there, setup),
        cmocka_unit_test_setup(test_failed_calls_for_two_seconds, setup),
        cmocka_unit_test_setup(test_failures_far_apart_are_no_row, setup),
        cmocka_unit_test_setup(test_the_record_does_not_follow, setup),
        cmocka_unit_test_setup(test_who_would_wait_too_long, setup),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
