/* Patience at the start, in `server` before the first fork: one thread, blocking. Owns nothing, cannot fail. */
#include "patience.h"

#include "doorbuster/clock.h"
#include "doorbuster/failpoint.h"
#include "doorbuster/log.h"

#include <time.h>

#define AGAIN_NS 200000000

struct patience patience_begin(int total_ms)
{
    return (struct patience){.total_ms = total_ms,
                             .deadline_us = clock_monotonic_us() + (int64_t)total_ms * 1000};
}

bool patience_wait(struct patience *patience, const char *error)
{
    if (clock_monotonic_us() >= patience->deadline_us || failpoint("start.wait")) {
        return false;
    }
    if (!patience->said) {
        log_warn("%s; waiting for up to %d s", error, patience->total_ms / 1000);
    }
    patience->said = true;
    nanosleep(&(struct timespec){.tv_nsec = AGAIN_NS}, NULL);
    return true;
}
