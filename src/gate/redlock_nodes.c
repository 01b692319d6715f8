/* The nodes of a Redlock: a link to each, which run of Redis it is, and whether it may vote. A worker's loop thread. Owns the links and
 * one timer.
 *
 *   DOWN --link up--> UNKNOWN --INFO: a run that is old enough, or known--> VOTING
 *     ^                  |                                                    ^
 *     |                  +--INFO: a run that began a moment ago--> YOUNG -----+ a TTL later
 *     +------------------ the link broke ------------- (from all)
 *
 * A Redis that restarted may have forgotten locks that still hold. So on every connection INFO is asked first, and a run (`run_id`) that
 * we do not know may vote only once it is older than the longest TTL, when whatever the run before had promised is over: the delayed
 * restart of the algorithm's author. Its age is what it says itself, but never more than the time since the run before last answered us,
 * by our clock. At first contact there is only the node's own clock; that it runs evenly is what expiry of its keys rests on anyway.
 *
 * Only a restart is found out like this: who empties a running node by hand (FLUSHALL, DEL) makes it forget its votes.
 *
 * A command may be carried out although it got no answer. What follows it on the same connection comes behind it, so a compare-and-delete
 * ends it; one that could not be sent, or whose answer was lost, is *owed* to the node and sent when it is back, at most for a TTL.
 * Bytes of a broken connection that a stopped Redis reads later may still set a key; that one ends by its TTL.
 *
 * Failures: a node that fails is DOWN and is not asked; links mend themselves. Bounded: PENDING_MAX commands on their way to a node
 * (beyond, it is not asked), OWED_MAX deletions owed to it (beyond, the oldest is forgotten and its key ends by its TTL). */
#include "redlock_nodes.h"

#include "doorbuster/check.h"
#include "doorbuster/clock.h"
#include "doorbuster/log.h"
#include "doorbuster/metrics.h"
#include "doorbuster/text.h"
#include "redlock_arithmetic.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CONNECT_TIMEOUT_MS 1000
#define COMMAND_TIMEOUT_MS 1000
#define TICK_MS 50
#define IDENTIFY_EVERY_US 1000000
#define PENDING_MAX 512
#define OWED_MAX PENDING_MAX /* so that one outage is never too much */
#define NAME_BYTES 24

static const char release_script[] =
    "if redis.call('GET',KEYS[1])==ARGV[1] then return redis.call('DEL',KEYS[1]) end return 0";
static const char extend_script[] =
    "if redis.call('GET',KEYS[1])==ARGV[1] then return redis.call('PEXPIRE',KEYS[1],ARGV[2]) end return 0";

enum node_state { NODE_DOWN, NODE_UNKNOWN, NODE_YOUNG, NODE_VOTING, NODE_STATES };
static const bool may_move[NODE_STATES][NODE_STATES] = {
    [NODE_DOWN] = {[NODE_UNKNOWN] = true},
    [NODE_UNKNOWN] = {[NODE_DOWN] = true, [NODE_YOUNG] = true, [NODE_VOTING] = true},
    [NODE_YOUNG] = {[NODE_DOWN] = true, [NODE_VOTING] = true},
    [NODE_VOTING] = {[NODE_DOWN] = true},
};

struct owed_release {
    struct redlock_key key;
    int64_t until_us; /* the key has expired by then */
};

struct node {
    struct redlock_nodes *nodes;
    unsigned index;
    char name[NAME_BYTES];
    struct redis_link *link;
    enum node_state state;
    struct redlock_run run; /* the last we met; id "": none yet */
    int64_t seen_us;        /* when it last answered */
    int64_t may_vote_at_us;
    int64_t identify_at_us; /* UNKNOWN: when to ask again */
    bool complained;        /* of an error reply, since the link came up */
    size_t pending;
    struct owed_release owed[OWED_MAX]; /* a ring */
    size_t owed_first, owed_count;
};

