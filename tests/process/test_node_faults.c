/* The nodes of the Redlock gate in a running sale: they go, come back empty, answer late, twice or never; servers are cut off from them; processes
 * that hold a lock are stopped past its end or killed. Real servers with several workers, five real nodes, all else as in production. Judged by the
 * store: nothing is sold twice, nothing that was confirmed is missing, and what can go on goes on. */
#include "testing.h"

#ifdef DOORBUSTER_FAILPOINTS
#include "failpoints.h"
#endif
#include "http_client.h"
#include "proxy.h"
#include "redis_fixture.h"
#include "sale_fixture.h"
#include "tool.h"

#include "doorbuster/json.h"

#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NODES 5
#define SERVERS 2
#define LIST_BYTES (NODES * (FOLDER_BYTES + 32))
#define WORKERS 3
#define BUYERS 60
#define PLENTY 1000000
#define TTL_MS 1000
#define ANSWER_MS 5500 /* a purchase's 5 s and a little */
#define HELD_MS 200    /* until nobody sells any more by a lock that was had before */
#define ENOUGH 100     /* purchases that show that a sale goes on */

static struct {
    struct sale_fixture sale;
    struct server_fixture other; /* a second server on the same store, or not begun */
    struct redis_fixture nodes[NODES];
    struct proxy proxies[SERVERS][NODES];
    char paths[SERVERS][NODES][FOLDER_BYTES + 32];
    int64_t store_id;
    int64_t scarce; /* a product of which there is one */
} test;

/* --- the nodes ---------------------------------------------------------------------------------------------------------------- */
static void start_nodes(void)
{
    for (size_t i = 0; i < NODES; i++) {
        redis_fixture_start(&test.nodes[i], false);
    }
}

/* The nodes' addresses for a server, each behind a proxy of this server's or not. */
static void list_nodes(size_t server, bool proxies, char list[LIST_BYTES])
{
    size_t used = 0;
    for (size_t i = 0; i < NODES; i++) {
        const char *path = test.nodes[i].address.path;
        if (proxies) {
            snprintf(test.paths[server][i], sizeof test.paths[server][i], "%s/link%zu.sock",
                     test.nodes[i].folder, server);
            proxy_start_for(&test.proxies[server][i], test.paths[server][i], path, "{doorbuster}:");
            path = test.paths[server][i];
        }
        used += (size_t)snprintf(list + used, LIST_BYTES - used, "%sunix:%s", i > 0 ? "," : "", path);
        assert_in_range(used, 1, LIST_BYTES - 1);
    }
}

static void for_nodes(size_t server, size_t first, size_t count, enum proxy_action action, int ms, int times)
{
    for (size_t i = first; i < first + count; i++) {
        proxy_do(&test.proxies[server][i], action, ms, times);
    }
}

static void calm_nodes(size_t server)
{
    for (size_t i = 0; i < NODES; i++) {
        assert_true(proxy_calm(&test.proxies[server][i], SALE_PATIENCE_MS));
    }
}

/* What a node, private or not, has under a key; "" if it has nothing. */
static void read_node(size_t node, const char *key, char out[128])
{
    char error[512];
    struct redis_address address = test.nodes[node].address;
    if (address.path[0] == '\0') {
        snprintf(address.path, sizeof address.path, "%s/node%zu.sock", test.sale.server.data, node + 1);
    }
    redisContext *redis = redis_connect_blocking(&address, SALE_PATIENCE_MS, error, sizeof error);
    if (redis == NULL) {
        fail_msg("%s", error);
    }
    redisReply *reply = redisCommand(redis, "GET %s", key);
    assert_non_null(reply);
    snprintf(out, 128, "%s", reply->type == REDIS_REPLY_STRING ? reply->str : "");
    freeReplyObject(reply);
    redisFree(redis);
}

