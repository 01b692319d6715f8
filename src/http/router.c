/* Finds the route of a path.
 *
 * Pure work over a table made once, on the loop's thread. Literal routes go before those with a {name}, so
 * /x/me is not an {id}. The first reject of a candidate is one comparison of a length or of a count, which is
 * all that most of them need. */
#include "http_internal.h"

#include "doorbuster/check.h"
#include "doorbuster/text.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define PATH_ID_MAX INT64_C(9007199254740991)

enum segment_kind { SEGMENT_LITERAL, SEGMENT_ID, SEGMENT_TEXT };

struct segment {
    enum segment_kind kind;
    const char *text;
    size_t bytes;
};

struct compiled_route {
    const struct http_route *route;
    size_t path_bytes;
    size_t segment_count; /* 0: a literal path, compared as a whole */
    struct segment segments[HTTP_SEGMENTS_MAX];
};

struct router {
    size_t count, literal_count;
    struct compiled_route routes[]; /* literal ones first */
};

/* "/a/b" -> "a", "b". Returns the number of segments, 0 if there are too many. */
static size_t split(const char *path, size_t bytes, struct segment segments[HTTP_SEGMENTS_MAX])
{
    const char *end = path + bytes;
    size_t count = 0;
    while (path < end) {
        const char *start = path + 1; /* after the slash */
        const char *slash = memchr(start, '/', (size_t)(end - start));
        path = slash ? slash : end;
        if (count == HTTP_SEGMENTS_MAX)
            return 0;
        segments[count++] = (struct segment){SEGMENT_LITERAL, start, (size_t)(path - start)};
    }
    return count;
}

static void compile(struct compiled_route *compiled, const struct http_route *route)
{
    CHECK(route->path[0] == '/');
    CHECK(route->method < HTTP_METHODS);
    CHECK(route->handler);
    compiled->route = route;
    compiled->path_bytes = strlen(route->path);
    compiled->segment_count = 0;
    if (!strchr(route->path, '{'))
        return;
    compiled->segment_count = split(route->path, compiled->path_bytes, compiled->segments);
    CHECK(compiled->segment_count > 0);
    for (size_t i = 0; i < compiled->segment_count; i++) {
        struct segment *segment = &compiled->segments[i];
        if (segment->bytes == 0 || segment->text[0] != '{')
            continue;
        CHECK(segment->text[segment->bytes - 1] == '}');
        segment->kind =
            segment->bytes == 4 && memcmp(segment->text, "{id}", 4) == 0 ? SEGMENT_ID : SEGMENT_TEXT;
    }
}

struct router *http_router_new(const struct http_route *routes, size_t count)
{
    struct router *router = calloc(1, sizeof *router + count * sizeof router->routes[0]);
    CHECK(router);
    for (size_t i = 0; i < count; i++)
        if (!strchr(routes[i].path, '{'))
            compile(&router->routes[router->count++], &routes[i]);
    router->literal_count = router->count;
    for (size_t i = 0; i < count; i++)
        if (strchr(routes[i].path, '{'))
            compile(&router->routes[router->count++], &routes[i]);
    return router;
}

void http_router_free(struct router **router)
{
    free(*router);
    *router = NULL;
}

static bool segments_match(const struct compiled_route *compiled, const struct segment *segments,
                           size_t count, int64_t *id, const struct segment **text)
{
    if (compiled->segment_count != count)
        return false;
    *id = 0;
    *text = NULL;
    for (size_t i = 0; i < count; i++) {
        const struct segment *wanted = &compiled->segments[i];
        const struct segment *given = &segments[i];
        switch (wanted->kind) {
        case SEGMENT_LITERAL:
            if (wanted->bytes != given->bytes || memcmp(wanted->text, given->text, given->bytes) != 0)
                return false;
            break;
        case SEGMENT_ID:
            if (given->bytes == 0 || given->text[0] == '0' ||
                !text_to_int64(given->text, given->bytes, 1, PATH_ID_MAX, id))
                return false;
            break;
        case SEGMENT_TEXT:
            if (given->bytes == 0)
                return false;
            if (!*text)
                *text = given;
            break;
        }
    }
    return true;
}

/* The path itself: a proxy may send "http://host/path". */
static const char *path_of(const char *target, size_t *bytes)
{
    if (strncasecmp(target, "http://", 7) == 0) {
        const char *slash = strchr(target + 7, '/');
        target = slash ? slash : "/";
    }
    *bytes = strlen(target);
    if (*bytes > 1 && target[*bytes - 1] == '/')
        --*bytes; /* "/x/" is "/x" */
    return target;
}

static bool take(struct http_request *request, const struct http_route *route)
{
    request->methods_allowed |= 1u << route->method;
    if (route->method != request->method)
        return false;
    request->route = route;
    return true;
}

void http_router_match(const struct router *router, struct http_request *request)
{
    struct segment segments[HTTP_SEGMENTS_MAX];
    const struct segment *text;
    size_t bytes;
    int64_t id;
    const char *path = path_of(request->path, &bytes);

    if (path[0] != '/' || request->uri_has_slash)
        return;
    for (size_t i = 0; i < router->literal_count; i++) {
        const struct compiled_route *candidate = &router->routes[i];
        if (candidate->path_bytes == bytes && memcmp(candidate->route->path, path, bytes) == 0 &&
            take(request, candidate->route))
            return;
    }
    size_t count = split(path, bytes, segments);
    for (size_t i = router->literal_count; count > 0 && i < router->count; i++) {
        if (!segments_match(&router->routes[i], segments, count, &id, &text) ||
            !take(request, router->routes[i].route))
            continue;
        request->path_id = id;
        request->path_text = text ? http_arena_copy(request, text->text, text->bytes) : NULL;
        return;
    }
}
