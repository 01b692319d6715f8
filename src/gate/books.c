/* Redis's side of the books over a blocking connection: head, log, stock at a log position, changes of stock. Runs in the recorder, in
 * the tools and on pool threads; owns nothing but the replies it is reading. Fails with false and redis_failure(). */
#include "doorbuster/gate_books.h"

#include "doorbuster/check.h"
#include "doorbuster/clock.h"
#include "doorbuster/log.h"
#include "doorbuster/text.h"
#include "keys.h"
#include "news.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#define HEAD_RETRY_MS 20
#define ASK_MENDING_EVERY_US 500000
#define REDIS_FAILURE_BYTES 256
#define COUNTER_END INT64_C(100000000000000) /* beyond, Lua would print 1e+14 */
#define ANNOUNCE_BYTES_MAX (256 * 1024)      /* every order of a run rejected */

static bool reply_to_int64(const redisReply *reply, int64_t *out)
{
    if (reply->type == REDIS_REPLY_INTEGER) {
        *out = reply->integer;
        return true;
    }
    return reply->type == REDIS_REPLY_STRING &&
           text_to_int64(reply->str, reply->len, INT64_MIN, INT64_MAX, out);
}

/* --- the head ---------------------------------------------------------------------------------------------------------------- */
/* The highest id that trimming may have taken: Redis itself notes only what XDEL took. Within an epoch the numbers are dense, so it is the
 * one before the first entry; across epochs nobody knows the last number of the one before. */
static struct log_position trimmed_up_to(struct log_position first, struct log_position last, int64_t length)
{
    if (length == 0) {
        return last;
    }
    return first.n > 0       ? (struct log_position){first.epoch, first.n - 1}
           : first.epoch > 0 ? (struct log_position){first.epoch - 1, UINT64_MAX}
                             : first;
}

static void read_stream_info(const redisReply *info, struct gate_head *out)
{
    struct log_position first = {0, 0};
    int64_t length = 0, added = 0;
    for (size_t i = 0; i + 1 < info->elements; i += 2) {
        const char *name = redis_text(info->element[i]);
        const redisReply *value = info->element[i + 1];
        struct log_position *target = strcmp(name, "last-generated-id") == 0         ? &out->log_last
                                      : strcmp(name, "max-deleted-entry-id") == 0    ? &out->log_lost
                                      : strcmp(name, "recorded-first-entry-id") == 0 ? &first
                                                                                     : NULL;
        if (target != NULL && value->type == REDIS_REPLY_STRING) {
            log_position_parse(value->str, value->len, target);
        } else if (strcmp(name, "length") == 0) {
            reply_to_int64(value, &length);
        } else if (strcmp(name, "entries-added") == 0) {
            reply_to_int64(value, &added);
        }
    }
    struct log_position trimmed =
        added > length ? trimmed_up_to(first, out->log_last, length) : out->log_lost;
    if (log_position_compare(trimmed, out->log_lost) > 0) {
        out->log_lost = trimmed;
    }
}

/* The key does not exist, or holds something else, which to us is the same: *missing. */
static redisReply *ask_about(redisContext *redis, const char *format, const char *key, bool *missing)
{
    redisReply *reply = redis_ask(redis, format, key);
    *missing =
        reply == NULL && redis->err == 0 &&
        (text_begins_with(redis_failure(), "WRONGTYPE") || strstr(redis_failure(), "no such key") != NULL);
    return reply;
}

/* A number that the scripts can count with; else -1. */
static int64_t counter(const redisReply *reply)
{
    int64_t number;
    return reply_to_int64(reply, &number) && number >= 0 && number < COUNTER_END ? number : -1;
}

const char *const gate_script_fields[GATE_SCRIPTS] = {"sell", "stock", "cancel"};

static void read_script_fields(redisReply *const *fields, struct gate_head *out)
{
    for (int i = 0; i < GATE_SCRIPTS; i++) {
        if (fields[i]->type == REDIS_REPLY_STRING && fields[i]->len == GATE_SCRIPT_SHA_BYTES - 1) {
            memcpy(out->scripts[i], fields[i]->str, GATE_SCRIPT_SHA_BYTES);
        }
    }
}

