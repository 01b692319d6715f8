/* Connections to Redis (RESP2, hiredis 0.14): an address, a blocking connection, and a link on a libuv loop that mends itself. */
#ifndef DOORBUSTER_REDIS_H
#define DOORBUSTER_REDIS_H

#include <hiredis/hiredis.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uv.h>

/* What an address names: one Redis; the master of a group that Sentinels watch; the master of a Redis Cluster that has a key's slot. Of the last
 * two, connecting finds out which Redis that is at the moment. */
enum redis_kind { REDIS_DIRECT, REDIS_BY_SENTINEL, REDIS_IN_CLUSTER };

#define REDIS_SEEDS_MAX 9
#define REDIS_SENTINEL_PORT 26379
struct redis_host {
    char host[256];
    int port;
};

/* Of an account: Redis's, or a Sentinel's. */
struct redis_login {
    char user[128];     /* "": the one that is called "default" */
    char password[256]; /* "": none is said */
};

struct redis_address {
    enum redis_kind kind;
    char host[256]; /* REDIS_DIRECT; "" when `path` is used */
    int port;
    char path[108]; /* Unix socket */
    struct redis_login login;
    int database;
    /* Whom to ask: Sentinels, or nodes of a Cluster. */
    unsigned seed_count;
    struct redis_host seeds[REDIS_SEEDS_MAX];
    char group[64];                    /* REDIS_BY_SENTINEL: the master's name */
    struct redis_login sentinel_login; /* the Sentinels' own */
    char key[64]; /* REDIS_IN_CLUSTER: its slot's owner is meant; whoever parses sets it */
};

/* "redis://[LOGIN@]host[:port][/db]", "unix:/path" or "unix://LOGIN@/path";
 * "sentinel://[LOGIN@]NAME@host[:port],host[:port],…[/db]": the hosts are Sentinels (port 26379), NAME is what they call the master, LOGIN is for
 * Redis; the Sentinels' own, if they want one, is in the environment: REDIS_SENTINEL_USER and REDIS_SENTINEL_PASSWORD;
 * "cluster://[LOGIN@]host[:port],host[:port],…": some nodes of a Redis Cluster, LOGIN for each of them.
 * LOGIN is "[user]:password", percent-decoded; an IPv6 address stands in brackets. At most REDIS_SEEDS_MAX hosts. False: `error` says what it may be. */
bool redis_address_parse(const char *url, struct redis_address *out, char *error, size_t error_bytes);
/* For messages; never with a password. */
void redis_address_format(const struct redis_address *address, char *out, size_t out_bytes);

/* --- blocking: the recorder, setup, verify, pool jobs ------------------------------------------------------------------- */
/* Connects, authenticates, selects the database; every later command has `timeout_ms` too. A master that is to be found is looked for for at most as long,
 * beginning with whoever answered this thread last, and is one by its own word (ROLE). NULL: `error` says why. */
redisContext *redis_connect_blocking(const struct redis_address *address, int timeout_ms, char *error,
                                     size_t error_bytes);
/* Of this thread's last redis_connect_blocking(), which has failed: was it because of the user, the password, or what the user may do? Then trying again
 * helps only once somebody has changed them. */
bool redis_login_was_refused(void);

/* The value of the line "name:value" in what INFO answered; `name` with its colon. "" if there is none. */
void redis_info_value(const char *info, const char *name, char *out, size_t out_bytes);
/* A connection with no command on its way: has the other end given it up meanwhile, or said that it is not, or not now, whom we look for
 * (redis_is_elsewhere())? */
bool redis_is_dead(const redisContext *redis);
/* Do more of the Sentinels know the master at another place than where this connection is? Asks one of them, in turn, and the others only if that one
 * says so; each has `timeout_ms`. False for other kinds of address, and if nobody answers. */
