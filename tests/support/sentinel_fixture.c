/* See sentinel_fixture.h. The test process's main thread; owns the children and their folder. */
#include "sentinel_fixture.h"

#include "run.h"
#include "testing.h"
#include "tool.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define GROUP "shop"
#define AGAIN_MS 1000
#define WAIT_MS 15000

/* By a connection of its own; the reply must be one. */
static redisReply *ask(const struct sentinel_fixture *fixture, size_t sentinel, const char *command)
{
    struct redis_address address = {.host = "127.0.0.1", .port = fixture->sentinels[sentinel].port};
    char error[512];
    snprintf(address.login.password, sizeof address.login.password, "%s",
             fixture->sentinel_password != NULL ? fixture->sentinel_password : "");
    redisContext *redis = redis_connect_blocking(&address, 2000, error, sizeof error);
    if (redis == NULL) {
        return NULL;
    }
    redisReply *reply = redis_ask(redis, command);
    redisFree(redis);
    return reply;
}

static int64_t field(const redisReply *reply, const char *name)
{
    for (size_t i = 0; i + 1 < reply->elements; i += 2) {
        if (strcmp(reply->element[i]->str, name) == 0) {
            return strtoll(reply->element[i + 1]->str, NULL, 10);
        }
    }
    return -1;
}

static bool knows_all(const struct sentinel_fixture *fixture, size_t sentinel)
{
    redisReply *reply = ask(fixture, sentinel, "SENTINEL MASTER " GROUP);
    bool all = reply != NULL && field(reply, "num-slaves") == 1 &&
               field(reply, "num-other-sentinels") == SENTINELS - 1;
    freeReplyObject(reply);
    return all;
}

static const char *host_of(const struct sentinel_fixture *fixture)
{
    return fixture->host != NULL ? fixture->host : "127.0.0.1";
}

static void start_sentinel(struct sentinel_fixture *fixture, size_t i)
{
    char path[FOLDER_BYTES + 32];
    struct tcp_redis *sentinel = &fixture->sentinels[i];
    sentinel->port = free_port();
    snprintf(path, sizeof path, "%s/sentinel%zu.conf", fixture->folder, i);
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    fprintf(file,
            "port %d\nbind 127.0.0.1 -::1\ndir %s\nlogfile sentinel%zu.log\n"
            "sentinel monitor " GROUP " %s %d 2\nsentinel down-after-milliseconds " GROUP " 500\n"
            "sentinel failover-timeout " GROUP " 3000\n",
            sentinel->port, fixture->folder, i, host_of(fixture), fixture->redis[0].port);
    if (fixture->password != NULL) {
        fprintf(file, "sentinel auth-pass " GROUP " %s\n", fixture->password);
    }
    if (fixture->sentinel_password != NULL) {
        fprintf(file, "requirepass %s\nsentinel sentinel-pass %s\n", fixture->sentinel_password,
                fixture->sentinel_password);
    }
    fclose(file);
    sentinel->pid = program_start(LIST("/usr/bin/env", "redis-server", path, "--sentinel"), NULL,
                                  STDERR_FILENO, STDERR_FILENO);
    int64_t deadline = deadline_in(WAIT_MS);
    redisReply *reply;
    while ((reply = ask(fixture, i, "SENTINEL DEBUG INFO-PERIOD 100 PUBLISH-PERIOD 100 ASK-PERIOD 100")) ==
           NULL) { /* else they take seconds to find each other */
        assert_true(wait_a_moment(deadline));
    }
    freeReplyObject(reply);
}

