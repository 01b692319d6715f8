/* The recorder's half of the SQLite driver: its position, its epoch, and runs of log entries.
 *
 * Runs in the recorder process (positions: anywhere); where there is no sales log, sqlite_apply_run() is called by whoever sells. Owns nothing: the table of books is sqlite_books.c's.
 *
 * A run is one transaction: the position moves by compare-and-set first, so that a recorder that was fenced
 * off does no work; each product's book is read at its first mention (in this run, or one before it), entries are applied to it in log order,
 * and it is written back once. Order ids only rise; the first id is compared with the last in the store.
 *
 * An order takes all its parts or none. Behind each entry the audit log gets one row for each product that it moved, chained to the row before
 * (sqlite_audit_log.c); the end of the chain is read once a run.
 *
 * What does not fit never stops the recorder, as it would stop for ever: a sale without stock becomes a
 * rejected order, a change or cancellation that does not fit is kept as not applied, an order id that is not new is
 * refused without a row; the last two are logged. Only the store itself can fail a run, and then nothing of
 * it stays. */
#include "sqlite.h"

#include "doorbuster/failpoint.h"
#include "doorbuster/log.h"
#include "doorbuster/text.h"

#include <stdio.h>
#include <string.h>

static const char doing[] = "writing sales";

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
        out->seller = sqlite3_column_int(row, 5) != 0 ? STORE_SOLD_BY_REDLOCK : STORE_SOLD_BY_LUA;
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

/* --- a run --- */
struct run {
    struct sqlite_store *store;
    int64_t last_order_id;
    struct sqlite_chain chain;
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

/* --- the audit log --- */
static void begin_row(struct store_audit_row *row, const struct log_entry *entry, int64_t product_id,
                      const char *cause)
{
    *row = (struct store_audit_row){
        .at_ms = entry->at_ms, .position = entry->position, .product_id = product_id};
    memcpy(row->cause, cause, strlen(cause) + 1);
}

static enum store_status append_row(struct run *run, struct store_audit_row *row)
{
    return sqlite_chain_append(&run->chain, run->store->statements[SQL_ADD_AUDIT_ROW], row)
               ? STORE_OK
               : sqlite_fail(run->store, doing);
}

/* "order 42", "orders 42 to 97". */
static void name_orders(char out[SALES_LOG_NOTE_BYTES], int64_t first, int64_t last)
{
    char *at = stpcpy(out, first == last ? "order " : "orders ");
    at += text_from_int64(first, at);
    if (first != last)
        text_from_int64(last, stpcpy(at, " to "));
}

/* A row for each product that the entry moved, in the order of their first mention. `actor` 0: the buyer, if it is one. */
static enum store_status append_moves(struct run *run, const struct log_entry *entry, const char *cause,
                                      bool applied, int64_t actor)
{
    struct sqlite_books *books = &run->store->books;
    enum store_status status = STORE_OK;
    for (size_t i = 0; i < books->moved_count && status == STORE_OK; i++) {
        const struct sqlite_book *book = sqlite_books_find(books, books->moved[i]);
        struct store_audit_row row;
        begin_row(&row, entry, book->product_id, cause);
        row.delta = book->moved;
        row.applied = applied;
        row.to = book->stock;
        row.from = applied && !book->is_bundle ? book->stock - book->moved : book->stock;
        row.actor = actor != 0 ? actor : book->user_id;
        name_orders(row.note, book->first_order_id, book->last_order_id);
        status = append_row(run, &row);
    }
    sqlite_books_settle(books);
    return status;
}

static void set_reason(struct store_audit_row *row, int64_t actor, const char *note, const char *key,
                       size_t key_bytes)
{
    row->actor = actor;
    snprintf(row->note, sizeof row->note, "%s", note);
    if (key != NULL)
        snprintf(row->key, sizeof row->key, "%.*s",
                 (int)(key_bytes < sizeof row->key ? key_bytes : sizeof row->key - 1), key);
}

/* --- orders --- */
static bool insert_parts(struct sqlite_store *store, const struct sale_order *order)
{
    sqlite3_stmt *statement = store->statements[SQL_ADD_ORDER_PART];
    sqlite3_bind_int64(statement, 1, order->id);
    for (size_t i = 1; i < order_part_count(order); i++) {
        struct order_part part = order_part_at(order, i);
        sqlite3_bind_int64(statement, 2, (int64_t)i);
        sqlite3_bind_int64(statement, 3, part.product_id);
        sqlite3_bind_int64(statement, 4, part.quantity);
        sqlite3_bind_int64(statement, 5, part.unit_price);
        sqlite3_bind_int64(statement, 6, part.remaining);
        sqlite3_bind_int(statement, 7, part.is_component);
        if (sqlite_run(statement) != SQLITE_DONE)
            return false;
    }
    return true;
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
    sqlite3_bind_int64(statement, 13, (int64_t)order_part_count(order));
    return sqlite_run(statement) == SQLITE_DONE && insert_parts(store, order);
}

/* Takes the first `count` parts back out of the books, which have them all. */
static void unsell_parts(struct sqlite_store *store, const struct sale_order *order, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        struct order_part part = order_part_at(order, i);
        sqlite_book_unsell(sqlite_books_find(&store->books, part.product_id), part.quantity);
    }
}

