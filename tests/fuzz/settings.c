/* Settings: the input's first letter says which. What is taken is in range, shown without a password, and what is shown is taken again and is the same. */
#include "fuzz.h"

#include "http_internal.h"

#include "doorbuster/gate_place.h"
#include "doorbuster/rate_limit.h"
#include "doorbuster/redis.h"
#include "doorbuster/store.h"

#include <stdio.h>

static void check_redis(const char *url)
{
    static struct redis_address address, again;
    char error[2048] = "", shown[4096];
    if (!redis_address_parse(url, &address, error, sizeof error)) {
        CHECK(error[0] != '\0');
        return;
    }
    CHECK(address.database >= 0 && address.database <= 15 && address.seed_count <= REDIS_SEEDS_MAX);
    redis_address_format(&address, shown, sizeof shown);
    CHECK(redis_address_parse(shown, &again, error, sizeof error));
    CHECK(again.kind == address.kind && again.port == address.port && again.database == address.database);
    CHECK(strcmp(again.host, address.host) == 0 && strcmp(again.path, address.path) == 0);
    CHECK(strcmp(again.group, address.group) == 0 && again.login.password[0] == '\0');
    CHECK(again.seed_count == address.seed_count);
    for (unsigned i = 0; i < address.seed_count; i++) {
        CHECK(strcmp(again.seeds[i].host, address.seeds[i].host) == 0);
        CHECK(address.seeds[i].port >= 1 && again.seeds[i].port == address.seeds[i].port);
    }
}

static void check_nodes(const char *list)
{
    static struct gate_place place;
    char error[2048] = "", name[GATE_NODE_NAME_BYTES];
    place = (struct gate_place){0};
    if (!gate_place_parse_nodes(&place, list, "/var/lib/doorbuster", error, sizeof error)) {
        CHECK(error[0] != '\0');
        return;
    }
    CHECK(place.node_count % 2 == 1 && place.node_count <= GATE_NODES_MAX);
    for (unsigned i = 0; i < place.node_count; i++) {
        CHECK(place.nodes[i].kind == REDIS_DIRECT);
        CHECK((place.nodes[i].path[0] == '\0') == (place.nodes[i].host[0] != '\0'));
        gate_place_name_node(&place, i, name, sizeof name);
        CHECK(name[0] != '\0');
    }
}

static void check_rate(const char *text)
{
    struct rate_limit limit;
    if (rate_limit_parse(text, &limit)) {
        CHECK(limit.burst >= 1 && limit.interval >= 1);
        CHECK(rate_limit_window_us(&limit) > 0);
    }
}

static void check_proxies(const char *list)
{
    struct http_networks networks;
    char error[256] = "";
    if (!http_networks_read(list, &networks, error, sizeof error)) {
        CHECK(error[0] != '\0');
        return;
    }
    CHECK(networks.count <= HTTP_NETWORKS_MAX);
    for (size_t i = 0; i < networks.count; i++) {
        CHECK(networks.list[i].bits <= 128);
    }
}

static void check_store(const char *url)
{
    char error[512] = "";
    CHECK(store_url_is_valid(url, error, sizeof error) || error[0] != '\0');
}

static void check_origins(const char *list)
{
    char error[256] = "";
    CHECK(http_origins_check(list, error, sizeof error) || error[0] != '\0');
}

static void check_shop(const char *name)
{
    char error[256] = "";
    CHECK(gate_use_shop(name, error, sizeof error) || error[0] != '\0');
    CHECK(gate_use_shop(GATE_SHOP_DEFAULT, error, sizeof error));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    static void (*const checks[])(const char *) = {
        ['r'] = check_redis,   ['n'] = check_nodes, ['l'] = check_rate, ['p'] = check_proxies,
        ['o'] = check_origins, ['s'] = check_store, ['h'] = check_shop,
    };
    if (bytes < 2 || data[0] >= sizeof checks / sizeof checks[0] || checks[data[0]] == NULL) {
        return 0;
    }
    char *text = fuzz_text(data + 1, bytes - 1);
    checks[data[0]](text);
    free(text);
    return 0;
}
