/* Chaos: the real server sells, something fails at a random moment, the system heals by itself, and the store
 * is audited. What the files of this folder share.
 *
 *   chaos.c          options, the run: stores, blocks of rounds in one mode, the final audit
 *   chaos_bench.c    the servers, their Redis and the proxies: starting, stopping, switching between modes
 *   chaos_several.c  two servers on one Redis and one store: who records, the links, Redis with its replica and Sentinels,
 *                    PostgreSQL
 *   chaos_nodes.c    the five nodes of the Redlock gate, and what they say
 *   chaos_buyers.c   sixty people who buy and cancel without end, two admins who restock and withdraw
 *   chaos_history.c  every request of theirs, and what each answer says
 *   chaos_faults*.c  the table of faults, one small function each: _redis: of the Lua gate's Redis, _nodes: of the
 *                    Redlock gate's nodes, _several: of several servers, what they share and the links to it
 *   chaos_round.c    one round
 *   chaos_audit*.c   what must hold, by the store: orders, _books: stock, _answers: what was told,
 *                    _kept: is it still there at the end? _nodes: what holds with and without a majority,
 *                    _sql: the store read once more, by SQL of our own
 *   chaos_report.c   lines, summary, the folder of a failed round
 *   chaos_sweep.c    every failpoint with every action
 *   chaos_selftest.c histories that were falsified, for the audit to notice
 *
 * One process, one thread. A support function's failed assertion ends the round, not the run (chaos_asserts.c). */
#ifndef DOORBUSTER_CHAOS_H
#define DOORBUSTER_CHAOS_H

#include "testing.h"

#include "crowd.h"
#include "proxy.h"
#include "redis_fixture.h"
#include "server_fixture.h"

#include "doorbuster/store.h"

#include <signal.h>

#define BUYERS 60
#define ADMINS 2
#define PEOPLE (BUYERS + ADMINS)
#define LINES_MAX 3
#define PRODUCT_PRICE 500 /* of server_fixture's products */
#define BUNDLE_PRICE 1200
#define KEY_BYTES 40
#define ROUND_FAULTS_MAX 2
#define SERVERS_MAX 2 /* that share a store */
#define NODES 5
#define MAJORITY 3
#define LOCK_TTL_MS 1000 /* of the servers; so long a restarted node does not vote */
#define RECOVERY_PATIENCE_MS 15000
#define PATIENCE_MS 20000
#define VIOLATIONS_KEPT 20
#define SENTENCE_BYTES 320

/* --- options ------------------------------------------------------------------------------------------- */
/* The Lua gate with three kinds of Redis; the Redlock gate on nodes of ours, each behind a proxy of each server's, or on the
 * server's own nodes; two servers with the Lua gate, on one Redis and one file, or on a Redis that fails over and PostgreSQL,
 * each behind proxies of each server's. */
enum chaos_mode {
    MODE_SPAWN,
    MODE_EXTERNAL,
    MODE_PROXY,
    MODE_NODES,
    MODE_NODES_SPAWN,
    MODE_SEVERAL,
    MODE_CLUSTER,
    MODES
};
extern const char *const mode_names[MODES];
#define LUA_MODES (1u << MODE_SPAWN | 1u << MODE_EXTERNAL | 1u << MODE_PROXY)
#define REDLOCK_MODES (1u << MODE_NODES | 1u << MODE_NODES_SPAWN)
#define SEVERAL_MODES (1u << MODE_SEVERAL | 1u << MODE_CLUSTER)
static inline bool is_several(enum chaos_mode mode)
{
    return (SEVERAL_MODES & 1u << mode) != 0;
}
static inline bool is_redlock(enum chaos_mode mode)
{
    return (REDLOCK_MODES & 1u << mode) != 0;
}

struct chaos_options {
    unsigned rounds, workers, block_rounds, store_rounds;
    uint64_t seed;
    bool replay;       /* `seed` is a round's own */
    int mode;          /* of every round; -1: any of `modes` */
    unsigned modes;    /* 1 << MODE_… | … */
    unsigned servers;  /* in MODE_NODES; 0: one or two */
    const char *fault; /* "NAME" or "NAME+NAME"; NULL: any */
    bool sweep, keep, keys, self_test;
    const char *folder;
};
extern struct chaos_options options;
extern volatile sig_atomic_t interrupted;

