/* What the real server says of itself: /openapi.json, /docs and what it is made of, and the page behind each problem type. */
#include "testing.h"

#include "http_client.h"
#include "server_fixture.h"

#include "doorbuster/json.h"

#include <stdio.h>
#include <string.h>

#define ANSWER_MS 10000

static struct {
    struct server_fixture server;
    struct http_client client;
    struct http_answer answer;
    char value[512];
} test;

static void get(const char *target, const char *headers, int status)
{
    http_answer_free(&test.answer);
    assert_int_equal(http_client_call(&test.client, "GET", target, headers, NULL, &test.answer, ANSWER_MS),
                     HTTP_CLIENT_OK);
    if (test.answer.status != status) {
        fail_msg("GET %s: %d, not %d", target, test.answer.status, status);
    }
}

static const char *header(const char *name)
{
    const char *value = http_answer_header(&test.answer, name, test.value, sizeof test.value);
    if (value == NULL) {
        fail_msg("there is no %s", name);
    }
    return value;
}

static void must_have(const char *text)
{
    if (strstr(test.answer.body, text) == NULL) {
        fail_msg("there is no \"%s\" in: %.600s", text, test.answer.body);
    }
}

static void test_what_is_known_is_not_sent_again(void **state)
{
    static const char *const files[] = {"/openapi.json",   "/docs",      "/assets/docs.css",
                                        "/assets/docs.js", "/dashboard", "/"};
    static const char html[] = "Accept: text/html\r\n";
    char known[160];
    (void)state;
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
        get(files[i], html, 200);
        assert_true(test.answer.body_bytes > 1000);
        assert_null(strstr(test.answer.body, "@PROJECT_VERSION@"));
        snprintf(known, sizeof known, "%sIf-None-Match: \"other\", %s\r\n", html, header("ETag"));
        get(files[i], known, 304);
        assert_int_equal(test.answer.body_bytes, 0);
        get(files[i], "Accept: text/html\r\nIf-None-Match: \"other\"\r\n", 200);
    }
}

/* No script and no style within the page, nothing from another host: so that its policy can forbid both. */
static void test_the_page_needs_nobody_else(void **state)
{
    (void)state;
    get("/docs", "Accept: text/html\r\n", 200);
    assert_non_null(strstr(header("Content-Security-Policy"), "default-src 'self'"));
    assert_null(strstr(header("Content-Security-Policy"), "unsafe"));
    must_have("<script src=\"/assets/docs.js\" defer></script>");
    must_have("href=\"/assets/docs.css\"");
    must_have("<noscript>");
    must_have("href=\"/openapi.json\"");
    assert_null(strstr(test.answer.body, "://"));
    assert_null(strstr(test.answer.body, "<style"));
    assert_null(strstr(test.answer.body, "style="));
    assert_null(strstr(test.answer.body, "onclick"));
    get("/assets/docs.js", NULL, 200);
    assert_null(strstr(test.answer.body, "innerHTML"));
    assert_null(strstr(test.answer.body, "://"));
}

static void test_the_service_says_where_it_is(void **state)
{
    (void)state;
    get("/", NULL, 200);
    must_have("\"openapi\":\"/openapi.json\"");
    must_have("\"docs\":\"/docs\"");
}

/* A problem's page tells both readers what to do. */
static void check_page(const char *type, const char *title)
{
    get(type, NULL, 200);
    assert_string_equal(header("Content-Type"), "text/plain; charset=utf-8");
    assert_string_equal(header("Vary"), "Accept");
    must_have(title);
    const char *buyer = strstr(test.answer.body, "If you are a buyer:\n"),
               *developer = strstr(test.answer.body, "If you write the client:\n");
    assert_non_null(buyer);
    assert_non_null(developer);
    if (strlen(strchr(buyer, '\n')) < 20 || strlen(strchr(developer, '\n')) < 10 ||
        strchr(buyer, '\n')[1] == '\n') {
        fail_msg("%s advises nothing: %s", type, test.answer.body);
    }
    get(type, "Accept: text/html,application/xhtml+xml;q=0.9,*/*;q=0.8\r\n", 200);
    assert_string_equal(header("Content-Type"), "text/html; charset=utf-8");
    assert_non_null(strstr(header("Content-Security-Policy"), "default-src 'self'"));
    must_have(title);
    must_have("<h2>If you are a buyer</h2>");
}

/* By status, and by name within it. */
static void test_the_list_is_in_order(void **state)
{
    char before[80] = "", line[80];
    size_t rows = 0;
    (void)state;
    get("/problems", NULL, 200);
    for (const char *at = test.answer.body; *at != '\0'; at = strchr(at, '\n') + 1) {
        if (*at == ' ') {
            continue;
        }
        snprintf(line, sizeof line, "%.*s", (int)strcspn(at, "\n"), at);
        if (strcmp(before, line) >= 0) {
            fail_msg("%s stands before %s", before, line);
        }
        memcpy(before, line, sizeof before);
        rows++;
    }
    assert_true(rows > 20);
}

static void test_each_problem_has_its_page(void **state)
{
    size_t pages = 0;
    (void)state;
    get("/openapi.json", NULL, 200);
    cJSON *document = json_parse_object(test.answer.body, test.answer.body_bytes), *schema;
    assert_non_null(document);
    get("/problems", NULL, 200);
    struct http_answer list = test.answer;
    memset(&test.answer, 0, sizeof test.answer);
    cJSON_ArrayForEach(schema, cJSON_GetObjectItem(cJSON_GetObjectItem(document, "components"), "schemas"))
    {
        const cJSON *properties = cJSON_GetObjectItem(schema, "properties"),
                    *type = cJSON_GetObjectItem(cJSON_GetObjectItem(properties, "type"), "const"),
                    *title = cJSON_GetObjectItem(cJSON_GetObjectItem(properties, "title"), "const");
        if (type == NULL || title == NULL) {
            continue;
        }
        assert_non_null(strstr(list.body, type->valuestring));
        check_page(type->valuestring, title->valuestring);
        pages++;
    }
    assert_true(pages > 20);
    http_answer_free(&list);
    cJSON_Delete(document);
    get("/problems", "Accept: text/html\r\n", 200);
    must_have("<a href=\"/problems/insufficient-stock\">");
    get("/problems/none", NULL, 404);
    get("/problems/not-found", NULL, 200);
    must_have("There is nothing at this path, or no such product or order.");
}

static void test_it_stops(void **state)
{
    (void)state;
    http_answer_free(&test.answer);
    http_client_close(&test.client);
    server_fixture_stop(&test.server);
}

static int setup(void **state)
{
    (void)state;
    server_fixture_begin(&test.server);
    server_fixture_start(&test.server, 1, NULL, NULL);
    test.client = (struct http_client){.fd = -1, .host = "127.0.0.1", .port = test.server.port};
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    server_fixture_end(&test.server);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_is_known_is_not_sent_again),
        cmocka_unit_test(test_the_page_needs_nobody_else),
        cmocka_unit_test(test_the_service_says_where_it_is),
        cmocka_unit_test(test_each_problem_has_its_page),
        cmocka_unit_test(test_the_list_is_in_order),
        cmocka_unit_test(test_it_stops),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
