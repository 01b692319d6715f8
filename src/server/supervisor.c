/* The supervisor: opens the listening sockets, starts the others, starts again what dies or hangs (watching.c), passes signals on, and tells the service
 * manager how things are (notify.c). One process, one thread, no library's handles; it touches no request and no order. Which others there are depends on the
 * gate: a recorder and perhaps a private Redis, or a keeper and perhaps private nodes.
 *
 * A child:   (none) --fork--> RUNNING --dies--> WAITING --backoff over--> RUNNING …
 *
 * Stopping, in this order, so that nothing reserved is left unrecorded: workers (they finish what they hold), recorder or keeper (the one
 * drains the log: it sees the workers' lifeline close), redis-servers. Rolling restart (SIGHUP): for each worker in turn a successor is started on the same
 * socket, and once it says that it is ready the old one is told to finish. */
#include "supervisor_internal.h"

#include "doorbuster/check.h"
#include "doorbuster/clock.h"
#include "doorbuster/log.h"
#include "doorbuster/private_redis.h"
#include "doorbuster/process.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#define BACKOFF_FIRST_MS 20
#define BACKOFF_MAX_MS 5000
#define HEALTHY_AFTER_US 10000000 /* ran so long: the next death is a new story */
#define REDIS_FAILED_STARTS_MAX 3 /* then its files are damaged */
#define ROLL_RETRY_US 1000000
#define START_TIMEOUT_US 60000000
#define STOP_TIMEOUT_US 30000000
#define NODE_STOP_TIMEOUT_US 3000000 /* it keeps nothing: one that hangs is not worth a long wait */
#define MS_A_DAY 86400000
#define CERTIFICATE_WARNING_MS (14 * (int64_t)MS_A_DAY) /* as the alert in monitoring/rules.yml */
#define LIMIT_BUCKETS                                                                                        \
    65536 /* accounts, addresses, failing sign-ins that are remembered at once; 8 bytes each */

const char *child_name(const struct child *child, char out[CHILD_NAME_BYTES])
{
    if (child->kind == CHILD_WORKER) {
        snprintf(out, CHILD_NAME_BYTES, "worker %u", child->index);
    } else if (child->kind == CHILD_NODE) {
        snprintf(out, CHILD_NAME_BYTES, "redis-server of node %u", child->index + 1);
    } else {
        snprintf(out, CHILD_NAME_BYTES, "%s",
                 child->kind == CHILD_REDIS      ? "redis-server"
                 : child->kind == CHILD_RECORDER ? "recorder"
                                                 : "keeper");
    }
    return out;
}

/* --- children ----------------------------------------------------------------------------------------------------------------------- */
static int run_own_child(const struct server_shared *shared, const struct child *child)
{
    signal(SIGUSR1,
           SIG_IGN); /* the level is the supervisor's to change, for all; "pkill -USR1" may reach us too */
    signal(SIGUSR2, SIG_IGN);
    int exit_code = child->kind == CHILD_WORKER     ? worker_run(shared, child->index)
                    : child->kind == CHILD_RECORDER ? recorder_run(shared)
                                                    : node_keeper_run(shared);
    log_flush(true);
    return exit_code;
}

static void run_child(struct supervisor *supervisor, const struct child *child)
{
    const struct server_configuration *configuration = &supervisor->shared->configuration;
    sigset_t none;
    sigemptyset(&none);
    close(supervisor->signal_fd);
    for (size_t i = 0; i < supervisor->child_count; i++) {
        redis_pulse_end(&supervisor->children[i].pulse); /* the child's copy of the descriptor */
    }
    sigprocmask(SIG_SETMASK, &none, NULL);
    switch (child->kind) {
    case CHILD_REDIS:
        notify_forget();
        private_redis_exec(configuration->data_dir, &configuration->place.redis);
        _exit(1);
    case CHILD_NODE:
        notify_forget();
        private_redis_exec_node(configuration->data_dir, &configuration->place.nodes[child->index],
                                child->index + 1);
        _exit(1);
    case CHILD_RECORDER:
    case CHILD_KEEPER:
    case CHILD_WORKER:
        _exit(run_own_child(supervisor->shared, child));
    }
}

