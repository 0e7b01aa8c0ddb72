//! The words between the worker and whoever shows what it does: commands in, events out.
//!
//! Pure data. The events of one job come in this order: `Device` when one is chosen (again when it came
//! back as another), `Planned`, then `Ready`, both before anything is changed; for each phase `Progress` from 0 to its
//! total with `Sector`s between, `Log` and `Waiting` at any time, `Known` when the device was identified, and exactly one
//! `Finished`, last.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use thiserror::Error;

use crate::crazyflie::{self, Mode, Relative, RomVersion};
use crate::flash::{Segment, Span};
use crate::image::{Content, Firmware, Loader};
use crate::plan::admission::ApprovedImage;
use crate::plan::undo::{Change, Piece};
use crate::plan::{Comparison, Plan, Work};
use crate::usb::descriptor::Strings;
use crate::usb::{Id, Location, TransferError};

mod failure;
mod identity;
mod log_entry;

pub use failure::{DroneState, Failure, FailureKind, Place};
pub use identity::{DeviceInfo, Identity, Running};
pub use log_entry::{CopyProblem, LogEntry, Stretches};

#[derive(Clone, Debug)]
pub enum Command {
    /// Do this. While a job is under way another is refused, but for one that a look in passing makes way for.
    Run(Box<Job>),
    /// Go on after [`Event::Ready`].
    Proceed,
    /// Stop the job under way at the next safe point.
    Cancel,
    /// Stop it if nothing is changed on the drone yet; else let it finish.
    CancelIfUntouched,
}

/// Something to do to one device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Job {
    pub device: Selector,
    /// The serial number of the drone that it must be, where an earlier job began: another one at the same port is not
    /// touched.
    pub serial: Option<String>,
    /// How long to wait for it to appear.
    pub wait: Duration,
    /// Whether a running Crazyflie may be asked to enter DFU mode.
    pub enter: Enter,
    pub task: Task,
}

impl Job {
    /// For the only drone there is, which must be there. One that runs is asked to enter DFU mode, unless the task asks
    /// nothing of it that needs that.
    pub fn new(task: Task) -> Job {
        let enter = match &task {
            Task::Find | Task::Identify => Enter::Never,
            Task::Flash(_) | Task::Verify(_) | Task::Backup(_) => Enter::IfRunning,
        };
        Job { device: Selector::Only, serial: None, wait: Duration::ZERO, enter, task }
    }

    /// The same for this very drone: another one at its port is not touched.
    pub fn of(self, drone: DroneAt) -> Job {
        let serial = Some(drone.serial).filter(|serial| !serial.is_empty());
        Job { device: Selector::At(drone.port), serial, ..self }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Task {
    Flash(FlashTask),
    /// Compare flash with these bytes.
    Verify(Vec<Segment>),
    /// Read this part of flash.
    Backup(Span),
    /// Only choose the device, and say which.
    Find,
    /// Find out what the device is and what is on it; a running Crazyflie is asked, not restarted.
    Identify,
}

/// How to write an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlashTask {
    /// What to write and where.
    pub image: ApprovedImage,
    /// Whether sectors that hold the image already are left alone.
    pub compare: Compare,
    /// Whether what will be overwritten is read first, for an undo.
    pub keep: Keep,
    /// Whether somebody looks at the plan before anything is changed.
    pub confirm: Confirm,
    /// Whether what was written is read back.
    pub verify: Verify,
    /// Whether the drone is started afterwards.
    pub leave: Leave,
    /// How many bits are programmed at a time.
    pub width: Width,
    /// The boards that the image runs on; none if it does not say.
    pub boards: Vec<String>,
    /// The platform that the image is for, if it says.
    pub platform: Option<&'static str>,
    /// The version that the drone should say it runs afterwards, if the image names one.
    pub version: Option<String>,
    /// Whether a chip that is not a Crazyflie's, or another board, is taken.
    pub mismatch: Mismatch,
    /// What an earlier try has left the drone as: that is how it is as long as this one changes nothing.
    pub left: DroneState,
    /// An image from outside, or a copy that goes back.
    pub change: Change,
    /// What a copy that goes back expects to take the place of; a drone that holds something else was changed since.
    pub expected: Vec<Piece>,
}

impl FlashTask {
    /// The same, to go on where it was interrupted and left the drone like this: what is there now is no copy worth
    /// keeping, and somebody has said already that it may write.
    pub fn resumed(self, left: DroneState) -> FlashTask {
        // What was written already is not erased again.
        let expected = Vec::new();
        FlashTask { keep: Keep::No, confirm: Confirm::Go, compare: Compare::First, left, expected, ..self }
    }

