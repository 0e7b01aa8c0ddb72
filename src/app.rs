//! The interface without a screen: what it knows ([`App`]), what can happen ([`Msg`]), what it wants done
//! ([`Effect`]). Once it is open, [`update`](update::update) is the only function that changes it, pure and total; time
//! comes with each message.
//!
//! [`keys`] is the one table of keys, [`command_line`] the equal command, [`wizard`] the way into DFU mode by hand,
//! [`progress`] the figures of a job, [`picker`] the choice of a file, [`log`] the lines and what they mean.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::doctor::Check;
use crate::image::{Content, Image, Sha256};
use crate::job::{Confirm, Device, DroneAt, Event, Job, Preview, Report, WaitFor};
use crate::plan::admission::{self, ApprovedImage, Overrides, Purpose};
use crate::plan::undo::Piece;
use crate::report::{Exit, Problem};
use crate::supervise::{Ended, NoUndo, RunningInstance, UndoTarget};
use crate::usb::descriptor::is_printable;

pub(crate) mod command_line;
pub(crate) mod devices;
pub mod keys;
pub mod log;
pub mod picker;
pub(crate) mod progress;
pub mod update;
pub mod wizard;

pub use devices::{BackgroundIdentify, BusState, Devices, SECTORS};
use keys::Key;
use log::Log;
use picker::{Entry, Picker};
use progress::Progress;
use wizard::Wizard;

/// The name of the image that the demo brings along, which is no file.
pub(crate) const DEMO_IMAGE: &str = "demo.bin";

#[derive(Clone, Debug)]
pub struct App {
    /// The time of the last message, since the start.
    pub now: Duration,
    /// The simulated situation, if this is the demo; shown always.
    pub demo: Option<Demo>,
    pub devices: Devices,
    /// Where files are chosen before there is one, if not in the folder that it was started in.
    pub folder: Option<PathBuf>,
    /// The firmware to flash.
    pub image: Slot,
    /// The bootloader to restore.
    pub loader: Slot,
    pub goal: Goal,
    /// The user picked the goal; until then it is what makes sense.
    pub goal_is_explicit: bool,
    /// What the middle of the screen shows.
    pub screen: Screen,
    /// What lies on top of it.
    pub over: Option<Overlay>,
    /// How many rows of that are scrolled past.
    pub over_scroll: usize,
    pub undo: Undo,
    pub rhythm: KeyRhythm,
    /// What the terminal has reported of its background, if it has.
    pub background: Option<Background>,
    pub log: Log,
    /// One line that explains the last key, until it is old.
    pub notice: Option<(String, Duration)>,
    /// Why a job without interface goes on: the terminal is gone.
    pub detached: bool,
    /// How the last job ended, which is how the program ends; `None` if there was none.
    pub ended: Option<Exit>,
}

/// The terminal's background.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Background {
    Dark,
    Light,
}

/// When keys come: one that is held repeats every 30 ms or so.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KeyRhythm {
    last: Duration,
    /// How long there was none before the last.
    pub quiet: Duration,
}

impl KeyRhythm {
    pub(crate) fn key(&mut self, now: Duration) {
        self.quiet = now.saturating_sub(self.last);
        self.last = now;
    }
}

/// What can be put back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Undo {
    Nothing(NoUndo),
    /// What was there in the place of the bootloader is none, so that it takes the command line to put it back.
    NotABootloader,
    Ready(Box<Before>),
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
                Undo::Ready(Box::new(Before { image, content, drone, expected }))
            }
            _ => Undo::NotABootloader,
        }
    }

    /// `None` if there is something to put back.
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
    /// The files that are chosen.
    Chosen,
    /// What was there before.
    Undo(Box<Before>),
}

/// What is known of a job, during and after it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobFacts {
    pub source: Source,
    /// The device that it uses, or used last.
    pub device: Option<Device>,
    /// What was found and what is left to do.
    pub preview: Option<Box<Preview>>,
}

impl JobFacts {
    pub(crate) fn new(source: Source) -> JobFacts {
        JobFacts { source, device: None, preview: None }
    }

