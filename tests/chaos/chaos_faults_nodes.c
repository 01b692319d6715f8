/* Faults of the Redlock gate's nodes and of the links to them, and what somebody does to a node by hand. See chaos_faults.c
 * for when these functions run. Owns the list of what is to be healed. */
#include "chaos.h"

#include "doorbuster/redis.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define NODE_TIMEOUT_MS 50 /* the server's; slower than this is late */
#define LATE_MS_MAX 1500
#define FEW_CALLS_MAX 12
#define STRANGER_MS 300
#define VERSIONS_AHEAD 1000000

static unsigned killed; /* nodes, 1 << node | … */

/* --- which --------------------------------------------------------------------------------------------- */
static unsigned some_nodes(struct round *round, unsigned count)
{
    unsigned chosen = 0;
    while (count > 0) {
        unsigned node = 1u << random_below(&round->random, NODES);
        count -= (chosen & node) == 0;
        chosen |= node;
    }
    return chosen;
}

static bool is_among(unsigned nodes, unsigned node)
{
    return (nodes & 1u << node) != 0;
}

static pid_t node_pid(unsigned node)
{
    pid_t pid;
    char title[FOLDER_BYTES + 64];
    if (bench.mode == MODE_NODES) {
        return bench.nodes[node].pid;
    }
    snprintf(title, sizeof title, "redis-server unixsocket:%s/node%u.sock", bench.server.data, node + 1);
    return server_fixture_find(&bench.server, title, &pid, 1) == 1 ? pid : 0;
}

/* --- processes ----------------------------------------------------------------------------------------- */
/* The server's own are started again by it, ours by launch_nodes(). */
static void kill_nodes(struct round *round, unsigned count)
{
    unsigned nodes = some_nodes(round, count);
    for (unsigned node = 0; node < NODES; node++) {
        pid_t pid = is_among(nodes, node) ? node_pid(node) : 0;
        if (pid > 0 && bench.mode == MODE_NODES) {
            node_kill(node);
            killed |= 1u << node;
        } else if (pid > 0) {
            kill(pid, SIGKILL);
        }
    }
    bench.kills += bench.mode == MODE_NODES_SPAWN;
}

void kill_one_node(struct round *round)
{
    kill_nodes(round, 1);
}

void kill_two_nodes(struct round *round)
{
    kill_nodes(round, 2);
}

void kill_three_nodes(struct round *round)
{
    kill_nodes(round, MAJORITY);
}

void launch_nodes(struct round *round)
{
    (void)round;
    for (unsigned node = 0; node < NODES; node++) {
        if (is_among(killed, node)) {
            node_launch(node);
        }
    }
    killed = 0;
}

static void stop_nodes(struct round *round, unsigned count)
{
    unsigned nodes = some_nodes(round, count);
    for (unsigned node = 0; node < NODES; node++) {
        pid_t pid = is_among(nodes, node) ? node_pid(node) : 0;
        if (pid > 0) {
            bench_stop_process(pid);
        }
    }
}

void stop_one_node(struct round *round)
{
    stop_nodes(round, 1);
}

void stop_two_nodes(struct round *round)
{
    stop_nodes(round, 2);
}

void stop_three_nodes(struct round *round)
{
    stop_nodes(round, MAJORITY);
}

/* --- links --------------------------------------------------------------------------------------------- */
static void do_to_links(unsigned server, unsigned nodes, enum proxy_action action, int ms, int count)
{
    for (unsigned i = 0; i < bench.server_count; i++) {
        for (unsigned node = 0; node < NODES; node++) {
            if (is_among(nodes, node) && (server == SERVERS_MAX || server == i)) {
                proxy_do(&bench.node_links[i][node], action, ms, count);
            }
        }
    }
}

/* Both ways together later than the server waits for. */
static int late_ms(struct round *round)
{
    return NODE_TIMEOUT_MS / 2 + 5 + (int)random_below(&round->random, LATE_MS_MAX / 2);
}

void two_nodes_late(struct round *round)
{
    do_to_links(SERVERS_MAX, some_nodes(round, 2), PROXY_DELAY, late_ms(round), 0);
}

void all_nodes_late(struct round *round)
{
    for (unsigned node = 0; node < NODES; node++) {
        do_to_links(SERVERS_MAX, 1u << node, PROXY_DELAY,
                    1 + (int)random_below(&round->random, LATE_MS_MAX / 4), 0);
    }
}

void two_nodes_silent(struct round *round)
{
    do_to_links(SERVERS_MAX, some_nodes(round, 2), PROXY_SILENT, 0, 1);
}

void three_nodes_silent(struct round *round)
{
    do_to_links(SERVERS_MAX, some_nodes(round, MAJORITY), PROXY_SILENT, 0, 1);
}

/* It cannot reach three nodes: nobody is there, or nobody answers. */
void partition_server(struct round *round)
{
    round->concerned = random_below(&round->random, bench.server_count);
    enum proxy_action action = random_below(&round->random, 2) ? PROXY_AWAY : PROXY_SILENT;
    do_to_links(round->concerned, some_nodes(round, MAJORITY), action, 0, 1);
}

