/* Who is the master? What others answer, understood. Pure functions; any thread; they own nothing. */
#include "finding.h"

#include "doorbuster/text.h"

#include <stdio.h>
#include <string.h>

bool redis_is_elsewhere(const char *error)
{
    static const char *const words[] = {"READONLY ",    "MOVED ",      "ASK ",    "TRYAGAIN ",
                                        "CLUSTERDOWN ", "MASTERDOWN ", "LOADING "};
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) {
        if (text_begins_with(error, words[i])) {
            return true;
        }
    }
    return false;
}

static bool take_host(const char *host, size_t host_bytes, const char *port, size_t port_bytes,
                      struct redis_host *out)
{
    int64_t number;
    if (host_bytes == 0 || host_bytes >= sizeof out->host || *host == '?' ||
        memchr(host, '\0', host_bytes) != NULL || !text_to_int64(port, port_bytes, 1, 65535, &number)) {
        return false;
    }
    memcpy(out->host, host, host_bytes);
    out->host[host_bytes] = '\0';
    out->port = (int)number;
    return true;
}

bool finding_master(const redisReply *reply, struct redis_host *out)
{
    return reply->type == REDIS_REPLY_ARRAY && reply->elements == 2 &&
           reply->element[0]->type == REDIS_REPLY_STRING && reply->element[1]->type == REDIS_REPLY_STRING &&
           take_host(reply->element[0]->str, reply->element[0]->len, reply->element[1]->str,
                     reply->element[1]->len, out);
}

/* A node that does not know its own name leaves the host out: it is the one that was asked. */
bool finding_moved(const char *error, const char *asked, struct redis_host *out)
{
    const char *host = text_begins_with(error, "MOVED ") ? strchr(error + strlen("MOVED "), ' ') : NULL;
    const char *colon = host != NULL ? strrchr(++host, ':') : NULL;
    if (colon == NULL) {
        return false;
    }
    size_t port_bytes = strcspn(colon + 1, " ");
    return colon > host ? take_host(host, (size_t)(colon - host), colon + 1, port_bytes, out)
                        : take_host(asked, strlen(asked), colon + 1, port_bytes, out);
}

const char *redis_text(const redisReply *reply)
{
    return reply->str != NULL ? reply->str : "";
}

bool redis_is_list(const redisReply *reply, size_t elements)
{
    return reply->type == REDIS_REPLY_ARRAY && reply->elements >= elements;
}

void redis_info_value(const char *info, const char *name, char *out, size_t out_bytes)
{
    const char *at = strstr(info, name);
    at = at != NULL ? at + strlen(name) : "";
    snprintf(out, out_bytes, "%.*s", (int)strcspn(at, "\r\n"), at);
}

static const struct addrinfo *nth_of_family(const struct addrinfo *list, bool is_ipv4, unsigned *n)
{
    for (; list != NULL; list = list->ai_next) {
        if ((list->ai_family == AF_INET) == is_ipv4 && (*n)-- == 0) {
            break;
        }
    }
    return list;
}

const struct addrinfo *finding_address(const struct addrinfo *list, unsigned n)
{
    const struct addrinfo *found = nth_of_family(list, true, &n);
    return found != NULL ? found : nth_of_family(list, false, &n);
}

bool finding_is_master(const redisReply *reply)
{
    return reply->type == REDIS_REPLY_ARRAY && reply->elements > 0 &&
           reply->element[0]->type == REDIS_REPLY_STRING && strcmp(reply->element[0]->str, "master") == 0;
}
