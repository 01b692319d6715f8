/* The store: what was bought. It speaks in sales, not in SQL. Its rules (src/store/rules.h) are written once; drivers run their SQL: SQLite
 * (src/store/sqlite.c) and PostgreSQL (src/store/postgres.h).
 *
 * The store is always a prefix of the sales log: `store_record` applies a run of entries and moves the store's position in the log,
 * in one transaction; nothing else changes stock or orders.
 *
 * A `struct store` is one connection. One thread at a time may use it (a mutex or a free list around it is the caller's); it must
 * not cross a fork. Writers of several processes take turns (on a lock file, or on a row), so a write waits for the
 * others' commits.
 *
 * Every function returns a store_status. After STORE_FAILED, store_error() is a sentence for the log: what failed, on what. */
#ifndef DOORBUSTER_STORE_H
#define DOORBUSTER_STORE_H

#include "doorbuster/change.h"
#include "doorbuster/sale.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum store_status {
    STORE_OK,
    STORE_NOT_FOUND, /* no such row */
    STORE_TAKEN,     /* a name that must be unique is in use */
    STORE_FENCED,    /* the epoch or the position moved under us: another recorder is at work; stand by */
    /* the store cannot be reached, is full, is damaged, …; store_error() says it. Nothing was changed, unless it was the COMMIT whose answer was
     * lost: who must know reads again (the recorder: store_position) */
    STORE_FAILED,
};

enum store_mode {
    STORE_READER, /* reads only; never blocks a writer, never waits for one */
    STORE_WRITER, /* accounts and product rows too */
};

#define STORE_USERNAME_BYTES 201      /* 50 code points, terminated */
#define STORE_EMAIL_BYTES 1017        /* 254 code points, terminated */
#define STORE_PASSWORD_HASH_BYTES 129 /* crypto_pwhash_STRBYTES and one */
#define STORE_PRODUCT_NAME_BYTES 801  /* 200 code points, terminated */
#define STORE_REQUEST_BYTES (21 + IDEMPOTENCY_KEY_BYTES_MAX)
#define STORE_REQUEST_HASH_BYTES 65
#define STORE_DESCRIPTION_BYTES 4001

enum user_role { USER_BUYER, USER_ADMIN };

struct store_user {
    int64_t id;
    char username[STORE_USERNAME_BYTES];
    char email[STORE_EMAIL_BYTES]; /* "" if none was given */
    char password_hash[STORE_PASSWORD_HASH_BYTES];
    enum user_role role;
    int64_t created_at_ms;
};

struct store_product {
    int64_t id;
    char name[STORE_PRODUCT_NAME_BYTES];
    char description[STORE_DESCRIPTION_BYTES]; /* "" if none */
    int64_t price;                             /* smallest currency unit, > 0 */
    int64_t per_customer_limit;                /* units; 0: no limit */
    /* the sale's window: from the one until just before the other, ms since 1970; 0: none */
    int64_t starts_at_ms, ends_at_ms;
    struct bundle_component components[BUNDLE_COMPONENTS_MAX]; /* in order of product id */
    /* 0: not a bundle. Of a bundle stock, opening and restocked are 0; sold and cancelled count bundles */
    size_t component_count;
    int64_t planned_stock; /* what it is to open with */
    bool opened;           /* its opening is in the log and recorded */
    /* The book. opening + restocked + cancelled - sold = stock >= 0, always, unless it is a bundle; the schema checks it too. */
    int64_t stock;
    int64_t opening;
    int64_t restocked; /* less withdrawals, so it may be negative */
    int64_t cancelled;
    int64_t sold;
    int64_t created_at_ms;
    int64_t updated_at_ms;
};

enum order_state { ORDER_CONFIRMED, ORDER_REJECTED, ORDER_CANCELLED };

struct store_order {
    /* of those read from the store key and `more` are NULL: see idempotency_key, store_order_parts() */
    struct sale_order sale;
    enum order_state state;
    int64_t at_ms; /* when Redis reserved it */
    struct log_position position;
    size_t part_count;       /* its first line and the parts behind it: 1 for nearly all */
    int64_t cancelled_at_ms; /* ORDER_CANCELLED; else 0 */
    int64_t cancelled_by;    /* likewise: a user id */
    char idempotency_key[IDEMPOTENCY_KEY_BYTES_MAX + 1]; /* "" if none */
};

