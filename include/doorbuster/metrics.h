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
    X(purchases_sold_out_at_once, "purchases refused by the worker's own sold-out mark, without Redis")      \
    X(purchases_sold_out_by_nodes, "purchases refused by what a majority of the lock nodes says, unlocked")  \
    X(purchases_stale, "purchases asked again because the gate's epoch was over")                            \
    X(purchases_in_doubt, "purchases whose answer from Redis was lost")                                      \
    X(purchases_settled, "purchases looked up in the store: in doubt, or reserved before a new epoch")       \
    X(attaches_asked, "attaches that a worker in doubt asked the recorder for")                              \
    X(sale_stalls, "times a worker stopped selling because the record did not follow")                       \
    X(connections_crowded_out, "connections closed at once because their address had too many")              \
    X(logins_refused_busy, "logins and registrations answered 429 because the queue was full")               \
    X(redis_links_lost, "connections to Redis that broke")                                                   \
    X(recorder_cancellations, "orders cancelled")                                                            \
    X(recorder_stock_changes, "openings, restocks, withdrawals, healings and price changes recorded")        \
    X(recorder_attaches, "attaches of the recorder to Redis")                                                \
    X(recorder_rebuilds, "attaches of the recorder that filled Redis anew from the store")                   \
    X(recorder_turns, "times this server's recorder took over from another server's")                        \
    X(recorder_rejected, "orders that did not fit the store")                                                \
    X(recorder_store_failures, "times the store could not record and the gate was closed")                   \
    X(recorder_healed, "products whose figure in Redis was put right")                                       \
    X(nodes_refilled, "lock nodes found empty again and told the stock of all products")                     \
    X(nodes_healed, "figures on lock nodes that nobody of ours had written, put right")                      \
    X(lock_acquisitions, "locks that a worker got from a majority of the lock nodes")                        \
    X(lock_retries, "attempts to get a lock after the first")                                                \
    X(lock_failures, "locks that a worker did not get in all its attempts, or in time")                      \
    X(lock_extensions, "locks extended while held")                                                          \
    X(lock_lost, "locks whose validity ended before they were released")                                     \
    X(lock_node_timeouts, "answers of lock nodes that did not come in time")                                 \
    X(lock_wakes, "attempts made at once because the lock was heard to be released")                         \
    X(lock_orphans_released, "locks of dead workers that their successors released, counted on each node")   \
    X(lock_nodes_restarted, "lock nodes found restarted, which then do not vote for a while")                \
    X(nodes_untold, "changes whose new stock no majority of the lock nodes could be told at once")           \
    X(processes_hung, "processes killed because they had stopped turning their loop")                        \
    X(breaker_opened, "times a breaker has left its closed state")                                           \
    X(log_lines_suppressed, "log lines that were counted instead of written, because they repeated")

/* X(outcome): doorbuster_purchases_total{outcome}. Each answered purchase has one. */
#define METRICS_OUTCOMES(X)                                                                                  \
    X(confirmed) X(sold_out) X(over_limit) X(closed) X(not_on_sale) X(rejected) X(repeated) X(unavailable)
/* X(limit): doorbuster_rate_limited_total{limit}: answers 429 of a token bucket. */
#define METRICS_LIMITS(X) X(account) X(address) X(sign_in)
/* X(queue): the queues of blocking work (work_pool.h). */
#define METRICS_QUEUES(X) X(password) X(store) X(write) X(change) X(settle) X(sell)
/* X(queue): doorbuster_shed_total{queue}: requests answered 429 or 503 early, because they would have waited too
 * long, or what they would have waited in was full; purchases also because a breaker is open. */
#define METRICS_SHEDS(X) X(purchase) METRICS_QUEUES(X)
/* X(breaker): doorbuster_breaker_state{breaker,state}: how many workers' breaker is in the state. */
#define METRICS_BREAKERS(X) X(redis) X(store) X(record) X(books)

/* clang-format off */
enum metrics_counter {
    METRICS_requests,         /* shown as what doorbuster_http_requests_total adds up to */
    METRICS_process_restarts, /* shown by process, from the board */
#define X(outcome) METRICS_purchases_##outcome,
    METRICS_OUTCOMES(X)
#undef X
#define X(limit) METRICS_rate_limited_##limit,
    METRICS_LIMITS(X)
#undef X
#define X(queue) METRICS_shed_##queue,
    METRICS_SHEDS(X)
#undef X
#define X(name, help) METRICS_##name,
    METRICS_COUNTERS(X)
#undef X
    METRICS_COUNT
};
/* clang-format on */

