/* See lock_nodes.h. The test process; owns the nodes' processes by their fixtures. */
#include "lock_nodes.h"

#include "testing.h"

#include <stdio.h>

#define START_TIMEOUT_MS 15000

void lock_nodes_start(struct lock_nodes *nodes)
{
    for (unsigned i = 0; i < LOCK_NODES; i++) {
        redis_fixture_begin(&nodes->redis[i]);
        nodes->addresses[i] = nodes->redis[i].address;
    }
    lock_nodes_refresh(nodes);
}

void lock_nodes_refresh(struct lock_nodes *nodes)
{
    for (unsigned i = 0; i < LOCK_NODES; i++) {
        if (nodes->redis[i].pid == 0) {
            redis_fixture_launch(&nodes->redis[i], REDIS_NOTHING_KEPT);
        }
        redis_fixture_thaw(&nodes->redis[i]);
    }
    for (unsigned i = 0; i < LOCK_NODES; i++) {
        for (int64_t until = deadline_in(START_TIMEOUT_MS); !redis_fixture_answers(&nodes->redis[i]);) {
            assert_true(wait_a_moment(until));
        }
    }
    lock_nodes_do_on_all(nodes, "FLUSHALL");
}

void lock_nodes_end(struct lock_nodes *nodes)
{
    for (unsigned i = 0; i < LOCK_NODES; i++) {
        redis_fixture_end(&nodes->redis[i]);
    }
}

void lock_nodes_freeze(struct lock_nodes *nodes, unsigned first, unsigned count)
{
    for (unsigned i = first; i < first + count; i++) {
        redis_fixture_freeze(&nodes->redis[i]);
    }
}

void lock_nodes_thaw(struct lock_nodes *nodes, unsigned first, unsigned count)
{
    for (unsigned i = first; i < first + count; i++) {
        redis_fixture_thaw(&nodes->redis[i]);
    }
}

void lock_nodes_read(struct lock_nodes *nodes, unsigned node, const char *key, char out[LOCK_NODE_TEXT_BYTES])
{
    redisContext *redis = redis_fixture_connect(&nodes->redis[node]);
    redisReply *reply = redisCommand(redis, "GET %s", key);
    assert_non_null(reply);
    snprintf(out, LOCK_NODE_TEXT_BYTES, "%s", reply->type == REDIS_REPLY_STRING ? reply->str : "");
    freeReplyObject(reply);
    redisFree(redis);
}

unsigned lock_nodes_with(struct lock_nodes *nodes, const char *key)
{
    unsigned count = 0;
    for (unsigned i = 0; i < LOCK_NODES; i++) {
        char text[LOCK_NODE_TEXT_BYTES] = "";
        if (nodes->redis[i].pid != 0) {
            lock_nodes_read(nodes, i, key, text);
        }
        count += text[0] != '\0';
    }
    return count;
}

void lock_nodes_do(struct lock_nodes *nodes, unsigned node, const char *format, ...)
{
    redisContext *redis = redis_fixture_connect(&nodes->redis[node]);
    va_list arguments;
    va_start(arguments, format);
    freeReplyObject(redisvCommand(redis, format, arguments));
    va_end(arguments);
    redisFree(redis);
}

void lock_nodes_do_on_all(struct lock_nodes *nodes, const char *command)
{
    for (unsigned i = 0; i < LOCK_NODES; i++) {
        redisContext *redis = redis_fixture_connect(&nodes->redis[i]);
        freeReplyObject(redisCommand(redis, command));
        redisFree(redis);
    }
}
