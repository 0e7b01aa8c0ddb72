# Shared by the jobs in the VM: counts checks, and plugs the simulated drone into the guest's own USB.
# Each job works in its own folder in memory. The binary is copied to memory as well, because the jobs also run it as
# another user, who may have no access to the folder of the checkout.
# shellcheck shell=bash
set -u
here=$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")
work=/dev/shm/$(basename "$0" .sh)
cfdfu=/dev/shm/bin/cfdfu
mkdir -p "$work" /dev/shm/bin && cp "$here/../../target/release/cfdfu" "$cfdfu" && cd "$work" || exit 1
passed=0
failed=0

# shows FILE TEXT: waits up to a minute for the text to appear in the file. The jobs wait for text instead of a fixed
# time because the speed of the machine varies. This is a program on the PATH so that checks can call it in `sh -c`.
cat >/dev/shm/bin/shows <<'END'
#!/bin/sh
for _ in $(seq 600); do
  grep -aqs -- "$2" "$1" && exit
  sleep 0.1
done
exit 1
END
# keys TEXT: prints the keys for a flash in the interface, and the key to quit once the log contains the text. Each key
# waits for a line in ilog, the --log-file of the interface, because the screen is drawn in pieces.
cat >/dev/shm/bin/keys <<'END'
#!/bin/sh
shows ilog 'Nothing was changed'
sleep 1
printf f
shows ilog 'sectors already hold the image'
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

# check NAME COMMAND…: counts and prints one check. It passes if the command succeeds.
check() {
  local name=$1
  shift
  if "$@" >out 2>&1; then
    passed=$((passed + 1))
    echo "ok    $name"
  else
    failed=$((failed + 1))
    echo "FAIL  $name"
    sed 's/^/      /' out
  fi
}

# ends STATUS COMMAND…: succeeds if the command exits with this status.
ends() {
  local status=$1
  shift
  "$@"
  [ $? -eq "$status" ]
}

# says TEXT STATUS COMMAND…: succeeds if the command exits with this status and prints the text. The output is also in
# the file `said`.
says() {
  local text=$1 status=$2
  shift 2
  "$@" >said 2>&1
  local actual=$?
  cat said
  [ $actual -eq "$status" ] && grep -qF -- "$text" said
}

# start SCENARIO [ID]: plugs in the simulated drone and waits until lsusb lists ID. Commands such as `unplug` go to file
# descriptor 3, or to the pipe `orders`.
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

# seen ID: waits up to 10 seconds until lsusb lists the device.
seen() {
  for _ in $(seq 100); do
    lsusb -d "$1" >/dev/null && return
    sleep 0.1
  done
  return 1
}

# seconds COMMAND…: runs the command and sets `took` to its wall time.
# shellcheck disable=SC2034
seconds() {
  local from=$EPOCHREALTIME
  took=
  "$@" >out 2>&1 || { sed 's/^/      /' out; return 1; }
  took=$(awk -v a="$from" -v b="$EPOCHREALTIME" 'BEGIN { printf "%.2f", b - a }')
}

export XDG_STATE_HOME=$work/state

# summary: prints the totals, and fails if a check failed. Every job calls it last.
summary() {
  echo
  echo "$passed passed, $failed failed"
  [ "$failed" -eq 0 ]
}
