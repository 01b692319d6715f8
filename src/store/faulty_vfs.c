/* A shim over SQLite's default VFS that fails at the failpoints vfs.write, vfs.full and vfs.sync. Compiled only into the test build.
 *
 * Any thread and process that the driver runs in. Only writes, truncations and syncs of databases and write-ahead logs are looked
 * at; all else goes straight to the real file, which lies in memory right behind ours.
 *
 * A sync that fails is a disk that lost what was not synced: the old bytes are put back. So each file keeps the bytes that were
 * overwritten since its last sync. They belong to one turn at writing: when SQLite takes the lock for the next one, what an earlier
 * turn wrote and never synced counts as having reached the disk, because another process may have written over it since. A
 * truncation reaches the disk at once.
 *
 * Owns the old bytes, at most UNDO_BYTES_MAX a file; what is written beyond that cannot be lost (it is logged). */
#include "faulty_vfs.h"

#include "doorbuster/check.h"
#include "doorbuster/failpoint.h"
#include "doorbuster/log.h"

#include <pthread.h>
#include <sqlite3.h>
#include <stdlib.h>
#include <string.h>

#define NAME "faulty"
#define UNDO_BYTES_MAX (128 * 1024 * 1024)
/* The two of SQLite's locks in shared memory that say who writes (wal.c). */
#define WAL_WRITE_LOCK 0
#define WAL_CHECKPOINT_LOCK 1

struct overwritten {
    struct overwritten *before;
    sqlite3_int64 at;
    int bytes;
    unsigned char old[];
};

struct faulty_file {
    sqlite3_file base;
    struct faulty_file *partner; /* a database's log and a log's database, if both are open */
    struct overwritten *last;    /* since the last sync; NULL: nothing was written */
    sqlite3_int64 synced_bytes;  /* the file's size before the first of them */
    size_t undo_bytes;
    _Alignas(8) unsigned char real[];
};

static sqlite3_vfs *real_vfs;

static struct faulty_file *faulty(sqlite3_file *file)
{
    return (struct faulty_file *)file;
}

static sqlite3_file *real(sqlite3_file *file)
{
    return (sqlite3_file *)(void *)faulty(file)->real;
}

/* --- what was not synced --- */
static void forget(struct faulty_file *file)
{
    while (file->last != NULL) {
        struct overwritten *gone = file->last;
        file->last = gone->before;
        free(gone);
    }
    file->undo_bytes = 0;
}

static sqlite3_int64 size_of(struct faulty_file *file)
{
    sqlite3_int64 bytes;
    CHECK(real(&file->base)->pMethods->xFileSize(real(&file->base), &bytes) == SQLITE_OK);
    return bytes;
}

static void remember(struct faulty_file *file, int bytes, sqlite3_int64 at)
{
    sqlite3_file *disk = real(&file->base);
    sqlite3_int64 size = size_of(file), there = size - at;
    int old_bytes = there <= 0 ? 0 : there < bytes ? (int)there : bytes;
    if (file->last == NULL)
        file->synced_bytes = size;
    if (file->undo_bytes + (size_t)old_bytes > UNDO_BYTES_MAX) {
        log_warn("faulty disk: too much was written without a sync to lose it all");
        forget(file);
        file->synced_bytes = size;
    }
    struct overwritten *note = malloc(sizeof *note + (size_t)old_bytes);
    CHECK(note != NULL);
    *note = (struct overwritten){.before = file->last, .at = at, .bytes = old_bytes};
    CHECK(old_bytes == 0 || disk->pMethods->xRead(disk, note->old, old_bytes, at) == SQLITE_OK);
    file->last = note;
    file->undo_bytes += sizeof *note + (size_t)old_bytes;
}

static void lose(struct faulty_file *file)
{
    sqlite3_file *disk = real(&file->base);
    for (struct overwritten *note = file->last; note != NULL; note = note->before)
        CHECK(note->bytes == 0 ||
              disk->pMethods->xWrite(disk, note->old, note->bytes, note->at) == SQLITE_OK);
    if (file->last != NULL && size_of(file) > file->synced_bytes)
        CHECK(disk->pMethods->xTruncate(disk, file->synced_bytes) == SQLITE_OK);
    forget(file);
}

/* --- what fails --- */
static int faulty_write(sqlite3_file *file, const void *data, int bytes, sqlite3_int64 at)
{
    if (failpoint("vfs.write"))
        return SQLITE_IOERR_WRITE;
    remember(faulty(file), bytes, at);
    if (failpoint("vfs.full")) {
        (void)real(file)->pMethods->xWrite(real(file), data, bytes / 2, at);
        return SQLITE_FULL;
    }
    return real(file)->pMethods->xWrite(real(file), data, bytes, at);
}

static int faulty_sync(sqlite3_file *file, int flags)
{
    if (failpoint("vfs.sync")) {
        lose(faulty(file));
        return SQLITE_IOERR_FSYNC;
    }
    int code = real(file)->pMethods->xSync(real(file), flags);
    if (code == SQLITE_OK)
        forget(faulty(file));
    return code;
}

static int faulty_truncate(sqlite3_file *file, sqlite3_int64 size)
{
    for (struct overwritten *note = faulty(file)->last; note != NULL; note = note->before) {
        if (note->at + note->bytes > size)
            note->bytes = note->at < size ? (int)(size - note->at) : 0;
    }
    if (faulty(file)->synced_bytes > size)
        faulty(file)->synced_bytes = size;
    return real(file)->pMethods->xTruncate(real(file), size);
}

