/* A worker: HTTP in, purchases to the gate, answers out. One process, one libuv loop that never blocks.
 *
 * The order of a turn is drawn here once, and runs right before the loop waits again: libmicrohttpd takes what has come in and sends the
 * answers that are ready; the gate sends what the requests have brought as one call.
 *
 *   STARTING --gate ready--> SERVING --SIGTERM or supervisor gone--> LEAVING --nothing pending--> GONE
 *
 * Leaving: no new connections, what is held is finished (bounded by the requests' own deadlines). If it dies instead, buyers lose their
 * connections, never an order: what the gate reserved is in the log, what the Redlock gate sold is in the store. */
#include "server.h"

#include "doorbuster/api.h"
#include "doorbuster/check.h"
#include "doorbuster/clock.h"
#include "doorbuster/gate.h"
#include "doorbuster/http.h"
#include "doorbuster/log.h"
#include "doorbuster/process.h"

#include <signal.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>
#include <uv.h>

#define BODY_BYTES_MAX 16384
#define HEAD_TIMEOUT_MS 10000
#define BODY_TIMEOUT_MS 10000
#define IDLE_TIMEOUT_MS 75000
#define LEAVE_GRACE_MS                                                                                       \
    500 /* to a keep-alive client that is just sending: in a rolling restart nobody loses a request */
#define FILES_RESERVED 64 /* descriptors for everything that is not a connection */
#define LEAVE_TIMEOUT_MS 15000
#define WATCH_MS 20

struct worker {
    const struct server_shared *shared;
    uv_loop_t loop;
    uv_prepare_t turn;
    uv_signal_t sigterm;
    uv_poll_t lifeline;
    uv_timer_t watch;
    struct http_server *http;
    struct gate *gate;
    struct api *api;
    uint64_t crowded_out; /* of http, as far as they are counted */
    bool ready, leaving;
    int64_t leave_deadline_us;
};

static void turn_cb(uv_prepare_t *handle)
{
    struct worker *worker = handle->data;
    http_server_turn(worker->http);
    gate_turn(worker->gate);
}

static void leave(struct worker *worker)
{
    if (!worker->leaving) {
        worker->leaving = true;
        worker->leave_deadline_us = clock_monotonic_us() + (int64_t)LEAVE_TIMEOUT_MS * 1000;
        api_leave(worker->api);
        http_server_quiesce(worker->http);
    }
}

static void sigterm_cb(uv_signal_t *handle, int signal_number)
{
    (void)signal_number;
    leave(handle->data);
}

static void lifeline_cb(uv_poll_t *handle, int status, int events)
{
    struct worker *worker = handle->data;
    (void)status;
    (void)events;
    log_warn("the supervisor is gone; finishing what is held and leaving");
    uv_poll_stop(handle);
    leave(worker);
}

static bool nothing_left(const struct worker *worker)
{
    return http_server_pending(worker->http) == 0 && http_server_connections(worker->http) == 0 &&
           gate_pending(worker->gate) == 0 && api_busy(worker->api) == 0;
}

static void count_crowded_out(struct worker *worker)
{
    uint64_t now = http_server_crowded_out(worker->http);
    metrics_add(METRICS_connections_crowded_out, now - worker->crowded_out);
    worker->crowded_out = now;
}

static void watch_cb(uv_timer_t *timer)
{
    struct worker *worker = timer->data;
    if (!worker->leaving) { /* the slot is its successor's by now */
        metrics_beat(clock_monotonic_us());
    }
    api_watch(worker->api);
    log_flush(false);
    metrics_set(METRICS_GAUGE_gate_pending, (int64_t)gate_pending(worker->gate));
    metrics_set(METRICS_GAUGE_http_connections, (int64_t)http_server_connections(worker->http));
    count_crowded_out(worker);
    if (!worker->ready && gate_is_ready(worker->gate)) {
        worker->ready = true;
        supervisor_tell_ready(worker->shared);
    }
    if (!worker->leaving) {
        return;
    }
    bool late = clock_monotonic_us() > worker->leave_deadline_us;
    bool held =
        http_server_pending(worker->http) > 0 || gate_pending(worker->gate) > 0 || api_busy(worker->api) > 0;
    if (nothing_left(worker) || (late && !held)) {
        uv_stop(&worker->loop);
    }
}

static void count_answer_cb(void *context, int route, unsigned status, int64_t took_us)
{
    (void)context;
    metrics_count_answer(route, status, took_us);
}

static unsigned connections_max(void)
{
    struct rlimit limit;
    CHECK(getrlimit(RLIMIT_NOFILE, &limit) == 0);
    return limit.rlim_cur > FILES_RESERVED + 1 ? (unsigned)(limit.rlim_cur - FILES_RESERVED) : 1;
}

