/* The comparisons: answers, Redis and the store against the model. The test's one thread; owns nothing, changes nothing. */
#include "testing.h"

#include "trial.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* --- answers -------------------------------------------------------------------------------------------------------------------- */
static bool compare_sold(struct trial *trial, const struct purchase *purchase,
                         const struct model_answer *answer)
{
    const struct sale_order *order = &purchase->order;
    if (!trial_equal(trial, order->id, answer->order, "order id")) {
        return false;
    }
    for (size_t i = 0; i < order_part_count(order); i++) {
        struct order_part line = order_part_at(order, i);
        if (!trial_equal(trial, line.unit_price, answer->unit_price[i],
                         "order %" PRId64 ", price of line %zu", order->id, i) ||
            !trial_equal(trial, line.remaining, answer->remaining[i],
                         "order %" PRId64 ", remaining of line %zu", order->id, i)) {
            return false;
        }
    }
    return true;
}

static bool compare_short(struct trial *trial, const struct purchase *purchase,
                          const struct model_answer *answer)
{
    if (!trial_equal(trial, purchase->short_lines, answer->short_lines, "short lines (bits)")) {
        return false;
    }
    for (size_t i = 0; i < order_part_count(&purchase->order); i++) {
        if ((answer->short_lines & UINT32_C(1) << i) != 0 &&
            !trial_equal(trial, order_part_at(&purchase->order, i).remaining, answer->remaining[i],
                         "available of short line %zu", i)) {
            return false;
        }
    }
    return true;
}

static bool compare_refused(struct trial *trial, const struct purchase *purchase,
                            const struct model_answer *answer)
{
    switch (answer->refusal) {
    case REFUSAL_INSUFFICIENT_STOCK:
        return compare_short(trial, purchase, answer);
    case REFUSAL_ALREADY_ORDERED:
        return trial_equal(trial, purchase->figure, answer->order, "order that the key stands for");
    case REFUSAL_CUSTOMER_LIMIT:
        if (!trial_equal(trial, purchase->requested, answer->requested,
                         "units in the cart of a limited product") ||
            !trial_equal(trial, purchase->limit, answer->limit, "limit")) {
            return false;
        }
        break;
    case REFUSAL_NOT_OPEN:
    case REFUSAL_OVER:
        if (!trial_equal(trial, purchase->wait_ms > 0, answer->refusal == REFUSAL_NOT_OPEN,
                         "is there time to wait")) {
            return false;
        }
        break;
    default:
        break;
    }
    return trial_equal(trial, purchase->refused_product_id, answer->product, "product of a refusal") &&
           trial_equal(trial, purchase->figure, answer->figure, "figure of a refusal (%d)",
                       (int)answer->refusal);
}

bool compare_answer(struct trial *trial, size_t index, bool is_recorded)
{
    const struct purchase *purchase = &trial->world->purchases[index].gate.purchase;
    const struct model_answer *answer = &trial->answers[index];
    bool sold = answer->refusal == REFUSAL_NONE;
    enum purchase_state wanted = !sold         ? PURCHASE_REFUSED
                                 : is_recorded ? PURCHASE_CONFIRMED
                                               : PURCHASE_RESERVED;
    if (sold && purchase->state == PURCHASE_REFUSED) {
        return trial_fail(trial, "a purchase is refused (%d), but the model sells order %" PRId64,
                          (int)purchase->refusal, answer->order);
    }
    if (!sold && purchase->state != PURCHASE_REFUSED) {
        return trial_fail(trial, "order %" PRId64 " is sold, but the model refuses it (%d)",
                          purchase->order.id, (int)answer->refusal);
    }
    return trial_equal(trial, purchase->state, wanted, "state of a purchase") &&
           trial_equal(trial, purchase->refusal, answer->refusal, "refusal") &&
           (sold ? compare_sold(trial, purchase, answer) : compare_refused(trial, purchase, answer));
}

