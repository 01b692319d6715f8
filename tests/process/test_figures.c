/* The live figures of the real server, on whichever gate: that /api/figures and /api/events show what was sold, follow a restock, and say so when
 * nobody keeps the books. */
#include "testing.h"

#include "http_client.h"
#include "sale_fixture.h"

#include "doorbuster/json.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#define ANSWER_MS 10000
#define FOLLOWS_MS 10000 /* sanitizers, and other tests beside this one */
#define STOCK 5

static struct sale_fixture sale;

/* --- looking -------------------------------------------------------------------------------------------------------------------------- */
static cJSON *figures(void)
{
    struct http_client client = {.fd = -1};
    struct http_answer answer;
    assert_int_equal(http_client_open(&client, "127.0.0.1", sale.server.port, ANSWER_MS), HTTP_CLIENT_OK);
    assert_int_equal(http_client_call(&client, "GET", "/api/figures", NULL, NULL, &answer, ANSWER_MS),
                     HTTP_CLIENT_OK);
    assert_int_equal(answer.status, 200);
    cJSON *json = json_parse_object(answer.body, answer.body_bytes);
    assert_non_null(json);
    http_answer_free(&answer);
    http_client_close(&client);
    return json;
}

/* "products.0.sold"; NULL: there is none. */
static const cJSON *member(const cJSON *json, const char *path)
{
    char copy[128], *rest = copy, *name;
    snprintf(copy, sizeof copy, "%s", path);
    while (json != NULL && (name = strsep(&rest, ".")) != NULL) {
        json = cJSON_IsArray(json) ? cJSON_GetArrayItem(json, atoi(name))
                                   : cJSON_GetObjectItemCaseSensitive(json, name);
    }
    return json;
}

/* Numbers, truth and text alike as they are printed: "5", "true", "\"confirmed\"". */
static bool is(const cJSON *json, const char *path, const char *value)
{
    const cJSON *found = member(json, path);
    char *text = found != NULL ? cJSON_PrintUnformatted(found) : NULL;
    bool equal = text != NULL && strcmp(text, value) == 0;
    cJSON_free(text);
    return equal;
}

struct expected {
    const char *path, *value;
};

static void await_figures(const struct expected *expected, size_t count)
{
    int64_t deadline = deadline_in(FOLLOWS_MS);
    size_t holds = 0;
    while (holds < count) {
        cJSON *json = figures();
        for (holds = 0; holds < count && is(json, expected[holds].path, expected[holds].value); holds++) {
        }
        if (holds < count && !wait_a_moment(deadline)) {
            char *text = cJSON_Print(json);
            print_message("%s\n", text);
            fail_msg("%s never became %s", expected[holds].path, expected[holds].value);
        }
        cJSON_Delete(json);
    }
}

#define AWAIT_FIGURES(...)                                                                                   \
    await_figures((const struct expected[]){__VA_ARGS__},                                                    \
                  sizeof((const struct expected[]){__VA_ARGS__}) / sizeof(struct expected))

/* --- tests ---------------------------------------------------------------------------------------------------------------------------- */
static void test_they_show_what_was_sold(void **state)
{
    int64_t product = sale_fixture_add_product(&sale, STOCK, 0);
    (void)state;
    for (size_t buyer = 0; buyer < 3; buyer++) {
        assert_int_equal(sale_fixture_buy(&sale, buyer, product, 1), 201);
    }
    assert_int_equal(sale_fixture_buy(&sale, 3, product, 3), 400);
    AWAIT_FIGURES({"products.0.sold", "3"}, {"products.0.stock", "2"}, {"products.0.available", "2"},
                  {"products.0.opening", "5"}, {"products.0.books_equal", "true"}, {"products_total", "1"},
                  {"orders.0.id", "3"}, {"orders.0.state", "\"confirmed\""},
                  {"orders.0.lines.0.quantity", "1"}, {"orders_total", "3"}, {"totals.confirmed", "3"},
                  {"totals.sold_out", "1"}, {"books.equal", "true"}, {"recorder.up", "true"},
                  {"recorder.active", "true"}, {"recorder.lag_entries", "0"});
    cJSON *json = figures();
    assert_true(cJSON_IsString(member(json, "books.compared_at")));
    assert_true(cJSON_IsNumber(member(json, "latency_ms.p99")));
    cJSON_Delete(json);
}

/* Whoever begins to look sees what was before. */
static void test_they_have_a_past(void **state)
{
    int64_t deadline = deadline_in(FOLLOWS_MS);
    double sold = 0;
    (void)state;
    while (sold == 0) {
        cJSON *json = figures();
        const cJSON *point;
        cJSON_ArrayForEach(point, member(json, "history"))
        {
            sold += member(point, "confirmed")->valuedouble;
            assert_true(cJSON_IsString(member(point, "at")));
        }
        cJSON_Delete(json);
        assert_true(sold > 0 || wait_a_moment(deadline));
    }
}

static void test_they_follow_a_restock(void **state)
{
    (void)state;
    server_fixture_restock(&sale.server, sale.products[0], 7);
    AWAIT_FIGURES({"products.0.restocked", "7"}, {"products.0.available", "9"});
}

/* Of a reply that has no end. */
static size_t count_events(const char *text)
{
    size_t events = 0;
    for (; (text = strstr(text, "event: figures\ndata: {")) != NULL; text++) {
        events++;
    }
    return events;
}

static void open_stream(struct http_client *client)
{
    *client = (struct http_client){.fd = -1};
    assert_int_equal(http_client_open(client, "127.0.0.1", sale.server.port, ANSWER_MS), HTTP_CLIENT_OK);
    assert_int_equal(http_client_request(client, "GET", "/api/events", NULL, NULL, 0, ANSWER_MS),
                     HTTP_CLIENT_OK);
}

