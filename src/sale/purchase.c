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

static bool makes_sense(const struct purchase *purchase)
{
    switch (purchase->state) {
    case PURCHASE_QUEUED:
    case PURCHASE_ASKED:
        return purchase->order.id == 0 && purchase->order.quantity >= 1 &&
               purchase->order.quantity <= PURCHASE_QUANTITY_MAX && purchase->refusal == REFUSAL_NONE;
    case PURCHASE_RESERVED:
    case PURCHASE_CONFIRMED:
        return purchase->order.id > 0 && purchase->order.remaining >= 0 && purchase->position.epoch > 0 &&
               purchase->refusal == REFUSAL_NONE;
    case PURCHASE_REFUSED:
        return purchase->refusal != REFUSAL_NONE;
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
