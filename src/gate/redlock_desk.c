/* A worker's desks: one for each product that is wanted now, with its lock. A worker's loop thread. Owns the desks, their leases and two timers, and
 * the tickets that are blocked, runnable or crowded out.
 *
 * A desk:
 *                  +------------------- nobody waits any more -------------------+
 *                  v                                                             |
 *   IDLE --somebody is blocked--> WANTING --rested, a majority, room--> ASKING --+--acquired--> HELD
 *    ^                              ^  ^                                  |                      |
 *    |                              |  +---- not acquired: rests ---------+                      |
 *    +-- nobody is blocked ---------+--------- released (no reference left), or lost ------------+
 *
 * A ticket:
 *   placed --> BLOCKED at the first of its desks that is not open, with references to those before it --acquired--> … --> RUNNABLE --> in a batch
 *
 * Desks are taken by rising product id, so that two carts, of whatever workers, never wait for each other in a circle. Whoever waits keeps what it
 * has; but when the lock waited for could not be had in a whole acquisition, the desk is *out of reach* until it can: who waits there does so with
 * nothing in hand, and is placed anew when the lock was had. So one product that is out of reach does not stop others.
 *
 * A tenure of a desk ends when its last reference is given back: then the lock is released at once. So that other workers get in, no new references
 * are given after TENURE_US (but for the first batch, whatever that has to wait for) or after TENURE_REFERENCES; and between two tenures that this
 * worker wants itself there is a rest, in which a waiter elsewhere, woken by the release, is first.
 *
 * A lock that is lost makes its references void (they name the tenure); who has one is placed anew before it runs. The batch that is under way is let
 * finish: the store decides, the lock only keeps order.
 *
 * Failures: without a majority nothing is asked for; tickets wait for their deadline. Bounded: ASKING_MAX acquisitions at once, DESKS_MAX desks; who
 * finds no desk is crowded out and tries again each turn, with no references in hand. */
#include "redlock_desk.h"

#include "doorbuster/check.h"
#include "doorbuster/clock.h"
#include "doorbuster/metrics.h"
#include "doorbuster/text.h"

#include <stdlib.h>

#define BUCKETS 4096
#define DESKS_MAX 8192
#define DESKS_KEPT 1024 /* beyond, the one that was idle for longest is removed */
#define ASKING_MAX 128  /* redlock_nodes.c has room for more */
#define TENURE_US 20000
#define TENURE_REFERENCES (4 * GATE_BATCH_MAX)
#define REST_US 2000
#define RETRY_REST_US 1000     /* after an acquisition that failed; it has backed off itself */
#define ACQUIRE_MAX_US 1000000 /* for so long somebody may keep other desks while waiting for one */
#define LEFT_MIN_US_MAX 100000 /* a batch is not begun with less validity: this, or a tenth of a short TTL */

enum desk_state { DESK_IDLE, DESK_WANTING, DESK_ASKING, DESK_HELD, DESK_STATES };
static const bool may_move[DESK_STATES][DESK_STATES] = {
    [DESK_IDLE] = {[DESK_WANTING] = true},
    [DESK_WANTING] = {[DESK_ASKING] = true, [DESK_IDLE] = true},
    [DESK_ASKING] = {[DESK_HELD] = true, [DESK_WANTING] = true, [DESK_IDLE] = true},
    [DESK_HELD] = {[DESK_WANTING] = true, [DESK_IDLE] = true},
};

struct desk {
    struct desks *desks;
    int64_t product_id;
    struct redlock_lease *lease;
    enum desk_state state;
    struct desk *next, *previous; /* of its state */
    struct desk *next_in_bucket;
    struct ticket_list blocked;
    int64_t rest_until_us;
    bool is_out_of_reach; /* the last acquisition failed */
    int64_t wanted_us;    /* WANTING, ASKING: since when, however many acquisitions have failed */
    /* HELD */
    uint64_t tenure; /* no other tenure of any desk has the number */
    int64_t held_us;
    size_t references, given; /* out now; given in this tenure */
    bool is_served;           /* a batch was done */
};

struct desk_list {
    struct desk *first, *last;
    size_t count;
};

struct desks {
    struct redlock *redlock;
    uv_loop_t *loop;
    uv_timer_t rest_timer; /* only so that the loop turns */
    int64_t extend_below_us, left_min_us, retry_rest_us;
    uint64_t last_tenure;
    size_t count;
    struct desk_list by_state[DESK_STATES];
    struct ticket_list runnable, crowded;
    struct desk *buckets[BUCKETS];
};

