//! A job's log as typed entries, one entry per line. Front ends match on the variant. Only the `Display` impls in this
//! file contain the text, in the style of dfu-util's log. `app::log` explains the entries to newcomers.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use thiserror::Error;

use super::{FailureKind, Level};
use crate::crazyflie::{Board, RomVersion};
use crate::dfu::machine::PollReason;
use crate::dfu::{DfuError, State, Status};
use crate::flash::{Address, Sector};
use crate::image::Loader;
use crate::usb::{Id, Location, TransferError};

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogEntry {
    // Finding a drone and switching it to DFU mode.
    Entering {
        attempt: u32,
        tries: u32,
    },
    EntryFailed(FailureKind),
    LeftAlone(FailureKind),
    JobRefused,

    // The session with the boot ROM.
    Opened {
        id: Id,
        quirks: &'static str,
        transfer_size: u16,
    },
    NameUnread(TransferError),
    Claiming,
    Held,
    SelectingAlternate(u8),
    AlternateRefused {
        alternate: u8,
        error: TransferError,
    },
    AskingStatus,
    InError(Status),
    ClearingStatus,
    Aborting(State),
    ObeyingPoll(PollReason),
    Repeating(DfuError),

    // The contents of the drone.
    Board(Board),
    BoardUnread,
    BoardNotChecked,
    OtherBoardAllowed(Board),
    ProtectionUnread,
    LoaderGone(Loader),
    ChangedSinceAllowed,
    NoCopyOfHugeSectors,
    Compared {
        same: usize,
        of: usize,
    },
    NothingToWrite,

    // The previous firmware, which `supervise` keeps for an undo.
    CopyKept(PathBuf),
    EarlierCopyKept,
    NoCopy(CopyProblem),

    // Erasing, writing, reading back.
    WidthSet {
        words: bool,
        /// The setting was accepted but could not be read back.
        assumed: bool,
    },
    WidthRefused,
    WordsAreSlow,
    Narrowed,
    Erased {
        sector: Sector,
        took: Duration,
    },
    Download(AddressRanges),
    Written(Duration),
    ReadWrongOnce(Address),
    RepeatedInBytes(Sector),
    WrongWordErased(Sector),
    WrongWordLeft(Sector, FailureKind),
    Verified(AddressRanges, Duration),

    // Starting the drone.
    NoBlankPlace,
    Rom(Option<RomVersion>),
    Leaving,
    NotLeft(FailureKind),
    OtherDroneThere(Location),
    Runs(String),
    /// A line that the firmware printed.
    Console(String),
    /// The link to the console is open.
    Listening,
    /// The link to the console was lost.
    ConsoleLost(TransferError),
    RunsOther {
        flashed: String,
    },
    NotAsked(TransferError),

    /// The result of a job that outlived its terminal.
    EndedUnseen(String),

    /// A row of the timing table.
    Time {
        /// The part of the job; `None` for the table's header.
        part: Option<&'static str>,
        total: Duration,
        /// The time for data on the wire, for the chip's own work, and for the pauses that the chip requested.
        shares: [Duration; 3],
    },
}

/// Why the firmware that a job overwrites is not kept for an undo.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum CopyProblem {
    #[error("there is no home directory")]
    NoHome,
    #[error("the drone reports no serial number")]
    NoSerial,
    #[error("that firmware is incomplete")]
    Incomplete,
    #[error("{0}")]
    Io(String),
}

/// Address ranges, for example `0x08000000 7256 bytes, 0x08008000 2048 bytes`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddressRanges(pub Vec<(Address, u64)>);