    /// Which file it stands for, if it is an undo.
    fn undoes(&self) -> Option<(Which, &Before)> {
        match &self.source {
            Source::Chosen => None,
            Source::Undo(before) => Some((before.which(), before)),
        }
    }
}

/// A job that lost its drone in the middle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resume {
    /// Which drone that was.
    pub drone: DroneAt,
    /// How the job ended.
    pub report: Box<Report>,
    /// The rest of it.
    pub job: Box<Job>,
    pub facts: JobFacts,
}

/// The way into DFU mode by hand, and what it is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WizardView {
    pub wizard: Wizard,
    pub aim: Aim,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Aim {
    /// The job at hand begins.
    Begin(Source),
    /// The job that lost its drone goes on by itself.
    Resume(Box<Resume>),
}

/// The demo: the scenario and what the drone's button and cable are like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Demo {
    /// As on the command line.
    pub scenario: String,
    /// Whether the cable is plugged in.
    pub plugged: bool,
    /// Whether the button is held.
    pub button: bool,
}

/// A file that was chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Slot {
    Empty,
    Loading(PathBuf),
    Bad(PathBuf, Problem),
    Ready(PathBuf, Box<Image>),
}

/// What a job overwrote, to be put back on the same drone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Before {
    /// Its bytes, in their place.
    pub image: ApprovedImage,
    pub content: Content,
    pub drone: DroneAt,
    /// What the drone must still hold.
    pub expected: Vec<Piece>,
}

impl Before {
    pub(crate) fn which(&self) -> Which {
        match self.image.purpose() {
            Purpose::RestoreBootloader => Which::Loader,
            Purpose::Flash => Which::Image,
        }
    }
}

impl Slot {
    /// The image, if there is one.
    pub(crate) fn image(&self) -> Option<&Image> {
        match self {
            Slot::Ready(_, image) => Some(image),
            _ => None,
        }
    }

    /// What it is, if it can be flashed.
    pub(crate) fn content(&self) -> Option<&Content> {
        match self {
            Slot::Ready(_, image) => Some(&image.content),
            Slot::Empty | Slot::Loading(_) | Slot::Bad(..) => None,
        }
    }

    pub(crate) fn path(&self) -> Option<&PathBuf> {
        match self {
            Slot::Empty => None,
            Slot::Loading(path) | Slot::Bad(path, _) | Slot::Ready(path, _) => Some(path),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Goal {
    Flash,
    /// Lead into DFU mode by hand, then flash.
    Recover,
    Restore,
}

impl Goal {
    /// The file that it takes.
    pub(crate) fn file(self) -> Which {
        match self {
            Goal::Flash | Goal::Recover => Which::Image,
            Goal::Restore => Which::Loader,
        }
    }

    /// All, in the order of the menu.
    pub(crate) const ALL: [Goal; 3] = [Goal::Flash, Goal::Recover, Goal::Restore];

    pub(crate) fn title(self) -> &'static str {
        match self {
            Goal::Flash => "Flash firmware",
            Goal::Recover => "Rescue a drone that won't start",
            Goal::Restore => "Restore the bootloader",
        }
    }
}

/// Which file a picker chooses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    Image,
    Loader,
}

/// What the middle of the screen shows. Each owns what only it needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Screen {
    Home,
    /// Choosing a file, and what is begun when it is chosen.
    Pick(Which, Option<Goal>, Picker),
    Wizard(WizardView),
    /// A job that looks at the drone, or waits for confirmation, or writes.
    Job(JobView),
    Outcome(Box<Report>, JobFacts),
}

/// A job as it is shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobView {
    pub facts: JobFacts,
    /// How far it is in the plan's own order.
    pub stage: Stage,
    pub progress: Progress,
    /// What it waits for, since when and for how long at most.
    pub waiting: Option<(WaitFor, Duration, Duration)>,
    /// Whether a stop was asked for.
    pub stopping: bool,
    /// Whether somebody is asked before it writes.
    pub confirm: Confirm,
    /// Whether its drone was seen to be away. What is on the bus after that is no echo of what was before.
    pub was_away: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Finding the device, reading what is there.
    Looking,
    /// The plan is on the screen; nothing is changed until it is confirmed.
    Asking(Confirmation),
    Working,
}

