//! The trials of `cfdfu qualify` and their measurements. The worker runs the trials, and `qualify` evaluates the
//! measurements.

use std::time::Duration;

use super::Leave;
use crate::crazyflie::RomVersion;
use crate::dfu::{DfuError, Status};
use crate::usb::TransferError;

/// One job of a qualification.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trial {
    /// Reads, but writes nothing.
    Read,
    /// Writes and erases the last sector of the flash, if that sector is blank, and leaves it blank.
    Write,
    /// Enters DFU mode and then leaves it as specified. Writes nothing.
    Restart(Leave),
}

/// An area of memory that is read in one transfer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadPlace {
    Otp,
    OptionBytes,
    /// The word that contains the ROM's version.
    RomVersion,
    UniqueId,
    PastTheEnd,
}

/// The reaction of the ROM to a request for a programming width of 32 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WidthAnswer {
    Accepted,
    /// Accepted, but the value cannot be read back, or the answer was lost.
    NotReadBack,
    Refused,
}

/// The state of the drone on USB after the request to leave DFU mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Appeared {
    Running,
    InDfu,
    Nothing,
}

/// One measurement. Times include the transfers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Measurement {
    /// The status of the ROM, which was found in dfuERROR. `entered` is true if this job brought the drone into DFU
    /// mode, in which case no other program can have caused the error.
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
    /// Whether the device still answered after the reads that the ROM may refuse.
    AnswersAfterwards(bool),
    /// The average time to read a block of 2048 bytes.
    ReadBlock(Duration),
    /// The write trial has no sector to use: the chip is not an STM32F405 or is read-protected, its protection is
    /// unknown, or the last sector is write-protected or not blank.
    NoScratchSector,
    Width(WidthAnswer),
    /// The time to erase the last sector, 128 KiB.
    Erased {
        words: bool,
        took: Duration,
    },
    /// The average time to write a block of 2048 bytes, and whether every byte reads back correctly.
    WroteBlocks {
        words: bool,
        /// `None` if cfdfu had to pause for as long as the ROM requested: such pauses hide the chip's own time.
        took: Option<Duration>,
        same: bool,
    },
    /// Whether the ROM, once its work was done, answered every GETSTATUS that had been sent without a pause.
    EarlyStatus(bool),
    /// A write of this many bytes, and whether the bytes read back correctly; `None` if the write failed.
    WrotePiece {
        bytes: u32,
        same: Option<bool>,
    },
    /// The number of requests to enter DFU mode, and the time from the last request until the drone was in DFU mode.
    /// `took` is `None` if the drone did not enter DFU mode.
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
    /// Whether the whole flash holds its original contents again.
    PutBack(bool),
}
