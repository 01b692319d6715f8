/* Steps in which the recorder attaches, or has something to notice: Redis forgets, somebody changes it by hand, steps of the recorder fail, another
 * recorder takes over. The test's one thread; owns nothing. A difference is the trial's failure. */
#include "testing.h"

#include "trial.h"

#include "doorbuster/clock.h"

#include <inttypes.h>
#include <string.h>

static bool note_recorded(struct trial *trial)
{
    model_copy(&trial->recorded, &trial->now);
    for (size_t i = 0; i < trial->world->purchase_count; i++) {
        if (!compare_answer(trial, i, true)) {
            return false;
        }
    }
    trial->world->purchase_count = trial->world->answer_count = 0;
    return true;
}

bool trial_record(struct trial *trial)
{
    return world_record(trial->world) ? note_recorded(trial)
                                      : trial_fail(trial, "the recorder does not record");
}

bool trial_after_attach(struct trial *trial, bool attached)
{
    if (!attached) {
        return trial_fail(trial, "the recorder cannot attach");
    }
    if (!world_answer_all(trial->world)) {
        return trial_fail(trial, "not every purchase is answered after an attach");
    }
    if (!note_recorded(trial)) {
        return false;
    }
    model_attach(&trial->now);
    trial->results[STEP_ATTACH][MODEL_DONE]++;
    return true;
}

/* Sold, but not confirmed: who lost an answer and was found in the store is done with. */
static bool was_reserved(const struct trial *trial, size_t i)
{
    return trial->answers[i].refusal == REFUSAL_NONE &&
           trial->world->purchases[i].gate.purchase.state != PURCHASE_CONFIRMED;
}

/* Whoever was reserved and not recorded is asked for again, in the same order, as if it had never been. */
static bool ask_again(struct trial *trial)
{
    struct world *world = trial->world;
    struct model_cart carts[WORLD_PURCHASES];
    struct model_answer answers[WORLD_PURCHASES];
    size_t count = 0;
    for (size_t i = 0; i < world->purchase_count; i++) {
        if (was_reserved(trial, i)) {
            carts[count++] = trial->carts[i];
        }
    }
    if (!world_decide(world)) {
        return trial_fail(trial, "a purchase that Redis forgot is not decided again");
    }
    model_buy(&trial->now, carts, count, clock_wall_ms(), answers);
    count = 0;
    for (size_t i = 0; i < world->purchase_count; i++) {
        if (was_reserved(trial, i)) {
            trial->answers[i] = answers[count++];
            if (!compare_answer(trial, i, false)) {
                return false;
            }
        }
    }
    return true;
}

/* The attach settles it: what was sold is found in the store; what was not is asked again, behind all that was, and by then what was planned is
 * open. */
bool trial_lose_answer(struct trial *trial, size_t first)
{
    struct world *world = trial->world;
    struct model_cart again[STEP_CARTS];
    struct model_answer answers[STEP_CARTS];
    size_t count = 0, asked = 0;
    if (!world_lose_answer(world) || !world_attach(world) || !world_decide(world)) {
        return trial_fail(trial, "purchases in doubt are not settled");
    }
    model_buy(&trial->now, &trial->carts[first], world->purchase_count - first, clock_wall_ms(),
              &trial->answers[first]);
    model_copy(&trial->recorded, &trial->now);
    model_attach(&trial->now);
    for (size_t i = first; i < world->purchase_count; i++) {
        if (trial->answers[i].refusal != REFUSAL_NONE) {
            again[count++] = trial->carts[i];
        } else if (!compare_answer(trial, i, true)) {
            return false;
        }
    }
    model_buy(&trial->now, again, count, clock_wall_ms(), answers);
    for (size_t i = first; i < world->purchase_count; i++) {
        if (trial->answers[i].refusal != REFUSAL_NONE) {
            trial->answers[i] = answers[asked++];
            if (!compare_answer(trial, i, false)) {
                return false;
            }
        }
    }
    return true;
}

/* What the store does not have was never promised: it is as if it had not been asked for. */
static bool forget_unrecorded(struct trial *trial)
{
    redis_do(trial->world->books, "FLUSHALL");
    if (!world_attach(trial->world)) {
        return trial_fail(trial, "the recorder cannot attach to an empty Redis");
    }
    if (trial->now.fault != MODEL_KEEPS_WHAT_WAS_NEVER_RECORDED) {
        model_copy(&trial->now, &trial->recorded);
    }
    model_attach(&trial->now);
    return ask_again(trial);
}

bool trial_attach(struct trial *trial)
{
    return trial_after_attach(trial, world_attach(trial->world));
}

/* Whatever fails where, it comes to the same as an attach. */
bool trial_fail_once(struct trial *trial, int point)
{
    if (point >= STEP_POINT_REBUILD) {
        if (!trial_record(trial)) {
            return false;
        }
        redis_do(trial->world->books, "FLUSHALL");
    }
    return trial_after_attach(trial, world_fail(trial->world, step_points[point]));
}

