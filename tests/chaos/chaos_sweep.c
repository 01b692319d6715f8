/* The sweep: every failpoint of the server with every action, one round each. A point of attaching gets an attach:
 * the scripts are flushed, or everything, where Redis is to be rebuilt. */
#include "chaos.h"

#include "chaos_failpoints.h"

#include "doorbuster/redis.h"

#include <stdio.h>
#include <string.h>

#define PAUSE_MS 400
#define ACTION_TIMES 3 /* it comes at one of the first so many passes */
#define NAME_BYTES 48

enum trigger { BY_ITSELF, SCRIPTS_FLUSHED, ALL_FLUSHED };
static const struct {
    const char *name;
    enum trigger trigger;
} points[] = {
    {"gate.reply", BY_ITSELF},
    {"gate.confirm", BY_ITSELF},
    {"recorder.read", BY_ITSELF},
    {"store.begun", BY_ITSELF},
    {"store.commit", BY_ITSELF},
    {"store.committed", BY_ITSELF},
    {"recorder.announce", BY_ITSELF},
    {"attach.begin", SCRIPTS_FLUSHED},
    {"attach.epoch", SCRIPTS_FLUSHED},
    {"attach.closed", SCRIPTS_FLUSHED},
    {"attach.drained", SCRIPTS_FLUSHED},
    {"attach.wiped", ALL_FLUSHED},
    {"attach.filled", ALL_FLUSHED},
    {"attach.rebuilt", ALL_FLUSHED},
    {"attach.opened", SCRIPTS_FLUSHED},
    {"attach.announced", SCRIPTS_FLUSHED},
    {"vfs.write", BY_ITSELF},
    {"vfs.full", BY_ITSELF},
    {"vfs.sync", BY_ITSELF},
};
static const char *const actions[] = {"kill", "stop", "pause", "error"};
#define POINTS (sizeof points / sizeof points[0])
#define ACTIONS (sizeof actions / sizeof actions[0])

static struct fault table[POINTS * ACTIONS];
static char names[POINTS * ACTIONS][NAME_BYTES];

bool sweep_possible(void)
{
    return CHAOS_HAS_FAILPOINTS;
}

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

static void flush(enum trigger trigger)
{
    redisContext *redis = trigger != BY_ITSELF ? bench_connect() : NULL;
    if (redis != NULL) {
        freeReplyObject(redis_ask(redis, trigger == ALL_FLUSHED ? "FLUSHALL" : "SCRIPT FLUSH"));
        redisFree(redis);
    }
}

static void prepare_point(struct round *round)
{
    (void)round;
    failpoints_disarm(bench.failpoints);
}

static void arm_point(struct round *round)
{
    char text[NAME_BYTES * 2];
    size_t point;
    const char *action = point_of(round->faults[0], &point);
    unsigned times = points[point].trigger == BY_ITSELF ? 1 + random_below(&round->random, ACTION_TIMES) : 1;
    snprintf(text, sizeof text, "%s:%s@%u", points[point].name, action, times);
    if (strcmp(action, "pause") == 0) {
        size_t used = strlen(text);
        snprintf(text + used, sizeof text - used, "~%d", PAUSE_MS);
    }
    failpoints_arm(bench.failpoints, text);
    bench.kills += strcmp(action, "kill") == 0;
    flush(points[point].trigger);
}

/* Those that stopped themselves go on; whether the point was passed at all is part of what the sweep shows. */
static void heal_point(struct round *round)
{
    pid_t pids[SERVER_CHILDREN_MAX];
    size_t count = server_fixture_children(&bench.server, pids, SERVER_CHILDREN_MAX);
    if (!failpoints_fired(bench.failpoints)) {
        printf("       %s was not passed\n", round->names);
    }
    failpoints_disarm(bench.failpoints);
    for (size_t i = 0; i < count; i++) {
        kill(pids[i], SIGCONT);
    }
}

void sweep_make_file(void)
{
    failpoints_file_make(bench.failpoints);
}

const struct fault *sweep_fault(size_t index)
{
    struct fault *fault = &table[index];
    size_t point = index / ACTIONS;
    snprintf(names[index], sizeof names[index], "%s:%s", points[point].name, actions[index % ACTIONS]);
    *fault = (struct fault){.name = names[index],
                            .modes = (1u << MODES) - 1,
                            .flags = ALONE | KILLS |
                                     (points[point].trigger == ALL_FLUSHED ? (unsigned)FORGETS : 0u),
                            .prepare = prepare_point,
                            .inject = arm_point,
                            .heal = heal_point,
                            .heal_min_ms = PAUSE_MS + 100,
                            .heal_max_ms = PAUSE_MS + 400};
    return fault;
}
