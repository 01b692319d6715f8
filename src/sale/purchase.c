/* The states of a purchase: the table of allowed moves, and what must hold in each. Pure functions; any thread. A wrong move is a bug
 * of the caller and ends the process. */
#include "doorbuster/sale.h"

#include "doorbuster/check.h"

#include <stdbool.h>

static const bool moves[PURCHASE_STATES][PURCHASE_STATES] = {
    [PURCHASE_QUEUED] = {[PURCHASE_ASKED] = true, [PURCHASE_UNAVAILABLE] = true},
    [PURCHASE_ASKED] = {[PURCHASE_QUEUED] = true,
                        [PURCHASE_RESERVED] = true,
                        [PURCHASE_REFUSED] = true,
                        [PURCHASE_UNAVAILABLE] = true},
    [PURCHASE_RESERVED] = {[PURCHASE_QUEUED] = true,
                           [PURCHASE_CONFIRMED] = true,
                           [PURCHASE_REFUSED] = true,
                           [PURCHASE_UNAVAILABLE] = true},
};

static bool quantities_make_sense(const struct sale_order *order)
{
    for (size_t i = 0; i < order_part_count(order); i++) {
        int64_t quantity = order_part_at(order, i).quantity;
        if (quantity < 1 || quantity > PURCHASE_QUANTITY_MAX) {
            return false;
        }
    }
    return true;
}

static bool makes_sense(const struct purchase *purchase)
{
    switch (purchase->state) {
    case PURCHASE_QUEUED:
    case PURCHASE_ASKED:
        return purchase->order.id == 0 && quantities_make_sense(&purchase->order) &&
               purchase->refusal == REFUSAL_NONE;
    case PURCHASE_RESERVED:
    case PURCHASE_CONFIRMED:
        return purchase->order.id > 0 && purchase->order.remaining >= 0 && purchase->position.epoch > 0 &&
               purchase->refusal == REFUSAL_NONE;
    case PURCHASE_REFUSED:
        return purchase->refusal != REFUSAL_NONE &&
               (purchase->refusal == REFUSAL_INSUFFICIENT_STOCK) == (purchase->short_lines != 0);
    default:
        return true;
    }
}

void purchase_move(struct purchase *purchase, enum purchase_state next)
{
    CHECK(purchase->state < PURCHASE_STATES && next < PURCHASE_STATES);
    CHECK(moves[purchase->state][next]);
    purchase->state = next;
    CHECK(makes_sense(purchase));
}

void purchase_note_short(struct purchase *purchase, size_t line, int64_t available)
{
    struct sale_order *order = &purchase->order;
    CHECK(line < order_part_count(order) && line < CART_LINES_MAX);
    purchase->short_lines |= UINT32_C(1) << line;
    *(line == 0 ? &order->remaining : &order->more[line - 1].remaining) = available;
}
