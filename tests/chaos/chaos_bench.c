/* The bench: a store's folder, the server on it, and the Redis it talks to.
 *
 *   spawn         the server runs its private Redis
 *   external      a redis-server of ours on a Unix socket, restarted by us
 *   proxy         the same, through a proxy that fails on demand
 *   nodes         five redis-servers of ours for the Redlock gate, each behind a proxy; sometimes a second server on
 *                 the same store and nodes, with proxies of its own
 *   nodes-spawn   the server runs its private nodes
 *   several       two servers with the Lua gate on a redis-server of ours and one file
 *   cluster       the same on a Redis with a replica and Sentinels, and on PostgreSQL
 *
 * Signals go to recorded pids only: the supervisors, their children as /proc shows them, our own Redis and proxies. */
#include "chaos.h"

#include "run.h"

#include "doorbuster/redis.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define VERIFY_TIMEOUT_MS 60000
#define LEAVE_MS 20000
#define REDIS_TIMEOUT_MS 5000
#define TMPFS_OPTIONS "size=256m,mode=0700"
#define READY_ANSWERS 4
#define PORT_FIRST 12000
#define PORTS 20000
#define TTL_SETTING "LOCK_TIMEOUT_SECONDS=1" /* LOCK_TTL_MS */

const char *const mode_names[MODES] = {"spawn",       "external", "proxy",  "nodes",
                                       "nodes-spawn", "several",  "cluster"};
struct bench bench;

/* --- Redis of ours ------------------------------------------------------------------------------------- */
static void wait_for_redis(void)
{
    int64_t deadline = deadline_in(PATIENCE_MS);
    while (!redis_fixture_answers(&bench.redis)) {
        if (!wait_a_moment(deadline)) {
            fail_msg("the external redis-server does not answer");
        }
    }
}

void bench_redis_launch(enum redis_persistence persistence)
{
    redis_fixture_launch(&bench.redis, persistence);
    bench.persistence = persistence;
    wait_for_redis();
}

void bench_redis_kill(void)
{
    redis_fixture_kill(&bench.redis);
}

static void ensure_redis(void)
{
    if (!bench.has_redis) {
        redis_fixture_begin(&bench.redis);
        bench.has_redis = true;
        snprintf(bench.proxy_path, sizeof bench.proxy_path, "%s/proxy.sock", bench.redis.folder);
        snprintf(bench.snapshot, sizeof bench.snapshot, "%s/old.rdb", bench.redis.folder);
    }
    if (bench.redis.pid == 0) {
        bench_redis_launch(REDIS_AOF_EVERYSEC);
    }
}

static bool rewrite_is_over(redisContext *redis)
{
    redisReply *reply = redis_ask(redis, "INFO persistence");
    bool over = reply != NULL && strstr(reply->str, "aof_rewrite_in_progress:0") != NULL &&
                strstr(reply->str, "aof_rewrite_scheduled:0") != NULL;
    freeReplyObject(reply);
    return over;
}

void bench_set_persistence(enum redis_persistence persistence)
{
    bool aof = persistence == REDIS_AOF_EVERYSEC || persistence == REDIS_AOF_ALWAYS;
    redisContext *redis = redis_fixture_connect(&bench.redis);
    int64_t deadline = deadline_in(PATIENCE_MS);
    redis_do(redis, "CONFIG SET appendonly %s", aof ? "yes" : "no");
    redis_do(redis, "CONFIG SET appendfsync %s", persistence == REDIS_AOF_ALWAYS ? "always" : "everysec");
    redis_do(redis, "CONFIG SET save %s", persistence == REDIS_RDB ? "1 1" : "");
    while (!rewrite_is_over(redis)) {
        assert_true(wait_a_moment(deadline));
    }
    redisFree(redis);
    bench.persistence = persistence;
}

redisContext *bench_connect(void)
{
    struct redis_address address = bench.redis.address;
    char error[512];
    if (is_several(bench.mode)) {
        return several_connect();
    }
    if (bench.mode == MODE_SPAWN) {
        address = (struct redis_address){0};
        snprintf(address.path, sizeof address.path, "%s/redis.sock", bench.server.data);
    }
    return redis_connect_blocking(&address, REDIS_TIMEOUT_MS, error, sizeof error);
}

