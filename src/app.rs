//! The interface without a screen: what it knows ([`App`]), what can happen ([`Msg`]), what it wants done
//! ([`Effect`]). Once it is open, [`update`](update::update) is the only function that changes it, pure and total; time
//! comes with each message.
//!
//! [`keys`] is the one table of keys, [`command_line`] the equal command, [`wizard`] the way into DFU mode by hand,
//! [`progress`] the figures of a job, [`picker`] the choice of a file, [`log`] the lines and what they mean.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::doctor::Check;
use crate::flash::check::Admitted;
use crate::flash::undo::{Change, NoCopy, Tracked};
use crate::image::{Content, Image, Sha256};
use crate::job::{
    AtWork, Confirm, Device, DroneAt, Event, Headway, Job, Known, Other, Preview, Report, SectorState,
    WaitFor,
};
use crate::report::{Exit, Problem};

pub mod command_line;
pub mod keys;
pub mod log;
pub mod picker;
pub mod progress;
pub mod update;
pub mod wizard;

use keys::Key;
use log::Log;
use picker::{Entry, Picker};
use progress::Progress;
use wizard::Wizard;

/// The name of the image that the demo brings along, which is no file.
pub const DEMO_IMAGE: &str = "demo.bin";

/// Sectors of the chip's flash.
pub const SECTORS: usize = 12;

#[derive(Clone, Debug)]
pub struct App {
    /// The time of the last message, since the start.
    pub now: Duration,
    /// The simulated situation, if this is the demo; shown always.
    pub demo: Option<Demo>,
    pub bus: BusState,
    /// Which of them is meant, counted from 0.
    pub chosen: usize,
    /// The drone that was meant last, to be found again when the bus changes.
    pub meant: Option<Device>,
    /// The device that a job uses, or used last.
    pub device: Option<Device>,
    /// Where files are chosen before there is one, if not in the folder that it was started in.
    pub folder: Option<PathBuf>,
    pub image: Slot,
    pub loader: Slot,
    /// What is to be done.
    pub goal: Goal,
    /// Whether somebody has chosen that; until then it is what makes sense.
    pub chose: bool,
    /// What the middle of the screen shows.
    pub screen: Screen,
    /// What lies on top of it.
    pub over: Option<Over>,
    /// What was found out about a device in passing, to be shown beside it.
    pub look: Option<Look>,
    /// What the last job that wrote has overwritten, ready to be put back; or why there is nothing to put back.
    pub undo: Result<Before, String>,
    /// Where that comes from, and for which drone.
    pub past: Option<(DroneAt, Tracked)>,
    /// The job that lost its drone, to go on by itself when that is back.
    pub resume: Option<Resume>,
    /// Whether that brings it further.
    pub headway: Headway,
    /// When the last key came.
    pub last_key: Duration,
    /// How long there was none before it: a key that is held comes every 30 ms or so.
    pub quiet: Duration,
    /// What other runs on this computer are at.
    pub elsewhere: Vec<AtWork>,
    /// What is known of each sector.
    pub map: [Option<SectorState>; SECTORS],
    /// What was found and what is left to do, of the job under way or the last.
    pub preview: Option<Box<Preview>>,
    pub log: Log,
    /// One line that explains the last key, until it is old.
    pub notice: Option<(String, Duration)>,
    /// Why a job without interface goes on: the terminal is gone.
    pub detached: bool,
    /// How the last job ended, which is how the program ends; `None` if there was none.
    pub ended: Option<Exit>,
}

/// A job that lost its drone in the middle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resume {
    pub drone: DroneAt,
    pub report: Box<Report>,
}

/// A look at a device, while nothing else is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Look {
    pub device: Device,
    pub state: LookState,
}

/// How far a look is, with what it found out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LookState {
    /// The worker is at it: all its events up to the last are about this.
    UnderWay(Option<Box<Known>>),
    Over(Option<Box<Known>>),
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

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BusState {
    Asking,
    /// There is no USB here.
    None(String),
    Devices(Vec<Device>),
    /// No Crazyflie, but these, which are taken for one or belong to one.
    Others(Vec<Other>),
}

/// A file that was chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Slot {
    Empty,
    Loading(PathBuf),
    Bad(PathBuf, Problem),
    Ready(PathBuf, Box<Image>),
    /// Not a file: what a job overwrote; and what was in this slot, to come back after it.
    Before(Box<Before>, Box<Slot>),
}

/// What a job overwrote, to be put back on the same drone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Before {
    /// Its bytes, in their place.
    pub image: Admitted,
    pub content: Content,
    pub drone: DroneAt,
}

impl Slot {
    /// The image, if there is one.
    pub fn image(&self) -> Option<&Image> {
        match self {
            Slot::Ready(_, image) => Some(image),
            _ => None,
        }
    }

    /// What it is, if it can be flashed.
    pub fn content(&self) -> Option<&Content> {
        match self {
            Slot::Ready(_, image) => Some(&image.content),
            Slot::Before(before, _) => Some(&before.content),
            Slot::Empty | Slot::Loading(_) | Slot::Bad(..) => None,
        }
    }

