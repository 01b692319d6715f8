/* The login form's fields. */
#include "testing.h"

#include "form.h"

#include <stdlib.h>
#include <string.h>

#define ROOM 16

/* The body lies at the end of its memory, without a terminator. */
static enum form_field get(const char *body, size_t bytes, const char *name, char out[ROOM])
{
    char *exact = malloc(bytes > 0 ? bytes : 1);
    assert_non_null(exact);
    memcpy(exact, body, bytes);
    memset(out, '?', ROOM);
    enum form_field found = form_get(exact, bytes, name, out, ROOM);
    free(exact);
    return found;
}

static void test_fields_that_are_there(void **state)
{
    static const struct {
        const char *body, *name, *value;
    } list[] = {
        {"username=anna&password=secret", "username", "anna"},
        {"username=anna&password=secret", "password", "secret"},
        {"password=secret", "password", "secret"},
        {"a=", "a", ""},
        {"a=&b=c", "a", ""},
        {"&&a=b&&", "a", "b"},
        {"a=b=c", "a", "b=c"},
        {"a=one+two", "a", "one two"},
        {"a=%2b%2B", "a", "++"},
        {"a=%26%3d", "a", "&="},
        {"a=%ec%95%88", "a", "\xec\x95\x88"},
        {"a=\xec\x95\x88", "a", "\xec\x95\x88"},
        {"ab=1&a=2&aa=3", "a", "2"},
        {"xa=1&a=2", "a", "2"},
        {"a=123456789012345", "a", "123456789012345"}, /* just fits */
        {"a=%31%32%33%34%35%36%37%38%39%30%31%32%33%34%35", "a", "123456789012345"},
    };
    char out[ROOM];
    (void)state;
    for (size_t i = 0; i < sizeof list / sizeof list[0]; i++) {
        if (get(list[i].body, strlen(list[i].body), list[i].name, out) != FORM_OK ||
            strcmp(out, list[i].value) != 0) {
            fail_msg("\"%s\" of \"%s\" is \"%.15s\"", list[i].name, list[i].body, out);
        }
    }
}

static void test_fields_that_are_not(void **state)
{
    static const char *const missing[] = {"",    "&",     "=",    "=a",   "b=c",  "a",    "a&b=c",
                                          "A=b", "%61=b", "ab=c", "xa=c", " a=b", "b=a=c"};
    char out[ROOM];
    (void)state;
    for (size_t i = 0; i < sizeof missing / sizeof missing[0]; i++) {
        if (get(missing[i], strlen(missing[i]), "a", out) != FORM_MISSING) {
            fail_msg("\"%s\" has a field a", missing[i]);
        }
    }
}

static void test_fields_that_are_bad(void **state)
{
    static const char *const bad[] = {"a=b&a=b",
                                      "a=b&a=c",
                                      "a=&a=",
                                      "a=b&c=d&a=e",
                                      "a=%",
                                      "a=%4",
                                      "a=%zz",
                                      "a=%4z",
                                      "a=%z4",
                                      "a=b%",
                                      "a=%%31",
                                      "a=%00",
                                      "a=b%00c",
                                      "a=%ff",
                                      "a=%c0%80",
                                      "a=%ed%a0%80",
                                      "a=%ec%95",
                                      "a=\xff",
                                      "a=% 1",
                                      "a=%4&b=1",
                                      "a=1234567890123456",
                                      "a=%31%32%33%34%35%36%37%38%39%30%31%32%33%34%35%36"};
    static const char with_nul[] = "a=b\0c";
    char out[ROOM];
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        if (get(bad[i], strlen(bad[i]), "a", out) != FORM_BAD) {
            fail_msg("\"%s\" was taken", bad[i]);
        }
    }
    assert_int_equal(get(with_nul, sizeof with_nul - 1, "a", out), FORM_BAD);
    /* What is wrong with another field is not this one's fault. */
    assert_int_equal(get("b=%zz&a=c", 9, "a", out), FORM_OK);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_fields_that_are_there),
                                       cmocka_unit_test(test_fields_that_are_not),
                                       cmocka_unit_test(test_fields_that_are_bad)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
