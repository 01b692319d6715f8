/* The nodes of a Redlock: two links to each, which run of Redis it is, and whether it may vote. A worker's loop thread. Owns the links and
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
 * Private nodes are started by our supervisor, which counts how often (`node_starts`). What is in its first run has never been in another that this
 * server's workers could have asked, and the workers of an earlier server are dead; so that one votes at once. The count is looked at when INFO is
 * answered: a second run cannot answer before it was counted.
 *
 * Locks of the dead: a worker that is killed (kill -9) leaves its locks for their whole TTL, 10 s, which is longer than a purchase's deadline; its
 * product could not be sold for so long. So tokens say whose they are, and the first thing on a connection is to delete those of the same server's
 * earlier runs and of the worker in whose place this one was started. Only for a TTL after the start: then the last of them has expired, and the
 * dead one's pid may be somebody else's.
 *
 * The second link listens to the news of locks released and wanted (redlock.c says what for). Nobody minds if some are lost.
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
#include "redlock_arithmetic.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define CONNECT_TIMEOUT_MS 1000
#define COMMAND_TIMEOUT_MS 1000
#define TICK_MS 50
#define IDENTIFY_EVERY_US 1000000
#define PENDING_MAX 512
#define OWED_MAX PENDING_MAX /* so that one outage is never too much */
#define NAME_BYTES 32

/* ARGV: token, resource, "wanted" if it was an attempt that failed, else "held"; the channel of the locks' news. */
static const char release_script[] = "local mine=redis.call('GET',KEYS[1])==ARGV[1] "
                                     "if mine then redis.call('DEL',KEYS[1]) end "
                                     "if ARGV[3]=='wanted' then redis.call('PUBLISH',ARGV[4],'?'..ARGV[2]) "
                                     "elseif mine then redis.call('PUBLISH',ARGV[4],ARGV[2]) end "
                                     "return mine and 1 or 0";
/* ARGV: how tokens of this server begin, of this run, of the dead worker ("": none); the prefix of the locks, the channel
 * of their news. */
static const char bury_script[] =
    "local function begins(text,with) return string.sub(text,1,#with)==with end "
    "local count=0 "
    "for _,key in ipairs(redis.call('KEYS',ARGV[4]..'*')) do "
    "local token=redis.pcall('GET',key) "
    "if type(token)=='string' and begins(token,ARGV[1]) and "
    "(not begins(token,ARGV[2]) or (ARGV[3]~='' and begins(token,ARGV[3]))) then "
    "redis.call('DEL',key) "
    "redis.call('PUBLISH',ARGV[5],string.sub(key,#ARGV[4]+1)) "
    "count=count+1 end end "
    "return count";
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
    bool was_held;
};

