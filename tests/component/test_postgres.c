/* What is PostgreSQL's own about a store in it: sessions that are cut, frozen and refused, commits whose answer is lost, schemas that several make at once.
 * That it is a store like any other the suites of tests/component/test_store*.c say, which run on it too.
 *
 * Each test has a database of its own in one cluster, which is stopped, killed and frozen as a test wants it and runs again at its end. Processes are forked
 * while this one has no store open. */
#include "doorbuster/clock.h"
#include "doorbuster/store.h"

#include "folder.h"
#ifdef DOORBUSTER_FAILPOINTS
#include "failpoints.h"
#endif
#include "postgres_fixture.h"
#include "proxy.h"
#include "testing.h"

#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define PRICE 100
#define STOCK 1000000
#define PATIENCE_MS 20000
#define CALL_MS 5000  /* the driver's deadline of a call */
#define GRACE_MS 2500 /* on a busy machine */

static struct postgres_fixture postgres;

struct fixture {
    char url[POSTGRES_URL_BYTES];
    struct store *store; /* a writer, or NULL */
    int64_t next_id;
    struct log_position position;
    int64_t rejected[8];
    size_t rejected_count;
};

#define assert_ok(f, status) assert_status((f)->store, (status), STORE_OK, __LINE__)

static void assert_status(struct store *store, enum store_status status, enum store_status expected, int line)
{
    if (status != expected)
        fail_msg("line %d: status %d, not %d: %s", line, (int)status, (int)expected, store_error(store));
}

static struct store *open_store(const char *url, enum store_mode mode)
{
    struct store *store;
    char error[512];
    if (store_open(&store, url, mode, error, sizeof error) != STORE_OK)
        fail_msg("opening %s: %s", url, error);
    return store;
}

static int set_up(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    assert_non_null(f);
    postgres_fixture_new_database(&postgres, f->url);
    f->next_id = 1;
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;
    store_use_shop("doorbuster");
    store_close(&f->store);
    free(f);
    return 0;
}

static enum store_status record_sale(struct fixture *f)
{
    struct sale_order order = {.id = f->next_id,
                               .request = f->next_id,
                               .user_id = 1,
                               .product_id = 1,
                               .quantity = 1,
                               .unit_price = PRICE};
    struct log_entry entry = {.position = {1, f->position.n + 1},
                              .kind = LOG_ENTRY_SALE,
                              .at_ms = 1000 + f->next_id,
                              .orders = &order,
                              .order_count = 1};
    enum store_status status =
        store_record(f->store, 1, f->position, &entry, 1, f->rejected, 8, &f->rejected_count);
    if (status == STORE_OK) {
        f->position = entry.position;
        f->next_id++;
    }
    return status;
}

/* A store with one product on sale and one user, both of id 1, in epoch 1. */
static void open_shop(struct fixture *f)
{
    struct store_product product = {.name = "Lamp", .price = PRICE, .planned_stock = STOCK};
    struct store_user user = {.username = "ada", .password_hash = "hash"};
    struct log_entry entry = {
        .position = {1, 1},
        .kind = LOG_ENTRY_STOCK,
        .at_ms = 1000,
        .stock = {.product_id = 1, .delta = STOCK, .remaining = STOCK, .cause = STOCK_OPENING}};
    f->store = open_store(f->url, STORE_WRITER);
    assert_ok(f, store_raise_epoch(f->store, 0, 1));
    assert_ok(f, store_add_product(f->store, &product));
    assert_ok(f, store_add_user(f->store, &user));
    assert_ok(f, store_record(f->store, 1, (struct log_position){0}, &entry, 1, f->rejected, 8,
                              &f->rejected_count));
    f->position = entry.position;
}

/* As a recorder does after a failure. */
static void look_again(struct fixture *f)
{
    struct store_position position;
    assert_ok(f, store_position(f->store, &position));
    f->position = position.recorded;
    f->next_id = position.last_order_id + 1;
}

static void assert_agrees(struct fixture *f, int64_t orders_expected)
{
    struct store_orders_audit orders;
    struct store_product_audit audit;
    struct store_chain_audit chain;
    struct store_product product;
    assert_ok(f, store_audit_chain(f->store, &chain));
    assert_ok(f, store_snapshot_begin(f->store));
    assert_ok(f, store_audit_orders(f->store, &orders));
    assert_ok(f, store_audit_product(f->store, 1, &audit));
    assert_ok(f, store_find_product(f->store, 1, &product));
    store_snapshot_end(f->store);
    assert_int_equal(chain.first_gap + chain.first_forged + chain.first_off + chain.first_backwards, 0);
    assert_int_equal(orders.count, orders_expected);
    assert_int_equal(orders.last_id, orders_expected);
    assert_int_equal(orders.first_gap + orders.rejected + orders.out_of_log_order + orders.beyond_position,
                     0);
    assert_int_equal(audit.order_units, orders_expected);
    assert_int_equal(product.sold, orders_expected);
    assert_int_equal(product.stock, STOCK - orders_expected);
    assert_int_equal(audit.logged_stock, product.stock);
}

