/* The Lua gate: one Redis decides. A worker's loop thread. Owns two links to Redis and the purchases that are in it.
 *
 *   queued --one EVALSHA a turn--> in a call --sold--> waiting, in log order --"recorded up to …"--> answered
 *
 * `calls` carries the selling script, `news` the recorder's announcements and the word that stock was added. The gate sells only while
 * both are up and it knows the script of the present epoch (`ready`); until then purchases stay queued, to their deadline.
 *
 * What waits is confirmed by the news alone, and only if none was missed and the epoch is the same. In every other case the store is
 * asked (settle_cb): after the link to the news broke (`missed`), and for what waits from an older epoch.
 *
 * A call that got no reply is in doubt: sold or not, and Redis may even run it later, when the broken connection's last bytes come in.
 * Only a new epoch makes it final, as the old script is then STALE and all it ever sold is in the store. So the worker asks for one
 * (an `attach` entry in the log), and looks its doubtful purchases up by request once it hears of it: found, they are confirmed; not
 * found, they were never sold and go back to the queue.
 *
 * Nothing is sold that could not be recorded in time: while the recorder has been silent for a second, or too much waits for its record,
 * no call is sent (the breaker `record` is open).
 *
 * Each link finds the master by itself, so after a failover they may be on different Redis for a moment. Whichever of them knows the older epoch is behind
 * and is made anew: the calls' by its head, or by having none, the news' by what it hears; epochs are the store's, so the older can be no one's future. Meanwhile nothing is
 * sold by the head of an older epoch than the news', and what a newer one sells waits for news of that.
 *
 * Failures: STALE and NOSCRIPT put a call's purchases back to the front of the queue and read the head again; so does what redis_is_elsewhere(), and
 * the link is made anew. */
#include "driver.h"

#include "doorbuster/check.h"
#include "doorbuster/clock.h"
#include "doorbuster/failpoint.h"
#include "doorbuster/log.h"
#include "doorbuster/metrics.h"
#include "doorbuster/text.h"
#include "keys.h"
#include "news.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CALLS_MAX 1 /* on the way at the same time; what comes meanwhile makes the next batch larger */
#define SWEEP_MS 20
#define MARKS 256
#define MARK_LIFETIME_US 1000000
#define CONNECT_TIMEOUT_MS 1000
#define COMMAND_TIMEOUT_MS 1000
#define NEWS_TIMEOUT_US 3000000
#define NEWS_FRESH_US                                                                                        \
    1000000 /* the recorder speaks every 100 ms; if it has not for so long, it does not record */
#define WAITING_MAX 10000 /* purchases waiting for their record; beyond, nothing more is reserved */
#define ASK_ATTACH_EVERY_US 500000
#define DAMAGE_PAUSE_US 20000
#define APART_US 200000 /* so long the two links may be of different epochs before one of them is made anew */
#define SPEAKS_US 250000
#define ELSEWHERE_NEWS_TIMEOUT_US 1500000 /* of a Redis that was found, so may be elsewhere by now */
#define EXPIRE_EVERY_US 100000
#define FIELDS_MIN 4 /* of a purchase in a call */
#define FIELDS_MAX                                                                                           \
    6 /* these, its idempotency key if any of the call has one, the number of its further lines if any is a cart */
#define ARGUMENTS_MAX (GATE_BATCH_MAX * FIELDS_MAX + 2 * SALES_LOG_LINES_MAX)
#define ARGUMENTS_FIXED 9 /* EVALSHA sha 5 key key key key key fields */
#define REPLY_FIXED 2
#define REPLY_EACH 3

struct call {
    struct lua_gate *gate;
    struct gate_purchase *purchases[GATE_BATCH_MAX];
    size_t count;
    int64_t sent_us;
    uint64_t stock_news;       /* of the gate when it was sent */
    struct log_position after; /* what it sells lies behind this */
    struct call *next_free;
};

/* "This product has nothing left": believed for a second, cleared when stock is added or the news are lost. */
struct sold_out_mark {
    int64_t product_id;
    int64_t until_us;
};

