/* Bad input and hostile input against the real server: each gets the answer of the contract, and changes
 * nothing.
 *
 * The tables say what is sent and which status must come. Every refusal is a problem (RFC 9457) whose type
 * has a page; after every request both books of the product and the number of orders are what they were. */
#include "testing.h"

#include "http_client.h"
#include "run.h"
#include "server_fixture.h"

#include "doorbuster/json.h"
#include "doorbuster/redis.h"

#include <inttypes.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define PATIENCE_MS 15000
#define STOCK 1000
#define HEADERS_BYTES (JWT_TOKEN_BYTES_MAX + 256)
#define BIG_BYTES ((size_t)10 << 20)
#define SLOW_CLIENTS 3
#define SLOW_MS 14000 /* the server's deadline for a head or a body is 10 s */

static struct {
    struct server_fixture server;
    struct http_client client;
    struct store *store;
    redisContext *redis;
    int64_t product, buyer;
    char buyer_token[JWT_TOKEN_BYTES_MAX], admin_token[JWT_TOKEN_BYTES_MAX];
    struct http_client slow[SLOW_CLIENTS];
    int64_t slow_since_us, slow_last_us;
} test;

/* --- nothing has changed
 * ----------------------------------------------------------------------------------------------------------
 */
static void check_nothing_changed(const char *what)
{
    struct store_position position;
    struct store_product product;
    assert_int_equal(store_position(test.store, &position), STORE_OK);
    assert_int_equal(store_find_product(test.store, test.product, &product), STORE_OK);
    redisReply *stock =
        redis_ask(test.redis, "HGET {doorbuster}:product:%lld stock", (long long)test.product);
    redisReply *orders = redis_ask(test.redis, "HGET {doorbuster}:head orders");
    assert_non_null(stock);
    assert_non_null(orders);
    if (position.last_order_id != 0 || product.stock != STOCK || strcmp(stock->str, "1000") != 0 ||
        strcmp(orders->str, "0") != 0) {
        fail_msg("\"%s\" changed something: %" PRId64 " orders, stock %" PRId64
                 ", in Redis %s orders, stock %s",
                 what, position.last_order_id, product.stock, orders->str, stock->str);
    }
    freeReplyObject(stock);
    freeReplyObject(orders);
}

/* --- slow clients: one byte a second, in the background of the other tests
 * ------------------------------------------------------------ */
static void start_slow_clients(void)
{
    static const char *const beginnings[SLOW_CLIENTS] = {
        "P", "POST /api/purchases HTTP/1.1\r\nHost: x\r\nX-Slow: ",
        "POST /api/auth/login HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n"};
    for (size_t i = 0; i < SLOW_CLIENTS; i++) {
        assert_int_equal(http_client_open(&test.slow[i], "127.0.0.1", test.server.port, PATIENCE_MS),
                         HTTP_CLIENT_OK);
        assert_int_equal(
            http_client_send(&test.slow[i], beginnings[i], strlen(beginnings[i]), PATIENCE_MS, NULL),
            HTTP_CLIENT_OK);
    }
    test.slow_since_us = test.slow_last_us = now_us();
}

static void feed_slow_clients(void)
{
    if (now_us() - test.slow_last_us < 1000000) {
        return;
    }
    test.slow_last_us = now_us();
    for (size_t i = 0; i < SLOW_CLIENTS; i++) {
        http_client_send(&test.slow[i], "x", 1, PATIENCE_MS, NULL); /* fails once the server has closed */
    }
}

static void test_one_byte_a_second(void **state)
{
    (void)state;
    for (size_t i = 0; i < SLOW_CLIENTS; i++) {
        int64_t deadline = test.slow_since_us + (int64_t)SLOW_MS * 1000;
        enum http_client_result result;
        while ((result = http_client_wait_closed(&test.slow[i], 100)) == HTTP_CLIENT_TIMEOUT) {
            if (now_us() > deadline) {
                fail_msg("slow client %zu is still connected after %d ms", i, SLOW_MS);
            }
            feed_slow_clients();
        }
        http_client_close(&test.slow[i]);
    }
    check_nothing_changed("one byte a second");
}

/* --- problems
 * --------------------------------------------------------------------------------------------------------------------------
 */
static void check_page_behind(const char *type)
{
    static char seen[32][64];
    static size_t count;
    for (size_t i = 0; i < count; i++) {
        if (strcmp(seen[i], type) == 0) {
            return;
        }
    }
    struct http_answer answer;
    assert_int_equal(http_client_call(&test.client, "GET", type, NULL, NULL, &answer, PATIENCE_MS),
                     HTTP_CLIENT_OK);
    assert_int_equal(answer.status, 200);
    assert_true(answer.body_bytes > 20);
    http_answer_free(&answer);
    assert_in_range(count, 0, 31);
    snprintf(seen[count++], sizeof seen[0], "%s", type);
}

static void check_problem(const char *what, const struct http_answer *answer, int status)
{
    char value[128];
    const char *type, *text;
    int64_t status_member;
    if (answer->status != status) {
        fail_msg("\"%s\": status %d, not %d: %s", what, answer->status, status, answer->body);
    }
    const char *media = http_answer_header(answer, "Content-Type", value, sizeof value);
    if (media == NULL || strcmp(media, "application/problem+json") != 0) {
        fail_msg("\"%s\": its Content-Type is %s", what, media ? media : "missing");
    }
    cJSON *json = json_parse_object(answer->body, answer->body_bytes);
    if (json == NULL) {
        fail_msg("\"%s\": not JSON: %s", what, answer->body);
    }
    assert_int_equal(json_get_integer(json, "status", 100, 599, &status_member), JSON_FIELD_OK);
    assert_int_equal(status_member, status);
    assert_int_equal(json_get_string(json, "title", 1, 200, &text), JSON_FIELD_OK);
    assert_int_equal(json_get_string(json, "detail", 1, 4000, &text), JSON_FIELD_OK);
    assert_int_equal(json_get_string(json, "type", 1, 100, &type), JSON_FIELD_OK);
    assert_int_equal(strncmp(type, "/problems/", 10), 0);
    if (status == 422) {
        const cJSON *errors = cJSON_GetObjectItemCaseSensitive(json, "errors");
        assert_true(cJSON_IsArray(errors) && cJSON_GetArraySize(errors) > 0);
        const cJSON *first = cJSON_GetArrayItem(errors, 0);
        assert_int_equal(json_get_string(first, "field", 1, 100, &text), JSON_FIELD_OK);
        assert_int_equal(json_get_string(first, "message", 1, 1000, &text), JSON_FIELD_OK);
    }
    if (status == 401) {
        assert_non_null(http_answer_header(answer, "WWW-Authenticate", value, sizeof value));
        assert_string_equal(value, "Bearer");
    }
    if (status == 405) {
        assert_non_null(http_answer_header(answer, "Allow", value, sizeof value));
    }
    check_page_behind(type);
    cJSON_Delete(json);
}

/* --- one request
 * ---------------------------------------------------------------------------------------------------------------------------
 */
enum who { NOBODY, BUYER, ADMIN };

