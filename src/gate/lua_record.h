/* What one worker's Lua gate has reserved, or may have, until it is known to be recorded: lists of purchases, and what the recorder's news have
 * said so far. Loop thread.
 *
 * lua_gate.c owns the struct, reads it, and tells of what happened; nobody but lua_record.c writes to it. Whatever becomes known here is
 * answered at once (gate_answer(): the answer may let the next purchase in) or given to settle_cb of the gate's settings, whose findings come
 * back to the gate. */
#ifndef DOORBUSTER_GATE_LUA_RECORD_H
#define DOORBUSTER_GATE_LUA_RECORD_H

#include "driver.h"
#include "news.h"

struct lua_record {
    struct gate *gate;
    struct purchase_list waiting; /* reserved; the news will say. In the order of the log */
    struct purchase_list missed;  /* reserved; news were missed, the store is asked once it has come so far */
    struct purchase_list doubtful; /* asked, with no reply; the store is asked once their epoch is over */
    /* what one reply has reserved and only the store can tell of; empty between replies */
    struct purchase_list unsettled;
    uint64_t epoch; /* the latest that was heard of: older ones are settled in the store. 0: none */
    /* Nothing was rejected at a position after `sure_after` and up to `recorded`. */
    struct log_position recorded, sure_after;
    bool subscribed;     /* to the news */
    bool heard;          /* of a position, since the subscription */
    int64_t recorded_us; /* when last */
};

/* The subscription is there; what was said before this moment is said again soon. */
void lua_record_subscribed(struct lua_record *record);
/* It is gone. */
void lua_record_cut_off(struct lua_record *record);

/* Not of a recorder that has been overtaken, stood still meanwhile and goes on talking? */
bool lua_record_is_newer(const struct lua_record *record, const struct recorded_news *news);
/* Such news. */
void lua_record_hear(struct lua_record *record, const struct recorded_news *news);

/* Just reserved. lua_record_reply_taken() follows, once for all of a reply. */
void lua_record_await(struct lua_record *record, struct gate_purchase *purchase);
void lua_record_reply_taken(struct lua_record *record);
/* Sold or not? If so, behind `after`. Final once the epoch of `after` is over, which it may be already. */
void lua_record_doubt(struct lua_record *record, struct gate_purchase *const *purchases, size_t count,
                      struct log_position after);

/* Answers what has waited for too long. */
void lua_record_expire(struct lua_record *record, int64_t now_us);
/* Back-pressure, by the breaker gate->record: what is reserved now must still be recorded within its deadline. */
void lua_record_watch(const struct lua_record *record, int64_t now_us);
bool lua_record_is_silent(const struct lua_record *record, int64_t now_us); /* the recorder */

#endif
