/* Addresses of hosts, for whoever cannot wait for a name server. */
#ifndef DOORBUSTER_REDIS_NAMES_H
#define DOORBUSTER_REDIS_NAMES_H

#include <stdbool.h>

#define NAMES_ADDRESS_BYTES 80 /* as text, with a zone */

/* The host's address as it was last heard, at once; when that was a while ago it is asked for anew, beside. False: it is not known yet. */
bool names_address(const char *host, char out[NAMES_ADDRESS_BYTES]);
/* The same without asking: for whoever has asked himself, and got no answer. What he did get he notes. */
bool names_known(const char *host, char out[NAMES_ADDRESS_BYTES]);
void names_note(const char *host, const char *address);

#endif
