/* The PostgreSQL driver: opening and closing, and transactions.
 *
 * Runs in the recorder, on pool threads of the workers and in the tools; a connection is one thread's at a time and must not cross a fork.
 *
 *   NO_TRANSACTION --write_begin--> WRITE_WANTED --first statement--> IN_WRITE --write_end--> NO_TRANSACTION
 *                  --snapshot_begin--> IN_SNAPSHOT --snapshot_end-->
 *                  --a scan by itself--> IN_SCAN --its reset-->
 *
 * Turns at writing: each write locks the one row of the table `state` before it reads anything (READ COMMITTED: each statement behind the lock sees what the
 * holder before has committed), so writers never see half of each other's work and cannot deadlock. A recording is two round trips: BEGIN, the lock, what
 * will be read, the position's compare-and-set; then the rows, by the hundred, and COMMIT.
 *
 * Failure: STORE_FAILED and a sentence; the transaction is rolled back. A connection that is lost fails the call, and the next one connects again. If it was
 * lost between COMMIT and its answer nobody knows: the sentence says so, and who must know reads the position. */
#include "postgres.h"

#include "doorbuster/check.h"

#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Rows of a run that are written in a call's time; beyond, a millisecond more for each. */
#define ROWS_IN_TIME 2000
#define ROWS_MAX 60000
#define TOO_MANY_CONNECTIONS "53300"

/* --- transactions --- */
static enum store_status write_begin(struct store *base, const char *doing)
{
    struct postgres_store *store = postgres_of(base);
    CHECK(store->transaction == NO_TRANSACTION);
    store->commit_is_open = store->is_trusted = store->was_mistaken = false;
    if (!postgres_ready(store))
        return postgres_fail(base, doing);
    postgres_forget_answers(store);
    store->transaction = WRITE_WANTED;
    return STORE_OK;
}

/* Ends what was begun. What does not end is ended by closing the connection. */
static void roll_back(struct postgres_store *store, bool was_begun)
{
    store->transaction = NO_TRANSACTION;
    store->scan = SQL_STATEMENTS;
    postgres_drop_batches(store);
    postgres_forget_answers(store);
    if (!was_begun || store->connection == NULL)
        return;
    char state[sizeof store->state], message[sizeof store->message];
    memcpy(state, store->state, sizeof state);
    memcpy(message, store->message, sizeof message);
    (void)postgres_put_script(store, "ROLLBACK", JOB_SCRIPT);
    if (!postgres_run_round(store, POSTGRES_CALL_MS))
        postgres_disconnect(store);
    postgres_fault(store, state, "%s", message);
}

/* A run that fails for its length would fail again and again: a long one may take longer. Returns the time for the round. */
static int give_time(struct postgres_store *store)
{
    char sql[64];
    if (store->batched <= ROWS_IN_TIME)
        return POSTGRES_CALL_MS;
    int ms = POSTGRES_CALL_MS + (int)(store->batched < ROWS_MAX ? store->batched : ROWS_MAX);
    snprintf(sql, sizeof sql, "SET LOCAL statement_timeout = %d", ms);
    (void)postgres_put_script(store, sql, JOB_SCRIPT);
    return ms + POSTGRES_CALL_MS;
}

/* False: it is not committed, or nobody knows. */
static bool commit(struct postgres_store *store)
{
    if (store->transaction == WRITE_WANTED && store->batched == 0)
        return true; /* nothing was asked of PostgreSQL */
    if (store->connection == NULL)
        return false;
    bool is_begun = postgres_put_begin(store);
    int timeout_ms = is_begun ? give_time(store) : POSTGRES_CALL_MS;
    (void)(is_begun && postgres_put_batches(store) && postgres_put_script(store, "COMMIT", JOB_COMMIT));
    if (!postgres_run_round(store, timeout_ms))
        return false;
    if (store->warned) { /* "canceling wait for synchronous replication": it stands here, and nowhere else */
        store->commit_is_open = true;
        return postgres_fault(store, "", "PostgreSQL warned at COMMIT; its log says more");
    }
    return true;
}

static enum store_status write_end(struct store *base, enum store_status status, const char *doing)
{
    struct postgres_store *store = postgres_of(base);
    CHECK(store->transaction == WRITE_WANTED || store->transaction == IN_WRITE);
    if (status == STORE_OK && commit(store)) {
        store->transaction = NO_TRANSACTION;
        postgres_forget_answers(store);
        return STORE_OK;
    }
    if (status == STORE_OK)
        status = postgres_fail(base, doing);
    roll_back(store, store->transaction == IN_WRITE);
    return status;
}

static enum store_status snapshot_begin(struct store *base)
{
    struct postgres_store *store = postgres_of(base);
    CHECK(store->transaction == NO_TRANSACTION);
    if (!postgres_ready(store))
        return postgres_fail(base, "beginning a snapshot");
    /* BEGIN alone fixes no moment, the first read does. */
    (void)(postgres_put_script(store, POSTGRES_BEGIN_READ, JOB_SCRIPT) &&
           postgres_put_script(
               store, "SET LOCAL idle_in_transaction_session_timeout = " POSTGRES_SCAN_MS_TEXT, JOB_SCRIPT) &&
           postgres_put_script(store, "SELECT 1 FROM state", JOB_SCRIPT));
    store->transaction = IN_SNAPSHOT;
    if (postgres_run_round(store, POSTGRES_CALL_MS))
        return STORE_OK;
    enum store_status status = postgres_fail(base, "beginning a snapshot");
    roll_back(store, true);
    return status;
}

static void snapshot_end(struct store *base)
{
    roll_back(postgres_of(base), true); /* only reads: nothing to keep */
}

static enum store_status make_sound(struct store *base)
{
    struct postgres_store *store = postgres_of(base);
    return postgres_ready(store) ? STORE_OK : postgres_fail(base, "reaching the store");
}

