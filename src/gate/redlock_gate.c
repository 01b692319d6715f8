/* The Redlock gate: the store decides, under locks. A worker's loop thread. Owns the locks (redlock.c), the tills where purchases wait for them
 * (redlock_till.c), the links to the stock on the nodes (redlock_stock.c), what it has learned of the products (redlock_terms.c), and the purchases
 * that are in it, each with a ticket.
 *
 *   submitted --> LEARNING --on which terms?--> LOOKING --perhaps there is enough--> at the TILLS --locked--> in a batch --> CONFIRMED, REFUSED
 *                    |  ^                         |  ^                                |                        |  |
 *                    |  +-- unknown after all     |  +-- nodes say: too little        |                        |  +--the store failed--> IN DOUBT
 *                    v                            v                                   v                        v                           |
 *               not on sale                REFUSED, no lock                   UNAVAILABLE (deadline)  the start again <---- not found -----+
 *
 * Learning: the terms of a product are read from the store off the loop (learn_cb), once; the gate needs to know what a bundle is made of, and when a
 * product is sold. One lesson at a time, for all who wait. What the store does not know is not on sale; but a key may have an order from before, and
 * that is found out as in any purchase with a key: in the store, here under a lock of that name.
 *
 * Terms that may have changed since (a window is closed, and the nodes then name a later position) are learned anew before a refusal rests on them.
 *
 * Looking: when what this worker last saw of a product is less than what is asked for, its lock is worth nothing if there is still too little. So the
 * nodes are asked first; what a majority says last is the answer, for whoever changed the stock and promised something told a majority before. One
 * read at a time, for all who wait. If no majority knows, or there is enough, the purchase goes to the tills, where the store has the last word.
 * Purchases with a key (it may have an order from before), carts and bundles go to the tills at once.
 *
 * Selling: what has the locks of all its products goes, in the order in which it came, into one batch, which the store decides in one transaction off
 * the loop (sell_cb). One batch is under way; what comes meanwhile makes the next one larger. Afterwards the stock that is left is written to the
 * nodes and the locks that nobody needs are released; both go over the same connections, in this order.
 *
 * A lock only keeps order: two workers that believe to have the same one get their turns from the store, which never sells what is not there. So a
 * batch whose lock was lost meanwhile is finished like any other.
 *
 * Failures. FAILED: perhaps it was the COMMIT whose answer was lost; the purchases are looked up in the store by request (settle_cb); found, they
 * are confirmed; not found, they begin again. FENCED: the store is the Lua gate's; nothing was sold, and they are
 * UNAVAILABLE at once. No majority of nodes: they wait at their tills. Whatever cannot be sent on its way by END_US before its deadline is UNAVAILABLE, and so
 * is what the store still has then; therefore a batch is made of copies. */
#include "driver.h"

#include "doorbuster/check.h"
#include "doorbuster/clock.h"
#include "doorbuster/failpoint.h"
#include "doorbuster/log.h"
#include "doorbuster/metrics.h"
#include "redlock_till.h"
#include "redlock_nodes.h"
#include "redlock_stock.h"
#include "redlock_terms.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SWEEP_MS 20
#define EXPIRE_EVERY_US 100000
#define END_US 500000  /* a batch may take so long, and is not begun later than this before a deadline */
#define PAUSE_US 50000 /* after the store failed, or was not ours */
#define COMPLAIN_US 1000000

