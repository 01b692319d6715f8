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
 * What fails is a sentence in store_error(), and there is no copy. */
#include "sqlite.h"

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
#define EPOCHS_SKIPPED "1000000" /* more than a store attaches in the time that a backup misses */

struct copy {
    struct sqlite_store *store; /* it is made of this */
    const char *path;
    int fd;
    sqlite3 *db; /* NULL: not open */
};

static enum store_status copy_failed(const struct copy *copy, const char *why)
{
    return sqlite_refuse(copy->store, "backing up %.200s to %.200s failed: %s", copy->store->path, copy->path,
                         why);
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

static enum store_status copy_pages(struct copy *copy)
{
    sqlite3_backup *backup = sqlite3_backup_init(copy->db, "main", copy->store->db, "main");
    if (backup == NULL)
        return copy_failed(copy, sqlite3_errmsg(copy->db));
    bool synced = true;
    int code = sqlite3_backup_step(backup, STEP_PAGES);
    while (code == SQLITE_OK && synced) {
        synced = fdatasync(copy->fd) == 0;
        nanosleep(&(struct timespec){.tv_nsec = REST_NS}, NULL);
        code = synced ? sqlite3_backup_step(backup, pages_a_step(backup)) : code;
    }
    sqlite3_backup_finish(backup);
    if (!synced)
        return copy_failed(copy, strerror(errno));
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

enum store_status sqlite_back_up(struct store *base, const char *path, struct store_position *position)
{
    struct copy copy = {.store = sqlite_of(base), .path = path};
    copy.fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600); /* accounts are in it */
    if (copy.fd < 0)
        return copy_failed(&copy, strerror(errno));
    enum store_status status = sqlite_read_begin(copy.store);
    if (status == STORE_OK) {
        status = sqlite_position(base, position);
        if (status == STORE_OK)
            status = make_copy(&copy);
        sqlite_read_end(copy.store);
    }
    if (status == STORE_OK)
        status = check_copy(&copy);
    if (status != STORE_OK)
        unlink(path);
    close(copy.fd);
    return status;
}

enum store_status sqlite_begin_anew(struct store *base)
{
    static const char doing[] = "marking a restored store";
    struct sqlite_store *store = sqlite_of(base);
    enum store_status status = sqlite_write_begin(store, doing);
    if (status != STORE_OK)
        return status;
    if (sqlite3_exec(store->db,
                     "UPDATE state SET epoch = epoch + " EPOCHS_SKIPPED
                     ", store_id = CASE seller WHEN 1 THEN random() ELSE store_id END"
                     ", ids_given = " SQLITE_IDS_SKIPPED
                     " + max(ids_given, (SELECT coalesce(max(id), 0) FROM users),"
                     " (SELECT coalesce(max(id), 0) FROM products)) WHERE one = 1",
                     NULL, NULL, NULL) != SQLITE_OK)
        status = sqlite_fail(store, doing);
    return sqlite_write_end(store, status, doing);
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
