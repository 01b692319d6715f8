/* Which gate the server sells through, and whether what it needs is there. Runs in the supervisor at start, like the rest of the
 * configuration; blocking; owns nothing.
 *
 * The Lua gate needs its one Redis at start, the Redlock gate a majority of its nodes; without the others it starts, with a warning. What is needed is
 * waited for, then it is exit 1: it may be starting too, or failing over, and systemd does not start again what was refused with 2.
 *
 * Nodes are compared by who they say they are: one Redis under two names would have two votes. */
#include "configuration_gate.h"
#include "patience.h"

#include "doorbuster/check.h"
#include "doorbuster/log.h"
#include "doorbuster/private_redis.h"
#include "doorbuster/process.h"
#include "doorbuster/text.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define REDIS_MAJOR_MIN 7
#define REDIS_TIMEOUT_MS 3000
#define PATIENCE_MS 45000 /* a failover takes less, and the unit allows the start more */
#define VERSION_BYTES 32
#define RUN_BYTES 64

/* What a Redis says of itself. */
struct redis_facts {
    char version[VERSION_BYTES]; /* "7.0.15"; "unknown" */
    char run[RUN_BYTES];         /* the id of this run of it */
    bool is_replica;
    bool refused; /* it does not let us in, or not ask */
};

/* --- asking ------------------------------------------------------------------------------------------------------------------------- */
/* False: it cannot be asked; `error` says why. */
static bool ask_redis(const struct redis_address *address, struct redis_facts *facts, char *error,
                      size_t error_bytes)
{
    char role[16];
    redisContext *redis = redis_connect_blocking(address, REDIS_TIMEOUT_MS, error, error_bytes);
    facts->refused = redis == NULL && redis_login_was_refused();
    if (redis == NULL) {
        return false;
    }
    redisReply *server = redis_ask(redis, "INFO server");
    redisReply *replication = server != NULL ? redis_ask(redis, "INFO replication") : NULL;
    if (replication == NULL) {
        snprintf(error, error_bytes, "Redis does not answer INFO: %s", redis_failure());
        facts->refused = redis_is_login_refusal(redis_failure());
    } else {
        redis_info_value(server->str, "redis_version:", facts->version, sizeof facts->version);
        redis_info_value(server->str, "run_id:", facts->run, sizeof facts->run);
        redis_info_value(replication->str, "role:", role, sizeof role);
        facts->is_replica = strcmp(role, "slave") == 0;
    }
    bool asked = replication != NULL;
    freeReplyObject(server);
    freeReplyObject(replication);
    redisFree(redis);
    return asked;
}

static bool is_new_enough(const struct redis_facts *facts)
{
    int64_t major = 0;
    return text_to_int64(facts->version, strcspn(facts->version, "."), 0, 1000, &major) &&
           major >= REDIS_MAJOR_MIN;
}

static const char *shown_version(const struct redis_facts *facts)
{
    return facts->version[0] != '\0' ? facts->version : "unknown";
}

/* --- the Lua gate's ------------------------------------------------------------------------------------------------------------------ */
static void check_foreign_redis(const struct redis_address *address)
{
    char error[512];
    struct redis_facts facts = {0};
    struct patience patience = patience_begin(PATIENCE_MS);
    while (!ask_redis(address, &facts, error, sizeof error)) {
        if (facts.refused) {
            process_refuse(PROGRAM,
                           "%s; correct user and password (--redis or REDIS_URL; of Sentinels "
                           "REDIS_SENTINEL_PASSWORD), or what Redis lets that user do",
                           error);
        }
        if (!patience_wait(&patience, error)) {
            process_give_up(PROGRAM, "%s; start it, or correct --redis", error);
        }
    }
    if (!is_new_enough(&facts)) {
        process_refuse(PROGRAM, "Redis is %s; version %d or newer is needed", shown_version(&facts),
                       REDIS_MAJOR_MIN);
    }
}

static void check_private_redis(void)
{
    char error[512];
    if (!private_redis_find(error, sizeof error)) {
        process_refuse(PROGRAM, "%s", error);
    }
}

static void read_redis(const struct settings *settings, struct gate_place *place, const char *data_dir)
{
    char error[512], own[4200];
    const char *url = settings_get(settings, "redis");
    place->spawn_redis = strcmp(url, "spawn") == 0;
    if (place->spawn_redis) {
        snprintf(own, sizeof own, "unix:%s/redis.sock", data_dir);
        url = own;
    }
    if (!gate_place_parse_redis(place, url, error, sizeof error)) {
        process_refuse(PROGRAM, "%s%s", error,
                       place->spawn_redis ? "; choose a --data folder with a shorter path" : "");
    }
    if (place->spawn_redis) {
        check_private_redis();
    } else {
        check_foreign_redis(&place->redis);
    }
}

