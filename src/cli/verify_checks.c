/* verify's checks as a whole, and those that are about no single product: all orders, the audit log. Says check by check what was compared and
 * what was found. One thread, blocking, reads only. Owns what a pass has found. It may run in the middle of a sale: everything about the
 * store is read in one snapshot, and Redis's figures are taken back to that snapshot's position in the log (the nodes of the Redlock
 * gate: see verify_nodes.c). */
#include "verify.h"

#include "doorbuster/check.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* --- what was found --------------------------------------------------------------------------------------------------------------- */
/* Names may hold each other. */
static bool has_name(const char *names, const char *name)
{
    size_t bytes = strlen(name);
    while (strncmp(names, name, bytes) != 0 || (names[bytes] != '\0' && names[bytes] != ',')) {
        const char *end = strstr(names, ", ");
        if (end == NULL) {
            return false;
        }
        names = end + 2;
    }
    return true;
}

void audit_add_name(char *names, size_t bytes, const char *name)
{
    size_t used = strlen(names);
    if (!has_name(names, name) && used + strlen(name) + 3 < bytes) {
        snprintf(names + used, bytes - used, "%s%s", used > 0 ? ", " : "", name);
    }
}

static void add_json_check(struct audit *audit, const char *name, bool ok, const char *detail)
{
    cJSON *check = cJSON_CreateObject();
    cJSON_AddStringToObject(check, "name", name);
    cJSON_AddBoolToObject(check, "ok", ok);
    cJSON_AddStringToObject(check, "detail", detail);
    cJSON_AddItemToArray(audit->checks, check);
}

void audit_report(struct audit *audit, const char *name, enum verdict verdict, const char *format, ...)
{
    static const char *const words[] = {
        [HOLDS] = "ok     ", [BROKEN] = "BROKEN ", [UNKNOWN] = "unknown", [NOTED] = "note   "};
    char detail[512];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(detail, sizeof detail, format, arguments);
    va_end(arguments);
    audit->made++;
    audit->broken += verdict == BROKEN;
    audit->unknown += verdict == UNKNOWN;
    if (verdict == BROKEN) {
        audit_add_name(audit->broken_names, sizeof audit->broken_names, name);
    } else if (verdict == UNKNOWN) {
        audit_add_name(audit->unknown_names, sizeof audit->unknown_names, name);
    }
    if (audit->output == OUTPUT_LINES) {
        printf("%s  %-28s %s\n", words[verdict], name, detail);
    } else if (audit->output == OUTPUT_JSON) {
        add_json_check(audit, name, verdict == HOLDS || verdict == NOTED, detail);
    }
}

enum verdict audit_holds(bool condition)
{
    return condition ? HOLDS : BROKEN;
}

int audit_exit_code(const struct audit *audit)
{
    return audit->broken > 0 ? 1 : audit->unknown > 0 ? 2 : 0;
}

void audit_report_store_failure(struct audit *audit, const char *name)
{
    audit_report(audit, name, UNKNOWN, "%s", store_error(audit->store));
}

/* --- all orders ----------------------------------------------------------------------------------------------------------------------- */
static void check_orders(struct audit *audit)
{
    struct store_orders_audit *orders = &audit->orders;
    if (store_audit_orders(audit->store, orders) != STORE_OK) {
        audit_report_store_failure(audit, "order ids without gaps");
        return;
    }
    audit_report(audit, "order ids without gaps",
                 audit_holds(orders->first_gap == 0 && orders->last_id == orders->count &&
                             audit->position.last_order_id == orders->last_id),
                 "%" PRId64 " orders (%" PRId64 " of them rejected), ids %" PRId64 " to %" PRId64
                 ", first gap %" PRId64 " (0: none)",
                 orders->count, orders->rejected, orders->first_id, orders->last_id, orders->first_gap);
    audit_report(audit, "first come, first served",
                 audit_holds(orders->out_of_log_order == 0 && orders->out_of_time_order == 0),
                 "%" PRId64 " orders before their predecessor in the log, %" PRId64
                 " in time (the first: %" PRId64 ")",
                 orders->out_of_log_order, orders->out_of_time_order, orders->first_out_of_order);
    audit_report(audit, "orders known to the log", audit_holds(orders->beyond_position == 0),
                 "%" PRId64 " orders beyond the recorded log position", orders->beyond_position);
    audit_report(audit, "orders complete",
                 audit_holds(orders->unknown_user == 0 && orders->unknown_product == 0),
                 "%" PRId64 " of an unknown user, %" PRId64 " of an unknown product; %" PRId64
                 " of accounts or products that a restored backup did not have",
                 orders->unknown_user, orders->unknown_product, orders->lost);
}

