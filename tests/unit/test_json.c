/* json.h: what is let in, what is kept out, and how numbers and strings come out. */
#include "doorbuster/json.h"

#include "doorbuster/text.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* From memory of exactly this size, so that the address sanitizer sees a byte read too many. */
static cJSON *parse_bytes(const char *text, size_t bytes)
{
    char *exact = malloc(bytes == 0 ? 1 : bytes);

    assert_non_null(exact);
    memcpy(exact, text, bytes);
    cJSON *object = json_parse_object(exact, bytes);
    free(exact);
    return object;
}

static bool parses_bytes(const char *text, size_t bytes)
{
    cJSON *object = parse_bytes(text, bytes);
    bool good = object != NULL;

    cJSON_Delete(object);
    return good;
}

static bool parses(const char *text)
{
    return parses_bytes(text, strlen(text));
}

static void test_objects_that_are_good(void **state)
{
    static const char *const cases[] = {
        "{}",
        " \t\r\n{ } \n",
        "{\"a\":1}",
        "{\"a\":[],\"b\":{},\"c\":null,\"d\":true,\"e\":false}",
        "{\"a\":-0.5e+10,\"b\":0,\"c\":1E-2}",
        "{\"\":\"\"}",
        "{\"a\":\"\\\"\\\\\\/\\b\\f\\n\\r\\t\\u00e4\\ud83d\\ude00\"}",
        "{\"\xC3\xA4\":\"\xF0\x9F\x98\x80\"}",
        "{\"a\" : [ 1 , 2 , { \"b\" : 3 } ] }",
        "{\"a\":1,\"a\":2}",
        "{\"a\":\"\x7F\"}",
        "{\"a\":123456789012345678901234567890123456789012345678901234567890123}",
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        if (!parses(cases[i]))
            fail_msg("refused: %s", cases[i]);
    }
}

static void test_texts_that_are_not(void **state)
{
    static const char *const cases[] = {
        "",
        " ",
        "{",
        "}",
        "[]",
        "[{}]",
        "1",
        "\"a\"",
        "null",
        "{}{}",
        "{}x",
        "{},",
        "{\"a\"}",
        "{\"a\":}",
        "{\"a\":1,}",
        "{,}",
        "{a:1}",
        "{'a':1}",
        "{\"a\":1 \"b\":2}",
        "{\"a\":[1,]}",
        "{\"a\":[,1]}",
        "{\"a\":[1}",
        "{\"a\":{]}",
        "{\"a\":tru}",
        "{\"a\":True}",
        "{\"a\":nul",
        "{\"a\":NaN}",
        "{\"a\":Infinity}",
        "{1:2}",
        "\xEF\xBB\xBF{}",
        "{}//",
        "/**/{}",
        "{\"a\":\v1}",
        "\f{}",
        "{\xC2\xA0}",
        /* numbers */
        "{\"a\":01}",
        "{\"a\":-01}",
        "{\"a\":00}",
        "{\"a\":+1}",
        "{\"a\":-}",
        "{\"a\":.5}",
        "{\"a\":-.5}",
        "{\"a\":1.}",
        "{\"a\":1.e3}",
        "{\"a\":1e}",
        "{\"a\":1e+}",
        "{\"a\":1e+-2}",
        "{\"a\":0x10}",
        "{\"a\":1_000}",
        "{\"a\":1-2}",
        "{\"a\":--1}",
        "{\"a\":1 2}",
        "{\"a\":1234567890123456789012345678901234567890123456789012345678901234}",
        /* strings */
        "{\"a\":\"",
        "{\"a\":\"\\",
        "{\"a\":\"\\\"}",
        "{\"a\":\"\\x41\"}",
        "{\"a\":\"\\u12\"}",
        "{\"a\":\"\\u12g4\"}",
        "{\"a\":\"\n\"}",
        "{\"a\":\"\x1f\"}",
        "{\"a\":\"\\u0000\"}",
        "{\"\\u0000\":1}",
        "{\"a\":\"\\ud83d\"}",
        "{\"a\":\"\\ude00\"}",
        "{\"a\":\"\\ud83d\\u0041\"}",
        "{\"a\":\"\\ud83dx\"}",
        "{\"a\":\"\\ud83d\\ud83d\"}",
        "{\"a\":\"\xFF\"}",
        "{\"a\":\"\xC0\x80\"}",
        "{\"a\":\"\xED\xA0\x80\"}",
        "{\"a\":\"\xC3\"}",
        "{\"\x80\":1}",
        "{\"a\":\xC3\xA4}",
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        if (parses(cases[i]))
            fail_msg("taken: %s", cases[i]);
    }
    assert_false(parses_bytes("{}\0", 3));
    assert_false(parses_bytes("{\"a\":\"\0\"}", 9));
    assert_false(parses_bytes("{\"a\":\"\\\0\"}", 10));
    assert_null(json_parse_object(NULL, 0));
}

