/* `server`: reads the settings, locks the data folder, and becomes the supervisor. */
#include "server.h"

#include "doorbuster/clock.h"
#include "doorbuster/failpoint.h"
#include "doorbuster/log.h"
#include "doorbuster/process.h"
#include "doorbuster/text.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <time.h>
#include <unistd.h>

#define LEFT_BEHIND_TIMEOUT_MS 30000

/* The pid that the last server wrote there; 0 if none did. */
static pid_t last_owner(int fd)
{
    char text[32] = "";
    int64_t pid;
    ssize_t bytes = pread(fd, text, sizeof text - 1, 0);
    return bytes > 0 && text_to_int64(text, strcspn(text, "\n"), 1, INT32_MAX, &pid) ? (pid_t)pid : 0;
}

static bool is_left_behind(int fd)
{
    pid_t owner = last_owner(fd);
    return owner > 0 && kill(owner, 0) != 0 && errno == ESRCH;
}

/* Held by every process of this server: two servers never share a data folder. If the supervisor that took it is dead, its children are
 * about to finish what they hold, or a `verify` reads the stopped server's data (it leaves the pid in the file alone): they are waited for. */
static int lock_data_dir(const char *data_dir)
{
    char path[4200], owner[32];
    snprintf(path, sizeof path, "%s/" PROCESS_DATA_LOCK, data_dir);
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0) {
        process_refuse("doorbuster-server", "cannot open %s: %s", path, strerror(errno));
    }
    int64_t deadline_us = clock_monotonic_us() + (int64_t)LEFT_BEHIND_TIMEOUT_MS * 1000;
    bool told = false;
    while (flock(fd, LOCK_EX | LOCK_NB) != 0) {
        if (!is_left_behind(fd) || clock_monotonic_us() > deadline_us) {
            process_refuse(
                "doorbuster-server",
                "the data folder %s is in use by another server; stop that one or choose another --data",
                data_dir);
        }
        if (!told) {
            log_warn("an earlier server died, or verify reads its data; waiting until they have finished "
                     "what they hold");
            told = true;
        }
        nanosleep(&(struct timespec){.tv_nsec = 20000000}, NULL);
    }
    int bytes = snprintf(owner, sizeof owner, "%d\n", (int)getpid());
    if (ftruncate(fd, 0) != 0 || pwrite(fd, owner, (size_t)bytes, 0) != bytes) {
        process_refuse("doorbuster-server", "cannot write to %s: %s", path, strerror(errno));
    }
    return fd;
}

int main(int argc, char **argv)
{
    static struct server_shared shared;
    process_init_title(argc, argv);
    /* The recorder looks names up (Redis, PostgreSQL) where it waits: where no name server answers that shall end before it is taken for dead. */
    setenv("RES_OPTIONS", "timeout:1 attempts:2", 0);
    log_set_speaker("supervisor");
    failpoint_init(argc, argv);
    configuration_read(&shared.configuration, argc, argv);
    shared.data_lock_fd = lock_data_dir(shared.configuration.data_dir);
    configuration_claim(&shared.configuration);
    return supervisor_run(&shared);
}
