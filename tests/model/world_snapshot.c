/* Redis as it was some time ago: every key with DUMP, and with RESTORE back again. What a replica that was behind, or a snapshot that was loaded,
 * comes to. The test's one thread; owns the copies. */
#include "testing.h"

#include "world.h"

#include <stdlib.h>
#include <string.h>

void world_forget_keys(struct world *world)
{
    while (world->key_count > 0) {
        struct world_key *key = &world->keys[--world->key_count];
        free(key->name);
        free(key->payload);
    }
}

static void remember_key(struct world *world, const char *name)
{
    assert_true(world->key_count < WORLD_KEYS);
    struct world_key *key = &world->keys[world->key_count++];
    redisReply *payload = redis_ask(world->books, "DUMP %s", name);
    redisReply *ttl = redis_ask(world->books, "PTTL %s", name);
    assert_true(payload != NULL && payload->type == REDIS_REPLY_STRING && ttl != NULL);
    key->name = strdup(name);
    key->payload = malloc(payload->len);
    assert_true(key->name != NULL && key->payload != NULL);
    memcpy(key->payload, payload->str, payload->len);
    key->payload_bytes = payload->len;
    key->ttl_ms = ttl->integer > 0 ? ttl->integer : 0;
    freeReplyObject(payload);
    freeReplyObject(ttl);
}

void world_remember(struct world *world)
{
    world_forget_keys(world);
    redisReply *names = redis_ask(world->books, "KEYS *");
    assert_non_null(names);
    for (size_t i = 0; i < names->elements; i++) {
        remember_key(world, names->element[i]->str);
    }
    freeReplyObject(names);
}

void world_turn_back(struct world *world)
{
    redis_do(world->books, "FLUSHALL");
    redis_do(world->books, "SCRIPT FLUSH");
    for (size_t i = 0; i < world->key_count; i++) {
        const struct world_key *key = &world->keys[i];
        assert_true(redis_done(redis_ask(world->books, "RESTORE %s %lld %b", key->name,
                                         (long long)key->ttl_ms, key->payload, key->payload_bytes)));
    }
}
