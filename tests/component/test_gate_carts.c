/* The scripts of carts, bundles, windows, cancellations and changes, on a real Redis: all or nothing, once, and as the log says. */
#include "testing.h"

#include "redis_fixture.h"

#include "doorbuster/gate_books.h"
#include "doorbuster/sale.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define HEAD "{doorbuster}:head"
#define EPOCH 1
#define FAR_AHEAD_MS INT64_C(4102444800000) /* 2100 */
#define LONG_AGO_MS INT64_C(1000000000000)  /* 2001 */

static struct redis_fixture fixture;
static redisContext *redis;

/* --- asking ----------------------------------------------------------------------------------------------- */
static void open_product(struct sale_product product)
{
    struct stock_change change = {.product_id = product.id, .delta = product.stock, .cause = STOCK_OPENING};
    struct change_result result;
    assert_int_equal(gate_change_stock(redis, &change, &product, 100, &result), CHANGE_MADE);
}

static void open_plain(int64_t id, int64_t stock, int64_t price, int64_t limit)
{
    open_product((struct sale_product){.id = id, .stock = stock, .price = price, .limit = limit});
}

static const struct sale_product bundle_of_1_and_2 = {
    .id = 9, .price = 250, .components = {{1, 1}, {2, 2}}, .component_count = 2};

/* One purchase; `more` are the cart's further lines, "product:quantity …". The caller frees the reply: entry, time, and three. */
static redisReply *sell_keyed(int64_t user, int64_t product, int64_t quantity, const char *more,
                              const char *key)
{
    static int64_t request;
    struct gate_head head;
    char command[1024];
    long lines = 0, id, units;
    int bytes;
    assert_true(gate_read_head(redis, &head));
    for (const char *at = more; sscanf(at, " %ld:%ld%n", &id, &units, &bytes) == 2; at += bytes) {
        lines++;
    }
    int used = snprintf(command, sizeof command,
                        "EVALSHA %s 5 " HEAD
                        " {doorbuster}:log {doorbuster}:product: {doorbuster}:buyers: {doorbuster}:idem: 6 "
                        "%" PRId64 " %" PRId64 " %" PRId64 " %" PRId64 " %%s %ld",
                        head.scripts[GATE_SCRIPT_SELL], ++request, user, product, quantity, lines);
    for (const char *at = more; sscanf(at, " %ld:%ld%n", &id, &units, &bytes) == 2; at += bytes) {
        used += snprintf(command + used, sizeof command - (size_t)used, " %ld %ld", id, units);
    }
    redisReply *reply = redis_ask(redis, command, key);
    if (reply == NULL) {
        fail_msg("selling: %s", redis_failure());
    }
    assert_int_equal(reply->elements, 5);
    return reply;
}

static redisReply *sell(int64_t user, int64_t product, int64_t quantity, const char *more)
{
    return sell_keyed(user, product, quantity, more, "");
}

/* What the second of the three is: a number, or several in brackets. */
static const char *text_of(const redisReply *reply)
{
    static char text[512];
    size_t used = 0;
    if (reply->type == REDIS_REPLY_INTEGER) {
        snprintf(text, sizeof text, "%lld", reply->integer);
        return text;
    }
    for (size_t i = 0; i < reply->elements; i++) {
        used += (size_t)snprintf(text + used, sizeof text - used, "%s%lld", i ? " " : "[",
                                 reply->element[i]->integer);
    }
    snprintf(text + used, sizeof text - used, "]");
    return text;
}

static void expect(redisReply *reply, int64_t outcome, const char *second)
{
    assert_int_equal(reply->element[2]->integer, outcome);
    assert_string_equal(text_of(reply->element[3]), second);
    assert_int_equal(reply->element[0]->type, outcome > 0 ? REDIS_REPLY_STRING : REDIS_REPLY_NIL);
    freeReplyObject(reply);
}

static int64_t stock_of(int64_t id)
{
    redisReply *reply = redis_ask(redis, "HGET {doorbuster}:product:%" PRId64 " stock", id);
    assert_non_null(reply);
    int64_t stock = reply->type == REDIS_REPLY_STRING ? atoll(reply->str) : -1;
    freeReplyObject(reply);
    return stock;
}

