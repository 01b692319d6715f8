/* See crowd.h. The test process, one thread; owns the sockets and the epoll descriptor. Asserts only on what
 * cannot be the server's fault, and on answers that are not HTTP. */
#include "crowd.h"

#include "exchanges.h"
#include "testing.h"

#include <arpa/inet.h>
#include <errno.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define REQUEST_BYTES 4096
#define ANSWER_BYTES 65536
#define EVENTS_AT_ONCE 256

struct client {
    int fd; /* -1: none */
    uint16_t port;
    bool connected, busy, broke;
    unsigned requests; /* begun on this connection */
    size_t out_bytes, out_sent, in_bytes;
    int64_t sent_us;
    char out[REQUEST_BYTES];
    char *in; /* ANSWER_BYTES */
};

struct crowd {
    int epoll_fd;
    crowd_answer_cb cb;
    void *context;
    size_t client_count, busy, broken;
    struct client clients[];
};

struct crowd *crowd_new(uint16_t port, size_t clients, crowd_answer_cb cb, void *context)
{
    struct crowd *crowd = calloc(1, sizeof *crowd + clients * sizeof crowd->clients[0]);
    assert_non_null(crowd);
    crowd->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    assert_true(crowd->epoll_fd >= 0);
    crowd->cb = cb;
    crowd->context = context;
    crowd->client_count = clients;
    for (size_t i = 0; i < clients; i++) {
        crowd->clients[i].fd = -1;
        crowd->clients[i].port = port;
        crowd->clients[i].in = malloc(ANSWER_BYTES);
        assert_non_null(crowd->clients[i].in);
    }
    return crowd;
}

static void hang_up(struct client *client)
{
    if (client->fd >= 0) {
        close(client->fd);
    }
    client->fd = -1;
    client->connected = false;
    client->requests = 0;
    client->in_bytes = 0;
}

void crowd_move(struct crowd *crowd, size_t index, uint16_t port)
{
    struct client *client = &crowd->clients[index];
    assert_false(client->busy);
    if (client->port != port) {
        hang_up(client);
        client->port = port;
    }
}

void crowd_free(struct crowd **crowd)
{
    for (size_t i = 0; i < (*crowd)->client_count; i++) {
        hang_up(&(*crowd)->clients[i]);
        free((*crowd)->clients[i].in);
    }
    close((*crowd)->epoll_fd);
    free(*crowd);
    *crowd = NULL;
}

static void watch(struct crowd *crowd, struct client *client, int operation)
{
    struct epoll_event event = {.events = EPOLLIN, .data.u64 = (uint64_t)(client - crowd->clients)};
    if (!client->connected || client->out_sent < client->out_bytes) {
        event.events |= EPOLLOUT;
    }
    assert_int_equal(epoll_ctl(crowd->epoll_fd, operation, client->fd, &event), 0);
}

/* The connection is gone: told at the next step if a request was on its way. */
static void broken(struct crowd *crowd, struct client *client)
{
    if (client->busy && !client->broke) {
        client->broke = true;
        crowd->broken++;
        if (client->fd >= 0) { /* kept until it is told, for `connected` */
            close(client->fd);
            client->fd = -1;
        }
        return;
    }
    hang_up(client);
}

