/* The Lua gate: one Redis decides. A worker's loop thread. Owns two links to Redis and the purchases that are in it.
 *
 *   queued --one EVALSHA a turn--> in a call --sold--> waiting, in log order --"recorded up to …"--> answered
 *     ^  ^                            |  |               |
 *     |  +--STALE, NOSCRIPT-----------+  | no reply      | news were missed, or its epoch is over
 *     |                                  v               v
 *     +--not found, it was never sold--- looked up in the store --found-----------------------------> answered
 *
 * What stands right of the call is lua_record.c's; the words of a call are lua_call.c's; the marks by which a worker answers "sold out"
 * itself are sold_out.c's. In here are the queue, the calls and the two links.
 *
 * `calls` carries the selling script, `news` the recorder's announcements and the word that stock was added. The gate sells only while
 * both are up and it knows the script of the present epoch (`ready`); until then purchases stay queued, to their deadline.
 *
 * A call that got no reply is in doubt: sold or not, and Redis may even run it later, when the broken connection's last bytes come in.
 * Only a new epoch makes it final, as the old script is then STALE and all it ever sold is in the store. So the worker asks for one
 * (an `attach` entry in the log), and looks its doubtful purchases up by request once it hears of it: found, they are confirmed; not
 * found, they were never sold and go back to the queue.
 *
 * Nothing is sold that could not be recorded in time: while the recorder has been silent for a second, or too much waits for its record,
 * no call is sent (the breaker `record` is open).
 *
 * Each link finds the master by itself, so after a failover they may be on different Redis for a moment. Whichever of them knows the older
 * epoch is behind and is made anew: the calls' by its head, or by having none, the news' by what it hears; epochs are the store's, so the
 * older can be no one's future. Meanwhile nothing is sold by the head of an older epoch than the news', and what a newer one sells waits
 * for news of that.
 *
 * Failures: STALE and NOSCRIPT put a call's purchases back to the front of the queue and read the head again; so does what
 * redis_is_elsewhere(), and the link is made anew. What cannot be sent or settled by its deadline is answered 503. */
#include "driver.h"

#include "doorbuster/check.h"
#include "doorbuster/clock.h"
#include "doorbuster/failpoint.h"
#include "doorbuster/log.h"
#include "doorbuster/metrics.h"
#include "doorbuster/text.h"
#include "keys.h"
#include "lua_call.h"
#include "lua_record.h"
#include "news.h"
#include "sold_out.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CALLS_MAX 1 /* on the way at the same time; what comes meanwhile makes the next batch larger */
#define SWEEP_MS 20
#define CONNECT_TIMEOUT_MS 1000
#define COMMAND_TIMEOUT_MS 1000
#define NEWS_TIMEOUT_US 3000000
#define ASK_ATTACH_EVERY_US 500000
#define DAMAGE_PAUSE_US 20000
#define APART_US 200000 /* so long the two links may be of different epochs before one of them is made anew */
#define SPEAKS_US 250000
#define ELSEWHERE_NEWS_TIMEOUT_US 1500000 /* of a Redis that was found, so may be elsewhere by now */
#define EXPIRE_EVERY_US 100000

struct call {
    struct lua_gate *gate;
    struct gate_purchase *purchases[GATE_BATCH_MAX];
    size_t count;
    int64_t sent_us;
    uint64_t forgotten;        /* of the sold-out marks when it was sent */
    struct log_position after; /* what it sells lies behind this */
    struct call *next_free;
};

