/* A sale goes on when Redis fails over: with Sentinels, with writes that are lost on the way, and when a master comes back that has forgotten what it
 * sold but not the scripts. A server that is started meanwhile, or while PostgreSQL is away, waits. Real server, real Redis and Sentinels; judged by the store. */
#include "testing.h"

#include "postgres_fixture.h"
#include "sale_fixture.h"
#include "sentinel_fixture.h"
#include "tool.h"

#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#define BUYERS 24
#define RECORDER "doorbuster: recorder"
#define LEAVE_MS 6000 /* an old master that still answers: the news from it must be missed first */

static struct sale_fixture sale;
static struct sentinel_fixture sentinels;
static struct tcp_redis lone[2];
static char lone_folder[FOLDER_BYTES];
static struct postgres_fixture postgres;
static struct server_fixture *waiting; /* is being started, and is to wait for something */

static int end(void **state)
{
    (void)state;
    sale_fixture_end(&sale);
    sentinel_fixture_end(&sentinels);
    tcp_redis_kill(&lone[0]);
    tcp_redis_kill(&lone[1]);
    wait_with(NULL);
    postgres_fixture_end(&postgres);
    if (lone_folder[0] != '\0') {
        folder_remove(lone_folder);
        lone_folder[0] = '\0';
    }
    return 0;
}

static void begin_sale(void)
{
    sentinel_fixture_start(&sentinels);
    sale_fixture_begin(&sale, 2, BUYERS, sentinels.url, NULL);
    sale_fixture_add_product(&sale, 1000000, 0);
    sale_fixture_add_product(&sale, 1000000, 0);
    sale_fixture_start_buying(&sale);
    sale_fixture_expect_going_on(&sale, now_us(), "the start");
}

static void report(const char *what, int64_t since_us)
{
    print_message("%s: went on after %" PRId64 " ms; %zu confirmed, %zu unavailable\n", what,
                  (now_us() - since_us) / 1000, sale.ledger.confirmed, sale.ledger.unavailable);
}

static void kill_master(void)
{
    int old = sentinel_fixture_master(&sentinels);
    tcp_redis_kill(sentinel_fixture_redis_at(&sentinels, old));
    sentinel_fixture_await_another(&sentinels, old);
}

static void test_the_master_is_killed_in_the_middle_of_a_sale(void **state)
{
    (void)state;
    begin_sale();
    kill_master();
    int64_t since_us = now_us();
    sale_fixture_expect_going_on(&sale, since_us, "the master was killed");
    report("killed", since_us);
    sale_fixture_buy_for(&sale, 300);
    sale_fixture_end_sale(&sale, 0);
}

/* What the replica never heard was told to buyers: Redis is filled anew. */
static void test_a_failover_that_loses_sales(void **state)
{
    (void)state;
    begin_sale();
    sentinel_fixture_deafen_replica(&sentinels);
    size_t confirmed = sale.ledger.confirmed;
    for (int64_t deadline = deadline_in(SALE_PATIENCE_MS); sale.ledger.confirmed < confirmed + 200;) {
        assert_true(wait_a_moment(deadline));
    }
    kill_master();
    int64_t since_us = now_us();
    sale_fixture_expect_going_on(&sale, since_us,
                                 "the master was killed, with sales that its replica does not have");
    report("lost sales", since_us);
    assert_true(server_fixture_logged(&sale.server, "rebuilding Redis from the store"));
    assert_true(server_fixture_logged(&sale.server, "does not continue it"));
    sale_fixture_end_sale(&sale, 0);
}

static void test_there_and_back_again(void **state)
{
    (void)state;
    begin_sale();
    int first = sentinel_fixture_master(&sentinels);
    for (int i = 0; i < 2; i++) {
        sentinel_fixture_fail_over(&sentinels);
        int64_t since_us = now_us();
        sale_fixture_expect_going_on(&sale, since_us, "a failover by hand");
        report("by hand", since_us);
    }
    assert_int_equal(sentinel_fixture_master(&sentinels), first); /* with the scripts of its first reign */
    sale_fixture_end_sale(&sale, 0);
}

/* --- two masters that both answer --------------------------------------------------------------------------------------------------- */
static void begin_lone(void)
{
    folder_make(lone_folder);
    tcp_redis_start(&lone[0], lone_folder, "lone0", NULL);
    tcp_redis_start(&lone[1], lone_folder, "lone1", NULL);
}

/* The Sentinels are told of another master, and the old one, which hears nothing of it, goes on answering. */
static void test_an_old_master_that_still_answers_is_left(void **state)
{
    (void)state;
    begin_sale();
    begin_lone();
    for (size_t i = 0; i < SENTINELS; i++) {
        tcp_redis_do(sentinels.sentinels[i].port, "SENTINEL REMOVE shop");
        tcp_redis_do(sentinels.sentinels[i].port, "SENTINEL MONITOR shop 127.0.0.1 %d 2", lone[0].port);
    }
    int64_t since_us = now_us();
    sale_fixture_find_redis(&sale);
    assert_int_equal(sale.redis->tcp.port, lone[0].port);
    int64_t deadline = deadline_in(LEAVE_MS);
    while (sale_fixture_orders_given(&sale) <= (int64_t)sale.ledger.confirmed ||
           sale_fixture_epoch(&sale) == 0) { /* sold there, too */
        assert_true(wait_a_moment(deadline));
    }
    int64_t moved_us = now_us();
    sale_fixture_expect_going_on(&sale, moved_us, "the Sentinels have another master");
    report("old master left", since_us);
    sale_fixture_end_sale(&sale, 0);
}

