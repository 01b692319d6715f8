/* Blocking work off the loop: a bounded queue in front of libuv's thread pool, at lower priority than the loop.
 *
 * Six queues, each with a limit of jobs running and of jobs waiting, so that a login storm cannot keep out a read:
 *   WORK_PASSWORD  Argon2id: much processor time, 19 MiB each. At the lowest priority (nice 19): what the loop leaves over. A job
 *                  here must not hold a lock that anyone else waits for
 *   WORK_STORE     reads of the store. A little below the loop (nice 5)
 *   WORK_WRITE     writes of the store that wait for no record: new accounts. One at a time, for the store has one writer, and those who wait
 *                  for its lock must not sit on the threads that read. At nice 5 too: it holds the lock that the recorder waits for
 *   WORK_CHANGE    changes of stock and prices, cancellations: they wait for their record, and while nothing is recorded nobody else shall
 *                  wait behind them. At nice 5 too
 *   WORK_SELL      what a purchase waits for: the store's decision, and on which terms a product is sold. On a thread of its own, which is
 *                  started when first needed, at the loop's own priority: it holds the lock that all other sellers wait for. One at a time
 *   WORK_SETTLE    looking up purchases of which nobody knows whether they were recorded: reads only, never behind a write
 *
 * One pool a process. */
#ifndef DOORBUSTER_WORK_POOL_H
#define DOORBUSTER_WORK_POOL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uv.h>

enum work_queue { WORK_PASSWORD, WORK_STORE, WORK_WRITE, WORK_CHANGE, WORK_SETTLE, WORK_SELL, WORK_QUEUES };

struct work_pool;

/* Runs on a pool thread; may block. */
typedef void (*work_cb)(void *context);
/* Runs afterwards on the loop's thread, never before work_submit() has returned. */
typedef void (*work_done_cb)(void *context);

struct work_limits {
    unsigned running_max; /* jobs of this queue at work at the same time, >= 1; of WORK_SELL 1 */
    unsigned waiting_max; /* jobs waiting behind them */
};

/* Must be called before the loop has run its first pool job (it sets the number of pool threads). Never fails but by CHECK. */
struct work_pool *work_pool_new(uv_loop_t *loop, const struct work_limits limits[WORK_QUEUES]);
/* Nothing may be waiting or running. If WORK_SELL was ever used, the loop must run until its handles are closed. */
void work_pool_free(struct work_pool **pool);

/* Loop thread only. False if the queue is full (or WORK_SELL cannot have its thread): nothing was queued, no callback will run; tell the client to come
 * back. */
bool work_submit(struct work_pool *pool, enum work_queue queue, work_cb work, work_done_cb done,
                 void *context);

/* The same, for a job that nobody wants after `deadline_us` (monotonic): if no thread has taken it up by then, `late` comes instead of work and done. */
bool work_submit_until(struct work_pool *pool, enum work_queue queue, work_cb work, work_done_cb done,
                       work_done_cb late, void *context, int64_t deadline_us);
/* How long a job that is submitted now would wait for a thread, as this queue has gone lately. 0: it would start at once. Loop thread. */
int64_t work_expected_wait_us(const struct work_pool *pool, enum work_queue queue);

/* The loop has something more important on hand, or not any more: while it does, password jobs start one at a time, two a second. Say it
 * again every few milliseconds, also if nothing has changed: waiting jobs are started from here, and those that are late told so. Loop thread. */
void work_pool_press(struct work_pool *pool, bool pressed);

/* Jobs waiting and running, of one queue. */
size_t work_pool_length(const struct work_pool *pool, enum work_queue queue);
/* The same of all queues. */
size_t work_pool_busy(const struct work_pool *pool);

#endif
