/* The recorder's side of Redis: closing and opening the gate, filling it from the store, trimming the log.
 * Only the recorder loads scripts, each with the epoch in its text: that is the fence. A Redis that forgot anything has forgotten the
 * scripts too, or reigns under another replication id than the one in their text (ADR 16), and sells nothing until the recorder has vouched for it. Runs in the
 * recorder's one thread; owns nothing. */
#include "doorbuster/gate_books.h"

#include "doorbuster/check.h"
#include "doorbuster/clock.h"
#include "doorbuster/metrics.h"
#include "embedded.h"
#include "keys.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SCRIPT_BYTES_MAX 32768
#define DELETE_AT_ONCE 500
#define SEND_AT_ONCE 128

bool gate_close(redisContext *redis)
{
    return redis_done(
        redis_ask(redis, "HDEL %s epoch", gate_keys.head)); /* possible even when Redis is out of memory */
}

/* The replies to so many commands put down with redisAppendCommand(). */
static bool all_done(redisContext *redis, size_t count)
{
    bool ok = true;
    for (size_t i = 0; i < count && redis->err == 0; i++) {
        ok = redis_done(redis_next_reply(redis)) && ok;
    }
    return ok && redis->err == 0;
}

static void (*while_working_cb)(void);

void gate_while_working(void (*cb)(void))
{
    while_working_cb = cb;
}

/* But the lease: it says who is filling Redis anew. */
static bool delete_all_keys(redisContext *redis)
{
    char cursor[32] = "0";
    do { /* it may be a Redis with millions of others' keys */
        metrics_beat(clock_monotonic_us());
        if (while_working_cb != NULL) {
            while_working_cb();
        }
        redisReply *page = redis_list_of(
            redis_ask(redis, "SCAN %s MATCH %s COUNT %d", cursor, gate_keys.all, DELETE_AT_ONCE), 2);
        if (page == NULL) {
            return false;
        }
        snprintf(cursor, sizeof cursor, "%s", redis_text(page->element[0]));
        size_t deleted = 0;
        for (size_t i = 0; i < page->element[1]->elements; i++) {
            const redisReply *key = page->element[1]->element[i];
            if (strcmp(redis_text(key), gate_keys.recorder) != 0) {
                redisAppendCommand(redis, "DEL %b", redis_text(key), key->len);
                deleted++;
            }
        }
        bool ok = all_done(redis, deleted);
        freeReplyObject(page);
        if (!ok) {
            return false;
        }
    } while (strcmp(cursor, "0") != 0);
    return true;
}

/* An empty log that remembers where the store is, and that all up to there is gone. */
static bool begin_log_behind(redisContext *redis, struct log_position recorded)
{
    char last[SALES_LOG_POSITION_BYTES];
    log_position_format(recorded, last);
    return redis_done(
        redis_ask(redis, "XSETID %s %s ENTRIESADDED 0 MAXDELETEDID %s", gate_keys.log, last, last));
}

bool gate_wipe(redisContext *redis, struct log_position recorded)
{
    if (!redis_done(redis_ask(redis, "DEL %s", gate_keys.head)) || !delete_all_keys(redis)) {
        return false;
    }
    /* A consumer group makes the key. The scripts never make a log: one that is gone must not begin again unnoticed. */
    return redis_done(redis_ask(redis, "XGROUP CREATE %s made 0 MKSTREAM", gate_keys.log)) &&
           redis_done(redis_ask(redis, "XGROUP DESTROY %s made", gate_keys.log)) &&
           (recorded.epoch == 0 || begin_log_behind(redis, recorded));
}

bool gate_finish_rebuild(redisContext *redis, int64_t store_id, int64_t orders, int64_t at_ms)
{
    return redis_done(redis_ask(redis, "HSET %s store %" PRId64 " orders %" PRId64 " at %" PRId64,
                                gate_keys.head, store_id, orders, at_ms));
}

bool gate_put_product(redisContext *redis, const struct sale_product *product)
{
    char key[GATE_KEY_BYTES + TEXT_INT64_BYTES], components[GATE_COMPONENTS_BYTES];
    snprintf(key, sizeof key, "%s%" PRId64, gate_keys.product, product->id);
    gate_components_text(product, components);
    return redis_done(redis_ask(
               redis, "HSET %s price %" PRId64 " limit %" PRId64 " starts %" PRId64 " ends %" PRId64, key,
               product->price, product->limit, product->starts_at_ms, product->ends_at_ms)) &&
           redis_done(product->component_count > 0
                          ? redis_ask(redis, "HSET %s components %s", key, components)
                          : redis_ask(redis, "HSET %s stock %" PRId64, key, product->stock));
}