/* However few files a worker may open, one address has at most half of them. */
static unsigned connections_per_address_max(const struct server_configuration *configuration)
{
    unsigned half = (connections_max() + 1) / 2, wanted = configuration->connections_per_address;
    return !configuration->has_limits ? 0 : wanted < half ? wanted : half;
}

static void open_parts(struct worker *worker, unsigned index)
{
    const struct server_configuration *configuration = &worker->shared->configuration;
    struct api_settings api = {.loop = &worker->loop,
                               .store_url = configuration->store_url,
                               .place = &configuration->place,
                               .store_id = configuration->store_id,
                               .secret = configuration->secret,
                               .secret_bytes = configuration->secret_bytes,
                               .dev_open_admin = configuration->dev_open_admin,
                               .metrics = worker->shared->metrics,
                               .limits = configuration->has_limits ? &configuration->limits : NULL};
    worker->api = api_new(&api);
    struct gate_settings gate = {.loop = &worker->loop,
                                 .place = &configuration->place,
                                 .settle_cb = api_settle,
                                 .learn_cb = api_learn,
                                 .sell_cb = api_sell,
                                 .context = worker->api,
                                 .holder = configuration->holder,
                                 .store_id = configuration->store_id,
                                 .node_starts = worker->shared->node_starts};
    gate.holder.dead_pid = worker->shared->dead_workers[index];
    worker->gate = gate_open_for_worker(&gate);
    api_use_gate(worker->api, worker->gate);
    struct http_settings http = {.listen_fd = worker->shared->listen_fds[index],
                                 .connections_max = connections_max(),
                                 .connections_per_address_max = connections_per_address_max(configuration),
                                 .body_bytes_max = BODY_BYTES_MAX,
                                 .head_timeout_ms = HEAD_TIMEOUT_MS,
                                 .body_timeout_ms = BODY_TIMEOUT_MS,
                                 .idle_timeout_ms = IDLE_TIMEOUT_MS,
                                 .leave_grace_ms = LEAVE_GRACE_MS,
                                 .context = worker->api,
                                 .answered_cb = count_answer_cb,
                                 .admit_cb = configuration->has_limits ? api_admit : NULL,
                                 .tls_certificate_pem = configuration->tls.certificate_pem,
                                 .tls_key_pem = configuration->tls.key_pem,
                                 .cors_origins = configuration->cors_origins,
                                 .trusted_proxies = configuration->trusted_proxies};
    http.routes = api_routes(&http.route_count);
    char error[512];
    worker->http = http_server_new(&worker->loop, &http, error, sizeof error);
    if (worker->http == NULL) {
        log_error("cannot serve: %s", error);
        exit(1);
    }
    api_use_server(worker->api, worker->http);
}

static void open_handles(struct worker *worker)
{
    uv_prepare_init(&worker->loop, &worker->turn);
    worker->turn.data = worker;
    uv_prepare_start(&worker->turn, turn_cb);
    uv_signal_init(&worker->loop, &worker->sigterm);
    worker->sigterm.data = worker;
    uv_signal_start(&worker->sigterm, sigterm_cb, SIGTERM);
    CHECK(uv_poll_init(&worker->loop, &worker->lifeline, worker->shared->supervisor_lifeline[0]) == 0);
    worker->lifeline.data = worker;
    uv_poll_start(&worker->lifeline, UV_READABLE | UV_DISCONNECT, lifeline_cb);
    uv_timer_init(&worker->loop, &worker->watch);
    worker->watch.data = worker;
    uv_timer_start(&worker->watch, watch_cb, WATCH_MS, WATCH_MS);
}

static void close_parts(struct worker *worker)
{
    uv_close((uv_handle_t *)&worker->turn, NULL);
    uv_close((uv_handle_t *)&worker->sigterm, NULL);
    uv_close((uv_handle_t *)&worker->lifeline, NULL);
    uv_close((uv_handle_t *)&worker->watch, NULL);
    http_server_free(&worker->http);
    gate_close_for_worker(&worker->gate);
    api_free(&worker->api);
    uv_run(&worker->loop, UV_RUN_DEFAULT);
    CHECK(uv_loop_close(&worker->loop) == 0);
}

int worker_run(const struct server_shared *shared, unsigned index)
{
    static struct worker worker;
    static char speaker[32];
    signal(SIGINT, SIG_IGN); /* the supervisor decides when to stop; Ctrl-C reaches the whole group */
    signal(SIGHUP, SIG_IGN);
    close(shared->supervisor_lifeline[1]);
    snprintf(speaker, sizeof speaker, "worker %u", index);
    process_set_title("doorbuster: %s", speaker);
    log_set_speaker(speaker);
    metrics_use_slot(&shared->metrics->workers[index]);
    CHECK(sodium_init() >= 0);
    worker.shared = shared;
    CHECK(uv_loop_init(&worker.loop) == 0);
    open_parts(&worker, index);
    open_handles(&worker);
    uv_run(&worker.loop, UV_RUN_DEFAULT);
    close_parts(&worker);
    return 0;
}
