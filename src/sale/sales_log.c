/* The sales log's entries as text, decoded. Pure functions; any thread, any process. They own nothing and fail only by saying that the
 * text is not one of our entries. */
#include "doorbuster/sales_log.h"

#include "doorbuster/text.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

const char *const stock_cause_names[STOCK_CAUSES] = {"opening", "restock", "withdrawal", "healing"};

int log_position_compare(struct log_position a, struct log_position b)
{
    if (a.epoch != b.epoch) {
        return a.epoch < b.epoch ? -1 : 1;
    }
    return a.n < b.n ? -1 : a.n > b.n;
}

void log_position_format(struct log_position position, char out[SALES_LOG_POSITION_BYTES])
{
    snprintf(out, SALES_LOG_POSITION_BYTES, "%" PRIu64 "-%" PRIu64, position.epoch, position.n);
}

bool log_position_parse(const char *text, size_t bytes, struct log_position *out)
{
    const char *dash = memchr(text, '-', bytes);
    if (dash == NULL) {
        return false;
    }
    size_t epoch_bytes = (size_t)(dash - text);
    int64_t epoch, n;
    if (!text_to_int64(text, epoch_bytes, 0, INT64_MAX, &epoch) ||
        !text_to_int64(dash + 1, bytes - epoch_bytes - 1, 0, INT64_MAX, &n)) {
        return false;
    }
    *out = (struct log_position){.epoch = (uint64_t)epoch, .n = (uint64_t)n};
    return true;
}

/* A figure beyond what any script writes would get into the store, and Redis filled from that would be damaged for ever. */
#define AT_MS_MAX INT64_C(99999999999999)
#define COMPONENT_UNITS_MAX (PURCHASE_QUANTITY_MAX * INT64_C(1000)) /* of all bundles in one line */

/* What is left to read of a payload. */
struct cursor {
    const char *at, *end;
};

/* Reads a number and the one separator behind it (a space inside a line, a newline or the end after its last number). */
static bool take_number(struct cursor *cursor, char separator, int64_t min, int64_t max, int64_t *out)
{
    const char *start = cursor->at;
    const char *stop = start;
    while (stop < cursor->end && *stop != ' ' && *stop != '\n') {
        stop++;
    }
    bool at_end = stop == cursor->end;
    if ((at_end && separator != '\n') || (!at_end && *stop != separator)) {
        return false;
    }
    cursor->at = at_end ? stop : stop + 1;
    return text_to_int64(start, (size_t)(stop - start), min, max, out);
}

/* Is there another word behind the next one, on the same line? */
static bool line_goes_on(const struct cursor *cursor)
{
    const char *at = cursor->at;
    while (at < cursor->end && *at != ' ' && *at != '\n') {
        at++;
    }
    return at < cursor->end && *at == ' ';
}

/* The rest of the line. */
static bool take_key(struct cursor *cursor, const char **key, size_t *key_bytes)
{
    size_t left = (size_t)(cursor->end - cursor->at);
    const char *newline = memchr(cursor->at, '\n', left);
    size_t bytes = newline != NULL ? (size_t)(newline - cursor->at) : left;
    *key = cursor->at;
    *key_bytes = bytes;
    cursor->at += newline != NULL ? bytes + 1 : bytes;
    return idempotency_key_is_valid(*key, bytes);
}

static bool take_remaining(struct cursor *cursor, struct sale_order *order)
{
    bool has_key = line_goes_on(cursor);
    order->key = NULL;
    order->key_bytes = 0;
    return take_number(cursor, has_key ? ' ' : '\n', INT64_MIN, INT64_MAX, &order->remaining) &&
           (!has_key || take_key(cursor, &order->key, &order->key_bytes));
}

static bool take_order(struct cursor *cursor, struct sale_order *order)
{
    return take_number(cursor, ' ', 1, INT64_MAX, &order->id) &&
           take_number(cursor, ' ', INT64_MIN, INT64_MAX, &order->request) &&
           take_number(cursor, ' ', 1, INT64_MAX, &order->user_id) &&
           take_number(cursor, ' ', 1, INT64_MAX, &order->product_id) &&
           take_number(cursor, ' ', 1, PURCHASE_QUANTITY_MAX, &order->quantity) &&
           take_number(cursor, ' ', 0, PRODUCT_PRICE_MAX, &order->unit_price) &&
           take_remaining(cursor, order);
}

