/* Arms failpoints in a server that runs already, through a file that it maps: give its path to the server in
 * $DOORBUSTER_FAILPOINT_FILE. Only in a build with DOORBUSTER_FAILPOINTS. */
#ifndef DOORBUSTER_TEST_FAILPOINTS_H
#define DOORBUSTER_TEST_FAILPOINTS_H

#include "doorbuster/failpoint.h"

/* Before the server starts. */
struct failpoint_page *failpoints_file_make(const char *path);
void failpoints_file_close(struct failpoint_page **file); /* unmaps; the file stays */

/* What was armed before is disarmed. A bad spec fails the test. */
void failpoints_arm(struct failpoint_page *file, const char *spec);
void failpoints_disarm(struct failpoint_page *file); /* failpoints_fired() keeps its value */
/* How often anything fired since failpoints_arm(). */
uint64_t failpoints_fired(const struct failpoint_page *file);

#endif
