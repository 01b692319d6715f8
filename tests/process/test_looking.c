/* Looking at products while others look and buy: what is seen is never older than a purchase that was confirmed before somebody looked, whoever shares
 * the look; what fails, fails for all who share it, and counts once; who hangs up or is asked to come back later holds up nobody. Of the Lua
 * gate: the lock nodes are told with the buyer's answer, not before it, so their figure may lag by a purchase. */
#include "testing.h"

#ifdef DOORBUSTER_FAILPOINTS
#include "failpoints.h"
#endif
#include "http_client.h"
#include "sale_fixture.h"

#include "doorbuster/json.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ANSWER_MS 10000
#define LOOKERS 24
#define HALF (LOOKERS / 2)
#define STOCK 1000
#define ROUNDS 40
#define LONG_CHARACTERS 1000

static struct sale_fixture sale;
static struct http_client lookers[LOOKERS];
static char headers[JWT_TOKEN_BYTES_MAX + 64], admin[JWT_TOKEN_BYTES_MAX + 64];
static int64_t product, left; /* units, after the purchases confirmed so far */

static void ask_with(size_t i, const char *target, const char *lines)
{
    assert_int_equal(http_client_request(&lookers[i], "GET", target, lines, NULL, 0, ANSWER_MS),
                     HTTP_CLIENT_OK);
}

/* Half of them look at the product, half at its stock: they share looks all the same. */
static void ask(size_t i)
{
    char target[64];
    snprintf(target, sizeof target, "/api/products/%lld%s", (long long)product, i % 2 == 0 ? "/stock" : "");
    ask_with(i, target, headers);
}

static void ask_all(size_t from, size_t to)
{
    for (size_t i = from; i < to; i++) {
        ask(i);
    }
}

static int hear(size_t i, struct http_answer *answer)
{
    if (http_client_read(&lookers[i], answer, ANSWER_MS) != HTTP_CLIENT_OK) {
        fail_msg("looker %zu was not answered", i);
    }
    return answer->status;
}

static int hear_status(size_t i)
{
    struct http_answer answer;
    int status = hear(i, &answer);
    http_answer_free(&answer);
    return status;
}

static int64_t number(const cJSON *json, const char *name)
{
    const cJSON *member = cJSON_GetObjectItemCaseSensitive(json, name);
    assert_true(cJSON_IsNumber(member));
    return (int64_t)member->valuedouble;
}

/* Both books say the same, and something from `least` to `most`. */
static void expect_between(size_t i, int64_t least, int64_t most)
{
    struct http_answer answer;
    assert_int_equal(hear(i, &answer), 200);
    cJSON *json = json_parse_object(answer.body, answer.body_bytes);
    assert_non_null(json);
    int64_t stored = number(json, i % 2 == 0 ? "db_stock" : "stock");
    assert_int_equal(number(json, "redis_stock"), stored);
    assert_true(i % 2 != 0 || cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(json, "synced")));
    assert_in_range(stored, least, most);
    cJSON_Delete(json);
    http_answer_free(&answer);
}

static void buy(void)
{
    assert_int_equal(sale_fixture_buy(&sale, 0, product, 1), 201);
    left--;
}

/* --- tests -------------------------------------------------------------------------------------------------------------------------------- */
static void test_nobody_sees_what_was_before_he_asked(void **state)
{
    (void)state;
    for (int round = 0; round < ROUNDS; round++) {
        ask_all(0, HALF); /* looks are under way while it is bought */
        buy();
        ask_all(HALF, LOOKERS);
        for (size_t i = 0; i < HALF; i++) {
            expect_between(i, left, left + 1);
        }
        for (size_t i = HALF; i < LOOKERS; i++) {
            expect_between(i, left, left);
        }
    }
    double asked = server_fixture_sample(&sale.server, "look_requests_sum", "");
    double looks = server_fixture_sample(&sale.server, "look_requests_count", "");
    print_message("%.0f were answered by %.0f looks\n", asked, looks);
    assert_int_equal((int)asked, ROUNDS * LOOKERS);
    assert_true(looks < asked / 2);
}