/* --- health ------------------------------------------------------------------------------------------------------------------- */
/* "13": nodes 1 and 3 are missing. */
static void read_missing(const char *body, char numbers[NODES + 1])
{
    size_t count = 0;
    cJSON *json = json_parse_object(body, strlen(body));
    assert_non_null(json);
    const cJSON *each;
    cJSON_ArrayForEach(each, cJSON_GetObjectItemCaseSensitive(json, "missing"))
    {
        unsigned node;
        if (sscanf(each->valuestring, "lock node %u ", &node) == 1) {
            assert_in_range(node, 1, NODES);
            assert_in_range(count, 0, NODES - 1);
            numbers[count++] = (char)('0' + node);
        }
    }
    numbers[count] = '\0';
    cJSON_Delete(json);
}

static void await_ready(const struct server_fixture *server, int status, const char *missing)
{
    char body[4096], numbers[NODES + 1];
    int64_t deadline = deadline_in(SALE_PATIENCE_MS);
    for (;;) {
        int heard = server_fixture_get(server, "/health/ready", body, sizeof body);
        read_missing(body, numbers);
        if (heard == status && strcmp(numbers, missing) == 0) {
            return;
        }
        if (!wait_a_moment(deadline)) {
            fail_msg("not %d without %s, but %d: %s", status, missing, heard, body);
        }
    }
}

/* --- the sale ----------------------------------------------------------------------------------------------------------------- */
static void begin_sale(const char *const *environment)
{
    struct store *store;
    struct store_position position;
    char error[512];
    sale_fixture_begin(&test.sale, WORKERS, BUYERS, NULL, environment);
    assert_int_equal(store_open(&store, test.sale.server.store_url, STORE_READER, error, sizeof error),
                     STORE_OK);
    assert_int_equal(store_position(store, &position), STORE_OK);
    store_close(&store);
    test.store_id = position.store_id;
    await_ready(&test.sale.server, 200, "");
}

static void buy_until_more(size_t orders)
{
    size_t goal = test.sale.ledger.confirmed + orders;
    int64_t deadline = deadline_in(SALE_PATIENCE_MS);
    while (test.sale.ledger.confirmed < goal) {
        if (!wait_a_moment(deadline)) {
            fail_msg("the sale does not go on: %zu confirmed, %zu unavailable, %zu broken",
                     test.sale.ledger.confirmed, test.sale.ledger.unavailable, test.sale.ledger.broken);
        }
    }
}

static void await_all_answers(void)
{
    for (size_t i = 0; i < BUYERS; i++) {
        sale_fixture_await_answer(&test.sale, i);
    }
}

/* Every figure that a node has is the store's. */
static void await_figures(size_t node)
{
    int64_t deadline = deadline_in(SALE_PATIENCE_MS);
    for (size_t i = 0; i < test.sale.product_count; i++) {
        int64_t product = test.sale.products[i], stock = sale_fixture_product(&test.sale, product).stock;
        char key[96], text[128];
        snprintf(key, sizeof key, "{doorbuster}:stock:%" PRId64 ":%" PRId64, test.store_id, product);
        for (;;) {
            read_node(node, key, text);
            if (text[0] != '\0' && strtoll(text, NULL, 10) == stock) {
                break;
            }
            if (!wait_a_moment(deadline)) {
                fail_msg("node %zu says of product %" PRId64 " \"%s\", the store %" PRId64, node + 1, product,
                         text, stock);
            }
        }
    }
}

/* One purchase on another path: the answer's status, and whether it says when to come again. */
static int buy_at(const char *path, int64_t product, bool *retry_after)
{
    char headers[JWT_TOKEN_BYTES_MAX + 128], body[96], value[32];
    struct http_client client = {.fd = -1, .host = "127.0.0.1", .port = test.sale.server.port};
    struct http_answer answer;
    snprintf(headers, sizeof headers, "Authorization: Bearer %s\r\nContent-Type: application/json\r\n",
             test.sale.buyers[0].token);
    snprintf(body, sizeof body, "{\"product_id\":%" PRId64 ",\"quantity\":1}", product);
    assert_int_equal(http_client_call(&client, "POST", path, headers, body, &answer, SALE_PATIENCE_MS),
                     HTTP_CLIENT_OK);
    int status = answer.status;
    *retry_after = http_answer_header(&answer, "Retry-After", value, sizeof value) != NULL;
    http_answer_free(&answer);
    http_client_close(&client);
    return status;
}

