//! Reads and parses USB descriptors over [`Transport`], so that the real and the simulated bus share one parser.
//!
//! Descriptors come from the device and are not trusted: lengths are checked here, and text is cleaned for printing.

use std::time::Duration;

use super::{Setup, TransferError, Transport};

/// The time limit for GET_DESCRIPTOR, which a working device answers at once.
///
/// A cancellation must take effect within two seconds, even if the device hangs. The worker sends the request up to
/// four times, with pauses of 250 ms in total (`worker::retry`): 4 × 400 ms + 250 ms = 1.85 s.
const LIMIT: Duration = Duration::from_millis(400);
/// bmRequestType: device to host, standard, device.
const STANDARD_IN: u8 = 0x80;
const GET_DESCRIPTOR: u8 = 6;
const DEVICE: u8 = 1;
const CONFIGURATION: u8 = 2;
const STRING: u8 = 3;
const INTERFACE: u8 = 4;
const US_ENGLISH: u16 = 0x0409;
/// Longer configuration descriptors are truncated. The boot ROM's descriptor is 54 bytes long, and the firmware's 98.
const CONFIGURATION_MAX: usize = 4096;

/// The device's identification strings, made safe to print: see [`clean`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Strings {
    /// iManufacturer.
    pub manufacturer: String,
    /// iProduct.
    pub product: String,
    /// iSerialNumber.
    pub serial: String,
}

/// An interface descriptor and the class-specific descriptors that follow it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Interface {
    /// bInterfaceNumber.
    pub number: u8,
    /// bAlternateSetting.
    pub alternate: u8,
    /// bInterfaceClass, bInterfaceSubClass and bInterfaceProtocol.
    pub class: (u8, u8, u8),
    /// iInterface, the index of the interface's name.
    pub name: u8,
    /// Everything up to the next interface descriptor.
    pub extra: Vec<u8>,
}

/// The strings of a device, some of which may be unreadable.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Names {
    /// A string that could not be read is empty.
    pub strings: Strings,
    /// The last error, if a string could not be read. In that case, the strings do not prove anything about the device.
    pub lost: Option<TransferError>,
}

/// Reads the strings of a device. Reads the serial number first, because it distinguishes drones; after a timeout, does
/// not request the remaining strings.
pub(crate) fn names(transport: &mut dyn Transport) -> Result<Names, TransferError> {
    let mut device = [0; 18];
    let n = get(transport, DEVICE, 0, 0, &mut device)?;
    let mut lost = None;
    let mut name = |offset: usize| {
        if lost == Some(TransferError::Timeout) {
            return Ok(String::new());
        }
        match string(transport, if offset < n { device[offset] } else { 0 }) {
            Err(error) if error.is_transient() => {
                lost = Some(error);
                Ok(String::new())
            }
            name => name,
        }
    };
    let strings = Strings { serial: name(16)?, product: name(15)?, manufacturer: name(14)? };
    Ok(Names { strings, lost })
}

/// Reads a string descriptor. Returns an empty string for index 0, which means that the device has no such string.
pub(crate) fn string(transport: &mut dyn Transport, index: u8) -> Result<String, TransferError> {
    if index == 0 {
        return Ok(String::new());
    }
    let mut buffer = [0; 255];
    let n = get(transport, STRING, index, US_ENGLISH, &mut buffer)?;
    Ok(parse_string(buffer.get(..n).unwrap_or_default()))
}

/// Reads the interfaces of the first configuration, with one entry per alternate setting.
pub(crate) fn interfaces(transport: &mut dyn Transport) -> Result<Vec<Interface>, TransferError> {
    let mut header = [0; 9];
    let n = get(transport, CONFIGURATION, 0, 0, &mut header)?;
    let total = if n >= 4 { usize::from(u16::from_le_bytes([header[2], header[3]])) } else { 0 };
    let mut buffer = vec![0; total.min(CONFIGURATION_MAX)];
    let n = get(transport, CONFIGURATION, 0, 0, &mut buffer)?;
    if n < buffer.len() {
        return Err(TransferError::Short);
    }
    Ok(parse_interfaces(buffer.get(..n).unwrap_or_default()))
}

/// Makes text from a device safe to print: drops control characters (including terminal escapes) and other characters
/// that [`is_printable`] rejects, trims spaces and limits the length.
pub(crate) fn clean(text: &str) -> String {
    text.chars().filter(|&c| is_printable(c)).take(126).collect::<String>().trim().to_owned()
}

