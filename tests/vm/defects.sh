#!/usr/bin/env bash
# Runs in the VM (see boot). Regression tests for defects that were found by attacking the release binary and that only
# a kernel's USB stack can reproduce. tests/it/defects.rs contains the tests for the other defects, and explains the
# defect numbers, such as H2.
# shellcheck source=tests/vm/lib.sh
. "$(dirname "$(readlink -f "$0")")/lib.sh"

"$cfdfu" demo-image new.bin
"$cfdfu" demo-image old.bin --version 2026.04
"$cfdfu" demo-image bolt.bin --kind bolt
"$cfdfu" demo-image radio.bin --version 2025.12

# as_nobody COMMAND…: runs the command as a user who has no home folder and can open only world-accessible devices.
as_nobody() {
  setpriv --reuid 65534 --regid 65534 --clear-groups env HOME=/nonexistent XDG_STATE_HOME=/nonexistent "$@"
}

# node ID: prints the device file of a USB device.
node() { lsusb -d "$1" | sed -n '1s|Bus \(...\) Device \(...\):.*|/dev/bus/usb/\1/\2|p'; }

# unplug_after TEXT COMMAND…: runs the command, and unplugs the drone once the command has printed the text.
unplug_after() {
  local text=$1 status
  shift
  rm -f cut
  (wait_for_text cut "$text" && echo unplug >orders) &
  "$@" >cut 2>&1
  status=$?
  wait $!
  cat cut
  return $status
}

# plug_back_in: plugs the drone in again, in DFU mode.
plug_back_in() {
  wait_for_count 0 0483:df11
  echo dfu >&3
  wait_for_device 0483:df11
}

echo "== undo"
start dfu
check "2026.04 is flashed over 2025.02" "$cfdfu" flash old.bin --no-leave
check "H2: undo exits with status 74 when the drone is unplugged" exits 74 unplug_after "Download" "$cfdfu" undo
plug_back_in
check "H2: the next undo resumes the interrupted one" prints "Flashed and verified" 0 "$cfdfu" undo
check "H2: the drone contains its previous firmware again" prints "2025.02" 0 "$cfdfu" identify
check "undo restores the new firmware" prints "firmware 2026.04" 0 "$cfdfu" undo
rm -f printed
(wait_for_text printed Download; echo unplug >orders; wait_for_text printed 'device disconnected'; sleep 1; echo dfu >orders) &
check "H2: with --wait, an undo resumes automatically" prints "Flashed and verified" 0 "$cfdfu" undo --wait 60
wait $!
check "H2: the drone was disconnected during that undo" grep -q 'device disconnected' printed
check "an image for another board is flashed with --allow-mismatch" "$cfdfu" flash bolt.bin --allow-mismatch --no-leave
check "the right image is flashed over the wrong one" "$cfdfu" flash new.bin --no-leave
check "M6: undo refuses to restore the image for another board" prints "--allow-mismatch" 65 "$cfdfu" undo
check "M6: undo --allow-mismatch restores that image" prints "Flashed and verified" 0 "$cfdfu" undo --allow-mismatch --no-enter
check "undo reports that the last flash did not save the previous firmware" sh -c "
  '$cfdfu' flash new.bin --no-leave --no-undo && '$cfdfu' undo >log 2>&1; status=\$?; cat log
  [ \$status -eq 66 ] && grep -q 'did not save the previous firmware' log"
check "L5: without a home folder, flash reports that it keeps no copy" sh -c "
  chmod 666 $(node 0483:df11)
  setpriv --reuid 65534 --regid 65534 --clear-groups env -i '$cfdfu' flash old.bin --no-leave >log 2>&1; status=\$?; cat log
  [ \$status -eq 0 ] && grep -q 'The previous firmware was not saved' log"
