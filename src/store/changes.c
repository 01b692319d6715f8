/* Stock, prices, windows and cancellations without a sales log, by the rules of stock.lua and cancel.lua; and what a product's stock was.
 *
 * Runs on pool threads of the workers, in the keeper and in the tools; a change is one transaction, of which processes take turns. Owns
 * nothing. What must not be done is an outcome, found out before anything is written; whatever fails is rolled back. */
#include "sql.h"

#include "doorbuster/check.h"
#include "doorbuster/log.h"

#include <string.h>

static const char changing_stock[] = "changing stock";
static const char changing_price[] = "changing a price";
static const char changing_window[] = "changing a window";
static const char cancelling[] = "cancelling an order";
static const char looking_back[] = "looking up what the stock was";

/* --- keys --- */
static enum store_status find_earlier(const struct store_turn *turn, int64_t actor, const char *key,
                                      size_t key_bytes, enum change_outcome *outcome,
                                      struct change_result *result)
{
    struct store_change_key earlier;
    bool found = false;
    if (key == NULL)
        return STORE_OK;
    enum store_status status = store_find_change_key(turn->store, turn->now_ms - IDEMPOTENCY_KEY_LIFETIME_MS,
                                                     actor, key, key_bytes, &found, &earlier);
    if (status == STORE_OK && found) {
        *outcome = CHANGE_MADE_BEFORE;
        *result = (struct change_result){.position = earlier.position,
                                         .stock = earlier.stock,
                                         .product_id = earlier.product_id,
                                         .figure = earlier.figure,
                                         .kind = earlier.kind};
    }
    return status;
}

/* Whose book is to be changed, and by whom. */
struct change_request {
    int64_t product_id, actor;
    const char *key;
    size_t key_bytes;
};

/* The book; *book is NULL if there is nothing to do: the actor's key has done something before, which is the outcome. */
static enum store_status open_book(const struct store_turn *turn, const struct change_request *request,
                                   enum change_outcome *outcome, struct change_result *result,
                                   const struct store_book **book)
{
    *outcome = CHANGE_MADE;
    *book = NULL;
    enum store_status status =
        find_earlier(turn, request->actor, request->key, request->key_bytes, outcome, result);
    if (status != STORE_OK || *outcome == CHANGE_MADE_BEFORE)
        return status;
    *book = store_book_of(turn->store, request->product_id);
    return *book == NULL ? STORE_FAILED : STORE_OK;
}

/* What was not written has no result. */
static enum store_status end_change(const struct store_turn *turn, enum store_status status,
                                    struct change_result *result)
{
    status = store_turn_end(turn, status);
    if (status != STORE_OK)
        *result = (struct change_result){0};
    return status;
}

/* --- stock --- */
/* How many of it can be had; of a bundle, as many as its components allow. */
static enum store_status available(struct store *store, struct store_book *book, int64_t *out)
{
    int64_t most = INT64_MAX;
    *out = book->stock;
    if (!book->is_bundle)
        return STORE_OK;
    const struct store_bundle *bundle = store_book_bundle(store, book);
    if (bundle == NULL)
        return STORE_FAILED;
    for (size_t i = 0; i < bundle->count; i++) {
        const struct store_book *component = store_book_of(store, bundle->components[i].product_id);
        if (component == NULL)
            return STORE_FAILED;
        int64_t allows = component->stock / bundle->components[i].quantity;
        most = allows < most ? allows : most;
    }
    *out = most == INT64_MAX ? 0 : most;
    return STORE_OK;
}

static bool has_such_stock(const struct store_book *book, const struct stock_change *change)
{
    if (change->cause == STOCK_OPENING)
        return book->known && (!book->is_bundle || change->delta == 0);
    return book->known && book->opened &&
           (!book->is_bundle || (change->cause == STOCK_HEALING && change->delta == 0));
}

/* CHANGE_MADE: it may be made. */
static enum change_outcome judge(const struct store_book *book, const struct stock_change *change)
{
    int64_t stock;
    if (change->cause == STOCK_OPENING && book->known && book->opened)
        return CHANGE_MADE_BEFORE;
    if (!has_such_stock(book, change))
        return CHANGE_CLOSED;
    if (__builtin_add_overflow(book->stock, change->delta, &stock))
        return change->delta < 0 ? CHANGE_SHORT : CHANGE_FULL;
    if (stock < 0)
        return CHANGE_SHORT;
    return change->delta > 0 && stock > PRODUCT_STOCK_MAX ? CHANGE_FULL : CHANGE_MADE;
}