/* What must stand behind a line: nothing, or, of a bundle, exactly what it is made of. Redis may have been told something else. */
struct expected {
    struct bundle_component components[BUNDLE_COMPONENTS_MAX];
    size_t count, met;
    int64_t bundles;
};

static bool is_expected(struct expected *expected, const struct order_part *component)
{
    if (expected->met == expected->count)
        return false;
    const struct bundle_component *next = &expected->components[expected->met++];
    return component->product_id == next->product_id &&
           component->quantity == next->quantity * expected->bundles;
}

/* Takes one part, *fits, if it is what must come here, at its price, and there is so much of it. */
static enum store_status sell_part(struct sqlite_store *store, const struct order_part *part,
                                   struct expected *expected, bool *fits)
{
    struct sqlite_book *book = sqlite_book_of(store, part->product_id);
    if (book == NULL)
        return STORE_FAILED;
    *fits = part->is_component ? is_expected(expected, part) && !book->is_bundle
                               : expected->met == expected->count;
    if (*fits && book->is_bundle) {
        *expected = (struct expected){.bundles = part->quantity};
        if (sqlite_components(store, part->product_id, expected->components, &expected->count) != STORE_OK)
            return STORE_FAILED;
    }
    *fits = *fits && part->unit_price == (part->is_component ? 0 : book->price) &&
            sqlite_book_sell(book, part->quantity);
    return STORE_OK;
}

/* All parts or none. */
static enum store_status sell_parts(struct sqlite_store *store, const struct sale_order *order, bool *sold)
{
    struct expected expected = {.count = 0};
    *sold = false;
    for (size_t i = 0; i < order_part_count(order); i++) {
        struct order_part part = order_part_at(order, i);
        bool fits;
        if (sell_part(store, &part, &expected, &fits) != STORE_OK)
            return STORE_FAILED;
        if (!fits) {
            unsell_parts(store, order, i);
            return STORE_OK;
        }
    }
    *sold = expected.met == expected.count;
    if (!*sold)
        unsell_parts(store, order, order_part_count(order));
    return STORE_OK;
}

static void move_parts(struct sqlite_store *store, const struct log_entry *entry,
                       const struct sale_order *order)
{
    for (size_t i = 0; i < order_part_count(order); i++) {
        struct order_part part = order_part_at(order, i);
        struct sqlite_book *book = sqlite_books_find(&store->books, part.product_id);
        sqlite_book_touch(book, BOOK_SOLD, entry->at_ms);
        sqlite_books_move(&store->books, book, -part.quantity, order->id, order->user_id);
    }
}

static bool is_well_formed(const struct sale_order *order)
{
    bool well_formed = order_part_count(order) <= ORDER_PARTS_MAX;
    for (size_t i = 0; well_formed && i < order_part_count(order); i++)
        well_formed = order_part_at(order, i).quantity > 0;
    return well_formed;
}

