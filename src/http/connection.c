/* A connection's state and deadlines.
 *
 * Runs on the loop's thread of a worker. Owns every struct http_connection, from libmicrohttpd's notification
 * that a connection began to the one that it ended. libmicrohttpd's own timeout counts inactivity only, so
 * that a byte a second holds a connection for ever; here every state has an end (see the table in
 * http_internal.h). All deadlines of a class last equally long, so each class is a list in order of time and
 * every operation takes constant time.
 *
 * A deadline that is over shuts the socket down; libmicrohttpd sees the hang-up and closes the connection in
 * its next run. */
#include "http_internal.h"
#include "received.h"

#include "doorbuster/check.h"
#include "doorbuster/log.h"

#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#define TO(state) (1u << CONNECTION_##state)

/* Every state may fall back to idle: that is how a request ends that failed half-way. */
static const struct {
    const char *name;
    unsigned next;
    enum deadline_class deadline;
} states[CONNECTION_STATES] = {
    [CONNECTION_FRESH] = {"fresh", TO(HEAD), DEADLINE_HEAD},
    [CONNECTION_HEAD] = {"head", TO(BODY) | TO(WAITING) | TO(REPLYING) | TO(IDLE), DEADLINE_HEAD},
    [CONNECTION_BODY] = {"body", TO(WAITING) | TO(IDLE), DEADLINE_BODY},
    [CONNECTION_WAITING] = {"waiting", TO(PARKED) | TO(REPLYING) | TO(STREAMING) | TO(IDLE), DEADLINE_NONE},
    [CONNECTION_PARKED] = {"parked", TO(REPLYING) | TO(STREAMING) | TO(IDLE), DEADLINE_NONE},
    [CONNECTION_REPLYING] = {"replying", TO(IDLE), DEADLINE_SEND},
    [CONNECTION_STREAMING] = {"streaming", TO(STREAMING) | TO(IDLE), DEADLINE_SEND},
    [CONNECTION_IDLE] = {"idle", TO(HEAD), DEADLINE_IDLE},
};

static void deadline_leave(struct http_connection *connection)
{
    if (connection->deadline == DEADLINE_NONE)
        return;
    struct connection_list *list = &connection->server->deadlines[connection->deadline];
    *(connection->previous ? &connection->previous->next : &list->oldest) = connection->next;
    *(connection->next ? &connection->next->previous : &list->newest) = connection->previous;
    connection->previous = connection->next = NULL;
    connection->deadline = DEADLINE_NONE;
}

static void deadline_join(struct http_connection *connection, enum deadline_class deadline)
{
    CHECK(connection->deadline == DEADLINE_NONE);
    connection->deadline = deadline;
    connection->since_ms = uv_now(connection->server->loop);
    if (deadline == DEADLINE_NONE)
        return;
    struct connection_list *list = &connection->server->deadlines[deadline];
    connection->previous = list->newest;
    connection->next = NULL;
    *(list->newest ? &list->newest->next : &list->oldest) = connection;
    list->newest = connection;
}

/* The one place where a connection changes state. */
void http_connection_move(struct http_connection *connection, enum connection_state to)
{
    enum connection_state from = connection->state;
    struct http_server *server = connection->server;

    CHECK(to < CONNECTION_STATES);
    CHECK(states[from].next & (1u << to));
    CHECK(server->counts[from] > 0);
    server->counts[from]--;
    server->counts[to]++;
    connection->state = to;
    if (to == CONNECTION_IDLE && server->is_tls)
        connection->bytes_expected = connection->tls_bytes;
    /* The first head must be complete so long after *accept*, so its clock is not started again. */
    if (from == CONNECTION_FRESH)
        return;
    deadline_leave(connection);
    deadline_join(connection, states[to].deadline);
}

struct http_connection *http_connection_new(struct http_server *server, struct MHD_Connection *mhd)
{
    struct http_connection *connection = calloc(1, sizeof *connection);
    CHECK(connection);
    connection->server = server;
    connection->mhd = mhd;
    connection->fd = MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_CONNECTION_FD)->connect_fd;
    connection->state = CONNECTION_FRESH;
    connection->bytes_exact = true;
    connection->deadline = DEADLINE_NONE;
    deadline_join(connection, states[CONNECTION_FRESH].deadline);
    if (server->is_tls)
        http_tls_begin(connection);
    http_crowd_join(connection);
    server->counts[CONNECTION_FRESH]++;
    server->connections++;
    return connection;
}

void http_connection_free(struct http_connection *connection)
{
    struct http_server *server = connection->server;
    CHECK(connection->request == NULL);
    CHECK(connection->state == CONNECTION_FRESH || connection->state == CONNECTION_IDLE);
    deadline_leave(connection);
    http_crowd_leave(connection);
    http_tls_end(connection);
    server->counts[connection->state]--;
    server->connections--;
    free(connection);
}

static void hang_up(struct http_connection *connection)
{
    (void)shutdown(connection->fd, SHUT_RDWR); /* ENOTCONN: the client was faster */
    http_server_has_work(connection->server);
}

static unsigned timeout_ms(const struct http_server *server, enum deadline_class deadline)
{
    switch (deadline) {
    case DEADLINE_HEAD:
        return server->settings.head_timeout_ms;
    case DEADLINE_BODY:
        return server->settings.body_timeout_ms;
    default:
        return server->settings.idle_timeout_ms;
    }
}

void http_connections_sweep(struct http_server *server)
{
    uint64_t now_ms = uv_now(server->loop);
    for (int class = 0; class < DEADLINE_CLASSES; class ++) {
        struct connection_list *list = &server->deadlines[class];
        while (list->oldest &&
               now_ms - list->oldest->since_ms >= timeout_ms(server, (enum deadline_class) class)) {
            struct http_connection *connection = list->oldest;
            log_debug("http: %s deadline of a connection is over", states[connection->state].name);
            server->expired++;
            hang_up(connection);
            /* To the end of the list: should libmicrohttpd not have closed it by then, it is tried again. */
            deadline_leave(connection);
            deadline_join(connection, (enum deadline_class) class);
        }
    }
}

/* Has any byte of the next request arrived? Asks the kernel, because libmicrohttpd does not tell what it
 * holds of a request line. */
static bool request_has_begun(const struct http_connection *connection)
{
    uint64_t received;
    int unread = 0;

    if (ioctl(connection->fd, FIONREAD, &unread) == 0 && unread > 0)
        return true;
    if (connection->server->is_tls)
        return http_tls_request_has_begun(connection);
    return connection->bytes_exact && http_bytes_received(connection->fd, &received) &&
           received > connection->bytes_expected;
}

void http_connections_close_idle(struct http_server *server)
{
    static const enum deadline_class classes[] = {DEADLINE_HEAD, DEADLINE_IDLE};
    for (size_t i = 0; i < sizeof classes / sizeof classes[0]; i++) {
        struct http_connection *next;
        for (struct http_connection *connection = server->deadlines[classes[i]].oldest; connection;
             connection = next) {
            next = connection->next;
            if (connection->state != CONNECTION_FRESH && connection->state != CONNECTION_IDLE)
                continue;
            if (!request_has_begun(connection)) {
                hang_up(connection);
            } else if (connection->state == CONNECTION_IDLE) {
                deadline_leave(connection); /* no longer idle: it has as long as a head may take */
                deadline_join(connection, DEADLINE_HEAD);
            }
        }
    }
}