static void add_with_long_words(size_t i)
{
    char body[3 * LONG_CHARACTERS + 128];
    struct http_answer answer;
    int used = snprintf(body, sizeof body,
                        "{\"name\":\"number %zu\",\"price\":1,\"stock\":%zu,\"description\":\"", i, i);
    for (int c = 0; c < LONG_CHARACTERS; c++) {
        used += snprintf(body + used, sizeof body - (size_t)used, "\u20ac");
    }
    snprintf(body + used, sizeof body - (size_t)used, "\"}");
    assert_int_equal(http_client_call(&lookers[0], "POST", "/api/products", admin, body, &answer, ANSWER_MS),
                     HTTP_CLIENT_OK);
    assert_int_equal(answer.status, 201);
    http_answer_free(&answer);
}

/* The list is more than a request's arena holds, and some want their own id on it. */
static void expect_list(size_t i, int products)
{
    struct http_answer answer;
    char id[32], expected[32];
    assert_int_equal(hear(i, &answer), 200);
    snprintf(expected, sizeof expected, "looker-%zu", i);
    const char *said = http_answer_header(&answer, "X-Request-Id", id, sizeof id);
    assert_true(i % 2 == 0 ? said == NULL : said != NULL && strcmp(said, expected) == 0);
    assert_true(answer.body_bytes > 65536);
    cJSON *json = cJSON_Parse(answer.body);
    assert_int_equal(cJSON_GetArraySize(json), products);
    cJSON_Delete(json);
    http_answer_free(&answer);
}

static void test_many_products(void **state)
{
    char target[64], lines[sizeof headers + 64];
    struct http_answer answer;
    (void)state;
    for (size_t i = 0; i < LOOKERS; i++) {
        add_with_long_words(i);
    }
    for (size_t i = 0; i < LOOKERS; i++) {
        snprintf(target, sizeof target, "/api/products/%lld/stock", (long long)product + 1 + (long long)i);
        ask_with(i, target, headers);
    }
    for (size_t i = 0; i < LOOKERS; i++) {
        assert_int_equal(hear(i, &answer), 200);
        cJSON *json = json_parse_object(answer.body, answer.body_bytes);
        assert_int_equal(number(json, "product_id"), product + 1 + (int64_t)i);
        assert_int_equal(number(json, "db_stock"), (int64_t)i);
        cJSON_Delete(json);
        http_answer_free(&answer);
    }
    for (size_t i = 0; i < LOOKERS; i++) {
        snprintf(lines, sizeof lines, "%sX-Request-Id: looker-%zu\r\n", headers, i);
        ask_with(i, "/api/products", i % 2 == 0 ? headers : lines);
    }
    for (size_t i = 0; i < LOOKERS; i++) {
        expect_list(i, LOOKERS + 1);
    }
}

static void test_what_is_not_there(void **state)
{
    (void)state;
    for (size_t i = 0; i < LOOKERS; i++) {
        ask_with(i, i % 2 == 0 ? "/api/products/987654321" : "/api/products/987654321/stock", headers);
    }
    for (size_t i = 0; i < LOOKERS; i++) {
        assert_int_equal(hear_status(i), 404);
    }
}

#ifdef DOORBUSTER_FAILPOINTS
static struct failpoint_page *failpoints;

/* Looker 0 looks, and his look has read and rests: 300 ms for all that comes now. */
static void hold_a_look(void)
{
    int64_t deadline = deadline_in(ANSWER_MS);
    failpoints_arm(failpoints, "look.read:pause");
    ask(0);
    while (failpoints_fired(failpoints) == 0) {
        assert_true(wait_a_moment(deadline));
    }
}

static void test_a_look_that_has_begun_is_not_shared(void **state)
{
    (void)state;
    hold_a_look();
    buy();
    ask_all(1, LOOKERS);
    expect_between(0, left + 1, left + 1);
    for (size_t i = 1; i < LOOKERS; i++) {
        expect_between(i, left, left);
    }
}

static bool breaker_is_open(void)
{
    return server_fixture_sample(&sale.server, "breaker_state", "breaker=\"store\",state=\"open\"") > 0;
}

static void test_a_failure_is_everybody_s_and_counts_once(void **state)
{
    (void)state;
    hold_a_look();
    failpoints_arm(failpoints, "look.read:error~60000");
    ask_all(1, LOOKERS);
    assert_int_equal(hear_status(0), 200);
    for (size_t i = 1; i < LOOKERS; i++) {
        assert_int_equal(hear_status(i), 503);
    }
    assert_in_range(failpoints_fired(failpoints), 1,
                    3); /* all had asked in time, if this machine is not very slow */
    for (uint64_t failed = failpoints_fired(failpoints); failed < 5; failed++) {
        assert_false(breaker_is_open());
        ask(0);
        assert_int_equal(hear_status(0), 503);
    }
    int64_t deadline = deadline_in(ANSWER_MS);
    while (!breaker_is_open()) { /* it is shown every 20 ms */
        assert_true(wait_a_moment(deadline));
    }
    assert_int_equal(failpoints_fired(failpoints), 5);
    failpoints_disarm(failpoints);
    do {
        assert_true(wait_a_moment(deadline));
        ask(0);
    } while (hear_status(0) != 200);
}

