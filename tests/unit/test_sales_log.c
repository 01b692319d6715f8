/* Entries of the sales log: what is decoded, and that nothing else is. */
#include "testing.h"

#include "doorbuster/sales_log.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct log_position here = {7, 1042};

/* The payload lies at the end of its memory, without a terminator: the sanitizer sees every byte read beyond.
 */
static struct log_room room_of(struct sale_order *orders, size_t orders_max)
{
    static struct order_part parts[SALES_LOG_PARTS_MAX];
    return (struct log_room){
        .orders = orders, .orders_max = orders_max, .parts = parts, .parts_max = SALES_LOG_PARTS_MAX};
}

static bool decode(const char *kind, const char *payload, size_t bytes, struct sale_order *orders,
                   size_t orders_max, struct log_entry *out)
{
    char *exact = malloc(bytes > 0 ? bytes : 1);
    assert_non_null(exact);
    memcpy(exact, payload, bytes);
    struct log_room room = room_of(orders, orders_max);
    bool ok = log_entry_decode(here, kind, strlen(kind), exact, bytes, &room, out);
    free(exact);
    return ok;
}

/* --- positions
 * --------------------------------------------------------------------------------------------------------------------
 */
static bool parse(const char *text, struct log_position *out)
{
    return log_position_parse(text, strlen(text), out);
}

static void test_positions_are_compared(void **state)
{
    const struct log_position order[] = {
        {0, 0}, {0, 1}, {1, 0}, {1, UINT64_MAX}, {2, 0}, {INT64_MAX, 5}, {UINT64_MAX, UINT64_MAX}};
    (void)state;
    for (size_t i = 0; i < sizeof order / sizeof order[0]; i++) {
        for (size_t j = 0; j < sizeof order / sizeof order[0]; j++) {
            int compared = log_position_compare(order[i], order[j]);
            assert_int_equal(compared < 0 ? -1 : compared > 0, i < j ? -1 : i > j);
        }
    }
}

static void test_positions_there_and_back(void **state)
{
    const struct log_position list[] = {{0, 0}, {7, 1042}, {INT64_MAX, INT64_MAX}};
    char text[SALES_LOG_POSITION_BYTES];
    (void)state;
    for (size_t i = 0; i < sizeof list / sizeof list[0]; i++) {
        struct log_position back;
        log_position_format(list[i], text);
        assert_true(parse(text, &back));
        assert_int_equal(log_position_compare(list[i], back), 0);
    }
    log_position_format((struct log_position){UINT64_MAX, UINT64_MAX}, text); /* the longest fits */
    assert_string_equal(text, "18446744073709551615-18446744073709551615");
}

static void test_positions_that_are_none(void **state)
{
    static const char *const bad[] = {"",
                                      "-",
                                      "1-",
                                      "-1",
                                      "1",
                                      "1-2-3",
                                      "1--2",
                                      "-1-2",
                                      "+1-2",
                                      " 1-2",
                                      "1-2 ",
                                      "1 -2",
                                      "1-x",
                                      "x-1",
                                      "1.0-2",
                                      "18446744073709551616-1",
                                      "1-18446744073709551616",
                                      "0x1-2"};
    struct log_position out = {3, 4};
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        if (parse(bad[i], &out)) {
            fail_msg("\"%s\" was taken for a position", bad[i]);
        }
    }
    assert_false(log_position_parse("1-23", 2, &out)); /* only the bytes that were given */
    assert_true(log_position_parse("1-23", 3, &out));
    assert_int_equal(out.n, 2);
}

/* --- sales
 * ------------------------------------------------------------------------------------------------------------------------------
 */