/* --- addresses ------------------------------------------------------------------------------------------------------------- */
static void test_urls(void **state)
{
    (void)state;
    static const char *const right[] = {
        "postgresql://", "postgres://u:secret@db.example:5432/shop",
        "postgresql:///shop?host=/run/postgresql&user=u",
        "postgresql://u@a,b:5433/shop?target_session_attrs=read-write&sslmode=verify-full&passfile=/etc/"
        "pass"};
    static const char *const wrong[] = {"postgres:",
                                        "postgresql:shop",
                                        "postgres_x://h/d",
                                        "postgresql://u:secret@h/d?nonsense=secret",
                                        "postgresql://u:secret@h/d?sslmode",
                                        "postgresql://u:secret@[::1/d",
                                        "postgresql://u:sec ret%zz@h:port:secret/d"};
    char error[512], path[STORE_PATH_BYTES];
    for (size_t i = 0; i < sizeof right / sizeof right[0]; i++) {
        if (!store_url_is_valid(right[i], error, sizeof error))
            fail_msg("%s: %s", right[i], error);
        assert_false(store_file(right[i], path, error, sizeof error));
        assert_non_null(strstr(error, "pg_dump"));
    }
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        struct store *store;
        error[0] = '\0';
        if (store_url_is_valid(wrong[i], error, sizeof error))
            fail_msg("%s is valid", wrong[i]);
        assert_non_null(strstr(error, "postgresql://"));
        assert_null(strstr(error, "secret"));
        assert_int_equal(store_open(&store, wrong[i], STORE_READER, error, sizeof error), STORE_FAILED);
        assert_null(strstr(error, "secret"));
    }
}

static void assert_refused(const char *url, enum store_mode mode, const char *first, const char *second)
{
    struct store *store;
    char error[512] = "";
    assert_int_equal(store_open(&store, url, mode, error, sizeof error), STORE_FAILED);
    assert_null(store);
    if (strstr(error, first) == NULL || strstr(error, second) == NULL || strchr(error, '\n') != NULL ||
        strstr(error, "wrong-secret") != NULL)
        fail_msg("\"%s\" is no sentence with \"%s\" and \"%s\"", error, first, second);
}

static void url_for(const struct fixture *f, const char *user, char url[2 * POSTGRES_URL_BYTES])
{
    snprintf(url, 2 * POSTGRES_URL_BYTES, "%.*s&user=%s", (int)(strstr(f->url, "&user=") - f->url), f->url,
             user);
}

static void write_hba(const char *lines)
{
    char path[FOLDER_BYTES + 24];
    snprintf(path, sizeof path, "%s/data/pg_hba.conf", postgres.folder);
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    fprintf(file, "%slocal all all trust\n", lines);
    assert_int_equal(fclose(file), 0);
}

