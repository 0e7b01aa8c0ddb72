//! The protocol between the worker and a front end: commands to the worker and events from it, as plain data types.
//!
//! A job sends `Device` when it selects a device, and again when it continues with a re-enumerated device or learns the
//! device's serial number. In a flash job, `Planned` and `Ready` follow, both before the job changes anything. Each
//! phase sends `Progress` from 0 to at most its total; a flash job sends `Sector` events in between. The commit words
//! belong to the write phase but are written last, so its last `Progress` follows the verify phase. An identification
//! sends `Known`, and a console job `Console`. `Log`, `Waiting` and `Measured` may occur at any time. Every job ends
//! with exactly one `Finished`.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use thiserror::Error;

use crate::crazyflie::console::{ConsoleLine, Health, RadioChip};
use crate::crazyflie::{self, Board, Mode, RelatedDevice, RomVersion};
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
pub mod trial;

pub use failure::{DroneState, Failure, FailureKind, Place};
pub use identity::{DeviceInfo, Identity, Running};
use trial::{Measurement, Trial};

pub use log_entry::{AddressRanges, CopyProblem, LogEntry};

#[derive(Clone, Debug)]
pub enum Command {
    /// Run a job. Refused while another job is running, unless that job is an identify job, which yields.
    Run(Box<Job>),
    /// Confirm the plan after [`Event::Ready`].
    Proceed,
    /// Stop the running job at the next safe point.
    Cancel,
    /// Stop the running job if it has not changed the drone yet; otherwise let it finish.
    CancelIfUntouched,
}

/// A task for one device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Job {
    pub device: Selector,
    /// The serial number that the drone must have, if the job is for a particular drone: see [`Job::of`]. A different
    /// drone on the same port is not touched.
    pub serial: Option<String>,
    /// How long to wait for the device to appear, and then for DFU mode. If this is zero, the job does not wait for the
    /// user to enter DFU mode by hand.
    pub wait: Duration,
    pub enter: Enter,
    pub task: Task,
}

impl Job {
    /// Creates a job for the only drone, which must be plugged in already. If the task needs DFU mode and the drone is
    /// running, the job asks the drone to enter DFU mode.
    pub fn new(task: Task) -> Job {
        let enter = match &task {
            Task::Find | Task::Identify | Task::Blink(_) | Task::Console(_) => Enter::Never,
            Task::Flash(_) | Task::Verify(_) | Task::Backup(_) | Task::Try(_) => Enter::IfRunning,
        };
        Job { device: Selector::Only, serial: None, wait: Duration::ZERO, enter, task }
    }

    /// Restricts the job to this drone. If its serial number is known, a different drone on the same port is not
    /// touched.
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
    /// Select the device and report it.
    Find,
    /// Identify the device and its contents. A running Crazyflie is queried, not restarted.
    Identify,
    /// Blink the LEDs of a running Crazyflie for this long.
    Blink(Duration),
    /// Read the console of a running Crazyflie for this long, or until the job is stopped.
    Console(Option<Duration>),
    /// Run a trial of `cfdfu qualify`.
    Try(Trial),
}

/// How to write an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlashTask {
    pub image: ApprovedImage,
    pub compare: Compare,
    pub keep: Keep,
    pub confirm: Confirm,
    pub verify: Verify,
    pub leave: Leave,
    pub width: Width,
    /// The codes of the boards that the image runs on; empty if the image does not name any.
    pub boards: Vec<String>,
    /// The platform that the image is for, if the image names one.
    pub platform: Option<&'static str>,
    /// The version that the drone should report afterwards, if the image contains one.
    pub version: Option<String>,
    pub mismatch: Mismatch,
    /// Images for other boards. If `image` is not for the drone's board, the worker uses the first of these that is.
    pub alternatives: Vec<FlashImage>,
    /// The state of the drone after an earlier attempt. The drone stays in this state until the job changes something.
    pub left: DroneState,
    /// Whether the image comes from a file or is a backup to restore.
    pub change: Change,
    /// For an undo: the contents that the drone should hold now. If the contents differ, another program has changed
    /// the drone.
    pub expected: Vec<Piece>,
}