struct redlock_gate {
    struct gate base;
    struct redlock *redlock;
    struct redlock_stock *stock;
    struct tills *tills;
    struct terms *terms;
    uv_timer_t sweep;
    int64_t next_expire_us, complain_us;
    bool is_closed, is_swept;     /* only what is lent is awaited, and its timer's end */
    struct log_position position; /* the store was there once */
    /* lent to learn_cb, with those that wait for it */
    bool is_learning;
    struct ticket_list to_learn, in_lesson;
    int64_t learn_at_us;
    struct gate_lesson lesson;
    /* the read under way, with those that wait for it */
    struct ticket_list to_look, in_read;
    /* lent to sell_cb */
    bool is_selling;
    int64_t sell_at_us;
    int64_t began_us, batch_us;                  /* when the last one was lent; what one takes, lately */
    struct log_position sold_after;              /* what the batch sells lies behind this */
    struct ticket *sold_tickets[GATE_BATCH_MAX]; /* NULL: answered at its deadline */
    struct gate_batch batch;
    /* What the batch is made of: copies, for a purchase may have to be answered while the store still has it. */
    struct purchase sold_purchases[GATE_BATCH_MAX];
    size_t sold_lines;
    struct order_part sold_more[SALES_LOG_LINES_MAX];
    char sold_keys[GATE_BATCH_MAX][IDEMPOTENCY_KEY_BYTES_MAX];
};

static struct redlock_gate *of(struct gate *gate)
{
    return (struct redlock_gate *)gate;
}

static size_t line_count(const struct ticket *ticket)
{
    return order_part_count(&ticket->purchase->purchase.order); /* asked for, it has no components */
}

static struct order_part line_at(const struct ticket *ticket, size_t i)
{
    return order_part_at(&ticket->purchase->purchase.order, i);
}

static void see_position(struct redlock_gate *gate, struct log_position position)
{
    if (log_position_compare(position, gate->position) > 0) {
        gate->position = position;
    }
}

/* --- answers ------------------------------------------------------------------------------------------------------------------ */
/* The ticket is in no list and has no references; an answer may let the next purchase in. */
static void answer(struct redlock_gate *gate, struct ticket *ticket, enum purchase_state state)
{
    struct gate_purchase *purchase = ticket->purchase;
    ticket_free(&ticket);
    gate_answer(&gate->base, purchase, state);
}

static void refuse(struct redlock_gate *gate, struct ticket *ticket, enum refusal refusal)
{
    ticket->purchase->purchase.refusal = refusal;
    answer(gate, ticket, PURCHASE_REFUSED);
}

static void refuse_unasked(struct redlock_gate *gate, struct ticket *ticket, enum refusal refusal)
{
    purchase_move(&ticket->purchase->purchase, PURCHASE_ASKED);
    refuse(gate, ticket, refusal);
}

static void answer_all_unavailable(struct redlock_gate *gate, struct ticket_list *list)
{
    struct ticket *ticket;
    while ((ticket = ticket_list_take(list)) != NULL) {
        answer(gate, ticket, PURCHASE_UNAVAILABLE);
    }
}

/* Once a second. */
static void complain(struct redlock_gate *gate, const char *what)
{
    int64_t now_us = clock_monotonic_us();
    if (now_us - gate->complain_us >= COMPLAIN_US) {
        gate->complain_us = now_us;
        log_warn("gate: %s", what);
    }
}

/* --- the start ---------------------------------------------------------------------------------------------------------------- */
static bool is_learned(const struct terms_entry *entry)
{
    return entry != NULL && !entry->is_outdated;
}

/* Sets the ticket's tills. False: of some product the terms are not known, and must be. */
static bool plan(struct redlock_gate *gate, struct ticket *ticket)
{
    int64_t product_ids[ORDER_PARTS_MAX];
    size_t count = 0;
    for (size_t i = 0; i < line_count(ticket); i++) {
        int64_t product_id = line_at(ticket, i).product_id;
        const struct terms_entry *entry = terms_find(gate->terms, product_id);
        if (!is_learned(entry) && !ticket->is_unknown) {
            return false;
        }
        size_t components = entry != NULL ? entry->product.component_count : 0;
        if (components == 0) {
            product_ids[count++] = product_id;
        }
        for (size_t j = 0; j < components; j++) {
            product_ids[count++] = entry->product.components[j].product_id;
        }
    }
    ticket_set_tills(ticket, product_ids, count);
    return true;
}