/* --- the audit log --------------------------------------------------------------------------------------------------------------------- */
static void add_row(char *faults, size_t bytes, int64_t row, const char *what)
{
    size_t used = strlen(faults);
    if (row > 0 && used + 1 < bytes) {
        snprintf(faults + used, bytes - used, "; row %" PRId64 " %s", row, what);
    }
}

void audit_format_hash(const unsigned char *hash, char out[VERIFY_HASH_BYTES])
{
    for (size_t i = 0; i < STORE_AUDIT_HASH_BYTES; i++) {
        snprintf(out + 2 * i, 3, "%02x", hash[i]);
    }
}

static void read_chain(struct audit *audit)
{
    audit->chain_read = store_audit_chain(audit->store, &audit->chain) == STORE_OK;
    if (!audit->chain_read) {
        snprintf(audit->chain_error, sizeof audit->chain_error, "%s", store_error(audit->store));
    }
}

static void check_chain(struct audit *audit)
{
    static const char name[] = "audit log";
    const struct store_chain_audit *chain = &audit->chain;
    char head[VERIFY_HASH_BYTES], faults[256] = "";
    if (!audit->chain_read) {
        audit_report(audit, name, UNKNOWN, "%s", audit->chain_error);
        return;
    }
    add_row(faults, sizeof faults, chain->first_gap, "is missing");
    add_row(faults, sizeof faults, chain->first_forged, "is not as it was written");
    add_row(faults, sizeof faults, chain->first_off, "does not follow on its product's row before");
    add_row(faults, sizeof faults, chain->first_backwards, "is before its predecessor in the log");
    audit_format_hash(chain->head, head);
    audit_report(audit, name, audit_holds(faults[0] == '\0'), "%" PRId64 " rows, the last one's hash %.16s%s",
                 chain->rows, head, faults);
}

/* --- the whole ------------------------------------------------------------------------------------------------------------------------------ */
bool audit_begin(struct audit *audit)
{
    audit_clear(audit);
    if (!audit->quick) {
        read_chain(audit);
    }
    if (store_snapshot_begin(audit->store) != STORE_OK ||
        store_position(audit->store, &audit->position) != STORE_OK) {
        fprintf(stderr, VERIFY_PROGRAM ": %s\n", store_error(audit->store));
        return false;
    }
    if (audit->output == OUTPUT_JSON) {
        audit->checks = cJSON_CreateArray();
        audit->products = cJSON_CreateArray();
    }
    return true;
}

void audit_check(struct audit *audit)
{
    bool has_log = audit->place->gate.kind == GATE_LUA;
    if (has_log) {
        audit_read_tail(audit);
    } else {
        audit_be_patient(audit);
    }
    audit_check_products(audit);
    if (!audit->quick) {
        check_orders(audit);
        check_chain(audit);
    }
    if (has_log) {
        audit_check_tail(audit);
    } else {
        audit_check_nodes(audit);
    }
}

void audit_end(struct audit *audit)
{
    store_snapshot_end(audit->store);
}

void audit_clear(struct audit *audit)
{
    cJSON_Delete(audit->checks);
    cJSON_Delete(audit->products);
    free(audit->books);
    *audit = (struct audit){.place = audit->place,
                            .store = audit->store,
                            .redis = audit->redis,
                            .nodes = audit->nodes,
                            .live = audit->live,
                            .nodes_found = audit->nodes_found,
                            .output = audit->output,
                            .quick = audit->quick,
                            .only_product = audit->only_product};
}

bool audit_connect(struct audit *audit, char *error, size_t error_bytes)
{
    if (audit->place->gate.kind == GATE_REDLOCK) {
        return audit_connect_nodes(audit, error, error_bytes);
    }
    if (audit->redis != NULL && !redis_done(redis_ask(audit->redis, "PING"))) {
        redisFree(audit->redis);
        audit->redis = NULL;
    }
    if (audit->redis == NULL) {
        audit->redis =
            redis_connect_blocking(&audit->place->gate.redis, VERIFY_REDIS_TIMEOUT_MS, error, error_bytes);
    }
    return audit->redis != NULL;
}

void audit_disconnect(struct audit *audit)
{
    if (audit->redis != NULL) {
        redisFree(audit->redis);
        audit->redis = NULL;
    }
    if (audit->nodes != NULL) {
        node_books_close(&audit->nodes);
    }
    store_close(&audit->live);
}
