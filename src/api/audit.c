/* The audit log, for admins: every change of a book, the newest first. Handlers and replies on the loop's thread, the store is read in the work
 * pool. Owns nothing. */
#include "api_internal.h"

#include "doorbuster/clock.h"
#include "doorbuster/json.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LIST_DEFAULT 50
#define LIST_MAX 100

struct audit_job {
    struct job job;
    int64_t before, product_id;
    size_t limit;
    cJSON *list; /* made in the pool, printed on the loop */
};

static void add_hash(cJSON *json, const unsigned char hash[STORE_AUDIT_HASH_BYTES])
{
    char text[2 * STORE_AUDIT_HASH_BYTES + 1];
    for (size_t i = 0; i < STORE_AUDIT_HASH_BYTES; i++) {
        snprintf(text + 2 * i, 3, "%02x", hash[i]);
    }
    cJSON_AddStringToObject(json, "hash", text);
}

/* Bundles are sold and come back, but have no stock that goes from one figure to another: null. */
static void add_figure(cJSON *json, const char *name, const struct store_audit_row *row, int64_t figure)
{
    if (row->applied && row->delta != 0 && row->from == row->to) {
        cJSON_AddNullToObject(json, name);
    } else {
        cJSON_AddNumberToObject(json, name, (double)figure);
    }
}

static cJSON *row_to_json(const struct store_audit_row *row)
{
    char at[CLOCK_RFC3339_BYTES], position[SALES_LOG_POSITION_BYTES];
    clock_rfc3339(row->at_ms, at);
    log_position_format(row->position, position);
    cJSON *json = cJSON_CreateObject();
    cJSON_AddNumberToObject(json, "seq", (double)row->seq);
    cJSON_AddStringToObject(json, "at", at);
    cJSON_AddStringToObject(json, "position", position);
    cJSON_AddNumberToObject(json, "product_id", (double)row->product_id);
    cJSON_AddStringToObject(json, "cause", row->cause);
    cJSON_AddNumberToObject(json, "delta", (double)row->delta);
    add_figure(json, "from", row, row->from);
    add_figure(json, "to", row, row->to);
    if (strcmp(row->cause, "starts") == 0 || strcmp(row->cause, "ends") == 0) {
        api_add_time_or_null(json, "from_time", row->from);
        api_add_time_or_null(json, "to_time", row->to);
    }
    cJSON_AddBoolToObject(json, "applied", row->applied);
    if (row->actor != 0) {
        cJSON_AddNumberToObject(json, "actor", (double)row->actor);
    } else {
        cJSON_AddNullToObject(json, "actor");
    }
    cJSON_AddStringToObject(json, "reason", row->note);
    if (row->key[0] != '\0') {
        cJSON_AddStringToObject(json, "idempotency_key", row->key);
    }
    add_hash(json, row->hash);
    return json;
}

static void audit_work(struct job *job, struct desk *desk)
{
    struct audit_job *audit = (struct audit_job *)job;
    struct store_audit_row *rows = malloc(audit->limit * sizeof *rows);
    size_t count = 0;
    if (rows == NULL) {
        job->outcome = JOB_UNAVAILABLE;
        snprintf(job->error, sizeof job->error, "no memory for %zu rows of the audit log", audit->limit);
    } else if (desk_needs_reader(desk, job) &&
               job_store_status(job, desk->reader,
                                store_audit_log(desk->reader, audit->before, audit->product_id, rows,
                                                audit->limit, &count))) {
        audit->list = cJSON_CreateArray();
        for (size_t i = 0; i < count; i++) {
            cJSON_AddItemToArray(audit->list, row_to_json(&rows[i]));
        }
    }
    free(rows);
}

static void audit_reply(struct job *job)
{
    http_reply_json(job->request, 200, ((struct audit_job *)job)->list);
}

void audit_list(struct http_request *request, void *context)
{
    struct jwt_claims claims;
    if (!api_identify_admin(context, request, &claims)) {
        return;
    }
    int64_t limit = LIST_DEFAULT, before = INT64_MAX, product_id = 0;
    struct validation validation = {0};
    validation_query(&validation, request, "limit", LIST_MAX, &limit);
    validation_query(&validation, request, "before", JSON_INTEGER_MAX, &before);
    validation_query(&validation, request, "product_id", JSON_INTEGER_MAX, &product_id);
    if (validation_failed(&validation, request)) {
        return;
    }
    struct audit_job *audit = job_new(context, request, sizeof *audit, audit_work, audit_reply);
    audit->limit = (size_t)limit;
    audit->before = before;
    audit->product_id = product_id;
    job_start(&audit->job, WORK_STORE);
}