    /// It goes on where an earlier job was interrupted.
    pub(crate) fn carries_on(&self) -> bool {
        self.left != DroneState::Untouched
    }

    /// With every safeguard: look first, keep a copy, ask, verify, start. `firmware` is what the image holds of
    /// one, which the board must be one of and the drone must say it runs.
    pub fn new(image: ApprovedImage, firmware: Option<&Firmware>) -> FlashTask {
        let boards = firmware.into_iter().flat_map(|it| &it.boards).map(|board| board.code.clone()).collect();
        FlashTask {
            platform: firmware.and_then(Firmware::platform),
            version: firmware.and_then(|firmware| firmware.version.clone()),
            image,
            compare: Compare::First,
            keep: Keep::Copy,
            confirm: Confirm::Ask,
            verify: Verify::ReadBack,
            leave: Leave::Start,
            width: Width::Fastest,
            boards,
            mismatch: Mismatch::Refuse,
            left: DroneState::Untouched,
            change: Change::Flash,
            expected: Vec::new(),
        }
    }
}

/// Whether a running Crazyflie may be asked to enter DFU mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Enter {
    /// If no device is in DFU mode already.
    IfRunning,
    /// Only take a device that is in DFU mode already.
    Never,
    /// The same, since this user may not open the boot ROM: a Crazyflie that went there would stay there.
    NotAllowed,
}

/// Whether sectors that hold the image already are left alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compare {
    /// Read first, write what differs.
    First,
    Skip,
}

/// Whether what will be overwritten is read first, for an undo.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// Every sector of the plan, whole: half a second for a firmware.
    Copy,
    /// No more than the comparison needs.
    No,
}

/// Whether somebody looks at the plan before anything is changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Confirm {
    /// Wait for [`Command::Proceed`] after [`Event::Ready`].
    Ask,
    Go,
}

/// What is about to be done, with what was found on the drone. Nothing is changed yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Preview {
    /// The sectors and the image.
    pub plan: Plan,
    /// What each sector of the plan holds.
    pub found: Vec<Comparison>,
    /// What is left to do.
    pub work: Work,
    /// What the sectors of the plan hold now, from the first of them on, if it was read.
    pub before: Option<Segment>,
    /// What the firmware among that is.
    pub firmware: Option<Content>,
    /// Whether the drone gets a firmware for another kind of drone than the one that it has.
    pub platform_change: Option<PlatformChange>,
    /// What stands where the bootloader belongs, where the job leaves that alone.
    pub loader: Option<Loader>,
    /// Whether the image is for this board; [`BoardCheck::Unknown`] needs more than a key to confirm.
    pub board: BoardCheck,
    /// An undo finds something else than the last change wrote: another program has changed the drone since.
    pub changed_since: bool,
}

/// What a check of the board came to; one that failed is a failed job instead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BoardCheck {
    /// The image is for it, or for every board, or the user has insisted.
    Passed,
    /// The board could not be read.
    Unknown,
    /// Nothing says that it is a Crazyflie at all.
    NoCrazyflie,
}

impl BoardCheck {
    /// The image may be written without being insisted on.
    pub(crate) fn is_passed(self) -> bool {
        self == BoardCheck::Passed
    }
}

/// A firmware in the place of one for another platform, by their names in releases. Several platforms share types of
/// boards (crazyflie-firmware, `platform_flapper.c`), so that the check of the board does not see this.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlatformChange {
    pub from: &'static str,
    /// What is to be written.
    pub to: &'static str,
}

/// Whether what was written is read back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verify {
    ReadBack,
    Skip,
}

/// Whether the drone is started afterwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leave {
    /// Start it, and wait until it is seen again.
    Start,
    /// The same, but by a reset: the boot ROM resets the chip if it is to leave for an address that holds nothing
    /// (AN2662). That suits every ROM version, and was never tried on a real drone.
    Reset,
    /// Leave it in DFU mode.
    Stay,
}

/// How many bits are programmed at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Width {
    /// 32, if the ROM takes it.
    Fastest,
    /// 8, as the ROM starts.
    Byte,
}