static void start_child(struct supervisor *supervisor, struct child *child)
{
    char name[CHILD_NAME_BYTES];
    child->ready = false;
    child->taken_for_dead = false;
    child->started_us = clock_monotonic_us();
    child->started_at_ms = clock_wall_ms();
    life_begin(&child->life, child->started_us);
    if (child->kind == CHILD_NODE) { /* before anybody can meet this run of it */
        __atomic_add_fetch(&supervisor->shared->node_starts[child->index], 1, __ATOMIC_SEQ_CST);
    }
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0) {
        run_child(supervisor, child);
    }
    if (pid < 0) {
        log_error("cannot start %s: %s", child_name(child, name), strerror(errno));
        child->restart_us = child->started_us + (int64_t)BACKOFF_MAX_MS * 1000;
        return;
    }
    child->pid = pid;
    if (child->kind == CHILD_WORKER) { /* it knows; by the next one's time the number may be another's */
        supervisor->shared->dead_workers[child->index] = 0;
    }
}

static struct child *add_child(struct supervisor *supervisor, enum child_kind kind, unsigned index)
{
    CHECK(supervisor->child_count < CHILDREN_MAX);
    struct child *child = &supervisor->children[supervisor->child_count++];
    *child = (struct child){.kind = kind, .index = index, .backoff_ms = BACKOFF_FIRST_MS};
    redis_pulse_init(&child->pulse);
    start_child(supervisor, child);
    return child;
}

static void remove_child(struct supervisor *supervisor, struct child *child)
{
    redis_pulse_end(&child->pulse);
    *child = supervisor->children[--supervisor->child_count];
}

/* It does not beat from now on, and has LIFE_LEAVE_US. Told once: while it closes its loop the signal would kill it. */
static void tell_to_leave(struct child *child)
{
    if (child->life.phase != LIFE_LEAVING) {
        life_leave(&child->life, clock_monotonic_us());
        kill(child->pid, SIGTERM);
    }
}

static struct child *find_child(struct supervisor *supervisor, pid_t pid)
{
    for (size_t i = 0; i < supervisor->child_count; i++) {
        if (supervisor->children[i].pid == pid) {
            return &supervisor->children[i];
        }
    }
    return NULL;
}

/* A redis-server that cannot read its files ends at once, again and again. What it forgets was never promised: its data are moved aside,
 * and the recorder fills the empty one from the store. Once: if that was not the reason, the data would only be scattered. */
static void set_damaged_redis_aside(const struct supervisor *supervisor, struct child *child)
{
    const char *data_dir = supervisor->shared->configuration.data_dir;
    char where[4400], error[9000];
    if (child->failed_starts < REDIS_FAILED_STARTS_MAX || child->was_set_aside) {
        return;
    }
    child->failed_starts = 0;
    if (private_redis_set_aside(data_dir, where, sizeof where, error, sizeof error)) {
        child->was_set_aside = true;
        log_error(
            "redis-server failed to start %d times in a row, so its data must be damaged (see "
            "%s/redis/redis.log): moved them to %s; it starts empty, and the recorder fills it from the "
            "store",
            REDIS_FAILED_STARTS_MAX, data_dir, where);
    } else {
        log_error("redis-server failed to start %d times in a row, and its data cannot be moved aside: %s",
                  REDIS_FAILED_STARTS_MAX, error);
    }
}

/* Ended by itself, or crashed; not killed from outside. */
static bool is_own_end(int status)
{
    return !WIFSIGNALED(status) || (WTERMSIG(status) != SIGKILL && WTERMSIG(status) != SIGTERM);
}

/* Who is told to end before it has come to listen for that dies of it; it has nothing to lose then. */
static bool left_as_told(int status)
{
    return !WIFSIGNALED(status) || WTERMSIG(status) == SIGTERM;
}