#define HEAD_FIELDS (5 + GATE_SCRIPTS) /* epoch orders store at, the scripts, master */

static void read_head_fields(const redisReply *head, struct gate_head *out)
{
    int64_t epoch = 0;
    if (reply_to_int64(head->element[0], &epoch) && epoch > 0) {
        out->epoch = (uint64_t)epoch;
    }
    out->orders = counter(head->element[1]);
    out->exists = reply_to_int64(head->element[2], &out->store_id) && out->epoch <= LOG_EPOCH_MAX;
    out->epoch = out->exists ? out->epoch : 0;
    out->at_ms = counter(head->element[3]);
    read_script_fields(&head->element[4], out);
    const redisReply *master = head->element[4 + GATE_SCRIPTS];
    snprintf(out->opened_on, sizeof out->opened_on, "%s",
             master->type == REDIS_REPLY_STRING ? master->str : "");
}

static bool read_master(redisContext *redis, struct gate_head *out)
{
    char role[16];
    redisReply *info = redis_ask(redis, "INFO replication");
    if (info == NULL) {
        return false;
    }
    redis_info_value(redis_text(info), "role:", role, sizeof role);
    redis_info_value(redis_text(info), "master_replid:", out->master, sizeof out->master);
    out->is_replica = strcmp(role, "master") != 0;
    return redis_done(info);
}

bool gate_read_head(redisContext *redis, struct gate_head *out)
{
    *out = (struct gate_head){.orders = -1, .at_ms = -1};
    bool missing;
    if (!read_master(redis, out)) {
        return false;
    }
    redisReply *head =
        ask_about(redis, "HMGET %s epoch orders store at sell stock cancel master", gate_keys.head, &missing);
    if (!missing) {
        head = redis_list_of(head, HEAD_FIELDS);
        if (head == NULL) {
            return false;
        }
        read_head_fields(head, out);
        freeReplyObject(head);
    }
    redisReply *info = ask_about(redis, "XINFO STREAM %s", gate_keys.log, &missing);
    if (missing) {
        return true;
    }
    info = redis_list_of(info, 0);
    if (info == NULL) {
        return false;
    }
    read_stream_info(info, out);
    if (out->log_last.epoch > LOG_EPOCH_MAX) { /* nothing can follow on that */
        out->log_last = (struct log_position){0, 0};
        out->exists = false;
    }
    return redis_done(info);
}

/* --- the log ------------------------------------------------------------------------------------------------------------------- */
/* One [id, [kind, payload]] of XRANGE or XREAD. */
static bool decode_entry(const redisReply *entry, struct log_room *room, struct log_entry *out)
{
    struct log_position position;
    if (!redis_is_list(entry, 2) ||
        !log_position_parse(redis_text(entry->element[0]), entry->element[0]->len, &position) ||
        position.epoch > LOG_EPOCH_MAX) {
        return false;
    }
    const redisReply *fields = entry->element[1];
    return fields->type == REDIS_REPLY_ARRAY && fields->elements == 2 &&
           log_entry_decode(position, redis_text(fields->element[0]), fields->element[0]->len,
                            redis_text(fields->element[1]), fields->element[1]->len, room, out);
}

/* Somebody else's entry is passed over. One that pretends to be ours, or has an id that we cannot count with, is not: what it sold is unknown. */
static void describe_unreadable(const redisReply *reply, struct log_position before, struct log_entry *out)
{
    const redisReply *fields = redis_is_list(reply, 2) ? reply->element[1] : NULL;
    const char *id = fields != NULL ? redis_text(reply->element[0]) : "";
    bool named = fields != NULL && redis_is_list(fields, 1);
    bool ours = named && log_kind_is_ours(redis_text(fields->element[0]), fields->element[0]->len);
    *out = (struct log_entry){.kind = ours ? LOG_ENTRY_DAMAGED : LOG_ENTRY_FOREIGN};
    if (!log_position_parse(id, strlen(id), &out->position) || out->position.epoch > LOG_EPOCH_MAX) {
        *out = (struct log_entry){.kind = LOG_ENTRY_DAMAGED, .position = before};
    }
    log_error("the sales log has an entry that is not ours, or is damaged: XRANGE %s %s %s shows it",
              gate_keys.log, id, id);
}

