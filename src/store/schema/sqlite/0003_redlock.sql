-- Selling without a sales log: which gate the store belongs to, and what it must know to decide itself.

ALTER TABLE state ADD COLUMN seller INTEGER NOT NULL DEFAULT 0 CHECK (seller IN (0, 1)); -- enum store_seller

-- Both are what the orders say, in the order in which it is asked for. They are kept only while the store decides (seller 1), and made anew
-- from the orders when it begins to: whoever records a sales log need not write them.
CREATE TABLE limited_buyers (
    product_id INTEGER NOT NULL, -- one with a limit
    user_id    INTEGER NOT NULL,
    units      INTEGER NOT NULL CHECK (units >= 0), -- in orders that stand
    PRIMARY KEY (product_id, user_id)
) STRICT, WITHOUT ROWID;

CREATE TABLE recent_keys (
    user_id  INTEGER NOT NULL,
    key      TEXT    NOT NULL, -- idempotency key
    order_id INTEGER NOT NULL,
    at_ms    INTEGER NOT NULL, -- of the order; after 24 hours the key is a new one
    PRIMARY KEY (user_id, key)
) STRICT, WITHOUT ROWID;
CREATE INDEX recent_keys_by_age ON recent_keys (at_ms); -- for forgetting the old ones, a few at a time
