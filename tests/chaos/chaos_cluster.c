/* What the servers of MODE_CLUSTER share, all of it ours: a Redis and its replica, three Sentinels that watch over them,
 * and PostgreSQL. Signals go to recorded pids only, and to PostgreSQL's own processes, as /proc shows them.
 *
 * A node's configuration is a file, which the Sentinels rewrite: who comes back knows what it was when it died, as in life.
 * The Sentinels' own periods are shortened: a node that does not answer is down after 0.75 s, and one that comes back as
 * a master is told that it is none within one second, not eight. The Sentinels, and the other node, reach a node through a proxy
 * of their own, and tell of that: so a master can be cut off from them alone, while servers still sell there. */
#include "chaos.h"

#include "postgres_fixture.h"
#include "run.h"

#include "doorbuster/redis.h"

#include <libpq-fe.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define REDISES 2
#define SENTINELS 3
#define MEMBERS (REDISES + SENTINELS) /* the Redis processes; the first two hold the shop */
#define QUORUM 2
#define GROUP "shop"
#define TIMEOUT_MS 1000
#define FAILOVER_MS 3000
#define FIELD_BYTES 64
#define SESSIONS_END_MS 500
#define PORT_BYTES 8
#define SOCKET_NAME ".s.PGSQL.5432"
#define SESSION_TITLE "postgres: postgres " /* its user; its own processes have others */

struct member {
    pid_t pid; /* 0: not running */
    uint16_t port;
    char address[32];
};

static struct {
    bool there;
    char folder[FOLDER_BYTES];
    struct member members[MEMBERS];
    struct proxy among[REDISES]; /* what they and the Sentinels have to each node */
    struct member known_as[REDISES];
    struct proxy_plan plans[REDISES];
    uint16_t links[SERVERS_MAX][MEMBERS];
    char link_addresses[SERVERS_MAX][MEMBERS][32];
    char ports[SERVERS_MAX + 1][MEMBERS][PORT_BYTES]; /* those of the links; those that Sentinels tell of */
    const char *replaced[SERVERS_MAX][2 * MEMBERS + 1];
    struct postgres_fixture store;
    char store_url[POSTGRES_URL_BYTES];
    bool store_is_stopped;
    size_t watched; /* the master */
    int64_t renamed_us;
    uint64_t epoch;
} cluster;
static char store_paths[SERVERS_MAX + 1][FOLDER_BYTES + 48];

static bool is_sentinel(size_t member)
{
    return member >= REDISES;
}

/* --- Redis and its Sentinels ------------------------------------------------------------------------------- */
static void write_configuration(size_t i)
{
    char path[FOLDER_BYTES + 32];
    const struct member *member = &cluster.members[i];
    snprintf(path, sizeof path, "%s/%zu", cluster.folder, i);
    assert_int_equal(mkdir(path, 0700), 0);
    snprintf(path, sizeof path, "%s/%zu/redis.conf", cluster.folder, i);
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    fprintf(file, "bind 127.0.0.1\nport %u\ndir %s/%zu\nlogfile redis.log\n", (unsigned)member->port,
            cluster.folder, i);
    if (is_sentinel(i)) {
        fprintf(file,
                "sentinel monitor " GROUP " 127.0.0.1 %u %d\nsentinel down-after-milliseconds " GROUP " 750\n"
                "sentinel failover-timeout " GROUP " 2000\n",
                (unsigned)cluster.known_as[0].port, QUORUM);
    } else {
        fprintf(file, "replica-announce-ip 127.0.0.1\nreplica-announce-port %u\n",
                (unsigned)cluster.known_as[i].port);
        fprintf(file, "save \"\"\nappendonly yes\nappendfsync everysec\nmaxmemory-policy noeviction\n"
                      "repl-diskless-sync-delay 0\nrepl-ping-replica-period 1\n");
    }
    if (!is_sentinel(i) && i > 0) {
        fprintf(file, "replicaof 127.0.0.1 %u\n", (unsigned)cluster.known_as[0].port);
    }
    fclose(file);
}

static void launch(size_t i)
{
    char path[FOLDER_BYTES + 32];
    snprintf(path, sizeof path, "%s/%zu/redis.conf", cluster.folder, i);
    const char *const argv[] = {"/usr/bin/env", "redis-server", path, is_sentinel(i) ? "--sentinel" : NULL,
                                NULL};
    cluster.members[i].pid = program_start(argv, NULL, STDERR_FILENO, STDERR_FILENO);
}

static redisContext *connect_to(size_t i)
{
    struct redis_address address = {.port = cluster.members[i].port};
    char error[512];
    snprintf(address.host, sizeof address.host, "127.0.0.1");
    return cluster.members[i].pid != 0 ? redis_connect_blocking(&address, TIMEOUT_MS, error, sizeof error)
                                       : NULL;
}

