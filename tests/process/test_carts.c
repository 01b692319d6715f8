/* Carts, bundles, sale windows, cancellations, changes of stock and price against the real server, as far as a client can see them. Each test
 * ends with both books in order. Runs on both gates, but for what is about the one Redis of the Lua gate. */
#include "testing.h"

#include "crowd.h"
#include "http_client.h"
#include "redis_fixture.h"
#include "server_fixture.h"

#include "doorbuster/clock.h"
#include "doorbuster/json.h"

#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PATIENCE_MS 15000
#define HEADERS_BYTES (JWT_TOKEN_BYTES_MAX + 512)
#define BODY_BYTES 4096
#define USERS 3
#define ADMIN USERS
#define PRICE 500 /* of server_fixture_add_product() */
#define AT_ONCE 20
#define STORM_CLIENTS 60

static struct {
    struct server_fixture server;
    struct http_client client;
    int64_t first_user;
    char tokens[USERS + 1][JWT_TOKEN_BYTES_MAX];
    /* The last answer. */
    cJSON *json;
    char body[16384], retry_after[32];
    bool replayed;
} test;

/* --- asking
 * ------------------------------------------------------------------------------------------------------------------------ */
/* The answer's JSON, which lives until the next one. */
static const cJSON *ask_keyed(size_t who, const char *method, const char *target, const char *key, int status,
                              const char *body)
{
    char headers[HEADERS_BYTES], value[32];
    struct http_answer answer;
    int used = snprintf(headers, sizeof headers, "Authorization: Bearer %s\r\n%s", test.tokens[who],
                        body ? "Content-Type: application/json\r\n" : "");
    if (key != NULL) {
        snprintf(headers + used, sizeof headers - (size_t)used, "Idempotency-Key: %s\r\n", key);
    }
    assert_int_equal(http_client_call(&test.client, method, target, headers, body, &answer, PATIENCE_MS),
                     HTTP_CLIENT_OK);
    if (answer.status != status) {
        fail_msg("%s %s %s: %d, not %d: %s", method, target, body ? body : "", answer.status, status,
                 answer.body);
    }
    test.replayed =
        http_answer_header(&answer, "Idempotent-Replayed", value, sizeof value) && !strcmp(value, "true");
    test.retry_after[0] = '\0';
    http_answer_header(&answer, "Retry-After", test.retry_after, sizeof test.retry_after);
    snprintf(test.body, sizeof test.body, "%s", answer.body);
    http_answer_free(&answer);
    cJSON_Delete(test.json);
    test.json = cJSON_Parse(test.body);
    assert_non_null(test.json);
    return test.json;
}

static const cJSON *ask(size_t who, const char *method, int status, const char *body, const char *format, ...)
    __attribute__((format(printf, 5, 6)));
static const cJSON *ask(size_t who, const char *method, int status, const char *body, const char *format, ...)
{
    char target[128];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(target, sizeof target, format, arguments);
    va_end(arguments);
    return ask_keyed(who, method, target, NULL, status, body);
}