struct lua_gate {
    struct gate base;
    struct redis_link *calls, *news;
    uv_timer_t sweep;
    bool script_known, reading_head;
    char sell_sha[GATE_SCRIPT_SHA_BYTES];
    uint64_t script_epoch;
    struct purchase_list queued;
    struct lua_record record;
    struct sold_out sold_out;
    int64_t asked_attach_us; /* when last */
    int64_t next_expire_us;
    int64_t call_us;  /* what a call takes, lately */
    int64_t store_id; /* of the head; whose news count */
    /* Since when the link knows an older epoch than the other; 0: it does not. */
    int64_t calls_behind_us, news_behind_us;
    bool is_replica;       /* by its own word, the Redis of the calls */
    int64_t news_us;       /* when the last came, or was subscribed to */
    int64_t held_until_us; /* the gate is damaged: no use in asking again at once */
    const char *wish;      /* why Redis has to be rebuilt; NULL: it has not */
    struct call call_storage[CALLS_MAX], *free_calls;
};

static struct lua_gate *of(struct gate *gate)
{
    return (struct lua_gate *)gate;
}

static void requeue(struct gate_purchase *purchase)
{
    purchase->purchase.order.id = 0;
    purchase_move(&purchase->purchase, PURCHASE_QUEUED);
}

/* --- calls ------------------------------------------------------------------------------------------------------------------------ */
static void free_call(struct call *call)
{
    call->next_free = call->gate->free_calls;
    call->gate->free_calls = call;
}

/* Of the first line nothing was taken by another before it: if there is nothing, its product is sold out. Unless stock was added meanwhile. */
static void note_sold_out(const struct call *call, const struct purchase *refused)
{
    struct lua_gate *gate = call->gate;
    bool is_gone = (refused->short_lines & 1) != 0 && refused->order.remaining == 0;
    if (is_gone && call->forgotten == gate->sold_out.forgotten &&
        gate->record.subscribed) { /* otherwise nobody would tell us of new stock */
        sold_out_mark(&gate->sold_out, refused->order.product_id);
    }
}

static void take_answer(const struct call *call, size_t i, const redisReply *reply,
                        struct log_position position)
{
    struct gate_purchase *purchase = call->purchases[i];
    enum refusal refusal = lua_call_take(reply, i, &purchase->purchase);
    if (refusal != REFUSAL_NONE) {
        if (refusal == REFUSAL_INSUFFICIENT_STOCK) {
            note_sold_out(call, &purchase->purchase);
        }
        gate_refuse(&call->gate->base, purchase, refusal);
        return;
    }
    purchase->purchase.position = position;
    purchase_move(&purchase->purchase, PURCHASE_RESERVED);
    lua_record_await(&call->gate->record, purchase);
}

static void take_answers(const struct call *call, const redisReply *reply, struct log_position position)
{
    for (size_t i = 0; i < call->count; i++) {
        take_answer(call, i, reply, position);
    }
    lua_record_reply_taken(&call->gate->record);
}

static void put_back(struct call *call)
{
    metrics_add(METRICS_purchases_stale, call->count);
    for (size_t i = call->count; i-- > 0;) { /* from the last, so that the first is first again */
        requeue(call->purchases[i]);
        purchase_list_prepend(&call->gate->queued, call->purchases[i]);
    }
}

static void give_up_call(struct call *call, const char *why)
{
    gate_call_failed(&call->gate->base, why);
    log_warn("gate: %zu purchases answered 503: %s", call->count, why);
    for (size_t i = 0; i < call->count; i++) {
        gate_answer(&call->gate->base, call->purchases[i], PURCHASE_UNAVAILABLE);
    }
}

static void put_in_doubt(const struct call *call, const char *why)
{
    log_warn("gate: %s, %zu purchases on the way: in doubt until the next epoch", why, call->count);
    gate_call_failed(&call->gate->base, why);
    lua_record_doubt(&call->gate->record, call->purchases, call->count, call->after);
}

/* Nothing was sold: somebody has been at Redis's keys. */
static void wait_for_mending(struct call *call, const char *why)
{
    log_error("gate: %s: asking for a rebuild", why);
    call->gate->wish = "the selling script found damage";
    gate_call_failed(&call->gate->base, why);
    call->gate->held_until_us = clock_monotonic_us() + DAMAGE_PAUSE_US;
    put_back(call);
}