static void child_died(struct supervisor *supervisor, struct child *child, int status)
{
    char name[CHILD_NAME_BYTES];
    int64_t now_us = clock_monotonic_us();
    bool was_successor = child->pid == supervisor->successor;
    bool gone_for_good = child->leaving || supervisor->stopping || was_successor;
    if (child->kind == CHILD_WORKER && status != 0) { /* its locks may still be there */
        supervisor->shared->dead_workers[child->index] = child->pid;
    }
    child->pid = 0;
    child->ready = false;
    redis_pulse_end(&child->pulse);
    if (was_successor) { /* its predecessor still serves: another try, a little later */
        log_error("a worker's successor died before it was ready");
        supervisor->successor = 0;
        supervisor->roll_not_before_us = now_us + ROLL_RETRY_US;
    }
    if (gone_for_good) {
        log_info("%s has left%s", child_name(child, name), left_as_told(status) ? "" : " by a signal");
        remove_child(supervisor, child);
        return;
    }
    if (now_us - child->started_us > HEALTHY_AFTER_US) {
        child->backoff_ms = BACKOFF_FIRST_MS;
        child->failed_starts = 0;
        child->was_set_aside = false;
    } else if (is_own_end(status)) {
        child->failed_starts++;
    }
    log_error("%s died (%s %d); starting it again in %d ms", child_name(child, name),
              WIFSIGNALED(status) ? "signal" : "exit code",
              WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status), child->backoff_ms);
    metrics_add(METRICS_process_restarts, 1);
    child->restarts++;
    child->died_us = child->died_us != 0 ? child->died_us : now_us;
    child->restart_us = now_us + (int64_t)child->backoff_ms * 1000;
    if (child->kind == CHILD_REDIS) {
        set_damaged_redis_aside(supervisor, child);
    }
    child->backoff_ms = child->backoff_ms * 2 < BACKOFF_MAX_MS ? child->backoff_ms * 2 : BACKOFF_MAX_MS;
}

static void reap(struct supervisor *supervisor)
{
    int status;
    pid_t pid;
    while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
        struct child *child = find_child(supervisor, pid);
        if (child != NULL) {
            child_died(supervisor, child, status);
        }
    }
}

static void start_due(struct supervisor *supervisor)
{
    int64_t now_us = clock_monotonic_us();
    for (size_t i = 0; i < supervisor->child_count && !supervisor->stopping; i++) {
        struct child *child = &supervisor->children[i];
        if (child->pid == 0 && child->restart_us <= now_us) {
            start_child(supervisor, child);
        }
    }
}

/* --- readiness ----------------------------------------------------------------------------------------------------------------------- */
static const char *gate_words(const struct gate_place *place, char out[64])
{
    out[0] = '\0';
    if (place->kind == GATE_REDLOCK) {
        snprintf(out, 64, ", Redlock gate over %u %snode%s", place->node_count,
                 place->spawn_nodes ? "private " : "", place->node_count == 1 ? "" : "s");
    }
    return out;
}

static void announce_when_ready(struct supervisor *supervisor)
{
    for (size_t i = 0; i < supervisor->child_count; i++) {
        const struct child *child = &supervisor->children[i];
        if (!child->ready && child->kind != CHILD_REDIS && child->kind != CHILD_NODE) {
            return;
        }
    }
    if (!supervisor->announced) {
        const struct server_configuration *configuration = &supervisor->shared->configuration;
        char gate[64];
        supervisor->announced = true;
        const char *host = configuration->listen_host[0] ? configuration->listen_host : "localhost";
        log_info(strchr(host, ':') ? "ready on %s://[%s]:%d, %u workers, data in %s%s"
                                   : "ready on %s://%s:%d, %u workers, data in %s%s",
                 configuration->tls.certificate_pem != NULL ? "https" : "http", host,
                 configuration->listen_port, configuration->workers, configuration->data_dir,
                 gate_words(&configuration->place, gate));
        notify_tell(&supervisor->notify, "READY=1");
    }
}

