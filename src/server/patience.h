/* Waiting at the start for what may only be away for a moment: a machine that starts all at once, a failover. */
#ifndef DOORBUSTER_SERVER_PATIENCE_H
#define DOORBUSTER_SERVER_PATIENCE_H

#include <stdbool.h>
#include <stdint.h>

struct patience {
    int total_ms;
    int64_t deadline_us;
    bool said; /* to the log, once */
};

struct patience patience_begin(int total_ms);
/* Waits a moment; `error` says for what. False: it was long enough. */
bool patience_wait(struct patience *patience, const char *error);

#endif
