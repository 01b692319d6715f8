/* How many connections each address has, so that one cannot take all of them.
 *
 * Runs on the loop's thread of a worker, when a connection begins and when it ends. Owns nothing: the connections of a network hang in one of a thousand
 * buckets, and are counted when another comes. Whom the limit is not for (this machine, trusted proxies) is in none. The buckets' key is the
 * server's own random number, so that nobody can choose addresses that share one. Cannot fail. */
#include "http_internal.h"

#include "doorbuster/log.h"

#include <string.h>

static struct http_connection **bucket_of(struct http_server *server, const struct in6_addr *network)
{
    uint64_t high, low;
    memcpy(&high, network->s6_addr, sizeof high);
    memcpy(&low, network->s6_addr + sizeof high, sizeof low);
    uint64_t mixed = (high ^ low ^ (low << 29)) * (server->crowd_key | 1);
    return &server->crowds[(mixed >> 32) % HTTP_CROWD_BUCKETS];
}

static bool is_crowd(const struct http_server *server, const struct http_connection *first,
                     const struct in6_addr *network)
{
    unsigned count = 0;
    for (; first && count < server->settings.connections_per_address_max; first = first->crowd_next)
        count += memcmp(&first->crowd, network, sizeof *network) == 0;
    return count >= server->settings.connections_per_address_max;
}

/* libmicrohttpd closes whom it does not admit. */
bool http_crowd_admits(struct http_server *server, const struct sockaddr *peer)
{
    struct in6_addr network;
    char text[INET6_ADDRSTRLEN];

    if (server->settings.connections_per_address_max == 0 || !http_peer_network(server, peer, &network) ||
        !is_crowd(server, *bucket_of(server, &network), &network))
        return true;
    server->crowded_out++;
    http_show_address(&network, text);
    log_warn("http: %s has %u connections to this worker: what more it opens is closed", text,
             server->settings.connections_per_address_max);
    return false;
}

void http_crowd_join(struct http_connection *connection)
{
    struct http_server *server = connection->server;
    const struct sockaddr *peer =
        MHD_get_connection_info(connection->mhd, MHD_CONNECTION_INFO_CLIENT_ADDRESS)->client_addr;

    if (server->settings.connections_per_address_max == 0 ||
        !http_peer_network(server, peer, &connection->crowd))
        return;
    connection->crowd_link = bucket_of(server, &connection->crowd);
    connection->crowd_next = *connection->crowd_link;
    if (connection->crowd_next)
        connection->crowd_next->crowd_link = &connection->crowd_next;
    *connection->crowd_link = connection;
}

void http_crowd_leave(struct http_connection *connection)
{
    if (!connection->crowd_link)
        return;
    *connection->crowd_link = connection->crowd_next;
    if (connection->crowd_next)
        connection->crowd_next->crowd_link = connection->crowd_link;
    connection->crowd_link = NULL;
}

uint64_t http_server_crowded_out(const struct http_server *server)
{
    return server->crowded_out;
}
