-- A product that was asked for with an Idempotency-Key is known by it, so that who asks again is not told that the name is taken.

ALTER TABLE products ADD COLUMN request TEXT; -- the admin's id and the key
ALTER TABLE products ADD COLUMN request_hash TEXT; -- of what was asked for
CREATE UNIQUE INDEX products_by_request ON products (request) WHERE request IS NOT NULL;
