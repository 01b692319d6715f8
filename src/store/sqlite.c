/* The SQLite driver's connection: open, close, schema, turns at writing, checkpoints, errors.
 *
 * Runs in the recorder, on pool threads of the workers and in the tools; a connection is one thread's at a
 * time and must not cross a fork. It owns the database handle with its statements and, as a writer, a
 * descriptor of the lock file.
 *
 * Turns: whatever changes the file or its write-ahead log happens under flock(LOCK_EX) on <path>.lock: each
 * write transaction, each checkpoint, and a writer's open and close (recovery, and the last checkpoint).
 * SQLite 3.40 has a rare fault when one connection commits while another starts a checkpoint, and a waiter
 * looks again after at most 0.2 ms where SQLite's own busy handler sleeps up to 100. The kernel gives the
 * lock back when its holder dies. Readers open read-only, take no turns and never checkpoint.
 *
 * Failure: a statement that fails rolls its transaction back and leaves the connection usable; the caller
 * gets STORE_FAILED and a sentence. A write or a sync that failed leaves doubt about the write-ahead log: it
 * is emptied before the connection records again (make_log_sound). A checkpoint that fails is only
 * logged: what was committed is safe in the write-ahead log. */
#include "sqlite.h"

#include "doorbuster/check.h"
#include "doorbuster/clock.h"
#include "doorbuster/log.h"
#include "embedded.h"
#include "faulty_vfs.h"

#include <errno.h>
#include <fcntl.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <time.h>
#include <unistd.h>

#define SCHEME "sqlite:"
#define LOCK_SUFFIX ".lock"
#define APPLICATION_ID 0x44427374 /* "DBst": tells our files from another program's */
#define BUSY_TIMEOUT_MS 5000      /* for foreign programs that hold the file; ours take turns */
/* For a turn. Only a writer that hangs holds one for so long: a commit takes milliseconds, waiting for a foreign program
 * BUSY_TIMEOUT_MS. */
#define TURN_WAIT_MS 8000
#define TURN_POLL_US 200
/* Who has waited for so long looks more often, so that it gets its turn before those who just came. Measured beside three writers
 * that never pause: the longest recording took 30 to 70 ms, 60 to 140 without this, 20 to 70 with a lock that queues but waits for ever. */
#define TURN_EAGER_AFTER_US 5000
#define TURN_EAGER_POLL_US 20
/* For readers, before the log can be emptied; in tries, so that others can write in between. */
#define EMPTYING_WAIT_MS 5000
#define EMPTYING_TRY_MS 50
#define EMPTYING_PAUSE_MS 10
#define STEPS_A_SIGN 200000 /* of SQLite's machine between two signs of life: some 10 ms */
#define WRITER_CACHE_KIB 32768
/* A checkpoint holds buyers up. Measured at 100 orders a commit: with 1000 pages 5 ms, often; with 4000 7 ms;
 * with 16,000 12 to 40 ms and no more orders a second. */
#define CHECKPOINT_PAGES 4000
#define WAL_BYTES_KEPT (64 * 1024 * 1024) /* one that grew beyond this behind a long reader is cut back */

/* Migration i takes the schema from version i to i + 1. Never edit one that has been released. */
static const struct migration {
    const char *sql;
    enum store_status (*then)(struct sqlite_store *store); /* what SQL cannot say; NULL: nothing */
} migrations[] = {{embedded__0001_first_sql, NULL},
                  {embedded__0002_carts_sql, sqlite_write_history},
                  {embedded__0003_redlock_sql, NULL},
                  {embedded__0004_windows_sql, NULL},
                  {embedded__0005_product_requests_sql, NULL}};
#define SCHEMA_VERSION ((int64_t)(sizeof migrations / sizeof migrations[0]))

struct sqlite_store *sqlite_of(struct store *store)
{
    CHECK(store->driver == &sqlite_driver);
    return (struct sqlite_store *)store;
}

