//! The packets of CRTP, the Crazyflie's real-time protocol, that cfdfu exchanges with running firmware. A packet
//! consists of a header, which contains a port and a channel, and up to 30 bytes of content (crazyflie-firmware,
//! docs/functional-areas/crtp).

use std::fmt;
use std::str::FromStr;

use crate::usb::descriptor::clean;
use crate::usb::{Pipe, Setup};

/// The request that switches the firmware's CRTP link from the radio to USB, so that the link uses [`CRTP_OUT`] and
/// [`CRTP_IN`].
pub(crate) const LINK_TO_USB: Setup = Setup { request_type: 0x40, request: 1, value: 1, index: 1 };
/// The request that switches the CRTP link back to the radio.
pub(crate) const LINK_TO_RADIO: Setup = Setup { request_type: 0x40, request: 1, value: 1, index: 0 };
/// The endpoint for CRTP packets to the firmware.
pub(crate) const CRTP_OUT: Pipe = Pipe { interface: 0, endpoint: 0x01 };
/// The endpoint for CRTP packets from the firmware.
pub(crate) const CRTP_IN: Pipe = Pipe { interface: 0, endpoint: 0x81 };
/// The size of the buffer for a read, which is the maximum packet size of the endpoint. A CRTP packet has at most 31
/// bytes.
pub(crate) const CRTP_MAX: usize = 64;

/// Returns the header of a packet on this port and channel. The two bits between port and channel are set, as all other
/// clients set them.
const fn header(port: u8, channel: u8) -> u8 {
    port << 4 | 0x0C | channel
}

/// Returns the content of a packet on this port and channel, or `None` for any other packet.
fn content(port: u8, channel: u8, packet: &[u8]) -> Option<&[u8]> {
    let (&first, rest) = packet.split_first()?;
    (first & 0xF3 == header(port, channel) & 0xF3).then_some(rest)
}

/// Returns the text in a packet from the console (port 0), or `None` for any other packet.
pub(crate) fn console_text(packet: &[u8]) -> Option<&[u8]> {
    content(0, 0, packet)
}

/// A question to the running firmware's platform service (CRTP port 13, channel 1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CrtpQuestion {
    /// The version, for example `2026.04` or `2025.02 +12`.
    Version = 1,
    /// The name of the board, for example `Crazyflie 2.1`. Older firmware does not answer this question.
    BoardName = 2,
}

impl CrtpQuestion {
    pub(crate) fn packet(self) -> [u8; 2] {
        [header(13, 1), self as u8]
    }

    /// Returns the text in an answer to this question, or `None` if the packet is not such an answer or its text is
    /// empty.
    pub fn answer(self, packet: &[u8]) -> Option<String> {
        let (&command, text) = content(13, 1, packet)?.split_first()?;
        let text: Vec<u8> = text.iter().copied().take_while(|&byte| byte != 0).collect();
        let text = clean(&String::from_utf8_lossy(&text));
        (command == self as u8 && !text.is_empty()).then_some(text)
    }
}

/// The packet that asks for the number of memories (`crtp_mem.md`).
pub(crate) const COUNT_MEMORIES: [u8; 2] = [header(4, 0), 1];

pub(crate) fn memory_count(packet: &[u8]) -> Option<u8> {
    match content(4, 0, packet)? {
        [1, count, ..] => Some(*count),
        _ => None,
    }
}

/// Returns the packet that asks for the type of a memory. The EEPROM, which contains the radio address, has no fixed
/// number.
pub(crate) fn memory_request(number: u8) -> [u8; 3] {
    [header(4, 0), 2, number]
}

/// Returns whether the memory with this number is the EEPROM (type 0), or `None` if the packet is not an answer about
/// this memory.
pub(crate) fn is_eeprom(number: u8, packet: &[u8]) -> Option<bool> {
    match content(4, 0, packet)? {
        [2, other, kind, ..] if *other == number => Some(*kind == 0),
        // This memory does not exist.
        [2, other] if *other == number => Some(false),
        _ => None,
    }
}

