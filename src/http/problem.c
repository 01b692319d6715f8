/* Problem details (RFC 9457) as text.
 *
 * Pure functions but for malloc. Whatever a client sent may end up in a detail, so it is made well-formed
 * UTF-8 first and quoted by json_quote. */
#include "http_internal.h"

#include "doorbuster/check.h"
#include "doorbuster/json.h"
#include "doorbuster/text.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const struct http_problem http_problems[HTTP_PROBLEM_KINDS] = {
    [HTTP_PROBLEM_BAD_REQUEST] =
        {400, "bad-request", "Bad request",
         "The request is not well-formed HTTP, or its body is not what it says it is. Mend the client."},
    [HTTP_PROBLEM_NOT_FOUND] =
        {404, "not-found", "Not found",
         "There is nothing at this path, or no such product or order. \"detail\" says which of them."},
    [HTTP_PROBLEM_METHOD_NOT_ALLOWED] =
        {405, "method-not-allowed", "Method not allowed",
         "The path exists, but not for this method. The Allow header lists those it has."},
    [HTTP_PROBLEM_BODY_TOO_LARGE] = {413, "body-too-large", "Body too large",
                                     "The body is larger than the server reads. Send less."},
    [HTTP_PROBLEM_URI_TOO_LONG] =
        {414, "uri-too-long", "URI too long",
         "The request target is longer than 2,000 bytes. Send arguments in the body."},
    [HTTP_PROBLEM_UNSUPPORTED_MEDIA_TYPE] = {415, "unsupported-media-type", "Unsupported media type",
                                             "The Content-Type is not one that this call understands."},
    [HTTP_PROBLEM_HEADER_TOO_LARGE] = {431, "header-too-large", "Header too large",
                                       "The header section is larger than 6 KiB or has more than 48 lines."},
    [HTTP_PROBLEM_INTERNAL_ERROR] =
        {500, "internal-error", "Internal error",
         "The server could not make an answer. Nothing is known to have changed; see its log."},
};

/* Length of the well-formed UTF-8 sequence at text[0..bytes), 0 if there is none. */
static size_t sequence_bytes(const char *text, size_t bytes)
{
    for (size_t length = 1; length <= 4 && length <= bytes; length++)
        if (text_is_utf8(text, length))
            return length;
    return 0;
}

void http_sanitize(const char *text, size_t bytes_max, char *out, size_t out_bytes)
{
    size_t used = 0, bytes = strnlen(text, bytes_max);
    bool cut = text[bytes] != '\0';

    CHECK(out_bytes > 0);
    while (bytes > 0) {
        size_t length = sequence_bytes(text, bytes);
        if (length == 0 && cut && bytes < 4 && ((unsigned char)*text & 0xc0) == 0xc0)
            break; /* a sequence that the limit cut in two */
        if (used + (length ? length : 1) >= out_bytes)
            break;
        if (length == 0 || (length == 1 && ((unsigned char)*text < ' ' || *text == 0x7f))) {
            out[used++] = '?';
            length = 1;
        } else {
            memcpy(out + used, text, length);
            used += length;
        }
        text += length;
        bytes -= length;
    }
    out[used] = '\0';
}

/* `members`: the extensions printed as an object, or NULL. Returns the length, 0 if it does not fit. */
static size_t format(char *out, size_t out_bytes, const struct http_problem *problem, const char *members,
                     const char *detail)
{
    int head =
        snprintf(out, out_bytes,
                 "{\"type\":\"/problems/%s\",\"title\":\"%s\",\"status\":%u,\"detail\":", problem->slug,
                 problem->title, problem->status);
    if (head < 0 || (size_t)head >= out_bytes)
        return 0;
    size_t quoted = json_quote(detail, out + head, out_bytes - (size_t)head);
    if (quoted == 0)
        return 0;
    size_t used = (size_t)head + quoted;
    bool has_members = members && members[0] == '{' && members[1] != '}';
    const char *rest = has_members ? members + 1 : "}";
    int tail = snprintf(out + used, out_bytes - used, "%s%s", has_members ? "," : "", rest);
    if (tail < 0 || (size_t)tail >= out_bytes - used)
        return 0;
    return used + (size_t)tail;
}

size_t http_problem_format(char *out, size_t out_bytes, const struct http_problem *problem,
                           const cJSON *extensions, const char *detail)
{
    char *members = extensions ? cJSON_PrintUnformatted(extensions) : NULL;
    size_t bytes = format(out, out_bytes, problem, members, detail);
    CHECK(!extensions || members);
    CHECK(bytes > 0);
    cJSON_free(members);
    return bytes;
}

char *http_problem_print(const struct http_problem *problem, const cJSON *extensions, const char *detail,
                         size_t *bytes)
{
    char *members = extensions ? cJSON_PrintUnformatted(extensions) : NULL;
    size_t room = 128 + strlen(problem->slug) + strlen(problem->title) + 6 * strlen(detail) +
                  (members ? strlen(members) : 0);
    char *text = extensions && !members ? NULL : malloc(room);

    *bytes = text ? format(text, room, problem, members, detail) : 0;
    cJSON_free(members);
    if (*bytes > 0)
        return text;
    free(text);
    return NULL;
}