static void test_a_sale(void **state)
{
    static const char payload[] = "1764201600123\n42 88123 1001 1 2 49900 58\n43 -5 1002 9 1000 0 0";
    struct sale_order orders[2];
    struct log_entry entry;
    (void)state;
    assert_true(decode("sale", payload, sizeof payload - 1, orders, 2, &entry));
    assert_int_equal(entry.kind, LOG_ENTRY_SALE);
    assert_int_equal(log_position_compare(entry.position, here), 0);
    assert_int_equal(entry.at_ms, 1764201600123);
    assert_int_equal(entry.order_count, 2);
    assert_ptr_equal(entry.orders, orders);
    assert_int_equal(orders[0].id, 42);
    assert_int_equal(orders[0].request, 88123);
    assert_int_equal(orders[0].user_id, 1001);
    assert_int_equal(orders[0].product_id, 1);
    assert_int_equal(orders[0].quantity, 2);
    assert_int_equal(orders[0].unit_price, 49900);
    assert_int_equal(orders[0].remaining, 58);
    assert_int_equal(orders[1].request, -5);
    assert_int_equal(orders[1].quantity, 1000);
    assert_int_equal(log_entry_stock_delta(&entry, 1), -2);
    assert_int_equal(log_entry_stock_delta(&entry, 9), -1000);
    assert_int_equal(log_entry_stock_delta(&entry, 2), 0);
    assert_false(decode("sale", payload, sizeof payload - 1, orders, 1, &entry)); /* no room */
}

static void test_the_largest_sale(void **state)
{
    static struct sale_order orders[SALES_LOG_ORDERS_MAX];
    char *payload = malloc(200 * (SALES_LOG_ORDERS_MAX + 2));
    struct log_entry entry;
    (void)state;
    assert_non_null(payload);
    size_t used = (size_t)sprintf(payload, "1");
    for (int i = 1; i <= SALES_LOG_ORDERS_MAX; i++) {
        used += (size_t)sprintf(
            payload + used, "\n%" PRId64 " %" PRId64 " %" PRId64 " %" PRId64 " 1000 100000000000 999999999",
            INT64_MAX - i, INT64_MIN + i, INT64_MAX, INT64_MAX - 1);
    }
    assert_true(decode("sale", payload, used, orders, SALES_LOG_ORDERS_MAX, &entry));
    assert_int_equal(entry.order_count, SALES_LOG_ORDERS_MAX);
    assert_int_equal(orders[255].id, INT64_MAX - 256);
    assert_int_equal(log_entry_stock_delta(&entry, INT64_MAX - 1), -1000 * SALES_LOG_ORDERS_MAX);
    used += (size_t)sprintf(payload + used, "\n1 1 1 1 1 1 1");
    assert_false(decode("sale", payload, used, orders, SALES_LOG_ORDERS_MAX, &entry)); /* one too many */
    free(payload);
}

/* The payload outlives the entry: keys point into it. */
static void test_a_sale_with_keys(void **state)
{
    static const char payload[] =
        "5\n1 2 3 4 5 6 7 a\n2 2 3 4 5 6 7\n3 2 3 4 5 6 7 8\n4 2 3 4 5 6 -7 !\"~{}\n";
    static const char *const keys[] = {"a", NULL, "8", "!\"~{}"};
    struct sale_order orders[4];
    struct log_entry entry;
    (void)state;
    memset(orders, 0xa5, sizeof orders);
    for (size_t bytes = sizeof payload - 2; bytes < sizeof payload;
         bytes++) { /* with the last newline and without */
        struct log_room room = room_of(orders, 4);
        assert_true(log_entry_decode(here, "sale", 4, payload, bytes, &room, &entry));
        assert_int_equal(entry.order_count, 4);
        for (size_t i = 0; i < 4; i++) {
            assert_int_equal(orders[i].id, i + 1);
            assert_int_equal(orders[i].remaining, i == 3 ? -7 : 7);
            assert_int_equal(orders[i].key_bytes, keys[i] ? strlen(keys[i]) : 0);
            if (keys[i] == NULL) {
                assert_null(orders[i].key);
            } else {
                assert_memory_equal(orders[i].key, keys[i], orders[i].key_bytes);
            }
        }
    }
}

static void test_keys_of_every_length(void **state)
{
    char payload[400] = "5\n1 2 3 4 5 6 7 ";
    size_t head = strlen(payload);
    struct sale_order order;
    struct log_entry entry;
    (void)state;
    memset(payload + head, 'k', sizeof payload - head);
    for (size_t bytes = 0; bytes < sizeof payload - head; bytes++) {
        bool taken = decode("sale", payload, head + bytes, &order, 1, &entry);
        assert_int_equal(taken, bytes >= 1 && bytes <= IDEMPOTENCY_KEY_BYTES_MAX);
    }
}