impl LogEntry {
    pub(crate) fn level(&self) -> Level {
        use LogEntry as E;
        match self {
            E::Opened { .. }
            | E::SelectingAlternate(_)
            | E::AskingStatus
            | E::Written(_)
            | E::NotAsked(_)
            | E::Console(_)
            | E::Listening
            | E::Time { .. } => Level::Detail,
            E::Entering { .. }
            | E::Claiming
            | E::Held
            | E::InError(_)
            | E::ClearingStatus
            | E::Aborting(_)
            | E::Board(_)
            | E::Compared { .. }
            | E::NothingToWrite
            | E::CopyKept(_)
            | E::EarlierCopyKept
            | E::WidthSet { .. }
            | E::Erased { .. }
            | E::Download(_)
            | E::Verified(..)
            | E::Rom(_)
            | E::Leaving
            | E::ConsoleLost(_)
            | E::Runs(_) => Level::Info,
            E::EntryFailed(_)
            | E::LeftAlone(_)
            | E::JobRefused
            | E::NameUnread(_)
            | E::AlternateRefused { .. }
            | E::ObeyingPoll(_)
            | E::Repeating(_)
            | E::BoardUnread
            | E::BoardNotChecked
            | E::OtherBoardAllowed(_)
            | E::ProtectionUnread
            | E::LoaderGone(_)
            | E::ChangedSinceAllowed
            | E::NoCopyOfHugeSectors
            | E::NoCopy(_)
            | E::WidthRefused
            | E::WordsAreSlow
            | E::Narrowed
            | E::ReadWrongOnce(_)
            | E::RepeatedInBytes(_)
            | E::WrongWordErased(_)
            | E::WrongWordLeft(..)
            | E::NoBlankPlace
            | E::NotLeft(_)
            | E::OtherDroneThere(_)
            | E::RunsOther { .. }
            | E::EndedUnseen(_) => Level::Warning,
        }
    }
}