static enum store_status apply_order(struct run *run, const struct log_entry *entry,
                                     const struct sale_order *order)
{
    if (order->id <= run->last_order_id || !is_well_formed(order)) {
        log_warn("store: order %lld at %llu-%llu refused: not an order that our scripts write (last order "
                 "%lld, quantity %lld)",
                 (long long)order->id, (unsigned long long)entry->position.epoch,
                 (unsigned long long)entry->position.n, (long long)run->last_order_id,
                 (long long)order->quantity);
        run->rejected[(*run->rejected_count)++] = order->id;
        return STORE_OK;
    }
    bool sold;
    enum store_status status = sell_parts(run->store, order, &sold);
    if (status != STORE_OK)
        return status;
    if (sold)
        move_parts(run->store, entry, order);
    else
        run->rejected[(*run->rejected_count)++] = order->id;
    if (!insert_order(run->store, entry, order, sold ? ORDER_CONFIRMED : ORDER_REJECTED))
        return sqlite_fail(run->store, doing);
    run->last_order_id = order->id;
    return STORE_OK;
}

static enum store_status apply_sale(struct run *run, const struct log_entry *entry)
{
    enum store_status status = STORE_OK;
    for (size_t i = 0; i < entry->order_count && status == STORE_OK; i++)
        status = apply_order(run, entry, &entry->orders[i]);
    return status == STORE_OK ? append_moves(run, entry, "sale", true, 0) : status;
}

/* --- cancellations --- */
/* The parts as the store has them: the entry's are what Redis believed. */
static enum store_status read_parts(struct sqlite_store *store, int64_t order_id,
                                    struct order_part parts[ORDER_PARTS_MAX], size_t *count, bool *stands)
{
    struct store_order order;
    enum store_status status = sqlite_find_order(&store->base, order_id, &order);
    *stands = status == STORE_OK && order.state == ORDER_CONFIRMED;
    if (!*stands)
        return status == STORE_NOT_FOUND ? STORE_OK : status;
    parts[0] = order_part_at(&order.sale, 0);
    status = sqlite_order_parts(&store->base, order_id, parts + 1, ORDER_PARTS_MAX - 1, count);
    *count += 1;
    return status;
}

static enum store_status insert_cancellation(struct sqlite_store *store, const struct log_entry *entry)
{
    sqlite3_stmt *statement = store->statements[SQL_ADD_CANCELLATION];
    sqlite3_bind_int64(statement, 1, entry->cancel.order_id);
    sqlite3_bind_int64(statement, 2, entry->at_ms);
    sqlite3_bind_int64(statement, 3, entry->cancel.actor);
    sqlite3_bind_int64(statement, 4, (int64_t)entry->position.epoch);
    sqlite3_bind_int64(statement, 5, (int64_t)entry->position.n);
    return sqlite_run(statement) == SQLITE_DONE ? STORE_OK : sqlite_fail(store, doing);
}

/* All parts or none. They fit, unless somebody has edited the books. */
static enum store_status give_parts_back(struct sqlite_store *store, const struct order_part *parts,
                                         size_t count, bool *fits)
{
    *fits = false;
    for (size_t i = 0; i < count; i++) {
        struct sqlite_book *book = sqlite_book_of(store, parts[i].product_id);
        if (book == NULL)
            return STORE_FAILED;
        if (!sqlite_book_give_back(book, parts[i].quantity)) {
            while (i-- > 0)
                sqlite_book_take_back(sqlite_books_find(&store->books, parts[i].product_id),
                                      parts[i].quantity);
            return STORE_OK;
        }
    }
    *fits = true;
    return STORE_OK;
}

static enum store_status cancel_parts(struct run *run, const struct log_entry *entry,
                                      const struct order_part *parts, size_t count)
{
    struct sqlite_books *books = &run->store->books;
    for (size_t i = 0; i < count; i++) {
        struct sqlite_book *book = sqlite_books_find(books, parts[i].product_id);
        sqlite_book_touch(book, BOOK_CHANGED, entry->at_ms);
        sqlite_books_move(books, book, parts[i].quantity, entry->cancel.order_id, entry->cancel.actor);
    }
    enum store_status status = insert_cancellation(run->store, entry);
    return status == STORE_OK ? append_moves(run, entry, "cancel", true, entry->cancel.actor) : status;
}

