/* The store: what was bought. It speaks in sales, not in SQL. Drivers: SQLite (src/store/sqlite.c).
 *
 * The store is always a prefix of the sales log: `store_record` applies a run of entries and moves the store's position in the log,
 * in one transaction; nothing else changes stock or orders.
 *
 * A `struct store` is one connection. One thread at a time may use it (a mutex or a free list around it is the caller's); it must
 * not cross a fork. Writers of several processes take turns on a lock file, so a write waits for the others' commits.
 *
 * Every function returns a store_status. After STORE_FAILED, store_error() is a sentence for the log: what failed, on what. */
#ifndef DOORBUSTER_STORE_H
#define DOORBUSTER_STORE_H

#include "doorbuster/sales_log.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum store_status {
    STORE_OK,
    STORE_NOT_FOUND, /* no such row */
    STORE_TAKEN,     /* a name that must be unique is in use */
    STORE_FENCED,    /* the epoch or the position moved under us: another recorder is at work; stand by */
    STORE_FAILED, /* the store cannot be reached, is full, is damaged, …; store_error() says it. Nothing was changed, unless it was the
                     COMMIT whose answer was lost: who must know reads again (the recorder: store_position) */
};

enum store_mode {
    STORE_READER, /* reads only; never blocks a writer, never waits for one */
    STORE_WRITER, /* accounts and product rows too */
};

#define STORE_USERNAME_BYTES 201      /* 50 code points, terminated */
#define STORE_EMAIL_BYTES 1017        /* 254 code points, terminated */
#define STORE_PASSWORD_HASH_BYTES 129 /* crypto_pwhash_STRBYTES and one */
#define STORE_PRODUCT_NAME_BYTES 801  /* 200 code points, terminated */
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
    int64_t planned_stock;                     /* what it is to open with */
    bool opened;                               /* its opening is in the log and recorded */
    /* The book. opening + restocked + cancelled - sold = stock >= 0, always; the schema checks it too. */
    int64_t stock;
    int64_t opening;
    int64_t restocked; /* less withdrawals, so it may be negative */
    int64_t cancelled;
    int64_t sold;
    int64_t created_at_ms;
    int64_t updated_at_ms;
};

enum order_state { ORDER_CONFIRMED, ORDER_REJECTED };

struct store_order {
    struct sale_order sale; /* of those read from the store key is NULL: see idempotency_key */
    enum order_state state;
    int64_t at_ms; /* when Redis reserved it */
    struct log_position position;
    char idempotency_key[IDEMPOTENCY_KEY_BYTES_MAX + 1]; /* "" if none */
};

struct store_position {
    uint64_t epoch;               /* of the last attach */
    struct log_position recorded; /* everything in the log up to here is in the store */
    int64_t last_order_id;        /* highest order id recorded, 0 if none */
    int64_t store_id;             /* chosen at random when the store was made: tells it from every other */
};

struct store;

/* Opens the store named by `url`: "sqlite:PATH". A STORE_WRITER creates and upgrades the schema; a STORE_READER of a store that does
 * not exist yet fails. On failure *out is NULL and `error` a sentence that says what and how to mend it. */
enum store_status store_open(struct store **out, const char *url, enum store_mode mode, char *error,
                             size_t error_bytes);
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
/* Adds a product row: name, description, price, per_customer_limit, planned_stock are taken from *product, the rest is filled in.
 * Its stock is 0 until its opening comes through the log. STORE_TAKEN: the name is in use. */
enum store_status store_add_product(struct store *store, struct store_product *product);
enum store_status store_find_product(struct store *store, int64_t id, struct store_product *out);
enum store_status store_find_product_by_name(struct store *store, const char *name,
                                             struct store_product *out);
/* STORE_TAKEN: the new name is in use. */
enum store_status store_rename_product(struct store *store, int64_t id, const char *name);
/* All products in order of id, at most `max` with an id above `after`. */
enum store_status store_products(struct store *store, int64_t after, struct store_product *out, size_t max,
                                 size_t *count);

/* --- orders -------------------------------------------------------------------------------------------------------------- */
enum store_status store_find_order(struct store *store, int64_t id, struct store_order *out);
/* A user's orders, newest first, those with an id below `before` (pass INT64_MAX for all). */
enum store_status store_orders_of(struct store *store, int64_t user_id, int64_t before,
                                  struct store_order *out, size_t max, size_t *count);

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

/* Raises the epoch from `from` to `to` (> from), by compare-and-set. STORE_FENCED: somebody else did.
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
 * such orders go to rejected[0..*rejected_count), room for `rejected_max` (CHECKed: at least all orders of the run).
 * What our scripts never write must not stop the recorder for ever, so it is logged and passed over: an order whose id is not above
 * all before it (or whose quantity is not positive) is rejected without a row; a stock change that does not fit its product is kept
 * as not applied, and no audit counts it. Entries that are not in log order: STORE_FAILED. count = 0: STORE_OK, nothing done. */
enum store_status store_record(struct store *store, uint64_t epoch, struct log_position from,
                               const struct log_entry *entries, size_t count, int64_t *rejected,
                               size_t rejected_max, size_t *rejected_count);

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

/* --- audit --------------------------------------------------------------------------------------------------------------- */
/* Everything between begin and end is read at one moment (one snapshot), including store_position, store_products and the audits. No
 * writing in between (CHECKed). Keep it short: what is written meanwhile cannot be tidied away. End without begin does nothing. */
enum store_status store_snapshot_begin(struct store *store);
void store_snapshot_end(struct store *store);

struct store_product_audit {      /* of one product */
    int64_t order_count;          /* confirmed orders */
    int64_t order_units;          /* SUM(quantity) over them */
    int64_t opening_units;        /* SUM(delta) of its `opening` stock changes */
    int64_t restock_units;        /* SUM(delta) of the others */
    int64_t over_limit_customers; /* customers who hold more than the limit */
    int64_t last_order_id;        /* of confirmed orders, 0: none */
    int64_t last_order_at_ms;
};
/* The first call of a snapshot reads every order (0.2 s a million, 1 s if products have limits) and counts for all products; further ones
 * in the same snapshot are quick. */
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
};
enum store_status store_audit_orders(struct store *store, struct store_orders_audit *out);

#endif
