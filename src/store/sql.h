/* What stands between the store's rules and an SQL database: numbered statements, rows, transactions. The rules (rows.c, record.c, books.c,
 * selling.c, changes.c, audit.c, audit_log.c) are written once, on top of this; a driver (sqlite*.c, postgres*.c) is a connection that
 * runs the statements.
 *
 * Statements are in statements.c, in the SQL that both databases speak, with parameters ?1, ?2, …; where they differ a driver has a sentence of
 * its own. Figures are int64; 0 and 1 for yes and no. A statement is bound, run, and reset (sql_run does the last two); one of each at a time. */
#ifndef STORE_SQL_H
#define STORE_SQL_H

#include "driver.h"

enum sql_statement {
    /* today's enum sqlite_statement without BEGIN, COMMIT, ROLLBACK and DATA_VERSION */
    SQL_STATEMENTS
};

enum sql_result {
    SQL_ROW,
    SQL_DONE,
    SQL_FAILED, /* sql_fail() says why */
};

/* The part of struct store_driver (driver.h) that the rules stand on. `doing` is for messages: "writing sales". */
struct sql_calls {
    /* A write transaction: serialised with those of every other connection before anything is read in it (SQLite: the lock file;
     * PostgreSQL: SELECT … FROM state FOR UPDATE). `end` commits if `status` is STORE_OK, else rolls back, and returns the outcome. */
    enum store_status (*write_begin)(struct store *store, const char *doing);
    enum store_status (*write_end)(struct store *store, enum store_status status, const char *doing);
    /* Several reads at one moment; nothing inside a snapshot, which is that already. */
    enum store_status (*read_begin)(struct store *store);
    void (*read_end)(struct store *store);
    /* Before a recording on a connection that knows no better; see store_raise_epoch() in store.h. PostgreSQL: a connection that is sound. */
    enum store_status (*make_sound)(struct store *store);
    /* Within a write: may what this connection has read before, in a transaction that it committed itself, be believed still? */
    enum store_status (*nobody_else_wrote)(struct store *store, bool *so);

    void (*bind_int)(struct store *store, enum sql_statement statement, int index, int64_t value);
    /* Text and bytes must live until the statement is reset. NULL: null. */
    void (*bind_text)(struct store *store, enum sql_statement statement, int index, const char *text, size_t bytes);
    void (*bind_blob)(struct store *store, enum sql_statement statement, int index, const void *data, size_t bytes);
    enum sql_result (*step)(struct store *store, enum sql_statement statement);
    void (*reset)(struct store *store, enum sql_statement statement);
    int64_t (*changes)(struct store *store); /* rows that the last statement without rows has changed */
    /* For what a run writes in large numbers (orders, parts, audit rows, books, limited buyers, keys): as run, but the driver may keep it back and do
     * all of one kind at once, before the next statement that is not of this sort, or at the end of the transaction. SQLite does it at
     * once; PostgreSQL by INSERT … SELECT FROM unnest(…) and UPDATE … FROM unnest(…). Text and bytes are copied. */
    enum sql_result (*run_later)(struct store *store, enum sql_statement statement);

    int64_t (*int_at)(struct store *store, enum sql_statement statement, int column); /* null: 0 */
    bool (*is_null_at)(struct store *store, enum sql_statement statement, int column);
    const char *(*text_at)(struct store *store, enum sql_statement statement, int column, size_t *bytes); /* until the next step */
    const void *(*blob_at)(struct store *store, enum sql_statement statement, int column, size_t *bytes);
    const char *(*where)(const struct store *store); /* for messages, never with a password: the file; "doorbuster on db.example:5432" */
    enum store_status (*fail)(struct store *store, const char *doing); /* store_error(): what, where, why, what helps; STORE_FAILED */
};

#endif
