/* verify --repair: asks the running recorder to attach again, which makes it compare Redis with the store and mend Redis, and tells what came
 * of it. verify itself changes nothing. One thread, blocking. Owns the figures from before. Without a recorder that answers: one line and
 * false. */
#include "verify.h"

#include "doorbuster/clock.h"
#include "doorbuster/gate_books.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#define ATTACH_TIMEOUT_S 10
#define POLL_MS 20

static bool fail(const char *what, const char *why)
{
    fprintf(stderr, VERIFY_PROGRAM ": cannot repair: %s: %s\n", what, why);
    return false;
}

/* A quick pass that prints nothing. */
static bool look(struct audit *audit)
{
    enum verify_output output = audit->output;
    audit->output = OUTPUT_NONE;
    audit->quick = true;
    bool ok = audit_begin(audit);
    if (ok) {
        audit_check(audit);
    }
    audit_end(audit);
    audit->output = output;
    audit->quick = false;
    return ok;
}

/* The figures from before. */
static bool read_before(struct repair *repair, struct audit *audit)
{
    bool ok = look(audit);
    if (ok) {
        repair->before = audit->books;
        repair->before_count = audit->book_count;
        audit->books = NULL;
        audit->book_count = audit->books_room = 0;
    }
    return ok;
}

/* Of the Redlock gate: does everything hold that a quick pass looks at, on each node? */
static bool pass_holds(struct audit *audit)
{
    char error[512];
    return audit_connect(audit, error, sizeof error) && look(audit) && audit_exit_code(audit) == 0 &&
           audit->nodes_found.lagging == 0;
}

/* Without a recorder: the keeper compares all the time. Here is waited until the nodes agree, or the time is over; what is still wrong then, the audit
 * that follows says. */
static bool await_keeper(struct repair *repair, struct audit *audit)
{
    int64_t deadline_us = clock_monotonic_us() + (int64_t)ATTACH_TIMEOUT_S * 1000000;
    repair->by_keeper = true;
    if (audit->nodes_found.answering == 0) {
        return fail("no lock node can be reached", "is the server running?");
    }
    if (!read_before(repair, audit)) {
        return false;
    }
    bool told = false;
    while (!pass_holds(audit) && clock_monotonic_us() < deadline_us) {
        if (!told) {
            fprintf(stderr, VERIFY_PROGRAM ": waiting up to %d s for the keeper\n", ATTACH_TIMEOUT_S);
            told = true;
        }
        nanosleep(&(struct timespec){.tv_nsec = POLL_MS * 1000000}, NULL);
    }
    return true;
}

/* Redis may come and go while the recorder mends it. */
static bool has_newer_epoch(struct repair *repair, struct audit *audit)
{
    char error[512];
    struct gate_head head;
    if (!audit_connect(audit, error, sizeof error) || !gate_read_head(audit->redis, &head)) {
        return false;
    }
    repair->epoch_after = head.epoch;
    return head.epoch > repair->epoch_before;
}

bool repair_ask(struct repair *repair, struct audit *audit)
{
    struct gate_head head;
    *repair = (struct repair){0};
    if (audit->place->gate.kind == GATE_REDLOCK) {
        return await_keeper(repair, audit);
    }
    if (audit->redis == NULL) {
        return fail("Redis cannot be reached", "is the server running?");
    }
    if (!read_before(repair, audit)) {
        return false;
    }
    if (!gate_read_head(audit->redis, &head)) {
        return fail("reading the head", redis_failure());
    }
    repair->epoch_before = head.epoch;
    if (!gate_ask_attach(audit->redis, head.epoch, "verify --repair")) {
        return fail("asking for an attach", redis_failure());
    }
    int64_t deadline_us = clock_monotonic_us() + (int64_t)ATTACH_TIMEOUT_S * 1000000;
    while (!has_newer_epoch(repair, audit)) {
        if (clock_monotonic_us() > deadline_us) {
            fprintf(stderr, VERIFY_PROGRAM ": no recorder attached within %d s: is the server running?\n",
                    ATTACH_TIMEOUT_S);
            return false;
        }
        nanosleep(&(struct timespec){.tv_nsec = POLL_MS * 1000000}, NULL);
    }
    return true;
}

