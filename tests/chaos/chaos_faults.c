/* The table of faults, and those done with signals and by hand in Redis. A fault's function runs while the
 * buyers buy: whatever waits in it lets them go on (wait_with). */
#include "chaos.h"

#include "doorbuster/redis.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#define ROLL_TIMEOUT_MS 20000
#define LEAVE_MS 20000
#define HELD_MS 400
#define SPAWN (1u << MODE_SPAWN)
#define EXTERNAL (1u << MODE_EXTERNAL)
#define PROXY (1u << MODE_PROXY)
#define SEVERAL (1u << MODE_SEVERAL)
#define CLUSTER (1u << MODE_CLUSTER)
#define BOTH (SEVERAL | CLUSTER)
#define ONE (SPAWN | EXTERNAL | PROXY)
#define FILES (ONE | SEVERAL) /* a Redis that stays where it is, and a store in a file */
#define ANY (FILES | CLUSTER)
#define NODES_OURS (1u << MODE_NODES)
#define NODES_SPAWN (1u << MODE_NODES_SPAWN)
#define REDLOCK (NODES_OURS | NODES_SPAWN)
#define NODE_FAULT (REDIS_PROCESS | NO_PAUSE)
#define ONE_OF_TWO (TWO_SERVERS | TAKEN_OVER | INSTANT)
#define FAILOVER (FORGETS | FAILED_OVER | REDIS_PROCESS | INSTANT)

/* --- signals ------------------------------------------------------------------------------------------- */
static pid_t some_worker(struct round *round)
{
    pid_t pids[SERVER_CHILDREN_MAX];
    size_t count = bench_find("doorbuster: worker", pids);
    return count > 0 ? pids[random_below(&round->random, (uint32_t)count)] : 0;
}

static void kill_pid(pid_t pid)
{
    if (pid > 0) { /* 0: it is dead already, of the round's other fault */
        kill(pid, SIGKILL);
        bench.kills++;
    }
}

static pid_t recorder(void)
{
    pid_t pid;
    return server_fixture_find(&bench.server, "doorbuster: recorder", &pid, 1) == 1 ? pid : 0;
}

static pid_t some_keeper(struct round *round)
{
    pid_t pids[SERVER_CHILDREN_MAX];
    size_t count = bench_find("doorbuster: keeper", pids);
    return count > 0 ? pids[random_below(&round->random, (uint32_t)count)] : 0;
}

static void kill_worker(struct round *round)
{
    kill_pid(some_worker(round));
}

static void kill_recorder(struct round *round)
{
    (void)round;
    kill_pid(recorder());
}

static void kill_keeper(struct round *round)
{
    kill_pid(some_keeper(round));
}

static void kill_redis(struct round *round)
{
    (void)round;
    kill_pid(bench_redis_pid());
}

static void kill_all_children(struct round *round)
{
    pid_t pids[SERVER_CHILDREN_MAX];
    unsigned server = random_below(&round->random, bench.server_count);
    size_t count = server_fixture_children(bench_server(server), pids, SERVER_CHILDREN_MAX);
    for (size_t i = 0; i < count; i++) {
        kill_pid(pids[i]);
    }
}

/* The supervisor too, and whoever watches over it starts it again. */
static void kill_everything(struct round *round)
{
    (void)round;
    bench_kill_everything();
    bench_start();
}

static void kill_supervisor(struct round *round)
{
    unsigned server = random_below(&round->random, bench.server_count);
    pid_t pids[SERVER_CHILDREN_MAX];
    size_t count = server_fixture_children(bench_server(server), pids, SERVER_CHILDREN_MAX);
    server_fixture_kill_supervisor(bench_server(server));
    assert_true(server_fixture_wait_gone(pids, count, LEAVE_MS)); /* they find out by themselves */
    bench_start_server(server);
}

/* One of two, with all its processes; it is started again a little later. */
static void kill_server(struct round *round)
{
    round->concerned = random_below(&round->random, bench.server_count);
    bench_kill_server(round->concerned);
}

static void start_server(struct round *round)
{
    bench_start_server(round->concerned);
}

static void stop_pid(pid_t pid)
{
    if (pid > 0) {
        bench_stop_process(pid);
    }
}

static void stop_worker(struct round *round)
{
    stop_pid(some_worker(round));
}

static void stop_recorder(struct round *round)
{
    (void)round;
    stop_pid(recorder());
}

