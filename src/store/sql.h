/* What stands between the store's rules and an SQL database: numbered statements, rows, transactions. The rules (rows.c, record.c, books.c,
 * selling.c, changes.c, audit.c, audit_log.c) are written once, on top of this; a driver (sqlite*.c, postgres*.c) is a connection that
 * runs the statements.
 *
 * Statements are in statements.c, in the SQL that both databases speak, with parameters ?1, ?2, …; where they differ a driver has a sentence of
 * its own. Figures are int64, yes and no are 1 and 0: also what is a boolean in the database is read as such. A statement is bound (each of
 * its parameters, each time), run, and reset (sql_run does the last two); one of each at a time, and while one has rows left to read no other is run. */
#ifndef STORE_SQL_H
#define STORE_SQL_H

#include "driver.h"

#include <string.h>

enum sql_statement {
    SQL_ADD_USER,
    SQL_USER_BY_NAME,
    SQL_USER_BY_ID,
    SQL_UPDATE_USER,
    SQL_ADD_PRODUCT,
    SQL_ADD_COMPONENT,
    SQL_IS_COMPONENT,
    SQL_COMPONENTS,
    SQL_PRODUCT_BY_ID,
    SQL_PRODUCT_BY_NAME,
    SQL_PRODUCT_BY_REQUEST,
    SQL_RENAME_PRODUCT,
    SQL_PRODUCTS_AFTER,
    SQL_CATALOG_SIZE,
    SQL_ORDER_BY_ID,
    SQL_ORDERS_OF_USER,
    SQL_ORDERS_BACKWARDS,
    SQL_LATEST_ORDERS,
    SQL_ORDER_PARTS,
    SQL_LAST_ORDER,
    SQL_LAST_ORDER_BEFORE,
    SQL_POSITION,
    SQL_RAISE_EPOCH,
    SQL_MOVE_POSITION,
    SQL_BEGIN_ANEW,
    SQL_READ_BOOK,
    SQL_WRITE_SALES,
    SQL_WRITE_BOOK,
    SQL_ADD_ORDER,
    SQL_ADD_ORDER_PART,
    SQL_ADD_CANCELLATION,
    SQL_LAST_AUDIT_ROW,
    SQL_ADD_AUDIT_ROW,
    SQL_AUDIT_LOG,
    SQL_AUDIT_ROW_FROM,
    SQL_AUDIT_ROWS_FROM,
    SQL_AUDIT_CHAIN,
    SQL_CHANGE_KEYS,
    SQL_TAKE_OVER,
    SQL_LAST_TIME,
    SQL_LIMITED_BUYER,
    SQL_PUT_LIMITED_BUYER,
    SQL_LOWER_LIMITED_BUYER,
    SQL_CLEAR_LIMITED_BUYERS,
    SQL_FILL_LIMITED_BUYERS,
    SQL_RECENT_KEY,
    SQL_PUT_RECENT_KEY,
    SQL_CLEAR_RECENT_KEYS,
    SQL_FILL_RECENT_KEYS,
    SQL_PRUNE_RECENT_KEYS,
    SQL_CHANGE_BY_KEY,
    SQL_CANCELLATION_POSITION,
    SQL_NEXT_STOCK,
    SQL_BUYERS,
    SQL_ORDER_FROM,
    SQL_KEYS,
    SQL_AUDIT_SALES,
    SQL_AUDIT_PARTS,
    SQL_AUDIT_CANCELLED,
    SQL_AUDIT_CHANGES,
    SQL_BUNDLES,
    SQL_AUDIT_COMPONENTS,
    SQL_AUDIT_OVER_LIMIT,
    SQL_AUDIT_ORDERS,
    SQL_STATEMENTS
};
extern const char *const sql_statements[SQL_STATEMENTS];

enum sql_result {
    SQL_ROW,
    SQL_DONE,
    SQL_FAILED, /* sql_fail() says why */
};

