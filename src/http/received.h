/* How much a socket has received. Apart from http_internal.h because <linux/tcp.h> and <netinet/tcp.h>
 * exclude each other. */
#ifndef DOORBUSTER_HTTP_RECEIVED_H
#define DOORBUSTER_HTTP_RECEIVED_H

#include <stdbool.h>
#include <stdint.h>

/* Bytes of the TCP stream received so far, read by us or not. False if the kernel does not say, or it is no
 * TCP socket. */
bool http_bytes_received(int fd, uint64_t *out);

#endif
