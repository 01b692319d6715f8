/* The audit log: appending to its chain, reading it, walking the whole chain.
 *
 * Appending runs in the recorder inside its transaction, reading on pool threads, in the recorder (keys of changes, for rebuilding Redis)
 * and in `verify`. A walk leaves its tallies to the connection's next snapshot (audit.c). There is no index by product, so a page of one product that has few
 * rows may read the whole log. A failed statement is a sentence in store_error(). */
#include "sql.h"

#include "doorbuster/check.h"
#include "doorbuster/text.h"

#include <sodium.h>
#include <stdio.h>
#include <string.h>

#define WALK_ROWS 20000 /* read at once: 0.1 s */

static const char reading[] = "reading the audit log";

/* --- a row --- */
bool store_cause_is_of_stock(const char *cause)
{
    return strcmp(cause, "price") != 0 && strcmp(cause, "starts") != 0 && strcmp(cause, "ends") != 0;
}

/* By hand rather than with snprintf: the recorder writes one of these for every product that an entry moves. */
static char *put_text(char *at, const char *text)
{
    size_t bytes = strlen(text);
    memcpy(at, text, bytes);
    at[bytes] = ' ';
    return at + bytes + 1;
}

static char *put_number(char *at, int64_t number, char separator)
{
    at += text_from_int64(number, at);
    *at = separator;
    return at + 1;
}

size_t store_audit_text(const struct store_audit_row *row, char out[STORE_AUDIT_TEXT_BYTES])
{
    _Static_assert(10 * TEXT_INT64_BYTES + STORE_AUDIT_CAUSE_BYTES + IDEMPOTENCY_KEY_BYTES_MAX +
                           SALES_LOG_NOTE_BYTES + 4 <=
                       STORE_AUDIT_TEXT_BYTES,
                   "the longest row fits");
    char *at = put_number(out, row->seq, ' ');
    at = put_number(at, row->at_ms, ' ');
    at = put_number(at, (int64_t)row->position.epoch, '-');
    at = put_number(at, (int64_t)row->position.n, ' ');
    at = put_number(at, row->product_id, ' ');
    at = put_text(at, row->cause);
    at = put_number(at, row->delta, ' ');
    at = put_number(at, row->from, ' ');
    at = put_number(at, row->to, ' ');
    at = put_number(at, row->applied, ' ');
    at = put_number(at, row->actor, ' ');
    at = put_text(at, row->key[0] == '\0' ? "-" : row->key);
    at = put_text(at, row->note);
    *--at = '\0'; /* the last blank */
    return (size_t)(at - out);
}

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

static void copy_hash(struct store *store, enum sql_statement row, int column,
                      unsigned char out[STORE_AUDIT_HASH_BYTES])
{
    size_t bytes;
    const void *hash = sql_blob(store, row, column, &bytes);
    memset(out, 0, STORE_AUDIT_HASH_BYTES);
    if (hash != NULL && bytes == STORE_AUDIT_HASH_BYTES)
        memcpy(out, hash, STORE_AUDIT_HASH_BYTES);
}

enum store_status store_chain_read(struct store *store, struct store_chain *out)
{
    const enum sql_statement row = SQL_LAST_AUDIT_ROW;
    *out = (struct store_chain){0};
    enum sql_result result = sql_step(store, row);
    if (result == SQL_ROW) {
        out->seq = sql_int(store, row, 0);
        copy_hash(store, row, 1, out->hash);
    }
    enum store_status status = result == SQL_ROW || result == SQL_DONE ? STORE_OK : sql_fail(store, reading);
    sql_reset(store, row);
    return status;
}

bool store_chain_append(struct store *store, struct store_chain *chain, struct store_audit_row *row)
{
    const enum sql_statement statement = SQL_ADD_AUDIT_ROW;
    row->seq = chain->seq + 1;
    hash_row(chain->hash, row, row->hash);
    sql_bind_int(store, statement, 1, row->seq);
    sql_bind_int(store, statement, 2, row->at_ms);
    sql_bind_int(store, statement, 3, (int64_t)row->position.epoch);
    sql_bind_int(store, statement, 4, (int64_t)row->position.n);
    sql_bind_int(store, statement, 5, row->product_id);
    sql_bind_string(store, statement, 6, row->cause);
    sql_bind_int(store, statement, 7, row->delta);
    sql_bind_int(store, statement, 8, row->from);
    sql_bind_int(store, statement, 9, row->to);
    sql_bind_int(store, statement, 10, row->applied);
    sql_bind_int(store, statement, 11, row->actor);
    sql_bind_string(store, statement, 12, row->note);
    sql_bind_text(store, statement, 13, row->key[0] == '\0' ? NULL : row->key, strlen(row->key));
    sql_bind_blob(store, statement, 14, row->hash, STORE_AUDIT_HASH_BYTES);
    if (sql_run_later(store, statement) != SQL_DONE)
        return false;
    chain->seq = row->seq;
    memcpy(chain->hash, row->hash, sizeof chain->hash);
    return true;
}

