/* The recorder's lease, and closing other recorders' connections, on a real Redis. */
#include "testing.h"

#include "redis_fixture.h"

#include "doorbuster/gate_lease.h"

#include <signal.h>

#define WAIT_MS 5000

static const struct gate_candidate first = {.server = 0xa1, .run = 1, .key = 7},
                                   first_later = {.server = 0xa1, .run = 2, .key = 7},
                                   second = {.server = 0xb2, .run = 9, .key = 8};
static struct redis_fixture fixture;
static redisContext *redis;

static int begin(void **state)
{
    (void)state;
    signal(SIGPIPE, SIG_IGN);
    redis_fixture_start(&fixture, false);
    redis = redis_fixture_connect(&fixture);
    return 0;
}

static int end(void **state)
{
    (void)state;
    redisFree(redis);
    redis_fixture_end(&fixture);
    return 0;
}

static void expect_same(const struct gate_candidate *a, const struct gate_candidate *b)
{
    assert_int_equal(a->server, b->server);
    assert_int_equal(a->run, b->run);
    assert_int_equal(a->key, b->key);
}

static enum gate_lease take(const struct gate_candidate *candidate, bool succeeding)
{
    struct gate_candidate holder;
    enum gate_lease got = gate_take_lease(redis, candidate, succeeding, &holder);
    if (got == GATE_LEASE_MINE) {
        expect_same(&holder, candidate);
    }
    return got;
}

static void test_one_has_it_until_it_is_silent(void **state)
{
    struct gate_candidate holder;
    (void)state;
    assert_int_equal(take(&first, false), GATE_LEASE_MINE);
    assert_int_equal(take(&first, false), GATE_LEASE_MINE);
    int64_t began_us = now_us();
    assert_int_equal(gate_take_lease(redis, &second, true, &holder), GATE_LEASE_TAKEN);
    expect_same(&holder, &first);
    int64_t deadline = deadline_in(WAIT_MS);
    while (take(&second, false) != GATE_LEASE_MINE) {
        assert_true(wait_a_moment(deadline));
    }
    assert_in_range(now_us() - began_us, (GATE_LEASE_MS - 100) * 1000, (GATE_LEASE_MS + 500) * 1000);
    assert_int_equal(take(&first, true), GATE_LEASE_TAKEN);
    redis_do(redis, "FLUSHALL");
}

static void test_who_drops_it_drops_only_its_own(void **state)
{
    (void)state;
    assert_int_equal(take(&first, false), GATE_LEASE_MINE);
    assert_true(gate_drop_lease(redis, &second));
    assert_int_equal(take(&second, false), GATE_LEASE_TAKEN);
    assert_true(gate_drop_lease(redis, &first));
    assert_int_equal(take(&second, false), GATE_LEASE_MINE);
    redis_do(redis, "FLUSHALL");
}

/* A server that was killed and started again need not wait for its own end. */
static void test_a_later_run_succeeds_an_earlier_one(void **state)
{
    (void)state;
    assert_int_equal(take(&first, false), GATE_LEASE_MINE);
    assert_int_equal(take(&first_later, false), GATE_LEASE_TAKEN);
    assert_int_equal(take(&first_later, true), GATE_LEASE_MINE);
    redis_do(redis, "FLUSHALL");
}

static void test_what_a_hand_has_put_there(void **state)
{
    struct gate_candidate holder;
    (void)state;
    redis_do(redis, "HSET {doorbuster}:recorder a b"); /* no text: nobody's */
    assert_int_equal(take(&first, false), GATE_LEASE_MINE);
    redis_do(redis, "SET {doorbuster}:recorder maintenance");
    assert_int_equal(gate_take_lease(redis, &first, true, &holder), GATE_LEASE_TAKEN);
    assert_int_equal(holder.server, 0);
    redis_do(redis, "FLUSHALL");
}

/* Without a recorder nobody would ever trim the log. */
static void test_a_redis_without_memory_has_a_recorder(void **state)
{
    (void)state;
    redis_do(redis, "SET big %s", "something");
    redis_do(redis, "CONFIG SET maxmemory 1");
    redisReply *reply = redis_ask(redis, "SET more memory");
    assert_null(reply);
    assert_int_equal(take(&first, false), GATE_LEASE_MINE);
    assert_int_equal(take(&first, false), GATE_LEASE_MINE);
    assert_int_equal(take(&second, false), GATE_LEASE_TAKEN);
    redis_do(redis, "CONFIG SET maxmemory 0");
    redis_do(redis, "FLUSHALL");
}

static void test_a_recorder_ends_others_of_its_shop(void **state)
{
    unsigned ended;
    redisContext *older = redis_fixture_connect(&fixture), *elsewhere = redis_fixture_connect(&fixture),
                 *worker = redis_fixture_connect(&fixture);
    (void)state;
    assert_true(gate_end_other_recorders(redis, &ended)); /* without a name */
    assert_int_equal(ended, 0);
    assert_true(gate_name_recorder(older, 0));
    assert_true(gate_name_recorder(elsewhere, 1));
    assert_true(gate_name_recorder(redis, 0));
    redisAppendCommand(older, "SET late yes"); /* not sent yet: it is, when it is too late */
    assert_true(gate_end_other_recorders(redis, &ended));
    assert_int_equal(ended, 1);
    assert_null(redis_next_reply(older));
    redisReply *late = redis_ask(redis, "EXISTS late");
    assert_non_null(late);
    assert_int_equal(late->integer, 0);
    freeReplyObject(late);
    assert_true(redis_done(redis_ask(elsewhere, "PING")));
    assert_true(redis_done(redis_ask(worker, "PING")));
    redisFree(older);
    redisFree(elsewhere);
    redisFree(worker);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_one_has_it_until_it_is_silent),
        cmocka_unit_test(test_who_drops_it_drops_only_its_own),
        cmocka_unit_test(test_a_later_run_succeeds_an_earlier_one),
        cmocka_unit_test(test_what_a_hand_has_put_there),
        cmocka_unit_test(test_a_redis_without_memory_has_a_recorder),
        cmocka_unit_test(test_a_recorder_ends_others_of_its_shop),
    };
    return cmocka_run_group_tests(tests, begin, end);
}
