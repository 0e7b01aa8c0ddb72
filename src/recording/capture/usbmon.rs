//! Parses the two formats of Linux's usbmon: the text of `/sys/kernel/debug/usb/usbmon/*u`, and the binary header of
//! the packets that tcpdump and Wireshark save (kernel documentation, usb/usbmon).
//!
//! The text contains at most 32 bytes of each transfer. For longer data, the recording contains only the length.

use super::{ByteOrder, CaptureEvent, CapturePhase, CapturedData, OVERFLOW, Pairing, UNKNOWN, setup_packet};
use crate::recording::RecordingError;
use crate::usb::{Setup, TransferError};

/// Timestamps in the text are in microseconds and wrap after 4096 s (drivers/usb/mon/mon_text.c).
const TEXT_PERIOD: u64 = 4096 * 1_000_000;
/// The transfer types of the binary header.
const CONTROL: u8 = 2;
const BULK: u8 = 3;

/// Returns whether a line looks like usbmon text.
pub(super) fn is_text(line: &str) -> bool {
    let mut words = line.split_ascii_whitespace().skip(1);
    let (time, phase, address) = (words.next(), words.next(), words.next());
    time.is_some_and(|time| time.parse::<u64>().is_ok())
        && matches!(phase, Some("S" | "C" | "E"))
        && address.is_some_and(|address| address.contains(':'))
}

/// Reports the events of usbmon text.
pub(super) fn read_text<'a>(text: &'a str, pairing: &mut Pairing<'a>) -> Result<(), RecordingError> {
    let (mut epoch, mut last) = (0, 0);
    let mut lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()).peekable();
    while let Some((n, line)) = lines.next() {
        match parse_line(line) {
            Ok(Some(event)) => {
                // A much earlier time has wrapped. A slightly earlier time is only out of order.
                if event.at.saturating_add(TEXT_PERIOD / 2) < last {
                    epoch += TEXT_PERIOD;
                }
                last = event.at;
                pairing.report(CaptureEvent { at: event.at.saturating_add(epoch), ..event });
            }
            Ok(None) => {}
            // The capture was stopped in the middle of a line.
            Err(_) if lines.peek().is_none() && !text.ends_with('\n') => {}
            Err(error) => {
                return Err(RecordingError::Line { line: n + 1, error: error.to_owned() });
            }
        }
    }
    Ok(())
}

/// Parses a line. Returns `None` for interrupt and isochronous transfers, and for a control transfer whose setup packet
/// was not captured.
fn parse_line(line: &str) -> Result<Option<CaptureEvent<'_>>, &'static str> {
    let mut words = line.split_ascii_whitespace();
    let mut next = || words.next().ok_or("the line of usbmon text is incomplete");
    let (tag, at, phase, address) = (next()?, next()?, next()?, next()?);
    let at = at.parse().map_err(|_| "not a time in microseconds")?;
    let (kind, bus, device, number) = parse_address(address)?;
    let (is_control, is_input) = match kind {
        "Ci" | "Co" => (true, false),
        "Bi" => (false, true),
        "Bo" => (false, false),
        "Zi" | "Zo" | "Ii" | "Io" => return Ok(None),
        _ => return Err("not a USB transfer type"),
    };
    let mut setup = None;
    let status = next()?;
    // In a submission, a word that is not a number is the setup tag. The fields after the tag are valid only if the
    // tag is `s`.
    if status.bytes().all(|byte| byte.is_ascii_alphabetic() || byte == b'_') {
        let fields = [next()?, next()?, next()?, next()?, next()?];
        setup = if status == "s" { Some(parse_setup(fields)?) } else { None };
    }
    let phase = match phase {
        "S" => match (is_control, setup) {
            (true, Some((setup, length))) => CapturePhase::Control(setup, length),
            (true, None) => return Ok(None),
            (false, _) => CapturePhase::Bulk,
        },
        "C" | "E" => {
            let code = status.split(':').next().and_then(|code| code.parse().ok());
            CapturePhase::Complete(parse_status(code.ok_or("not the status of a USB transfer")?))
        }
        _ => return Err("not a usbmon event type"),
    };
    let length = words.next().map(str::parse::<u32>).transpose().map_err(|_| "not a length in bytes")?;
    let length = length.and_then(|length| usize::try_from(length).ok());
    let mut bytes = Vec::new();
    if words.next() == Some("=") {
        for word in words {
            bytes.extend(parse_data(word)?);
        }
    }
    let endpoint = if is_input { number | 0x80 } else { number };
    let payload = CapturedData { bytes: bytes.into(), length };
    Ok(Some(CaptureEvent { tag: tag.as_bytes(), at, bus, device, endpoint, phase, payload }))
}