/* --- rows --- */
static void read_row(struct store *store, enum sql_statement row, struct store_audit_row *out)
{
    *out = (struct store_audit_row){
        .seq = sql_int(store, row, 0),
        .at_ms = sql_int(store, row, 1),
        .position = {(uint64_t)sql_int(store, row, 2), (uint64_t)sql_int(store, row, 3)},
        .product_id = sql_int(store, row, 4),
        .delta = sql_int(store, row, 6),
        .from = sql_int(store, row, 7),
        .to = sql_int(store, row, 8),
        .applied = sql_int(store, row, 9) != 0,
        .actor = sql_int(store, row, 10)};
    sql_copy_text(store, row, 5, out->cause, sizeof out->cause);
    sql_copy_text(store, row, 11, out->note, sizeof out->note);
    sql_copy_text(store, row, 12, out->key, sizeof out->key);
    copy_hash(store, row, 13, out->hash);
}

enum store_status store_audit_log(struct store *store, int64_t before, int64_t product_id,
                                  struct store_audit_row *out, size_t max, size_t *count)
{
    const enum sql_statement rows = SQL_AUDIT_LOG;
    sql_bind_int(store, rows, 1, before);
    sql_bind_int(store, rows, 2, product_id);
    sql_bind_int(store, rows, 3, max > INT32_MAX ? INT32_MAX : (int64_t)max);
    enum sql_result result;
    for (*count = 0; (result = sql_step(store, rows)) == SQL_ROW; (*count)++)
        read_row(store, rows, &out[*count]);
    enum store_status status = result == SQL_DONE ? STORE_OK : sql_fail(store, reading);
    sql_reset(store, rows);
    return status;
}

/* --- one entry's rows --- */
/* Is there a row with this number or a higher one, and is the first such of an entry before `position`? */
static enum store_status is_before(struct store *store, int64_t seq, struct log_position position,
                                   bool *before)
{
    const enum sql_statement row = SQL_AUDIT_ROW_FROM;
    sql_bind_int(store, row, 1, seq);
    enum sql_result result = sql_step(store, row);
    *before = false;
    if (result == SQL_ROW) {
        struct log_position found = {(uint64_t)sql_int(store, row, 1), (uint64_t)sql_int(store, row, 2)};
        *before = log_position_compare(found, position) < 0;
    }
    enum store_status status = result == SQL_ROW || result == SQL_DONE ? STORE_OK : sql_fail(store, reading);
    sql_reset(store, row);
    return status;
}