/* --- Redis ------------------------------------------------------------------------------------------------------------------------ */
static struct sale_product gate_product_of(const struct model_product *product, int64_t id)
{
    struct sale_product out = {.id = id, .component_count = product->component_count};
    for (size_t i = 0; i < product->component_count; i++) {
        out.components[i] =
            (struct bundle_component){product->components[i].product, product->components[i].quantity};
    }
    return out;
}

static bool compare_window(struct trial *trial, const struct sale_product *now,
                           const struct model_product *model, int64_t id)
{
    return trial_equal(trial, now->price, model->price, "Redis: price of product %" PRId64, id) &&
           trial_equal(trial, now->limit, model->limit, "Redis: limit of product %" PRId64, id) &&
           trial_equal(trial, now->starts_at_ms, model->starts_at, "Redis: opening of product %" PRId64,
                       id) &&
           trial_equal(trial, now->ends_at_ms, model->ends_at, "Redis: end of product %" PRId64, id) &&
           trial_equal(trial, (int64_t)now->component_count, (int64_t)model->component_count,
                       "Redis: components of product %" PRId64, id);
}

static bool compare_gate_product(struct trial *trial, int64_t id)
{
    const struct model_product *now = &trial->now.products[id], *recorded = &trial->recorded.products[id];
    const struct sale_product asked = gate_product_of(now, id);
    struct gate_stock stock;
    if (!gate_read_stock(trial->world->books, &asked, trial->world->recorder->recorded, &stock)) {
        return trial_fail(trial, "reading the stock of product %" PRId64 ": %s", id, redis_failure());
    }
    if (!trial_equal(trial, stock.on_sale, now->opened, "Redis: is product %" PRId64 " on sale", id)) {
        return false;
    }
    if (!now->opened) {
        return true;
    }
    return trial_equal(trial, stock.at_known, true, "Redis: is the store's position known") &&
           trial_equal(trial, stock.available, model_available(&trial->now, id),
                       "Redis: available of product %" PRId64, id) &&
           trial_equal(trial, stock.stock_at, model_available(&trial->recorded, id),
                       "Redis: stock of product %" PRId64 " at the store's position", id) &&
           (!recorded->opened ||
            trial_equal(trial, stock.price_at, recorded->price,
                        "Redis: price of product %" PRId64 " at the store's position", id)) &&
           trial_equal(trial, stock.in_flight, now->sold - recorded->sold,
                       "Redis: units of product %" PRId64 " in flight", id) &&
           compare_window(trial, &stock.now, now, id);
}

static bool compare_buyers(struct trial *trial, int64_t id)
{
    redisReply *reply = redis_ask(trial->world->books, "HMGET {doorbuster}:buyers:%" PRId64 " 1 2 3 4", id);
    if (reply == NULL) {
        return trial_fail(trial, "reading the buyers of product %" PRId64 ": %s", id, redis_failure());
    }
    bool equal = true;
    for (size_t i = 0; equal && i < MODEL_USERS; i++) {
        const redisReply *units = reply->element[i];
        equal = trial_equal(trial, units->type == REDIS_REPLY_STRING ? strtoll(units->str, NULL, 10) : 0,
                            model_owned(&trial->now, id, (int64_t)i + 1),
                            "Redis: units of product %" PRId64 " that user %zu has", id, i + 1);
    }
    freeReplyObject(reply);
    return equal;
}

bool compare_gate(struct trial *trial)
{
    struct gate_head head;
    if (!gate_read_head(trial->world->books, &head)) {
        return trial_fail(trial, "reading the head: %s", redis_failure());
    }
    if (!trial_equal(trial, head.orders, trial->now.order_count, "Redis: last order id") ||
        !trial_equal(trial, trial->world->recorder->attach_wanted, false,
                     "does the recorder want to attach")) {
        return false;
    }
    for (int64_t id = 1; id <= trial->now.product_count; id++) {
        if (!compare_gate_product(trial, id) ||
            (trial->now.products[id].limit > 0 && !compare_buyers(trial, id))) {
            return false;
        }
    }
    return true;
}

