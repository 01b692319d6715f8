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

static void test_calls_swallowed_until_it_is_over(void **state)
{
    (void)state;
    proxy_do(&test.proxy, PROXY_CALLS_SWALLOWED, 0, 1);
    assert_int_equal(count_up(), -1);
    assert_int_equal(counter(), 0);
    proxy_do(&test.proxy, PROXY_CALLS_SWALLOWED, 0, 0);
    assert_int_equal(count_up(), 1);
}

static void test_answers_swallowed_until_it_is_over(void **state)
{
    (void)state;
    char error[512];
    redisContext *client = redis_connect_blocking(&test.behind, ANSWER_MS, error, sizeof error);
    assert_non_null(client);
    proxy_do(&test.proxy, PROXY_ANSWERS_SWALLOWED, 0, 1);
    assert_null(redisCommand(client, "INCR counter"));
    await_counter(1);
    redisFree(client);
    assert_true(proxy_calm(&test.proxy, PATIENCE_MS));
    assert_int_equal(count_up(), 2);
}

static size_t clients(redisContext *redis)
{
    size_t count = 0;
    redisReply *reply = redis_ask(redis, "CLIENT LIST");
    assert_non_null(reply);
    for (const char *at = reply->str; (at = strchr(at, '\n')) != NULL; at++) {
        count++;
    }
    freeReplyObject(reply);
    return count;
}

/* As behind a link that is cut one way: its session stays, with all that it holds. */
static void test_goes_away_unheard_while_calls_are_swallowed(void **state)
{
    (void)state;
    char error[512];
    redisContext *redis = redis_fixture_connect(&test.redis);
    redisContext *client = redis_connect_blocking(&test.behind, ANSWER_MS, error, sizeof error);
    assert_non_null(client);
    assert_int_equal(clients(redis), 2);
    proxy_do(&test.proxy, PROXY_CALLS_SWALLOWED, 0, 1);
    redisFree(client);
    assert_int_equal(count_up(), -1); /* the proxy has been round since */
    assert_int_equal(clients(redis), 3);
    proxy_do(&test.proxy, PROXY_CALLS_SWALLOWED, 0, 0);
    int64_t deadline = deadline_in(PATIENCE_MS);
    while (clients(redis) > 1) {
        assert_true(wait_a_moment(deadline));
    }
    redisFree(redis);
}

static void test_tells_of_another_address(void **state)
{
    (void)state;
    static const char *const replaced[] = {"16379", "26379", NULL};
    const struct proxy_plan plan = {
        .listen = test.behind.path, .behind = test.redis.address.path, .replaced = replaced};
    proxy_end(&test.proxy);
    proxy_start_as(&test.proxy, &plan);
    char error[512];
    redisContext *client = redis_connect_blocking(&test.behind, ANSWER_MS, error, sizeof error);
    assert_non_null(client);
    redisReply *reply = redis_ask(client, "ECHO 127.0.0.1:16379,127.0.0.1:16378");
    assert_non_null(reply);
    assert_string_equal(reply->str, "127.0.0.1:26379,127.0.0.1:16378");
    freeReplyObject(reply);
    redisFree(client);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_silent_until_it_is_over, setup, teardown),
        cmocka_unit_test_setup_teardown(test_away_until_it_is_over, setup, teardown),
        cmocka_unit_test_setup_teardown(test_delivered_twice_as_often_as_told, setup, teardown),
        cmocka_unit_test_setup_teardown(test_late_though_its_sender_has_gone, setup, teardown),
        cmocka_unit_test_setup_teardown(test_calls_swallowed_until_it_is_over, setup, teardown),
        cmocka_unit_test_setup_teardown(test_answers_swallowed_until_it_is_over, setup, teardown),
        cmocka_unit_test_setup_teardown(test_goes_away_unheard_while_calls_are_swallowed, setup, teardown),
        cmocka_unit_test_setup_teardown(test_tells_of_another_address, setup, teardown),
    };
    signal(SIGPIPE, SIG_IGN); /* connections are closed under us on purpose */
    return cmocka_run_group_tests(tests, NULL, NULL);
}
