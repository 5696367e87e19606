-- Instants are whole microseconds since 1970-01-01T00:00:00Z.
CREATE TABLE todos (
    -- AUTOINCREMENT: the id of a deleted todo is never given again.
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    text TEXT NOT NULL CHECK (length(text) BETWEEN 1 AND 140),
    completed INTEGER NOT NULL CHECK (completed IN (0, 1)),
    created_at INTEGER NOT NULL,
    -- Counts the changes of the row: the ETag of a todo.
    version INTEGER NOT NULL DEFAULT 1
) STRICT;

CREATE INDEX todos_newest_first ON todos (created_at DESC, id DESC);

-- Events that are committed with their change and wait to be published.
-- It holds the todo as it was then; a row leaves after the broker has it.
CREATE TABLE outbox (
    position INTEGER PRIMARY KEY AUTOINCREMENT,
    event_id BLOB NOT NULL UNIQUE,
    kind TEXT NOT NULL CHECK (kind IN ('created', 'updated', 'deleted')),
    todo_id INTEGER NOT NULL,
    text TEXT NOT NULL,
    completed INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    occurred_at INTEGER NOT NULL,
    traceparent TEXT
) STRICT;

-- What a POST with an Idempotency-Key made, to be answered again.
CREATE TABLE idempotency_keys (
    key TEXT PRIMARY KEY,
    todo_id INTEGER NOT NULL,
    text TEXT NOT NULL,
    created_at INTEGER NOT NULL
) STRICT;

CREATE INDEX idempotency_keys_oldest_first ON idempotency_keys (created_at);

-- Holds a row once the first todo was written, so that it is written once.
CREATE TABLE first_todo (
    written INTEGER PRIMARY KEY CHECK (written = 1)
) STRICT;