/* What Redis gave back and should not have. */
static enum store_status keep_misfit(struct run *run, const struct log_entry *entry)
{
    const struct cancellation *cancel = &entry->cancel;
    log_warn("store: cancelling order %lld at %llu-%llu does not fit (no such order, rejected, or cancelled "
             "before): kept, not applied",
             (long long)cancel->order_id, (unsigned long long)entry->position.epoch,
             (unsigned long long)entry->position.n);
    for (size_t i = 0; i < cancel->part_count; i++) {
        const struct order_part *part = &cancel->parts[i];
        if (part->product_id <= 0 || part->quantity <= 0 || part->quantity > PRODUCT_STOCK_MAX)
            continue; /* a figure that no script writes */
        struct sqlite_book *book = sqlite_book_of(run->store, part->product_id);
        if (book == NULL)
            return STORE_FAILED;
        sqlite_books_move(&run->store->books, book, part->quantity, cancel->order_id, cancel->actor);
    }
    return append_moves(run, entry, "cancel", false, cancel->actor);
}

static enum store_status apply_cancellation(struct run *run, const struct log_entry *entry)
{
    struct order_part parts[ORDER_PARTS_MAX];
    size_t count = 0;
    bool stands, fits = false;
    enum store_status status = read_parts(run->store, entry->cancel.order_id, parts, &count, &stands);
    if (status == STORE_OK && stands)
        status = give_parts_back(run->store, parts, count, &fits);
    if (status != STORE_OK)
        return status;
    return fits ? cancel_parts(run, entry, parts, count) : keep_misfit(run, entry);
}

/* --- stock, prices, windows --- */
static enum store_status apply_stock_change(struct run *run, const struct log_entry *entry)
{
    const struct stock_change *change = &entry->stock;
    struct sqlite_book *book = sqlite_book_of(run->store, change->product_id);
    if (book == NULL)
        return STORE_FAILED;
    struct store_audit_row row;
    begin_row(&row, entry, change->product_id, stock_cause_names[change->cause]);
    set_reason(&row, change->actor, change->note, change->key, change->key_bytes);
    row.delta = change->delta;
    row.from = book->stock;
    row.applied = sqlite_book_change_stock(book, change);
    row.to = book->stock;
    if (row.applied)
        sqlite_book_touch(book, BOOK_CHANGED, entry->at_ms);
    else
        log_warn(
            "store: %s of %lld for product %lld at %llu-%llu does not fit (stock %lld%s): kept, not applied",
            stock_cause_names[change->cause], (long long)change->delta, (long long)change->product_id,
            (unsigned long long)entry->position.epoch, (unsigned long long)entry->position.n,
            (long long)book->stock, book->known ? "" : ", unknown product");
    return append_row(run, &row);
}

/* What the price was before is the store's word, not the entry's. */
static enum store_status apply_price_change(struct run *run, const struct log_entry *entry)
{
    const struct price_change *change = &entry->price;
    struct sqlite_book *book = sqlite_book_of(run->store, change->product_id);
    if (book == NULL)
        return STORE_FAILED;
    struct store_audit_row row;
    begin_row(&row, entry, change->product_id, "price");
    set_reason(&row, change->actor, change->note, change->key, change->key_bytes);
    row.from = book->price;
    row.applied = book->known && change->to > 0 && change->to <= PRODUCT_PRICE_MAX;
    if (row.applied) {
        book->price = change->to;
        sqlite_book_touch(book, BOOK_CHANGED, entry->at_ms);
    } else {
        log_warn("store: price %lld for product %lld at %llu-%llu does not fit%s: kept, not applied",
                 (long long)change->to, (long long)change->product_id,
                 (unsigned long long)entry->position.epoch, (unsigned long long)entry->position.n,
                 book->known ? "" : " (unknown product)");
    }
    row.to = book->price;
    if (__builtin_sub_overflow(change->to, row.from, &row.delta))
        row.delta = 0; /* of a figure that no script writes */
    return append_row(run, &row);
}