static void test_depth(void **state)
{
    char text[256];

    (void)state;
    for (int depth = 1; depth <= 40; depth++) {
        for (int arrays = 0; arrays <= 1; arrays++) {
            size_t used = 0;
            for (int i = 0; i < depth; i++)
                used += (size_t)snprintf(text + used, sizeof text - used, "%s",
                                         i == 0   ? "{\"a\":"
                                         : arrays ? "["
                                                  : "{\"a\":");
            text[used++] = '1';
            for (int i = 0; i < depth; i++)
                text[used++] = arrays && i < depth - 1 ? ']' : '}';
            assert_int_equal(parses_bytes(text, used), depth <= 16);
        }
    }
}

static void test_a_million_brackets(void **state)
{
    const size_t bytes = 1000000;
    char *text = malloc(bytes);

    (void)state;
    assert_non_null(text);
    memset(text, '[', bytes);
    memcpy(text, "{\"a\":", 5);
    assert_null(json_parse_object(text, bytes));
    free(text);
}

static const char sample[] =
    " {\"product_id\": 12, \"quantity\":-1.5e2, \"x\":[true,null,{\"y\":\"\\u00e4\xC3\xA4\\n\"}]}";

static void test_every_prefix_is_refused(void **state)
{
    (void)state;
    assert_true(parses(sample));
    for (size_t bytes = 0; bytes < strlen(sample); bytes++)
        assert_false(parses_bytes(sample, bytes));
}

static void test_every_changed_byte_is_harmless(void **state)
{
    char text[sizeof sample];

    (void)state;
    for (size_t at = 0; at < strlen(sample); at++) {
        memcpy(text, sample, sizeof sample);
        for (int byte = 0; byte < 256; byte++) {
            text[at] = (char)byte;
            if (parses_bytes(text, strlen(sample)))
                assert_true(text_is_utf8(text, strlen(sample)));
        }
    }
}

static enum json_field integer(const char *value, int64_t min, int64_t max, int64_t *out)
{
    char text[256];

    snprintf(text, sizeof text, "{\"n\":%s,\"N\":1}", value);
    cJSON *object = json_parse_object(text, strlen(text));
    assert_non_null(object);
    enum json_field field = json_get_integer(object, "n", min, max, out);
    cJSON_Delete(object);
    return field;
}

static void test_integers(void **state)
{
    static const struct {
        const char *text;
        enum json_field field;
        int64_t value;
    } cases[] = {
        {"7", JSON_FIELD_OK, 7},
        {"-0", JSON_FIELD_OK, 0},
        {"1.0", JSON_FIELD_OK, 1},
        {"1e3", JSON_FIELD_OK, 1000},
        {"12.5e1", JSON_FIELD_OK, 125},
        {"9007199254740991", JSON_FIELD_OK, JSON_INTEGER_MAX},
        {"-9007199254740991", JSON_FIELD_OK, -JSON_INTEGER_MAX},
        {"9007199254740992", JSON_FIELD_OUT_OF_RANGE, 0},
        {"9007199254740993", JSON_FIELD_OUT_OF_RANGE, 0},
        {"-9007199254740992", JSON_FIELD_OUT_OF_RANGE, 0},
        {"9223372036854775808", JSON_FIELD_OUT_OF_RANGE, 0},
        {"1e300", JSON_FIELD_OUT_OF_RANGE, 0},
        {"1e999", JSON_FIELD_OUT_OF_RANGE, 0},
        {"-1e999", JSON_FIELD_OUT_OF_RANGE, 0},
        {"1.5", JSON_FIELD_WRONG_TYPE, 0},
        {"0.1", JSON_FIELD_WRONG_TYPE, 0},
        {"\"1\"", JSON_FIELD_WRONG_TYPE, 0},
        {"true", JSON_FIELD_WRONG_TYPE, 0},
        {"[1]", JSON_FIELD_WRONG_TYPE, 0},
        {"null", JSON_FIELD_MISSING, 0},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        int64_t value = 99;
        enum json_field field = integer(cases[i].text, -JSON_INTEGER_MAX, JSON_INTEGER_MAX, &value);
        if (field != cases[i].field)
            fail_msg("%s: %d", cases[i].text, (int)field);
        assert_int_equal(value, field == JSON_FIELD_OK ? cases[i].value : 99);
    }
}

static void test_integers_in_range(void **state)
{
    int64_t value = 0;

    (void)state;
    assert_int_equal(integer("1", 1, 1000, &value), JSON_FIELD_OK);
    assert_int_equal(integer("1000", 1, 1000, &value), JSON_FIELD_OK);
    assert_int_equal(integer("0", 1, 1000, &value), JSON_FIELD_OUT_OF_RANGE);
    assert_int_equal(integer("1001", 1, 1000, &value), JSON_FIELD_OUT_OF_RANGE);
    assert_int_equal(integer("-1", 1, 1000, &value), JSON_FIELD_OUT_OF_RANGE);

    cJSON *object = json_parse_object("{\"N\":1}", 7);
    assert_int_equal(json_get_integer(object, "n", 0, 9, &value),
                     JSON_FIELD_MISSING); /* names keep their case */
    cJSON_Delete(object);
    object = json_parse_object("{\"n\":1,\"n\":2}", 13);
    assert_int_equal(json_get_integer(object, "n", 0, 9, &value), JSON_FIELD_OK);
    assert_int_equal(value, 1);
    cJSON_Delete(object);
}

