/* Faults of an external Redis that somebody else restarts, of the link to it, and of the store's file. See
 * chaos_faults.c for when these functions run. */
#include "chaos.h"

#include "doorbuster/redis.h"

#include <dirent.h>
#include <fcntl.h>
#include <inttypes.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define AWAY_MS_MAX 200 /* Redis stays down so long */
#define CUT_BYTES_MAX 600
#define LATE_MS_MIN 100
#define LATE_MS_MAX 800
#define DELAY_MS_MAX 250
#define PATH_BYTES 512

void fault_none(struct round *round)
{
    (void)round;
}

/* --- how Redis keeps what it has ----------------------------------------------------------------------- */
void prepare_nothing_kept(struct round *round)
{
    (void)round;
    bench_set_persistence(REDIS_NOTHING_KEPT);
}

void prepare_rdb(struct round *round)
{
    (void)round;
    bench_set_persistence(REDIS_RDB);
}

void prepare_everysec(struct round *round)
{
    (void)round;
    bench_set_persistence(REDIS_AOF_EVERYSEC);
}

void prepare_always(struct round *round)
{
    (void)round;
    bench_set_persistence(REDIS_AOF_ALWAYS);
}

void prepare_snapshot(struct round *round) /* its copy is taken in the middle of the sale: take_snapshot() */
{
    (void)round;
    unlink(bench.snapshot);
    bench_set_persistence(REDIS_NOTHING_KEPT);
}

/* --- killed and restarted ------------------------------------------------------------------------------ */
static void in_folder(char out[PATH_BYTES], const char *name)
{
    snprintf(out, PATH_BYTES, "%s/%s", bench.redis.folder, name);
}

static void kill_and_wait(struct round *round)
{
    round->fault_us = now_us();
    bench_redis_kill();
    buyers_for((int)random_below(&round->random, AWAY_MS_MAX));
}

void restart_redis(struct round *round)
{
    char dump[PATH_BYTES];
    in_folder(dump, "dump.rdb");
    if (bench.persistence == REDIS_NOTHING_KEPT) {
        unlink(dump); /* of an earlier round */
    }
    kill_and_wait(round);
    bench_redis_launch(bench.persistence);
}

static void remove_files(const char *folder)
{
    char path[PATH_BYTES];
    DIR *files = opendir(folder);
    struct dirent *file;
    while (files != NULL && (file = readdir(files)) != NULL) {
        if (file->d_name[0] != '.' &&
            snprintf(path, sizeof path, "%s/%s", folder, file->d_name) < PATH_BYTES) {
            unlink(path);
        }
    }
    if (files != NULL) {
        closedir(files);
    }
}

static void forget_files(void)
{
    char path[PATH_BYTES];
    in_folder(path, "appendonlydir");
    remove_files(path);
    in_folder(path, "dump.rdb");
    unlink(path);
}

void restart_redis_empty(struct round *round)
{
    kill_and_wait(round);
    forget_files();
    bench_redis_launch(REDIS_AOF_EVERYSEC);
}

static bool copy_file(const char *from, const char *to)
{
    char *bytes = NULL;
    struct stat status;
    FILE *in = fopen(from, "r"), *out = fopen(to, "w");
    bool ok = in != NULL && out != NULL && fstat(fileno(in), &status) == 0 &&
              (bytes = malloc((size_t)status.st_size + 1)) != NULL &&
              fread(bytes, 1, (size_t)status.st_size, in) == (size_t)status.st_size &&
              fwrite(bytes, 1, (size_t)status.st_size, out) == (size_t)status.st_size;
    free(bytes);
    if (in != NULL) {
        fclose(in);
    }
    if (out != NULL) {
        ok = fclose(out) == 0 && ok;
    }
    return ok;
}

static void take_snapshot(void)
{
    char dump[PATH_BYTES];
    redisContext *redis = redis_fixture_connect(&bench.redis);
    redis_do(redis, "SAVE");
    redisFree(redis);
    in_folder(dump, "dump.rdb");
    assert_true(copy_file(dump, bench.snapshot));
}

