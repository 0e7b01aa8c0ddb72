//! The interface without its drawing: the state ([`App`]), the inputs ([`Msg`]) and the outputs ([`Effect`]), which the
//! shell in `tui` carries out. After startup, only [`update`](update::update) changes the state.
//!
//! The submodules: [`batch`] holds the state of a batch, [`devices`] the devices on the bus, [`keys`] the key bindings,
//! [`wizard`] the steps for entering DFU mode by hand, [`progress`] the progress of a job, [`picker`] the choice of a
//! file, [`releases`] the official releases, [`log`] the log lines, and [`command_line`] the equivalent command.

use std::path::PathBuf;
use std::time::Duration;

use crate::crazyflie::Mode;
use crate::crazyflie::names::RadioNames;
use crate::doctor::Check;
use crate::image::{Content, Image, Sha256};
use crate::job::{Boot, Confirm, Device, DroneAt, Event, Job, Preview, Report, WaitFor};
use crate::plan::admission::{self, ApprovedImage, Overrides, Purpose};
use crate::plan::undo::{NoUndo, Piece};
use crate::report::{self, Exit, Problem};
use crate::supervise::{Ended, RunningInstance, UndoTarget};
use crate::usb::Location;
use crate::usb::descriptor::is_printable;

pub mod batch;
pub(crate) mod command_line;
pub(crate) mod devices;
pub mod keys;
pub mod log;
pub mod picker;
pub(crate) mod progress;
pub mod releases;
pub mod update;
pub mod wizard;

use batch::{BatchStage, BatchView, DroneFacts};
pub use devices::{BackgroundIdentify, BusState, Devices, SECTORS, SectorMap};
use keys::Key;
use log::Log;
use picker::{Entry, Picker};
use progress::Progress;
use releases::{ReleasesEffect, ReleasesMsg, ReleasesView};
use wizard::Wizard;

/// Whether this build can fetch official releases.
pub(crate) const HAS_RELEASES: bool = cfg!(feature = "releases");
/// The name shown for the demo's built-in image, which is not a file.
pub(crate) const DEMO_IMAGE: &str = "demo.bin";
/// The name shown for the demo's built-in bootloader.
pub(crate) const DEMO_LOADER: &str = "demo-loader.bin";

#[derive(Clone, Debug)]
pub struct App {
    /// The time of the last message, measured from startup.
    pub now: Duration,
    /// The local time of day at startup, measured from midnight and recomputed whenever a job starts; `None` before the
    /// first job, or if the time zone is unknown.
    pub started_at: Option<Duration>,
    /// The state of the demo; `None` with real drones. The demo's header always shows that the drone is simulated.
    pub demo: Option<Demo>,
    pub devices: Devices,
    /// The known radio addresses of drones, from this run and earlier runs.
    pub names: RadioNames,
    /// The folder in which the picker starts, unless it starts in the folder of a chosen file; `None` means the current
    /// folder.
    pub folder: Option<PathBuf>,
    /// The home directory, which replaces `~/` in a typed path.
    pub home: Option<PathBuf>,
    /// The firmware to flash.
    pub image: Slot,
    /// The bootloader to restore.
    pub loader: Slot,
    /// The folder that the settings name as the source of official releases, instead of GitHub.
    pub release_folder: Option<PathBuf>,
    /// The number of the last request to list or fetch releases.
    pub release_requests: u32,
    pub goal: Goal,
    /// Whether the user picked the goal. Otherwise, the goal depends on what is plugged in.
    pub goal_is_explicit: bool,
    pub screen: Screen,
    /// The batch to which Esc returns from a row's outcome.
    pub behind: Option<Box<BatchView>>,
    /// The number of log lines when a console was last closed, and that console. If the drone has not restarted since,
    /// its console reopens with the same lines.
    pub closed_console: Option<(usize, Box<ConsoleView>)>,
    /// The panel on top of the screen, if any.
    pub overlay: Option<Overlay>,
    /// The number of rows by which the overlay is scrolled down.
    pub overlay_scroll: usize,
    /// What an undo of the last flash would write. [`App::undo`] also considers the opened row of a batch.
    pub undo: Undo,
    pub rhythm: KeyRhythm,
    /// Whether a screen reader may be reading the screen. If so, the wizard allows more time.
    pub spoken: bool,
    /// The terminal's background, once the terminal has reported it.
    pub background: Option<Background>,
    pub log: Log,
    /// A one-line message, and when it expires.
    pub notice: Option<(String, Duration)>,
    /// Whether the terminal is gone, or a signal has asked the program to exit. If so, only jobs that are already
    /// writing keep running.
    pub detached: bool,
    /// What the program does after the interface quits.
    pub after_quit: Then,
    /// The exit status of the last job or batch, which becomes the program's exit status; `None` before the first one
    /// has ended.
    pub exit: Option<Exit>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    End,
    /// Open the demo, where the user can practise on a simulated drone.
    Practise,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Background {
    Dark,
    Light,
}

/// The timing of key presses, used to ignore accidental ones. A key that is held down repeats about every 30 ms.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KeyRhythm {
    last: Duration,
    /// The time between the last two key presses.
    pub gap: Duration,
    /// When an outcome was last closed.
    pub closed_outcome: Option<Duration>,
    /// When the stop question was last closed because all jobs of a batch had ended.
    pub closed_question: Option<Duration>,
}

