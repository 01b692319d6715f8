/* The Redis to use is found through real Sentinels, and in a real Cluster: by blocking connections, and by a link on a loop, which follows a failover. */
#include "testing.h"

#include "cluster_fixture.h"
#include "sentinel_fixture.h"

#include "doorbuster/redis.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define KEY "{doorbuster}:head"
#define WAIT_MS 10000
#define FOLLOW_MS 1000 /* from the word of the Sentinels to the link that is up again */
#define TIMEOUT_MS 2000

static struct sentinel_fixture sentinels;
static struct cluster_fixture cluster;
static struct redis_address address;
static char error[1024];

static void parse(const char *url)
{
    if (!redis_address_parse(url, &address, error, sizeof error)) {
        fail_msg("%s", error);
    }
    snprintf(address.key, sizeof address.key, "%s", KEY);
}

static int begin_sentinels(void **state)
{
    (void)state;
    sentinel_fixture_start(&sentinels);
    parse(sentinels.url);
    return 0;
}

static int begin_sentinels_with_passwords(void **state)
{
    sentinels.password = "opensesame";
    sentinels.sentinel_password = "openbarley";
    assert_int_equal(setenv("REDIS_SENTINEL_PASSWORD", "openbarley", 1), 0);
    return begin_sentinels(state);
}

static int end_sentinels(void **state)
{
    (void)state;
    unsetenv("REDIS_SENTINEL_PASSWORD");
    sentinel_fixture_end(&sentinels);
    return 0;
}

static int begin_cluster(void **state)
{
    (void)state;
    cluster_fixture_start(&cluster, KEY);
    parse(cluster.url);
    return 0;
}

static int end_cluster(void **state)
{
    (void)state;
    cluster_fixture_end(&cluster);
    return 0;
}

/* --- blocking ---------------------------------------------------------------------------------------------------------------------- */
static redisContext *found(void)
{
    redisContext *redis = redis_connect_blocking(&address, TIMEOUT_MS, error, sizeof error);
    if (redis == NULL) {
        fail_msg("%s", error);
    }
    return redis;
}

static void expect_found_at(int port)
{
    redisContext *redis = found();
    assert_int_equal(redis->tcp.port, port);
    redisFree(redis);
}

static void expect_script(int port, const char *sha, int exists)
{
    redisContext *redis = tcp_redis_connect(port);
    redisReply *reply = redis_ask(redis, "SCRIPT EXISTS %s", sha);
    assert_non_null(reply);
    assert_int_equal(reply->element[0]->integer, exists);
    freeReplyObject(reply);
    redisFree(redis);
}

static void expect_none(const char *words)
{
    assert_null(redis_connect_blocking(&address, TIMEOUT_MS, error, sizeof error));
    if (strstr(error, words) == NULL) {
        fail_msg("wanted \"%s\", got \"%s\"", words, error);
    }
    assert_null(strstr(error, "open"));
}

static void test_a_master_by_its_sentinels(void **state)
{
    (void)state;
    int first = sentinel_fixture_master(&sentinels);
    redisContext *before = found();
    const char *sha = tcp_redis_do(first, "SCRIPT LOAD return{1}");
    assert_int_equal(before->tcp.port, first);
    assert_false(redis_was_replaced(&address, before, 500));
    struct redis_address by_name = {.host = "localhost", .port = first};
    redisContext *named = redis_connect_blocking(&by_name, TIMEOUT_MS, error, sizeof error);
    assert_non_null(named);
    assert_false(redis_was_replaced(&address, named, 500)); /* the same, by another name */
    redisFree(named);
    sentinel_fixture_fail_over(&sentinels);
    int second = sentinel_fixture_master(&sentinels);
    assert_int_not_equal(first, second);
    expect_script(first, sha, 1); /* it survives a demotion: ADR 16 */
    expect_script(second, sha, 0);
    expect_found_at(second);
    assert_true(redis_was_replaced(&address, before, 500));
    redisFree(before);

    /* One of them is dead, another hangs. */
    tcp_redis_kill(&sentinels.sentinels[0]);
    kill(sentinels.sentinels[1].pid, SIGSTOP);
    for (int i = 0; i < 4; i++) {
        int64_t since_us = now_us();
        expect_found_at(second);
        assert_in_range(now_us() - since_us, 0, 1500000);
    }
    kill(sentinels.sentinels[1].pid, SIGCONT);

    snprintf(address.group, sizeof address.group, "another");
    expect_none("knows no master of that name");
}

