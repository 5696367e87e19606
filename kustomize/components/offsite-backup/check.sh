#!/bin/sh
# Gives back the space of what copy.sh has dropped, and reads a seventh of the repository, another one each day of the
# week: within a week every byte has been read and compared with its hash.
#
# Environment: that of copy.sh; OFFSITE_CHECK, by default the seventh of today.
set -eu

restic unlock
restic prune
restic check --read-data-subset "${OFFSITE_CHECK:-$(date -u +%u)/7}"
