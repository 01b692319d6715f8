/* The rules of a sale: each refusal and its figures, in the order in which they are looked for; what an order takes of the shelf; and that a
 * refusal takes nothing. */
#include "testing.h"

#include "child.h"

#include "doorbuster/selling.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>

#define NOW_MS INT64_C(1000000)
#define EXPECT_MORE (CART_LINES_MAX - 1)

/* 1 lamp and 2 chairs make a set. */
enum { LAMP = 1, CHAIR = 2, TABLE = 3, SET = 9, UNKNOWN = 99 };
enum { ADA = 11, BOB };

struct fixture {
    struct shelf shelf;
    struct sale_order orders[SALES_LOG_ORDERS_MAX];
    struct order_part parts[SALES_LOG_PARTS_MAX];
    struct log_room room;
    struct verdict verdict; /* the last one */
    struct purchase purchase;
    struct order_part more[EXPECT_MORE];
};

static int set_up(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    assert_non_null(f);
    f->room = (struct log_room){.orders = f->orders,
                                .orders_max = SALES_LOG_ORDERS_MAX,
                                .parts = f->parts,
                                .parts_max = SALES_LOG_PARTS_MAX};
    memset(&f->shelf, 0xff, sizeof f->shelf); /* shelf_clear() suffices */
    shelf_clear(&f->shelf, NOW_MS, 41);
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    free(*state);
    return 0;
}

static void put(struct fixture *f, struct sale_product terms)
{
    shelf_put_product(&f->shelf, &terms, true);
}

static void put_plain(struct fixture *f, int64_t id, int64_t stock, int64_t limit)
{
    put(f, (struct sale_product){.id = id, .stock = stock, .price = 100 * id, .limit = limit});
    for (int64_t user = ADA; limit > 0 && user <= BOB; user++) {
        shelf_put_owner(&f->shelf, id, user, 0);
    }
}

static void put_set(struct fixture *f)
{
    put(f, (struct sale_product){
               .id = SET, .price = 250, .components = {{LAMP, 1}, {CHAIR, 2}}, .component_count = 2});
}

/* "product:quantity", up to three lines. Decides and tells the purchase. */
static const struct purchase *buy(struct fixture *f, int64_t user, const char *key, const int64_t (*lines)[2],
                                  size_t count)
{
    memset(f->more, 0, sizeof f->more);
    f->purchase = (struct purchase){.order = {.request = 7, .user_id = user, .key = key, .more = f->more}};
    f->purchase.order.key_bytes = key == NULL ? 0 : strlen(key);
    f->purchase.order.product_id = lines[0][0];
    f->purchase.order.quantity = lines[0][1];
    for (size_t i = 1; i < count; i++) {
        f->more[i - 1] =
            (struct order_part){.product_id = lines[i][0], .quantity = lines[i][1], .remaining = -7};
    }
    f->purchase.order.more_count = count - 1;
    if (key != NULL && !shelf_has_key(&f->shelf, user, key, strlen(key))) {
        shelf_put_key(&f->shelf, user, key, strlen(key), 0);
    }
    shelf_decide(&f->shelf, &f->purchase, &f->room, &f->verdict);
    purchase_take_verdict(&f->purchase, &f->verdict);
    return &f->purchase;
}

#define BUY(f, user, ...)                                                                                    \
    buy((f), (user), NULL, (const int64_t[][2]){__VA_ARGS__},                                                \
        sizeof((const int64_t[][2]){__VA_ARGS__}) / sizeof(int64_t[2]))

static int64_t stock_of(struct fixture *f, int64_t id)
{
    return shelf_product(&f->shelf, id)->terms.stock;
}

static int64_t owned(struct fixture *f, int64_t product, int64_t user)
{
    for (size_t i = 0; i < f->shelf.owner_count; i++) {
        if (f->shelf.owners[i].product_id == product && f->shelf.owners[i].user_id == user) {
            return f->shelf.owners[i].units;
        }
    }
    return -1;
}