static void open_connection(struct crowd *crowd, struct client *client)
{
    struct sockaddr_in where = {
        .sin_family = AF_INET, .sin_port = htons(client->port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int one = 1;
    client->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    assert_true(client->fd >= 0);
    setsockopt(client->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (connect(client->fd, (struct sockaddr *)&where, sizeof where) != 0 && errno != EINPROGRESS) {
        broken(crowd, client);
        return;
    }
    watch(crowd, client, EPOLL_CTL_ADD);
}

static void send_rest(struct crowd *crowd, struct client *client)
{
    if (client->out_sent == 0) {
        client->sent_us = now_us();
    }
    while (client->out_sent < client->out_bytes) {
        ssize_t sent = send(client->fd, client->out + client->out_sent, client->out_bytes - client->out_sent,
                            MSG_NOSIGNAL);
        if (sent < 0 && errno == EAGAIN) {
            break;
        }
        if (sent < 0) {
            broken(crowd, client);
            return;
        }
        client->out_sent += (size_t)sent;
    }
    watch(crowd, client, EPOLL_CTL_MOD);
}

void crowd_request(struct crowd *crowd, size_t index, const char *method, const char *target,
                   const char *token, const char *body)
{
    crowd_request_with(crowd, index, method, target, token, "", body);
}

void crowd_request_with(struct crowd *crowd, size_t index, const char *method, const char *target,
                        const char *token, const char *headers, const char *body)
{
    struct client *client = &crowd->clients[index];
    assert_false(client->busy);
    int bytes = snprintf(client->out, sizeof client->out, "%s %s HTTP/1.1\r\nHost: 127.0.0.1\r\n%s%s%s%s",
                         method, target, token ? "Authorization: Bearer " : "", token ? token : "",
                         token ? "\r\n" : "", headers);
    bytes += body != NULL ? snprintf(client->out + bytes, sizeof client->out - (size_t)bytes,
                                     "Content-Type: application/json\r\nContent-Length: %zu\r\n\r\n%s",
                                     strlen(body), body)
                          : snprintf(client->out + bytes, sizeof client->out - (size_t)bytes, "\r\n");
    assert_in_range(bytes, 1, sizeof client->out - 1);
    client->out_bytes = (size_t)bytes;
    client->out_sent = 0;
    client->busy = true;
    client->broke = false;
    client->sent_us = now_us();
    crowd->busy++;
    if (client->fd < 0) {
        open_connection(crowd, client);
    } else if (client->connected) {
        send_rest(crowd, client);
    }
    client->requests++;
}

void crowd_buy(struct crowd *crowd, size_t client, const char *token, int64_t product_id, int64_t quantity)
{
    char body[96];
    snprintf(body, sizeof body, "{\"product_id\":%" PRId64 ",\"quantity\":%" PRId64 "}", product_id,
             quantity);
    crowd_request(crowd, client, "POST", "/api/purchases", token, body);
}

void crowd_buy_keyed(struct crowd *crowd, size_t client, const char *token, int64_t product_id,
                     int64_t quantity, const char *key)
{
    char more[REQUEST_BYTES / 2]; /* the line behind the token's */
    int bytes = snprintf(more, sizeof more, "%s\r\nIdempotency-Key: %s", token, key);
    assert_in_range(bytes, 1, sizeof more - 1);
    crowd_buy(crowd, client, more, product_id, quantity);
}

static void tell(struct crowd *crowd, struct client *client, const struct crowd_answer *answer)
{
    client->busy = client->broke = false;
    crowd->busy--;
    crowd->cb(crowd->context, (size_t)(client - crowd->clients), answer);
}

static void tell_broken(struct crowd *crowd)
{
    for (size_t i = 0; crowd->broken > 0 && i < crowd->client_count; i++) {
        struct client *client = &crowd->clients[i];
        if (client->broke) {
            struct crowd_answer answer = {.status = CROWD_BROKEN,
                                          .body = "",
                                          .sent_us = client->sent_us,
                                          .got_us = now_us(),
                                          .reused = client->requests > 1,
                                          .connected = client->connected};
            crowd->broken--;
            hang_up(client);
            tell(crowd, client, &answer);
        }
    }
}

/* The value of a header within the head, or NULL. */
static const char *header(const char *head, const char *end, const char *name)
{
    size_t bytes = strlen(name);
    for (const char *line = strstr(head, "\r\n"); line != NULL && line < end;
         line = strstr(line + 2, "\r\n")) {
        if (strncasecmp(line + 2, name, bytes) == 0 && line[2 + bytes] == ':') {
            const char *value = line + 3 + bytes;
            return value + strspn(value, " ");
        }
    }
    return NULL;
}

/* Hands over a complete answer, if there is one. */
static void take_answer(struct crowd *crowd, struct client *client)
{
    static char body[ANSWER_BYTES];
    client->in[client->in_bytes] = '\0';
    char *end = strstr(client->in, "\r\n\r\n");
    if (end == NULL) {
        assert_in_range(client->in_bytes, 0, ANSWER_BYTES / 2);
        return;
    }
    assert_int_equal(strncmp(client->in, "HTTP/1.1 ", 9), 0);
    const char *length = header(client->in, end + 2, "Content-Length");
    const char *connection = header(client->in, end + 2, "Connection");
    const char *replayed = header(client->in, end + 2, "Idempotent-Replayed");
    assert_non_null(length);
    size_t body_bytes = strtoul(length, NULL, 10), whole = (size_t)(end + 4 - client->in) + body_bytes;
    assert_in_range(whole, 1, ANSWER_BYTES - 1);
    if (client->in_bytes < whole) {
        return;
    }
    assert_true(client->busy);
    assert_int_equal(client->in_bytes, whole); /* no second answer to one request */
    memcpy(body, end + 4, body_bytes);
    body[body_bytes] = '\0';
    struct crowd_answer answer = {.status = (int)strtol(client->in + 9, NULL, 10),
                                  .body = body,
                                  .sent_us = client->sent_us,
                                  .got_us = now_us(),
                                  .reused = client->requests > 1,
                                  .replayed = replayed != NULL && strncmp(replayed, "true\r", 5) == 0,
                                  .connected = true};
    if (exchanges_wanted()) {
        end[2] = '\0';
        exchanges_record(client->out, client->out_bytes, client->in, body, body_bytes);
    }
    client->in_bytes = 0;
    if (connection != NULL && strncasecmp(connection, "close", 5) == 0) {
        hang_up(client);
    }
    tell(crowd, client, &answer);
}

static void receive(struct crowd *crowd, struct client *client)
{
    ssize_t bytes = recv(client->fd, client->in + client->in_bytes, ANSWER_BYTES - 1 - client->in_bytes, 0);
    if (bytes > 0) {
        client->in_bytes += (size_t)bytes;
        take_answer(crowd, client);
    } else if (bytes == 0 || errno != EAGAIN) {
        broken(crowd, client);
    }
}

static void handle(struct crowd *crowd, const struct epoll_event *event)
{
    struct client *client = &crowd->clients[event->data.u64];
    if (client->fd < 0) {
        return; /* closed earlier in this step */
    }
    if (!client->connected && (event->events & (EPOLLOUT | EPOLLERR | EPOLLHUP))) {
        int fault = 0;
        socklen_t bytes = sizeof fault;
        getsockopt(client->fd, SOL_SOCKET, SO_ERROR, &fault, &bytes);
        if (fault != 0) {
            broken(crowd, client);
            return;
        }
        client->connected = true;
        send_rest(crowd, client);
    } else if (event->events & EPOLLOUT) {
        send_rest(crowd, client);
    }
    if (client->fd >= 0 && (event->events & (EPOLLIN | EPOLLERR | EPOLLHUP))) {
        receive(crowd, client);
    }
}

void crowd_step(struct crowd *crowd, int timeout_ms)
{
    struct epoll_event events[EVENTS_AT_ONCE];
    tell_broken(crowd);
    int count = epoll_wait(crowd->epoll_fd, events, EVENTS_AT_ONCE, crowd->broken > 0 ? 0 : timeout_ms);
    for (int i = 0; i < count; i++) {
        handle(crowd, &events[i]);
    }
    tell_broken(crowd);
}

size_t crowd_busy(const struct crowd *crowd)
{
    return crowd->busy;
}

bool crowd_finish(struct crowd *crowd, int timeout_ms)
{
    int64_t deadline = deadline_in(timeout_ms);
    while (crowd->busy > 0 && now_us() < deadline) {
        crowd_step(crowd, 10);
    }
    return crowd->busy == 0;
}

static bool all_connected(const struct crowd *crowd)
{
    for (size_t i = 0; i < crowd->client_count; i++) {
        if (!crowd->clients[i].connected) {
            return false;
        }
    }
    return true;
}

bool crowd_connect(struct crowd *crowd, int timeout_ms)
{
    int64_t deadline = deadline_in(timeout_ms);
    while (!all_connected(crowd) && now_us() < deadline) {
        for (size_t i = 0; i < crowd->client_count; i++) {
            if (crowd->clients[i].fd < 0) {
                crowd->clients[i].out_bytes = crowd->clients[i].out_sent = 0;
                open_connection(crowd, &crowd->clients[i]);
            }
        }
        crowd_step(crowd, 10);
    }
    return all_connected(crowd);
}
