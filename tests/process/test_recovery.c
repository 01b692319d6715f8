/* What a hostile review found about crashes and links: answers that get lost at the edges of an epoch, a recorder that dies or stands still at
 * the wrong moment, a Redis without memory, another server's news. Real server, real Redis; judged by the store. */
#include "testing.h"

#include "proxy.h"
#include "redis_fixture.h"
#include "sale_fixture.h"
#include "tcp_redis.h"
#include "tool.h"

#ifdef DOORBUSTER_FAILPOINTS
#include "failpoints.h"
#endif

#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define RECORDER "doorbuster: recorder"
#define BUYERS 24
#define WELL_BEFORE_US 4000000 /* the gate gives up at 5 s */
#define URL_BYTES (FOLDER_BYTES + 64)

static struct sale_fixture sale, other;
static struct redis_fixture redis; /* of those tests that have one of their own */
static struct proxy proxy;
static char url[URL_BYTES], other_url[URL_BYTES];

/* --- answers that get lost
 * ------------------------------------------------------------------------------------------------------------- */
static void begin_behind_proxy(size_t buyers)
{
    char path[FOLDER_BYTES + 16];
    redis_fixture_start(&redis, false);
    snprintf(path, sizeof path, "%s/proxy.sock", redis.folder);
    snprintf(url, sizeof url, "unix:%s", path);
    proxy_start(&proxy, path, redis.address.path);
    sale_fixture_begin(&sale, 1, buyers, url, NULL);
}

/* An epoch in which nothing has been sold. */
static void begin_new_epoch(void)
{
    uint64_t epoch = sale_fixture_epoch(&sale);
    sale_fixture_kill(&sale, RECORDER);
    sale_fixture_await_epoch_after(&sale, epoch);
}

static void expect_one_order(size_t buyer)
{
    if (sale.buyers[buyer].status != 201) {
        fail_msg("buyer %zu: status %d after %" PRId64 " ms", buyer, sale.buyers[buyer].status,
                 sale.buyers[buyer].answered_us / 1000);
    }
    assert_in_range(sale.buyers[buyer].answered_us, 0, WELL_BEFORE_US);
    assert_int_equal(sale_fixture_orders_of(&sale, buyer, ORDER_CONFIRMED), 1);
    assert_int_equal(sale_fixture_orders_of(&sale, buyer, ORDER_REJECTED), 0);
}

/* The order stands at the very first position of its epoch: it must be found there, and not be made twice. */
static void test_first_call_of_an_epoch_loses_its_answer(void **state)
{
    const size_t rounds = 3;
    (void)state;
    begin_behind_proxy(rounds + 1);
    int64_t product = sale_fixture_add_product(&sale, 100, 0);
    assert_int_equal(sale_fixture_buy(&sale, rounds, product, 1), 201);
    for (size_t i = 0; i < rounds; i++) {
        begin_new_epoch();
        proxy_do(&proxy, PROXY_LOSE_ANSWER, 0, 1);
        sale_fixture_buy(&sale, i, product, 1);
        expect_one_order(i);
    }
    assert_int_equal(sale_fixture_product(&sale, product).sold, rounds + 1);
    sale_fixture_end_sale(&sale, (int64_t)rounds);
}

/* Nothing comes back and nothing breaks: the worker notices only when the next epoch has been announced long ago, and no further one will
 * come by itself. */
static void lose_a_call_and_begin_an_epoch(enum proxy_action action, bool reaches_redis)
{
    const size_t rounds = 2;
    begin_behind_proxy(rounds + 1);
    int64_t product = sale_fixture_add_product(&sale, 100, 0);
    assert_int_equal(sale_fixture_buy(&sale, rounds, product, 1), 201);
    for (size_t i = 0; i < rounds; i++) {
        int64_t given = sale_fixture_orders_given(&sale);
        proxy_do(&proxy, action, 0, 1);
        sale_fixture_ask(&sale, i, product, 1);
        if (reaches_redis) {
            sale_fixture_await_orders_given(&sale, given + 1);
        } else {
            sale_fixture_buy_for(&sale, 100); /* it is on its way to nowhere */
        }
        begin_new_epoch();
        assert_true(sale.buyers[i].waits);
        sale_fixture_await_answer(&sale, i);
        expect_one_order(i);
    }
    assert_int_equal(sale_fixture_product(&sale, product).sold, rounds + 1);
    sale_fixture_end_sale(&sale, (int64_t)rounds);
}

