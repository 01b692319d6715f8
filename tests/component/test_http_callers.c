/* Who asks, and what browsers are told: request ids, clients behind proxies, CORS, what a page may do. Real sockets; each header that comes from outside is
 * also tried as an attacker would send it. */
#include "http_fixture.h"
#include "testing.h"

#include "doorbuster/log.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* --- request ids ------------------------------------------------------------------------------------- */

static void test_a_good_id_comes_back(void **state)
{
    static const char *const good[] = {"a", "0123456789abcdef", "Order-7_x.y",
                                       "1234567890123456789012345678901234567890123456789012345678901234"};
    static const char *const calls[][2] = {{"GET", "/now"}, {"POST", "/prebuilt"}, {"GET", "/nothing"},
                                           {"PUT", "/now"}, {"GET", "/page"},      {"GET", "/later"}};
    struct http_fixture fixture;
    struct http_answer answer;
    char header[128];
    (void)state;
    http_fixture_start(&fixture, &(struct http_settings){0});
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++)
        for (size_t j = 0; j < sizeof calls / sizeof calls[0]; j++) {
            if (i > 0 && strcmp(calls[j][1], "/later") == 0)
                continue;
            snprintf(header, sizeof header, "x-request-ID: %s\r\n", good[i]);
            http_fixture_call(&fixture, calls[j][0], calls[j][1], header, &answer);
            expect_answer_header(&answer, "X-Request-Id", good[i]);
            http_answer_free(&answer);
        }
    http_fixture_stop(&fixture);
}

/* What could end the header, or the log line that it goes into, never comes back. */
static void test_a_bad_id_is_replaced(void **state)
{
    static const char *const bad[] = {"",
                                      "a b",
                                      "a\tb",
                                      "a\"b",
                                      "a;b",
                                      "a=b",
                                      "\xc3\xa9",
                                      "a\x01",
                                      "<script>",
                                      "{}",
                                      "a%0d%0aX-Bad: 1",
                                      "12345678901234567890123456789012345678901234567890123456789012345"};
    struct http_fixture fixture;
    struct http_answer answer;
    char header[256], first[128], second[128];
    (void)state;
    http_fixture_start(&fixture, &(struct http_settings){0});
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        snprintf(header, sizeof header, "X-Request-Id: %s\r\n", bad[i]);
        http_fixture_call(&fixture, "GET", "/now", header, &answer);
        assert_int_equal(answer.status, 200);
        assert_non_null(http_answer_header(&answer, "X-Request-Id", first, sizeof first));
        assert_int_equal(strlen(first), 16);
        assert_int_equal(strspn(first, "0123456789abcdef"), 16);
        expect_answer_header(&answer, "X-Bad", NULL);
        http_answer_free(&answer);
        /* a prebuilt answer carries none that the client does not know */
        http_fixture_call(&fixture, "POST", "/prebuilt", header, &answer);
        expect_answer_header(&answer, "X-Request-Id", NULL);
        http_answer_free(&answer);
    }
    /* two are none; a bare CR, which would end the line for some, is not passed on */
    http_fixture_call(&fixture, "GET", "/now", "X-Request-Id: one\r\nX-Request-Id: two\r\n", &answer);
    assert_non_null(http_answer_header(&answer, "X-Request-Id", second, sizeof second));
    assert_string_not_equal(second, "one");
    assert_string_not_equal(second, "two");
    assert_string_not_equal(second, first);
    http_answer_free(&answer);
    http_fixture_call(&fixture, "GET", "/now", "X-Request-Id: a\rX-Bad: 1\r\n", &answer);
    assert_null(strstr(answer.head, "a\rX-Bad"));
    expect_answer_header(&answer, "X-Bad", NULL);
    http_answer_free(&answer);
    http_fixture_stop(&fixture);
}

/* Refused before there is a route: the id is still there. */
static void test_refused_heads_have_an_id(void **state)
{
    struct http_fixture fixture;
    struct http_answer answer;
    (void)state;
    http_fixture_start(&fixture, &(struct http_settings){0});
    http_fixture_call(&fixture, "GET", "/now", "Host: twice\r\nX-Request-Id: mine\r\n", &answer);
    assert_int_equal(answer.status, 400);
    expect_answer_header(&answer, "X-Request-Id", "mine");
    http_answer_free(&answer);
    http_fixture_call(&fixture, "POST", "/prebuilt", "X-Request-Id: mine\r\nConnection: close\r\n", &answer);
    assert_int_equal(answer.status, 400);
    assert_string_equal(answer.body, "{\"detail\":\"Insufficient stock\"}");
    expect_answer_header(&answer, "X-Request-Id", "mine");
    expect_answer_header(&answer, "Content-Type", "application/problem+json");
    expect_answer_header(&answer, "Cache-Control", "no-store");
    http_answer_free(&answer);
    http_fixture_stop(&fixture);
}

