/* What somebody does to Redis by hand in the middle of a sale: deletes or trims the log, writes into it, puts nonsense into the head and the
 * products, replaces keys by others of the wrong type. No process may die of it, no order that was confirmed may get lost, and the sale goes on
 * within seconds. Real server, real Redis; judged by the store. */
#include "testing.h"

#include "redis_fixture.h"
#include "sale_fixture.h"

#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define RECORDER "doorbuster: recorder"
#define BUYERS 24
#define HELD 6 /* purchases that wait while the recorder is held */
#define STOCK 100000
#define LIMIT 50000
#define COMPARED_MS 1000 /* the recorder compares its books every half second */

static struct sale_fixture sale;

/* Two products, the second with a limit, and buyers who keep coming. */
static void begin_selling(void)
{
    sale_fixture_begin(&sale, 2, BUYERS, NULL, NULL);
    sale_fixture_add_product(&sale, STOCK, 0);
    sale_fixture_add_product(&sale, STOCK, LIMIT);
    sale_fixture_start_buying(&sale);
    sale_fixture_expect_going_on(&sale, now_us(), "at the beginning");
}

/* Also once the recorder has compared the books. */
static void end_selling(void)
{
    sale_fixture_buy_for(&sale, COMPARED_MS);
    sale_fixture_expect_going_on(&sale, now_us(), "at the end");
    sale_fixture_end_sale(&sale, 0);
}

/* --- edits
 * ------------------------------------------------------------------------------------------------------------------------------
 */
/* $1 and $2 are the products, $U a buyer, $E the gate's epoch, $N one that is still to come; in a word ';' stands for a line's end, '_' for a blank. */
static void fill_in(const char *edit, char out[512])
{
    size_t used = 0;
    for (const char *at = edit; *at != '\0'; at++) {
        assert_in_range(used, 0, 480);
        if (*at != '$') {
            out[used++] = *at;
            continue;
        }
        at++;
        if (*at == '1' || *at == '2') {
            used += (size_t)snprintf(out + used, 512 - used, "%" PRId64, sale.products[*at - '1']);
        } else if (*at == 'U') {
            used += (size_t)snprintf(out + used, 512 - used, "%" PRId64, sale.first_user);
        } else {
            used += (size_t)snprintf(out + used, 512 - used, "%" PRIu64,
                                     sale_fixture_epoch(&sale) + (*at == 'N' ? 5 : 0));
        }
    }
    out[used] = '\0';
}

static bool try_edit(const char *edit)
{
    char text[512], *words[8], *rest = text;
    const char *argv[8];
    int argc = 0;
    fill_in(edit, text);
    while (argc < 8 && (words[argc] = strsep(&rest, " ")) != NULL) {
        for (char *line = words[argc]; (line = strchr(line, ';')) != NULL;) {
            *line = '\n';
        }
        for (char *blank = words[argc]; (blank = strchr(blank, '_')) != NULL;) {
            *blank = ' ';
        }
        argv[argc] = words[argc];
        argc++;
    }
    redisReply *reply = redisCommandArgv(sale.redis, argc, argv, NULL);
    assert_non_null(reply);
    bool done = reply->type != REDIS_REPLY_ERROR;
    freeReplyObject(reply);
    return done;
}

/* Again if an attach came in between (an id of an older epoch is refused, so is HSET to what is no hash). */
static void edit_redis(const char *edit)
{
    int64_t deadline = deadline_in(SALE_PATIENCE_MS);
    while (!try_edit(edit)) {
        if (!wait_a_moment(deadline)) {
            fail_msg("%s: Redis refuses it: %s", edit, sale.redis->errstr);
        }
    }
}

/* Each in turn, in one sale: what one leaves behind would stop it after the next. */
static void edit_in_mid_sale(const char *const *edits, size_t count)
{
    begin_selling();
    for (size_t i = 0; i < count; i++) {
        edit_redis(edits[i]);
        sale_fixture_expect_going_on(&sale, now_us(), edits[i]);
    }
    end_selling();
}

#define EDIT_IN_MID_SALE(edits) edit_in_mid_sale(edits, sizeof(edits) / sizeof((edits)[0]))

/* --- figures
 * ---------------------------------------------------------------------------------------------------------------------------- */
