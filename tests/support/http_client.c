/* See http_client.h. Runs in test processes, on any thread; owns one socket and one buffer a client; every
 * fault is a result. */
#include "http_client.h"

#include "exchanges.h"

#include <arpa/inet.h>
#include <errno.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define ANSWER_BYTES_MAX ((size_t)64 << 20)

static int64_t now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* False if the deadline came first. */
static bool wait_for(const struct http_client *client, short events, int64_t deadline_ms)
{
    struct pollfd poll_fd = {client->fd, events, 0};
    for (;;) {
        int64_t left_ms = deadline_ms - now_ms();
        int ready = poll(&poll_fd, 1, left_ms > 0 ? (int)left_ms : 0);
        if (ready > 0)
            return true;
        if (ready == 0 || errno != EINTR)
            return false;
    }
}

enum http_client_result http_client_open(struct http_client *client, const char *host, uint16_t port,
                                         int timeout_ms)
{
    const struct addrinfo hints = {.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV, .ai_socktype = SOCK_STREAM};
    struct addrinfo *address;
    char service[8];
    int fault = 0, one = 1;
    socklen_t fault_bytes = sizeof fault;

    *client = (struct http_client){.fd = -1, .port = port};
    (void)snprintf(client->host, sizeof client->host, "%s", host);
    (void)snprintf(service, sizeof service, "%u", port);
    if (getaddrinfo(host, service, &hints, &address) != 0)
        return HTTP_CLIENT_BROKEN;
    client->fd = socket(address->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    int rc = client->fd < 0 ? -1 : connect(client->fd, address->ai_addr, address->ai_addrlen);
    bool in_progress = rc != 0 && errno == EINPROGRESS;
    freeaddrinfo(address);
    if (in_progress && !wait_for(client, POLLOUT, now_ms() + timeout_ms)) {
        http_client_close(client);
        return HTTP_CLIENT_TIMEOUT;
    }
    if (in_progress)
        rc = getsockopt(client->fd, SOL_SOCKET, SO_ERROR, &fault, &fault_bytes) == 0 && fault == 0 ? 0 : -1;
    if (rc != 0) {
        http_client_close(client);
        return HTTP_CLIENT_BROKEN;
    }
    (void)setsockopt(client->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    return HTTP_CLIENT_OK;
}

bool http_client_own_address(char out[64])
{
    struct ifaddrs *all, *one;
    bool found = false;
    if (getifaddrs(&all) != 0)
        return false;
    for (one = all; one && !found; one = one->ifa_next)
        found = one->ifa_addr && one->ifa_addr->sa_family == AF_INET && (one->ifa_flags & IFF_UP) &&
                !(one->ifa_flags & IFF_LOOPBACK) &&
                getnameinfo(one->ifa_addr, sizeof(struct sockaddr_in), out, 64, NULL, 0, NI_NUMERICHOST) == 0;
    freeifaddrs(all);
    return found;
}

void http_client_close(struct http_client *client)
{
    if (client->fd >= 0)
        (void)close(client->fd);
    free(client->buffer);
    free(client->asked);
    client->fd = -1;
    client->buffer = client->asked = NULL;
    client->used = client->room = client->unanswered = 0;
}

enum http_client_result http_client_send(struct http_client *client, const void *bytes, size_t count,
                                         int timeout_ms, size_t *sent)
{
    int64_t deadline_ms = now_ms() + timeout_ms;
    enum http_client_result result = HTTP_CLIENT_OK;
    size_t done = 0;

    while (done < count && result == HTTP_CLIENT_OK) {
        ssize_t part = send(client->fd, (const char *)bytes + done, count - done, MSG_NOSIGNAL);
        if (part >= 0)
            done += (size_t)part;
        else if (errno == EAGAIN)
            result = wait_for(client, POLLOUT, deadline_ms) ? HTTP_CLIENT_OK : HTTP_CLIENT_TIMEOUT;
        else if (errno != EINTR)
            result = HTTP_CLIENT_BROKEN;
    }
    if (sent)
        *sent = done;
    return result;
}

/* Takes the text. With two requests on their way it is not known which one an answer is to. */
static void keep_asked(struct http_client *client, char *text, size_t bytes)
{
    bool is_alone = client->unanswered++ == 0 && exchanges_wanted();
    free(client->asked);
    client->asked = is_alone ? text : NULL;
    client->asked_bytes = bytes;
    if (!is_alone)
        free(text);
}

static void record(struct http_client *client, const struct http_answer *answer)
{
    if (answer->status < 200)
        return;
    exchanges_record(client->asked, client->asked_bytes, answer->head, answer->body, answer->body_bytes);
    free(client->asked);
    client->asked = NULL;
    client->unanswered -= client->unanswered > 0;
}

enum http_client_result http_client_request(struct http_client *client, const char *method,
                                            const char *target, const char *headers, const void *body,
                                            size_t body_bytes, int timeout_ms)
{
    size_t room = 256 + strlen(method) + strlen(target) + (headers ? strlen(headers) : 0) + body_bytes;
    char *text = malloc(room);
    if (!text)
        return HTTP_CLIENT_BROKEN;
    int head = snprintf(text, room, "%s %s HTTP/1.1\r\nHost: %s:%u\r\n%s", method, target, client->host,
                        client->port, headers ? headers : "");
    if (body)
        head += snprintf(text + head, room - (size_t)head, "Content-Length: %zu\r\n", body_bytes);
    head += snprintf(text + head, room - (size_t)head, "\r\n");
    if (body)
        memcpy(text + head, body, body_bytes);
    client->no_body = strcmp(method, "HEAD") == 0;
    size_t bytes = (size_t)head + (body ? body_bytes : 0);
    enum http_client_result result = http_client_send(client, text, bytes, timeout_ms, NULL);
    keep_asked(client, text, bytes);
    return result;
}

/* At least one more byte in the buffer. */
static enum http_client_result receive(struct http_client *client, int64_t deadline_ms)
{
    if (client->room - client->used < 4096) {
        size_t room = client->room ? 2 * client->room : 16384;
        char *grown = room > ANSWER_BYTES_MAX ? NULL : realloc(client->buffer, room);
        if (!grown)
            return HTTP_CLIENT_MALFORMED;
        client->buffer = grown;
        client->room = room;
    }
    for (;;) {
        ssize_t bytes =
            recv(client->fd, client->buffer + client->used, client->room - client->used - 1, MSG_DONTWAIT);
        if (bytes > 0) {
            client->used += (size_t)bytes;
            client->buffer[client->used] = '\0';
            return HTTP_CLIENT_OK;
        }
        if (bytes == 0)
            return HTTP_CLIENT_CLOSED;
        if (errno != EAGAIN && errno != EINTR)
            return HTTP_CLIENT_BROKEN;
        if (errno == EAGAIN && !wait_for(client, POLLIN, deadline_ms))
            return HTTP_CLIENT_TIMEOUT;
    }
}

static enum http_client_result receive_up_to(struct http_client *client, size_t bytes, int64_t deadline_ms)
{
    while (client->used < bytes) {
        enum http_client_result result = receive(client, deadline_ms);
        if (result != HTTP_CLIENT_OK)
            return result == HTTP_CLIENT_CLOSED && client->used > 0 ? HTTP_CLIENT_BROKEN : result;
    }
    return HTTP_CLIENT_OK;
}

/* Receives until `mark` is in the buffer at or after `from`; *at is where. */
static enum http_client_result receive_mark(struct http_client *client, size_t from, const char *mark,
                                            size_t *at, int64_t deadline_ms)
{
    for (;;) {
        char *found = client->used > from
                          ? memmem(client->buffer + from, client->used - from, mark, strlen(mark))
                          : NULL;
        if (found) {
            *at = (size_t)(found - client->buffer);
            return HTTP_CLIENT_OK;
        }
        enum http_client_result result = receive_up_to(client, client->used + 1, deadline_ms);
        if (result != HTTP_CLIENT_OK)
            return result;
    }
}

static void drop(struct http_client *client, size_t bytes)
{
    memmove(client->buffer, client->buffer + bytes, client->used - bytes);
    client->used -= bytes;
    client->buffer[client->used] = '\0';
}

static bool append(struct http_answer *answer, const char *bytes, size_t count)
{
    char *grown = realloc(answer->body, answer->body_bytes + count + 1);
    if (!grown)
        return false;
    memcpy(grown + answer->body_bytes, bytes, count);
    answer->body = grown;
    answer->body_bytes += count;
    grown[answer->body_bytes] = '\0';
    return true;
}

static enum http_client_result read_chunks(struct http_client *client, struct http_answer *answer,
                                           int64_t deadline_ms)
{
    for (;;) {
        size_t at;
        enum http_client_result result = receive_mark(client, 0, "\r\n", &at, deadline_ms);
        if (result != HTTP_CLIENT_OK)
            return result;
        size_t size = strtoul(client->buffer, NULL, 16);
        if (size > ANSWER_BYTES_MAX)
            return HTTP_CLIENT_MALFORMED;
        drop(client, at + 2);
        result = receive_up_to(client, size + 2, deadline_ms);
        if (result != HTTP_CLIENT_OK)
            return result;
        if (memcmp(client->buffer + size, "\r\n", 2) != 0 || !append(answer, client->buffer, size))
            return HTTP_CLIENT_MALFORMED;
        drop(client, size + 2);
        if (size == 0)
            return HTTP_CLIENT_OK;
    }
}

static enum http_client_result read_body(struct http_client *client, struct http_answer *answer,
                                         int64_t deadline_ms)
{
    char value[64];

    if (!append(answer, "", 0))
        return HTTP_CLIENT_MALFORMED;
    if (answer->status < 200 || answer->status == 204 || answer->status == 304 || client->no_body)
        return HTTP_CLIENT_OK;
    if (http_answer_header(answer, "Transfer-Encoding", value, sizeof value))
        return read_chunks(client, answer, deadline_ms);
    if (http_answer_header(answer, "Content-Length", value, sizeof value)) {
        size_t bytes = strtoul(value, NULL, 10);
        enum http_client_result result =
            bytes > ANSWER_BYTES_MAX ? HTTP_CLIENT_MALFORMED : receive_up_to(client, bytes, deadline_ms);
        if (result != HTTP_CLIENT_OK)
            return result == HTTP_CLIENT_CLOSED ? HTTP_CLIENT_BROKEN : result;
        if (!append(answer, client->buffer, bytes))
            return HTTP_CLIENT_MALFORMED;
        drop(client, bytes);
        return HTTP_CLIENT_OK;
    }
    enum http_client_result result;
    while ((result = receive(client, deadline_ms)) == HTTP_CLIENT_OK)
        ;
    if (result == HTTP_CLIENT_CLOSED && append(answer, client->buffer, client->used)) {
        drop(client, client->used);
        return HTTP_CLIENT_OK;
    }
    return result;
}

enum http_client_result http_client_read(struct http_client *client, struct http_answer *answer,
                                         int timeout_ms)
{
    int64_t deadline_ms = now_ms() + timeout_ms;
    size_t end;
    char value[64];

    memset(answer, 0, sizeof *answer);
    enum http_client_result result = receive_mark(client, 0, "\r\n\r\n", &end, deadline_ms);
    if (result != HTTP_CLIENT_OK)
        return result;
    bool is_1_0 = strncmp(client->buffer, "HTTP/1.0 ", 9) == 0;
    if (!is_1_0 && strncmp(client->buffer, "HTTP/1.1 ", 9) != 0)
        return HTTP_CLIENT_MALFORMED;
    answer->status = (int)strtol(client->buffer + 9, NULL, 10);
    answer->head = strndup(client->buffer, end + 2);
    if (!answer->head || answer->status < 100 || answer->status > 999)
        return HTTP_CLIENT_MALFORMED;
    drop(client, end + 4);
    const char *connection = http_answer_header(answer, "Connection", value, sizeof value);
    answer->closes = connection ? strcasecmp(connection, "close") == 0 : is_1_0;
    result = read_body(client, answer, deadline_ms);
    if (result == HTTP_CLIENT_OK)
        record(client, answer);
    return result;
}

enum http_client_result http_client_wait_closed(struct http_client *client, int timeout_ms)
{
    int64_t deadline_ms = now_ms() + timeout_ms;
    enum http_client_result result;
    while ((result = receive(client, deadline_ms)) == HTTP_CLIENT_OK)
        client->used = 0;
    return result;
}

enum http_client_result http_client_call(struct http_client *client, const char *method, const char *target,
                                         const char *headers, const char *body, struct http_answer *answer,
                                         int timeout_ms)
{
    enum http_client_result result = HTTP_CLIENT_OK;
    int64_t deadline_ms = now_ms() + timeout_ms;
    memset(answer, 0, sizeof *answer);
    if (client->fd < 0) {
        char host[sizeof client->host];
        memcpy(host, client->host, sizeof host);
        result = http_client_open(client, host, client->port, timeout_ms);
    }
    if (result == HTTP_CLIENT_OK)
        result =
            http_client_request(client, method, target, headers, body, body ? strlen(body) : 0, timeout_ms);
    /* A server that refuses early may stop reading: its answer is there all the same. */
    if (result == HTTP_CLIENT_OK || result == HTTP_CLIENT_BROKEN) {
        int64_t left_ms = deadline_ms - now_ms();
        if (client->fd >= 0)
            result = http_client_read(client, answer, left_ms > 0 ? (int)left_ms : 0);
    }
    if (result != HTTP_CLIENT_OK || answer->closes)
        http_client_close(client);
    return result;
}

const char *http_answer_header(const struct http_answer *answer, const char *name, char *out,
                               size_t out_bytes)
{
    size_t name_bytes = strlen(name);
    for (const char *line = strstr(answer->head, "\r\n"); line && line[2]; line = strstr(line + 2, "\r\n")) {
        const char *field = line + 2;
        if (strncasecmp(field, name, name_bytes) != 0 || field[name_bytes] != ':')
            continue;
        const char *value = field + name_bytes + 1;
        value += strspn(value, " \t");
        (void)snprintf(out, out_bytes, "%.*s", (int)strcspn(value, "\r"), value);
        return out;
    }
    return NULL;
}

void http_answer_free(struct http_answer *answer)
{
    free(answer->head);
    free(answer->body);
    memset(answer, 0, sizeof *answer);
}