static bool differs(const struct verify_book *book)
{
    return !book->known || book->differ_in != NULL;
}

static const struct verify_book *find_book(const struct audit *audit, int64_t product_id)
{
    for (size_t i = 0; i < audit->book_count; i++) {
        if (audit->books[i].product_id == product_id) {
            return &audit->books[i];
        }
    }
    return NULL;
}

static const char *redis_figure(const struct verify_book *book, char out[32])
{
    if (book->known) {
        snprintf(out, 32, "%" PRId64, book->redis);
    } else {
        snprintf(out, 32, "unknown");
    }
    return out;
}

static void add_figures(cJSON *json, const char *name, const struct verify_book *book)
{
    cJSON *figures = cJSON_AddObjectToObject(json, name);
    if (book->known) {
        cJSON_AddNumberToObject(figures, "redis", (double)book->redis);
    } else {
        cJSON_AddNullToObject(figures, "redis");
    }
    cJSON_AddNumberToObject(figures, "store", (double)book->store);
}

static void report_product(const struct verify_book *before, const struct verify_book *after,
                           const char *side, cJSON *list)
{
    char was[32], is[32];
    if (list == NULL) {
        printf("repair   product %" PRId64 " (%s): before %s %s, store %" PRId64 "; now %s %s, store %" PRId64
               ": %s\n",
               before->product_id, before->known ? before->differ_in : "unknown", side,
               redis_figure(before, was), before->store, side, redis_figure(after, is), after->store,
               differs(after) ? "NOT MENDED" : "mended");
        return;
    }
    cJSON *json = cJSON_CreateObject();
    cJSON_AddNumberToObject(json, "id", (double)before->product_id);
    cJSON_AddBoolToObject(json, "mended", !differs(after));
    if (before->known) {
        cJSON_AddStringToObject(json, "differed_in", before->differ_in);
    }
    add_figures(json, "before", before);
    add_figures(json, "after", after);
    cJSON_AddItemToArray(list, json);
}

void repair_report(const struct repair *repair, const struct audit *audit, cJSON *json)
{
    cJSON *list = json != NULL ? cJSON_CreateArray() : NULL;
    size_t different = 0, mended = 0;
    for (size_t i = 0; i < repair->before_count; i++) {
        const struct verify_book *before = &repair->before[i];
        const struct verify_book *after = differs(before) ? find_book(audit, before->product_id) : NULL;
        if (after != NULL) {
            different++;
            mended += !differs(after);
            report_product(before, after, repair->by_keeper ? "nodes" : "Redis", list);
        }
    }
    if (json == NULL && repair->by_keeper) {
        printf(
            "repair   the keeper brings the nodes up to date by itself: %zu products differed, %zu of them "
            "agree now\n",
            different, mended);
        return;
    }
    if (json == NULL) {
        printf("repair   the recorder attached again (epoch %" PRIu64 " -> %" PRIu64
               "): %zu products differed, %zu of them mended\n",
               repair->epoch_before, repair->epoch_after, different, mended);
        return;
    }
    cJSON *out = cJSON_AddObjectToObject(json, "repair");
    if (!repair->by_keeper) {
        cJSON_AddNumberToObject(out, "epoch_before", (double)repair->epoch_before);
        cJSON_AddNumberToObject(out, "epoch_after", (double)repair->epoch_after);
    }
    cJSON_AddNumberToObject(out, "different", (double)different);
    cJSON_AddNumberToObject(out, "mended", (double)mended);
    cJSON_AddItemToObject(out, "products", list);
}

void repair_fini(struct repair *repair)
{
    free(repair->before);
    *repair = (struct repair){0};
}
