#!/usr/bin/env bash
# Runs in the VM (see boot). Many drones at once on a real USB stack: all in DFU mode, all running, three unplugged while
# their flash is erased, a batch that is killed, interrupted and asked to end, a second cfdfu beside it, drones of other
# kinds, and the same batch again. dfu-util reads the chips back.
# shellcheck source=tests/vm/lib.sh
. "$(dirname "$(readlink -f "$0")")/lib.sh"

"$cfdfu" demo-image new.bin
"$cfdfu" demo-image old.bin --version 2026.04

# chip PORT FILE: the chip in DFU mode on this port holds the file, as read by dfu-util.
chip() {
  rm -f "chip-$1.bin"
  dfu-util -p "$1" -a 0 -s 0x08004000:"$(stat -c %s "$2")" -U "chip-$1.bin" >/dev/null && cmp "chip-$1.bin" "$2"
}

# chips FILE PORT…: the chips on these ports hold the file. All are read at once.
chips() {
  local file=$1 port reads=() status=0
  shift
  for port in "$@"; do
    chip "$port" "$file" &
    reads+=($!)
  done
  for port in "${reads[@]}"; do wait "$port" || status=1; done
  [ $# -gt 0 ] && return $status
}

# holds FILE: every drone is in DFU mode and holds the file.
# shellcheck disable=SC2046
holds() { chips "$1" $("$cfdfu" list | awk '{ print $1 }'); }

# all_show FILE TEXT N…: waits until the batch has printed the text, an extended regular expression, for each of these
# drones.
all_show() {
  local file=$1 text=$2 n
  shift 2
  for n in "$@"; do
    shows "$file" "1-$n  ($text)" || return 1
  done
}

# peak PID: waits for the end of the process and sets `peak` to the most memory that it used, in KiB.
peak() {
  local key value never now
  exec {never}<>/dev/shm/never
  peak=
  while true; do
    now=
    while read -r key value _; do [ "$key" = VmHWM: ] && now=$value; done 2>/dev/null <"/proc/$1/status"
    # A process that has ended has no memory.
    [ -n "$now" ] || break
    peak=$now
    read -rt 0.1 -u "$never"
  done
  exec {never}>&-
  wait "$1"
}

# flash ARGUMENT…: flashes, and sets `peak` as well.
flash() {
  "$cfdfu" flash "$@" --no-leave &
  peak $!
}

start fleet-dfu
check "eight drones in DFU mode are listed" count 8 0483:df11
seconds flash old.bin --device 1-1
one=$took
memory=$peak
seconds flash new.bin --all --expect 8
cp out batch.log
eight=$took
memory=$(((peak - memory) / 7))
check "eight drones are flashed at once" grep -q "8 drones: 8 flashed" batch.log
check "dfu-util reads the new image from all eight" holds new.bin
check "each drone takes at most 1.5 MiB of memory" [ $memory -le 1536 ]
seconds "$cfdfu" flash new.bin --all --expect 8 --no-leave
cp out batch.log
check "the same batch again writes nothing" grep -q "8 drones: 8 unchanged" batch.log
echo "one drone ${one} s, eight ${eight} s, the same again ${took} s, ${memory} KiB for each drone but the first"
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
all_show unplug.log erase 3 4 6 && for n in 3 4 6; do echo unplug $n >&3; done
wait $batch
check "three drones that are unplugged in mid-erase fail the batch" [ $? -eq 74 ]
check "and the other five are flashed" grep -q "8 drones: 5 flashed, 3 failed" unplug.log
check "dfu-util reads the image from the five" holds old.bin
for n in 3 4 6; do echo dfu $n >&3; done
check "the drones are back" count 8 0483:df11
check "the same batch completes them" says "8 drones: 3 flashed, 5 unchanged" 0 "$cfdfu" flash old.bin --all --expect 8 --no-leave

# One flash of all eight, ended in four ways before it is complete. Each batch continues where the last one stopped, and an
# undo takes all of it back. An erase takes a second or more, so one second later all have begun and none has ended.
"$cfdfu" flash new.bin --all --expect 8 --no-leave --jobs 4 >term.log 2>&1 &
batch=$!
all_show term.log erase 1 2 3 4 && sleep 1 && kill -TERM $batch
wait $batch
check "SIGTERM stops the drones that have not begun" [ $? -eq 75 ]
check "and lets the others finish" grep -q "8 drones: 4 flashed, 4 stopped" term.log
check "the next start can show the result" grep -q "4 flashed, 4 stopped" state/cfdfu/last-run.json

"$cfdfu" flash new.bin --all --expect 8 --no-leave >kill.log 2>&1 &
batch=$!
all_show kill.log erase 5 6 7 8 && sleep 1 && kill -KILL $batch
wait $batch 2>/dev/null
check "a batch is killed" [ $? -eq 137 ]

"$cfdfu" flash new.bin --all --expect 8 --no-leave >int.log 2>&1 &
batch=$!
shows int.log '  write' && kill -INT $batch
wait $batch
check "after a kill, an interrupt stops all at their safe points" [ $? -eq 75 ]
check "and says so" grep -q "stopped" int.log

# The batch sleeps while other instances run beside it, as after Ctrl-Z, so that it cannot end before them on any machine.
"$cfdfu" flash new.bin --all --expect 8 --no-leave --byte-mode >hup.log 2>&1 &
batch=$!
all_show hup.log Unchanged 1 2 3 4 && all_show hup.log write 5 6 7 8 && kill -STOP $batch
check "a second cfdfu leaves a drone of the batch alone" \
  says "Another cfdfu is using port 1-6" 74 "$cfdfu" flash old.bin --device 1-6 --no-leave
check "a second batch leaves two of them alone" \
  says "2 drones: 2 failed" 74 "$cfdfu" flash old.bin --all --expect 2 --device 1-7 --device 1-8 --no-leave
check "and says why" grep -q "Another cfdfu is using port 1-8" said
check "it did not open them" [ "$(grep -c '(another program is using the device) in DFU mode' said)" -eq 2 ]
check "both beside the batch, which goes on" kill -CONT $batch
kill -HUP $batch
wait $batch
check "SIGHUP lets all finish" [ $? -eq 0 ]
check "the flash of all is complete" grep -q "8 drones: 4 flashed, 4 unchanged" hup.log
check "dfu-util reads the new image from all eight, after three signals and a kill" holds new.bin
check "undo restores the previous firmware of all" says "8 drones: 8 flashed" 0 "$cfdfu" undo --all --expect 8
for n in 1 2 3 4 5 6 7 8; do echo dfu $n >&3; done
check "all are back in DFU mode" count 8 0483:df11
check "dfu-util reads the previous firmware from all eight" holds old.bin
stop

# Different stories: five to update, one that holds the image, a Brushless, one without firmware in DFU mode, and a
# write-protected one. The tenth device is a Loco Positioning Node, which has the USB ID of a running Crazyflie.
"$cfdfu" demo-image was.bin --version 2025.02 --size 276672
start fleet-mixed 0483:5740
check "seven running drones and a node are listed" count 8 0483:5740
check "and two drones in DFU mode" count 2 0483:df11
echo dfu 6 >&3
check "the Brushless is in DFU mode" count 3 0483:df11
check "dfu-util reads its firmware" dfu-util -p 1-6 -a 0 -s 0x08004000:276672 -U brushless.bin
echo unplug 6 >&3
check "it is unplugged" count 2 0483:df11
echo plug 6 >&3
check "and runs again" count 8 0483:5740
check "with --strict, the Brushless keeps all from being written" says "Nothing was written to any drone" 65 "$cfdfu" flash new.bin --all --strict --expect 9
check "the others are flashed, the Brushless is refused, and the write-protected drone fails" \
  says "9 drones: 6 flashed, 1 unchanged, 1 refused, 1 failed" 74 "$cfdfu" flash new.bin --all --expect 9
check "the write protection is named" grep -q "write protection is set for sector 2" said
check "all but that one run" count 9 0483:5740
check "the Brushless runs its own firmware" says "runs        2025.02" 0 "$cfdfu" identify --all
check "and is the only one" [ "$(grep -c 'runs        2025.02' said)" -eq 1 ]
check "the node was never restarted" [ "$(grep -c '^Drone 10:' sim.log)" -eq 1 ]
for n in 1 2 3 4 5 6 7 8; do echo dfu $n >&3; done
check "all nine drones are in DFU mode" count 9 0483:df11
check "dfu-util reads the image from the seven" chips new.bin 1-1 1-2 1-3 1-4 1-5 1-7 1-8
check "the Brushless holds what it held before" chip 1-6 brushless.bin
check "the write-protected drone, too" chip 1-9 was.bin
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
