/* What the files of src/http share. Nobody else includes this.
 *
 * A connection's states; each has at most one deadline, kept in a first-in-first-out list per length of time:
 *
 *     fresh ──request line──▶ head ──head complete──▶ body ──body complete──▶ waiting ──long wait──▶ parked
 *       ▲ accept               ▲ │                     │                       │ ▲                    │
 *                              │ └──── no body ────────┼──────────────────────▶│ │(handler at work)   │
 *                              │      refused ─────────┼──────┐                │                      │
 *                              │                       │      ▼                ▼                      │
 *                             idle ◀──answer sent────────── replying ◀───── http_reply_* ◀────────────┘
 *
 *     state     deadline, then the socket is shut down
 *     fresh     head_timeout_ms after accept
 *     head      head_timeout_ms after accept or, on a kept-alive connection, after the request line
 *     body      body_timeout_ms after the head
 *     waiting   none: it waits for us
 *     parked    none: the same, but suspended in libmicrohttpd, because it has been waiting for long
 *     replying  idle_timeout_ms to take the answer
 *     streaming idle_timeout_ms to take a frame of a channel: replying without an end (channel.c)
 *     idle      idle_timeout_ms after the last answer, whatever trickles in before the next request line */
#ifndef DOORBUSTER_HTTP_INTERNAL_H
#define DOORBUSTER_HTTP_INTERNAL_H

#include "doorbuster/http.h"

#include <microhttpd.h>
#include <netinet/in.h>

#define HTTP_URI_BYTES_MAX 2000
#define HTTP_HEAD_BYTES_MAX 6144       /* libmicrohttpd itself gives up a little below the size of its pool */
#define HTTP_POOL_BYTES 8192           /* libmicrohttpd's memory of one connection */
#define HTTP_HEADERS_MAX 48            /* lines of one head */
#define HTTP_SWALLOW_BYTES_MAX 1048576 /* of a body that is too large */
#define HTTP_REPLY_HEADERS_MAX 8
#define HTTP_ARENA_INLINE_BYTES 3072
#define HTTP_ARENA_BYTES_MAX 65536
#define HTTP_SEGMENTS_MAX 8         /* of a path */
#define HTTP_REQUESTS_KEPT_MAX 1024 /* recycled requests */
#define HTTP_LINGERING_MAX 64
#define HTTP_NETWORKS_MAX 32
#define HTTP_CROWD_BUCKETS 1024

enum connection_state {
    CONNECTION_FRESH,
    CONNECTION_HEAD,
    CONNECTION_BODY,
    CONNECTION_WAITING,
    CONNECTION_PARKED,
    CONNECTION_REPLYING,
    CONNECTION_STREAMING,
    CONNECTION_IDLE,
    CONNECTION_STATES
};

enum deadline_class {
    DEADLINE_HEAD,
    DEADLINE_BODY,
    DEADLINE_SEND,
    DEADLINE_IDLE,
    DEADLINE_CLASSES,
    DEADLINE_NONE
};

struct http_connection {
    struct http_server *server;
    struct MHD_Connection *mhd;
    struct http_request *request; /* the current one, NULL between requests */
    int fd;
    enum connection_state state;
    enum deadline_class deadline; /* the list it is in */
    bool bytes_exact;             /* bytes_expected counts everything (a chunked body cannot be counted) */
    uint64_t since_ms;            /* when its state (its deadline) began, on the loop's clock */
    uint64_t bytes_expected;      /* all requests so far; more received means that another has begun */
    char peer[INET6_ADDRSTRLEN];  /* "": nobody has asked yet */
    bool peer_is_local, peer_is_trusted;
    uint64_t tls_bytes;                           /* received; bytes_expected: as many when it became idle */
    uint64_t tls_read_ms;                         /* when the last came, on the loop's clock */
    struct http_connection *tls_next, **tls_link; /* server->tls_read; tls_link NULL: not in it */
    struct http_connection *previous, *next;      /* in the list of its deadline */
    struct in6_addr crowd;                        /* whose connections it is counted among (crowd.c) */
    struct http_connection *crowd_next,
        **crowd_link; /* its bucket of server->crowds; crowd_link NULL: not counted */
};

struct connection_list {
    struct http_connection *oldest, *newest;
};

struct header_line {
    const char *name, *value;
    unsigned short name_bytes, value_bytes;
    bool copied; /* value is in the request's arena */
};

struct saved_argument { /* of the query, once the client is gone */
    struct saved_argument *next;
    const char *name, *value;
};

struct arena_block {
    struct arena_block *next;
    max_align_t data[];
};

