/* The supervisor's eyes. Does every child turn its loop? One that stopped to, in whatever way (a deadlock, an endless loop, SIGSTOP, a file system that does
 * not answer), is taken for dead: killed, and started again as any that died. That is safe because kill -9 is, at any instant; and it is
 * needed because a process that stands still may hold what all the others wait for, such as the store's lock in the middle of a commit.
 *
 * Who says what: workers, recorder and keeper beat in their slot of the shared page (metrics_beat()); private redis-servers are asked for a PING. A worker and
 * its successor share a slot for a moment: a beat counts for the process whose pid is beside it, and while both beat, who is not seen there is given time. Who
 * leaves does not beat any more.
 *
 * Time in which the supervisor itself did not run is no silence of anybody's: it was stopped, or the machine was, and so perhaps everybody.
 *
 * The supervisor's thread. Owns the table of processes on the board. */
#include "supervisor_internal.h"

#include "doorbuster/clock.h"
#include "doorbuster/log.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>

/* Between two looks; usually it is 20 ms. Only what is more is passed over: on a machine so busy that the supervisor is always late, a process that hangs is
 * still found out, later. */
#define GAP_US 200000

/* --- silence ------------------------------------------------------------------------------------------------------------------------------ */
static const struct metrics_slot *slot_of(const struct supervisor *supervisor, const struct child *child)
{
    const struct metrics_page *page = supervisor->shared->metrics;
    return child->kind == CHILD_WORKER ? &page->workers[child->index] : &page->recorder;
}

static const char *socket_of(const struct supervisor *supervisor, const struct child *child)
{
    const struct gate_place *place = &supervisor->shared->configuration.place;
    return child->kind == CHILD_REDIS  ? place->redis.path
           : child->kind == CHILD_NODE ? place->nodes[child->index].path
                                       : NULL;
}

static void hear(const struct supervisor *supervisor, struct child *child, int64_t now_us)
{
    const char *socket_path = socket_of(supervisor, child);
    if (socket_path == NULL) {
        const struct metrics_slot *slot = slot_of(supervisor, child);
        int64_t beat_us = __atomic_load_n(&slot->beat_us, __ATOMIC_ACQUIRE);
        if (__atomic_load_n(&slot->beat_pid, __ATOMIC_RELAXED) == child->pid) {
            life_beat(&child->life, beat_us);
        }
    } else if (redis_pulse_feel(&child->pulse, socket_path, now_us)) {
        life_beat(&child->life, now_us);
        child_is_ready(child);
    }
}

/* With one that is not leaving. */
static bool shares_slot(const struct supervisor *supervisor, const struct child *child)
{
    for (size_t i = 0; i < supervisor->child_count; i++) {
        const struct child *other = &supervisor->children[i];
        if (other != child && other->kind == CHILD_WORKER && child->kind == CHILD_WORKER &&
            other->index == child->index && other->pid > 0 && !other->leaving) {
            return true;
        }
    }
    return false;
}

static void take_for_dead(struct child *child, int64_t silence_us)
{
    static const char *const what[] = {[LIFE_STARTING] = "was started and has not begun to work",
                                       [LIFE_TURNING] = "has not turned its loop",
                                       [LIFE_LEAVING] = "was told to leave and is still there"};
    char name[CHILD_NAME_BYTES];
    log_error("%s (pid %d) %s for %.1f s: taken for dead, killing it", child_name(child, name),
              (int)child->pid, what[child->life.phase], (double)silence_us / 1e6);
    metrics_add(METRICS_processes_hung, 1);
    kill(child->pid, SIGKILL);
    child->taken_for_dead = true;
}

static void judge(const struct supervisor *supervisor, struct child *child, int64_t now_us)
{
    int64_t timeout_us = supervisor->shared->configuration.hang_timeout_us;
    int64_t silence_us = life_silence_us(&child->life, now_us);
    if (supervisor->stopping && child->life.phase == LIFE_LEAVING) {
        return; /* whoever waits for its end has a time of its own for that */
    }
    if (timeout_us > 0 && !child->taken_for_dead &&
        silence_us > life_patience_us(&child->life, timeout_us, shares_slot(supervisor, child))) {
        take_for_dead(child, silence_us);
    }
}