/// An image with the facts about its firmware that a job needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlashImage {
    pub image: ApprovedImage,
    /// The codes of the boards that the image runs on; empty if the image does not name any.
    pub boards: Vec<String>,
    pub platform: Option<&'static str>,
    pub version: Option<String>,
}

impl FlashImage {
    pub fn new(image: ApprovedImage, firmware: Option<&Firmware>) -> FlashImage {
        let boards = firmware.into_iter().flat_map(|it| &it.boards).map(|board| board.code.clone()).collect();
        FlashImage {
            image,
            boards,
            platform: firmware.and_then(Firmware::platform),
            version: firmware.and_then(|firmware| firmware.version.clone()),
        }
    }
}

impl FlashTask {
    /// Whether one of the images is for the board with this code.
    pub(crate) fn fits(&self, code: &str) -> bool {
        let others = self.alternatives.iter().map(|image| &image.boards);
        [&self.boards].into_iter().chain(others).any(|boards| is_for(boards, Some(code)))
    }

    /// Returns the index of the image for this board among all images, and the task with only that image. If no image
    /// is for this board, or the board could not be read, the task has the first image and names the boards of all
    /// images, so that the refusal lists all of these boards.
    pub(crate) fn for_board(&self, board: Option<&Board>) -> (usize, FlashTask) {
        let task = FlashTask { alternatives: Vec::new(), ..self.clone() };
        let fits = |boards: &[String]| is_for(boards, board.map(|board| board.code.as_str()));
        let all = || self.alternatives.iter().enumerate();
        match all().find(|(_, other)| fits(&other.boards)).filter(|_| !fits(&self.boards)) {
            Some((index, FlashImage { image, boards, platform, version })) => {
                let (image, boards, version) = (image.clone(), boards.clone(), version.clone());
                (index + 1, FlashTask { image, boards, platform: *platform, version, ..task })
            }
            None if fits(&self.boards) => (0, task),
            None => {
                let boards = self.boards.iter().chain(all().flat_map(|(_, other)| &other.boards)).cloned();
                (0, FlashTask { boards: boards.collect(), ..task })
            }
        }
    }

    /// Returns the task that resumes this one after an interruption. `left` is the state of the drone. The new task
    /// keeps no backup of the half-written flash, does not ask for confirmation again, and skips sectors that already
    /// match.
    pub fn resumed(self, left: DroneState) -> FlashTask {
        // The interrupted attempt has already replaced part of the expected contents.
        let expected = Vec::new();
        FlashTask { keep: Keep::No, confirm: Confirm::Go, compare: Compare::First, left, expected, ..self }
    }

    /// Whether this task resumes an interrupted one.
    pub(crate) fn is_resumed(&self) -> bool {
        self.left != DroneState::Untouched
    }

    /// Creates a task with every safeguard: compare first, keep a backup, ask for confirmation, verify, and start the
    /// drone. `firmware` is the image's firmware, if it contains one. The firmware determines which boards are accepted
    /// and which version the drone should report afterwards.
    pub fn new(image: ApprovedImage, firmware: Option<&Firmware>) -> FlashTask {
        let FlashImage { image, boards, platform, version } = FlashImage::new(image, firmware);
        FlashTask {
            platform,
            version,
            image,
            compare: Compare::First,
            keep: Keep::Copy,
            confirm: Confirm::Ask,
            verify: Verify::ReadBack,
            leave: Leave::Start,
            width: Width::Fastest,
            boards,
            mismatch: Mismatch::Refuse,
            alternatives: Vec::new(),
            left: DroneState::Untouched,
            change: Change::Flash,
            expected: Vec::new(),
        }
    }
}