/* Into the connection's buffer: what is asked next takes it along. */
static void append_announcement(redisContext *redis, const struct gate_announcement *announcement)
{
    static char news[ANNOUNCE_BYTES_MAX]; /* only the recorder announces, in its one thread */
    size_t used = recorded_news_format(announcement, news, sizeof news);
    redisAppendCommand(redis, "PUBLISH %s %b", gate_keys.news, news, used);
}

bool gate_announce(redisContext *redis, const struct gate_announcement *announcement)
{
    append_announcement(redis, announcement);
    return redis_done(redis_next_reply(redis));
}

/* For whatever entry may come next. */
static bool has_room(const struct log_room *room)
{
    return room->orders_max - room->orders_used >= SALES_LOG_ORDERS_MAX &&
           room->parts_max - room->parts_used >= SALES_LOG_PARTS_MAX;
}

/* Of XREAD of one stream: [[name, entries]]. */
static const redisReply *entries_of(const redisReply *reply)
{
    const redisReply *stream = redis_is_list(reply, 1) ? reply->element[0] : NULL;
    return stream != NULL && redis_is_list(stream, 2) && redis_is_list(stream->element[1], 0)
               ? stream->element[1]
               : NULL;
}

bool gate_read_log(redisContext *redis, const struct gate_announcement *announcement,
                   struct log_position after, int block_ms, struct log_entry *entries, size_t max,
                   struct log_room *room, size_t *count, redisReply **reply_out)
{
    room->orders_used = room->parts_used = 0;
    CHECK(has_room(room));
    *count = 0;
    *reply_out = NULL;
    char from[SALES_LOG_POSITION_BYTES];
    log_position_format(after, from);
    if (announcement != NULL) {
        append_announcement(redis, announcement);
    }
    if (block_ms > 0) {
        redisAppendCommand(redis, "XREAD COUNT %u BLOCK %d STREAMS %s %s", (unsigned)max, block_ms,
                           gate_keys.log, from);
    } else {
        redisAppendCommand(redis, "XREAD COUNT %u STREAMS %s %s", (unsigned)max, gate_keys.log, from);
    }
    if (announcement != NULL && !redis_done(redis_next_reply(redis))) {
        redis->err =
            redis->err ? redis->err : REDIS_ERR_OTHER; /* the other reply is still to come: not usable */
        return false;
    }
    redisReply *reply = redis_next_reply(redis);
    if (reply == NULL) {
        return false;
    }
    if (reply->type == REDIS_REPLY_NIL) {
        return redis_done(reply);
    }
    const redisReply *list = entries_of(reply);
    if (list == NULL) {
        return redis_not_understood(reply);
    }
    for (size_t i = 0; i < list->elements && i < max && has_room(room); i++) {
        struct log_entry *entry = &entries[i];
        if (!decode_entry(list->element[i], room, entry)) {
            describe_unreadable(list->element[i], after, entry);
        }
        after = entry->position;
        (*count)++;
    }
    *reply_out = reply;
    return true;
}

/* --- asking the recorder ----------------------------------------------------------------------------------------------------------- */
bool gate_ask_attach(redisContext *redis, uint64_t epoch, const char *why)
{
    return redis_done(redis_ask(redis, "XADD %s NOMKSTREAM %" PRIu64 "-* " LOG_ATTACH_WORD " %s",
                                gate_keys.log, epoch, why)) ||
           strstr(redis_failure(), "equal or smaller") != NULL;
}

/* --- a product at a position ------------------------------------------------------------------------------------------------------ */
#define PRODUCT_FIELDS "stock price limit sold_out starts ends components"
#define PRODUCT_FIELD_COUNT 7

/* The product asked for, and the components of a bundle: each one's live stock, and what it was at the position. */
struct stock_reading {
    int64_t ids[1 + BUNDLE_COMPONENTS_MAX];
    int64_t live[1 + BUNDLE_COMPONENTS_MAX], at[1 + BUNDLE_COMPONENTS_MAX];
    size_t count;
};

