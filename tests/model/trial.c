/* See trial.h. The test's one thread. A trial is memory alone; the world is the caller's. The first difference ends it. */
#include "testing.h"

#include "trial.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define COMPARE_ALL_EVERY 12 /* steps */

bool trial_fail(struct trial *trial, const char *what, ...)
{
    va_list arguments;
    va_start(arguments, what);
    vsnprintf(trial->failure, sizeof trial->failure, what, arguments);
    va_end(arguments);
    return false;
}

bool trial_equal(struct trial *trial, int64_t found, int64_t wanted, const char *what, ...)
{
    char text[TRIAL_FAILURE_BYTES / 2];
    if (found == wanted) {
        return true;
    }
    va_list arguments;
    va_start(arguments, what);
    vsnprintf(text, sizeof text, what, arguments);
    va_end(arguments);
    return trial_fail(trial, "%s: %" PRId64 ", but the model says %" PRId64, text, found, wanted);
}

const char *trial_key(int key)
{
    static const char *const names[1 + MODEL_KEYS] = {NULL,
                                                      "1",
                                                      "2:1",
                                                      "%s%d\\\"'",
                                                      "key",
                                                      "------------------------------------------------------"
                                                      "-----------------------------------------------"
                                                      "------------------------------------------------------"
                                                      "-----------------------------------------------"
                                                      "-----------------------------------------------------",
                                                      "{doorbuster}"};
    return names[key];
}

int64_t trial_number(int *number, int64_t count)
{
    *number = *number == 0 || count == 0 ? 0 : (int)(1 + (*number - 1) % count);
    return *number == 0 ? count + 50 : *number;
}

int64_t trial_product(const struct trial *trial, int *number)
{
    return trial_number(number, trial->now.product_count);
}

static bool run_step(struct trial *trial, struct step *step)
{
    trial->steps++;
    if (!trial_step(trial, step) || !compare_gate(trial)) {
        return false;
    }
    return step->unrecorded || (trial_record(trial) && compare_gate(trial) && compare_store(trial));
}

static bool compare_everything(struct trial *trial)
{
    return trial_record(trial) && compare_gate(trial) && compare_store(trial) && compare_all(trial);
}

static bool run_all(struct trial *trial)
{
    for (trial->step = 0; trial->step < trial->done.count;) {
        if (!run_step(trial, &trial->done.steps[trial->step++]) ||
            (trial->step % COMPARE_ALL_EVERY == 0 && !compare_everything(trial))) {
            return false;
        }
    }
    return compare_everything(trial) && trial_forget(trial, LOSE_ALL) && compare_everything(trial);
}

bool trial_run(struct trial *trial, struct world *world, const struct sequence *sequence,
               enum model_fault fault)
{
    trial->world = world;
    trial->done = *sequence;
    trial->compared_orders = 0;
    trial->step = 0;
    trial->failure[0] = '\0';
    memset(trial->change_positions, 0, sizeof trial->change_positions);
    model_start(&trial->now, fault);
    model_start(&trial->recorded, fault);
    bool held = world_begin(world, MODEL_ADMIN, trial->failure, sizeof trial->failure) && run_all(trial);
    world_finish(world);
    return held;
}
