/* The shared page of counters. Every process counts in its own slot, from any of its threads; any process reads all of them. Owns the mapping; fails only
 * when there is no memory for it.
 *
 * Counting is an atomic addition, for a pool thread may count beside the loop, and in a rolling restart a worker and its successor share a slot for a
 * moment. Measured on a busy machine: 23 ns for one, 40 to 65 for an answer, which takes four of them. */
#include "shape.h"

#include "doorbuster/breaker.h"
#include "doorbuster/check.h"
#include "doorbuster/clock.h"
#include "doorbuster/log.h"

#include <sys/mman.h>
#include <unistd.h>

static struct metrics_slot unseen;
static struct metrics_slot *own_slot = &unseen;

/* --- the histograms' buckets ---------------------------------------------------------------------------------------------------------- */
const struct metrics_shape metrics_times = {18,
                                            true,
                                            {50, 100, 200, 500, 1000, 2000, 3000, 5000, 7500, 10000, 20000,
                                             50000, 100000, 200000, 500000, 1000000, 2000000, 5000000}};
static const struct metrics_shape sizes = {12, false, {1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 4096}};

const struct metrics_shape *metrics_shape_of(enum metrics_histogram histogram)
{
    bool is_size = histogram == METRICS_HISTOGRAM_gate_batch ||
                   histogram == METRICS_HISTOGRAM_recorder_batch ||
                   histogram == METRICS_HISTOGRAM_look_requests;
    return is_size ? &sizes : &metrics_times;
}

const unsigned metrics_statuses[METRICS_STATUSES_MAX] = {200, 201, 202, 204, 206, 301, 302, 303,
                                                         304, 400, 401, 403, 404, 405, 409, 413,
                                                         414, 415, 422, 429, 431, 500, 503, 0};

/* --- the page ------------------------------------------------------------------------------------------------------------------------- */
struct metrics_page *metrics_page_new(void)
{
    void *map =
        mmap(NULL, sizeof(struct metrics_page), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (map == MAP_FAILED) {
        return NULL;
    }
    struct metrics_page *page = map;
    page->started_at_ms = clock_wall_ms();
    return page;
}

void metrics_use_slot(struct metrics_slot *slot)
{
    own_slot = slot;
    log_count_held_back(&slot->counters[METRICS_log_lines_suppressed]);
    for (size_t i = 0; i < METRICS_GAUGES_COUNT; i++) {
        metrics_set((enum metrics_gauge)i, 0);
    }
    __atomic_store_n(&slot->used, 1, __ATOMIC_RELAXED);
}

/* --- counting ------------------------------------------------------------------------------------------------------------------------- */
static void add(uint64_t *number, uint64_t amount)
{
    __atomic_fetch_add(number, amount, __ATOMIC_RELAXED);
}

static void count_in(struct metrics_buckets *buckets, const struct metrics_shape *shape, uint64_t value)
{
    size_t bucket = 0;
    while (bucket < shape->edges && value > shape->edge[bucket]) {
        bucket++;
    }
    add(&buckets->counts[bucket], 1);
    add(&buckets->sum, value);
}

void metrics_add(enum metrics_counter counter, uint64_t amount)
{
    add(&own_slot->counters[counter], amount);
}

static size_t column_of(unsigned status)
{
    size_t column = 0;
    while (column < METRICS_STATUSES_MAX - 1 && metrics_statuses[column] != status) {
        column++;
    }
    return column;
}

void metrics_count_answer(int route, unsigned status, int64_t took_us)
{
    size_t row = route < 0 || route >= METRICS_ROUTES_MAX ? METRICS_ROUTES_MAX : (size_t)route;
    metrics_add(METRICS_requests, 1);
    add(&own_slot->answers[row][column_of(status)], 1);
    count_in(&own_slot->took_us[row], &metrics_times, took_us > 0 ? (uint64_t)took_us : 0);
}

void metrics_count_openings(struct breaker *breaker)
{
    metrics_add(METRICS_breaker_opened, breaker->openings - breaker->openings_shown);
    breaker->openings_shown = breaker->openings;
}

void metrics_observe(enum metrics_histogram histogram, uint64_t value)
{
    count_in(&own_slot->histograms[histogram], metrics_shape_of(histogram), value);
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

/* --- adding up ------------------------------------------------------------------------------------------------------------------------ */
static const struct metrics_slot *slot_at(const struct metrics_page *page, size_t i)
{
    return i == 0 ? &page->supervisor : i == 1 ? &page->recorder : &page->workers[i - 2];
}

const struct metrics_slot *metrics_next_slot(const struct metrics_page *page, size_t *next)
{
    while (*next < METRICS_SLOTS) {
        const struct metrics_slot *slot = slot_at(page, (*next)++);
        if (__atomic_load_n(&slot->used, __ATOMIC_RELAXED) != 0) {
            return slot;
        }
    }
    return NULL;
}

uint64_t metrics_sum(const struct metrics_page *page, enum metrics_counter counter)
{
    uint64_t sum = 0;
    size_t next = 0;
    for (const struct metrics_slot *slot; (slot = metrics_next_slot(page, &next)) != NULL;) {
        sum += __atomic_load_n(&slot->counters[counter], __ATOMIC_RELAXED);
    }
    return sum;
}

void metrics_add_up_buckets(const struct metrics_buckets *buckets, struct metrics_buckets *io)
{
    for (size_t i = 0; i < METRICS_BUCKETS_MAX; i++) {
        io->counts[i] += __atomic_load_n(&buckets->counts[i], __ATOMIC_RELAXED);
    }
    io->sum += __atomic_load_n(&buckets->sum, __ATOMIC_RELAXED);
}

void metrics_add_up_took(const struct metrics_page *page, int route, struct metrics_buckets *io)
{
    size_t next = 0, row = route < 0 || route >= METRICS_ROUTES_MAX ? METRICS_ROUTES_MAX : (size_t)route;
    for (const struct metrics_slot *slot; (slot = metrics_next_slot(page, &next)) != NULL;) {
        metrics_add_up_buckets(&slot->took_us[row], io);
    }
}

double metrics_quantile_us(const struct metrics_buckets *took, double share)
{
    uint64_t count = 0, below = 0;
    for (size_t i = 0; i <= metrics_times.edges; i++) {
        count += took->counts[i];
    }
    if (count == 0) {
        return -1;
    }
    double rank = share * (double)count;
    size_t bucket = 0;
    while (bucket < metrics_times.edges && (double)(below + took->counts[bucket]) < rank) {
        below += took->counts[bucket++];
    }
    double from = bucket == 0 ? 0 : (double)metrics_times.edge[bucket - 1];
    if (bucket == metrics_times.edges) {
        return from; /* the bucket has no upper edge */
    }
    double into = took->counts[bucket] > 0 ? (rank - (double)below) / (double)took->counts[bucket] : 0;
    return from + into * ((double)metrics_times.edge[bucket] - from);
}

int64_t metrics_worst(const struct metrics_page *page, enum metrics_gauge gauge)
{
    int64_t worst = 0;
    size_t next = 0;
    for (const struct metrics_slot *slot; (slot = metrics_next_slot(page, &next)) != NULL;) {
        int64_t value = __atomic_load_n(&slot->gauges[gauge], __ATOMIC_RELAXED);
        worst = value > worst ? value : worst;
    }
    return worst;
}
