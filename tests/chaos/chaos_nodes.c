/* The five nodes of the Redlock gate: redis-servers of ours that keep nothing, each behind a proxy of each server's
 * (MODE_NODES), or the server's private ones (MODE_NODES_SPAWN). Signals go to recorded pids only.
 *
 * What they say is read here past the proxies and without the product's code, so that one can be held against the other. */
#include "chaos.h"

#include "doorbuster/text.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NODE_TIMEOUT_MS 500
#define CALL "{doorbuster}:" /* on a link to a node: whatever is about locks or figures */

/* --- ours ---------------------------------------------------------------------------------------------- */
void node_launch(unsigned node)
{
    int64_t deadline = deadline_in(PATIENCE_MS);
    redis_fixture_launch(&bench.nodes[node], REDIS_NOTHING_KEPT);
    while (!redis_fixture_answers(&bench.nodes[node])) {
        if (!wait_a_moment(deadline)) {
            fail_msg("node %u does not answer", node + 1);
        }
    }
}

void node_kill(unsigned node)
{
    if (bench.nodes[node].pid != 0) {
        redis_fixture_kill(&bench.nodes[node]);
    }
}

static void begin_nodes(void)
{
    bench.has_nodes = true;
    for (unsigned node = 0; node < NODES; node++) {
        redis_fixture_begin(&bench.nodes[node]);
        for (unsigned server = 0; server < SERVERS_MAX; server++) {
            snprintf(bench.node_link_paths[server][node], sizeof bench.node_link_paths[server][node],
                     "%s/link%u.sock", bench.nodes[node].folder, server + 1);
        }
    }
}

static void start_links(unsigned server)
{
    char *list = bench.node_lists[server];
    size_t used = 0;
    for (unsigned node = 0; node < NODES; node++) {
        const char *path = bench.node_link_paths[server][node];
        proxy_end(&bench.node_links[server][node]);
        proxy_start_for(&bench.node_links[server][node], path, bench.nodes[node].address.path, CALL);
        used += (size_t)snprintf(list + used, sizeof bench.node_lists[server] - used, "%sunix:%s",
                                 node > 0 ? "," : "", path);
        assert_true(used < sizeof bench.node_lists[server]);
    }
}

void nodes_start(void)
{
    if (!bench.has_nodes) {
        begin_nodes();
    }
    for (unsigned node = 0; node < NODES; node++) {
        if (bench.nodes[node].pid == 0) {
            node_launch(node);
        }
    }
    for (unsigned server = 0; server < bench.server_count; server++) {
        start_links(server);
    }
}

static void end_links(void)
{
    for (unsigned server = 0; server < SERVERS_MAX; server++) {
        for (unsigned node = 0; node < NODES; node++) {
            proxy_end(&bench.node_links[server][node]);
        }
    }
}

void nodes_end(void)
{
    end_links();
    for (unsigned node = 0; bench.has_nodes && node < NODES; node++) {
        redis_fixture_end(&bench.nodes[node]);
    }
    bench.has_nodes = false;
}

bool nodes_calm(int timeout_ms)
{
    bool calm = true;
    for (unsigned server = 0; server < bench.server_count; server++) {
        for (unsigned node = 0; node < NODES; node++) {
            calm = proxy_calm(&bench.node_links[server][node], timeout_ms) && calm;
        }
    }
    return calm;
}

/* --- what they say --------------------------------------------------------------------------------------- */
redisContext *node_connect(unsigned node)
{
    struct redis_address address = {0};
    char error[512];
    if (bench.mode == MODE_NODES) {
        address = bench.nodes[node].address;
    } else {
        snprintf(address.path, sizeof address.path, "%s/node%u.sock", bench.server.data, node + 1);
    }
    return redis_connect_blocking(&address, NODE_TIMEOUT_MS, error, sizeof error);
}

static int64_t store_id(void)
{
    static char of_folder[FOLDER_BYTES];
    static int64_t id;
    if (strcmp(of_folder, bench.server.folder) != 0) {
        id = audit_store_id();
        snprintf(of_folder, sizeof of_folder, "%s", bench.server.folder);
    }
    return id;
}

void node_stock_key(int64_t product_id, char out[NODE_KEY_BYTES])
{
    snprintf(out, NODE_KEY_BYTES, "{doorbuster}:stock:%" PRId64 ":%" PRId64, store_id(), product_id);
}

bool node_stock(redisContext *node, int64_t product_id, int64_t *stock, struct log_position *version)
{
    char key[NODE_KEY_BYTES];
    node_stock_key(product_id, key);
    redisReply *reply = redisCommand(node, "GET %s", key);
    bool known =
        reply != NULL && reply->type == REDIS_REPLY_STRING &&
        sscanf(reply->str, "%" SCNd64 " %" SCNu64 " %" SCNu64, stock, &version->epoch, &version->n) == 3;
    freeReplyObject(reply);
    return known;
}

unsigned nodes_that_say(int64_t product_id, int64_t stock)
{
    unsigned count = 0;
    for (unsigned i = 0; i < NODES; i++) {
        int64_t its;
        struct log_position version;
        redisContext *node = node_connect(i);
        if (node != NULL) {
            count += node_stock(node, product_id, &its, &version) && its == stock;
            redisFree(node);
        }
    }
    return count;
}