/* One command's answer; NULL: none came, or an error. */
static redisReply *ask(size_t i, const char *command)
{
    redisContext *redis = connect_to(i);
    redisReply *reply = redis != NULL ? redis_ask(redis, command) : NULL;
    if (redis != NULL) {
        redisFree(redis);
    }
    return reply;
}

static bool does(size_t i, const char *command)
{
    return redis_done(ask(i, command));
}

static void await(size_t i, const char *command)
{
    int64_t deadline = deadline_in(PATIENCE_MS);
    while (!does(i, command)) {
        if (!wait_a_moment(deadline)) {
            fail_msg("Redis process %zu does not answer to \"%s\": %s", i, command, redis_failure());
        }
    }
}

static bool is_taken(uint16_t port)
{
    for (size_t i = 0; i < MEMBERS; i++) {
        for (unsigned server = 0; server < SERVERS_MAX; server++) {
            if (cluster.links[server][i] == port) {
                return true;
            }
        }
        if (cluster.members[i].port == port || (!is_sentinel(i) && cluster.known_as[i].port == port)) {
            return true;
        }
    }
    return false;
}

/* All of five figures, so that one can stand in place of another. */
static uint16_t another_port(char text[PORT_BYTES], char address[32])
{
    uint16_t port = bench_free_port();
    while (is_taken(port)) {
        port = bench_free_port();
    }
    snprintf(text, PORT_BYTES, "%u", (unsigned)port);
    snprintf(address, 32, "127.0.0.1:%u", (unsigned)port);
    return port;
}

static void start_redis(void)
{
    folder_make(cluster.folder);
    for (size_t i = 0; i < MEMBERS; i++) {
        cluster.members[i].port = another_port(cluster.ports[SERVERS_MAX][i], cluster.members[i].address);
        if (!is_sentinel(i)) {
            cluster.known_as[i].port =
                another_port(cluster.ports[SERVERS_MAX][i], cluster.known_as[i].address);
            cluster.plans[i] = (struct proxy_plan){.listen = cluster.known_as[i].address,
                                                   .behind = cluster.members[i].address};
            proxy_start_as(&cluster.among[i], &cluster.plans[i]);
        }
        for (unsigned server = 0; server < SERVERS_MAX; server++) {
            cluster.links[server][i] =
                another_port(cluster.ports[server][i], cluster.link_addresses[server][i]);
            cluster.replaced[server][2 * i] = cluster.ports[SERVERS_MAX][i];
            cluster.replaced[server][2 * i + 1] = cluster.ports[server][i];
        }
    }
    for (size_t i = 0; i < MEMBERS; i++) {
        write_configuration(i);
        launch(i);
        await(i, "PING");
    }
    for (size_t i = REDISES; i < MEMBERS; i++) {
        await(i, "SENTINEL DEBUG ping-period 100 info-period 300 publish-period 250 ask-period 100 "
                 "tilt-period 500");
    }
}

/* --- who is the master --------------------------------------------------------------------------------------- */
/* By this Sentinel; MEMBERS: it does not know. */
static size_t master_by(size_t sentinel)
{
    size_t i = 0;
    redisReply *reply = ask(sentinel, "SENTINEL get-master-addr-by-name " GROUP);
    bool known = reply != NULL && reply->type == REDIS_REPLY_ARRAY && reply->elements == 2;
    while (i < REDISES && !(known && strcmp(reply->element[1]->str, cluster.ports[SERVERS_MAX][i]) == 0)) {
        i++;
    }
    freeReplyObject(reply);
    return i < REDISES ? i : MEMBERS;
}

/* By so many Sentinels; MEMBERS: they do not agree. */
static size_t master(unsigned quorum)
{
    unsigned votes[REDISES] = {0};
    for (size_t i = REDISES; i < MEMBERS; i++) {
        size_t node = master_by(i);
        if (node < REDISES && ++votes[node] >= quorum) {
            return node;
        }
    }
    return MEMBERS;
}

bool cluster_master(struct redis_address *out)
{
    size_t node = master(QUORUM);
    *out = (struct redis_address){0};
    if (node < REDISES) {
        snprintf(out->host, sizeof out->host, "127.0.0.1");
        out->port = cluster.members[node].port;
    }
    return node < REDISES;
}

pid_t cluster_master_pid(void)
{
    size_t node = master(QUORUM);
    return node < REDISES ? cluster.members[node].pid : 0;
}

pid_t cluster_replica_pid(void)
{
    size_t node = master(QUORUM);
    return node < REDISES ? cluster.members[1 - node].pid : 0;
}

void cluster_kill_master(void)
{
    size_t node = master(QUORUM);
    if (node < REDISES && cluster.members[node].pid != 0) {
        kill(cluster.members[node].pid, SIGKILL);
        waitpid(cluster.members[node].pid, NULL, 0);
        cluster.members[node].pid = 0;
    }
}

