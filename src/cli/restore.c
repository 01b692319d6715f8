/* `setup --restore PATH`: a backup becomes the store of a stopped server. One thread, blocking. Owns the data folder's lock, so that no server
 * starts meanwhile.
 *
 *   copy to STORE.restoring, brought up to this version, checked, told that it is a restored one -> the old secret key is put aside -> the old store is
 *   put aside -> rename to STORE -> fsync of the folder
 *
 * Killed at any point before the rename, the old store is in its place (if it is damaged: its -wal may be aside), and the same command again does it. Nothing
 * is deleted.
 *
 * All sessions end, with the secret key: a token names an account by its id, and the accounts that were made after the backup are gone. (Their
 * ids are not given again either, see store_begin_anew(); but who lost his account must not go on buying with it.) */
#include "cli.h"

#include "doorbuster/process.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#define RESTORING ".restoring"
#define BUFFER_BYTES (1 << 20)
#define PATH_ROOM (PATH_MAX + NAME_MAX + 2)

struct restore {
    const char *data_dir;
    char from[PATH_ROOM];
    char to[STORE_PATH_BYTES], half[PATH_ROOM];
    char stamp[CLI_STAMP_BYTES];
    struct store_position position;
    int lock_fd;
};

static bool complain(const char *what, const char *why)
{
    fprintf(stderr, "doorbuster-setup: restore: %s: %s\n", what, why);
    return false;
}

/* --- what and where ---------------------------------------------------------------------------------------------------------------------- */
static int is_backup_entry(const struct dirent *entry)
{
    return cli_is_backup(entry->d_name);
}

/* The newest of a folder, or the file itself. */
static bool find_backup(struct restore *restore, const char *path)
{
    struct stat status;
    struct dirent **names = NULL;
    if (stat(path, &status) != 0) {
        return complain(path, strerror(errno));
    }
    if (!S_ISDIR(status.st_mode)) {
        snprintf(restore->from, sizeof restore->from, "%s", path);
        return true;
    }
    int count = scandir(path, &names, is_backup_entry, alphasort);
    if (count > 0) {
        snprintf(restore->from, sizeof restore->from, "%.*s/%s", PATH_MAX - 1, path,
                 names[count - 1]->d_name);
    }
    for (int i = 0; i < count; i++) {
        free(names[i]);
    }
    free(names);
    return count > 0 ||
           complain(path, "there is no backup in this folder (" CLI_BACKUP_PREFIX "*" CLI_BACKUP_SUFFIX ")");
}

/* Every process of a server holds it, also those that a dead supervisor has left. */
static bool lock(struct restore *restore)
{
    char path[PATH_ROOM];
    snprintf(path, sizeof path, "%s/" PROCESS_DATA_LOCK, restore->data_dir);
    restore->lock_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (restore->lock_fd < 0) {
        return complain(path, strerror(errno));
    }
    return flock(restore->lock_fd, LOCK_EX | LOCK_NB) == 0 ||
           complain(restore->data_dir, "a server uses this data folder; stop it first");
}

static bool exists(const char *path)
{
    return access(path, F_OK) == 0;
}

/* --- the copy ---------------------------------------------------------------------------------------------------------------------------- */
static bool copy_bytes(int from, int to)
{
    static char buffer[BUFFER_BYTES];
    ssize_t got;
    while ((got = read(from, buffer, sizeof buffer)) > 0) {
        for (ssize_t put = 0, wrote; put < got; put += wrote) {
            wrote = write(to, buffer + put, (size_t)(got - put));
            if (wrote <= 0) {
                return false;
            }
        }
    }
    return got == 0 && fsync(to) == 0;
}

static void remove_half(const struct restore *restore)
{
    static const char *const suffixes[] = {"", "-wal", "-shm", "-journal", ".lock"};
    char path[PATH_ROOM + 16];
    for (size_t i = 0; i < sizeof suffixes / sizeof suffixes[0]; i++) {
        snprintf(path, sizeof path, "%s%s", restore->half, suffixes[i]);
        unlink(path);
    }
}

