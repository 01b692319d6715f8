/* Every call that web/openapi.json describes, made in every way that is refused before the sale is asked, and once as it should be. What the answers
 * look like is openapi_answers's business, which holds them against the description; here is only that they are the ones that were to come. Driven by
 * the description itself, so that a new call is in it from its first day. Runs on both gates. */
#include "testing.h"

#include "exchanges.h"
#include "http_client.h"
#include "server_fixture.h"

#include "doorbuster/json.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ANSWER_MS 10000
#define TOO_LARGE_BYTES 20000
#define TOO_LONG_BYTES 2500
#define TOO_MANY_HEADERS 60
#define HEADERS_BYTES 4096
#define TOKEN_LINE_BYTES (JWT_TOKEN_BYTES_MAX + 32)
#define NOBODY_S_ID "987654321"

static struct {
    struct server_fixture server;
    struct http_client client;
    struct http_answer answer;
    cJSON *description;
    char id[24]; /* of a product, and of a purchase */
    char buyer[TOKEN_LINE_BYTES], admin[TOKEN_LINE_BYTES];
} test;

static int ask(const char *method, const char *target, const char *headers, const char *body)
{
    http_answer_free(&test.answer);
    enum http_client_result result =
        http_client_call(&test.client, method, target, headers, body, &test.answer, ANSWER_MS);
    if (result != HTTP_CLIENT_OK) {
        fail_msg("%s %s: no answer (%d)", method, target, (int)result);
    }
    return test.answer.status;
}

static void expect(int status, const char *method, const char *target, const char *headers, const char *body)
{
    if (ask(method, target, headers, body) != status) {
        fail_msg("%s %s: %d instead of %d: %s", method, target, test.answer.status, status, test.answer.body);
    }
}

/* A token's header line, and one for a JSON body. */
static const char *json_of(const char *who)
{
    static char headers[HEADERS_BYTES];
    snprintf(headers, sizeof headers, "%sContent-Type: application/json\r\n", who);
    return headers;
}

/* --- the calls, as they are described ----------------------------------------------------------------------------------------------------------- */
struct call {
    const char *method, *path; /* "POST", with {id} */
    const cJSON *operation;
    char target[256]; /* with test.id */
};

static void fill(const char *path, const char *id, char *out, size_t bytes)
{
    size_t used = 0;
    for (const char *c = path; *c != '\0' && used + 32 < bytes;) {
        const char *value = strncmp(c, "{id}", 4) == 0     ? id
                            : strncmp(c, "{slug}", 6) == 0 ? "validation"
                            : strncmp(c, "{name}", 6) == 0 ? "docs.css"
                                                           : NULL;
        if (value != NULL) {
            used += (size_t)snprintf(out + used, bytes - used, "%s", value);
            c = strchr(c, '}') + 1;
        } else {
            out[used++] = *c++;
        }
    }
    out[used] = '\0';
}

static bool has_status(const struct call *call, const char *status)
{
    return cJSON_GetObjectItem(cJSON_GetObjectItem(call->operation, "responses"), status) != NULL;
}

static bool takes(const struct call *call, const char *media_type)
{
    const cJSON *body = cJSON_GetObjectItem(call->operation, "requestBody");
    return cJSON_GetObjectItem(cJSON_GetObjectItem(body, "content"), media_type) != NULL;
}

static bool is_open(const struct call *call)
{
    return cJSON_GetObjectItem(call->operation, "security") != NULL;
}

static void for_each_call(void (*check)(const struct call *call))
{
    const cJSON *item, *operation;
    cJSON_ArrayForEach(item, cJSON_GetObjectItem(test.description, "paths"))
    {
        cJSON_ArrayForEach(operation, item)
        {
            if (strcmp(operation->string, "parameters") != 0) {
                const char *method = operation->string[0] == 'g'   ? "GET"
                                     : operation->string[0] == 'p' ? "POST"
                                                                   : "DELETE";
                struct call call = {.method = method, .path = item->string, .operation = operation};
                fill(item->string, test.id, call.target, sizeof call.target);
                check(&call);
            }
        }
    }
}

/* Of this server: the Lua gate has no Redlock paths. */
static bool is_there(const struct call *call)
{
    return strcmp(call->path, "/api/events") == 0 || ask(call->method, call->target, NULL, NULL) != 404;
}

