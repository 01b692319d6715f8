/* The products' books while a run of log entries is applied to them: pure arithmetic, but for reading a book at its first mention and
 * writing back those that changed. They are kept from one run to the next, until another connection writes into the database.
 *
 * Runs in the recorder process, or in whoever sells without a sales log, inside a write transaction. Owns the table in struct sqlite_store. Fails by a
 * sentence in store_error() when the store does or memory is out; what does not fit a book is an answer, not a failure. */
#include "sqlite.h"

#include "doorbuster/check.h"

#include <stdlib.h>
#include <string.h>

#define BOOKS_MIN 64        /* slots */
#define BOOKS_KEPT_MAX 4096 /* from one run to the next: each run looks at all of them */

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
                                  .used = books->used,
                                  .moved_count = books->moved_count};
    larger.slots = calloc(larger.capacity, sizeof *larger.slots);
    larger.moved = calloc(larger.capacity / 2, sizeof *larger.moved);
    if (larger.slots == NULL || larger.moved == NULL) {
        sqlite_books_free(&larger);
        return false;
    }
    for (size_t i = 0; i < books->capacity; i++) {
        if (books->slots[i].product_id != 0)
            *find_slot(&larger, books->slots[i].product_id) = books->slots[i];
    }
    for (size_t i = 0; i < books->moved_count; i++)
        larger.moved[i] = books->moved[i];
    sqlite_books_free(books);
    *books = larger;
    return true;
}

void sqlite_books_free(struct sqlite_books *books)
{
    free(books->slots);
    free(books->moved);
    *books = (struct sqlite_books){0};
}

void sqlite_books_forget(struct sqlite_books *books)
{
    if (books->used > 0)
        memset(books->slots, 0, books->capacity * sizeof *books->slots);
    books->used = 0;
    books->moved_count = 0;
}

/* --- the store's side --- */
enum store_status sqlite_books_begin(struct sqlite_store *store, const char *doing)
{
    struct sqlite_books *books = &store->books;
    sqlite3_stmt *row = store->statements[SQL_DATA_VERSION];
    bool is_read = sqlite3_step(row) == SQLITE_ROW;
    int64_t version = is_read ? sqlite3_column_int64(row, 0) : 0;
    sqlite3_reset(row);
    if (!is_read)
        return sqlite_fail(store, doing);
    if (version != books->data_version || books->used > BOOKS_KEPT_MAX)
        sqlite_books_forget(books);
    books->data_version = version;
    return STORE_OK;
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
        book->price = sqlite3_column_int64(row, 7);
        book->is_bundle = sqlite3_column_int(row, 8) != 0;
        book->limit = sqlite3_column_int64(row, 9);
        book->window = (struct sale_window){sqlite3_column_int64(row, 10), sqlite3_column_int64(row, 11)};
    }
    sqlite3_reset(row);
    return code == SQLITE_ROW || code == SQLITE_DONE;
}

struct sqlite_book *sqlite_books_find(struct sqlite_books *books, int64_t product_id)
{
    CHECK(product_id != 0);
    if (books->capacity > 0) {
        struct sqlite_book *found = find_slot(books, product_id);
        if (found->product_id != 0)
            return found;
    }
    if (!grow_books(books))
        return NULL;
    struct sqlite_book *book = find_slot(books, product_id);
    *book = (struct sqlite_book){.product_id = product_id};
    books->used++;
    return book;
}

struct sqlite_book *sqlite_book_of(struct sqlite_store *store, int64_t product_id)
{
    if (product_id == 0) { /* no product's, and what marks a free slot */
        store->books.nobody = (struct sqlite_book){0};
        return &store->books.nobody;
    }
    struct sqlite_book *book = sqlite_books_find(&store->books, product_id);
    if (book == NULL) {
        sqlite_refuse(store, "reading a book in %s failed: out of memory", store->path);
        return NULL;
    }
    if (book->known || read_book(store, book))
        return book;
    sqlite_fail(store, "reading a book");
    return NULL;
}

