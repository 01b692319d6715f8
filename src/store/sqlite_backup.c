/* Copies of a SQLite store while it is written to, and putting one back.
 *
 * Runs in `setup`, one thread, blocking. Owns the copy's handle and descriptor while it is made.
 *
 * SQLite's online backup, a few pages a step, all under one snapshot: so it is of one moment, writers never wait for it, and it need not begin
 * again when they write (by itself each step looks at a new moment, and beside a busy writer it never ends). Each step is brought to the disk
 * before the next, and rests: else a whole file to be synced stands between the writers and their next commit. Measured by a sketch with 150 MB
 * beside 2,000 commits a second: the slowest commit took 9 ms so, 75 ms in one step, 46 ms with VACUUM INTO (and 99 of a hundred less than 1.8, 4.3, 2.2 ms;
 * 1.2 without any; noisy). While the snapshot lasts the write-ahead log only grows, so a large file takes larger steps.
 *
 * A writer that has just begun, or failed, must empty that log first (sql_make_sound()), and cannot while the snapshot lasts: the sale would stand
 * still for as long as the copy takes. So it says that it waits, and the copy gives its snapshot up and begins again afterwards.
 *
 * What fails is a sentence in store_error(), and there is no copy. */
#include "sqlite.h"

#include "doorbuster/clock.h"
#include "doorbuster/failpoint.h"
#include "faulty_vfs.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define STEP_PAGES 256 /* 1 MiB */
#define STEPS_MAX 500  /* of a large file, about: with their rests a second and the disk's time */
#define REST_NS 2000000
#define TRIES_MAX 20
#define STAND_ASIDE_MS 30000

struct copy {
    struct sqlite_store *store; /* it is made of this */
    const char *path;
    int fd;
    sqlite3 *db; /* NULL: not open */
    int lock_fd; /* of the store's writers, to look whether one of them waits for us; -1: none can */
    bool gives_way;
};

static enum store_status copy_failed(const struct copy *copy, const char *why)
{
    return store_refuse(&copy->store->base, "backing up %.200s to %.200s failed: %s", copy->store->path,
                        copy->path, why);
}

static enum store_status open_copy(struct copy *copy, const char *settings)
{
    int code = sqlite3_open_v2(copy->path, &copy->db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX,
                               faulty_vfs_name());
    if (code == SQLITE_OK)
        code = sqlite3_exec(copy->db, settings, NULL, NULL, NULL);
    return code == SQLITE_OK
               ? STORE_OK
               : copy_failed(copy, copy->db != NULL ? sqlite3_errmsg(copy->db) : "out of memory");
}

static enum store_status close_copy(struct copy *copy)
{
    int code = sqlite3_close(copy->db);
    copy->db = NULL;
    return code == SQLITE_OK ? STORE_OK : copy_failed(copy, "it cannot be closed");
}

static int pages_a_step(sqlite3_backup *backup)
{
    int share = sqlite3_backup_pagecount(backup) / STEPS_MAX;
    return share > STEP_PAGES ? share : STEP_PAGES;
}

static void rest(void)
{
    nanosleep(&(struct timespec){.tv_nsec = REST_NS}, NULL);
}

/* False: a writer cannot go on before our snapshot is gone. */
static bool may_go_on(struct copy *copy)
{
    copy->gives_way = sqlite_log_is_wanted(copy->lock_fd);
    while (!copy->gives_way && failpoint("backup.step")) {
        rest();
        copy->gives_way = sqlite_log_is_wanted(copy->lock_fd);
    }
    return !copy->gives_way;
}

static enum store_status copy_pages(struct copy *copy)
{
    sqlite3_backup *backup = sqlite3_backup_init(copy->db, "main", copy->store->db, "main");
    if (backup == NULL)
        return copy_failed(copy, sqlite3_errmsg(copy->db));
    bool synced = true;
    int code = SQLITE_OK;
    for (int pages = STEP_PAGES; code == SQLITE_OK && synced && may_go_on(copy);
         pages = pages_a_step(backup)) {
        code = sqlite3_backup_step(backup, pages);
        if (code == SQLITE_OK) {
            synced = fdatasync(copy->fd) == 0;
            rest();
        }
    }
    sqlite3_backup_finish(backup);
    if (!synced)
        return copy_failed(copy, strerror(errno));
    if (copy->gives_way)
        return copy_failed(copy, "the server could not go on beside it, over and over; try again later");
    return code == SQLITE_DONE ? STORE_OK : copy_failed(copy, sqlite3_errstr(code));
}

