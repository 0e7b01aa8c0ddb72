#!/usr/bin/env bash
# Runs in the VM (see boot). Checks over a real USB stack how cfdfu recognises boards, bootloaders and firmware. Also
# flashes files made by other tools (dfuse-pack, dfu-suffix, objcopy, Python's zipfile) with cfdfu, and one of them with
# dfu-util.
# shellcheck source=tests/vm/lib.sh
. "$(dirname "$(readlink -f "$0")")/lib.sh"

size=60000
"$cfdfu" demo-image new.bin --size $size
"$cfdfu" demo-image old.bin --size $size --version 2026.04
"$cfdfu" demo-image loader.bin --kind loader
"$cfdfu" demo-image big.bin
"$cfdfu" demo-image bolt.bin --kind bolt --size $size

# contains FILE: succeeds if the drone's flash contains the file at 0x08004000.
contains() {
  "$cfdfu" backup now.bin --force && dd if=now.bin bs=16384 skip=1 status=none | head -c "$(stat -c %s "$1")" | cmp - "$1"
}

echo "== a running drone"
start healthy 0483:5740
check "identify queries the firmware version over the bulk endpoints" prints "runs        2025.02" 0 "$cfdfu" identify
check "identify also reports the board" grep -q "board       Crazyflie 2.1" printed
check "identify reads the radio address from the EEPROM" grep -q "radio://0/80/2M/E7E7E7E751" printed
check "blink reports that nothing was changed" prints "Nothing was changed" 0 "$cfdfu" blink
check "list remembers the radio address" prints "radio://0/80/2M/E7E7E7E751" 0 "$cfdfu" list
check "the drone is still running after identify" lsusb -d 0483:5740
check "after the restart, the drone reports the flashed version (make flash_dfu)" prints "Crazyflie is running 2026.08" 0 "$cfdfu" flash new.bin
check "undo restores the previous firmware" prints "Crazyflie is running 2025.02" 0 "$cfdfu" undo
check "a second undo restores the new firmware" prints "Crazyflie is running 2026.08" 0 "$cfdfu" undo
check "firmware for another board is refused, and the error names both boards" \
  prints "board is CF21 (Crazyflie 2.1), revision B1, but the image is for CB10 (Crazyflie Bolt)" 65 "$cfdfu" flash bolt.bin
check "the refused drone is still running" wait_for_device 0483:5740
check "the interface also queries the version" plain 'runs        2026.08'
stop

start old 0483:5740
check "firmware older than 2022.03 is reported as too old" prints "too old to enter DFU mode by itself (before 2022.03)" 74 "$cfdfu" flash new.bin
echo unplug >&3
wait_for_count 0 0483:5740
after 'Waiting for a Crazyflie' dfu
check "flash waits for the drone in DFU mode (make flash_dfu_manual)" prints "Flashed and verified" 0 "$cfdfu" flash new.bin --wait 60
wait $!
stop

echo "== a drone in DFU mode"
start dfu
check "identify reads the board" prints "CF21 (Crazyflie 2.1), revision B1" 0 "$cfdfu" identify
check "identify prints the bootloader as JSON" prints '"bootloader":"bitcraze"' 0 "$cfdfu" identify --json
check "a backup contains the whole flash" prints "Read 1,048,576 bytes" 0 "$cfdfu" backup whole.bin
check "inspect recognises the backup" prints "bootloader and firmware 2025.02" 0 "$cfdfu" inspect whole.bin
check "firmware is refused as a bootloader" prints "not the Bitcraze bootloader" 65 "$cfdfu" restore-bootloader new.bin
check "a bootloader is refused as firmware" prints "not firmware" 65 "$cfdfu" flash loader.bin

echo "== files made by other tools"
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
  check "the old firmware is flashed before $file" "$cfdfu" flash old.bin --no-leave --no-undo
  check "$file is flashed" prints "Flashed and verified" 0 "$cfdfu" flash $file --no-leave --no-undo
  check "the drone contains the image from $file" contains new.bin
done
check "inspect reports that the radio chip's part of a release is not flashed" prints "in the release, but not updated over USB: nrf51" 0 "$cfdfu" inspect release.zip
check "the old firmware is flashed again" "$cfdfu" flash old.bin --no-leave --no-undo
check "dfu-util flashes the same .dfu" dfu-util -a 0 -D parts.dfu
check "cfdfu verifies what dfu-util wrote" "$cfdfu" verify parts.dfu
check "the drone contains the same bytes as the image" contains new.bin
check "restore-bootloader restores a backup of the whole flash" prints "every part of the backup" 0 sh -c "'$cfdfu' restore-bootloader whole.bin --no-leave && '$cfdfu' verify whole.bin && echo every part of the backup"
stop

echo "== disconnected while flashing"
start unplugged
after 'device disconnected' dfu
check "with --wait, a flash resumes when the disconnected drone is plugged in again" \
  prints "Flashed and verified" 0 "$cfdfu" flash big.bin --no-leave --wait 60
wait $!
check "flash reported the state of the disconnected drone" grep -q "no working firmware right now" printed
check "undo restores the last complete firmware, not the interrupted flash" prints "firmware 2025.02" 0 "$cfdfu" undo
stop

echo "== an overwritten bootloader"
start overwritten
check "identify reports the overwritten bootloader and prints the repair command" prints "cfdfu restore-bootloader LOADER --firmware IMAGE" 0 "$cfdfu" identify
check "the interface reports the overwritten bootloader and offers to restore it" plain 'Press b to restore it'
check "flash warns that the bootloader is missing" prints "Warning: The bootloader is missing (overwritten by firmware)" 0 "$cfdfu" flash new.bin --no-leave
check "restore-bootloader writes bootloader and firmware in one run" prints "updated over radio again" 0 \
  "$cfdfu" restore-bootloader loader.bin --firmware new.bin --no-leave
check "identify reports the restored bootloader" prints "the Bitcraze bootloader" 0 "$cfdfu" identify
stop

echo "== devices other than a Crazyflie"
start relatives 1915:7777
wait_for_device 0483:5740
check "flash reports a Crazyradio by name" prints "a Crazyradio" 69 "$cfdfu" flash new.bin
check "flash reports a Loco Positioning Node, which has the USB ID of a Crazyflie, by name" grep -q "a Loco Positioning Node" printed
check "the Loco Positioning Node is still running" lsusb -d 0483:5740
stop
start px4 26ac:0016
check "list reports PX4's bootloader by name" prints "This drone has PX4's bootloader" 69 "$cfdfu" list
stop
start clone 28e9:0189
check "flash reports a GD32 by name" prints "a GigaDevice GD32 in DFU mode" 69 "$cfdfu" flash new.bin
check "flash explains that a GD32 is never written to" grep -q "cfdfu does not write to it" printed
check "list reports a GD32 by name" prints "a GigaDevice GD32 in DFU mode" 69 "$cfdfu" list
check "the GD32 is still in DFU mode" lsusb -d 28e9:0189
stop
start other-chip
check "flash refuses an STM32 that is not a Crazyflie" prints "not a Crazyflie" 69 "$cfdfu" flash new.bin
check "identify refuses an STM32 that is not a Crazyflie" prints "not a Crazyflie" 69 "$cfdfu" identify
stop

summary
