/* What the files of the store's rules share, and what they keep with a connection. The functions that anybody may call are in store.h.
 *
 *   rows.c        accounts, products, single orders
 *   record.c      the recorder: position, epoch, runs of log entries
 *   selling.c     without a sales log: batches of purchases, decided and applied
 *   changes.c     without a sales log: stock, prices, windows, cancellations; what the stock was
 *   books.c       the products' books while a run is applied
 *   audit.c       reads over all orders
 *   audit_log.c   the audit log: its chain, its rows
 *   statements.c  their SQL, run by a driver: sql.h */
#ifndef STORE_RULES_H
#define STORE_RULES_H

#include "doorbuster/store.h"

#define STORE_IDS_SKIPPED "1000000" /* more than are given away in the time that a backup misses */

enum store_book_change { BOOK_AS_READ, BOOK_SOLD, BOOK_CHANGED }; /* BOOK_SOLD: stock and sold, no more */

/* What a bundle is made of, which never changes. */
struct store_bundle {
    size_t count;
    struct bundle_component components[BUNDLE_COMPONENTS_MAX];
};

/* A product's book while a run of entries is applied to it. */
struct store_book {
    int64_t product_id; /* 0: free slot */
    bool known;
    bool expected; /* the driver was told that it will be read */
    enum store_book_change change;
    bool opened, is_bundle;
    int64_t stock, opening, restocked, cancelled, sold;
    int64_t price;
    struct sale_window window;
    int64_t limit;               /* never changes */
    struct store_bundle *bundle; /* NULL: not a bundle, or not asked for yet */
    int64_t updated_at_ms;
    /* What the entry at hand has moved. All its orders move the same way. */
    int64_t moved; /* 0: nothing yet */
    int64_t first_order_id, last_order_id;
    int64_t user_id; /* 0: several */
};

/* Open addressing, linear probing; never more than half full. Kept between runs, so that a run allocates nothing, and reads a book again only
 * if somebody else has written meanwhile. */
struct store_books {
    struct store_book *slots;
    int64_t *moved;  /* the products that the entry at hand has moved, room for half the capacity */
    size_t capacity; /* a power of two, or 0 */
    size_t used, moved_count;
    struct store_book nobody; /* of product 0: unknown */
    /* They are what the database has if the store stands here. */
    uint64_t epoch;
    struct log_position position;
};

/* The end of the audit log: what the next row builds on. */
struct store_chain {
    int64_t seq; /* of the last row, 0: none */
    unsigned char hash[STORE_AUDIT_HASH_BYTES];
};

/* What passes over the orders and the audit log found of each product. */
struct store_tally {
    int64_t product_id;
    struct store_product_audit audit;
    int64_t last_part_order_id; /* the last order that had it behind its first line */
    /* While the chain is walked. */
    bool is_bundle;
    int64_t stock;
    struct store_term {
        bool known; /* it was changed before: what it was from the beginning has no row */
        int64_t figure;
    } price, starts, ends;
};

/* Sorted by product id. */
struct store_tallies {
    struct store_tally *rows; /* NULL: nothing was counted yet */
    size_t count;
    int64_t audit_seq; /* the audit log's rows up to here are in them */
};

/* rows.c */
/* What the bundle is made of, in order of product id; nothing of other products. */
enum store_status store_components(struct store *store, int64_t bundle_id,
                                   struct bundle_component out[BUNDLE_COMPONENTS_MAX], size_t *count);

/* record.c */
/* In a write transaction: moves the position from `from` to the last entry's and applies the entries, as store_record() says; the books are
 * written. `rejected`: room for all their orders. After a failure, or if the transaction is not committed: store_books_forget(). */
enum store_status store_apply_run(struct store *store, uint64_t epoch, struct log_position from,
                                  const struct log_entry *entries, size_t count, int64_t *rejected,
                                  size_t *rejected_count);
/* A failpoint has fired. */
enum store_status store_fail_for_a_test(struct store *store, const char *what);

