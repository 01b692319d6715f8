/* The scripts and Redis's side of the books, on a real Redis: what sells, what is refused and leaves no
 * trace, what the fence keeps out. */
#include "testing.h"

#include "redis_fixture.h"

#include "doorbuster/gate_books.h"
#include "doorbuster/gate_lease.h"
#include "doorbuster/sale.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define HEAD "{doorbuster}:head"
#define LOG "{doorbuster}:log"
#define KEYS "{doorbuster}:idem:"
#define EPOCH 1
#define PRICE 500

static struct redis_fixture fixture;
static redisContext *redis;
static char sell_sha[64];

/* --- calling the scripts
 * ----------------------------------------------------------------------------------------------------------
 */
struct line {
    int64_t request, user, product, quantity;
};

static void read_sha(void)
{
    redisReply *reply = redis_ask(redis, "HGET " HEAD " sell");
    assert_non_null(reply);
    snprintf(sell_sha, sizeof sell_sha, "%s", reply->type == REDIS_REPLY_STRING ? reply->str : "none");
    freeReplyObject(reply);
}

/* The script's answer, or NULL and redis_failure(). */
static redisReply *try_sell_keyed(const struct line *lines, const char *const *keys, size_t count)
{
    static char texts[4 * SALES_LOG_ORDERS_MAX][24];
    const char *argv[9 + 5 * SALES_LOG_ORDERS_MAX] = {"EVALSHA",
                                                      sell_sha,
                                                      "5",
                                                      HEAD,
                                                      LOG,
                                                      "{doorbuster}:product:",
                                                      "{doorbuster}:buyers:",
                                                      KEYS,
                                                      keys != NULL ? "5" : "4"};
    int argc = 9;
    for (size_t i = 0; i < count; i++) {
        const int64_t numbers[] = {lines[i].request, lines[i].user, lines[i].product, lines[i].quantity};
        for (size_t j = 0; j < 4; j++) {
            snprintf(texts[4 * i + j], sizeof texts[0], "%" PRId64, numbers[j]);
            argv[argc++] = texts[4 * i + j];
        }
        if (keys != NULL) {
            argv[argc++] = keys[i];
        }
    }
    redisReply *reply = redisCommandArgv(redis, argc, argv, NULL);
    assert_non_null(reply);
    return reply;
}

static redisReply *try_sell(const struct line *lines, size_t count)
{
    return try_sell_keyed(lines, NULL, count);
}

struct outcome {
    int64_t order, second, third; /* sold: price, remaining; or a refusal and its figures */
};

struct sold {
    bool wrote; /* there is an entry in the log */
    struct log_position position;
    int64_t at_ms;
    struct outcome outcomes[SALES_LOG_ORDERS_MAX];
};

/* Of a single purchase. A limit comes with the product and the units asked for, and is told apart from the others by that. */
static struct outcome read_outcome(redisReply *const *three, int64_t product)
{
    int64_t order = three[0]->integer;
    assert_int_equal(three[0]->type, REDIS_REPLY_INTEGER);
    assert_int_equal(three[2]->type, REDIS_REPLY_INTEGER);
    if (order == REFUSAL_CUSTOMER_LIMIT) {
        assert_int_equal(three[1]->elements, 4);
        assert_int_equal(three[1]->element[0]->integer, product);
        return (struct outcome){order, three[1]->element[2]->integer, three[1]->element[3]->integer};
    }
    assert_int_equal(three[1]->type, REDIS_REPLY_INTEGER);
    return (struct outcome){order, three[1]->integer, three[2]->integer};
}

/* `keys` may be NULL; a purchase without one among others has "". */
static struct sold sell_keyed(const struct line *lines, const char *const *keys, size_t count)
{
    struct sold sold = {0};
    redisReply *reply = try_sell_keyed(lines, keys, count);
    if (reply->type != REDIS_REPLY_ARRAY) {
        fail_msg("selling: %s", reply->str);
    }
    assert_int_equal(reply->elements, 2 + 3 * count);
    sold.wrote = reply->element[0]->type == REDIS_REPLY_STRING;
    if (sold.wrote) {
        assert_true(log_position_parse(reply->element[0]->str, reply->element[0]->len, &sold.position));
    }
    sold.at_ms = reply->element[1]->integer;
    for (size_t i = 0; i < count; i++) {
        sold.outcomes[i] = read_outcome(&reply->element[2 + 3 * i], lines[i].product);
    }
    freeReplyObject(reply);
    return sold;
}

static struct sold sell(const struct line *lines, size_t count)
{
    return sell_keyed(lines, NULL, count);
}

static struct outcome sell_one_keyed(int64_t user, int64_t product, int64_t quantity, const char *key)
{
    static int64_t request = 1000000;
    struct line line = {++request, user, product, quantity};
    return sell_keyed(&line, &key, 1).outcomes[0];
}

static struct outcome sell_one(int64_t user, int64_t product, int64_t quantity)
{
    static int64_t request;
    struct line line = {++request, user, product, quantity};
    return sell(&line, 1).outcomes[0];
}

static void expect_outcome(struct outcome outcome, int64_t order, int64_t second, int64_t third)
{
    assert_int_equal(outcome.order, order);
    assert_int_equal(outcome.second, second);
    assert_int_equal(outcome.third, third);
}

static enum change_outcome change_stock(enum stock_cause cause, int64_t product, int64_t delta,
                                        int64_t *stock)
{
    struct stock_change change = {
        .product_id = product, .delta = delta, .cause = cause, .actor = 7, .note = "a note of several words"};
    struct change_result result = {.stock = *stock};
    enum change_outcome changed = gate_change_stock(redis, &change, NULL, 100, &result);
    *stock = result.stock;
    return changed;
}

static enum change_outcome open_product(int64_t product, int64_t stock, int64_t limit)
{
    struct stock_change change = {
        .product_id = product, .delta = stock, .cause = STOCK_OPENING, .note = "opening"};
    struct sale_product opening = {.price = PRICE, .limit = limit};
    struct change_result result;
    return gate_change_stock(redis, &change, &opening, 100, &result);
}

/* --- everything that is in Redis
 * ------------------------------------------------------------------------------------------------------ */
/* One text of all keys and their DUMPs: equal texts, equal Redis. */
static char *dump_all(void)
{
    redisReply *keys =
        redis_ask(redis, "EVAL %s 0", "local keys = redis.call('KEYS', '*') table.sort(keys) return keys");
    assert_non_null(keys);
    char *text = NULL;
    size_t bytes = 0;
    FILE *out = open_memstream(&text, &bytes);
    for (size_t i = 0; i < keys->elements; i++) {
        redisReply *dump = redis_ask(redis, "DUMP %s", keys->element[i]->str);
        assert_non_null(dump);
        fprintf(out, "%s=", keys->element[i]->str);
        for (size_t j = 0; j < dump->len; j++) {
            fprintf(out, "%02x", (unsigned char)dump->str[j]);
        }
        fputc('\n', out);
        freeReplyObject(dump);
    }
    fclose(out);
    freeReplyObject(keys);
    return text;
}

static void expect_unchanged(char *before)
{
    char *after = dump_all();
    assert_string_equal(before, after);
    free(before);
    free(after);
}

static struct log_room room_of(struct sale_order *orders, size_t max)
{
    static struct order_part parts[2 * SALES_LOG_PARTS_MAX];
    return (struct log_room){
        .orders = orders, .orders_max = max, .parts = parts, .parts_max = sizeof parts / sizeof parts[0]};
}