/* --- nodes that go and come back: one sale, test after test ------------------------------------------------------------------- */
static int begin_with_nodes(void **state)
{
    char list[LIST_BYTES];
    (void)state;
    start_nodes();
    list_nodes(0, false, list);
    setenv("REDIS_NODES", list, 1);
    begin_sale(NULL);
    sale_fixture_add_product(&test.sale, PLENTY, 0);
    sale_fixture_add_product(&test.sale, PLENTY, 0);
    test.scarce = server_fixture_add_product(&test.sale.server, 1, 0);
    return 0;
}

static int end_all(void **state)
{
    (void)state;
    sale_fixture_end(&test.sale);
    if (test.other.folder[0] != '\0') {
        server_fixture_end(&test.other);
    }
    for (size_t i = 0; i < NODES; i++) {
        for (size_t server = 0; server < SERVERS; server++) {
            if (test.proxies[server][i].pid != 0) {
                proxy_end(&test.proxies[server][i]);
            }
        }
        redis_fixture_end(&test.nodes[i]);
    }
    unsetenv("REDIS_NODES");
    memset(&test, 0, sizeof test);
    return 0;
}

static void test_every_redlock_path_sells(void **state)
{
    static const char *const paths[] = {"/api/purchases/redlock", "/api/purchases/redlock-manual",
                                        "/api/purchases/redlock-manual-async",
                                        "/api/purchases/redlock-aioredlock"};
    bool retry_after;
    (void)state;
    for (size_t i = 0; i < sizeof paths / sizeof paths[0]; i++) {
        assert_int_equal(buy_at(paths[i], test.sale.products[0], &retry_after), 201);
    }
    assert_int_equal(buy_at(paths[0], test.scarce, &retry_after), 201);
    for (size_t i = 0; i < sizeof paths / sizeof paths[0]; i++) {
        assert_int_equal(buy_at(paths[i], test.scarce, &retry_after), 400);
    }
}

static void test_setup_and_verify_while_it_sells(void **state)
{
    (void)state;
    sale_fixture_start_buying(&test.sale);
    buy_until_more(ENOUGH);
    tool_expect(&test.sale.server, "setup", LIST("--scenario", "v3_redlock"), 0, "admin_v3_redlock");
    tool_expect(&test.sale.server, "setup", LIST("--scenario", "v3_redlock"), 0, "is there already");
    tool_expect(&test.sale.server, "verify", NULL, 0, "");
    assert_int_equal(test.sale.ledger.unavailable, 0);
}

static void test_two_nodes_down(void **state)
{
    (void)state;
    int64_t since_us = now_us();
    redis_fixture_kill(&test.nodes[0]);
    redis_fixture_kill(&test.nodes[1]);
    sale_fixture_expect_going_on(&test.sale, since_us, "two nodes are down");
    buy_until_more(ENOUGH);
    await_ready(&test.sale.server, 200, "12");
    tool_expect(&test.sale.server, "verify", NULL, 0, "does not answer");
    assert_int_equal(test.sale.ledger.unavailable, 0);
    assert_int_equal(test.sale.ledger.broken, 0);
}

static void test_three_nodes_down(void **state)
{
    bool retry_after;
    (void)state;
    sale_fixture_stop_buying(&test.sale);
    redis_fixture_kill(&test.nodes[2]);
    int64_t orders = server_fixture_orders_given(&test.sale.server);
    server_fixture_restock(&test.sale.server, test.scarce,
                           1); /* the store has it; the nodes still say none */
    for (size_t i = 0; i < BUYERS; i++) {
        sale_fixture_ask(&test.sale, i, i % 2 ? test.scarce : test.sale.products[0], 1);
    }
    assert_int_equal(buy_at("/api/purchases", test.sale.products[1], &retry_after), 503);
    assert_true(retry_after);
    await_all_answers();
    for (size_t i = 0; i < BUYERS; i++) {
        assert_int_equal(test.sale.buyers[i].status, 503);
        assert_in_range(test.sale.buyers[i].answered_us, 0, (int64_t)ANSWER_MS * 1000);
    }
    assert_int_equal(server_fixture_orders_given(&test.sale.server), orders);
    tool_expect(&test.sale.server, "verify", NULL, 2, "no majority");
    await_ready(&test.sale.server, 503, "123");
}

