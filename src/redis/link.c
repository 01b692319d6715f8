/* One hiredis connection on a libuv loop, wrapped once. A worker's loop thread. Owns the hiredis context, its poll handle and a timer.
 *
 *   WAITING --timer--> CONNECTING --let in--> UP
 *      ^                   |                   |
 *      +------ failed -----+------- lost ------+          any --redis_link_close--> CLOSED
 *
 * A master that is to be found takes two such connections, or more: one to a Sentinel, or to a node of a Cluster, which says where it is (`target`),
 * then without a pause (`hop`) one there, and it must say itself that it is the master. Whoever cannot say is followed by the next of the list. Any reply
 * of the kind of redis_is_elsewhere() ends a link that is up. A host's name is looked up in libuv's pool first; when no name server answers, the address
 * that it had last is tried.
 *
 * hiredis frees a context by itself when the connection ends, after running every pending callback with NULL; so the context is
 * reached only through `poll->context`, which its cleanup hook sets to NULL, and each connection has a poll struct of its own that
 * lives until libuv has closed the handle. A failure is a state, never an error code: the link tries again until it is closed. */
#include "doorbuster/redis.h"

#include "doorbuster/check.h"
#include "doorbuster/clock.h"
#include "doorbuster/log.h"
#include "finding.h"
#include "login.h"
#include "names.h"

#include <arpa/inet.h>
#include <hiredis/async.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BACKOFF_FIRST_MS 20
#define BACKOFF_MAX_MS 300 /* an attempt costs little, and buyers wait for it */
#define WATCH_MS 100       /* how often the timeouts are looked at */
#define LOOKUP_US 100000   /* a name server that has not answered by then does not count */
#define SETTLED_US 1000000 /* up for so long: the next attempt begins with the shortest wait again */

enum link_state { LINK_WAITING, LINK_CONNECTING, LINK_UP, LINK_CLOSED };

struct link_poll {
    uv_poll_t handle;
    redisAsyncContext *context; /* NULL once hiredis has let go of it */
    struct redis_link *link;
    int events;
};

/* A host's name being looked up. */
struct lookup {
    uv_getaddrinfo_t request;
    struct redis_link *link; /* NULL: it does not want to know any more */
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
    int64_t up_us;         /* since when */
    bool leaving;          /* up, but the context is about to be freed: takes no commands */
    struct lookup *lookup; /* CONNECTING: of the name of `at` */
    int64_t lookup_us;     /* since when */
    /* where a master that is to be found may be */
    struct redis_host at; /* where this connection goes to */
    unsigned seed;        /* whom to ask: the one who answered last */
    unsigned failures;    /* attempts since it was up: which of a name's addresses is tried */
    bool asks_sentinel;   /* this connection is to one */
    bool has_target, hop;
    struct redis_host target;
    unsigned hops; /* since it last waited, or was up for a while */
};

struct pending_command {
    struct redis_link *link;
    redis_reply_cb cb;
    void *context;
};

static void link_lost(struct redis_link *link);
static void forget_lookup(struct redis_link *link);
static void watch_cb(uv_timer_t *timer);

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

/* Where to look next, and when. */
static void plan(struct redis_link *link, bool was_up)
{
    bool lasted = was_up && !(link->leaving && clock_monotonic_us() - link->up_us < SETTLED_US);
    link->backoff_ms = lasted ? BACKOFF_FIRST_MS : link->backoff_ms;
    link->hops = lasted ? 0 : link->hops;
    if (link->hop && ++link->hops <= FINDING_HOPS_MAX) {
        link->hop = false;
        link->retry_us = clock_monotonic_us();
        uv_timer_start(&link->timer, watch_cb, 0, 0);
        return;
    }
    link->seed += !was_up;
    link->failures += !was_up;
    link->hop = link->has_target = false;
    link->hops = 0;
    schedule_retry(link);
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
    plan(link, was_up);
    link->leaving = false;
    if (was_up) {
        log_warn("lost the %s link to Redis; reconnecting", link->settings.name);
        link->settings.down_cb(link->settings.context);
    }
}

