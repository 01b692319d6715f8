/* The chaos run: so many rounds, in blocks of one mode each, on stores that are given up after so many rounds. See
 * chaos.h for the parts, docs/chaos.md for how to use it. Main process, one thread.
 *
 * Exit code: 0 nothing was violated, 1 something was, 2 wrong options, 130 interrupted. */
#include "chaos.h"

#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define ROUNDS_USUAL 20
#define ROUNDS_MAX 1000000
#define WORKERS_MAX 16
#define BLOCK_ROUNDS 8
#define STORE_ROUNDS 48
#define BLOCK_SEEDS (UINT64_C(1) << 40)
#define SERVER_SEEDS (UINT64_C(1) << 41)
#define SHORT_SWEEP_STEP 4 /* --sweep=short: of each point one action, another one each time */

struct chaos_options options = {.rounds = ROUNDS_USUAL,
                                .workers = 2,
                                .block_rounds = BLOCK_ROUNDS,
                                .store_rounds = STORE_ROUNDS,
                                .mode = -1,
                                .modes = (1u << MODES) - 1,
                                .keys = true};
volatile sig_atomic_t interrupted;

static unsigned sweep_step = 1;
static bool rounds_given;

static void refuse(const char *what, const char *value, const char *may_be)
{
    fprintf(stderr, "chaos: %s %s: must be %s\n", what, value, may_be);
    exit(2);
}

/* --- options ------------------------------------------------------------------------------------------- */
enum option_id {
    O_ROUNDS,
    O_SEED,
    O_REPLAY,
    O_FAULT,
    O_MODE,
    O_GATE,
    O_SEVERAL,
    O_SERVERS,
    O_WORKERS,
    O_SWEEP,
    O_KEEP,
    O_NO_KEYS,
    O_FOLDER,
    O_LIST,
    O_SELF_TEST,
    O_HELP
};
static const struct option long_options[] = {
    {"rounds", required_argument, NULL, O_ROUNDS},
    {"seed", required_argument, NULL, O_SEED},
    {"replay", required_argument, NULL, O_REPLAY},
    {"fault", required_argument, NULL, O_FAULT},
    {"mode", required_argument, NULL, O_MODE},
    {"workers", required_argument, NULL, O_WORKERS},
    {"gate", required_argument, NULL, O_GATE},
    {"servers", required_argument, NULL, O_SERVERS},
    {"sweep", optional_argument, NULL, O_SWEEP},
    {"keep", no_argument, NULL, O_KEEP},
    {"no-keys", no_argument, NULL, O_NO_KEYS},
    {"folder", required_argument, NULL, O_FOLDER},
    {"list", no_argument, NULL, O_LIST},
    {"self-test", no_argument, NULL, O_SELF_TEST},
    {"help", no_argument, NULL, O_HELP},
    {"several", no_argument, NULL, O_SEVERAL},
    {NULL, 0, NULL, 0},
};
static const char usage[] =
    "chaos [--rounds N] [--seed S] [options]\n"
    "  --rounds N      so many random rounds (20; with --sweep none)\n"
    "  --seed S        the run's seed; without it one is made up and printed\n"
    "  --replay S      one round with that round's own seed (give --mode and --fault too, as its line says)\n"
    "  --fault NAME    this fault only; NAME+NAME: both\n"
    "  --gate GATE     lua or redlock only\n"
    "  --mode MODE     spawn, external or proxy only (of the Lua gate), nodes or nodes-spawn (of the Redlock "
    "gate)\n"
    "                  several (two servers, the Lua gate) or cluster (the same, Redis with Sentinels, "
    "PostgreSQL)\n"
    "  --several       the modes several and cluster only\n"
    "  --workers N     of each server (2)\n"
    "  --servers N     in the mode nodes: 1, or 2 on one store (now this, now that); in several and cluster: "
    "1, not 2\n"
    "  --sweep[=short] every failpoint with every action; short: with one action each. Of several servers "
    "first "
    "every fault, or some of them\n"
    "  --no-keys       no Idempotency-Key, neither of buyers nor of admins\n"
    "  --folder DIR    for what is kept; without it a temporary one\n"
    "  --keep          keep all rounds in it, those without a violation too\n"
    "  --self-test     a round without a fault; what came of it is falsified in many ways: the audit must "
    "notice\n"
    "  --list          the faults\n";

