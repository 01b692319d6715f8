/* The log of the real server: nothing secret in it, however loud; every line well-formed; its level changes for all processes on a signal. */
#include "testing.h"

#include "http_client.h"
#include "redis_fixture.h"
#include "server_fixture.h"

#include "doorbuster/json.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define CALL_MS 10000
#define LOGGED_MS 10000
#define REDIS_PASSWORD "redis-opensesame-1"
#define PASSWORD "battery-staple-2"
#define WRONG_PASSWORD "correct-horse-3"
#define IDEMPOTENCY_KEY "key-of-a-kind-4"

static struct server_fixture server;
static struct redis_fixture redis;
static redisContext *control; /* connected before it wanted a password */

static void await_logged(const char *text)
{
    int64_t deadline = deadline_in(LOGGED_MS);
    while (!server_fixture_logged(&server, text)) {
        if (!wait_a_moment(deadline)) {
            fail_msg("it never logged %s", text);
        }
    }
}

static int call(const char *method, const char *target, const char *headers, const char *body, char *out,
                size_t out_bytes)
{
    struct http_client client = {.fd = -1};
    struct http_answer answer;
    assert_int_equal(http_client_open(&client, "127.0.0.1", server.port, CALL_MS), HTTP_CLIENT_OK);
    assert_int_equal(http_client_call(&client, method, target, headers, body, &answer, CALL_MS),
                     HTTP_CLIENT_OK);
    int status = answer.status;
    snprintf(out, out_bytes, "%s", answer.body);
    http_answer_free(&answer);
    http_client_close(&client);
    return status;
}

static int log_in(const char *password, char token[JWT_TOKEN_BYTES_MAX])
{
    char form[128], body[4096];
    snprintf(form, sizeof form, "username=alice&password=%s", password);
    int status = call("POST", "/api/auth/login", "Content-Type: application/x-www-form-urlencoded\r\n", form,
                      body, sizeof body);
    cJSON *json = json_parse_object(body, strlen(body));
    const cJSON *given = cJSON_GetObjectItemCaseSensitive(json, "access_token");
    snprintf(token, JWT_TOKEN_BYTES_MAX, "%s", given != NULL ? given->valuestring : "");
    cJSON_Delete(json);
    return status;
}

static int buy(const char *token, int64_t product, const char *key)
{
    char headers[JWT_TOKEN_BYTES_MAX + 256], body[64], out[4096];
    snprintf(headers, sizeof headers,
             "Authorization: Bearer %s\r\nContent-Type: application/json\r\nIdempotency-Key: %s\r\n", token,
             key);
    snprintf(body, sizeof body, "{\"product_id\":%lld,\"quantity\":1}", (long long)product);
    return call("POST", "/api/purchases", headers, body, out, sizeof out);
}

static void start_with_a_password(char url[96])
{
    struct sockaddr_in where = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t bytes = sizeof where;
    redis_fixture_start(&redis, false);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0); /* a free port */
    assert_int_equal(bind(fd, (struct sockaddr *)&where, sizeof where), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&where, &bytes), 0);
    close(fd);
    control = redis_fixture_connect(&redis);
    redis_do(control, "CONFIG SET bind 127.0.0.1 port %u", ntohs(where.sin_port));
    redis_do(control, "CONFIG SET requirepass %s", REDIS_PASSWORD);
    redis_do(control, "AUTH %s", REDIS_PASSWORD);
    snprintf(url, 96, "redis://:%s@127.0.0.1:%u/0", REDIS_PASSWORD, ntohs(where.sin_port));
}

/* Links break, and Redis does not let anybody in for a moment. */
static void disturb_redis(void)
{
    redis_do(control, "CONFIG SET requirepass something-else-5");
    redis_do(control, "CLIENT KILL TYPE normal SKIPME yes");
    redis_do(control, "CLIENT KILL TYPE pubsub SKIPME yes");
    await_logged(" in: WRONGPASS");
    redis_do(control, "CONFIG SET requirepass %s", REDIS_PASSWORD);
}

static void expect_json_lines(char *log)
{
    size_t lines = 0;
    for (char *line = strtok(log, "\n"); line != NULL; line = strtok(NULL, "\n"), lines++) {
        cJSON *json = json_parse_object(line, strlen(line));
        if (json == NULL || !cJSON_HasObjectItem(json, "ts") || !cJSON_HasObjectItem(json, "level") ||
            !cJSON_HasObjectItem(json, "proc") || !cJSON_HasObjectItem(json, "pid") ||
            !cJSON_HasObjectItem(json, "msg")) {
            fail_msg("not a line of the log: %s", line);
        }
        cJSON_Delete(json);
    }
    assert_true(lines > 10);
}