/* Whom the Sentinels still call master has been made a replica: it says so itself. */
static void test_a_master_that_is_none(void **state)
{
    (void)state;
    int port = sentinel_fixture_master(&sentinels);
    for (size_t i = 0; i < SENTINELS; i++) {
        kill(sentinels.sentinels[i].pid, SIGSTOP);
    }
    tcp_redis_do(port, "REPLICAOF 127.0.0.1 %d", sentinels.redis[sentinels.redis[0].port == port].port);
    kill(sentinels.sentinels[0].pid, SIGCONT);
    redisContext *redis = redis_connect_blocking(&address, TIMEOUT_MS, error, sizeof error);
    if (redis != NULL) { /* the Sentinel may have put it right meanwhile */
        redisReply *role = redis_ask(redis, "ROLE");
        assert_string_equal(role->element[0]->str, "master");
        freeReplyObject(role);
        redisFree(redis);
    }
    kill(sentinels.sentinels[1].pid, SIGCONT);
    kill(sentinels.sentinels[2].pid, SIGCONT);
}

static void test_passwords(void **state)
{
    (void)state;
    expect_found_at(sentinel_fixture_master(&sentinels));
    snprintf(address.password, sizeof address.password, "openwrong");
    expect_none("does not let us in: WRONGPASS");
    parse(sentinels.url);
    snprintf(address.sentinel_password, sizeof address.sentinel_password, "openwrong");
    expect_none("does not let us in: WRONGPASS");
}

static void test_the_owner_of_a_slot(void **state)
{
    static const char *const keys[] = {
        "{doorbuster}:head", "{second}:head", "{third-shop}:head", "a", "b", "c"};
    unsigned owners_seen = 0;
    (void)state;
    expect_found_at(cluster.nodes[cluster.owner].port);
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++) {
        snprintf(address.key, sizeof address.key, "%s", keys[i]);
        redisContext *redis = found();
        assert_true(redis_done(redis_ask(redis, "SET %s 1", keys[i])));
        for (unsigned j = 0; j < CLUSTER_NODES; j++) {
            owners_seen |= redis->tcp.port == cluster.nodes[j].port ? 1u << j : 0;
        }
        redisFree(redis);
    }
    assert_true(owners_seen > 1 && (owners_seen & (owners_seen - 1)) != 0); /* more than one of them */
    snprintf(address.key, sizeof address.key, "%s", KEY);

    redisContext *before = found();
    const char *sha = tcp_redis_do(cluster.nodes[cluster.owner].port, "SCRIPT LOAD return{1}");
    cluster_fixture_fail_over(&cluster);
    expect_script(cluster.nodes[cluster.owner].port, sha, 1);
    expect_script(cluster.nodes[3].port, sha, 0);
    assert_false(redis_done(redis_ask(before, "SET " KEY " 2")));
    assert_true(redis_is_elsewhere(redis_failure()));
    assert_true(redis_is_dead(before)); /* whoever uses it connects anew */
    redisFree(before);
    expect_found_at(cluster.nodes[3].port);
}

/* --- a link ------------------------------------------------------------------------------------------------------------------------- */
static struct {
    uv_loop_t loop;
    struct redis_link *link;
    unsigned ups, downs, replies;
    char said[128];
} test;

static void up_cb(void *context)
{
    (void)context;
    test.ups++;
}

static void down_cb(void *context)
{
    (void)context;
    test.downs++;
}

static void reply_cb(const redisReply *reply, void *context)
{
    (void)context;
    test.replies++;
    snprintf(test.said, sizeof test.said, "%s",
             reply == NULL        ? "broken"
             : reply->str != NULL ? reply->str
                                  : "a number");
}

