/* The HTTP front against real sockets. Each test forks a server process (before that process has used any
 * library) on a loopback socket and talks to it with tests/support/http_client. A server ends by SIGTERM and
 * must exit 0: with every handle closed, every connection gone and, under the address sanitizer, nothing
 * leaked. */
#include "http_client.h"

#include "doorbuster/check.h"
#include "doorbuster/http.h"
#include "doorbuster/json.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka wants the four above first */
#include <arpa/inet.h>
#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define PATIENCE_MS 5000
#define HELD_MAX 1024
#define SOON_MS 10
#define BODY_BYTES_MAX 65536
#define BIG_BYTES ((size_t)8 << 20)
#define LIST_READERS 16

/* --- the server process ------------------------------------------------------------------------------ */

struct options {
    unsigned head_ms, body_ms, idle_ms, connections_max;
    rlim_t descriptors_max; /* 0: as they are */
};

static const struct options patient = {10000, 10000, 10000, 1024, 0};

static struct {
    uv_loop_t loop;
    uv_prepare_t prepare;
    uv_timer_t timer, soon_timer;
    uv_signal_t terminate;
    struct http_server *server;
    struct http_response *prebuilt;
    struct http_request *held[HELD_MAX];
    size_t held_count;
    uint64_t held_since_ms;
    struct http_request *soon; /* the one that is replied to by soon_timer */
    char *big;
    unsigned long answered;
    long turns;
} child;

static void now_handler(struct http_request *request, void *context)
{
    (void)context;
    http_reply_bytes(request, 200, HTTP_TYPE_JSON, "{\"now\":true}", 12);
}

static void prebuilt_handler(struct http_request *request, void *context)
{
    (void)context;
    http_reply_prebuilt(request, child.prebuilt);
}

static void echo_handler(struct http_request *request, void *context)
{
    size_t bytes;
    const char *body = http_request_body(request, &bytes);
    (void)context;
    http_reply_bytes(request, 200, "text/plain", body, bytes);
}

static void reply_facts(struct http_request *request)
{
    cJSON *facts = cJSON_CreateObject();
    const char *query = http_request_query(request, "q"), *header = http_request_header(request, "x-TEST");
    if (query)
        (void)cJSON_AddStringToObject(facts, "q", query);
    if (header)
        (void)cJSON_AddStringToObject(facts, "header", header);
    (void)cJSON_AddBoolToObject(facts, "is_json", http_request_is_media_type(request, HTTP_TYPE_JSON));
    http_reply_header(request, "X-First", "one");
    http_reply_header(request, "X-Second", "two");
    http_reply_json(request, 200, facts);
}

static void facts_handler(struct http_request *request, void *context)
{
    (void)context;
    memset(http_request_alloc(request, 60000), 1, 60000);
    reply_facts(request);
}

static void id_handler(struct http_request *request, void *context)
{
    char *text = http_request_alloc(request, 32);
    (void)context;
    int bytes = snprintf(text, 32, "id %lld", (long long)http_request_path_id(request));
    http_reply_bytes(request, 200, "text/plain", text, (size_t)bytes);
}

static void text_handler(struct http_request *request, void *context)
{
    const char *text = http_request_path_text(request);
    (void)context;
    http_reply_bytes(request, 200, "text/plain", text, strlen(text));
}

static void me_handler(struct http_request *request, void *context)
{
    (void)context;
    http_reply_bytes(request, 200, "text/plain", "me", 2);
}

static void big_handler(struct http_request *request, void *context)
{
    (void)context;
    http_reply_bytes(request, 200, "text/plain", child.big, BIG_BYTES);
}

static void problem_handler(struct http_request *request, void *context)
{
    static const struct http_problem problem = {409, "test-problem", "Test problem", "A test."};
    cJSON *extensions = cJSON_CreateObject();
    (void)context;
    (void)cJSON_AddNumberToObject(extensions, "product_id", 7);
    (void)cJSON_AddStringToObject(extensions, "note", "\"quoted\"");
    http_reply_header(request, "Retry-After", "3");
    http_reply_problem(request, &problem, extensions, "bad \xff \"%s\" \n", http_request_query(request, "q"));
}

static void hold_handler(struct http_request *request, void *context)
{
    (void)context;
    CHECK(child.held_count < HELD_MAX);
    if (child.held_count == 0)
        child.held_since_ms = uv_now(&child.loop);
    child.held[child.held_count++] = request;
}

/* As a list that many look at: made for this moment, gone in the next. */
static void list_handler(struct http_request *request, void *context)
{
    hold_handler(request, context);
    if (child.held_count < LIST_READERS)
        return;
    struct http_response *list = http_response_new(200, "text/plain", child.big, BIG_BYTES);
    for (size_t i = 0; i < child.held_count; i++)
        http_reply_prebuilt(child.held[i], list);
    child.held_count = 0;
    http_response_free(&list);
}

static void release(void)
{
    size_t count = child.held_count;
    child.held_count = 0;
    for (size_t i = 0; i < count; i++)
        reply_facts(child.held[i]);
}

static void release_cb(uv_timer_t *timer)
{
    (void)timer;
    release();
}

static void later_handler(struct http_request *request, void *context)
{
    hold_handler(request, context);
    (void)uv_timer_start(&child.timer, release_cb, 10, 0);
}

static void soon_cb(uv_timer_t *timer)
{
    struct http_request *request = child.soon;
    (void)timer;
    child.soon = NULL;
    now_handler(request, NULL);
}

static void soon_handler(struct http_request *request, void *context)
{
    (void)context;
    CHECK(!child.soon);
    child.soon = request;
    (void)uv_timer_start(&child.soon_timer, soon_cb, SOON_MS, 0);
}

static void release_handler(struct http_request *request, void *context)
{
    (void)context;
    if (http_request_query(request, "by_timer"))
        (void)uv_timer_start(&child.timer, release_cb, 1, 0);
    else
        release();
    now_handler(request, context);
}

static void state_handler(struct http_request *request, void *context)
{
    cJSON *state = cJSON_CreateObject();
    (void)context;
    (void)cJSON_AddNumberToObject(state, "held", (double)child.held_count);
    (void)cJSON_AddNumberToObject(state, "pending", (double)http_server_pending(child.server));
    (void)cJSON_AddNumberToObject(state, "connections", (double)http_server_connections(child.server));
    (void)cJSON_AddNumberToObject(state, "held_ms", (double)(uv_now(&child.loop) - child.held_since_ms));
    (void)cJSON_AddNumberToObject(state, "answered", (double)child.answered);
    (void)cJSON_AddNumberToObject(state, "turns", (double)child.turns);
    http_reply_json(request, 200, state);
}

static const struct http_route routes[] = {
    {HTTP_GET, "/", "root", now_handler},
    {HTTP_GET, "/now", "now", now_handler},
    {HTTP_POST, "/prebuilt", "prebuilt", prebuilt_handler},
    {HTTP_POST, "/echo", "echo", echo_handler},
    {HTTP_PUT, "/echo", "echo", echo_handler},
    {HTTP_GET, "/facts", "facts", facts_handler},
    {HTTP_POST, "/facts", "facts", facts_handler},
    {HTTP_GET, "/items/{id}", "item", id_handler},
    {HTTP_DELETE, "/items/{id}", "item", id_handler},
    {HTTP_GET, "/items/me", "me", me_handler},
    {HTTP_GET, "/items/{id}/stock", "stock", id_handler},
    {HTTP_GET, "/names/{name}/x", "name", text_handler},
    {HTTP_GET, "/big", "big", big_handler},
    {HTTP_GET, "/list", "list", list_handler},
    {HTTP_GET, "/problem", "problem", problem_handler},
    {HTTP_GET, "/hold", "hold", hold_handler},
    {HTTP_POST, "/hold", "hold", hold_handler},
    {HTTP_GET, "/later", "later", later_handler},
    {HTTP_GET, "/soon", "soon", soon_handler},
    {HTTP_GET, "/release", "release", release_handler},
    {HTTP_GET, "/state", "state", state_handler},
};

static void answered_cb(void *context, int route, unsigned status, int64_t took_us)
{
    (void)context;
    CHECK(route >= -1 && route < (int)(sizeof routes / sizeof routes[0]));
    CHECK(status >= 200 && status < 600 && took_us >= 0);
    child.answered++;
}

static bool quiescing;

static void prepare_cb(uv_prepare_t *handle)
{
    child.turns++;
    http_server_turn(child.server);
    if (!quiescing || http_server_pending(child.server) > 0 || http_server_connections(child.server) > 0)
        return;
    http_server_free(&child.server);
    uv_close((uv_handle_t *)handle, NULL);
    uv_close((uv_handle_t *)&child.timer, NULL);
    uv_close((uv_handle_t *)&child.soon_timer, NULL);
    uv_close((uv_handle_t *)&child.terminate, NULL);
}

