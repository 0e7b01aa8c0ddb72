#!/bin/sh
# Flashes the drone at each of several computers over SSH, and says how each ended:
#   examples/fleet.sh cf2-2026.08.bin lab1 lab2 lab3
# The other computers need cfdfu, where SSH finds it, and the udev rules (`cfdfu udev`). OPTIONS are cfdfu's. Ends with 0 if
# all were flashed and seen starting.
set -u
[ $# -ge 2 ] || { echo "usage: $0 IMAGE HOST..." >&2; exit 2; }
image=$1
shift
failed=0
for host in "$@"; do
  result=$(${SSH:-ssh} "$host" "cat >/tmp/fleet.$$ && ${CFDFU:-cfdfu} flash /tmp/fleet.$$ --json ${OPTIONS:-} 2>/dev/null; \
    rm -f /tmp/fleet.$$" <"$image" | tail -n 1)
  case $result in
    *'"booted":false'*) echo "$host: flashed, but not seen starting" && failed=1 ;;
    *'"outcome":"flashed"'* | *'"outcome":"unchanged"'*) echo "$host: ok" ;;
    '') echo "$host: no answer: is cfdfu on its PATH?" && failed=1 ;;
    *) echo "$host: $result" && failed=1 ;;
  esac
done
exit $failed
