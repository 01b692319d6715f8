/* The HTTP front: libmicrohttpd as one handle of a libuv loop, and a request's way through it.
 *
 * Runs on the loop's thread of a worker; nothing here blocks. Owns the libmicrohttpd daemon, its poll handle
 * and the timer that sweeps deadlines. The listening socket stays the caller's: libmicrohttpd gets a
 * duplicate and is quiesced before it is stopped. A fault of one request ends that request; what cannot be
 * set up at start is told to the caller; the rest are bugs (CHECK).
 *
 * How libmicrohttpd is driven. Its epoll descriptor is polled by the loop; readiness only marks that there is
 * work. All of its work happens in http_server_turn(), in as many runs as it needs.
 *
 * How a handler takes its time. libmicrohttpd calls the access handler again in every run as long as no
 * response is queued; we simply return, until the reply is there. That costs nothing in system calls and
 * notices a client that hangs up. Suspending costs three system calls more for each request (out of epoll, a
 * read that finds nothing, into epoll again), so only requests that wait long are suspended, which keeps the
 * list that every run walks short. While some wait unsuspended MHD_get_timeout() always says "at once", so
 * then we decide ourselves whether another run is due: when something moved and some connection is half-way.
 */
#include "http_internal.h"

#include "doorbuster/check.h"
#include "doorbuster/log.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#define RUNS_A_TURN_MAX 16
#define PARK_AFTER_MS 100
#define SWEEP_MS_MIN 10
#define SWEEP_MS_MAX 1000
#define FRUITLESS_TURNS_MAX 64
#define LOG_LINE_BYTES 256
#define SHOWN_PATH_BYTES 200
#define TLS_QUIET_RUNS 2
#define TLS_HELD_RUNS_MAX 256 /* libmicrohttpd takes up a head in some dozens */

/* --- refusals ---------------------------------------------------------------------------------------- */

static void refuse_head(struct http_request *request, enum head_fault fault, const char *detail)
{
    static const enum http_problem_kind kinds[] = {
        [HEAD_MALFORMED] = HTTP_PROBLEM_BAD_REQUEST,
        [HEAD_URI_TOO_LONG] = HTTP_PROBLEM_URI_TOO_LONG,
        [HEAD_TOO_LARGE] = HTTP_PROBLEM_HEADER_TOO_LARGE,
        [HEAD_BODY_TOO_LARGE] = HTTP_PROBLEM_BODY_TOO_LARGE,
    };
    request->closes = true;
    request->body_unread = !request->dispatched && (request->has_chunked_body || request->content_length > 0);
    if (fault == HEAD_BODY_TOO_LARGE)
        http_reply_problem(request, &http_problems[kinds[fault]], NULL, "A body may have up to %zu bytes.",
                           request->server->settings.body_bytes_max);
    else
        http_reply_problem(request, &http_problems[kinds[fault]], NULL, "%s", detail);
}

static void refuse_path(struct http_request *request)
{
    static const char *const names[HTTP_METHODS] = {"GET, HEAD", "POST", "PUT", "DELETE"};
    char path[SHOWN_PATH_BYTES + 1], method[32], allow[64] = "";
    size_t used = 0;

    http_sanitize(request->path, SHOWN_PATH_BYTES, path, sizeof path);
    http_sanitize(request->method_name, sizeof method - 1, method, sizeof method);
    if (request->methods_allowed == 0) {
        http_reply_problem(request, &http_problems[HTTP_PROBLEM_NOT_FOUND], NULL,
                           "%s %s: there is nothing here.", method, path);
        return;
    }
    for (unsigned i = 0; i < HTTP_METHODS; i++)
        if (request->methods_allowed & (1u << i))
            used += (size_t)snprintf(allow + used, sizeof allow - used, "%s%s", used ? ", " : "", names[i]);
    if (http_asks_options(request)) {
        http_reply_options(request, allow);
        return;
    }
    http_reply_header(request, "Allow", allow);
    http_reply_problem(request, &http_problems[HTTP_PROBLEM_METHOD_NOT_ALLOWED], NULL,
                       "%s %s: the methods here are %s.", method, path, allow);
}

/* --- a request's way --------------------------------------------------------------------------------- */

