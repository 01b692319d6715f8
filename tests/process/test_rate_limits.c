/* Limits with the real server, two workers that share them: too many calls of an account or from an address, too many wrong passwords. What is refused has
 * changed nothing and comes through later; nobody is kept out by somebody else. */
#include "testing.h"

#include "http_client.h"
#include "server_fixture.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define PATIENCE_MS 15000
#define HEADERS_BYTES (JWT_TOKEN_BYTES_MAX + 512)

static struct {
    struct server_fixture server;
    int64_t first_user, product;
} test;

struct heard {
    int status;
    char retry_after[32], limit[128], policy[128], replayed[32], body[1024];
};

/* On a connection of its own: any worker may get it. */
static struct heard ask(const char *method, const char *target, const char *headers, const char *body)
{
    struct heard heard = {0};
    struct http_client client;
    struct http_answer answer;
    assert_int_equal(http_client_open(&client, "127.0.0.1", test.server.port, PATIENCE_MS), HTTP_CLIENT_OK);
    assert_int_equal(http_client_call(&client, method, target, headers, body, &answer, PATIENCE_MS),
                     HTTP_CLIENT_OK);
    heard.status = answer.status;
    (void)http_answer_header(&answer, "Retry-After", heard.retry_after, sizeof heard.retry_after);
    (void)http_answer_header(&answer, "RateLimit", heard.limit, sizeof heard.limit);
    (void)http_answer_header(&answer, "RateLimit-Policy", heard.policy, sizeof heard.policy);
    (void)http_answer_header(&answer, "Idempotent-Replayed", heard.replayed, sizeof heard.replayed);
    snprintf(heard.body, sizeof heard.body, "%s", answer.body);
    http_answer_free(&answer);
    http_client_close(&client);
    return heard;
}

static struct heard buy(int64_t user, const char *key)
{
    char token[JWT_TOKEN_BYTES_MAX], headers[HEADERS_BYTES], body[96];
    server_fixture_token(&test.server, user, USER_BUYER, token);
    snprintf(headers, sizeof headers,
             "Authorization: Bearer %s\r\nContent-Type: application/json\r\nIdempotency-Key: %s\r\n", token,
             key);
    snprintf(body, sizeof body, "{\"product_id\":%" PRId64 ",\"quantity\":1}", test.product);
    return ask("POST", "/api/purchases", headers, body);
}

static void expect_too_fast(const struct heard *heard, const char *limit)
{
    char member[64];
    snprintf(member, sizeof member, "\"limit\":\"%s\"", limit);
    if (heard->status != 429 || strstr(heard->body, "/problems/too-fast") == NULL ||
        strstr(heard->body, member) == NULL) {
        fail_msg("wanted 429 of the limit %s: %d %s", limit, heard->status, heard->body);
    }
    assert_in_range(strtol(heard->retry_after, NULL, 10), 1, 60);
    snprintf(member, sizeof member, "\"%s\";r=0;t=", limit);
    assert_non_null(strstr(heard->limit, member));
    snprintf(member, sizeof member, "\"%s\";q=", limit);
    assert_non_null(strstr(heard->policy, member));
}

static void start(const char *const *arguments)
{
    static const char *const on[] = {"DOORBUSTER_RATE_LIMITS=on", NULL};
    server_fixture_begin(&test.server);
    server_fixture_start(&test.server, 2, arguments, on);
}

static int teardown(void **state)
{
    (void)state;
    server_fixture_end(&test.server);
    return 0;
}

