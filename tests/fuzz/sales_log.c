/* Entries of the sales log, as they come from Redis: the first line of the input is the kind, the rest the payload. What can be read has figures that can be,
 * and written again by the rules of sales_log.h it reads the same. */
#include "fuzz.h"

#include "doorbuster/sales_log.h"
#include "doorbuster/text.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>

#define TEXT_BYTES (1 << 20)

static struct sale_order orders[2][SALES_LOG_ORDERS_MAX];
static struct order_part parts[2][SALES_LOG_PARTS_MAX];
static struct {
    char text[TEXT_BYTES];
    size_t used;
} written[2];

__attribute__((format(printf, 2, 3))) static void put(int which, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    int bytes = vsnprintf(written[which].text + written[which].used, TEXT_BYTES - written[which].used, format,
                          arguments);
    va_end(arguments);
    CHECK(bytes >= 0 && (size_t)bytes < TEXT_BYTES - written[which].used);
    written[which].used += (size_t)bytes;
}

static void put_key(int which, const char *before, const char *key, size_t bytes)
{
    if (key != NULL) {
        CHECK(idempotency_key_is_valid(key, bytes));
        put(which, "%s%.*s", before, (int)bytes, key);
    }
}

static void put_order(int which, const struct sale_order *order)
{
    size_t lines = 1;
    CHECK(order->id >= 1 && order->user_id >= 1 && order->product_id >= 1);
    CHECK(order->quantity >= 1 && order->quantity <= PURCHASE_QUANTITY_MAX);
    CHECK(order_total_price(order) >= 0 && order_total_price(order) < (INT64_C(1) << 53));
    put(which, "\n%" PRId64 " %" PRId64 " %" PRId64 " %" PRId64 " %" PRId64 " %" PRId64 " %" PRId64,
        order->id, order->request, order->user_id, order->product_id, order->quantity, order->unit_price,
        order->remaining);
    put_key(which, " ", order->key, order->key_bytes);
    for (size_t i = 0; i < order->more_count; i++) {
        const struct order_part *part = &order->more[i];
        CHECK(part->product_id >= 1 && part->quantity >= 1);
        put(which, part->is_component ? "\n- %" PRId64 " %" PRId64 : "\n+ %" PRId64 " %" PRId64,
            part->product_id, part->quantity);
        if (!part->is_component) {
            CHECK(part->quantity <= PURCHASE_QUANTITY_MAX);
            put(which, " %" PRId64, part->unit_price);
            lines++;
        }
        put(which, " %" PRId64, part->remaining);
    }
    CHECK(lines <= CART_LINES_MAX && order->more_count < ORDER_PARTS_MAX);
}

static void put_cancel(int which, const struct cancellation *cancel)
{
    CHECK(cancel->part_count >= 1 && cancel->part_count <= ORDER_PARTS_MAX);
    put(which, "\n%" PRId64 " %" PRId64 " %" PRId64, cancel->order_id, cancel->user_id, cancel->actor);
    for (size_t i = 0; i < cancel->part_count; i++) {
        CHECK(cancel->parts[i].quantity >= 1);
        put(which, "\n%" PRId64 " %" PRId64 " %" PRId64, cancel->parts[i].product_id,
            cancel->parts[i].quantity, cancel->parts[i].remaining);
    }
}

static void put_note(int which, const char *note, const char *key, size_t key_bytes)
{
    CHECK(strlen(note) < SALES_LOG_NOTE_BYTES && text_is_utf8(note, strlen(note)));
    CHECK(strchr(note, '\n') == NULL);
    put(which, "%s", note);
    put_key(which, "\nkey ", key, key_bytes);
}

static const char *put_entry(int which, const struct log_entry *entry)
{
    written[which].used = 0;
    put(which, "%" PRId64, entry->at_ms);
    switch (entry->kind) {
    case LOG_ENTRY_SALE:
        CHECK(entry->order_count >= 1 && entry->order_count <= SALES_LOG_ORDERS_MAX);
        for (size_t i = 0; i < entry->order_count; i++) {
            put_order(which, &entry->orders[i]);
        }
        return "sale";
    case LOG_ENTRY_STOCK:
        CHECK(entry->stock.delta >= -PRODUCT_STOCK_MAX && entry->stock.delta <= PRODUCT_STOCK_MAX);
        put(which, "\n%" PRId64 " %" PRId64 " %" PRId64 " %s %" PRId64 " ", entry->stock.product_id,
            entry->stock.delta, entry->stock.remaining, stock_cause_names[entry->stock.cause],
            entry->stock.actor);
        put_note(which, entry->stock.note, entry->stock.key, entry->stock.key_bytes);
        return "stock";
    case LOG_ENTRY_CANCEL:
        put_cancel(which, &entry->cancel);
        return "cancel";
    case LOG_ENTRY_PRICE:
        CHECK(entry->price.to >= 1 && entry->price.to <= PRODUCT_PRICE_MAX);
        put(which, "\n%" PRId64 " %" PRId64 " %" PRId64 " %" PRId64 " ", entry->price.product_id,
            entry->price.from, entry->price.to, entry->price.actor);
        put_note(which, entry->price.note, entry->price.key, entry->price.key_bytes);
        return "price";
    case LOG_ENTRY_WINDOW:
        put(which, "\n%" PRId64 " %" PRId64 " %" PRId64 " %" PRId64 " %" PRId64 " %" PRId64 " ",
            entry->window.product_id, entry->window.from.starts_at_ms, entry->window.from.ends_at_ms,
            entry->window.to.starts_at_ms, entry->window.to.ends_at_ms, entry->window.actor);
        put_note(which, entry->window.note, entry->window.key, entry->window.key_bytes);
        return "window";
    default:
        CHECK(entry->kind == LOG_ENTRY_ATTACH);
        written[which].used = 0;
        put_note(which, entry->stock.note, NULL, 0);
        return LOG_ATTACH_WORD;
    }
}

static bool decode(int which, const char *kind, size_t kind_bytes, const char *text, size_t bytes,
                   struct log_entry *entry)
{
    struct log_room room = {.orders = orders[which],
                            .orders_max = SALES_LOG_ORDERS_MAX,
                            .parts = parts[which],
                            .parts_max = SALES_LOG_PARTS_MAX};
    bool read = log_entry_decode((struct log_position){7, 1042}, kind, kind_bytes, text, bytes, &room, entry);
    CHECK(read || (room.orders_used == 0 && room.parts_used == 0));
    CHECK(room.orders_used <= room.orders_max && room.parts_used <= room.parts_max);
    return read;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    static struct log_entry entry, again;
    const char *text = (const char *)data, *newline = bytes > 0 ? memchr(text, '\n', bytes) : NULL;
    if (newline == NULL) {
        return 0;
    }
    size_t kind_bytes = (size_t)(newline - text);
    if (!decode(0, text, kind_bytes, newline + 1, bytes - kind_bytes - 1, &entry)) {
        return 0;
    }
    const char *kind = put_entry(0, &entry);
    CHECK(strlen(kind) == kind_bytes && memcmp(kind, text, kind_bytes) == 0);
    CHECK(log_kind_is_ours(kind, kind_bytes) == (entry.kind != LOG_ENTRY_ATTACH));
    CHECK(decode(1, kind, kind_bytes, written[0].text, written[0].used, &again));
    put_entry(1, &again);
    CHECK(written[0].used == written[1].used &&
          memcmp(written[0].text, written[1].text, written[0].used) == 0);
    CHECK(log_entry_stock_delta(&entry, 1) == log_entry_stock_delta(&again, 1));
    return 0;
}