/* The part of a driver that the rules stand on. `doing` is for messages: "writing sales". */
struct sql_calls {
    /* A write transaction: serialised with those of every other connection before anything is read in it (SQLite: the lock file;
     * PostgreSQL: SELECT … FROM state FOR UPDATE). `end` commits if `status` is STORE_OK, else rolls back, and returns the outcome. */
    enum store_status (*write_begin)(struct store *store, const char *doing);
    enum store_status (*write_end)(struct store *store, enum store_status status, const char *doing);
    /* Everything in between is read at one moment. Not within another one, nor within a write. */
    enum store_status (*snapshot_begin)(struct store *store);
    void (*snapshot_end)(struct store *store);
    /* Before a recording on a connection that knows no better; see store_raise_epoch() in store.h. PostgreSQL: a connection that is sound. */
    enum store_status (*make_sound)(struct store *store);
    /* Within a write: false if the driver knows that somebody else may have written since this was last asked on the connection, by hand too. What the
     * rules themselves have written elsewhere store_books_begin() finds out by the position, so a driver that knows nothing more says true. One that will only
     * know later may say true and fail the transaction if it was wrong: see was_mistaken. */
    enum store_status (*nobody_else_wrote)(struct store *store, bool *so);

    /* After a write that has failed: only because what nobody_else_wrote had said was wrong, so that the same once more will do? NULL: that cannot be. */
    bool (*was_mistaken)(struct store *store);

    void (*bind_int)(struct store *store, enum sql_statement statement, int index, int64_t value);
    /* Text and bytes must live until the statement is reset. NULL: null. */
    void (*bind_text)(struct store *store, enum sql_statement statement, int index, const char *text,
                      size_t bytes);
    void (*bind_blob)(struct store *store, enum sql_statement statement, int index, const void *data,
                      size_t bytes);
    enum sql_result (*step)(struct store *store, enum sql_statement statement);
    void (*reset)(struct store *store, enum sql_statement statement);
    int64_t (*changes)(struct store *store); /* rows that the last statement without rows has changed */
    /* For what a run writes in large numbers (orders, parts, audit rows, books, limited buyers, keys): as run, but the driver may keep it back and do
     * all of one kind at once, before the next statement that is not of this sort, or at the end of the transaction. No two of a transaction are
     * about the same row. SQLite does it at once; PostgreSQL by INSERT … SELECT FROM unnest(…) and UPDATE … FROM unnest(…). Text and bytes are copied. */
    enum sql_result (*run_later)(struct store *store, enum sql_statement statement);
    /* That the statement, as it is bound now, is likely to be run in this transaction, before anything is written that changes its answer: a driver whose
     * database is far away asks many such questions in one round trip, with the next statement whose answer is needed, and keeps the answers. Each serves one
     * run: then the statement is bound anew, in whatever order, and answered from memory if its parameters are the same. Text and bytes are copied. Needs no
     * reset. NULL: the driver does not care. */
    void (*expect)(struct store *store, enum sql_statement statement);

    int64_t (*int_at)(struct store *store, enum sql_statement statement, int column); /* null: 0 */
    bool (*is_null_at)(struct store *store, enum sql_statement statement, int column);
    /* Until the next step or reset. Null: NULL, 0 bytes. Text is terminated too. */
    const char *(*text_at)(struct store *store, enum sql_statement statement, int column, size_t *bytes);
    const void *(*blob_at)(struct store *store, enum sql_statement statement, int column, size_t *bytes);
    /* For messages, never with a password: the file; "doorbuster on db.example:5432". */
    const char *(*where)(const struct store *store);
    /* store_error(): what, where, why, what helps; STORE_FAILED. */
    enum store_status (*fail)(struct store *store, const char *doing);
};

/* --- transactions --- */
static inline enum store_status sql_write_begin(struct store *store, const char *doing)
{
    return store->sql->write_begin(store, doing);
}

static inline enum store_status sql_write_end(struct store *store, enum store_status status,
                                              const char *doing)
{
    return store->sql->write_end(store, status, doing);
}

