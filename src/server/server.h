/* What the processes of `server` share: the settings, everything that crosses a fork, and each process's main function. */
#ifndef DOORBUSTER_SERVER_SERVER_H
#define DOORBUSTER_SERVER_SERVER_H

#include "doorbuster/api.h"
#include "doorbuster/gate.h"
#include "doorbuster/log.h"
#include "doorbuster/metrics.h"

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#define SERVER_SECRET_BYTES_MAX 256

/* Paths NULL: no TLS. */
struct server_tls {
    const char *certificate_path, *key_path;
    char *certificate_pem, *key_pem; /* as they were when last read and good */
    struct http_certificate certificate;
};

struct server_configuration {
    char listen_host[256]; /* "" every address */
    int listen_port;
    bool listen_is_loopback;
    unsigned workers;
    const char *data_dir;
    char store_url[4200];
    struct gate_place place;
    bool dev_open_admin;
    enum log_level log_level; /* at start; then the shared page has it */
    int64_t hang_timeout_us;  /* a process that is silent for so long is taken for dead; 0: never */
    struct server_tls tls;
    const char *cors_origins, *trusted_proxies; /* may be NULL */
    bool has_limits;
    unsigned connections_per_address; /* of a worker, if has_limits */
    struct api_limits limits;         /* the tables, and the key in them, by the supervisor */
    unsigned char secret[SERVER_SECRET_BYTES_MAX];
    size_t secret_bytes;
    /* By configuration_claim(). */
    int64_t store_id;
    struct gate_holder holder; /* without the dead: see server_shared */
};

/* Reads options and environment, makes the data folder, checks what can be checked; exits with 2 and one line if something is wrong. Touches nothing
 * in the folder: it may be another's. */
void configuration_read(struct server_configuration *configuration, int argc, char **argv);
/* What only the owner of the data folder may do, so with its lock held: reads or makes the secret key, the store (which becomes this gate's) and
 * the server's id. Exits as above. */
void configuration_claim(struct server_configuration *configuration);
/* Reads certificate and key, if there is TLS. False: they are bad, `error` says why, and those that were read before are kept. */
bool configuration_read_tls(struct server_configuration *configuration, char *error, size_t error_bytes);

/* --- what crosses a fork: everything that is inherited is here ------------------------------------------------------------- */
struct server_shared {
    struct server_configuration configuration;
    struct metrics_page *metrics;
    int listen_fds[METRICS_WORKERS_MAX]; /* one SO_REUSEPORT socket a worker, held open by the supervisor */
    /* Two lifelines: nothing is ever written to them, their closing is the message. */
    /* write end: the supervisor's alone. Closed: the supervisor is gone, finish and exit */
    int supervisor_lifeline[2];
    /* write end: supervisor and workers. Closed: nobody sells any more; the recorder drains and exits */
    int workers_lifeline[2];
    int ready[2];     /* each child that is ready to serve writes its pid */
    int data_lock_fd; /* flock on DIR/lock, shared by all: the folder is in use until the last one is gone */
    /* --redlock-nodes spawn: how often each node was started, counted up before it is. In memory that all processes share; the supervisor alone
     * writes, atomically. */
    uint32_t *node_starts;
    /* Of each worker's slot: the one that died there since the last was started, 0: none. A new worker reads it as it was when it was forked. */
    pid_t dead_workers[METRICS_WORKERS_MAX];
};

/* One socket a worker; the port that was got is put into the configuration. */
void listening_open(struct server_shared *shared);

/* Each runs a process to its end and returns its exit code. */
int supervisor_run(struct server_shared *shared);
int worker_run(const struct server_shared *shared, unsigned index);
int recorder_run(const struct server_shared *shared);    /* of the Lua gate */
int node_keeper_run(const struct server_shared *shared); /* of the Redlock gate */

/* Is a lifeline's other end closed? Waits up to wait_ms for that. */
bool lifeline_is_closed(int fd, int wait_ms);

/* In a child: "I can serve". */
void supervisor_tell_ready(const struct server_shared *shared);

#endif
