/* Redis addresses as URLs. Pure functions but for one look into the environment; any thread. They own nothing and fail with a sentence for the user. */
#include "doorbuster/redis.h"

#include "doorbuster/text.h"
#include "finding.h"
#include "login.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAY_BE                                                                                                \
    "redis://[[user]:password@]host[:port][/db], unix:/path, unix://[user]:password@/path, "                  \
    "sentinel://[[user]:password@]NAME@host[:port],…[/db] or cluster://[[user]:password@]host[:port],…; " \
    "a %% in user or password is %%25, an IPv6 address stands in brackets"

/* What stands before an '@' may be a password, and so may be what follows "//:", if the rest was forgotten: it is not shown. */
static bool refuse(char *error, size_t error_bytes, const char *url)
{
    const char *at = strrchr(url, '@'), *forgotten = at == NULL ? strstr(url, "//:") : NULL;
    int bytes = forgotten != NULL ? (int)(forgotten - url) + 3 : (int)strlen(url);
    snprintf(error, error_bytes, "\"%s%.*s%s\" is no Redis address; it may be " MAY_BE, at ? "…" : "", bytes,
             at ? at : url, forgotten != NULL ? "…" : "");
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
static bool parse_host(const char *text, size_t bytes, int default_port, struct redis_host *out)
{
    const char *end = text + bytes;
    const char *host = text;
    const char *host_end;
    const char *port = NULL;
    if (bytes > 0 && *text == '[') {
        host++;
        host_end = memchr(host, ']', (size_t)(end - host));
        if (host_end == NULL || *host == '[' || (host_end + 1 < end && host_end[1] != ':')) {
            return false;
        }
        port = host_end + 1 < end ? host_end + 2 : NULL;
    } else {
        host_end = memchr(host, ':', bytes);
        port = host_end ? host_end + 1 : NULL;
        host_end = host_end ? host_end : end;
    }
    int64_t number = default_port;
    if (port != NULL && !text_to_int64(port, (size_t)(end - port), 1, 65535, &number)) {
        return false;
    }
    out->port = (int)number;
    return host_end > host && copy_part(out->host, sizeof out->host, host, (size_t)(host_end - host));
}

/* "host:port,host:port" */
static bool parse_seeds(const char *text, size_t bytes, int default_port, struct redis_address *out)
{
    const char *end = text + bytes;
    for (const char *comma; out->seed_count < REDIS_SEEDS_MAX; text = comma + 1) {
        comma = memchr(text, ',', (size_t)(end - text));
        size_t host_bytes = (size_t)((comma ? comma : end) - text);
        if (!parse_host(text, host_bytes, default_port, &out->seeds[out->seed_count++])) {
            return false;
        }
        if (comma == NULL) {
            return true;
        }
    }
    return false;
}

/* "[LOGIN@]" and, of Sentinels, "NAME@": all in text[0..bytes), which ends with an '@' or is empty. */
static bool parse_before_hosts(const char *text, size_t bytes, struct redis_address *out)
{
    if (out->kind == REDIS_BY_SENTINEL) {
        const char *at = bytes > 0 ? memrchr(text, '@', bytes - 1) : NULL;
        const char *group = at != NULL ? at + 1 : text;
        size_t group_bytes = bytes > 0 ? (size_t)(text + bytes - 1 - group) : 0;
        if (group_bytes == 0 ||
            memchr(group, ':', group_bytes) != NULL /* a login without a name behind it */ ||
            !copy_part(out->group, sizeof out->group, group, group_bytes)) {
            return false;
        }
        bytes -= group_bytes + 1;
    }
    return bytes == 0 || redis_login_parse(text, bytes - 1, &out->login);
}

static bool parse_database(const char *slash, struct redis_address *out)
{
    int64_t database = 0;
    bool ok =
        slash == NULL || slash[1] == '\0' || text_to_int64(slash + 1, strlen(slash + 1), 0, 15, &database);
    out->database = (int)database;
    return ok && (out->kind != REDIS_IN_CLUSTER || slash == NULL);
}

static bool parse_hosts(const char *text, size_t bytes, struct redis_address *out)
{
    struct redis_host host;
    if (out->kind != REDIS_DIRECT) {
        return parse_seeds(text, bytes, out->kind == REDIS_BY_SENTINEL ? REDIS_SENTINEL_PORT : 6379, out);
    }
    if (!parse_host(text, bytes, 6379, &host)) {
        return false;
    }
    memcpy(out->host, host.host, sizeof out->host);
    out->port = host.port;
    return true;
}

/* "/path", or "//LOGIN@/path". */
static bool parse_unix(const char *url, struct redis_address *out, char *error, size_t error_bytes)
{
    const char *path = url + strlen("unix:");
    const char *login = text_begins_with(path, "//") && path[2] != '/' ? path + 2 : NULL;
    const char *at = login != NULL ? strrchr(login, '@') : NULL;
    if (at != NULL) {
        if (at[1] != '/' || !redis_login_parse(login, (size_t)(at - login), &out->login)) {
            return refuse(error, error_bytes, url);
        }
        path = at + 1;
    }
    if (*path == '\0' || !copy_part(out->path, sizeof out->path, path, strlen(path))) {
        snprintf(error, error_bytes, "\"unix:%s%s\": the path of a Unix socket has 1 to %zu bytes",
                 at != NULL ? "…@" : "", path, sizeof out->path - 1);
        return false;
    }
    return true;
}

static bool take_variable(const char *name, char *out, size_t out_bytes, char *error, size_t error_bytes)
{
    const char *value = getenv(name);
    if (value != NULL && !copy_part(out, out_bytes, value, strlen(value))) {
        snprintf(error, error_bytes, "%s has at most %zu bytes", name, out_bytes - 1);
        return false;
    }
    return true;
}

static bool take_sentinel_login(struct redis_login *out, char *error, size_t error_bytes)
{
    if (!take_variable("REDIS_SENTINEL_USER", out->user, sizeof out->user, error, error_bytes) ||
        !take_variable("REDIS_SENTINEL_PASSWORD", out->password, sizeof out->password, error, error_bytes)) {
        return false;
    }
    if (out->user[0] != '\0' && out->password[0] == '\0') {
        snprintf(error, error_bytes,
                 "REDIS_SENTINEL_USER is set, and no password: set REDIS_SENTINEL_PASSWORD too");
        return false;
    }
    return true;
}

bool redis_address_parse(const char *url, struct redis_address *out, char *error, size_t error_bytes)
{
    static const char *const schemes[] = {
        [REDIS_DIRECT] = "redis://", [REDIS_BY_SENTINEL] = "sentinel://", [REDIS_IN_CLUSTER] = "cluster://"};
    *out = (struct redis_address){0};
    if (strncmp(url, "unix:", 5) == 0) {
        return parse_unix(url, out, error, error_bytes);
    }
    int kind = REDIS_IN_CLUSTER;
    while (kind >= REDIS_DIRECT && !text_begins_with(url, schemes[kind])) {
        kind--;
    }
    if (kind < REDIS_DIRECT) {
        return refuse(error, error_bytes, url);
    }
    out->kind = (enum redis_kind)kind;
    const char *rest = url + strlen(schemes[kind]), *at = strrchr(rest, '@');
    const char *hosts = at != NULL ? at + 1 : rest, *slash = strchr(hosts, '/');
    size_t hosts_bytes = slash != NULL ? (size_t)(slash - hosts) : strlen(hosts);
    if (!parse_before_hosts(rest, (size_t)(hosts - rest), out) || !parse_database(slash, out) ||
        !parse_hosts(hosts, hosts_bytes, out)) {
        return refuse(error, error_bytes, url);
    }
    return out->kind != REDIS_BY_SENTINEL || take_sentinel_login(&out->sentinel_login, error, error_bytes);
}

size_t redis_host_format(const struct redis_host *host, char *out, size_t out_bytes)
{
    const char *form = strchr(host->host, ':') ? "[%s]:%d" : "%s:%d";
    int bytes = snprintf(out, out_bytes, form, host->host, host->port);
    return bytes < 0 ? 0 : (size_t)bytes < out_bytes ? (size_t)bytes : out_bytes - 1;
}

static void format_seeds(const struct redis_address *address, char *out, size_t out_bytes)
{
    bool by_sentinel = address->kind == REDIS_BY_SENTINEL;
    size_t used =
        (size_t)snprintf(out, out_bytes, by_sentinel ? "sentinel://%s@" : "cluster://%s", address->group);
    for (unsigned i = 0; i < address->seed_count && used + 1 < out_bytes; i++) {
        used += (size_t)snprintf(out + used, out_bytes - used, "%s", i > 0 ? "," : "");
        used += redis_host_format(&address->seeds[i], out + used, out_bytes - used);
    }
    if (by_sentinel && used < out_bytes) {
        snprintf(out + used, out_bytes - used, "/%d", address->database);
    }
}

void redis_address_format(const struct redis_address *address, char *out, size_t out_bytes)
{
    if (address->path[0] != '\0') {
        snprintf(out, out_bytes, "unix:%s", address->path);
    } else if (address->kind != REDIS_DIRECT) {
        format_seeds(address, out, out_bytes);
    } else {
        snprintf(out, out_bytes, strchr(address->host, ':') ? "redis://[%s]:%d/%d" : "redis://%s:%d/%d",
                 address->host, address->port, address->database);
    }
}
