/* Nothing that was confirmed is lost later either: every confirmed order, cancelled or not, every cancellation, every
 * restock and withdrawal of a store is looked up once more before it is given up.
 *
 * Owns the lists of them. */
#include "chaos_audit.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

struct kept_order {
    int64_t id, user_id, cancelled_at_ms;
    uint64_t fingerprint; /* of its parts */
};
struct kept_row { /* of the audit log: those of cancels and changes, and the last of each round */
    int64_t seq;
    unsigned char hash[STORE_AUDIT_HASH_BYTES];
};

static struct {
    struct kept_order *orders;
    struct kept_row *rows;
    size_t order_count, order_room, row_count, row_room;
} kept;

static void *room_for_one(void *list, size_t count, size_t *room, size_t bytes)
{
    if (count == *room) {
        *room = *room ? 2 * *room : 4096;
        list = realloc(list, *room * bytes);
        assert_non_null(list);
    }
    return list;
}

static uint64_t mix(uint64_t fingerprint, int64_t figure)
{
    return (fingerprint ^ (uint64_t)figure) * UINT64_C(0x100000001b3); /* FNV-1a, by words */
}

static uint64_t fingerprint_of(const struct sale_order *sale)
{
    uint64_t fingerprint = UINT64_C(0xcbf29ce484222325);
    for (size_t i = 0; i < order_part_count(sale); i++) {
        struct order_part part = order_part_at(sale, i);
        fingerprint = mix(mix(fingerprint, part.product_id), part.quantity);
        fingerprint = mix(mix(fingerprint, part.unit_price), part.remaining);
        fingerprint = mix(fingerprint, part.is_component);
    }
    return fingerprint;
}

static void keep_order(const struct store_order *order)
{
    kept.orders = room_for_one(kept.orders, kept.order_count, &kept.order_room, sizeof *kept.orders);
    kept.orders[kept.order_count++] = (struct kept_order){.id = order->sale.id,
                                                          .user_id = order->sale.user_id,
                                                          .cancelled_at_ms = order->cancelled_at_ms,
                                                          .fingerprint = fingerprint_of(&order->sale)};
    report_acks_line(&order->sale);
}

static void keep_row(const struct store_audit_row *row)
{
    kept.rows = room_for_one(kept.rows, kept.row_count, &kept.row_room, sizeof *kept.rows);
    struct kept_row *one = &kept.rows[kept.row_count++];
    one->seq = row->seq;
    memcpy(one->hash, row->hash, sizeof one->hash);
}

void audit_remember(struct audit *audit)
{
    const struct readings *read = &audit->read;
    for (size_t i = 0; i < history.wish_count; i++) {
        const struct wish *wish = &history.wishes[i];
        bool confirmed = wish->kind == WISH_PURCHASE && wish->outcome == CONFIRMED;
        const struct audited_order *audited = confirmed ? audit_find_order(audit, wish->order) : NULL;
        if (audited != NULL && audited->order.state != ORDER_REJECTED) {
            keep_order(&audited->order);
        }
    }
    for (size_t i = 0; i < read->row_count; i++) {
        if (strcmp(read->rows[i].cause, "sale") != 0 || i + 1 == read->row_count) {
            keep_row(&read->rows[i]);
        }
    }
}

size_t kept_count(void)
{
    return kept.order_count;
}

void kept_forget(void)
{
    free(kept.orders);
    free(kept.rows);
    memset(&kept, 0, sizeof kept);
}

/* --- once more ----------------------------------------------------------------------------------------- */
static bool is_there(struct store *store, const struct kept_order *one)
{
    struct store_order order;
    struct order_part more[LINES_MAX * PRODUCTS];
    if (store_find_order(store, one->id, &order) != STORE_OK || order.state == ORDER_REJECTED ||
        order.part_count > 1 + sizeof more / sizeof more[0]) {
        return false;
    }
    order.sale.more = more;
    return (order.part_count <= 1 || store_order_parts(store, one->id, more, sizeof more / sizeof more[0],
                                                       &order.sale.more_count) == STORE_OK) &&
           order.sale.user_id == one->user_id && order.cancelled_at_ms == one->cancelled_at_ms &&
           fingerprint_of(&order.sale) == one->fingerprint;
}

static void check_row(struct round *round, struct store *store, const struct kept_row *one)
{
    struct store_audit_row row;
    size_t count;
    if (store_audit_log(store, one->seq + 1, 0, &row, 1, &count) != STORE_OK || count != 1 ||
        row.seq != one->seq || memcmp(row.hash, one->hash, sizeof row.hash) != 0) {
        violation(round, "row %" PRId64 " of the audit log is not at the end what it was", one->seq);
    }
}

void audit_kept(struct round *round)
{
    struct store *store = audit_open_store();
    for (size_t i = 0; i < kept.order_count; i++) {
        const struct kept_order *one = &kept.orders[i];
        if (!is_there(store, one)) {
            violation(round,
                      "order %" PRId64 " of user %" PRId64 " was confirmed, cancelled at %" PRId64
                      " (0: not), and is not so in the store at the end",
                      one->id, one->user_id, one->cancelled_at_ms);
        }
    }
    for (size_t i = 0; i < kept.row_count; i++) {
        check_row(round, store, &kept.rows[i]);
    }
    audit_chain(round, store);
    store_close(&store);
}