void cluster_launch_redis(void)
{
    for (size_t i = 0; i < REDISES; i++) {
        if (cluster.members[i].pid == 0) {
            launch(i);
        }
    }
}

void cluster_cut_master_off(enum proxy_action action)
{
    size_t node = master(QUORUM);
    if (node < REDISES) {
        proxy_do(&cluster.among[node], action, 0, 1);
    }
}

void cluster_reconnect(void)
{
    for (size_t i = 0; i < REDISES; i++) {
        proxy_do(&cluster.among[i], PROXY_CALM, 0, 0);
    }
}

/* The value of a field of what this command tells, or of the first of what it lists; "": there is none. */
static void read_field(size_t sentinel, const char *command, const char *name, char out[FIELD_BYTES])
{
    redisReply *reply = ask(sentinel, command);
    const redisReply *one = reply;
    out[0] = '\0';
    if (reply != NULL && reply->elements > 0 && reply->element[0]->type == REDIS_REPLY_ARRAY) {
        one = reply->element[0];
    }
    for (size_t i = 0; one != NULL && i + 1 < one->elements; i += 2) {
        if (strcmp(one->element[i]->str, name) == 0) {
            snprintf(out, FIELD_BYTES, "%s", one->element[i + 1]->str);
        }
    }
    freeReplyObject(reply);
}

static bool has_flags(size_t sentinel, const char *command, const char *flags)
{
    char its[FIELD_BYTES];
    read_field(sentinel, command, "flags", its);
    return strcmp(its, flags) == 0;
}

/* It rises with each failover. */
static uint64_t configuration_epoch(void)
{
    uint64_t highest = 0;
    for (size_t i = REDISES; i < MEMBERS; i++) {
        char text[FIELD_BYTES];
        read_field(i, "SENTINEL MASTER " GROUP, "config-epoch", text);
        uint64_t its = strtoull(text, NULL, 10);
        highest = its > highest ? its : highest;
    }
    return highest;
}

void cluster_watch(void)
{
    cluster.epoch = configuration_epoch();
    cluster.watched = master(QUORUM);
    cluster.renamed_us = 0;
}

bool cluster_has_failed_over(void)
{
    return configuration_epoch() > cluster.epoch;
}

int64_t cluster_renamed_us(void)
{
    size_t now = cluster.renamed_us == 0 ? master(QUORUM) : MEMBERS;
    if (now < REDISES && now != cluster.watched) {
        cluster.renamed_us = now_us();
    }
    return cluster.renamed_us;
}

void cluster_ask_failover(void)
{
    int64_t deadline = deadline_in(FAILOVER_MS);
    does(REDISES, "SENTINEL FAILOVER " GROUP);
    while (cluster_renamed_us() == 0 && wait_a_moment(deadline)) {
    }
}

static bool says(size_t i, const char *command, const char *what)
{
    redisReply *reply = ask(i, command);
    bool so = reply != NULL && reply->type == REDIS_REPLY_STRING && strstr(reply->str, what) != NULL;
    freeReplyObject(reply);
    return so;
}

static bool redis_is_whole(void)
{
    size_t node = master(SENTINELS);
    bool whole = node < REDISES && says(node, "INFO replication", "role:master") &&
                 says(node, "INFO replication", "state=online") &&
                 says(1 - node, "INFO replication", "master_link_status:up");
    for (size_t i = REDISES; whole && i < MEMBERS; i++) {
        whole = has_flags(i, "SENTINEL MASTER " GROUP, "master") &&
                has_flags(i, "SENTINEL REPLICAS " GROUP, "slave");
    }
    return whole;
}

/* --- PostgreSQL -------------------------------------------------------------------------------------------- */
static bool store_answers(void)
{
    return PQping(cluster.store_url) == PQPING_OK;
}

void cluster_kill_store(void)
{
    pid_t pids[SERVER_CHILDREN_MAX];
    struct server_fixture postmaster = {.pid = cluster.store.pid};
    size_t count = server_fixture_children(&postmaster, pids, SERVER_CHILDREN_MAX);
    postgres_fixture_kill(&cluster.store);
    for (size_t i = 0; i < count; i++) {
        kill(pids[i], SIGKILL);
    }
    server_fixture_wait_gone(pids, count, PATIENCE_MS); /* they hold its shared memory */
}

void cluster_launch_store(void)
{
    if (cluster.store.pid == 0) {
        postgres_fixture_restart(&cluster.store);
    }
}

void cluster_stop_store(void)
{
    postgres_fixture_freeze(&cluster.store);
    cluster.store_is_stopped = true;
}

void cluster_continue_store(void)
{
    if (cluster.store_is_stopped) {
        postgres_fixture_thaw(&cluster.store);
    }
    cluster.store_is_stopped = false;
}

