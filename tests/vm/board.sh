#!/usr/bin/env bash
# In the VM (see boot): what cfdfu knows of boards, bootloaders, firmwares and files, over a real USB stack; files
# made by other people's tools (dfuse-pack, dfu-suffix, objcopy, zip), flashed by dfu-util and by us.
# shellcheck source=tests/vm/lib.sh
. "$(dirname "$(readlink -f "$0")")/lib.sh"

size=60000
"$cfdfu" demo-image new.bin --size $size
"$cfdfu" demo-image old.bin --size $size --version 2026.04
"$cfdfu" demo-image loader.bin --kind loader
"$cfdfu" demo-image big.bin
"$cfdfu" demo-image bolt.bin --kind bolt --size $size

# flashed FILE: what the drone holds at 0x08004000 starts with FILE.
flashed() {
  "$cfdfu" backup now.bin --force && dd if=now.bin bs=16384 skip=1 status=none | head -c "$(stat -c %s "$1")" | cmp - "$1"
}

echo "== a drone that runs"
start healthy 0483:5740
check "identify asks it what it runs, over its bulk endpoints" says "runs        2025.02" 0 "$cfdfu" identify
check "and what board it is" grep -q "board       Crazyflie 2.1" said
check "and leaves it running" lsusb -d 0483:5740
check "make flash_dfu: the drone proves that it runs what was flashed" says "it says that it runs 2026.08" 0 "$cfdfu" flash new.bin
check "undo puts back what was there" says "it says that it runs 2025.02" 0 "$cfdfu" undo
check "undo of that brings the new one again" says "it says that it runs 2026.08" 0 "$cfdfu" undo
check "a firmware for another board is refused with both names" \
  says "board is CF21 (Crazyflie 2.1), revision B1, but the image is for CB10 (Crazyflie Bolt)" 65 "$cfdfu" flash bolt.bin
check "and the drone goes on" seen 0483:5740
check "the interface asks it, too" sh -c "sleep 4 | '$cfdfu' --plain | tee plain; grep -q 'runs        2026.08' plain"
stop

start old 0483:5740
check "a firmware from before 2022.03 is named so" says "too old to enter DFU mode by itself (before 2022.03)" 74 "$cfdfu" flash new.bin
echo unplug >&3
sleep 1
(sleep 4; echo dfu >&3) &
check "make flash_dfu_manual: it waits for the drone in DFU mode" says "Flashed and verified" 0 "$cfdfu" flash new.bin --wait 60
wait $!
stop

echo "== a drone in DFU mode"
start dfu
check "identify reads board, bootloader, firmware, protection and ROM" says "CF21 (Crazyflie 2.1), revision B1" 0 "$cfdfu" identify
check "as JSON" says '"bootloader":"bitcraze"' 0 "$cfdfu" identify --json
check "a backup is the whole flash" says "Read 1048576 bytes" 0 "$cfdfu" backup whole.bin
check "it is recognised" says "bootloader and firmware 2025.02" 0 "$cfdfu" inspect whole.bin
check "a firmware is refused as bootloader" says "not the Bitcraze bootloader" 65 "$cfdfu" restore-bootloader new.bin
check "a bootloader is refused as firmware" says "not a firmware" 65 "$cfdfu" flash loader.bin

echo "== files of other people's tools"
python3 "$(command -v dfuse-pack)" -b 0x08004000:new.bin new.dfu
dd if=new.bin bs=20000 count=1 status=none >first.part
dd if=new.bin bs=20000 skip=1 status=none >second.part
python3 "$(command -v dfuse-pack)" -b 0x08004000:first.part -b 0x08008E20:second.part parts.dfu
cp new.bin suffix.bin && dfu-suffix -v 0483 -p df11 -a suffix.bin >/dev/null
objcopy -I binary -O ihex --change-addresses 0x08004000 new.bin new.hex
cat >manifest.json <<JSON
{"version": 2, "subversion": 1, "fw_platform": "cf2", "release": "2026.08", "files": {
 "cf2-2026.08.bin": {"platform": "cf2", "target": "stm32", "type": "fw", "release": "2026.08"},
 "cf2_nrf-2026.08.bin": {"platform": "cf2", "target": "nrf51", "type": "fw", "release": "2026.08"}}}