/// Parses an address such as `Ci:1:005:0` into the kind, the bus, the device and the endpoint.
fn parse_address(word: &str) -> Result<(&str, u8, u8, u8), &'static str> {
    let mut fields = word.split(':');
    let kind = fields.next().unwrap_or_default();
    let mut number = || fields.next()?.parse().ok();
    match (number(), number(), number()) {
        (Some(bus), Some(device), Some(endpoint)) => Ok((kind, bus, device, endpoint)),
        _ => Err("not an address in the 1u format of usbmon"),
    }
}

fn parse_setup(fields: [&str; 5]) -> Result<(Setup, usize), &'static str> {
    const WRONG: &str = "not a setup packet";
    let number = |field| u16::from_str_radix(field, 16).map_err(|_| WRONG);
    let byte = |field| u8::from_str_radix(field, 16).map_err(|_| WRONG);
    let [request_type, request, value, index, length] = fields;
    let (request_type, request) = (byte(request_type)?, byte(request)?);
    let setup = Setup { request_type, request, value: number(value)?, index: number(index)? };
    Ok((setup, usize::from(number(length)?)))
}

fn parse_data(word: &str) -> Result<impl Iterator<Item = u8>, &'static str> {
    const WRONG: &str = "not hexadecimal data";
    let bytes: Option<Vec<u8>> = word
        .as_bytes()
        .chunks(2)
        .map(|pair| u8::from_str_radix(str::from_utf8(pair).ok()?, 16).ok().filter(|_| pair.len() == 2))
        .collect();
    Ok(bytes.ok_or(WRONG)?.into_iter())
}

/// Converts a Linux URB status (driver-api/usb/error-codes) to the error that libusb reports for it.
fn parse_status(status: i32) -> Result<(), TransferError> {
    Err(match status {
        0 => return Ok(()),
        // EPIPE.
        -32 => TransferError::Stall,
        // ENOENT, ECONNRESET and ETIMEDOUT. The host cancels a transfer when its time limit expires.
        -2 | -104 | -110 => TransferError::Timeout,
        // ENODEV and ESHUTDOWN.
        -19 | -108 => TransferError::Disconnected,
        // EIO, ETIME, ENOSR, ECOMM, EPROTO and EILSEQ.
        -5 | -62 | -63 | -70 | -71 | -84 => TransferError::Io,
        // EOVERFLOW.
        -75 => OVERFLOW,
        _ => UNKNOWN,
    })
}

/// Parses a packet whose header is `header` bytes long. Returns `None` for transfers that are not recorded, and for a
/// packet that is shorter than its header. If `time` is `None`, the time in the header is used.
pub(super) fn parse_packet(
    packet: &[u8],
    header: usize,
    order: ByteOrder,
    time: Option<u64>,
) -> Option<CaptureEvent<'_>> {
    let data = packet.get(header..)?;
    let byte = |at: usize| packet.get(at).copied();
    let has_setup = byte(14)? == 0;
    let phase = match (byte(8)?, byte(9)?) {
        (b'S', CONTROL) if has_setup => {
            let (setup, length) = setup_packet(packet.get(40..)?)?;
            CapturePhase::Control(setup, length)
        }
        (b'S', BULK) => CapturePhase::Bulk,
        (b'C' | b'E', CONTROL | BULK) => {
            CapturePhase::Complete(parse_status(i32::from_ne_bytes(order.u32(packet, 28)?.to_ne_bytes())))
        }
        _ => return None,
    };
    let captured = order.size(packet, 36)?.min(data.len());
    let in_header = order.u64(packet, 16)?.saturating_mul(1_000_000);
    Some(CaptureEvent {
        tag: packet.get(..8)?,
        at: time.unwrap_or(in_header.saturating_add(u64::from(order.u32(packet, 24)?))),
        bus: u8::try_from(order.u16(packet, 12)?).ok()?,
        device: byte(11)?,
        endpoint: byte(10)?,
        phase,
        payload: CapturedData { bytes: data.get(..captured)?.into(), length: Some(order.size(packet, 32)?) },
    })
}