/* The mean of some eight calls. */
static void note_call_time(const struct call *call)
{
    struct lua_gate *gate = call->gate;
    gate->call_us += (clock_monotonic_us() - call->sent_us - gate->call_us) / 8;
}

static void call_cb(const redisReply *reply, void *context)
{
    struct call *call = context;
    struct lua_gate *gate = call->gate;
    struct log_position position;
    if (reply == NULL || failpoint("gate.reply")) {
        put_in_doubt(call, "the link to Redis broke");
    } else if (reply->type != REDIS_REPLY_ERROR) {
        if (lua_call_is_answer(reply, call->purchases, call->count, &position)) {
            note_call_time(call);
            take_answers(call, reply, position);
        } else {
            gate->wish = "the selling script gave a damaged answer";
            put_in_doubt(call, gate->wish);
        }
    } else if (text_begins_with(reply->str, "STALE") || text_begins_with(reply->str, "NOSCRIPT") ||
               redis_is_elsewhere(reply->str)) {
        gate->script_known = false;
        put_back(call);
    } else if (text_begins_with(reply->str, "DAMAGED") || text_begins_with(reply->str, "WRONGTYPE")) {
        wait_for_mending(call, reply->str);
    } else {
        give_up_call(call, reply->str);
    }
    free_call(call);
}

/* The next of the queue, if it still fits into the call. */
static struct gate_purchase *take_next(struct lua_gate *gate, size_t count, size_t lines)
{
    const struct gate_purchase *next = gate->queued.first;
    bool fits = next != NULL && count < GATE_BATCH_MAX &&
                lines + lua_call_lines(&next->purchase) <= SALES_LOG_LINES_MAX;
    return fits ? purchase_list_take(&gate->queued) : NULL;
}

static void send_call(struct lua_gate *gate)
{
    struct call *call = gate->free_calls;
    gate->free_calls = call->next_free;
    call->count = 0;
    call->sent_us = clock_monotonic_us();
    call->forgotten = gate->sold_out.forgotten;
    call->after = gate->record.recorded.epoch == gate->script_epoch
                      ? gate->record.recorded
                      : (struct log_position){gate->script_epoch, 0};
    size_t lines = 0;
    struct gate_purchase *purchase;
    while ((purchase = take_next(gate, call->count, lines)) != NULL) {
        lines += lua_call_lines(&purchase->purchase);
        purchase_move(&purchase->purchase, PURCHASE_ASKED);
        call->purchases[call->count++] = purchase;
    }
    struct lua_call_words asked = lua_call_ask(gate->sell_sha, call->purchases, call->count);
    metrics_observe(METRICS_HISTOGRAM_gate_batch, call->count);
    CHECK(redis_link_command(gate->calls, call_cb, call, asked.count, asked.words, asked.bytes));
}

static void note_behind(int64_t *since_us, bool behind)
{
    *since_us = !behind ? 0 : *since_us != 0 ? *since_us : clock_monotonic_us();
}

/* --- the news ------------------------------------------------------------------------------------------------------------------------ */
/* The attach may have put units back that were reserved and then forgotten. */
static void begin_epoch(struct lua_gate *gate, uint64_t epoch)
{
    gate->base.epoch = epoch;
    gate->script_known = false;
    gate->wish = NULL;
    sold_out_forget(&gate->sold_out);
}

static void hear_recorded(struct lua_gate *gate, const char *text)
{
    struct recorded_news news;
    if (!recorded_news_parse(text, &news)) {
        log_warn("gate: news that nobody of ours can have sent: %s", text);
        return;
    }
    if (news.store_id != gate->store_id) {
        /* Another database's; or our head was of another store until just now: then the sweep reads it again. */
        gate->script_known = gate->script_known && gate->record.heard;
        return;
    }
    if (!lua_record_is_newer(&gate->record, &news)) {
        return;
    }
    if ((uint64_t)news.epoch > gate->record.epoch) {
        begin_epoch(gate, (uint64_t)news.epoch);
    }
    note_behind(&gate->news_behind_us,
                gate->script_known && news.epoch > 0 && (uint64_t)news.epoch < gate->script_epoch);
    lua_record_hear(&gate->record, &news);
}

