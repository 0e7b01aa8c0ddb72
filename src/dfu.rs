//! The states and status codes of DFU 1.1 §6.1.2, as the STM32's boot ROM uses them.
//!
//! ST's extension DfuSe (UM0424, AN3156) adds addresses: a DNLOAD of block 0 is a command, and a DNLOAD of block 2 or
//! higher contains the data for the address `pointer + (block - 2) × transfer size`. [`wire`] encodes and decodes
//! requests, [`device`] reads the descriptors, [`machine`] drives the protocol, and [`quirks`] lists deviations of known
//! devices.

use std::fmt;

pub mod device;
mod error;
pub mod machine;
pub mod quirks;
pub mod wire;

pub use error::DfuError;

/// The state of the device: bState.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the standard defines the names")]
pub enum State {
    AppIdle,
    AppDetach,
    DfuIdle,
    DnloadSync,
    Dnbusy,
    DnloadIdle,
    ManifestSync,
    Manifest,
    ManifestWaitReset,
    UploadIdle,
    Error,
}

impl State {
    const ALL: [(State, &'static str); 11] = [
        (State::AppIdle, "appIDLE"),
        (State::AppDetach, "appDETACH"),
        (State::DfuIdle, "dfuIDLE"),
        (State::DnloadSync, "dfuDNLOAD-SYNC"),
        (State::Dnbusy, "dfuDNBUSY"),
        (State::DnloadIdle, "dfuDNLOAD-IDLE"),
        (State::ManifestSync, "dfuMANIFEST-SYNC"),
        (State::Manifest, "dfuMANIFEST"),
        (State::ManifestWaitReset, "dfuMANIFEST-WAIT-RESET"),
        (State::UploadIdle, "dfuUPLOAD-IDLE"),
        (State::Error, "dfuERROR"),
    ];

    /// Returns the state with this number, or `None` if the standard does not define the number.
    pub(crate) fn from_code(code: u8) -> Option<State> {
        State::ALL.get(usize::from(code)).map(|(state, _)| *state)
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(State::ALL[*self as usize].1)
    }
}

/// The result of the last request: bStatus.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status(pub u8);

impl Status {
    pub(crate) const OK: Status = Status(0x00);
    /// ST's ROM reports this status for a wrong address (AN3156 §5.1).
    pub const TARGET: Status = Status(0x01);
    /// ST's ROM normally reports this status when the device is first opened. CLRSTATUS clears it.
    pub const FIRMWARE: Status = Status(0x0A);
    /// ST's ROM reports this status while read protection is active (AN3156 §4.1).
    pub const VENDOR: Status = Status(0x0B);
    /// The request is not allowed in the current state.
    pub(crate) const STALLED_PACKET: Status = Status(0x0F);

    pub(crate) fn name(self) -> &'static str {
        const NAMES: [&str; 16] = [
            "OK",
            "errTARGET",
            "errFILE",
            "errWRITE",
            "errERASE",
            "errCHECK_ERASED",
            "errPROG",
            "errVERIFY",
            "errADDRESS",
            "errNOTDONE",
            "errFIRMWARE",
            "errVENDOR",
            "errUSBR",
            "errPOR",
            "errUNKNOWN",
            "errSTALLEDPKT",
        ];
        NAMES.get(usize::from(self.0)).copied().unwrap_or("an unknown status")
    }

    /// Returns the meaning of the status in ST's ROM.
    pub(crate) fn meaning(self) -> &'static str {
        match self {
            Status::OK => "no error",
            Status::TARGET => "the address is wrong or not supported",
            Status(0x03) => "the memory cannot be written",
            Status(0x04) => "erasing failed",
            Status(0x05) => "the memory is not blank after erasing",
            Status(0x06) => "programming failed",
            Status(0x07) => "verification failed",
            Status(0x08) => "the address is out of range",
            Status::FIRMWARE => "normal when the boot ROM has just started",
            Status::VENDOR => "the chip is read-protected",
            Status::STALLED_PACKET => "the device does not allow the request in its current state",
            _ => "the device gave no further reason",
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.name(), self.meaning())
    }
}
