/* Answers: from a handler's reply to libmicrohttpd.
 *
 * Runs on the loop's thread of a worker. A prebuilt answer is a libmicrohttpd response kept for ever; any
 * other is made for one request, its body in the request's arena or owned by the response. If memory is short
 * the client gets a prebuilt 500. A reply never sends: it hands the answer over, and the next run of
 * libmicrohttpd sends what has gathered. */
#include "http_internal.h"

#include "doorbuster/check.h"
#include "doorbuster/clock.h"
#include "doorbuster/log.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DETAIL_BYTES 512
#define HSTS "max-age=31536000"
#define PRINT_BYTES_FIRST 1024

static void count_answer(const struct http_request *request, unsigned status)
{
    const struct http_settings *settings = &request->server->settings;
    int64_t took_us = clock_monotonic_us() - request->began_us;
    http_log_answer(request, status, took_us);
    if (!settings->answered_cb)
        return;
    int route = request->route ? (int)(request->route - settings->routes) : -1;
    settings->answered_cb(settings->context, route, status, took_us);
}

/* Exactly once a request; `to`: REPLYING or STREAMING. The request may be gone afterwards. Leaves the caller's reference to `response`
 * alone. */
static void answer_in(struct http_request *request, enum connection_state to, unsigned status,
                      struct MHD_Response *response)
{
    struct http_server *server = request->server;
    struct http_connection *connection = request->connection;

    CHECK(!request->replied);
    request->replied = true;
    if (request->pending) {
        request->pending = false;
        CHECK(server->pending > 0);
        server->pending--;
    }
    count_answer(request, status);
    if (!connection) { /* the client did not wait */
        http_request_free(request);
        return;
    }
    struct MHD_Connection *mhd = connection->mhd;
    bool was_parked = connection->state == CONNECTION_PARKED;
    http_connection_move(connection, to);
    server->events++;
    http_server_has_work(server);
    /* May close the connection at once, and with it the request. */
    CHECK(MHD_queue_response(mhd, status, response) == MHD_YES);
    if (was_parked)
        MHD_resume_connection(mhd);
}

static void answer(struct http_request *request, unsigned status, struct MHD_Response *response)
{
    answer_in(request, CONNECTION_REPLYING, status, response);
}

static bool must_close(const struct http_request *request)
{
    return request->closes || request->server->quiesced;
}

/* Thousands may be answered with one in the same moment, and it may be a long list: the body is not copied for each. */
static void share(struct http_request *request, const struct http_response *response)
{
    CHECK(!request->reply_shared);
    request->reply_shared = (struct http_response *)(uintptr_t)response;
    request->reply_shared->references++;
}

void http_reply_prebuilt(struct http_request *request, const struct http_response *response)
{
    if (request->id || request->reply_header_count > 0 || log_is_on(LOG_DEBUG) || /* its line has an id */
        (request->origin_count > 0 && request->server->settings.cors_origins)) {
        share(request, response);
        http_reply_bytes(request, response->status, response->content_type, response->body, response->bytes);
        return;
    }
    answer(request, response->status, must_close(request) ? response->closing : response->keeping);
}

void http_reply_header(struct http_request *request, const char *name, const char *value)
{
    CHECK(!request->replied);
    CHECK(request->reply_header_count < HTTP_REPLY_HEADERS_MAX);
    unsigned index = request->reply_header_count++;
    request->reply_headers[index].name = http_arena_copy(request, name, strlen(name));
    request->reply_headers[index].value = http_arena_copy(request, value, strlen(value));
}

static bool has_reply_header(const struct http_request *request, const char *name)
{
    for (unsigned i = 0; i < request->reply_header_count; i++)
        if (strcmp(request->reply_headers[i].name, name) == 0)
            return true;
    return false;
}

static bool add_header(struct MHD_Response *response, const char *name, const char *value)
{
    return MHD_add_response_header(response, name, value) == MHD_YES;
}

/* The body must outlive the response: prebuilt ones have a copy, others are freed after their request has
 * ended. `content_type` NULL: there is no body. */
static struct MHD_Response *make_response(const char *content_type, const char *body, size_t bytes,
                                          bool is_copied, bool may_be_stored, bool closes)
{
    struct MHD_Response *response = MHD_create_response_from_buffer(
        bytes, (void *)(uintptr_t)body, is_copied ? MHD_RESPMEM_MUST_COPY : MHD_RESPMEM_PERSISTENT);
    if (!response)
        return NULL;
    if ((!content_type || (add_header(response, MHD_HTTP_HEADER_CONTENT_TYPE, content_type) &&
                           http_add_security(response, content_type))) &&
        (may_be_stored || add_header(response, MHD_HTTP_HEADER_CACHE_CONTROL, "no-store")) &&
        (!closes || add_header(response, MHD_HTTP_HEADER_CONNECTION, "close")))
        return response;
    MHD_destroy_response(response);
    return NULL;
}