pid_t bench_redis_pid(void)
{
    return bench.mode == MODE_SPAWN ? server_fixture_child(&bench.server, "redis-server")
           : is_several(bench.mode) ? several_master_pid()
                                    : bench.redis.pid;
}

/* --- the servers --------------------------------------------------------------------------------------- */
struct server_fixture *bench_server(unsigned server)
{
    return server == 0 ? &bench.server : &bench.second;
}

/* Below those that the kernel gives to whoever connects: nobody takes it while the server is down. */
uint16_t bench_free_port(void)
{
    static uint64_t random;
    struct sockaddr_in where = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int64_t deadline = deadline_in(PATIENCE_MS);
    random = random != 0 ? random : (uint64_t)now_us() ^ (uint64_t)getpid();
    for (bool free = false; !free;) {
        assert_true(now_us() < deadline);
        where.sin_port = htons((uint16_t)(PORT_FIRST + random_below(&random, PORTS)));
        int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        assert_true(fd >= 0);
        free = bind(fd, (struct sockaddr *)&where, sizeof where) == 0;
        close(fd);
    }
    return ntohs(where.sin_port);
}

void bench_start_server(unsigned server)
{
    struct server_fixture *fixture = bench_server(server);
    if (fixture->wanted_port == 0) {
        fixture->wanted_port = bench_free_port();
    }
    const char *nodes = bench.mode == MODE_NODES ? bench.node_lists[server] : "spawn";
    const char *const lua[] = {"--redis", bench.redis_url, NULL};
    const char *const several[] = {"--redis", several_redis_url(server), "--store", several_store_url(server),
                                   NULL};
    const char *const redlock[] = {"--gate",           "redlock", "--redlock-nodes", nodes, "--store",
                                   fixture->store_url, NULL};
    char points[FOLDER_BYTES + 64];
    snprintf(points, sizeof points, "DOORBUSTER_FAILPOINT_FILE=%s", bench.failpoints);
    const char *const environment[] = {points, TTL_SETTING, NULL};
    server_fixture_start(fixture, options.workers,
                         is_redlock(bench.mode)   ? redlock
                         : is_several(bench.mode) ? several
                                                  : lua,
                         environment);
}

void bench_start(void)
{
    for (unsigned i = 0; i < bench.server_count; i++) {
        bench_start_server(i);
    }
    bench.kills = 0;
}

void bench_stop(void)
{
    buyers_close();
    for (unsigned i = 0; i < bench.server_count; i++) {
        server_fixture_stop(bench_server(i));
    }
}

/* It shares the first one's store. */
static void ensure_second(void)
{
    if (bench.second.folder[0] == '\0') {
        server_fixture_begin(&bench.second);
        bench.second.bug_lines_allowed = true;
        memcpy(bench.second.store_url, bench.server.store_url, sizeof bench.second.store_url);
    }
}

void bench_switch(enum chaos_mode mode, unsigned servers)
{
    if (bench.server.pid > 0) {
        bench_stop();
    }
    proxy_end(&bench.proxy);
    bench.mode = mode;
    bench.server_count = servers;
    if (servers > 1) {
        ensure_second();
    }
    if (mode == MODE_NODES) {
        nodes_start();
    }
    snprintf(bench.redis_url, sizeof bench.redis_url, "spawn");
    if (mode == MODE_EXTERNAL || mode == MODE_PROXY || mode == MODE_SEVERAL) {
        ensure_redis();
        snprintf(bench.redis_url, sizeof bench.redis_url, "unix:%s", bench.redis.address.path);
    }
    if (mode == MODE_PROXY) {
        proxy_start(&bench.proxy, bench.proxy_path, bench.redis.address.path);
        snprintf(bench.redis_url, sizeof bench.redis_url, "unix:%s", bench.proxy_path);
    }
    if (is_several(mode)) {
        several_start();
    }
    bench_start();
}