/// Whether a chip that is not a Crazyflie's, or another board than the image is for, is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mismatch {
    /// Only the memory map of the Crazyflie's, and a board that the image runs on.
    Refuse,
    /// The same, but a board that cannot be read is for whoever confirms to decide: [`Preview::board`].
    Ask,
    Take,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Selector {
    /// The only one there is.
    #[default]
    Only,
    /// By serial number, as the firmware or as the boot ROM shows it.
    Serial(String),
    /// By where it is plugged in.
    At(Location),
}

impl FromStr for Selector {
    type Err = std::convert::Infallible;

    /// `BUS-PORT[.PORT…]` or a serial number.
    fn from_str(text: &str) -> Result<Selector, Self::Err> {
        Ok(text.parse().map_or_else(|()| Selector::Serial(text.trim().to_uppercase()), Selector::At))
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Selector::Only => f.write_str("the only one"),
            Selector::Serial(serial) => f.write_str(serial),
            Selector::At(location) => location.fmt(f),
        }
    }
}

impl Selector {
    /// Whether this device is meant.
    pub(crate) fn matches(&self, device: &Device) -> bool {
        match self {
            Selector::Only => true,
            Selector::At(location) => *location == device.location,
            Selector::Serial(wanted) => {
                let serial = &device.strings.serial;
                crazyflie::is_same_serial(wanted, serial)
            }
        }
    }
}

/// A device that may be a Crazyflie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// Running, or in DFU mode.
    pub mode: Mode,
    pub id: Id,
    /// Where it is plugged in.
    pub location: Location,
    /// The bus's number for this enumeration: another one means that it was restarted, or is another drone.
    pub address: u8,
    /// Its names; empty if it could not be opened.
    pub strings: Strings,
    /// Whether it is made of software.
    pub simulated: bool,
    /// Why it could not be opened, if so.
    pub closed: Option<TransferError>,
}

/// One drone, as far as drones can be told apart: its port, and the serial number that it shows there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DroneAt {
    /// Where it is plugged in.
    pub port: Location,
    /// In the form of whichever mode it was seen in; empty if it could not be read.
    pub serial: String,
}

impl DroneAt {
    /// Whether both are one drone, as far as it is known.
    pub(crate) fn may_be(&self, other: &DroneAt) -> bool {
        self.port == other.port && crazyflie::is_same_serial(&self.serial, &other.serial)
    }

    /// Whether this device is that drone, in whatever mode. One whose serial number is unknown is not.
    pub(crate) fn is(&self, device: &Device) -> bool {
        self.port == device.location && crazyflie::is_same_serial(&self.serial, &device.strings.serial)
    }
}

impl Device {
    /// The drone that it is.
    pub fn drone(&self) -> DroneAt {
        DroneAt { port: self.location.clone(), serial: self.strings.serial.clone() }
    }
}

/// A device that is not a Crazyflie but is taken for one, or belongs to one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Other {
    pub what: Relative,
    pub id: Id,
    /// Where it is plugged in.
    pub location: Location,
}

impl fmt::Display for Other {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} on port {}", self.what, self.location)
    }
}

#[derive(Clone, Debug)]
pub enum Event {
    Device(Device),
    /// This was found out about the device.
    Known(Box<DeviceInfo>),
    /// This will be done; nothing is changed yet.
    Planned(Plan),
    /// This is left to do. With [`Confirm::Ask`] nothing happens until [`Command::Proceed`].
    Ready(Box<Preview>),
    /// Bytes done of a phase; the first event of a phase has none done.
    Progress {
        phase: Phase,
        done: u64,
        total: u64,
    },
    /// A sector changed its state.
    Sector {
        /// Its position in the memory map.
        index: usize,
        state: SectorState,
    },
    /// A line for the log. Its level is the entry's own, but for a background identify, of which most is detail.
    Log(Level, LogEntry),
    /// Nothing happens until this happens, at most for this long.
    Waiting {
        what: WaitFor,
        limit: Duration,
    },
    Finished(Report),
}

/// What a job waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum WaitFor {
    /// A drone that is to be plugged in.
    #[error("a Crazyflie")]
    Crazyflie,
    #[error("the Crazyflie to restart")]
    Restart,
    #[error("DFU mode")]
    DfuMode,
    /// By the user's hand, of a drone that runs.
    #[error("DFU mode, entered by hand")]
    DfuByHand,
    #[error("the Crazyflie to start")]
    Start,
    /// A drone that was flashed and seen running: a cancel skips this wait.
    #[error("it to stay up")]
    StayUp,
}

