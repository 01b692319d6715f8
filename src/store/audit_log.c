/* The audit log in SQLite: appending to its chain, reading it, walking the whole chain.
 *
 * Appending runs in the recorder inside its transaction, reading on pool threads, in the recorder (keys of changes, for rebuilding Redis)
 * and in `verify`. A walk leaves its tallies to the connection's next snapshot (sqlite_audit.c). There is no index by product, so a page of one product that has few rows may
 * read the whole log. A failed statement is a sentence in store_error(). */
#include "sqlite.h"

#include <sodium.h>
#include <stdio.h>
#include <string.h>

#define WALK_ROWS 20000 /* read at once: 0.1 s */

static const char reading[] = "reading the audit log";

/* --- the chain --- */
static void hash_row(const unsigned char before[STORE_AUDIT_HASH_BYTES], const struct store_audit_row *row,
                     unsigned char out[STORE_AUDIT_HASH_BYTES])
{
    _Static_assert(STORE_AUDIT_HASH_BYTES == crypto_generichash_BYTES, "the chain is of BLAKE2b-256");
    char text[STORE_AUDIT_TEXT_BYTES];
    size_t bytes = store_audit_text(row, text);
    crypto_generichash_state state;
    crypto_generichash_init(&state, NULL, 0, STORE_AUDIT_HASH_BYTES);
    crypto_generichash_update(&state, before, STORE_AUDIT_HASH_BYTES);
    crypto_generichash_update(&state, (const unsigned char *)text, bytes);
    crypto_generichash_final(&state, out, STORE_AUDIT_HASH_BYTES);
}

static void copy_hash(sqlite3_stmt *row, int column, unsigned char out[STORE_AUDIT_HASH_BYTES])
{
    const void *hash = sqlite3_column_blob(row, column);
    memset(out, 0, STORE_AUDIT_HASH_BYTES);
    if (hash != NULL && sqlite3_column_bytes(row, column) == STORE_AUDIT_HASH_BYTES)
        memcpy(out, hash, STORE_AUDIT_HASH_BYTES);
}

enum store_status sqlite_chain_read(struct sqlite_store *store, struct sqlite_chain *out)
{
    sqlite3_stmt *row = store->statements[SQL_LAST_AUDIT_ROW];
    *out = (struct sqlite_chain){0};
    int code = sqlite3_step(row);
    if (code == SQLITE_ROW) {
        out->seq = sqlite3_column_int64(row, 0);
        copy_hash(row, 1, out->hash);
    }
    enum store_status status =
        code == SQLITE_ROW || code == SQLITE_DONE ? STORE_OK : sqlite_fail(store, reading);
    sqlite3_reset(row);
    return status;
}

bool sqlite_chain_append(struct sqlite_chain *chain, sqlite3_stmt *statement, struct store_audit_row *row)
{
    row->seq = chain->seq + 1;
    hash_row(chain->hash, row, row->hash);
    sqlite3_bind_int64(statement, 1, row->seq);
    sqlite3_bind_int64(statement, 2, row->at_ms);
    sqlite3_bind_int64(statement, 3, (int64_t)row->position.epoch);
    sqlite3_bind_int64(statement, 4, (int64_t)row->position.n);
    sqlite3_bind_int64(statement, 5, row->product_id);
    sqlite_bind_text(statement, 6, row->cause);
    sqlite3_bind_int64(statement, 7, row->delta);
    sqlite3_bind_int64(statement, 8, row->from);
    sqlite3_bind_int64(statement, 9, row->to);
    sqlite3_bind_int(statement, 10, row->applied);
    sqlite3_bind_int64(statement, 11, row->actor);
    sqlite_bind_text(statement, 12, row->note);
    if (row->key[0] == '\0')
        sqlite3_bind_null(statement, 13);
    else
        sqlite_bind_text(statement, 13, row->key);
    sqlite3_bind_blob(statement, 14, row->hash, STORE_AUDIT_HASH_BYTES, SQLITE_STATIC);
    if (sqlite_run(statement) != SQLITE_DONE)
        return false;
    chain->seq = row->seq;
    memcpy(chain->hash, row->hash, sizeof chain->hash);
    return true;
}

