/* Wires the resources together: the table of routes, the work pool, tokens. A worker's loop thread. Owns all of these; the gate is lent. */
#include "looks.h"
#include "refusals.h"

#include "doorbuster/check.h"
#include "doorbuster/clock.h"

#include <stdlib.h>

/* Password jobs: one at a time a worker leaves processors to the loops. */
static const struct work_limits limits[WORK_QUEUES] = {
    [WORK_PASSWORD] = {.running_max = 1, .waiting_max = 512},
    [WORK_STORE] = {.running_max = 4, .waiting_max = 2048},
    [WORK_WRITE] = {.running_max = 1, .waiting_max = 512},
    [WORK_CHANGE] = {.running_max = 4, .waiting_max = 1024},
    [WORK_SETTLE] = {.running_max = 1, .waiting_max = 4096},
    [WORK_SELL] = {.running_max = 1, .waiting_max = 4}, /* a batch and a lesson at most */
};

/* Five failures in a row, for one broken connection is made anew by the next job. Half a second: an outage of the store ends no later than that for
 * those who read, and is asked about twice a second. */
#define BREAKER_FAILURES_MAX 5
#define BREAKER_OPEN_MS 500

#define PRESSED_DECISIONS                                                                                    \
    10 /* purchases between two calls of api_watch(), some 500 a second: then passwords wait */

static const struct http_route routes[] = {
    {HTTP_POST, "/api/purchases", "purchase", purchases_create},
    {HTTP_POST, "/api/purchases/redlock", "purchase_redlock", purchases_create_redlock},
    {HTTP_POST, "/api/purchases/redlock-manual", "purchase_redlock", purchases_create_redlock},
    {HTTP_POST, "/api/purchases/redlock-manual-async", "purchase_redlock", purchases_create_redlock},
    {HTTP_POST, "/api/purchases/redlock-aioredlock", "purchase_redlock", purchases_create_redlock},
    {HTTP_GET, "/api/purchases/me", "purchases_mine", purchases_mine},
    {HTTP_GET, "/api/purchases/{id}", "purchase_get", purchases_get},
    {HTTP_DELETE, "/api/purchases/{id}", "purchase_cancel", purchases_cancel},
    {HTTP_POST, "/api/products", "product_create", products_create},
    {HTTP_GET, "/api/products", "products_list", products_list},
    {HTTP_GET, "/api/products/{id}", "product_get", products_get},
    {HTTP_GET, "/api/products/{id}/stock", "product_stock", products_stock},
    {HTTP_POST, "/api/admin/products/{id}/stock", "stock_change", stock_changes_create},
    {HTTP_POST, "/api/admin/products/{id}/price", "price_change", price_changes_create},
    {HTTP_POST, "/api/admin/products/{id}/window", "window_change", window_changes_create},
    {HTTP_GET, "/api/admin/audit", "audit", audit_list},
    {HTTP_POST, "/api/auth/register", "register", accounts_register},
    {HTTP_POST, "/api/auth/login", "login", accounts_login},
    {HTTP_GET, "/api/auth/me", "me", accounts_me},
    {HTTP_GET, "/", "root", pages_root},
    {HTTP_GET, "/dashboard", "dashboard", pages_dashboard},
    {HTTP_GET, "/assets/{name}", "asset", pages_asset},
    {HTTP_GET, "/health", "health", operations_health},
    {HTTP_GET, "/health/ready", "ready", readiness_get},
    {HTTP_GET, "/metrics", "metrics", operations_metrics},
    {HTTP_GET, "/api/events", "events", events_stream},
    {HTTP_GET, "/api/figures", "figures", events_figures},
    {HTTP_GET, "/problems", "problems", problem_pages_list},
    {HTTP_GET, "/problems/{slug}", "problem", problem_pages_get},
    {HTTP_GET, "/openapi.json", "openapi", pages_description},
    {HTTP_GET, "/docs", "docs", pages_docs},
};

const struct http_route *api_routes(size_t *count)
{
    *count = sizeof routes / sizeof routes[0];
    return routes;
}

