/* The shared page of counters. Every process: its loop's thread writes its own slot, /metrics in any worker reads all of them. Owns the
 * mapping; fails only when there is no memory for it. */
#include "doorbuster/metrics.h"

#include "doorbuster/check.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

static struct metrics_slot unseen;
static struct metrics_slot *own_slot = &unseen;

static const char *const names[METRICS_COUNT] = {
#define X(name, help) #name,
    METRICS_COUNTERS(X)
#undef X
};
static const char *const helps[METRICS_COUNT] = {
#define X(name, help) help,
    METRICS_COUNTERS(X)
#undef X
};

static const uint64_t lock_wait_edges_us[] = METRICS_LOCK_WAIT_EDGES;
_Static_assert(sizeof lock_wait_edges_us / sizeof lock_wait_edges_us[0] + 1 == METRICS_LOCK_WAIT_BUCKETS,
               "a bucket an edge, and one for the rest");

struct metrics_page *metrics_page_new(void)
{
    void *page =
        mmap(NULL, sizeof(struct metrics_page), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    return page == MAP_FAILED ? NULL : page;
}

void metrics_use_slot(struct metrics_slot *slot)
{
    own_slot = slot;
}

void metrics_add(enum metrics_counter counter, uint64_t amount)
{
    /* Nearly always the only writer; in a rolling restart a worker and its successor share a slot for a moment. */
    __atomic_fetch_add(&own_slot->counters[counter], amount, __ATOMIC_RELAXED);
}

void metrics_add_lock_wait(uint64_t wait_us)
{
    size_t bucket = 0;
    while (bucket < METRICS_LOCK_WAIT_BUCKETS - 1 && wait_us > lock_wait_edges_us[bucket]) {
        bucket++;
    }
    __atomic_fetch_add(&own_slot->lock_waits[bucket], 1, __ATOMIC_RELAXED);
    __atomic_fetch_add(&own_slot->lock_wait_us, wait_us, __ATOMIC_RELAXED);
}

static const uint64_t took_edges_us[] = {100,    250,    500,     1000,    2000,   3000,
                                         5000,   7500,   10000,   20000,   50000,  100000,
                                         200000, 500000, 1000000, 2000000, 5000000};
#define TOOK_EDGES (sizeof took_edges_us / sizeof took_edges_us[0])

static void count_took(struct metrics_buckets *buckets, uint64_t took_us)
{
    size_t bucket = 0;
    while (bucket < TOOK_EDGES && took_us > took_edges_us[bucket]) {
        bucket++;
    }
    __atomic_fetch_add(&buckets->counts[bucket], 1, __ATOMIC_RELAXED);
    __atomic_fetch_add(&buckets->sum, took_us, __ATOMIC_RELAXED);
}

void metrics_count_answer(int route, unsigned status, int64_t took_us)
{
    size_t row = route < 0 || route >= METRICS_ROUTES_MAX ? METRICS_ROUTES_MAX : (size_t)route;
    count_took(&own_slot->took_us[row], took_us > 0 ? (uint64_t)took_us : 0);
    metrics_add(METRICS_requests, 1);
    if (status >= 500) {
        metrics_add(METRICS_responses_5xx, 1);
    } else if (status >= 400) {
        metrics_add(METRICS_responses_4xx, 1);
    }
}

void metrics_observe(enum metrics_histogram histogram, uint64_t value)
{
    __atomic_fetch_add(&own_slot->histograms[histogram].sum, value, __ATOMIC_RELAXED);
}

void metrics_set(enum metrics_gauge gauge, int64_t value)
{
    __atomic_store_n(&own_slot->gauges[gauge], value, __ATOMIC_RELAXED);
}

void metrics_beat(int64_t now_us)
{
    __atomic_store_n(&own_slot->beat_pid, getpid(), __ATOMIC_RELAXED);
    __atomic_store_n(&own_slot->beat_us, now_us, __ATOMIC_RELEASE);
}

void metrics_add_up_took(const struct metrics_page *page, int route, struct metrics_buckets *io)
{
    for (size_t i = 0; i < METRICS_WORKERS_MAX; i++) {
        const struct metrics_buckets *took = &page->workers[i].took_us[route];
        for (size_t j = 0; j < METRICS_BUCKETS_MAX; j++) {
            io->counts[j] += __atomic_load_n(&took->counts[j], __ATOMIC_RELAXED);
        }
        io->sum += __atomic_load_n(&took->sum, __ATOMIC_RELAXED);
    }
}

double metrics_quantile_us(const struct metrics_buckets *took, double share)
{
    uint64_t count = 0, below = 0;
    for (size_t i = 0; i <= TOOK_EDGES; i++) {
        count += took->counts[i];
    }
    if (count == 0) {
        return -1;
    }
    double rank = share * (double)count;
    size_t bucket = 0;
    while (bucket < TOOK_EDGES && (double)(below + took->counts[bucket]) < rank) {
        below += took->counts[bucket++];
    }
    double from = bucket == 0 ? 0 : (double)took_edges_us[bucket - 1];
    if (bucket == TOOK_EDGES) {
        return from; /* the bucket has no upper edge */
    }
    double into = took->counts[bucket] > 0 ? (rank - (double)below) / (double)took->counts[bucket] : 0;
    return from + into * ((double)took_edges_us[bucket] - from);
}

int64_t metrics_worst(const struct metrics_page *page, enum metrics_gauge gauge)
{
    int64_t worst = 0;
    for (size_t i = 0; i < METRICS_WORKERS_MAX; i++) {
        int64_t value = __atomic_load_n(&page->workers[i].gauges[gauge], __ATOMIC_RELAXED);
        worst = value > worst ? value : worst;
    }
    return worst;
}

static uint64_t read_counter(const struct metrics_slot *slot, enum metrics_counter counter)
{
    return __atomic_load_n(&slot->counters[counter], __ATOMIC_RELAXED);
}

uint64_t metrics_sum(const struct metrics_page *page, enum metrics_counter counter)
{
    uint64_t sum = read_counter(&page->supervisor, counter) + read_counter(&page->recorder, counter);
    for (size_t i = 0; i < METRICS_WORKERS_MAX; i++) {
        sum += read_counter(&page->workers[i], counter);
    }
    return sum;
}

/* --- Prometheus text -------------------------------------------------------------------------------------------------------------- */
struct text {
    char *out;
    size_t bytes, used;
};

__attribute__((format(printf, 2, 3))) static void append(struct text *text, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    int wrote = vsnprintf(text->out + text->used, text->bytes - text->used, format, arguments);
    va_end(arguments);
    CHECK(wrote > 0 && (size_t)wrote < text->bytes - text->used);
    text->used += (size_t)wrote;
}

static uint64_t sum_lock_waits(const struct metrics_page *page, size_t bucket)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < METRICS_WORKERS_MAX; i++) {
        sum += __atomic_load_n(&page->workers[i].lock_waits[bucket], __ATOMIC_RELAXED);
    }
    return sum;
}

