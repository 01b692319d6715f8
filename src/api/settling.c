/* Settling: were these purchases recorded? For those whose record the gate cannot tell from the news: reservations by order id, and purchases in
 * doubt, whose answer was lost, by request. Begins and ends on the loop's thread; the store is read on a pool thread. Owns a struct settling
 * for the time between. What cannot be read is GATE_STORE_UNREADABLE; so is what is not found in a store that is behind the news: of several PostgreSQL
 * servers this may be another than the recorder's, an old primary that does not know yet. And so is, at its deadline, what is still being read: a store
 * that hangs holds nobody for longer. Therefore the pool's thread works on copies. */
#include "api_internal.h"

#include "doorbuster/check.h"
#include "doorbuster/clock.h"

#include <stdlib.h>
#include <string.h>

#define EARLY_US 100000 /* before the deadline, for the next look is never quite so soon */

struct settling_one {
    struct gate_purchase *purchase; /* the loop's; NULL: it has been answered */
    struct sale_order asked;        /* without its key */
    struct log_position position;
    bool is_in_doubt;
    enum gate_finding finding;
    struct store_order found; /* GATE_IN_STORE, for one that was in doubt */
    struct order_part *more;  /* the further lines asked for, then what they cost and left over; NULL: none */
};

struct settling {
    struct api *api;
    struct settling *next; /* the loop's: api->settlings */
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
    struct order_part parts[ORDER_PARTS_MAX - 1];
    size_t count = 0;
    if (one->asked.more_count == 0) {
        return true;
    }
    if (store_order_parts(reader, one->found.sale.id, parts, ORDER_PARTS_MAX - 1, &count) != STORE_OK) {
        return false;
    }
    for (size_t i = 0; i < one->asked.more_count; i++) {
        const struct order_part *line = find_line(parts, count, one->more[i].product_id);
        one->more[i] = line != NULL ? *line : one->more[i];
    }
    return true;
}

static int compare_requests(const void *a, const void *b)
{
    int64_t first = ((const struct store_request *)a)->request,
            second = ((const struct store_request *)b)->request;
    return (first > second) - (first < second);
}

/* `wanted` is sorted: store_find_requests() leaves it so. False: the store cannot be read. */
static bool note_found(struct settling_one *one, struct store *reader, const struct store_request *wanted,
                       size_t count)
{
    const struct store_request key = {.request = one->asked.request};
    const struct store_request *request = bsearch(&key, wanted, count, sizeof *wanted, compare_requests);
    one->finding = GATE_NOT_IN_STORE;
    if (request != NULL && request->found) {
        one->found = request->order;
        one->finding = finding_of(&request->order);
    }
    if (one->finding == GATE_IN_STORE && !read_more_lines(one, reader)) {
        one->finding = GATE_STORE_UNREADABLE;
    }
    return one->finding != GATE_STORE_UNREADABLE;
}

/* Those in doubt have no order id: all of them in one pass over the newest orders. */
static void look_up_doubtful(struct settling *settling, struct store *reader)
{
    struct store_request *wanted = calloc(settling->count, sizeof *wanted);
    struct log_position from = {UINT64_MAX, UINT64_MAX};
    size_t count = 0;
    CHECK(wanted != NULL);
    for (size_t i = 0; i < settling->count; i++) {
        const struct settling_one *one = &settling->each[i];
        if (one->is_in_doubt) {
            wanted[count++] =
                (struct store_request){.request = one->asked.request, .user_id = one->asked.user_id};
            from = log_position_compare(one->position, from) < 0 ? one->position : from;
        }
    }
    if (count > 0 && store_find_requests(reader, from, wanted, count) == STORE_OK) {
        bool read = true;
        for (size_t i = 0; i < settling->count && read; i++) {
            struct settling_one *one = &settling->each[i];
            read = !one->is_in_doubt || note_found(one, reader, wanted, count);
        }
    }
    free(wanted);
}