static void test_who_is_not_let_in_is_told_why(void **state)
{
    struct fixture *f = *state;
    char url[2 * POSTGRES_URL_BYTES], error[512];
    postgres_fixture_do(
        f->url, "CREATE ROLE locked LOGIN PASSWORD 'right-secret'; CREATE ROLE guest LOGIN;"
                " CREATE ROLE onlooker LOGIN; ALTER ROLE onlooker SET default_transaction_read_only = on;"
                " CREATE ROLE keeper LOGIN; CREATE ROLE crowd LOGIN CONNECTION LIMIT 0");
    write_hba("local all locked scram-sha-256\n");
    postgres_fixture_do(f->url, "SELECT pg_reload_conf()");
    int64_t deadline = deadline_in(PATIENCE_MS);
    url_for(f, "locked&password=wrong-secret", url);
    struct store *store = NULL; /* until the file is read */
    while (store_open(&store, url, STORE_READER, error, sizeof error) == STORE_OK ||
           strstr(error, "password") == NULL)
        assert_true(wait_a_moment(deadline));
    assert_refused(url, STORE_WRITER, "password authentication failed", "shop");
    url_for(f, "locked", url);
    assert_refused(url, STORE_WRITER, "no password", "failed");
    write_hba("");
    postgres_fixture_do(f->url, "SELECT pg_reload_conf()");

    snprintf(url, sizeof url, "postgresql:///nowhere?host=%s&user=postgres", postgres.folder);
    assert_refused(url, STORE_WRITER, "\"nowhere\" does not exist", "nowhere on");
    assert_refused("postgresql:///shop?host=/nonexistent", STORE_WRITER, "shop on /nonexistent",
                   "No such file");
    assert_false(store_is_away(url));
    url_for(f, "crowd", url);
    assert_refused(url, STORE_WRITER, "too many connections", "crowd");
    assert_true(store_is_away(url)); /* some may leave */
    url_for(f, "guest", url);
    assert_refused(url, STORE_WRITER, "permission denied", "needs CREATE");
    assert_false(store_is_away(url));
    assert_refused(url, STORE_READER, "there is no store", "server makes it");
    f->store = open_store(f->url, STORE_WRITER);
    assert_refused(url, STORE_READER, "permission denied", "schema");
    /* One that may only use what is there is enough, once it is there. */
    postgres_fixture_do(f->url, "GRANT USAGE ON SCHEMA doorbuster TO keeper, onlooker;"
                                " GRANT ALL ON ALL TABLES IN SCHEMA doorbuster TO keeper;"
                                " GRANT SELECT ON ALL TABLES IN SCHEMA doorbuster TO onlooker");
    url_for(f, "keeper", url);
    store = open_store(url, STORE_WRITER);
    assert_int_equal(store_raise_epoch(store, 0, 1), STORE_OK);
    store_close(&store);
    url_for(f, "onlooker", url);
    store = open_store(url, STORE_READER);
    struct store_position position;
    assert_int_equal(store_position(store, &position), STORE_OK);
    assert_int_equal(position.epoch, 1);
    store_close(&store);
    store = open_store(url, STORE_WRITER);
    assert_int_equal(store_raise_epoch(store, 1, 2), STORE_FAILED);
    assert_non_null(strstr(store_error(store), "permission denied"));
    store_close(&store);
}

/* --- the schema ------------------------------------------------------------------------------------------------------------ */
static void be_a_first_writer(const struct fixture *f)
{
    struct store *store;
    char error[512] = "";
    alarm(60);
    if (store_open(&store, f->url, STORE_WRITER, error, sizeof error) != STORE_OK) {
        fprintf(stderr, "%s\n", error);
        _exit(1);
    }
    struct store_user user = {.username = "ada", .password_hash = "hash"};
    enum store_status status = store_add_user(store, &user);
    store_close(&store);
    _exit(status == STORE_OK || status == STORE_TAKEN ? 0 : 2);
}

static void test_many_first_writers_make_one_store(void **state)
{
    enum { WRITERS = 8 };
    struct fixture *f = *state;
    pid_t pids[WRITERS];
    fflush(NULL);
    for (int i = 0; i < WRITERS; i++) {
        pids[i] = fork();
        assert_true(pids[i] >= 0);
        if (pids[i] == 0)
            be_a_first_writer(f);
    }
    for (int i = 0; i < WRITERS; i++) {
        int status;
        assert_int_equal(waitpid(pids[i], &status, 0), pids[i]);
        assert_int_equal(status, 0);
    }
    assert_int_equal(postgres_fixture_ask(f->url, "SELECT count(*) FROM schema_version"), 2);
    assert_int_equal(postgres_fixture_ask(f->url, "SELECT count(*) FROM state"), 1);
    assert_int_equal(postgres_fixture_ask(f->url, "SELECT count(*) FROM users"), 1);
}

static void test_schemas_that_are_not_ours(void **state)
{
    struct fixture *f = *state;
    f->store = open_store(f->url, STORE_WRITER);
    store_close(&f->store);
    postgres_fixture_do(f->url, "INSERT INTO schema_version (version) VALUES (99)");
    assert_refused(f->url, STORE_WRITER, "version 99", "newer Doorbuster");
    assert_refused(f->url, STORE_READER, "version 99", "newer Doorbuster");
    postgres_fixture_do(f->url, "DELETE FROM schema_version");
    assert_refused(f->url, STORE_READER, "there is no store", "server makes it");
    postgres_fixture_do(f->url, "CREATE SCHEMA theirs; CREATE TABLE theirs.orders (x integer)");
    store_use_shop("theirs");
    assert_refused(f->url, STORE_WRITER, "another program", "--shop");
    assert_refused(f->url, STORE_READER, "another program", "--shop");
    assert_int_equal(
        postgres_fixture_ask(f->url, "SELECT count(*) FROM pg_tables WHERE schemaname = 'theirs'"), 1);
}

