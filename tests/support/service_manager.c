/* See service_manager.h. The test's thread; owns the socket. */
#include "service_manager.h"

#include "testing.h"

#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

void service_manager_begin(struct service_manager *manager, const char *name)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    *manager = (struct service_manager){.fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0)};
    assert_true(manager->fd >= 0);
    assert_in_range(strlen(name), 2, sizeof address.sun_path - 1);
    strcpy(address.sun_path, name);
    if (name[0] == '@') {
        address.sun_path[0] = '\0';
    }
    socklen_t bytes = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(name));
    assert_int_equal(bind(manager->fd, (struct sockaddr *)&address, bytes), 0);
    snprintf(manager->setting, sizeof manager->setting, "NOTIFY_SOCKET=%s", name);
}

void service_manager_end(struct service_manager *manager)
{
    if (manager->fd > 0) {
        close(manager->fd);
    }
    manager->fd = 0;
}

static void note_watchdog(struct service_manager *manager)
{
    int64_t now = now_us();
    if (manager->watchdogs++ > 0 && now - manager->fed_us > manager->longest_us) {
        manager->longest_us = now - manager->fed_us;
    }
    manager->fed_us = now;
}

bool service_manager_hear(struct service_manager *manager, char *out, size_t bytes, int timeout_ms)
{
    int64_t deadline = deadline_in(timeout_ms);
    do {
        ssize_t got = recv(manager->fd, out, bytes - 1, 0);
        if (got < 0) {
            continue;
        }
        out[got] = '\0';
        if (strcmp(out, "WATCHDOG=1") == 0) {
            note_watchdog(manager);
        } else if (strncmp(out, "STATUS=", 7) == 0) {
            snprintf(manager->status, sizeof manager->status, "%s", out + 7);
        } else {
            return true;
        }
    } while (wait_a_moment(deadline));
    return false;
}
