/* Every SQL sentence of the rules, in the SQL that SQLite and PostgreSQL both speak: so no scalar max(), an alias for each derived table, casts of
 * sums, TRUE where others are booleans; and in joins of orders with what belongs to few of them a plus, which does nothing, that keeps SQLite from
 * beginning with the orders. Constants only: nothing runs, nothing fails. Column lists are in the order in which rows.c reads them. */
#include "sql.h"

#define EPOCHS_SKIPPED "1000000" /* more than a store attaches in the time that a backup misses */
#define USER_COLUMNS "id, username, email, password_hash, role, created_at_ms"
#define PRODUCT_COLUMNS                                                                                      \
    "id, name, description, price, per_customer_limit, planned_stock, opened, stock, opening, restocked, "   \
    "cancelled, "                                                                                            \
    "sold, created_at_ms, updated_at_ms, starts_at_ms, ends_at_ms, is_bundle"
#define ORDER_COLUMNS                                                                                        \
    "id, state, request, user_id, product_id, quantity, unit_price, remaining, orders.at_ms, "               \
    "orders.log_epoch, orders.log_n, idempotency_key, part_count, cancellations.at_ms, cancellations.actor"
#define ORDER_TABLES "orders LEFT JOIN cancellations ON cancellations.order_id = orders.id"
#define AUDIT_COLUMNS                                                                                        \
    "seq, at_ms, log_epoch, log_n, product_id, cause, delta, from_figure, to_figure, applied, actor, note, " \
    "idempotency_key, hash"
/* See state.ids_given in 0004_windows.sql. */
#define NEXT_ID(table) "coalesce((SELECT max(id) FROM " table " WHERE id > ids_given), ids_given) + 1"
/* An account or product that there is none of, which was made after the backup that was restored: Redis may still have sold with it. */
#define WAS_LOST(id)                                                                                         \
    "(" id " BETWEEN (SELECT ids_given - " STORE_IDS_SKIPPED                                                 \
    " + 1 FROM state) AND (SELECT ids_given FROM state))"
/* A rename, which moves no position, may have come in between. */
#define LATER(at_ms) "CASE WHEN updated_at_ms > " at_ms " THEN updated_at_ms ELSE " at_ms " END"
/* Of a window's two rows the second stands for the change; this is what the first, right before it, says. */
#define STARTS_BEFORE_ENDS "(SELECT to_figure FROM audit_log AS starts WHERE starts.seq = audit_log.seq - 1)"
/* Parts of orders that stand, of products with a limit. EXISTS first and in each half: without a limited product this reads no orders at
 * all. Not by the view sold_parts, where it would come too late: measured, 0.6 s a million orders for nothing. */
#define HAS_LIMIT(product)                                                                                   \
    " WHERE EXISTS (SELECT 1 FROM products WHERE per_customer_limit > 0)"                                    \
    " AND orders.state = 0 AND " product " IN (SELECT id FROM products WHERE per_customer_limit > 0)"        \
    " AND NOT EXISTS (SELECT 1 FROM cancellations WHERE cancellations.order_id = orders.id)"
#define LIVE_LIMITED_PARTS                                                                                   \
    "(SELECT product_id, user_id, quantity FROM orders" HAS_LIMIT(                                           \
        "product_id") " UNION ALL SELECT order_parts.product_id, user_id, order_parts.quantity"              \
                      " FROM order_parts JOIN orders ON orders.id = +order_parts.order_id" HAS_LIMIT(        \
                          "order_parts.product_id") ") AS live GROUP BY product_id, user_id"