/* One that was sold would be in a store that is here. */
static struct log_position final_position(const struct settling *settling, const struct settling_one *one)
{
    bool by_epoch = one->is_in_doubt && settling->api->settings.place->kind == GATE_LUA;
    return by_epoch ? (struct log_position){one->position.epoch + 1, 0} : one->position;
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

/* False: the store cannot be read. It may take its whole patience to say so, so the rest is not tried. */
static bool look_up_reserved(struct settling *settling, struct store *reader)
{
    bool read = true;
    for (size_t i = 0; i < settling->count && read; i++) {
        struct settling_one *one = &settling->each[i];
        if (!one->is_in_doubt) {
            one->finding = look_up(reader, &one->asked);
            read = one->finding != GATE_STORE_UNREADABLE;
        }
    }
    return read;
}

static void settle_work_cb(void *context)
{
    struct settling *settling = context;
    struct desk *desk = desk_borrow(settling->api);
    struct job nobody = {.api = settling->api};
    struct store_position now;
    if (desk_needs_reader(desk, &nobody) && store_position(desk->reader, &now) == STORE_OK) {
        if (look_up_reserved(settling, desk->reader)) {
            look_up_doubtful(settling, desk->reader);
        }
        doubt_what_is_missing(settling, now.recorded);
    }
    desk_return(desk);
}

/* --- on the loop's thread --------------------------------------------------------------------------------------------------------------- */
static void settling_free(struct settling *settling)
{
    for (size_t i = 0; i < settling->count; i++) {
        free(settling->each[i].more);
    }
    free(settling);
}

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

static void answer(const struct settling *settling, struct settling_one *one, enum gate_finding finding)
{
    struct gate_purchase *purchase = one->purchase;
    one->purchase = NULL;
    if (purchase == NULL) {
        return;
    }
    if (finding == GATE_IN_STORE && one->is_in_doubt) {
        take_found(&purchase->purchase, one);
    }
    gate_settled(settling->api->gate, purchase, finding);
}

void settling_watch(struct api *api)
{
    int64_t over_us = clock_monotonic_us() + EARLY_US;
    for (struct settling *settling = api->settlings; settling != NULL; settling = settling->next) {
        for (size_t i = 0; i < settling->count; i++) {
            struct settling_one *one = &settling->each[i];
            if (one->purchase != NULL && one->purchase->deadline_us <= over_us) {
                answer(settling, one, GATE_STORE_UNREADABLE);
            }
        }
    }
}

static void leave_list(struct settling *settling)
{
    struct settling **at = &settling->api->settlings;
    while (*at != settling) {
        at = &(*at)->next;
    }
    *at = settling->next;
}

static void settle_done_cb(void *context)
{
    struct settling *settling = context;
    leave_list(settling);
    /* From the last: what was never sold goes to the front of the queue, and the first shall be first there. */
    for (size_t i = settling->count; i-- > 0;) {
        answer(settling, &settling->each[i], settling->each[i].finding);
    }
    settling_free(settling);
}

static struct order_part *copy_more(const struct sale_order *order)
{
    struct order_part *copy = NULL;
    if (order->more_count > 0) {
        copy = malloc(order->more_count * sizeof *copy);
        CHECK(copy != NULL);
        memcpy(copy, order->more, order->more_count * sizeof *copy);
    }
    return copy;
}

static struct settling_one begin(struct gate_purchase *purchase)
{
    struct settling_one one = {.purchase = purchase,
                               .asked = purchase->purchase.order,
                               .position = purchase->purchase.position,
                               .is_in_doubt = purchase->purchase.state == PURCHASE_ASKED,
                               .finding = GATE_STORE_UNREADABLE, /* until it is known better */
                               .more = copy_more(&purchase->purchase.order)};
    one.asked.more = NULL;
    one.asked.key = NULL;
    return one;
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
        settling->each[settling->count++] = begin(purchase);
    }
    if (!work_submit(api->pool, WORK_SETTLE, settle_work_cb, settle_done_cb, settling)) {
        settling_free(settling);
        return false;
    }
    settling->next = api->settlings;
    api->settlings = settling;
    return true;
}
