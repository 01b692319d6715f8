/* Each kind of step, carried out on the real thing as the API's jobs do it, and on the model. The test's one thread; owns nothing. A difference
 * between the two answers is the trial's failure. */
#include "testing.h"

#include "trial.h"

#include "doorbuster/clock.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define PATIENCE_MS 1000
#define LONG_MS INT64_C(4000000000) /* 46 days */

/* 0 is none; others are counted around. The step is told, so that it reads as what was done. */
static int64_t number_of(int *number, int64_t count)
{
    *number = *number == 0 || count == 0 ? 0 : (int)(1 + (*number - 1) % count);
    return *number == 0 ? count + 50 : *number;
}

static int64_t product_of(const struct trial *trial, int *number)
{
    return number_of(number, trial->now.product_count);
}

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

/* --- attaching ------------------------------------------------------------------------------------------------------------------ */
static bool after_attach(struct trial *trial, bool attached)
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

/* Whoever was reserved and not recorded is asked for again, in the same order, as if it had never been. */
static bool ask_again(struct trial *trial)
{
    struct world *world = trial->world;
    struct model_cart carts[WORLD_PURCHASES];
    struct model_answer answers[WORLD_PURCHASES];
    size_t count = 0;
    for (size_t i = 0; i < world->purchase_count; i++) {
        if (trial->answers[i].refusal == REFUSAL_NONE) {
            carts[count++] = trial->carts[i];
        }
    }
    if (!world_decide(world)) {
        return trial_fail(trial, "a purchase that Redis forgot is not decided again");
    }
    model_buy(&trial->now, carts, count, clock_wall_ms(), answers);
    count = 0;
    for (size_t i = 0; i < world->purchase_count; i++) {
        if (trial->answers[i].refusal == REFUSAL_NONE) {
            trial->answers[i] = answers[count++];
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
    model_copy(&trial->now, &trial->recorded);
    model_attach(&trial->now);
    return ask_again(trial);
}

static bool attach(struct trial *trial)
{
    return after_attach(trial, world_attach(trial->world));
}

/* Whatever fails where, it comes to the same as an attach. */
static bool fail_once(struct trial *trial, int point)
{
    if (point >= STEP_POINT_REBUILD) {
        if (!trial_record(trial)) {
            return false;
        }
        redis_do(trial->world->books, "FLUSHALL");
    }
    return after_attach(trial, world_fail(trial->world, step_points[point]));
}

static bool forget(struct trial *trial, enum step_loss loss)
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
    return attach(trial);
}

bool trial_rebuild(struct trial *trial)
{
    return forget(trial, LOSE_ALL);
}

static bool tamper(struct trial *trial, struct step *step)
{
    int64_t id = product_of(trial, &step->product);
    struct recorder *recorder = trial->world->recorder;
    if (!model_knows(&trial->now, id) || model_is_bundle(&trial->now, id)) {
        return true;
    }
    if (!trial_record(trial)) {
        return false;
    }
    int64_t units = 1 + step->units % 1000;
    redis_do(trial->world->books, "HINCRBY {doorbuster}:product:%" PRId64 " stock %" PRId64, id, units);
    if (!recorder_compare_books(recorder) || !recorder->attach_wanted) {
        return trial_fail(
            trial, "the recorder did not notice that somebody changed the stock of product %" PRId64, id);
    }
    if (!attach(trial)) {
        return false;
    }
    model_heal(&trial->now, id);
    return true;
}

/* --- opening --------------------------------------------------------------------------------------------------------------------- */
static void set_window(const struct step *step, struct model_product *product)
{
    int64_t now_ms = clock_wall_ms() / 1000 * 1000;
    bool has_start = step->window == WINDOW_OPEN || step->window == WINDOW_AHEAD;
    product->starts_at = has_start ? (step->window == WINDOW_AHEAD ? now_ms + LONG_MS : now_ms - LONG_MS) : 0;
    product->ends_at = step->window == WINDOW_OPEN   ? now_ms + LONG_MS
                       : step->window == WINDOW_OVER ? now_ms - LONG_MS
                                                     : 0;
}

static struct model_product wanted_product(const struct trial *trial, struct step *step)
{
    struct model_product product = {
        .opened = !step->planned, .price = step->price, .limit = step->limit, .planned = step->stock};
    set_window(step, &product);
    for (int i = 0; i < step->component_count; i++) {
        int64_t id = product_of(trial, &step->components[i].product);
        bool is_there = false;
        for (size_t j = 0; j < product.component_count; j++) {
            is_there = is_there || product.components[j].product == id;
        }
        if (!is_there) {
            product.components[product.component_count++] =
                (struct model_line){id, step->components[i].quantity};
        }
    }
    product.planned = product.component_count > 0 ? 0 : product.planned;
    return product;
}

static struct store_product store_product_of(const struct model_product *product, int64_t id)
{
    struct store_product out = {.price = product->price,
                                .per_customer_limit = product->limit,
                                .starts_at_ms = product->starts_at,
                                .ends_at_ms = product->ends_at,
                                .planned_stock = product->planned,
                                .component_count = product->component_count};
    snprintf(out.name, sizeof out.name, "product %" PRId64, id);
    for (size_t i = 0; i < product->component_count; i++) {
        out.components[i] =
            (struct bundle_component){product->components[i].product, product->components[i].quantity};
    }
    return out;
}

static bool open_at_gate(struct trial *trial, const struct store_product *added)
{
    struct stock_change change = {
        .product_id = added->id, .delta = added->planned_stock, .cause = STOCK_OPENING, .actor = MODEL_ADMIN};
    struct gate_product opening = {.id = added->id,
                                   .stock = added->planned_stock,
                                   .price = added->price,
                                   .limit = added->per_customer_limit,
                                   .starts_at_ms = added->starts_at_ms,
                                   .ends_at_ms = added->ends_at_ms,
                                   .component_count = added->component_count};
    memcpy(opening.components, added->components, sizeof opening.components);
    struct gate_change_result result;
    enum gate_change changed =
        gate_change_stock(trial->world->books, &change, &opening, PATIENCE_MS, &result);
    return trial_equal(trial, changed, GATE_CHANGED, "opening product %" PRId64, added->id) &&
           trial_equal(trial, result.stock, added->planned_stock, "opening stock of %" PRId64, added->id);
}

static bool open_product(struct trial *trial, struct step *step)
{
    if (trial->now.product_count == MODEL_PRODUCTS) {
        return true;
    }
    if (!trial_record(trial)) { /* the store says which components are open */
        return false;
    }
    struct model_product product = wanted_product(trial, step), planned = product;
    planned.opened = false; /* a row is in the store at once, its stock through the log */
    model_open(&trial->recorded, &planned);
    enum model_result wanted = model_open(&trial->now, &product);
    struct store_product added = store_product_of(&product, trial->now.product_count);
    if (wanted != MODEL_DONE) {
        snprintf(added.name, sizeof added.name, "no product");
    }
    trial->results[STEP_OPEN][wanted]++;
    enum store_status status = store_add_product(trial->world->recorder->store, &added);
    if (!trial_equal(trial, status, wanted == MODEL_DONE ? STORE_OK : STORE_NOT_FOUND,
                     "status of adding a product")) {
        return false;
    }
    if (wanted != MODEL_DONE) {
        return true;
    }
    return trial_equal(trial, added.id, trial->now.product_count, "id of a new product") &&
           (step->planned || open_at_gate(trial, &added));
}

/* --- buying ------------------------------------------------------------------------------------------------------------------------ */
/* The same cart for both: lines that do not fit are in neither. */
static bool fill_cart(struct trial *trial, struct step_cart *wish, struct model_cart *cart,
                      struct sale_order *order)
{
    wish->user += wish->user == 0; /* there is no buyer 0 */
    *cart = (struct model_cart){.user = number_of(&wish->user, MODEL_USERS), .key = wish->key};
    order->user_id = cart->user;
    order->key = trial_key(wish->key);
    order->key_bytes = order->key != NULL ? strlen(order->key) : 0;
    for (int i = 0; i < wish->line_count; i++) {
        int64_t product = product_of(trial, &wish->lines[i].product), quantity = wish->lines[i].quantity;
        bool fits = model_cart_add(cart, product, quantity);
        enum cart_fault fault = cart_add(order, product, quantity);
        if (!trial_equal(trial, fault, fits ? CART_FITS : CART_TOO_MANY_UNITS, "a line into a cart")) {
            return false;
        }
    }
    return trial_equal(trial, (int64_t)order_part_count(order), (int64_t)cart->line_count, "lines of a cart");
}

static bool buy(struct trial *trial, struct step *step)
{
    struct world *world = trial->world;
    size_t first = world->purchase_count, count = (size_t)step->cart_count;
    struct model_cart *carts = &trial->carts[first];
    for (size_t i = 0; i < count; i++) {
        struct order_part more[CART_LINES_MAX - 1];
        struct sale_order order = {.more = more};
        if (!fill_cart(trial, &step->carts[i], &carts[i], &order)) {
            return false;
        }
        world_submit(world, &order);
    }
    if (!world_decide(world)) {
        return trial_fail(trial, "a purchase is not decided");
    }
    model_buy(&trial->now, carts, count, clock_wall_ms(), &trial->answers[first]);
    for (size_t i = first; i < first + count; i++) {
        trial->purchases[-trial->answers[i].refusal]++;
        trial->carts_sold += trial->answers[i].refusal == REFUSAL_NONE && trial->carts[i].line_count > 1;
        if (!compare_answer(trial, i, false)) {
            return false;
        }
    }
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

static bool oversell(struct trial *trial, struct step *step)
{
    step->user += step->user == 0;
    struct model_cart cart = {.user = number_of(&step->user, MODEL_USERS), .key = step->key, .line_count = 1};
    struct recorder *recorder = trial->world->recorder;
    int64_t id = product_of(trial, &step->product);
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
           attach(trial);
}

/* --- cancelling ---------------------------------------------------------------------------------------------------------------------- */
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

static enum gate_change ask_gate(struct trial *trial, const struct cancelling *cancelling,
                                 struct gate_change_result *result, bool *is_void)
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
    struct gate_change_result result;
    bool is_void;
    if (!read_order(trial, cancelling, &found) || !attach(trial)) {
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
    struct gate_change_result result;
    bool is_void;
    enum gate_change changed = ask_gate(trial, cancelling, &result, &is_void);
    struct log_position *position = &trial->cancel_positions[cancelling->order_id];
    if (changed == GATE_CHANGED) {
        *position = result.position;
        *out = MODEL_DONE;
    } else if (changed == GATE_UNCHANGED) {
        *out = MODEL_DONE_BEFORE;
        return trial_equal(trial, log_position_compare(*position, result.position), 0,
                           "position of the cancellation of order %" PRId64 " compared",
                           cancelling->order_id);
    } else if (changed == GATE_FULL) {
        *out = MODEL_FULL;
    } else {
        return trial_fail(trial, "cancelling order %" PRId64 ": %s", cancelling->order_id, redis_failure());
    }
    return true;
}

static bool cancel(struct trial *trial, struct step *step)
{
    int64_t id = number_of(&step->order, trial->now.order_count);
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

/* --- changes ------------------------------------------------------------------------------------------------------------------------- */
static enum gate_change change_stock(struct trial *trial, int64_t product, int64_t delta, int key,
                                     struct gate_change_result *result)
{
    struct stock_change change = {.product_id = product,
                                  .delta = delta,
                                  .cause = delta < 0 ? STOCK_WITHDRAWAL : STOCK_RESTOCK,
                                  .actor = MODEL_ADMIN,
                                  .note = "a change of stock",
                                  .key = trial_key(key)};
    change.key_bytes = change.key != NULL ? strlen(change.key) : 0;
    return gate_change_stock(trial->world->books, &change, NULL, PATIENCE_MS, result);
}

static enum gate_change change_price(struct trial *trial, int64_t product, int64_t price, int key,
                                     struct gate_change_result *result)
{
    struct price_change change = {.product_id = product,
                                  .to = price,
                                  .actor = MODEL_ADMIN,
                                  .note = "a new price",
                                  .key = trial_key(key)};
    change.key_bytes = change.key != NULL ? strlen(change.key) : 0;
    return gate_change_price(trial->world->books, &change, PATIENCE_MS, result);
}

static bool compare_change(struct trial *trial, int key, enum model_result wanted,
                           const struct model_change *model, enum gate_change found,
                           const struct gate_change_result *result)
{
    static const enum gate_change same[] = {
        [MODEL_DONE] = GATE_CHANGED,  [MODEL_DONE_BEFORE] = GATE_UNCHANGED,
        [MODEL_CLOSED] = GATE_CLOSED, [MODEL_SHORT] = GATE_SHORT,
        [MODEL_FULL] = GATE_FULL,
    };
    if (found == GATE_FAILED) {
        return trial_fail(trial, "a change failed: %s", redis_failure());
    }
    if (!trial_equal(trial, found, same[wanted], "result of a change")) {
        return false;
    }
    if (wanted != MODEL_DONE && wanted != MODEL_DONE_BEFORE) {
        return true;
    }
    struct log_position *position = &trial->change_positions[key];
    if (wanted == MODEL_DONE) {
        *position = result->position;
    }
    return trial_equal(trial, result->product_id, model->product, "product of a change") &&
           trial_equal(trial, result->figure, model->figure, "figure of a change") &&
           trial_equal(trial, result->stock, model->stock, "stock after a change, or price before") &&
           trial_equal(trial, result->is_price, model->is_price, "is it a price") &&
           trial_equal(trial, log_position_compare(result->position, *position), 0,
                       "position of a keyed change compared");
}

static bool change(struct trial *trial, struct step *step)
{
    int64_t product = product_of(trial, &step->product);
    int64_t delta = step->kind == STEP_WITHDRAW ? -step->units : step->units;
    struct gate_change_result result = {0};
    struct model_change done;
    enum gate_change found;
    enum model_result wanted;
    if (step->kind == STEP_PRICE) {
        found = change_price(trial, product, step->price, step->key, &result);
        wanted = model_change_price(&trial->now, product, step->price, step->key, &done);
    } else {
        found = change_stock(trial, product, delta, step->key, &result);
        wanted = model_change_stock(&trial->now, product, delta, step->key, &done);
    }
    trial->results[step->kind][wanted]++;
    world_listen(trial->world);
    return compare_change(trial, step->key, wanted, &done, found, &result);
}

static bool trim(struct trial *trial)
{
    const struct recorder *recorder = trial->world->recorder;
    return gate_trim(recorder->redis, recorder->recorded) ||
           trial_fail(trial, "trimming: %s", redis_failure());
}

bool trial_step(struct trial *trial, struct step *step)
{
    switch (step->kind) {
    case STEP_OPEN:
        return open_product(trial, step);
    case STEP_BUY:
        return buy(trial, step);
    case STEP_CANCEL:
        return cancel(trial, step);
    case STEP_ATTACH:
        return attach(trial);
    case STEP_FORGET:
        return forget(trial, step->loss);
    case STEP_TRIM:
        return trim(trial);
    case STEP_TAMPER:
        return tamper(trial, step);
    case STEP_FAIL:
        return fail_once(trial, step->point);
    case STEP_RESTART:
        return after_attach(trial, world_restart(trial->world));
    case STEP_REMEMBER:
        world_remember(trial->world);
        return true;
    case STEP_CUT:
        return world_cut(trial->world) ||
               trial_fail(trial, "the gate is not ready again after its news were cut");
    case STEP_OVERSELL:
        return oversell(trial, step);
    default:
        return change(trial, step);
    }
}
