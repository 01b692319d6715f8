/* The sales log: what stands in the Redis stream `{doorbuster}:log`, and how it is read.
 *
 * Every change of stock is an entry, and every change of a price or a window, for orders are reserved before it or after it. An entry has one field; its
 * name is the kind, its value the payload, text that a person can read with `redis-cli XRANGE`: a first line with the time in milliseconds
 * since 1970, then a line for each change.
 *
 *   7-1042  sale   1764201600123                                      all orders of one call to the gate, in order
 *                  42 88123 1001 1 1 49900 58                         order request user product quantity unit_price remaining [key]
 *                  43 88124 1002 1 1 49900 57 order-7f3a              the buyer's idempotency key, if there was one
 *                  44 88125 1003 1 2 49900 55                         a cart: its first line,
 *                  + 9 1 19900 12                                     a further one: product quantity unit_price remaining,
 *                  - 2 1 40                                           and what the bundle in the line before takes: product units remaining
 *                  - 3 4 48
 *   7-1043  cancel 1764201600180
 *                  44 1003 1003                                       order user actor
 *                  1 2 57                                             for each of its parts: product units remaining
 *                  9 1 13
 *                  2 1 41
 *                  3 4 52
 *   7-3     stock  1764201600000
 *                  1 100 100 opening 5 opening stock                  product delta remaining cause actor note…
 *   7-1044  stock  1764201600200
 *                  1 50 107 restock 5 a pallet was found
 *                  key restock-17                                     the admin's idempotency key, if there was one
 *   7-1045  price  1764201600210
 *                  1 49900 44900 5 second hour                        product from to actor note…, and perhaps a key
 *   7-1046  window 1764201600220
 *                  1 0 0 1764201600000 1764201600220 5 enough         product, from: opens over, to: opens over (0: none), actor note…, perhaps a key
 *   7-9     attach worker 1 lost its link with 12 purchases in it     changes nothing: asks the recorder to attach again, and why
 *
 * `remaining` is the product's stock after that line; of a bundle, how many more its components allow. The writer is Lua (src/gate/lua/), in
 * the same step that moves the stock. Pure functions, any thread; nothing here allocates. */
#ifndef DOORBUSTER_SALES_LOG_H
#define DOORBUSTER_SALES_LOG_H

#include "doorbuster/idempotency_key.h"
#include "doorbuster/order.h"
#include "doorbuster/sale_window.h"

#define LOG_EPOCH_MAX                                                                                        \
    UINT64_C(1000000000000000)   /* above the milliseconds that Redis makes ids of; beyond, it is not ours */
#define SALES_LOG_ORDERS_MAX 256 /* orders in one entry; so in one call to the gate */
#define SALES_LOG_LINES_MAX                                                                                  \
    256 /* lines of their carts; likewise. All of them bundles of ten: 14 ms of Redis's time */
#define SALES_LOG_PARTS_MAX                                                                                  \
    (SALES_LOG_LINES_MAX * (1 + BUNDLE_COMPONENTS_MAX)) /* with the components of their bundles */
#define SALES_LOG_NOTE_BYTES 801                        /* a change's note: 200 code points, terminated */
#define LOG_ATTACH_WORD "attach"                        /* the kind of LOG_ENTRY_ATTACH */
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
    const char *key; /* the actor's idempotency key; as in struct sale_order */
    size_t key_bytes;
};

struct price_change {
    int64_t product_id;
    int64_t from, to; /* smallest currency unit */
    int64_t actor;
    char note[SALES_LOG_NOTE_BYTES];
    const char *key;
    size_t key_bytes;
};

/* A product's sale is opened, closed, or put off. */
struct window_change {
    int64_t product_id;
    struct sale_window from, to;
    int64_t actor;
    char note[SALES_LOG_NOTE_BYTES];
    const char *key;
    size_t key_bytes;
};

/* An order is taken back, whole: its units are on sale again, and its buyer's limit has room again. */
struct cancellation {
    int64_t order_id;
    int64_t user_id; /* whose order it was */
    int64_t actor;   /* who cancelled it: its buyer or an admin */
    /* Each of the order's parts: product, quantity, and what remained after it came back. Borrowed. */
    const struct order_part *parts;
    size_t part_count;
};

enum log_entry_kind {
    LOG_ENTRY_SALE,
    LOG_ENTRY_STOCK,
    LOG_ENTRY_CANCEL,
    LOG_ENTRY_PRICE,
    LOG_ENTRY_WINDOW,
    /* "attach again": from a worker in doubt or a person; counts only in the epoch that it names */
    LOG_ENTRY_ATTACH,
    /* not one of ours: somebody else wrote into the stream. It changes nothing, and the log goes on behind it */
    LOG_ENTRY_FOREIGN,
    LOG_ENTRY_DAMAGED, /* looks like one of ours and cannot be read: nobody may go on behind it */
};

struct log_entry {
    struct log_position position;
    enum log_entry_kind kind;
    int64_t at_ms;                   /* Redis's clock; never goes back along the log */
    const struct sale_order *orders; /* LOG_ENTRY_SALE: borrowed from the caller's room */
    size_t order_count;
    struct cancellation cancel; /* LOG_ENTRY_CANCEL */
    union {
        struct stock_change stock;   /* LOG_ENTRY_STOCK; of LOG_ENTRY_ATTACH the note: why */
        struct price_change price;   /* LOG_ENTRY_PRICE */
        struct window_change window; /* LOG_ENTRY_WINDOW */
    };
};

/* Where decoded orders and parts go. The caller's; it must outlive the entries. */
struct log_room {
    struct sale_order *orders;
    size_t orders_max, orders_used;
    struct order_part *parts; /* those behind an order's first line, those of a cancellation */
    size_t parts_max, parts_used;
};

/* Decodes one entry, into `room` behind what is used there. `payload` must outlive *out: the keys point into it. False if it is not one of
 * ours: a line too many, a number out of range, an unknown kind, no room; `room` is then as it was and *out undefined. */
bool log_entry_decode(struct log_position position, const char *kind, size_t kind_bytes, const char *payload,
                      size_t payload_bytes, struct log_room *room, struct log_entry *out);
/* Is this the name of an entry that changes a book? */
bool log_kind_is_ours(const char *kind, size_t kind_bytes);

/* By how much this entry changed the stock of `product_id`: negative for sales. Of a bundle: how many were sold or came back. */
int64_t log_entry_stock_delta(const struct log_entry *entry, int64_t product_id);
/* Did this entry change the price of `product_id`? Then *from is what it was before. */
bool log_entry_price_change(const struct log_entry *entry, int64_t product_id, int64_t *from);
/* The same of its window. */
bool log_entry_window_change(const struct log_entry *entry, int64_t product_id, struct sale_window *from);

#endif
