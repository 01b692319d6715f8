/* What the files of the SQLite driver share. sqlite.c owns the connection; the others only run statements on
 * it.
 *
 *   sqlite.c             URL, open and close, the schema, turns at writing, checkpoints, errors
 *   statements.c         every SQL sentence
 *   rows.c               accounts, products, single orders
 *   record.c             the recorder: position, epoch, runs of log entries
 *   selling.c            without a sales log: batches of purchases, decided and applied
 *   changes.c            without a sales log: stock, prices, windows, cancellations; what the stock was
 *   books.c              the products' books while a run is applied
 *   audit.c              reads over all orders
 *   audit_log.c          the audit log: its chain, its rows
 *   sqlite_history.c     fills the audit log of a store from before there was one
 *   sqlite_backup.c      copies of the store, and putting one back
 *   faulty_vfs.c         a disk that fails, in the test build */
#ifndef STORE_SQLITE_H
#define STORE_SQLITE_H

#include "driver.h"

#include <limits.h>
#include <sqlite3.h>

enum sqlite_statement {
    SQL_BEGIN_WRITE,
    SQL_BEGIN_READ,
    SQL_COMMIT,
    SQL_ROLLBACK,
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
    SQL_RENAME_PRODUCT,
    SQL_PRODUCTS_AFTER,
    SQL_CATALOG_SIZE,
    SQL_ORDER_BY_ID,
    SQL_ORDERS_OF_USER,
    SQL_ORDERS_BACKWARDS,
    SQL_LATEST_ORDERS,
    SQL_ORDER_PARTS,
    SQL_LAST_ORDER_BEFORE,
    SQL_DATA_VERSION,
    SQL_POSITION,
    SQL_RAISE_EPOCH,
    SQL_MOVE_POSITION,
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
extern const char *const sqlite_statements[SQL_STATEMENTS];

enum sqlite_book_change { BOOK_AS_READ, BOOK_SOLD, BOOK_CHANGED }; /* BOOK_SOLD: stock and sold, no more */

/* A product's book while a run of entries is applied to it. */
struct sqlite_book {
    int64_t product_id; /* 0: free slot */
    bool known;
    enum sqlite_book_change change;
    bool opened, is_bundle;
    int64_t stock, opening, restocked, cancelled, sold;
    int64_t price;
    struct sale_window window;
    int64_t limit; /* never changes */
    int64_t updated_at_ms;
    /* What the entry at hand has moved. All its orders move the same way. */
    int64_t moved; /* 0: nothing yet */
    int64_t first_order_id, last_order_id;
    int64_t user_id; /* 0: several */
};

/* Open addressing, linear probing; never more than half full. Kept between runs, so that a run allocates nothing, and reads a book again only
 * if another connection has written meanwhile. */
struct sqlite_books {
    struct sqlite_book *slots;
    int64_t *moved;  /* the products that the entry at hand has moved, room for half the capacity */
    size_t capacity; /* a power of two, or 0 */
    size_t used, moved_count;
    struct sqlite_book nobody; /* of product 0: unknown */
    int64_t data_version;      /* of the database that they were read from */
};

/* The end of the audit log: what the next row builds on. */
struct sqlite_chain {
    int64_t seq; /* of the last row, 0: none */
    unsigned char hash[STORE_AUDIT_HASH_BYTES];
};

/* What passes over the orders and the audit log found of each product. */
struct sqlite_tally {
    int64_t product_id;
    struct store_product_audit audit;
    int64_t last_part_order_id; /* the last order that had it behind its first line */
    /* While the chain is walked. */
    bool is_bundle;
    int64_t stock;
    struct sqlite_term {
        bool known; /* it was changed before: what it was from the beginning has no row */
        int64_t figure;
    } price, starts, ends;
};

/* Sorted by product id. */
struct sqlite_tallies {
    struct sqlite_tally *rows; /* NULL: nothing was counted yet */
    size_t count;
    int64_t audit_seq; /* the audit log's rows up to here are in them */
};

struct sqlite_store {
    struct store base;
    sqlite3 *db;
    sqlite3_stmt *statements[SQL_STATEMENTS];
    char path[PATH_MAX];
    int lock_fd;          /* writers: <path>.lock, else -1 */
    long owner_pid;       /* must not cross a fork */
    int wal_pages;        /* in the write-ahead log after our last commit */
    int checkpoint_pages; /* checkpoint when it reaches this */
    bool log_is_sound;    /* nothing that failed to reach the disk can be in the write-ahead log */
    struct sqlite_books books;
    struct sqlite_counter *counter; /* selling.c       ; made at the first sale */
    struct sqlite_tallies tallies;  /* held from the first question of a snapshot to its end */
    struct sqlite_tallies walked;   /* held from a walk along the chain to the end of the next snapshot */
};

struct sqlite_store *sqlite_of(struct store *store);

/* Makes store_error() say what was being done, on which file, why it failed and what helps. Always returns
 * STORE_FAILED. */
enum store_status sqlite_fail(struct sqlite_store *store, const char *doing);
/* The same for what SQLite itself finds no fault with. */
enum store_status sqlite_refuse(struct sqlite_store *store, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* A write: waits for its turn. After STORE_OK call sqlite_write_end with how the work went: it commits if
 * that is STORE_OK, else rolls back, gives the turn up either way, and returns the outcome. */
enum store_status sqlite_write_begin(struct sqlite_store *store, const char *doing);
enum store_status sqlite_write_end(struct sqlite_store *store, enum store_status status, const char *doing);

/* Before a recording on a connection that knows no better: has the write-ahead log copied into the database and emptied. After a
 * failed write or sync the kernel may show bytes in it that never reached the disk; if a recovery took them for a commit, everything
 * behind them would be lost with the power. Waits a bounded time for readers. Does nothing if the log is sound. */
enum store_status sqlite_make_log_sound(struct sqlite_store *store);
/* For those who read for long: a descriptor to ask with whether a writer waits in sqlite_make_log_sound() until they are done; -1: none. */
int sqlite_look_at_lock(const struct sqlite_store *store);
bool sqlite_log_is_wanted(int lock_fd);

/* Several reads at one moment; nothing inside a snapshot, which is that already. */
enum store_status sqlite_read_begin(struct sqlite_store *store);
void sqlite_read_end(struct sqlite_store *store);

/* Steps a statement that returns no rows and makes it ready for the next time. SQLITE_DONE, or an error code.
 */
int sqlite_run(sqlite3_stmt *statement);
void sqlite_bind_text(sqlite3_stmt *statement, int index,
                      const char *text); /* must live until the statement is reset */

/* rows.c        */
enum store_status sqlite_add_user(struct store *store, struct store_user *user);
enum store_status sqlite_find_user(struct store *store, const char *username, struct store_user *out);
enum store_status sqlite_find_user_by_id(struct store *store, int64_t id, struct store_user *out);
enum store_status sqlite_update_user(struct store *store, int64_t id, enum user_role role,
                                     const char *password_hash);
enum store_status sqlite_add_product(struct store *store, struct store_product *product);
enum store_status sqlite_find_product(struct store *store, int64_t id, struct store_product *out);
enum store_status sqlite_find_product_by_name(struct store *store, const char *name,
                                              struct store_product *out);
enum store_status sqlite_rename_product(struct store *store, int64_t id, const char *name);
enum store_status sqlite_products(struct store *store, int64_t after, struct store_product *out, size_t max,
                                  size_t *count);
enum store_status sqlite_find_order(struct store *store, int64_t id, struct store_order *out);
enum store_status sqlite_catalog_size(struct store *store, size_t newest, int64_t *count, int64_t *first);
enum store_status sqlite_latest_orders(struct store *store, struct store_order *out, size_t max,
                                       size_t *count);
enum store_status sqlite_order_parts(struct store *store, int64_t id, struct order_part *out, size_t max,
                                     size_t *count);
enum store_status sqlite_find_requests(struct store *store, struct log_position from,
                                       struct store_request *wanted, size_t count);
enum store_status sqlite_orders_of(struct store *store, int64_t user_id, int64_t before,
                                   struct store_order *out, size_t max, size_t *count);

/* What the bundle is made of, in order of product id; nothing of other products. */
enum store_status sqlite_components(struct sqlite_store *store, int64_t bundle_id,
                                    struct bundle_component out[BUNDLE_COMPONENTS_MAX], size_t *count);

/* record.c        */
enum store_status sqlite_position(struct store *store, struct store_position *out);
enum store_status sqlite_raise_epoch(struct store *store, uint64_t from, uint64_t to);
enum store_status sqlite_skip_to(struct store *store, uint64_t epoch, struct log_position from,
                                 struct log_position to);
enum store_status sqlite_record(struct store *store, uint64_t epoch, struct log_position from,
                                const struct log_entry *entries, size_t count, int64_t *rejected,
                                size_t *rejected_count);

/* In a write transaction: moves the position from `from` to the last entry's and applies the entries, as store_record() says; the books are
 * written. `rejected`: room for all their orders. After a failure, or if the transaction is not committed: sqlite_books_forget(). */
enum store_status sqlite_apply_run(struct sqlite_store *store, uint64_t epoch, struct log_position from,
                                   const struct log_entry *entries, size_t count, int64_t *rejected,
                                   size_t *rejected_count);
/* A failpoint has fired. */
enum store_status sqlite_fail_for_a_test(struct sqlite_store *store, const char *what);

/* selling.c        */
/* A write without a sales log. */
struct sqlite_turn {
    struct sqlite_store *store;
    const char *doing;
    struct store_position position; /* of the store, now */
    struct log_position next;       /* of the entry to come */
    int64_t now_ms;                 /* the machine's clock: for sale windows and keys */
    int64_t at_ms;                  /* the log's time: it never goes back */
};
/* Begins the transaction. STORE_FENCED: the store is the Lua gate's. After STORE_OK call sqlite_turn_end() with how the work went. */
enum store_status sqlite_turn_begin(struct sqlite_store *store, const char *doing, struct sqlite_turn *out);
enum store_status sqlite_turn_end(const struct sqlite_turn *turn, enum store_status status);
/* Applies an entry without orders that must fit, at the turn's next position. */
enum store_status sqlite_turn_apply(const struct sqlite_turn *turn, struct log_entry *entry);
void sqlite_counter_free(struct sqlite_store *store);
enum store_status sqlite_take_over(struct store *store);
enum store_status sqlite_sell(struct store *store, struct purchase *const *purchases, size_t count,
                              struct stock_moves *moves);

/* changes.c        */
enum store_status sqlite_change_stock(struct store *store, const struct stock_change *change,
                                      enum change_outcome *outcome, struct change_result *result);
enum store_status sqlite_change_price(struct store *store, const struct price_change *change,
                                      enum change_outcome *outcome, struct change_result *result);
enum store_status sqlite_change_window(struct store *store, const struct window_change *change,
                                       enum change_outcome *outcome, struct change_result *result);
enum store_status sqlite_cancel(struct store *store, int64_t order_id, int64_t actor,
                                enum change_outcome *outcome, struct change_result *result,
                                struct stock_moves *moves);
enum store_status sqlite_stock_at(struct store *store, int64_t product_id, struct log_position position,
                                  bool *known, int64_t *stock);

/* books.c        */
/* The book of a product, read at its first mention. NULL: failed, the error is set. Valid until the next call with another product. */
struct sqlite_book *sqlite_book_of(struct sqlite_store *store, int64_t product_id);
/* The same without the store: a book that is not there yet is empty. NULL: out of memory. */
struct sqlite_book *sqlite_books_find(struct sqlite_books *books, int64_t product_id);
bool sqlite_book_sell(struct sqlite_book *book,
                      int64_t quantity); /* false: it does not fit, nothing was changed */
void sqlite_book_unsell(struct sqlite_book *book, int64_t quantity);    /* as if it had not been sold */
bool sqlite_book_give_back(struct sqlite_book *book, int64_t quantity); /* likewise */
void sqlite_book_take_back(struct sqlite_book *book, int64_t quantity); /* as if it had not been given back */
bool sqlite_book_change_stock(struct sqlite_book *book, const struct stock_change *change);
void sqlite_book_touch(struct sqlite_book *book, enum sqlite_book_change change, int64_t at_ms);
/* Notes that the entry at hand moved `units` (negative: sold) with this order. */
void sqlite_books_move(struct sqlite_books *books, struct sqlite_book *book, int64_t units, int64_t order_id,
                       int64_t user_id);
void sqlite_books_settle(struct sqlite_books *books); /* the entry is done */
enum store_status sqlite_books_write(struct sqlite_store *store, const char *doing);
/* In the transaction, before anything else: forgets them if another connection has written anything since they were read. */
enum store_status sqlite_books_begin(struct sqlite_store *store, const char *doing);
void sqlite_books_forget(struct sqlite_books *books); /* the run was not committed */
void sqlite_books_free(struct sqlite_books *books);

/* audit_log.c        */
enum store_status sqlite_chain_read(struct sqlite_store *store, struct sqlite_chain *out);
/* Gives the row the next number and its hash and writes it by SQL_ADD_AUDIT_ROW, which `statement` is. False: it failed. */
bool sqlite_chain_append(struct sqlite_chain *chain, sqlite3_stmt *statement, struct store_audit_row *row);
enum store_status sqlite_audit_log(struct store *store, int64_t before, int64_t product_id,
                                   struct store_audit_row *out, size_t max, size_t *count);
enum store_status sqlite_audit_row_at(struct store *store, struct log_position position, int64_t product_id,
                                      struct store_audit_row *out);
enum store_status sqlite_audit_chain(struct store *store, struct store_chain_audit *out);
/* The newest applied change after `after_ms` with this actor's key, if there is one. */
enum store_status sqlite_find_change_key(struct sqlite_store *store, int64_t after_ms, int64_t actor,
                                         const char *key, size_t key_bytes, bool *found,
                                         struct store_change_key *out);
/* The first row of an entry at `position` or later; one behind the last row if there is none. */
enum store_status sqlite_first_row_from(struct sqlite_store *store, struct log_position position,
                                        int64_t *seq);
enum store_status sqlite_each_change_key(struct store *store, int64_t since_ms, store_change_key_cb cb,
                                         void *context);

/* sqlite_history.c: inside the transaction of migration 2, before the connection's statements are prepared. */
enum store_status sqlite_write_history(struct sqlite_store *store);

/* sqlite_backup.c */
#define SQLITE_IDS_SKIPPED "1000000" /* more than are given away in the time that a backup misses */
enum store_status sqlite_back_up(struct store *store, const char *path, struct store_position *position);
enum store_status sqlite_begin_anew(struct store *store);
enum store_status sqlite_pack(const char *path, char *error, size_t error_bytes);

/* audit.c        */
enum store_status sqlite_each_buyer(struct store *store, store_buyer_cb cb, void *context);
enum store_status sqlite_each_key(struct store *store, int64_t since_ms, store_key_cb cb, void *context);
/* The same within a transaction. */
enum store_status sqlite_each_key_now(struct sqlite_store *store, int64_t since_ms, store_key_cb cb,
                                      void *context);
enum store_status sqlite_audit_product(struct store *store, int64_t product_id,
                                       struct store_product_audit *out);
enum store_status sqlite_audit_orders(struct store *store, struct store_orders_audit *out);
void sqlite_audit_forget(struct sqlite_store *store);
/* Counts a row of the audit log that was applied; `to` is the figure afterwards. */
void sqlite_tally_log_row(struct sqlite_tally *tally, const char *cause, int64_t delta, int64_t to);
/* The tally of a product, made if it has none yet; it moves when another is made. NULL: out of memory. */
struct sqlite_tally *sqlite_tally_of(struct sqlite_tallies *tallies, int64_t product_id);
void sqlite_tallies_free(struct sqlite_tallies *tallies);

#endif
