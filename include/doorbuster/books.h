/* The two books of a product side by side, at one position of the sales log. Blocking: pool threads and the command-line tools. */
#ifndef DOORBUSTER_BOOKS_H
#define DOORBUSTER_BOOKS_H

#include "doorbuster/gate_books.h"
#include "doorbuster/store.h"

struct books {
    struct store_product product; /* the store's side, at `position` */
    int64_t stock;                /* the store's figure; of a bundle what its components allow */
    int64_t
        component_stocks[BUNDLE_COMPONENTS_MAX]; /* of a bundle: theirs in the store, at the same position */
    struct log_position position;
    struct gate_stock gate; /* Redis's side: stock_at is at the same position */
    bool
        equal; /* the two agree, of a bundle on each component too (a product that is not open yet agrees if Redis does not know it) */
};

enum books_status { BOOKS_READ, BOOKS_NO_PRODUCT, BOOKS_STORE_FAILED, BOOKS_REDIS_FAILED };

/* Reads the store, then Redis, and again (a few times) if the log was trimmed in between. */
enum books_status books_read(struct store *reader, redisContext *redis, int64_t product_id,
                             struct books *out);

/* How many can be had by the store: of a bundle, what its components allow. `component_stocks` (NULL: not wanted) are filled in of a bundle. */
enum store_status books_store_stock(struct store *store, const struct store_product *product, int64_t *stock,
                                    int64_t component_stocks[BUNDLE_COMPONENTS_MAX]);

/* Waits until the store has the log up to there, or until `deadline_us` (clock_monotonic_us()): false. */
bool books_await_recorded(struct store *reader, struct log_position position, int64_t deadline_us);

/* Adds a product and opens its sale: row in the store, opening through the log, and waits until that is recorded. `product` as for
 * store_add_product; filled in on success. `actor`: the admin's user id, 0 for the tools. CATALOG_NO_COMPONENT: see STORE_NOT_FOUND there.
 * CATALOG_NOT_RECORDED: not by `deadline_us`. */
enum catalog_status {
    CATALOG_ADDED,
    CATALOG_NAME_TAKEN,
    CATALOG_NO_COMPONENT,
    CATALOG_STORE_FAILED,
    CATALOG_REDIS_FAILED,
    CATALOG_NOT_RECORDED
};
enum catalog_status catalog_add(struct store *writer, redisContext *redis, struct store_product *product,
                                int64_t actor, int64_t deadline_us);

/* Takes what is left of the product's stock off sale, through the log, and waits until that is recorded. A bundle has none of its own: nothing
 * is done. */
enum catalog_status catalog_withdraw_all(struct store *reader, redisContext *redis, int64_t product_id,
                                         int64_t actor, const char *note, int64_t deadline_us);

#endif
