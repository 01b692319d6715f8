/* A circuit breaker: see breaker.h, which has its states. Pure but for the log lines: the caller brings the clock. One thread at a time; owns nothing
 * and cannot fail. */
#include "doorbuster/breaker.h"

#include "doorbuster/check.h"
#include "doorbuster/log.h"

#include <inttypes.h>
#include <stdio.h>

const char *const breaker_state_names[3] = {"closed", "half-open", "open"};

void breaker_init(struct breaker *breaker, const char *name, unsigned failures_max, unsigned open_ms)
{
    CHECK(name != NULL && failures_max > 0);
    *breaker = (struct breaker){.name = name, .failures_max = failures_max, .open_ms = open_ms};
}

/* The reason is that of its opening: once it closes, it is over. */
static void say(const struct breaker *breaker, int64_t now_us)
{
    char words[BREAKER_REASON_BYTES + 64];
    switch (breaker->state) {
    case BREAKER_OPEN:
        snprintf(words, sizeof words, "open (%s)", breaker->reason);
        break;
    case BREAKER_HALF_OPEN:
        snprintf(words, sizeof words, "half-open: trying whether it works again");
        break;
    case BREAKER_CLOSED:
        snprintf(words, sizeof words, "closed again after %" PRId64 " ms (was: %s)",
                 (now_us - breaker->left_us) / 1000, breaker->reason);
        break;
    }
    log_event(breaker->state == BREAKER_OPEN ? LOG_WARN : LOG_INFO,
              LOG_FIELDS(LOG_WORDS("breaker", breaker->name),
                         LOG_WORDS("state", breaker_state_names[breaker->state])),
              "breaker %s: %s", breaker->name, words);
}

/* The one place where it changes its state. */
static void move(struct breaker *breaker, enum breaker_state to, int64_t now_us)
{
    static const bool allowed[3][3] = {
        [BREAKER_CLOSED] = {[BREAKER_OPEN] = true},
        [BREAKER_OPEN] = {[BREAKER_HALF_OPEN] = true, [BREAKER_CLOSED] = true},
        [BREAKER_HALF_OPEN] = {[BREAKER_OPEN] = true, [BREAKER_CLOSED] = true},
    };
    CHECK(allowed[breaker->state][to]);
    if (breaker->state == BREAKER_CLOSED) {
        breaker->openings++;
        breaker->left_us = now_us;
    }
    breaker->state = to;
    breaker->since_us = now_us;
    breaker->failures = 0;
    breaker->probing = false;
    say(breaker, now_us);
}

static void open_because(struct breaker *breaker, int64_t now_us, const char *reason)
{
    snprintf(breaker->reason, sizeof breaker->reason, "%s", reason);
    move(breaker, BREAKER_OPEN, now_us);
}

bool breaker_allows(struct breaker *breaker, int64_t now_us, unsigned *retry_ms)
{
    int64_t left_us = breaker->since_us + (int64_t)breaker->open_ms * 1000 - now_us;
    *retry_ms = 0;
    breaker->asked_us = now_us;
    if (breaker->state == BREAKER_OPEN && left_us <= 0) {
        move(breaker, BREAKER_HALF_OPEN, now_us);
    }
    if (breaker->state == BREAKER_CLOSED) {
        return true;
    }
    if (breaker->state == BREAKER_OPEN || breaker->probing) {
        *retry_ms = breaker->state == BREAKER_OPEN ? (unsigned)((left_us + 999) / 1000) : breaker->open_ms;
        return false;
    }
    breaker->probing = true;
    return true;
}

void breaker_succeeded(struct breaker *breaker, int64_t now_us)
{
    breaker->failures = 0;
    if (breaker->state != BREAKER_CLOSED) {
        move(breaker, BREAKER_CLOSED, now_us);
    }
}

void breaker_failed(struct breaker *breaker, int64_t now_us, const char *reason)
{
    breaker->failures++;
    if (breaker->state == BREAKER_HALF_OPEN ||
        (breaker->state == BREAKER_CLOSED && breaker->failures >= breaker->failures_max)) {
        open_because(breaker, now_us, reason);
    }
}

void breaker_abandoned(struct breaker *breaker)
{
    breaker->probing = false;
}

void breaker_rest(struct breaker *breaker, int64_t now_us)
{
    int64_t last_us = breaker->asked_us > breaker->since_us ? breaker->asked_us : breaker->since_us;
    if (breaker->state != BREAKER_CLOSED && !breaker->probing &&
        now_us - last_us >= (int64_t)BREAKER_REST_MS * 1000) {
        move(breaker, BREAKER_CLOSED, now_us);
    }
}

void breaker_open(struct breaker *breaker, int64_t now_us, const char *reason)
{
    if (breaker->state != BREAKER_OPEN) {
        open_because(breaker, now_us, reason);
    }
}
