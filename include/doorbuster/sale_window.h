/* When a product is on sale: from one time until just before another. Plain data and a pure rule; any thread. */
#ifndef DOORBUSTER_SALE_WINDOW_H
#define DOORBUSTER_SALE_WINDOW_H

#include <stdbool.h>
#include <stdint.h>

#define SALE_TIME_MS_MAX INT64_C(253402300799999) /* the last millisecond of the year 9999 */

struct sale_window {
    int64_t starts_at_ms, ends_at_ms; /* 0: none */
};

/* What may be asked for in place of a time. */
#define SALE_WINDOW_KEEP INT64_C(-1) /* as it is */
#define SALE_WINDOW_NOW INT64_C(-2)  /* the clock of whoever decides, by which windows are judged too */

/* Is there a moment at which it is open, and are its times such as we write? */
bool sale_window_is_sound(const struct sale_window *window);
/* May it be asked for: is each a time, none, or one of the words above? */
bool sale_window_may_be_asked(const struct sale_window *asked);
/* What comes of asking for `asked` while it is `now_is`, as stock.lua has it. False: it would never be open, *out is not sound. */
bool sale_window_change(const struct sale_window *now_is, const struct sale_window *asked, int64_t now_ms,
                        struct sale_window *out);

#endif
