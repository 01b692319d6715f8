/* Lets a client finish sending what was refused.
 *
 * Runs on the loop's thread of a worker. A body that is refused on its head alone (413, 400) is not read.
 * Closing a socket with unread data resets it, and many clients then report a broken connection instead of
 * the answer that lies in their buffer. So the socket is kept under a duplicate descriptor after
 * libmicrohttpd has closed its own: what still comes is thrown away until the client ends, or the time or the
 * amount is used up. Owns those duplicates; there are never more than HTTP_LINGERING_MAX, and then clients
 * are reset. */
#include "http_internal.h"

#include "doorbuster/check.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#define LINGER_MS 2000
#define LINGER_BYTES_MAX ((size_t)16 << 20)
#define LINGER_READS_A_TURN 4

struct lingering {
    uv_poll_t poll;
    struct http_server *server;
    struct lingering *previous, *next;
    uint64_t since_ms;
    size_t bytes_left;
    int fd;
};

static void closed_cb(uv_handle_t *handle)
{
    struct lingering *lingering = handle->data;
    struct http_server *server = lingering->server;
    free(lingering);
    http_server_handle_closed(server);
}

static void end(struct lingering *lingering)
{
    struct http_server *server = lingering->server;
    if (lingering->previous)
        lingering->previous->next = lingering->next;
    else
        server->lingering = lingering->next;
    if (lingering->next)
        lingering->next->previous = lingering->previous;
    server->lingering_count--;
    uv_close((uv_handle_t *)&lingering->poll,
             closed_cb); /* out of the loop's epoll set before its descriptor is closed */
    (void)close(lingering->fd);
}

static void readable_cb(uv_poll_t *handle, int status, int events)
{
    static char nowhere[65536];
    struct lingering *lingering = handle->data;
    (void)events;

    for (int i = 0; status == 0 && i < LINGER_READS_A_TURN; i++) {
        ssize_t bytes = recv(lingering->fd, nowhere, sizeof nowhere, MSG_DONTWAIT);
        if (bytes < 0 && (errno == EAGAIN || errno == EINTR))
            return;
        if (bytes <= 0 || (size_t)bytes >= lingering->bytes_left) {
            status = -1;
            break;
        }
        lingering->bytes_left -= (size_t)bytes;
    }
    if (status != 0)
        end(lingering);
}

void http_linger(struct http_server *server, int fd)
{
    if (server->lingering_count >= HTTP_LINGERING_MAX || server->quiesced)
        return;
    struct lingering *lingering = calloc(1, sizeof *lingering);
    if (!lingering)
        return;
    lingering->fd = fcntl(fd, F_DUPFD_CLOEXEC, 0);
    if (lingering->fd < 0 || uv_poll_init(server->loop, &lingering->poll, lingering->fd) != 0) {
        if (lingering->fd >= 0)
            (void)close(lingering->fd);
        free(lingering);
        return;
    }
    server->handles_open++;
    lingering->server = server;
    lingering->poll.data = lingering;
    lingering->since_ms = uv_now(server->loop);
    lingering->bytes_left = LINGER_BYTES_MAX;
    lingering->next = server->lingering;
    if (lingering->next)
        lingering->next->previous = lingering;
    server->lingering = lingering;
    server->lingering_count++;
    CHECK(uv_poll_start(&lingering->poll, UV_READABLE, readable_cb) == 0);
}

void http_linger_sweep(struct http_server *server, bool all)
{
    struct lingering *next;
    for (struct lingering *lingering = server->lingering; lingering; lingering = next) {
        next = lingering->next;
        if (all || uv_now(server->loop) - lingering->since_ms >= LINGER_MS)
            end(lingering);
    }
}