static bool read_log(struct log_position after, int block_ms, struct log_entry *entries, size_t max,
                     struct sale_order *orders, size_t orders_max, size_t *count, redisReply **reply)
{
    struct log_room room = room_of(orders, orders_max);
    return gate_read_log(redis, NULL, after, block_ms, entries, max, &room, count, reply);
}

static bool read_stock(int64_t product, struct log_position at, struct gate_stock *out)
{
    return gate_read_stock(redis, &(struct sale_product){.id = product}, at, out);
}

static bool put_product(int64_t product, int64_t stock, int64_t price, int64_t limit)
{
    return gate_put_product(
        redis, &(struct sale_product){.id = product, .stock = stock, .price = price, .limit = limit});
}

static bool put_buyer(int64_t product, int64_t user, int64_t units)
{
    return gate_put_buyers(redis, &(struct gate_buyer){product, user, units}, 1);
}

static void read_entry(struct log_position after, struct log_entry *entry, struct sale_order *orders)
{
    struct log_entry entries[8];
    redisReply *reply;
    size_t count;
    assert_true(read_log(after, 0, entries, 1, orders, SALES_LOG_ORDERS_MAX, &count, &reply));
    assert_int_equal(count, 1);
    *entry = entries[0];
    freeReplyObject(reply);
}

/* --- selling
 * ----------------------------------------------------------------------------------------------------------------------------
 */
static void test_a_batch(void **state)
{
    static struct sale_order orders[SALES_LOG_ORDERS_MAX];
    const struct line lines[] = {
        {101, 1, 1, 2}, {102, 2, 1, 9}, {-103, 3, 2, 1}, {104, 1, 1, 3}, {105, 4, 99, 1}};
    struct log_entry entry;
    (void)state;
    open_product(1, 6, 0);
    open_product(2, 1, 0);
    struct sold sold = sell(lines, 5);
    expect_outcome(sold.outcomes[0], 1, PRICE, 4);
    expect_outcome(sold.outcomes[1], REFUSAL_INSUFFICIENT_STOCK, 4, 0);
    expect_outcome(sold.outcomes[2], 2, PRICE, 0);
    expect_outcome(sold.outcomes[3], 3, PRICE, 1);
    expect_outcome(sold.outcomes[4], REFUSAL_NOT_ON_SALE, 99, 0);
    /* The log says exactly what the answer said. */
    read_entry((struct log_position){EPOCH, 1}, &entry, orders);
    assert_int_equal(log_position_compare(entry.position, sold.position), 0);
    assert_int_equal(entry.kind, LOG_ENTRY_SALE);
    assert_int_equal(entry.at_ms, sold.at_ms);
    assert_int_equal(entry.order_count, 3);
    static const size_t line_of[] = {0, 2, 3};
    for (size_t i = 0; i < 3; i++) {
        const struct line *line = &lines[line_of[i]];
        const struct outcome *outcome = &sold.outcomes[line_of[i]];
        assert_int_equal(orders[i].id, outcome->order);
        assert_int_equal(orders[i].request, line->request);
        assert_int_equal(orders[i].user_id, line->user);
        assert_int_equal(orders[i].product_id, line->product);
        assert_int_equal(orders[i].quantity, line->quantity);
        assert_int_equal(orders[i].unit_price, outcome->second);
        assert_int_equal(orders[i].remaining, outcome->third);
    }
    assert_int_equal(log_entry_stock_delta(&entry, 1), -5);
    assert_int_equal(log_entry_stock_delta(&entry, 2), -1);
}

static void test_the_largest_batch(void **state)
{
    static struct line lines[SALES_LOG_ORDERS_MAX];
    static struct sale_order orders[SALES_LOG_ORDERS_MAX];
    struct log_entry entry;
    (void)state;
    open_product(1, 1000000, 1000);
    for (size_t i = 0; i < SALES_LOG_ORDERS_MAX; i++) {
        lines[i] = (struct line){INT64_MAX - (int64_t)i, (int64_t)(i + 1) * 10000000000, 1, 1000};
    }
    struct sold sold = sell(lines, SALES_LOG_ORDERS_MAX);
    read_entry((struct log_position){EPOCH, 0}, &entry, orders);
    assert_int_equal(entry.order_count, SALES_LOG_ORDERS_MAX);
    for (size_t i = 0; i < SALES_LOG_ORDERS_MAX; i++) {
        expect_outcome(sold.outcomes[i], (int64_t)i + 1, PRICE, 1000000 - ((int64_t)i + 1) * 1000);
        assert_int_equal(orders[i].request, lines[i].request);
        assert_int_equal(orders[i].user_id, lines[i].user);
    }
}

static void test_exactly_the_last_unit(void **state)
{
    (void)state;
    open_product(1, 3, 0);
    expect_outcome(sell_one(1, 1, 4), REFUSAL_INSUFFICIENT_STOCK, 3, 0);
    expect_outcome(sell_one(1, 1, 3), 1, PRICE, 0);
    expect_outcome(sell_one(1, 1, 1), REFUSAL_INSUFFICIENT_STOCK, 0, 0);
    open_product(2, 1, 0);
    expect_outcome(sell_one(1, 2, 2), REFUSAL_INSUFFICIENT_STOCK, 1, 0);
    expect_outcome(sell_one(1, 2, 1), 2, PRICE, 0);
    expect_outcome(sell_one(2, 2, 1), REFUSAL_INSUFFICIENT_STOCK, 0, 0);
    open_product(3, 0, 0);
    expect_outcome(sell_one(1, 3, 1), REFUSAL_INSUFFICIENT_STOCK, 0, 0);
}

static void test_two_lines_of_one_buyer_are_added_up(void **state)
{
    const struct line lines[] = {{1, 5, 1, 2}, {2, 5, 1, 2}, {3, 5, 1, 1}};
    (void)state;
    open_product(1, 3, 0);
    struct sold sold = sell(lines, 3);
    expect_outcome(sold.outcomes[0], 1, PRICE, 1);
    expect_outcome(sold.outcomes[1], REFUSAL_INSUFFICIENT_STOCK, 1, 0);
    expect_outcome(sold.outcomes[2], 2, PRICE, 0);
}

static void test_limit_within_a_batch(void **state)
{
    const struct line lines[] = {{1, 5, 1, 1}, {2, 5, 1, 2}, {3, 6, 1, 2}, {4, 5, 1, 1},
                                 {5, 5, 1, 1}, {6, 6, 1, 1}, {7, 5, 2, 1}};
    (void)state;
    open_product(1, 10, 2);
    open_product(2, 10, 1);
    struct sold sold = sell(lines, 7);
    expect_outcome(sold.outcomes[0], 1, PRICE, 9);
    expect_outcome(sold.outcomes[1], REFUSAL_CUSTOMER_LIMIT, 1, 2);
    expect_outcome(sold.outcomes[2], 2, PRICE, 7);
    expect_outcome(sold.outcomes[3], 3, PRICE, 6);
    expect_outcome(sold.outcomes[4], REFUSAL_CUSTOMER_LIMIT, 2, 2);
    expect_outcome(sold.outcomes[5], REFUSAL_CUSTOMER_LIMIT, 2, 2);
    expect_outcome(sold.outcomes[6], 4, PRICE, 9); /* another product, another limit */
}