impl KeyRhythm {
    pub(crate) fn record_key_press(&mut self, now: Duration) {
        self.gap = now.saturating_sub(self.last);
        self.last = now;
    }
}

/// What an undo would write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Undo {
    Nothing(NoUndo),
    /// The restored bootloader replaced data that was not Bitcraze's bootloader. Only the command line can write that
    /// data back.
    NotABootloader,
    Ready(Box<Backup>),
}

impl Undo {
    fn of(target: Result<Box<UndoTarget>, NoUndo>) -> Undo {
        let target = match target {
            Ok(target) => *target,
            Err(why) => return Undo::Nothing(why),
        };
        match (target.content, admission::undo(target.copy, Overrides::default())) {
            (Some(content), Ok(image)) => {
                let (drone, expected) = (target.drone, target.expected);
                Undo::Ready(Box::new(Backup { image, content, drone, expected }))
            }
            _ => Undo::NotABootloader,
        }
    }

    /// Returns the reason that an undo is not possible; `None` if an undo is possible.
    pub(crate) fn why_not(&self) -> Option<String> {
        match self {
            Undo::Ready(_) => None,
            Undo::Nothing(why) => Some(why.to_string()),
            Undo::NotABootloader => Some("the previous bootloader was not Bitcraze's".to_owned()),
        }
    }
}

/// What a job writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// The chosen files.
    Chosen,
    /// The previous content of the drone.
    Undo(Box<Backup>),
}

/// What is known about a job, while it runs and after it has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobFacts {
    pub source: Source,
    /// The device that the job last used.
    pub device: Option<Device>,
    /// What the flash contains and what remains to be done.
    pub preview: Option<Box<Preview>>,
    /// The progress and timing of each phase.
    pub progress: Progress,
    /// When the job ended; zero until then.
    pub ended: Duration,
}

impl JobFacts {
    pub(crate) fn new(source: Source) -> JobFacts {
        let (progress, ended) = (Progress::default(), Duration::ZERO);
        JobFacts { source, device: None, preview: None, progress, ended }
    }

    /// Returns the backup that an undo writes, and the kind of file that the backup replaces; `None` if the job is not
    /// an undo.
    fn undoes(&self) -> Option<(Which, &Backup)> {
        match &self.source {
            Source::Chosen => None,
            Source::Undo(backup) => Some((backup.which(), backup)),
        }
    }
}

/// A job that lost its drone while flashing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resume {
    pub drone: DroneAt,
    /// How the interrupted job ended.
    pub report: Box<Report>,
    /// The job that does the remaining work.
    pub job: Box<Job>,
    pub facts: JobFacts,
}

