/* Attaching: the recorder makes Redis fit the store, and opens the gate with a new epoch. */
#ifndef DOORBUSTER_SERVER_ATTACH_H
#define DOORBUSTER_SERVER_ATTACH_H

#include "doorbuster/gate_books.h"
#include "doorbuster/store.h"

#include "leading.h"
#include "sale_board.h"

#define RECORD_ENTRIES_MAX 512                        /* entries in one transaction */
#define RECORD_ORDERS_MAX (16 * SALES_LOG_ORDERS_MAX) /* orders in one transaction */
#define RECORD_PARTS_MAX (4 * SALES_LOG_PARTS_MAX)    /* of these, behind their first line */

#define DIFFERENCES_MAX 64 /* found and put right in one attach */

/* What Redis said of a product that the store knows better. */
struct difference {
    int64_t product_id;
    int64_t redis_stock; /* -1: Redis did not have it */
    int64_t store_stock;
};

/* The recorder's state: one run of log entries at a time. */
struct recorder {
    struct store *store;
    redisContext *redis;
    uint64_t epoch;
    uint64_t open_epoch; /* of the gate as we opened it; 0 while it is closed */
    struct log_position recorded;
    int64_t store_id;
    int64_t last_order; /* recorded; the next in the log must be one higher */
    struct log_entry entries[RECORD_ENTRIES_MAX];
    struct sale_order orders[RECORD_ORDERS_MAX];
    struct order_part parts[RECORD_PARTS_MAX];
    int64_t rejected[RECORD_ORDERS_MAX]; /* by the last run; not announced yet */
    size_t rejected_count;
    bool attach_wanted; /* somebody in doubt asked for a new epoch, or the books differ */
    struct difference differences[DIFFERENCES_MAX];
    size_t difference_count;
    struct sale_board *board; /* shows what a look at the books finds; NULL: nobody looks at it */
    int64_t compared_up_to;   /* product id: of those that are not on the board */
    bool rebuild_wanted;      /* Redis's books are wrong: the attach is to fill it from the store */
    struct leading leading;
    int64_t watched_us;     /* while another records: when it looked at the books last */
    bool named;             /* the connection to Redis, as that of one who records */
    bool watching;          /* and looks just now */
    bool attaching;         /* so waits for the store keep the turn */
    int64_t next_master_us; /* when to ask the Sentinels again */
};

enum record_result { RECORDED_NOTHING, RECORDED_SOME, RECORD_FAILED, RECORD_DAMAGED };

/* Tells the workers how far the store is, reads the next run of the log, waiting up to block_ms for it, and puts it into the store. So a run
 * is announced by the next call. RECORD_FAILED: logged; attach again. */
enum record_result recorder_record(struct recorder *recorder, int block_ms);

/* recorder->store and ->redis are open. True: the gate is open with recorder->epoch. False: logged; try again later. */
bool recorder_attach(struct recorder *recorder);

/* The store does not work: logs it, closes the gate (what is reserved from now on might not be recorded in time), and closes the store, to
 * be opened anew before the next attach: nobody knows what state a failed write has left the connection in. False. */
bool recorder_store_failed(struct recorder *recorder, const char *doing);

/* Another recorder has taken the store over: whose turn it is, and which Redis is the master, is asked anew before the next attach. */
void recorder_overtaken(struct recorder *recorder);

/* Is the store's epoch the one that this recorder raised it to? False: overtaken, or the store failed; logged. */
bool recorder_owns_store(struct recorder *recorder);

/* Does Redis say of a product what the store says, at the store's log position? Looks at those that the board shows, which shows it, and at a
 * few of the others, in turn. Sets attach_wanted and rebuild_wanted if not; also opens products whose opening was never written. False: Redis or
 * the store failed; logged. */
bool recorder_compare_books(struct recorder *recorder);

/* The same while another server records, if it is time for that: shows what is seen, mends nothing. False: Redis or the store failed; logged. */
bool recorder_watch_books(struct recorder *recorder);

/* Says that the recorder lives, and keeps its turn to record. False: it is over; whatever is under way is given up. */
bool recorder_beat(struct recorder *recorder);

/* Redis cannot be asked, or the gate is closed: shows what the store has, now and then. False: the store failed; logged. */
bool recorder_show_store(struct recorder *recorder);

#endif