/// What is asked before a job may write.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Confirmation {
    /// What was typed of the word that is asked for, where one is.
    pub word: String,
    /// Since when the plan is on the screen.
    pub shown: Duration,
    /// The drone of this job was on the list of devices since then: if it is not any more, it has gone.
    pub seen: bool,
}

impl Confirmation {
    /// A plan needs this long to be read: an earlier key was typed ahead and does not confirm it.
    pub(crate) const READ: Duration = Duration::from_millis(700);

    /// How long until it can have been read; `None` if it can.
    pub fn until_read(&self, now: Duration) -> Option<Duration> {
        (self.shown + Confirmation::READ).checked_sub(now).filter(|left| !left.is_zero())
    }
}

/// What lies on top of the screen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Overlay {
    Help,
    /// Whether to stop the job.
    AskStop,
    Log,
    /// What a line of the log means.
    Explain(String),
    /// Why nothing is found or opened.
    Doctor(Vec<Check>),
}

#[derive(Clone, Debug)]
pub enum Msg {
    Key(Key),
    /// The screen has another size; nothing to know but that it must be drawn.
    Resized,
    /// The terminal has answered what its background is.
    Background(Background),
    /// Time has passed that something on the screen shows.
    Tick,
    /// Something was done that was asked for, or could not be.
    Notice(String),
    /// The bus was looked at.
    Bus(BusState),
    Loaded(Which, PathBuf, Result<Box<Image>, Problem>),
    /// A folder was read.
    Listed(PathBuf, Result<Vec<Entry>, String>),
    /// What other runs are at has changed.
    Elsewhere(Vec<RunningInstance>),
    /// A file holds something else than when it was read; the job that was to write it has not begun.
    Changed(Which, PathBuf, Result<Box<Image>, Problem>),
    /// An event of the job under way, or of a background identify; never its last.
    Job(Box<Event>),
    Ended(Box<Ended>),
    /// This computer was looked at.
    Doctor(Vec<Check>),
    /// The demo's drone was touched.
    Demo(Demo),
    /// The terminal is gone, or somebody wants this program to end.
    Detached,
}

/// What the interface wants done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Give the worker this job.
    Start(Box<Job>),
    /// Give it the rest of a job that lost its drone.
    Resume(Box<Job>),
    /// Let it find out what is on a drone.
    Identify(Box<Job>),
    /// Let the job go on; the copy of what goes is kept first.
    Proceed,
    /// Stop the job at the next safe point.
    Cancel,
    /// Read and recognise this file.
    Load(Which, PathBuf),
    /// Read this folder.
    List(PathBuf),
    /// Do this to the demo's drone.
    Person(Person),
    Bell(u8),
    /// Put this text where the terminal keeps what is copied.
    Copy(String),
    /// Look why nothing is found or opened.
    Doctor,
    /// Save the screen, the log and everything that is known, for a report of a problem.
    Bundle,
    Quit,
}

/// What a person does to the demo's drone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Person {
    /// Plug it in, or unplug it.
    Cable,
    /// Press the button, or let it go.
    Button,
}

impl App {
    pub fn new(demo: Option<Demo>) -> App {
        App {
            now: Duration::ZERO,
            demo,
            devices: Devices::default(),
            folder: None,
            image: Slot::Empty,
            loader: Slot::Empty,
            goal_is_explicit: false,
            goal: Goal::Flash,
            screen: Screen::Home,
            over: None,
            over_scroll: 0,
            undo: Undo::Nothing(NoUndo::default()),
            rhythm: KeyRhythm::default(),
            background: None,
            log: Log::default(),
            notice: None,
            detached: false,
            ended: None,
        }
    }

    /// What is known of the job that is on the screen.
    pub(crate) fn facts(&self) -> Option<&JobFacts> {
        match &self.screen {
            Screen::Job(view) => Some(&view.facts),
            Screen::Outcome(_, facts) => Some(facts),
            Screen::Wizard(WizardView { aim: Aim::Resume(resume), .. }) => Some(&resume.facts),
            _ => None,
        }
    }

