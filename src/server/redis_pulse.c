/* See redis_pulse.h. The supervisor's thread, which holds no library's handles: a plain non-blocking socket and Redis's inline protocol are all
 * that this takes. Owns the socket. A Redis that is not there, or hangs, is one that does not answer; there is no other failure. */
#include "redis_pulse.h"

#include <errno.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define ASK_EVERY_US 500000

void redis_pulse_init(struct redis_pulse *pulse)
{
    *pulse = (struct redis_pulse){.fd = -1};
}

void redis_pulse_end(struct redis_pulse *pulse)
{
    if (pulse->fd >= 0) {
        close(pulse->fd);
    }
    pulse->fd = -1;
}

/* On a socket of this machine connecting takes no time, or fails. */
static void reach(struct redis_pulse *pulse, const char *socket_path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(address.sun_path, sizeof address.sun_path, "%s", socket_path);
    pulse->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (pulse->fd >= 0 && connect(pulse->fd, (struct sockaddr *)&address, sizeof address) != 0) {
        redis_pulse_end(pulse);
    }
}

static void ask(struct redis_pulse *pulse, const char *socket_path, int64_t now_us)
{
    static const char ping[] = "PING\r\n";
    pulse->asked_us = now_us;
    if (pulse->fd < 0) {
        reach(pulse, socket_path);
    }
    /* One that hangs for long has a full buffer; that is no reason to connect anew. */
    if (pulse->fd >= 0 && send(pulse->fd, ping, sizeof ping - 1, MSG_NOSIGNAL) < 0 && errno != EAGAIN) {
        redis_pulse_end(pulse);
    }
}

static bool hear(struct redis_pulse *pulse)
{
    char answers[512];
    ssize_t got = pulse->fd >= 0 ? recv(pulse->fd, answers, sizeof answers, 0) : -1;
    if (pulse->fd >= 0 && (got == 0 || (got < 0 && errno != EAGAIN && errno != EINTR))) {
        redis_pulse_end(pulse);
    }
    return got > 0;
}

bool redis_pulse_feel(struct redis_pulse *pulse, const char *socket_path, int64_t now_us)
{
    bool answered = hear(pulse);
    if (now_us - pulse->asked_us >= ASK_EVERY_US) {
        ask(pulse, socket_path, now_us);
    }
    return answered;
}