static void test_limit_over_several_calls(void **state)
{
    (void)state;
    open_product(1, 10, 3);
    expect_outcome(sell_one(5, 1, 4), REFUSAL_CUSTOMER_LIMIT, 0, 3);
    expect_outcome(sell_one(5, 1, 2), 1, PRICE, 8);
    expect_outcome(sell_one(5, 1, 2), REFUSAL_CUSTOMER_LIMIT, 2, 3);
    expect_outcome(sell_one(5, 1, 1), 2, PRICE, 7);
    expect_outcome(sell_one(5, 1, 1), REFUSAL_CUSTOMER_LIMIT, 3, 3);
    expect_outcome(sell_one(6, 1, 3), 3, PRICE, 4);
    /* Rebuilt by the recorder: the units are kept. */
    assert_true(put_buyer(1, 9, 2));
    expect_outcome(sell_one(9, 1, 2), REFUSAL_CUSTOMER_LIMIT, 2, 3);
    expect_outcome(sell_one(9, 1, 1), 4, PRICE, 3);
    /* No stock comes before the limit: sold out is what everyone hears. */
    expect_outcome(sell_one(10, 1, 3), 5, PRICE, 0);
    expect_outcome(sell_one(5, 1, 1), REFUSAL_INSUFFICIENT_STOCK, 0, 0);
}

static void test_order_ids_are_dense_over_refusals(void **state)
{
    (void)state;
    open_product(1, 5, 2);
    for (int64_t order = 1, user = 1; order <= 5; order++, user++) {
        expect_outcome(sell_one(user, 1, 9), REFUSAL_INSUFFICIENT_STOCK, 6 - order, 0);
        expect_outcome(sell_one(user, 77, 1), REFUSAL_NOT_ON_SALE, 77, 0);
        assert_int_equal(sell_one(user, 1, 1).order, order);
    }
    /* And within one call, each kind of refusal before a sale. */
    open_product(2, 3, 2);
    const struct line lines[] = {{1, 1, 77, 1}, {2, 1, 2, 1}, {3, 2, 2, 9},
                                 {4, 1, 2, 1},  {5, 1, 2, 1}, {6, 2, 2, 1}};
    const int64_t orders[] = {REFUSAL_NOT_ON_SALE,    6, REFUSAL_INSUFFICIENT_STOCK, 7,
                              REFUSAL_CUSTOMER_LIMIT, 8};
    struct sold sold = sell(lines, 6);
    for (size_t i = 0; i < 6; i++) {
        assert_int_equal(sold.outcomes[i].order, orders[i]);
    }
}

static void test_a_refusal_leaves_no_trace(void **state)
{
    const struct line refused[] = {{1, 5, 1, 6}, {2, 5, 2, 2}, {3, 5, 99, 1}, {4, 6, 2, 1000}};
    (void)state;
    open_product(1, 5, 0);
    open_product(2, 5, 1);
    sell_one(7, 2, 1);
    char *before = dump_all();
    struct sold sold = sell(refused, 4);
    for (size_t i = 0; i < 4; i++) {
        assert_true(sold.outcomes[i].order < 0);
    }
    assert_false(sold.wrote);
    expect_unchanged(before);
    /* The first sold-out answer is noted, once; that is all. */
    sell_one(8, 1, 5);
    before = dump_all();
    expect_outcome(sell_one(9, 1, 1), REFUSAL_INSUFFICIENT_STOCK, 0, 0);
    char *noted = dump_all();
    assert_string_not_equal(before, noted);
    expect_outcome(sell_one(9, 1, 2), REFUSAL_INSUFFICIENT_STOCK, 0, 0);
    expect_unchanged(noted);
    redis_do(redis, "HDEL {doorbuster}:product:1 sold_out");
    expect_unchanged(before);
}

static void test_sold_out_names_the_last_order(void **state)
{
    struct gate_stock stock;
    (void)state;
    open_product(1, 2, 0);
    sell_one(1, 1, 1);
    assert_true(read_stock(1, (struct log_position){EPOCH, 1}, &stock));
    assert_false(stock.sold_out);
    sell_one(1, 1, 1);
    sell_one(1, 1, 1);
    assert_true(read_stock(1, (struct log_position){EPOCH, 2}, &stock));
    assert_true(stock.sold_out);
    assert_int_equal(stock.sold_out_order, 2);
    assert_true(stock.sold_out_at_ms > 0);
}

static void test_time_never_goes_back(void **state)
{
    const struct line line = {1, 1, 1, 1};
    (void)state;
    open_product(1, 5, 0);
    redis_do(redis, "HSET " HEAD " at 9999999999999");
    assert_int_equal(sell(&line, 1).at_ms, 9999999999999);
}

/* --- idempotency keys
 * ----------------------------------------------------------------------------------------------------------------------
 */
static int64_t ttl_of(const char *name)
{
    redisReply *reply = redis_ask(redis, "PTTL " KEYS "%s", name);
    assert_non_null(reply);
    int64_t ttl = reply->integer;
    freeReplyObject(reply);
    return ttl;
}

static void test_a_key_sells_once(void **state)
{
    struct gate_stock stock;
    (void)state;
    open_product(1, 3, 0);
    open_product(2, 3, 0);
    expect_outcome(sell_one_keyed(5, 1, 1, "k1"), 1, PRICE, 2);
    assert_in_range(ttl_of("5:k1"), IDEMPOTENCY_KEY_LIFETIME_MS - 10000, IDEMPOTENCY_KEY_LIFETIME_MS);
    char *before = dump_all();
    expect_outcome(sell_one_keyed(5, 1, 1, "k1"), REFUSAL_ALREADY_ORDERED, 1, 0);
    expect_outcome(sell_one_keyed(5, 1, 2, "k1"), REFUSAL_ALREADY_ORDERED, 1, 0); /* whatever is asked for: */
    expect_outcome(sell_one_keyed(5, 2, 1, "k1"), REFUSAL_ALREADY_ORDERED, 1, 0); /* the worker compares */
    expect_outcome(sell_one_keyed(5, 99, 1, "k1"), REFUSAL_ALREADY_ORDERED, 1, 0);
    expect_unchanged(before);
    expect_outcome(sell_one_keyed(6, 1, 1, "k1"), 2, PRICE, 1); /* another's key of the same name */
    expect_outcome(sell_one_keyed(5, 1, 1, "K1"), 3, PRICE, 0);
    /* Sold out: those who have their order still hear of it. */
    expect_outcome(sell_one_keyed(5, 1, 1, "k2"), REFUSAL_INSUFFICIENT_STOCK, 0, 0);
    expect_outcome(sell_one_keyed(5, 1, 1, "k1"), REFUSAL_ALREADY_ORDERED, 1, 0);
    assert_true(read_stock(1, (struct log_position){EPOCH, 1}, &stock));
    assert_int_equal(stock.available, 0);
}

static void test_a_refusal_does_not_pin_its_key(void **state)
{
    int64_t stock;
    (void)state;
    open_product(1, 1, 1);
    expect_outcome(sell_one_keyed(5, 1, 2, "k"), REFUSAL_INSUFFICIENT_STOCK, 1, 0);
    expect_outcome(sell_one_keyed(5, 99, 1, "k"), REFUSAL_NOT_ON_SALE, 99, 0);
    assert_int_equal(change_stock(STOCK_RESTOCK, 1, 5, &stock), CHANGE_MADE);
    expect_outcome(sell_one_keyed(5, 1, 2, "k"), REFUSAL_CUSTOMER_LIMIT, 0, 1);
    expect_outcome(sell_one_keyed(5, 1, 1, "k"), 1, PRICE, 5);
    expect_outcome(sell_one_keyed(5, 1, 1, "k"), REFUSAL_ALREADY_ORDERED, 1, 0); /* before the limit */
    expect_outcome(sell_one_keyed(5, 1, 1, "l"), REFUSAL_CUSTOMER_LIMIT, 1, 1);
}

