/* Redis's side of the books, over a blocking connection: what the recorder, the tools and pool jobs need. Workers sell through gate.h.
 *
 * Functions return false on failure; redis_failure() then says why. A redisContext is used by one thread at a time. */
#ifndef DOORBUSTER_GATE_BOOKS_H
#define DOORBUSTER_GATE_BOOKS_H

#include "doorbuster/change.h"
#include "doorbuster/product.h"
#include "doorbuster/redis.h"

/* --- reading --------------------------------------------------------------------------------------------------------------- */
enum gate_script { GATE_SCRIPT_SELL, GATE_SCRIPT_STOCK, GATE_SCRIPT_CANCEL, GATE_SCRIPTS };
#define GATE_SCRIPT_SHA_BYTES 41 /* terminated */
#define GATE_MASTER_BYTES 41     /* of a replication id, terminated */

struct gate_head {
    bool exists;
    uint64_t epoch;   /* 0: closed, nothing can be sold */
    int64_t orders;   /* the last order id given out; -1: missing or not a number that can be */
    int64_t at_ms;    /* the time of the last entry; -1: the same */
    int64_t store_id; /* of the store it belongs to; 0: missing */
    char scripts[GATE_SCRIPTS][GATE_SCRIPT_SHA_BYTES]; /* while it is open; "" if missing */
    char opened_on[GATE_MASTER_BYTES];                 /* likewise: the master it was opened on */
    /* this Redis's replication id: another in each reign of each master; a replica has its master's */
    char master[GATE_MASTER_BYTES];
    bool is_replica;
    struct log_position log_last; /* id of the last entry ever added */
    /* everything after this is there; at or before it entries may have been trimmed away */
    struct log_position log_lost;
};
bool gate_read_head(redisContext *redis, struct gate_head *out);

/* What the recorder tells the workers: "this is the gate's epoch; everything of an older one is settled (0: the gate is closed, nothing is
 * said of epochs). The store has the log up to `recorded`", less the orders it rejected. */
struct gate_announcement {
    int64_t store_id; /* whose news they are */
    uint64_t epoch;
    struct log_position recorded;
    const int64_t *rejected;
    size_t rejected_count;
};

/* The entries after `after`, oldest first, at most `max`; waits up to `block_ms` for the first one (0: does not wait). They point into
 * *reply, which the caller frees after use (NULL if there were none), and into `room`, which is emptied first and must hold the largest entry
 * (CHECKed); no more entries are given than have room there. What is not ours is LOG_ENTRY_FOREIGN or LOG_ENTRY_DAMAGED. `announcement`
 * (NULL: none) is made first, in the same write: that saves the recorder a wait in every commit. */
bool gate_read_log(redisContext *redis, const struct gate_announcement *announcement,
                   struct log_position after, int block_ms, struct log_entry *entries, size_t max,
                   struct log_room *room, size_t *count, redisReply **reply);

/* A product at the log position `at`: the live figures with everything after `at` undone, read in one step. */
struct gate_stock {
    bool on_sale;      /* the gate knows the product */
    bool at_known;     /* false: the log was trimmed beyond `at`; read the store again and retry */
    int64_t available; /* live; of a bundle: what its components allow */
    int64_t stock_at;  /* at the position asked for; likewise */
    int64_t components_at
        [BUNDLE_COMPONENTS_MAX];  /* of a bundle: its components' own figures there, in the order asked for */
    int64_t in_flight;            /* units sold in entries after it */
    struct sale_product now;      /* live */
    int64_t price_at;             /* at the position asked for */
    struct sale_window window_at; /* likewise */
    bool sold_out;                /* a sold-out answer was given since the last restock */
    int64_t sold_out_order, sold_out_at_ms; /* the last order before it, and when */
};
/* `product` says which product, and what it is made of if it is a bundle: the components are read in the same step. */
bool gate_read_stock(redisContext *redis, const struct sale_product *product, struct log_position at,
                     struct gate_stock *out);

/* The same of several products, all at one moment and in one round trip: at most GATE_STOCKS_MAX. *behind (NULL: not wanted) is what the log has
 * after `at`. */
#define GATE_STOCKS_MAX 64
struct gate_behind {
    int64_t entries;
    /* when the first of these was written, by Redis's clock; 0: there is none that is ours */
    int64_t oldest_at_ms;
};
bool gate_read_stocks(redisContext *redis, const struct sale_product *products, size_t count,
                      struct log_position at, struct gate_stock *out, struct gate_behind *behind);

/* --- changing stock ------------------------------------------------------------------------------------------------------------ */
/* Runs stock.lua with the head's script, reading the head again while the gate is being opened anew, for at most `patience_ms`. `opening`
 * is NULL unless cause is STOCK_OPENING. The result is filled in on CHANGE_MADE and CHANGE_MADE_BEFORE. */