static bool is_inside_window(const struct sale_product *product, int64_t at_ms)
{
    return at_ms >= product->starts_at_ms && (product->ends_at_ms == 0 || at_ms < product->ends_at_ms);
}

/* Is so much too little for the order? Where customers have a limit only nothing is: else it might be the limit that it is refused for. */
static bool is_too_little(const struct sale_product *product, int64_t stock, int64_t quantity)
{
    return product->limit == 0 ? stock < quantity : stock == 0;
}

static bool should_look(struct redlock_gate *gate, const struct ticket *ticket)
{
    const struct sale_order *order = &ticket->purchase->purchase.order;
    const struct terms_entry *entry = terms_find(gate->terms, order->product_id);
    return !ticket->has_looked && order->more_count == 0 && order->key == NULL &&
           entry->product.component_count == 0 &&
           is_too_little(&entry->product, entry->seen_stock, order->quantity) &&
           is_inside_window(&entry->product, clock_wall_ms()) &&
           !tills_is_open(gate->tills, order->product_id);
}

static void begin(struct redlock_gate *gate, struct ticket *ticket)
{
    if (!plan(gate, ticket)) {
        ticket_list_insert(&gate->to_learn, ticket);
    } else if (should_look(gate, ticket)) {
        ticket_list_insert(&gate->to_look, ticket);
    } else {
        gate->base.decisions += !ticket->is_counted;
        ticket->is_counted = true;
        tills_place(gate->tills, ticket);
    }
}

static void begin_all(struct redlock_gate *gate, struct ticket_list *list)
{
    struct ticket *ticket;
    while ((ticket = ticket_list_take(list)) != NULL) {
        begin(gate, ticket);
    }
}

static void begin_again(struct redlock_gate *gate, struct ticket *ticket)
{
    struct purchase *purchase = &ticket->purchase->purchase;
    purchase->order.id = 0;
    purchase_move(purchase, PURCHASE_QUEUED);
    begin(gate, ticket);
}

/* --- learning ----------------------------------------------------------------------------------------------------------------- */
/* Where the product stands in the lesson, or would. */
static size_t place_in_lesson(const struct gate_lesson *lesson, int64_t product_id)
{
    size_t i = 0;
    while (i < lesson->count && lesson->product_ids[i] != product_id) {
        i++;
    }
    return i;
}

/* False, and the lesson is as before: it does not fit. */
static bool add_to_lesson(struct redlock_gate *gate, const struct ticket *ticket)
{
    struct gate_lesson *lesson = &gate->lesson;
    size_t count = lesson->count;
    for (size_t i = 0; i < line_count(ticket); i++) {
        int64_t product_id = line_at(ticket, i).product_id;
        size_t place = place_in_lesson(lesson, product_id);
        if (is_learned(terms_find(gate->terms, product_id)) || place < lesson->count) {
            continue;
        }
        if (place == GATE_LESSON_MAX) {
            lesson->count = count;
            return false;
        }
        lesson->product_ids[lesson->count++] = product_id;
    }
    return true;
}

static void learn(struct redlock_gate *gate)
{
    struct gate_lesson *lesson = &gate->lesson;
    if (gate->is_learning || gate->to_learn.first == NULL || clock_monotonic_us() < gate->learn_at_us) {
        return;
    }
    lesson->count = 0;
    lesson->read = false;
    while (gate->to_learn.first != NULL && add_to_lesson(gate, gate->to_learn.first)) {
        ticket_list_insert(&gate->in_lesson, ticket_list_take(&gate->to_learn));
    }
    if (lesson->count == 0) { /* learned meanwhile, for others */
        begin_all(gate, &gate->in_lesson);
        return;
    }
    gate->is_learning = gate->base.settings.learn_cb(gate->base.settings.context, lesson);
    if (!gate->is_learning) {
        gate->learn_at_us = clock_monotonic_us() + PAUSE_US;
        begin_all(gate, &gate->in_lesson);
    }
}

