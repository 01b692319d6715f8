/* What a header's value is taken for. */
#include "testing.h"

#include "doorbuster/idempotency_key.h"

#include <stdio.h>
#include <string.h>

static void expect_key(const char *value, const char *expected)
{
    const char *key;
    size_t bytes;
    if (!idempotency_key_parse(value, &key, &bytes) || bytes != strlen(expected) ||
        memcmp(key, expected, bytes) != 0) {
        fail_msg("|%s| was not taken for |%s|", value, expected);
    }
}

static void expect_none(const char *value)
{
    const char *key;
    size_t bytes;
    if (idempotency_key_parse(value, &key, &bytes)) {
        fail_msg("|%s| was taken for a key", value);
    }
}

static void test_quoted_or_not(void **state)
{
    (void)state;
    expect_key("abc", "abc");
    expect_key("\"abc\"", "abc");
    expect_key(" \t\"abc\" \t", "abc");
    expect_key("  abc ", "abc");
    /* Only as a pair, only around the whole, only once. */
    expect_key("\"abc", "\"abc");
    expect_key("abc\"", "abc\"");
    expect_key("a\"b\"c", "a\"b\"c");
    expect_key("\"\"abc\"\"", "\"abc\"");
    expect_key("\"", "\"");
    expect_key("\"\"\"", "\"");
    expect_key("'abc'", "'abc'");
    expect_key("!#$%&()*+,-./:;<=>?@[]^_`{|}~", "!#$%&()*+,-./:;<=>?@[]^_`{|}~");
}

static void test_none(void **state)
{
    (void)state;
    expect_none("");
    expect_none("  ");
    expect_none("\"\"");
    expect_none("\" \"");
    expect_none("a b");
    expect_none("\"a b\"");
    expect_none("a\tb");
    expect_none("a\nb");
    expect_none("a\x01");
    expect_none("a\x7f");
    expect_none("\xc3\xa4");
    expect_none("a\xff");
}

static void test_every_byte(void **state)
{
    (void)state;
    for (int byte = 0; byte < 256; byte++) {
        char text[3] = {'k', (char)byte, 'k'};
        assert_int_equal(idempotency_key_is_valid(text, 3), byte >= 0x21 && byte <= 0x7e);
    }
}

static void test_lengths(void **state)
{
    char plain[IDEMPOTENCY_KEY_BYTES_MAX + 2], quoted[IDEMPOTENCY_KEY_BYTES_MAX + 4];
    (void)state;
    for (size_t bytes = 1; bytes <= IDEMPOTENCY_KEY_BYTES_MAX + 1; bytes++) {
        memset(plain, 'k', bytes);
        plain[bytes] = '\0';
        snprintf(quoted, sizeof quoted, "\"%s\"", plain);
        if (bytes <= IDEMPOTENCY_KEY_BYTES_MAX) {
            expect_key(plain, plain);
            expect_key(quoted, plain);
        } else {
            expect_none(plain);
            expect_none(quoted);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_quoted_or_not),
        cmocka_unit_test(test_none),
        cmocka_unit_test(test_every_byte),
        cmocka_unit_test(test_lengths),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
