/* The model-based test: random sequences of everything a sale can be asked for, carried out on a real Redis, a real store, the worker's gate and
 * the recorder's own functions, and compared after each step with a simple model (model.h). A sequence that fails is made as small as it goes
 * and printed, so that it can be put into tests/model/regressions/ and replayed.
 *
 *   model --sequences N --seed S --steps N    sequence i has the seed S + i
 *   model --replay FILE…                      sequences that were printed once (steps.h says how they look)
 *   model --self-test                         falsifies the model in each of its ways: is it found, and made small?
 *
 * One thread. Exits 0: nothing differs; 1: something does; 2: it was called wrongly. */
#include "testing.h"

#include "shrink.h"

#include "doorbuster/log.h"
#include "doorbuster/text.h"

#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define USUAL_SEQUENCES 100
#define USUAL_STEPS 40
#define SHRINK_RUNS 2000
#define SELF_TEST_SEQUENCES 60
#define SELF_TEST_RUNS 250
#define SELF_TEST_STEPS_MAX 12 /* a falsified model must be shown by so few */
#define REPORT_EVERY_US 10000000

static struct {
    int64_t sequences, seed, steps;
    bool self_test;
    int replay_from; /* argv index of the first file; 0: none */
} options = {.sequences = USUAL_SEQUENCES, .steps = USUAL_STEPS};

static struct world world;
static struct trial trial;
static struct sequence sequence;

/* What the code under test logs is expected: somebody tampers with Redis. It goes into a file without a name, of the running sequence alone. */
static int own_stderr = -1;

static void hush(void)
{
    FILE *file = tmpfile();
    own_stderr = dup(STDERR_FILENO);
    assert_true(file != NULL && own_stderr >= 0 && dup2(fileno(file), STDERR_FILENO) >= 0);
    fclose(file);
}

static void forget_log(void)
{
    if (own_stderr >= 0 && ftruncate(STDERR_FILENO, 0) == 0) {
        lseek(STDERR_FILENO, 0, SEEK_SET);
    }
}

/* From here on it is heard; `with_log`: also what was said since forget_log(). */
static void unhush(bool with_log)
{
    char text[4096];
    ssize_t bytes;
    if (own_stderr < 0) {
        return;
    }
    for (off_t at = 0; with_log && (bytes = pread(STDERR_FILENO, text, sizeof text, at)) > 0; at += bytes) {
        if (write(own_stderr, text, (size_t)bytes) != bytes) {
            break;
        }
    }
    dup2(own_stderr, STDERR_FILENO);
    close(own_stderr);
    own_stderr = -1;
}

/* A CHECK of the code under test, or a sanitizer, ends the process: then at least it is known where. */
static char where[128];

static void abort_cb(int signal_number)
{
    unhush(true);
    ssize_t written = write(STDERR_FILENO, where, strlen(where));
    (void)written;
    signal(signal_number, SIG_DFL);
    raise(signal_number);
}

/* Told to stop: after this sequence, so that nothing is left behind. */
static volatile sig_atomic_t stopping;

static void stop_cb(int signal_number)
{
    (void)signal_number;
    stopping = 1;
}

static bool run_seed(uint64_t seed, enum model_fault fault)
{
    snprintf(where, sizeof where,
             "model: aborted in the sequence of --seed %" PRIu64 " --sequences 1 --steps %d\n", seed,
             (int)options.steps);
    forget_log();
    sequence_make(&sequence, seed, (size_t)options.steps);
    return trial_run(&trial, &world, &sequence, fault);
}

static void report_failure(uint64_t seed)
{
    printf("FAILED: --seed %" PRIu64 " --sequences 1 --steps %d, at step %zu: %s\n", seed, (int)options.steps,
           trial.step, trial.failure);
    fflush(stdout);
    shrink(&trial, &world, &sequence, MODEL_HONEST, SHRINK_RUNS);
    printf("# shrunk from %d steps to %zu: %s\n", (int)options.steps, sequence.count, trial.failure);
    sequence_print(&sequence, stdout);
    fflush(stdout);
    unhush(false);
    trial_run(&trial, &world, &sequence, MODEL_HONEST); /* once more, for what it logs */
}

