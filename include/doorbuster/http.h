/* The HTTP front: libmicrohttpd on a libuv loop. Knows nothing of sales.
 *
 * One server a process, one thread: every function here is for the loop's thread. Nothing here blocks.
 *
 * A request's way: head parsed and checked -> body collected -> route found -> its handler called once, with the whole body. The
 * handler replies at once or keeps the pointer and replies later, exactly once; until then the connection waits. The request is
 * valid until its reply has been called, even if the client has gone by then; do not touch it after.
 *
 * The owner of the loop calls http_server_turn() once a turn of the loop, from its uv_prepare callback. All of libmicrohttpd's work
 * happens in there, so that a turn's requests reach the gate together. */
#ifndef DOORBUSTER_HTTP_H
#define DOORBUSTER_HTTP_H

#include <cjson/cJSON.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uv.h>

struct http_server;
struct http_request;
struct http_response; /* prebuilt, immutable, can be sent any number of times */

enum http_method {
    HTTP_GET,
    HTTP_POST,
    HTTP_PUT,
    HTTP_DELETE,
    HTTP_METHODS
}; /* HEAD runs the GET handler, body left out */

typedef void (*http_handler_cb)(struct http_request *request, void *context);

struct http_route {
    enum http_method method;
    /* "/api/products/{id}/stock": {name} matches one segment, a positive decimal integer below 2^53 if the name is "id" (anything else there:
     * 404), any segment otherwise */
    const char *path;
    const char *label; /* short name of the route for counting: "purchase" */
    http_handler_cb handler;
};

/* Called after every answered request, for counting. `route` is an index into routes, or -1 if none matched. */
typedef void (*http_answered_cb)(void *context, int route, unsigned status, int64_t took_us);

/* Called for each request before its handler, also of one for which there is none. False: it has replied (429), and the handler is not called. */
typedef bool (*http_admit_cb)(struct http_request *request, void *context);

struct http_settings {
    int listen_fd; /* bound, listening, non-blocking; stays the caller's */
    unsigned connections_max;
    /* more are closed at once; 0: no such limit. An IPv6 client is its /64; programs on this machine and trusted proxies are exempt */
    unsigned connections_per_address_max;
    size_t body_bytes_max;    /* larger: 413 */
    unsigned head_timeout_ms; /* from the first byte expected to the end of the head */
    unsigned body_timeout_ms; /* from there to the end of the body */
    unsigned idle_timeout_ms; /* between requests */
    /* after quiesce, for a request that is on its way on an idle connection; 0: none */
    unsigned leave_grace_ms;
    const struct http_route *routes;
    size_t route_count;
    void *context;                                 /* given to handlers and callbacks */
    http_answered_cb answered_cb;                  /* may be NULL */
    http_admit_cb admit_cb;                        /* may be NULL: everybody comes in */
    const char *tls_certificate_pem, *tls_key_pem; /* both or neither: HTTPS. Must outlive the server */
    const char *cors_origins; /* "https://shop.example,…" or "*"; NULL: no other origin may read answers */
    /* addresses whose X-Forwarded-For is believed, comma-separated; NULL: nobody's */
    const char *trusted_proxies;
};

/* Can a server be made with these origins, proxies, certificate and key? False, with what is wrong in `error`. */
bool http_settings_check(const struct http_settings *settings, char *error, size_t error_bytes);
/* Whose a certificate is, and until when it is valid. */
struct http_certificate {
    char subject[256];  /* "CN=shop.example", cut if it is longer */
    int64_t ends_at_ms; /* since 1970 */
};
/* The first of the PEM, which is the server's own. False: it cannot be read. */
bool http_certificate_read(const char *pem, struct http_certificate *out);
/* NULL on failure, with a sentence in `error`. */
struct http_server *http_server_new(uv_loop_t *loop, const struct http_settings *settings, char *error,
                                    size_t error_bytes);
/* Runs libmicrohttpd if there is anything to do. See above. */
void http_server_turn(struct http_server *server);
/* Takes no new connections; answers say `Connection: close`; connections that are still idle after leave_grace_ms are closed. */
void http_server_quiesce(struct http_server *server);
size_t http_server_connections(const struct http_server *server);
/* Connections closed at once since the start, because their address had too many. */
uint64_t http_server_crowded_out(const struct http_server *server);
/* Requests whose handler has been called and that have no reply yet. */
size_t http_server_pending(const struct http_server *server);
/* After quiesce, with nothing pending. Closes its loop handles; the loop must run once more afterwards. */
void http_server_free(struct http_server **server);

/* --- the request ---------------------------------------------------------------------------------------------------------- */
const char *http_request_body(const struct http_request *request,
                              size_t *bytes); /* never NULL; terminated by a NUL */
