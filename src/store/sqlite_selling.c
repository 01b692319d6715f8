/* Selling without a sales log: to be filled in. */
#include "sqlite.h"

static enum store_status not_yet(struct store *store)
{
    return sqlite_refuse(sqlite_of(store), "not yet");
}
enum store_status sqlite_take_over(struct store *store)
{
    return not_yet(store);
}
enum store_status sqlite_sell(struct store *store, struct purchase *const *purchases, size_t count,
                              struct stock_moves *moves)
{
    (void)purchases, (void)count, (void)moves;
    return not_yet(store);
}
enum store_status sqlite_change_stock(struct store *store, const struct stock_change *change,
                                      enum change_outcome *outcome, struct change_result *result)
{
    (void)change, (void)outcome, (void)result;
    return not_yet(store);
}
enum store_status sqlite_change_price(struct store *store, const struct price_change *change,
                                      enum change_outcome *outcome, struct change_result *result)
{
    (void)change, (void)outcome, (void)result;
    return not_yet(store);
}
enum store_status sqlite_cancel(struct store *store, int64_t order_id, int64_t actor,
                                enum change_outcome *outcome, struct change_result *result,
                                struct stock_moves *moves)
{
    (void)order_id, (void)actor, (void)outcome, (void)result, (void)moves;
    return not_yet(store);
}
enum store_status sqlite_stock_at(struct store *store, int64_t product_id, struct log_position position,
                                  bool *known, int64_t *stock)
{
    (void)product_id, (void)position, (void)known, (void)stock;
    return not_yet(store);
}
