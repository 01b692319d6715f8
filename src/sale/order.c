/* Orders and carts: their parts, their price, filling a cart. Pure functions; any thread. They own nothing and fail only by saying that a line
 * does not fit. */
#include "doorbuster/order.h"

#include "doorbuster/check.h"

size_t order_part_count(const struct sale_order *order)
{
    return 1 + order->more_count;
}

struct order_part order_part_at(const struct sale_order *order, size_t i)
{
    CHECK(i < order_part_count(order));
    return i > 0 ? order->more[i - 1]
                 : (struct order_part){.product_id = order->product_id,
                                       .quantity = order->quantity,
                                       .unit_price = order->unit_price,
                                       .remaining = order->remaining};
}

int64_t order_total_price(const struct sale_order *order)
{
    int64_t total = 0;
    for (size_t i = 0; i < order_part_count(order); i++) {
        struct order_part part = order_part_at(order, i); /* a component's price is 0 */
        int64_t price;
        if (__builtin_mul_overflow(part.quantity, part.unit_price, &price) ||
            __builtin_add_overflow(total, price, &total)) {
            return INT64_MAX; /* an order from before the log's figures were bounded */
        }
    }
    return total;
}

static size_t line_count(const struct sale_order *order)
{
    size_t count = 0;
    for (size_t i = 0; i < order_part_count(order); i++) {
        count += !order_part_at(order, i).is_component;
    }
    return count;
}

static bool has_line(const struct sale_order *order, const struct order_part *line)
{
    for (size_t i = 0; i < order_part_count(order); i++) {
        struct order_part part = order_part_at(order, i);
        if (!part.is_component && part.product_id == line->product_id && part.quantity == line->quantity) {
            return true;
        }
    }
    return false;
}

/* No product has two lines: a cart adds them up. */
bool order_has_same_lines(const struct sale_order *a, const struct sale_order *b)
{
    if (line_count(a) != line_count(b)) {
        return false;
    }
    for (size_t i = 0; i < order_part_count(a); i++) {
        struct order_part part = order_part_at(a, i);
        if (!part.is_component && !has_line(b, &part)) {
            return false;
        }
    }
    return true;
}

static int64_t *quantity_of(struct sale_order *order, int64_t product_id)
{
    if (order->quantity > 0 && order->product_id == product_id) {
        return &order->quantity;
    }
    for (size_t i = 0; i < order->more_count; i++) {
        if (order->more[i].product_id == product_id) {
            return &order->more[i].quantity;
        }
    }
    return NULL;
}

enum cart_fault cart_add(struct sale_order *order, int64_t product_id, int64_t quantity)
{
    CHECK(quantity >= 1 && quantity <= PURCHASE_QUANTITY_MAX);
    int64_t *there = quantity_of(order, product_id);
    if (there != NULL) {
        if (*there + quantity > PURCHASE_QUANTITY_MAX) {
            return CART_TOO_MANY_UNITS;
        }
        *there += quantity;
    } else if (order->quantity == 0) {
        order->product_id = product_id;
        order->quantity = quantity;
    } else if (order->more_count == CART_LINES_MAX - 1) {
        return CART_TOO_MANY_LINES;
    } else {
        order->more[order->more_count++] =
            (struct order_part){.product_id = product_id, .quantity = quantity};
    }
    return CART_FITS;
}
