/* What a run writes in large numbers, kept back: the parameters are gathered into one array a column, in the form in which PostgreSQL takes arrays, and go
 * out as one statement for all rows, together with whatever is sent next; nearly always with COMMIT.
 *
 * Runs in a write transaction. Owns the columns, whose memory stays for the next run. Fails when memory is out; what PostgreSQL thinks of the
 * rows comes with the answer to the round. */
#include "postgres.h"

#include "doorbuster/check.h"

#include <endian.h>
#include <stdlib.h>
#include <string.h>

#define INT8_OID 20
#define TEXT_OID 25
#define BYTEA_OID 17
#define INT8_ARRAY_OID 1016
#define TEXT_ARRAY_OID 1009
#define BYTEA_ARRAY_OID 1001
#define COLUMN_BYTES_MIN 4096
#define COLUMN_BYTES_KEPT (4 * 1024 * 1024)

/* One dimension, with its first index. */
struct array_header {
    uint32_t dimensions, has_null, type, count, lower;
};

static bool grow(struct postgres_column *column, size_t more)
{
    if (column->bytes + more <= column->capacity)
        return true;
    size_t capacity = column->capacity == 0 ? COLUMN_BYTES_MIN : column->capacity;
    while (capacity < column->bytes + more)
        capacity *= 2;
    char *larger = realloc(column->data, capacity);
    if (larger == NULL)
        return false;
    column->data = larger;
    column->capacity = capacity;
    return true;
}

static bool append(struct postgres_column *column, Oid type, const char *value, int bytes)
{
    if (column->bytes == 0)
        *column = (struct postgres_column){.data = column->data,
                                           .capacity = column->capacity,
                                           .bytes = sizeof(struct array_header),
                                           .type = type};
    size_t length = value == NULL ? 0 : (size_t)bytes;
    CHECK(column->type == type);
    if (!grow(column, sizeof(uint32_t) + length))
        return false;
    uint32_t prefix = htobe32(value == NULL ? UINT32_MAX : (uint32_t)bytes);
    column->has_null = column->has_null || value == NULL;
    memcpy(column->data + column->bytes, &prefix, sizeof prefix);
    column->bytes += sizeof prefix;
    if (length > 0)
        memcpy(column->data + column->bytes, value, length);
    column->bytes += length;
    return true;
}

static void write_header(struct postgres_column *column, int rows)
{
    const struct array_header header = {htobe32(1), htobe32(column->has_null), htobe32(column->type),
                                        htobe32((uint32_t)rows), htobe32(1)};
    _Static_assert(sizeof header == 20, "as PostgreSQL has it");
    memcpy(column->data, &header, sizeof header);
}

enum sql_result postgres_run_later(struct store *base, enum sql_statement statement)
{
    struct postgres_store *store = postgres_of(base);
    const struct postgres_parameters *bound = &store->statements[statement].bound;
    struct postgres_batch *batch = &store->batches[statement];
    if (postgres_batch_sentence(statement) == NULL) {
        enum sql_result result = postgres_step(base, statement);
        postgres_reset(base, statement);
        return result;
    }
    CHECK(store->transaction == WRITE_WANTED || store->transaction == IN_WRITE);
    CHECK(batch->rows == 0 || batch->column_count == bound->count);
    batch->column_count = bound->count;
    for (int i = 0; i < bound->count; i++) {
        if (!append(&batch->columns[i], bound->types[i], bound->values[i], bound->lengths[i])) {
            postgres_fault(store, "", "out of memory");
            return SQL_FAILED;
        }
    }
    batch->rows++;
    store->batched++;
    return SQL_DONE;
}

static Oid array_of(Oid type)
{
    return type == INT8_OID ? INT8_ARRAY_OID : type == TEXT_OID ? TEXT_ARRAY_OID : BYTEA_ARRAY_OID;
}

static void empty(struct postgres_batch *batch)
{
    for (int i = 0; i < batch->column_count; i++) {
        struct postgres_column *column = &batch->columns[i];
        column->bytes = 0;
        if (column->capacity > COLUMN_BYTES_KEPT) {
            free(column->data);
            *column = (struct postgres_column){0};
        }
    }
    batch->rows = 0;
}

static bool put_batch(struct postgres_store *store, enum sql_statement statement)
{
    struct postgres_batch *batch = &store->batches[statement];
    const char *values[POSTGRES_PARAMETERS_MAX];
    Oid types[POSTGRES_PARAMETERS_MAX];
    int lengths[POSTGRES_PARAMETERS_MAX];
    for (int i = 0; i < batch->column_count; i++) {
        struct postgres_column *column = &batch->columns[i];
        write_header(column, batch->rows);
        types[i] = array_of(column->type);
        values[i] = column->data;
        lengths[i] = (int)column->bytes;
    }
    bool put = postgres_put(store, SQL_STATEMENTS + (size_t)statement, postgres_batch_sentence(statement),
                            JOB_BATCH, statement, batch->column_count, types, values, lengths);
    empty(batch);
    return put;
}

bool postgres_put_batches(struct postgres_store *store)
{
    bool put = true;
    for (size_t i = 0; i < SQL_STATEMENTS && put && store->batched > 0; i++) {
        if (store->batches[i].rows > 0)
            put = put_batch(store, (enum sql_statement)i);
    }
    postgres_drop_batches(store);
    return put;
}

void postgres_drop_batches(struct postgres_store *store)
{
    for (size_t i = 0; i < SQL_STATEMENTS && store->batched > 0; i++) {
        if (store->batches[i].rows > 0 || store->batches[i].column_count > 0)
            empty(&store->batches[i]);
    }
    store->batched = 0;
}

void postgres_free_batches(struct postgres_store *store)
{
    for (size_t i = 0; i < SQL_STATEMENTS; i++) {
        for (int j = 0; j < POSTGRES_PARAMETERS_MAX; j++)
            free(store->batches[i].columns[j].data);
    }
}