static void test_an_answer_lost_before_the_next_epoch(void **state)
{
    (void)state;
    lose_a_call_and_begin_an_epoch(PROXY_MUTE_ANSWER, true);
}

static void test_a_call_lost_before_the_next_epoch(void **state)
{
    (void)state;
    lose_a_call_and_begin_an_epoch(PROXY_MUTE_CALL, false);
}

/* --- two servers
 * ----------------------------------------------------------------------------------------------------------------------- */
static void begin_two_servers(unsigned workers)
{
    int port = free_port();
    redis_fixture_start(&redis, false);
    redisContext *control = redis_fixture_connect(&redis);
    redis_do(control, "CONFIG SET bind 127.0.0.1 port %d", port);
    redisFree(control);
    snprintf(url, sizeof url, "redis://127.0.0.1:%d/1", port);
    snprintf(other_url, sizeof other_url, "redis://127.0.0.1:%d/2", port);
    sale_fixture_begin(&sale, workers, BUYERS, url, NULL);
    sale_fixture_begin(&other, workers, BUYERS, other_url, NULL);
    sale_fixture_add_product(&sale, 100000, 0);
    sale_fixture_add_product(&other, 200000, 0);
}

/* Every request was confirmed and became one order. */
static void expect_one_order_each(const struct sale_fixture *seller)
{
    assert_int_equal(seller->ledger.unavailable, 0);
    assert_int_equal(sale_fixture_orders_given(seller), seller->ledger.confirmed);
    assert_int_equal(sale_fixture_product(seller, seller->products[0]).sold,
                     ledger_units(&seller->ledger, seller->products[0]));
}

/* Channels do not know databases: each hears the other's recorder, whose epochs and positions are its own. */
static void test_two_servers_on_two_databases(void **state)
{
    (void)state;
    begin_two_servers(2);
    sale_fixture_start_buying(&sale);
    sale_fixture_start_buying(&other);
    for (unsigned i = 0; i < 3; i++) { /* now the one, now the other is of a later epoch */
        struct sale_fixture *later = i % 2 ? &sale : &other;
        for (unsigned kills = 0; kills < 1 + i; kills++) {
            uint64_t epoch = sale_fixture_epoch(later);
            sale_fixture_kill(later, RECORDER);
            sale_fixture_await_epoch_after(later, epoch);
        }
        sale_fixture_buy_for(&sale, 1000);
        sale_fixture_expect_going_on(&sale, now_us(), "two servers, the first");
        sale_fixture_expect_going_on(&other, now_us(), "two servers, the second");
    }
    sale_fixture_stop_buying(&sale);
    sale_fixture_stop_buying(&other);
    expect_one_order_each(&sale);
    expect_one_order_each(&other);
    sale_fixture_end_sale(&sale, 2);
    sale_fixture_end_sale(&other, 4);
}

/* While one recorder stands still, what it has not recorded is not confirmed by the other. */
static void test_another_servers_recorder_confirms_nothing(void **state)
{
    (void)state;
    begin_two_servers(1);
    sale_fixture_start_buying(&other);
    sale_fixture_expect_going_on(&other, now_us(), "two servers");
    sale_fixture_signal(&sale, RECORDER, SIGSTOP);
    for (size_t i = 0; i < BUYERS; i++) {
        sale_fixture_ask(&sale, i, sale.products[0], 1);
    }
    sale_fixture_await_orders_given(&sale, BUYERS);
    sale_fixture_buy_for(&sale, 500); /* the other one records and announces all the time */
    for (size_t i = 0; i < BUYERS; i++) {
        assert_true(sale.buyers[i].waits);
    }
    sale_fixture_signal(&sale, RECORDER, SIGCONT);
    for (size_t i = 0; i < BUYERS; i++) {
        sale_fixture_await_answer(&sale, i);
        expect_one_order(i);
    }
    sale_fixture_end_sale(&other, 0);
    sale_fixture_end_sale(&sale, 0);
}

/* --- the recorder
 * ---------------------------------------------------------------------------------------------------------------------- */
#ifdef DOORBUSTER_FAILPOINTS
static struct failpoint_page *failpoints;