/* At debug each answer has a line with its id, the prebuilt ones too. */
static void test_a_logged_id_comes_back(void **state)
{
    struct http_fixture fixture;
    struct http_answer answer;
    char id[128] = "";
    (void)state;
    log_set_level(LOG_DEBUG);
    http_fixture_start(&fixture, &(struct http_settings){0});
    log_set_level(LOG_INFO);
    http_fixture_call(&fixture, "POST", "/prebuilt", NULL, &answer);
    assert_non_null(http_answer_header(&answer, "X-Request-Id", id, sizeof id));
    assert_int_equal(strspn(id, "0123456789abcdef"), 16);
    http_answer_free(&answer);
    http_fixture_stop(&fixture);
}

/* --- the client ---------------------------------------------------------------------------------------- */

static void expect_client(const struct http_fixture *fixture, const char *headers, const char *client,
                          bool is_local)
{
    struct http_answer answer;
    http_fixture_call(fixture, "GET", "/who", headers, &answer);
    cJSON *who = cJSON_Parse(answer.body);
    assert_non_null(who);
    const char *given = cJSON_GetObjectItem(who, "client")->valuestring;
    if (strcmp(given, client) != 0)
        fail_msg("%s: %s instead of %s", headers ? headers : "(no header)", given, client);
    assert_int_equal(cJSON_IsTrue(cJSON_GetObjectItem(who, "local")), is_local);
    cJSON_Delete(who);
    http_answer_free(&answer);
}

static void test_nobody_is_believed_by_default(void **state)
{
    struct http_fixture fixture;
    (void)state;
    http_fixture_start(&fixture, &(struct http_settings){0});
    expect_client(&fixture, NULL, "127.0.0.1", true);                              /* not ::ffff:127.0.0.1 */
    expect_client(&fixture, "X-Forwarded-For: 192.0.2.7\r\n", "127.0.0.1", false); /* a proxy's */
    http_fixture_stop(&fixture);
    http_fixture_start(&fixture, &(struct http_settings){.trusted_proxies = "10.0.0.1,192.168.0.0/16"});
    expect_client(&fixture, "X-Forwarded-For: 192.0.2.7\r\n", "127.0.0.1", false); /* a proxy's */
    http_fixture_stop(&fixture);
}

static void test_behind_trusted_proxies(void **state)
{
    static const struct {
        const char *headers, *client;
    } cases[] = {
        {"X-Forwarded-For: 192.0.2.7\r\n", "192.0.2.7"},
        {"x-forwarded-for:  192.0.2.7 \r\n", "192.0.2.7"},
        {"X-Forwarded-For: 2001:DB8:0:0::1\r\n", "2001:db8::1"},
        {"X-Forwarded-For: ::ffff:192.0.2.7\r\n", "192.0.2.7"},
        {"X-Forwarded-For: 192.0.2.7:5555\r\n", "192.0.2.7"},
        {"X-Forwarded-For: [2001:db8::1]:5555\r\n", "2001:db8::1"},
        /* forged on the left: the proxy wrote what is on the right */
        {"X-Forwarded-For: 127.0.0.1, 192.0.2.7\r\n", "192.0.2.7"},
        {"X-Forwarded-For: 203.0.113.1, 192.0.2.7, 10.1.2.3, 127.0.0.1\r\n", "192.0.2.7"},
        {"X-Forwarded-For: 203.0.113.1\r\nX-Forwarded-For: 192.0.2.7\r\n", "192.0.2.7"},
        {"X-Forwarded-For: 203.0.113.1, 192.0.2.7\r\nX-Forwarded-For: 10.1.2.3\r\n", "192.0.2.7"},
        {"X-Forwarded-For: nonsense, 192.0.2.7\r\n", "192.0.2.7"},
        {"X-Forwarded-For: 203.0.113.1, nonsense, 10.1.2.3\r\n", "10.1.2.3"},
        {"X-Forwarded-For: 203.0.113.1, , 10.1.2.3\r\n", "10.1.2.3"},
        {"X-Forwarded-For: 10.1.2.3, 10.1.2.4\r\n", "10.1.2.3"}, /* all trusted: the farthest */
        {"X-Forwarded-For: \r\n", "127.0.0.1"},
        {"X-Forwarded-For: ,\r\n", "127.0.0.1"},
        {"X-Forwarded-For: 999.0.0.1\r\n", "127.0.0.1"},
        {"X-Forwarded-For: 192.0.2.7/8\r\n", "127.0.0.1"},
        {"X-Forwarded-For: 1111111111111111111111111111111111111111111111111111111111111111111111\r\n",
         "127.0.0.1"},
        {"X-Forwarded-For: fe80::1%eth0\r\n", "127.0.0.1"},
    };
    struct http_fixture fixture;
    (void)state;
    http_fixture_start(
        &fixture, &(struct http_settings){.trusted_proxies = "127.0.0.1, 10.0.0.0/9,2001:db8:ffff::/48"});
    expect_client(&fixture, NULL, "127.0.0.1", true);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        expect_client(&fixture, cases[i].headers, cases[i].client, false);
    expect_client(&fixture, "X-Forwarded-For: 192.0.2.7, 2001:db8:ffff:1::9\r\n", "192.0.2.7", false);
    expect_client(&fixture, "X-Forwarded-For: 192.0.2.7, 10.200.0.1\r\n", "10.200.0.1", false);
    http_fixture_stop(&fixture);
}

