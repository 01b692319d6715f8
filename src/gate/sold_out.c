/* The marks of sold_out.h. Pure, but for the clock; the struct is its owner's, zeroed to begin with. */
#include "sold_out.h"

#include "doorbuster/clock.h"

#include <string.h>

#define MARK_LIFETIME_US 1000000

static size_t place_of(int64_t product_id)
{
    return (uint64_t)product_id % SOLD_OUT_MARKS;
}

void sold_out_mark(struct sold_out *sold_out, int64_t product_id)
{
    size_t place = place_of(product_id);
    sold_out->marks[place].product_id = product_id;
    sold_out->marks[place].until_us = clock_monotonic_us() + MARK_LIFETIME_US;
}

void sold_out_forget(struct sold_out *sold_out)
{
    sold_out->forgotten++;
    memset(sold_out->marks, 0, sizeof sold_out->marks);
}

static bool is_marked(const struct sold_out *sold_out, int64_t product_id)
{
    size_t place = place_of(product_id);
    return sold_out->marks[place].product_id == product_id &&
           clock_monotonic_us() < sold_out->marks[place].until_us;
}

bool sold_out_is_all_of(const struct sold_out *sold_out, const struct sale_order *order)
{
    for (size_t i = 0; i < order_part_count(order); i++) {
        if (!is_marked(sold_out, order_part_at(order, i).product_id)) {
            return false;
        }
    }
    return true;
}