static int64_t owned(int64_t product, int64_t user)
{
    redisReply *reply = redis_ask(redis, "HGET {doorbuster}:buyers:%" PRId64 " %" PRId64, product, user);
    assert_non_null(reply);
    int64_t units = reply->type == REDIS_REPLY_STRING ? atoll(reply->str) : 0;
    freeReplyObject(reply);
    return units;
}

static int64_t log_length(void)
{
    redisReply *reply = redis_ask(redis, "XLEN {doorbuster}:log");
    assert_non_null(reply);
    int64_t length = reply->integer;
    freeReplyObject(reply);
    return length;
}

/* The payload of the last entry, without its time. */
static const char *last_entry(void)
{
    static char text[4096];
    redisReply *reply = redis_ask(redis, "XREVRANGE {doorbuster}:log + - COUNT 1");
    assert_non_null(reply);
    const char *payload = reply->element[0]->element[1]->element[1]->str;
    snprintf(text, sizeof text, "%s", strchr(payload, '\n') + 1);
    freeReplyObject(reply);
    return text;
}

/* --- carts ------------------------------------------------------------------------------------------------ */
static void test_all_or_nothing(void **state)
{
    (void)state;
    open_plain(1, 5, 100, 0);
    open_plain(2, 1, 200, 0);
    open_plain(3, 0, 300, 0);
    int64_t length = log_length();
    expect(sell(7, 1, 2, "2:2 "), REFUSAL_INSUFFICIENT_STOCK, "[1 1]");
    expect(sell(7, 1, 6, "2:2 3:1"), REFUSAL_INSUFFICIENT_STOCK, "[0 5 1 1 2 0]");
    expect(sell(7, 1, 1, "2:1 99:1"), REFUSAL_NOT_ON_SALE, "99");
    assert_int_equal(log_length(), length);
    assert_int_equal(stock_of(1), 5);
    assert_int_equal(stock_of(2), 1);
    expect(sell(7, 1, 2, "2:1"), 1, "[100 3 200 0]");
    assert_int_equal(log_length(), length + 1);
    assert_int_equal(stock_of(1), 3);
    assert_int_equal(stock_of(2), 0);
    assert_true(strstr(last_entry(), " 7 1 2 100 3\n+ 2 1 200 0") != NULL);
    assert_int_equal(strncmp(last_entry(), "1 ", 2), 0);
}

static void test_limits_are_summed_over_the_cart(void **state)
{
    (void)state;
    open_plain(1, 50, 100, 3);
    open_plain(2, 50, 200, 2);
    open_product((struct sale_product){
        .id = 9, .price = 250, .limit = 1, .components = {{1, 2}, {2, 1}}, .component_count = 2});
    expect(sell(7, 9, 2, "2:1"), REFUSAL_CUSTOMER_LIMIT, "[9 2 0 1]");
    expect(sell(7, 9, 1, "1:2"), REFUSAL_CUSTOMER_LIMIT, "[1 4 0 3]"); /* two of them in the bundle */
    expect(sell(7, 9, 1, "2:2"), REFUSAL_CUSTOMER_LIMIT, "[2 3 0 2]");
    expect(sell(7, 9, 1, "1:1"), 1, "[250 24 100 47]");
    assert_int_equal(owned(1, 7), 3);
    assert_int_equal(owned(2, 7), 1);
    assert_int_equal(owned(9, 7), 1);
    expect(sell(7, 1, 1, ""), REFUSAL_CUSTOMER_LIMIT, "[1 1 3 3]");
    expect(sell(7, 2, 1, ""), 2, "200");
    expect(sell(8, 9, 1, ""), 3, "250"); /* a bundle alone answers as a single purchase */
}

