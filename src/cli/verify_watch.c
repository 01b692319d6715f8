/* verify --watch: a pass about every second, a line a pass, until SIGINT or SIGTERM, or until nobody reads the lines.
 *
 * A quick pass reads what does not grow with the number of orders: the products' books, Redis's figures, the log behind the store's
 * position, of the Redlock gate the nodes' figures. A full one reads every order; it comes first, then at most every FULL_EVERY_US, and so seldom that it takes
 * no more than a FULL_SHAREth of the time. What the last full pass found stays in the lines until the next one. One thread, blocking; signals only end the
 * waiting. If Redis or the store goes away, the pass says so and the next one tries again. */
#include "verify.h"

#include "doorbuster/check.h"
#include "doorbuster/clock.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#define PASS_EVERY_US 1000000
#define FULL_EVERY_US 30000000
#define FULL_SHARE 20

struct watch {
    struct audit *audit;
    bool json;
    int64_t full_next_us;
    char full_only_broken[VERIFY_NAMES_BYTES], full_only_unknown[VERIFY_NAMES_BYTES];
    int64_t last_orders, last_us; /* of the pass before; 0: this is the first */
    bool any_broken, any_unknown;
};

struct pass {
    bool read; /* the store could be read */
    bool full;
    int64_t orders;
    double orders_per_second;
    int64_t lag_ms;
    size_t checks;
    char broken[VERIFY_NAMES_BYTES], unknown[VERIFY_NAMES_BYTES];
};

/* --- what a full pass found, and a quick one does not look at -------------------------------------------------------------------------- */
static bool is_checked_each_pass(const char *name)
{
    static const char *const names[] = {"stock arithmetic", "stock and price in range",
                                        "Redis = store",    "nodes = store",
                                        "lock nodes",       "orders = log",
                                        "products"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        if (strcmp(names[i], name) == 0) {
            return true;
        }
    }
    return false;
}

/* Cuts the first name off a list ("a, b"); NULL: there is none left. */
static const char *next_name(char **rest)
{
    char *name = *rest;
    if (name == NULL || *name == '\0') {
        return NULL;
    }
    char *end = strstr(name, ", ");
    *rest = end != NULL ? end + 2 : NULL;
    if (end != NULL) {
        *end = '\0';
    }
    return name;
}

/* Adds each of `names` that is not there yet; with `full_only`, those alone that a quick pass does not check. */
static void add_names(char out[VERIFY_NAMES_BYTES], const char *names, bool full_only)
{
    char copy[VERIFY_NAMES_BYTES], *rest = copy;
    const char *name;
    snprintf(copy, sizeof copy, "%s", names);
    while ((name = next_name(&rest)) != NULL) {
        if (!full_only || !is_checked_each_pass(name)) {
            audit_add_name(out, VERIFY_NAMES_BYTES, name);
        }
    }
}

/* --- one pass ----------------------------------------------------------------------------------------------------------------------------- */
static void run_checks(struct watch *watch, struct pass *pass)
{
    struct audit *audit = watch->audit;
    char error[512];
    int64_t began_us = clock_monotonic_us();
    pass->full = began_us >= watch->full_next_us;
    audit->quick = !pass->full;
    audit_connect(audit, error, sizeof error);
    pass->read = audit_begin(audit);
    if (pass->read) {
        audit_check(audit);
    }
    audit_end(audit);
    if (pass->read && pass->full) {
        int64_t now_us = clock_monotonic_us();
        int64_t rest_us = FULL_SHARE * (now_us - began_us);
        watch->full_next_us = now_us + (rest_us > FULL_EVERY_US ? rest_us : FULL_EVERY_US);
    }
}

static void take_results(struct watch *watch, struct pass *pass, int64_t now_us)
{
    const struct audit *audit = watch->audit;
    pass->orders = audit->position.last_order_id;
    if (watch->last_us > 0) {
        pass->orders_per_second =
            (double)(pass->orders - watch->last_orders) * 1e6 / (double)(now_us - watch->last_us);
    }
    watch->last_orders = pass->orders;
    watch->last_us = now_us;
    pass->lag_ms = audit->tail.oldest_at_ms > 0 ? clock_wall_ms() - audit->tail.oldest_at_ms : 0;
    pass->lag_ms = pass->lag_ms > 0 ? pass->lag_ms : 0;
    pass->checks = audit->made;
    if (pass->full) {
        watch->full_only_broken[0] = watch->full_only_unknown[0] = '\0';
        add_names(watch->full_only_broken, audit->broken_names, true);
        add_names(watch->full_only_unknown, audit->unknown_names, true);
    }
    add_names(pass->broken, audit->broken_names, false);
    add_names(pass->broken, watch->full_only_broken, false);
    add_names(pass->unknown, audit->unknown_names, false);
    add_names(pass->unknown, watch->full_only_unknown, false);
    watch->any_broken |= pass->broken[0] != '\0';
    watch->any_unknown |= pass->unknown[0] != '\0';
}

/* --- its line ------------------------------------------------------------------------------------------------------------------------------- */
static cJSON *list_of(const char *names)
{
    char copy[VERIFY_NAMES_BYTES], *rest = copy;
    const char *name;
    cJSON *list = cJSON_CreateArray();
    snprintf(copy, sizeof copy, "%s", names);
    while ((name = next_name(&rest)) != NULL) {
        cJSON_AddItemToArray(list, cJSON_CreateString(name));
    }
    return list;
}