void bench_begin(bool small_disk)
{
    bench = (struct bench){0};
    server_fixture_begin(&bench.server);
    bench.server.bug_lines_allowed = true; /* bench_log_bug() looks for them */
    bench.there = true;
    snprintf(bench.failpoints, sizeof bench.failpoints, "%s/failpoints", bench.server.folder);
    assert_int_equal(mkdir(bench.server.data, 0700), 0);
    bench.tmpfs = small_disk && mount("chaos", bench.server.data, "tmpfs", 0, TMPFS_OPTIONS) == 0;
}

/* --- processes ----------------------------------------------------------------------------------------- */
/* False: some of it is still there after a while. */
static bool put_server_down(struct server_fixture *server)
{
    pid_t children[SERVER_CHILDREN_MAX];
    kill(server->pid, SIGSTOP); /* it starts nobody any more */
    size_t count = server_fixture_children(server, children, SERVER_CHILDREN_MAX);
    for (size_t i = 0; i < count; i++) {
        kill(children[i], SIGKILL);
    }
    bench.killed_us = now_us();
    server_fixture_kill_supervisor(server);
    return server_fixture_wait_gone(children, count, LEAVE_MS);
}

void bench_kill_server(unsigned server)
{
    assert_true(put_server_down(bench_server(server)));
}

void bench_kill_everything(void)
{
    for (unsigned i = 0; i < bench.server_count; i++) {
        bench_kill_server(i);
    }
}

void bench_stop_process(pid_t pid)
{
    assert_true(bench.stopped_count < SERVER_CHILDREN_MAX);
    bench.stopped[bench.stopped_count++] = pid;
    kill(pid, SIGSTOP);
}

void bench_continue(void)
{
    while (bench.stopped_count > 0) {
        kill(bench.stopped[--bench.stopped_count], SIGCONT);
    }
}

size_t bench_find(const char *title, pid_t pids[SERVER_CHILDREN_MAX])
{
    size_t count = 0;
    for (unsigned i = 0; i < bench.server_count; i++) {
        count += server_fixture_find(bench_server(i), title, pids + count, SERVER_CHILDREN_MAX - count);
    }
    return count;
}

static size_t count_children(const char *title)
{
    pid_t pids[SERVER_CHILDREN_MAX];
    return bench_find(title, pids);
}

/* The one process of a server that brings the books together. */
static const char *keeper_title(void)
{
    return is_redlock(bench.mode) ? "doorbuster: keeper" : "doorbuster: recorder";
}

static size_t private_redis_count(void)
{
    return bench.mode == MODE_SPAWN ? 1 : bench.mode == MODE_NODES_SPAWN ? NODES : 0;
}

/* Asked several times, for each worker has links of its own. */
static bool all_nodes_vote(void)
{
    char body[4096];
    for (unsigned i = 0; i < bench.server_count * READY_ANSWERS; i++) {
        if (server_fixture_get(bench_server(i % bench.server_count), "/health/ready", body, sizeof body) !=
                200 ||
            strstr(body, "\"missing\":[]") == NULL) {
            return false;
        }
    }
    return true;
}

bool bench_is_calm(void)
{
    return count_children("doorbuster: worker") == (size_t)options.workers * bench.server_count &&
           count_children(keeper_title()) == bench.server_count &&
           count_children("redis-server") == private_redis_count() &&
           (!is_redlock(bench.mode) || all_nodes_vote()) && (!is_several(bench.mode) || several_calm());
}

static void check_supervisors(void)
{
    for (unsigned i = 0; i < bench.server_count; i++) {
        struct server_fixture *server = bench_server(i);
        int status;
        if (waitpid(server->pid, &status, WNOHANG) == server->pid) {
            server->pid = 0;
            fail_msg("the supervisor of server %u has gone (status %#x)", i + 1, (unsigned)status);
        }
    }
}