static void assert_refused(const struct fixture *f, enum refusal refusal, int64_t product, int64_t figure)
{
    assert_int_equal(f->purchase.refusal, refusal);
    assert_int_equal(f->purchase.refused_product_id, product);
    assert_int_equal(f->purchase.figure, figure);
    assert_int_equal(f->purchase.order.id, 0);
    assert_null(f->verdict.order);
}

/* --- one line --- */
static void test_the_last_unit_and_the_first_refusal(void **state)
{
    struct fixture *f = *state;
    put_plain(f, LAMP, 2, 0);
    assert_int_equal(BUY(f, ADA, {LAMP, 1})->order.id, 42);
    assert_int_equal(f->purchase.order.remaining, 1);
    assert_int_equal(f->purchase.order.unit_price, 100);
    BUY(f, BOB, {LAMP, 2});
    assert_refused(f, REFUSAL_INSUFFICIENT_STOCK, 0, 0);
    assert_int_equal(f->purchase.short_lines, 1);
    assert_int_equal(f->purchase.order.remaining, 1);
    assert_int_equal(BUY(f, BOB, {LAMP, 1})->order.id, 43);
    assert_int_equal(f->purchase.order.remaining, 0);
    BUY(f, ADA, {LAMP, 1});
    assert_refused(f, REFUSAL_INSUFFICIENT_STOCK, 0, 0);
    assert_int_equal(f->room.orders_used, 2);
    assert_int_equal(f->room.parts_used, 0);
    assert_null(f->orders[0].more);
    assert_int_equal(f->orders[1].user_id, BOB);
    assert_int_equal(f->orders[1].request, 7);
    assert_int_equal(stock_of(f, LAMP), 0);
}

static void test_what_is_not_on_sale(void **state)
{
    struct fixture *f = *state;
    shelf_put_product(&f->shelf, &(struct sale_product){.id = UNKNOWN}, false);
    shelf_put_product(&f->shelf, &(struct sale_product){.id = LAMP, .stock = 5, .price = 1}, false);
    BUY(f, ADA, {UNKNOWN, 1});
    assert_refused(f, REFUSAL_NOT_ON_SALE, UNKNOWN, 0);
    BUY(f, ADA, {LAMP, 1});
    assert_refused(f, REFUSAL_NOT_ON_SALE, LAMP, 0);
    assert_int_equal(stock_of(f, LAMP), 5);
}

static void test_from_the_one_until_just_before_the_other(void **state)
{
    struct fixture *f = *state;
    put(f, (struct sale_product){.id = 1, .stock = 5, .price = 1, .starts_at_ms = NOW_MS});
    put(f, (struct sale_product){.id = 2, .stock = 0, .price = 1, .starts_at_ms = NOW_MS + 30});
    put(f, (struct sale_product){.id = 3, .stock = 5, .price = 1, .ends_at_ms = NOW_MS + 1});
    put(f, (struct sale_product){.id = 4, .stock = 0, .price = 1, .ends_at_ms = NOW_MS});
    assert_int_equal(BUY(f, ADA, {1, 1})->order.id, 42);
    BUY(f, ADA, {2, 1}); /* time is looked at before stock */
    assert_refused(f, REFUSAL_NOT_OPEN, 2, NOW_MS + 30);
    assert_int_equal(f->purchase.wait_ms, 30);
    assert_int_equal(BUY(f, ADA, {3, 1})->order.id, 43);
    BUY(f, ADA, {4, 1});
    assert_refused(f, REFUSAL_OVER, 4, NOW_MS);
    assert_int_equal(f->purchase.wait_ms, 0);
}