/* Value of a header, or NULL. `name` in any case. Valid as long as the request. */
const char *http_request_header(const struct http_request *request, const char *name);
/* How often a header is there. One that must be unique is refused by its handler: of two, each side could believe another. */
size_t http_request_header_count(const struct http_request *request, const char *name);
/* Value of a query argument, percent-decoded, or NULL. */
const char *http_request_query(const struct http_request *request, const char *name);
/* The value of {id} in the route's path. CHECKs that the route has one. */
int64_t http_request_path_id(const struct http_request *request);
/* The value of another {name} segment (the first one). */
const char *http_request_path_text(const struct http_request *request);
/* Media type of the body is `type` (parameters ignored), or there is no Content-Type at all. */
bool http_request_is_media_type(const struct http_request *request, const char *type);
/* X-Request-Id: the client's if it is 1 to 64 of [A-Za-z0-9._-], else one made here. Valid as long as the request. It is in the answer too, but
 * for prebuilt ones of which nobody has asked for it. */
const char *http_request_id(const struct http_request *request);
/* The client's address without a port, as text: "192.0.2.7", "2001:db8::1". Behind a trusted proxy the one that it forwarded for. */
const char *http_request_client(const struct http_request *request);
/* It is a program on this machine, and no proxy's client. */
bool http_request_client_is_local(const struct http_request *request);
/* Memory that lives as long as the request, aligned for any type, not zeroed. For small things: up to 64 KiB a request (CHECKed). */
void *http_request_alloc(struct http_request *request, size_t bytes);

/* --- the reply: exactly one http_reply_* a request -------------------------------------------------------------------------- */
/* An extra header for the coming reply; `value` is copied. At most 8. */
void http_reply_header(struct http_request *request, const char *name, const char *value);

/* body[0..bytes) must live as long as the request: from http_request_alloc, or static. `content_type` is static. */
void http_reply_bytes(struct http_request *request, unsigned status, const char *content_type,
                      const char *body, size_t bytes);
/* body[0..bytes) is malloc'ed and freed with the request. NULL: memory is out, which is answered 500. */
void http_reply_text(struct http_request *request, unsigned status, const char *content_type, char *body,
                     size_t bytes);
/* Prints `body` and frees it. */
void http_reply_json(struct http_request *request, unsigned status, cJSON *body);

struct http_response *http_response_new(unsigned status, const char *content_type, const char *body,
                                        size_t bytes); /* copied */
void http_response_free(struct http_response **response);
/* Fastest way to answer, if the answer has no header of this one request: an extra one, the client's X-Request-Id, CORS. With one, the body is shared all
 * the same; the response may be freed at once. */
void http_reply_prebuilt(struct http_request *request, const struct http_response *response);

/* --- a reply without an end: Server-Sent Events ------------------------------------------------------------------------------- */
/* Every stream of a server shows the same frames, each a whole piece of text. A client that is slower than the frames come misses some, never a
 * part of one: a stream holds one frame and no queue. */
struct http_channel;
struct http_channel *http_channel_new(struct http_server *server, const char *content_type,
                                      size_t streams_max);
/* 200, and from now on the channel's frames, the last one at once. False: there are streams_max already, nothing was replied. */
bool http_reply_channel(struct http_request *request, struct http_channel *channel);
/* Copied. To all streams; to none once the channel is closed. */
void http_channel_send(struct http_channel *channel, const char *frame, size_t bytes);
size_t http_channel_streams(const struct http_channel *channel);
/* Ends all streams, once what they hold is sent; none is taken any more. Free it after the server. */
void http_channel_close(struct http_channel *channel);
void http_channel_free(struct http_channel **channel);

/* --- errors: application/problem+json (RFC 9457) ------------------------------------------------------------------------------ */
struct http_problem {
    unsigned status;
    const char *slug; /* "insufficient-stock": type is /problems/insufficient-stock */
    const char *title;
    const char *about; /* the page behind it: what it means and what to do, a sentence or two */
};

/* Those that HTTP itself brings: bad-request 400, not-found 404, method-not-allowed 405, body-too-large 413, uri-too-long 414,
 * unsupported-media-type 415, header-too-large 431, internal-error 500. */
enum http_problem_kind {
    HTTP_PROBLEM_BAD_REQUEST,
    HTTP_PROBLEM_NOT_FOUND,
    HTTP_PROBLEM_METHOD_NOT_ALLOWED,
    HTTP_PROBLEM_BODY_TOO_LARGE,
    HTTP_PROBLEM_URI_TOO_LONG,
    HTTP_PROBLEM_UNSUPPORTED_MEDIA_TYPE,
    HTTP_PROBLEM_HEADER_TOO_LARGE,
    HTTP_PROBLEM_INTERNAL_ERROR,
    HTTP_PROBLEM_KINDS
};
extern const struct http_problem http_problems[HTTP_PROBLEM_KINDS];

/* `extensions`: an object whose members are added to the problem's, freed here; may be NULL. */
void http_reply_problem(struct http_request *request, const struct http_problem *problem, cJSON *extensions,
                        const char *detail_format, ...) __attribute__((format(printf, 4, 5)));
/* The same as text, for prebuilt responses. Returns the length; out is terminated; CHECKs that it fits. */
size_t http_problem_format(char *out, size_t out_bytes, const struct http_problem *problem,
                           const cJSON *extensions, const char *detail);

#define HTTP_TYPE_JSON "application/json"
#define HTTP_TYPE_PROBLEM "application/problem+json"

#endif