/* X(name, what it is called behind doorbuster_, help). Values are whole numbers, counted in buckets. Those whose name ends in _us are times, in
 * microseconds here and in seconds there. */
#define METRICS_HISTOGRAMS(X)                                                                                \
    X(gate_batch, "gate_batch_purchases",                                                                    \
      "purchases in a call to the selling script, or in a batch decided under locks")                        \
    X(recorder_batch, "recorder_batch_orders", "orders in a transaction of the recorder")                    \
    X(commit_us, "commit_duration_seconds", "how long a commit of orders to the store took")                 \
    X(queue_wait_us, "pool_queue_wait_seconds", "how long a job waited in the work pool before it ran")      \
    X(look_requests, "look_requests", "requests that one look at a product, or at the list, answered")       \
    X(lock_wait_us, "lock_wait_seconds", "how long after it was first wanted a product's lock was got")

enum metrics_histogram {
#define X(name, shown, help) METRICS_HISTOGRAM_##name,
    METRICS_HISTOGRAMS(X)
#undef X
        METRICS_HISTOGRAMS_COUNT
};

/* X(name, help). What is true now, in each process; /metrics shows the sum over all. */
#define METRICS_GAUGES(X)                                                                                    \
    X(http_connections, "open HTTP connections")                                                             \
    X(gate_pending, "purchases queued, asked or waiting for their record")                                   \
    X(event_streams, "open streams of /api/events")                                                          \
    X(recorder_active, "1 if this server's recorder records; 0: it stands by, another server's does")

/* clang-format off */
enum metrics_gauge {
#define X(name, help) METRICS_GAUGE_##name,
    METRICS_GAUGES(X)
#undef X
#define X(queue) METRICS_GAUGE_queue_##queue,
    METRICS_QUEUES(X)
#undef X
#define X(breaker) METRICS_GAUGE_breaker_##breaker,
    METRICS_BREAKERS(X)
#undef X
    METRICS_GAUGE_lock_nodes, /* shown as the worker sees them that sees the fewest vote */
    METRICS_GAUGE_lock_nodes_voting,
    METRICS_GAUGES_COUNT
};
/* clang-format on */

#define METRICS_ROUTES_MAX 64
#define METRICS_STATUSES_MAX 24
#define METRICS_BUCKETS_MAX 20

struct metrics_buckets {
    uint64_t counts[METRICS_BUCKETS_MAX], sum;
};

/* All numbers are atomic, relaxed. */
struct metrics_slot {
    _Alignas(64) uint64_t counters[METRICS_COUNT];
    int64_t gauges[METRICS_GAUGES_COUNT];
    struct metrics_buckets histograms[METRICS_HISTOGRAMS_COUNT];
    uint64_t answers[METRICS_ROUTES_MAX + 1]
                    [METRICS_STATUSES_MAX]; /* by route (the last: none matched) and status */
    struct metrics_buckets took_us[METRICS_ROUTES_MAX + 1];
    int used;        /* some process has counted here */
    int64_t beat_us; /* when its loop turned last, monotonic; atomic */
    pid_t beat_pid;  /* whose loop */
};

struct metrics_page {
    struct metrics_slot supervisor, recorder, workers[METRICS_WORKERS_MAX];
    struct board board;
    int64_t started_at_ms;
    int64_t certificate_ends_at_ms; /* atomic, the supervisor's; 0: no TLS */
    int log_level;                  /* enum log_level, atomic: the supervisor changes it for all */
};

/* Shared with every process forked afterwards. NULL: out of memory. Never freed: it lives as long as the server. */
struct metrics_page *metrics_page_new(void);

/* Where this process counts. Once, right after its fork; until then counts go nowhere visible. Its gauges begin with 0: what the last one left there is
 * not true any more. */
void metrics_use_slot(struct metrics_slot *slot);
/* Adds to a counter of this process's slot. Any thread, as all functions that count. */
void metrics_add(enum metrics_counter counter, uint64_t amount);
/* An answer to a request of this route (an index below METRICS_ROUTES_MAX, or -1: none matched). */
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

struct breaker;
/* How often a breaker of this process has opened since the last call. As metrics_add(). */
void metrics_count_openings(struct breaker *breaker);

/* Sum over all slots. */
uint64_t metrics_sum(const struct metrics_page *page, enum metrics_counter counter);

/* What the page does not know, for the text. */
struct metrics_names {
    const char *const *route_labels; /* of each route; several may share one: they are added up */
    size_t route_count;
    const char *version, *gate;
};
/* All of it as Prometheus text (version 0.0.4), to be freed with free(). NULL: out of memory. One thread a process. */
char *metrics_format(const struct metrics_page *page, const struct metrics_names *names, size_t *bytes);

#endif