static void news_cb(const redisReply *reply, void *context)
{
    struct lua_gate *gate = context;
    if (reply == NULL || reply->type != REDIS_REPLY_ARRAY || reply->elements != 3) {
        return; /* the link is lost: news_down_cb follows */
    }
    const char *text = redis_text(reply->element[2]);
    gate->news_us = clock_monotonic_us();
    if (strcmp(redis_text(reply->element[0]), "subscribe") == 0) {
        lua_record_subscribed(&gate->record);
    } else {
        hear_recorded(gate, text);
    }
}

/* Whatever it was: a bundle may be had again that has it as a component. */
static void stock_cb(const redisReply *reply, void *context)
{
    if (reply != NULL && reply->type == REDIS_REPLY_ARRAY && reply->elements == 3 &&
        reply->element[2]->type == REDIS_REPLY_STRING) {
        struct lua_gate *gate = context;
        sold_out_forget(&gate->sold_out);
    }
}

/* --- the head: which script --------------------------------------------------------------------------------------------------------- */
static void attach_asked_cb(const redisReply *reply, void *context)
{
    (void)context;
    if (reply != NULL && reply->type == REDIS_REPLY_ERROR) { /* a newer epoch has begun: just as well */
        log_debug("gate: asking for an attach: %s", reply->str);
    }
}

/* Is there something that only a new epoch can settle or mend? Then `why` says so. */
static bool needs_attach(const struct lua_gate *gate, char why[SALES_LOG_NOTE_BYTES])
{
    const struct purchase_list *doubtful = &gate->record.doubtful;
    if (gate->wish != NULL) {
        snprintf(why, SALES_LOG_NOTE_BYTES, LOG_REBUILD_WORD "%s", gate->wish);
        return true;
    }
    snprintf(why, SALES_LOG_NOTE_BYTES, "a worker lost the answer to %zu purchases", doubtful->count);
    return doubtful->first != NULL && doubtful->first->purchase.position.epoch == gate->script_epoch;
}

static void ask_for_attach(struct lua_gate *gate)
{
    int64_t now_us = clock_monotonic_us();
    char id[TEXT_INT64_BYTES + 2], why[SALES_LOG_NOTE_BYTES];
    if (!gate->script_known || now_us - gate->asked_attach_us < ASK_ATTACH_EVERY_US ||
        !needs_attach(gate, why)) {
        return;
    }
    snprintf(id, sizeof id, "%" PRIu64 "-*", gate->script_epoch);
    if (redis_link_command(gate->calls, attach_asked_cb, gate, 6,
                           (const char *[]){"XADD", gate_keys.log, "NOMKSTREAM", id, LOG_ATTACH_WORD, why},
                           NULL)) {
        log_info("gate: asking for an attach: %s", why);
        metrics_add(METRICS_attaches_asked, 1);
        gate->asked_attach_us = now_us;
    }
}

/* Is the master's place found out, so that it may change? */
static bool is_found(const struct lua_gate *gate)
{
    return gate->base.settings.place->redis.kind != REDIS_DIRECT;
}

/* Of an open gate; while it attaches it does not. */
static bool recorder_speaks(const struct lua_gate *gate)
{
    return gate->record.heard && gate->record.epoch > 0 &&
           clock_monotonic_us() - gate->record.recorded_us < SPEAKS_US;
}

static void role_cb(const redisReply *reply, void *context)
{
    struct lua_gate *gate = context;
    gate->is_replica = reply != NULL && reply->type == REDIS_REPLY_ARRAY && reply->elements > 0 &&
                       reply->element[0]->type == REDIS_REPLY_STRING &&
                       strcmp(reply->element[0]->str, "master") != 0;
}