/* Somebody raises the stock by hand; what is sold of that is rejected; the recorder dies before it can say so. */
static void die_after_rejecting(const char *failpoint)
{
    char variable[FOLDER_BYTES + 64], path[FOLDER_BYTES + 32];
    redis_fixture_begin(&redis); /* a folder; there is no redis-server in it */
    snprintf(path, sizeof path, "%s/failpoints", redis.folder);
    snprintf(variable, sizeof variable, "DOORBUSTER_FAILPOINT_FILE=%s", path);
    failpoints = failpoints_file_make(path);
    sale_fixture_begin(&sale, 1, 6, NULL, LIST(variable));
    int64_t product = sale_fixture_add_product(&sale, 5, 0);
    for (size_t i = 0; i < 5; i++) {
        assert_int_equal(sale_fixture_buy(&sale, i, product, 1), 201);
    }
    sale_fixture_signal(&sale, RECORDER, SIGSTOP); /* or it might see the edit first */
    redis_do(sale.redis, "HSET {doorbuster}:product:%" PRId64 " stock 3", product);
    sale_fixture_ask(&sale, 5, product, 1);
    sale_fixture_await_orders_given(&sale, 6);
    failpoints_arm(failpoints, failpoint);
    sale_fixture_signal(&sale, RECORDER, SIGCONT);
    sale_fixture_await_answer(&sale, 5);
    assert_int_equal(failpoints_fired(failpoints), 1);
    if (sale.buyers[5].status != 409 && sale.buyers[5].status != 400) {
        fail_msg("%s: an order that was rejected is answered %d", failpoint, sale.buyers[5].status);
    }
    assert_int_equal(sale_fixture_orders_of(&sale, 5, ORDER_CONFIRMED), 0);
    assert_int_equal(sale_fixture_orders_of(&sale, 5, ORDER_REJECTED), 1);
    assert_int_equal(sale_fixture_product(&sale, product).sold, 5);
    sale_fixture_end_sale(&sale, 1);
    failpoints_file_close(&failpoints);
    redis_fixture_end(&redis);
}

static void test_recorder_dies_before_it_announces_a_rejection(void **state)
{
    (void)state;
    die_after_rejecting("recorder.announce:kill");
}

static void test_recorder_dies_when_it_has_committed_a_rejection(void **state)
{
    (void)state;
    die_after_rejecting("store.committed:kill");
}
#endif

/* Beyond what is on its way when the silence is noticed, nothing is reserved that nobody may ever record; also not when the workers make new
 * links because of the silence. */
static void test_a_recorder_that_stands_still_for_long_stops_the_sale(void **state)
{
    const unsigned workers = 2;
    (void)state;
    sale_fixture_begin(&sale, workers, BUYERS, NULL, NULL);
    sale_fixture_add_product(&sale, 100000, 0);
    sale_fixture_start_buying(&sale);
    sale_fixture_expect_going_on(&sale, now_us(), "at the beginning");
    int64_t stalls = server_fixture_metric(&sale.server, "sale_stalls");
    sale_fixture_signal(&sale, RECORDER, SIGSTOP);
    int64_t until = deadline_in(8000); /* the links are renewed every 3 s */
    sale_fixture_buy_for(&sale, 1500);
    int64_t given = sale_fixture_orders_given(&sale);
    while (wait_a_moment(until)) {
        int64_t now_given = sale_fixture_orders_given(&sale);
        if (now_given != given) {
            fail_msg("%" PRId64 " orders are reserved while nobody records, %" PRId64 " ms before the end",
                     now_given - given, (until - now_us()) / 1000);
        }
    }
    assert_in_range(server_fixture_metric(&sale.server, "sale_stalls") - stalls, 1, workers);
    int64_t continued_us = now_us();
    sale_fixture_signal(&sale, RECORDER, SIGCONT);
    sale_fixture_expect_going_on(&sale, continued_us, "the recorder continues");
    sale_fixture_end_sale(&sale, 0);
}

/* Another recorder took the store over and came no further: its Redis is gone, and this one has heard nothing of it. The books must meet again
 * also if nobody buys. */
