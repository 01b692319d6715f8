/* clock.h: dates against gmtime_r, written and read, and the two clocks. */
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

static void assert_read(const char *text, int64_t at_ms)
{
    int64_t read = -1;
    if (!clock_parse_rfc3339(text, &read) || read != at_ms)
        fail_msg("%s is read as %lld, not %lld", text, (long long)read, (long long)at_ms);
}

static void test_dates_are_read(void **state)
{
    (void)state;
    assert_read("1970-01-01T00:00:00Z", 0);
    assert_read("1970-01-01t00:00:00.001z", 1);
    assert_read("2026-11-27T00:00:00.123Z", 1795737600123);
    assert_read("2026-11-27T09:00:00.123+09:00", 1795737600123);
    assert_read("2026-11-26T18:30:00.123-05:30", 1795737600123);
    assert_read("2026-11-27T00:00:00.1Z", 1795737600100);
    assert_read("2026-11-27T00:00:00.123999999999999999999999+00:00", 1795737600123);
    assert_read("2000-02-29T00:00:00-00:00", 951782400000);
    assert_read("9999-12-31T23:59:59.999Z", 253402300799999);
    assert_read("1969-12-31T23:00:00-01:00", 0); /* before 1970 by the local clock only */
    assert_read("1970-01-01T23:59:00+23:59", 0);
}

static void test_what_is_no_date(void **state)
{
    static const char *const bad[] = {
        "",
        "2026",
        "2026-11-27",
        "2026-11-27T00:00:00", /* whose midnight? */
        "2026-11-27 00:00:00Z",
        "2026-11-27T00:00Z",
        "2026-11-27T00:00:00.Z",
        "2026-11-27T00:00:00,5Z",
        "2026-11-27T00:00:00+0900",
        "2026-11-27T00:00:00+09",
        "2026-11-27T00:00:00+24:00",
        "2026-11-27T00:00:00+00:60",
        "2026-11-27T00:00:00Zulu",
        " 2026-11-27T00:00:00Z",
        "2026-11-27T00:00:00Z ",
        "2026-11-27T24:00:00Z",
        "2026-11-27T00:60:00Z",
        "2026-12-31T23:59:60Z", /* a leap second */
        "2026-00-27T00:00:00Z",
        "2026-13-27T00:00:00Z",
        "2026-11-00T00:00:00Z",
        "2026-11-31T00:00:00Z",
        "2026-02-29T00:00:00Z",
        "2100-02-29T00:00:00Z",
        "26-11-27T00:00:00Z",
        "-026-11-27T00:00:00Z",
        "2026-1-27T00:00:00Z",
        "+2026-11-27T00:00:00Z",
        "12026-11-27T00:00:00Z",
        "1969-12-31T23:59:59.999Z",
        "0000-01-01T00:00:00Z",
        "1970-01-01T00:00:00+00:01",
        "9999-12-31T23:59:59-00:01",
    };
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        int64_t read = 42;
        if (clock_parse_rfc3339(bad[i], &read))
            fail_msg("%s is read as a date", bad[i]);
        assert_int_equal(read, 42);
    }
}

static void test_what_is_written_is_read(void **state)
{
    (void)state;
    for (int64_t day = 0; day < 2932897; day += day < 160000 ? 1 : 97) {
        int64_t at_ms = day * 86400000 + (day * 7919) % 86400000, read = -1;
        char text[CLOCK_RFC3339_BYTES];
        clock_rfc3339(at_ms, text);
        assert_true(clock_parse_rfc3339(text, &read));
        if (read != at_ms)
            fail_msg("%s is read as %lld", text, (long long)read);
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
        cmocka_unit_test(test_dates_are_read),
        cmocka_unit_test(test_what_is_no_date),
        cmocka_unit_test(test_what_is_written_is_read),
        cmocka_unit_test(test_clocks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
