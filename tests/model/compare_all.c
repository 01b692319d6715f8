/* The comparisons that are made now and then: every order, every key, and what the store's own audits say. The test's one thread; owns
 * nothing, changes nothing. */
#include "testing.h"

#include "trial.h"

#include <inttypes.h>
#include <string.h>

/* --- keys -------------------------------------------------------------------------------------------------------------------------- */
static bool compare_key(struct trial *trial, int64_t user, int key)
{
    redisReply *reply =
        redis_ask(trial->world->books, "GET {doorbuster}:idem:%" PRId64 ":%s", user, trial_key(key));
    if (reply == NULL) {
        return trial_fail(trial, "reading a key: %s", redis_failure());
    }
    int64_t order = reply->type == REDIS_REPLY_STRING ? strtoll(reply->str, NULL, 10) : 0;
    freeReplyObject(reply);
    return trial_equal(trial, order, trial->now.ordered[user][key],
                       "Redis: order that %s of user %" PRId64 " stands for", trial_key(key), user);
}

static bool compare_change_key(struct trial *trial, int key)
{
    redisReply *reply =
        redis_ask(trial->world->books, "EXISTS {doorbuster}:change:%d:%s", MODEL_ADMIN, trial_key(key));
    if (reply == NULL) {
        return trial_fail(trial, "reading a change's key: %s", redis_failure());
    }
    int64_t found = reply->integer;
    freeReplyObject(reply);
    return trial_equal(trial, found, trial->now.changed[key].done, "Redis: does %s stand for a change",
                       trial_key(key));
}

static bool compare_keys(struct trial *trial)
{
    for (int key = 1; key <= MODEL_KEYS; key++) {
        for (int64_t user = 1; user <= MODEL_USERS; user++) {
            if (!compare_key(trial, user, key)) {
                return false;
            }
        }
        if (!compare_change_key(trial, key)) {
            return false;
        }
    }
    return true;
}

/* --- a buyer's orders ---------------------------------------------------------------------------------------------------------------- */
static bool compare_orders_of(struct trial *trial, int64_t user)
{
    static struct store_order orders[MODEL_ORDERS];
    size_t count, i = 0;
    if (store_orders_of(trial->world->recorder->store, user, INT64_MAX, orders, MODEL_ORDERS, &count) !=
        STORE_OK) {
        return trial_fail(trial, "store: reading the orders of user %" PRId64, user);
    }
    for (int64_t id = trial->recorded.order_count; id >= 1; id--) {
        if (trial->recorded.orders[id].user != user) {
            continue;
        }
        if (!trial_equal(trial, i < count ? orders[i].sale.id : 0, id, "store: order %zu of user %" PRId64, i,
                         user)) {
            return false;
        }
        i++;
    }
    return trial_equal(trial, (int64_t)count, (int64_t)i, "store: orders of user %" PRId64, user);
}

/* --- the audits ------------------------------------------------------------------------------------------------------------------------ */
/* What the audit of a product must say, counted over the model's orders. */
static struct store_product_audit audit_of(const struct model *model, int64_t id)
{
    const struct model_product *product = &model->products[id];
    struct store_product_audit audit = {.cancelled_units = product->cancelled,
                                        .order_units = product->sold,
                                        .opening_units = product->opened ? product->planned : 0,
                                        .restock_units = product->restocked,
                                        .logged_stock = product->opened ? product->stock : 0,
                                        .logged_price = product->logged_price};
    for (int64_t order = 1; order <= model->order_count; order++) {
        bool is_in = false;
        for (size_t i = 0; !model->orders[order].rejected && i < model->orders[order].part_count; i++) {
            is_in = is_in || model->orders[order].parts[i].product == id;
        }
        audit.order_count += is_in;
        audit.last_order_id = is_in ? order : audit.last_order_id;
    }
    return audit;
}

