/* Attaching: the recorder makes Redis fit the store, and opens the gate with a new epoch. */
#ifndef DOORBUSTER_SERVER_ATTACH_H
#define DOORBUSTER_SERVER_ATTACH_H

#include "doorbuster/gate_books.h"
#include "doorbuster/store.h"

#define RECORD_ENTRIES_MAX 512                        /* entries in one transaction */
#define RECORD_ORDERS_MAX (16 * SALES_LOG_ORDERS_MAX) /* orders in one transaction */

/* The recorder's state: one run of log entries at a time. */
struct recorder {
    struct store *store;
    redisContext *redis;
    uint64_t epoch;
    uint64_t open_epoch; /* of the gate as we opened it; 0 while it is closed */
    struct log_position recorded;
    struct log_entry entries[RECORD_ENTRIES_MAX];
    struct sale_order orders[RECORD_ORDERS_MAX];
    int64_t rejected[RECORD_ORDERS_MAX]; /* by the last run; not announced yet */
    size_t rejected_count;
};

enum record_result { RECORDED_NOTHING, RECORDED_SOME, RECORD_FAILED };

/* Tells the workers how far the store is, reads the next run of the log, waiting up to block_ms for it, and puts it into the store. So a run
 * is announced by the next call. RECORD_FAILED: logged; attach again. */
enum record_result recorder_record(struct recorder *recorder, int block_ms);

/* recorder->store and ->redis are open. True: the gate is open with recorder->epoch. False: logged; try again later. */
bool recorder_attach(struct recorder *recorder);

#endif