static void head_cb(const redisReply *reply, void *context)
{
    struct lua_gate *gate = context;
    gate->reading_head = false;
    if (reply == NULL || !redis_is_list(reply, 3)) {
        return;
    }
    const redisReply *epoch_text = reply->element[0], *sell = reply->element[1], *store = reply->element[2];
    int64_t epoch, store_id;
    bool open = store->type == REDIS_REPLY_STRING &&
                text_to_int64(store->str, store->len, INT64_MIN, INT64_MAX, &store_id) &&
                epoch_text->type == REDIS_REPLY_STRING &&
                text_to_int64(epoch_text->str, epoch_text->len, 1, INT64_MAX, &epoch) &&
                sell->type == REDIS_REPLY_STRING && sell->len == GATE_SCRIPT_SHA_BYTES - 1;
    if (!open) {
        note_behind(&gate->calls_behind_us, recorder_speaks(gate));
        return; /* the sweep asks again */
    }
    bool behind = (uint64_t)epoch < gate->record.epoch;
    note_behind(&gate->calls_behind_us, behind);
    if (behind) {
        return; /* likewise; and the link is made anew if it stays so */
    }
    /* That older epochs are settled is said by the news alone: a head can be edited. */
    gate->store_id = store_id;
    memcpy(gate->sell_sha, sell->str, GATE_SCRIPT_SHA_BYTES);
    gate->script_epoch = (uint64_t)epoch;
    gate->script_known = true;
    ask_for_attach(gate);
}

static void read_head(struct lua_gate *gate)
{
    if (gate->script_known || gate->reading_head) {
        return;
    }
    gate->reading_head =
        redis_link_command(gate->calls, head_cb, gate, 5,
                           (const char *[]){"HMGET", gate_keys.head, "epoch", "sell", "store"}, NULL);
    if (is_found(gate)) {
        redis_link_command(gate->calls, role_cb, gate, 1, (const char *[]){"ROLE"}, NULL);
    }
}

/* --- links ------------------------------------------------------------------------------------------------------------------------------ */
static void calls_up_cb(void *context)
{
    struct lua_gate *gate = context;
    read_head(gate);
}

static void calls_down_cb(void *context)
{
    struct lua_gate *gate = context;
    gate->script_known = gate->reading_head = gate->is_replica = false;
    gate->calls_behind_us = 0;
    metrics_add(METRICS_redis_links_lost, 1);
}

static void news_up_cb(void *context)
{
    struct lua_gate *gate = context;
    gate->news_us = clock_monotonic_us();
    redis_link_subscribe(gate->news, gate_keys.stock_news, stock_cb, gate);
    redis_link_subscribe(gate->news, gate_keys.news, news_cb, gate);
}

static void news_down_cb(void *context)
{
    struct lua_gate *gate = context;
    metrics_add(METRICS_redis_links_lost, 1);
    gate->news_behind_us = 0;
    sold_out_forget(&gate->sold_out);
    lua_record_cut_off(&gate->record);
}

/* --- deadlines --------------------------------------------------------------------------------------------------------------------------- */
static void expire_all(struct lua_gate *gate, int64_t now_us)
{
    if (now_us < gate->next_expire_us) {
        return;
    }
    gate->next_expire_us = now_us + EXPIRE_EVERY_US;
    /* What would be sent now must still be able to wait for a lost reply. */
    gate_expire(&gate->base, &gate->queued, now_us + (int64_t)COMMAND_TIMEOUT_MS * 1000 + EXPIRE_EVERY_US);
    /* The next look is never quite so soon, and nobody is answered too late. */
    lua_record_expire(&gate->record, now_us + (int64_t)2 * EXPIRE_EVERY_US);
}

/* Why nothing can be sent to Redis; NULL: it can. That the recorder is silent is the other breaker's business. */
static const char *why_away(const struct lua_gate *gate)
{
    return !redis_link_is_up(gate->calls) ? "no link to Redis"
           : !gate->script_known          ? "the gate is closed: the recorder has not opened it"
           : !gate->record.heard && gate->base.record.state == BREAKER_CLOSED
               ? "nothing is heard from the recorder"
               : NULL;
}

