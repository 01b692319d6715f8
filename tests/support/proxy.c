/* See proxy.h. Everything after fork() runs in the child: one thread, non-blocking, nothing shared. What
 * cannot be written yet is tried again every millisecond.
 *
 * A link, client - proxy - Redis:   OPEN --client gone--> LATE (what was held is still delivered) --> closed
 *                                     |--a call whose answer is to be lost--> DOOMED --answer--> closed
 *                                     |--a call after which all is silent---> MUTE --client gone--> closed */
#include "proxy.h"

#include "testing.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#define LINKS_MAX 256
#define CHUNK_BYTES 65536
#define EVENTS_AT_ONCE 64
#define RETRY_MS 1
#define DESCRIPTORS_MAX 1024
#define CONTROL_ID UINT64_MAX
#define LISTEN_ID (UINT64_MAX - 1)

struct order_to_proxy {
    enum proxy_action action;
    int ms, count;
};

struct chunk {
    struct chunk *next;
    int64_t due_us;
    size_t bytes, sent;
    char data[];
};

enum link_state { LINK_FREE, LINK_OPEN, LINK_DOOMED, LINK_LATE, LINK_MUTE };
enum side { CLIENT, REDIS, SIDES };

struct link {
    enum link_state state;
    int fds[SIDES];
    struct chunk *first[SIDES], **last[SIDES]; /* on the way to that side */
};

static struct {
    int epoll_fd, control_fd, listen_fd;
    const char *redis_path, *call; /* call: the text that makes a call */
    int delay_ms, lose_count, late_count, late_ms, mute_count, twice_count, twice_ms;
    bool mute_calls; /* what is muted does not reach Redis either */
    bool silent, away;
    struct link links[LINKS_MAX];
} child;

static void watch(int fd, uint64_t id)
{
    struct epoll_event event = {.events = EPOLLIN, .data.u64 = id};
    if (epoll_ctl(child.epoll_fd, EPOLL_CTL_ADD, fd, &event) != 0) {
        _exit(3);
    }
}

static void close_side(struct link *link, enum side side)
{
    if (link->fds[side] >= 0) {
        close(link->fds[side]);
        link->fds[side] = -1;
    }
    while (link->first[side] != NULL) {
        struct chunk *chunk = link->first[side];
        link->first[side] = chunk->next;
        free(chunk);
    }
    link->last[side] = &link->first[side];
}

static void close_link(struct link *link)
{
    close_side(link, CLIENT);
    close_side(link, REDIS);
    link->state = LINK_FREE;
}

static int connect_to_redis(void)
{
    struct sockaddr_un where = {.sun_family = AF_UNIX};
    snprintf(where.sun_path, sizeof where.sun_path, "%s", child.redis_path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd >= 0 && connect(fd, (struct sockaddr *)&where, sizeof where) != 0) {
        close(fd);
        fd = -1;
    }
    return fd;
}

/* A link of this client's (-1: of nobody's) to Redis, or NULL. */
static struct link *open_link(int client_fd, enum link_state state)
{
    size_t i = 0;
    while (i < LINKS_MAX && child.links[i].state != LINK_FREE) {
        i++;
    }
    int redis_fd = i < LINKS_MAX ? connect_to_redis() : -1;
    if (redis_fd < 0) {
        return NULL;
    }
    struct link *link = &child.links[i];
    *link = (struct link){.state = state, .fds = {client_fd, redis_fd}};
    link->last[CLIENT] = &link->first[CLIENT];
    link->last[REDIS] = &link->first[REDIS];
    if (client_fd >= 0) {
        watch(client_fd, i * SIDES + CLIENT);
    }
    watch(redis_fd, i * SIDES + REDIS);
    return link;
}

static void accept_client(void)
{
    int fd = accept4(child.listen_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd >= 0 && (child.away || open_link(fd, LINK_OPEN) == NULL)) {
        close(fd);
    }
}

static void put(struct link *link, enum side to, const char *data, size_t bytes, int delay_ms)
{
    struct chunk *chunk = malloc(sizeof *chunk + bytes);
    if (chunk == NULL) {
        _exit(3);
    }
    *chunk = (struct chunk){.due_us = deadline_in(delay_ms), .bytes = bytes};
    memcpy(chunk->data, data, bytes);
    *link->last[to] = chunk;
    link->last[to] = &chunk->next;
}

static bool is_call(const char *data, size_t bytes)
{
    return memmem(data, bytes, child.call, strlen(child.call)) != NULL;
}