/* The first product of the purchase that the store does not know by this lesson; 0: none. */
static int64_t unknown_product(const struct gate_lesson *lesson, const struct ticket *ticket)
{
    for (size_t i = 0; i < line_count(ticket); i++) {
        int64_t product_id = line_at(ticket, i).product_id;
        size_t place = place_in_lesson(lesson, product_id);
        if (place < lesson->count && !lesson->known[place]) {
            return product_id;
        }
    }
    return 0;
}

static void take_lesson(struct redlock_gate *gate, const struct gate_lesson *lesson)
{
    see_position(gate, lesson->position);
    for (size_t i = 0; i < lesson->count; i++) {
        if (lesson->known[i]) {
            terms_learn(gate->terms, &lesson->products[i], lesson->position);
        }
    }
}

/* The last that was lent is back. */
static void free_closed(struct redlock_gate *gate)
{
    if (gate->is_swept && !gate->is_learning && !gate->is_selling) {
        terms_free(&gate->terms);
        free(gate);
    }
}

static void redlock_gate_learned(struct gate *base, struct gate_lesson *lesson)
{
    struct redlock_gate *gate = of(base);
    struct ticket_list taught = gate->in_lesson, refused = {0};
    struct ticket *ticket;
    CHECK(gate->is_learning && lesson == &gate->lesson);
    gate->is_learning = false;
    gate->in_lesson = (struct ticket_list){0};
    if (gate->is_closed) {
        free_closed(gate);
        return;
    }
    if (lesson->read) {
        take_lesson(gate, lesson);
    } else {
        gate->learn_at_us = clock_monotonic_us() + PAUSE_US;
        complain(gate, "cannot learn from the store what is sold");
        gate_call_failed(&gate->base, "the store cannot be read");
    }
    while ((ticket = ticket_list_take(&taught)) != NULL) {
        int64_t unknown = lesson->read ? unknown_product(lesson, ticket) : 0;
        ticket->is_unknown = unknown != 0;
        if (unknown != 0 && ticket->purchase->purchase.order.key == NULL) {
            ticket->purchase->purchase.refused_product_id = unknown;
            ticket_list_insert(&refused, ticket);
        } else {
            begin(gate, ticket);
        }
    }
    while ((ticket = ticket_list_take(&refused)) != NULL) {
        refuse_unasked(gate, ticket, REFUSAL_NOT_ON_SALE);
    }
}

/* --- looking ------------------------------------------------------------------------------------------------------------------ */
static size_t place_among(const int64_t *product_ids, size_t count, int64_t product_id)
{
    size_t i = 0;
    while (i < count && product_ids[i] != product_id) {
        i++;
    }
    return i;
}

static void look(struct redlock_gate *gate)
{
    int64_t product_ids[REDLOCK_STOCK_PRODUCTS_MAX];
    size_t count = 0;
    if (gate->to_look.first == NULL || redlock_stock_is_reading(gate->stock)) {
        return;
    }
    while (gate->to_look.first != NULL) {
        int64_t product_id = line_at(gate->to_look.first, 0).product_id;
        size_t place = place_among(product_ids, count, product_id);
        if (place == REDLOCK_STOCK_PRODUCTS_MAX) {
            break;
        }
        product_ids[place] = product_id;
        count += place == count;
        ticket_list_insert(&gate->in_read, ticket_list_take(&gate->to_look));
    }
    redlock_stock_read(gate->stock, product_ids, count);
}

static void refuse_for_little(struct redlock_gate *gate, struct ticket *ticket, int64_t stock)
{
    metrics_add(METRICS_purchases_sold_out_by_nodes, 1);
    purchase_note_short(&ticket->purchase->purchase, 0, stock);
    refuse_unasked(gate, ticket, REFUSAL_INSUFFICIENT_STOCK);
}

/* The nodes name a later position than the one at which the terms were learned: the sale may be over since, and that is then the reason. Once is
 * enough for a purchase: what was promised before it came is in the second lesson. */