/* clang-format off */
const char *const sql_statements[SQL_STATEMENTS] = {
    [SQL_ADD_USER] =
        "INSERT INTO users (id, username, email, password_hash, role, created_at_ms)"
        " SELECT " NEXT_ID("users") ", ?1, ?2, ?3, ?4, ?5 FROM state WHERE one = 1"
        " ON CONFLICT (username) DO NOTHING"
        " RETURNING id",
    [SQL_USER_BY_NAME] = "SELECT " USER_COLUMNS " FROM users WHERE username = ?1",
    [SQL_USER_BY_ID] = "SELECT " USER_COLUMNS " FROM users WHERE id = ?1",
    [SQL_UPDATE_USER] = "UPDATE users SET role = ?2, password_hash = ?3 WHERE id = ?1",

    [SQL_ADD_PRODUCT] =
        "INSERT INTO products (id, name, description, price, per_customer_limit, planned_stock,"
        " created_at_ms, updated_at_ms, starts_at_ms, ends_at_ms, is_bundle, request, request_hash)"
        " SELECT " NEXT_ID("products") ", ?1, ?2, ?3, ?4, ?5, ?6, ?6, ?7, ?8, ?9, ?10, ?11"
        " FROM state WHERE one = 1"
        " ON CONFLICT (name) DO NOTHING RETURNING id",
    [SQL_ADD_COMPONENT] =
        "INSERT INTO bundle_components (bundle_id, product_id, quantity) VALUES (?1, ?2, ?3)",
    [SQL_IS_COMPONENT] = "SELECT 1 FROM products WHERE id = ?1 AND opened = 1 AND is_bundle = 0",
    [SQL_COMPONENTS] =
        "SELECT product_id, quantity FROM bundle_components WHERE bundle_id = ?1 ORDER BY product_id"
        " LIMIT ?2",
    [SQL_PRODUCT_BY_ID] = "SELECT " PRODUCT_COLUMNS " FROM products WHERE id = ?1",
    [SQL_PRODUCT_BY_NAME] = "SELECT " PRODUCT_COLUMNS " FROM products WHERE name = ?1",
    [SQL_PRODUCT_BY_REQUEST] = "SELECT id, request_hash FROM products WHERE request = ?1",
    [SQL_RENAME_PRODUCT] =
        "UPDATE products SET name = ?2, updated_at_ms = ?3"
        " WHERE id = ?1 AND NOT EXISTS (SELECT 1 FROM products AS other WHERE other.name = ?2"
        " AND other.id <> ?1)",
    [SQL_PRODUCTS_AFTER] = "SELECT " PRODUCT_COLUMNS " FROM products WHERE id > ?1 ORDER BY id LIMIT ?2",
    [SQL_CATALOG_SIZE] =
        "SELECT count(*), coalesce((SELECT id FROM products ORDER BY id DESC"
        " LIMIT 1 OFFSET ?1 - 1), min(id), 0)"
        " FROM products",

    [SQL_ORDER_BY_ID] = "SELECT " ORDER_COLUMNS " FROM " ORDER_TABLES " WHERE id = ?1",
    /* "id >> 12" is the index's expression (0001_first.sql); see SHELF_BITS in rows.c. */
    [SQL_ORDERS_OF_USER] =
        "SELECT " ORDER_COLUMNS " FROM " ORDER_TABLES
        " WHERE id >> 12 = ?1 AND user_id = ?2 AND id < ?3 ORDER BY id DESC LIMIT ?4",
    [SQL_ORDERS_BACKWARDS] = "SELECT " ORDER_COLUMNS " FROM " ORDER_TABLES " ORDER BY id DESC",
    [SQL_LATEST_ORDERS] = "SELECT " ORDER_COLUMNS " FROM " ORDER_TABLES " ORDER BY id DESC LIMIT ?1",
    [SQL_ORDER_PARTS] =
        "SELECT product_id, quantity, unit_price, remaining, is_component FROM order_parts"
        " WHERE order_id = ?1 ORDER BY part LIMIT ?2",
    [SQL_LAST_ORDER] = "SELECT max(id) FROM orders",
    /* of user ?2, where that is quick */
    [SQL_LAST_ORDER_BEFORE] =
        "SELECT max(id) FROM orders WHERE id < ?1 AND ?2 = ?2",

    [SQL_POSITION] =
        "SELECT epoch, recorded_epoch, recorded_n, (SELECT max(id) FROM orders), store_id, seller"
        " FROM state WHERE one = 1",
    [SQL_RAISE_EPOCH] = "UPDATE state SET epoch = ?2, seller = 0 WHERE one = 1 AND epoch = ?1",
    [SQL_MOVE_POSITION] =
        "UPDATE state SET recorded_epoch = ?4, recorded_n = ?5"
        " WHERE one = 1 AND epoch = ?1 AND recorded_epoch = ?2 AND recorded_n = ?3",
    [SQL_BEGIN_ANEW] =
        "UPDATE state SET epoch = epoch + " EPOCHS_SKIPPED ","
        " store_id = CASE seller WHEN 1 THEN ?1 ELSE store_id END,"
        " ids_given = " STORE_IDS_SKIPPED " + (SELECT max(id) FROM (SELECT ids_given AS id FROM state"
        " UNION ALL SELECT coalesce(max(id), 0) FROM users"
        " UNION ALL SELECT coalesce(max(id), 0) FROM products) AS given)"
        " WHERE one = 1",
    [SQL_READ_BOOK] =
        "SELECT opened, stock, opening, restocked, cancelled, sold, updated_at_ms, price,"
        " is_bundle, per_customer_limit, starts_at_ms, ends_at_ms FROM products WHERE id = ?1",
    /* Nearly all that a run changes: SQLite then looks at the checks of these columns alone. */
    [SQL_WRITE_SALES] = 
        "UPDATE products SET stock = ?2, sold = ?3, updated_at_ms = " LATER("?4") " WHERE id = ?1",
    [SQL_WRITE_BOOK] =
        "UPDATE products SET opened = ?2, stock = ?3, opening = ?4, restocked = ?5, cancelled = ?6,"
        " sold = ?7, updated_at_ms = " LATER("?8") ", price = ?9, starts_at_ms = ?10,"
        " ends_at_ms = ?11 WHERE id = ?1",
    [SQL_ADD_ORDER] =
        "INSERT INTO orders (id, state, request, user_id, product_id, quantity, unit_price, remaining,"
        " at_ms, log_epoch, log_n, idempotency_key, part_count)"
        " VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)",
    [SQL_ADD_ORDER_PART] =
        "INSERT INTO order_parts (order_id, part, product_id, quantity, unit_price, remaining, is_component)"
        " VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
    [SQL_ADD_CANCELLATION] =
        "INSERT INTO cancellations (order_id, at_ms, actor, log_epoch, log_n) VALUES (?1, ?2, ?3, ?4, ?5)",

    [SQL_LAST_AUDIT_ROW] = "SELECT seq, hash FROM audit_log ORDER BY seq DESC LIMIT 1",
    [SQL_ADD_AUDIT_ROW] =
        "INSERT INTO audit_log (" AUDIT_COLUMNS ")"
        " VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14)",
    [SQL_AUDIT_LOG] =
        "SELECT " AUDIT_COLUMNS " FROM audit_log WHERE seq < ?1 AND (?2 = 0 OR product_id = ?2)"
        " ORDER BY seq DESC LIMIT ?3",
    [SQL_AUDIT_ROW_FROM] = "SELECT seq, log_epoch, log_n FROM audit_log WHERE seq >= ?1 ORDER BY seq LIMIT 1",
    [SQL_AUDIT_ROWS_FROM] = "SELECT " AUDIT_COLUMNS " FROM audit_log WHERE seq >= ?1 ORDER BY seq",
    [SQL_AUDIT_CHAIN] =
        "SELECT " AUDIT_COLUMNS " FROM audit_log WHERE seq > ?1 AND seq <= ?2 ORDER BY seq LIMIT ?3",
    [SQL_CHANGE_KEYS] =
        "SELECT " AUDIT_COLUMNS ", " STARTS_BEFORE_ENDS " FROM audit_log"
        " WHERE at_ms >= ?1 AND idempotency_key IS NOT NULL AND applied = 1 AND cause <> 'starts'"
        " ORDER BY at_ms, seq",

    [SQL_TAKE_OVER] = "UPDATE state SET epoch = epoch + 1, seller = 1 WHERE one = 1 AND seller = 0",
    [SQL_LAST_TIME] =
        "SELECT (SELECT at_ms FROM audit_log ORDER BY seq DESC LIMIT 1),"
        " (SELECT at_ms FROM orders ORDER BY id DESC LIMIT 1)",
    [SQL_LIMITED_BUYER] = "SELECT units FROM limited_buyers WHERE product_id = ?1 AND user_id = ?2",
    [SQL_PUT_LIMITED_BUYER] =
        "INSERT INTO limited_buyers (product_id, user_id, units) VALUES (?1, ?2, ?3)"
        " ON CONFLICT (product_id, user_id) DO UPDATE SET units = excluded.units",
    [SQL_LOWER_LIMITED_BUYER] =
        "UPDATE limited_buyers SET units = units - ?3 WHERE product_id = ?1 AND user_id = ?2 AND units >= ?3",
    [SQL_CLEAR_LIMITED_BUYERS] = "DELETE FROM limited_buyers",
    [SQL_FILL_LIMITED_BUYERS] =
        "INSERT INTO limited_buyers (product_id, user_id, units)"
        " SELECT product_id, user_id, CAST(sum(quantity) AS BIGINT) FROM " LIVE_LIMITED_PARTS,
    [SQL_RECENT_KEY] = "SELECT order_id FROM recent_keys WHERE user_id = ?1 AND key = ?2 AND at_ms > ?3",
    [SQL_PUT_RECENT_KEY] =
        "INSERT INTO recent_keys (user_id, key, order_id, at_ms) VALUES (?1, ?2, ?3, ?4)"
        " ON CONFLICT (user_id, key) DO UPDATE SET order_id = excluded.order_id, at_ms = excluded.at_ms",
    [SQL_CLEAR_RECENT_KEYS] = "DELETE FROM recent_keys",
    [SQL_FILL_RECENT_KEYS] =
        "INSERT INTO recent_keys (user_id, key, order_id, at_ms)"
        " SELECT user_id, idempotency_key, max(id), max(at_ms) FROM orders"
        " WHERE id >= ?1 AND at_ms >= ?2 AND state = 0 AND idempotency_key IS NOT NULL"
        " GROUP BY user_id, idempotency_key",
    [SQL_PRUNE_RECENT_KEYS] =
        "DELETE FROM recent_keys WHERE (user_id, key) IN"
        " (SELECT user_id, key FROM recent_keys WHERE at_ms <= ?1 ORDER BY at_ms LIMIT ?2)",
    [SQL_CHANGE_BY_KEY] =
        "SELECT " AUDIT_COLUMNS ", " STARTS_BEFORE_ENDS " FROM audit_log"
        " WHERE at_ms > ?1 AND idempotency_key IS NOT NULL AND applied = 1 AND cause <> 'starts'"
        " AND actor = ?2 AND idempotency_key = ?3 ORDER BY at_ms DESC, seq DESC LIMIT 1",
    [SQL_CANCELLATION_POSITION] = "SELECT log_epoch, log_n FROM cancellations WHERE order_id = ?1",
    [SQL_NEXT_STOCK] =
        "SELECT from_figure FROM audit_log WHERE seq >= ?1 AND product_id = ?2"
        " AND cause <> 'price' AND cause <> 'starts' AND cause <> 'ends' ORDER BY seq LIMIT 1",

    [SQL_BUYERS] = "SELECT product_id, user_id, CAST(sum(quantity) AS BIGINT) FROM " LIVE_LIMITED_PARTS,
    [SQL_ORDER_FROM] = "SELECT id, at_ms FROM orders WHERE id >= ?1 ORDER BY id LIMIT 1",
    [SQL_KEYS] =
        "SELECT id, user_id, at_ms, idempotency_key FROM orders"
        " WHERE id >= ?1 AND at_ms >= ?2 AND state = 0 AND idempotency_key IS NOT NULL ORDER BY id",
    [SQL_AUDIT_SALES] = "SELECT id, product_id, quantity, at_ms FROM orders WHERE state = 0 ORDER BY id",
    /* The fifth column: the product of the order's first line. */
    [SQL_AUDIT_PARTS] =
        "SELECT orders.id, order_parts.product_id, order_parts.quantity, orders.at_ms, orders.product_id,"
        " is_component FROM order_parts JOIN orders ON orders.id = +order_parts.order_id"
        " WHERE state = 0 ORDER BY order_parts.order_id, part",
    [SQL_AUDIT_CANCELLED] =
        "SELECT product_id, CAST(sum(quantity) AS BIGINT) FROM"
        " (SELECT product_id, quantity FROM cancellations JOIN orders ON orders.id = +cancellations.order_id"
        "  WHERE state = 0"
        "  UNION ALL SELECT order_parts.product_id, order_parts.quantity FROM cancellations"
        "  JOIN orders ON orders.id = +cancellations.order_id"
        "  JOIN order_parts ON order_parts.order_id = +cancellations.order_id WHERE state = 0) AS cancelled"
        " GROUP BY product_id",
    [SQL_AUDIT_CHANGES] =
        "SELECT product_id, cause, delta, to_figure FROM audit_log WHERE seq > ?1 AND applied = 1"
        " ORDER BY seq",
    [SQL_AUDIT_COMPONENTS] =
        "SELECT product_id, bundle_id, quantity FROM bundle_components ORDER BY product_id",
    [SQL_BUNDLES] = "SELECT id FROM products WHERE is_bundle = 1 ORDER BY id",
    [SQL_AUDIT_OVER_LIMIT] =
        "SELECT bought.product_id, count(*) FROM"
        " (SELECT product_id, user_id, sum(quantity) AS units FROM " LIVE_LIMITED_PARTS ") AS bought"
        " JOIN products ON products.id = bought.product_id"
        " WHERE bought.units > products.per_customer_limit GROUP BY bought.product_id",
    [SQL_AUDIT_ORDERS] =
        "SELECT orders.id, orders.state, orders.at_ms, orders.log_epoch, orders.log_n,"
        " users.id IS NOT NULL OR " WAS_LOST("user_id") ","
        " CASE WHEN products.id IS NULL THEN " WAS_LOST("orders.product_id") " WHEN part_count = 1 THEN TRUE"
        "  ELSE NOT EXISTS (SELECT 1 FROM order_parts WHERE order_id = orders.id"
        "   AND order_parts.product_id NOT IN (SELECT id FROM products)"
        " AND NOT " WAS_LOST("order_parts.product_id") ") END,"
        " (users.id IS NULL AND " WAS_LOST("user_id") ")"
        " OR (products.id IS NULL AND " WAS_LOST("orders.product_id") ")"
        " FROM orders LEFT JOIN users ON users.id = orders.user_id"
        " LEFT JOIN products ON products.id = orders.product_id ORDER BY orders.id",
};
/* clang-format on */
