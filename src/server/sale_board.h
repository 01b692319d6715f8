/* The sale's board being filled: by the recorder, or by the keeper in its place. */
#ifndef DOORBUSTER_SERVER_SALE_BOARD_H
#define DOORBUSTER_SERVER_SALE_BOARD_H

#include "doorbuster/board.h"
#include "doorbuster/gate_books.h"
#include "doorbuster/store.h"

struct sale_board;

/* `to` must outlive it. */
struct sale_board *sale_board_new(struct board *to);
void sale_board_free(struct sale_board **board);

/* Begins a look: counts the products. *first: the id from which on they are shown. */
enum store_status sale_board_begin(struct sale_board *board, struct store *store, int64_t *first);
/* A product as the store has it; of a bundle its stock is what its components allow. What the gate says of it is the caller's to write into *line,
 * which is good until the next call; before, it is as it was, of a new one: nothing known. NULL: too old to be shown. */
enum store_status sale_board_put(struct sale_board *board, struct store *store,
                                 const struct store_product *product, struct board_product **line);
struct board_product *sale_board_find(struct sale_board *board, int64_t product_id);
/* What `update` says of all products that are shown. */
typedef void (*sale_board_update_cb)(struct board_product *line, void *context);
void sale_board_each(struct sale_board *board, sale_board_update_cb update, void *context);
/* A product whose books differ. */
void sale_board_differs(struct sale_board *board);
/* All products have been compared since the last time. */
void sale_board_compared(struct sale_board *board);
void sale_board_behind(struct sale_board *board, const struct gate_behind *behind);

/* Ends a look: adds the newest orders, and shows it all. */
enum store_status sale_board_show(struct sale_board *board, struct store *store);
/* A look without the gate, for nobody can ask it: the store's figures, and -1 for what is available. Does nothing if a look was shown less than
 * SALE_BOARD_EVERY_US ago. */
enum store_status sale_board_show_store(struct sale_board *board, struct store *store);

#define SALE_BOARD_EVERY_US 500000
/* How long to wait from one look to the next: the fewer products there are, the shorter. */
int64_t sale_board_pause_us(const struct sale_board *board);

#endif