/// Whether an image that names these boards supports the board with this code. An image that names no boards supports
/// every board.
fn is_for(boards: &[String], code: Option<&str>) -> bool {
    boards.is_empty() || code.is_some_and(|code| boards.iter().any(|board| board == code))
}

/// Whether a running Crazyflie may be asked to enter DFU mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Enter {
    /// Yes, unless the selected device is already in DFU mode.
    IfRunning,
    /// Yes, but the job does not wait for the user to enter DFU mode by hand: a batch cannot guide the user through
    /// this step for several drones.
    Unaided,
    /// No; the device must be in DFU mode already, or the user must bring it into DFU mode within [`Job::wait`].
    Never,
    /// No, because the user is not allowed to open the boot ROM: a Crazyflie would enter DFU mode and be stuck there.
    NotAllowed,
}

/// Whether sectors that already match the image are skipped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compare {
    /// Read flash first and write only the sectors that differ and their head sectors: see [`Plan::work`].
    First,
    /// Write every sector of the plan.
    Skip,
}

/// Whether to save a backup for an undo before anything is overwritten.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// Read every sector of the plan completely, which takes half a second for a firmware image.
    Copy,
    /// Read only as much as the comparison needs.
    No,
}

/// Whether the user must confirm the plan before anything is changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Confirm {
    /// Wait for [`Command::Proceed`] after [`Event::Ready`], unless there is nothing to write.
    Ask,
    Go,
}

/// The plan and the current contents of the drone. Nothing has been changed yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Preview {
    pub plan: Plan,
    /// The result of the comparison for each sector of the plan.
    pub found: Vec<Comparison>,
    /// The part of the plan that remains to be done.
    pub work: Work,
    /// The current contents of flash from the first sector of the plan to its last, if they were read.
    pub before: Option<Segment>,
    /// The firmware in `before`.
    pub firmware: Option<Content>,
    /// Set if the image and the firmware that it replaces are for different platforms.
    pub platform_change: Option<PlatformChange>,
    /// The contents of the bootloader's sector, if the job does not write that sector.
    pub loader: Option<Loader>,
    /// The result of the board check. Unless it is [`BoardCheck::Passed`], the user must type a word to confirm.
    pub board: BoardCheck,
    /// For an undo that the user must confirm ([`Mismatch::Ask`]): the drone does not hold the data that the last
    /// change wrote, so another program has changed the drone since.
    pub changed_since: bool,
    /// The state of the radio chip, as reported by the firmware that was running before.
    pub radio_chip: RadioChip,
    /// The version of the firmware in the image, if known.
    pub version: Option<String>,
}

/// The result of the board check. If the image is for a different board, the job fails instead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BoardCheck {
    /// The image is for this board or for every board, or the user has overridden the check.
    Passed,
    /// The board could not be read.
    Unknown,
    /// There is no evidence that the device is a Crazyflie.
    MaybeNotACrazyflie,
}

impl BoardCheck {
    /// Whether the image may be written without a further override.
    pub(crate) fn is_passed(self) -> bool {
        self == BoardCheck::Passed
    }
}

/// The image and the firmware that it replaces are for different platforms, named as in release files. The board check
/// cannot detect such a change, because some platforms share board types (crazyflie-firmware, `platform_flapper.c`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlatformChange {
    /// The platform of the firmware on the drone.
    pub from: &'static str,
    /// The platform of the image.
    pub to: &'static str,
}

/// Whether the written data is read back and compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verify {
    ReadBack,
    Skip,
}

/// Whether and how the drone is restarted afterwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leave {
    /// Start the program that was written, and wait for the drone to appear on USB.
    Start,
    /// Reset the chip instead, and wait in the same way. The boot ROM resets the chip if the leave request names a
    /// blank address (AN2662). In theory, the reset works with every ROM version, but it has not been tried on a real
    /// drone.
    Reset,
    /// Keep the drone in DFU mode.
    Stay,
}

/// How many bits are programmed at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Width {
    /// 32, if the ROM accepts this width.
    Fastest,
    /// 8, the ROM's default.
    Byte,
}