/// Returns the packet that asks for the radio settings, which are at the start of the EEPROM.
pub(crate) fn radio_request(number: u8) -> [u8; 7] {
    [header(4, 1), number, 0, 0, 0, 0, RADIO_LEN]
}

/// The length of the radio settings in bytes: magic, version, channel, speed, two trims, address and checksum.
const RADIO_LEN: u8 = 21;

/// Returns the bytes in an answer to [`radio_request`], which are empty if the firmware reports an error, or `None` if
/// the packet is not such an answer.
pub(crate) fn parse_radio_block(number: u8, packet: &[u8]) -> Option<Vec<u8>> {
    let (address, rest) = content(4, 1, packet)?.split_first_chunk::<5>()?;
    if *address != [number, 0, 0, 0, 0] {
        return None;
    }
    Some(rest.strip_prefix(&[0]).unwrap_or_default().to_vec())
}

/// The highest radio channel.
const CHANNEL_MAX: u8 = 125;

/// The radio settings of a drone. The address identifies the drone in a swarm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Radio {
    channel: u8,
    /// An index into [`SPEEDS`].
    speed: u8,
    /// A five-byte number.
    address: u64,
}

impl Radio {
    /// Parses version 1 of the settings (crazyflie-firmware, `configblockeeprom.c`). The last byte is the sum of all
    /// other bytes.
    pub fn of(block: &[u8]) -> Option<Radio> {
        let (block, &[sum]) = block.get(..usize::from(RADIO_LEN))?.split_last_chunk::<1>()?;
        let total = block.iter().fold(0_u8, |total, &byte| total.wrapping_add(byte));
        let &[channel, speed] = block.strip_prefix(b"0xBC\x01")?.first_chunk::<2>()?;
        // The four lower bytes of the address are little-endian, and the upper byte precedes them.
        let &[upper, a, b, c, d] = block.last_chunk::<5>()?;
        let address = u64::from(upper) << 32 | u64::from(u32::from_le_bytes([a, b, c, d]));
        (total == sum && channel <= CHANNEL_MAX && speed <= 2).then_some(Radio { channel, speed, address })
    }
}

impl Radio {
    /// Returns the address in hexadecimal, for example `E7E7E7E7E7`.
    pub(crate) fn name(self) -> String {
        format!("{:010X}", self.address)
    }
}

/// The speeds as they appear in a URI: 250 kbit/s, 1 Mbit/s and 2 Mbit/s, indexed by their number in the settings.
const SPEEDS: [&str; 3] = ["250K", "1M", "2M"];

impl fmt::Display for Radio {
    /// Writes the URI that clients connect to, for example `radio://0/80/2M/E7E7E7E7E7`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let speed = SPEEDS.get(usize::from(self.speed)).copied().unwrap_or("2M");
        write!(f, "radio://0/{}/{speed}/{}", self.channel, self.name())
    }
}

impl FromStr for Radio {
    type Err = ();

    /// Parses a URI in the form that `Display` writes.
    fn from_str(text: &str) -> Result<Radio, ()> {
        let mut parts = text.strip_prefix("radio://0/").ok_or(())?.split('/');
        let (Some(channel), Some(speed), Some(address), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(());
        };
        let channel = channel.parse().ok().filter(|channel| *channel <= CHANNEL_MAX).ok_or(())?;
        let speed = (0..).zip(SPEEDS).find(|(_, name)| *name == speed).ok_or(())?.0;
        let digits = Some(address).filter(|address| address.len() == 10);
        let address = digits.and_then(|address| u64::from_str_radix(address, 16).ok()).ok_or(())?;
        // Reject any other spelling of the same settings, such as a channel with a leading zero.
        Some(Radio { channel, speed, address }).filter(|radio| radio.to_string() == text).ok_or(())
    }
}

