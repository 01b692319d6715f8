/* The recorder's lease in Redis. Runs in the recorder's one thread; owns nothing. A failure is GATE_LEASE_UNKNOWN, or false, and redis_failure(). */
#include "doorbuster/gate_lease.h"

#include "keys.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define HOLDER_BYTES 48

/* By hand somebody may have put anything there: what is no text of ours is nobody's lease. DEL first: Redis refuses SET when it is out of memory, unless a script
 * has written before; and only who has the lease can record and trim the log, which may be what fills it. ARGV: me, my lifetime in ms, "<server>-" or "". */
static const char taking[] =
    "local held = redis.pcall('GET', KEYS[1]) "
    "if type(held) == 'string' and held ~= ARGV[1] and "
    "(ARGV[3] == '' or string.sub(held, 1, #ARGV[3]) ~= ARGV[3]) then return held end "
    "redis.call('DEL', KEYS[1]) "
    "redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2]) "
    "return ARGV[1]";
static const char dropping[] =
    "if redis.pcall('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end "
    "return 1";

static void format(const struct gate_candidate *candidate, char out[HOLDER_BYTES])
{
    snprintf(out, HOLDER_BYTES, "%016" PRIx64 "-%016" PRIx64 "-%08" PRIx32, candidate->server, candidate->run,
             candidate->key);
}

static void parse(const char *text, struct gate_candidate *out)
{
    if (sscanf(text, "%16" SCNx64 "-%16" SCNx64 "-%8" SCNx32, &out->server, &out->run, &out->key) != 3) {
        *out = (struct gate_candidate){0}; /* a hand's */
    }
}

enum gate_lease gate_take_lease(redisContext *redis, const struct gate_candidate *candidate, bool succeeding,
                                struct gate_candidate *holder)
{
    char me[HOLDER_BYTES], predecessor[HOLDER_BYTES] = "";
    format(candidate, me);
    if (succeeding) {
        snprintf(predecessor, sizeof predecessor, "%016" PRIx64 "-", candidate->server);
    }
    redisReply *reply =
        redis_ask(redis, "EVAL %s 1 %s %s %d %s", taking, gate_keys.recorder, me, GATE_LEASE_MS, predecessor);
    if (reply == NULL || reply->type != REDIS_REPLY_STRING) {
        freeReplyObject(reply);
        return GATE_LEASE_UNKNOWN;
    }
    bool mine = strcmp(reply->str, me) == 0;
    parse(reply->str, holder);
    freeReplyObject(reply);
    return mine ? GATE_LEASE_MINE : GATE_LEASE_TAKEN;
}

bool gate_drop_lease(redisContext *redis, const struct gate_candidate *candidate)
{
    char me[HOLDER_BYTES];
    format(candidate, me);
    return redis_done(redis_ask(redis, "EVAL %s 1 %s %s", dropping, gate_keys.recorder, me));
}