/* --- refused before a route is looked for --------------------------------------------------------------------------------------------------- */
static void check_http_refusals(const struct call *call)
{
    char target[TOO_LONG_BYTES + 300], headers[HEADERS_BYTES];
    char *body = malloc(TOO_LARGE_BYTES + 1);
    assert_non_null(body);
    memset(body, ' ', TOO_LARGE_BYTES);
    body[TOO_LARGE_BYTES] = '\0';
    expect(400, call->method, call->target, "Bad Name: 1\r\n", NULL);
    expect(413, call->method, call->target, NULL, body);
    free(body);

    int used = snprintf(target, sizeof target, "%s?", call->target);
    memset(target + used, 'x', TOO_LONG_BYTES);
    target[used + TOO_LONG_BYTES] = '\0';
    expect(414, call->method, target, NULL, NULL);

    used = 0;
    for (int i = 0; i < TOO_MANY_HEADERS; i++) {
        used += snprintf(headers + used, sizeof headers - (size_t)used, "X-%d: 1\r\n", i);
    }
    expect(431, call->method, call->target, headers, NULL);
}

static void test_what_is_not_good_http(void **state)
{
    (void)state;
    for_each_call(check_http_refusals);
}

static void check_other_methods(const struct call *call)
{
    if (is_there(call)) {
        expect(405, "PUT", call->target, NULL, NULL);
    }
    if (strcmp(call->method, "GET") == 0 && is_open(call) && strcmp(call->path, "/api/events") != 0 &&
        is_there(call)) {
        expect(200, "HEAD", call->target, NULL, NULL);
        assert_int_equal(test.answer.body_bytes, 0);
    }
}

static void test_other_methods(void **state)
{
    (void)state;
    for_each_call(check_other_methods);
}

/* --- refused by the call itself -------------------------------------------------------------------------------------------------------------- */
static void check_who_may(const struct call *call)
{
    if (is_open(call) || !is_there(call)) {
        return;
    }
    expect(401, call->method, call->target, NULL, NULL);
    expect(401, call->method, call->target, "Authorization: Bearer x.y.z\r\n", NULL);
    if (has_status(call, "403")) {
        expect(403, call->method, call->target, test.buyer, NULL);
    }
}

static void test_who_may(void **state)
{
    (void)state;
    for_each_call(check_who_may);
}

static void check_bodies(const struct call *call)
{
    char headers[HEADERS_BYTES];
    if (!has_status(call, "415") || !is_there(call)) {
        return;
    }
    snprintf(headers, sizeof headers, "%sContent-Type: text/plain\r\n", test.admin);
    expect(415, call->method, call->target, headers, "{}");
    if (!takes(call, "application/json")) {
        expect(422, call->method, call->target, "Content-Type: application/x-www-form-urlencoded\r\n", "x=1");
        return;
    }
    expect(400, call->method, call->target, json_of(test.admin), "{");
    expect(422, call->method, call->target, json_of(test.admin), "{}");
    if (cJSON_GetObjectItem(call->operation, "parameters") != NULL) { /* its Idempotency-Key */
        snprintf(headers, sizeof headers, "%sIdempotency-Key: a b\r\nContent-Type: application/json\r\n",
                 test.admin);
        expect(400, call->method, call->target, headers, "{}");
    }
}

static void test_bodies(void **state)
{
    (void)state;
    for_each_call(check_bodies);
}

/* The body of the first example, as it is. */
static char *example_of(const struct call *call)
{
    const cJSON *body = cJSON_GetObjectItem(call->operation, "requestBody"),
                *media = cJSON_GetObjectItem(cJSON_GetObjectItem(body, "content"), "application/json"),
                *first = cJSON_GetObjectItem(media, "examples");
    if (first == NULL) {
        return NULL;
    }
    const char *name = strrchr(cJSON_GetObjectItem(first->child, "$ref")->valuestring, '/') + 1;
    const cJSON *examples =
        cJSON_GetObjectItem(cJSON_GetObjectItem(test.description, "components"), "examples");
    return cJSON_PrintUnformatted(cJSON_GetObjectItem(cJSON_GetObjectItem(examples, name), "value"));
}

static void check_nobody_s_id(const struct call *call)
{
    char target[256];
    if (strstr(call->path, "{id}") == NULL || !is_there(call)) {
        return;
    }
    fill(call->path, NOBODY_S_ID, target, sizeof target);
    char *body = example_of(call);
    expect(404, call->method, target, json_of(test.admin), body);
    cJSON_free(body);
    fill(call->path, "x", target, sizeof target);
    expect(404, call->method, target, test.admin, NULL);
}

static void test_what_is_not_there(void **state)
{
    (void)state;
    for_each_call(check_nobody_s_id);
    expect(404, "GET", "/problems/none", NULL, NULL);
    expect(404, "GET", "/assets/none", NULL, NULL);
    expect(404, "GET", "/nowhere", NULL, NULL);
}

static void check_query(const struct call *call)
{
    char target[300];
    if (strcmp(call->method, "GET") == 0 && has_status(call, "422")) {
        snprintf(target, sizeof target, "%s?limit=0", call->target);
        expect(422, call->method, target, test.admin, NULL);
    }
}