static void format_headers(char *out, const char *token, const char *media)
{
    int used = token != NULL ? snprintf(out, HEADERS_BYTES, "Authorization: Bearer %s\r\n", token) : 0;
    out[used] = '\0';
    if (media != NULL) {
        snprintf(out + used, (size_t)(HEADERS_BYTES - used), "Content-Type: %s\r\n", media);
    }
}

static const char *token_of(enum who who)
{
    return who == BUYER ? test.buyer_token : who == ADMIN ? test.admin_token : NULL;
}

static struct http_answer ask(const char *method, const char *target, const char *headers, const char *body)
{
    struct http_answer answer;
    feed_slow_clients();
    enum http_client_result result =
        http_client_call(&test.client, method, target, headers, body, &answer, PATIENCE_MS);
    if (result != HTTP_CLIENT_OK) {
        fail_msg("%s %s: no answer (%d)", method, target, (int)result);
    }
    return answer;
}

struct refused {
    int status;
    const char *body;
};

/* "PRODUCT" stands for the product's id. */
static void fill_in_product(const char *from, char *out, size_t out_bytes)
{
    static const char word[] = "PRODUCT";
    size_t used = 0;
    for (const char *mark; (mark = strstr(from, word)) != NULL; from = mark + strlen(word)) {
        used += (size_t)snprintf(out + used, out_bytes - used, "%.*s%" PRId64, (int)(mark - from), from,
                                 test.product);
    }
    snprintf(out + used, out_bytes - used, "%s", from);
}

/* Every body of the list gets its status. */
static void each_is_refused(const char *target, enum who who, const char *media, const struct refused *list,
                            size_t count)
{
    char headers[HEADERS_BYTES], body[4096];
    format_headers(headers, token_of(who), media);
    for (size_t i = 0; i < count; i++) {
        fill_in_product(list[i].body, body, sizeof body);
        struct http_answer answer = ask("POST", target, headers, body);
        check_problem(body, &answer, list[i].status);
        http_answer_free(&answer);
        check_nothing_changed(body);
    }
}
#define EACH_IS_REFUSED(target, who, media, list)                                                            \
    each_is_refused(target, who, media, list, sizeof(list) / sizeof(list)[0])

/* --- purchases
 * ---------------------------------------------------------------------------------------------------------------------------------
 */
static void test_purchase_bodies(void **state)
{
    static const struct refused list[] = {
        /* not JSON, or not an object */
        {400, ""},
        {400, " "},
        {400, "not json"},
        {400, "[]"},
        {400, "[{\"product_id\":PRODUCT,\"quantity\":1}]"},
        {400, "\"x\""},
        {400, "1"},
        {400, "null"},
        {400, "{"},
        {400, "{\"product_id\":PRODUCT,\"quantity\":1"},
        {400, "{\"product_id\":PRODUCT,\"quantity\":1}}"},
        {400, "{\"product_id\":PRODUCT,\"quantity\":1} x"},
        {400, "{'product_id':PRODUCT,'quantity':1}"},
        {400, "{\"product_id\":PRODUCT,\"quantity\":1,}"},
        {400, "{\"product_id\":PRODUCT,\"quantity\":01}"},
        {400, "{\"product_id\":PRODUCT,\"quantity\":+1}"},
        {400, "{\"product_id\":PRODUCT,\"quantity\":1.}"},
        {400, "{\"product_id\":PRODUCT,\"quantity\":NaN}"},
        {400, "{\"product_id\":PRODUCT,\"quantity\":Infinity}"},
        {400, "{\"product_id\":PRODUCT,\"quantity\":0x1}"},
        {400, "\xEF\xBB\xBF{\"product_id\":PRODUCT,\"quantity\":1}"},
        {400, "product_id=PRODUCT&quantity=1"},
        {400, "{\"product_id\":PRODUCT,\"quantity\":1,\"x\":\"\xff\"}"},         /* invalid UTF-8 */
        {400, "{\"product_id\":PRODUCT,\"quantity\":1,\"x\":\"\xc0\xaf\"}"},     /* an overlong form */
        {400, "{\"product_id\":PRODUCT,\"quantity\":1,\"x\":\"\xed\xa0\x80\"}"}, /* a surrogate */
        {400, "{\"product_id\":PRODUCT,\"quantity\":1,\"x\":\"\\u0000\"}"},
        {400, "{\"product_id\":PRODUCT,\"quantity\":1,\"x\":\"\\ud800\"}"},
        {400, "{\"product_id\":PRODUCT,\"quantity\":1,\"x\":[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]}"},
        /* missing */
        {422, "{}"},
        {422, "{\"product_id\":PRODUCT}"},
        {422, "{\"quantity\":1}"},
        {422, "{\"product_id\":PRODUCT,\"quantity\":null}"},
        {422, "{\"product_id\":null,\"quantity\":1}"},
        {422, "{\"Product_ID\":PRODUCT,\"quantity\":1}"},
        {422, "{\"product_id\":PRODUCT,\"QUANTITY\":1}"},
        /* wrong types */
        {422, "{\"product_id\":PRODUCT,\"quantity\":\"1\"}"},
        {422, "{\"product_id\":PRODUCT,\"quantity\":true}"},
        {422, "{\"product_id\":PRODUCT,\"quantity\":[1]}"},
        {422, "{\"product_id\":PRODUCT,\"quantity\":{}}"},
        {422, "{\"product_id\":\"PRODUCT\",\"quantity\":1}"},
        {422, "{\"product_id\":true,\"quantity\":1}"},
        /* negative, zero, fractional, huge */
        {422, "{\"product_id\":PRODUCT,\"quantity\":0}"},
        {422, "{\"product_id\":PRODUCT,\"quantity\":-0}"},
        {422, "{\"product_id\":PRODUCT,\"quantity\":-1}"},
        {422, "{\"product_id\":PRODUCT,\"quantity\":-1000}"},
        {422, "{\"product_id\":PRODUCT,\"quantity\":1.5}"},
        {422, "{\"product_id\":PRODUCT,\"quantity\":0.1}"},
        {422, "{\"product_id\":PRODUCT,\"quantity\":1e-1}"},
        {422, "{\"product_id\":PRODUCT,\"quantity\":1001}"},
        {422, "{\"product_id\":PRODUCT,\"quantity\":1e4}"},
        {422, "{\"product_id\":PRODUCT,\"quantity\":1e308}"},
        {422, "{\"product_id\":PRODUCT,\"quantity\":1e999}"},
        {422, "{\"product_id\":PRODUCT,\"quantity\":-1e999}"},
        {422, "{\"product_id\":PRODUCT,\"quantity\":2147483649}"},
        {422, "{\"product_id\":PRODUCT,\"quantity\":4294967297}"},
        {422, "{\"product_id\":PRODUCT,\"quantity\":9007199254740993}"},
        {422, "{\"product_id\":PRODUCT,\"quantity\":18446744073709551617}"},
        {422, "{\"product_id\":PRODUCT,\"quantity\":-9223372036854775808}"},
        {422, "{\"items\":[]}"},
        {422, "{\"items\":{}}"},
        {422, "{\"items\":\"x\"}"},
        {422, "{\"items\":[1]}"},
        {422, "{\"items\":[null]}"},
        {422, "{\"items\":[{}]}"},
        {422, "{\"items\":[{\"product_id\":PRODUCT}]}"},
        {422, "{\"items\":[{\"quantity\":1}]}"},
        {422, "{\"items\":[{\"product_id\":PRODUCT,\"quantity\":0}]}"},
        {422, "{\"items\":[{\"product_id\":PRODUCT,\"quantity\":-1}]}"},
        {422, "{\"items\":[{\"product_id\":PRODUCT,\"quantity\":1001}]}"},
        {422,
         "{\"items\":[{\"product_id\":PRODUCT,\"quantity\":1},{\"product_id\":PRODUCT,\"quantity\":-1}]}"},
        {422,
         "{\"items\":[{\"product_id\":PRODUCT,\"quantity\":600},{\"product_id\":PRODUCT,\"quantity\":401}]}"},
        {422, "{\"items\":[{\"product_id\":PRODUCT,\"quantity\":1.5}]}"},
        {422, "{\"items\":[{\"product_id\":\"PRODUCT\",\"quantity\":1}]}"},
        {422, "{\"items\":[[{\"product_id\":PRODUCT,\"quantity\":1}]]}"},
        {422, "{\"items\":[{\"product_id\":PRODUCT,\"quantity\":1},{\"product_id\":PRODUCT,\"quantity\":1},{"
              "\"product_id\":PRODUCT,\"quantity\":1},{\"product_id\":PRODUCT,\"quantity\":1},{\"product_"
              "id\":PRODUCT,\"quantity\":1},{\"product_id\":PRODUCT,\"quantity\":1},{\"product_id\":PRODUCT,"
              "\"quantity\":1},{\"product_id\":PRODUCT,\"quantity\":1},{\"product_id\":PRODUCT,\"quantity\":"
              "1},{\"product_id\":PRODUCT,\"quantity\":1},{\"product_id\":PRODUCT,\"quantity\":1},{\"product_"
              "id\":PRODUCT,\"quantity\":1},{\"product_id\":PRODUCT,\"quantity\":1},{\"product_id\":PRODUCT,"
              "\"quantity\":1},{\"product_id\":PRODUCT,\"quantity\":1},{\"product_id\":PRODUCT,\"quantity\":"
              "1},{\"product_id\":PRODUCT,\"quantity\":1},{\"product_id\":PRODUCT,\"quantity\":1},{\"product_"
              "id\":PRODUCT,\"quantity\":1},{\"product_id\":PRODUCT,\"quantity\":1},{\"product_id\":PRODUCT,"
              "\"quantity\":1}]}"},
        {422, "{\"product_id\":PRODUCT,\"quantity\":1,\"items\":[{\"product_id\":PRODUCT,\"quantity\":1}]}"},
        {422, "{\"product_id\":0,\"quantity\":1}"},
        {422, "{\"product_id\":-1,\"quantity\":1}"},
        {422, "{\"product_id\":1.5,\"quantity\":1}"},
        {422, "{\"product_id\":9007199254740993,\"quantity\":1}"},
        {422, "{\"product_id\":18446744073709551617,\"quantity\":1}"},
        {422, "{\"product_id\":1e999,\"quantity\":1}"},
        /* unknown ids */
        {404, "{\"product_id\":999999,\"quantity\":1}"},
        {404, "{\"product_id\":9007199254740991,\"quantity\":1}"},
    };
    (void)state;
    EACH_IS_REFUSED("/api/purchases", BUYER, "application/json", list);
    EACH_IS_REFUSED("/api/purchases", BUYER, "application/json; charset=utf-8", list);
    EACH_IS_REFUSED("/api/purchases", BUYER, NULL, list);
}