/* --- errors --- */
static const char *advice(int code)
{
    switch (code & 0xff) {
    case SQLITE_FULL:
        return "; make room on its disk";
    case SQLITE_READONLY:
    case SQLITE_PERM:
    case SQLITE_CANTOPEN:
        return "; this user must be allowed to write the file and its folder";
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
        return "; another program holds the file, close it there";
    case SQLITE_CORRUPT:
        return "; the file is damaged: stop the server, keep a copy of it with its -wal, and restore a "
               "backup";
    case SQLITE_NOTADB:
        return "; it was not made by Doorbuster, name another file";
    case SQLITE_IOERR:
        return "; the disk may be full or failing, the system's log says more";
    default:
        return "";
    }
}

enum store_status sqlite_fail(struct sqlite_store *store, const char *doing)
{
    int code = sqlite3_extended_errcode(store->db);
    int system_code = sqlite3_system_errno(store->db);
    bool tell_system =
        system_code != 0 && ((code & 0xff) == SQLITE_IOERR || (code & 0xff) == SQLITE_CANTOPEN);
    snprintf(store->base.error, sizeof store->base.error, "%s in %.200s failed: %.120s%s%.60s%s%s", doing,
             store->path, sqlite3_errmsg(store->db), tell_system ? " (" : "",
             tell_system ? strerror(system_code) : "", tell_system ? ")" : "", advice(code));
    return STORE_FAILED;
}

static enum store_status fail(struct store *store, const char *doing)
{
    return sqlite_fail(sqlite_of(store), doing);
}

static const char *where(const struct store *store)
{
    return ((const struct sqlite_store *)store)->path;
}

/* --- turns --- */
static void sleep_us(int64_t us)
{
    nanosleep(&(struct timespec){.tv_nsec = (long)(us * 1000)}, NULL);
}

static enum store_status take_turn(struct sqlite_store *store)
{
    int64_t start_us = 0;
    while (flock(store->lock_fd, LOCK_EX | LOCK_NB) != 0) {
        if (errno != EINTR && errno != EWOULDBLOCK)
            return store_refuse(&store->base, "locking %s" LOCK_SUFFIX " failed: %s", store->path,
                                strerror(errno));
        int64_t now_us = clock_monotonic_us();
        if (start_us == 0)
            start_us = now_us;
        if (now_us - start_us >= (int64_t)TURN_WAIT_MS * 1000)
            return store_refuse(&store->base,
                                "no turn at writing %s in %d s: a process of this server hangs and holds "
                                "%s" LOCK_SUFFIX "; `fuser` on that file names it",
                                store->path, TURN_WAIT_MS / 1000, store->path);
        store_tell_waiting();
        sleep_us(now_us - start_us < TURN_EAGER_AFTER_US ? TURN_POLL_US : TURN_EAGER_POLL_US);
    }
    return STORE_OK;
}

static void give_turn(struct sqlite_store *store)
{
    CHECK(flock(store->lock_fd, LOCK_UN) == 0);
}

/* --- checkpoints --- */
/* Called by SQLite inside our COMMIT. Replaces its automatic checkpoint, which would try again at every
 * commit as long as a reader holds an old snapshot. */
static int wal_grown_cb(void *context, sqlite3 *db, const char *name, int pages)
{
    (void)db;
    (void)name;
    struct sqlite_store *store = context;
    if (pages < store->wal_pages) /* the log was begun anew */
        store->checkpoint_pages = CHECKPOINT_PAGES;
    store->wal_pages = pages;
    return SQLITE_OK;
}

static void checkpoint_if_due(struct sqlite_store *store)
{
    if (store->wal_pages < store->checkpoint_pages)
        return;
    int code = sqlite3_wal_checkpoint_v2(store->db, "main", SQLITE_CHECKPOINT_PASSIVE, NULL, NULL);
    if (code != SQLITE_OK && code != SQLITE_BUSY) {
        store->log_is_sound = false;
        log_warn("store: a checkpoint of %s failed: %s%s; trying again later", store->path,
                 sqlite3_errmsg(store->db), advice(code));
    }
    /* If readers let it, the next write begins the log anew and wal_grown_cb resets this. */
    store->checkpoint_pages = store->wal_pages + CHECKPOINT_PAGES;
}