static int64_t field(const char *key, const char *name)
{
    redisReply *reply = redisCommand(sale.redis, "HGET %s %s", key, name);
    assert_non_null(reply);
    char *end = NULL;
    int64_t number = reply->type == REDIS_REPLY_STRING ? strtoll(reply->str, &end, 10) : -1;
    number = end != NULL && end > reply->str && *end == '\0' ? number : -1;
    freeReplyObject(reply);
    return number;
}

/* A figure is put right again, not only passed by. */
static void edit_figure(int64_t product, const char *name, const char *value, int64_t min, int64_t max)
{
    char key[64], what[128];
    snprintf(key, sizeof key, product > 0 ? "{doorbuster}:product:%" PRId64 : "{doorbuster}:head", product);
    snprintf(what, sizeof what, value != NULL ? "%s %s %s" : "%s without %s", key, name, value);
    int64_t deadline = deadline_in(SALE_PATIENCE_MS);
    if (value != NULL) {
        redis_do(sale.redis, "HSET %s %s %s", key, name, value);
    } else {
        redis_do(sale.redis, "HDEL %s %s", key, name);
    }
    int64_t since_us = now_us();
    sale_fixture_expect_going_on(&sale, since_us, what);
    for (int64_t now = 0; (now = field(key, name)) < min || now > max;) {
        if (!wait_a_moment(deadline)) {
            fail_msg("%s: it is not put right, but %" PRId64, what, now);
        }
    }
}

static void test_nonsense_for_a_price(void **state)
{
    static const char *const prices[] = {"99.50", "-5", "1e3", "abc", "", "99999999999999999999", "1", "1"};
    (void)state;
    begin_selling(); /* whatever is sold at another price is no order */
    for (size_t i = 0; i < sizeof prices / sizeof prices[0]; i++) {
        edit_figure(sale.products[i % 2], "price", prices[i], SALE_PRICE, SALE_PRICE);
    }
    edit_figure(sale.products[0], "price", NULL, SALE_PRICE, SALE_PRICE);
    end_selling();
}

static void test_nonsense_for_a_stock(void **state)
{
    static const char *const stocks[] = {"1e20", "-1",  "abc", "12.5", "", "99999999999999999999",
                                         "nan",  "0x10"};
    (void)state;
    begin_selling();
    for (size_t i = 0; i < sizeof stocks / sizeof stocks[0]; i++) {
        edit_figure(sale.products[i % 2], "stock", stocks[i], 0, STOCK);
    }
    edit_figure(sale.products[0], "stock", NULL, 0, STOCK);
    end_selling();
}

/* Closed, put off, and what is no time: the store's window comes back. */
static void test_nonsense_for_a_window(void **state)
{
    static const char *const edits[][2] = {
        {"ends", "1"}, {"starts", "4102444800000"}, {"ends", "soon"}, {"starts", "-5"}};
    (void)state;
    begin_selling();
    for (size_t i = 0; i < sizeof edits / sizeof edits[0]; i++) {
        edit_figure(sale.products[i % 2], edits[i][0], edits[i][1], 0, 0);
    }
    end_selling();
}

static void test_nonsense_for_a_limit(void **state)
{
    static const char *const limits[] = {"1e20", "-1", "abc"};
    (void)state;
    begin_selling();
    for (size_t i = 0; i < sizeof limits / sizeof limits[0]; i++) {
        edit_figure(sale.products[1], "limit", limits[i], LIMIT, LIMIT);
    }
    end_selling();
}

static void test_nonsense_for_the_order_counter(void **state)
{
    static const char *const counters[] = {NULL,  "-1",   "-10", "abc",
                                           "1.5", "1e20", "0",   "99999999999999999999"};
    (void)state;
    begin_selling();
    for (size_t i = 0; i < sizeof counters / sizeof counters[0]; i++) {
        edit_figure(0, "orders", counters[i], (int64_t)sale.ledger.confirmed, 10 * STOCK);
    }
    end_selling();
}

static void test_nonsense_for_the_clock(void **state)
{
    static const char *const clocks[] = {
        "1e14", "abc", NULL, "-1", "100000000000000", "99999999999999999999"};
    (void)state;
    begin_selling();
    int64_t at = field("{doorbuster}:head", "at");
    for (size_t i = 0; i < sizeof clocks / sizeof clocks[0]; i++) {
        edit_figure(0, "at", clocks[i], at, at + INT64_C(3600000));
    }
    end_selling();
}

