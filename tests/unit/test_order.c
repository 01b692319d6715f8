/* Orders and carts: lines are added up, bounds hold, components are no lines. */
#include "testing.h"

#include "doorbuster/order.h"

#include <string.h>

struct cart {
    struct sale_order order;
    struct order_part more[CART_LINES_MAX - 1];
};

static void begin(struct cart *cart)
{
    memset(cart, 0, sizeof *cart);
    cart->order.more = cart->more;
}

static void test_a_product_is_added_up(void **state)
{
    struct cart cart;
    (void)state;
    begin(&cart);
    assert_int_equal(cart_add(&cart.order, 7, 2), CART_FITS);
    assert_int_equal(cart_add(&cart.order, 3, 1), CART_FITS);
    assert_int_equal(cart_add(&cart.order, 7, 3), CART_FITS);
    assert_int_equal(cart_add(&cart.order, 3, 9), CART_FITS);
    assert_int_equal(order_part_count(&cart.order), 2); /* in order of first mention */
    assert_int_equal(order_part_at(&cart.order, 0).product_id, 7);
    assert_int_equal(order_part_at(&cart.order, 0).quantity, 5);
    assert_int_equal(order_part_at(&cart.order, 1).product_id, 3);
    assert_int_equal(order_part_at(&cart.order, 1).quantity, 10);
}

static void test_bounds_of_a_cart(void **state)
{
    struct cart cart;
    (void)state;
    begin(&cart);
    for (int64_t product = 1; product <= CART_LINES_MAX; product++) {
        assert_int_equal(cart_add(&cart.order, product, PURCHASE_QUANTITY_MAX - 1), CART_FITS);
    }
    struct cart before = cart;
    assert_int_equal(cart_add(&cart.order, CART_LINES_MAX + 1, 1), CART_TOO_MANY_LINES);
    assert_int_equal(cart_add(&cart.order, 1, 2), CART_TOO_MANY_UNITS);
    assert_int_equal(cart_add(&cart.order, CART_LINES_MAX, 2), CART_TOO_MANY_UNITS);
    assert_memory_equal(&cart, &before, sizeof cart);
    assert_int_equal(cart_add(&cart.order, CART_LINES_MAX, 1), CART_FITS);
    assert_int_equal(order_part_count(&cart.order), CART_LINES_MAX);
}

static void test_total_price(void **state)
{
    struct order_part parts[] = {{.product_id = 2, .quantity = 4, .is_component = true},
                                 {.product_id = 3, .quantity = 2, .unit_price = 7}};
    struct sale_order order = {
        .product_id = 1, .quantity = 2, .unit_price = 100, .more = parts, .more_count = 2};
    (void)state;
    assert_int_equal(order_total_price(&order), 214);
    order.more_count = 0;
    assert_int_equal(order_total_price(&order), 200);
}

static void test_same_lines(void **state)
{
    struct order_part asked_more[] = {{.product_id = 2, .quantity = 1}, {.product_id = 3, .quantity = 5}};
    struct order_part sold_more[] = {{.product_id = 8, .quantity = 4, .is_component = true},
                                     {.product_id = 1, .quantity = 2, .unit_price = 9},
                                     {.product_id = 2, .quantity = 1, .unit_price = 9}};
    struct sale_order asked = {.product_id = 1, .quantity = 2, .more = asked_more, .more_count = 2};
    struct sale_order sold = {.product_id = 3, .quantity = 5, .more = sold_more, .more_count = 3};
    (void)state;
    assert_true(order_has_same_lines(&asked, &sold)); /* in another order, with a component */
    assert_true(order_has_same_lines(&sold, &asked));
    sold_more[1].quantity = 3;
    assert_false(order_has_same_lines(&asked, &sold));
    sold_more[1].quantity = 2;
    asked.more_count = 1; /* the other has a line more */
    assert_false(order_has_same_lines(&asked, &sold));
    assert_false(order_has_same_lines(&sold, &asked));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_product_is_added_up),
        cmocka_unit_test(test_bounds_of_a_cart),
        cmocka_unit_test(test_total_price),
        cmocka_unit_test(test_same_lines),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
