/* The recorder: the sales log into the store, in order, in large transactions. A process of its own, one thread, blocking calls. Owns the
 * store's position and the fence.
 *
 *   STANDBY --its turn--> DETACHED --attach--> ATTACHED --read, record, announce, over and over--+
 *      ^                   |  ^                   |  ^--------------------------------------------+
 *      |                   |  +-------------------+-- Redis lost, head or scripts not ours, store fenced or failing,
 *      +-------------------+----------------------+   a worker in doubt asks for it, the books differ
 *        another server has the turn (leading.h)
 *
 * Of several servers on one store and one Redis one records; the others stand by, look at the books, mend nothing, and ask ten times a second whether
 * it is their turn. A server alone always has it.
 *
 * If it dies, sales wait and go on from its position. It ends when nobody is left who could sell (the workers' lifeline closes): then it
 * drains the log. While it commits, the next entries gather: the busier, the larger the transactions.
 *
 * It says that it lives (metrics_beat()) before every step that may take long but ends by itself: each run of the log, each page of a rebuild, each look for
 * its turn at the store. Redis's own time limit is REDIS_TIMEOUT_MS. */
#include "attach.h"
#include "server.h"

#include "doorbuster/check.h"
#include "doorbuster/clock.h"
#include "doorbuster/failpoint.h"
#include "doorbuster/log.h"
#include "doorbuster/metrics.h"
#include "doorbuster/process.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define WAIT_FOR_ENTRIES_MS 100
#define HEAD_CHECK_US 50000 /* how often it makes sure that the gate is still its own */
#define TRIM_EVERY_US 1000000
#define TRIM_KEEPS                                                                                           \
    10 /* so many trims' worth of recorded entries stay, for readings of the stock at a position */
#define RETRY_FIRST_MS 20
#define RETRY_MAX_MS 250
#define REDIS_TIMEOUT_MS 2000
#define STANDBY_MS 100
#define DRAIN_US 2000000
#define MASTER_CHECK_US 1000000 /* how often a Sentinel is asked who is master */
#define SENTINEL_TIMEOUT_MS 100

/* A Redis that outlived its store may sell products that were made after the backup that was restored: it is filled anew. */
static bool opens_a_lost_product(const struct recorder *recorder, const struct log_entry *entry)
{
    static struct store_product product; /* large; one thread */
    return entry->kind == LOG_ENTRY_STOCK && entry->stock.cause == STOCK_OPENING &&
           store_find_product(recorder->store, entry->stock.product_id, &product) == STORE_NOT_FOUND;
}

/* "Attach again", if it means this epoch: doubt in an older one is over already. */
static void hear_wishes(struct recorder *recorder, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        const struct log_entry *entry = &recorder->entries[i];
        bool rebuild = entry->kind == LOG_ENTRY_ATTACH &&
                       strncmp(entry->stock.note, LOG_REBUILD_WORD, strlen(LOG_REBUILD_WORD)) == 0;
        if (rebuild || (entry->kind == LOG_ENTRY_ATTACH && entry->position.epoch == recorder->epoch)) {
            log_info("an attach is asked for: %s", entry->stock.note);
            recorder->attach_wanted = true;
            recorder->rebuild_wanted =
                recorder->rebuild_wanted || rebuild; /* also one that an attach finds */
        } else if (opens_a_lost_product(recorder, entry)) {
            log_warn("the log opens product %lld, which the store does not have: Redis is filled anew",
                     (long long)entry->stock.product_id);
            recorder->attach_wanted = recorder->rebuild_wanted = true;
        } else if (entry->kind == LOG_ENTRY_FOREIGN || entry->position.epoch > recorder->epoch) {
            recorder->attach_wanted = true; /* its id may be one behind which ours cannot follow */
        }
    }
}

/* How many of the entries follow on where the store is: every order one higher than the one before, nothing that cannot be read. */
static size_t sound_entries(const struct recorder *recorder, size_t count)
{
    int64_t last = recorder->last_order;
    for (size_t i = 0; i < count; i++) {
        const struct log_entry *entry = &recorder->entries[i];
        if (entry->kind == LOG_ENTRY_DAMAGED) {
            return i;
        }
        for (size_t j = 0; j < entry->order_count; j++) {
            if (entry->orders[j].id != ++last) {
                return i;
            }
        }
    }
    return count;
}

static enum record_result log_is_damaged(struct recorder *recorder)
{
    char at[SALES_LOG_POSITION_BYTES];
    log_position_format(recorder->recorded, at);
    log_event(LOG_ERROR, LOG_FIELDS(LOG_WORDS("position", at), LOG_NUMBER("order_id", recorder->last_order)),
              "the sales log does not go on after %s, where order %lld is the last: entries are missing or "
              "cannot be read; Redis is "
              "filled anew from the store",
              at, (long long)recorder->last_order);
    recorder->attach_wanted = recorder->rebuild_wanted = true;
    return RECORD_DAMAGED;
}