static void test_nonsense_for_the_rest_of_the_head(void **state)
{
    static const char *const edits[] = {
        "HSET {doorbuster}:head epoch abc",  "HSET {doorbuster}:head epoch -1",
        "HSET {doorbuster}:head epoch 0",    "HSET {doorbuster}:head epoch 1e3",
        "HDEL {doorbuster}:head epoch",      "HSET {doorbuster}:head sell abc",
        "HDEL {doorbuster}:head sell",       "HSET {doorbuster}:head stock abc",
        "HDEL {doorbuster}:head stock",      "HSET {doorbuster}:head store abc",
        "HSET {doorbuster}:head store 4711", "HDEL {doorbuster}:head store",
    };
    (void)state;
    EDIT_IN_MID_SALE(edits);
}

/* --- into the log
 * -------------------------------------------------------------------------------------------- */
static void test_foreign_entries(void **state)
{
    static const char *const edits[] = {
        "XADD {doorbuster}:log $E-* foo bar",
        "XADD {doorbuster}:log * foo bar",
        "XADD {doorbuster}:log $E-18446744073709551615 foo bar",
        "XADD {doorbuster}:log $N-18446744073709551615 foo bar",
        "XADD {doorbuster}:log $E-9223372036854775808 foo bar",
        "XADD {doorbuster}:log 9223372036854775808-1 foo bar",
        "XADD {doorbuster}:log 18446744073709551615-18446744073709551615 foo bar",
        "XADD {doorbuster}:log $E-* foo bar sale baz",
        "XADD {doorbuster}:log $E-* attach me",
        "XADD {doorbuster}:log $N-* attach me",
    };
    (void)state;
    EDIT_IN_MID_SALE(edits);
}

static void test_entries_with_garbage(void **state)
{
    static const char *const edits[] = {
        "XADD {doorbuster}:log $E-* sale garbage",
        "XADD {doorbuster}:log $E-* stock garbage",
        "XADD {doorbuster}:log $E-* sale _",
        "XADD {doorbuster}:log $E-* sale 1764201600123",
        "XADD {doorbuster}:log $E-* sale 1764201600123;",
        "XADD {doorbuster}:log $E-* sale 1764201600123;x_1_1_$1_1_500_5",
        "XADD {doorbuster}:log $E-* sale 1764201600123;99999999999999999999_1_1_$1_1_500_5",
        "XADD {doorbuster}:log $E-* sale 1764201600123;1_1_1_$1_-1_500_5",
        "XADD {doorbuster}:log $E-* stock 1764201600123;$1_x_5_restock_5_note",
        "XADD {doorbuster}:log $E-* stock 1764201600123;$1_5_5_gift_5_note",
        "XADD {doorbuster}:log $E-* price 1764201600123;$1_500_99999999999999999_5_note",
        "XADD {doorbuster}:log $E-* stock 1764201600123;$1_99999999999_99999999999_restock_5_note",
        "XADD {doorbuster}:log $E-* stock 1764201600123;$1_1000000000_1000000000_restock_5_note",
        "XADD {doorbuster}:log $E-* stock 100000000000000;$1_5_5_restock_5_note",
        "XADD {doorbuster}:log * sale garbage",
        "XADD {doorbuster}:log $E-18446744073709551615 sale garbage",
        "XADD {doorbuster}:log 18446744073709551615-18446744073709551615 stock garbage",
    };
    (void)state;
    EDIT_IN_MID_SALE(edits);
}

static void test_keys_of_the_wrong_type(void **state)
{
    static const char *const edits[] = {
        "SET {doorbuster}:product:$1 5", "SET {doorbuster}:product:$2 5", "SET {doorbuster}:buyers:$2 5",
        "SET {doorbuster}:head 5",       "SET {doorbuster}:log 5",        "SET {doorbuster}:buyers:$1 5",
        "DEL {doorbuster}:product:$1",   "DEL {doorbuster}:head",
    };
    (void)state;
    EDIT_IN_MID_SALE(edits);
}