/* --- idempotency keys
 * ---------------------------------------------------------------------------------------------------------------------
 */
static void test_idempotency_keys(void **state)
{
    static const char *const lines[] = {
        "Idempotency-Key:\r\n",
        "Idempotency-Key:  \t \r\n",
        "Idempotency-Key: \"\"\r\n",
        "Idempotency-Key: \" \"\r\n",
        "Idempotency-Key: a b\r\n",
        "Idempotency-Key: \"a b\"\r\n",
        "Idempotency-Key: a\tb\r\n",
        "Idempotency-Key: a\x01\r\n",
        "Idempotency-Key: a\x7f\r\n",
        "Idempotency-Key: a\x1b[31m\r\n",
        "Idempotency-Key: \xc3\xa4\r\n",
        "Idempotency-Key: a\xff\r\n",
        "Idempotency-Key: a\r\nIdempotency-Key: b\r\n",
        "Idempotency-Key: a\r\nIdempotency-Key: a\r\n",
        "Idempotency-Key: a\r\nX-Between: x\r\nidempotency-KEY: a\r\n",
        "Idempotency-Key: a\r\nIdempotency-Key:\r\n",
    };
    char headers[2 * HEADERS_BYTES], body[96], key[300];
    (void)state;
    format_headers(headers, test.buyer_token, "application/json");
    size_t used = strlen(headers);
    snprintf(body, sizeof body, "{\"product_id\":%" PRId64 ",\"quantity\":1}", test.product);
    for (size_t i = 0; i < sizeof lines / sizeof lines[0]; i++) {
        snprintf(headers + used, sizeof headers - used, "%s", lines[i]);
        struct http_answer answer = ask("POST", "/api/purchases", headers, body);
        check_problem(lines[i], &answer, 400);
        assert_non_null(strstr(answer.body, "/problems/idempotency-key"));
        http_answer_free(&answer);
        check_nothing_changed(lines[i]);
    }
    for (size_t bytes = 256; bytes < sizeof key - 1; bytes++) { /* 257 quoted would be 255 */
        memset(key, 'k', bytes);
        key[bytes] = '\0';
        snprintf(headers + used, sizeof headers - used, "Idempotency-Key: %s\r\n", key);
        struct http_answer answer = ask("POST", "/api/purchases", headers, body);
        check_problem("a key that is too long", &answer, 400);
        http_answer_free(&answer);
    }
    check_nothing_changed("keys that are too long");
    /* A good key changes nothing about a bad body, and does not hide who one is not. */
    snprintf(headers + used, sizeof headers - used, "Idempotency-Key: good\r\n");
    struct http_answer answer = ask("POST", "/api/purchases", headers, "{}");
    check_problem("a good key and a bad body", &answer, 422);
    http_answer_free(&answer);
    answer = ask("POST", "/api/purchases", headers + used, body);
    check_problem("a good key and no token", &answer, 401);
    http_answer_free(&answer);
    check_nothing_changed("good keys");
}

static void test_deeply_nested_body(void **state)
{
    char headers[HEADERS_BYTES];
    char *body = malloc(16001);
    (void)state;
    assert_non_null(body);
    format_headers(headers, test.buyer_token, "application/json");
    for (int kind = 0; kind < 2; kind++) {
        memset(body, kind == 0 ? '[' : '{', 16000);
        body[16000] = '\0';
        memcpy(body, "{\"x\":", 5);
        struct http_answer answer = ask("POST", "/api/purchases", headers, body);
        check_problem("nested 16,000 deep", &answer, 400);
        http_answer_free(&answer);
    }
    free(body);
    check_nothing_changed("nested 16,000 deep");
}

