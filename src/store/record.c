/* The recorder's half of the store: its position, its epoch, and runs of log entries.
 *
 * Runs in the recorder process (positions: anywhere); where there is no sales log, store_apply_run() is called by whoever sells. Owns nothing: the table of
 * books is books.c's.
 *
 * A run is one transaction: the position moves by compare-and-set first, so that a recorder that was fenced
 * off does no work; each product's book is read at its first mention (in this run, or one before it), entries are applied to it in log order,
 * and it is written back once. Order ids only rise; the first id is compared with the last in the store.
 *
 * An order takes all its parts or none. Behind each entry the audit log gets one row for each product that it moved, chained to the row before
 * (audit_log.c); the end of the chain is read once a run.
 *
 * What does not fit never stops the recorder, as it would stop for ever: a sale without stock becomes a
 * rejected order, a change or cancellation that does not fit is kept as not applied, an order id that is not new is
 * refused without a row; the last two are logged. Only the store itself can fail a run, and then nothing of
 * it stays. */
#include "sql.h"

#include "doorbuster/check.h"
#include "doorbuster/failpoint.h"
#include "doorbuster/log.h"
#include "doorbuster/text.h"

#include <sodium.h>
#include <stdio.h>
#include <string.h>

static const char doing[] = "writing sales";

/* --- position and epoch --- */
enum store_status store_position(struct store *store, struct store_position *out)
{
    const enum sql_statement row = SQL_POSITION;
    enum store_status status = STORE_OK;
    if (sql_step(store, row) == SQL_ROW) {
        out->epoch = (uint64_t)sql_int(store, row, 0);
        out->recorded.epoch = (uint64_t)sql_int(store, row, 1);
        out->recorded.n = (uint64_t)sql_int(store, row, 2);
        out->last_order_id = sql_int(store, row, 3); /* NULL of an empty table reads as 0 */
        out->store_id = sql_int(store, row, 4);
        out->seller = sql_int(store, row, 5) != 0 ? STORE_SOLD_BY_REDLOCK : STORE_SOLD_BY_LUA;
    } else {
        status = sql_fail(store, "reading the position");
    }
    sql_reset(store, row);
    return status;
}

static enum store_status write_epoch(struct store *store, uint64_t from, uint64_t to)
{
    const enum sql_statement statement = SQL_RAISE_EPOCH;
    sql_bind_int(store, statement, 1, (int64_t)from);
    sql_bind_int(store, statement, 2, (int64_t)to);
    if (sql_run(store, statement) != SQL_DONE)
        return sql_fail(store, "raising the epoch");
    return sql_changes(store) == 1 ? STORE_OK : STORE_FENCED;
}

enum store_status store_raise_epoch(struct store *store, uint64_t from, uint64_t to)
{
    CHECK(store_may_write(store));
    if (from >= INT64_MAX || to > INT64_MAX)
        return STORE_FENCED; /* no store can hold such an epoch */
    enum store_status status = sql_make_sound(store);
    if (status == STORE_OK)
        status = sql_write_begin(store, "raising the epoch");
    return status == STORE_OK ? sql_write_end(store, write_epoch(store, from, to), "raising the epoch")
                              : status;
}

/* --- beginning anew --- */
static enum store_status write_anew(struct store *store, const char *doing_so)
{
    int64_t id;
    randombytes_buf(&id, sizeof id);
    sql_bind_int(store, SQL_BEGIN_ANEW, 1, id);
    return sql_run(store, SQL_BEGIN_ANEW) == SQL_DONE ? STORE_OK : sql_fail(store, doing_so);
}

enum store_status store_begin_anew(struct store *store)
{
    static const char marking[] = "marking a restored store";
    CHECK(store_may_write(store));
    enum store_status status = sql_write_begin(store, marking);
    return status == STORE_OK ? sql_write_end(store, write_anew(store, marking), marking) : status;
}

/* --- a run --- */
struct run {
    struct store *store;
    int64_t last_order_id;
    struct store_chain chain;
    int64_t *rejected;
    size_t *rejected_count;
};

static enum store_status move_position(struct store *store, uint64_t epoch, struct log_position from,
                                       struct log_position to)
{
    const enum sql_statement statement = SQL_MOVE_POSITION;
    sql_bind_int(store, statement, 1, (int64_t)epoch);
    sql_bind_int(store, statement, 2, (int64_t)from.epoch);
    sql_bind_int(store, statement, 3, (int64_t)from.n);
    sql_bind_int(store, statement, 4, (int64_t)to.epoch);
    sql_bind_int(store, statement, 5, (int64_t)to.n);
    if (sql_run(store, statement) != SQL_DONE)
        return sql_fail(store, doing);
    return sql_changes(store) == 1 ? STORE_OK : STORE_FENCED;
}

