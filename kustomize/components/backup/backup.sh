#!/bin/sh
# Dumps the database, restores the dump into a scratch database, compares the rows of every table, and only then gives
# the dump its name: a file called backup-full-* is known to restore. Old dumps go only after a new one has come.
#
# Environment: PGHOST, PGPORT, PGUSER, PGDATABASE; POSTGRES_PASSWORD_FILE or PGPASSWORD; BACKUP_DIR, BACKUP_KEEP_DAYS.
set -eu
umask 077

dir=${BACKUP_DIR:?names no folder}
keep_minutes=$((${BACKUP_KEEP_DAYS:-7} * 24 * 60))
count_rows=$(dirname "$0")/count-rows.sql
name=backup-full-$(date -u +%Y%m%d-%H%M%S).dump
work=$dir/.unverified
scratch=backup_check

if [ -n "${POSTGRES_PASSWORD_FILE:-}" ]; then
  PGPASSWORD=$(cat "$POSTGRES_PASSWORD_FILE")
  export PGPASSWORD
fi

exec 9>"$dir/.lock"
flock -n 9 || { echo "another backup is running" >&2; exit 1; }
trap 'rm -rf "$work"; dropdb --if-exists --force "$scratch"' EXIT
trap 'exit 1' INT TERM
rm -rf "$work" && mkdir "$work" # a run that was killed may have left one

# The dump and the count see the same snapshot, however much is written meanwhile.
DUMP=$work/$name ROWS=$work/rows COUNT_ROWS=$count_rows psql -X -q -A -t -v ON_ERROR_STOP=1 >/dev/null <<'SQL'
BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY;
SELECT pg_export_snapshot() AS snapshot \gset
\setenv SNAPSHOT :snapshot
\! pg_dump --format=custom --snapshot="$SNAPSHOT" --file="$DUMP" || rm -f "$DUMP"
\getenv rows ROWS
\getenv count_rows COUNT_ROWS
\o :rows
\i :count_rows
SQL

dropdb --if-exists --force "$scratch"
createdb --template=template0 "$scratch"
pg_restore --exit-on-error --no-owner --dbname="$scratch" "$work/$name"
psql -X -q -A -t -v ON_ERROR_STOP=1 -d "$scratch" -f "$count_rows" -o "$work/restored-rows"
cmp "$work/rows" "$work/restored-rows"

(cd "$work" && sha256sum "$name" >"$name.sha256")
mv "$work/$name.sha256" "$work/$name" "$dir/"
find "$dir" -maxdepth 1 -name 'backup-full-*' -mmin "+$keep_minutes" -exec rm -f {} +
echo "$name restores; rows by table:"
cat "$work/rows"
