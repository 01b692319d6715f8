/* clock.h: dates against gmtime_r, and the two clocks. */
#include "doorbuster/clock.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static void assert_date(int64_t at_ms, const char *text)
{
    char out[CLOCK_RFC3339_BYTES];

    memset(out, 'x', sizeof out);
    clock_rfc3339(at_ms, out);
    assert_string_equal(out, text);
}

static void test_known_dates(void **state)
{
    (void)state;
    assert_date(0, "1970-01-01T00:00:00.000Z");
    assert_date(999, "1970-01-01T00:00:00.999Z");
    assert_date(951782400000, "2000-02-29T00:00:00.000Z");
    assert_date(1795737600123, "2026-11-27T00:00:00.123Z");
    assert_date(4107542399999, "2100-02-28T23:59:59.999Z");
    assert_date(4107542400000, "2100-03-01T00:00:00.000Z"); /* 2100 is no leap year */
    assert_date(253402300799999, "9999-12-31T23:59:59.999Z");
}

static void test_outside_is_clamped(void **state)
{
    (void)state;
    assert_date(-1, "1970-01-01T00:00:00.000Z");
    assert_date(INT64_MIN, "1970-01-01T00:00:00.000Z");
    assert_date(253402300800000, "9999-12-31T23:59:59.999Z");
    assert_date(INT64_MAX, "9999-12-31T23:59:59.999Z");
}

static void test_every_day_like_gmtime(void **state)
{
    (void)state;
    /* Every day of a whole cycle of 400 years and more, then one in 97 up to the end of 9999. */
    for (int64_t day = 0; day < 2932897; day += day < 160000 ? 1 : 97) {
        time_t second = (time_t)(day * 86400 + day % 86400);
        struct tm parts;
        char out[CLOCK_RFC3339_BYTES], wanted[80];
        assert_non_null(gmtime_r(&second, &parts));
        snprintf(wanted, sizeof wanted, "%04d-%02d-%02dT%02d:%02d:%02d.%03dZ", parts.tm_year + 1900,
                 parts.tm_mon + 1, parts.tm_mday, parts.tm_hour, parts.tm_min, parts.tm_sec,
                 (int)(day % 1000));
        clock_rfc3339((int64_t)second * 1000 + day % 1000, out);
        if (strcmp(out, wanted) != 0)
            fail_msg("%s is not %s", out, wanted);
    }
}

static void test_clocks(void **state)
{
    int64_t before = clock_monotonic_us();

    (void)state;
    for (int i = 0; i < 100000; i++) {
        int64_t now = clock_monotonic_us();
        assert_true(now >= before);
        before = now;
    }
    assert_true(llabs((long long)(clock_wall_ms() / 1000 - (int64_t)time(NULL))) <= 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_known_dates),
        cmocka_unit_test(test_outside_is_clamped),
        cmocka_unit_test(test_every_day_like_gmtime),
        cmocka_unit_test(test_clocks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