static bool may_be_outdated(const struct ticket *ticket, const struct terms_entry *entry,
                            const struct node_stock *stock)
{
    return !ticket->has_learned_anew && log_position_compare(stock->version, entry->learned_at) > 0;
}

static void looked(struct redlock_gate *gate, struct ticket *ticket, const struct node_stock *stock)
{
    struct order_part line = line_at(ticket, 0);
    struct terms_entry *entry = terms_find(gate->terms, line.product_id);
    ticket->has_looked = true;
    if (entry != NULL && stock->known) {
        entry->seen_stock = stock->stock;
    }
    if (entry != NULL && stock->known && is_too_little(&entry->product, stock->stock, line.quantity)) {
        if (may_be_outdated(ticket, entry, stock)) {
            entry->is_outdated = true;
            ticket->has_learned_anew = true;
            ticket->has_looked = false;
            begin(gate, ticket);
        } else {
            refuse_for_little(gate, ticket, stock->stock);
        }
    } else {
        begin(gate, ticket);
    }
}

static void looked_cb(void *context, const int64_t *product_ids, const struct node_stock *stocks,
                      size_t count)
{
    struct redlock_gate *gate = context;
    struct ticket_list waited = gate->in_read;
    struct ticket *ticket;
    gate->in_read = (struct ticket_list){0};
    while ((ticket = ticket_list_take(&waited)) != NULL) {
        size_t place = place_among(product_ids, count, line_at(ticket, 0).product_id);
        CHECK(place < count);
        looked(gate, ticket, &stocks[place]);
    }
}

/* --- selling ------------------------------------------------------------------------------------------------------------------ */
static void lend(struct redlock_gate *gate, struct ticket *ticket)
{
    size_t i = gate->batch.count++;
    struct purchase *copy = &gate->sold_purchases[i];
    struct sale_order *order = &copy->order;
    *copy = ticket->purchase->purchase;
    gate->sold_tickets[i] = ticket;
    gate->batch.purchases[i] = copy;
    if (order->more_count > 0) {
        memcpy(&gate->sold_more[gate->sold_lines], order->more, order->more_count * sizeof *order->more);
        order->more = &gate->sold_more[gate->sold_lines];
        gate->sold_lines += order->more_count;
    }
    if (order->key != NULL) {
        CHECK(order->key_bytes <= sizeof gate->sold_keys[i]);
        memcpy(gate->sold_keys[i], order->key, order->key_bytes);
        order->key = gate->sold_keys[i];
    }
}

/* What the store has filled in. */
static void take_copy_back(struct redlock_gate *gate, size_t i)
{
    struct purchase *purchase = &gate->sold_tickets[i]->purchase->purchase;
    struct order_part *more = purchase->order.more;
    const char *key = purchase->order.key;
    *purchase = gate->sold_purchases[i];
    if (more != NULL && purchase->order.more_count > 0) {
        memcpy(more, purchase->order.more, purchase->order.more_count * sizeof *more);
    }
    purchase->order.more = more;
    purchase->order.key = key;
}

static void fill_batch(struct redlock_gate *gate)
{
    struct gate_batch *batch = &gate->batch;
    size_t lines = 0;
    struct ticket *ticket;
    batch->count = gate->sold_lines = 0;
    while (batch->count < GATE_BATCH_MAX &&
           (ticket = tills_take_runnable(gate->tills, SALES_LOG_LINES_MAX - lines)) != NULL) {
        lines += line_count(ticket);
        purchase_move(&ticket->purchase->purchase, PURCHASE_ASKED);
        lend(gate, ticket);
    }
}

/* All of the batch gives its tills back, and is begun anew: nothing was sold. */
static void put_back(struct redlock_gate *gate)
{
    gate->sell_at_us = clock_monotonic_us() + PAUSE_US;
    metrics_add(METRICS_purchases_stale, gate->batch.count);
    for (size_t i = 0; i < gate->batch.count; i++) {
        if (gate->sold_tickets[i] != NULL) {
            tills_leave(gate->tills, gate->sold_tickets[i], true);
            begin_again(gate, gate->sold_tickets[i]);
        }
    }
}