/// The name of the parameter that overrides the LEDs (`led.c`).
const LEDS: &[u8] = b"led\0bitmask\0";

/// Returns the packet that sets the LEDs. Bit 7 of `mask` overrides the firmware, each other bit selects an LED, and a
/// `mask` of 0 ends the override. The parameter is not persistent and does not control a motor (`crtp_parameters.md`,
/// `SET_BY_NAME`).
pub(crate) fn leds_request(mask: u8) -> Vec<u8> {
    const SET_BY_NAME: u8 = 0;
    const UINT8: u8 = 8;
    [&[header(2, 3), SET_BY_NAME], LEDS, &[UINT8, mask]].concat()
}

/// Returns whether the firmware has set the LEDs, or `None` if the packet is not an answer to [`leds_request`].
pub(crate) fn leds_are_set(packet: &[u8]) -> Option<bool> {
    let result = content(2, 3, packet)?.strip_prefix(&[0])?.strip_prefix(LEDS)?;
    Some(result.first() == Some(&0))
}

/// The packet that asks for the number of parameters (`crtp_parameters.md`, version 2 of the table of contents).
pub(crate) const COUNT_PARAMETERS: [u8; 2] = [header(2, 0), 3];

pub(crate) fn parameter_count(packet: &[u8]) -> Option<u16> {
    match content(2, 0, packet)? {
        [3, low, high, ..] => Some(u16::from_le_bytes([*low, *high])),
        _ => None,
    }
}

/// Returns the packet that asks for the name of a parameter.
pub(crate) fn parameter_request(number: u16) -> [u8; 4] {
    let [low, high] = number.to_le_bytes();
    [header(2, 0), 2, low, high]
}

/// Returns whether the parameter with this number has this name, or `None` if the packet is not an answer about this
/// parameter. `name` has the form `GROUP\0NAME\0`; the last NUL may be missing from the answer.
pub(crate) fn is_parameter(number: u16, name: &[u8], packet: &[u8]) -> Option<bool> {
    let rest = content(2, 0, packet)?.strip_prefix(&[2])?;
    // This parameter does not exist.
    let Some((id, rest)) = rest.split_first_chunk::<2>() else { return Some(false) };
    let found = rest.get(1..).unwrap_or_default();
    let is_same = found == name || Some(found) == name.strip_suffix(&[0]);
    (u16::from_le_bytes(*id) == number).then_some(is_same)
}

/// The name of the parameter that contains the self-test verdict (`system.c`).
pub(crate) const SELF_TEST_PASSED: &[u8] = b"system\0selftestPassed\0";

/// Returns the packet that asks for the value of a parameter.
pub(crate) fn parameter_value_request(number: u16) -> [u8; 3] {
    let [low, high] = number.to_le_bytes();
    [header(2, 1), low, high]
}

