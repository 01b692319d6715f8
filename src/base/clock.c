/* Time: the two clocks, and how a moment is written and read.
 *
 * Any thread; owns nothing. The kernel's clocks cannot fail with these arguments, so a failure is a CHECK. */
#include "doorbuster/clock.h"

#include "doorbuster/check.h"

#include <string.h>
#include <time.h>

#define LEFT_MS_MAX 3600000
#define MS_PER_DAY INT64_C(86400000)
#define RFC3339_MS_MAX INT64_C(253402300799999) /* 9999-12-31T23:59:59.999Z */

static struct timespec read_clock(clockid_t clock)
{
    struct timespec now;
    int rc = clock_gettime(clock, &now);

    CHECK(rc == 0);
    return now;
}

int64_t clock_wall_ms(void)
{
    struct timespec now = read_clock(CLOCK_REALTIME);

    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

int64_t clock_monotonic_us(void)
{
    struct timespec now = read_clock(CLOCK_MONOTONIC);

    return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

int clock_left_ms(int64_t deadline_us)
{
    int64_t left_ms = (deadline_us - clock_monotonic_us() + 999) / 1000;

    return left_ms < 0 ? 0 : left_ms > LEFT_MS_MAX ? LEFT_MS_MAX : (int)left_ms;
}

static void put_digits(char *out, int digits, int64_t value)
{
    for (int i = digits - 1; i >= 0; i--) {
        out[i] = (char)('0' + value % 10);
        value /= 10;
    }
}

/* Gregorian date of a day counted from 1970-01-01, for days >= 0. Years begin in March here, so that the leap
 * day comes last. */
static void civil_date(int64_t days, int64_t *year, int64_t *month, int64_t *day)
{
    days += 719468; /* from 0000-03-01 to 1970-01-01 */
    int64_t era = days / 146097;
    int64_t day_of_era = days % 146097;
    int64_t year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36524 - day_of_era / 146096) / 365;
    int64_t day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    int64_t march_month = (5 * day_of_year + 2) / 153;

    *day = day_of_year - (153 * march_month + 2) / 5 + 1;
    *month = march_month < 10 ? march_month + 3 : march_month - 9;
    *year = era * 400 + year_of_era + (*month <= 2 ? 1 : 0);
}

/* By hand rather than with gmtime_r and strftime: this stands in every answer and every log line, and those
 * two take a lock. */
void clock_rfc3339(int64_t at_ms, char out[CLOCK_RFC3339_BYTES])
{
    static const char shape[CLOCK_RFC3339_BYTES] = "0000-00-00T00:00:00.000Z";
    int64_t year, month, day;

    at_ms = at_ms < 0 ? 0 : at_ms > RFC3339_MS_MAX ? RFC3339_MS_MAX : at_ms;
    int64_t ms_of_day = at_ms % MS_PER_DAY;
    civil_date(at_ms / MS_PER_DAY, &year, &month, &day);

    for (int i = 0; i < CLOCK_RFC3339_BYTES; i++)
        out[i] = shape[i];
    put_digits(out, 4, year);
    put_digits(out + 5, 2, month);
    put_digits(out + 8, 2, day);
    put_digits(out + 11, 2, ms_of_day / 3600000);
    put_digits(out + 14, 2, ms_of_day / 60000 % 60);
    put_digits(out + 17, 2, ms_of_day / 1000 % 60);
    put_digits(out + 20, 3, ms_of_day % 1000);
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

/* So many digits, and nothing less; stops at the terminator. */
static bool take_digits(const char **at, int digits, int64_t min, int64_t max, int64_t *out)
{
    *out = 0;
    for (int i = 0; i < digits; i++, (*at)++) {
        if (!is_digit(**at))
            return false;
        *out = *out * 10 + (**at - '0');
    }
    return *out >= min && *out <= max;
}

static bool take_char(const char **at, const char *any_of)
{
    if (**at == '\0' || strchr(any_of, **at) == NULL)
        return false;
    (*at)++;
    return true;
}

static int64_t days_in_month(int64_t year, int64_t month)
{
    static const int8_t days[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    bool is_leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;

    return days[month - 1] + (month == 2 && is_leap ? 1 : 0);
}

/* Day counted from 1970-01-01; the other way round of civil_date. */
static int64_t day_of(int64_t year, int64_t month, int64_t day)
{
    int64_t march_year = year - (month <= 2 ? 1 : 0);
    int64_t march_month = month > 2 ? month - 3 : month + 9;
    int64_t era = (march_year >= 0 ? march_year : march_year - 399) / 400;
    int64_t year_of_era = march_year - era * 400;
    int64_t day_of_year = (153 * march_month + 2) / 5 + day - 1;

    return era * 146097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719468;
}

static bool take_date(const char **at, int64_t *days)
{
    int64_t year, month, day;

    if (!take_digits(at, 4, 0, 9999, &year) || !take_char(at, "-") || !take_digits(at, 2, 1, 12, &month) ||
        !take_char(at, "-") || !take_digits(at, 2, 1, days_in_month(year, month), &day))
        return false;
    *days = day_of(year, month, day);
    return true;
}

static bool take_fraction(const char **at, int64_t *ms)
{
    *ms = 0;
    if (**at != '.')
        return true;
    (*at)++;
    if (!is_digit(**at))
        return false;
    for (int64_t unit = 100; is_digit(**at); unit /= 10, (*at)++)
        *ms += unit * (**at - '0');
    return true;
}

static bool take_time(const char **at, int64_t *ms_of_day)
{
    int64_t hour, minute, second, ms;

    if (!take_digits(at, 2, 0, 23, &hour) || !take_char(at, ":") || !take_digits(at, 2, 0, 59, &minute) ||
        !take_char(at, ":") || !take_digits(at, 2, 0, 59, &second) || !take_fraction(at, &ms))
        return false;
    *ms_of_day = ((hour * 60 + minute) * 60 + second) * 1000 + ms;
    return true;
}

static bool take_offset(const char **at, int64_t *minutes)
{
    int64_t hour, minute;

    *minutes = 0;
    if (take_char(at, "Zz"))
        return true;
    int64_t sign = **at == '-' ? -1 : 1;
    if (!take_char(at, "+-") || !take_digits(at, 2, 0, 23, &hour) || !take_char(at, ":") ||
        !take_digits(at, 2, 0, 59, &minute))
        return false;
    *minutes = sign * (hour * 60 + minute);
    return true;
}

bool clock_parse_rfc3339(const char *text, int64_t *at_ms)
{
    int64_t days, ms_of_day, offset_minutes;

    if (!take_date(&text, &days) || !take_char(&text, "Tt") || !take_time(&text, &ms_of_day) ||
        !take_offset(&text, &offset_minutes) || *text != '\0')
        return false;
    int64_t moment = days * MS_PER_DAY + ms_of_day - offset_minutes * 60000;
    if (moment < 0 || moment > RFC3339_MS_MAX)
        return false;
    *at_ms = moment;
    return true;
}
