#!/usr/bin/env bash
# Runs in the VM (see boot). Makes the captures in tests/recordings: the real dfu-util reads and flashes the simulated
# drone, and usbmon captures the transfers, as text and through tcpdump. tests/all does not run this script, because the
# repository contains the captures. Needs dfu-util and tcpdump. Prints the captures as a base64-encoded .tar.gz, which
# these commands unpack:
#   tests/vm/boot tests/vm/capture.sh >log
#   sed -n '/^BEGIN CAPTURES/,/^END CAPTURES/{//!p}' log | base64 -di | tar -xz -C tests/recordings
# shellcheck source=tests/vm/lib.sh
. "$(dirname "$(readlink -f "$0")")/lib.sh"

size=20000
text=dfu-util-linux.usbmon.txt
binary=dfu-util-linux.pcap
"$cfdfu" demo-image small.bin --size $size

mountpoint -q /sys/kernel/debug || mount -t debugfs debugfs /sys/kernel/debug
check "the kernel has usbmon" test -e /sys/kernel/debug/usb/usbmon/0u -a -c /dev/usbmon0

# Bus 0 means all buses. The captures begin before the drone is plugged in, so that they contain its descriptors.
cat /sys/kernel/debug/usb/usbmon/0u >$text &
reader=$!
tcpdump -i usbmon0 -s 0 -U -Z root -w $binary 2>tcpdump.log &
dumper=$!
wait_for_text tcpdump.log 'listening on'

start dfu
check "dfu-util reads back 4096 bytes" dfu-util -a 0 -s 0x08004000:4096 -U up.bin
# The drone restarts before it answers the last DFU_GETSTATUS, which dfu-util reports as an error.
check "dfu-util flashes the image" sh -c "
  dfu-util -a 0 -s 0x08004000:leave -D small.bin >flash.log 2>&1; cat flash.log; grep 'File downloaded successfully' flash.log"
check "the drone is running" wait_for_device 0483:5740
stop
sleep 1
kill -INT $dumper
kill $reader
wait $dumper $reader 2>/dev/null
cat tcpdump.log

# dfu-util sends the image in blocks of 2048 bytes, and sets the address before each block.
blocks=$((size / 2048))
check "the text capture contains the DFU_DNLOAD of every block" sh -c "
  full=\$(grep -c ' S Co:[0-9:]* s 21 01 [0-9a-f]* 0000 0800 ' $text); rest=\$(grep -c ' S Co:[0-9:]* s 21 01 [0-9a-f]* 0000 $(printf %04x $((size % 2048))) ' $text)
  echo \$full \$rest; [ \$full -eq $blocks ] && [ \$rest -eq 1 ]"
check "the binary capture contains every block of the image" python3 -c "
capture = open('$binary', 'rb').read()
image = open('small.bin', 'rb').read()
missing = [at for at in range(0, len(image), 2048) if image[at:at + 2048] not in capture]
print(missing)
assert not missing"
check "neither capture is larger than 150 kB" sh -c "wc -c $text $binary; ! find $text $binary -size +150k | grep ."

echo "BEGIN CAPTURES"
tar -cz $text $binary | base64
echo "END CAPTURES"
summary
