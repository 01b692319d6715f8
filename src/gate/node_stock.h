/* What a node of the Redlock gate knows of a product's stock: one string, written and read alike by workers (redlock_gate.c) and over blocking
 * connections (node_books.c). */
#ifndef DOORBUSTER_GATE_NODE_STOCK_H
#define DOORBUSTER_GATE_NODE_STOCK_H

#include "doorbuster/node_books.h"
#include "doorbuster/text.h"
#include "keys.h"

#define NODE_STOCK_KEY_BYTES (sizeof KEY_STOCK_PREFIX + 2 * TEXT_INT64_BYTES)
#define NODE_STOCK_TEXT_BYTES (3 * TEXT_INT64_BYTES)

void node_stock_key(int64_t store_id, int64_t product_id, char out[NODE_STOCK_KEY_BYTES]);
/* "<stock> <epoch> <n>" */
void node_stock_format(int64_t stock, struct log_position version, char out[NODE_STOCK_TEXT_BYTES]);
/* False: it is none of ours; *out is left alone. */
bool node_stock_parse(const char *text, size_t bytes, struct node_stock *out);

/* For EVAL, of any number of products: a key each, and as many arguments, the texts. Of two figures the newer stays; what cannot be read is taken for
 * older than any. Answers how many were taken. */
extern const char node_stock_script[];

#endif
