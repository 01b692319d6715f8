/* Which gate, and where, from the words of the settings. Pure functions; any thread. They own nothing and fail with a sentence for the user, which
 * never shows a password. */
#include "doorbuster/gate_place.h"

#include "keys.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

#define NODE_BYTES_MAX 1024 /* of the text of one node */

const char *const gate_kind_names[2] = {"lua", "redlock"};

bool gate_kind_parse(const char *text, enum gate_kind *out)
{
    for (int i = 0; i < 2; i++) {
        if (strcmp(text, gate_kind_names[i]) == 0) {
            *out = (enum gate_kind)i;
            return true;
        }
    }
    return false;
}

void gate_place_name_node(const struct gate_place *place, unsigned node, char *out, size_t out_bytes)
{
    const struct redis_address *address = &place->nodes[node];
    if (address->path[0] != '\0') {
        snprintf(out, out_bytes, "node %u (%s)", node + 1, address->path);
    } else {
        snprintf(out, out_bytes, strchr(address->host, ':') ? "node %u ([%s]:%d)" : "node %u (%s:%d)",
                 node + 1, address->host, address->port);
    }
}

bool gate_place_parse_redis(struct gate_place *place, const char *url, char *error, size_t error_bytes)
{
    bool parsed = redis_address_parse(url, &place->redis, error, error_bytes);
    snprintf(place->redis.key, sizeof place->redis.key, "%s", gate_keys.head);
    return parsed;
}

/* --- a list of nodes ------------------------------------------------------------------------------------------------------------ */
/* Of "host:port" the port is asked for: so a list of one word is a slip of the pen, not a host. */
static bool parse_bare(const char *text, struct redis_address *out)
{
    char url[NODE_BYTES_MAX + 16], error[NODE_BYTES_MAX + 128];
    const char *bracket = strrchr(text, ']');
    if (strpbrk(text, "/@ \t") != NULL || strchr(bracket ? bracket : text, ':') == NULL) {
        return false;
    }
    snprintf(url, sizeof url, "redis://%s", text);
    return redis_address_parse(url, out, error, sizeof error);
}

/* `text` is one node's, without the commas. */
static bool parse_node(const char *text, unsigned number, struct redis_address *out, char *error,
                       size_t error_bytes)
{
    char why[NODE_BYTES_MAX + 256];
    if (strncmp(text, "sentinel:", 9) == 0 || strncmp(text, "cluster:", 8) == 0) {
        snprintf(error, error_bytes,
                 "node %u: a lock node is one Redis on its own, not %.*s://: after a failover its successor "
                 "may not know the "
                 "locks that were given, and two holders would have a majority; name five Redis that do not "
                 "fail over",
                 number, (int)strcspn(text, ":"), text);
        return false;
    }
    if (strncmp(text, "unix:", 5) == 0 || strncmp(text, "redis:", 6) == 0) {
        bool parsed = redis_address_parse(text, out, why, sizeof why);
        if (!parsed) {
            snprintf(error, error_bytes, "node %u: %s", number, why);
        }
        return parsed;
    }
    if (!parse_bare(text, out)) {
        const char *at = strrchr(text, '@'); /* what stands before it may be a password */
        snprintf(error, error_bytes,
                 "node %u: \"%s%s\" is no node's address; it may be host:port, "
                 "redis://[[user]:password@]host[:port][/db] or unix:/path",
                 number, at ? "…" : "", at ? at : text);
        return false;
    }
    return true;
}

/* The same Redis; two databases of one are one. */
static bool is_same_node(const struct redis_address *a, const struct redis_address *b)
{
    return a->port == b->port && strcasecmp(a->host, b->host) == 0 && strcmp(a->path, b->path) == 0;
}

static bool add_node(struct gate_place *place, const char *text, char *error, size_t error_bytes)
{
    unsigned number = place->node_count + 1;
    if (number > GATE_NODES_MAX) {
        snprintf(error, error_bytes, "more than %d nodes; it may be an odd number of them, 1 to %d",
                 GATE_NODES_MAX, GATE_NODES_MAX);
        return false;
    }
    struct redis_address *node = &place->nodes[place->node_count];
    if (!parse_node(text, number, node, error, error_bytes)) {
        return false;
    }
    for (unsigned i = 0; i < place->node_count; i++) {
        if (is_same_node(&place->nodes[i], node)) {
            snprintf(error, error_bytes,
                     "nodes %u and %u are the same Redis; each must be one of its own, or their votes are "
                     "worth nothing",
                     i + 1, number);
            return false;
        }
    }
    place->node_count++;
    return true;
}

/* Takes the text up to the next comma, without the spaces around it. Returns what follows the comma; NULL: that was the last. False in *ok: it
 * is too long. */
static const char *take_text(const char *list, char out[NODE_BYTES_MAX], bool *ok)
{
    const char *end = list + strcspn(list, ",");
    const char *next = *end == ',' ? end + 1 : NULL;
    list += strspn(list, " \t");
    while (end > list && (end[-1] == ' ' || end[-1] == '\t')) {
        end--;
    }
    size_t bytes = list < end ? (size_t)(end - list) : 0;
    *ok = bytes < NODE_BYTES_MAX;
    if (*ok) {
        memcpy(out, list, bytes);
        out[bytes] = '\0';
    }
    return next;
}

static bool parse_list(struct gate_place *place, const char *list, char *error, size_t error_bytes)
{
    char text[NODE_BYTES_MAX];
    bool has_logins = strchr(list, '@') != NULL;
    while (list != NULL) {
        bool ok;
        list = take_text(list, text, &ok);
        if (!ok) {
            snprintf(error, error_bytes, "node %u: an address has at most %d bytes", place->node_count + 1,
                     NODE_BYTES_MAX - 1);
            return false;
        }
        if (!add_node(place, text, error, error_bytes)) {
            if (strchr(text, '@') == NULL && has_logins) { /* half a password? It is not shown. */
                snprintf(error, error_bytes,
                         "node %u: this is no node's address; a comma in a password is %%2C",
                         place->node_count + 1);
            }
            return false;
        }
    }
    if (place->node_count % 2 == 0) {
        snprintf(error, error_bytes,
                 "%u nodes; it may be an odd number of them, 1 to %d: an even one has no better majority",
                 place->node_count, GATE_NODES_MAX);
        return false;
    }
    return true;
}

static bool name_private_nodes(struct gate_place *place, const char *data_dir, char *error,
                               size_t error_bytes)
{
    for (unsigned i = 0; i < GATE_NODES_SPAWNED; i++) {
        char *path = place->nodes[i].path;
        int bytes = snprintf(path, sizeof place->nodes[i].path, "%s/node%u.sock", data_dir, i + 1);
        if (bytes < 0 || (size_t)bytes >= sizeof place->nodes[i].path) {
            snprintf(error, error_bytes,
                     "\"%s/node%u.sock\": the path of a Unix socket has 1 to %zu bytes; choose a --data "
                     "folder with a shorter path",
                     data_dir, i + 1, sizeof place->nodes[i].path - 1);
            return false;
        }
    }
    place->node_count = GATE_NODES_SPAWNED;
    return true;
}

bool gate_place_parse_nodes(struct gate_place *place, const char *list, const char *data_dir, char *error,
                            size_t error_bytes)
{
    memset(place->nodes, 0, sizeof place->nodes);
    place->node_count = 0;
    place->spawn_nodes = strcmp(list, "spawn") == 0;
    return place->spawn_nodes ? name_private_nodes(place, data_dir, error, error_bytes)
                              : parse_list(place, list, error, error_bytes);
}