static void test_sales_that_are_none(void **state)
{
    static const char *const bad[] = {
        "",
        "\n",
        "1",
        "1\n",
        "x\n1 2 3 4 5 6 7",
        "-1\n1 2 3 4 5 6 7",
        "1.5\n1 2 3 4 5 6 7",
        " 1\n1 2 3 4 5 6 7",
        "1 1 2 3 4 5 6 7", /* no first line */
        "1\n1 2 3 4 5 6",  /* a number too few */
        "1\n1 2 3 4 5 6 \n",
        "1\n1 2 3 4 5 6 7 ",
        "1\n1 2 3 4 5 6 7 \n2 2 3 4 5 6 7",
        "1\n1 2 3 4 5 6 7  k",
        "1\n1 2 3 4 5 6 7 k ",
        "1\n1 2 3 4 5 6 7 k k",
        "1\n1 2 3 4 5 6 7 k\tk",
        "1\n1 2 3 4 5 6 7 k\x7f",
        "1\n1 2 3 4 5 6 7 k\xc3\xa4",
        "1\n1 2 3 4 5 6 k",
        "1\n1  2 3 4 5 6 7",
        "1\n 1 2 3 4 5 6 7",
        "1\n1\t2\t3\t4\t5\t6\t7",
        "1\n\n1 2 3 4 5 6 7", /* an empty line */
        "1\n1 2 3 4 5 6 7\n\n",
        "1\n0 2 3 4 5 6 7",
        "1\n-1 2 3 4 5 6 7", /* order ids start at 1 */
        "1\n1 2 0 4 5 6 7",
        "1\n1 2 3 0 5 6 7",
        "1\n1 2 3 -4 5 6 7",
        "1\n1 2 3 4 0 6 7",
        "1\n1 2 3 4 -5 6 7", /* a quantity that would add stock */
        "1\n1 2 3 4 5 -6 7",
        "1\n9223372036854775808 2 3 4 5 6 7",
        "1\n1 2 3 4 18446744073709551621 6 7",
        "1\n1 2 3 4 1e2 6 7",
        "1\n1 2 3 4 5.0 6 7",
        "1\n1 2 3 4 +5 6 7",
        "1\r\n1 2 3 4 5 6 7",
        "1\n1 2 3 4 5 6 7\n2 2 3 4", /* cut off */
        "1\n1 2 3 4 5 6 7\nx",
    };
    struct sale_order orders[4];
    struct log_entry entry;
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        if (decode("sale", bad[i], strlen(bad[i]), orders, 4, &entry)) {
            fail_msg("taken for a sale: \"%s\"", bad[i]);
        }
    }
    static const char with_nul[] = "1\n1 2 3\0004 5 6 7";
    assert_false(decode("sale", with_nul, sizeof with_nul - 1, orders, 4, &entry));
}

static void test_kinds(void **state)
{
    static const char *const bad[] = {"", "sal", "sales", "Sale", "cancel", "stock ", "stoc"};
    struct sale_order orders[4];
    struct log_entry entry;
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        assert_false(decode(bad[i], "1\n1 2 3 4 5 6 7", 15, orders, 4, &entry));
    }
    assert_false(decode("stock", "1\n1 2 3 4 5 6 7", 15, orders, 4, &entry));
}

/* --- changes of stock
 * -----------------------------------------------------------------------------------------------------------------------
 */