/* The book has it now, and fully. */
static enum store_status apply_stock(const struct store_turn *turn, const struct stock_change *change,
                                     struct change_result *result)
{
    struct log_entry entry = {.kind = LOG_ENTRY_STOCK, .stock = *change};
    result->position = turn->next;
    result->stock += change->delta;
    entry.stock.remaining = result->stock;
    enum store_status status = store_turn_apply(turn, &entry);
    if (status == STORE_OK)
        CHECK(store_books_find(&turn->store->books, change->product_id)->stock == result->stock);
    return status;
}

static enum store_status change_stock(const struct store_turn *turn, const struct stock_change *change,
                                      enum change_outcome *outcome, struct change_result *result)
{
    const struct change_request request = {change->product_id, change->actor, change->key, change->key_bytes};
    const struct store_book *book;
    enum store_status status = open_book(turn, &request, outcome, result, &book);
    if (book == NULL)
        return status;
    *outcome = judge(book, change);
    result->stock = book->stock;
    result->product_id = change->product_id;
    result->figure = change->delta;
    if (*outcome == CHANGE_MADE_BEFORE)
        return available(turn->store, store_books_find(&turn->store->books, change->product_id),
                         &result->stock);
    return *outcome == CHANGE_MADE ? apply_stock(turn, change, result) : STORE_OK;
}

enum store_status store_change_stock(struct store *store, const struct stock_change *change,
                                     enum change_outcome *outcome, struct change_result *result)
{
    CHECK(store_may_write(store));
    *result = (struct change_result){0};
    struct store_turn turn;
    enum store_status status = store_turn_begin(store, changing_stock, &turn);
    return status == STORE_OK ? end_change(&turn, change_stock(&turn, change, outcome, result), result)
                              : status;
}

/* --- prices --- */
static enum store_status change_price(const struct store_turn *turn, const struct price_change *change,
                                      enum change_outcome *outcome, struct change_result *result)
{
    const struct change_request request = {change->product_id, change->actor, change->key, change->key_bytes};
    const struct store_book *book;
    enum store_status status = open_book(turn, &request, outcome, result, &book);
    if (book == NULL)
        return status;
    if (!book->known || !book->opened) {
        *outcome = CHANGE_CLOSED;
        return STORE_OK;
    }
    struct log_entry entry = {.kind = LOG_ENTRY_PRICE, .price = *change};
    entry.price.from = book->price;
    *result = (struct change_result){.position = turn->next,
                                     .stock = book->price,
                                     .product_id = change->product_id,
                                     .figure = change->to,
                                     .kind = CHANGE_OF_PRICE};
    status = store_turn_apply(turn, &entry);
    if (status == STORE_OK)
        CHECK(store_books_find(&turn->store->books, change->product_id)->price == change->to);
    return status;
}

enum store_status store_change_price(struct store *store, const struct price_change *change,
                                     enum change_outcome *outcome, struct change_result *result)
{
    CHECK(store_may_write(store));
    CHECK(change->to >= 1 && change->to <= PRODUCT_PRICE_MAX);
    *result = (struct change_result){0};
    struct store_turn turn;
    enum store_status status = store_turn_begin(store, changing_price, &turn);
    return status == STORE_OK ? end_change(&turn, change_price(&turn, change, outcome, result), result)
                              : status;
}

/* --- windows --- */
static enum store_status change_window(const struct store_turn *turn, const struct window_change *change,
                                       enum change_outcome *outcome, struct change_result *result)
{
    const struct change_request request = {change->product_id, change->actor, change->key, change->key_bytes};
    const struct store_book *book;
    enum store_status status = open_book(turn, &request, outcome, result, &book);
    if (book == NULL)
        return status;
    struct log_entry entry = {.kind = LOG_ENTRY_WINDOW, .window = *change};
    struct sale_window *to = &entry.window.to;
    entry.window.from = book->window;
    bool is_sound = sale_window_change(&book->window, &change->to, turn->now_ms, to);
    *result = (struct change_result){.position = turn->next,
                                     .stock = to->ends_at_ms,
                                     .product_id = change->product_id,
                                     .figure = to->starts_at_ms,
                                     .kind = CHANGE_OF_WINDOW};
    bool is_open = book->known && book->opened;
    if (!is_open || !is_sound) {
        *outcome = is_open ? CHANGE_NEVER_OPEN : CHANGE_CLOSED;
        return STORE_OK;
    }
    return store_turn_apply(turn, &entry);
}

