/* Lifelines: pipes on which nothing is ever written; that they close is the message. For processes without a loop. Owns nothing. */
#include "server.h"

#include <poll.h>

bool lifeline_is_closed(int fd, int wait_ms)
{
    struct pollfd poller = {.fd = fd, .events = POLLIN};
    return poll(&poller, 1, wait_ms) > 0;
}
