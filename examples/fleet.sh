#!/bin/sh
# Flashes the drone at each of several computers over SSH, and says how each ended:
#   examples/fleet.sh cf2-2026.08.bin lab1 lab2 lab3
# The other computers need cfdfu and the udev rules (`cfdfu udev`). OPTIONS are cfdfu's. Ends with 0 if all were flashed.
set -u
image=$1
shift
failed=0
for host in "$@"; do
  result=$(${SSH:-ssh} "$host" "cat >/tmp/fleet.$$ && ${CFDFU:-cfdfu} flash /tmp/fleet.$$ --json ${OPTIONS:-} 2>/dev/null; \
    rm -f /tmp/fleet.$$" <"$image" | tail -n 1)
  case $result in
    *'"outcome":"flashed"'* | *'"outcome":"unchanged"'*) echo "$host: ok" ;;
    *) echo "$host: $result" && failed=1 ;;
  esac
done
exit $failed
