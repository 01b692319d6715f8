/* Who records, of several servers that share one Redis and one store: whoever holds the lease, a key that ends by itself. It is for order and
 * efficiency, as Redlock's locks are; that two recorders at once do no harm is the work of the fence (the epoch and the position in the store move
 * by compare-and-set). See docs/adr/0018.
 *
 * Over a blocking connection, by the recorder alone. */
#ifndef DOORBUSTER_GATE_LEASE_H
#define DOORBUSTER_GATE_LEASE_H

#include "doorbuster/redis.h"

#include <stdbool.h>
#include <stdint.h>

#define GATE_LEASE_MS 1500 /* a holder that says nothing for so long is taken for dead */

/* Who asks. The lease's value is "<server>-<run>-<key>", in hexadecimal. */
struct gate_candidate {
    uint64_t server; /* of the data folder: the same in all runs of this server */
    uint64_t run;    /* of the supervisor */
    uint32_t key;    /* tells apart servers whose tokens do not pass for each other's: of the secret's hash */
};

enum gate_lease {
    GATE_LEASE_MINE,    /* for GATE_LEASE_MS from before the call */
    GATE_LEASE_TAKEN,   /* another's: *holder says whose */
    GATE_LEASE_UNKNOWN, /* redis_failure() */
};

/* Takes the lease if it is free, renews it if it is this candidate's. `succeeding`: takes over that of an earlier run of the same server, which is
 * dead or about to leave: for a recorder's first try. */
enum gate_lease gate_take_lease(redisContext *redis, const struct gate_candidate *candidate, bool succeeding,
                                struct gate_candidate *holder);
/* Lets it go, if it is this candidate's, so that the next need not wait for its end. */
bool gate_drop_lease(redisContext *redis, const struct gate_candidate *candidate);

/* Before attaching over this connection: that whoever records next can tell it from others. And when it is no longer used for that. */
bool gate_name_recorder(redisContext *redis, int database);
bool gate_unname_recorder(redisContext *redis);
/* Closes the connections of all other recorders of this shop, so that what one of them that stood still for a while (or the network) has yet to send never
 * arrives: filling and trimming Redis are no scripts, and not fenced by the epoch. Call it when the store's epoch has been raised: whoever connects
 * later begins by raising it again. *ended: how many. A connection without a name: nothing is done. */
bool gate_end_other_recorders(redisContext *redis, unsigned *ended);

#endif
