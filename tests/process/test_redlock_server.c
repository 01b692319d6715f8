/* The server with the Redlock gate: its settings, and the real processes through a small sale: bought, sold out, restocked, cancelled, audited; and
 * any one of them killed in between. */
#include "testing.h"

#include "acl.h"
#include "redis_fixture.h"
#include "refusal.h"
#include "server_fixture.h"
#include "tcp_redis.h"
#include "tool.h"

#include "doorbuster/gate_place.h"

#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

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
#ifdef DOORBUSTER_FAILPOINTS
static void test_no_majority_at_start(void **state)
{
    char nodes[256];
    struct redis_fixture redis;
    (void)state;
    expect_giving_up(ARGUMENTS(REDLOCK, "--redlock-nodes", "127.0.0.1:1,127.0.0.1:2,127.0.0.1:3"),
                     WORDS("3 of 3 lock nodes are missing", "majority", "Connection refused"));
    redis_fixture_start(&redis, false);
    snprintf(nodes, sizeof nodes, "127.0.0.1:1,127.0.0.1:2,unix:%s", redis.address.path);
    expect_giving_up(ARGUMENTS(REDLOCK, "--redlock-nodes", nodes),
                     WORDS("2 of 3 lock nodes are missing", "node 1", "Connection refused"));
    redis_fixture_end(&redis);
}
#endif

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

/* One user for all of them, who may do what the handbook says; a password with a comma. */
static void start_nodes_with_a_user(struct tcp_redis nodes[3], char list[512])
{
    size_t used = 0;
    for (size_t i = 0; i < 3; i++) {
        char name[16];
        snprintf(name, sizeof name, "node%zu", i);
        tcp_redis_start(&nodes[i], folder, name, NULL);
        acl_make_user(nodes[i].port, "locks");
        used += (size_t)snprintf(list + used, 512 - used, "%sredis://locks:%s@%s:%d", i > 0 ? "," : "",
                                 ACL_PASSWORD_IN_URL, i == 0 ? "[::1]" : "localhost", nodes[i].port);
    }
}

/* --- a sale ------------------------------------------------------------------------------------------------------------------------ */
static struct tool_shop shop;

static void open_shop_with(const char *const *arguments, const char *const *environment)
{
    shop = (struct tool_shop){0};
    server_fixture_begin(&shop.server);
    server_fixture_start(&shop.server, 2, arguments, environment);
    shop.buyer = server_fixture_add_users(&shop.server, 1);
    server_fixture_token(&shop.server, shop.buyer, USER_BUYER, shop.token);
}

static void open_shop(const char *const *arguments)
{
    open_shop_with(arguments, NULL);
}

static int end_shop(void **state)
{
    (void)state;
    tool_shop_end(&shop);
    return 0;
}

/* One purchase of TOOL_QUANTITY: its status. */
static int buy(int64_t product, int64_t *order)
{
    char body[96];
    snprintf(body, sizeof body, "{\"product_id\":%" PRId64 ",\"quantity\":%d}", product, TOOL_QUANTITY);
    return tool_shop_ask(&shop, "POST", "/api/purchases", body, order);
}

/* Until it is confirmed: whoever was killed takes connections along, and what it held comes back. */
static void buy_in_the_end(int64_t product)
{
    int64_t deadline = deadline_in(PATIENCE_MS);
    int status;
    while ((status = buy(product, NULL)) != 201) {
        if (status != 0 && status != 503) {
            fail_msg("a purchase was answered %d", status);
        }
        assert_true(wait_a_moment(deadline));
    }
}

static void restock(int64_t product, int delta)
{
    char target[96], body[96], token[JWT_TOKEN_BYTES_MAX];
    memcpy(token, shop.token, sizeof token);
    server_fixture_token(&shop.server, 1, USER_ADMIN, shop.token);
    snprintf(target, sizeof target, "/api/admin/products/%" PRId64 "/stock", product);
    snprintf(body, sizeof body, "{\"delta\":%d,\"reason\":\"more\"}", delta);
    assert_int_equal(tool_shop_ask(&shop, "POST", target, body, NULL), 200);
    memcpy(shop.token, token, sizeof token);
}

static void await_metric(const char *name, int64_t at_least)
{
    int64_t deadline = deadline_in(PATIENCE_MS);
    while (server_fixture_metric(&shop.server, name) < at_least) {
        if (!wait_a_moment(deadline)) {
            fail_msg("%s is %" PRId64, name, server_fixture_metric(&shop.server, name));
        }
    }
}

