#!/usr/bin/env bash
# Runs in the VM (see boot). Checks the simulated drone on a real USB stack with lsusb, the real dfu-util and cfdfu.
# Ends by printing the times of both tools on the same chip and the number of passed and failed checks.
# shellcheck source=tests/vm/lib.sh
. "$(dirname "$(readlink -f "$0")")/lib.sh"

size=243176
"$cfdfu" demo-image new.bin --size $size
"$cfdfu" demo-image old.bin --size $size --version 2026.04
"$cfdfu" demo-image loader.bin --kind loader

start healthy 0483:5740
check "lsusb lists a running Crazyflie" lsusb -d 0483:5740
check "list prints the mode, name and serial number" sh -c "'$cfdfu' list | grep -q 'running  Crazyflie 2.x  51004F000551343036333233'"
check "flash enters DFU mode, flashes, verifies, and reports that the drone is running" sh -c "'$cfdfu' flash new.bin >log 2>&1; cat log; grep -q '^Flashed and verified' log && grep -q 'Crazyflie is running' log"
check "flash keeps a copy of the previous firmware" sh -c "'$cfdfu' inspect state/cfdfu/undo/*/*.bin | grep 'firmware 2025.02'"
check "the drone is running again" lsusb -d 0483:5740
check "verify succeeds with the flashed image" "$cfdfu" verify new.bin
check "verify fails with a different image" exits 1 "$cfdfu" verify old.bin
check "a second flash changes nothing" sh -c "'$cfdfu' flash new.bin --json | grep '\"outcome\":\"unchanged\"'"
check "a drone that is unplugged during a flash is reported as disconnected" sh -c "rm -f log; (wait_for_text log Download; echo unplug >orders) & '$cfdfu' flash old.bin --full >log 2>&1; status=\$?; cat log; [ \$status -eq 74 ] && grep -q 'the device disconnected' log"
check "without a drone, flash exits with 69" exits 69 "$cfdfu" flash old.bin
echo dfu >&3
check "the drone is in DFU mode, entered by hand" wait_for_device 0483:df11
check "the same command completes the flash" "$cfdfu" flash old.bin --no-leave
check "the drone contains the complete image" "$cfdfu" verify old.bin
stop

start dfu
check "dfu-util -l prints the four memories of the simulated drone" sh -c "
  dfu-util -l >list 2>&1; cat list
  grep -qF 'alt=0, name=\"@Internal Flash  /0x08000000/04*016Kg,01*064Kg,07*128Kg\", serial=\"338133873034\"' list &&
  grep -qF 'alt=1, name=\"@Option Bytes  /0x1FFFC000/01*016 e\"' list &&
  grep -qF 'alt=2, name=\"@OTP Memory /0x1FFF7800/01*512 e,01*016 e\"' list &&
  grep -qF 'alt=3, name=\"@Device Feature/0xFFFF0000/01*004 e\"' list"
check "cfdfu flashes an image" "$cfdfu" flash new.bin --no-leave
check "dfu-util -U reads the same bytes back" sh -c "dfu-util -a 0 -s 0x08004000:$size -U up.bin && cmp up.bin new.bin"
check "dfu-util -D flashes a different image" dfu-util -a 0 -s 0x08004000 -D old.bin
check "cfdfu verifies what dfu-util wrote" "$cfdfu" verify old.bin
check "a backup by cfdfu contains the same bytes" sh -c "'$cfdfu' backup all.bin && dd if=all.bin bs=16384 skip=1 status=none | head -c $size | cmp - old.bin"
check "a flash is recorded, and a flash of the replayed drone sends the same requests" sh -c "
  '$cfdfu' flash new.bin --no-leave --record flash.jsonl && '$cfdfu' flash new.bin --no-leave --demo=replay:flash.jsonl >log 2>&1
  status=\$?; tail -n 5 log; [ \$status -eq 0 ] && grep -q '^Replay: ' log && ! grep -q '^Not in the recording' log"
# Times measured in emulation are meaningless, so the check ignores the assumption about the time of a read.
check "qualify reads the drone and reports which assumptions hold" sh -c "
  '$cfdfu' qualify && cat cfdfu-qualify.md && [ \$(grep -c '| holds |' cfdfu-qualify.md) -ge 8 ] &&
  ! grep '| does not hold |' cfdfu-qualify.md | grep -v '^| Reading 2048 bytes takes'"