    pub fn preview(&self) -> Option<&Preview> {
        self.facts()?.preview.as_deref()
    }

    /// What is put back in the place of this file, if the job on the screen is an undo.
    pub(crate) fn undoes(&self, which: Which) -> Option<&Before> {
        let begins = match &self.screen {
            Screen::Wizard(WizardView { aim: Aim::Begin(Source::Undo(before)), .. }) => Some(&**before),
            _ => None,
        };
        let before = begins.or_else(|| Some(self.facts()?.undoes()?.1))?;
        (before.which() == which).then_some(before)
    }

    /// What the file of this goal is.
    pub(crate) fn content(&self) -> Option<&Content> {
        let which = self.goal.file();
        self.undoes(which).map(|before| &before.content).or_else(|| self.slot(which).content())
    }

    pub(crate) fn slot(&self, which: Which) -> &Slot {
        match which {
            Which::Image => &self.image,
            Which::Loader => &self.loader,
        }
    }

    /// The job that lost its drone and goes on by itself when that is back.
    pub fn resume(&self) -> Option<&Resume> {
        match &self.screen {
            Screen::Wizard(WizardView { aim: Aim::Resume(resume), .. }) => Some(resume),
            _ => None,
        }
    }

    /// Shows a line for a while.
    pub(crate) fn notify(&mut self, text: impl Into<String>) {
        /// How long a notice stays.
        const NOTICE: Duration = Duration::from_secs(6);
        // As in the log: nothing in it is a command to a terminal.
        let text: String = text.into().chars().filter(|&c| c == '\n' || is_printable(c)).collect();
        self.notice = Some((text, self.now + NOTICE));
    }

    /// The files that the job at hand writes, as they were read. The demo's own image is not a file.
    pub(crate) fn files_of_job(&self) -> Vec<(Which, PathBuf, Sha256)> {
        let file = |which: Which, slot: &Slot| match slot {
            Slot::Ready(path, image) if path != Path::new(DEMO_IMAGE) => {
                Some((which, path.clone(), image.sha256))
            }
            _ => None,
        };
        let loader = file(Which::Loader, &self.loader).filter(|_| self.goal == Goal::Restore);
        let written = self.goal != Goal::Restore || self.firmware_of_restore().is_some();
        loader.into_iter().chain(file(Which::Image, &self.image).filter(|_| written)).collect()
    }

    /// What is done when the wizard has led into DFU mode.
    pub(crate) fn goal_of_wizard(&self) -> Goal {
        if self.goal == Goal::Restore { Goal::Restore } else { Goal::Flash }
    }

    /// The firmware that a restore writes behind the bootloader; a copy of a whole flash brings its own.
    pub(crate) fn firmware_of_restore(&self) -> Option<&Image> {
        match self.loader.content() {
            Some(Content::Bootloader) => self.image.image(),
            _ => None,
        }
    }

    /// Whether a job is under way, and whether it may change the drone.
    pub fn job(&self) -> Option<&JobView> {
        match &self.screen {
            Screen::Job(view) => Some(view),
            _ => None,
        }
    }

    /// When the screen would look different without anything happening; `None` if never.
    pub fn next_wake(&self) -> Option<Duration> {
        let second = Duration::from_secs(1);
        let screen = match &self.screen {
            Screen::Wizard(view) => view.wizard.next_wake(self.now),
            Screen::Job(JobView { stage: Stage::Asking(question), .. }) => question.until_read(self.now),
            Screen::Job(_) => Some(second),
            _ => None,
        };
        let notice = self.notice.as_ref().map(|(_, until)| until.saturating_sub(self.now));
        screen.into_iter().chain(notice).min().map(|wait| wait.max(Duration::from_millis(10)))
    }
}

/// An image that is not recognised is taken here, since the plan then asks for a word.
pub(crate) fn wish_for(image: &Image) -> Overrides {
    let allow_mismatch = matches!(image.content, Content::Unknown { .. });
    Overrides { allow_mismatch, ..Overrides::default() }
}
