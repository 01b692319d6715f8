/* See server_fixture.h. The test process; owns the server's folder and its recorded pids. Every signal goes
 * to the recorded supervisor or to a child found through it. */
#include "server_fixture.h"

#include "http_client.h"
#include "run.h"
#include "store_fixture.h"
#include "testing.h"

#include "doorbuster/gate_place.h"
#include "doorbuster/json.h"
#include "doorbuster/redis.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define START_TIMEOUT_MS 30000
#define STOP_TIMEOUT_MS 30000
#define CALL_TIMEOUT_MS 15000
#define VERIFY_TIMEOUT_MS 60000
#define ARGUMENTS_MAX 24

void server_fixture_begin(struct server_fixture *fixture)
{
    *fixture = (struct server_fixture){0};
    assert_true(sodium_init() >= 0);
    prctl(PR_SET_CHILD_SUBREAPER, 1); /* what a killed supervisor leaves behind is ours to wait for */
    folder_make(fixture->folder);
    snprintf(fixture->data, sizeof fixture->data, "%s/data", fixture->folder);
    snprintf(fixture->log_path, sizeof fixture->log_path, "%s/log", fixture->folder);
    store_fixture_new(fixture->data, "doorbuster.db", fixture->store_url, sizeof fixture->store_url);
    if (store_fixture_is_postgres()) { /* the tools get it too: see program_start() */
        setenv("DATABASE_URL", fixture->store_url, 1);
    }
    fixture->jwt = jwt_new((const unsigned char *)SERVER_SECRET, strlen(SERVER_SECRET));
}

static char *read_log(const struct server_fixture *fixture)
{
    char *log = file_read(fixture->log_path);
    memmove(log, log + fixture->log_from, strlen(log) + 1 - (size_t)fixture->log_from);
    return log;
}

bool server_fixture_logged(const struct server_fixture *fixture, const char *text)
{
    char *log = read_log(fixture);
    bool found = strstr(log, text) != NULL;
    free(log);
    return found;
}

static void print_log(const struct server_fixture *fixture)
{
    char *log = read_log(fixture);
    print_message("--- the server's log ---\n%s--- end ---\n", log);
    free(log);
}

static bool read_port(struct server_fixture *fixture)
{
    char *log = read_log(fixture);
    const char *at = strstr(log, "ready on http");
    const char *port = at != NULL ? strchr(at, ',') : NULL;
    bool ready = port != NULL && strchr(port, '\n') != NULL;
    while (ready && *port != ':') {
        port--;
    }
    fixture->port = ready ? (uint16_t)strtoul(port + 1, NULL, 10) : 0;
    free(log);
    return ready;
}

