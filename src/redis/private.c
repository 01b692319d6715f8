/* The private redis-servers of `--redis spawn` and `--redlock-nodes spawn`. Runs in the supervisor, in the child that becomes redis-server, and in
 * `verify`; one thread, blocking. Owns the files in DATA/redis while no redis-server runs, and the process that private_redis_start() made. Fails with a
 * sentence for the user. */
#include "doorbuster/private_redis.h"

#include "doorbuster/check.h"
#include "doorbuster/clock.h"
#include "doorbuster/log.h"
#include "doorbuster/text.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define REDIS_MAJOR_MIN 7
#define LEFTOVER_TIMEOUT_MS 15000
#define LOAD_TIMEOUT_MS 300000 /* some hundred megabytes of log are read in a few seconds */
#define STOP_TIMEOUT_MS 30000
#define RETRY_MS 20
#define PATH_BYTES 4400
#define SET_ASIDE_PREFIX "damaged-"
#define LOG_NAME "redis.log"
#define NODE_PREFIX "node" /* what the nodes of the Redlock gate write there: their logs */

static int64_t deadline_in(int ms)
{
    return clock_monotonic_us() + (int64_t)ms * 1000;
}

static void wait_a_moment(void)
{
    nanosleep(&(struct timespec){.tv_nsec = RETRY_MS * 1000000}, NULL);
}

bool private_redis_find(char *error, size_t error_bytes)
{
    FILE *pipe = popen("redis-server --version 2>/dev/null", "re");
    char line[256] = "";
    bool read = pipe != NULL && fgets(line, sizeof line, pipe) != NULL;
    if (pipe != NULL) {
        pclose(pipe);
    }
    const char *version = strstr(line, "v=");
    if (!read || version == NULL) {
        snprintf(
            error, error_bytes,
            "no redis-server found for a private one (spawn); install it (apt-get install redis-server), or "
            "point --redis or --redlock-nodes to others");
        return false;
    }
    int64_t major;
    if (!text_to_int64(version + 2, strcspn(version + 2, "."), 0, 1000, &major) || major < REDIS_MAJOR_MIN) {
        snprintf(error, error_bytes, "redis-server is %.*s; version %d or newer is needed",
                 (int)strcspn(version + 2, " "), version + 2, REDIS_MAJOR_MIN);
        return false;
    }
    return true;
}

/* --- one that was left behind ----------------------------------------------------------------------------------------------------- */
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

bool private_redis_end_leftover(const struct redis_address *address)
{
    int64_t deadline_us = deadline_in(LEFTOVER_TIMEOUT_MS);
    if (somebody_listens(address->path)) {
        log_warn("an earlier server left its private redis-server running on %s; shutting it down first",
                 address->path);
    }
    while (somebody_listens(address->path)) {
        ask_to_shut_down(address);
        if (clock_monotonic_us() > deadline_us) {
            return false;
        }
        wait_a_moment();
    }
    return true;
}

/* --- the process ------------------------------------------------------------------------------------------------------------------ */
#define ARGUMENTS_MAX 40

/* Becomes a redis-server on this socket, with DATA/redis as its folder and these `further` arguments. */
static void become_redis(const char *data_dir, const struct redis_address *address,
                         const char *const *further)
{
    char folder[PATH_BYTES];
    snprintf(folder, sizeof folder, "%s/redis", data_dir);
    if (mkdir(folder, 0700) != 0 && errno != EEXIST) {
        log_error("cannot make %s: %s", folder, strerror(errno));
        return;
    }
    setsid(); /* Ctrl-C is for whoever started it; Redis goes last */
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    if (null >= 0) {
        dup2(null, STDIN_FILENO);
        dup2(null, STDOUT_FILENO);
    }
    const char *argv[ARGUMENTS_MAX] = {"redis-server", "--port",           "0",   "--unixsocket",
                                       address->path,  "--unixsocketperm", "700", "--dir",
                                       folder,         "--save",           "",    "--maxmemory-policy",
                                       "noeviction",   "--daemonize",      "no"};
    size_t argc = 15;
    for (size_t i = 0; further[i] != NULL; i++) {
        CHECK(argc < ARGUMENTS_MAX - 1);
        argv[argc++] = further[i];
    }
    execvp(argv[0], (char *const *)argv);
    log_error("cannot run redis-server: %s", strerror(errno));
}

void private_redis_exec(const char *data_dir, const struct redis_address *address)
{
    /* appendfsync everysec: what Redis may lose was never promised to anyone (the store has what was). */
    static const char *const further[] = {"--appendonly",
                                          "yes",
                                          "--appendfsync",
                                          "everysec",
                                          "--aof-load-truncated",
                                          "yes",
                                          "--no-appendfsync-on-rewrite",
                                          "yes",
                                          "--logfile",
                                          LOG_NAME,
                                          NULL};
    become_redis(data_dir, address, further);
}