/* "+ product quantity unit_price remaining", or "- product units remaining". */
static bool take_part(struct cursor *cursor, struct order_part *part)
{
    *part = (struct order_part){.is_component = *cursor->at == '-'};
    if (cursor->end - cursor->at < 2 || cursor->at[1] != ' ') {
        return false;
    }
    cursor->at += 2;
    int64_t units_max = part->is_component ? COMPONENT_UNITS_MAX : PURCHASE_QUANTITY_MAX;
    return take_number(cursor, ' ', 1, INT64_MAX, &part->product_id) &&
           take_number(cursor, ' ', 1, units_max, &part->quantity) &&
           (part->is_component || take_number(cursor, ' ', 0, PRODUCT_PRICE_MAX, &part->unit_price)) &&
           take_number(cursor, '\n', INT64_MIN, INT64_MAX, &part->remaining);
}

/* The parts behind an order's first line. */
static bool take_parts(struct cursor *cursor, struct log_room *room, struct sale_order *order)
{
    size_t lines = 1, components = 0; /* components: of the last line */
    order->more = NULL;
    order->more_count = 0;
    while (cursor->at < cursor->end && (*cursor->at == '+' || *cursor->at == '-')) {
        struct order_part *part = &room->parts[room->parts_used];
        if (room->parts_used == room->parts_max || !take_part(cursor, part)) {
            return false;
        }
        components = part->is_component ? components + 1 : 0;
        lines += !part->is_component;
        if (lines > CART_LINES_MAX || components > BUNDLE_COMPONENTS_MAX) {
            return false;
        }
        if (order->more == NULL) {
            order->more = part;
        }
        room->parts_used++;
        order->more_count++;
    }
    return true;
}

static bool decode_sale(struct cursor *cursor, struct log_room *room, struct log_entry *out)
{
    out->kind = LOG_ENTRY_SALE;
    out->orders = room->orders + room->orders_used;
    while (cursor->at < cursor->end) {
        struct sale_order *order = &room->orders[room->orders_used];
        if (room->orders_used == room->orders_max || !take_order(cursor, order) ||
            !take_parts(cursor, room, order)) {
            return false;
        }
        room->orders_used++;
        out->order_count++;
    }
    return out->order_count > 0;
}

static bool decode_cancel(struct cursor *cursor, struct log_room *room, struct log_entry *out)
{
    struct cancellation *cancel = &out->cancel;
    out->kind = LOG_ENTRY_CANCEL;
    cancel->parts = room->parts + room->parts_used;
    if (!take_number(cursor, ' ', 1, INT64_MAX, &cancel->order_id) ||
        !take_number(cursor, ' ', 1, INT64_MAX, &cancel->user_id) ||
        !take_number(cursor, '\n', 0, INT64_MAX, &cancel->actor)) {
        return false;
    }
    while (cursor->at < cursor->end) {
        struct order_part *part = &room->parts[room->parts_used];
        if (room->parts_used == room->parts_max || cancel->part_count == ORDER_PARTS_MAX) {
            return false;
        }
        *part = (struct order_part){0};
        if (!take_number(cursor, ' ', 1, INT64_MAX, &part->product_id) ||
            !take_number(cursor, ' ', 1, COMPONENT_UNITS_MAX, &part->quantity) ||
            !take_number(cursor, '\n', INT64_MIN, INT64_MAX, &part->remaining)) {
            return false;
        }
        room->parts_used++;
        cancel->part_count++;
    }
    return cancel->part_count > 0;
}

static bool take_cause(struct cursor *cursor, enum stock_cause *out)
{
    for (int cause = 0; cause < STOCK_CAUSES; cause++) {
        size_t bytes = strlen(stock_cause_names[cause]);
        if ((size_t)(cursor->end - cursor->at) > bytes &&
            memcmp(cursor->at, stock_cause_names[cause], bytes) == 0 && cursor->at[bytes] == ' ') {
            cursor->at += bytes + 1;
            *out = (enum stock_cause)cause;
            return true;
        }
    }
    return false;
}

