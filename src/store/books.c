/* The products' books while a run of log entries is applied to them: pure arithmetic, but for reading a book at its first mention and
 * writing back those that changed. They are kept from one run to the next, until somebody else writes into the database.
 *
 * Runs in the recorder process, or in whoever sells without a sales log, inside a write transaction. Owns the table in struct store. Fails by a
 * sentence in store_error() when the store does or memory is out; what does not fit a book is an answer, not a failure. */
#include "sql.h"

#include "doorbuster/check.h"

#include <stdlib.h>
#include <string.h>

#define BOOKS_MIN 64        /* slots */
#define BOOKS_KEPT_MAX 4096 /* from one run to the next: each run looks at all of them */

static struct store_book *find_slot(struct store_books *books, int64_t product_id)
{
    size_t mask = books->capacity - 1;
    size_t i = (size_t)((uint64_t)product_id * 0x9e3779b97f4a7c15u >> 32) & mask;
    while (books->slots[i].product_id != 0 && books->slots[i].product_id != product_id)
        i = (i + 1) & mask;
    return &books->slots[i];
}

static void free_tables(struct store_books *books)
{
    free(books->slots);
    free(books->moved);
}

static bool grow_books(struct store_books *books)
{
    if (2 * (books->used + 1) <= books->capacity)
        return true;
    struct store_books larger = *books;
    larger.capacity = books->capacity == 0 ? BOOKS_MIN : 2 * books->capacity;
    larger.slots = calloc(larger.capacity, sizeof *larger.slots);
    larger.moved = calloc(larger.capacity / 2, sizeof *larger.moved);
    if (larger.slots == NULL || larger.moved == NULL) {
        free_tables(&larger);
        return false;
    }
    for (size_t i = 0; i < books->capacity; i++) {
        if (books->slots[i].product_id != 0)
            *find_slot(&larger, books->slots[i].product_id) = books->slots[i];
    }
    for (size_t i = 0; i < books->moved_count; i++)
        larger.moved[i] = books->moved[i];
    free_tables(books);
    *books = larger;
    return true;
}

void store_books_forget(struct store_books *books)
{
    for (size_t i = 0; books->used > 0 && i < books->capacity; i++) {
        free(books->slots[i].bundle);
        books->slots[i] = (struct store_book){0};
    }
    books->used = 0;
    books->moved_count = 0;
}

void store_books_free(struct store_books *books)
{
    store_books_forget(books);
    free_tables(books);
    *books = (struct store_books){0};
}

/* --- the store's side --- */
/* Why books may be kept: whatever of the rules changes a book moves the position in the same transaction, always forward and by compare-and-set. So
 * while the store stands where the last run of this connection has left it, in the same epoch, no other has changed one. (A name is not in
 * the books, and a time of change only rises: SQL_WRITE_SALES.) That no hand has either only the driver may know. */
enum store_status store_books_begin(struct store *store, uint64_t epoch, struct log_position position)
{
    struct store_books *books = &store->books;
    bool nobody_else = false;
    enum store_status status = store->sql->nobody_else_wrote(store, &nobody_else);
    if (!nobody_else || books->epoch != epoch || log_position_compare(books->position, position) != 0 ||
        books->used > BOOKS_KEPT_MAX)
        store_books_forget(books);
    books->epoch = epoch;
    books->position = position;
    return status;
}

void store_books_expect(struct store *store, int64_t product_id)
{
    struct store_book *book = product_id == 0 ? NULL : store_books_find(&store->books, product_id);
    if (book == NULL || book->known || book->expected)
        return;
    book->expected = true;
    sql_bind_int(store, SQL_READ_BOOK, 1, product_id);
    sql_expect(store, SQL_READ_BOOK);
}

static bool read_book(struct store *store, struct store_book *book)
{
    const enum sql_statement row = SQL_READ_BOOK;
    sql_bind_int(store, row, 1, book->product_id);
    enum sql_result result = sql_step(store, row);
    book->known = result == SQL_ROW;
    book->expected = false;
    if (book->known) {
        book->opened = sql_int(store, row, 0) != 0;
        book->stock = sql_int(store, row, 1);
        book->opening = sql_int(store, row, 2);
        book->restocked = sql_int(store, row, 3);
        book->cancelled = sql_int(store, row, 4);
        book->sold = sql_int(store, row, 5);
        book->updated_at_ms = sql_int(store, row, 6);
        book->price = sql_int(store, row, 7);
        book->is_bundle = sql_int(store, row, 8) != 0;
        book->limit = sql_int(store, row, 9);
        book->window = (struct sale_window){sql_int(store, row, 10), sql_int(store, row, 11)};
    }
    sql_reset(store, row);
    return result == SQL_ROW || result == SQL_DONE;
}

struct store_book *store_books_find(struct store_books *books, int64_t product_id)
{
    CHECK(product_id != 0);
    if (books->capacity > 0) {
        struct store_book *found = find_slot(books, product_id);
        if (found->product_id != 0)
            return found;
    }
    if (!grow_books(books))
        return NULL;
    struct store_book *book = find_slot(books, product_id);
    *book = (struct store_book){.product_id = product_id};
    books->used++;
    return book;
}

struct store_book *store_book_of(struct store *store, int64_t product_id)
{
    if (product_id == 0) { /* no product's, and what marks a free slot */
        store->books.nobody = (struct store_book){0};
        return &store->books.nobody;
    }
    struct store_book *book = store_books_find(&store->books, product_id);
    if (book == NULL) {
        store_refuse(store, "reading a book in %s failed: out of memory", sql_where(store));
        return NULL;
    }
    if (book->known || read_book(store, book))
        return book;
    sql_fail(store, "reading a book");
    return NULL;
}

