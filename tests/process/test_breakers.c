/* Redis and the store are away for longer than anybody should wait: who comes then is told so at once, who came before keeps his deadline, and when
 * they are back all goes on. Real server, real Redis; judged by the store. */
#include "testing.h"

#include "http_client.h"
#include "sale_fixture.h"

#include "doorbuster/json.h"

#ifdef DOORBUSTER_FAILPOINTS
#include "failpoints.h"
#endif

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BUYERS 8
#define AWAY_US 6000000
#define TURNED_AWAY_FROM_US 3500000 /* noticed after a second, then two of patience */
#define AT_ONCE_US 50000
#define GO_ON_US 1000000
#define CALL_MS 10000
#define REDIS "redis-server"
#define KEY "Idempotency-Key: once\r\n"

static struct sale_fixture sale;

struct heard {
    int status;
    int64_t took_us;
    char retry_after[16], detail[256];
};

static struct heard call_with(const char *more_headers, const char *method, const char *target,
                              const char *token, const char *body)
{
    struct http_client client = {.fd = -1};
    struct http_answer answer;
    struct heard heard = {0};
    char headers[JWT_TOKEN_BYTES_MAX + 128];
    snprintf(headers, sizeof headers, "Authorization: Bearer %s\r\nContent-Type: application/json\r\n%s",
             token, more_headers);
    int64_t began_us = now_us();
    assert_int_equal(http_client_open(&client, "127.0.0.1", sale.server.port, CALL_MS), HTTP_CLIENT_OK);
    assert_int_equal(http_client_call(&client, method, target, headers, body, &answer, CALL_MS),
                     HTTP_CLIENT_OK);
    heard.took_us = now_us() - began_us;
    heard.status = answer.status;
    http_answer_header(&answer, "Retry-After", heard.retry_after, sizeof heard.retry_after);
    cJSON *json = json_parse_object(answer.body, answer.body_bytes);
    const cJSON *detail = cJSON_GetObjectItemCaseSensitive(json, "detail");
    snprintf(heard.detail, sizeof heard.detail, "%s", cJSON_IsString(detail) ? detail->valuestring : "");
    cJSON_Delete(json);
    http_answer_free(&answer);
    http_client_close(&client);
    return heard;
}

static struct heard call(const char *method, const char *target, const char *token, const char *body)
{
    return call_with("", method, target, token, body);
}

/* The state that /health/ready says, "" if it names no such part. */
static void state_of(const char *part_name, char state[32], char reason[256])
{
    char body[16384];
    state[0] = reason[0] = '\0';
    assert_true(server_fixture_get(&sale.server, "/health/ready", body, sizeof body) > 0);
    cJSON *json = json_parse_object(body, strlen(body));
    const cJSON *part;
    cJSON_ArrayForEach(part, cJSON_GetObjectItemCaseSensitive(json, "parts"))
    {
        if (strcmp(cJSON_GetObjectItemCaseSensitive(part, "name")->valuestring, part_name) != 0) {
            continue;
        }
        const cJSON *why = cJSON_GetObjectItemCaseSensitive(part, "reason");
        snprintf(state, 32, "%s", cJSON_GetObjectItemCaseSensitive(part, "state")->valuestring);
        snprintf(reason, 256, "%s", why != NULL ? why->valuestring : "");
        assert_true(strcmp(state, "closed") == 0 || (why != NULL && cJSON_HasObjectItem(part, "since")));
    }
    cJSON_Delete(json);
}

static void expect_state(const char *part, const char *wanted)
{
    char state[32], reason[256];
    state_of(part, state, reason);
    if (strcmp(state, wanted) != 0) {
        fail_msg("%s is %s (%s), not %s", part, state, reason, wanted);
    }
}

static int compare_times(const void *a, const void *b)
{
    int64_t first = *(const int64_t *)a, second = *(const int64_t *)b;
    return (first > second) - (first < second);
}