static void open_looker(size_t i)
{
    assert_int_equal(http_client_open(&lookers[i], "127.0.0.1", sale.server.port, ANSWER_MS), HTTP_CLIENT_OK);
}

static void test_who_hangs_up_holds_up_nobody(void **state)
{
    (void)state;
    hold_a_look();
    ask_all(1, LOOKERS);
    for (size_t i = 0; i < HALF; i++) {
        http_client_close(&lookers[i]);
    }
    for (size_t i = HALF; i < LOOKERS; i++) {
        expect_between(i, left, left);
    }
    for (size_t i = 0; i < HALF; i++) {
        open_looker(i);
        ask(i);
        expect_between(i, left, left);
    }
}

/* A worker that is replaced answers those who wait. */
static void test_a_worker_leaves(void **state)
{
    (void)state;
    pid_t worker = server_fixture_child(&sale.server, "doorbuster: worker 0");
    hold_a_look();
    ask_all(1, LOOKERS);
    assert_int_equal(kill(worker, SIGTERM), 0);
    for (size_t i = 0; i < LOOKERS; i++) {
        expect_between(i, left, left);
        http_client_close(&lookers[i]);
        open_looker(i);
    }
    ask_all(0, LOOKERS);
    for (size_t i = 0; i < LOOKERS; i++) {
        expect_between(i, left, left);
    }
}
#endif

static int setup(void **state)
{
    static char variable[FOLDER_BYTES + 64];
    char token[JWT_TOKEN_BYTES_MAX];
    (void)state;
#ifdef DOORBUSTER_FAILPOINTS
    static char folder[FOLDER_BYTES];
    char path[FOLDER_BYTES + 32];
    folder_make(folder);
    snprintf(path, sizeof path, "%s/failpoints", folder);
    snprintf(variable, sizeof variable, "DOORBUSTER_FAILPOINT_FILE=%s", path);
    failpoints = failpoints_file_make(path);
    *state = folder;
#endif
    sale_fixture_begin(&sale, 1, 1, NULL, (const char *const[]){variable[0] != '\0' ? variable : NULL, NULL});
    left = STOCK;
    product = sale_fixture_add_product(&sale, STOCK, 0);
    snprintf(headers, sizeof headers, "Authorization: Bearer %s\r\n", sale.buyers[0].token);
    server_fixture_token(&sale.server, sale.first_user, USER_ADMIN, token);
    snprintf(admin, sizeof admin, "Authorization: Bearer %s\r\nContent-Type: application/json\r\n", token);
    for (size_t i = 0; i < LOOKERS; i++) {
        assert_int_equal(http_client_open(&lookers[i], "127.0.0.1", sale.server.port, ANSWER_MS),
                         HTTP_CLIENT_OK);
    }
    return 0;
}

static int teardown(void **state)
{
    for (size_t i = 0; i < LOOKERS; i++) {
        http_client_close(&lookers[i]);
    }
    sale_fixture_end(&sale);
#ifdef DOORBUSTER_FAILPOINTS
    failpoints_file_close(&failpoints);
    folder_remove(*state);
#endif
    return 0;
}

static void test_the_books_are_right(void **state)
{
    (void)state;
    sale_fixture_judge(&sale);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_nobody_sees_what_was_before_he_asked),
        cmocka_unit_test(test_many_products),
        cmocka_unit_test(test_what_is_not_there),
#ifdef DOORBUSTER_FAILPOINTS
        cmocka_unit_test(test_a_look_that_has_begun_is_not_shared),
        cmocka_unit_test(test_a_failure_is_everybody_s_and_counts_once),
        cmocka_unit_test(test_who_hangs_up_holds_up_nobody),
        cmocka_unit_test(test_a_worker_leaves),
#endif
        cmocka_unit_test(test_the_books_are_right),
    };
    signal(SIGPIPE, SIG_IGN);
    return cmocka_run_group_tests(tests, setup, teardown);
}
