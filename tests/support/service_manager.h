/* A service manager for a test: the socket of sd_notify(3) that it would have, and what it is told. */
#ifndef DOORBUSTER_TEST_SERVICE_MANAGER_H
#define DOORBUSTER_TEST_SERVICE_MANAGER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct service_manager {
    int fd;
    char setting[160];  /* "NOTIFY_SOCKET=…" */
    char status[160];   /* the last STATUS= */
    unsigned watchdogs; /* so often WATCHDOG=1 */
    int64_t longest_us; /* between two of these */
    int64_t fed_us;
};

/* On this path, or on "@name" in the abstract namespace. */
void service_manager_begin(struct service_manager *manager, const char *name);
void service_manager_end(struct service_manager *manager);
/* The next message that is neither a STATUS= alone nor a WATCHDOG=1 (these are noted). False: none came in time. */
bool service_manager_hear(struct service_manager *manager, char *out, size_t bytes, int timeout_ms);

#endif