/* Who changes the books: the recorder, from the Lua gate's sales log; or, without one, whoever calls the functions "without a sales log". */
enum store_seller { STORE_SOLD_BY_LUA, STORE_SOLD_BY_REDLOCK };

struct store_position {
    uint64_t epoch; /* of the last attach, or take-over */
    enum store_seller seller;
    struct log_position recorded; /* everything in the log up to here is in the store */
    int64_t last_order_id;        /* highest order id recorded, 0 if none */
    int64_t store_id;             /* chosen at random when the store was made: tells it from every other */
};

struct store;

/* `cb` is called again and again, on the caller's thread, while a call waits for its turn at the store, or works for long on one statement, so that a process
 * can say that it does not hang. For processes of one thread; at their start. NULL: nobody wants to know. */
void store_while_waiting(void (*cb)(void));

/* Which shop this process serves, for databases that hold several; a store in a file holds one, whatever its name. Called once, before anything is opened;
 * `name` ([A-Za-z0-9_-]{1,32}, the caller has looked) must outlive every connection. "doorbuster" if it is not called. */
void store_use_shop(const char *name);

/* Opens the store named by `url`: "sqlite:PATH" or "postgres://…". A STORE_WRITER creates and upgrades the schema; a STORE_READER of a store that does
 * not exist yet fails. On failure *out is NULL and `error` a sentence that says what and how to mend it. */
enum store_status store_open(struct store **out, const char *url, enum store_mode mode, char *error,
                             size_t error_bytes);
/* Why store_open() failed: is it a database that nobody answers for just now, that is still starting, a standby, or full of others? Then the same
 * may work before long; else somebody has to mend something. Asks over the network, for some seconds at most. */
bool store_is_away(const char *url);
void store_close(struct store **store);
const char *store_error(const struct store *store);

/* Is this a URL that some driver understands? On false `error` says what it may be. Opens nothing. */
bool store_url_is_valid(const char *url, char *error, size_t error_bytes);

/* --- accounts ------------------------------------------------------------------------------------------------------------ */
/* Adds a user; fills in id and created_at_ms. STORE_TAKEN: the username is in use (compared exactly). */
enum store_status store_add_user(struct store *store, struct store_user *user);
enum store_status store_find_user(struct store *store, const char *username, struct store_user *out);
enum store_status store_find_user_by_id(struct store *store, int64_t id, struct store_user *out);
/* For setup: gives the account this role and password hash. */
enum store_status store_update_user(struct store *store, int64_t id, enum user_role role,
                                    const char *password_hash);

/* --- products ------------------------------------------------------------------------------------------------------------ */
/* Adds a product row: name, description, price, per_customer_limit, window, components, planned_stock are taken from *product, the rest is
 * filled in. Its stock is 0 until its opening comes through the log. STORE_TAKEN: the name is in use. STORE_NOT_FOUND: a component is no
 * product, is a bundle itself, or is not open yet; *product->id is then which. */
enum store_status store_add_product(struct store *store, struct store_product *product);
/* An Idempotency-Key with which a product is asked for. It is known for as long as the product is there. */
struct store_product_request {
    char key[STORE_REQUEST_BYTES];       /* "7 key": the asking account's id, and its key */
    char hash[STORE_REQUEST_HASH_BYTES]; /* of what is asked for */
};
/* The same for a request, whose key must have no product yet; NULL: none. */
enum store_status store_add_product_for(struct store *store, struct store_product *product,
                                        const struct store_product_request *request);
/* The product that was asked for with that key; *same: and asked for in the same words. */
enum store_status store_find_product_of_request(struct store *store,
                                                const struct store_product_request *request,
                                                struct store_product *out, bool *same);
enum store_status store_find_product(struct store *store, int64_t id, struct store_product *out);
enum store_status store_find_product_by_name(struct store *store, const char *name,
                                             struct store_product *out);
