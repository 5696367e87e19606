# shellcheck shell=sh
# What the scripts of the backup share; to be sourced.
#
# Environment: PGHOST, PGPORT, PGUSER, PGDATABASE; POSTGRES_PASSWORD_FILE or PGPASSWORD; DATABASE_PATIENCE_SECONDS.
set -eu
umask 077
export PGCONNECT_TIMEOUT=10

if [ -n "${POSTGRES_PASSWORD_FILE:-}" ]; then
  PGPASSWORD=$(cat "$POSTGRES_PASSWORD_FILE")
  export PGPASSWORD
fi

# Network policies let a new pod through some seconds after it has started, and a server may be about to restart.
wait_for_database() {
  patience=${DATABASE_PATIENCE_SECONDS:-120}
  deadline=$(($(date +%s) + patience))
  until pg_isready --quiet --dbname=postgres; do
    [ "$(date +%s)" -lt "$deadline" ] || { echo "no database at $PGHOST for $patience s" >&2; exit 1; }
    sleep 1
  done
}
