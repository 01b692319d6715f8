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
#define COUNTER_END INT64_C(100000000000000) /* beyond, Lua would print 1e+14 */
#define ANNOUNCE_BYTES_MAX (256 * 1024)      /* every order of a run rejected */

static bool begins_with(const char *text, const char *word)
{
    return strncmp(text, word, strlen(word)) == 0;
}

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
        const char *name = info->element[i]->str;
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
static redisReply *ask_about(redisContext *redis, const char *command, bool *missing)
{
    redisReply *reply = redis_ask(redis, command);
    *missing = reply == NULL && redis->err == 0 &&
               (begins_with(redis_failure(), "WRONGTYPE") || strstr(redis_failure(), "no such key") != NULL);
    return reply;
}

/* A number that the scripts can count with; else -1. */
static int64_t counter(const redisReply *reply)
{
    int64_t number;
    return reply_to_int64(reply, &number) && number >= 0 && number < COUNTER_END ? number : -1;
}

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
}

bool gate_read_head(redisContext *redis, struct gate_head *out)
{
    *out = (struct gate_head){.orders = -1, .at_ms = -1};
    bool missing;
    redisReply *head = ask_about(redis, "HMGET " KEY_HEAD " epoch orders store at", &missing);
    if (head != NULL) {
        read_head_fields(head, out);
        freeReplyObject(head);
    } else if (!missing) {
        return false;
    }
    redisReply *info = ask_about(redis, "XINFO STREAM " KEY_LOG, &missing);
    if (info == NULL) {
        return missing;
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
static bool decode_entry(const redisReply *entry, struct sale_order *orders, size_t orders_max,
                         struct log_entry *out)
{
    struct log_position position;
    if (entry->elements != 2 ||
        !log_position_parse(entry->element[0]->str, entry->element[0]->len, &position) ||
        position.epoch > LOG_EPOCH_MAX) {
        return false;
    }
    const redisReply *fields = entry->element[1];
    return fields->type == REDIS_REPLY_ARRAY && fields->elements == 2 &&
           log_entry_decode(position, fields->element[0]->str, fields->element[0]->len,
                            fields->element[1]->str, fields->element[1]->len, orders, orders_max, out);
}

static bool is_word(const redisReply *text, const char *word)
{
    return text->len == strlen(word) && memcmp(text->str, word, text->len) == 0;
}

/* Somebody else's entry is passed over. One that pretends to be ours, or has an id that we cannot count with, is not: what it sold is unknown. */
static void describe_unreadable(const redisReply *reply, struct log_position before, struct log_entry *out)
{
    const redisReply *id = reply->element[0], *fields = reply->elements > 1 ? reply->element[1] : NULL;
    bool named = fields != NULL && fields->type == REDIS_REPLY_ARRAY && fields->elements > 0;
    bool ours = named && (is_word(fields->element[0], "sale") || is_word(fields->element[0], "stock"));
    *out = (struct log_entry){.kind = ours ? LOG_ENTRY_DAMAGED : LOG_ENTRY_FOREIGN};
    if (!log_position_parse(id->str, id->len, &out->position) || out->position.epoch > LOG_EPOCH_MAX) {
        *out = (struct log_entry){.kind = LOG_ENTRY_DAMAGED, .position = before};
    }
    log_error("the sales log has an entry that is not ours, or is damaged: XRANGE " KEY_LOG " %s %s shows it",
              id->str, id->str);
}

/* Into the connection's buffer: what is asked next takes it along. */
static void append_announcement(redisContext *redis, const struct gate_announcement *announcement)
{
    static char news[ANNOUNCE_BYTES_MAX]; /* only the recorder announces, in its one thread */
    size_t used = recorded_news_format(announcement, news, sizeof news);
    redisAppendCommand(redis, "PUBLISH " CHANNEL_NEWS " %b", news, used);
}

bool gate_announce(redisContext *redis, const struct gate_announcement *announcement)
{
    append_announcement(redis, announcement);
    return redis_done(redis_next_reply(redis));
}

bool gate_read_log(redisContext *redis, const struct gate_announcement *announcement,
                   struct log_position after, int block_ms, struct log_entry *entries, size_t max,
                   struct sale_order *orders, size_t orders_max, size_t *count, redisReply **reply_out)
{
    CHECK(orders_max >= SALES_LOG_ORDERS_MAX);
    *count = 0;
    *reply_out = NULL;
    char from[SALES_LOG_POSITION_BYTES];
    log_position_format(after, from);
    if (announcement != NULL) {
        append_announcement(redis, announcement);
    }
    if (block_ms > 0) {
        redisAppendCommand(redis, "XREAD COUNT %u BLOCK %d STREAMS " KEY_LOG " %s", (unsigned)max, block_ms,
                           from);
    } else {
        redisAppendCommand(redis, "XREAD COUNT %u STREAMS " KEY_LOG " %s", (unsigned)max, from);
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
    const redisReply *list = reply->element[0]->element[1];
    size_t orders_used = 0;
    for (size_t i = 0; i < list->elements && orders_max - orders_used >= SALES_LOG_ORDERS_MAX; i++) {
        struct log_entry *entry = &entries[i];
        if (!decode_entry(list->element[i], orders + orders_used, SALES_LOG_ORDERS_MAX, entry)) {
            describe_unreadable(list->element[i], after, entry);
        }
        orders_used += entry->order_count;
        after = entry->position;
        (*count)++;
    }
    *reply_out = reply;
    return true;
}

/* --- asking the recorder ----------------------------------------------------------------------------------------------------------- */
bool gate_ask_attach(redisContext *redis, uint64_t epoch, const char *why)
{
    return redis_done(redis_ask(redis, "XADD " KEY_LOG " NOMKSTREAM %" PRIu64 "-* attach %s", epoch, why)) ||
           strstr(redis_failure(), "equal or smaller") != NULL;
}

/* --- stock at a position --------------------------------------------------------------------------------------------------------- */
static void undo_entries(const redisReply *list, int64_t product_id, struct gate_stock *out)
{
    static _Thread_local struct sale_order orders[SALES_LOG_ORDERS_MAX];
    for (size_t i = 0; list->type == REDIS_REPLY_ARRAY && i < list->elements; i++) {
        struct log_entry entry;
        if (!decode_entry(list->element[i], orders, SALES_LOG_ORDERS_MAX, &entry)) {
            continue; /* not ours: it changed nothing */
        }
        int64_t delta = log_entry_stock_delta(&entry, product_id);
        out->stock_at -= delta;
        out->in_flight += entry.kind == LOG_ENTRY_SALE ? -delta : 0;
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

static void read_stock_replies(const redisReply *product, const redisReply *entries, const redisReply *info,
                               int64_t product_id, struct log_position at, struct gate_stock *out)
{
    if (product->type == REDIS_REPLY_ARRAY) { /* else the key holds something else: not on sale */
        out->on_sale = reply_to_int64(product->element[0], &out->available);
        out->stock_at = out->available;
        reply_to_int64(product->element[1], &out->price);
        reply_to_int64(product->element[2], &out->limit);
        read_sold_out(product->element[3], out);
    }
    struct gate_head log = {0};
    if (info->type == REDIS_REPLY_ARRAY) {
        read_stream_info(info, &log);
    }
    out->at_known =
        log_position_compare(log.log_lost, at) <= 0 && log_position_compare(at, log.log_last) <= 0;
    undo_entries(entries, product_id, out);
}

bool gate_read_stock(redisContext *redis, int64_t product_id, struct log_position at, struct gate_stock *out)
{
    *out = (struct gate_stock){0};
    char from[SALES_LOG_POSITION_BYTES];
    log_position_format(at, from);
    redisAppendCommand(redis, "MULTI");
    redisAppendCommand(redis, "HMGET " KEY_PRODUCT_PREFIX "%" PRId64 " stock price limit sold_out",
                       product_id);
    redisAppendCommand(redis, "XRANGE " KEY_LOG " (%s +", from);
    redisAppendCommand(redis, "XINFO STREAM " KEY_LOG);
    redisAppendCommand(redis, "HGET " KEY_HEAD " epoch");
    for (int i = 0; i < 5; i++) {
        void *queued = NULL;
        if (redisGetReply(redis, &queued) != REDIS_OK) {
            redis_ask(redis, "PING"); /* the connection is broken: lets redis_failure() say so */
            return false;
        }
        freeReplyObject(queued);
    }
    redisReply *all = redis_ask(redis, "EXEC");
    if (all == NULL) {
        return false;
    }
    bool ok = all->type == REDIS_REPLY_ARRAY && all->elements == 4;
    if (ok) {
        const redisReply *epoch = all->element[3];
        read_stock_replies(all->element[0], all->element[1], all->element[2], product_id, at, out);
        if (epoch->type != REDIS_REPLY_STRING || strcmp(epoch->str, "0") == 0) {
            out->at_known = false; /* the recorder is filling it just now */
        }
    }
    freeReplyObject(all);
    return ok;
}

/* --- changing stock ---------------------------------------------------------------------------------------------------------------- */
static redisReply *call_stock_script(redisContext *redis, const struct stock_change *change,
                                     const struct gate_opening *opening)
{
    redisReply *head = redis_ask(redis, "HGET " KEY_HEAD " stock");
    if (head == NULL) {
        return NULL;
    }
    redisReply *reply =
        redis_ask(redis,
                  "EVALSHA %s 4 " KEY_HEAD " " KEY_LOG " " KEY_PRODUCT_PREFIX "%" PRId64 " " CHANNEL_STOCK
                  " %s %" PRId64 " %" PRId64 " %" PRId64 " %s %" PRId64 " %" PRId64,
                  head->type == REDIS_REPLY_STRING ? head->str : "none", change->product_id,
                  stock_cause_names[change->cause], change->product_id, change->delta, change->actor,
                  change->note, opening ? opening->price : 0, opening ? opening->limit : 0);
    freeReplyObject(head);
    return reply;
}

static enum gate_change classify_failure(void)
{
    const char *failure = redis_failure();
    return begins_with(failure, "CLOSED")  ? GATE_CLOSED
           : begins_with(failure, "SHORT") ? GATE_SHORT
           : begins_with(failure, "FULL")  ? GATE_FULL
                                           : GATE_FAILED;
}

enum gate_change gate_change_stock(redisContext *redis, const struct stock_change *change,
                                   const struct gate_opening *opening, int patience_ms,
                                   struct log_position *position, int64_t *stock)
{
    CHECK((change->cause == STOCK_OPENING) == (opening != NULL));
    int64_t deadline_us = clock_monotonic_us() + (int64_t)patience_ms * 1000;
    redisReply *reply;
    while ((reply = call_stock_script(redis, change, opening)) == NULL) {
        bool reopening = begins_with(redis_failure(), "STALE") || begins_with(redis_failure(), "NOSCRIPT") ||
                         begins_with(redis_failure(), "DAMAGED");
        if (!reopening || clock_monotonic_us() >= deadline_us) {
            return classify_failure();
        }
        nanosleep(&(struct timespec){.tv_nsec = HEAD_RETRY_MS * 1000000}, NULL);
    }
    *stock = reply->element[1]->integer;
    bool changed = reply->element[0]->type == REDIS_REPLY_STRING;
    if (changed) {
        CHECK(log_position_parse(reply->element[0]->str, reply->element[0]->len, position));
    }
    freeReplyObject(reply);
    return changed ? GATE_CHANGED : GATE_UNCHANGED;
}