static void put_again_later(const char *data, size_t bytes)
{
    struct link *link = open_link(-1, LINK_LATE);
    if (link != NULL) {
        put(link, REDIS, data, bytes, child.twice_ms);
    }
}

static void from_client(struct link *link, const char *data, size_t bytes)
{
    link->state = child.silent ? LINK_MUTE : link->state;
    if (link->state == LINK_MUTE) {
        return;
    }
    bool call = is_call(data, bytes);
    if (call && child.twice_count > 0) {
        child.twice_count--;
        put_again_later(data, bytes);
    }
    if (call && child.mute_count > 0) {
        child.mute_count--;
        link->state = LINK_MUTE;
        if (child.mute_calls) {
            return;
        }
    }
    if (call && child.late_count > 0) {
        child.late_count--;
        put(link, REDIS, data, bytes, child.late_ms);
        close_side(link, CLIENT);
        link->state = LINK_LATE;
        return;
    }
    if (call && child.lose_count > 0) {
        child.lose_count--;
        link->state = LINK_DOOMED;
    }
    put(link, REDIS, data, bytes, child.delay_ms);
}

static void from_redis(struct link *link, const char *data, size_t bytes)
{
    if (link->state == LINK_OPEN && child.silent) {
        link->state = LINK_MUTE;
    } else if (link->state == LINK_OPEN) {
        put(link, CLIENT, data, bytes, child.delay_ms);
    } else if (link->state != LINK_MUTE && link->first[REDIS] == NULL) { /* the answer that nobody gets */
        close_link(link);
    }
}

static void receive(struct link *link, enum side from)
{
    static char data[CHUNK_BYTES];
    ssize_t bytes = link->fds[from] >= 0 ? recv(link->fds[from], data, sizeof data, 0) : 0;
    if (link->fds[from] < 0 || (bytes < 0 && errno == EAGAIN)) {
        return;
    }
    if (bytes <= 0) {
        close_link(link);
    } else if (from == CLIENT) {
        from_client(link, data, (size_t)bytes);
    } else {
        from_redis(link, data, (size_t)bytes);
    }
}

/* Sends what is due to this side. */
static void deliver(struct link *link, enum side to, int64_t now)
{
    while (link->fds[to] >= 0 && link->first[to] != NULL && link->first[to]->due_us <= now) {
        struct chunk *chunk = link->first[to];
        ssize_t sent =
            send(link->fds[to], chunk->data + chunk->sent, chunk->bytes - chunk->sent, MSG_NOSIGNAL);
        if (sent < 0) {
            if (errno != EAGAIN) {
                close_link(link);
            }
            return;
        }
        chunk->sent += (size_t)sent;
        if (chunk->sent < chunk->bytes) {
            return;
        }
        link->first[to] = chunk->next;
        link->last[to] = link->first[to] == NULL ? &link->first[to] : link->last[to];
        free(chunk);
    }
}

static bool holds_something(void)
{
    for (size_t i = 0; i < LINKS_MAX; i++) {
        const struct link *link = &child.links[i];
        if (link->state == LINK_LATE || link->state == LINK_DOOMED) {
            return true;
        }
    }
    return false;
}

/* Delivers what is due everywhere; true: something still waits. */
static bool deliver_all(void)
{
    int64_t now = now_us();
    bool waiting = false;
    for (size_t i = 0; i < LINKS_MAX; i++) {
        struct link *link = &child.links[i];
        if (link->state != LINK_FREE) {
            deliver(link, CLIENT, now);
            deliver(link, REDIS, now);
            waiting = waiting || link->first[CLIENT] != NULL || link->first[REDIS] != NULL;
        }
    }
    return waiting;
}

/* Those that are in this state, or all. */
static void close_links(enum link_state state, bool all)
{
    for (size_t i = 0; i < LINKS_MAX; i++) {
        if (child.links[i].state != LINK_FREE && (all || child.links[i].state == state)) {
            close_link(&child.links[i]);
        }
    }
}

static void be_silent(bool silent)
{
    if (child.silent && !silent) {
        close_links(LINK_MUTE, false); /* what was dropped would be missing in them */
    }
    child.silent = silent;
}

