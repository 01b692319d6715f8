/* A proxy between the server and Redis, or PostgreSQL, that does on demand what networks do: cut a
 * connection, delay what is on it, lose the answer to a request that arrived, deliver a request long after its
 * sender has gone, pass nothing one way.
 *
 * An address is the path of a Unix socket, or "127.0.0.1:PORT".
 *
 * A forked child with an epoll loop; told what to do over a socket pair; ends with the test process. */
#ifndef DOORBUSTER_TEST_PROXY_H
#define DOORBUSTER_TEST_PROXY_H

#include <stdbool.h>
#include <sys/types.h>

enum proxy_action {
    PROXY_CUT,   /* closes every connection now */
    PROXY_DELAY, /* everything takes `ms` longer, both ways, until PROXY_DELAY with 0 */
    /* the next `count` calls of a script reach Redis, but the connection is cut instead of the answer */
    PROXY_LOSE_ANSWER,
    /* the next `count` calls of a script: the sender's connection is closed at once, Redis gets the call `ms` later */
    PROXY_DELIVER_LATE,
    /* the next `count` calls of a script reach Redis, but from then on nothing comes back on that connection, which stays */
    PROXY_MUTE_ANSWER,
    PROXY_MUTE_CALL, /* the same, but the call does not reach Redis either */
    /* the next `count` calls of a script reach Redis again `ms` later, on a connection of their own */
    PROXY_TWICE,
    PROXY_SILENT, /* all connections stay, old and new, and nothing passes, until PROXY_SILENT with count 0 */
    PROXY_AWAY,   /* closes every connection, and each new one, until PROXY_AWAY with count 0 */
    /* one way: what clients send, their going away too, reaches nobody, on connections old and new; what is sent to them passes. Until the same
     * with count 0, when those are closed that lost something */
    PROXY_CALLS_SWALLOWED,
    PROXY_ANSWERS_SWALLOWED, /* the other way */
    PROXY_CALM,              /* all of the above is over */
};

struct proxy {
    pid_t pid; /* 0: not running */
    int control_fd;
};

void proxy_start(struct proxy *proxy, const char *listen_path, const char *redis_path);
/* The same, but what counts as a call is whatever has this text in it; it must live as long as the proxy. */
void proxy_start_for(struct proxy *proxy, const char *listen_path, const char *redis_path, const char *call);
void proxy_do(const struct proxy *proxy, enum proxy_action action, int ms, int count);
/* All that there is to choose. */
struct proxy_plan {
    const char *listen, *behind; /* addresses */
    const char *call;            /* NULL: "EVALSHA" */
    /* What those behind it say is passed on with each first text replaced by the second, which is as long: so whoever
     * asks a Sentinel through it is told of other proxies. Ends with NULL; NULL: nothing. */
    const char *const *replaced;
};
/* The plan must live as long as the proxy. */
void proxy_start_as(struct proxy *proxy, const struct proxy_plan *plan);
/* Nothing more is to fail; waits until what is held was delivered. False: not within the time. */
bool proxy_calm(const struct proxy *proxy, int timeout_ms);
void proxy_end(struct proxy *proxy);

#endif