/// The wizard for entering DFU mode by hand, and what follows the wizard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WizardView {
    pub wizard: Wizard,
    pub aim: Aim,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Aim {
    /// Begin a job.
    Begin(Source),
    /// Resume the job that lost its drone.
    Resume(Box<Resume>),
}

/// The demo: its scenario, and the state of the simulated cable, button and LEDs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Demo {
    /// The scenario's name on the command line.
    pub scenario: String,
    /// Whether the cable is plugged in.
    pub plugged: bool,
    /// Whether the button is held down.
    pub button: bool,
    pub leds: DemoLeds,
}

/// What the LEDs of the simulated drone are doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DemoLeds {
    /// M2 is lit, for example because the drone is running or starting, or is in DFU mode on request.
    #[default]
    Ordinary,
    /// No LED is lit, for example because the drone is unplugged.
    Dark,
    /// M2 blinks slowly.
    OneSlow,
    /// M2 blinks fast.
    OneFast,
    /// M2 and M3 blink slowly.
    TwoSlow,
    /// M2 and M3 are lit, and M1 does not blink.
    TwoLit,
    /// M1 blinks red five times.
    Red,
}

/// The chosen file, if any.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Slot {
    Empty,
    Loading(ChosenFile),
    Bad(PathBuf, Problem),
    Ready(ChosenFile, Box<Image>),
}

/// The file that an image comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChosenFile {
    pub path: PathBuf,
    pub origin: Origin,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    Disk,
    /// Built into the demo. The path is only a name.
    BuiltIn,
    /// An official release.
    Release {
        tag: String,
        /// `None` for the bootloader.
        platform: Option<String>,
        /// Whether the file is on disk. Otherwise, the file is only in memory, and the path is only a name.
        is_kept: bool,
    },
}

impl ChosenFile {
    pub(crate) fn is_release(&self) -> bool {
        matches!(self.origin, Origin::Release { .. })
    }

    /// Returns whether the file is only in memory, so that it cannot be read again.
    fn is_in_memory(&self) -> bool {
        matches!(self.origin, Origin::BuiltIn | Origin::Release { is_kept: false, .. })
    }
}

impl<P: Into<PathBuf>> From<P> for ChosenFile {
    /// Creates the value for a file on disk.
    fn from(path: P) -> ChosenFile {
        ChosenFile { path: path.into(), origin: Origin::Disk }
    }
}

/// A backup of what a job overwrote, for an undo on the same drone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backup {
    /// The overwritten bytes and their addresses.
    pub image: ApprovedImage,
    pub content: Content,
    pub drone: DroneAt,
    /// The data that must still be on the drone for the undo to be safe.
    pub expected: Vec<Piece>,
}

impl Backup {
    pub(crate) fn which(&self) -> Which {
        match self.image.purpose() {
            Purpose::RestoreBootloader => Which::Loader,
            Purpose::Flash => Which::Image,
        }
    }
}

impl Slot {
    pub(crate) fn image(&self) -> Option<&Image> {
        match self {
            Slot::Ready(_, image) => Some(image),
            _ => None,
        }
    }

    /// Returns the content of the image, once the file has been read and accepted.
    pub(crate) fn content(&self) -> Option<&Content> {
        match self {
            Slot::Ready(_, image) => Some(&image.content),
            Slot::Empty | Slot::Loading(_) | Slot::Bad(..) => None,
        }
    }

    pub(crate) fn is_release(&self) -> bool {
        matches!(self, Slot::Loading(file) | Slot::Ready(file, _) if file.is_release())
    }

