/* `setup --backup FOLDER`: a copy of the store while the server sells, checked, under a name that says when. One thread, blocking, at a lower
 * priority than the server. Owns the folder's lock: one backup at a time.
 *
 *   copy to FOLDER/.NAME.partial -> fsync, integrity check -> the audit log's chain -> rename to NAME -> fsync of the folder -> older ones go (--keep)
 *
 * Killed at any point it leaves no half a backup under a final name; the next one removes what is left. */
#include "cli.h"

#include "doorbuster/clock.h"
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
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define PARTIAL_SUFFIX ".partial"
#define LOCK_NAME ".lock"
#define NICE_BY 10
#define KEEP_MAX 1000000

struct backup {
    const char *folder;
    int folder_fd, lock_fd;
    char name[CLI_BACKUP_NAME_BYTES];
    struct store_position position;
    int64_t rows; /* of the audit log */
    bool chain_is_broken;
};

static bool complain(const char *what, const char *why)
{
    fprintf(stderr, "doorbuster-setup: backup: %s: %s\n", what, why);
    return false;
}

bool cli_is_backup(const char *name)
{
    size_t bytes = strlen(name), suffix = strlen(CLI_BACKUP_SUFFIX), prefix = strlen(CLI_BACKUP_PREFIX);
    return bytes > prefix + suffix && strncmp(name, CLI_BACKUP_PREFIX, prefix) == 0 &&
           strcmp(name + bytes - suffix, CLI_BACKUP_SUFFIX) == 0;
}

/* "20261127T090000.123Z": sorts by time. */
void cli_stamp(char out[CLI_STAMP_BYTES])
{
    int64_t now_ms = clock_wall_ms();
    time_t seconds = (time_t)(now_ms / 1000);
    struct tm utc;
    gmtime_r(&seconds, &utc);
    size_t used = strftime(out, CLI_STAMP_BYTES, "%Y%m%dT%H%M%S", &utc);
    snprintf(out + used, CLI_STAMP_BYTES - used, ".%03dZ", (int)(now_ms % 1000));
}

