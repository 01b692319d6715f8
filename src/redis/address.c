/* Redis addresses as URLs. Pure functions; any thread. They own nothing and fail with a sentence for the user. */
#include "doorbuster/redis.h"

#include "doorbuster/text.h"

#include <stdio.h>
#include <string.h>

/* What stands before an '@' may be a password: it is not shown. */
static bool refuse(char *error, size_t error_bytes, const char *url)
{
    const char *at = strrchr(url, '@');
    snprintf(error, error_bytes,
             "\"%s%s\" is no Redis address; it may be redis://[:password@]host[:port][/db] or unix:/path",
             at ? "…" : "", at ? at : url);
    return false;
}

static bool copy_part(char *out, size_t out_bytes, const char *from, size_t bytes)
{
    if (bytes >= out_bytes) {
        return false;
    }
    memcpy(out, from, bytes);
    out[bytes] = '\0';
    return true;
}

/* "host", "host:port", "[::1]:port" in text[0..bytes). */
static bool parse_host(const char *text, size_t bytes, struct redis_address *out)
{
    const char *end = text + bytes;
    const char *host = text;
    const char *host_end;
    const char *port = NULL;
    if (bytes > 0 && *text == '[') {
        host++;
        host_end = memchr(host, ']', (size_t)(end - host));
        if (host_end == NULL || (host_end + 1 < end && host_end[1] != ':')) {
            return false;
        }
        port = host_end + 1 < end ? host_end + 2 : NULL;
    } else {
        host_end = memchr(host, ':', bytes);
        port = host_end ? host_end + 1 : NULL;
        host_end = host_end ? host_end : end;
    }
    int64_t number = 6379;
    if (port != NULL && !text_to_int64(port, (size_t)(end - port), 1, 65535, &number)) {
        return false;
    }
    out->port = (int)number;
    return host_end > host && copy_part(out->host, sizeof out->host, host, (size_t)(host_end - host));
}

bool redis_address_parse(const char *url, struct redis_address *out, char *error, size_t error_bytes)
{
    *out = (struct redis_address){0};
    if (strncmp(url, "unix:", 5) == 0) {
        const char *path = url + 5;
        if (*path == '\0' || !copy_part(out->path, sizeof out->path, path, strlen(path))) {
            snprintf(error, error_bytes, "\"%s\": the path of a Unix socket has 1 to %zu bytes", url,
                     sizeof out->path - 1);
            return false;
        }
        return true;
    }
    if (strncmp(url, "redis://", 8) != 0) {
        return refuse(error, error_bytes, url);
    }
    const char *rest = url + 8;
    const char *at = strrchr(rest, '@');
    if (at != NULL) {
        if (*rest != ':' ||
            !copy_part(out->password, sizeof out->password, rest + 1, (size_t)(at - rest - 1))) {
            return refuse(error, error_bytes, url);
        }
        rest = at + 1;
    }
    const char *slash = strchr(rest, '/');
    size_t host_bytes = slash ? (size_t)(slash - rest) : strlen(rest);
    int64_t database = 0;
    if (slash != NULL && slash[1] != '\0' && !text_to_int64(slash + 1, strlen(slash + 1), 0, 15, &database)) {
        return refuse(error, error_bytes, url);
    }
    out->database = (int)database;
    return parse_host(rest, host_bytes, out) || refuse(error, error_bytes, url);
}

void redis_address_format(const struct redis_address *address, char *out, size_t out_bytes)
{
    if (address->path[0] != '\0') {
        snprintf(out, out_bytes, "unix:%s", address->path);
    } else {
        snprintf(out, out_bytes, strchr(address->host, ':') ? "redis://[%s]:%d/%d" : "redis://%s:%d/%d",
                 address->host, address->port, address->database);
    }
}
