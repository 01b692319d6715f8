/* A sale goes on when Redis fails over: with Sentinels, with writes that are lost on the way, and when a master comes back that has forgotten what it
 * sold but not the scripts. A server that is started meanwhile, or while PostgreSQL is away, waits. Real server, real Redis and Sentinels; judged by the
 * store. */
#include "testing.h"

#include "acl.h"
#include "http_client.h"
#include "postgres_fixture.h"
#include "refusal.h"
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
/* By every worker; nothing is left of it. */
static void change_stock(void)
{
    for (int i = 0; i < 8; i++) {
        server_fixture_restock(&sale.server, sale.products[0], i % 2 == 0 ? 1 : -1);
    }
}

static void test_an_old_master_that_still_answers_is_left(void **state)
{
    (void)state;
    begin_sale();
    begin_lone();
    change_stock();
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
    change_stock();
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

/* --- who may do only what is needed ------------------------------------------------------------------------------------------------- */
/* By the first buyer, past the ledger. */
static void call(const char *method, const char *target, const char *body, int status)
{
    char headers[JWT_TOKEN_BYTES_MAX + 96];
    struct http_client client = {.fd = -1};
    struct http_answer answer;
    snprintf(headers, sizeof headers, "Authorization: Bearer %s\r\nContent-Type: application/json\r\n",
             sale.buyers[0].token);
    assert_int_equal(http_client_open(&client, "127.0.0.1", sale.server.port, SALE_PATIENCE_MS),
                     HTTP_CLIENT_OK);
    assert_int_equal(http_client_call(&client, method, target, headers, body, &answer, SALE_PATIENCE_MS),
                     HTTP_CLIENT_OK);
    assert_int_equal(answer.status, status);
    http_answer_free(&answer);
    http_client_close(&client);
}

static void restock_and_cancel(int64_t product)
{
    char target[64], body[64];
    server_fixture_restock(&sale.server, product, 5);
    snprintf(body, sizeof body, "{\"product_id\":%" PRId64 ",\"quantity\":1}", product);
    call("POST", "/api/purchases", body, 201);
    snprintf(target, sizeof target, "/api/purchases/%" PRId64, sale_fixture_orders_given(&sale));
    call("DELETE", target, NULL, 200);
}

static void expect_no_password(const char *text)
{
    assert_null(strstr(text, ACL_PASSWORD));
    assert_null(strstr(text, ACL_PASSWORD_IN_URL));
    assert_null(strstr(text, "sesame"));
}

/* Also not where everybody on this machine may look, though it was in --redis. */
static void expect_no_password_anywhere(void)
{
    static char body[65536];
    pid_t pids[16];
    size_t count = server_fixture_children(&sale.server, pids, 15);
    pids[count++] = sale.server.pid;
    for (size_t i = 0; i < count; i++) {
        char path[64];
        snprintf(path, sizeof path, "/proc/%d/cmdline", (int)pids[i]);
        FILE *file = fopen(path, "r");
        assert_non_null(file);
        size_t bytes = fread(body, 1, sizeof body, file);
        fclose(file);
        assert_true(bytes > 0);
        assert_null(memmem(body, bytes, "sesame", strlen("sesame")));
    }
    server_fixture_get(&sale.server, "/health/ready", body, sizeof body);
    expect_no_password(body);
    server_fixture_get(&sale.server, "/metrics", body, sizeof body);
    expect_no_password(body);
    assert_false(server_fixture_logged(&sale.server, "sesame"));
}

static void expect_wrong_password(const char *url, const char *where, const char *why)
{
    char folder[FOLDER_BYTES], variable[320];
    folder_make(folder);
    snprintf(variable, sizeof variable, "REDIS_URL=%s", url);
    expect_refusal(ARGUMENTS("--listen", "127.0.0.1:0", "--data", folder), ENVIRONMENT(variable),
                   WORDS(where, why, "correct user and password"));
    folder_remove(folder);
}

static void test_the_user_of_the_handbook_may_do_enough(void **state)
{
    char url[128];
    (void)state;
    begin_lone();
    acl_make_user(lone[0].port, "doorbuster");
    snprintf(url, sizeof url, "redis://doorbuster:open-wrong@[::1]:%d/2", lone[0].port);
    expect_wrong_password(url, "Redis at redis://[::1]", "user \"doorbuster\" in: WRONGPASS");
    tcp_redis_do(lone[0].port, "ACL LOG RESET");
    snprintf(url, sizeof url, "redis://doorbuster:%s@[::1]:%d/2", ACL_PASSWORD_IN_URL, lone[0].port);
    sale_fixture_begin(&sale, 2, BUYERS, url, NULL);
    int64_t limited = server_fixture_add_product(&sale.server, 100, 3);
    restock_and_cancel(limited);
    const char *const *there = LIST("--redis", url, "--scenario", "v1_stress");
    tool_expect(&sale.server, "setup", there, 0, "Black Friday");
    sale_fixture_add_product(&sale, 1000000, 0);
    sale_fixture_start_buying(&sale);
    sale_fixture_buy_for(&sale, 200);
    redisContext *other = tcp_redis_connect(lone[0].port); /* one that stood still, or so it seems */
    assert_true(redis_done(redis_ask(other, "CLIENT SETNAME doorbuster-recorder:{doorbuster}:recorder:2")));
    sale_fixture_kill(&sale, RECORDER);
    sale_fixture_buy_for(&sale, 200);
    assert_true(redis_is_dead(other));
    redisFree(other);
    tool_expect(&sale.server, "verify", LIST("--redis", url, "--repair"), 0, "");
    tcp_redis_do(lone[0].port, "FLUSHALL"); /* filled anew */
    sale_fixture_expect_going_on(&sale, now_us(), "Redis was emptied");
    expect_no_password_anywhere();
    acl_expect_enough(lone[0].port, "doorbuster");
    tcp_redis_do(lone[0].port, "ACL SETUSER doorbuster -client|list -client|kill"); /* it does without */
    sale_fixture_kill(&sale, RECORDER);
    sale_fixture_expect_going_on(&sale, now_us(), "a recorder that may end nobody's connection");
    assert_true(server_fixture_logged(&sale.server, "recorders before this one: NOPERM"));
    sale_fixture_end_sale(&sale, 2);
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
    char url[sizeof sentinels.url + 32]; /* a password is not waited for */
    snprintf(url, sizeof url, "sentinel://x:y@%s", sentinels.url + strlen("sentinel://"));
    expect_wrong_password(url, "cannot find the Redis to use by sentinel://shop@",
                          "user \"x\" in: WRONGPASS");
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
        cmocka_unit_test_teardown(test_the_user_of_the_handbook_may_do_enough, end),
        cmocka_unit_test_teardown(test_a_server_that_is_started_during_a_failover_waits, end),
        cmocka_unit_test_teardown(test_a_server_that_is_started_while_postgresql_is_away_waits, end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