    pub(crate) fn path(&self) -> Option<&PathBuf> {
        match self {
            Slot::Empty => None,
            Slot::Bad(path, _) => Some(path),
            Slot::Loading(file) | Slot::Ready(file, _) => Some(&file.path),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Goal {
    Flash,
    /// Guide the user through entering DFU mode by hand, then flash.
    Recover,
    Restore,
}

impl Goal {
    /// Returns the file that the goal needs.
    pub(crate) fn file(self) -> Which {
        match self {
            Goal::Flash | Goal::Recover => Which::Image,
            Goal::Restore => Which::Loader,
        }
    }

    /// All goals, in menu order.
    pub(crate) const ALL: [Goal; 3] = [Goal::Flash, Goal::Recover, Goal::Restore];

    pub(crate) fn title(self) -> &'static str {
        match self {
            Goal::Flash => "Flash firmware",
            Goal::Recover => "Rescue a drone that won't start",
            Goal::Restore => "Restore the bootloader",
        }
    }
}

/// One of the two files that a job can write: firmware or a bootloader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    Image,
    Loader,
}

/// What the main panel shows. Each variant owns the state that no other variant needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Screen {
    Home,
    /// The picker for a file, and the goal that starts once the file is chosen.
    Pick(Which, Option<Goal>, Picker),
    /// The page of official releases.
    Releases(Box<ReleasesView>),
    Wizard(WizardView),
    Job(JobView),
    Outcome(Box<Report>, JobFacts),
    /// A batch: many drones at once.
    Batch(Box<BatchView>),
    /// The selected row of this batch, while the row's job runs.
    Row(Box<BatchView>),
    /// The output of a running drone.
    Console(Box<ConsoleView>),
}

/// The console of a running drone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsoleView {
    pub device: Device,
    /// When the console was opened. The lines show the time since then.
    pub opened: Duration,
    /// The lines that the drone has printed.
    pub log: Log,
    /// The screen from which the console was opened.
    pub behind: Box<Screen>,
    /// Whether the console's job is switching the drone's link back to the radio.
    pub closing: bool,
}

/// A running job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobView {
    pub facts: JobFacts,
    pub stage: Stage,
    /// What the job is waiting for, since when, and for how long at most.
    pub waiting: Option<(WaitFor, Duration, Duration)>,
    /// Whether the user asked the job to stop.
    pub stopping: bool,
    /// Whether the user must confirm before the job writes.
    pub confirm: Confirm,
    /// Whether the job's drone was missing from a bus scan. If a later scan finds the drone, it has reconnected.
    pub was_away: bool,
}

impl JobView {
    pub(crate) fn new(confirm: Confirm) -> JobView {
        let facts = JobFacts::new(Source::Chosen);
        JobView { facts, stage: Stage::Looking, waiting: None, stopping: false, confirm, was_away: false }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Finding the device and reading its flash.
    Looking,
    /// The plan is on the screen. Nothing is written until the user confirms it.
    Asking(Confirmation),
    Working,
}

/// The state of the question that the user answers before a job may write.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Confirmation {
    /// The part of the confirmation word typed so far, if one is required.
    pub word: String,
    /// When the plan appeared on the screen.
    pub shown: Duration,
    /// Whether the job's drone has been listed since the plan appeared. If the drone is then no longer listed, it was
    /// unplugged.
    pub seen: bool,
}

impl Confirmation {
    /// How long the plan must be on the screen before a key confirms it. Earlier key presses are ignored, because the
    /// user cannot have read the plan yet.
    pub(crate) const READ: Duration = Duration::from_millis(700);

    /// Returns how much of [`Confirmation::READ`] is left; `None` once that time has passed.
    pub fn until_read(&self, now: Duration) -> Option<Duration> {
        until_read(self.shown, now)
    }
}

/// Returns how much longer a plan that appeared at `shown` ignores keys; `None` once it accepts them.
fn until_read(shown: Duration, now: Duration) -> Option<Duration> {
    (shown + Confirmation::READ).checked_sub(now).filter(|left| !left.is_zero())
}

/// A panel on top of the screen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Overlay {
    /// Explains the keys, the flash map and the LEDs, filtered by this text.
    Help(String),
    /// Asks whether to stop the job, or all jobs of the batch.
    AskStop,
    Log,
    /// Explains a log line.
    Explain(String),
    /// Shows why a drone is not found or cannot be opened.
    Doctor(Vec<Check>),
    /// Shown while the LEDs of a drone blink.
    Blink(Blink),
}

/// A drone whose LEDs blink so that the user can recognise it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blink {
    pub drone: DroneAt,
    pub until: Duration,
    /// Whether the user has stopped the blinking, but the worker has not released the LEDs yet.
    pub stopping: bool,
}