/* That somebody waits for readers is a lock on a byte of the lock file, which has nothing to do with turns (flock) and, like those, ends with its
 * holder. Several may hold it. */
static void want_log(struct sqlite_store *store, bool wanted)
{
    struct flock byte = {.l_type = wanted ? F_RDLCK : F_UNLCK, .l_whence = SEEK_SET, .l_len = 1};
    if (fcntl(store->lock_fd, F_OFD_SETLK, &byte) != 0)
        log_warn("store: locking a byte of %s" LOCK_SUFFIX " failed: %s; long readers will not give way",
                 store->path, strerror(errno));
}

int sqlite_look_at_lock(const struct sqlite_store *store)
{
    char path[PATH_MAX + sizeof LOCK_SUFFIX];
    snprintf(path, sizeof path, "%s" LOCK_SUFFIX, store->path);
    return open(path, O_RDONLY | O_CLOEXEC);
}

bool sqlite_log_is_wanted(int lock_fd)
{
    struct flock byte = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_len = 1};
    return lock_fd >= 0 && fcntl(lock_fd, F_OFD_GETLK, &byte) == 0 && byte.l_type != F_UNLCK;
}

/* SQLITE_BUSY: a reader still needs the log. */
static int try_to_empty_log(struct sqlite_store *store)
{
    sqlite3_busy_timeout(store->db, EMPTYING_TRY_MS);
    int code = sqlite3_wal_checkpoint_v2(store->db, "main", SQLITE_CHECKPOINT_TRUNCATE, NULL, NULL);
    sqlite3_busy_timeout(store->db, BUSY_TIMEOUT_MS);
    return code & 0xff;
}

static enum store_status empty_log(struct sqlite_store *store)
{
    int64_t deadline_us = clock_monotonic_us() + (int64_t)EMPTYING_WAIT_MS * 1000;
    while (!store->log_is_sound) {
        enum store_status status = take_turn(store);
        if (status != STORE_OK)
            return status;
        int code = try_to_empty_log(store);
        if (code != SQLITE_OK && code != SQLITE_BUSY)
            status = sqlite_fail(store, "emptying the write-ahead log");
        give_turn(store);
        if (status != STORE_OK)
            return status;
        store->log_is_sound = code == SQLITE_OK;
        if (code == SQLITE_BUSY && clock_monotonic_us() >= deadline_us)
            return store_refuse(&store->base,
                                "emptying the write-ahead log of %s failed: for %d s others were using it; a "
                                "long audit (`verify`) or another program that reads the file must end first",
                                store->path, EMPTYING_WAIT_MS / 1000);
        if (code == SQLITE_BUSY) {
            want_log(store, true);
            sleep_us(EMPTYING_PAUSE_MS * 1000);
        }
    }
    return STORE_OK;
}

static enum store_status make_log_sound(struct store *base)
{
    struct sqlite_store *store = sqlite_of(base);
    if (store->log_is_sound)
        return STORE_OK;
    enum store_status status = empty_log(store);
    want_log(store, false);
    return status;
}

/* --- transactions --- */
int sqlite_run(sqlite3_stmt *statement)
{
    int code = sqlite3_step(statement);
    sqlite3_reset(statement);
    return code;
}

static void roll_back(struct sqlite_store *store)
{
    for (size_t i = 0; i < SQL_STATEMENTS; i++)
        sqlite3_reset(store->statements[i]);
    if (!sqlite3_get_autocommit(store->db)) /* some failures have rolled back already */
        sqlite_run(store->own[OWN_ROLLBACK]);
    CHECK(sqlite3_get_autocommit(store->db));
}

static enum store_status write_begin(struct store *base, const char *doing)
{
    struct sqlite_store *store = sqlite_of(base);
    CHECK(store->owner_pid == (long)getpid());
    enum store_status status = take_turn(store);
    if (status != STORE_OK)
        return status;
    if (sqlite_run(store->own[OWN_BEGIN_WRITE]) == SQLITE_DONE)
        return STORE_OK;
    status = sqlite_fail(store, doing);
    roll_back(store);
    give_turn(store);
    return status;
}