/* --- bundles ---------------------------------------------------------------------------------------------- */
static void test_a_bundle_takes_its_components(void **state)
{
    (void)state;
    open_plain(1, 10, 100, 0);
    open_plain(2, 5, 200, 0);
    open_product(bundle_of_1_and_2);
    assert_int_equal(stock_of(9), -1); /* it has none of its own */
    expect(sell(7, 9, 3, ""), REFUSAL_INSUFFICIENT_STOCK, "2");
    expect(sell(7, 9, 1, "2:4"), REFUSAL_INSUFFICIENT_STOCK, "[1 3]"); /* beside the bundle before it */
    expect(sell(7, 2, 4, "9:1"), REFUSAL_INSUFFICIENT_STOCK, "[1 0]");
    expect(sell(7, 9, 2, ""), 1, "250");
    assert_int_equal(stock_of(1), 8);
    assert_int_equal(stock_of(2), 1);
    assert_non_null(strstr(last_entry(), " 7 9 2 250 0\n- 1 2 8\n- 2 4 1"));
    expect(sell(7, 9, 1, ""), REFUSAL_INSUFFICIENT_STOCK, "0");
}

static void test_two_bundles_share_a_component(void **state)
{
    (void)state;
    open_plain(1, 10, 100, 0);
    open_plain(2, 7, 200, 0);
    open_product(bundle_of_1_and_2);
    open_product((struct sale_product){.id = 10, .price = 400, .components = {{2, 3}}, .component_count = 1});
    expect(sell(7, 9, 2, "10:1 2:1"), REFUSAL_INSUFFICIENT_STOCK, "[2 0]");
    expect(sell(7, 9, 3, "10:1"), REFUSAL_INSUFFICIENT_STOCK, "[1 0]");
    expect(sell(7, 9, 2, "10:1"), 1, "[250 1 400 0]"); /* three of product 2 are left, then none */
    assert_int_equal(stock_of(2), 0);
}

static void test_a_bundle_reads_at_a_position(void **state)
{
    struct gate_stock stock;
    struct gate_head before;
    (void)state;
    open_plain(1, 10, 100, 0);
    open_plain(2, 6, 200, 0);
    open_product(bundle_of_1_and_2);
    assert_true(gate_read_head(redis, &before));
    expect(sell(7, 9, 1, "1:1"), 1, "[250 2 100 8]");
    expect(sell(7, 2, 3, ""), 2, "200");
    assert_true(gate_read_stock(redis, &bundle_of_1_and_2, before.log_last, &stock));
    assert_true(stock.on_sale && stock.at_known);
    assert_int_equal(stock.stock_at, 3);
    assert_int_equal(stock.available, 0);
    assert_int_equal(stock.in_flight, 1);
    assert_int_equal(stock.now.component_count, 2);
    assert_memory_equal(stock.now.components, bundle_of_1_and_2.components,
                        2 * sizeof(struct bundle_component));
    redis_do(redis, "HDEL {doorbuster}:product:2 stock price");
    assert_true(gate_read_stock(redis, &bundle_of_1_and_2, before.log_last, &stock));
    assert_false(stock.on_sale);
}

/* Somebody makes a bundle out of itself: sold out, not a loop without end. */
static void test_a_circle_of_bundles(void **state)
{
    (void)state;
    open_plain(1, 10, 100, 0);
    open_plain(2, 6, 200, 0);
    open_product(bundle_of_1_and_2);
    redis_do(redis, "HSET {doorbuster}:product:9 components 9:1");
    expect(sell(7, 9, 1, ""), REFUSAL_INSUFFICIENT_STOCK, "0");
    redis_do(redis, "HSET {doorbuster}:product:9 components nonsense");
    expect(sell(7, 9, 1, "1:1"), REFUSAL_INSUFFICIENT_STOCK, "[0 0]");
    redis_do(redis, "HSET {doorbuster}:product:9 components 1:1");
    redis_do(redis, "DEL {doorbuster}:product:1");
    expect(sell(7, 9, 1, ""), REFUSAL_NOT_ON_SALE, "1");
}