static void test_changes_of_stock(void **state)
{
    static const struct {
        const char *payload;
        struct stock_change change;
    } list[] = {
        {"5\n1 100 100 opening 0 opening stock", {1, 100, 100, STOCK_OPENING, 0, "opening stock", NULL, 0}},
        {"5\n1 0 0 opening 0 ", {1, 0, 0, STOCK_OPENING, 0, "", NULL, 0}},
        {"5\n9007199254740991 -40 2 withdrawal 1001 \xed\x95\x9c\xea\xb5\xad  two spaces ",
         {9007199254740991, -40, 2, STOCK_WITHDRAWAL, 1001, "\xed\x95\x9c\xea\xb5\xad  two spaces ", NULL,
          0}},
        {"5\n2 7 -1 restock 3 restock", {2, 7, -1, STOCK_RESTOCK, 3, "restock", NULL, 0}},
        /* no UTF-8 */
        {"5\n2 7 -1 restock 3 caf\xe9 \xed\x95", {2, 7, -1, STOCK_RESTOCK, 3, "caf? ??", NULL, 0}},
    };
    struct log_entry entry;
    (void)state;
    for (size_t i = 0; i < sizeof list / sizeof list[0]; i++) {
        assert_true(decode("stock", list[i].payload, strlen(list[i].payload), NULL, 0, &entry));
        const struct stock_change *change = &list[i].change;
        assert_int_equal(entry.kind, LOG_ENTRY_STOCK);
        assert_int_equal(entry.at_ms, 5);
        assert_int_equal(entry.order_count, 0);
        assert_int_equal(entry.stock.product_id, change->product_id);
        assert_int_equal(entry.stock.delta, change->delta);
        assert_int_equal(entry.stock.remaining, change->remaining);
        assert_int_equal(entry.stock.cause, change->cause);
        assert_int_equal(entry.stock.actor, change->actor);
        assert_string_equal(entry.stock.note, change->note);
        assert_int_equal(log_entry_stock_delta(&entry, change->product_id), change->delta);
        assert_int_equal(log_entry_stock_delta(&entry, change->product_id + 1), 0);
    }
}

static void test_changes_that_are_none(void **state)
{
    static const char *const bad[] = {"5",
                                      "5\n",
                                      "5\n1",
                                      "5\n1 100",
                                      "5\n1 100 100",
                                      "5\n1 100 100 opening",
                                      "5\n1 100 100 opening ",
                                      "5\n1 100 100 opening 0",
                                      "5\n1 100 100 Opening 0 x",
                                      "5\n1 100 100 open 0 x",
                                      "5\n1 100 100 openings 0 x",
                                      "5\n1 100 100 theft 0 x",
                                      "5\n0 100 100 opening 0 x",
                                      "5\n-1 100 100 opening 0 x",
                                      "5\n1 x 100 opening 0 x",
                                      "5\n1 100 100 opening -1 x",
                                      "5\n1 100 100 opening 0 two\nlines",
                                      "5\n1 100 100 opening 0 x\n",
                                      "5\n1 9223372036854775808 1 restock 0 x",
                                      "-5\n1 1 1 restock 0 x"};
    char payload[2 * SALES_LOG_NOTE_BYTES] = "5\n1 1 1 restock 0 ";
    struct log_entry entry;
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        if (decode("stock", bad[i], strlen(bad[i]), NULL, 0, &entry)) {
            fail_msg("taken for a change of stock: \"%s\"", bad[i]);
        }
    }
    size_t head = strlen(payload);
    memset(payload + head, 'n', SALES_LOG_NOTE_BYTES);
    assert_true(decode("stock", payload, head + SALES_LOG_NOTE_BYTES - 1, NULL, 0, &entry));
    assert_int_equal(strlen(entry.stock.note), SALES_LOG_NOTE_BYTES - 1);
    assert_false(
        decode("stock", payload, head + SALES_LOG_NOTE_BYTES, NULL, 0, &entry)); /* a byte too long */
}

/* Damage of any kind: refused or read, never beyond its end (the sanitizer watches). */
static void test_damaged_entries(void **state)
{
    static const char good[2][80] = {"1764201600123\n42 88123 1001 1 2 49900 58\n43 88124 1002 1 1 49900 57",
                                     "1764201600000\n1 100 100 opening 5 opening stock"};
    static const char spice[] = " \n-0919x\0\xff";
    uint64_t random = random_seed("test_damaged_entries");
    struct sale_order orders[4];
    struct log_entry entry;
    (void)state;
    for (int round = 0; round < 20000; round++) {
        char text[80];
        int kind = round % 2;
        memcpy(text, good[kind], sizeof text);
        size_t bytes = 1 + random_below(&random, (uint32_t)strlen(text));
        for (uint32_t damage = random_below(&random, 4); damage > 0; damage--) {
            text[random_below(&random, (uint32_t)bytes)] = spice[random_below(&random, sizeof spice - 1)];
        }
        if (decode(kind == 0 ? "sale" : "stock", text, bytes, orders, 4, &entry) && kind == 0) {
            assert_in_range(entry.order_count, 1, 4);
            for (size_t i = 0; i < entry.order_count; i++) {
                assert_true(orders[i].id > 0 && orders[i].quantity > 0 && orders[i].user_id > 0 &&
                            orders[i].product_id > 0);
            }
        }
    }
}

