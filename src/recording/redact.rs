//! Removes from a recording everything that identifies a drone: the serial number as the firmware and as the boot ROM
//! report it, the chip's unique ID, and the contents of every firmware packet, because these packets contain the unique
//! ID and the radio address. Each drone gets a fictitious serial number whose two forms still match, so that a redacted
//! recording can be replayed.

use std::collections::HashMap;

use super::{DeviceNames, HexBytes, Line, Recorded, SetupWords, TransferResult};
use crate::crazyflie;
use crate::usb::Setup;

/// bmRequestType and bRequest of GET_DESCRIPTOR.
const GET_DESCRIPTOR: (u8, u8) = (0x80, 6);
/// The types of device and string descriptors.
const DEVICE: u8 = 1;
const STRING: u8 = 3;
/// The position of iSerialNumber in a device descriptor.
const SERIAL_INDEX: usize = 16;
/// bmRequestType and bRequest of DFU_DNLOAD and DFU_UPLOAD.
const DNLOAD: (u8, u8) = (0x21, 1);
const UPLOAD: (u8, u8) = (0xA1, 2);
const SET_ADDRESS: u8 = 0x21;
/// A read that overlaps this range may return the chip's unique ID, 12 bytes at 0x1FFF7A10 (RM0090 §39.1).
const UNIQUE_ID: std::ops::Range<u32> = 0x1FFF_7A00..0x1FFF_7A20;

#[derive(Default)]
pub struct Redactor {
    /// The drones, numbered in order of appearance, by their serial number in DFU mode.
    drones: HashMap<String, u32>,
    /// The replacement for each serial number and each printed unique ID.
    replaced: HashMap<String, String>,
    /// The open devices, indexed by their number in the recording.
    devices: HashMap<u32, OpenDevice>,
}

#[derive(Default)]
struct OpenDevice {
    /// iSerialNumber.
    serial_index: u8,
    /// The address pointer of the boot ROM, if the recording contains the command that set it.
    pointer: Option<u32>,
}

impl OpenDevice {
    /// Returns whether an UPLOAD of this block may contain bytes of the unique ID.
    fn may_read_id(&self, block: u16, len: usize) -> bool {
        const BLOCK: u64 = 2048;
        let Some(block) = block.checked_sub(2) else { return false };
        let Some(pointer) = self.pointer else { return true };
        let start = u64::from(pointer) + BLOCK * u64::from(block);
        start < u64::from(UNIQUE_ID.end) && start + len as u64 > u64::from(UNIQUE_ID.start)
    }
}

impl Redactor {
    /// Redacts a line. Lines must be passed in the order of the recording.
    pub fn redact_line(&mut self, line: Line) -> Line {
        let what = match line.what {
            Recorded::Start(header) => Recorded::Start(super::Header { redacted: true, ..header }),
            Recorded::Devices { mut devices } => {
                for names in devices.iter_mut().filter_map(|device| device.names.as_mut()) {
                    *names = DeviceNames { serial: self.replace(&names.serial), ..names.clone() };
                }
                Recorded::Devices { devices }
            }
            Recorded::In { device, setup, length, took, result } => {
                let result = self.redact_received(device, setup, result);
                Recorded::In { device, setup, length, took, result }
            }
            Recorded::Out { device, setup, took, result } => {
                let Setup { request_type, request, value, .. } = setup.0;
                let sent = result.data.as_ref().map(|data| data.0.as_slice());
                if let (DNLOAD, 0, Some([SET_ADDRESS, address @ ..])) = ((request_type, request), value, sent)
                    && let Ok(address) = address.try_into()
                {
                    self.devices.entry(device).or_default().pointer = Some(u32::from_le_bytes(address));
                }
                Recorded::Out { device, setup, took, result }
            }
            Recorded::Packet { device, endpoint, took, result } => {
                Recorded::Packet { device, endpoint, took, result: without_contents(&result) }
            }
            other => other,
        };
        Line { what, ..line }
    }