static void give_up(struct redis_link *link, const char *why)
{
    log_warn("%s link to Redis: %s", link->settings.name, why);
    if (link->poll != NULL) {
        redisAsyncFree(link->poll->context);
    } else {
        forget_lookup(link);
        link_lost(link);
    }
}

/* The next connection goes there, at once. */
static void head_for(struct redis_link *link, const struct redis_host *target)
{
    link->target = *target;
    link->has_target = link->hop = true;
}

/* From within a callback: hiredis frees the context when that has returned. */
static void leave(struct redis_link *link, const char *why)
{
    struct redis_host moved_to;
    log_warn("%s link to Redis: %s", link->settings.name, why);
    if (link->settings.address.kind == REDIS_IN_CLUSTER && finding_moved(why, link->at.host, &moved_to)) {
        head_for(link, &moved_to);
    }
    link->leaving = true;
    redisAsyncFree(link->poll->context);
}

static void reply_cb(redisAsyncContext *context, void *data, void *command_data)
{
    const redisReply *reply = data;
    struct pending_command *command = command_data;
    struct redis_link *link = command->link;
    link->pending--;
    link->progress_us = clock_monotonic_us();
    command->cb(reply, command->context);
    free(command);
    if (reply != NULL && reply->type == REDIS_REPLY_ERROR && redis_is_elsewhere(reply->str) &&
        link->state == LINK_UP && !link->leaving && link->poll != NULL && link->poll->context == context) {
        leave(link, reply->str);
    }
}

static void name_host(const struct redis_link *link, char out[REDIS_HOST_BYTES])
{
    const char *path = link->settings.address.path;
    if (path[0] != '\0') {
        snprintf(out, REDIS_HOST_BYTES, "%s", path);
    } else {
        redis_host_format(&link->at, out, REDIS_HOST_BYTES);
    }
}

static void tell_refusal(const struct redis_link *link, const char *why)
{
    const struct redis_address *address = &link->settings.address;
    char where[REDIS_HOST_BYTES];
    name_host(link, where);
    if (redis_is_login_refusal(why)) {
        log_warn("%s link: Redis at %s does not let the user \"%s\" in: %s", link->settings.name, where,
                 redis_login_user(link->asks_sentinel ? &address->sentinel_login : &address->login), why);
    } else { /* LOADING, MASTERDOWN */
        log_warn("%s link: Redis at %s is not ready: %s", link->settings.name, where, why);
    }
}

/* The last answer to a greeting: is it whom we look for? */
static void greeted_cb(const redisReply *reply, void *context)
{
    struct redis_link *link = context;
    struct redis_host moved_to;
    enum redis_kind kind = link->settings.address.kind;
    if (reply == NULL || link->state != LINK_CONNECTING) {
        return;
    }
    bool refused = reply->type == REDIS_REPLY_ERROR;
    if (refused && kind == REDIS_IN_CLUSTER && finding_moved(reply->str, link->at.host, &moved_to)) {
        head_for(link, &moved_to);
    } else if (refused) {
        tell_refusal(link, reply->str);
    } else if (kind == REDIS_BY_SENTINEL && !finding_is_master(reply)) {
        log_debug("%s link: %s is no master", link->settings.name, link->at.host);
        refused = true;
    }
    if (refused) {
        redisAsyncDisconnect(link->poll->context);
        return;
    }
    link->state = LINK_UP;
    link->failures = 0;
    link->up_us = clock_monotonic_us();
    link->settings.up_cb(link->settings.context);
}

/* Of AUTH and SELECT. Whoever is not let in goes no further: what follows would be asked as another user, or of another database. */
static void let_in_cb(const redisReply *reply, void *context)
{
    struct redis_link *link = context;
    if (reply != NULL && reply->type == REDIS_REPLY_ERROR && link->state == LINK_CONNECTING) {
        tell_refusal(link, reply->str);
        redisAsyncFree(link->poll->context); /* once this has returned */
    }
}

