/* /health/ready of the real server: what it says of each part, and that it follows their coming and going. And the redlock paths of a server that
 * has no such gate. */
#include "testing.h"

#include "http_client.h"
#include "server_fixture.h"

#include "doorbuster/json.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>

#define ANSWER_MS 10000
#define CHANGE_MS 15000

static struct server_fixture server;

/* The answer's status; its JSON is the caller's. */
static int ask(const char *method, const char *target, cJSON **json)
{
    struct http_client client = {.fd = -1};
    struct http_answer answer;
    assert_int_equal(http_client_open(&client, "127.0.0.1", server.port, ANSWER_MS), HTTP_CLIENT_OK);
    assert_int_equal(
        http_client_call(&client, method, target, NULL, method[0] == 'P' ? "{}" : NULL, &answer, ANSWER_MS),
        HTTP_CLIENT_OK);
    *json = json_parse_object(answer.body, answer.body_bytes);
    assert_non_null(*json);
    int status = answer.status;
    http_answer_free(&answer);
    http_client_close(&client);
    return status;
}

static const char *text_of(const cJSON *json, const char *name)
{
    const cJSON *member = cJSON_GetObjectItemCaseSensitive(json, name);
    assert_true(cJSON_IsString(member));
    return member->valuestring;
}

/* Is this part there, and is it up or not? */
static bool has_part(const cJSON *json, const char *name, bool up)
{
    const cJSON *part;
    cJSON_ArrayForEach(part, cJSON_GetObjectItemCaseSensitive(json, "parts"))
    {
        if (strcmp(text_of(part, "name"), name) == 0) {
            return cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(part, "up")) == up;
        }
    }
    return false;
}

static bool is_missing(const cJSON *json, const char *name)
{
    const cJSON *missing;
    cJSON_ArrayForEach(missing, cJSON_GetObjectItemCaseSensitive(json, "missing"))
    {
        if (strcmp(missing->valuestring, name) == 0) {
            return true;
        }
    }
    return false;
}

static void await_ready(bool ready, const char *part)
{
    int64_t deadline = deadline_in(CHANGE_MS);
    bool found = false;
    while (!found) {
        cJSON *json;
        int status = ask("GET", "/health/ready", &json);
        assert_int_equal(status, strcmp(text_of(json, "status"), "ready") == 0 ? 200 : 503);
        assert_string_equal(text_of(json, "gate"), "lua");
        found = (status == 200) == ready && has_part(json, part, ready) && is_missing(json, part) == !ready;
        cJSON_Delete(json);
        if (!found && !wait_a_moment(deadline)) {
            fail_msg("it never said that %s is %s", part, ready ? "up" : "missing");
        }
    }
}

static void test_it_follows_redis(void **state)
{
    (void)state;
    await_ready(true, "redis");
    await_ready(true, "store");
    pid_t redis = server_fixture_child(&server, "redis-server");
    assert_int_equal(kill(redis, SIGSTOP), 0);
    await_ready(false, "redis");
    assert_int_equal(kill(redis, SIGCONT), 0);
    await_ready(true, "redis");
    await_ready(true, "gate");
}

/* What died is missed, comes back, and the log says that it has. */
static void test_the_log_says_what_is_back(void **state)
{
    static const struct {
        const char *title, *words;
    } dying[] = {{"doorbuster: worker 0", "worker 0 is ready again, "},
                 {"doorbuster: recorder", "recorder is ready again, "},
                 {"redis-server", "redis-server answers again, "}};
    (void)state;
    for (size_t i = 0; i < sizeof dying / sizeof dying[0]; i++) {
        int64_t deadline = deadline_in(CHANGE_MS);
        assert_false(server_fixture_logged(&server, dying[i].words));
        assert_int_equal(kill(server_fixture_child(&server, dying[i].title), SIGKILL), 0);
        while (!server_fixture_logged(&server, dying[i].words)) {
            assert_true(wait_a_moment(deadline));
        }
    }
    await_ready(true, "redis");
}

/* Their users are told where to buy, and how to get what they ask for. */
static void test_redlock_paths_of_the_lua_gate(void **state)
{
    static const char *const paths[] = {"/api/purchases/redlock", "/api/purchases/redlock-manual",
                                        "/api/purchases/redlock-manual-async",
                                        "/api/purchases/redlock-aioredlock"};
    (void)state;
    for (size_t i = 0; i < sizeof paths / sizeof paths[0]; i++) {
        cJSON *json;
        assert_int_equal(ask("POST", paths[i], &json), 404);
        assert_non_null(strstr(text_of(json, "detail"), "--gate redlock"));
        assert_non_null(strstr(text_of(json, "detail"), "DOORBUSTER_GATE=redlock"));
        cJSON_Delete(json);
    }
}

static int setup(void **state)
{
    (void)state;
    server_fixture_begin(&server);
    server_fixture_start(&server, 1, NULL, NULL);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    server_fixture_end(&server);
    return 0;
}

static void test_it_stops(void **state)
{
    (void)state;
    server_fixture_stop(&server);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_it_follows_redis),
        cmocka_unit_test(test_the_log_says_what_is_back),
        cmocka_unit_test(test_redlock_paths_of_the_lua_gate),
        cmocka_unit_test(test_it_stops),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