/* --- rows --- */
static void copy_text(sqlite3_stmt *row, int column, char *out, size_t out_bytes)
{
    const char *text = (const char *)sqlite3_column_text(row, column);
    snprintf(out, out_bytes, "%s", text == NULL ? "" : text);
}

static void read_row(sqlite3_stmt *row, struct store_audit_row *out)
{
    *out = (struct store_audit_row){
        .seq = sqlite3_column_int64(row, 0),
        .at_ms = sqlite3_column_int64(row, 1),
        .position = {(uint64_t)sqlite3_column_int64(row, 2), (uint64_t)sqlite3_column_int64(row, 3)},
        .product_id = sqlite3_column_int64(row, 4),
        .delta = sqlite3_column_int64(row, 6),
        .from = sqlite3_column_int64(row, 7),
        .to = sqlite3_column_int64(row, 8),
        .applied = sqlite3_column_int(row, 9) != 0,
        .actor = sqlite3_column_int64(row, 10)};
    copy_text(row, 5, out->cause, sizeof out->cause);
    copy_text(row, 11, out->note, sizeof out->note);
    copy_text(row, 12, out->key, sizeof out->key);
    copy_hash(row, 13, out->hash);
}

enum store_status sqlite_audit_log(struct store *base, int64_t before, int64_t product_id,
                                   struct store_audit_row *out, size_t max, size_t *count)
{
    struct sqlite_store *store = sqlite_of(base);
    sqlite3_stmt *rows = store->statements[SQL_AUDIT_LOG];
    sqlite3_bind_int64(rows, 1, before);
    sqlite3_bind_int64(rows, 2, product_id);
    sqlite3_bind_int64(rows, 3, max > INT32_MAX ? INT32_MAX : (int64_t)max);
    int code;
    for (*count = 0; (code = sqlite3_step(rows)) == SQLITE_ROW; (*count)++)
        read_row(rows, &out[*count]);
    enum store_status status = code == SQLITE_DONE ? STORE_OK : sqlite_fail(store, reading);
    sqlite3_reset(rows);
    return status;
}

/* --- one entry's rows --- */
/* Is there a row with this number or a higher one, and is the first such of an entry before `position`? */
static enum store_status is_before(struct sqlite_store *store, int64_t seq, struct log_position position,
                                   bool *before)
{
    sqlite3_stmt *row = store->statements[SQL_AUDIT_ROW_FROM];
    sqlite3_bind_int64(row, 1, seq);
    int code = sqlite3_step(row);
    struct log_position found = {(uint64_t)sqlite3_column_int64(row, 1),
                                 (uint64_t)sqlite3_column_int64(row, 2)};
    *before = code == SQLITE_ROW && log_position_compare(found, position) < 0;
    enum store_status status =
        code == SQLITE_ROW || code == SQLITE_DONE ? STORE_OK : sqlite_fail(store, reading);
    sqlite3_reset(row);
    return status;
}

enum store_status sqlite_first_row_from(struct sqlite_store *store, struct log_position position,
                                        int64_t *seq)
{
    struct sqlite_chain end;
    enum store_status status = sqlite_chain_read(store, &end);
    int64_t low = 1, high = end.seq + 1;
    while (status == STORE_OK && low < high) {
        bool before = false;
        int64_t middle = low + (high - low) / 2;
        status = is_before(store, middle, position, &before);
        if (before)
            low = middle + 1;
        else
            high = middle;
    }
    *seq = low;
    return status;
}

static enum store_status find_row(struct sqlite_store *store, int64_t first, struct log_position position,
                                  int64_t product_id, struct store_audit_row *out)
{
    sqlite3_stmt *rows = store->statements[SQL_AUDIT_ROWS_FROM];
    enum store_status status = STORE_NOT_FOUND;
    int code = SQLITE_DONE;
    sqlite3_bind_int64(rows, 1, first);
    while (status == STORE_NOT_FOUND && (code = sqlite3_step(rows)) == SQLITE_ROW) {
        read_row(rows, out);
        if (log_position_compare(out->position, position) != 0)
            break;
        if (out->product_id == product_id)
            status = STORE_OK;
    }
    if (code != SQLITE_ROW && code != SQLITE_DONE)
        status = sqlite_fail(store, reading);
    sqlite3_reset(rows);
    return status;
}