struct lua_gate {
    struct gate base;
    struct redis_link *calls, *news;
    uv_timer_t sweep;
    bool subscribed;
    bool script_known, reading_head;
    char sell_sha[GATE_SCRIPT_SHA_BYTES];
    uint64_t script_epoch;
    /* unsettled: what one reply has reserved and only the store can tell of. */
    struct purchase_list queued, waiting, missed, doubtful, unsettled;
    int64_t asked_attach_us; /* when last */
    int64_t next_expire_us;
    int64_t call_us; /* what a call takes, lately */
    /* What the news have said. Nothing was rejected at a position after `sure_after` and up to `recorded`. */
    struct log_position recorded, sure_after;
    bool heard_recorded; /* since the subscription */
    int64_t store_id;    /* of the head; whose news count */
    uint64_t attached_epoch;
    int64_t calls_behind_us,
        news_behind_us;    /* since when the link knows an older epoch than the other; 0: it does not */
    bool is_replica;       /* by its own word, the Redis of the calls */
    int64_t news_us;       /* when the last came, or was subscribed to */
    int64_t recorded_us;   /* when the recorder spoke last */
    int64_t held_until_us; /* the gate is damaged: no use in asking again at once */
    const char *wish;      /* why Redis has to be rebuilt; NULL: it has not */
    uint64_t stock_news;   /* how many times stock was added */
    struct call call_storage[CALLS_MAX], *free_calls;
    struct sold_out_mark marks[MARKS];
};

static struct lua_gate *of(struct gate *gate)
{
    return (struct lua_gate *)gate;
}

/* --- sold-out marks ----------------------------------------------------------------------------------------------------------- */
static struct sold_out_mark *mark_of(struct lua_gate *gate, int64_t product_id)
{
    return &gate->marks[(uint64_t)product_id % MARKS];
}

static bool is_marked_sold_out(struct lua_gate *gate, int64_t product_id)
{
    const struct sold_out_mark *mark = mark_of(gate, product_id);
    return mark->product_id == product_id && clock_monotonic_us() < mark->until_us;
}

static void mark_sold_out(struct lua_gate *gate, int64_t product_id)
{
    if (gate->subscribed) { /* otherwise nobody would tell us of new stock */
        *mark_of(gate, product_id) = (struct sold_out_mark){
            .product_id = product_id, .until_us = clock_monotonic_us() + MARK_LIFETIME_US};
    }
}

static void forget_sold_out(struct lua_gate *gate)
{
    gate->stock_news++;
    memset(gate->marks, 0, sizeof gate->marks);
}

/* --- answers -------------------------------------------------------------------------------------------------------------------- */
static void refuse(struct lua_gate *gate, struct gate_purchase *purchase, enum refusal refusal)
{
    purchase->purchase.refusal = refusal;
    gate_answer(&gate->base, purchase, PURCHASE_REFUSED);
}

static void requeue(struct gate_purchase *purchase)
{
    purchase->purchase.order.id = 0;
    purchase_move(&purchase->purchase, PURCHASE_QUEUED);
}

/* --- the record ------------------------------------------------------------------------------------------------------------------ */
static void settle(struct lua_gate *gate, struct purchase_list *list)
{
    if (list->first == NULL) {
        return;
    }
    if (gate->base.settings.settle_cb(gate->base.settings.context, list->first)) {
        *list = (struct purchase_list){0};
        return;
    }
    log_warn("gate: cannot look up reserved purchases in the store: too much waiting; they are answered 503");
    struct gate_purchase *purchase;
    while ((purchase = purchase_list_take(list)) != NULL) {
        gate_answer(&gate->base, purchase, PURCHASE_UNAVAILABLE);
    }
}