/* --- many in a write --------------------------------------------------------------------------------------------------------------- */
/* Puts the command for list[i] down; false: there is nothing to do for it. */
typedef bool (*append_one)(redisContext *redis, const void *list, size_t i);

static bool put_many(redisContext *redis, append_one append, const void *list, size_t count)
{
    size_t asked = 0;
    for (size_t i = 0; i < count; i++) {
        if (append(redis, list, i) && ++asked % SEND_AT_ONCE == 0) {
            redis_send_appended(redis);
        }
    }
    return all_done(redis, asked);
}

static bool append_buyer(redisContext *redis, const void *list, size_t i)
{
    const struct gate_buyer *buyer = (const struct gate_buyer *)list + i;
    redisAppendCommand(redis, "HSET %s%" PRId64 " %" PRId64 " %" PRId64, gate_keys.buyers, buyer->product_id,
                       buyer->user_id, buyer->units);
    return true;
}

bool gate_put_buyers(redisContext *redis, const struct gate_buyer *buyers, size_t count)
{
    return put_many(redis, append_buyer, buyers, count);
}

static int64_t lifetime(int64_t ttl_ms)
{
    return ttl_ms < IDEMPOTENCY_KEY_LIFETIME_MS ? ttl_ms : IDEMPOTENCY_KEY_LIFETIME_MS;
}

static bool append_key(redisContext *redis, const void *list, size_t i)
{
    const struct gate_key *key = (const struct gate_key *)list + i;
    if (key->ttl_ms > 0) {
        redisAppendCommand(redis, "SET %s%" PRId64 ":%s %" PRId64 " PX %" PRId64, gate_keys.ordered,
                           key->user_id, key->key, key->order_id, lifetime(key->ttl_ms));
    }
    return key->ttl_ms > 0;
}

bool gate_put_keys(redisContext *redis, const struct gate_key *keys, size_t count)
{
    return put_many(redis, append_key, keys, count);
}

/* As stock.lua writes it. */
static bool append_change_key(redisContext *redis, const void *list, size_t i)
{
    const struct gate_change_key *key = (const struct gate_change_key *)list + i;
    char position[SALES_LOG_POSITION_BYTES], done[128];
    if (key->ttl_ms <= 0) {
        return false;
    }
    log_position_format(key->result.position, position);
    snprintf(done, sizeof done, "%s %" PRId64 " %" PRId64 " %" PRId64 " %s", position, key->result.product_id,
             key->result.figure, key->result.stock, gate_change_words[key->result.kind]);
    redisAppendCommand(redis, "SET %s%" PRId64 ":%s %s PX %" PRId64, gate_keys.changed, key->actor, key->key,
                       done, lifetime(key->ttl_ms));
    return true;
}

bool gate_put_change_keys(redisContext *redis, const struct gate_change_key *keys, size_t count)
{
    return put_many(redis, append_change_key, keys, count);
}

/* --- scripts and the head ---------------------------------------------------------------------------------------------------------- */
/* Copies up to `mark`, which stands there once, and puts `value` in its place. Returns what follows it. */
static const char *fill_in(const char *text, const char *mark, const char *value, char *out, size_t *used)
{
    const char *at = strstr(text, mark);
    CHECK(at != NULL && strstr(at + 1, mark) == NULL);
    int bytes = snprintf(out + *used, SCRIPT_BYTES_MAX - *used, "%.*s%s", (int)(at - text), text, value);
    CHECK(bytes > 0 && (size_t)bytes < SCRIPT_BYTES_MAX - *used);
    *used += (size_t)bytes;
    return at + strlen(mark);
}

/* Loads common.lua and behind it `text`, with this epoch and this master in them. */
static bool load_script(redisContext *redis, const char *text, uint64_t epoch, const char *master,
                        char sha[GATE_SCRIPT_SHA_BYTES])
{
    char script[SCRIPT_BYTES_MAX], number[TEXT_INT64_BYTES];
    size_t used = 0;
    text_from_int64((int64_t)epoch, number);
    const char *rest = fill_in(embedded_common_lua, "@EPOCH@", number, script, &used);
    rest = fill_in(rest, "@MASTER@", master, script, &used);
    int bytes = snprintf(script + used, sizeof script - used, "%s%s", rest, text);
    CHECK(bytes > 0 && (size_t)bytes < sizeof script - used);
    redisReply *reply = redis_ask(redis, "SCRIPT LOAD %b", script, used + (size_t)bytes);
    if (reply == NULL) {
        return false;
    }
    snprintf(sha, GATE_SCRIPT_SHA_BYTES, "%s", redis_text(reply));
    return redis_done(reply);
}

