/* Several servers, each with a data folder of its own, that sell from one store through one Redis:
 *
 *   MODE_SEVERAL   a redis-server of ours and a file
 *   MODE_CLUSTER   a Redis with a replica and three Sentinels, and PostgreSQL (chaos_cluster.c)
 *
 * Each server reaches what they share through proxies of its own, so that a link can fail for one of them alone. A Sentinel
 * tells of addresses, so its proxy tells of the proxies'. Which recorder is active is read from the lease in Redis. */
#include "chaos.h"

#include "doorbuster/redis.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define REDIS_LINKS_MAX 8
#define REDIS_TIMEOUT_MS 1000
#define CALL_OF_STORE "COMMIT" /* on a link to the store: what it writes is to last */

static struct {
    struct proxy redis_links[SERVERS_MAX][REDIS_LINKS_MAX], store_links[SERVERS_MAX];
    size_t redis_link_count;
    char redis_urls[SERVERS_MAX + 1][REDIS_URL_BYTES], store_urls[SERVERS_MAX + 1][REDIS_URL_BYTES];
    struct proxy_plan plans[SERVERS_MAX][REDIS_LINKS_MAX + 1];
} several;
static char link_paths[SERVERS_MAX][FOLDER_BYTES + 32];

bool several_has_postgres(enum chaos_mode mode)
{
    return mode == MODE_CLUSTER;
}

/* --- links ------------------------------------------------------------------------------------------------ */
static void end_links(void)
{
    for (unsigned server = 0; server < SERVERS_MAX; server++) {
        for (size_t i = 0; i < REDIS_LINKS_MAX; i++) {
            proxy_end(&several.redis_links[server][i]);
        }
        proxy_end(&several.store_links[server]);
    }
}

static void start_links_to_file(unsigned server)
{
    struct proxy_plan *plan = &several.plans[server][0];
    snprintf(link_paths[server], sizeof link_paths[server], "%s/link%u.sock", bench.redis.folder, server + 1);
    *plan = (struct proxy_plan){.listen = link_paths[server], .behind = bench.redis.address.path};
    proxy_start_as(&several.redis_links[server][0], plan);
    several.redis_link_count = 1;
    snprintf(several.redis_urls[server], REDIS_URL_BYTES, "unix:%s", link_paths[server]);
    snprintf(several.store_urls[server], REDIS_URL_BYTES, "%s", bench.server.store_url);
}

static void start_links_to_cluster(unsigned server)
{
    struct proxy_plan *plans = several.plans[server];
    several.redis_link_count = cluster_plan_redis_links(server, plans, several.redis_urls[server]);
    for (size_t i = 0; i < several.redis_link_count; i++) {
        proxy_start_as(&several.redis_links[server][i], &plans[i]);
    }
    cluster_plan_store_link(server, &plans[REDIS_LINKS_MAX], several.store_urls[server]);
    plans[REDIS_LINKS_MAX].call = CALL_OF_STORE;
    proxy_start_as(&several.store_links[server], &plans[REDIS_LINKS_MAX]);
}

void several_start(void)
{
    end_links();
    if (bench.mode == MODE_CLUSTER) {
        cluster_start(several.redis_urls[SERVERS_MAX], bench.server.store_url);
    } else {
        snprintf(several.redis_urls[SERVERS_MAX], REDIS_URL_BYTES, "unix:%s", bench.redis.address.path);
    }
    snprintf(several.store_urls[SERVERS_MAX], REDIS_URL_BYTES, "%s", bench.server.store_url);
    memcpy(bench.second.store_url, bench.server.store_url, sizeof bench.second.store_url);
    for (unsigned server = 0; server < bench.server_count; server++) {
        if (bench.mode == MODE_CLUSTER) {
            start_links_to_cluster(server);
        } else {
            start_links_to_file(server);
        }
    }
}

void several_end(void)
{
    end_links();
    cluster_end();
}

void several_links_do(unsigned server, unsigned links, enum proxy_action action, int ms, int count)
{
    for (unsigned i = 0; i < bench.server_count; i++) {
        bool concerned = server == SERVERS_MAX || server == i;
        for (size_t j = 0; concerned && (links & LINKS_TO_REDIS) != 0 && j < several.redis_link_count; j++) {
            proxy_do(&several.redis_links[i][j], action, ms, count);
        }
        if (concerned && (links & LINKS_TO_STORE) != 0 && several.store_links[i].pid > 0) {
            proxy_do(&several.store_links[i], action, ms, count);
        }
    }
}

bool several_links_calm(int timeout_ms)
{
    bool calm = true;
    for (unsigned i = 0; i < bench.server_count; i++) {
        for (size_t j = 0; j < several.redis_link_count; j++) {
            calm = proxy_calm(&several.redis_links[i][j], timeout_ms) && calm;
        }
        calm = (several.store_links[i].pid == 0 || proxy_calm(&several.store_links[i], timeout_ms)) && calm;
    }
    return calm;
}

const char *several_redis_url(unsigned server)
{
    return several.redis_urls[server];
}

const char *several_store_url(unsigned server)
{
    return several.store_urls[server];
}

/* --- Redis ------------------------------------------------------------------------------------------------- */
redisContext *several_connect(void)
{
    char error[512];
    struct redis_address address = bench.redis.address;
    if (bench.mode == MODE_CLUSTER && !cluster_master(&address)) {
        return NULL;
    }
    return redis_connect_blocking(&address, REDIS_TIMEOUT_MS, error, sizeof error);
}

pid_t several_master_pid(void)
{
    return bench.mode == MODE_CLUSTER ? cluster_master_pid() : bench.redis.pid;
}

/* --- who records ------------------------------------------------------------------------------------------- */
static bool is_of_server(const char *owner, unsigned server)
{
    char path[sizeof bench.server.data + 16];
    snprintf(path, sizeof path, "%s/server.id", bench_server(server)->data);
    char *id = file_read(path);
    id[strcspn(id, "\n")] = '\0';
    bool is = id[0] != '\0' && strncmp(owner, id, strlen(id)) == 0;
    free(id);
    return is;
}

unsigned several_active(void)
{
    redisContext *redis = several_connect();
    redisReply *reply = redis != NULL ? redisCommand(redis, "GET " LEASE_KEY) : NULL;
    bool held = reply != NULL && reply->type == REDIS_REPLY_STRING;
    unsigned server = 0;
    while (server < bench.server_count && !(held && is_of_server(reply->str, server))) {
        server++;
    }
    freeReplyObject(reply);
    if (redis != NULL) {
        redisFree(redis);
    }
    return server < bench.server_count ? server : SERVERS_MAX;
}

pid_t several_recorder(unsigned server)
{
    pid_t pid;
    return server_fixture_find(bench_server(server), "doorbuster: recorder", &pid, 1) == 1 ? pid : 0;
}

bool several_calm(void)
{
    return several_active() != SERVERS_MAX && (bench.mode != MODE_CLUSTER || cluster_is_whole());
}