static void test_queries(void **state)
{
    (void)state;
    for_each_call(check_query);
}

/* --- answered ----------------------------------------------------------------------------------------------------------------------------------- */
static void check_reads(const struct call *call)
{
    if (strcmp(call->method, "GET") == 0 && strcmp(call->path, "/api/events") != 0 && is_there(call)) {
        expect(200, call->method, call->target, test.admin, NULL);
        expect(200, call->method, call->target, test.admin, NULL); /* some are made anew, some are not */
    }
}

static void test_reads(void **state)
{
    (void)state;
    for_each_call(check_reads);
}

/* A stream has no end: what has come after a moment is written down. */
static void test_live_figures(void **state)
{
    static const char request[] = "GET /api/events HTTP/1.1\r\n\r\n";
    struct http_client client = {.fd = -1};
    struct http_answer answer = {0};
    int64_t deadline = deadline_in(ANSWER_MS);
    (void)state;
    assert_int_equal(http_client_open(&client, "127.0.0.1", test.server.port, ANSWER_MS), HTTP_CLIENT_OK);
    assert_int_equal(http_client_request(&client, "GET", "/api/events", NULL, NULL, 0, ANSWER_MS),
                     HTTP_CLIENT_OK);
    assert_int_equal(http_client_read(&client, &answer, 1200), HTTP_CLIENT_TIMEOUT);
    assert_non_null(answer.body);
    assert_non_null(strstr(answer.body, "event: figures\ndata: {"));
    assert_true(now_us() < deadline);
    exchanges_record(request, sizeof request - 1, answer.head, answer.body, answer.body_bytes);
    http_answer_free(&answer);
    http_client_close(&client);
}

static void check_accounts(const char *login, const char *account, int made, int again)
{
    static const char form[] = "Content-Type: application/x-www-form-urlencoded\r\n";
    expect(made, "POST", "/api/auth/register", json_of(""), account);
    expect(again, "POST", "/api/auth/register", json_of(""), account);
    expect(200, "POST", "/api/auth/login", form, login);
    expect(401, "POST", "/api/auth/login", form, "username=anna&password=wrong-one");
}

static void test_accounts(void **state)
{
    (void)state;
    check_accounts("username=anna&password=correct+horse",
                   "{\"username\":\"anna\",\"password\":\"correct horse\"}", 201, 409);
}

static int64_t product_with(int64_t stock, int64_t limit)
{
    return server_fixture_add_product(&test.server, stock, limit);
}

static const char *order_of(int64_t product, int64_t quantity)
{
    static char body[96];
    snprintf(body, sizeof body, "{\"product_id\":%" PRId64 ",\"quantity\":%" PRId64 "}", product, quantity);
    return body;
}

static const char *keyed(const char *who, const char *key)
{
    static char headers[HEADERS_BYTES];
    snprintf(headers, sizeof headers, "%sIdempotency-Key: %s\r\nContent-Type: application/json\r\n", who,
             key);
    return headers;
}

static void check_buying(const struct call *call)
{
    char cart[128], soon[128];
    if (strncmp(call->path, "/api/purchases", 14) != 0 || strcmp(call->method, "POST") != 0 ||
        !is_there(call)) {
        return;
    }
    int64_t few = product_with(5, 0), limited = product_with(5, 1);
    expect(201, "POST", call->target, keyed(test.buyer, call->path), order_of(few, 1));
    expect(201, "POST", call->target, keyed(test.buyer, call->path), order_of(few, 1));
    expect(422, "POST", call->target, keyed(test.buyer, call->path), order_of(few, 2));
    snprintf(cart, sizeof cart, "{\"items\":[%s]}", order_of(few, 1));
    expect(201, "POST", call->target, json_of(test.buyer), cart);
    expect(400, "POST", call->target, json_of(test.buyer), order_of(few, 100));
    snprintf(cart, sizeof cart, "{\"items\":[%s]}", order_of(few, 100));
    expect(400, "POST", call->target, json_of(test.buyer), cart);
    expect(409, "POST", call->target, json_of(test.buyer), order_of(limited, 2));
    expect(404, "POST", call->target, json_of(test.buyer), order_of(987654321, 1));
    snprintf(soon, sizeof soon,
             "{\"name\":\"not yet %" PRId64
             "\",\"price\":1,\"stock\":1,\"starts_at\":\"2199-01-01T00:00:00Z\"}",
             few);
    expect(201, "POST", "/api/products", json_of(test.admin), soon);
    int64_t closed = limited + 1;
    expect(409, "POST", call->target, json_of(test.buyer), order_of(closed, 1));
}