/* selling.c */
/* A write without a sales log. */
struct store_turn {
    struct store *store;
    const char *doing;
    struct store_position position; /* of the store, now */
    struct log_position next;       /* of the entry to come */
    int64_t now_ms;                 /* the machine's clock: for sale windows and keys */
    int64_t at_ms;                  /* the log's time: it never goes back */
};
/* Begins the transaction. STORE_FENCED: the store is the Lua gate's. After STORE_OK call store_turn_end() with how the work went. */
enum store_status store_turn_begin(struct store *store, const char *doing, struct store_turn *out);
enum store_status store_turn_end(const struct store_turn *turn, enum store_status status);
/* Applies an entry without orders that must fit, at the turn's next position. */
enum store_status store_turn_apply(const struct store_turn *turn, struct log_entry *entry);
struct store_counter;
void store_counter_free(struct store_counter **counter);

/* books.c */
/* The book of a product, read at its first mention. NULL: failed, the error is set. Valid until the next call with another product. */
struct store_book *store_book_of(struct store *store, int64_t product_id);
/* The same without the store: a book that is not there yet is empty. NULL: out of memory. */
struct store_book *store_books_find(struct store_books *books, int64_t product_id);
/* What the book's product is made of, read when it is first asked for; nothing of other products. NULL: failed, the error is set. Valid as long as the books
 * are kept. */
const struct store_bundle *store_book_bundle(struct store *store, struct store_book *book);
bool store_book_sell(struct store_book *book,
                     int64_t quantity); /* false: it does not fit, nothing was changed */
void store_book_unsell(struct store_book *book, int64_t quantity);    /* as if it had not been sold */
bool store_book_give_back(struct store_book *book, int64_t quantity); /* likewise */
void store_book_take_back(struct store_book *book, int64_t quantity); /* as if it had not been given back */
bool store_book_change_stock(struct store_book *book, const struct stock_change *change);
void store_book_touch(struct store_book *book, enum store_book_change change, int64_t at_ms);
/* Notes that the entry at hand moved `units` (negative: sold) with this order. */
void store_books_move(struct store_books *books, struct store_book *book, int64_t units, int64_t order_id,
                      int64_t user_id);
void store_books_settle(struct store_books *books); /* the entry is done */
/* In the transaction of a run. begin: before anything else but the move of the position, which is, or was, at `position` in `epoch`: forgets the books if
 * somebody else has written since they were read. expect: tells the driver that the product's book will be read, if it will be. write: writes those that
 * changed; the store then is at `position`. */
enum store_status store_books_begin(struct store *store, uint64_t epoch, struct log_position position);
void store_books_expect(struct store *store, int64_t product_id);
enum store_status store_books_write(struct store *store, struct log_position position, const char *doing);
void store_books_forget(struct store_books *books); /* the run was not committed */
void store_books_free(struct store_books *books);

/* audit_log.c */
enum store_status store_chain_read(struct store *store, struct store_chain *out);
/* Gives the row the next number and its hash and writes it. False: it failed. */
bool store_chain_append(struct store *store, struct store_chain *chain, struct store_audit_row *row);
/* The newest applied change after `after_ms` with this actor's key, if there is one. */
enum store_status store_find_change_key(struct store *store, int64_t after_ms, int64_t actor, const char *key,
                                        size_t key_bytes, bool *found, struct store_change_key *out);
/* The first row of an entry at `position` or later; one behind the last row if there is none. */
enum store_status store_first_row_from(struct store *store, struct log_position position, int64_t *seq);

/* audit.c */
/* No order below *id is of `since_ms` or later. */
enum store_status store_first_order_since(struct store *store, int64_t since_ms, int64_t *id);
/* Counts a row of the audit log that was applied; `to` is the figure afterwards. */
void store_tally_log_row(struct store_tally *tally, const char *cause, int64_t delta, int64_t to);
/* The tally of a product, made if it has none yet; it moves when another is made. NULL: out of memory. */
struct store_tally *store_tally_of(struct store_tallies *tallies, int64_t product_id);
void store_tallies_free(struct store_tallies *tallies);
void store_tallies_forget(struct store *store); /* at the end of a snapshot */

#endif