echo "== undo in the interface after a flash from the command line"
"$cfdfu" flash new.bin --no-leave >/dev/null
rm -f state/cfdfu/logs/*
check "2025.12 is flashed from the command line" prints "Flashed and verified" 0 "$cfdfu" flash radio.bin --no-leave
check "the flash writes a log file" sh -c 'cat state/cfdfu/logs/*-run.log && grep -q "Flashed and verified" state/cfdfu/logs/*-run.log'
check "the interface undoes the flash" prints "is running 2026.08" 0 sh -c "printf 'f\nu\nw\nq\n' | '$cfdfu' --plain radio.bin"
stop
start dfu
echo "== undo after a flash by another program"
check "2026.08 is flashed by cfdfu" "$cfdfu" flash new.bin --no-leave
dfu-util -a 0 -s 0x08004000 -D radio.bin >/dev/null 2>&1
check "undo refuses to overwrite the firmware from the other program" prints "changed by another program" 65 "$cfdfu" undo
check "the firmware from the other program is intact" prints "2025.12" 0 "$cfdfu" identify
check "undo --allow-mismatch overwrites that firmware" prints "Flashed and verified" 0 "$cfdfu" undo --allow-mismatch
stop

echo "== a terminal that hangs up (L8)"
start dfu
check "cfdfu does not wait for a drone that disconnects after the terminal has hung up" bash -c "
  rm -f log; setsid '$cfdfu' flash new.bin --full --no-leave --wait 60 >log 2>&1 & wait_for_text log Erase; kill -HUP \$!; sleep 0.5
  echo unplug >orders; began=\$SECONDS; wait \$!; status=\$?; cat log; [ \$status -eq 74 ] && [ \$((SECONDS - began)) -lt 20 ]"
plug_back_in
check "the same command completes the flash" "$cfdfu" flash new.bin --no-leave
stop

echo "== udev rules for one USB ID only (M1)"
start healthy 0483:5740
chmod 666 "$(node 0483:5740)"
check "without udev, flash reports that the drone's firmware is no longer running" prints "its firmware is no longer running" 77 as_nobody "$cfdfu" flash new.bin
echo unplug >&3
wait_for_count 0 0483:df11
echo plug >&3
wait_for_device 0483:5740
chmod 666 "$(node 0483:5740)"
mkdir -p /run/udev /etc/udev/rules.d && touch /run/udev/control
echo 'SUBSYSTEM=="usb", ATTRS{idVendor}=="0483", ATTRS{idProduct}=="5740", MODE="0664", GROUP="plugdev"' \
  >/etc/udev/rules.d/99-bitcraze.rules
# Hide the rules of Debian's dfu-util package, which grant access to the locally logged-in user.
touch /etc/udev/rules.d/60-dfu-util.rules
check "with rules for the running drone only, flash does not switch it to DFU mode" prints "no permission to open 0483:df11" 77 as_nobody "$cfdfu" flash new.bin
check "the drone is still running" wait_for_device 0483:5740
check "doctor also reports the missing rule" prints "df11" 69 as_nobody "$cfdfu" doctor
rm -rf /run/udev/control /etc/udev/rules.d/99-bitcraze.rules /etc/udev/rules.d/60-dfu-util.rules
stop

echo "== the interface and a waiting flash at the same time (M2)"
for round in 1 2 3; do
  rm -f waits
  (wait_for_text waits 'Flashed and verified' | "$cfdfu" --plain >plain.$round 2>&1) &
  "$cfdfu" flash new.bin --full --wait 60 --no-leave >waits 2>&1 &
  waiting=$!
  wait_for_text waits 'Waiting for a Crazyflie'
  start dfu
  wait $waiting
  check "round $round: the waiting flash opens the drone and completes" sh -c "cat waits plain.$round; grep -q 'Flashed and verified' waits"
  stop
  wait
done

echo "== a board that looks like a running Crazyflie (M3)"
start bystander
wait_for_device 0483:5740
chmod 600 "$(node 0483:5740)"
chmod 666 "$(node 0483:df11)"
check "without permission to open that board, flash uses the drone next to it" prints "Flashed and verified" 0 as_nobody "$cfdfu" flash new.bin --no-leave
check "list shows one drone" sh -c "
  setpriv --reuid 65534 --regid 65534 --clear-groups env HOME=/nonexistent '$cfdfu' list >log; cat log; [ \$(wc -l <log) -eq 1 ]"
check "as root, flash uses the same drone" prints "Unchanged" 0 "$cfdfu" flash new.bin --no-leave --no-undo
stop
summary
