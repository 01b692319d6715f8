/* The head of a request: read once, refused if it is not what it should be.
 *
 * Pure work on one request, on the loop's thread. libmicrohttpd 0.9.75 lets pass what must not pass:
 * Transfer-Encoding together with Content-Length, two Content-Lengths (the rest of the body then runs as a
 * second request), transfer codings it does not know (the request hangs), no Host, and `Expect: 100-continue`
 * without a body (it asks for the answer at a moment at which it does not take one, if more bytes have come).
 * All of that is refused here, before a body is read. */
#include "http_internal.h"

#include "doorbuster/clock.h"
#include "doorbuster/text.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

/* libmicrohttpd leaves a bad escape as it is, and cuts the path off at %00. */
static void note_escapes(struct http_request *request, const char *path, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++) {
        if (path[i] != '%')
            continue;
        int byte = text_hex_byte(path + i + 1, bytes - i - 1);
        if (byte <= 0)
            request->uri_malformed = true;
        else if (byte == '/')
            request->uri_has_slash = true;
    }
}

/* `uri` as it came, before anything was decoded. */
void http_note_uri(struct http_request *request, const char *uri)
{
    const unsigned char *c = (const unsigned char *)uri;
    size_t path_bytes = 0;
    bool in_path = true, has_escape = false;

    for (; *c; c++) {
        if (*c <= ' ' || *c == 0x7f)
            request->uri_malformed = true;
        else if (in_path && *c == '?')
            in_path = false;
        else if (in_path && *c == '%')
            has_escape = true;
        if (in_path)
            path_bytes++;
    }
    request->uri_bytes = (size_t)(c - (const unsigned char *)uri);
    if (has_escape)
        note_escapes(request, uri, path_bytes);
}

static bool name_is(const char *name, const char *wanted, size_t bytes)
{
    return strncasecmp(name, wanted, bytes) == 0;
}

static enum MHD_Result header_cb(void *context, enum MHD_ValueKind kind, const char *name, size_t name_bytes,
                                 const char *value, size_t value_bytes)
{
    struct http_request *request = context;
    (void)kind;

    request->header_bytes += name_bytes + value_bytes + 4;
    if (request->header_count == HTTP_HEADERS_MAX || request->header_bytes > HTTP_POOL_BYTES) {
        request->headers_overflow = true;
        return MHD_NO;
    }
    struct header_line *line = &request->headers[request->header_count++];
    *line = (struct header_line){name, value, (unsigned short)name_bytes, (unsigned short)value_bytes, false};
    /* A folded line: libmicrohttpd appends it to the *name*, which it moves behind the value for that. */
    if (name > value)
        request->header_name_bad = true;
    /* "Content-Length : 5" is no Content-Length to some and one to others. */
    if (name_bytes == 0 || name[0] <= ' ' || name[name_bytes - 1] <= ' ' || memchr(name, ' ', name_bytes)) {
        request->header_name_bad = true;
        return MHD_YES;
    }
    switch (name_bytes) {
    case 4:
        if (name_is(name, "Host", 4))
            request->host_count++;
        break;
    case 6:
        if (name_is(name, "Origin", 6))
            request->origin_count++;
        else if (name_is(name, "Expect", 6))
            request->expect_count++;
        break;
    case 12:
        if (!request->content_type && name_is(name, "Content-Type", 12))
            request->content_type = value;
        else if (name_is(name, "X-Request-Id", 12))
            http_take_id(request, value, value_bytes);
        break;
    case 14:
        if (name_is(name, "Content-Length", 14)) {
            request->content_length_count++;
            request->content_length =
                strtoull(value, NULL, 10); /* libmicrohttpd made sure that it is a number */
        }
        break;
    case 17:
        if (name_is(name, "Transfer-Encoding", 17)) {
            request->transfer_encoding_count++;
            request->transfer_coding_known = value_bytes == 7 && name_is(value, "chunked", 7);
        }
        break;
    default:
        break;
    }
    return MHD_YES;
}

static enum http_method method_of(const char *name)
{
    switch (name[0]) {
    case 'G':
        return strcmp(name, "GET") == 0 ? HTTP_GET : HTTP_METHODS;
    case 'H':
        return strcmp(name, "HEAD") == 0 ? HTTP_GET : HTTP_METHODS;
    case 'P':
        return strcmp(name, "POST") == 0 ? HTTP_POST : strcmp(name, "PUT") == 0 ? HTTP_PUT : HTTP_METHODS;
    case 'D':
        return strcmp(name, "DELETE") == 0 ? HTTP_DELETE : HTTP_METHODS;
    default:
        return HTTP_METHODS;
    }
}

/* One pass over the header lines. */
void http_read_head(struct http_request *request, struct MHD_Connection *mhd, const char *method)
{
    request->began_us = clock_monotonic_us();
    request->method_name = method;
    request->method = method_of(method);
    (void)MHD_get_connection_values_n(mhd, MHD_HEADER_KIND, header_cb, request);
    request->has_chunked_body = request->transfer_encoding_count > 0;
}

enum head_fault http_check_head(const struct http_request *request, const char *version, const char **detail)
{
    bool is_http_1_0 = strcmp(version, "HTTP/1.0") == 0;

    if (request->headers_overflow || request->header_bytes > HTTP_HEAD_BYTES_MAX) {
        *detail = "The header section is larger than 6 KiB or has more than 48 lines.";
        return HEAD_TOO_LARGE;
    }
    if (request->uri_bytes > HTTP_URI_BYTES_MAX) {
        *detail = "The request target is longer than 2,000 bytes.";
        return HEAD_URI_TOO_LONG;
    }
    if (request->transfer_encoding_count > 0 && request->content_length_count > 0)
        *detail = "A request has either Transfer-Encoding or Content-Length, not both.";
    else if (request->content_length_count > 1)
        *detail = "More than one Content-Length.";
    else if (request->transfer_encoding_count > 1 ||
             (request->transfer_encoding_count == 1 && !request->transfer_coding_known))
        *detail = "The only transfer coding understood is chunked.";
    else if (request->transfer_encoding_count > 0 && is_http_1_0)
        *detail = "HTTP/1.0 knows no Transfer-Encoding.";
    else if (request->expect_count > 0 && request->content_length == 0 &&
             request->transfer_encoding_count == 0)
        *detail = "A request that expects 100-continue has a body.";
    else if (request->host_count > 1)
        *detail = "More than one Host.";
    else if (request->host_count == 0 && !is_http_1_0)
        *detail = "A Host header is missing.";
    else if (request->header_name_bad)
        *detail = "A header name is empty or has white space in or around it, or a header is folded.";
    else if (request->uri_malformed)
        *detail = "The request target has a forbidden byte or a malformed percent-encoding.";
    else if (request->content_length > request->server->settings.body_bytes_max)
        return HEAD_BODY_TOO_LARGE;
    else
        return HEAD_GOOD;
    return HEAD_MALFORMED;
}