static void report_coverage(void)
{
    static const char *const kinds[STEP_KINDS] = {
        [STEP_OPEN] = "opened",        [STEP_CANCEL] = "cancelled", [STEP_RESTOCK] = "restocked",
        [STEP_WITHDRAW] = "withdrawn", [STEP_PRICE] = "priced",     [STEP_ATTACH] = "attached"};
    static const char *const refusals[REFUSALS] = {
        "sold",     "insufficient stock", "limit",    "not on sale",
        "rejected", "already ordered",    "not open", "over"};
    printf("model: %" PRIu64 " steps, of the recorder %" PRIu64 " failed and %" PRIu64
           " were too late; purchases:",
           trial.steps, world.failures, world.fenced);
    for (int i = 0; i < REFUSALS; i++) {
        printf(" %s %" PRIu64 ",", refusals[i], trial.purchases[i]);
    }
    printf(" of the sold carts %" PRIu64 "\n", trial.carts_sold);
    for (int kind = 0; kind < STEP_KINDS; kind++) {
        for (int i = 0; kinds[kind] != NULL && i < MODEL_RESULTS; i++) {
            if (trial.results[kind][i] > 0) {
                printf("%s %s: %s %" PRIu64, i == 0 ? "model:" : ";", kinds[kind], model_result_names[i],
                       trial.results[kind][i]);
            }
        }
        printf("%s", kinds[kind] != NULL ? "\n" : "");
    }
}

static int run_random(void)
{
    int64_t next_report_us = now_us() + REPORT_EVERY_US, begun_us = now_us();
    int64_t played = 0;
    int failed = 0;
    printf("model: %" PRId64 " sequences of %" PRId64 " steps, --seed %" PRId64 "\n", options.sequences,
           options.steps, options.seed);
    for (int64_t i = 0; i < options.sequences && !stopping && !failed; i++, played++) {
        uint64_t seed = (uint64_t)(options.seed + i);
        bool held = run_seed(seed, MODEL_HONEST);
        if (stopping) {
            break; /* our redis-server may have been told to stop as well */
        }
        if (!held) {
            report_failure(seed);
            failed = 1;
        } else if (now_us() > next_report_us) {
            next_report_us = now_us() + REPORT_EVERY_US;
            printf("model: %" PRId64 " sequences, no difference\n", i + 1);
            fflush(stdout);
        }
    }
    report_coverage();
    printf("model: %" PRId64 " sequences: %s after %" PRId64 " s\n", played,
           failed ? "a difference" : "no difference", (now_us() - begun_us) / 1000000);
    return failed;
}

/* --- is it awake? -------------------------------------------------------------------------------------------------------------- */
static bool finds(enum model_fault fault)
{
    for (uint64_t i = 0; i < SELF_TEST_SEQUENCES; i++) {
        if (run_seed((uint64_t)options.seed + i, fault)) {
            continue;
        }
        size_t steps = trial.step;
        shrink(&trial, &world, &sequence, fault, SELF_TEST_RUNS);
        printf("ok: \"%s\": found in sequence %" PRIu64 " at step %zu, shrunk to %zu: %s\n",
               model_fault_names[fault], i + 1, steps, sequence.count, trial.failure);
        sequence_print(&sequence, stdout);
        fflush(stdout);
        return sequence.count <= SELF_TEST_STEPS_MAX;
    }
    return false;
}

