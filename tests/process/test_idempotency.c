/* Idempotency keys against the real server: whatever happens between the first request and the last, a key buys once, and in the end its
 * buyer hears of it. Judged by the store. Runs on both gates, but for what is about keys that are kept in Redis. */
#include "testing.h"

#include "crowd.h"
#include "http_client.h"
#include "redis_fixture.h"
#include "server_fixture.h"

#include "doorbuster/json.h"

#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PATIENCE_MS 15000
#define HEADERS_BYTES (JWT_TOKEN_BYTES_MAX + 512)
#define CLIENTS 100
#define KILL_ROUNDS 8
#define USERS 3

static struct {
    struct server_fixture server;
    struct http_client client;
    redisContext *redis;
    int64_t first_user, product;
    char tokens[USERS][JWT_TOKEN_BYTES_MAX];
    uint64_t random;
    /* of a crowd */
    size_t fresh, replayed, in_progress;
    char order[512]; /* the body of a 201 */
} test;

/* --- asking
 * ------------------------------------------------------------------------------------------------------------------------ */
struct heard {
    int status; /* 0: no answer */
    bool replayed, retry_after;
    char body[1024];
};

static void format_purchase(size_t user, const char *key, int64_t product, int64_t quantity,
                            char headers[HEADERS_BYTES], char body[96])
{
    int used = snprintf(headers, HEADERS_BYTES,
                        "Authorization: Bearer %s\r\nContent-Type: application/json\r\n", test.tokens[user]);
    if (key != NULL) {
        snprintf(headers + used, (size_t)(HEADERS_BYTES - used), "Idempotency-Key: %s\r\n", key);
    }
    snprintf(body, 96, "{\"product_id\":%" PRId64 ",\"quantity\":%" PRId64 "}", product, quantity);
}

/* Asks once; a broken connection is an answer too. */
static struct heard try_buy(size_t user, const char *key, int64_t product, int64_t quantity)
{
    char headers[HEADERS_BYTES], body[96], value[32];
    struct heard heard = {0};
    struct http_answer answer;
    format_purchase(user, key, product, quantity, headers, body);
    if (http_client_call(&test.client, "POST", "/api/purchases", headers, body, &answer, PATIENCE_MS) ==
        HTTP_CLIENT_OK) {
        heard.status = answer.status;
        heard.replayed =
            http_answer_header(&answer, "Idempotent-Replayed", value, sizeof value) && !strcmp(value, "true");
        heard.retry_after = http_answer_header(&answer, "Retry-After", value, sizeof value) != NULL;
        snprintf(heard.body, sizeof heard.body, "%s", answer.body);
    }
    http_answer_free(&answer);
    return heard;
}

static struct heard buy(size_t user, const char *key, int64_t product, int64_t quantity, int status)
{
    struct heard heard = try_buy(user, key, product, quantity);
    if (heard.status != status) {
        fail_msg("key %s: status %d, not %d: %s", key ? key : "-", heard.status, status, heard.body);
    }
    return heard;
}

static bool is_in_progress(const struct heard *heard)
{
    return heard->status == 409 && strstr(heard->body, "/problems/request-in-progress") != NULL;
}

/* As a careful client does: the same again until it knows. */
static struct heard buy_until_known(size_t user, const char *key, int64_t product, int64_t quantity)
{
    int64_t deadline = deadline_in(PATIENCE_MS);
    struct heard heard = try_buy(user, key, product, quantity);
    while (heard.status == 0 || heard.status == 503 || is_in_progress(&heard)) {
        if (!wait_a_moment(deadline)) {
            fail_msg("key %s: no clear answer for long: %d %s", key, heard.status, heard.body);
        }
        heard = try_buy(user, key, product, quantity);
    }
    return heard;
}

static void expect_replay(const struct heard *again, const struct heard *first)
{
    assert_true(again->replayed);
    assert_false(first->replayed);
    assert_string_equal(again->body, first->body);
}