/* --- accounts ---------------------------------------------------------------------------------------------------------------------- */
static void test_an_account_that_buys_too_fast(void **state)
{
    (void)state;
    char key[32];
    start((const char *const[]){"--rate-account", "1/s:5", NULL});
    test.first_user =
        server_fixture_add_users(&test.server, 3) + 1; /* the first is the one that adds products */
    test.product = server_fixture_add_product(&test.server, 100, 0);
    for (int i = 0; i < 5; i++) {
        snprintf(key, sizeof key, "key-%d", i);
        struct heard heard = buy(test.first_user, key);
        assert_int_equal(heard.status, 201);
        assert_non_null(strstr(heard.limit, "\"account\";r="));
        assert_string_equal(heard.policy, "\"account\";q=5;w=5");
    }
    struct heard refused = {.status = 201};
    for (int i = 5; refused.status == 201 && i < 30; i++) { /* the machine may be slow */
        snprintf(key, sizeof key, "key-%d", i);
        refused = buy(test.first_user, key);
    }
    int64_t until_us = now_us() + strtol(refused.retry_after, NULL, 10) * 1000000;
    expect_too_fast(&refused, "account");
    assert_int_equal(buy(test.first_user + 1, "key-0").status, 201); /* another's limit is another's */
    assert_int_equal((int64_t)server_fixture_sample(&test.server, "rate_limited_total", "limit=\"account\""),
                     1);
    /* who comes back when told to gets in, with the same key */
    while (now_us() < until_us) {
        (void)wait_a_moment(until_us);
    }
    struct heard bought = buy(test.first_user, key);
    assert_int_equal(bought.status, 201);
    assert_string_equal(bought.replayed, ""); /* nothing had been bought with it */
    server_fixture_stop(&test.server);
    server_fixture_verify(&test.server, 0);
}

/* Without a good token nobody uses up an account's calls. */
static void test_forged_tokens_use_up_nothing(void **state)
{
    (void)state;
    start((const char *const[]){"--rate-account", "1/min:3", NULL});
    test.first_user = server_fixture_add_users(&test.server, 2) + 1;
    test.product = server_fixture_add_product(&test.server, 100, 0);
    char token[JWT_TOKEN_BYTES_MAX], headers[HEADERS_BYTES];
    server_fixture_token(&test.server, test.first_user, USER_BUYER, token);
    token[strlen(token) - 2] ^= 1;
    snprintf(headers, sizeof headers, "Authorization: Bearer %s\r\n", token);
    for (int i = 0; i < 20; i++) {
        assert_int_equal(ask("GET", "/api/auth/me", headers, NULL).status, 401);
    }
    assert_int_equal(buy(test.first_user, "a").status, 201);
    assert_int_equal(buy(test.first_user, "b").status, 201);
    assert_string_equal(buy(test.first_user, "a").replayed, "true");
    struct heard refused = buy(test.first_user, "c");
    expect_too_fast(&refused, "account");
    server_fixture_stop(&test.server);
}

/* --- addresses --------------------------------------------------------------------------------------------------------------------- */
static int health_from(const char *client)
{
    char headers[128];
    snprintf(headers, sizeof headers, "X-Forwarded-For: %s\r\n", client);
    struct heard heard = ask("GET", "/health", headers, NULL);
    if (heard.status == 429) {
        expect_too_fast(&heard, "address");
    }
    return heard.status;
}

static void test_an_address_that_asks_too_fast(void **state)
{
    (void)state;
    start((const char *const[]){"--rate-address", "1/min:5", "--trusted-proxies", "127.0.0.1", NULL});
    for (int i = 0; i < 50; i++) { /* this machine itself is exempt */
        assert_int_equal(ask("GET", "/health", NULL, NULL).status, 200);
    }
    for (int i = 0; i < 5; i++) {
        assert_int_equal(health_from("192.0.2.7"), 200);
    }
    assert_int_equal(health_from("192.0.2.7"), 429);
    assert_int_equal(health_from("198.51.100.1, 192.0.2.7"),
                     429); /* what the client says of itself does not help */
    assert_int_equal(health_from("192.0.2.8"), 200);
    for (int i = 0; i < 5; i++) { /* one household has a /64 */
        char client[64];
        snprintf(client, sizeof client, "2001:db8:0:1::%d", i + 1);
        assert_int_equal(health_from(client), 200);
    }
    assert_int_equal(health_from("2001:db8:0:1:ffff::9"), 429);
    assert_int_equal(health_from("2001:db8:0:2::1"), 200);
    for (int i = 0; i < 5; i++) { /* a proxy's client that says it is this machine is none */
        assert_int_equal(health_from("127.0.0.1"), 200);
    }
    assert_int_equal(health_from("127.0.0.1"), 429);
    assert_int_equal((int64_t)server_fixture_sample(&test.server, "rate_limited_total", "limit=\"address\""),
                     4);
    server_fixture_stop(&test.server);
}