static uint64_t number(const char *name, const char *text, uint64_t min, uint64_t max)
{
    char *end, range[64];
    uint64_t value = strtoull(text, &end, 10);
    if (text[0] < '0' || text[0] > '9' || *end != '\0' || value < min || value > max) {
        snprintf(range, sizeof range, "a whole number from %" PRIu64 " to %" PRIu64, min, max);
        refuse(name, text, range);
    }
    return value;
}

static int mode_by_name(const char *text)
{
    for (int i = 0; i < MODES; i++) {
        if (strcmp(text, mode_names[i]) == 0) {
            return i;
        }
    }
    refuse("--mode", text, "spawn, external, proxy, nodes, nodes-spawn, several or cluster");
    return 0;
}

static unsigned modes_of_gate(const char *text)
{
    if (strcmp(text, "lua") != 0 && strcmp(text, "redlock") != 0) {
        refuse("--gate", text, "lua or redlock");
    }
    return strcmp(text, "lua") == 0 ? LUA_MODES : REDLOCK_MODES;
}

static void list_faults(void)
{
    for (size_t i = 0; i < fault_count; i++) {
        printf("%-32s", faults[i].name);
        for (unsigned mode = 0; mode < MODES; mode++) {
            printf("%s%s", faults[i].modes & 1u << mode ? " " : "",
                   faults[i].modes & 1u << mode ? mode_names[mode] : "");
        }
        printf("\n");
    }
    exit(0);
}

static void take_option(int id, const char *value)
{
    switch (id) {
    case O_ROUNDS:
        options.rounds = (unsigned)number("--rounds", value, 0, ROUNDS_MAX);
        rounds_given = true;
        break;
    case O_SEED:
        options.seed = number("--seed", value, 0, UINT64_MAX);
        break;
    case O_REPLAY:
        options.seed = number("--replay", value, 0, UINT64_MAX);
        options.replay = true;
        break;
    case O_FAULT:
        options.fault = value;
        break;
    case O_MODE:
        options.mode = mode_by_name(value);
        break;
    case O_GATE:
        options.modes = modes_of_gate(value);
        break;
    case O_SEVERAL:
        options.modes = SEVERAL_MODES;
        break;
    case O_SERVERS:
        options.servers = (unsigned)number("--servers", value, 1, SERVERS_MAX);
        break;
    case O_WORKERS:
        options.workers = (unsigned)number("--workers", value, 1, WORKERS_MAX);
        break;
    case O_SWEEP:
        options.sweep = true;
        sweep_step = value != NULL ? SHORT_SWEEP_STEP : 1;
        break;
    case O_SELF_TEST:
        options.self_test = true;
        options.fault = "none";
        break;
    case O_KEEP:
        options.keep = true;
        break;
    case O_NO_KEYS:
        options.keys = false;
        break;
    case O_FOLDER:
        options.folder = value;
        break;
    case O_LIST:
        list_faults();
        break;
    case O_HELP:
        fputs(usage, stdout);
        exit(0);
    default:
        fputs(usage, stderr);
        exit(2);
    }
}

static unsigned modes_of_option(void)
{
    unsigned modes = options.mode >= 0 ? 1u << options.mode : options.modes;
    for (const char *at = options.fault; at != NULL && *at != '\0';) {
        size_t bytes = strcspn(at, "+");
        const struct fault *fault = fault_find(at, bytes);
        if (fault == NULL) {
            refuse("--fault", options.fault, "one of those that --list names, or two with a + between");
        }
        modes &= fault->modes;
        at += bytes + (at[bytes] == '+');
    }
    if (modes == 0) {
        refuse("--fault", options.fault != NULL ? options.fault : "(any)",
               "possible in that mode; see --list");
    }
    return modes;
}

static void read_options(int argc, char **argv)
{
    int id;
    options.seed = (uint64_t)time(NULL);
    while ((id = getopt_long(argc, argv, "", long_options, NULL)) != -1) {
        take_option(id, optarg);
    }
    if (options.replay) {
        options.rounds = 1;
    } else if (options.sweep && !rounds_given) {
        options.rounds = 0;
    }
}