/* Orders in the store of this user with this key. */
static size_t orders_of_key(size_t user, const char *key)
{
    struct store_order orders[100];
    struct store *store;
    char error[512];
    size_t count, found = 0;
    assert_int_equal(store_open(&store, test.server.store_url, STORE_READER, error, sizeof error), STORE_OK);
    assert_int_equal(store_orders_of(store, test.first_user + (int64_t)user, INT64_MAX, orders, 100, &count),
                     STORE_OK);
    assert_in_range(count, 0, 99);
    for (size_t i = 0; i < count; i++) {
        found += strcmp(orders[i].idempotency_key, key) == 0;
    }
    store_close(&store);
    return found;
}

static int64_t key_in_redis(const char *command, const char *key)
{
    char name[512];
    snprintf(name, sizeof name, "{doorbuster}:idem:%" PRId64 ":%s", test.first_user, key);
    redisReply *reply = redis_ask(test.redis, command, name);
    assert_non_null(reply);
    int64_t number = reply->integer;
    freeReplyObject(reply);
    return number;
}

/* --- one after the other
 * ------------------------------------------------------------------------------------------------------------ */
static void test_the_same_again(void **state)
{
    char longest[256] = "";
    (void)state;
    struct heard first = buy(0, "key-1", test.product, 2, 201);
    struct heard again = buy(0, "key-1", test.product, 2, 201);
    expect_replay(&again, &first);
    again = buy(0, "\"key-1\"", test.product, 2, 201);
    expect_replay(&again, &first);
    /* Another body. */
    again = buy(0, "key-1", test.product, 1, 422);
    assert_non_null(strstr(again.body, "/problems/idempotency-key-reused"));
    assert_false(again.replayed);
    buy(0, "key-1", test.product + 999, 2, 422);
    /* Another buyer, another key, and none. */
    assert_false(buy(1, "key-1", test.product, 2, 201).replayed);
    assert_false(buy(0, "KEY-1", test.product, 2, 201).replayed);
    assert_false(buy(0, NULL, test.product, 2, 201).replayed);
    again = buy(0, "key-1", test.product, 2, 201);
    expect_replay(&again, &first);
    /* Whatever a key may be made of. */
    memset(longest, '~', 255);
    first = buy(0, longest, test.product, 1, 201);
    again = buy(0, longest, test.product, 1, 201);
    expect_replay(&again, &first);
    first = buy(0, "!#$%&'()*+,-./:;<=>?@[\\]^_`{|}~%s%n", test.product, 1, 201);
    again = buy(0, "\"!#$%&'()*+,-./:;<=>?@[\\]^_`{|}~%s%n\"", test.product, 1, 201);
    expect_replay(&again, &first);
    assert_int_equal(orders_of_key(0, "key-1"), 1);
    assert_int_equal(orders_of_key(1, "key-1"), 1);
    assert_int_equal(orders_of_key(0, longest), 1);
    assert_int_equal(server_fixture_sample(&test.server, "purchases_total", "outcome=\"repeated\""), 7);
}

static void test_sold_out_is_not_pinned(void **state)
{
    (void)state;
    int64_t product = server_fixture_add_product(&test.server, 1, 0);
    struct heard first = buy(0, "lucky", product, 1, 201);
    for (int i = 0; i < 3; i++) { /* the sold-out mark of a worker must not hide what the key bought */
        buy(1, NULL, product, 1, 400);
        assert_non_null(strstr(buy(1, "late", product, 1, 400).body, "Insufficient stock"));
        struct heard again = buy(0, "lucky", product, 1, 201);
        expect_replay(&again, &first);
    }
    server_fixture_restock(&test.server, product, 3);
    struct heard late = buy(1, "late", product, 1, 201);
    assert_false(late.replayed);
    struct heard again = buy(1, "late", product, 1, 201);
    expect_replay(&again, &late);
}