static void terminate_cb(uv_signal_t *handle, int number)
{
    (void)handle;
    (void)number;
    quiescing = true;
    http_server_quiesce(child.server);
}

static void serve(int listen_fd, const struct options *options, int ready_fd)
{
    char error[200];
    const struct http_settings settings = {.listen_fd = listen_fd,
                                           .connections_max = options->connections_max,
                                           .body_bytes_max = BODY_BYTES_MAX,
                                           .head_timeout_ms = options->head_ms,
                                           .body_timeout_ms = options->body_ms,
                                           .idle_timeout_ms = options->idle_ms,
                                           .routes = routes,
                                           .route_count = sizeof routes / sizeof routes[0],
                                           .answered_cb = answered_cb};

    child.big = malloc(BIG_BYTES);
    CHECK(child.big);
    memset(child.big, 'b', BIG_BYTES);
    child.prebuilt = http_response_new(400, HTTP_TYPE_PROBLEM, "{\"detail\":\"Insufficient stock\"}", 31);
    CHECK(uv_loop_init(&child.loop) == 0);
    child.server = http_server_new(&child.loop, &settings, error, sizeof error);
    CHECK(child.server);
    CHECK(uv_prepare_init(&child.loop, &child.prepare) == 0 &&
          uv_prepare_start(&child.prepare, prepare_cb) == 0);
    CHECK(uv_timer_init(&child.loop, &child.timer) == 0);
    CHECK(uv_timer_init(&child.loop, &child.soon_timer) == 0);
    CHECK(uv_signal_init(&child.loop, &child.terminate) == 0);
    CHECK(uv_signal_start(&child.terminate, terminate_cb, SIGTERM) == 0);
    if (options->descriptors_max > 0) {
        struct rlimit limit = {options->descriptors_max, 4096};
        CHECK(setrlimit(RLIMIT_NOFILE, &limit) == 0);
    }
    CHECK(write(ready_fd, "r", 1) == 1);
    (void)uv_run(&child.loop, UV_RUN_DEFAULT);
    CHECK(uv_loop_close(&child.loop) == 0);
    CHECK(fcntl(listen_fd, F_GETFD) >= 0); /* the caller's socket is still open */
    http_response_free(&child.prebuilt);
    free(child.big);
}

/* --- the fixture ------------------------------------------------------------------------------------- */

struct fixture {
    pid_t pid;
    int listen_fd;
    uint16_t port;
};

static int64_t now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static void start_on(struct fixture *fixture, const struct options *options)
{
    int ready[2];
    char byte;
    assert_int_equal(pipe(ready), 0);
    fflush(NULL);
    fixture->pid = fork();
    assert_true(fixture->pid >= 0);
    if (fixture->pid == 0) {
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL); /* a failed test leaves none behind */
        (void)close(ready[0]);
        serve(fixture->listen_fd, options, ready[1]);
        exit(0);
    }
    (void)close(ready[1]);
    assert_int_equal(read(ready[0], &byte, 1), 1);
    (void)close(ready[0]);
}

static void start(struct fixture *fixture, const struct options *options)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t bytes = sizeof address;
    fixture->listen_fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    assert_int_equal(bind(fixture->listen_fd, (struct sockaddr *)&address, sizeof address), 0);
    assert_int_equal(listen(fixture->listen_fd, 1024), 0);
    assert_int_equal(getsockname(fixture->listen_fd, (struct sockaddr *)&address, &bytes), 0);
    fixture->port = ntohs(address.sin_port);
    start_on(fixture, options);
}

static void wait_exit(struct fixture *fixture)
{
    int status = 0;
    int64_t deadline_ms = now_ms() + PATIENCE_MS;
    pid_t pid;
    while ((pid = waitpid(fixture->pid, &status, WNOHANG)) == 0 && now_ms() < deadline_ms)
        (void)poll(NULL, 0, 5);
    if (pid == 0) {
        (void)kill(fixture->pid, SIGKILL);
        (void)waitpid(fixture->pid, &status, 0);
        fail_msg("the server did not end");
    }
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
}

static void stop(struct fixture *fixture)
{
    assert_int_equal(kill(fixture->pid, SIGTERM), 0);
    wait_exit(fixture);
    (void)close(fixture->listen_fd);
}

static struct http_client open_client(const struct fixture *fixture)
{
    struct http_client client;
    assert_int_equal(http_client_open(&client, "127.0.0.1", fixture->port, PATIENCE_MS), HTTP_CLIENT_OK);
    return client;
}

static void send_text(struct http_client *client, const char *text)
{
    assert_int_equal(http_client_send(client, text, strlen(text), PATIENCE_MS, NULL), HTTP_CLIENT_OK);
}

static void expect_answer(struct http_client *client, int status, const char *body)
{
    struct http_answer answer;
    assert_int_equal(http_client_read(client, &answer, PATIENCE_MS), HTTP_CLIENT_OK);
    if (answer.status != status)
        print_error("%s%s\n", answer.head, answer.body);
    assert_int_equal(answer.status, status);
    if (body)
        assert_string_equal(answer.body, body);
    http_answer_free(&answer);
}

/* One request on a connection of its own. */
static void expect_call(const struct fixture *fixture, const char *method, const char *target,
                        const char *body, int status, const char *answer_body)
{
    struct http_client client = open_client(fixture);
    struct http_answer answer;
    assert_int_equal(http_client_call(&client, method, target, NULL, body, &answer, PATIENCE_MS),
                     HTTP_CLIENT_OK);
    if (answer.status != status)
        print_error("%s %s: %s%s\n", method, target, answer.head, answer.body);
    assert_int_equal(answer.status, status);
    if (answer_body)
        assert_string_equal(answer.body, answer_body);
    http_answer_free(&answer);
    http_client_close(&client);
}

static void expect_header(const struct http_answer *answer, const char *name, const char *value)
{
    char given[256];
    const char *found = http_answer_header(answer, name, given, sizeof given);
    if (!value) {
        assert_null(found);
        return;
    }
    assert_non_null(found);
    assert_string_equal(given, value);
}

static double state_of(const struct fixture *fixture, const char *member)
{
    struct http_client client = open_client(fixture);
    struct http_answer answer;
    assert_int_equal(http_client_call(&client, "GET", "/state", NULL, NULL, &answer, PATIENCE_MS),
                     HTTP_CLIENT_OK);
    cJSON *state = cJSON_Parse(answer.body);
    double value = cJSON_GetNumberValue(cJSON_GetObjectItemCaseSensitive(state, member));
    cJSON_Delete(state);
    http_answer_free(&answer);
    http_client_close(&client);
    return value;
}

static void wait_state(const struct fixture *fixture, const char *member, double at_least)
{
    int64_t deadline_ms = now_ms() + PATIENCE_MS;
    while (state_of(fixture, member) < at_least) {
        assert_true(now_ms() < deadline_ms);
        (void)poll(NULL, 0, 2);
    }
}

static double processor_seconds(pid_t pid)
{
    char path[64];
    unsigned long long run_ns = 0;
    (void)snprintf(path, sizeof path, "/proc/%d/schedstat", (int)pid);
    FILE *file = fopen(path, "r");
    assert_non_null(file);
    assert_int_equal(fscanf(file, "%llu", &run_ns), 1);
    (void)fclose(file);
    return (double)run_ns / 1e9;
}

/* --- answers ----------------------------------------------------------------------------------------- */