static bool open_folder(struct backup *backup)
{
    char error[512], path[PATH_MAX];
    if (process_make_private_dir(backup->folder, error, sizeof error) != 0) {
        return complain(backup->folder, error);
    }
    backup->folder_fd = open(backup->folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    snprintf(path, sizeof path, "%s/" LOCK_NAME, backup->folder);
    backup->lock_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (backup->folder_fd < 0 || backup->lock_fd < 0) {
        return complain(backup->folder, strerror(errno));
    }
    return flock(backup->lock_fd, LOCK_EX | LOCK_NB) == 0 ||
           complain(backup->folder, "another backup is being made there");
}

/* What a backup that was killed has left: ours is the only one at work. */
static bool is_leftover(const char *name)
{
    return name[0] == '.' && strncmp(name + 1, CLI_BACKUP_PREFIX, strlen(CLI_BACKUP_PREFIX)) == 0;
}

static void remove_leftovers(const struct backup *backup)
{
    struct dirent **names = NULL;
    int count = scandir(backup->folder, &names, NULL, NULL);
    for (int i = 0; i < count; i++) {
        if (is_leftover(names[i]->d_name)) {
            unlinkat(backup->folder_fd, names[i]->d_name, 0);
        }
        free(names[i]);
    }
    free(names);
}

/* As a store of its own: the chain, and that it stands where it says. */
static bool check_copy(struct backup *backup, const char *path)
{
    char url[PATH_MAX + 16], error[512];
    struct store *store;
    struct store_chain_audit chain;
    struct store_position position;
    snprintf(url, sizeof url, "sqlite:%s", path);
    if (store_open(&store, url, STORE_READER, error, sizeof error) != STORE_OK) {
        return complain("checking it", error);
    }
    bool ok =
        (store_audit_chain(store, &chain) == STORE_OK && store_position(store, &position) == STORE_OK) ||
        complain("checking it", store_error(store));
    backup->chain_is_broken =
        (chain.first_gap | chain.first_forged | chain.first_off | chain.first_backwards) != 0;
    if (ok && (log_position_compare(position.recorded, backup->position.recorded) != 0 ||
               position.last_order_id != backup->position.last_order_id)) {
        ok = complain("checking it", "it does not stand where it was made");
    }
    backup->rows = chain.rows;
    store_close(&store);
    return ok;
}

/* The folder has the copy under its final name, and the disk knows it. */
static bool publish(const struct backup *backup, const char *partial)
{
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/%s", backup->folder, backup->name);
    return (rename(partial, path) == 0 && fsync(backup->folder_fd) == 0) ||
           complain(backup->name, strerror(errno));
}

static bool make_backup(struct backup *backup, struct store *store)
{
    char stamp[CLI_STAMP_BYTES], partial[PATH_MAX];
    cli_stamp(stamp);
    snprintf(backup->name, sizeof backup->name, CLI_BACKUP_PREFIX "%s" CLI_BACKUP_SUFFIX, stamp);
    if (snprintf(partial, sizeof partial, "%s/.%s" PARTIAL_SUFFIX, backup->folder, backup->name) >=
        (int)sizeof partial - 16) {
        return complain(backup->folder, "the name is too long");
    }
    if (store_back_up(store, partial, &backup->position) != STORE_OK) {
        return complain("no backup", store_error(store));
    }
    bool ok = check_copy(backup, partial) && publish(backup, partial);
    if (!ok) {
        unlink(partial);
    }
    return ok;
}

static void report(const struct backup *backup)
{
    char position[SALES_LOG_POSITION_BYTES];
    struct stat file;
    log_position_format(backup->position.recorded, position);
    bool known = fstatat(backup->folder_fd, backup->name, &file, 0) == 0;
    printf("backup    %s/%s, %.1f MB, at log position %s: %" PRId64 " orders, %" PRId64
           " rows of the audit log; checked\n",
           backup->folder, backup->name, known ? (double)file.st_size / 1e6 : 0.0, position,
           backup->position.last_order_id, backup->rows);
}

static int is_backup_entry(const struct dirent *entry)
{
    return cli_is_backup(entry->d_name);
}

static void remove_older(const struct backup *backup, int keep)
{
    struct dirent **names = NULL;
    int count = scandir(backup->folder, &names, is_backup_entry, alphasort);
    for (int i = 0; i < count; i++) {
        if (i < count - keep && unlinkat(backup->folder_fd, names[i]->d_name, 0) == 0) {
            printf("removed   %s/%s\n", backup->folder, names[i]->d_name);
        }
        free(names[i]);
    }
    free(names);
}

int backup_run(const struct settings *settings)
{
    struct cli_place place;
    struct store *store = NULL;
    char error[512];
    struct backup backup = {.folder = settings_get(settings, "backup"), .folder_fd = -1, .lock_fd = -1};
    int keep =
        settings_get(settings, "keep") != NULL ? (int)settings_get_integer(settings, "keep", 1, KEEP_MAX) : 0;
    char path[STORE_PATH_BYTES];
    cli_read_place(settings, &place);
    if (!store_file(place.store_url, path, error, sizeof error)) {
        complain("the store", error);
        return 1;
    }
    setpriority(PRIO_PROCESS, 0, NICE_BY);
    bool ok = open_folder(&backup);
    if (ok && store_open(&store, place.store_url, STORE_READER, error, sizeof error) != STORE_OK) {
        ok = complain("opening the store", error);
    }
    if (ok) {
        remove_leftovers(&backup);
        ok = make_backup(&backup, store);
    }
    if (ok) {
        report(&backup);
    }
    if (ok &&
        backup.chain_is_broken) { /* better such a backup than none; but none that was good goes for it */
        ok = complain("the audit log's chain is broken, in the store as in this backup",
                      "`verify` says where");
    }
    if (ok && keep > 0) {
        remove_older(&backup, keep);
    }
    store_close(&store);
    close(backup.lock_fd);
    close(backup.folder_fd);
    return ok ? 0 : 1;
}