static enum store_status write_end(struct store *base, enum store_status status, const char *doing)
{
    struct sqlite_store *store = sqlite_of(base);
    if (status == STORE_OK && sqlite_run(store->own[OWN_COMMIT]) != SQLITE_DONE)
        status = sqlite_fail(store, doing);
    if (status == STORE_FAILED)
        store->log_is_sound = false;
    if (status == STORE_OK)
        checkpoint_if_due(store);
    else
        roll_back(store);
    give_turn(store);
    return status;
}

static enum store_status snapshot_begin(struct store *base)
{
    struct sqlite_store *store = sqlite_of(base);
    /* BEGIN alone fixes no moment, the first read does. */
    sqlite3_stmt *first_read = store->statements[SQL_POSITION];
    enum store_status status = STORE_OK;
    if (sqlite_run(store->own[OWN_BEGIN_READ]) != SQLITE_DONE || sqlite_run(first_read) != SQLITE_ROW) {
        status = sqlite_fail(store, "beginning a snapshot");
        roll_back(store);
    }
    return status;
}

static void snapshot_end(struct store *base)
{
    roll_back(sqlite_of(base)); /* only reads: nothing to keep */
}

/* Of other programs too, which the rules cannot know of. */
static enum store_status nobody_else_wrote(struct store *base, bool *so)
{
    struct sqlite_store *store = sqlite_of(base);
    sqlite3_stmt *row = store->own[OWN_DATA_VERSION];
    bool is_read = sqlite3_step(row) == SQLITE_ROW;
    int64_t version = is_read ? sqlite3_column_int64(row, 0) : 0;
    sqlite3_reset(row);
    *so = is_read && version == store->data_version;
    store->data_version = version;
    return is_read ? STORE_OK : sqlite_fail(store, "looking for what others wrote");
}

/* --- the rules' statements: a few instructions each, as there are many for each order --- */
static sqlite3_stmt *statement_of(struct store *store, enum sql_statement statement)
{
    return ((struct sqlite_store *)store)->statements[statement];
}

static void bind_int(struct store *store, enum sql_statement statement, int index, int64_t value)
{
    sqlite3_bind_int64(statement_of(store, statement), index, value);
}

static void bind_text(struct store *store, enum sql_statement statement, int index, const char *text,
                      size_t bytes)
{
    sqlite3_bind_text(statement_of(store, statement), index, text, (int)bytes, SQLITE_STATIC);
}

static void bind_blob(struct store *store, enum sql_statement statement, int index, const void *data,
                      size_t bytes)
{
    sqlite3_bind_blob(statement_of(store, statement), index, data, (int)bytes, SQLITE_STATIC);
}

static enum sql_result result_of(int code)
{
    return code == SQLITE_ROW ? SQL_ROW : code == SQLITE_DONE ? SQL_DONE : SQL_FAILED;
}

static enum sql_result step(struct store *store, enum sql_statement statement)
{
    return result_of(sqlite3_step(statement_of(store, statement)));
}

static void reset(struct store *store, enum sql_statement statement)
{
    sqlite3_reset(statement_of(store, statement));
}

static enum sql_result run_now(struct store *store, enum sql_statement statement)
{
    return result_of(sqlite_run(statement_of(store, statement)));
}

static int64_t changes(struct store *store)
{
    return sqlite3_changes(sqlite_of(store)->db);
}

static int64_t int_at(struct store *store, enum sql_statement statement, int column)
{
    return sqlite3_column_int64(statement_of(store, statement), column);
}

static bool is_null_at(struct store *store, enum sql_statement statement, int column)
{
    return sqlite3_column_type(statement_of(store, statement), column) == SQLITE_NULL;
}

static const char *text_at(struct store *store, enum sql_statement statement, int column, size_t *bytes)
{
    sqlite3_stmt *row = statement_of(store, statement);
    const char *text = (const char *)sqlite3_column_text(row, column);
    *bytes = (size_t)sqlite3_column_bytes(row, column);
    return text;
}