static void test_answers_have_what_they_need(void **state)
{
    struct fixture fixture;
    struct http_answer answer;
    (void)state;
    start(&fixture, &patient);
    struct http_client client = open_client(&fixture);
    assert_int_equal(http_client_call(&client, "GET", "/now", NULL, NULL, &answer, PATIENCE_MS),
                     HTTP_CLIENT_OK);
    assert_int_equal(answer.status, 200);
    expect_header(&answer, "Content-Type", "application/json");
    expect_header(&answer, "Content-Length", "12");
    expect_header(&answer, "Cache-Control", "no-store");
    expect_header(&answer, "Connection", NULL);
    http_answer_free(&answer);
    assert_int_equal(http_client_call(&client, "POST", "/prebuilt", NULL, "{}", &answer, PATIENCE_MS),
                     HTTP_CLIENT_OK);
    assert_int_equal(answer.status, 400);
    assert_string_equal(answer.body, "{\"detail\":\"Insufficient stock\"}");
    expect_header(&answer, "Content-Type", "application/problem+json");
    expect_header(&answer, "Cache-Control", "no-store");
    http_answer_free(&answer);
    assert_int_equal(http_client_call(&client, "POST", "/facts?q=a%20b%26+c&z",
                                      "X-Test:  v w\r\nContent-Type: Application/JSON; charset=utf-8\r\n",
                                      "{}", &answer, PATIENCE_MS),
                     HTTP_CLIENT_OK);
    assert_string_equal(answer.body, "{\"q\":\"a b& c\",\"header\":\"v w\",\"is_json\":true}");
    expect_header(&answer, "X-First", "one");
    expect_header(&answer, "X-Second", "two");
    http_answer_free(&answer);
    assert_int_equal(http_client_call(&client, "GET", "/later?q=x", NULL, NULL, &answer, PATIENCE_MS),
                     HTTP_CLIENT_OK);
    assert_string_equal(answer.body, "{\"q\":\"x\",\"is_json\":true}");
    http_answer_free(&answer);
    http_client_close(&client);
    assert_true(state_of(&fixture, "answered") >= 4);
    stop(&fixture);
}

static void test_routes(void **state)
{
    struct fixture fixture;
    (void)state;
    start(&fixture, &patient);
    expect_call(&fixture, "GET", "/", NULL, 200, NULL);
    expect_call(&fixture, "GET", "/now/", NULL, 200, NULL);
    expect_call(&fixture, "GET", "/now?x=1", NULL, 200, NULL);
    expect_call(&fixture, "GET", "http://shop.example/items/12", NULL, 200, "id 12");
    expect_call(&fixture, "GET", "/items/7", NULL, 200, "id 7");
    expect_call(&fixture, "GET", "/items/%37/", NULL, 200, "id 7");
    expect_call(&fixture, "DELETE", "/items/9007199254740991", NULL, 200, "id 9007199254740991");
    expect_call(&fixture, "GET", "/items/me", NULL, 200, "me");
    expect_call(&fixture, "GET", "/items/3/stock", NULL, 200, "id 3");
    expect_call(&fixture, "GET", "/names/caf%C3%A9/x", NULL, 200, "caf\xc3\xa9");
    static const char *const missing[] = {"/items/9007199254740992",
                                          "/items/0",
                                          "/items/-1",
                                          "/items/+1",
                                          "/items/01",
                                          "/items/1x",
                                          "/items/",
                                          "/items",
                                          "/items//",
                                          "//now",
                                          "/now//",
                                          "/nowhere",
                                          "/items/1%2Fstock",
                                          "/items/1%2f",
                                          "/names//x",
                                          "/a/b/c/d/e/f/g/h/i/j",
                                          "*",
                                          "now",
                                          "/NOW",
                                          "/items/%20",
                                          "/items/99999999999999999999"};
    for (size_t i = 0; i < sizeof missing / sizeof missing[0]; i++)
        expect_call(&fixture, "GET", missing[i], NULL, 404, NULL);
    stop(&fixture);
}

static void test_methods(void **state)
{
    struct fixture fixture;
    struct http_answer answer;
    static const struct {
        const char *method, *target, *allow;
    } cases[] = {{"POST", "/now", "GET, HEAD"},
                 {"GET", "/echo", "POST, PUT"},
                 {"OPTIONS", "/items/5", "GET, HEAD, DELETE"},
                 {"PATCH", "/items/5", "GET, HEAD, DELETE"},
                 {"get", "/now", "GET, HEAD"},
                 {"BREW", "/hold", "GET, HEAD, POST"}};
    (void)state;
    start(&fixture, &patient);
    struct http_client client = open_client(&fixture);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        assert_int_equal(
            http_client_call(&client, cases[i].method, cases[i].target, NULL, "", &answer, PATIENCE_MS),
            HTTP_CLIENT_OK);
        assert_int_equal(answer.status, 405);
        expect_header(&answer, "Allow", cases[i].allow);
        expect_header(&answer, "Content-Type", "application/problem+json");
        expect_header(&answer, "Connection", NULL);
        http_answer_free(&answer);
    }
    expect_call(&fixture, "BREW", "/pot", NULL, 404, NULL);
    expect_call(&fixture, "CONNECT", "shop.example:443", NULL, 404, NULL);
    /* HEAD: the head of GET, and nothing after it */
    assert_int_equal(http_client_call(&client, "HEAD", "/now", NULL, NULL, &answer, PATIENCE_MS),
                     HTTP_CLIENT_OK);
    assert_int_equal(answer.status, 200);
    expect_header(&answer, "Content-Length", "12");
    http_answer_free(&answer);
    assert_int_equal(http_client_call(&client, "HEAD", "/later", NULL, NULL, &answer, PATIENCE_MS),
                     HTTP_CLIENT_OK);
    http_answer_free(&answer);
    assert_int_equal(http_client_call(&client, "GET", "/now", NULL, NULL, &answer, PATIENCE_MS),
                     HTTP_CLIENT_OK);
    assert_string_equal(answer.body, "{\"now\":true}");
    http_answer_free(&answer);
    http_client_close(&client);
    stop(&fixture);
}

static void test_problems_are_json_whatever_is_in_them(void **state)
{
    struct fixture fixture;
    struct http_client client;
    struct http_answer answer;
    (void)state;
    start(&fixture, &patient);
    client = open_client(&fixture);
    assert_int_equal(
        http_client_call(&client, "GET", "/problem?q=%22%5C%00x", NULL, NULL, &answer, PATIENCE_MS),
        HTTP_CLIENT_OK);
    assert_int_equal(answer.status, 409);
    assert_string_equal(
        answer.body,
        "{\"type\":\"/problems/test-problem\",\"title\":\"Test problem\",\"status\":409,\"detail\":"
        "\"bad ? \\\"\\\"\\\\\\\" ?\",\"product_id\":7,\"note\":\"\\\"quoted\\\"\"}");
    expect_header(&answer, "Retry-After", "3");
    http_answer_free(&answer);
    /* raw bytes, escapes, a long path cut in the middle of a character */
    char target[1024] = "/\xff%ff%e2%82%ac%22%5c%01<";
    for (size_t used = strlen(target); used < 900; used += 6)
        memcpy(target + used, "%c3%a9", 7);
    assert_int_equal(http_client_call(&client, "GET", target, NULL, NULL, &answer, PATIENCE_MS),
                     HTTP_CLIENT_OK);
    assert_int_equal(answer.status, 404);
    cJSON *problem = json_parse_object(answer.body, answer.body_bytes);
    assert_non_null(problem);
    const char *detail = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(problem, "detail"));
    assert_memory_equal(detail, "GET /\?\?\xe2\x82\xac\"\\?<\xc3\xa9", 16);
    assert_true(strlen(detail) < 230);
    cJSON_Delete(problem);
    http_answer_free(&answer);
    http_client_close(&client);
    stop(&fixture);
}

/* --- hostile heads ----------------------------------------------------------------------------------- */

#define H "Host: a\r\n"

static void expect_refusal(const struct fixture *fixture, const char *text, int status, bool by_us)
{
    struct http_client client = open_client(fixture);
    struct http_answer answer;
    send_text(&client, text);
    enum http_client_result result = http_client_read(&client, &answer, PATIENCE_MS);
    if (result != HTTP_CLIENT_OK || answer.status != status)
        print_error("%.300s\n", text);
    assert_int_equal(result, HTTP_CLIENT_OK);
    assert_int_equal(answer.status, status);
    assert_true(answer.closes);
    if (by_us) {
        expect_header(&answer, "Content-Type", "application/problem+json");
        cJSON *problem = json_parse_object(answer.body, answer.body_bytes);
        assert_non_null(problem);
        cJSON_Delete(problem);
    }
    http_answer_free(&answer);
    enum http_client_result end = http_client_wait_closed(&client, PATIENCE_MS);
    assert_true(end == HTTP_CLIENT_CLOSED || end == HTTP_CLIENT_BROKEN);
    http_client_close(&client);
}

