/* Can it sell? Every part that a purchase needs, with its state: the gate's own parts, as the worker sees them now, and the store, which is read in
 * the work pool. Ready as long as purchases can be sold, even if a part is missing, such as one lock node of five: it is named. Handler and reply on
 * the loop's thread. Owns nothing. */
#include "api_internal.h"

#include "doorbuster/log.h"

#include <stdio.h>

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
static void add_part(cJSON *json, const char *name, const char *state, bool up)
{
    cJSON *part = cJSON_CreateObject();
    cJSON_AddStringToObject(part, "name", name);
    cJSON_AddStringToObject(part, "state", state);
    cJSON_AddBoolToObject(part, "up", up);
    cJSON_AddItemToArray(cJSON_GetObjectItemCaseSensitive(json, "parts"), part);
    if (!up) {
        cJSON_AddItemToArray(cJSON_GetObjectItemCaseSensitive(json, "missing"), cJSON_CreateString(name));
    }
}

static void reply(struct readiness *readiness)
{
    struct gate *gate = readiness->api->gate;
    struct gate_part parts[GATE_PARTS_MAX];
    size_t count = gate_parts(gate, parts);
    bool ready = gate_is_ready(gate) && readiness->store_up;
    cJSON *json = cJSON_CreateObject();
    cJSON_AddStringToObject(json, "status", ready ? "ready" : "not ready");
    cJSON_AddStringToObject(json, "gate", gate_kind_names[readiness->api->settings.place->kind]);
    cJSON_AddArrayToObject(json, "parts");
    cJSON_AddArrayToObject(json, "missing");
    for (size_t i = 0; i < count; i++) {
        add_part(json, parts[i].name, parts[i].state, parts[i].up);
    }
    add_part(json, "store", readiness->store_state, readiness->store_up);
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
