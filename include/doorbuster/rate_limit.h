/* Rate limits by a table of atomics in memory that all processes share: a token bucket a key, each one number (GCRA).
 *
 * Any thread, any process; no locks, nothing allocated, no system call. A key is a hash with a secret in it, so that nobody can choose keys that
 * meet. A table that is too small forgets, the emptiest buckets first, and lets people in; it never keeps anybody out. */
#ifndef DOORBUSTER_RATE_LIMIT_H
#define DOORBUSTER_RATE_LIMIT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct rate_limit {
    uint64_t interval; /* until one more is let in, in the table's unit of time */
    uint64_t burst;    /* so many at once */
};

/* How long an empty bucket takes to become full. */
int64_t rate_limit_window_us(const struct rate_limit *limit);

struct rate_limit_table;

struct rate_limit_verdict {
    bool allowed;
    uint64_t remaining;     /* so many more at once */
    int64_t retry_after_us; /* not allowed: until one more is */
    int64_t full_after_us;  /* until the whole burst is there again */
};

/* "50/s", "10/min", "50/s:100" (a burst of 100; otherwise as many as in the period). False: it is none of these. */
bool rate_limit_parse(const char *text, struct rate_limit *out);

/* Shared with every process forked afterwards; `buckets` is a power of two, 8 bytes each. NULL: no memory. Never freed. */
struct rate_limit_table *rate_limit_table_new(size_t buckets);

/* One more for this key, now (monotonic microseconds). */
struct rate_limit_verdict rate_limit_take(struct rate_limit_table *table, const struct rate_limit *limit,
                                          uint64_t key, int64_t now_us);
/* Takes back one that was let in. */
void rate_limit_give_back(struct rate_limit_table *table, const struct rate_limit *limit, uint64_t key,
                          int64_t now_us);
/* How it stands; `allowed`: one more would be. */
struct rate_limit_verdict rate_limit_look(struct rate_limit_table *table, const struct rate_limit *limit,
                                          uint64_t key, int64_t now_us);

#endif