static const void *blob_at(struct store *store, enum sql_statement statement, int column, size_t *bytes)
{
    sqlite3_stmt *row = statement_of(store, statement);
    const void *blob = sqlite3_column_blob(row, column);
    *bytes = (size_t)sqlite3_column_bytes(row, column);
    return blob;
}

static const struct sql_calls calls = {
    .write_begin = write_begin,
    .write_end = write_end,
    .snapshot_begin = snapshot_begin,
    .snapshot_end = snapshot_end,
    .make_sound = make_log_sound,
    .nobody_else_wrote = nobody_else_wrote,
    .bind_int = bind_int,
    .bind_text = bind_text,
    .bind_blob = bind_blob,
    .step = step,
    .reset = reset,
    .changes = changes,
    .run_later = run_now,
    .int_at = int_at,
    .is_null_at = is_null_at,
    .text_at = text_at,
    .blob_at = blob_at,
    .where = where,
    .fail = fail,
};

/* --- the URL --- */
/* sqlite:PATH or sqlite:///PATH. A relative path gets "./" in front, so that SQLite cannot take it for
 * ":memory:" or "file:…". */
static bool url_to_path(const char *url, char path[PATH_MAX], char *error, size_t error_bytes)
{
    const char *name = url + strlen(SCHEME);
    if (strncmp(name, "//", 2) == 0)
        name += 2;
    bool bad_host = name != url + strlen(SCHEME) && name[0] != '/';
    if (bad_host || name[0] == '\0' || name[strlen(name) - 1] == '/') {
        snprintf(error, error_bytes,
                 "\"%.200s\" names no file; it may be sqlite:PATH or sqlite:///ABSOLUTE/PATH", url);
        return false;
    }
    /* SQLite and we add suffixes of up to this many bytes. */
    int bytes = snprintf(path, PATH_MAX - 16, "%s%s", name[0] == '/' ? "" : "./", name);
    if (bytes >= PATH_MAX - 16) {
        snprintf(error, error_bytes, "the store's path is longer than %d bytes", PATH_MAX - 16);
        return false;
    }
    return true;
}

static bool url_is_valid(const char *url, char *error, size_t error_bytes)
{
    char path[PATH_MAX];
    return url_to_path(url, path, error, error_bytes);
}

/* --- opening --- */
static bool execute(struct sqlite_store *store, const char *sql)
{
    return sqlite3_exec(store->db, sql, NULL, NULL, NULL) == SQLITE_OK;
}

static bool read_integer(struct sqlite_store *store, const char *sql, int64_t *out)
{
    sqlite3_stmt *statement;
    if (sqlite3_prepare_v2(store->db, sql, -1, &statement, NULL) != SQLITE_OK)
        return false;
    bool found = sqlite3_step(statement) == SQLITE_ROW;
    *out = found ? sqlite3_column_int64(statement, 0) : 0;
    sqlite3_finalize(statement);
    return found;
}

/* Only the owner may read accounts. SQLite gives -wal and -shm the mode of the file. The descriptor is closed
 * before anyone can hold a lock through the file: closing it later would drop this process's POSIX locks on
 * it. */
static enum store_status create_private_file(struct sqlite_store *store)
{
    int fd = open(store->path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0 && errno != EEXIST)
        return store_refuse(
            &store->base,
            "creating %s failed: %s; its folder must exist, have room and be writable for this user",
            store->path, strerror(errno));
    if (fd >= 0)
        close(fd);
    return STORE_OK;
}

static enum store_status open_lock_file(struct sqlite_store *store)
{
    char path[PATH_MAX + sizeof LOCK_SUFFIX];
    snprintf(path, sizeof path, "%s" LOCK_SUFFIX, store->path);
    store->lock_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (store->lock_fd < 0)
        return store_refuse(
            &store->base,
            "opening %s failed: %s; its folder must exist, have room and be writable for this user", path,
            strerror(errno));
    return take_turn(store);
}

