/* setup's scenarios, as data: which products, and what bundles of them. Pure; they are never changed, setup works on a copy. */
#include "scenarios.h"

#include "doorbuster/check.h"

#include <string.h>

#define BLACK_FRIDAY .name = "Black Friday Limited Edition", .price = 49900
#define V2_STOCK 100

static const struct scenario scenarios[] = {
    {.name = "v1_basic",
     .takes_limit = true,
     .has_stock = true,
     .products = {{BLACK_FRIDAY, .stock = 100, .limit = 1}},
     .product_count = 1},
    {.name = "v1_stress",
     .takes_limit = true,
     .has_stock = true,
     .products = {{BLACK_FRIDAY, .stock = 100, .limit = 1}},
     .product_count = 1},
    {.name = "v3_redlock",
     .takes_limit = true,
     .has_stock = true,
     .products = {{BLACK_FRIDAY, .stock = 100, .limit = 1},
                  /* so that there are sales while lock nodes come and go */
                  {.name = "Black Friday Everyday", .price = 900, .stock = 1000000, .is_fixed = true}},
     .product_count = 2},
    {.name = "v4_production",
     .takes_limit = false,
     .has_stock = true,
     .products = {{.name = "Black Friday Everyday", .price = 900, .stock = 10000000, .is_fixed = true},
                  {BLACK_FRIDAY, .stock = 100}},
     .product_count = 2},
    {.name = "custom", .takes_limit = true, .products = {{BLACK_FRIDAY}}, .product_count = 1},
    {.name = "v2_multi",
     .has_stock = true,
     .products = {{.name = "V2 Product 1", .price = 1000, .stock = V2_STOCK},
                  {.name = "V2 Product 2", .price = 2000, .stock = V2_STOCK},
                  {.name = "V2 Product 3", .price = 3000, .stock = V2_STOCK},
                  {.name = "V2 Product 4", .price = 4000, .stock = V2_STOCK},
                  {.name = "V2 Product 5", .price = 5000, .stock = V2_STOCK},
                  {.name = "V2 Product 6", .price = 6000, .stock = V2_STOCK},
                  {.name = "V2 Product 7", .price = 7000, .stock = V2_STOCK},
                  {.name = "V2 Product 8", .price = 8000, .stock = V2_STOCK},
                  {.name = "V2 Product 9", .price = 9000, .stock = V2_STOCK},
                  {.name = "V2 Product 10", .price = 10000, .stock = V2_STOCK, .limit = 1},
                  {.name = "V2 Bundle 1",
                   .price = 2500,
                   .components = {{.product = 0, .quantity = 1}, {.product = 1, .quantity = 1}},
                   .component_count = 2},
                  {.name = "V2 Bundle 2",
                   .price = 11000,
                   .components = {{.product = 1, .quantity = 1},
                                  {.product = 2, .quantity = 2},
                                  {.product = 3, .quantity = 1}},
                   .component_count = 3}},
     .product_count = 12},
};

const struct scenario *scenario_find(const char *name)
{
    for (size_t i = 0; i < sizeof scenarios / sizeof scenarios[0]; i++) {
        if (strcmp(scenarios[i].name, name) == 0) {
            return &scenarios[i];
        }
    }
    return NULL;
}

void scenario_set_stock(struct scenario *scenario, int64_t stock)
{
    for (size_t i = 0; i < scenario->product_count; i++) {
        if (scenario->products[i].component_count == 0 && !scenario->products[i].is_fixed) {
            scenario->products[i].stock = stock;
        }
    }
    scenario->has_stock = true;
}

void scenario_set_limit(struct scenario *scenario, int64_t limit)
{
    CHECK(scenario->takes_limit);
    for (size_t i = 0; i < scenario->product_count; i++) {
        if (!scenario->products[i].is_fixed) {
            scenario->products[i].limit = limit;
        }
    }
}