#[derive(Clone, Debug)]
pub enum Msg {
    Key(Key),
    /// The size of the screen has changed.
    Resized,
    /// The terminal has reported its background.
    Background(Background),
    /// The time returned by [`App::next_wake`] has passed, so something on the screen may change.
    Tick,
    /// Text for the notice line, such as the result of an effect.
    Notice(String),
    /// The result of a bus scan.
    Bus(BusState),
    Loaded(Which, PathBuf, Result<Box<Image>, Problem>),
    /// The file is a pipe, which can be read only once.
    NotReread(Which),
    /// The local time of day, since midnight.
    TimeOfDay(Duration),
    /// The contents of a folder.
    Listed(PathBuf, Result<Vec<Entry>, String>),
    /// The text of the path field when the completion was requested, and the text to append.
    Completed(String, String),
    /// The answer to the request with this number.
    Releases(u32, ReleasesMsg),
    /// The list of other running instances has changed.
    OtherInstances(Vec<RunningInstance>),
    /// A chosen file has changed since it was read. The job that would write it has not started.
    Changed(Which, PathBuf, Result<Box<Image>, Problem>),
    /// An event from the current job or background identify. [`Msg::Ended`] reports the end of either.
    Job(Box<Event>),
    Ended(Box<Ended>),
    /// An event from the job of a row in a batch.
    OfRow(usize, Box<Event>),
    /// The job of a row in a batch has ended.
    RowEnded(usize, Box<Ended>),
    /// The results of the checks on this computer.
    Doctor(Vec<Check>),
    /// The new state of the demo.
    Demo(Demo),
    /// The terminal is gone, or a signal has asked the program to exit.
    Detached,
}

/// What the shell must do for the interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Start this job.
    Start(Box<Job>),
    /// Start the job that does the remaining work after a drone was lost.
    Resume(Box<Job>),
    /// Start a background identify.
    Identify(Box<Job>),
    /// Start reading the console of a drone.
    Listen(Box<Job>),
    /// Save a backup of what will be overwritten, then let the job write.
    Proceed,
    /// Stop the job at the next safe point.
    Cancel,
    Batch(BatchEffect),
    /// Read this file and recognise its content.
    Load(Which, PathBuf),
    /// Read this file again if possible. The answer is [`Msg::Loaded`] or [`Msg::NotReread`].
    Reread(Which, PathBuf),
    /// Read this folder.
    List(PathBuf),
    /// Complete this path. The second field is the text of the path field.
    Complete(PathBuf, String),
    /// Carry out this request. The answer has the same number.
    Releases(u32, ReleasesEffect),
    /// Apply this input to the simulated drone.
    DemoInput(DemoInput),
    Bell(u8),
    /// Copy this text to the terminal's clipboard.
    Copy(String),
    /// Check why a drone is not found or cannot be opened.
    Doctor,
    /// Save the screen, the log and the state for a bug report.
    BugReport,
    Quit,
}

/// What the shell must do for a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BatchEffect {
    /// Start the job of this row on this device.
    Start(usize, Box<Device>, Box<Job>),
    /// Start the job that does the remaining work after the row's drone was lost.
    Resume(usize, Box<Job>),
    Cancel(usize),
    CancelIfUntouched(usize),
    /// A row's job has ended: free its worker and its port.
    Finish(usize, Location),
}

/// An input to the simulated drone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DemoInput {
    /// Plug or unplug the cable.
    Cable,
    /// Press or release the button.
    Button,
}

impl App {
    pub fn new(demo: Option<Demo>) -> App {
        App {
            now: Duration::ZERO,
            started_at: None,
            demo,
            devices: Devices::default(),
            names: RadioNames::default(),
            folder: None,
            home: None,
            image: Slot::Empty,
            loader: Slot::Empty,
            release_folder: None,
            release_requests: 0,
            goal_is_explicit: false,
            goal: Goal::Flash,
            screen: Screen::Home,
            behind: None,
            closed_console: None,
            overlay: None,
            overlay_scroll: 0,
            undo: Undo::Nothing(NoUndo::default()),
            rhythm: KeyRhythm::default(),
            spoken: false,
            background: None,
            log: Log::default(),
            notice: None,
            detached: false,
            after_quit: Then::End,
            exit: None,
        }
    }