static void obey(void)
{
    struct order_to_proxy order;
    if (recv(child.control_fd, &order, sizeof order, 0) != sizeof order) {
        _exit(0); /* the test process is gone */
    }
    if (order.action == PROXY_DELAY) {
        child.delay_ms = order.ms;
    } else if (order.action == PROXY_LOSE_ANSWER) {
        child.lose_count = order.count;
    } else if (order.action == PROXY_DELIVER_LATE) {
        child.late_count = order.count;
        child.late_ms = order.ms;
    } else if (order.action == PROXY_MUTE_ANSWER || order.action == PROXY_MUTE_CALL) {
        child.mute_count = order.count;
        child.mute_calls = order.action == PROXY_MUTE_CALL;
    }
    if (order.action == PROXY_TWICE) {
        child.twice_count = order.count;
        child.twice_ms = order.ms;
    } else if (order.action == PROXY_SILENT) {
        be_silent(order.count > 0);
    } else if (order.action == PROXY_AWAY) {
        child.away = order.count > 0;
    }
    if (order.action == PROXY_CUT || (order.action == PROXY_AWAY && child.away)) {
        close_links(LINK_OPEN, true);
    }
    if (order.action == PROXY_CALM) {
        child.delay_ms = child.lose_count = child.late_count = child.mute_count = child.twice_count = 0;
        child.away = false;
        be_silent(false);
    }
    char busy = holds_something();
    if (send(child.control_fd, &busy, 1, MSG_NOSIGNAL) != 1) {
        _exit(0);
    }
}

static void run_child(void)
{
    struct epoll_event events[EVENTS_AT_ONCE];
    bool waiting = false;
    child.epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    watch(child.control_fd, CONTROL_ID);
    watch(child.listen_fd, LISTEN_ID);
    for (;;) {
        int count = epoll_wait(child.epoll_fd, events, EVENTS_AT_ONCE, waiting ? RETRY_MS : -1);
        for (int i = 0; i < count; i++) {
            uint64_t id = events[i].data.u64;
            if (id == CONTROL_ID) {
                obey();
            } else if (id == LISTEN_ID) {
                accept_client();
            } else {
                receive(&child.links[id / SIDES], (enum side)(id % SIDES));
            }
        }
        waiting = deliver_all();
    }
}

static int listen_on(const char *path)
{
    struct sockaddr_un where = {.sun_family = AF_UNIX};
    snprintf(where.sun_path, sizeof where.sun_path, "%s", path);
    unlink(path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    assert_true(fd >= 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&where, sizeof where), 0);
    assert_int_equal(listen(fd, LINKS_MAX), 0);
    return fd;
}

void proxy_start(struct proxy *proxy, const char *listen_path, const char *redis_path)
{
    proxy_start_for(proxy, listen_path, redis_path, "EVALSHA");
}

void proxy_start_for(struct proxy *proxy, const char *listen_path, const char *redis_path, const char *call)
{
    int pair[2], listen_fd = listen_on(listen_path);
    assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
    fflush(NULL);
    proxy->pid = fork();
    assert_true(proxy->pid >= 0);
    if (proxy->pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        signal(SIGINT, SIG_IGN);                                       /* Ctrl-C: the test process ends us */
        for (int fd = STDERR_FILENO + 1; fd < DESCRIPTORS_MAX; fd++) { /* the test's other connections */
            if (fd != pair[1] && fd != listen_fd) {
                close(fd);
            }
        }
        child.control_fd = pair[1];
        child.listen_fd = listen_fd;
        child.redis_path = redis_path;
        child.call = call;
        run_child();
    }
    close(pair[1]);
    close(listen_fd);
    proxy->control_fd = pair[0];
}

/* Does it hold anything for later? */
static bool tell(const struct proxy *proxy, enum proxy_action action, int ms, int count)
{
    struct order_to_proxy order = {.action = action, .ms = ms, .count = count};
    char busy;
    assert_int_equal(send(proxy->control_fd, &order, sizeof order, MSG_NOSIGNAL), sizeof order);
    assert_int_equal(recv(proxy->control_fd, &busy, 1, 0), 1);
    return busy != 0;
}

void proxy_do(const struct proxy *proxy, enum proxy_action action, int ms, int count)
{
    tell(proxy, action, ms, count);
}

bool proxy_calm(const struct proxy *proxy, int timeout_ms)
{
    int64_t deadline = deadline_in(timeout_ms);
    while (tell(proxy, PROXY_CALM, 0, 0)) {
        if (!wait_a_moment(deadline)) {
            return false;
        }
    }
    return true;
}

void proxy_end(struct proxy *proxy)
{
    if (proxy->pid > 0) {
        kill(proxy->pid, SIGKILL);
        waitpid(proxy->pid, NULL, 0);
        close(proxy->control_fd);
    }
    *proxy = (struct proxy){0};
}
