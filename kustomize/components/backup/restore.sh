#!/bin/sh
# Restores a dump of backup.sh beside the live database, then swaps the two in one transaction. The live database is not
# touched before the dump has been restored whole, and is kept as <name>-before-<time>.
#
# Environment: that of common.sh; BACKUP_DIR; BACKUP_FILE, by default the newest.
set -eu
# shellcheck disable=SC1091
. "$(dirname "$0")/common.sh"

cd "${BACKUP_DIR:?names no folder}"
file=$(basename "${BACKUP_FILE:-$(find . -maxdepth 1 -name 'backup-full-*.dump' | sort | tail -n 1)}")
live=${PGDATABASE:?names no database}
new=$live-restoring
old=$live-before-$(date -u +%Y%m%d-%H%M%S)

[ -f "$file" ] || { echo "no dump '$file' in $PWD" >&2; exit 1; }
sha256sum -c "$file.sha256"
wait_for_database

dropdb --if-exists --force "$new"
createdb --template=template0 "$new"
pg_restore --exit-on-error --no-owner --dbname="$new" "$file"

# Whatever stops the swap, the database of that name must take connections again.
trap 'psql -X -q -d postgres -c "ALTER DATABASE \"$live\" ALLOW_CONNECTIONS true"' EXIT
psql -X -q -d postgres -v ON_ERROR_STOP=1 -v live="$live" -v new="$new" -v old="$old" <<'SQL'
SELECT count(*) > 0 AS exists FROM pg_database WHERE datname = :'live' \gset
\if :exists
ALTER DATABASE :"live" ALLOW_CONNECTIONS false;
\o /dev/null
SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = :'live';
\o
\endif
BEGIN;
\if :exists
ALTER DATABASE :"live" RENAME TO :"old";
\endif
ALTER DATABASE :"new" RENAME TO :"live";
COMMIT;
SQL
echo "$live is now $file; the database before it is kept as $old"
