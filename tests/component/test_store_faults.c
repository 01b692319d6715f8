/* The SQLite store on a disk that fails (src/store/faulty_vfs.c), with processes that die at every step, and on the bare machine
 * with a full file system and other programs in the way.
 *
 * Every test records the same kind of run: SALE_ENTRIES entries with RUN_ORDERS orders of one unit of product 1, the last of them a cart with one
 * of product 2, which a further entry cancels; so the number of orders in the store says everything: position, stock, sums, audit log. assert_agrees() holds
 * them all against each other. Processes are forked while this one has nothing open. */
#include "doorbuster/store.h"

#include "failpoints.h"
#include "folder.h"
#include "testing.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define SALE_ENTRIES 2
#define RUN_ENTRIES (SALE_ENTRIES + 1)
#define RUN_ROWS                                                                                             \
    (SALE_ENTRIES + 1 + 2) /* of the audit log: the sales, and both products' of the cancellation */
#define RUN_ORDERS 60
#define STOCK 1000000

static struct failpoint_page *failpoints; /* of every process here */

struct fixture {
    char folder[FOLDER_BYTES], db[FOLDER_BYTES + 16], wal[FOLDER_BYTES + 32], url[FOLDER_BYTES + 32];
    struct store *store; /* a writer, or NULL */
    uint64_t epoch;
};

/* --- fixture --- */
static int set_up(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    assert_non_null(f);
    folder_make(f->folder);
    snprintf(f->db, sizeof f->db, "%s/shop.db", f->folder);
    snprintf(f->wal, sizeof f->wal, "%s-wal", f->db);
    snprintf(f->url, sizeof f->url, "sqlite:%s", f->db);
    failpoints_arm(failpoints, "");
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;
    failpoints_disarm(failpoints);
    store_close(&f->store);
    (void)umount2(f->folder, MNT_DETACH); /* if test_a_full_file_system failed half-way */
    folder_remove(f->folder);
    free(f);
    return 0;
}

static struct store *open_or_die(const struct fixture *f, enum store_mode mode)
{
    struct store *store;
    char error[512] = "";
    if (store_open(&store, f->url, mode, error, sizeof error) != STORE_OK)
        fail_msg("opening %s: %s", f->url, error);
    return store;
}

static struct store_position position_of(struct store *store)
{
    struct store_position position;
    if (store_position(store, &position) != STORE_OK)
        fail_msg("%s", store_error(store));
    return position;
}

static enum store_status raise_epoch(struct fixture *f)
{
    uint64_t from = position_of(f->store).epoch;
    enum store_status status = store_raise_epoch(f->store, from, from + 1);
    f->epoch = status == STORE_OK ? from + 1 : from;
    return status;
}

/* As the recorder does after a failure; also opens the store. */
static void attach(struct fixture *f)
{
    if (f->store == NULL)
        f->store = open_or_die(f, STORE_WRITER);
    if (raise_epoch(f) != STORE_OK)
        fail_msg("%s", store_error(f->store));
}

/* One run, from wherever the store is. */
static enum store_status record(struct fixture *f)
{
    struct sale_order orders[RUN_ORDERS];
    struct log_entry entries[RUN_ENTRIES];
    struct order_part chair = {.product_id = 2, .quantity = 1, .unit_price = 500};
    int64_t rejected[RUN_ORDERS];
    size_t rejected_count;
    struct store_position position = position_of(f->store);
    for (int i = 0; i < RUN_ORDERS; i++) {
        int64_t id = position.last_order_id + 1 + i;
        orders[i] = (struct sale_order){.id = id,
                                        .request = 7000 + id,
                                        .user_id = 1,
                                        .product_id = 1,
                                        .quantity = 1,
                                        .unit_price = 500,
                                        .remaining = STOCK - id};
    }
    orders[RUN_ORDERS - 1].more = &chair;
    orders[RUN_ORDERS - 1].more_count = 1;
    for (size_t i = 0; i < SALE_ENTRIES; i++)
        entries[i] = (struct log_entry){.position = {1, position.recorded.n + 1 + i},
                                        .kind = LOG_ENTRY_SALE,
                                        .at_ms = 1000 + (int64_t)position.recorded.n,
                                        .orders = orders + i * RUN_ORDERS / SALE_ENTRIES,
                                        .order_count = RUN_ORDERS / SALE_ENTRIES};
    entries[SALE_ENTRIES] =
        (struct log_entry){.position = {1, position.recorded.n + RUN_ENTRIES},
                           .kind = LOG_ENTRY_CANCEL,
                           .at_ms = 1000 + (int64_t)position.recorded.n,
                           .cancel = {.order_id = orders[RUN_ORDERS - 1].id, .user_id = 1, .actor = 1}};
    return store_record(f->store, f->epoch, position.recorded, entries, RUN_ENTRIES, rejected, RUN_ORDERS,
                        &rejected_count);
}

