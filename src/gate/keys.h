/* Names of everything Doorbuster keeps in Redis. All of a shop's have one hash tag, "{doorbuster}" by default: one slot of a Redis Cluster. */
#ifndef DOORBUSTER_GATE_KEYS_H
#define DOORBUSTER_GATE_KEYS_H

#include "doorbuster/gate_books.h"
#include "doorbuster/gate_place.h"
#include "doorbuster/text.h"

#define GATE_KEY_BYTES (GATE_SHOP_BYTES + 16) /* of each of these names, terminated */

/* Made once, by gate_use_shop(); until then they are the default shop's. Those that end in a colon are prefixes. */
struct gate_keys {
    /* hash: store, orders, at; while the gate is open epoch, sell, stock, cancel (script shas), master (replication id) */
    char head[GATE_KEY_BYTES];
    char log[GATE_KEY_BYTES]; /* stream: the sales log */
    /* "<product>": hash: stock (not of a bundle), price, limit, starts, ends (ms since 1970, 0: none), components ("<product>:<quantity> …"; only of a
     * bundle), sold_out ("<order> <ms>") */
    char product[GATE_KEY_BYTES];
    char buyers[GATE_KEY_BYTES];    /* "<product>": hash: user -> units; only for products with a limit */
    char ordered[GATE_KEY_BYTES];   /* "<user>:<idempotency key>": string: order. Expires */
    char changed[GATE_KEY_BYTES];   /* "<user>:<idempotency key>": string: what a keyed change did. Expires */
    char cancelled[GATE_KEY_BYTES]; /* "<order>": string: the log position. Expires, long after the record */
    /* On the nodes of the Redlock gate. "<store>:<product>": string: "<stock> <epoch> <n>"; see node_stock.h */
    char node_stock[GATE_KEY_BYTES];
    char lock[GATE_KEY_BYTES];     /* "<product>": string: the holder's token. On the same nodes. Expires */
    char recorder[GATE_KEY_BYTES]; /* string: who records, see gate_lease.h. Expires */
    char all[GATE_KEY_BYTES];      /* a pattern */

    /* One channel for all news, so that a worker needs one subscription and gets them in order:
     *   "recorded 4711 8 7-1042 55 56"
     * From the recorder of store 4711 (a channel is heard in every database of a Redis). The gate's epoch is 8: whatever waits from an older one is in the
     * store now or was never sold (0: closed, nothing is said of epochs). The store has the log up to 7-1042; orders 55 and 56 it had to reject. Repeated
     * while nothing happens, for workers that were not listening, and as a sign of life. */
    char news[GATE_KEY_BYTES];
    /* Another, that stock.lua and cancel.lua write to: some product has new stock, or another window. */
    char stock_news[GATE_KEY_BYTES];
    /* On each node of the Redlock gate: the name of a resource whose lock was let go there just now; or '?' and the name of one that somebody wants and
     * could not have. */
    char lock_news[GATE_KEY_BYTES];
};
extern struct gate_keys gate_keys;

/* What a change's key says that it was: "stock", "price", "window"; by enum change_kind. */
extern const char *const gate_change_words[];
/* The head's field for each script's sha. */
extern const char *const gate_script_fields[GATE_SCRIPTS];
/* A bundle's components as they stand in its hash; "" of others. Returns the length. */
#define GATE_COMPONENTS_BYTES (BUNDLE_COMPONENTS_MAX * 2 * TEXT_INT64_BYTES)
size_t gate_components_text(const struct sale_product *product, char out[GATE_COMPONENTS_BYTES]);

#endif
