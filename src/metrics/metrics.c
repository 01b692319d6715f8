/* The shared page of counters. Every process: its loop's thread writes its own slot, /metrics in any worker reads all of them. Owns the
 * mapping; fails only when there is no memory for it. */
#include "doorbuster/metrics.h"

#include "doorbuster/check.h"

#include <inttypes.h>
#include <stdio.h>
#include <sys/mman.h>

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

size_t metrics_format(const struct metrics_page *page, char *out, size_t out_bytes)
{
    size_t used = 0;
    for (int i = 0; i < METRICS_COUNT; i++) {
        int wrote = snprintf(
            out + used, out_bytes - used,
            "# HELP doorbuster_%s_total %s\n# TYPE doorbuster_%s_total counter\ndoorbuster_%s_total %" PRIu64
            "\n",
            names[i], helps[i], names[i], names[i], metrics_sum(page, (enum metrics_counter)i));
        CHECK(wrote > 0 && (size_t)wrote < out_bytes - used);
        used += (size_t)wrote;
    }
    return used;
}
