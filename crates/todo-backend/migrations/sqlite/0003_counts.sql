-- How many todos there are and which version of the list this is, so that
-- nobody counts rows to answer a request. Triggers keep it true whoever changes
-- a todo.
CREATE TABLE todo_counts (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    total INTEGER NOT NULL,
    active INTEGER NOT NULL,
    -- Grows by a random step with each change. A step of one would give a
    -- restored backup the versions that clients have seen with other content.
    version INTEGER NOT NULL
) STRICT;

INSERT INTO todo_counts (one, total, active, version)
SELECT 1, count(*), count(*) FILTER (WHERE NOT completed), random() & 16777215
FROM todos;

CREATE TRIGGER count_inserted AFTER INSERT ON todos BEGIN
    UPDATE todo_counts
    SET total = total + 1,
        active = active + NOT new.completed,
        version = version + 1 + (random() & 16777215);
END;

CREATE TRIGGER count_updated AFTER UPDATE ON todos BEGIN
    UPDATE todo_counts
    SET active = active + (NOT new.completed) - (NOT old.completed),
        version = version + 1 + (random() & 16777215);
END;

CREATE TRIGGER count_deleted AFTER DELETE ON todos BEGIN
    UPDATE todo_counts
    SET total = total - 1,
        active = active - (NOT old.completed),
        version = version + 1 + (random() & 16777215);
END;
