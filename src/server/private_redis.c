/* The private redis-server of `--redis spawn`: a socket and an append-only file in the data folder, nothing on the network. Runs in the
 * supervisor and in the child that becomes redis-server. Fails with one line and exit 2 when there is no usable redis-server. */
#include "server.h"

#include "doorbuster/clock.h"
#include "doorbuster/log.h"
#include "doorbuster/process.h"
#include "doorbuster/text.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define REDIS_MAJOR_MIN 7
#define LEFTOVER_TIMEOUT_MS 15000

void private_redis_check(const char *program)
{
    FILE *pipe = popen("redis-server --version 2>/dev/null", "re");
    char line[256] = "";
    bool read = pipe != NULL && fgets(line, sizeof line, pipe) != NULL;
    if (pipe != NULL) {
        pclose(pipe);
    }
    const char *version = strstr(line, "v=");
    if (!read || version == NULL) {
        process_refuse(program, "no redis-server found for --redis spawn; install it (apt-get install "
                                "redis-server) or point --redis to one");
    }
    int64_t major;
    if (!text_to_int64(version + 2, strcspn(version + 2, "."), 0, 1000, &major) || major < REDIS_MAJOR_MIN) {
        process_refuse(program, "redis-server is %.*s; version %d or newer is needed",
                       (int)strcspn(version + 2, " "), version + 2, REDIS_MAJOR_MIN);
    }
}

/* Does anybody listen on our socket? Also one that is loading, or hangs. */
static bool somebody_listens(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(address.sun_path, sizeof address.sun_path, "%s", path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    bool listens = fd >= 0 && connect(fd, (struct sockaddr *)&address, sizeof address) == 0;
    if (fd >= 0) {
        close(fd);
    }
    return listens;
}

static void ask_to_shut_down(const struct redis_address *address)
{
    char error[512];
    redisContext *redis = redis_connect_blocking(address, 1000, error, sizeof error);
    if (redis != NULL) {
        freeReplyObject(redis_ask(redis, "SHUTDOWN"));
        redisFree(redis);
    }
}

void private_redis_end_leftover(const struct server_configuration *configuration)
{
    int64_t deadline_us = clock_monotonic_us() + (int64_t)LEFTOVER_TIMEOUT_MS * 1000;
    if (somebody_listens(configuration->redis.path)) {
        log_warn("an earlier server left its private Redis running; shutting it down first");
    }
    while (somebody_listens(configuration->redis.path)) {
        ask_to_shut_down(&configuration->redis);
        if (clock_monotonic_us() > deadline_us) {
            process_refuse("doorbuster-server",
                           "the private Redis of an earlier server does not end; stop it by hand (its folder "
                           "is %s/redis)",
                           configuration->data_dir);
        }
        nanosleep(&(struct timespec){.tv_nsec = 20000000}, NULL);
    }
}

void private_redis_exec(const struct server_configuration *configuration)
{
    char folder[4200];
    snprintf(folder, sizeof folder, "%s/redis", configuration->data_dir);
    if (mkdir(folder, 0700) != 0 && errno != EEXIST) {
        log_error("cannot make %s: %s", folder, strerror(errno));
        return;
    }
    setsid(); /* Ctrl-C is for the supervisor; Redis goes last */
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    int null = open("/dev/null", O_RDWR);
    if (null >= 0) {
        dup2(null, STDIN_FILENO);
        dup2(null, STDOUT_FILENO);
    }
    /* appendfsync everysec: what Redis may lose was never promised to anyone (the store has what was). */
    execlp("redis-server", "redis-server", "--port", "0", "--unixsocket", configuration->redis.path,
           "--unixsocketperm", "700", "--dir", folder, "--appendonly", "yes", "--appendfsync", "everysec",
           "--save", "", "--maxmemory-policy", "noeviction", "--daemonize", "no", "--logfile", "redis.log",
           "--aof-load-truncated", "yes", "--no-appendfsync-on-rewrite", "yes", (char *)NULL);
    log_error("cannot run redis-server: %s", strerror(errno));
}
