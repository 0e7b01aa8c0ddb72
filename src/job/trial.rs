//! The trials of `cfdfu qualify`: what the worker tries on a drone, and what it measures. `qualify` judges the
//! measurements.

use std::time::Duration;

use super::Leave;
use crate::crazyflie::RomVersion;
use crate::dfu::{DfuError, Status};
use crate::usb::TransferError;

/// One job of a qualification.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trial {
    /// Only reads.
    Read,
    /// Erases and writes the last sector of the flash, if it is blank, and leaves it blank.
    Write,
    /// Enters DFU mode and leaves it in this way. Writes nothing.
    Restart(Leave),
}

/// A place that is read in one transfer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadPlace {
    Otp,
    OptionBytes,
    /// The word that contains the ROM's version.
    RomVersion,
    UniqueId,
    PastTheEnd,
}

/// How the ROM reacts to the request for 32 bits at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WidthAnswer {
    Accepted,
    /// Accepted, but the value cannot be read back.
    Unread,
    Refused,
}

/// What a drone did after it was told to leave DFU mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Appeared {
    Running,
    InDfu,
    Nothing,
}

/// One measurement. Times include the transfers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Measurement {
    /// The status of the dfuERROR in which the ROM was found. `entered`: this job has brought the drone into DFU mode,
    /// so no other program can have left the status.
    FirstStatus {
        status: Status,
        entered: bool,
    },
    /// The serial numbers of one drone in both modes.
    Serials {
        running: String,
        in_dfu: String,
    },
    Descriptors {
        is_f405: bool,
        transfer_size: u16,
        memories: usize,
    },
    Selected {
        alternate: u8,
        error: Option<TransferError>,
    },
    Read(ReadPlace, Result<Vec<u8>, DfuError>),
    /// The device answered its status after the reads that it may refuse.
    AnswersAfterwards(bool),
    /// The average time of reading a block of 2048 bytes.
    ReadBlock(Duration),
    /// The chip is read-protected, or the last sector is write-protected or not blank.
    NoScratchSector,
    Width(WidthAnswer),
    /// The time of erasing the last sector, 128 KiB.
    Erased {
        words: bool,
        took: Duration,
    },
    /// The average time of writing a block of 2048 bytes, and whether every byte reads back.
    WroteBlocks {
        words: bool,
        took: Duration,
        same: bool,
    },
    /// Whether every GETSTATUS that was sent at once was answered after the work.
    EarlyStatus(bool),
    /// A write of this many bytes: whether it reads back. `None` if it failed.
    WrotePiece {
        bytes: u32,
        same: Option<bool>,
    },
    /// The drone entered DFU mode with this many requests; `None` if it did not enter.
    Entered {
        requests: u32,
        took: Option<Duration>,
    },
    Left {
        leave: Leave,
        by_hand: bool,
        rom: Option<RomVersion>,
        appeared: Appeared,
        took: Option<Duration>,
    },
    /// The whole flash is as before.
    PutBack(bool),
}