    pub fn path(&self) -> Option<&PathBuf> {
        match self {
            Slot::Empty | Slot::Before(..) => None,
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
    /// All, in the order of the menu.
    pub const ALL: [Goal; 3] = [Goal::Flash, Goal::Recover, Goal::Restore];

    pub fn title(self) -> &'static str {
        match self {
            Goal::Flash => "Flash firmware",
            Goal::Recover => "Recover a drone that does not start",
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
    /// The way into DFU mode by hand.
    Wizard(Wizard),
    /// A job that looks at the drone, or waits for leave to write, or writes.
    Job(JobView),
    Outcome(Box<Report>),
}

/// A job as it is shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobView {
    /// How far it is in the plan's own order.
    pub stage: Stage,
    pub progress: Progress,
    /// What it waits for, since when and for how long at most.
    pub waiting: Option<(WaitFor, Duration, Duration)>,
    /// Whether a stop was asked for.
    pub stopping: bool,
    /// Whether it is known what is left to write.
    pub compared: bool,
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
    Asking(Question),
    Working,
}

/// What is asked before a job may write.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Question {
    /// What was typed of the word that is asked for, where one is.
    pub word: String,
    /// Since when the plan is on the screen.
    pub shown: Duration,
    /// The drone of this job was on the list of devices since then: if it is not any more, it has gone.
    pub seen: bool,
}

impl Question {
    /// A plan needs this long to be read: an earlier key was typed ahead and does not confirm it.
    pub const READ: Duration = Duration::from_millis(700);

    /// How long until it can have been read; `None` if it can.
    pub fn until_read(&self, now: Duration) -> Option<Duration> {
        (self.shown + Question::READ).checked_sub(now).filter(|left| !left.is_zero())
    }
}

/// What lies on top of the screen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Over {
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
    /// Time has passed that something on the screen shows.
    Tick,
    /// Something was done that was asked for, or could not be.
    Notice(String),
    /// The bus was looked at.
    Bus(BusState),
    Loaded(Which, PathBuf, Result<Box<Image>, Problem>),
    /// A folder was read.
    Listed(PathBuf, Vec<Entry>),
    /// What other runs are at has changed.
    Elsewhere(Vec<AtWork>),
    /// A file holds something else than when it was read; the job that was to write it has not begun.
    Changed(Which, PathBuf, Result<Box<Image>, Problem>),
    Job(Box<Event>),
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
            bus: BusState::Asking,
            chosen: 0,
            meant: None,
            device: None,
            folder: None,
            image: Slot::Empty,
            loader: Slot::Empty,
            chose: false,
            goal: Goal::Flash,
            screen: Screen::Home,
            over: None,
            look: None,
            elsewhere: Vec::new(),
            undo: Err(NoCopy::NeverFlashed.to_string()),
            past: None,
            resume: None,
            headway: Headway::default(),
            last_key: Duration::ZERO,
            quiet: Duration::ZERO,
            map: [None; SECTORS],
            preview: None,
            log: Log::default(),
            notice: None,
            detached: false,
            ended: None,
        }
    }

    pub fn devices(&self) -> &[Device] {
        match &self.bus {
            BusState::Devices(devices) => devices,
            BusState::Asking | BusState::None(_) | BusState::Others(_) => &[],
        }
    }

    /// The drone of the job under way: with its whole serial number, if it was seen running at this port before.
    pub fn job_drone(&self) -> Option<DroneAt> {
        let device = self.device.as_ref()?;
        let running = self.meant.as_ref().map(Device::drone).filter(|meant| meant.is(device));
        Some(running.unwrap_or_else(|| device.drone()))
    }

    /// The files that the job at hand writes, as they were read. The demo's own image is not a file.
    pub fn files_of_job(&self) -> Vec<(Which, PathBuf, Sha256)> {
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

    /// Whether the job at hand writes a file or puts back what was there before.
    pub fn change(&self) -> Change {
        let slot = if self.goal == Goal::Restore { &self.loader } else { &self.image };
        if matches!(slot, Slot::Before(..)) { Change::Undo } else { Change::Flash }
    }

    /// Whether a device is looked at in passing: what the worker tells until its last word is about that.
    pub fn is_looking(&self) -> bool {
        self.look.as_ref().is_some_and(|look| matches!(look.state, LookState::UnderWay(_)))
    }

    /// The other run that has the device that is meant.
    pub fn held_by(&self) -> Option<&AtWork> {
        let place = self.chosen_device()?.location.to_string();
        self.elsewhere.iter().find(|work| work.place == place)
    }

    /// What is known of the device that is meant.
    pub fn known(&self) -> Option<&Known> {
        let look = self.look.as_ref().filter(|look| Some(&look.device) == self.chosen_device())?;
        let (LookState::UnderWay(known) | LookState::Over(known)) = &look.state;
        known.as_deref()
    }

    /// The device that is meant.
    pub fn chosen_device(&self) -> Option<&Device> {
        self.devices().get(self.chosen.min(self.devices().len().saturating_sub(1)))
    }

    /// What is done when the wizard has led into DFU mode.
    pub fn goal_of_wizard(&self) -> Goal {
        if self.goal == Goal::Restore { Goal::Restore } else { Goal::Flash }
    }

    /// The firmware that a restore writes behind the bootloader; a copy of a whole flash brings its own.
    pub fn firmware_of_restore(&self) -> Option<&Image> {
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
            Screen::Wizard(wizard) => wizard.next_wake(self.now),
            Screen::Job(JobView { stage: Stage::Asking(question), .. }) => question.until_read(self.now),
            Screen::Job(_) => Some(second),
            _ => None,
        };
        let notice = self.notice.as_ref().map(|(_, until)| until.saturating_sub(self.now));
        screen.into_iter().chain(notice).min().map(|wait| wait.max(Duration::from_millis(10)))
    }
}