/* Of two workers with room for one connection from there each, the third is closed at once; this machine itself comes in. */
static void test_an_address_that_opens_too_many_connections(void **state)
{
    enum { CONNECTIONS = 3 };
    struct http_client clients[CONNECTIONS];
    int refused = 0;
    char own[64];
    (void)state;
    assert_true(http_client_own_address(own));
    start((const char *const[]){"--connections-per-address", "1", "--listen", "0.0.0.0:0", NULL});
    for (int i = 0; i < CONNECTIONS; i++) {
        struct http_answer answer = {0};
        assert_int_equal(http_client_open(&clients[i], own, test.server.port, PATIENCE_MS), HTTP_CLIENT_OK);
        refused += http_client_call(&clients[i], "GET", "/health", NULL, NULL, &answer, PATIENCE_MS) !=
                   HTTP_CLIENT_OK;
        http_answer_free(&answer);
    }
    assert_in_range(refused, 1, CONNECTIONS - 1);
    int64_t deadline = deadline_in(PATIENCE_MS);
    while (server_fixture_metric(&test.server, "connections_crowded_out") < refused) {
        assert_true(wait_a_moment(deadline));
    }
    assert_true(server_fixture_logged(&test.server, "what more it opens is closed"));
    for (int i = 0; i < CONNECTIONS; i++) {
        http_client_close(&clients[i]);
    }
    server_fixture_stop(&test.server);
}

/* --- passwords --------------------------------------------------------------------------------------------------------------------- */
static struct heard sign_in(const char *name, const char *password, const char *client)
{
    char headers[160], body[128];
    snprintf(headers, sizeof headers,
             "Content-Type: application/x-www-form-urlencoded\r\nX-Forwarded-For: %s\r\n", client);
    snprintf(body, sizeof body, "username=%s&password=%s", name, password);
    return ask("POST", "/api/auth/login", headers, body);
}

static void test_guessing_is_slow(void **state)
{
    (void)state;
    start((const char *const[]){"--rate-sign-in", "2/min:2", "--trusted-proxies", "127.0.0.1", NULL});
    assert_int_equal(ask("POST", "/api/auth/register", "Content-Type: application/json\r\n",
                         "{\"username\":\"owner\",\"password\":\"correct horse\"}")
                         .status,
                     201);
    for (int i = 0; i < 10; i++) { /* right ones are never too many */
        assert_int_equal(sign_in("owner", "correct%20horse", "192.0.2.7").status, 200);
    }
    for (int i = 0; i < 2; i++) {
        assert_int_equal(sign_in("owner", "wrong-guess", "192.0.2.7").status, 401);
    }
    struct heard refused = sign_in("owner", "correct%20horse", "192.0.2.7");
    expect_too_fast(&refused, "sign-in"); /* even the right one: the answer tells nothing */
    /* the owner is not locked out, and neither are others from there */
    assert_int_equal(sign_in("owner", "correct%20horse", "192.0.2.9").status, 200);
    assert_int_equal(sign_in("somebody", "wrong-guess", "192.0.2.7").status, 401);
    /* one address trying one password on many names: ten times as many, 3 of which are used up */
    char name[32];
    int tried = 0;
    do {
        snprintf(name, sizeof name, "name%d", tried);
        refused = sign_in(name, "password", "192.0.2.7");
    } while (refused.status == 401 && ++tried < 40);
    expect_too_fast(&refused, "sign-in");
    assert_in_range(tried, 15, 19);
    assert_int_equal((int64_t)server_fixture_sample(&test.server, "rate_limited_total", "limit=\"sign_in\""),
                     2);
    server_fixture_stop(&test.server);
}

