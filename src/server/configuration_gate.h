/* The part of the server's settings that says which gate it sells through. */
#ifndef DOORBUSTER_SERVER_CONFIGURATION_GATE_H
#define DOORBUSTER_SERVER_CONFIGURATION_GATE_H

#include "server.h"

#include "doorbuster/settings.h"

#define PROGRAM "doorbuster-server"

/* Fills in configuration->place, of which configuration->data_dir is needed, and asks each Redis that is not a private one for its version.
 * Exits with 2 and one line. */
void configuration_read_gate(const struct settings *settings, struct server_configuration *configuration);

#endif
