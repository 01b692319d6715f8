/* What the supervisor knows of its children; shared by supervisor.c (starts and stops them) and watching.c (looks whether they live, and tells others). */
#ifndef DOORBUSTER_SERVER_SUPERVISOR_INTERNAL_H
#define DOORBUSTER_SERVER_SUPERVISOR_INTERNAL_H

#include "life.h"
#include "notify.h"
#include "redis_pulse.h"
#include "server.h"

#define CHILDREN_MAX (2 * METRICS_WORKERS_MAX + 1 + GATE_NODES_MAX)
#define CHILD_NAME_BYTES 32

enum child_kind { CHILD_REDIS, CHILD_NODE, CHILD_RECORDER, CHILD_KEEPER, CHILD_WORKER };

struct child {
    enum child_kind kind;
    unsigned index; /* workers: which slot and socket; nodes: which, from 0 */
    pid_t pid;      /* 0: not running */
    int64_t started_us, started_at_ms;
    int64_t restart_us; /* when to start it, if pid is 0 */
    int backoff_ms;
    int failed_starts;  /* redis-server: in a row; it ended by itself before it was healthy */
    bool was_set_aside; /* redis-server: its data, since it was last healthy */
    uint64_t restarts;  /* and those of its predecessors */
    int64_t died_us;    /* first, since it was last ready; 0: it is, or has never died */
    bool ready;
    bool leaving; /* replaced or stopping: do not start again */
    struct life life;
    struct redis_pulse pulse; /* redis-servers */
    bool taken_for_dead;      /* killed for its silence, and not reaped yet */
};

struct supervisor {
    struct server_shared *shared;
    int signal_fd;
    struct child children[CHILDREN_MAX];
    size_t child_count;
    int64_t started_at_ms;
    bool announced; /* the ready line is out */
    bool stopping;
    unsigned rolling_next; /* next worker to replace; == workers: none */
    bool roll_again;       /* another SIGHUP came meanwhile */
    pid_t successor;       /* of a rolling restart, not ready yet; 0: none */
    int64_t roll_not_before_us;
    /* watching.c's */
    struct notify notify;
    int64_t looked_us; /* at the children, last; 0: never */
    struct board_processes told;
};

const char *child_name(const struct child *child, char out[CHILD_NAME_BYTES]);

/* It serves; of one that had died that is told. */
void child_is_ready(struct child *child);

/* --- watching.c ------------------------------------------------------------------------------------------------------------------------- */
/* Reads every child's beat, and kills who was silent for too long. Call in every turn. */
void watch_children(struct supervisor *supervisor);
/* The table of processes for those who look at the board, the service manager's status line, and its watchdog. Call in every turn. */
void tell_about_children(struct supervisor *supervisor);

#endif