static void test_buying(void **state)
{
    (void)state;
    for_each_call(check_buying);
}

static void test_administration(void **state)
{
    char target[96];
    int64_t product = product_with(5, 0);
    (void)state;
    snprintf(target, sizeof target, "/api/admin/products/%" PRId64 "/stock", product);
    expect(200, "POST", target, keyed(test.admin, "more"), "{\"delta\":3,\"reason\":\"found\"}");
    expect(200, "POST", target, keyed(test.admin, "more"), "{\"delta\":3,\"reason\":\"found\"}");
    expect(422, "POST", target, keyed(test.admin, "more"), "{\"delta\":4,\"reason\":\"found\"}");
    expect(409, "POST", target, json_of(test.admin), "{\"delta\":-300,\"reason\":\"lost\"}");
    expect(409, "POST", target, json_of(test.admin), "{\"delta\":1000000000,\"reason\":\"too much\"}");
    snprintf(target, sizeof target, "/api/admin/products/%" PRId64 "/price", product);
    expect(200, "POST", target, json_of(test.admin), "{\"price\":3,\"reason\":\"cheaper\"}");
    snprintf(target, sizeof target, "/api/admin/products/%" PRId64 "/window", product);
    expect(200, "POST", target, json_of(test.admin),
           "{\"starts_at\":\"now\",\"ends_at\":\"2199-01-01T00:00:00Z\",\"reason\":\"doors\"}");
    expect(200, "POST", target, json_of(test.admin), "{\"ends_at\":null,\"reason\":\"for ever\"}");
    expect(409, "POST", "/api/products", json_of(test.admin),
           "{\"name\":\"the first\",\"price\":5,\"stock\":5}");
    expect(200, "GET", "/api/admin/audit", test.admin, NULL);
    snprintf(target, sizeof target, "/api/purchases/%s", test.id);
    expect(200, "DELETE", target, test.admin, NULL);
    expect(200, "DELETE", target, test.admin, NULL);
}

/* The other servers of the tests have no limits. */
static void test_too_fast(void **state)
{
    static const char *const limits[] = {"--rate-limits", "on", "--rate-account", "1/min:1", NULL};
    (void)state;
    http_client_close(&test.client);
    server_fixture_stop(&test.server);
    server_fixture_start(&test.server, 1, limits, NULL);
    test.client = (struct http_client){.fd = -1, .host = "127.0.0.1", .port = test.server.port};
    expect(200, "GET", "/api/auth/me", test.admin, NULL);
    expect(429, "GET", "/api/auth/me", test.admin, NULL);
    expect(429, "POST", "/api/purchases", json_of(test.admin), order_of(1, 1));
}

static void test_it_stops(void **state)
{
    (void)state;
    http_answer_free(&test.answer);
    http_client_close(&test.client);
    cJSON_Delete(test.description);
    server_fixture_stop(&test.server);
}

static void make_token(int64_t user_id, enum user_role role, char out[TOKEN_LINE_BYTES])
{
    char token[JWT_TOKEN_BYTES_MAX];
    server_fixture_token(&test.server, user_id, role, token);
    snprintf(out, TOKEN_LINE_BYTES, "Authorization: Bearer %s\r\n", token);
}

static int setup(void **state)
{
    (void)state;
    server_fixture_begin(&test.server);
    server_fixture_start(&test.server, 1, NULL, NULL);
    test.client = (struct http_client){.fd = -1, .host = "127.0.0.1", .port = test.server.port};
    int64_t first = server_fixture_add_users(&test.server, 2);
    make_token(first, USER_BUYER, test.buyer);
    make_token(first + 1, USER_ADMIN, test.admin);
    expect(200, "GET", "/openapi.json", NULL, NULL);
    test.description = json_parse_object(test.answer.body, test.answer.body_bytes);
    assert_non_null(test.description);
    expect(201, "POST", "/api/products", json_of(test.admin),
           "{\"name\":\"the first\",\"price\":5,\"stock\":5}");
    expect(201, "POST", "/api/purchases", json_of(test.admin), order_of(1, 1));
    snprintf(test.id, sizeof test.id, "1");
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
        cmocka_unit_test(test_what_is_not_good_http),
        cmocka_unit_test(test_other_methods),
        cmocka_unit_test(test_who_may),
        cmocka_unit_test(test_bodies),
        cmocka_unit_test(test_what_is_not_there),
        cmocka_unit_test(test_queries),
        cmocka_unit_test(test_reads),
        cmocka_unit_test(test_live_figures),
        cmocka_unit_test(test_accounts),
        cmocka_unit_test(test_buying),
        cmocka_unit_test(test_administration),
        cmocka_unit_test(test_too_fast),
        cmocka_unit_test(test_it_stops),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
