/* The listening sockets, one for each worker, all on the same port (SO_REUSEPORT). Opened by the supervisor before any fork, and kept open by it as long as it
 * lives: what waits on the socket of a worker that died is served by its successor. Fails as everything does at start: one line, exit 2. */
#include "server.h"

#include "doorbuster/check.h"
#include "doorbuster/process.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define LISTEN_BACKLOG 4096

static void refuse_address(const struct server_configuration *configuration, const char *why)
{
    bool in_use = strcmp(why, strerror(EADDRINUSE)) == 0;
    process_refuse(
        "doorbuster-server", "cannot listen on %s:%d: %s; %s",
        configuration->listen_host[0] ? configuration->listen_host : "*", configuration->listen_port, why,
        in_use ? "stop the program that uses it or choose another --listen" : "choose another --listen");
}

/* A bound socket, or -1 with errno. `shared`: with SO_REUSEPORT, for several workers. */
static int bind_socket(const struct addrinfo *address, int port, bool shared)
{
    struct sockaddr_storage where;
    memcpy(&where, address->ai_addr, address->ai_addrlen);
    if (address->ai_family == AF_INET6) {
        ((struct sockaddr_in6 *)&where)->sin6_port = htons((uint16_t)port);
    } else {
        ((struct sockaddr_in *)&where)->sin_port = htons((uint16_t)port);
    }
    int fd = socket(address->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    int yes = 1, no = 0;
    if (fd < 0) {
        return -1;
    }
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    if (shared) {
        setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &yes, sizeof yes);
    }
    if (address->ai_family == AF_INET6) {
        setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &no, sizeof no); /* "::" serves IPv4 too */
    }
    if (bind(fd, (struct sockaddr *)&where, address->ai_addrlen) != 0) {
        int error = errno;
        close(fd);
        errno = error;
        return -1;
    }
    return fd;
}

static int port_of(int fd)
{
    struct sockaddr_storage where;
    socklen_t bytes = sizeof where;
    CHECK(getsockname(fd, (struct sockaddr *)&where, &bytes) == 0);
    return ntohs(where.ss_family == AF_INET6 ? ((struct sockaddr_in6 *)&where)->sin6_port
                                             : ((struct sockaddr_in *)&where)->sin_port);
}

/* First without SO_REUSEPORT: otherwise another server of the same user on this port would go unnoticed, and get half the buyers. */
static void find_free_port(struct server_configuration *configuration, const struct addrinfo *address)
{
    int probe = bind_socket(address, configuration->listen_port, false);
    if (probe < 0 || listen(probe, 1) != 0) {
        refuse_address(configuration, strerror(errno));
    }
    configuration->listen_port = port_of(probe);
    close(probe);
}

void listening_open(struct server_shared *shared)
{
    struct server_configuration *configuration = &shared->configuration;
    const char *host = configuration->listen_host;
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE | AI_NUMERICSERV},
                    *address = NULL;
    int probe6 = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);
    const char *every = probe6 >= 0 ? "::" : "0.0.0.0"; /* a kernel without IPv6 still has IPv4 */
    if (probe6 >= 0) {
        close(probe6);
    }
    int problem = getaddrinfo(host[0] ? host : every, "0", &hints, &address);
    if (problem != 0) {
        refuse_address(configuration, gai_strerror(problem));
    }
    find_free_port(configuration, address);
    for (unsigned i = 0; i < configuration->workers; i++) {
        shared->listen_fds[i] = bind_socket(address, configuration->listen_port, true);
        if (shared->listen_fds[i] < 0 || listen(shared->listen_fds[i], LISTEN_BACKLOG) != 0) {
            refuse_address(configuration, strerror(errno));
        }
    }
    freeaddrinfo(address);
}
