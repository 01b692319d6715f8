-- Carts, bundles, cancellations, sale windows, and the audit log in place of stock_changes. What stands in stock_changes and orders is put
-- into the audit log by sqlite_history.c, which then drops stock_changes.

-- A CHECK cannot be changed: a new table takes the rows over.
CREATE TABLE products_new (
    id                 INTEGER PRIMARY KEY,
    name               TEXT    NOT NULL UNIQUE,
    description        TEXT    NOT NULL,
    price              INTEGER NOT NULL CHECK (price > 0),
    per_customer_limit INTEGER NOT NULL CHECK (per_customer_limit >= 0), -- 0: none
    starts_at_ms       INTEGER NOT NULL DEFAULT 0 CHECK (starts_at_ms >= 0), -- 0: none
    ends_at_ms         INTEGER NOT NULL DEFAULT 0 CHECK (ends_at_ms >= 0), -- 0: none
    is_bundle          INTEGER NOT NULL DEFAULT 0 CHECK (is_bundle IN (0, 1)),
    planned_stock      INTEGER NOT NULL CHECK (planned_stock >= 0),
    opened             INTEGER NOT NULL DEFAULT 0 CHECK (opened IN (0, 1)),
    stock              INTEGER NOT NULL DEFAULT 0 CHECK (stock >= 0),
    opening            INTEGER NOT NULL DEFAULT 0 CHECK (opening >= 0),
    restocked          INTEGER NOT NULL DEFAULT 0,
    cancelled          INTEGER NOT NULL DEFAULT 0 CHECK (cancelled >= 0),
    sold               INTEGER NOT NULL DEFAULT 0 CHECK (sold >= cancelled),
    created_at_ms      INTEGER NOT NULL,
    updated_at_ms      INTEGER NOT NULL,
    -- A bundle has no stock of its own; what it sells is in its components' books.
    CHECK (stock = CASE is_bundle WHEN 1 THEN 0 ELSE opening + restocked + cancelled - sold END)
) STRICT;
INSERT INTO products_new (id, name, description, price, per_customer_limit, planned_stock, opened, stock, opening, restocked, cancelled, sold,
        created_at_ms, updated_at_ms)
    SELECT id, name, description, price, per_customer_limit, planned_stock, opened, stock, opening, restocked, cancelled, sold,
        created_at_ms, updated_at_ms FROM products ORDER BY id;
DROP TABLE products;
ALTER TABLE products_new RENAME TO products;

CREATE TABLE bundle_components (
    bundle_id  INTEGER NOT NULL,
    product_id INTEGER NOT NULL,
    quantity   INTEGER NOT NULL CHECK (quantity BETWEEN 1 AND 1000),
    PRIMARY KEY (bundle_id, product_id)
) STRICT, WITHOUT ROWID;

-- An order's row holds its first line; the parts behind it are in order_parts. Nearly all orders have none.
ALTER TABLE orders ADD COLUMN part_count INTEGER NOT NULL DEFAULT 1;
CREATE TABLE order_parts (
    order_id     INTEGER NOT NULL,
    part         INTEGER NOT NULL CHECK (part > 0), -- 0 is the line in the order's row
    product_id   INTEGER NOT NULL,
    quantity     INTEGER NOT NULL CHECK (quantity > 0),
    unit_price   INTEGER NOT NULL, -- 0 of a component
    remaining    INTEGER NOT NULL,
    is_component INTEGER NOT NULL CHECK (is_component IN (0, 1)),
    PRIMARY KEY (order_id, part)
) STRICT, WITHOUT ROWID;

-- Orders are never changed: one that was cancelled has a row here.
CREATE TABLE cancellations (
    order_id  INTEGER PRIMARY KEY,
    at_ms     INTEGER NOT NULL,
    actor     INTEGER NOT NULL,
    log_epoch INTEGER NOT NULL CHECK (log_epoch >= 0),
    log_n     INTEGER NOT NULL CHECK (log_n >= 0)
) STRICT;

-- Every part of every order, rejected and cancelled ones too.
CREATE VIEW sold_parts AS
    SELECT orders.id AS order_id, orders.state AS state, orders.user_id AS user_id, orders.product_id AS product_id,
        orders.quantity AS quantity, orders.unit_price AS unit_price, 0 AS is_component,
        EXISTS (SELECT 1 FROM cancellations WHERE cancellations.order_id = orders.id) AS cancelled
    FROM orders
    UNION ALL
    SELECT order_parts.order_id, orders.state, orders.user_id, order_parts.product_id, order_parts.quantity, order_parts.unit_price,
        order_parts.is_component, EXISTS (SELECT 1 FROM cancellations WHERE cancellations.order_id = orders.id)
    FROM order_parts JOIN orders ON orders.id = order_parts.order_id;

-- See store.h. `hash` chains the rows; the triggers keep an honest hand from slipping, the chain finds out the other.
CREATE TABLE audit_log (
    seq             INTEGER PRIMARY KEY CHECK (seq > 0), -- dense from 1
    at_ms           INTEGER NOT NULL,
    log_epoch       INTEGER NOT NULL CHECK (log_epoch >= 0),
    log_n           INTEGER NOT NULL CHECK (log_n >= 0),
    product_id      INTEGER NOT NULL,
    cause           TEXT    NOT NULL CHECK (cause = 'sale' OR cause = 'cancel' OR cause = 'opening' OR cause = 'restock'
        OR cause = 'withdrawal' OR cause = 'healing' OR cause = 'price'), -- not IN (…): that makes SQLite fill a table for each row
    delta           INTEGER NOT NULL,
    from_figure     INTEGER NOT NULL, -- stock, or price
    to_figure       INTEGER NOT NULL,
    applied         INTEGER NOT NULL CHECK (applied IN (0, 1)), -- 0: it did not fit the book and changed nothing
    actor           INTEGER NOT NULL, -- user id, 0: the system or several
    note            TEXT    NOT NULL,
    idempotency_key TEXT,
    hash            BLOB    NOT NULL CHECK (length(hash) = 32)
) STRICT;
CREATE INDEX audit_log_keys ON audit_log (at_ms) WHERE idempotency_key IS NOT NULL;
CREATE TRIGGER audit_log_no_update BEFORE UPDATE ON audit_log BEGIN
    SELECT RAISE(ABORT, 'the audit log is append-only');
END;
CREATE TRIGGER audit_log_no_delete BEFORE DELETE ON audit_log BEGIN
    SELECT RAISE(ABORT, 'the audit log is append-only');
END;