static void reply_internal_error(struct http_request *request)
{
    const struct http_response *response = request->server->internal_error;
    log_error("http: out of memory for an answer");
    answer(request, response->status, must_close(request) ? response->closing : response->keeping);
}

static bool add_reply_headers(const struct http_request *request, struct MHD_Response *response)
{
    for (unsigned i = 0; i < request->reply_header_count; i++)
        if (!add_header(response, request->reply_headers[i].name, request->reply_headers[i].value))
            return false;
    return add_header(response, "X-Request-Id", http_request_id(request)) &&
           (!request->server->is_tls || add_header(response, "Strict-Transport-Security", HSTS)) &&
           http_add_cors(request, response);
}

void http_reply_bytes(struct http_request *request, unsigned status, const char *content_type,
                      const char *body, size_t bytes)
{
    bool may_be_stored = has_reply_header(request, MHD_HTTP_HEADER_CACHE_CONTROL);
    struct MHD_Response *response =
        make_response(content_type, body, bytes, false, may_be_stored, must_close(request));

    if (response && !add_reply_headers(request, response)) {
        MHD_destroy_response(response);
        response = NULL;
    }
    if (!response) {
        reply_internal_error(request);
        return;
    }
    answer(request, status, response);
    MHD_destroy_response(response);
}

void http_reply_stream(struct http_request *request, const char *content_type, struct MHD_Response *response)
{
    if (add_header(response, MHD_HTTP_HEADER_CONTENT_TYPE, content_type) &&
        add_header(response, MHD_HTTP_HEADER_CACHE_CONTROL, "no-store") &&
        http_add_security(response, content_type) &&
        add_header(response, "X-Accel-Buffering", "no") && /* nginx would hold events back */
        (!must_close(request) || add_header(response, MHD_HTTP_HEADER_CONNECTION, "close")) &&
        add_reply_headers(request, response))
        answer_in(request, CONNECTION_STREAMING, 200, response);
    else
        reply_internal_error(request);
    MHD_destroy_response(response);
}

void http_reply_text(struct http_request *request, unsigned status, const char *content_type, char *text,
                     size_t bytes)
{
    if (!text) {
        reply_internal_error(request);
        return;
    }
    CHECK(!request->reply_text);
    request->reply_text = text;
    http_reply_bytes(request, status, content_type, text, bytes);
}

void http_reply_json(struct http_request *request, unsigned status, cJSON *body)
{
    char *text = body ? cJSON_PrintBuffered(body, PRINT_BYTES_FIRST, false) : NULL;
    cJSON_Delete(body);
    http_reply_text(request, status, HTTP_TYPE_JSON, text, text ? strlen(text) : 0);
}

void http_reply_problem(struct http_request *request, const struct http_problem *problem, cJSON *extensions,
                        const char *detail_format, ...)
{
    char detail[DETAIL_BYTES], safe[DETAIL_BYTES];
    size_t bytes;
    va_list arguments;

    va_start(arguments, detail_format);
    (void)vsnprintf(detail, sizeof detail, detail_format, arguments);
    va_end(arguments);
    http_sanitize(detail, sizeof detail - 1, safe, sizeof safe);
    char *text = http_problem_print(problem, extensions, safe, &bytes);
    cJSON_Delete(extensions);
    http_reply_text(request, problem->status, HTTP_TYPE_PROBLEM, text, bytes);
}

struct http_response *http_response_new(unsigned status, const char *content_type, const char *body,
                                        size_t bytes)
{
    struct http_response *response = malloc(sizeof *response + bytes);
    CHECK(response);
    response->references = 1;
    response->status = status;
    response->content_type = content_type;
    response->bytes = bytes;
    memcpy(response->body, body, bytes);
    response->keeping = make_response(content_type, response->body, bytes, true, false, false);
    response->closing = make_response(content_type, response->body, bytes, true, false, true);
    CHECK(response->keeping && response->closing);
    return response;
}

void http_response_free(struct http_response **response)
{
    struct http_response *freed = *response;
    *response = NULL;
    if (!freed || --freed->references > 0)
        return;
    MHD_destroy_response(freed->keeping);
    MHD_destroy_response(freed->closing);
    free(freed);
}
