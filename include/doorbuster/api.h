/* The HTTP API: one file a resource, wired together here. A worker's loop thread; what blocks runs in the work pool. */
#ifndef DOORBUSTER_API_H
#define DOORBUSTER_API_H

#include "doorbuster/gate.h"
#include "doorbuster/http.h"
#include "doorbuster/metrics.h"
#include "doorbuster/rate_limit.h"

#include <stdbool.h>
#include <stddef.h>
#include <uv.h>

struct api;

enum api_limit { API_LIMIT_ACCOUNT, API_LIMIT_ADDRESS, API_LIMIT_SIGN_IN, API_LIMITS };

#define API_LIMIT_KEY_BYTES 16

struct api_limits {
    struct rate_limit limits[API_LIMITS];
    struct rate_limit_table *tables[API_LIMITS]; /* shared by all workers */
    unsigned char key[API_LIMIT_KEY_BYTES];      /* the same in all workers, secret */
};

struct api_settings {
    uv_loop_t *loop;
    const char *store_url;          /* lives as long as the api */
    const struct gate_place *place; /* lives as long as the api */
    int64_t store_id;
    const unsigned char *secret; /* signs the tokens; copied */
    size_t secret_bytes;
    bool dev_open_admin;                /* every account may use the admin calls */
    const struct metrics_page *metrics; /* lives as long as the api */
    const struct api_limits *limits;    /* NULL: none; lives as long as the api */
};

/* Never fails but by CHECK. */
struct api *api_new(const struct api_settings *settings);
/* Before the first request. */
void api_use_gate(struct api *api, struct gate *gate);
/* Likewise: whose streams the live figures go to. */
void api_use_server(struct api *api, struct http_server *server);
/* For http_settings.routes; the context of every handler is the api. */
const struct http_route *api_routes(size_t *count);
/* For http_settings.admit_cb, with the api as context. */
bool api_admit(struct http_request *request, void *api);
/* For gate_settings.settle_cb, with the api as context. */
bool api_settle(void *api, struct gate_purchase *list);
/* For gate_settings.learn_cb and sell_cb, likewise. */
bool api_learn(void *api, struct gate_lesson *lesson);
bool api_sell(void *api, struct gate_batch *batch);
/* The worker is to leave: replies without an end are ended. */
void api_leave(struct api *api);
/* Every few milliseconds: lets passwords wait while purchases are under way. */
void api_watch(struct api *api);
/* Jobs waiting or running; the api can be freed when there are none and no request is pending. */
size_t api_busy(const struct api *api);
void api_free(struct api **api);

#endif