static void test_the_limit(void **state)
{
    struct fixture *f = *state;
    put_plain(f, LAMP, 5, 3);
    assert_int_equal(BUY(f, ADA, {LAMP, 2})->order.id, 42);
    BUY(f, ADA, {LAMP, 2});
    assert_refused(f, REFUSAL_CUSTOMER_LIMIT, LAMP, 2);
    assert_int_equal(f->purchase.limit, 3);
    assert_int_equal(f->purchase.requested, 2);
    assert_int_equal(f->purchase.short_lines, 0);
    assert_int_equal(BUY(f, ADA, {LAMP, 1})->order.id, 43);
    assert_int_equal(owned(f, LAMP, ADA), 3);
    assert_int_equal(BUY(f, BOB, {LAMP, 1})->order.id, 44);
    BUY(f, ADA, {LAMP, 2}); /* stock is looked at before the limit */
    assert_refused(f, REFUSAL_INSUFFICIENT_STOCK, 0, 0);
    assert_int_equal(f->purchase.order.remaining, 1);
    assert_true(f->shelf.owners[0].changed);
}

/* --- keys --- */
static const struct purchase *buy_keyed(struct fixture *f, int64_t user, const char *key, int64_t product)
{
    return buy(f, user, key, (const int64_t[][2]){{product, 1}}, 1);
}

static void test_a_key_stands_for_its_order(void **state)
{
    struct fixture *f = *state;
    put_plain(f, LAMP, 2, 0);
    put_plain(f, CHAIR, 0, 0);
    shelf_put_key(&f->shelf, ADA, "old", 3, 17);
    buy_keyed(f, ADA, "old", LAMP);
    assert_refused(f, REFUSAL_ALREADY_ORDERED, 0, 17);
    buy_keyed(f, ADA, "new", CHAIR); /* a refusal is not kept */
    assert_refused(f, REFUSAL_INSUFFICIENT_STOCK, 0, 0);
    assert_int_equal(buy_keyed(f, ADA, "new", LAMP)->order.id, 42);
    buy_keyed(f, ADA, "new", CHAIR); /* in the same batch, and whatever is asked for now */
    assert_refused(f, REFUSAL_ALREADY_ORDERED, 0, 42);
    assert_int_equal(buy_keyed(f, BOB, "new", LAMP)->order.id, 43);
    assert_int_equal(f->shelf.key_count, 3);
    assert_false(f->shelf.keys[0].is_new);
    assert_true(f->shelf.keys[1].is_new && f->shelf.keys[2].is_new);
    assert_string_equal(f->orders[0].key, "new");
}

static void test_a_key_comes_before_all_else(void **state)
{
    struct fixture *f = *state;
    shelf_put_key(&f->shelf, ADA, "k", 1, 17);
    buy_keyed(f, ADA, "k", UNKNOWN); /* not even put on the shelf */
    assert_refused(f, REFUSAL_ALREADY_ORDERED, 0, 17);
}

/* --- carts --- */
static void test_a_cart_takes_all_or_nothing(void **state)
{
    struct fixture *f = *state;
    put_plain(f, LAMP, 5, 0);
    put_plain(f, CHAIR, 1, 0);
    put_plain(f, TABLE, 0, 0);
    BUY(f, ADA, {LAMP, 6}, {CHAIR, 1}, {TABLE, 1});
    assert_refused(f, REFUSAL_INSUFFICIENT_STOCK, 0, 0);
    assert_int_equal(f->purchase.short_lines, 5);
    assert_int_equal(f->purchase.order.remaining, 5);
    assert_int_equal(f->more[0].remaining, -7); /* it could be had */
    assert_int_equal(f->more[1].remaining, 0);
    assert_int_equal(stock_of(f, LAMP), 5);
    assert_int_equal(stock_of(f, CHAIR), 1);
    assert_int_equal(BUY(f, ADA, {LAMP, 2}, {CHAIR, 1})->order.id, 42);
    assert_int_equal(f->purchase.order.remaining, 3);
    assert_int_equal(f->more[0].remaining, 0);
    assert_int_equal(f->more[0].unit_price, 200);
    assert_int_equal(f->orders[0].more_count, 1);
    assert_int_equal(f->orders[0].more->product_id, CHAIR);
}