static void test_media_types(void **state)
{
    static const char *const types[] = {"text/plain",
                                        "application/x-www-form-urlencoded",
                                        "application/jsonx",
                                        "application/json5",
                                        "multipart/form-data; boundary=x",
                                        "json",
                                        "*/*",
                                        "",
                                        "text/html, application/json"};
    static const char *const targets[] = {"/api/purchases", "/api/products", "/api/auth/register"};
    char headers[HEADERS_BYTES];
    (void)state;
    for (size_t target = 0; target < 3; target++) {
        for (size_t i = 0; i < sizeof types / sizeof types[0]; i++) {
            format_headers(headers, test.admin_token, types[i]);
            struct http_answer answer =
                ask("POST", targets[target], headers, "{\"product_id\":1,\"quantity\":1}");
            check_problem(types[i], &answer, 415);
            http_answer_free(&answer);
        }
    }
    format_headers(headers, NULL, "application/json");
    struct http_answer answer =
        ask("POST", "/api/auth/login", headers, "{\"username\":\"a\",\"password\":\"b\"}");
    check_problem("a login in JSON", &answer, 415);
    http_answer_free(&answer);
    check_nothing_changed("media types");
}

/* --- tokens
 * -------------------------------------------------------------------------------------------------------------------------------------
 */
static void base64(const void *bytes, size_t count, char *out, size_t out_bytes)
{
    sodium_bin2base64(out, out_bytes, bytes, count, sodium_base64_VARIANT_URLSAFE_NO_PADDING);
}

/* A token with any header and payload; signed with `key` by HMAC-SHA-256 or -512, or not at all. */
static void forge(const char *header, const char *payload, const char *key, size_t mac_bytes,
                  char out[JWT_TOKEN_BYTES_MAX])
{
    unsigned char mac[64];
    base64(header, strlen(header), out, JWT_TOKEN_BYTES_MAX);
    strcat(out, ".");
    size_t used = strlen(out);
    base64(payload, strlen(payload), out + used, JWT_TOKEN_BYTES_MAX - used);
    used = strlen(out);
    if (mac_bytes == 32) {
        crypto_auth_hmacsha256_state state;
        crypto_auth_hmacsha256_init(&state, (const unsigned char *)key, strlen(key));
        crypto_auth_hmacsha256_update(&state, (const unsigned char *)out, used);
        crypto_auth_hmacsha256_final(&state, mac);
    } else if (mac_bytes == 64) {
        crypto_auth_hmacsha512_state state;
        crypto_auth_hmacsha512_init(&state, (const unsigned char *)key, strlen(key));
        crypto_auth_hmacsha512_update(&state, (const unsigned char *)out, used);
        crypto_auth_hmacsha512_final(&state, mac);
    }
    out[used++] = '.';
    base64(mac, mac_bytes, out + used, JWT_TOKEN_BYTES_MAX - used);
}

static void expect_401(const char *what, const char *authorization)
{
    static const struct {
        const char *method, *target, *body;
    } calls[] = {{"POST", "/api/purchases", "{\"product_id\":1,\"quantity\":1}"},
                 {"GET", "/api/purchases/me", NULL},
                 {"GET", "/api/purchases/1", NULL},
                 {"DELETE", "/api/purchases/1", NULL},
                 {"POST", "/api/admin/products/1/stock", "{\"delta\":1,\"reason\":\"r\"}"},
                 {"POST", "/api/admin/products/1/price", "{\"price\":1,\"reason\":\"r\"}"},
                 {"POST", "/api/admin/products/1/window", "{\"ends_at\":\"now\",\"reason\":\"r\"}"},
                 {"GET", "/api/admin/audit", NULL},
                 {"GET", "/api/products", NULL},
                 {"GET", "/api/products/1", NULL},
                 {"GET", "/api/products/1/stock", NULL},
                 {"GET", "/api/auth/me", NULL},
                 {"POST", "/api/products", "{\"name\":\"n\",\"price\":1,\"stock\":1}"}};
    char headers[2 * HEADERS_BYTES] = "";
    if (authorization != NULL) {
        snprintf(headers, sizeof headers, "Authorization: %s\r\n", authorization);
    }
    for (size_t i = 0; i < sizeof calls / sizeof calls[0]; i++) {
        struct http_answer answer = ask(calls[i].method, calls[i].target, headers, calls[i].body);
        check_problem(what, &answer, 401);
        http_answer_free(&answer);
    }
    check_nothing_changed(what);
}

static void expect_token_401(const char *what, const char *token)
{
    char authorization[JWT_TOKEN_BYTES_MAX + 16];
    snprintf(authorization, sizeof authorization, "Bearer %s", token);
    expect_401(what, authorization);
}

static void test_tokens(void **state)
{
    static const char hs256[] = "{\"alg\":\"HS256\",\"typ\":\"JWT\"}";
    char token[JWT_TOKEN_BYTES_MAX], good[512], old[512], text[HEADERS_BYTES];
    (void)state;
    snprintf(good, sizeof good,
             "{\"sub\":\"eve\",\"user_id\":%" PRId64 ",\"role\":\"admin\",\"iat\":1,\"exp\":%lld}",
             test.buyer, (long long)time(NULL) + 1000);
    snprintf(old, sizeof old,
             "{\"sub\":\"eve\",\"user_id\":%" PRId64 ",\"role\":\"admin\",\"iat\":1,\"exp\":%lld}",
             test.buyer, (long long)time(NULL) - 1);

    expect_401("no token", NULL);
    expect_401("empty", "");
    expect_401("the scheme alone", "Bearer");
    expect_401("the scheme and a space", "Bearer ");
    expect_401("another scheme", "Basic YTpi");
    expect_401("no scheme", test.buyer_token);
    expect_token_401("a word", "token");
    expect_token_401("two dots", "..");
    expect_token_401("three dots", "a.b.c.d");
    /* The forging itself is right: the same with the right key and algorithm is let in. */
    forge(hs256, good, SERVER_SECRET, 32, token);
    snprintf(text, sizeof text, "Authorization: Bearer %s\r\n", token);
    struct http_answer answer = ask("GET", "/api/products", text, NULL);
    assert_int_equal(answer.status, 200);
    http_answer_free(&answer);
    token[strlen(token) - 1] = '\0';
    expect_token_401("truncated by one character", token);
    *strrchr(token, '.') = '\0';
    expect_token_401("truncated before the signature", token);
    strcat(token, ".");
    expect_token_401("with an empty signature", token);
    forge("{\"alg\":\"none\",\"typ\":\"JWT\"}", good, "", 0, token);
    expect_token_401("alg none, no signature", token);
    forge("{\"alg\":\"none\",\"typ\":\"JWT\"}", good, SERVER_SECRET, 32, token);
    expect_token_401("alg none, signed", token);
    forge("{\"alg\":\"None\",\"typ\":\"JWT\"}", good, "", 0, token);
    expect_token_401("alg None", token);
    forge("{\"alg\":\"HS512\",\"typ\":\"JWT\"}", good, SERVER_SECRET, 64, token);
    expect_token_401("alg HS512, rightly signed", token);
    forge("{\"alg\":\"HS512\",\"typ\":\"JWT\"}", good, SERVER_SECRET, 32, token);
    expect_token_401("alg HS512, signed as HS256", token);
    forge("{\"alg\":\"hs256\"}", good, SERVER_SECRET, 32, token);
    expect_token_401("alg in small letters", token);
    forge("{\"typ\":\"JWT\"}", good, SERVER_SECRET, 32, token);
    expect_token_401("no alg", token);
    forge("{\"alg\":\"HS256\",\"crit\":[\"x\"],\"x\":1}", good, SERVER_SECRET, 32, token);
    expect_token_401("a critical extension", token);
    forge(hs256, good, "another secret, also of 32 bytes and more", 32, token);
    expect_token_401("signed with another key", token);
    forge(hs256, old, SERVER_SECRET, 32, token);
    expect_token_401("expired", token);
    forge(hs256, "{\"sub\":\"eve\",\"user_id\":1,\"role\":\"admin\",\"iat\":1}", SERVER_SECRET, 32, token);
    expect_token_401("without an end", token);
    forge(hs256, "{\"sub\":\"eve\",\"user_id\":\"1\",\"role\":\"admin\",\"iat\":1,\"exp\":9999999999}",
          SERVER_SECRET, 32, token);
    expect_token_401("a user id that is text", token);
    forge(hs256, "{\"sub\":\"eve\",\"user_id\":1,\"role\":\"root\",\"iat\":1,\"exp\":9999999999}",
          SERVER_SECRET, 32, token);
    expect_token_401("an unknown role", token);
    forge(hs256, "not json", SERVER_SECRET, 32, token);
    expect_token_401("a payload that is no JSON", token);
}