/* What the rules have written elsewhere they know by the position; here it is about hands. Before the lock is there nobody can say for sure: then what was
 * so at the last lock is taken to be so still, and the lock's answer ends the transaction if it is not. */
static enum store_status nobody_else_wrote(struct store *base, bool *so)
{
    struct postgres_store *store = postgres_of(base);
    *so = !store->edited;
    store->edited = false;
    store->is_trusted = *so && store->transaction == WRITE_WANTED;
    return STORE_OK;
}

static bool was_mistaken(struct store *base)
{
    return postgres_of(base)->was_mistaken;
}

static int64_t changes(struct store *base)
{
    return postgres_of(base)->changes;
}

static const char *where(const struct store *base)
{
    return ((const struct postgres_store *)base)->where;
}

static const struct sql_calls calls = {
    .write_begin = write_begin,
    .write_end = write_end,
    .snapshot_begin = snapshot_begin,
    .snapshot_end = snapshot_end,
    .make_sound = make_sound,
    .nobody_else_wrote = nobody_else_wrote,
    .was_mistaken = was_mistaken,
    .bind_int = postgres_bind_int,
    .bind_text = postgres_bind_text,
    .bind_blob = postgres_bind_blob,
    .step = postgres_step,
    .reset = postgres_reset,
    .changes = changes,
    .run_later = postgres_run_later,
    .expect = postgres_expect,
    .int_at = postgres_int_at,
    .is_null_at = postgres_is_null_at,
    .text_at = postgres_text_at,
    .blob_at = postgres_blob_at,
    .where = where,
    .fail = postgres_fail,
};

/* --- opening --- */
static bool url_is_valid(const char *url, char *error, size_t error_bytes)
{
    PQconninfoOption *options = postgres_parse(url, error, error_bytes);
    PQconninfoFree(options);
    return options != NULL;
}

static bool path(const char *url, char out[PATH_MAX], char *error, size_t error_bytes)
{
    (void)url;
    out[0] = '\0';
    snprintf(
        error, error_bytes,
        "a store in PostgreSQL is no file: back it up and restore it with PostgreSQL's own means (pg_dump, "
        "pg_basebackup), and after a restore run setup --restored");
    return false;
}

static enum store_status back_up(struct store *base, const char *to, struct store_position *position)
{
    char error[STORE_ERROR_BYTES], none[PATH_MAX];
    (void)to;
    (void)position;
    path(NULL, none, error, sizeof error);
    return store_refuse(base, "%s", error);
}

static enum store_status pack(const char *file, char *error, size_t error_bytes)
{
    char none[PATH_MAX];
    path(file, none, error, error_bytes);
    return STORE_FAILED;
}

static void close_store(struct store *base)
{
    struct postgres_store *store = postgres_of(base);
    CHECK(store->transaction == NO_TRANSACTION);
    postgres_disconnect(store);
    postgres_free_answers(store);
    postgres_free_batches(store);
    free(store->round.commands);
    free(store->url);
    store_free_kept(base);
    free(store);
}

static enum store_status open_store(struct store **out, const char *url, enum store_mode mode, char *error,
                                    size_t error_bytes)
{
    CHECK(sodium_init() >= 0); /* the audit log's hashes: chooses the fastest code for them */
    struct postgres_store *store = calloc(1, sizeof *store);
    if (store == NULL || (store->url = strdup(url)) == NULL) {
        free(store);
        snprintf(error, error_bytes, "opening the store failed: out of memory");
        return STORE_FAILED;
    }
    store->base.driver = &postgres_driver;
    store->base.sql = &calls;
    store->base.mode = mode;
    store->owner_pid = (long)getpid();
    store->scan = SQL_STATEMENTS;
    snprintf(store->where, sizeof store->where, "PostgreSQL");
    if (!url_is_valid(url, error, error_bytes)) {
        close_store(&store->base);
        return STORE_FAILED;
    }
    if (!postgres_ready(store)) {
        postgres_fail(&store->base, "opening the store");
        snprintf(error, error_bytes, "%s", store->base.error);
        close_store(&store->base);
        return STORE_FAILED;
    }
    *out = &store->base;
    return STORE_OK;
}

/* Only a standby answers: the primary fails over. Or there is no room for one more, while the sessions of a host that died last. */
static bool is_waited_for(PGconn *connection)
{
    if (PQstatus(connection) == CONNECTION_OK) {
        const char *standby = PQparameterStatus(connection, "in_hot_standby"); /* from PostgreSQL 14 on */
        return standby != NULL && strcmp(standby, "on") == 0;
    }
    PQsetErrorVerbosity(connection, PQERRORS_SQLSTATE); /* once more, for libpq gives no SQLSTATE otherwise */
    PQreset(connection);
    return strstr(PQerrorMessage(connection), TOO_MANY_CONNECTIONS) != NULL;
}

/* Nobody answers, or somebody who is still starting, or who cannot serve us yet. */
static bool is_away(const char *url)
{
    static const char *const keywords[] = {"dbname", "target_session_attrs", NULL};
    const char *const values[] = {url, "any", NULL};
    PGPing ping = PQping(url);
    if (ping == PQPING_NO_RESPONSE || ping == PQPING_REJECT)
        return true;
    PGconn *connection = PQconnectdbParams(keywords, values, 1);
    bool is_so = connection != NULL && is_waited_for(connection);
    PQfinish(connection);
    return is_so;
}

const struct store_driver postgres_driver = {
    .scheme = "postgres", /* postgres: and postgresql: */
    .url_is_valid = url_is_valid,
    .path = path,
    .open = open_store,
    .close = close_store,
    .back_up = back_up,
    .pack = pack,
    .is_away = is_away,
};
