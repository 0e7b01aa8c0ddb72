#!/usr/bin/env bash
# Runs in the VM (see boot). Checks how cfdfu handles the quirks of real chips and buses over a real USB stack: equal
# serial numbers, a loose cable, a drone that stops answering, a late or missed entry into DFU mode, a drone that keeps
# restarting or stays dark after the flash, a failed self-test, and a board that cannot be read. Also checks the console
# and, without a network, the commands that need releases.
# shellcheck source=tests/vm/lib.sh
. "$(dirname "$(readlink -f "$0")")/lib.sh"

size=60000
"$cfdfu" demo-image new.bin --size $size
"$cfdfu" demo-image big.bin

# port N: prints the USB port of the Nth drone.
port() { "$cfdfu" list | sed -n "$1s/ .*//p"; }

echo "== two drones with the same serial number"
start twins
wait_for_count 2 0483:df11
check "list shows both drones" sh -c "[ \$('$cfdfu' list | grep -c 338133873034) -eq 2 ]"
one=$(port 1) two=$(port 2)
check "without --device, neither drone is selected" prints "--device $one" 69 "$cfdfu" flash new.bin
check "the shared serial number selects neither drone" prints "2 devices" 69 "$cfdfu" flash new.bin --device 338133873034
check "the second drone is selected by its port" prints "Flashed and verified" 0 "$cfdfu" flash new.bin --device "$two" --no-leave
check "the first drone still has its firmware" prints "firmware    2025.02" 0 "$cfdfu" identify --device "$one"
check "the second drone contains the image" "$cfdfu" verify new.bin --device "$two"
check "undo has no copy for the first drone" prints "saved no previous firmware" 66 "$cfdfu" undo --device "$one"
check "undo of the second drone uses its own copy" prints "Flashed and verified" 0 "$cfdfu" undo --device "$two"
stop

echo "== a loose cable"
start loose
after 'device disconnected' dfu
check "after transfer errors and a disconnect, the flash resumes when the drone is plugged in again" \
  prints "Flashed and verified" 0 "$cfdfu" flash big.bin --no-leave --wait 60
wait $!
check "the drone contains the complete image" "$cfdfu" verify big.bin
stop

echo "== a drone that stops answering"
start hung
before=$SECONDS
check "a flash fails and reports the reason" prints "the device does not answer" 74 "$cfdfu" flash big.bin --no-leave
check "the flash fails within 30 s" test $((SECONDS - before)) -lt 30
stop

echo "== entering DFU mode"
start missed 0483:5740
check "a missed request is retried" prints "Flashed and verified" 0 "$cfdfu" flash new.bin
stop
start late 0483:5740
check "flash waits for a drone that is late to enter DFU mode" prints "Flashed and verified" 0 "$cfdfu" flash new.bin --wait 60
stop
start old 0483:5740
after 'too old to enter DFU mode' unplug dfu
check "with firmware that is too old, flash waits until DFU mode is entered by hand" prints "Flashed and verified" 0 "$cfdfu" flash new.bin --wait 60
wait $!
stop

echo "== after the flash"
start restarting 0483:5740
check "--require-boot fails if the drone keeps restarting" prints "keeps restarting" 76 "$cfdfu" flash new.bin --require-boot
stop
start dark 0483:5740
check "a drone that stays dark is reported as flashed, with an explanation" prints "normal with this chip's boot ROM" 0 "$cfdfu" flash new.bin
stop
start dark 0483:5740
check "with --leave-by-reset, the drone starts" prints "Crazyflie is running 2026.08" 0 "$cfdfu" flash new.bin --leave-by-reset --require-boot
stop

echo "== the self-test and the console"
start bad-deck 0483:5740
check "identify names the part that fails the self-test" prints "failed: the deck bcFlow2" 0 "$cfdfu" identify
check "flash --require-boot reports a failed self-test" prints "self-test failed: the deck bcFlow2" 76 "$cfdfu" flash new.bin --require-boot
check "flash reports a failed self-test in JSON" prints '"self_test":"failed"' 0 "$cfdfu" flash new.bin --full --json
stop
start asserting 0483:5740
check "flash reports a failed assertion with its file and line" prints "stabilizer.c:245" 76 "$cfdfu" flash new.bin --require-boot
stop
start healthy 0483:5740
"$cfdfu" console 0<&- >console.log 2>&1 &
console=$!
check "the console shows what the drone has printed" wait_for_text console.log "Self test passed"
check "a drone is flashed while its console is being read" prints "Flashed and verified" 0 "$cfdfu" flash new.bin
echo unplug >&3
check "the console reports that the drone was unplugged" wait_for_text console.log "Lost the connection"
echo plug >&3
check "the console continues when the drone starts again" wait_for_text console.log "Production release 2026.08"
check "the console shows the self-test of the new firmware" wait_for_text console.log "2026.08.*Self test passed"
kill -INT $console
wait $console
check "after Ctrl-C, the console exits with 0" [ $? -eq 0 ]
echo link >&3
check "the console switches the link back to the radio" wait_for_text sim.log "switched [0-9]+ times to USB, [0-9]+ times to the radio, now on the radio"
stop

# The VM has no network.
echo "== without a network"
check "fetch reports that the server cannot be reached" prints "api.github.com cannot be reached" 66 "$cfdfu" fetch 2026.08 --board cf2
check "the advice is to fetch the release on a different computer" sh -c "tr -s ' \n' ' ' <printed | grep -q 'cfdfu fetch --to FOLDER'"
check "flash --offline reports that the release is not saved" prints "there is no saved copy of" 66 "$cfdfu" flash --release 2026.08 --board cf2 --offline
mkdir -p stick/crazyflie-release
check "flash --from reports that the folder has no release" prints "there is no saved copy of" 66 "$cfdfu" flash --release latest --board cf2 --from stick

echo "== boards that cannot be read"
start nameless
check "the board is read even if the OTP memory has no name" prints "board is CB10" 65 "$cfdfu" flash new.bin
stop
start unknown-board
check "an unknown board is not flashed" prints "could not be read" 65 "$cfdfu" flash new.bin
check "an unknown board is flashed with --allow-mismatch" prints "Flashed and verified" 0 "$cfdfu" flash new.bin --allow-mismatch --no-leave
stop

summary
