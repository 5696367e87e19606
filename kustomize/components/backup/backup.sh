#!/bin/sh
# Dumps the database, restores the dump into a scratch database, compares the rows of every table, and only then gives
# the dump its name: a file called backup-full-* is known to restore. Older dumps make room, the last good one never.
#
# Environment: that of common.sh and prune.sh.
here=$(dirname "$0")
# shellcheck disable=SC1091
. "$here/common.sh"
# shellcheck disable=SC1091
. "$here/prune.sh"

name=backup-full-$(date -u +%Y%m%d-%H%M%S).dump
work=$BACKUP_DIR/.unverified
scratch=backup_check

wait_for_database
exec 9>"$BACKUP_DIR/.lock"
flock -n 9 || { echo "another backup is running" >&2; exit 1; }
trap 'rm -rf "$work"; dropdb --if-exists --force "$scratch"' EXIT
trap 'exit 1' INT TERM
rm -rf "$work" && mkdir "$work" # a run that was killed may have left one

# A dump is compressed, so it is never larger than its database.
make_room "$(psql -X -q -A -t -c 'SELECT pg_database_size(current_database()) / 1024')"

# The dump and the count see the same snapshot, however much is written meanwhile.
DUMP=$work/$name ROWS=$work/rows COUNT_ROWS=$here/count-rows.sql psql -X -q -A -t -v ON_ERROR_STOP=1 >/dev/null <<'SQL'
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
psql -X -q -A -t -v ON_ERROR_STOP=1 -d "$scratch" -f "$here/count-rows.sql" -o "$work/restored-rows"
cmp "$work/rows" "$work/restored-rows"

(cd "$work" && sha256sum "$name" >"$name.sha256")
mv "$work/$name.sha256" "$work/$name" "$BACKUP_DIR/"
thin 1
echo "$name restores; rows by table:"
cat "$work/rows"