static void test_keys_within_a_batch(void **state)
{
    static struct sale_order orders[SALES_LOG_ORDERS_MAX];
    static const struct line lines[] = {{1, 5, 1, 1}, {2, 5, 1, 1}, {3, 6, 1, 1}, {4, 5, 1, 2},
                                        {5, 7, 1, 1}, {6, 7, 1, 9}, {7, 7, 1, 1}, {8, 5, 1, 1}};
    static const char *const keys[] = {"k", "k", "k", "k", "", "z", "z", ""};
    static const char *const logged[] = {"k", "k", NULL, "z"};
    struct log_entry entries[8];
    redisReply *reply;
    size_t count;
    (void)state;
    open_product(1, 8, 0);
    struct sold sold = sell_keyed(lines, keys, 7);
    expect_outcome(sold.outcomes[0], 1, PRICE, 7);
    expect_outcome(sold.outcomes[1], REFUSAL_ALREADY_ORDERED, 1, 0);
    expect_outcome(sold.outcomes[2], 2, PRICE, 6);
    expect_outcome(sold.outcomes[3], REFUSAL_ALREADY_ORDERED, 1, 0);
    expect_outcome(sold.outcomes[4], 3, PRICE, 5);
    expect_outcome(sold.outcomes[5], REFUSAL_INSUFFICIENT_STOCK, 5, 0);
    expect_outcome(sold.outcomes[6], 4, PRICE, 4);
    assert_true(read_log((struct log_position){EPOCH, 0}, 0, entries, 8, orders, SALES_LOG_ORDERS_MAX, &count,
                         &reply));
    assert_int_equal(entries[0].order_count, 4);
    for (size_t i = 0; i < 4; i++) {
        assert_int_equal(orders[i].id, i + 1);
        assert_int_equal(orders[i].key_bytes, logged[i] ? strlen(logged[i]) : 0);
        if (logged[i] != NULL) {
            assert_memory_equal(orders[i].key, logged[i], orders[i].key_bytes);
        }
    }
    freeReplyObject(reply);
}

static void test_the_largest_batch_of_keys(void **state)
{
    static struct line lines[SALES_LOG_ORDERS_MAX];
    static char texts[SALES_LOG_ORDERS_MAX][IDEMPOTENCY_KEY_BYTES_MAX + 1];
    static const char *keys[SALES_LOG_ORDERS_MAX];
    static struct sale_order orders[SALES_LOG_ORDERS_MAX];
    struct log_entry entries[8];
    redisReply *reply;
    size_t count;
    (void)state;
    open_product(1, 1000, 1000);
    for (size_t i = 0; i < SALES_LOG_ORDERS_MAX; i++) {
        lines[i] = (struct line){INT64_MAX - (int64_t)i, (int64_t)(i + 1) * 10000000000, 1, 1};
        for (size_t j = 0; j < IDEMPOTENCY_KEY_BYTES_MAX; j++) { /* every byte that a key may have */
            texts[i][j] = (char)(0x21 + (i + j) % 94);
        }
        keys[i] = texts[i];
    }
    struct sold sold = sell_keyed(lines, keys, SALES_LOG_ORDERS_MAX);
    assert_true(read_log((struct log_position){EPOCH, 0}, 0, entries, 8, orders, SALES_LOG_ORDERS_MAX, &count,
                         &reply));
    assert_int_equal(entries[0].order_count, SALES_LOG_ORDERS_MAX);
    for (size_t i = 0; i < SALES_LOG_ORDERS_MAX; i++) {
        expect_outcome(sold.outcomes[i], (int64_t)i + 1, PRICE, 999 - (int64_t)i);
        assert_int_equal(orders[i].key_bytes, IDEMPOTENCY_KEY_BYTES_MAX);
        assert_memory_equal(orders[i].key, texts[i], IDEMPOTENCY_KEY_BYTES_MAX);
    }
    freeReplyObject(reply);
    sold = sell_keyed(lines, keys, SALES_LOG_ORDERS_MAX);
    assert_false(sold.wrote);
    for (size_t i = 0; i < SALES_LOG_ORDERS_MAX; i++) {
        expect_outcome(sold.outcomes[i], REFUSAL_ALREADY_ORDERED, (int64_t)i + 1, 0);
    }
}

static void test_an_expired_key_sells_again(void **state)
{
    (void)state;
    open_product(1, 3, 0);
    expect_outcome(sell_one_keyed(5, 1, 1, "k"), 1, PRICE, 2);
    redis_do(redis, "PEXPIRE " KEYS "5:k 1");
    for (int64_t deadline = deadline_in(5000); ttl_of("5:k") != -2;) {
        assert_true(wait_a_moment(deadline));
    }
    expect_outcome(sell_one_keyed(5, 1, 1, "k"), 2, PRICE, 1);
    expect_outcome(sell_one_keyed(5, 1, 1, "k"), REFUSAL_ALREADY_ORDERED, 2, 0);
}

static void test_keys_are_put_back(void **state)
{
    static struct gate_key keys[] = {{5, 42, 60000, "k\"%s{x}"},
                                     {5, 43, IDEMPOTENCY_KEY_LIFETIME_MS * 2, "l"}, /* the clock went back */
                                     {5, 44, 0, "m"},
                                     {5, 45, -1, "n"},
                                     {6, 46, 60000, "k\"%s{x}"},
                                     {6, 47, 60000, "k\"%s{x}"}}; /* used again a day later */
    (void)state;
    open_product(1, 3, 0);
    sell_one_keyed(5, 1, 1, "old");
    assert_true(gate_wipe(redis, (struct log_position){7, 1042}));
    assert_int_equal(ttl_of("5:old"), -2);
    assert_true(put_product(1, 3, PRICE, 0));
    assert_true(gate_put_keys(redis, keys, sizeof keys / sizeof keys[0]));
    assert_true(gate_put_keys(redis, keys, 0));
    assert_true(gate_finish_rebuild(redis, 1, 99, 0));
    assert_true(gate_open(redis, 8));
    read_sha();
    assert_in_range(ttl_of("5:k\"%s{x}"), 1, 60000);
    assert_in_range(ttl_of("5:l"), 60000, IDEMPOTENCY_KEY_LIFETIME_MS);
    expect_outcome(sell_one_keyed(5, 1, 1, keys[0].key), REFUSAL_ALREADY_ORDERED, 42, 0);
    expect_outcome(sell_one_keyed(6, 1, 1, keys[4].key), REFUSAL_ALREADY_ORDERED, 47, 0);
    expect_outcome(sell_one_keyed(5, 1, 1, "m"), 100, PRICE, 2);
    expect_outcome(sell_one_keyed(5, 1, 1, "n"), 101, PRICE, 1);
}

