/* The gate's side of the books as connections: to Redis, or to the nodes. Blocking; one thread at a time: a pool thread's desk, setup, verify. Owns the
 * connections; what cannot be reached is a sentence. */
#include "doorbuster/books.h"

#include <stdio.h>

static bool redis_ready(struct gate_side *side, char *error, size_t error_bytes)
{
    gate_side_rest(side); /* Redis may have been restarted since it was last used */
    if (side->redis == NULL) {
        side->redis = redis_connect_blocking(&side->place->redis, side->timeout_ms, error, error_bytes);
    }
    return side->redis != NULL;
}

bool gate_side_ready(struct gate_side *side, char *error, size_t error_bytes)
{
    if (side->place->kind == GATE_LUA) {
        return redis_ready(side, error, error_bytes);
    }
    if (side->nodes == NULL) {
        side->nodes = node_books_open(side->place, side->store_id, side->timeout_ms);
    }
    if (side->nodes == NULL) {
        snprintf(error, error_bytes, "no memory for the connections to the nodes");
    }
    return side->nodes != NULL;
}

void gate_side_rest(struct gate_side *side)
{
    if (side->redis != NULL && redis_is_dead(side->redis)) {
        redisFree(side->redis);
        side->redis = NULL;
    }
}

void gate_side_close(struct gate_side *side)
{
    if (side->redis != NULL) {
        redisFree(side->redis);
        side->redis = NULL;
    }
    if (side->nodes != NULL) {
        node_books_close(&side->nodes);
    }
}

const char *gate_side_failure(const struct gate_side *side)
{
    return side->place->kind == GATE_LUA ? redis_failure() : node_books_failure(side->nodes);
}