/* Of the terms counts what was before the first change behind the position. */
struct terms_known {
    bool price, window;
};

static void undo_terms(const struct log_entry *entry, int64_t product_id, struct gate_stock *out,
                       struct terms_known *known)
{
    int64_t price;
    struct sale_window window;
    if (!known->price && log_entry_price_change(entry, product_id, &price)) {
        out->price_at = price;
        known->price = true;
    }
    if (!known->window && log_entry_window_change(entry, product_id, &window)) {
        out->window_at = window;
        known->window = true;
    }
}

static void undo_entry(const struct log_entry *entry, struct stock_reading *reading, struct gate_stock *out)
{
    for (size_t i = 0; i < reading->count; i++) {
        int64_t delta = log_entry_stock_delta(entry, reading->ids[i]);
        reading->at[i] -= delta;
        out->in_flight += i == 0 && entry->kind == LOG_ENTRY_SALE ? -delta : 0;
    }
}

/* All products' readings at once: each entry is decoded once. */
static void undo_entries(const redisReply *list, struct stock_reading *readings, struct gate_stock *out,
                         size_t count, struct gate_behind *behind)
{
    static _Thread_local struct sale_order orders[SALES_LOG_ORDERS_MAX];
    static _Thread_local struct order_part parts[SALES_LOG_PARTS_MAX];
    struct terms_known known[GATE_STOCKS_MAX] = {0};
    *behind = (struct gate_behind){0};
    for (size_t i = 0; list->type == REDIS_REPLY_ARRAY && i < list->elements; i++) {
        struct log_entry entry;
        struct log_room room = {.orders = orders,
                                .orders_max = SALES_LOG_ORDERS_MAX,
                                .parts = parts,
                                .parts_max = SALES_LOG_PARTS_MAX};
        behind->entries++;
        if (decode_entry(list->element[i], &room, &entry)) { /* else it is not ours: it changed nothing */
            behind->oldest_at_ms = behind->oldest_at_ms == 0 ? entry.at_ms : behind->oldest_at_ms;
            for (size_t j = 0; j < count; j++) {
                undo_entry(&entry, &readings[j], &out[j]);
                undo_terms(&entry, readings[j].ids[0], &out[j], &known[j]);
            }
        }
    }
}

static void read_sold_out(const redisReply *field, struct gate_stock *out)
{
    const char *space = field->type == REDIS_REPLY_STRING ? strchr(field->str, ' ') : NULL;
    out->sold_out =
        space != NULL &&
        text_to_int64(field->str, (size_t)(space - field->str), 0, INT64_MAX, &out->sold_out_order) &&
        text_to_int64(space + 1, strlen(space + 1), 0, INT64_MAX, &out->sold_out_at_ms);
}

/* "5:2 7:1". What cannot be read leaves a component that no bundle has. */
static void read_components(const redisReply *field, struct sale_product *out)
{
    const char *at = field->type == REDIS_REPLY_STRING ? field->str : "";
    while (*at != '\0' && out->component_count < BUNDLE_COMPONENTS_MAX) {
        struct bundle_component *component = &out->components[out->component_count++];
        size_t bytes = strcspn(at, " "), id_bytes = strcspn(at, ": ");
        *component = (struct bundle_component){0};
        if (id_bytes < bytes) {
            text_to_int64(at, id_bytes, 1, INT64_MAX, &component->product_id);
            text_to_int64(at + id_bytes + 1, bytes - id_bytes - 1, 1, INT64_MAX, &component->quantity);
        }
        at += bytes + (at[bytes] == ' ');
    }
}

static void read_product_fields(const redisReply *fields, struct gate_stock *out)
{
    struct sale_product *now = &out->now;
    bool has_stock = reply_to_int64(fields->element[0], &now->stock);
    bool has_price = reply_to_int64(fields->element[1], &now->price);
    reply_to_int64(fields->element[2], &now->limit);
    read_sold_out(fields->element[3], out);
    reply_to_int64(fields->element[4], &now->starts_at_ms);
    reply_to_int64(fields->element[5], &now->ends_at_ms);
    read_components(fields->element[6], now);
    out->on_sale = has_stock || (has_price && now->component_count > 0);
    out->price_at = now->price;
    out->window_at = (struct sale_window){now->starts_at_ms, now->ends_at_ms};
}

