/* What admins change of a product that is on sale: its stock, its price and its window, through the sales log. Handlers and replies on the loop's thread,
 * the work in the pool. Owns nothing. Answered when the change is recorded; one that is not within the patience is answered 503, and with an
 * Idempotency-Key the same again is safe. */
#include "api_internal.h"

#include "doorbuster/books.h"
#include "doorbuster/clock.h"
#include "doorbuster/failpoint.h"
#include "doorbuster/json.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define REASON_CHARACTERS_MAX 200

enum change_finding {
    FOUND_MADE,
    FOUND_MADE_BEFORE,
    FOUND_KEY_REUSED,
    FOUND_BUNDLE,
    FOUND_SHORT,
    FOUND_FULL,
    FOUND_NEVER_OPEN
};

struct change_job {
    struct job job;
    enum change_kind kind;
    int64_t product_id, actor;
    int64_t figure;            /* the delta, or the new price */
    struct sale_window window; /* as it is asked for */
    char reason[SALES_LOG_NOTE_BYTES];
    const char *key; /* the request's */
    size_t key_bytes;
    enum change_finding finding;
    struct change_result result;
    int64_t available; /* FOUND_SHORT */
};

/* --- the work ---------------------------------------------------------------------------------------------------------------------------- */
static enum change_outcome change_stock(struct change_job *change, struct desk *desk)
{
    struct stock_change stock = {.product_id = change->product_id,
                                 .delta = change->figure,
                                 .cause = change->figure > 0 ? STOCK_RESTOCK : STOCK_WITHDRAWAL,
                                 .actor = change->actor,
                                 .key = change->key,
                                 .key_bytes = change->key_bytes};
    memcpy(stock.note, change->reason, sizeof stock.note);
    return books_change_stock(&desk->side, desk->writer, &stock, NULL, clock_left_ms(change->job.deadline_us),
                              &change->result);
}

static enum change_outcome change_price(struct change_job *change, struct desk *desk)
{
    struct price_change price = {.product_id = change->product_id,
                                 .to = change->figure,
                                 .actor = change->actor,
                                 .key = change->key,
                                 .key_bytes = change->key_bytes};
    memcpy(price.note, change->reason, sizeof price.note);
    return books_change_price(&desk->side, desk->writer, &price, clock_left_ms(change->job.deadline_us),
                              &change->result);
}

static enum change_outcome change_window(struct change_job *change, struct desk *desk)
{
    struct window_change window = {.product_id = change->product_id,
                                   .to = change->window,
                                   .actor = change->actor,
                                   .key = change->key,
                                   .key_bytes = change->key_bytes};
    memcpy(window.note, change->reason, sizeof window.note);
    return books_change_window(&desk->side, desk->writer, &window, clock_left_ms(change->job.deadline_us),
                               &change->result);
}

static enum change_outcome make_change(struct change_job *change, struct desk *desk)
{
    return change->kind == CHANGE_OF_STOCK   ? change_stock(change, desk)
           : change->kind == CHANGE_OF_PRICE ? change_price(change, desk)
                                             : change_window(change, desk);
}

static void fail(struct change_job *change, enum job_fault fault, const char *why)
{
    job_unavailable(&change->job, fault, "changing product %" PRId64 ": %s", change->product_id, why);
}

/* What "now" was, and what was kept, the first request's answer says. */
static bool is_such_time(int64_t asked, int64_t done)
{
    return asked == SALE_WINDOW_KEEP || (asked == SALE_WINDOW_NOW ? done != 0 : done == asked);
}

static bool is_same_change(const struct change_job *change)
{
    const struct change_result *done = &change->result;
    if (done->kind != change->kind || done->product_id != change->product_id) {
        return false;
    }
    return change->kind == CHANGE_OF_WINDOW ? is_such_time(change->window.starts_at_ms, done->figure) &&
                                                  is_such_time(change->window.ends_at_ms, done->stock)
                                            : done->figure == change->figure;
}

/* The store has said it, or Redis is read: at the store's position, or it would send the whole log along. */
static void note_available(struct change_job *change, struct desk *desk)
{
    const struct sale_product product = {.id = change->product_id};
    struct store_position now;
    struct gate_stock stock;
    change->finding = FOUND_SHORT;
    if (desk->side.place->kind == GATE_REDLOCK) {
        change->available = change->result.stock;
        return;
    }
    if (!job_store_status(&change->job, desk->reader, store_position(desk->reader, &now))) {
        return;
    }
    if (gate_read_stock(desk->side.redis, &product, now.recorded, &stock)) {
        change->available = stock.available;
    } else {
        fail(change, JOB_FAULT_GATE, redis_failure());
    }
}