/* --- carts, cancellations, prices ------------------------------------------------------------------------- */
static void test_a_cart(void **state)
{
    static const char payload[] = "9\n44 88125 1003 1 2 49900 55 key-1\n+ 9 1 19900 12\n- 2 1 40\n- 3 4 48\n"
                                  "45 7 8 3 1 100 47\n46 8 9 9 1 19900 11\n- 2 1 39";
    struct sale_order orders[4];
    struct log_entry entry;
    (void)state;
    struct log_room room = room_of(orders, 4);
    assert_true(log_entry_decode(here, "sale", 4, payload, strlen(payload), &room, &entry));
    assert_int_equal(entry.order_count, 3);
    assert_int_equal(room.orders_used, 3);
    assert_int_equal(room.parts_used, 4);
    assert_int_equal(orders[0].more_count, 3);
    assert_int_equal(orders[0].key_bytes, 5);
    assert_int_equal(orders[0].more[0].unit_price, 19900);
    assert_false(orders[0].more[0].is_component);
    assert_int_equal(orders[0].more[2].product_id, 3);
    assert_int_equal(orders[0].more[2].quantity, 4);
    assert_int_equal(orders[0].more[2].remaining, 48);
    assert_int_equal(orders[0].more[2].unit_price, 0);
    assert_true(orders[0].more[2].is_component);
    assert_int_equal(orders[1].more_count, 0);
    assert_null(orders[1].more);
    assert_int_equal(orders[2].more_count, 1);
    assert_int_equal(order_total_price(&orders[0]), 2 * 49900 + 19900);
    assert_int_equal(log_entry_stock_delta(&entry, 1), -2);
    assert_int_equal(log_entry_stock_delta(&entry, 2), -2);
    assert_int_equal(log_entry_stock_delta(&entry, 3), -5);
    assert_int_equal(log_entry_stock_delta(&entry, 9), -2);
    assert_int_equal(log_entry_stock_delta(&entry, 4), 0);
}

static void test_carts_that_are_none(void **state)
{
    static const char *const bad[] = {"9\n+ 9 1 19900 12",     /* behind nothing */
                                      "9\n44 8 1 1 2 4 55\n+", /* cut off */
                                      "9\n44 8 1 1 2 4 55\n+ ",
                                      "9\n44 8 1 1 2 4 55\n+ 9 1 19900",
                                      "9\n44 8 1 1 2 4 55\n- 9 1",
                                      "9\n44 8 1 1 2 4 55\n- 9 1 1 1",      /* a component has no price */
                                      "9\n44 8 1 1 2 4 55\n+ 9 0 19900 12", /* no units */
                                      "9\n44 8 1 1 2 4 55\n- 9 -1 12",
                                      "9\n44 8 1 1 2 4 55\n+9 1 19900 12",
                                      "9\n44 8 1 1 2 4 55\n* 9 1 19900 12",
                                      "9\n44 8 1 1 2 4 55\n+ 9 1 19900 12 key"};
    struct sale_order orders[4];
    struct log_entry entry;
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct log_room room = room_of(orders, 4);
        assert_false(log_entry_decode(here, "sale", 4, bad[i], strlen(bad[i]), &room, &entry));
        assert_int_equal(room.orders_used, 0); /* as it was */
        assert_int_equal(room.parts_used, 0);
    }
}

/* The largest order that can be; and one part more. */
static void test_bounds_of_parts(void **state)
{
    static char payload[64 * ORDER_PARTS_MAX];
    struct sale_order orders[1];
    struct log_entry entry;
    size_t used = (size_t)snprintf(payload, sizeof payload, "9\n1 1 1 1 1 1 1");
    (void)state;
    for (int i = 1; i < ORDER_PARTS_MAX; i++) {
        bool is_line = i % (1 + BUNDLE_COMPONENTS_MAX) == 0;
        used +=
            (size_t)snprintf(payload + used, sizeof payload - used, is_line ? "\n+ 3 1 5 5" : "\n- 2 1 5");
    }
    struct log_room room = room_of(orders, 1);
    assert_true(log_entry_decode(here, "sale", 4, payload, used, &room, &entry));
    assert_int_equal(order_part_count(&orders[0]), ORDER_PARTS_MAX);
    room = room_of(orders, 1);
    room.parts_max = ORDER_PARTS_MAX - 2;
    assert_false(log_entry_decode(here, "sale", 4, payload, used, &room, &entry));
    used += (size_t)snprintf(payload + used, sizeof payload - used, "\n- 2 1 5");
    room = room_of(orders, 1);
    assert_false(log_entry_decode(here, "sale", 4, payload, used, &room, &entry));
}

