/* Who may buy, decided without a Redis: the rules of sell.lua in C, purchase by purchase, for a store that decides itself. Pure; any thread;
 * nothing here allocates.
 *
 * A shelf is what a batch of purchases is decided against: the products that it names with the components of its bundles, who of its buyers
 * has how many of those with a limit, and which of its idempotency keys have an order. Whoever sells puts all that on it first, then decides
 * one purchase after the other; each finds what those before it left. Then it writes down what has changed. */
#ifndef DOORBUSTER_SELLING_H
#define DOORBUSTER_SELLING_H

#include "doorbuster/product.h"
#include "doorbuster/sale.h"

#define SHELF_PRODUCTS_MAX SALES_LOG_PARTS_MAX /* each line another bundle, each with other components */
#define SHELF_OWNERS_MAX SALES_LOG_PARTS_MAX
#define SHELF_KEYS_MAX SALES_LOG_ORDERS_MAX
#define SHELF_SLOTS 8192 /* of a hash table; a power of two, never more than half full */
#define SHELF_KEY_SLOTS 512

struct shelf_product {
    struct sale_product terms; /* its stock is what is left after what was decided so far */
    bool on_sale;              /* it is known, and its sale was opened */
    bool moved;                /* by an order that was decided; of a bundle: sold */
    int64_t wanted;            /* of the purchase at hand: units that count for the limit */
};

struct shelf_owner {
    int64_t product_id, user_id;
    int64_t units; /* after what was decided so far */
    bool changed;
};

struct shelf_key {
    int64_t user_id;
    const char *key; /* borrowed */
    size_t key_bytes;
    int64_t order_id; /* 0: the key has none yet */
    bool is_new;      /* its order was decided here */
};

/* Large, and the caller's; begin with shelf_clear(). */
struct shelf {
    int64_t now_ms; /* for sale windows */
    int64_t last_order_id;
    struct shelf_product products[SHELF_PRODUCTS_MAX];
    struct shelf_owner owners[SHELF_OWNERS_MAX];
    struct shelf_key keys[SHELF_KEYS_MAX];
    size_t product_count, owner_count, key_count;
    /* Index of each and one; 0: free. */
    uint16_t product_slots[SHELF_SLOTS], owner_slots[SHELF_SLOTS], key_slots[SHELF_KEY_SLOTS];
};

/* What became of a purchase. Figures as in struct purchase. */
struct verdict {
    const struct sale_order *order; /* sold: with all its parts, in the room */
    enum refusal refusal;
    int64_t figure, refused_product_id, limit, requested, wait_ms;
    uint32_t short_lines;
    int64_t available[CART_LINES_MAX]; /* of each short line */
};

void shelf_clear(struct shelf *shelf, int64_t now_ms, int64_t last_order_id);

/* Each may be put once (CHECKed); what has its place already need not be looked up again. */
bool shelf_has_product(const struct shelf *shelf, int64_t product_id);
void shelf_put_product(struct shelf *shelf, const struct sale_product *terms, bool on_sale);
const struct shelf_product *shelf_product(const struct shelf *shelf, int64_t product_id); /* it is there */
bool shelf_has_owner(const struct shelf *shelf, int64_t product_id, int64_t user_id);
void shelf_put_owner(struct shelf *shelf, int64_t product_id, int64_t user_id, int64_t units);
bool shelf_has_key(const struct shelf *shelf, int64_t user_id, const char *key, size_t key_bytes);
/* `order_id` 0: it has no order. `key` must outlive the shelf's use. */
void shelf_put_key(struct shelf *shelf, int64_t user_id, const char *key, size_t key_bytes, int64_t order_id);

/* Decides one purchase, of which order.request, user_id, key and the lines are read. All that it is about must have been put (CHECKed). If it is
 * sold, its order is the next in `room` with its parts, for which there must be space (CHECKed), and the shelf is changed; else nothing is. */
void shelf_decide(struct shelf *shelf, const struct purchase *purchase, struct log_room *room,
                  struct verdict *out);

/* Tells the purchase: order id, and price and remaining of each line; or the refusal with its figures. Not at_ms and position; not the state. */
void purchase_take_verdict(struct purchase *purchase, const struct verdict *verdict);

#endif
