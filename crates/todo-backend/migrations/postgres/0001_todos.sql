CREATE TABLE todos (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    text text NOT NULL CHECK (char_length(text) BETWEEN 1 AND 140),
    completed boolean NOT NULL,
    created_at timestamptz NOT NULL,
    -- Counts the changes of the row: the ETag of a todo.
    version bigint NOT NULL DEFAULT 1
);

CREATE INDEX todos_newest_first ON todos (created_at DESC, id DESC);

-- Events that are committed with their change and wait to be published.
-- It holds the todo as it was then; a row leaves after the broker has it.
CREATE TABLE outbox (
    position bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    event_id uuid NOT NULL UNIQUE,
    kind text NOT NULL CHECK (kind IN ('created', 'updated', 'deleted')),
    todo_id bigint NOT NULL,
    text text NOT NULL,
    completed boolean NOT NULL,
    created_at timestamptz NOT NULL,
    occurred_at timestamptz NOT NULL,
    traceparent text
);

-- What a POST with an Idempotency-Key made, to be answered again.
CREATE TABLE idempotency_keys (
    key text PRIMARY KEY,
    todo_id bigint NOT NULL,
    text text NOT NULL,
    created_at timestamptz NOT NULL
);

CREATE INDEX idempotency_keys_oldest_first ON idempotency_keys (created_at);

-- Holds a row once the first todo was written, so that it is written once.
CREATE TABLE first_todo (
    written boolean PRIMARY KEY CHECK (written)
);
