/* The arithmetic of Redlock: votes, validity, waiting. Pure functions that take the time as an argument. Times are microseconds of
 * clock_monotonic_us(). */
#ifndef DOORBUSTER_GATE_REDLOCK_ARITHMETIC_H
#define DOORBUSTER_GATE_REDLOCK_ARITHMETIC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define REDLOCK_BACKOFF_MAX_MS 2000

/* How many of `nodes` are more than half. */
unsigned redlock_majority(unsigned nodes);

enum redlock_verdict { REDLOCK_OPEN, REDLOCK_WON, REDLOCK_NOT_WON };
/* `yes` of the nodes have said yes, `undecided` may still. */
enum redlock_verdict redlock_count(unsigned nodes, unsigned yes, unsigned undecided);

/* What clocks may differ by while a key lives: 1 % and 2 ms. */
int64_t redlock_drift_us(int64_t ttl_us);
/* The end of the validity of a lock whose nodes were first asked at started_us: TTL less drift after that, so that what the asking took
 * is gone already. */
int64_t redlock_valid_until_us(int64_t started_us, int64_t ttl_us);

/* The most that is waited after so many failed attempts (1, 2, …): doubles from delay_ms, at most REDLOCK_BACKOFF_MAX_MS. */
int64_t redlock_backoff_ceiling_ms(int64_t delay_ms, unsigned failed_attempts);
/* Full jitter: anything from 0 to the ceiling, evenly. */
int64_t redlock_jitter_ms(int64_t ceiling_ms, uint32_t random);

/* Which run of a Redis that is. */
#define REDLOCK_RUN_ID_BYTES 41
struct redlock_run {
    char id[REDLOCK_RUN_ID_BYTES];
    int64_t uptime_s;
};
/* From what INFO says. False: it says no such thing. */
bool redlock_run_parse(const char *info, size_t bytes, struct redlock_run *out);

#define REDLOCK_NEVER (-1)
/* From when on a run that we first meet at now_us may vote: when no lock can be left of what the run before it may have forgotten.
 * `seen_us`: when that one last answered us, so this one cannot be older, whatever its clock says; REDLOCK_NEVER: we know of none. */
int64_t redlock_may_vote_at_us(int64_t now_us, int64_t uptime_s, int64_t seen_us, int64_t ttl_us);

#endif