static void test_two_shops_in_one_database(void **state)
{
    struct fixture *f = *state;
    store_use_shop("one");
    open_shop(f);
    assert_ok(f, record_sale(f));
    struct store_position first, second;
    assert_ok(f, store_position(f->store, &first));
    store_use_shop("Two-2_shop");
    struct store *other = open_store(f->url, STORE_WRITER);
    struct store_user user;
    struct store_product product;
    assert_int_equal(store_position(other, &second), STORE_OK);
    assert_int_equal(second.epoch, 0);
    assert_int_equal(second.last_order_id, 0);
    assert_true(first.store_id != second.store_id);
    assert_int_equal(store_find_user(other, "ada", &user), STORE_NOT_FOUND);
    assert_int_equal(store_find_product(other, 1, &product), STORE_NOT_FOUND);
    user = (struct store_user){.username = "ada", .password_hash = "another"};
    assert_int_equal(store_add_user(other, &user), STORE_OK);
    assert_int_equal(user.id, 1);
    assert_int_equal(store_raise_epoch(other, 1, 2), STORE_FENCED);
    postgres_fixture_do(f->url, "DROP TABLE \"Two-2_shop\".users");
    assert_int_equal(store_add_user(other, &user), STORE_FAILED);
    assert_non_null(strstr(store_error(other), "shop Two-2_shop"));
    store_close(&other);
    assert_ok(f, store_find_user(f->store, "ada", &user));
    assert_string_equal(user.password_hash, "hash");
    assert_agrees(f, 1);
}

/* --- sessions -------------------------------------------------------------------------------------------------------------- */
static void test_a_commit_is_on_the_disk_whatever_was_set(void **state)
{
    struct fixture *f = *state;
    open_shop(f);
    store_close(&f->store);
    postgres_fixture_do(
        f->url,
        "CREATE TABLE public.seen (name text, setting text); CREATE FUNCTION public.look() RETURNS trigger"
        " LANGUAGE plpgsql AS 'BEGIN INSERT INTO public.seen SELECT name, setting FROM pg_settings;"
        " RETURN NEW; END';"
        " CREATE TRIGGER look BEFORE INSERT ON users FOR EACH ROW EXECUTE FUNCTION public.look()");
    char url[2 * POSTGRES_URL_BYTES];
    snprintf(url, sizeof url, "%s&options=-csynchronous_commit%%3Doff&application_name=till", f->url);
    struct store *store = open_store(url, STORE_WRITER);
    struct store_user user = {.username = "bob", .password_hash = "hash"};
    assert_int_equal(store_add_user(store, &user), STORE_OK);
    store_close(&store);
#define SEEN(name) "SELECT count(*) FROM public.seen WHERE name = '" name "' AND setting = "
    assert_int_equal(postgres_fixture_ask(f->url, SEEN("synchronous_commit") "'on'"), 1);
    assert_int_equal(postgres_fixture_ask(f->url, SEEN("application_name") "'till'"), 1);
    assert_int_equal(postgres_fixture_ask(f->url, SEEN("lock_timeout") "'4000'"), 1);
    assert_int_equal(postgres_fixture_ask(f->url, SEEN("statement_timeout") "'4500'"), 1);
    assert_int_equal(postgres_fixture_ask(f->url, SEEN("idle_in_transaction_session_timeout") "'1000'"), 1);
}

static const char *waiting_url;
static void end_waiting_cb(void)
{
    postgres_fixture_ask(
        waiting_url,
        "SELECT count(pg_cancel_backend(pid)) FROM pg_stat_activity WHERE wait_event = 'SyncRep'");
}

/* PostgreSQL says so by a warning alone, and a role's settings can hide that. */
static void test_a_commit_that_no_standby_has_is_none(void **state)
{
    struct fixture *f = *state;
    char url[2 * POSTGRES_URL_BYTES];
    open_shop(f);
    store_close(&f->store);
    snprintf(url, sizeof url, "%s&options=-cclient_min_messages%%3Derror", f->url);
    f->store = open_store(url, STORE_WRITER);
    postgres_fixture_do(f->url, "ALTER SYSTEM SET synchronous_standby_names = 'nobody'");
    postgres_fixture_do(f->url, "SELECT pg_reload_conf()");
    waiting_url = f->url;
    store_while_waiting(end_waiting_cb);
    int64_t deadline = deadline_in(PATIENCE_MS);
    enum store_status status; /* until the setting has come to all */
    do {
        status = record_sale(f);
    } while (status == STORE_OK && wait_a_moment(deadline));
    store_while_waiting(NULL);
    assert_status(f->store, status, STORE_FAILED, __LINE__);
    assert_non_null(strstr(store_error(f->store), "it may have been done"));
    postgres_fixture_do(f->url, "ALTER SYSTEM RESET synchronous_standby_names");
    postgres_fixture_do(f->url, "SELECT pg_reload_conf()");
    look_again(f);
    while (record_sale(f) != STORE_OK) {
        look_again(f);
        assert_true(wait_a_moment(deadline));
    }
    assert_agrees(f, f->next_id - 1);
}

static void end_sessions(const struct fixture *f)
{
    postgres_fixture_ask(f->url, "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
                                 " WHERE datname = current_database() AND pid <> pg_backend_pid()");
}