static void test_a_day_later(void **state)
{
    (void)state;
    struct heard first = buy(0, "daily", test.product, 1, 201);
    assert_in_range(key_in_redis("PTTL %s", "daily"), IDEMPOTENCY_KEY_LIFETIME_MS - 60000,
                    IDEMPOTENCY_KEY_LIFETIME_MS);
    assert_int_equal(key_in_redis("PEXPIRE %s 1", "daily"), 1);
    for (int64_t deadline = deadline_in(PATIENCE_MS); key_in_redis("EXISTS %s", "daily") != 0;) {
        assert_true(wait_a_moment(deadline));
    }
    struct heard second = buy(0, "daily", test.product, 1, 201);
    assert_false(second.replayed);
    assert_string_not_equal(first.body, second.body);
    struct heard again = buy(0, "daily", test.product, 1, 201);
    expect_replay(&again, &second);
    assert_int_equal(orders_of_key(0, "daily"), 2);
}

/* --- all at once
 * -------------------------------------------------------------------------------------------------------------------- */
static void crowd_cb(void *context, size_t client, const struct crowd_answer *answer)
{
    (void)context;
    (void)client;
    if (answer->status == 201) {
        test.fresh += !answer->replayed;
        test.replayed += answer->replayed;
        if (test.order[0] == '\0') {
            snprintf(test.order, sizeof test.order, "%s", answer->body);
        }
        assert_string_equal(answer->body, test.order);
    } else if (answer->status == 409 && strstr(answer->body, "/problems/request-in-progress") != NULL) {
        test.in_progress++;
    } else {
        fail_msg("status %d: %s", answer->status, answer->body);
    }
}

static void test_a_hundred_at_once(void **state)
{
    char key[32];
    (void)state;
    struct crowd *crowd = crowd_new(test.server.port, CLIENTS, crowd_cb, NULL);
    assert_true(crowd_connect(crowd, PATIENCE_MS));
    unsigned rounds = rounds_wanted(10);
    for (unsigned round = 0; round < rounds; round++) {
        snprintf(key, sizeof key, "crowd-%u", round);
        test.fresh = test.replayed = test.in_progress = 0;
        test.order[0] = '\0';
        for (size_t i = 0; i < CLIENTS; i++) {
            crowd_buy_keyed(crowd, i, test.tokens[0], test.product, 1, key);
        }
        assert_true(crowd_finish(crowd, PATIENCE_MS));
        assert_int_equal(test.fresh, 1);
        assert_int_equal(test.fresh + test.replayed + test.in_progress, CLIENTS);
        assert_int_equal(orders_of_key(0, key), 1);
        struct heard after = buy(0, key, test.product, 1, 201);
        assert_true(after.replayed);
        assert_string_equal(after.body, test.order);
    }
    crowd_free(&crowd);
}

/* --- processes that die
 * ------------------------------------------------------------------------------------------------------------- */
static void kill_workers(void)
{
    pid_t pids[SERVER_CHILDREN_MAX];
    size_t count = server_fixture_find(&test.server, "doorbuster: worker", pids, SERVER_CHILDREN_MAX);
    for (size_t i = 0; i < count; i++) {
        kill(pids[i], SIGKILL);
    }
}

/* For certain between reservation and answer: the recorder stands still. */
static void test_worker_killed_between_reservation_and_answer(void **state)
{
    char headers[HEADERS_BYTES], body[96];
    (void)state;
    pid_t recorder = server_fixture_child(&test.server, "doorbuster: recorder");
    kill(recorder, SIGSTOP);
    struct http_client doomed = test.client;
    doomed.fd = -1;
    assert_int_equal(http_client_open(&doomed, "127.0.0.1", test.server.port, PATIENCE_MS), HTTP_CLIENT_OK);
    format_purchase(0, "doomed", test.product, 3, headers, body);
    assert_int_equal(
        http_client_request(&doomed, "POST", "/api/purchases", headers, body, strlen(body), PATIENCE_MS),
        HTTP_CLIENT_OK);
    for (int64_t deadline = deadline_in(PATIENCE_MS); key_in_redis("EXISTS %s", "doomed") != 1;) {
        assert_true(wait_a_moment(deadline));
    }
    struct heard heard = buy(0, "doomed", test.product, 3, 409);
    assert_true(is_in_progress(&heard));
    assert_true(heard.retry_after);
    kill_workers();
    assert_int_not_equal(http_client_wait_closed(&doomed, PATIENCE_MS), HTTP_CLIENT_TIMEOUT);
    http_client_close(&doomed);
    kill(recorder, SIGCONT);
    heard = buy_until_known(0, "doomed", test.product, 3);
    assert_int_equal(heard.status, 201);
    assert_true(heard.replayed);
    assert_int_equal(orders_of_key(0, "doomed"), 1);
}