/* --- windows ---------------------------------------------------------------------------------------------- */
static void test_windows(void **state)
{
    (void)state;
    open_product((struct sale_product){.id = 1, .stock = 5, .price = 100, .starts_at_ms = FAR_AHEAD_MS});
    open_product((struct sale_product){.id = 2, .stock = 5, .price = 100, .ends_at_ms = LONG_AGO_MS});
    open_product((struct sale_product){
        .id = 3, .stock = 5, .price = 100, .starts_at_ms = LONG_AGO_MS, .ends_at_ms = FAR_AHEAD_MS});
    open_product(
        (struct sale_product){.id = 9, .price = 1, .components = {{1, 1}, {3, 1}}, .component_count = 2});
    redisReply *early = sell(7, 1, 9, ""); /* the window comes before the stock */
    assert_int_equal(early->element[2]->integer, REFUSAL_NOT_OPEN);
    assert_int_equal(early->element[3]->element[0]->integer, 1);
    assert_int_equal(early->element[3]->element[1]->integer, FAR_AHEAD_MS);
    assert_true(early->element[3]->element[2]->integer > 0);
    freeReplyObject(early);
    expect(sell(7, 2, 1, ""), REFUSAL_OVER, "[2 1000000000000 0]");
    expect(sell(7, 3, 1, "2:1"), REFUSAL_OVER, "[2 1000000000000 0]");
    expect(sell(7, 3, 1, ""), 1, "100");
    redisReply *bundle = sell(7, 9, 1, ""); /* a bundle opens when all it is made of is open */
    assert_int_equal(bundle->element[2]->integer, REFUSAL_NOT_OPEN);
    freeReplyObject(bundle);
    assert_int_equal(stock_of(1), 5);
    assert_int_equal(stock_of(2), 5);
    assert_int_equal(stock_of(3), 4);
}

static int64_t redis_clock_ms(void)
{
    redisReply *time = redis_ask(redis, "TIME");
    assert_non_null(time);
    int64_t ms = atoll(time->element[0]->str) * 1000 + atoll(time->element[1]->str) / 1000;
    freeReplyObject(time);
    return ms;
}

/* By Redis's own clock, whatever the log's time: that stays where it was when the clock was ahead once. */
static void test_a_window_opens_and_ends_by_the_clock(void **state)
{
    (void)state;
    redis_do(redis, "HSET " HEAD " at 5000000000000");
    int64_t opens_ms = redis_clock_ms() + 150, ends_ms = opens_ms + 150, deadline = deadline_in(5000);
    open_product((struct sale_product){
        .id = 1, .stock = 1000000, .price = 100, .starts_at_ms = opens_ms, .ends_at_ms = ends_ms});
    size_t early = 0, sold = 0;
    int64_t outcome = 0;
    while (outcome != REFUSAL_OVER) {
        int64_t before_ms = redis_clock_ms();
        redisReply *reply = sell(7, 1, 1, "");
        int64_t after_ms = redis_clock_ms();
        outcome = reply->element[2]->integer;
        if (outcome == REFUSAL_NOT_OPEN) {
            int64_t wait_ms = reply->element[3]->element[2]->integer;
            assert_true(before_ms < opens_ms);
            assert_in_range(wait_ms, opens_ms - after_ms, opens_ms - before_ms);
            assert_true(wait_ms > 0);
        } else if (outcome == REFUSAL_OVER) {
            assert_true(after_ms >= ends_ms);
        } else {
            assert_true(outcome > 0 && after_ms >= opens_ms && before_ms < ends_ms);
        }
        early += outcome == REFUSAL_NOT_OPEN;
        sold += outcome > 0;
        freeReplyObject(reply);
        assert_true(now_us() < deadline);
    }
    assert_true(early > 0 && sold > 0);
}

/* --- cancelling ------------------------------------------------------------------------------------------- */
static enum change_outcome cancel(int64_t order, int64_t user, const struct order_part *parts, size_t count,
                                  struct log_position *position)
{
    struct cancellation cancellation = {
        .order_id = order, .user_id = user, .actor = user, .parts = parts, .part_count = count};
    struct change_result result;
    struct gate_pass pass;
    bool is_void;
    assert_true(gate_take_pass(redis, &pass));
    enum change_outcome changed = gate_cancel(redis, &pass, &cancellation, &result, &is_void);
    *position = result.position;
    return is_void ? CHANGE_CLOSED : changed;
}

