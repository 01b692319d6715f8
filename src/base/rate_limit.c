/* Rate limits: the generic cell rate algorithm (ITU-T I.371) on a fixed table. Any thread, any process; owns its table.
 *
 * A bucket is the time at which it will be full again: taking one moves it `interval` on, and is refused if it would then lie further ahead
 * than `burst` intervals. A time in the past is a full bucket, and so is no entry at all. That is one 64-bit word with a part of the key:
 *
 *     28 bits of the key | 36 bits of time in units of 16 us, which come round every 12 days
 *
 * so a change is one compare-and-swap. Eight words, a cache line, are a set; a key lives in the set that its other bits say, in any place.
 * What cannot be changed in a few attempts is let in. Two processes may enter one key twice: then it gets a little more. */
#include "doorbuster/rate_limit.h"

#include "doorbuster/check.h"
#include "doorbuster/text.h"

#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>

#define UNIT_SHIFT 4
#define TIME_BITS 36
#define TIME_MASK ((UINT64_C(1) << TIME_BITS) - 1)
#define SET_WAYS 8
#define ATTEMPTS_MAX 8
#define SECOND_UNITS (1000000 >> UNIT_SHIFT)
/* Further ahead than a full debt and this: no debt, but one that was paid many days ago. */
#define SLACK_UNITS (60 * (uint64_t)SECOND_UNITS)
#define DEBT_UNITS_MAX (86400 * (uint64_t)SECOND_UNITS)
#define COUNT_MAX 10000
#define BURST_MAX 1000000

struct rate_limit_table {
    size_t sets;
    _Alignas(64) _Atomic uint64_t words[];
};

struct place {
    _Atomic uint64_t *word;
    uint64_t was;
    uint64_t debt; /* how far ahead its time is; 0: it is full, or another's */
};

bool rate_limit_parse(const char *text, struct rate_limit *out)
{
    size_t digits = strcspn(text, "/"), unit = strcspn(text, ":");
    const char *period = text + digits;
    int64_t count, burst;
    uint64_t period_units;
    if (unit == digits + 2 && strncmp(period, "/s", 2) == 0) {
        period_units = SECOND_UNITS;
    } else if (unit == digits + 4 && strncmp(period, "/min", 4) == 0) {
        period_units = 60 * (uint64_t)SECOND_UNITS;
    } else {
        return false;
    }
    if (!text_to_int64(text, digits, 1, COUNT_MAX, &count)) {
        return false;
    }
    burst = count;
    if (text[unit] == ':' && !text_to_int64(text + unit + 1, strlen(text + unit + 1), 1, BURST_MAX, &burst)) {
        return false;
    }
    struct rate_limit limit = {.interval = period_units / (uint64_t)count, .burst = (uint64_t)burst};
    if (limit.interval * limit.burst > DEBT_UNITS_MAX) {
        return false;
    }
    *out = limit;
    return true;
}

int64_t rate_limit_window_us(const struct rate_limit *limit)
{
    return (int64_t)(limit->burst * limit->interval << UNIT_SHIFT);
}

struct rate_limit_table *rate_limit_table_new(size_t buckets)
{
    CHECK(buckets >= SET_WAYS && (buckets & (buckets - 1)) == 0);
    size_t bytes = sizeof(struct rate_limit_table) + buckets * sizeof(uint64_t);
    struct rate_limit_table *table =
        mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (table == MAP_FAILED) {
        return NULL;
    }
    table->sets = buckets / SET_WAYS;
    return table;
}

static uint64_t tag_of(uint64_t key)
{
    uint64_t tag = key >> TIME_BITS;
    return tag != 0 ? tag : 1; /* 0: an empty place */
}

static uint64_t debt_of(uint64_t word, uint64_t now, uint64_t debt_max)
{
    uint64_t ahead = ((word & TIME_MASK) - now) & TIME_MASK;
    if (word == 0 || ahead > debt_max + SLACK_UNITS) {
        return 0;
    }
    return ahead < debt_max ? ahead : debt_max;
}

/* The key's place; without one, that of the emptiest bucket of its set. */
static struct place find(struct rate_limit_table *table, const struct rate_limit *limit, uint64_t key,
                         uint64_t now, bool *is_known)
{
    _Atomic uint64_t *set = &table->words[(key & (table->sets - 1)) * SET_WAYS];
    uint64_t debt_max = limit->burst * limit->interval, least = UINT64_MAX;
    struct place place = {0};
    for (unsigned way = 0; way < SET_WAYS; way++) {
        uint64_t word = atomic_load_explicit(&set[way], memory_order_relaxed);
        uint64_t debt = debt_of(word, now, debt_max);
        if (word >> TIME_BITS == tag_of(key)) {
            *is_known = true;
            return (struct place){&set[way], word, debt};
        }
        if (debt < least) {
            least = debt;
            place = (struct place){&set[way], word, 0};
        }
    }
    *is_known = false;
    return place;
}

static bool put(const struct place *place, uint64_t key, uint64_t now, uint64_t debt)
{
    uint64_t was = place->was, word = tag_of(key) << TIME_BITS | ((now + debt) & TIME_MASK);
    return atomic_compare_exchange_strong_explicit(place->word, &was, word, memory_order_relaxed,
                                                   memory_order_relaxed);
}

static struct rate_limit_verdict verdict_of(const struct rate_limit *limit, uint64_t debt, bool allowed)
{
    uint64_t debt_max = limit->burst * limit->interval;
    return (struct rate_limit_verdict){
        .allowed = allowed,
        .remaining = (debt_max - debt) / limit->interval,
        .retry_after_us = allowed ? 0 : (int64_t)((debt + limit->interval - debt_max) << UNIT_SHIFT),
        .full_after_us = (int64_t)(debt << UNIT_SHIFT)};
}

struct rate_limit_verdict rate_limit_take(struct rate_limit_table *table, const struct rate_limit *limit,
                                          uint64_t key, int64_t now_us)
{
    uint64_t now = (uint64_t)now_us >> UNIT_SHIFT & TIME_MASK, after = 0;
    bool is_known;
    for (int i = 0; i < ATTEMPTS_MAX; i++) {
        struct place place = find(table, limit, key, now, &is_known);
        after = place.debt + limit->interval;
        if (after > limit->burst * limit->interval) {
            return verdict_of(limit, place.debt, false);
        }
        if (put(&place, key, now, after)) {
            break;
        }
    }
    return verdict_of(limit, after, true);
}

void rate_limit_give_back(struct rate_limit_table *table, const struct rate_limit *limit, uint64_t key,
                          int64_t now_us)
{
    uint64_t now = (uint64_t)now_us >> UNIT_SHIFT & TIME_MASK;
    bool is_known;
    for (int i = 0; i < ATTEMPTS_MAX; i++) {
        struct place place = find(table, limit, key, now, &is_known);
        uint64_t after = place.debt > limit->interval ? place.debt - limit->interval : 0;
        if (!is_known || put(&place, key, now, after)) {
            return;
        }
    }
}

struct rate_limit_verdict rate_limit_look(struct rate_limit_table *table, const struct rate_limit *limit,
                                          uint64_t key, int64_t now_us)
{
    uint64_t now = (uint64_t)now_us >> UNIT_SHIFT & TIME_MASK;
    bool is_known;
    struct place place = find(table, limit, key, now, &is_known);
    return verdict_of(limit, place.debt, place.debt + limit->interval <= limit->burst * limit->interval);
}
