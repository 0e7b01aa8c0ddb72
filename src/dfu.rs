//! DFU in one page: the states and status codes of DFU 1.1 §6.1.2, as the STM32's ROM uses them.
//!
//! ST's DfuSe (UM0424, AN3156) adds addresses to it: commands go as DNLOAD of block 0, data as blocks from
//! 2 on, at `pointer + (block - 2) × transfer size`. Bytes and types meet in [`wire`]; what a device says
//! of itself in [`device`]; the conversation is [`machine`]; oddities of devices are data in [`quirks`].

use std::fmt;

pub mod device;
mod error;
pub mod machine;
pub mod quirks;
pub mod wire;

pub use error::DfuError;

/// bState.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are the standard's")]
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

    /// The state of this number, if there is one.
    pub(crate) fn from_code(code: u8) -> Option<State> {
        State::ALL.get(usize::from(code)).map(|(state, _)| *state)
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(State::ALL[*self as usize].1)
    }
}

/// bStatus.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status(pub u8);

impl Status {
    pub(crate) const OK: Status = Status(0x00);
    /// On ST's ROM: the address is wrong (AN3156 §5.1).
    pub const TARGET: Status = Status(0x01);
    /// Normal at the first open of ST's ROM, cleared once.
    pub const FIRMWARE: Status = Status(0x0A);
    /// On ST's ROM: read protection is active (AN3156 §4.1).
    pub const VENDOR: Status = Status(0x0B);
    /// The request does not fit the state.
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

    /// What it means when ST's ROM says it.
    pub(crate) fn meaning(self) -> &'static str {
        match self {
            Status::OK => "no error",
            Status::TARGET => "the address is wrong or not supported",
            Status(0x03) => "the memory cannot be written",
            Status(0x04) => "erasing failed",
            Status(0x05) => "the memory is not blank after erasing",
            Status(0x06) => "programming failed",
            Status(0x07) => "the programmed memory reads back wrong",
            Status(0x08) => "the address is out of range",
            Status::FIRMWARE => "this boot ROM says so when it was just entered",
            Status::VENDOR => "the chip is read-protected",
            Status::STALLED_PACKET => "the request did not fit the state of the device",
            _ => "the device gives no further reason",
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.name(), self.meaning())
    }
}