static void read_log_info(const redisReply *info, struct log_position at, struct gate_stock *out)
{
    struct gate_head log = {0};
    if (info->type == REDIS_REPLY_ARRAY) {
        read_stream_info(info, &log);
    }
    out->at_known =
        log_position_compare(log.log_lost, at) <= 0 && log_position_compare(at, log.log_last) <= 0;
}

static int64_t allowed_by(const int64_t *stocks, const struct sale_product *bundle)
{
    int64_t most = INT64_MAX;
    for (size_t i = 0; i < bundle->component_count; i++) {
        int64_t allows = stocks[i] / bundle->components[i].quantity;
        most = allows < most ? allows : most;
    }
    return most;
}

/* What EXEC gave of one product: its own fields, then each of its components'. */
static void read_live(redisReply *const *fields, struct stock_reading *reading, struct gate_stock *out)
{
    if (redis_is_list(fields[0], PRODUCT_FIELD_COUNT)) { /* else the key holds something else: not on sale */
        read_product_fields(fields[0], out);
    }
    reading->live[0] = out->now.stock;
    for (size_t i = 1; i < reading->count; i++) {
        out->on_sale = redis_is_list(fields[i], 1) &&
                       reply_to_int64(fields[i]->element[0], &reading->live[i]) && out->on_sale;
    }
    memcpy(reading->at, reading->live, sizeof reading->at);
}

static void take_figures(const struct stock_reading *reading, const struct sale_product *product,
                         struct gate_stock *out)
{
    bool is_bundle = product->component_count > 0;
    out->available = is_bundle ? allowed_by(reading->live + 1, product) : reading->live[0];
    out->stock_at = is_bundle ? allowed_by(reading->at + 1, product) : reading->at[0];
    memcpy(out->components_at, reading->at + 1, sizeof out->components_at);
}

/* What EXEC gave: each product and its components, then the entries, the log's info, the epoch. */
static void read_stock_replies(const redisReply *all, const struct sale_product *products, size_t count,
                               struct log_position at, struct stock_reading *readings, struct gate_stock *out,
                               struct gate_behind *behind)
{
    redisReply *const *reply = all->element;
    for (size_t i = 0; i < count; i++) {
        read_live(reply, &readings[i], &out[i]);
        reply += readings[i].count;
    }
    const redisReply *entries = reply[0], *info = reply[1], *epoch = reply[2];
    undo_entries(entries, readings, out, count, behind);
    bool is_open = epoch->type == REDIS_REPLY_STRING && strcmp(epoch->str, "0") != 0;
    for (size_t i = 0; i < count; i++) {
        take_figures(&readings[i], &products[i], &out[i]);
        read_log_info(info, at, &out[i]);
        out[i].at_known = out[i].at_known && is_open; /* else the recorder is filling it just now */
    }
}

static void begin_reading(const struct sale_product *product, struct stock_reading *reading,
                          struct gate_stock *out)
{
    *reading = (struct stock_reading){.ids = {product->id}, .count = 1 + product->component_count};
    *out = (struct gate_stock){.now = {.id = product->id}};
    for (size_t i = 0; i < product->component_count; i++) {
        reading->ids[1 + i] = product->components[i].product_id;
    }
}

/* Into the connection's buffer. How many commands EXEC will answer. */
static size_t ask_stocks(redisContext *redis, const struct stock_reading *readings, size_t count,
                         struct log_position at)
{
    char from[SALES_LOG_POSITION_BYTES];
    size_t asked = 3;
    log_position_format(at, from);
    redisAppendCommand(redis, "MULTI");
    for (size_t i = 0; i < count; i++) {
        for (size_t j = 0; j < readings[i].count; j++) {
            redisAppendCommand(redis, "HMGET %s%" PRId64 " " PRODUCT_FIELDS, gate_keys.product,
                               readings[i].ids[j]);
        }
        asked += readings[i].count;
    }
    redisAppendCommand(redis, "XRANGE %s (%s +", gate_keys.log, from);
    redisAppendCommand(redis, "XINFO STREAM %s", gate_keys.log);
    redisAppendCommand(redis, "HGET %s epoch", gate_keys.head);
    redisAppendCommand(redis, "EXEC");
    return asked;
}

