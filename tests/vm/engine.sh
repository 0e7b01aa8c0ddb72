#!/usr/bin/env bash
# In the VM (see boot): the simulated drone on a real USB stack, where lsusb, the real dfu-util and cfdfu
# meet it. Ends with "N passed, N failed" and a table of both tools' times on the same chip.
# shellcheck source=tests/vm/lib.sh
. "$(dirname "$(readlink -f "$0")")/lib.sh"

size=243176
"$cfdfu" demo-image new.bin --size $size
"$cfdfu" demo-image old.bin --size $size --version 2026.04
"$cfdfu" demo-image loader.bin --kind loader

start healthy 0483:5740
check "a running Crazyflie is seen by lsusb" lsusb -d 0483:5740
check "list names it" sh -c "'$cfdfu' list | grep -q 'running  Crazyflie 2.x  51004F000551343036333233'"
check "flash enters DFU mode, flashes, verifies, sees it run again" sh -c "'$cfdfu' flash new.bin >log 2>&1; cat log; grep -q '^Flashed and verified' log && grep -q 'The Crazyflie is running' log"
check "and keeps a copy of what was there" sh -c "'$cfdfu' inspect state/cfdfu/undo/*/*.bin | grep 'firmware 2025.02'"
check "it is back as a Crazyflie" lsusb -d 0483:5740
check "verify agrees and starts it again" "$cfdfu" verify new.bin
check "verify of another image does not" ends 1 "$cfdfu" verify old.bin
check "a second flash changes nothing" sh -c "'$cfdfu' flash new.bin --json | grep '\"outcome\":\"unchanged\"'"
check "a drone that is pulled out while it is flashed is named so" sh -c "(sleep 3; echo unplug >orders) & '$cfdfu' flash old.bin --full >log 2>&1; status=\$?; cat log; [ \$status -eq 74 ] && grep -q 'the device is gone' log"
check "what is not plugged in is not found" ends 69 "$cfdfu" flash old.bin
echo dfu >&3
check "entered by hand it waits in DFU mode" seen 0483:df11
check "the job done again completes it" "$cfdfu" flash old.bin --no-leave
check "and it is whole" "$cfdfu" verify old.bin
stop

start dfu
check "dfu-util -l prints our four names" sh -c "
  dfu-util -l >list 2>&1; cat list
  grep -qF 'alt=0, name=\"@Internal Flash  /0x08000000/04*016Kg,01*064Kg,07*128Kg\", serial=\"338133873034\"' list &&
  grep -qF 'alt=1, name=\"@Option Bytes  /0x1FFFC000/01*016 e\"' list &&
  grep -qF 'alt=2, name=\"@OTP Memory /0x1FFF7800/01*512 e,01*016 e\"' list &&
  grep -qF 'alt=3, name=\"@Device Feature/0xFFFF0000/01*004 e\"' list"
check "we flash" "$cfdfu" flash new.bin --no-leave
check "dfu-util -U reads the same bytes back" sh -c "dfu-util -a 0 -s 0x08004000:$size -U up.bin && cmp up.bin new.bin"
check "dfu-util -D flashes" dfu-util -a 0 -s 0x08004000 -D old.bin
check "our verify agrees with dfu-util" "$cfdfu" verify old.bin
check "our backup has the same bytes" sh -c "'$cfdfu' backup all.bin && dd if=all.bin bs=16384 skip=1 status=none | head -c $size | cmp - old.bin"
check "a device that dfu-util holds is busy" sh -c "
  dfu-util -a 0 -s 0x08004000 -D new.bin >/dev/null 2>&1 & sleep 2
  '$cfdfu' flash new.bin; status=\$?; wait; [ \$status -eq 74 ]"
check "whoever is not allowed is told so" sh -c "
  chmod 600 /dev/bus/usb/*/*; chmod 711 . && chmod 644 new.bin
  setpriv --reuid 65534 --regid 65534 --clear-groups '$cfdfu' flash new.bin; [ \$? -eq 77 ]"
check "SIGINT stops at a safe point" sh -c "
  rm -f log; '$cfdfu' flash new.bin --full >log 2>&1 & shows log Erase; kill -INT \$!; wait \$!; status=\$?; cat log; [ \$status -eq 75 ]"
check "SIGTERM lets the flash finish" sh -c "
  rm -f log; '$cfdfu' flash old.bin --full --no-leave >log 2>&1 & shows log Erase; kill -TERM \$!; wait \$!; status=\$?; cat log
  [ \$status -eq 0 ] && '$cfdfu' verify old.bin"
check "the overwritten bootloader comes back" "$cfdfu" restore-bootloader loader.bin --firmware new.bin
stop

start healthy 0483:5740
check "the interface in lines flashes over real USB" sh -c "
  printf 'f\\nw\\n' | '$cfdfu' new.bin --plain >log 2>&1; cat log; grep -q '^Flashed and verified' log"
check "the interface on a terminal flashes over real USB" sh -c "
  export TERM=linux; rm -f ilog
  keys 'Flashed and verified:' |
    timeout 120 script -qfec \"stty rows 24 cols 80; '$cfdfu' --log-file ilog old.bin\" /dev/null >log 2>&1
  tail -c 400 log; grep -aq 'Flashed and verified' log && grep -aq 'The Crazyflie is running' log"
check "a terminal that hangs up in mid-flash does not stop it, and the next start tells" sh -c "
  export TERM=linux; rm -f ilog state/cfdfu/last-run.json
  keys never |
    timeout 120 script -qfec \"stty rows 24 cols 80; exec '$cfdfu' --log-file ilog new.bin\" /dev/null >log 2>&1 &
  shows ilog 'Erase '; pkill -HUP -f 'ilog new.bin\$'; shows state/cfdfu/last-run.json 'Flashed and verified'
  cat state/cfdfu/last-run.json; grep -q 'Flashed and verified' state/cfdfu/last-run.json &&
  timeout 60 '$cfdfu' --plain </dev/null | grep 'ended while nobody was looking: Flashed and verified'"
stop

start two
sleep 1
check "two devices are not guessed at" ends 69 "$cfdfu" flash new.bin
check "one is named by its serial number" "$cfdfu" flash new.bin --device 338133883034 --no-leave
stop

echo
echo "Wall time in the VM, exec to exit, $size bytes at 0x08004000, on the same simulated chip:"
start dfu
# Onto another firmware of the same size, alternately.
seconds dfu-util -a 0 -s 0x08004000 -D old.bin && theirs=$took
seconds "$cfdfu" flash new.bin --no-leave && ours=$took
seconds "$cfdfu" flash old.bin --no-leave --no-undo && bare=$took
seconds "$cfdfu" flash old.bin --no-leave && again=$took
seconds "$cfdfu" flash new.bin --no-leave --no-undo --byte-mode && bytes=$took
stop
for row in "dfu-util 0.11, not verified|${theirs:-}" "cfdfu, verified|${ours:-}" "cfdfu, verified, --no-undo|${bare:-}" "the same with --byte-mode|${bytes:-}" "cfdfu, the same image again|${again:-}"; do
  awk -F'|' -v base="${theirs:-0}" '{ printf "  %-30s %6s s   %5.1f times as fast\n", $1, $2, ($2 > 0 ? base / $2 : 0) }' <<<"$row"
done
check "every one of these jobs worked" test -n "${theirs:-}" -a -n "${ours:-}" -a -n "${bare:-}" -a -n "${again:-}" -a -n "${bytes:-}"
summary