enum store_status store_skip_to(struct store *store, uint64_t epoch, struct log_position from,
                                struct log_position to)
{
    static const char skipping[] = "moving the position";
    CHECK(store_may_write(store));
    if (log_position_compare(from, to) >= 0)
        return store_refuse(store, "%s in %s failed: it is at %llu-%llu already", skipping, sql_where(store),
                            (unsigned long long)from.epoch, (unsigned long long)from.n);
    enum store_status status = sql_write_begin(store, skipping);
    return status == STORE_OK ? sql_write_end(store, move_position(store, epoch, from, to), skipping)
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
    return store_chain_append(run->store, &run->chain, row) ? STORE_OK : sql_fail(run->store, doing);
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
    struct store_books *books = &run->store->books;
    enum store_status status = STORE_OK;
    for (size_t i = 0; i < books->moved_count && status == STORE_OK; i++) {
        const struct store_book *book = store_books_find(books, books->moved[i]);
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
    store_books_settle(books);
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
static bool insert_parts(struct store *store, const struct sale_order *order)
{
    const enum sql_statement statement = SQL_ADD_ORDER_PART;
    for (size_t i = 1; i < order_part_count(order); i++) {
        struct order_part part = order_part_at(order, i);
        sql_bind_int(store, statement, 1, order->id);
        sql_bind_int(store, statement, 2, (int64_t)i);
        sql_bind_int(store, statement, 3, part.product_id);
        sql_bind_int(store, statement, 4, part.quantity);
        sql_bind_int(store, statement, 5, part.unit_price);
        sql_bind_int(store, statement, 6, part.remaining);
        sql_bind_int(store, statement, 7, part.is_component);
        if (sql_run_later(store, statement) != SQL_DONE)
            return false;
    }
    return true;
}

static bool insert_order(struct store *store, const struct log_entry *entry, const struct sale_order *order,
                         enum order_state state)
{
    const enum sql_statement statement = SQL_ADD_ORDER;
    sql_bind_int(store, statement, 1, order->id);
    sql_bind_int(store, statement, 2, (int)state);
    sql_bind_int(store, statement, 3, order->request);
    sql_bind_int(store, statement, 4, order->user_id);
    sql_bind_int(store, statement, 5, order->product_id);
    sql_bind_int(store, statement, 6, order->quantity);
    sql_bind_int(store, statement, 7, order->unit_price);
    sql_bind_int(store, statement, 8, order->remaining);
    sql_bind_int(store, statement, 9, entry->at_ms);
    sql_bind_int(store, statement, 10, (int64_t)entry->position.epoch);
    sql_bind_int(store, statement, 11, (int64_t)entry->position.n);
    sql_bind_text(store, statement, 12, order->key, order->key_bytes);
    sql_bind_int(store, statement, 13, (int64_t)order_part_count(order));
    return sql_run_later(store, statement) == SQL_DONE && insert_parts(store, order);
}

/* Takes the first `count` parts back out of the books, which have them all. */
static void unsell_parts(struct store *store, const struct sale_order *order, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        struct order_part part = order_part_at(order, i);
        store_book_unsell(store_books_find(&store->books, part.product_id), part.quantity);
    }
}

/* What must stand behind a line: nothing, or, of a bundle, exactly what it is made of. Redis may have been told something else. */
struct expected {
    const struct store_bundle *bundle; /* NULL: nothing */
    size_t met;
    int64_t bundles;
};

static bool has_all(const struct expected *expected)
{
    return expected->bundle == NULL || expected->met == expected->bundle->count;
}

static bool is_expected(struct expected *expected, const struct order_part *component)
{
    if (has_all(expected))
        return false;
    const struct bundle_component *next = &expected->bundle->components[expected->met++];
    return component->product_id == next->product_id &&
           component->quantity == next->quantity * expected->bundles;
}

/* Takes one part, *fits, if it is what must come here, at its price, and there is so much of it. */
static enum store_status sell_part(struct store *store, const struct order_part *part,
                                   struct expected *expected, bool *fits)
{
    struct store_book *book = store_book_of(store, part->product_id);
    if (book == NULL)
        return STORE_FAILED;
    *fits = part->is_component ? is_expected(expected, part) && !book->is_bundle : has_all(expected);
    if (*fits && book->is_bundle) {
        *expected = (struct expected){store_book_bundle(store, book), 0, part->quantity};
        if (expected->bundle == NULL)
            return STORE_FAILED;
    }
    *fits = *fits && part->unit_price == (part->is_component ? 0 : book->price) &&
            store_book_sell(book, part->quantity);
    return STORE_OK;
}

/* All parts or none. */
static enum store_status sell_parts(struct store *store, const struct sale_order *order, bool *sold)
{
    struct expected expected = {.bundle = NULL};
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
    *sold = has_all(&expected);
    if (!*sold)
        unsell_parts(store, order, order_part_count(order));
    return STORE_OK;
}

static void move_parts(struct store *store, const struct log_entry *entry, const struct sale_order *order)
{
    for (size_t i = 0; i < order_part_count(order); i++) {
        struct order_part part = order_part_at(order, i);
        struct store_book *book = store_books_find(&store->books, part.product_id);
        store_book_touch(book, BOOK_SOLD, entry->at_ms);
        store_books_move(&store->books, book, -part.quantity, order->id, order->user_id);
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
        return sql_fail(run->store, doing);
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
static enum store_status read_parts(struct store *store, int64_t order_id,
                                    struct order_part parts[ORDER_PARTS_MAX], size_t *count, bool *stands)
{
    struct store_order order;
    enum store_status status = store_find_order(store, order_id, &order);
    *stands = status == STORE_OK && order.state == ORDER_CONFIRMED;
    if (!*stands)
        return status == STORE_NOT_FOUND ? STORE_OK : status;
    parts[0] = order_part_at(&order.sale, 0);
    if (order.part_count > 1)
        status = store_order_parts(store, order_id, parts + 1, ORDER_PARTS_MAX - 1, count);
    *count += 1;
    return status;
}

static enum store_status insert_cancellation(struct store *store, const struct log_entry *entry)
{
    const enum sql_statement statement = SQL_ADD_CANCELLATION;
    sql_bind_int(store, statement, 1, entry->cancel.order_id);
    sql_bind_int(store, statement, 2, entry->at_ms);
    sql_bind_int(store, statement, 3, entry->cancel.actor);
    sql_bind_int(store, statement, 4, (int64_t)entry->position.epoch);
    sql_bind_int(store, statement, 5, (int64_t)entry->position.n);
    return sql_run_later(store, statement) == SQL_DONE ? STORE_OK : sql_fail(store, doing);
}

/* All parts or none. They fit, unless somebody has edited the books. */
static enum store_status give_parts_back(struct store *store, const struct order_part *parts, size_t count,
                                         bool *fits)
{
    *fits = false;
    for (size_t i = 0; i < count; i++) {
        struct store_book *book = store_book_of(store, parts[i].product_id);
        if (book == NULL)
            return STORE_FAILED;
        if (!store_book_give_back(book, parts[i].quantity)) {
            while (i-- > 0)
                store_book_take_back(store_books_find(&store->books, parts[i].product_id), parts[i].quantity);
            return STORE_OK;
        }
    }
    *fits = true;
    return STORE_OK;
}

static enum store_status cancel_parts(struct run *run, const struct log_entry *entry,
                                      const struct order_part *parts, size_t count)
{
    struct store_books *books = &run->store->books;
    for (size_t i = 0; i < count; i++) {
        struct store_book *book = store_books_find(books, parts[i].product_id);
        store_book_touch(book, BOOK_CHANGED, entry->at_ms);
        store_books_move(books, book, parts[i].quantity, entry->cancel.order_id, entry->cancel.actor);
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
        struct store_book *book = store_book_of(run->store, part->product_id);
        if (book == NULL)
            return STORE_FAILED;
        store_books_move(&run->store->books, book, part->quantity, cancel->order_id, cancel->actor);
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
    struct store_book *book = store_book_of(run->store, change->product_id);
    if (book == NULL)
        return STORE_FAILED;
    struct store_audit_row row;
    begin_row(&row, entry, change->product_id, stock_cause_names[change->cause]);
    set_reason(&row, change->actor, change->note, change->key, change->key_bytes);
    row.delta = change->delta;
    row.from = book->stock;
    row.applied = store_book_change_stock(book, change);
    row.to = book->stock;
    if (row.applied)
        store_book_touch(book, BOOK_CHANGED, entry->at_ms);
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
    struct store_book *book = store_book_of(run->store, change->product_id);
    if (book == NULL)
        return STORE_FAILED;
    struct store_audit_row row;
    begin_row(&row, entry, change->product_id, "price");
    set_reason(&row, change->actor, change->note, change->key, change->key_bytes);
    row.from = book->price;
    row.applied = book->known && change->to > 0 && change->to <= PRODUCT_PRICE_MAX;
    if (row.applied) {
        book->price = change->to;
        store_book_touch(book, BOOK_CHANGED, entry->at_ms);
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
    struct store_book *book = store_book_of(run->store, change->product_id);
    if (book == NULL)
        return STORE_FAILED;
    const struct sale_window from = book->window;
    bool applied = book->known && sale_window_is_sound(&change->to);
    if (applied) {
        book->window = change->to;
        store_book_touch(book, BOOK_CHANGED, entry->at_ms);
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

/* The highest order id in the store, 0: none. */
static enum store_status read_last_order(struct store *store, int64_t *id)
{
    enum store_status status = STORE_OK;
    if (sql_step(store, SQL_LAST_ORDER) == SQL_ROW)
        *id = sql_int(store, SQL_LAST_ORDER, 0);
    else
        status = sql_fail(store, doing);
    sql_reset(store, SQL_LAST_ORDER);
    return status;
}

static void expect_books(struct store *store, const struct log_entry *entry)
{
    if (entry->kind == LOG_ENTRY_STOCK)
        store_books_expect(store, entry->stock.product_id);
    if (entry->kind == LOG_ENTRY_PRICE)
        store_books_expect(store, entry->price.product_id);
    if (entry->kind == LOG_ENTRY_WINDOW)
        store_books_expect(store, entry->window.product_id);
    for (size_t i = 0; entry->kind == LOG_ENTRY_SALE && i < entry->order_count; i++) {
        for (size_t part = 0; part < order_part_count(&entry->orders[i]); part++)
            store_books_expect(store, order_part_at(&entry->orders[i], part).product_id);
    }
    for (size_t i = 0; entry->kind == LOG_ENTRY_CANCEL && i < entry->cancel.part_count; i++)
        store_books_expect(store, entry->cancel.parts[i].product_id);
}

/* What the run will read, so that a database that is far away is asked for all of it at once. Not the orders that are cancelled: what is in the
 * run changes them. */
static void expect_run(struct store *store, const struct log_entry *entries, size_t count)
{
    sql_expect(store, SQL_LAST_ORDER);
    sql_expect(store, SQL_LAST_AUDIT_ROW);
    for (size_t i = 0; i < count; i++)
        expect_books(store, &entries[i]);
}

enum store_status store_apply_run(struct store *store, uint64_t epoch, struct log_position from,
                                  const struct log_entry *entries, size_t count, int64_t *rejected,
                                  size_t *rejected_count)
{
    struct run run = {.store = store, .rejected = rejected, .rejected_count = rejected_count};
    const struct log_position to = entries[count - 1].position;
    enum store_status status = store_books_begin(store, epoch, from);
    if (sql_may_expect(store))
        expect_run(store, entries, count);
    if (status == STORE_OK)
        status = move_position(store, epoch, from, to);
    if (status == STORE_OK)
        status = read_last_order(store, &run.last_order_id);
    if (status == STORE_OK)
        status = store_chain_read(store, &run.chain);
    for (size_t i = 0; i < count && status == STORE_OK; i++)
        status = apply_entry(&run, &entries[i]);
    return status == STORE_OK ? store_books_write(store, to, doing) : status;
}

enum store_status store_fail_for_a_test(struct store *store, const char *what)
{
    return store_refuse(store, "%s in %s failed: a test wants it so", what, sql_where(store));
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

/* The whole run in one transaction. */
static enum store_status record_run(struct store *store, uint64_t epoch, struct log_position from,
                                    const struct log_entry *entries, size_t count, int64_t *rejected,
                                    size_t *rejected_count)
{
    if (!are_in_order(epoch, from, entries, count))
        return store_refuse(store, "%s in %s failed: the entries after %llu-%llu are not in the log's order",
                            doing, sql_where(store), (unsigned long long)from.epoch,
                            (unsigned long long)from.n);
    enum store_status status = sql_make_sound(store);
    if (status == STORE_OK)
        status = sql_write_begin(store, doing);
    if (status != STORE_OK)
        return status;
    status = failpoint("store.begun")
                 ? store_fail_for_a_test(store, doing)
                 : store_apply_run(store, epoch, from, entries, count, rejected, rejected_count);
    if (status == STORE_OK && failpoint("store.commit"))
        status = store_fail_for_a_test(store, doing);
    status = sql_write_end(store, status, doing);
    if (status == STORE_OK && failpoint("store.committed"))
        status = store_fail_for_a_test(store, doing);
    if (status != STORE_OK)
        store_books_forget(&store->books);
    return status;
}

enum store_status store_record(struct store *store, uint64_t epoch, struct log_position from,
                               const struct log_entry *entries, size_t count, int64_t *rejected,
                               size_t rejected_max, size_t *rejected_count)
{
    CHECK(store_may_write(store));
    size_t orders = 0;
    for (size_t i = 0; i < count; i++)
        orders += entries[i].kind == LOG_ENTRY_SALE ? entries[i].order_count : 0;
    CHECK(rejected_max >= orders);
    *rejected_count = 0;
    if (count == 0)
        return STORE_OK;
    enum store_status status = record_run(store, epoch, from, entries, count, rejected, rejected_count);
    if (status == STORE_FAILED &&
        sql_was_mistaken(store)) { /* the books were not what we believed: now they are read */
        *rejected_count = 0;
        status = record_run(store, epoch, from, entries, count, rejected, rejected_count);
    }
    if (status != STORE_OK)
        *rejected_count = 0;
    CHECK(*rejected_count <= orders);
    return status;
}
