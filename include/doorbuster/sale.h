/* A purchase: what a buyer asks for, what became of it, and the states in between. Pure; any thread.
 *
 *   new -> QUEUED --sent--> ASKED --sold--> RESERVED --recorded--> CONFIRMED      (201)
 *            |  ^             | |               | | |
 *            |  +----stale----+ +--refused--+   | | +--rejected by the store--+
 *            |  +---------------------------|---+ |                           v
 *            |    lost with Redis's memory  +-----|----------------------> REFUSED   (400, 404, 409; 201 if the key has an order)
 *            +--deadline--------------------------+----------------------> UNAVAILABLE (503; from ASKED too)
 *
 * Stale: the gate's epoch is over, nothing was sold. Lost: Redis forgot the reservation before the store had it; it was never promised.
 * Either way the purchase goes back to the queue. */
#ifndef DOORBUSTER_SALE_H
#define DOORBUSTER_SALE_H

#include "doorbuster/sales_log.h"

enum purchase_state {
    PURCHASE_QUEUED,
    PURCHASE_ASKED,
    PURCHASE_RESERVED,
    PURCHASE_CONFIRMED,
    PURCHASE_REFUSED,
    PURCHASE_UNAVAILABLE,
    PURCHASE_STATES
};

/* Why the gate or the store said no. The values are the words of sell.lua. */
enum refusal {
    REFUSAL_NONE = 0,
    REFUSAL_INSUFFICIENT_STOCK = -1, /* `short_lines` */
    REFUSAL_CUSTOMER_LIMIT = -2,     /* figure: units the customer has already */
    REFUSAL_NOT_ON_SALE = -3,        /* the gate does not know the product */
    REFUSAL_REJECTED = -4,           /* the store did not have it: a difference between the books */
    REFUSAL_ALREADY_ORDERED = -5,    /* figure: the order that this idempotency key stands for */
    REFUSAL_NOT_OPEN = -6,           /* figure: when the product's sale opens */
    REFUSAL_OVER = -7,               /* figure: when it was over */
    REFUSALS = 8                     /* one more than there are numbers */
};

struct purchase {
    enum purchase_state state;
    /* Asked: request, user_id, key, product_id and quantity of each line. The rest once it is reserved; of an order found in the store too, but
     * there and in here `more` has lines only, no components. */
    struct sale_order order;
    enum refusal refusal;
    int64_t figure;             /* see enum refusal */
    int64_t refused_product_id; /* the product that the refusal is about: one of the cart, or a component */
    int64_t limit;              /* REFUSAL_CUSTOMER_LIMIT: the limit */
    int64_t requested;          /* REFUSAL_CUSTOMER_LIMIT: units of that product in the whole cart */
    int64_t wait_ms;  /* REFUSAL_NOT_OPEN: until then, by Redis's clock. turned_away: come back after this */
    bool turned_away; /* UNAVAILABLE: the gate has not even tried */
    /* REFUSAL_INSUFFICIENT_STOCK: bit i: line i cannot be had. Its `remaining` says how many could, beside the lines before it. */
    uint32_t short_lines;
    int64_t at_ms; /* reserved at */
    struct log_position position;
};

/* Moves the purchase to `next`; CHECKs that the move is in the drawing and that the purchase then makes sense. */
void purchase_move(struct purchase *purchase, enum purchase_state next);
/* This line cannot be had, though `available` of its product could, 0 or more. */
void purchase_note_short(struct purchase *purchase, size_t line, int64_t available);

#endif
