/* The recorder's lease and who has the turn, against a real Redis. */
#include "testing.h"

#include "redis_fixture.h"

#include "doorbuster/gate_lease.h"

#include "leading.h"

#include <signal.h>
#include <string.h>
#include <unistd.h>

#define KEY "{doorbuster}:recorder"
#define SECOND_US 1000000

static const struct gate_candidate one = {0x1111, 1, 7}, one_again = {0x1111, 2, 7}, two = {0x2222, 1, 8};
static struct redis_fixture fixture;
static redisContext *redis;

static int begin(void **state)
{
    (void)state;
    redis_do(redis, "FLUSHALL");
    return 0;
}

static void expect(enum gate_lease expected, const struct gate_candidate *candidate, bool succeeding,
                   const struct gate_candidate *holds)
{
    struct gate_candidate holder;
    assert_int_equal(gate_take_lease(redis, candidate, succeeding, &holder), expected);
    assert_true(holder.server == holds->server && holder.run == holds->run && holder.key == holds->key);
}

static long long lives_ms(void)
{
    redisReply *reply = redisCommand(redis, "PTTL " KEY);
    assert_non_null(reply);
    long long ms = reply->integer;
    freeReplyObject(reply);
    return ms;
}

static void test_one_has_it(void **state)
{
    (void)state;
    expect(GATE_LEASE_MINE, &one, false, &one);
    expect(GATE_LEASE_TAKEN, &two, false, &one);
    expect(GATE_LEASE_TAKEN, &two, true, &one); /* succeeds its own server's alone */
    redis_do(redis, "PEXPIRE " KEY " 700");
    expect(GATE_LEASE_TAKEN, &two, false, &one);
    assert_in_range(lives_ms(), 1, 700); /* who asks does not renew */
    expect(GATE_LEASE_MINE, &one, false, &one);
    assert_in_range(lives_ms(), 701, GATE_LEASE_MS);
}

static void test_it_ends_by_itself(void **state)
{
    (void)state;
    expect(GATE_LEASE_MINE, &one, false, &one);
    redis_do(redis, "PEXPIRE " KEY " 1");
    int64_t deadline = deadline_in(5000);
    while (lives_ms() != -2) { /* it is not there */
        assert_true(wait_a_moment(deadline));
    }
    expect(GATE_LEASE_MINE, &two, false, &two);
    expect(GATE_LEASE_TAKEN, &one, false, &two);
}

static void test_a_successor_takes_its_predecessors(void **state)
{
    (void)state;
    expect(GATE_LEASE_MINE, &one, false, &one);
    expect(GATE_LEASE_TAKEN, &one_again, false, &one);
    expect(GATE_LEASE_MINE, &one_again, true, &one_again);
    expect(GATE_LEASE_TAKEN, &one, false, &one_again);
}

static void test_only_its_holder_drops_it(void **state)
{
    (void)state;
    expect(GATE_LEASE_MINE, &one, false, &one);
    assert_true(gate_drop_lease(redis, &two));
    assert_true(gate_drop_lease(redis, &one_again));
    expect(GATE_LEASE_TAKEN, &two, false, &one);
    assert_true(gate_drop_lease(redis, &one));
    expect(GATE_LEASE_MINE, &two, false, &two);
}

static void test_what_a_hand_left(void **state)
{
    const struct gate_candidate nobody = {0};
    (void)state;
    redis_do(redis, "RPUSH " KEY " x");
    expect(GATE_LEASE_MINE, &one, false, &one);
    redis_do(redis, "SET " KEY " garbage");
    expect(GATE_LEASE_TAKEN, &one, false, &nobody);
    redis_do(redis, "DEL " KEY);
    expect(GATE_LEASE_MINE, &one, false, &one);
}

/* A recorder is needed then: it trims the log. */
static void test_without_memory(void **state)
{
    struct gate_candidate holder;
    (void)state;
    redis_do(redis, "CONFIG SET maxmemory-policy noeviction maxmemory 1");
    enum gate_lease first = gate_take_lease(redis, &one, false, &holder);
    enum gate_lease renewed = gate_take_lease(redis, &one, false, &holder);
    redis_do(redis, "CONFIG SET maxmemory 0");
    assert_int_equal(first, GATE_LEASE_MINE);
    assert_int_equal(renewed, GATE_LEASE_MINE);
}