/* Only workers take locks. The count is that of the buckets, so that the two agree while others go on counting. */
static void append_lock_waits(struct text *text, const struct metrics_page *page)
{
    static const char name[] = "doorbuster_lock_wait_seconds";
    uint64_t count = 0, sum_us = 0;
    append(text,
           "# HELP %s how long after it was first wanted a product's lock was got\n# TYPE %s histogram\n",
           name, name);
    for (size_t i = 0; i < METRICS_LOCK_WAIT_BUCKETS - 1; i++) {
        count += sum_lock_waits(page, i);
        append(text, "%s_bucket{le=\"%g\"} %" PRIu64 "\n", name, (double)lock_wait_edges_us[i] / 1e6, count);
    }
    count += sum_lock_waits(page, METRICS_LOCK_WAIT_BUCKETS - 1);
    append(text, "%s_bucket{le=\"+Inf\"} %" PRIu64 "\n", name, count);
    for (size_t i = 0; i < METRICS_WORKERS_MAX; i++) {
        sum_us += __atomic_load_n(&page->workers[i].lock_wait_us, __ATOMIC_RELAXED);
    }
    append(text, "%s_sum %.6f\n", name, (double)sum_us / 1e6);
    append(text, "%s_count %" PRIu64 "\n", name, count);
}

size_t metrics_format(const struct metrics_page *page, char *out, size_t out_bytes)
{
    struct text text = {.out = out, .bytes = out_bytes};
    for (int i = 0; i < METRICS_COUNT; i++) {
        append(
            &text,
            "# HELP doorbuster_%s_total %s\n# TYPE doorbuster_%s_total counter\ndoorbuster_%s_total %" PRIu64
            "\n",
            names[i], helps[i], names[i], names[i], metrics_sum(page, (enum metrics_counter)i));
    }
    append_lock_waits(&text, page);
    return text.used;
}
