-- How many todos there are and which version of the list this is, so that
-- nobody counts rows to answer a request. Triggers keep it true whoever changes
-- a todo. The sums over all rows are the figures: a session adds to the row of
-- its process id, so that sessions rarely wait for each other.
CREATE TABLE todo_counts (
    shard integer PRIMARY KEY,
    total bigint NOT NULL,
    active bigint NOT NULL,
    -- Grows by a random step with each change. A step of one would give a
    -- restored backup the versions that clients have seen with other content.
    version bigint NOT NULL
);

CREATE FUNCTION count_todos() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    touched bigint;
    total_step bigint := 0;
    active_step bigint;
BEGIN
    IF TG_OP = 'INSERT' THEN
        SELECT count(*), count(*), count(*) FILTER (WHERE NOT completed)
            INTO touched, total_step, active_step FROM new_todos;
    ELSIF TG_OP = 'DELETE' THEN
        SELECT count(*), -count(*), -count(*) FILTER (WHERE NOT completed)
            INTO touched, total_step, active_step FROM old_todos;
    ELSE
        SELECT count(*), count(*) FILTER (WHERE NOT completed)
            INTO touched, active_step FROM new_todos;
        active_step := active_step
            - (SELECT count(*) FROM old_todos WHERE NOT completed);
    END IF;
    IF touched > 0 THEN
        UPDATE todo_counts
        SET total = total + total_step,
            active = active + active_step,
            version = version + 1 + (random() * 16777215)::bigint
        WHERE shard = pg_backend_pid() % 16;
    END IF;
    RETURN NULL;
END
$$;

CREATE FUNCTION uncount_todos() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE todo_counts
    SET total = 0, active = 0, version = version + 1 + (random() * 16777215)::bigint;
    RETURN NULL;
END
$$;

-- The lock of a trigger's creation keeps changes out until the commit.
CREATE TRIGGER count_inserted AFTER INSERT ON todos
    REFERENCING NEW TABLE AS new_todos
    FOR EACH STATEMENT EXECUTE FUNCTION count_todos();
CREATE TRIGGER count_updated AFTER UPDATE ON todos
    REFERENCING OLD TABLE AS old_todos NEW TABLE AS new_todos
    FOR EACH STATEMENT EXECUTE FUNCTION count_todos();
CREATE TRIGGER count_deleted AFTER DELETE ON todos
    REFERENCING OLD TABLE AS old_todos
    FOR EACH STATEMENT EXECUTE FUNCTION count_todos();
CREATE TRIGGER count_truncated AFTER TRUNCATE ON todos
    FOR EACH STATEMENT EXECUTE FUNCTION uncount_todos();

INSERT INTO todo_counts (shard, total, active, version)
SELECT shard, 0, 0, 0 FROM generate_series(0, 15) AS shard;

UPDATE todo_counts
SET (total, active) =
        (SELECT count(*), count(*) FILTER (WHERE NOT completed) FROM todos),
    version = (random() * 16777215)::bigint
WHERE shard = 0;
