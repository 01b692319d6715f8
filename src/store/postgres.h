/* What the files of the PostgreSQL driver share. One connection of libpq, always in pipeline mode, never blocking: what is asked is put into a
 * round, sent together, and waited for with a deadline.
 *
 *   postgres.c            the driver: open and close, transactions, what struct sql_calls asks for
 *   postgres_link.c       connecting, the session, waiting, rounds, what is said when it fails
 *   postgres_schema.c     the schema and its migrations
 *   postgres_run.c        one statement: bound, run, its rows; scans by a cursor; answers that are expected
 *   postgres_later.c      statements kept back and done by the hundred
 *   postgres_sentences.c  where PostgreSQL wants another sentence than statements.c has */
#ifndef STORE_POSTGRES_H
#define STORE_POSTGRES_H

#include "sql.h"

#include <libpq-fe.h>

#define POSTGRES_PARAMETERS_MAX 14
#define POSTGRES_WHERE_BYTES 200
#define POSTGRES_CALL_MS 5000   /* a call that is not done by then has failed */
#define POSTGRES_SCAN_MS 600000 /* over all orders */
#define POSTGRES_SCAN_MS_TEXT "600000"
#define POSTGRES_MIGRATION_MS 3600000     /* the first writer of a new version, and those who wait for it */
#define POSTGRES_STATEMENT_MS_TEXT "4500" /* so that it is PostgreSQL who says what has taken too long */
#define POSTGRES_SCAN_ROWS 4096           /* at once: bounds what a scan holds in memory */
#define POSTGRES_BEGIN_READ "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"

/* Parameters of one statement, as libpq wants them; all in binary. */
struct postgres_parameters {
    int count;
    Oid types[POSTGRES_PARAMETERS_MAX];
    const char *values[POSTGRES_PARAMETERS_MAX]; /* NULL: null; of figures `figures` */
    int lengths[POSTGRES_PARAMETERS_MAX];
    int64_t figures[POSTGRES_PARAMETERS_MAX]; /* in network byte order */
};

struct postgres_statement {
    struct postgres_parameters bound;
    PGresult *result; /* NULL: not run since it was reset */
    int row;
};

/* One column of what is kept back: the inside of an array in its binary form. */
struct postgres_column {
    char *data;
    size_t bytes, capacity;
    Oid type;
    bool has_null;
};

struct postgres_batch { /* runs of one statement that are kept back */
    struct postgres_column columns[POSTGRES_PARAMETERS_MAX];
    int column_count, rows;
};

/* A question whose answer will be wanted. */
struct postgres_expected {
    enum sql_statement statement;
    int count;
    Oid types[POSTGRES_PARAMETERS_MAX];
    int lengths[POSTGRES_PARAMETERS_MAX]; /* -1: null */
    size_t at, bytes; /* its parameters, one behind the other, in the memory of them all */
    bool sent;
    PGresult *answer; /* NULL: not there yet, or used */
};

struct postgres_expectations {
    struct postgres_expected *each;
    size_t count, capacity, next; /* next: where the last answer was found, and one */
    char *memory;
    size_t bytes, memory_bytes;
};

/* Statements of the driver's own. */
enum postgres_own { OWN_LOCK, OWN_STATEMENTS };
/* Names of prepared statements: the rules', the same for many rows at once, our own. */
#define POSTGRES_NAMES (2 * SQL_STATEMENTS + OWN_STATEMENTS)

enum postgres_preparation { NOT_PREPARED, PREPARING, PREPARED };

/* What was sent and has no answer yet. */
enum postgres_job {
    JOB_SCRIPT,   /* nothing is wanted of it */
    JOB_PREPARE,  /* index: a name */
    JOB_ANSWER,   /* index: a statement */
    JOB_EXPECTED, /* index: an expectation */
    JOB_BATCH,    /* index: a statement */
    JOB_LOCK,
    JOB_COMMIT,
};
struct postgres_command {
    enum postgres_job job;
    size_t index;
};
struct postgres_round {
    struct postgres_command *commands;
    size_t count, capacity;
    bool failed; /* something of it: the first fault is kept */
};

enum postgres_transaction {
    NO_TRANSACTION,
    WRITE_WANTED, /* BEGIN and the lock go with the first statement */
    IN_WRITE,
    IN_SNAPSHOT,
    IN_SCAN, /* a snapshot that a single scan has begun for itself */
};

struct postgres_store {
    struct store base;
    char *url;
    char where[POSTGRES_WHERE_BYTES];
    long owner_pid;     /* must not cross a fork */
    PGconn *connection; /* NULL: lost, or not open yet */
    /* What is known of hands that change products, by state.edits, which each lock of a write reads. */
    int64_t edits;
    bool edited;     /* since nobody_else_wrote was last asked; a new connection knows nothing */
    bool is_trusted; /* it was asked before this write had the lock, and has said that nobody did */
    bool was_mistaken;
    enum postgres_transaction transaction;
    enum postgres_preparation prepared[POSTGRES_NAMES];
    struct postgres_round round;
    struct postgres_statement statements[SQL_STATEMENTS];
    struct postgres_batch batches[SQL_STATEMENTS];
    size_t batched; /* rows in all of them */
    struct postgres_expectations expected;
    int64_t changes;
    /* The scan whose cursor is open; SQL_STATEMENTS: none. */
    enum sql_statement scan;
    /* What went wrong last. */
    char state[6]; /* SQLSTATE, "" if PostgreSQL said none */
    char message[300];
    bool commit_is_open; /* a COMMIT was sent whose answer is not here */
    bool warned;         /* PostgreSQL has warned of something in this round */
};

