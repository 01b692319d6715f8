/* A worker's tills: one for each product that is wanted now, with its lock. A worker's loop thread. Owns the tills, their leases and a timer, and
 * the tickets that are blocked, runnable or crowded out.
 *
 * A till:
 *                  +------------------- nobody waits any more -------------------+
 *                  v                                                             |
 *   IDLE --somebody is blocked--> WANTING --rested, a majority, room--> ASKING --+--acquired--> HELD
 *    ^                              ^  ^                                  |                      |
 *    |                              |  +---- not acquired: rests ---------+                      |
 *    +-- nobody is blocked ---------+--------- released (no reference left), or lost ------------+
 *
 * A ticket:
 *   placed --> BLOCKED at the first of its tills that is not open, with references to those before it --acquired--> … --> RUNNABLE --> in a batch
 *
 * Tills are taken by rising product id, so that two carts, of whatever workers, never wait for each other in a circle. Whoever waits keeps what it
 * has; but when the lock waited for could not be had in a whole acquisition, the till is *out of reach* until it can: who waits there does so with
 * nothing in hand, and is placed anew when the lock was had. So one product that is out of reach does not stop others.
 *
 * A tenure of a till ends when its last reference is given back: then the lock is released at once. Whoever wants it and cannot have it says so to
 * all (redlock.c). So that such a one gets in, no new references are given after TENURE_US (but for the first batch, whatever that has to wait for)
 * or after TENURE_REFERENCES; and this worker does not ask for the lock again before a rest is over, in which the waiter elsewhere, woken by the
 * release, is first. If nobody else wants it, there is neither an end nor a rest.
 *
 * A lock that is lost makes its references void (they name the tenure); who has one is placed anew before it runs. The batch that is under way is let
 * finish: the store decides, the lock only keeps order.
 *
 * Failures: without a majority nothing is asked for; tickets wait for their deadline. Bounded: ASKING_MAX acquisitions at once, TILLS_MAX tills; who
 * finds no till is crowded out and tries again each turn, with no references in hand. */
#include "redlock_till.h"

#include "doorbuster/check.h"
#include "doorbuster/clock.h"
#include "doorbuster/metrics.h"
#include "doorbuster/text.h"

#include <stdlib.h>

#define BUCKETS 4096
#define TILLS_MAX 8192
#define TILLS_KEPT 1024      /* beyond, the one that was idle for longest is removed */
#define ASKING_MAX 128       /* redlock_nodes.c has room for more */
#define TENURE_US 10000      /* if others want the lock */
#define TENURE_MAX_US 100000 /* if nobody has said so: the news may have been lost */
#define TENURE_REFERENCES (4 * GATE_BATCH_MAX)
#define REST_US 2000
#define RETRY_REST_US 1000     /* after an acquisition that failed; it has backed off itself */
#define ACQUIRE_MAX_US 1000000 /* for so long somebody may keep other tills while waiting for one */
#define LEFT_MIN_US_MAX 100000 /* a batch is not begun with less validity: this, or a tenth of a short TTL */

enum till_state { TILL_IDLE, TILL_WANTING, TILL_ASKING, TILL_HELD, TILL_STATES };
static const bool may_move[TILL_STATES][TILL_STATES] = {
    [TILL_IDLE] = {[TILL_WANTING] = true},
    [TILL_WANTING] = {[TILL_ASKING] = true, [TILL_IDLE] = true},
    [TILL_ASKING] = {[TILL_HELD] = true, [TILL_WANTING] = true, [TILL_IDLE] = true},
    [TILL_HELD] = {[TILL_WANTING] = true, [TILL_IDLE] = true},
};

struct till {
    struct tills *tills;
    int64_t product_id;
    struct redlock_lease *lease;
    enum till_state state;
    struct till *next, *previous; /* of its state */
    struct till *next_in_bucket;
    struct ticket_list blocked;
    int64_t rest_until_us;
    bool is_out_of_reach; /* the last acquisition failed */
    int64_t wanted_us;    /* WANTING, ASKING: since when, however many acquisitions have failed */
    /* HELD */
    uint64_t tenure; /* no other tenure of any till has the number */
    int64_t held_us;
    size_t references, given; /* out now; given in this tenure */
    bool is_served;           /* a batch was done */
};

