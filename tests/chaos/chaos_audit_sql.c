/* The store read a second time, without the product's code: SQL of our own on a connection of our own, the same on SQLite
 * and on PostgreSQL. What the first reader saw must be what is there. */
#include "chaos_audit.h"

#include <inttypes.h>
#include <libpq-fe.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SQL_BYTES 640
#define FILE_SCHEME "sqlite:"
#define SHOP "SET search_path = doorbuster"
#define PARTS                                                                                                \
    "(SELECT id, product_id, quantity FROM orders WHERE state = 0 UNION ALL "                                \
    "SELECT order_id, order_parts.product_id, order_parts.quantity FROM order_parts "                        \
    "JOIN orders ON orders.id = order_id WHERE state = 0) AS parts"

struct second_reader {
    sqlite3 *file; /* one of the two */
    PGconn *postgres;
};

static void open_reader(struct second_reader *reader)
{
    const char *url = bench.server.store_url;
    *reader = (struct second_reader){0};
    if (strncmp(url, FILE_SCHEME, strlen(FILE_SCHEME)) == 0) {
        assert_int_equal(
            sqlite3_open_v2(url + strlen(FILE_SCHEME), &reader->file, SQLITE_OPEN_READONLY, NULL), SQLITE_OK);
        return;
    }
    reader->postgres = PQconnectdb(url);
    PQclear(PQexec(reader->postgres, SHOP));
}

static void close_reader(struct second_reader *reader)
{
    sqlite3_close(reader->file);
    PQfinish(reader->postgres);
}

static bool ask_file(sqlite3 *file, const char *sql, int64_t *number)
{
    sqlite3_stmt *statement = NULL;
    bool known = sqlite3_prepare_v2(file, sql, -1, &statement, NULL) == SQLITE_OK &&
                 sqlite3_step(statement) == SQLITE_ROW;
    *number = known ? sqlite3_column_int64(statement, 0) : 0;
    sqlite3_finalize(statement);
    return known;
}

static bool ask_postgres(PGconn *postgres, const char *sql, int64_t *number)
{
    PGresult *result = PQexec(postgres, sql);
    bool known = PQresultStatus(result) == PGRES_TUPLES_OK && PQntuples(result) == 1;
    *number = known ? strtoll(PQgetvalue(result, 0, 0), NULL, 10) : 0;
    PQclear(result);
    return known;
}

/* The one figure that this asks for must be that one. */
static void expect(struct audit *audit, struct second_reader *reader, int64_t figure, const char *what,
                   const char *format, ...) __attribute__((format(printf, 5, 6)));
static void expect(struct audit *audit, struct second_reader *reader, int64_t figure, const char *what,
                   const char *format, ...)
{
    char sql[SQL_BYTES];
    int64_t its;
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(sql, sizeof sql, format, arguments);
    va_end(arguments);
    bool known =
        reader->file != NULL ? ask_file(reader->file, sql, &its) : ask_postgres(reader->postgres, sql, &its);
    if (!known) {
        violation(audit->round, "the second reader cannot ask for %s: %s", what,
                  reader->file != NULL ? sqlite3_errmsg(reader->file) : PQerrorMessage(reader->postgres));
    } else if (its != figure) {
        violation(audit->round, "the second reader finds %" PRId64 " %s, the first %" PRId64, its, what,
                  figure);
    }
}

static void check_products(struct audit *audit, struct second_reader *reader)
{
    for (unsigned i = 0; i < PRODUCTS; i++) {
        const struct store_product *product = &audit->read.products[i];
        expect(audit, reader, product->stock, "left of a product",
               "SELECT stock FROM products WHERE id = %" PRId64, product->id);
        expect(audit, reader, product->sold, "sold of a product, by its orders",
               "SELECT COALESCE(SUM(quantity), 0) FROM " PARTS " WHERE product_id = %" PRId64, product->id);
        expect(audit, reader, product->cancelled, "cancelled of a product, by its orders",
               "SELECT COALESCE(SUM(quantity), 0) FROM " PARTS " WHERE product_id = %" PRId64
               " AND id IN (SELECT order_id FROM cancellations)",
               product->id);
    }
}

void audit_by_sql(struct audit *audit)
{
    struct second_reader reader;
    int64_t before = audit->round->order_before;
    open_reader(&reader);
    expect(audit, &reader, (int64_t)audit->read.order_count, "orders",
           "SELECT COUNT(*) FROM orders WHERE id > %" PRId64, before);
    expect(audit, &reader, audit->round->order_last, "as the last order",
           "SELECT COALESCE(MAX(id), 0) FROM orders");
    expect(audit, &reader, 0, "orders without some of their parts",
           "SELECT COUNT(*) FROM orders WHERE id > %" PRId64
           " AND part_count <> 1 + (SELECT COUNT(*) FROM order_parts WHERE order_id = orders.id)",
           before);
    expect(audit, &reader, 0, "Idempotency-Keys with two orders",
           "SELECT COUNT(*) FROM (SELECT user_id FROM orders WHERE id > %" PRId64
           " AND state = 0 AND idempotency_key IS NOT NULL GROUP BY user_id, idempotency_key "
           "HAVING COUNT(*) > 1) AS twice",
           before);
    expect(audit, &reader, 0, "orders given back twice",
           "SELECT COUNT(*) FROM (SELECT note FROM audit_log WHERE seq > %" PRId64
           " AND cause = 'cancel' GROUP BY note, product_id HAVING COUNT(*) > 1) AS twice",
           audit->round->row_before);
    check_products(audit, &reader);
    close_reader(&reader);
}
