#!/bin/sh
# Flashes the drone on each of several computers over SSH, and prints one result per computer:
#   examples/fleet.sh cf2-2026.08.bin lab1 lab2 lab3
# Each computer needs cfdfu on the PATH for SSH commands, and the udev rules (`cfdfu udev`). The script sends the image
# through standard input, so it leaves no file behind. It exits with 0 if every command succeeded and no drone failed to
# start. Variables: OPTIONS (more options for cfdfu), SSH (a command to use instead of ssh), CFDFU (the program to run
# on each computer).
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
  # Error messages contain no quotes, so this pattern finds the whole message. If it finds none, the result is printed.
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