static void test_heads_that_are_refused(void **state)
{
    struct fixture fixture;
    static const struct {
        const char *text;
        int status;
        bool by_us;
    } cases[] = {
        {"POST /echo HTTP/1.1\r\n" H "Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n", 400,
         true},
        {"POST /echo HTTP/1.1\r\n" H "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400,
         true},
        {"POST /echo HTTP/1.1\r\n" H
         "Content-Length: 3\r\ncontent-length: 30\r\n\r\nabcGET /now HTTP/1.1\r\n",
         400, true},
        {"POST /echo HTTP/1.1\r\n" H "Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc", 400, true},
        {"POST /echo HTTP/1.1\r\n" H "Transfer-Encoding: gzip\r\n\r\nabc", 400, true},
        {"POST /echo HTTP/1.1\r\n" H "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 400, true},
        {"POST /echo HTTP/1.1\r\n" H
         "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
         400, true},
        {"POST /echo HTTP/1.1\r\n" H "Transfer-Encoding: \r\n\r\n", 400, true},
        {"POST /echo HTTP/1.0\r\n" H "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400, true},
        /* With what is behind it, libmicrohttpd asks for the answer when it does not take one. */
        {"GET /now HTTP/1.1\r\n" H "Expect: 100-continue\r\n\r\nGET", 400, true},
        {"POST /echo HTTP/1.1\r\n" H "Expect: 100-continue\r\nContent-Length: 0\r\n\r\nGET", 400, true},
        {"POST /echo HTTP/1.1\r\n" H "Content-Length : 3\r\n\r\nabc", 400, true},
        {"POST /echo HTTP/1.1\r\n" H " Content-Length: 3\r\nX: y\r\n\r\n", 400, true}, /* folded lines */
        {"POST /echo HTTP/1.1\r\n" H "Transfer-Encod: chunked\r\n ing\r\n\r\n", 400, true},
        {"POST /echo HTTP/1.1\r\n" H "X: y\r\n z\r\n\r\n", 400, true},
        {"GET /now HTTP/1.1\r\n" H "X Y: z\r\n\r\n", 400, true},
        {"GET /now HTTP/1.1\r\n\r\n", 400, true},
        {"GET /now HTTP/1.1\r\n" H H "\r\n", 400, true},
        {"GET /now%zz HTTP/1.1\r\n" H "\r\n", 400, true},
        {"GET /now% HTTP/1.1\r\n" H "\r\n", 400, true},
        {"GET /now%0 HTTP/1.1\r\n" H "\r\n", 400, true},
        {"GET /now%00 HTTP/1.1\r\n" H "\r\n", 400, true},
        {"GET /items/5%00x HTTP/1.1\r\n" H "\r\n", 400, true},
        {"GET /now\x01 HTTP/1.1\r\n" H "\r\n", 400, true},
        {"GET /now and then HTTP/1.1\r\n" H "\r\n", 400, true},
        /* libmicrohttpd refuses these on its own */
        {"GET /now HTTP/3.0\r\n" H "\r\n", 505, false},
        {"GET /now HTTP/0.9\r\n" H "\r\n", 505, false},
        {"GET /now\r\n" H "\r\n", 400, false},
        {"GET /now FTP/1.1\r\n" H "\r\n", 400, false},
        {"GET /now HTTP/1.1\r\n" H "no colon\r\n\r\n", 400, false},
        {"POST /echo HTTP/1.1\r\n" H "Content-Length: -1\r\n\r\n", 400, false},
        {"POST /echo HTTP/1.1\r\n" H "Content-Length: +1\r\n\r\n", 400, false},
        {"POST /echo HTTP/1.1\r\n" H "Content-Length: 0x10\r\n\r\n", 400, false},
        {"POST /echo HTTP/1.1\r\n" H "Content-Length: 1, 1\r\n\r\n", 400, false},
        {"POST /echo HTTP/1.1\r\n" H "Content-Length: \r\n\r\n", 400, false},
        {"POST /echo HTTP/1.1\r\n" H "Content-Length: 99999999999999999999\r\n\r\n", 413, false},
        {"POST /echo HTTP/1.1\r\n" H "Transfer-Encoding: chunked\r\n\r\nzz\r\n", 400, false},
        {"POST /echo HTTP/1.1\r\n" H "Transfer-Encoding: chunked\r\n\r\n-1\r\n", 400, false},
        {"POST /echo HTTP/1.1\r\n" H "Transfer-Encoding: chunked\r\n\r\n2\r\nabX\r\n", 400, false},
        {"POST /echo HTTP/1.1\r\n" H "Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n", 413, false},
    };
    (void)state;
    start(&fixture, &patient);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        expect_refusal(&fixture, cases[i].text, cases[i].status, cases[i].by_us);
    stop(&fixture);
    static const struct options strict = {300, 300, 300, 1024, 0};
    start(&fixture, &strict);
    /* nothing of these is answered: not HTTP at all, or gone */
    static const char *const silent[] = {" / HTTP/1.1\r\n\r\n", "GET\r\n\r\n", "\r\n\r\n\r\n",
                                         "GET /now HTTP/1.1\r\nHost: a\r\n"};
    for (size_t i = 0; i < sizeof silent / sizeof silent[0]; i++) {
        struct http_client client = open_client(&fixture);
        send_text(&client, silent[i]);
        assert_int_equal(shutdown(client.fd, SHUT_WR), 0);
        assert_int_not_equal(http_client_wait_closed(&client, PATIENCE_MS), HTTP_CLIENT_TIMEOUT);
        http_client_close(&client);
    }
    expect_call(&fixture, "GET", "/now", NULL, 200, NULL);
    stop(&fixture);
}

static char *long_head(size_t uri_bytes, size_t header_bytes, size_t header_lines)
{
    size_t room = uri_bytes + header_bytes + header_lines * 16 + 256, used = 0;
    char *text = malloc(room);
    assert_non_null(text);
    used += (size_t)snprintf(text, room, "GET /echo?");
    memset(text + used, 'u', uri_bytes);
    used += uri_bytes;
    used += (size_t)snprintf(text + used, room - used, " HTTP/1.1\r\nHost: a\r\n");
    for (size_t i = 0; i < header_lines; i++)
        used += (size_t)snprintf(text + used, room - used, "X%zu: y\r\n", i);
    if (header_bytes > 0) {
        used += (size_t)snprintf(text + used, room - used, "Long: ");
        memset(text + used, 'h', header_bytes);
        used += header_bytes;
        used += (size_t)snprintf(text + used, room - used, "\r\n");
    }
    (void)snprintf(text + used, room - used, "\r\n");
    return text;
}

static void test_heads_that_are_too_large(void **state)
{
    struct fixture fixture;
    static const struct {
        size_t uri_bytes, header_bytes, header_lines;
        int status;
        bool by_us;
    } cases[] = {{1989, 0, 0, 405, true},    {1996, 0, 0, 414, true}, {3500, 0, 0, 414, true},
                 {20000, 0, 0, 414, false},  {0, 5000, 0, 405, true}, {0, 6200, 0, 431, true},
                 {0, 100000, 0, 431, false}, {0, 0, 47, 405, true},   {0, 0, 50, 431, true},
                 {0, 0, 5000, 431, false}};
    (void)state;
    start(&fixture, &patient);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char *text = long_head(cases[i].uri_bytes, cases[i].header_bytes, cases[i].header_lines);
        struct http_client client = open_client(&fixture);
        struct http_answer answer;
        (void)http_client_send(&client, text, strlen(text), PATIENCE_MS, NULL); /* it may well be cut short */
        enum http_client_result result = http_client_read(&client, &answer, PATIENCE_MS);
        if (cases[i].by_us || result == HTTP_CLIENT_OK) {
            assert_int_equal(result, HTTP_CLIENT_OK);
            if (answer.status != cases[i].status)
                print_error("case %zu\n", i);
            assert_int_equal(answer.status, cases[i].status);
        } else {
            assert_int_not_equal(result, HTTP_CLIENT_TIMEOUT);
        }
        if (cases[i].by_us)
            expect_header(&answer, "Content-Type", "application/problem+json");
        http_answer_free(&answer);
        http_client_close(&client);
        free(text);
    }
    /* a header that never ends is cut off early */
    struct http_client client = open_client(&fixture);
    char block[4096];
    size_t total = 0;
    memset(block, 'e', sizeof block);
    send_text(&client, "GET /now HTTP/1.1\r\nX: ");
    while (total < ((size_t)64 << 20)) {
        size_t sent;
        enum http_client_result result = http_client_send(&client, block, sizeof block, PATIENCE_MS, &sent);
        total += sent;
        if (result != HTTP_CLIENT_OK)
            break;
    }
    assert_true(total < ((size_t)16 << 20));
    http_client_close(&client);
    stop(&fixture);
}

/* Random damage to good requests: whatever comes back, the server lives and serves the next. */
static void test_damaged_requests(void **state)
{
    struct fixture fixture;
    static const struct options strict = {300, 300, 300, 1024, 0};
    static const char good[] =
        "POST /echo?a=%41 HTTP/1.1\r\nHost: a\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n"
        "Expect: x\r\n\r\n5\r\nhello\r\n0\r\n\r\nGET /items/5 HTTP/1.1\r\nHost: b\r\nCookie: c=d\r\n\r\n";
    static const char spice[] = " \r\n:;%?/\0\xff"
                                "0Aa-,=&\t";
    (void)state;
    start(&fixture, &strict);
    srand(7);
    for (int round = 0; round < 1000; round++) {
        char text[sizeof good];
        struct http_client client = open_client(&fixture);
        memcpy(text, good, sizeof good);
        for (int damage = rand() % 4; damage >= 0; damage--)
            text[(size_t)rand() % (sizeof good - 1)] = spice[(size_t)rand() % (sizeof spice - 1)];
        size_t sent = (size_t)rand() % sizeof good;
        (void)http_client_send(&client, text, sent, PATIENCE_MS, NULL);
        (void)http_client_wait_closed(&client, rand() % 3); /* it may be waiting for more */
        http_client_close(&client);
    }
    expect_call(&fixture, "GET", "/now", NULL, 200, NULL);
    assert_true(state_of(&fixture, "pending") <= 1);
    stop(&fixture);
}

/* --- bodies ------------------------------------------------------------------------------------------ */

static void send_chunks(struct http_client *client, size_t bytes, size_t chunk_bytes)
{
    char *chunk = malloc(chunk_bytes + 32);
    assert_non_null(chunk);
    while (bytes > 0) {
        size_t part = bytes < chunk_bytes ? bytes : chunk_bytes;
        int head = snprintf(chunk, 32, "%zx;ext=1\r\n", part);
        memset(chunk + head, 'c', part);
        memcpy(chunk + head + part, "\r\n", 2);
        if (http_client_send(client, chunk, (size_t)head + part + 2, PATIENCE_MS, NULL) != HTTP_CLIENT_OK)
            break;
        bytes -= part;
    }
    (void)http_client_send(client, "0\r\nTrailer: t\r\n\r\n", 17, PATIENCE_MS, NULL);
    free(chunk);
}

static void test_bodies(void **state)
{
    struct fixture fixture;
    struct http_answer answer;
    (void)state;
    start(&fixture, &patient);
    struct http_client client = open_client(&fixture);
    static const size_t sizes[] = {0, 1, 2047, 2048, 3000, 3071, 3072, 5000, 40000, BODY_BYTES_MAX};
    char *body = malloc(BODY_BYTES_MAX + 1);
    assert_non_null(body);
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        for (size_t k = 0; k < sizes[i]; k++)
            body[k] = (char)('a' + k % 26);
        assert_int_equal(http_client_request(&client, "POST", "/echo", NULL, body, sizes[i], PATIENCE_MS),
                         HTTP_CLIENT_OK);
        assert_int_equal(http_client_read(&client, &answer, PATIENCE_MS), HTTP_CLIENT_OK);
        assert_int_equal(answer.status, 200);
        assert_int_equal(answer.body_bytes, sizes[i]);
        assert_memory_equal(answer.body, body, sizes[i]);
        http_answer_free(&answer);
        /* the same again in chunks */
        send_text(&client, "PUT /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\n\r\n");
        send_chunks(&client, sizes[i], 1000);
        assert_int_equal(http_client_read(&client, &answer, PATIENCE_MS), HTTP_CLIENT_OK);
        assert_int_equal(answer.status, 200);
        assert_int_equal(answer.body_bytes, sizes[i]);
        http_answer_free(&answer);
    }
    free(body);
    /* byte by byte */
    const char *slow = "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello";
    for (const char *c = slow; *c; c++)
        assert_int_equal(http_client_send(&client, c, 1, PATIENCE_MS, NULL), HTTP_CLIENT_OK);
    expect_answer(&client, 200, "hello");
    /* a body where none belongs is read and ignored */
    assert_int_equal(http_client_call(&client, "GET", "/now", NULL, "surplus", &answer, PATIENCE_MS),
                     HTTP_CLIENT_OK);
    assert_int_equal(answer.status, 200);
    http_answer_free(&answer);
    assert_int_equal(http_client_call(&client, "POST", "/nowhere", NULL, "surplus", &answer, PATIENCE_MS),
                     HTTP_CLIENT_OK);
    assert_int_equal(answer.status, 404);
    assert_false(answer.closes);
    http_answer_free(&answer);
    http_client_close(&client);
    stop(&fixture);
}