/* At any moment. */
static void test_workers_killed_at_any_moment(void **state)
{
    char headers[HEADERS_BYTES], body[96], key[32];
    (void)state;
    for (int round = 0; round < KILL_ROUNDS; round++) {
        struct http_client doomed = {.fd = -1};
        snprintf(key, sizeof key, "any-%d", round);
        format_purchase(0, key, test.product, 1, headers, body);
        if (http_client_open(&doomed, "127.0.0.1", test.server.port, PATIENCE_MS) == HTTP_CLIENT_OK) {
            http_client_request(&doomed, "POST", "/api/purchases", headers, body, strlen(body), PATIENCE_MS);
        }
        int64_t until_us = now_us() + random_below(&test.random, 4000);
        while (now_us() < until_us) {
        }
        kill_workers();
        http_client_close(&doomed);
        struct heard heard = buy_until_known(0, key, test.product, 1);
        assert_int_equal(heard.status, 201);
        assert_int_equal(orders_of_key(0, key), 1);
    }
}

static void flush_redis(void)
{
    redis_do(test.redis, "FLUSHALL");
    for (int64_t deadline = deadline_in(PATIENCE_MS);;) {
        redisReply *epoch = redis_ask(test.redis, "HGET {doorbuster}:head epoch");
        assert_non_null(epoch);
        bool open = epoch->type == REDIS_REPLY_STRING && strcmp(epoch->str, "0") != 0;
        freeReplyObject(epoch);
        if (open) {
            return;
        }
        assert_true(wait_a_moment(deadline));
    }
}

static void test_keys_survive_redis(void **state)
{
    (void)state;
    struct heard first = buy(0, "kept", test.product, 1, 201);
    int64_t before = key_in_redis("PTTL %s", "kept");
    for (int round = 0; round < 2; round++) { /* a key that was put back can be put back again */
        flush_redis();
        assert_in_range(key_in_redis("PTTL %s", "kept"), before - PATIENCE_MS * 2, before);
        struct heard again = buy_until_known(0, "kept", test.product, 1);
        assert_int_equal(again.status, 201);
        expect_replay(&again, &first);
        buy(0, "kept", test.product, 2, 422);
    }
    assert_int_equal(orders_of_key(0, "kept"), 1);
    assert_false(buy(0, "fresh", test.product, 1, 201).replayed);
}

/* --- products
 * ------------------------------------------------------------------------------------------------------------------------ */
/* NULL as key: none. */
static struct heard try_create(size_t admin, const char *key, const char *body)
{
    char headers[HEADERS_BYTES], token[JWT_TOKEN_BYTES_MAX], value[32];
    struct heard heard = {0};
    struct http_answer answer;
    server_fixture_token(&test.server, test.first_user + (int64_t)admin, USER_ADMIN, token);
    int used = snprintf(headers, sizeof headers,
                        "Authorization: Bearer %s\r\nContent-Type: application/json\r\n", token);
    if (key != NULL) {
        snprintf(headers + used, (size_t)(HEADERS_BYTES - used), "Idempotency-Key: %s\r\n", key);
    }
    assert_int_equal(
        http_client_call(&test.client, "POST", "/api/products", headers, body, &answer, PATIENCE_MS),
        HTTP_CLIENT_OK);
    heard.status = answer.status;
    heard.replayed = http_answer_header(&answer, "Idempotent-Replayed", value, sizeof value) != NULL;
    snprintf(heard.body, sizeof heard.body, "%s", answer.body);
    http_answer_free(&answer);
    return heard;
}