static void test_other_recorders_connections_are_ended(void **state)
{
    unsigned ended = 99;
    (void)state;
    redisContext *other = redis_fixture_connect(&fixture), *elsewhere = redis_fixture_connect(&fixture),
                 *nameless = redis_fixture_connect(&fixture);
    assert_true(gate_name_recorder(redis, 0) && gate_name_recorder(other, 0) &&
                gate_name_recorder(elsewhere, 1));
    assert_true(gate_end_other_recorders(nameless, &ended));
    assert_int_equal(ended, 0);
    assert_true(gate_end_other_recorders(redis, &ended));
    assert_int_equal(ended, 1);
    redis_do(redis, "PING");
    redis_do(elsewhere, "PING");
    redis_do(nameless, "PING");
    assert_null(redisCommand(other, "PING"));
    redisFree(other);
    redisFree(elsewhere);
    redisFree(nameless);
}

/* --- the turn -------------------------------------------------------------------------------------------------------- */
static struct leading leading_of(uint64_t server, uint64_t run)
{
    static const unsigned char secret[] = "a secret of the tests, 32 bytes or more";
    struct leading leading;
    leading_init(&leading, server, run, secret, sizeof secret);
    return leading;
}

static void test_the_turn_goes_round(void **state)
{
    struct leading first = leading_of(1, 1), other = leading_of(2, 1);
    int64_t now_us = SECOND_US;
    (void)state;
    assert_true(leading_keep(&first, redis, now_us));
    assert_false(leading_keep(&other, redis, now_us));
    redis_do(redis, "DEL " KEY);
    assert_true(leading_keep(&other, redis, now_us));
    assert_true(leading_keep(&first, redis, now_us)); /* it has just asked */
    leading_doubt(&first);
    assert_false(leading_keep(&first, redis, now_us));
    assert_false(leading_keep(&first, redis, now_us + 10 * SECOND_US));
    leading_drop(&other, redis, "a test");
    assert_true(leading_keep(&first, redis, now_us));
    assert_false(leading_keep(&other, redis, now_us));
}

static void test_a_copied_id_is_no_predecessor_twice(void **state)
{
    struct leading original = leading_of(1, 1), copy = leading_of(1, 2);
    (void)state;
    assert_true(leading_keep(&original, redis, SECOND_US));
    assert_true(leading_keep(&copy, redis, SECOND_US));
    for (int64_t i = 2; i < 5; i++) { /* and no fight */
        assert_false(leading_keep(&original, redis, i * SECOND_US));
        assert_true(leading_keep(&copy, redis, i * SECOND_US));
    }
}

static void test_no_turn_without_redis(void **state)
{
    struct leading leading = leading_of(1, 1);
    (void)state;
    redisContext *link = redis_fixture_connect(&fixture);
    assert_true(leading_keep(&leading, link, SECOND_US));
    close(link->fd);
    link->fd = -1;
    leading_doubt(&leading);
    assert_false(leading_keep(&leading, link, 2 * SECOND_US));
    redisFree(link);
    struct leading other = leading_of(2, 1);
    assert_false(leading_keep(&other, redis, 2 * SECOND_US)); /* its time is not over yet */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_one_has_it, begin),
        cmocka_unit_test_setup(test_it_ends_by_itself, begin),
        cmocka_unit_test_setup(test_a_successor_takes_its_predecessors, begin),
        cmocka_unit_test_setup(test_only_its_holder_drops_it, begin),
        cmocka_unit_test_setup(test_what_a_hand_left, begin),
        cmocka_unit_test_setup(test_without_memory, begin),
        cmocka_unit_test_setup(test_other_recorders_connections_are_ended, begin),
        cmocka_unit_test_setup(test_the_turn_goes_round, begin),
        cmocka_unit_test_setup(test_a_copied_id_is_no_predecessor_twice, begin),
        cmocka_unit_test_setup(test_no_turn_without_redis, begin),
    };
    signal(SIGPIPE, SIG_IGN);
    redis_fixture_start(&fixture, false);
    redis = redis_fixture_connect(&fixture);
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    redisFree(redis);
    redis_fixture_end(&fixture);
    return failed;
}
