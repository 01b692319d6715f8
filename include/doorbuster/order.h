/* An order: what one buyer gets in one purchase. One line, as nearly all have, or a cart of up to CART_LINES_MAX; a line may be a bundle,
 * whose components are taken with it. Pure functions, any thread; nothing here allocates. */
#ifndef DOORBUSTER_ORDER_H
#define DOORBUSTER_ORDER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PURCHASE_QUANTITY_MAX 1000 /* of one product in one purchase */
#define CART_LINES_MAX 20
#define BUNDLE_COMPONENTS_MAX 10
#define ORDER_PARTS_MAX (CART_LINES_MAX * (1 + BUNDLE_COMPONENTS_MAX)) /* of one order, its first line too */
#define PRODUCT_STOCK_MAX INT64_C(1000000000)
#define PRODUCT_PRICE_MAX INT64_C(100000000000) /* the price of the largest cart stays below 2^53 */

/* What a bundle is made of: so many units of a product that is no bundle itself. */
struct bundle_component {
    int64_t product_id;
    int64_t quantity; /* 1 to PURCHASE_QUANTITY_MAX */
};

/* One product in an order: a line of the cart, or what the bundle in the last line before it takes. */
struct order_part {
    int64_t product_id;
    int64_t quantity;
    int64_t unit_price; /* smallest currency unit; 0 of a component: its bundle's line has the price */
    int64_t remaining;  /* the product's stock after it; of a bundle: how many more its components allow */
    bool is_component;
};

struct sale_order {
    int64_t id;      /* dense from 1 */
    int64_t request; /* chosen by the worker; tells a buyer's request from every other */
    int64_t user_id;
    /* The first line. */
    int64_t product_id;
    int64_t quantity;   /* 1 to PURCHASE_QUANTITY_MAX */
    int64_t unit_price; /* smallest currency unit */
    int64_t remaining;  /* as in struct order_part */
    /* The parts behind it, in order; NULL and 0 for nearly all orders. Borrowed, like `key`. */
    struct order_part *more;
    size_t more_count;
    /* The buyer's idempotency key, not terminated; NULL: none. Borrowed from whoever made this struct: the payload of a decoded entry, the
     * request of a purchase. */
    const char *key;
    size_t key_bytes;
};

/* The parts of an order, the first line among them. */
size_t order_part_count(const struct sale_order *order);
struct order_part order_part_at(const struct sale_order *order, size_t i);
/* What the buyer pays: quantity x unit price over all parts; INT64_MAX if that is beyond all figures. */
int64_t order_total_price(const struct sale_order *order);
/* Do the two have the same lines, in whatever order? Components and prices do not count. */
bool order_has_same_lines(const struct sale_order *a, const struct sale_order *b);

/* Adds a line to a cart that is being filled: `order` begins with quantity 0 and `more` pointing at room for CART_LINES_MAX - 1 parts. A product
 * that is there already is added up. What does not fit leaves the order as it was. */
enum cart_fault { CART_FITS, CART_TOO_MANY_LINES, CART_TOO_MANY_UNITS };
enum cart_fault cart_add(struct sale_order *order, int64_t product_id, int64_t quantity);

#endif