static void test_redis_stops_for_six_seconds(void **state)
{
    enum { TIMES_MAX = 4096 };
    static int64_t times[TIMES_MAX];
    char body[64], breaker[32], reason[256];
    size_t turned_away = 0;
    (void)state;
    sale_fixture_begin(&sale, 1, BUYERS, NULL, NULL);
    int64_t product = sale_fixture_add_product(&sale, 1000, 0);
    snprintf(body, sizeof body, "{\"product_id\":%lld,\"quantity\":1}", (long long)product);
    assert_int_equal(sale_fixture_buy(&sale, 0, product, 1), 201);
    assert_int_equal(call_with(KEY, "POST", "/api/purchases", sale.buyers[5].token, body).status, 201);
    expect_state("breaker redis", "closed");
    expect_state("breaker record", "closed");
    int64_t given = sale_fixture_orders_given(&sale);

    int64_t began_us = now_us();
    sale_fixture_signal(&sale, REDIS, SIGSTOP);
    sale_fixture_ask(&sale, 1, product, 1); /* sent: in doubt until the end */
    while (now_us() < began_us + 200000) {
        wait_a_moment(began_us + AWAY_US);
    }
    sale_fixture_ask(&sale, 2, product, 1); /* queued */
    while (now_us() < began_us + TURNED_AWAY_FROM_US) {
        wait_a_moment(began_us + AWAY_US);
    }
    assert_true(sale.buyers[1].waits);
    assert_true(sale.buyers[2].waits); /* what is in the gate keeps its deadline */
    state_of("breaker redis", breaker, reason);
    assert_string_equal(breaker, "open");
    assert_string_not_equal(reason, "");
    while (now_us() < began_us + AWAY_US) {
        struct heard heard = call("POST", "/api/purchases", sale.buyers[3].token, body);
        assert_int_equal(heard.status, 503);
        assert_true(strtol(heard.retry_after, NULL, 10) >= 1);
        assert_non_null(strstr(heard.detail, "was not tried"));
        if (turned_away < TIMES_MAX) {
            times[turned_away++] = heard.took_us;
        }
        wait_a_moment(began_us + AWAY_US);
    }
    /* This one was bought before, so nobody may be told that it was not. */
    struct heard repeat = call_with(KEY, "POST", "/api/purchases", sale.buyers[5].token, body);
    assert_int_equal(repeat.status, 503);
    assert_non_null(strstr(repeat.detail, "an earlier one with this Idempotency-Key may have been"));
    assert_true(turned_away >= 20);
    qsort(times, turned_away, sizeof times[0], compare_times);
    print_message("%zu turned away, the median in %lld us\n", turned_away, (long long)times[turned_away / 2]);
    assert_in_range(times[turned_away / 2], 0, AT_ONCE_US);
    sale_fixture_await_answer(&sale, 1);
    sale_fixture_await_answer(&sale, 2);
    assert_int_equal(sale.buyers[2].status, 503);

    sale_fixture_signal(&sale, REDIS, SIGCONT);
    int64_t since_us = now_us();
    while (sale_fixture_buy(&sale, 4, product, 1) != 201) {
        assert_true(wait_a_moment(since_us + 5000000));
    }
    int64_t took_us = now_us() - since_us;
    print_message("sold again after %lld ms\n", (long long)took_us / 1000);
    assert_in_range(took_us, 0, GO_ON_US);
    expect_state("breaker redis", "closed");
    expect_state("breaker record", "closed");
    assert_true(server_fixture_metric(&sale.server, "breaker_opened") >= 1);
    assert_true(server_fixture_sample(&sale.server, "shed_total", "queue=\"purchase\"") >=
                (double)turned_away);
    /* Whoever was turned away bought nothing: buyer 4's order, and buyer 1's if Redis had his call already. */
    assert_in_range(sale_fixture_orders_given(&sale) - given, 1, 2);
    assert_int_equal(sale_fixture_orders_of(&sale, 3, ORDER_CONFIRMED), 0);
    sale_fixture_end_sale(&sale, 0);
}

/* Three of five lock nodes. */
static void test_no_majority_for_long(void **state)
{
    enum { NODES = 5, STOPPED = 3 };
    char body[64], breaker[32], reason[256];
    pid_t nodes[NODES];
    struct heard heard;
    (void)state;
    sale_fixture_begin(&sale, 1, BUYERS, NULL, NULL);
    int64_t product = sale_fixture_add_product(&sale, 1000, 0);
    snprintf(body, sizeof body, "{\"product_id\":%lld,\"quantity\":1}", (long long)product);
    assert_int_equal(sale_fixture_buy(&sale, 0, product, 1), 201);
    assert_int_equal(server_fixture_find(&sale.server, REDIS, nodes, NODES), NODES);
    for (size_t i = 0; i < STOPPED; i++) {
        assert_int_equal(kill(nodes[i], SIGSTOP), 0);
    }
    sale_fixture_ask(&sale, 1, product, 1);
    int64_t deadline = deadline_in(CALL_MS);
    do {
        state_of("breaker redis", breaker, reason);
        assert_true(wait_a_moment(deadline));
    } while (strcmp(breaker, "open") != 0);
    assert_non_null(strstr(reason, "no majority"));
    assert_true(sale.buyers[1].waits);
    heard = call("POST", "/api/purchases", sale.buyers[2].token, body);
    assert_int_equal(heard.status, 503);
    assert_non_null(strstr(heard.detail, "was not tried"));
    assert_true(strtol(heard.retry_after, NULL, 10) >= 1);
    for (size_t i = 0; i < STOPPED; i++) {
        assert_int_equal(kill(nodes[i], SIGCONT), 0);
    }
    int64_t since_us = now_us();
    while (sale_fixture_buy(&sale, 3, product, 1) != 201) {
        assert_true(wait_a_moment(since_us + 5000000));
    }
    print_message("sold again after %lld ms\n", (long long)(now_us() - since_us) / 1000);
    expect_state("breaker redis", "closed");
    sale_fixture_await_answer(&sale, 1);
    sale_fixture_end_sale(&sale, 0);
}