void server_fixture_start(struct server_fixture *fixture, unsigned workers, const char *const *arguments,
                          const char *const *environment)
{
    char workers_text[8], listen_text[24];
    const char *argv[ARGUMENTS_MAX] = {program_path("server"), "--listen",  listen_text, "--data",
                                       fixture->data,          "--workers", workers_text};
    /* Long enough for a process that a test stops on purpose, on a busy machine too. */
    const char *variables[ARGUMENTS_MAX] = {"JWT_SECRET_KEY=" SERVER_SECRET, "DOORBUSTER_HANG_TIMEOUT=60",
                                            "DOORBUSTER_RATE_LIMITS=off"};
    size_t argc = 7;
    snprintf(workers_text, sizeof workers_text, "%u", workers);
    snprintf(listen_text, sizeof listen_text, "127.0.0.1:%u", (unsigned)fixture->wanted_port);
    for (size_t i = 0; arguments != NULL && arguments[i] != NULL; i++) {
        argv[argc++] = arguments[i];
    }
    for (size_t i = 0; environment != NULL && environment[i] != NULL; i++) {
        variables[i + 3] = environment[i];
    }
    int log_fd = open(fixture->log_path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    assert_true(log_fd >= 0);
    fixture->log_from = lseek(log_fd, 0, SEEK_END);
    fixture->workers = workers;
    fixture->pid = program_start(argv, variables, log_fd, log_fd);
    close(log_fd);
    int64_t deadline = deadline_in(START_TIMEOUT_MS);
    while (!read_port(fixture)) {
        int status;
        if (waitpid(fixture->pid, &status, WNOHANG) == fixture->pid) {
            fixture->pid = 0;
            print_log(fixture);
            fail_msg("the server ended before it was ready (status %#x)", (unsigned)status);
        }
        assert_true(wait_a_moment(deadline));
    }
}

/* --- processes
 * ----------------------------------------------------------------------------------------------------------------
 */
size_t server_fixture_children(const struct server_fixture *fixture, pid_t *pids, size_t max)
{
    char path[64], text[1024] = "";
    snprintf(path, sizeof path, "/proc/%d/task/%d/children", (int)fixture->pid, (int)fixture->pid);
    FILE *file = fopen(path, "r");
    if (file == NULL) {
        return 0;
    }
    text[fread(text, 1, sizeof text - 1, file)] = '\0';
    fclose(file);
    size_t count = 0;
    char *end;
    for (char *at = text; count < max; at = end) {
        long pid = strtol(at, &end, 10);
        if (end == at) {
            break;
        }
        pids[count++] = (pid_t)pid;
    }
    return count;
}

static bool has_title(pid_t pid, const char *title)
{
    char path[64], text[256] = "";
    snprintf(path, sizeof path, "/proc/%d/cmdline", (int)pid);
    FILE *file = fopen(path, "r");
    if (file == NULL) {
        return false;
    }
    text[fread(text, 1, sizeof text - 1, file)] = '\0';
    fclose(file);
    return strncmp(text, title, strlen(title)) == 0;
}

size_t server_fixture_find(const struct server_fixture *fixture, const char *title, pid_t *pids, size_t max)
{
    pid_t all[SERVER_CHILDREN_MAX];
    size_t count = server_fixture_children(fixture, all, SERVER_CHILDREN_MAX), found = 0;
    for (size_t i = 0; i < count; i++) {
        if (has_title(all[i], title) && found < max) {
            pids[found++] = all[i];
        }
    }
    return found;
}

const char *server_fixture_bookkeeper(void)
{
    return gate_is_redlock() ? "doorbuster: keeper" : "doorbuster: recorder";
}

size_t server_fixture_family(unsigned workers)
{
    return workers + 1 + (gate_is_redlock() ? GATE_NODES_SPAWNED : 1);
}

pid_t server_fixture_child(const struct server_fixture *fixture, const char *title)
{
    pid_t pids[2];
    int64_t deadline = deadline_in(START_TIMEOUT_MS);
    while (server_fixture_find(fixture, title, pids, 2) != 1) {
        if (!wait_a_moment(deadline)) {
            fail_msg("there is not one child \"%s\"", title);
        }
    }
    return pids[0];
}

static bool is_gone(pid_t pid)
{
    waitpid(pid, NULL, WNOHANG); /* if it is an orphan of ours by now */
    return kill(pid, 0) != 0 && errno == ESRCH;
}

bool server_fixture_wait_gone(const pid_t *pids, size_t count, int timeout_ms)
{
    int64_t deadline = deadline_in(timeout_ms);
    for (size_t i = 0; i < count;) {
        if (is_gone(pids[i])) {
            i++;
        } else if (!wait_a_moment(deadline)) {
            return false;
        }
    }
    return true;
}

void server_fixture_kill_supervisor(struct server_fixture *fixture)
{
    kill(fixture->pid, SIGKILL);
    waitpid(fixture->pid, NULL, 0);
    fixture->pid = 0;
}

static void check_log(const struct server_fixture *fixture)
{
    static const char *const bugs[] = {"Sanitizer",   "runtime error:", "doorbuster: bug:",     "(signal 6)",
                                       "(signal 11)", "by a signal",    "does not end; killing"};
    for (size_t i = 0; i < sizeof bugs / sizeof bugs[0] && !fixture->bug_lines_allowed; i++) {
        if (server_fixture_logged(fixture, bugs[i])) {
            print_log(fixture);
            fail_msg("the server's log has \"%s\"", bugs[i]);
        }
    }
}

void server_fixture_stop(struct server_fixture *fixture)
{
    pid_t children[SERVER_CHILDREN_MAX];
    size_t count = server_fixture_children(fixture, children, SERVER_CHILDREN_MAX);
    pid_t pid = fixture->pid;
    assert_true(pid > 0);
    kill(pid, SIGTERM);
    int64_t deadline = deadline_in(STOP_TIMEOUT_MS);
    int status;
    while (waitpid(pid, &status, WNOHANG) == 0) {
        assert_true(wait_a_moment(deadline));
    }
    fixture->pid = 0;
    check_log(fixture);
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) {
        print_log(fixture);
        fail_msg("the server ended with status %#x", (unsigned)status);
    }
    for (size_t i = 0; i < count; i++) {
        assert_true(is_gone(children[i]));
    }
}