static void count_run(struct recorder *recorder, size_t count, int64_t commit_us)
{
    size_t orders = 0;
    for (size_t i = 0; i < count; i++) {
        const struct log_entry *entry = &recorder->entries[i];
        orders += entry->order_count;
        metrics_add(METRICS_recorder_cancellations, entry->kind == LOG_ENTRY_CANCEL);
        metrics_add(METRICS_recorder_stock_changes, entry->kind == LOG_ENTRY_STOCK ||
                                                        entry->kind == LOG_ENTRY_PRICE ||
                                                        entry->kind == LOG_ENTRY_WINDOW);
    }
    recorder->last_order += (int64_t)orders;
    metrics_observe(METRICS_HISTOGRAM_recorder_batch, orders);
    metrics_observe(METRICS_HISTOGRAM_commit_us, (uint64_t)commit_us);
    if (recorder->rejected_count > 0) {
        metrics_add(METRICS_recorder_rejected, recorder->rejected_count);
        log_event(LOG_ERROR,
                  LOG_FIELDS(LOG_NUMBER("order_id", recorder->rejected[0]),
                             LOG_NUMBER("epoch", (int64_t)recorder->epoch)),
                  "%zu orders did not fit the store and were rejected, the first is %lld: Redis had more "
                  "stock than the store, or another price; it is filled anew from the store",
                  recorder->rejected_count, (long long)recorder->rejected[0]);
        recorder->attach_wanted = recorder->rebuild_wanted = true;
    }
}

static struct gate_announcement announcement_of(const struct recorder *recorder)
{
    return (struct gate_announcement){recorder->store_id, recorder->open_epoch, recorder->recorded,
                                      recorder->rejected, recorder->rejected_count};
}

enum record_result recorder_record(struct recorder *recorder, int block_ms)
{
    size_t count;
    redisReply *reply;
    metrics_beat(clock_monotonic_us());
    struct gate_announcement announcement = announcement_of(recorder);
    struct log_room room = {.orders = recorder->orders,
                            .orders_max = RECORD_ORDERS_MAX,
                            .parts = recorder->parts,
                            .parts_max = RECORD_PARTS_MAX};
    /* While the gate is closed nothing is announced: an earlier recorder may have died before it said whom it rejected. The next epoch makes
     * every worker ask the store. */
    if (!gate_read_log(recorder->redis, recorder->open_epoch > 0 ? &announcement : NULL, recorder->recorded,
                       block_ms, recorder->entries, RECORD_ENTRIES_MAX, &room, &count, &reply)) {
        log_warn("announcing the record and reading the sales log: %s", redis_failure());
        return RECORD_FAILED;
    }
    recorder->rejected_count = 0;
    if (count == 0) {
        freeReplyObject(reply);
        return RECORDED_NOTHING;
    }
    count = sound_entries(recorder, count);
    if (count == 0 || failpoint("recorder.read")) {
        freeReplyObject(reply);
        return count == 0 ? log_is_damaged(recorder) : RECORD_FAILED;
    }
    int64_t began_us = clock_monotonic_us();
    enum store_status status =
        store_record(recorder->store, recorder->epoch, recorder->recorded, recorder->entries, count,
                     recorder->rejected, RECORD_ORDERS_MAX, &recorder->rejected_count);
    freeReplyObject(reply); /* not before: the orders' keys point into it */
    if (status != STORE_OK) {
        if (status == STORE_FENCED) {
            log_error("another recorder is at work: attaching again, if it is still this one's turn");
            recorder_overtaken(recorder);
        } else {
            recorder_store_failed(recorder, "recording");
        }
        return RECORD_FAILED;
    }
    recorder->recorded = recorder->entries[count - 1].position;
    count_run(recorder, count, clock_monotonic_us() - began_us);
    hear_wishes(recorder, count);
    return failpoint("recorder.announce") ? RECORD_FAILED : RECORDED_SOME;
}

/* `quietly`: at start a private Redis needs a moment; that is no news. */
static bool ensure_connected(struct recorder *recorder, const struct redis_address *address, bool quietly)
{
    char error[512];
    if (recorder->redis != NULL && recorder->redis->err == 0) {
        return true;
    }
    if (recorder->redis != NULL) {
        redisFree(recorder->redis);
    }
    recorder->redis = redis_connect_blocking(address, REDIS_TIMEOUT_MS, error, sizeof error);
    if (recorder->redis == NULL) {
        log_line(quietly ? LOG_DEBUG : LOG_WARN, "no Redis to record from: %s", error);
        leading_lose(&recorder->leading);
        return false;
    }
    recorder->named = false;
    leading_doubt(&recorder->leading); /* it may be another Redis, or one that has forgotten */
    return true;
}