    /// Like [`report::describe_restart`], but takes into account that the drone may have started since then.
    pub(crate) fn describe_restart(&self, report: &Report) -> Option<String> {
        if self.has_started_later(report) {
            return Some(report::STARTED_LATER.to_owned());
        }
        report::describe_restart(report)
    }

    /// Returns whether the drone was not seen to start after this job, but is running now.
    fn has_started_later(&self, report: &Report) -> bool {
        let used = self.facts().and_then(|facts| facts.device.as_ref());
        let is_running = |device: &Device| {
            device.mode == Mode::Firmware && used.is_some_and(|used| used.may_be_same(device))
        };
        report.boot == Boot::NotSeen && self.devices.list().iter().any(is_running)
    }

    /// Returns the local time of day, in hours and minutes, once `left` has passed.
    pub(crate) fn time_of_day_in(&self, left: Duration) -> Option<(u64, u64)> {
        let minutes = (self.started_at? + self.now + left).as_secs() / 60;
        Some((minutes / 60 % 24, minutes % 60))
    }

    /// Returns the facts of the job on the screen.
    pub(crate) fn facts(&self) -> Option<&JobFacts> {
        match &self.screen {
            Screen::Job(view) => Some(&view.facts),
            Screen::Row(view) => Some(&view.job()?.view.facts),
            Screen::Outcome(_, facts) => Some(facts),
            Screen::Wizard(WizardView { aim: Aim::Resume(resume), .. }) => Some(&resume.facts),
            _ => None,
        }
    }

    pub fn preview(&self) -> Option<&Preview> {
        self.facts()?.preview.as_deref()
    }

    /// Returns the backup that is written instead of this file, if the job on the screen is an undo.
    pub(crate) fn backup_replacing(&self, which: Which) -> Option<&Backup> {
        let of_wizard = match &self.screen {
            Screen::Wizard(WizardView { aim: Aim::Begin(Source::Undo(backup)), .. }) => Some(&**backup),
            _ => None,
        };
        let backup = of_wizard.or_else(|| Some(self.facts()?.undoes()?.1))?;
        (backup.which() == which).then_some(backup)
    }

    /// Returns the content that the current goal writes.
    pub(crate) fn content(&self) -> Option<&Content> {
        let which = self.goal.file();
        self.backup_replacing(which).map(|backup| &backup.content).or_else(|| self.slot(which).content())
    }

    pub(crate) fn slot(&self, which: Which) -> &Slot {
        match which {
            Which::Image => &self.image,
            Which::Loader => &self.loader,
        }
    }

    /// Returns the job that resumes once its drone is back.
    pub fn resume(&self) -> Option<&Resume> {
        match &self.screen {
            Screen::Wizard(WizardView { aim: Aim::Resume(resume), .. }) => Some(resume),
            _ => None,
        }
    }

    /// Shows a notice for six seconds, or until the next key press.
    pub(crate) fn notify(&mut self, text: impl Into<String>) {
        // File names may contain escape sequences, so remove unprintable characters, except line breaks.
        let text: String = text.into().chars().filter(|&c| c == '\n' || is_printable(c)).collect();
        self.notice = Some((text, self.now + NOTICE));
    }

    /// Returns the chosen file with the hash of the content that was read; `None` if no accepted file is chosen, or if
    /// the file is only in memory.
    pub(crate) fn file_on_disk(&self, which: Which) -> Option<(Which, PathBuf, Sha256)> {
        match self.slot(which) {
            Slot::Ready(file, image) if !file.is_in_memory() => {
                Some((which, file.path.clone(), image.sha256))
            }
            _ => None,
        }
    }

