/* One hiredis connection on a libuv loop, wrapped once. A worker's loop thread. Owns the hiredis context, its poll handle and a timer.
 *
 *   WAITING --timer--> CONNECTING --PONG--> UP
 *      ^                   |                 |
 *      +------ failed -----+------ lost -----+          any --redis_link_close--> CLOSED
 *
 * hiredis frees a context by itself when the connection ends, after running every pending callback with NULL; so the context is
 * reached only through `poll->context`, which its cleanup hook sets to NULL, and each connection has a poll struct of its own that
 * lives until libuv has closed the handle. A failure is a state, never an error code: the link tries again until it is closed. */
#include "doorbuster/redis.h"

#include "doorbuster/check.h"
#include "doorbuster/clock.h"
#include "doorbuster/log.h"

#include <hiredis/async.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BACKOFF_FIRST_MS 20
#define BACKOFF_MAX_MS 300 /* an attempt costs little, and buyers wait for it */
#define WATCH_MS 100       /* how often the timeouts are looked at */

enum link_state { LINK_WAITING, LINK_CONNECTING, LINK_UP, LINK_CLOSED };

struct link_poll {
    uv_poll_t handle;
    redisAsyncContext *context; /* NULL once hiredis has let go of it */
    struct redis_link *link;
    int events;
};

struct redis_link {
    struct redis_link_settings settings;
    uv_loop_t *loop;
    uv_timer_t timer;
    enum link_state state;
    struct link_poll *poll;
    bool connected; /* the socket is; we may not be in yet */
    bool write_due; /* something is buffered */
    bool in_flush;
    size_t pending;      /* commands without a reply */
    int64_t progress_us; /* when the last reply came, or the first of the pending was sent */
    int64_t retry_us;    /* WAITING: when to try again; CONNECTING: when to give up */
    int backoff_ms;
};

struct pending_command {
    struct redis_link *link;
    redis_reply_cb cb;
    void *context;
};

static void link_lost(struct redis_link *link);

/* --- hiredis on uv_poll --------------------------------------------------------------------------------------------------- */
static void poll_cb(uv_poll_t *handle, int status, int events)
{
    struct link_poll *poll = handle->data;
    /* A poll error is for hiredis to find: it reads, fails, and ends the connection. */
    if (status < 0 || (events & UV_READABLE)) {
        redisAsyncHandleRead(poll->context);
    }
    if (poll->context != NULL && (events & UV_WRITABLE)) {
        redisAsyncHandleWrite(poll->context);
    }
}

static void poll_for(struct link_poll *poll, int events)
{
    if (poll->events == events) {
        return;
    }
    poll->events = events;
    if (events == 0) {
        uv_poll_stop(&poll->handle);
    } else {
        uv_poll_start(&poll->handle, events, poll_cb);
    }
}

static void add_read_cb(void *data)
{
    struct link_poll *poll = data;
    poll_for(poll, poll->events | UV_READABLE);
}

static void del_read_cb(void *data)
{
    struct link_poll *poll = data;
    poll_for(poll, poll->events & ~UV_READABLE);
}

static void add_write_cb(void *data)
{
    struct link_poll *poll = data;
    /* Connected: written at the end of the turn. Polled for only while connecting, or when the socket would not take it all. */
    if (poll->link->connected && !poll->link->in_flush) {
        poll->link->write_due = true;
    } else {
        poll_for(poll, poll->events | UV_WRITABLE);
    }
}

static void del_write_cb(void *data)
{
    struct link_poll *poll = data;
    poll_for(poll, poll->events & ~UV_WRITABLE);
}

static void free_poll_cb(uv_handle_t *handle)
{
    free(handle->data);
}

static void cleanup_cb(void *data)
{
    struct link_poll *poll = data;
    poll->context = NULL;
    uv_poll_stop(&poll->handle);
    uv_close((uv_handle_t *)&poll->handle, free_poll_cb);
    if (poll->link->poll == poll) {
        poll->link->poll = NULL;
        link_lost(poll->link);
    }
}

