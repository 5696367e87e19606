-- Who brings the events to the broker. One row: the right ends by itself at
-- `expires_at`, on the clock of the database, unless its holder renews it.
CREATE TABLE relay_lease (
    only_one boolean PRIMARY KEY CHECK (only_one),
    holder uuid NOT NULL,
    expires_at timestamptz NOT NULL
);
