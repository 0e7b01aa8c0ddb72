#!/usr/bin/env bash
# In the VM (see boot): what attacks on the release binary have found, as far as only a kernel's USB stack can show it; the
# rest is in tests/it/defects.rs. Each check names its defect.
# shellcheck source=tests/vm/lib.sh
. "$(dirname "$(readlink -f "$0")")/lib.sh"

"$cfdfu" demo-image new.bin
"$cfdfu" demo-image old.bin --version 2026.04
"$cfdfu" demo-image bolt.bin --kind bolt
"$cfdfu" demo-image radio.bin --version 2025.12

# as_nobody COMMAND…: with the rights to the devices only.
as_nobody() {
  setpriv --reuid 65534 --regid 65534 --clear-groups env HOME=/nonexistent XDG_STATE_HOME=/nonexistent "$@"
}

# node ID: its device file.
node() { lsusb -d "$1" | sed -n '1s|Bus \(...\) Device \(...\):.*|/dev/bus/usb/\1/\2|p'; }

# unplugged_at WORDS COMMAND…: the cable comes off once the command has said this.
unplugged_at() {
  local words=$1 status
  shift
  rm -f cut
  (shows cut "$words" && echo unplug >orders) &
  "$@" >cut 2>&1
  status=$?
  wait $!
  cat cut
  return $status
}

# back: the drone is plugged in again, in DFU mode.
back() {
  echo dfu >&3
  sleep 1
  seen 0483:df11
}

echo "== undo"
start dfu
check "a flash over 2025.02" "$cfdfu" flash old.bin --no-leave
check "H2: an undo that is cut ends as an interruption" ends 74 unplugged_at "Download" "$cfdfu" undo
back
check "H2: the next undo carries it on" says "Flashed and verified" 0 "$cfdfu" undo
check "H2: so the drone runs what it ran before" says "2025.02" 0 "$cfdfu" identify
check "and undo of that brings the new one again" says "firmware 2026.04" 0 "$cfdfu" undo
(shows said "Download" && echo unplug >orders && sleep 3 && echo dfu >orders) &
check "H2: with --wait an undo carries on by itself" says "Flashed and verified" 0 "$cfdfu" undo --wait 60
wait $!
check "a forced image of another board" "$cfdfu" flash bolt.bin --allow-mismatch --no-leave
check "over which the right one is flashed" "$cfdfu" flash new.bin --no-leave
check "M6: its undo is refused" says "--allow-mismatch" 65 "$cfdfu" undo
check "M6: and done by who insists" says "Flashed and verified" 0 "$cfdfu" undo --allow-mismatch --no-enter
check "without a copy undo says why not" sh -c "
  '$cfdfu' flash new.bin --no-leave --no-undo && '$cfdfu' undo >log 2>&1; status=\$?; cat log
  [ \$status -eq 66 ] && grep -q 'kept no copy' log"
check "L5: without a home that is said before the flash" sh -c "
  chmod 666 $(node 0483:df11)
  setpriv --reuid 65534 --regid 65534 --clear-groups env -i '$cfdfu' flash old.bin --no-leave >log 2>&1; status=\$?; cat log
  [ \$status -eq 0 ] && grep -q 'No copy is kept' log"
echo "== an undo in the interface, of a flash from the command line"
"$cfdfu" flash new.bin --no-leave >/dev/null
rm -f state/cfdfu/logs/*
check "a flash" says "Flashed and verified" 0 "$cfdfu" flash radio.bin --no-leave
check "which leaves its log" sh -c 'cat state/cfdfu/logs/*-run.log && grep -q "Flashed and verified" state/cfdfu/logs/*-run.log'
check "is undone in the interface" says "it runs 2026.08" 0 sh -c "printf 'f\nu\nw\nq\n' | '$cfdfu' --plain radio.bin"
stop
start dfu
echo "== another program flashed it since"
check "a flash" "$cfdfu" flash new.bin --no-leave
dfu-util -a 0 -s 0x08004000 -D radio.bin >/dev/null 2>&1
check "an undo refuses to overwrite that" says "changed by another program" 65 "$cfdfu" undo
check "nothing of it is lost" says "2025.12" 0 "$cfdfu" identify
check "and who insists goes back" says "Flashed and verified" 0 "$cfdfu" undo --allow-mismatch
stop

echo "== nobody is there any more (L8)"
start dfu
check "a drone that is lost after the terminal hung up is not waited for" bash -c "
  rm -f log; setsid '$cfdfu' flash new.bin --full --no-leave --wait 60 >log 2>&1 & shows log Erase; kill -HUP \$!; sleep 0.5
  echo unplug >orders; began=\$SECONDS; wait \$!; status=\$?; cat log; [ \$status -eq 74 ] && [ \$((SECONDS - began)) -lt 20 ]"
back
check "and the same command again completes it" "$cfdfu" flash new.bin --no-leave
stop

echo "== rules for one number only (M1)"
start healthy 0483:5740
sleep 1
chmod 666 "$(node 0483:5740)"
check "without udev: what is left behind is said" says "it has left its firmware and does not run now" 77 as_nobody "$cfdfu" flash new.bin
echo unplug >&3
sleep 1
echo plug >&3
sleep 1
seen 0483:5740
chmod 666 "$(node 0483:5740)"
mkdir -p /run/udev /etc/udev/rules.d && touch /run/udev/control
echo 'SUBSYSTEM=="usb", ATTRS{idVendor}=="0483", ATTRS{idProduct}=="5740", MODE="0664", GROUP="plugdev"' \
  >/etc/udev/rules.d/99-bitcraze.rules
# Hides the rules of Debian's dfu-util, which are for whoever sits at the computer.
touch /etc/udev/rules.d/60-dfu-util.rules
check "with rules for the running drone only it is not asked" says "no permission to open 0483:df11" 77 as_nobody "$cfdfu" flash new.bin
check "and still runs" seen 0483:5740
check "the doctor says the same" says "df11" 69 as_nobody "$cfdfu" doctor
rm -rf /run/udev/control /etc/udev/rules.d/99-bitcraze.rules /etc/udev/rules.d/60-dfu-util.rules
stop

echo "== an interface beside a flash that waits (M2)"
for round in 1 2 3; do
  (sleep 14 | "$cfdfu" --plain >plain.$round 2>&1) &
  "$cfdfu" flash new.bin --full --wait 30 --no-leave >waits 2>&1 &
  waiting=$!
  sleep 2
  start dfu
  wait $waiting
  check "round $round: the flash gets the drone" sh -c "cat waits plain.$round; grep -q 'Flashed and verified' waits"
  stop
  wait
done

echo "== a board that looks like a running Crazyflie (M3)"
start bystander
sleep 1
seen 0483:5740
chmod 600 "$(node 0483:5740)"
chmod 666 "$(node 0483:df11)"
check "who may not open it flashes the drone beside it" says "Flashed and verified" 0 as_nobody "$cfdfu" flash new.bin --no-leave
check "and sees one drone" sh -c "
  setpriv --reuid 65534 --regid 65534 --clear-groups env HOME=/nonexistent '$cfdfu' list >log; cat log; [ \$(wc -l <log) -eq 1 ]"
check "root does, too" says "Unchanged" 0 "$cfdfu" flash new.bin --no-leave --no-undo
stop
summary