/* --- the run ------------------------------------------------------------------------------------------- */
static unsigned stores, rounds_on_store;

static bool wants_small_disk(void)
{
    return options.fault != NULL ? strstr(options.fault, "disk-full") != NULL : stores % 2 == 1;
}

static void open_store_cb(struct round *round)
{
    bench_begin(wants_small_disk());
    sweep_make_file();
    bench_switch(round->mode, round->servers);
}

static void switch_mode_cb(struct round *round)
{
    bench_switch(round->mode, round->servers);
}

static void close_store_cb(struct round *round)
{
    bench_stop();
    const char *bug = bench_log_bug();
    if (bug != NULL) {
        violation(round, "the server's log, as it was stopped: %s", bug);
    }
    audit_kept(round);
}

/* Everything this store ever confirmed is looked at once more. */
static void close_store(enum chaos_mode mode)
{
    struct round last = {
        .mode = mode, .servers = bench.server_count, .recovery_ms = -1, .back_ms = -1, .named_ms = -1};
    snprintf(last.names, sizeof last.names, "(store %u: all %zu confirmed orders again)", stores,
             kept_count());
    history_clear();
    if (bench.there) {
        guarded(&last, close_store_cb);
        if (last.violations > 0) {
            report_round(&last);
        }
    }
    bench_end();
    kept_forget();
}

static bool make_bench(struct round *round, bool new_block)
{
    bool other_store = several_has_postgres(bench.mode) != several_has_postgres(round->mode);
    if (bench.there && (other_store || rounds_on_store >= options.store_rounds)) {
        close_store(bench.mode);
    }
    if (!bench.there) {
        rounds_on_store = 0;
        report_acks_header(++stores);
        return guarded(round, open_store_cb);
    }
    bool same = !new_block && bench.mode == round->mode && bench.server_count == round->servers;
    return same || guarded(round, switch_mode_cb);
}

static void do_round(struct round *round, const struct fault *fault, bool new_block)
{
    history_clear();
    round->recovery_ms = round->meeting_ms = round->back_ms = round->named_ms = -1;
    bool there = make_bench(round, new_block);
    if (fault != NULL) {
        round->random = round->seed;
        round->faults[round->fault_count++] = fault;
        round->flags = fault->flags;
        snprintf(round->names, sizeof round->names, "%s", fault->name);
    } else {
        round_choose(round);
    }
    if (there) {
        round_run(round);
        rounds_on_store++;
    }
    if (interrupted) {
        return;
    }
    report_round(round);
    if (round->violations > 0) { /* what follows must not suffer from it */
        bench_end();
        kept_forget();
    }
}

static enum chaos_mode mode_of_block(unsigned block, unsigned modes)
{
    for (unsigned i = block;; i++) {
        if (modes & 1u << i % MODES) {
            return (enum chaos_mode)(i % MODES);
        }
    }
}

/* Two of several; two in every other block of the mode "nodes"; unless an option or a fault has it otherwise. */
static unsigned servers_of_block(enum chaos_mode mode, unsigned number_of_block)
{
    bool needs_two = false;
    for (const char *at = options.fault; at != NULL && *at != '\0';) {
        size_t bytes = strcspn(at, "+");
        needs_two = needs_two || (fault_find(at, bytes)->flags & TWO_SERVERS) != 0;
        at += bytes + (at[bytes] == '+');
    }
    if (is_several(mode)) {
        return options.servers != 0 && !needs_two ? options.servers : SERVERS_MAX;
    }
    if (mode != MODE_NODES) {
        return 1;
    }
    return needs_two              ? 2
           : options.servers != 0 ? options.servers
                                  : 1 + (unsigned)(seed_of(options.seed, SERVER_SEEDS + number_of_block) & 1);
}