static void test_cancelled_once(void **state)
{
    static const struct order_part parts[] = {{.product_id = 9, .quantity = 1},
                                              {.product_id = 1, .quantity = 1, .is_component = true},
                                              {.product_id = 2, .quantity = 2, .is_component = true},
                                              {.product_id = 1, .quantity = 3}};
    struct log_position first, second;
    (void)state;
    open_plain(1, 4, 100, 4);
    open_plain(2, 2, 200, 0);
    open_product(bundle_of_1_and_2);
    expect(sell(7, 9, 1, "1:3"), 1, "[250 0 100 0]");
    expect(sell(8, 1, 1, ""), REFUSAL_INSUFFICIENT_STOCK, "0");
    assert_int_equal(owned(1, 7), 4);
    assert_int_equal(cancel(1, 7, parts, 4, &first), CHANGE_MADE);
    assert_string_equal(last_entry(), "1 7 7\n9 1 1\n1 1 4\n2 2 2\n1 3 4");
    assert_int_equal(stock_of(1), 4);
    assert_int_equal(stock_of(2), 2);
    assert_int_equal(owned(1, 7), 0);
    int64_t length = log_length();
    assert_int_equal(cancel(1, 7, parts, 4, &second), CHANGE_MADE_BEFORE);
    assert_int_equal(log_position_compare(first, second), 0); /* where it was cancelled: what one waits for */
    assert_int_equal(log_length(), length);
    assert_int_equal(stock_of(1), 4);
    expect(sell(7, 1, 4, ""), 2, "100"); /* the limit has room again */
    struct gate_stock stock;
    assert_true(gate_read_stock(redis, &(struct sale_product){.id = 1}, first, &stock));
    assert_false(stock.sold_out); /* since stock came back */
    assert_int_equal(stock.stock_at, 4);
}

static void test_a_pass_ends_with_its_epoch(void **state)
{
    static const struct order_part part = {.product_id = 1, .quantity = 1};
    struct cancellation cancellation = {
        .order_id = 1, .user_id = 7, .actor = 7, .parts = &part, .part_count = 1};
    struct change_result result;
    struct gate_pass pass;
    bool is_void;
    (void)state;
    open_plain(1, 4, 100, 0);
    expect(sell(7, 1, 1, ""), 1, "100");
    assert_true(gate_take_pass(redis, &pass));
    assert_true(gate_close(redis));
    assert_int_equal(gate_cancel(redis, &pass, &cancellation, &result, &is_void), CHANGE_FAILED);
    assert_true(is_void);
    assert_true(gate_open(redis, EPOCH + 1));
    assert_int_equal(gate_cancel(redis, &pass, &cancellation, &result, &is_void), CHANGE_FAILED);
    assert_true(is_void);
    assert_int_equal(stock_of(1), 3);
    assert_true(gate_take_pass(redis, &pass));
    assert_int_equal(gate_cancel(redis, &pass, &cancellation, &result, &is_void), CHANGE_MADE);
    assert_false(is_void);
    assert_int_equal(result.position.epoch, EPOCH + 1);
}

/* What the last `attach` entry asks for: it has no time. */
static const char *last_attach(void)
{
    static char text[SALES_LOG_NOTE_BYTES];
    redisReply *reply = redis_ask(redis, "XREVRANGE {doorbuster}:log + - COUNT 1");
    assert_non_null(reply);
    const redisReply *fields = reply->element[0]->element[1];
    assert_string_equal(fields->element[0]->str, LOG_ATTACH_WORD);
    snprintf(text, sizeof text, "%s", fields->element[1]->str);
    freeReplyObject(reply);
    return text;
}

/* Units that the books of the limit do not have: somebody has been there, and the recorder mends it. */
static void test_a_cancellation_of_what_nobody_has(void **state)
{
    static const struct order_part part = {.product_id = 1, .quantity = 2},
                                   gone = {.product_id = 77, .quantity = 1};
    struct log_position position;
    (void)state;
    open_plain(1, 4, 100, 3);
    expect(sell(7, 1, 2, ""), 1, "100");
    redis_do(redis, "HSET {doorbuster}:buyers:1 7 1");
    assert_int_equal(cancel(1, 7, &part, 1, &position),
                     CHANGE_CLOSED); /* void: try again when it is mended */
    assert_string_equal(last_attach(), LOG_REBUILD_WORD "a script found DAMAGED product 1");
    assert_int_equal(cancel(1, 7, &gone, 1, &position), CHANGE_CLOSED);
    assert_int_equal(stock_of(1), 2);
}