/* --- history ------------------------------------------------------------------------------------------- */
struct request { /* one HTTP request and what came of it */
    unsigned wish, attempt, server;
    int status; /* or CROWD_BROKEN */
    int64_t sent_us, got_us;
    bool replayed;
};

/* What is on sale in a round, by its place in round.products. The bundle is made of the other two. */
enum { SCARCE, PLENTIFUL, BUNDLE, PRODUCTS };
extern const int64_t bundle_units[PRODUCTS]; /* of each in one bundle */

enum wish_kind { WISH_PURCHASE, WISH_CANCEL, WISH_CHANGE, WISH_KINDS };
enum outcome { UNKNOWN, CONFIRMED, SOLD_OUT, REFUSED };

struct wish_line {
    unsigned product; /* its place in round.products */
    int64_t quantity;
    bool is_short;     /* SOLD_OUT: this line cannot be had */
    int64_t remaining; /* CONFIRMED, and of a short line */
};

/* What somebody wants: one request, or as many as it takes. */
struct wish {
    enum wish_kind kind;
    unsigned person;
    bool keyed;   /* with an Idempotency-Key */
    bool repeats; /* until its outcome is known: whatever has a key, and all cancels */
    bool as_cart;
    struct wish_line lines[LINES_MAX]; /* of a change one, with its delta as the quantity */
    size_t line_count;
    enum outcome outcome;
    unsigned attempts;
    int64_t first_sent_us, last_sent_us, got_us;
    int64_t order;                /* a purchase's, once it is confirmed; the one to cancel */
    int64_t cancelled_at_ms;      /* a cancel's, once it is confirmed */
    struct log_position position; /* a change's; likewise */
    int64_t stock;                /* likewise: the product's afterwards */
    bool unavailable;             /* answered 503 at least once */
    bool matched;                 /* by the audit: what the store has is explained by this one */
};

struct history {
    struct request *requests;
    size_t request_count, request_room;
    struct wish *wishes;
    size_t wish_count, wish_room;
    size_t confirmed, sold_out, refused, unavailable, broken, rejected, replayed, other;
    size_t carts, bundles;                  /* of those confirmed: with several lines, with a bundle */
    size_t cancels, changes, changes_short; /* 200; 409 for want of stock */
    size_t sold_broken, sold_unavailable;   /* orders of purchases whose outcome the buyer does not know */
    int other_status;                       /* the last */
};
extern struct history history;

struct wish *history_add(const struct wish *wish); /* the pointer is good until the next one is added */
void history_note(size_t place, unsigned server, const struct crowd_answer *answer,
                  const int64_t products[PRODUCTS]);
void history_clear(void);

/* --- the bench ----------------------------------------------------------------------------------------- */
struct bench {
    struct server_fixture server, second; /* second: on the same store, in a folder of its own */
    unsigned server_count;
    struct redis_fixture redis; /* external Redis */
    struct proxy proxy;
    char proxy_path[FOLDER_BYTES + 16], redis_url[128], failpoints[FOLDER_BYTES + 16];
    char snapshot[FOLDER_BYTES + 16];
    struct redis_fixture nodes[NODES];           /* MODE_NODES */
    struct proxy node_links[SERVERS_MAX][NODES]; /* each server's to each node */
    char node_link_paths[SERVERS_MAX][NODES][FOLDER_BYTES + 16], node_lists[SERVERS_MAX][512];
    bool there, has_redis, has_nodes, tmpfs;
    enum chaos_mode mode;
    enum redis_persistence persistence;
    int64_t killed_us; /* when all processes of a server were killed last */
    unsigned kills;    /* of the server's children since it was started */
    pid_t stopped[SERVER_CHILDREN_MAX];
    size_t stopped_count;
    long log_seen[SERVERS_MAX]; /* the logs up to here have been looked through */
};
extern struct bench bench;

