/* "This product has nothing left": what a worker has just been told by the gate, so that it refuses the next ones itself. A table of fixed size,
 * in which a newer mark takes an older one's place; a mark that is missing costs one call, one that is wrong would refuse a sale, so each
 * is believed for a second only, and all are forgotten whenever any product may have more. Loop thread. */
#ifndef DOORBUSTER_GATE_SOLD_OUT_H
#define DOORBUSTER_GATE_SOLD_OUT_H

#include "doorbuster/order.h"

#include <stdbool.h>
#include <stdint.h>

#define SOLD_OUT_MARKS 256

struct sold_out {
    struct {
        int64_t product_id;
        int64_t until_us;
    } marks[SOLD_OUT_MARKS];
    /* how many times: a mark is right only if this has not changed since its product was looked at */
    uint64_t forgotten;
};

void sold_out_mark(struct sold_out *sold_out, int64_t product_id);
void sold_out_forget(struct sold_out *sold_out);
/* Is there nothing left of any line of an order that is not sold yet? Then that is the answer, whatever else a cart has. */
bool sold_out_is_all_of(const struct sold_out *sold_out, const struct sale_order *order);

#endif