static void test_bodies_that_are_too_large(void **state)
{
    struct fixture fixture;
    struct http_answer answer;
    (void)state;
    start(&fixture, &patient);
    char *body = calloc(1, (size_t)10 << 20);
    assert_non_null(body);
    static const size_t sizes[] = {BODY_BYTES_MAX + 1, (size_t)1 << 20, (size_t)10 << 20};
    for (size_t i = 0; i < 3; i++) {
        /* announced: the answer comes at once, and even a client that first sends everything gets it */
        struct http_client client = open_client(&fixture);
        assert_int_equal(http_client_request(&client, "POST", "/echo", NULL, body, sizes[i], PATIENCE_MS),
                         HTTP_CLIENT_OK);
        assert_int_equal(http_client_read(&client, &answer, PATIENCE_MS), HTTP_CLIENT_OK);
        assert_int_equal(answer.status, 413);
        assert_true(answer.closes);
        expect_header(&answer, "Content-Type", "application/problem+json");
        http_answer_free(&answer);
        assert_int_equal(http_client_wait_closed(&client, PATIENCE_MS), HTTP_CLIENT_CLOSED);
        http_client_close(&client);
        /* in chunks: up to 1 MiB is swallowed and answered, beyond it the connection is closed */
        client = open_client(&fixture);
        send_text(&client, "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
        send_chunks(&client, sizes[i], 65536);
        enum http_client_result result = http_client_read(&client, &answer, PATIENCE_MS);
        if (sizes[i] < (size_t)10 << 20) {
            assert_int_equal(result, HTTP_CLIENT_OK);
            assert_int_equal(answer.status, 413);
            assert_true(answer.closes);
        } else {
            assert_true(result == HTTP_CLIENT_BROKEN || result == HTTP_CLIENT_CLOSED);
        }
        http_answer_free(&answer);
        http_client_close(&client);
    }
    free(body);
    expect_call(&fixture, "GET", "/now", NULL, 200, NULL);
    stop(&fixture);
}

static void test_100_continue(void **state)
{
    struct fixture fixture;
    struct http_answer answer;
    (void)state;
    start(&fixture, &patient);
    struct http_client client = open_client(&fixture);
    for (int i = 0; i < 2; i++) {
        send_text(&client,
                  "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n");
        expect_answer(&client, 100, NULL);
        send_text(&client, "hello");
        expect_answer(&client, 200, "hello");
    }
    send_text(&client,
              "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 500000\r\nExpect: 100-continue\r\n\r\n");
    assert_int_equal(http_client_read(&client, &answer, PATIENCE_MS), HTTP_CLIENT_OK);
    assert_int_equal(answer.status, 413);
    http_answer_free(&answer);
    http_client_close(&client);
    stop(&fixture);
}

/* --- connections ------------------------------------------------------------------------------------- */

static void test_http_1_0(void **state)
{
    struct fixture fixture;
    struct http_answer answer;
    (void)state;
    start(&fixture, &patient);
    struct http_client client = open_client(&fixture);
    send_text(&client, "GET /later HTTP/1.0\r\n\r\n"); /* no Host: HTTP/1.0 */
    assert_int_equal(http_client_read(&client, &answer, PATIENCE_MS), HTTP_CLIENT_OK);
    assert_int_equal(answer.status, 200);
    assert_true(answer.closes);
    http_answer_free(&answer);
    assert_int_equal(http_client_wait_closed(&client, PATIENCE_MS), HTTP_CLIENT_CLOSED);
    http_client_close(&client);
    client = open_client(&fixture);
    for (int i = 0; i < 3; i++) {
        send_text(&client, "GET /now HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
        expect_answer(&client, 200, "{\"now\":true}");
    }
    http_client_close(&client);
    stop(&fixture);
}

static long resident_bytes(pid_t pid)
{
    char path[64];
    long pages = 0;
    (void)snprintf(path, sizeof path, "/proc/%d/statm", (int)pid);
    FILE *file = fopen(path, "r");
    assert_non_null(file);
    assert_int_equal(fscanf(file, "%*d %ld", &pages), 1);
    (void)fclose(file);
    return pages * sysconf(_SC_PAGESIZE);
}

/* Each with an id of its own in the answer's head; its body is there once. */
static void test_a_shared_answer_is_not_copied(void **state)
{
    static const char asks[] = "GET /list HTTP/1.1\r\nHost: a\r\nX-Request-Id: mine\r\n\r\n";
    struct http_client clients[LIST_READERS];
    struct fixture fixture;
    (void)state;
    start(&fixture, &patient);
    for (size_t i = 0; i < LIST_READERS; i++)
        clients[i] = open_client(&fixture);
    long before = resident_bytes(fixture.pid);
    for (size_t i = 0; i < LIST_READERS; i++)
        send_text(&clients[i], asks);
    for (size_t i = 0; i < LIST_READERS; i++) {
        struct pollfd begun = {.fd = clients[i].fd, .events = POLLIN};
        assert_int_equal(poll(&begun, 1, PATIENCE_MS), 1);
    }
    assert_in_range(resident_bytes(fixture.pid) - before, 0, LIST_READERS / 2 * BIG_BYTES);
    for (size_t i = 0; i < LIST_READERS; i++) {
        struct http_answer answer;
        assert_int_equal(http_client_read(&clients[i], &answer, PATIENCE_MS), HTTP_CLIENT_OK);
        expect_header(&answer, "X-Request-Id", "mine");
        assert_int_equal(answer.body_bytes, BIG_BYTES);
        http_answer_free(&answer);
        http_client_close(&clients[i]);
    }
    stop(&fixture);
}

static void test_one_connection_10000_requests(void **state)
{
    struct fixture fixture;
    (void)state;
    start(&fixture, &patient);
    struct http_client client = open_client(&fixture);
    for (int i = 0; i < 10000; i++) {
        assert_int_equal(http_client_request(&client, "POST", "/prebuilt", NULL, "{}", 2, PATIENCE_MS),
                         HTTP_CLIENT_OK);
        expect_answer(&client, 400, "{\"detail\":\"Insufficient stock\"}");
    }
    assert_true(state_of(&fixture, "connections") <= 2);
    http_client_close(&client);
    stop(&fixture);
}

static void test_pipelined_requests(void **state)
{
    struct fixture fixture;
    char text[16384] = "", expected[64];
    (void)state;
    start(&fixture, &patient);
    struct http_client client = open_client(&fixture);
    for (int round = 0; round < 3; round++) {
        size_t used = 0;
        for (int i = 0; i < 60; i++)
            used += (size_t)snprintf(text + used, sizeof text - used,
                                     i % 3 == 0 ? "GET /later?q=%d HTTP/1.1\r\nHost: a\r\n\r\n"
                                     : i % 3 == 1
                                         ? "GET /items/%d HTTP/1.1\r\nHost: a\r\n\r\n"
                                         : "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\n%04d",
                                     i);
        send_text(&client, text);
        for (int i = 0; i < 60; i++) {
            (void)snprintf(expected, sizeof expected,
                           i % 3 == 0   ? "{\"q\":\"%d\",\"is_json\":true}"
                           : i % 3 == 1 ? "id %d"
                                        : "%04d",
                           i);
            expect_answer(&client, 200, expected);
        }
    }
    http_client_close(&client);
    stop(&fixture);
}

/* libmicrohttpd does not see an end of the stream that came together with data; the idle deadline then closes
 * the connection. */
static void test_half_closed_clients_get_their_answer(void **state)
{
    struct fixture fixture;
    static const struct options strict = {300, 300, 300, 1024, 0};
    static const char *const targets[] = {"/now", "/later", "/facts"};
    (void)state;
    start(&fixture, &strict);
    for (size_t i = 0; i < 3; i++) {
        struct http_client client = open_client(&fixture);
        assert_int_equal(http_client_request(&client, "GET", targets[i], NULL, NULL, 0, PATIENCE_MS),
                         HTTP_CLIENT_OK);
        assert_int_equal(shutdown(client.fd, SHUT_WR), 0);
        expect_answer(&client, 200, NULL);
        assert_int_equal(http_client_wait_closed(&client, PATIENCE_MS), HTTP_CLIENT_CLOSED);
        http_client_close(&client);
    }
    stop(&fixture);
}

static void hold_and_release(bool parked, bool by_timer)
{
    enum { COUNT = 300 };
    struct fixture fixture;
    static struct http_client clients[COUNT];
    char target[64], expected[64];
    start(&fixture, &patient);
    for (int i = 0; i < COUNT; i++) {
        clients[i] = open_client(&fixture);
        (void)snprintf(target, sizeof target, "/hold?q=%d", i);
        assert_int_equal(http_client_request(&clients[i], i % 2 ? "POST" : "GET", target, "X-Test: t\r\n",
                                             i % 2 ? "{}" : NULL, i % 2 ? 2 : 0, PATIENCE_MS),
                         HTTP_CLIENT_OK);
    }
    wait_state(&fixture, "held", COUNT);
    if (parked)
        wait_state(&fixture, "held_ms", 250);
    assert_true(state_of(&fixture, "pending") >= COUNT);
    expect_call(&fixture, "GET", by_timer ? "/release?by_timer=1" : "/release", NULL, 200, NULL);
    for (int i = 0; i < COUNT; i++) {
        (void)snprintf(expected, sizeof expected, "{\"q\":\"%d\",\"header\":\"t\",\"is_json\":true}", i);
        expect_answer(&clients[i], 200, expected);
    }
    for (int i = 0; i < COUNT; i++) { /* and all connections still work */
        assert_int_equal(http_client_request(&clients[i], "GET", "/items/5", NULL, NULL, 0, PATIENCE_MS),
                         HTTP_CLIENT_OK);
        expect_answer(&clients[i], 200, "id 5");
        http_client_close(&clients[i]);
    }
    assert_true(state_of(&fixture, "pending") <= 1);
    stop(&fixture);
}

static void test_300_waiting_answered_together(void **state)
{
    (void)state;
    hold_and_release(false, true);
    hold_and_release(false, false);
}

static void test_300_parked_answered_together(void **state)
{
    (void)state;
    hold_and_release(true, true);
    hold_and_release(true, false);
}

static void test_client_gone_while_waiting(void **state)
{
    struct fixture fixture;
    (void)state;
    for (int parked = 0; parked < 2; parked++) {
        for (int reset = 0; reset < 2; reset++) {
            start(&fixture, &patient);
            struct http_client clients[20];
            struct linger linger = {reset, 0};
            for (int i = 0; i < 20; i++) {
                clients[i] = open_client(&fixture);
                assert_int_equal(http_client_request(&clients[i], "POST", "/hold?q=1&a=b",
                                                     "X-Test: t\r\nContent-Type: text/plain\r\n", "body", 4,
                                                     PATIENCE_MS),
                                 HTTP_CLIENT_OK);
            }
            wait_state(&fixture, "held", 20);
            if (parked)
                wait_state(&fixture, "held_ms", 250);
            for (int i = 0; i < 20; i++) {
                assert_int_equal(setsockopt(clients[i].fd, SOL_SOCKET, SO_LINGER, &linger, sizeof linger), 0);
                http_client_close(&clients[i]);
            }
            if (reset && !parked) { /* noticed while it waits */
                int64_t deadline_ms = now_ms() + PATIENCE_MS;
                while (state_of(&fixture, "connections") > 1)
                    assert_true(now_ms() < deadline_ms);
            }
            assert_true(state_of(&fixture, "pending") >= 20); /* the handlers know nothing of it */
            expect_call(&fixture, "GET", "/release?by_timer=1", NULL, 200, NULL);
            int64_t deadline_ms = now_ms() + PATIENCE_MS;
            while (state_of(&fixture, "pending") > 1)
                assert_true(now_ms() < deadline_ms);
            stop(&fixture);
        }
    }
}

/* A waiting connection costs no processor time. */
static void test_waiting_does_not_spin(void **state)
{
    struct fixture fixture;
    (void)state;
    start(&fixture, &patient);
    struct http_client client = open_client(&fixture);
    assert_int_equal(http_client_request(&client, "GET", "/hold", NULL, NULL, 0, PATIENCE_MS),
                     HTTP_CLIENT_OK);
    wait_state(&fixture, "held", 1);
    double before = state_of(&fixture, "turns");
    wait_state(&fixture, "held_ms", 500);
    double polls = 500; /* our own questions turn the loop, too */
    assert_true(state_of(&fixture, "turns") - before < 8 * polls);
    before = processor_seconds(fixture.pid);
    (void)poll(NULL, 0, 300); /* the length of the measurement */
    assert_true(processor_seconds(fixture.pid) - before < 0.1);
    expect_call(&fixture, "GET", "/release", NULL, 200, NULL);
    expect_answer(&client, 200, NULL);
    http_client_close(&client);
    stop(&fixture);
}

static int by_size(const void *left, const void *right)
{
    int64_t a = *(const int64_t *)left, b = *(const int64_t *)right;
    return (a > b) - (a < b);
}

/* While requests wait for their reply, the next request of a connection whose reply has just gone out is read
 * at once, although the event of its arrival was consumed by the run that finished the reply. It once lay
 * there until something else woke the loop. */
static void test_a_waiting_request_does_not_delay_others(void **state)
{
    enum { ROUNDS = 21, LEEWAY_MS = 15 };
    struct fixture fixture;
    struct http_client clients[3], holding[ROUNDS];
    int64_t took_ms[ROUNDS];
    (void)state;
    start(&fixture, &patient);
    for (int i = 0; i < 3; i++)
        clients[i] = open_client(&fixture);
    for (int round = 0; round < ROUNDS; round++) {
        struct http_client *client = &clients[round % 3];
        holding[round] = open_client(&fixture); /* a fresh one, for those before are parked soon */
        assert_int_equal(http_client_request(&holding[round], "GET", "/hold", NULL, NULL, 0, PATIENCE_MS),
                         HTTP_CLIENT_OK);
        wait_state(&fixture, "held", round + 1);
        assert_int_equal(http_client_request(client, "GET", "/soon", NULL, NULL, 0, PATIENCE_MS),
                         HTTP_CLIENT_OK);
        (void)poll(NULL, 0, SOON_MS / 3); /* the next comes in while the first waits, not with it */
        assert_int_equal(http_client_request(client, "GET", "/soon", NULL, NULL, 0, PATIENCE_MS),
                         HTTP_CLIENT_OK);
        expect_answer(client, 200, "{\"now\":true}");
        int64_t began_ms = now_ms();
        expect_answer(client, 200, "{\"now\":true}");
        took_ms[round] = now_ms() - began_ms;
    }
    qsort(took_ms, ROUNDS, sizeof took_ms[0], by_size);
    if (took_ms[ROUNDS / 2] > SOON_MS + LEEWAY_MS)
        print_error("the median is %lld ms\n", (long long)took_ms[ROUNDS / 2]);
    assert_true(took_ms[ROUNDS / 2] <= SOON_MS + LEEWAY_MS);
    expect_call(&fixture, "GET", "/release", NULL, 200, NULL);
    for (int round = 0; round < ROUNDS; round++) {
        expect_answer(&holding[round], 200, NULL);
        http_client_close(&holding[round]);
    }
    for (int i = 0; i < 3; i++)
        http_client_close(&clients[i]);
    stop(&fixture);
}

/* --- deadlines --------------------------------------------------------------------------------------- */

/* Sends a byte every 20 ms until the server hangs up; how long that took. */
static int64_t trickle(struct http_client *client, const char *text)
{
    int64_t began_ms = now_ms();
    while (now_ms() < began_ms + PATIENCE_MS) {
        if (http_client_send(client, text, 1, PATIENCE_MS, NULL) != HTTP_CLIENT_OK)
            break;
        if (text[1])
            text++;
        enum http_client_result result = http_client_wait_closed(client, 20);
        if (result != HTTP_CLIENT_TIMEOUT)
            break;
    }
    return now_ms() - began_ms;
}

static void test_deadlines(void **state)
{
    struct fixture fixture;
    static const struct options strict = {300, 300, 300, 1024, 0};
    static const struct {
        const char *before, *slow;
        bool answered_first;
    } cases[] = {
        {"", "", false},                          /* says nothing at all */
        {"", "GET /a", false},                    /* a request line, slowly */
        {"GET /now HTTP/1.1\r\n", "X: a", false}, /* a head, slowly */
        {"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 900\r\n\r\n", "b", false}, /* a body, slowly */
        {"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", "1\r\nb\r\n5;x", false},
        {"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n", "T: a",
         false},                                                            /* trailers, slowly */
        {"GET /now HTTP/1.1\r\nHost: a\r\n\r\n", "", true},                 /* idle */
        {"GET /now HTTP/1.1\r\nHost: a\r\n\r\n", "\r\n\r\n\r\n\r\n", true}, /* idle, with empty lines */
        {"GET /now HTTP/1.1\r\nHost: a\r\n\r\n", "GET /a", true},
    };
    (void)state;
    start(&fixture, &strict);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct http_client client = open_client(&fixture);
        send_text(&client, cases[i].before);
        if (cases[i].answered_first)
            expect_answer(&client, 200, NULL);
        int64_t began_ms = now_ms(), took_ms;
        if (cases[i].slow[0]) {
            took_ms = trickle(&client, cases[i].slow);
        } else {
            assert_int_not_equal(http_client_wait_closed(&client, PATIENCE_MS), HTTP_CLIENT_TIMEOUT);
            took_ms = now_ms() - began_ms;
        }
        if (took_ms < 200 || took_ms > 1500)
            print_error("case %zu took %lld ms\n", i, (long long)took_ms);
        assert_in_range(took_ms, 200, 1500);
        http_client_close(&client);
    }
    /* who does not take the answer: 8 MiB do not fit into the socket buffers */
    struct http_client client = open_client(&fixture);
    assert_int_equal(http_client_request(&client, "GET", "/big", NULL, NULL, 0, PATIENCE_MS), HTTP_CLIENT_OK);
    int64_t deadline_ms = now_ms() + PATIENCE_MS;
    wait_state(&fixture, "answered", 1);
    while (state_of(&fixture, "connections") > 1)
        assert_true(now_ms() < deadline_ms);
    http_client_close(&client);
    /* who waits for us is never cut off */
    client = open_client(&fixture);
    assert_int_equal(http_client_request(&client, "GET", "/hold", NULL, NULL, 0, PATIENCE_MS),
                     HTTP_CLIENT_OK);
    wait_state(&fixture, "held", 1);
    wait_state(&fixture, "held_ms", 1000);
    expect_call(&fixture, "GET", "/release", NULL, 200, NULL);
    expect_answer(&client, 200, NULL);
    http_client_close(&client);
    stop(&fixture);
}

static void test_large_answers(void **state)
{
    struct fixture fixture;
    struct http_answer answer;
    (void)state;
    start(&fixture, &patient);
    struct http_client client = open_client(&fixture);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(http_client_call(&client, "GET", "/big", NULL, NULL, &answer, PATIENCE_MS),
                         HTTP_CLIENT_OK);
        assert_int_equal(answer.body_bytes, BIG_BYTES);
        http_answer_free(&answer);
    }
    http_client_close(&client);
    stop(&fixture);
}

