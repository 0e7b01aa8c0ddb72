#!/bin/sh
# Flashes the drone at each of several computers over SSH, and reports how each ended:
#   examples/fleet.sh cf2-2026.08.bin lab1 lab2 lab3
# The other computers need cfdfu, where SSH finds it, and the udev rules (`cfdfu udev`). OPTIONS are cfdfu's, SSH is the
# command to use instead of ssh. The image goes through standard input: nothing is left on the other computers. Ends
# with 0 if all were flashed and seen running.
set -u
[ $# -ge 2 ] || { echo "usage: $0 IMAGE HOST..." >&2; exit 2; }
image=$1
shift
[ -f "$image" ] && [ -r "$image" ] || { echo "$0: cannot read $image" >&2; exit 66; }
failed=0
for host in "$@"; do
  output=$(${SSH:-ssh} "$host" "${CFDFU:-cfdfu} flash - --json ${OPTIONS:-} 2>/dev/null" <"$image")
  status=$?
  result=$(printf '%s\n' "$output" | tail -n 1)
  # An error's message has no quotes that would end it early: what does not match is printed whole.
  message=$(printf '%s\n' "$result" | sed -n 's/.*"message":"\([^"]*\)".*/\1/p')
  case $status:$result in
    0:*'"booted":true'* | 0:*'"booted":null'*) echo "$host: ok" && continue ;;
    0:*'"booted":false'*) echo "$host: flashed, but not seen running" ;;
    255:*) echo "$host: ssh cannot connect" ;;
    127:*) echo "$host: cfdfu is not on the PATH there" ;;
    *:*'"event":"result"'*) echo "$host: ${message:-$result}" ;;
    *) echo "$host: no result (exit status $status)" ;;
  esac
  failed=1
done
exit $failed
