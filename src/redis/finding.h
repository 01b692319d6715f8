/* What Sentinels and nodes of a Redis Cluster answer to "who is the master?". Pure functions; blocking.c and link.c ask. */
#ifndef DOORBUSTER_REDIS_FINDING_H
#define DOORBUSTER_REDIS_FINDING_H

#include "doorbuster/redis.h"

#include <netdb.h>
#include <netinet/in.h>

#define FINDING_SENTINEL_MS 300 /* a Sentinel that has not answered within this is passed over */
#define FINDING_HOPS_MAX 4      /* so many MOVED in a row are followed without a pause */

/* SENTINEL GET-MASTER-ADDR-BY-NAME's reply. False: it knows no such group, or says something else. */
bool finding_master(const redisReply *reply, struct redis_host *out);
/* "MOVED 866 10.0.0.7:7002" by the node at `asked`. False: it is something else. */
bool finding_moved(const char *error, const char *asked, struct redis_host *out);
/* "host:port" for messages, an IPv6 address in brackets; returns its length. */
#define REDIS_HOST_BYTES 272
size_t redis_host_format(const struct redis_host *host, char *out, size_t out_bytes);
/* The n-th address of a name, the IPv4 ones first; NULL: it has no more. */
const struct addrinfo *finding_address(const struct addrinfo *list, unsigned n);
/* ROLE's reply. */
bool finding_is_master(const redisReply *reply);

#endif