/// Whether to accept a device that may not be a Crazyflie, a board that the image is not for, or, for an undo, contents
/// that another program has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mismatch {
    /// Accept none of these.
    Refuse,
    /// Refuse a board that the image is not for. Otherwise, let the user decide: see [`Preview::board`] and
    /// [`Preview::changed_since`].
    Ask,
    /// Accept all of these.
    Allow,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Selector {
    /// The only device that is plugged in.
    #[default]
    Only,
    /// The device with this serial number, as reported by either the firmware or the boot ROM.
    Serial(String),
    /// The device on this port.
    At(Location),
}

impl FromStr for Selector {
    type Err = std::convert::Infallible;

    /// Parses `BUS-PORT[.PORT…]` or a serial number.
    fn from_str(text: &str) -> Result<Selector, Self::Err> {
        Ok(text.parse().map_or_else(|()| Selector::Serial(text.trim().to_uppercase()), Selector::At))
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Selector::Only => f.write_str("the only device"),
            Selector::Serial(serial) => f.write_str(serial),
            Selector::At(location) => location.fmt(f),
        }
    }
}

impl Selector {
    /// Whether this selector selects `device`.
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
    pub mode: Mode,
    pub id: Id,
    pub location: Location,
    /// The address that the bus assigned. A different address means that the device has re-enumerated, or that a
    /// different device is on this port.
    pub address: u8,
    /// The device's names; empty if they could not be read.
    pub strings: Strings,
    /// Simulated, not real hardware.
    pub simulated: bool,
    /// Why the device could not be opened or its names could not be read.
    pub open_error: Option<TransferError>,
}

/// Identifies a drone by its port and its serial number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DroneAt {
    pub port: Location,
    /// The serial number as reported in the mode in which the drone was seen; empty if it could not be read.
    pub serial: String,
}

impl DroneAt {
    /// Whether both values may refer to the same drone. A value without a serial number never matches.
    pub(crate) fn may_be(&self, other: &DroneAt) -> bool {
        self.port == other.port && crazyflie::is_same_serial(&self.serial, &other.serial)
    }

    /// Whether `device` is this drone, in either mode. A device without a known serial number never matches.
    pub(crate) fn is(&self, device: &Device) -> bool {
        self.port == device.location && crazyflie::is_same_serial(&self.serial, &device.strings.serial)
    }
}

impl Device {
    /// Whether the device has the USB IDs of a running Crazyflie, but its names cannot be read. These IDs belong to ST,
    /// so the device may be any other board that uses them.
    pub(crate) fn is_doubtful(&self) -> bool {
        self.mode == Mode::Firmware && self.open_error.is_some() && self.strings == Strings::default()
    }

    /// Whether both devices may be the same drone. An unreadable serial number proves nothing, so it counts as a match.
    pub(crate) fn may_be_same(&self, other: &Device) -> bool {
        let (one, two) = (&self.strings.serial, &other.strings.serial);
        let is_unread = one.is_empty() || two.is_empty();
        self.location == other.location && (is_unread || crazyflie::is_same_serial(one, two))
    }

    /// Returns the port and the serial number of this device.
    pub fn drone(&self) -> DroneAt {
        DroneAt { port: self.location.clone(), serial: self.strings.serial.clone() }
    }
}

/// A related device on the bus, such as a Crazyradio: see [`RelatedDevice`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Other {
    pub what: RelatedDevice,
    pub id: Id,
    pub location: Location,
}

