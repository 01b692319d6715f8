/* Failpoints in a running server, through tests/support/failpoints.h; in a build without them, stand-ins that do
 * nothing. Only chaos_sweep.c includes this. */
#ifndef DOORBUSTER_CHAOS_FAILPOINTS_H
#define DOORBUSTER_CHAOS_FAILPOINTS_H

#if defined(DOORBUSTER_FAILPOINTS) && __has_include("failpoints.h")
#include "failpoints.h"
#define CHAOS_HAS_FAILPOINTS 1
#else
#include <stddef.h>
#include <stdint.h>
#define CHAOS_HAS_FAILPOINTS 0
struct failpoint_page;
static inline struct failpoint_page *failpoints_file_make(const char *path)
{
    (void)path;
    return NULL;
}
static inline void failpoints_file_close(struct failpoint_page **file)
{
    (void)file;
}
static inline void failpoints_arm(struct failpoint_page *file, const char *spec)
{
    (void)file;
    (void)spec;
}
static inline void failpoints_disarm(struct failpoint_page *file)
{
    (void)file;
}
static inline uint64_t failpoints_fired(const struct failpoint_page *file)
{
    (void)file;
    return 0;
}
#endif

#endif
