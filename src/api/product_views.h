/* Private to api: a product as the API reads and shows it. */
#ifndef DOORBUSTER_API_PRODUCT_VIEWS_H
#define DOORBUSTER_API_PRODUCT_VIEWS_H

#include "api_internal.h"

#include "doorbuster/books.h"

/* `stock` is the store's figure, derived of a bundle; `gate` is NULL where the gate was not asked: in lists. The caller's. */
cJSON *product_json(const struct store_product *product, int64_t stock, const struct gate_stock *gate);

/* Both books of a product, with what belongs to it. Pool thread; job->outcome says how it went. */
void product_read_books(struct job *job, struct desk *desk, struct store *reader, int64_t product_id,
                        struct books *out);

#endif
