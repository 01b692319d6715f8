/* Is it this server's turn to record? Of several servers that share a store and a Redis one records, the others stand by. */
#ifndef DOORBUSTER_SERVER_LEADING_H
#define DOORBUSTER_SERVER_LEADING_H

#include "doorbuster/gate_lease.h"

#include <stdbool.h>
#include <stdint.h>

struct leading {
    struct gate_candidate me, holder; /* holder: who has it, as far as we heard */
    bool leads;
    bool refused;      /* it leads, but Redis would not write so when it was asked last */
    bool has_led;      /* once: then an equal server id in the lease is not our predecessor's, but a copy's */
    bool said_standby; /* to the log, of this holder */
    int64_t renew_us;  /* when next */
};

void leading_init(struct leading *leading, uint64_t server, uint64_t run, const unsigned char *secret,
                  size_t secret_bytes);
/* Takes the turn or keeps it, if it is time to say so to Redis. False: another has it, or Redis cannot be asked; logged when it changes. */
bool leading_keep(struct leading *leading, redisContext *redis, int64_t now_us);
/* Something says that another may have the turn: the next leading_keep() asks. */
void leading_doubt(struct leading *leading);
/* Redis cannot be reached, so nobody here can have a turn. */
void leading_lose(struct leading *leading);
/* Gives the turn up, so that another need not wait for its end. `why` is for the log. `redis` may be NULL: then it ends by itself. */
void leading_drop(struct leading *leading, redisContext *redis, const char *why);

#endif