/* Does somebody hold the writers' turn all the while? Writers give it back within a moment. */
static bool store_is_held(void)
{
    char path[sizeof bench.server.data + 32];
    int64_t deadline = deadline_in(HELD_MS);
    snprintf(path, sizeof path, "%s/doorbuster.db.lock", bench.server.data);
    int fd = open(path, O_RDWR | O_CLOEXEC);
    bool held = fd >= 0;
    while (held && flock(fd, LOCK_EX | LOCK_NB) != 0 && wait_a_moment(deadline)) {
    }
    held = held && flock(fd, LOCK_EX | LOCK_NB) != 0;
    if (fd >= 0) {
        close(fd);
    }
    return held;
}

static void stop_worker_for_long(struct round *round)
{
    stop_worker(round);
    round->fault_us = now_us();
    round->store_was_held = store_is_held();
}

static void stop_keeper(struct round *round)
{
    stop_pid(some_keeper(round));
}

static void stop_redis(struct round *round)
{
    (void)round;
    stop_pid(bench_redis_pid());
}

static void go_on(struct round *round)
{
    (void)round;
    bench_continue();
}

static void roll(struct round *round)
{
    int64_t deadline = deadline_in(ROLL_TIMEOUT_MS);
    unsigned i = random_below(&round->random, bench.server_count);
    struct server_fixture *server = bench_server(i);
    server->log_from = bench.log_seen[i]; /* the last "all workers replaced" was looked through */
    kill(server->pid, SIGHUP);
    while (!server_fixture_logged(server, "all workers replaced")) {
        if (!wait_a_moment(deadline)) {
            fail_msg("the workers were not replaced within %d ms", ROLL_TIMEOUT_MS);
        }
    }
}

/* --- by hand in Redis ---------------------------------------------------------------------------------- */
static void by_hand(const char *format, ...) __attribute__((format(printf, 1, 2)));
static void by_hand(const char *format, ...)
{
    char text[160], *parts[8], *rest;
    const char *argv[8];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    int count = 0;
    for (parts[0] = strtok_r(text, " ", &rest); parts[count] != NULL && count < 7;) {
        argv[count] = parts[count];
        count++;
        parts[count] = strtok_r(NULL, " ", &rest);
    }
    redisContext *redis = bench_connect();
    if (redis == NULL) {
        return; /* it is down, of the round's other fault */
    }
    freeReplyObject(redisCommandArgv(redis, count, argv, NULL));
    redisFree(redis);
}

static void flush_all(struct round *round)
{
    by_hand(random_below(&round->random, 2) ? "FLUSHALL SYNC" : "FLUSHALL ASYNC");
}

static void flush_db(struct round *round)
{
    (void)round;
    by_hand("FLUSHDB");
}

static void flush_scripts(struct round *round)
{
    (void)round;
    by_hand("SCRIPT FLUSH");
}

static int64_t some_product(struct round *round)
{
    return round->products[random_below(&round->random, 2)];
}

static void delete_stock(struct round *round)
{
    by_hand("DEL {doorbuster}:product:%" PRId64, some_product(round));
}

static void edit_stock_up(struct round *round)
{
    by_hand("HINCRBY {doorbuster}:product:%" PRId64 " stock %u", round->products[0],
            1 + random_below(&round->random, 50));
}

static void edit_stock_down(struct round *round)
{
    by_hand("HINCRBY {doorbuster}:product:%" PRId64 " stock -%u", round->products[1],
            1 + random_below(&round->random, 50));
}

static void delete_head(struct round *round)
{
    (void)round;
    by_hand("DEL {doorbuster}:head");
}

static void delete_log(struct round *round)
{
    (void)round;
    by_hand("DEL {doorbuster}:log");
}