void calm_nodes(struct round *round)
{
    (void)round;
    do_to_links(SERVERS_MAX, (1u << NODES) - 1, PROXY_CALM, 0, 0);
}

static unsigned up_to_all_nodes(struct round *round)
{
    return some_nodes(round, 1 + random_below(&round->random, NODES));
}

static int few_calls(struct round *round)
{
    return 1 + (int)random_below(&round->random, FEW_CALLS_MAX);
}

void cut_nodes(struct round *round)
{
    do_to_links(SERVERS_MAX, up_to_all_nodes(round), PROXY_CUT, 0, 0);
}

void lose_node_answers(struct round *round)
{
    do_to_links(SERVERS_MAX, up_to_all_nodes(round), PROXY_LOSE_ANSWER, 0, few_calls(round));
}

void deliver_to_nodes_late(struct round *round)
{
    do_to_links(SERVERS_MAX, up_to_all_nodes(round), PROXY_DELIVER_LATE, late_ms(round), few_calls(round));
}

void deliver_to_nodes_twice(struct round *round)
{
    do_to_links(SERVERS_MAX, up_to_all_nodes(round), PROXY_TWICE,
                (int)random_below(&round->random, LATE_MS_MAX), few_calls(round));
}

/* --- by hand ------------------------------------------------------------------------------------------- */
/* Those that answered. One that is stopped, of the round's other fault, costs the time that a hand waits for it. */
static unsigned by_hand(unsigned nodes, const char *format, ...) __attribute__((format(printf, 2, 3)));
static unsigned by_hand(unsigned nodes, const char *format, ...)
{
    unsigned answered = 0;
    char command[192];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(command, sizeof command, format, arguments);
    va_end(arguments);
    for (unsigned i = 0; i < NODES; i++) {
        redisContext *node = is_among(nodes, i) ? node_connect(i) : NULL;
        if (node != NULL) { /* else it is down, of the round's other fault */
            redisReply *reply = redisCommand(node, command);
            answered |= reply != NULL ? 1u << i : 0;
            freeReplyObject(reply);
            redisFree(node);
        }
    }
    return answered;
}

void flush_one_node(struct round *round)
{
    by_hand(some_nodes(round, 1), "FLUSHALL");
}

void flush_all_nodes(struct round *round)
{
    by_hand(some_nodes(round, MAJORITY + random_below(&round->random, NODES - MAJORITY + 1)), "FLUSHALL");
}

/* Another stock at the same version, or at one that is yet to come; or nonsense. */
static void edit_figures(struct round *round, unsigned nodes)
{
    int64_t product = round->products[random_below(&round->random, 2)], stock = 0;
    uint32_t kind = random_below(&round->random, 4), by = 1 + random_below(&round->random, 50);
    struct log_position version = {0};
    char key[NODE_KEY_BYTES], figure[96];
    node_stock_key(product, key);
    for (unsigned i = 0; i < NODES && version.n == 0; i++) {
        redisContext *node = node_connect(i);
        if (node != NULL) {
            node_stock(node, product, &stock, &version);
            redisFree(node);
        }
    }
    version.n += kind == 1 ? VERSIONS_AHEAD : 0;
    snprintf(figure, sizeof figure, "%" PRId64 " %" PRIu64 " %" PRIu64, kind == 2 ? 0 : stock + by,
             version.epoch, version.n);
    for (unsigned i = 0; i < NODES; i++) {
        redisContext *node = is_among(nodes, i) ? node_connect(i) : NULL;
        if (node != NULL) {
            freeReplyObject(redisCommand(node, "SET %s %s", key, kind == 3 ? "nonsense" : figure));
            redisFree(node);
        }
    }
}

void edit_one_figure(struct round *round)
{
    edit_figures(round, some_nodes(round, 1));
}

void edit_all_figures(struct round *round)
{
    edit_figures(round, (1u << NODES) - 1);
}

void delete_locks(struct round *round)
{
    unsigned times = 1 + random_below(&round->random, 5), nodes = (1u << NODES) - 1;
    for (unsigned i = 0; i < times; i++) {
        nodes = by_hand(nodes, "DEL {doorbuster}:lock:%" PRId64 " {doorbuster}:lock:%" PRId64,
                        round->products[SCARCE], round->products[PLENTIFUL]);
        buyers_for((int)random_below(&round->random, 20));
    }
    round->fault_us = now_us();
}

/* A stranger has the locks of both products for a while, whoever held them. */
void take_locks(struct round *round)
{
    for (unsigned i = 0; i < BUNDLE; i++) {
        by_hand((1u << NODES) - 1, "SET {doorbuster}:lock:%" PRId64 " a-stranger PX %d", round->products[i],
                STRANGER_MS);
    }
    round->fault_us = now_us();
}