/* --- admins
 * --------------------------------------------------------------------------------------------------------------------------------------
 */
static void test_products(void **state)
{
    static const struct refused forbidden[] = {
        {403, "{\"name\":\"n\",\"price\":1,\"stock\":1}"}, {403, "not json"}, {403, ""}};
    static const struct refused list[] = {
        {400, "not json"},
        {400, "[]"},
        {400, ""},
        {422, "{}"},
        {422, "{\"price\":1,\"stock\":1}"},
        {422, "{\"name\":\"n\",\"stock\":1}"},
        {422, "{\"name\":\"n\",\"price\":1}"},
        {422, "{\"name\":\"\",\"price\":1,\"stock\":1}"},
        {422, "{\"name\":\"two\\nlines\",\"price\":1,\"stock\":1}"},
        {422, "{\"name\":\"\\u001b[2J\",\"price\":1,\"stock\":1}"},
        {422, "{\"name\":\"a \\u009b31m\",\"price\":1,\"stock\":1}"},
        {422, "{\"name\":7,\"price\":1,\"stock\":1}"},
        {422, "{\"name\":null,\"price\":1,\"stock\":1}"},
        {422, "{\"name\":\"n\",\"price\":0,\"stock\":1}"},
        {422, "{\"name\":\"n\",\"price\":-1,\"stock\":1}"},
        {422, "{\"name\":\"n\",\"price\":1.5,\"stock\":1}"},
        {422, "{\"name\":\"n\",\"price\":\"1\",\"stock\":1}"},
        {422, "{\"name\":\"n\",\"price\":100000000001,\"stock\":1}"},
        {422, "{\"name\":\"n\",\"price\":9007199254740993,\"stock\":1}"},
        {422, "{\"name\":\"n\",\"price\":1,\"stock\":-1}"},
        {422, "{\"name\":\"n\",\"price\":1,\"stock\":0.5}"},
        {422, "{\"name\":\"n\",\"price\":1,\"stock\":1000000001}"},
        {422, "{\"name\":\"n\",\"price\":1,\"stock\":1e999}"},
        {422, "{\"name\":\"n\",\"price\":1,\"stock\":\"1\"}"},
        {422, "{\"name\":\"n\",\"price\":1,\"stock\":1,\"per_customer_limit\":0}"},
        {422, "{\"name\":\"n\",\"price\":1,\"stock\":1,\"per_customer_limit\":-1}"},
        {422, "{\"name\":\"n\",\"price\":1,\"stock\":1,\"per_customer_limit\":\"1\"}"},
        {422, "{\"name\":\"n\",\"price\":1,\"stock\":1,\"description\":7}"},
        {422, "{\"name\":\"n\",\"price\":1,\"stock\":1,\"starts_at\":\"2030-01-01\"}"},
        {422, "{\"name\":\"n\",\"price\":1,\"stock\":1,\"starts_at\":\"2030-13-01T00:00:00Z\"}"},
        {422, "{\"name\":\"n\",\"price\":1,\"stock\":1,\"starts_at\":1893456000000}"},
        {422, "{\"name\":\"n\",\"price\":1,\"stock\":1,\"ends_at\":\"yesterday\"}"},
        {422, "{\"name\":\"n\",\"price\":1,\"stock\":1,\"starts_at\":\"2030-01-01T00:00:00Z\",\"ends_at\":"
              "\"2030-01-01T00:00:00Z\"}"},
        {422, "{\"name\":\"n\",\"price\":1,\"stock\":1,\"components\":[{\"product_id\":1,\"quantity\":1}]}"},
        {422, "{\"name\":\"n\",\"price\":1,\"components\":{\"product_id\":1,\"quantity\":1}}"},
        {422, "{\"name\":\"n\",\"price\":1,\"components\":[1]}"},
        {422, "{\"name\":\"n\",\"price\":1,\"components\":[{\"product_id\":1}]}"},
        {422, "{\"name\":\"n\",\"price\":1,\"components\":[{\"product_id\":1,\"quantity\":0}]}"},
        {422, "{\"name\":\"n\",\"price\":1,\"components\":[{\"product_id\":1,\"quantity\":1001}]}"},
        {422, "{\"name\":\"n\",\"price\":1,\"components\":[{\"product_id\":0,\"quantity\":1}]}"},
        {422, "{\"name\":\"n\",\"price\":1,\"components\":[{\"product_id\":999,\"quantity\":1}]}"},
        {422, "{\"name\":\"n\",\"price\":1,\"components\":[{\"product_id\":1,\"quantity\":1},{\"product_id\":"
              "1,\"quantity\":1}]}"},
        {422, "{\"name\":\"n\",\"price\":1,\"stock\":1,\"components\":[]}"},
    };
    char headers[HEADERS_BYTES], body[512];
    (void)state;
    EACH_IS_REFUSED("/api/products", BUYER, "application/json", forbidden);
    EACH_IS_REFUSED("/api/products", ADMIN, "application/json", list);
    format_headers(headers, test.admin_token, "application/json");
    snprintf(
        body, sizeof body, "{\"name\":\"%.*s\",\"price\":1,\"stock\":1}", 201,
        "nnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnn"
        "nnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnn"
        "n");
    struct http_answer answer = ask("POST", "/api/products", headers, body);
    check_problem("a name of 201 characters", &answer, 422);
    http_answer_free(&answer);
    /* A name that is taken. */
    for (int i = 0; i < 2; i++) {
        answer = ask("POST", "/api/products", headers, "{\"name\":\"twice\",\"price\":1,\"stock\":5}");
        assert_int_equal(answer.status, i == 0 ? 201 : 409);
        if (i == 1) {
            check_problem("a product name twice", &answer, 409);
        }
        http_answer_free(&answer);
    }
    answer = ask("GET", "/api/products", headers, NULL);
    assert_int_equal(answer.status, 200);
    cJSON *all = cJSON_Parse(answer.body);
    assert_int_equal(cJSON_GetArraySize(all), 2); /* none of the refused ones was made */
    cJSON_Delete(all);
    http_answer_free(&answer);
}