void supervisor_tell_ready(const struct server_shared *shared)
{
    pid_t pid = getpid();
    if (write(shared->ready[1], &pid, sizeof pid) != sizeof pid) {
        log_warn("cannot tell the supervisor that we are ready: %s", strerror(errno));
    }
}

void child_is_ready(struct child *child)
{
    char name[CHILD_NAME_BYTES];
    child->ready = true;
    if (child->died_us != 0) {
        bool is_redis = child->kind == CHILD_REDIS || child->kind == CHILD_NODE;
        log_info("%s %s again, %d ms after it died", child_name(child, name),
                 is_redis ? "answers" : "is ready", (int)((clock_monotonic_us() - child->died_us) / 1000));
        child->died_us = 0;
    }
}

/* Each message is the pid of a child that is ready to serve. */
static void hear_ready(struct supervisor *supervisor)
{
    pid_t pid;
    while (read(supervisor->shared->ready[0], &pid, sizeof pid) == sizeof pid) {
        struct child *child = find_child(supervisor, pid);
        if (child != NULL) {
            child_is_ready(child);
        }
    }
    announce_when_ready(supervisor);
}

/* --- rolling restart ------------------------------------------------------------------------------------------------------------------- */
static struct child *worker_of_slot(struct supervisor *supervisor, unsigned index, pid_t but_not)
{
    for (size_t i = 0; i < supervisor->child_count; i++) {
        struct child *child = &supervisor->children[i];
        if (child->kind == CHILD_WORKER && child->index == index && !child->leaving &&
            child->pid != but_not) {
            return child;
        }
    }
    return NULL;
}

static void start_successor(struct supervisor *supervisor)
{
    int64_t now_us = clock_monotonic_us();
    if (now_us < supervisor->roll_not_before_us || supervisor->child_count == CHILDREN_MAX) {
        return;
    }
    struct child *child = add_child(supervisor, CHILD_WORKER, supervisor->rolling_next);
    if (child->pid == 0) { /* could not be forked */
        remove_child(supervisor, child);
        supervisor->roll_not_before_us = now_us + ROLL_RETRY_US;
        return;
    }
    supervisor->successor = child->pid;
}

/* Which one is served, for the log and /metrics. */
static void tell_certificate(const struct supervisor *supervisor)
{
    const struct server_tls *tls = &supervisor->shared->configuration.tls;
    char until[CLOCK_RFC3339_BYTES];
    if (tls->certificate_pem == NULL) {
        return;
    }
    int64_t ends_at_ms = tls->certificate.ends_at_ms, left_ms = ends_at_ms - clock_wall_ms();
    __atomic_store_n(&supervisor->shared->metrics->certificate_ends_at_ms, ends_at_ms, __ATOMIC_RELAXED);
    clock_rfc3339(ends_at_ms, until);
    log_info("serving with the certificate of %s, valid until %s (%s)", tls->certificate.subject, until,
             tls->certificate_path);
    if (left_ms <= 0) {
        log_warn("the certificate of %s has ended: clients refuse it; put a new one into %s and send SIGHUP",
                 tls->certificate.subject, tls->certificate_path);
    } else if (left_ms < CERTIFICATE_WARNING_MS) {
        log_warn("the certificate of %s ends in %.1f days; put a new one into %s and send SIGHUP",
                 tls->certificate.subject, (double)left_ms / MS_A_DAY, tls->certificate_path);
    }
}

/* On SIGHUP. Workers are forked with the certificate that the supervisor has by then. */
static void start_rolling(struct supervisor *supervisor)
{
    char error[1024];
    supervisor->roll_again = false;
    if (!configuration_read_tls(&supervisor->shared->configuration, error, sizeof error)) {
        log_error("%s; going on with the certificate that there was", error);
    }
    tell_certificate(supervisor);
    log_info("replacing the workers one by one");
    notify_reloading(&supervisor->notify, clock_monotonic_us());
    supervisor->rolling_next = 0;
}

