//! What the worker did or noticed, one entry a line of the log. Front ends decide by the variant; only `Display` here has the
//! words, in the style of dfu-util's log. What an entry means for a newcomer is in `app::log`.

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
    // Finding a drone and bringing it into DFU mode.
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

    // What is there.
    Board(Board),
    BoardUnread,
    BoardNotChecked,
    OtherBoardTaken(Board),
    ProtectionUnread,
    LoaderGone(Loader),
    ChangedSinceTaken,
    NoCopyOfHugeSectors,
    Compared {
        same: usize,
        of: usize,
    },
    NothingToWrite,

    // The copy for an undo, which supervision keeps.
    CopyKept(PathBuf),
    EarlierCopyKept,
    NoCopy(CopyProblem),

    // Erasing, writing, reading back.
    WidthSet {
        words: bool,
        /// The setting could not be read back.
        assumed: bool,
    },
    WidthRefused,
    WordsAreSlow,
    Narrowed,
    Erased {
        sector: Sector,
        took: Duration,
    },
    Download(Stretches),
    Written(Duration),
    ReadWrongOnce(Address),
    RepeatedInBytes(Sector),
    WrongWordErased(Sector),
    WrongWordLeft(Sector, FailureKind),
    Verified(Stretches, Duration),

    // Starting the drone.
    NoBlankPlace,
    Rom(Option<RomVersion>),
    Leaving,
    NotLeft(FailureKind),
    OtherDroneThere(Location),
    Runs(String),
    RunsOther {
        flashed: String,
    },
    NotAsked(TransferError),

    /// A job that outlived its terminal, and how it ended.
    EndedUnseen(String),

    /// A row of the table of where the time went; its head if there is no part.
    Time {
        part: Option<&'static str>,
        total: Duration,
        /// Data on the wire, the chip at work, pauses that it asked for.
        shares: [Duration; 3],
    },
}

/// Why no copy is kept of what a job overwrites.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum CopyProblem {
    #[error("there is no home directory")]
    NoHome,
    #[error("the drone shows no serial number")]
    NoSerial,
    #[error("it is not complete")]
    Incomplete,
    #[error("{0}")]
    Io(String),
}

/// Where bytes went, as in `0x08000000 7256 bytes, 0x08008000 2048 bytes`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stretches(pub Vec<(Address, u64)>);