/* --- the Redlock gate's -------------------------------------------------------------------------------------------------------------- */
/* It is there: may it be a node of ours? */
static void check_node(const struct gate_place *place, const struct redis_facts facts[GATE_NODES_MAX],
                       unsigned node)
{
    char name[GATE_NODE_NAME_BYTES];
    gate_place_name_node(place, node, name, sizeof name);
    if (!is_new_enough(&facts[node])) {
        process_refuse(PROGRAM, "%s is Redis %s; version %d or newer is needed", name,
                       shown_version(&facts[node]), REDIS_MAJOR_MIN);
    }
    if (facts[node].is_replica) {
        process_refuse(PROGRAM,
                       "%s is a replica; lock nodes are independent of each other: make it a master, or "
                       "correct --redlock-nodes",
                       name);
    }
    for (unsigned i = 0; i < node; i++) {
        if (facts[node].run[0] != '\0' && strcmp(facts[i].run, facts[node].run) == 0) {
            process_refuse(PROGRAM,
                           "%s is the same Redis as node %u; each must be one of its own: correct "
                           "--redlock-nodes",
                           name, i + 1);
        }
    }
}

struct missing_nodes {
    unsigned count, nodes[GATE_NODES_MAX];
    char errors[GATE_NODES_MAX][512];
    bool refused; /* one of them does not let us in */
};

static void ask_nodes(const struct gate_place *place, struct missing_nodes *missing)
{
    struct redis_facts facts[GATE_NODES_MAX] = {0};
    missing->count = 0;
    missing->refused = false;
    for (unsigned i = 0; i < place->node_count; i++) {
        if (ask_redis(&place->nodes[i], &facts[i], missing->errors[missing->count],
                      sizeof missing->errors[0])) {
            check_node(place, facts, i);
        } else {
            missing->nodes[missing->count++] = i;
            missing->refused = missing->refused || facts[i].refused;
        }
    }
}

static void check_foreign_nodes(const struct gate_place *place)
{
    static const char fault[] =
        "%u of %u lock nodes are missing, and locks need a majority; the first is node %u: %s; "
        "start them, or correct --redlock-nodes";
    struct missing_nodes missing;
    struct patience patience = patience_begin(PATIENCE_MS);
    ask_nodes(place, &missing);
    while (missing.count > place->node_count / 2) {
        if (missing.refused) {
            process_refuse(PROGRAM, fault, missing.count, place->node_count, missing.nodes[0] + 1,
                           missing.errors[0]);
        }
        if (!patience_wait(&patience, missing.errors[0])) {
            process_give_up(PROGRAM, fault, missing.count, place->node_count, missing.nodes[0] + 1,
                            missing.errors[0]);
        }
        ask_nodes(place, &missing);
    }
    for (unsigned i = 0; i < missing.count; i++) {
        log_warn("lock node %u is missing, and is done without: %s", missing.nodes[i] + 1, missing.errors[i]);
    }
}

static void read_nodes(const struct settings *settings, struct gate_place *place, const char *data_dir)
{
    char error[2048];
    const struct {
        const char *name;
        int min, max, *out;
    } numbers[] = {
        {"LOCK_TIMEOUT_SECONDS", 1, GATE_LOCK_TTL_MS_MAX / 1000, &place->lock_ttl_ms},
        {"LOCK_RETRY_ATTEMPTS", 1, 100, &place->lock_attempts},
        {"LOCK_RETRY_DELAY_MS", 1, 10000, &place->lock_retry_delay_ms},
    };
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
        *numbers[i].out =
            (int)settings_get_integer(settings, numbers[i].name, numbers[i].min, numbers[i].max);
    }
    place->lock_ttl_ms *= 1000;
    if (!gate_place_parse_nodes(place, settings_get(settings, "redlock-nodes"), data_dir, error,
                                sizeof error)) {
        process_refuse(PROGRAM, "--redlock-nodes or REDIS_NODES: %s", error);
    }
    if (place->spawn_nodes) {
        check_private_redis();
    } else {
        check_foreign_nodes(place);
    }
}

void configuration_read_gate(const struct settings *settings, struct server_configuration *configuration)
{
    struct gate_place *place = &configuration->place;
    if (!gate_kind_parse(settings_get(settings, "gate"), &place->kind)) {
        settings_refuse(settings, "gate", "lua or redlock");
    }
    char *data_dir = realpath(configuration->data_dir, NULL); /* sockets are found from anywhere */
    CHECK(data_dir != NULL);
    if (place->kind == GATE_REDLOCK) {
        read_nodes(settings, place, data_dir);
    } else {
        read_redis(settings, place, data_dir);
    }
    free(data_dir);
}
