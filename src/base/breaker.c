/* The circuit breaker: see breaker.h. Any thread that has the breaker to itself; owns nothing; cannot fail. */
#include "doorbuster/breaker.h"

#include <stdio.h>

const char *const breaker_state_names[3] = {"closed", "open", "half-open"};

void breaker_init(struct breaker *breaker, const char *name, unsigned failures_max, unsigned open_ms)
{
    *breaker = (struct breaker){.name = name, .failures_max = failures_max, .open_ms = open_ms};
}
bool breaker_allows(struct breaker *breaker, int64_t now_us, unsigned *retry_ms)
{
    (void)breaker;
    (void)now_us;
    (void)retry_ms;
    return true;
}
void breaker_succeeded(struct breaker *breaker, int64_t now_us)
{
    (void)breaker;
    (void)now_us;
}
void breaker_failed(struct breaker *breaker, int64_t now_us, const char *reason)
{
    (void)breaker;
    (void)now_us;
    (void)reason;
}
void breaker_open(struct breaker *breaker, int64_t now_us, const char *reason)
{
    (void)breaker;
    (void)now_us;
    (void)reason;
}