/* Positions as they were at the last trims: the oldest says what may go. */
struct trimmer {
    struct log_position past[TRIM_KEEPS];
    int64_t next_us;
};

static bool trim(struct recorder *recorder, struct trimmer *trimmer, int64_t now_us)
{
    if (now_us < trimmer->next_us) {
        return true;
    }
    trimmer->next_us = now_us + TRIM_EVERY_US;
    struct log_position oldest = trimmer->past[0];
    for (size_t i = 1; i < TRIM_KEEPS; i++) {
        trimmer->past[i - 1] = trimmer->past[i];
    }
    trimmer->past[TRIM_KEEPS - 1] = recorder->recorded;
    return gate_trim(recorder->redis, oldest);
}

static bool gate_still_ours(struct recorder *recorder, int64_t *next_us, int64_t now_us)
{
    bool ours = true;
    if (now_us < *next_us) {
        return true;
    }
    *next_us = now_us + HEAD_CHECK_US;
    if (!gate_is_ours(recorder->redis, recorder->store_id, recorder->epoch, recorder->recorded,
                      recorder->last_order, &ours)) {
        log_warn("checking the head: %s", redis_failure());
        return false;
    }
    if (!ours) {
        log_warn(
            "the gate is not as we opened it (Redis forgot it, or somebody else opened it): attaching again");
        leading_doubt(&recorder->leading);
    }
    return ours;
}

/* An old master that is cut off from its Sentinels goes on answering: it is left as soon as they have another. */
static bool is_still_the_master(struct recorder *recorder, const struct redis_address *address,
                                int64_t now_us)
{
    if (now_us < recorder->next_master_us) {
        return true;
    }
    recorder->next_master_us = now_us + MASTER_CHECK_US;
    if (!redis_was_replaced(address, recorder->redis, SENTINEL_TIMEOUT_MS)) {
        return true;
    }
    log_warn("the Sentinels have another master than %s:%d: attaching to that", recorder->redis->tcp.host,
             recorder->redis->tcp.port);
    recorder->redis->err = REDIS_ERR_OTHER; /* the next connection is to that one */
    return false;
}

/* While nobody buys, nothing is recorded, so the store does not say by itself that it follows another recorder by now. */
static bool books_are_equal(struct recorder *recorder, int64_t *next_us, int64_t now_us)
{
    if (now_us < *next_us) {
        return true;
    }
    *next_us = now_us + sale_board_pause_us(recorder->board);
    return recorder_owns_store(recorder) && recorder_compare_books(recorder);
}

static bool keeps_its_turn(struct recorder *recorder)
{
    return leading_keep(&recorder->leading, recorder->redis, clock_monotonic_us());
}

static void keep_recording(struct recorder *recorder, const struct redis_address *address, int lifeline_fd)
{
    struct trimmer trimmer = {.next_us = 0};
    int64_t next_check_us = 0, next_compare_us = 0, now_us;
    enum record_result result;
    do {
        now_us = clock_monotonic_us();
        log_flush(false);
        result = recorder_record(recorder, WAIT_FOR_ENTRIES_MS);
    } while (result < RECORD_FAILED && !recorder->attach_wanted && keeps_its_turn(recorder) &&
             gate_still_ours(recorder, &next_check_us, now_us) &&
             is_still_the_master(recorder, address, now_us) && trim(recorder, &trimmer, now_us) &&
             books_are_equal(recorder, &next_compare_us, now_us) && !lifeline_is_closed(lifeline_fd, 0));
}

/* What our own workers sold is recorded, for they have waited for it. In a Redis of our own nothing is left behind; in one that others sell
 * through the log may have no end: what comes after now is for whoever records next. */
static void drain(struct recorder *recorder, bool everything)
{
    struct gate_head head;
    int64_t enough_us = clock_monotonic_us() + DRAIN_US;
    if (recorder->redis == NULL || recorder->store == NULL || recorder->open_epoch == 0 ||
        !recorder->leading.leads || !gate_read_head(recorder->redis, &head)) {
        return;
    }
    while (recorder_record(recorder, 0) == RECORDED_SOME &&
           (everything || (log_position_compare(recorder->recorded, head.log_last) < 0 &&
                           clock_monotonic_us() < enough_us && keeps_its_turn(recorder)))) {
    }
    struct gate_announcement last = announcement_of(recorder);
    if (recorder->redis->err == 0) {
        gate_announce(recorder->redis, &last); /* others' buyers wait for it */
    }
}

static void drain_and_leave(struct recorder *recorder, const struct server_shared *shared)
{
    drain(recorder, shared->configuration.place.spawn_redis);
    leading_drop(&recorder->leading, recorder->redis, "the server stops");
    bool orphaned = lifeline_is_closed(shared->supervisor_lifeline[0], 0);
    if (recorder->redis != NULL && orphaned && shared->configuration.place.spawn_redis) {
        log_warn("the supervisor is gone: shutting the private Redis down");
        freeReplyObject(redis_ask(recorder->redis, "SHUTDOWN"));
    }
    if (recorder->redis != NULL) {
        redisFree(recorder->redis);
    }
    store_close(&recorder->store);
}

