/* Settling: were these purchases recorded? For those whose record the gate cannot tell from the news: reservations by order id, and purchases in
 * doubt, whose answer was lost, by request. Begins and ends on the loop's thread; the store is read on a pool thread. Owns a struct settling
 * for the time between. What cannot be read is GATE_STORE_UNREADABLE; so is what is not found in a store that is behind the news: of several PostgreSQL
 * servers this may be another than the recorder's, an old primary that does not know yet. */
#include "api_internal.h"

#include "doorbuster/check.h"

#include <stdlib.h>

struct settling_one {
    struct gate_purchase *purchase;
    enum gate_finding finding;
    struct store_order found; /* GATE_IN_STORE, for one that was in doubt */
    struct order_part *more;  /* and what its further lines cost and left over; as many as the purchase has */
};

struct settling {
    struct api *api;
    size_t count;
    struct settling_one each[];
};

/* --- on a pool thread ------------------------------------------------------------------------------------------------------------------- */
/* One that was cancelled since was bought all the same. */
static enum gate_finding finding_of(const struct store_order *order)
{
    return order->state == ORDER_REJECTED ? GATE_REJECTED_BY_STORE : GATE_IN_STORE;
}

static enum gate_finding look_up(struct store *reader, const struct sale_order *reserved)
{
    struct store_order found;
    switch (store_find_order(reader, reserved->id, &found)) {
    case STORE_OK:
        break;
    case STORE_NOT_FOUND:
        return GATE_NOT_IN_STORE;
    default:
        return GATE_STORE_UNREADABLE;
    }
    /* Redis may have forgotten the reservation and given its order id to somebody else. */
    if (found.sale.request != reserved->request || found.sale.user_id != reserved->user_id) {
        return GATE_NOT_IN_STORE;
    }
    return finding_of(&found);
}

static bool is_in_doubt(const struct settling_one *one)
{
    return one->purchase->purchase.state == PURCHASE_ASKED;
}

static const struct order_part *find_line(const struct order_part *parts, size_t count, int64_t product_id)
{
    for (size_t i = 0; i < count; i++) {
        if (!parts[i].is_component && parts[i].product_id == product_id) {
            return &parts[i];
        }
    }
    return NULL;
}

/* The lines behind the first of a cart that was found. */
static bool read_more_lines(struct settling_one *one, struct store *reader)
{
    const struct sale_order *asked = &one->purchase->purchase.order;
    struct order_part parts[ORDER_PARTS_MAX - 1];
    size_t count = 0;
    if (asked->more_count == 0) {
        return true;
    }
    if (store_order_parts(reader, one->found.sale.id, parts, ORDER_PARTS_MAX - 1, &count) != STORE_OK) {
        return false;
    }
    one->more = calloc(asked->more_count, sizeof *one->more);
    CHECK(one->more != NULL);
    for (size_t i = 0; i < asked->more_count; i++) {
        const struct order_part *line = find_line(parts, count, asked->more[i].product_id);
        one->more[i] = line != NULL ? *line : asked->more[i];
    }
    return true;
}

static int compare_requests(const void *a, const void *b)
{
    int64_t first = ((const struct store_request *)a)->request,
            second = ((const struct store_request *)b)->request;
    return (first > second) - (first < second);
}

/* `wanted` is sorted: store_find_requests() leaves it so. */
static void note_found(struct settling_one *one, struct store *reader, const struct store_request *wanted,
                       size_t count)
{
    const struct store_request key = {.request = one->purchase->purchase.order.request};
    const struct store_request *request = bsearch(&key, wanted, count, sizeof *wanted, compare_requests);
    one->finding = GATE_NOT_IN_STORE;
    if (request != NULL && request->found) {
        one->found = request->order;
        one->finding = finding_of(&request->order);
    }
    if (one->finding == GATE_IN_STORE && !read_more_lines(one, reader)) {
        one->finding = GATE_STORE_UNREADABLE;
    }
}