/* --- the end, and limits ----------------------------------------------------------------------------- */

static void test_quiesce(void **state)
{
    struct fixture fixture;
    struct http_answer answer;
    (void)state;
    start(&fixture, &patient);
    struct http_client holding = open_client(&fixture), idle = open_client(&fixture),
                       fresh = open_client(&fixture);
    struct http_client half_line = open_client(&fixture), half_next = open_client(&fixture),
                       half_head = open_client(&fixture);
    struct http_client half_body = open_client(&fixture), sharing = open_client(&fixture);
    assert_int_equal(http_client_request(&holding, "GET", "/hold", NULL, NULL, 0, PATIENCE_MS),
                     HTTP_CLIENT_OK);
    assert_int_equal(http_client_request(&sharing, "GET", "/hold", NULL, NULL, 0, PATIENCE_MS),
                     HTTP_CLIENT_OK);
    assert_int_equal(http_client_request(&idle, "POST", "/echo", NULL, "abc", 3, PATIENCE_MS),
                     HTTP_CLIENT_OK);
    expect_answer(&idle, 200, "abc");
    assert_int_equal(http_client_request(&half_next, "POST", "/echo", NULL, "abc", 3, PATIENCE_MS),
                     HTTP_CLIENT_OK);
    expect_answer(&half_next, 200, "abc");
    send_text(&half_next, "GET /n");
    send_text(&half_line, "GET /n");
    send_text(&half_head, "GET /now HTTP/1.1\r\nHos");
    send_text(&half_body, "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhe");
    wait_state(&fixture, "held", 2);
    wait_state(&fixture, "connections", 9);
    int64_t deadline_ms = now_ms() + PATIENCE_MS;
    while (state_of(&fixture, "connections") > 9) /* 8 and the asking one: those that asked before are gone */
        assert_true(now_ms() < deadline_ms);
    assert_int_equal(kill(fixture.pid, SIGTERM), 0);
    assert_int_not_equal(http_client_wait_closed(&idle, PATIENCE_MS), HTTP_CLIENT_TIMEOUT);
    assert_int_not_equal(http_client_wait_closed(&fresh, PATIENCE_MS), HTTP_CLIENT_TIMEOUT);
    send_text(&half_line, "ow HTTP/1.1\r\nHost: a\r\n\r\n");
    send_text(&half_next, "ow HTTP/1.1\r\nHost: a\r\n\r\n");
    send_text(&half_head, "t: a\r\n\r\n");
    send_text(&half_body, "llo");
    struct http_client *halves[] = {&half_line, &half_next, &half_head, &half_body};
    for (size_t i = 0; i < 4; i++) {
        assert_int_equal(http_client_read(halves[i], &answer, PATIENCE_MS), HTTP_CLIENT_OK);
        assert_int_equal(answer.status, 200);
        assert_true(answer.closes);
        http_answer_free(&answer);
        assert_int_equal(http_client_wait_closed(halves[i], PATIENCE_MS), HTTP_CLIENT_CLOSED);
        http_client_close(halves[i]);
    }
    /* nobody can ask it to release any more: a second server on the same socket takes new connections; this
     * one waits for its timer */
    struct fixture second = fixture;
    start_on(&second, &patient);
    expect_call(&second, "GET", "/now", NULL, 200, NULL);
    assert_int_equal(waitpid(fixture.pid, NULL, WNOHANG), 0); /* still holding two */
    assert_int_equal(http_client_wait_closed(&sharing, 50), HTTP_CLIENT_TIMEOUT);
    http_client_close(&sharing);
    assert_int_equal(kill(fixture.pid, SIGKILL), 0);
    assert_int_equal(waitpid(fixture.pid, NULL, 0), fixture.pid);
    expect_call(&second, "GET", "/now", NULL, 200, NULL); /* and the socket still works */
    http_client_close(&holding);
    http_client_close(&idle);
    http_client_close(&fresh);
    stop(&second);
}

