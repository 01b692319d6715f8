/* See tcp_redis.h. The test process's main thread; owns the children, which are ended by their recorded pids. */
#include "tcp_redis.h"

#include "run.h"
#include "testing.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define START_MS 10000
#define ARGUMENTS_MAX 48
#define TEXTS 4
#define PORT_FIRST 20000
#define PORTS 12000
#define TEXT_BYTES 8192

/* Below those that the system gives to connections, which might take one before the server does; another place for each test process. */
int free_port(void)
{
    static int tried;
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    for (;;) {
        int port = PORT_FIRST + (int)((unsigned)(getpid() * 61 + tried++) % PORTS);
        int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        at.sin_port = htons((uint16_t)port);
        bool is_free = bind(fd, (struct sockaddr *)&at, sizeof at) == 0;
        close(fd);
        if (is_free) {
            return port;
        }
        assert_in_range(tried, 0, PORTS);
    }
}

static redisContext *try_to_connect(int port)
{
    struct redis_address address = {.host = "127.0.0.1", .port = port};
    char error[512];
    return redis_connect_blocking(&address, 2000, error, sizeof error);
}

redisContext *tcp_redis_connect(int port)
{
    redisContext *redis = try_to_connect(port);
    if (redis == NULL) {
        fail_msg("nobody at port %d: %s", port, redis_failure());
    }
    return redis;
}

void tcp_redis_start(struct tcp_redis *redis, const char *folder, const char *name,
                     const char *const *further)
{
    char port[16], log[64];
    redis->port = redis->port != 0 ? redis->port : free_port();
    snprintf(port, sizeof port, "%d", redis->port);
    snprintf(log, sizeof log, "%s.log", name);
    const char *argv[ARGUMENTS_MAX] = {"/usr/bin/env",
                                       "redis-server",
                                       "--port",
                                       port,
                                       "--bind",
                                       "127.0.0.1 -::1",
                                       "--dir",
                                       folder,
                                       "--logfile",
                                       log,
                                       "--save",
                                       "",
                                       "--appendonly",
                                       "no",
                                       "--maxmemory-policy",
                                       "noeviction",
                                       "--repl-diskless-sync-delay",
                                       "0"};
    size_t argc = 18;
    for (size_t i = 0; further != NULL && further[i] != NULL; i++) {
        assert_in_range(argc, 0, ARGUMENTS_MAX - 2);
        argv[argc++] = further[i];
    }
    redis->pid = program_start(argv, NULL, STDERR_FILENO, STDERR_FILENO);
    int64_t deadline = deadline_in(START_MS);
    redisContext *connection;
    while ((connection = try_to_connect(redis->port)) == NULL) {
        assert_true(wait_a_moment(deadline));
    }
    redisFree(connection);
}

void tcp_redis_kill(struct tcp_redis *redis)
{
    if (redis->pid != 0) {
        kill(redis->pid, SIGKILL);
        waitpid(redis->pid, NULL, 0);
        redis->pid = 0;
    }
}

const char *tcp_redis_do(int port, const char *format, ...)
{
    static char texts[TEXTS][TEXT_BYTES];
    static size_t next;
    char *text = texts[next++ % TEXTS];
    redisContext *redis = tcp_redis_connect(port);
    va_list arguments;
    va_start(arguments, format);
    redisReply *reply = redisvCommand(redis, format, arguments);
    va_end(arguments);
    if (reply == NULL || reply->type == REDIS_REPLY_ERROR) {
        fail_msg("%s: %s", format, reply != NULL ? reply->str : redis->errstr);
    }
    if (reply->type == REDIS_REPLY_INTEGER) {
        snprintf(text, TEXT_BYTES, "%lld", reply->integer);
    } else {
        snprintf(text, TEXT_BYTES, "%s", reply->str != NULL ? reply->str : "");
    }
    freeReplyObject(reply);
    redisFree(redis);
    return text;
}

/* Whoever is just being demoted may close the connection. */
static bool info_has(int port, const char *text)
{
    redisContext *redis = try_to_connect(port);
    redisReply *info = redis != NULL ? redis_ask(redis, "INFO") : NULL;
    bool has = info != NULL && strstr(info->str, text) != NULL;
    freeReplyObject(info);
    if (redis != NULL) {
        redisFree(redis);
    }
    return has;
}

void tcp_redis_await(int port, const char *text)
{
    int64_t deadline = deadline_in(START_MS);
    while (!info_has(port, text)) {
        if (!wait_a_moment(deadline)) {
            fail_msg("INFO of port %d never has %s", port, text);
        }
    }
}
