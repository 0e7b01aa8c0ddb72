//! The firmware's CRTP link over bulk endpoint 1. The link is silent until a vendor request switches it to USB. After
//! that, the console sends text, and the platform service, the memories and the parameters reply (crazyflie-firmware).

use std::collections::VecDeque;

/// The longest CRTP packet: a header and 30 bytes.
const DATA_MAX: usize = 30;
/// The header of port 13, channel 1, with the two bits that are always set.
const PLATFORM_VERSION: u8 = 0xDD;
/// The header of port 0, channel 0.
const CONSOLE: u8 = 0x0C;

/// The headers of port 4, channels 0 and 1, and of port 2, channel 3.
const MEMORY_INFO: u8 = 0x4C;
const MEMORY_READ: u8 = 0x4D;
const PARAMETER: u8 = 0x2F;

/// The EEPROM's first block: mark, version, channel, speed, two trims, radio address, checksum (configblockeeprom.c).
fn config_block(number: u8) -> Vec<u8> {
    let mut block = b"0xBC\x01\x50\x02".to_vec();
    block.extend([0; 8]);
    block.extend([0xE7, number, 0xE7, 0xE7, 0xE7]);
    let sum = block.iter().map(|byte| u32::from(*byte)).sum::<u32>();
    block.push(sum.to_le_bytes()[0]);
    block
}

/// Whether the link is switched to USB, and the packets that wait for the host.
#[derive(Clone, Debug, Default)]
pub(crate) struct Link {
    usb: bool,
    waiting: VecDeque<Vec<u8>>,
    /// The value of the parameter `led.bitmask`, and how many times it was set.
    pub(crate) leds: (u8, usize),
}

/// What the link needs to know about its drone.
pub(crate) struct Face<'a> {
    pub(crate) version: &'a [u8],
    pub(crate) board: &'a [u8],
    /// The last byte of the radio address.
    pub(crate) number: u8,
}

impl Link {
    /// Switches the link to USB or back to the radio.
    pub(crate) fn turn(&mut self, to_usb: bool) {
        self.usb = to_usb;
        self.waiting.clear();
        if to_usb {
            self.send(CONSOLE, b"SYS: ----------------------------\n");
            self.send(CONSOLE, b"EEPROM: I2C connection [OK].\n");
        }
    }

    /// Accepts a packet from the host. Returns `false` if the link is not switched to USB.
    pub(crate) fn packet(&mut self, packet: &[u8], face: &Face<'_>) -> bool {
        let Face { version, board, number } = *face;
        match packet {
            _ if !self.usb => return false,
            [PLATFORM_VERSION, 0] => self.send(PLATFORM_VERSION, &[0, 10]),
            [PLATFORM_VERSION, 1] => self.send(PLATFORM_VERSION, &[&[1], version].concat()),
            [PLATFORM_VERSION, 2] => self.send(PLATFORM_VERSION, &[&[2], board].concat()),
            // Two memories: the deck's, which registers first, and the EEPROM (mem.c).
            [MEMORY_INFO, 1] => self.send(MEMORY_INFO, &[1, 2]),
            [MEMORY_INFO, 2, which @ 0..=1] => {
                let kind = 1 - which;
                self.send(MEMORY_INFO, &[2, *which, kind, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
            }
            [MEMORY_INFO, 2, which] => self.send(MEMORY_INFO, &[2, *which]),
            [MEMORY_READ, 1, 0, 0, 0, 0, len] => {
                let block = config_block(number);
                let part = block.get(..usize::from(*len)).unwrap_or_default();
                self.send(MEMORY_READ, &[&[1, 0, 0, 0, 0, 0], part].concat());
            }
            [PARAMETER, 0, rest @ ..] => self.set_by_name(rest),
            _ => {}
        }
        true
    }

    /// Sets a parameter by its name (param_logic.c). The simulated firmware has only one.
    fn set_by_name(&mut self, request: &[u8]) {
        const NOT_FOUND: u8 = 2;
        let end = request.iter().enumerate().filter(|(_, byte)| **byte == 0).nth(1).map(|(at, _)| at + 1);
        let (names, value) = request.split_at(end.unwrap_or(request.len()));
        let result = match (names, value) {
            (b"led\0bitmask\0", [8, mask]) => {
                self.leds = (*mask, self.leds.1 + 1);
                0
            }
            _ => NOT_FOUND,
        };
        self.send(PARAMETER, &[&[0], names, &[result]].concat());
    }

    /// Removes the next packet for the host.
    pub(crate) fn fetch(&mut self) -> Option<Vec<u8>> {
        self.waiting.pop_front()
    }

    fn send(&mut self, header: u8, data: &[u8]) {
        let mut packet = vec![header];
        packet.extend(&data[..data.len().min(DATA_MAX)]);
        self.waiting.push_back(packet);
    }
}
