/* What setup can put on sale: scenarios as data. */
#ifndef DOORBUSTER_CLI_SCENARIOS_H
#define DOORBUSTER_CLI_SCENARIOS_H

#include "doorbuster/order.h"

#define SCENARIO_PRODUCTS_MAX 16
#define SCENARIO_COMPONENTS_MAX 3

struct scenario_component {
    size_t product; /* its place in the scenario's list, before the bundle's own */
    int64_t quantity;
};

struct scenario_product {
    const char *name;
    int64_t price, limit;
    int64_t stock; /* of a bundle 0 */
    bool is_fixed; /* --stock and --limit are not for it */
    struct scenario_component components[SCENARIO_COMPONENTS_MAX];
    size_t component_count; /* 0: not a bundle */
};

struct scenario {
    const char *name;
    bool takes_limit; /* --limit may change its customer limit */
    bool has_stock;   /* false: --stock must say */
    size_t product_count;
    struct scenario_product products[SCENARIO_PRODUCTS_MAX]; /* bundles behind what they are made of */
};

#define SCENARIO_NAMES "v1_basic, v1_stress, v2_multi, v3_redlock, v4_production or custom"

/* NULL: there is none of this name. */
const struct scenario *scenario_find(const char *name);
/* Gives every product that has a stock of its own this one; the customer limit of a scenario that takes one. Not those that are fixed. */
void scenario_set_stock(struct scenario *scenario, int64_t stock);
void scenario_set_limit(struct scenario *scenario, int64_t limit);

#endif
