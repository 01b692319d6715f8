/* What waits for its record: see lua_record.h; lua_gate.c has the drawing. A worker's loop thread.
 *
 * What waits is confirmed by the news alone, and only if none was missed and the epoch is the same. In every other case the store is asked:
 * after the link to the news broke (`missed`), for what waits from an older epoch, and for what was in a call that got no reply (`doubtful`).
 * The store's word counts as soon as it has all that it will ever have of those: at a later position, or in a later epoch.
 *
 * Fails: what cannot be looked up, because too much waits for the store already, is answered 503, as is what waits past its deadline. */
#include "lua_record.h"

#include "doorbuster/clock.h"
#include "doorbuster/log.h"
#include "doorbuster/metrics.h"

#include <stdio.h>

#define FRESH_US 1000000 /* the recorder speaks every 100 ms; if it has not for so long, it does not record */
#define WAITING_MAX 10000 /* purchases waiting for their record; beyond, nothing more is reserved */

static void settle(struct lua_record *record, struct purchase_list *list)
{
    const struct gate_settings *settings = &record->gate->settings;
    if (list->first == NULL) {
        return;
    }
    if (settings->settle_cb(settings->context, list->first)) {
        *list = (struct purchase_list){0};
        return;
    }
    log_warn("gate: cannot look up reserved purchases in the store: too much waiting; they are answered 503");
    struct gate_purchase *purchase;
    while ((purchase = purchase_list_take(list)) != NULL) {
        gate_answer(record->gate, purchase, PURCHASE_UNAVAILABLE);
    }
}

/* --- reserved --------------------------------------------------------------------------------------------------------------------- */
/* Where a new reservation belongs. Its reply and the news come over two links: the news may well have been first. */
void lua_record_await(struct lua_record *record, struct gate_purchase *purchase)
{
    struct log_position position = purchase->purchase.position;
    bool old_epoch = position.epoch < record->epoch;
    bool announced = record->heard && log_position_compare(position, record->recorded) <= 0;
    if (!record->subscribed) {
        purchase_list_append(&record->missed, purchase);
    } else if (old_epoch || (announced && log_position_compare(position, record->sure_after) <= 0)) {
        purchase_list_append(&record->unsettled, purchase);
    } else if (announced) {
        gate_answer(record->gate, purchase, PURCHASE_CONFIRMED);
    } else {
        purchase_list_append(&record->waiting, purchase);
    }
}

void lua_record_reply_taken(struct lua_record *record)
{
    settle(record, &record->unsettled);
}

void lua_record_doubt(struct lua_record *record, struct gate_purchase *const *purchases, size_t count,
                      struct log_position after)
{
    struct purchase_list over = {0}, *list = after.epoch < record->epoch ? &over : &record->doubtful;
    metrics_add(METRICS_purchases_in_doubt, count);
    for (size_t i = 0; i < count; i++) {
        purchases[i]->purchase.position = after;
        purchase_list_append(list, purchases[i]);
    }
    settle(record, &over);
}

/* --- heard ------------------------------------------------------------------------------------------------------------------------ */
void lua_record_subscribed(struct lua_record *record)
{
    record->subscribed = true;
}

void lua_record_cut_off(struct lua_record *record)
{
    record->subscribed = record->heard = false;
    purchase_list_join(&record->missed, &record->waiting);
}

bool lua_record_is_newer(const struct lua_record *record, const struct recorded_news *news)
{
    uint64_t epoch = (uint64_t)news->epoch;
    bool of_older_epoch = epoch != 0 && epoch < record->epoch;
    bool is_behind =
        record->heard && epoch <= record->epoch && log_position_compare(news->recorded, record->recorded) < 0;
    return !of_older_epoch && !is_behind;
}

/* Takes out of `from` what must be in the store by now if it was ever sold: older epochs, and positions up to `recorded`. */
static void settle_up_to(struct lua_record *record, struct purchase_list *from, struct log_position recorded)
{
    struct purchase_list found = {0};
    while (from->first != NULL && log_position_compare(from->first->purchase.position, recorded) <= 0) {
        purchase_list_append(&found, purchase_list_take(from));
    }
    settle(record, &found);
}

static struct log_position end_of_epoch(uint64_t epoch)
{
    return (struct log_position){.epoch = epoch, .n = UINT64_MAX};
}

static void hear_epoch(struct lua_record *record, uint64_t epoch)
{
    if (epoch <= record->epoch) {
        return;
    }
    record->epoch = epoch;
    settle_up_to(record, &record->doubtful, end_of_epoch(epoch - 1));
    settle_up_to(record, &record->missed, end_of_epoch(epoch - 1));
    settle_up_to(record, &record->waiting, end_of_epoch(epoch - 1));
}

/* Answers what waits up to `recorded`; `rejected` is the rest of the news: " 55 56" or "". A record of one epoch says nothing of what was
 * reserved in another: Redis may have forgotten that. */
static void confirm_up_to(struct lua_record *record, struct log_position recorded, const char *rejected)
{
    settle_up_to(record, &record->waiting, end_of_epoch(recorded.epoch - (recorded.epoch > 0)));
    while (record->waiting.first != NULL &&
           log_position_compare(record->waiting.first->purchase.position, recorded) <= 0) {
        struct gate_purchase *purchase = purchase_list_take(&record->waiting);
        if (recorded_news_reject(rejected, purchase->purchase.order.id)) {
            gate_refuse(record->gate, purchase, REFUSAL_REJECTED);
        } else {
            gate_answer(record->gate, purchase, PURCHASE_CONFIRMED);
        }
    }
}

void lua_record_hear(struct lua_record *record, const struct recorded_news *news)
{
    bool first = !record->heard;
    if (first || *news->rejected != '\0') {
        record->sure_after = news->recorded;
    }
    record->recorded = news->recorded;
    record->recorded_us = clock_monotonic_us();
    record->heard = true;
    hear_epoch(record, (uint64_t)news->epoch);
    if (first) { /* whoever was rejected up to here was named before we listened */
        settle_up_to(record, &record->waiting, news->recorded);
    } else {
        confirm_up_to(record, news->recorded, news->rejected);
    }
    settle_up_to(record, &record->missed, news->recorded);
}

/* --- watched ---------------------------------------------------------------------------------------------------------------------- */
void lua_record_expire(struct lua_record *record, int64_t now_us)
{
    gate_expire(record->gate, &record->waiting, now_us);
    gate_expire(record->gate, &record->missed, now_us);
    gate_expire(record->gate, &record->doubtful, now_us);
}

bool lua_record_is_silent(const struct lua_record *record, int64_t now_us)
{
    return now_us - record->recorded_us > FRESH_US;
}

void lua_record_watch(const struct lua_record *record, int64_t now_us)
{
    struct breaker *breaker = &record->gate->record;
    char reason[BREAKER_REASON_BYTES];
    if (!record->heard) {
        return; /* not ready anyway */
    }
    bool silent = lua_record_is_silent(record, now_us);
    bool stalled = silent || record->waiting.count + record->missed.count > WAITING_MAX;
    if (stalled && breaker->state == BREAKER_CLOSED) {
        metrics_add(METRICS_sale_stalls, 1);
        snprintf(reason, sizeof reason,
                 "selling nothing until the recorder has caught up: %s, %zu purchases wait for their record",
                 silent ? "it has been silent for a second" : "it is behind", record->waiting.count);
        breaker_open(breaker, now_us, reason);
    } else if (!stalled) {
        breaker_succeeded(breaker, now_us);
    }
}
