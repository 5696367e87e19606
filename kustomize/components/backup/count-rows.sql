-- One line per table: its name and its number of rows.
SELECT format('SELECT %L, count(*) FROM %s', oid::regclass, oid::regclass)
FROM pg_class
WHERE relkind = 'r'
  AND relnamespace NOT IN ('pg_catalog'::regnamespace, 'information_schema'::regnamespace)
ORDER BY oid::regclass::text
\gexec