void bench_begin(bool small_disk); /* a new store; small_disk: on a tmpfs, if we may mount */
/* (Re)starts the server in this mode, on the same data, or two of them. */
void bench_switch(enum chaos_mode mode, unsigned servers);
void bench_start(void); /* the servers, on their last ports */
void bench_start_server(unsigned server);
void bench_stop(void);
uint16_t bench_free_port(void);
struct server_fixture *bench_server(unsigned server);
void bench_end(void); /* whatever state it is in; forgets the store */
void bench_kill_everything(void);
void bench_kill_server(unsigned server); /* all its processes */
void bench_stop_process(pid_t pid);      /* SIGSTOP; bench_continue() wakes all that were stopped */
void bench_continue(void);
/* The processes of this title of all servers. */
size_t bench_find(const char *title, pid_t pids[SERVER_CHILDREN_MAX]);
bool bench_is_calm(void); /* all processes are there, and all nodes vote */
void bench_wait_calm(void);
pid_t bench_redis_pid(void);
redisContext *bench_connect(void); /* past the proxy; NULL: not now */
void bench_set_persistence(enum redis_persistence persistence);
void bench_redis_kill(void); /* external Redis */
void bench_redis_launch(enum redis_persistence persistence);
/* The logs since the last call: a bug's line, or NULL. */
const char *bench_log_bug(void);
char *bench_verify(int *exit_code); /* what `verify` said; malloc'ed */

/* --- the nodes, chaos_nodes.c ------------------------------------------------------------------------------- */
void nodes_start(void); /* those that do not run; the proxies of all servers anew */
void nodes_end(void);
bool nodes_calm(int timeout_ms); /* no link is to fail any more; false: what is held cannot be delivered */
void node_launch(unsigned node); /* empty; waits until it answers */
void node_kill(unsigned node);
redisContext *node_connect(unsigned node); /* past the proxies; NULL: not now */
/* What the node says that the product's stock is; false: nothing, or nothing that makes sense. */
bool node_stock(redisContext *node, int64_t product_id, int64_t *stock, struct log_position *version);
#define NODE_KEY_BYTES 80
void node_stock_key(int64_t product_id, char out[NODE_KEY_BYTES]);
/* How many nodes say exactly this. */
unsigned nodes_that_say(int64_t product_id, int64_t stock);

/* --- several servers, chaos_several.c ----------------------------------------------------------------------- */
/* What each server has to what they share: all that leads to Redis, and to its Sentinels; to the store. */
enum { LINKS_TO_REDIS = 1, LINKS_TO_STORE = 2 };
#define LEASE_KEY "{doorbuster}:recorder"
void several_start(void); /* what does not run; the proxies of all servers anew */
void several_end(void);
/* Redis and its replica, the Sentinels and the store answer and know of each other, and somebody records. */
bool several_calm(void);
bool several_links_calm(int timeout_ms); /* as nodes_calm() */
void several_links_do(unsigned server, unsigned links, enum proxy_action action, int ms, int count);
const char *several_redis_url(unsigned server); /* SERVERS_MAX: past the proxies */
const char *several_store_url(unsigned server);
redisContext *several_connect(void); /* to the master, past the proxies; NULL: not now */
pid_t several_master_pid(void);
/* The server whose recorder has the lease; SERVERS_MAX: none has, it seems. */
unsigned several_active(void);
pid_t several_recorder(unsigned server);
bool several_has_postgres(enum chaos_mode mode); /* else a file */

/* --- the cluster, chaos_cluster.c: Redis with a replica and three Sentinels, and PostgreSQL ------------------- */
#define REDIS_URL_BYTES 512
/* What does not run of it; the URLs past the proxies. */
void cluster_start(char redis_url[REDIS_URL_BYTES], char store_url[STORE_FIXTURE_URL_BYTES]);
void cluster_end(void);
/* The links that a server needs to all of Redis, their number, and what it is told as --redis; the same for the store. */
size_t cluster_plan_redis_links(unsigned server, struct proxy_plan *plans, char url[REDIS_URL_BYTES]);
void cluster_plan_store_link(unsigned server, struct proxy_plan *plan, char url[REDIS_URL_BYTES]);
/* All answer, a majority of the Sentinels agrees who the master is, its replica has heard everything. */
bool cluster_is_whole(void);
bool cluster_master(
    struct redis_address *out); /* as the Sentinels have it; false: they do not know, or do not agree */
