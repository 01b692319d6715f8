/* Who asks: the client's address, and the request's id.
 *
 * Pure work on one request, on the loop's thread of a worker; owns nothing, asks the kernel nothing. An address is 16 bytes here, IPv4 ones mapped
 * into IPv6, so that "127.0.0.1" and "::ffff:127.0.0.1" are one client. Behind proxies the client is the rightmost address of
 * X-Forwarded-For that is not a trusted proxy's: whatever stands to the left of it was written by the client itself. */
#include "http_internal.h"

#include "doorbuster/check.h"
#include "doorbuster/text.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#define NODE_BYTES 64 /* "[2001:db8::1]:65535" and blanks */
#define MAPPED_BITS 96
#define IPV6_NETWORK_BYTES 8 /* what one household has */
#define ID_HEX_DIGITS 16
#define ID_BYTES_MAX 64

/* --- addresses ----------------------------------------------------------------------------------------- */

static bool parse_address(const char *text, struct in6_addr *out)
{
    struct in_addr v4;

    if (inet_pton(AF_INET6, text, out) == 1)
        return true;
    if (inet_pton(AF_INET, text, &v4) != 1)
        return false;
    memset(out, 0, sizeof *out);
    out->s6_addr[10] = out->s6_addr[11] = 0xff;
    memcpy(out->s6_addr + 12, &v4, sizeof v4);
    return true;
}

void http_show_address(const struct in6_addr *address, char out[INET6_ADDRSTRLEN])
{
    bool is_v4 = IN6_IS_ADDR_V4MAPPED(address);
    CHECK(inet_ntop(is_v4 ? AF_INET : AF_INET6, address->s6_addr + (is_v4 ? 12 : 0), out, INET6_ADDRSTRLEN));
}

static bool is_loopback(const struct in6_addr *address)
{
    return IN6_IS_ADDR_LOOPBACK(address) || (IN6_IS_ADDR_V4MAPPED(address) && address->s6_addr[12] == 127);
}

static bool is_within(const struct in6_addr *address, const struct http_network *network)
{
    unsigned bytes = network->bits / 8, rest = network->bits % 8;
    unsigned char mask = (unsigned char)(0xff00 >> rest);
    return memcmp(address->s6_addr, network->address, bytes) == 0 &&
           (rest == 0 || ((address->s6_addr[bytes] ^ network->address[bytes]) & mask) == 0);
}

/* text[0..bytes) without the blanks around it, terminated. False: it does not fit. */
static bool trim(const char *text, size_t bytes, char out[NODE_BYTES])
{
    while (bytes > 0 && (*text == ' ' || *text == '\t')) {
        text++;
        bytes--;
    }
    while (bytes > 0 && (text[bytes - 1] == ' ' || text[bytes - 1] == '\t'))
        bytes--;
    if (bytes >= NODE_BYTES)
        return false;
    memcpy(out, text, bytes);
    out[bytes] = '\0';
    return true;
}

/* --- trusted proxies ------------------------------------------------------------------------------------- */

static bool read_network(const char *text, size_t bytes, struct http_network *out)
{
    char node[NODE_BYTES];
    struct in6_addr address;
    int64_t bits = -1;

    if (!trim(text, bytes, node))
        return false;
    char *slash = strchr(node, '/');
    if (slash)
        *slash = '\0';
    if (!parse_address(node, &address))
        return false;
    int64_t bits_max = strchr(node, ':') ? 128 : 32;
    if (slash && !text_to_int64(slash + 1, strlen(slash + 1), 0, bits_max, &bits))
        return false;
    out->bits = (unsigned)(slash ? bits : bits_max) + (bits_max == 32 ? MAPPED_BITS : 0);
    memcpy(out->address, &address, sizeof out->address);
    return true;
}

bool http_networks_read(const char *list, struct http_networks *out, char *error, size_t error_bytes)
{
    out->count = 0;
    for (const char *at = list; at && *at; at += at[0] == ',') {
        size_t bytes = strcspn(at, ",");
        if (out->count == HTTP_NETWORKS_MAX || !read_network(at, bytes, &out->list[out->count])) {
            (void)snprintf(error, error_bytes,
                           "\"%.*s\": must be up to %d addresses or networks, such as 10.0.0.1,172.16.0.0/12",
                           (int)bytes, at, HTTP_NETWORKS_MAX);
            return false;
        }
        out->count++;
        at += bytes;
    }
    return true;
}

static bool is_trusted(const struct http_server *server, const struct in6_addr *address)
{
    for (size_t i = 0; i < server->proxies.count; i++)
        if (is_within(address, &server->proxies.list[i]))
            return true;
    return false;
}

/* --- the client --------------------------------------------------------------------------------------------- */

