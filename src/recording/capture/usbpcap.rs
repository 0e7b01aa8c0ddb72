//! Parses the packets that USBPcap captures on Windows (desowin.org/usbpcap/captureformat.html).
//!
//! USBPcap saves the complete data of every transfer, but not the transfers that assign an address to a device.

use super::{ByteOrder, CaptureEvent, CapturePhase, CapturedData, OVERFLOW, UNKNOWN, setup_packet};
use crate::usb::TransferError;

/// Transfer types.
const CONTROL: u8 = 2;
const BULK: u8 = 3;
/// Stages of a control transfer. Versions before 1.5 write separate packets for the data.
const SETUP: u8 = 0;
const DATA: u8 = 1;
const STATUS: u8 = 2;
const COMPLETE: u8 = 3;
/// The length of a setup packet, which precedes the data that the host sends.
const SETUP_LENGTH: usize = 8;

/// Parses a packet. Returns `None` for transfers that are not recorded, and for a packet that is shorter than its
/// header.
pub(super) fn parse_packet(packet: &[u8], at: u64) -> Option<CaptureEvent<'_>> {
    let order = ByteOrder::Little;
    let byte = |at: usize| packet.get(at).copied();
    let mut data = packet.get(usize::from(order.u16(packet, 0)?)..)?;
    let mut length = order.size(packet, 23)?;
    let result = parse_status(order.u32(packet, 10)?);
    let is_answer = byte(16)? & 1 != 0;
    let phase = match (byte(22)?, is_answer) {
        (CONTROL, _) => match byte(27)? {
            SETUP => {
                let (setup, expected) = setup_packet(data)?;
                data = data.get(SETUP_LENGTH..)?;
                length = length.checked_sub(SETUP_LENGTH)?;
                CapturePhase::Control(setup, expected)
            }
            DATA => CapturePhase::Data,
            STATUS | COMPLETE => CapturePhase::Complete(result),
            _ => return None,
        },
        (BULK, false) => CapturePhase::Bulk,
        (BULK, true) => CapturePhase::Complete(result),
        _ => return None,
    };
    // The completion of a transfer to the device does not contain the length of the transfer.
    let is_unknown = matches!(phase, CapturePhase::Complete(_)) && length == 0;
    let data = data.get(..length).unwrap_or(data);
    Some(CaptureEvent {
        tag: packet.get(2..10)?,
        at,
        bus: u8::try_from(order.u16(packet, 17)?).ok()?,
        device: u8::try_from(order.u16(packet, 19)?).ok()?,
        endpoint: byte(21)?,
        phase,
        payload: CapturedData { bytes: data.into(), length: if is_unknown { None } else { Some(length) } },
    })
}

/// Converts a USBD_STATUS (Windows SDK, usb.h). The highest bit of an error is set.
fn parse_status(status: u32) -> Result<(), TransferError> {
    Err(match status {
        0..0x8000_0000 => return Ok(()),
        // STALL_PID and ENDPOINT_HALTED.
        0xC000_0004 | 0xC000_0030 => TransferError::Stall,
        // TIMEOUT and CANCELED. The host cancels a transfer when its time limit expires.
        0xC000_6000 | 0xC001_0000 => TransferError::Timeout,
        // DEVICE_GONE.
        0xC000_7000 => TransferError::Disconnected,
        // CRC, BTSTUFF, DATA_TOGGLE_MISMATCH, DEV_NOT_RESPONDING, PID_CHECK_FAILURE, UNEXPECTED_PID and XACT_ERROR.
        0xC000_0001..=0xC000_0007 | 0xC000_0011 => TransferError::Io,
        // DATA_OVERRUN, BUFFER_OVERRUN and BABBLE_DETECTED.
        0xC000_0008 | 0xC000_000C | 0xC000_0012 => OVERFLOW,
        _ => UNKNOWN,
    })
}