enum store_status store_first_row_from(struct store *store, struct log_position position, int64_t *seq)
{
    struct store_chain end;
    enum store_status status = store_chain_read(store, &end);
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

static enum store_status find_row(struct store *store, int64_t first, struct log_position position,
                                  int64_t product_id, struct store_audit_row *out)
{
    const enum sql_statement rows = SQL_AUDIT_ROWS_FROM;
    enum store_status status = STORE_NOT_FOUND;
    enum sql_result result = SQL_DONE;
    sql_bind_int(store, rows, 1, first);
    while (status == STORE_NOT_FOUND && (result = sql_step(store, rows)) == SQL_ROW) {
        read_row(store, rows, out);
        if (log_position_compare(out->position, position) != 0)
            break;
        if (out->product_id == product_id)
            status = STORE_OK;
    }
    if (result != SQL_ROW && result != SQL_DONE)
        status = sql_fail(store, reading);
    sql_reset(store, rows);
    return status;
}

/* No snapshot: rows are only added behind. */
enum store_status store_audit_row_at(struct store *store, struct log_position position, int64_t product_id,
                                     struct store_audit_row *out)
{
    int64_t first;
    enum store_status status = store_first_row_from(store, position, &first);
    return status == STORE_OK ? find_row(store, first, position, product_id, out) : status;
}

/* --- walking the chain --- */
static void note_first(int64_t *first, bool is_fault, int64_t seq)
{
    if (is_fault && *first == 0)
        *first = seq;
}

static struct store_term *term_of(struct store_tally *tally, const char *cause)
{
    return strcmp(cause, "price") == 0    ? &tally->price
           : strcmp(cause, "starts") == 0 ? &tally->starts
                                          : &tally->ends;
}

/* Do the row's figures follow on those that the product had after its row before? Then the product has the row's. */
static bool follows(struct store_tally *tally, const struct store_audit_row *row)
{
    int64_t to;
    bool adds_up = !__builtin_add_overflow(row->from, row->delta, &to) && to == row->to;
    bool fits = row->applied ? adds_up : row->from == row->to;
    if (!store_cause_is_of_stock(row->cause)) {
        struct store_term *term = term_of(tally, row->cause);
        fits = fits && (!term->known || term->figure == row->from);
        *term = (struct store_term){.known = term->known || row->applied, .figure = row->to};
        return fits;
    }
    if (tally->is_bundle)
        return row->from == 0 && row->to == 0;
    fits = fits && tally->stock == row->from;
    tally->stock = row->to;
    return fits;
}

static enum store_status check_row(struct store *store, const struct store_audit_row *row,
                                   const struct store_audit_row *previous, struct store_chain_audit *out)
{
    unsigned char hash[STORE_AUDIT_HASH_BYTES];
    hash_row(previous->hash, row, hash);
    struct store_tally *tally = store_tally_of(&store->walked, row->product_id);
    if (tally == NULL)
        return store_refuse(store, "%s in %s failed: out of memory", reading, sql_where(store));
    note_first(&out->first_gap, row->seq != previous->seq + 1, previous->seq + 1);
    note_first(&out->first_forged, memcmp(hash, row->hash, sizeof hash) != 0, row->seq);
    note_first(&out->first_off, !follows(tally, row), row->seq);
    note_first(&out->first_backwards, log_position_compare(row->position, previous->position) < 0, row->seq);
    if (row->applied)
        store_tally_log_row(tally, row->cause, row->delta, row->to);
    out->rows++;
    return STORE_OK;
}

static enum store_status mark_bundles(struct store *store)
{
    const enum sql_statement row = SQL_BUNDLES;
    enum store_status status = STORE_OK;
    enum sql_result result;
    while (status == STORE_OK && (result = sql_step(store, row)) != SQL_DONE) {
        struct store_tally *tally = NULL;
        if (result != SQL_ROW)
            status = sql_fail(store, reading);
        else if ((tally = store_tally_of(&store->walked, sql_int(store, row, 0))) == NULL)
            status = store_refuse(store, "%s in %s failed: out of memory", reading, sql_where(store));
        else
            tally->is_bundle = true;
    }
    sql_reset(store, row);
    return status;
}

/* The next rows, at most WALK_ROWS, behind *previous; those behind `last` are newer than the walk. *previous becomes the last one read. */
static enum store_status walk_some(struct store *store, int64_t last, struct store_audit_row *previous,
                                   struct store_chain_audit *out)
{
    const enum sql_statement statement = SQL_AUDIT_CHAIN;
    struct store_audit_row row;
    enum store_status status = STORE_OK;
    enum sql_result result = SQL_DONE;
    sql_bind_int(store, statement, 1, previous->seq);
    sql_bind_int(store, statement, 2, last);
    sql_bind_int(store, statement, 3, WALK_ROWS);
    while (status == STORE_OK && (result = sql_step(store, statement)) == SQL_ROW) {
        read_row(store, statement, &row);
        status = check_row(store, &row, previous, out);
        *previous = row;
    }
    if (status == STORE_OK && result != SQL_DONE)
        status = sql_fail(store, reading);
    sql_reset(store, statement); /* ends the read, so that the write-ahead log can be tidied up in between */
    return status;
}

/* Bundles are read after the last row's number, so that each that has a row is known. */
static enum store_status walk(struct store *store, struct store_chain_audit *out)
{
    struct store_audit_row previous = {0};
    struct store_chain end;
    enum store_status status = store_chain_read(store, &end);
    if (status == STORE_OK)
        status = mark_bundles(store);
    while (status == STORE_OK && previous.seq < end.seq)
        status = walk_some(store, end.seq, &previous, out);
    store->walked.audit_seq = end.seq;
    memcpy(out->head, previous.hash, sizeof out->head);
    return status;
}

enum store_status store_audit_chain(struct store *store, struct store_chain_audit *out)
{
    CHECK(!store->in_snapshot);
    *out = (struct store_chain_audit){0};
    store_tallies_free(&store->walked);
    enum store_status status = walk(store, out);
    if (status != STORE_OK)
        store_tallies_free(&store->walked);
    return status;
}

/* --- keys of changes --- */
#define STARTS_COLUMN 14 /* behind the row's own: when the window opens, of one */

static void read_change_key(struct store *store, enum sql_statement statement, struct store_change_key *out)
{
    struct store_audit_row row;
    read_row(store, statement, &row);
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
        out->figure = sql_int(store, statement, STARTS_COLUMN);
    }
    memcpy(out->key, row.key, sizeof out->key);
}

enum store_status store_each_change_key(struct store *store, int64_t since_ms, store_change_key_cb cb,
                                        void *context)
{
    const enum sql_statement rows = SQL_CHANGE_KEYS;
    sql_bind_int(store, rows, 1, since_ms);
    struct store_change_key key;
    bool go_on = true;
    enum sql_result result = SQL_DONE;
    while (go_on && (result = sql_step(store, rows)) == SQL_ROW) {
        read_change_key(store, rows, &key);
        go_on = cb(context, &key);
    }
    enum store_status status = !go_on || result == SQL_DONE ? STORE_OK : sql_fail(store, reading);
    sql_reset(store, rows);
    return status;
}

enum store_status store_find_change_key(struct store *store, int64_t after_ms, int64_t actor, const char *key,
                                        size_t key_bytes, bool *found, struct store_change_key *out)
{
    const enum sql_statement row = SQL_CHANGE_BY_KEY;
    sql_bind_int(store, row, 1, after_ms);
    sql_bind_int(store, row, 2, actor);
    sql_bind_text(store, row, 3, key, key_bytes);
    enum sql_result result = sql_step(store, row);
    *found = result == SQL_ROW;
    if (*found)
        read_change_key(store, row, out);
    enum store_status status = *found || result == SQL_DONE ? STORE_OK : sql_fail(store, reading);
    sql_reset(store, row);
    return status;
}
