/* What browsers are told: what a page may do, and who else may read an answer (CORS).
 *
 * Pure work on one answer, on the loop's thread of a worker; owns nothing. Closed by default: without cors_origins no other origin's script may read
 * anything, and OPTIONS is a method that no path has. Tokens travel in the Authorization header and never in a cookie, so no answer allows
 * credentials and a page of another origin cannot use those of this one. */
#include "http_internal.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

#define ORIGIN_BYTES_MAX 256

static bool add(struct MHD_Response *response, const char *name, const char *value)
{
    return MHD_add_response_header(response, name, value) == MHD_YES;
}

/* --- pages ------------------------------------------------------------------------------------------- */

bool http_add_security(struct MHD_Response *response, const char *content_type)
{
    static const char *const page[][2] = {
        {"Content-Security-Policy", "default-src 'self'; base-uri 'none'; form-action 'self'; "
                                    "frame-ancestors 'none'; object-src 'none'"},
        {"Referrer-Policy", "no-referrer"},
        {"Permissions-Policy", "camera=(), geolocation=(), microphone=(), payment=(), usb=()"},
        {"Cross-Origin-Opener-Policy", "same-origin"},
    };

    if (strcmp(content_type, HTTP_TYPE_PROBLEM) ==
        0) /* nobody sniffs that, and most answers of a sale are problems */
        return true;
    if (!add(response, "X-Content-Type-Options", "nosniff"))
        return false;
    if (strncmp(content_type, "text/html", 9) != 0)
        return true;
    for (size_t i = 0; i < sizeof page / sizeof page[0]; i++)
        if (!add(response, page[i][0], page[i][1]))
            return false;
    return true;
}

/* --- other origins -------------------------------------------------------------------------------------- */

static bool is_origin(const char *text, size_t bytes)
{
    size_t scheme = bytes > 8 && strncmp(text, "https://", 8) == 0  ? 8
                    : bytes > 7 && strncmp(text, "http://", 7) == 0 ? 7
                                                                    : 0;
    return scheme > 0 && bytes <= ORIGIN_BYTES_MAX &&
           strspn(text + scheme, "abcdefghijklmnopqrstuvwxyz0123456789.-:[]_") >= bytes - scheme;
}

bool http_origins_check(const char *list, char *error, size_t error_bytes)
{
    if (!list || strcmp(list, "*") == 0)
        return true;
    for (const char *at = list; *at; at += at[0] == ',') {
        size_t bytes = strcspn(at, ",");
        if (!is_origin(at, bytes)) {
            (void)snprintf(error, error_bytes,
                           "\"%.*s\": must be *, or origins without a path, such as https://shop.example",
                           (int)bytes, at);
            return false;
        }
        at += bytes;
    }
    return true;
}

static bool is_in_list(const char *list, const char *origin)
{
    size_t bytes = strlen(origin);

    for (const char *at = list; *at; at += at[0] == ',') {
        size_t entry = strcspn(at, ",");
        if (entry == bytes && memcmp(at, origin, bytes) == 0)
            return true;
        at += entry;
    }
    return false;
}

/* True if there was memory for it. */
bool http_add_cors(const struct http_request *request, struct MHD_Response *response)
{
    const char *list = request->server->settings.cors_origins, *origin;

    if (!list)
        return true;
    bool anybody = strcmp(list, "*") == 0;
    if (!anybody && !add(response, "Vary", "Origin"))
        return false;
    if (request->origin_count != 1 || !(origin = http_request_header(request, "Origin")) ||
        !(anybody || is_in_list(list, origin)))
        return true;
    return add(response, "Access-Control-Allow-Origin", anybody ? "*" : origin) &&
           add(response, "Access-Control-Expose-Headers",
               "RateLimit, RateLimit-Policy, Retry-After, X-Request-Id, Idempotent-Replayed");
}

bool http_asks_options(const struct http_request *request)
{
    return request->server->settings.cors_origins && request->method_name &&
           strcmp(request->method_name, "OPTIONS") == 0;
}

void http_reply_options(struct http_request *request, const char *allow)
{
    http_reply_header(request, "Allow", allow);
    if (http_request_header(request, "Access-Control-Request-Method")) {
        http_reply_header(request, "Access-Control-Allow-Methods", allow);
        http_reply_header(request, "Access-Control-Allow-Headers",
                          "Authorization, Content-Type, Idempotency-Key, X-Request-Id");
        http_reply_header(request, "Access-Control-Max-Age", "7200");
    }
    http_reply_bytes(request, 204, NULL, "", 0);
}