bool gate_read_stocks(redisContext *redis, const struct sale_product *products, size_t count,
                      struct log_position at, struct gate_stock *out, struct gate_behind *behind)
{
    struct stock_reading readings[GATE_STOCKS_MAX];
    struct gate_behind unwanted;
    CHECK(count <= GATE_STOCKS_MAX);
    for (size_t i = 0; i < count; i++) {
        begin_reading(&products[i], &readings[i], &out[i]);
    }
    size_t asked = ask_stocks(redis, readings, count, at);
    for (size_t i = 0; i < asked + 1; i++) {
        void *queued = NULL;
        if (redisGetReply(redis, &queued) != REDIS_OK) {
            redis_ask(redis, "PING"); /* the connection is broken: lets redis_failure() say so */
            return false;
        }
        freeReplyObject(queued);
    }
    redisReply *all = redis_next_reply(redis);
    if (all == NULL) {
        return false;
    }
    bool ok = all->type == REDIS_REPLY_ARRAY && all->elements == asked;
    if (ok) {
        read_stock_replies(all, products, count, at, readings, out, behind != NULL ? behind : &unwanted);
    }
    freeReplyObject(all);
    return ok;
}

bool gate_read_stock(redisContext *redis, const struct sale_product *product, struct log_position at,
                     struct gate_stock *out)
{
    return gate_read_stocks(redis, product, 1, at, out, NULL);
}

/* --- changing stock ---------------------------------------------------------------------------------------------------------------- */
size_t gate_components_text(const struct sale_product *product, char out[GATE_COMPONENTS_BYTES])
{
    size_t used = 0;
    out[0] = '\0';
    for (size_t i = 0; i < product->component_count; i++) {
        used += (size_t)snprintf(out + used, GATE_COMPONENTS_BYTES - used, "%s%" PRId64 ":%" PRId64,
                                 i > 0 ? " " : "", product->components[i].product_id,
                                 product->components[i].quantity);
    }
    return used;
}

static enum change_outcome classify_failure(void)
{
    const char *failure = redis_failure();
    return text_begins_with(failure, "CLOSED")  ? CHANGE_CLOSED
           : text_begins_with(failure, "SHORT") ? CHANGE_SHORT
           : text_begins_with(failure, "FULL")  ? CHANGE_FULL
           : text_begins_with(failure, "NEVER") ? CHANGE_NEVER_OPEN
                                                : CHANGE_FAILED;
}

/* A script found damage: the recorder shall fill Redis anew. Not at every try: mending takes it a moment. */
static void ask_for_mending(redisContext *redis, const char *damage)
{
    static _Thread_local int64_t next_us;
    char why[SALES_LOG_NOTE_BYTES];
    struct gate_head head;
    if (clock_monotonic_us() < next_us) {
        return;
    }
    next_us = clock_monotonic_us() + ASK_MENDING_EVERY_US;
    snprintf(why, sizeof why, LOG_REBUILD_WORD "a script found %.*s", (int)strcspn(damage, "\n"), damage);
    log_error("gate: %s: asking for a rebuild", damage);
    if (!gate_read_head(redis, &head) || !gate_ask_attach(redis, head.epoch, why)) {
        log_warn("gate: asking for a rebuild: %s", redis_failure());
    }
}

/* Is the gate being opened anew, or mended? Then the same will work in a moment. */
static bool is_reopening(redisContext *redis)
{
    char failure[REDIS_FAILURE_BYTES];
    snprintf(failure, sizeof failure, "%s", redis_failure());
    bool is_damaged = text_begins_with(failure, "DAMAGED");
    if (is_damaged) {
        ask_for_mending(redis, failure);
    }
    return is_damaged || text_begins_with(failure, "STALE") || text_begins_with(failure, "NOSCRIPT");
}

