/* Attaching to Redis, in the recorder. It happens at start, after losing Redis, and when the head or the scripts are no longer ours.
 *
 *   raise the store's epoch -> close the gate -> is what Redis has a continuation of what the store has?
 *        yes: drain the log into the store; are the two books equal now?
 *             yes: keep it                      no: rebuild Redis from the store
 *        no: rebuild Redis from the store
 *   -> load the scripts with the new epoch, open the gate -> write into the log what was healed
 *   -> open products whose opening never got into the log
 *
 * Of several servers' recorders one may be stopped anywhere in this, and go on when another has attached: then its connection to Redis is gone
 * (gate_end_other_recorders()), and the store refuses what it writes.
 *
 * Killed at any point, the next attach starts from the beginning: until the last step nothing can be sold. Owns nothing of its own. */
#include "attach.h"

#include "doorbuster/books.h"
#include "doorbuster/clock.h"
#include "doorbuster/failpoint.h"
#include "doorbuster/log.h"
#include "doorbuster/metrics.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PRODUCTS_AT_ONCE 64
#define OPENING_PATIENCE_MS 1000
#define OPENING_OVERDUE_MS 5000 /* a product added longer ago and never opened: whoever added it has died */
#define PUT_AT_ONCE 4096

static bool redis_failed(const char *doing)
{
    log_warn("attach: %s: %s", doing, redis_failure());
    return false;
}

bool recorder_beat(struct recorder *recorder)
{
    int64_t now_us = clock_monotonic_us();
    metrics_beat(now_us);
    return leading_keep(&recorder->leading, recorder->redis, now_us);
}

/* Nobody else records? Then nobody could. Another server that can reach the store gets the turn, and opens the gate again. */
static void close_until_store_works(struct recorder *recorder)
{
    struct gate_head head;
    leading_doubt(&recorder->leading); /* ask now */
    if (leading_keep(&recorder->leading, recorder->redis, clock_monotonic_us()) &&
        gate_read_head(recorder->redis, &head) && head.epoch != 0 && gate_close(recorder->redis)) {
        log_warn("the gate is closed until the store can record again");
    }
    leading_drop(&recorder->leading, recorder->redis, "the store fails");
}

bool recorder_store_failed(struct recorder *recorder, const char *doing)
{
    log_error("%s: %s", doing, store_error(recorder->store));
    metrics_add(METRICS_recorder_store_failures, 1);
    if (recorder->leading.leads) {
        close_until_store_works(recorder);
    }
    store_close(&recorder->store);
    return false;
}

void recorder_overtaken(struct recorder *recorder)
{
    leading_doubt(&recorder->leading);
    recorder->next_master_us = 0;
}

bool recorder_owns_store(struct recorder *recorder)
{
    struct store_position position;
    if (store_position(recorder->store, &position) != STORE_OK) {
        return recorder_store_failed(recorder, "reading the store's epoch");
    }
    if (position.epoch != recorder->epoch) {
        log_event(LOG_WARN, LOG_FIELDS(LOG_NUMBER("epoch", (int64_t)position.epoch)),
                  "another recorder has begun epoch %" PRIu64
                  ": attaching again, if it is still this one's turn",
                  position.epoch);
        recorder_overtaken(recorder);
    }
    return position.epoch == recorder->epoch;
}