/* STORE_TAKEN: the new name is in use. */
enum store_status store_rename_product(struct store *store, int64_t id, const char *name);
/* All products in order of id, at most `max` with an id above `after`. */
enum store_status store_products(struct store *store, int64_t after, struct store_product *out, size_t max,
                                 size_t *count);

/* How many products there are, and the id of the newest-th newest of them (of the first, if there are fewer; 0: there is none). */
enum store_status store_catalog_size(struct store *store, size_t newest, int64_t *count, int64_t *first);

/* --- orders -------------------------------------------------------------------------------------------------------------- */
enum store_status store_find_order(struct store *store, int64_t id, struct store_order *out);
/* The parts of an order behind its first line, in order, at most `max`; none of most orders. */
enum store_status store_order_parts(struct store *store, int64_t id, struct order_part *out, size_t max,
                                    size_t *count);
/* A user's orders, newest first, those with an id below `before` (pass INT64_MAX for all). */
enum store_status store_orders_of(struct store *store, int64_t user_id, int64_t before,
                                  struct store_order *out, size_t max, size_t *count);

/* The newest orders of all, newest first; rejected ones too. Quick however many there are. */
enum store_status store_latest_orders(struct store *store, struct store_order *out, size_t max,
                                      size_t *count);

/* Which of these requests became orders? For workers whose answer from Redis was lost. */
struct store_request {
    int64_t request, user_id; /* what to look for */
    bool found;
    struct store_order order; /* if found */
};
/* Looks through the orders at the log position `from` or later, the newest first: 0.3 s a million. `wanted` comes back sorted. */
enum store_status store_find_requests(struct store *store, struct log_position from,
                                      struct store_request *wanted, size_t count);

/* --- the recorder -------------------------------------------------------------------------------------------------------- */
enum store_status store_position(struct store *store, struct store_position *out);

/* Raises the epoch from `from` to `to` (> from), by compare-and-set. STORE_FENCED: somebody else did. The store is the Lua gate's from then on.
 * Also mends what a failed write or sync may have left: at the first call of a connection, and after a STORE_FAILED of it, all that
 * was committed is first brought to a place that no later recording is built upon (SQLite: the write-ahead log goes into the database
 * and begins anew; measured 30 ms with 27 MB of it, 300 ms with 450 MB). That waits for readers up to 5 s, then STORE_FAILED. store_record does the same if
 * it was not done. */
enum store_status store_raise_epoch(struct store *store, uint64_t from, uint64_t to);

/* Moves the recorded position from `from` to `to`, which is later, without an entry: Redis has forgotten what was between them, and shall
 * never continue there. STORE_FENCED as store_record. STORE_FAILED also if `to` is not later. */
enum store_status store_skip_to(struct store *store, uint64_t epoch, struct log_position from,
                                struct log_position to);

/* Applies entries[0..count) in one transaction and moves the recorded position from `from` to the last entry's. Entries are in log
 * order and all lie after `from`. Durable when it returns STORE_OK.
 * STORE_FENCED: the position or the epoch in the store is not `from`/`epoch` any more; nothing was changed.
 * A sale whose product is unknown or whose stock would fall below 0 is recorded as ORDER_REJECTED and changes no stock; the ids of
 * such orders go to rejected[0..*rejected_count), room for `rejected_max` (CHECKed: at least all orders of the run). Of a cart all or nothing.
 * A sale at another price than the product has at that point of the log is rejected too: the log says in which order prices and sales came.
 * A price and a window count for the product's row from their entry on. A restock above PRODUCT_STOCK_MAX, a price that is none and a window
 * that is never open do not fit; a cancellation may lift the stock above it. A cancellation gives back what the order in the store took, once: of an order that is
 * not there, was rejected or is cancelled already it changes nothing.
 * What our scripts never write must not stop the recorder for ever, so it is logged and passed over: an order whose id is not above
 * all before it (or whose quantity is not positive) is rejected without a row; a change or cancellation that does not fit is kept in the audit log
 * as not applied, and changes nothing. Entries that are not in log order: STORE_FAILED. count = 0: STORE_OK, nothing done. */
enum store_status store_record(struct store *store, uint64_t epoch, struct log_position from,
                               const struct log_entry *entries, size_t count, int64_t *rejected,
                               size_t rejected_max, size_t *rejected_count);

