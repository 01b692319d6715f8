/* On which terms products are sold, as one worker has learned them from the store, and what it last saw of their stock. Terms never change once a
 * product is made, the price aside, which nobody here looks at; so what is here is right as long as it is here. Loop thread; nothing blocks. */
#ifndef DOORBUSTER_GATE_REDLOCK_TERMS_H
#define DOORBUSTER_GATE_REDLOCK_TERMS_H

#include "doorbuster/product.h"

#define TERMS_MAX 4096 /* products; beyond, the one that was learned first is forgotten */

struct terms;

struct terms_entry {
    struct sale_product product; /* but for the stock */
    int64_t seen_stock;          /* the last figure seen; INT64_MAX: none */
};

struct terms *terms_new(void);
void terms_free(struct terms **terms);
/* NULL: not known. Good until the next terms_learn(). */
struct terms_entry *terms_find(struct terms *terms, int64_t product_id);
void terms_learn(struct terms *terms, const struct sale_product *product);
/* For what is not known: nothing. */
void terms_see_stock(struct terms *terms, int64_t product_id, int64_t stock);

#endif