/* A failed test: nothing of its server may stay. */
static void put_down(struct server_fixture *fixture)
{
    pid_t children[SERVER_CHILDREN_MAX];
    size_t count = server_fixture_children(fixture, children, SERVER_CHILDREN_MAX);
    print_log(fixture);
    server_fixture_kill_supervisor(fixture);
    for (size_t i = 0; i < count; i++) {
        kill(children[i], SIGKILL);
    }
    server_fixture_wait_gone(children, count, STOP_TIMEOUT_MS);
}

void server_fixture_end(struct server_fixture *fixture)
{
    if (fixture->pid > 0) {
        put_down(fixture);
    }
    jwt_free(&fixture->jwt);
    folder_remove(fixture->folder);
}

/* --- people and products
 * ----------------------------------------------------------------------------------------------------------
 */
int64_t server_fixture_add_users(const struct server_fixture *fixture, size_t count)
{
    struct store *store;
    char error[512];
    int64_t first = 0;
    assert_int_equal(store_open(&store, fixture->store_url, STORE_WRITER, error, sizeof error), STORE_OK);
    static unsigned serial;
    for (size_t i = 0; i < count; i++) {
        struct store_user user = {.role = USER_BUYER, .password_hash = "none"};
        snprintf(user.username, sizeof user.username, "buyer-%u-%u", (unsigned)getpid(), serial++);
        assert_int_equal(store_add_user(store, &user), STORE_OK);
        first = first != 0 ? first : user.id;
        assert_int_equal(user.id, first + (int64_t)i);
    }
    store_close(&store);
    return first;
}

void server_fixture_token(const struct server_fixture *fixture, int64_t user_id, enum user_role role,
                          char out[JWT_TOKEN_BYTES_MAX])
{
    struct jwt_claims claims = {
        .user_id = user_id, .role = role, .issued_at_s = time(NULL), .expires_at_s = time(NULL) + 3600};
    snprintf(claims.username, sizeof claims.username, "buyer-%" PRId64, user_id);
    jwt_sign(fixture->jwt, &claims, out);
}

/* One try; http_answer_free() in any case. */
static enum http_client_result try_call(const struct server_fixture *fixture, const char *method,
                                        const char *target, const char *body, struct http_answer *answer)
{
    char token[JWT_TOKEN_BYTES_MAX], headers[JWT_TOKEN_BYTES_MAX + 64];
    struct http_client client = {.fd = -1, .host = "127.0.0.1", .port = fixture->port};
    server_fixture_token(fixture, 1, USER_ADMIN, token);
    snprintf(headers, sizeof headers, "Authorization: Bearer %s\r\n%s", token,
             body ? "Content-Type: application/json\r\n" : "");
    enum http_client_result result =
        http_client_call(&client, method, target, headers, body, answer, CALL_TIMEOUT_MS);
    http_client_close(&client);
    return result;
}