/* Is it ours, and which version? A new, empty file is version 0. */
static enum store_status identify(struct sqlite_store *store, int64_t *version)
{
    int64_t application, tables;
    if (!read_integer(store, "PRAGMA application_id", &application) ||
        !read_integer(store, "PRAGMA user_version", version) ||
        !read_integer(store, "SELECT count(*) FROM sqlite_schema", &tables))
        return sqlite_fail(store, "opening the database");
    bool is_new = application == 0 && *version == 0 && tables == 0;
    if (!is_new && application != APPLICATION_ID)
        return store_refuse(&store->base, "%s is the database of another program; name another file",
                            store->path);
    if (*version > SCHEMA_VERSION)
        return store_refuse(&store->base,
                            "%s is of version %lld, made by a newer Doorbuster than this one, which knows "
                            "versions up to %lld",
                            store->path, (long long)*version, (long long)SCHEMA_VERSION);
    return STORE_OK;
}

static enum store_status migrate_one(struct sqlite_store *store, int64_t version)
{
    static const char upgrading[] = "upgrading the schema";
    char sql[96];
    snprintf(sql, sizeof sql, "PRAGMA application_id = %d; PRAGMA user_version = %lld; COMMIT",
             APPLICATION_ID, (long long)version + 1);
    if (!execute(store, "BEGIN IMMEDIATE") || !execute(store, migrations[version].sql))
        return sqlite_fail(store, upgrading);
    enum store_status status = migrations[version].then == NULL ? STORE_OK : migrations[version].then(store);
    return status == STORE_OK && !execute(store, sql) ? sqlite_fail(store, upgrading) : status;
}

static enum store_status migrate(struct sqlite_store *store, int64_t version)
{
    enum store_status status = STORE_OK;
    for (; version < SCHEMA_VERSION && status == STORE_OK; version++)
        status = migrate_one(store, version);
    if (status != STORE_OK && !sqlite3_get_autocommit(store->db))
        execute(store, "ROLLBACK");
    return status;
}

static bool prepare(struct sqlite_store *store, const char *sql, sqlite3_stmt **statement)
{
    return sqlite3_prepare_v3(store->db, sql, -1, SQLITE_PREPARE_PERSISTENT, statement, NULL) == SQLITE_OK;
}

static enum store_status prepare_statements(struct sqlite_store *store)
{
    static const char *const own[OWN_STATEMENTS] = {
        [OWN_BEGIN_WRITE] = "BEGIN IMMEDIATE",
        [OWN_BEGIN_READ] = "BEGIN",
        [OWN_COMMIT] = "COMMIT",
        [OWN_ROLLBACK] = "ROLLBACK",
        [OWN_DATA_VERSION] = "PRAGMA data_version",
    };
    bool prepared = true;
    for (size_t i = 0; i < OWN_STATEMENTS && prepared; i++)
        prepared = prepare(store, own[i], &store->own[i]);
    for (size_t i = 0; i < SQL_STATEMENTS && prepared; i++)
        prepared = prepare(store, sql_statements[i], &store->statements[i]);
    return prepared ? STORE_OK : sqlite_fail(store, "reading the schema");
}

/* One statement may take long: a rebuild adds up all that the buyers of limited products have, over all orders, before its first row. */
static int still_at_work_cb(void *context)
{
    (void)context;
    store_tell_waiting();
    return 0; /* go on */
}

static enum store_status open_handle(struct sqlite_store *store, int flags)
{
    /* NOMUTEX: one thread at a time is the caller's promise. */
    int code = sqlite3_open_v2(store->path, &store->db,
                               flags | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_PRIVATECACHE, faulty_vfs_name());
    if (store->db == NULL)
        return store_refuse(&store->base, "opening %s failed: out of memory", store->path);
    if (code != SQLITE_OK)
        return sqlite_fail(store, "opening the database");
    sqlite3_extended_result_codes(store->db, 1);
    sqlite3_busy_timeout(store->db, BUSY_TIMEOUT_MS);
    sqlite3_progress_handler(store->db, STEPS_A_SIGN, still_at_work_cb, NULL);
    sqlite3_db_config(store->db, SQLITE_DBCONFIG_DEFENSIVE, 1, NULL);
    sqlite3_db_config(store->db, SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0, NULL);
    return STORE_OK;
}