static void test_a_cancellation(void **state)
{
    static const char payload[] = "9\n44 1003 5\n1 2 57\n9 1 13\n2 1 41";
    static const char *const bad[] = {"9\n44 1003 5",          "9\n44 1003 5\n",       "9\n44 1003\n1 2 57",
                                      "9\n0 1003 5\n1 2 57",   "9\n44 1003 5\n1 0 57", "9\n44 1003 5\n1 2",
                                      "9\n44 1003 5\n1 2 57 8"};
    struct log_entry entry;
    (void)state;
    struct log_room room = room_of(NULL, 0);
    assert_true(log_entry_decode(here, "cancel", 6, payload, strlen(payload), &room, &entry));
    assert_int_equal(entry.kind, LOG_ENTRY_CANCEL);
    assert_int_equal(entry.cancel.order_id, 44);
    assert_int_equal(entry.cancel.user_id, 1003);
    assert_int_equal(entry.cancel.actor, 5);
    assert_int_equal(entry.cancel.part_count, 3);
    assert_int_equal(entry.cancel.parts[1].product_id, 9);
    assert_int_equal(entry.cancel.parts[2].remaining, 41);
    assert_int_equal(log_entry_stock_delta(&entry, 1), 2);
    assert_int_equal(log_entry_stock_delta(&entry, 2), 1);
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        room = room_of(NULL, 0);
        assert_false(log_entry_decode(here, "cancel", 6, bad[i], strlen(bad[i]), &room, &entry));
        assert_int_equal(room.parts_used, 0);
    }
}

static void test_a_price_and_keys(void **state)
{
    static const char *const bad[] = {
        "9\n1 5 0 7 x",           "9\n1 0 5 7 x",        "9\n1 5 6 7",
        "9\n1 5 6 7 x\nkey",      "9\n1 5 6 7 x\nkey ",  "9\n1 5 6 7 x\nkey a b",
        "9\n1 5 6 7 x\nkey a\nb", "9\n1 5 6 7 x\nclef a"};
    struct log_entry entry;
    int64_t from = 0;
    (void)state;
    static const char price[] = "9\n1 49900 44900 5 second hour\nkey p-1";
    struct log_room room = room_of(NULL, 0);
    assert_true(log_entry_decode(here, "price", 5, price, strlen(price), &room, &entry));
    assert_int_equal(entry.price.from, 49900);
    assert_int_equal(entry.price.to, 44900);
    assert_int_equal(entry.price.actor, 5);
    assert_string_equal(entry.price.note, "second hour");
    assert_int_equal(entry.price.key_bytes, 3);
    assert_memory_equal(entry.price.key, "p-1", 3);
    assert_true(log_entry_price_change(&entry, 1, &from));
    assert_int_equal(from, 49900);
    assert_false(log_entry_price_change(&entry, 2, &from));
    assert_int_equal(log_entry_stock_delta(&entry, 1), 0);
    static const char stock[] = "9\n1 50 107 restock 5 a pallet was found\nkey restock-17";
    assert_true(log_entry_decode(here, "stock", 5, stock, strlen(stock), &room, &entry));
    assert_string_equal(entry.stock.note, "a pallet was found");
    assert_int_equal(entry.stock.key_bytes, 10);
    assert_int_equal(log_entry_stock_delta(&entry, 1), 50);
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        assert_false(log_entry_decode(here, "price", 5, bad[i], strlen(bad[i]), &room, &entry));
    }
}

