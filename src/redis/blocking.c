/* Blocking Redis connections: for the recorder, the command-line tools and pool jobs, never for a worker's loop. The context belongs to
 * the caller; a failure is NULL and a sentence.
 *
 * A master that is to be found is looked for with whoever answered last first, one after the other, until the time is over: a Sentinel says where it is,
 * a node of a Cluster says so by MOVED, and the Redis found there must itself say that it is a master. */
#include "doorbuster/redis.h"

#include "doorbuster/clock.h"
#include "finding.h"
#include "login.h"
#include "names.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

static _Thread_local char failure[256];
static _Thread_local bool login_refused;

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

static redisReply *accept_reply(redisContext *redis, redisReply *reply)
{
    if (reply == NULL) {
        note_broken(redis);
        return NULL;
    }
    if (reply->type == REDIS_REPLY_ERROR) {
        note_failure(reply->str);
        if (redis_is_elsewhere(reply->str)) { /* whoever uses it shall connect anew */
            redis->err = REDIS_ERR_OTHER;
            snprintf(redis->errstr, sizeof redis->errstr, "%.100s", reply->str);
        }
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

bool redis_not_understood(redisReply *reply)
{
    note_failure("Redis answered something else than was asked for");
    freeReplyObject(reply);
    return false;
}

redisReply *redis_list_of(redisReply *reply, size_t elements)
{
    bool as_asked = reply == NULL || redis_is_list(reply, elements) || redis_not_understood(reply);
    return as_asked ? reply : NULL;
}

bool redis_done(redisReply *reply)
{
    if (reply == NULL) {
        return false;
    }
    freeReplyObject(reply);
    return true;
}

static bool log_in(redisContext *redis, const struct redis_login *login)
{
    const char *words[REDIS_LOGIN_WORDS];
    int count = redis_login_words(login, words);
    return count == 0 || redis_done(accept_reply(redis, redisCommandArgv(redis, count, words, NULL)));
}

static bool say_hello(redisContext *redis, const struct redis_login *login, int database)
{
    if (!log_in(redis, login)) {
        return false;
    }
    if (database != 0 && !redis_done(redis_ask(redis, "SELECT %d", database))) {
        return false;
    }
    return redis_done(redis_ask(redis, "PING"));
}

/* --- connecting --------------------------------------------------------------------------------------------------------------- */
static redisContext *connect_to_address(const struct addrinfo *address, int port, int timeout_ms)
{
    char numeric[NAMES_ADDRESS_BYTES];
    return getnameinfo(address->ai_addr, address->ai_addrlen, numeric, sizeof numeric, NULL, 0,
                       NI_NUMERICHOST) == 0
               ? redisConnectWithTimeout(numeric, port, timeout_of(timeout_ms))
               : NULL;
}

/* Of the host as it was named: redis_was_replaced() need not look that up. */
static void keep_name(redisContext *redis, const char *name)
{
    char *copy = strdup(name);
    if (copy != NULL) {
        free(redis->tcp.host);
        redis->tcp.host = copy;
    }
}

/* Its addresses one after the other. Left to hiredis, a name would be looked up twice where the name servers do not answer, and of one that has
 * both kinds of address only the IPv4 ones be tried. NULL, or a broken one: failed. */
static redisContext *connect_tcp(const struct redis_host *host, int timeout_ms)
{
    struct addrinfo *list, hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM};
    int64_t deadline_us = clock_monotonic_us() + (int64_t)timeout_ms * 1000;
    redisContext *redis = NULL;
    int fault = getaddrinfo(host->host, NULL, &hints, &list);
    if (fault != 0) {
        note_failure(gai_strerror(fault));
        return NULL;
    }
    const struct addrinfo *address;
    for (unsigned i = 0; (redis == NULL || redis->err != 0) && (address = finding_address(list, i)) != NULL &&
                         (i == 0 || clock_monotonic_us() < deadline_us);
         i++) {
        if (redis != NULL) {
            redisFree(redis);
        }
        redis = connect_to_address(address, host->port, timeout_ms);
    }
    freeaddrinfo(list);
    if (redis == NULL) {
        note_failure("out of memory");
    } else if (redis->err == 0) {
        keep_name(redis, host->host);
    }
    return redis;
}

/* Why a connection cannot be used, by the last failure. */
static void tell_refusal(const char *where, const struct redis_login *login, char *error, size_t error_bytes)
{
    if (redis_is_login_refusal(redis_failure())) {
        login_refused = true;
        snprintf(error, error_bytes, "Redis at %s does not let the user \"%s\" in: %s", where,
                 redis_login_user(login), redis_failure());
    } else {
        snprintf(error, error_bytes, "Redis at %s does not let us in: %s", where, redis_failure());
    }
}

/* Connected and let in; NULL: `error` says why, of the place `where`. */
static redisContext *let_in(redisContext *redis, const char *where, const struct redis_login *login,
                            int database, int timeout_ms, char *error, size_t error_bytes)
{
    if (redis == NULL || redis->err != 0) {
        snprintf(error, error_bytes, "cannot connect to Redis at %s: %s", where,
                 redis ? redis->errstr : redis_failure());
    } else if (redisSetTimeout(redis, timeout_of(timeout_ms)) != REDIS_OK ||
               !say_hello(redis, login, database)) {
        tell_refusal(where, login, error, error_bytes);
    } else {
        return redis;
    }
    if (redis != NULL) {
        redisFree(redis);
    }
    return NULL;
}

/* --- one that is to be found ------------------------------------------------------------------------------------------------- */
struct search {
    const struct redis_address *address;
    int timeout_ms;
    int64_t deadline_us;
    char *error; /* by whoever was asked last; but what a login was refused with stays */
    size_t error_bytes;
};

static int time_left_ms(const struct search *search, int at_most_ms)
{
    int64_t left_ms = (search->deadline_us - clock_monotonic_us()) / 1000;
    return left_ms < 1 ? 1 : left_ms < at_most_ms ? (int)left_ms : at_most_ms;
}

static bool time_is_over(const struct search *search)
{
    return clock_monotonic_us() >= search->deadline_us;
}

/* Of a server that answers and is of no use. */
static void fail(const struct search *search, const struct redis_host *host, const char *why)
{
    char where[REDIS_HOST_BYTES];
    redis_host_format(host, where, sizeof where);
    if (!login_refused) {
        snprintf(search->error, search->error_bytes, "%s %.200s", where, why);
    }
}

/* It has refused a command, which may be for want of rights. */
static void fail_refused(const struct search *search, const struct redis_host *host,
                         const struct redis_login *login)
{
    char where[REDIS_HOST_BYTES];
    if (redis_is_login_refusal(redis_failure()) && !login_refused) {
        redis_host_format(host, where, sizeof where);
        tell_refusal(where, login, search->error, search->error_bytes);
    } else {
        fail(search, host, redis_failure());
    }
}

static redisContext *connect_to(const struct search *search, const struct redis_host *host,
                                const struct redis_login *login, int database, int timeout_ms)
{
    char where[REDIS_HOST_BYTES], why[512];
    bool was_refused = login_refused;
    redis_host_format(host, where, sizeof where);
    redisContext *redis =
        let_in(connect_tcp(host, timeout_ms), where, login, database, timeout_ms, why, sizeof why);
    if (redis == NULL && !was_refused) {
        snprintf(search->error, search->error_bytes, "%s", why);
    }
    return redis;
}

/* True: *out is where this Sentinel says that the master is. */
static bool ask_sentinel(const struct search *search, const struct redis_host *sentinel,
                         struct redis_host *out)
{
    const struct redis_login *login = &search->address->sentinel_login;
    redisContext *redis = connect_to(search, sentinel, login, 0, time_left_ms(search, FINDING_SENTINEL_MS));
    if (redis == NULL) {
        return false;
    }
    redisReply *reply = redis_ask(redis, "SENTINEL GET-MASTER-ADDR-BY-NAME %s", search->address->group);
    bool known = reply != NULL && finding_master(reply, out);
    if (reply == NULL) {
        fail_refused(search, sentinel, login);
    } else if (!known) {
        fail(search, sentinel, "knows no master of that name");
    }
    freeReplyObject(reply);
    redisFree(redis);
    return known;
}

static redisContext *find_by_sentinel(const struct search *search, const struct redis_host *sentinel)
{
    const struct redis_login *login = &search->address->login;
    struct redis_host master;
    if (!ask_sentinel(search, sentinel, &master)) {
        return NULL;
    }
    redisContext *redis = connect_to(search, &master, login, search->address->database,
                                     time_left_ms(search, search->timeout_ms));
    redisReply *role = redis != NULL ? redis_ask(redis, "ROLE") : NULL;
    if (role != NULL && finding_is_master(role)) {
        freeReplyObject(role);
        return redis;
    }
    if (role != NULL) {
        fail(search, &master, "is no master, though a Sentinel says so");
    } else if (redis != NULL) {
        fail_refused(search, &master, login);
    }
    freeReplyObject(role);
    if (redis != NULL) {
        redisFree(redis);
    }
    return NULL;
}

/* Whoever does not have the key's slot says who has; a replica says who its master is. */
static redisContext *find_in_cluster(const struct search *search, const struct redis_host *node)
{
    const struct redis_login *login = &search->address->login;
    struct redis_host at = *node;
    for (int hops = 0; hops < FINDING_HOPS_MAX && !time_is_over(search); hops++) {
        redisContext *redis = connect_to(search, &at, login, 0, time_left_ms(search, search->timeout_ms));
        if (redis == NULL || redis_done(redis_ask(redis, "EXISTS %s", search->address->key))) {
            return redis;
        }
        fail_refused(search, &at, login);
        redisFree(redis);
        struct redis_host asked = at;
        if (!finding_moved(redis_failure(), asked.host, &at)) {
            return NULL;
        }
    }
    return NULL;
}

static redisContext *find(const struct redis_address *address, int timeout_ms, char *error,
                          size_t error_bytes)
{
    static _Thread_local unsigned first; /* who answered last */
    char why[512] = "nobody answered";
    struct search search = {address, timeout_ms, clock_monotonic_us() + (int64_t)timeout_ms * 1000, why,
                            sizeof why};
    redisContext *redis = NULL;
    for (unsigned i = 0; redis == NULL && i < address->seed_count && (i == 0 || !time_is_over(&search));
         i++) {
        const struct redis_host *seed = &address->seeds[(first + i) % address->seed_count];
        redis = address->kind == REDIS_BY_SENTINEL ? find_by_sentinel(&search, seed)
                                                   : find_in_cluster(&search, seed);
        if (redis != NULL) {
            login_refused = false; /* of another */
            first += i;
            redisSetTimeout(redis, timeout_of(timeout_ms)); /* whatever was left of it for connecting */
        }
    }
    if (redis == NULL) {
        char where[384];
        first++;
        redis_address_format(address, where, sizeof where);
        snprintf(error, error_bytes, "cannot find the Redis to use by %s: %s", where, why);
    }
    return redis;
}

redisContext *redis_connect_blocking(const struct redis_address *address, int timeout_ms, char *error,
                                     size_t error_bytes)
{
    struct redis_host host = {.port = address->port};
    char where[384];
    login_refused = false;
    if (address->kind != REDIS_DIRECT) {
        return find(address, timeout_ms, error, error_bytes);
    }
    redis_address_format(address, where, sizeof where);
    memcpy(host.host, address->host, sizeof host.host);
    return let_in(address->path[0] != '\0'
                      ? redisConnectUnixWithTimeout(address->path, timeout_of(timeout_ms))
                      : connect_tcp(&host, timeout_ms),
                  where, &address->login, address->database, timeout_ms, error, error_bytes);
}

/* --- is it still the master? ---------------------------------------------------------------------------------------------------- */
/* Whoever records asks for it every second, so no name is looked up here (names.c): a sale that has its Redis and its Sentinels needs no name server. */
enum place { HERE, ELSEWHERE, UNKNOWN };

/* One Sentinel may know a host by its name, another by its address. */
static enum place place_of(const struct redis_host *master, const redisContext *redis)
{
    struct sockaddr_storage peer;
    socklen_t bytes = sizeof peer;
    char at[NAMES_ADDRESS_BYTES], here[NAMES_ADDRESS_BYTES];
    if (redis->tcp.port != master->port) {
        return ELSEWHERE;
    }
    if (strcmp(redis->tcp.host, master->host) == 0) {
        return HERE;
    }
    if (!names_address(master->host, at) || getpeername(redis->fd, (struct sockaddr *)&peer, &bytes) != 0 ||
        getnameinfo((struct sockaddr *)&peer, bytes, here, sizeof here, NULL, 0, NI_NUMERICHOST) != 0) {
        return UNKNOWN;
    }
    return strcmp(at, here) == 0 ? HERE : ELSEWHERE;
}

/* Where this Sentinel sees the master. */
static enum place seen_by(const struct search *search, const struct redis_host *sentinel,
                          const redisContext *redis)
{
    struct redis_host at = *sentinel, master;
    char address[NAMES_ADDRESS_BYTES];
    if (!names_address(sentinel->host, address)) {
        return UNKNOWN;
    }
    snprintf(at.host, sizeof at.host, "%s", address);
    return ask_sentinel(search, &at, &master) ? place_of(&master, redis) : UNKNOWN;
}

bool redis_login_was_refused(void)
{
    return login_refused;
}

bool redis_was_replaced(const struct redis_address *address, const redisContext *redis, int timeout_ms)
{
    static _Thread_local unsigned next;
    unsigned here = 0, elsewhere = 0, count = address->kind == REDIS_BY_SENTINEL ? address->seed_count : 0;
    char why[512];
    struct search search = {.address = address, .error = why, .error_bytes = sizeof why};
    next++;
    for (unsigned i = 0; i < count && (i == 0 || elsewhere > 0); i++) { /* the first may end it */
        search.deadline_us = clock_monotonic_us() + (int64_t)timeout_ms * 1000;
        enum place place = seen_by(&search, &address->seeds[(next + i) % count], redis);
        here += place == HERE;
        elsewhere += place == ELSEWHERE;
    }
    return elsewhere > here;
}

/* Redis says nothing of its own accord: what can be read is the end, or what nobody asked for. */
bool redis_is_dead(const redisContext *redis)
{
    struct pollfd link = {.fd = redis->fd, .events = POLLIN};
    return redis->err != 0 || poll(&link, 1, 0) != 0;
}