static void test_the_stream_goes_on(void **state)
{
    static char text[65536];
    struct http_client client;
    size_t bytes = 0;
    int64_t deadline = deadline_in(FOLLOWS_MS);
    (void)state;
    open_stream(&client);
    while (count_events(text) < 3 && wait_a_moment(deadline)) {
        ssize_t got = recv(client.fd, text + bytes, sizeof text - 1 - bytes, MSG_DONTWAIT);
        bytes += got > 0 ? (size_t)got : 0;
        text[bytes] = '\0';
    }
    assert_in_range(count_events(text), 3, 4);
    assert_non_null(strstr(text, "Content-Type: text/event-stream"));
    http_client_close(&client);
}

/* The last figures stay, but nobody may take them for today's. */
static void test_a_silent_bookkeeper_is_not_up(void **state)
{
    pid_t bookkeeper = server_fixture_child(&sale.server, server_fixture_bookkeeper());
    (void)state;
    assert_int_equal(kill(bookkeeper, SIGSTOP), 0);
    AWAIT_FIGURES({"recorder.up", "false"}, {"products.0.sold", "3"});
    assert_int_equal(kill(bookkeeper, SIGCONT), 0);
    AWAIT_FIGURES({"recorder.up", "true"});
}

static void test_it_stops_under_a_stream(void **state)
{
    struct http_client client;
    (void)state;
    open_stream(&client);
    AWAIT_FIGURES({"recorder.up", "true"}); /* by now the stream is there */
    server_fixture_verify(&sale.server, 0);
    server_fixture_stop(&sale.server);
    http_client_close(&client);
}

/* A client that asks for the head alone gets nothing behind it, and the connection ends: no stray bytes before a next
 * answer. */
static void test_a_head_has_no_stream(void **state)
{
    static const char head[] = "HEAD /api/events HTTP/1.1\r\nHost: x\r\n\r\n";
    static char text[4096];
    struct http_client client = {.fd = -1};
    size_t bytes = 0;
    ssize_t got;
    int64_t deadline = deadline_in(ANSWER_MS);
    (void)state;
    assert_int_equal(http_client_open(&client, "127.0.0.1", sale.server.port, ANSWER_MS), HTTP_CLIENT_OK);
    assert_int_equal(http_client_send(&client, head, sizeof head - 1, ANSWER_MS, NULL), HTTP_CLIENT_OK);
    while ((got = recv(client.fd, text + bytes, sizeof text - 1 - bytes, MSG_DONTWAIT)) != 0) {
        bytes += got > 0 ? (size_t)got : 0;
        assert_true(got > 0 || wait_a_moment(deadline));
    }
    assert_int_equal(strncmp(text, "HTTP/1.1 200 ", 13), 0);
    assert_string_equal(strstr(text, "\r\n\r\n"), "\r\n\r\n");
    http_client_close(&client);
}

/* Known to the worker, and between two requests. */
static void open_idle(struct http_client *client)
{
    struct http_answer answer;
    assert_int_equal(http_client_open(client, "127.0.0.1", sale.server.port, ANSWER_MS), HTTP_CLIENT_OK);
    assert_int_equal(http_client_request(client, "GET", "/health", NULL, NULL, 0, ANSWER_MS), HTTP_CLIENT_OK);
    assert_int_equal(http_client_read(client, &answer, ANSWER_MS), HTTP_CLIENT_OK);
    assert_int_equal(answer.status, 200);
    http_answer_free(&answer);
}

/* A worker that leaves still answers whose request has begun: there is no stream any more, and that is all. */
static void test_a_stream_is_asked_for_while_it_leaves(void **state)
{
    static const char begun[] = "GET /api/events HTTP/1.1\r\n", rest[] = "Host: x\r\n\r\n";
    struct http_client idle = {.fd = -1}, asking = {.fd = -1};
    struct http_answer answer;
    (void)state;
    server_fixture_start(&sale.server, 1, NULL, NULL);
    AWAIT_FIGURES({"recorder.up", "true"}); /* there is a frame to send by then */
    pid_t worker = server_fixture_child(&sale.server, "doorbuster: worker 0");
    open_idle(&idle);
    open_idle(&asking);
    assert_int_equal(http_client_send(&asking, begun, sizeof begun - 1, ANSWER_MS, NULL), HTTP_CLIENT_OK);
    assert_int_equal(kill(worker, SIGTERM), 0);
    assert_int_equal(http_client_read(&idle, &answer, ANSWER_MS), HTTP_CLIENT_CLOSED); /* so it leaves */
    assert_int_equal(http_client_send(&asking, rest, sizeof rest - 1, ANSWER_MS, NULL), HTTP_CLIENT_OK);
    assert_int_equal(http_client_read(&asking, &answer, ANSWER_MS), HTTP_CLIENT_OK);
    assert_int_equal(answer.status, 503);
    http_answer_free(&answer);
    http_client_close(&asking);
    http_client_close(&idle);
    server_fixture_stop(&sale.server);
}

static int setup(void **state)
{
    (void)state;
    sale_fixture_begin(&sale, 1, 4, NULL, NULL);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    sale_fixture_end(&sale);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_they_show_what_was_sold),
        cmocka_unit_test(test_they_have_a_past),
        cmocka_unit_test(test_they_follow_a_restock),
        cmocka_unit_test(test_the_stream_goes_on),
        cmocka_unit_test(test_a_silent_bookkeeper_is_not_up),
        cmocka_unit_test(test_a_head_has_no_stream),
        cmocka_unit_test(test_it_stops_under_a_stream),
        cmocka_unit_test(test_a_stream_is_asked_for_while_it_leaves),
    };
    signal(SIGPIPE, SIG_IGN);
    return cmocka_run_group_tests(tests, setup, teardown);
}
