/* verify's body: which of its ways is asked for, and what is printed at the end. One thread, blocking. Owns the connections and, while a
 * stopped server's Redis is awake for the audit, that. Redis, or a majority of the nodes, cannot be reached: the store alone is checked, exit code
 * 2. */
#include "verify.h"

#include "doorbuster/process.h"

#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

/* --- printing --------------------------------------------------------------------------------------------------------------------- */
/* A copy of the last hash, kept elsewhere, tells whether the log's end was cut off. */
static void add_audit_log(cJSON *json, const struct audit *audit)
{
    char head[VERIFY_HASH_BYTES];
    cJSON *log = cJSON_AddObjectToObject(json, "audit_log");
    audit_format_hash(audit->chain.head, head);
    cJSON_AddNumberToObject(log, "rows", (double)audit->chain.rows);
    cJSON_AddStringToObject(log, "head", head);
}

static void print_json(struct audit *audit, const struct repair *repair)
{
    cJSON *json = cJSON_CreateObject();
    cJSON_AddBoolToObject(json, "ok", audit_exit_code(audit) == 0);
    if (repair != NULL) {
        repair_report(repair, audit, json);
    }
    cJSON_AddItemToObject(json, "checks", audit->checks);
    cJSON_AddItemToObject(json, "products", audit->products);
    audit->checks = audit->products = NULL;
    cJSON_AddNumberToObject(json, "orders", (double)audit->orders.count);
    if (audit->chain_read) {
        add_audit_log(json, audit);
    }
    char *text = cJSON_Print(json);
    puts(text);
    cJSON_free(text);
    cJSON_Delete(json);
}

static void print_summary(const struct audit *audit)
{
    if (audit->broken > 0) {
        printf("%zu checks do not hold.\n", audit->broken);
    } else if (audit->unknown > 0) {
        printf("%zu checks could not be made; the others hold.\n", audit->unknown);
    } else {
        printf("All hold: %" PRId64 " orders, every book equal.\n", audit->orders.count);
    }
}

/* --- the ways --------------------------------------------------------------------------------------------------------------------- */
/* One audit, printed; its exit code. `repair` is NULL if there was none. */
static int audit_once(struct audit *audit, const struct acks *acks, const struct repair *repair)
{
    if (!audit_begin(audit)) {
        return 2;
    }
    audit_check(audit);
    if (acks != NULL) {
        acks_check(acks, audit);
    }
    audit_end(audit);
    if (audit->output == OUTPUT_JSON) {
        print_json(audit, repair);
        return audit_exit_code(audit);
    }
    if (repair != NULL) {
        repair_report(repair, audit, NULL);
    }
    print_summary(audit);
    return audit_exit_code(audit);
}

static int repair_and_audit(struct audit *audit, const struct acks *acks)
{
    struct repair repair;
    int exit_code = repair_ask(&repair, audit) ? audit_once(audit, acks, &repair) : 2;
    repair_fini(&repair);
    return exit_code;
}

/* Connects to Redis; a stopped server's is started for the audit, if that may be. Of the Redlock gate's nodes a majority is enough; those of a stopped
 * server keep nothing, so there is nothing to start. */
static void reach_gate(struct audit *audit, struct private_sleeper *sleeper, bool may_wake)
{
    char error[512], why[CLI_DATA_DIR_BYTES + 512] = "";
    if (audit_connect(audit, error, sizeof error)) {
        return;
    }
    if (audit->nodes_found.stopped) {
        return; /* the audit says so */
    }
    if (may_wake && audit->place->gate.kind == GATE_LUA && audit->place->gate.spawn_redis &&
        private_wake(sleeper, audit->place, why, sizeof why) && audit_connect(audit, error, sizeof error)) {
        return;
    }
    fprintf(stderr, VERIFY_PROGRAM ": %s%s%s; only the store can be checked\n", error,
            why[0] != '\0' ? "; " : "", why);
}

static void refuse_contradictions(const struct settings *settings)
{
    if (settings_get(settings, "watch") != NULL &&
        (settings_get(settings, "repair") != NULL || settings_get(settings, "acks") != NULL)) {
        process_refuse(settings->program, "--watch goes with --product and --json only; leave out --%s",
                       settings_get(settings, "repair") != NULL ? "repair" : "acks");
    }
}

int verify_run(const struct settings *settings)
{
    static struct audit audit;
    static struct cli_place place;
    static struct acks told;
    struct private_sleeper sleeper = {.lock_fd = -1, .pid = -1};
    char error[512];
    bool json = settings_get(settings, "json") != NULL;
    bool watch = settings_get(settings, "watch") != NULL, repair = settings_get(settings, "repair") != NULL;
    const char *acks_path = settings_get(settings, "acks");
    signal(SIGPIPE, SIG_IGN); /* a Redis that goes away is an error of a call, not our end */
    refuse_contradictions(settings);
    cli_read_place(settings, &place);
    audit = (struct audit){.place = &place, .output = json ? OUTPUT_JSON : OUTPUT_LINES};
    if (settings_get(settings, "product") != NULL) {
        audit.only_product = settings_get_integer(settings, "product", 1, INT64_MAX);
    }
    if (acks_path != NULL) {
        acks_read(&told, acks_path);
    }
    const struct acks *acks = acks_path != NULL ? &told : NULL;
    if (store_open(&audit.store, place.store_url, STORE_READER, error, sizeof error) != STORE_OK) {
        process_refuse(settings->program, "%s", error);
    }
    if (!cli_choose_gate(settings, audit.store, &place)) {
        process_refuse(settings->program, "%s", store_error(audit.store));
    }
    int exit_code;
    if (watch) {
        exit_code = watch_run(&audit, json);
    } else {
        reach_gate(&audit, &sleeper, !repair);
        exit_code = repair ? repair_and_audit(&audit, acks) : audit_once(&audit, acks, NULL);
    }
    audit_clear(&audit);
    acks_fini(&told);
    store_close(&audit.store);
    audit_disconnect(&audit);
    private_put_back(&sleeper);
    return exit_code;
}
