/* Can it sell? Every part that a purchase needs, with its state: the gate's own parts, as the worker sees them now, and the store, which is read in
 * the work pool; this worker's breakers, with the reasons; the workers, by the supervisor's table. Ready as long as purchases can be sold, even if a part
 * is missing, such as one lock node of five: it is named. Handler and reply on the loop's thread. Owns nothing. */
#include "api_internal.h"

#include "doorbuster/clock.h"
#include "doorbuster/log.h"

#include <stdio.h>
#include <string.h>

#define STATE_BYTES 64

struct readiness {
    struct api *api;
    struct http_request *request;
    bool store_up;
    char store_state[STATE_BYTES];
};

/* --- on a pool thread -------------------------------------------------------------------------------------------------------------------- */
static bool is_ours(const struct readiness *readiness, const struct store_position *position)
{
    enum store_seller seller =
        readiness->api->settings.place->kind == GATE_REDLOCK ? STORE_SOLD_BY_REDLOCK : STORE_SOLD_BY_LUA;
    return position->seller == seller;
}

static void look_work_cb(void *context)
{
    struct readiness *readiness = context;
    struct desk *desk = desk_borrow(readiness->api);
    struct job nobody = {.api = readiness->api};
    struct store_position position = {0};
    const char *state = "down";
    if (!desk_needs_reader(desk, &nobody)) {
        log_warn("not ready: %s", nobody.error);
    } else if (store_position(desk->reader, &position) != STORE_OK) {
        log_warn("not ready: %s", store_error(desk->reader));
    } else {
        readiness->store_up = is_ours(readiness, &position);
        state = readiness->store_up ? "up" : "sold through another gate";
    }
    snprintf(readiness->store_state, sizeof readiness->store_state, "%s", state);
    desk_return(desk);
}

/* --- on the loop's thread ---------------------------------------------------------------------------------------------------------------- */
/* The new part, for those that have more to say. */
static cJSON *add_part(cJSON *json, const char *name, const char *state, bool up)
{
    cJSON *part = cJSON_CreateObject();
    cJSON_AddStringToObject(part, "name", name);
    cJSON_AddStringToObject(part, "state", state);
    cJSON_AddBoolToObject(part, "up", up);
    cJSON_AddItemToArray(cJSON_GetObjectItemCaseSensitive(json, "parts"), part);
    if (!up) {
        cJSON_AddItemToArray(cJSON_GetObjectItemCaseSensitive(json, "missing"), cJSON_CreateString(name));
    }
    return part;
}

/* One that is half-open is not missing: it lets somebody through. */
static void add_breaker(cJSON *json, const struct breaker *breaker)
{
    char name[64], since[CLOCK_RFC3339_BYTES];
    snprintf(name, sizeof name, "breaker %s", breaker->name);
    cJSON *part = add_part(json, name, breaker_state_names[breaker->state], breaker->state != BREAKER_OPEN);
    if (breaker->since_us == 0) {
        return;
    }
    clock_rfc3339(clock_wall_ms() - (clock_monotonic_us() - breaker->since_us) / 1000, since);
    cJSON_AddStringToObject(part, "reason", breaker->reason);
    cJSON_AddStringToObject(part, "since", since);
}

/* Who keeps the books, by the board that it writes twice a second. */
static void add_silence(cJSON *part, const struct board *board)
{
    int64_t written_us = __atomic_load_n(&board->sale.written_us, __ATOMIC_RELAXED);
    if (written_us != 0) {
        cJSON_AddNumberToObject(part, "silent_seconds",
                                (double)((clock_monotonic_us() - written_us) / 100000) / 10);
    }
}

static void add_gate_parts(cJSON *json, struct api *api)
{
    struct gate_part parts[GATE_PARTS_MAX];
    size_t count = gate_parts(api->gate, parts);
    for (size_t i = 0; i < count; i++) {
        cJSON *part = add_part(json, parts[i].name, parts[i].state, parts[i].up);
        if (strcmp(parts[i].name, "recorder") == 0) {
            add_silence(part, &api->settings.metrics->board);
        }
    }
}

/* The processes that the supervisor has; the recorder's part says more of it. */
static void add_workers(cJSON *json, const struct board *board)
{
    struct board_processes processes;
    if (!board_read_processes(board, &processes)) {
        return;
    }
    for (size_t i = 0; i < processes.count; i++) {
        const struct board_process *process = &processes.each[i];
        if (strncmp(process->name, "worker", strlen("worker")) == 0) {
            add_part(json, process->name,
                     process->pid == 0 ? "down"
                     : !process->ready ? "starting"
                                       : "up",
                     process->pid != 0 && process->ready);
        }
    }
}

static void add_breakers(cJSON *json, struct api *api)
{
    struct breaker *breakers[API_BREAKERS];
    size_t count = api_breakers(api, breakers);
    for (size_t i = 0; i < count; i++) {
        add_breaker(json, breakers[i]);
    }
}

static void reply(struct readiness *readiness)
{
    struct api *api = readiness->api;
    bool ready = gate_is_ready(api->gate) && readiness->store_up;
    cJSON *json = cJSON_CreateObject();
    cJSON_AddStringToObject(json, "status", ready ? "ready" : "not ready");
    cJSON_AddStringToObject(json, "gate", gate_kind_names[api->settings.place->kind]);
    cJSON_AddArrayToObject(json, "parts");
    cJSON_AddArrayToObject(json, "missing");
    add_gate_parts(json, api);
    add_part(json, "store", readiness->store_state, readiness->store_up);
    add_breakers(json, api);
    add_workers(json, &api->settings.metrics->board);
    if (!ready) {
        http_reply_header(readiness->request, "Retry-After", "1");
    }
    http_reply_json(readiness->request, ready ? 200 : 503, json);
}

static void look_done_cb(void *context)
{
    reply(context);
}

void readiness_get(struct http_request *request, void *context)
{
    struct api *api = context;
    struct readiness *readiness = http_request_alloc(request, sizeof *readiness);
    *readiness = (struct readiness){.api = api, .request = request, .store_state = "too busy to look"};
    /* WORK_SETTLE: its reads are short and never behind a write. */
    if (!work_submit(api->pool, WORK_SETTLE, look_work_cb, look_done_cb, readiness)) {
        reply(readiness);
    }
}