/* --- one address ------------------------------------------------------------------------------------------ */

static enum http_client_result open_and_ask(const struct http_fixture *fixture, const char *host,
                                            struct http_client *client)
{
    struct http_answer answer = {0};
    enum http_client_result result = http_client_open(client, host, fixture->port, HTTP_FIXTURE_PATIENCE_MS);
    assert_int_equal(result, HTTP_CLIENT_OK);
    result = http_client_call(client, "GET", "/now", "Connection: keep-alive\r\n", NULL, &answer,
                              HTTP_FIXTURE_PATIENCE_MS);
    http_answer_free(&answer);
    return result;
}

/* Four connections of three are one too many; not of another address, nor of a trusted proxy; and one that has ended makes room. */
static void test_one_address_cannot_take_all(void **state)
{
    struct http_fixture fixture;
    struct http_client clients[4], local[4];
    char own[64];
    (void)state;
    assert_true(http_client_own_address(own));
    http_fixture_start(&fixture, &(struct http_settings){.connections_per_address_max = 3});
    for (size_t i = 0; i < 3; i++)
        assert_int_equal(open_and_ask(&fixture, own, &clients[i]), HTTP_CLIENT_OK);
    assert_int_not_equal(open_and_ask(&fixture, own, &clients[3]), HTTP_CLIENT_OK);
    for (size_t i = 0; i < 4; i++)
        assert_int_equal(open_and_ask(&fixture, "127.0.0.1", &local[i]), HTTP_CLIENT_OK);
    http_client_close(&clients[1]);
    int64_t deadline = deadline_in(HTTP_FIXTURE_PATIENCE_MS);
    while (open_and_ask(&fixture, own, &clients[3]) != HTTP_CLIENT_OK) {
        http_client_close(&clients[3]);
        assert_true(wait_a_moment(deadline)); /* the server has yet to see that the other has gone */
    }
    assert_int_not_equal(open_and_ask(&fixture, own, &clients[1]), HTTP_CLIENT_OK);
    for (size_t i = 0; i < 4; i++) {
        http_client_close(&clients[i]);
        http_client_close(&local[i]);
    }
    http_fixture_stop(&fixture);

    http_fixture_start(&fixture,
                       &(struct http_settings){.connections_per_address_max = 3, .trusted_proxies = own});
    for (size_t i = 0; i < 4; i++)
        assert_int_equal(open_and_ask(&fixture, own, &clients[i]), HTTP_CLIENT_OK);
    for (size_t i = 0; i < 4; i++)
        http_client_close(&clients[i]);
    http_fixture_stop(&fixture);
}

/* --- settings ------------------------------------------------------------------------------------------ */

