-- Who made the change, as the ingress says.
ALTER TABLE inbox ADD COLUMN author TEXT;
