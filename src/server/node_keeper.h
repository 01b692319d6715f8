/* The keeper of the Redlock gate's nodes: looks at what they say of the stock, a part of the products at a time, and mends it by the store. */
#ifndef DOORBUSTER_SERVER_NODE_KEEPER_H
#define DOORBUSTER_SERVER_NODE_KEEPER_H

#include "doorbuster/board.h"
#include "doorbuster/gate_place.h"

struct node_keeper;

/* Opens nothing yet. `place`, `store_url` and `board` (NULL: nobody looks at it) must outlive it. */
struct node_keeper *node_keeper_new(const struct gate_place *place, const char *store_url,
                                    struct board *board);
void node_keeper_free(struct node_keeper **keeper);
/* One look. False, and logged: the store does not work, or no majority of the nodes answered. */
bool node_keeper_pass(struct node_keeper *keeper);

#endif