static void print_json(const struct watch *watch, const struct pass *pass, const char *at)
{
    const struct audit *audit = watch->audit;
    cJSON *json = cJSON_CreateObject();
    cJSON_AddStringToObject(json, "at", at);
    cJSON_AddBoolToObject(json, "ok", pass->read && pass->broken[0] == '\0' && pass->unknown[0] == '\0');
    cJSON_AddBoolToObject(json, "full", pass->full);
    cJSON_AddNumberToObject(json, "orders", (double)pass->orders);
    cJSON_AddNumberToObject(json, "orders_per_second", pass->orders_per_second);
    cJSON_AddNumberToObject(json, "in_flight", (double)audit->tail.in_flight);
    cJSON_AddNumberToObject(json, "epoch", (double)audit->position.epoch);
    if (audit->place->gate.kind == GATE_REDLOCK) {
        cJSON_AddNumberToObject(json, "nodes_answering", audit->nodes_found.answering);
        cJSON_AddNumberToObject(json, "nodes", audit->place->gate.node_count);
    } else {
        cJSON_AddBoolToObject(json, "open", audit->tail.read && audit->tail.epoch > 0);
    }
    cJSON_AddNumberToObject(json, "lag_entries", (double)audit->tail.entries_behind);
    cJSON_AddNumberToObject(json, "lag_ms", (double)pass->lag_ms);
    cJSON_AddNumberToObject(json, "checks", (double)pass->checks);
    cJSON_AddNumberToObject(json, "hold", (double)(audit->made - audit->broken - audit->unknown));
    cJSON_AddItemToObject(json, "broken", list_of(pass->broken));
    cJSON_AddItemToObject(json, "unknown", list_of(pass->unknown));
    char *text = cJSON_PrintUnformatted(json);
    puts(text);
    cJSON_free(text);
    cJSON_Delete(json);
}

static void print_names(const struct pass *pass)
{
    if (pass->broken[0] != '\0') {
        printf("  BROKEN: %s", pass->broken);
    }
    if (pass->unknown[0] != '\0') {
        printf("  unknown: %s", pass->unknown);
    }
    putchar('\n');
}

/* There is no log that the store could be behind. */
static void print_redlock_line(const struct watch *watch, const struct pass *pass, const char *at)
{
    const struct audit *audit = watch->audit;
    printf("%.19sZ  %" PRId64 " orders  %.0f/s  epoch %" PRIu64
           "  %u of %u nodes%s  %zu of %zu checks hold%s",
           at, pass->orders, pass->orders_per_second, audit->position.epoch, audit->nodes_found.answering,
           audit->place->gate.node_count, audit->nodes_found.stopped ? " (stopped)" : "",
           audit->made - audit->broken - audit->unknown, pass->checks, pass->full ? " (full)" : "");
    print_names(pass);
}

static void print_line(const struct watch *watch, const struct pass *pass, const char *at)
{
    const struct audit *audit = watch->audit;
    if (audit->place->gate.kind == GATE_REDLOCK) {
        print_redlock_line(watch, pass, at);
        return;
    }
    const char *gate = !audit->tail.read ? " (no Redis)" : audit->tail.epoch == 0 ? " (closed)" : "";
    printf("%.19sZ  %" PRId64 " orders  %.0f/s  %" PRId64 " in flight  epoch %" PRIu64 "%s  lag %" PRId64
           " entries, %" PRId64 " ms  %zu of %zu checks hold%s",
           at, pass->orders, pass->orders_per_second, audit->tail.in_flight, audit->position.epoch, gate,
           audit->tail.entries_behind, pass->lag_ms, audit->made - audit->broken - audit->unknown,
           pass->checks, pass->full ? " (full)" : "");
    print_names(pass);
}

static void print_pass(const struct watch *watch, const struct pass *pass)
{
    char at[CLOCK_RFC3339_BYTES];
    clock_rfc3339(clock_wall_ms(), at);
    if (watch->json) {
        print_json(watch, pass, at);
    } else if (pass->read) {
        print_line(watch, pass, at);
    } else {
        printf("%.19sZ  the store cannot be read\n", at);
    }
    fflush(stdout);
}

static void make_pass(struct watch *watch)
{
    struct pass pass = {0};
    run_checks(watch, &pass);
    if (pass.read) {
        take_results(watch, &pass, clock_monotonic_us());
    } else {
        watch->any_unknown = true;
    }
    print_pass(watch, &pass);
}

/* --- the loop --------------------------------------------------------------------------------------------------------------------------------- */
/* Waits until then; true: a signal came that asks to end. */
static bool wait_until(const sigset_t *ending, int64_t until_us)
{
    int64_t rest_us = until_us - clock_monotonic_us();
    rest_us = rest_us > 0 ? rest_us : 0; /* a signal that came during a pass is seen even so */
    struct timespec rest = {.tv_sec = rest_us / 1000000, .tv_nsec = rest_us % 1000000 * 1000};
    int got;
    do {
        got = sigtimedwait(ending, NULL, &rest);
    } while (got < 0 && errno == EINTR);
    return got > 0;
}

int watch_run(struct audit *audit, bool json)
{
    static struct watch watch;
    sigset_t ending;
    int64_t next_us;
    watch = (struct watch){.audit = audit, .json = json};
    audit->output = OUTPUT_NONE;
    sigemptyset(&ending);
    sigaddset(&ending, SIGINT);
    sigaddset(&ending, SIGTERM);
    CHECK(sigprocmask(SIG_BLOCK, &ending, NULL) == 0);
    do {
        next_us = clock_monotonic_us() + PASS_EVERY_US;
        make_pass(&watch);
    } while (!ferror(stdout) && !wait_until(&ending, next_us));
    return watch.any_broken ? 1 : watch.any_unknown ? 2 : 0;
}