static void test_a_line_beside_those_before_it(void **state)
{
    struct fixture *f = *state;
    put_plain(f, LAMP, 3, 0);
    BUY(f, ADA, {LAMP, 2}, {LAMP, 2});
    assert_refused(f, REFUSAL_INSUFFICIENT_STOCK, 0, 0);
    assert_int_equal(f->purchase.short_lines, 2);
    assert_int_equal(f->more[0].remaining, 1);
    assert_int_equal(BUY(f, ADA, {LAMP, 2}, {LAMP, 1})->order.remaining, 1);
    assert_int_equal(f->more[0].remaining, 0);
    assert_int_equal(stock_of(f, LAMP), 0);
}

static void test_the_first_line_that_is_refused_is_named(void **state)
{
    struct fixture *f = *state;
    put_plain(f, LAMP, 0, 0);
    put(f, (struct sale_product){.id = CHAIR, .stock = 1, .price = 1, .ends_at_ms = 1});
    shelf_put_product(&f->shelf, &(struct sale_product){.id = UNKNOWN}, false);
    BUY(f, ADA, {LAMP, 1}, {CHAIR, 1}, {UNKNOWN, 1});
    assert_refused(f, REFUSAL_OVER, CHAIR, 1);
    BUY(f, ADA, {LAMP, 1}, {UNKNOWN, 1}, {CHAIR, 1});
    assert_refused(f, REFUSAL_NOT_ON_SALE, UNKNOWN, 0);
}

static void test_limits_are_summed_over_the_cart(void **state)
{
    struct fixture *f = *state;
    put_plain(f, LAMP, 50, 3);
    put_plain(f, CHAIR, 50, 2);
    put_set(f);
    BUY(f, ADA, {SET, 1}, {CHAIR, 1});
    assert_refused(f, REFUSAL_CUSTOMER_LIMIT, CHAIR, 0);
    assert_int_equal(f->purchase.requested, 3);
    BUY(f, ADA, {LAMP, 3}, {SET, 1});
    assert_refused(f, REFUSAL_CUSTOMER_LIMIT, LAMP, 0);
    assert_int_equal(f->purchase.requested, 4);
    BUY(f, ADA, {SET, 5});
    assert_refused(f, REFUSAL_CUSTOMER_LIMIT, LAMP, 0);
    assert_int_equal(f->purchase.requested, 5);
    assert_int_equal(owned(f, LAMP, ADA), 0);
    assert_int_equal(stock_of(f, LAMP), 50);
    assert_int_equal(BUY(f, ADA, {SET, 1}, {LAMP, 2})->order.id, 42);
    assert_int_equal(owned(f, LAMP, ADA), 3);
    assert_int_equal(owned(f, CHAIR, ADA), 2);
    BUY(f, ADA, {CHAIR, 1});
    assert_refused(f, REFUSAL_CUSTOMER_LIMIT, CHAIR, 2);
}

/* --- bundles --- */
static void assert_part(const struct order_part *part, int64_t product, int64_t quantity, int64_t price,
                        int64_t remaining, bool is_component)
{
    assert_int_equal(part->product_id, product);
    assert_int_equal(part->quantity, quantity);
    assert_int_equal(part->unit_price, price);
    assert_int_equal(part->remaining, remaining);
    assert_int_equal(part->is_component, is_component);
}

static void test_a_bundle_takes_its_components(void **state)
{
    struct fixture *f = *state;
    put_plain(f, LAMP, 10, 0);
    put_plain(f, CHAIR, 7, 0);
    put_set(f);
    BUY(f, ADA, {SET, 4});
    assert_refused(f, REFUSAL_INSUFFICIENT_STOCK, 0, 0);
    assert_int_equal(f->purchase.order.remaining, 3);
    assert_int_equal(BUY(f, ADA, {CHAIR, 1}, {SET, 2}, {LAMP, 1})->order.id, 42);
    const struct sale_order *order = f->verdict.order;
    assert_int_equal(order->more_count, 4);
    assert_part(&order->more[0], SET, 2, 250, 1, false);
    assert_part(&order->more[1], LAMP, 2, 0, 8, true);
    assert_part(&order->more[2], CHAIR, 4, 0, 2, true);
    assert_part(&order->more[3], LAMP, 1, 100, 7, false);
    /* The purchase has its lines only. */
    assert_int_equal(f->purchase.order.more_count, 2);
    assert_part(&f->more[0], SET, 2, 250, 1, false);
    assert_part(&f->more[1], LAMP, 1, 100, 7, false);
    assert_true(shelf_product(&f->shelf, SET)->moved && shelf_product(&f->shelf, LAMP)->moved);
    BUY(f, ADA, {SET, 1}, {CHAIR, 1});
    assert_int_equal(f->purchase.short_lines, 2);
    assert_int_equal(f->more[0].remaining, 0);
}

