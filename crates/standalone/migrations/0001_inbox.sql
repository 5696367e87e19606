-- What the bus has taken from the outbox: shown on the inbox page and, where
-- there is a webhook, posted to it in the order of the positions.
CREATE TABLE inbox (
    position INTEGER PRIMARY KEY AUTOINCREMENT,
    event_id BLOB NOT NULL UNIQUE,
    subject TEXT NOT NULL,
    data TEXT NOT NULL,
    -- Microseconds since 1970.
    received_at INTEGER NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('kept', 'waiting', 'delivered', 'refused')),
    -- What the webhook last said, where it did not accept.
    answer TEXT NOT NULL DEFAULT ''
) STRICT;

CREATE INDEX inbox_waiting ON inbox (position) WHERE state = 'waiting';