static int64_t age_us(const struct gate_purchase *purchase, int64_t now_us)
{
    return purchase == NULL ? 0 : now_us - (purchase->deadline_us - (int64_t)GATE_DEADLINE_MS * 1000);
}

/* Both queues are first in, first out: who comes now waits no less than those have who are next, and for the calls before his. */
static int64_t expected_wait_us(const struct lua_gate *gate, int64_t now_us)
{
    int64_t calls_us = (int64_t)(gate->queued.count / GATE_BATCH_MAX) * gate->call_us;
    int64_t queued_us = age_us(gate->queued.first, now_us),
            waiting_us = age_us(gate->record.waiting.first, now_us);
    int64_t oldest_us = queued_us > waiting_us ? queued_us : waiting_us;
    return calls_us > oldest_us ? calls_us : oldest_us;
}

static bool stays_behind(int64_t since_us, int64_t now_us)
{
    return since_us != 0 && now_us - since_us > APART_US;
}

static void watch_links(struct lua_gate *gate, int64_t now_us)
{
    int64_t silence_us = is_found(gate) ? ELSEWHERE_NEWS_TIMEOUT_US : NEWS_TIMEOUT_US;
    if (gate->is_replica && redis_link_is_up(gate->calls)) {
        redis_link_reset(gate->calls, "it is a replica's");
    } else if (stays_behind(gate->calls_behind_us, now_us) && redis_link_is_up(gate->calls)) {
        redis_link_reset(gate->calls, "its gate is closed, or of an older epoch than the news");
    }
    /* The recorder gives a sign of life every 100 ms, through Redis. A link that broke without a word must not keep us waiting for ever; if it
     * is the recorder that is silent, a new link costs nothing. */
    if (redis_link_is_up(gate->news) && now_us - gate->news_us > silence_us) {
        redis_link_reset(gate->news, "no news for too long");
    } else if (stays_behind(gate->news_behind_us, now_us) && redis_link_is_up(gate->news)) {
        redis_link_reset(gate->news, "they are of an older epoch than the gate");
    }
}

static void sweep_cb(uv_timer_t *timer)
{
    struct lua_gate *gate = timer->data;
    int64_t now_us = clock_monotonic_us();
    expire_all(gate, now_us);
    read_head(gate);
    ask_for_attach(gate);
    lua_record_watch(&gate->record, now_us);
    gate_watch(&gate->base, now_us, why_away(gate), expected_wait_us(gate, now_us));
    watch_links(gate, now_us);
}

/* --- the driver --------------------------------------------------------------------------------------------------------------------------- */
static bool lua_gate_is_ready(const struct gate *base)
{
    const struct lua_gate *gate = (const struct lua_gate *)base;
    return gate->script_known && gate->record.heard && gate->base.record.state == BREAKER_CLOSED &&
           redis_link_is_up(gate->calls) &&
           (gate->held_until_us == 0 || clock_monotonic_us() >= gate->held_until_us);
}

static void refuse_at_once(struct gate *gate, struct gate_purchase *purchase)
{
    metrics_add(METRICS_purchases_sold_out_at_once, 1);
    purchase_move(&purchase->purchase, PURCHASE_ASKED);
    for (size_t i = 0; i < lua_call_lines(&purchase->purchase); i++) {
        purchase_note_short(&purchase->purchase, i, 0);
    }
    gate_refuse(gate, purchase, REFUSAL_INSUFFICIENT_STOCK);
}

static void lua_gate_submit(struct gate *base, struct gate_purchase *purchase)
{
    struct lua_gate *gate = of(base);
    /* A key may stand for an order from before it was sold out: only Redis knows. */
    if (purchase->purchase.order.key == NULL &&
        sold_out_is_all_of(&gate->sold_out, &purchase->purchase.order)) {
        refuse_at_once(base, purchase);
        return;
    }
    base->decisions++;
    purchase_list_append(&gate->queued, purchase);
}

