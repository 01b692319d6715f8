/* The private redis-server of `--redis spawn`: a socket and an append-only file in the data folder, nothing on the network. Its data lie in
 * DATA/redis. And those of `--redlock-nodes spawn`, which keep nothing: what they forget the keeper tells them again.
 * Whoever starts one holds the data folder's lock. The supervisor runs them while it serves; `verify` the first for as long as it audits a
 * stopped server. */
#ifndef DOORBUSTER_PRIVATE_REDIS_H
#define DOORBUSTER_PRIVATE_REDIS_H

#include "doorbuster/redis.h"

#include <sys/types.h>

/* Is there a redis-server, version 7 or newer? False: `error` says what is wrong, and how to mend it. */
bool private_redis_find(char *error, size_t error_bytes);

/* Are there data for it? Without any it would start empty. */
bool private_redis_has_data(const char *data_dir);

/* One that an earlier owner left behind on our socket is asked to shut down; waits until it is gone. False: it does not end. */
bool private_redis_end_leftover(const struct redis_address *address);

/* In a forked child: becomes redis-server. Returns only if it cannot; logged. */
void private_redis_exec(const char *data_dir, const struct redis_address *address);
/* The same for a node of the Redlock gate, counted from 1. It keeps nothing on disk but its log, DATA/redis/node1.log. */
void private_redis_exec_node(const char *data_dir, const struct redis_address *address, unsigned number);

/* Starts one as a child, which ends with us, and waits until it has loaded its data and answers. Its process, or -1 and `error`. */
pid_t private_redis_start(const char *data_dir, const struct redis_address *address, char *error,
                          size_t error_bytes);
/* Ends it; it keeps its data. */
void private_redis_stop(pid_t pid);

/* Moves its data, which it cannot read, into DATA/redis/damaged-<time>, so that it starts empty. False: *error says why not. */
bool private_redis_set_aside(const char *data_dir, char *where, size_t where_bytes, char *error,
                             size_t error_bytes);

#endif