static inline struct postgres_store *postgres_of(struct store *store)
{
    return (struct postgres_store *)store;
}

/* --- postgres_link.c --- */
/* libpq's parameters of a URL. On NULL `error` is a sentence without a password. */
PQconninfoOption *postgres_parse(const char *url, char *error, size_t error_bytes);
/* A connection on which a transaction may begin: looks whether the one that is there still lives, else makes a new one. False: see fault. */
bool postgres_ready(struct postgres_store *store);
void postgres_disconnect(struct postgres_store *store);
/* Notes what went wrong, as if PostgreSQL had said so. Always false. */
bool postgres_fault(struct postgres_store *store, const char *state, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* store_error(): what, where, why, what helps. Always STORE_FAILED. */
enum store_status postgres_fail(struct store *store, const char *doing);
/* Before pipeline mode: one or more sentences without parameters. NULL: failed; else PQclear() it. */
PGresult *postgres_execute(struct postgres_store *store, const char *sql, int timeout_ms);

/* A round: put commands into it, then run it. The first two are false if the connection is lost or memory is out; the round must be run all the same. */
bool postgres_put_script(struct postgres_store *store, const char *sql, enum postgres_job job);
/* `parameters`' values in binary. `name`: see POSTGRES_NAMES. */
bool postgres_put(struct postgres_store *store, size_t name, const char *sql, enum postgres_job job,
                  size_t index, int count, const Oid *types, const char *const *values, const int *lengths);
/* The same for a sentence that is not prepared, and of which nothing is wanted. */
bool postgres_put_query(struct postgres_store *store, const char *sql, int count, const Oid *types,
                        const char *const *values, const int *lengths);
/* The next rows of the scan's cursor, for this statement. */
bool postgres_put_fetch(struct postgres_store *store, enum sql_statement statement);
/* Sends it and takes all answers in. False: something has failed, see fault; if the connection is gone too, it is NULL. */
bool postgres_run_round(struct postgres_store *store, int timeout_ms);

/* --- postgres_schema.c --- */
/* On a new connection, not yet in pipeline mode: is the shop's schema there, and ours? A writer makes it and brings it up to date. */
bool postgres_claim_schema(struct postgres_store *store);

/* --- postgres_sentences.c --- */
/* Of a statement, in PostgreSQL's SQL. */
void postgres_sentence(enum sql_statement statement, char *out, size_t out_bytes);
/* The same for many rows, each parameter an array; NULL: there is none, it is run by itself. */
const char *postgres_batch_sentence(enum sql_statement statement);
/* May it have more rows than should be in memory, or take longer than a call? Then it is read by a cursor. */
bool postgres_is_scan(enum sql_statement statement);
/* One that changes rows and may take as long as a scan. */
bool postgres_is_long(enum sql_statement statement);

/* --- postgres_run.c --- */
void postgres_bind_int(struct store *store, enum sql_statement statement, int index, int64_t value);
void postgres_bind_text(struct store *store, enum sql_statement statement, int index, const char *text,
                        size_t bytes);
void postgres_bind_blob(struct store *store, enum sql_statement statement, int index, const void *data,
                        size_t bytes);
enum sql_result postgres_step(struct store *store, enum sql_statement statement);
void postgres_reset(struct store *store, enum sql_statement statement);
void postgres_expect(struct store *store, enum sql_statement statement);
/* In binary, of whatever width; null: 0. */
int64_t postgres_int_of(const PGresult *result, int row, int column);
int64_t postgres_int_at(struct store *store, enum sql_statement statement, int column);
bool postgres_is_null_at(struct store *store, enum sql_statement statement, int column);
const char *postgres_text_at(struct store *store, enum sql_statement statement, int column, size_t *bytes);
const void *postgres_blob_at(struct store *store, enum sql_statement statement, int column, size_t *bytes);
/* All statements as if they were reset, and nothing is expected any more. */
void postgres_forget_answers(struct postgres_store *store);
void postgres_free_answers(struct postgres_store *store);
/* Puts BEGIN and the lock into the round, if they are due. */
bool postgres_put_begin(struct postgres_store *store);

/* --- postgres_later.c --- */
enum sql_result postgres_run_later(struct store *store, enum sql_statement statement);
/* Puts all that is kept back into the round; it is kept back no longer. */
bool postgres_put_batches(struct postgres_store *store);
void postgres_drop_batches(struct postgres_store *store);
void postgres_free_batches(struct postgres_store *store);

#endif