enum store_status store_change_window(struct store *store, const struct window_change *change,
                                      enum change_outcome *outcome, struct change_result *result)
{
    CHECK(store_may_write(store));
    CHECK(sale_window_may_be_asked(&change->to));
    *result = (struct change_result){0};
    struct store_turn turn;
    enum store_status status = store_turn_begin(store, changing_window, &turn);
    return status == STORE_OK ? end_change(&turn, change_window(&turn, change, outcome, result), result)
                              : status;
}

/* --- cancelling --- */
static enum store_status cancellation_position(struct store *store, int64_t order_id, bool *found,
                                               struct log_position *out)
{
    const enum sql_statement row = SQL_CANCELLATION_POSITION;
    sql_bind_int(store, row, 1, order_id);
    enum sql_result result = sql_step(store, row);
    *found = result == SQL_ROW;
    if (*found)
        *out = (struct log_position){(uint64_t)sql_int(store, row, 0), (uint64_t)sql_int(store, row, 1)};
    enum store_status status = *found || result == SQL_DONE ? STORE_OK : sql_fail(store, cancelling);
    sql_reset(store, row);
    return status;
}

/* The buyer has fewer of each product with a limit. That he has none of them can only be if somebody has edited the table: the order counts. */
static enum store_status lower_owner(struct store *store, int64_t user_id, const struct order_part *part)
{
    const enum sql_statement statement = SQL_LOWER_LIMITED_BUYER;
    if (store_books_find(&store->books, part->product_id)->limit == 0)
        return STORE_OK;
    sql_bind_int(store, statement, 1, part->product_id);
    sql_bind_int(store, statement, 2, user_id);
    sql_bind_int(store, statement, 3, part->quantity);
    if (sql_run(store, statement) != SQL_DONE)
        return sql_fail(store, cancelling);
    if (sql_changes(store) == 0)
        log_warn("store: user %lld gives back %lld of product %lld, which limited_buyers does not know of",
                 (long long)user_id, (long long)part->quantity, (long long)part->product_id);
    return STORE_OK;
}

static void note_move(struct store *store, int64_t product_id, struct stock_moves *moves)
{
    const struct store_book *book = store_books_find(&store->books, product_id);
    for (size_t i = 0; i < moves->count; i++) {
        if (moves->each[i].product_id == product_id)
            return;
    }
    if (!book->is_bundle)
        moves->each[moves->count++] = (struct stock_move){.product_id = product_id, .stock = book->stock};
}

static enum store_status apply_cancellation(const struct store_turn *turn, const struct log_entry *entry,
                                            struct stock_moves *moves)
{
    struct store *store = turn->store;
    const struct cancellation *cancel = &entry->cancel;
    struct log_position position;
    bool applied = false;
    struct log_entry next = *entry;
    enum store_status status = store_turn_apply(turn, &next);
    if (status == STORE_OK)
        status = cancellation_position(store, cancel->order_id, &applied, &position);
    if (status == STORE_OK && !applied)
        status =
            store_refuse(store,
                         "%s in %s failed: the books do not have what order %lld took; somebody has edited "
                         "them, `verify` says more",
                         cancelling, sql_where(store), (long long)cancel->order_id);
    for (size_t i = 0; i < cancel->part_count && status == STORE_OK; i++) {
        status = lower_owner(store, cancel->user_id, &cancel->parts[i]);
        note_move(store, cancel->parts[i].product_id, moves);
    }
    moves->position = turn->next;
    return status;
}

static enum store_status cancel_confirmed(const struct store_turn *turn, const struct store_order *order,
                                          int64_t actor, struct stock_moves *moves)
{
    struct order_part parts[ORDER_PARTS_MAX];
    size_t count = 0;
    parts[0] = order_part_at(&order->sale, 0);
    enum store_status status = STORE_OK;
    if (order->part_count > 1)
        status = store_order_parts(turn->store, order->sale.id, parts + 1, ORDER_PARTS_MAX - 1, &count);
    if (status != STORE_OK)
        return status;
    struct log_entry entry = {.kind = LOG_ENTRY_CANCEL,
                              .cancel = {.order_id = order->sale.id,
                                         .user_id = order->sale.user_id,
                                         .actor = actor,
                                         .parts = parts,
                                         .part_count = count + 1}};
    return apply_cancellation(turn, &entry, moves);
}

