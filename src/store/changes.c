/* Stock, prices, windows and cancellations without a sales log, in SQLite, by the rules of stock.lua and cancel.lua; and what a product's stock was.
 *
 * Runs on pool threads of the workers, in the keeper and in the tools; a change is one transaction, of which processes take turns. Owns
 * nothing. What must not be done is an outcome, found out before anything is written; whatever fails is rolled back. */
#include "sqlite.h"

#include "doorbuster/check.h"
#include "doorbuster/log.h"

#include <string.h>

static const char changing_stock[] = "changing stock";
static const char changing_price[] = "changing a price";
static const char changing_window[] = "changing a window";
static const char cancelling[] = "cancelling an order";
static const char looking_back[] = "looking up what the stock was";

/* --- keys --- */
static enum store_status find_earlier(const struct sqlite_turn *turn, int64_t actor, const char *key,
                                      size_t key_bytes, enum change_outcome *outcome,
                                      struct change_result *result)
{
    struct store_change_key earlier;
    bool found = false;
    if (key == NULL)
        return STORE_OK;
    enum store_status status = sqlite_find_change_key(turn->store, turn->now_ms - IDEMPOTENCY_KEY_LIFETIME_MS,
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
static enum store_status open_book(const struct sqlite_turn *turn, const struct change_request *request,
                                   enum change_outcome *outcome, struct change_result *result,
                                   const struct sqlite_book **book)
{
    *outcome = CHANGE_MADE;
    *book = NULL;
    enum store_status status =
        find_earlier(turn, request->actor, request->key, request->key_bytes, outcome, result);
    if (status != STORE_OK || *outcome == CHANGE_MADE_BEFORE)
        return status;
    *book = sqlite_book_of(turn->store, request->product_id);
    return *book == NULL ? STORE_FAILED : STORE_OK;
}

/* What was not written has no result. */
static enum store_status end_change(const struct sqlite_turn *turn, enum store_status status,
                                    struct change_result *result)
{
    status = sqlite_turn_end(turn, status);
    if (status != STORE_OK)
        *result = (struct change_result){0};
    return status;
}

/* --- stock --- */
/* How many of it can be had; of a bundle, as many as its components allow. */
static enum store_status available(struct sqlite_store *store, const struct sqlite_book *book, int64_t *out)
{
    struct bundle_component components[BUNDLE_COMPONENTS_MAX];
    size_t count;
    int64_t most = INT64_MAX;
    *out = book->stock;
    if (!book->is_bundle)
        return STORE_OK;
    enum store_status status = sqlite_components(store, book->product_id, components, &count);
    for (size_t i = 0; i < count && status == STORE_OK; i++) {
        const struct sqlite_book *component = sqlite_book_of(store, components[i].product_id);
        if (component == NULL)
            return STORE_FAILED;
        int64_t allows = component->stock / components[i].quantity;
        most = allows < most ? allows : most;
    }
    *out = most == INT64_MAX ? 0 : most;
    return status;
}

static bool has_such_stock(const struct sqlite_book *book, const struct stock_change *change)
{
    if (change->cause == STOCK_OPENING)
        return book->known && (!book->is_bundle || change->delta == 0);
    return book->known && book->opened &&
           (!book->is_bundle || (change->cause == STOCK_HEALING && change->delta == 0));
}

/* CHANGE_MADE: it may be made. */
static enum change_outcome judge(const struct sqlite_book *book, const struct stock_change *change)
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
static enum store_status apply_stock(const struct sqlite_turn *turn, const struct stock_change *change,
                                     struct change_result *result)
{
    struct log_entry entry = {.kind = LOG_ENTRY_STOCK, .stock = *change};
    result->position = turn->next;
    result->stock += change->delta;
    entry.stock.remaining = result->stock;
    enum store_status status = sqlite_turn_apply(turn, &entry);
    if (status == STORE_OK)
        CHECK(sqlite_books_find(&turn->store->books, change->product_id)->stock == result->stock);
    return status;
}

static enum store_status change_stock(const struct sqlite_turn *turn, const struct stock_change *change,
                                      enum change_outcome *outcome, struct change_result *result)
{
    const struct change_request request = {change->product_id, change->actor, change->key, change->key_bytes};
    const struct sqlite_book *book;
    enum store_status status = open_book(turn, &request, outcome, result, &book);
    if (book == NULL)
        return status;
    *outcome = judge(book, change);
    result->stock = book->stock;
    result->product_id = change->product_id;
    result->figure = change->delta;
    if (*outcome == CHANGE_MADE_BEFORE)
        return available(turn->store, sqlite_books_find(&turn->store->books, change->product_id),
                         &result->stock);
    return *outcome == CHANGE_MADE ? apply_stock(turn, change, result) : STORE_OK;
}

enum store_status sqlite_change_stock(struct store *base, const struct stock_change *change,
                                      enum change_outcome *outcome, struct change_result *result)
{
    struct sqlite_turn turn;
    enum store_status status = sqlite_turn_begin(sqlite_of(base), changing_stock, &turn);
    return status == STORE_OK ? end_change(&turn, change_stock(&turn, change, outcome, result), result)
                              : status;
}

/* --- prices --- */
static enum store_status change_price(const struct sqlite_turn *turn, const struct price_change *change,
                                      enum change_outcome *outcome, struct change_result *result)
{
    const struct change_request request = {change->product_id, change->actor, change->key, change->key_bytes};
    const struct sqlite_book *book;
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
    status = sqlite_turn_apply(turn, &entry);
    if (status == STORE_OK)
        CHECK(sqlite_books_find(&turn->store->books, change->product_id)->price == change->to);
    return status;
}

enum store_status sqlite_change_price(struct store *base, const struct price_change *change,
                                      enum change_outcome *outcome, struct change_result *result)
{
    struct sqlite_turn turn;
    enum store_status status = sqlite_turn_begin(sqlite_of(base), changing_price, &turn);
    return status == STORE_OK ? end_change(&turn, change_price(&turn, change, outcome, result), result)
                              : status;
}

/* --- windows --- */
static enum store_status change_window(const struct sqlite_turn *turn, const struct window_change *change,
                                       enum change_outcome *outcome, struct change_result *result)
{
    const struct change_request request = {change->product_id, change->actor, change->key, change->key_bytes};
    const struct sqlite_book *book;
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
    return sqlite_turn_apply(turn, &entry);
}

enum store_status sqlite_change_window(struct store *base, const struct window_change *change,
                                       enum change_outcome *outcome, struct change_result *result)
{
    struct sqlite_turn turn;
    enum store_status status = sqlite_turn_begin(sqlite_of(base), changing_window, &turn);
    return status == STORE_OK ? end_change(&turn, change_window(&turn, change, outcome, result), result)
                              : status;
}

/* --- cancelling --- */
static enum store_status cancellation_position(struct sqlite_store *store, int64_t order_id, bool *found,
                                               struct log_position *out)
{
    sqlite3_stmt *row = store->statements[SQL_CANCELLATION_POSITION];
    sqlite3_bind_int64(row, 1, order_id);
    int code = sqlite3_step(row);
    *found = code == SQLITE_ROW;
    if (*found)
        *out = (struct log_position){(uint64_t)sqlite3_column_int64(row, 0),
                                     (uint64_t)sqlite3_column_int64(row, 1)};
    enum store_status status = *found || code == SQLITE_DONE ? STORE_OK : sqlite_fail(store, cancelling);
    sqlite3_reset(row);
    return status;
}

/* The buyer has fewer of each product with a limit. That he has none of them can only be if somebody has edited the table: the order counts. */
static enum store_status lower_owner(struct sqlite_store *store, int64_t user_id,
                                     const struct order_part *part)
{
    sqlite3_stmt *statement = store->statements[SQL_LOWER_LIMITED_BUYER];
    if (sqlite_books_find(&store->books, part->product_id)->limit == 0)
        return STORE_OK;
    sqlite3_bind_int64(statement, 1, part->product_id);
    sqlite3_bind_int64(statement, 2, user_id);
    sqlite3_bind_int64(statement, 3, part->quantity);
    if (sqlite_run(statement) != SQLITE_DONE)
        return sqlite_fail(store, cancelling);
    if (sqlite3_changes(store->db) == 0)
        log_warn("store: user %lld gives back %lld of product %lld, which limited_buyers does not know of",
                 (long long)user_id, (long long)part->quantity, (long long)part->product_id);
    return STORE_OK;
}

static void note_move(struct sqlite_store *store, int64_t product_id, struct stock_moves *moves)
{
    const struct sqlite_book *book = sqlite_books_find(&store->books, product_id);
    for (size_t i = 0; i < moves->count; i++) {
        if (moves->each[i].product_id == product_id)
            return;
    }
    if (!book->is_bundle)
        moves->each[moves->count++] = (struct stock_move){.product_id = product_id, .stock = book->stock};
}

static enum store_status apply_cancellation(const struct sqlite_turn *turn, const struct log_entry *entry,
                                            struct stock_moves *moves)
{
    struct sqlite_store *store = turn->store;
    const struct cancellation *cancel = &entry->cancel;
    struct log_position position;
    bool applied = false;
    struct log_entry next = *entry;
    enum store_status status = sqlite_turn_apply(turn, &next);
    if (status == STORE_OK)
        status = cancellation_position(store, cancel->order_id, &applied, &position);
    if (status == STORE_OK && !applied)
        status =
            sqlite_refuse(store,
                          "%s in %s failed: the books do not have what order %lld took; somebody has edited "
                          "them, `verify` says more",
                          cancelling, store->path, (long long)cancel->order_id);
    for (size_t i = 0; i < cancel->part_count && status == STORE_OK; i++) {
        status = lower_owner(store, cancel->user_id, &cancel->parts[i]);
        note_move(store, cancel->parts[i].product_id, moves);
    }
    moves->position = turn->next;
    return status;
}

static enum store_status cancel_confirmed(const struct sqlite_turn *turn, const struct store_order *order,
                                          int64_t actor, struct stock_moves *moves)
{
    struct order_part parts[ORDER_PARTS_MAX];
    size_t count = 0;
    parts[0] = order_part_at(&order->sale, 0);
    enum store_status status =
        sqlite_order_parts(&turn->store->base, order->sale.id, parts + 1, ORDER_PARTS_MAX - 1, &count);
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

static enum store_status cancel(const struct sqlite_turn *turn, int64_t order_id, int64_t actor,
                                enum change_outcome *outcome, struct change_result *result,
                                struct stock_moves *moves)
{
    struct store_order order;
    bool found;
    enum store_status status = sqlite_find_order(&turn->store->base, order_id, &order);
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

enum store_status sqlite_cancel(struct store *base, int64_t order_id, int64_t actor,
                                enum change_outcome *outcome, struct change_result *result,
                                struct stock_moves *moves)
{
    struct sqlite_turn turn;
    enum store_status status = sqlite_turn_begin(sqlite_of(base), cancelling, &turn);
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
static enum store_status find_next_stock(struct sqlite_store *store, int64_t product_id, int64_t first,
                                         int64_t *stock)
{
    sqlite3_stmt *row = store->statements[SQL_NEXT_STOCK];
    sqlite3_bind_int64(row, 1, first);
    sqlite3_bind_int64(row, 2, product_id);
    int code = sqlite3_step(row);
    if (code == SQLITE_ROW)
        *stock = sqlite3_column_int64(row, 0);
    enum store_status status =
        code == SQLITE_ROW || code == SQLITE_DONE ? STORE_OK : sqlite_fail(store, looking_back);
    sqlite3_reset(row);
    return status;
}

static enum store_status read_stock(struct sqlite_store *store, int64_t product_id, int64_t *stock)
{
    sqlite3_stmt *row = store->statements[SQL_READ_BOOK];
    enum store_status status = STORE_OK;
    sqlite3_bind_int64(row, 1, product_id);
    int code = sqlite3_step(row);
    if (code == SQLITE_ROW)
        *stock = sqlite3_column_int64(row, 1);
    else
        status = code == SQLITE_DONE ? STORE_NOT_FOUND : sqlite_fail(store, looking_back);
    sqlite3_reset(row);
    return status;
}

static enum store_status stock_at(struct sqlite_store *store, int64_t product_id,
                                  struct log_position position, bool *known, int64_t *stock)
{
    struct store_position now;
    struct sqlite_chain end;
    int64_t first = 0;
    *known = false;
    enum store_status status = read_stock(store, product_id, stock);
    if (status == STORE_OK)
        status = sqlite_position(&store->base, &now);
    if (status != STORE_OK || log_position_compare(position, now.recorded) > 0)
        return status;
    status = sqlite_chain_read(store, &end);
    if (status == STORE_OK)
        status = sqlite_first_row_from(store, (struct log_position){position.epoch, position.n + 1}, &first);
    if (status != STORE_OK || end.seq - first + 1 > STORE_STOCK_AT_ROWS_MAX)
        return status;
    status = find_next_stock(store, product_id, first, stock);
    *known = status == STORE_OK;
    return status;
}

enum store_status sqlite_stock_at(struct store *base, int64_t product_id, struct log_position position,
                                  bool *known, int64_t *stock)
{
    struct sqlite_store *store = sqlite_of(base);
    enum store_status status = sqlite_read_begin(store);
    if (status != STORE_OK)
        return status;
    status = stock_at(store, product_id, position, known, stock);
    sqlite_read_end(store);
    return status;
}