static redisContext *private_node(unsigned number)
{
    char error[512];
    struct redis_address address = {0};
    snprintf(address.path, sizeof address.path, "%s/node%u.sock", shop.server.data, number);
    redisContext *redis = redis_connect_blocking(&address, 5000, error, sizeof error);
    if (redis == NULL) {
        fail_msg("%s", error);
    }
    return redis;
}

static void test_a_small_sale(void **state)
{
    char target[64];
    int64_t order;
    (void)state;
    open_shop(LIST("--gate", "redlock", "--redis", "redis://127.0.0.1:1")); /* which it has no use for */
    assert_true(server_fixture_logged(&shop.server, ", Redlock gate over 5 private nodes\""));
    int64_t product = server_fixture_add_product(&shop.server, 3 * TOOL_QUANTITY, 0);
    tool_shop_sell(&shop, product, 5);
    assert_int_equal(shop.ledger.confirmed, 3);
    assert_int_equal(shop.ledger.sold_out, 2);
    ledger_check_store(&shop.ledger, shop.server.store_url);
    restock(product, TOOL_QUANTITY);
    assert_int_equal(buy(product, &order), 201);
    assert_int_equal(buy(product, NULL), 400);
    snprintf(target, sizeof target, "/api/purchases/%" PRId64, order);
    assert_int_equal(tool_shop_ask(&shop, "DELETE", target, NULL, NULL), 200);
    assert_int_equal(buy(product, NULL), 201);
    assert_int_equal(buy(product, NULL), 400);
    server_fixture_verify(&shop.server, 0);
    server_fixture_stop(&shop.server);
}

/* The order of deaths that a bad day may bring; after each the sale goes on. */
static void test_any_one_may_be_killed(void **state)
{
    static const char *const titles[] = {"doorbuster: worker 0", "doorbuster: keeper", "doorbuster: worker 1",
                                         "redis-server unixsocket:"};
    pid_t pids[GATE_NODES_SPAWNED];
    (void)state;
    open_shop(LIST("--gate", "redlock"));
    int64_t product = server_fixture_add_product(&shop.server, 1000, 0);
    for (size_t i = 0; i < sizeof titles / sizeof titles[0]; i++) {
        buy_in_the_end(product);
        assert_true(server_fixture_find(&shop.server, titles[i], pids, GATE_NODES_SPAWNED) >= 1);
        kill(pids[0], SIGKILL);
        buy_in_the_end(product);
        await_metric("process_restarts", (int64_t)i + 1);
        buy_in_the_end(product);
    }
    await_metric("nodes_refilled", 1);
    server_fixture_verify(&shop.server, 0);
    server_fixture_stop(&shop.server);
}

/* The keeper's mark is on it: what it forgets from now on it has known. A server is ready when a majority votes; the others are filled later. */
static void await_filled(redisContext *redis)
{
    int64_t deadline = deadline_in(PATIENCE_MS);
    size_t marks = 0;
    do {
        redisReply *reply = redis_ask(redis, "KEYS {doorbuster}:stock:*:0");
        assert_non_null(reply);
        marks = reply->elements;
        freeReplyObject(reply);
        assert_true(marks > 0 || wait_a_moment(deadline));
    } while (marks == 0);
}

static void test_what_a_hand_does_to_nodes_is_put_right(void **state)
{
    (void)state;
    open_shop(LIST("--gate", "redlock"));
    int64_t product = server_fixture_add_product(&shop.server, 1000, 0);
    buy_in_the_end(product);
    redisContext *redis = private_node(2);
    await_filled(redis);
    redis_do(redis, "FLUSHALL");
    await_metric("nodes_refilled", 1);
    redisReply *keys = redis_ask(redis, "KEYS {doorbuster}:stock:*:%lld", (long long)product);
    assert_non_null(keys);
    assert_int_equal(keys->elements, 1);
    redis_do(redis, "SET %s %s", keys->element[0]->str, "0 999999 1"); /* sold out, says one node for ever */
    freeReplyObject(keys);
    redisFree(redis);
    await_metric("nodes_healed", 1);
    buy_in_the_end(product);
    server_fixture_verify(&shop.server, 0);
    server_fixture_stop(&shop.server);
}