static void test_the_third_is_back(void **state)
{
    (void)state;
    sale_fixture_start_buying(&test.sale);
    int64_t since_us = now_us();
    redis_fixture_restart(&test.nodes[2]);
    sale_fixture_expect_going_on(&test.sale, since_us, "the third node is back");
    await_ready(&test.sale.server, 200, "12");
    buy_until_more(ENOUGH);
}

/* It has forgotten whose the locks are: it must not vote before every lock that it may have given is over. Two others are down, so without it
 * nothing is sold. */
static void test_a_node_that_was_restarted_does_not_vote_for_a_ttl(void **state)
{
    const struct ledger *ledger = &test.sale.ledger;
    (void)state;
    size_t before = ledger->count;
    redis_fixture_kill(&test.nodes[2]);
    int64_t since_us = now_us();
    redis_fixture_restart(&test.nodes[2]);
    sale_fixture_expect_going_on(&test.sale, since_us + (int64_t)TTL_MS * 1000, "a node was restarted");
    for (size_t i = before; i < ledger->count; i++) {
        const struct ledger_entry *entry = &ledger->entries[i];
        if (entry->sent_us > since_us + (int64_t)HELD_MS * 1000 &&
            entry->got_us < since_us + (int64_t)TTL_MS * 1000) {
            fail_msg("order %" PRId64 " was sold %d ms after the restart", entry->order,
                     (int)((entry->got_us - since_us) / 1000));
        }
    }
}

static void test_nodes_that_forgot_are_told(void **state)
{
    (void)state;
    redis_fixture_restart(&test.nodes[0]);
    redis_fixture_restart(&test.nodes[1]);
    await_ready(&test.sale.server, 200, "");
    sale_fixture_stop_buying(&test.sale);
    for (size_t i = 0; i < NODES; i++) {
        await_figures(i);
    }
    assert_int_equal(sale_fixture_buy(&test.sale, 0, test.scarce, 1), 201); /* the one of the restock */
    assert_int_equal(sale_fixture_buy(&test.sale, 1, test.scarce, 1), 400);
    ledger_check_order(&test.sale.ledger);
    sale_fixture_end_sale(&test.sale, 0);
}

/* --- nodes that answer late, twice or never: one server, a sale for each ------------------------------------------------------ */
#define STOCK 25
#define LATE_MS 150 /* each way, so that an answer takes 300: the server waits 50, on a busy machine longer */
#define TWICE_MS 20
#define MANY 1000000

static int begin_behind_proxies(void **state)
{
    char list[LIST_BYTES];
    (void)state;
    start_nodes();
    list_nodes(0, true, list);
    setenv("REDIS_NODES", list, 1);
    begin_sale(NULL);
    return 0;
}

static bool all_know(void)
{
    for (size_t i = 0; i < BUYERS; i++) {
        if (test.sale.buyers[i].status != 201 && test.sale.buyers[i].status != 400) {
            return false;
        }
    }
    return true;
}

/* Each buyer asks for one until told 201 or 400. */
static void sell_out(int64_t product)
{
    int64_t deadline = deadline_in(SALE_PATIENCE_MS);
    do {
        for (size_t i = 0; i < BUYERS; i++) {
            struct sale_buyer *buyer = &test.sale.buyers[i];
            if (buyer->product != product || (buyer->status != 201 && buyer->status != 400)) {
                sale_fixture_ask(&test.sale, i, product, 1);
            }
        }
        await_all_answers();
        assert_true(now_us() < deadline);
    } while (!all_know());
    assert_int_equal(ledger_units(&test.sale.ledger, product), STOCK);
    struct store_product sold = sale_fixture_product(&test.sale, product);
    assert_int_equal(sold.sold, STOCK);
    assert_int_equal(sold.stock, 0);
}