enum change_outcome gate_change_stock(redisContext *redis, const struct stock_change *change,
                                      const struct sale_product *opening, int patience_ms,
                                      struct change_result *result);
/* The same for a price: `to` of the change counts, `from` is what Redis finds. */
enum change_outcome gate_change_price(redisContext *redis, const struct price_change *change, int patience_ms,
                                      struct change_result *result);

/* The same for a window: `to` may be asked for as sale_window.h has it. */
enum change_outcome gate_change_window(redisContext *redis, const struct window_change *change,
                                       int patience_ms, struct change_result *result);

/* Cancelling an order once: "cancelled already" is known to the store for those that are recorded, and to Redis for those of this epoch. So
 * the pass is taken first, then the store is asked, then gate_cancel() is called: if an epoch began in between, the pass is void. */
struct gate_pass {
    char script[GATE_SCRIPT_SHA_BYTES];
};
bool gate_take_pass(redisContext *redis, struct gate_pass *out);
/* `cancel` as the store has the order; its parts' `remaining` is not read. *is_void: nothing was changed; take a new pass and ask the store
 * again. */
enum change_outcome gate_cancel(redisContext *redis, const struct gate_pass *pass,
                                const struct cancellation *cancel, struct change_result *result,
                                bool *is_void);

/* --- asking the recorder ------------------------------------------------------------------------------------------------------- */
/* Asks the recorder to attach again, compare and mend: by an entry `attach` in the log, of the epoch that the asker knows. `why` is for
 * people. True also if a newer epoch has begun already, or if there is no log at all: the recorder sees that by itself. */
bool gate_ask_attach(redisContext *redis, uint64_t epoch, const char *why);

/* --- the recorder's alone ----------------------------------------------------------------------------------------------------- */
/* From here on no script sells, until gate_open(). */
bool gate_close(redisContext *redis);
/* Forgets everything of ours, the head first, and starts an empty log whose last id is `recorded`. Until gate_finish_rebuild() there is no
 * head: a rebuild that was cut short is never taken for a whole one. */
bool gate_wipe(redisContext *redis, struct log_position recorded);
/* Called between the steps of a long gate_wipe(); it may use the same connection. Once per process, before the first; NULL: nothing. */
void gate_while_working(void (*cb)(void));
/* The head of a store, still closed: its order counter and the time of its last order. */
bool gate_finish_rebuild(redisContext *redis, int64_t store_id, int64_t orders, int64_t at_ms);
bool gate_put_product(redisContext *redis, const struct sale_product *product);
/* Who has how many units of a limited product. Many go in one write, as of the keys below. */
struct gate_buyer {
    int64_t product_id, user_id, units;
};
bool gate_put_buyers(redisContext *redis, const struct gate_buyer *buyers, size_t count);
/* Idempotency keys and the orders they stand for; there may be 100,000s, so many go in one write. Those with no time left are left out. */
struct gate_key {
    int64_t user_id, order_id;
    int64_t ttl_ms; /* at most IDEMPOTENCY_KEY_LIFETIME_MS is given */
    char key[IDEMPOTENCY_KEY_BYTES_MAX + 1];
};
bool gate_put_keys(redisContext *redis, const struct gate_key *keys, size_t count);
/* The same for the keys of changes. */
struct gate_change_key {
    int64_t actor;
    int64_t ttl_ms;
    struct change_result result;
    char key[IDEMPOTENCY_KEY_BYTES_MAX + 1];
};
bool gate_put_change_keys(redisContext *redis, const struct gate_change_key *keys, size_t count);
/* Loads the scripts with this epoch in their text, and opens the head, which must be closed. The workers hear of it by the next gate_announce().
 * `master` is of the head as it was read before Redis was compared with the store: fails if another reign has begun since. Only in this one the scripts
 * work. */
bool gate_open_on(redisContext *redis, uint64_t epoch, const char master[GATE_MASTER_BYTES]);
/* The same on whatever Redis is now. */
bool gate_open(redisContext *redis, uint64_t epoch);
/* Is the head still this store's, at this epoch and sound, is this the master it was opened on, are its scripts loaded, has it given out at least `orders`
 * order ids, and does the log go on from `recorded`? *ours is set when the answer is known. */
bool gate_is_ours(redisContext *redis, int64_t store_id, uint64_t epoch, struct log_position recorded,
                  int64_t orders, bool *ours);
bool gate_announce(redisContext *redis, const struct gate_announcement *announcement);
/* Drops all entries; the last of them is at `recorded`, and there the log goes on. After a restart Redis may have come back with some that are not as they
 * were written (7.0 makes half a transaction of a file whose end was cut off). */
bool gate_forget_recorded(redisContext *redis, struct log_position recorded);
/* Drops entries before `keep_from`. */
bool gate_trim(redisContext *redis, struct log_position keep_from);

#endif
