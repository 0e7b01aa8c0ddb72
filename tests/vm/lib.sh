# What the jobs of the VM share: checks that count, and the simulated drone on the guest's own USB.
# The files of a job are made in its own folder in memory; the binary is copied there, too, since the jobs run it with
# the rights of others, who may have none to the folder of the checkout.
# shellcheck shell=bash
set -u
here=$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")
work=/dev/shm/$(basename "$0" .sh)
cfdfu=/dev/shm/bin/cfdfu
mkdir -p "$work" /dev/shm/bin && cp "$here/../../target/release/cfdfu" "$cfdfu" && cd "$work" || exit 1
passed=0
failed=0

# shows FILE WORDS: waits until the file has the words, at most a minute. On the path, for the `sh -c` of checks: how long a
# job takes to get somewhere depends on the machine, so nothing is timed.
cat >/dev/shm/bin/shows <<'END'
#!/bin/sh
for _ in $(seq 600); do
  grep -aqs -- "$2" "$1" && exit
  sleep 0.1
done
exit 1
END
# keys WORDS: the keys of a flash in the interface, each when the interface is there, as its --log-file ilog tells: the
# screen is drawn in pieces. Quits once the log has the words.
cat >/dev/shm/bin/keys <<'END'
#!/bin/sh
shows ilog 'Nothing was changed'
sleep 1
printf f
shows ilog 'sectors hold the image'
sleep 1
printf w
shows ilog "$1" || exit
sleep 1
printf q
sleep 1
printf q
END
chmod +x /dev/shm/bin/shows /dev/shm/bin/keys
PATH=$PATH:/dev/shm/bin

# check WORDS COMMAND…: the command must succeed.
check() {
  local words=$1
  shift
  if "$@" >out 2>&1; then
    passed=$((passed + 1))
    echo "ok    $words"
  else
    failed=$((failed + 1))
    echo "FAIL  $words"
    sed 's/^/      /' out
  fi
}

# ends STATUS COMMAND…: the command must end with this status.
ends() {
  local status=$1
  shift
  "$@"
  [ $? -eq "$status" ]
}

# says WORDS STATUS COMMAND…: it ends with this status and says this.
says() {
  local words=$1 status=$2
  shift 2
  "$@" >said 2>&1
  local ended=$?
  cat said
  [ $ended -eq "$status" ] && grep -qF -- "$words" said
}

# start SCENARIO: plug the simulated drone in; orders go to file descriptor 3.
start() {
  rm -f orders
  mkfifo orders
  exec 3<>orders
  "$cfdfu" simulate "$1" <&3 >sim.log 2>&1 &
  simulator=$!
  seen "${2:-0483:df11}"
}

stop() {
  echo quit >&3
  wait "$simulator"
  exec 3>&-
}

# seen ID: wait until lsusb shows it.
seen() {
  for _ in $(seq 100); do
    lsusb -d "$1" >/dev/null && return
    sleep 0.1
  done
  return 1
}

# seconds COMMAND…: its wall time, as "took".
# shellcheck disable=SC2034
seconds() {
  local from=$EPOCHREALTIME
  took=
  "$@" >out 2>&1 || { sed 's/^/      /' out; return 1; }
  took=$(awk -v a="$from" -v b="$EPOCHREALTIME" 'BEGIN { printf "%.2f", b - a }')
}

export XDG_STATE_HOME=$work/state

# The last words of a job: its status is that of all checks.
summary() {
  echo
  echo "$passed passed, $failed failed"
  [ "$failed" -eq 0 ]
}