/* --- the log, taken away
 * ---------------------------------------------------------------------------------------------------------------------- */
static void test_deleted_log(void **state)
{
    (void)state;
    begin_selling();
    for (unsigned i = 0; i < 3; i++) {
        sale_fixture_buy_for(&sale, 100);
        redis_do(sale.redis, "DEL {doorbuster}:log");
        sale_fixture_expect_going_on(&sale, now_us(), "DEL {doorbuster}:log");
    }
    /* With entries in it that nobody has recorded. */
    int64_t given = sale_fixture_orders_given(&sale);
    sale_fixture_signal(&sale, RECORDER, SIGSTOP);
    sale_fixture_await_orders_given(&sale, given + 5);
    redis_do(sale.redis, "DEL {doorbuster}:log");
    int64_t since_us = now_us();
    sale_fixture_signal(&sale, RECORDER, SIGCONT);
    sale_fixture_expect_going_on(&sale, since_us, "DEL {doorbuster}:log while the recorder was held");
    end_selling();
}

/* Ids of the log's entries after the store's position, the oldest first. */
static size_t unrecorded_entries(char ids[][64], size_t max)
{
    struct store *store;
    struct store_position position;
    char error[512], recorded[SALES_LOG_POSITION_BYTES];
    assert_int_equal(store_open(&store, sale.server.store_url, STORE_READER, error, sizeof error), STORE_OK);
    assert_int_equal(store_position(store, &position), STORE_OK);
    store_close(&store);
    log_position_format(position.recorded, recorded);
    redisReply *reply =
        redisCommand(sale.redis, "XRANGE {doorbuster}:log (%s + COUNT %d", recorded, (int)max);
    assert_non_null(reply);
    assert_int_equal(reply->type, REDIS_REPLY_ARRAY);
    size_t count = reply->elements;
    for (size_t i = 0; i < count; i++) {
        snprintf(ids[i], 64, "%s", reply->element[i]->element[0]->str);
    }
    freeReplyObject(reply);
    return count;
}

/* Purchases that are reserved, each in an entry of its own, and not recorded. */
static void hold_purchases(int64_t product)
{
    sale_fixture_signal(&sale, RECORDER, SIGSTOP);
    for (size_t i = 0; i < HELD; i++) {
        int64_t given = sale_fixture_orders_given(&sale);
        sale_fixture_ask(&sale, i, product, 1);
        sale_fixture_await_orders_given(&sale, given + 1);
    }
}

/* What was lost with the log was promised to nobody: it was answered otherwise, or sold once more. */
static void take_unrecorded_entries_away(void (*take)(char ids[][64], size_t count))
{
    char ids[HELD + 1][64];
    sale_fixture_begin(&sale, 1, BUYERS, NULL, NULL);
    int64_t product = sale_fixture_add_product(&sale, STOCK, 0);
    assert_int_equal(sale_fixture_buy(&sale, BUYERS - 1, product, 1), 201);
    for (unsigned round = 0; round < 3; round++) {
        hold_purchases(product);
        size_t count = unrecorded_entries(ids, HELD + 1);
        assert_in_range(count, HELD, HELD + 1);
        take(ids, count);
        int64_t since_us = now_us();
        sale_fixture_signal(&sale, RECORDER, SIGCONT);
        sale_fixture_start_buying(&sale);
        sale_fixture_expect_going_on(&sale, since_us, "entries are gone that nobody had recorded");
        sale_fixture_stop_buying(&sale);
        ledger_check_store(&sale.ledger, sale.server.store_url);
    }
    sale_fixture_start_buying(&sale);
    end_selling();
}

static void trim_all(char ids[][64], size_t count)
{
    (void)ids, (void)count;
    redis_do(sale.redis, "XTRIM {doorbuster}:log MAXLEN 0");
}

static void trim_half(char ids[][64], size_t count)
{
    redis_do(sale.redis, "XTRIM {doorbuster}:log MINID = %s", ids[count / 2]);
}

static void delete_first(char ids[][64], size_t count)
{
    (void)count;
    redis_do(sale.redis, "XDEL {doorbuster}:log %s", ids[0]);
}

static void delete_middle(char ids[][64], size_t count)
{
    redis_do(sale.redis, "XDEL {doorbuster}:log %s", ids[count / 2]);
}

