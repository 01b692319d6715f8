/* Counters of all processes in one shared page: a slot for each process, written by its owner alone, read by anyone without a lock.
 * A slot survives the death of its process; the one that replaces it goes on counting where it stopped. */
#ifndef DOORBUSTER_METRICS_H
#define DOORBUSTER_METRICS_H

#include "doorbuster/board.h"

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define METRICS_WORKERS_MAX 64

/* X(name, text for people and Prometheus' HELP). Each becomes doorbuster_<name>_total. */
#define METRICS_COUNTERS(X)                                                                                  \
    X(requests, "HTTP requests answered")                                                                    \
    X(responses_4xx, "answers with a 4xx status")                                                            \
    X(responses_5xx, "answers with a 5xx status")                                                            \
    X(purchases_confirmed, "purchases answered 201")                                                         \
    X(purchases_sold_out, "purchases refused for lack of stock")                                             \
    X(purchases_sold_out_at_once, "of these, refused by the worker's own sold-out mark, without Redis")      \
    X(purchases_sold_out_by_nodes, "of these, refused by what a majority of the lock nodes says, unlocked")  \
    X(purchases_over_limit, "purchases refused for the customer limit")                                      \
    X(purchases_closed, "purchases refused before or after their product's sale window")                     \
    X(purchases_not_on_sale, "purchases of a product that the gate does not know")                           \
    X(purchases_rejected, "purchases that Redis sold and the store refused")                                 \
    X(purchases_repeated, "purchases whose idempotency key had an order already")                            \
    X(purchases_unavailable, "purchases answered 503")                                                       \
    X(purchases_stale, "purchases asked again because the gate's epoch was over")                            \
    X(purchases_in_doubt, "purchases whose answer from Redis was lost")                                      \
    X(purchases_settled, "purchases looked up in the store: in doubt, or reserved before a new epoch")       \
    X(attaches_asked, "attaches that a worker in doubt asked the recorder for")                              \
    X(sale_stalls, "times a worker stopped selling because the record did not follow")                       \
    X(gate_calls, "calls to the selling script, or batches decided in the store under locks")                \
    X(gate_batched, "purchases in these")                                                                    \
    X(logins_refused_busy, "logins and registrations answered 429 because the queue was full")               \
    X(redis_links_lost, "connections to Redis that broke")                                                   \
    X(recorder_commits, "transactions of the recorder")                                                      \
    X(recorder_orders, "orders recorded")                                                                    \
    X(recorder_cancellations, "orders cancelled")                                                            \
    X(recorder_stock_changes, "openings, restocks, withdrawals, healings and price changes recorded")        \
    X(recorder_attaches, "attaches of the recorder to Redis")                                                \
    X(recorder_rebuilds, "of these, with Redis rebuilt from the store")                                      \
    X(recorder_rejected, "orders that did not fit the store")                                                \
    X(recorder_store_failures, "times the store could not record and the gate was closed")                   \
    X(recorder_healed, "products whose figure in Redis was put right")                                       \
    X(nodes_refilled, "lock nodes found empty again and told the stock of all products")                     \
    X(nodes_healed, "figures on lock nodes that nobody of ours had written, put right")                      \
    X(lock_acquisitions, "locks that a worker got from a majority of the lock nodes")                        \
    X(lock_wait_microseconds, "time that workers waited for these, in sum")                                  \
    X(lock_retries, "attempts to get a lock after the first")                                                \
    X(lock_failures, "locks that a worker did not get in all its attempts, or in time")                      \
    X(lock_extensions, "locks extended while held")                                                          \
    X(lock_lost, "locks whose validity ended before they were released")                                     \
    X(lock_node_timeouts, "answers of lock nodes that did not come in time")                                 \
    X(lock_wakes, "attempts made at once because the lock was heard to be released")                         \
    X(lock_orphans_released, "locks of dead workers that their successors released, counted on each node")   \
    X(lock_nodes_restarted, "lock nodes found restarted, which then do not vote for a while")                \
    X(nodes_untold, "changes whose new stock no majority of the lock nodes could be told at once")           \
    X(process_restarts, "processes that the supervisor started again")

enum metrics_counter {
#define X(name, help) METRICS_##name,
    METRICS_COUNTERS(X)
#undef X
        METRICS_COUNT
};

/* Upper edges of the buckets in which the waits for locks are counted, in microseconds; one more bucket holds the rest. */
#define METRICS_LOCK_WAIT_EDGES                                                                              \
    {                                                                                                        \
        200, 500, 1000, 2000, 5000, 10000, 20000, 50000, 100000, 200000, 500000, 1000000, 5000000            \
    }
#define METRICS_LOCK_WAIT_BUCKETS 14