void private_redis_exec_node(const char *data_dir, const struct redis_address *address, unsigned number)
{
    char log_name[32], rdb_name[32];
    snprintf(log_name, sizeof log_name, NODE_PREFIX "%u.log", number);
    snprintf(rdb_name, sizeof rdb_name, NODE_PREFIX "%u.rdb", number);
    /* The name of a snapshot that it never makes: without it a node would load the one that somebody made of another Redis in this folder. */
    const char *const further[] = {"--appendonly", "no", "--dbfilename", rdb_name, "--logfile",
                                   log_name,       NULL};
    become_redis(data_dir, address, further);
}

static bool answers(const struct redis_address *address)
{
    char error[512];
    redisContext *redis = redis_connect_blocking(address, 1000, error, sizeof error);
    if (redis != NULL) {
        redisFree(redis);
    }
    return redis != NULL; /* not while it loads: PING is an error then */
}

pid_t private_redis_start(const char *data_dir, const struct redis_address *address, char *error,
                          size_t error_bytes)
{
    pid_t parent = getpid();
    if (somebody_listens(address->path)) { /* never two on the same files */
        snprintf(error, error_bytes, "a redis-server that does not answer is still there, on %s",
                 address->path);
        return -1;
    }
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGTERM);
        if (getppid() == parent) {
            private_redis_exec(data_dir, address);
        }
        _exit(1);
    }
    if (pid < 0) {
        snprintf(error, error_bytes, "cannot start redis-server: %s", strerror(errno));
        return -1;
    }
    int64_t deadline_us = deadline_in(LOAD_TIMEOUT_MS);
    while (!answers(address)) {
        if (waitpid(pid, NULL, WNOHANG) == pid) {
            snprintf(error, error_bytes, "the private redis-server ended at once: see %s/redis/" LOG_NAME,
                     data_dir);
            return -1;
        }
        if (clock_monotonic_us() > deadline_us) {
            snprintf(error, error_bytes, "the private redis-server does not answer: see %s/redis/" LOG_NAME,
                     data_dir);
            private_redis_stop(pid);
            return -1;
        }
        wait_a_moment();
    }
    return pid;
}

void private_redis_stop(pid_t pid)
{
    int64_t deadline_us = deadline_in(STOP_TIMEOUT_MS);
    kill(pid, SIGTERM);
    while (waitpid(pid, NULL, WNOHANG) == 0) {
        if (clock_monotonic_us() > deadline_us) {
            kill(pid, SIGKILL);
        }
        wait_a_moment();
    }
}

/* --- its files -------------------------------------------------------------------------------------------------------------------- */
/* Its log tells of the damage, and what was set aside stays where it is; nodes keep nothing. */
static bool is_data(const char *name)
{
    return strcmp(name, ".") != 0 && strcmp(name, "..") != 0 && strcmp(name, LOG_NAME) != 0 &&
           !text_begins_with(name, SET_ASIDE_PREFIX) && !text_begins_with(name, NODE_PREFIX);
}

/* The next entry of the folder that is data; NULL at the end. */
static const struct dirent *next_data(DIR *folder)
{
    const struct dirent *entry;
    while ((entry = readdir(folder)) != NULL && !is_data(entry->d_name)) {
    }
    return entry;
}

bool private_redis_has_data(const char *data_dir)
{
    char path[PATH_BYTES];
    snprintf(path, sizeof path, "%s/redis", data_dir);
    DIR *folder = opendir(path);
    bool found = folder != NULL && next_data(folder) != NULL;
    if (folder != NULL) {
        closedir(folder);
    }
    return found;
}

static bool make_aside(const char *redis_dir, char *where, size_t where_bytes, char *error,
                       size_t error_bytes)
{
    time_t now = time(NULL);
    struct tm utc;
    char stamp[32];
    strftime(stamp, sizeof stamp, "%Y%m%dT%H%M%SZ", gmtime_r(&now, &utc));
    snprintf(where, where_bytes, "%s/" SET_ASIDE_PREFIX "%s", redis_dir, stamp);
    if (mkdir(where, 0700) != 0) {
        snprintf(error, error_bytes, "cannot make %s: %s", where, strerror(errno));
        return false;
    }
    return true;
}

bool private_redis_set_aside(const char *data_dir, char *where, size_t where_bytes, char *error,
                             size_t error_bytes)
{
    char redis_dir[PATH_BYTES];
    const struct dirent *entry;
    bool ok = true;
    snprintf(redis_dir, sizeof redis_dir, "%s/redis", data_dir);
    if (!private_redis_has_data(data_dir)) {
        snprintf(error, error_bytes, "there are no data in %s", redis_dir);
        return false;
    }
    if (!make_aside(redis_dir, where, where_bytes, error, error_bytes)) {
        return false;
    }
    DIR *folder = opendir(redis_dir);
    while (ok && folder != NULL && (entry = next_data(folder)) != NULL) {
        char from[PATH_BYTES + 256], to[PATH_BYTES + 256];
        snprintf(from, sizeof from, "%s/%s", redis_dir, entry->d_name);
        snprintf(to, sizeof to, "%s/%s", where, entry->d_name);
        ok = rename(from, to) == 0;
        if (!ok) {
            snprintf(error, error_bytes, "cannot move %s to %s: %s", from, to, strerror(errno));
        }
    }
    if (folder != NULL) {
        closedir(folder);
    }
    return ok;
}
