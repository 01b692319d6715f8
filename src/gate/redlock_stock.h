/* What the stock was, on the nodes of the Redlock gate, over the links that a worker has to them anyway. It decides nothing but this: whether a
 * purchase need be asked for at all. The blocking twin for pool jobs and tools is node_books.h, which says what the figures mean.
 *
 * Loop thread only; nothing blocks. */
#ifndef DOORBUSTER_GATE_REDLOCK_STOCK_H
#define DOORBUSTER_GATE_REDLOCK_STOCK_H

#include "node_stock.h"
#include "redlock.h"

#define REDLOCK_STOCK_PRODUCTS_MAX 64

struct redlock_stock;

/* One read, and its end. `products` are in the caller's order; each is known or not. Not known: no node of a majority has a figure, or no majority
 * answered in time. On the loop's thread, never before redlock_stock_read() has returned. Within it the next read may be begun. */
typedef void (*redlock_stock_cb)(void *context, const int64_t *product_ids, const struct node_stock *stocks,
                                 size_t count);

struct redlock_stock *redlock_stock_open(struct redlock *redlock, uv_loop_t *loop, int64_t store_id,
                                         int node_timeout_ms, redlock_stock_cb cb, void *context);
/* After redlock_close(). No callback comes any more. The loop must run until its handle is closed. Sets NULL. */
void redlock_stock_close(struct redlock_stock **stock);

bool redlock_stock_is_reading(const struct redlock_stock *stock);
/* count <= REDLOCK_STOCK_PRODUCTS_MAX; not while one is under way. */
void redlock_stock_read(struct redlock_stock *stock, const int64_t *product_ids, size_t count);
/* Tells every node that is up, voting or not. Nobody waits for it: what a node misses the keeper tells it. */
void redlock_stock_write(struct redlock_stock *stock, const struct stock_moves *moves);

#endif
