/* The bench: a store's folder, the server on it, and the Redis it talks to.
 *
 *   spawn      the server runs its private Redis
 *   external   a redis-server of ours on a Unix socket, restarted by us
 *   proxy      the same, through a proxy that fails on demand
 *
 * Signals go to recorded pids only: the supervisor, its children as /proc shows them, our own Redis and proxy. */
#include "chaos.h"

#include "run.h"

#include "doorbuster/redis.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define VERIFY_TIMEOUT_MS 60000
#define LEAVE_MS 20000
#define REDIS_TIMEOUT_MS 5000
#define TMPFS_OPTIONS "size=256m,mode=0700"

const char *const mode_names[MODES] = {"spawn", "external", "proxy"};
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
    if (bench.mode == MODE_SPAWN) {
        address = (struct redis_address){0};
        snprintf(address.path, sizeof address.path, "%s/redis.sock", bench.server.data);
    }
    return redis_connect_blocking(&address, REDIS_TIMEOUT_MS, error, sizeof error);
}

pid_t bench_redis_pid(void)
{
    return bench.mode == MODE_SPAWN ? server_fixture_child(&bench.server, "redis-server") : bench.redis.pid;
}

/* --- the server ---------------------------------------------------------------------------------------- */
void bench_start(void)
{
    char points[FOLDER_BYTES + 64];
    snprintf(points, sizeof points, "DOORBUSTER_FAILPOINT_FILE=%s", bench.failpoints);
    const char *const arguments[] = {"--redis", bench.redis_url, NULL};
    const char *const environment[] = {points, NULL};
    server_fixture_start(&bench.server, options.workers, arguments, environment);
    bench.server.wanted_port = bench.server.port;
    bench.kills = 0;
}

void bench_stop(void)
{
    buyers_close();
    server_fixture_stop(&bench.server);
}

void bench_switch(enum chaos_mode mode)
{
    if (bench.server.pid > 0) {
        bench_stop();
    }
    proxy_end(&bench.proxy);
    bench.mode = mode;
    snprintf(bench.redis_url, sizeof bench.redis_url, "spawn");
    if (mode != MODE_SPAWN) {
        ensure_redis();
        snprintf(bench.redis_url, sizeof bench.redis_url, "unix:%s", bench.redis.address.path);
    }
    if (mode == MODE_PROXY) {
        proxy_start(&bench.proxy, bench.proxy_path, bench.redis.address.path);
        snprintf(bench.redis_url, sizeof bench.redis_url, "unix:%s", bench.proxy_path);
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
void bench_kill_everything(void)
{
    pid_t children[SERVER_CHILDREN_MAX];
    size_t count = server_fixture_children(&bench.server, children, SERVER_CHILDREN_MAX);
    server_fixture_kill_supervisor(&bench.server);
    for (size_t i = 0; i < count; i++) {
        kill(children[i], SIGKILL);
    }
    assert_true(server_fixture_wait_gone(children, count, LEAVE_MS));
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

static size_t count_children(const char *title)
{
    pid_t pids[SERVER_CHILDREN_MAX];
    return server_fixture_find(&bench.server, title, pids, SERVER_CHILDREN_MAX);
}

bool bench_is_calm(void)
{
    return count_children("doorbuster: worker") == options.workers &&
           count_children("doorbuster: recorder") == 1 &&
           count_children("redis-server") == (bench.mode == MODE_SPAWN);
}

void bench_wait_calm(void)
{
    int64_t deadline = deadline_in(PATIENCE_MS);
    while (!bench_is_calm()) {
        int status;
        if (waitpid(bench.server.pid, &status, WNOHANG) == bench.server.pid) {
            bench.server.pid = 0;
            fail_msg("the supervisor has gone (status %#x)", (unsigned)status);
        }
        if (!wait_a_moment(deadline)) {
            fail_msg("%zu workers, %zu recorders, %zu private Redis run instead of %u, 1 and %d",
                     count_children("doorbuster: worker"), count_children("doorbuster: recorder"),
                     count_children("redis-server"), options.workers, bench.mode == MODE_SPAWN);
        }
    }
}

/* Never asserts: also called when an assertion has failed. */
static void put_server_down(void)
{
    pid_t children[SERVER_CHILDREN_MAX];
    size_t count = server_fixture_children(&bench.server, children, SERVER_CHILDREN_MAX);
    server_fixture_kill_supervisor(&bench.server);
    for (size_t i = 0; i < count; i++) {
        kill(children[i], SIGKILL);
    }
    server_fixture_wait_gone(children, count, LEAVE_MS);
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
    if (bench.server.pid > 0) {
        put_server_down();
    }
    proxy_end(&bench.proxy);
    if (bench.has_redis) {
        redis_fixture_end(&bench.redis);
    }
    if (bench.tmpfs) {
        umount2(bench.server.data, MNT_DETACH);
    }
    server_fixture_end(&bench.server);
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

const char *bench_log_bug(void)
{
    static char line[SENTENCE_BYTES], bug[SENTENCE_BYTES];
    FILE *file = fopen(bench.server.log_path, "r");
    bool found = false;
    if (file == NULL) {
        return NULL;
    }
    fseek(file, bench.log_seen, SEEK_SET);
    while (fgets(line, sizeof line, file) != NULL) {
        if (!found && is_bug(line)) {
            found = true;
            line[strcspn(line, "\n")] = '\0';
            memcpy(bug, line, sizeof bug);
        }
    }
    bench.log_seen = ftell(file);
    fclose(file);
    return found ? bug : NULL;
}

char *bench_verify(int *exit_code)
{
    char url[128] = "spawn"; /* past the proxy */
    if (bench.mode != MODE_SPAWN) {
        snprintf(url, sizeof url, "unix:%s", bench.redis.address.path);
    }
    const char *const argv[] = {program_path("verify"), "--data", bench.server.data, "--redis", url, NULL};
    struct run_result result = program_run(argv, NULL, VERIFY_TIMEOUT_MS);
    size_t room = strlen(result.out) + strlen(result.err) + 1;
    char *text = malloc(room);
    assert_non_null(text);
    snprintf(text, room, "%s%s", result.out, result.err);
    *exit_code = result.exit_code;
    run_result_free(&result);
    return text;
}