/* --- without a sales log: the Redlock gate ------------------------------------------------------------------------------------ */
/* Here the store decides: what the scripts of the Lua gate do in Redis is done in one write transaction, by the same rules (selling.h), and
 * applied and kept like an entry of the log, whose position is the next one: the same epoch, n + 1. So positions, order ids and the audit log
 * go on without a gap whichever gate sells. Any number of processes may do this; they take turns. STORE_FENCED: the store is the Lua
 * gate's (an attach came in between), nothing was changed. STORE_FAILED as everywhere. */

/* Makes the store the Redlock gate's: from now on the Lua gate's recorder is fenced off, until it attaches again. Raises the epoch if the
 * store was the Lua gate's; else does nothing. */
enum store_status store_take_over(struct store *store);

/* Decides purchases[0..count), in this order, in one transaction, as sell.lua would: count <= SALES_LOG_ORDERS_MAX, their lines together
 * <= SALES_LOG_LINES_MAX. Of each: `order.id` > 0 and prices, remaining, at_ms, position, if it was sold; else `refusal` and its
 * figures, `refused_product_id` and so on as struct purchase has them. Further lines' prices go into order.more as it is; components are in the
 * store only. The states are left alone. If nothing is sold nothing is written. Durable when it returns STORE_OK. */
enum store_status store_sell(struct store *store, struct purchase *const *purchases, size_t count,
                             struct stock_moves *moves);
/* As stock.lua: `change` without its remaining; the result is filled in on CHANGE_MADE and CHANGE_MADE_BEFORE; on CHANGE_SHORT result->stock is
 * what is there. An opening takes the terms from the product's row. Never CHANGE_FAILED. */
enum store_status store_change_stock(struct store *store, const struct stock_change *change,
                                     enum change_outcome *outcome, struct change_result *result);
enum store_status store_change_price(struct store *store, const struct price_change *change,
                                     enum change_outcome *outcome, struct change_result *result);
/* `to` may be asked for as sale_window.h has it; `from` is not read. */
enum store_status store_change_window(struct store *store, const struct window_change *change,
                                      enum change_outcome *outcome, struct change_result *result);
/* As cancel.lua: CHANGE_MADE, CHANGE_MADE_BEFORE (then moves->count is 0), CHANGE_CLOSED: no such order, or it was rejected. */
enum store_status store_cancel(struct store *store, int64_t order_id, int64_t actor,
                               enum change_outcome *outcome, struct change_result *result,
                               struct stock_moves *moves);
/* The product's stock right after the entry at `position`: today's with what came later undone. *known is false if that is more than
 * STORE_STOCK_AT_ROWS_MAX rows of the audit log back, or after the recorded position. STORE_NOT_FOUND: no such product. */
#define STORE_STOCK_AT_ROWS_MAX 20000
enum store_status store_stock_at(struct store *store, int64_t product_id, struct log_position position,
                                 bool *known, int64_t *stock);

/* One row for each customer with live orders of a product that has a limit: for rebuilding Redis. All at one moment; `cb` must not use
 * the store. Reads every order if any product has a limit (about 0.9 s a million), none otherwise. */
typedef bool (*store_buyer_cb)(void *context, int64_t product_id, int64_t user_id,
                               int64_t units); /* false: stop */
enum store_status store_each_buyer(struct store *store, store_buyer_cb cb, void *context);

/* Every confirmed order of `since_ms` or later that has an idempotency key, in order of id (so of one key used twice the newer comes last): for
 * rebuilding Redis. All at one moment; `cb` must not use the store. Reads the orders since then, no others. */
typedef bool (*store_key_cb)(void *context, int64_t user_id, const char *key, int64_t order_id,
                             int64_t at_ms); /* false: stop */
enum store_status store_each_key(struct store *store, int64_t since_ms, store_key_cb cb, void *context);

