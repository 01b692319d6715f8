/* A change by an admin, a buyer who cancels, or the system: what became of it, whichever gate made it. Plain data. */
#ifndef DOORBUSTER_CHANGE_H
#define DOORBUSTER_CHANGE_H

#include "doorbuster/sales_log.h"

enum change_outcome {
    CHANGE_MADE,
    /* open already; cancelled already; the idempotency key has done something: see the result */
    CHANGE_MADE_BEFORE,
    CHANGE_CLOSED,     /* no such product; or it is a bundle, whose stock is its components' */
    CHANGE_SHORT,      /* less is in stock than is to be withdrawn */
    CHANGE_FULL,       /* the stock would be above PRODUCT_STOCK_MAX */
    CHANGE_NEVER_OPEN, /* of a window: it would be over before it opens */
    CHANGE_FAILED      /* the gate or the store: whoever asked says where the reason is */
};

enum change_kind { CHANGE_OF_STOCK, CHANGE_OF_PRICE, CHANGE_OF_WINDOW };

struct change_result {
    /* of the entry; of the earlier one that a key stands for, or that cancelled the order */
    struct log_position position;
    int64_t stock; /* the product's afterwards; of a price: the price before; of a window: when it is over */
    /* What the idempotency key stands for: not necessarily what was asked now. */
    int64_t product_id, figure; /* figure: the delta, or the new price; of a window: when it opens */
    enum change_kind kind;
};

/* The stock of each product that one entry of the store has moved, bundles aside: what the nodes of the Redlock gate are told. */
struct stock_moves {
    struct log_position position; /* of the entry; {0,0}: nothing was moved */
    size_t count;
    struct stock_move {
        int64_t product_id, stock; /* units, afterwards */
    } each[SALES_LOG_PARTS_MAX];
};

#endif