static void test_a_window(void **state)
{
    struct log_entry entry;
    struct sale_window from;
    struct log_room room = room_of(NULL, 0);
    (void)state;
    static const char window[] = "9\n1 0 253402300799999 1764201600000 0 5 not yet\nkey w-1";
    assert_true(log_kind_is_ours("window", 6));
    assert_true(log_entry_decode(here, "window", 6, window, strlen(window), &room, &entry));
    assert_int_equal(entry.window.to.starts_at_ms, INT64_C(1764201600000));
    assert_int_equal(entry.window.to.ends_at_ms, 0);
    assert_string_equal(entry.window.note, "not yet");
    assert_memory_equal(entry.window.key, "w-1", 3);
    assert_true(log_entry_window_change(&entry, 1, &from));
    assert_int_equal(from.starts_at_ms, 0);
    assert_int_equal(from.ends_at_ms, SALE_TIME_MS_MAX);
    assert_false(log_entry_window_change(&entry, 2, &from));
    int64_t price;
    assert_false(log_entry_price_change(&entry, 1, &price));
    assert_int_equal(log_entry_stock_delta(&entry, 1), 0);
}

static void test_what_comes_of_a_wish_for_a_window(void **state)
{
    static const struct {
        struct sale_window is, asked, becomes;
        bool is_sound;
    } cases[] = {
        {{0, 0}, {SALE_WINDOW_KEEP, SALE_WINDOW_NOW}, {0, 500}, true},
        {{0, 500}, {SALE_WINDOW_KEEP, 0}, {0, 0}, true},
        {{900, 0}, {SALE_WINDOW_NOW, SALE_WINDOW_KEEP}, {500, 0}, true},
        {{900, 0}, {SALE_WINDOW_KEEP, SALE_WINDOW_NOW}, {900, 500}, false},
        {{0, 400}, {SALE_WINDOW_NOW, SALE_WINDOW_KEEP}, {500, 400}, false},
        {{0, 0}, {SALE_WINDOW_NOW, SALE_WINDOW_NOW}, {500, 500}, false},
        {{0, 0}, {7, SALE_TIME_MS_MAX}, {7, SALE_TIME_MS_MAX}, true},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct sale_window out;
        assert_true(sale_window_may_be_asked(&cases[i].asked));
        assert_int_equal(sale_window_change(&cases[i].is, &cases[i].asked, 500, &out), cases[i].is_sound);
        assert_int_equal(out.starts_at_ms, cases[i].becomes.starts_at_ms);
        assert_int_equal(out.ends_at_ms, cases[i].becomes.ends_at_ms);
    }
    assert_false(sale_window_may_be_asked(&(struct sale_window){-3, 0}));
    assert_false(sale_window_may_be_asked(&(struct sale_window){0, SALE_TIME_MS_MAX + 1}));
}

/* Taken for ours, they would get into the store, and Redis filled from it would be damaged for ever: the scripts refuse prices above 13 digits,
 * stocks above 10, times above 14. */
static void test_figures_that_no_script_writes(void **state)
{
    static const struct {
        const char *kind, *payload;
    } bad[] = {
        {"price", "9\n1 100 99999999999999999 1 x"},
        {"stock", "9\n1 99999999999 99999999999 restock 1 x"},
        {"stock", "100000000000000\n1 5 5 restock 1 x"},
        {"sale", "100000000000000\n1 2 3 4 5 6 7"},
        {"sale", "9\n1 2 3 4 5 99999999999999999 7"},
        {"sale", "9\n1 2 3 4 1001 6 7"},
        {"sale", "9\n1 2 3 4 1 100000000001 7"},
        {"sale", "9\n1 2 3 4 1 6 7\n+ 5 1001 6 7"},
        {"sale", "9\n1 2 3 4 1 6 7\n+ 5 1 100000000001 7"},
        {"sale", "9\n1 2 3 4 1 6 7\n- 5 1000001 7"},
        {"cancel", "9\n1 2 3\n4 1000001 6"},
        {"cancel", "100000000000000\n1 2 3\n4 5 6"},
        {"stock", "9\n1 1000000001 5 restock 1 x"},
        {"stock", "9\n1 -1000000001 5 withdrawal 1 x"},
        {"price", "9\n1 100 100000000001 1 x"},
        {"price", "9\n1 100000000001 100 1 x"},
        {"price", "9\n1 0 100 1 x"},
        {"window", "9\n1 0 0 0 253402300800000 1 x"},
        {"window", "9\n1 0 0 -1 5 1 x"},
        {"window", "9\n0 0 0 4 5 1 x"},
        {"window", "9\n1 0 0 4 5 1"},
        {"window", "9\n1 0 0 4 5 1 x\nkey a b"},
        {"window", "9\n1 0 0 4 1 x"},
    };
    struct sale_order order;
    struct log_entry entry;
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        if (decode(bad[i].kind, bad[i].payload, strlen(bad[i].payload), &order, 1, &entry)) {
            fail_msg("%s %s is taken for one of ours", bad[i].kind, bad[i].payload);
        }
    }
}

