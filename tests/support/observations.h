/* How often something was counted in a histogram of a slot. */
#ifndef TEST_OBSERVATIONS_H
#define TEST_OBSERVATIONS_H

#include "doorbuster/metrics.h"

static inline int64_t observations(const struct metrics_slot *slot, enum metrics_histogram histogram)
{
    uint64_t count = 0;
    for (size_t i = 0; i < METRICS_BUCKETS_MAX; i++) {
        count += slot->histograms[histogram].counts[i];
    }
    return (int64_t)count;
}

#endif