/* The store is another gate's, which it stays until a server with this one is started again: no use in keeping anybody waiting. */
static void turn_away(struct redlock_gate *gate)
{
    complain(gate, "the store is another server's, of the Lua gate: nothing can be sold here");
    gate->sell_at_us = clock_monotonic_us() + PAUSE_US;
    for (size_t i = 0; i < gate->batch.count; i++) {
        if (gate->sold_tickets[i] != NULL) {
            tills_leave(gate->tills, gate->sold_tickets[i], true);
            answer(gate, gate->sold_tickets[i], PURCHASE_UNAVAILABLE);
        }
    }
}

static void sell(struct redlock_gate *gate)
{
    struct gate_batch *batch = &gate->batch;
    if (gate->is_selling || clock_monotonic_us() < gate->sell_at_us) {
        return;
    }
    fill_batch(gate);
    if (batch->count == 0) {
        return;
    }
    gate->sold_after = gate->position;
    batch->end = GATE_BATCH_FAILED;
    batch->moves.position = (struct log_position){0};
    batch->moves.count = 0;
    gate->is_selling = gate->base.settings.sell_cb(gate->base.settings.context, batch);
    if (gate->is_selling) {
        gate->began_us = clock_monotonic_us();
        metrics_observe(METRICS_HISTOGRAM_gate_batch, batch->count);
    } else {
        complain(gate, "no room to have purchases decided; trying again");
        put_back(gate);
    }
}

static void take_moves(struct redlock_gate *gate, const struct stock_moves *moves)
{
    see_position(gate, moves->position);
    for (size_t i = 0; i < moves->count; i++) {
        terms_see_stock(gate->terms, moves->each[i].product_id, moves->each[i].stock);
    }
    redlock_stock_write(gate->stock, moves);
}

static void take_decision(struct redlock_gate *gate, struct ticket *ticket)
{
    struct purchase *purchase = &ticket->purchase->purchase;
    if (purchase->order.id > 0) {
        purchase_move(purchase, PURCHASE_RESERVED);
        answer(gate, ticket, PURCHASE_CONFIRMED);
        return;
    }
    if (purchase->refusal == REFUSAL_INSUFFICIENT_STOCK && purchase->order.more_count == 0) {
        terms_see_stock(gate->terms, purchase->order.product_id, purchase->order.remaining);
    }
    refuse(gate, ticket, purchase->refusal);
}

static void take_decisions(struct redlock_gate *gate)
{
    struct gate_batch *batch = &gate->batch;
    gate->batch_us +=
        (clock_monotonic_us() - gate->began_us - gate->batch_us) / 8; /* the mean of some eight */
    take_moves(gate, &batch->moves);
    for (size_t i = 0; i < batch->count; i++) {
        if (gate->sold_tickets[i] != NULL) {
            take_copy_back(gate, i);
            tills_leave(gate->tills, gate->sold_tickets[i], true);
            take_decision(gate, gate->sold_tickets[i]);
        }
    }
}

/* Sold or not? The store knows. */
static void put_in_doubt(struct redlock_gate *gate)
{
    struct gate_batch *batch = &gate->batch;
    struct purchase_list list = {0};
    struct gate_purchase *purchase;
    gate->sell_at_us = clock_monotonic_us() + PAUSE_US;
    metrics_add(METRICS_purchases_in_doubt, batch->count);
    complain(gate, "the store failed; its purchases are looked up");
    gate_call_failed(&gate->base, "the store cannot decide");
    for (size_t i = 0; i < batch->count; i++) {
        if (gate->sold_tickets[i] == NULL) {
            continue;
        }
        purchase = gate->sold_tickets[i]->purchase;
        tills_leave(gate->tills, gate->sold_tickets[i], true);
        ticket_free(&gate->sold_tickets[i]);
        purchase->purchase.position = gate->sold_after;
        purchase_list_append(&list, purchase);
    }
    if (list.first == NULL || gate->base.settings.settle_cb(gate->base.settings.context, list.first)) {
        return;
    }
    log_warn("gate: cannot look up %zu purchases in the store: too much waiting; they are answered 503",
             list.count);
    while ((purchase = purchase_list_take(&list)) != NULL) {
        gate_answer(&gate->base, purchase, PURCHASE_UNAVAILABLE);
    }
}