/* One element of X-Forwarded-For: an address, perhaps with a port. */
static bool read_node(const char *text, size_t bytes, struct in6_addr *out)
{
    char node[NODE_BYTES];

    if (!trim(text, bytes, node))
        return false;
    char *start = node, *end = strchr(node, ']'), *colon = strchr(node, ':');
    if (node[0] == '[' && end) {
        start++;
        *end = '\0';
    } else if (colon && !strchr(colon + 1, ':'))
        *colon = '\0';
    return parse_address(start, out);
}

/* From right to left as far as the proxies are trusted. Stops at what is no address. *seen: there is such a header. */
static void follow_proxies(const struct http_request *request, struct in6_addr *client, bool *seen)
{
    static const char name[] = "X-Forwarded-For";

    for (size_t i = request->header_count; i > 0; i--) {
        const struct header_line *line = &request->headers[i - 1];
        if (line->name_bytes != sizeof name - 1 || strncasecmp(line->name, name, sizeof name - 1) != 0)
            continue;
        *seen = true;
        size_t end = line->value_bytes, begin;
        do {
            struct in6_addr node;
            for (begin = end; begin > 0 && line->value[begin - 1] != ',';)
                begin--;
            if (!read_node(line->value + begin, end - begin, &node))
                return;
            *client = node;
            if (!is_trusted(request->server, &node))
                return;
            end = begin > 0 ? begin - 1 : 0;
        } while (begin > 0);
    }
}

static struct in6_addr read_peer(const struct sockaddr *peer)
{
    struct in6_addr address = IN6ADDR_ANY_INIT;

    if (peer->sa_family == AF_INET6) {
        address = ((const struct sockaddr_in6 *)(const void *)peer)->sin6_addr;
    } else if (peer->sa_family == AF_INET) {
        address.s6_addr[10] = address.s6_addr[11] = 0xff;
        memcpy(address.s6_addr + 12, &((const struct sockaddr_in *)(const void *)peer)->sin_addr, 4);
    }
    return address;
}

static struct in6_addr peer_of(const struct http_connection *connection)
{
    return read_peer(
        MHD_get_connection_info(connection->mhd, MHD_CONNECTION_INFO_CLIENT_ADDRESS)->client_addr);
}

bool http_peer_network(const struct http_server *server, const struct sockaddr *peer, struct in6_addr *out)
{
    *out = read_peer(peer);
    bool counts = !is_loopback(out) && !is_trusted(server, out);
    if (!IN6_IS_ADDR_V4MAPPED(out))
        memset(out->s6_addr + IPV6_NETWORK_BYTES, 0, sizeof out->s6_addr - IPV6_NETWORK_BYTES);
    return counts;
}

static void learn_peer(struct http_connection *connection)
{
    struct in6_addr peer = peer_of(connection);

    http_show_address(&peer, connection->peer);
    connection->peer_is_local = is_loopback(&peer);
    connection->peer_is_trusted = is_trusted(connection->server, &peer);
}

static void find_client(struct http_request *request)
{
    struct http_connection *connection = request->connection;
    bool was_forwarded = false;

    CHECK(connection); /* http_request_orphan() asked in time */
    if (connection->peer[0] == '\0')
        learn_peer(connection);
    request->client = connection->peer;
    if (connection->peer_is_trusted) {
        char text[INET6_ADDRSTRLEN];
        struct in6_addr client = peer_of(connection);
        follow_proxies(request, &client, &was_forwarded);
        http_show_address(&client, text);
        if (was_forwarded)
            request->client = http_arena_copy(request, text, strlen(text));
    } else if (
        connection
            ->peer_is_local) /* a proxy on this machine that nobody trusts: not its own request either */
        was_forwarded = http_request_header(request, "X-Forwarded-For") != NULL;
    request->client_is_local = connection->peer_is_local && !was_forwarded;
}

/* Found when first asked for, which the caller cannot see. */
const char *http_request_client(const struct http_request *request)
{
    if (!request->client)
        find_client((struct http_request *)request);
    return request->client;
}

bool http_request_client_is_local(const struct http_request *request)
{
    (void)http_request_client(request);
    return request->client_is_local;
}

/* --- the request's id --------------------------------------------------------------------------------------- */

void http_take_id(struct http_request *request, const char *value, size_t bytes)
{
    static const char allowed[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-";

    request->id = NULL;
    if (++request->id_count == 1 && bytes >= 1 && bytes <= ID_BYTES_MAX && strspn(value, allowed) == bytes)
        request->id = http_arena_copy(request, value, bytes);
}

/* Made when first asked for: most requests are answered without anybody asking. One after the other from a random number on, so that no
 * two processes' ids meet. */
const char *http_request_id(const struct http_request *request)
{
    struct http_request *mutable = (struct http_request *)request;

    if (!request->id) {
        char *id = http_arena_alloc(mutable, ID_HEX_DIGITS + 1);
        uint64_t number = request->server->next_id++;
        for (int i = ID_HEX_DIGITS - 1; i >= 0; i--, number >>= 4)
            id[i] = "0123456789abcdef"[number & 15];
        id[ID_HEX_DIGITS] = '\0';
        mutable->id = id;
    }
    return request->id;
}