static void roll_on(struct supervisor *supervisor)
{
    unsigned workers = supervisor->shared->configuration.workers;
    if (supervisor->stopping || supervisor->rolling_next >= workers) {
        return;
    }
    if (supervisor->successor == 0) {
        start_successor(supervisor);
        return;
    }
    struct child *successor = find_child(supervisor, supervisor->successor);
    CHECK(successor != NULL);
    if (!successor->ready) {
        return;
    }
    struct child *old = worker_of_slot(supervisor, supervisor->rolling_next, supervisor->successor);
    if (old != NULL) {
        old->leaving = true;
        successor->restarts = old->restarts;
        if (old->pid > 0) {
            tell_to_leave(old);
        } else {
            remove_child(supervisor, old);
        }
    }
    supervisor->successor = 0;
    supervisor->rolling_next++;
    if (supervisor->rolling_next == workers) {
        log_info("all workers replaced");
        if (supervisor->roll_again) {
            start_rolling(supervisor);
        } else {
            notify_tell(&supervisor->notify, "READY=1");
        }
    }
}

/* --- stopping ---------------------------------------------------------------------------------------------------------------------------- */
static size_t count_kind(const struct supervisor *supervisor, enum child_kind kind)
{
    size_t count = 0;
    for (size_t i = 0; i < supervisor->child_count; i++) {
        count += supervisor->children[i].kind == kind && supervisor->children[i].pid > 0;
    }
    return count;
}

static void tell_kind_to_leave(struct supervisor *supervisor, enum child_kind kind)
{
    for (size_t i = 0; i < supervisor->child_count; i++) {
        if (supervisor->children[i].kind == kind && supervisor->children[i].pid > 0) {
            tell_to_leave(&supervisor->children[i]);
        }
    }
}

static void kill_kind(const struct supervisor *supervisor, enum child_kind kind)
{
    for (size_t i = 0; i < supervisor->child_count; i++) {
        if (supervisor->children[i].kind == kind && supervisor->children[i].pid > 0) {
            kill(supervisor->children[i].pid, SIGKILL);
        }
    }
}

/* Waits until no child of this kind is left; after the timeout, kill -9: what is in the log is recorded at the next start. */
static void wait_for_end(struct supervisor *supervisor, enum child_kind kind)
{
    int64_t timeout_us = kind == CHILD_NODE ? NODE_STOP_TIMEOUT_US : STOP_TIMEOUT_US;
    int64_t deadline_us = clock_monotonic_us() + timeout_us;
    while (count_kind(supervisor, kind) > 0) {
        struct pollfd poller = {.fd = supervisor->signal_fd, .events = POLLIN};
        struct signalfd_siginfo info;
        poll(&poller, 1, 100);
        while (read(supervisor->signal_fd, &info, sizeof info) == sizeof info) {
        }
        reap(supervisor);
        watch_children(supervisor);
        tell_about_children(supervisor);
        if (clock_monotonic_us() > deadline_us) {
            log_error("a child does not end; killing it");
            kill_kind(supervisor, kind);
            deadline_us += timeout_us;
        }
    }
}

static void stop(struct supervisor *supervisor)
{
    log_info("stopping");
    notify_tell(&supervisor->notify, "STOPPING=1\nSTATUS=stopping: finishing what is held");
    supervisor->stopping = true;
    tell_kind_to_leave(supervisor, CHILD_WORKER);
    wait_for_end(supervisor, CHILD_WORKER);
    close(supervisor->shared->workers_lifeline[1]);
    wait_for_end(supervisor, CHILD_RECORDER);
    wait_for_end(supervisor, CHILD_KEEPER);
    tell_kind_to_leave(supervisor, CHILD_REDIS);
    tell_kind_to_leave(supervisor, CHILD_NODE);
    wait_for_end(supervisor, CHILD_REDIS);
    wait_for_end(supervisor, CHILD_NODE);
    log_info("stopped");
    log_flush(true);
}

