/* The recorder's half of the SQLite driver: its position, its epoch, and runs of log entries.
 *
 * Runs in the recorder process only (positions: anywhere). Owns the table of books in struct sqlite_store.
 *
 * A run is one transaction: the position moves by compare-and-set first, so that a recorder that was fenced
 * off does no work; each product's book is read at its first mention, entries are applied to it in log order,
 * and it is written back once. Order ids only rise; the first id is compared with the last in the store.
 *
 * What does not fit never stops the recorder, as it would stop for ever: a sale without stock becomes a
 * rejected order, a stock change that does not fit is kept as not applied, an order id that is not new is
 * refused without a row; the last two are logged. Only the store itself can fail a run, and then nothing of
 * it stays. */
#include "sqlite.h"

#include "doorbuster/check.h"
#include "doorbuster/failpoint.h"
#include "doorbuster/log.h"

#include <stdlib.h>
#include <string.h>

#define BOOKS_MIN 64 /* slots */

static const char doing[] = "recording sales";

/* --- position and epoch --- */
enum store_status sqlite_position(struct store *base, struct store_position *out)
{
    struct sqlite_store *store = sqlite_of(base);
    sqlite3_stmt *row = store->statements[SQL_POSITION];
    enum store_status status = STORE_OK;
    if (sqlite3_step(row) == SQLITE_ROW) {
        out->epoch = (uint64_t)sqlite3_column_int64(row, 0);
        out->recorded.epoch = (uint64_t)sqlite3_column_int64(row, 1);
        out->recorded.n = (uint64_t)sqlite3_column_int64(row, 2);
        out->last_order_id = sqlite3_column_int64(row, 3); /* NULL of an empty table reads as 0 */
        out->store_id = sqlite3_column_int64(row, 4);
    } else {
        status = sqlite_fail(store, "reading the position");
    }
    sqlite3_reset(row);
    return status;
}

static enum store_status write_epoch(struct sqlite_store *store, uint64_t from, uint64_t to)
{
    sqlite3_stmt *statement = store->statements[SQL_RAISE_EPOCH];
    sqlite3_bind_int64(statement, 1, (int64_t)from);
    sqlite3_bind_int64(statement, 2, (int64_t)to);
    if (sqlite_run(statement) != SQLITE_DONE)
        return sqlite_fail(store, "raising the epoch");
    return sqlite3_changes(store->db) == 1 ? STORE_OK : STORE_FENCED;
}

enum store_status sqlite_raise_epoch(struct store *base, uint64_t from, uint64_t to)
{
    struct sqlite_store *store = sqlite_of(base);
    if (from >= INT64_MAX || to > INT64_MAX)
        return STORE_FENCED; /* no store can hold such an epoch */
    enum store_status status = sqlite_make_log_sound(store);
    if (status == STORE_OK)
        status = sqlite_write_begin(store, "raising the epoch");
    return status == STORE_OK ? sqlite_write_end(store, write_epoch(store, from, to), "raising the epoch")
                              : status;
}

/* --- books --- */
static struct sqlite_book *find_slot(struct sqlite_books *books, int64_t product_id)
{
    size_t mask = books->capacity - 1;
    size_t i = (size_t)((uint64_t)product_id * 0x9e3779b97f4a7c15u >> 32) & mask;
    while (books->slots[i].product_id != 0 && books->slots[i].product_id != product_id)
        i = (i + 1) & mask;
    return &books->slots[i];
}

static bool grow_books(struct sqlite_books *books)
{
    if (2 * (books->used + 1) <= books->capacity)
        return true;
    struct sqlite_books larger = {.capacity = books->capacity == 0 ? BOOKS_MIN : 2 * books->capacity,
                                  .used = books->used};
    larger.slots = calloc(larger.capacity, sizeof *larger.slots);
    if (larger.slots == NULL)
        return false;
    for (size_t i = 0; i < books->capacity; i++) {
        if (books->slots[i].product_id != 0)
            *find_slot(&larger, books->slots[i].product_id) = books->slots[i];
    }
    free(books->slots);
    *books = larger;
    return true;
}

