-- Which events were shown in one message, and when. Where there is no webhook
-- the page is the far end of the queue: 'kept' is what it has shown.
ALTER TABLE inbox ADD COLUMN post INTEGER;
-- Microseconds since 1970.
ALTER TABLE inbox ADD COLUMN posted_at INTEGER;

UPDATE inbox SET post = position, posted_at = received_at WHERE state IN ('kept', 'delivered');

CREATE INDEX inbox_post ON inbox (post);
