/* One statement at a time on a connection: bound, run, its rows read, reset.
 *
 * Runs in whatever thread owns the store. Owns each statement's result and what is expected. A statement goes out in one round with all that waits for
 * company: BEGIN and the lock of a write, questions whose answers are expected, rows that were kept back. A result is in memory as a whole, but for
 * scans, which are read by a cursor some thousand rows at a time, in the transaction that there is or a snapshot of their own.
 *
 * Failure: SQL_FAILED, the reason is kept for postgres_fail(). Within a transaction it then has failed as a whole; with a connection that is lost, so
 * does all that follows up to its end: only between transactions is it connected again. */
#include "postgres.h"

#include "doorbuster/check.h"

#include <endian.h>
#include <stdlib.h>
#include <string.h>

#define INT8_OID 20
#define TEXT_OID 25
#define BYTEA_OID 17
#define SENTENCE_BYTES 2048
#define LOCK_SENTENCE "SELECT edits FROM state WHERE one = 1 FOR UPDATE"
#define BEGIN_WRITE "BEGIN READ WRITE" /* READ COMMITTED, as begin_session() has it */

/* --- binding --- */
static struct postgres_parameters *parameters_of(struct postgres_store *store, enum sql_statement statement,
                                                 int index)
{
    struct postgres_parameters *bound = &store->statements[statement].bound;
    CHECK(index >= 1 && index <= POSTGRES_PARAMETERS_MAX);
    bound->count = index > bound->count ? index : bound->count;
    return bound;
}

void postgres_bind_int(struct store *base, enum sql_statement statement, int index, int64_t value)
{
    struct postgres_parameters *bound = parameters_of(postgres_of(base), statement, index);
    bound->figures[index - 1] = (int64_t)htobe64((uint64_t)value);
    bound->types[index - 1] = INT8_OID;
    bound->values[index - 1] = (const char *)&bound->figures[index - 1];
    bound->lengths[index - 1] = sizeof(int64_t);
}

static void bind_bytes(struct store *base, enum sql_statement statement, int index, Oid type,
                       const char *data, size_t bytes)
{
    struct postgres_parameters *bound = parameters_of(postgres_of(base), statement, index);
    CHECK(bytes <= INT32_MAX);
    bound->types[index - 1] = type;
    bound->values[index - 1] = data;
    bound->lengths[index - 1] = data == NULL ? -1 : (int)bytes;
}

void postgres_bind_text(struct store *base, enum sql_statement statement, int index, const char *text,
                        size_t bytes)
{
    bind_bytes(base, statement, index, TEXT_OID, text, bytes);
}

void postgres_bind_blob(struct store *base, enum sql_statement statement, int index, const void *data,
                        size_t bytes)
{
    bind_bytes(base, statement, index, BYTEA_OID, data, bytes);
}

/* --- expected answers --- */
void postgres_forget_answers(struct postgres_store *store)
{
    for (size_t i = 0; i < SQL_STATEMENTS; i++) {
        PQclear(store->statements[i].result);
        store->statements[i].result = NULL;
    }
    for (size_t i = 0; i < store->expected.count; i++)
        PQclear(store->expected.each[i].answer);
    store->expected.count = store->expected.next = store->expected.bytes = 0;
}

void postgres_free_answers(struct postgres_store *store)
{
    postgres_forget_answers(store);
    free(store->expected.each);
    free(store->expected.memory);
}

static size_t bytes_of(const struct postgres_parameters *bound)
{
    size_t bytes = 0;
    for (int i = 0; i < bound->count; i++)
        bytes += bound->lengths[i] > 0 ? (size_t)bound->lengths[i] : 0;
    return bytes;
}

static bool make_room(struct postgres_expectations *all, size_t bytes)
{
    if (all->count == all->capacity) {
        size_t capacity = all->capacity == 0 ? 64 : 2 * all->capacity;
        struct postgres_expected *larger = realloc(all->each, capacity * sizeof *larger);
        if (larger == NULL)
            return false;
        all->each = larger;
        all->capacity = capacity;
    }
    if (all->bytes + bytes > all->memory_bytes) {
        size_t capacity = 2 * (all->bytes + bytes) + 1024;
        char *larger = realloc(all->memory, capacity);
        if (larger == NULL)
            return false;
        all->memory = larger;
        all->memory_bytes = capacity;
    }
    return true;
}

/* Without memory it is asked when it is needed. */
void postgres_expect(struct store *base, enum sql_statement statement)
{
    struct postgres_store *store = postgres_of(base);
    struct postgres_expectations *all = &store->expected;
    const struct postgres_parameters *bound = &store->statements[statement].bound;
    size_t bytes = bytes_of(bound);
    if (store->transaction == NO_TRANSACTION || !make_room(all, bytes))
        return;
    struct postgres_expected *new = &all->each[all->count++];
    *new = (struct postgres_expected){
        .statement = statement, .count = bound->count, .at = all->bytes, .bytes = bytes};
    for (int i = 0; i < bound->count; i++) {
        new->types[i] = bound->types[i];
        new->lengths[i] = bound->values[i] == NULL ? -1 : bound->lengths[i];
        if (new->lengths[i] > 0)
            memcpy(all->memory + all->bytes, bound->values[i], (size_t)bound->lengths[i]);
        all->bytes += new->lengths[i] > 0 ? (size_t) new->lengths[i] : 0;
    }
}