static void record_or_die(struct fixture *f)
{
    if (record(f) != STORE_OK)
        fail_msg("recording: %s", store_error(f->store));
}

/* One user, two products, on sale. */
static void open_shop(struct fixture *f)
{
    struct store_user user = {.username = "ada", .password_hash = "hash"};
    struct store_product products[2] = {{.name = "Lamp", .price = 500, .planned_stock = STOCK},
                                        {.name = "Chair", .price = 500, .planned_stock = STOCK}};
    struct log_entry openings[2];
    size_t rejected_count;
    attach(f);
    assert_int_equal(store_add_user(f->store, &user), STORE_OK);
    for (size_t i = 0; i < 2; i++) {
        assert_int_equal(store_add_product(f->store, &products[i]), STORE_OK);
        openings[i] =
            (struct log_entry){.position = {1, 1 + i},
                               .kind = LOG_ENTRY_STOCK,
                               .at_ms = 1000,
                               .stock = {.product_id = products[i].id, .delta = STOCK, .remaining = STOCK}};
    }
    assert_int_equal(
        store_record(f->store, f->epoch, (struct log_position){0, 0}, openings, 2, NULL, 0, &rejected_count),
        STORE_OK);
}

static void assert_product_agrees(struct store *store, int64_t id, int64_t sold, int64_t cancelled)
{
    struct store_product_audit sums;
    struct store_product product;
    assert_int_equal(store_audit_product(store, id, &sums), STORE_OK);
    assert_int_equal(store_find_product(store, id, &product), STORE_OK);
    assert_int_equal(sums.order_units, sold);
    assert_int_equal(sums.cancelled_units, cancelled);
    assert_int_equal(sums.opening_units, STOCK);
    assert_int_equal(sums.logged_stock, STOCK - sold + cancelled);
    assert_int_equal(product.sold, sold);
    assert_int_equal(product.cancelled, cancelled);
    assert_int_equal(product.stock, STOCK - sold + cancelled);
}

/* Everything a fresh reader sees fits together; the number of orders. */
static int64_t assert_agrees(const struct fixture *f)
{
    struct store *store = open_or_die(f, STORE_READER);
    struct store_orders_audit orders;
    struct store_chain_audit chain;
    assert_int_equal(store_audit_orders(store, &orders), STORE_OK);
    assert_int_equal(store_audit_chain(store, &chain), STORE_OK);
    struct store_position position = position_of(store);
    struct store_orders_audit sound = {
        .count = orders.count, .first_id = orders.count > 0, .last_id = orders.count};
    assert_memory_equal(&orders, &sound, sizeof orders); /* no gaps, in order, nothing beyond the position */
    assert_int_equal(orders.count % RUN_ORDERS, 0);      /* whole runs */
    int64_t runs = orders.count / RUN_ORDERS;
    assert_int_equal(position.recorded.n, 2 + runs * RUN_ENTRIES);
    assert_int_equal(position.last_order_id, orders.count);
    assert_product_agrees(store, 1, orders.count, runs);
    assert_product_agrees(store, 2, runs, runs);
    assert_int_equal(chain.rows, 2 + runs * RUN_ROWS);
    assert_int_equal(chain.first_gap + chain.first_forged + chain.first_off + chain.first_backwards, 0);
    store_close(&store);
    return orders.count;
}

static int64_t assert_sound_file(const struct fixture *f)
{
    sqlite3 *db;
    sqlite3_stmt *check;
    assert_int_equal(sqlite3_open(f->db, &db), SQLITE_OK); /* by the default VFS */
    assert_int_equal(sqlite3_prepare_v2(db, "PRAGMA integrity_check", -1, &check, NULL), SQLITE_OK);
    assert_int_equal(sqlite3_step(check), SQLITE_ROW);
    assert_string_equal((const char *)sqlite3_column_text(check, 0), "ok");
    sqlite3_finalize(check);
    sqlite3_close(db);
    return assert_agrees(f);
}