struct till_list {
    struct till *first, *last;
    size_t count;
};

struct tills {
    struct redlock *redlock;
    uv_loop_t *loop;
    uv_timer_t rest_timer; /* only so that the loop turns */
    int64_t extend_below_us, left_min_us, retry_rest_us;
    uint64_t last_tenure;
    size_t count;
    struct till_list by_state[TILL_STATES];
    struct ticket_list runnable, crowded;
    struct till *buckets[BUCKETS];
};

/* --- tickets ------------------------------------------------------------------------------------------------------------------ */
struct ticket *ticket_new(struct gate_purchase *purchase)
{
    struct ticket *ticket = calloc(1, sizeof *ticket);
    CHECK(ticket != NULL);
    ticket->purchase = purchase;
    ticket->tills = &ticket->only;
    return ticket;
}

static void free_till_room(struct ticket *ticket)
{
    if (ticket->tills != &ticket->only) {
        free(ticket->tills);
    }
    ticket->tills = &ticket->only;
}

void ticket_free(struct ticket **ticket)
{
    CHECK((*ticket)->taken == 0);
    free_till_room(*ticket);
    free(*ticket);
    *ticket = NULL;
}

static int by_number(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

void ticket_set_tills(struct ticket *ticket, int64_t *product_ids, size_t count)
{
    CHECK(ticket->taken == 0 && count > 0);
    free_till_room(ticket);
    if (count > 1) {
        qsort(product_ids, count, sizeof *product_ids, by_number);
        ticket->tills = calloc(count, sizeof *ticket->tills);
        CHECK(ticket->tills != NULL);
    }
    ticket->till_count = 0;
    for (size_t i = 0; i < count; i++) {
        if (i == 0 || product_ids[i] != product_ids[i - 1]) {
            ticket->tills[ticket->till_count++] = (struct ticket_till){.product_id = product_ids[i]};
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

/* In no order: thousands may expire at once, of many tills, and finding each its place would stop the loop. */
static void append(struct ticket_list *list, struct ticket *ticket)
{
    insert_behind(list, ticket, list->last);
}

static void remove_ticket(struct ticket_list *list, struct ticket *ticket)
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
        remove_ticket(list, first);
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
static void list_till(struct till *till)
{
    struct till_list *list = &till->tills->by_state[till->state];
    till->next = NULL;
    till->previous = list->last;
    *(list->last != NULL ? &list->last->next : &list->first) = till;
    list->last = till;
    list->count++;
}

static void unlist_till(struct till *till)
{
    struct till_list *list = &till->tills->by_state[till->state];
    *(till->previous != NULL ? &till->previous->next : &list->first) = till->next;
    *(till->next != NULL ? &till->next->previous : &list->last) = till->previous;
    list->count--;
}

static void till_move(struct till *till, enum till_state state)
{
    CHECK(may_move[till->state][state]);
    unlist_till(till);
    if (state == TILL_WANTING && till->state != TILL_ASKING) {
        till->wanted_us = clock_monotonic_us();
    }
    till->state = state;
    list_till(till);
    CHECK((till->references == 0) || state == TILL_HELD);
    CHECK((till->blocked.count > 0) || state == TILL_IDLE || state == TILL_HELD);
}

/* --- tills -------------------------------------------------------------------------------------------------------------------- */
static void lease_cb(struct redlock_lease *lease, enum redlock_event event, void *context);

static struct till **bucket_of(struct tills *tills, int64_t product_id)
{
    return &tills->buckets[(uint64_t)product_id % BUCKETS];
}

static struct till *find_till(const struct tills *tills, int64_t product_id)
{
    struct till *till = tills->buckets[(uint64_t)product_id % BUCKETS];
    while (till != NULL && till->product_id != product_id) {
        till = till->next_in_bucket;
    }
    return till;
}

static void remove_till(struct till *till)
{
    struct till **at = bucket_of(till->tills, till->product_id);
    CHECK(till->state == TILL_IDLE && till->blocked.count == 0);
    while (*at != till) {
        at = &(*at)->next_in_bucket;
    }
    *at = till->next_in_bucket;
    unlist_till(till);
    till->tills->count--;
    redlock_lease_free(&till->lease);
    free(till);
}

/* NULL: there are too many. */
static struct till *find_or_make_till(struct tills *tills, int64_t product_id)
{
    struct till *till = find_till(tills, product_id);
    char resource[TEXT_INT64_BYTES];
    if (till != NULL) {
        return till;
    }
    if (tills->count >= TILLS_KEPT && tills->by_state[TILL_IDLE].first != NULL) {
        remove_till(tills->by_state[TILL_IDLE].first);
    }
    if (tills->count >= TILLS_MAX) {
        return NULL;
    }
    till = calloc(1, sizeof *till);
    CHECK(till != NULL);
    till->tills = tills;
    till->product_id = product_id;
    text_from_int64(product_id, resource);
    till->lease = redlock_lease_new(tills->redlock, resource, lease_cb, till);
    till->next_in_bucket = *bucket_of(tills, product_id);
    *bucket_of(tills, product_id) = till;
    list_till(till);
    tills->count++;
    return till;
}

static bool is_open(const struct till *till)
{
    return till->state == TILL_HELD && till->given < TENURE_REFERENCES &&
           (!till->is_served || clock_monotonic_us() - till->held_us <
                                    (redlock_is_wanted(till->lease) ? TENURE_US : TENURE_MAX_US));
}

bool tills_is_open(const struct tills *tills, int64_t product_id)
{
    const struct till *till = find_till(tills, product_id);
    return till != NULL && is_open(till);
}

/* The lock is not ours any more, or not asked for. */
static void let_rest(struct till *till, int64_t rest_us)
{
    till->references = 0;
    till->tenure = 0;
    till->rest_until_us = clock_monotonic_us() + rest_us;
    till_move(till, till->blocked.count > 0 ? TILL_WANTING : TILL_IDLE);
}

static void give_back(struct till *till)
{
    CHECK(till->references > 0);
    if (--till->references == 0) {
        int64_t rest_us = redlock_is_wanted(till->lease) ? REST_US : 0;
        redlock_release(till->lease);
        let_rest(till, rest_us);
    }
}

/* NULL: void. */
static struct till *till_of(const struct tills *tills, const struct ticket_till *reference)
{
    struct till *till = find_till(tills, reference->product_id);
    return till != NULL && till->state == TILL_HELD && till->tenure == reference->tenure ? till : NULL;
}

void tills_leave(struct tills *tills, struct ticket *ticket, bool is_served)
{
    size_t taken = ticket->taken;
    ticket->taken = 0;
    for (size_t i = 0; i < taken; i++) {
        struct till *till = till_of(tills, &ticket->tills[i]);
        if (till != NULL) {
            till->is_served = till->is_served || is_served;
            give_back(till);
        }
    }
}

/* --- placing ------------------------------------------------------------------------------------------------------------------ */
static bool has_void_reference(const struct tills *tills, const struct ticket *ticket)
{
    for (size_t i = 0; i < ticket->taken; i++) {
        if (till_of(tills, &ticket->tills[i]) == NULL) {
            return true;
        }
    }
    return false;
}

static void block(struct till *till, struct ticket *ticket)
{
    ticket_list_insert(&till->blocked, ticket);
    if (till->state == TILL_IDLE) {
        till_move(till, TILL_WANTING);
    }
}

/* Goes on from the references it has, if these are good. */
static void place_on(struct tills *tills, struct ticket *ticket)
{
    if (has_void_reference(tills, ticket)) {
        tills_leave(tills, ticket, false);
    }
    while (ticket->taken < ticket->till_count) {
        struct ticket_till *wanted = &ticket->tills[ticket->taken];
        struct till *till = find_or_make_till(tills, wanted->product_id);
        if (till == NULL) {
            tills_leave(tills, ticket, false);
            ticket_list_insert(&tills->crowded, ticket);
            return;
        }
        if (!is_open(till)) {
            if (till->is_out_of_reach) {
                tills_leave(tills, ticket, false);
            }
            block(till, ticket);
            return;
        }
        till->references++;
        till->given++;
        wanted->tenure = till->tenure;
        ticket->taken++;
    }
    ticket_list_insert(&tills->runnable, ticket);
}

void tills_place(struct tills *tills, struct ticket *ticket)
{
    CHECK(ticket->taken == 0 && ticket->till_count > 0);
    place_on(tills, ticket);
}

/* --- running ------------------------------------------------------------------------------------------------------------------ */
static int64_t least_left_us(const struct tills *tills, const struct ticket *ticket)
{
    int64_t least_us = INT64_MAX;
    for (size_t i = 0; i < ticket->taken; i++) {
        int64_t left_us = redlock_left_us(till_of(tills, &ticket->tills[i])->lease);
        least_us = left_us < least_us ? left_us : least_us;
    }
    return least_us;
}

struct ticket *tills_take_runnable(struct tills *tills, size_t lines_max)
{
    struct ticket *ticket = tills->runnable.first;
    while (ticket != NULL) {
        if (has_void_reference(tills, ticket)) {
            remove_ticket(&tills->runnable, ticket);
            place_on(tills, ticket);
            ticket = tills->runnable.first; /* it may be here again, anywhere */
        } else if (least_left_us(tills, ticket) < tills->left_min_us) {
            ticket = ticket->next; /* extended, or lost, before long */
        } else if (order_part_count(&ticket->purchase->purchase.order) > lines_max) {
            return NULL; /* nobody overtakes it */
        } else {
            remove_ticket(&tills->runnable, ticket);
            return ticket;
        }
    }
    return NULL;
}

/* --- locks -------------------------------------------------------------------------------------------------------------------- */
static void begin_tenure(struct till *till)
{
    struct tills *tills = till->tills;
    till->tenure = ++tills->last_tenure;
    till->held_us = clock_monotonic_us();
    metrics_observe(METRICS_HISTOGRAM_lock_wait_us, (uint64_t)(till->held_us - till->wanted_us));
    till->references = 1; /* our own: nobody's leaving is to end it yet */
    till->given = 0;
    till->is_served = till->is_out_of_reach = false;
    till_move(till, TILL_HELD);
    while (till->blocked.first != NULL && is_open(till)) {
        place_on(tills, ticket_list_take(&till->blocked));
    }
    give_back(till);
}

/* Whoever waits here lets go of what it has, and waits on with nothing in hand. */
static void give_way(struct till *till)
{
    till->is_out_of_reach = true;
    for (struct ticket *ticket = till->blocked.first; ticket != NULL; ticket = ticket->next) {
        tills_leave(till->tills, ticket, false);
    }
}

static void lease_cb(struct redlock_lease *lease, enum redlock_event event, void *context)
{
    struct till *till = context;
    (void)lease;
    switch (event) {
    case REDLOCK_ACQUIRED:
        begin_tenure(till);
        break;
    case REDLOCK_NOT_ACQUIRED:
        let_rest(till, till->tills->retry_rest_us);
        give_way(till);
        break;
    case REDLOCK_LOST:
        let_rest(till, REST_US);
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

static void place_crowded(struct tills *tills)
{
    struct ticket_list crowded = tills->crowded;
    struct ticket *ticket;
    if (tills->count >= TILLS_MAX && tills->by_state[TILL_IDLE].first == NULL) {
        return;
    }
    tills->crowded = (struct ticket_list){0};
    while ((ticket = ticket_list_take(&crowded)) != NULL) {
        place_on(tills, ticket);
    }
}

void tills_turn(struct tills *tills)
{
    int64_t now_us = clock_monotonic_us(), next_us = INT64_MAX;
    struct till *next;
    place_crowded(tills);
    if (!redlock_is_ready(tills->redlock)) {
        return;
    }
    for (struct till *till = tills->by_state[TILL_WANTING].first; till != NULL; till = next) {
        next = till->next;
        if (till->rest_until_us > now_us) {
            next_us = till->rest_until_us < next_us ? till->rest_until_us : next_us;
        } else if (tills->by_state[TILL_ASKING].count < ASKING_MAX) {
            till_move(till, TILL_ASKING);
            redlock_acquire(till->lease, now_us + ACQUIRE_MAX_US);
        }
    }
    if (next_us != INT64_MAX) {
        uv_timer_start(&tills->rest_timer, rest_over_cb, (uint64_t)clock_left_ms(next_us), 0);
    }
}

void tills_tick(struct tills *tills)
{
    for (struct till *till = tills->by_state[TILL_HELD].first; till != NULL; till = till->next) {
        if (redlock_left_us(till->lease) < tills->extend_below_us) {
            redlock_extend(till->lease);
        }
    }
}

/* --- deadlines ---------------------------------------------------------------------------------------------------------------- */
static void end_vain_asking(struct tills *tills, enum till_state state)
{
    struct till *next;
    for (struct till *till = tills->by_state[state].first; till != NULL; till = next) {
        next = till->next;
        if (till->blocked.count == 0) {
            redlock_release(till->lease);
            till_move(till, TILL_IDLE);
        }
    }
}

void tills_take_expired(struct tills *tills, int64_t until_us, struct ticket_list *expired)
{
    struct ticket_list found = {0};
    struct ticket *ticket;
    ticket_list_take_expired(&tills->runnable, until_us, &found);
    ticket_list_take_expired(&tills->crowded, until_us, &found);
    for (int state = TILL_WANTING; state < TILL_STATES; state++) {
        for (struct till *till = tills->by_state[state].first; till != NULL; till = till->next) {
            ticket_list_take_expired(&till->blocked, until_us, &found);
        }
    }
    end_vain_asking(tills, TILL_WANTING);
    end_vain_asking(tills, TILL_ASKING);
    while ((ticket = ticket_list_take(&found)) != NULL) {
        tills_leave(tills, ticket, false);
        append(expired, ticket);
    }
}

/* --- open and close ------------------------------------------------------------------------------------------------------------ */
struct tills *tills_open(struct redlock *redlock, uv_loop_t *loop, const struct gate_place *place)
{
    int ttl_ms = place->lock_ttl_ms;
    struct tills *tills = calloc(1, sizeof *tills);
    CHECK(tills != NULL);
    tills->redlock = redlock;
    tills->loop = loop;
    tills->extend_below_us = (int64_t)ttl_ms * 1000 / 3;
    tills->left_min_us = (int64_t)ttl_ms * 100 < LEFT_MIN_US_MAX ? (int64_t)ttl_ms * 100 : LEFT_MIN_US_MAX;
    /* A single attempt has no backoff, so the rest is one. */
    tills->retry_rest_us =
        place->lock_attempts > 1 ? RETRY_REST_US : RETRY_REST_US + (int64_t)place->lock_retry_delay_ms * 1000;
    uv_timer_init(loop, &tills->rest_timer);
    tills->rest_timer.data = tills;
    return tills;
}

static void free_tills_cb(uv_handle_t *handle)
{
    free(handle->data);
}

void tills_close(struct tills **tills_pointer)
{
    struct tills *tills = *tills_pointer;
    *tills_pointer = NULL;
    CHECK(tills->runnable.count == 0 && tills->crowded.count == 0);
    while (tills->by_state[TILL_IDLE].first != NULL) {
        remove_till(tills->by_state[TILL_IDLE].first);
    }
    CHECK(tills->count == 0);
    uv_close((uv_handle_t *)&tills->rest_timer, free_tills_cb);
}