#ifdef DOORBUSTER_FAILPOINTS
static struct failpoint_page *failpoints;

static int sign_in(void)
{
    struct http_client client = {.fd = -1};
    struct http_answer answer;
    assert_int_equal(http_client_open(&client, "127.0.0.1", sale.server.port, CALL_MS), HTTP_CLIENT_OK);
    assert_int_equal(http_client_call(&client, "POST", "/api/auth/login",
                                      "Content-Type: application/x-www-form-urlencoded\r\n",
                                      "username=somebody&password=whatever", &answer, CALL_MS),
                     HTTP_CLIENT_OK);
    int status = answer.status;
    http_answer_free(&answer);
    http_client_close(&client);
    return status;
}

/* While the store is away nobody looks at a password: such sign-ins are not counted as failed. */
static void expect_sign_ins_not_counted(void)
{
    int status = 503;
    for (int i = 0; i < 5 && status == 503; i++) {
        status = sign_in();
        assert_int_not_equal(status, 429);
    }
}

/* Writes fail. After five in a row nobody is kept waiting for a sixth, and one at a time finds out when it is over. */
static void test_the_store_fails(void **state)
{
    char variable[FOLDER_BYTES + 64], path[FOLDER_BYTES + 32], folder[FOLDER_BYTES], body[96],
        admin[JWT_TOKEN_BYTES_MAX];
    struct heard heard;
    (void)state;
    folder_make(folder);
    snprintf(path, sizeof path, "%s/failpoints", folder);
    snprintf(variable, sizeof variable, "DOORBUSTER_FAILPOINT_FILE=%s", path);
    failpoints = failpoints_file_make(path);
    sale_fixture_begin(&sale, 1, BUYERS, NULL,
                       (const char *const[]){variable, "DOORBUSTER_RATE_LIMITS=on",
                                             "DOORBUSTER_RATE_ACCOUNT=10000/s",
                                             "DOORBUSTER_RATE_SIGN_IN=1/min:1", NULL});
    int64_t product = sale_fixture_add_product(&sale, 100, 0);
    assert_int_equal(sale_fixture_buy(&sale, 0, product, 1), 201);
    server_fixture_token(&sale.server, sale.first_user, USER_ADMIN, admin);
    failpoints_arm(failpoints, "vfs.write:error~60000");
    int64_t deadline = deadline_in(30000);
    do { /* again if it was so slow that it is the one that finds out: reading works */
        for (int i = 0; i < 5; i++) {
            snprintf(body, sizeof body, "{\"name\":\"never %d\",\"price\":1,\"stock\":1}", i);
            assert_int_equal(call("POST", "/api/products", admin, body).status, 503);
        }
        expect_sign_ins_not_counted();
        heard = call("GET", "/api/products", admin, NULL);
        assert_true(now_us() < deadline);
    } while (heard.status == 200);
    assert_int_equal(heard.status, 503);
    expect_state("breaker store", "open");
    assert_true(strtol(heard.retry_after, NULL, 10) >= 1);
    failpoints_disarm(failpoints);
    deadline = deadline_in(5000);
    while (call("GET", "/api/products", admin, NULL).status != 200) {
        assert_true(wait_a_moment(deadline));
    }
    expect_state("breaker store", "closed");
    sale_fixture_start_buying(&sale);
    sale_fixture_expect_going_on(&sale, now_us(), "the store works again");
    sale_fixture_end_sale(&sale, 0);
    failpoints_file_close(&failpoints);
    folder_remove(folder);
}
#endif

static int teardown(void **state)
{
    (void)state;
    sale_fixture_end(&sale);
    return 0;
}

int main(void)
{
    const struct CMUnitTest redlock_tests[] = {
        cmocka_unit_test_teardown(test_no_majority_for_long, teardown),
    };
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(test_redis_stops_for_six_seconds, teardown),
#ifdef DOORBUSTER_FAILPOINTS
        cmocka_unit_test_teardown(test_the_store_fails, teardown),
#endif
    };
    signal(SIGPIPE, SIG_IGN);
    return gate_is_redlock() ? cmocka_run_group_tests(redlock_tests, NULL, NULL)
                             : cmocka_run_group_tests(tests, NULL, NULL);
}