/* The word of it takes a moment: the first call may fail, the one after it may not. */
static void test_a_session_that_was_ended_is_begun_anew(void **state)
{
    struct fixture *f = *state;
    open_shop(f);
    for (int i = 0; i < 5; i++) {
        assert_ok(f, record_sale(f));
        end_sessions(f);
        enum store_status status = record_sale(f);
        assert_true(status == STORE_OK || status == STORE_FAILED);
        if (status == STORE_FAILED) {
            assert_non_null(strstr(store_error(f->store), "connected again at the next call"));
            look_again(f);
        }
        assert_ok(f, record_sale(f));
    }
    /* Within a snapshot nothing is read at another moment. */
    struct store_product product;
    assert_ok(f, store_snapshot_begin(f->store));
    assert_ok(f, store_find_product(f->store, 1, &product));
    end_sessions(f);
    int64_t deadline = deadline_in(PATIENCE_MS);
    while (store_find_product(f->store, 1, &product) == STORE_OK)
        assert_true(wait_a_moment(deadline));
    assert_status(f->store, store_find_product(f->store, 1, &product), STORE_FAILED, __LINE__);
    store_snapshot_end(f->store);
    assert_ok(f, store_find_product(f->store, 1, &product));
    assert_agrees(f, f->next_id - 1);
}

static void test_a_server_that_is_stopped_and_started(void **state)
{
    struct fixture *f = *state;
    open_shop(f);
    assert_ok(f, record_sale(f));
    postgres_fixture_stop(&postgres);
    assert_status(f->store, record_sale(f), STORE_FAILED, __LINE__);
    assert_non_null(strstr(store_error(f->store), "shop"));
    struct store_position position;
    assert_status(f->store, store_position(f->store, &position), STORE_FAILED, __LINE__);
    assert_status(f->store, store_snapshot_begin(f->store), STORE_FAILED, __LINE__);
    postgres_fixture_restart(&postgres);
    assert_ok(f, record_sale(f));
    assert_agrees(f, 2);
}

/* It may be behind what buyers were told: nobody reads there either. */
static void test_a_standby_is_no_store(void **state)
{
    struct fixture *f = *state;
    char path[FOLDER_BYTES + 32];
    open_shop(f);
    store_close(&f->store);
    snprintf(path, sizeof path, "%s/data/standby.signal", postgres.folder);
    postgres_fixture_stop(&postgres);
    assert_int_equal(fclose(fopen(path, "w")), 0);
    postgres_fixture_restart(&postgres);
    assert_refused(f->url, STORE_WRITER, "it is a standby", "name the primary");
    assert_refused(f->url, STORE_READER, "it is a standby", "name the primary");
    assert_true(store_is_away(f->url)); /* it may become the primary */
    postgres_fixture_stop(&postgres);
    assert_int_equal(unlink(path), 0);
    postgres_fixture_restart(&postgres);
    f->store = open_store(f->url, STORE_WRITER);
    assert_agrees(f, 0);
}

static int beats;
static void beat_cb(void)
{
    beats++;
}

static void assert_in_time(int64_t began_us, int ms_min, int ms_max)
{
    int64_t took_ms = (now_us() - began_us) / 1000;
    if (took_ms < ms_min || took_ms > ms_max)
        fail_msg("it took %" PRId64 " ms", took_ms);
}

static void test_a_frozen_server_fails_a_call_in_time(void **state)
{
    struct fixture *f = *state;
    open_shop(f);
    assert_ok(f, record_sale(f));
    beats = 0;
    store_while_waiting(beat_cb);
    postgres_fixture_freeze(&postgres);
    int64_t began_us = now_us();
    enum store_status status = record_sale(f);
    postgres_fixture_thaw(&postgres);
    store_while_waiting(NULL);
    assert_int_equal(status, STORE_FAILED);
    assert_in_time(began_us, CALL_MS - 100, CALL_MS + GRACE_MS);
    assert_non_null(strstr(store_error(f->store), "no answer within 5.0 s"));
    assert_in_range(beats, CALL_MS / 50 / 2, 2 * CALL_MS / 50);
    look_again(f);
    assert_ok(f, record_sale(f));
    assert_agrees(f, f->next_id - 1);
}

static void test_a_foreign_lock_fails_a_write_in_time(void **state)
{
    struct fixture *f = *state;
    open_shop(f);
    struct store *other = open_store(f->url, STORE_READER);
    struct store_product product;
    postgres_fixture_do(f->url, "BEGIN; UPDATE products SET price = price");
    int64_t began_us = now_us();
    assert_status(f->store, record_sale(f), STORE_FAILED, __LINE__);
    assert_in_time(began_us, 3500, CALL_MS + GRACE_MS);
    assert_non_null(strstr(store_error(f->store), "pg_stat_activity"));
    assert_int_equal(store_find_product(other, 1, &product), STORE_OK); /* a reader waits for nobody */
    store_close(&other);
    postgres_fixture_do(f->url, "ROLLBACK");
    assert_ok(f, record_sale(f));
    assert_agrees(f, 1);
}

