//! The firmware's CRTP link over bulk endpoint 1. The link is silent until a vendor request switches it to USB. After
//! that, the console sends text and the platform service replies (crazyflie-firmware, `platformservice.c`).

use std::collections::VecDeque;

/// The longest CRTP packet: a header and 30 bytes.
const DATA_MAX: usize = 30;
/// The header of port 13, channel 1, with the two bits that are always set.
const PLATFORM_VERSION: u8 = 0xDD;
/// The header of port 0, channel 0.
const CONSOLE: u8 = 0x0C;

/// Whether the link is switched to USB, and the packets that wait for the host.
#[derive(Clone, Debug, Default)]
pub(crate) struct Link {
    usb: bool,
    waiting: VecDeque<Vec<u8>>,
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
    pub(crate) fn packet(&mut self, packet: &[u8], version: &[u8], board: &[u8]) -> bool {
        match packet {
            _ if !self.usb => return false,
            [PLATFORM_VERSION, 0] => self.send(PLATFORM_VERSION, &[0, 10]),
            [PLATFORM_VERSION, 1] => self.send(PLATFORM_VERSION, &[&[1], version].concat()),
            [PLATFORM_VERSION, 2] => self.send(PLATFORM_VERSION, &[&[2], board].concat()),
            _ => {}
        }
        true
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