/* A master is demoted, takes over data without its last sale, and is promoted again, while its clients' connections last and the recorder looks away. It still
 * has the script of the epoch, and a unit sold by that would fit the store's books, so that nobody would notice that a buyer's limit is forgotten. */
static void test_a_reign_that_forgot_sells_nothing(void **state)
{
    char url[64];
    (void)state;
    begin_lone();
    tcp_redis_do(lone[1].port, "REPLICAOF 127.0.0.1 %d", lone[0].port);
    tcp_redis_await(lone[1].port, "master_link_status:up");
    snprintf(url, sizeof url, "redis://127.0.0.1:%d", lone[0].port);
    sale_fixture_begin(&sale, 1, 3, url, NULL);
    int64_t product = sale_fixture_add_product(&sale, 100, 1);
    assert_int_equal(sale_fixture_buy(&sale, 0, product, 1), 201);
    int64_t deadline = deadline_in(SALE_PATIENCE_MS); /* the replica must have that one */
    while (strcmp(tcp_redis_do(lone[1].port, "HGET {doorbuster}:head orders"), "1") != 0) {
        assert_true(wait_a_moment(deadline));
    }
    uint64_t epoch = sale_fixture_epoch(&sale);

    tcp_redis_do(lone[1].port, "REPLICAOF NO ONE"); /* a copy of this moment */
    assert_int_equal(sale_fixture_buy(&sale, 1, product, 1), 201);
    sale_fixture_signal(&sale, RECORDER, SIGSTOP);
    tcp_redis_do(lone[0].port, "REPLICAOF 127.0.0.1 %d", lone[1].port);
    tcp_redis_await(lone[0].port, "master_link_status:up");
    tcp_redis_do(lone[0].port, "REPLICAOF NO ONE");
    sale_fixture_find_redis(&sale);
    assert_int_equal(sale_fixture_epoch(&sale), epoch); /* the head that it had; and it has its scripts */
    int64_t given = sale_fixture_orders_given(&sale);
    assert_int_equal(given, 1);

    sale_fixture_ask(&sale, 2, product, 1);
    sale_fixture_buy_for(&sale, 150);
    int64_t sold = sale_fixture_orders_given(&sale) - given;
    sale_fixture_signal(&sale, RECORDER, SIGCONT);
    sale_fixture_await_answer(&sale, 2);
    assert_int_equal(sale_fixture_buy(&sale, 1, product, 1), 409); /* one each, and he has his */
    assert_int_equal(sale.buyers[2].status, 201);
    assert_int_equal(sold, 0);
    sale_fixture_end_sale(&sale, 0);
}

/* Instead of a sleep while a server is started: what it waits for comes when it has said that it waits. */
static void (*help_cb)(void);

static void help_who_waits_cb(void)
{
    struct timespec moment = {.tv_nsec = 2000000};
    nanosleep(&moment, NULL);
    if (server_fixture_logged(waiting, "waiting for up to")) {
        waiting = NULL;
        wait_with(NULL);
        help_cb();
    }
}

static void help_when_it_waits(struct server_fixture *server, void (*cb)(void))
{
    waiting = server;
    help_cb = cb;
    wait_with(help_who_waits_cb);
}

static void let_them_fail_over(void)
{
    for (size_t i = 1; i < SENTINELS; i++) {
        kill(sentinels.sentinels[i].pid, SIGCONT);
    }
}

/* It would stay down: systemd does not start again what was refused. */
static void test_a_server_that_is_started_during_a_failover_waits(void **state)
{
    (void)state;
    sentinel_fixture_start(&sentinels);
    int old = sentinel_fixture_master(&sentinels);
    for (size_t i = 1; i < SENTINELS; i++) { /* alone the other one names no new master */
        kill(sentinels.sentinels[i].pid, SIGSTOP);
    }
    tcp_redis_kill(sentinel_fixture_redis_at(&sentinels, old));
    help_when_it_waits(&sale.server, let_them_fail_over);
    sale_fixture_begin(&sale, 1, BUYERS, sentinels.url, NULL);
    assert_null(waiting);
    sale_fixture_add_product(&sale, 1000000, 0);
    sale_fixture_start_buying(&sale);
    sale_fixture_expect_going_on(&sale, now_us(), "the start");
    sale_fixture_end_sale(&sale, 0);
}

static void come_back(void)
{
    postgres_fixture_restart(&postgres);
}

static void test_a_server_that_is_started_while_postgresql_is_away_waits(void **state)
{
    (void)state;
    char url[POSTGRES_URL_BYTES];
    struct server_fixture server;
    postgres_fixture_start(&postgres, false);
    postgres_fixture_new_database(&postgres, url);
    postgres_fixture_kill(&postgres);
    server_fixture_begin(&server);
    help_when_it_waits(&server, come_back);
    server_fixture_start(&server, 1, LIST("--store", url), NULL);
    assert_null(waiting);
    assert_true(server_fixture_add_product(&server, 10, 0) > 0);
    server_fixture_stop(&server);
    server_fixture_end(&server);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(test_the_master_is_killed_in_the_middle_of_a_sale, end),
        cmocka_unit_test_teardown(test_a_failover_that_loses_sales, end),
        cmocka_unit_test_teardown(test_there_and_back_again, end),
        cmocka_unit_test_teardown(test_an_old_master_that_still_answers_is_left, end),
        cmocka_unit_test_teardown(test_a_reign_that_forgot_sells_nothing, end),
        cmocka_unit_test_teardown(test_a_server_that_is_started_during_a_failover_waits, end),
        cmocka_unit_test_teardown(test_a_server_that_is_started_while_postgresql_is_away_waits, end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