/* --- the process --------------------------------------------------------------------------------------------------------------------------- */
/* Of all processes at once: the level is in the page that they share. */
static void change_log_level(const struct supervisor *supervisor, int by)
{
    int *level = &supervisor->shared->metrics->log_level;
    int from = __atomic_load_n(level, __ATOMIC_RELAXED), to = from + by;
    if (to < LOG_ERROR || to > LOG_DEBUG) {
        log_line((enum log_level)from, "the log level is %s already", log_level_names[from]);
        return;
    }
    if (by > 0) {
        log_set_level((enum log_level)to);
    }
    /* On the louder of the two, or nobody would hear of it. */
    log_line((enum log_level)(by > 0 ? to : from), "the log level is %s now, it was %s", log_level_names[to],
             log_level_names[from]);
    log_set_level((enum log_level)to);
}

static bool handle_signals(struct supervisor *supervisor)
{
    struct signalfd_siginfo info;
    bool stop_asked = false;
    while (read(supervisor->signal_fd, &info, sizeof info) == sizeof info) {
        if (info.ssi_signo == SIGTERM || info.ssi_signo == SIGINT) {
            stop_asked = true;
        } else if (info.ssi_signo == SIGHUP &&
                   supervisor->rolling_next < supervisor->shared->configuration.workers) {
            supervisor->roll_again =
                true; /* those that are replaced already do not know what changed since */
        } else if (info.ssi_signo == SIGHUP) {
            start_rolling(supervisor);
        } else if (info.ssi_signo == SIGUSR1 || info.ssi_signo == SIGUSR2) {
            change_log_level(supervisor, info.ssi_signo == SIGUSR1 ? 1 : -1);
        }
    }
    reap(supervisor);
    return !stop_asked;
}

static void block_signals(struct supervisor *supervisor)
{
    sigset_t watched;
    sigemptyset(&watched);
    sigaddset(&watched, SIGTERM);
    sigaddset(&watched, SIGINT);
    sigaddset(&watched, SIGHUP);
    sigaddset(&watched, SIGCHLD);
    sigaddset(&watched, SIGUSR1);
    sigaddset(&watched, SIGUSR2);
    CHECK(sigprocmask(SIG_BLOCK, &watched, NULL) == 0);
    signal(SIGPIPE, SIG_IGN);
    supervisor->signal_fd = signalfd(-1, &watched, SFD_NONBLOCK | SFD_CLOEXEC);
    CHECK(supervisor->signal_fd >= 0);
}

static void open_pipes(struct server_shared *shared)
{
    CHECK(pipe2(shared->supervisor_lifeline, O_CLOEXEC) == 0);
    CHECK(pipe2(shared->workers_lifeline, O_CLOEXEC) == 0);
    CHECK(pipe2(shared->ready, O_CLOEXEC | O_NONBLOCK) == 0);
}

static void raise_file_limit(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
}

/* Lock nodes that were started a moment ago do not vote before the TTL is over. */
static int64_t start_timeout_us(const struct server_configuration *configuration)
{
    const struct gate_place *place = &configuration->place;
    return START_TIMEOUT_US + (place->kind == GATE_REDLOCK ? (int64_t)place->lock_ttl_ms * 1000 : 0);
}

static bool start_took_too_long(const struct supervisor *supervisor, int64_t began_us)
{
    return !supervisor->announced &&
           clock_monotonic_us() - began_us > start_timeout_us(&supervisor->shared->configuration);
}

/* --- starting --------------------------------------------------------------------------------------------------------------------------- */
static void end_leftover(const struct redis_address *address, const char *data_dir)
{
    if (!private_redis_end_leftover(address)) {
        process_refuse(
            "doorbuster-server",
            "the private redis-server of an earlier server does not end; stop it by hand (its socket "
            "is %s, its folder is %s/redis)",
            address->path, data_dir);
    }
}

