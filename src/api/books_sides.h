/* Private to api: the two ways of keeping the books, between which books.c picks. */
#ifndef DOORBUSTER_API_BOOKS_SIDES_H
#define DOORBUSTER_API_BOOKS_SIDES_H

#include "doorbuster/books.h"

/* For books_failure(); returns CHANGE_FAILED. */
enum change_outcome books_fail(const char *why);

/* --- books_lua.c ---------------------------------------------------------------------------------------------------------------- */
enum books_status books_lua_read(struct store *reader, struct gate_side *side, int64_t product_id,
                                 struct books *out);
/* What is left of the product now. CATALOG_ADDED: it is known. */
enum catalog_status books_lua_available(struct store *reader, struct gate_side *side, int64_t product_id,
                                        int64_t *available);
enum change_outcome books_lua_change_stock(struct gate_side *side, const struct stock_change *change,
                                           const struct sale_product *opening, int patience_ms,
                                           struct change_result *result);
enum change_outcome books_lua_change_price(struct gate_side *side, const struct price_change *change,
                                           int patience_ms, struct change_result *result);
enum change_outcome books_lua_change_window(struct gate_side *side, const struct window_change *change,
                                            int patience_ms, struct change_result *result);

/* --- books_redlock.c ------------------------------------------------------------------------------------------------------------ */
enum books_status books_redlock_read(struct store *reader, struct gate_side *side, int64_t product_id,
                                     struct books *out);
enum change_outcome books_redlock_change_stock(struct gate_side *side, struct store *writer,
                                               const struct stock_change *change,
                                               const struct sale_product *opening,
                                               struct change_result *result);
enum change_outcome books_redlock_change_price(struct store *writer, const struct price_change *change,
                                               struct change_result *result);
enum change_outcome books_redlock_change_window(struct gate_side *side, struct store *writer,
                                                const struct window_change *change,
                                                struct change_result *result);

#endif
