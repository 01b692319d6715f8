/* Fills the audit log of a store that is older than the audit log, from its stock changes and orders.
 *
 * Runs in whatever writer upgrades the schema, inside the transaction of migration 2, once in the life of a store. Both are read in the order of
 * the sales log; the sales between two stock changes become one row for each product. Owns its own books and statements, as the connection has
 * none yet. Any failure undoes the whole migration. */
#include "sqlite.h"

#include <stdio.h>
#include <string.h>

static const char doing[] = "writing the audit log of what was before it";

enum { CHANGES, ORDERS, DROP, STATEMENTS };
static const char *const sql[STATEMENTS] = {
    [CHANGES] =
        "SELECT log_epoch, log_n, at_ms, product_id, delta, cause, applied, actor, note FROM stock_changes"
        " ORDER BY log_epoch, log_n",
    [ORDERS] = "SELECT log_epoch, log_n, at_ms, id, user_id, product_id, quantity FROM orders WHERE state = "
               "0 ORDER BY id",
    [DROP] = "DROP TABLE stock_changes",
};

struct history {
    struct sqlite_store *store;
    sqlite3_stmt *statements[STATEMENTS];
    struct store_books books; /* stock only */
    struct store_chain chain;
    struct log_position last_sale; /* of the sales not written yet */
    int64_t last_sale_at_ms;
};

static enum store_status out_of_memory(struct history *history)
{
    return store_refuse(&history->store->base, "%s in %s failed: out of memory", doing, history->store->path);
}

static struct log_position position_of(sqlite3_stmt *row)
{
    return (struct log_position){(uint64_t)sqlite3_column_int64(row, 0),
                                 (uint64_t)sqlite3_column_int64(row, 1)};
}

static enum store_status append(struct history *history, struct store_audit_row *row)
{
    return store_chain_append(&history->store->base, &history->chain, row)
               ? STORE_OK
               : sqlite_fail(history->store, doing);
}

static enum store_status write_sales(struct history *history)
{
    enum store_status status = STORE_OK;
    for (size_t i = 0; i < history->books.moved_count && status == STORE_OK; i++) {
        const struct store_book *book = store_books_find(&history->books, history->books.moved[i]);
        struct store_audit_row row = {.at_ms = history->last_sale_at_ms,
                                      .position = history->last_sale,
                                      .product_id = book->product_id,
                                      .cause = "sale",
                                      .delta = book->moved,
                                      .from = book->stock - book->moved,
                                      .to = book->stock,
                                      .applied = true,
                                      .actor = book->user_id};
        snprintf(row.note, sizeof row.note, "orders %lld to %lld, from before the audit log",
                 (long long)book->first_order_id, (long long)book->last_order_id);
        status = append(history, &row);
    }
    store_books_settle(&history->books);
    return status;
}

static enum store_status count_sale(struct history *history, sqlite3_stmt *order)
{
    struct store_book *book = store_books_find(&history->books, sqlite3_column_int64(order, 5));
    if (book == NULL)
        return out_of_memory(history);
    int64_t quantity = sqlite3_column_int64(order, 6);
    book->stock -= quantity;
    store_books_move(&history->books, book, -quantity, sqlite3_column_int64(order, 3),
                     sqlite3_column_int64(order, 4));
    history->last_sale = position_of(order);
    history->last_sale_at_ms = sqlite3_column_int64(order, 2);
    return STORE_OK;
}

/* Counts the sales that the log has before `until`; NULL: all that are left. *code is what the last step of the orders said. */
static enum store_status count_sales(struct history *history, const struct log_position *until, int *code)
{
    sqlite3_stmt *orders = history->statements[ORDERS];
    enum store_status status = STORE_OK;
    while (status == STORE_OK && *code == SQLITE_ROW &&
           (until == NULL || log_position_compare(position_of(orders), *until) < 0)) {
        status = count_sale(history, orders);
        *code = sqlite3_step(orders);
    }
    if (status == STORE_OK && *code != SQLITE_ROW && *code != SQLITE_DONE)
        status = sqlite_fail(history->store, doing);
    return status == STORE_OK ? write_sales(history) : status;
}

static enum store_status write_change(struct history *history)
{
    sqlite3_stmt *change = history->statements[CHANGES];
    struct store_book *book = store_books_find(&history->books, sqlite3_column_int64(change, 3));
    if (book == NULL)
        return out_of_memory(history);
    struct store_audit_row row = {.at_ms = sqlite3_column_int64(change, 2),
                                  .position = position_of(change),
                                  .product_id = book->product_id,
                                  .delta = sqlite3_column_int64(change, 4),
                                  .from = book->stock,
                                  .applied = sqlite3_column_int(change, 6) != 0,
                                  .actor = sqlite3_column_int64(change, 7)};
    snprintf(row.cause, sizeof row.cause, "%s", (const char *)sqlite3_column_text(change, 5));
    snprintf(row.note, sizeof row.note, "%s", (const char *)sqlite3_column_text(change, 8));
    if (row.applied)
        book->stock += row.delta;
    row.to = book->stock;
    return append(history, &row);
}

static enum store_status merge(struct history *history)
{
    sqlite3_stmt *changes = history->statements[CHANGES];
    enum store_status status = STORE_OK;
    int more_orders = sqlite3_step(history->statements[ORDERS]), code = SQLITE_DONE;
    while (status == STORE_OK && (code = sqlite3_step(changes)) == SQLITE_ROW) {
        struct log_position at = position_of(changes);
        status = count_sales(history, &at, &more_orders);
        if (status == STORE_OK)
            status = write_change(history);
    }
    if (status == STORE_OK && code != SQLITE_DONE)
        return sqlite_fail(history->store, doing);
    return status == STORE_OK ? count_sales(history, NULL, &more_orders) : status;
}

/* Of the rules' statements the one that appends to the audit log, as it is now: a later migration makes the table anew. */
static bool prepare(struct history *history)
{
    sqlite3 *db = history->store->db;
    bool prepared = sqlite3_prepare_v2(db, sql_statements[SQL_ADD_AUDIT_ROW], -1,
                                       &history->store->statements[SQL_ADD_AUDIT_ROW], NULL) == SQLITE_OK;
    for (size_t i = 0; i < STATEMENTS && prepared; i++)
        prepared = sqlite3_prepare_v2(db, sql[i], -1, &history->statements[i], NULL) == SQLITE_OK;
    return prepared;
}

enum store_status sqlite_write_history(struct sqlite_store *store)
{
    struct history history = {.store = store};
    enum store_status status = prepare(&history) ? merge(&history) : sqlite_fail(store, doing);
    for (size_t i = 0; i < DROP; i++)
        sqlite3_reset(history.statements[i]);
    if (status == STORE_OK && sqlite_run(history.statements[DROP]) != SQLITE_DONE)
        status = sqlite_fail(store, doing);
    for (size_t i = 0; i < STATEMENTS; i++)
        sqlite3_finalize(history.statements[i]);
    sqlite3_finalize(store->statements[SQL_ADD_AUDIT_ROW]);
    store->statements[SQL_ADD_AUDIT_ROW] = NULL;
    store_books_free(&history.books);
    return status;
}