/* --- tickets ------------------------------------------------------------------------------------------------------------------ */
struct ticket *ticket_new(struct gate_purchase *purchase)
{
    struct ticket *ticket = calloc(1, sizeof *ticket);
    CHECK(ticket != NULL);
    ticket->purchase = purchase;
    ticket->desks = &ticket->only;
    return ticket;
}

static void free_desk_room(struct ticket *ticket)
{
    if (ticket->desks != &ticket->only) {
        free(ticket->desks);
    }
    ticket->desks = &ticket->only;
}

void ticket_free(struct ticket **ticket)
{
    CHECK((*ticket)->taken == 0);
    free_desk_room(*ticket);
    free(*ticket);
    *ticket = NULL;
}

static int by_number(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

void ticket_set_desks(struct ticket *ticket, int64_t *product_ids, size_t count)
{
    CHECK(ticket->taken == 0 && count > 0);
    free_desk_room(ticket);
    if (count > 1) {
        qsort(product_ids, count, sizeof *product_ids, by_number);
        ticket->desks = calloc(count, sizeof *ticket->desks);
        CHECK(ticket->desks != NULL);
    }
    ticket->desk_count = 0;
    for (size_t i = 0; i < count; i++) {
        if (i == 0 || product_ids[i] != product_ids[i - 1]) {
            ticket->desks[ticket->desk_count++] = (struct ticket_desk){.product_id = product_ids[i]};
        }
    }
}

/* Requests are numbered in the order in which they come. */
static bool came_before(const struct ticket *a, const struct ticket *b)
{
    return a->purchase->purchase.order.request < b->purchase->purchase.order.request;
}

/* Behind whom? From both ends at once: nearly all belong at the end, and those that come back at the front. */
static struct ticket *predecessor(const struct ticket_list *list, const struct ticket *ticket)
{
    struct ticket *late = list->last, *early = list->first;
    while (late != NULL) {
        if (came_before(late, ticket)) {
            return late;
        }
        if (came_before(ticket, early)) {
            return early->previous;
        }
        late = late->previous;
        early = early->next;
    }
    return NULL;
}

static void insert_behind(struct ticket_list *list, struct ticket *ticket, struct ticket *previous)
{
    ticket->previous = previous;
    ticket->next = ticket->previous != NULL ? ticket->previous->next : list->first;
    *(ticket->previous != NULL ? &ticket->previous->next : &list->first) = ticket;
    *(ticket->next != NULL ? &ticket->next->previous : &list->last) = ticket;
    list->count++;
}

void ticket_list_insert(struct ticket_list *list, struct ticket *ticket)
{
    insert_behind(list, ticket, predecessor(list, ticket));
}

/* In no order: thousands may expire at once, of many desks, and finding each its place would stop the loop. */
static void append(struct ticket_list *list, struct ticket *ticket)
{
    insert_behind(list, ticket, list->last);
}

void ticket_list_remove(struct ticket_list *list, struct ticket *ticket)
{
    *(ticket->previous != NULL ? &ticket->previous->next : &list->first) = ticket->next;
    *(ticket->next != NULL ? &ticket->next->previous : &list->last) = ticket->previous;
    ticket->next = ticket->previous = NULL;
    list->count--;
}

struct ticket *ticket_list_take(struct ticket_list *list)
{
    struct ticket *first = list->first;
    if (first != NULL) {
        ticket_list_remove(list, first);
    }
    return first;
}

void ticket_list_take_expired(struct ticket_list *list, int64_t until_us, struct ticket_list *expired)
{
    while (list->first != NULL && list->first->purchase->deadline_us <= until_us) {
        append(expired, ticket_list_take(list));
    }
}

/* --- states ------------------------------------------------------------------------------------------------------------------- */
static void list_desk(struct desk *desk)
{
    struct desk_list *list = &desk->desks->by_state[desk->state];
    desk->next = NULL;
    desk->previous = list->last;
    *(list->last != NULL ? &list->last->next : &list->first) = desk;
    list->last = desk;
    list->count++;
}

static void unlist_desk(struct desk *desk)
{
    struct desk_list *list = &desk->desks->by_state[desk->state];
    *(desk->previous != NULL ? &desk->previous->next : &list->first) = desk->next;
    *(desk->next != NULL ? &desk->next->previous : &list->last) = desk->previous;
    list->count--;
}

static void desk_move(struct desk *desk, enum desk_state state)
{
    CHECK(may_move[desk->state][state]);
    unlist_desk(desk);
    if (state == DESK_WANTING && desk->state != DESK_ASKING) {
        desk->wanted_us = clock_monotonic_us();
    }
    desk->state = state;
    list_desk(desk);
    CHECK((desk->references == 0) || state == DESK_HELD);
    CHECK((desk->blocked.count > 0) || state == DESK_IDLE || state == DESK_HELD);
}

/* --- desks -------------------------------------------------------------------------------------------------------------------- */
static void lease_cb(struct redlock_lease *lease, enum redlock_event event, void *context);

static struct desk **bucket_of(struct desks *desks, int64_t product_id)
{
    return &desks->buckets[(uint64_t)product_id % BUCKETS];
}

static struct desk *find_desk(const struct desks *desks, int64_t product_id)
{
    struct desk *desk = desks->buckets[(uint64_t)product_id % BUCKETS];
    while (desk != NULL && desk->product_id != product_id) {
        desk = desk->next_in_bucket;
    }
    return desk;
}

static void remove_desk(struct desk *desk)
{
    struct desk **at = bucket_of(desk->desks, desk->product_id);
    CHECK(desk->state == DESK_IDLE && desk->blocked.count == 0);
    while (*at != desk) {
        at = &(*at)->next_in_bucket;
    }
    *at = desk->next_in_bucket;
    unlist_desk(desk);
    desk->desks->count--;
    redlock_lease_free(&desk->lease);
    free(desk);
}

/* NULL: there are too many. */
static struct desk *find_or_make_desk(struct desks *desks, int64_t product_id)
{
    struct desk *desk = find_desk(desks, product_id);
    char resource[TEXT_INT64_BYTES];
    if (desk != NULL) {
        return desk;
    }
    if (desks->count >= DESKS_KEPT && desks->by_state[DESK_IDLE].first != NULL) {
        remove_desk(desks->by_state[DESK_IDLE].first);
    }
    if (desks->count >= DESKS_MAX) {
        return NULL;
    }
    desk = calloc(1, sizeof *desk);
    CHECK(desk != NULL);
    desk->desks = desks;
    desk->product_id = product_id;
    text_from_int64(product_id, resource);
    desk->lease = redlock_lease_new(desks->redlock, resource, lease_cb, desk);
    desk->next_in_bucket = *bucket_of(desks, product_id);
    *bucket_of(desks, product_id) = desk;
    list_desk(desk);
    desks->count++;
    return desk;
}

static bool is_open(const struct desk *desk)
{
    return desk->state == DESK_HELD && desk->given < TENURE_REFERENCES &&
           (!desk->is_served || clock_monotonic_us() - desk->held_us < TENURE_US);
}

bool desks_is_open(const struct desks *desks, int64_t product_id)
{
    const struct desk *desk = find_desk(desks, product_id);
    return desk != NULL && is_open(desk);
}

/* The lock is not ours any more, or not asked for. */
static void let_rest(struct desk *desk, int64_t rest_us)
{
    desk->references = 0;
    desk->tenure = 0;
    bool is_wanted = desk->blocked.count > 0;
    desk->rest_until_us = is_wanted ? clock_monotonic_us() + rest_us : 0;
    desk_move(desk, is_wanted ? DESK_WANTING : DESK_IDLE);
}

static void give_back(struct desk *desk)
{
    CHECK(desk->references > 0);
    if (--desk->references == 0) {
        redlock_release(desk->lease);
        let_rest(desk, REST_US);
    }
}

/* NULL: void. */
static struct desk *desk_of(const struct desks *desks, const struct ticket_desk *reference)
{
    struct desk *desk = find_desk(desks, reference->product_id);
    return desk != NULL && desk->state == DESK_HELD && desk->tenure == reference->tenure ? desk : NULL;
}

void desks_leave(struct desks *desks, struct ticket *ticket, bool is_served)
{
    size_t taken = ticket->taken;
    ticket->taken = 0;
    for (size_t i = 0; i < taken; i++) {
        struct desk *desk = desk_of(desks, &ticket->desks[i]);
        if (desk != NULL) {
            desk->is_served = desk->is_served || is_served;
            give_back(desk);
        }
    }
}

/* --- placing ------------------------------------------------------------------------------------------------------------------ */
static bool has_void_reference(const struct desks *desks, const struct ticket *ticket)
{
    for (size_t i = 0; i < ticket->taken; i++) {
        if (desk_of(desks, &ticket->desks[i]) == NULL) {
            return true;
        }
    }
    return false;
}

static void block(struct desk *desk, struct ticket *ticket)
{
    ticket_list_insert(&desk->blocked, ticket);
    if (desk->state == DESK_IDLE) {
        desk_move(desk, DESK_WANTING);
    }
}

/* Goes on from the references it has, if these are good. */
static void place_on(struct desks *desks, struct ticket *ticket)
{
    if (has_void_reference(desks, ticket)) {
        desks_leave(desks, ticket, false);
    }
    while (ticket->taken < ticket->desk_count) {
        struct ticket_desk *wanted = &ticket->desks[ticket->taken];
        struct desk *desk = find_or_make_desk(desks, wanted->product_id);
        if (desk == NULL) {
            desks_leave(desks, ticket, false);
            ticket_list_insert(&desks->crowded, ticket);
            return;
        }
        if (!is_open(desk)) {
            if (desk->is_out_of_reach) {
                desks_leave(desks, ticket, false);
            }
            block(desk, ticket);
            return;
        }
        desk->references++;
        desk->given++;
        wanted->tenure = desk->tenure;
        ticket->taken++;
    }
    ticket_list_insert(&desks->runnable, ticket);
}

void desks_place(struct desks *desks, struct ticket *ticket)
{
    CHECK(ticket->taken == 0 && ticket->desk_count > 0);
    place_on(desks, ticket);
}

/* --- running ------------------------------------------------------------------------------------------------------------------ */
static int64_t least_left_us(const struct desks *desks, const struct ticket *ticket)
{
    int64_t least_us = INT64_MAX;
    for (size_t i = 0; i < ticket->taken; i++) {
        int64_t left_us = redlock_left_us(desk_of(desks, &ticket->desks[i])->lease);
        least_us = left_us < least_us ? left_us : least_us;
    }
    return least_us;
}

struct ticket *desks_take_runnable(struct desks *desks, size_t lines_max)
{
    struct ticket *ticket = desks->runnable.first;
    while (ticket != NULL) {
        if (has_void_reference(desks, ticket)) {
            ticket_list_remove(&desks->runnable, ticket);
            place_on(desks, ticket);
            ticket = desks->runnable.first; /* it may be here again, anywhere */
        } else if (least_left_us(desks, ticket) < desks->left_min_us) {
            ticket = ticket->next; /* extended, or lost, before long */
        } else if (order_part_count(&ticket->purchase->purchase.order) > lines_max) {
            return NULL; /* nobody overtakes it */
        } else {
            ticket_list_remove(&desks->runnable, ticket);
            return ticket;
        }
    }
    return NULL;
}

/* --- locks -------------------------------------------------------------------------------------------------------------------- */
static void begin_tenure(struct desk *desk)
{
    struct desks *desks = desk->desks;
    desk->tenure = ++desks->last_tenure;
    desk->held_us = clock_monotonic_us();
    metrics_add_lock_wait((uint64_t)(desk->held_us - desk->wanted_us));
    desk->references = 1; /* our own: nobody's leaving is to end it yet */
    desk->given = 0;
    desk->is_served = desk->is_out_of_reach = false;
    desk_move(desk, DESK_HELD);
    while (desk->blocked.first != NULL && is_open(desk)) {
        place_on(desks, ticket_list_take(&desk->blocked));
    }
    give_back(desk);
}

/* Whoever waits here lets go of what it has, and waits on with nothing in hand. */
static void give_way(struct desk *desk)
{
    desk->is_out_of_reach = true;
    for (struct ticket *ticket = desk->blocked.first; ticket != NULL; ticket = ticket->next) {
        desks_leave(desk->desks, ticket, false);
    }
}

static void lease_cb(struct redlock_lease *lease, enum redlock_event event, void *context)
{
    struct desk *desk = context;
    (void)lease;
    switch (event) {
    case REDLOCK_ACQUIRED:
        begin_tenure(desk);
        break;
    case REDLOCK_NOT_ACQUIRED:
        let_rest(desk, desk->desks->retry_rest_us);
        give_way(desk);
        break;
    case REDLOCK_LOST:
        let_rest(desk, REST_US);
        break;
    case REDLOCK_EXTENDED:
    case REDLOCK_NOT_EXTENDED: /* held to the old end */
        break;
    }
}

static void rest_over_cb(uv_timer_t *timer)
{
    (void)timer;
}

static void place_crowded(struct desks *desks)
{
    struct ticket_list crowded = desks->crowded;
    struct ticket *ticket;
    if (desks->count >= DESKS_MAX && desks->by_state[DESK_IDLE].first == NULL) {
        return;
    }
    desks->crowded = (struct ticket_list){0};
    while ((ticket = ticket_list_take(&crowded)) != NULL) {
        place_on(desks, ticket);
    }
}

void desks_turn(struct desks *desks)
{
    int64_t now_us = clock_monotonic_us(), next_us = INT64_MAX;
    struct desk *next;
    place_crowded(desks);
    if (!redlock_is_ready(desks->redlock)) {
        return;
    }
    for (struct desk *desk = desks->by_state[DESK_WANTING].first; desk != NULL; desk = next) {
        next = desk->next;
        if (desk->rest_until_us > now_us) {
            next_us = desk->rest_until_us < next_us ? desk->rest_until_us : next_us;
        } else if (desks->by_state[DESK_ASKING].count < ASKING_MAX) {
            desk_move(desk, DESK_ASKING);
            redlock_acquire(desk->lease, now_us + ACQUIRE_MAX_US);
        }
    }
    if (next_us != INT64_MAX) {
        uv_timer_start(&desks->rest_timer, rest_over_cb, (uint64_t)clock_left_ms(next_us), 0);
    }
}

void desks_tick(struct desks *desks)
{
    for (struct desk *desk = desks->by_state[DESK_HELD].first; desk != NULL; desk = desk->next) {
        if (redlock_left_us(desk->lease) < desks->extend_below_us) {
            redlock_extend(desk->lease);
        }
    }
}

/* --- deadlines ---------------------------------------------------------------------------------------------------------------- */
static void end_vain_asking(struct desks *desks, enum desk_state state)
{
    struct desk *next;
    for (struct desk *desk = desks->by_state[state].first; desk != NULL; desk = next) {
        next = desk->next;
        if (desk->blocked.count == 0) {
            redlock_release(desk->lease);
            desk_move(desk, DESK_IDLE);
        }
    }
}

void desks_take_expired(struct desks *desks, int64_t until_us, struct ticket_list *expired)
{
    struct ticket_list found = {0};
    struct ticket *ticket;
    ticket_list_take_expired(&desks->runnable, until_us, &found);
    ticket_list_take_expired(&desks->crowded, until_us, &found);
    for (int state = DESK_WANTING; state < DESK_STATES; state++) {
        for (struct desk *desk = desks->by_state[state].first; desk != NULL; desk = desk->next) {
            ticket_list_take_expired(&desk->blocked, until_us, &found);
        }
    }
    end_vain_asking(desks, DESK_WANTING);
    end_vain_asking(desks, DESK_ASKING);
    while ((ticket = ticket_list_take(&found)) != NULL) {
        desks_leave(desks, ticket, false);
        append(expired, ticket);
    }
}

/* --- open and close ------------------------------------------------------------------------------------------------------------ */
struct desks *desks_open(struct redlock *redlock, uv_loop_t *loop, const struct gate_place *place)
{
    int ttl_ms = place->lock_ttl_ms;
    struct desks *desks = calloc(1, sizeof *desks);
    CHECK(desks != NULL);
    desks->redlock = redlock;
    desks->loop = loop;
    desks->extend_below_us = (int64_t)ttl_ms * 1000 / 3;
    desks->left_min_us = (int64_t)ttl_ms * 100 < LEFT_MIN_US_MAX ? (int64_t)ttl_ms * 100 : LEFT_MIN_US_MAX;
    /* A single attempt has no backoff, so the rest is one. */
    desks->retry_rest_us =
        place->lock_attempts > 1 ? RETRY_REST_US : RETRY_REST_US + (int64_t)place->lock_retry_delay_ms * 1000;
    uv_timer_init(loop, &desks->rest_timer);
    desks->rest_timer.data = desks;
    return desks;
}

static void free_desks_cb(uv_handle_t *handle)
{
    free(handle->data);
}

void desks_close(struct desks **desks_pointer)
{
    struct desks *desks = *desks_pointer;
    *desks_pointer = NULL;
    CHECK(desks->runnable.count == 0 && desks->crowded.count == 0);
    while (desks->by_state[DESK_IDLE].first != NULL) {
        remove_desk(desks->by_state[DESK_IDLE].first);
    }
    CHECK(desks->count == 0);
    uv_close((uv_handle_t *)&desks->rest_timer, free_desks_cb);
}