static void test_two_nodes_are_late(void **state)
{
    (void)state;
    for_nodes(0, 0, 2, PROXY_DELAY, LATE_MS, 0);
    sell_out(sale_fixture_add_product(&test.sale, STOCK, 0));
    calm_nodes(0);
    assert_int_equal(test.sale.ledger.unavailable, 0);
}

static void test_all_commands_arrive_twice(void **state)
{
    (void)state;
    for_nodes(0, 0, NODES, PROXY_TWICE, TWICE_MS, MANY);
    sell_out(sale_fixture_add_product(&test.sale, STOCK, 0));
    calm_nodes(0);
}

static void test_two_nodes_never_answer(void **state)
{
    (void)state;
    for_nodes(0, 3, 2, PROXY_SILENT, 0, 1);
    sell_out(sale_fixture_add_product(&test.sale, STOCK, 0));
    calm_nodes(0);
    assert_int_equal(test.sale.ledger.unavailable, 0);
    await_ready(&test.sale.server, 200, "");
}

/* What they did say yes to, too late, is in nobody's way afterwards. */
static void test_three_nodes_are_late(void **state)
{
    (void)state;
    int64_t product = sale_fixture_add_product(&test.sale, STOCK, 0);
    for_nodes(0, 1, 3, PROXY_DELAY, LATE_MS, 0);
    for (size_t i = 0; i < BUYERS; i++) {
        sale_fixture_ask(&test.sale, i, product, 1);
    }
    await_all_answers();
    for (size_t i = 0; i < BUYERS; i++) {
        assert_int_equal(test.sale.buyers[i].status, 503);
        assert_in_range(test.sale.buyers[i].answered_us, 0, (int64_t)ANSWER_MS * 1000);
    }
    assert_int_equal(sale_fixture_product(&test.sale, product).sold, 0);
    calm_nodes(0);
    sell_out(product);
    sale_fixture_end_sale(&test.sale, 0);
}

/* --- two servers on one store ------------------------------------------------------------------------------------------------- */
#define FIRST_OF_OTHER (BUYERS / 2) /* these buyers and all behind go to the other server */

static int begin_two_servers(void **state)
{
    char list[LIST_BYTES], variable[LIST_BYTES + 16];
    begin_behind_proxies(state);
    sale_fixture_add_product(&test.sale, PLENTY, 0);
    sale_fixture_add_product(&test.sale, PLENTY, 0);
    server_fixture_begin(&test.other);
    list_nodes(1, true, list);
    snprintf(variable, sizeof variable, "REDIS_NODES=%s", list);
    server_fixture_start(&test.other, WORKERS - 1, LIST("--store", test.sale.server.store_url),
                         LIST(variable));
    await_ready(&test.other, 200, "");
    for (size_t i = FIRST_OF_OTHER; i < BUYERS; i++) {
        crowd_move(test.sale.crowd, i, test.other.port);
    }
    sale_fixture_start_buying(&test.sale);
    buy_until_more(ENOUGH);
    return 0;
}

/* Has each of these buyers been told this last? */
static bool all_told(size_t first, size_t end, int status)
{
    for (size_t i = first; i < end; i++) {
        if (test.sale.buyers[i].status != status) {
            return false;
        }
    }
    return true;
}

static bool some_told(size_t first, size_t end, int status)
{
    for (size_t i = first; i < end; i++) {
        if (test.sale.buyers[i].status == status) {
            return true;
        }
    }
    return false;
}

static void await_told(bool (*told)(size_t, size_t, int), int status, const char *what)
{
    int64_t deadline = deadline_in(SALE_PATIENCE_MS);
    while (!told(FIRST_OF_OTHER, BUYERS, status)) {
        if (!wait_a_moment(deadline)) {
            fail_msg("%s: buyers were not told %d", what, status);
        }
    }
}

static void test_one_server_is_cut_off_from_three_nodes(void **state)
{
    (void)state;
    await_told(some_told, 201, "both servers sell");
    for_nodes(1, 0, 3, PROXY_AWAY, 0, 1);
    await_told(all_told, 503, "cut off");
    await_ready(&test.other, 503, "123");
    int64_t since_us = now_us();
    sale_fixture_expect_going_on(&test.sale, since_us, "the other server is cut off");
    buy_until_more(ENOUGH);
    assert_false(some_told(FIRST_OF_OTHER, BUYERS, 201));
    assert_false(some_told(0, FIRST_OF_OTHER, 503));
    await_ready(&test.sale.server, 200, "");
    calm_nodes(1);
    await_told(some_told, 201, "no longer cut off");
}