static struct http_answer call(const struct server_fixture *fixture, const char *method, const char *target,
                               const char *body)
{
    struct http_answer answer;
    int64_t deadline = deadline_in(CALL_TIMEOUT_MS);
    /* A worker that was just killed takes its connections with it: only a GET is asked again. */
    while (try_call(fixture, method, target, body, &answer) != HTTP_CLIENT_OK) {
        http_answer_free(&answer);
        assert_true(body == NULL && wait_a_moment(deadline));
    }
    return answer;
}

static void write_product(char *body, size_t room, int64_t stock, int64_t limit)
{
    static unsigned serial;
    char limit_text[64] = "";
    if (limit > 0) {
        snprintf(limit_text, sizeof limit_text, ",\"per_customer_limit\":%" PRId64, limit);
    }
    snprintf(body, room, "{\"name\":\"product %u\",\"price\":500,\"stock\":%" PRId64 "%s}", ++serial, stock,
             limit_text);
}

static int64_t read_id(const struct http_answer *answer)
{
    cJSON *json = json_parse_object(answer->body, answer->body_bytes);
    int64_t id;
    assert_int_equal(json_get_integer(json, "id", 1, JSON_INTEGER_MAX, &id), JSON_FIELD_OK);
    cJSON_Delete(json);
    return id;
}

static int64_t try_product(const struct server_fixture *fixture, const char *body)
{
    struct http_answer answer;
    bool added =
        try_call(fixture, "POST", "/api/products", body, &answer) == HTTP_CLIENT_OK && answer.status == 201;
    int64_t id = added ? read_id(&answer) : 0;
    http_answer_free(&answer);
    return id;
}

int64_t server_fixture_try_product(const struct server_fixture *fixture, int64_t stock, int64_t limit)
{
    char body[256];
    write_product(body, sizeof body, stock, limit);
    return try_product(fixture, body);
}

int64_t server_fixture_try_bundle(const struct server_fixture *fixture, int64_t price,
                                  const struct bundle_component *components, size_t count)
{
    static unsigned serial;
    char body[1024];
    int used = snprintf(body, sizeof body, "{\"name\":\"bundle %u\",\"price\":%" PRId64 ",\"components\":[",
                        ++serial, price);
    for (size_t i = 0; i < count; i++) {
        used += snprintf(body + used, sizeof body - (size_t)used,
                         "%s{\"product_id\":%" PRId64 ",\"quantity\":%" PRId64 "}", i > 0 ? "," : "",
                         components[i].product_id, components[i].quantity);
        assert_in_range(used, 1, sizeof body - 4);
    }
    snprintf(body + used, sizeof body - (size_t)used, "]}");
    return try_product(fixture, body);
}

int64_t server_fixture_add_product(const struct server_fixture *fixture, int64_t stock, int64_t limit)
{
    char body[256];
    write_product(body, sizeof body, stock, limit);
    struct http_answer answer = call(fixture, "POST", "/api/products", body);
    if (answer.status != 201) {
        fail_msg("POST /api/products: %d %s", answer.status, answer.body);
    }
    int64_t id = read_id(&answer);
    http_answer_free(&answer);
    return id;
}

void server_fixture_restock(const struct server_fixture *fixture, int64_t product, int64_t delta)
{
    char target[64], body[64];
    snprintf(target, sizeof target, "/api/admin/products/%" PRId64 "/stock", product);
    snprintf(body, sizeof body, "{\"delta\":%" PRId64 ",\"reason\":\"a pallet\"}", delta);
    struct http_answer answer = call(fixture, "POST", target, body);
    if (answer.status != 200) {
        fail_msg("POST %s: %d %s", target, answer.status, answer.body);
    }
    http_answer_free(&answer);
}