/* Every change of stock, price or window of `since_ms` or later that was applied and has an idempotency key: for rebuilding Redis, as store_each_key. */
struct store_change_key {
    int64_t actor, at_ms;
    enum change_kind kind;
    struct log_position position;
    int64_t product_id;
    int64_t figure, stock; /* as in struct change_result */
    char key[IDEMPOTENCY_KEY_BYTES_MAX + 1];
};
typedef bool (*store_change_key_cb)(void *context, const struct store_change_key *key); /* false: stop */
enum store_status store_each_change_key(struct store *store, int64_t since_ms, store_change_key_cb cb,
                                        void *context);

/* --- the audit log --------------------------------------------------------------------------------------------------------- */
/* Every change of a book, one row for each product that a log entry moves, of a window two (when it opens, when it is over), written in the transaction that
 * applies the entry, never changed after. Row n holds the BLAKE2b-256 (RFC 7693; `b2sum -l 256`) of row n - 1's hash (32 zero bytes before the first) and its
 * own text (see store_audit_text), so that a row cannot be changed, put in or taken out unnoticed; only the end can be cut off, so keep a copy of the last
 * hash elsewhere. */
#define STORE_AUDIT_HASH_BYTES 32
#define STORE_AUDIT_CAUSE_BYTES 16
#define STORE_AUDIT_TEXT_BYTES 2048
struct store_audit_row {
    int64_t seq; /* dense from 1 */
    int64_t at_ms;
    struct log_position position; /* of the entry */
    int64_t product_id;
    /* "sale", "cancel", "opening", "restock", "withdrawal", "healing", "price", "starts", "ends" */
    char cause[STORE_AUDIT_CAUSE_BYTES];
    int64_t delta; /* units, negative for sales; of the others: to - from */
    /* Stock before and after, of a bundle 0; or price; or one of the window's times, in ms, 0: none. Equal if it was not applied. */
    int64_t from, to;
    bool applied;  /* false: it did not fit and changed nothing */
    int64_t actor; /* user id; 0: the system, or several buyers, whose orders the note names */
    char note[SALES_LOG_NOTE_BYTES];         /* why: "orders 42 to 97", "order 44", an admin's reason */
    char key[IDEMPOTENCY_KEY_BYTES_MAX + 1]; /* the actor's idempotency key, "" if none; not of sales */
    unsigned char hash[STORE_AUDIT_HASH_BYTES];
};
/* Does a row of this cause say what the stock was? Else it is about the terms: price, starts, ends. */
bool store_cause_is_of_stock(const char *cause);
/* What is hashed: "seq at_ms epoch-n product cause delta from to applied actor key note", '-' for no key. Returns the length. */
size_t store_audit_text(const struct store_audit_row *row, char out[STORE_AUDIT_TEXT_BYTES]);
/* The newest first, those with a seq below `before` (INT64_MAX: all), of one product (0: of all), at most `max`. */
enum store_status store_audit_log(struct store *store, int64_t before, int64_t product_id,
                                  struct store_audit_row *out, size_t max, size_t *count);
/* The row that the entry at this position wrote for the product. STORE_NOT_FOUND: none, for Redis forgot the entry before it was recorded, or it
 * did not move the product. Quick however long the log is: positions rise with seq. */
enum store_status store_audit_row_at(struct store *store, struct log_position position, int64_t product_id,
                                     struct store_audit_row *out);

struct store_chain_audit { /* one pass over the audit log */
    int64_t rows;
    int64_t first_gap;    /* smallest missing seq, 0: none */
    int64_t first_forged; /* the first row whose hash is not that of its text and its predecessor, 0: none */
    int64_t first_off;    /* the first row whose figures do not follow on the product's row before, 0: none */
    int64_t first_backwards; /* the first row whose log position is before its predecessor's, 0: none */
    unsigned char head[STORE_AUDIT_HASH_BYTES]; /* hash of the last row; zero bytes if there is none */
};
/* Up to the row that is the last one when it begins. Not within a snapshot (CHECKed), for it takes long: it reads some thousand rows at a time,
 * and what is written meanwhile can be tidied away in between. What it counts is kept for the connection's next snapshot, whose
 * store_audit_product then reads only the rows behind. Measured with a million rows: 2.4 s for the chain, then a snapshot of 1 ms for the
 * products of a store without orders; 2.4 s of an open snapshot when both were in it. */
