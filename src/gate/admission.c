/* Who is let into the gate: a worker's loop thread. Two breakers, and what a newcomer would have to wait.
 *
 * A short outage is invisible: purchases wait for the gate to come back (a Redis restart takes 0.3 s). But who knows that his would wait in vain is
 * told so at once, 503 with Retry-After, and was never tried: only at the door, so whatever is in the gate already keeps its deadline, above all what
 * was reserved or is in doubt.
 *
 *   redis   open once the gate has been away for GATE_PATIENCE_US (no link, closed, no majority of the lock nodes), or nothing but failed calls has come
 *           of it for so long. Half-open when it can be asked again: then so many purchases each GATE_BREAKER_OPEN_MS are let in, until one is confirmed
 *           or refused. If nobody comes it closes after GATE_PATIENCE_US too: the recorder's news say all the time that the links are well.
 *   record  open while the record does not follow (the Lua gate: lua_record_watch()); nothing is sent then. Newcomers are turned away once it has been open
 *           for GATE_PATIENCE_US.
 *
 * Owns nothing but its part of struct gate; cannot fail. */
#include "driver.h"

#include "doorbuster/clock.h"

#include <stdio.h>

#define BREAKER_FAILURES_MAX 1 /* it is opened from here: by time, not by number */
#define PROBES_MAX 32
#define RETRY_MS 1000
#define WAIT_MAX_US                                                                                          \
    3000000 /* who would wait longer is turned away: GATE_DEADLINE_MS, less a lost call and a settlement */

void gate_admission_init(struct gate *gate)
{
    breaker_init(&gate->redis, "redis", BREAKER_FAILURES_MAX, GATE_BREAKER_OPEN_MS);
    breaker_init(&gate->record, "record", BREAKER_FAILURES_MAX, GATE_BREAKER_OPEN_MS);
}

/* --- the breaker of Redis --------------------------------------------------------------------------------------------------------- */
static void open_after_patience(struct gate *gate, int64_t now_us, const char *why)
{
    char reason[BREAKER_REASON_BYTES];
    snprintf(reason, sizeof reason, "for %d s: %s", GATE_PATIENCE_US / 1000000, why);
    breaker_open(&gate->redis, now_us, reason);
}

static void watch_redis(struct gate *gate, int64_t now_us, const char *away)
{
    struct breaker *breaker = &gate->redis;
    struct admission *admission = &gate->admission;
    unsigned retry_ms;
    admission->away_since_us = away == NULL                    ? 0
                               : admission->away_since_us != 0 ? admission->away_since_us
                                                               : now_us;
    switch (breaker->state) {
    case BREAKER_CLOSED:
        if (away != NULL && now_us - admission->away_since_us > GATE_PATIENCE_US) {
            open_after_patience(gate, now_us, away);
        }
        break;
    case BREAKER_OPEN:
        if (away == NULL && breaker_allows(breaker, now_us, &retry_ms)) {
            admission->probes = 0;
            admission->next_probes_us = now_us + (int64_t)GATE_BREAKER_OPEN_MS * 1000;
        }
        break;
    case BREAKER_HALF_OPEN:
        if (away != NULL) {
            breaker_failed(breaker, now_us, away);
        } else if (now_us - breaker->since_us > GATE_PATIENCE_US && gate->pending == 0) {
            breaker_succeeded(breaker, now_us);
        } else if (now_us >= admission->next_probes_us) { /* the last ones have found out nothing yet */
            admission->probes = 0;
            admission->next_probes_us = now_us + (int64_t)GATE_BREAKER_OPEN_MS * 1000;
        }
    }
}

void gate_call_failed(struct gate *gate, const char *why)
{
    struct admission *admission = &gate->admission;
    int64_t now_us = clock_monotonic_us();
    bool goes_on = admission->failing_since_us != 0 && now_us - admission->failed_us < GATE_PATIENCE_US;
    admission->failing_since_us = goes_on ? admission->failing_since_us : now_us;
    admission->failed_us = now_us;
    if (gate->redis.state == BREAKER_HALF_OPEN) {
        breaker_failed(&gate->redis, now_us, why);
    } else if (gate->redis.state == BREAKER_CLOSED &&
               now_us - admission->failing_since_us > GATE_PATIENCE_US) {
        open_after_patience(gate, now_us, why);
    }
}

void gate_call_succeeded(struct gate *gate)
{
    gate->admission.failing_since_us = 0;
    if (gate->redis.state == BREAKER_HALF_OPEN) {
        breaker_succeeded(&gate->redis, clock_monotonic_us());
    }
}

/* --- the door ----------------------------------------------------------------------------------------------------------------------- */
void gate_watch(struct gate *gate, int64_t now_us, const char *away, int64_t wait_us)
{
    bool record_is_lost =
        gate->record.state == BREAKER_OPEN && now_us - gate->record.since_us > GATE_PATIENCE_US;
    watch_redis(gate, now_us, away);
    gate->admission.is_closed = record_is_lost || wait_us > WAIT_MAX_US;
    gate->admission.wait_ms = wait_us > WAIT_MAX_US ? wait_us / 1000 : RETRY_MS;
}

bool gate_admits(struct gate *gate)
{
    if (gate->admission.is_closed || gate->pending >= GATE_PENDING_MAX) {
        return false;
    }
    return gate->redis.state == BREAKER_CLOSED ||
           (gate->redis.state == BREAKER_HALF_OPEN && gate->admission.probes++ < PROBES_MAX);
}

size_t gate_breakers(struct gate *gate, struct breaker *out[GATE_BREAKERS])
{
    out[0] = &gate->redis;
    out[1] = &gate->record;
    return gate->settings.place->kind == GATE_LUA
               ? 2
               : 1; /* under the Redlock gate a purchase is its own record */
}
