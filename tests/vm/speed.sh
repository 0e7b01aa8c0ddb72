#!/usr/bin/env bash
# Runs in the VM (see tests/vm/boot). Measures the wall times of dfu-util and cfdfu for the same jobs on the same
# simulated chip, from exec to exit and without the wait for the reboot. Prints "ROW job|dfu-util|cfdfu",
# "SIZE bytes|dfu-util|cfdfu" and "COST user system KiB" for benches/speed, which adds the chip's own time. The
# environment variable SIZES lists additional image sizes in KiB.
# shellcheck source=tests/vm/lib.sh
. "$(dirname "$(readlink -f "$0")")/lib.sh"

size=243176
full=1032192
"$cfdfu" demo-image new.bin --size $size
"$cfdfu" demo-image old.bin --size $size --version 2026.04
"$cfdfu" demo-image full.bin --size $full
"$cfdfu" demo-image full-old.bin --size $full --version 2026.04
# changed.bin differs from new.bin in one byte of the last sector.
cp new.bin changed.bin && printf '\001' | dd of=changed.bin bs=1 seek=$((size - 1)) conv=notrunc status=none

# dfu FILE: flashes with dfu-util. ours FILE OPTION…: flashes with cfdfu. Both set `took` to the wall time.
dfu() { seconds dfu-util -a 0 -s 0x08004000 -D "$1"; }
ours() {
  local file=$1
  shift
  seconds "$cfdfu" flash "$file" --no-leave --allow-mismatch "$@"
}

# row JOB DFU-FILE OUR-FILE OPTION…: measures a job with dfu-util and then with cfdfu, and prints the row.
row() {
  local job=$1 theirs=$2
  shift 2
  dfu "$theirs"
  local dfu_took=$took
  ours "$@"
  echo "ROW $job|$dfu_took|$took"
}

set -e
start dfu
dfu old.bin
row "default" new.bin old.bin
row "no-undo" new.bin old.bin --no-undo
row "byte-mode" new.bin old.bin --no-undo --byte-mode
row "again" old.bin old.bin
ours new.bin --no-undo
row "one-byte" new.bin changed.bin
row "full" full-old.bin full.bin --no-undo
seconds "$cfdfu" backup all.bin --force
echo "ROW backup||$took"
for kib in ${SIZES:-}; do
  "$cfdfu" demo-image a.bin --force --size $((kib * 1024)) --version 2026.04
  "$cfdfu" demo-image b.bin --force --size $((kib * 1024))
  dfu a.bin
  theirs=$took
  ours b.bin --no-undo
  echo "SIZE $((kib * 1024))|$theirs|$took"
done
/usr/bin/time -f "COST %U %S %M" "$cfdfu" flash old.bin --no-leave --no-undo 2>cost >/dev/null
grep COST cost
stop
