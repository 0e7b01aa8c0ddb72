#!/usr/bin/env bash
# Runs in the VM (see boot). Checks faults over a real USB stack: an unplugged drone, signals, a terminal that hangs up,
# killed processes and full disks. After an interrupted flash, running the same command again must complete it. Also
# checks a flash without permission, the doctor, and `udev --install`.
# shellcheck source=tests/vm/lib.sh
. "$(dirname "$(readlink -f "$0")")/lib.sh"

"$cfdfu" demo-image new.bin
"$cfdfu" demo-image old.bin --version 2026.04

export TERM=linux

echo "== unplugged"
start dfu
check "in the interface, a flash resumes automatically when the drone is plugged in again" sh -c "
  rm -f ilog; (wait_for_text ilog 'Erase '; sleep 2; echo unplug >orders; wait_for_text ilog 'device disconnected'; sleep 1; echo dfu >orders) &
  keys 'Flashed and verified:' |
    timeout 150 script -qfec \"stty rows 24 cols 80; exec '$cfdfu' --log-file ilog new.bin\" /dev/null >screen 2>&1
  cat ilog; grep -q 'device disconnected' ilog && grep -aq 'Flashed and verified' screen"
check "the drone contains the complete image" "$cfdfu" verify new.bin

echo "== signals"
check "a second SIGINT has no further effect: the flash stops at a safe point" sh -c "
  rm -f log; '$cfdfu' flash old.bin --full --no-leave >log 2>&1 & wait_for_text log Erase; kill -INT \$!; sleep 0.2; kill -INT \$!; wait \$!
  status=\$?; cat log; [ \$status -eq 75 ] && grep -q 'no working firmware right now' log"
check "the same command completes the flash" "$cfdfu" flash old.bin --no-leave
check "SIGHUP lets the flash finish, and the next start reports the result" sh -c "
  rm -f log; setsid '$cfdfu' flash new.bin --full --no-leave >log 2>&1 & wait_for_text log Erase; kill -HUP \$!; wait \$!
  [ \$? -eq 0 ] && '$cfdfu' verify new.bin && plain 'ended while you were away: Flashed and verified'"
check "after SIGKILL while flashing, the same command completes the flash" sh -c "
  rm -f log; '$cfdfu' flash old.bin --full --no-leave >log 2>&1 & wait_for_text log Erase; kill -KILL \$!; wait \$!
  '$cfdfu' flash old.bin --no-leave && '$cfdfu' verify old.bin"

echo "== two instances at once"
check "a second cfdfu shows the running flash and its progress" sh -c "
  rm -f log; '$cfdfu' flash new.bin --full --no-leave >log 2>&1 & wait_for_text log Erase
  plain 'is using port .*: [a-z]*, [0-9]* %'; status=\$?; wait; [ \$status -eq 0 ]"
check "the full-screen interface also shows the running flash" sh -c "
  rm -f log; '$cfdfu' flash old.bin --full --no-leave >log 2>&1 & wait_for_text log Erase
  rm -f screen; (wait_for_text screen 'is using port'; printf q) | script -qfec \"stty rows 24 cols 80; exec '$cfdfu'\" /dev/null >screen 2>&1; wait
  grep -aq 'is using port' screen"
check "a second cfdfu also shows a flash that outlived its terminal" sh -c "
  rm -f ilog; keys never |
    timeout 120 script -qfec \"stty rows 24 cols 80; exec '$cfdfu' --log-file ilog new.bin\" /dev/null >screen 2>&1 & script=\$!
  wait_for_text ilog 'Erase '; pkill -HUP -f 'ilog new.bin\$'; plain 'is using port'; status=\$?; wait \$script
  [ \$status -eq 0 ] && '$cfdfu' verify new.bin"
echo dfu >&3
wait_for_device 0483:df11
check "flashing the same device fails and names the process that uses it" sh -c "
  rm -f first; '$cfdfu' flash new.bin --full --no-leave >first 2>&1 & first=\$!; wait_for_text first Erase
  '$cfdfu' flash old.bin >log 2>&1; status=\$?; wait; cat log; [ \$status -eq 74 ] && grep -q \"(pid \$first)\" log"
check "the first flash completed correctly" "$cfdfu" verify new.bin

echo "== files that cannot be written"
check "an unwritable state directory does not prevent a flash" sh -c "
  XDG_STATE_HOME=/proc/nothing '$cfdfu' flash old.bin --no-leave >log 2>&1; status=\$?; cat log
  [ \$status -eq 0 ] && grep -q 'The previous firmware was not saved' log"
check "background identify writes no files" sh -c "
  XDG_STATE_HOME=\$PWD/fresh plain 'boot ROM'; status=\$?; find fresh 2>/dev/null; [ \$status -eq 0 ] && [ ! -e fresh ]"