void bench_wait_calm(void)
{
    int64_t deadline = deadline_in(PATIENCE_MS);
    while (!bench_is_calm()) {
        check_supervisors();
        if (!wait_a_moment(deadline)) {
            fail_msg(
                "%zu workers, %zu of \"%s\", %zu private Redis run instead of %u, %u and %zu, or not all "
                "nodes vote, or nobody records, or Redis or the store is not whole",
                count_children("doorbuster: worker"), count_children(keeper_title()), keeper_title(),
                count_children("redis-server"), options.workers * bench.server_count, bench.server_count,
                private_redis_count());
        }
    }
}

void bench_end(void)
{
    wait_with(NULL);
    buyers_forget();
    if (!bench.there) {
        return;
    }
    bench.there = false;
    sweep_end();
    bench_continue();
    for (unsigned i = 0; i < SERVERS_MAX; i++) {
        if (bench_server(i)->pid > 0) {
            put_server_down(bench_server(i)); /* never asserts: also called when an assertion has failed */
        }
    }
    proxy_end(&bench.proxy);
    nodes_end();
    several_end();
    if (bench.has_redis) {
        redis_fixture_end(&bench.redis);
    }
    if (bench.tmpfs) {
        umount2(bench.server.data, MNT_DETACH);
    }
    server_fixture_end(&bench.server);
    if (bench.second.folder[0] != '\0') {
        server_fixture_end(&bench.second);
    }
}

/* --- looking at it ------------------------------------------------------------------------------------- */
static bool is_bug(const char *line)
{
    static const char *const marks[] = {
        "Sanitizer",   "runtime error:", "doorbuster: bug:",      "(signal 6)",
        "(signal 11)", "(signal 7)",     "does not end; killing", "CHECK"};
    for (size_t i = 0; i < sizeof marks / sizeof marks[0]; i++) {
        if (strstr(line, marks[i]) != NULL) {
            return true;
        }
    }
    return false;
}

static bool find_bug(unsigned server, char bug[SENTENCE_BYTES])
{
    static char line[SENTENCE_BYTES];
    FILE *file = fopen(bench_server(server)->log_path, "r");
    bool found = false;
    if (file == NULL) {
        return false;
    }
    fseek(file, bench.log_seen[server], SEEK_SET);
    while (fgets(line, sizeof line, file) != NULL) {
        if (!found && is_bug(line)) {
            found = true;
            line[strcspn(line, "\n")] = '\0';
            memcpy(bug, line, sizeof line);
        }
    }
    bench.log_seen[server] = ftell(file);
    fclose(file);
    return found;
}

const char *bench_log_bug(void)
{
    static char bug[SENTENCE_BYTES];
    bool found = false;
    for (unsigned i = 0; i < bench.server_count; i++) {
        found = find_bug(i, bug) || found;
    }
    return found ? bug : NULL;
}

char *bench_verify(int *exit_code)
{
    char url[REDIS_URL_BYTES] = "spawn"; /* past the proxies */
    if (bench.mode == MODE_EXTERNAL || bench.mode == MODE_PROXY) {
        snprintf(url, sizeof url, "unix:%s", bench.redis.address.path);
    }
    if (is_several(bench.mode)) {
        snprintf(url, sizeof url, "%s", several_redis_url(SERVERS_MAX));
    }
    for (size_t i = 0, used = 0; bench.mode == MODE_NODES && i < NODES; i++) {
        used += (size_t)snprintf(url + used, sizeof url - used, "%sunix:%s", i > 0 ? "," : "",
                                 bench.nodes[i].address.path);
    }
    const char *const argv[] = {program_path("verify"),
                                "--data",
                                bench.server.data,
                                "--store",
                                bench.server.store_url,
                                is_redlock(bench.mode) ? "--redlock-nodes" : "--redis",
                                url,
                                "--gate",
                                is_redlock(bench.mode) ? "redlock" : "lua",
                                NULL};
    struct run_result result = program_run(argv, NULL, VERIFY_TIMEOUT_MS);
    size_t room = strlen(result.out) + strlen(result.err) + 1;
    char *text = malloc(room);
    assert_non_null(text);
    snprintf(text, room, "%s%s", result.out, result.err);
    *exit_code = result.exit_code;
    run_result_free(&result);
    return text;
}
