/* Every SQL sentence of the SQLite driver; all are prepared when a connection is opened. Constants only:
 * nothing runs, nothing fails. Column lists are in the order in which sqlite_rows.c reads them. */
#include "sqlite.h"

#define USER_COLUMNS "id, username, email, password_hash, role, created_at_ms"
#define PRODUCT_COLUMNS                                                                                      \
    "id, name, description, price, per_customer_limit, planned_stock, opened, stock, opening, restocked, "   \
    "cancelled, "                                                                                            \
    "sold, created_at_ms, updated_at_ms"
#define ORDER_COLUMNS                                                                                        \
    "id, state, request, user_id, product_id, quantity, unit_price, remaining, at_ms, log_epoch, log_n, "    \
    "idempotency_key"

/* clang-format off */
const char *const sqlite_statements[SQL_STATEMENTS] = {
    [SQL_BEGIN_WRITE] = "BEGIN IMMEDIATE",
    [SQL_BEGIN_READ] = "BEGIN",
    [SQL_COMMIT] = "COMMIT",
    [SQL_ROLLBACK] = "ROLLBACK",

    [SQL_ADD_USER] =
        "INSERT INTO users (username, email, password_hash, role, created_at_ms) VALUES (?1, ?2, ?3, ?4, ?5)"
        " ON CONFLICT (username) DO NOTHING",
    [SQL_USER_BY_NAME] = "SELECT " USER_COLUMNS " FROM users WHERE username = ?1",
    [SQL_USER_BY_ID] = "SELECT " USER_COLUMNS " FROM users WHERE id = ?1",
    [SQL_UPDATE_USER] = "UPDATE users SET role = ?2, password_hash = ?3 WHERE id = ?1",

    [SQL_ADD_PRODUCT] =
        "INSERT INTO products (name, description, price, per_customer_limit, planned_stock, created_at_ms,"
        " updated_at_ms) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?6) ON CONFLICT (name) DO NOTHING",
    [SQL_PRODUCT_BY_ID] = "SELECT " PRODUCT_COLUMNS " FROM products WHERE id = ?1",
    [SQL_PRODUCT_BY_NAME] = "SELECT " PRODUCT_COLUMNS " FROM products WHERE name = ?1",
    [SQL_RENAME_PRODUCT] = "UPDATE products SET name = ?2, updated_at_ms = ?3 WHERE id = ?1",
    [SQL_PRODUCTS_AFTER] = "SELECT " PRODUCT_COLUMNS " FROM products WHERE id > ?1 ORDER BY id LIMIT ?2",

    [SQL_ORDER_BY_ID] = "SELECT " ORDER_COLUMNS " FROM orders WHERE id = ?1",
    /* "id >> 12" is the index's expression (0001_first.sql); see SHELF_BITS in sqlite_rows.c. */
    [SQL_ORDERS_OF_USER] =
        "SELECT " ORDER_COLUMNS " FROM orders"
        " WHERE id >> 12 = ?1 AND user_id = ?2 AND id < ?3 ORDER BY id DESC LIMIT ?4",
    [SQL_ORDERS_BACKWARDS] = "SELECT " ORDER_COLUMNS " FROM orders ORDER BY id DESC",
    [SQL_LAST_ORDER_BEFORE] = "SELECT max(id) FROM orders WHERE id < ?1",

    [SQL_POSITION] =
        "SELECT epoch, recorded_epoch, recorded_n, (SELECT max(id) FROM orders), store_id FROM state WHERE one = 1",
    [SQL_RAISE_EPOCH] = "UPDATE state SET epoch = ?2 WHERE one = 1 AND epoch = ?1",
    [SQL_MOVE_POSITION] =
        "UPDATE state SET recorded_epoch = ?4, recorded_n = ?5"
        " WHERE one = 1 AND epoch = ?1 AND recorded_epoch = ?2 AND recorded_n = ?3",
    [SQL_READ_BOOK] =
        "SELECT opened, stock, opening, restocked, cancelled, sold, updated_at_ms FROM products WHERE id = ?1",
    [SQL_WRITE_BOOK] =
        "UPDATE products SET opened = ?2, stock = ?3, opening = ?4, restocked = ?5, cancelled = ?6, sold = ?7,"
        " updated_at_ms = ?8 WHERE id = ?1",
    [SQL_ADD_ORDER] =
        "INSERT INTO orders (" ORDER_COLUMNS ") VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)",
    [SQL_ADD_STOCK_CHANGE] =
        "INSERT INTO stock_changes (log_epoch, log_n, at_ms, product_id, delta, remaining, cause, applied, actor,"
        " note) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",

    /* EXISTS first: without a limited product this reads no orders at all. */
    [SQL_BUYERS] =
        "SELECT product_id, user_id, sum(quantity) FROM orders"
        " WHERE EXISTS (SELECT 1 FROM products WHERE per_customer_limit > 0)"
        " AND state = 0 AND product_id IN (SELECT id FROM products WHERE per_customer_limit > 0)"
        " GROUP BY product_id, user_id",
    [SQL_ORDER_FROM] = "SELECT id, at_ms FROM orders WHERE id >= ?1 ORDER BY id LIMIT 1",
    [SQL_KEYS] =
        "SELECT id, user_id, at_ms, idempotency_key FROM orders"
        " WHERE id >= ?1 AND at_ms >= ?2 AND state = 0 AND idempotency_key IS NOT NULL ORDER BY id",
    [SQL_AUDIT_SALES] = "SELECT id, product_id, quantity, at_ms FROM orders WHERE state = 0 ORDER BY id",
    [SQL_AUDIT_STOCK] =
        "SELECT ifnull(sum(delta) FILTER (WHERE cause = 'opening'), 0),"
        " ifnull(sum(delta) FILTER (WHERE cause <> 'opening'), 0)"
        " FROM stock_changes WHERE product_id = ?1 AND applied = 1",
    [SQL_AUDIT_OVER_LIMIT] =
        "SELECT bought.product_id, count(*) FROM"
        " (SELECT product_id, sum(quantity) AS units FROM orders"
        "  WHERE EXISTS (SELECT 1 FROM products WHERE per_customer_limit > 0)"
        "  AND state = 0 AND product_id IN (SELECT id FROM products WHERE per_customer_limit > 0)"
        "  GROUP BY product_id, user_id) AS bought"
        " JOIN products ON products.id = bought.product_id"
        " WHERE bought.units > products.per_customer_limit GROUP BY bought.product_id",
    [SQL_AUDIT_ORDERS] =
        "SELECT orders.id, orders.state, orders.at_ms, orders.log_epoch, orders.log_n, users.id, products.id"
        " FROM orders LEFT JOIN users ON users.id = orders.user_id"
        " LEFT JOIN products ON products.id = orders.product_id ORDER BY orders.id",
};
/* clang-format on */