#ifdef DOORBUSTER_FAILPOINTS
/* A process that stops within its transaction holds the others up until its session is ended for that. */
static void test_a_writer_that_stops_within_a_write(void **state)
{
    struct fixture *f = *state;
    char folder[FOLDER_BYTES], path[FOLDER_BYTES + 16];
    open_shop(f);
    store_close(&f->store);
    folder_make(folder);
    snprintf(path, sizeof path, "%s/failpoints", folder);
    struct failpoint_page *failpoints = failpoints_file_make(path);
    fflush(NULL);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        alarm(60);
        setenv("DOORBUSTER_FAILPOINT_FILE", path, 1);
        failpoint_init(0, NULL);
        failpoints_arm(failpoints, "store.commit:stop");
        f->store = open_store(f->url, STORE_WRITER);
        enum store_status status = record_sale(f); /* stops here, and is fenced off by its own absence */
        _exit(status == STORE_FAILED && strstr(store_error(f->store), "connected again") != NULL ? 0 : 1);
    }
    int status;
    assert_int_equal(waitpid(pid, &status, WUNTRACED), pid);
    assert_true(WIFSTOPPED(status));
    f->store = open_store(f->url, STORE_WRITER);
    int64_t began_us = now_us();
    assert_ok(f, record_sale(f));
    assert_in_time(began_us, 100, 3000 + GRACE_MS);
    kill(pid, SIGCONT);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
    failpoints_file_close(&failpoints);
    folder_remove(folder);
    assert_agrees(f, 1);
}
#endif

/* --- hands ----------------------------------------------------------------------------------------------------------------- */
static void test_books_that_a_hand_has_changed_are_read_again(void **state)
{
    struct fixture *f = *state;
    struct store_product product;
    open_shop(f);
    assert_ok(f, record_sale(f)); /* the book is known now */
    postgres_fixture_do(f->url, "UPDATE products SET opening = opening - 500, stock = stock - 500");
    assert_ok(f, record_sale(f));
    assert_ok(f, store_find_product(f->store, 1, &product));
    assert_int_equal(product.stock, STOCK - 502);
    postgres_fixture_do(f->url, "UPDATE products SET opening = 2, stock = 0");
    assert_ok(f, record_sale(f));
    assert_int_equal(f->rejected_count, 1);
    /* By a hand that no trigger counts: the write that is told of it fails, the next knows. */
    assert_true(postgres_fixture_edit(f->url, "UPDATE products SET opening = 12, stock = 10"));
    assert_ok(f, record_sale(f));
    assert_ok(f, store_find_product(f->store, 1, &product));
    assert_true(product.stock == 9 || product.stock == 10);
}

/* A note that is not UTF-8 can only be a hand's; a recorder that took it up to PostgreSQL as it is would be refused for ever. */
static void test_a_note_that_postgresql_would_refuse_stops_nobody(void **state)
{
    static const char payload[] = "1000\n1 5 105 restock 1 caf\xe9";
    struct fixture *f = *state;
    struct log_room room = {0};
    struct log_entry entry;
    open_shop(f);
    assert_true(log_entry_decode((struct log_position){1, f->position.n + 1}, "stock", 5, payload,
                                 sizeof payload - 1, &room, &entry));
    assert_string_equal(entry.stock.note, "caf?");
    assert_ok(f, store_record(f->store, 1, f->position, &entry, 1, f->rejected, 8, &f->rejected_count));
}

/* --- scans ----------------------------------------------------------------------------------------------------------------- */
static int64_t keys_seen;
static int64_t keys_wanted;
static bool count_key_cb(void *context, int64_t user_id, const char *key, int64_t order_id, int64_t at_ms)
{
    (void)context;
    (void)user_id;
    (void)at_ms;
    assert_int_equal(order_id, keys_seen + 1);
    assert_string_equal(key, "k");
    return ++keys_seen < keys_wanted;
}