/* An office, a mobile network: all of them sign in at the same moment, with the right password. */
static void test_many_people_behind_one_address(void **state)
{
    enum { PEOPLE = 20 };
    struct http_client clients[PEOPLE];
    char body[128];
    (void)state;
    start((const char *const[]){"--rate-sign-in", "1/min:1", "--trusted-proxies", "127.0.0.1", NULL});
    for (int i = 0; i < PEOPLE; i++) {
        snprintf(body, sizeof body, "{\"username\":\"name%d\",\"password\":\"correct horse\"}", i);
        assert_int_equal(ask("POST", "/api/auth/register", "Content-Type: application/json\r\n", body).status,
                         201);
    }
    for (int i = 0; i < PEOPLE; i++) {
        assert_int_equal(http_client_open(&clients[i], "127.0.0.1", test.server.port, PATIENCE_MS),
                         HTTP_CLIENT_OK);
    }
    for (int i = 0; i < PEOPLE; i++) {
        snprintf(body, sizeof body, "username=name%d&password=correct%%20horse", i);
        assert_int_equal(http_client_request(&clients[i], "POST", "/api/auth/login",
                                             "Content-Type: application/x-www-form-urlencoded\r\n"
                                             "X-Forwarded-For: 192.0.2.7\r\n",
                                             body, strlen(body), PATIENCE_MS),
                         HTTP_CLIENT_OK);
    }
    int let_in = 0;
    for (int i = 0; i < PEOPLE; i++) {
        struct http_answer answer;
        assert_int_equal(http_client_read(&clients[i], &answer, PATIENCE_MS), HTTP_CLIENT_OK);
        if (answer.status != 200 && strstr(answer.body, "/problems/too-busy") == NULL) {
            fail_msg("status %d: %s", answer.status, answer.body);
        }
        let_in += answer.status == 200;
        http_answer_free(&answer);
        http_client_close(&clients[i]);
    }
    /* A busy machine cannot hash them all in time, and says so; nobody is too fast. */
    assert_true(let_in > 1);
    server_fixture_stop(&test.server);
}

/* On this machine, and not told to be trusted: its clients are one address, and not exempt. */
static void test_a_local_proxy_that_nobody_trusts(void **state)
{
    (void)state;
    start((const char *const[]){"--rate-address", "1/min:5", NULL});
    for (int i = 0; i < 5; i++) {
        assert_int_equal(health_from("192.0.2.7"), 200);
    }
    assert_int_equal(health_from("192.0.2.8"), 429);
    assert_int_equal(ask("GET", "/health", NULL, NULL).status, 200);
    server_fixture_stop(&test.server);
}

/* Who asks for what there is not is counted like everybody. */
static void test_paths_that_there_are_not(void **state)
{
    static const char from[] = "X-Forwarded-For: 192.0.2.7\r\n";
    (void)state;
    start((const char *const[]){"--rate-address", "1/min:5", "--trusted-proxies", "127.0.0.1", NULL});
    for (int i = 0; i < 5; i++) {
        assert_int_equal(ask("GET", "/nothing", from, NULL).status, 404);
    }
    assert_int_equal(ask("GET", "/nothing", from, NULL).status, 429);
    assert_int_equal(ask("PUT", "/health", from, NULL).status, 429);
    server_fixture_stop(&test.server);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(test_an_account_that_buys_too_fast, teardown),
        cmocka_unit_test_teardown(test_forged_tokens_use_up_nothing, teardown),
        cmocka_unit_test_teardown(test_an_address_that_asks_too_fast, teardown),
        cmocka_unit_test_teardown(test_an_address_that_opens_too_many_connections, teardown),
        cmocka_unit_test_teardown(test_guessing_is_slow, teardown),
        cmocka_unit_test_teardown(test_many_people_behind_one_address, teardown),
        cmocka_unit_test_teardown(test_a_local_proxy_that_nobody_trusts, teardown),
        cmocka_unit_test_teardown(test_paths_that_there_are_not, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
