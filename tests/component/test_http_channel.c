/* Replies without an end, against real sockets. Server and clients are in one thread: step() turns the loop once, clients never block, so each test
 * decides who is slow. */
#include "doorbuster/check.h"
#include "doorbuster/clock.h"
#include "doorbuster/http.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka wants the four above first */
#include <arpa/inet.h>
#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define PATIENCE_US 20000000
#define STREAMS_MAX 3
#define IDLE_MS 1500 /* longer than a busy machine lets a process wait */
#define RECEIVED_MAX (8u << 20)
#define BIG_FRAME 200000

static struct {
    uv_loop_t loop;
    struct http_server *server;
    struct http_channel *channel;
    int listen_fd;
    uint16_t port;
} this;

static void stream_handler(struct http_request *request, void *context)
{
    (void)context;
    if (!http_reply_channel(request, this.channel))
        http_reply_bytes(request, 503, "text/plain", "full", 4);
}

static const struct http_route routes[] = {{HTTP_GET, "/stream", "stream", stream_handler}};

/* --- the loop ------------------------------------------------------------------------------------------------------------------------- */
static void step(void)
{
    http_server_turn(this.server);
    (void)uv_run(&this.loop, UV_RUN_NOWAIT);
}

static int begin(void **state)
{
    char error[200];
    struct sockaddr_in where = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t bytes = sizeof where;
    (void)state;
    this.listen_fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    assert_int_equal(bind(this.listen_fd, (struct sockaddr *)&where, sizeof where), 0);
    assert_int_equal(listen(this.listen_fd, 64), 0);
    assert_int_equal(getsockname(this.listen_fd, (struct sockaddr *)&where, &bytes), 0);
    this.port = where.sin_port;
    struct http_settings settings = {.listen_fd = this.listen_fd,
                                     .connections_max = 64,
                                     .body_bytes_max = 1024,
                                     .head_timeout_ms = 5000,
                                     .body_timeout_ms = 5000,
                                     .idle_timeout_ms = IDLE_MS,
                                     .routes = routes,
                                     .route_count = 1};
    assert_int_equal(uv_loop_init(&this.loop), 0);
    this.server = http_server_new(&this.loop, &settings, error, sizeof error);
    assert_non_null(this.server);
    this.channel = http_channel_new(this.server, "text/event-stream", STREAMS_MAX);
    return 0;
}

static int end(void **state)
{
    int64_t deadline_us = clock_monotonic_us() + PATIENCE_US;
    (void)state;
    http_channel_close(this.channel);
    http_server_quiesce(this.server);
    while (http_server_connections(this.server) > 0 && clock_monotonic_us() < deadline_us)
        step();
    assert_int_equal(http_server_connections(this.server), 0);
    http_server_free(&this.server);
    http_channel_free(&this.channel);
    (void)uv_run(&this.loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&this.loop), 0);
    (void)close(this.listen_fd);
    return 0;
}

/* --- clients -------------------------------------------------------------------------------------------------------------------------- */
struct client {
    int fd;
    char *received;
    size_t bytes;
    bool closed;
};