static uint64_t head_bytes(struct MHD_Connection *mhd)
{
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_REQUEST_HEADER_SIZE);
    return info ? info->header_size : 0;
}

static void head_complete(struct http_request *request, const char *path, const char *method,
                          const char *version)
{
    struct http_connection *connection = request->connection;
    const char *detail = "";

    request->head_seen = true;
    request->path = path;
    http_read_head(request, connection->mhd, method);
    connection->bytes_expected += head_bytes(connection->mhd) + request->content_length;
    if (request->has_chunked_body)
        connection->bytes_exact = false;
    enum head_fault fault = http_check_head(request, version, &detail);
    if (fault != HEAD_GOOD)
        refuse_head(request, fault, detail);
    else if (request->has_chunked_body || request->content_length > 0)
        http_connection_move(connection, CONNECTION_BODY);
}

static void dispatch(struct http_request *request)
{
    struct http_server *server = request->server;

    request->dispatched = true;
    http_connection_move(request->connection, CONNECTION_WAITING);
    if (request->swallowed_bytes > 0) {
        refuse_head(request, HEAD_BODY_TOO_LARGE, "");
        return;
    }
    http_router_match(server->router, request);
    request->pending = true;
    server->pending++;
    if (server->settings.admit_cb && !server->settings.admit_cb(request, server->settings.context))
        return;
    if (request->route)
        request->route->handler(request, server->settings.context);
    else
        refuse_path(request);
}

/* Called for the head, for each piece of the body, when all is there, and then in every run until there is an
 * answer. */
static enum MHD_Result access_cb(void *context, struct MHD_Connection *mhd, const char *path,
                                 const char *method, const char *version, const char *data, size_t *bytes,
                                 void **request_slot)
{
    struct http_server *server = context;
    struct http_request *request = *request_slot;

    CHECK(request);
    if (!request->head_seen) {
        server->events++;
        head_complete(request, path, method, version);
        return MHD_YES;
    }
    if (*bytes > 0) {
        server->events++;
        bool taken = http_request_add_body(request, data, *bytes);
        *bytes = 0;
        return taken ? MHD_YES : MHD_NO; /* MHD_NO closes the connection */
    }
    if (!request->dispatched) {
        server->events++;
        dispatch(request);
        return MHD_YES;
    }
    struct http_connection *connection = request->connection;
    if (connection->state == CONNECTION_WAITING &&
        uv_now(server->loop) - connection->since_ms >= PARK_AFTER_MS) {
        http_connection_move(connection, CONNECTION_PARKED);
        MHD_suspend_connection(mhd);
    }
    return MHD_YES;
}

static struct http_connection *connection_of(struct MHD_Connection *mhd)
{
    return MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_SOCKET_CONTEXT)->socket_context;
}

/* After the request line. What it returns is the request_slot of the other callbacks. */
static void *request_line_cb(void *context, const char *uri, struct MHD_Connection *mhd)
{
    struct http_server *server = context;
    struct http_connection *connection = connection_of(mhd);

    server->events++;
    http_connection_move(connection, CONNECTION_HEAD);
    struct http_request *request = http_request_new(connection);
    http_note_uri(request, uri);
    return request;
}

/* The answer is sent, or never will be. */
static void completed_cb(void *context, struct MHD_Connection *mhd, void **request_slot,
                         enum MHD_RequestTerminationCode why)
{
    struct http_server *server = context;
    struct http_request *request = *request_slot;

    *request_slot = NULL;
    if (!request)
        return;
    server->events++;
    if (request->body_unread && why == MHD_REQUEST_TERMINATED_COMPLETED_OK)
        http_linger(server, request->connection->fd);
    if (request->pending)
        http_request_orphan(request);
    else
        http_request_free(request);
    http_connection_move(connection_of(mhd), CONNECTION_IDLE);
}

/* Before a connection begins. */
static enum MHD_Result accept_cb(void *context, const struct sockaddr *peer, socklen_t bytes)
{
    (void)bytes;
    return http_crowd_admits(context, peer) ? MHD_YES : MHD_NO;
}

static void connection_cb(void *context, struct MHD_Connection *mhd, void **connection_slot,
                          enum MHD_ConnectionNotificationCode what)
{
    struct http_server *server = context;

