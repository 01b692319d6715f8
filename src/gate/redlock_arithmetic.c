/* The arithmetic of Redlock. Pure functions, any thread; they own nothing and cannot fail, but for a text from outside that is no INFO. */
#include "redlock_arithmetic.h"

#include "doorbuster/check.h"
#include "doorbuster/text.h"

#include <string.h>

#define UPTIME_S_MAX (INT64_C(1) << 40)

unsigned redlock_majority(unsigned nodes)
{
    return nodes / 2 + 1;
}

enum redlock_verdict redlock_count(unsigned nodes, unsigned yes, unsigned undecided)
{
    CHECK(yes + undecided <= nodes);
    unsigned majority = redlock_majority(nodes);
    return yes >= majority ? REDLOCK_WON : yes + undecided >= majority ? REDLOCK_OPEN : REDLOCK_NOT_WON;
}

int64_t redlock_drift_us(int64_t ttl_us)
{
    return (ttl_us + 99) / 100 + 2000;
}

int64_t redlock_valid_until_us(int64_t started_us, int64_t ttl_us)
{
    return started_us + ttl_us - redlock_drift_us(ttl_us);
}

int64_t redlock_backoff_ceiling_ms(int64_t delay_ms, unsigned failed_attempts)
{
    CHECK(failed_attempts > 0);
    int64_t ceiling_ms = delay_ms;
    for (unsigned i = 1; i < failed_attempts && ceiling_ms < REDLOCK_BACKOFF_MAX_MS; i++) {
        ceiling_ms *= 2;
    }
    return ceiling_ms < REDLOCK_BACKOFF_MAX_MS ? ceiling_ms : REDLOCK_BACKOFF_MAX_MS;
}

int64_t redlock_jitter_ms(int64_t ceiling_ms, uint32_t random)
{
    return (int64_t)(((uint64_t)random * (uint64_t)(ceiling_ms + 1)) >> 32);
}

/* The value of "name:value" at the begin of a line. */
static const char *find_field(const char *info, const char *end, const char *name, size_t *bytes)
{
    size_t name_bytes = strlen(name);
    for (const char *line = info; line < end;) {
        const char *line_end = memchr(line, '\n', (size_t)(end - line));
        line_end = line_end != NULL ? line_end : end;
        if ((size_t)(line_end - line) > name_bytes && memcmp(line, name, name_bytes) == 0) {
            const char *value_end = line_end[-1] == '\r' ? line_end - 1 : line_end;
            *bytes = (size_t)(value_end - line) - name_bytes;
            return line + name_bytes;
        }
        line = line_end + 1;
    }
    return NULL;
}

bool redlock_run_parse(const char *info, size_t bytes, struct redlock_run *out)
{
    const char *end = info + bytes;
    size_t id_bytes, uptime_bytes;
    const char *id = find_field(info, end, "run_id:", &id_bytes);
    const char *uptime = find_field(info, end, "uptime_in_seconds:", &uptime_bytes);
    if (id == NULL || uptime == NULL || id_bytes != REDLOCK_RUN_ID_BYTES - 1 ||
        !text_to_int64(uptime, uptime_bytes, 0, UPTIME_S_MAX, &out->uptime_s)) {
        return false;
    }
    memcpy(out->id, id, id_bytes);
    out->id[id_bytes] = '\0';
    return true;
}

int64_t redlock_may_vote_at_us(int64_t now_us, int64_t uptime_s, int64_t seen_us, int64_t ttl_us)
{
    /* Uptime is the difference of two clock readings without their fractions: up to a second too much. */
    int64_t age_us = uptime_s > 0 ? (uptime_s - 1) * 1000000 : 0;
    if (seen_us != REDLOCK_NEVER && now_us - seen_us < age_us) {
        age_us = now_us - seen_us;
    }
    int64_t longest_us = ttl_us + redlock_drift_us(ttl_us);
    return age_us < longest_us ? now_us + longest_us - age_us : now_us;
}