/* --- accounts
 * ----------------------------------------------------------------------------------------------------------------------------------------
 */
#define FIFTY "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"

static void test_registering(void **state)
{
    static const struct refused list[] = {
        {400, "not json"},
        {400, ""},
        {400, "{\"username\":\"a\\u0000b\",\"password\":\"secret\"}"},
        {422, "{}"},
        {422, "{\"username\":\"anna\"}"},
        {422, "{\"password\":\"secret\"}"},
        {422, "{\"username\":\"an\",\"password\":\"secret\"}"},
        {422, "{\"username\":\"\",\"password\":\"secret\"}"},
        {422, "{\"username\":\"" FIFTY "x\",\"password\":\"secret\"}"},
        {422, "{\"username\":7,\"password\":\"secret\"}"},
        {422, "{\"username\":[\"anna\"],\"password\":\"secret\"}"},
        {422, "{\"username\":\"an\\u0007na\",\"password\":\"secret\"}"},
        {422, "{\"username\":\"an\\nna\",\"password\":\"secret\"}"},
        {422, "{\"username\":\"an\\u009bna\",\"password\":\"secret\"}"},
        {422, "{\"username\":\"anna\",\"password\":\"five5\"}"},
        {422, "{\"username\":\"anna\",\"password\":123456}"},
        {422, "{\"username\":\"anna\",\"password\":\"" FIFTY FIFTY "x\"}"},
        {422, "{\"username\":\"anna\",\"password\":\"secret\",\"email\":7}"},
    };
    static const struct {
        int status;
        const char *body;
    } accounts[] = {
        {201, "{\"username\":\"anna\",\"password\":\"secret\"}"},
        {409, "{\"username\":\"anna\",\"password\":\"another\"}"},
        {201, "{\"username\":\"Anna\",\"password\":\"secret\"}"}, /* compared exactly */
        {201, "{\"username\":\"" FIFTY "\",\"password\":\"" FIFTY FIFTY
              "\",\"email\":\"x@example.org\",\"admin\":true,\"role\":\"admin\"}"},
        {201, "{\"username\":\"\xec\x95\x88\xeb\x85\x95\xed\x95\x98\",\"password\":"
              "\"\xeb\xb9\x84\xeb\xb0\x80\xeb\xb2\x88\xed\x98\xb8\xec\x98\x81\xec\x96\xb4\"}"},
    };
    char headers[HEADERS_BYTES];
    (void)state;
    EACH_IS_REFUSED("/api/auth/register", NOBODY, "application/json", list);
    format_headers(headers, NULL, "application/json");
    for (size_t i = 0; i < sizeof accounts / sizeof accounts[0]; i++) {
        struct http_answer answer = ask("POST", "/api/auth/register", headers, accounts[i].body);
        if (accounts[i].status != 201) {
            check_problem(accounts[i].body, &answer, accounts[i].status);
        } else {
            const char *role;
            assert_int_equal(answer.status, 201);
            cJSON *json = json_parse_object(answer.body, answer.body_bytes);
            assert_int_equal(json_get_string(json, "role", 1, 20, &role), JSON_FIELD_OK);
            assert_string_equal(role, "buyer"); /* nobody makes himself an admin */
            assert_null(strstr(answer.body, "argon2"));
            cJSON_Delete(json);
        }
        http_answer_free(&answer);
    }
}

static void test_logging_in(void **state)
{
    static const char form[] = "application/x-www-form-urlencoded";
    static const struct refused list[] = {
        {422, ""},
        {422, "username=anna"},
        {422, "password=secret"},
        {422, "username=&password=secret"},
        {422, "username=anna&password="},
        {422, "username=anna&username=anna&password=secret"},
        {422, "username=anna&password=secret&password=secret"},
        {422, "username=anna%&password=secret"},
        {422, "username=anna%4&password=secret"},
        {422, "username=anna%zz&password=secret"},
        {422, "username=an%00na&password=secret"},
        {422, "username=%ff%fe&password=secret"},
        {422, "username=anna&password=%c0%80"},
        {422, "username=" FIFTY FIFTY FIFTY FIFTY "x&password=secret"},
        {422, "USERNAME=anna&password=secret"},
        {422, "username%3Danna&password=secret"},
        {422, "{\"username\":\"anna\",\"password\":\"secret\"}"},
        {401, "username=anna&password=wrong"},
        {401, "username=anna&password=Secret"},
        {401, "username=nobody&password=secret"},
        {401, "username=anna+&password=secret"},
        {401, "username=anna%20&password=secret"},
        {401, "username=ANNA&password=secret"},
        {401, "username=' OR 1=1 --&password=secret"},
        {401, "username=anna&password=secret%20"},
    };
    static const char *const good[] = {
        "username=anna&password=secret",
        "grant_type=password&username=anna&password=secret&scope=", "password=%73ecret&username=%61nna&&x"};
    char headers[HEADERS_BYTES];
    (void)state;
    EACH_IS_REFUSED("/api/auth/login", NOBODY, form, list);
    format_headers(headers, NULL, form);
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        const char *token, *type;
        struct http_answer answer = ask("POST", "/api/auth/login", headers, good[i]);
        assert_int_equal(answer.status, 200);
        cJSON *json = json_parse_object(answer.body, answer.body_bytes);
        assert_int_equal(json_get_string(json, "access_token", 20, JWT_TOKEN_BYTES_MAX, &token),
                         JSON_FIELD_OK);
        assert_int_equal(json_get_string(json, "token_type", 1, 20, &type), JSON_FIELD_OK);
        assert_string_equal(type, "bearer");
        cJSON_Delete(json);
        http_answer_free(&answer);
    }
}

/* --- paths and methods
 * ----------------------------------------------------------------------------------------------------------------------------------
 */