    server->events++;
    if (what == MHD_CONNECTION_NOTIFY_STARTED) {
        *connection_slot = http_connection_new(server, mhd);
        return;
    }
    if (server->connections >= server->settings.connections_max || server->out_of_descriptors)
        server->limit_was_left = true;
    server->out_of_descriptors = false;
    http_connection_free(*connection_slot);
    *connection_slot = NULL;
}

/* libmicrohttpd's messages are about single clients, but for those about descriptors that ran out. */
static void message_cb(void *context, const char *format, va_list arguments)
{
    struct http_server *server = context;
    char line[LOG_LINE_BYTES];

    (void)vsnprintf(line, sizeof line, format, arguments);
    line[strcspn(line, "\n")] = '\0';
    if (strncmp(line, "Hit process", 11) == 0) {
        server->out_of_descriptors = true;
        log_warn("http: %s", line);
    } else
        log_debug("http: %s", line);
}

static void panic_cb(void *context, const char *file, unsigned line, const char *reason)
{
    (void)context;
    log_error("http: libmicrohttpd %s:%u: %s", file, line, reason ? reason : "");
    abort();
}

/* --- the loop ---------------------------------------------------------------------------------------- */

static void wake_cb(uv_idle_t *handle)
{
    (void)handle; /* its being active keeps the loop from sleeping */
}

void http_server_has_work(struct http_server *server)
{
    if (server->has_work || server->in_turn)
        return;
    server->has_work = true;
    (void)uv_idle_start(&server->wake, wake_cb);
}

static void poll_cb(uv_poll_t *handle, int status, int events)
{
    (void)status;
    (void)events;
    http_server_has_work(handle->data);
}

static void sweep_cb(uv_timer_t *handle)
{
    struct http_server *server = handle->data;

    http_connections_sweep(server);
    http_linger_sweep(server, false);
    if (server->closes_idle && uv_now(server->loop) >= server->close_idle_ms) {
        server->closes_idle = false;
        http_connections_close_idle(server);
    }
    if (server->poll_paused) {
        server->poll_paused = false;
        (void)uv_poll_start(&server->poll, UV_READABLE, poll_cb);
    }
    if (server->connections > 0)
        http_server_has_work(server);
}

/* With TLS libmicrohttpd has work for as long as a handshake lasts (see tls.c), so progress decides here too. Two runs without any, because the first may
 * have taken what GnuTLS held decrypted, and more for as long as it holds some of a head, which has no other sign of progress. */
static bool needs_another_tls_run(struct http_server *server)
{
    MHD_UNSIGNED_LONG_LONG timeout_ms;

    server->quiet_runs = server->events > 0 ? 0 : server->quiet_runs + 1;
    server->held_runs = server->events > 0 ? 0 : server->held_runs;
    if (MHD_get_timeout(server->daemon, &timeout_ms) != MHD_YES || timeout_ms != 0)
        return false;
    return server->quiet_runs < TLS_QUIET_RUNS ||
           (server->held_runs++ < TLS_HELD_RUNS_MAX && http_tls_holds_head(server));
}

/* While requests wait for their reply, MHD_get_timeout() always says 0, so progress decides: as long as a run has brought any. Also a run
 * that only finished sending an answer: the client's next request may have come in meanwhile, and that run has consumed its event. */
static bool needs_another_run(struct http_server *server)
{
    MHD_UNSIGNED_LONG_LONG timeout_ms;

    if (server->limit_was_left)
        return true;
    if (server->is_tls)
        return needs_another_tls_run(server);
    if (server->counts[CONNECTION_WAITING] > 0)
        return server->events > 0;
    return MHD_get_timeout(server->daemon, &timeout_ms) == MHD_YES && timeout_ms == 0;
}

/* Out of descriptors without one connection that could give one back, libmicrohttpd would try again for ever:
 * rest until the next sweep. */
static void rest_if_fruitless(struct http_server *server, bool had_events)
{
    if (had_events || server->connections > 0)
        server->fruitless_turns = 0;
    else if (++server->fruitless_turns >= FRUITLESS_TURNS_MAX) {
        server->fruitless_turns = 0;
        server->poll_paused = true;
        (void)uv_poll_stop(&server->poll);
    }
}

