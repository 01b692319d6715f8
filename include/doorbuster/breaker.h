/* A circuit breaker (M. Nygard, "Release It!", 2007): calls to something that keeps failing are refused at once for a while, instead of each waiting
 * for its own deadline.
 *
 *     CLOSED --failures_max in a row, or breaker_open()--> OPEN --after open_ms--> HALF_OPEN --a success--> CLOSED
 *                                                           ^                         |
 *                                                           +--------a failure--------+
 *
 * HALF_OPEN lets one call through at a time. Where nobody calls any more, breaker_rest() closes it, or it would say "open" for ever.
 * A success that is seen from elsewhere closes it from OPEN too. Plain data; one thread, or a lock of the
 * caller's around it. Each move is logged with its reason, and openings are counted. */
#ifndef DOORBUSTER_BREAKER_H
#define DOORBUSTER_BREAKER_H

#include <stdbool.h>
#include <stdint.h>

#define BREAKER_REASON_BYTES 160
#define BREAKER_REST_MS 10000

enum breaker_state { BREAKER_CLOSED, BREAKER_HALF_OPEN, BREAKER_OPEN }; /* in the order of the gauges */
extern const char *const breaker_state_names[3];                        /* "closed", "half-open", "open" */

struct breaker {
    const char *name; /* "redis", "store": for the log, the metrics and /health/ready */
    unsigned failures_max;
    unsigned open_ms;
    enum breaker_state state;
    unsigned failures;       /* in a row */
    bool probing;            /* HALF_OPEN: the one call is on its way */
    int64_t since_us;        /* when it came into its state, monotonic; 0: it was never in another */
    int64_t asked_us;        /* when breaker_allows() was last asked, likewise */
    int64_t left_us;         /* when it left CLOSED last, likewise */
    uint64_t openings;       /* how often it has left CLOSED */
    uint64_t openings_shown; /* of these, in the counter: see metrics_count_openings() */
    char reason[BREAKER_REASON_BYTES]; /* why it left CLOSED last; "" if it never did */
};

void breaker_init(struct breaker *breaker, const char *name, unsigned failures_max, unsigned open_ms);
/* May a call be made? False: refuse it now; *retry_ms says when to come again. True: tell its end by one of the next three. */
bool breaker_allows(struct breaker *breaker, int64_t now_us, unsigned *retry_ms);
void breaker_succeeded(struct breaker *breaker, int64_t now_us);
void breaker_failed(struct breaker *breaker, int64_t now_us, const char *reason);
/* The call ended in a way that says nothing of what it was made to. */
void breaker_abandoned(struct breaker *breaker);
/* Looked at now and then: closed if it has refused nobody and tried nothing for BREAKER_REST_MS, so that what is long over is not shown. */
void breaker_rest(struct breaker *breaker, int64_t now_us);
/* From outside, where the failure is not that of a call: the link is gone, the record does not follow. */
void breaker_open(struct breaker *breaker, int64_t now_us, const char *reason);

#endif