const struct store_bundle *store_book_bundle(struct store *store, struct store_book *book)
{
    static const struct store_bundle nothing;
    if (!book->is_bundle || book->bundle != NULL)
        return book->is_bundle ? book->bundle : &nothing;
    struct store_bundle *bundle = malloc(sizeof *bundle);
    if (bundle == NULL) {
        store_refuse(store, "reading a bundle in %s failed: out of memory", sql_where(store));
        return NULL;
    }
    if (store_components(store, book->product_id, bundle->components, &bundle->count) != STORE_OK) {
        free(bundle);
        return NULL;
    }
    book->bundle = bundle;
    return bundle;
}

static bool write_sales(struct store *store, const struct store_book *book)
{
    const enum sql_statement statement = SQL_WRITE_SALES;
    sql_bind_int(store, statement, 1, book->product_id);
    sql_bind_int(store, statement, 2, book->stock);
    sql_bind_int(store, statement, 3, book->sold);
    sql_bind_int(store, statement, 4, book->updated_at_ms);
    return sql_run_later(store, statement) == SQL_DONE;
}

static bool write_book(struct store *store, const struct store_book *book)
{
    const enum sql_statement statement = SQL_WRITE_BOOK;
    sql_bind_int(store, statement, 1, book->product_id);
    sql_bind_int(store, statement, 2, book->opened);
    sql_bind_int(store, statement, 3, book->stock);
    sql_bind_int(store, statement, 4, book->opening);
    sql_bind_int(store, statement, 5, book->restocked);
    sql_bind_int(store, statement, 6, book->cancelled);
    sql_bind_int(store, statement, 7, book->sold);
    sql_bind_int(store, statement, 8, book->updated_at_ms);
    sql_bind_int(store, statement, 9, book->price);
    sql_bind_int(store, statement, 10, book->window.starts_at_ms);
    sql_bind_int(store, statement, 11, book->window.ends_at_ms);
    return sql_run_later(store, statement) == SQL_DONE;
}

static bool write_change(struct store *store, const struct store_book *book)
{
    int64_t stock = book->opening + book->restocked + book->cancelled - book->sold;
    CHECK(book->stock >= 0 && book->stock == (book->is_bundle ? 0 : stock));
    return book->change == BOOK_SOLD ? write_sales(store, book) : write_book(store, book);
}

enum store_status store_books_write(struct store *store, struct log_position position, const char *doing)
{
    store->books.position = position;
    for (size_t i = 0; i < store->books.capacity; i++) {
        struct store_book *book = &store->books.slots[i];
        if (book->change != BOOK_AS_READ && !write_change(store, book))
            return sql_fail(store, doing);
        book->change = BOOK_AS_READ;
    }
    return STORE_OK;
}

/* --- arithmetic --- */
void store_book_touch(struct store_book *book, enum store_book_change change, int64_t at_ms)
{
    if (book->change < change)
        book->change = change;
    if (book->updated_at_ms < at_ms)
        book->updated_at_ms = at_ms;
}

/* A bundle has no stock: its components' books say whether it can be had. */
bool store_book_sell(struct store_book *book, int64_t quantity)
{
    int64_t sold;
    if (!book->known || quantity <= 0 || (!book->is_bundle && quantity > book->stock) ||
        __builtin_add_overflow(book->sold, quantity, &sold))
        return false;
    book->sold = sold;
    book->stock -= book->is_bundle ? 0 : quantity;
    return true;
}

void store_book_unsell(struct store_book *book, int64_t quantity)
{
    CHECK(book->sold >= quantity);
    book->sold -= quantity;
    book->stock += book->is_bundle ? 0 : quantity;
}

bool store_book_give_back(struct store_book *book, int64_t quantity)
{
    int64_t stock;
    if (!book->known || quantity <= 0 || quantity > book->sold - book->cancelled ||
        __builtin_add_overflow(book->stock, quantity, &stock))
        return false;
    book->cancelled += quantity;
    book->stock = book->is_bundle ? 0 : stock;
    return true;
}

void store_book_take_back(struct store_book *book, int64_t quantity)
{
    CHECK(book->cancelled >= quantity);
    book->cancelled -= quantity;
    book->stock -= book->is_bundle ? 0 : quantity;
}

/* Only cancellations may lift the stock above what it can be filled up to. */
bool store_book_change_stock(struct store_book *book, const struct stock_change *change)
{
    bool is_opening = change->cause == STOCK_OPENING;
    bool suits_a_bundle = change->delta == 0 && (is_opening || change->cause == STOCK_HEALING);
    int64_t *sum = is_opening ? &book->opening : &book->restocked;
    int64_t new_sum, new_stock;
    if (!book->known || (book->is_bundle && !suits_a_bundle) ||
        __builtin_add_overflow(*sum, change->delta, &new_sum) ||
        __builtin_add_overflow(book->stock, change->delta, &new_stock) || new_stock < 0 ||
        (change->delta > 0 && new_stock > PRODUCT_STOCK_MAX) || (is_opening && new_sum < 0))
        return false;
    *sum = new_sum;
    book->stock = new_stock;
    book->opened = book->opened || is_opening;
    return true;
}

/* --- what one entry moves --- */
void store_books_move(struct store_books *books, struct store_book *book, int64_t units, int64_t order_id,
                      int64_t user_id)
{
    if (book->moved == 0) {
        books->moved[books->moved_count++] = book->product_id;
        book->first_order_id = order_id;
        book->user_id = user_id;
    }
    book->moved += units;
    book->last_order_id = order_id;
    if (book->user_id != user_id)
        book->user_id = 0;
}

void store_books_settle(struct store_books *books)
{
    for (size_t i = 0; i < books->moved_count; i++)
        find_slot(books, books->moved[i])->moved = 0;
    books->moved_count = 0;
}