/* The cache is small, so that each step's pages are written in it. */
static enum store_status make_copy(struct copy *copy)
{
    enum store_status status =
        open_copy(copy, "PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA cache_size = 50");
    if (status == STORE_OK)
        status = copy_pages(copy);
    if (status != STORE_OK) {
        sqlite3_close(copy->db);
        copy->db = NULL;
        return status;
    }
    return close_copy(copy);
}

static bool is_sound(sqlite3 *db)
{
    sqlite3_stmt *row;
    bool sound = false;
    if (sqlite3_prepare_v2(db, "PRAGMA integrity_check(1)", -1, &row, NULL) == SQLITE_OK)
        sound =
            sqlite3_step(row) == SQLITE_ROW && strcmp((const char *)sqlite3_column_text(row, 0), "ok") == 0;
    sqlite3_finalize(row);
    return sound;
}

/* Without a write-ahead log beside it: one file. */
static enum store_status check_copy(struct copy *copy)
{
    enum store_status status = open_copy(copy, "PRAGMA journal_mode = DELETE");
    if (status == STORE_OK && !is_sound(copy->db))
        status = copy_failed(copy, "what was written is damaged; is the store, or the disk?");
    if (status != STORE_OK) {
        sqlite3_close(copy->db);
        copy->db = NULL;
        return status;
    }
    status = close_copy(copy);
    return status == STORE_OK && fsync(copy->fd) != 0 ? copy_failed(copy, strerror(errno)) : status;
}

static enum store_status copy_snapshot(struct copy *copy, struct store_position *position)
{
    copy->gives_way = false;
    enum store_status status = sql_read_begin(&copy->store->base);
    if (status != STORE_OK)
        return status;
    status = store_position(&copy->store->base, position);
    if (status == STORE_OK)
        status = make_copy(copy);
    sql_read_end(&copy->store->base);
    return status;
}

/* Until the writer has done what our snapshot was in the way of. False: it does not come to it, or there is no beginning anew. */
static bool stand_aside(const struct copy *copy)
{
    int64_t deadline_us = clock_monotonic_us() + (int64_t)STAND_ASIDE_MS * 1000;
    while (sqlite_log_is_wanted(copy->lock_fd)) {
        if (clock_monotonic_us() > deadline_us)
            return false;
        rest();
    }
    return ftruncate(copy->fd, 0) == 0;
}

enum store_status sqlite_back_up(struct store *base, const char *path, struct store_position *position)
{
    struct copy copy = {.store = sqlite_of(base), .path = path};
    copy.fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600); /* accounts are in it */
    if (copy.fd < 0)
        return copy_failed(&copy, strerror(errno));
    copy.lock_fd = sqlite_look_at_lock(copy.store);
    enum store_status status = copy_snapshot(&copy, position);
    for (int tries = 1; copy.gives_way && tries < TRIES_MAX && stand_aside(&copy); tries++)
        status = copy_snapshot(&copy, position);
    if (copy.lock_fd >= 0)
        close(copy.lock_fd);
    if (status == STORE_OK)
        status = check_copy(&copy);
    if (status != STORE_OK)
        unlink(path);
    close(copy.fd);
    return status;
}

/* To leave the write-ahead log behind, SQLite must be the only one who has the file open. */
enum store_status sqlite_pack(const char *path, char *error, size_t error_bytes)
{
    sqlite3 *db;
    int code = sqlite3_open_v2(path, &db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX, NULL);
    if (code == SQLITE_OK)
        code = sqlite3_exec(db, "PRAGMA journal_mode = DELETE", NULL, NULL, NULL);
    snprintf(error, error_bytes, "%s: %s", path,
             code == SQLITE_OK ? ""
             : db == NULL      ? "out of memory"
                               : sqlite3_errmsg(db));
    sqlite3_close(db);
    return code == SQLITE_OK ? STORE_OK : (code & 0xff) == SQLITE_BUSY ? STORE_FENCED : STORE_FAILED;
}