static inline bool sql_was_mistaken(struct store *store)
{
    return store->sql->was_mistaken != NULL && store->sql->was_mistaken(store);
}

static inline enum store_status sql_make_sound(struct store *store)
{
    return store->sql->make_sound(store);
}

/* Several reads at one moment; nothing inside a snapshot, which is that already. */
static inline enum store_status sql_read_begin(struct store *store)
{
    return store->in_snapshot ? STORE_OK : store->sql->snapshot_begin(store);
}

static inline void sql_read_end(struct store *store)
{
    if (store->in_snapshot)
        return;
    store_tallies_forget(store);
    store->sql->snapshot_end(store);
}

/* --- statements --- */
static inline void sql_bind_int(struct store *store, enum sql_statement statement, int index, int64_t value)
{
    store->sql->bind_int(store, statement, index, value);
}

static inline void sql_bind_text(struct store *store, enum sql_statement statement, int index,
                                 const char *text, size_t bytes)
{
    store->sql->bind_text(store, statement, index, text, bytes);
}

static inline void sql_bind_string(struct store *store, enum sql_statement statement, int index,
                                   const char *text)
{
    store->sql->bind_text(store, statement, index, text, strlen(text));
}

static inline void sql_bind_blob(struct store *store, enum sql_statement statement, int index,
                                 const void *data, size_t bytes)
{
    store->sql->bind_blob(store, statement, index, data, bytes);
}

static inline enum sql_result sql_step(struct store *store, enum sql_statement statement)
{
    return store->sql->step(store, statement);
}

static inline void sql_reset(struct store *store, enum sql_statement statement)
{
    store->sql->reset(store, statement);
}

/* For a statement whose rows do not matter. SQL_ROW: it has some. */
static inline enum sql_result sql_run(struct store *store, enum sql_statement statement)
{
    enum sql_result result = store->sql->step(store, statement);
    store->sql->reset(store, statement);
    return result;
}

static inline enum sql_result sql_run_later(struct store *store, enum sql_statement statement)
{
    return store->sql->run_later(store, statement);
}

static inline int64_t sql_changes(struct store *store)
{
    return store->sql->changes(store);
}

/* False: do not bother to bind what is to be expected. */
static inline bool sql_may_expect(const struct store *store)
{
    return store->sql->expect != NULL;
}

static inline void sql_expect(struct store *store, enum sql_statement statement)
{
    if (store->sql->expect != NULL)
        store->sql->expect(store, statement);
}

/* --- rows --- */
static inline int64_t sql_int(struct store *store, enum sql_statement statement, int column)
{
    return store->sql->int_at(store, statement, column);
}

static inline bool sql_is_null(struct store *store, enum sql_statement statement, int column)
{
    return store->sql->is_null_at(store, statement, column);
}

/* Null: NULL. */
static inline const char *sql_text(struct store *store, enum sql_statement statement, int column)
{
    size_t bytes;
    return store->sql->text_at(store, statement, column, &bytes);
}

static inline const void *sql_blob(struct store *store, enum sql_statement statement, int column,
                                   size_t *bytes)
{
    return store->sql->blob_at(store, statement, column, bytes);
}

/* Null: "". What is too long is cut. */
static inline void sql_copy_text(struct store *store, enum sql_statement statement, int column, char *out,
                                 size_t out_bytes)
{
    size_t bytes;
    const char *text = store->sql->text_at(store, statement, column, &bytes);
    if (bytes >= out_bytes)
        bytes = out_bytes - 1;
    if (text != NULL)
        memcpy(out, text, bytes);
    out[text != NULL ? bytes : 0] = '\0';
}

/* --- errors --- */
static inline const char *sql_where(const struct store *store)
{
    return store->sql->where(store);
}

static inline enum store_status sql_fail(struct store *store, const char *doing)
{
    return store->sql->fail(store, doing);
}

#endif