static void forget_books(struct sqlite_books *books)
{
    if (books->used > 0)
        memset(books->slots, 0, books->capacity * sizeof *books->slots);
    books->used = 0;
}

static bool read_book(struct sqlite_store *store, struct sqlite_book *book)
{
    sqlite3_stmt *row = store->statements[SQL_READ_BOOK];
    sqlite3_bind_int64(row, 1, book->product_id);
    int code = sqlite3_step(row);
    book->known = code == SQLITE_ROW;
    if (book->known) {
        book->opened = sqlite3_column_int(row, 0) != 0;
        book->stock = sqlite3_column_int64(row, 1);
        book->opening = sqlite3_column_int64(row, 2);
        book->restocked = sqlite3_column_int64(row, 3);
        book->cancelled = sqlite3_column_int64(row, 4);
        book->sold = sqlite3_column_int64(row, 5);
        book->updated_at_ms = sqlite3_column_int64(row, 6);
    }
    sqlite3_reset(row);
    return code == SQLITE_ROW || code == SQLITE_DONE;
}

/* The book of a product, read at its first mention. NULL: failed, the error is set. */
static struct sqlite_book *book_of(struct sqlite_store *store, int64_t product_id)
{
    if (!grow_books(&store->books)) {
        sqlite_refuse(store, "%s in %s failed: out of memory", doing, store->path);
        return NULL;
    }
    struct sqlite_book *book = find_slot(&store->books, product_id);
    if (book->product_id != 0)
        return book;
    *book = (struct sqlite_book){.product_id = product_id};
    store->books.used++;
    if (read_book(store, book))
        return book;
    sqlite_fail(store, doing);
    return NULL;
}

static bool write_book(struct sqlite_store *store, const struct sqlite_book *book)
{
    CHECK(book->stock >= 0 && book->stock == book->opening + book->restocked + book->cancelled - book->sold);
    sqlite3_stmt *statement = store->statements[SQL_WRITE_BOOK];
    sqlite3_bind_int64(statement, 1, book->product_id);
    sqlite3_bind_int(statement, 2, book->opened);
    sqlite3_bind_int64(statement, 3, book->stock);
    sqlite3_bind_int64(statement, 4, book->opening);
    sqlite3_bind_int64(statement, 5, book->restocked);
    sqlite3_bind_int64(statement, 6, book->cancelled);
    sqlite3_bind_int64(statement, 7, book->sold);
    sqlite3_bind_int64(statement, 8, book->updated_at_ms);
    return sqlite_run(statement) == SQLITE_DONE;
}

static void touch_book(struct sqlite_book *book, int64_t at_ms)
{
    book->changed = true;
    if (book->updated_at_ms < at_ms)
        book->updated_at_ms = at_ms;
}

static bool sell(struct sqlite_book *book, int64_t quantity, int64_t at_ms)
{
    if (!book->known || quantity <= 0 || quantity > book->stock)
        return false;
    int64_t sold;
    if (__builtin_add_overflow(book->sold, quantity, &sold))
        return false;
    book->sold = sold;
    book->stock -= quantity;
    touch_book(book, at_ms);
    return true;
}

static bool change_stock(struct sqlite_book *book, const struct stock_change *change, int64_t at_ms)
{
    bool is_opening = change->cause == STOCK_OPENING;
    int64_t *sum = is_opening ? &book->opening : &book->restocked;
    int64_t new_sum, new_stock;
    if (!book->known || __builtin_add_overflow(*sum, change->delta, &new_sum) ||
        __builtin_add_overflow(book->stock, change->delta, &new_stock) || new_stock < 0 ||
        (is_opening && new_sum < 0))
        return false;
    *sum = new_sum;
    book->stock = new_stock;
    book->opened = book->opened || is_opening;
    touch_book(book, at_ms);
    return true;
}

/* --- a run --- */
struct run {
    struct sqlite_store *store;
    int64_t last_order_id;
    int64_t *rejected;
    size_t *rejected_count;
};

