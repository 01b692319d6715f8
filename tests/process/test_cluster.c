/* A sale on a Redis Cluster goes on when the slot's master is replaced, and when the slot moves to another node; while it moves nothing is sold. Real server,
 * real Cluster; judged by the store. */
#include "testing.h"

#include "cluster_fixture.h"
#include "sale_fixture.h"
#include "tool.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BUYERS 24
#define OTHER_SHOP "second"

static struct sale_fixture sale, other;
static struct cluster_fixture cluster;

static int end(void **state)
{
    (void)state;
    sale_fixture_end(&sale);
    sale_fixture_end(&other);
    cluster_fixture_end(&cluster);
    return 0;
}

static void begin_sale(void)
{
    cluster_fixture_start(&cluster, "{doorbuster}:head");
    sale_fixture_begin(&sale, 2, BUYERS, cluster.url, NULL);
    sale_fixture_add_product(&sale, 1000000, 0);
    sale_fixture_add_product(&sale, 1000000, 0);
    sale_fixture_start_buying(&sale);
    sale_fixture_expect_going_on(&sale, now_us(), "the start");
}

static void expect_going_on(const char *what)
{
    int64_t since_us = now_us();
    sale_fixture_expect_going_on(&sale, since_us, what);
    print_message("%s: went on after %" PRId64 " ms; %zu confirmed, %zu unavailable\n", what,
                  (now_us() - since_us) / 1000, sale.ledger.confirmed, sale.ledger.unavailable);
}

static void test_the_slots_master_is_replaced(void **state)
{
    (void)state;
    begin_sale();
    cluster_fixture_fail_over(&cluster);
    expect_going_on("CLUSTER FAILOVER");
    assert_int_equal(cluster_fixture_owner(&cluster), 3);
    sale_fixture_buy_for(&sale, CLUSTER_REST_MS);
    cluster_fixture_fail_over(&cluster); /* back to the one that has the scripts of its first reign */
    expect_going_on("CLUSTER FAILOVER back");
    sale_fixture_end_sale(&sale, 0);
}

static void test_the_slots_master_dies(void **state)
{
    (void)state;
    begin_sale();
    tcp_redis_kill(&cluster.nodes[cluster.owner]);
    tcp_redis_await(cluster.nodes[3].port, "role:master");
    expect_going_on("the master was killed");
    sale_fixture_end_sale(&sale, 0);
}

static void test_the_slot_moves(void **state)
{
    unsigned from, to;
    (void)state;
    begin_sale();
    from = cluster.owner, to = (from + 1) % 3;
    cluster_fixture_begin_move(&cluster, from, to);
    cluster_fixture_move_keys(&cluster, from, to, 2);
    sale_fixture_await_silence(&sale);
    size_t confirmed = sale.ledger.confirmed;
    sale_fixture_buy_for(&sale, 700);
    assert_int_equal(sale.ledger.confirmed, confirmed); /* nothing is sold by halves */
    cluster_fixture_end_move(&cluster, from, to);
    expect_going_on("the slot has moved");
    assert_int_equal(cluster_fixture_owner(&cluster), to);
    sale_fixture_find_redis(&sale);
    assert_int_equal(sale.redis->tcp.port, cluster.nodes[to].port);
    sale_fixture_end_sale(&sale, 0);
}

/* Two shops, each with a server and a store of its own, on nodes of their own. One loses its master; the other hears nothing of it. */
static void test_two_shops(void **state)
{
    (void)state;
    begin_sale();
    sale_fixture_begin(&other, 1, BUYERS, cluster.url, LIST("DOORBUSTER_SHOP=" OTHER_SHOP));
    sale_fixture_add_product(&other, 1000000, 0);
    sale_fixture_start_buying(&other);
    sale_fixture_expect_going_on(&other, now_us(), "the other shop");
    int slot = atoi(tcp_redis_do(cluster.nodes[0].port, "CLUSTER KEYSLOT {" OTHER_SHOP "}:head"));
    unsigned node = (unsigned)slot * 3 / 16384;
    assert_int_not_equal(node, cluster.owner);
    assert_string_equal(tcp_redis_do(cluster.nodes[node].port, "EXISTS {" OTHER_SHOP "}:head"), "1");

    cluster_fixture_fail_over(&cluster);
    expect_going_on("the first shop's failover");
    sale_fixture_stop_buying(&other);
    assert_int_equal(other.ledger.broken + other.ledger.unavailable, 0);
    assert_int_equal(server_fixture_metric(&other.server, "redis_links_lost"), 0);
    tool_expect(&other.server, "verify", LIST("--redis", cluster.url, "--shop", OTHER_SHOP), 0, "");
    ledger_check_store(&other.ledger, other.server.store_url);
    sale_fixture_end_sale(&sale, 0);
    server_fixture_stop(&other.server);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(test_the_slots_master_is_replaced, end),
        cmocka_unit_test_teardown(test_the_slots_master_dies, end),
        cmocka_unit_test_teardown(test_the_slot_moves, end),
        cmocka_unit_test_teardown(test_two_shops, end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