mkdir -p full && mount -t tmpfs -o size=64k tmpfs full
check "a full disk does not prevent a flash" sh -c "
  XDG_STATE_HOME=\$PWD/full '$cfdfu' flash new.bin --no-leave --log-file full/log >log 2>&1; status=\$?; cat log
  [ \$status -eq 0 ] && grep -q 'The previous firmware was not saved' log"
check "after a backup that does not fit on the disk, no file remains" sh -c "
  '$cfdfu' backup full/all.bin >log 2>&1; status=\$?; cat log; [ \$status -eq 73 ] && ! ls full/all.bin*"
check "without --force, a backup does not overwrite an existing file" sh -c "
  echo precious >mine.bin; '$cfdfu' backup mine.bin; [ \$? -eq 73 ] && grep -q precious mine.bin"
stop

echo "== the documentation's claims about dfu-util, on the same chip"
head -c 1024 new.bin >short.bin
start dfu
check "after dfu-util is killed while flashing, the bootloader would start incomplete firmware" sh -c "
  rm -f log; dfu-util -a 0 -s 0x08004000 -D old.bin >log 2>&1 & wait_for_text log 'Download[^%]* [34][0-9]%'; kill -KILL \$!; wait \$!; cat log
  '$cfdfu' backup half.bin >log 2>&1 && dd if=half.bin bs=16384 skip=1 status=none >rest.bin
  cmp -n 4096 rest.bin old.bin && ! cmp -n 243176 rest.bin old.bin"
check "after cfdfu is killed while flashing, the first word is blank, so the bootloader would not start the firmware" sh -c "
  rm -f log; '$cfdfu' flash old.bin --full --no-leave >log 2>&1 & wait_for_text log Download; kill -KILL \$!; wait \$!; cat log
  '$cfdfu' backup none.bin >log 2>&1 && dd if=none.bin bs=16384 skip=1 status=none >rest.bin; od -An -tx1 -N4 rest.bin
  printf '\\377\\377\\377\\377' | cmp -n 4 - rest.bin"
check "dfu-util at 0x08000000 overwrites the bootloader" sh -c "
  '$cfdfu' identify >before && dfu-util -a 0 -s 0x08000000 -D short.bin >log 2>&1; '$cfdfu' identify >after; cat before log after
  grep -q 'bootloader  the Bitcraze bootloader' before && grep -q 'bootloader  overwritten by firmware' after"
stop

echo "== without permission"
start healthy 0483:5740
chmod 755 . && chmod 644 new.bin
check "flash reports which of the two USB IDs it may not open" sh -c "
  chmod 600 /dev/bus/usb/*/*
  setpriv --reuid 65534 --regid 65534 --clear-groups '$cfdfu' flash new.bin >log 2>&1; status=\$?; cat log
  [ \$status -eq 77 ] && grep -q 5740 log"
mkdir -p /etc/udev/rules.d
check "doctor reports which of the two USB IDs it may not open, and the remedy" sh -c "
  setpriv --reuid 65534 --regid 65534 --clear-groups '$cfdfu' doctor >log 2>&1; status=\$?; cat log
  [ \$status -eq 69 ] && grep -q 'NO  opens.*0483:5740.*permission denied' log && grep -q 'udev --install' log"
check "with the permissions that the udev rules grant, root is not needed" sh -c "
  (while sleep 0.05; do chmod 666 /dev/bus/usb/*/* 2>/dev/null; done) & rights=\$!
  setpriv --reuid 65534 --regid 65534 --clear-groups env HOME=/nonexistent XDG_STATE_HOME=/nonexistent \
    '$cfdfu' flash new.bin >log 2>&1; status=\$?; kill \$rights; cat log; [ \$status -eq 0 ]"
stop

echo "== the doctor"
start dfu
check "doctor names the process that has the drone open" sh -c "
  rm -f theirs; dfu-util -a 0 -s 0x08004000 -D old.bin >theirs 2>&1 & holder=\$!; wait_for_text theirs Erase
  '$cfdfu' doctor >log; kill \$holder; wait; cat log; grep -q \"is using the drone: dfu-util (process \$holder)\" log"
stop
rm -f /etc/udev/rules.d/70-cfdfu.rules
check "udev --install installs the rules" sh -c "
  '$cfdfu' udev --install && '$cfdfu' udev | cmp - /etc/udev/rules.d/70-cfdfu.rules"
check "a second udev --install changes nothing" sh -c "'$cfdfu' udev --install | grep 'already installed'"
echo '# mine' >/etc/udev/rules.d/70-cfdfu.rules
check "udev --install does not overwrite a changed rules file" sh -c "
  '$cfdfu' udev --install; [ \$? -eq 73 ] && grep -q mine /etc/udev/rules.d/70-cfdfu.rules"

summary