/* An out-of-date replica is promoted: it has what there was a moment ago, and knows nothing since. */
void restart_redis_old(struct round *round)
{
    char dump[PATH_BYTES];
    take_snapshot();
    buyers_for(20 + (int)random_below(&round->random, 200));
    kill_and_wait(round);
    forget_files();
    in_folder(dump, "dump.rdb");
    assert_true(copy_file(bench.snapshot, dump));
    bench_redis_launch(REDIS_NOTHING_KEPT);
}

/* The append-only file that is written to: the one with the highest number. */
static bool last_aof(char out[PATH_BYTES])
{
    char folder[PATH_BYTES];
    long highest = -1;
    struct dirent *file;
    in_folder(folder, "appendonlydir");
    DIR *files = opendir(folder);
    while (files != NULL && (file = readdir(files)) != NULL) {
        long number;
        char kind[8] = "";
        if (sscanf(file->d_name, "appendonly.aof.%ld.%4s", &number, kind) == 2 && strcmp(kind, "incr") == 0 &&
            number > highest && snprintf(out, PATH_BYTES, "%s/%s", folder, file->d_name) < PATH_BYTES) {
            highest = number;
        }
    }
    if (files != NULL) {
        closedir(files);
    }
    return highest >= 0;
}

void restart_redis_cut(struct round *round)
{
    char path[PATH_BYTES];
    struct stat status;
    kill_and_wait(round);
    off_t cut = 1 + (off_t)random_below(&round->random, CUT_BYTES_MAX);
    if (last_aof(path) && stat(path, &status) == 0) {
        assert_int_equal(truncate(path, status.st_size > cut ? status.st_size - cut : 0), 0);
    }
    bench_redis_launch(REDIS_AOF_ALWAYS);
}

/* --- the link ------------------------------------------------------------------------------------------ */
void link_cut(struct round *round)
{
    (void)round;
    proxy_do(&bench.proxy, PROXY_CUT, 0, 0);
}

void link_delay(struct round *round)
{
    proxy_do(&bench.proxy, PROXY_DELAY, 1 + (int)random_below(&round->random, DELAY_MS_MAX), 0);
}

void link_delay_over(struct round *round)
{
    (void)round;
    proxy_do(&bench.proxy, PROXY_DELAY, 0, 0);
}

static int some_calls(struct round *round)
{
    return 1 + (int)random_below(&round->random, 2 * options.workers);
}

void link_lose_answer(struct round *round)
{
    proxy_do(&bench.proxy, PROXY_LOSE_ANSWER, 0, some_calls(round));
}

void link_deliver_late(struct round *round)
{
    int ms = LATE_MS_MIN + (int)random_below(&round->random, LATE_MS_MAX - LATE_MS_MIN);
    proxy_do(&bench.proxy, PROXY_DELIVER_LATE, ms, some_calls(round));
}

/* --- the store's file ---------------------------------------------------------------------------------- */
static sqlite3 *locker;

void lock_database(struct round *round)
{
    char path[PATH_BYTES];
    int64_t deadline = deadline_in(PATIENCE_MS);
    (void)round;
    snprintf(path, sizeof path, "%s/doorbuster.db", bench.server.data);
    assert_int_equal(sqlite3_open(path, &locker), SQLITE_OK);
    while (sqlite3_exec(locker, "BEGIN EXCLUSIVE", NULL, NULL, NULL) != SQLITE_OK) {
        assert_true(wait_a_moment(deadline));
    }
}

void unlock_database(struct round *round)
{
    (void)round;
    sqlite3_close(locker); /* rolls back */
    locker = NULL;
}

static void filler_path(char out[PATH_BYTES])
{
    snprintf(out, PATH_BYTES, "%s/filler", bench.server.data);
}

void fill_disk(struct round *round)
{
    static const char zeros[4096];
    char path[PATH_BYTES];
    (void)round;
    assert_true(bench.tmpfs); /* else it would be the machine's disk */
    filler_path(path);
    int fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    while (write(fd, zeros, sizeof zeros) > 0) {
    }
    close(fd);
}

void empty_disk(struct round *round)
{
    char path[PATH_BYTES];
    (void)round;
    filler_path(path);
    unlink(path);
}