static void test_nothing_secret_is_logged(void **state)
{
    char url[96], body[4096], token[JWT_TOKEN_BYTES_MAX], none[JWT_TOKEN_BYTES_MAX], forged[256];
    (void)state;
    start_with_a_password(url);
    server_fixture_begin(&server);
    server_fixture_start(
        &server, 1,
        (const char *const[]){"--redis", url, "--log-level", "debug", "--log-format", "json", NULL}, NULL);
    int64_t product = server_fixture_add_product(&server, 10, 0);
    assert_int_equal(call("POST", "/api/auth/register", "Content-Type: application/json\r\n",
                          "{\"username\":\"alice\",\"password\":\"" PASSWORD "\"}", body, sizeof body),
                     201);
    assert_int_equal(log_in(WRONG_PASSWORD, none), 401);
    assert_int_equal(log_in(PASSWORD, token), 200);
    assert_int_equal(buy(token, product, IDEMPOTENCY_KEY), 201);
    assert_int_equal(buy(token, product, IDEMPOTENCY_KEY), 201);
    /* Somewhere it does not belong. */
    snprintf(forged, sizeof forged, "/api/%.100s?password=" PASSWORD, token);
    assert_int_equal(call("GET", forged, NULL, NULL, body, sizeof body), 404);
    disturb_redis();
    int64_t deadline = deadline_in(LOGGED_MS);
    while (buy(token, product, IDEMPOTENCY_KEY "-again") != 201) {
        assert_true(wait_a_moment(deadline));
    }
    await_logged("\"route\":\"login\"");
    server_fixture_stop(&server);

    char *log = file_read(server.log_path);
    const char *const secrets[] = {PASSWORD,      WRONG_PASSWORD, IDEMPOTENCY_KEY, REDIS_PASSWORD,
                                   SERVER_SECRET, token,          "Bearer",        "argon2"};
    for (size_t i = 0; i < sizeof secrets / sizeof secrets[0]; i++) {
        if (strstr(log, secrets[i]) != NULL) {
            fail_msg("the log has %s", secrets[i]);
        }
    }
    /* The token's start too: lines are cut. */
    token[40] = '\0';
    assert_null(strstr(log, token));
    expect_json_lines(log);
    free(log);
}

static void test_the_level_changes_for_all(void **state)
{
    (void)state;
    server_fixture_begin(&server);
    server_fixture_start(&server, 1, NULL, NULL);
    assert_int_equal(server_fixture_get(&server, "/health", NULL, 0), 200);
    assert_false(server_fixture_logged(&server, "route=health"));
    assert_int_equal(kill(server.pid, SIGUSR1), 0);
    await_logged("level=debug proc=\"supervisor\"");
    await_logged("the log level is debug now, it was info");
    char body[256];
    assert_int_equal(call("GET", "/health", "X-Request-Id: night-shift.17\r\n", NULL, body, sizeof body),
                     200);
    await_logged("level=debug proc=\"worker 0\"");
    await_logged("msg=\"GET health answered 200\" method=GET route=health status=200 took_us=");
    await_logged(" request_id=night-shift.17 client=127.0.0.1\n");
    assert_int_equal(kill(server.pid, SIGUSR2), 0);
    await_logged("the log level is info now, it was debug");
    for (int i = 0; i < 2; i++) { /* beyond warn there is error, and then nothing */
        assert_int_equal(kill(server.pid, SIGUSR2), 0);
        await_logged(i == 0 ? "the log level is warn now" : "the log level is error now");
    }
    assert_int_equal(kill(server.pid, SIGUSR2), 0);
    await_logged("the log level is error already");
    server_fixture_stop(&server);
}

static int teardown(void **state)
{
    (void)state;
    server_fixture_end(&server);
    if (control != NULL) {
        redisFree(control);
        control = NULL;
    }
    redis_fixture_end(&redis);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(test_nothing_secret_is_logged, teardown),
        cmocka_unit_test_teardown(test_the_level_changes_for_all, teardown),
    };
    signal(SIGPIPE, SIG_IGN);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
