#!/bin/sh
# Copies the newest dump into the restic repository, encrypted, and drops what is too old there. The space itself is
# given back by check.sh, once a day.
#
# Environment: BACKUP_DIR; RESTIC_REPOSITORY_FILE, RESTIC_PASSWORD_FILE, AWS_SHARED_CREDENTIALS_FILE; RESTIC_HOST, which
# names the database; OFFSITE_KEEP, restic's options for what is kept.
set -eu

cd "${BACKUP_DIR:?names no folder}"
dump=$(find . -maxdepth 1 -name 'backup-full-*.dump' | sort | tail -n 1)
[ -n "$dump" ] || { echo "there is no dump in $PWD" >&2; exit 1; }

# The first run makes the repository. Where it exists and cannot be reached, `init` fails as well.
restic cat config >/dev/null 2>&1 || restic init
# A run that was killed leaves a lock; restic removes those that are old.
restic unlock
restic backup --host "$RESTIC_HOST" "$dump" "$dump.sha256"
# Every snapshot has another path, so that by default each would be a group, and the last of a group is kept.
# shellcheck disable=SC2086 # a list of options
restic forget --host "$RESTIC_HOST" --group-by host $OFFSITE_KEEP