/* Thousands of purchases against a model of three lines. */
static void test_against_a_model(void **state)
{
    enum { PRODUCTS = 4, USERS = 6 };
    static struct line lines[SALES_LOG_ORDERS_MAX];
    static const int64_t limits[PRODUCTS] = {0, 1, 5, 40};
    int64_t stock[PRODUCTS] = {200, 30, 60, 150}, owned[PRODUCTS][USERS] = {{0}}, order = 0;
    uint64_t random = random_seed("test_against_a_model");
    (void)state;
    for (int product = 0; product < PRODUCTS; product++) {
        open_product(product + 1, stock[product], limits[product]);
    }
    for (int round = 0; round < 200; round++) {
        size_t count = 1 + random_below(&random, 20);
        for (size_t i = 0; i < count; i++) {
            lines[i] = (struct line){round * 100 + (int64_t)i, 1 + random_below(&random, USERS),
                                     1 + random_below(&random, PRODUCTS), 1 + random_below(&random, 4)};
        }
        struct sold sold = sell(lines, count);
        for (size_t i = 0; i < count; i++) {
            int64_t *left = &stock[lines[i].product - 1],
                    *units = &owned[lines[i].product - 1][lines[i].user - 1];
            int64_t limit = limits[lines[i].product - 1], quantity = lines[i].quantity;
            if (*left < quantity) {
                expect_outcome(sold.outcomes[i], REFUSAL_INSUFFICIENT_STOCK, *left, 0);
            } else if (limit > 0 && *units + quantity > limit) {
                expect_outcome(sold.outcomes[i], REFUSAL_CUSTOMER_LIMIT, *units, limit);
            } else {
                *left -= quantity;
                *units += quantity;
                expect_outcome(sold.outcomes[i], ++order, PRICE, *left);
            }
        }
        if (round % 20 == 19) {
            int64_t product = 1 + random_below(&random, PRODUCTS), now;
            assert_int_equal(change_stock(STOCK_RESTOCK, product, 10, &now), CHANGE_MADE);
            stock[product - 1] += 10;
            assert_int_equal(now, stock[product - 1]);
        }
    }
    assert_true(order > 50);
}

/* --- the fence
 * ------------------------------------------------------------------------------------------------------------------------------
 */
static void expect_error(const char *beginning)
{
    const struct line line = {1, 1, 1, 1};
    redisReply *reply = try_sell(&line, 1);
    assert_int_equal(reply->type, REDIS_REPLY_ERROR);
    if (strncmp(reply->str, beginning, strlen(beginning)) != 0 && strstr(reply->str, beginning) == NULL) {
        fail_msg("not %s: %s", beginning, reply->str);
    }
    freeReplyObject(reply);
}

static void test_a_closed_gate_sells_nothing(void **state)
{
    int64_t stock;
    (void)state;
    open_product(1, 5, 0);
    assert_true(gate_close(redis));
    char *before = dump_all();
    expect_error("STALE");
    assert_int_equal(change_stock(STOCK_RESTOCK, 1, 5, &stock), CHANGE_FAILED); /* after its patience */
    assert_int_equal(open_product(2, 5, 0), CHANGE_FAILED);
    expect_unchanged(before);
}

static void test_an_older_epoch_sells_nothing(void **state)
{
    char old_sha[sizeof sell_sha];
    (void)state;
    open_product(1, 5, 0);
    memcpy(old_sha, sell_sha, sizeof old_sha);
    assert_true(gate_close(redis));
    assert_true(gate_open(redis, EPOCH + 1));
    char *before = dump_all();
    expect_error("STALE"); /* the old script is still loaded, and says no */
    expect_unchanged(before);
    read_sha();
    assert_string_not_equal(old_sha, sell_sha);
    expect_outcome(sell_one(1, 1, 1), 1, PRICE, 4);
    /* And Redis itself does not take an entry of the older epoch. */
    assert_null(redis_ask(redis, "XADD " LOG " %d-* sale x", EPOCH));
}

static bool is_ours(redisContext *context, uint64_t epoch, bool *ours)
{
    return gate_is_ours(context, 1, epoch, (struct log_position){0, 0}, 0, ours);
}

static void test_a_forgetful_redis_sells_nothing(void **state)
{
    bool ours;
    int64_t stock;
    (void)state;
    open_product(1, 5, 0);
    assert_true(is_ours(redis, EPOCH, &ours));
    assert_true(ours);
    assert_true(is_ours(redis, EPOCH + 1, &ours));
    assert_false(ours);
    redis_do(redis, "SCRIPT FLUSH");
    char *before = dump_all();
    expect_error("NOSCRIPT");
    assert_int_equal(change_stock(STOCK_RESTOCK, 1, 5, &stock), CHANGE_FAILED);
    expect_unchanged(before);
    assert_true(is_ours(redis, EPOCH, &ours));
    assert_false(ours);
    redis_do(redis, "FLUSHALL");
    assert_true(is_ours(redis, EPOCH, &ours));
    assert_false(ours);
    expect_error("NOSCRIPT");
}

/* FLUSHALL leaves the scripts where they are: the head alone must keep them from selling. */
static void test_a_flushed_redis_sells_nothing(void **state)
{
    bool ours;
    (void)state;
    open_product(1, 5, 0);
    redis_do(redis, "FLUSHALL");
    expect_error("STALE");
    assert_true(is_ours(redis, EPOCH, &ours));
    assert_false(ours);
}

/* Demoted and promoted it keeps its data, its clients and its scripts: it is another reign all the same. */
static void test_another_reign_sells_nothing(void **state)
{
    struct gate_head before_it, after_it;
    bool ours;
    int64_t stock;
    (void)state;
    open_product(1, 5, 0);
    assert_true(gate_read_head(redis, &before_it));
    assert_false(before_it.is_replica);
    assert_string_equal(before_it.opened_on, before_it.master);
    char *before = dump_all();
    redis_do(redis, "REPLICAOF 127.0.0.1 1"); /* nobody is there */
    expect_error("READONLY");
    assert_true(is_ours(redis, EPOCH, &ours));
    assert_false(ours);
    redis_do(redis, "REPLICAOF NO ONE");
    expect_error("STALE");
    assert_int_equal(change_stock(STOCK_RESTOCK, 1, 5, &stock), CHANGE_FAILED); /* after its patience */
    expect_unchanged(before);
    assert_true(is_ours(redis, EPOCH, &ours));
    assert_false(ours);
    assert_true(gate_read_head(redis, &after_it));
    assert_string_equal(after_it.opened_on, before_it.master);
    assert_string_not_equal(after_it.master, before_it.master);

    assert_true(gate_close(redis));
    assert_false(gate_open_on(redis, EPOCH + 1, before_it.master)); /* what was compared was another's */
    assert_non_null(strstr(redis_failure(), "another master reigns"));
    assert_true(gate_open_on(redis, EPOCH + 1, after_it.master));
    assert_true(is_ours(redis, EPOCH + 1, &ours));
    assert_true(ours);
    read_sha();
    expect_outcome(sell_one(1, 1, 1), 1, PRICE, 4);
}

static void test_a_restarted_redis_sells_nothing(void **state)
{
    struct redis_fixture other;
    bool ours;
    (void)state;
    redis_fixture_start(&other, true);
    redisContext *kept = redis;
    redis = redis_fixture_connect(&other);
    assert_true(gate_wipe(redis, (struct log_position){0, 0}));
    assert_true(gate_finish_rebuild(redis, 1, 0, 0));
    assert_true(gate_open(redis, EPOCH));
    read_sha();
    open_product(1, 5, 0);
    expect_outcome(sell_one(1, 1, 1), 1, PRICE, 4);
    redisFree(redis);
    redis_fixture_kill(&other);
    redis_fixture_restart(&other);
    redis = redis_fixture_connect(&other);
    /* The data are back, the head says it is open, and yet: */
    expect_error("NOSCRIPT");
    assert_true(is_ours(redis, EPOCH, &ours));
    assert_false(ours);
    redisFree(redis);
    redis = kept;
    redis_fixture_end(&other);
}

