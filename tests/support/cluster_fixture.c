/* See cluster_fixture.h. The test process's main thread; owns the children and their folder. */
#include "cluster_fixture.h"

#include "testing.h"
#include "tool.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define WAIT_MS 15000
#define SLOTS 16384
#define MASTERS 3

static void await_word(int port, const char *command, const char *word)
{
    int64_t deadline = deadline_in(WAIT_MS);
    while (strstr(tcp_redis_do(port, "CLUSTER %s", command), word) == NULL) {
        if (!wait_a_moment(deadline)) {
            fail_msg("CLUSTER %s of port %d never has %s", command, port, word);
        }
    }
}

static void start_node(struct cluster_fixture *fixture, unsigned i)
{
    char name[16], nodes[32], bus[16];
    struct tcp_redis *node = &fixture->nodes[i];
    snprintf(name, sizeof name, "node%u", i);
    snprintf(nodes, sizeof nodes, "node%u.conf", i);
    snprintf(bus, sizeof bus, "%d", free_port());
    tcp_redis_start(node, fixture->folder, name,
                    LIST("--cluster-enabled", "yes", "--cluster-config-file", nodes, "--cluster-port", bus,
                         "--cluster-node-timeout", "1000", "--cluster-allow-replica-migration", "no"));
    snprintf(fixture->ids[i], sizeof fixture->ids[i], "%s", tcp_redis_do(node->port, "CLUSTER MYID"));
    tcp_redis_do(node->port, "CLUSTER SET-CONFIG-EPOCH %u", i + 1);
    if (i < MASTERS) {
        unsigned first = i * SLOTS / MASTERS, end = (i + 1) * SLOTS / MASTERS;
        tcp_redis_do(node->port, "CLUSTER ADDSLOTSRANGE %u %u", first, end - 1);
    }
    if (i > 0) {
        tcp_redis_do(fixture->nodes[0].port, "CLUSTER MEET 127.0.0.1 %d %s", node->port, bus);
    }
}

void cluster_fixture_start(struct cluster_fixture *fixture, const char *key)
{
    int used = snprintf(fixture->url, sizeof fixture->url, "cluster://");
    folder_make(fixture->folder);
    for (unsigned i = 0; i < CLUSTER_NODES; i++) {
        start_node(fixture, i);
        if (i < MASTERS) {
            used += snprintf(fixture->url + used, sizeof fixture->url - (size_t)used, "%s127.0.0.1:%d",
                             i > 0 ? "," : "", fixture->nodes[i].port);
        }
    }
    fixture->slot = atoi(tcp_redis_do(fixture->nodes[0].port, "CLUSTER KEYSLOT %s", key));
    for (unsigned i = 0; i < CLUSTER_NODES; i++) {
        await_word(fixture->nodes[i].port, "INFO", "cluster_known_nodes:4");
        await_word(fixture->nodes[i].port, "INFO", "cluster_state:ok");
    }
    fixture->owner = cluster_fixture_owner(fixture);
    tcp_redis_do(fixture->nodes[3].port, "CLUSTER REPLICATE %s", fixture->ids[fixture->owner]);
    tcp_redis_await(fixture->nodes[3].port, "master_link_status:up");
    for (unsigned i = 0; i < CLUSTER_NODES; i++) {
        await_word(fixture->nodes[i].port, "NODES", "slave");
    }
}

void cluster_fixture_end(struct cluster_fixture *fixture)
{
    for (unsigned i = 0; i < CLUSTER_NODES; i++) {
        tcp_redis_kill(&fixture->nodes[i]);
    }
    if (fixture->folder[0] != '\0') {
        folder_remove(fixture->folder);
    }
    *fixture = (struct cluster_fixture){0};
}

/* By COUNTKEYSINSLOT and the like nothing is said of who owns it: whoever does not redirect. */
unsigned cluster_fixture_owner(const struct cluster_fixture *fixture)
{
    int64_t deadline = deadline_in(WAIT_MS);
    for (;;) {
        for (unsigned i = 0; i < CLUSTER_NODES; i++) {
            redisContext *redis = tcp_redis_connect(fixture->nodes[i].port);
            redisReply *slots = redis_ask(redis, "CLUSTER SLOTS");
            bool owns = false;
            for (size_t j = 0; slots != NULL && j < slots->elements; j++) {
                redisReply *const *range = slots->element[j]->element;
                owns = owns || (range[0]->integer <= fixture->slot && range[1]->integer >= fixture->slot &&
                                strcmp(range[2]->element[2]->str, fixture->ids[i]) == 0);
            }
            freeReplyObject(slots);
            redisFree(redis);
            if (owns) {
                return i;
            }
        }
        assert_true(wait_a_moment(deadline));
    }
}

void cluster_fixture_fail_over(struct cluster_fixture *fixture)
{
    unsigned old = cluster_fixture_owner(fixture), successor = old == 3 ? fixture->owner : 3;
    tcp_redis_do(fixture->nodes[successor].port, "CLUSTER FAILOVER");
    tcp_redis_await(fixture->nodes[successor].port, "role:master");
    tcp_redis_await(fixture->nodes[old].port, "master_link_status:up");
}

void cluster_fixture_begin_move(struct cluster_fixture *fixture, unsigned from, unsigned to)
{
    tcp_redis_do(fixture->nodes[to].port, "CLUSTER SETSLOT %d IMPORTING %s", fixture->slot,
                 fixture->ids[from]);
    tcp_redis_do(fixture->nodes[from].port, "CLUSTER SETSLOT %d MIGRATING %s", fixture->slot,
                 fixture->ids[to]);
}

void cluster_fixture_move_keys(struct cluster_fixture *fixture, unsigned from, unsigned to, unsigned at_most)
{
    redisContext *redis = tcp_redis_connect(fixture->nodes[from].port);
    redisReply *keys = redis_ask(redis, "CLUSTER GETKEYSINSLOT %d %u", fixture->slot, at_most);
    assert_non_null(keys);
    for (size_t i = 0; i < keys->elements; i++) {
        assert_true(redis_done(redis_ask(redis, "MIGRATE 127.0.0.1 %d %b 0 5000", fixture->nodes[to].port,
                                         keys->element[i]->str, keys->element[i]->len)));
    }
    freeReplyObject(keys);
    redisFree(redis);
}

void cluster_fixture_end_move(struct cluster_fixture *fixture, unsigned from, unsigned to)
{
    cluster_fixture_move_keys(fixture, from, to, 1000000);
    tcp_redis_do(fixture->nodes[to].port, "CLUSTER SETSLOT %d NODE %s", fixture->slot, fixture->ids[to]);
    tcp_redis_do(fixture->nodes[from].port, "CLUSTER SETSLOT %d NODE %s", fixture->slot, fixture->ids[to]);
}