/* What a Sentinel says. */
static void found_cb(const redisReply *reply, void *context)
{
    struct redis_link *link = context;
    struct redis_host master;
    if (reply == NULL || link->state != LINK_CONNECTING) {
        return;
    }
    if (finding_master(reply, &master)) {
        head_for(link, &master);
    } else if (reply->type == REDIS_REPLY_ERROR) {
        tell_refusal(link, reply->str);
    } else {
        char where[REDIS_HOST_BYTES];
        name_host(link, where);
        log_warn("%s link: the Sentinel at %s knows no master %s", link->settings.name, where,
                 link->settings.address.group);
    }
    redisAsyncDisconnect(link->poll->context);
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

static void log_in(struct redis_link *link, const struct redis_login *login)
{
    const char *words[REDIS_LOGIN_WORDS];
    int count = redis_login_words(login, words);
    if (count > 0) {
        send_command(link, let_in_cb, link, count, words, NULL);
    }
}

static void ask_sentinel(struct redis_link *link)
{
    const struct redis_address *address = &link->settings.address;
    log_in(link, &address->sentinel_login);
    send_command(link, found_cb, link, 3,
                 (const char *[]){"SENTINEL", "GET-MASTER-ADDR-BY-NAME", address->group}, NULL);
}

static void say_hello(struct redis_link *link)
{
    const struct redis_address *address = &link->settings.address;
    if (link->asks_sentinel) {
        ask_sentinel(link);
        return;
    }
    log_in(link, &address->login);
    if (address->database != 0) {
        char database[16];
        snprintf(database, sizeof database, "%d", address->database);
        send_command(link, let_in_cb, link, 2, (const char *[]){"SELECT", database}, NULL);
    }
    if (address->kind == REDIS_IN_CLUSTER) {
        send_command(link, greeted_cb, link, 2, (const char *[]){"EXISTS", address->key}, NULL);
    } else {
        const char *greeting = address->kind == REDIS_BY_SENTINEL ? "ROLE" : "PING";
        send_command(link, greeted_cb, link, 1, &greeting, NULL);
    }
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

static void take_context(struct redis_link *link, redisAsyncContext *context)
{
    if (context == NULL || context->err != 0) {
        log_debug("%s link: %s", link->settings.name, context ? context->errstr : "out of memory");
        if (context != NULL) {
            redisAsyncFree(context);
        }
        link_lost(link);
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
    redisAsyncSetConnectCallback(context, connect_cb);
}

/* --- names ---------------------------------------------------------------------------------------------------------------------- */
static bool is_numeric(const char *host)
{
    unsigned char address[sizeof(struct in6_addr)];
    return inet_pton(AF_INET, host, address) == 1 || inet_pton(AF_INET6, host, address) == 1;
}

/* One of a name's addresses; after a failure the next. */
static bool choose_address(const struct redis_link *link, const struct addrinfo *list, char *out,
                           size_t out_bytes)
{
    unsigned count = 0;
    while (finding_address(list, count) != NULL) {
        count++;
    }
    const struct addrinfo *chosen = count > 0 ? finding_address(list, link->failures % count) : NULL;
    return chosen != NULL && getnameinfo(chosen->ai_addr, chosen->ai_addrlen, out, (socklen_t)out_bytes, NULL,
                                         0, NI_NUMERICHOST) == 0;
}

/* As it was called last. */
static bool connect_as_known(struct redis_link *link)
{
    char address[NAMES_ADDRESS_BYTES];
    if (!names_known(link->at.host, address)) {
        return false;
    }
    forget_lookup(link);
    take_context(link, redisAsyncConnect(address, link->at.port));
    return true;
}

static void looked_up_cb(uv_getaddrinfo_t *request, int status, struct addrinfo *list)
{
    struct lookup *lookup = request->data;
    struct redis_link *link = lookup->link;
    char numeric[NAMES_ADDRESS_BYTES];
    bool found = status == 0 && link != NULL && choose_address(link, list, numeric, sizeof numeric);
    uv_freeaddrinfo(list);
    free(lookup);
    if (link == NULL) {
        return;
    }
    link->lookup = NULL;
    if (found) {
        names_note(link->at.host, numeric);
        take_context(link, redisAsyncConnect(numeric, link->at.port));
    } else if (!connect_as_known(link)) {
        log_warn("%s link: %s: %s", link->settings.name, link->at.host,
                 status != 0 ? uv_strerror(status) : "no address");
        link_lost(link);
    }
}

static void look_up(struct redis_link *link)
{
    static const struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM};
    struct lookup *lookup = calloc(1, sizeof *lookup);
    CHECK(lookup != NULL);
    lookup->link = link;
    lookup->request.data = lookup;
    CHECK(uv_getaddrinfo(link->loop, &lookup->request, looked_up_cb, link->at.host, NULL, &hints) == 0);
    link->lookup = lookup;
    link->lookup_us = clock_monotonic_us();
}

/* It answers all the same, later. */
static void forget_lookup(struct redis_link *link)
{
    if (link->lookup != NULL) {
        uv_cancel((uv_req_t *)&link->lookup->request);
        link->lookup->link = NULL;
        link->lookup = NULL;
    }
}

/* --- connecting ------------------------------------------------------------------------------------------------------------------ */
static void choose_host(struct redis_link *link)
{
    const struct redis_address *address = &link->settings.address;
    link->asks_sentinel = address->kind == REDIS_BY_SENTINEL && !link->has_target;
    if (address->kind == REDIS_DIRECT) {
        memcpy(link->at.host, address->host, sizeof link->at.host);
        link->at.port = address->port;
    } else {
        link->at = link->has_target ? link->target : address->seeds[link->seed % address->seed_count];
    }
}

static void start_connecting(struct redis_link *link)
{
    const char *path = link->settings.address.path;
    int timeout_ms = link->settings.connect_timeout_ms;
    choose_host(link);
    if (link->asks_sentinel && timeout_ms > FINDING_SENTINEL_MS) {
        timeout_ms = FINDING_SENTINEL_MS;
    }
    link->state = LINK_CONNECTING;
    link->retry_us = clock_monotonic_us() + (int64_t)timeout_ms * 1000;
    if (path[0] != '\0') {
        take_context(link, redisAsyncConnectUnix(path));
    } else if (is_numeric(link->at.host)) {
        take_context(link, redisAsyncConnect(link->at.host, link->at.port));
    } else {
        look_up(link);
    }
}

static void watch_cb(uv_timer_t *timer)
{
    struct redis_link *link = timer->data;
    int64_t now_us = clock_monotonic_us();
    if (link->state == LINK_WAITING && now_us >= link->retry_us) {
        start_connecting(link);
    } else if (link->state == LINK_CONNECTING && now_us >= link->retry_us) {
        give_up(link, "no answer in time");
    } else if (link->lookup != NULL && now_us - link->lookup_us >= LOOKUP_US && connect_as_known(link)) {
        link->retry_us += LOOKUP_US; /* it had no time for itself yet */
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
    return link->state == LINK_UP && !link->leaving;
}

bool redis_link_command(struct redis_link *link, redis_reply_cb cb, void *context, int argc,
                        const char **argv, const size_t *argv_bytes)
{
    if (!redis_link_is_up(link)) {
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
    if (!redis_link_is_up(link)) {
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
    if (!link->write_due || link->leaving) {
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
    forget_lookup(link);
    if (link->poll != NULL) {
        redisAsyncFree(link->poll->context);
    }
    uv_close((uv_handle_t *)&link->timer, free_link_cb);
}
