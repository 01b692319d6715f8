/* Tells the service manager that started us how we are, if one did: sd_notify(3)'s protocol, a datagram of "NAME=value" lines to the socket in
 * $NOTIFY_SOCKET. Without that variable everything here does nothing. */
#ifndef DOORBUSTER_SERVER_NOTIFY_H
#define DOORBUSTER_SERVER_NOTIFY_H

#include <stdint.h>
#include <sys/socket.h>
#include <sys/un.h>

#define NOTIFY_STATUS_BYTES 160

struct notify {
    int fd; /* -1: nobody to tell */
    struct sockaddr_un address;
    socklen_t address_bytes;
    int64_t watchdog_us; /* it wants to hear WATCHDOG=1 at least so often; 0: it does not watch */
    int64_t fed_us;
    char status[NOTIFY_STATUS_BYTES]; /* told last */
};

void notify_open(struct notify *notify);
/* In a child that becomes another program, for which the manager's variables are not. */
void notify_forget(void);
/* "READY=1", or several lines. */
void notify_tell(const struct notify *notify, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* STATUS=, if it has changed. */
void notify_status(struct notify *notify, const char *status);
/* READY=1 comes later, notify_tell() says so. */
void notify_reloading(const struct notify *notify, int64_t now_us);
/* Call often while all is well: WATCHDOG=1 at half of the time that we have. */
void notify_feed_watchdog(struct notify *notify, int64_t now_us);

#endif
