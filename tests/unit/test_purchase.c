/* The states of a purchase: every move of the drawing in sale.h, and that every other one ends the process.
 */
#include "testing.h"

#include "child.h"

#include "doorbuster/sale.h"

#include <signal.h>
#include <string.h>

/* A purchase that makes sense in this state. */
static struct purchase purchase_in(enum purchase_state state)
{
    struct purchase purchase = {.state = state,
                                .order = {.request = 1, .user_id = 2, .product_id = 3, .quantity = 4}};
    if (state == PURCHASE_RESERVED || state == PURCHASE_CONFIRMED) {
        purchase.order.id = 5;
        purchase.position = (struct log_position){6, 7};
    }
    if (state == PURCHASE_REFUSED) {
        purchase.refusal = REFUSAL_INSUFFICIENT_STOCK;
        purchase.short_lines = 1;
    }
    return purchase;
}

/* As purchase_in(from), made ready for `to`. */
static struct purchase purchase_for(enum purchase_state from, enum purchase_state to)
{
    struct purchase purchase = purchase_in(from), goal = purchase_in(to);
    purchase.order = goal.order;
    purchase.position = goal.position;
    purchase.refusal = goal.refusal;
    purchase.short_lines = goal.short_lines;
    return purchase;
}

/* The drawing. */
static bool is_drawn(enum purchase_state from, enum purchase_state to)
{
    switch (from) {
    case PURCHASE_QUEUED:
        return to == PURCHASE_ASKED || to == PURCHASE_UNAVAILABLE;
    case PURCHASE_ASKED:
        return to == PURCHASE_QUEUED || to == PURCHASE_RESERVED || to == PURCHASE_REFUSED ||
               to == PURCHASE_UNAVAILABLE;
    case PURCHASE_RESERVED:
        return to == PURCHASE_QUEUED || to == PURCHASE_CONFIRMED || to == PURCHASE_REFUSED ||
               to == PURCHASE_UNAVAILABLE;
    default:
        return false; /* answered: for good */
    }
}

struct move {
    struct purchase purchase;
    enum purchase_state to;
};

static void move_cb(void *context)
{
    struct move *move = context;
    purchase_move(&move->purchase, move->to);
}

/* In a child: it must die of a CHECK, or live. */
static void expect_move(struct purchase purchase, enum purchase_state to, bool allowed)
{
    struct move move = {purchase, to};
    struct child child;
    child_run(move_cb, &move, &child);
    if (allowed ? child.exit_code != 0 : child.exit_code != -SIGABRT || strstr(child.err, "CHECK(") == NULL) {
        fail_msg("%d -> %d: exit code %d, %s", (int)purchase.state, (int)to, child.exit_code, child.err);
    }
}

static void test_moves_of_the_drawing(void **state)
{
    (void)state;
    for (int from = 0; from < PURCHASE_STATES; from++) {
        for (int to = 0; to < PURCHASE_STATES; to++) {
            if (is_drawn((enum purchase_state)from, (enum purchase_state)to)) {
                struct purchase purchase = purchase_for((enum purchase_state)from, (enum purchase_state)to);
                purchase_move(&purchase, (enum purchase_state)to);
                assert_int_equal(purchase.state, to);
            }
        }
    }
}

static void test_other_moves_end_the_process(void **state)
{
    (void)state;
    for (int from = 0; from < PURCHASE_STATES; from++) {
        for (int to = 0; to < PURCHASE_STATES; to++) {
            if (!is_drawn((enum purchase_state)from, (enum purchase_state)to)) {
                expect_move(purchase_for((enum purchase_state)from, (enum purchase_state)to),
                            (enum purchase_state)to, false);
            }
        }
    }
    expect_move(purchase_in(PURCHASE_QUEUED), PURCHASE_STATES, false);
    struct purchase lost = purchase_in(PURCHASE_QUEUED);
    lost.state = PURCHASE_STATES;
    expect_move(lost, PURCHASE_ASKED, false);
}

/* A move that is allowed, of a purchase that then makes no sense. */
static void test_nonsense_ends_the_process(void **state)
{
    (void)state;
    struct purchase purchase = purchase_for(PURCHASE_ASKED, PURCHASE_RESERVED);
    expect_move(purchase, PURCHASE_RESERVED, true);
    purchase.order.id = 0;
    expect_move(purchase, PURCHASE_RESERVED, false);
    purchase = purchase_for(PURCHASE_ASKED, PURCHASE_RESERVED);
    purchase.order.remaining = -1; /* oversold */
    expect_move(purchase, PURCHASE_RESERVED, false);
    purchase = purchase_for(PURCHASE_ASKED, PURCHASE_RESERVED);
    purchase.position.epoch = 0;
    expect_move(purchase, PURCHASE_RESERVED, false);
    purchase = purchase_for(PURCHASE_ASKED, PURCHASE_RESERVED);
    purchase.refusal = REFUSAL_CUSTOMER_LIMIT;
    expect_move(purchase, PURCHASE_RESERVED, false);
    purchase = purchase_in(PURCHASE_ASKED);
    expect_move(purchase, PURCHASE_REFUSED, false); /* for no reason */
    purchase = purchase_in(PURCHASE_RESERVED);
    expect_move(purchase, PURCHASE_QUEUED, false); /* still with an order id */
    static const int64_t quantities[] = {0, -1, PURCHASE_QUANTITY_MAX + 1, INT64_MIN};
    for (size_t i = 0; i < 4; i++) {
        purchase = purchase_in(PURCHASE_QUEUED);
        purchase.order.quantity = quantities[i];
        expect_move(purchase, PURCHASE_ASKED, false);
    }
}

static void test_figures_stay_within_what_is_exact(void **state)
{
    (void)state;
    assert_true(CART_LINES_MAX * PRODUCT_PRICE_MAX * PURCHASE_QUANTITY_MAX < INT64_C(1) << 53);
    assert_true(PRODUCT_STOCK_MAX < 100000000000000); /* Lua prints larger ones with an exponent */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_moves_of_the_drawing),
        cmocka_unit_test(test_other_moves_end_the_process),
        cmocka_unit_test(test_nonsense_ends_the_process),
        cmocka_unit_test(test_figures_stay_within_what_is_exact),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