/* What http_check_head() found out. */
enum head_fault {
    HEAD_GOOD,
    HEAD_MALFORMED, /* 400 */
    HEAD_URI_TOO_LONG,
    HEAD_TOO_LARGE,
    HEAD_BODY_TOO_LARGE
};

struct http_request {
    /* --- set to zero for every request, down to `headers` --- */
    struct http_server *server;
    struct http_connection *connection; /* NULL: the client is gone */
    const char *path;        /* percent-decoded; in libmicrohttpd's memory, until the handler was called */
    const char *method_name; /* the same */
    const struct http_route *route; /* NULL: none matched */
    int64_t began_us;
    int64_t path_id;          /* 0: none */
    const char *path_text;    /* NULL: none */
    const char *content_type; /* NULL: none */
    char *body;               /* in the arena, or on the heap if body_on_heap */
    size_t body_bytes, body_room;
    size_t swallowed_bytes; /* of a body that is too large */
    uint64_t content_length;
    char *reply_text;                   /* malloc'ed body of the answer */
    struct http_response *reply_shared; /* whose body it is, else */
    struct saved_argument *saved_arguments;
    struct arena_block *arena_blocks;
    char *arena_next;
    size_t arena_left, arena_total;
    size_t uri_bytes;   /* as it came */
    const char *id;     /* X-Request-Id: the client's, or made; NULL: nobody has asked yet */
    const char *client; /* likewise */
    size_t header_count, header_bytes;
    unsigned host_count, content_length_count, transfer_encoding_count, id_count, origin_count, expect_count;
    unsigned methods_allowed; /* bits of enum http_method: those of the routes that match the path */
    unsigned reply_header_count;
    enum http_method method; /* HTTP_METHODS: some other */
    bool body_on_heap;
    bool has_chunked_body, transfer_coding_known;
    bool head_seen, dispatched, pending, replied;
    bool closes;      /* the connection is not to be used again */
    bool body_unread; /* refused before its body was read */
    bool headers_overflow, header_name_bad;
    bool uri_malformed; /* bad or forbidden bytes or escapes */
    bool uri_has_slash; /* an escaped one: no route matches */
    bool client_is_local;
    /* --- not set --- */
    struct header_line headers[HTTP_HEADERS_MAX];
    struct {
        const char *name, *value;
    } reply_headers[HTTP_REPLY_HEADERS_MAX];
    struct http_request *next_free;
    max_align_t arena[HTTP_ARENA_INLINE_BYTES / sizeof(max_align_t)];
};

struct http_network {
    unsigned char address[16];
    unsigned bits;
};

struct http_networks {
    size_t count;
    struct http_network list[HTTP_NETWORKS_MAX];
};

struct http_response {
    unsigned references; /* its owner's, and those of the requests that are answered with `body` */
    unsigned status;
    const char *content_type;
    struct MHD_Response *keeping; /* leaves the connection open */
    struct MHD_Response *closing; /* says `Connection: close` */
    size_t bytes;
    char body[]; /* for answers that carry a header of one request */
};

struct router;    /* router.c */
struct lingering; /* linger.c */

struct http_server {
    uv_loop_t *loop;
    struct http_settings settings;
    struct router *router;
    struct MHD_Daemon *daemon;
    int listen_fd; /* a duplicate of the caller's, so that libmicrohttpd never holds the caller's own */
    struct http_networks proxies; /* trusted */
    struct http_connection *crowds[HTTP_CROWD_BUCKETS];
    uint64_t crowded_out, crowd_key; /* crowd.c */
    bool is_tls;
    uint64_t next_id;
    uv_poll_t poll;
    uv_timer_t sweep;
    uv_idle_t wake; /* active while there is work, so that the loop does not sleep before the next turn */
    unsigned handles_open;
    bool has_work, in_turn, quiesced;
    bool closes_idle;        /* quiesced, and the grace for idle connections is not over yet */
    uint64_t close_idle_ms;  /* when it is, on the loop's clock */
    bool limit_was_left;     /* the last run closed a connection at the limit: the next one listens again */
    bool out_of_descriptors; /* libmicrohttpd does not listen until a connection has ended */
    bool poll_paused;
    unsigned fruitless_turns;
    unsigned quiet_runs; /* with TLS: of libmicrohttpd in this turn, in a row, in which nothing moved on */
    unsigned held_runs;  /* with TLS: in a row, in any turn, for the sake of what GnuTLS holds decrypted */
    struct http_connection *tls_read; /* those whose session may hold something decrypted */
    unsigned events;                  /* things that moved on since the last MHD_run began */
    size_t counts[CONNECTION_STATES];
    size_t connections;
    size_t pending;
    uint64_t expired;
    struct connection_list deadlines[DEADLINE_CLASSES];
    struct http_request *free_requests;
    size_t free_request_count;
    struct http_response *internal_error; /* when memory is short */
    struct lingering *lingering;          /* linger.c */
    size_t lingering_count;
};