static void test_bad_settings_are_named(void **state)
{
    static const char *const proxies[] = {"10.0.0", "10.0.0.1/33",   "10.0.0.1/",   "::1/129",
                                          "x",      "10.0.0.1,,::1", "10.0.0.1/-1", "10.0.0.1;::1"};
    static const char *const origins[] = {"shop.example",          "https://",
                                          "https://shop.example/", "ftp://x.example",
                                          "*,https://x.example",   "https://a.example,,https://b.example",
                                          "https://a.example b",   "null",
                                          "https://SHOP.example"};
    char error[256];
    (void)state;
    for (size_t i = 0; i < sizeof proxies / sizeof proxies[0]; i++) {
        const struct http_settings settings = {.trusted_proxies = proxies[i]};
        assert_false(http_settings_check(&settings, error, sizeof error));
        assert_non_null(strstr(error, "must be"));
    }
    for (size_t i = 0; i < sizeof origins / sizeof origins[0]; i++) {
        const struct http_settings settings = {.cors_origins = origins[i]};
        assert_false(http_settings_check(&settings, error, sizeof error));
        assert_non_null(strstr(error, "must be"));
    }
    const struct http_settings good = {.trusted_proxies = "::1, 10.0.0.0/8",
                                       .cors_origins = "https://a.example,http://localhost:3000"};
    assert_true(http_settings_check(&good, error, sizeof error));
}

/* --- browsers ------------------------------------------------------------------------------------------ */

static void test_what_a_page_may_do(void **state)
{
    struct http_fixture fixture;
    struct http_answer answer;
    char policy[512];
    (void)state;
    http_fixture_start(&fixture, &(struct http_settings){0});
    http_fixture_call(&fixture, "GET", "/page", NULL, &answer);
    assert_non_null(http_answer_header(&answer, "Content-Security-Policy", policy, sizeof policy));
    assert_non_null(strstr(policy, "default-src 'self'"));
    assert_non_null(strstr(policy, "frame-ancestors 'none'"));
    assert_null(strstr(policy, "unsafe"));
    expect_answer_header(&answer, "X-Content-Type-Options", "nosniff");
    expect_answer_header(&answer, "Referrer-Policy", "no-referrer");
    assert_non_null(http_answer_header(&answer, "Permissions-Policy", policy, sizeof policy));
    expect_answer_header(&answer, "Strict-Transport-Security", NULL); /* this is not TLS */
    http_answer_free(&answer);
    http_fixture_call(&fixture, "GET", "/now", NULL, &answer);
    expect_answer_header(&answer, "X-Content-Type-Options", "nosniff");
    expect_answer_header(&answer, "Content-Security-Policy", NULL);
    http_answer_free(&answer);
    http_fixture_stop(&fixture);
}

static void test_cors_is_closed(void **state)
{
    static const char origin[] = "Origin: https://shop.example\r\nAccess-Control-Request-Method: POST\r\n";
    struct http_fixture fixture;
    struct http_answer answer;
    (void)state;
    http_fixture_start(&fixture, &(struct http_settings){0});
    http_fixture_call(&fixture, "GET", "/now", origin, &answer);
    assert_int_equal(answer.status, 200);
    assert_null(strstr(answer.head, "Access-Control"));
    http_answer_free(&answer);
    http_fixture_call(&fixture, "OPTIONS", "/echo", origin, &answer);
    assert_int_equal(answer.status, 405);
    expect_answer_header(&answer, "Allow", "POST");
    assert_null(strstr(answer.head, "Access-Control"));
    http_answer_free(&answer);
    http_fixture_stop(&fixture);
}

static void expect_origin(const struct http_fixture *fixture, const char *method, const char *target,
                          const char *headers, int status, const char *allowed)
{
    struct http_answer answer;
    http_fixture_call(fixture, method, target, headers, &answer);
    assert_int_equal(answer.status, status);
    expect_answer_header(&answer, "Access-Control-Allow-Origin", allowed);
    expect_answer_header(&answer, "Access-Control-Allow-Credentials", NULL);
    if (allowed)
        expect_answer_header(&answer, "Access-Control-Expose-Headers",
                             "RateLimit, RateLimit-Policy, Retry-After, X-Request-Id, Idempotent-Replayed");
    http_answer_free(&answer);
}