static void test_strings(void **state)
{
    static const char text[] = "{\"empty\":\"\",\"three\":\"\xC3\xA4\xE2\x82\xAC\xF0\x9F\x98\x80\","
                               "\"escaped\":\"a\\u00e4\\n\",\"n\":1,\"z\":null}";
    cJSON *object = json_parse_object(text, strlen(text));
    const char *out = NULL;

    (void)state;
    assert_non_null(object);
    assert_int_equal(json_get_string(object, "three", 3, 3, &out), JSON_FIELD_OK);
    assert_string_equal(out, "\xC3\xA4\xE2\x82\xAC\xF0\x9F\x98\x80");
    assert_int_equal(json_get_string(object, "three", 4, 9, &out), JSON_FIELD_OUT_OF_RANGE);
    assert_int_equal(json_get_string(object, "three", 0, 2, &out), JSON_FIELD_OUT_OF_RANGE);
    assert_int_equal(json_get_string(object, "escaped", 3, 3, &out), JSON_FIELD_OK);
    assert_string_equal(out, "a\xC3\xA4\n");
    assert_int_equal(json_get_string(object, "empty", 0, 2, &out), JSON_FIELD_OK);
    assert_int_equal(json_get_string(object, "empty", 1, 2, &out), JSON_FIELD_OUT_OF_RANGE);
    assert_int_equal(json_get_string(object, "n", 0, 2, &out), JSON_FIELD_WRONG_TYPE);
    assert_int_equal(json_get_string(object, "z", 0, 2, &out), JSON_FIELD_MISSING);
    assert_int_equal(json_get_string(object, "none", 0, 2, &out), JSON_FIELD_MISSING);
    cJSON_Delete(object);
}

static void test_quote(void **state)
{
    char out[64];

    (void)state;
    assert_int_equal(json_quote("", out, sizeof out), 2);
    assert_string_equal(out, "\"\"");
    assert_int_equal(json_quote("a\"b\\c/\n\r\t\b\f\x01\x1f\x7f", out, sizeof out), 33);
    assert_string_equal(out, "\"a\\\"b\\\\c/\\n\\r\\t\\b\\f\\u0001\\u001f\x7f\"");
    json_quote("\xC3\xA4\xFF!\xE2\x82", out, sizeof out); /* what is not UTF-8 is shown as U+FFFD */
    assert_string_equal(out, "\"\xC3\xA4\xEF\xBF\xBD!\xEF\xBF\xBD\xEF\xBF\xBD\"");
}

static void test_quote_that_does_not_fit(void **state)
{
    static const char text[] = "a\n\x01\xC3\xA4";
    const size_t wanted = 1 + 1 + 2 + 6 + 2 + 1;

    (void)state;
    for (size_t room = 0; room <= wanted + 2; room++) {
        char *out = malloc(room == 0 ? 1 : room);
        assert_non_null(out);
        assert_int_equal(json_quote(text, out, room), room > wanted ? wanted : 0);
        free(out);
    }
}

static void test_quote_and_parse_again(void **state)
{
    char text[300], quoted[2048], object_text[2100];
    size_t used = 0;
    const char *out = NULL;

    (void)state;
    for (int byte = 1; byte < 128; byte++)
        text[used++] = (char)byte;
    snprintf(text + used, sizeof text - used, "\xC3\xA4\xF0\x9F\x98\x80");
    assert_true(json_quote(text, quoted, sizeof quoted) > 0);
    snprintf(object_text, sizeof object_text, "{\"s\":%s}", quoted);
    cJSON *object = json_parse_object(object_text, strlen(object_text));
    assert_non_null(object);
    assert_int_equal(json_get_string(object, "s", 0, 1000, &out), JSON_FIELD_OK);
    assert_string_equal(out, text);
    cJSON_Delete(object);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_objects_that_are_good),
        cmocka_unit_test(test_texts_that_are_not),
        cmocka_unit_test(test_depth),
        cmocka_unit_test(test_a_million_brackets),
        cmocka_unit_test(test_every_prefix_is_refused),
        cmocka_unit_test(test_every_changed_byte_is_harmless),
        cmocka_unit_test(test_integers),
        cmocka_unit_test(test_integers_in_range),
        cmocka_unit_test(test_strings),
        cmocka_unit_test(test_quote),
        cmocka_unit_test(test_quote_that_does_not_fit),
        cmocka_unit_test(test_quote_and_parse_again),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