static bool copy_backup(const struct restore *restore)
{
    struct stat folder;   /* its owner is the server's: we may be root */
    remove_half(restore); /* of a restore that was killed */
    int from = open(restore->from, O_RDONLY | O_CLOEXEC);
    if (from < 0) {
        return complain(restore->from, strerror(errno));
    }
    int to = open(restore->half, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    bool ok = (to >= 0 && copy_bytes(from, to)) || complain(restore->half, strerror(errno));
    if (ok && stat(restore->data_dir, &folder) == 0 && fchown(to, folder.st_uid, folder.st_gid) != 0) {
        complain(restore->half, "it stays ours; the server's user must be able to write it");
    }
    close(from);
    if (to >= 0) {
        close(to);
    }
    return ok;
}

static bool check_and_mark(struct restore *restore, struct store *store)
{
    struct store_chain_audit chain;
    struct store_orders_audit orders;
    if (store_audit_chain(store, &chain) != STORE_OK || store_audit_orders(store, &orders) != STORE_OK ||
        store_position(store, &restore->position) != STORE_OK || store_begin_anew(store) != STORE_OK) {
        return complain(restore->from, store_error(store));
    }
    if (chain.first_gap | chain.first_forged | chain.first_off | chain.first_backwards) {
        complain("the audit log's chain is broken in this backup", "`verify` will say where");
    }
    return orders.first_gap == 0 || complain(restore->from, "orders are missing in it");
}

/* Opening it as a store brings one of an earlier version up to this one; what SQLite finds damaged is refused. */
static bool prepare(struct restore *restore)
{
    char url[PATH_ROOM + 16], error[512];
    struct store *store;
    snprintf(url, sizeof url, "sqlite:%s", restore->half);
    if (store_open(&store, url, STORE_WRITER, error, sizeof error) != STORE_OK) {
        return complain(restore->from, error);
    }
    bool ok = check_and_mark(restore, store);
    store_close(&store);
    if (ok && store_pack(url, error, sizeof error) != STORE_OK) {
        ok = complain(restore->from, error);
    }
    return ok;
}

/* --- putting it in place ----------------------------------------------------------------------------------------------------------------- */
/* "PATH.before-20261127T090000.123Z" */
static bool put_aside(const struct restore *restore, const char *path)
{
    char aside[PATH_ROOM + 64];
    snprintf(aside, sizeof aside, "%s.before-%s", path, restore->stamp);
    if (!exists(path)) {
        return true;
    }
    if (rename(path, aside) != 0) {
        return complain(path, strerror(errno));
    }
    printf("aside     %s\n", aside);
    return true;
}

/* The old store stays in its place until the new one takes it: a link puts it aside. */
static bool link_aside(const struct restore *restore)
{
    char aside[PATH_ROOM + 64];
    snprintf(aside, sizeof aside, "%s.before-%s", restore->to, restore->stamp);
    if (link(restore->to, aside) != 0) {
        return complain(aside, strerror(errno));
    }
    printf("aside     %s\n", aside);
    return true;
}

/* Its write-ahead log must not be left beside the new one. One that is too damaged to be put into its file is put aside as it is. */
static bool put_store_aside(const struct restore *restore, const char *url)
{
    char error[512], wal[PATH_ROOM], shm[PATH_ROOM];
    if (!exists(restore->to)) {
        return true;
    }
    switch (store_pack(url, error, sizeof error)) {
    case STORE_OK:
        return link_aside(restore);
    case STORE_FENCED:
        return complain(restore->to, "somebody has it open; stop the server, or whatever reads it");
    default:
        fprintf(stderr, "doorbuster-setup: restore: the store that is there is damaged: %s\n", error);
    }
    snprintf(wal, sizeof wal, "%s-wal", restore->to);
    snprintf(shm, sizeof shm, "%s-shm", restore->to);
    return put_aside(restore, wal) && put_aside(restore, shm) && link_aside(restore);
}

static bool end_sessions(const struct restore *restore)
{
    char path[PATH_ROOM];
    snprintf(path, sizeof path, "%s/" PROCESS_SECRET_KEY, restore->data_dir);
    return put_aside(restore, path);
}

static bool sync_folder_of(const char *path)
{
    char folder[PATH_ROOM];
    snprintf(folder, sizeof folder, "%s", path);
    char *slash = strrchr(folder, '/');
    if (slash != NULL) {
        *slash = '\0';
    }
    int fd = open(slash == NULL ? "." : folder[0] == '\0' ? "/" : folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    bool ok = fd >= 0 && fsync(fd) == 0;
    if (fd >= 0) {
        close(fd);
    }
    return ok;
}

static bool put_in_place(const struct restore *restore, const char *url)
{
    if (!end_sessions(restore) || !put_store_aside(restore, url)) {
        return false;
    }
    return (rename(restore->half, restore->to) == 0 && sync_folder_of(restore->to) &&
            sync_folder_of(restore->data_dir)) ||
           complain(restore->to, strerror(errno));
}

static void report(const struct restore *restore)
{
    char position[SALES_LOG_POSITION_BYTES];
    log_position_format(restore->position.recorded, position);
    printf("restored  %s from %s, at log position %s: %" PRId64 " orders\n"
           "sessions  of the restored store have ended: the next start makes a new secret key. If a key is\n"
           "          given in JWT_SECRET_KEY, give another: old tokens name accounts that may be gone\n"
           "next      start the server on this data folder, then verify\n",
           restore->to, restore->from, position, restore->position.last_order_id);
}

static bool run(struct restore *restore, const char *path, const char *url, bool replace)
{
    if (!find_backup(restore, path) || !lock(restore)) {
        return false;
    }
    if (exists(restore->to) && !replace) {
        return complain(restore->to, "there is a store already; --replace puts it aside");
    }
    bool ok = copy_backup(restore) && prepare(restore) && put_in_place(restore, url);
    remove_half(restore); /* of one that failed; of the other what SQLite has left beside it */
    return ok;
}

int restore_run(const struct settings *settings)
{
    static struct restore restore;
    struct cli_place place;
    char error[512];
    restore = (struct restore){.lock_fd = -1};
    if (process_make_private_dir(settings_get(settings, "data"), error, sizeof error) != 0) {
        complain("the data folder", error);
        return 1;
    }
    cli_read_place(settings, &place);
    restore.data_dir = place.data_dir;
    cli_stamp(restore.stamp);
    if (!store_file(place.store_url, restore.to, error, sizeof error)) {
        complain("the store", error); /* not its URL: a password may be in it */
        return 1;
    }
    snprintf(restore.half, sizeof restore.half, "%s" RESTORING, restore.to);
    bool ok = run(&restore, settings_get(settings, "restore"), place.store_url,
                  settings_get(settings, "replace") != NULL);
    if (restore.lock_fd >= 0) {
        close(restore.lock_fd);
    }
    if (ok) {
        report(&restore);
    }
    return ok ? 0 : 1;
}

/* --- a store that its database has restored ------------------------------------------------------------------------------------------------ */
/* Only a store that is there: a URL that was mistyped gets none. */
static bool mark_where_it_is(struct restore *restore, const char *url)
{
    char error[512];
    struct store *store;
    if (store_open(&store, url, STORE_READER, error, sizeof error) != STORE_OK) {
        return complain(restore->from, error);
    }
    store_close(&store);
    if (store_open(&store, url, STORE_WRITER, error, sizeof error) != STORE_OK) {
        return complain(restore->from, error);
    }
    bool ok = check_and_mark(restore, store);
    store_close(&store);
    return ok;
}

int restored_run(const struct settings *settings)
{
    static struct restore restore;
    struct cli_place place;
    char error[512], position[SALES_LOG_POSITION_BYTES];
    restore = (struct restore){.lock_fd = -1, .from = "the store"};
    cli_read_place(settings, &place);
    restore.data_dir = place.data_dir;
    cli_stamp(restore.stamp);
    if (store_file(place.store_url, restore.to, error, sizeof error)) {
        complain("--restored", "this store is a file: --restore PATH puts a backup in its place");
        return 1;
    }
    bool has_folder = place.data_dir[0] != '\0'; /* several servers have one each: their keys are theirs */
    bool ok = (!has_folder || lock(&restore)) && mark_where_it_is(&restore, place.store_url) &&
              (!has_folder || end_sessions(&restore));
    if (restore.lock_fd >= 0) {
        close(restore.lock_fd);
    }
    if (ok) {
        log_position_format(restore.position.recorded, position);
        printf("marked    the store as restored, at log position %s: %" PRId64 " orders\n"
               "sessions  all must end: servers with another data folder, or a key in JWT_SECRET_KEY, need a "
               "new key\n"
               "next      start the servers, then verify\n",
               position, restore.position.last_order_id);
    }
    return ok ? 0 : 1;
}
