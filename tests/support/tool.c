/* See tool.h. The test process's main thread; owns nothing but the shop's server. */
#include "tool.h"

#include "crowd.h"
#include "testing.h"

#include "doorbuster/json.h"
#include "doorbuster/redis.h"

#include <signal.h>
#include <sqlite3.h>
#include <stdio.h>
#include <string.h>

#define ARGUMENTS_MAX 16
#define ANSWER_MS 20000
#define STORE_BUSY_MS 5000

struct run_result tool_run(const struct server_fixture *server, const char *tool,
                           const char *const *arguments, const char *const *environment)
{
    const char *argv[ARGUMENTS_MAX] = {program_path(tool), "--data", server->data};
    for (size_t i = 0; arguments != NULL && arguments[i] != NULL; i++) {
        assert_in_range(i, 0, ARGUMENTS_MAX - 5);
        argv[i + 3] = arguments[i];
    }
    return program_run(argv, environment, TOOL_MS);
}

void tool_expect(const struct server_fixture *server, const char *tool, const char *const *arguments,
                 int exit_code, const char *words)
{
    struct run_result result = tool_run(server, tool, arguments, NULL);
    if (result.exit_code != exit_code ||
        (strstr(result.out, words) == NULL && strstr(result.err, words) == NULL)) {
        fail_msg("%s exited with %d, not %d, or did not say \"%s\":\n%s%s", tool, result.exit_code, exit_code,
                 words, result.out, result.err);
    }
    run_result_free(&result);
}

/* --- a shop
 * ------------------------------------------------------------------------------------------------------------------------ */
void tool_shop_begin(struct tool_shop *shop)
{
    *shop = (struct tool_shop){0};
    server_fixture_begin(&shop->server);
    server_fixture_start(&shop->server, 1, NULL, NULL);
    shop->buyer = server_fixture_add_users(&shop->server, 1);
    server_fixture_token(&shop->server, shop->buyer, USER_BUYER, shop->token);
}

void tool_shop_end(struct tool_shop *shop)
{
    ledger_free(&shop->ledger);
    if (shop->server.pid > 0) {
        kill(shop->server.pid, SIGTERM);
        program_wait(shop->server.pid, TOOL_MS);
        shop->server.pid = 0;
    }
    server_fixture_end(&shop->server);
}

static void note_cb(void *context, size_t client, const struct crowd_answer *answer)
{
    struct tool_shop *shop = context;
    (void)client;
    ledger_note(&shop->ledger, answer, shop->buyer, shop->product, TOOL_QUANTITY);
}

void tool_shop_sell(struct tool_shop *shop, int64_t product, unsigned orders)
{
    struct crowd *crowd = crowd_new(shop->server.port, 1, note_cb, shop);
    shop->product = product;
    for (unsigned i = 0; i < orders; i++) {
        crowd_buy(crowd, 0, shop->token, product, TOOL_QUANTITY);
        assert_true(crowd_finish(crowd, ANSWER_MS));
    }
    assert_int_equal(shop->ledger.other, 0);
    crowd_free(&crowd);
}

struct heard {
    int status;
    int64_t id;
};

static void hear_cb(void *context, size_t client, const struct crowd_answer *answer)
{
    struct heard *heard = context;
    (void)client;
    *heard = (struct heard){.status = answer->status};
    cJSON *json = json_parse_object(answer->body, strlen(answer->body));
    if (json != NULL && json_get_integer(json, "id", 1, JSON_INTEGER_MAX, &heard->id) != JSON_FIELD_OK) {
        heard->id = 0;
    }
    cJSON_Delete(json);
}

int tool_shop_ask(struct tool_shop *shop, const char *method, const char *target, const char *body,
                  int64_t *id)
{
    struct heard heard = {.status = CROWD_BROKEN};
    struct crowd *crowd = crowd_new(shop->server.port, 1, hear_cb, &heard);
    crowd_request(crowd, 0, method, target, shop->token, body);
    assert_true(crowd_finish(crowd, ANSWER_MS));
    crowd_free(&crowd);
    if (id != NULL) {
        *id = heard.id;
    }
    return heard.status;
}

const char *tool_shop_path(const struct tool_shop *shop, const char *name)
{
    static char paths[4][TOOL_PATH_BYTES];
    static unsigned next;
    char *path = paths[next++ % 4];
    snprintf(path, TOOL_PATH_BYTES, "%s/%s", shop->server.folder, name);
    return path;
}

void tool_shop_change_store(const struct tool_shop *shop, const char *sql)
{
    char *error = NULL;
    sqlite3 *database;
    assert_int_equal(sqlite3_open(tool_shop_path(shop, "data/doorbuster.db"), &database), SQLITE_OK);
    sqlite3_busy_timeout(database, STORE_BUSY_MS);
    if (sqlite3_exec(database, sql, NULL, NULL, &error) != SQLITE_OK) {
        fail_msg("%s: %s", sql, error);
    }
    assert_true(sqlite3_changes(database) > 0);
    sqlite3_close(database);
}

void tool_shop_change_redis(const struct tool_shop *shop, const char *command, int64_t id, int64_t by)
{
    redisContext *redis = server_fixture_redis(&shop->server);
    redisReply *reply = redis_ask(redis, command, (long long)id, (long long)by);
    assert_non_null(reply);
    freeReplyObject(reply);
    redisFree(redis);
}