/* --- changes ---------------------------------------------------------------------------------------------- */
static enum change_outcome change_stock(int64_t product, int64_t delta, const char *key,
                                        struct change_result *result)
{
    struct stock_change change = {.product_id = product,
                                  .delta = delta,
                                  .cause = delta > 0 ? STOCK_RESTOCK : STOCK_WITHDRAWAL,
                                  .actor = 5,
                                  .note = "a reason",
                                  .key = key,
                                  .key_bytes = key != NULL ? strlen(key) : 0};
    return gate_change_stock(redis, &change, NULL, 100, result);
}

static void test_a_keyed_change_is_made_once(void **state)
{
    struct change_result first, again;
    (void)state;
    open_plain(1, 4, 100, 0);
    assert_int_equal(change_stock(1, 50, "r-1", &first), CHANGE_MADE);
    assert_string_equal(last_entry(), "1 50 54 restock 5 a reason\nkey r-1");
    assert_int_equal(change_stock(1, -4, NULL, &again), CHANGE_MADE);
    assert_int_equal(change_stock(1, 50, "r-1", &again), CHANGE_MADE_BEFORE);
    assert_int_equal(again.stock, 54); /* as the first time */
    assert_int_equal(log_position_compare(first.position, again.position), 0);
    assert_int_equal(change_stock(1, 7, "r-1", &again), CHANGE_MADE_BEFORE); /* whoever asks compares */
    assert_int_equal(again.product_id, 1);
    assert_int_equal(again.figure, 50);
    assert_int_equal(again.kind, CHANGE_OF_STOCK);
    assert_int_equal(stock_of(1), 50);
    /* A rebuild brings it back. */
    struct gate_change_key key = {.actor = 5, .ttl_ms = 100000, .result = first, .key = "r-1"};
    redis_do(redis, "DEL {doorbuster}:change:5:r-1");
    assert_true(gate_put_change_keys(redis, &key, 1));
    assert_int_equal(change_stock(1, 50, "r-1", &again), CHANGE_MADE_BEFORE);
    assert_int_equal(again.stock, 54);
    assert_int_equal(stock_of(1), 50);
}

static void test_a_withdrawal_is_never_below_zero(void **state)
{
    struct change_result result;
    (void)state;
    open_plain(1, 4, 100, 0);
    open_plain(2, 4, 100, 0);
    open_product(bundle_of_1_and_2);
    int64_t length = log_length();
    assert_int_equal(change_stock(1, -5, "w", &result), CHANGE_SHORT);
    assert_int_equal(change_stock(1, PRODUCT_STOCK_MAX, NULL, &result), CHANGE_FULL);
    assert_int_equal(change_stock(77, 1, NULL, &result), CHANGE_CLOSED);
    assert_int_equal(change_stock(9, 1, NULL, &result), CHANGE_CLOSED); /* a bundle */
    assert_int_equal(log_length(), length);
    assert_int_equal(change_stock(1, -4, "w", &result),
                     CHANGE_MADE); /* a refusal is not kept under the key */
    assert_int_equal(stock_of(1), 0);
}