    /// Returns the chosen files that the next job writes, except files that are only in memory. Each file has the hash
    /// of the content that was read.
    pub(crate) fn files_of_job(&self) -> Vec<(Which, PathBuf, Sha256)> {
        let loader = self.file_on_disk(Which::Loader).filter(|_| self.goal == Goal::Restore);
        let writes_firmware = self.goal != Goal::Restore || self.firmware_of_restore().is_some();
        loader.into_iter().chain(self.file_on_disk(Which::Image).filter(|_| writes_firmware)).collect()
    }

    /// Returns the goal that follows the wizard.
    pub(crate) fn goal_of_wizard(&self) -> Goal {
        if self.goal == Goal::Restore { Goal::Restore } else { Goal::Flash }
    }

    /// Returns the firmware that a restore writes in addition to the bootloader. A copy of the whole flash already
    /// includes firmware.
    pub(crate) fn firmware_of_restore(&self) -> Option<&Image> {
        match self.loader.content() {
            Some(Content::Bootloader) => self.image.image(),
            _ => None,
        }
    }

    /// Returns the batch on the screen, or behind its opened row.
    pub fn batch(&self) -> Option<&BatchView> {
        match &self.screen {
            Screen::Batch(view) | Screen::Row(view) => Some(view),
            Screen::Outcome(..) => self.behind.as_deref(),
            _ => None,
        }
    }

    pub(crate) fn batch_mut(&mut self) -> Option<&mut BatchView> {
        match &mut self.screen {
            Screen::Batch(view) | Screen::Row(view) => Some(view),
            Screen::Outcome(..) => self.behind.as_deref_mut(),
            _ => None,
        }
    }

    /// Returns the batch whose opened row is on the screen.
    pub(crate) fn batch_of_row(&self) -> Option<&BatchView> {
        self.batch().filter(|_| !matches!(self.screen, Screen::Batch(_)))
    }

    /// Returns the drone of the opened row, and what is known about it. The device list omits a drone while its job
    /// runs.
    pub(crate) fn opened_drone(&self) -> Option<(&Device, Option<&DroneFacts>)> {
        let view = self.batch_of_row()?;
        let row = view.fleet.rows.get(view.at)?;
        let listed = self.devices.list().iter().find(|it| row.device.may_be_same(it));
        let used = view.job().and_then(|job| job.view.facts.device.as_ref());
        Some((listed.or(used).unwrap_or(&row.device), view.facts(view.at)))
    }

    /// Returns the write-protected sectors of the drone on the screen, if known.
    pub(crate) fn protected(&self) -> &[usize] {
        match self.opened_drone() {
            Some((_, facts)) => facts.map_or(&[], DroneFacts::protected),
            None => self.devices.protected(),
        }
    }

    /// Returns the sectors of the drone on the screen.
    pub fn map(&self) -> &SectorMap {
        match self.batch_of_row() {
            Some(view) => view.job().map_or(&[None; SECTORS], |job| &job.map),
            None => &self.devices.map,
        }
    }

    /// Returns the console on the screen.
    pub fn console(&self) -> Option<&ConsoleView> {
        match &self.screen {
            Screen::Console(view) => Some(view),
            _ => None,
        }
    }

    /// Returns the log for the current screen: the log of the opened row of a batch, or otherwise the interface's own
    /// log.
    pub(crate) fn log_on_screen(&self) -> &Log {
        self.batch_of_row().and_then(BatchView::job).map_or(&self.log, |job| &job.log)
    }

    /// Returns the log that the keys scroll. The lines of a console take precedence, unless the log overlay covers
    /// them.
    pub(crate) fn scrolled_log(&self) -> &Log {
        match &self.screen {
            Screen::Console(view) if self.overlay != Some(Overlay::Log) => &view.log,
            _ => self.log_on_screen(),
        }
    }

    pub(crate) fn log_on_screen_mut(&mut self) -> &mut Log {
        let view = match &mut self.screen {
            Screen::Row(view) => Some(&mut **view),
            Screen::Outcome(..) => self.behind.as_deref_mut(),
            _ => None,
        };
        let job = view.and_then(|view| view.job_mut(view.at));
        job.map_or(&mut self.log, |job| &mut job.log)
    }

