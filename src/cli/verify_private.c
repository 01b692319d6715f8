/* verify's way to the Redis of a stopped server: starts the private redis-server on its own data, for as long as the audit lasts. Owns the
 * process and the data folder's lock, so that no server starts meanwhile (it waits). It leaves the pid in the lock file and the data as they
 * are. Should verify be killed, redis-server ends with it, and the lock is free. */
#include "verify.h"

#include "doorbuster/private_redis.h"
#include "doorbuster/process.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

static bool lock(struct private_sleeper *sleeper, const char *data_dir, char *error, size_t error_bytes)
{
    char path[CLI_DATA_DIR_BYTES + 16];
    snprintf(path, sizeof path, "%s/" PROCESS_DATA_LOCK, data_dir);
    sleeper->lock_fd = open(path, O_RDWR | O_CLOEXEC);
    if (sleeper->lock_fd < 0) {
        snprintf(error, error_bytes, "its private Redis cannot be started for the audit: %s: %s", path,
                 strerror(errno));
        return false;
    }
    if (flock(sleeper->lock_fd, LOCK_EX | LOCK_NB) != 0) {
        snprintf(error, error_bytes, "a server holds %s, but its private Redis does not answer", data_dir);
        close(sleeper->lock_fd);
        sleeper->lock_fd = -1;
        return false;
    }
    return true;
}

static bool may_start(const char *data_dir, char *error, size_t error_bytes)
{
    char path[CLI_DATA_DIR_BYTES + 16];
    snprintf(path, sizeof path, "%s/redis", data_dir);
    if (faccessat(AT_FDCWD, data_dir, W_OK | X_OK, AT_EACCESS) != 0 ||
        faccessat(AT_FDCWD, path, R_OK | W_OK | X_OK, AT_EACCESS) != 0) {
        snprintf(error, error_bytes, "its private Redis cannot be started for the audit: %s: %s", path,
                 strerror(errno));
        return false;
    }
    if (!private_redis_has_data(data_dir)) {
        snprintf(error, error_bytes, "there are no data of a private Redis in %s", path);
        return false;
    }
    return private_redis_find(error, error_bytes);
}

bool private_wake(struct private_sleeper *sleeper, const struct cli_place *place, char *error,
                  size_t error_bytes)
{
    *sleeper = (struct private_sleeper){.lock_fd = -1, .pid = -1};
    if (!lock(sleeper, place->data_dir, error, error_bytes)) {
        return false;
    }
    if (may_start(place->data_dir, error, error_bytes)) {
        sleeper->pid = private_redis_start(place->data_dir, &place->gate.redis, error, error_bytes);
    }
    if (sleeper->pid < 0) {
        private_put_back(sleeper);
        return false;
    }
    return true;
}

bool private_is_stopped(const struct cli_place *place)
{
    char path[CLI_DATA_DIR_BYTES + 16];
    snprintf(path, sizeof path, "%s/" PROCESS_DATA_LOCK, place->data_dir);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    bool stopped = fd >= 0 ? flock(fd, LOCK_EX | LOCK_NB) == 0 : errno == ENOENT;
    if (fd >= 0) {
        close(fd);
    }
    return stopped;
}

void private_put_back(struct private_sleeper *sleeper)
{
    if (sleeper->pid > 0) {
        private_redis_stop(sleeper->pid);
    }
    if (sleeper->lock_fd >= 0) {
        close(sleeper->lock_fd);
    }
    *sleeper = (struct private_sleeper){.lock_fd = -1, .pid = -1};
}