/* Many workers' figures are on their way to the nodes all the time: the keeper takes none of them for a fault. */
#define BUYERS 64
#define PURCHASES 40 /* of each */

static struct crowd *crowd;
static int64_t crowd_product;
static unsigned asked[BUYERS], crowd_confirmed;

static void buy_again(void *context, size_t client, const struct crowd_answer *answer)
{
    (void)context;
    crowd_confirmed += answer->status == 201;
    if (asked[client]++ < PURCHASES) {
        crowd_buy(crowd, client, shop.token, crowd_product, 1);
    }
}

static void test_a_busy_sale_heals_nothing(void **state)
{
    (void)state;
    open_shop(LIST("--gate", "redlock"));
    crowd_product = server_fixture_add_product(&shop.server, BUYERS * PURCHASES, 0);
    crowd = crowd_new(shop.server.port, BUYERS, buy_again, NULL);
    for (size_t i = 0; i < BUYERS; i++) {
        asked[i] = 1;
        crowd_buy(crowd, i, shop.token, crowd_product, 1);
    }
    assert_true(crowd_finish(crowd, 3 * PATIENCE_MS));
    crowd_free(&crowd);
    assert_int_equal(crowd_confirmed, BUYERS * PURCHASES);
    server_fixture_verify(&shop.server, 0);
    assert_int_equal(server_fixture_metric(&shop.server, "nodes_healed"), 0);
    assert_int_equal(server_fixture_metric(&shop.server, "nodes_refilled"), 0);
    server_fixture_stop(&shop.server);
}

/* SIGHUP: the workers are replaced one by one, and nobody is refused. */
static void test_workers_are_replaced(void **state)
{
    pid_t before[2], after[2];
    (void)state;
    open_shop(LIST("--gate", "redlock"));
    int64_t product = server_fixture_add_product(&shop.server, 100000, 0);
    assert_int_equal(server_fixture_find(&shop.server, "doorbuster: worker", before, 2), 2);
    kill(shop.server.pid, SIGHUP);
    int64_t deadline = deadline_in(PATIENCE_MS);
    while (!server_fixture_logged(&shop.server, "all workers replaced")) {
        assert_int_equal(buy(product, NULL), 201);
        assert_true(wait_a_moment(deadline));
    }
    assert_true(server_fixture_wait_gone(before, 2, PATIENCE_MS));
    assert_int_equal(server_fixture_find(&shop.server, "doorbuster: worker", after, 2), 2);
    assert_int_equal(buy(product, NULL), 201);
    server_fixture_verify(&shop.server, 0);
    server_fixture_stop(&shop.server);
}

static void test_nodes_go_with_an_orphaned_keeper(void **state)
{
    pid_t children[SERVER_CHILDREN_MAX];
    (void)state;
    open_shop(LIST("--gate", "redlock"));
    size_t count = server_fixture_children(&shop.server, children, SERVER_CHILDREN_MAX);
    assert_int_equal(count, GATE_NODES_SPAWNED + 3);
    server_fixture_kill_supervisor(&shop.server);
    assert_true(server_fixture_wait_gone(children, count, PATIENCE_MS));
    server_fixture_start(&shop.server, 1, LIST("--gate", "redlock"), NULL);
    server_fixture_stop(&shop.server);
}

/* Whoever was killed with everything else cannot shut its nodes down: the next server does. */
static void test_leftover_nodes_are_ended(void **state)
{
    pid_t children[SERVER_CHILDREN_MAX], nodes[GATE_NODES_SPAWNED];
    (void)state;
    open_shop(LIST("--gate", "redlock"));
    size_t count = server_fixture_children(&shop.server, children, SERVER_CHILDREN_MAX);
    assert_int_equal(server_fixture_find(&shop.server, "redis-server", nodes, GATE_NODES_SPAWNED),
                     GATE_NODES_SPAWNED);
    kill(server_fixture_child(&shop.server, "doorbuster: keeper"),
         SIGSTOP); /* so that it does nothing more */
    pid_t keeper = server_fixture_child(&shop.server, "doorbuster: keeper");
    server_fixture_kill_supervisor(&shop.server);
    kill(keeper, SIGKILL);
    for (size_t i = 0; i < count; i++) {
        bool is_node = false;
        for (size_t j = 0; j < GATE_NODES_SPAWNED; j++) {
            is_node = is_node || children[i] == nodes[j];
        }
        if (!is_node) {
            assert_true(server_fixture_wait_gone(&children[i], 1, PATIENCE_MS));
        }
    }
    server_fixture_start(&shop.server, 1, LIST("--gate", "redlock"), NULL);
    assert_true(server_fixture_logged(&shop.server, "left its private redis-server running"));
    assert_true(server_fixture_wait_gone(nodes, GATE_NODES_SPAWNED, PATIENCE_MS));
    server_fixture_stop(&shop.server);
}