pid_t cluster_master_pid(void);
pid_t cluster_replica_pid(void);
void cluster_kill_master(void);
void cluster_launch_redis(void);                       /* those that were killed; does not wait for them */
void cluster_cut_master_off(enum proxy_action action); /* from the Sentinels and its replica */
void cluster_reconnect(void);
void cluster_ask_failover(void); /* waits for it, not for long */
/* Since when the Sentinels have named another master than at the last cluster_watch(); 0: they do not. */
void cluster_watch(void);
int64_t cluster_renamed_us(void);
bool cluster_has_failed_over(void); /* since the last cluster_watch() */
void cluster_kill_store(void);      /* kill -9, all its processes */
void cluster_launch_store(void);    /* if it was killed; waits until it answers */
void cluster_stop_store(void);      /* SIGSTOP, all its processes */
void cluster_continue_store(void);  /* if it was stopped */
void cluster_await_recovery(void);  /* after a session was killed: until it lets others in again */
size_t cluster_sessions(pid_t pids[SERVER_CHILDREN_MAX]); /* its processes that have a client */
#define CLUSTER_LOGS 5
void cluster_log_paths(char paths[CLUSTER_LOGS][FOLDER_BYTES + 32]);

/* --- buyers -------------------------------------------------------------------------------------------- */
void buyers_open(void); /* for a server that was just started; keeps the accounts of the store */
void buyers_forget(void);
void buyers_begin(const int64_t products[PRODUCTS], uint64_t seed);
void buyers_step(int ms);
void buyers_for(int ms);
bool buyers_finish(int timeout_ms); /* false: somebody got no answer */
void buyers_close(void);
int64_t buyers_user(unsigned person);
/* The Idempotency-Key of a wish in the history; "" if it has none. */
void buyers_key(const struct wish *wish, char out[KEY_BYTES]);
/* When each server but this one (SERVERS_MAX: each) had confirmed a first sale that was asked for after `since_us`; 0: not yet. */
int64_t buyers_first_sale(int64_t since_us, unsigned but);

/* --- faults -------------------------------------------------------------------------------------------- */
enum fault_flags {
    FORGETS = 1,     /* Redis may lose reservations that were not recorded */
    REJECTS = 2,     /* 409 "order rejected" is an answer then */
    STRICT = 4,      /* not one request may fail */
    ALONE = 8,       /* not in a pair */
    EDITED = 16,     /* somebody edits Redis: the audit waits for the healing; until then 404 is an answer */
    INSTANT = 256,   /* what its heal() does is no end of a cause: recovery counts from the fault itself */
    KILLS = 32,      /* children of the server: the supervisor backs off if they die often */
    REDIS_DIES = 64, /* the goal is 2 s */
    REDIS_PROCESS = 128, /* at most one of these in a pair: processes of Redis */
    /* Of the Redlock gate: */
    NO_MAJORITY = 512,   /* until it is healed no sale can be confirmed, by the server that it concerns */
    TWO_SERVERS = 1024,  /* only where there are two; the other one goes on */
    LIES = 2048,         /* figures on nodes are edited: until they are mended "sold out" may be untrue */
    OUTLASTS_TTL = 4096, /* a lock has to end by itself: the goal is a TTL and a second */
    NO_PAUSE = 8192,     /* sales go on meanwhile */
    NODES_KNOW = 16384,  /* a majority of the nodes knows of new stock before anybody is told of it */
    /* Of several servers: */
    TAKEN_OVER = 32768,  /* another recorder goes on: the goal is 2 s */
    FAILED_OVER = 65536, /* Redis's replica goes on: the goal is 4 s */
    IN_SHORT = 131072,   /* of the short sweep */
};

struct round;
struct fault {
    const char *name;
    unsigned modes; /* 1 << MODE_… | … */
    unsigned flags;
    void (*prepare)(struct round *round); /* before the buyers come; may be NULL */
    void (*inject)(struct round *round);
    void (*heal)(struct round *round); /* after heal_after_ms; NULL: nothing to do */
    unsigned heal_min_ms, heal_max_ms;
};
extern const struct fault faults[];
extern const size_t fault_count;
const struct fault *fault_find(const char *name, size_t bytes);

