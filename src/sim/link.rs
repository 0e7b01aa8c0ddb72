//! The firmware's CRTP link over bulk endpoint 1: silent until the vendor request turns it to USB, then the
//! console speaks, and the platform service answers (crazyflie-firmware, `platformservice.c`).

use std::collections::VecDeque;

/// The longest CRTP packet: a header and 30 bytes.
const DATA_MAX: usize = 30;
/// Port 13, channel 1, and the two bits that are always set.
const PLATFORM_VERSION: u8 = 0xDD;
/// Port 0, channel 0.
const CONSOLE: u8 = 0x0C;

/// One direction of packets that wait to be fetched, and whether anybody listens.
#[derive(Clone, Debug, Default)]
pub(crate) struct Link {
    usb: bool,
    waiting: VecDeque<Vec<u8>>,
}

impl Link {
    /// Turns the link to USB or back to the radio.
    pub(crate) fn turn(&mut self, to_usb: bool) {
        self.usb = to_usb;
        self.waiting.clear();
        if to_usb {
            self.say(CONSOLE, b"SYS: ----------------------------\n");
            self.say(CONSOLE, b"EEPROM: I2C connection [OK].\n");
        }
    }

    /// Takes a packet from the host; false if nobody listens.
    pub(crate) fn packet(&mut self, packet: &[u8], version: &[u8], board: &[u8]) -> bool {
        match packet {
            _ if !self.usb => return false,
            [PLATFORM_VERSION, 0] => self.say(PLATFORM_VERSION, &[0, 10]),
            [PLATFORM_VERSION, 1] => self.say(PLATFORM_VERSION, &[&[1], version].concat()),
            [PLATFORM_VERSION, 2] => self.say(PLATFORM_VERSION, &[&[2], board].concat()),
            _ => {}
        }
        true
    }

    /// The next packet for the host.
    pub(crate) fn fetch(&mut self) -> Option<Vec<u8>> {
        self.waiting.pop_front()
    }

    fn say(&mut self, header: u8, data: &[u8]) {
        let mut packet = vec![header];
        packet.extend(&data[..data.len().min(DATA_MAX)]);
        self.waiting.push_back(packet);
    }
}
