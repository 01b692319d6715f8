/* The assertions of tests/support, outside a cmocka test: one that fails ends the round, not the run. These
 * stand before libcmocka's in the link; only those that the support uses are here. */
#include "chaos.h"

#include <inttypes.h>
#include <stdio.h>

static jmp_buf out_of_the_round;
static bool in_a_round;
static char said[SENTENCE_BYTES];

static void __attribute__((noreturn)) leave(const char *file, int line)
{
    if (!in_a_round) {
        fprintf(stderr, "chaos: %s (%s:%d)\n", said, file, line);
        in_a_round = false;
        bench_end();
        _Exit(1);
    }
    in_a_round = false;
    longjmp(out_of_the_round, 1);
}

bool guarded(struct round *round, void (*body)(struct round *round))
{
    snprintf(said, sizeof said, "an assertion of the harness failed");
    in_a_round = true;
    if (setjmp(out_of_the_round) != 0) {
        violation(round, "%s", said);
        return false;
    }
    body(round);
    in_a_round = false;
    return true;
}

void _fail(const char *const file, const int line)
{
    leave(file, line);
}

void print_error(const char *const format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(said, sizeof said, format, arguments);
    va_end(arguments);
}

void print_message(const char *const format, ...)
{
    (void)format; /* whole logs; the failed round's folder has them */
}

void _assert_true(const LargestIntegralType result, const char *const expression, const char *const file,
                  const int line)
{
    if (!result) {
        snprintf(said, sizeof said, "%s:%d: not so: %s", file, line, expression);
        leave(file, line);
    }
}

void _assert_int_equal(const LargestIntegralType a, const LargestIntegralType b, const char *const file,
                       const int line)
{
    if (a != b) {
        snprintf(said, sizeof said, "%s:%d: %jd is not %jd", file, line, (intmax_t)a, (intmax_t)b);
        leave(file, line);
    }
}

void _assert_int_not_equal(const LargestIntegralType a, const LargestIntegralType b, const char *const file,
                           const int line)
{
    if (a == b) {
        snprintf(said, sizeof said, "%s:%d: %jd is %jd", file, line, (intmax_t)a, (intmax_t)b);
        leave(file, line);
    }
}

void _assert_in_range(const LargestIntegralType value, const LargestIntegralType minimum,
                      const LargestIntegralType maximum, const char *const file, const int line)
{
    if (value < minimum || value > maximum) {
        snprintf(said, sizeof said, "%s:%d: %jd is not within %jd and %jd", file, line, (intmax_t)value,
                 (intmax_t)minimum, (intmax_t)maximum);
        leave(file, line);
    }
}