static struct heard create(size_t admin, const char *key, const char *body, int status)
{
    struct heard heard = try_create(admin, key, body);
    if (heard.status != status) {
        fail_msg("key %s: status %d, not %d: %s", key ? key : "-", heard.status, status, heard.body);
    }
    return heard;
}

/* An admin whose answer was lost asks again, and hears of his own product, as it is by now. */
static void test_a_product_asked_for_again(void **state)
{
    static const char lamp[] = "{\"name\":\"lamp\",\"price\":500,\"stock\":3,\"description\":\"warm\"}";
    int64_t id, price;
    (void)state;
    struct heard first = create(0, "lamp-1", lamp, 201);
    assert_false(first.replayed);
    struct heard again = create(0, "\"lamp-1\"", lamp, 201);
    expect_replay(&again, &first);
    assert_int_equal(
        sscanf(first.body, "{\"id\":%" SCNd64 ",\"name\":\"lamp\",\"price\":%" SCNd64, &id, &price), 2);
    /* it has lived on, and the words stand in another order */
    buy(1, NULL, id, 1, 201);
    again =
        create(0, "lamp-1", "{\"stock\":3,\"description\":\"warm\", \"price\":500, \"name\":\"lamp\"}", 201);
    assert_true(again.replayed);
    assert_non_null(strstr(again.body, "\"stock\":2,\"redis_stock\":2"));
    /* another price, another name: not what the key has asked for */
    again =
        create(0, "lamp-1", "{\"name\":\"lamp\",\"price\":501,\"stock\":3,\"description\":\"warm\"}", 422);
    assert_non_null(strstr(again.body, "/problems/idempotency-key-reused"));
    create(0, "lamp-1", "{\"name\":\"lantern\",\"price\":500,\"stock\":3,\"description\":\"warm\"}", 422);
    /* another key, no key, another admin with the same key: another request */
    create(0, "lamp-2", lamp, 409);
    create(0, NULL, lamp, 409);
    create(2, "lamp-1", lamp, 409);
    create(0, "two words", lamp, 400);
    /* a refusal is not pinned to its key */
    create(0, "lamp-2", "{\"name\":\"torch\",\"price\":500,\"stock\":3}", 201);
}

/* --- the whole
 * ------------------------------------------------------------------------------------------------------------------------ */
static int setup(void **state)
{
    (void)state;
    server_fixture_begin(&test.server);
    server_fixture_start(&test.server, 2, NULL, NULL);
    test.first_user = server_fixture_add_users(&test.server, USERS);
    for (size_t i = 0; i < USERS; i++) {
        server_fixture_token(&test.server, test.first_user + (int64_t)i, USER_BUYER, test.tokens[i]);
    }
    test.product = server_fixture_add_product(&test.server, 1000, 0);
    test.client = (struct http_client){.fd = -1, .host = "127.0.0.1", .port = test.server.port};
    test.redis = gate_is_redlock() ? NULL : server_fixture_redis(&test.server);
    return 0;
}

/* Each test ends with both books in order. */
static int teardown(void **state)
{
    (void)state;
    http_client_close(&test.client);
    if (test.redis != NULL) {
        redisFree(test.redis);
    }
    server_fixture_verify(&test.server, 0);
    server_fixture_stop(&test.server);
    server_fixture_end(&test.server);
    return 0;
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest both[] = {
        TEST(test_the_same_again),
        TEST(test_sold_out_is_not_pinned),
        TEST(test_a_hundred_at_once),
        TEST(test_workers_killed_at_any_moment),
        TEST(test_a_product_asked_for_again),
    };
    const struct CMUnitTest lua[] = {
        TEST(test_a_day_later),
        TEST(test_worker_killed_between_reservation_and_answer),
        TEST(test_keys_survive_redis),
    };
    signal(SIGPIPE, SIG_IGN);
    test.random = random_seed("test_idempotency");
    int failed = cmocka_run_group_tests(both, NULL, NULL);
    return failed + (gate_is_redlock() ? 0 : cmocka_run_group_tests(lua, NULL, NULL));
}