check "flash fails if dfu-util is using the device" sh -c "
  rm -f theirs; dfu-util -a 0 -s 0x08004000 -D new.bin >theirs 2>&1 & wait_for_text theirs Erase
  '$cfdfu' flash new.bin; status=\$?; wait; [ \$status -eq 74 ]"
check "flash fails without permission" sh -c "
  chmod 600 /dev/bus/usb/*/*; chmod 711 . && chmod 644 new.bin
  setpriv --reuid 65534 --regid 65534 --clear-groups '$cfdfu' flash new.bin; [ \$? -eq 77 ]"
check "SIGINT stops a flash at a safe point" sh -c "
  rm -f log; '$cfdfu' flash new.bin --full >log 2>&1 & wait_for_text log Erase; kill -INT \$!; wait \$!; status=\$?; cat log; [ \$status -eq 75 ]"
check "SIGTERM lets the flash finish" sh -c "
  rm -f log; '$cfdfu' flash old.bin --full --no-leave >log 2>&1 & wait_for_text log Erase; kill -TERM \$!; wait \$!; status=\$?; cat log
  [ \$status -eq 0 ] && '$cfdfu' verify old.bin"
check "restore-bootloader writes the bootloader and the firmware" "$cfdfu" restore-bootloader loader.bin --firmware new.bin
stop

start healthy 0483:5740
check "the plain interface flashes over real USB" sh -c "
  printf 'f\\nw\\n' | '$cfdfu' new.bin --plain >log 2>&1; cat log; grep -q '^Flashed and verified' log"
check "the interface on a terminal flashes over real USB" sh -c "
  export TERM=linux; rm -f ilog
  keys 'Flashed and verified:' |
    timeout 120 script -qfec \"stty rows 24 cols 80; '$cfdfu' --log-file ilog old.bin\" /dev/null >log 2>&1
  tail -c 400 log; grep -aq 'Flashed and verified' log && grep -aq 'Your Crazyflie is running' log"
check "a flash continues when its terminal hangs up, and the next start reports the result" sh -c "
  export TERM=linux; rm -f ilog state/cfdfu/last-run.json
  keys never |
    timeout 120 script -qfec \"stty rows 24 cols 80; exec '$cfdfu' --log-file ilog new.bin\" /dev/null >log 2>&1 &
  wait_for_text ilog 'Erase '; pkill -HUP -f 'ilog new.bin\$'; wait_for_text state/cfdfu/last-run.json 'Flashed and verified'
  # Wait until the flashing process has ended.
  while pkill -0 -f 'ilog new.bin\$'; do sleep 0.1; done
  cat state/cfdfu/last-run.json; grep -q 'Flashed and verified' state/cfdfu/last-run.json &&
  timeout 60 '$cfdfu' --plain </dev/null | grep 'ended while you were away: Flashed and verified'"
stop

start two
wait_for_count 2 0483:df11
check "with two drones, flash selects neither" exits 69 "$cfdfu" flash new.bin
check "one of two drones is selected by its serial number" "$cfdfu" flash new.bin --device 338133883034 --no-leave
stop

echo
echo "Wall time in the VM, exec to exit, $size bytes at 0x08004000, on the same simulated chip:"
start dfu
# Except for the repeated flash, each run of cfdfu overwrites different firmware of the same size.
seconds dfu-util -a 0 -s 0x08004000 -D old.bin && theirs=$took
seconds "$cfdfu" flash new.bin --no-leave && ours=$took
seconds "$cfdfu" flash old.bin --no-leave --no-undo && bare=$took
seconds "$cfdfu" flash old.bin --no-leave && again=$took
seconds "$cfdfu" flash new.bin --no-leave --no-undo --byte-mode && bytes=$took
stop
for row in "dfu-util 0.11, not verified|${theirs:-}" "cfdfu, verified|${ours:-}" "cfdfu, verified, --no-undo|${bare:-}" "the same with --byte-mode|${bytes:-}" "cfdfu, the same image again|${again:-}"; do
  awk -F'|' -v base="${theirs:-0}" '{ printf "  %-30s %6s s   %5.1f times as fast\n", $1, $2, ($2 > 0 ? base / $2 : 0) }' <<<"$row"
done
check "all measured jobs succeeded" test -n "${theirs:-}" -a -n "${ours:-}" -a -n "${bare:-}" -a -n "${again:-}" -a -n "${bytes:-}"
summary
