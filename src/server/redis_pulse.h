/* Does a private redis-server turn its loop? It is asked for a PING every half second; any answer will do, also "-LOADING". */
#ifndef DOORBUSTER_SERVER_REDIS_PULSE_H
#define DOORBUSTER_SERVER_REDIS_PULSE_H

#include <stdbool.h>
#include <stdint.h>

struct redis_pulse {
    int fd;           /* -1: not connected */
    int64_t asked_us; /* 0: never */
};

void redis_pulse_init(struct redis_pulse *pulse);
/* Asks if it is time to, and hears what came; never waits. True: it has answered since the last call. */
bool redis_pulse_feel(struct redis_pulse *pulse, const char *socket_path, int64_t now_us);
void redis_pulse_end(struct redis_pulse *pulse);

#endif
