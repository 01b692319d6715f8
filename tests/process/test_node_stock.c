/* Stock that is kept per node does not sell: whatever the five nodes of the Redlock gate say is left, and however they answer, late, twice or
 * never, what can be had is what the store has. Real server, real nodes behind proxies; judged by the store. */
#include "testing.h"

#include "crowd.h"
#include "proxy.h"
#include "redis_fixture.h"
#include "server_fixture.h"

#include <stdio.h>
#include <string.h>

#define NODES 5
#define BUYERS 120
#define STOCK 50
#define LATE_MS 200 /* each way: the server waits 50 ms for a node, on a busy machine longer */
#define TWICE_MS 20 /* so long after the first time */
#define MANY 1000000
#define PATIENCE_MS 60000

static struct {
    struct server_fixture server;
    struct redis_fixture nodes[NODES];
    struct proxy proxies[NODES];
    char paths[NODES][FOLDER_BYTES + 16];
    struct crowd *crowd;
    char tokens[BUYERS][JWT_TOKEN_BYTES_MAX];
    bool has[BUYERS];
    unsigned confirmed, sold_out, unavailable, other;
    int64_t store_id, product;
} test;

/* --- the sale ----------------------------------------------------------------------------------------------------------------- */
static void answer_cb(void *context, size_t buyer, const struct crowd_answer *answer)
{
    (void)context;
    test.confirmed += answer->status == 201;
    test.sold_out += answer->status == 400;
    test.unavailable += answer->status == 503;
    test.other += answer->status != 201 && answer->status != 400 && answer->status != 503;
    test.has[buyer] = answer->status == 201 || answer->status == 400;
}

static struct store_product in_store(void)
{
    struct store *store;
    struct store_product product;
    char error[512];
    assert_int_equal(store_open(&store, test.server.store_url, STORE_READER, error, sizeof error), STORE_OK);
    assert_int_equal(store_find_product(store, test.product, &product), STORE_OK);
    store_close(&store);
    return product;
}

static void read_store_id(void)
{
    struct store *store;
    struct store_position position;
    char error[512];
    assert_int_equal(store_open(&store, test.server.store_url, STORE_READER, error, sizeof error), STORE_OK);
    assert_int_equal(store_position(store, &position), STORE_OK);
    store_close(&store);
    test.store_id = position.store_id;
}

/* All nodes say that there is plenty, at a version that is yet to come. */
static void lie(void)
{
    for (size_t i = 0; i < NODES; i++) {
        redisContext *node = redis_fixture_connect(&test.nodes[i]);
        freeReplyObject(redisCommand(node, "SET {doorbuster}:stock:%lld:%lld %s", (long long)test.store_id,
                                     (long long)test.product, "1000000 9 9000000"));
        redisFree(node);
    }
}

static int setup(void **state)
{
    char list[NODES * (FOLDER_BYTES + 32)] = "";
    size_t used = 0;
    (void)state;
    memset(&test, 0, sizeof test);
    server_fixture_begin(&test.server);
    for (size_t i = 0; i < NODES; i++) {
        redis_fixture_start(&test.nodes[i], false);
        snprintf(test.paths[i], sizeof test.paths[i], "%s/link.sock", test.nodes[i].folder);
        proxy_start_for(&test.proxies[i], test.paths[i], test.nodes[i].address.path, "{doorbuster}:");
        used +=
            (size_t)snprintf(list + used, sizeof list - used, "%sunix:%s", i > 0 ? "," : "", test.paths[i]);
    }
    const char *const arguments[] = {"--gate", "redlock", "--redlock-nodes", list, NULL};
    const char *const environment[] = {"LOCK_TIMEOUT_SECONDS=1", NULL};
    server_fixture_start(&test.server, 2, arguments, environment);
    int64_t first = server_fixture_add_users(&test.server, BUYERS);
    for (size_t i = 0; i < BUYERS; i++) {
        server_fixture_token(&test.server, first + (int64_t)i, USER_BUYER, test.tokens[i]);
    }
    test.crowd = crowd_new(test.server.port, BUYERS, answer_cb, NULL);
    int64_t deadline = deadline_in(PATIENCE_MS);
    while (server_fixture_get(&test.server, "/health/ready", NULL, 0) != 200) {
        assert_true(wait_a_moment(deadline));
    }
    test.product = server_fixture_add_product(&test.server, STOCK, 0);
    read_store_id();
    assert_true(crowd_connect(test.crowd, PATIENCE_MS));
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    if (test.crowd != NULL) {
        crowd_free(&test.crowd);
    }
    server_fixture_end(&test.server);
    for (size_t i = 0; i < NODES; i++) {
        proxy_end(&test.proxies[i]);
        redis_fixture_end(&test.nodes[i]);
    }
    return 0;
}