/* What is printed must be readable: all steps of a sequence, written, read and written again. */
static bool text_is_faithful(uint64_t seed)
{
    char once[STEP_TEXT_BYTES], again[STEP_TEXT_BYTES];
    struct step step;
    sequence_make(&sequence, seed, STEPS_MAX);
    for (size_t i = 0; i < sequence.count; i++) {
        step_format(&sequence.steps[i], once);
        if (!step_parse(once, &step)) {
            printf("FAILED: cannot be read: %s\n", once);
            return false;
        }
        step_format(&step, again);
        if (strcmp(once, again) != 0) {
            printf("FAILED: \"%s\" is read as \"%s\"\n", once, again);
            return false;
        }
    }
    return true;
}

static int self_test(void)
{
    int failed = 0;
    for (uint64_t seed = 0; seed < SELF_TEST_SEQUENCES; seed++) {
        failed |= !text_is_faithful(seed);
    }
    for (enum model_fault fault = MODEL_HONEST + 1; fault < MODEL_FAULTS; fault++) {
        if (!finds(fault)) {
            printf("FAILED: \"%s\" was not found, or not made small\n", model_fault_names[fault]);
            failed = 1;
        }
    }
    return failed;
}

/* --- replaying ---------------------------------------------------------------------------------------------------------------------- */
static int replay(const char *path)
{
    char error[STEP_TEXT_BYTES + 64];
    FILE *file = fopen(path, "r");
    if (file == NULL) {
        fprintf(stderr, "model: %s cannot be opened\n", path);
        return 2;
    }
    bool read = sequence_read(&sequence, file, error, sizeof error);
    fclose(file);
    if (!read) {
        fprintf(stderr, "model: %s, %s\n", path, error);
        return 2;
    }
    snprintf(where, sizeof where, "model: aborted in a replay\n");
    bool held = trial_run(&trial, &world, &sequence, MODEL_HONEST);
    printf("%s: %s: %zu steps", held ? "ok" : "FAILED", path, sequence.count);
    printf(held ? "\n" : ", at step %zu: %s\n", trial.step, trial.failure);
    return !held;
}

static int replay_all(int argc, char **argv)
{
    int failed = 0;
    for (int i = options.replay_from; i < argc; i++) {
        int result = replay(argv[i]);
        failed = result > failed ? result : failed;
    }
    return failed;
}

/* --- options -------------------------------------------------------------------------------------------------------------------------- */
static bool take_number(const char *text, int64_t min, int64_t max, int64_t *out)
{
    return text != NULL && text_to_int64(text, strlen(text), min, max, out);
}

static bool read_options(int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        const char *value = argv[i + 1]; /* argv ends with NULL */
        if (strcmp(argv[i], "--self-test") == 0) {
            options.self_test = true;
        } else if (strcmp(argv[i], "--replay") == 0 && value != NULL) {
            options.replay_from = i + 1;
            return true;
        } else if ((strcmp(argv[i], "--sequences") == 0 &&
                    take_number(value, 1, 1000000000, &options.sequences)) ||
                   (strcmp(argv[i], "--seed") == 0 && take_number(value, 0, INT64_MAX / 2, &options.seed)) ||
                   (strcmp(argv[i], "--steps") == 0 && take_number(value, 1, STEPS_MAX, &options.steps))) {
            i++;
        } else {
            fprintf(stderr,
                    "usage: %s [--sequences N] [--seed S] [--steps 1..%d] [--self-test] [--replay FILE…]\n",
                    argv[0], STEPS_MAX);
            return false;
        }
    }
    return true;
}

int main(int argc, char **argv)
{
    options.seed = now_us() % 1000000000;
    if (!read_options(argc, argv)) {
        return 2;
    }
    signal(SIGPIPE, SIG_IGN);
    signal(SIGABRT, abort_cb);
    signal(SIGINT, stop_cb);
    signal(SIGTERM, stop_cb);
    log_set_level(LOG_ERROR);
    world_start(&world);
    hush();
    int result = options.replay_from > 0 ? replay_all(argc, argv)
                 : options.self_test     ? self_test()
                                         : run_random();
    world_end(&world);
    unhush(result == 1 && options.replay_from > 0);
    return result;
}