/* Called on the database, for its log too. */
static int faulty_shm_lock(sqlite3_file *file, int first, int count, int flags)
{
    int code = real(file)->pMethods->xShmLock(real(file), first, count, flags);
    if (code != SQLITE_OK || flags != (SQLITE_SHM_LOCK | SQLITE_SHM_EXCLUSIVE))
        return code;
    if (first == WAL_WRITE_LOCK && faulty(file)->partner != NULL)
        forget(faulty(file)->partner);
    if (first <= WAL_CHECKPOINT_LOCK && first + count > WAL_CHECKPOINT_LOCK)
        forget(faulty(file));
    return code;
}

static int faulty_close(sqlite3_file *file)
{
    forget(faulty(file));
    if (faulty(file)->partner != NULL)
        faulty(file)->partner->partner = NULL;
    return real(file)->pMethods->xClose(real(file));
}

/* --- what goes straight through --- */
#define PASS(method, parameters, ...)                                                                        \
    static int pass_##method parameters                                                                      \
    {                                                                                                        \
        return real(file)->pMethods->method(real(file), __VA_ARGS__);                                        \
    }
#define PASS_ALONE(method)                                                                                   \
    static int pass_##method(sqlite3_file *file)                                                             \
    {                                                                                                        \
        return real(file)->pMethods->method(real(file));                                                     \
    }
PASS(xRead, (sqlite3_file * file, void *out, int bytes, sqlite3_int64 at), out, bytes, at)
PASS(xFileSize, (sqlite3_file * file, sqlite3_int64 *size), size)
PASS(xLock, (sqlite3_file * file, int level), level)
PASS(xUnlock, (sqlite3_file * file, int level), level)
PASS(xCheckReservedLock, (sqlite3_file * file, int *out), out)
PASS(xFileControl, (sqlite3_file * file, int operation, void *argument), operation, argument)
PASS_ALONE(xSectorSize)
PASS_ALONE(xDeviceCharacteristics)
PASS(xShmMap, (sqlite3_file * file, int page, int bytes, int extend, void volatile **out), page, bytes,
     extend, out)
PASS(xShmUnmap, (sqlite3_file * file, int remove_it), remove_it)
PASS(xFetch, (sqlite3_file * file, sqlite3_int64 at, int bytes, void **out), at, bytes, out)
PASS(xUnfetch, (sqlite3_file * file, sqlite3_int64 at, void *page), at, page)

static void pass_xShmBarrier(sqlite3_file *file)
{
    real(file)->pMethods->xShmBarrier(real(file));
}

static const sqlite3_io_methods methods = {
    .iVersion = 3,
    .xClose = faulty_close,
    .xRead = pass_xRead,
    .xWrite = faulty_write,
    .xTruncate = faulty_truncate,
    .xSync = faulty_sync,
    .xFileSize = pass_xFileSize,
    .xLock = pass_xLock,
    .xUnlock = pass_xUnlock,
    .xCheckReservedLock = pass_xCheckReservedLock,
    .xFileControl = pass_xFileControl,
    .xSectorSize = pass_xSectorSize,
    .xDeviceCharacteristics = pass_xDeviceCharacteristics,
    .xShmMap = pass_xShmMap,
    .xShmLock = faulty_shm_lock,
    .xShmBarrier = pass_xShmBarrier,
    .xShmUnmap = pass_xShmUnmap,
    .xFetch = pass_xFetch,
    .xUnfetch = pass_xUnfetch,
};

/* --- opening --- */
static void join_with_database(struct faulty_file *log, const char *name)
{
    log->partner = faulty(sqlite3_database_file_object(name));
    log->partner->partner = log;
}

static int faulty_open(sqlite3_vfs *vfs, const char *name, sqlite3_file *file, int flags, int *out_flags)
{
    (void)vfs;
    if ((flags & (SQLITE_OPEN_MAIN_DB | SQLITE_OPEN_WAL)) == 0)
        return real_vfs->xOpen(real_vfs, name, file, flags, out_flags);
    memset(file, 0, sizeof *faulty(file));
    int code = real_vfs->xOpen(real_vfs, name, real(file), flags, out_flags);
    if (real(file)->pMethods == NULL)
        return code; /* not open, so ours is not either */
    CHECK(real(file)->pMethods->iVersion == 3);
    file->pMethods = &methods;
    if (code == SQLITE_OK && (flags & SQLITE_OPEN_WAL) != 0)
        join_with_database(faulty(file), name);
    return code;
}

static void register_once(void)
{
    static sqlite3_vfs vfs;
    real_vfs = sqlite3_vfs_find(NULL);
    CHECK(real_vfs != NULL);
    vfs = *real_vfs; /* names, times, randomness: as they are */
    vfs.pNext = NULL;
    vfs.zName = NAME;
    vfs.szOsFile += (int)sizeof(struct faulty_file);
    vfs.xOpen = faulty_open;
    CHECK(sqlite3_vfs_register(&vfs, 0) == SQLITE_OK);
}

const char *faulty_vfs_name(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    CHECK(pthread_once(&once, register_once) == 0);
    return NAME;
}
