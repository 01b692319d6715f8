/* How much a socket has received: one question to the kernel. Any thread; owns nothing; false if there is no
 * answer. */
#include "received.h"

#include <linux/tcp.h>
#include <netinet/in.h>
#include <sys/socket.h>

bool http_bytes_received(int fd, uint64_t *out)
{
    struct tcp_info info;
    socklen_t bytes = sizeof info;

    if (getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &bytes) != 0 || bytes < sizeof info)
        return false;
    *out = info.tcpi_bytes_received;
    return true;
}
