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
static bool take_key(struct cursor *cursor, struct sale_order *order)
{
    size_t left = (size_t)(cursor->end - cursor->at);
    const char *newline = memchr(cursor->at, '\n', left);
    size_t bytes = newline != NULL ? (size_t)(newline - cursor->at) : left;
    order->key = cursor->at;
    order->key_bytes = bytes;
    cursor->at += newline != NULL ? bytes + 1 : bytes;
    return idempotency_key_is_valid(order->key, bytes);
}

static bool take_remaining(struct cursor *cursor, struct sale_order *order)
{
    bool has_key = line_goes_on(cursor);
    order->key = NULL;
    order->key_bytes = 0;
    return take_number(cursor, has_key ? ' ' : '\n', INT64_MIN, INT64_MAX, &order->remaining) &&
           (!has_key || take_key(cursor, order));
}

static bool take_order(struct cursor *cursor, struct sale_order *order)
{
    return take_number(cursor, ' ', 1, INT64_MAX, &order->id) &&
           take_number(cursor, ' ', INT64_MIN, INT64_MAX, &order->request) &&
           take_number(cursor, ' ', 1, INT64_MAX, &order->user_id) &&
           take_number(cursor, ' ', 1, INT64_MAX, &order->product_id) &&
           take_number(cursor, ' ', 1, INT64_MAX, &order->quantity) &&
           take_number(cursor, ' ', 0, INT64_MAX, &order->unit_price) && take_remaining(cursor, order);
}

static bool decode_sale(struct cursor *cursor, struct sale_order *orders, size_t orders_max,
                        struct log_entry *out)
{
    size_t count = 0;
    while (cursor->at < cursor->end) {
        if (count == orders_max || !take_order(cursor, &orders[count])) {
            return false;
        }
        count++;
    }
    out->kind = LOG_ENTRY_SALE;
    out->orders = orders;
    out->order_count = count;
    return count > 0;
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

/* What is left, one line. */
static bool take_note(struct cursor *cursor, char out[SALES_LOG_NOTE_BYTES])
{
    size_t bytes = (size_t)(cursor->end - cursor->at);
    if (bytes >= SALES_LOG_NOTE_BYTES || memchr(cursor->at, '\n', bytes) != NULL) {
        return false;
    }
    memcpy(out, cursor->at, bytes);
    out[bytes] = '\0';
    return true;
}

static bool decode_stock(struct cursor *cursor, struct log_entry *out)
{
    struct stock_change *change = &out->stock;
    if (!take_number(cursor, ' ', 1, INT64_MAX, &change->product_id) ||
        !take_number(cursor, ' ', INT64_MIN, INT64_MAX, &change->delta) ||
        !take_number(cursor, ' ', INT64_MIN, INT64_MAX, &change->remaining) ||
        !take_cause(cursor, &change->cause) || !take_number(cursor, ' ', 0, INT64_MAX, &change->actor)) {
        return false;
    }
    out->kind = LOG_ENTRY_STOCK;
    return take_note(cursor, change->note);
}

/* No time: a worker writes it without a script, and only Redis's clock counts along the log. */
static bool decode_attach(struct cursor *cursor, struct log_entry *out)
{
    out->kind = LOG_ENTRY_ATTACH;
    return take_note(cursor, out->stock.note);
}

static bool is_kind(const char *kind, size_t bytes, const char *name)
{
    return bytes == strlen(name) && memcmp(kind, name, bytes) == 0;
}

bool log_entry_decode(struct log_position position, const char *kind, size_t kind_bytes, const char *payload,
                      size_t payload_bytes, struct sale_order *orders, size_t orders_max,
                      struct log_entry *out)
{
    struct cursor cursor = {.at = payload, .end = payload + payload_bytes};
    *out = (struct log_entry){.position = position};
    if (is_kind(kind, kind_bytes, LOG_ATTACH_WORD)) {
        return decode_attach(&cursor, out);
    }
    if (!take_number(&cursor, '\n', 0, INT64_MAX, &out->at_ms)) {
        return false;
    }
    if (is_kind(kind, kind_bytes, "sale")) {
        return decode_sale(&cursor, orders, orders_max, out);
    }
    if (is_kind(kind, kind_bytes, "stock")) {
        return decode_stock(&cursor, out);
    }
    return false;
}

int64_t log_entry_stock_delta(const struct log_entry *entry, int64_t product_id)
{
    if (entry->kind == LOG_ENTRY_STOCK) {
        return entry->stock.product_id == product_id ? entry->stock.delta : 0;
    }
    int64_t delta = 0;
    for (size_t i = 0; i < entry->order_count; i++) {
        if (entry->orders[i].product_id == product_id) {
            delta -= entry->orders[i].quantity;
        }
    }
    return delta;
}
