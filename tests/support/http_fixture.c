/* See http_fixture.h. The process is forked before the test has used any library. */
#include "http_fixture.h"

#include "testing.h"

#include "doorbuster/check.h"

#include <arpa/inet.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define LATER_MS 150
#define FRAME_MS 20
#define HELD_MAX 256

static struct {
    uv_loop_t loop;
    uv_prepare_t prepare;
    uv_timer_t frames, later;
    uv_signal_t terminate;
    struct http_server *server;
    struct http_channel *channel;
    struct http_response *prebuilt;
    struct http_request *held[HELD_MAX];
    size_t held_count;
    char *big;
    bool quiescing;
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

static void who_handler(struct http_request *request, void *context)
{
    cJSON *who = cJSON_CreateObject();
    (void)context;
    (void)cJSON_AddStringToObject(who, "id", http_request_id(request));
    (void)cJSON_AddStringToObject(who, "client", http_request_client(request));
    (void)cJSON_AddBoolToObject(who, "local", http_request_client_is_local(request));
    http_reply_json(request, 200, who);
}

static void echo_handler(struct http_request *request, void *context)
{
    size_t bytes;
    const char *body = http_request_body(request, &bytes);
    (void)context;
    http_reply_bytes(request, 200, "text/plain", body, bytes);
}

static void page_handler(struct http_request *request, void *context)
{
    (void)context;
    http_reply_bytes(request, 200, "text/html; charset=utf-8", "<!doctype html>", 15);
}

static void big_handler(struct http_request *request, void *context)
{
    (void)context;
    http_reply_bytes(request, 200, "text/plain", child.big, HTTP_FIXTURE_BIG_BYTES);
}

static void later_cb(uv_timer_t *timer)
{
    (void)timer;
    for (size_t i = 0; i < child.held_count; i++)
        now_handler(child.held[i], NULL);
    child.held_count = 0;
}

static void later_handler(struct http_request *request, void *context)
{
    (void)context;
    CHECK(child.held_count < HELD_MAX);
    child.held[child.held_count++] = request;
    (void)uv_timer_start(&child.later, later_cb, LATER_MS, 0);
}

static void frame_cb(uv_timer_t *timer)
{
    (void)timer;
    http_channel_send(child.channel, "data: frame\n\n", 13);
}

static void events_handler(struct http_request *request, void *context)
{
    (void)context;
    CHECK(http_reply_channel(request, child.channel));
}

static const struct http_route routes[] = {
    {HTTP_GET, "/now", "now", now_handler},       {HTTP_POST, "/prebuilt", "prebuilt", prebuilt_handler},
    {HTTP_GET, "/who", "who", who_handler},       {HTTP_POST, "/echo", "echo", echo_handler},
    {HTTP_GET, "/page", "page", page_handler},    {HTTP_GET, "/big", "big", big_handler},
    {HTTP_GET, "/later", "later", later_handler}, {HTTP_GET, "/events", "events", events_handler},
};

static void prepare_cb(uv_prepare_t *handle)
{
    http_server_turn(child.server);
    if (!child.quiescing || http_server_pending(child.server) > 0 ||
        http_server_connections(child.server) > 0)
        return;
    http_server_free(&child.server);
    http_channel_free(&child.channel);
    uv_close((uv_handle_t *)handle, NULL);
    uv_close((uv_handle_t *)&child.frames, NULL);
    uv_close((uv_handle_t *)&child.later, NULL);
    uv_close((uv_handle_t *)&child.terminate, NULL);
}

static void terminate_cb(uv_signal_t *handle, int number)
{
    (void)handle;
    (void)number;
    child.quiescing = true;
    uv_timer_stop(&child.frames);
    http_channel_close(child.channel);
    http_server_quiesce(child.server);
}

static void serve(const struct http_settings *settings, int ready_fd)
{
    char error[200];
    child.big = malloc(HTTP_FIXTURE_BIG_BYTES);
    CHECK(child.big);
    memset(child.big, 'b', HTTP_FIXTURE_BIG_BYTES);
    child.prebuilt = http_response_new(400, HTTP_TYPE_PROBLEM, "{\"detail\":\"Insufficient stock\"}", 31);
    CHECK(uv_loop_init(&child.loop) == 0);
    child.server = http_server_new(&child.loop, settings, error, sizeof error);
    CHECK(child.server);
    child.channel = http_channel_new(child.server, "text/event-stream", 100);
    CHECK(uv_prepare_init(&child.loop, &child.prepare) == 0);
    CHECK(uv_prepare_start(&child.prepare, prepare_cb) == 0);
    CHECK(uv_timer_init(&child.loop, &child.frames) == 0);
    CHECK(uv_timer_start(&child.frames, frame_cb, FRAME_MS, FRAME_MS) == 0);
    CHECK(uv_timer_init(&child.loop, &child.later) == 0);
    CHECK(uv_signal_init(&child.loop, &child.terminate) == 0);
    CHECK(uv_signal_start(&child.terminate, terminate_cb, SIGTERM) == 0);
    CHECK(write(ready_fd, "r", 1) == 1);
    (void)uv_run(&child.loop, UV_RUN_DEFAULT);
    CHECK(uv_loop_close(&child.loop) == 0);
    http_response_free(&child.prebuilt);
    free(child.big);
}

static void fill_in(struct http_settings *settings, int listen_fd)
{
    settings->listen_fd = listen_fd;
    settings->routes = routes;
    settings->route_count = sizeof routes / sizeof routes[0];
    settings->connections_max = settings->connections_max ? settings->connections_max : 1024;
    settings->body_bytes_max = settings->body_bytes_max ? settings->body_bytes_max : 262144;
    settings->head_timeout_ms = settings->head_timeout_ms ? settings->head_timeout_ms : 10000;
    settings->body_timeout_ms = settings->body_timeout_ms ? settings->body_timeout_ms : 10000;
    settings->idle_timeout_ms = settings->idle_timeout_ms ? settings->idle_timeout_ms : 10000;
    settings->leave_grace_ms = settings->leave_grace_ms ? settings->leave_grace_ms : 50;
}

void http_fixture_start(struct http_fixture *fixture, const struct http_settings *wanted)
{
    struct sockaddr_in6 address = {.sin6_family = AF_INET6, .sin6_addr = IN6ADDR_ANY_INIT};
    socklen_t bytes = sizeof address;
    struct http_settings settings = *wanted;
    int ready[2], no = 0;
    char byte;

    /* as the server does: IPv4 clients come as mapped addresses */
    fixture->listen_fd = socket(AF_INET6, SOCK_STREAM | SOCK_NONBLOCK, 0);
    assert_true(fixture->listen_fd >= 0);
    assert_int_equal(setsockopt(fixture->listen_fd, IPPROTO_IPV6, IPV6_V6ONLY, &no, sizeof no), 0);
    assert_int_equal(bind(fixture->listen_fd, (struct sockaddr *)&address, sizeof address), 0);
    assert_int_equal(listen(fixture->listen_fd, 1024), 0);
    assert_int_equal(getsockname(fixture->listen_fd, (struct sockaddr *)&address, &bytes), 0);
    fixture->port = ntohs(address.sin6_port);
    fixture->leaving = false;
    fill_in(&settings, fixture->listen_fd);
    assert_int_equal(pipe(ready), 0);
    fflush(NULL);
    fixture->pid = fork();
    assert_true(fixture->pid >= 0);
    if (fixture->pid == 0) {
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL); /* a failed test leaves none behind */
        (void)close(ready[0]);
        serve(&settings, ready[1]);
        exit(0);
    }
    (void)close(ready[1]);
    assert_int_equal(read(ready[0], &byte, 1), 1);
    (void)close(ready[0]);
}