static enum store_status move_position(struct sqlite_store *store, uint64_t epoch, struct log_position from,
                                       struct log_position to)
{
    sqlite3_stmt *statement = store->statements[SQL_MOVE_POSITION];
    sqlite3_bind_int64(statement, 1, (int64_t)epoch);
    sqlite3_bind_int64(statement, 2, (int64_t)from.epoch);
    sqlite3_bind_int64(statement, 3, (int64_t)from.n);
    sqlite3_bind_int64(statement, 4, (int64_t)to.epoch);
    sqlite3_bind_int64(statement, 5, (int64_t)to.n);
    if (sqlite_run(statement) != SQLITE_DONE)
        return sqlite_fail(store, doing);
    return sqlite3_changes(store->db) == 1 ? STORE_OK : STORE_FENCED;
}

enum store_status sqlite_skip_to(struct store *base, uint64_t epoch, struct log_position from,
                                 struct log_position to)
{
    static const char skipping[] = "moving the position";
    struct sqlite_store *store = sqlite_of(base);
    if (log_position_compare(from, to) >= 0)
        return sqlite_refuse(store, "%s in %s failed: it is at %llu-%llu already", skipping, store->path,
                             (unsigned long long)from.epoch, (unsigned long long)from.n);
    enum store_status status = sqlite_write_begin(store, skipping);
    return status == STORE_OK ? sqlite_write_end(store, move_position(store, epoch, from, to), skipping)
                              : status;
}

static bool insert_order(struct sqlite_store *store, const struct log_entry *entry,
                         const struct sale_order *order, enum order_state state)
{
    sqlite3_stmt *statement = store->statements[SQL_ADD_ORDER];
    sqlite3_bind_int64(statement, 1, order->id);
    sqlite3_bind_int(statement, 2, (int)state);
    sqlite3_bind_int64(statement, 3, order->request);
    sqlite3_bind_int64(statement, 4, order->user_id);
    sqlite3_bind_int64(statement, 5, order->product_id);
    sqlite3_bind_int64(statement, 6, order->quantity);
    sqlite3_bind_int64(statement, 7, order->unit_price);
    sqlite3_bind_int64(statement, 8, order->remaining);
    sqlite3_bind_int64(statement, 9, entry->at_ms);
    sqlite3_bind_int64(statement, 10, (int64_t)entry->position.epoch);
    sqlite3_bind_int64(statement, 11, (int64_t)entry->position.n);
    if (order->key == NULL)
        sqlite3_bind_null(statement, 12);
    else
        sqlite3_bind_text(statement, 12, order->key, (int)order->key_bytes, SQLITE_STATIC);
    return sqlite_run(statement) == SQLITE_DONE;
}

static enum store_status apply_order(struct run *run, const struct log_entry *entry,
                                     const struct sale_order *order)
{
    if (order->id <= run->last_order_id || order->quantity <= 0) {
        log_warn("store: order %lld at %llu-%llu refused: not an order that our scripts write (last order "
                 "%lld, quantity %lld)",
                 (long long)order->id, (unsigned long long)entry->position.epoch,
                 (unsigned long long)entry->position.n, (long long)run->last_order_id,
                 (long long)order->quantity);
        run->rejected[(*run->rejected_count)++] = order->id;
        return STORE_OK;
    }
    struct sqlite_book *book = book_of(run->store, order->product_id);
    if (book == NULL)
        return STORE_FAILED;
    enum order_state state = sell(book, order->quantity, entry->at_ms) ? ORDER_CONFIRMED : ORDER_REJECTED;
    if (state == ORDER_REJECTED)
        run->rejected[(*run->rejected_count)++] = order->id;
    if (!insert_order(run->store, entry, order, state))
        return sqlite_fail(run->store, doing);
    run->last_order_id = order->id;
    return STORE_OK;
}