static void test_a_price_is_for_what_comes_after(void **state)
{
    struct price_change change = {
        .product_id = 1, .to = 80, .actor = 5, .note = "second hour", .key = "p", .key_bytes = 1};
    struct change_result result;
    struct gate_head before;
    struct gate_stock stock;
    (void)state;
    open_plain(1, 4, 100, 0);
    open_plain(2, 4, 100, 0);
    open_product(bundle_of_1_and_2);
    expect(sell(7, 1, 1, ""), 1, "100");
    assert_true(gate_read_head(redis, &before));
    assert_int_equal(gate_change_price(redis, &change, 100, &result), CHANGE_MADE);
    assert_string_equal(last_entry(), "1 100 80 5 second hour\nkey p");
    assert_int_equal(result.stock, 100); /* the price before */
    expect(sell(7, 1, 1, ""), 2, "80");
    assert_int_equal(gate_change_price(redis, &change, 100, &result), CHANGE_MADE_BEFORE);
    assert_int_equal(result.kind, CHANGE_OF_PRICE);
    change.to = 60;
    change.key = NULL;
    change.key_bytes = 0;
    assert_int_equal(gate_change_price(redis, &change, 100, &result), CHANGE_MADE);
    assert_int_equal(result.stock, 80);
    assert_true(gate_read_stock(redis, &(struct sale_product){.id = 1}, before.log_last, &stock));
    assert_int_equal(stock.price_at, 100); /* both changes undone */
    assert_int_equal(stock.now.price, 60);
    assert_int_equal(stock.stock_at, 3);
    change.product_id = 9;
    assert_int_equal(gate_change_price(redis, &change, 100, &result),
                     CHANGE_MADE); /* a bundle has a price of its own */
    expect(sell(7, 9, 1, ""), 3, "60");
    change.product_id = 77;
    assert_int_equal(gate_change_price(redis, &change, 100, &result), CHANGE_CLOSED);
}

static void test_a_window_is_for_what_comes_after(void **state)
{
    struct window_change change = {.product_id = 1,
                                   .to = {SALE_WINDOW_KEEP, SALE_WINDOW_NOW},
                                   .actor = 5,
                                   .note = "enough",
                                   .key = "w",
                                   .key_bytes = 1};
    struct change_result result, again;
    struct gate_head before, head;
    struct gate_stock stock;
    char text[128];
    (void)state;
    open_plain(1, 4, 100, 0);
    open_plain(2, 4, 100, 0);
    open_product(bundle_of_1_and_2);
    expect(sell(7, 1, 1, ""), 1, "100");
    assert_true(gate_read_head(redis, &before));
    assert_int_equal(gate_change_window(redis, &change, 100, &result), CHANGE_MADE);
    assert_true(gate_read_head(redis, &head));
    assert_int_equal(result.kind, CHANGE_OF_WINDOW);
    assert_int_equal(result.figure, 0);
    assert_in_range(result.stock, before.at_ms, head.at_ms); /* "now": when it was decided */
    snprintf(text, sizeof text, "1 0 0 0 %" PRId64 " 5 enough\nkey w", result.stock);
    assert_string_equal(last_entry(), text);
    snprintf(text, sizeof text, "[1 %" PRId64 " 0]", result.stock);
    expect(sell(7, 1, 1, ""), -7, text);
    expect(sell(7, 9, 1, ""), -7, text); /* and what is made of it */
    assert_int_equal(gate_change_window(redis, &change, 100, &again), CHANGE_MADE_BEFORE);
    assert_memory_equal(&again, &result, sizeof again);
    /* A rebuild brings the key back. */
    struct gate_change_key key = {.actor = 5, .ttl_ms = 100000, .result = result, .key = "w"};
    redis_do(redis, "DEL {doorbuster}:change:5:w");
    assert_true(gate_put_change_keys(redis, &key, 1));
    assert_int_equal(gate_change_window(redis, &change, 100, &again), CHANGE_MADE_BEFORE);
    assert_memory_equal(&again, &result, sizeof again);
    change.key = NULL;
    change.key_bytes = 0;
    change.to = (struct sale_window){SALE_WINDOW_NOW, SALE_WINDOW_KEEP};
    int64_t length = log_length();
    assert_int_equal(gate_change_window(redis, &change, 100, &result), CHANGE_NEVER_OPEN); /* over already */
    assert_int_equal(log_length(), length);
    change.to = (struct sale_window){LONG_AGO_MS, SALE_TIME_MS_MAX}; /* more digits than Lua prints */
    assert_int_equal(gate_change_window(redis, &change, 100, &result), CHANGE_MADE);
    assert_int_equal(result.figure, LONG_AGO_MS);
    assert_int_equal(result.stock, SALE_TIME_MS_MAX);
    expect(sell(7, 1, 1, ""), 2, "100");
    change.to = (struct sale_window){FAR_AHEAD_MS, 0};
    assert_int_equal(gate_change_window(redis, &change, 100, &result), CHANGE_MADE);
    assert_true(gate_read_stock(redis, &(struct sale_product){.id = 1}, before.log_last, &stock));
    assert_int_equal(stock.window_at.starts_at_ms, 0); /* all three changes undone */
    assert_int_equal(stock.window_at.ends_at_ms, 0);
    assert_int_equal(stock.now.starts_at_ms, FAR_AHEAD_MS);
    assert_int_equal(stock.stock_at, 3);
    change.to = (struct sale_window){SALE_WINDOW_NOW, SALE_WINDOW_KEEP};
    assert_int_equal(gate_change_window(redis, &change, 100, &result), CHANGE_MADE);
    expect(sell(7, 1, 1, ""), 3, "100");
    change.product_id = 9;
    change.to = (struct sale_window){FAR_AHEAD_MS, 0};
    assert_int_equal(gate_change_window(redis, &change, 100, &result),
                     CHANGE_MADE); /* a bundle has its own */
    redisReply *refused = sell(7, 9, 1, "");
    assert_int_equal(refused->element[2]->integer, -6);
    freeReplyObject(refused);
    expect(sell(7, 2, 1, ""), 4, "100");
    change.product_id = 77;
    assert_int_equal(gate_change_window(redis, &change, 100, &result), CHANGE_CLOSED);
}

