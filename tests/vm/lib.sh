# Functions that the jobs in the VM share. They count checks, and plug the simulated drone into the guest's own USB.
# Each job works in its own folder in memory. The binary is also copied to memory, because the jobs also run the binary
# as a different user, who may have no access to the folder of the checkout.
# shellcheck shell=bash
set -u
here=$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")
work=/dev/shm/$(basename "$0" .sh)
cfdfu=/dev/shm/bin/cfdfu
# This pipe is always empty: a read from the pipe with a time limit is a pause that starts no program.
[ -p /dev/shm/never ] || mkfifo /dev/shm/never
# Use the static program of packaging/wheel or the program of `cargo build --release`, whichever is newer.
newest=$(cd "$here/../../target" && ls -t {x86_64-unknown-linux-musl/,}release/cfdfu 2>/dev/null | head -1)
mkdir -p "$work" /dev/shm/bin && cp "$here/../../target/$newest" "$cfdfu" && cd "$work" || exit 1
passed=0
failed=0

# wait_for_text FILE TEXT: waits up to two minutes for the text, an extended regular expression, to appear in the file.
# The jobs wait for text instead of a fixed time because the speed of the machine varies. `wait_for_text` is a program
# on the PATH so that checks can call it in `sh -c`. While it waits, `wait_for_text` starts no programs: in emulation,
# such programs would use most of a core.
cat >/dev/shm/bin/wait_for_text <<'END'
#!/bin/bash
exec {never}<>/dev/shm/never
while [ $SECONDS -lt 120 ]; do
  text=
  [ -e "$1" ] && read -rd '' text <"$1"
  [[ $text =~ $2 ]] && exit
  read -rt 0.1 -u $never
done
exit 1
END
# keys TEXT: prints the keys for a flash in the interface, then q twice once the log contains the text. Every key but
# the last waits for a line in ilog, the --log-file of the interface, because the screen is drawn in pieces.
cat >/dev/shm/bin/keys <<'END'
#!/bin/sh
wait_for_text ilog 'Nothing was changed'
sleep 1
printf f
wait_for_text ilog 'sectors already hold the image'
sleep 1
printf w
wait_for_text ilog "$1" || exit
sleep 1
printf q
sleep 1
printf q
END
# plain TEXT ARGUMENT…: runs the plain interface until it prints the text. Also writes the output to the file `plain`.
cat >/dev/shm/bin/plain <<'END'
#!/bin/sh
rm -f plain
text=$1
shift
wait_for_text plain "$text" | cfdfu --plain "$@" >plain 2>&1
cat plain
grep -q -- "$text" plain
END
chmod +x /dev/shm/bin/*
PATH=$PATH:/dev/shm/bin

# check NAME COMMAND…: counts and prints one check. The check passes if the command succeeds.
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

# exits STATUS COMMAND…: succeeds if the command exits with this status.
exits() {
  local status=$1
  shift
  "$@"
  [ $? -eq "$status" ]
}

# prints TEXT STATUS COMMAND…: succeeds if the command exits with this status and prints the text. Also writes the
# output to the file `printed`.
prints() {
  local text=$1 status=$2
  shift 2
  "$@" >printed 2>&1
  local actual=$?
  cat printed
  [ $actual -eq "$status" ] && grep -qF -- "$text" printed
}

# after TEXT ORDER…: in the background, waits until the command of the next `prints` has printed the text, and sends the
# orders to the simulated drone, a second apart. `wait $!` waits for the last order.
after() {
  local text=$1
  shift
  rm -f printed
  (wait_for_text printed "$text" && for order in "$@"; do sleep 1 && echo "$order" >orders; done) &
}

# start SCENARIO [ID]: waits until the devices with this ID are gone, plugs in the simulated drone, and waits for a
# device with this ID. Orders such as `unplug` go to file descriptor 3, or to the pipe `orders`.
start() {
  devices_are "${2:-0483:df11}" -eq 0
  rm -f orders
  mkfifo orders
  exec 3<>orders
  "$cfdfu" simulate "$1" <&3 >sim.log 2>&1 &
  simulator=$!
  wait_for_device "${2:-0483:df11}"
}

stop() {
  echo quit >&3
  wait "$simulator"
  exec 3>&-
}

# devices ID: sets `found` to the number of USB devices with this ID that programs can use, which
# are configured and have a device file. Like `wait_for_text`, this function starts no programs.
devices() {
  local device vendor product bus number config
  found=0
  for device in /sys/bus/usb/devices/*; do
    config=
    # A device can disappear at any time. The last file is empty until the kernel has configured the device.
    { read -r vendor <"$device/idVendor" && read -r product <"$device/idProduct" && read -r bus <"$device/busnum" &&
      read -r number <"$device/devnum" && read -r config <"$device/bConfigurationValue"; } 2>/dev/null
    [ -n "$config" ] && [ "$vendor:$product" = "$1" ] || continue
    printf -v number '/dev/bus/usb/%03d/%03d' "$bus" "$number"
    [ -e "$number" ] && found=$((found + 1))
  done
}

# devices_are ID TEST N: waits up to a minute until the number of devices with this ID passes the test, such as `-eq 8`.
devices_are() {
  local until=$((SECONDS + 60))
  while devices "$1" && ! [ $found "$2" "$3" ]; do
    [ $SECONDS -lt $until ] || return 1
    sleep 0.1
  done
  sleep 0.3
}

# wait_for_device ID: waits for a device with this ID.
wait_for_device() { devices_are "$1" -gt 0; }

# wait_for_count N ID: waits until there are N devices with this ID.
wait_for_count() { devices_are "$2" -eq "$1"; }

# seconds COMMAND…: runs the command and sets `took` to the wall time in seconds, or to nothing if the command fails.
# Also writes the output to the file `out`.
# shellcheck disable=SC2034
seconds() {
  local from=$EPOCHREALTIME
  took=
  "$@" >out 2>&1 || { sed 's/^/      /' out; return 1; }
  took=$(awk -v a="$from" -v b="$EPOCHREALTIME" 'BEGIN { printf "%.2f", b - a }')
}

export XDG_STATE_HOME=$work/state

# summary: prints the totals, and fails if a check failed. Every job with checks calls `summary` last.
summary() {
  echo
  echo "$passed passed, $failed failed"
  [ "$failed" -eq 0 ]
}