/* --- the tests ---------------------------------------------------------------------------------------------------------------- */
static bool all_know(void)
{
    for (size_t i = 0; i < BUYERS; i++) {
        if (!test.has[i]) {
            return false;
        }
    }
    return true;
}

/* Each buyer asks until told 201 or 400; the nodes' figures are falsified again all the while. */
static void sell_out(void)
{
    int64_t deadline = deadline_in(PATIENCE_MS);
    while (!all_know()) {
        lie();
        for (size_t i = 0; i < BUYERS; i++) {
            if (!test.has[i]) {
                crowd_buy(test.crowd, i, test.tokens[i], test.product, 1);
            }
        }
        assert_true(crowd_finish(test.crowd, PATIENCE_MS));
        assert_true(wait_a_moment(deadline));
    }
    assert_int_equal(test.confirmed, STOCK);
    assert_int_equal(test.sold_out, BUYERS - STOCK);
    assert_int_equal(test.other, 0);
    struct store_product product = in_store();
    assert_int_equal(product.sold, STOCK);
    assert_int_equal(product.stock, 0);
}

static void test_nodes_answer_twice_and_say_that_there_is_plenty(void **state)
{
    (void)state;
    for (size_t i = 0; i < NODES; i++) {
        proxy_do(&test.proxies[i], PROXY_TWICE, TWICE_MS, MANY);
    }
    sell_out();
    server_fixture_stop(&test.server);
}

static void test_one_node_is_late_one_silent_and_all_say_that_there_is_plenty(void **state)
{
    (void)state;
    proxy_do(&test.proxies[0], PROXY_DELAY, LATE_MS, 0);
    proxy_do(&test.proxies[1], PROXY_SILENT, 0, 1);
    proxy_do(&test.proxies[2], PROXY_TWICE, TWICE_MS, MANY);
    sell_out();
    server_fixture_stop(&test.server);
}

/* Two that answer and say that there is plenty are no majority. */
static void test_without_a_majority_nothing_is_sold(void **state)
{
    (void)state;
    for (size_t i = 0; i < 3; i++) {
        proxy_do(&test.proxies[i], i == 0 ? PROXY_DELAY : PROXY_SILENT, LATE_MS, 1);
    }
    lie();
    for (size_t i = 0; i < BUYERS; i++) {
        crowd_buy(test.crowd, i, test.tokens[i], test.product, 1);
    }
    assert_true(crowd_finish(test.crowd, PATIENCE_MS));
    assert_int_equal(test.unavailable, BUYERS);
    assert_int_equal(in_store().sold, 0);
    for (size_t i = 0; i < NODES; i++) {
        assert_true(proxy_calm(&test.proxies[i], PATIENCE_MS));
    }
    sell_out();
    server_fixture_stop(&test.server);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_nodes_answer_twice_and_say_that_there_is_plenty, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_one_node_is_late_one_silent_and_all_say_that_there_is_plenty,
                                        setup, teardown),
        cmocka_unit_test_setup_teardown(test_without_a_majority_nothing_is_sold, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