/* Where a new reservation belongs. Its reply and the news come over two links: the news may well have been first. */
static void await_record(struct lua_gate *gate, struct gate_purchase *purchase)
{
    struct log_position position = purchase->purchase.position;
    bool old_epoch = position.epoch < gate->attached_epoch;
    bool announced = gate->heard_recorded && log_position_compare(position, gate->recorded) <= 0;
    if (!gate->subscribed) {
        purchase_list_append(&gate->missed, purchase);
    } else if (old_epoch || (announced && log_position_compare(position, gate->sure_after) <= 0)) {
        purchase_list_append(&gate->unsettled, purchase);
    } else if (announced) {
        gate_answer(&gate->base, purchase, PURCHASE_CONFIRMED);
    } else {
        purchase_list_append(&gate->waiting, purchase);
    }
}

/* --- calls ------------------------------------------------------------------------------------------------------------------------ */
static void free_call(struct call *call)
{
    call->next_free = call->gate->free_calls;
    call->gate->free_calls = call;
}

static size_t line_count(const struct gate_purchase *purchase)
{
    return order_part_count(&purchase->purchase.order); /* asked for, it has no components */
}

static int64_t *remaining_of(struct sale_order *order, size_t line)
{
    return line == 0 ? &order->remaining : &order->more[line - 1].remaining;
}

/* A line that cannot be had, though so many of its product could. */
static void note_short(struct purchase *purchase, size_t line, int64_t available)
{
    purchase->short_lines |= UINT32_C(1) << line;
    *remaining_of(&purchase->order, line) = available;
}

static void take_shortages(struct purchase *purchase, const redisReply *second)
{
    if (second->type == REDIS_REPLY_INTEGER) {
        note_short(purchase, 0, second->integer);
        return;
    }
    for (size_t i = 0; i < second->elements; i += 2) {
        note_short(purchase, (size_t)second->element[i]->integer, second->element[i + 1]->integer);
    }
}

static void take_refusal(const struct call *call, struct gate_purchase *gate_purchase, enum refusal refusal,
                         const redisReply *second)
{
    struct purchase *purchase = &gate_purchase->purchase;
    redisReply *const *figures = second->element;
    switch (refusal) {
    case REFUSAL_INSUFFICIENT_STOCK:
        take_shortages(purchase, second);
        /* Of the first line nothing was taken by another before it. Else stock was added meanwhile. */
        if ((purchase->short_lines & 1) != 0 && purchase->order.remaining == 0 &&
            call->stock_news == call->gate->stock_news) {
            mark_sold_out(call->gate, purchase->order.product_id);
        }
        break;
    case REFUSAL_CUSTOMER_LIMIT:
        purchase->refused_product_id = figures[0]->integer;
        purchase->requested = figures[1]->integer;
        purchase->figure = figures[2]->integer;
        purchase->limit = figures[3]->integer;
        break;
    case REFUSAL_NOT_OPEN:
    case REFUSAL_OVER:
        purchase->refused_product_id = figures[0]->integer;
        purchase->figure = figures[1]->integer;
        purchase->wait_ms = figures[2]->integer;
        break;
    case REFUSAL_NOT_ON_SALE:
        purchase->refused_product_id = second->integer;
        break;
    default:
        purchase->figure = second->integer;
    }
    refuse(call->gate, gate_purchase, refusal);
}

/* Price and remaining of each line. */
static void take_prices(struct sale_order *order, const redisReply *second, const redisReply *third)
{
    if (order->more_count == 0) {
        order->unit_price = second->integer;
        order->remaining = third->integer;
        return;
    }
    order->unit_price = second->element[0]->integer;
    order->remaining = second->element[1]->integer;
    for (size_t i = 0; i < order->more_count; i++) {
        order->more[i].unit_price = second->element[2 * (i + 1)]->integer;
        order->more[i].remaining = second->element[2 * (i + 1) + 1]->integer;
    }
}