struct redlock_nodes {
    uv_timer_t tick;
    redlock_answer_cb cb;
    unsigned count;
    int64_t ttl_us;
    char ttl_ms[TEXT_INT64_BYTES];
    bool had_majority;
    struct node list[REDLOCK_NODES_MAX];
};

/* A command on its way. */
struct ask {
    struct node *node;
    void *context;
    uint64_t round;
    struct owed_release release; /* of a release: what is owed if it gets no answer */
};

/* --- states ------------------------------------------------------------------------------------------------------------------ */
unsigned redlock_nodes_voting(const struct redlock_nodes *nodes)
{
    unsigned voting = 0;
    for (unsigned i = 0; i < nodes->count; i++) {
        voting += nodes->list[i].state == NODE_VOTING;
    }
    return voting;
}

static void tell_majority(struct redlock_nodes *nodes)
{
    unsigned voting = redlock_nodes_voting(nodes);
    bool has_majority = voting >= redlock_majority(nodes->count);
    if (has_majority != nodes->had_majority) {
        nodes->had_majority = has_majority;
        log_line(has_majority ? LOG_INFO : LOG_WARN, "%u of %u lock nodes vote: %s", voting, nodes->count,
                 has_majority ? "a majority" : "no majority, no lock can be had");
    }
}

static void node_move(struct node *node, enum node_state state)
{
    CHECK(may_move[node->state][state]);
    node->state = state;
    CHECK(state != NODE_VOTING || node->run.id[0] != '\0');
    tell_majority(node->nodes);
}

static void node_down(struct node *node)
{
    if (node->state != NODE_DOWN) {
        node_move(node, NODE_DOWN);
    }
}

/* Puts one command on the link. The ask is freed with its reply. */
static bool put(struct node *node, redis_reply_cb cb, const struct ask *ask, int argc, const char **argv)
{
    /* Not by the link's word: while it breaks, it still says that it is up. */
    if (node->state == NODE_DOWN || node->pending >= PENDING_MAX) {
        return false;
    }
    struct ask *sent = malloc(sizeof *sent);
    CHECK(sent != NULL);
    *sent = *ask;
    if (!redis_link_command(node->link, cb, sent, argc, argv, NULL)) {
        free(sent);
        return false;
    }
    node->pending++;
    return true;
}

/* Once a connection. */
static void complain(struct node *node, const char *what, const char *error)
{
    if (!node->complained) {
        node->complained = true;
        log_warn("%s %s%s%s", node->name, what, error[0] != '\0' ? ": " : "", error);
    }
}

/* Of every reply, first of all. */
static void replied(struct node *node, const redisReply *reply)
{
    node->pending--;
    if (reply == NULL) {
        node_down(node);
        return;
    }
    node->seen_us = clock_monotonic_us();
    if (reply->type == REDIS_REPLY_ERROR) {
        complain(node, "refuses", reply->str);
    }
}

/* --- deletions ----------------------------------------------------------------------------------------------------------------- */
static void owe(struct node *node, const struct owed_release *release)
{
    if (node->owed_count == OWED_MAX) {
        node->owed_first = (node->owed_first + 1) % OWED_MAX;
        node->owed_count--;
    }
    node->owed[(node->owed_first + node->owed_count++) % OWED_MAX] = *release;
}

static void release_cb(const redisReply *reply, void *context)
{
    struct ask *ask = context;
    replied(ask->node, reply);
    if (reply == NULL) {
        owe(ask->node, &ask->release);
    }
    free(ask);
}

static bool send_release(struct node *node, const struct owed_release *release)
{
    const char *argv[] = {"EVAL", release_script, "1", release->key.name, release->key.token};
    return put(node, release_cb, &(struct ask){.node = node, .release = *release}, 5, argv);
}

static void pay_what_is_owed(struct node *node)
{
    int64_t now_us = clock_monotonic_us();
    while (node->owed_count > 0) {
        const struct owed_release *release = &node->owed[node->owed_first];
        if (now_us < release->until_us && !send_release(node, release)) {
            return;
        }
        node->owed_first = (node->owed_first + 1) % OWED_MAX;
        node->owed_count--;
    }
}