    /// Returns the undo available on this screen: for the last flash, or for the opened row of a batch.
    pub(crate) fn undo(&self) -> Option<&Undo> {
        match (&self.screen, &self.behind) {
            (Screen::Outcome(..), Some(view)) => view.facts(view.at)?.undo.as_ref(),
            _ => Some(&self.undo),
        }
    }

    /// Returns the reason that no undo is available on this screen; `None` if an undo is available.
    pub(crate) fn why_no_undo(&self) -> Option<String> {
        match self.undo() {
            Some(undo) => undo.why_not(),
            None => Some(NoUndo::default().to_string()),
        }
    }

    /// Returns the running job on the screen.
    pub fn job(&self) -> Option<&JobView> {
        match &self.screen {
            Screen::Job(view) => Some(view),
            Screen::Row(view) => Some(&view.job()?.view),
            _ => None,
        }
    }

    /// Returns whether a plan is waiting for confirmation.
    pub(crate) fn is_asking(&self) -> bool {
        match &self.screen {
            Screen::Job(view) => matches!(view.stage, Stage::Asking(_)),
            Screen::Batch(view) => matches!(view.stage, BatchStage::Asking(_)),
            _ => false,
        }
    }

    /// Returns how much longer the plan on the screen ignores keys; `None` once it accepts them, or if no plan is
    /// shown.
    pub(crate) fn until_read(&self, now: Duration) -> Option<Duration> {
        match &self.screen {
            Screen::Job(JobView { stage: Stage::Asking(question), .. }) => question.until_read(now),
            Screen::Batch(view) => match view.stage {
                BatchStage::Asking(shown) => until_read(shown, now),
                _ => None,
            },
            _ => None,
        }
    }

    /// Returns whether the LEDs of a drone are blinking. The worker is busy while they blink.
    pub fn is_blinking(&self) -> bool {
        matches!(self.overlay, Some(Overlay::Blink(_)))
    }

    /// Returns the time until the screen changes without any input; `None` if it does not change.
    pub fn next_wake(&self) -> Option<Duration> {
        let second = Duration::from_secs(1);
        let screen = match &self.screen {
            Screen::Wizard(view) => view.wizard.next_wake(self.now),
            _ if self.is_asking() => self.until_read(self.now),
            Screen::Job(_) => Some(second),
            Screen::Batch(_) | Screen::Row(_) => None,
            Screen::Outcome(report, facts) if report.flies() => {
                // The propellers in the drawing turn for a moment.
                let passed = self.now.saturating_sub(facts.ended);
                (passed < SPINNING).then_some(SPIN)
            }
            _ => None,
        };
        // A batch checks its time limits at each tick, and shows times in tenths of a second.
        let batch = self.batch().filter(|view| view.is_active()).map(|_| Duration::from_millis(250));
        let blink = self.is_blinking().then_some(BLINK_HALF);
        let notice = self.notice.as_ref().map(|(_, until)| until.saturating_sub(self.now));
        screen
            .into_iter()
            .chain(batch)
            .chain(blink)
            .chain(notice)
            .min()
            .map(|wait| wait.max(Duration::from_millis(10)))
    }
}

/// How long the LEDs of a blinking drone stay on or off, both in the drawing and on the drone.
pub(crate) const BLINK_HALF: Duration = Duration::from_millis(250);

/// How long a notice is shown at most.
const NOTICE: Duration = Duration::from_secs(6);

/// How long the propellers in the outcome's drawing turn.
pub(crate) const SPINNING: Duration = Duration::from_secs(3);
/// How long each position of the propellers is shown.
pub(crate) const SPIN: Duration = Duration::from_millis(125);

/// Returns the overrides for a chosen image. An image that is not recognised is accepted here, because the plan then
/// asks the user to type a word.
pub(crate) fn overrides_for(image: &Image) -> Overrides {
    let allow_mismatch = matches!(image.content, Content::Unknown { .. });
    Overrides { allow_mismatch, ..Overrides::default() }
}
