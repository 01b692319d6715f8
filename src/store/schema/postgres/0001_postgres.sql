-- The store of one shop, in the schema of its name (search_path). Orders and stock are written by store_record alone, together with the recorder's position in the
-- sales log: so the store always is a prefix of the log. Log positions are <epoch>-<n>. Figures are bigint; yes and no are 1 and 0. Texts are compared
-- byte by byte ("C"): so an index does not change its order when the system's library does.

CREATE TABLE users (
    id            bigint   PRIMARY KEY,
    created_at_ms bigint   NOT NULL,
    role          smallint NOT NULL CHECK (role IN (0, 1)), -- enum user_role
    username      text     COLLATE "C" NOT NULL UNIQUE,
    email         text     COLLATE "C" NOT NULL,
    password_hash text     COLLATE "C" NOT NULL
);

-- Pages are left half empty, so that a row's new version finds room beside the old one, and no index must be told.
CREATE TABLE products (
    id                 bigint   PRIMARY KEY,
    price              bigint   NOT NULL CHECK (price > 0),
    per_customer_limit bigint   NOT NULL CHECK (per_customer_limit >= 0), -- 0: none
    starts_at_ms       bigint   NOT NULL DEFAULT 0 CHECK (starts_at_ms >= 0), -- 0: none
    ends_at_ms         bigint   NOT NULL DEFAULT 0 CHECK (ends_at_ms >= 0), -- 0: none
    planned_stock      bigint   NOT NULL CHECK (planned_stock >= 0),
    stock              bigint   NOT NULL DEFAULT 0 CHECK (stock >= 0),
    opening            bigint   NOT NULL DEFAULT 0 CHECK (opening >= 0),
    restocked          bigint   NOT NULL DEFAULT 0,
    cancelled          bigint   NOT NULL DEFAULT 0 CHECK (cancelled >= 0),
    sold               bigint   NOT NULL DEFAULT 0,
    created_at_ms      bigint   NOT NULL,
    updated_at_ms      bigint   NOT NULL,
    is_bundle          smallint NOT NULL DEFAULT 0 CHECK (is_bundle IN (0, 1)),
    opened             smallint NOT NULL DEFAULT 0 CHECK (opened IN (0, 1)),
    name               text     COLLATE "C" NOT NULL UNIQUE,
    description        text     COLLATE "C" NOT NULL,
    CHECK (sold >= cancelled),
    -- A bundle has no stock of its own; what it sells is in its components' books.
    CHECK (stock = CASE is_bundle WHEN 1 THEN 0 ELSE opening + restocked + cancelled - sold END)
) WITH (fillfactor = 50);

CREATE TABLE bundle_components (
    bundle_id  bigint NOT NULL,
    product_id bigint NOT NULL,
    quantity   bigint NOT NULL CHECK (quantity BETWEEN 1 AND 1000),
    PRIMARY KEY (bundle_id, product_id)
);

-- No foreign keys: an order of an unknown product is recorded (as rejected), and audits look for both.
CREATE TABLE orders (
    id              bigint   PRIMARY KEY CHECK (id > 0), -- dense from 1
    request         bigint   NOT NULL,
    user_id         bigint   NOT NULL,
    product_id      bigint   NOT NULL,
    quantity        bigint   NOT NULL CHECK (quantity > 0),
    unit_price      bigint   NOT NULL,
    remaining       bigint   NOT NULL, -- what Redis said was left after this order
    at_ms           bigint   NOT NULL,
    log_epoch       bigint   NOT NULL CHECK (log_epoch >= 0),
    log_n           bigint   NOT NULL CHECK (log_n >= 0),
    state           smallint NOT NULL CHECK (state IN (0, 1)), -- enum order_state
    part_count      smallint NOT NULL DEFAULT 1, -- the row itself holds the first
    idempotency_key text     COLLATE "C" -- the buyer's, of this user. Not unique: a day later it may be used again. No index: Redis knows the recent ones
);
-- A user's orders are looked up shelf by shelf, in one statement; a shelf is 65,536 orders in a row. An index (user_id, id) would write to a random page of the
-- whole index for each order: measured from 1.5 million orders of a million users on, 13 us an order instead of 8, and 22 instead of 11 at 3 million. A look-up
-- costs 1 ms with three million orders.
CREATE INDEX orders_by_user ON orders ((id >> 16), user_id);

CREATE TABLE order_parts (
    order_id     bigint   NOT NULL,
    product_id   bigint   NOT NULL,
    quantity     bigint   NOT NULL CHECK (quantity > 0),
    unit_price   bigint   NOT NULL, -- 0 of a component
    remaining    bigint   NOT NULL,
    part         integer  NOT NULL CHECK (part > 0), -- 0 is the line in the order's row
    is_component smallint NOT NULL CHECK (is_component IN (0, 1)),
    PRIMARY KEY (order_id, part)
);

-- Orders are never changed: one that was cancelled has a row here.
CREATE TABLE cancellations (
    order_id  bigint PRIMARY KEY,
    at_ms     bigint NOT NULL,
    actor     bigint NOT NULL,
    log_epoch bigint NOT NULL CHECK (log_epoch >= 0),
    log_n     bigint NOT NULL CHECK (log_n >= 0)
);