enum store_status store_audit_chain(struct store *store, struct store_chain_audit *out);

/* --- backup -------------------------------------------------------------------------------------------------------------- */
/* Where a store keeps its data: in one file. False: this one does not; `error` says so. */
#define STORE_PATH_BYTES 4096
bool store_file(const char *url, char path[STORE_PATH_BYTES], char *error, size_t error_bytes);
/* Copies the whole store, as it is at one moment, to the new file `path`, which nobody but the owner may read; *position says where it stands.
 * Others go on writing. When it returns STORE_OK the copy is on the disk, one file, and found sound page by page; else there is none. Not
 * within a snapshot (CHECKed). What others write meanwhile cannot be tidied away, and store_raise_epoch() waits for it. */
enum store_status store_back_up(struct store *store, const char *path, struct store_position *position);
/* For a copy that is to be the store again, before anybody else opens it. What was done after it was made is gone, so nothing of that time may be
 * taken for its own: its epochs and the ids of accounts and products begin far above all that may have been given since. A store of the
 * Redlock gate gets a new store_id, so that no node knows a stock of it; one of the Lua gate keeps its, for its Redis may still have the log that
 * goes on from here. */
enum store_status store_begin_anew(struct store *store);
/* Puts all that belongs to a store into its one file, which may then be moved. STORE_FENCED: somebody has it open. STORE_FAILED: it is damaged, or
 * no store; `error` says it. */
enum store_status store_pack(const char *url, char *error, size_t error_bytes);

/* --- audit --------------------------------------------------------------------------------------------------------------- */
/* Everything between begin and end is read at one moment (one snapshot), including store_position, store_products and the audits. No
 * writing in between (CHECKed). Keep it short: what is written meanwhile cannot be tidied away. End without begin does nothing. */
enum store_status store_snapshot_begin(struct store *store);
void store_snapshot_end(struct store *store);

struct store_product_audit { /* of one product */
    int64_t order_count;     /* orders with it among their parts: confirmed ones and cancelled ones */
    int64_t order_units;     /* SUM(quantity) over these parts */
    int64_t cancelled_units; /* of these, in cancelled orders */
    int64_t component_units; /* of these, taken by bundles */
    int64_t bundled_units;   /* what the bundles in orders are made of: it must be so many */
    int64_t opening_units;   /* SUM(delta) of its `opening` rows in the audit log */
    int64_t restock_units;   /* of `restock`, `withdrawal` and `healing` */
    int64_t logged_stock;    /* its stock, worked out from the audit log alone */
    int64_t logged_price;    /* after the last price change in the audit log; 0: none */
    bool window_logged;      /* there is a change of its window in the audit log */
    struct sale_window logged_window; /* then: after the last one */
    int64_t over_limit_customers;     /* customers whose live orders hold more than the limit */
    int64_t last_order_id;            /* of orders with it, 0: none */
    int64_t last_order_at_ms;
};
/* The first call of a snapshot reads every order (0.2 s a million, 1 s if products have limits) and of the audit log what store_audit_chain has
 * not read just before (0.8 s a million rows), and counts for all products; further ones in the same snapshot are quick. */
enum store_status store_audit_product(struct store *store, int64_t product_id,
                                      struct store_product_audit *out);

struct store_orders_audit { /* over all orders, confirmed and rejected; one pass in order of id */
    int64_t count;
    int64_t first_id, last_id; /* 0 if none; without gaps last_id - first_id + 1 = count and first_id = 1 */
    int64_t rejected;
    int64_t first_gap;          /* smallest missing id, 0: none */
    int64_t out_of_log_order;   /* orders whose log position is below that of the order before */
    int64_t out_of_time_order;  /* orders whose time is before that of the order before */
    int64_t first_out_of_order; /* id of the first such order, 0: none */
    int64_t beyond_position;    /* orders whose log position is after the store's recorded position */
    int64_t unknown_user;       /* orders of a user that does not exist */
    int64_t unknown_product;
    /* neither, but of a user or product that was made after the backup that was restored; see store_begin_anew() */
    int64_t lost;
};
enum store_status store_audit_orders(struct store *store, struct store_orders_audit *out);

#endif