bool trial_forget(struct trial *trial, enum step_loss loss)
{
    static const char *const commands[STEP_LOSSES] = {[LOSE_ALL] = "FLUSHALL",
                                                      [LOSE_SCRIPTS] = "SCRIPT FLUSH",
                                                      [LOSE_HEAD] = "DEL {doorbuster}:head",
                                                      [LOSE_LOG] = "DEL {doorbuster}:log"};
    if (loss == LOSE_UNRECORDED) {
        return forget_unrecorded(trial);
    }
    if (loss != LOSE_SCRIPTS && !trial_record(trial)) { /* what is not recorded would be gone */
        return false;
    }
    if (loss == LOSE_SINCE) {
        world_turn_back(trial->world);
    } else {
        redis_do(trial->world->books, commands[loss], NULL);
    }
    return trial_attach(trial);
}

static void edit(struct trial *trial, int64_t id, enum step_edit edit, int64_t units)
{
    static const char *const fields[STEP_EDITS] = {"stock", "price", "limit", "starts", NULL};
    if (edit == EDIT_ALL) {
        redis_do(trial->world->books, "DEL {doorbuster}:product:%" PRId64, id);
    } else {
        redis_do(trial->world->books, "HINCRBY {doorbuster}:product:%" PRId64 " %s %" PRId64, id,
                 fields[edit], units);
    }
}

static bool is_made_of(const struct model_product *bundle, int64_t id)
{
    for (size_t i = 0; i < bundle->component_count; i++) {
        if (bundle->components[i].product == id) {
            return true;
        }
    }
    return false;
}

/* A bundle whose component is gone is off sale as well. */
static void heal(struct trial *trial, int64_t id, enum step_edit edit)
{
    model_heal(&trial->now, id);
    for (int64_t bundle = 1; bundle <= trial->now.product_count; bundle++) {
        if (edit == EDIT_ALL && trial->recorded.products[bundle].opened &&
            is_made_of(&trial->now.products[bundle], id)) {
            model_heal(&trial->now, bundle);
        }
    }
}

bool trial_tamper(struct trial *trial, struct step *step)
{
    int64_t id = trial_product(trial, &step->product);
    struct recorder *recorder = trial->world->recorder;
    if (!model_knows(&trial->now, id) || (step->edit == EDIT_STOCK && model_is_bundle(&trial->now, id))) {
        return true;
    }
    if (!trial_record(trial)) {
        return false;
    }
    edit(trial, id, step->edit, 1 + step->units % 1000);
    if (!recorder_compare_books(recorder) || !recorder->attach_wanted) {
        return trial_fail(trial, "the recorder did not notice that somebody edited product %" PRId64, id);
    }
    if (!trial_attach(trial)) {
        return false;
    }
    heal(trial, id, step->edit);
    return true;
}

static bool can_oversell(const struct trial *trial, int64_t id, int64_t user)
{
    if (!model_knows(&trial->now, id) || model_is_bundle(&trial->now, id)) {
        return false;
    }
    const struct model_product *product = &trial->now.products[id];
    int64_t now_ms = clock_wall_ms(), quantity = product->stock + 1;
    return quantity <= PURCHASE_QUANTITY_MAX && now_ms >= product->starts_at &&
           (product->ends_at == 0 || now_ms < product->ends_at) &&
           (product->limit == 0 || model_owned(&trial->now, id, user) + quantity <= product->limit);
}

/* Redis believes that it has so many, sells them, and the store does not have them. */
static bool sell_too_many(struct trial *trial, const struct model_cart *cart)
{
    struct sale_order order = {.user_id = cart->user,
                               .product_id = cart->lines[0].product,
                               .quantity = cart->lines[0].quantity,
                               .key = trial_key(cart->key)};
    order.key_bytes = order.key != NULL ? strlen(order.key) : 0;
    redis_do(trial->world->books, "HINCRBY {doorbuster}:product:%" PRId64 " stock %" PRId64, order.product_id,
             order.quantity);
    size_t index = trial->world->purchase_count;
    redis_do(trial->world->books, "PUBLISH {doorbuster}:stock any"); /* a sold-out mark would be the answer */
    world_listen(trial->world);
    world_submit(trial->world, &order);
    if (!world_decide(trial->world)) {
        return trial_fail(trial, "a purchase is not decided");
    }
    model_oversell(&trial->now, cart, &trial->answers[index]);
    if (!compare_answer(trial, index, false)) {
        return false;
    }
    trial->answers[index] = (struct model_answer){.refusal = REFUSAL_REJECTED};
    return true;
}

bool trial_oversell(struct trial *trial, struct step *step)
{
    step->user += step->user == 0;
    struct model_cart cart = {
        .user = trial_number(&step->user, MODEL_USERS), .key = step->key, .line_count = 1};
    struct recorder *recorder = trial->world->recorder;
    int64_t id = trial_product(trial, &step->product);
    if (!trial_record(trial)) {
        return false;
    }
    if (!can_oversell(trial, id, cart.user) || trial->now.ordered[cart.user][cart.key] != 0) {
        return true;
    }
    cart.lines[0] = (struct model_line){id, trial->now.products[id].stock + 1};
    trial->purchases[-REFUSAL_REJECTED]++;
    return sell_too_many(trial, &cart) &&
           trial_equal(trial, recorder_record(recorder, 0), RECORDED_SOME,
                       "recording an order that does not fit") &&
           trial_equal(trial, recorder->attach_wanted, true, "does the recorder want to attach") &&
           trial_attach(trial);
}
