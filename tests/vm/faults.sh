#!/usr/bin/env bash
# In the VM (see boot): unplugs, signals, lost lines, killed processes, full disks, over a real USB stack. Whatever
# happens, it can be done again.
# shellcheck source=tests/vm/lib.sh
. "$(dirname "$(readlink -f "$0")")/lib.sh"

"$cfdfu" demo-image new.bin
"$cfdfu" demo-image old.bin --version 2026.04

export TERM=linux

echo "== unplugged"
start dfu
check "in the interface: the job goes on by itself when the drone is back" sh -c "
  rm -f ilog; (shows ilog 'Erase '; sleep 2; echo unplug >orders; sleep 3; echo dfu >orders) &
  keys 'Flashed and verified:' |
    timeout 150 script -qfec \"stty rows 24 cols 80; exec '$cfdfu' --log-file ilog new.bin\" /dev/null >screen 2>&1
  cat ilog; grep -q 'is gone' ilog && grep -aq 'Flashed and verified' screen"
check "and the image is whole" "$cfdfu" verify new.bin

echo "== signals"
check "SIGINT twice is one stop at the safe point" sh -c "
  rm -f log; '$cfdfu' flash old.bin --full --no-leave >log 2>&1 & shows log Erase; kill -INT \$!; sleep 0.2; kill -INT \$!; wait \$!
  status=\$?; cat log; [ \$status -eq 75 ] && grep -q 'no complete firmware now' log"
check "and the job done again completes it" "$cfdfu" flash old.bin --no-leave
check "SIGHUP lets the flash finish, and the next start tells" sh -c "
  rm -f log; setsid '$cfdfu' flash new.bin --full --no-leave >log 2>&1 & shows log Erase; kill -HUP \$!; wait \$!
  [ \$? -eq 0 ] && '$cfdfu' verify new.bin && sleep 1 | '$cfdfu' --plain | grep 'ended while nobody was looking: Flashed and verified'"
check "SIGKILL in mid-flash: a new start completes it" sh -c "
  rm -f log; '$cfdfu' flash old.bin --full --no-leave >log 2>&1 & shows log Erase; kill -KILL \$!; wait \$!
  '$cfdfu' flash old.bin --no-leave && '$cfdfu' verify old.bin"

echo "== two at once"
check "a second cfdfu shows the run that goes on, and how far it is" sh -c "
  rm -f log; '$cfdfu' flash new.bin --full --no-leave >log 2>&1 & shows log Erase
  sleep 2 | '$cfdfu' --plain >plain; wait; cat plain; grep -q 'is at work on port .*: [a-z]* [0-9]* %' plain"
check "on a screen, too" sh -c "
  rm -f log; '$cfdfu' flash old.bin --full --no-leave >log 2>&1 & shows log Erase
  (sleep 3; printf q) | script -qfec \"stty rows 24 cols 80; exec '$cfdfu'\" /dev/null >screen 2>&1; wait
  grep -aq 'is at work on port' screen"
check "a run whose line dropped, too" sh -c "
  rm -f ilog; keys never |
    timeout 120 script -qfec \"stty rows 24 cols 80; exec '$cfdfu' --log-file ilog new.bin\" /dev/null >screen 2>&1 &
  shows ilog 'Erase '; pkill -HUP -f 'ilog new.bin\$'; sleep 0.3; sleep 2 | timeout 60 '$cfdfu' --plain >plain; cat plain; wait
  grep -q 'is at work on port' plain && '$cfdfu' verify new.bin"
echo dfu >&3
seen 0483:df11
check "on the same device it says who holds it" sh -c "
  rm -f first; '$cfdfu' flash new.bin --full --no-leave >first 2>&1 & first=\$!; shows first Erase
  '$cfdfu' flash old.bin >log 2>&1; status=\$?; wait; cat log; [ \$status -eq 74 ] && grep -q \"process \$first\" log"
check "the first was not disturbed" "$cfdfu" verify new.bin

echo "== nowhere to write"
check "an unwritable home is no reason to stop" sh -c "
  XDG_STATE_HOME=/proc/nothing '$cfdfu' flash old.bin --no-leave >log 2>&1; status=\$?; cat log
  [ \$status -eq 0 ] && grep -q 'No copy is kept' log"
check "looking at a drone in passing leaves no trace" sh -c "
  sleep 3 | XDG_STATE_HOME=\$PWD/fresh '$cfdfu' --plain >plain; cat plain; find fresh 2>/dev/null
  grep -q 'boot ROM' plain && [ ! -e fresh ]"