static void test_a_bundle_is_on_sale_while_its_components_are(void **state)
{
    struct fixture *f = *state;
    put(f, (struct sale_product){.id = LAMP, .stock = 5, .price = 1, .starts_at_ms = NOW_MS + 1});
    shelf_put_product(&f->shelf, &(struct sale_product){.id = CHAIR}, false);
    put_set(f);
    BUY(f, ADA, {SET, 1});
    assert_refused(f, REFUSAL_NOT_OPEN, LAMP, NOW_MS + 1);
    f->shelf.now_ms++;
    BUY(f, ADA, {SET, 1});
    assert_refused(f, REFUSAL_NOT_ON_SALE, CHAIR, 0);
}

/* --- the whole shelf --- */
static void test_a_full_shelf(void **state)
{
    struct fixture *f = *state;
    int64_t id = 0;
    for (int64_t line = 0; line < SALES_LOG_LINES_MAX; line++) {
        struct sale_product bundle = {
            .id = ++id, .price = 5, .limit = 1, .component_count = BUNDLE_COMPONENTS_MAX};
        for (size_t i = 0; i < BUNDLE_COMPONENTS_MAX; i++) {
            bundle.components[i] = (struct bundle_component){++id, 1};
            put(f, (struct sale_product){.id = id, .stock = 1, .price = 1, .limit = 1});
            shelf_put_owner(&f->shelf, id, line + 1, 0);
        }
        put(f, bundle);
        shelf_put_owner(&f->shelf, bundle.id, line + 1, 0);
        assert_int_equal(BUY(f, line + 1, {bundle.id, 1})->order.id, 42 + line);
        assert_int_equal(f->purchase.order.remaining, 0);
    }
    assert_int_equal(f->shelf.product_count, SHELF_PRODUCTS_MAX);
    assert_int_equal(f->room.parts_used, SALES_LOG_LINES_MAX * BUNDLE_COMPONENTS_MAX);
    shelf_clear(&f->shelf, NOW_MS, 0);
    assert_false(shelf_has_product(&f->shelf, 1));
    assert_false(shelf_has_owner(&f->shelf, 1, 1));
}

static void decide_bare(void *context)
{
    struct fixture *f = context;
    struct purchase purchase = {.order = {.user_id = ADA, .product_id = UNKNOWN, .quantity = 1}};
    shelf_decide(&f->shelf, &purchase, &f->room, &f->verdict);
}

static void test_what_was_not_put_is_a_bug(void **state)
{
    struct child child;
    child_run(decide_bare, *state, &child);
    assert_int_equal(child.exit_code, -SIGABRT);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_the_last_unit_and_the_first_refusal),
        TEST(test_what_is_not_on_sale),
        TEST(test_from_the_one_until_just_before_the_other),
        TEST(test_the_limit),
        TEST(test_a_key_stands_for_its_order),
        TEST(test_a_key_comes_before_all_else),
        TEST(test_a_cart_takes_all_or_nothing),
        TEST(test_a_line_beside_those_before_it),
        TEST(test_the_first_line_that_is_refused_is_named),
        TEST(test_limits_are_summed_over_the_cart),
        TEST(test_a_bundle_takes_its_components),
        TEST(test_a_bundle_is_on_sale_while_its_components_are),
        TEST(test_a_full_shelf),
        TEST(test_what_was_not_put_is_a_bug),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
