/* See redis_fixture.h. The test process; owns the child and its folder; kills nothing but the child's
 * recorded pid. */
#include "redis_fixture.h"

#include "run.h"
#include "testing.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define START_TIMEOUT_MS 10000

void redis_fixture_launch(struct redis_fixture *fixture, enum redis_persistence persistence)
{
    bool aof = persistence == REDIS_AOF_EVERYSEC || persistence == REDIS_AOF_ALWAYS;
    const char *const argv[] = {"/usr/bin/env",
                                "redis-server",
                                "--port",
                                "0",
                                "--unixsocket",
                                fixture->address.path,
                                "--dir",
                                fixture->folder,
                                "--save",
                                persistence == REDIS_RDB ? "1 1" : "",
                                "--appendonly",
                                aof ? "yes" : "no",
                                "--appendfsync",
                                persistence == REDIS_AOF_EVERYSEC ? "everysec" : "always",
                                "--maxmemory-policy",
                                "noeviction",
                                "--logfile",
                                "redis.log",
                                NULL};
    fixture->pid = program_start(argv, NULL, STDERR_FILENO, STDERR_FILENO);
}

bool redis_fixture_answers(const struct redis_fixture *fixture)
{
    char error[512];
    redisContext *redis = redis_connect_blocking(&fixture->address, 1000, error, sizeof error);
    bool answers = redis != NULL && redis_done(redis_ask(redis, "PING"));
    if (redis != NULL) {
        redisFree(redis);
    }
    return answers;
}

static void start(struct redis_fixture *fixture, bool persistent)
{
    redis_fixture_launch(fixture, persistent ? REDIS_AOF_ALWAYS : REDIS_NOTHING_KEPT);
    int64_t deadline = deadline_in(START_TIMEOUT_MS);
    while (!redis_fixture_answers(fixture)) {
        if (!wait_a_moment(deadline)) {
            fail_msg("redis-server does not answer: %s", redis_failure());
        }
    }
}

void redis_fixture_begin(struct redis_fixture *fixture)
{
    *fixture = (struct redis_fixture){0};
    folder_make(fixture->folder);
    snprintf(fixture->address.path, sizeof fixture->address.path, "%s/redis.sock", fixture->folder);
}

void redis_fixture_start(struct redis_fixture *fixture, bool persistent)
{
    redis_fixture_begin(fixture);
    start(fixture, persistent);
}

redisContext *redis_fixture_connect(const struct redis_fixture *fixture)
{
    char error[512];
    redisContext *redis = redis_connect_blocking(&fixture->address, 5000, error, sizeof error);
    if (redis == NULL) {
        fail_msg("%s", error);
    }
    return redis;
}

void redis_fixture_kill(struct redis_fixture *fixture)
{
    kill(fixture->pid, SIGKILL);
    waitpid(fixture->pid, NULL, 0);
    fixture->pid = 0;
}

void redis_fixture_restart(struct redis_fixture *fixture)
{
    start(fixture, true);
}

void redis_fixture_freeze(const struct redis_fixture *fixture)
{
    kill(fixture->pid, SIGSTOP);
}

void redis_fixture_thaw(const struct redis_fixture *fixture)
{
    kill(fixture->pid, SIGCONT);
}

void redis_fixture_end(struct redis_fixture *fixture)
{
    if (fixture->pid != 0) {
        redis_fixture_kill(fixture);
    }
    if (fixture->folder[0] != '\0') {
        folder_remove(fixture->folder);
    }
    fixture->folder[0] = '\0';
}

void redis_do(redisContext *redis, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    redisReply *reply = redisvCommand(redis, format, arguments);
    va_end(arguments);
    if (reply == NULL || reply->type == REDIS_REPLY_ERROR) {
        fail_msg("%s: %s", format, reply != NULL ? reply->str : redis->errstr);
    }
    freeReplyObject(reply);
}
