#!/bin/sh
# Brings a dump back from the restic repository to the volume of the backups, from where restore.sh takes it.
#
# Environment: that of copy.sh; OFFSITE_SNAPSHOT, by default the latest.
set -eu
umask 077

dir=${BACKUP_DIR:?names no folder}
work=$dir/.fetched
trap 'rm -rf "$work"' EXIT
trap 'exit 1' INT TERM
rm -rf "$work"
restic restore --host "$RESTIC_HOST" --target "$work" --verify "${OFFSITE_SNAPSHOT:-latest}"
cd "$work"
sha256sum -c backup-full-*.sha256
# Young, or the next backup would think it old and remove it.
touch backup-full-*
for dump in backup-full-*.dump; do
  mv "$dump.sha256" "$dump" "$dir/"
  echo "$dump is on the volume: restore it with BACKUP_FILE=$dump"
done