static const cJSON *buy(size_t who, const char *key, int status, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
static const cJSON *buy(size_t who, const char *key, int status, const char *format, ...)
{
    char body[BODY_BYTES];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(body, sizeof body, format, arguments);
    va_end(arguments);
    return ask_keyed(who, "POST", "/api/purchases", key, status, body);
}

static int64_t number(const cJSON *json, const char *name)
{
    int64_t out = 0;
    if (json_get_integer(json, name, -JSON_INTEGER_MAX, JSON_INTEGER_MAX, &out) != JSON_FIELD_OK) {
        fail_msg("no number %s: %s", name, test.body);
    }
    return out;
}

static const char *text(const cJSON *json, const char *name)
{
    const char *out = "";
    if (json_get_string(json, name, 0, 5000, &out) != JSON_FIELD_OK) {
        fail_msg("no text %s: %s", name, test.body);
    }
    return out;
}

static const cJSON *item(const cJSON *json, const char *list, int i)
{
    const cJSON *found = cJSON_GetArrayItem(list ? cJSON_GetObjectItem(json, list) : json, i);
    if (found == NULL) {
        fail_msg("no %s[%d]: %s", list ? list : "", i, test.body);
    }
    return found;
}

static int count_of(const cJSON *json, const char *list)
{
    return cJSON_GetArraySize(cJSON_GetObjectItem(json, list));
}

static void expect_problem(const cJSON *json, const char *slug)
{
    char type[128];
    snprintf(type, sizeof type, "/problems/%s", slug);
    if (strcmp(text(json, "type"), type) != 0) {
        fail_msg("not %s: %s", slug, test.body);
    }
}

static void expect_line(const cJSON *order, int i, int64_t product, int64_t quantity, int64_t price,
                        int64_t remaining)
{
    const cJSON *line = item(order, "items", i);
    assert_int_equal(number(line, "product_id"), product);
    assert_int_equal(number(line, "quantity"), quantity);
    assert_int_equal(number(line, "unit_price"), price);
    assert_int_equal(number(line, "remaining_stock"), remaining);
}

/* Both books say so. The nodes of the Redlock gate are told right after the answer: until then the two are compared where the nodes are. */
static void expect_stock(int64_t product, int64_t stock)
{
    int64_t deadline = deadline_in(PATIENCE_MS), compared;
    do {
        const cJSON *json = ask(0, "GET", 200, NULL, "/api/products/%" PRId64 "/stock", product);
        compared = number(json, "db_stock");
        if (number(json, "available") != stock || number(json, "redis_stock") != compared ||
            !cJSON_IsTrue(cJSON_GetObjectItem(json, "synced"))) {
            break;
        }
        if (compared == stock) {
            return;
        }
    } while (gate_is_redlock() && wait_a_moment(deadline));
    fail_msg("product %" PRId64 " should have %" PRId64 ": %s", product, stock, test.body);
}

static int64_t add_product(int64_t stock)
{
    return server_fixture_add_product(&test.server, stock, 0);
}

static const cJSON *try_product(int status, const char *name, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
static const cJSON *try_product(int status, const char *name, const char *format, ...)
{
    char rest[1024], body[1200];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(rest, sizeof rest, format, arguments);
    va_end(arguments);
    snprintf(body, sizeof body, "{\"name\":\"%s\",\"price\":700,%s}", name, rest);
    return ask(ADMIN, "POST", status, body, "/api/products");
}

static void change(int64_t product, int status, int64_t delta)
{
    char body[128];
    snprintf(body, sizeof body, "{\"delta\":%" PRId64 ",\"reason\":\"a pallet\"}", delta);
    ask(ADMIN, "POST", status, body, "/api/admin/products/%" PRId64 "/stock", product);
}

/* --- carts
 * ------------------------------------------------------------------------------------------------------------------------- */
static void test_a_cart(void **state)
{
    (void)state;
    int64_t a = add_product(10), b = add_product(20);
    const cJSON *order =
        buy(0, NULL, 201,
            "{\"items\":[{\"product_id\":%" PRId64 ",\"quantity\":2},{\"product_id\":%" PRId64
            ",\"quantity\":1},{\"product_id\":%" PRId64 ",\"quantity\":1}]}",
            b, a, b);
    int64_t id = number(order, "id");
    assert_int_equal(count_of(order, "items"), 2);
    expect_line(order, 0, b, 3, PRICE, 17);
    expect_line(order, 1, a, 1, PRICE, 9);
    assert_int_equal(number(order, "user_id"), test.first_user);
    assert_int_equal(number(order, "total_price"), 4 * PRICE);
    assert_null(cJSON_GetObjectItem(order, "product_id"));
    assert_null(cJSON_GetObjectItem(order, "cancelled_at"));
    char first[sizeof test.body];
    snprintf(first, sizeof first, "%s", test.body);
    ask(0, "GET", 200, NULL, "/api/purchases/%" PRId64, id);
    assert_string_equal(test.body, first);
    ask(1, "GET", 404, NULL, "/api/purchases/%" PRId64, id);
    /* One line is a cart if it was asked for as one; afterwards it is one product. */
    order = buy(0, NULL, 201, "{\"items\":[{\"product_id\":%" PRId64 ",\"quantity\":2}]}", a);
    expect_line(order, 0, a, 2, PRICE, 7);
    order = ask(0, "GET", 200, NULL, "/api/purchases/%" PRId64, number(order, "id"));
    assert_int_equal(number(order, "product_id"), a);
    const cJSON *mine = ask(0, "GET", 200, NULL, "/api/purchases/me");
    assert_int_equal(cJSON_GetArraySize(mine), 2);
    assert_int_equal(number(item(mine, NULL, 0), "remaining_stock"), 7);
    assert_int_equal(number(item(mine, NULL, 1), "id"), id);
    expect_line(item(mine, NULL, 1), 0, b, 3, PRICE, 17);
    expect_stock(a, 7);
    expect_stock(b, 17);
}

static void test_twenty_lines_and_no_more(void **state)
{
    char body[BODY_BYTES];
    (void)state;
    for (int lines = 20; lines <= 21; lines++) {
        int used = snprintf(body, sizeof body, "{\"items\":[");
        for (int i = 0; i < lines; i++) {
            int64_t product = i < 20 && lines == 20 ? add_product(5) : 1;
            used += snprintf(body + used, sizeof body - (size_t)used,
                             "%s{\"product_id\":%" PRId64 ",\"quantity\":5}", i > 0 ? "," : "", product);
        }
        snprintf(body + used, sizeof body - (size_t)used, "]}");
        const cJSON *json = buy(0, NULL, lines == 20 ? 201 : 422, "%s", body);
        if (lines == 20) {
            assert_int_equal(count_of(json, "items"), 20);
            assert_int_equal(number(json, "total_price"), 100 * PRICE);
            /* All short now: the largest of refusals. */
            json = buy(1, NULL, 400, "%s", body);
            assert_int_equal(count_of(json, "shortages"), 20);
            json = ask(0, "GET", 200, NULL, "/api/purchases/me");
            assert_int_equal(count_of(item(json, NULL, 0), "items"), 20);
        } else {
            assert_string_equal(text(item(json, "errors", 0), "field"), "items");
        }
    }
}

static void test_what_is_no_cart(void **state)
{
    static const struct {
        const char *body, *field;
    } bad[] = {
        {"{\"items\":[]}", "items"},
        {"{\"items\":{}}", "items"},
        {"{\"items\":3}", "items"},
        {"{\"items\":[3]}", "items[0]"},
        {"{\"items\":[{\"product_id\":1,\"quantity\":1},null]}", "items[1]"},
        {"{\"items\":[{\"product_id\":1}]}", "items[0].quantity"},
        {"{\"items\":[{\"quantity\":1}]}", "items[0].product_id"},
        {"{\"items\":[{\"product_id\":1,\"quantity\":0}]}", "items[0].quantity"},
        {"{\"items\":[{\"product_id\":1,\"quantity\":-1}]}", "items[0].quantity"},
        {"{\"items\":[{\"product_id\":1,\"quantity\":1.5}]}", "items[0].quantity"},
        {"{\"items\":[{\"product_id\":1,\"quantity\":1001}]}", "items[0].quantity"},
        {"{\"items\":[{\"product_id\":1,\"quantity\":600},{\"product_id\":2,\"quantity\":600},"
         "{\"product_id\":1,\"quantity\":401}]}",
         "items[2].quantity"},
        {"{\"items\":[{\"product_id\":1,\"quantity\":1}],\"product_id\":1}", "product_id"},
        {"{\"items\":[{\"product_id\":1,\"quantity\":1}],\"quantity\":1}", "quantity"},
        {"{\"items\":null}", "product_id"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        const cJSON *json = buy(0, NULL, 422, "%s", bad[i].body);
        expect_problem(json, "validation");
        assert_string_equal(text(item(json, "errors", 0), "field"), bad[i].field);
    }
}

static void test_one_short_line_takes_nothing(void **state)
{
    (void)state;
    int64_t a = add_product(1), b = add_product(5), c = add_product(1);
    for (int i = 0; i < 2; i++) { /* the second time there might be a sold-out mark */
        const cJSON *json =
            buy(0, NULL, 400,
                "{\"items\":[{\"product_id\":%" PRId64 ",\"quantity\":2},{\"product_id\":%" PRId64
                ",\"quantity\":2},{\"product_id\":%" PRId64 ",\"quantity\":3}]}",
                b, a, c);
        expect_problem(json, "insufficient-stock");
        assert_non_null(strstr(text(json, "detail"), "Insufficient stock: product "));
        assert_non_null(strstr(text(json, "detail"), "Nothing was taken."));
        assert_int_equal(number(json, "product_id"), a);
        assert_int_equal(number(json, "requested"), 2);
        assert_int_equal(number(json, "available"), 1);
        assert_int_equal(count_of(json, "shortages"), 2);
        assert_int_equal(number(item(json, "shortages", 1), "product_id"), c);
        assert_int_equal(number(item(json, "shortages", 1), "requested"), 3);
    }
    buy(0, NULL, 404,
        "{\"items\":[{\"product_id\":%" PRId64 ",\"quantity\":1},{\"product_id\":987654,\"quantity\":1}]}",
        b);
    assert_non_null(strstr(test.body, "987654"));
    expect_stock(a, 1);
    expect_stock(b, 5);
    expect_stock(c, 1);
}

static void test_limit_over_lines_and_components(void **state)
{
    (void)state;
    int64_t a = server_fixture_add_product(&test.server, 100, 3), b = add_product(100);
    const cJSON *json = try_product(201, "pair",
                                    "\"components\":[{\"product_id\":%" PRId64
                                    ",\"quantity\":2},{\"product_id\":%" PRId64 ",\"quantity\":1}]",
                                    a, b);
    int64_t pair = number(json, "id");
    /* Each line fits; the two together do not. */
    json = buy(0, NULL, 409,
               "{\"items\":[{\"product_id\":%" PRId64 ",\"quantity\":2},{\"product_id\":%" PRId64
               ",\"quantity\":1}]}",
               a, pair);
    expect_problem(json, "customer-limit");
    assert_int_equal(number(json, "product_id"), a);
    assert_int_equal(number(json, "requested"), 4);
    assert_int_equal(number(json, "limit"), 3);
    assert_int_equal(number(json, "owned"), 0);
    buy(0, NULL, 201, "{\"product_id\":%" PRId64 ",\"quantity\":1}", pair);
    json = buy(0, NULL, 409, "{\"product_id\":%" PRId64 ",\"quantity\":1}", pair);
    assert_int_equal(number(json, "product_id"), a);
    assert_int_equal(number(json, "owned"), 2);
    buy(0, NULL, 201, "{\"product_id\":%" PRId64 ",\"quantity\":1}", a);
    buy(0, NULL, 409, "{\"product_id\":%" PRId64 ",\"quantity\":1}", a);
    buy(1, NULL, 201, "{\"product_id\":%" PRId64 ",\"quantity\":3}", a);
    expect_stock(a, 94);
    expect_stock(b, 99);
}

static void test_a_cart_again(void **state)
{
    (void)state;
    int64_t a = add_product(10), b = add_product(10);
    static const char form[] = "{\"items\":[{\"product_id\":%" PRId64
                               ",\"quantity\":1},{\"product_id\":%" PRId64 ",\"quantity\":2}]}";
    char first[sizeof test.body];
    int64_t id = number(buy(0, "cart", 201, form, a, b), "id");
    assert_false(test.replayed);
    snprintf(first, sizeof first, "%s", test.body);
    buy(0, "cart", 201, form, a, b);
    assert_true(test.replayed);
    assert_string_equal(test.body, first);
    /* The same lines in another order, and in pieces. */
    buy(0, "cart", 201,
        "{\"items\":[{\"product_id\":%" PRId64 ",\"quantity\":1},{\"product_id\":%" PRId64
        ",\"quantity\":1},{\"product_id\":%" PRId64 ",\"quantity\":1}]}",
        b, a, b);
    assert_true(test.replayed);
    assert_string_equal(test.body, first);
    expect_problem(buy(0, "cart", 422, form, b, a), "idempotency-key-reused");
    assert_int_equal(number(test.json, "purchase_id"), id);
    buy(0, "cart", 422, "{\"product_id\":%" PRId64 ",\"quantity\":1}", a);
    ask(0, "DELETE", 200, NULL, "/api/purchases/%" PRId64, id);
    const cJSON *json = buy(0, "cart", 201, form, a, b);
    assert_true(test.replayed);
    assert_int_equal(number(json, "id"), id);
    text(json, "cancelled_at");
    /* One line: in the form that is asked for. */
    buy(0, "one", 201, "{\"product_id\":%" PRId64 ",\"quantity\":1}", a);
    json = buy(0, "one", 201, "{\"items\":[{\"product_id\":%" PRId64 ",\"quantity\":1}]}", a);
    assert_true(test.replayed);
    expect_line(json, 0, a, 1, PRICE, 9);
    expect_stock(a, 9);
    expect_stock(b, 10);
}

/* --- bundles
 * ----------------------------------------------------------------------------------------------------------------------- */
static void test_a_bundle(void **state)
{
    (void)state;
    int64_t a = add_product(10), b = add_product(3);
    const cJSON *json = try_product(201, "set",
                                    "\"components\":[{\"product_id\":%" PRId64
                                    ",\"quantity\":1},{\"product_id\":%" PRId64 ",\"quantity\":4}]",
                                    b, a);
    int64_t set = number(json, "id");
    assert_int_equal(number(json, "stock"), 2);
    assert_int_equal(number(json, "redis_stock"), 2);
    assert_int_equal(count_of(json, "components"), 2);
    expect_stock(set, 2);
    json = buy(0, NULL, 201, "{\"product_id\":%" PRId64 ",\"quantity\":1}", set);
    int64_t id = number(json, "id");
    assert_int_equal(number(json, "remaining_stock"), 1);
    assert_int_equal(number(json, "total_price"), 700);
    expect_stock(a, 6);
    expect_stock(b, 2);
    expect_stock(set, 1);
    json = buy(0, NULL, 400, "{\"product_id\":%" PRId64 ",\"quantity\":2}", set);
    assert_int_equal(number(json, "available"), 1);
    json = ask(0, "GET", 200, NULL, "/api/products");
    for (int i = 0; i < cJSON_GetArraySize(json); i++) {
        if (number(item(json, NULL, i), "id") == set) {
            assert_int_equal(number(item(json, NULL, i), "stock"), 1);
            assert_int_equal(number(item(json, NULL, i), "sold"), 1);
        }
    }
    /* Of the order one line is shown. */
    json = ask(0, "GET", 200, NULL, "/api/purchases/%" PRId64, id);
    assert_int_equal(number(json, "product_id"), set);
    json = buy(1, NULL, 201,
               "{\"items\":[{\"product_id\":%" PRId64 ",\"quantity\":1},{\"product_id\":%" PRId64
               ",\"quantity\":1}]}",
               set, a);
    assert_int_equal(count_of(json, "items"), 2);
    expect_line(json, 0, set, 1, 700, 0);
    expect_line(json, 1, a, 1, PRICE, 1);
    ask(1, "DELETE", 200, NULL, "/api/purchases/%" PRId64, number(json, "id"));
    ask(0, "DELETE", 200, NULL, "/api/purchases/%" PRId64, id);
    expect_stock(a, 10);
    expect_stock(b, 3);
    expect_stock(set, 2);
    json = ask(0, "GET", 200, NULL, "/api/products/%" PRId64, set);
    assert_int_equal(number(json, "sold"), 2);
    assert_int_equal(number(json, "cancelled"), 2);
    change(set, 422, 5);
    assert_non_null(strstr(test.body, "a bundle has no stock of its own"));
}

static void expect_fault(const cJSON *json, const char *field, const char *message)
{
    assert_string_equal(text(item(json, "errors", 0), "field"), field);
    if (strstr(text(item(json, "errors", 0), "message"), message) == NULL) {
        fail_msg("not %s: %s", message, test.body);
    }
}

static void test_what_is_no_bundle(void **state)
{
    (void)state;
    int64_t a = add_product(10), b = add_product(10);
    int64_t set = number(
        try_product(201, "set", "\"components\":[{\"product_id\":%" PRId64 ",\"quantity\":1}]", a), "id");
    expect_fault(try_product(422, "x", "\"components\":[{\"product_id\":%" PRId64 ",\"quantity\":1}]", set),
                 "components[0].product_id", "bundle itself");
    expect_fault(try_product(422, "x",
                             "\"components\":[{\"product_id\":987654,\"quantity\":1},{\"product_id\":%" PRId64
                             ",\"quantity\":1}]",
                             a),
                 "components[0].product_id", "no product");
    expect_fault(try_product(422, "x",
                             "\"components\":[{\"product_id\":%" PRId64
                             ",\"quantity\":1},{\"product_id\":%" PRId64 ",\"quantity\":2}]",
                             b, b),
                 "components[1].product_id", "twice");
    expect_fault(
        try_product(422, "x", "\"stock\":5,\"components\":[{\"product_id\":%" PRId64 ",\"quantity\":1}]", a),
        "stock", "components allow");
    expect_fault(try_product(422, "x", "\"components\":[{\"product_id\":%" PRId64 ",\"quantity\":1001}]", a),
                 "components[0].quantity", "whole number");
    expect_fault(try_product(422, "x", "\"components\":[]"), "components", "1 to 10");
    expect_fault(try_product(422, "x", "\"components\":[7]"), "components[0]", "object");
    /* Not even the name is taken by these. */
    try_product(201, "x", "\"stock\":0,\"components\":[{\"product_id\":%" PRId64 ",\"quantity\":1}]", a);
}

/* --- taking back
 * --------------------------------------------------------------------------------------------------------------------- */
struct chorus {
    char body[1024]; /* the first answer's */
    size_t same, replayed;
};

static void chorus_cb(void *context, size_t client, const struct crowd_answer *answer)
{
    struct chorus *chorus = context;
    (void)client;
    if (answer->status != 200) {
        fail_msg("status %d: %s", answer->status, answer->body);
    }
    if (chorus->same == 0) {
        snprintf(chorus->body, sizeof chorus->body, "%s", answer->body);
    }
    assert_string_equal(answer->body, chorus->body);
    chorus->same++;
    chorus->replayed += answer->replayed;
}

static void all_at_once(struct chorus *chorus, size_t who, const char *method, const char *target,
                        const char *headers, const char *body)
{
    struct crowd *crowd = crowd_new(test.server.port, AT_ONCE, chorus_cb, chorus);
    assert_true(crowd_connect(crowd, PATIENCE_MS));
    for (size_t i = 0; i < AT_ONCE; i++) {
        crowd_request_with(crowd, i, method, target, test.tokens[who], headers, body);
    }
    assert_true(crowd_finish(crowd, PATIENCE_MS));
    crowd_free(&crowd);
    assert_int_equal(chorus->same, AT_ONCE);
}

static void test_cancelled_once_however_often(void **state)
{
    struct chorus chorus = {0};
    char target[64];
    (void)state;
    int64_t a = server_fixture_add_product(&test.server, 10, 4), b = add_product(10);
    int64_t id = number(buy(0, NULL, 201,
                            "{\"items\":[{\"product_id\":%" PRId64 ",\"quantity\":4},{\"product_id\":%" PRId64
                            ",\"quantity\":3}]}",
                            a, b),
                        "id");
    buy(0, NULL, 409, "{\"product_id\":%" PRId64 ",\"quantity\":1}", a);
    expect_stock(a, 6);
    snprintf(target, sizeof target, "/api/purchases/%" PRId64, id);
    /* Neither a stranger nor who does not say who it is. */
    ask(1, "DELETE", 404, NULL, "%s", target);
    ask(0, "DELETE", 404, NULL, "/api/purchases/%" PRId64, id + 1000);
    all_at_once(&chorus, 0, "DELETE", target, "", NULL);
    expect_stock(a, 10);
    expect_stock(b, 10);
    const cJSON *json = ask(0, "GET", 200, NULL, "%s", target);
    assert_string_equal(test.body, chorus.body);
    assert_int_equal(count_of(json, "items"), 2);
    text(json, "cancelled_at");
    json = ask(ADMIN, "DELETE", 200, NULL, "%s", target); /* an admin comes late */
    assert_string_equal(test.body, chorus.body);
    /* The limit has room again, for as many and no more. */
    buy(0, NULL, 409, "{\"product_id\":%" PRId64 ",\"quantity\":5}", a);
    int64_t second = number(buy(0, NULL, 201, "{\"product_id\":%" PRId64 ",\"quantity\":4}", a), "id");
    json = ask(0, "GET", 200, NULL, "/api/purchases/me");
    assert_null(cJSON_GetObjectItem(item(json, NULL, 0), "cancelled_at"));
    text(item(json, NULL, 1), "cancelled_at");
    ask(ADMIN, "DELETE", 200, NULL, "/api/purchases/%" PRId64, second);
    expect_stock(a, 10);
    json = ask(0, "GET", 200, NULL, "/api/products/%" PRId64, a);
    assert_int_equal(number(json, "sold"), 8);
    assert_int_equal(number(json, "cancelled"), 8);
}

static void test_sold_out_and_back_on_sale(void **state)
{
    (void)state;
    int64_t a = add_product(1);
    int64_t id = number(buy(0, NULL, 201, "{\"product_id\":%" PRId64 ",\"quantity\":1}", a), "id");
    for (int i = 0; i < 5; i++) {
        buy(1, NULL, 400, "{\"product_id\":%" PRId64 ",\"quantity\":1}", a);
    }
    ask(0, "DELETE", 200, NULL, "/api/purchases/%" PRId64, id);
    expect_stock(a, 1);
    buy(1, NULL, 201, "{\"product_id\":%" PRId64 ",\"quantity\":1}", a);
}

/* --- changes by admins
 * --------------------------------------------------------------------------------------------------------------- */
static void test_one_key_restocks_once(void **state)
{
    struct chorus chorus = {0};
    char target[64];
    (void)state;
    int64_t a = add_product(5), b = add_product(5);
    snprintf(target, sizeof target, "/api/admin/products/%" PRId64 "/stock", a);
    static const char body[] = "{\"delta\":20,\"reason\":\"found in the back\"}";
    all_at_once(&chorus, ADMIN, "POST", target, "Idempotency-Key: pallet-1\r\n", body);
    assert_int_equal(chorus.replayed, AT_ONCE - 1);
    expect_stock(a, 25);
    const cJSON *json = ask_keyed(ADMIN, "POST", target, "\"pallet-1\"", 200, body);
    assert_true(test.replayed);
    assert_string_equal(test.body, chorus.body);
    assert_int_equal(number(json, "product_id"), a);
    assert_int_equal(number(json, "delta"), 20);
    assert_int_equal(number(json, "stock"), 25);
    assert_string_equal(text(json, "reason"), "found in the back");
    assert_non_null(strchr(text(json, "position"), '-'));
    /* Anything else with this key: another delta, another product, a price. */
    json = ask_keyed(ADMIN, "POST", target, "pallet-1", 422, "{\"delta\":21,\"reason\":\"x\"}");
    expect_problem(json, "idempotency-key-reused");
    snprintf(target, sizeof target, "/api/admin/products/%" PRId64 "/stock", b);
    ask_keyed(ADMIN, "POST", target, "pallet-1", 422, body);
    snprintf(target, sizeof target, "/api/admin/products/%" PRId64 "/price", a);
    ask_keyed(ADMIN, "POST", target, "pallet-1", 422, "{\"price\":20,\"reason\":\"x\"}");
    /* A purchase's keys are others. */
    buy(ADMIN, "pallet-1", 201, "{\"product_id\":%" PRId64 ",\"quantity\":1}", b);
    assert_false(test.replayed);
    expect_stock(a, 25);
    expect_stock(b, 4);
}

static void test_restock_and_withdraw(void **state)
{
    static const char *const bad[] = {
        "{\"reason\":\"x\"}",
        "{\"delta\":0,\"reason\":\"x\"}",
        "{\"delta\":1.5,\"reason\":\"x\"}",
        "{\"delta\":1000000001,\"reason\":\"x\"}",
        "{\"delta\":-1000000001,\"reason\":\"x\"}",
        "{\"delta\":1}",
        "{\"delta\":1,\"reason\":\"\"}",
        "{\"delta\":1,\"reason\":\"two\\nlines\"}",
        "{\"delta\":1,\"reason\":\"esc \\u001b[2J\"}",
        "{\"delta\":1,\"reason\":\"c1 \\u0085\"}",
        "{\"delta\":1,\"reason\":\"\\u007f\"}",
    };
    (void)state;
    int64_t a = add_product(5);
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        ask(ADMIN, "POST", 422, bad[i], "/api/admin/products/%" PRId64 "/stock", a);
    }
    ask(0, "POST", 403, "{\"delta\":1,\"reason\":\"x\"}", "/api/admin/products/%" PRId64 "/stock", a);
    ask(ADMIN, "POST", 404, "{\"delta\":1,\"reason\":\"x\"}", "/api/admin/products/987654/stock");
    change(a, 200, 3);
    assert_int_equal(number(test.json, "stock"), 8);
    change(a, 409, -9);
    expect_problem(test.json, "withdrawal-too-large");
    assert_int_equal(number(test.json, "requested"), 9);
    assert_int_equal(number(test.json, "available"), 8);
    change(a, 200, -8);
    expect_stock(a, 0);
    buy(0, NULL, 400, "{\"product_id\":%" PRId64 ",\"quantity\":1}", a);
    change(a, 200, 1000000000);
    change(a, 409, 1);
    expect_problem(test.json, "stock-limit");
    expect_stock(a, 1000000000);
    int64_t id = number(buy(0, NULL, 201, "{\"product_id\":%" PRId64 ",\"quantity\":1}", a), "id");
    /* What was sold may always come back, also when its place has been filled. */
    change(a, 200, 1);
    ask(0, "DELETE", 200, NULL, "/api/purchases/%" PRId64, id);
    expect_stock(a, 1000000001);
    buy(0, NULL, 201, "{\"product_id\":%" PRId64 ",\"quantity\":2}", a);
    expect_stock(a, 999999999);
}

static void test_a_new_price(void **state)
{
    char target[64];
    (void)state;
    int64_t a = add_product(10);
    snprintf(target, sizeof target, "/api/admin/products/%" PRId64 "/price", a);
    int64_t old = number(buy(0, "before", 201, "{\"product_id\":%" PRId64 ",\"quantity\":2}", a), "id");
    ask_keyed(0, "POST", target, NULL, 403, "{\"price\":450,\"reason\":\"second hour\"}");
    ask_keyed(ADMIN, "POST", target, NULL, 422, "{\"price\":0,\"reason\":\"second hour\"}");
    ask_keyed(ADMIN, "POST", target, NULL, 422, "{\"price\":450}");
    ask_keyed(ADMIN, "POST", "/api/admin/products/987654/price", NULL, 404, "{\"price\":1,\"reason\":\"x\"}");
    const cJSON *json =
        ask_keyed(ADMIN, "POST", target, "p1", 200, "{\"price\":450,\"reason\":\"second hour\"}");
    assert_int_equal(number(json, "price"), 450);
    assert_int_equal(number(json, "previous_price"), PRICE);
    json = ask_keyed(ADMIN, "POST", target, "p1", 200, "{\"price\":450,\"reason\":\"second hour\"}");
    assert_true(test.replayed);
    assert_int_equal(number(json, "previous_price"), PRICE);
    json = buy(0, NULL, 201, "{\"product_id\":%" PRId64 ",\"quantity\":2}", a);
    assert_int_equal(number(json, "total_price"), 900);
    json = ask(0, "GET", 200, NULL, "/api/products/%" PRId64, a);
    assert_int_equal(number(json, "price"), 450);
    /* What was bought before cost what it cost. */
    json = ask(0, "GET", 200, NULL, "/api/purchases/%" PRId64, old);
    assert_int_equal(number(json, "total_price"), 2 * PRICE);
    json = buy(0, "before", 201, "{\"product_id\":%" PRId64 ",\"quantity\":2}", a);
    assert_int_equal(number(json, "total_price"), 2 * PRICE);
}

static void test_the_audit_log(void **state)
{
    (void)state;
    int64_t a = add_product(5), b = add_product(5);
    change(a, 200, 7);
    char position[64];
    snprintf(position, sizeof position, "%s", text(test.json, "position"));
    ask(ADMIN, "POST", 200, "{\"price\":400,\"reason\":\"cheaper\"}", "/api/admin/products/%" PRId64 "/price",
        a);
    int64_t id = number(buy(0, NULL, 201,
                            "{\"items\":[{\"product_id\":%" PRId64 ",\"quantity\":2},{\"product_id\":%" PRId64
                            ",\"quantity\":1}]}",
                            a, b),
                        "id");
    ask(0, "DELETE", 200, NULL, "/api/purchases/%" PRId64, id);
    ask(0, "GET", 403, NULL, "/api/admin/audit");
    ask(ADMIN, "GET", 422, NULL, "/api/admin/audit?limit=101");
    const cJSON *json = ask(ADMIN, "GET", 200, NULL, "/api/admin/audit?product_id=%" PRId64, a);
    static const struct {
        const char *cause;
        int64_t delta, from, to;
    } wanted[] = {
        {"cancel", 2, 10, 12}, {"sale", -2, 12, 10}, {"price", -100, 500, 400},
        {"restock", 7, 5, 12}, {"opening", 5, 0, 5},
    };
    assert_int_equal(cJSON_GetArraySize(json), 5);
    for (int i = 0; i < 5; i++) {
        const cJSON *row = item(json, NULL, i);
        assert_string_equal(text(row, "cause"), wanted[i].cause);
        assert_int_equal(number(row, "product_id"), a);
        assert_int_equal(number(row, "delta"), wanted[i].delta);
        assert_int_equal(number(row, "from"), wanted[i].from);
        assert_int_equal(number(row, "to"), wanted[i].to);
        assert_true(cJSON_IsTrue(cJSON_GetObjectItem(row, "applied")));
        assert_int_equal(strlen(text(row, "hash")), 64);
        text(row, "at");
    }
    assert_string_equal(text(item(json, NULL, 3), "position"), position);
    assert_string_equal(text(item(json, NULL, 3), "reason"), "a pallet");
    assert_int_equal(number(item(json, NULL, 0), "actor"), test.first_user);
    int64_t seq = number(item(json, NULL, 1), "seq");
    json = ask(ADMIN, "GET", 200, NULL, "/api/admin/audit?limit=2&before=%" PRId64 "&product_id=%" PRId64,
               seq, a);
    assert_int_equal(cJSON_GetArraySize(json), 2);
    assert_string_equal(text(item(json, NULL, 0), "cause"), "price");
    json = ask(ADMIN, "GET", 200, NULL, "/api/admin/audit?limit=1");
    assert_int_equal(cJSON_GetArraySize(json), 1);
    assert_string_equal(text(item(json, NULL, 0), "cause"), "cancel");
}

/* --- windows
 * ------------------------------------------------------------------------------------------------------------------------ */
static void test_before_the_sale_and_after(void **state)
{
    char starts[CLOCK_RFC3339_BYTES], ends[CLOCK_RFC3339_BYTES];
    (void)state;
    int64_t now = clock_wall_ms();
    clock_rfc3339(now + 2500, starts);
    clock_rfc3339(now + 4000, ends);
    const cJSON *json =
        try_product(201, "hour", "\"stock\":100,\"starts_at\":\"%s\",\"ends_at\":\"%s\"", starts, ends);
    int64_t a = number(json, "id"), b = add_product(100);
    assert_string_equal(text(json, "starts_at"), starts);
    assert_string_equal(text(json, "ends_at"), ends);
    json = buy(0, NULL, 409, "{\"product_id\":%" PRId64 ",\"quantity\":1}", a);
    expect_problem(json, "sale-not-open");
    assert_int_equal(number(json, "product_id"), a);
    assert_string_equal(text(json, "starts_at"), starts);
    assert_in_range(atoi(test.retry_after), 1, 3);
    /* A cart with it is as closed. */
    json = buy(0, NULL, 409,
               "{\"items\":[{\"product_id\":%" PRId64 ",\"quantity\":1},{\"product_id\":%" PRId64
               ",\"quantity\":1}]}",
               b, a);
    assert_int_equal(number(json, "product_id"), a);
    expect_stock(b, 100);
    int64_t deadline = deadline_in(PATIENCE_MS);
    while (clock_wall_ms() <= now + 2500) {
        assert_true(wait_a_moment(deadline));
    }
    buy(0, NULL, 201, "{\"product_id\":%" PRId64 ",\"quantity\":1}", a);
    while (clock_wall_ms() <= now + 4000) {
        assert_true(wait_a_moment(deadline));
    }
    json = buy(0, NULL, 409, "{\"product_id\":%" PRId64 ",\"quantity\":1}", a);
    expect_problem(json, "sale-over");
    assert_string_equal(text(json, "ends_at"), ends);
    expect_stock(a, 99);
}

static void test_a_sale_is_closed_and_opened_again(void **state)
{
    char target[64];
    (void)state;
    int64_t a = add_product(10), b = add_product(2);
    snprintf(target, sizeof target, "/api/admin/products/%" PRId64 "/window", a);
    static const char close[] = "{\"ends_at\":\"now\",\"reason\":\"enough\"}";
    ask_keyed(0, "POST", target, NULL, 403, close);
    ask_keyed(ADMIN, "POST", "/api/admin/products/987654/window", NULL, 404, close);
    expect_fault(ask_keyed(ADMIN, "POST", target, NULL, 422, "{\"reason\":\"x\"}"), "starts_at", "required");
    expect_fault(ask_keyed(ADMIN, "POST", target, NULL, 422, "{\"ends_at\":\"later\",\"reason\":\"x\"}"),
                 "ends_at", "RFC 3339");
    expect_fault(ask_keyed(ADMIN, "POST", target, NULL, 422, "{\"ends_at\":5,\"reason\":\"x\"}"), "ends_at",
                 "text");
    expect_fault(ask_keyed(ADMIN, "POST", target, NULL, 422, "{\"ends_at\":\"now\"}"), "reason", "required");
    expect_fault(ask_keyed(ADMIN, "POST", target, NULL, 422,
                           "{\"starts_at\":\"now\",\"ends_at\":\"now\",\"reason\":\"x\"}"),
                 "ends_at", "after starts_at");
    buy(0, "before", 201, "{\"product_id\":%" PRId64 ",\"quantity\":1}", a);
    char ends[64], position[64];
    const cJSON *json = ask_keyed(ADMIN, "POST", target, "w1", 200, close);
    assert_int_equal(number(json, "product_id"), a);
    assert_true(cJSON_IsNull(cJSON_GetObjectItem(json, "starts_at")));
    assert_string_equal(text(json, "reason"), "enough");
    snprintf(ends, sizeof ends, "%s", text(json, "ends_at"));
    snprintf(position, sizeof position, "%s", text(json, "position"));
    /* Each worker, and what was bought before is bought. */
    for (int i = 0; i < 8; i++) {
        json = buy(0, NULL, 409, "{\"product_id\":%" PRId64 ",\"quantity\":1}", a);
        expect_problem(json, "sale-over");
        assert_string_equal(text(json, "ends_at"), ends);
    }
    buy(0, "before", 201, "{\"product_id\":%" PRId64 ",\"quantity\":1}", a);
    assert_true(test.replayed);
    json = ask_keyed(ADMIN, "POST", target, "w1", 200, close);
    assert_true(test.replayed);
    assert_string_equal(text(json, "ends_at"), ends);
    assert_string_equal(text(json, "position"), position);
    ask_keyed(ADMIN, "POST", target, "w1", 422, "{\"ends_at\":null,\"reason\":\"x\"}");
    json = ask(0, "GET", 200, NULL, "/api/products/%" PRId64, a);
    assert_string_equal(text(json, "ends_at"), ends);
    json = ask(ADMIN, "GET", 200, NULL, "/api/admin/audit?limit=2&product_id=%" PRId64, a);
    assert_string_equal(text(item(json, NULL, 0), "cause"), "ends");
    assert_string_equal(text(item(json, NULL, 0), "to_time"), ends);
    assert_true(cJSON_IsNull(cJSON_GetObjectItem(item(json, NULL, 0), "from_time")));
    assert_string_equal(text(item(json, NULL, 1), "cause"), "starts");
    expect_fault(ask_keyed(ADMIN, "POST", target, NULL, 422, "{\"starts_at\":\"now\",\"reason\":\"x\"}"),
                 "ends_at", "after starts_at");
    json = ask_keyed(ADMIN, "POST", target, NULL, 200,
                     "{\"starts_at\":\"now\",\"ends_at\":null,\"reason\":\"on we go\"}");
    assert_true(cJSON_IsNull(cJSON_GetObjectItem(json, "ends_at")));
    buy(0, NULL, 201, "{\"product_id\":%" PRId64 ",\"quantity\":1}", a);
    expect_stock(a, 8);
    /* Sold out, and then closed: closed is the reason, also for a worker that knows it to be sold out. */
    buy(0, NULL, 201, "{\"product_id\":%" PRId64 ",\"quantity\":2}", b);
    for (int i = 0; i < 8; i++) {
        buy(0, NULL, 400, "{\"product_id\":%" PRId64 ",\"quantity\":1}", b);
    }
    snprintf(target, sizeof target, "/api/admin/products/%" PRId64 "/window", b);
    ask_keyed(ADMIN, "POST", target, NULL, 200, close);
    for (int i = 0; i < 8; i++) {
        expect_problem(buy(0, NULL, 409, "{\"product_id\":%" PRId64 ",\"quantity\":1}", b), "sale-over");
    }
}

static void test_what_is_no_window(void **state)
{
    (void)state;
    expect_fault(try_product(422, "x", "\"stock\":1,\"starts_at\":\"soon\""), "starts_at", "RFC 3339");
    expect_fault(try_product(422, "x", "\"stock\":1,\"ends_at\":1795737600"), "ends_at", "text");
    expect_fault(try_product(422, "x",
                             "\"stock\":1,\"starts_at\":\"2026-11-27T00:00:00Z\",\"ends_at\":"
                             "\"2026-11-27T00:00:00Z\""),
                 "ends_at", "after starts_at");
    expect_fault(try_product(422, "x",
                             "\"stock\":1,\"starts_at\":\"2026-11-27T00:00:00Z\",\"ends_at\":"
                             "\"2026-11-27T08:00:00+09:00\""),
                 "ends_at", "after starts_at");
    const cJSON *json = try_product(201, "x", "\"stock\":1,\"starts_at\":\"2020-11-27T09:00:00.5+09:00\"");
    assert_string_equal(text(json, "starts_at"), "2020-11-27T00:00:00.500Z");
    assert_true(cJSON_IsNull(cJSON_GetObjectItem(json, "ends_at")));
    assert_null(cJSON_GetObjectItem(json, "components"));
}

/* --- storms
 * ---------------------------------------------------------------------------------------------------------------------- */
struct storm {
    struct crowd *crowd;
    int64_t a, b;
    size_t carts, only_a, only_b;
};

static void storm_ask(struct storm *storm, size_t client)
{
    static const char pair[] = "{\"items\":[{\"product_id\":%" PRId64
                               ",\"quantity\":1},{\"product_id\":%" PRId64 ",\"quantity\":1}]}";
    char body[256];
    switch (client % 4) {
    case 0:
        snprintf(body, sizeof body, pair, storm->a, storm->b);
        break;
    case 1:
        snprintf(body, sizeof body, pair, storm->b, storm->a);
        break;
    default:
        snprintf(body, sizeof body, "{\"product_id\":%" PRId64 ",\"quantity\":1}",
                 client % 4 == 2 ? storm->a : storm->b);
    }
    crowd_request(storm->crowd, client, "POST", "/api/purchases", test.tokens[client % USERS], body);
}

static void storm_cb(void *context, size_t client, const struct crowd_answer *answer)
{
    struct storm *storm = context;
    if (answer->status == 400) { /* this one has had enough */
        assert_non_null(strstr(answer->body, "Insufficient stock"));
        return;
    }
    if (answer->status != 201) {
        fail_msg("status %d: %s", answer->status, answer->body);
    }
    cJSON *json = cJSON_Parse(answer->body);
    if (client % 4 < 2) {
        assert_int_equal(count_of(json, "items"), 2);
        assert_int_equal(number(json, "total_price"), 2 * PRICE);
        storm->carts++;
    } else if (client % 4 == 2) {
        storm->only_a++;
    } else {
        storm->only_b++;
    }
    cJSON_Delete(json);
    storm_ask(storm, client);
}

/* A before B and B before A, and each alone, until both are gone. */
static void test_a_storm_of_carts(void **state)
{
    (void)state;
    unsigned rounds = rounds_wanted(3);
    for (unsigned round = 0; round < rounds; round++) {
        size_t stock_a = 700 + round, stock_b = 500;
        struct storm storm = {.a = add_product((int64_t)stock_a), .b = add_product((int64_t)stock_b)};
        storm.crowd = crowd_new(test.server.port, STORM_CLIENTS, storm_cb, &storm);
        assert_true(crowd_connect(storm.crowd, PATIENCE_MS));
        for (size_t i = 0; i < STORM_CLIENTS; i++) {
            storm_ask(&storm, i);
        }
        assert_true(crowd_finish(storm.crowd, 2 * PATIENCE_MS));
        crowd_free(&storm.crowd);
        assert_int_equal(storm.carts + storm.only_a, stock_a);
        assert_int_equal(storm.carts + storm.only_b, stock_b);
        assert_true(storm.carts > 0 && storm.only_a > 0 && storm.only_b > 0);
        expect_stock(storm.a, 0);
        expect_stock(storm.b, 0);
    }
}

/* --- answers that are lost
 * ---------------------------------------------------------------------------------------------------------- */
#define LOST_STOCK 20000

struct losing {
    struct crowd *crowd;
    int64_t a, b;
    bool over;
    size_t confirmed;
    bool seen[2][LOST_STOCK]; /* what remained of each product after an order */
};

static void losing_ask(struct losing *losing, size_t client)
{
    char body[256];
    snprintf(body, sizeof body,
             "{\"items\":[{\"product_id\":%" PRId64 ",\"quantity\":1},{\"product_id\":%" PRId64
             ",\"quantity\":1}]}",
             client % 2 ? losing->a : losing->b, client % 2 ? losing->b : losing->a);
    crowd_request(losing->crowd, client, "POST", "/api/purchases", test.tokens[client % USERS], body);
}

static void losing_cb(void *context, size_t client, const struct crowd_answer *answer)
{
    struct losing *losing = context;
    if (answer->status == 201) {
        cJSON *json = cJSON_Parse(answer->body);
        for (int i = 0; i < 2; i++) {
            const cJSON *line = item(json, "items", i);
            bool is_a = number(line, "product_id") == losing->a;
            int64_t remaining = number(line, "remaining_stock");
            assert_int_equal(is_a, (client % 2 == 1) == (i == 0));
            assert_int_equal(number(line, "unit_price"), PRICE);
            assert_in_range(remaining, 0, LOST_STOCK - 1);
            assert_false(losing->seen[is_a][remaining]);
            losing->seen[is_a][remaining] = true;
        }
        assert_int_equal(number(json, "total_price"), 2 * PRICE);
        cJSON_Delete(json);
        losing->confirmed++;
    } else if (answer->status != 503) {
        fail_msg("status %d: %s", answer->status, answer->body);
    }
    if (!losing->over) {
        losing_ask(losing, client);
    }
}

/* The workers' links break again and again: what was sold without their hearing of it is found in the store, with every line's price. */
static void test_carts_in_doubt(void **state)
{
    static struct losing losing;
    (void)state;
    losing = (struct losing){.a = add_product(LOST_STOCK), .b = add_product(LOST_STOCK)};
    losing.crowd = crowd_new(test.server.port, STORM_CLIENTS, losing_cb, &losing);
    redisContext *redis = server_fixture_redis(&test.server);
    assert_true(crowd_connect(losing.crowd, PATIENCE_MS));
    for (size_t i = 0; i < STORM_CLIENTS; i++) {
        losing_ask(&losing, i);
    }
    unsigned rounds = rounds_wanted(8);
    int64_t deadline = deadline_in(4 * PATIENCE_MS);
    for (unsigned round = 0; round < rounds; round++) {
        size_t goal = losing.confirmed + STORM_CLIENTS;
        while (losing.confirmed < goal) {
            assert_true(now_us() < deadline);
            crowd_step(losing.crowd, 2);
        }
        redis_do(redis, "CLIENT KILL TYPE normal SKIPME yes");
    }
    losing.over = true;
    assert_true(crowd_finish(losing.crowd, PATIENCE_MS));
    crowd_free(&losing.crowd);
    redisFree(redis);
    assert_true(server_fixture_metric(&test.server, "purchases_in_doubt") > 0);
    assert_true(server_fixture_metric(&test.server, "purchases_settled") > 0);
}

/* Sends it without waiting for the answer. */
static void send_admin(struct http_client *client, const char *method, const char *target, const char *key,
                       const char *body)
{
    char headers[HEADERS_BYTES];
    snprintf(headers, sizeof headers, "Authorization: Bearer %s\r\nContent-Type: application/json\r\n%s%s%s",
             test.tokens[ADMIN], key ? "Idempotency-Key: " : "", key ? key : "", key ? "\r\n" : "");
    assert_int_equal(http_client_open(client, "127.0.0.1", test.server.port, PATIENCE_MS), HTTP_CLIENT_OK);
    assert_int_equal(
        http_client_request(client, method, target, headers, body, body ? strlen(body) : 0, PATIENCE_MS),
        HTTP_CLIENT_OK);
}

static int heard_status(struct http_client *client)
{
    struct http_answer answer;
    assert_int_equal(http_client_read(client, &answer, PATIENCE_MS), HTTP_CLIENT_OK);
    int status = answer.status;
    http_answer_free(&answer);
    http_client_close(client);
    return status;
}

static void await_log_entries(redisContext *redis, long long more, long long *known)
{
    int64_t deadline = deadline_in(PATIENCE_MS);
    for (;;) {
        redisReply *reply = redis_ask(redis, "XLEN {doorbuster}:log");
        assert_non_null(reply);
        long long length = reply->integer;
        freeReplyObject(reply);
        if (length >= *known + more) {
            *known = length;
            return;
        }
        assert_true(wait_a_moment(deadline));
    }
}

/* As a careful admin does: the same again until it is done. */
static void insist(const char *method, const char *target, const char *key, const char *body)
{
    char headers[HEADERS_BYTES];
    int64_t deadline = deadline_in(PATIENCE_MS);
    int status = 0;
    snprintf(headers, sizeof headers, "Authorization: Bearer %s\r\nContent-Type: application/json\r\n%s%s%s",
             test.tokens[ADMIN], key ? "Idempotency-Key: " : "", key ? key : "", key ? "\r\n" : "");
    while (status != 200) {
        struct http_answer answer;
        assert_true(wait_a_moment(deadline));
        assert_int_equal(http_client_call(&test.client, method, target, headers, body, &answer, PATIENCE_MS),
                         HTTP_CLIENT_OK);
        status = answer.status;
        if (status != 200 && status != 503) {
            fail_msg("%s %s: %d %s", method, target, status, answer.body);
        }
        http_answer_free(&answer);
    }
}

/* Cuts the link of whoever waits for the log. */
static void cut_reader(redisContext *redis)
{
    static const char reading[] = "cmd=xread";
    int64_t deadline = deadline_in(PATIENCE_MS);
    long long id = 0;
    while (id == 0) {
        assert_true(wait_a_moment(deadline));
        redisReply *reply = redis_ask(redis, "CLIENT LIST");
        assert_non_null(reply);
        for (char *line = strtok(reply->str, "\n"); line != NULL; line = strtok(NULL, "\n")) {
            if (strstr(line, reading) != NULL && strncmp(line, "id=", 3) == 0) {
                id = strtoll(line + 3, NULL, 10);
            }
        }
        freeReplyObject(reply);
    }
    redis_do(redis, "CLIENT KILL ID %lld", id);
}

/* Redis forgets a restock and a cancellation before they are recorded: nobody is told that they were made, and the next try makes them. */
static void test_changes_that_redis_forgot(void **state)
{
    struct http_client restocking = {.fd = -1}, cancelling = {.fd = -1};
    static const char body[] = "{\"delta\":20,\"reason\":\"a pallet\"}";
    char restock[64], cancel[64];
    long long entries = 0;
    (void)state;
    int64_t a = add_product(5);
    int64_t id = number(buy(0, NULL, 201, "{\"product_id\":%" PRId64 ",\"quantity\":2}", a), "id");
    snprintf(restock, sizeof restock, "/api/admin/products/%" PRId64 "/stock", a);
    snprintf(cancel, sizeof cancel, "/api/purchases/%" PRId64, id);
    redisContext *redis = server_fixture_redis(&test.server);
    await_log_entries(redis, 1, &entries);
    /* What the recorder was waiting for must not reach it: its link is cut while it stands still. */
    pid_t recorder = server_fixture_child(&test.server, "doorbuster: recorder");
    kill(recorder, SIGSTOP);
    cut_reader(redis);
    send_admin(&restocking, "POST", restock, "pallet", body);
    await_log_entries(redis, 1, &entries);
    send_admin(&cancelling, "DELETE", cancel, NULL, NULL);
    await_log_entries(redis, 1, &entries);
    redis_do(redis, "FLUSHALL");
    kill(recorder, SIGCONT);
    assert_int_equal(heard_status(&restocking), 503);
    assert_int_equal(heard_status(&cancelling), 503);
    insist("POST", restock, "pallet", body);
    insist("DELETE", cancel, NULL, NULL);
    expect_stock(a, 25);
    redisFree(redis);
}

/* Somebody has edited Redis, which lets more be withdrawn than there is. The store does not apply that; who repeats with the key must not
 * hear that it was done either, and hears what there is when Redis is healed. */
static void test_a_withdrawal_that_did_not_fit(void **state)
{
    static const char body[] = "{\"delta\":-8,\"reason\":\"damaged\"}";
    char target[64], headers[HEADERS_BYTES];
    struct http_answer answer = {0};
    int64_t a = add_product(5), deadline = deadline_in(PATIENCE_MS);
    (void)state;
    snprintf(target, sizeof target, "/api/admin/products/%" PRId64 "/stock", a);
    snprintf(headers, sizeof headers,
             "Authorization: Bearer %s\r\nContent-Type: application/json\r\nIdempotency-Key: box-1\r\n",
             test.tokens[ADMIN]);
    redisContext *redis = server_fixture_redis(&test.server);
    redis_do(redis, "HINCRBY {doorbuster}:product:%lld stock 10", (long long)a);
    redisFree(redis);
    do {
        http_answer_free(&answer);
        assert_int_equal(http_client_call(&test.client, "POST", target, headers, body, &answer, PATIENCE_MS),
                         HTTP_CLIENT_OK);
        assert_true(now_us() < deadline);
    } while (answer.status == 503);
    assert_int_equal(answer.status, 409);
    http_answer_free(&answer);
    expect_stock(a, 5);
}

/* Redis ended every connection, those of the desks among them. What comes when it serves again finds new ones, and is not answered 503. */
static void test_changes_after_redis_let_go(void **state)
{
    (void)state;
    int64_t a = add_product(10);
    int64_t id = number(buy(0, NULL, 201, "{\"product_id\":%" PRId64 ",\"quantity\":1}", a), "id");
    change(a, 200, 5); /* a desk has its connection */
    redisContext *redis = server_fixture_redis(&test.server);
    redis_do(redis, "CLIENT KILL TYPE normal SKIPME yes");
    buy(0, NULL, 201, "{\"product_id\":%" PRId64 ",\"quantity\":1}", a);
    change(a, 200, -2);
    redis_do(redis, "CLIENT KILL TYPE normal SKIPME yes");
    buy(0, NULL, 201, "{\"product_id\":%" PRId64 ",\"quantity\":1}", a);
    ask(0, "DELETE", 200, NULL, "/api/purchases/%" PRId64, id);
    redisFree(redis);
    expect_stock(a, 11);
}

/* Redis had been told of more than there is, and gave it to a withdrawal that the store did not have: neither it nor the same again was made. */
static void test_a_change_that_the_store_did_not_have(void **state)
{
    struct http_client withdrawing = {.fd = -1};
    static const char body[] = "{\"delta\":-12,\"reason\":\"broken\"}";
    char target[64];
    long long entries = 0;
    (void)state;
    int64_t a = add_product(5);
    snprintf(target, sizeof target, "/api/admin/products/%" PRId64 "/stock", a);
    redisContext *redis = server_fixture_redis(&test.server);
    await_log_entries(redis, 1, &entries);
    pid_t recorder = server_fixture_child(&test.server, "doorbuster: recorder");
    kill(recorder, SIGSTOP);
    redis_do(redis, "HINCRBY {doorbuster}:product:%" PRId64 " stock 10", a);
    send_admin(&withdrawing, "POST", target, "broken", body);
    await_log_entries(redis, 1, &entries);
    kill(recorder, SIGCONT);
    assert_int_equal(heard_status(&withdrawing), 503);
    int64_t deadline = deadline_in(PATIENCE_MS);
    int status = 503;
    while (status == 503) { /* until Redis is put right, and knows what is there */
        assert_true(wait_a_moment(deadline));
        send_admin(&withdrawing, "POST", target, "broken", body);
        status = heard_status(&withdrawing);
    }
    assert_int_equal(status, 409);
    expect_stock(a, 5);
    redisFree(redis);
}

/* --- after edits of Redis
 * ------------------------------------------------------------------------------------------------------------- */
/* cancel.lua says DAMAGED: whoever cancels asks for the mending. */
static void test_cancelling_when_the_buyers_were_edited(void **state)
{
    (void)state;
    int64_t product = server_fixture_add_product(&test.server, 100, 3);
    int64_t order = number(buy(0, NULL, 201, "{\"product_id\":%" PRId64 ",\"quantity\":2}", product), "id");
    redisContext *redis = server_fixture_redis(&test.server);
    redis_do(redis, "HDEL {doorbuster}:buyers:%" PRId64 " %" PRId64, product, test.first_user);
    redisFree(redis);
    ask(0, "DELETE", 200, NULL, "/api/purchases/%" PRId64, order);
    expect_stock(product, 100);
}

/* Redis's clock was ahead for a moment, and one sale was made then: the log's time stays there, but a window opens by the clock. */
static void test_a_window_after_the_clock_was_ahead(void **state)
{
    (void)state;
    int64_t later =
        number(try_product(201, "later", "\"stock\":5,\"starts_at\":\"2090-01-01T00:00:00Z\""), "id");
    redisContext *redis = server_fixture_redis(&test.server);
    redis_do(redis, "HSET {doorbuster}:head at 4000000000000");
    redisFree(redis);
    buy(0, NULL, 409, "{\"product_id\":%" PRId64 ",\"quantity\":1}", later);
}

/* --- the whole
 * ------------------------------------------------------------------------------------------------------------------------ */
static int setup(void **state)
{
    (void)state;
    server_fixture_begin(&test.server);
    server_fixture_start(&test.server, 2, NULL, NULL);
    test.first_user = server_fixture_add_users(&test.server, USERS + 1);
    for (size_t i = 0; i <= USERS; i++) {
        server_fixture_token(&test.server, test.first_user + (int64_t)i, i == ADMIN ? USER_ADMIN : USER_BUYER,
                             test.tokens[i]);
    }
    test.client = (struct http_client){.fd = -1, .host = "127.0.0.1", .port = test.server.port};
    return 0;
}

/* Each test ends with both books in order. */
static int teardown(void **state)
{
    (void)state;
    http_client_close(&test.client);
    cJSON_Delete(test.json);
    test.json = NULL;
    server_fixture_verify(&test.server, 0);
    server_fixture_stop(&test.server);
    server_fixture_end(&test.server);
    return 0;
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest both[] = {
        TEST(test_a_cart),
        TEST(test_twenty_lines_and_no_more),
        TEST(test_one_short_line_takes_nothing),
        TEST(test_limit_over_lines_and_components),
        TEST(test_a_cart_again),
        TEST(test_a_bundle),
        TEST(test_cancelled_once_however_often),
        TEST(test_sold_out_and_back_on_sale),
        TEST(test_one_key_restocks_once),
        TEST(test_restock_and_withdraw),
        TEST(test_a_new_price),
        TEST(test_the_audit_log),
        TEST(test_before_the_sale_and_after),
        TEST(test_a_storm_of_carts),
    };
    const struct CMUnitTest lua[] = {
        TEST(test_what_is_no_cart),
        TEST(test_what_is_no_bundle),
        TEST(test_a_sale_is_closed_and_opened_again),
        TEST(test_what_is_no_window),
        TEST(test_cancelling_when_the_buyers_were_edited),
        TEST(test_a_window_after_the_clock_was_ahead),
        TEST(test_a_change_that_the_store_did_not_have),
        TEST(test_carts_in_doubt),
        TEST(test_changes_that_redis_forgot),
        TEST(test_a_withdrawal_that_did_not_fit),
        TEST(test_changes_after_redis_let_go),
    };
    signal(SIGPIPE, SIG_IGN);
    int failed = cmocka_run_group_tests(both, NULL, NULL);
    return failed + (gate_is_redlock() ? 0 : cmocka_run_group_tests(lua, NULL, NULL));
}