static void open_client(struct client *client, const char *request, int receive_buffer)
{
    struct sockaddr_in where = {
        .sin_family = AF_INET, .sin_port = this.port, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    *client = (struct client){.fd = socket(AF_INET, SOCK_STREAM, 0), .received = calloc(1, RECEIVED_MAX + 1)};
    assert_non_null(client->received);
    if (receive_buffer > 0)
        setsockopt(client->fd, SOL_SOCKET, SO_RCVBUF, &receive_buffer, sizeof receive_buffer);
    assert_int_equal(connect(client->fd, (struct sockaddr *)&where, sizeof where), 0);
    assert_int_equal(send(client->fd, request, strlen(request), 0), strlen(request));
    (void)fcntl(client->fd, F_SETFL, O_NONBLOCK);
}

static void open_stream(struct client *client)
{
    open_client(client, "GET /stream HTTP/1.1\r\nHost: a\r\n\r\n", 0);
}

static void close_client(struct client *client)
{
    (void)close(client->fd);
    free(client->received);
}

static void take(struct client *client)
{
    ssize_t got;
    while ((got = recv(client->fd, client->received + client->bytes, RECEIVED_MAX - client->bytes, 0)) > 0)
        client->bytes += (size_t)got;
    client->received[client->bytes] = '\0';
    client->closed = client->closed || got == 0 || (got < 0 && errno != EAGAIN);
}

static bool await_text(struct client *client, const char *text)
{
    int64_t deadline_us = clock_monotonic_us() + PATIENCE_US;
    while (!strstr(client->received, text) && clock_monotonic_us() < deadline_us) {
        step();
        take(client);
    }
    return strstr(client->received, text) != NULL;
}

static bool await_streams(size_t count)
{
    int64_t deadline_us = clock_monotonic_us() + PATIENCE_US;
    while (http_channel_streams(this.channel) != count && clock_monotonic_us() < deadline_us)
        step();
    return http_channel_streams(this.channel) == count;
}

static void send_frame(const char *text)
{
    http_channel_send(this.channel, text, strlen(text));
}

/* --- tests ---------------------------------------------------------------------------------------------------------------------------- */
static void test_every_stream_gets_the_frames(void **state)
{
    struct client a, b;
    (void)state;
    open_stream(&a);
    assert_true(await_streams(1));
    send_frame("data: one\n\n");
    assert_true(await_text(&a, "data: one\n\n"));
    assert_non_null(strstr(a.received, "Content-Type: text/event-stream"));
    assert_non_null(strstr(a.received, "Transfer-Encoding: chunked"));
    open_stream(&b); /* the last one is there at once */
    assert_true(await_text(&b, "data: one\n\n"));
    send_frame("data: two\n\n");
    assert_true(await_text(&a, "data: two\n\n"));
    assert_true(await_text(&b, "data: two\n\n"));
    close_client(&a);
    close_client(&b);
}

/* Frame n: a line with its number, then so many letters. */
static void send_big(unsigned n)
{
    static char text[BIG_FRAME + 1];
    int head = snprintf(text, sizeof text, "<%u>", n);
    memset(text + head, 'x', sizeof text - 1 - (size_t)head);
    text[BIG_FRAME - 1] = '.';
    text[BIG_FRAME] = '\0';
    send_frame(text);
}

/* Takes the chunks' heads out, in place. */
static size_t without_chunks(char *text, size_t bytes)
{
    char *body = strstr(text, "\r\n\r\n") + 4, *to = text, *from = body;
    while (from < text + bytes) {
        char *data;
        size_t size = strtoul(from, &data, 16);
        data += 2;
        if (size == 0 || data + size > text + bytes)
            break;
        memmove(to, data, size);
        to += size;
        from = data + size + 2;
    }
    *to = '\0';
    return (size_t)(to - text);
}

/* Whole frames only, in order, though not all; the last is the newest. */
static void test_a_slow_client_misses_frames_never_parts(void **state)
{
    struct client slow;
    (void)state;
    open_client(&slow, "GET /stream HTTP/1.1\r\nHost: a\r\n\r\n", 4096);
    assert_true(await_streams(1));
    unsigned sent = 0;
    for (; sent < 100; sent++) { /* 20 MB, of which the socket holds some */
        send_big(sent);
        for (int i = 0; i < 3; i++)
            step();
    }
    send_frame("<last>");
    assert_true(await_text(&slow, "<last>"));
    size_t bytes = without_chunks(slow.received, slow.bytes), frames = 0;
    unsigned long before = 0;
    char *at = slow.received;
    while (strncmp(at, "<last>", 6) != 0) {
        char *after;
        assert_int_equal(*at, '<');
        unsigned long number = strtoul(at + 1, &after, 10);
        assert_true(frames == 0 || number > before);
        before = number;
        at += BIG_FRAME;
        assert_true(at <= slow.received + bytes);
        assert_int_equal(at[-1], '.');
        frames++;
    }
    assert_true(frames >= 1 && frames < sent); /* a test in which nothing is missed would show nothing */
    close_client(&slow);
}

static void test_there_are_no_more_streams_than_allowed(void **state)
{
    struct client clients[STREAMS_MAX], late;
    (void)state;
    for (size_t i = 0; i < STREAMS_MAX; i++)
        open_stream(&clients[i]);
    assert_true(await_streams(STREAMS_MAX));
    open_stream(&late);
    assert_true(await_text(&late, "full"));
    assert_non_null(strstr(late.received, " 503 "));
    close_client(&clients[0]);
    send_frame("data: news\n\n"); /* that is when it is noticed, */
    send_frame("data: news\n\n");
    int64_t deadline_us = clock_monotonic_us() + PATIENCE_US;
    while (http_channel_streams(this.channel) == STREAMS_MAX && clock_monotonic_us() < deadline_us) {
        step();
        send_frame("data: news\n\n"); /* or with the next: the first is lost in the socket */
    }
    assert_int_equal(http_channel_streams(this.channel), STREAMS_MAX - 1);
    close_client(&late);
    open_stream(&late);
    assert_true(await_streams(STREAMS_MAX));
    for (size_t i = 1; i < STREAMS_MAX; i++)
        close_client(&clients[i]);
    close_client(&late);
}

static void test_closing_ends_the_streams_properly(void **state)
{
    struct client client, old;
    (void)state;
    open_stream(&client);
    open_client(&old, "GET /stream HTTP/1.0\r\n\r\n", 0);
    assert_true(await_streams(2));
    send_frame("data: bye\n\n");
    http_channel_close(this.channel);
    assert_true(await_text(&client, "\r\n0\r\n\r\n"));
    assert_non_null(strstr(client.received, "data: bye\n\n"));
    assert_true(await_text(&old, "data: bye\n\n"));
    int64_t deadline_us = clock_monotonic_us() + PATIENCE_US;
    while (!old.closed && clock_monotonic_us() < deadline_us) {
        step();
        take(&old);
    }
    assert_true(old.closed);
    assert_true(await_streams(0));
    close_client(&client);
    close_client(&old);
}

static void test_head_gets_no_stream(void **state)
{
    struct client client;
    (void)state;
    send_frame("data: one\n\n");
    open_client(&client, "HEAD /stream HTTP/1.1\r\nHost: a\r\n\r\n", 0);
    assert_true(await_text(&client, "\r\n\r\n"));
    assert_true(await_streams(0));
    assert_null(strstr(client.received, "data:"));
    close_client(&client);
}

/* It holds a connection, a request and a frame, and must not for ever. */
static void test_a_client_that_takes_nothing_is_hung_up_on(void **state)
{
    struct client stuck, alive;
    (void)state;
    open_client(&stuck, "GET /stream HTTP/1.1\r\nHost: a\r\n\r\n", 4096);
    open_stream(&alive);
    assert_true(await_streams(2));
    int64_t deadline_us = clock_monotonic_us() + PATIENCE_US;
    unsigned sent = 0;
    while (http_channel_streams(this.channel) == 2 && clock_monotonic_us() < deadline_us) {
        send_big(sent++);
        step();
        take(&alive);
        alive.bytes = 0;
    }
    assert_int_equal(http_channel_streams(this.channel), 1);
    send_frame("<still there>");
    assert_true(await_text(&alive, "<still there>"));
    close_client(&stuck);
    close_client(&alive);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_every_stream_gets_the_frames, begin, end),
        cmocka_unit_test_setup_teardown(test_a_slow_client_misses_frames_never_parts, begin, end),
        cmocka_unit_test_setup_teardown(test_there_are_no_more_streams_than_allowed, begin, end),
        cmocka_unit_test_setup_teardown(test_closing_ends_the_streams_properly, begin, end),
        cmocka_unit_test_setup_teardown(test_head_gets_no_stream, begin, end),
        cmocka_unit_test_setup_teardown(test_a_client_that_takes_nothing_is_hung_up_on, begin, end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