void watch_children(struct supervisor *supervisor)
{
    int64_t now_us = clock_monotonic_us();
    int64_t gap_us = supervisor->looked_us > 0 ? now_us - supervisor->looked_us : 0;
    supervisor->looked_us = now_us;
    for (size_t i = 0; i < supervisor->child_count; i++) {
        struct child *child = &supervisor->children[i];
        if (child->pid > 0) {
            if (gap_us > GAP_US) {
                life_pass_over(&child->life, gap_us - GAP_US);
            }
            hear(supervisor, child, now_us);
            judge(supervisor, child, now_us);
        }
    }
}

/* --- the table ---------------------------------------------------------------------------------------------------------------------------- */
/* One line a name: of a worker and its successor, the one that serves. */
static bool is_listed(const struct supervisor *supervisor, const struct child *child)
{
    return !child->leaving && (child->pid == 0 || child->pid != supervisor->successor);
}

static void write_table(struct supervisor *supervisor)
{
    static struct board_processes now; /* zeroed where nothing was written: the two are compared as a whole */
    now.started_at_ms = supervisor->started_at_ms;
    now.count = 0;
    for (size_t i = 0; i < supervisor->child_count; i++) {
        const struct child *child = &supervisor->children[i];
        if (is_listed(supervisor, child) && now.count < BOARD_PROCESSES_MAX) {
            struct board_process *line = &now.each[now.count++];
            memset(line, 0, sizeof *line);
            child_name(child, line->name);
            line->pid = child->pid;
            line->started_at_ms = child->started_at_ms;
            line->restarts = child->restarts;
            line->ready = child->ready && child->pid > 0;
        }
    }
    memset(&now.each[now.count], 0, (BOARD_PROCESSES_MAX - now.count) * sizeof now.each[0]);
    if (memcmp(&now, &supervisor->told, sizeof now) != 0) {
        memcpy(&supervisor->told, &now, sizeof now);
        board_write_processes(&supervisor->shared->metrics->board, &now);
    }
}

/* --- the service manager ------------------------------------------------------------------------------------------------------------------ */
static bool is_bookkeeper(const struct child *child)
{
    return child->kind == CHILD_RECORDER || child->kind == CHILD_KEEPER;
}

static void tell_status(struct supervisor *supervisor)
{
    char status[NOTIFY_STATUS_BYTES];
    unsigned ready = 0, workers = supervisor->shared->configuration.workers;
    const char *bookkeeper = "";
    bool kept = false;
    for (size_t i = 0; i < supervisor->child_count; i++) {
        const struct child *child = &supervisor->children[i];
        ready += child->kind == CHILD_WORKER && is_listed(supervisor, child) && child->ready;
        if (is_bookkeeper(child)) {
            bookkeeper = child->kind == CHILD_RECORDER ? "recorder" : "keeper";
            kept = child->ready && child->pid > 0;
        }
    }
    snprintf(status, sizeof status, "%s: %u of %u workers ready, %s %s%s",
             supervisor->announced ? "serving" : "starting", ready, workers, bookkeeper,
             kept ? "ready" : "not ready",
             supervisor->rolling_next < workers ? ", replacing the workers" : "");
    notify_status(&supervisor->notify, status);
}

/* What a new start of everything might mend: that we cannot keep a bookkeeper and a worker turning. Not that Redis or the store are away, for they wait
 * for these and turn. */
static bool parts_are_there(const struct supervisor *supervisor)
{
    bool worker = false, bookkeeper = false;
    for (size_t i = 0; i < supervisor->child_count; i++) {
        const struct child *child = &supervisor->children[i];
        if (child->pid > 0 && !child->taken_for_dead && child->life.phase == LIFE_TURNING) {
            worker = worker || child->kind == CHILD_WORKER;
            bookkeeper = bookkeeper || is_bookkeeper(child);
        }
    }
    return worker && bookkeeper;
}

void tell_about_children(struct supervisor *supervisor)
{
    write_table(supervisor);
    if (!supervisor->stopping) {
        tell_status(supervisor);
        if (parts_are_there(supervisor)) {
            notify_feed_watchdog(&supervisor->notify, clock_monotonic_us());
        }
    }
}