/* Those in doubt have no order id: all of them in one pass over the newest orders. */
static void look_up_doubtful(struct settling *settling, struct store *reader)
{
    struct store_request *wanted = calloc(settling->count, sizeof *wanted);
    struct log_position from = {UINT64_MAX, UINT64_MAX};
    size_t count = 0;
    CHECK(wanted != NULL);
    for (size_t i = 0; i < settling->count; i++) {
        const struct purchase *asked = &settling->each[i].purchase->purchase;
        if (is_in_doubt(&settling->each[i])) {
            wanted[count++] =
                (struct store_request){.request = asked->order.request, .user_id = asked->order.user_id};
            from = log_position_compare(asked->position, from) < 0 ? asked->position : from;
        }
    }
    if (count > 0 && store_find_requests(reader, from, wanted, count) == STORE_OK) {
        for (size_t i = 0; i < settling->count; i++) {
            if (is_in_doubt(&settling->each[i])) {
                note_found(&settling->each[i], reader, wanted, count);
            }
        }
    }
    free(wanted);
}

/* One that was sold would be in a store that is here. */
static struct log_position final_position(const struct settling *settling, const struct settling_one *one)
{
    struct log_position position = one->purchase->purchase.position;
    bool by_epoch = is_in_doubt(one) && settling->api->settings.place->kind == GATE_LUA;
    return by_epoch ? (struct log_position){position.epoch + 1, 0} : position;
}

static void doubt_what_is_missing(struct settling *settling, struct log_position recorded)
{
    for (size_t i = 0; i < settling->count; i++) {
        struct settling_one *one = &settling->each[i];
        if (one->finding == GATE_NOT_IN_STORE &&
            log_position_compare(recorded, final_position(settling, one)) < 0) {
            one->finding = GATE_STORE_UNREADABLE;
        }
    }
}

static void settle_work_cb(void *context)
{
    struct settling *settling = context;
    struct desk *desk = desk_borrow(settling->api);
    struct job nobody = {.api = settling->api};
    struct store_position now;
    if (desk_needs_reader(desk, &nobody) && store_position(desk->reader, &now) == STORE_OK) {
        for (size_t i = 0; i < settling->count; i++) {
            struct settling_one *one = &settling->each[i];
            if (!is_in_doubt(one)) {
                one->finding = look_up(desk->reader, &one->purchase->purchase.order);
            }
        }
        look_up_doubtful(settling, desk->reader);
        doubt_what_is_missing(settling, now.recorded);
    }
    desk_return(desk);
}

/* --- on the loop's thread --------------------------------------------------------------------------------------------------------------- */
/* The purchase keeps its own room for further lines. */
static void take_found(struct purchase *purchase, const struct settling_one *one)
{
    struct order_part *more = purchase->order.more;
    size_t more_count = purchase->order.more_count;
    for (size_t i = 0; i < more_count; i++) {
        more[i].unit_price = one->more[i].unit_price;
        more[i].remaining = one->more[i].remaining;
    }
    purchase->order = one->found.sale;
    purchase->order.more = more;
    purchase->order.more_count = more_count;
    purchase->at_ms = one->found.at_ms;
    purchase->position = one->found.position;
}

static void settle_done_cb(void *context)
{
    struct settling *settling = context;
    /* From the last: what was never sold goes to the front of the queue, and the first shall be first there. */
    for (size_t i = settling->count; i-- > 0;) {
        struct settling_one *one = &settling->each[i];
        if (one->finding == GATE_IN_STORE && is_in_doubt(one)) {
            take_found(&one->purchase->purchase, one);
        }
        free(one->more);
        gate_settled(settling->api->gate, one->purchase, one->finding);
    }
    free(settling);
}

bool api_settle(void *context, struct gate_purchase *list)
{
    struct api *api = context;
    size_t count = 0;
    for (const struct gate_purchase *purchase = list; purchase != NULL; purchase = purchase->next) {
        count++;
    }
    struct settling *settling = malloc(sizeof *settling + count * sizeof settling->each[0]);
    CHECK(settling != NULL);
    settling->api = api;
    settling->count = 0;
    for (struct gate_purchase *purchase = list; purchase != NULL; purchase = purchase->next) {
        struct settling_one *one = &settling->each[settling->count++];
        one->purchase = purchase;
        one->finding = GATE_STORE_UNREADABLE; /* until it is known better */
        one->more = NULL;
    }
    if (!work_submit(api->pool, WORK_SETTLE, settle_work_cb, settle_done_cb, settling)) {
        free(settling);
        return false;
    }
    return true;
}
