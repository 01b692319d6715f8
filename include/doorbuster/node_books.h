/* The stock on the nodes of the Redlock gate, over blocking connections: what the keeper, the tools and pool jobs need. It decides nothing: the
 * store does. A node's figure says "at this version the stock was so much", the version being the position of the store's entry that made it so;
 * of two the newer counts, so the newest of a majority is what the last one says who told a majority.
 *
 * A string a product and store: "<stock> <epoch> <n>". A struct node_books is used by one thread at a time. A node that does not answer in time is
 * left alone for a second. */
#ifndef DOORBUSTER_NODE_BOOKS_H
#define DOORBUSTER_NODE_BOOKS_H

#include "doorbuster/change.h"
#include "doorbuster/gate_place.h"

struct node_books;

struct node_stock {
    bool known;
    bool damaged; /* not known, for what is there cannot be read */
    int64_t stock;
    struct log_position version;
};

/* Connects when first used. `place` must outlive it. Timeout: of one node's answer. */
struct node_books *node_books_open(const struct gate_place *place, int64_t store_id, int timeout_ms);
void node_books_close(struct node_books **books);

/* The newest that a majority of all nodes says of each product: known if one of them knows it. Of these some may have restarted since, and know
 * nothing yet (until the keeper has told them); so it may be behind what a majority was told, but never wrong: see the version.
 * False: no majority answered; node_books_failure(). */
bool node_books_read(struct node_books *books, const int64_t *products, size_t count, struct node_stock *out);
/* What one node says. False: it does not answer. */
bool node_books_read_node(struct node_books *books, unsigned node, const int64_t *products, size_t count,
                          struct node_stock *out);
/* Tells all nodes; one that knows a newer version keeps it. True: a majority has been told. */
bool node_books_write(struct node_books *books, const struct stock_moves *moves);
/* The same for one node. */
bool node_books_write_node(struct node_books *books, unsigned node, const struct stock_moves *moves);
/* Tells one node, whatever it knows. For the keeper, which mends what nobody of ours can have written. */
bool node_books_force(struct node_books *books, unsigned node, int64_t product_id,
                      const struct node_stock *to);
/* Deletes one node's locks of these products that have no end, or one that is further away than any of ours can be: no server of ours sets such a
 * lock, and nobody could ever sell again. How many there were. For the keeper. */
size_t node_books_delete_endless_locks(struct node_books *books, unsigned node, const int64_t *products,
                                       size_t count);
unsigned node_books_answering(const struct node_books *books); /* nodes that answered the last call */
/* The nodes that did not, and why: "node 3 (127.0.0.1:7003): Connection refused". */
const char *node_books_failure(const struct node_books *books);

#endif
