/* Faults of several servers that share a Redis and a store: of the one whose recorder is active, of the Redis that fails
 * over, of PostgreSQL, and of each server's links. See chaos_faults.c for when these functions run. */
#include "chaos.h"

#include "doorbuster/redis.h"

#include <stdio.h>

#define LEASE_MS 1500 /* the recorder's */
#define LATE_MS_MAX 800
#define FEW_CALLS_MAX 6
#define FEW_COMMITS_MAX 2
#define FAILOVER_MS 3000
#define BEHIND_MS_MAX 300 /* the replica hears of nothing for so long */
#define ACTIVE_IN 3       /* of so many server faults all but one concern the server that records */

static unsigned some_server(struct round *round)
{
    return random_below(&round->random, bench.server_count);
}

/* The one whose recorder is active; any, if none seems to be. */
static unsigned active_server(struct round *round)
{
    unsigned any = some_server(round), active = several_active();
    return active < bench.server_count ? active : any;
}

/* --- servers and recorders ------------------------------------------------------------------------------- */
void kill_active_server(struct round *round)
{
    round->concerned = active_server(round);
    bench_kill_server(round->concerned);
    round->fault_us = bench.killed_us;
}

void kill_idle_server(struct round *round)
{
    round->concerned = (active_server(round) + 1) % bench.server_count;
    bench_kill_server(round->concerned);
    round->fault_us = bench.killed_us;
}

/* Told to end, it lets go of the lease. Recovery counts from when it was told. */
void hand_over(struct round *round)
{
    round->concerned = active_server(round);
    server_fixture_stop(bench_server(round->concerned));
}

void start_concerned_server(struct round *round)
{
    bench_start_server(round->concerned);
}

static void kill_recorder_of(unsigned server)
{
    pid_t pid = several_recorder(server);
    if (pid > 0) {
        kill(pid, SIGKILL);
        bench.kills++;
    }
}

void kill_active_recorder(struct round *round)
{
    kill_recorder_of(active_server(round));
}

void kill_both_recorders(struct round *round)
{
    (void)round;
    for (unsigned i = 0; i < bench.server_count; i++) {
        kill_recorder_of(i);
    }
}

/* For longer than its lease: when it goes on, another one records. */
void stop_active_recorder(struct round *round)
{
    pid_t pid = several_recorder(active_server(round));
    if (pid > 0) {
        bench_stop_process(pid);
    }
}

/* As if it had run out: two may record for a moment, and the fence tells them apart. */
void delete_lease(struct round *round)
{
    redisContext *redis = several_connect();
    (void)round;
    if (redis != NULL) {
        freeReplyObject(redis_ask(redis, "DEL " LEASE_KEY));
        redisFree(redis);
    }
}

/* A stranger has it, who never records; it ends by itself. */
void steal_lease(struct round *round)
{
    redisContext *redis = several_connect();
    (void)round;
    if (redis != NULL) {
        freeReplyObject(redis_ask(redis, "SET " LEASE_KEY " a-stranger PX %d", LEASE_MS));
        redisFree(redis);
    }
}

/* --- Redis ------------------------------------------------------------------------------------------------ */
void kill_master(struct round *round)
{
    (void)round;
    cluster_kill_master();
}

/* What was killed comes back, as a replica if another one is the master by now. */
void launch_redis(struct round *round)
{
    (void)round;
    bench_continue();
    cluster_launch_redis();
}

void stop_master(struct round *round)
{
    pid_t pid = several_master_pid();
    (void)round;
    if (pid > 0) {
        bench_stop_process(pid);
    }
}

void stop_replica(struct round *round)
{
    pid_t pid = cluster_replica_pid();
    (void)round;
    if (pid > 0) {
        bench_stop_process(pid);
    }
}

/* The replica is stopped and its link is closed: what it has not read by then it never hears of. Then the master dies. */
void lose_writes(struct round *round)
{
    pid_t replica = cluster_replica_pid();
    redisContext *master = several_connect();
    if (replica > 0) {
        kill(replica, SIGSTOP);
    }
    if (master != NULL) {
        freeReplyObject(redisCommand(master, "CLIENT KILL TYPE replica"));
        redisFree(master);
    }
    buyers_for(20 + (int)random_below(&round->random, BEHIND_MS_MAX));
    round->fault_us = now_us();
    cluster_kill_master();
    if (replica > 0) {
        kill(replica, SIGCONT);
    }
}

/* The Sentinels take it for dead, and name its replica; servers still reach it, and it takes itself for the master. */
void cut_master_off(struct round *round)
{
    static const enum proxy_action ways[] = {PROXY_SILENT, PROXY_AWAY, PROXY_ANSWERS_SWALLOWED};
    cluster_cut_master_off(ways[random_below(&round->random, sizeof ways / sizeof ways[0])]);
}

void reconnect_master(struct round *round)
{
    (void)round;
    cluster_reconnect();
}

/* The master is stopped, its replica sells in its place and dies, and who was stopped goes on: with the scripts and the epoch from
 * before, and nothing of what was sold since. */
void there_and_back(struct round *round)
{
    int64_t deadline = deadline_in(FAILOVER_MS);
    stop_master(round);
    while (cluster_renamed_us() == 0 && wait_a_moment(deadline)) {
    }
    buyers_for((int)random_below(&round->random, BEHIND_MS_MAX));
    cluster_kill_master();
    cluster_watch();
    bench_continue();
    round->fault_us = now_us();
}

