/* What a node of the Redlock gate knows of a product's stock, as text: "<stock> <epoch> <n>" under gate_keys.node_stock.
 * The version is the position of the store's entry that made it so; of two the newer counts. Pure functions, any thread. */
#ifndef DOORBUSTER_GATE_NODE_STOCK_H
#define DOORBUSTER_GATE_NODE_STOCK_H

#include "doorbuster/node_books.h"
#include "doorbuster/text.h"
#include "keys.h"

#define NODE_STOCK_KEY_BYTES (GATE_KEY_BYTES + 2 * TEXT_INT64_BYTES)
#define NODE_STOCK_VALUE_BYTES (TEXT_INT64_BYTES + SALES_LOG_POSITION_BYTES)

/* Terminated. */
void node_stock_key(int64_t store_id, int64_t product_id, char out[NODE_STOCK_KEY_BYTES]);
/* Terminated; returns the length. `stock->known` is not looked at. */
size_t node_stock_format(const struct node_stock *stock, char out[NODE_STOCK_VALUE_BYTES]);
/* False: nobody of ours can have written that; *out is left alone. */
bool node_stock_parse(const char *text, size_t bytes, struct node_stock *out);
/* *newest becomes the newer of the two; what is not known is older than all. */
void node_stock_take_newer(struct node_stock *newest, const struct node_stock *seen);

/* KEYS: of products; ARGV: a value for each. Sets each whose node knows nothing or something older, and returns how many these were. What nobody
 * of ours can have written counts as nothing. Epochs and numbers are compared as numbers below 2^53, as everywhere in Lua. */
extern const char node_stock_write_script[];

#endif