void redlock_nodes_release(struct redlock_nodes *nodes, const struct redlock_key *key, unsigned touched)
{
    struct owed_release release = {.key = *key, .until_us = clock_monotonic_us() + nodes->ttl_us};
    for (unsigned i = 0; i < nodes->count; i++) {
        struct node *node = &nodes->list[i];
        if (!send_release(node, &release) && (touched & (1U << i))) {
            owe(node, &release);
        }
    }
}

/* --- who is it? ------------------------------------------------------------------------------------------------------------- */
static void judge_age(struct node *node)
{
    if (clock_monotonic_us() >= node->may_vote_at_us) {
        node_move(node, NODE_VOTING);
        log_info("%s votes", node->name);
    }
}

/* Two addresses of one Redis: it would have two votes. */
static bool is_met_already(const struct node *node, const struct redlock_run *run)
{
    for (unsigned i = 0; i < node->nodes->count; i++) {
        const struct node *other = &node->nodes->list[i];
        bool is_known = other->state == NODE_YOUNG || other->state == NODE_VOTING;
        if (other != node && is_known && strcmp(other->run.id, run->id) == 0) {
            return true;
        }
    }
    return false;
}

static void meet(struct node *node, const struct redlock_run *run, int64_t seen_us)
{
    bool is_new = strcmp(run->id, node->run.id) != 0, is_first = node->run.id[0] == '\0';
    int64_t now_us = clock_monotonic_us();
    if (is_new) {
        node->may_vote_at_us = redlock_may_vote_at_us(
            now_us, run->uptime_s, is_first ? REDLOCK_NEVER : seen_us, node->nodes->ttl_us);
        metrics_add(METRICS_lock_nodes_restarted, !is_first);
    }
    node->run = *run;
    if (now_us < node->may_vote_at_us) {
        node_move(node, NODE_YOUNG);
        log_warn("%s %s: it may have forgotten locks and does not vote for %d ms", node->name,
                 is_first ? "is young" : "was restarted", clock_left_ms(node->may_vote_at_us));
    } else {
        judge_age(node);
    }
}

static void info_cb(const redisReply *reply, void *context)
{
    struct ask *ask = context;
    struct node *node = ask->node;
    struct redlock_run run;
    int64_t seen_us = node->seen_us; /* by the run before */
    free(ask);
    replied(node, reply);
    if (reply == NULL || node->state != NODE_UNKNOWN || reply->type == REDIS_REPLY_ERROR) {
        return;
    }
    if (reply->type != REDIS_REPLY_STRING || !redlock_run_parse(reply->str, (size_t)reply->len, &run)) {
        complain(node, "does not say which run of Redis it is, and does not vote", "");
    } else if (is_met_already(node, &run)) {
        complain(node, "is the same Redis as another, and does not vote", "");
    } else {
        meet(node, &run, seen_us);
    }
}

static void identify(struct node *node)
{
    node->identify_at_us = clock_monotonic_us() + IDENTIFY_EVERY_US;
    put(node, info_cb, &(struct ask){.node = node}, 2, (const char *[]){"INFO", "server"});
}

static void up_cb(void *context)
{
    struct node *node = context;
    node->complained = false;
    node_move(node, NODE_UNKNOWN);
    identify(node);
    pay_what_is_owed(node);
}

static void down_cb(void *context)
{
    struct node *node = context;
    metrics_add(METRICS_redis_links_lost, 1);
    node_down(node);
}

static void tick_cb(uv_timer_t *timer)
{
    struct redlock_nodes *nodes = timer->data;
    int64_t now_us = clock_monotonic_us();
    for (unsigned i = 0; i < nodes->count; i++) {
        struct node *node = &nodes->list[i];
        if (node->state == NODE_YOUNG) {
            judge_age(node);
        } else if (node->state == NODE_UNKNOWN && now_us >= node->identify_at_us) {
            identify(node);
        }
    }
}