static uint64_t highest(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

/* A new epoch, so that every older recorder and every script it loaded is out. Above the log's too, for a store that was restored from an
 * older copy: Redis refuses entries of an epoch below its last one. */
static bool take_over(struct recorder *recorder, const struct gate_head *head,
                      struct store_position *position)
{
    if (store_position(recorder->store, position) != STORE_OK) {
        return recorder_store_failed(recorder, "attach");
    }
    uint64_t epoch = highest(highest(position->epoch, position->recorded.epoch),
                             highest(head->epoch, head->log_last.epoch)) +
                     1;
    enum store_status status = store_raise_epoch(recorder->store, position->epoch, epoch);
    if (status == STORE_FENCED) {
        log_warn("attach: another recorder raised the epoch at the same time; trying again");
        recorder_overtaken(recorder);
        return false;
    }
    if (status != STORE_OK) {
        return recorder_store_failed(recorder, "attach");
    }
    recorder->epoch = epoch;
    recorder->open_epoch = 0;
    recorder->recorded = position->recorded;
    recorder->store_id = position->store_id;
    recorder->last_order = position->last_order_id;
    return true;
}

/* Redis continues the store if it was filled from this store, has the log from the store's position on, without a hole, and knows its order
 * counter. */
static bool continues_store(const struct gate_head *head, const struct store_position *position)
{
    return head->exists && head->store_id == position->store_id && head->orders >= position->last_order_id &&
           head->at_ms >= 0 && log_position_compare(head->log_last, position->recorded) >= 0 &&
           log_position_compare(head->log_lost, position->recorded) <= 0;
}

static enum record_result drain(struct recorder *recorder)
{
    enum record_result result;
    while ((result = recorder_record(recorder, 0)) == RECORDED_SOME && recorder_show_store(recorder) &&
           recorder_beat(recorder)) {
    }
    return result == RECORDED_SOME ? RECORD_FAILED : result;
}

typedef bool (*product_step)(struct recorder *recorder, const struct store_product *product);

static bool each_product(struct recorder *recorder, product_step step)
{
    struct store_product *products = malloc(PRODUCTS_AT_ONCE * sizeof *products);
    int64_t after = 0;
    size_t count = products ? PRODUCTS_AT_ONCE : 0;
    bool ok = products != NULL;
    while (ok && count == PRODUCTS_AT_ONCE) {
        ok = store_products(recorder->store, after, products, PRODUCTS_AT_ONCE, &count) == STORE_OK ||
             recorder_store_failed(recorder, "reading the products");
        for (size_t i = 0; ok && i < count; i++) {
            ok = recorder_beat(recorder) && step(recorder, &products[i]);
            after = products[i].id;
        }
    }
    free(products);
    return ok;
}

static bool put_product(struct recorder *recorder, const struct store_product *product)
{
    struct sale_product wanted = books_sale_product(product);
    return !product->opened || gate_put_product(recorder->redis, &wanted);
}

/* Gathers what the store gives one by one, until there is enough for a write. */
struct gathering {
    struct recorder *recorder;
    redisContext *redis;
    int64_t now_ms;
    bool failed;
    size_t count;
    union {
        struct gate_buyer buyers[PUT_AT_ONCE];
        struct gate_key keys[PUT_AT_ONCE];
        struct gate_change_key change_keys[PUT_AT_ONCE];
    };
};

/* Writes what was gathered. */
typedef void (*put_gathered)(struct gathering *gathering);

static bool note_gathered(struct gathering *gathering, put_gathered put)
{
    if (++gathering->count == PUT_AT_ONCE) {
        gathering->failed = gathering->failed || !recorder_beat(gathering->recorder);
        put(gathering);
    }
    return !gathering->failed;
}

static void put_buyers(struct gathering *gathering)
{
    gathering->failed =
        gathering->failed || !gate_put_buyers(gathering->redis, gathering->buyers, gathering->count);
    gathering->count = 0;
}

static bool gather_buyer_cb(void *context, int64_t product_id, int64_t user_id, int64_t units)
{
    struct gathering *gathering = context;
    gathering->buyers[gathering->count] = (struct gate_buyer){product_id, user_id, units};
    return note_gathered(gathering, put_buyers);
}

static void put_keys(struct gathering *gathering)
{
    gathering->failed =
        gathering->failed || !gate_put_keys(gathering->redis, gathering->keys, gathering->count);
    gathering->count = 0;
}

static bool gather_key_cb(void *context, int64_t user_id, const char *key, int64_t order_id, int64_t at_ms)
{
    struct gathering *gathering = context;
    struct gate_key *one = &gathering->keys[gathering->count];
    one->user_id = user_id;
    one->order_id = order_id;
    one->ttl_ms = at_ms + IDEMPOTENCY_KEY_LIFETIME_MS - gathering->now_ms;
    snprintf(one->key, sizeof one->key, "%s", key);
    return note_gathered(gathering, put_keys);
}

static void put_change_keys(struct gathering *gathering)
{
    gathering->failed = gathering->failed ||
                        !gate_put_change_keys(gathering->redis, gathering->change_keys, gathering->count);
    gathering->count = 0;
}

static bool gather_change_key_cb(void *context, const struct store_change_key *key)
{
    struct gathering *gathering = context;
    struct gate_change_key *one = &gathering->change_keys[gathering->count];
    one->actor = key->actor;
    one->ttl_ms = key->at_ms + IDEMPOTENCY_KEY_LIFETIME_MS - gathering->now_ms;
    one->result = (struct change_result){.position = key->position,
                                         .stock = key->stock,
                                         .product_id = key->product_id,
                                         .figure = key->figure,
                                         .kind = key->kind};
    snprintf(one->key, sizeof one->key, "%s", key->key);
    return note_gathered(gathering, put_change_keys);
}

/* The units of limited products' buyers, and the idempotency keys of the last day, each with the time it has left. A rejected order's key is
 * left out, so that its buyer may try again. */
static bool put_buyers_and_keys(struct recorder *recorder)
{
    struct gathering *gathering = calloc(1, sizeof *gathering);
    if (gathering == NULL) {
        return false;
    }
    gathering->recorder = recorder;
    gathering->redis = recorder->redis;
    gathering->now_ms = clock_wall_ms();
    int64_t since_ms = gathering->now_ms - IDEMPOTENCY_KEY_LIFETIME_MS;
    bool ok = store_each_buyer(recorder->store, gather_buyer_cb, gathering) == STORE_OK;
    put_buyers(gathering);
    ok = ok && store_each_key(recorder->store, since_ms, gather_key_cb, gathering) == STORE_OK;
    put_keys(gathering);
    ok = ok && store_each_change_key(recorder->store, since_ms, gather_change_key_cb, gathering) == STORE_OK;
    put_change_keys(gathering);
    bool put = !gathering->failed;
    free(gathering);
    return (ok || recorder_store_failed(recorder, "rebuild: reading the buyers and keys")) &&
           (put || redis_failed("filling Redis"));
}

static int64_t time_of_order(struct recorder *recorder, int64_t order_id)
{
    struct store_order order;
    return order_id > 0 && store_find_order(recorder->store, order_id, &order) == STORE_OK ? order.at_ms : 0;
}

/* The new log begins with the new epoch, and so does the store's position: if an old log comes back, with entries that were taken for lost,
 * it does not continue the store. */
static bool leave_the_old_log(struct recorder *recorder)
{
    struct log_position begin = {.epoch = recorder->epoch, .n = 0};
    enum store_status status = store_skip_to(recorder->store, recorder->epoch, recorder->recorded, begin);
    if (status == STORE_FENCED) {
        log_warn("attach: another recorder is at work");
        recorder_overtaken(recorder);
        return false;
    }
    if (status != STORE_OK) {
        return recorder_store_failed(recorder, "rebuild: moving the position");
    }
    recorder->recorded = begin;
    return true;
}

static bool rebuild(struct recorder *recorder)
{
    struct store_position position;
    metrics_add(METRICS_recorder_rebuilds, 1);
    if (store_position(recorder->store, &position) != STORE_OK) {
        return recorder_store_failed(recorder, "rebuild");
    }
    if (!leave_the_old_log(recorder) || !recorder_beat(recorder)) {
        return false;
    }
    if (!gate_wipe(recorder->redis, recorder->recorded) || failpoint("attach.wiped")) {
        return redis_failed("wiping Redis");
    }
    if (!each_product(recorder, put_product) || !put_buyers_and_keys(recorder)) {
        return false;
    }
    bool finished = !failpoint("attach.filled") &&
                    gate_finish_rebuild(recorder->redis, position.store_id, position.last_order_id,
                                        time_of_order(recorder, position.last_order_id));
    return (finished && !failpoint("attach.rebuilt")) || redis_failed("filling Redis");
}

/* A product whose row was written but whose opening never reached the log: whoever added it died in between. */
static bool open_if_planned(struct recorder *recorder, const struct store_product *product)
{
    if (product->opened) {
        return true;
    }
    struct stock_change change = {.product_id = product->id,
                                  .delta = product->planned_stock,
                                  .cause = STOCK_OPENING,
                                  .note = "opened by the recorder"};
    struct sale_product opening = books_sale_product(product);
    struct change_result result;
    if (gate_change_stock(recorder->redis, &change, &opening, OPENING_PATIENCE_MS, &result) !=
        CHANGE_FAILED) {
        return true;
    }
    recorder->rebuild_wanted = recorder->redis->err == 0; /* something is in its place that is not ours */
    return redis_failed("opening a product");
}

/* --- the two books ------------------------------------------------------------------------------------------------------------------- */
static void note_difference(struct recorder *recorder, const struct store_product *product,
                            const struct gate_stock *gate)
{
    recorder->attach_wanted = recorder->rebuild_wanted = true;
    if (recorder->difference_count == DIFFERENCES_MAX) {
        return; /* put right as well, but without a line of its own in the log */
    }
    recorder->differences[recorder->difference_count++] =
        (struct difference){.product_id = product->id,
                            .redis_stock = gate->on_sale ? gate->stock_at : -1,
                            .store_stock = product->stock};
}

static bool same_components(const struct sale_product *a, const struct store_product *b)
{
    return a->component_count == b->component_count &&
           memcmp(a->components, b->components, a->component_count * sizeof a->components[0]) == 0;
}

/* A bundle has no stock of its own: its components' are compared. */
static bool same_books(const struct store_product *product, const struct gate_stock *gate)
{
    const struct sale_product *now = &gate->now;
    return (product->component_count > 0 || gate->stock_at == product->stock) &&
           gate->price_at == product->price && now->limit == product->per_customer_limit &&
           gate->window_at.starts_at_ms == product->starts_at_ms &&
           gate->window_at.ends_at_ms == product->ends_at_ms && same_components(now, product);
}

/* `closed`: the gate is, and the log is drained: what Redis has now must be what the store has. False: the books differ. */
static bool judge_product(struct recorder *recorder, const struct store_product *product,
                          const struct gate_stock *gate, bool closed)
{
    bool equal = gate->on_sale ? same_books(product, gate) : !product->opened;
    if (!closed && !gate->at_known) { /* our own position: there must be a log that goes on from it */
        recorder->attach_wanted = true;
        if (recorder->leading.leads) {
            log_warn("the log at the store's position is gone: attaching again");
        }
        return true; /* nobody can say */
    }
    if (!equal) {
        note_difference(recorder, product, gate);
    }
    return equal;
}

static bool compare_closed(struct recorder *recorder, const struct store_product *product)
{
    struct gate_stock gate;
    struct sale_product wanted = books_sale_product(product);
    if (!gate_read_stock(recorder->redis, &wanted, recorder->recorded, &gate)) {
        return redis_failed("comparing the books");
    }
    judge_product(recorder, product, &gate, true);
    return true;
}

static bool is_overdue(const struct store_product *product)
{
    return !product->opened && clock_wall_ms() - product->created_at_ms > OPENING_OVERDUE_MS;
}

static bool compare_open(struct recorder *recorder, const struct store_product *product,
                         const struct gate_stock *gate)
{
    struct board_product *line = NULL;
    bool equal = judge_product(recorder, product, gate, false);
    if (recorder->board != NULL) {
        if (sale_board_put(recorder->board, recorder->store, product, &line) != STORE_OK) {
            return recorder_store_failed(recorder, "showing the books");
        }
        if (!equal) {
            sale_board_differs(recorder->board);
        }
    }
    if (line != NULL) {
        line->available = !gate->at_known ? -1 : gate->on_sale ? gate->available : 0;
        line->in_flight = gate->in_flight;
        line->books_equal = equal;
    }
    return !recorder->leading.leads || !is_overdue(product) || open_if_planned(recorder, product);
}

static enum store_status read_page(struct recorder *recorder, int64_t after, struct store_product *products,
                                   size_t *count)
{
    struct store_position position;
    if (!recorder->watching) { /* nobody else moves the position */
        return store_products(recorder->store, after, products, PRODUCTS_AT_ONCE, count);
    }
    enum store_status status = store_snapshot_begin(recorder->store);
    status = status == STORE_OK ? store_position(recorder->store, &position) : status;
    status = status == STORE_OK ? store_products(recorder->store, after, products, PRODUCTS_AT_ONCE, count)
                                : status;
    store_snapshot_end(recorder->store);
    recorder->recorded = status == STORE_OK ? position.recorded : recorder->recorded;
    return status;
}

/* The products behind *after, which moves on; to 0 behind the last of them. */
static bool compare_page(struct recorder *recorder, int64_t *after)
{
    static struct store_product products[PRODUCTS_AT_ONCE];
    static struct sale_product wanted[PRODUCTS_AT_ONCE];
    static struct gate_stock gate[PRODUCTS_AT_ONCE];
    struct gate_behind behind;
    size_t count;
    metrics_beat(clock_monotonic_us());
    if (read_page(recorder, *after, products, &count) != STORE_OK) {
        return recorder_store_failed(recorder, "comparing the books");
    }
    for (size_t i = 0; i < count; i++) {
        wanted[i] = books_sale_product(&products[i]);
    }
    if (!gate_read_stocks(recorder->redis, wanted, count, recorder->recorded, gate, &behind)) {
        return redis_failed("comparing the books");
    }
    for (size_t i = 0; i < count; i++) {
        if (!compare_open(recorder, &products[i], &gate[i])) {
            return false;
        }
    }
    if (recorder->board != NULL) {
        sale_board_behind(recorder->board, &behind);
    }
    *after = count == PRODUCTS_AT_ONCE ? products[count - 1].id : 0;
    return true;
}

/* Those that the board shows, all of them; nearly always that is all there are. */
static bool compare_shown(struct recorder *recorder, int64_t first)
{
    int64_t after = first > 0 ? first - 1 : 0;
    do {
        if (!compare_page(recorder, &after)) {
            return false;
        }
    } while (after > 0);
    return true;
}

/* A page of those before the first that the board shows. */
static bool compare_others(struct recorder *recorder, int64_t first)
{
    if (first > 1 && !compare_page(recorder, &recorder->compared_up_to)) {
        return false;
    }
    if (recorder->compared_up_to >= first - 1) {
        recorder->compared_up_to = 0;
    }
    if (recorder->board != NULL && recorder->compared_up_to == 0) {
        sale_board_compared(recorder->board);
    }
    return true;
}

bool recorder_compare_books(struct recorder *recorder)
{
    int64_t first = 0;
    recorder->difference_count = 0;
    if (recorder->board != NULL && sale_board_begin(recorder->board, recorder->store, &first) != STORE_OK) {
        return recorder_store_failed(recorder, "comparing the books");
    }
    if (!compare_shown(recorder, first) || !compare_others(recorder, first)) {
        return false;
    }
    if (recorder->difference_count > 0 && recorder->leading.leads) {
        log_event(LOG_ERROR, LOG_FIELDS(LOG_NUMBER("product_id", recorder->differences[0].product_id)),
                  "the books differ, first product %" PRId64 ": attaching again to put Redis right",
                  recorder->differences[0].product_id);
    }
    return recorder->board == NULL || sale_board_show(recorder->board, recorder->store) == STORE_OK ||
           recorder_store_failed(recorder, "showing the books");
}

/* Whoever records moves the store on meanwhile: each page of products is of one moment, and Redis is asked what was at that position. */
bool recorder_watch_books(struct recorder *recorder)
{
    int64_t now_us = clock_monotonic_us();
    recorder->open_epoch = 0;
    if (now_us < recorder->watched_us + sale_board_pause_us(recorder->board)) {
        return true;
    }
    recorder->watched_us = now_us;
    recorder->watching = true;
    bool watched = recorder_compare_books(recorder);
    recorder->watching = false;
    recorder->attach_wanted = recorder->rebuild_wanted = false; /* for whoever records to see */
    return watched;
}

bool recorder_show_store(struct recorder *recorder)
{
    return recorder->board == NULL || recorder->store == NULL ||
           sale_board_show_store(recorder->board, recorder->store) == STORE_OK ||
           recorder_store_failed(recorder, "showing the books");
}

/* The gate is open again with the store's figures; now the log, and so the store, shall say that it was so, and the workers forget their
 * sold-out marks. */
static bool record_healing(struct recorder *recorder)
{
    for (size_t i = 0; i < recorder->difference_count; i++) {
        const struct difference *difference = &recorder->differences[i];
        struct stock_change change = {.product_id = difference->product_id, .cause = STOCK_HEALING};
        struct change_result result;
        if (!recorder_beat(recorder)) {
            return false;
        }
        if (difference->redis_stock < 0) {
            snprintf(change.note, sizeof change.note, "Redis did not have it, the store has %" PRId64,
                     difference->store_stock);
        } else {
            snprintf(change.note, sizeof change.note, "Redis had %" PRId64 ", the store %" PRId64,
                     difference->redis_stock, difference->store_stock);
        }
        log_event(LOG_ERROR, LOG_FIELDS(LOG_NUMBER("product_id", difference->product_id)),
                  "product %" PRId64 " healed: %s", difference->product_id, change.note);
        metrics_add(METRICS_recorder_healed, 1);
        if (gate_change_stock(recorder->redis, &change, NULL, OPENING_PATIENCE_MS, &result) ==
            CHANGE_FAILED) {
            return redis_failed("recording what was healed");
        }
    }
    return true;
}

/* --- attach ----------------------------------------------------------------------------------------------------------------------------- */
/* The gate is closed. True: Redis has exactly what the store has. */
static bool make_equal(struct recorder *recorder, const struct gate_head *head,
                       const struct store_position *position)
{
    char recorded[SALES_LOG_POSITION_BYTES], last[SALES_LOG_POSITION_BYTES];
    log_position_format(recorder->recorded, recorded);
    log_position_format(head->log_last, last);
    bool continues = continues_store(head, position);
    const struct log_field epoch[] = {LOG_NUMBER("epoch", (int64_t)recorder->epoch), {.name = NULL}};
    recorder->difference_count = 0;
    if (continues) {
        enum record_result drained = drain(recorder);
        if (drained == RECORD_FAILED || !each_product(recorder, compare_closed)) {
            return false;
        }
        if (recorder->recorded.epoch > recorder->epoch) {
            log_warn("attach: somebody has written into the log with a later epoch: attaching above it");
            return false;
        }
    }
    if (continues && !recorder->rebuild_wanted) {
        log_event(LOG_INFO, epoch, "epoch %" PRIu64 ": drained the log from %s to %s", recorder->epoch,
                  recorded, last);
        return !failpoint("attach.drained") && leave_the_old_log(recorder) &&
               (gate_forget_recorded(recorder->redis, recorder->recorded) ||
                redis_failed("trimming the log"));
    }
    if (!head->exists && position->epoch == 0) {
        log_event(LOG_INFO, epoch, "epoch %" PRIu64 ": a new store and an empty Redis", recorder->epoch);
    } else {
        log_event(LOG_WARN, epoch,
                  "epoch %" PRIu64 ": rebuilding Redis from the store at %s (Redis %s, its log at %s)",
                  recorder->epoch, recorded,
                  continues      ? "differs from it"
                  : head->exists ? "does not continue it"
                                 : "is empty",
                  last);
    }
    return rebuild(recorder);
}

/* A Redis that does not let us is as good as one recorder at a time makes it; the lease does. */
static bool be_alone(struct recorder *recorder)
{
    unsigned ended = 0;
    if (!failpoint("attach.beside") && !gate_end_other_recorders(recorder->redis, &ended)) {
        log_warn("attach: closing the connections of recorders before this one: %s", redis_failure());
    }
    if (ended > 0) {
        log_warn("attach: closed the connection to Redis of another recorder that was still there");
    }
    return recorder->redis->err == 0;
}

static bool attach(struct recorder *recorder)
{
    struct store_position position;
    struct gate_head head;
    recorder->attach_wanted = false;
    if (failpoint("attach.begin") || !gate_read_head(recorder->redis, &head)) {
        return redis_failed("reading the head");
    }
    if (head.is_replica) {
        recorder->redis->err =
            REDIS_ERR_OTHER; /* a failover: whoever is master now is found by connecting anew */
        log_warn("attach: this Redis is a replica");
        return false;
    }
    if (!take_over(recorder, &head, &position) || failpoint("attach.epoch")) {
        return false;
    }
    metrics_add(METRICS_recorder_attaches, 1);
    if (!be_alone(recorder)) {
        return false;
    }
    /* A Redis without a head stays without one until it is rebuilt. */
    if (head.exists && !gate_close(recorder->redis)) {
        return redis_failed("closing the gate");
    }
    if (failpoint("attach.closed") ||
        !gate_read_head(recorder->redis, &head)) { /* again: the last sale may have come before the closing */
        return redis_failed("reading the head");
    }
    if (!make_equal(recorder, &head, &position)) {
        return false;
    }
    if (!recorder_owns_store(recorder)) { /* overtaken meanwhile */
        return false;
    }
    if (!gate_open_on(recorder->redis, recorder->epoch, head.master) || failpoint("attach.opened")) {
        return redis_failed("opening the gate");
    }
    recorder->open_epoch = recorder->epoch;
    recorder->rebuild_wanted = recorder->attach_wanted = false;
    struct gate_announcement opened = {
        .store_id = recorder->store_id, .epoch = recorder->epoch, .recorded = recorder->recorded};
    if (!gate_announce(recorder->redis, &opened) || failpoint("attach.announced")) {
        return redis_failed("announcing the epoch");
    }
    return record_healing(recorder) && each_product(recorder, open_if_planned);
}

bool recorder_attach(struct recorder *recorder)
{
    recorder->attaching = true;
    bool attached = attach(recorder);
    recorder->attaching = false;
    if (!attached) { /* it may be Redis that writes no more: no new epoch before it does */
        leading_doubt(&recorder->leading);
    }
    return attached;
}
