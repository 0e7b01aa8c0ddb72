//! Encodes DFU requests and decodes the answers (DFU 1.1 §3, AN3156 §4 and §5). The order and the timing of the
//! requests are in `machine`.

use std::fmt;
use std::time::Duration;

use super::{State, Status};
use crate::flash::Address;
use crate::usb::Setup;

/// bmRequestType of a class request to an interface, host to device.
const CLASS_OUT: u8 = 0x21;
/// bmRequestType of a class request to an interface, device to host.
const CLASS_IN: u8 = 0xA1;
/// The block number that carries commands (AN3156 §5).
const COMMAND_BLOCK: u16 = 0;
/// The number of the block at the address pointer. Block 1 is reserved.
pub(crate) const FIRST_BLOCK: u16 = 2;
/// bRequest of DFU_GETSTATUS.
pub(crate) const GETSTATUS: u8 = 3;
/// Length of a GETSTATUS answer in bytes.
pub(crate) const STATUS_LEN: usize = 6;

/// A DFU request, without its data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// DFU_DNLOAD with a command.
    Command,
    /// DFU_DNLOAD of this block. Without data, this is the request to leave DFU mode.
    Download(u16),
    /// DFU_UPLOAD of this block.
    Upload(u16),
    GetStatus,
    /// DFU_CLRSTATUS.
    ClearStatus,
    /// DFU_GETSTATE. Unlike GETSTATUS, this request does not start a pending operation.
    GetState,
    Abort,
}

impl Request {
    /// Returns the setup packet for sending this request to `interface`.
    pub(crate) fn setup(self, interface: u8) -> Setup {
        let (request_type, request, value) = match self {
            Request::Command => (CLASS_OUT, 1, COMMAND_BLOCK),
            Request::Download(block) => (CLASS_OUT, 1, block),
            Request::Upload(block) => (CLASS_IN, 2, block),
            Request::GetStatus => (CLASS_IN, GETSTATUS, 0),
            Request::ClearStatus => (CLASS_OUT, 4, 0),
            Request::GetState => (CLASS_IN, 5, 0),
            Request::Abort => (CLASS_OUT, 6, 0),
        };
        Setup { request_type, request, value, index: u16::from(interface) }
    }
}

impl fmt::Display for Request {
    /// Writes the name of the request in the standard.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Request::Command | Request::Download(_) => "DNLOAD",
            Request::Upload(_) => "UPLOAD",
            Request::GetStatus => "GETSTATUS",
            Request::ClearStatus => "CLRSTATUS",
            Request::GetState => "GETSTATE",
            Request::Abort => "ABORT",
        })
    }
}

/// Encodes the Set Address Pointer command (AN3156 §5.2).
pub(crate) fn encode_set_address(address: Address) -> Vec<u8> {
    encode_command(0x21, address)
}

/// Encodes the command to erase the sector that contains `address` (AN3156 §5.3).
pub(crate) fn encode_erase(address: Address) -> Vec<u8> {
    encode_command(0x41, address)
}

fn encode_command(code: u8, address: Address) -> Vec<u8> {
    [&[code][..], &address.0.to_le_bytes()].concat()
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StatusBlock {
    /// bStatus.
    pub status: Status,
    /// bwPollTimeout: how long the host should wait before the next GETSTATUS.
    pub poll: Duration,
    /// bState.
    pub state: State,
}

impl StatusBlock {
    /// Parses a GETSTATUS answer. Returns `None` if its length is wrong or its state is undefined.
    pub fn parse(bytes: &[u8]) -> Option<StatusBlock> {
        let &[status, low, middle, high, state, _] = bytes else { return None };
        let poll = Duration::from_millis(u64::from(u32::from_le_bytes([low, middle, high, 0])));
        Some(StatusBlock { status: Status(status), poll, state: State::from_code(state)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_and_commands_are_encoded_as_in_the_standard() {
        let fields = |request: Request| {
            let setup = request.setup(0);
            (setup.request_type, setup.request, setup.value)
        };
        assert_eq!(fields(Request::Command), (0x21, 1, 0));
        assert_eq!(fields(Request::Download(2)), (0x21, 1, 2));
        assert_eq!(fields(Request::Upload(2)), (0xA1, 2, 2));
        assert_eq!(fields(Request::GetStatus), (0xA1, 3, 0));
        assert_eq!(fields(Request::ClearStatus), (0x21, 4, 0));
        assert_eq!(fields(Request::GetState), (0xA1, 5, 0));
        assert_eq!(fields(Request::Abort), (0x21, 6, 0));
        assert_eq!(encode_set_address(Address(0x0800_4000)), [0x21, 0x00, 0x40, 0x00, 0x08]);
        assert_eq!(encode_erase(Address(0x0802_0000)), [0x41, 0x00, 0x00, 0x02, 0x08]);
    }

    #[test]
    fn valid_status_blocks_are_parsed_and_invalid_ones_are_rejected() {
        // From a dfu-util log of an STM32F4: state 10 dfuERROR, status 10 errFIRMWARE.
        let block = StatusBlock::parse(&[0x0A, 0, 0, 0, 0x0A, 0]).unwrap();
        assert_eq!((block.status, block.state), (Status::FIRMWARE, State::Error));
        let busy = StatusBlock::parse(&[0, 104, 0, 0, 4, 0]).unwrap();
        assert_eq!((busy.poll, busy.state), (Duration::from_millis(104), State::Dnbusy));
        assert_eq!(StatusBlock::parse(&[0, 0, 0, 0, 11, 0]), None);
        assert_eq!(StatusBlock::parse(&[0, 0, 0, 0, 2]), None);
        assert_eq!(
            StatusBlock::parse(&[0xFF, 0xFF, 0xFF, 0xFF, 2, 0]).unwrap().poll.as_millis(),
            0x00FF_FFFF
        );
    }
}