/* --- front.c --- */
void http_server_has_work(struct http_server *server); /* the next turn runs libmicrohttpd */

void http_server_handle_closed(
    struct http_server *server); /* one of its loop handles; the last one frees the server */

/* --- connection.c --- */
struct http_connection *http_connection_new(struct http_server *server, struct MHD_Connection *mhd);
void http_connection_free(struct http_connection *connection);
void http_connection_move(struct http_connection *connection, enum connection_state to);
void http_connections_sweep(struct http_server *server); /* shuts down those whose deadline is over */
void http_connections_close_idle(
    struct http_server *server); /* those on which no byte of a request has come */

/* --- request.c --- */
struct http_request *http_request_new(struct http_connection *connection);
void http_request_free(struct http_request *request);
void http_request_orphan(struct http_request *request); /* the client is gone, the handler is still at work */
void *http_arena_alloc(struct http_request *request, size_t bytes);
const char *http_arena_copy(struct http_request *request, const char *text, size_t bytes);
bool http_request_add_body(struct http_request *request, const char *data,
                           size_t bytes); /* false: swallowed too much */

/* --- head.c --- */
void http_note_uri(struct http_request *request, const char *uri);
void http_read_head(struct http_request *request, struct MHD_Connection *mhd, const char *method);
enum head_fault http_check_head(const struct http_request *request, const char *version, const char **detail);

/* --- client.c --- */
void http_take_id(struct http_request *request, const char *value, size_t bytes);
bool http_networks_read(const char *list, struct http_networks *out, char *error, size_t error_bytes);

/* The peer, of IPv6 its network, as 16 bytes. False: it is this machine, or a trusted proxy. */
bool http_peer_network(const struct http_server *server, const struct sockaddr *peer, struct in6_addr *out);

void http_show_address(const struct in6_addr *address, char out[INET6_ADDRSTRLEN]);

/* --- crowd.c --- */
bool http_crowd_admits(struct http_server *server, const struct sockaddr *peer);
void http_crowd_join(struct http_connection *connection);
void http_crowd_leave(struct http_connection *connection);

/* --- browser.c --- */
/* False: no memory. */
bool http_add_security(struct MHD_Response *response, const char *content_type);
bool http_add_cors(const struct http_request *request, struct MHD_Response *response);
bool http_origins_check(const char *list, char *error, size_t error_bytes);
/* OPTIONS, which other origins' scripts send before they ask. */
bool http_asks_options(const struct http_request *request);
void http_reply_options(struct http_request *request, const char *allow);

/* --- tls.c --- */
extern const char *const http_tls_priorities;
bool http_tls_check(const char *certificate_pem, const char *key_pem, char *error, size_t error_bytes);
void http_tls_begin(struct http_connection *connection); /* before its first byte */
void http_tls_end(struct http_connection *connection);
bool http_tls_request_has_begun(const struct http_connection *connection);
/* Does a session hold decrypted bytes of a request that has not begun or whose head is not complete? */
bool http_tls_holds_head(struct http_server *server);

/* --- reply.c --- */
/* The start of an endless answer; takes the caller's reference to `response`. */
void http_reply_stream(struct http_request *request, const char *content_type, struct MHD_Response *response);

/* --- router.c --- */
struct router *http_router_new(const struct http_route *routes, size_t count);
void http_router_free(struct router **router);
void http_router_match(const struct router *router,
                       struct http_request *request); /* route, path_id, path_text, methods_allowed */

/* --- linger.c --- */
void http_linger(struct http_server *server,
                 int fd); /* keeps the socket after libmicrohttpd has closed it, and drains it */
void http_linger_sweep(struct http_server *server, bool all);

/* --- problem.c --- */
void http_sanitize(const char *text, size_t bytes_max, char *out,
                   size_t out_bytes); /* well-formed, printable UTF-8 */
/* Allocated with malloc; NULL if memory is short. */
char *http_problem_print(const struct http_problem *problem, const cJSON *extensions, const char *detail,
                         size_t *bytes);

/* --- the log (access_log.c) -------------------------------------------------------------------------------- */
void http_log_answer(const struct http_request *request, unsigned status, int64_t took_us);

#endif
