/* The rules' sentences (statements.c) as PostgreSQL gets them: ?N is written $N, some are another sentence here, and those that a run writes in large
 * numbers have one for many rows. Constants and pure functions; nothing fails. */
#include "postgres.h"

#include "doorbuster/check.h"

#include <string.h>

/* clang-format off */
/* 0001_postgres.sql says what a shelf is. Those without orders are skipped, so that a gap in the ids costs nothing. */
#define SHELVES_BELOW(id) \
    "WITH RECURSIVE shelves (shelf) AS (SELECT max(id) >> 16 FROM orders WHERE id < " id " UNION ALL" \
    " SELECT (SELECT max(id) >> 16 FROM orders WHERE id < shelf << 16) FROM shelves WHERE shelf IS NOT NULL)"
#define ON_SHELF(user, below, limit) \
    "(SELECT id FROM orders WHERE id >> 16 = shelf AND user_id = " user " AND id < " below " ORDER BY id DESC LIMIT " limit ")"

static const char *const own_sentences[SQL_STATEMENTS] = {
    /* From shelf to shelf in one statement: each would be a round trip. What is joined laterally comes in the order of the shelves, the highest first, so that
     * the limit ends the walk. ?1, a shelf of the rules' own, says nothing here; LAST_ORDER_BEFORE finds this user's only, so that the rules do not go on in
     * vain. */
    [SQL_ORDERS_OF_USER] =
        SHELVES_BELOW("?3") " SELECT orders.id, state, request, orders.user_id, product_id, quantity, unit_price, remaining, orders.at_ms,"
        " orders.log_epoch, orders.log_n, idempotency_key, part_count, cancellations.at_ms, cancellations.actor"
        " FROM (SELECT own.id FROM shelves CROSS JOIN LATERAL " ON_SHELF("?2", "?3", "?4") " AS own WHERE ?1 = ?1 LIMIT ?4) AS found"
        " JOIN orders ON orders.id = found.id LEFT JOIN cancellations ON cancellations.order_id = orders.id ORDER BY orders.id DESC",
    [SQL_LAST_ORDER_BEFORE] =
        SHELVES_BELOW("?1") " SELECT (SELECT own.id FROM shelves CROSS JOIN LATERAL " ON_SHELF("?2", "?1", "1") " AS own LIMIT 1)",
};

/* All or none: what is not found, or is not what it was when the books were read, fails the statement, and COMMIT behind it is not done. Sales move
 * units between stock and sold and change nothing else of a book. */
#define ALL_OR_NONE(update) "WITH written AS (" update " RETURNING 1) SELECT 1 / (count(*) = cardinality($1))::int FROM written"

static const char *const batch_sentences[SQL_STATEMENTS] = {
    [SQL_ADD_ORDER] =
        "INSERT INTO orders (id, state, request, user_id, product_id, quantity, unit_price, remaining, at_ms, log_epoch, log_n,"
        " idempotency_key, part_count)"
        " SELECT * FROM unnest($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)",
    [SQL_ADD_ORDER_PART] =
        "INSERT INTO order_parts (order_id, part, product_id, quantity, unit_price, remaining, is_component)"
        " SELECT * FROM unnest($1, $2, $3, $4, $5, $6, $7)",
    [SQL_ADD_CANCELLATION] =
        "INSERT INTO cancellations (order_id, at_ms, actor, log_epoch, log_n) SELECT * FROM unnest($1, $2, $3, $4, $5)",
    [SQL_ADD_AUDIT_ROW] =
        "INSERT INTO audit_log (seq, at_ms, log_epoch, log_n, product_id, cause, delta, from_figure, to_figure, applied, actor, note,"
        " idempotency_key, hash)"
        " SELECT * FROM unnest($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)",
    [SQL_WRITE_SALES] = ALL_OR_NONE(
        "UPDATE products SET stock = book.stock, sold = book.sold, updated_at_ms = greatest(updated_at_ms, book.at_ms)"
        " FROM unnest($1, $2, $3, $4) AS book (id, stock, sold, at_ms) WHERE products.id = book.id"
        " AND (products.stock + products.sold = book.stock + book.sold OR is_bundle = 1)"),
    [SQL_WRITE_BOOK] = ALL_OR_NONE(
        "UPDATE products SET opened = book.opened, stock = book.stock, opening = book.opening, restocked = book.restocked,"
        " cancelled = book.cancelled, sold = book.sold, updated_at_ms = greatest(updated_at_ms, book.at_ms), price = book.price,"
        " starts_at_ms = book.starts_at_ms, ends_at_ms = book.ends_at_ms"
        " FROM unnest($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)"
        " AS book (id, opened, stock, opening, restocked, cancelled, sold, at_ms, price, starts_at_ms, ends_at_ms)"
        " WHERE products.id = book.id"),
    [SQL_PUT_LIMITED_BUYER] =
        "INSERT INTO limited_buyers (product_id, user_id, units) SELECT * FROM unnest($1, $2, $3)"
        " ON CONFLICT (product_id, user_id) DO UPDATE SET units = excluded.units",
    [SQL_PUT_RECENT_KEY] =
        "INSERT INTO recent_keys (user_id, key, order_id, at_ms) SELECT * FROM unnest($1, $2, $3, $4)"
        " ON CONFLICT (user_id, key) DO UPDATE SET order_id = excluded.order_id, at_ms = excluded.at_ms",
    /* Once a transaction, but nobody waits for its answer. */
    [SQL_PRUNE_RECENT_KEYS] =
        "DELETE FROM recent_keys WHERE (user_id, key) IN"
        " (SELECT user_id, key FROM recent_keys WHERE at_ms <= $1[1] ORDER BY at_ms LIMIT $2[1])",
};
/* clang-format on */

const char *postgres_batch_sentence(enum sql_statement statement)
{
    return batch_sentences[statement];
}

void postgres_sentence(enum sql_statement statement, char *out, size_t out_bytes)
{
    const char *text =
        own_sentences[statement] != NULL ? own_sentences[statement] : sql_statements[statement];
    size_t bytes = strlen(text);
    CHECK(bytes < out_bytes);
    memcpy(out, text, bytes + 1);
    for (char *at = out; (at = strchr(at, '?')) != NULL;) /* no sentence has a literal one */
        *at = '$';
}

bool postgres_is_scan(enum sql_statement statement)
{
    switch (statement) {
    case SQL_ORDERS_BACKWARDS:
    case SQL_AUDIT_ROWS_FROM:
    case SQL_CHANGE_KEYS:
    case SQL_BUYERS:
    case SQL_KEYS:
    case SQL_AUDIT_SALES:
    case SQL_AUDIT_PARTS:
    case SQL_AUDIT_CANCELLED:
    case SQL_AUDIT_CHANGES:
    case SQL_AUDIT_COMPONENTS:
    case SQL_AUDIT_OVER_LIMIT:
    case SQL_AUDIT_ORDERS:
    case SQL_BUNDLES:
        return true;
    default:
        return false;
    }
}

bool postgres_is_long(enum sql_statement statement)
{
    return statement == SQL_FILL_LIMITED_BUYERS || statement == SQL_FILL_RECENT_KEYS ||
           statement == SQL_CLEAR_LIMITED_BUYERS || statement == SQL_CLEAR_RECENT_KEYS;
}