JSON
cp new.bin cf2-2026.08.bin && cp old.bin cf2_nrf-2026.08.bin
python3 -c "import zipfile
z = zipfile.ZipFile('release.zip', 'w', zipfile.ZIP_DEFLATED)
for name in ['manifest.json', 'cf2-2026.08.bin', 'cf2_nrf-2026.08.bin']: z.write(name)"
for file in new.dfu parts.dfu suffix.bin new.hex release.zip; do
  check "old firmware first" "$cfdfu" flash old.bin --no-leave --no-undo
  check "$file is flashed" says "Flashed and verified" 0 "$cfdfu" flash $file --no-leave --no-undo
  check "and is what is there" flashed new.bin
done
check "the radio chip's part of a release is named" says "not updated over USB, though in the release: nrf51" 0 "$cfdfu" inspect release.zip
check "old firmware again" "$cfdfu" flash old.bin --no-leave --no-undo
check "dfu-util flashes the same .dfu" dfu-util -a 0 -D parts.dfu
check "and both tools wrote the same flash" "$cfdfu" verify parts.dfu
check "by its bytes, too" flashed new.bin
check "a backup goes back as a restore" says "every part of the backup" 0 sh -c "'$cfdfu' restore-bootloader whole.bin --no-leave && '$cfdfu' verify whole.bin && echo every part of the backup"
stop

echo "== lost in mid-flash"
start unplugged
(sleep 9; echo dfu >&3) &
check "with --wait a drone that is lost in mid-flash is gone on with when it is back" \
  says "Flashed and verified" 0 "$cfdfu" flash big.bin --no-leave --wait 60
wait $!
check "it said what state the drone was in" grep -q "no complete firmware now" said
check "and undo knows what worked, not what the interruption left" says "firmware 2025.02" 0 "$cfdfu" undo
stop

echo "== the bootloader is gone"
start overwritten
check "identify says so, and what helps" says "cfdfu restore-bootloader LOADER --firmware IMAGE" 0 "$cfdfu" identify
check "the interface says so and marks the job that helps" sh -c "sleep 4 | '$cfdfu' --plain | tee plain; grep -q 'b puts it back' plain"
check "flash warns" says "Warning: The bootloader is gone (overwritten by a firmware)" 0 "$cfdfu" flash new.bin --no-leave
check "bootloader recovery, with the firmware in one go" says "updated over radio again" 0 \
  "$cfdfu" restore-bootloader loader.bin --firmware new.bin --no-leave
check "it is there again" says "the Bitcraze bootloader" 0 "$cfdfu" identify
stop

echo "== what is no Crazyflie"
start relatives 1915:7777
seen 0483:5740
check "a Crazyradio and a Loco node are told by name" says "a Crazyradio" 69 "$cfdfu" flash new.bin
check "the node, which has the Crazyflie's numbers, too" grep -q "a Loco Positioning Node" said
check "and stays as it was" lsusb -d 0483:5740
stop
start px4 26ac:0016
check "PX4's bootloader is told by name" says "PX4 took the place" 69 "$cfdfu" list
stop
start clone 28e9:0189
check "a GD32 is told by name, and what it means" says "a GigaDevice GD32 in DFU mode" 69 "$cfdfu" flash new.bin
check "that it is never written to, too" grep -q "cfdfu does not write to it" said
check "list names it" says "a GigaDevice GD32 in DFU mode" 69 "$cfdfu" list
check "it stays as it was" lsusb -d 28e9:0189
stop
start other-chip
check "another STM32 is refused" says "not a Crazyflie" 69 "$cfdfu" flash new.bin
check "by identify, too" says "not a Crazyflie" 69 "$cfdfu" identify
stop

summary