static void test_cors_for_a_list(void **state)
{
    static const char shop[] = "Origin: https://shop.example\r\n";
    static const char *const others[] = {"Origin: https://shop.example.evil\r\n",
                                         "Origin: https://shop.exampl\r\n",
                                         "Origin: http://shop.example\r\n",
                                         "Origin: null\r\n",
                                         "Origin: \r\n",
                                         "Origin: https://shop.example,http://localhost:3000\r\n",
                                         "Origin: https://shop.example\r\nOrigin: https://evil.example\r\n",
                                         "Origin: https://shop.example/\r\n",
                                         NULL};
    struct http_fixture fixture;
    struct http_answer answer;
    (void)state;
    http_fixture_start(&fixture,
                       &(struct http_settings){.cors_origins = "http://localhost:3000,https://shop.example"});
    expect_origin(&fixture, "GET", "/now", shop, 200, "https://shop.example");
    expect_origin(&fixture, "POST", "/prebuilt", shop, 400, "https://shop.example");
    expect_origin(&fixture, "GET", "/nothing", shop, 404, "https://shop.example");
    expect_origin(&fixture, "PUT", "/now", shop, 405, "https://shop.example");
    expect_origin(&fixture, "GET", "/now", "Origin: http://localhost:3000\r\n", 200, "http://localhost:3000");
    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++)
        expect_origin(&fixture, "GET", "/now", others[i], 200, NULL);
    http_fixture_call(&fixture, "GET", "/now", NULL, &answer);
    expect_answer_header(&answer, "Vary", "Origin"); /* who caches it must know that others get another one */
    http_answer_free(&answer);
    http_fixture_stop(&fixture);
}

static void test_preflights(void **state)
{
    static const char asks[] = "Origin: https://shop.example\r\nAccess-Control-Request-Method: POST\r\n"
                               "Access-Control-Request-Headers: authorization,idempotency-key\r\n";
    struct http_fixture fixture;
    struct http_answer answer;
    (void)state;
    http_fixture_start(&fixture, &(struct http_settings){.cors_origins = "https://shop.example"});
    http_fixture_call(&fixture, "OPTIONS", "/echo", asks, &answer);
    assert_int_equal(answer.status, 204);
    assert_int_equal(answer.body_bytes, 0);
    expect_answer_header(&answer, "Allow", "POST");
    expect_answer_header(&answer, "Access-Control-Allow-Origin", "https://shop.example");
    expect_answer_header(&answer, "Access-Control-Allow-Methods", "POST");
    expect_answer_header(&answer, "Access-Control-Allow-Headers",
                         "Authorization, Content-Type, Idempotency-Key, X-Request-Id");
    expect_answer_header(&answer, "Access-Control-Max-Age", "7200");
    expect_answer_header(&answer, "Content-Type", NULL);
    http_answer_free(&answer);
    /* of a path that is not there; of an origin that is not allowed; without asking for anything */
    expect_origin(&fixture, "OPTIONS", "/nothing", asks, 404, "https://shop.example");
    expect_origin(&fixture, "OPTIONS", "/echo",
                  "Origin: https://evil.example\r\nAccess-Control-Request-Method: POST\r\n", 204, NULL);
    http_fixture_call(&fixture, "OPTIONS", "/now", NULL, &answer);
    assert_int_equal(answer.status, 204);
    expect_answer_header(&answer, "Allow", "GET, HEAD");
    expect_answer_header(&answer, "Access-Control-Allow-Methods", NULL);
    http_answer_free(&answer);
    http_fixture_stop(&fixture);
    http_fixture_start(&fixture, &(struct http_settings){.cors_origins = "*"});
    expect_origin(&fixture, "OPTIONS", "/echo", asks, 204, "*");
    expect_origin(&fixture, "GET", "/now", "Origin: https://evil.example\r\n", 200, "*");
    expect_origin(&fixture, "GET", "/now", NULL, 200, NULL);
    http_fixture_stop(&fixture);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_good_id_comes_back),
        cmocka_unit_test(test_a_bad_id_is_replaced),
        cmocka_unit_test(test_refused_heads_have_an_id),
        cmocka_unit_test(test_a_logged_id_comes_back),
        cmocka_unit_test(test_nobody_is_believed_by_default),
        cmocka_unit_test(test_behind_trusted_proxies),
        cmocka_unit_test(test_one_address_cannot_take_all),
        cmocka_unit_test(test_bad_settings_are_named),
        cmocka_unit_test(test_what_a_page_may_do),
        cmocka_unit_test(test_cors_is_closed),
        cmocka_unit_test(test_cors_for_a_list),
        cmocka_unit_test(test_preflights),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