void ask_failover(struct round *round)
{
    cluster_ask_failover();
    round->fault_us = now_us();
}

/* --- PostgreSQL -------------------------------------------------------------------------------------------- */
void kill_store(struct round *round)
{
    (void)round;
    cluster_kill_store();
}

void launch_store(struct round *round)
{
    (void)round;
    cluster_launch_store();
}

void stop_store(struct round *round)
{
    (void)round;
    cluster_stop_store();
}

void continue_store(struct round *round)
{
    (void)round;
    cluster_continue_store();
}

/* kill -9 of one of its processes: it ends all sessions, and recovers. Sales can go on from then. */
void kill_session(struct round *round)
{
    pid_t pids[SERVER_CHILDREN_MAX];
    size_t count = cluster_sessions(pids);
    if (count > 0) {
        kill(pids[random_below(&round->random, (uint32_t)count)], SIGKILL);
        cluster_await_recovery();
        round->fault_us = now_us();
    }
}

/* As an administrator does it: pg_terminate_backend(). */
void end_sessions(struct round *round)
{
    pid_t pids[SERVER_CHILDREN_MAX];
    size_t count = cluster_sessions(pids);
    (void)round;
    for (size_t i = 0; i < count; i++) {
        kill(pids[i], SIGTERM);
    }
}

/* --- links ------------------------------------------------------------------------------------------------- */
/* Of one server, mostly of the one that records. The other one goes on. */
static void fail_links(struct round *round, unsigned links, enum proxy_action action)
{
    unsigned active = active_server(round);
    bool other = random_below(&round->random, ACTIVE_IN) == 0;
    round->concerned = other ? (active + 1) % bench.server_count : active;
    several_links_do(round->concerned, links, action, 0, 1);
    round->fault_us = now_us();
}

void redis_calls_swallowed(struct round *round)
{
    fail_links(round, LINKS_TO_REDIS, PROXY_CALLS_SWALLOWED);
}

void redis_answers_swallowed(struct round *round)
{
    fail_links(round, LINKS_TO_REDIS, PROXY_ANSWERS_SWALLOWED);
}

void redis_silent(struct round *round)
{
    fail_links(round, LINKS_TO_REDIS, PROXY_SILENT);
}

void redis_away(struct round *round)
{
    fail_links(round, LINKS_TO_REDIS, PROXY_AWAY);
}

void store_calls_swallowed(struct round *round)
{
    fail_links(round, LINKS_TO_STORE, PROXY_CALLS_SWALLOWED);
}

void store_answers_swallowed(struct round *round)
{
    fail_links(round, LINKS_TO_STORE, PROXY_ANSWERS_SWALLOWED);
}

void store_silent(struct round *round)
{
    fail_links(round, LINKS_TO_STORE, PROXY_SILENT);
}

void store_away(struct round *round)
{
    fail_links(round, LINKS_TO_STORE, PROXY_AWAY);
}

/* It reaches nothing, or hears nothing, or both. */
void host_isolated(struct round *round)
{
    static const enum proxy_action ways[] = {PROXY_CALLS_SWALLOWED, PROXY_ANSWERS_SWALLOWED, PROXY_SILENT};
    fail_links(round, LINKS_TO_REDIS | LINKS_TO_STORE,
               ways[random_below(&round->random, sizeof ways / sizeof ways[0])]);
}

void calm_links(struct round *round)
{
    (void)round;
    several_links_do(SERVERS_MAX, LINKS_TO_REDIS | LINKS_TO_STORE, PROXY_CALM, 0, 0);
}

static unsigned one_or_all(struct round *round)
{
    unsigned server = random_below(&round->random, bench.server_count + 1);
    return server < bench.server_count ? server : SERVERS_MAX;
}

static int few_calls(struct round *round)
{
    return 1 + (int)random_below(&round->random, FEW_CALLS_MAX);
}

static int late_ms(struct round *round)
{
    return 1 + (int)random_below(&round->random, LATE_MS_MAX);
}

void cut_redis_links(struct round *round)
{
    several_links_do(one_or_all(round), LINKS_TO_REDIS, PROXY_CUT, 0, 0);
}

void cut_store_links(struct round *round)
{
    several_links_do(one_or_all(round), LINKS_TO_STORE, PROXY_CUT, 0, 0);
}

void lose_redis_answers(struct round *round)
{
    several_links_do(SERVERS_MAX, LINKS_TO_REDIS, PROXY_LOSE_ANSWER, 0, few_calls(round));
}

void deliver_to_redis_late(struct round *round)
{
    int ms = late_ms(round);
    several_links_do(SERVERS_MAX, LINKS_TO_REDIS, PROXY_DELIVER_LATE, ms, few_calls(round));
}

/* What a COMMIT did its sender does not hear; or it is carried out when its sender has long gone. */
void lose_commit_answers(struct round *round)
{
    several_links_do(SERVERS_MAX, LINKS_TO_STORE, PROXY_LOSE_ANSWER, 0,
                     1 + (int)random_below(&round->random, FEW_COMMITS_MAX));
}

void deliver_commits_late(struct round *round)
{
    int ms = late_ms(round);
    several_links_do(SERVERS_MAX, LINKS_TO_STORE, PROXY_DELIVER_LATE, ms,
                     1 + (int)random_below(&round->random, FEW_COMMITS_MAX));
}