static void test_out_of_memory_changes_nothing(void **state)
{
    int64_t stock;
    (void)state;
    open_product(1, 5, 2);
    open_product(2, 1, 0);
    sell_one(9, 2, 1);
    char *before = dump_all();
    redis_do(redis, "CONFIG SET maxmemory 1");
    expect_error("OOM");
    expect_error("OOM");
    assert_int_equal(change_stock(STOCK_RESTOCK, 1, 5, &stock), CHANGE_FAILED);
    assert_int_equal(change_stock(STOCK_WITHDRAWAL, 1, -1, &stock), CHANGE_FAILED);
    assert_int_equal(open_product(3, 5, 0), CHANGE_FAILED);
    redis_do(redis, "CONFIG SET maxmemory 0");
    expect_unchanged(before);
    expect_outcome(sell_one(1, 1, 1), 2, PRICE, 4);
}

/* What fills Redis may be the log, and only who has the lease records and trims it. */
static void test_the_lease_is_had_without_memory(void **state)
{
    const struct gate_candidate me = {.server = 1, .run = 1, .key = 1},
                                other = {.server = 2, .run = 2, .key = 1};
    struct gate_candidate holder;
    (void)state;
    redis_do(redis, "CONFIG SET maxmemory 1");
    enum gate_lease taken = gate_take_lease(redis, &me, true, &holder);
    enum gate_lease renewed = gate_take_lease(redis, &me, false, &holder);
    enum gate_lease others = gate_take_lease(redis, &other, true, &holder);
    redis_do(redis, "CONFIG SET maxmemory 0");
    assert_int_equal(taken, GATE_LEASE_MINE);
    assert_int_equal(renewed, GATE_LEASE_MINE);
    assert_int_equal(others, GATE_LEASE_TAKEN);
    assert_int_equal(holder.server, me.server);
    assert_true(gate_drop_lease(redis, &me));
}

/* A store that came from an older copy opens an epoch below the log's: Redis refuses the entry, and with it
 * everything that goes with the entry. */
static void test_an_epoch_older_than_the_log_changes_nothing(void **state)
{
    const struct line lines[] = {{1, 5, 1, 1}, {2, 6, 2, 1}}; /* the second: sold out for the first time */
    int64_t stock;
    (void)state;
    open_product(1, 5, 3);
    open_product(2, 0, 0);
    expect_outcome(sell_one(5, 1, 1), 1, PRICE, 4);
    redis_do(redis, "XADD " LOG " %d-1 foo bar", EPOCH + 1);
    char *before = dump_all();
    for (int i = 0; i < 2; i++) {
        redisReply *reply = try_sell(lines, 2);
        assert_int_equal(reply->type, REDIS_REPLY_ERROR);
        freeReplyObject(reply);
    }
    assert_int_equal(change_stock(STOCK_RESTOCK, 1, 5, &stock), CHANGE_FAILED);
    assert_int_equal(change_stock(STOCK_WITHDRAWAL, 1, -1, &stock), CHANGE_FAILED);
    assert_int_equal(open_product(3, 5, 1), CHANGE_FAILED);
    expect_unchanged(before);
    /* Above the log's epoch all is well, and the order counter has no hole. */
    assert_true(gate_close(redis));
    assert_true(gate_open(redis, EPOCH + 2));
    read_sha();
    expect_outcome(sell_one(5, 1, 1), 2, PRICE, 3);
}

/* Asking for an attach is an entry of a kind of its own, which changes nothing by itself. */
static void test_asking_for_an_attach(void **state)
{
    struct log_entry entry;
    static struct sale_order orders[SALES_LOG_ORDERS_MAX];
    (void)state;
    open_product(1, 5, 0); /* 1-0 */
    assert_true(gate_ask_attach(redis, EPOCH, "two words"));
    redisReply *reply = redis_ask(redis, "XRANGE " LOG " %d-1 %d-1", EPOCH, EPOCH);
    assert_int_equal(reply->elements, 1);
    const redisReply *fields = reply->element[0]->element[1];
    assert_int_equal(fields->elements, 2);
    assert_string_equal(fields->element[0]->str, "attach");
    assert_string_equal(fields->element[1]->str, "two words");
    freeReplyObject(reply);
    read_entry((struct log_position){EPOCH, 0}, &entry, orders);
    assert_int_equal(entry.position.n, 1);
    expect_outcome(sell_one(1, 1, 1), 1, PRICE, 4);
    /* A newer epoch has begun: nothing is left to ask for. */
    redis_do(redis, "XADD " LOG " %d-1 foo bar", EPOCH + 1);
    char *before = dump_all();
    assert_true(gate_ask_attach(redis, EPOCH, "late"));
    expect_unchanged(before);
    /* No log: none is made, and the recorder sees by itself that it is gone. */
    redis_do(redis, "FLUSHALL");
    assert_true(gate_ask_attach(redis, EPOCH, "empty"));
    before = dump_all();
    assert_string_equal(before, "");
    free(before);
    redis_do(redis, "SET " LOG " text");
    assert_false(gate_ask_attach(redis, EPOCH, "broken"));
    assert_non_null(strstr(redis_failure(), "WRONGTYPE"));
}

/* --- changes of stock
 * ---------------------------------------------------------------------------------------------------------------------------
 */
static void test_opening_twice(void **state)
{
    struct gate_stock stock;
    struct log_entry entry;
    static struct sale_order orders[SALES_LOG_ORDERS_MAX];
    (void)state;
    assert_int_equal(open_product(1, 5, 2), CHANGE_MADE);
    sell_one(1, 1, 1);
    char *before = dump_all();
    assert_int_equal(open_product(1, 100, 9), CHANGE_MADE_BEFORE);
    expect_unchanged(before);
    assert_true(read_stock(1, (struct log_position){EPOCH, 1}, &stock));
    assert_true(stock.on_sale);
    assert_int_equal(stock.available, 4);
    assert_int_equal(stock.price_at, PRICE);
    assert_int_equal(stock.now.limit, 2);
    read_entry((struct log_position){0, 0}, &entry, orders);
    assert_int_equal(entry.kind, LOG_ENTRY_STOCK);
    assert_int_equal(entry.stock.cause, STOCK_OPENING);
    assert_int_equal(entry.stock.delta, 5);
    assert_int_equal(entry.stock.remaining, 5);
    assert_string_equal(entry.stock.note, "opening");
}

static void test_restock_and_withdrawal(void **state)
{
    struct gate_stock now;
    struct log_entry entry;
    static struct sale_order orders[SALES_LOG_ORDERS_MAX];
    int64_t stock = -1;
    (void)state;
    open_product(1, 2, 0);
    sell_one(1, 1, 2);
    sell_one(1, 1, 1);
    assert_int_equal(change_stock(STOCK_WITHDRAWAL, 1, -1, &stock), CHANGE_SHORT);
    assert_int_equal(change_stock(STOCK_RESTOCK, 1, 3, &stock), CHANGE_MADE);
    assert_int_equal(stock, 3);
    assert_true(read_stock(1, (struct log_position){EPOCH, 2}, &now));
    assert_false(now.sold_out); /* the next first sold-out answer counts */
    read_entry((struct log_position){EPOCH, 1}, &entry, orders);
    assert_int_equal(entry.stock.cause, STOCK_RESTOCK);
    assert_int_equal(entry.stock.actor, 7);
    assert_string_equal(entry.stock.note, "a note of several words");
    char *before = dump_all();
    assert_int_equal(change_stock(STOCK_WITHDRAWAL, 1, -4, &stock), CHANGE_SHORT);
    assert_int_equal(change_stock(STOCK_RESTOCK, 1, PRODUCT_STOCK_MAX, &stock), CHANGE_FULL);
    assert_int_equal(change_stock(STOCK_RESTOCK, 99, 5, &stock), CHANGE_CLOSED);
    assert_int_equal(change_stock(STOCK_WITHDRAWAL, 99, 0, &stock), CHANGE_CLOSED);
    expect_unchanged(before);
    assert_int_equal(change_stock(STOCK_WITHDRAWAL, 1, -3, &stock), CHANGE_MADE);
    assert_int_equal(stock, 0);
    expect_outcome(sell_one(1, 1, 1), REFUSAL_INSUFFICIENT_STOCK, 0, 0);
}

