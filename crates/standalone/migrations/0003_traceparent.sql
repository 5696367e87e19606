-- Where the event was sent, in the trace of the request that made the change
-- (W3C Trace Context).
ALTER TABLE inbox ADD COLUMN traceparent TEXT;