/* No snapshot: rows are only added behind. */
enum store_status sqlite_audit_row_at(struct store *base, struct log_position position, int64_t product_id,
                                      struct store_audit_row *out)
{
    struct sqlite_store *store = sqlite_of(base);
    int64_t first;
    enum store_status status = sqlite_first_row_from(store, position, &first);
    return status == STORE_OK ? find_row(store, first, position, product_id, out) : status;
}

/* --- walking the chain --- */
static void note_first(int64_t *first, bool is_fault, int64_t seq)
{
    if (is_fault && *first == 0)
        *first = seq;
}

static struct sqlite_term *term_of(struct sqlite_tally *tally, const char *cause)
{
    return strcmp(cause, "price") == 0    ? &tally->price
           : strcmp(cause, "starts") == 0 ? &tally->starts
                                          : &tally->ends;
}

/* Do the row's figures follow on those that the product had after its row before? Then the product has the row's. */
static bool follows(struct sqlite_tally *tally, const struct store_audit_row *row)
{
    int64_t to;
    bool adds_up = !__builtin_add_overflow(row->from, row->delta, &to) && to == row->to;
    bool fits = row->applied ? adds_up : row->from == row->to;
    if (!store_cause_is_of_stock(row->cause)) {
        struct sqlite_term *term = term_of(tally, row->cause);
        fits = fits && (!term->known || term->figure == row->from);
        *term = (struct sqlite_term){.known = term->known || row->applied, .figure = row->to};
        return fits;
    }
    if (tally->is_bundle)
        return row->from == 0 && row->to == 0;
    fits = fits && tally->stock == row->from;
    tally->stock = row->to;
    return fits;
}

static enum store_status check_row(struct sqlite_store *store, const struct store_audit_row *row,
                                   const struct store_audit_row *previous, struct store_chain_audit *out)
{
    unsigned char hash[STORE_AUDIT_HASH_BYTES];
    hash_row(previous->hash, row, hash);
    struct sqlite_tally *tally = sqlite_tally_of(&store->walked, row->product_id);
    if (tally == NULL)
        return sqlite_refuse(store, "%s in %s failed: out of memory", reading, store->path);
    note_first(&out->first_gap, row->seq != previous->seq + 1, previous->seq + 1);
    note_first(&out->first_forged, memcmp(hash, row->hash, sizeof hash) != 0, row->seq);
    note_first(&out->first_off, !follows(tally, row), row->seq);
    note_first(&out->first_backwards, log_position_compare(row->position, previous->position) < 0, row->seq);
    if (row->applied)
        sqlite_tally_log_row(tally, row->cause, row->delta, row->to);
    out->rows++;
    return STORE_OK;
}

static enum store_status mark_bundles(struct sqlite_store *store)
{
    sqlite3_stmt *row = store->statements[SQL_BUNDLES];
    enum store_status status = STORE_OK;
    int code;
    while (status == STORE_OK && (code = sqlite3_step(row)) != SQLITE_DONE) {
        struct sqlite_tally *tally = NULL;
        if (code != SQLITE_ROW)
            status = sqlite_fail(store, reading);
        else if ((tally = sqlite_tally_of(&store->walked, sqlite3_column_int64(row, 0))) == NULL)
            status = sqlite_refuse(store, "%s in %s failed: out of memory", reading, store->path);
        else
            tally->is_bundle = true;
    }
    sqlite3_reset(row);
    return status;
}

