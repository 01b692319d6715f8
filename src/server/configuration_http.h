/* The part of the server's settings that is about HTTP. */
#ifndef DOORBUSTER_SERVER_CONFIGURATION_HTTP_H
#define DOORBUSTER_SERVER_CONFIGURATION_HTTP_H

#include "configuration_gate.h"

/* Origins, proxies, limits, certificate and key. Exits with 2 and one line. */
void configuration_read_http(const struct settings *settings, struct server_configuration *configuration);

#endif