impl LogEntry {
    pub(crate) fn level(&self) -> Level {
        use LogEntry as E;
        match self {
            E::Opened { .. } | E::Written(_) | E::NotAsked(_) | E::Time { .. } => Level::Detail,
            E::Entering { .. }
            | E::Claiming
            | E::Held
            | E::SelectingAlternate(_)
            | E::AskingStatus
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
            | E::OtherBoardTaken(_)
            | E::ProtectionUnread
            | E::LoaderGone(_)
            | E::ChangedSinceTaken
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
    #[allow(clippy::too_many_lines, reason = "a table, one row an entry")]
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use LogEntry as E;
        match self {
            E::Entering { attempt: 1, .. } => f.write_str("Asking the Crazyflie to enter DFU mode ..."),
            E::Entering { attempt, tries } => {
                write!(f, "It restarted in its firmware: asking again (try {attempt} of {tries}) ...")
            }
            E::EntryFailed(kind) => kind.fmt(f),
            E::LeftAlone(kind) => write!(f, "{kind}: it is left alone"),
            E::JobRefused => f.write_str("a job is under way, the new one is not started"),

            E::Opened { id, quirks, transfer_size } => {
                write!(f, "Device {id}, {quirks}, transfer size {transfer_size}")
            }
            E::NameUnread(error) => {
                write!(
                    f,
                    "The name of the device cannot be read ({error}): it is driven in the slow, safe way"
                )
            }
            E::Claiming => f.write_str("Claiming USB DFU interface ..."),
            E::Held => f.write_str("Another program holds the device: waiting for it"),
            E::SelectingAlternate(alternate) => write!(f, "Setting Alternate Interface #{alternate} ..."),
            E::AlternateRefused { alternate, error } => {
                write!(f, "Alternate setting {alternate} cannot be selected ({error}): going on without it")
            }
            E::AskingStatus => f.write_str("Determining device status ..."),
            E::InError(status) => write!(f, "{}, status({}) = {status}", State::Error, status.0),
            E::ClearingStatus => f.write_str("Clearing status"),
            E::Aborting(state) => write!(f, "Aborting what an earlier session left in {state}"),
            E::ObeyingPoll(why) => {
                write!(f, "{why}: from here on the device gets the time that it asks for")
            }
            E::Repeating(error) => write!(f, "{error}; trying again"),

            E::Board(board) => write!(f, "Board {board}"),
            E::BoardUnread => f.write_str("The board of this drone could not be read"),
            E::BoardNotChecked => {
                f.write_str("The image may be for another board; written all the same, as you insisted")
            }
            E::OtherBoardTaken(board) => {
                write!(f, "The image is not for board {board}; written all the same, as you insisted")
            }
            E::ProtectionUnread => f.write_str(
                "Whether sectors are write-protected could not be read: each erase is checked instead",
            ),
            E::LoaderGone(loader) => write!(
                f,
                "The bootloader is gone ({}): this firmware will not start when the drone is switched on. Put the \
                 bootloader back with it: cfdfu restore-bootloader LOADER --firmware IMAGE",
                loader.describe()
            ),
            E::ChangedSinceTaken => {
                f.write_str("Another program has changed the drone since its last flash; that is overwritten")
            }
            E::NoCopyOfHugeSectors => {
                f.write_str("No copy is kept: this device's sectors are larger than any flash of an STM32F4")
            }
            E::Compared { same, of } => write!(f, "{same} of {of} sectors hold the image already"),
            E::NothingToWrite => f.write_str("The flash holds this image already: nothing to write"),

            E::CopyKept(path) => write!(f, "Kept what was there: {}", path.display()),
            E::EarlierCopyKept => {
                f.write_str("An interrupted flash left what is there: undo goes back to before it")
            }
            E::NoCopy(why) => {
                write!(f, "No copy is kept of what is there, so it cannot be undone: {why}")
            }

            E::WidthSet { words: true, assumed: false } => f.write_str("Programming 32 bits at a time"),
            E::WidthSet { words: true, assumed: true } => f.write_str(
                "Programming 32 bits at a time, as far as the boot ROM tells: it does not show the setting",
            ),
            E::WidthSet { words: false, .. } => f.write_str("Programming 8 bits at a time"),
            E::WidthRefused => f.write_str(
                "The boot ROM does not let the programming width be set: going on as it started, 8 bits",
            ),
            E::WordsAreSlow => {
                f.write_str("The boot ROM took the setting for 32 bits, but its blocks are as slow as with 8")
            }
            E::Narrowed => f.write_str("Programming 8 bits at a time from here on"),
            E::Erased { sector, took } => write!(
                f,
                "Erase    {} {:>4} KiB   {}",
                sector.span.start(),
                sector.span.len() / 1024,
                seconds(*took)
            ),
            E::Download(stretches) => write!(f, "Download {stretches}"),
            E::Written(took) => write!(f, "Written in {}", seconds(*took)),
            E::ReadWrongOnce(at) => write!(f, "{at} was read wrong once, and right the second time"),
            E::RepeatedInBytes(sector) => {
                write!(f, "{sector} reads back wrong: writing it again, 8 bits at a time")
            }
            E::WrongWordErased(sector) => write!(f, "{sector} is erased again: its first word is wrong"),
            E::WrongWordLeft(sector, error) => {
                write!(f, "The wrong first word of {sector} cannot be erased: {error}")
            }
            E::Verified(stretches, took) => write!(f, "Verify   {stretches}   {}", seconds(*took)),

            E::NoBlankPlace => {
                f.write_str("No blank place in flash to leave at: starting the firmware instead of resetting")
            }
            E::Rom(None) => f.write_str("Boot ROM of unknown version"),
            E::Rom(Some(rom)) if rom.leaves_drone_dark() => write!(
                f,
                "Boot ROM {rom}: the drone may stay dark after this until it is switched off and on"
            ),
            E::Rom(Some(rom)) => write!(f, "Boot ROM {rom}"),
            E::Leaving => f.write_str("Submitting leave request ..."),
            E::NotLeft(kind) => write!(f, "The device did not leave DFU mode: {kind}"),
            E::OtherDroneThere(port) => write!(f, "Another drone is on port {port} now"),
            E::Runs(version) => write!(f, "The Crazyflie says that it runs {version}"),
            E::RunsOther { flashed } => {
                write!(f, "That is not {flashed}, which was flashed: is it the drone that was flashed?")
            }
            E::NotAsked(error) => write!(f, "The Crazyflie cannot be asked what it runs: {error}"),

            E::EndedUnseen(words) => write!(f, "The last job ended while nobody was looking: {words}"),

            E::Time { part: None, .. } => {
                write!(f, "{:<15} {:>8} {:>8} {:>8} {:>8}", "Time line", "total", "data", "chip", "pause")
            }
            E::Time { part: Some(part), total, shares } => {
                let [data, chip, pause] = shares.map(|share| share.as_secs_f64());
                let total = total.as_secs_f64();
                write!(f, "{part:<15} {total:>6.3} s {data:>6.3} s {chip:>6.3} s {pause:>6.3} s")
            }
        }
    }
}

impl fmt::Display for Stretches {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, (at, bytes)) in self.0.iter().enumerate() {
            write!(f, "{}{at} {bytes} bytes", if n == 0 { "" } else { ", " })?;
        }
        Ok(())
    }
}

fn seconds(time: Duration) -> String {
    format!("{:.2} s", time.as_secs_f64())
}