/// A part of a job that takes time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    Compare,
    Erase,
    Write,
    /// Reading back what was written.
    Verify,
    Read,
}

impl Phase {
    /// The word that `--json` prints.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Phase::Compare => "compare",
            Phase::Erase => "erase",
            Phase::Write => "write",
            Phase::Verify => "verify",
            Phase::Read => "read",
        }
    }
}

/// What is known of a sector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SectorState {
    Same,
    ToErase,
    /// Was erased, or was blank.
    Erased,
    Written,
    /// Was read back and is right.
    Verified,
    Failed,
}

/// How much a log line matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// For `-v`.
    Detail,
    Info,
    /// Something is not as it should be, and the job goes on.
    Warning,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    pub outcome: Outcome,
    /// Bytes of the image or of the backup.
    pub bytes: u64,
    pub written: u64,
    pub erased_sectors: usize,
    /// Whether every byte was compared and is right.
    pub verified: bool,
    /// What the drone did afterwards.
    pub boot: Boot,
    /// The version that the drone said it runs, when it was seen running.
    pub runs: Option<String>,
    /// Whether that is another one than was flashed.
    pub runs_other: bool,
    /// The version of the boot ROM that was left, if it could be read: some leave the drone dark.
    pub rom: Option<RomVersion>,
    /// Whether DFU mode was entered by hand: then many a drone starts only after its power was cut.
    pub by_hand: bool,
    /// How long the job took.
    pub took: Duration,
}

impl Report {
    /// Whether the drone runs; `None` if it was not to be started, or not watched.
    pub fn booted(&self) -> Option<bool> {
        match self.boot {
            Boot::NotAsked | Boot::NotWatched => None,
            Boot::StaysUp => Some(true),
            Boot::Restarts | Boot::NotSeen => Some(false),
        }
    }

    /// A job that came to this before it did anything.
    pub fn nothing_done(outcome: Outcome) -> Report {
        Report {
            outcome,
            bytes: 0,
            written: 0,
            erased_sectors: 0,
            verified: false,
            boot: Boot::NotAsked,
            runs: None,
            runs_other: false,
            rom: None,
            by_hand: false,
            took: Duration::ZERO,
        }
    }
}

/// What a drone did after it was asked to start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Boot {
    /// It was not to be started.
    NotAsked,
    /// It was seen running, and somebody did not want to wait whether it stays up.
    NotWatched,
    /// It was seen running, and was still there some seconds later.
    StaysUp,
    /// It was seen running, and restarted by itself.
    Restarts,
    /// It was not seen running.
    NotSeen,
}

/// How a job ended, in one word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    Flashed,
    /// Nothing had to be written: flash holds the image.
    Unchanged,
    Read(Vec<u8>),
    /// It was looked at; [`Event::Known`] told what it is.
    Identified,
    Failed(Failure),
    Cancelled(DroneState),
}

impl Outcome {
    /// Another program has the device.
    pub(crate) fn held(drone: DroneState) -> Outcome {
        Outcome::Failed(Failure { kind: FailureKind::Held, place: None, drone })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::usb::ROM_DFU;

    #[test]
    fn a_device_is_named_by_place_or_by_either_of_its_serial_numbers() {
        let device = |serial: &str| Device {
            mode: Mode::Dfu,
            id: ROM_DFU,
            location: Location { bus: 1, ports: vec![1, 2] },
            address: 1,
            strings: Strings { serial: serial.to_owned(), ..Strings::default() },
            simulated: true,
            closed: None,
        };
        let matches =
            |wanted: &str, serial: &str| wanted.parse::<Selector>().unwrap().matches(&device(serial));
        let (rom, running) = ("338133873034", "51004F000551343036333233");
        for (wanted, shown) in [(rom, rom), (running, running), (running, rom), (rom, running)] {
            assert!(matches(wanted, shown), "{wanted} for {shown}");
        }
        assert!(matches("51004f000551343036333233", rom));
        assert!(matches("1-1.2", "anything"));
        assert!(!matches("1-1", "anything"));
        assert!(!matches("338133873035", rom));
    }
}
