/* Where the server's data is, from the settings that setup and verify share. Runs at start; a wrong setting is one line and exit 2. */
#include "cli.h"

#include "doorbuster/process.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define GATE_MAY_BE "lua or redlock"

static bool is_spawn(const char *value)
{
    return strcmp(value, "spawn") == 0;
}

_Noreturn static void refuse_without_folder(const struct settings *settings)
{
    process_refuse(settings->program,
                   "there is no data folder %s; start the server first, or name its folder with --data",
                   settings_get(settings, "data"));
}

static void take_shop(const struct settings *settings)
{
    char error[512];
    const char *shop = settings_get(settings, "shop");
    if (!gate_use_shop(shop, error, sizeof error)) {
        process_refuse(settings->program, "--shop or DOORBUSTER_SHOP: %s", error);
    }
    store_use_shop(shop);
}

static void take_redis(const struct settings *settings, struct cli_place *out, const char *redis)
{
    char error[512];
    if (!gate_place_parse_redis(&out->gate, redis, error, sizeof error)) {
        process_refuse(settings->program, "%s", error);
    }
}

static void take_nodes(const struct settings *settings, struct cli_place *out, const char *nodes)
{
    char error[512];
    if (!gate_place_parse_nodes(&out->gate, nodes, out->data_dir, error, sizeof error)) {
        process_refuse(settings->program, "--redlock-nodes or REDIS_NODES: %s", error);
    }
}

/* What lies in the data folder is looked at when it is known that it is needed. */
static void read_elsewhere(const struct settings *settings, struct cli_place *out)
{
    const char *redis = settings_get(settings, "redis"), *nodes = settings_get(settings, "redlock-nodes");
    out->gate.spawn_redis = is_spawn(redis);
    out->gate.spawn_nodes = is_spawn(nodes);
    if (!out->gate.spawn_redis) {
        take_redis(settings, out, redis);
    }
    if (!out->gate.spawn_nodes) {
        take_nodes(settings, out, nodes);
    }
}

static void read_private(const struct settings *settings, struct cli_place *out)
{
    char own[CLI_STORE_URL_BYTES];
    if (out->data_dir[0] == '\0') {
        refuse_without_folder(settings);
    }
    if (out->gate.kind == GATE_REDLOCK) {
        take_nodes(settings, out, "spawn");
        return;
    }
    snprintf(own, sizeof own, "unix:%s/redis.sock", out->data_dir);
    take_redis(settings, out, own);
}

void cli_read_place(const struct settings *settings, struct cli_place *out)
{
    const char *store = settings_get(settings, "store");
    const char *gate = settings_get(settings, "gate");
    char *absolute = realpath(settings_get(settings, "data"), NULL);
    enum gate_kind said;
    *out = (struct cli_place){0};
    take_shop(settings);
    snprintf(out->data_dir, sizeof out->data_dir, "%s", absolute ? absolute : "");
    free(absolute);
    if (gate != NULL && !gate_kind_parse(gate, &said)) {
        settings_refuse(settings, "gate", GATE_MAY_BE);
    }
    if (store != NULL) {
        snprintf(out->store_url, sizeof out->store_url, "%s", store);
    } else if (out->data_dir[0] == '\0') {
        refuse_without_folder(settings);
    } else {
        snprintf(out->store_url, sizeof out->store_url, "sqlite:%s/doorbuster.db", out->data_dir);
    }
    read_elsewhere(settings, out);
}

bool cli_choose_gate(const struct settings *settings, struct store *store, struct cli_place *place)
{
    struct store_position position = {0};
    const char *gate = settings_get(settings, "gate");
    if (store_position(store, &position) != STORE_OK) {
        return false;
    }
    place->store_id = position.store_id;
    place->gate.kind = position.seller == STORE_SOLD_BY_REDLOCK ? GATE_REDLOCK : GATE_LUA;
    if (gate != NULL && strcmp(gate, gate_kind_names[place->gate.kind]) != 0) {
        process_refuse(settings->program,
                       "the gate is to be %s, but the store is sold through the %s gate; leave --gate and "
                       "DOORBUSTER_GATE out, or start the server with it first",
                       gate, gate_kind_names[place->gate.kind]);
    }
    bool is_private = place->gate.kind == GATE_LUA ? place->gate.spawn_redis : place->gate.spawn_nodes;
    if (is_private) {
        read_private(settings, place);
    }
    return true;
}