struct node {
    struct redlock_nodes *nodes;
    unsigned index;
    char name[NAME_BYTES], news_name[NAME_BYTES];
    struct redis_link *link, *news;
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
    redlock_answer_cb answer_cb;
    redlock_news_cb news_cb;
    void *context;
    struct gate_holder holder;
    const uint32_t *node_starts; /* NULL: not ours */
    int64_t opened_us;
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
    redlock_reply_cb cb;         /* of redlock_nodes_command() */
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

unsigned redlock_nodes_count(const struct redlock_nodes *nodes)
{
    return nodes->count;
}

bool redlock_nodes_votes(const struct redlock_nodes *nodes, unsigned node)
{
    return nodes->list[node].state == NODE_VOTING;
}

const char *redlock_nodes_state(const struct redlock_nodes *nodes, unsigned node)
{
    static const char *const states[NODE_STATES] = {
        [NODE_DOWN] = "down", [NODE_UNKNOWN] = "unknown", [NODE_YOUNG] = "young", [NODE_VOTING] = "up"};
    return states[nodes->list[node].state];
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
    metrics_set(METRICS_GAUGE_lock_nodes_voting, redlock_nodes_voting(node->nodes));
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
    const char *resource = release->key.name + strlen(gate_keys.lock);
    const char *argv[] = {"EVAL",
                          release_script,
                          "1",
                          release->key.name,
                          release->key.token,
                          resource,
                          release->was_held ? "held" : "wanted",
                          gate_keys.lock_news};
    return put(node, release_cb, &(struct ask){.node = node, .release = *release}, 8, argv);
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

void redlock_nodes_release(struct redlock_nodes *nodes, const struct redlock_key *key, unsigned touched,
                           bool was_held)
{
    struct owed_release release = {
        .key = *key, .until_us = clock_monotonic_us() + nodes->ttl_us, .was_held = was_held};
    for (unsigned i = 0; i < nodes->count; i++) {
        struct node *node = &nodes->list[i];
        if (!send_release(node, &release) && (touched & (1U << i))) {
            owe(node, &release);
        }
    }
}

/* --- locks of the dead ---------------------------------------------------------------------------------------------------------- */
static void buried_cb(const redisReply *reply, void *context)
{
    struct node *node = ((struct ask *)context)->node;
    free(context);
    replied(node, reply);
    if (reply != NULL && reply->type == REDIS_REPLY_INTEGER && reply->integer > 0) {
        metrics_add(METRICS_lock_orphans_released, (uint64_t)reply->integer);
        log_info("%s: released %lld lock%s of workers that died", node->name, reply->integer,
                 reply->integer == 1 ? "" : "s");
    }
}

static void bury_the_dead(struct node *node)
{
    const struct redlock_nodes *nodes = node->nodes;
    const struct gate_holder *holder = &nodes->holder;
    char server[TEXT_INT64_BYTES], run[2 * TEXT_INT64_BYTES], dead[3 * TEXT_INT64_BYTES] = "";
    if (holder->server == 0 || clock_monotonic_us() - nodes->opened_us > nodes->ttl_us) {
        return;
    }
    snprintf(server, sizeof server, "%" PRIx64 "-", holder->server);
    snprintf(run, sizeof run, "%s%" PRIx64 "-", server, holder->run);
    if (holder->dead_pid != 0 && holder->dead_pid != getpid()) {
        snprintf(dead, sizeof dead, "%s%" PRId64 "-", run, holder->dead_pid);
    }
    put(node, buried_cb, &(struct ask){.node = node}, 8,
        (const char *[]){"EVAL", bury_script, "0", server, run, dead, gate_keys.lock, gate_keys.lock_news});
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

/* The first run of a private node. */
static bool cannot_have_forgotten(const struct node *node)
{
    const uint32_t *starts = node->nodes->node_starts;
    return starts != NULL && __atomic_load_n(&starts[node->index], __ATOMIC_ACQUIRE) == 1;
}

static void meet(struct node *node, const struct redlock_run *run, int64_t seen_us)
{
    bool is_new = strcmp(run->id, node->run.id) != 0, is_first = node->run.id[0] == '\0';
    int64_t now_us = clock_monotonic_us();
    if (is_new) {
        node->may_vote_at_us =
            cannot_have_forgotten(node)
                ? now_us
                : redlock_may_vote_at_us(now_us, run->uptime_s, is_first ? REDLOCK_NEVER : seen_us,
                                         node->nodes->ttl_us);
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
    bury_the_dead(node);
    identify(node);
    pay_what_is_owed(node);
}

static void down_cb(void *context)
{
    struct node *node = context;
    metrics_add(METRICS_redis_links_lost, 1);
    node_down(node);
}

/* --- news of locks ------------------------------------------------------------------------------------------------- */
static void news_cb(const redisReply *reply, void *context)
{
    struct node *node = context;
    if (reply != NULL && reply->type == REDIS_REPLY_ARRAY && reply->elements == 3 &&
        reply->element[2]->type == REDIS_REPLY_STRING) { /* not the confirmation */
        const char *text = reply->element[2]->str;
        bool is_wanted = text[0] == '?';
        node->nodes->news_cb(node->nodes->context, node->index, is_wanted ? REDLOCK_WANTED : REDLOCK_RELEASED,
                             text + is_wanted);
    }
}

static void news_up_cb(void *context)
{
    struct node *node = context;
    redis_link_subscribe(node->news, gate_keys.lock_news, news_cb, node);
}

static void news_down_cb(void *context)
{
    (void)context; /* the backoff decides */
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
    ask.node->nodes->answer_cb(ask.context, ask.round, ask.node->index, answer_of(reply));
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

/* --- anything else ------------------------------------------------------------------------------------------------------------- */
static void command_cb(const redisReply *reply, void *context)
{
    struct ask ask = *(struct ask *)context;
    free(context);
    replied(ask.node, reply);
    ask.cb(ask.context, ask.node->index, reply);
}

bool redlock_nodes_command(struct redlock_nodes *nodes, unsigned index, redlock_reply_cb cb, void *context,
                           int argc, const char **argv)
{
    struct node *node = &nodes->list[index];
    return put(node, command_cb, &(struct ask){.node = node, .context = context, .cb = cb}, argc, argv);
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
    snprintf(node->news_name, sizeof node->news_name, "news of lock node %u", index + 1);
    link.name = node->news_name;
    link.up_cb = news_up_cb;
    link.down_cb = news_down_cb;
    node->news = redis_link_new(settings->loop, &link);
}

struct redlock_nodes *redlock_nodes_open(const struct redlock_settings *settings, redlock_answer_cb answer_cb,
                                         redlock_news_cb on_news_cb, void *context)
{
    struct redlock_nodes *nodes = calloc(1, sizeof *nodes);
    CHECK(nodes != NULL);
    nodes->answer_cb = answer_cb;
    nodes->news_cb = on_news_cb;
    nodes->context = context;
    nodes->holder = settings->holder;
    nodes->node_starts = settings->node_starts;
    nodes->opened_us = clock_monotonic_us();
    nodes->count = settings->node_count;
    nodes->ttl_us = (int64_t)settings->ttl_ms * 1000;
    metrics_set(METRICS_GAUGE_lock_nodes, nodes->count);
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
        redis_link_flush(nodes->list[i].news);
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
        redis_link_close(&nodes->list[i].news);
    }
    uv_close((uv_handle_t *)&nodes->tick, free_nodes_cb);
}
