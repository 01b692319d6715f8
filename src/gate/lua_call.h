/* One call of the selling script, in words: what sell.lua is asked, and what it answers. Whether and when to call is lua_gate.c's business.
 * A worker's loop thread. */
#ifndef DOORBUSTER_GATE_LUA_CALL_H
#define DOORBUSTER_GATE_LUA_CALL_H

#include "doorbuster/gate.h"
#include "doorbuster/redis.h"

/* A command for redis_link_command(). */
struct lua_call_words {
    int count;
    const char **words;
    const size_t *bytes;
};

/* The script of this sha, for these purchases: at most GATE_BATCH_MAX, of SALES_LOG_LINES_MAX lines together. Good until the next call of
 * this function, and while the purchases and `sha` are. */
struct lua_call_words lua_call_ask(const char *sha, struct gate_purchase *const *purchases, size_t count);

/* Is this, no error, what sell.lua answers to that? Redis can be made to say anything. *position: of the entry in the log; {0, 0} if
 * nothing was sold. */
bool lua_call_is_answer(const redisReply *reply, struct gate_purchase *const *purchases, size_t count,
                        struct log_position *position);

/* Of such an answer: writes into `purchase`, the i-th that was asked for, its order and when it was sold (REFUSAL_NONE), or the figures of
 * the refusal. Its state, its position and `refusal` are left to the caller. */
enum refusal lua_call_take(const redisReply *reply, size_t i, struct purchase *purchase);

/* Lines of a purchase that is not sold yet: it has no components, so all its parts are lines. */
size_t lua_call_lines(const struct purchase *purchase);

#endif