static void turn(void)
{
    uv_run(&test.loop, UV_RUN_NOWAIT);
    redis_link_flush(test.link);
}

static void open_link(void)
{
    memset(&test, 0, sizeof test);
    assert_int_equal(uv_loop_init(&test.loop), 0);
    test.link = redis_link_new(&test.loop, &(struct redis_link_settings){.name = "test",
                                                                         .address = address,
                                                                         .connect_timeout_ms = 1000,
                                                                         .command_timeout_ms = 1000,
                                                                         .up_cb = up_cb,
                                                                         .down_cb = down_cb});
}

static void close_link(void)
{
    redis_link_close(&test.link);
    while (uv_run(&test.loop, UV_RUN_DEFAULT) != 0) {
    }
    assert_int_equal(uv_loop_close(&test.loop), 0);
}

static void await_ups(unsigned ups, int within_ms)
{
    int64_t deadline = deadline_in(within_ms);
    while (test.ups < ups || !redis_link_is_up(test.link)) {
        turn();
        if (!wait_a_moment(deadline)) {
            fail_msg("up %u times, not %u, within %d ms; said last: %s", test.ups, ups, within_ms, test.said);
        }
    }
}

/* What it said; "" if the link is not up. */
static const char *say(int argc, const char **argv)
{
    unsigned replies = test.replies;
    int64_t deadline = deadline_in(WAIT_MS);
    if (!redis_link_command(test.link, reply_cb, NULL, argc, argv, NULL)) {
        return "";
    }
    while (test.replies == replies) {
        turn();
        assert_true(wait_a_moment(deadline));
    }
    return test.said;
}

#define SAY(...)                                                                                             \
    say((int)(sizeof((const char *[]){__VA_ARGS__}) / sizeof(const char *)), (const char *[]){__VA_ARGS__})

static void test_a_link_follows_a_dead_master(void **state)
{
    (void)state;
    open_link();
    await_ups(1, WAIT_MS);
    assert_string_equal(SAY("SET", KEY, "1"), "OK");
    int old = sentinel_fixture_master(&sentinels);
    tcp_redis_kill(sentinel_fixture_redis_at(&sentinels, old));
    int64_t deadline = deadline_in(WAIT_MS), announced_us = 0;
    while (test.ups < 2) {
        turn();
        if (announced_us == 0 && sentinel_fixture_master(&sentinels) != old) {
            announced_us = now_us();
        }
        assert_true(wait_a_moment(deadline));
    }
    assert_in_range(announced_us != 0 ? now_us() - announced_us : 0, 0, FOLLOW_MS * 1000);
    assert_string_equal(SAY("SET", KEY, "2"), "OK");
    assert_int_equal(test.downs, 1);
    close_link();
}

static void test_a_link_follows_a_failover(void **state)
{
    (void)state;
    tcp_redis_kill(&sentinels.sentinels[0]);
    kill(sentinels.sentinels[1].pid, SIGSTOP); /* passed over */
    open_link();
    await_ups(1, WAIT_MS);
    kill(sentinels.sentinels[1].pid, SIGCONT);
    int old = sentinel_fixture_master(&sentinels);
    redisReply *reply;
    redisContext *sentinel = tcp_redis_connect(sentinels.sentinels[2].port);
    int64_t deadline = deadline_in(WAIT_MS);
    while ((reply = redis_ask(sentinel, "SENTINEL FAILOVER shop")) == NULL) {
        assert_true(wait_a_moment(deadline));
    }
    freeReplyObject(reply);
    redisFree(sentinel);
    while (sentinel_fixture_master(&sentinels) == old || strcmp(SAY("SET", KEY, "3"), "OK") != 0 ||
           test.ups < 2) {
        turn();
        assert_true(wait_a_moment(deadline));
    }
    assert_string_equal(tcp_redis_do(sentinel_fixture_master(&sentinels), "GET " KEY), "3");
    close_link();
}