/* X(name, edges and unit, help). Values are counted in buckets as whole numbers: microseconds, purchases, orders. */
#define METRICS_HISTOGRAMS(X)                                                                                \
    X(gate_batch, "purchases in a call to the selling script, or in a batch decided under locks")            \
    X(recorder_batch, "orders in a transaction of the recorder")                                             \
    X(commit_us, "how long a commit of orders to the store took")                                            \
    X(queue_wait_us, "how long a job waited in the work pool before it ran")

enum metrics_histogram {
#define X(name, help) METRICS_HISTOGRAM_##name,
    METRICS_HISTOGRAMS(X)
#undef X
        METRICS_HISTOGRAMS_COUNT
};

/* X(name, help). What is true now, in each process; /metrics shows the sum over all. */
#define METRICS_GAUGES(X)                                                                                    \
    X(connections, "open HTTP connections")                                                                  \
    X(gate_pending, "purchases queued, asked or waiting for their record")                                   \
    X(event_streams, "open streams of /api/events")                                                          \
    X(queue_password, "password jobs waiting or running")                                                    \
    X(queue_store, "store jobs waiting or running")                                                          \
    X(queue_change, "changes of stock and cancellations waiting or running")                                 \
    X(queue_settle, "purchases being looked up, waiting or running")                                         \
    X(breaker_redis, "state of the breaker of Redis: 0 closed, 1 half-open, 2 open")                         \
    X(breaker_store, "state of the breaker of the store: 0 closed, 1 half-open, 2 open")                     \
    X(breaker_record, "state of the breaker of the record: 0 closed, 1 half-open, 2 open")

enum metrics_gauge {
#define X(name, help) METRICS_GAUGE_##name,
    METRICS_GAUGES(X)
#undef X
        METRICS_GAUGES_COUNT
};

#define METRICS_ROUTES_MAX 64
#define METRICS_STATUSES_MAX 24
#define METRICS_BUCKETS_MAX 20

struct metrics_buckets {
    uint64_t counts[METRICS_BUCKETS_MAX], sum;
};

struct metrics_slot {
    _Alignas(64) uint64_t counters[METRICS_COUNT];                /* atomic; relaxed */
    uint64_t lock_waits[METRICS_LOCK_WAIT_BUCKETS], lock_wait_us; /* likewise */
    int64_t gauges[METRICS_GAUGES_COUNT];                         /* likewise */
    struct metrics_buckets histograms[METRICS_HISTOGRAMS_COUNT];  /* likewise */
    uint64_t answers[METRICS_ROUTES_MAX + 1]
                    [METRICS_STATUSES_MAX]; /* by route (the last: none matched) and status */
    struct metrics_buckets took_us[METRICS_ROUTES_MAX + 1];
    int64_t beat_us; /* when its loop turned last, monotonic; atomic */
    pid_t beat_pid;  /* whose loop */
};

struct metrics_page {
    struct metrics_slot supervisor, recorder, workers[METRICS_WORKERS_MAX];
    struct board board;
    int log_level; /* enum log_level, atomic: the supervisor changes it for all */
};

/* Shared with every process forked afterwards. NULL: out of memory. Never freed: it lives as long as the server. */
struct metrics_page *metrics_page_new(void);

/* Where this process counts. Once, right after its fork; until then counts go nowhere visible. */
void metrics_use_slot(struct metrics_slot *slot);
/* Adds to a counter of this process's slot. One thread a process: the one that owns the slot. */
void metrics_add(enum metrics_counter counter, uint64_t amount);
/* A product's lock that was got, this long after it was first wanted: counted in its bucket. As metrics_add(). */
void metrics_add_lock_wait(uint64_t wait_us);

/* An answer to a request of this route (an index below METRICS_ROUTES_MAX, or -1: none matched). As metrics_add(). */
void metrics_count_answer(int route, unsigned status, int64_t took_us);
void metrics_observe(enum metrics_histogram histogram, uint64_t value);
void metrics_set(enum metrics_gauge gauge, int64_t value);
/* "My loop turns", for the supervisor: a process that says nothing for too long is taken for dead. */
void metrics_beat(int64_t now_us);

/* Adds how long answers to the route took, over all slots. */
void metrics_add_up_took(const struct metrics_page *page, int route, struct metrics_buckets *io);
/* The value that a share of so many (0 to 1) is not above, interpolated within its bucket; -1: there are none. */
double metrics_quantile_us(const struct metrics_buckets *took, double share);
/* The largest of the workers' values. */
int64_t metrics_worst(const struct metrics_page *page, enum metrics_gauge gauge);

/* Sum over all slots. */
uint64_t metrics_sum(const struct metrics_page *page, enum metrics_counter counter);
/* All counters, and the histogram doorbuster_lock_wait_seconds, as Prometheus text. Returns the length; out is terminated; CHECKs that it fits. */
size_t metrics_format(const struct metrics_page *page, char *out, size_t out_bytes);

#endif