static bool write_sales(struct sqlite_store *store, const struct sqlite_book *book)
{
    sqlite3_stmt *statement = store->statements[SQL_WRITE_SALES];
    sqlite3_bind_int64(statement, 1, book->product_id);
    sqlite3_bind_int64(statement, 2, book->stock);
    sqlite3_bind_int64(statement, 3, book->sold);
    sqlite3_bind_int64(statement, 4, book->updated_at_ms);
    return sqlite_run(statement) == SQLITE_DONE;
}

static bool write_book(struct sqlite_store *store, const struct sqlite_book *book)
{
    sqlite3_stmt *statement = store->statements[SQL_WRITE_BOOK];
    sqlite3_bind_int64(statement, 1, book->product_id);
    sqlite3_bind_int(statement, 2, book->opened);
    sqlite3_bind_int64(statement, 3, book->stock);
    sqlite3_bind_int64(statement, 4, book->opening);
    sqlite3_bind_int64(statement, 5, book->restocked);
    sqlite3_bind_int64(statement, 6, book->cancelled);
    sqlite3_bind_int64(statement, 7, book->sold);
    sqlite3_bind_int64(statement, 8, book->updated_at_ms);
    sqlite3_bind_int64(statement, 9, book->price);
    sqlite3_bind_int64(statement, 10, book->window.starts_at_ms);
    sqlite3_bind_int64(statement, 11, book->window.ends_at_ms);
    return sqlite_run(statement) == SQLITE_DONE;
}

static bool write_change(struct sqlite_store *store, const struct sqlite_book *book)
{
    int64_t stock = book->opening + book->restocked + book->cancelled - book->sold;
    CHECK(book->stock >= 0 && book->stock == (book->is_bundle ? 0 : stock));
    return book->change == BOOK_SOLD ? write_sales(store, book) : write_book(store, book);
}

enum store_status sqlite_books_write(struct sqlite_store *store, const char *doing)
{
    for (size_t i = 0; i < store->books.capacity; i++) {
        struct sqlite_book *book = &store->books.slots[i];
        if (book->change != BOOK_AS_READ && !write_change(store, book))
            return sqlite_fail(store, doing);
        book->change = BOOK_AS_READ;
    }
    return STORE_OK;
}

/* --- arithmetic --- */
void sqlite_book_touch(struct sqlite_book *book, enum sqlite_book_change change, int64_t at_ms)
{
    if (book->change < change)
        book->change = change;
    if (book->updated_at_ms < at_ms)
        book->updated_at_ms = at_ms;
}

/* A bundle has no stock: its components' books say whether it can be had. */
bool sqlite_book_sell(struct sqlite_book *book, int64_t quantity)
{
    int64_t sold;
    if (!book->known || quantity <= 0 || (!book->is_bundle && quantity > book->stock) ||
        __builtin_add_overflow(book->sold, quantity, &sold))
        return false;
    book->sold = sold;
    book->stock -= book->is_bundle ? 0 : quantity;
    return true;
}

void sqlite_book_unsell(struct sqlite_book *book, int64_t quantity)
{
    CHECK(book->sold >= quantity);
    book->sold -= quantity;
    book->stock += book->is_bundle ? 0 : quantity;
}

bool sqlite_book_give_back(struct sqlite_book *book, int64_t quantity)
{
    int64_t stock;
    if (!book->known || quantity <= 0 || quantity > book->sold - book->cancelled ||
        __builtin_add_overflow(book->stock, quantity, &stock))
        return false;
    book->cancelled += quantity;
    book->stock = book->is_bundle ? 0 : stock;
    return true;
}

void sqlite_book_take_back(struct sqlite_book *book, int64_t quantity)
{
    CHECK(book->cancelled >= quantity);
    book->cancelled -= quantity;
    book->stock -= book->is_bundle ? 0 : quantity;
}

/* Only cancellations may lift the stock above what it can be filled up to. */
bool sqlite_book_change_stock(struct sqlite_book *book, const struct stock_change *change)
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
void sqlite_books_move(struct sqlite_books *books, struct sqlite_book *book, int64_t units, int64_t order_id,
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

void sqlite_books_settle(struct sqlite_books *books)
{
    for (size_t i = 0; i < books->moved_count; i++)
        find_slot(books, books->moved[i])->moved = 0;
    books->moved_count = 0;
}
