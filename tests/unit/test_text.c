/* text.h: numbers and UTF-8, at every edge. */
#include "doorbuster/text.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

/* From memory of exactly this size, so that the address sanitizer sees a byte read too many. */
static bool to_int64(const char *text, int64_t min, int64_t max, int64_t *out)
{
    size_t bytes = strlen(text);
    char *exact = malloc(bytes == 0 ? 1 : bytes);

    assert_non_null(exact);
    memcpy(exact, text, bytes);
    bool good = text_to_int64(exact, bytes, min, max, out);
    free(exact);
    return good;
}

static void test_numbers_that_are_good(void **state)
{
    static const struct {
        const char *text;
        int64_t value;
    } cases[] = {
        {"0", 0},
        {"7", 7},
        {"-12", -12},
        {"-0", 0},
        {"007", 7},
        {"9223372036854775807", INT64_MAX},
        {"-9223372036854775808", INT64_MIN},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        int64_t value = 99;
        assert_true(to_int64(cases[i].text, INT64_MIN, INT64_MAX, &value));
        assert_int_equal(value, cases[i].value);
    }
}

static void test_numbers_that_are_not(void **state)
{
    static const char *const cases[] = {
        "",
        "-",
        "+1",
        " 1",
        "1 ",
        "1\n",
        "--1",
        "1-",
        "0x10",
        "1.0",
        "1e3",
        "a",
        "1a",
        "9223372036854775808",
        "-9223372036854775809",
        "18446744073709551616",
        "18446744073709551617",
        "99999999999999999999999",
        "-99999999999999999999999",
        "\xd9\xa1",
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        int64_t value = 99;
        assert_false(to_int64(cases[i], INT64_MIN, INT64_MAX, &value));
        assert_int_equal(value, 99); /* a refusal leaves the caller's variable alone */
    }
}

static void test_numbers_in_range(void **state)
{
    int64_t value = 0;

    (void)state;
    assert_true(to_int64("1", 1, 1000, &value));
    assert_true(to_int64("1000", 1, 1000, &value));
    assert_false(to_int64("0", 1, 1000, &value));
    assert_false(to_int64("1001", 1, 1000, &value));
    assert_false(to_int64("-1", 1, 1000, &value));
    assert_true(to_int64("-5", -5, -5, &value));
    assert_false(text_to_int64("1\0", 2, 0, 10, &value)); /* the whole of it, and a zero byte is no digit */
    assert_true(text_to_int64("15", 1, 0, 10, &value));
    assert_int_equal(value, 1);
}

static bool is_utf8(const char *text, size_t bytes)
{
    char *exact = malloc(bytes == 0 ? 1 : bytes);

    assert_non_null(exact);
    memcpy(exact, text, bytes);
    bool good = text_is_utf8(exact, bytes);
    free(exact);
    return good;
}

/* Plain arithmetic on the code point: another way to the same answer. */
static size_t encode(uint32_t point, char out[4])
{
    if (point < 0x80) {
        out[0] = (char)point;
        return 1;
    }
    size_t bytes = point < 0x800 ? 2 : point < 0x10000 ? 3 : 4;
    for (size_t i = bytes - 1; i > 0; i--) {
        out[i] = (char)(0x80 | (point & 0x3F));
        point >>= 6;
    }
    out[0] = (char)((0xF00 >> bytes & 0xF0) | point);
    return bytes;
}

static void test_every_code_point(void **state)
{
    (void)state;
    for (uint32_t point = 0; point < 0x110000 + 0x1000; point++) {
        char text[4];
        size_t bytes = encode(point, text);
        bool surrogate = point >= 0xD800 && point <= 0xDFFF;
        bool good = text_is_utf8(text, bytes);
        if (good != (!surrogate && point < 0x110000))
            fail_msg("U+%04X", point);
        if (good && text_code_points(text, bytes) != 1)
            fail_msg("U+%04X counted wrong", point);
        if (bytes > 1 && text_is_utf8(text, bytes - 1))
            fail_msg("U+%04X cut short", point);
    }
}

static void test_utf8_that_is_not(void **state)
{
    static const char *const cases[] = {
        "\x80",
        "\xBF",
        "\xC0\x80",
        "\xC1\xBF",
        "\xE0\x80\x80",
        "\xE0\x9F\xBF",
        "\xF0\x80\x80\x80",
        "\xF0\x8F\xBF\xBF",
        "\xED\xA0\x80",
        "\xF4\x90\x80\x80",
        "\xF5\x80\x80\x80",
        "\xFE",
        "\xFF",
        "\xC3",
        "\xC3\x28",
        "\xE2\x82",
        "\xE2\x28\xA1",
        "\xF0\x9F\x98",
        "12345678\xC3",
        "1234567\xC3",
        "aaaaaaaaaaaaaaaa\xFF",
        "\xC3\xA4\x80",
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        assert_false(is_utf8(cases[i], strlen(cases[i])));
    assert_true(is_utf8("", 0));
    assert_true(is_utf8("plain text longer than eight", 28));
    assert_true(is_utf8("1234567\xC3\xA4 8", 11)); /* a sequence across the eight-byte step */
}

static void test_code_points(void **state)
{
    (void)state;
    assert_int_equal(text_code_points("", 0), 0);
    assert_int_equal(text_code_points("abc", 3), 3);
    assert_int_equal(text_code_points("a\xC3\xA4\xE2\x82\xAC\xF0\x9F\x98\x80", 10), 4);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_numbers_that_are_good), cmocka_unit_test(test_numbers_that_are_not),
        cmocka_unit_test(test_numbers_in_range),      cmocka_unit_test(test_every_code_point),
        cmocka_unit_test(test_utf8_that_is_not),      cmocka_unit_test(test_code_points),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