size_t cluster_sessions(pid_t pids[SERVER_CHILDREN_MAX])
{
    struct server_fixture postmaster = {.pid = cluster.store.pid};
    return cluster.store.pid != 0 ? server_fixture_find(&postmaster, SESSION_TITLE, pids, SERVER_CHILDREN_MAX)
                                  : 0;
}

void cluster_await_recovery(void)
{
    pid_t pids[SERVER_CHILDREN_MAX];
    int64_t deadline = deadline_in(SESSIONS_END_MS);
    while (cluster_sessions(pids) > 0 && wait_a_moment(deadline)) {
    }
    deadline = deadline_in(PATIENCE_MS);
    while (!store_answers() && wait_a_moment(deadline)) {
    }
}

/* --- all of it --------------------------------------------------------------------------------------------- */
static void write_redis_url(char url[REDIS_URL_BYTES], const char *const addresses[SENTINELS])
{
    snprintf(url, REDIS_URL_BYTES, "sentinel://" GROUP "@%s,%s,%s", addresses[0], addresses[1], addresses[2]);
}

void cluster_start(char redis_url[REDIS_URL_BYTES], char store_url[STORE_FIXTURE_URL_BYTES])
{
    if (!cluster.there) {
        cluster.there = true; /* what there is of it is to be ended */
        start_redis();
        postgres_fixture_start(&cluster.store, false);
        postgres_fixture_new_database(&cluster.store, cluster.store_url);
    }
    cluster_launch_redis();
    write_redis_url(redis_url, (const char *const[]){cluster.members[REDISES].address,
                                                     cluster.members[REDISES + 1].address,
                                                     cluster.members[REDISES + 2].address});
    memcpy(store_url, cluster.store_url, sizeof cluster.store_url);
    int64_t deadline = deadline_in(PATIENCE_MS);
    while (!redis_is_whole()) {
        if (!wait_a_moment(deadline)) {
            fail_msg("Redis, its replica and its Sentinels do not come together");
        }
    }
}

void cluster_end(void)
{
    for (size_t i = 0; i < MEMBERS; i++) {
        if (cluster.members[i].pid != 0) {
            kill(cluster.members[i].pid, SIGKILL);
            waitpid(cluster.members[i].pid, NULL, 0);
        }
    }
    for (size_t i = 0; i < REDISES; i++) {
        proxy_end(&cluster.among[i]);
    }
    if (cluster.folder[0] != '\0') {
        folder_remove(cluster.folder);
    }
    cluster_continue_store();
    postgres_fixture_end(&cluster.store);
    memset(&cluster, 0, sizeof cluster);
}

bool cluster_is_whole(void)
{
    return redis_is_whole() && cluster.store.pid != 0 && store_answers();
}

size_t cluster_plan_redis_links(unsigned server, struct proxy_plan *plans, char url[REDIS_URL_BYTES])
{
    for (size_t i = 0; i < MEMBERS; i++) {
        plans[i] = (struct proxy_plan){.listen = cluster.link_addresses[server][i],
                                       .behind = cluster.members[i].address,
                                       .replaced = is_sentinel(i) ? cluster.replaced[server] : NULL};
    }
    write_redis_url(url, (const char *const[]){cluster.link_addresses[server][REDISES],
                                               cluster.link_addresses[server][REDISES + 1],
                                               cluster.link_addresses[server][REDISES + 2]});
    return MEMBERS;
}

/* The same database, on a socket in a folder of the proxy's. */
void cluster_plan_store_link(unsigned server, struct proxy_plan *plan, char url[REDIS_URL_BYTES])
{
    char folder[FOLDER_BYTES + 16];
    const char *folder_in_url = strstr(cluster.store_url, cluster.store.folder);
    assert_non_null(folder_in_url);
    snprintf(folder, sizeof folder, "%s/link%u", cluster.store.folder, server + 1);
    mkdir(folder, 0700); /* it may be there */
    snprintf(store_paths[server], sizeof store_paths[server], "%s/" SOCKET_NAME, folder);
    snprintf(store_paths[SERVERS_MAX], sizeof store_paths[SERVERS_MAX], "%s/" SOCKET_NAME,
             cluster.store.folder);
    *plan = (struct proxy_plan){.listen = store_paths[server], .behind = store_paths[SERVERS_MAX]};
    snprintf(url, REDIS_URL_BYTES, "%.*s%s%s", (int)(folder_in_url - cluster.store_url), cluster.store_url,
             folder, folder_in_url + strlen(cluster.store.folder));
}

/* For the folder of a failed round. */
void cluster_log_paths(char paths[CLUSTER_LOGS][FOLDER_BYTES + 32])
{
    for (size_t i = 0; i < MEMBERS; i++) {
        snprintf(paths[i], FOLDER_BYTES + 32, "%s/%zu/redis.log", cluster.folder, i);
    }
}
