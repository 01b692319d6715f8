/* What the files of the SQLite driver share. sqlite.c owns the connection; the others only run statements on
 * it.
 *
 *   sqlite.c             URL, open and close, the schema, turns at writing, checkpoints, errors; runs the rules' statements
 *   sqlite_history.c     fills the audit log of a store from before there was one
 *   sqlite_backup.c      copies of the store, and putting one back
 *   faulty_vfs.c         a disk that fails, in the test build */
#ifndef STORE_SQLITE_H
#define STORE_SQLITE_H

#include "sql.h"

#include <limits.h>
#include <sqlite3.h>

/* The driver's own statements. */
enum sqlite_own {
    OWN_BEGIN_WRITE,
    OWN_BEGIN_READ,
    OWN_COMMIT,
    OWN_ROLLBACK,
    OWN_DATA_VERSION,
    OWN_STATEMENTS
};

struct sqlite_store {
    struct store base;
    sqlite3 *db;
    sqlite3_stmt *statements[SQL_STATEMENTS];
    sqlite3_stmt *own[OWN_STATEMENTS];
    char path[PATH_MAX];
    int lock_fd;          /* writers: <path>.lock, else -1 */
    long owner_pid;       /* must not cross a fork */
    int64_t data_version; /* when it was last asked; changes when another connection has written anything */
    int wal_pages;        /* in the write-ahead log after our last commit */
    int checkpoint_pages; /* checkpoint when it reaches this */
    bool log_is_sound;    /* nothing that failed to reach the disk can be in the write-ahead log */
};

struct sqlite_store *sqlite_of(struct store *store);

/* Makes store_error() say what was being done, on which file, why it failed and what helps. Always returns
 * STORE_FAILED. */
enum store_status sqlite_fail(struct sqlite_store *store, const char *doing);

/* For those who read for long: a descriptor to ask with whether a writer waits, in sql_make_sound(), until they are done; -1: none. */
int sqlite_look_at_lock(const struct sqlite_store *store);
bool sqlite_log_is_wanted(int lock_fd);

/* Steps a statement that returns no rows and makes it ready for the next time. SQLITE_DONE, or an error code.
 */
int sqlite_run(sqlite3_stmt *statement);

/* sqlite_history.c: inside the transaction of migration 2, before the connection's statements are prepared. */
enum store_status sqlite_write_history(struct sqlite_store *store);

/* sqlite_backup.c */
enum store_status sqlite_back_up(struct store *store, const char *path, struct store_position *position);
enum store_status sqlite_pack(const char *path, char *error, size_t error_bytes);

#endif
