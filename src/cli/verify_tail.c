/* verify's look at the sales log: every order and cancellation that is recorded and still in the log against the store's row, and of what is in
 * flight that order ids follow on. One thread, blocking, reads only; what it found is in the audit. Stock and price changes are not looked up
 * one by one: the products' checks compare what they add up to. */
#include "verify.h"

#include "doorbuster/check.h"
#include "doorbuster/gate_books.h"

#include <inttypes.h>
#include <string.h>

#define ENTRIES_AT_ONCE 256
#define PARTS_AT_ONCE (8 * SALES_LOG_PARTS_MAX)
#define ORDERS_MAX 100000

/* --- an entry against the store ------------------------------------------------------------------------------------------------------ */
static bool same_key(const struct store_order *stored, const struct sale_order *logged)
{
    return strlen(stored->idempotency_key) == logged->key_bytes &&
           (logged->key == NULL || memcmp(stored->idempotency_key, logged->key, logged->key_bytes) == 0);
}

static bool same_part(const struct order_part *a, const struct order_part *b)
{
    return a->product_id == b->product_id && a->quantity == b->quantity && a->unit_price == b->unit_price &&
           a->remaining == b->remaining && a->is_component == b->is_component;
}

/* In order. `stored` gets its further parts, which stay in `room`. */
static bool same_parts(struct audit *audit, struct store_order *stored, const struct sale_order *logged)
{
    static struct order_part room[ORDER_PARTS_MAX];
    if (stored->part_count != order_part_count(logged)) {
        return false;
    }
    if (stored->part_count > 1) {
        stored->sale.more = room;
        if (store_order_parts(audit->store, stored->sale.id, room, ORDER_PARTS_MAX,
                              &stored->sale.more_count) != STORE_OK ||
            order_part_count(&stored->sale) != stored->part_count) {
            return false;
        }
    }
    for (size_t i = 0; i < stored->part_count; i++) {
        struct order_part is = order_part_at(&stored->sale, i), was = order_part_at(logged, i);
        if (!same_part(&is, &was)) {
            return false;
        }
    }
    return true;
}

static bool same_order(struct audit *audit, const struct sale_order *logged, const struct log_entry *entry)
{
    struct store_order stored;
    return store_find_order(audit->store, logged->id, &stored) == STORE_OK &&
           stored.sale.request == logged->request && stored.sale.user_id == logged->user_id &&
           stored.at_ms == entry->at_ms && same_key(&stored, logged) &&
           log_position_compare(stored.position, entry->position) == 0 && same_parts(audit, &stored, logged);
}

/* Whose cancellation is in the log is cancelled in the store: a second one for the same order finds it so. */
static bool is_cancelled(struct audit *audit, const struct cancellation *cancel)
{
    struct store_order stored;
    return store_find_order(audit->store, cancel->order_id, &stored) == STORE_OK &&
           stored.state == ORDER_CANCELLED && stored.sale.user_id == cancel->user_id;
}

/* --- along the log --------------------------------------------------------------------------------------------------------------------- */
/* Takes one entry into the tail; false: enough. */
typedef bool (*tail_step)(struct audit *audit, const struct log_entry *entry);

static bool compare_recorded(struct audit *audit, const struct log_entry *entry)
{
    struct verify_tail *tail = &audit->tail;
    if (log_position_compare(entry->position, audit->position.recorded) > 0) {
        return false;
    }
    if (entry->kind == LOG_ENTRY_CANCEL) {
        tail->cancels++;
        tail->cancels_missing += !is_cancelled(audit, &entry->cancel);
    }
    for (size_t i = 0; entry->kind == LOG_ENTRY_SALE && i < entry->order_count; i++) {
        tail->recorded++;
        tail->different += !same_order(audit, &entry->orders[i], entry);
    }
    return tail->recorded + tail->cancels < ORDERS_MAX;
}

/* What is not recorded yet: the ids must follow on. */
static bool follow_on(struct audit *audit, const struct log_entry *entry)
{
    struct verify_tail *tail = &audit->tail;
    tail->entries_behind++;
    if (tail->oldest_at_ms == 0) {
        tail->oldest_at_ms = entry->at_ms;
    }
    for (size_t i = 0; entry->kind == LOG_ENTRY_SALE && i < entry->order_count; i++) {
        tail->in_flight++;
        tail->out_of_sequence += entry->orders[i].id != tail->next_id;
        tail->next_id = entry->orders[i].id + 1;
    }
    return tail->in_flight < ORDERS_MAX;
}

/* Reads the log behind `at` as far as `step` wants. False: redis_failure(). */
static bool walk_log(struct audit *audit, struct log_position at, tail_step step)
{
    static struct log_entry entries[ENTRIES_AT_ONCE];
    static struct sale_order orders[ENTRIES_AT_ONCE * SALES_LOG_ORDERS_MAX];
    static struct order_part parts[PARTS_AT_ONCE];
    struct log_room room = {.orders = orders,
                            .orders_max = sizeof orders / sizeof orders[0],
                            .parts = parts,
                            .parts_max = PARTS_AT_ONCE};
    size_t count = 1;
    bool more = true;
    while (count > 0 && more) {
        redisReply *reply;
        if (!gate_read_log(audit->redis, NULL, at, 0, entries, ENTRIES_AT_ONCE, &room, &count, &reply)) {
            return false;
        }
        for (size_t i = 0; i < count && more; i++) {
            more = step(audit, &entries[i]);
            at = entries[i].position;
        }
        freeReplyObject(reply);
    }
    return true;
}

void audit_read_tail(struct audit *audit)
{
    struct gate_head head;
    audit->tail.next_id = audit->position.last_order_id + 1;
    if (audit->redis == NULL || !gate_read_head(audit->redis, &head)) {
        return;
    }
    audit->tail.epoch = head.epoch;
    struct log_position from = log_position_compare(head.log_lost, audit->position.recorded) > 0
                                   ? head.log_lost
                                   : audit->position.recorded;
    audit->tail.read = walk_log(audit, from, follow_on) &&
                       (audit->quick || walk_log(audit, head.log_lost, compare_recorded));
}

void audit_check_tail(struct audit *audit)
{
    static const char name[] = "orders = log";
    const struct verify_tail *tail = &audit->tail;
    if (!tail->read) {
        audit_report(audit, name, UNKNOWN, "%s",
                     audit->redis == NULL ? "Redis cannot be reached" : redis_failure());
        return;
    }
    audit_report(
        audit, name,
        audit_holds(tail->different == 0 && tail->cancels_missing == 0 && tail->out_of_sequence == 0),
        "%" PRId64 " recorded orders in the log's tail, %" PRId64 " differ from the store; %" PRId64
        " cancellations, %" PRId64 " not in the store; %" PRId64 " in flight, %" PRId64 " out of sequence",
        tail->recorded, tail->different, tail->cancels, tail->cancels_missing, tail->in_flight,
        tail->out_of_sequence);
}