static void delete_last(char ids[][64], size_t count)
{
    redis_do(sale.redis, "XDEL {doorbuster}:log %s", ids[count - 1]);
}

static void test_trimmed_log(void **state)
{
    (void)state;
    take_unrecorded_entries_away(trim_all);
}

static void test_half_trimmed_log(void **state)
{
    (void)state;
    take_unrecorded_entries_away(trim_half);
}

static void test_first_unrecorded_entry_deleted(void **state)
{
    (void)state;
    take_unrecorded_entries_away(delete_first);
}

static void test_an_unrecorded_entry_deleted(void **state)
{
    (void)state;
    take_unrecorded_entries_away(delete_middle);
}

static void test_last_entry_deleted(void **state)
{
    (void)state;
    take_unrecorded_entries_away(delete_last);
}

/* --- epochs, stores and places that are not ours
 * ------------------------------------------------------------------------------------------------------------------------------ */
static void test_epochs_beyond_all_bounds(void **state)
{
    static const char *const edits[] = {
        "HSET {doorbuster}:head epoch 9223372036854775807",
        "HSET {doorbuster}:head epoch 9223372036854775806",
        "XADD {doorbuster}:log 9223372036854775806-0 a b",
        "FLUSHALL",
        "XADD {doorbuster}:log 9223372036854775807-0 a b",
    };
    (void)state;
    EDIT_IN_MID_SALE(edits);
}

/* The ids of others come while the recorder attaches, and then Redis is lost as well. */
static void test_later_epochs_while_it_attaches(void **state)
{
    (void)state;
    begin_selling();
    for (unsigned i = 0; i < 12; i++) {
        redis_do(sale.redis, "SCRIPT FLUSH");
        sale_fixture_buy_for(&sale, (int)random_below(&sale.random, 250));
        (void)try_edit("XADD {doorbuster}:log * a b");
        if (i % 4 == 3) {
            redis_do(sale.redis, "FLUSHALL");
        }
        sale_fixture_expect_going_on(&sale, now_us(), "XADD * during an attach");
    }
    end_selling();
}

/* A worker that starts reads whose head it is. */
static void test_another_stores_head(void **state)
{
    static const char *const edits[] = {"HSET {doorbuster}:head store 999", "HDEL {doorbuster}:head store"};
    (void)state;
    begin_selling();
    for (size_t i = 0; i < 2; i++) {
        edit_redis(edits[i]);
        sale_fixture_kill(&sale, "doorbuster: worker 0");
        sale_fixture_kill(&sale, "doorbuster: worker 1");
        sale_fixture_expect_going_on(&sale, now_us(), edits[i]);
    }
    sale_fixture_buy_for(&sale, COMPARED_MS);
    sale_fixture_stop_buying(&sale);
    ledger_check_store(&sale.ledger, sale.server.store_url);
    server_fixture_verify(&sale.server, 0);
    server_fixture_stop(&sale.server);
}

static void test_nonsense_for_a_buyers_units(void **state)
{
    static const char *const edits[] = {"HSET {doorbuster}:buyers:$2 $U abc",
                                        "HSET {doorbuster}:buyers:$2 $U -7"};
    (void)state;
    EDIT_IN_MID_SALE(edits);
}

/* Something is where the next product will be. */
static void test_a_new_product_whose_place_is_taken(void **state)
{
    (void)state;
    begin_selling();
    edit_redis("HSET {doorbuster}:product:3 stock abc");
    sale_fixture_expect_going_on(&sale, now_us(), "HSET of a product to come");
    int64_t deadline = deadline_in(SALE_PATIENCE_MS);
    (void)server_fixture_try_product(&sale.server, 10,
                                     0); /* may well be too slow for an answer; the row is there */
    while (!sale_fixture_product(&sale, 3).opened) {
        assert_true(wait_a_moment(deadline));
    }
    sale_fixture_expect_going_on(&sale, now_us(), "a product in a place that was taken");
    end_selling();
}

/* Trimmed in mid-sale again and again, whatever the recorder is doing. */
static void test_log_trimmed_at_any_moment(void **state)
{
    (void)state;
    begin_selling();
    for (unsigned i = 0; i < 20; i++) {
        sale_fixture_buy_for(&sale, (int)random_below(&sale.random, 100));
        redis_do(sale.redis, "XTRIM {doorbuster}:log MAXLEN 0");
        sale_fixture_expect_going_on(&sale, now_us(), "XTRIM {doorbuster}:log MAXLEN 0");
    }
    end_selling();
}

