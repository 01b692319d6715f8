/* The rule for changing a product's window: what stock.lua decides in Redis, for a store that decides itself. Pure functions; any thread, any
 * process. They own nothing and cannot fail. tests/component/test_selling_parity.c holds the two against each other. */
#include "doorbuster/sale_window.h"

bool sale_window_is_sound(const struct sale_window *window)
{
    return window->starts_at_ms >= 0 && window->starts_at_ms <= SALE_TIME_MS_MAX && window->ends_at_ms >= 0 &&
           window->ends_at_ms <= SALE_TIME_MS_MAX &&
           (window->ends_at_ms == 0 || window->ends_at_ms > window->starts_at_ms);
}

static bool may_be_asked(int64_t asked)
{
    return asked >= SALE_WINDOW_NOW && asked <= SALE_TIME_MS_MAX;
}

bool sale_window_may_be_asked(const struct sale_window *asked)
{
    return may_be_asked(asked->starts_at_ms) && may_be_asked(asked->ends_at_ms);
}

static int64_t resolve(int64_t asked, int64_t kept, int64_t now_ms)
{
    return asked == SALE_WINDOW_KEEP ? kept : asked == SALE_WINDOW_NOW ? now_ms : asked;
}

bool sale_window_change(const struct sale_window *now_is, const struct sale_window *asked, int64_t now_ms,
                        struct sale_window *out)
{
    *out = (struct sale_window){resolve(asked->starts_at_ms, now_is->starts_at_ms, now_ms),
                                resolve(asked->ends_at_ms, now_is->ends_at_ms, now_ms)};
    return sale_window_is_sound(out);
}