/* What stock.lua is given, by an admin or the system. */
struct change_words {
    const char *what;
    int64_t product_id, figure, actor;
    const char *note, *key;
    size_t key_bytes;
    const struct sale_product *opening;
    struct sale_window window; /* of an opening, or asked for */
};

static redisReply *call_stock_script(redisContext *redis, const struct change_words *words)
{
    static const struct sale_product none = {0};
    const struct sale_product *opening = words->opening != NULL ? words->opening : &none;
    char components[GATE_COMPONENTS_BYTES];
    gate_components_text(opening, components);
    redisReply *head = redis_ask(redis, "HGET %s stock", gate_keys.head);
    if (head == NULL) {
        return NULL;
    }
    redisReply *reply =
        redis_ask(redis,
                  "EVALSHA %s 6 %s %s %s %s %s %s %s %" PRId64 " %" PRId64 " %" PRId64 " %b %s %" PRId64
                  " %" PRId64 " %" PRId64 " %" PRId64 " %s",
                  head->type == REDIS_REPLY_STRING ? head->str : "none", gate_keys.head, gate_keys.log,
                  gate_keys.product, gate_keys.buyers, gate_keys.changed, gate_keys.stock_news, words->what,
                  words->product_id, words->figure, words->actor, words->key != NULL ? words->key : "",
                  words->key_bytes, words->note, opening->price, opening->limit, words->window.starts_at_ms,
                  words->window.ends_at_ms, components);
    freeReplyObject(head);
    return reply;
}

const char *const gate_change_words[] = {
    [CHANGE_OF_STOCK] = "stock", [CHANGE_OF_PRICE] = "price", [CHANGE_OF_WINDOW] = "window"};

static bool take_position(const redisReply *reply, struct log_position *out)
{
    return reply->type == REDIS_REPLY_STRING && log_position_parse(reply->str, reply->len, out);
}

static enum change_kind kind_of_change(const char *word)
{
    int kind = CHANGE_OF_WINDOW;
    while (kind > CHANGE_OF_STOCK && strcmp(word, gate_change_words[kind]) != 0) {
        kind--;
    }
    return (enum change_kind)kind;
}

/* What stock.lua answers: position, stock, product, figure, changed, kind. A change has a position. */
static bool take_change(const redisReply *reply, struct change_result *out, bool *changed)
{
    if (!redis_is_list(reply, 6)) {
        return false;
    }
    *out = (struct change_result){.stock = reply->element[1]->integer,
                                  .product_id = reply->element[2]->integer,
                                  .figure = reply->element[3]->integer,
                                  .kind = kind_of_change(redis_text(reply->element[5]))};
    *changed = reply->element[4]->integer == 1;
    return take_position(reply->element[0], &out->position) || !*changed;
}

static enum change_outcome change_by_script(redisContext *redis, const struct change_words *words,
                                            int patience_ms, struct change_result *result)
{
    int64_t deadline_us = clock_monotonic_us() + (int64_t)patience_ms * 1000;
    redisReply *reply;
    while ((reply = call_stock_script(redis, words)) == NULL) {
        enum change_outcome failure = classify_failure();
        if (!is_reopening(redis) || clock_monotonic_us() >= deadline_us) {
            return failure;
        }
        nanosleep(&(struct timespec){.tv_nsec = HEAD_RETRY_MS * 1000000}, NULL);
    }
    bool changed;
    if (!take_change(reply, result, &changed)) {
        redis_not_understood(reply);
        return CHANGE_FAILED;
    }
    freeReplyObject(reply);
    return changed ? CHANGE_MADE : CHANGE_MADE_BEFORE;
}

enum change_outcome gate_change_stock(redisContext *redis, const struct stock_change *change,
                                      const struct sale_product *opening, int patience_ms,
                                      struct change_result *result)
{
    CHECK((change->cause == STOCK_OPENING) == (opening != NULL));
    struct change_words words = {.what = stock_cause_names[change->cause],
                                 .product_id = change->product_id,
                                 .figure = change->delta,
                                 .actor = change->actor,
                                 .note = change->note,
                                 .key = change->key,
                                 .key_bytes = change->key_bytes,
                                 .opening = opening};
    if (opening != NULL) {
        words.window = (struct sale_window){opening->starts_at_ms, opening->ends_at_ms};
    }
    return change_by_script(redis, &words, patience_ms, result);
}

