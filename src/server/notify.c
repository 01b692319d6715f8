/* See notify.h. The supervisor's thread; no library is needed for it. Owns the socket. What cannot be told is not told again: the manager's own timeouts
 * see to that. */
#include "notify.h"

#include "doorbuster/log.h"
#include "doorbuster/text.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define WATCHDOG_US_MAX INT64_C(86400000000)

/* "/run/…", or "@…" in the abstract namespace, where the name's first byte is 0. */
static bool read_address(const char *name, struct notify *notify)
{
    size_t bytes = strlen(name);
    if ((name[0] != '/' && name[0] != '@') || bytes < 2 || bytes >= sizeof notify->address.sun_path) {
        log_warn("NOTIFY_SOCKET is no socket's name; the service manager is not told anything");
        return false;
    }
    notify->address.sun_family = AF_UNIX;
    memcpy(notify->address.sun_path, name, bytes);
    if (name[0] == '@') {
        notify->address.sun_path[0] = '\0';
    }
    notify->address_bytes = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + bytes);
    return true;
}

static int64_t read_number(const char *name, int64_t max)
{
    const char *text = getenv(name);
    int64_t number;
    return text != NULL && text_to_int64(text, strlen(text), 1, max, &number) ? number : 0;
}

void notify_open(struct notify *notify)
{
    *notify = (struct notify){.fd = -1};
    const char *name = getenv("NOTIFY_SOCKET");
    int64_t watched_pid = read_number("WATCHDOG_PID", INT32_MAX);
    if (name != NULL && read_address(name, notify)) {
        notify->fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
        if (watched_pid == 0 || watched_pid == getpid()) {
            notify->watchdog_us = read_number("WATCHDOG_USEC", WATCHDOG_US_MAX);
        }
    }
}

void notify_forget(void)
{
    unsetenv("NOTIFY_SOCKET");
    unsetenv("WATCHDOG_USEC");
    unsetenv("WATCHDOG_PID");
}

void notify_tell(const struct notify *notify, const char *format, ...)
{
    char text[NOTIFY_STATUS_BYTES + 64];
    va_list arguments;
    if (notify->fd < 0) {
        return;
    }
    va_start(arguments, format);
    int bytes = vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    size_t length = bytes < 0 ? 0 : (size_t)bytes < sizeof text ? (size_t)bytes : sizeof text - 1;
    if (sendto(notify->fd, text, length, MSG_NOSIGNAL, (const struct sockaddr *)&notify->address,
               notify->address_bytes) < 0) {
        log_warn("cannot tell the service manager \"%s\": %s", text, strerror(errno));
    }
}

void notify_status(struct notify *notify, const char *status)
{
    if (strcmp(status, notify->status) != 0) {
        snprintf(notify->status, sizeof notify->status, "%s", status);
        notify_tell(notify, "STATUS=%s", notify->status);
    }
}

void notify_reloading(const struct notify *notify, int64_t now_us)
{
    notify_tell(notify, "RELOADING=1\nMONOTONIC_USEC=%" PRId64, now_us);
}

void notify_feed_watchdog(struct notify *notify, int64_t now_us)
{
    if (notify->watchdog_us > 0 && now_us - notify->fed_us >= notify->watchdog_us / 2) {
        notify->fed_us = now_us;
        notify_tell(notify, "WATCHDOG=1");
    }
}