/* The rest of the line, without its end. */
static bool take_note(struct cursor *cursor, char out[SALES_LOG_NOTE_BYTES])
{
    size_t left = (size_t)(cursor->end - cursor->at);
    const char *newline = memchr(cursor->at, '\n', left);
    size_t bytes = newline != NULL ? (size_t)(newline - cursor->at) : left;
    if (bytes >= SALES_LOG_NOTE_BYTES) {
        return false;
    }
    memcpy(out, cursor->at, bytes);
    out[bytes] = '\0';
    cursor->at += bytes;
    bool is_text = text_is_utf8(out, bytes);
    for (size_t i = 0; !is_text && i < bytes; i++) {
        if ((unsigned char)out[i] >= 0x80 || out[i] == '\0') {
            /* our gates write UTF-8; what is none, not every store takes, and it must not stop the recorder */
            out[i] = '?';
        }
    }
    return true;
}

/* Behind a change's line: nothing, or a line "key <key>". */
static bool take_key_line(struct cursor *cursor, const char **key, size_t *key_bytes)
{
    static const char begin[] = "\nkey ";
    size_t left = (size_t)(cursor->end - cursor->at);
    if (left == 0) {
        return true;
    }
    if (left < sizeof begin - 1 || memcmp(cursor->at, begin, sizeof begin - 1) != 0) {
        return false;
    }
    cursor->at += sizeof begin - 1;
    return take_key(cursor, key, key_bytes) && cursor->at == cursor->end;
}

static bool decode_stock(struct cursor *cursor, struct log_entry *out)
{
    struct stock_change *change = &out->stock;
    out->kind = LOG_ENTRY_STOCK;
    return take_number(cursor, ' ', 1, INT64_MAX, &change->product_id) &&
           take_number(cursor, ' ', -PRODUCT_STOCK_MAX, PRODUCT_STOCK_MAX, &change->delta) &&
           take_number(cursor, ' ', INT64_MIN, INT64_MAX, &change->remaining) &&
           take_cause(cursor, &change->cause) && take_number(cursor, ' ', 0, INT64_MAX, &change->actor) &&
           take_note(cursor, change->note) && take_key_line(cursor, &change->key, &change->key_bytes);
}

static bool decode_price(struct cursor *cursor, struct log_entry *out)
{
    struct price_change *change = &out->price;
    out->kind = LOG_ENTRY_PRICE;
    return take_number(cursor, ' ', 1, INT64_MAX, &change->product_id) &&
           take_number(cursor, ' ', 1, PRODUCT_PRICE_MAX, &change->from) &&
           take_number(cursor, ' ', 1, PRODUCT_PRICE_MAX, &change->to) &&
           take_number(cursor, ' ', 0, INT64_MAX, &change->actor) && take_note(cursor, change->note) &&
           take_key_line(cursor, &change->key, &change->key_bytes);
}

/* Both its times, and a blank behind. */
static bool take_window(struct cursor *cursor, struct sale_window *out)
{
    return take_number(cursor, ' ', 0, SALE_TIME_MS_MAX, &out->starts_at_ms) &&
           take_number(cursor, ' ', 0, SALE_TIME_MS_MAX, &out->ends_at_ms);
}

static bool decode_window(struct cursor *cursor, struct log_entry *out)
{
    struct window_change *change = &out->window;
    out->kind = LOG_ENTRY_WINDOW;
    return take_number(cursor, ' ', 1, INT64_MAX, &change->product_id) &&
           take_window(cursor, &change->from) && take_window(cursor, &change->to) &&
           take_number(cursor, ' ', 0, INT64_MAX, &change->actor) && take_note(cursor, change->note) &&
           take_key_line(cursor, &change->key, &change->key_bytes);
}

/* No time: a worker writes it without a script, and only Redis's clock counts along the log. */
static bool decode_attach(struct cursor *cursor, struct log_entry *out)
{
    out->kind = LOG_ENTRY_ATTACH;
    return take_note(cursor, out->stock.note) && cursor->at == cursor->end;
}

