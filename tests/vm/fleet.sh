#!/usr/bin/env bash
# Runs in the VM (see boot). Many drones at once on a real USB stack: all in DFU mode, all running, one unplugged while
# its flash is erased, an interrupt, and the same batch again. dfu-util reads the chips back.
# shellcheck source=tests/vm/lib.sh
. "$(dirname "$(readlink -f "$0")")/lib.sh"

"$cfdfu" demo-image new.bin
"$cfdfu" demo-image old.bin --version 2026.04

# holds FILE: every chip in DFU mode holds the file, as read by dfu-util.
holds() {
  local port
  for port in $("$cfdfu" list | awk '{ print $1 }'); do
    rm -f chip.bin
    dfu-util -p "$port" -a 0 -s 0x08004000:"$(stat -c %s "$1")" -U chip.bin >/dev/null || return 1
    cmp chip.bin "$1" || return 1
  done
}

start fleet-dfu
check "eight drones in DFU mode are listed" count 8 0483:df11
seconds "$cfdfu" flash old.bin --device 1-1 --no-leave
one=$took
seconds "$cfdfu" flash new.bin --all --expect 8 --no-leave
cp out batch.log
eight=$took
check "eight drones are flashed at once" grep -q "8 drones: 8 flashed" batch.log
check "dfu-util reads the new image from all eight" holds new.bin
seconds "$cfdfu" flash new.bin --all --expect 8 --no-leave
cp out batch.log
check "the same batch again writes nothing" grep -q "8 drones: 8 unchanged" batch.log
echo "one drone ${one} s, eight ${eight} s, the same again ${took} s"
# With LOOP=1, also measures dfu-util, one drone after the other: five minutes.
if [ -n "${LOOP:-}" ]; then
  loop() { for n in 1 2 3 4 5 6 7 8; do dfu-util -p "1-$n" -a 0 -s 0x08004000 -D old.bin || return 1; done; }
  seconds loop
  echo "dfu-util, one after the other: ${took} s"
  "$cfdfu" flash new.bin --all --expect 8 --no-leave >/dev/null
fi
check "verify compares all" says "8 drones: 8 unchanged" 0 "$cfdfu" verify new.bin --all
check "identify reads all" says "8 drones: 8 unchanged" 0 "$cfdfu" identify --all

"$cfdfu" flash old.bin --all --expect 8 --no-leave >unplug.log 2>&1 &
batch=$!
shows unplug.log '1-3  write' && echo unplug 3 >&3
wait $batch
check "one unplugged drone fails the batch" [ $? -eq 74 ]
check "and the other seven are flashed" grep -q "8 drones: 7 flashed, 1 failed" unplug.log
check "dfu-util reads the image from the seven" holds old.bin
echo dfu 3 >&3
check "the drone is back" count 8 0483:df11
check "the same batch completes it" says "8 drones: 1 flashed, 7 unchanged" 0 "$cfdfu" flash old.bin --all --expect 8 --no-leave

"$cfdfu" flash new.bin --all --expect 8 --no-leave >int.log 2>&1 &
batch=$!
shows int.log '  write' && kill -INT $batch
wait $batch
check "an interrupt stops all at their safe points" [ $? -eq 75 ]
check "and says so" grep -q "stopped" int.log
check "the batch can be repeated" says "8 drones: 8 flashed" 0 "$cfdfu" flash new.bin --all --expect 8 --no-leave
check "undo restores the previous firmware of all" says "8 drones: 8 flashed" 0 "$cfdfu" undo --all --expect 8
stop

# Different stories: five to update, one that holds the image, a Brushless, and one without firmware in DFU mode.
start fleet 0483:5740
check "seven running drones and one in DFU mode are listed" count 7 0483:5740
check "with --strict, the Brushless keeps all from being written" says "Nothing was written to any drone" 65 "$cfdfu" flash new.bin --all --strict --expect 8
check "the others are flashed, and the Brushless is refused" says "8 drones: 6 flashed, 1 unchanged, 1 refused" 65 "$cfdfu" flash new.bin --all --expect 8
check "all run again" count 8 0483:5740
check "the Brushless runs its own firmware" says "runs        2025.02" 0 "$cfdfu" identify --all
check "and is the only one" [ "$(grep -c 'runs        2025.02' said)" -eq 1 ]
stop

start twins
check "two drones with one serial number are listed" count 2 0483:df11
check "both are flashed" says "2 drones: 2 flashed" 0 "$cfdfu" flash new.bin --all --expect 2 --no-leave
check "dfu-util reads the image from both" holds new.bin
check "an undo restores each from its own copy" says "2 drones: 2 flashed" 0 "$cfdfu" undo --all --expect 2
stop

# A station: two drones are there and wait, the others are plugged in one after the other.
start fleet-dfu
for n in 3 4 5 6 7 8; do echo unplug $n >&3; done
check "two drones are left" count 2 0483:df11
mkfifo enter
exec 4<>enter
"$cfdfu" station new.bin --count 6 --no-leave <&4 >station.log 2>&1 &
station=$!
check "the station waits" shows station.log '1-2'
for n in 3 4; do echo dfu $n >&3; done
check "drones that are plugged in are flashed" shows station.log '2 of 6 done'
check "those that were there wait for Enter" sh -c '! grep -q "1-1  Flashed" station.log'
echo >&4
check "and are then flashed" shows station.log '4 of 6 done'
kill -KILL $station
wait $station
"$cfdfu" station new.bin --count 6 --no-leave --yes --resume >resumed.log 2>&1 &
station=$!
for n in 5 6; do echo dfu $n >&3; done
check "after a crash the station goes on" shows resumed.log '6 of 6 done'
wait $station
check "and ends with success" [ $? -eq 0 ]
exec 4>&-
stop

start fleet-running 0483:5740
check "fifteen running drones are listed" count 15 0483:5740
seconds "$cfdfu" flash new.bin --all --expect 15
cp out batch.log
check "fifteen running drones are flashed and run again" grep -q "15 drones: 15 flashed" batch.log
echo "fifteen running drones ${took} s"
check "all of them run the new version" says "runs        2026.08" 0 "$cfdfu" identify --all
check "and no other" [ "$(grep -c 'runs        2026.08' said)" -eq 15 ]
stop
summary