static void test_paths_and_methods(void **state)
{
    static const struct {
        int status;
        const char *method, *target, *allow;
    } list[] = {
        {405, "GET", "/api/purchases", "POST"},
        {405, "PUT", "/api/purchases", "POST"},
        {405, "DELETE", "/api/purchases", "POST"},
        {405, "PATCH", "/api/purchases", "POST"},
        {405, "PUT", "/api/purchases/1", "GET, HEAD, DELETE"},
        {405, "POST", "/api/purchases/me", "GET, HEAD"},
        {405, "DELETE", "/api/products", "GET, HEAD, POST"},
        {405, "POST", "/api/products/1", "GET, HEAD"},
        {405, "DELETE", "/api/products/1/stock", "GET, HEAD"},
        {405, "GET", "/api/auth/login", "POST"},
        {405, "GET", "/api/auth/register", "POST"},
        {405, "POST", "/health", "GET, HEAD"},
        {405, "BREW", "/health", "GET, HEAD"},
        {405, "TRACE", "/health", "GET, HEAD"},
        {405, "OPTIONS", "/health", "GET, HEAD"},
        {404, "GET", "/api", NULL},
        {404, "GET", "/api/nothing", NULL},
        {404, "POST", "/api/purchases/x/y", NULL},
        {404, "GET", "/api/products/0", NULL},
        {404, "GET", "/api/products/-1", NULL},
        {404, "GET", "/api/products/01", NULL},
        {404, "GET", "/api/products/1.0", NULL},
        {404, "GET", "/api/products/abc", NULL},
        {404, "GET", "/api/products/1e3", NULL},
        {404, "GET", "/api/products/9007199254740992", NULL},
        {404, "GET", "/api/products/99999999999999999999999", NULL},
        {404, "GET", "/api/products/999999", NULL},
        {404, "GET", "/api/products/999999/stock", NULL},
        {404, "GET", "/api/products/1%2Fstock", NULL},
        {404, "GET", "/api/products/1/stock/x", NULL},
        {404, "GET", "/api//products", NULL},
        {404, "GET", "/api/purchases/0", NULL},
        {404, "GET", "/api/purchases/999999", NULL},
        {404, "GET", "/../../etc/passwd", NULL},
        {404, "GET", "/problems/none", NULL},
        {404, "GET", "/%2e%2e/x", NULL},
        {400, "GET", "/api/products/%00", NULL},
        {400, "GET", "/api/products/%zz", NULL},
        {400, "GET", "/api/products/%", NULL},
        {404, "DELETE", "/api/purchases/1000000", NULL},
        {404, "DELETE", "/api/purchases/0", NULL},
        {405, "DELETE", "/api/purchases/me", "GET, HEAD"},
        {405, "GET", "/api/admin/products/1/stock", "POST"},
        {405, "DELETE", "/api/admin/products/1/price", "POST"},
        {405, "GET", "/api/admin/products/1/window", "POST"},
        {405, "DELETE", "/api/admin/audit", "GET, HEAD"},
        {403, "POST", "/api/admin/products/1/stock", NULL},
        {403, "POST", "/api/admin/products/1/price", NULL},
        {403, "POST", "/api/admin/products/1/window", NULL},
        {403, "GET", "/api/admin/audit", NULL},
        {422, "GET", "/api/purchases/me?limit=0", NULL},
        {422, "GET", "/api/purchases/me?limit=-1", NULL},
        {422, "GET", "/api/purchases/me?limit=x", NULL},
        {422, "GET", "/api/purchases/me?limit=101", NULL},
        {422, "GET", "/api/purchases/me?limit=", NULL},
        {422, "GET", "/api/purchases/me?before=0", NULL},
        {422, "GET", "/api/purchases/me?before=9007199254740992", NULL},
    };
    char headers[HEADERS_BYTES], what[128], value[64];
    (void)state;
    format_headers(headers, test.buyer_token, NULL);
    for (size_t i = 0; i < sizeof list / sizeof list[0]; i++) {
        snprintf(what, sizeof what, "%s %s", list[i].method, list[i].target);
        struct http_answer answer = ask(list[i].method, list[i].target, headers, NULL);
        check_problem(what, &answer, list[i].status);
        if (list[i].allow != NULL) {
            assert_string_equal(http_answer_header(&answer, "Allow", value, sizeof value), list[i].allow);
        }
        http_answer_free(&answer);
    }
    check_nothing_changed("paths and methods");
}

/* --- HTTP itself
 * --------------------------------------------------------------------------------------------------------------------------------------------
 */
enum answered_by {
    BY_US,      /* a problem */
    BY_LIBRARY, /* libmicrohttpd refuses it before we see it: the status alone, and its body is HTML; or it
                   just closes */
};

/* Sends these bytes on a connection of their own. The answer must have this status, and the connection must
 * then be closed: what else was sent is never a second request. */
static void send_raw(const char *what, const char *bytes, size_t count, int status, enum answered_by by)
{
    struct http_client client;
    struct http_answer answer;
    feed_slow_clients();
    assert_int_equal(http_client_open(&client, "127.0.0.1", test.server.port, PATIENCE_MS), HTTP_CLIENT_OK);
    http_client_send(&client, bytes, count, PATIENCE_MS, NULL); /* may be cut short: the answer counts */
    enum http_client_result result = http_client_read(&client, &answer, PATIENCE_MS);
    if (result == HTTP_CLIENT_OK) {
        if (by == BY_US) {
            check_problem(what, &answer, status);
        } else {
            assert_int_equal(answer.status, status);
        }
        result = http_client_wait_closed(&client, PATIENCE_MS);
        if (result != HTTP_CLIENT_CLOSED && result != HTTP_CLIENT_BROKEN) {
            fail_msg("\"%s\": the connection stays open", what);
        }
    } else if (by == BY_US || (result != HTTP_CLIENT_CLOSED && result != HTTP_CLIENT_BROKEN)) {
        fail_msg("\"%s\": no answer (%d)", what, (int)result);
    }
    http_answer_free(&answer);
    http_client_close(&client);
    check_nothing_changed(what);
}

static void test_smuggling(void **state)
{
    static const struct {
        const char *what, *headers, *rest;
        enum answered_by by;
    } list[] = {
        {"two Content-Lengths", "Content-Length: 0\r\nContent-Length: PURCHASE\r\n\r\n", "", BY_US},
        {"two equal Content-Lengths", "Content-Length: PURCHASE\r\nContent-Length: PURCHASE\r\n\r\n", "",
         BY_US},
        {"Transfer-Encoding and Content-Length",
         "Transfer-Encoding: chunked\r\nContent-Length: PURCHASE\r\n\r\n", "0\r\n\r\n", BY_US},
        {"Content-Length and Transfer-Encoding", "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
         "0\r\n\r\n", BY_US},
        {"an unknown transfer coding", "Transfer-Encoding: gzip, chunked\r\n\r\n", "0\r\n\r\n", BY_US},
        {"a transfer coding with a trick", "Transfer-Encoding: xchunked\r\n\r\n", "0\r\n\r\n", BY_US},
        {"two Transfer-Encodings", "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n",
         "0\r\n\r\n", BY_US},
        {"a space before the colon", "Content-Length : 5\r\n\r\n", "", BY_US},
        {"a negative Content-Length", "Content-Length: -1\r\n\r\n", "", BY_LIBRARY},
        {"a Content-Length that is no number", "Content-Length: abc\r\n\r\n", "", BY_LIBRARY},
        {"a Content-Length list", "Content-Length: 5, 5\r\n\r\n", "12345", BY_LIBRARY},
        {"two Hosts", "Host: other\r\n\r\n", "", BY_US},
    };
    char body[64], purchase[HEADERS_BYTES + 256], bytes[3 * HEADERS_BYTES];
    (void)state;
    int body_bytes = snprintf(body, sizeof body, "{\"product_id\":%" PRId64 ",\"quantity\":1}", test.product);
    /* What is smuggled behind each: a whole, valid purchase. */
    int purchase_bytes = snprintf(
        purchase, sizeof purchase,
        "POST /api/purchases HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nContent-Length: %d\r\n\r\n%s",
        test.buyer_token, body_bytes, body);
    for (size_t i = 0; i < sizeof list / sizeof list[0]; i++) {
        int used = snprintf(bytes, sizeof bytes,
                            "POST /api/purchases HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\n",
                            test.buyer_token);
        for (const char *at = list[i].headers; *at != '\0';) {
            if (strncmp(at, "PURCHASE", 8) == 0) {
                used += snprintf(bytes + used, sizeof bytes - (size_t)used, "%d", purchase_bytes);
                at += 8;
            } else {
                bytes[used++] = *at++;
            }
        }
        used += snprintf(bytes + used, sizeof bytes - (size_t)used, "%s%s", list[i].rest, purchase);
        send_raw(list[i].what, bytes, (size_t)used, 400, list[i].by);
    }
}

