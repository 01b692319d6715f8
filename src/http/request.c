/* A request's memory, its body and what handlers may ask of it.
 *
 * Runs on the loop's thread of a worker. Owns every struct http_request: taken from a list of used ones when
 * a request line arrives, given back when the answer is sent or, if the client left before it was answered,
 * when the reply is called. Headers and path live in libmicrohttpd's memory of the connection; whatever a
 * handler may keep is copied into the request's arena. A process out of memory aborts here: the amounts are
 * small and bounded. */
#include "http_internal.h"

#include "doorbuster/check.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define BODY_ROOM_FIRST 2048

/* --- memory ------------------------------------------------------------------------------------------ */

static size_t aligned(size_t bytes)
{
    return (bytes + sizeof(max_align_t) - 1) / sizeof(max_align_t) * sizeof(max_align_t);
}

void *http_arena_alloc(struct http_request *request, size_t bytes)
{
    CHECK(bytes <= HTTP_POOL_BYTES * 16);
    bytes = aligned(bytes ? bytes : 1);
    request->arena_total += bytes;
    if (bytes <= request->arena_left) {
        void *memory = request->arena_next;
        request->arena_next += bytes;
        request->arena_left -= bytes;
        return memory;
    }
    struct arena_block *block = malloc(sizeof *block + bytes);
    CHECK(block);
    block->next = request->arena_blocks;
    request->arena_blocks = block;
    return block->data;
}

void *http_request_alloc(struct http_request *request, size_t bytes)
{
    CHECK(request->arena_total + bytes <= HTTP_ARENA_BYTES_MAX);
    return http_arena_alloc(request, bytes);
}

const char *http_arena_copy(struct http_request *request, const char *text, size_t bytes)
{
    char *copy = http_arena_alloc(request, bytes + 1);
    memcpy(copy, text, bytes);
    copy[bytes] = '\0';
    return copy;
}

struct http_request *http_request_new(struct http_connection *connection)
{
    struct http_server *server = connection->server;
    struct http_request *request = server->free_requests;

    if (request) {
        server->free_requests = request->next_free;
        server->free_request_count--;
    } else {
        request = malloc(sizeof *request);
        CHECK(request);
    }
    memset(request, 0, offsetof(struct http_request, headers));
    request->server = server;
    request->connection = connection;
    request->arena_next = (char *)request->arena;
    request->arena_left = sizeof request->arena;
    CHECK(connection->request == NULL);
    connection->request = request;
    return request;
}

void http_request_free(struct http_request *request)
{
    struct http_server *server = request->server;

    CHECK(!request->pending);
    if (request->connection)
        request->connection->request = NULL;
    if (request->body_on_heap)
        free(request->body);
    free(request->reply_text);
    http_response_free(&request->reply_shared);
    while (request->arena_blocks) {
        struct arena_block *block = request->arena_blocks;
        request->arena_blocks = block->next;
        free(block);
    }
    if (server->free_request_count < HTTP_REQUESTS_KEPT_MAX) {
        request->next_free = server->free_requests;
        server->free_requests = request;
        server->free_request_count++;
    } else {
        free(request);
    }
}

static enum MHD_Result save_argument_cb(void *context, enum MHD_ValueKind kind, const char *name,
                                        const char *value)
{
    struct http_request *request = context;
    struct saved_argument *saved = http_arena_alloc(request, sizeof *saved);
    (void)kind;
    saved->name = http_arena_copy(request, name, strlen(name));
    saved->value = value ? http_arena_copy(request, value, strlen(value)) : "";
    saved->next = request->saved_arguments;
    request->saved_arguments = saved;
    return MHD_YES;
}

/* The connection's memory is about to go, the handler may still ask for anything. */
void http_request_orphan(struct http_request *request)
{
    CHECK(request->pending);
    const char *client = http_request_client(request);
    request->client = http_arena_copy(request, client, strlen(client));
    for (size_t i = 0; i < request->header_count; i++) {
        struct header_line *line = &request->headers[i];
        line->name = http_arena_copy(request, line->name, line->name_bytes);
        if (!line->copied)
            line->value = http_arena_copy(request, line->value, line->value_bytes);
        line->copied = true;
    }
    if (request->content_type)
        request->content_type = http_request_header(request, "Content-Type");
    (void)MHD_get_connection_values(request->connection->mhd, MHD_GET_ARGUMENT_KIND, save_argument_cb,
                                    request);
    request->connection->request = NULL;
    request->connection = NULL;
    request->path = request->method_name = NULL;
}