/* Nobody of its own comes back to release its locks: they end by themselves. */
static void test_one_server_is_killed(void **state)
{
    pid_t children[SERVER_CHILDREN_MAX];
    (void)state;
    buy_until_more(ENOUGH);
    size_t count = server_fixture_children(&test.other, children, SERVER_CHILDREN_MAX);
    int64_t since_us = now_us();
    server_fixture_kill_supervisor(&test.other);
    for (size_t i = 0; i < count; i++) {
        kill(children[i], SIGKILL);
    }
    test.sale.selling = false;
    for (size_t i = FIRST_OF_OTHER; i < BUYERS; i++) {
        sale_fixture_await_answer(&test.sale, i);
        crowd_move(test.sale.crowd, i, test.sale.server.port);
    }
    sale_fixture_start_buying(&test.sale);
    sale_fixture_expect_going_on(&test.sale, since_us, "the other server was killed");
    assert_true(server_fixture_wait_gone(children, count, SALE_PATIENCE_MS));
    buy_until_more(ENOUGH);
    sale_fixture_judge(&test.sale);
    ledger_check_order(&test.sale.ledger);
    server_fixture_stop(&test.sale.server);
}

/* --- workers that hold a lock -------------------------------------------------------------------------------------------------- */
#define STOPS 3
#define KILLS 4

#ifdef DOORBUSTER_FAILPOINTS
#define WITH_FAILPOINTS(variable) LIST(variable)
static struct failpoint_page *failpoints;

static void make_failpoints(const char *path)
{
    failpoints = failpoints_file_make(path);
}

static void close_failpoints(void)
{
    if (failpoints != NULL) {
        failpoints_file_close(&failpoints);
    }
}
#else
#define WITH_FAILPOINTS(variable) NULL
static void make_failpoints(const char *path)
{
    (void)path;
}

static void close_failpoints(void)
{
}
#endif

static int begin_one_product(void **state)
{
    char list[LIST_BYTES], variable[FOLDER_BYTES + 64];
    (void)state;
    start_nodes();
    list_nodes(0, false, list);
    setenv("REDIS_NODES", list, 1);
    snprintf(variable, sizeof variable, "%s/failpoints", test.nodes[0].folder);
    make_failpoints(variable);
    snprintf(variable, sizeof variable, "DOORBUSTER_FAILPOINT_FILE=%s/failpoints", test.nodes[0].folder);
    begin_sale(WITH_FAILPOINTS(variable));
    sale_fixture_add_product(&test.sale, PLENTY, 0);
    sale_fixture_start_buying(&test.sale);
    buy_until_more(ENOUGH);
    return 0;
}

static void lock_key(char out[96])
{
    snprintf(out, 96, "{doorbuster}:lock:%" PRId64, test.sale.products[0]);
}

/* The token that a majority of the nodes has; "" if there is none: a node may have that of somebody who tries in vain. */
static void read_token(const char *key, char token[128])
{
    char tokens[NODES][128];
    for (size_t i = 0; i < NODES; i++) {
        size_t same = 0;
        read_node(i, key, tokens[i]);
        for (size_t j = 0; j <= i; j++) {
            same += strcmp(tokens[i], tokens[j]) == 0;
        }
        if (same > NODES / 2) {
            snprintf(token, 128, "%s", tokens[i]);
            return;
        }
    }
    token[0] = '\0';
}

/* The lock's holder, by its token "<server>-<run>-<pid>-…"; 0: there is none now. */
static pid_t holder(const char *key, char token[128])
{
    long pid = 0;
    read_token(key, token);
    const char *at = strchr(token, '-');
    at = at != NULL ? strchr(at + 1, '-') : NULL;
    return at != NULL && sscanf(at, "-%ld-", &pid) == 1 ? (pid_t)pid : 0;
}

