# shellcheck shell=sh
# Which dumps go; to be sourced. The newest never does: it is the last good one.
#
# Environment: BACKUP_DIR, BACKUP_KEEP_DAYS.
dir=${BACKUP_DIR:?names no folder}

# Keeps every dump of a day, one an hour of three days and one a day of BACKUP_KEEP_DAYS, or of that many times less.
thin() {
  for dump in "$dir"/backup-full-*.dump; do
    [ ! -f "$dump" ] || stat -c '%Y %n' "$dump"
  done | sort -rn | awk -v now="$(date +%s)" -v all="$((86400 / $1))" -v hourly="$((259200 / $1))" \
    -v daily="$((${BACKUP_KEEP_DAYS:-7} * 86400 / $1))" '{
      time = $1
      age = now - time
      slot = "too old"
      if (age <= daily) slot = "day " int(time / 86400)
      if (age <= hourly) slot = "hour " int(time / 3600)
      if (age <= all) slot = "dump " NR
      if (NR > 1 && (slot == "too old" || slot in kept)) print substr($0, length(time) + 2)
      kept[slot] = 1
    }' | while read -r dump; do
    rm -f "$dump" "$dump.sha256"
  done
  for sum in "$dir"/backup-full-*.sha256; do
    [ -f "${sum%.sha256}" ] || rm -f "$sum"
  done
}

# Thins until that many KiB are free, at first as always, then harder and harder.
make_room() {
  divisor=1
  while thin "$divisor"; do
    free=$(df -Pk "$dir" | awk 'NR == 2 { print $4 }')
    [ "$free" -lt "$1" ] || return 0
    [ "$divisor" -lt 65536 ] || break
    divisor=$((divisor * 2))
  done
  echo "only $free KiB are free beside the last dump, and a dump may need $1" >&2
}