    /// Replaces the recording's serial numbers and printed unique IDs in `text`.
    pub fn redact_text(&self, text: String) -> String {
        // Short serial numbers, such as the "1" of an unrelated device, are not replaced because they could occur
        // anywhere. The longest serial number is replaced first because it may contain a shorter one.
        let mut replaced: Vec<(&String, &String)> =
            self.replaced.iter().filter(|(it, _)| it.len() >= 8).collect();
        replaced.sort_by_key(|(serial, _)| std::cmp::Reverse(serial.len()));
        replaced.into_iter().fold(text, |text, (serial, replacement)| text.replace(serial, replacement))
    }

    fn redact_received(
        &mut self,
        device: u32,
        SetupWords(setup): SetupWords,
        result: TransferResult,
    ) -> TransferResult {
        let opened = self.devices.entry(device).or_default();
        let [kind, index] = setup.value.to_be_bytes();
        let Some(HexBytes(data)) = &result.data else { return result };
        match (setup.request_type, setup.request) {
            UPLOAD if opened.may_read_id(setup.value, data.len()) => without_contents(&result),
            GET_DESCRIPTOR if kind == DEVICE => {
                opened.serial_index = data.get(SERIAL_INDEX).copied().unwrap_or(opened.serial_index);
                result
            }
            GET_DESCRIPTOR if kind == STRING && index != 0 => {
                let units = data.get(2..).unwrap_or_default().as_chunks().0.iter();
                let units: Vec<u16> = units.map(|&unit| u16::from_le_bytes(unit)).collect();
                let text = String::from_utf16_lossy(&units);
                // A capture that begins late does not contain the device descriptor with the serial number's index.
                if index != opened.serial_index && !is_like_a_serial(&text) {
                    return result;
                }
                let serial = self.replace(&text);
                let head = data.get(..2).unwrap_or_default();
                let text: Vec<u8> = serial.encode_utf16().flat_map(u16::to_le_bytes).collect();
                let len = data.len();
                let mut replaced = [head, &text].concat();
                replaced.resize(len, 0);
                TransferResult::data(&replaced)
            }
            _ => result,
        }
    }

    /// Returns the fictitious replacement for a serial number, in the same form. A serial number of unknown form is
    /// replaced with zeros.
    fn replace(&mut self, serial: &str) -> String {
        if serial.is_empty() || serial == crazyflie::HIDDEN_SERIAL {
            return serial.to_owned();
        }
        let in_dfu = crazyflie::dfu_serial(serial).unwrap_or_else(|| serial.to_ascii_uppercase());
        let next = u32::try_from(self.drones.len()).unwrap_or(u32::MAX).saturating_add(1);
        let number = *self.drones.entry(in_dfu).or_insert(next);
        let running = format!("{:08X}0000000000000000", number.swap_bytes());
        let replacement = match serial.len() {
            24 => running,
            12 => crazyflie::dfu_serial(&running).unwrap_or_default(),
            other => "0".repeat(other),
        };
        self.replaced.insert(serial.to_owned(), replacement.clone());
        if let Some(id) = printed_id(serial) {
            self.replaced.insert(id, "(redacted)".to_owned());
        }
        replacement
    }
}

/// Formats the unique ID as the firmware prints it at start-up: the three words of the serial number, last word first,
/// each printed as a little-endian number (`system.c`).
fn printed_id(running: &str) -> Option<String> {
    let word = |at: usize| u32::from_str_radix(running.get(at..at + 8)?, 16).ok().map(u32::swap_bytes);
    let (first, second, third) = (word(0)?, word(8)?, word(16)?);
    (running.len() == 24).then(|| format!("{third:08X}{second:08X}{first:08X}"))
}

