/* An HTTP front alone, in a process of its own, with a few routes: what the layer does whoever uses it.
 *
 *     GET  /now       {"now":true}                   GET  /later   the same, after 150 ms: the request is suspended meanwhile
 *     POST /prebuilt  a prebuilt 400                 GET  /page    HTML
 *     GET  /who       {"id","client","local"}        GET  /big     HTTP_FIXTURE_BIG_BYTES of 'b'
 *     POST /echo      its body                       GET  /events  a frame every 20 ms, without an end
 *
 * The process ends by SIGTERM and must exit 0: with nothing leaked, under the address sanitizer. */
#ifndef DOORBUSTER_TEST_HTTP_FIXTURE_H
#define DOORBUSTER_TEST_HTTP_FIXTURE_H

#include "http_client.h"

#include "doorbuster/http.h"

#include <sys/types.h>

#define HTTP_FIXTURE_BIG_BYTES ((size_t)4 << 20)
#define HTTP_FIXTURE_PATIENCE_MS 8000

struct http_fixture {
    pid_t pid;
    bool leaving;
    int listen_fd;
    uint16_t port;
};

/* Whatever is 0 in `settings` and must not be is filled in. */
void http_fixture_start(struct http_fixture *fixture, const struct http_settings *settings);
void http_fixture_leave(struct http_fixture *fixture);           /* asks it to end */
void http_fixture_stop(struct http_fixture *fixture);            /* likewise, and waits until it has */
int64_t http_fixture_cpu_ms(const struct http_fixture *fixture); /* that the process has used */
/* One request on a connection of its own; `headers` are lines that end in CRLF, or NULL. */
void http_fixture_call(const struct http_fixture *fixture, const char *method, const char *target,
                       const char *headers, struct http_answer *answer);
/* NULL: there must be none of that name. */
void expect_answer_header(const struct http_answer *answer, const char *name, const char *value);

#endif