/* It keeps nothing, so it is not waited for long. */
static void test_a_hung_node_does_not_hold_the_server_up(void **state)
{
    pid_t nodes[GATE_NODES_SPAWNED];
    (void)state;
    open_shop(LIST("--gate", "redlock"));
    int64_t product = server_fixture_add_product(&shop.server, 1000, 0);
    assert_int_equal(server_fixture_find(&shop.server, "redis-server", nodes, GATE_NODES_SPAWNED),
                     GATE_NODES_SPAWNED);
    kill(nodes[0], SIGSTOP);
    kill(nodes[1], SIGSTOP);
    buy_in_the_end(product);
    buy_in_the_end(product);
    server_fixture_verify(&shop.server, 0);
    shop.server.bug_lines_allowed = true; /* "does not end; killing it" */
    int64_t began = now_us();
    server_fixture_stop(&shop.server);
    assert_in_range(now_us() - began, 0, 15000000);
}

/* By the id the locks of this server's dead are known in its next run. */
static void test_the_servers_id_is_kept(void **state)
{
    char path[3 * FOLDER_BYTES];
    struct stat facts;
    (void)state;
    open_shop(LIST("--gate", "redlock"));
    server_fixture_stop(&shop.server);
    snprintf(path, sizeof path, "%s/server.id", shop.server.data);
    assert_int_equal(stat(path, &facts), 0);
    assert_int_equal(facts.st_mode & 07777, 0600);
    char *first = file_read(path);
    assert_int_equal(strspn(first, "0123456789abcdef"), 16);
    server_fixture_start(&shop.server, 1, LIST("--gate", "redlock"), NULL);
    server_fixture_stop(&shop.server);
    char *second = file_read(path);
    assert_string_equal(first, second);
    assert_int_equal(truncate(path, 5), 0);
    server_fixture_start(&shop.server, 1, LIST("--gate", "redlock"), NULL);
    assert_true(server_fixture_logged(&shop.server, "server.id is no server's id; making a new one"));
    server_fixture_stop(&shop.server);
    char *third = file_read(path);
    assert_int_equal(strspn(third, "0123456789abcdef"), 16);
    assert_string_not_equal(first, third);
    free(first);
    free(second);
    free(third);
}

/* A minority that is away at start is done without. */
static void test_nodes_of_others(void **state)
{
    struct redis_fixture nodes[3];
    char list[512];
    (void)state;
    for (size_t i = 0; i < 3; i++) {
        redis_fixture_start(&nodes[i], false);
    }
    snprintf(list, sizeof list, "127.0.0.1:1,unix:%s,unix:%s,127.0.0.1:2,unix:%s", nodes[0].address.path,
             nodes[1].address.path, nodes[2].address.path);
    open_shop(LIST("--gate", "redlock", "--redlock-nodes", list));
    assert_true(server_fixture_logged(&shop.server, ", Redlock gate over 5 nodes\""));
    assert_true(server_fixture_logged(&shop.server, "lock node 1 is missing, and is done without"));
    assert_true(server_fixture_logged(&shop.server, "lock node 4 is missing, and is done without"));
    int64_t product = server_fixture_add_product(&shop.server, 1000, 0);
    buy_in_the_end(product);
    buy_in_the_end(product);
    tool_expect(&shop.server, "verify", LIST("--redlock-nodes", list), 0, "");
    server_fixture_stop(&shop.server);
    for (size_t i = 0; i < 3; i++) {
        redis_fixture_end(&nodes[i]);
    }
}

/* One store, three servers after each other. */
static void run_tool(const char *tool, const char *argument, const char *variable)
{
    struct run_result result = tool_run(&shop.server, tool, LIST(argument), ENVIRONMENT(variable));
    if (result.exit_code != 0) {
        fail_msg("%s: %s%s", tool, result.out, result.err);
    }
    run_result_free(&result);
}