static enum store_status open_writer_in_turn(struct sqlite_store *store)
{
    int64_t version;
    enum store_status status = create_private_file(store);
    if (status == STORE_OK)
        status = open_handle(store, SQLITE_OPEN_READWRITE);
    if (status == STORE_OK)
        status = identify(store, &version);
    if (status != STORE_OK)
        return status;
    char sql[160];
    snprintf(sql, sizeof sql,
             "PRAGMA synchronous = FULL; PRAGMA cache_size = -%d; PRAGMA journal_size_limit = %d",
             WRITER_CACHE_KIB, WAL_BYTES_KEPT);
    if (!execute(store, "PRAGMA journal_mode = WAL") || !execute(store, sql))
        return sqlite_fail(store, "setting up the database");
    sqlite3_wal_hook(store->db, wal_grown_cb, store);
    store->checkpoint_pages = CHECKPOINT_PAGES;
    status = migrate(store, version);
    return status == STORE_OK ? prepare_statements(store) : status;
}

static enum store_status open_writer(struct sqlite_store *store)
{
    enum store_status status = open_lock_file(store);
    if (status != STORE_OK)
        return status;
    status = open_writer_in_turn(store);
    give_turn(store);
    return status;
}

static enum store_status open_reader(struct sqlite_store *store)
{
    int64_t version;
    if (access(store->path, F_OK) != 0)
        return store_refuse(&store->base,
                            "there is no store at %s: %s; the server makes it at its first start",
                            store->path, strerror(errno));
    enum store_status status = open_handle(store, SQLITE_OPEN_READONLY);
    if (status == STORE_OK)
        status = identify(store, &version);
    if (status != STORE_OK)
        return status;
    if (version < SCHEMA_VERSION)
        return store_refuse(&store->base,
                            "%s has not been set up by this version yet; start the server on it once",
                            store->path);
    sqlite3_db_config(store->db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, NULL);
    return prepare_statements(store);
}

static void close_store(struct store *base)
{
    struct sqlite_store *store = sqlite_of(base);
    /* Closing the last connection checkpoints, so it needs a turn; without one, leave the write-ahead log for
     * the next open. */
    bool has_turn = store->lock_fd >= 0 && take_turn(store) == STORE_OK;
    if (!has_turn && store->db != NULL)
        sqlite3_db_config(store->db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, NULL);
    for (size_t i = 0; i < SQL_STATEMENTS; i++)
        sqlite3_finalize(store->statements[i]);
    for (size_t i = 0; i < OWN_STATEMENTS; i++)
        sqlite3_finalize(store->own[i]);
    CHECK(sqlite3_close(store->db) == SQLITE_OK);
    if (store->lock_fd >= 0)
        close(store->lock_fd); /* gives the turn up too */
    store_free_kept(base);
    free(store);
}

static enum store_status open_store(struct store **out, const char *url, enum store_mode mode, char *error,
                                    size_t error_bytes)
{
    CHECK(sodium_init() >= 0); /* the audit log's hashes: chooses the fastest code for them */
    struct sqlite_store *store = calloc(1, sizeof *store);
    if (store == NULL) {
        snprintf(error, error_bytes, "opening the store failed: out of memory");
        return STORE_FAILED;
    }
    store->base.driver = &sqlite_driver;
    store->base.sql = &calls;
    store->base.mode = mode;
    store->lock_fd = -1;
    store->owner_pid = (long)getpid();
    if (!url_to_path(url, store->path, error, error_bytes)) {
        close_store(&store->base);
        return STORE_FAILED;
    }
    enum store_status status = mode == STORE_WRITER ? open_writer(store) : open_reader(store);
    if (status != STORE_OK) {
        snprintf(error, error_bytes, "%s", store->base.error);
        close_store(&store->base);
        return status;
    }
    *out = &store->base;
    return STORE_OK;
}

const struct store_driver sqlite_driver = {
    .scheme = SCHEME,
    .url_is_valid = url_is_valid,
    .path = url_to_path,
    .back_up = sqlite_back_up,
    .pack = sqlite_pack,
    .open = open_store,
    .close = close_store,
};