static void delete_all(char ids[][64], size_t count)
{
    (void)ids, (void)count;
    redis_do(sale.redis, "DEL {doorbuster}:log");
}

/* The last units, reserved in an entry that is gone, and no sale after it that would show the gap: somebody can buy them. */
static void last_units_in_a_lost_entry(void (*take)(char ids[][64], size_t count))
{
    char ids[2][64];
    sale_fixture_begin(&sale, 1, 4, NULL, NULL);
    int64_t product = sale_fixture_add_product(&sale, 5, 0), another = sale_fixture_add_product(&sale, 5, 0);
    assert_int_equal(sale_fixture_buy(&sale, 0, product, 2), 201);
    sale_fixture_signal(&sale, RECORDER, SIGSTOP);
    sale_fixture_ask(&sale, 1, another, 1);
    sale_fixture_await_orders_given(&sale, 2);
    sale_fixture_ask(&sale, 2, product, 3);
    sale_fixture_await_orders_given(&sale, 3);
    assert_int_equal(unrecorded_entries(ids, 2), 2);
    take(ids, 2);
    sale_fixture_signal(&sale, RECORDER, SIGCONT);
    int64_t deadline = deadline_in(SALE_GO_ON_MS);
    int status = 0;
    while (sale_fixture_product(&sale, product).sold < 5) {
        if (!wait_a_moment(deadline)) {
            fail_msg("%" PRId64 " units have leaked, the last answer is %d",
                     sale_fixture_product(&sale, product).stock, status);
        }
        if (!sale.buyers[3].waits) {
            status = sale.buyers[3].status;
            sale_fixture_ask(&sale, 3, product, 1);
        }
    }
    sale_fixture_await_answer(&sale, 1);
    sale_fixture_await_answer(&sale, 2);
    sale_fixture_await_answer(&sale, 3);
    assert_int_equal(sale_fixture_buy(&sale, 3, product, 1), 400);
    sale_fixture_end_sale(&sale, 0);
}

static void test_last_units_in_a_trimmed_log(void **state)
{
    (void)state;
    last_units_in_a_lost_entry(trim_all);
}

static void test_last_units_in_a_deleted_entry(void **state)
{
    (void)state;
    last_units_in_a_lost_entry(delete_last);
}

static void test_last_units_in_a_deleted_log(void **state)
{
    (void)state;
    last_units_in_a_lost_entry(delete_all);
}

/* --- the tests
 * ------------------------------------------------------------------------------------------------------------------------- */
static int teardown(void **state)
{
    (void)state;
    sale_fixture_end(&sale);
    return 0;
}

#define TEST(name) cmocka_unit_test_teardown(name, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_deleted_log),
        TEST(test_trimmed_log),
        TEST(test_half_trimmed_log),
        TEST(test_first_unrecorded_entry_deleted),
        TEST(test_an_unrecorded_entry_deleted),
        TEST(test_last_entry_deleted),
        TEST(test_a_new_product_whose_place_is_taken),
        TEST(test_nonsense_for_a_buyers_units),
        TEST(test_another_stores_head),
        TEST(test_later_epochs_while_it_attaches),
        TEST(test_epochs_beyond_all_bounds),
        TEST(test_log_trimmed_at_any_moment),
        TEST(test_last_units_in_a_trimmed_log),
        TEST(test_last_units_in_a_deleted_entry),
        TEST(test_last_units_in_a_deleted_log),
        TEST(test_nonsense_for_a_price),
        TEST(test_nonsense_for_a_stock),
        TEST(test_nonsense_for_a_window),
        TEST(test_nonsense_for_a_limit),
        TEST(test_nonsense_for_the_order_counter),
        TEST(test_nonsense_for_the_clock),
        TEST(test_nonsense_for_the_rest_of_the_head),
        TEST(test_foreign_entries),
        TEST(test_entries_with_garbage),
        TEST(test_keys_of_the_wrong_type),
    };
    signal(SIGPIPE, SIG_IGN);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