void http_server_turn(struct http_server *server)
{
    bool had_events = false, again = true;

    if (!server->has_work)
        return;
    CHECK(!server->in_turn);
    server->in_turn = true;
    server->quiet_runs = 0;
    for (unsigned runs = 0; again && runs < RUNS_A_TURN_MAX; runs++) {
        server->limit_was_left = false;
        CHECK(MHD_run(server->daemon) == MHD_YES);
        again = needs_another_run(server);
        had_events = had_events || server->events > 0;
        server->events = 0;
    }
    server->in_turn = false;
    server->has_work = false;
    (void)uv_idle_stop(&server->wake);
    rest_if_fruitless(server, had_events);
    if (again)
        http_server_has_work(server);
}

/* --- begin and end ----------------------------------------------------------------------------------- */

static unsigned sweep_ms(const struct http_settings *settings)
{
    unsigned shortest = settings->head_timeout_ms;
    if (settings->body_timeout_ms < shortest)
        shortest = settings->body_timeout_ms;
    if (settings->idle_timeout_ms < shortest)
        shortest = settings->idle_timeout_ms;
    shortest /= 8;
    return shortest < SWEEP_MS_MIN ? SWEEP_MS_MIN : shortest > SWEEP_MS_MAX ? SWEEP_MS_MAX : shortest;
}

static struct MHD_Daemon *start_daemon(struct http_server *server)
{
    /* MHD_ALLOW_SUSPEND_RESUME without the eventfd that would wake another thread: there is none. */
    unsigned flags =
        MHD_USE_EPOLL | ((unsigned)MHD_ALLOW_SUSPEND_RESUME & ~(unsigned)MHD_USE_ITC) | MHD_USE_ERROR_LOG;
    struct MHD_OptionItem tls[] = {
        {MHD_OPTION_HTTPS_MEM_CERT, 0, (void *)(uintptr_t)server->settings.tls_certificate_pem},
        {MHD_OPTION_HTTPS_MEM_KEY, 0, (void *)(uintptr_t)server->settings.tls_key_pem},
        {MHD_OPTION_HTTPS_PRIORITIES, 0, (void *)(uintptr_t)http_tls_priorities},
        {MHD_OPTION_END, 0, NULL}};

    if (server->is_tls)
        flags |= MHD_USE_TLS;

    return MHD_start_daemon(flags, 0, accept_cb, server, access_cb, server, MHD_OPTION_EXTERNAL_LOGGER,
                            message_cb, server, /* first, so that it gets the others' complaints */
                            MHD_OPTION_LISTEN_SOCKET, server->listen_fd, MHD_OPTION_CONNECTION_LIMIT,
                            server->settings.connections_max, MHD_OPTION_CONNECTION_MEMORY_LIMIT,
                            (size_t)HTTP_POOL_BYTES, MHD_OPTION_CONNECTION_TIMEOUT, 0u,
                            MHD_OPTION_URI_LOG_CALLBACK, request_line_cb, server, MHD_OPTION_NOTIFY_COMPLETED,
                            completed_cb, server, MHD_OPTION_NOTIFY_CONNECTION, connection_cb, server,
                            MHD_OPTION_ARRAY, server->is_tls ? tls : &tls[3], MHD_OPTION_END);
}

static struct http_response *internal_error_response(void)
{
    char text[512];
    size_t bytes = http_problem_format(text, sizeof text, &http_problems[HTTP_PROBLEM_INTERNAL_ERROR], NULL,
                                       "The server is short of memory.");
    return http_response_new(500, HTTP_TYPE_PROBLEM, text, bytes);
}

static void start_handles(struct http_server *server)
{
    int epoll_fd = MHD_get_daemon_info(server->daemon, MHD_DAEMON_INFO_EPOLL_FD)->epoll_fd;
    unsigned period_ms = sweep_ms(&server->settings);

    CHECK(uv_poll_init(server->loop, &server->poll, epoll_fd) == 0);
    CHECK(uv_timer_init(server->loop, &server->sweep) == 0);
    CHECK(uv_idle_init(server->loop, &server->wake) == 0);
    server->poll.data = server->sweep.data = server->wake.data = server;
    server->handles_open = 3;
    CHECK(uv_poll_start(&server->poll, UV_READABLE, poll_cb) == 0);
    CHECK(uv_timer_start(&server->sweep, sweep_cb, period_ms, period_ms) == 0);
}