static void test_nodes_with_a_user(void **state)
{
    struct tcp_redis nodes[3] = {0};
    char list[512], wrong[512], variable[600];
    begin_folder(state);
    start_nodes_with_a_user(nodes, list);
    snprintf(wrong, sizeof wrong, "redis://locks:openwrong@[::1]:%d", nodes[0].port);
    expect_refusal(ARGUMENTS(REDLOCK, "--redlock-nodes", wrong), NULL,
                   WORDS("1 of 1 lock nodes", "the first is node 1: Redis at redis://[::1]",
                         "does not let the user \"locks\" in: WRONGPASS"));
    tcp_redis_do(nodes[0].port, "ACL LOG RESET");
    assert_int_equal(setenv("LOCK_TIMEOUT_SECONDS", "1", 1), 0);
    snprintf(variable, sizeof variable, "REDIS_NODES=%s", list);
    open_shop_with(LIST("--gate", "redlock"), ENVIRONMENT(variable));
    int64_t product = server_fixture_add_product(&shop.server, 100, 0);
    buy_in_the_end(product);
    restock(product, 10);
    kill(server_fixture_child(&shop.server, "doorbuster: worker 0"), SIGKILL); /* whose locks are deleted */
    await_metric("process_restarts", 1);
    buy_in_the_end(product);
    tcp_redis_do(nodes[1].port, "FLUSHALL");
    await_metric("nodes_refilled", 1);
    run_tool("setup", "--gate=redlock", variable);
    run_tool("verify", "--repair", variable);
    assert_false(server_fixture_logged(&shop.server, "sesame"));
    for (size_t i = 0; i < 3; i++) {
        acl_expect_enough(nodes[i].port, "locks");
    }
    server_fixture_stop(&shop.server);
    unsetenv("LOCK_TIMEOUT_SECONDS");
    for (size_t i = 0; i < 3; i++) {
        tcp_redis_kill(&nodes[i]);
    }
    end_folder(state);
}

static void test_from_one_gate_to_the_other_and_back(void **state)
{
    static const char *const gates[] = {"lua", "redlock", "lua", "redlock"};
    int64_t product = 0;
    (void)state;
    for (size_t i = 0; i < sizeof gates / sizeof gates[0]; i++) {
        if (i == 0) {
            open_shop(LIST("--gate", gates[i]));
            product = server_fixture_add_product(&shop.server, 5 * TOOL_QUANTITY, 0);
        } else {
            server_fixture_start(&shop.server, 1, LIST("--gate", gates[i]), NULL);
        }
        buy_in_the_end(product);
        server_fixture_verify(&shop.server, 0);
        if (i == sizeof gates / sizeof gates[0] - 1) {
            assert_int_equal(buy(product, NULL), 201);
            assert_int_equal(buy(product, NULL), 400);
            server_fixture_verify(&shop.server, 0);
        }
        server_fixture_stop(&shop.server);
    }
}

int main(void)
{
#define IN_FOLDER(test) cmocka_unit_test_setup_teardown(test, begin_folder, end_folder)
#define IN_SHOP(test) cmocka_unit_test_teardown(test, end_shop)
    const struct CMUnitTest tests[] = {
        IN_FOLDER(test_gates),
        IN_FOLDER(test_lists_of_nodes),
        IN_FOLDER(test_times_and_attempts),
        IN_FOLDER(test_private_nodes_need_a_short_path),
#ifdef DOORBUSTER_FAILPOINTS
        IN_FOLDER(test_no_majority_at_start),
#endif
        IN_FOLDER(test_one_redis_under_two_names),
        IN_FOLDER(test_a_replica_is_no_node),
        IN_SHOP(test_a_small_sale),
        IN_SHOP(test_any_one_may_be_killed),
        IN_SHOP(test_what_a_hand_does_to_nodes_is_put_right),
        IN_SHOP(test_a_busy_sale_heals_nothing),
        IN_SHOP(test_workers_are_replaced),
        IN_SHOP(test_nodes_go_with_an_orphaned_keeper),
        IN_SHOP(test_leftover_nodes_are_ended),
        IN_SHOP(test_a_hung_node_does_not_hold_the_server_up),
        IN_SHOP(test_the_servers_id_is_kept),
        IN_SHOP(test_nodes_of_others),
        IN_SHOP(test_nodes_with_a_user),
        IN_SHOP(test_from_one_gate_to_the_other_and_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