/// Returns whether a character is safe to print: not a control character, an invisible character, a line separator, or
/// a character that reorders the text around it.
pub fn is_printable(c: char) -> bool {
    !c.is_control()
        && !matches!(c, '\u{061C}' | '\u{200B}'..='\u{200F}' | '\u{2028}'..='\u{202E}'
            | '\u{2060}'..='\u{206F}' | '\u{FEFF}' | '\u{FFF0}'..='\u{FFFF}')
}

fn get(
    transport: &mut dyn Transport,
    kind: u8,
    index: u8,
    language: u16,
    buffer: &mut [u8],
) -> Result<usize, TransferError> {
    let value = u16::from_be_bytes([kind, index]);
    let setup = Setup { request_type: STANDARD_IN, request: GET_DESCRIPTOR, value, index: language };
    transport.control_in(setup, buffer, LIMIT)
}

/// Parses a string descriptor. The length byte is capped at the number of bytes received, because the ROM of an
/// STM32F427 sends a wrong length.
fn parse_string(bytes: &[u8]) -> String {
    let [len, STRING, ..] = *bytes else { return String::new() };
    let end = usize::from(len).clamp(2, bytes.len());
    let units = bytes[2..end].as_chunks().0.iter().map(|&unit| u16::from_le_bytes(unit));
    clean(&char::decode_utf16(units.take_while(|&unit| unit != 0)).filter_map(Result::ok).collect::<String>())
}

fn parse_interfaces(mut bytes: &[u8]) -> Vec<Interface> {
    let mut interfaces: Vec<Interface> = Vec::new();
    while let [len, kind, ..] = *bytes {
        let len = usize::from(len);
        if len < 2 || len > bytes.len() {
            break;
        }
        let (descriptor, rest) = bytes.split_at(len);
        bytes = rest;
        match (kind, descriptor) {
            (INTERFACE, &[_, _, number, alternate, _, class, subclass, protocol, name, ..]) => {
                let class = (class, subclass, protocol);
                interfaces.push(Interface { number, alternate, class, name, extra: Vec::new() });
            }
            _ => {
                if let Some(interface) = interfaces.last_mut() {
                    interface.extra.extend_from_slice(descriptor);
                }
            }
        }
    }
    interfaces
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_string_is_limited_to_the_received_bytes_and_cleaned() {
        let encode = |text: &str| -> Vec<u8> {
            let units: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
            [&[u8::try_from(units.len() + 2).unwrap(), 3][..], &units].concat()
        };
        assert_eq!(parse_string(&encode("STM32  BOOTLOADER")), "STM32  BOOTLOADER");
        assert_eq!(parse_string(&encode("\u{1b}[2JCrazyflie\r\n\u{202e}2.x\u{7}")), "[2JCrazyflie2.x");
        let mut wrong_length = encode("abc");
        wrong_length[0] = 255;
        assert_eq!(parse_string(&wrong_length), "abc");
        wrong_length[0] = 0;
        assert_eq!(parse_string(&wrong_length), "");
        for bytes in [&[][..], &[2], &[2, 3], &[3, 3, 65], &[4, 1, 65, 0]] {
            assert_eq!(parse_string(bytes), "");
        }
    }

    /// The configuration of the STM32F4's ROM: only the last alternate setting has the functional descriptor.
    #[test]
    fn the_rom_configuration_has_four_settings_and_one_functional_descriptor() {
        let mut bytes = vec![9, 2, 54, 0, 1, 1, 0, 0xC0, 50];
        for alternate in 0..4 {
            bytes.extend([9, 4, 0, alternate, 0, 0xFE, 1, 2, 4 + alternate]);
        }
        bytes.extend([9, 0x21, 0x0B, 0xFF, 0, 0, 8, 0x1A, 1]);
        let interfaces = parse_interfaces(&bytes);
        assert_eq!(interfaces.iter().map(|i| i.extra.len()).collect::<Vec<_>>(), [0, 0, 0, 9]);
        assert_eq!(interfaces[3].name, 7);
        for cut in 0..bytes.len() {
            assert!(parse_interfaces(&bytes[..cut]).len() <= 4);
        }
        assert_eq!(parse_interfaces(&[0, 4, 1, 1]).len(), 0);
    }
}
