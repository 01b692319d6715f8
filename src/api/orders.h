/* Private to api: orders as the API reads and shows them. */
#ifndef DOORBUSTER_API_ORDERS_H
#define DOORBUSTER_API_ORDERS_H

#include "api_internal.h"

#define ORDER_BYTES 384      /* of one line, as text, whatever its figures */
#define ORDER_LINE_BYTES 144 /* of each in a cart, likewise */
#define ORDER_CART_BYTES (ORDER_BYTES + CART_LINES_MAX * ORDER_LINE_BYTES)

/* An order from the store with all that it has, components too. */
struct full_order {
    struct store_order order; /* its `more` points into `parts`, so do not copy it */
    struct order_part parts[ORDER_PARTS_MAX - 1];
};

/* On a pool thread. False: job->outcome says why. */
bool order_read(struct job *job, struct store *reader, int64_t id, struct full_order *out);
/* May the caller see it: an own one, or any for an admin, that was not rejected? */
bool order_is_visible(const struct store_order *order, const struct jwt_claims *claims);
/* Was a cart of several products bought? Components do not count. */
bool order_has_several_lines(const struct sale_order *order);
/* As JSON: with its lines under `items`, or as the one product that it is. Components are not shown. `cancelled_at_ms` 0: it was not. Returns
 * the length. ORDER_CART_BYTES, or ORDER_BYTES, is room enough for any order, even one that no script has written: of more lines than a cart
 * has the first are shown, and a price beyond all figures as the largest. */
size_t order_format(const struct sale_order *order, int64_t at_ms, int64_t cancelled_at_ms, bool as_cart,
                    char *out, size_t out_bytes);
/* On the loop's thread: answers with the order. */
void order_reply(struct http_request *request, unsigned status, const struct store_order *order,
                 bool as_cart);

#endif