/* ... and the largest that they do write. */
static void test_the_largest_figures_that_scripts_write(void **state)
{
    static const struct {
        const char *kind, *payload;
    } good[] = {
        {"price", "99999999999999\n1 100000000000 100000000000 1 x"},
        {"stock", "9\n1 1000000000 1000000000 restock 1 x"},
        {"stock", "9\n1 -1000000000 0 withdrawal 1 x"},
        {"sale", "9\n1 2 3 4 1000 100000000000 7\n+ 5 1000 100000000000 7\n- 6 1000000 7"},
        {"cancel", "9\n1 2 3\n4 1000000 6"},
    };
    struct sale_order order;
    struct log_entry entry;
    (void)state;
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        if (!decode(good[i].kind, good[i].payload, strlen(good[i].payload), &order, 1, &entry)) {
            fail_msg("%s %s is not taken for one of ours", good[i].kind, good[i].payload);
        }
    }
}

/* What shows an order has room for a cart's lines. */
static void test_an_order_of_more_lines_than_a_cart_has(void **state)
{
    struct sale_order order;
    struct order_part parts[CART_LINES_MAX];
    struct log_entry entry;
    char payload[1024] = "9\n1 2 3 4 5 6 7";
    struct log_room room = {.orders = &order, .orders_max = 1, .parts = parts, .parts_max = CART_LINES_MAX};
    (void)state;
    for (size_t i = 0; i < CART_LINES_MAX; i++) {
        strcat(payload, "\n+ 8 1 6 7");
    }
    assert_false(log_entry_decode(here, "sale", 4, payload, strlen(payload), &room, &entry));
    assert_int_equal(room.parts_used, 0);
    payload[strlen(payload) - strlen("\n+ 8 1 6 7")] = '\0';
    assert_true(log_entry_decode(here, "sale", 4, payload, strlen(payload), &room, &entry));
    assert_int_equal(order.more_count, CART_LINES_MAX - 1);
}

/* However few its lines are. */
static void test_a_line_of_more_components_than_a_bundle_has(void **state)
{
    struct sale_order order;
    struct log_entry entry;
    char payload[1024] = "9\n1 2 3 4 5 6 7\n- 8 1 6\n+ 5 1 6 7";
    (void)state;
    for (size_t i = 0; i < BUNDLE_COMPONENTS_MAX; i++) {
        strcat(payload, "\n- 8 1 6");
    }
    assert_true(decode("sale", payload, strlen(payload), &order, 1, &entry));
    strcat(payload, "\n- 8 1 6");
    assert_false(decode("sale", payload, strlen(payload), &order, 1, &entry));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_window),
        cmocka_unit_test(test_what_comes_of_a_wish_for_a_window),
        cmocka_unit_test(test_figures_that_no_script_writes),
        cmocka_unit_test(test_the_largest_figures_that_scripts_write),
        cmocka_unit_test(test_an_order_of_more_lines_than_a_cart_has),
        cmocka_unit_test(test_a_line_of_more_components_than_a_bundle_has),
        cmocka_unit_test(test_positions_are_compared),
        cmocka_unit_test(test_positions_there_and_back),
        cmocka_unit_test(test_positions_that_are_none),
        cmocka_unit_test(test_a_sale),
        cmocka_unit_test(test_the_largest_sale),
        cmocka_unit_test(test_a_sale_with_keys),
        cmocka_unit_test(test_keys_of_every_length),
        cmocka_unit_test(test_sales_that_are_none),
        cmocka_unit_test(test_kinds),
        cmocka_unit_test(test_a_cart),
        cmocka_unit_test(test_carts_that_are_none),
        cmocka_unit_test(test_bounds_of_parts),
        cmocka_unit_test(test_a_cancellation),
        cmocka_unit_test(test_a_price_and_keys),
        cmocka_unit_test(test_changes_of_stock),
        cmocka_unit_test(test_changes_that_are_none),
        cmocka_unit_test(test_damaged_entries),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
