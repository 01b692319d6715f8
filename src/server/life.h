/* Is a child alive? It says so itself, with a beat in its slot of the shared page; who is silent for too long is taken for dead. Nothing but
 * arithmetic: the supervisor reads the beats and does the killing.
 *
 *   STARTING --first beat--> TURNING --told to leave--> LEAVING
 *
 * STARTING may last LIFE_START_US, LEAVING LIFE_LEAVE_US: what it does there is bounded by deadlines of its own, and it does not beat. TURNING
 * may be silent for the hang timeout. */
#ifndef DOORBUSTER_SERVER_LIFE_H
#define DOORBUSTER_SERVER_LIFE_H

#include <stdbool.h>
#include <stdint.h>

#define LIFE_START_US 60000000
#define LIFE_LEAVE_US 30000000

enum life_phase { LIFE_STARTING, LIFE_TURNING, LIFE_LEAVING };

struct life {
    enum life_phase phase;
    int64_t heard_us; /* of it; or when the phase began */
};

void life_begin(struct life *life, int64_t now_us);
/* A beat; one that is no news, as old as the slot it was found in, changes nothing. */
void life_beat(struct life *life, int64_t beat_us);
void life_leave(struct life *life, int64_t now_us);
/* So long the supervisor did not look, because it was stopped itself, or the machine was: it cannot tell who was silent then. */
void life_pass_over(struct life *life, int64_t gap_us);

/* How long it may be silent in its phase. `shares_slot`: with another process, whose beats may be all that is seen, so the time to start is given. */
int64_t life_patience_us(const struct life *life, int64_t hang_timeout_us, bool shares_slot);
int64_t life_silence_us(const struct life *life, int64_t now_us);

#endif