static void test_scans_of_every_length(void **state)
{
    static const int64_t counts[] = {4095, 4096, 4097, 8192, 9000};
    struct fixture *f = *state;
    struct store_position position;
    char sql[400];
    int64_t last = 0;
    open_shop(f);
    for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++) {
        snprintf(
            sql, sizeof sql,
            "INSERT INTO orders (id, request, user_id, product_id, quantity, unit_price, remaining, at_ms, "
            "log_epoch, log_n, state,"
            " idempotency_key) SELECT n, n, 1, 1, 1, 100, 1, 5000, 1, 1, 0, 'k' FROM generate_series(%" PRId64
            ", %" PRId64 ") AS n",
            last + 1, counts[i]);
        postgres_fixture_do(f->url, sql);
        last = counts[i];
        keys_wanted = INT64_MAX;
        keys_seen = 0;
        assert_ok(f, store_each_key(f->store, 0, count_key_cb, NULL));
        assert_int_equal(keys_seen, last);
        struct store_orders_audit orders;
        assert_ok(f, store_audit_orders(f->store, &orders));
        assert_int_equal(orders.count, last);
        for (keys_wanted = 1; keys_wanted < last;
             keys_wanted += 4095) { /* stopped early, and what comes after is right */
            keys_seen = 0;
            assert_ok(f, store_each_key(f->store, 0, count_key_cb, NULL));
            assert_int_equal(keys_seen, keys_wanted);
            assert_ok(f, store_position(f->store, &position));
            assert_int_equal(position.last_order_id, last);
        }
    }
    struct store_request wanted[2] = {{.request = 3, .user_id = 1}, {.request = 99999, .user_id = 1}};
    assert_ok(f, store_find_requests(f->store, (struct log_position){0}, wanted, 2));
    assert_true(wanted[0].found);
    assert_false(wanted[1].found);
}

/* --- lost answers ---------------------------------------------------------------------------------------------------------- */
struct detour {
    char folder[FOLDER_BYTES];
    struct proxy proxy;
    char url[POSTGRES_URL_BYTES];
};

static void begin_detour(struct detour *detour, const struct fixture *f, const char *call)
{
    char here[FOLDER_BYTES + 20], there[FOLDER_BYTES + 20];
    folder_make(detour->folder);
    snprintf(here, sizeof here, "%s/.s.PGSQL.5432", detour->folder);
    snprintf(there, sizeof there, "%s/.s.PGSQL.5432", postgres.folder);
    proxy_start_for(&detour->proxy, here, there, call);
    const char *host = strstr(f->url, "?host=");
    snprintf(detour->url, sizeof detour->url, "%.*s?host=%s&user=postgres", (int)(host - f->url), f->url,
             detour->folder);
}

static void end_detour(struct detour *detour)
{
    proxy_end(&detour->proxy);
    folder_remove(detour->folder);
}

static void test_a_lost_answer_to_commit_is_settled_by_the_position(void **state)
{
    struct fixture *f = *state;
    struct detour detour;
    open_shop(f);
    store_close(&f->store);
    begin_detour(&detour, f, "COMMIT");
    f->store = open_store(detour.url, STORE_WRITER);
    for (int i = 0; i < 5; i++) {
        int64_t id = f->next_id;
        struct log_position from = f->position;
        assert_ok(f, record_sale(f));
        proxy_do(&detour.proxy, PROXY_LOSE_ANSWER, 0, 1);
        assert_status(f->store, record_sale(f), STORE_FAILED, __LINE__);
        if (strstr(store_error(f->store), "may have been done") == NULL)
            fail_msg("%s", store_error(f->store));
        look_again(f);
        assert_int_equal(f->next_id, id + 2);
        assert_int_equal(f->position.n, from.n + 2);
    }
    assert_agrees(f, 10);
    store_close(&f->store);
    end_detour(&detour);
}

/* The commit arrives long after its sender has given up and gone on: whichever is first wins, the other one is fenced or waits for it. */
static void test_a_commit_that_arrives_late(void **state)
{
    struct fixture *f = *state;
    struct detour detour;
    open_shop(f);
    store_close(&f->store);
    begin_detour(&detour, f, "COMMIT");
    f->store = open_store(detour.url, STORE_WRITER);
    int64_t orders = 0;
    for (int i = 0; i < 5; i++) {
        proxy_do(&detour.proxy, PROXY_DELIVER_LATE, 20 * i, 1);
        assert_status(f->store, record_sale(f), STORE_FAILED, __LINE__);
        enum store_status status = STORE_FAILED;
        for (int tries = 0; status != STORE_OK;
             tries++) { /* as a recorder: read, and write again from there */
            look_again(f);
            int64_t id = f->next_id;
            assert_in_range(id, orders + 1, orders + 2); /* the late one is there, or not */
            status = record_sale(f);
            assert_true(status == STORE_OK || status == STORE_FENCED);
            orders = status == STORE_OK ? id : orders;
            assert_in_range(tries, 0, 2);
        }
    }
    proxy_calm(&detour.proxy, PATIENCE_MS);
    look_again(f);
    assert_agrees(f, f->next_id - 1);
    store_close(&f->store);
    end_detour(&detour);
}

