/* The server with the Redlock gate: its settings, and the real processes through a small sale: bought, sold out, restocked, cancelled, audited; and
 * any one of them killed in between. */
#include "testing.h"

#include "redis_fixture.h"
#include "refusal.h"
#include "server_fixture.h"
#include "tool.h"

#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#define LISTEN "--listen", "127.0.0.1:0"
#define REDLOCK LISTEN, "--data", data, "--gate", "redlock"
#define PATIENCE_MS 20000

static char folder[FOLDER_BYTES], data[FOLDER_BYTES + 16];

static int begin_folder(void **state)
{
    (void)state;
    folder_make(folder);
    snprintf(data, sizeof data, "%s/data", folder);
    return 0;
}

static int end_folder(void **state)
{
    (void)state;
    folder_remove(folder);
    return 0;
}

/* --- settings ---------------------------------------------------------------------------------------------------------------------- */
static void test_gates(void **state)
{
    (void)state;
    expect_refusal(ARGUMENTS(LISTEN, "--data", data, "--gate", "blue"), NULL,
                   WORDS("--gate", "blue", "lua or redlock"));
    expect_refusal(ARGUMENTS(LISTEN, "--data", data), ENVIRONMENT("DOORBUSTER_GATE=Redlock"),
                   WORDS("DOORBUSTER_GATE", "Redlock", "lua or redlock"));
}

static void test_lists_of_nodes(void **state)
{
    static const struct {
        const char *list, *words;
    } lists[] = {
        {"127.0.0.1:7001,127.0.0.1:7002", "2 nodes; it may be an odd number"},
        {"a:1,a:2,a:3,a:4,a:5,a:6,a:7,a:8,a:9,a:10", "more than 9 nodes"},
        {"a:1,b:1,a:1", "nodes 1 and 3 are the same Redis"},
        {"spwan", "node 1: \"spwan\""},
        {"a:1,b,c:1", "node 2: \"b\""},
        {"a:1,b:99999,c:1", "node 2: \"b:99999\""},
        {"http://a:1", "node 1: \"http://a:1\""},
        {"a:1,", "node 2: \"\""},
    };
    (void)state;
    for (size_t i = 0; i < sizeof lists / sizeof lists[0]; i++) {
        char variable[256];
        expect_refusal(ARGUMENTS(REDLOCK, "--redlock-nodes", lists[i].list), NULL,
                       WORDS("--redlock-nodes", lists[i].words));
        snprintf(variable, sizeof variable, "REDIS_NODES=%s", lists[i].list);
        expect_refusal(ARGUMENTS(REDLOCK), ENVIRONMENT(variable), WORDS("REDIS_NODES", lists[i].words));
    }
    struct run_result result =
        program_run(ARGUMENTS(REDLOCK, "--redlock-nodes", "redis://:opensesame@:x"), NULL, REFUSAL_MS);
    assert_int_equal(result.exit_code, 2);
    assert_null(strstr(result.err, "opensesame"));
    run_result_free(&result);
}

static void test_times_and_attempts(void **state)
{
    static const struct {
        const char *variable, *words;
    } bad[] = {
        {"LOCK_TIMEOUT_SECONDS=0", "from 1 to 60"},       {"LOCK_TIMEOUT_SECONDS=61", "from 1 to 60"},
        {"LOCK_TIMEOUT_SECONDS=1.5", "from 1 to 60"},     {"LOCK_RETRY_ATTEMPTS=0", "from 1 to 100"},
        {"LOCK_RETRY_ATTEMPTS=101", "from 1 to 100"},     {"LOCK_RETRY_DELAY_MS=0", "from 1 to 10000"},
        {"LOCK_RETRY_DELAY_MS=10001", "from 1 to 10000"}, {"LOCK_RETRY_DELAY_MS=-1", "from 1 to 10000"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        char name[64];
        snprintf(name, sizeof name, "%.*s", (int)strcspn(bad[i].variable, "="), bad[i].variable);
        expect_refusal(ARGUMENTS(REDLOCK), ENVIRONMENT(bad[i].variable), WORDS(name, bad[i].words));
    }
}

static void test_private_nodes_need_a_short_path(void **state)
{
    char path[3 * FOLDER_BYTES];
    (void)state;
    snprintf(path, sizeof path, "%s/%0100d", folder, 1);
    expect_refusal(ARGUMENTS(LISTEN, "--data", path, "--gate", "redlock"), NULL,
                   WORDS("Unix socket", "shorter path"));
    expect_refusal(ARGUMENTS(REDLOCK), ENVIRONMENT("PATH=/nonexistent"),
                   WORDS("redis-server", "install", "--redlock-nodes"));
}

/* --- nodes of other people --------------------------------------------------------------------------------------------------------- */
static void test_no_majority_at_start(void **state)
{
    char nodes[256];
    struct redis_fixture redis;
    (void)state;
    expect_refusal(ARGUMENTS(REDLOCK, "--redlock-nodes", "127.0.0.1:1,127.0.0.1:2,127.0.0.1:3"), NULL,
                   WORDS("3 of 3 lock nodes are missing", "majority", "Connection refused"));
    redis_fixture_start(&redis, false);
    snprintf(nodes, sizeof nodes, "127.0.0.1:1,127.0.0.1:2,unix:%s", redis.address.path);
    expect_refusal(ARGUMENTS(REDLOCK, "--redlock-nodes", nodes), NULL,
                   WORDS("2 of 3 lock nodes are missing", "node 1", "Connection refused"));
    redis_fixture_end(&redis);
}

/* It would have two votes. */
static void test_one_redis_under_two_names(void **state)
{
    char nodes[512];
    struct redis_fixture redis;
    (void)state;
    redis_fixture_start(&redis, false);
    snprintf(nodes, sizeof nodes, "127.0.0.1:1,unix:%s,unix:/.%s", redis.address.path, redis.address.path);
    expect_refusal(ARGUMENTS(REDLOCK, "--redlock-nodes", nodes), NULL,
                   WORDS("node 3", "same Redis as node 2", "--redlock-nodes"));
    redis_fixture_end(&redis);
}

/* What is told to a replica by others is not its own word. */
static void test_a_replica_is_no_node(void **state)
{
    char nodes[256];
    struct redis_fixture redis;
    (void)state;
    redis_fixture_start(&redis, false);
    redisContext *hand = redis_fixture_connect(&redis);
    redis_do(hand, "REPLICAOF 127.0.0.1 1");
    redisFree(hand);
    snprintf(nodes, sizeof nodes, "unix:%s", redis.address.path);
    expect_refusal(ARGUMENTS(REDLOCK, "--redlock-nodes", nodes), NULL,
                   WORDS("node 1", "replica", "--redlock-nodes"));
    redis_fixture_end(&redis);
}

int main(void)
{
#define IN_FOLDER(test) cmocka_unit_test_setup_teardown(test, begin_folder, end_folder)
    const struct CMUnitTest tests[] = {
        IN_FOLDER(test_gates),
        IN_FOLDER(test_lists_of_nodes),
        IN_FOLDER(test_times_and_attempts),
        IN_FOLDER(test_private_nodes_need_a_short_path),
        IN_FOLDER(test_no_majority_at_start),
        IN_FOLDER(test_one_redis_under_two_names),
        IN_FOLDER(test_a_replica_is_no_node),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
