/* When a silent process is taken for dead: life.c's arithmetic. */
#include "testing.h"

#include "life.h"

#define S INT64_C(1000000)
#define HANG (10 * S)

static bool is_over(const struct life *life, int64_t now_us, bool shares_slot)
{
    return life_silence_us(life, now_us) > life_patience_us(life, HANG, shares_slot);
}

static void test_one_that_beats_lives(void **state)
{
    struct life life;
    (void)state;
    life_begin(&life, 100 * S);
    for (int64_t now = 101 * S; now < 200 * S; now += 9 * S) {
        life_beat(&life, now);
        assert_false(is_over(&life, now + 9 * S, false));
    }
    assert_int_equal(life.phase, LIFE_TURNING);
}

static void test_one_that_stops_beating_is_dead_after_the_timeout(void **state)
{
    struct life life;
    (void)state;
    life_begin(&life, 100 * S);
    life_beat(&life, 101 * S);
    assert_false(is_over(&life, 111 * S, false));
    assert_true(is_over(&life, 111 * S + 1, false));
}

static void test_a_start_may_take_its_time(void **state)
{
    struct life life;
    (void)state;
    life_begin(&life, 100 * S);
    assert_false(is_over(&life, 100 * S + LIFE_START_US, false));
    assert_true(is_over(&life, 100 * S + LIFE_START_US + 1, false));
}

/* What its predecessor left in the slot, before it was started. */
static void test_an_old_beat_is_no_sign_of_life(void **state)
{
    struct life life;
    (void)state;
    life_begin(&life, 100 * S);
    life_beat(&life, 99 * S);
    assert_int_equal(life.phase, LIFE_STARTING);
}

static void test_who_leaves_has_its_own_time_and_no_beat(void **state)
{
    struct life life;
    (void)state;
    life_begin(&life, 100 * S);
    life_beat(&life, 101 * S);
    life_leave(&life, 110 * S);
    life_leave(&life, 120 * S); /* told twice: no more time for that */
    life_beat(&life, 111 * S);
    assert_int_equal(life.phase, LIFE_LEAVING);
    assert_false(is_over(&life, 110 * S + LIFE_LEAVE_US, false));
    assert_true(is_over(&life, 110 * S + LIFE_LEAVE_US + 1, false));
}

static void test_who_shares_a_slot_is_given_time(void **state)
{
    struct life life;
    (void)state;
    life_begin(&life, 100 * S);
    life_beat(&life, 101 * S);
    assert_true(is_over(&life, 112 * S, false));
    assert_false(is_over(&life, 112 * S, true));
    assert_true(is_over(&life, 101 * S + LIFE_START_US + 1, true));
}

static void test_a_stopped_machine_costs_nobody_their_life(void **state)
{
    struct life life;
    (void)state;
    life_begin(&life, 100 * S);
    life_beat(&life, 101 * S);
    life_pass_over(&life, 3600 * S); /* the supervisor looked at 102 s, and next at 3702 */
    assert_false(is_over(&life, 3702 * S, false));
    assert_int_equal(life_silence_us(&life, 3702 * S), S);
    assert_true(is_over(&life, 3712 * S, false)); /* and it is dead if it says nothing then */
    life_begin(&life, 3750 * S);                  /* within a gap: no silence that is negative */
    life_pass_over(&life, 100 * S);
    assert_int_equal(life_silence_us(&life, 3760 * S), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_one_that_beats_lives),
        cmocka_unit_test(test_one_that_stops_beating_is_dead_after_the_timeout),
        cmocka_unit_test(test_a_start_may_take_its_time),
        cmocka_unit_test(test_an_old_beat_is_no_sign_of_life),
        cmocka_unit_test(test_who_leaves_has_its_own_time_and_no_beat),
        cmocka_unit_test(test_who_shares_a_slot_is_given_time),
        cmocka_unit_test(test_a_stopped_machine_costs_nobody_their_life),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