/* The gate knows the product if it is open, and so does the store: what is left is a sale that is being opened anew. */
static void ask_gate(struct change_job *change, struct desk *desk)
{
    switch (make_change(change, desk)) {
    case CHANGE_MADE:
        break;
    case CHANGE_MADE_BEFORE:
        change->finding = is_same_change(change) ? FOUND_MADE_BEFORE : FOUND_KEY_REUSED;
        break;
    case CHANGE_SHORT:
        note_available(change, desk);
        break;
    case CHANGE_FULL:
        change->finding = FOUND_FULL;
        break;
    case CHANGE_NEVER_OPEN:
        change->finding = FOUND_NEVER_OPEN;
        break;
    case CHANGE_CLOSED:
        fail(change, JOB_FAULT_OTHER, books_failure());
        desk_drop_writer(desk);
        break;
    case CHANGE_FAILED:
        fail(change, desk->side.place->kind == GATE_LUA ? JOB_FAULT_GATE : JOB_FAULT_STORE, books_failure());
        desk_drop_writer(desk);
    }
}

static bool is_applied(struct change_job *change, struct store *reader)
{
    struct store_audit_row row;
    enum store_status status = store_audit_row_at(reader, change->result.position, change->product_id, &row);
    return status != STORE_NOT_FOUND && job_store_status(&change->job, reader, status) && row.applied;
}

/* That the store is past the change's position does not mean that it has the change: Redis may have forgotten it before it was recorded, and
 * a later epoch is past everything; and what Redis did may not have fitted the book. The audit log knows, of an earlier change too. */
static void confirm(struct change_job *change, struct store *reader)
{
    if (!books_await_recorded(reader, change->result.position, change->job.deadline_us)) {
        fail(change, JOB_FAULT_OTHER, "it is not recorded yet; it will be");
    } else if (!is_applied(change, reader) && change->job.outcome == JOB_OK) {
        fail(change, JOB_FAULT_OTHER,
             "it was forgotten before it was recorded, or the store did not have it");
    }
}

static void change_work(struct job *job, struct desk *desk)
{
    struct change_job *change = (struct change_job *)job;
    struct store_product product;
    if (!desk_needs_reader(desk, job) || !desk_needs_change(desk, job) ||
        !job_store_status(job, desk->reader,
                          store_find_product(desk->reader, change->product_id, &product))) {
        return;
    }
    if (product.component_count > 0 && change->kind == CHANGE_OF_STOCK) {
        change->finding = FOUND_BUNDLE;
        return;
    }
    ask_gate(change, desk);
    if (job->outcome != JOB_OK || (change->finding != FOUND_MADE && change->finding != FOUND_MADE_BEFORE)) {
        return;
    }
    if (failpoint("change.done")) {
        fail(change, JOB_FAULT_OTHER, "as if the gate's answer was lost");
    } else {
        confirm(change, desk->reader);
    }
    desk_doubt_gate(desk, job);
}

/* --- the answer -------------------------------------------------------------------------------------------------------------------------- */
static void add_what_changed(cJSON *json, const struct change_job *change)
{
    switch (change->kind) {
    case CHANGE_OF_STOCK:
        cJSON_AddNumberToObject(json, "delta", (double)change->figure);
        break;
    case CHANGE_OF_PRICE:
        cJSON_AddNumberToObject(json, "price", (double)change->figure);
        cJSON_AddNumberToObject(json, "previous_price", (double)change->result.stock);
        break;
    case CHANGE_OF_WINDOW:
        api_add_time_or_null(json, "starts_at", change->result.figure);
        api_add_time_or_null(json, "ends_at", change->result.stock);
    }
}

static void reply_changed(struct http_request *request, const struct change_job *change)
{
    char position[SALES_LOG_POSITION_BYTES];
    log_position_format(change->result.position, position);
    cJSON *json = cJSON_CreateObject();
    cJSON_AddNumberToObject(json, "product_id", (double)change->product_id);
    add_what_changed(json, change);
    cJSON_AddStringToObject(json, "reason", change->reason);
    if (change->kind == CHANGE_OF_STOCK) {
        cJSON_AddNumberToObject(json, "stock", (double)change->result.stock);
    }
    cJSON_AddStringToObject(json, "position", position);
    if (change->finding == FOUND_MADE_BEFORE) {
        http_reply_header(request, "Idempotent-Replayed", "true");
    }
    http_reply_json(request, 200, json);
}

static void reply_short(struct http_request *request, const struct change_job *change)
{
    cJSON *extensions = cJSON_CreateObject();
    cJSON_AddNumberToObject(extensions, "product_id", (double)change->product_id);
    cJSON_AddNumberToObject(extensions, "requested", (double)-change->figure);
    cJSON_AddNumberToObject(extensions, "available", (double)change->available);
    http_reply_problem(request, &api_problems[PROBLEM_WITHDRAWAL_TOO_LARGE], extensions,
                       "%" PRId64 " to be withdrawn, %" PRId64 " available.", -change->figure,
                       change->available);
}