bool redis_was_replaced(const struct redis_address *address, const redisContext *redis, int timeout_ms);
/* Is this an error reply of a Redis that is no master (any more), or does not have the slot, or not now: READONLY, MOVED, ASK, TRYAGAIN, CLUSTERDOWN,
 * MASTERDOWN, LOADING? Nothing was done then. Every connection and link that hears it is of no more use, and is found anew. */
bool redis_is_elsewhere(const char *error);
/* Is this an error reply that speaks of the user, the password, or what the user may do? */
bool redis_is_login_refusal(const char *error);

/* One command from printf-like parts. NULL on a broken connection *or* an error reply; redis_failure() then says which. The reply is the
 * caller's: freeReplyObject. */
redisReply *redis_ask(redisContext *redis, const char *format, ...);
/* Writes what redisAppendCommand() put down, so that Redis works on it while the caller does something else. A failure shows with the replies. */
void redis_send_appended(redisContext *redis);
/* The reply to the oldest command that redisAppendCommand() put down and nobody has read yet. As redis_ask(). */
redisReply *redis_next_reply(redisContext *redis);
/* What answers may be an unknown Redis, or a script that somebody named in the head by hand: its reply is not trusted to be what was asked for.
 * A reply that is not: frees it, redis_failure() says so. False. */
bool redis_not_understood(redisReply *reply);
/* NULL, and that failure, unless it is a list of at least so many. NULL stays NULL. */
redisReply *redis_list_of(redisReply *reply, size_t elements);
/* The text of a reply; "" if it has none. */
const char *redis_text(const redisReply *reply);
bool redis_is_list(const redisReply *reply, size_t elements);
/* Did it work? For a reply whose content does not matter: frees it. NULL: false. */
bool redis_done(redisReply *reply);
/* The last failure of redis_ask on this thread, for the log: "NOSCRIPT No matching script", "Connection refused". */
const char *redis_failure(void);

/* --- a link on the loop: workers ------------------------------------------------------------------------------------------ */
/* One connection that reconnects by itself (20 ms doubling to 300 ms, with jitter), and looks each time anew where the master is. Names of
 * hosts are looked up off the loop. Commands are only buffered; redis_link_flush() writes them, once a turn of the loop. Loop thread only. */
struct redis_link;

struct redis_link_settings {
    const char *name; /* for the log: "calls" */
    struct redis_address address;
    int connect_timeout_ms;
    int command_timeout_ms; /* no reply at all for so long with commands pending: the link is given up */
    void (*up_cb)(void *context); /* connected, authenticated, answering */
    void (*down_cb)(
        void *context); /* was up, is lost; all pending commands have had their callback with NULL */
    void *context;
};

/* `reply` is NULL if the link broke: the command may or may not have been carried out. The reply is freed after the callback. Called on
 * the loop's thread, never before redis_link_command() has returned. */
typedef void (*redis_reply_cb)(const redisReply *reply, void *context);

struct redis_link *redis_link_new(uv_loop_t *loop, const struct redis_link_settings *settings);
bool redis_link_is_up(const struct redis_link *link);
/* False: the link is not up; no callback will come. */
bool redis_link_command(struct redis_link *link, redis_reply_cb cb, void *context, int argc,
                        const char **argv, const size_t *argv_bytes);
/* Every message on `channel` goes to `cb` (reply: "message", channel, payload), also the confirmation ("subscribe", …), and NULL when the
 * link is lost. The link then takes no other commands. */
bool redis_link_subscribe(struct redis_link *link, const char *channel, redis_reply_cb cb, void *context);
void redis_link_flush(struct redis_link *link);
/* Gives the connection up and makes a new one; pending commands get NULL. For a link that its owner knows to be dead. Not from a callback of
 * the link itself. */
void redis_link_reset(struct redis_link *link, const char *why);
/* Gives up at once; pending commands get NULL. The loop must run until its handles are closed; the memory is freed then. */
void redis_link_close(struct redis_link **link);

#endif
