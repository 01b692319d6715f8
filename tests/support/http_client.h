/* A small HTTP/1.1 client for tests: raw bytes out, parsed answers in, a deadline on everything.
 *
 * Uses no library but the C standard's and sockets, keeps no state outside struct http_client and never exits
 * or asserts: usable from any thread and any process, one client at a time by one thread. Signals: sends with
 * MSG_NOSIGNAL. */
#ifndef DOORBUSTER_TEST_HTTP_CLIENT_H
#define DOORBUSTER_TEST_HTTP_CLIENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum http_client_result {
    HTTP_CLIENT_OK,
    HTTP_CLIENT_TIMEOUT,
    HTTP_CLIENT_CLOSED,    /* by the server, in order, before a byte of an answer */
    HTTP_CLIENT_BROKEN,    /* reset, refused, or closed in the middle of an answer */
    HTTP_CLIENT_MALFORMED, /* not HTTP */
};

struct http_client {
    int fd; /* -1: not connected */
    char host[64];
    uint16_t port;
    bool no_body; /* set while answers to HEAD are read */
    /* the one request that is not answered yet, for exchanges.h; NULL: not known, or not wanted */
    char *asked;
    size_t asked_bytes, unanswered;
    char *buffer; /* received and not yet read */
    size_t used, room;
};

struct http_answer {
    int status;
    char *head; /* status line and headers, terminated */
    char *body; /* terminated; chunked bodies are joined */
    size_t body_bytes;
    bool closes; /* says `Connection: close`, or is HTTP/1.0 without keep-alive */
};

/* `host` is a numeric address. */
enum http_client_result http_client_open(struct http_client *client, const char *host, uint16_t port,
                                         int timeout_ms);
void http_client_close(struct http_client *client);
/* An IPv4 address of this machine that is not loopback's: who connects to it comes from it. False: there is none. */
bool http_client_own_address(char out[64]);

/* All of it, or not: the result says. `sent` may be NULL. */
enum http_client_result http_client_send(struct http_client *client, const void *bytes, size_t count,
                                         int timeout_ms, size_t *sent);

/* A whole request: Host and Content-Length are added; `headers` is NULL or lines that end in CRLF; `body` may
 * be NULL. */
enum http_client_result http_client_request(struct http_client *client, const char *method,
                                            const char *target, const char *headers, const void *body,
                                            size_t body_bytes, int timeout_ms);

/* The next answer; 100 Continue is an answer of its own. Whatever the result, http_answer_free may be called.
 */
enum http_client_result http_client_read(struct http_client *client, struct http_answer *answer,
                                         int timeout_ms);

/* Waits until the server has closed the connection. Anything it sent before that is thrown away. */
enum http_client_result http_client_wait_closed(struct http_client *client, int timeout_ms);

/* Opens a connection if there is none, sends, reads; one deadline for all. Closes after an answer that says
 * so and after a fault. */
enum http_client_result http_client_call(struct http_client *client, const char *method, const char *target,
                                         const char *headers, const char *body, struct http_answer *answer,
                                         int timeout_ms);

/* A header's value copied into `out`, or NULL. */
const char *http_answer_header(const struct http_answer *answer, const char *name, char *out,
                               size_t out_bytes);
void http_answer_free(struct http_answer *answer);

#endif
