#!/usr/bin/env bash
# In the VM (see boot): the manners of real chips and real buses that USB shows, over a real USB stack: twins, a cable that
# works loose, a silent drone, late and missed entries, a drone that keeps restarting or stays dark, a lost name.
# shellcheck source=tests/vm/lib.sh
. "$(dirname "$(readlink -f "$0")")/lib.sh"

size=60000
"$cfdfu" demo-image new.bin --size $size
"$cfdfu" demo-image big.bin

# port N: where the Nth drone is plugged in.
port() { "$cfdfu" list | sed -n "$1s/ .*//p"; }

echo "== two drones with one serial number"
start twins
sleep 1
check "both are listed" sh -c "[ \$('$cfdfu' list | grep -c 338133873034) -eq 2 ]"
one=$(port 1) two=$(port 2)
check "without a port neither is taken" says "--device $one" 69 "$cfdfu" flash new.bin
check "nor by the serial number" says "2 devices" 69 "$cfdfu" flash new.bin --device 338133873034
check "the second is flashed by its port" says "Flashed and verified" 0 "$cfdfu" flash new.bin --device "$two" --no-leave
check "the first is as it was" says "firmware    firmware 2025.02" 0 "$cfdfu" identify --device "$one"
check "the second has the image" "$cfdfu" verify new.bin --device "$two"
check "there is no copy of the first to put back" says "no copy" 66 "$cfdfu" undo --device "$one"
check "undo of the second is its own" says "Flashed and verified" 0 "$cfdfu" undo --device "$two"
stop

echo "== a cable that works loose"
start loose
(shows said 'gone'; sleep 2; echo dfu >&3) &
check "errors before it is gone are an interruption: it carries on when the drone is back" \
  says "Flashed and verified" 0 "$cfdfu" flash big.bin --no-leave --wait 60
wait $!
check "and the image is whole" "$cfdfu" verify big.bin
stop

echo "== a drone that answers nothing more"
start hung
before=$SECONDS
check "ends the job, with the reason" says "the device does not answer" 74 "$cfdfu" flash big.bin --no-leave
check "in time" test $((SECONDS - before)) -lt 30
stop

echo "== the way into DFU mode"
start missed 0483:5740
check "a missed entry is tried again" says "Flashed and verified" 0 "$cfdfu" flash new.bin
stop
start late 0483:5740
check "DFU mode that comes late is waited for" says "Flashed and verified" 0 "$cfdfu" flash new.bin --wait 60
stop
start old 0483:5740
(sleep 6; echo unplug >&3; sleep 1; echo dfu >&3) &
check "a drone that is too old is waited for in DFU mode" says "Flashed and verified" 0 "$cfdfu" flash new.bin --wait 60
wait $!
stop

echo "== after the flash"
start restarting 0483:5740
check "a drone that keeps restarting is no success for --require-boot" says "restarts by itself" 76 "$cfdfu" flash new.bin --require-boot
stop
start dark 0483:5740
check "a drone that stays dark is flashed, with one instruction" says "normal with the boot ROM of this chip" 0 "$cfdfu" flash new.bin
stop
start dark 0483:5740
check "left by a reset it starts" says "it says that it runs 2026.08" 0 "$cfdfu" flash new.bin --leave-by-reset --require-boot
stop

echo "== what could not be read"
start nameless
check "the board is read though its memory has lost its name" says "board is CB10" 65 "$cfdfu" flash new.bin
stop
start unknown-board
check "an unknown board is not flashed" says "could not be read" 65 "$cfdfu" flash new.bin
check "unless you insist" says "Flashed and verified" 0 "$cfdfu" flash new.bin --allow-mismatch --no-leave
stop

summary