static void end_leftovers(const struct server_configuration *configuration)
{
    const struct gate_place *place = &configuration->place;
    if (place->spawn_redis) {
        end_leftover(&place->redis, configuration->data_dir);
    }
    for (unsigned i = 0; place->spawn_nodes && i < place->node_count; i++) {
        end_leftover(&place->nodes[i], configuration->data_dir);
    }
}

static void share_node_starts(struct server_shared *shared)
{
    if (shared->configuration.place.spawn_nodes) {
        void *page = mmap(NULL, GATE_NODES_MAX * sizeof *shared->node_starts, PROT_READ | PROT_WRITE,
                          MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        CHECK(page != MAP_FAILED);
        shared->node_starts = page;
    }
}

static void share_limits(struct api_limits *limits)
{
    randombytes_buf(limits->key, sizeof limits->key);
    for (int i = 0; i < API_LIMITS; i++) {
        limits->tables[i] = rate_limit_table_new(LIMIT_BUCKETS);
        CHECK(limits->tables[i] != NULL);
    }
}

static void start_all(struct supervisor *supervisor)
{
    const struct server_configuration *configuration = &supervisor->shared->configuration;
    const struct gate_place *place = &configuration->place;
    if (place->spawn_redis) {
        add_child(supervisor, CHILD_REDIS, 0);
    }
    for (unsigned i = 0; place->spawn_nodes && i < place->node_count; i++) {
        add_child(supervisor, CHILD_NODE, i);
    }
    add_child(supervisor, place->kind == GATE_REDLOCK ? CHILD_KEEPER : CHILD_RECORDER, 0);
    for (unsigned i = 0; i < configuration->workers; i++) {
        add_child(supervisor, CHILD_WORKER, i);
    }
}

static void tell_gave_up(const struct server_configuration *configuration)
{
    bool spawns = configuration->place.spawn_redis || configuration->place.spawn_nodes;
    log_error("not ready within %d s: see the lines above%s%s%s",
              (int)(start_timeout_us(configuration) / 1000000), spawns ? ", and the logs in " : "",
              spawns ? configuration->data_dir : "", spawns ? "/redis" : "");
}

int supervisor_run(struct server_shared *shared)
{
    static struct supervisor supervisor;
    supervisor.shared = shared;
    supervisor.rolling_next = shared->configuration.workers;
    supervisor.started_at_ms = clock_wall_ms();
    notify_open(&supervisor.notify);
    raise_file_limit();
    listening_open(shared);
    end_leftovers(&shared->configuration);
    open_pipes(shared);
    share_node_starts(shared);
    share_limits(&shared->configuration.limits);
    shared->metrics = metrics_page_new();
    CHECK(shared->metrics != NULL);
    shared->metrics->log_level = (int)shared->configuration.log_level;
    log_use_level(&shared->metrics->log_level);
    process_set_title("doorbuster: supervisor");
    block_signals(&supervisor);
    metrics_use_slot(&shared->metrics->supervisor);
    tell_certificate(&supervisor);
    start_all(&supervisor);

    int64_t began_us = clock_monotonic_us();
    bool gave_up = false;
    do {
        struct pollfd pollers[] = {{.fd = supervisor.signal_fd, .events = POLLIN},
                                   {.fd = shared->ready[0], .events = POLLIN}};
        poll(pollers, 2, BACKOFF_FIRST_MS);
        start_due(&supervisor);
        hear_ready(&supervisor);
        roll_on(&supervisor);
        log_flush(false);
        watch_children(&supervisor);
        tell_about_children(&supervisor);
        gave_up = start_took_too_long(&supervisor, began_us);
    } while (handle_signals(&supervisor) && !gave_up);
    if (gave_up) {
        tell_gave_up(&shared->configuration);
    }
    stop(&supervisor);
    return gave_up ? 1 : 0;
}