static void take_answer(const struct call *call, struct gate_purchase *purchase,
                        const redisReply *const *three, int64_t at_ms, struct log_position position)
{
    int64_t outcome = three[0]->integer;
    if (outcome <= 0) {
        take_refusal(call, purchase, (enum refusal)outcome, three[1]);
        return;
    }
    struct purchase *sold = &purchase->purchase;
    sold->order.id = outcome;
    take_prices(&sold->order, three[1], three[2]);
    sold->at_ms = at_ms;
    sold->position = position;
    purchase_move(sold, PURCHASE_RESERVED);
    await_record(call->gate, purchase);
}

static bool are_numbers(const redisReply *list, size_t count)
{
    bool ok = list->type == REDIS_REPLY_ARRAY && list->elements == count;
    for (size_t i = 0; ok && i < count; i++) {
        ok = list->element[i]->type == REDIS_REPLY_INTEGER && list->element[i]->integer >= 0;
    }
    return ok;
}

static bool are_shortages(const redisReply *list, size_t lines)
{
    bool ok = list->type == REDIS_REPLY_ARRAY && list->elements >= 2 && list->elements % 2 == 0 &&
              are_numbers(list, list->elements);
    for (size_t i = 0; ok && i < list->elements; i += 2) {
        ok = list->element[i]->integer < (int64_t)lines;
    }
    return ok;
}

/* Is this what sell.lua answers? Redis can be made to say anything, and a CHECK is not for what others say. */
static bool is_answer(const struct gate_purchase *asked, const redisReply *const *three)
{
    const redisReply *second = three[1];
    size_t lines = line_count(asked);
    if (three[0]->type != REDIS_REPLY_INTEGER || three[2]->type != REDIS_REPLY_INTEGER) {
        return false;
    }
    if (three[0]->integer > 0) {
        return lines > 1
                   ? are_numbers(second, 2 * lines)
                   : second->type == REDIS_REPLY_INTEGER && second->integer > 0 && three[2]->integer >= 0;
    }
    switch (three[0]->integer) {
    case REFUSAL_INSUFFICIENT_STOCK:
        return lines > 1 ? are_shortages(second, lines) : second->type == REDIS_REPLY_INTEGER;
    case REFUSAL_CUSTOMER_LIMIT:
        return are_numbers(second, 4);
    case REFUSAL_NOT_OPEN:
    case REFUSAL_OVER:
        return are_numbers(second, 3);
    case REFUSAL_NOT_ON_SALE:
    case REFUSAL_ALREADY_ORDERED:
        return second->type == REDIS_REPLY_INTEGER;
    default:
        return false;
    }
}

static const redisReply *const *three_of(const redisReply *reply, size_t i)
{
    return (const redisReply *const *)&reply->element[REPLY_FIXED + REPLY_EACH * i];
}

/* *position: of the entry; {0, 0} if nothing was sold. */
static bool are_answers(const redisReply *reply, const struct call *call, struct log_position *position)
{
    size_t count = call->count;
    *position = (struct log_position){0};
    if (reply->type != REDIS_REPLY_ARRAY || reply->elements != REPLY_FIXED + REPLY_EACH * count ||
        reply->element[1]->type != REDIS_REPLY_INTEGER) {
        return false;
    }
    const redisReply *entry = reply->element[0];
    bool sold = entry->type == REDIS_REPLY_STRING;
    if (sold && (!log_position_parse(entry->str, entry->len, position) || position->epoch == 0)) {
        return false;
    }
    for (size_t i = 0; i < count; i++) {
        if (!is_answer(call->purchases[i], three_of(reply, i)) ||
            (three_of(reply, i)[0]->integer > 0 && !sold)) {
            return false;
        }
    }
    return true;
}