static void test_the_store_moves_on_while_nobody_buys(void **state)
{
    struct store *store;
    struct store_position position;
    char error[512];
    (void)state;
    sale_fixture_begin(&sale, 1, 2, NULL, NULL);
    int64_t product = sale_fixture_add_product(&sale, 5, 0);
    assert_int_equal(sale_fixture_buy(&sale, 0, product, 1), 201);
    assert_int_equal(store_open(&store, sale.server.store_url, STORE_WRITER, error, sizeof error), STORE_OK);
    assert_int_equal(store_position(store, &position), STORE_OK);
    uint64_t other_epoch = position.epoch + 1;
    assert_int_equal(store_raise_epoch(store, position.epoch, other_epoch), STORE_OK);
    assert_int_equal(
        store_skip_to(store, other_epoch, position.recorded, (struct log_position){.epoch = other_epoch}),
        STORE_OK);
    store_close(&store);
    sale_fixture_await_epoch_after(&sale, other_epoch);
    sale_fixture_judge(&sale);
    assert_int_equal(sale_fixture_buy(&sale, 1, product, 1), 201);
    sale_fixture_end_sale(&sale, 0);
}

/* --- no memory
 * ------------------------------------------------------------------------------------------------------------------------- */
static void test_redis_out_of_memory(void **state)
{
    struct store *store;
    struct store_position position;
    char error[512];
    (void)state;
    sale_fixture_begin(&sale, 2, BUYERS, NULL, NULL);
    sale_fixture_add_product(&sale, 100000, 0);
    sale_fixture_add_product(&sale, 100000, 50000);
    sale_fixture_start_buying(&sale);
    sale_fixture_expect_going_on(&sale, now_us(), "at the beginning");
    redis_do(sale.redis, "CONFIG SET maxmemory-policy noeviction maxmemory 1");
    sale_fixture_buy_for(&sale, 1000);
    sale_fixture_kill(&sale, RECORDER);
    sale_fixture_buy_for(&sale, 4000);
    int64_t given = sale_fixture_orders_given(&sale);
    sale_fixture_buy_for(&sale, 500);
    assert_int_equal(sale_fixture_orders_given(&sale), given);
    int64_t since_us = now_us();
    redis_do(sale.redis, "CONFIG SET maxmemory 0");
    sale_fixture_expect_going_on(&sale, since_us, "there is memory again");
    assert_int_equal(store_open(&store, sale.server.store_url, STORE_READER, error, sizeof error), STORE_OK);
    assert_int_equal(store_position(store, &position), STORE_OK);
    store_close(&store);
    assert_in_range(position.epoch, 2, 99);
    sale_fixture_end_sale(&sale, 1);
}

/* --- news
 * ------------------------------------------------------------------------------------------------------------------------------ */
#define PENDING 6

/* $E the epoch, $F the next, $D the one before, $S the store's id, $T another store's. */
static const char *const forged_news[] = {
    "",
    "garbage",
    "recorded",
    "recorded ",
    "recorded x",
    "recorded $E",
    "recorded $E $E-999999",
    "recorded $F $F-999999",
    "recorded $T $E $E-999999",
    "recorded $T $F $F-1",
    "recorded $T 0 $E-999999",
    "recorded -$S $E $E-999999",
    "recorded $S",
    "recorded $S $E",
    "recorded $S $E ",
    "recorded $S $E $E-999999x",
    "recorded $S $E $E-",
    "recorded $S x $E-999999",
    "recorded $S $E-999999",
    "recorded $S -1 $E-999999",
    "recorded $S $E -$E-999999",
    "recorded $S 99999999999999999999999999 $E-999999",
    "recorded $S$S$S$S $E $E-999999",
    /* backwards */
    "recorded $S $E $E-0",
    "recorded $S $E 0-0",
    "recorded $S $D $D-1",
    "recorded $S 0 0-0",
};

static void fill_in(const char *news, uint64_t epoch, int64_t store_id, char out[512])
{
    size_t used = 0;
    for (const char *at = news; *at != '\0'; at++) {
        if (*at != '$') {
            out[used++] = *at;
            continue;
        }
        at++;
        int64_t number = *at == 'S'   ? store_id
                         : *at == 'T' ? store_id / 2 + 1
                                      : (int64_t)epoch + (*at == 'F') - (*at == 'D');
        used += (size_t)snprintf(out + used, 512 - used, "%" PRId64, number);
    }
    out[used] = '\0';
}

static void expect_nothing_confirmed(const char *news, int ms)
{
    int64_t deadline = deadline_in(ms);
    do {
        for (size_t i = 0; i < PENDING; i++) {
            if (!sale.buyers[i].waits) {
                fail_msg("\"%s\": a purchase that nobody recorded is answered %d", news,
                         sale.buyers[i].status);
            }
        }
    } while (wait_a_moment(deadline));
}

