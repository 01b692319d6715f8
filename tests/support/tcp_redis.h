/* A real redis-server for a test, on a loopback port that was free: what Sentinels and a Cluster need. Nothing is kept. */
#ifndef DOORBUSTER_TEST_TCP_REDIS_H
#define DOORBUSTER_TEST_TCP_REDIS_H

#include "doorbuster/redis.h"

#include <sys/types.h>

struct tcp_redis {
    int port;
    pid_t pid; /* 0: not running */
};

int free_port(void); /* on loopback */
/* On redis->port, or a free one if that is 0; `name` of its files in `folder`; `further` arguments end with NULL. Waits until it answers. */
void tcp_redis_start(struct tcp_redis *redis, const char *folder, const char *name,
                     const char *const *further);
void tcp_redis_kill(struct tcp_redis *redis); /* kill -9 */
/* Fails the test if nobody is there; redisFree it. */
redisContext *tcp_redis_connect(int port);
/* One command by a connection of its own, which must not fail: its text, or the number as text; one of the last four. */
const char *tcp_redis_do(int port, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Until INFO has this text; fails the test after 10 s. */
void tcp_redis_await(int port, const char *text);

#endif
