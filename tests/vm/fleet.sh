#!/usr/bin/env bash
# Runs in the VM (see boot). Checks batches of many drones on a real USB stack: drones in DFU mode, running drones,
# three drones unplugged during an erase, a batch that receives signals, a second cfdfu at the same time, drones of
# other kinds, equal serial numbers, and a station. dfu-util reads the flash back.
# shellcheck source=tests/vm/lib.sh
. "$(dirname "$(readlink -f "$0")")/lib.sh"

"$cfdfu" demo-image new.bin
"$cfdfu" demo-image old.bin --version 2026.04

# port_contains PORT FILE: succeeds if dfu-util reads the contents of the file from the drone in DFU mode on this port.
port_contains() {
  rm -f "chip-$1.bin"
  dfu-util -p "$1" -a 0 -s 0x08004000:"$(stat -c %s "$2")" -U "chip-$1.bin" >/dev/null && cmp "chip-$1.bin" "$2"
}

# ports_contain FILE PORT…: succeeds if the drones on these ports contain the file. Reads all drones at once.
ports_contain() {
  local file=$1 port reads=() status=0
  shift
  for port in "$@"; do
    port_contains "$port" "$file" &
    reads+=($!)
  done
  for port in "${reads[@]}"; do wait "$port" || status=1; done
  [ $# -gt 0 ] && return $status
}

# all_contain FILE: succeeds if every drone that `list` shows is in DFU mode and contains the file.
# shellcheck disable=SC2046
all_contain() { ports_contain "$1" $("$cfdfu" list | awk '{ print $1 }'); }

# all_show FILE TEXT N…: waits until the batch has printed the text, an extended regular expression, to the file for
# each of these drones.
all_show() {
  local file=$1 text=$2 n
  shift 2
  for n in "$@"; do
    wait_for_text "$file" "1-$n  ($text)" || return 1
  done
}

# wait_and_measure PID: waits for the process to end, and sets `peak` to its peak memory use in KiB.
wait_and_measure() {
  local key value never now
  exec {never}<>/dev/shm/never
  peak=
  while true; do
    now=
    while read -r key value _; do [ "$key" = VmHWM: ] && now=$value; done 2>/dev/null <"/proc/$1/status"
    # The status of a process that has ended has no VmHWM.
    [ -n "$now" ] || break
    peak=$now
    read -rt 0.1 -u "$never"
  done
  exec {never}>&-
  wait "$1"
}

# flash ARGUMENT…: flashes without restarting the drones, and sets `peak`.
flash() {
  "$cfdfu" flash "$@" --no-leave &
  wait_and_measure $!
}

start fleet-dfu
check "eight drones are in DFU mode" wait_for_count 8 0483:df11
seconds flash old.bin --device 1-1
one=$took
memory=$peak
seconds flash new.bin --all --expect 8
cp out batch.log
eight=$took
memory=$(((peak - memory) / 7))
check "eight drones are flashed at once" grep -q "8 drones: 8 flashed" batch.log
check "dfu-util reads the new image from all eight drones" all_contain new.bin
check "each additional drone takes at most 1.5 MiB of memory" [ $memory -le 1536 ]
seconds "$cfdfu" flash new.bin --all --expect 8 --no-leave
cp out batch.log
check "a second run of the same batch writes nothing" grep -q "8 drones: 8 unchanged" batch.log
echo "one drone ${one} s, eight drones ${eight} s, the same batch again ${took} s, ${memory} KiB for each additional drone"
# With LOOP=1, also measure dfu-util, which flashes one drone after the other. This takes five minutes. Set LOOP in this
# file, because the VM does not inherit the environment.
if [ -n "${LOOP:-}" ]; then
  loop() { for n in 1 2 3 4 5 6 7 8; do dfu-util -p "1-$n" -a 0 -s 0x08004000 -D old.bin || return 1; done; }
  seconds loop
  echo "dfu-util, one drone after the other: ${took} s"
  "$cfdfu" flash new.bin --all --expect 8 --no-leave >/dev/null
fi
check "verify --all compares all eight drones" prints "8 drones: 8 unchanged" 0 "$cfdfu" verify new.bin --all
check "identify --all reads all eight drones" prints "8 drones: 8 unchanged" 0 "$cfdfu" identify --all

"$cfdfu" flash old.bin --all --expect 8 --no-leave >unplug.log 2>&1 &
batch=$!
all_show unplug.log erase 3 4 6 && for n in 3 4 6; do echo unplug $n >&3; done
wait $batch
check "a batch fails if three drones are unplugged during an erase" [ $? -eq 74 ]
check "the other five drones are flashed" grep -q "8 drones: 5 flashed, 3 failed" unplug.log
check "dfu-util reads the image from these five drones" all_contain old.bin
for n in 3 4 6; do echo dfu $n >&3; done
check "all eight drones are in DFU mode again" wait_for_count 8 0483:df11
check "the same batch flashes the three drones" prints "8 drones: 3 flashed, 5 unchanged" 0 "$cfdfu" flash old.bin --all --expect 8 --no-leave

# The same batch receives SIGTERM, SIGKILL, SIGINT and SIGHUP in turn. Each run continues where the last one stopped,
# and an undo restores the previous firmware of all drones. Erasing the old firmware takes about two seconds, so one
# second after the last of the running jobs begins to erase, none of them has finished.
"$cfdfu" flash new.bin --all --expect 8 --no-leave --jobs 4 >term.log 2>&1 &
batch=$!
all_show term.log erase 1 2 3 4 && sleep 1 && kill -TERM $batch
wait $batch
check "after SIGTERM, the batch exits with 75" [ $? -eq 75 ]
check "after SIGTERM, drones that have begun are flashed and the others are stopped" grep -q "8 drones: 4 flashed, 4 stopped" term.log
check "the result is saved for the next start" grep -q "4 flashed, 4 stopped" state/cfdfu/last-run.json

"$cfdfu" flash new.bin --all --expect 8 --no-leave >kill.log 2>&1 &
batch=$!
all_show kill.log erase 5 6 7 8 && sleep 1 && kill -KILL $batch
wait $batch 2>/dev/null
check "SIGKILL ends a batch" [ $? -eq 137 ]

"$cfdfu" flash new.bin --all --expect 8 --no-leave >int.log 2>&1 &
batch=$!
wait_for_text int.log '  write' && kill -INT $batch
wait $batch
check "after SIGKILL, the same batch starts again, and SIGINT stops the batch" [ $? -eq 75 ]
check "the batch reports the drones that were stopped" grep -q "stopped" int.log

# Suspend the batch, as Ctrl-Z would, while other instances run, so that the batch cannot end first on a fast computer.
"$cfdfu" flash new.bin --all --expect 8 --no-leave --byte-mode >hup.log 2>&1 &
batch=$!
all_show hup.log Unchanged 1 2 3 4 && all_show hup.log write 5 6 7 8 && kill -STOP $batch
check "a second cfdfu does not flash a drone of the batch" \
  prints "Another cfdfu is using port 1-6" 74 "$cfdfu" flash old.bin --device 1-6 --no-leave
check "a second batch does not flash two drones of the first batch" \
  prints "2 drones: 2 failed" 74 "$cfdfu" flash old.bin --all --expect 2 --device 1-7 --device 1-8 --no-leave
check "the second batch reports the reason" grep -q "Another cfdfu is using port 1-8" printed
check "the second batch did not open the two drones" [ "$(grep -c '(another program is using the device) in DFU mode' printed)" -eq 2 ]
check "the suspended batch still exists and continues" kill -CONT $batch
kill -HUP $batch
wait $batch
check "SIGHUP lets the batch finish" [ $? -eq 0 ]
check "the batch completes all eight drones" grep -q "8 drones: 4 flashed, 4 unchanged" hup.log
check "dfu-util reads the new image from all eight drones after the four signals" all_contain new.bin
check "undo restores the previous firmware of all eight drones" prints "8 drones: 8 flashed" 0 "$cfdfu" undo --all --expect 8
for n in 1 2 3 4 5 6 7 8; do echo dfu $n >&3; done
check "all eight drones are in DFU mode after the undo" wait_for_count 8 0483:df11
check "dfu-util reads the previous firmware from all eight drones" all_contain old.bin
stop

# Different drones: five to update, one that already contains the image, a Brushless, one in DFU mode without firmware,
# and a write-protected one. The tenth device is a Loco Positioning Node, which has the USB ID of a running Crazyflie.
"$cfdfu" demo-image was.bin --version 2025.02 --size 276672
start fleet-mixed 0483:5740
check "seven drones and a Loco Positioning Node are running" wait_for_count 8 0483:5740
check "two drones are in DFU mode" wait_for_count 2 0483:df11
echo dfu 6 >&3
check "the Brushless is in DFU mode" wait_for_count 3 0483:df11
check "dfu-util reads the firmware of the Brushless" dfu-util -p 1-6 -a 0 -s 0x08004000:276672 -U brushless.bin
echo unplug 6 >&3
check "the Brushless is unplugged" wait_for_count 2 0483:df11
echo plug 6 >&3
check "the Brushless runs again" wait_for_count 8 0483:5740
check "with --strict, the Brushless prevents every write" prints "Nothing was written to any drone" 65 "$cfdfu" flash new.bin --all --strict --expect 9
check "the other drones are flashed, the Brushless is refused, and the write-protected drone fails" \
  prints "9 drones: 6 flashed, 1 unchanged, 1 refused, 1 failed" 74 "$cfdfu" flash new.bin --all --expect 9
check "the error names the write-protected sector" grep -q "write protection is set for sector 2" printed
check "all drones except the write-protected one are running" wait_for_count 9 0483:5740
check "the Brushless runs its previous firmware" prints "runs        2025.02" 0 "$cfdfu" identify --all
check "no other drone runs the previous firmware" [ "$(grep -c 'runs        2025.02' printed)" -eq 1 ]
check "the Loco Positioning Node was never restarted" [ "$(grep -c '^Drone 10:' sim.log)" -eq 1 ]
for n in 1 2 3 4 5 6 7 8; do echo dfu $n >&3; done
check "all nine drones are in DFU mode" wait_for_count 9 0483:df11
check "dfu-util reads the image from the seven drones that accept it" ports_contain new.bin 1-1 1-2 1-3 1-4 1-5 1-7 1-8
check "the firmware of the Brushless is unchanged" port_contains 1-6 brushless.bin
check "the firmware of the write-protected drone is unchanged" port_contains 1-9 was.bin
stop

start twins
check "two drones with the same serial number are in DFU mode" wait_for_count 2 0483:df11
check "both drones are flashed" prints "2 drones: 2 flashed" 0 "$cfdfu" flash new.bin --all --expect 2 --no-leave
check "dfu-util reads the image from both drones" all_contain new.bin
check "undo restores each drone from its own copy" prints "2 drones: 2 flashed" 0 "$cfdfu" undo --all --expect 2
stop

# A station: two drones are plugged in when it starts, and four others are plugged in later.
start fleet-dfu
for n in 3 4 5 6 7 8; do echo unplug $n >&3; done
check "two drones are still plugged in" wait_for_count 2 0483:df11
mkfifo enter
exec 4<>enter
"$cfdfu" station new.bin --count 6 --no-leave <&4 >station.log 2>&1 &
station=$!
check "the station reports the drones that are plugged in" wait_for_text station.log '1-2'
for n in 3 4; do echo dfu $n >&3; done
check "drones that are plugged in later are flashed" wait_for_text station.log '2 of 6 done'
check "the first two drones are not flashed before Enter is pressed" sh -c '! grep -q "1-1  Flashed" station.log'
echo >&4
check "after Enter, the first two drones are flashed" wait_for_text station.log '4 of 6 done'
kill -KILL $station
wait $station
"$cfdfu" station new.bin --count 6 --no-leave --yes --resume >resumed.log 2>&1 &
station=$!
for n in 5 6; do echo dfu $n >&3; done
check "after a crash, station --resume flashes the remaining drones" wait_for_text resumed.log '6 of 6 done'
wait $station
check "the resumed station succeeds" [ $? -eq 0 ]
exec 4>&-
stop

start fleet-running 0483:5740
check "fifteen drones are running" wait_for_count 15 0483:5740
seconds "$cfdfu" flash new.bin --all --expect 15
cp out batch.log
check "fifteen running drones are flashed and run again" grep -q "15 drones: 15 flashed" batch.log
echo "fifteen running drones: ${took} s"
check "identify --all reports the new version" prints "runs        2026.08" 0 "$cfdfu" identify --all
check "all fifteen drones run the new version" [ "$(grep -c 'runs        2026.08' printed)" -eq 15 ]
stop
summary