void sentinel_fixture_start(struct sentinel_fixture *fixture)
{
    char port[16];
    const char *password = fixture->password != NULL ? fixture->password : "";
    folder_make(fixture->folder);
    tcp_redis_start(&fixture->redis[0], fixture->folder, "redis0", NULL);
    snprintf(port, sizeof port, "%d", fixture->redis[0].port);
    tcp_redis_start(&fixture->redis[1], fixture->folder, "redis1",
                    LIST("--replicaof", host_of(fixture), port));
    tcp_redis_await(fixture->redis[1].port, "master_link_status:up");
    for (int i = 1; i >= 0 && fixture->password != NULL; i--) {
        redisContext *redis = tcp_redis_connect(fixture->redis[i].port);
        assert_true(
            redis_done(redis_ask(redis, "CONFIG SET masterauth %s requirepass %s", password, password)));
        redisFree(redis);
    }
    int used = snprintf(fixture->url, sizeof fixture->url, "sentinel://" GROUP "@");
    const char *form = strchr(host_of(fixture), ':') != NULL ? "%s[%s]:%d" : "%s%s:%d";
    for (size_t i = 0; i < SENTINELS; i++) {
        start_sentinel(fixture, i);
        used += snprintf(fixture->url + used, sizeof fixture->url - (size_t)used, form, i > 0 ? "," : "",
                         host_of(fixture), fixture->sentinels[i].port);
    }
    int64_t deadline = deadline_in(WAIT_MS);
    for (size_t i = 0; i < SENTINELS; i++) {
        while (!knows_all(fixture, i)) {
            assert_true(wait_a_moment(deadline));
        }
    }
    /* A replica that was promoted is made a replica again by whoever has not heard of it for four of these. */
    for (size_t i = 0; i < SENTINELS; i++) {
        freeReplyObject(ask(fixture, i, "SENTINEL DEBUG PUBLISH-PERIOD 1000"));
    }
}

void sentinel_fixture_end(struct sentinel_fixture *fixture)
{
    for (size_t i = 0; i < SENTINELS; i++) {
        tcp_redis_kill(&fixture->sentinels[i]);
    }
    tcp_redis_kill(&fixture->redis[0]);
    tcp_redis_kill(&fixture->redis[1]);
    if (fixture->folder[0] != '\0') {
        folder_remove(fixture->folder);
    }
    *fixture = (struct sentinel_fixture){0};
}

static int master_by(const struct sentinel_fixture *fixture, size_t sentinel)
{
    redisReply *reply = fixture->sentinels[sentinel].pid != 0
                            ? ask(fixture, sentinel, "SENTINEL GET-MASTER-ADDR-BY-NAME " GROUP)
                            : NULL;
    int port = reply != NULL && reply->elements == 2 ? atoi(reply->element[1]->str) : 0;
    freeReplyObject(reply);
    return port;
}

int sentinel_fixture_master(const struct sentinel_fixture *fixture)
{
    int ports[SENTINELS];
    for (size_t i = 0; i < SENTINELS; i++) {
        ports[i] = master_by(fixture, i);
    }
    return ports[0] == ports[1] || ports[0] == ports[2] ? ports[0] : ports[1];
}

struct tcp_redis *sentinel_fixture_redis_at(struct sentinel_fixture *fixture, int port)
{
    return &fixture->redis[fixture->redis[1].port == port];
}

int sentinel_fixture_await_another(const struct sentinel_fixture *fixture, int port)
{
    int64_t deadline = deadline_in(WAIT_MS);
    int now;
    while ((now = sentinel_fixture_master(fixture)) == port || now == 0) {
        assert_true(wait_a_moment(deadline));
    }
    return now;
}

/* One that is asked for may come to nothing on a busy machine; asking is refused as long as one goes on. */
void sentinel_fixture_fail_over(struct sentinel_fixture *fixture)
{
    int old = sentinel_fixture_master(fixture);
    int64_t deadline = deadline_in(WAIT_MS), again_us = 0;
    while (master_by(fixture, 0) == old || sentinel_fixture_master(fixture) == old) {
        if (master_by(fixture, 0) == old && now_us() > again_us) {
            redisReply *begun = ask(fixture, 0, "SENTINEL FAILOVER " GROUP);
            again_us = begun != NULL ? deadline_in(AGAIN_MS) : 0;
            freeReplyObject(begun);
        }
        if (!wait_a_moment(deadline)) {
            fail_msg("no failover: %s", redis_failure());
        }
    }
    tcp_redis_await(old, "master_link_status:up");
}

void sentinel_fixture_deafen_replica(struct sentinel_fixture *fixture)
{
    int master = sentinel_fixture_master(fixture);
    int replica = fixture->redis[fixture->redis[0].port == master].port;
    int64_t deadline = deadline_in(WAIT_MS);
    tcp_redis_do(master, "SET heard all"); /* what came before this */
    while (strcmp(tcp_redis_do(replica, "GET heard"), "all") != 0) {
        assert_true(wait_a_moment(deadline));
    }
    tcp_redis_do(replica, "CONFIG SET masterauth nonsense");
    tcp_redis_do(master, "CLIENT KILL TYPE replica");
    tcp_redis_await(replica, "master_link_status:down");
}
