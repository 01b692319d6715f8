/* Blocking Redis connections: for the recorder, the command-line tools and pool jobs, never for a worker's loop. The context belongs to
 * the caller; a failure is NULL and a sentence. */
#include "doorbuster/redis.h"

#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

static _Thread_local char failure[256];

const char *redis_failure(void)
{
    return failure;
}

static void note_failure(const char *text)
{
    snprintf(failure, sizeof failure, "%s", text);
}

static struct timeval timeout_of(int timeout_ms)
{
    return (struct timeval){.tv_sec = timeout_ms / 1000, .tv_usec = (timeout_ms % 1000) * 1000};
}

/* Of a timeout hiredis says what the system says of a socket without data: "Resource temporarily unavailable". */
static void note_broken(const redisContext *redis)
{
    struct timeval patience;
    socklen_t bytes = sizeof patience;
    bool over_time = redis->err == REDIS_ERR_IO && strcmp(redis->errstr, strerror(EAGAIN)) == 0;
    if (over_time && getsockopt(redis->fd, SOL_SOCKET, SO_RCVTIMEO, &patience, &bytes) == 0) {
        snprintf(failure, sizeof failure, "Redis did not answer within %ld ms",
                 (long)patience.tv_sec * 1000 + (long)patience.tv_usec / 1000);
    } else {
        note_failure(redis->err ? redis->errstr : "the connection to Redis broke");
    }
}

static redisReply *accept_reply(const redisContext *redis, redisReply *reply)
{
    if (reply == NULL) {
        note_broken(redis);
        return NULL;
    }
    if (reply->type == REDIS_REPLY_ERROR) {
        note_failure(reply->str);
        freeReplyObject(reply);
        return NULL;
    }
    return reply;
}

redisReply *redis_ask(redisContext *redis, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    redisReply *reply = redisvCommand(redis, format, arguments);
    va_end(arguments);
    return accept_reply(redis, reply);
}

void redis_send_appended(redisContext *redis)
{
    int done = 0;
    while (!done && redisBufferWrite(redis, &done) == REDIS_OK) {
    }
}

redisReply *redis_next_reply(redisContext *redis)
{
    void *reply = NULL;
    return redisGetReply(redis, &reply) == REDIS_OK ? accept_reply(redis, reply) : accept_reply(redis, NULL);
}

bool redis_done(redisReply *reply)
{
    if (reply == NULL) {
        return false;
    }
    freeReplyObject(reply);
    return true;
}

static bool say_hello(redisContext *redis, const struct redis_address *address)
{
    if (address->password[0] != '\0' && !redis_done(redis_ask(redis, "AUTH %s", address->password))) {
        return false;
    }
    if (address->database != 0 && !redis_done(redis_ask(redis, "SELECT %d", address->database))) {
        return false;
    }
    return redis_done(redis_ask(redis, "PING"));
}

redisContext *redis_connect_blocking(const struct redis_address *address, int timeout_ms, char *error,
                                     size_t error_bytes)
{
    struct timeval timeout = timeout_of(timeout_ms);
    redisContext *redis = address->path[0] != '\0'
                              ? redisConnectUnixWithTimeout(address->path, timeout)
                              : redisConnectWithTimeout(address->host, address->port, timeout);
    char where[384];
    redis_address_format(address, where, sizeof where);
    if (redis == NULL || redis->err != 0) {
        snprintf(error, error_bytes, "cannot connect to Redis at %s: %s", where,
                 redis ? redis->errstr : "out of memory");
    } else if (redisSetTimeout(redis, timeout) != REDIS_OK || !say_hello(redis, address)) {
        snprintf(error, error_bytes, "Redis at %s does not let us in: %s", where, redis_failure());
    } else {
        return redis;
    }
    if (redis != NULL) {
        redisFree(redis);
    }
    return NULL;
}

/* Redis says nothing of its own accord: what can be read is the end, or what nobody asked for. */
bool redis_is_dead(const redisContext *redis)
{
    struct pollfd link = {.fd = redis->fd, .events = POLLIN};
    return redis->err != 0 || poll(&link, 1, 0) != 0;
}