static void change_reply(struct job *job)
{
    const struct change_job *change = (const struct change_job *)job;
    struct validation validation = {0};
    if (job->outcome == JOB_NOT_FOUND) {
        api_reply_not_found(job->request, "product", change->product_id);
        return;
    }
    switch (change->finding) {
    case FOUND_MADE:
        job_count_change(job, METRICS_recorder_stock_changes);
        reply_changed(job->request, change);
        break;
    case FOUND_MADE_BEFORE:
        reply_changed(job->request, change);
        break;
    case FOUND_KEY_REUSED:
        http_reply_problem(job->request, &api_problems[PROBLEM_IDEMPOTENCY_KEY_REUSED], NULL,
                           "This Idempotency-Key has made another change already, of product %" PRId64
                           "; it cannot make this one.",
                           change->result.product_id);
        break;
    case FOUND_BUNDLE:
        validation_add(&validation, "id",
                       "is a bundle's: a bundle has no stock of its own; change its components'");
        validation_failed(&validation, job->request);
        break;
    case FOUND_SHORT:
        reply_short(job->request, change);
        break;
    case FOUND_FULL:
        http_reply_problem(job->request, &api_problems[PROBLEM_STOCK_LIMIT], NULL,
                           "A product holds at most %" PRId64 " units.", PRODUCT_STOCK_MAX);
        break;
    case FOUND_NEVER_OPEN:
        validation_add(
            &validation, "ends_at",
            "must be after starts_at; what the request leaves out stays as it is, null takes it away");
        validation_failed(&validation, job->request);
    }
}

/* --- what is asked for -------------------------------------------------------------------------------------------------------------------- */
/* A time, "now", null for none; absent: as it is. */
static int64_t take_time(struct validation *validation, const cJSON *body, const char *field)
{
    const cJSON *given = cJSON_GetObjectItemCaseSensitive(body, field);
    int64_t at_ms = given == NULL ? SALE_WINDOW_KEEP : 0;
    if (cJSON_IsString(given) && strcmp(given->valuestring, "now") == 0) {
        return SALE_WINDOW_NOW;
    }
    validation_time(validation, body, field, &at_ms);
    return at_ms;
}

static void take_window(struct validation *validation, const cJSON *body, struct change_job *change)
{
    change->window.starts_at_ms = take_time(validation, body, "starts_at");
    change->window.ends_at_ms = take_time(validation, body, "ends_at");
    if (change->window.starts_at_ms == SALE_WINDOW_KEEP && change->window.ends_at_ms == SALE_WINDOW_KEEP) {
        validation_add(validation, "starts_at",
                       "or ends_at is required: a time as in RFC 3339, \"now\", or null for none");
    }
}

static void take_figure(struct validation *validation, const cJSON *body, struct change_job *change)
{
    if (change->kind == CHANGE_OF_WINDOW) {
        take_window(validation, body, change);
        return;
    }
    if (change->kind == CHANGE_OF_PRICE) {
        validation_integer(validation, body, "price", true, 1, PRODUCT_PRICE_MAX, &change->figure);
        return;
    }
    change->figure = 1;
    validation_integer(validation, body, "delta", true, -PRODUCT_STOCK_MAX, PRODUCT_STOCK_MAX,
                       &change->figure);
    if (change->figure == 0) {
        validation_add(validation, "delta", "must not be 0");
    }
}

static void create(struct http_request *request, struct api *api, enum change_kind kind)
{
    struct jwt_claims claims;
    const char *key = NULL, *reason = "";
    size_t key_bytes = 0;
    cJSON *body;
    if (!api_identify_admin(api, request, &claims) || !api_idempotency_key(request, &key, &key_bytes) ||
        (body = api_json_body(request)) == NULL) {
        return;
    }
    struct change_job *change = job_new(api, request, sizeof *change, change_work, change_reply);
    struct validation validation = {0};
    change->kind = kind;
    take_figure(&validation, body, change);
    validation_string(&validation, body, "reason", true, 1, REASON_CHARACTERS_MAX, &reason);
    validation_one_line(&validation, "reason", reason); /* as it is in the sales log */
    snprintf(change->reason, sizeof change->reason, "%s", reason);
    cJSON_Delete(body);
    if (validation_failed(&validation, request)) {
        return;
    }
    change->product_id = http_request_path_id(request);
    change->actor = claims.user_id;
    change->key = key;
    change->key_bytes = key_bytes;
    change->job.needs_gate = job_change_needs_gate(api);
    job_start(&change->job, WORK_CHANGE);
}

void stock_changes_create(struct http_request *request, void *context)
{
    create(request, context, CHANGE_OF_STOCK);
}

void price_changes_create(struct http_request *request, void *context)
{
    create(request, context, CHANGE_OF_PRICE);
}

void window_changes_create(struct http_request *request, void *context)
{
    create(request, context, CHANGE_OF_WINDOW);
}