/* The recorder says "recording: " before it. */
static void assert_failed(struct fixture *f, enum store_status status, const char *text)
{
    assert_null(strstr(store_error(f->store), "recording"));
    if (status != STORE_FAILED || strstr(store_error(f->store), text) == NULL)
        fail_msg("status %d: \"%s\" without \"%s\"", (int)status, store_error(f->store), text);
}

/* --- errors --- */
/* Fails at each pass of a failpoint in turn, until a run goes through without reaching it; whatever failed is recorded again. */
static int fail_at_every_pass(struct fixture *f, const char *name)
{
    int64_t before = assert_agrees(f);
    for (int k = 1; k < 1000; k++) {
        char spec[64];
        snprintf(spec, sizeof spec, "%s:error@%d", name, k);
        failpoints_arm(failpoints, spec);
        enum store_status status = record(f);
        bool fired = failpoints_fired(failpoints) > 0;
        failpoints_disarm(failpoints);
        if (!fired) {
            assert_int_equal(status, STORE_OK);
            return k - 1;
        }
        assert_failed(f, status, f->db);
        int64_t now = assert_agrees(f);
        assert_int_equal(now, strcmp(name, "store.committed") == 0 ? before + RUN_ORDERS : before);
        attach(f);
        record_or_die(f);
        before = assert_agrees(f);
        assert_int_equal(before, now + RUN_ORDERS);
    }
    fail_msg("%s was passed a thousand times in one run", name);
    return 0;
}

static void test_a_step_of_recording_that_fails(void **state)
{
    struct fixture *f = *state;
    open_shop(f);
    assert_int_equal(fail_at_every_pass(f, "store.begun"), 1);
    assert_int_equal(fail_at_every_pass(f, "store.commit"), 1);
    assert_int_equal(fail_at_every_pass(f, "store.committed"), 1);
    assert_sound_file(f);
}

static void test_a_write_that_fails(void **state)
{
    struct fixture *f = *state;
    open_shop(f);
    assert_in_range(fail_at_every_pass(f, "vfs.write"), 5, 900);
    assert_sound_file(f);
}

/* Whatever write of the copy fails: there is none, and the store knows nothing of it. */
static void test_a_backup_that_fails(void **state)
{
    struct fixture *f = *state;
    struct store_position position;
    struct stat status;
    char path[FOLDER_BYTES + 32], spec[64];
    open_shop(f);
    record_or_die(f);
    snprintf(path, sizeof path, "%s/copy.db", f->folder);
    bool fired = true;
    for (int k = 1; fired; k += 5) {
        assert_in_range(k, 1, 1000);
        snprintf(spec, sizeof spec, "vfs.write:error@%d", k);
        failpoints_arm(failpoints, spec);
        enum store_status made = store_back_up(f->store, path, &position);
        fired = failpoints_fired(failpoints) > 0;
        failpoints_disarm(failpoints);
        assert_int_equal(made, fired ? STORE_FAILED : STORE_OK);
        assert_int_equal(stat(path, &status), fired ? -1 : 0);
        record_or_die(f);
    }
    assert_int_equal(status.st_mode & 0777, 0600);
    assert_int_equal(store_back_up(f->store, path, &position),
                     STORE_FAILED); /* never over a file that is there */
    assert_int_equal(stat(path, &status), 0);
    assert_sound_file(f);
}

static unsigned signs_of_life;

static void give_sign_cb(void)
{
    signs_of_life++;
}

/* Not only while it waits for its turn. Each statement counts its own steps, over all its runs. */
static void test_a_long_statement_gives_signs_of_life(void **state)
{
    struct fixture *f = *state;
    struct store_orders_audit audit;
    open_shop(f);
    for (int i = 0; i < 5; i++)
        record_or_die(f);
    store_while_waiting(give_sign_cb);
    for (int i = 0; i < 1000 && signs_of_life == 0; i++)
        assert_int_equal(store_audit_orders(f->store, &audit), STORE_OK);
    store_while_waiting(NULL);
    assert_int_equal(signs_of_life, 1);
}