/* The next rows, at most WALK_ROWS, behind *previous; those behind `last` are newer than the walk. *previous becomes the last one read. */
static enum store_status walk_some(struct sqlite_store *store, int64_t last, struct store_audit_row *previous,
                                   struct store_chain_audit *out)
{
    sqlite3_stmt *statement = store->statements[SQL_AUDIT_CHAIN];
    struct store_audit_row row;
    enum store_status status = STORE_OK;
    int code = SQLITE_DONE;
    sqlite3_bind_int64(statement, 1, previous->seq);
    sqlite3_bind_int64(statement, 2, last);
    sqlite3_bind_int64(statement, 3, WALK_ROWS);
    while (status == STORE_OK && (code = sqlite3_step(statement)) == SQLITE_ROW) {
        read_row(statement, &row);
        status = check_row(store, &row, previous, out);
        *previous = row;
    }
    if (status == STORE_OK && code != SQLITE_DONE)
        status = sqlite_fail(store, reading);
    sqlite3_reset(statement); /* ends the read, so that the write-ahead log can be tidied up in between */
    return status;
}

/* Bundles are read after the last row's number, so that each that has a row is known. */
static enum store_status walk(struct sqlite_store *store, struct store_chain_audit *out)
{
    struct store_audit_row previous = {0};
    struct sqlite_chain end;
    enum store_status status = sqlite_chain_read(store, &end);
    if (status == STORE_OK)
        status = mark_bundles(store);
    while (status == STORE_OK && previous.seq < end.seq)
        status = walk_some(store, end.seq, &previous, out);
    store->walked.audit_seq = end.seq;
    memcpy(out->head, previous.hash, sizeof out->head);
    return status;
}

enum store_status sqlite_audit_chain(struct store *base, struct store_chain_audit *out)
{
    struct sqlite_store *store = sqlite_of(base);
    *out = (struct store_chain_audit){0};
    sqlite_tallies_free(&store->walked);
    enum store_status status = walk(store, out);
    if (status != STORE_OK)
        sqlite_tallies_free(&store->walked);
    return status;
}

/* --- keys of changes --- */
#define STARTS_COLUMN 14 /* behind the row's own: when the window opens, of one */

static void read_change_key(sqlite3_stmt *statement, struct store_change_key *out)
{
    struct store_audit_row row;
    read_row(statement, &row);
    *out = (struct store_change_key){.actor = row.actor,
                                     .at_ms = row.at_ms,
                                     .kind = CHANGE_OF_STOCK,
                                     .position = row.position,
                                     .product_id = row.product_id,
                                     .figure = row.delta,
                                     .stock = row.to};
    if (strcmp(row.cause, "price") == 0) {
        out->kind = CHANGE_OF_PRICE;
        out->figure = row.to;
        out->stock = row.from;
    } else if (!store_cause_is_of_stock(row.cause)) {
        out->kind = CHANGE_OF_WINDOW;
        out->figure = sqlite3_column_int64(statement, STARTS_COLUMN);
    }
    memcpy(out->key, row.key, sizeof out->key);
}

enum store_status sqlite_each_change_key(struct store *base, int64_t since_ms, store_change_key_cb cb,
                                         void *context)
{
    struct sqlite_store *store = sqlite_of(base);
    sqlite3_stmt *rows = store->statements[SQL_CHANGE_KEYS];
    sqlite3_bind_int64(rows, 1, since_ms);
    struct store_change_key key;
    bool go_on = true;
    int code = SQLITE_DONE;
    while (go_on && (code = sqlite3_step(rows)) == SQLITE_ROW) {
        read_change_key(rows, &key);
        go_on = cb(context, &key);
    }
    enum store_status status = !go_on || code == SQLITE_DONE ? STORE_OK : sqlite_fail(store, reading);
    sqlite3_reset(rows);
    return status;
}

enum store_status sqlite_find_change_key(struct sqlite_store *store, int64_t after_ms, int64_t actor,
                                         const char *key, size_t key_bytes, bool *found,
                                         struct store_change_key *out)
{
    sqlite3_stmt *row = store->statements[SQL_CHANGE_BY_KEY];
    sqlite3_bind_int64(row, 1, after_ms);
    sqlite3_bind_int64(row, 2, actor);
    sqlite3_bind_text(row, 3, key, (int)key_bytes, SQLITE_STATIC);
    int code = sqlite3_step(row);
    *found = code == SQLITE_ROW;
    if (*found)
        read_change_key(row, out);
    enum store_status status = *found || code == SQLITE_DONE ? STORE_OK : sqlite_fail(store, reading);
    sqlite3_reset(row);
    return status;
}