impl fmt::Display for Other {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} on port {}", self.what, self.location)
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The job uses this device from now on.
    Device(Device),
    /// The result of an identification.
    Known(Box<DeviceInfo>),
    /// The plan, before the comparison. Nothing has been changed yet.
    Planned(Plan),
    /// The plan after the comparison. With [`Confirm::Ask`], the job waits for [`Command::Proceed`], unless there is
    /// nothing to write.
    Ready(Box<Preview>),
    /// The number of bytes processed in a phase. In the first event of a phase, `done` is 0.
    Progress {
        phase: Phase,
        done: u64,
        total: u64,
    },
    /// A sector changed state.
    Sector {
        /// The sector's position in the memory map.
        index: usize,
        state: SectorState,
    },
    /// A log entry and its level. An identify job logs `Info` entries as `Detail`.
    Log(Level, LogEntry),
    /// A measurement for `cfdfu qualify`. Jobs other than trials also send some of these.
    Measured(Box<Measurement>),
    /// A line that the running firmware printed, and the time since the job first opened the console.
    Console {
        at: Duration,
        line: ConsoleLine,
    },
    /// The job is waiting for `what`, for at most `limit`.
    Waiting {
        what: WaitFor,
        limit: Duration,
    },
    Finished(Report),
}

/// What a job is waiting for. The text of each variant completes a sentence that begins with "waiting for".
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum WaitFor {
    /// The user plugs in a drone.
    #[error("a Crazyflie")]
    Crazyflie,
    #[error("the Crazyflie to restart")]
    Restart,
    #[error("DFU mode")]
    DfuMode,
    /// The user puts a running drone into DFU mode.
    #[error("DFU mode, entered by hand")]
    DfuByHand,
    #[error("the Crazyflie to start")]
    Start,
    /// The drone has started and must keep running. [`Command::Cancel`] skips this wait.
    #[error("a stable start")]
    StayUp,
}

/// A part of a job that reports its own progress.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    Compare,
    Erase,
    Write,
    /// Reading back the written data, or comparing flash with an image in a `verify` job.
    Verify,
    Read,
}

impl Phase {
    /// The name in `--json` output.
    pub(crate) fn json_name(self) -> &'static str {
        match self {
            Phase::Compare => "compare",
            Phase::Erase => "erase",
            Phase::Write => "write",
            Phase::Verify => "verify",
            Phase::Read => "read",
        }
    }
}

/// The state of a sector during a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SectorState {
    /// The sector already matches the image.
    Same,
    ToErase,
    /// The sector was erased, or was blank already.
    Erased,
    Written,
    /// The sector was read back and matches.
    Verified,
    Failed,
}

/// The importance of a log entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Shown with `-v`.
    Detail,
    Info,
    /// A problem that does not end the job.
    Warning,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    pub outcome: Outcome,
    /// The index of the image that was used: 0 for the task's first image, otherwise the index into the alternatives
    /// plus 1.
    pub image: usize,
    /// The size of the image or of the backup in bytes.
    pub bytes: u64,
    pub written: u64,
    pub erased_sectors: usize,
    /// Whether every byte was read back and matches.
    pub verified: bool,
    /// How the drone behaved after the job.
    pub boot: Boot,
    /// The version that the drone reported after it started.
    pub runs: Option<String>,
    /// The health that the firmware reported after the drone started.
    pub health: Box<Health>,
    /// Whether `runs` differs from the version that was flashed.
    pub runs_other: bool,
    /// The version of the boot ROM, if it was read before the restart. See [`RomVersion::starts_without_ccm`].
    pub rom: Option<RomVersion>,
    /// The contents of the bootloader's sector, if the job did not write that sector. A drone without a bootloader may
    /// run now, but does not start when it is switched on.
    pub loader: Option<Loader>,
    /// Whether the drone entered DFU mode without this job, probably by hand. After entry by hand, many drones start
    /// only after a power cycle.
    pub by_hand: bool,
    /// How long the job took, excluding the time spent waiting for confirmation, watching the restarted drone, or
    /// waiting for a drone that does not start.
    pub took: Duration,
}

impl Report {
    /// Whether the drone runs; `None` if it was not restarted or not watched.
    pub fn booted(&self) -> Option<bool> {
        match self.boot {
            Boot::NotAsked | Boot::NotWatched => None,
            Boot::StaysUp => Some(true),
            Boot::Restarts | Boot::NotSeen => Some(false),
        }
    }