static void test_forged_news_confirm_nothing(void **state)
{
    char text[64], news[512];
    (void)state;
    sale_fixture_begin(&sale, 1, PENDING + 1, NULL, NULL);
    int64_t product = sale_fixture_add_product(&sale, 1000, 0);
    uint64_t epoch = sale_fixture_epoch(&sale);
    sale_fixture_kill(&sale, RECORDER); /* so that there is an epoch before */
    sale_fixture_await_epoch_after(&sale, epoch);
    epoch = sale_fixture_epoch(&sale);
    sale_fixture_head(&sale, "store", text);
    int64_t store_id = strtoll(text, NULL, 10);
    assert_int_not_equal(store_id, 0);
    assert_int_equal(sale_fixture_buy(&sale, PENDING, product, 1), 201); /* at $E-0: so that is recorded */
    sale_fixture_signal(&sale, RECORDER, SIGSTOP);
    for (size_t i = 0; i < PENDING; i++) {
        sale_fixture_ask(&sale, i, product, 1);
    }
    sale_fixture_await_orders_given(&sale, PENDING + 1);
    for (size_t i = 0; i < sizeof forged_news / sizeof forged_news[0]; i++) {
        fill_in(forged_news[i], epoch, store_id, news);
        redis_do(sale.redis, "PUBLISH {doorbuster}:news %s", news);
        expect_nothing_confirmed(forged_news[i], 20);
    }
    expect_nothing_confirmed("all of them", 1000);
    assert_int_equal(sale_fixture_orders_given(&sale), PENDING + 1);
    int64_t since_us = now_us();
    sale_fixture_signal(&sale, RECORDER, SIGCONT);
    for (size_t i = 0; i < PENDING; i++) {
        sale_fixture_await_answer(&sale, i);
        expect_one_order(i);
    }
    sale_fixture_start_buying(&sale);
    sale_fixture_expect_going_on(&sale, since_us, "after forged news");
    sale_fixture_end_sale(&sale, 1);
}

/* The same in mid-sale, with the recorder at work. */
static void test_forged_news_do_not_disturb_the_sale(void **state)
{
    char text[64], news[512];
    (void)state;
    sale_fixture_begin(&sale, 2, BUYERS, NULL, NULL);
    sale_fixture_add_product(&sale, 100000, 0);
    sale_fixture_start_buying(&sale);
    sale_fixture_head(&sale, "store", text);
    for (size_t i = 0; i < sizeof forged_news / sizeof forged_news[0]; i++) {
        fill_in(forged_news[i], sale_fixture_epoch(&sale), strtoll(text, NULL, 10), news);
        int64_t since_us = now_us();
        redis_do(sale.redis, "PUBLISH {doorbuster}:news %s", news);
        sale_fixture_expect_going_on(&sale, since_us, news);
    }
    sale_fixture_stop_buying(&sale);
    assert_int_equal(sale.ledger.unavailable, 0);
    /* Nobody's one request became two orders. */
    assert_int_equal(sale_fixture_orders_given(&sale), sale.ledger.confirmed);
    sale_fixture_end_sale(&sale, 0);
}

/* --- the tests
 * ------------------------------------------------------------------------------------------------------------------------- */
static int teardown(void **state)
{
    (void)state;
    sale_fixture_end(&sale);
    sale_fixture_end(&other);
    proxy_end(&proxy);
    redis_fixture_end(&redis);
    return 0;
}

#define TEST(name) cmocka_unit_test_teardown(name, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_first_call_of_an_epoch_loses_its_answer),
        TEST(test_an_answer_lost_before_the_next_epoch),
        TEST(test_a_call_lost_before_the_next_epoch),
        TEST(test_two_servers_on_two_databases),
        TEST(test_another_servers_recorder_confirms_nothing),
#ifdef DOORBUSTER_FAILPOINTS
        TEST(test_recorder_dies_before_it_announces_a_rejection),
        TEST(test_recorder_dies_when_it_has_committed_a_rejection),
#endif
        TEST(test_a_recorder_that_stands_still_for_long_stops_the_sale),
        TEST(test_the_store_moves_on_while_nobody_buys),
        TEST(test_redis_out_of_memory),
        TEST(test_forged_news_confirm_nothing),
        TEST(test_forged_news_do_not_disturb_the_sale),
    };
    signal(SIGPIPE, SIG_IGN);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