/* --- rebuilt ---------------------------------------------------------------------------------------------- */
static void test_a_rebuilt_product_is_as_it_was_opened(void **state)
{
    struct sale_product product = {.id = 1,
                                   .stock = 4,
                                   .price = 100,
                                   .limit = 2,
                                   .starts_at_ms = LONG_AGO_MS,
                                   .ends_at_ms = FAR_AHEAD_MS};
    static const int64_t ids[] = {1, 2, 9};
    redisReply *opened[3];
    (void)state;
    open_product(product);
    open_plain(2, 4, 100, 0);
    open_product(bundle_of_1_and_2);
    for (size_t i = 0; i < 3; i++) {
        opened[i] = redis_ask(redis, "DUMP {doorbuster}:product:%" PRId64, ids[i]);
    }
    assert_true(gate_wipe(redis, (struct log_position){7, 1}));
    assert_true(gate_put_product(redis, &product));
    assert_true(gate_put_product(redis, &(struct sale_product){.id = 2, .stock = 4, .price = 100}));
    assert_true(gate_put_product(redis, &bundle_of_1_and_2));
    for (size_t i = 0; i < 3; i++) {
        redisReply *filled = redis_ask(redis, "DUMP {doorbuster}:product:%" PRId64, ids[i]);
        assert_int_equal(filled->len, opened[i]->len);
        assert_memory_equal(filled->str, opened[i]->str, filled->len);
        freeReplyObject(filled);
        freeReplyObject(opened[i]);
    }
}

static int setup(void **state)
{
    (void)state;
    redis_fixture_start(&fixture, false);
    redis = redis_fixture_connect(&fixture);
    assert_true(gate_wipe(redis, (struct log_position){0, 0}));
    assert_true(gate_finish_rebuild(redis, 1, 0, 0));
    assert_true(gate_open(redis, EPOCH));
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    redisFree(redis);
    redis_fixture_end(&fixture);
    return 0;
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_all_or_nothing),
        TEST(test_limits_are_summed_over_the_cart),
        TEST(test_a_bundle_takes_its_components),
        TEST(test_two_bundles_share_a_component),
        TEST(test_a_bundle_reads_at_a_position),
        TEST(test_a_circle_of_bundles),
        TEST(test_windows),
        TEST(test_a_window_opens_and_ends_by_the_clock),
        TEST(test_cancelled_once),
        TEST(test_a_pass_ends_with_its_epoch),
        TEST(test_a_cancellation_of_what_nobody_has),
        TEST(test_a_keyed_change_is_made_once),
        TEST(test_a_withdrawal_is_never_below_zero),
        TEST(test_a_price_is_for_what_comes_after),
        TEST(test_a_window_is_for_what_comes_after),
        TEST(test_a_rebuilt_product_is_as_it_was_opened),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