struct api *api_new(const struct api_settings *settings)
{
    struct api *api = calloc(1, sizeof *api);
    CHECK(api != NULL);
    api->settings = *settings;
    api->pool = work_pool_new(settings->loop, limits);
    api->jwt = jwt_new(settings->secret, settings->secret_bytes);
    api->passwords = password_memory_new();
    breaker_init(&api->store, "store", BREAKER_FAILURES_MAX, BREAKER_OPEN_MS);
    breaker_init(&api->books, "books", BREAKER_FAILURES_MAX, BREAKER_OPEN_MS);
    api->events = events_new(api);
    api->looks = looks_new(api);
    CHECK(pthread_mutex_init(&api->desks_mutex, NULL) == 0);
    return api;
}

void api_use_gate(struct api *api, struct gate *gate)
{
    api->gate = gate;
}

void api_use_server(struct api *api, struct http_server *server)
{
    events_use_server(api->events, server);
}

void api_leave(struct api *api)
{
    events_leave(api->events);
}

size_t api_breakers(struct api *api, struct breaker *out[API_BREAKERS])
{
    size_t count = gate_breakers(api->gate, out);
    out[count++] = &api->store;
    out[count++] = &api->books;
    return count;
}

static void show_breakers(struct api *api)
{
    struct breaker *all[API_BREAKERS], *gate[GATE_BREAKERS];
    size_t count = api_breakers(api, all), gate_count = gate_breakers(api->gate, gate);
    int64_t now_us = clock_monotonic_us();
    breaker_rest(&api->store, now_us);
    breaker_rest(&api->books, now_us);
    for (size_t i = 0; i < count; i++) {
        if (all[i]->openings != all[i]->openings_shown) {
            metrics_count_openings(all[i]);
        }
    }
    metrics_set(METRICS_GAUGE_breaker_redis, gate[0]->state);
    metrics_set(METRICS_GAUGE_breaker_record, gate_count > 1 ? gate[1]->state : BREAKER_CLOSED);
    metrics_set(METRICS_GAUGE_breaker_store, api->store.state);
    metrics_set(METRICS_GAUGE_breaker_books, api->books.state);
}

/* Looked at now and then, not kept up to date with every purchase. */
static void set_gauges(const struct api *api)
{
    static const enum metrics_gauge queues[WORK_QUEUES] = {
        [WORK_PASSWORD] = METRICS_GAUGE_queue_password, [WORK_STORE] = METRICS_GAUGE_queue_store,
        [WORK_WRITE] = METRICS_GAUGE_queue_write,       [WORK_CHANGE] = METRICS_GAUGE_queue_change,
        [WORK_SETTLE] = METRICS_GAUGE_queue_settle,     [WORK_SELL] = METRICS_GAUGE_queue_sell,
    };
    for (int i = 0; i < WORK_QUEUES; i++) {
        metrics_set(queues[i], (int64_t)work_pool_length(api->pool, (enum work_queue)i));
    }
}

void api_watch(struct api *api)
{
    set_gauges(api);
    events_watch(api->events);
    looks_watch(api->looks);
    settling_watch(api);
    uint64_t decisions = gate_decisions(api->gate);
    work_pool_press(api->pool, decisions - api->decisions_seen >= PRESSED_DECISIONS);
    api->decisions_seen = decisions;
    show_breakers(api);
}

size_t api_busy(const struct api *api)
{
    return work_pool_busy(api->pool);
}

void api_free(struct api **api_pointer)
{
    struct api *api = *api_pointer;
    *api_pointer = NULL;
    events_free(&api->events);
    looks_free(&api->looks);
    refusals_free_answers(api);
    if (api->seller != NULL) {
        desk_return(api->seller);
    }
    desks_free(api);
    password_memory_free(&api->passwords);
    jwt_free(&api->jwt);
    work_pool_free(&api->pool);
    pthread_mutex_destroy(&api->desks_mutex);
    free(api);
}
