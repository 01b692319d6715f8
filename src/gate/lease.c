/* The recorder's lease in Redis. Runs in the recorder's one thread; owns nothing. A failure is GATE_LEASE_UNKNOWN, or false, and redis_failure(). */
#include "doorbuster/gate_lease.h"

#include "keys.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define HOLDER_BYTES 48

/* By hand somebody may have put anything there: what is no text of ours is nobody's lease. A Redis without memory refuses a script's SET, but not a
 * DEL, nor what comes after that; and it needs a recorder, who trims the log. ARGV: me, my lifetime in ms, "<server>-" or "". */
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

/* --- the others' connections --------------------------------------------------------------------------------------------------- */
#define NAME_BYTES (GATE_KEY_BYTES + 48)

bool gate_name_recorder(redisContext *redis, int database)
{
    return redis_done(
        redis_ask(redis, "CLIENT SETNAME doorbuster-recorder:%s:%d", gate_keys.recorder, database));
}

bool gate_unname_recorder(redisContext *redis)
{
    return redis_done(redis_ask(redis, "CLIENT SETNAME %s", ""));
}

/* The " id=" of a line of CLIENT LIST that has this name and is not mine; 0: it is another's. */
static int64_t id_of_line(const char *line, size_t bytes, const char *name, int64_t mine)
{
    char text[512], wanted[NAME_BYTES];
    int64_t id;
    snprintf(text, sizeof text, "%.*s ", (int)(bytes < sizeof text - 2 ? bytes : sizeof text - 2), line);
    snprintf(wanted, sizeof wanted, " name=%s ", name);
    return sscanf(text, "id=%" SCNd64 " ", &id) == 1 && id != mine && strstr(text, wanted) != NULL ? id : 0;
}

static bool end_named(redisContext *redis, const char *list, const char *name, int64_t mine, unsigned *ended)
{
    for (const char *line = list; *line != '\0';) {
        size_t bytes = strcspn(line, "\n");
        int64_t id = id_of_line(line, bytes, name, mine);
        redisReply *reply = id > 0 ? redis_ask(redis, "CLIENT KILL ID %" PRId64, id) : NULL;
        if (id > 0 && reply == NULL) {
            return false;
        }
        *ended += reply != NULL && reply->integer > 0;
        freeReplyObject(reply);
        line += bytes + (line[bytes] == '\n');
    }
    return true;
}

bool gate_end_other_recorders(redisContext *redis, unsigned *ended)
{
    *ended = 0;
    redisReply *name = redis_ask(redis, "CLIENT GETNAME");
    if (name == NULL || name->type != REDIS_REPLY_STRING || name->len == 0) {
        return redis_done(name); /* a nameless one has no others */
    }
    redisReply *id = redis_ask(redis, "CLIENT ID");
    redisReply *list = id != NULL ? redis_ask(redis, "CLIENT LIST TYPE normal") : NULL;
    bool done = list != NULL && end_named(redis, redis_text(list), name->str, id->integer, ended);
    freeReplyObject(list);
    freeReplyObject(id);
    freeReplyObject(name);
    return done;
}