/* --- votes --------------------------------------------------------------------------------------------------------------------- */
static enum redlock_answer answer_of(const redisReply *reply)
{
    if (reply == NULL) {
        return REDLOCK_NO_ANSWER;
    }
    bool is_yes = (reply->type == REDIS_REPLY_STATUS && strcmp(reply->str, "OK") == 0) ||
                  (reply->type == REDIS_REPLY_INTEGER && reply->integer == 1);
    return is_yes ? REDLOCK_YES : REDLOCK_NO;
}

static void vote_cb(const redisReply *reply, void *context)
{
    struct ask ask = *(struct ask *)context;
    free(context);
    replied(ask.node, reply);
    ask.node->nodes->cb(ask.context, ask.round, ask.node->index, answer_of(reply));
}

bool redlock_nodes_ask(struct redlock_nodes *nodes, unsigned index, enum redlock_command command,
                       const struct redlock_key *key, void *context, uint64_t round)
{
    struct node *node = &nodes->list[index];
    const struct ask ask = {.node = node, .context = context, .round = round};
    if (node->state != NODE_VOTING) {
        return false;
    }
    return command == REDLOCK_TAKE
               ? put(node, vote_cb, &ask, 6,
                     (const char *[]){"SET", key->name, key->token, "NX", "PX", nodes->ttl_ms})
               : put(node, vote_cb, &ask, 6,
                     (const char *[]){"EVAL", extend_script, "1", key->name, key->token, nodes->ttl_ms});
}

/* --- open and close --------------------------------------------------------------------------------------------------------------- */
static void open_node(struct redlock_nodes *nodes, unsigned index, const struct redlock_settings *settings)
{
    struct node *node = &nodes->list[index];
    node->nodes = nodes;
    node->index = index;
    snprintf(node->name, sizeof node->name, "lock node %u", index + 1);
    struct redis_link_settings link = {.name = node->name,
                                       .address = settings->nodes[index],
                                       .connect_timeout_ms = CONNECT_TIMEOUT_MS,
                                       .command_timeout_ms = COMMAND_TIMEOUT_MS,
                                       .up_cb = up_cb,
                                       .down_cb = down_cb,
                                       .context = node};
    node->link = redis_link_new(settings->loop, &link);
}

struct redlock_nodes *redlock_nodes_open(const struct redlock_settings *settings, redlock_answer_cb cb)
{
    struct redlock_nodes *nodes = calloc(1, sizeof *nodes);
    CHECK(nodes != NULL);
    nodes->cb = cb;
    nodes->count = settings->node_count;
    nodes->ttl_us = (int64_t)settings->ttl_ms * 1000;
    text_from_int64(settings->ttl_ms, nodes->ttl_ms);
    for (unsigned i = 0; i < nodes->count; i++) {
        open_node(nodes, i, settings);
    }
    uv_timer_init(settings->loop, &nodes->tick);
    nodes->tick.data = nodes;
    uv_timer_start(&nodes->tick, tick_cb, TICK_MS, TICK_MS);
    return nodes;
}

void redlock_nodes_turn(struct redlock_nodes *nodes)
{
    for (unsigned i = 0; i < nodes->count; i++) {
        redis_link_flush(nodes->list[i].link);
    }
}

static void free_nodes_cb(uv_handle_t *handle)
{
    free(handle->data);
}

void redlock_nodes_close(struct redlock_nodes **nodes_pointer)
{
    struct redlock_nodes *nodes = *nodes_pointer;
    *nodes_pointer = NULL;
    nodes->had_majority = false; /* nobody needs to be told that it is lost now */
    for (unsigned i = 0; i < nodes->count; i++) {
        nodes->list[i].state = NODE_DOWN; /* nothing is sent from a callback any more */
    }
    for (unsigned i = 0; i < nodes->count; i++) {
        redis_link_close(&nodes->list[i].link);
    }
    uv_close((uv_handle_t *)&nodes->tick, free_nodes_cb);
}
