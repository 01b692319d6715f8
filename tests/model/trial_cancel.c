/* Cancelling, as the API's job does it: the gate's pass, the store, the gate. The test's one thread; owns nothing. A difference is the trial's
 * failure. */
#include "testing.h"

#include "trial.h"

#include <inttypes.h>

/* Who wants an order cancelled, what the store says of it, and what is asked of the gate. */
struct cancelling {
    int64_t order_id, actor;
    struct gate_pass pass;
    struct store_order order;
    struct order_part parts[ORDER_PARTS_MAX];
    size_t part_count;
};

/* As the API does: first the pass, then the store. MODEL_DONE: the gate is to be asked. */
static bool read_order(struct trial *trial, struct cancelling *cancelling, enum model_result *out)
{
    struct store *store = trial->world->recorder->store;
    if (!gate_take_pass(trial->world->books, &cancelling->pass)) {
        return trial_fail(trial, "taking a pass: %s", redis_failure());
    }
    enum store_status status = store_find_order(store, cancelling->order_id, &cancelling->order);
    if (status != STORE_OK && status != STORE_NOT_FOUND) {
        return trial_fail(trial, "reading order %" PRId64 ": %s", cancelling->order_id, store_error(store));
    }
    bool is_there = status == STORE_OK && cancelling->order.state != ORDER_REJECTED;
    bool may =
        is_there && (cancelling->actor == MODEL_ADMIN || cancelling->actor == cancelling->order.sale.user_id);
    *out = !is_there                                    ? MODEL_UNKNOWN
           : !may                                       ? MODEL_NOT_YOURS
           : cancelling->order.state == ORDER_CANCELLED ? MODEL_DONE_BEFORE
                                                        : MODEL_DONE;
    if (*out == MODEL_DONE) {
        cancelling->parts[0] = order_part_at(&cancelling->order.sale, 0);
        status = store_order_parts(store, cancelling->order_id, cancelling->parts + 1, ORDER_PARTS_MAX - 1,
                                   &cancelling->part_count);
        cancelling->part_count++;
    }
    return trial_equal(trial, status == STORE_FAILED, false, "reading the parts of an order");
}

static enum change_outcome ask_gate(struct trial *trial, const struct cancelling *cancelling,
                                    struct change_result *result, bool *is_void)
{
    struct cancellation cancel = {.order_id = cancelling->order_id,
                                  .user_id = cancelling->order.sale.user_id,
                                  .actor = cancelling->actor,
                                  .parts = cancelling->parts,
                                  .part_count = cancelling->part_count};
    return gate_cancel(trial->world->books, &cancelling->pass, &cancel, result, is_void);
}

/* An epoch begins between reading and asking: nothing may come of it. */
static bool cancel_in_vain(struct trial *trial, struct cancelling *cancelling)
{
    enum model_result found;
    struct change_result result;
    bool is_void;
    if (!read_order(trial, cancelling, &found) || !trial_attach(trial)) {
        return false;
    }
    if (found != MODEL_DONE) {
        return true;
    }
    ask_gate(trial, cancelling, &result, &is_void);
    return trial_equal(trial, is_void, true, "is a cancellation void after an attach");
}

static bool cancel_at_gate(struct trial *trial, const struct cancelling *cancelling, enum model_result *out)
{
    struct change_result result;
    bool is_void;
    enum change_outcome changed = ask_gate(trial, cancelling, &result, &is_void);
    struct log_position *position = &trial->cancel_positions[cancelling->order_id];
    if (changed == CHANGE_MADE) {
        *position = result.position;
        *out = MODEL_DONE;
    } else if (changed == CHANGE_MADE_BEFORE) {
        *out = MODEL_DONE_BEFORE;
        return trial_equal(trial, log_position_compare(*position, result.position), 0,
                           "position of the cancellation of order %" PRId64 " compared",
                           cancelling->order_id);
    } else if (changed == CHANGE_FULL) {
        *out = MODEL_FULL;
    } else {
        return trial_fail(trial, "cancelling order %" PRId64 ": %s", cancelling->order_id, redis_failure());
    }
    return true;
}

bool trial_cancel(struct trial *trial, struct step *step)
{
    int64_t id = trial_number(&step->order, trial->now.order_count);
    int64_t owner = id <= trial->now.order_count ? trial->now.orders[id].user : 1;
    struct cancelling cancelling = {.order_id = id,
                                    .actor = step->by == BY_ADMIN   ? MODEL_ADMIN
                                             : step->by == BY_OTHER ? 1 + owner % MODEL_USERS
                                                                    : owner};
    enum model_result found;
    if (step->is_void && !cancel_in_vain(trial, &cancelling)) {
        return false;
    }
    if (!read_order(trial, &cancelling, &found) ||
        (found == MODEL_DONE && !cancel_at_gate(trial, &cancelling, &found))) {
        return false;
    }
    enum model_result wanted = model_cancel(&trial->now, id, cancelling.actor, trial->recorded.order_count);
    trial->results[STEP_CANCEL][wanted]++;
    if (found != wanted) {
        return trial_fail(trial, "cancelling order %" PRId64 ": %s, but the model says %s", id,
                          model_result_names[found], model_result_names[wanted]);
    }
    trial->compared_orders =
        found == MODEL_DONE && id <= trial->compared_orders ? id - 1 : trial->compared_orders;
    world_listen(trial->world);
    return true;
}