static void test_quiesce_finishes_what_is_pending(void **state)
{
    struct fixture fixture;
    struct http_answer answer;
    (void)state;
    start(&fixture, &patient);
    struct http_client holding[50], late = open_client(&fixture), idle = open_client(&fixture);
    for (int i = 0; i < 50; i++) {
        holding[i] = open_client(&fixture);
        assert_int_equal(http_client_request(&holding[i], "GET", "/hold", NULL, NULL, 0, PATIENCE_MS),
                         HTTP_CLIENT_OK);
    }
    wait_state(&fixture, "held", 50);
    send_text(&late, "GET /release HTTP/1.1\r\n"); /* its end comes after the signal */
    wait_state(&fixture, "held_ms", 150);          /* some are parked by now */
    assert_int_equal(kill(fixture.pid, SIGTERM), 0);
    assert_int_not_equal(http_client_wait_closed(&idle, PATIENCE_MS),
                         HTTP_CLIENT_TIMEOUT); /* it is quiesced */
    http_client_close(&idle);
    send_text(&late, "Host: a\r\n\r\n");
    expect_answer(&late, 200, NULL);
    for (int i = 0; i < 50; i++) {
        assert_int_equal(http_client_read(&holding[i], &answer, PATIENCE_MS), HTTP_CLIENT_OK);
        assert_int_equal(answer.status, 200);
        assert_true(answer.closes);
        http_answer_free(&answer);
        http_client_close(&holding[i]);
    }
    http_client_close(&late);
    wait_exit(&fixture);
    (void)close(fixture.listen_fd);
}

