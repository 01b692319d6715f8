/* Which gate a server sells through, and where it is: for the server's processes and the tools, from the same settings. Plain data and
 * functions that do no I/O; what is parsed here is checked here. Any thread, but for gate_use_shop(). */
#ifndef DOORBUSTER_GATE_PLACE_H
#define DOORBUSTER_GATE_PLACE_H

#include "doorbuster/redis.h"

#include <stdbool.h>
#include <stddef.h>

#define GATE_NODES_MAX 9
#define GATE_NODES_SPAWNED 5
#define GATE_LOCK_TTL_MS_MAX 60000

enum gate_kind { GATE_LUA, GATE_REDLOCK };
extern const char *const gate_kind_names[2]; /* "lua", "redlock": the words of --gate */

struct gate_place {
    enum gate_kind kind;
    struct redis_address redis; /* GATE_LUA */
    bool spawn_redis;           /* it is the private one in the data folder */
    /* GATE_REDLOCK */
    struct redis_address nodes[GATE_NODES_MAX];
    unsigned node_count;     /* odd, 1 to GATE_NODES_MAX */
    bool spawn_nodes;        /* they are private ones in the data folder */
    int lock_ttl_ms;         /* 1000 to GATE_LOCK_TTL_MS_MAX; the same for all who share the nodes */
    int lock_attempts;       /* 1 to 100, the first included */
    int lock_retry_delay_ms; /* 1 to 10,000: before the second; see struct redlock_settings */
};

/* Whose keys this process uses: their hash tag is "{NAME}". Once, before anything is opened; without it it is the default shop. False: `error` says
 * what a name may be. */
#define GATE_SHOP_DEFAULT "doorbuster"
#define GATE_SHOP_BYTES 33 /* terminated */
bool gate_use_shop(const char *name, char *error, size_t error_bytes);

/* "lua" or "redlock". */
bool gate_kind_parse(const char *text, enum gate_kind *out);
/* An address as redis_address_parse() has it, of a shop that gate_use_shop() has named. False: `error` says what it may be. */
bool gate_place_parse_redis(struct gate_place *place, const char *url, char *error, size_t error_bytes);
/* "host:port,host:port,…", each also redis:// or unix: as redis_address_parse() has it (a comma in a password is %2C): an odd number, none twice.
 * Or "spawn": GATE_NODES_SPAWNED private ones in `data_dir` (absolute), "unix:DIR/node1.sock" and so on. False: `error` says what it may be. */
bool gate_place_parse_nodes(struct gate_place *place, const char *list, const char *data_dir, char *error,
                            size_t error_bytes);
/* For messages, never with the password; `node` counts from 0: "node 3 (127.0.0.1:7003)". */
#define GATE_NODE_NAME_BYTES 300
void gate_place_name_node(const struct gate_place *place, unsigned node, char *out, size_t out_bytes);

#endif