enum change_outcome gate_change_price(redisContext *redis, const struct price_change *change, int patience_ms,
                                      struct change_result *result)
{
    CHECK(change->to >= 1 && change->to <= PRODUCT_PRICE_MAX);
    struct change_words words = {.what = "price",
                                 .product_id = change->product_id,
                                 .figure = change->to,
                                 .actor = change->actor,
                                 .note = change->note,
                                 .key = change->key,
                                 .key_bytes = change->key_bytes};
    return change_by_script(redis, &words, patience_ms, result);
}

enum change_outcome gate_change_window(redisContext *redis, const struct window_change *change,
                                       int patience_ms, struct change_result *result)
{
    CHECK(sale_window_may_be_asked(&change->to));
    struct change_words words = {.what = "window",
                                 .product_id = change->product_id,
                                 .actor = change->actor,
                                 .note = change->note,
                                 .key = change->key,
                                 .key_bytes = change->key_bytes,
                                 .window = change->to};
    return change_by_script(redis, &words, patience_ms, result);
}

/* --- cancelling -------------------------------------------------------------------------------------------------------------------- */
#define CANCEL_FIXED 12 /* EVALSHA, sha, number of keys, 6 keys, order, user, actor */

bool gate_take_pass(redisContext *redis, struct gate_pass *out)
{
    redisReply *sha = redis_ask(redis, "HGET %s cancel", gate_keys.head);
    if (sha == NULL) {
        return false;
    }
    snprintf(out->script, sizeof out->script, "%s", sha->type == REDIS_REPLY_STRING ? sha->str : "none");
    return redis_done(sha);
}

static redisReply *call_cancel_script(redisContext *redis, const struct gate_pass *pass,
                                      const struct cancellation *cancel)
{
    char mark[GATE_KEY_BYTES + TEXT_INT64_BYTES];
    char numbers[3 + 2 * ORDER_PARTS_MAX][TEXT_INT64_BYTES];
    const char *argv[CANCEL_FIXED + 2 * ORDER_PARTS_MAX] = {
        "EVALSHA",         pass->script,     "6",  gate_keys.head,      gate_keys.log,
        gate_keys.product, gate_keys.buyers, mark, gate_keys.stock_news};
    size_t count = 0;
    snprintf(mark, sizeof mark, "%s%" PRId64, gate_keys.cancelled, cancel->order_id);
    text_from_int64(cancel->order_id, numbers[count++]);
    text_from_int64(cancel->user_id, numbers[count++]);
    text_from_int64(cancel->actor, numbers[count++]);
    for (size_t i = 0; i < cancel->part_count; i++) {
        text_from_int64(cancel->parts[i].product_id, numbers[count++]);
        text_from_int64(cancel->parts[i].quantity, numbers[count++]);
    }
    for (size_t i = 0; i < count; i++) {
        argv[CANCEL_FIXED - 3 + i] = numbers[i];
    }
    redisAppendCommandArgv(redis, (int)(CANCEL_FIXED - 3 + count), argv, NULL);
    return redis_next_reply(redis);
}

enum change_outcome gate_cancel(redisContext *redis, const struct gate_pass *pass,
                                const struct cancellation *cancel, struct change_result *result,
                                bool *is_void)
{
    CHECK(cancel->part_count >= 1 && cancel->part_count <= ORDER_PARTS_MAX);
    *result = (struct change_result){0};
    redisReply *reply = call_cancel_script(redis, pass, cancel);
    *is_void = reply == NULL && is_reopening(redis);
    if (reply == NULL) {
        return CHANGE_FAILED;
    }
    if (!redis_is_list(reply, 2) || !take_position(reply->element[0], &result->position)) {
        redis_not_understood(reply);
        return CHANGE_FAILED;
    }
    bool changed = reply->element[1]->integer == 1;
    freeReplyObject(reply);
    return changed ? CHANGE_MADE : CHANGE_MADE_BEFORE;
}
