-- Orders and stock are written by store_record alone, together with the recorder's position in the sales log:
-- the file is always a prefix of the log. Log positions are <epoch>-<n>.

CREATE TABLE users (
    id            INTEGER PRIMARY KEY,
    username      TEXT    NOT NULL UNIQUE,
    email         TEXT    NOT NULL,
    password_hash TEXT    NOT NULL,
    role          INTEGER NOT NULL CHECK (role IN (0, 1)), -- enum user_role
    created_at_ms INTEGER NOT NULL
) STRICT;

CREATE TABLE products (
    id                 INTEGER PRIMARY KEY,
    name               TEXT    NOT NULL UNIQUE,
    description        TEXT    NOT NULL,
    price              INTEGER NOT NULL CHECK (price > 0),
    per_customer_limit INTEGER NOT NULL CHECK (per_customer_limit >= 0), -- 0: none
    planned_stock      INTEGER NOT NULL CHECK (planned_stock >= 0),
    opened             INTEGER NOT NULL DEFAULT 0 CHECK (opened IN (0, 1)),
    stock              INTEGER NOT NULL DEFAULT 0 CHECK (stock >= 0),
    opening            INTEGER NOT NULL DEFAULT 0 CHECK (opening >= 0),
    restocked          INTEGER NOT NULL DEFAULT 0,
    cancelled          INTEGER NOT NULL DEFAULT 0 CHECK (cancelled >= 0),
    sold               INTEGER NOT NULL DEFAULT 0 CHECK (sold >= cancelled),
    created_at_ms      INTEGER NOT NULL,
    updated_at_ms      INTEGER NOT NULL,
    CHECK (stock = opening + restocked + cancelled - sold)
) STRICT;

-- No foreign keys: an order of an unknown product is recorded (as rejected), and audits look for both.
CREATE TABLE orders (
    id         INTEGER PRIMARY KEY CHECK (id > 0), -- dense from 1
    state      INTEGER NOT NULL CHECK (state IN (0, 1)), -- enum order_state
    request    INTEGER NOT NULL,
    user_id    INTEGER NOT NULL,
    product_id INTEGER NOT NULL,
    quantity   INTEGER NOT NULL CHECK (quantity > 0),
    unit_price INTEGER NOT NULL,
    remaining  INTEGER NOT NULL, -- what Redis said was left after this order
    at_ms      INTEGER NOT NULL,
    log_epoch  INTEGER NOT NULL CHECK (log_epoch >= 0),
    log_n      INTEGER NOT NULL CHECK (log_n >= 0),
    idempotency_key TEXT -- the buyer's, of this user. Not unique: a day later it may be used again. No index: Redis knows the recent ones
) STRICT;
-- A user's orders are looked up shelf by shelf; a shelf is 4,096 orders in a row. An index by user alone would
-- write to a random page of the whole index for each order: measured, 86,000 orders a second instead of 250,000
-- at 100 a commit. A look-up costs 0.4 ms for each million orders in the store.
CREATE INDEX orders_by_user ON orders (id >> 12, user_id);

CREATE TABLE stock_changes (
    log_epoch  INTEGER NOT NULL CHECK (log_epoch >= 0),
    log_n      INTEGER NOT NULL CHECK (log_n >= 0),
    at_ms      INTEGER NOT NULL,
    product_id INTEGER NOT NULL,
    delta      INTEGER NOT NULL,
    remaining  INTEGER NOT NULL,
    cause      TEXT    NOT NULL CHECK (cause IN ('opening', 'restock', 'withdrawal', 'healing')),
    applied    INTEGER NOT NULL CHECK (applied IN (0, 1)), -- 0: it did not fit the book and changed nothing
    actor      INTEGER NOT NULL, -- user id, 0: the system
    note       TEXT    NOT NULL,
    PRIMARY KEY (log_epoch, log_n)
) STRICT, WITHOUT ROWID;

CREATE TABLE state (
    one            INTEGER PRIMARY KEY CHECK (one = 1),
    epoch          INTEGER NOT NULL CHECK (epoch >= 0),
    recorded_epoch INTEGER NOT NULL CHECK (recorded_epoch >= 0),
    recorded_n     INTEGER NOT NULL CHECK (recorded_n >= 0),
    store_id       INTEGER NOT NULL -- tells this store from every other
) STRICT;
INSERT INTO state (one, epoch, recorded_epoch, recorded_n, store_id) VALUES (1, 0, 0, 0, random());
