-- Windows that change, and what a restored backup must know of the time that it has missed.

-- A CHECK cannot be changed: a new table takes the rows over, as they are: their hashes do not know of the table.
CREATE TABLE audit_log_new (
    seq             INTEGER PRIMARY KEY CHECK (seq > 0), -- dense from 1
    at_ms           INTEGER NOT NULL,
    log_epoch       INTEGER NOT NULL CHECK (log_epoch >= 0),
    log_n           INTEGER NOT NULL CHECK (log_n >= 0),
    product_id      INTEGER NOT NULL,
    cause           TEXT    NOT NULL CHECK (cause = 'sale' OR cause = 'cancel' OR cause = 'opening' OR cause = 'restock'
        OR cause = 'withdrawal' OR cause = 'healing' OR cause = 'price' OR cause = 'starts' OR cause = 'ends'), -- not IN (…): see 0002
    delta           INTEGER NOT NULL,
    from_figure     INTEGER NOT NULL, -- stock, price, or a time
    to_figure       INTEGER NOT NULL,
    applied         INTEGER NOT NULL CHECK (applied IN (0, 1)), -- 0: it did not fit the book and changed nothing
    actor           INTEGER NOT NULL, -- user id, 0: the system or several
    note            TEXT    NOT NULL,
    idempotency_key TEXT,
    hash            BLOB    NOT NULL CHECK (length(hash) = 32)
) STRICT;
INSERT INTO audit_log_new SELECT seq, at_ms, log_epoch, log_n, product_id, cause, delta, from_figure, to_figure, applied, actor, note,
    idempotency_key, hash FROM audit_log ORDER BY seq;
DROP TABLE audit_log; -- its index and triggers too
ALTER TABLE audit_log_new RENAME TO audit_log;
CREATE INDEX audit_log_keys ON audit_log (at_ms) WHERE idempotency_key IS NOT NULL;
CREATE TRIGGER audit_log_no_update BEFORE UPDATE ON audit_log BEGIN
    SELECT RAISE(ABORT, 'the audit log is append-only');
END;
CREATE TRIGGER audit_log_no_delete BEFORE DELETE ON audit_log BEGIN
    SELECT RAISE(ABORT, 'the audit log is append-only');
END;

-- A new account's or product's id is above this, and above all that there are: those up to it may have been given away in the time that a
-- restored backup has missed.
ALTER TABLE state ADD COLUMN ids_given INTEGER NOT NULL DEFAULT 0;