static bool compare_product_audit(struct trial *trial, int64_t id)
{
    const struct store_product_audit model = audit_of(&trial->recorded, id);
    struct store_product_audit found;
    if (store_audit_product(trial->world->recorder->store, id, &found) != STORE_OK) {
        return trial_fail(trial, "auditing product %" PRId64, id);
    }
    return trial_equal(trial, found.order_count, model.order_count, "audit of product %" PRId64 ": orders",
                       id) &&
           trial_equal(trial, found.order_units, model.order_units, "audit of product %" PRId64 ": units",
                       id) &&
           trial_equal(trial, found.cancelled_units, model.cancelled_units,
                       "audit of product %" PRId64 ": cancelled units", id) &&
           trial_equal(trial, found.opening_units, model.opening_units,
                       "audit of product %" PRId64 ": opening", id) &&
           trial_equal(trial, found.restock_units, model.restock_units,
                       "audit of product %" PRId64 ": restocked", id) &&
           trial_equal(trial, found.logged_stock, model.logged_stock,
                       "audit of product %" PRId64 ": logged stock", id) &&
           trial_equal(trial, found.logged_price, model.logged_price,
                       "audit of product %" PRId64 ": logged price", id) &&
           trial_equal(trial, found.component_units, found.bundled_units,
                       "audit of product %" PRId64 ": units that bundles took", id) &&
           trial_equal(trial, found.over_limit_customers, 0,
                       "audit of product %" PRId64 ": customers over the limit", id) &&
           trial_equal(trial, found.last_order_id, model.last_order_id,
                       "audit of product %" PRId64 ": last order", id);
}

static bool compare_orders_audit(struct trial *trial)
{
    struct store_orders_audit found;
    int64_t rejected = 0;
    int64_t count = trial->recorded.order_count;
    if (store_audit_orders(trial->world->recorder->store, &found) != STORE_OK) {
        return trial_fail(trial, "auditing the orders");
    }
    for (int64_t id = 1; id <= count; id++) {
        rejected += trial->recorded.orders[id].rejected;
    }
    return trial_equal(trial, found.count, count, "audit: orders") &&
           trial_equal(trial, found.first_id, count > 0, "audit: first order") &&
           trial_equal(trial, found.last_id, count, "audit: last order") &&
           trial_equal(trial, found.rejected, rejected, "audit: rejected orders") &&
           trial_equal(trial, found.first_gap, 0, "audit: first gap") &&
           trial_equal(trial, found.out_of_log_order, 0, "audit: orders out of log order") &&
           trial_equal(trial, found.out_of_time_order, 0, "audit: orders out of time order") &&
           trial_equal(trial, found.beyond_position, 0, "audit: orders beyond the position") &&
           trial_equal(trial, found.unknown_user, 0, "audit: orders of unknown users") &&
           trial_equal(trial, found.unknown_product, 0, "audit: orders of unknown products");
}

static bool compare_chain(struct trial *trial)
{
    struct store_chain_audit found;
    if (store_audit_chain(trial->world->recorder->store, &found) != STORE_OK) {
        return trial_fail(trial, "auditing the chain");
    }
    return trial_equal(trial, found.rows, trial->recorded.audit_rows, "chain: rows") &&
           trial_equal(trial, found.first_gap, 0, "chain: first gap") &&
           trial_equal(trial, found.first_forged, 0, "chain: first forged row") &&
           trial_equal(trial, found.first_off, 0, "chain: first row whose figures do not follow") &&
           trial_equal(trial, found.first_backwards, 0, "chain: first row that goes backwards");
}

static bool compare_audits(struct trial *trial)
{
    bool equal = compare_orders_audit(trial);
    for (int64_t id = 1; equal && id <= trial->recorded.product_count; id++) {
        equal = compare_product_audit(trial, id);
    }
    return equal;
}

/* The recorder's own look at the two books. */
static bool compare_recorder(struct trial *trial)
{
    struct recorder *recorder = trial->world->recorder;
    return (recorder_compare_books(recorder) || trial_fail(trial, "the recorder cannot compare the books")) &&
           trial_equal(trial, recorder->attach_wanted, false,
                       "does the recorder think that the books differ");
}

bool compare_all(struct trial *trial)
{
    trial->compared_orders = 0;
    if (!compare_store(trial) || !compare_keys(trial) || !compare_recorder(trial)) {
        return false;
    }
    for (int64_t user = 1; user <= MODEL_USERS; user++) {
        if (!compare_orders_of(trial, user)) {
            return false;
        }
    }
    if (!compare_chain(trial)) { /* not in a snapshot: see store.h */
        return false;
    }
    if (store_snapshot_begin(trial->world->recorder->store) != STORE_OK) {
        return trial_fail(trial, "taking a snapshot of the store");
    }
    bool equal = compare_audits(trial);
    store_snapshot_end(trial->world->recorder->store);
    return equal;
}
