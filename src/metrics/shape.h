/* Private to metrics: the edges of the histograms' buckets, and the slots of a page one after another. */
#ifndef METRICS_SHAPE_H
#define METRICS_SHAPE_H

#include "doorbuster/metrics.h"

/* Upper edges, ascending; one more bucket holds the rest. */
struct metrics_shape {
    size_t edges;
    bool is_time; /* microseconds */
    uint64_t edge[METRICS_BUCKETS_MAX - 1];
};

extern const struct metrics_shape metrics_times; /* of everything that is a time */
const struct metrics_shape *metrics_shape_of(enum metrics_histogram histogram);

/* HTTP statuses that are counted one by one; 0, the last: all others. */
extern const unsigned metrics_statuses[METRICS_STATUSES_MAX];

/* The slots in which somebody has counted. NULL: there are no more. */
#define METRICS_SLOTS (METRICS_WORKERS_MAX + 2)
const struct metrics_slot *metrics_next_slot(const struct metrics_page *page, size_t *next);

/* Adds what a slot has to *io. */
void metrics_add_up_buckets(const struct metrics_buckets *buckets, struct metrics_buckets *io);

#endif