static void lua_gate_turn(struct gate *base)
{
    struct lua_gate *gate = of(base);
    while (gate->queued.first != NULL && gate->free_calls != NULL && lua_gate_is_ready(base)) {
        send_call(gate);
    }
    redis_link_flush(gate->calls);
    redis_link_flush(gate->news);
}

static void lua_gate_settled(struct gate *base, struct gate_purchase *purchase, enum gate_finding finding)
{
    struct lua_gate *gate = of(base);
    metrics_add(METRICS_purchases_settled, 1);
    switch (finding) {
    case GATE_IN_STORE:
        if (purchase->purchase.state == PURCHASE_ASKED) {
            purchase_move(&purchase->purchase, PURCHASE_RESERVED);
        }
        gate_answer(base, purchase, PURCHASE_CONFIRMED);
        break;
    case GATE_REJECTED_BY_STORE:
        gate_refuse(base, purchase, REFUSAL_REJECTED);
        break;
    case GATE_NOT_IN_STORE:
        requeue(purchase);
        purchase_list_prepend(&gate->queued, purchase); /* it was here before those that wait now */
        break;
    case GATE_STORE_UNREADABLE:
        gate_answer(base, purchase, PURCHASE_UNAVAILABLE);
        break;
    }
}

static size_t lua_gate_parts(const struct gate *base, struct gate_part out[GATE_PARTS_MAX])
{
    const struct lua_gate *gate = (const struct lua_gate *)base;
    bool links_up = redis_link_is_up(gate->calls) && gate->record.subscribed;
    bool recorder_is_up = !lua_record_is_silent(&gate->record, clock_monotonic_us());
    out[0] = (struct gate_part){.name = "redis", .state = links_up ? "up" : "down", .up = links_up};
    out[1] = (struct gate_part){
        .name = "gate", .state = gate->script_known ? "open" : "closed", .up = gate->script_known};
    out[2] = (struct gate_part){
        .name = "recorder", .state = recorder_is_up ? "up" : "silent", .up = recorder_is_up};
    return 3;
}

static void free_gate_cb(uv_handle_t *handle)
{
    free(handle->data);
}

static void lua_gate_close(struct gate *base)
{
    struct lua_gate *gate = of(base);
    redis_link_close(&gate->calls);
    redis_link_close(&gate->news);
    uv_close((uv_handle_t *)&gate->sweep, free_gate_cb);
}

static const struct gate_driver lua_gate_driver = {
    .is_ready = lua_gate_is_ready,
    .submit = lua_gate_submit,
    .turn = lua_gate_turn,
    .settled = lua_gate_settled,
    .parts = lua_gate_parts,
    .close = lua_gate_close,
};

struct gate *lua_gate_open(const struct gate_settings *settings)
{
    struct lua_gate *gate = calloc(1, sizeof *gate);
    CHECK(gate != NULL);
    gate->base.driver = &lua_gate_driver;
    gate->record.gate = &gate->base;
    for (size_t i = 0; i < CALLS_MAX; i++) {
        gate->call_storage[i].gate = gate;
        free_call(&gate->call_storage[i]);
    }
    struct redis_link_settings calls = {.name = "calls",
                                        .address = settings->place->redis,
                                        .connect_timeout_ms = CONNECT_TIMEOUT_MS,
                                        .command_timeout_ms = COMMAND_TIMEOUT_MS,
                                        .up_cb = calls_up_cb,
                                        .down_cb = calls_down_cb,
                                        .context = gate};
    struct redis_link_settings news = calls;
    news.name = "news";
    news.up_cb = news_up_cb;
    news.down_cb = news_down_cb;
    gate->calls = redis_link_new(settings->loop, &calls);
    gate->news = redis_link_new(settings->loop, &news);
    uv_timer_init(settings->loop, &gate->sweep);
    gate->sweep.data = gate;
    uv_timer_start(&gate->sweep, sweep_cb, SWEEP_MS, SWEEP_MS);
    return &gate->base;
}
