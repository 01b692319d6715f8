/* On which terms products are sold, as one worker has learned them from the store, and what it last saw of their stock. Of the terms only the price,
 * which nobody here looks at, and the window ever change. The window decides nothing here but whether the nodes may be believed that a product is
 * sold out: then it must be as new as what they say, else it is learned anew (redlock_gate.c). Loop thread; nothing blocks. */
#ifndef DOORBUSTER_GATE_REDLOCK_TERMS_H
#define DOORBUSTER_GATE_REDLOCK_TERMS_H

#include "doorbuster/product.h"
#include "doorbuster/sales_log.h"

#define TERMS_MAX 4096 /* products; beyond, the one that was learned first is forgotten */

struct terms;

struct terms_entry {
    struct sale_product product;    /* but for the stock */
    struct log_position learned_at; /* the store was there, or further */
    bool is_outdated;               /* to be learned anew before anything is decided by it */
    int64_t seen_stock;             /* the last figure seen; INT64_MAX: none */
};

struct terms *terms_new(void);
void terms_free(struct terms **terms);
/* NULL: not known. Good until the next terms_learn(). */
struct terms_entry *terms_find(struct terms *terms, int64_t product_id);
void terms_learn(struct terms *terms, const struct sale_product *product, struct log_position at);
/* For what is not known: nothing. */
void terms_see_stock(struct terms *terms, int64_t product_id, int64_t stock);

#endif