static struct recorder *the_recorder;

/* Whoever waits at the store does not hang. Attaching it keeps its turn, however long the store's answers are: two that take it from each other in the
 * middle of that would never come to its end. Recording it does not: the other's store may be quicker. */
static void beat_cb(void)
{
    metrics_beat(clock_monotonic_us());
    if (the_recorder->attaching && the_recorder->leading.leads && the_recorder->redis->err == 0) {
        recorder_beat(the_recorder);
    }
}

enum step { STEP_ATTACHED, STEP_STANDBY, STEP_FAILED };

/* Who stands by writes nothing, and is nobody's to end. A Redis that does not know names leaves it to the lease. */
static bool name_connection(struct recorder *recorder, int database, bool records)
{
    if (recorder->named != records) {
        recorder->named = records;
        if (!(records ? gate_name_recorder(recorder->redis, database)
                      : gate_unname_recorder(recorder->redis))) {
            log_warn("naming the connection to Redis: %s", redis_failure());
        }
    }
    return recorder->redis->err == 0;
}

/* From whatever state to one in which it records, or stands by. */
static enum step next_step(struct recorder *recorder, const struct server_shared *shared, bool quietly)
{
    const struct server_configuration *configuration = &shared->configuration;
    char error[512];
    log_flush(false);
    metrics_beat(clock_monotonic_us());
    if (recorder->store == NULL && store_open(&recorder->store, configuration->store_url, STORE_WRITER, error,
                                              sizeof error) != STORE_OK) {
        log_error("no store to record into: %s", error);
        leading_drop(&recorder->leading, recorder->redis, "no store to record into");
        return STEP_FAILED;
    }
    if (!ensure_connected(recorder, &configuration->place.redis, quietly) ||
        !is_still_the_master(recorder, &configuration->place.redis, clock_monotonic_us())) {
        return STEP_FAILED;
    }
    bool leads = keeps_its_turn(recorder);
    if (recorder->redis->err != 0 || !name_connection(recorder, configuration->place.redis.database, leads)) {
        return STEP_FAILED;
    }
    if (!leads) {
        return recorder_watch_books(recorder) ? STEP_STANDBY : STEP_FAILED;
    }
    return recorder_attach(recorder) ? STEP_ATTACHED : STEP_FAILED;
}

static int pause_after(const struct recorder *recorder, enum step step, int retry_ms)
{
    if (step == STEP_STANDBY) {
        return STANDBY_MS;
    }
    return step == STEP_FAILED ? retry_ms : recorder->attach_wanted ? 0 : RETRY_FIRST_MS;
}

int recorder_run(const struct server_shared *shared)
{
    signal(SIGINT, SIG_IGN); /* the supervisor decides when to stop; Ctrl-C reaches the whole group */
    signal(SIGTERM, SIG_IGN);
    signal(SIGHUP, SIG_IGN);
    close(shared->supervisor_lifeline[1]);
    close(shared->workers_lifeline[1]);
    process_set_title("doorbuster: recorder");
    log_set_speaker("recorder");
    metrics_use_slot(&shared->metrics->recorder);

    struct recorder *recorder = calloc(1, sizeof *recorder);
    CHECK(recorder != NULL);
    recorder->board = sale_board_new(&shared->metrics->board);
    leading_init(&recorder->leading, shared->configuration.holder.server, shared->configuration.holder.run,
                 shared->configuration.secret, shared->configuration.secret_bytes);
    the_recorder = recorder;
    store_while_waiting(beat_cb);
    gate_while_working(beat_cb);
    bool ready = false;
    int retry_ms = RETRY_FIRST_MS;
    enum step step;
    do {
        step = next_step(recorder, shared, retry_ms < RETRY_MAX_MS);
        if (step != STEP_FAILED && !ready) {
            ready = true;
            supervisor_tell_ready(shared);
        }
        if (step == STEP_ATTACHED) {
            keep_recording(recorder, &shared->configuration.place.redis, shared->workers_lifeline[0]);
        } else if (step == STEP_FAILED) {
            recorder_show_store(recorder);
        }
        retry_ms = step != STEP_FAILED           ? RETRY_FIRST_MS
                   : retry_ms * 2 < RETRY_MAX_MS ? retry_ms * 2
                                                 : RETRY_MAX_MS;
    } while (!lifeline_is_closed(shared->workers_lifeline[0], pause_after(recorder, step, retry_ms)));
    drain_and_leave(recorder, shared);
    sale_board_free(&recorder->board);
    free(recorder);
    return 0;
}