static void test_two_servers_share_a_socket(void **state)
{
    struct fixture first, second;
    (void)state;
    start(&first, &patient);
    second = first;
    start_on(&second, &patient);
    for (int i = 0; i < 50; i++)
        expect_call(&first, "GET", "/now", NULL, 200, NULL);
    assert_int_equal(kill(first.pid, SIGTERM), 0);
    for (int i = 0; i < 50; i++) /* while it ends */
        expect_call(&second, "GET", "/now", NULL, 200, NULL);
    wait_exit(&first);
    for (int i = 0; i < 50; i++)
        expect_call(&second, "GET", "/now", NULL, 200, NULL);
    stop(&second);
}

static void expect_rest(pid_t pid)
{
    double before = processor_seconds(pid);
    (void)poll(NULL, 0, 400); /* the length of the measurement */
    assert_true(processor_seconds(pid) - before < 0.15);
}

static void test_connection_limit(void **state)
{
    struct fixture fixture;
    static const struct options few = {10000, 10000, 10000, 4, 0};
    struct http_client clients[6];
    (void)state;
    start(&fixture, &few);
    for (int i = 0; i < 6; i++) {
        clients[i] = open_client(&fixture);
        assert_int_equal(http_client_request(&clients[i], "GET", "/now", NULL, NULL, 0, PATIENCE_MS),
                         HTTP_CLIENT_OK);
    }
    for (int i = 0; i < 4; i++)
        expect_answer(&clients[i], 200, NULL);
    expect_rest(fixture.pid);
    assert_int_equal(http_client_wait_closed(&clients[4], 50),
                     HTTP_CLIENT_TIMEOUT); /* waits in the backlog */
    int64_t began_ms = now_ms();
    http_client_close(&clients[0]);
    expect_answer(&clients[4], 200, NULL);
    http_client_close(&clients[1]);
    expect_answer(&clients[5], 200, NULL);
    assert_true(now_ms() - began_ms < 500);
    for (int i = 2; i < 6; i++)
        http_client_close(&clients[i]);
    expect_call(&fixture, "GET", "/now", NULL, 200, NULL);
    stop(&fixture);
}

static void test_out_of_descriptors(void **state)
{
    struct fixture fixture;
    (void)state;
    for (rlim_t spare = 0; spare < 2; spare++) { /* none for the first connection; one */
        struct options scarce = patient;
        /* the first descriptor that is free in a server without connections (ours may have left it some above) */
        start(&fixture, &patient);
        rlim_t used = 0;
        char path[64];
        do
            (void)snprintf(path, sizeof path, "/proc/%d/fd/%d", (int)fixture.pid, (int)used++);
        while (access(path, F_OK) == 0);
        used--;
        stop(&fixture);
        scarce.descriptors_max = used + spare;
        start(&fixture, &scarce);
        struct http_client first = open_client(&fixture), second = open_client(&fixture);
        assert_int_equal(http_client_request(&first, "GET", "/now", NULL, NULL, 0, PATIENCE_MS),
                         HTTP_CLIENT_OK);
        assert_int_equal(http_client_request(&second, "GET", "/now", NULL, NULL, 0, PATIENCE_MS),
                         HTTP_CLIENT_OK);
        if (spare) {
            expect_answer(&first, 200, NULL);
            expect_rest(fixture.pid);
            /* one more turn, in which libmicrohttpd stops looking at its listening socket */
            assert_int_equal(http_client_request(&first, "GET", "/now", NULL, NULL, 0, PATIENCE_MS),
                             HTTP_CLIENT_OK);
            expect_answer(&first, 200, NULL);
        }
        expect_rest(fixture.pid);
        const struct rlimit enough = {4096, 4096};
        assert_int_equal(prlimit(fixture.pid, RLIMIT_NOFILE, &enough, NULL), 0);
        if (spare)
            http_client_close(&first); /* libmicrohttpd accepts again when a connection has ended */
        else
            expect_answer(&first, 200, NULL);
        expect_answer(&second, 200, NULL);
        http_client_close(&first);
        http_client_close(&second);
        stop(&fixture);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_answers_have_what_they_need),
        cmocka_unit_test(test_routes),
        cmocka_unit_test(test_methods),
        cmocka_unit_test(test_problems_are_json_whatever_is_in_them),
        cmocka_unit_test(test_heads_that_are_refused),
        cmocka_unit_test(test_heads_that_are_too_large),
        cmocka_unit_test(test_damaged_requests),
        cmocka_unit_test(test_bodies),
        cmocka_unit_test(test_bodies_that_are_too_large),
        cmocka_unit_test(test_100_continue),
        cmocka_unit_test(test_http_1_0),
        cmocka_unit_test(test_a_shared_answer_is_not_copied),
        cmocka_unit_test(test_one_connection_10000_requests),
        cmocka_unit_test(test_pipelined_requests),
        cmocka_unit_test(test_half_closed_clients_get_their_answer),
        cmocka_unit_test(test_300_waiting_answered_together),
        cmocka_unit_test(test_300_parked_answered_together),
        cmocka_unit_test(test_client_gone_while_waiting),
        cmocka_unit_test(test_waiting_does_not_spin),
        cmocka_unit_test(test_a_waiting_request_does_not_delay_others),
        cmocka_unit_test(test_deadlines),
        cmocka_unit_test(test_large_answers),
        cmocka_unit_test(test_quiesce),
        cmocka_unit_test(test_quiesce_finishes_what_is_pending),
        cmocka_unit_test(test_two_servers_share_a_socket),
        cmocka_unit_test(test_connection_limit),
        cmocka_unit_test(test_out_of_descriptors),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