static void test_what_is_not_http(void **state)
{
    static const struct {
        const char *what, *bytes;
        int status;
        enum answered_by by;
    } list[] = {
        {"no Host", "GET /health HTTP/1.1\r\n\r\n", 400, BY_US},
        {"HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505, BY_LIBRARY},
        {"TLS", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 binary\r\n\r\n", 400, BY_LIBRARY},
        {"a word", "hello\r\n\r\n", 400, BY_LIBRARY},
        {"empty lines and no end", "\r\n\r\n\r\n\r\nx\r\n\r\n", 400, BY_LIBRARY},
        {"a folded header", "GET /health HTTP/1.1\r\nHost: x\r\nX-A: b\r\n c\r\n\r\n", 400, BY_US},
    };
    (void)state;
    for (size_t i = 0; i < sizeof list / sizeof list[0]; i++) {
        send_raw(list[i].what, list[i].bytes, strlen(list[i].bytes), list[i].status, list[i].by);
    }
}

/* Fills `big` with 'x' behind this head; the length of both. */
static size_t fill_big(char *big, const char *head)
{
    memset(big, 'x', BIG_BYTES);
    memcpy(big, head, strlen(head));
    return BIG_BYTES;
}

static void test_too_much(void **state)
{
    static const struct {
        const char *what, *head;
        int status;
        enum answered_by by;
    } list[] = {
        {"a body of 10 MB", "POST /api/purchases HTTP/1.1\r\nHost: x\r\nContent-Length: 10485760\r\n\r\n{",
         413, BY_US},
        {"a body of more than 2^64 bytes",
         "POST /api/purchases HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999\r\n\r\n", 413,
         BY_LIBRARY},
        {"a chunk of 10 MB",
         "POST /api/purchases HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\na00000\r\n{", 413,
         BY_LIBRARY},
        {"an endless header", "POST /api/purchases HTTP/1.1\r\nHost: x\r\nX-Endless: ", 431, BY_LIBRARY},
        {"an endless name of a header", "POST /api/purchases HTTP/1.1\r\nHost: x\r\n", 431, BY_LIBRARY},
        {"an endless target", "GET /", 414, BY_LIBRARY},
        {"an endless method", "", 414, BY_LIBRARY},
    };
    char *big = malloc(BIG_BYTES);
    (void)state;
    assert_non_null(big);
    for (size_t i = 0; i < sizeof list / sizeof list[0]; i++) {
        send_raw(list[i].what, big, fill_big(big, list[i].head), list[i].status, list[i].by);
    }
    size_t used = (size_t)sprintf(big, "GET /health HTTP/1.1\r\nHost: x\r\n");
    for (int i = 0; i < 100000; i++) {
        used += (size_t)sprintf(big + used, "X-%d: y\r\n", i);
    }
    send_raw("endless headers", big, used, 431, BY_LIBRARY);
    fill_big(big, "GET /health?");
    used = 3000 + (size_t)sprintf(big + 3000, " HTTP/1.1\r\nHost: x\r\n\r\n");
    send_raw("a target of 3,000 bytes", big, used, 414, BY_US);
    used = (size_t)sprintf(big, "GET /health HTTP/1.1\r\nHost: x\r\n");
    for (int i = 0; i < 60; i++) {
        used += (size_t)sprintf(big + used, "X-%d: y\r\n", i);
    }
    used += (size_t)sprintf(big + used, "\r\n");
    send_raw("60 headers", big, used, 431, BY_US);
    free(big);
}

/* After all of that the server still sells. */
static void test_it_still_sells(void **state)
{
    char headers[HEADERS_BYTES], body[96];
    (void)state;
    format_headers(headers, test.buyer_token, "application/json");
    snprintf(body, sizeof body, " {\"quantity\": 1000.0, \"x\": [null], \"product_id\": %" PRId64 "}\n",
             test.product);
    struct http_answer answer = ask("POST", "/api/purchases", headers, body);
    assert_int_equal(answer.status, 201);
    http_answer_free(&answer);
    for (int quantity = 1; quantity <= 2; quantity++) {
        snprintf(body, sizeof body, "{\"product_id\":%" PRId64 ",\"quantity\":%d}", test.product, quantity);
        answer = ask("POST", "/api/purchases", headers, body);
        check_problem("sold out", &answer, 400);
        assert_non_null(strstr(answer.body, "Insufficient stock"));
        http_answer_free(&answer);
    }
    assert_int_equal(server_fixture_metric(&test.server, "process_restarts"), 0);
    assert_int_equal(server_fixture_sample(&test.server, "http_requests_total", "status=\"5"), 0);
    server_fixture_verify(&test.server, 0);
    server_fixture_stop(&test.server);
}

static int group_setup(void **state)
{
    char error[512];
    (void)state;
    server_fixture_begin(&test.server);
    server_fixture_start(&test.server, 2, NULL, NULL);
    start_slow_clients();
    test.buyer = server_fixture_add_users(&test.server, 1);
    server_fixture_token(&test.server, test.buyer, USER_BUYER, test.buyer_token);
    server_fixture_token(&test.server, test.buyer, USER_ADMIN, test.admin_token);
    test.product = server_fixture_add_product(&test.server, STOCK, 0);
    test.client = (struct http_client){.fd = -1, .host = "127.0.0.1", .port = test.server.port};
    test.redis = server_fixture_redis(&test.server);
    assert_int_equal(store_open(&test.store, test.server.store_url, STORE_READER, error, sizeof error),
                     STORE_OK);
    return 0;
}

static int group_teardown(void **state)
{
    (void)state;
    store_close(&test.store);
    redisFree(test.redis);
    http_client_close(&test.client);
    for (size_t i = 0; i < SLOW_CLIENTS; i++) {
        http_client_close(&test.slow[i]);
    }
    server_fixture_end(&test.server);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_purchase_bodies),
        cmocka_unit_test(test_deeply_nested_body),
        cmocka_unit_test(test_idempotency_keys),
        cmocka_unit_test(test_media_types),
        cmocka_unit_test(test_tokens),
        cmocka_unit_test(test_products),
        cmocka_unit_test(test_registering),
        cmocka_unit_test(test_logging_in),
        cmocka_unit_test(test_paths_and_methods),
        cmocka_unit_test(test_smuggling),
        cmocka_unit_test(test_what_is_not_http),
        cmocka_unit_test(test_too_much),
        cmocka_unit_test(test_one_byte_a_second),
        cmocka_unit_test(test_it_still_sells),
    };
    return cmocka_run_group_tests(tests, group_setup, group_teardown);
}
