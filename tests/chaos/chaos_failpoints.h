/* Failpoints in a running server, through tests/support/failpoints.h; without it, stand-ins that say that there are
 * none. Only chaos_sweep.c includes this. */
#ifndef DOORBUSTER_CHAOS_FAILPOINTS_H
#define DOORBUSTER_CHAOS_FAILPOINTS_H

#if __has_include("failpoints.h")
#include "failpoints.h"
#define CHAOS_HAS_FAILPOINTS 1
#else
#include <stdbool.h>
#define CHAOS_HAS_FAILPOINTS 0
static inline void failpoints_file_make(const char *path)
{
    (void)path;
}
static inline void failpoints_arm(const char *path, const char *point)
{
    (void)path;
    (void)point;
}
static inline void failpoints_disarm(const char *path)
{
    (void)path;
}
static inline bool failpoints_fired(const char *path)
{
    (void)path;
    return false;
}
#endif

#endif
