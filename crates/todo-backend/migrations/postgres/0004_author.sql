-- Who made the change, as the ingress says.
ALTER TABLE outbox ADD COLUMN author text;
