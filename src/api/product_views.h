/* Private to api: a product as the API shows it. */
#ifndef DOORBUSTER_API_PRODUCT_VIEWS_H
#define DOORBUSTER_API_PRODUCT_VIEWS_H

#include "api_internal.h"

/* `stock` is the store's figure, derived of a bundle; `gate` is NULL where the gate was not asked: in lists. The caller's. */
cJSON *product_json(const struct store_product *product, int64_t stock, const struct gate_stock *gate);

#endif