/* --- the body ---------------------------------------------------------------------------------------- */

static void body_reserve(struct http_request *request, size_t bytes)
{
    if (bytes + 1 <= request->body_room)
        return;
    if (!request->body && request->content_length < request->arena_left && request->content_length >= bytes) {
        request->body_room = (size_t)request->content_length + 1;
        request->body = http_arena_alloc(request, request->body_room);
        return;
    }
    /* Grows with what has come, not with what was announced. */
    size_t room = request->body_room ? request->body_room : BODY_ROOM_FIRST;
    while (room < bytes + 1)
        room *= 2;
    char *grown = realloc(request->body_on_heap ? request->body : NULL, room);
    CHECK(grown);
    if (!request->body_on_heap && request->body_bytes > 0)
        memcpy(grown, request->body, request->body_bytes);
    request->body = grown;
    request->body_room = room;
    request->body_on_heap = true;
}

bool http_request_add_body(struct http_request *request, const char *data, size_t bytes)
{
    if (request->swallowed_bytes > 0 ||
        bytes > request->server->settings.body_bytes_max - request->body_bytes) {
        request->swallowed_bytes += bytes;
        return request->swallowed_bytes <= HTTP_SWALLOW_BYTES_MAX;
    }
    body_reserve(request, request->body_bytes + bytes);
    memcpy(request->body + request->body_bytes, data, bytes);
    request->body_bytes += bytes;
    request->body[request->body_bytes] = '\0';
    return true;
}

const char *http_request_body(const struct http_request *request, size_t *bytes)
{
    if (bytes)
        *bytes = request->body_bytes;
    return request->body ? request->body : "";
}

/* --- the head ---------------------------------------------------------------------------------------- */

/* Casts const away from the request: the copy is made on first demand, which the caller cannot see. */
const char *http_request_header(const struct http_request *request, const char *name)
{
    struct http_request *mutable = (struct http_request *)request;
    size_t name_bytes = strlen(name);

    for (size_t i = 0; i < request->header_count; i++) {
        struct header_line *line = &mutable->headers[i];
        if (line->name_bytes != name_bytes || strncasecmp(line->name, name, name_bytes) != 0)
            continue;
        if (!line->copied) {
            line->value = http_arena_copy(mutable, line->value, line->value_bytes);
            line->copied = true;
        }
        return line->value;
    }
    return NULL;
}

size_t http_request_header_count(const struct http_request *request, const char *name)
{
    size_t name_bytes = strlen(name), count = 0;

    for (size_t i = 0; i < request->header_count; i++) {
        const struct header_line *line = &request->headers[i];
        count += line->name_bytes == name_bytes && strncasecmp(line->name, name, name_bytes) == 0;
    }
    return count;
}

const char *http_request_query(const struct http_request *request, const char *name)
{
    struct http_request *mutable = (struct http_request *)request;
    const char *value = NULL;
    size_t value_bytes = 0;

    for (const struct saved_argument *saved = request->saved_arguments; saved; saved = saved->next)
        if (strcmp(saved->name, name) == 0)
            return saved->value;
    if (!request->connection ||
        MHD_lookup_connection_value_n(request->connection->mhd, MHD_GET_ARGUMENT_KIND, name, strlen(name),
                                      &value, &value_bytes) != MHD_YES)
        return NULL;
    struct saved_argument *saved = http_arena_alloc(mutable, sizeof *saved);
    saved->name = http_arena_copy(mutable, name, strlen(name));
    saved->value = http_arena_copy(mutable, value ? value : "", value ? value_bytes : 0);
    saved->next = mutable->saved_arguments;
    mutable->saved_arguments = saved;
    return saved->value;
}

int64_t http_request_path_id(const struct http_request *request)
{
    CHECK(request->path_id > 0);
    return request->path_id;
}

const char *http_request_path_text(const struct http_request *request)
{
    CHECK(request->path_text);
    return request->path_text;
}

bool http_request_is_media_type(const struct http_request *request, const char *type)
{
    size_t bytes = strlen(type);
    const char *given = request->content_type;
    if (!given)
        return true;
    return strncasecmp(given, type, bytes) == 0 &&
           (given[bytes] == '\0' || given[bytes] == ';' || given[bytes] == ' ' || given[bytes] == '\t');
}
