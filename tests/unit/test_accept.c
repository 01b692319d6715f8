/* Accept headers: who gets the shop window and who gets JSON at "/". */
#include "accept.h"
#include "testing.h"

static void test_browsers_get_html(void **state)
{
    (void)state;
    assert_true(accept_prefers_html(
        "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8"));
    assert_true(accept_prefers_html("text/html"));
    assert_true(accept_prefers_html("TEXT/HTML;level=1 , application/json; q=0.9"));
    assert_true(accept_prefers_html("text/*;q=0.3, */*;q=0.1"));
    assert_true(accept_prefers_html("text/html, application/json;q=0"));
}

static void test_others_get_json(void **state)
{
    static const char *const accepts[] = {"*/*",
                                          "application/json",
                                          "",
                                          ",,;q=1",
                                          "text/html;q=0.5, application/json",
                                          "text/html, application/json",
                                          "text/html;q=0",
                                          "*/*, text/html;q=0.2",
                                          "application/json, text/plain, */*",
                                          "text/htmlx",
                                          "q=1"};
    (void)state;
    assert_false(accept_prefers_html(NULL));
    for (size_t i = 0; i < sizeof accepts / sizeof accepts[0]; i++) {
        if (accept_prefers_html(accepts[i])) {
            fail_msg("\"%s\" prefers HTML", accepts[i]);
        }
    }
}

static void test_quality(void **state)
{
    (void)state;
    assert_int_equal(accept_quality("text/html;q=0.85", "text/html"), 850);
    assert_int_equal(accept_quality("text/html; q=1.000", "text/html"), 1000);
    assert_int_equal(accept_quality("text/html;q=9", "text/html"), 1000);
    assert_int_equal(accept_quality("text/html;q=0.12345678901234567890", "text/html"), 123);
    assert_int_equal(accept_quality("text/html;q=x", "text/html"), 0);
    assert_int_equal(accept_quality("*/*;q=0.1, text/*;q=0.2, text/html;q=0.3", "text/html"), 300);
    assert_int_equal(accept_quality("image/png", "text/html"), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_browsers_get_html),
        cmocka_unit_test(test_others_get_json),
        cmocka_unit_test(test_quality),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