/* Those of chaos_faults_redis.c */
const struct fault *fault_next(enum chaos_mode mode, size_t *at, bool short_sweep); /* NULL: that was all */
void fault_none(struct round *round);
#define FAULT_FUNCTION(name) void name(struct round *round)
FAULT_FUNCTION(prepare_nothing_kept);
FAULT_FUNCTION(prepare_rdb);
FAULT_FUNCTION(prepare_everysec);
FAULT_FUNCTION(prepare_always);
FAULT_FUNCTION(prepare_snapshot);
FAULT_FUNCTION(restart_redis);
FAULT_FUNCTION(restart_redis_empty);
FAULT_FUNCTION(restart_redis_old);
FAULT_FUNCTION(restart_redis_cut);
FAULT_FUNCTION(link_cut);
FAULT_FUNCTION(link_delay);
FAULT_FUNCTION(link_delay_over);
FAULT_FUNCTION(link_lose_answer);
FAULT_FUNCTION(link_deliver_late);
FAULT_FUNCTION(lock_database);
FAULT_FUNCTION(unlock_database);
FAULT_FUNCTION(fill_disk);
FAULT_FUNCTION(empty_disk);
/* Those of chaos_faults_nodes.c */
FAULT_FUNCTION(kill_one_node);
FAULT_FUNCTION(kill_two_nodes);
FAULT_FUNCTION(kill_three_nodes);
FAULT_FUNCTION(launch_nodes);
FAULT_FUNCTION(stop_one_node);
FAULT_FUNCTION(stop_two_nodes);
FAULT_FUNCTION(stop_three_nodes);
FAULT_FUNCTION(two_nodes_late);
FAULT_FUNCTION(all_nodes_late);
FAULT_FUNCTION(two_nodes_silent);
FAULT_FUNCTION(three_nodes_silent);
FAULT_FUNCTION(calm_nodes);
FAULT_FUNCTION(cut_nodes);
FAULT_FUNCTION(lose_node_answers);
FAULT_FUNCTION(deliver_to_nodes_late);
FAULT_FUNCTION(deliver_to_nodes_twice);
FAULT_FUNCTION(partition_server);
FAULT_FUNCTION(flush_one_node);
FAULT_FUNCTION(flush_all_nodes);
FAULT_FUNCTION(edit_one_figure);
FAULT_FUNCTION(edit_all_figures);
FAULT_FUNCTION(delete_locks);
FAULT_FUNCTION(take_locks);

/* Those of chaos_faults_several.c */
FAULT_FUNCTION(kill_active_server);
FAULT_FUNCTION(kill_idle_server);
FAULT_FUNCTION(hand_over);
FAULT_FUNCTION(start_concerned_server);
FAULT_FUNCTION(kill_active_recorder);
FAULT_FUNCTION(kill_both_recorders);
FAULT_FUNCTION(stop_active_recorder);
FAULT_FUNCTION(delete_lease);
FAULT_FUNCTION(steal_lease);
FAULT_FUNCTION(kill_master);
FAULT_FUNCTION(launch_redis);
FAULT_FUNCTION(stop_master);
FAULT_FUNCTION(stop_replica);
FAULT_FUNCTION(cut_master_off);
FAULT_FUNCTION(reconnect_master);
FAULT_FUNCTION(lose_writes);
FAULT_FUNCTION(there_and_back);
FAULT_FUNCTION(ask_failover);
FAULT_FUNCTION(kill_store);
FAULT_FUNCTION(launch_store);
FAULT_FUNCTION(stop_store);
FAULT_FUNCTION(continue_store);
FAULT_FUNCTION(kill_session);
FAULT_FUNCTION(end_sessions);
FAULT_FUNCTION(redis_calls_swallowed);
FAULT_FUNCTION(redis_answers_swallowed);
FAULT_FUNCTION(redis_silent);
FAULT_FUNCTION(redis_away);
FAULT_FUNCTION(store_calls_swallowed);
FAULT_FUNCTION(store_answers_swallowed);
FAULT_FUNCTION(store_silent);
FAULT_FUNCTION(store_away);
FAULT_FUNCTION(host_isolated);
FAULT_FUNCTION(calm_links);
FAULT_FUNCTION(cut_redis_links);
FAULT_FUNCTION(cut_store_links);
FAULT_FUNCTION(lose_redis_answers);
FAULT_FUNCTION(deliver_to_redis_late);
FAULT_FUNCTION(lose_commit_answers);
FAULT_FUNCTION(deliver_commits_late);