int server_fixture_get(const struct server_fixture *fixture, const char *target, char *body, size_t room)
{
    struct http_answer answer;
    bool answered = try_call(fixture, "GET", target, NULL, &answer) == HTTP_CLIENT_OK;
    int status = answered ? answer.status : 0;
    if (body != NULL) {
        snprintf(body, room, "%s", answered ? answer.body : "");
    }
    http_answer_free(&answer);
    return status;
}

/* The value of a line `name{labels} value` or `name value`, if it is one of this name with these labels among its own; else 0. */
static double sample_in(const char *line, size_t bytes, const char *name, const char *label, bool *found)
{
    size_t name_bytes = strlen(name);
    const char *labels = line + name_bytes, *end = line + bytes, *value = end;
    if (bytes <= name_bytes || strncmp(line, name, name_bytes) != 0 || (*labels != '{' && *labels != ' ')) {
        return 0;
    }
    while (value[-1] != ' ') {
        value--;
    }
    const char *at = strstr(labels, label);
    if (at == NULL || at >= value) {
        return 0;
    }
    *found = true;
    return strtod(value, NULL);
}

double server_fixture_sample(const struct server_fixture *fixture, const char *name, const char *label)
{
    char full[128];
    struct http_answer answer = call(fixture, "GET", "/metrics", NULL);
    double sum = 0;
    bool found = false, is_known = false;
    snprintf(full, sizeof full, "\n# TYPE doorbuster_%s ", name);
    is_known = strstr(answer.body, full) != NULL;
    snprintf(full, sizeof full, "doorbuster_%s", name);
    for (const char *line = answer.body; *line != '\0'; line += strspn(line, "\n")) {
        size_t bytes = strcspn(line, "\n");
        sum += sample_in(line, bytes, full, label, &found);
        line += bytes;
    }
    http_answer_free(&answer);
    if (!found && !is_known) {
        fail_msg("/metrics has no %s", name);
    }
    return sum;
}

int64_t server_fixture_metric(const struct server_fixture *fixture, const char *name)
{
    char full[128];
    snprintf(full, sizeof full, "%s_total", name);
    return (int64_t)server_fixture_sample(fixture, full, "");
}

void server_fixture_verify(const struct server_fixture *fixture, int exit_code)
{
    const char *const argv[] = {program_path("verify"), "--data", fixture->data, NULL};
    struct run_result result = program_run(argv, NULL, VERIFY_TIMEOUT_MS);
    if (result.exit_code != exit_code) {
        print_message("%s%s", result.out, result.err);
        fail_msg("verify exited with %d, not %d", result.exit_code, exit_code);
    }
    run_result_free(&result);
}

struct redisContext *server_fixture_redis(const struct server_fixture *fixture)
{
    struct redis_address address = {0};
    char error[512];
    snprintf(address.path, sizeof address.path, "%s/redis.sock", fixture->data);
    redisContext *redis = redis_connect_blocking(&address, 5000, error, sizeof error);
    if (redis == NULL) {
        fail_msg("%s", error);
    }
    return redis;
}

static int64_t orders_in_store(const struct server_fixture *fixture)
{
    struct store *store;
    struct store_position position;
    char error[512];
    assert_int_equal(store_open(&store, fixture->store_url, STORE_READER, error, sizeof error), STORE_OK);
    assert_int_equal(store_position(store, &position), STORE_OK);
    store_close(&store);
    return position.last_order_id;
}

int64_t server_fixture_orders_given(const struct server_fixture *fixture)
{
    if (gate_is_redlock()) {
        return orders_in_store(fixture);
    }
    redisContext *redis = server_fixture_redis(fixture);
    redisReply *reply = redis_ask(redis, "HGET {doorbuster}:head orders");
    assert_non_null(reply);
    int64_t orders = strtoll(reply->str, NULL, 10);
    freeReplyObject(reply);
    redisFree(redis);
    return orders;
}
