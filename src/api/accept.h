/* Which of two representations does a client want? By its Accept header (RFC 9110, 12.5.1). Pure. */
#ifndef DOORBUSTER_ACCEPT_H
#define DOORBUSTER_ACCEPT_H

#include <stdbool.h>

/* How much it wants this type, "text/html": 0 (not at all) to 1000. The most specific range that fits counts. */
int accept_quality(const char *accept, const char *type);
/* Does it want HTML more than JSON? No header, or one that takes both alike: no. */
bool accept_prefers_html(const char *accept);

#endif