static void take_answers(struct call *call, const redisReply *reply, struct log_position position)
{
    for (size_t i = 0; i < call->count; i++) {
        take_answer(call, call->purchases[i], three_of(reply, i), reply->element[1]->integer, position);
    }
    settle(call->gate, &call->gate->unsettled);
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

/* Sold or not? Final as soon as the epoch of the call is over, which it may be already. */
static void put_in_doubt(struct call *call, const char *why)
{
    struct lua_gate *gate = call->gate;
    struct purchase_list over = {0},
                         *list = call->after.epoch < gate->attached_epoch ? &over : &gate->doubtful;
    log_warn("gate: %s, %zu purchases on the way: in doubt until the next epoch", why, call->count);
    metrics_add(METRICS_purchases_in_doubt, call->count);
    gate_call_failed(&gate->base, why);
    for (size_t i = 0; i < call->count; i++) {
        call->purchases[i]->purchase.position = call->after;
        purchase_list_append(list, call->purchases[i]);
    }
    settle(gate, &over);
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
        if (are_answers(reply, call, &position)) {
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

/* The command's words; they lie here until the next call. */
struct call_arguments {
    int argc;
    const char *argv[ARGUMENTS_FIXED + ARGUMENTS_MAX];
    size_t argv_bytes[ARGUMENTS_FIXED + ARGUMENTS_MAX];
    char numbers[ARGUMENTS_MAX][TEXT_INT64_BYTES];
    size_t numbers_used;
};

static void add_argument(struct call_arguments *arguments, const char *text, size_t bytes)
{
    arguments->argv[arguments->argc] = text;
    arguments->argv_bytes[arguments->argc++] = bytes;
}

static void add_number(struct call_arguments *arguments, int64_t number)
{
    char *text = arguments->numbers[arguments->numbers_used++];
    add_argument(arguments, text, text_from_int64(number, text));
}

/* The lines of a cart behind its first; of others their number is 0. */
static void add_lines(struct call_arguments *arguments, const struct sale_order *order)
{
    add_number(arguments, (int64_t)order->more_count);
    for (size_t i = 0; i < order->more_count; i++) {
        add_number(arguments, order->more[i].product_id);
        add_number(arguments, order->more[i].quantity);
    }
}

static void add_purchase(struct call_arguments *arguments, const struct sale_order *order, int fields)
{
    add_number(arguments, order->request);
    add_number(arguments, order->user_id);
    add_number(arguments, order->product_id);
    add_number(arguments, order->quantity);
    if (fields > FIELDS_MIN) {
        add_argument(arguments, order->key != NULL ? order->key : "", order->key_bytes);
    }
    if (fields == FIELDS_MAX) {
        add_lines(arguments, order);
    }
}

/* Calls without any key or cart do not pay for them. */
static int fields_of(const struct call *call)
{
    int fields = FIELDS_MIN;
    for (size_t i = 0; i < call->count; i++) {
        const struct sale_order *order = &call->purchases[i]->purchase.order;
        int own = order->more_count > 0 ? FIELDS_MAX : order->key != NULL ? FIELDS_MAX - 1 : FIELDS_MIN;
        fields = own > fields ? own : fields;
    }
    return fields;
}

static struct call_arguments *write_arguments(const struct call *call)
{
    static struct call_arguments arguments;
    static const char *const digits[FIELDS_MAX + 1] = {"0", "1", "2", "3", "4", "5", "6"};
    int fields = fields_of(call);
    const char *fixed[ARGUMENTS_FIXED] = {"EVALSHA",        call->gate->sell_sha, "5",
                                          gate_keys.head,   gate_keys.log,        gate_keys.product,
                                          gate_keys.buyers, gate_keys.ordered,    digits[fields]};
    arguments.argc = 0;
    arguments.numbers_used = 0;
    for (size_t i = 0; i < ARGUMENTS_FIXED; i++) {
        add_argument(&arguments, fixed[i], strlen(fixed[i]));
    }
    for (size_t i = 0; i < call->count; i++) {
        add_purchase(&arguments, &call->purchases[i]->purchase.order, fields);
    }
    return &arguments;
}

/* The next of the queue, if it still fits into the call. */
static struct gate_purchase *take_next(struct lua_gate *gate, size_t count, size_t lines)
{
    const struct gate_purchase *next = gate->queued.first;
    bool fits = next != NULL && count < GATE_BATCH_MAX && lines + line_count(next) <= SALES_LOG_LINES_MAX;
    return fits ? purchase_list_take(&gate->queued) : NULL;
}

static void send_call(struct lua_gate *gate)
{
    struct call *call = gate->free_calls;
    gate->free_calls = call->next_free;
    call->count = 0;
    call->sent_us = clock_monotonic_us();
    call->stock_news = gate->stock_news;
    call->after = gate->recorded.epoch == gate->script_epoch ? gate->recorded
                                                             : (struct log_position){gate->script_epoch, 0};
    size_t lines = 0;
    struct gate_purchase *purchase;
    while ((purchase = take_next(gate, call->count, lines)) != NULL) {
        lines += line_count(purchase);
        purchase_move(&purchase->purchase, PURCHASE_ASKED);
        call->purchases[call->count++] = purchase;
    }
    struct call_arguments *arguments = write_arguments(call);
    metrics_observe(METRICS_HISTOGRAM_gate_batch, call->count);
    CHECK(redis_link_command(gate->calls, call_cb, call, arguments->argc, arguments->argv,
                             arguments->argv_bytes));
}

static void note_behind(int64_t *since_us, bool behind)
{
    *since_us = !behind ? 0 : *since_us != 0 ? *since_us : clock_monotonic_us();
}

/* --- the news ------------------------------------------------------------------------------------------------------------------------ */
/* Takes out of `from` what must be in the store by now if it was ever sold: older epochs, and positions up to `recorded`. */
static void settle_up_to(struct lua_gate *gate, struct purchase_list *from, struct log_position recorded)
{
    struct purchase_list found = {0};
    while (from->first != NULL && log_position_compare(from->first->purchase.position, recorded) <= 0) {
        purchase_list_append(&found, purchase_list_take(from));
    }
    settle(gate, &found);
}

static struct log_position end_of_epoch(uint64_t epoch)
{
    return (struct log_position){.epoch = epoch, .n = UINT64_MAX};
}

static void hear_epoch(struct lua_gate *gate, uint64_t epoch)
{
    if (epoch <= gate->attached_epoch) {
        return;
    }
    gate->script_known = false;
    gate->wish = NULL;
    gate->attached_epoch = gate->base.epoch = epoch;
    forget_sold_out(gate); /* the attach may have put units back that were reserved and then forgotten */
    settle_up_to(gate, &gate->doubtful, end_of_epoch(epoch - 1));
    settle_up_to(gate, &gate->missed, end_of_epoch(epoch - 1));
    settle_up_to(gate, &gate->waiting, end_of_epoch(epoch - 1));
}

/* Answers what waits up to `recorded`; `rejected` is the rest of the news: " 55 56" or "". A record of one epoch says nothing of what was
 * reserved in another: Redis may have forgotten that. */
static void confirm_up_to(struct lua_gate *gate, struct log_position recorded, const char *rejected)
{
    settle_up_to(gate, &gate->waiting, end_of_epoch(recorded.epoch - (recorded.epoch > 0)));
    while (gate->waiting.first != NULL &&
           log_position_compare(gate->waiting.first->purchase.position, recorded) <= 0) {
        struct gate_purchase *purchase = purchase_list_take(&gate->waiting);
        if (recorded_news_reject(rejected, purchase->purchase.order.id)) {
            refuse(gate, purchase, REFUSAL_REJECTED);
        } else {
            gate_answer(&gate->base, purchase, PURCHASE_CONFIRMED);
        }
    }
}

/* Of a recorder that has been overtaken, stood still meanwhile and goes on talking. */
static bool is_old_news(const struct lua_gate *gate, const struct recorded_news *news)
{
    uint64_t epoch = (uint64_t)news->epoch;
    return (epoch != 0 && epoch < gate->attached_epoch) ||
           (gate->heard_recorded && epoch <= gate->attached_epoch &&
            log_position_compare(news->recorded, gate->recorded) < 0);
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
        gate->script_known = gate->script_known && gate->heard_recorded;
        return;
    }
    if (is_old_news(gate, &news)) {
        return;
    }
    bool first = !gate->heard_recorded;
    if (first || *news.rejected != '\0') {
        gate->sure_after = news.recorded;
    }
    gate->recorded = news.recorded;
    gate->recorded_us = clock_monotonic_us();
    gate->heard_recorded = true;
    hear_epoch(gate, (uint64_t)news.epoch);
    note_behind(&gate->news_behind_us,
                gate->script_known && news.epoch > 0 && (uint64_t)news.epoch < gate->script_epoch);
    if (first) { /* whoever was rejected up to here was named before we listened */
        settle_up_to(gate, &gate->waiting, news.recorded);
    } else {
        confirm_up_to(gate, news.recorded, news.rejected);
    }
    settle_up_to(gate, &gate->missed, news.recorded);
}

static void news_cb(const redisReply *reply, void *context)
{
    struct lua_gate *gate = context;
    if (reply == NULL || reply->type != REDIS_REPLY_ARRAY || reply->elements != 3) {
        return; /* the link is lost: news_down_cb follows */
    }
    const char *text = reply->element[2]->str;
    gate->news_us = clock_monotonic_us();
    if (strcmp(reply->element[0]->str, "subscribe") == 0) {
        gate->subscribed =
            true; /* what was announced before this moment is said again soon: the recorder repeats its position */
    } else {
        hear_recorded(gate, text);
    }
}

/* Whatever it was: a bundle may be had again that has it as a component. */
static void stock_cb(const redisReply *reply, void *context)
{
    if (reply != NULL && reply->type == REDIS_REPLY_ARRAY && reply->elements == 3 &&
        reply->element[2]->type == REDIS_REPLY_STRING) {
        forget_sold_out(context);
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
    if (gate->wish != NULL) {
        snprintf(why, SALES_LOG_NOTE_BYTES, LOG_REBUILD_WORD "%s", gate->wish);
        return true;
    }
    snprintf(why, SALES_LOG_NOTE_BYTES, "a worker lost the answer to %zu purchases", gate->doubtful.count);
    return gate->doubtful.first != NULL &&
           gate->doubtful.first->purchase.position.epoch == gate->script_epoch;
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
    return gate->heard_recorded && gate->attached_epoch > 0 &&
           clock_monotonic_us() - gate->recorded_us < SPEAKS_US;
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
    if (reply == NULL || reply->type != REDIS_REPLY_ARRAY) {
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
    bool behind = (uint64_t)epoch < gate->attached_epoch;
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
    gate->subscribed = gate->heard_recorded = false;
    gate->news_behind_us = 0;
    forget_sold_out(gate);
    purchase_list_join(&gate->missed, &gate->waiting);
}

/* --- deadlines --------------------------------------------------------------------------------------------------------------------------- */
/* All of the list: those that came back to it are not in the order of their deadlines. */
static void expire(struct lua_gate *gate, struct purchase_list *list, int64_t until_us)
{
    struct purchase_list kept = {0};
    struct gate_purchase *purchase;
    while ((purchase = purchase_list_take(list)) != NULL) {
        if (purchase->deadline_us <= until_us) {
            gate_answer(&gate->base, purchase, PURCHASE_UNAVAILABLE);
        } else {
            purchase_list_append(&kept, purchase);
        }
    }
    purchase_list_join(&kept, list); /* whatever an answer has let in meanwhile */
    *list = kept;
}

static void expire_all(struct lua_gate *gate, int64_t now_us)
{
    if (now_us < gate->next_expire_us) {
        return;
    }
    gate->next_expire_us = now_us + EXPIRE_EVERY_US;
    /* What would be sent now must still be able to wait for a lost reply. */
    expire(gate, &gate->queued, now_us + (int64_t)COMMAND_TIMEOUT_MS * 1000 + EXPIRE_EVERY_US);
    expire(gate, &gate->waiting, now_us);
    expire(gate, &gate->missed, now_us);
    expire(gate, &gate->doubtful, now_us);
}

/* Back-pressure: what is reserved now must still be recorded within its deadline. */
static void watch_record(struct lua_gate *gate, int64_t now_us)
{
    struct breaker *record = &gate->base.record;
    char reason[BREAKER_REASON_BYTES];
    if (!gate->heard_recorded) {
        return; /* not ready anyway */
    }
    bool silent = now_us - gate->recorded_us > NEWS_FRESH_US;
    bool stalled = silent || gate->waiting.count + gate->missed.count > WAITING_MAX;
    if (stalled && record->state == BREAKER_CLOSED) {
        metrics_add(METRICS_sale_stalls, 1);
        snprintf(reason, sizeof reason,
                 "selling nothing until the recorder has caught up: %s, %zu purchases wait for their record",
                 silent ? "it has been silent for a second" : "it is behind", gate->waiting.count);
        breaker_open(record, now_us, reason);
    } else if (!stalled) {
        breaker_succeeded(record, now_us);
    }
}

/* Why nothing can be sent to Redis; NULL: it can. That the recorder is silent is the other breaker's business. */
static const char *why_away(const struct lua_gate *gate)
{
    return !redis_link_is_up(gate->calls) ? "no link to Redis"
           : !gate->script_known          ? "the gate is closed: the recorder has not opened it"
           : !gate->heard_recorded && gate->base.record.state == BREAKER_CLOSED
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
    int64_t queued_us = age_us(gate->queued.first, now_us), waiting_us = age_us(gate->waiting.first, now_us);
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
    watch_record(gate, now_us);
    gate_watch(&gate->base, now_us, why_away(gate), expected_wait_us(gate, now_us));
    watch_links(gate, now_us);
}

/* --- the driver --------------------------------------------------------------------------------------------------------------------------- */
static bool lua_gate_is_ready(const struct gate *base)
{
    const struct lua_gate *gate = (const struct lua_gate *)base;
    return gate->script_known && gate->heard_recorded && gate->base.record.state == BREAKER_CLOSED &&
           redis_link_is_up(gate->calls) &&
           (gate->held_until_us == 0 || clock_monotonic_us() >= gate->held_until_us);
}

/* Is there nothing left of any of its lines? Then that is the answer, whatever else a cart has. */
static bool is_sold_out(struct lua_gate *gate, const struct sale_order *order)
{
    for (size_t i = 0; i < order_part_count(order); i++) {
        if (!is_marked_sold_out(gate, order_part_at(order, i).product_id)) {
            return false;
        }
    }
    return true;
}

static void refuse_at_once(struct lua_gate *gate, struct gate_purchase *purchase)
{
    metrics_add(METRICS_purchases_sold_out_at_once, 1);
    purchase_move(&purchase->purchase, PURCHASE_ASKED);
    for (size_t i = 0; i < line_count(purchase); i++) {
        note_short(&purchase->purchase, i, 0);
    }
    refuse(gate, purchase, REFUSAL_INSUFFICIENT_STOCK);
}

static void lua_gate_submit(struct gate *base, struct gate_purchase *purchase)
{
    struct lua_gate *gate = of(base);
    /* A key may stand for an order from before it was sold out: only Redis knows. */
    if (purchase->purchase.order.key == NULL && is_sold_out(gate, &purchase->purchase.order)) {
        refuse_at_once(gate, purchase);
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
        refuse(gate, purchase, REFUSAL_REJECTED);
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
    bool links_up = redis_link_is_up(gate->calls) && gate->subscribed;
    bool recorder_speaks = clock_monotonic_us() - gate->recorded_us < NEWS_FRESH_US;
    out[0] = (struct gate_part){.name = "redis", .state = links_up ? "up" : "down", .up = links_up};
    out[1] = (struct gate_part){
        .name = "gate", .state = gate->script_known ? "open" : "closed", .up = gate->script_known};
    out[2] = (struct gate_part){
        .name = "recorder", .state = recorder_speaks ? "up" : "silent", .up = recorder_speaks};
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