-- Every part of every order, rejected and cancelled ones too: for people.
CREATE VIEW sold_parts AS
    SELECT orders.id AS order_id, orders.state AS state, orders.user_id AS user_id, orders.product_id AS product_id,
        orders.quantity AS quantity, orders.unit_price AS unit_price, 0::smallint AS is_component,
        EXISTS (SELECT 1 FROM cancellations WHERE cancellations.order_id = orders.id) AS cancelled
    FROM orders
    UNION ALL
    SELECT order_parts.order_id, orders.state, orders.user_id, order_parts.product_id, order_parts.quantity, order_parts.unit_price,
        order_parts.is_component, EXISTS (SELECT 1 FROM cancellations WHERE cancellations.order_id = orders.id)
    FROM order_parts JOIN orders ON orders.id = order_parts.order_id;

-- See store.h. `hash` chains the rows; the trigger keeps an honest hand from slipping, the chain finds out the other.
CREATE TABLE audit_log (
    seq             bigint   PRIMARY KEY CHECK (seq > 0), -- dense from 1
    at_ms           bigint   NOT NULL,
    log_epoch       bigint   NOT NULL CHECK (log_epoch >= 0),
    log_n           bigint   NOT NULL CHECK (log_n >= 0),
    product_id      bigint   NOT NULL,
    delta           bigint   NOT NULL,
    from_figure     bigint   NOT NULL, -- stock, price, or a time
    to_figure       bigint   NOT NULL,
    actor           bigint   NOT NULL, -- user id, 0: the system or several
    applied         smallint NOT NULL CHECK (applied IN (0, 1)), -- 0: it did not fit the book and changed nothing
    cause           text     COLLATE "C" NOT NULL CHECK (cause IN ('sale', 'cancel', 'opening', 'restock', 'withdrawal', 'healing', 'price', 'starts', 'ends')),
    note            text     COLLATE "C" NOT NULL,
    idempotency_key text     COLLATE "C",
    hash            bytea    NOT NULL CHECK (octet_length(hash) = 32)
);
CREATE INDEX audit_log_keys ON audit_log (at_ms) WHERE idempotency_key IS NOT NULL;
CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the audit log is append-only' USING ERRCODE = 'integrity_constraint_violation';
END $$;
-- Once a statement, so that it costs an INSERT nothing.
CREATE TRIGGER audit_log_is_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_log FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- Both are what the orders say, in the order in which it is asked for. They are kept only while the store decides (state.seller 1), and made anew
-- from the orders when it begins to: whoever records a sales log need not write them.
CREATE TABLE limited_buyers (
    product_id bigint NOT NULL, -- one with a limit
    user_id    bigint NOT NULL,
    units      bigint NOT NULL CHECK (units >= 0), -- in orders that stand
    PRIMARY KEY (product_id, user_id)
);
CREATE TABLE recent_keys (
    user_id  bigint NOT NULL,
    order_id bigint NOT NULL,
    at_ms    bigint NOT NULL, -- of the order; after 24 hours the key is a new one
    key      text   COLLATE "C" NOT NULL, -- idempotency key
    PRIMARY KEY (user_id, key)
);
CREATE INDEX recent_keys_by_age ON recent_keys (at_ms); -- for forgetting the old ones, a few at a time

-- One row, which every write locks before it reads anything: they take turns.
CREATE TABLE state (
    one            smallint PRIMARY KEY CHECK (one = 1),
    seller         smallint NOT NULL DEFAULT 0 CHECK (seller IN (0, 1)), -- enum store_seller
    epoch          bigint   NOT NULL CHECK (epoch >= 0),
    recorded_epoch bigint   NOT NULL CHECK (recorded_epoch >= 0),
    recorded_n     bigint   NOT NULL CHECK (recorded_n >= 0),
    store_id       bigint   NOT NULL, -- tells this store from every other
    -- A new account's or product's id is above this, and above all that there are: those up to it may have been given away in the time that a
    -- restored backup has missed.
    ids_given      bigint   NOT NULL DEFAULT 0,
    edits          bigint   NOT NULL DEFAULT 0 -- how often somebody else than Doorbuster has changed products
) WITH (fillfactor = 10);
INSERT INTO state (one, epoch, recorded_epoch, recorded_n, store_id)
    VALUES (1, 0, 0, 0, ('x' || translate(right(gen_random_uuid()::text, 17), '-', ''))::bit(64)::bigint);

-- Writers keep the products' books in memory from one write to the next. Whoever changes them by hand takes a turn like a writer, and is counted: so the
-- next write sees that they must be read again.
CREATE FUNCTION count_edit() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('UPDATE %I.state SET edits = edits + 1', TG_TABLE_SCHEMA);
    RETURN NULL;
END $$;
CREATE TRIGGER products_edited BEFORE UPDATE OR DELETE ON products FOR EACH STATEMENT
    WHEN (coalesce(current_setting('doorbuster.writes', true), '') <> 'yes') EXECUTE FUNCTION count_edit();