bool http_settings_check(const struct http_settings *settings, char *error, size_t error_bytes)
{
    struct http_networks networks;
    return http_networks_read(settings->trusted_proxies, &networks, error, error_bytes) &&
           http_origins_check(settings->cors_origins, error, error_bytes) &&
           http_tls_check(settings->tls_certificate_pem, settings->tls_key_pem, error, error_bytes);
}

struct http_server *http_server_new(uv_loop_t *loop, const struct http_settings *settings, char *error,
                                    size_t error_bytes)
{
    CHECK(settings->connections_max > 0);
    CHECK(settings->route_count == 0 || settings->routes);
    if (!http_settings_check(settings, error, error_bytes))
        return NULL;
    struct http_server *server = calloc(1, sizeof *server);
    if (!server) {
        (void)snprintf(error, error_bytes, "out of memory");
        return NULL;
    }
    server->loop = loop;
    server->settings = *settings;
    (void)http_networks_read(settings->trusted_proxies, &server->proxies, error, error_bytes);
    server->is_tls = settings->tls_certificate_pem;
    CHECK(getrandom(&server->next_id, sizeof server->next_id, 0) == sizeof server->next_id);
    CHECK(getrandom(&server->crowd_key, sizeof server->crowd_key, 0) == sizeof server->crowd_key);
    server->listen_fd = fcntl(settings->listen_fd, F_DUPFD_CLOEXEC, 0);
    if (server->listen_fd < 0) {
        (void)snprintf(error, error_bytes, "cannot duplicate the listening socket: %s", strerror(errno));
        free(server);
        return NULL;
    }
    MHD_set_panic_func(panic_cb, NULL);
    server->daemon = start_daemon(server);
    if (!server->daemon) {
        (void)snprintf(error, error_bytes, "libmicrohttpd cannot start (its reason is in the log)");
        free(server); /* libmicrohttpd may have closed the duplicate: leave it */
        return NULL;
    }
    server->router = http_router_new(settings->routes, settings->route_count);
    server->internal_error = internal_error_response();
    start_handles(server);
    return server;
}

void http_server_quiesce(struct http_server *server)
{
    if (server->quiesced)
        return;
    server->quiesced = true;
    (void)MHD_quiesce_daemon(server->daemon);
    unsigned grace_ms = server->settings.leave_grace_ms;
    if (grace_ms == 0) {
        http_connections_close_idle(server);
    } else {
        server->closes_idle = true;
        server->close_idle_ms = uv_now(server->loop) + grace_ms;
        (void)uv_timer_start(&server->sweep, sweep_cb, grace_ms, sweep_ms(&server->settings));
    }
    http_server_has_work(server);
}

size_t http_server_connections(const struct http_server *server)
{
    return server->connections;
}

size_t http_server_pending(const struct http_server *server)
{
    return server->pending;
}

void http_server_handle_closed(struct http_server *server)
{
    CHECK(server->handles_open > 0);
    if (--server->handles_open == 0)
        free(server);
}

static void closed_cb(uv_handle_t *handle)
{
    http_server_handle_closed(handle->data);
}

void http_server_free(struct http_server **slot)
{
    struct http_server *server = *slot;

    if (!server)
        return;
    *slot = NULL;
    CHECK(server->quiesced);
    CHECK(server->pending == 0);
    CHECK(!server->in_turn);
    (void)uv_poll_stop(&server->poll); /* before its descriptor is closed */
    MHD_stop_daemon(server->daemon);
    CHECK(server->connections == 0);
    (void)close(server->listen_fd);
    http_linger_sweep(server, true);
    while (server->free_requests) {
        struct http_request *request = server->free_requests;
        server->free_requests = request->next_free;
        free(request);
    }
    http_router_free(&server->router);
    http_response_free(&server->internal_error);
    uv_close((uv_handle_t *)&server->poll, closed_cb);
    uv_close((uv_handle_t *)&server->sweep, closed_cb);
    uv_close((uv_handle_t *)&server->wake, closed_cb);
}
