/* The two books of a product side by side, at one position of the sales log, and the changes that must reach both, whichever gate it is. Blocking:
 * pool threads and the command-line tools. */
#ifndef DOORBUSTER_BOOKS_H
#define DOORBUSTER_BOOKS_H

#include "doorbuster/gate_books.h"
#include "doorbuster/node_books.h"
#include "doorbuster/store.h"

#include <cjson/cJSON.h>

/* The gate's side of the books: one thread's connections to it, made when first needed. */
struct gate_side {
    const struct gate_place *place; /* must outlive it */
    int64_t store_id;               /* GATE_REDLOCK: whose figures on the nodes */
    int timeout_ms;
    redisContext *redis;      /* GATE_LUA */
    struct node_books *nodes; /* GATE_REDLOCK */
    /* changes that no majority of the nodes was told of: whoever owns it counts and clears */
    unsigned untold;
};
/* Connected, or connected anew if the connection is dead. Of the Redlock gate it only makes ready: nodes that are away are no failure, and what needs a
 * majority says so itself. False: `error` says why. */
bool gate_side_ready(struct gate_side *side, char *error, size_t error_bytes);
/* A desk of a pool lets a dead connection go before it rests. */
void gate_side_rest(struct gate_side *side);
void gate_side_close(struct gate_side *side);
/* After a failure of the gate's side: what failed. */
const char *gate_side_failure(const struct gate_side *side);

struct books {
    struct store_product product; /* the store's side, at `position` */
    int64_t stock;                /* the store's figure; of a bundle what its components allow */
    int64_t
        component_stocks[BUNDLE_COMPONENTS_MAX]; /* of a bundle: theirs in the store, at the same position */
    struct log_position position;                /* of the Redlock gate: the version that the nodes have */
    struct gate_stock gate;                      /* the gate's side: stock_at is at the same position */
    /* the two agree, of a bundle on each component too (a product that is not open yet agrees if Redis does not know it) */
    bool equal;
};

enum books_status { BOOKS_READ, BOOKS_NO_PRODUCT, BOOKS_STORE_FAILED, BOOKS_GATE_FAILED };

/* Of the Lua gate: reads the store, then Redis at the store's position, and again (a few times) if the log was trimmed in between.
 * Of the Redlock gate: reads what a majority of the nodes says, then what the store's stock was at that version (store_stock_at), and again (a
 * few times) if the nodes do not know the product yet. `available` is the store's live figure, `in_flight` by how much the nodes are behind it. */
enum books_status books_read(struct store *reader, struct gate_side *side, int64_t product_id,
                             struct books *out);

/* --- changes ---------------------------------------------------------------------------------------------------------------------- */
/* As gate_change_stock() and the others; of the Redlock gate the store makes the change (store_change_stock()), and a majority of the
 * nodes is told before it returns, or they are left to the keeper, which is logged. CHANGE_FAILED: books_failure() says why.
 * `writer` is used by the Redlock gate alone, and may be NULL for the Lua gate. */
enum change_outcome books_change_stock(struct gate_side *side, struct store *writer,
                                       const struct stock_change *change, const struct sale_product *opening,
                                       int patience_ms, struct change_result *result);
enum change_outcome books_change_price(struct gate_side *side, struct store *writer,
                                       const struct price_change *change, int patience_ms,
                                       struct change_result *result);
/* Of the Redlock gate the nodes are told the same stock once more, with the change's position: from a newer figure than their lesson the workers
 * see that what they have learned may be out of date. */
enum change_outcome books_change_window(struct gate_side *side, struct store *writer,
                                        const struct window_change *change, int patience_ms,
                                        struct change_result *result);
/* The last CHANGE_FAILED of this thread, in words. */
const char *books_failure(void);
/* Tells the nodes; false, and logged, if there was no majority: the keeper will. */
bool books_tell_nodes(struct gate_side *side, const struct stock_moves *moves);

/* How many can be had by the store: of a bundle, what its components allow. `component_stocks` (NULL: not wanted) are filled in of a bundle. */
enum store_status books_store_stock(struct store *store, const struct store_product *product, int64_t *stock,
                                    int64_t component_stocks[BUNDLE_COMPONENTS_MAX]);

/* The product as the gate is to have it. */
struct sale_product books_sale_product(const struct store_product *product);
/* Of the Redlock gate: the store's stock of a product, no bundle, at the position that the nodes name. That is the entry that moved it, whose row in
 * the audit log is found at once; any other position is looked up by store_stock_at(), and if it is too far back for that, today's stock
 * counts, for then nothing should have moved it since. *known is false if the store has never been there. */
enum store_status books_stock_at(struct store *store, int64_t product_id, struct log_position position,
                                 bool *known, int64_t *stock);

/* What a bundle is made of, as the API shows it: [{product_id, quantity}]. The caller's. */
cJSON *books_components_json(const struct store_product *product);

/* Waits until the store has the log up to there, or until `deadline_us` (clock_monotonic_us()): false. */
bool books_await_recorded(struct store *reader, struct log_position position, int64_t deadline_us);

/* Adds a product and opens its sale: row in the store, opening through the log, and waits until that is recorded. `product` as for
 * store_add_product; filled in on success. `actor`: the admin's user id, 0 for the tools. CATALOG_NO_COMPONENT: see STORE_NOT_FOUND there.
 * CATALOG_NOT_RECORDED: not by `deadline_us`. With a `request` (NULL: none) whose key has made a product before: CATALOG_REPEATED, or
 * CATALOG_KEY_REUSED if it had asked for something else; product->id is that one's. */
enum catalog_status {
    CATALOG_ADDED,
    CATALOG_REPEATED,
    CATALOG_KEY_REUSED,
    CATALOG_NAME_TAKEN,
    CATALOG_NO_COMPONENT,
    CATALOG_STORE_FAILED,
    CATALOG_GATE_FAILED,
    CATALOG_NOT_RECORDED
};
enum catalog_status catalog_add(struct store *writer, struct gate_side *side, struct store_product *product,
                                int64_t actor, const struct store_product_request *request,
                                int64_t deadline_us);

/* Takes what is left of the product's stock off sale, through the log, and waits until that is recorded. A bundle has none of its own: nothing
 * is done. */
enum catalog_status catalog_withdraw_all(struct store *writer, struct gate_side *side, int64_t product_id,
                                         int64_t actor, const char *note, int64_t deadline_us);

#endif
