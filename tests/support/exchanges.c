/* See exchanges.h. Test processes, any thread; owns one descriptor and the counts of shapes, both behind a mutex. */
#include "exchanges.h"

#include <ctype.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SHAPES 4096 /* a power of two; more than any test has */
#define FIRST_FEW 8
#define BODY_BYTES_MAX ((size_t)256 * 1024)

static pthread_once_t once = PTHREAD_ONCE_INIT;
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static int file = -1;
static struct {
    uint64_t hash; /* 0: free */
    unsigned count;
} shapes[SHAPES];

static void open_file(void)
{
    const char *path = getenv("DOORBUSTER_EXCHANGES");
    if (path != NULL && path[0] != '\0') {
        file = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    }
}

bool exchanges_wanted(void)
{
    pthread_once(&once, open_file);
    return file >= 0;
}

/* --- shapes ------------------------------------------------------------------------------------------------------------------------------- */
static uint64_t mix(uint64_t hash, const char *text, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++) {
        bool repeats = i > 0 && isdigit((unsigned char)text[i]) && isdigit((unsigned char)text[i - 1]);
        char c = isdigit((unsigned char)text[i]) ? '0' : text[i];
        hash = repeats ? hash : (hash ^ (unsigned char)c) * UINT64_C(1099511628211);
    }
    return hash;
}

static uint64_t shape_of(const char *target, size_t target_bytes, const char *head, const char *body)
{
    static const char type[] = "{\"type\":\"", replayed[] = "\r\nIdempotent-Replayed:";
    uint64_t hash = mix(UINT64_C(14695981039346656037), target, target_bytes);
    for (const char *c = head + strcspn(head, " "); *c != '\0' && *c != '\r'; c++) {
        hash = (hash ^ (unsigned char)*c) * UINT64_C(1099511628211); /* the status: its digits count */
    }
    if (strncmp(body, type, sizeof type - 1) == 0) {
        hash = mix(hash, body + sizeof type, strcspn(body + sizeof type, "\""));
    }
    hash ^= strstr(head, replayed) != NULL;
    return hash == 0 ? 1 : hash;
}

/* Is this one of those to be written? */
static bool is_new(uint64_t hash)
{
    for (size_t i = 0; i < SHAPES; i++) {
        size_t at = (hash + i) % SHAPES;
        if (shapes[at].hash == 0 || shapes[at].hash == hash) {
            shapes[at].hash = hash;
            unsigned count = ++shapes[at].count;
            return count <= FIRST_FEW || (count & (count - 1)) == 0;
        }
    }
    return true;
}

/* --- the line ----------------------------------------------------------------------------------------------------------------------------- */
/* Bytes as a JSON string, each one a code point: the check makes bytes of them again. */
static void put_string(FILE *out, const char *name, const char *bytes, size_t count)
{
    fprintf(out, "\"%s\":\"", name);
    for (size_t i = 0; i < count; i++) {
        unsigned char c = (unsigned char)bytes[i];
        if (c == '"' || c == '\\') {
            fprintf(out, "\\%c", c);
        } else if (c < ' ' || c > '~') {
            fprintf(out, "\\u%04x", c);
        } else {
            fputc(c, out);
        }
    }
    fputc('"', out);
}

static void put_request(FILE *out, const char *request, size_t bytes, size_t method_bytes,
                        size_t target_bytes)
{
    const char *end = memmem(request, bytes, "\r\n\r\n", 4);
    size_t body_bytes = end == NULL ? 0 : (size_t)(request + bytes - end) - 4;
    put_string(out, "method", request, method_bytes);
    fputc(',', out);
    put_string(out, "target", request + method_bytes + 1, target_bytes);
    if (body_bytes > 0 && body_bytes <= BODY_BYTES_MAX) {
        fputc(',', out);
        put_string(out, "request", end + 4, body_bytes);
    }
    fputc(',', out);
}

static void write_line(const char *request, size_t request_bytes, size_t method_bytes, size_t target_bytes,
                       const char *head, const char *body, size_t body_bytes)
{
    char *line = NULL;
    size_t bytes = 0;
    FILE *out = open_memstream(&line, &bytes);
    if (out == NULL) {
        return;
    }
    fputc('{', out);
    if (request != NULL) {
        put_request(out, request, request_bytes, method_bytes, target_bytes);
    }
    put_string(out, "head", head, strlen(head));
    fputc(',', out);
    put_string(out, "body", body, body_bytes);
    fputs("}\n", out);
    if (fclose(out) == 0 && write(file, line, bytes) < 0) {
        perror("DOORBUSTER_EXCHANGES");
    }
    free(line);
}

void exchanges_record(const char *request, size_t request_bytes, const char *head, const char *body,
                      size_t body_bytes)
{
    size_t method_bytes = 0, target_bytes = 0;
    if (!exchanges_wanted() || body_bytes > BODY_BYTES_MAX) {
        return;
    }
    if (request != NULL) {
        const char *space = memchr(request, ' ', request_bytes);
        if (space == NULL) {
            return;
        }
        method_bytes = (size_t)(space - request);
        target_bytes = strcspn(space + 1, " \r");
    }
    /* A query says little about the answer's shape. */
    size_t path_bytes = request == NULL ? 0 : strcspn(request, "?\r");
    path_bytes = path_bytes < method_bytes + 1 + target_bytes ? path_bytes : method_bytes + 1 + target_bytes;
    uint64_t hash = shape_of(request == NULL ? "" : request, path_bytes, head, body);
    pthread_mutex_lock(&mutex);
    if (is_new(hash)) {
        write_line(request, request_bytes, method_bytes, target_bytes, head, body, body_bytes);
    }
    pthread_mutex_unlock(&mutex);
}