/* --- stock at a position
 * -----------------------------------------------------------------------------------------------------------------------------
 */
static void expect_stock_at(int64_t product, uint64_t n, bool known, int64_t stock_at, int64_t in_flight)
{
    struct gate_stock stock;
    assert_true(read_stock(product, (struct log_position){EPOCH, n}, &stock));
    assert_int_equal(stock.at_known, known);
    if (known) {
        assert_int_equal(stock.stock_at, stock_at);
        assert_int_equal(stock.in_flight, in_flight);
    }
}

static void test_stock_at_a_position(void **state)
{
    int64_t stock;
    struct gate_stock unknown;
    const struct line lines[] = {{1, 1, 1, 2}, {2, 1, 2, 3}, {3, 1, 1, 1}};
    (void)state;
    open_product(1, 10, 0);                    /* 1-0 */
    open_product(2, 20, 0);                    /* 1-1 */
    sell(lines, 3);                            /* 1-2: 3 of product 1 */
    change_stock(STOCK_RESTOCK, 1, 5, &stock); /* 1-3 */
    sell_one(1, 1, 4);                         /* 1-4 */
    expect_stock_at(1, 4, true, 8, 0);
    expect_stock_at(1, 3, true, 12, 4);
    expect_stock_at(1, 2, true, 7, 4);
    expect_stock_at(1, 1, true, 10, 7);
    expect_stock_at(1, 0, true, 10, 7);
    expect_stock_at(2, 1, true, 20, 3);
    expect_stock_at(2, 4, true, 17, 0);
    expect_stock_at(1, 5, false, 0, 0); /* not written yet */
    /* Before its opening a product has nothing. */
    assert_true(read_stock(1, (struct log_position){0, 0}, &unknown));
    assert_true(unknown.at_known);
    assert_int_equal(unknown.stock_at, 0);
    /* Trimmed away: the gate says that it does not know. */
    redis_do(redis, "XTRIM " LOG " MINID 1-3");
    expect_stock_at(1, 2, true, 7, 4); /* what came after 1-2 is all there */
    expect_stock_at(1, 1, false, 0, 0);
    expect_stock_at(1, 4, true, 8, 0);
    assert_true(read_stock(99, (struct log_position){EPOCH, 4}, &unknown));
    assert_false(unknown.on_sale);
    assert_int_equal(unknown.stock_at, 0);
}

static void test_trimming_keeps_what_is_asked_for(void **state)
{
    struct gate_head head;
    (void)state;
    open_product(1, 1000000, 0);
    for (int i = 0; i < 1000; i++) {
        sell_one(1, 1, 1);
    }
    assert_true(gate_trim(redis, (struct log_position){EPOCH, 900}));
    assert_true(gate_read_head(redis, &head));
    assert_int_equal(head.log_last.n, 1000);
    assert_true(head.log_lost.n > 0);   /* something went */
    assert_true(head.log_lost.n < 900); /* nothing that was to stay */
    expect_stock_at(1, 900, true, 1000000 - 900, 100);
}

/* --- the log
 * ----------------------------------------------------------------------------------------------------------------------------------------------
 */
/* After an attach the log is empty and remembers where the store is; what is sold next continues it, in the new epoch too. */
static void test_forgetting_what_is_recorded(void **state)
{
    struct gate_head head;
    (void)state;
    open_product(1, 10, 0);
    sell_one(1, 1, 1);
    assert_true(gate_read_head(redis, &head));
    struct log_position recorded = head.log_last;
    assert_true(gate_forget_recorded(redis, recorded));
    assert_true(gate_read_head(redis, &head));
    assert_int_equal(log_position_compare(head.log_last, recorded), 0);
    assert_int_equal(log_position_compare(head.log_lost, recorded), 0);
    assert_true(gate_close(redis));
    assert_true(gate_open(redis, EPOCH + 1));
    read_sha();
    sell_one(1, 1, 1);
    assert_true(gate_read_head(redis, &head));
    assert_int_equal(head.log_last.epoch, EPOCH + 1);
    assert_int_equal(log_position_compare(head.log_lost, recorded), 0);
}

static void test_reading_the_log(void **state)
{
    static struct sale_order orders[4 * SALES_LOG_ORDERS_MAX];
    struct log_entry entries[8];
    redisReply *reply;
    size_t count;
    (void)state;
    int64_t began_us = now_us();
    assert_true(read_log((struct log_position){0, 0}, 30, entries, 8, orders, 4 * SALES_LOG_ORDERS_MAX,
                         &count, &reply));
    assert_int_equal(count, 0);
    assert_null(reply);
    assert_true(now_us() - began_us >= 25000);
    open_product(1, 10, 0);
    for (int i = 0; i < 5; i++) {
        sell_one(1, 1, 1);
    }
    assert_true(read_log((struct log_position){0, 0}, 0, entries, 3, orders, 4 * SALES_LOG_ORDERS_MAX, &count,
                         &reply));
    assert_int_equal(count, 3);
    assert_int_equal(entries[2].orders[0].id, 2);
    freeReplyObject(reply);
    assert_true(read_log((struct log_position){EPOCH, 2}, 1000, entries, 8, orders, 4 * SALES_LOG_ORDERS_MAX,
                         &count, &reply));
    assert_int_equal(count, 3);
    assert_int_equal(entries[0].orders[0].id, 3);
    assert_int_equal(entries[2].orders[0].id, 5);
    freeReplyObject(reply);
    /* Room for the orders of two entries only. */
    assert_true(read_log((struct log_position){0, 0}, 0, entries, 8, orders, SALES_LOG_ORDERS_MAX + 2, &count,
                         &reply));
    assert_in_range(count, 1, 5);
    freeReplyObject(reply);
    /* Something that is not ours. */
    redis_do(redis, "XADD " LOG " 1-* greeting hello");
    sell_one(1, 1, 1); /* and the log goes on behind it */
    assert_true(read_log((struct log_position){EPOCH, 5}, 0, entries, 8, orders, 4 * SALES_LOG_ORDERS_MAX,
                         &count, &reply));
    assert_int_equal(count, 2);
    assert_int_equal(entries[0].kind, LOG_ENTRY_FOREIGN);
    assert_int_equal(entries[0].order_count, 0);
    assert_int_equal(log_entry_stock_delta(&entries[0], 1), 0);
    assert_int_equal(entries[1].orders[0].id, 6);
    freeReplyObject(reply);
    /* Something that pretends to be, and an id that is no position of ours: nobody knows what they stand for. */
    redis_do(redis, "XADD " LOG " 1-* sale nonsense");
    redis_do(redis, "XADD " LOG " 18446744073709551615-1 greeting hello");
    assert_true(read_log((struct log_position){EPOCH, 7}, 0, entries, 8, orders, 4 * SALES_LOG_ORDERS_MAX,
                         &count, &reply));
    assert_int_equal(count, 2);
    assert_int_equal(entries[0].kind, LOG_ENTRY_DAMAGED);
    assert_int_equal(entries[1].kind, LOG_ENTRY_DAMAGED);
    assert_int_equal(log_position_compare(entries[1].position, entries[0].position), 0);
    freeReplyObject(reply);
}

