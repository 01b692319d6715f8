/* The proxy of the tests fails as it is told to, and only then: a harness whose faults do not happen would find nothing. */
#include "testing.h"

#include "proxy.h"
#include "redis_fixture.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PATIENCE_MS 10000
#define ANSWER_MS 200 /* a client's patience */
#define LATER_MS 50

static struct {
    struct redis_fixture redis;
    struct proxy proxy;
    struct redis_address behind;
} test;

static int setup(void **state)
{
    (void)state;
    memset(&test, 0, sizeof test);
    redis_fixture_start(&test.redis, false);
    snprintf(test.behind.path, sizeof test.behind.path, "%s/proxy.sock", test.redis.folder);
    proxy_start_for(&test.proxy, test.behind.path, test.redis.address.path, "counter");
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    proxy_end(&test.proxy);
    redis_fixture_end(&test.redis);
    return 0;
}

/* The counter afterwards, counted up through the proxy; -1: no answer came. */
static int64_t count_up(void)
{
    char error[512];
    redisContext *redis = redis_connect_blocking(&test.behind, ANSWER_MS, error, sizeof error);
    redisReply *reply = redis != NULL ? redisCommand(redis, "INCR counter") : NULL;
    int64_t counter = reply != NULL && reply->type == REDIS_REPLY_INTEGER ? reply->integer : -1;
    freeReplyObject(reply);
    if (redis != NULL) {
        redisFree(redis);
    }
    return counter;
}

static int64_t counter(void)
{
    redisContext *redis = redis_fixture_connect(&test.redis);
    redisReply *reply = redis_ask(redis, "GET counter");
    int64_t value = reply != NULL && reply->type == REDIS_REPLY_STRING ? strtoll(reply->str, NULL, 10) : 0;
    freeReplyObject(reply);
    redisFree(redis);
    return value;
}

static void await_counter(int64_t value)
{
    int64_t deadline = deadline_in(PATIENCE_MS);
    while (counter() != value) {
        assert_true(wait_a_moment(deadline));
    }
}

static void test_silent_until_it_is_over(void **state)
{
    (void)state;
    assert_int_equal(count_up(), 1);
    proxy_do(&test.proxy, PROXY_SILENT, 0, 1);
    assert_int_equal(count_up(), -1);
    assert_int_equal(counter(), 1);
    proxy_do(&test.proxy, PROXY_SILENT, 0, 0);
    assert_int_equal(count_up(), 2);
}

static void test_away_until_it_is_over(void **state)
{
    (void)state;
    proxy_do(&test.proxy, PROXY_AWAY, 0, 1);
    assert_int_equal(count_up(), -1);
    assert_int_equal(counter(), 0);
    assert_true(proxy_calm(&test.proxy, PATIENCE_MS));
    assert_int_equal(count_up(), 1);
}

static void test_delivered_twice_as_often_as_told(void **state)
{
    (void)state;
    proxy_do(&test.proxy, PROXY_TWICE, LATER_MS, 1);
    assert_int_equal(count_up(), 1);
    await_counter(2);
    assert_int_equal(count_up(), 3);
    assert_true(proxy_calm(&test.proxy, PATIENCE_MS));
    assert_int_equal(counter(), 3);
}

static void test_late_though_its_sender_has_gone(void **state)
{
    (void)state;
    proxy_do(&test.proxy, PROXY_DELIVER_LATE, LATER_MS, 1);
    assert_int_equal(count_up(), -1);
    await_counter(1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_silent_until_it_is_over, setup, teardown),
        cmocka_unit_test_setup_teardown(test_away_until_it_is_over, setup, teardown),
        cmocka_unit_test_setup_teardown(test_delivered_twice_as_often_as_told, setup, teardown),
        cmocka_unit_test_setup_teardown(test_late_though_its_sender_has_gone, setup, teardown),
    };
    signal(SIGPIPE, SIG_IGN); /* connections are closed under us on purpose */
    return cmocka_run_group_tests(tests, NULL, NULL);
}
