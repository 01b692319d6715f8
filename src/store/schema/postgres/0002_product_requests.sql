-- A product that was asked for with an Idempotency-Key is known by it: see 0005_product_requests.sql of SQLite.

ALTER TABLE products ADD COLUMN request text COLLATE "C"; -- the admin's id and the key
ALTER TABLE products ADD COLUMN request_hash text COLLATE "C"; -- of what was asked for
CREATE UNIQUE INDEX products_by_request ON products (request) WHERE request IS NOT NULL;