/* --- rebuilding
 * ----------------------------------------------------------------------------------------------------------------------------------------------
 */
static void test_wiping_and_rebuilding(void **state)
{
    struct gate_head head;
    struct gate_stock stock;
    struct change_result result;
    (void)state;
    open_product(1, 5, 1);
    sell_one(1, 1, 1);
    redis_do(redis, "SET stranger stays");
    assert_true(gate_wipe(redis, (struct log_position){7, 1042}));
    assert_true(gate_finish_rebuild(redis, 1, 99, 0));
    assert_true(gate_read_head(redis, &head));
    assert_true(head.exists);
    assert_int_equal(head.epoch, 0);
    assert_int_equal(head.orders, 99);
    assert_int_equal(head.log_last.epoch, 7);
    assert_int_equal(head.log_last.n, 1042);
    assert_int_equal(log_position_compare(head.log_lost, head.log_last), 0); /* what was before is gone */
    assert_true(read_stock(1, (struct log_position){7, 1041}, &stock));
    assert_false(stock.at_known);
    redisReply *reply = redis_ask(redis, "EXISTS {doorbuster}:product:1 {doorbuster}:buyers:1 stranger");
    assert_int_equal(reply->integer, 1);
    freeReplyObject(reply);
    /* Neither an older epoch nor an older entry of this one gets into the log. */
    assert_null(redis_ask(redis, "XADD " LOG " 6-* sale x"));
    assert_null(redis_ask(redis, "XADD " LOG " 7-1042 sale x"));
    assert_true(put_product(1, 4, PRICE, 1));
    assert_true(put_buyer(1, 1, 1));
    assert_true(gate_open(redis, 8));
    read_sha();
    assert_true(read_stock(1, (struct log_position){7, 1042}, &stock));
    assert_true(stock.at_known);
    assert_int_equal(stock.stock_at, 4);
    expect_outcome(sell_one(1, 1, 1), REFUSAL_CUSTOMER_LIMIT, 1, 1);
    expect_outcome(sell_one(2, 1, 1), 100, PRICE, 3);
    struct stock_change change = {.product_id = 1, .delta = 1, .cause = STOCK_RESTOCK};
    assert_int_equal(gate_change_stock(redis, &change, NULL, 100, &result), CHANGE_MADE);
    assert_int_equal(result.position.epoch, 8);
    assert_true(read_stock(1, (struct log_position){7, 1042}, &stock));
    assert_int_equal(stock.stock_at, 4);
    assert_int_equal(stock.available, 4);
}

/* A recorder that dies while it fills Redis leaves products, but no head to be believed. */
static void test_a_rebuild_cut_short_is_not_taken_for_a_whole_one(void **state)
{
    static const struct log_position recorded[] = {{0, 0}, {7, 1042}};
    struct gate_head head;
    (void)state;
    open_product(1, 5, 1);
    sell_one(1, 1, 1);
    for (size_t i = 0; i < 2; i++) {
        assert_true(gate_wipe(redis, recorded[i]));
        assert_true(gate_read_head(redis, &head));
        assert_false(head.exists);
        assert_true(put_product(1, 4, PRICE, 1));
        assert_true(put_buyer(1, 1, 1));
        assert_true(gate_read_head(redis, &head));
        assert_false(head.exists);
        assert_int_equal(head.orders, -1);
        assert_int_equal(head.store_id, 0);
        assert_int_equal(head.epoch, 0);
        expect_error("STALE"); /* the scripts are still there */
        assert_true(gate_finish_rebuild(redis, 1, 99, 0));
        assert_true(gate_read_head(redis, &head));
        assert_true(head.exists);
        assert_int_equal(head.orders, 99);
        assert_int_equal(head.epoch, 0);
    }
}

static void test_heads_that_are_no_heads(void **state)
{
    struct gate_head head;
    (void)state;
    redis_do(redis, "FLUSHALL");
    assert_true(gate_read_head(redis, &head));
    assert_false(head.exists);
    assert_int_equal(head.orders, -1);
    assert_int_equal(head.epoch, 0);
    assert_int_equal(head.log_last.epoch, 0);
    redis_do(redis, "HSET " HEAD " store -5 epoch many orders few at 1e14");
    assert_true(gate_read_head(redis, &head));
    assert_true(head.exists);
    assert_int_equal(head.store_id, -5);
    assert_int_equal(head.epoch, 0);
    assert_int_equal(head.orders, -1);
    assert_int_equal(head.at_ms, -1);
    /* Something else altogether is as good as nothing: it will be wiped. */
    redis_do(redis, "DEL " HEAD);
    redis_do(redis, "SET " HEAD " text");
    redis_do(redis, "SET " LOG " text");
    assert_true(gate_read_head(redis, &head));
    assert_false(head.exists);
    assert_int_equal(head.log_last.epoch, 0);
}

/* --- the tests
 * --------------------------------------------------------------------------------------------------------------------------------------------------
 */
static int setup(void **state)
{
    (void)state;
    redis = redis_fixture_connect(&fixture);
    redis_do(redis, "FLUSHALL");
    redis_do(redis, "SCRIPT FLUSH");
    assert_true(gate_wipe(redis, (struct log_position){0, 0}));
    assert_true(gate_finish_rebuild(redis, 1, 0, 0));
    assert_true(gate_open(redis, EPOCH));
    read_sha();
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    redisFree(redis);
    redis = NULL;
    return 0;
}

static int group_setup(void **state)
{
    (void)state;
    redis_fixture_start(&fixture, false);
    return 0;
}

static int group_teardown(void **state)
{
    (void)state;
    redis_fixture_end(&fixture);
    return 0;
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_a_batch),
        TEST(test_the_largest_batch),
        TEST(test_exactly_the_last_unit),
        TEST(test_two_lines_of_one_buyer_are_added_up),
        TEST(test_limit_within_a_batch),
        TEST(test_limit_over_several_calls),
        TEST(test_order_ids_are_dense_over_refusals),
        TEST(test_a_refusal_leaves_no_trace),
        TEST(test_sold_out_names_the_last_order),
        TEST(test_time_never_goes_back),
        TEST(test_a_key_sells_once),
        TEST(test_a_refusal_does_not_pin_its_key),
        TEST(test_keys_within_a_batch),
        TEST(test_the_largest_batch_of_keys),
        TEST(test_an_expired_key_sells_again),
        TEST(test_keys_are_put_back),
        TEST(test_against_a_model),
        TEST(test_a_closed_gate_sells_nothing),
        TEST(test_an_older_epoch_sells_nothing),
        TEST(test_a_forgetful_redis_sells_nothing),
        TEST(test_a_flushed_redis_sells_nothing),
        TEST(test_another_reign_sells_nothing),
        TEST(test_a_restarted_redis_sells_nothing),
        TEST(test_out_of_memory_changes_nothing),
        TEST(test_the_lease_is_had_without_memory),
        TEST(test_an_epoch_older_than_the_log_changes_nothing),
        TEST(test_asking_for_an_attach),
        TEST(test_opening_twice),
        TEST(test_restock_and_withdrawal),
        TEST(test_stock_at_a_position),
        TEST(test_trimming_keeps_what_is_asked_for),
        TEST(test_forgetting_what_is_recorded),
        TEST(test_reading_the_log),
        TEST(test_wiping_and_rebuilding),
        TEST(test_a_rebuild_cut_short_is_not_taken_for_a_whole_one),
        TEST(test_heads_that_are_no_heads),
    };
    return cmocka_run_group_tests(tests, group_setup, group_teardown);
}