static bool is_kind(const char *kind, size_t bytes, const char *name)
{
    return bytes == strlen(name) && memcmp(kind, name, bytes) == 0;
}

/* Those with a time in front. */
static const char *const kind_names[] = {[LOG_ENTRY_SALE] = "sale",
                                         [LOG_ENTRY_STOCK] = "stock",
                                         [LOG_ENTRY_CANCEL] = "cancel",
                                         [LOG_ENTRY_PRICE] = "price",
                                         [LOG_ENTRY_WINDOW] = "window"};

static enum log_entry_kind kind_of(const char *kind, size_t bytes)
{
    for (size_t i = 0; i < sizeof kind_names / sizeof kind_names[0]; i++) {
        if (is_kind(kind, bytes, kind_names[i])) {
            return (enum log_entry_kind)i;
        }
    }
    return is_kind(kind, bytes, LOG_ATTACH_WORD) ? LOG_ENTRY_ATTACH : LOG_ENTRY_FOREIGN;
}

bool log_kind_is_ours(const char *kind, size_t bytes)
{
    return kind_of(kind, bytes) < LOG_ENTRY_ATTACH;
}

static bool decode_kind(enum log_entry_kind kind, struct cursor *cursor, struct log_room *room,
                        struct log_entry *out)
{
    if (kind < LOG_ENTRY_ATTACH && !take_number(cursor, '\n', 0, AT_MS_MAX, &out->at_ms)) {
        return false;
    }
    switch (kind) {
    case LOG_ENTRY_SALE:
        return decode_sale(cursor, room, out);
    case LOG_ENTRY_STOCK:
        return decode_stock(cursor, out);
    case LOG_ENTRY_CANCEL:
        return decode_cancel(cursor, room, out);
    case LOG_ENTRY_PRICE:
        return decode_price(cursor, out);
    case LOG_ENTRY_WINDOW:
        return decode_window(cursor, out);
    case LOG_ENTRY_ATTACH:
        return decode_attach(cursor, out);
    default:
        return false;
    }
}

bool log_entry_decode(struct log_position position, const char *kind, size_t kind_bytes, const char *payload,
                      size_t payload_bytes, struct log_room *room, struct log_entry *out)
{
    struct cursor cursor = {.at = payload, .end = payload + payload_bytes};
    struct log_room before = *room;
    *out = (struct log_entry){.position = position};
    if (!decode_kind(kind_of(kind, kind_bytes), &cursor, room, out)) {
        *room = before;
        return false;
    }
    return true;
}

static int64_t units_of(const struct sale_order *order, int64_t product_id)
{
    int64_t units = order->product_id == product_id ? order->quantity : 0;
    for (size_t i = 0; i < order->more_count; i++) {
        units += order->more[i].product_id == product_id ? order->more[i].quantity : 0;
    }
    return units;
}

int64_t log_entry_stock_delta(const struct log_entry *entry, int64_t product_id)
{
    int64_t delta = 0;
    if (entry->kind == LOG_ENTRY_STOCK && entry->stock.product_id == product_id) {
        delta = entry->stock.delta;
    }
    for (size_t i = 0; i < entry->order_count; i++) {
        delta -= units_of(&entry->orders[i], product_id);
    }
    for (size_t i = 0; i < entry->cancel.part_count; i++) {
        const struct order_part *part = &entry->cancel.parts[i];
        delta += part->product_id == product_id ? part->quantity : 0;
    }
    return delta;
}

bool log_entry_price_change(const struct log_entry *entry, int64_t product_id, int64_t *from)
{
    bool changed = entry->kind == LOG_ENTRY_PRICE && entry->price.product_id == product_id;
    if (changed) {
        *from = entry->price.from;
    }
    return changed;
}

bool log_entry_window_change(const struct log_entry *entry, int64_t product_id, struct sale_window *from)
{
    bool changed = entry->kind == LOG_ENTRY_WINDOW && entry->window.product_id == product_id;
    if (changed) {
        *from = entry->window.from;
    }
    return changed;
}
