/* The sales log: what stands in the Redis stream `{doorbuster}:log`, and how it is read.
 *
 * Every change of stock is an entry. An entry has one field; its name is the kind, its value the payload, text that a person can
 * read with `redis-cli XRANGE`: a first line with the time in milliseconds since 1970, then a line for each change.
 *
 *   7-1042  sale   1764201600123                                      all orders of one call to the gate, in order
 *                  42 88123 1001 1 1 49900 58                         order request user product quantity unit_price remaining [key]
 *                  43 88124 1002 1 1 49900 57 order-7f3a              the buyer's idempotency key, if there was one
 *   7-3     stock  1764201600000
 *                  1 100 100 opening 5 opening stock                  product delta remaining cause actor note…
 *   7-9     attach worker 1 lost its link with 12 purchases in it     changes nothing: asks the recorder to attach again, and why
 *
 * `remaining` is the product's stock after that line. The writer is Lua (src/gate/lua/), in the same step that takes the stock.
 * Pure functions, any thread; nothing here allocates. */
#ifndef DOORBUSTER_SALES_LOG_H
#define DOORBUSTER_SALES_LOG_H

#include "doorbuster/idempotency_key.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define LOG_EPOCH_MAX                                                                                        \
    UINT64_C(1000000000000000)   /* above the milliseconds that Redis makes ids of; beyond, it is not ours */
#define SALES_LOG_ORDERS_MAX 256 /* orders in one entry; so in one call to the gate */
#define SALES_LOG_NOTE_BYTES 201 /* a stock change's note, terminated */
#define LOG_ATTACH_WORD "attach" /* the kind of LOG_ENTRY_ATTACH */
#define LOG_REBUILD_WORD "rebuild: " /* how its note begins if Redis is to be filled anew */
#define SALES_LOG_POSITION_BYTES 42  /* "18446744073709551615-18446744073709551615", terminated */

/* An entry's id: <epoch>-<n>. Redis orders entries by it, and refuses an epoch older than the last. {0,0} is before all. */
struct log_position {
    uint64_t epoch;
    uint64_t n;
};

int log_position_compare(struct log_position a, struct log_position b); /* <0, 0, >0 */
bool log_position_parse(const char *text, size_t bytes, struct log_position *out);
void log_position_format(struct log_position position, char out[SALES_LOG_POSITION_BYTES]);

struct sale_order {
    int64_t id;      /* dense from 1 */
    int64_t request; /* chosen by the worker; tells a buyer's request from every other */
    int64_t user_id;
    int64_t product_id;
    int64_t quantity;   /* 1 to 1,000 */
    int64_t unit_price; /* smallest currency unit */
    int64_t remaining;  /* product's stock after this order */
    /* The buyer's idempotency key, not terminated; NULL: none. Borrowed from whoever made this struct: the payload of a decoded entry, the
     * request of a purchase. */
    const char *key;
    size_t key_bytes;
};

enum stock_cause {
    STOCK_OPENING,
    STOCK_RESTOCK,
    STOCK_WITHDRAWAL,
    STOCK_HEALING, /* delta 0: Redis's figure was put right by the store's, which did not change */
    STOCK_CAUSES
};
extern const char *const
    stock_cause_names[STOCK_CAUSES]; /* "opening", "restock", "withdrawal", "healing": the words in the log */

struct stock_change {
    int64_t product_id;
    int64_t delta;
    int64_t remaining;
    enum stock_cause cause;
    int64_t actor; /* user id of who asked for it; 0: the system itself */
    char note[SALES_LOG_NOTE_BYTES];
};

enum log_entry_kind {
    LOG_ENTRY_SALE,
    LOG_ENTRY_STOCK,
    LOG_ENTRY_ATTACH, /* "attach again": from a worker in doubt or a person; counts only in the epoch that it names */
    LOG_ENTRY_FOREIGN, /* not one of ours: somebody else wrote into the stream. It changes nothing, and the log goes on behind it */
    LOG_ENTRY_DAMAGED, /* looks like a sale or a change of stock and cannot be read: nobody may go on behind it */
};

struct log_entry {
    struct log_position position;
    enum log_entry_kind kind;
    int64_t at_ms;                   /* Redis's clock; never goes back along the log */
    const struct sale_order *orders; /* LOG_ENTRY_SALE: borrowed from the caller's buffer */
    size_t order_count;
    struct stock_change stock; /* LOG_ENTRY_STOCK; of LOG_ENTRY_ATTACH the note: why */
};

/* Decodes one entry. `orders` has room for `orders_max` and must outlive *out; so must `payload`, for the orders' keys point into it. False if it is not one of ours: a line too many, a
 * number out of range, an unknown kind; *out is then undefined. */
bool log_entry_decode(struct log_position position, const char *kind, size_t kind_bytes, const char *payload,
                      size_t payload_bytes, struct sale_order *orders, size_t orders_max,
                      struct log_entry *out);

/* By how much this entry changed the stock of `product_id`: negative for sales. */
int64_t log_entry_stock_delta(const struct log_entry *entry, int64_t product_id);

#endif