impl fmt::Display for LogEntry {
    #[allow(clippy::too_many_lines, reason = "a table, one row per entry")]
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use LogEntry as E;
        match self {
            E::Entering { attempt: 1, .. } => f.write_str("Asking the Crazyflie to enter DFU mode ..."),
            E::Entering { attempt, tries } => {
                write!(
                    f,
                    "The Crazyflie did not enter DFU mode; asking again ({attempt} of {tries}) ..."
                )
            }
            E::EntryFailed(kind) => kind.fmt(f),
            E::LeftAlone(kind) => write!(f, "{kind}; ignoring it"),
            E::JobRefused => f.write_str("Another job is still running; the new one was not started"),

            E::Opened { id, quirks, transfer_size } => {
                write!(f, "Device {id}, {quirks}, transfer size {transfer_size}")
            }
            E::NameUnread(error) => {
                write!(f, "Could not read the device's name ({error}); using the slow, safe settings")
            }
            E::Claiming => f.write_str("Claiming USB DFU interface ..."),
            E::Held => f.write_str("Another program is using the device; waiting for it"),
            E::SelectingAlternate(alternate) => write!(f, "Setting Alternate Interface #{alternate} ..."),
            E::AlternateRefused { alternate, error } => {
                write!(f, "Alternate setting {alternate} cannot be selected ({error}); continuing without it")
            }
            E::AskingStatus => f.write_str("Determining device status ..."),
            E::InError(status) => write!(f, "{}, status({}) = {status}", State::Error, status.0),
            E::ClearingStatus => f.write_str("Clearing status"),
            E::Aborting(state) => {
                write!(f, "Aborting the previous incomplete transfer (device was in {state})")
            }
            E::ObeyingPoll(why) => {
                write!(f, "{why}; from now on, waiting as long as the device requests")
            }
            E::Repeating(error) => write!(f, "{error}; trying again"),

            E::Board(board) => write!(f, "Board {board}"),
            E::BoardUnread => f.write_str("The board of this drone could not be read"),
            E::BoardNotChecked => {
                f.write_str("The image may be for a different board; writing it anyway (--allow-mismatch)")
            }
            E::OtherBoardAllowed(board) => {
                write!(f, "The image is not for board {board}; writing it anyway (--allow-mismatch)")
            }
            E::ProtectionUnread => {
                f.write_str("The write protection could not be read; checking each erase instead")
            }
            E::LoaderGone(loader) => write!(
                f,
                "The bootloader is missing ({}), so this firmware will not start when the drone is switched on. \
                 Restore both together: `cfdfu restore-bootloader LOADER --firmware IMAGE`",
                loader.describe()
            ),
            E::ChangedSinceAllowed => f.write_str(
                "Another program has changed the drone since its last flash; overwriting the change",
            ),
            E::NoCopyOfHugeSectors => f.write_str(
                "No undo for this flash: the device's sectors are larger than the flash of any STM32F4",
            ),
            E::Compared { same, of } => write!(f, "{same} of {of} sectors already hold the image"),
            E::NothingToWrite => f.write_str("The flash already holds this image; nothing to write"),

            E::CopyKept(path) => write!(f, "Saved the previous firmware for undo: {}", path.display()),
            E::EarlierCopyKept => f.write_str(
                "An earlier flash was interrupted; undo restores the firmware from before that flash",
            ),
            E::NoCopy(why) => {
                write!(f, "The previous firmware was not saved, so this flash cannot be undone: {why}")
            }

            E::WidthSet { words: true, assumed: false } => f.write_str("Programming 32 bits at a time"),
            E::WidthSet { words: true, assumed: true } => f.write_str(
                "Programming 32 bits at a time (not confirmed: the boot ROM does not report the setting)",
            ),
            E::WidthSet { words: false, .. } => f.write_str("Programming 8 bits at a time"),
            E::WidthRefused => f.write_str(
                "The boot ROM does not support setting the programming width; continuing with its default, 8 bits",
            ),
            E::WordsAreSlow => f.write_str(
                "The boot ROM accepted the 32-bit setting, but still programs as slowly as with 8 bits",
            ),
            E::Narrowed => f.write_str("Programming 8 bits at a time from now on"),
            E::Erased { sector, took } => write!(
                f,
                "Erase    {} {:>4} KiB   {}",
                sector.span.start(),
                sector.span.len() / 1024,
                format_seconds(*took)
            ),
            E::Download(rewritten_spans) => write!(f, "Download {rewritten_spans}"),
            E::Written(took) => write!(f, "Written in {}", format_seconds(*took)),
            E::ReadWrongOnce(at) => {
                write!(f, "{at} read back wrong the first time and right the second time")
            }
            E::RepeatedInBytes(sector) => {
                write!(f, "{sector} reads back wrong; writing it again, 8 bits at a time")
            }
            E::WrongWordErased(sector) => {
                write!(f, "Erased {sector} again, because its first word was wrong")
            }
            E::WrongWordLeft(sector, error) => {
                write!(f, "The wrong first word of {sector} could not be erased: {error}")
            }
            E::Verified(rewritten_spans, took) => {
                write!(f, "Verify   {rewritten_spans}   {}", format_seconds(*took))
            }

            E::NoBlankPlace => f.write_str(
                "No blank flash to point the leave request at; starting the firmware without a reset",
            ),
            E::Rom(None) => f.write_str("Boot ROM of unknown version"),
            E::Rom(Some(rom)) if rom.starts_without_ccm() => write!(
                f,
                "Boot ROM {rom}: after the restart, the drone may stay dark until it is switched off and on"
            ),
            E::Rom(Some(rom)) => write!(f, "Boot ROM {rom}"),
            E::Leaving => f.write_str("Submitting leave request ..."),
            E::NotLeft(kind) => write!(f, "The device did not leave DFU mode: {kind}"),
            E::OtherDroneThere(port) => write!(f, "A different drone is on port {port} now"),
            E::Runs(version) => write!(f, "The Crazyflie is running {version}"),
            E::Listening => f.write_str("Listening to the drone's console ..."),
            E::ConsoleLost(error) => {
                write!(f, "Lost the connection to the console ({error}); waiting for the drone")
            }
            E::Console(line) => write!(f, "Console: {line}"),
            E::RunsOther { flashed } => {
                write!(
                    f,
                    "The Crazyflie is not running {flashed}, which was just flashed. Is it the same drone?"
                )
            }
            E::NotAsked(error) => write!(f, "Cannot query the running Crazyflie: {error}"),

            E::EndedUnseen(result) => write!(f, "The last job ended while you were away: {result}"),

            E::Time { part: None, .. } => {
                write!(f, "{:<15} {:>8} {:>8} {:>8} {:>8}", "Timing", "total", "data", "chip", "pause")
            }
            E::Time { part: Some(part), total, shares } => {
                let [data, chip, pause] = shares.map(|share| share.as_secs_f64());
                let total = total.as_secs_f64();
                write!(f, "{part:<15} {total:>6.3} s {data:>6.3} s {chip:>6.3} s {pause:>6.3} s")
            }
        }
    }
}

impl fmt::Display for AddressRanges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, (at, bytes)) in self.0.iter().enumerate() {
            write!(f, "{}{at} {bytes} bytes", if n == 0 { "" } else { ", " })?;
        }
        Ok(())
    }
}

fn format_seconds(time: Duration) -> String {
    format!("{:.2} s", time.as_secs_f64())
}