static void redlock_gate_sold(struct gate *base, struct gate_batch *batch)
{
    struct redlock_gate *gate = of(base);
    CHECK(gate->is_selling && batch == &gate->batch);
    gate->is_selling = false; /* the next one is begun in the next turn only */
    if (gate->is_closed) {
        free_closed(gate);
        return;
    }
    if (batch->end == GATE_BATCH_FENCED) {
        turn_away(gate);
    } else if (batch->end == GATE_BATCH_FAILED || failpoint("gate.reply")) {
        put_in_doubt(gate);
    } else {
        take_decisions(gate);
    }
}

static void redlock_gate_settled(struct gate *base, struct gate_purchase *purchase, enum gate_finding finding)
{
    struct redlock_gate *gate = of(base);
    struct ticket *ticket = ticket_new(purchase);
    metrics_add(METRICS_purchases_settled, 1);
    switch (finding) {
    case GATE_IN_STORE:
        if (purchase->purchase.state == PURCHASE_ASKED) {
            purchase_move(&purchase->purchase, PURCHASE_RESERVED);
        }
        answer(gate, ticket, PURCHASE_CONFIRMED);
        break;
    case GATE_REJECTED_BY_STORE: /* of an order that the Lua gate once made; no request of ours */
        refuse(gate, ticket, REFUSAL_REJECTED);
        break;
    case GATE_NOT_IN_STORE:
        ticket->is_counted = true;
        begin_again(gate, ticket);
        break;
    case GATE_STORE_UNREADABLE:
        answer(gate, ticket, PURCHASE_UNAVAILABLE);
        break;
    }
}

/* --- deadlines ---------------------------------------------------------------------------------------------------------------- */
/* The store does not answer. Perhaps it sells all the same: an order that its buyer can find, but was not promised. Not in the last look before the deadline,
 * for the next is never quite so soon. */
static void expire_sold(struct redlock_gate *gate, int64_t now_us)
{
    for (size_t i = 0; gate->is_selling && i < gate->batch.count; i++) {
        struct ticket *ticket = gate->sold_tickets[i];
        if (ticket != NULL && ticket->purchase->deadline_us <= now_us + 2 * EXPIRE_EVERY_US) {
            gate->sold_tickets[i] = NULL;
            tills_leave(gate->tills, ticket, true);
            answer(gate, ticket, PURCHASE_UNAVAILABLE);
        }
    }
}

static void expire(struct redlock_gate *gate, int64_t now_us)
{
    int64_t until_us = now_us + END_US;
    struct ticket_list expired = {0};
    if (now_us < gate->next_expire_us) {
        return;
    }
    gate->next_expire_us = now_us + EXPIRE_EVERY_US;
    ticket_list_take_expired(&gate->to_learn, until_us, &expired);
    ticket_list_take_expired(&gate->in_lesson, until_us, &expired);
    ticket_list_take_expired(&gate->to_look, until_us, &expired);
    ticket_list_take_expired(&gate->in_read, until_us, &expired);
    tills_take_expired(gate->tills, until_us, &expired);
    answer_all_unavailable(gate, &expired);
    expire_sold(gate, now_us);
}

static bool redlock_gate_is_ready(const struct gate *base)
{
    return redlock_is_ready(((const struct redlock_gate *)base)->redlock);
}