    /// Whether the drone keeps running and its self-test has passed. If another program used the drone's link, so that
    /// the self-test could not be queried, the drone only has to keep running.
    pub fn is_well(&self) -> bool {
        self.booted() == Some(true) && !self.health.has_failed() && !self.health.is_unproven()
    }

    /// Whether the drone is known to have a problem, regardless of the outcome of the job.
    pub fn is_unwell(&self) -> bool {
        self.boot == Boot::Restarts
            || self.runs_other
            || self.health.has_failed()
            || self.health.is_silent()
            || self.loader.is_some_and(Loader::is_missing)
    }

    /// Whether the drone was flashed or already held the image and, as far as is known, runs that image, is healthy and
    /// will start again.
    pub fn flies(&self) -> bool {
        matches!(self.outcome, Outcome::Flashed | Outcome::Unchanged)
            && matches!(self.boot, Boot::StaysUp | Boot::NotWatched)
            && !self.runs_other
            && !self.health.has_failed()
            && !self.health.is_unproven()
            && self.health.radio_chip != RadioChip::Silent
            && !self.loader.is_some_and(Loader::is_missing)
    }

    /// Returns the report of a job that was not started because another instance of cfdfu is using its drone.
    pub(crate) fn held() -> Report {
        Report::nothing_done(Outcome::held(DroneState::Untouched))
    }

    /// Returns the report of a job that ended before it did anything.
    pub fn nothing_done(outcome: Outcome) -> Report {
        Report {
            outcome,
            image: 0,
            bytes: 0,
            written: 0,
            erased_sectors: 0,
            verified: false,
            boot: Boot::NotAsked,
            runs: None,
            health: Box::default(),
            runs_other: false,
            rom: None,
            loader: None,
            by_hand: false,
            took: Duration::ZERO,
        }
    }
}

/// How the drone behaved after the job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Boot {
    /// The job did not restart the drone.
    NotAsked,
    /// The drone started, but then it was unplugged or replaced, or the user skipped the wait for a stable start.
    NotWatched,
    /// The drone started and was still running a few seconds later.
    StaysUp,
    /// The drone started and then restarted by itself.
    Restarts,
    /// The drone was not seen running: it did not appear on USB, it is in DFU mode, or a different drone is on its
    /// port.
    NotSeen,
}

/// The result of a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    Flashed,
    /// Nothing had to be written: the flash already held the image.
    Unchanged,
    Read(Vec<u8>),
    /// The device was found or identified, or a blink, console or trial job has ended. For an identification,
    /// [`Event::Known`] has reported the details.
    Identified,
    Failed(Failure),
    Cancelled(DroneState),
}

impl Outcome {
    /// Returns the outcome of a job whose drone is in use by another instance of cfdfu.
    pub(crate) fn held(drone: DroneState) -> Outcome {
        Outcome::Failed(Failure { kind: FailureKind::Held, place: None, drone })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::usb::ROM_DFU;

    #[test]
    fn a_device_is_selected_by_its_port_or_by_either_of_its_serial_numbers() {
        let device = |serial: &str| Device {
            mode: Mode::Dfu,
            id: ROM_DFU,
            location: Location { bus: 1, ports: vec![1, 2] },
            address: 1,
            strings: Strings { serial: serial.to_owned(), ..Strings::default() },
            simulated: true,
            open_error: None,
        };
        let matches =
            |wanted: &str, serial: &str| wanted.parse::<Selector>().unwrap().matches(&device(serial));
        let (rom, running) = ("338133873034", "51004F000551343036333233");
        for (wanted, shown) in [(rom, rom), (running, running), (running, rom), (rom, running)] {
            assert!(matches(wanted, shown), "{wanted} does not select {shown}");
        }
        assert!(matches("51004f000551343036333233", rom));
        assert!(matches("1-1.2", "anything"));
        assert!(!matches("1-1", "anything"));
        assert!(!matches("338133873035", rom));
    }
}