/* --- the table ----------------------------------------------------------------------------------------- */
const struct fault faults[] = {
    {"kill-worker", ANY | REDLOCK, KILLS, NULL, kill_worker, NULL, 0, 0},
    {"kill-recorder", ONE, KILLS, NULL, kill_recorder, NULL, 0, 0},
    {"kill-redis", SPAWN, KILLS | FORGETS | REDIS_DIES | REDIS_PROCESS, NULL, kill_redis, NULL, 0, 0},
    {"kill-all-children", SPAWN, KILLS | FORGETS | REDIS_DIES | REDIS_PROCESS, NULL, kill_all_children, NULL,
     0, 0},
    {"kill-everything", ANY | REDLOCK, FORGETS | ALONE | REDIS_DIES | OUTLASTS_TTL, NULL, kill_everything,
     NULL, 0, 0},
    {"stop-worker", ANY | REDLOCK, NODES_KNOW, NULL, stop_worker, go_on, 100, 1500},
    {"stop-recorder", ONE, 0, NULL, stop_recorder, go_on, 100, 1500},
    {"stop-redis", FILES, REDIS_PROCESS, NULL, stop_redis, go_on, 100, 1500},
    {"flushall", ANY, FORGETS, NULL, flush_all, NULL, 0, 0},
    {"flushdb", ANY, FORGETS, NULL, flush_db, NULL, 0, 0},
    {"script-flush", ANY, 0, NULL, flush_scripts, NULL, 0, 0},
    {"stock-key-deleted", FILES, FORGETS | EDITED | ALONE, NULL, delete_stock, NULL, 0, 0},
    {"stock-key-edited-up", FILES, REJECTS | EDITED | ALONE, NULL, edit_stock_up, NULL, 0, 0},
    {"stock-key-edited-down", FILES, FORGETS | EDITED | ALONE, NULL, edit_stock_down, NULL, 0, 0},
    {"head-deleted", ANY, FORGETS, NULL, delete_head, NULL, 0, 0},
    {"log-deleted", ANY, FORGETS, NULL, delete_log, NULL, 0, 0},
    {"sighup", ANY | REDLOCK, STRICT | ALONE | NODES_KNOW, NULL, roll, NULL, 0, 0},
    {"redis-restart-empty", EXTERNAL | PROXY, FORGETS | REDIS_DIES | REDIS_PROCESS, NULL, restart_redis_empty,
     NULL, 0, 0},
    {"redis-restart-old-snapshot", EXTERNAL | PROXY, FORGETS | REDIS_DIES | REDIS_PROCESS, prepare_snapshot,
     restart_redis_old, NULL, 0, 0},
    {"redis-kill-aof-everysec", EXTERNAL | PROXY, FORGETS | REDIS_DIES | REDIS_PROCESS, prepare_everysec,
     restart_redis, NULL, 0, 0},
    {"redis-kill-aof-always", EXTERNAL | PROXY, FORGETS | REDIS_DIES | REDIS_PROCESS, prepare_always,
     restart_redis, NULL, 0, 0},
    {"redis-kill-nothing-kept", EXTERNAL | PROXY, FORGETS | REDIS_DIES | REDIS_PROCESS, prepare_nothing_kept,
     restart_redis, NULL, 0, 0},
    {"redis-kill-rdb", EXTERNAL | PROXY, FORGETS | REDIS_DIES | REDIS_PROCESS, prepare_rdb, restart_redis,
     NULL, 0, 0},
    {"aof-tail-cut", EXTERNAL | PROXY, FORGETS | REDIS_DIES | REDIS_PROCESS, prepare_always,
     restart_redis_cut, NULL, 0, 0},
    {"link-cut", PROXY, 0, NULL, link_cut, NULL, 0, 0},
    {"link-delay", PROXY, 0, NULL, link_delay, link_delay_over, 100, 800},
    {"link-cut-after-request", PROXY, 0, NULL, link_lose_answer, NULL, 0, 0},
    {"link-late-delivery", PROXY, 0, NULL, link_deliver_late, NULL, 0, 0},
    {"database-locked", FILES | REDLOCK, ALONE | NODES_KNOW, NULL, lock_database, unlock_database, 300, 1500},
    {"disk-full", FILES | REDLOCK, ALONE | NODES_KNOW, NULL, fill_disk, empty_disk, 300, 1500},
    /* of the Redlock gate */
    {"kill-keeper", REDLOCK, KILLS | NODES_KNOW, NULL, kill_keeper, NULL, 0, 0},
    {"kill-supervisor", REDLOCK | BOTH, OUTLASTS_TTL | TAKEN_OVER | ALONE, NULL, kill_supervisor, NULL, 0, 0},
    {"kill-server", NODES_OURS, OUTLASTS_TTL | TWO_SERVERS, NULL, kill_server, start_server, 100, 1500},
    {"kill-workers-and-keeper", NODES_OURS, KILLS, NULL, kill_all_children, NULL, 0, 0},
    {"kill-nodes-and-all-else", NODES_SPAWN, KILLS | OUTLASTS_TTL | REDIS_PROCESS, NULL, kill_all_children,
     NULL, 0, 0},
    {"stop-worker-past-ttl", REDLOCK, OUTLASTS_TTL | INSTANT | NODES_KNOW, NULL, stop_worker_for_long, go_on,
     LOCK_TTL_MS + 100, 2500},
    {"stop-keeper", REDLOCK, NO_PAUSE | NODES_KNOW, NULL, stop_keeper, go_on, 100, 1500},
    {"one-node-killed", REDLOCK, NODE_FAULT | STRICT, NULL, kill_one_node, launch_nodes, 20, 800},
    {"two-nodes-killed", REDLOCK, NODE_FAULT | STRICT, NULL, kill_two_nodes, launch_nodes, 20, 1500},
    {"three-nodes-killed", REDLOCK, REDIS_PROCESS | NO_MAJORITY | OUTLASTS_TTL, NULL, kill_three_nodes,
     launch_nodes, 20, 2500},
    {"one-node-stopped", REDLOCK, NODE_FAULT | STRICT | NODES_KNOW, NULL, stop_one_node, go_on, 100, 2500},
    {"two-nodes-stopped", REDLOCK, NODE_FAULT | STRICT | NODES_KNOW, NULL, stop_two_nodes, go_on, 100, 2500},
    {"three-nodes-stopped", REDLOCK, REDIS_PROCESS | NO_MAJORITY | OUTLASTS_TTL, NULL, stop_three_nodes,
     go_on, 100, 2500},
    {"two-nodes-late", NODES_OURS, NO_PAUSE | STRICT | NODES_KNOW, NULL, two_nodes_late, calm_nodes, 100,
     1500},
    {"all-nodes-late", NODES_OURS, OUTLASTS_TTL, NULL, all_nodes_late, calm_nodes, 100, 1500},
    {"two-nodes-silent", NODES_OURS, NO_PAUSE | STRICT | NODES_KNOW, NULL, two_nodes_silent, calm_nodes, 100,
     2500},
    {"three-nodes-silent", NODES_OURS, NO_MAJORITY | OUTLASTS_TTL, NULL, three_nodes_silent, calm_nodes, 100,
     2500},
    {"node-links-cut", NODES_OURS, 0, NULL, cut_nodes, NULL, 0, 0},
    {"node-answers-lost", NODES_OURS, OUTLASTS_TTL, NULL, lose_node_answers, NULL, 0, 0},
    {"node-calls-late", NODES_OURS, OUTLASTS_TTL, NULL, deliver_to_nodes_late, NULL, 0, 0},
    {"node-calls-twice", NODES_OURS, OUTLASTS_TTL, NULL, deliver_to_nodes_twice, NULL, 0, 0},
    {"server-partitioned", NODES_OURS, TWO_SERVERS | NO_MAJORITY | OUTLASTS_TTL, NULL, partition_server,
     calm_nodes, 1300, 3000},
    {"server-partitioned-for-long", NODES_OURS, TWO_SERVERS | NO_MAJORITY | OUTLASTS_TTL | ALONE, NULL,
     partition_server, calm_nodes, 6200, 7000},
    {"one-node-flushed", REDLOCK, NO_PAUSE | STRICT, NULL, flush_one_node, NULL, 0, 0},
    {"all-nodes-flushed", REDLOCK, 0, NULL, flush_all_nodes, NULL, 0, 0},
    {"figure-edited", REDLOCK, LIES | NO_PAUSE, NULL, edit_one_figure, NULL, 0, 0},
    {"figures-edited", REDLOCK, LIES | NO_PAUSE, NULL, edit_all_figures, NULL, 0, 0},
    {"locks-deleted", REDLOCK, NO_PAUSE | STRICT | NODES_KNOW, NULL, delete_locks, NULL, 0, 0},
    {"locks-taken", REDLOCK, NODES_KNOW, NULL, take_locks, NULL, 0, 0},
    /* of several servers */
    {"kill-recorders-host", BOTH, ONE_OF_TWO | IN_SHORT, NULL, kill_active_server, start_concerned_server,
     100, 3000},
    {"kill-other-host", BOTH, ONE_OF_TWO, NULL, kill_idle_server, start_concerned_server, 100, 3000},
    {"hand-over", BOTH, ONE_OF_TWO | IN_SHORT, NULL, hand_over, start_concerned_server, 100, 1500},
    {"kill-active-recorder", BOTH, KILLS, NULL, kill_active_recorder, NULL, 0, 0},
    {"kill-both-recorders", BOTH, KILLS | ALONE, NULL, kill_both_recorders, NULL, 0, 0},
    {"stop-active-recorder", BOTH, TAKEN_OVER, NULL, stop_active_recorder, go_on, 100, 1500},
    {"stop-active-recorder-past-lease", BOTH, TAKEN_OVER | INSTANT | IN_SHORT, NULL, stop_active_recorder,
     go_on, 1600, 4000},
    {"lease-deleted", BOTH, TAKEN_OVER, NULL, delete_lease, NULL, 0, 0},
    {"lease-stolen", BOTH, TAKEN_OVER, NULL, steal_lease, NULL, 0, 0},
    {"kill-master", CLUSTER, FAILOVER | IN_SHORT, NULL, kill_master, launch_redis, 100, 4000},
    {"stop-master", CLUSTER, FAILOVER, NULL, stop_master, go_on, 100, 4000},
    {"master-cut-off", CLUSTER, FAILOVER | IN_SHORT, NULL, cut_master_off, reconnect_master, 100, 6000},
    {"stop-replica", CLUSTER, REDIS_PROCESS, NULL, stop_replica, go_on, 100, 2000},
    {"failover-loses-writes", CLUSTER, FAILOVER | IN_SHORT, NULL, lose_writes, launch_redis, 1500, 4000},
    {"there-and-back", CLUSTER, FAILOVER | ALONE, NULL, there_and_back, launch_redis, 1500, 4000},
    {"failover-asked-for", CLUSTER, FAILOVER, NULL, ask_failover, NULL, 0, 0},
    {"kill-postgres", CLUSTER, IN_SHORT, NULL, kill_store, launch_store, 10, 1500},
    {"stop-postgres", CLUSTER, 0, NULL, stop_store, continue_store, 100, 2500},
    {"kill-session", CLUSTER, 0, NULL, kill_session, NULL, 0, 0},
    {"end-sessions", CLUSTER, 0, NULL, end_sessions, NULL, 0, 0},
    {"redis-calls-swallowed", BOTH, ONE_OF_TWO | IN_SHORT, NULL, redis_calls_swallowed, calm_links, 200,
     4000},
    {"redis-answers-swallowed", BOTH, ONE_OF_TWO, NULL, redis_answers_swallowed, calm_links, 200, 4000},
    {"redis-link-silent", BOTH, ONE_OF_TWO, NULL, redis_silent, calm_links, 200, 4000},
    {"redis-link-away", BOTH, ONE_OF_TWO, NULL, redis_away, calm_links, 200, 4000},
    {"store-calls-swallowed", CLUSTER, ONE_OF_TWO | IN_SHORT, NULL, store_calls_swallowed, calm_links, 200,
     4000},
    {"store-answers-swallowed", CLUSTER, ONE_OF_TWO, NULL, store_answers_swallowed, calm_links, 200, 4000},
    {"store-link-silent", CLUSTER, ONE_OF_TWO, NULL, store_silent, calm_links, 200, 4000},
    {"store-link-away", CLUSTER, ONE_OF_TWO, NULL, store_away, calm_links, 200, 4000},
    {"host-isolated", CLUSTER, ONE_OF_TWO, NULL, host_isolated, calm_links, 200, 6000},
    {"redis-links-cut", BOTH, 0, NULL, cut_redis_links, NULL, 0, 0},
    {"store-links-cut", CLUSTER, 0, NULL, cut_store_links, NULL, 0, 0},
    {"redis-answers-lost", BOTH, 0, NULL, lose_redis_answers, NULL, 0, 0},
    {"redis-calls-late", BOTH, 0, NULL, deliver_to_redis_late, NULL, 0, 0},
    {"commit-answers-lost", CLUSTER, 0, NULL, lose_commit_answers, NULL, 0, 0},
    {"commits-late", CLUSTER, 0, NULL, deliver_commits_late, NULL, 0, 0},
    {"none", ANY | REDLOCK, STRICT | ALONE | NODES_KNOW | IN_SHORT, NULL, fault_none, NULL, 0, 0},
};
const size_t fault_count = sizeof faults / sizeof faults[0];

const struct fault *fault_find(const char *name, size_t bytes)
{
    for (size_t i = 0; i < fault_count; i++) {
        if (strlen(faults[i].name) == bytes && memcmp(faults[i].name, name, bytes) == 0) {
            return &faults[i];
        }
    }
    return sweep_find(name, bytes);
}

const struct fault *fault_next(enum chaos_mode mode, size_t *at, bool short_sweep)
{
    while (*at < fault_count) {
        const struct fault *fault = &faults[(*at)++];
        if ((fault->modes & 1u << mode) != 0 && (!short_sweep || (fault->flags & IN_SHORT) != 0)) {
            return fault;
        }
    }
    return NULL;
}