mkdir -p full && mount -t tmpfs -o size=64k tmpfs full
check "a full disk neither" sh -c "
  XDG_STATE_HOME=\$PWD/full '$cfdfu' flash new.bin --no-leave --log-file full/log >log 2>&1; status=\$?; cat log
  [ \$status -eq 0 ] && grep -q 'No copy is kept' log"
check "a backup that does not fit leaves nothing" sh -c "
  '$cfdfu' backup full/all.bin >log 2>&1; status=\$?; cat log; [ \$status -eq 73 ] && ! ls full/all.bin*"
check "a backup is never put over another" sh -c "
  echo precious >mine.bin; '$cfdfu' backup mine.bin; [ \$? -eq 73 ] && grep -q precious mine.bin"
stop

echo "== the same from dfu-util, on the same chip: what the README says of it"
head -c 1024 new.bin >short.bin
start dfu
check "killed in mid-flash it leaves half a firmware that would be started" sh -c "
  rm -f log; dfu-util -a 0 -s 0x08004000 -D old.bin >log 2>&1 & until cat log 2>/dev/null | tr '\\r' '\\n' | grep -q 'Download.* [34][0-9]%'; do sleep 0.2; done; kill -KILL \$!; wait \$!; cat log
  '$cfdfu' backup half.bin >log 2>&1 && dd if=half.bin bs=16384 skip=1 status=none >rest.bin
  cmp -n 4096 rest.bin old.bin && ! cmp -n 243176 rest.bin old.bin"
check "killed in mid-flash ours leaves none: the first word is blank" sh -c "
  rm -f log; '$cfdfu' flash old.bin --full --no-leave >log 2>&1 & until grep -qs Download log; do sleep 0.1; done; kill -KILL \$!; wait \$!; cat log
  '$cfdfu' backup none.bin >log 2>&1 && dd if=none.bin bs=16384 skip=1 status=none >rest.bin; od -An -tx1 -N4 rest.bin
  printf '\\377\\377\\377\\377' | cmp -n 4 - rest.bin"
check "at 0x08000000 it overwrites the bootloader" sh -c "
  '$cfdfu' identify >before && dfu-util -a 0 -s 0x08000000 -D short.bin >log 2>&1; '$cfdfu' identify >after; cat before log after
  grep -q 'bootloader  the Bitcraze bootloader' before && grep -q 'bootloader  overwritten by a firmware' after"
stop

echo "== whoever may not"
start healthy 0483:5740
chmod 755 . && chmod 644 new.bin
check "no right to a running drone is told from no right to the boot ROM" sh -c "
  chmod 600 /dev/bus/usb/*/*
  setpriv --reuid 65534 --regid 65534 --clear-groups '$cfdfu' flash new.bin >log 2>&1; status=\$?; cat log
  [ \$status -eq 77 ] && grep -q 5740 log"
check "the doctor tells which of the two cannot be opened, and what helps" sh -c "
  setpriv --reuid 65534 --regid 65534 --clear-groups '$cfdfu' doctor >log 2>&1; status=\$?; cat log
  [ \$status -eq 69 ] && grep -q 'NO  opens.*0483:5740.*no permission' log && grep -q 'udev --install' log"
check "with the rights of the rules no root is needed" sh -c "
  (while sleep 0.05; do chmod 666 /dev/bus/usb/*/* 2>/dev/null; done) & rights=\$!
  setpriv --reuid 65534 --regid 65534 --clear-groups env HOME=/nonexistent XDG_STATE_HOME=/nonexistent \
    '$cfdfu' flash new.bin >log 2>&1; status=\$?; kill \$rights; cat log; [ \$status -eq 0 ]"
stop

echo "== the doctor"
start dfu
check "it names who has the drone open" sh -c "
  dfu-util -a 0 -s 0x08004000 -D old.bin >/dev/null 2>&1 & holder=\$!; sleep 2
  '$cfdfu' doctor >log; kill \$holder; wait; cat log; grep -q \"dfu-util (process \$holder) has it open\" log"
stop
mkdir -p /etc/udev/rules.d && rm -f /etc/udev/rules.d/70-cfdfu.rules
check "udev --install puts the rules in their place" sh -c "
  '$cfdfu' udev --install && '$cfdfu' udev | cmp - /etc/udev/rules.d/70-cfdfu.rules"
check "again it changes nothing" sh -c "'$cfdfu' udev --install | grep 'there already'"
echo '# mine' >/etc/udev/rules.d/70-cfdfu.rules
check "another's rules are left alone" sh -c "
  '$cfdfu' udev --install; [ \$? -eq 73 ] && grep -q mine /etc/udev/rules.d/70-cfdfu.rules"

summary