void http_fixture_leave(struct http_fixture *fixture)
{
    if (!fixture->leaving) /* a second signal might come after it has closed its handler */
        assert_int_equal(kill(fixture->pid, SIGTERM), 0);
    fixture->leaving = true;
}

void http_fixture_stop(struct http_fixture *fixture)
{
    int status = 0;
    pid_t pid;
    int64_t deadline = deadline_in(HTTP_FIXTURE_PATIENCE_MS);

    http_fixture_leave(fixture);
    while ((pid = waitpid(fixture->pid, &status, WNOHANG)) == 0 && wait_a_moment(deadline)) {
    }
    if (pid == 0) {
        (void)kill(fixture->pid, SIGKILL);
        (void)waitpid(fixture->pid, &status, 0);
        fail_msg("the server did not end");
    }
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
    (void)close(fixture->listen_fd);
}

int64_t http_fixture_cpu_ms(const struct http_fixture *fixture)
{
    char path[64], text[512] = "";
    long long user = 0, kernel = 0;
    snprintf(path, sizeof path, "/proc/%d/stat", (int)fixture->pid);
    FILE *file = fopen(path, "r");
    assert_non_null(file);
    text[fread(text, 1, sizeof text - 1, file)] = '\0';
    fclose(file);
    const char *rest = strrchr(text, ')');
    assert_non_null(rest);
    assert_int_equal(sscanf(rest, ") %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lld %lld", &user, &kernel),
                     2);
    return (user + kernel) * 1000 / sysconf(_SC_CLK_TCK);
}

void http_fixture_call(const struct http_fixture *fixture, const char *method, const char *target,
                       const char *headers, struct http_answer *answer)
{
    struct http_client client;
    assert_int_equal(http_client_open(&client, "127.0.0.1", fixture->port, HTTP_FIXTURE_PATIENCE_MS),
                     HTTP_CLIENT_OK);
    assert_int_equal(http_client_call(&client, method, target, headers,
                                      strcmp(method, "POST") == 0 ? "{}" : NULL, answer,
                                      HTTP_FIXTURE_PATIENCE_MS),
                     HTTP_CLIENT_OK);
    http_client_close(&client);
}

void expect_answer_header(const struct http_answer *answer, const char *name, const char *value)
{
    char given[512];
    const char *found = http_answer_header(answer, name, given, sizeof given);
    if ((value == NULL) != (found == NULL) || (value != NULL && strcmp(value, found) != 0))
        fail_msg("%s: %s instead of %s in\n%s", name, found ? found : "nothing", value ? value : "nothing",
                 answer->head);
}