/// Returns the value of a one-byte parameter, or `None` for any other packet or if the firmware reports an error.
pub(crate) fn parameter_value(number: u16, packet: &[u8]) -> Option<u8> {
    let (id, rest) = content(2, 1, packet)?.split_first_chunk::<2>()?;
    match rest {
        [0, value, ..] if u16::from_le_bytes(*id) == number => Some(*value),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_answer_is_distinguished_from_other_packets() {
        let version = |packet: &[u8]| CrtpQuestion::Version.answer(packet);
        assert_eq!(version(b"\xDD\x012026.04\0").as_deref(), Some("2026.04"));
        assert_eq!(version(b"\xD1\x012025.02 +12").as_deref(), Some("2025.02 +12"));
        for other in
            [&b""[..], b"\xDD", b"\xDD\x01", b"\x00SYS: ok", b"\xDD\x02Crazyflie 2.1", b"\xDC\x012026.04"]
        {
            assert_eq!(version(other), None, "{other:?}");
        }
        assert_eq!(version(b"\xDD\x01\x1b[2J\xFF").as_deref().map(|text| text.contains('\x1b')), Some(false));
    }

    /// Radio settings in the format of `configblockeeprom.c`.
    fn block(version: u8, channel: u8, address: [u8; 5]) -> Vec<u8> {
        let mut block = [b"0xBC", &[version, channel, 2][..], &[0; 8], &address].concat();
        block.push(block.iter().fold(0, |sum: u8, &byte| sum.wrapping_add(byte)));
        block
    }

    #[test]
    fn invalid_radio_settings_are_rejected() {
        let good = block(1, 80, [0xE7, 0x05, 0xE7, 0xE7, 0xE7]);
        assert_eq!(Radio::of(&good).unwrap().to_string(), "radio://0/80/2M/E7E7E7E705");
        for n in 0..good.len() {
            let mut bad = good.clone();
            bad[n] ^= 1;
            assert_eq!(Radio::of(&bad), None, "byte {n}");
            assert_eq!(Radio::of(&good[..n]), None, "{n} bytes");
        }
        assert_eq!(Radio::of(&block(2, 80, [0; 5])), None);
        assert_eq!(Radio::of(&block(1, 126, [0; 5])), None);
        assert_eq!(Radio::of(&[0xFF; 21]), None);
    }

    /// Another program may have changed the file with the remembered addresses.
    #[test]
    fn a_radio_uri_is_accepted_only_in_the_form_that_cfdfu_writes() {
        for uri in
            ["radio://0/80/2M/E7E7E7E705", "radio://0/0/250K/0000000001", "radio://0/125/1M/FFFFFFFFFF"]
        {
            assert_eq!(uri.parse::<Radio>().map(|radio| radio.to_string()).as_deref(), Ok(uri));
        }
        for other in [
            "",
            "\u{1b}[2Jx",
            "radio://0/126/2M/E7E7E7E705",
            "radio://0/+8/2M/E7E7E7E705",
            "radio://0/80/3M/E7E7E7E705",
            "radio://0/80/2M/E7E7E7E7",
            "radio://0/80/2M/+7E7E7E705",
            "radio://0/80/2M/E7E7E7E70505",
            "radio://0/80/2M/E7E7E7E705/x",
        ] {
            assert_eq!(other.parse::<Radio>(), Err(()), "{other}");
        }
    }

    #[test]
    fn memory_and_led_answers_are_distinguished_from_other_packets() {
        // The reserved bits of an answer may be clear.
        assert_eq!(memory_count(&[0x40, 1, 3]), Some(3));
        assert_eq!(memory_count(&[0x4C, 2, 3]), None);
        assert_eq!(is_eeprom(1, &[0x4C, 2, 1, 0, 0, 0x20, 0, 0]), Some(true));
        assert_eq!(is_eeprom(1, &[0x4C, 2, 0, 0]), None);
        assert_eq!(is_eeprom(9, &[0x4C, 2, 9]), Some(false));
        let good = [&[0x4D, 1, 0, 0, 0, 0, 0][..], &block(1, 80, [0xE7; 5])].concat();
        assert!(Radio::of(&parse_radio_block(1, &good).unwrap()).is_some());
        assert_eq!(parse_radio_block(2, &good), None);
        assert_eq!(parse_radio_block(1, &[0x4D, 1, 0, 0, 0, 0, 5]), Some(Vec::new()), "a firmware error");
        assert_eq!(leds_request(0xFF), b"\x2F\0led\0bitmask\0\x08\xFF");
        assert_eq!(leds_are_set(b"\x2F\0led\0bitmask\0\0"), Some(true));
        assert_eq!(leds_are_set(b"\x2F\0led\0bitmask\0\x02"), Some(false), "no such parameter");
        assert_eq!(leds_are_set(b"\x2F\0ring\0effect\0\0"), None);
        for packet in [&[][..], &[0x4C], &[0x2F], &[0x2F, 0], &[0xDD, 1]] {
            assert_eq!((memory_count(packet), leds_are_set(packet)), (None, None));
        }
    }
}