/* A row for each of its two times. Both are there also if only one has changed: the second stands for the change and its key. */
static enum store_status append_window(struct run *run, const struct log_entry *entry, const char *cause,
                                       int64_t from, int64_t to, int64_t asked, bool applied)
{
    const struct window_change *change = &entry->window;
    struct store_audit_row row;
    begin_row(&row, entry, change->product_id, cause);
    set_reason(&row, change->actor, change->note, change->key, change->key_bytes);
    row.from = from;
    row.to = to;
    row.applied = applied;
    if (__builtin_sub_overflow(asked, from, &row.delta))
        row.delta = 0; /* of a figure that no script writes */
    return append_row(run, &row);
}

/* As with the price, what it was before is the store's word. */
static enum store_status apply_window_change(struct run *run, const struct log_entry *entry)
{
    const struct window_change *change = &entry->window;
    struct sqlite_book *book = sqlite_book_of(run->store, change->product_id);
    if (book == NULL)
        return STORE_FAILED;
    const struct sale_window from = book->window;
    bool applied = book->known && sale_window_is_sound(&change->to);
    if (applied) {
        book->window = change->to;
        sqlite_book_touch(book, BOOK_CHANGED, entry->at_ms);
    } else {
        log_warn(
            "store: the window %lld to %lld for product %lld at %llu-%llu does not fit%s: kept, not applied",
            (long long)change->to.starts_at_ms, (long long)change->to.ends_at_ms,
            (long long)change->product_id, (unsigned long long)entry->position.epoch,
            (unsigned long long)entry->position.n, book->known ? "" : " (unknown product)");
    }
    const struct sale_window to = book->window;
    enum store_status status = append_window(run, entry, "starts", from.starts_at_ms, to.starts_at_ms,
                                             change->to.starts_at_ms, applied);
    return status == STORE_OK ? append_window(run, entry, "ends", from.ends_at_ms, to.ends_at_ms,
                                              change->to.ends_at_ms, applied)
                              : status;
}

static enum store_status apply_entry(struct run *run, const struct log_entry *entry)
{
    switch (entry->kind) {
    case LOG_ENTRY_SALE:
        return apply_sale(run, entry);
    case LOG_ENTRY_STOCK:
        return apply_stock_change(run, entry);
    case LOG_ENTRY_CANCEL:
        return apply_cancellation(run, entry);
    case LOG_ENTRY_PRICE:
        return apply_price_change(run, entry);
    case LOG_ENTRY_WINDOW:
        return apply_window_change(run, entry);
    case LOG_ENTRY_ATTACH:
    case LOG_ENTRY_FOREIGN:
    case LOG_ENTRY_DAMAGED: /* the recorder stops before one */
        break;
    }
    return STORE_OK;
}

enum store_status sqlite_apply_run(struct sqlite_store *store, uint64_t epoch, struct log_position from,
                                   const struct log_entry *entries, size_t count, int64_t *rejected,
                                   size_t *rejected_count)
{
    struct run run = {.store = store, .rejected = rejected, .rejected_count = rejected_count};
    struct store_position position;
    enum store_status status = move_position(store, epoch, from, entries[count - 1].position);
    if (status == STORE_OK)
        status = sqlite_position(&store->base, &position);
    if (status == STORE_OK)
        status = sqlite_books_begin(store, doing);
    if (status == STORE_OK)
        status = sqlite_chain_read(store, &run.chain);
    if (status != STORE_OK)
        return status;
    run.last_order_id = position.last_order_id;
    for (size_t i = 0; i < count && status == STORE_OK; i++)
        status = apply_entry(&run, &entries[i]);
    return status == STORE_OK ? sqlite_books_write(store, doing) : status;
}

enum store_status sqlite_fail_for_a_test(struct sqlite_store *store, const char *what)
{
    return sqlite_refuse(store, "%s in %s failed: a test wants it so", what, store->path);
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
    status = failpoint("store.begun")
                 ? sqlite_fail_for_a_test(store, doing)
                 : sqlite_apply_run(store, epoch, from, entries, count, rejected, rejected_count);
    if (status == STORE_OK && failpoint("store.commit"))
        status = sqlite_fail_for_a_test(store, doing);
    status = sqlite_write_end(store, status, doing);
    if (status == STORE_OK && failpoint("store.committed"))
        status = sqlite_fail_for_a_test(store, doing);
    if (status != STORE_OK)
        sqlite_books_forget(&store->books);
    return status;
}