static void back_up_when_told(const struct fixture *f, int begin_fd)
{
    struct store *store;
    struct store_position position;
    char path[FOLDER_BYTES + 32], error[512], byte;
    snprintf(path, sizeof path, "%s/copy.db", f->folder);
    if (read(begin_fd, &byte, 1) != 1 ||
        store_open(&store, f->url, STORE_READER, error, sizeof error) != STORE_OK)
        _exit(1);
    enum store_status status = store_back_up(store, path, &position);
    if (status != STORE_OK)
        fprintf(stderr, "%s\n", store_error(store));
    store_close(&store);
    /* Begun again: of epoch 1 too, if that was before the successor had written its own. */
    _exit(status == STORE_OK && position.epoch >= 1 ? 0 : 2);
}

/* A recorder's successor must empty the write-ahead log first, which a copy's snapshot forbids. */
static void test_a_writer_does_not_wait_for_a_backup(void **state)
{
    struct fixture *f = *state;
    int begin[2], status;
    assert_int_equal(pipe(begin), 0);
    failpoints_arm(failpoints, "backup.step:error~20000"); /* it does not come to an end by itself */
    pid_t pid = fork();
    if (pid == 0)
        back_up_when_told(f, begin[0]);
    open_shop(f);
    record_or_die(f);
    assert_int_equal(write(begin[1], "", 1), 1);
    int64_t deadline = deadline_in(5000);
    while (failpoints_fired(failpoints) == 0)
        assert_true(wait_a_moment(deadline));
    struct fixture successor = *f;
    successor.store = NULL;
    attach(&successor);
    bool goes_on = waitpid(pid, &status, WNOHANG) == 0;
    store_close(&successor.store);
    failpoints_disarm(failpoints);
    assert_true(goes_on);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
    (void)close(begin[0]);
    (void)close(begin[1]);
}

static void test_a_disk_that_fills_up(void **state)
{
    struct fixture *f = *state;
    open_shop(f);
    assert_in_range(fail_at_every_pass(f, "vfs.full"), 5, 900);
    assert_sound_file(f);
}

static void test_a_sync_that_fails(void **state)
{
    struct fixture *f = *state;
    open_shop(f);
    assert_in_range(fail_at_every_pass(f, "vfs.sync"), 1, 900);
    assert_sound_file(f);
}

static void test_attaching_on_a_failing_disk(void **state)
{
    static const char *const names[] = {"vfs.write", "vfs.full", "vfs.sync"};
    struct fixture *f = *state;
    open_shop(f);
    for (size_t i = 0; i < 3; i++) {
        bool fired = true;
        for (int k = 1; fired; k++) {
            char spec[64];
            record_or_die(f);
            failpoints_arm(failpoints, "store.commit:error"); /* so that the log is in doubt */
            assert_failed(f, record(f), f->db);
            int64_t before = assert_agrees(f);
            snprintf(spec, sizeof spec, "%s:error@%d", names[i], k);
            failpoints_arm(failpoints, spec);
            enum store_status status = raise_epoch(f);
            fired = failpoints_fired(failpoints) > 0;
            failpoints_disarm(failpoints);
            assert_int_equal(status, fired ? STORE_FAILED : STORE_OK);
            assert_int_equal(assert_agrees(f), before);
            attach(f);
            assert_true(k < 900 &&
                        (fired || k > 4)); /* the log, the database, the new log's head, the epoch */
        }
    }
    assert_sound_file(f);
}

static void test_a_disk_that_is_full_for_a_while(void **state)
{
    struct fixture *f = *state;
    int64_t deadline = deadline_in(20000);
    int failures = 0;
    open_shop(f);
    record_or_die(f);
    failpoints_arm(failpoints, "vfs.full:error@3~200");
    while (failpoints_fired(failpoints) == 0 || raise_epoch(f) != STORE_OK || record(f) != STORE_OK) {
        assert_true(wait_a_moment(deadline));
        failures += record(f) != STORE_OK;
    }
    assert_true(failures > 0);
    assert_true(assert_sound_file(f) >= 2 * RUN_ORDERS);
}

/* --- what was not synced is lost, and nothing else --- */
static void test_a_failed_sync_loses_what_was_not_synced(void **state)
{
    struct fixture *f = *state;
    struct stat before, now;
    open_shop(f);
    record_or_die(f);
    assert_int_equal(stat(f->wal, &before), 0);
    failpoints_arm(failpoints, "vfs.sync:error");
    assert_failed(f, record(f), f->db);
    assert_int_equal(failpoints_fired(failpoints), 1);
    assert_int_equal(stat(f->wal, &now), 0);
    assert_int_equal(now.st_size, before.st_size);
    assert_int_equal(assert_agrees(f), RUN_ORDERS);
}