/* --- kill -9 --------------------------------------------------------------------------------------------------------------- */
/* Tells each order that was committed, and goes on whatever happens, until the pipe is closed. Others compete. */
static void keep_recording(struct fixture *f, int fd)
{
    char error[512];
    signal(SIGPIPE, SIG_IGN);
    alarm(120);
    while (f->store == NULL) {
        if (store_open(&f->store, f->url, STORE_WRITER, error, sizeof error) != STORE_OK)
            usleep(5000);
    }
    for (;;) {
        struct store_position position;
        if (store_position(f->store, &position) == STORE_OK) {
            f->position = position.recorded;
            f->next_id = position.last_order_id + 1;
            enum store_status status = STORE_OK;
            while (status == STORE_OK) {
                int64_t id = f->next_id;
                status = record_sale(f);
                if (status == STORE_OK && (f->rejected_count > 0 || write(fd, &id, sizeof id) != sizeof id))
                    _exit(f->rejected_count > 0 ? 3 : 0);
            }
        }
        usleep(1000);
    }
}

static void test_a_killed_server_loses_nothing_that_was_told(void **state)
{
    enum { KILLS = 3, RECORDERS = 2, ROOM = 200000 };
    struct fixture *f = *state;
    static unsigned char told[ROOM];
    int ends[2];
    int64_t told_count = 0, id;
    pid_t pids[RECORDERS];
    memset(told, 0, sizeof told);
    open_shop(f);
    store_close(&f->store);
    assert_int_equal(pipe(ends), 0);
    fflush(NULL);
    for (int i = 0; i < RECORDERS; i++) {
        pids[i] = fork();
        assert_true(pids[i] >= 0);
        if (pids[i] == 0) {
            close(ends[0]);
            keep_recording(f, ends[1]);
        }
    }
    close(ends[1]);
    for (int kills = 0; kills <= KILLS; kills++) {
        for (int64_t until = told_count + 150; told_count < until; told_count++) {
            assert_int_equal(read(ends[0], &id, sizeof id), sizeof id);
            assert_in_range(id, 1, ROOM - 1);
            assert_int_equal(told[id]++, 0); /* of two recorders one wins each */
        }
        if (kills < KILLS) {
            postgres_fixture_kill(&postgres);
            postgres_fixture_restart(&postgres);
        }
    }
    for (int i = 0; i < RECORDERS; i++)
        assert_int_equal(kill(pids[i], SIGKILL), 0);
    for (int i = 0; i < RECORDERS; i++)
        assert_int_equal(waitpid(pids[i], NULL, 0), pids[i]);
    while (read(ends[0], &id, sizeof id) == sizeof id) {
        assert_int_equal(told[id]++, 0);
        told_count++;
    }
    close(ends[0]);
    f->store = open_store(f->url, STORE_WRITER);
    look_again(f);
    int64_t recorded = f->next_id - 1;
    for (int64_t i = recorded + 1; i < ROOM; i++)
        assert_int_equal(told[i], 0); /* all that were told are there */
    assert_in_range(recorded, told_count, told_count + RECORDERS * (KILLS + 1));
    assert_agrees(f, recorded);
}

static int start_postgres(void **state)
{
    (void)state;
    postgres_fixture_start(&postgres, false);
    return 0;
}

static int end_postgres(void **state)
{
    (void)state;
    postgres_fixture_end(&postgres);
    return 0;
}

int main(void)
{
#define TEST(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        /* first: recovery syncs every file of every database */
        TEST(test_a_killed_server_loses_nothing_that_was_told),
        cmocka_unit_test(test_urls),
        TEST(test_who_is_not_let_in_is_told_why),
        TEST(test_many_first_writers_make_one_store),
        TEST(test_schemas_that_are_not_ours),
        TEST(test_two_shops_in_one_database),
        TEST(test_a_commit_is_on_the_disk_whatever_was_set),
        TEST(test_a_commit_that_no_standby_has_is_none),
        TEST(test_a_session_that_was_ended_is_begun_anew),
        TEST(test_a_server_that_is_stopped_and_started),
        TEST(test_a_standby_is_no_store),
        TEST(test_a_frozen_server_fails_a_call_in_time),
        TEST(test_a_foreign_lock_fails_a_write_in_time),
#ifdef DOORBUSTER_FAILPOINTS
        TEST(test_a_writer_that_stops_within_a_write),
#endif
        TEST(test_books_that_a_hand_has_changed_are_read_again),
        TEST(test_a_note_that_postgresql_would_refuse_stops_nobody),
        TEST(test_scans_of_every_length),
        TEST(test_a_lost_answer_to_commit_is_settled_by_the_position),
        TEST(test_a_commit_that_arrives_late),
    };
    return cmocka_run_group_tests_name("postgres", tests, start_postgres, end_postgres);
}