/* --- states ----------------------------------------------------------------------------------------------------------------- */
static void schedule_retry(struct redis_link *link)
{
    int jitter_ms = rand() % (link->backoff_ms / 2 + 1);
    link->retry_us = clock_monotonic_us() + (int64_t)(link->backoff_ms / 2 + jitter_ms) * 1000;
    link->backoff_ms = link->backoff_ms * 2 < BACKOFF_MAX_MS ? link->backoff_ms * 2 : BACKOFF_MAX_MS;
}

/* The context is gone, every pending callback has run. */
static void link_lost(struct redis_link *link)
{
    bool was_up = link->state == LINK_UP;
    link->connected = link->write_due = false;
    if (link->state == LINK_CLOSED) {
        return;
    }
    link->state = LINK_WAITING;
    schedule_retry(link);
    if (was_up) {
        log_warn("lost the %s link to Redis; reconnecting", link->settings.name);
        link->settings.down_cb(link->settings.context);
    }
}

static void give_up(struct redis_link *link, const char *why)
{
    log_warn("%s link to Redis: %s", link->settings.name, why);
    redisAsyncFree(link->poll->context);
}

static void reply_cb(redisAsyncContext *context, void *reply, void *data)
{
    (void)context;
    struct pending_command *command = data;
    command->link->pending--;
    command->link->progress_us = clock_monotonic_us();
    command->cb(reply, command->context);
    free(command);
}

static void ping_cb(const redisReply *reply, void *context)
{
    struct redis_link *link = context;
    if (reply == NULL || link->state != LINK_CONNECTING) {
        return;
    }
    if (reply->type == REDIS_REPLY_ERROR) { /* LOADING, NOAUTH, MASTERDOWN: not yet */
        log_warn("%s link: Redis is not ready: %s", link->settings.name, reply->str);
        redisAsyncDisconnect(link->poll->context);
        return;
    }
    link->state = LINK_UP;
    link->backoff_ms = BACKOFF_FIRST_MS;
    link->settings.up_cb(link->settings.context);
}

static void ignore_cb(const redisReply *reply, void *context)
{
    struct redis_link *link = context;
    if (reply != NULL && reply->type == REDIS_REPLY_ERROR) {
        log_warn("%s link: %s", link->settings.name, reply->str);
    }
}

static void send_command(struct redis_link *link, redis_reply_cb cb, void *context, int argc,
                         const char **argv, const size_t *argv_bytes)
{
    struct pending_command *command = malloc(sizeof *command);
    CHECK(command != NULL);
    *command = (struct pending_command){.link = link, .cb = cb, .context = context};
    if (link->pending++ == 0) {
        link->progress_us = clock_monotonic_us();
    }
    CHECK(redisAsyncCommandArgv(link->poll->context, reply_cb, command, argc, argv, argv_bytes) == REDIS_OK);
}

static void say_hello(struct redis_link *link)
{
    const struct redis_address *address = &link->settings.address;
    if (address->password[0] != '\0') {
        send_command(link, ignore_cb, link, 2, (const char *[]){"AUTH", address->password}, NULL);
    }
    if (address->database != 0) {
        char database[16];
        snprintf(database, sizeof database, "%d", address->database);
        send_command(link, ignore_cb, link, 2, (const char *[]){"SELECT", database}, NULL);
    }
    send_command(link, ping_cb, link, 1, (const char *[]){"PING"}, NULL);
}

static void connect_cb(const redisAsyncContext *context, int status)
{
    struct link_poll *poll = context->ev.data;
    if (status != REDIS_OK) {
        log_debug("%s link: %s", poll->link->settings.name, context->errstr);
        return; /* hiredis frees the context next */
    }
    poll->link->connected = true;
    say_hello(poll->link);
}