static bool load_scripts(redisContext *redis, uint64_t epoch, const char *master,
                         char shas[GATE_SCRIPTS][GATE_SCRIPT_SHA_BYTES])
{
    const char *const texts[GATE_SCRIPTS] = {[GATE_SCRIPT_SELL] = embedded_sell_lua,
                                             [GATE_SCRIPT_STOCK] = embedded_stock_lua,
                                             [GATE_SCRIPT_CANCEL] = embedded_cancel_lua};
    for (int i = 0; i < GATE_SCRIPTS; i++) {
        if (!load_script(redis, texts[i], epoch, master, shas[i])) {
            return false;
        }
    }
    return true;
}

/* Only a closed head that belongs to a store, beside a log, of the same master: Redis may have forgotten them since they were looked at, another recorder may
 * have been quicker, and a failover may have come and gone. ARGV: master, epoch, then the head's other fields. */
static const char opening[] =
    "local info = redis.call('INFO', 'replication') "
    "if not string.find(info, 'master_replid:' .. ARGV[1], 1, true) then "
    "return redis.error_reply('FORGOTTEN perhaps: another master reigns than the one that was looked at') "
    "end "
    "if not redis.call('HGET', KEYS[1], 'store') or redis.call('EXISTS', KEYS[2]) == 0 then "
    "return redis.error_reply('FORGOTTEN while it was being opened') end "
    "if redis.call('HGET', KEYS[1], 'epoch') then return redis.error_reply('OPEN already') end "
    "return redis.call('HSET', KEYS[1], 'master', ARGV[1], 'epoch', ARGV[2], unpack(ARGV, 3))";

bool gate_open_on(redisContext *redis, uint64_t epoch, const char master[GATE_MASTER_BYTES])
{
    char shas[GATE_SCRIPTS][GATE_SCRIPT_SHA_BYTES];
    return load_scripts(redis, epoch, master, shas) &&
           redis_done(redis_ask(redis, "EVAL %s 2 %s %s %s %" PRIu64 " %s %s %s %s %s %s", opening,
                                gate_keys.head, gate_keys.log, master, epoch,
                                gate_script_fields[GATE_SCRIPT_SELL], shas[GATE_SCRIPT_SELL],
                                gate_script_fields[GATE_SCRIPT_STOCK], shas[GATE_SCRIPT_STOCK],
                                gate_script_fields[GATE_SCRIPT_CANCEL], shas[GATE_SCRIPT_CANCEL]));
}

bool gate_open(redisContext *redis, uint64_t epoch)
{
    struct gate_head head;
    return gate_read_head(redis, &head) && gate_open_on(redis, epoch, head.master);
}

/* What the scripts rely on, and the log from where the store is. */
static bool head_is_sound(const struct gate_head *head, int64_t store_id, uint64_t epoch,
                          struct log_position recorded, int64_t orders)
{
    return head->exists && head->store_id == store_id && head->epoch == epoch && head->orders >= orders &&
           !head->is_replica && strcmp(head->opened_on, head->master) == 0 && head->at_ms >= 0 &&
           head->log_last.epoch <= epoch && log_position_compare(head->log_last, recorded) >= 0 &&
           log_position_compare(head->log_lost, recorded) <= 0;
}

static bool scripts_are_loaded(redisContext *redis, const struct gate_head *head, bool *loaded)
{
    redisReply *reply =
        redis_list_of(redis_ask(redis, "SCRIPT EXISTS %s %s %s", head->scripts[GATE_SCRIPT_SELL],
                                head->scripts[GATE_SCRIPT_STOCK], head->scripts[GATE_SCRIPT_CANCEL]),
                      GATE_SCRIPTS);
    for (size_t i = 0; reply != NULL && i < reply->elements; i++) {
        *loaded = *loaded && reply->element[i]->integer == 1;
    }
    return redis_done(reply);
}

bool gate_is_ours(redisContext *redis, int64_t store_id, uint64_t epoch, struct log_position recorded,
                  int64_t orders, bool *ours)
{
    struct gate_head head;
    if (!gate_read_head(redis, &head)) {
        return false;
    }
    *ours = head_is_sound(&head, store_id, epoch, recorded, orders);
    return !*ours || scripts_are_loaded(redis, &head, ours);
}

bool gate_forget_recorded(redisContext *redis, struct log_position recorded)
{
    return redis_done(redis_ask(redis, "XTRIM %s MAXLEN 0", gate_keys.log)) &&
           (recorded.epoch == 0 || begin_log_behind(redis, recorded));
}

bool gate_trim(redisContext *redis, struct log_position keep_from)
{
    char from[SALES_LOG_POSITION_BYTES];
    log_position_format(keep_from, from);
    return redis_done(redis_ask(redis, "XTRIM %s MINID ~ %s", gate_keys.log, from));
}
