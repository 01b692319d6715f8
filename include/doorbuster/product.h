/* A product as those see it who decide on a purchase: what there is of it, and on which terms. Plain data. */
#ifndef DOORBUSTER_PRODUCT_H
#define DOORBUSTER_PRODUCT_H

#include "doorbuster/order.h"

struct sale_product {
    int64_t id;
    int64_t stock;                    /* not of a bundle: that has what its components allow */
    int64_t price;                    /* smallest currency unit, 1 to PRODUCT_PRICE_MAX */
    int64_t limit;                    /* units a customer may hold; 0: no limit */
    int64_t starts_at_ms, ends_at_ms; /* since 1970, as in struct sale_window; 0: none */
    struct bundle_component components[BUNDLE_COMPONENTS_MAX];
    size_t component_count; /* 0: no bundle */
};

#endif
