/* See proxy.h. Everything after fork() runs in the child: one thread, non-blocking, nothing shared. What
 * cannot be written yet is tried again every millisecond.
 *
 * A link, client - proxy - Redis:   OPEN --client gone--> LATE (what was held is still delivered) --> closed
 *                                     |--a call whose answer is to be lost--> DOOMED --answer--> closed
 *                                     |--a call after which all is silent---> MUTE --client gone--> closed
 *
 * A link that has swallowed something is no whole stream any more: it stays as it is until the swallowing is over, and is
 * closed then. Whoever leaves meanwhile leaves unheard. */
#include "proxy.h"

#include "testing.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
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
    bool swallowed[SIDES];                     /* something that was on the way there */
};

static struct {
    int epoll_fd, control_fd, listen_fd;
    const char *behind, *call; /* call: the text that makes a call */
    const char *const *replaced;
    int delay_ms, lose_count, late_count, late_ms, mute_count, twice_count, twice_ms;
    bool mute_calls;                   /* what is muted does not reach Redis either */
    bool silent, away, swallow[SIDES]; /* swallow: what is on the way to that side */
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

/* --- addresses ----------------------------------------------------------------------------------------- */
union where {
    struct sockaddr any;
    struct sockaddr_un path;
    struct sockaddr_in port;
};

static socklen_t where_is(const char *address, union where *out)
{
    const char *colon = address[0] != '/' ? strrchr(address, ':') : NULL;
    memset(out, 0, sizeof *out);
    if (colon == NULL) {
        out->path.sun_family = AF_UNIX;
        snprintf(out->path.sun_path, sizeof out->path.sun_path, "%s", address);
        return sizeof out->path;
    }
    out->port.sin_family = AF_INET;
    out->port.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    out->port.sin_port = htons((uint16_t)strtoul(colon + 1, NULL, 10));
    return sizeof out->port;
}

/* On a machine's own addresses a connection is there at once, or not at all. */
static int connect_behind(void)
{
    union where where;
    int on = 1;
    socklen_t bytes = where_is(child.behind, &where);
    int fd = socket(where.any.sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd >= 0 && connect(fd, &where.any, bytes) == 0) {
        fcntl(fd, F_SETFL, O_NONBLOCK);
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on); /* of a Unix socket it does not matter */
        return fd;
    }
    if (fd >= 0) {
        close(fd);
    }
    return -1;
}

/* A link of this client's (-1: of nobody's) to Redis, or NULL. */
static struct link *open_link(int client_fd, enum link_state state)
{
    size_t i = 0;
    while (i < LINKS_MAX && child.links[i].state != LINK_FREE) {
        i++;
    }
    int redis_fd = i < LINKS_MAX ? connect_behind() : -1;
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
    int on = 1, fd = accept4(child.listen_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if (fd >= 0 && (child.away || open_link(fd, LINK_OPEN) == NULL)) {
        close(fd);
    }
}

static void put(struct link *link, enum side to, const char *data, size_t bytes, int delay_ms)
{
    if (child.swallow[to] || link->swallowed[to] || link->fds[to] < 0) {
        link->swallowed[to] = true;
        return;
    }
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

static void replace(char *data, size_t bytes)
{
    for (size_t i = 0; child.replaced != NULL && child.replaced[i] != NULL; i += 2) {
        size_t length = strlen(child.replaced[i]);
        char *end = data + bytes;
        for (char *at = data; (at = memmem(at, (size_t)(end - at), child.replaced[i], length)) != NULL;
             at += length) {
            memcpy(at, child.replaced[i + 1], length);
        }
    }
}

static void from_redis(struct link *link, char *data, size_t bytes)
{
    replace(data, bytes);
    if (link->state == LINK_OPEN && child.silent) {
        link->state = LINK_MUTE;
    } else if (link->state == LINK_OPEN) {
        put(link, CLIENT, data, bytes, child.delay_ms);
    } else if (link->state != LINK_MUTE && link->first[REDIS] == NULL) { /* the answer that nobody gets */
        close_link(link);
    }
}

/* One side has gone, and the other hears of it, unless that is swallowed. */
static void hang_up(struct link *link, enum side from)
{
    enum side to = from == CLIENT ? REDIS : CLIENT;
    if ((child.swallow[to] || link->swallowed[to]) && link->fds[to] >= 0) {
        link->swallowed[to] = true;
        close_side(link, from);
    } else {
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
        hang_up(link, from);
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

static void swallow(enum side to, bool begin)
{
    for (size_t i = 0; child.swallow[to] && !begin && i < LINKS_MAX; i++) {
        if (child.links[i].state != LINK_FREE && child.links[i].swallowed[to]) {
            close_link(&child.links[i]);
        }
    }
    child.swallow[to] = begin;
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
    } else if (order.action == PROXY_CALLS_SWALLOWED) {
        swallow(REDIS, order.count > 0);
    } else if (order.action == PROXY_ANSWERS_SWALLOWED) {
        swallow(CLIENT, order.count > 0);
    }
    if (order.action == PROXY_CUT || (order.action == PROXY_AWAY && child.away)) {
        close_links(LINK_OPEN, true);
    }
    if (order.action == PROXY_CALM) {
        child.delay_ms = child.lose_count = child.late_count = child.mute_count = child.twice_count = 0;
        child.away = false;
        be_silent(false);
        swallow(CLIENT, false);
        swallow(REDIS, false);
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

static int listen_on(const char *address)
{
    union where where;
    int on = 1;
    socklen_t bytes = where_is(address, &where);
    if (where.any.sa_family == AF_UNIX) {
        unlink(address);
    }
    int fd = socket(where.any.sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    assert_true(fd >= 0);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    assert_int_equal(bind(fd, &where.any, bytes), 0);
    assert_int_equal(listen(fd, LINKS_MAX), 0);
    return fd;
}

void proxy_start(struct proxy *proxy, const char *listen_path, const char *redis_path)
{
    proxy_start_for(proxy, listen_path, redis_path, NULL);
}

void proxy_start_for(struct proxy *proxy, const char *listen_path, const char *redis_path, const char *call)
{
    struct proxy_plan plan = {.listen = listen_path, .behind = redis_path, .call = call};
    proxy_start_as(proxy, &plan);
}

void proxy_start_as(struct proxy *proxy, const struct proxy_plan *plan)
{
    int pair[2], listen_fd = listen_on(plan->listen);
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
        child.behind = plan->behind;
        child.call = plan->call != NULL ? plan->call : "EVALSHA";
        child.replaced = plan->replaced;
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
