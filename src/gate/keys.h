/* Names of everything Doorbuster keeps in Redis. One hash tag: one slot of a Redis Cluster. */
#ifndef DOORBUSTER_GATE_KEYS_H
#define DOORBUSTER_GATE_KEYS_H

#include "doorbuster/gate_books.h"
#include "doorbuster/text.h"

#define KEY_HEAD                                                                                             \
    "{doorbuster}:head" /* hash: store, orders, at; while the gate is open epoch, sell, stock, cancel (script shas) */
#define KEY_LOG "{doorbuster}:log" /* stream: the sales log */
/* hash: stock (not of a bundle), price, limit, starts, ends (ms since 1970, 0: none), components ("<product>:<quantity> …"; only of a bundle),
 * sold_out ("<order> <ms>") */
#define KEY_PRODUCT_PREFIX "{doorbuster}:product:"
#define KEY_BUYERS_PREFIX "{doorbuster}:buyers:" /* hash: user -> units; only for products with a limit */
#define KEY_ORDERED_PREFIX                                                                                   \
    "{doorbuster}:idem:" /* string: order; "<user>:<idempotency key>" follows. Expires */
#define KEY_CHANGED_PREFIX                                                                                   \
    "{doorbuster}:change:" /* string: what a keyed change did; "<user>:<idempotency key>" follows. Expires */
#define KEY_CANCELLED_PREFIX                                                                                 \
    "{doorbuster}:cancelled:" /* string: the log position; "<order>" follows. Expires, long after the record */
/* string: "<stock> <epoch> <n>"; "<store>:<product>" follows. On the nodes of the Redlock gate; see node_stock.h */
#define KEY_NODE_STOCK_PREFIX "{doorbuster}:stock:"
#define KEY_LOCK_PREFIX                                                                                      \
    "{doorbuster}:lock:" /* string: the holder's token; the product follows. On the same nodes. Expires */
#define KEY_ALL "{doorbuster}:*"

/* One channel for all news, so that a worker needs one subscription and gets them in order:
 *   "recorded 4711 8 7-1042 55 56"
 * From the recorder of store 4711 (a channel is heard in every database of a Redis). The gate's epoch is 8: whatever waits from an older one is in the store now or was never sold (0: closed,
 * nothing is said of epochs). The store has the log up to 7-1042;
 * orders 55 and 56 it had to reject. Repeated while nothing happens, for workers that were not listening, and as a sign of life.
 * And another that stock.lua and cancel.lua write to: some product has new stock, or another window. */
#define CHANNEL_NEWS "{doorbuster}:news"
#define CHANNEL_STOCK "{doorbuster}:stock"
/* On each node of the Redlock gate: the name of a resource whose lock was let go there just now; or '?' and the name of one that somebody wants and
 * could not have. */
#define CHANNEL_LOCKS "{doorbuster}:locks"

/* What a change's key says that it was: "stock", "price", "window"; by enum change_kind. */
extern const char *const gate_change_words[];
/* The head's field for each script's sha. */
extern const char *const gate_script_fields[GATE_SCRIPTS];
/* A bundle's components as they stand in its hash; "" of others. Returns the length. */
#define GATE_COMPONENTS_BYTES (BUNDLE_COMPONENTS_MAX * 2 * TEXT_INT64_BYTES)
size_t gate_components_text(const struct sale_product *product, char out[GATE_COMPONENTS_BYTES]);

#endif