static void sweep_cb(uv_timer_t *timer)
{
    struct redlock_gate *gate = timer->data;
    int64_t now_us = clock_monotonic_us();
    int64_t wait_us = (int64_t)(gate->base.pending / GATE_BATCH_MAX) * gate->batch_us;
    tills_tick(gate->tills);
    expire(gate, now_us);
    gate_watch(&gate->base, now_us,
               redlock_gate_is_ready(&gate->base) ? NULL : "no majority of the lock nodes votes", wait_us);
}

/* --- the driver --------------------------------------------------------------------------------------------------------------- */
static void redlock_gate_submit(struct gate *base, struct gate_purchase *purchase)
{
    begin(of(base), ticket_new(purchase));
}

static void redlock_gate_turn(struct gate *base)
{
    struct redlock_gate *gate = of(base);
    learn(gate);
    look(gate);
    tills_turn(gate->tills);
    sell(gate);
    redlock_turn(gate->redlock);
}

static size_t redlock_gate_parts(const struct gate *base, struct gate_part out[GATE_PARTS_MAX])
{
    const struct redlock_gate *gate = (const struct redlock_gate *)base;
    const struct gate_place *place = base->settings.place;
    for (unsigned i = 0; i < place->node_count; i++) {
        char address[GATE_PART_NAME_BYTES - GATE_PART_WORDS_BYTES];
        redis_address_format(&place->nodes[i], address, sizeof address);
        snprintf(out[i].name, sizeof out[i].name, "lock node %u (%s)", i + 1, address);
        out[i].state = redlock_nodes_state(redlock_nodes(gate->redlock), i);
        out[i].up = redlock_nodes_votes(redlock_nodes(gate->redlock), i);
    }
    return place->node_count;
}

static void swept_cb(uv_handle_t *handle)
{
    struct redlock_gate *gate = handle->data;
    gate->is_swept = true;
    free_closed(gate);
}

static void redlock_gate_close(struct gate *base)
{
    struct redlock_gate *gate = of(base);
    gate->is_closed = true;
    tills_close(&gate->tills);
    redlock_close(&gate->redlock);
    redlock_stock_close(&gate->stock);
    uv_close((uv_handle_t *)&gate->sweep, swept_cb);
}

static const struct gate_driver redlock_gate_driver = {
    .is_ready = redlock_gate_is_ready,
    .submit = redlock_gate_submit,
    .turn = redlock_gate_turn,
    .settled = redlock_gate_settled,
    .learned = redlock_gate_learned,
    .sold = redlock_gate_sold,
    .parts = redlock_gate_parts,
    .close = redlock_gate_close,
};

struct gate *redlock_gate_open(const struct gate_settings *settings)
{
    const struct gate_place *place = settings->place;
    struct redlock_gate *gate = calloc(1, sizeof *gate);
    CHECK(gate != NULL);
    gate->base.driver = &redlock_gate_driver;
    gate->complain_us = clock_monotonic_us() - COMPLAIN_US;
    gate->redlock = redlock_open(&(struct redlock_settings){.loop = settings->loop,
                                                            .nodes = place->nodes,
                                                            .node_count = place->node_count,
                                                            .ttl_ms = place->lock_ttl_ms,
                                                            .node_timeout_ms = REDLOCK_NODE_TIMEOUT_MS,
                                                            .attempts = place->lock_attempts,
                                                            .retry_delay_ms = place->lock_retry_delay_ms,
                                                            .extensions_max = REDLOCK_EXTENSIONS_MAX,
                                                            .holder = settings->holder,
                                                            .node_starts = settings->node_starts});
    gate->stock = redlock_stock_open(gate->redlock, settings->loop, settings->store_id,
                                     REDLOCK_NODE_TIMEOUT_MS, looked_cb, gate);
    gate->tills = tills_open(gate->redlock, settings->loop, place);
    gate->terms = terms_new();
    uv_timer_init(settings->loop, &gate->sweep);
    gate->sweep.data = gate;
    uv_timer_start(&gate->sweep, sweep_cb, SWEEP_MS, SWEEP_MS);
    return &gate->base;
}
