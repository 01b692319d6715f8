/* What the processes of `server` share: the settings, everything that crosses a fork, and each process's main function. */
#ifndef DOORBUSTER_SERVER_SERVER_H
#define DOORBUSTER_SERVER_SERVER_H

#include "doorbuster/gate_place.h"
#include "doorbuster/metrics.h"
#include "doorbuster/redis.h"

#include <stdbool.h>
#include <stddef.h>

#define SERVER_SECRET_BYTES_MAX 256

struct server_configuration {
    char listen_host[256]; /* "" every address */
    int listen_port;
    bool listen_is_loopback;
    unsigned workers;
    const char *data_dir;
    char store_url[4200];
    struct gate_place place;
    struct redis_address redis;
    bool spawn_redis;
    bool dev_open_admin;
    unsigned char secret[SERVER_SECRET_BYTES_MAX];
    size_t secret_bytes;
};

/* Reads options and environment, makes the data folder and the secret key, checks what can be checked; exits with 2 and one line if
 * something is wrong. */
void configuration_read(struct server_configuration *configuration, int argc, char **argv);

/* --- what crosses a fork: everything that is inherited is here ------------------------------------------------------------- */
struct server_shared {
    struct server_configuration configuration;
    struct metrics_page *metrics;
    int listen_fds[METRICS_WORKERS_MAX]; /* one SO_REUSEPORT socket a worker, held open by the supervisor */
    /* Two lifelines: nothing is ever written to them, their closing is the message. */
    int supervisor_lifeline
        [2]; /* write end: the supervisor's alone. Closed: the supervisor is gone, finish and exit */
    int workers_lifeline
        [2]; /* write end: supervisor and workers. Closed: nobody sells any more; the recorder drains and exits */
    int ready[2];     /* each child that is ready to serve writes its pid */
    int data_lock_fd; /* flock on DIR/lock, shared by all: the folder is in use until the last one is gone */
};

/* Each runs a process to its end and returns its exit code. */
int supervisor_run(struct server_shared *shared);
int worker_run(const struct server_shared *shared, unsigned index);
int recorder_run(const struct server_shared *shared);

/* In a child: "I can serve". */
void supervisor_tell_ready(const struct server_shared *shared);

#endif