static bool is_worker(pid_t pid)
{
    pid_t pids[SERVER_CHILDREN_MAX];
    size_t count = server_fixture_find(&test.sale.server, "doorbuster: worker", pids, SERVER_CHILDREN_MAX);
    for (size_t i = 0; i < count; i++) {
        if (pids[i] == pid) {
            return true;
        }
    }
    return false;
}

/* Stops a worker that holds the lock, for certain. */
static pid_t stop_holder(const char *key, char token[128])
{
    char again[128];
    int64_t deadline = deadline_in(SALE_PATIENCE_MS);
    for (;;) {
        pid_t pid = holder(key, token);
        if (pid != 0 && is_worker(pid)) {
            assert_int_equal(kill(pid, SIGSTOP), 0);
            read_token(key, again);
            if (strcmp(token, again) == 0) {
                return pid;
            }
            kill(pid, SIGCONT);
        }
        assert_true(wait_a_moment(deadline));
    }
}

/* It goes on in the middle of what it was doing, and believes for a moment that the lock is still its own. */
static void test_a_holder_is_stopped_past_the_end_of_its_lock(void **state)
{
    char key[96], token[128], now[128];
    (void)state;
    lock_key(key);
    for (int i = 0; i < STOPS; i++) {
        pid_t pid = stop_holder(key, token);
        int64_t deadline = deadline_in(SALE_PATIENCE_MS);
        do {
            assert_true(wait_a_moment(deadline));
            read_token(key, now);
        } while (strcmp(now, token) == 0);
        sale_fixture_buy_for(&test.sale, 20 * i); /* so that others are in the middle of different things */
        assert_int_equal(kill(pid, SIGCONT), 0);
        sale_fixture_expect_going_on(&test.sale, now_us(), "a stopped worker goes on");
        buy_until_more(ENOUGH);
    }
    sale_fixture_stop_buying(&test.sale);
    ledger_check_order(&test.sale.ledger);
    sale_fixture_end_sale(&test.sale, 0);
}

#ifdef DOORBUSTER_FAILPOINTS
static bool is_stopped(pid_t pid)
{
    char path[64], state = '?';
    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    FILE *file = fopen(path, "r");
    if (file != NULL) {
        if (fscanf(file, "%*d (%*[^)]) %c", &state) != 1) {
            state = '?';
        }
        fclose(file);
    }
    return state == 'T';
}

static pid_t await_stopped_worker(void)
{
    pid_t pids[SERVER_CHILDREN_MAX];
    int64_t deadline = deadline_in(SALE_PATIENCE_MS);
    for (;;) {
        size_t count =
            server_fixture_find(&test.sale.server, "doorbuster: worker", pids, SERVER_CHILDREN_MAX);
        for (size_t i = 0; i < count; i++) {
            if (is_stopped(pids[i])) {
                return pids[i];
            }
        }
        assert_true(wait_a_moment(deadline));
    }
}

/* The worst places: it has the locks and is about to sell; it has sold and told nobody, neither the buyers nor the nodes. The lock ends, others sell;
 * then it goes on: it sells without the lock; it tells the nodes what is long past. */
static void test_a_holder_is_stopped_in_the_worst_places(void **state)
{
    static const char *const places[] = {"gate.sell:stop", "gate.reply:stop", "gate.sell:stop@20"};
    (void)state;
    for (size_t i = 0; i < sizeof places / sizeof places[0]; i++) {
        failpoints_arm(failpoints, places[i]);
        pid_t pid = await_stopped_worker();
        sale_fixture_expect_going_on(&test.sale, now_us(), places[i]); /* the others, when the lock is over */
        buy_until_more(ENOUGH);
        assert_true(is_stopped(pid));
        assert_int_equal(failpoints_fired(failpoints), 1);
        assert_int_equal(kill(pid, SIGCONT), 0);
        buy_until_more(ENOUGH);
    }
    sale_fixture_stop_buying(&test.sale);
    for (size_t i = 0; i < NODES; i++) {
        await_figures(i);
    }
    ledger_check_order(&test.sale.ledger);
    sale_fixture_end_sale(&test.sale, 0);
}
#endif