/// Returns whether a string looks like a drone's serial number in either mode.
fn is_like_a_serial(text: &str) -> bool {
    [12, 24].contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Keeps the number of bytes but not their hash, because the hash of an ID or of a short string could be reversed by
/// trying all values.
fn without_contents(result: &TransferResult) -> TransferResult {
    TransferResult { bytes: Some(result.len()), error: result.error, ..TransferResult::default() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recording::parse;

    /// A recording of one drone, first running and then in DFU mode. Linux lists the serial number of the running
    /// drone; in DFU mode, cfdfu reads it from the string descriptor.
    const LINES: &str = r#"{"at":0,"event":"start","recording":1,"program":"t","system":"linux"}
{"at":1,"event":"devices","devices":[{"port":"1-1","address":5,"vendor":"0483","product":"5740","release":"0200","names":{"manufacturer":"Bitcraze AB","product":"Crazyflie 2.x","serial":"51004F000551343036333233"}}]}
{"at":2,"event":"packet","device":0,"endpoint":129,"took":9,"result":1,"data":"0c5359533a204920616d"}
{"at":3,"event":"in","device":1,"setup":"80 06 0100 0000","length":18,"took":9,"data":"1201000100000040830411df002201020301"}
{"at":4,"event":"in","device":1,"setup":"80 06 0303 0409","length":255,"took":9,"data":"1a03330033003800310033003300380037003300300033003400"}
{"at":5,"event":"out","device":1,"setup":"21 01 0000 0000","took":9,"data":"21107aff1f"}
{"at":6,"event":"in","device":1,"setup":"a1 02 0002 0000","length":12,"took":9,"data":"51004f000551343036333233"}
"#;

    /// The capture begins after the enumeration, and the read begins at an address before the unique ID.
    #[test]
    fn a_serial_number_is_recognised_by_its_form_and_the_unique_id_by_its_address() {
        let start = r#"{"at":0,"event":"start","recording":1,"program":"t","system":"linux"}"#;
        let name = LINES.lines().nth(4).unwrap();
        let pointer =
            r#"{"at":5,"event":"out","device":1,"setup":"21 01 0000 0000","took":9,"data":"21f079ff1f"}"#;
        let read = r#"{"at":6,"event":"in","device":1,"setup":"a1 02 0002 0000","length":44,"took":9,"data":"00112233445566778899aabbccddeeff0011223344556677"}"#;
        let mut redactor = Redactor::default();
        let lines = parse(&[start, name, pointer, read].join("\n")).unwrap();
        let lines: Vec<Line> = lines.into_iter().map(|line| redactor.redact_line(line)).collect();
        assert_ne!(lines[1].to_string(), name);
        assert!(!lines[3].to_string().contains("data"), "{}", lines[3]);
    }

    #[test]
    fn a_redacted_recording_does_not_identify_the_drone_and_its_serial_numbers_still_match() {
        let mut redactor = Redactor::default();
        let lines: Vec<Line> =
            parse(LINES).unwrap().into_iter().map(|line| redactor.redact_line(line)).collect();
        let text: Vec<String> = lines.iter().map(Line::to_string).collect();
        let text = text.join("\n");
        for secret in ["51004F00", "51004f00", "338133873034", "330033003800", "0c535953"] {
            assert!(!text.contains(secret), "{secret} was not removed:\n{text}");
        }
        let Recorded::Devices { devices } = &lines[1].what else { panic!("{:?}", lines[1]) };
        let running = &devices[0].names.as_ref().unwrap().serial;
        let Recorded::In { result, .. } = &lines[4].what else { panic!("{:?}", lines[4]) };
        let data = &result.data.as_ref().unwrap().0;
        let in_dfu: String = data[2..].iter().step_by(2).map(|&byte| char::from(byte)).collect();
        assert!(crazyflie::is_same_serial(running, &in_dfu), "{running} and {in_dfu}");
        let report = redactor.redact_text("drone 51004F000551343036333233 (338133873034)".to_owned());
        assert_eq!(report, format!("drone {running} ({in_dfu})"));
        let console = redactor.redact_text("SYS: I am 0x3332333630345105004F0051 and I have".to_owned());
        assert_eq!(console, "SYS: I am 0x(redacted) and I have");
    }
}
