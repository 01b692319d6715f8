/* Orders as the API shows them: whatever a store holds, they fit, for what does not would end the worker. */
#include "testing.h"

#include "orders.h"

#include "doorbuster/json.h"

#include <string.h>

static char text[ORDER_CART_BYTES];

static size_t items_of(const struct sale_order *order, bool as_cart)
{
    size_t room = as_cart ? ORDER_CART_BYTES : ORDER_BYTES;
    size_t bytes = order_format(order, INT64_MAX, INT64_MAX, as_cart, text, room);
    assert_int_equal(bytes, strlen(text));
    cJSON *json = cJSON_Parse(text);
    assert_non_null(json);
    size_t count = (size_t)cJSON_GetArraySize(cJSON_GetObjectItem(json, "items"));
    cJSON_Delete(json);
    return count;
}

static void test_an_order_of_any_figures_fits(void **state)
{
    static struct order_part more[ORDER_PARTS_MAX - 1];
    struct sale_order order = {.id = INT64_MIN,
                               .user_id = INT64_MIN,
                               .product_id = INT64_MIN,
                               .quantity = INT64_MIN,
                               .unit_price = INT64_MIN,
                               .remaining = INT64_MIN,
                               .more = more};
    (void)state;
    items_of(&order, false);
    assert_int_equal(items_of(&order, true), 1);
    for (size_t i = 0; i < ORDER_PARTS_MAX - 1; i++) {
        more[i] = (struct order_part){INT64_MIN, INT64_MIN, INT64_MIN, INT64_MIN, false};
    }
    order.more_count = CART_LINES_MAX - 1;
    assert_int_equal(items_of(&order, true), CART_LINES_MAX);
}

static void test_of_more_lines_than_a_cart_has_the_first_are_shown(void **state)
{
    static struct order_part more[ORDER_PARTS_MAX - 1];
    struct sale_order order = {
        .id = 1, .user_id = 2, .product_id = 3, .quantity = 4, .unit_price = 5, .more = more};
    (void)state;
    for (size_t i = 0; i < ORDER_PARTS_MAX - 1; i++) {
        more[i] = (struct order_part){4, 1, 10, 1, i == 0};
    }
    order.more_count = ORDER_PARTS_MAX - 1;
    assert_int_equal(items_of(&order, true), CART_LINES_MAX);
    assert_int_equal(order_total_price(&order), 20 + 10 * (ORDER_PARTS_MAX - 1)); /* of all */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_an_order_of_any_figures_fits),
        cmocka_unit_test(test_of_more_lines_than_a_cart_has_the_first_are_shown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