static void test_a_failed_sync_spares_what_another_has_synced_since(void **state)
{
    struct fixture *f = *state;
    struct store_user user = {.username = "bob", .password_hash = "hash"};
    open_shop(f);
    struct store *pool = open_or_die(f, STORE_WRITER);
    failpoints_arm(failpoints, "vfs.full:error@9"); /* leaves frames behind that were never synced */
    assert_int_equal(store_add_user(pool, &user), STORE_OK);
    assert_failed(f, record(f), f->db);
    assert_int_equal(store_rename_product(pool, 1, "Another lamp"), STORE_OK); /* over them */
    failpoints_arm(failpoints, "vfs.sync:error");
    user.username[0] = 'r';
    assert_int_equal(store_add_user(f->store, &user), STORE_FAILED);
    store_close(&pool);
    assert_int_equal(assert_sound_file(f), 0);
    struct store_product product;
    assert_int_equal(store_find_product_by_name(f->store, "Another lamp", &product), STORE_OK);
}

/* --- death --- */
static int wait_for(pid_t pid)
{
    int status;
    assert_true(pid > 0);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

/* A recorder that attaches, records one run and dies without closing anything. */
static pid_t start_recorder(struct fixture *f, const char *spec_once_attached)
{
    fflush(NULL);
    pid_t pid = fork();
    if (pid != 0)
        return pid;
    char error[512];
    if (store_open(&f->store, f->url, STORE_WRITER, error, sizeof error) != STORE_OK ||
        raise_epoch(f) != STORE_OK)
        _exit(1);
    if (spec_once_attached != NULL)
        failpoints_arm(failpoints, spec_once_attached);
    _exit(record(f) == STORE_OK ? 0 : 1);
}

static int die_at_every_pass(struct fixture *f, const char *name)
{
    for (int k = 1; k < 1000; k++) {
        char spec[64];
        assert_int_equal(wait_for(start_recorder(f, NULL)), 0); /* leaves a log to be emptied */
        int64_t before = assert_agrees(f);
        snprintf(spec, sizeof spec, "%s:kill@%d", name, k);
        failpoints_arm(failpoints, spec);
        int end = wait_for(start_recorder(f, NULL));
        bool fired = failpoints_fired(failpoints) > 0;
        failpoints_disarm(failpoints);
        int64_t now = assert_agrees(f);
        assert_int_equal(end, fired ? -SIGKILL : 0);
        if (!fired) {
            assert_int_equal(now, before + RUN_ORDERS);
            return k - 1;
        }
        assert_true(now == before || now == before + RUN_ORDERS);
    }
    fail_msg("%s was passed a thousand times in one run", name);
    return 0;
}

static void test_death_at_every_step(void **state)
{
    struct fixture *f = *state;
    open_shop(f);
    store_close(&f->store);
    assert_int_equal(die_at_every_pass(f, "store.begun"), 1);
    assert_int_equal(die_at_every_pass(f, "store.commit"), 1);
    assert_int_equal(die_at_every_pass(f, "store.committed"), 1);
    assert_sound_file(f);
}

static void test_death_at_every_write_and_sync(void **state)
{
    struct fixture *f = *state;
    open_shop(f);
    store_close(&f->store);
    assert_in_range(die_at_every_pass(f, "vfs.write"), 10,
                    900); /* attaching checkpoints, so the database too */
    assert_in_range(die_at_every_pass(f, "vfs.sync"), 5, 5);
    assert_sound_file(f);
}

/* --- power loss --- */
static size_t read_range(const char *path, off_t from, off_t to, unsigned char **out)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    assert_true(fd >= 0 && to > from);
    *out = malloc((size_t)(to - from));
    assert_non_null(*out);
    ssize_t bytes = pread(fd, *out, (size_t)(to - from), from);
    close(fd);
    return bytes > 0 ? (size_t)bytes : 0;
}

/* The power goes: of the log, what lies at `from` never reached the disk, unless other bytes were written there since. */
static void lose_power(const struct fixture *f, off_t from, const unsigned char *lost, size_t bytes)
{
    unsigned char *now;
    char shm[FOLDER_BYTES + 32];
    size_t there = read_range(f->wal, from, from + (off_t)bytes, &now);
    if (there == bytes && memcmp(now, lost, bytes) == 0) {
        int fd = open(f->wal, O_RDWR | O_CLOEXEC);
        memset(now, 0, bytes);
        assert_int_equal(pwrite(fd, now, bytes, from), bytes);
        close(fd);
    }
    free(now);
    snprintf(shm, sizeof shm, "%s-shm", f->db);
    unlink(shm);
}