/* Locks live ten seconds here: whoever takes the dead worker's place releases what it held. Private nodes, which vote from the beginning. */
#define LONG_TTL "LOCK_TIMEOUT_SECONDS=10"

static int begin_with_long_locks(void **state)
{
    (void)state;
    begin_sale(LIST(LONG_TTL));
    sale_fixture_add_product(&test.sale, PLENTY, 0);
    sale_fixture_start_buying(&test.sale);
    buy_until_more(ENOUGH);
    return 0;
}

static void test_killed_holders_leave_no_locks(void **state)
{
    char key[96], token[128], now[128];
    int64_t longest_us = 0;
    (void)state;
    lock_key(key);
    for (int i = 0; i < KILLS; i++) {
        pid_t pid = stop_holder(key, token);
        int64_t since_us = now_us();
        assert_int_equal(kill(pid, SIGKILL), 0);
        sale_fixture_expect_going_on(&test.sale, since_us, "a worker was killed that held the lock");
        int64_t took_us = now_us() - since_us;
        longest_us = took_us > longest_us ? took_us : longest_us;
        read_token(key, now);
        assert_string_not_equal(now, token);
        assert_true(server_fixture_wait_gone(&pid, 1, SALE_PATIENCE_MS));
        buy_until_more(ENOUGH);
    }
    print_message("[          ] a kill kept the sale waiting for %.2f s at most\n", (double)longest_us / 1e6);
    assert_int_equal(server_fixture_metric(&test.sale.server, "process_restarts"), KILLS);
    sale_fixture_judge(&test.sale);
    assert_int_equal(test.sale.ledger.unavailable, 0);
    ledger_check_order(&test.sale.ledger);
    server_fixture_stop(&test.sale.server);
}

static int end_holders(void **state)
{
    close_failpoints();
    return end_all(state);
}

/* --- the tests ----------------------------------------------------------------------------------------------------------------- */
int main(void)
{
    const struct CMUnitTest going_and_coming[] = {
        cmocka_unit_test(test_every_redlock_path_sells),
        cmocka_unit_test(test_setup_and_verify_while_it_sells),
        cmocka_unit_test(test_two_nodes_down),
        cmocka_unit_test(test_three_nodes_down),
        cmocka_unit_test(test_the_third_is_back),
        cmocka_unit_test(test_a_node_that_was_restarted_does_not_vote_for_a_ttl),
        cmocka_unit_test(test_nodes_that_forgot_are_told),
    };
    const struct CMUnitTest answering_badly[] = {
        cmocka_unit_test(test_two_nodes_are_late),
        cmocka_unit_test(test_all_commands_arrive_twice),
        cmocka_unit_test(test_two_nodes_never_answer),
        cmocka_unit_test(test_three_nodes_are_late),
    };
    const struct CMUnitTest two_servers[] = {
        cmocka_unit_test(test_one_server_is_cut_off_from_three_nodes),
        cmocka_unit_test(test_one_server_is_killed),
    };
    const struct CMUnitTest holders[] = {
        cmocka_unit_test_setup_teardown(test_a_holder_is_stopped_past_the_end_of_its_lock, begin_one_product,
                                        end_holders),
#ifdef DOORBUSTER_FAILPOINTS
        cmocka_unit_test_setup_teardown(test_a_holder_is_stopped_in_the_worst_places, begin_one_product,
                                        end_holders),
#endif
        cmocka_unit_test_setup_teardown(test_killed_holders_leave_no_locks, begin_with_long_locks, end_all),
    };
    setenv("DOORBUSTER_GATE", "redlock", 1);
    setenv("LOCK_TIMEOUT_SECONDS", "1", 1);
    int failed = cmocka_run_group_tests(going_and_coming, begin_with_nodes, end_all);
    failed += cmocka_run_group_tests(answering_badly, begin_behind_proxies, end_all);
    failed += cmocka_run_group_tests(two_servers, begin_two_servers, end_all);
    failed += cmocka_run_group_tests(holders, NULL, NULL);
    return failed;
}