static bool is_as_bound(const struct postgres_expectations *all, const struct postgres_expected *expected,
                        enum sql_statement statement, const struct postgres_parameters *bound)
{
    const char *at = all->memory + expected->at;
    if (expected->answer == NULL || expected->statement != statement || expected->count != bound->count)
        return false;
    for (int i = 0; i < bound->count; i++) {
        int length = bound->values[i] == NULL ? -1 : bound->lengths[i];
        if (length != expected->lengths[i] ||
            (length > 0 && memcmp(at, bound->values[i], (size_t)length) != 0))
            return false;
        at += length > 0 ? length : 0;
    }
    return true;
}

/* They are mostly wanted in the order in which they were expected. */
static PGresult *take_expected(struct postgres_store *store, enum sql_statement statement,
                               const struct postgres_parameters *bound)
{
    struct postgres_expectations *all = &store->expected;
    for (size_t i = 0; i < all->count; i++) {
        struct postgres_expected *expected = &all->each[(all->next + i) % all->count];
        if (is_as_bound(all, expected, statement, bound)) {
            PGresult *answer = expected->answer;
            expected->answer = NULL;
            all->next = ((size_t)(expected - all->each) + 1) % all->count;
            return answer;
        }
    }
    return NULL;
}

/* --- rounds --- */
bool postgres_put_begin(struct postgres_store *store)
{
    if (store->transaction != WRITE_WANTED)
        return true;
    store->transaction = IN_WRITE;
    return postgres_put_script(store, BEGIN_WRITE, JOB_SCRIPT) &&
           postgres_put(store, 2 * SQL_STATEMENTS + OWN_LOCK, LOCK_SENTENCE, JOB_LOCK, 0, 0, NULL, NULL,
                        NULL);
}

static bool put_statement(struct postgres_store *store, enum sql_statement statement, enum postgres_job job,
                          size_t index, int count, const Oid *types, const char *const *values,
                          const int *lengths)
{
    char sentence[SENTENCE_BYTES];
    postgres_sentence(statement, sentence, sizeof sentence);
    return postgres_put(store, statement, sentence, job, index, count, types, values, lengths);
}

static bool put_expected(struct postgres_store *store)
{
    struct postgres_expectations *all = &store->expected;
    bool put = true;
    for (size_t i = 0; i < all->count && put; i++) {
        struct postgres_expected *expected = &all->each[i];
        const char *values[POSTGRES_PARAMETERS_MAX], *at = all->memory + expected->at;
        if (expected->sent)
            continue;
        for (int j = 0; j < expected->count; j++) {
            values[j] = expected->lengths[j] < 0 ? NULL : at;
            at += expected->lengths[j] > 0 ? expected->lengths[j] : 0;
        }
        expected->sent = true;
        put = put_statement(store, expected->statement, JOB_EXPECTED, i, expected->count, expected->types,
                            values, expected->lengths);
    }
    return put;
}

static bool put_company(struct postgres_store *store)
{
    return postgres_put_begin(store) && put_expected(store) && postgres_put_batches(store);
}

/* --- scans --- */
static bool put_scan(struct postgres_store *store, enum sql_statement statement)
{
    static const char declare[] = "DECLARE scan NO SCROLL CURSOR FOR ";
    const struct postgres_parameters *bound = &store->statements[statement].bound;
    char sentence[sizeof declare + SENTENCE_BYTES];
    memcpy(sentence, declare, sizeof declare);
    postgres_sentence(statement, sentence + sizeof declare - 1, SENTENCE_BYTES);
    if (store->transaction == NO_TRANSACTION) {
        store->transaction = IN_SCAN;
        if (!postgres_put_script(store, POSTGRES_BEGIN_READ, JOB_SCRIPT))
            return false;
    }
    return postgres_put_script(store, "SET LOCAL statement_timeout = " POSTGRES_SCAN_MS_TEXT, JOB_SCRIPT) &&
           postgres_put_query(store, sentence, bound->count, bound->types, bound->values, bound->lengths) &&
           postgres_put_fetch(store, statement);
}

static bool begin_scan(struct postgres_store *store, enum sql_statement statement)
{
    CHECK(store->scan == SQL_STATEMENTS);
    store->scan = statement;
    return put_company(store) && put_scan(store, statement);
}

static bool next_chunk(struct postgres_store *store, enum sql_statement statement)
{
    struct postgres_statement *self = &store->statements[statement];
    PQclear(self->result);
    self->result = NULL;
    self->row = 0;
    (void)postgres_put_fetch(store, statement);
    return postgres_run_round(store, POSTGRES_SCAN_MS) && self->result != NULL;
}