/* --- the store ---------------------------------------------------------------------------------------------------------------------- */
static bool compare_book(struct trial *trial, const struct store_product *found, int64_t id)
{
    const struct model_product *model = &trial->recorded.products[id];
    bool is_bundle = model->component_count > 0;
    int64_t opening = model->opened ? model->planned : 0;
    return trial_equal(trial, found->id, id, "store: product id") &&
           trial_equal(trial, found->opened, model->opened, "store: is product %" PRId64 " open", id) &&
           trial_equal(trial, found->stock, model->opened ? model->stock : 0,
                       "store: stock of product %" PRId64, id) &&
           trial_equal(trial, found->price, model->price, "store: price of product %" PRId64, id) &&
           trial_equal(trial, found->opening, is_bundle ? 0 : opening, "store: opening of product %" PRId64,
                       id) &&
           trial_equal(trial, found->restocked, model->restocked, "store: restocked of product %" PRId64,
                       id) &&
           trial_equal(trial, found->sold, model->sold, "store: sold of product %" PRId64, id) &&
           trial_equal(trial, found->cancelled, model->cancelled, "store: cancelled of product %" PRId64, id);
}

static bool compare_part(struct trial *trial, int64_t order, size_t i, const struct order_part *found,
                         const struct model_part *model)
{
    return trial_equal(trial, found->product_id, model->product,
                       "store: order %" PRId64 ", part %zu: product", order, i) &&
           trial_equal(trial, found->quantity, model->quantity,
                       "store: order %" PRId64 ", part %zu: quantity", order, i) &&
           trial_equal(trial, found->unit_price, model->unit_price,
                       "store: order %" PRId64 ", part %zu: price", order, i) &&
           trial_equal(trial, found->remaining, model->remaining,
                       "store: order %" PRId64 ", part %zu: remaining", order, i) &&
           trial_equal(trial, found->is_component, model->is_component,
                       "store: order %" PRId64 ", part %zu: is it a component", order, i);
}

static bool compare_parts(struct trial *trial, int64_t id, const struct store_order *found)
{
    const struct model_order *model = &trial->recorded.orders[id];
    struct order_part parts[ORDER_PARTS_MAX] = {order_part_at(&found->sale, 0)};
    size_t count;
    if (store_order_parts(trial->world->recorder->store, id, parts + 1, ORDER_PARTS_MAX - 1, &count) !=
        STORE_OK) {
        return trial_fail(trial, "store: reading the parts of order %" PRId64, id);
    }
    bool equal = trial_equal(trial, (int64_t)count + 1, (int64_t)model->part_count,
                             "store: parts of order %" PRId64, id) &&
                 trial_equal(trial, (int64_t)found->part_count, (int64_t)model->part_count,
                             "store: part_count of order %" PRId64, id);
    for (size_t i = 0; equal && i < model->part_count; i++) {
        equal = compare_part(trial, id, i, &parts[i], &model->parts[i]);
    }
    return equal;
}

static bool compare_order(struct trial *trial, int64_t id)
{
    const struct model_order *model = &trial->recorded.orders[id];
    const char *key = model->key > 0 ? trial_key(model->key) : "";
    struct store_order found;
    if (store_find_order(trial->world->recorder->store, id, &found) != STORE_OK) {
        return trial_fail(trial, "store: order %" PRId64 " is not there", id);
    }
    if (strcmp(found.idempotency_key, key) != 0) {
        return trial_fail(trial, "store: key of order %" PRId64 ": \"%s\", but the model says \"%s\"", id,
                          found.idempotency_key, key);
    }
    return trial_equal(trial, found.sale.user_id, model->user, "store: buyer of order %" PRId64, id) &&
           trial_equal(trial, found.state,
                       model->cancelled  ? ORDER_CANCELLED
                       : model->rejected ? ORDER_REJECTED
                                         : ORDER_CONFIRMED,
                       "store: state of order %" PRId64, id) &&
           trial_equal(trial, found.cancelled_by, model->cancelled_by, "store: who cancelled order %" PRId64,
                       id) &&
           compare_parts(trial, id, &found);
}