static void random_rounds(void)
{
    unsigned modes = modes_of_option(), servers = 1;
    enum chaos_mode mode = MODE_SPAWN;
    unsigned block = (unsigned)(seed_of(options.seed, BLOCK_SEEDS) % MODES);
    for (unsigned i = 0; i < options.rounds && !interrupted; i++) {
        bool new_block = i % options.block_rounds == 0;
        if (new_block) {
            mode = mode_of_block(block, modes);
            block = mode + 1u;
            servers = servers_of_block(mode, i / options.block_rounds);
        }
        static struct round round;
        round = (struct round){.number = i + 1,
                               .seed = options.replay ? options.seed : seed_of(options.seed, i + 1),
                               .mode = mode,
                               .servers = servers};
        do_round(&round, NULL, new_block && i > 0);
    }
}

/* Of each point every action, or in the short sweep one: of the next point the next. */
static void sweep_mode(enum chaos_mode mode, unsigned *number_of_round)
{
    for (size_t i = 0; i < sweep_count() && !interrupted; i++) {
        const struct fault *fault = sweep_fault(i);
        if ((fault->modes & 1u << mode) == 0 || (sweep_step > 1 && (i + i / 4) % sweep_step != 0)) {
            continue;
        }
        static struct round round;
        round = (struct round){.number = ++*number_of_round,
                               .seed = seed_of(options.seed, BLOCK_SEEDS + 1 + i),
                               .mode = mode,
                               .servers = is_several(mode) ? SERVERS_MAX : 1};
        do_round(&round, fault, false);
    }
}

/* Every fault, or those of the short sweep. */
static void sweep_faults(enum chaos_mode mode, unsigned *number_of_round)
{
    size_t at = 0;
    const struct fault *fault;
    while ((fault = fault_next(mode, &at, sweep_step > 1)) != NULL && !interrupted) {
        static struct round round;
        if (fault->inject == fill_disk) {
            continue; /* of the random rounds, on every other store */
        }
        round = (struct round){.number = ++*number_of_round,
                               .seed = seed_of(options.seed, BLOCK_SEEDS + 1 + at),
                               .mode = mode,
                               .servers = SERVERS_MAX};
        do_round(&round, fault, false);
    }
}

static void sweep_rounds(void)
{
    unsigned modes = modes_of_option(), number_of_round = 0;
    for (unsigned mode = 0; mode < MODES; mode++) {
        if ((modes & SEVERAL_MODES & 1u << mode) != 0) {
            sweep_faults((enum chaos_mode)mode, &number_of_round);
        }
        if ((modes & SEVERAL_MODES & 1u << mode) != 0 && sweep_step == 1) {
            sweep_mode((enum chaos_mode)mode, &number_of_round);
        }
    }
    if ((modes & LUA_MODES) != 0) {
        sweep_mode(MODE_SPAWN, &number_of_round);
    }
    if ((modes & REDLOCK_MODES) != 0) {
        sweep_mode(MODE_NODES, &number_of_round);
    }
}

/* Exit code. */
static int self_test(void)
{
    static struct round round;
    round = (struct round){.number = 1,
                           .seed = seed_of(options.seed, 1),
                           .mode = options.mode >= 0 ? (enum chaos_mode)options.mode : MODE_SPAWN};
    round.servers = is_several(round.mode) ? SERVERS_MAX : 1;
    if (make_bench(&round, false)) {
        round_choose(&round);
        round_run(&round);
    }
    bool passed = selftest_passed(&round);
    bench_end();
    history_clear();
    kept_forget();
    return !passed;
}

static void interrupt_cb(int signal_number)
{
    (void)signal_number;
    interrupted = 1;
}

int main(int argc, char **argv)
{
    struct sigaction action = {.sa_handler = interrupt_cb};
    read_options(argc, argv);
    modes_of_option();
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGHUP, &action, NULL);
    signal(SIGPIPE, SIG_IGN); /* a node may die while it is asked */
    printf("chaos: seed %" PRIu64 ", %u workers%s\n", options.seed, options.workers,
           options.keys ? "" : ", no idempotency keys");
    report_begin();
    if (options.self_test) {
        int exit_code = self_test();
        report_end();
        return exit_code;
    }
    if (options.sweep) {
        sweep_rounds();
    }
    random_rounds();
    if (!interrupted) {
        close_store(bench.mode);
    }
    bench_end();
    history_clear();
    kept_forget();
    bool good = report_summary();
    return interrupted ? 130 : good ? 0 : 1;
}