/* --- rounds -------------------------------------------------------------------------------------------- */
struct round {
    unsigned number;
    uint64_t seed, random;
    enum chaos_mode mode;
    const struct fault *faults[ROUND_FAULTS_MAX];
    size_t fault_count;
    int64_t heal_at_us[ROUND_FAULTS_MAX]; /* 0: nothing to heal (any more) */
    unsigned flags;                       /* of all its faults */
    unsigned servers;
    /* which server a fault with NO_MAJORITY, TWO_SERVERS or TAKEN_OVER concerns; SERVERS_MAX: all */
    unsigned concerned;
    char names[96];
    int64_t products[PRODUCTS], stocks[PRODUCTS];
    int64_t order_before, order_last;
    int64_t row_before; /* the audit log's last, before the products were put up */
    int64_t began_us, first_fault_us, fault_us, heal_began_us, healed_us, concerned_healed_us, calm_us,
        recovered_us;
    bool unasked_failover; /* the Sentinels took a busy machine for a dead one */
    bool store_was_held;   /* by the worker that was stopped: nobody can sell until it goes on */
    int64_t recovery_ms;   /* -1: none */
    int64_t back_ms;  /* a server that a fault had concerned alone: from when that was healed; -1: none was */
    int64_t named_ms; /* recovery, from when the Sentinels had named another master; -1: they did not */
    int64_t pause_ms; /* the longest without a sale, on servers that the fault does not concern */
    /* REDLOCK_MODES: so long after the last answer all nodes said what the store says; -1: never */
    int64_t meeting_ms;
    size_t violations;
    char sentences[VIOLATIONS_KEPT][SENTENCE_BYTES];
};

uint64_t seed_of(uint64_t base, uint64_t number);
void round_choose(struct round *round); /* faults, from the seed and the mode */
void round_run(struct round *round);
void violation(struct round *round, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Runs `body`; an assertion that fails in it is a violation of the round and puts the bench down. */
bool guarded(struct round *round, void (*body)(struct round *round));

/* --- the audit ----------------------------------------------------------------------------------------- */
/* What was read from the store: for chaos_selftest.c to falsify. */
struct audited_order {
    struct store_order order; /* sale.more points at `more` */
    struct order_part more[LINES_MAX * PRODUCTS];
    bool explained;                     /* by a confirmed purchase, or by one of unknown outcome */
    unsigned char given_back[PRODUCTS]; /* how often, by the audit log */
};
struct readings {
    struct audited_order *orders; /* in order of id */
    size_t order_count;
    struct store_audit_row *rows; /* of the audit log, in order */
    size_t row_count;
    struct store_product products[PRODUCTS];
};

void audit_round(struct round *round);
int64_t audit_last_order(void);
int64_t audit_store_id(void);
int64_t audit_last_row(void);
/* Everything that was ever confirmed from this store, once more. */
void audit_kept(struct round *round);
size_t kept_count(void);
void kept_forget(void);

/* --- reports ------------------------------------------------------------------------------------------- */
void report_begin(void);
void report_round(const struct round *round);
void report_end(void);
bool report_summary(void); /* true: nothing was violated */
void report_acks_header(unsigned store);
void report_acks_line(const struct sale_order *order);

/* --- the sweep ----------------------------------------------------------------------------------------- */
size_t sweep_not_passed(void); /* rounds that showed nothing, for nobody came to their failpoint */
void sweep_end(void);
const struct fault *sweep_find(const char *name, size_t bytes);
void sweep_make_file(void); /* for a server that is about to start */
size_t sweep_count(void);
const struct fault *sweep_fault(size_t index);

/* --- is the audit awake? ------------------------------------------------------------------------------- */
void selftest_audit(struct round *round); /* in place of audit_round(): once for each falsification */
void selftest_falsify_readings(struct readings *readings);
bool selftest_passed(const struct round *round);

#endif
