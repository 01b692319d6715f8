/* What the Redlock gate has done in the store: a batch of purchases is decided, and on which terms products are sold is looked up. Begins and ends on
 * the loop's thread; the store is asked on the WORK_SELL thread, which has a desk of its own, so that both connections stay warm. At most one
 * batch and one lesson are under way; they belong to the gate. What fails is the batch's end, or a lesson that is not read; the gate asks again.
 *
 * A writer that failed is closed: a new one first mends what a failed write or sync may have left (store_raise_epoch() says how), as the
 * recorder does. */
#include "api_internal.h"

#include "doorbuster/check.h"
#include "doorbuster/clock.h"
#include "doorbuster/failpoint.h"
#include "doorbuster/log.h"

#define COMPLAIN_EVERY_US 1000000 /* a store that is away fails every batch */

/* --- on the WORK_SELL thread ------------------------------------------------------------------------------------------------------------- */
static void complain(struct api *api, const char *doing, const char *why)
{
    int64_t now_us = clock_monotonic_us();
    api->complaints++;
    if (now_us >= api->complain_next_us) {
        if (api->complaints > 1) {
            log_error("%s: %s; %u failures since the last one that was told", doing, why, api->complaints);
        } else {
            log_error("%s: %s", doing, why);
        }
        api->complain_next_us = now_us + COMPLAIN_EVERY_US;
        api->complaints = 0;
    }
}

static struct desk *seller_of(struct api *api)
{
    if (api->seller == NULL) {
        api->seller = desk_borrow(api);
    }
    return api->seller;
}

static void sell_work_cb(void *context)
{
    struct api *api = context;
    struct gate_batch *batch = api->batch;
    struct desk *desk = seller_of(api);
    struct job nobody = {.api = api};
    batch->end = GATE_BATCH_FAILED;
    if (failpoint("gate.sell")) {
        return;
    }
    if (!desk_needs_writer(desk, &nobody)) {
        complain(api, "selling", nobody.error);
        return;
    }
    int64_t began_us = clock_monotonic_us();
    switch (store_sell(desk->writer, batch->purchases, batch->count, &batch->moves)) {
    case STORE_OK:
        metrics_observe(METRICS_HISTOGRAM_commit_us, (uint64_t)(clock_monotonic_us() - began_us));
        batch->end = GATE_BATCH_DECIDED;
        break;
    case STORE_FENCED:
        batch->end = GATE_BATCH_FENCED;
        complain(api, "selling", "the store belongs to the Lua gate");
        break;
    default:
        complain(api, "selling", store_error(desk->writer));
        desk_drop_writer(desk);
    }
}

/* False: the store failed. */
static bool learn_product(struct gate_lesson *lesson, size_t i, struct store *reader)
{
    struct store_product product;
    enum store_status status = store_find_product(reader, lesson->product_ids[i], &product);
    lesson->known[i] = status == STORE_OK;
    if (status == STORE_OK) {
        lesson->products[i] = books_sale_product(&product);
    }
    return status == STORE_OK || status == STORE_NOT_FOUND;
}

/* The position first: what is asked for after this lies behind it. */
static bool learn(struct gate_lesson *lesson, struct store *reader)
{
    struct store_position now;
    if (store_position(reader, &now) != STORE_OK) {
        return false;
    }
    lesson->position = now.recorded;
    for (size_t i = 0; i < lesson->count; i++) {
        if (!learn_product(lesson, i, reader)) {
            return false;
        }
    }
    return true;
}

static void learn_work_cb(void *context)
{
    struct api *api = context;
    struct desk *desk = seller_of(api);
    struct job nobody = {.api = api};
    api->lesson->read = false;
    if (!desk_needs_reader(desk, &nobody)) {
        complain(api, "looking up products", nobody.error);
        return;
    }
    api->lesson->read = learn(api->lesson, desk->reader);
    if (!api->lesson->read) {
        complain(api, "looking up products", store_error(desk->reader));
        store_close(&desk->reader);
    }
}

/* --- on the loop's thread ---------------------------------------------------------------------------------------------------------------- */
static void sell_done_cb(void *context)
{
    struct api *api = context;
    struct gate_batch *batch = api->batch;
    api->batch = NULL; /* the gate may hand in the next one at once */
    gate_sold(api->gate, batch);
}

static void learn_done_cb(void *context)
{
    struct api *api = context;
    struct gate_lesson *lesson = api->lesson;
    api->lesson = NULL;
    gate_learned(api->gate, lesson);
}

bool api_learn(void *context, struct gate_lesson *lesson)
{
    struct api *api = context;
    CHECK(api->lesson == NULL && lesson->count <= GATE_LESSON_MAX);
    api->lesson = lesson;
    if (!work_submit(api->pool, WORK_SELL, learn_work_cb, learn_done_cb, api)) {
        api->lesson = NULL;
        return false;
    }
    return true;
}

bool api_sell(void *context, struct gate_batch *batch)
{
    struct api *api = context;
    CHECK(api->batch == NULL && batch->count > 0 && batch->count <= GATE_BATCH_MAX);
    api->batch = batch;
    if (!work_submit(api->pool, WORK_SELL, sell_work_cb, sell_done_cb, api)) {
        api->batch = NULL;
        return false;
    }
    return true;
}
