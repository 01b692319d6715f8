/* The sweep: every failpoint of the server with every action, one round each. A point of attaching gets an attach:
 * the scripts are flushed, or everything, where Redis is to be rebuilt. So does a cancel between the store and the gate: its
 * pass must be void then. */
#include "chaos.h"

#include "failpoints.h"

#include "doorbuster/redis.h"

#include <stdio.h>
#include <string.h>

#define PAUSE_MS 300 /* of the failpoints */
#define LASTS_MS 350 /* errors that come again and again */
#define PASSING_TIMEOUT_MS 2000
#define LATER_MS_MAX 60 /* time enough for somebody else */
#define PASS_MAX 3      /* it comes at one of the first so many passes */
#define NAME_BYTES 48

enum trigger { BY_ITSELF, SCRIPTS_FLUSHED, ALL_FLUSHED, ALL_FLUSHED_LATER };
#define LUA (LUA_MODES | SEVERAL_MODES)
#define BOTH (LUA | REDLOCK_MODES)
#define FILES (LUA_MODES | REDLOCK_MODES | 1u << MODE_SEVERAL)
static const struct {
    const char *name;
    unsigned modes;
    enum trigger trigger; /* under the Redlock gate BY_ITSELF: there is no epoch that could pass */
} points[] = {
    {"gate.sell", REDLOCK_MODES, BY_ITSELF},  {"gate.reply", BOTH, BY_ITSELF},
    {"gate.confirm", BOTH, BY_ITSELF},        {"cancel.read", BOTH, ALL_FLUSHED_LATER},
    {"cancel.done", BOTH, BY_ITSELF},         {"change.done", BOTH, BY_ITSELF},
    {"recorder.read", LUA, BY_ITSELF},        {"store.begun", BOTH, BY_ITSELF},
    {"store.commit", BOTH, BY_ITSELF},        {"store.committed", BOTH, BY_ITSELF},
    {"recorder.announce", LUA, BY_ITSELF},    {"leading.ignore", LUA, BY_ITSELF},
    {"attach.beside", LUA, SCRIPTS_FLUSHED},  {"attach.begin", LUA, SCRIPTS_FLUSHED},
    {"attach.epoch", LUA, SCRIPTS_FLUSHED},   {"attach.closed", LUA, SCRIPTS_FLUSHED},
    {"attach.drained", LUA, SCRIPTS_FLUSHED}, {"attach.wiped", LUA, ALL_FLUSHED},
    {"attach.filled", LUA, ALL_FLUSHED},      {"attach.rebuilt", LUA, ALL_FLUSHED},
    {"attach.opened", LUA, SCRIPTS_FLUSHED},  {"attach.announced", LUA, SCRIPTS_FLUSHED},
    {"vfs.write", FILES, BY_ITSELF},          {"vfs.full", FILES, BY_ITSELF},
    {"vfs.sync", FILES, BY_ITSELF},
};
static const char *const actions[] = {"kill", "stop", "pause", "error"};
#define POINTS (sizeof points / sizeof points[0])
#define ACTIONS (sizeof actions / sizeof actions[0])

static size_t not_passed;
static struct failpoint_page *page; /* NULL: none */
static struct fault table[POINTS * ACTIONS];
static char names[POINTS * ACTIONS][NAME_BYTES];

size_t sweep_count(void)
{
    return POINTS * ACTIONS;
}

static const char *point_of(const struct fault *fault, size_t *point)
{
    size_t index = (size_t)(fault - table);
    *point = index / ACTIONS;
    return actions[index % ACTIONS];
}

static enum trigger trigger_of(size_t point)
{
    return is_redlock(bench.mode) ? BY_ITSELF : points[point].trigger;
}

static void flush(enum trigger trigger)
{
    redisContext *redis = trigger != BY_ITSELF ? bench_connect() : NULL;
    if (redis != NULL) {
        freeReplyObject(redis_ask(redis, trigger == SCRIPTS_FLUSHED ? "SCRIPT FLUSH" : "FLUSHALL"));
        redisFree(redis);
    }
}

static void prepare_point(struct round *round)
{
    (void)round;
    failpoints_disarm(page);
}

static void write_spec(char *spec, size_t room, struct round *round, size_t point, const char *action)
{
    unsigned pass = trigger_of(point) == BY_ITSELF ? 1 + random_below(&round->random, PASS_MAX) : 1;
    bool lasts = strcmp(action, "error") == 0 && random_below(&round->random, 2) == 1;
    int used = snprintf(spec, room, "%s:%s@%u", points[point].name, action, pass);
    if (lasts) { /* not once, but at every pass for a while */
        snprintf(spec + used, room - (size_t)used, "~%d", LASTS_MS);
    }
}

static void arm_point(struct round *round)
{
    char spec[NAME_BYTES * 2];
    size_t point;
    const char *action = point_of(round->faults[0], &point);
    write_spec(spec, sizeof spec, round, point, action);
    failpoints_arm(page, spec);
    bench.kills += strcmp(action, "kill") == 0;
    if (trigger_of(point) == ALL_FLUSHED_LATER) { /* what somebody else has done meanwhile is forgotten */
        buyers_for((int)random_below(&round->random, LATER_MS_MAX));
        round->fault_us = now_us();
    }
    flush(trigger_of(point));
}

/* A busy machine may take its time to get there. */
static void wait_until_passed(void)
{
    int64_t deadline = deadline_in(PASSING_TIMEOUT_MS);
    while (failpoints_fired(page) == 0 && wait_a_moment(deadline)) {
    }
}

/* Those that stopped themselves go on. A point that nobody passed shows nothing, and is named. */
static void heal_point(struct round *round)
{
    pid_t pids[SERVER_CHILDREN_MAX];
    wait_until_passed();
    if (failpoints_fired(page) == 0) {
        printf("       %s: nobody passed there\n", round->names);
        not_passed++;
    }
    failpoints_disarm(page);
    for (unsigned server = 0; server < bench.server_count; server++) {
        size_t count = server_fixture_children(bench_server(server), pids, SERVER_CHILDREN_MAX);
        for (size_t i = 0; i < count; i++) {
            kill(pids[i], SIGCONT);
        }
    }
}

void sweep_make_file(void)
{
    sweep_end();
    page = failpoints_file_make(bench.failpoints);
}

size_t sweep_not_passed(void)
{
    return not_passed;
}

void sweep_end(void)
{
    if (page != NULL) {
        failpoints_file_close(&page);
    }
}

const struct fault *sweep_find(const char *name, size_t bytes)
{
    for (size_t i = 0; i < sweep_count(); i++) {
        const struct fault *fault = sweep_fault(i);
        if (strlen(fault->name) == bytes && memcmp(fault->name, name, bytes) == 0) {
            return fault;
        }
    }
    return NULL;
}

const struct fault *sweep_fault(size_t index)
{
    struct fault *fault = &table[index];
    size_t point = index / ACTIONS;
    unsigned instant = strcmp(actions[index % ACTIONS], "kill") == 0 ? INSTANT : 0;
    snprintf(names[index], sizeof names[index], "%s:%s", points[point].name, actions[index % ACTIONS]);
    *fault = (struct fault){.name = names[index],
                            .modes = points[point].modes,
                            .flags = ALONE | KILLS | instant |
                                     (points[point].trigger >= ALL_FLUSHED ? (unsigned)FORGETS : 0u),
                            .prepare = prepare_point,
                            .inject = arm_point,
                            .heal = heal_point,
                            .heal_min_ms = PAUSE_MS + 100,
                            .heal_max_ms = PAUSE_MS + 400};
    return fault;
}
