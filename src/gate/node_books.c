/* The stock on the nodes, over blocking connections: to be filled in. */
#include "doorbuster/node_books.h"

struct node_books *node_books_open(const struct gate_place *place, int64_t store_id, int timeout_ms)
{
    (void)place, (void)store_id, (void)timeout_ms;
    return NULL;
}
void node_books_close(struct node_books **books)
{
    *books = NULL;
}
bool node_books_read(struct node_books *books, const int64_t *products, size_t count, struct node_stock *out)
{
    (void)books, (void)products, (void)count, (void)out;
    return false;
}
bool node_books_read_node(struct node_books *books, unsigned node, const int64_t *products, size_t count,
                          struct node_stock *out)
{
    (void)books, (void)node, (void)products, (void)count, (void)out;
    return false;
}
bool node_books_write(struct node_books *books, const struct stock_moves *moves)
{
    (void)books, (void)moves;
    return false;
}
bool node_books_force(struct node_books *books, unsigned node, int64_t product_id,
                      const struct node_stock *to)
{
    (void)books, (void)node, (void)product_id, (void)to;
    return false;
}
unsigned node_books_answering(const struct node_books *books)
{
    (void)books;
    return 0;
}
const char *node_books_failure(const struct node_books *books)
{
    (void)books;
    return "";
}