/* A recorder's last sync fails: its run is in the kernel's pages, where a recovery finds it, but the disk never gets it (Linux calls
 * such pages clean). All that was recorded after it, and confirmed to buyers, must outlive a power cut. */
static void test_nothing_is_built_on_what_a_failed_sync_lost(void **state)
{
    struct fixture *f = *state;
    struct stat *attached =
        mmap(NULL, sizeof *attached, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    struct stat after;
    unsigned char *lost;
    open_shop(f);
    store_close(&f->store);
    pid_t pid = fork(); /* dies at the sync of its run */
    if (pid == 0) {
        attach(f);
        stat(f->wal, attached);
        failpoints_arm(failpoints, "vfs.sync:kill");
        record(f);
        _exit(1);
    }
    assert_int_equal(wait_for(pid), -SIGKILL);
    assert_int_equal(stat(f->wal, &after), 0);
    size_t bytes = read_range(f->wal, attached->st_size, after.st_size, &lost);
    assert_true(bytes > 4096);

    assert_int_equal(wait_for(start_recorder(f, NULL)), 0); /* recovers, attaches, records: confirmed */
    lose_power(f, attached->st_size, lost, bytes);
    free(lost);
    munmap(attached, sizeof *attached);
    f->store = open_or_die(f, STORE_WRITER);
    assert_int_equal(assert_sound_file(f), 2 * RUN_ORDERS);
}

/* --- others in the way --- */
static void test_another_program_locks_the_database(void **state)
{
    struct fixture *f = *state;
    sqlite3 *db;
    open_shop(f);
    record_or_die(f);
    assert_int_equal(sqlite3_open(f->db, &db), SQLITE_OK);
    assert_int_equal(sqlite3_exec(db, "BEGIN EXCLUSIVE", NULL, NULL, NULL), SQLITE_OK);
    int64_t start = now_us();
    assert_failed(f, record(f), "another program");
    assert_in_range(now_us() - start, 1000000, 10000000);
    assert_int_equal(assert_agrees(f), RUN_ORDERS); /* readers do not mind */
    start = now_us();
    assert_int_equal(raise_epoch(f), STORE_FAILED);
    assert_in_range(now_us() - start, 1000000, 10000000);
    sqlite3_close(db);
    attach(f);
    record_or_die(f);
    assert_int_equal(assert_sound_file(f), 2 * RUN_ORDERS);
}

static void test_a_hanging_writer_keeps_the_turn(void **state)
{
    struct fixture *f = *state;
    char path[FOLDER_BYTES + 32];
    open_shop(f);
    snprintf(path, sizeof path, "%s.lock", f->db);
    int lock = open(path, O_RDWR | O_CLOEXEC);
    assert_int_equal(flock(lock, LOCK_EX), 0);
    int64_t start = now_us();
    assert_failed(f, record(f), "hangs");
    assert_in_range(now_us() - start, 5000000, 15000000);
    close(lock);
    attach(f);
    record_or_die(f);
    assert_int_equal(assert_sound_file(f), RUN_ORDERS);
}

static void test_a_long_reader_delays_the_mending_only(void **state)
{
    struct fixture *f = *state;
    open_shop(f);
    struct store *reader = open_or_die(f, STORE_READER);
    assert_int_equal(store_snapshot_begin(reader), STORE_OK);
    int64_t start = now_us();
    record_or_die(f);
    attach(f); /* nothing is in doubt: nothing to wait for */
    assert_true(now_us() - start < 4000000);
    failpoints_arm(failpoints, "store.commit:error");
    assert_failed(f, record(f), f->db);
    start = now_us();
    assert_failed(f, raise_epoch(f), "audit");
    assert_in_range(now_us() - start, 4000000, 10000000);
    store_close(&reader);
    attach(f);
    record_or_die(f);
    assert_int_equal(assert_sound_file(f), 2 * RUN_ORDERS);
}

#define CROWD 3
#define CROWD_MS 1500

static void add_users(const struct fixture *f, int number)
{
    struct store *store = open_or_die(f, STORE_WRITER);
    int64_t deadline = deadline_in(CROWD_MS);
    bool ok = true;
    for (int i = 0; ok && now_us() < deadline; i++) {
        struct store_user user = {.password_hash = "hash"};
        snprintf(user.username, sizeof user.username, "%d-%d", number, i);
        ok = store_add_user(store, &user) == STORE_OK;
    }
    store_close(&store);
    _exit(ok ? 0 : 1);
}

static void test_no_writer_starves(void **state)
{
    struct fixture *f = *state;
    pid_t pids[CROWD];
    int64_t longest_us = 0, runs = 0;
    open_shop(f);
    store_close(&f->store);
    fflush(NULL);
    for (int i = 0; i < CROWD; i++) {
        pids[i] = fork();
        if (pids[i] == 0)
            add_users(f, i);
    }
    attach(f);
    int64_t deadline = deadline_in(CROWD_MS);
    for (int64_t start = now_us(); start < deadline; runs++) {
        record_or_die(f);
        int64_t end = now_us();
        longest_us = end - start > longest_us ? end - start : longest_us;
        start = end;
    }
    for (int i = 0; i < CROWD; i++)
        assert_int_equal(wait_for(pids[i]), 0);
    print_message("%lld runs beside %d writers, the longest %.1f ms\n", (long long)runs, CROWD,
                  (double)longest_us / 1000);
    assert_true(runs > 10 && longest_us < 3000000);
    assert_int_equal(assert_sound_file(f), runs * RUN_ORDERS);
}

/* --- a file system without room --- */
/* As root a real one; otherwise the disk of the test build says that it is full. */
static bool mount_small(const char *path)
{
    return mount("doorbuster-test", path, "tmpfs", 0, "size=2m") == 0;
}

static void fill_up(struct fixture *f, bool mounted)
{
    enum store_status status = STORE_OK;
    if (!mounted)
        failpoints_arm(failpoints, "vfs.full:error@400~60000");
    for (int i = 0; status == STORE_OK; i++) {
        assert_true(i < 1000);
        status = record(f);
    }
    assert_failed(f, status, "make room");
}

static void test_a_full_file_system(void **state)
{
    struct fixture *f = *state;
    bool mounted = mount_small(f->folder);
    print_message("%s\n", mounted ? "a tmpfs of 2 MB" : "not root: the failpoint");
    open_shop(f);
    fill_up(f, mounted);
    int64_t before = assert_agrees(f);
    assert_true(before > 0);
    if (mounted)
        assert_int_equal(mount("doorbuster-test", f->folder, "tmpfs", MS_REMOUNT, "size=64m"), 0);
    failpoints_disarm(failpoints);
    attach(f);
    record_or_die(f);
    assert_int_equal(assert_sound_file(f), before + RUN_ORDERS);
    store_close(&f->store);
    if (mounted)
        assert_int_equal(umount(f->folder), 0);
}

int main(void)
{
#define TEST(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(test_a_step_of_recording_that_fails),
        TEST(test_a_write_that_fails),
        TEST(test_a_backup_that_fails),
        TEST(test_a_writer_does_not_wait_for_a_backup),
        TEST(test_a_long_statement_gives_signs_of_life),
        TEST(test_a_disk_that_fills_up),
        TEST(test_a_sync_that_fails),
        TEST(test_attaching_on_a_failing_disk),
        TEST(test_a_disk_that_is_full_for_a_while),
        TEST(test_a_failed_sync_loses_what_was_not_synced),
        TEST(test_a_failed_sync_spares_what_another_has_synced_since),
        TEST(test_death_at_every_step),
        TEST(test_death_at_every_write_and_sync),
        TEST(test_nothing_is_built_on_what_a_failed_sync_lost),
        TEST(test_another_program_locks_the_database),
        TEST(test_a_hanging_writer_keeps_the_turn),
        TEST(test_a_long_reader_delays_the_mending_only),
        TEST(test_no_writer_starves),
        TEST(test_a_full_file_system),
    };
    char folder[FOLDER_BYTES], path[FOLDER_BYTES + 16];
    folder_make(folder);
    snprintf(path, sizeof path, "%s/failpoints", folder);
    failpoints = failpoints_file_make(path);
    setenv("DOORBUSTER_FAILPOINT_FILE", path, 1);
    failpoint_init(0, NULL);
    int failures = cmocka_run_group_tests(tests, NULL, NULL);
    failpoints_file_close(&failpoints);
    folder_remove(folder);
    return failures;
}