static bool compare_orders(struct trial *trial, int64_t first)
{
    for (int64_t id = first; id <= trial->recorded.order_count; id++) {
        if (!compare_order(trial, id)) {
            return false;
        }
    }
    return true;
}

static bool compare_row_note(struct trial *trial, const struct model_row *model,
                             const struct store_audit_row *found)
{
    char note[64] = "";
    if (model->first_order == 0) {
        return true; /* an admin's own words */
    }
    if (model->first_order == model->last_order) {
        snprintf(note, sizeof note, "order %" PRId64, model->first_order);
    } else {
        snprintf(note, sizeof note, "orders %" PRId64 " to %" PRId64, model->first_order, model->last_order);
    }
    return strcmp(found->note, note) == 0 ||
           trial_fail(trial, "audit log: note \"%s\", but the model says \"%s\"", found->note, note);
}

/* The product's newest row. */
static bool compare_row(struct trial *trial, int64_t id)
{
    const struct model_row *model = &trial->recorded.products[id].row;
    struct store *store = trial->world->recorder->store;
    struct store_audit_row found;
    size_t count;
    if (store_audit_log(store, INT64_MAX, id, &found, 1, &count) != STORE_OK) {
        return trial_fail(trial, "reading the audit log: %s", store_error(store));
    }
    if (!trial_equal(trial, (int64_t)count, model->cause != NULL, "audit log: rows of product %" PRId64,
                     id)) {
        return false;
    }
    if (count == 0) {
        return true;
    }
    if (strcmp(found.cause, model->cause) != 0 ||
        strcmp(found.key, model->key > 0 ? trial_key(model->key) : "") != 0) {
        return trial_fail(
            trial, "audit log: \"%s\" of product %" PRId64 " with the key \"%s\", but the model says \"%s\"",
            found.cause, id, found.key, model->cause);
    }
    return trial_equal(trial, found.applied, true, "audit log: is it applied") &&
           trial_equal(trial, found.delta, model->delta, "audit log: %s of product %" PRId64 ": delta",
                       found.cause, id) &&
           trial_equal(trial, found.from, model->from, "audit log: %s of product %" PRId64 ": from",
                       found.cause, id) &&
           trial_equal(trial, found.to, model->to, "audit log: %s of product %" PRId64 ": to", found.cause,
                       id) &&
           trial_equal(trial, found.actor, model->actor, "audit log: %s of product %" PRId64 ": actor",
                       found.cause, id) &&
           compare_row_note(trial, model, &found);
}

bool compare_store(struct trial *trial)
{
    static struct store_product products[MODEL_PRODUCTS + 1];
    struct store *store = trial->world->recorder->store;
    struct store_position position;
    size_t count;
    if (store_position(store, &position) != STORE_OK ||
        store_products(store, 0, products, MODEL_PRODUCTS + 1, &count) != STORE_OK) {
        return trial_fail(trial, "store: %s", store_error(store));
    }
    if (!trial_equal(trial, (int64_t)count, trial->recorded.product_count, "store: products") ||
        !trial_equal(trial, position.last_order_id, trial->recorded.order_count, "store: last order id")) {
        return false;
    }
    for (size_t i = 0; i < count; i++) {
        if (!compare_book(trial, &products[i], (int64_t)i + 1) || !compare_row(trial, (int64_t)i + 1)) {
            return false;
        }
    }
    bool equal = compare_orders(trial, trial->compared_orders + 1);
    trial->compared_orders = trial->recorded.order_count;
    return equal;
}