static enum store_status cancel(const struct store_turn *turn, int64_t order_id, int64_t actor,
                                enum change_outcome *outcome, struct change_result *result,
                                struct stock_moves *moves)
{
    struct store_order order;
    bool found;
    enum store_status status = store_find_order(turn->store, order_id, &order);
    *outcome = CHANGE_CLOSED;
    if (status == STORE_NOT_FOUND || (status == STORE_OK && order.state == ORDER_REJECTED))
        return STORE_OK;
    if (status != STORE_OK)
        return status;
    if (order.state == ORDER_CANCELLED) {
        *outcome = CHANGE_MADE_BEFORE;
        return cancellation_position(turn->store, order_id, &found, &result->position);
    }
    *outcome = CHANGE_MADE;
    result->position = turn->next;
    return cancel_confirmed(turn, &order, actor, moves);
}

enum store_status store_cancel(struct store *store, int64_t order_id, int64_t actor,
                               enum change_outcome *outcome, struct change_result *result,
                               struct stock_moves *moves)
{
    CHECK(store_may_write(store));
    *result = (struct change_result){0};
    moves->position = (struct log_position){0};
    moves->count = 0;
    struct store_turn turn;
    enum store_status status = store_turn_begin(store, cancelling, &turn);
    if (status == STORE_OK)
        status = end_change(&turn, cancel(&turn, order_id, actor, outcome, result, moves), result);
    if (status != STORE_OK) {
        moves->position = (struct log_position){0};
        moves->count = 0;
    }
    return status;
}

/* --- what the stock was --- */
/* The product's next row after the position says what it found; without one, nothing has moved since. */
static enum store_status find_next_stock(struct store *store, int64_t product_id, int64_t first,
                                         int64_t *stock)
{
    const enum sql_statement row = SQL_NEXT_STOCK;
    sql_bind_int(store, row, 1, first);
    sql_bind_int(store, row, 2, product_id);
    enum sql_result result = sql_step(store, row);
    if (result == SQL_ROW)
        *stock = sql_int(store, row, 0);
    enum store_status status =
        result == SQL_ROW || result == SQL_DONE ? STORE_OK : sql_fail(store, looking_back);
    sql_reset(store, row);
    return status;
}

static enum store_status read_stock(struct store *store, int64_t product_id, int64_t *stock)
{
    const enum sql_statement row = SQL_READ_BOOK;
    enum store_status status = STORE_OK;
    sql_bind_int(store, row, 1, product_id);
    enum sql_result result = sql_step(store, row);
    if (result == SQL_ROW)
        *stock = sql_int(store, row, 1);
    else
        status = result == SQL_DONE ? STORE_NOT_FOUND : sql_fail(store, looking_back);
    sql_reset(store, row);
    return status;
}

static enum store_status stock_at(struct store *store, int64_t product_id, struct log_position position,
                                  bool *known, int64_t *stock)
{
    struct store_position now;
    struct store_chain end;
    int64_t first = 0;
    *known = false;
    enum store_status status = read_stock(store, product_id, stock);
    if (status == STORE_OK)
        status = store_position(store, &now);
    if (status != STORE_OK || log_position_compare(position, now.recorded) > 0)
        return status;
    status = store_chain_read(store, &end);
    if (status == STORE_OK)
        status = store_first_row_from(store, (struct log_position){position.epoch, position.n + 1}, &first);
    if (status != STORE_OK || end.seq - first + 1 > STORE_STOCK_AT_ROWS_MAX)
        return status;
    status = find_next_stock(store, product_id, first, stock);
    *known = status == STORE_OK;
    return status;
}

enum store_status store_stock_at(struct store *store, int64_t product_id, struct log_position position,
                                 bool *known, int64_t *stock)
{
    enum store_status status = sql_read_begin(store);
    if (status != STORE_OK)
        return status;
    status = stock_at(store, product_id, position, known, stock);
    sql_read_end(store);
    return status;
}