static enum store_status apply_stock_change(struct run *run, const struct log_entry *entry)
{
    const struct stock_change *change = &entry->stock;
    struct sqlite_book *book = book_of(run->store, change->product_id);
    if (book == NULL)
        return STORE_FAILED;
    bool applied = change_stock(book, change, entry->at_ms);
    if (!applied)
        log_warn(
            "store: %s of %lld for product %lld at %llu-%llu does not fit (stock %lld%s): kept, not applied",
            stock_cause_names[change->cause], (long long)change->delta, (long long)change->product_id,
            (unsigned long long)entry->position.epoch, (unsigned long long)entry->position.n,
            (long long)book->stock, book->known ? "" : ", unknown product");
    sqlite3_stmt *statement = run->store->statements[SQL_ADD_STOCK_CHANGE];
    sqlite3_bind_int64(statement, 1, (int64_t)entry->position.epoch);
    sqlite3_bind_int64(statement, 2, (int64_t)entry->position.n);
    sqlite3_bind_int64(statement, 3, entry->at_ms);
    sqlite3_bind_int64(statement, 4, change->product_id);
    sqlite3_bind_int64(statement, 5, change->delta);
    sqlite3_bind_int64(statement, 6, change->remaining);
    sqlite_bind_text(statement, 7, stock_cause_names[change->cause]);
    sqlite3_bind_int(statement, 8, applied);
    sqlite3_bind_int64(statement, 9, change->actor);
    sqlite_bind_text(statement, 10, change->note);
    return sqlite_run(statement) == SQLITE_DONE ? STORE_OK : sqlite_fail(run->store, doing);
}

static enum store_status apply_entry(struct run *run, const struct log_entry *entry)
{
    if (entry->kind == LOG_ENTRY_STOCK)
        return apply_stock_change(run, entry);
    enum store_status status = STORE_OK;
    for (size_t i = 0; i < entry->order_count && status == STORE_OK; i++)
        status = apply_order(run, entry, &entry->orders[i]);
    return status;
}

static enum store_status write_books(struct sqlite_store *store)
{
    for (size_t i = 0; i < store->books.capacity; i++) {
        if (store->books.slots[i].changed && !write_book(store, &store->books.slots[i]))
            return sqlite_fail(store, doing);
    }
    return STORE_OK;
}

static enum store_status apply_run(struct run *run, uint64_t epoch, struct log_position from,
                                   const struct log_entry *entries, size_t count)
{
    struct store_position position;
    enum store_status status = move_position(run->store, epoch, from, entries[count - 1].position);
    if (status == STORE_OK)
        status = sqlite_position(&run->store->base, &position);
    if (status != STORE_OK)
        return status;
    run->last_order_id = position.last_order_id;
    for (size_t i = 0; i < count && status == STORE_OK; i++)
        status = apply_entry(run, &entries[i]);
    return status == STORE_OK ? write_books(run->store) : status;
}

static enum store_status fail_for_a_test(struct sqlite_store *store)
{
    return sqlite_refuse(store, "%s in %s failed: a test wants it so", doing, store->path);
}

/* Positions come from Redis: those that are out of order or out of range are refused, not trusted. */
static bool are_in_order(uint64_t epoch, struct log_position from, const struct log_entry *entries,
                         size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (log_position_compare(entries[i].position, i == 0 ? from : entries[i - 1].position) <= 0 ||
            entries[i].position.epoch > INT64_MAX || entries[i].position.n > INT64_MAX)
            return false;
    }
    return epoch <= INT64_MAX && from.epoch <= INT64_MAX && from.n <= INT64_MAX;
}

enum store_status sqlite_record(struct store *base, uint64_t epoch, struct log_position from,
                                const struct log_entry *entries, size_t count, int64_t *rejected,
                                size_t *rejected_count)
{
    struct sqlite_store *store = sqlite_of(base);
    if (!are_in_order(epoch, from, entries, count))
        return sqlite_refuse(store, "%s in %s failed: the entries after %llu-%llu are not in the log's order",
                             doing, store->path, (unsigned long long)from.epoch, (unsigned long long)from.n);
    enum store_status status = sqlite_make_log_sound(store);
    if (status == STORE_OK)
        status = sqlite_write_begin(store, doing);
    if (status != STORE_OK)
        return status;
    struct run run = {.store = store, .rejected = rejected, .rejected_count = rejected_count};
    status = failpoint("store.begun") ? fail_for_a_test(store) : apply_run(&run, epoch, from, entries, count);
    if (status == STORE_OK && failpoint("store.commit"))
        status = fail_for_a_test(store);
    status = sqlite_write_end(store, status, doing);
    if (status == STORE_OK && failpoint("store.committed"))
        status = fail_for_a_test(store);
    forget_books(&store->books);
    return status;
}