static void start_connecting(struct redis_link *link)
{
    const struct redis_address *address = &link->settings.address;
    redisAsyncContext *context = address->path[0] != '\0' ? redisAsyncConnectUnix(address->path)
                                                          : redisAsyncConnect(address->host, address->port);
    if (context == NULL || context->err != 0) {
        log_debug("%s link: %s", link->settings.name, context ? context->errstr : "out of memory");
        if (context != NULL) {
            redisAsyncFree(context);
        }
        schedule_retry(link);
        return;
    }
    struct link_poll *poll = calloc(1, sizeof *poll);
    CHECK(poll != NULL);
    poll->context = context;
    poll->link = link;
    poll->handle.data = poll;
    CHECK(uv_poll_init_socket(link->loop, &poll->handle, context->c.fd) == 0);
    context->ev.data = poll;
    context->ev.addRead = add_read_cb;
    context->ev.delRead = del_read_cb;
    context->ev.addWrite = add_write_cb;
    context->ev.delWrite = del_write_cb;
    context->ev.cleanup = cleanup_cb;
    link->poll = poll;
    link->state = LINK_CONNECTING;
    link->retry_us = clock_monotonic_us() + (int64_t)link->settings.connect_timeout_ms * 1000;
    redisAsyncSetConnectCallback(context, connect_cb);
}

static void watch_cb(uv_timer_t *timer)
{
    struct redis_link *link = timer->data;
    int64_t now_us = clock_monotonic_us();
    if (link->state == LINK_WAITING && now_us >= link->retry_us) {
        start_connecting(link);
    } else if (link->state == LINK_CONNECTING && now_us >= link->retry_us) {
        give_up(link, "no answer in time");
    } else if (link->state == LINK_UP && link->pending > 0 &&
               now_us - link->progress_us > (int64_t)link->settings.command_timeout_ms * 1000) {
        give_up(link, "a command got no reply in time");
    }
    int64_t wait_ms = WATCH_MS;
    if (link->state == LINK_WAITING) {
        int64_t left_ms = (link->retry_us - clock_monotonic_us()) / 1000 + 1;
        wait_ms = left_ms < 1 ? 1 : left_ms;
    }
    uv_timer_start(timer, watch_cb, (uint64_t)wait_ms, 0);
}

/* --- the public face -------------------------------------------------------------------------------------------------------- */
struct redis_link *redis_link_new(uv_loop_t *loop, const struct redis_link_settings *settings)
{
    struct redis_link *link = calloc(1, sizeof *link);
    CHECK(link != NULL);
    link->settings = *settings;
    link->loop = loop;
    link->backoff_ms = BACKOFF_FIRST_MS;
    uv_timer_init(loop, &link->timer);
    link->timer.data = link;
    uv_timer_start(&link->timer, watch_cb, 0, 0);
    return link;
}

bool redis_link_is_up(const struct redis_link *link)
{
    return link->state == LINK_UP;
}

bool redis_link_command(struct redis_link *link, redis_reply_cb cb, void *context, int argc,
                        const char **argv, const size_t *argv_bytes)
{
    if (link->state != LINK_UP) {
        return false;
    }
    send_command(link, cb, context, argc, argv, argv_bytes);
    return true;
}

struct subscription {
    redis_reply_cb cb;
    void *context;
};

static void message_cb(redisAsyncContext *context, void *reply, void *data)
{
    (void)context;
    struct subscription *subscription = data;
    subscription->cb(reply, subscription->context);
    if (reply == NULL) {
        free(subscription);
    }
}

bool redis_link_subscribe(struct redis_link *link, const char *channel, redis_reply_cb cb, void *context)
{
    if (link->state != LINK_UP) {
        return false;
    }
    struct subscription *subscription = malloc(sizeof *subscription);
    CHECK(subscription != NULL);
    *subscription = (struct subscription){.cb = cb, .context = context};
    CHECK(redisAsyncCommand(link->poll->context, message_cb, subscription, "SUBSCRIBE %s", channel) ==
          REDIS_OK);
    return true;
}

void redis_link_flush(struct redis_link *link)
{
    if (!link->write_due) {
        return;
    }
    link->write_due = false;
    link->in_flush = true;
    redisAsyncHandleWrite(link->poll->context);
    link->in_flush = false;
}

void redis_link_reset(struct redis_link *link, const char *why)
{
    if (link->poll != NULL) {
        give_up(link, why);
    }
}

static void free_link_cb(uv_handle_t *handle)
{
    free(handle->data);
}

void redis_link_close(struct redis_link **link_pointer)
{
    struct redis_link *link = *link_pointer;
    *link_pointer = NULL;
    link->state = LINK_CLOSED;
    if (link->poll != NULL) {
        redisAsyncFree(link->poll->context);
    }
    uv_close((uv_handle_t *)&link->timer, free_link_cb);
}
