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
        int64_t id = trial_product(trial, &step->components[i].product);
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
    struct sale_product opening = {.id = added->id,
                                   .stock = added->planned_stock,
                                   .price = added->price,
                                   .limit = added->per_customer_limit,
                                   .starts_at_ms = added->starts_at_ms,
                                   .ends_at_ms = added->ends_at_ms,
                                   .component_count = added->component_count};
    memcpy(opening.components, added->components, sizeof opening.components);
    struct change_result result;
    enum change_outcome changed =
        gate_change_stock(trial->world->books, &change, &opening, PATIENCE_MS, &result);
    return trial_equal(trial, changed, CHANGE_MADE, "opening product %" PRId64, added->id) &&
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
    *cart = (struct model_cart){.user = trial_number(&wish->user, MODEL_USERS), .key = wish->key};
    order->user_id = cart->user;
    order->key = trial_key(wish->key);
    order->key_bytes = order->key != NULL ? strlen(order->key) : 0;
    for (int i = 0; i < wish->line_count; i++) {
        int64_t product = trial_product(trial, &wish->lines[i].product), quantity = wish->lines[i].quantity;
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
    if (step->is_lost && !trial_record(trial)) { /* so that nothing else is in the gate */
        return false;
    }
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
    if (step->is_lost && world_can_fail() && world->answer_count == 0) {
        return trial_lose_answer(trial, first);
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
/* --- changes ------------------------------------------------------------------------------------------------------------------------- */
static enum change_outcome change_stock(struct trial *trial, int64_t product, int64_t delta, int key,
                                        struct change_result *result)
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

static enum change_outcome change_price(struct trial *trial, int64_t product, int64_t price, int key,
                                        struct change_result *result)
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
                           const struct model_change *model, enum change_outcome found,
                           const struct change_result *result)
{
    static const enum change_outcome same[] = {
        [MODEL_DONE] = CHANGE_MADE,     [MODEL_DONE_BEFORE] = CHANGE_MADE_BEFORE,
        [MODEL_CLOSED] = CHANGE_CLOSED, [MODEL_SHORT] = CHANGE_SHORT,
        [MODEL_FULL] = CHANGE_FULL,
    };
    if (found == CHANGE_FAILED) {
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
           trial_equal(trial, result->kind == CHANGE_OF_PRICE, model->is_price, "is it a price") &&
           trial_equal(trial, log_position_compare(result->position, *position), 0,
                       "position of a keyed change compared");
}

static bool change(struct trial *trial, struct step *step)
{
    int64_t product = trial_product(trial, &step->product);
    int64_t delta = step->kind == STEP_WITHDRAW ? -step->units : step->units;
    struct change_result result = {0};
    struct model_change done;
    enum change_outcome found;
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
        return trial_cancel(trial, step);
    case STEP_ATTACH:
        return trial_attach(trial);
    case STEP_FORGET:
        return trial_forget(trial, step->loss);
    case STEP_TRIM:
        return trim(trial);
    case STEP_TAMPER:
        return trial_tamper(trial, step);
    case STEP_FAIL:
        return trial_fail_once(trial, step->point);
    case STEP_RESTART:
        return trial_after_attach(trial, world_restart(trial->world));
    case STEP_REMEMBER:
        world_remember(trial->world);
        return true;
    case STEP_CUT:
        return world_cut(trial->world) ||
               trial_fail(trial, "the gate is not ready again after its news were cut");
    case STEP_OVERSELL:
        return trial_oversell(trial, step);
    default:
        return change(trial, step);
    }
}