static void end_scan(struct postgres_store *store)
{
    bool alone = store->transaction == IN_SCAN;
    store->scan = SQL_STATEMENTS;
    if (alone)
        store->transaction = NO_TRANSACTION;
    if (store->connection == NULL)
        return;
    (void)postgres_put_script(store, alone ? "ROLLBACK" : "CLOSE scan", JOB_SCRIPT);
    if (!alone) /* those behind it are no scans */
        (void)postgres_put_script(store, "SET LOCAL statement_timeout = " POSTGRES_STATEMENT_MS_TEXT,
                                  JOB_SCRIPT);
    if (!postgres_run_round(store, POSTGRES_CALL_MS) && alone)
        postgres_disconnect(store);
}

/* --- running --- */
static bool put_plain(struct postgres_store *store, enum sql_statement statement)
{
    const struct postgres_parameters *bound = &store->statements[statement].bound;
    if (!put_company(store) ||
        (postgres_is_long(statement) &&
         !postgres_put_script(store, "SET LOCAL statement_timeout = " POSTGRES_SCAN_MS_TEXT, JOB_SCRIPT)))
        return false;
    return put_statement(store, statement, JOB_ANSWER, statement, bound->count, bound->types, bound->values,
                         bound->lengths);
}

static bool run(struct postgres_store *store, enum sql_statement statement)
{
    struct postgres_statement *self = &store->statements[statement];
    bool is_scan = postgres_is_scan(statement);
    self->row = 0;
    self->result = take_expected(store, statement, &self->bound);
    if (self->result != NULL)
        return true;
    if (store->transaction == NO_TRANSACTION ? !postgres_ready(store) : store->connection == NULL)
        return false;
    (void)(is_scan ? begin_scan(store, statement) : put_plain(store, statement));
    return postgres_run_round(store,
                              is_scan || postgres_is_long(statement) ? POSTGRES_SCAN_MS : POSTGRES_CALL_MS) &&
           self->result != NULL;
}

enum sql_result postgres_step(struct store *base, enum sql_statement statement)
{
    struct postgres_store *store = postgres_of(base);
    struct postgres_statement *self = &store->statements[statement];
    if (self->result == NULL) {
        if (!run(store, statement))
            return SQL_FAILED;
    } else {
        self->row++;
    }
    if (self->row < PQntuples(self->result))
        return SQL_ROW;
    if (store->scan != statement || self->row < POSTGRES_SCAN_ROWS)
        return SQL_DONE;
    if (!next_chunk(store, statement))
        return SQL_FAILED;
    return PQntuples(self->result) > 0 ? SQL_ROW : SQL_DONE;
}

void postgres_reset(struct store *base, enum sql_statement statement)
{
    struct postgres_store *store = postgres_of(base);
    struct postgres_statement *self = &store->statements[statement];
    PQclear(self->result);
    self->result = NULL;
    if (store->scan == statement)
        end_scan(store);
    else if (store->transaction == IN_SCAN &&
             store->scan == SQL_STATEMENTS) /* the connection was lost in it */
        store->transaction = NO_TRANSACTION;
}

/* --- rows --- */
int64_t postgres_int_of(const PGresult *result, int row, int column)
{
    uint16_t two;
    uint32_t four;
    uint64_t eight;
    if (result == NULL || PQgetisnull(result, row, column))
        return 0;
    const char *value = PQgetvalue(result, row, column);
    switch (PQgetlength(result, row, column)) {
    case 1: /* a boolean */
        return value[0] != 0;
    case sizeof two:
        memcpy(&two, value, sizeof two);
        return (int16_t)be16toh(two);
    case sizeof four:
        memcpy(&four, value, sizeof four);
        return (int32_t)be32toh(four);
    default:
        CHECK(PQgetlength(result, row, column) == sizeof eight);
        memcpy(&eight, value, sizeof eight);
        return (int64_t)be64toh(eight);
    }
}

int64_t postgres_int_at(struct store *base, enum sql_statement statement, int column)
{
    const struct postgres_statement *self = &postgres_of(base)->statements[statement];
    return postgres_int_of(self->result, self->row, column);
}

bool postgres_is_null_at(struct store *base, enum sql_statement statement, int column)
{
    const struct postgres_statement *self = &postgres_of(base)->statements[statement];
    return self->result == NULL || PQgetisnull(self->result, self->row, column);
}

const void *postgres_blob_at(struct store *base, enum sql_statement statement, int column, size_t *bytes)
{
    const struct postgres_statement *self = &postgres_of(base)->statements[statement];
    *bytes = 0;
    if (postgres_is_null_at(base, statement, column))
        return NULL;
    *bytes = (size_t)PQgetlength(self->result, self->row, column);
    return PQgetvalue(self->result, self->row, column);
}

/* libpq ends each value with a zero byte. */
const char *postgres_text_at(struct store *base, enum sql_statement statement, int column, size_t *bytes)
{
    return postgres_blob_at(base, statement, column, bytes);
}
