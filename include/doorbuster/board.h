/* The board: what a person wants to see of the sale, in the shared page. The recorder (or the Redlock gate's keeper) writes it twice a second, from
 * the same look at both books with which it compares them; the supervisor keeps the table of processes; anybody reads it without a lock.
 *
 * Two parts, each with a sequence number that is odd while its writer is at work (a seqlock: Lameter, "Effective Synchronization on Linux/NUMA
 * Systems", 2005). A writer that was killed half-way leaves it odd until its successor has written all of it. */
#ifndef DOORBUSTER_BOARD_H
#define DOORBUSTER_BOARD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define BOARD_PRODUCTS_MAX 256 /* of more, the newest: those with the highest ids */
#define BOARD_NAME_BYTES 801   /* as STORE_PRODUCT_NAME_BYTES */
#define BOARD_ORDERS_MAX 16
#define BOARD_ORDER_LINES_MAX 4
#define BOARD_PROCESSES_MAX 80

struct board_product {
    int64_t id;
    char name[BOARD_NAME_BYTES];
    int64_t price, per_customer_limit, starts_at_ms, ends_at_ms; /* as in struct store_product; 0: none */
    bool is_bundle, opened;
    int64_t opening, restocked, cancelled, sold,
        stock;         /* the store's book; of a bundle stock is what its components allow */
    int64_t available; /* live, by the gate; -1: the gate cannot be asked */
    int64_t in_flight; /* reserved and not recorded yet */
    bool books_equal;
};

struct board_order {
    int64_t id, at_ms;
    size_t line_count; /* all of them; at most BOARD_ORDER_LINES_MAX are here */
    struct board_order_line {
        int64_t product_id, quantity;
    } lines[BOARD_ORDER_LINES_MAX];
    bool cancelled, rejected;
};

struct board_sale {
    int64_t written_us; /* monotonic, all processes' clock; 0: never */
    uint64_t epoch;
    int64_t lag_entries;    /* of the log, not recorded yet */
    int64_t lag_us;         /* age of the oldest of these; 0: none */
    int64_t compared_at_ms; /* when all products were last compared; 0: not yet */
    int64_t differences;    /* products whose books differed in the last look: it is put right at once */
    int64_t orders_total, order_count;
    struct board_order orders[BOARD_ORDERS_MAX]; /* newest first */
    int64_t products_total, product_count;
    /* ascending id; only the first product_count are copied */
    struct board_product products[BOARD_PRODUCTS_MAX];
};

struct board_process {
    char name[32]; /* "worker 0" */
    pid_t pid;     /* 0: not running */
    int64_t started_at_ms;
    uint64_t restarts; /* deaths since the server started */
    bool ready;
};

struct board_processes {
    int64_t started_at_ms; /* the server */
    size_t count;
    struct board_process each[BOARD_PROCESSES_MAX];
};

struct board {
    uint64_t sale_sequence, processes_sequence; /* atomic */
    struct board_sale sale;
    struct board_processes processes;
};

void board_write_sale(struct board *board, const struct board_sale *sale);
void board_write_processes(struct board *board, const struct board_processes *processes);
/* False: it is being written over and over, or was left half-written; *out is not to be used. */
bool board_read_sale(const struct board *board, struct board_sale *out);
bool board_read_processes(const struct board *board, struct board_processes *out);

#endif