static void test_a_link_follows_moved(void **state)
{
    (void)state;
    open_link();
    await_ups(1, WAIT_MS);
    assert_string_equal(SAY("SET", KEY, "1"), "OK");
    cluster_fixture_fail_over(&cluster);
    assert_memory_equal(SAY("SET", KEY, "2"), "MOVED", 5);
    assert_false(redis_link_is_up(test.link));
    await_ups(2, FOLLOW_MS);
    assert_string_equal(SAY("SET", KEY, "3"), "OK");
    assert_string_equal(tcp_redis_do(cluster.nodes[3].port, "GET " KEY), "3");
    close_link();
}

/* While a slot moves a call that names a key which is not there is refused as a whole; the link looks again until all is over, on the other node. */
static void test_a_link_waits_for_a_moving_slot(void **state)
{
    unsigned from = cluster.owner, to = (from + 1) % 3;
    (void)state;
    open_link();
    await_ups(1, WAIT_MS);
    assert_string_equal(SAY("SET", KEY, "1"), "OK");
    cluster_fixture_begin_move(&cluster, from, to);
    assert_string_equal(SAY("GET", KEY), "1");
    static const char script[] = "return redis.call('SET', KEYS[1], '2')";
    const char *said = SAY("EVAL", script, "2", KEY, "{doorbuster}:never");
    assert_true(strncmp(said, "ASK", 3) == 0 || strncmp(said, "TRYAGAIN", 8) == 0);
    assert_false(redis_link_is_up(test.link));
    await_ups(2, FOLLOW_MS); /* the key that says whose the slot is has not moved yet */
    said = SAY("EVAL", script, "2", KEY, "{doorbuster}:never");
    assert_false(strcmp(said, "OK") == 0);
    cluster_fixture_end_move(&cluster, from, to);
    int64_t deadline = deadline_in(WAIT_MS);
    while (strcmp(SAY("EVAL", script, "2", KEY, "{doorbuster}:never"), "OK") != 0) {
        turn();
        assert_true(wait_a_moment(deadline));
    }
    assert_string_equal(tcp_redis_do(cluster.nodes[to].port, "GET " KEY), "2");
    close_link();
}

/* --- names ----------------------------------------------------------------------------------------------------------------------------- */
static void test_a_link_looks_names_up(void **state)
{
    struct tcp_redis redis = {0};
    char folder[FOLDER_BYTES];
    (void)state;
    folder_make(folder);
    tcp_redis_start(&redis, folder, "redis", NULL);
    address = (struct redis_address){.host = "localhost", .port = redis.port};
    open_link();
    await_ups(1, WAIT_MS);
    assert_string_equal(SAY("SET", "a", "1"), "OK");
    close_link();

    snprintf(address.host, sizeof address.host, "no-such-host.invalid");
    open_link();
    int64_t deadline = deadline_in(300);
    while (wait_a_moment(deadline)) {
        turn();
        assert_false(redis_link_is_up(test.link));
    }
    close_link(); /* also in the middle of a look-up */
    open_link();
    turn();
    close_link();
    tcp_redis_kill(&redis);
    folder_remove(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_a_master_by_its_sentinels, begin_sentinels, end_sentinels),
        cmocka_unit_test_setup_teardown(test_a_master_that_is_none, begin_sentinels, end_sentinels),
        cmocka_unit_test_setup_teardown(test_passwords, begin_sentinels_with_passwords, end_sentinels),
        cmocka_unit_test_setup_teardown(test_a_link_follows_a_dead_master, begin_sentinels, end_sentinels),
        cmocka_unit_test_setup_teardown(test_a_link_follows_a_failover, begin_sentinels, end_sentinels),
        cmocka_unit_test_setup_teardown(test_the_owner_of_a_slot, begin_cluster, end_cluster),
        cmocka_unit_test_setup_teardown(test_a_link_follows_moved, begin_cluster, end_cluster),
        cmocka_unit_test_setup_teardown(test_a_link_waits_for_a_moving_slot, begin_cluster, end_cluster),
        cmocka_unit_test(test_a_link_looks_names_up),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
