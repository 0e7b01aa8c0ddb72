//! The shell around the interface: the only part with side effects. It collects messages from the keyboard, the bus,
//! the worker and signals, passes them to `update` with the time, performs the effects, and draws when something has
//! changed. The worker never waits for the shell, except for the confirmation of a plan.
//!
//! [`terminal`] sets up and restores the terminal, [`keyboard`] reads keys, [`background`] recognises the terminal's
//! background, [`bug_report`] saves bug reports, `releases` lists and fetches official releases, and [`plain`] is the
//! same interface without a screen.

use std::fs::{self, File};
use std::io::{self, Write};
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use crate::app::releases::ReleasesMsg;
use crate::app::update::update;
use crate::app::{
    self, App, BatchEffect, BusState, ChosenFile, Demo, DemoInput, DemoLeds, Effect, Msg, Origin, Slot, Which,
};
use crate::batch_workers::{BatchWorkers, WorkerBus};
use crate::clock::{self, Clock};
use crate::doctor;
use crate::image::Image;
use crate::job::{Command, Device, Enter, Event, Job, Level, LogEntry, Other, Report, Selector, Task};
use crate::plan::undo::Change;
use crate::record::StateDir;
use crate::recording::tape::Tape;
use crate::report::{self, Problem};
use crate::scan::ScanCache;
use crate::settings::Settings;
use crate::sim::drone::SimLeds;
use crate::sim::scenario::CF2_BOARDS;
use crate::sim::{SimBus, images};
use crate::supervise::{Ended, Observed, Supervisor, Waits};
use crate::ui;
use crate::ui::theme::{Colours, Theme};
use crate::usb::{Bus, BusError};
use crate::watch;
use crate::worker::Worker;
use crate::worker::retry::RetryingBus;

mod background;
mod bug_report;
mod keyboard;
pub(crate) mod plain;
#[cfg(feature = "releases")]
mod releases;
pub(crate) mod terminal;

use crate::sys::signals::Signals;
use crate::sys::{absolute, files, symptoms};
use terminal::TerminalScreen;

/// The time between two frames of a running job. A key press is drawn at once.
const FRAME: Duration = Duration::from_millis(100);
/// The time between two checks of the simulated drone and of the other instances.
const POLL: Duration = Duration::from_millis(500);

/// How long to reuse the udev rules before reading them again. The jobs of a batch start at about the same time and
/// share one reading.
const RULES_KEPT: Duration = Duration::from_secs(1);

/// How long a warning about the settings stays on the screen. The log contains the warning, too.
const SETTINGS_WARNING: Duration = Duration::from_secs(10);

/// Everything that the interface depends on.
pub(crate) struct World {
    pub bus: Arc<dyn Bus>,
    pub worker_bus: WorkerBus,
    pub clock: Arc<dyn Clock>,
    /// The simulated drones, and the name of the scenario.
    pub demo: Option<(SimBus, String)>,
    /// The user's settings, and a warning if the file is not valid.
    pub settings: (Settings, Option<String>),
    /// Which drones to show.
    pub selector: Selector,
    /// The file given with `--log-file`.
    pub log: Option<File>,
    /// The latest USB transfers, for a bug report.
    pub tape: Arc<Mutex<Tape>>,
}

/// Runs the interface until it quits, and returns its last state.
pub(crate) fn run(world: &World, image: Option<&Path>, theme: &Theme) -> io::Result<App> {
    let (messages, inbox) = channel();
    let mut shell = Shell::start(world, messages.clone());
    let mut screen = TerminalScreen::open()?;
    if theme.colours == (Colours::Dark { auto: true }) {
        terminal::ask_background();
    }
    keyboard::listen(messages.clone());
    // SIGINT also detaches: in raw mode, Ctrl-C arrives as a key, so only another program can have sent the signal.
    let outbox = messages.clone();
    let signals = Signals::listen(move |_| drop(outbox.send(Msg::Detached)))?;
    let mut app = shell.open(image);
    let result = shell.event_loop(&mut app, &inbox, &mut screen, theme);
    signals.stop();
    drop(screen);
    shell.end();
    result.map(|()| app)
}

/// The part of the interface that performs effects.
struct Shell<'a> {
    world: &'a World,
    messages: Sender<Msg>,
    supervisor: Supervisor,
    /// The workers of a batch.
    workers: BatchWorkers,
    commands: Sender<Command>,
    worker: thread::JoinHandle<()>,
    start: Duration,
    quit: bool,
    /// `None` in the demo, which keeps no history, and without a home directory.
    record: Option<StateDir>,
    /// The flag of the last job that had to wait for its files to be read again. It is set once the files have been
    /// compared or the job has been cancelled, whichever comes first.
    starting: Option<Arc<AtomicBool>>,
    /// When the udev rules were read, and whether they allow cfdfu to ask a running drone to enter DFU mode.
    rules: Option<(Duration, Enter)>,
    #[cfg(feature = "releases")]
    releases: releases::Requests,
    /// Watches the bus as long as the shell runs.
    _watcher: watch::Watcher,
}

impl<'a> Shell<'a> {
    fn start(world: &'a World, messages: Sender<Msg>) -> Shell<'a> {
        let Worker { commands, events, thread } =
            Worker::spawn(Arc::clone(&world.bus), Arc::clone(&world.clock));
        let outbox = messages.clone();
        thread::spawn(move || {
            for event in events {
                if outbox.send(Msg::Job(Box::new(event))).is_err() {
                    return;
                }
            }
        });
        let bus = RetryingBus::new(Arc::clone(&world.bus), Arc::clone(&world.clock));
        let (is_demo, logs) = (world.demo.is_some(), world.settings.0.logs());
        let outbox = messages.clone();
        let workers = BatchWorkers::new(
            Arc::clone(&world.worker_bus),
            Arc::clone(&world.clock),
            move |id, event| outbox.send(Msg::OfRow(id, Box::new(event))).is_ok(),
            Waits::Interrupted,
            logs,
        );
        let report = bus_reporter(world.selector.clone(), messages.clone());
        let scan =
            |cache: &mut ScanCache, bus: &dyn Bus, busy: &mut watch::BusyNow<'_>| cache.refresh(bus, busy);
        let watcher = watch::watch_bus(bus, workers.busy.clone(), 1, scan, report);
        if let Some(demo) = &world.demo {
            watch_demo(demo.clone(), Arc::clone(&world.clock), messages.clone());
        }
        if let (None, Some(record)) = (&world.demo, StateDir::of_user()) {
            watch_others(record, Arc::clone(&world.clock), messages.clone());
        }
        Shell {
            world,
            messages,
            workers,
            supervisor: Supervisor::new(commands.clone(), is_demo, Waits::Interrupted, logs),
            commands,
            worker: thread,
            start: world.clock.now(),
            quit: false,
            record: if world.demo.is_some() { None } else { StateDir::of_user() },
            starting: None,
            rules: None,
            #[cfg(feature = "releases")]
            releases: releases::Requests::default(),
            _watcher: watcher,
        }
    }

    /// Creates the state of the interface, and starts loading the image.
    fn open(&mut self, image: Option<&Path>) -> App {
        let demo = self.world.demo.as_ref().map(|(bus, name)| read_demo_state(bus, name));
        let (settings, warning) = &self.world.settings;
        let folder = settings.images.clone().or_else(|| Some(absolute(Path::new("."))));
        let home = directories::BaseDirs::new().map(|dirs| dirs.home_dir().to_owned());
        let names = self.record.as_ref().map(StateDir::names).unwrap_or_default();
        let release_folder = settings.releases.source.clone();
        let mut app = App { names, folder, home, release_folder, ..App::new(demo) };
        if let Some(warning) = warning {
            app.log.push(Duration::ZERO, Level::Warning, warning);
            app.notice = Some((warning.clone(), SETTINGS_WARNING));
        }
        // Report the result of a job that outlived its terminal.
        if let Some(event) = self.record.as_ref().and_then(take_unseen_end) {
            let _ = self.messages.send(Msg::Job(Box::new(event)));
        }
        if let Some(path) = image {
            app.image = Slot::Loading(path.into());
            self.perform(&app, Effect::Load(Which::Image, path.to_owned()));
        } else if app.demo.is_some() {
            // The demo works without a file: it starts with the image that `demo-image` writes.
            let path = PathBuf::from(app::DEMO_IMAGE);
            app.image = Slot::Loading(ChosenFile { path: path.clone(), origin: Origin::BuiltIn });
            let image = Image::parse(images::firmware(images::VERSION, &CF2_BOARDS, images::FIRMWARE_LEN));
            let image = image.map(Box::new).map_err(|error| report::image_error(&error));
            let _ = self.messages.send(Msg::Loaded(Which::Image, path, image));
            // Load the bootloader, too, so that scenarios without a bootloader can be completed.
            let path = PathBuf::from(app::DEMO_LOADER);
            app.loader = Slot::Loading(ChosenFile { path: path.clone(), origin: Origin::BuiltIn });
            let loader = Image::parse(images::loader());
            let loader = loader.map(Box::new).map_err(|error| report::image_error(&error));
            let _ = self.messages.send(Msg::Loaded(Which::Loader, path, loader));
        }
        app
    }

    /// The event loop: handles one message at a time, and draws a frame when something has changed and a frame is due.
    fn event_loop(
        &mut self,
        app: &mut App,
        inbox: &Receiver<Msg>,
        screen: &mut TerminalScreen,
        theme: &Theme,
    ) -> io::Result<()> {
        let (clock, start) = (&self.world.clock, self.start);
        let now = || clock.now().saturating_sub(start);
        let mut dirty = true;
        let mut drawn = Duration::ZERO;
        let mut urgent = true;
        while !self.quit {
            let since = now().saturating_sub(drawn);
            if dirty && (urgent || since >= FRAME) {
                if !app.detached && screen.draw(|frame| ui::draw(frame, app, theme)).is_err() {
                    self.detach();
                }
                (dirty, urgent, drawn) = (false, false, now());
            }
            let wake = if dirty { Some(FRAME.saturating_sub(since)) } else { app.next_wake() };
            let message = match wake {
                None => inbox.recv().map_err(io::Error::other)?,
                Some(wait) => match inbox.recv_timeout(wait) {
                    Ok(message) => message,
                    Err(RecvTimeoutError::Timeout) if dirty => continue,
                    Err(RecvTimeoutError::Timeout) => Msg::Tick,
                    Err(RecvTimeoutError::Disconnected) => return Err(io::Error::other("no more messages")),
                },
            };
            urgent |= is_urgent(&message);
            dirty = true;
            if matches!(message, Msg::Resized) && !app.detached && screen.resize().is_err() {
                self.detach();
            }
            if matches!(message, Msg::Detached) {
                terminal::detach();
            }
            let message = self.supervise(message);
            for effect in update(app, now(), message) {
                if starts_job(&effect) {
                    self.send_time_of_day();
                }
                self.perform(app, effect);
            }
        }
        Ok(())
    }

    /// Detaches when drawing or resizing fails: the terminal is gone, even if no hang-up signal has reached this
    /// process.
    fn detach(&self) {
        let _ = self.messages.send(Msg::Detached);
    }

    fn now(&self) -> Duration {
        self.world.clock.now().saturating_sub(self.start)
    }

    fn send_time_of_day(&self) {
        if let Some(time) = clock::local_time_of_day() {
            let _ = self.messages.send(Msg::TimeOfDay(time));
        }
    }

    fn perform(&mut self, app: &App, effect: Effect) {
        match effect {
            Effect::Start(mut job) => {
                job.enter = self.apply_udev_rules(job.enter);
                self.start_job(app, job);
            }
            Effect::Resume(job) => self.supervisor.resume(job),
            Effect::Identify(job) | Effect::Listen(job) => self.supervisor.start_background(job),
            Effect::Proceed => {
                if let Some(entry) = app.preview().and_then(|preview| self.supervisor.proceed(preview)) {
                    let _ = self.messages.send(Msg::Job(Box::new(Event::Log(entry.level(), entry))));
                }
            }
            Effect::Cancel => {
                // A job whose files are still being read has not started.
                if self.starting.take().is_some_and(|taken| !taken.swap(true, Ordering::SeqCst)) {
                    let _ = self.messages.send(Msg::Ended(self.supervisor.abandon()));
                } else {
                    self.supervisor.cancel();
                }
            }
            Effect::Batch(effect) => self.perform_for_batch(effect),
            Effect::Load(which, path) => {
                let messages = self.messages.clone();
                thread::spawn(move || {
                    let result = read_image(&path);
                    let _ = messages.send(Msg::Loaded(which, path, result));
                });
            }
            Effect::Reread(which, path) => {
                if is_read_once(&path) {
                    let _ = self.messages.send(Msg::NotReread(which));
                } else {
                    self.perform(app, Effect::Load(which, path));
                }
            }
            Effect::List(folder) => {
                let messages = self.messages.clone();
                let recent = self.record.as_ref().map(StateDir::recent).unwrap_or_default();
                thread::spawn(move || {
                    let entries = crate::sys::folder::list(&folder, &recent);
                    let _ = messages.send(Msg::Listed(folder, entries));
                });
            }
            Effect::Complete(path, typed) => {
                let messages = self.messages.clone();
                thread::spawn(move || {
                    let _ = messages.send(Msg::Completed(typed, crate::sys::folder::complete(&path)));
                });
            }
            #[cfg(feature = "releases")]
            Effect::Releases(number, effect) => {
                self.releases.perform(self.world, &self.messages, number, effect);
            }
            #[cfg(not(feature = "releases"))]
            Effect::Releases(..) => {}
            Effect::DemoInput(input) => self.demo_input(input),
            Effect::Bell(times) => terminal::bell(times),
            Effect::Copy(text) => terminal::copy(&text),
            Effect::BugReport => {
                let saved =
                    StateDir::of_user().map(|record| bug_report::save(&record, app, &self.world.tape));
                let text = match saved {
                    Some(Ok(path)) => format!("Bug report saved: {}", path.display()),
                    Some(Err(error)) => format!("The bug report could not be saved: {error}"),
                    None => "The bug report could not be saved: no home directory".to_owned(),
                };
                let _ = self.messages.send(Msg::Notice(text));
            }
            Effect::Doctor => {
                let (bus, messages) = (Arc::clone(&self.world.bus), self.messages.clone());
                thread::spawn(move || {
                    let checks = doctor::diagnose(&symptoms::gather(Ok(&*bus)));
                    let _ = messages.send(Msg::Doctor(checks));
                });
            }
            Effect::Quit => self.quit = true,
        }
    }

    /// Returns [`Enter::NotAllowed`] if the udev rules would not let this user open the drone in DFU mode, otherwise
    /// `enter`. Reads the rules again after [`RULES_KEPT`], because they may have been installed in the meantime.
    fn apply_udev_rules(&mut self, enter: Enter) -> Enter {
        let asks = matches!(enter, Enter::IfRunning | Enter::Unaided);
        if !asks || self.world.demo.is_some() {
            return enter;
        }
        let now = self.now();
        let is_recent = |(read, _): &(Duration, Enter)| now.saturating_sub(*read) < RULES_KEPT;
        let kept = self.rules.filter(is_recent).unwrap_or_else(|| (now, symptoms::choose_enter()));
        self.rules = Some(kept);
        if kept.1 == Enter::NotAllowed { Enter::NotAllowed } else { enter }
    }

    fn perform_for_batch(&mut self, effect: BatchEffect) {
        match effect {
            BatchEffect::Start(id, device, mut job) => {
                job.enter = self.apply_udev_rules(job.enter);
                if let Some(other) = self.workers.start(id, &device, job) {
                    let ended = Ended { others: vec![other], ..Ended::of(Report::held(), false) };
                    let _ = self.messages.send(Msg::RowEnded(id, Box::new(ended)));
                }
            }
            BatchEffect::Resume(id, job) => self.workers.resume(id, job),
            BatchEffect::Cancel(id) => self.workers.send(id, Command::Cancel),
            BatchEffect::CancelIfUntouched(id) => self.workers.send(id, Command::CancelIfUntouched),
            BatchEffect::Finish(id, port) => self.workers.finish(id, &port),
        }
    }

    /// Starts a job. If the job flashes files, reads them again first and starts only if they have not changed, so
    /// that the drone gets the content that the user chose.
    fn start_job(&mut self, app: &App, job: Box<Job>) {
        let flashes_files = matches!(&job.task, Task::Flash(task) if task.change == Change::Flash);
        let files = if flashes_files { app.files_of_job() } else { Vec::new() };
        if files.is_empty() {
            return self.supervisor.start(job);
        }
        self.supervisor.watch(&job);
        let (commands, messages) = (self.commands.clone(), self.messages.clone());
        // The new thread or a cancellation sets the flag, whichever comes first. Cancelling must not wait for the read,
        // because a file system may hang.
        let taken = Arc::new(AtomicBool::new(false));
        self.starting = Some(Arc::clone(&taken));
        thread::spawn(move || {
            let files = files.into_iter().filter(|(_, path, _)| !is_read_once(path));
            let mut changed = files.filter_map(|(which, path, before)| {
                let now = read_image(&path);
                let same = now.as_ref().is_ok_and(|image| image.sha256 == before);
                (!same).then_some(Msg::Changed(which, path, now))
            });
            let changed = changed.next();
            if taken.swap(true, Ordering::SeqCst) {
                return;
            }
            match changed {
                Some(changed) => drop(messages.send(changed)),
                None => drop(commands.send(Command::Run(job))),
            }
        });
    }

    /// Handles a message before the interface gets it: remembers recent files, and passes the worker's events to
    /// the supervisor.
    fn supervise(&mut self, message: Msg) -> Msg {
        match message {
            Msg::Loaded(which, path, Ok(image)) => {
                // The list of recent files is a convenience, so a failure is ignored.
                let _ = self.record.as_ref().map(|record| record.add_recent(&path));
                Msg::Loaded(which, path, Ok(image))
            }
            Msg::Changed(..) => {
                self.supervisor.withdraw();
                message
            }
            Msg::Detached => {
                self.supervisor.detach();
                self.workers.detach();
                Msg::Detached
            }
            Msg::OfRow(id, event) => {
                match self.workers.observe(self.now(), id, *event) {
                    Some(Observed::Event(event)) => {
                        self.write_log(&event);
                        Msg::OfRow(id, Box::new(event))
                    }
                    Some(Observed::Ended(ended)) => Msg::RowEnded(id, ended),
                    // The row ended before this event arrived.
                    None => Msg::Tick,
                }
            }
            Msg::Job(event) => {
                self.write_log(&event);
                match self.supervisor.observe(self.now(), *event) {
                    Observed::Event(event) => Msg::Job(Box::new(event)),
                    Observed::Ended(ended) => Msg::Ended(ended),
                }
            }
            other => other,
        }
    }

    /// Appends an event to the file given with `--log-file`.
    fn write_log(&self, event: &Event) {
        let Some(mut log) = self.world.log.as_ref() else { return };
        let text = match event {
            Event::Log(_, entry) => entry.to_string(),
            Event::Console { line, .. } => line.text.clone(),
            Event::Finished(report) => report::headline(report),
            _ => return,
        };
        // One write per line. Errors are ignored, because a full disk must not stop a flash.
        let line = format!("{:9.3}  {text}\n", self.now().as_secs_f64());
        let _ = log.write_all(line.as_bytes());
    }

    fn demo_input(&self, input: DemoInput) {
        if let Some((bus, name)) = &self.world.demo {
            bus.with(0, |drone, now| match input {
                DemoInput::Cable => drone.plug_or_unplug(now),
                DemoInput::Button => drone.press_or_release(now),
            });
            let _ = self.messages.send(Msg::Demo(read_demo_state(bus, name)));
        }
    }

    /// Waits for the worker to finish any work that must not be interrupted.
    fn end(self) {
        let Shell { supervisor, commands, worker, workers, .. } = self;
        workers.end();
        drop((supervisor, commands));
        let _ = worker.join();
    }
}

/// Returns whether this effect starts a job that may show its time left.
fn starts_job(effect: &Effect) -> bool {
    matches!(
        effect,
        Effect::Start(_)
            | Effect::Resume(_)
            | Effect::Batch(BatchEffect::Start(..) | BatchEffect::Resume(..))
    )
}

/// Whether to draw the effect of this message at once: keys and the answers that the user is waiting for are urgent,
/// whereas progress waits for the next frame.
fn is_urgent(message: &Msg) -> bool {
    let is_answer = |msg: &ReleasesMsg| !matches!(msg, ReleasesMsg::Bytes(..));
    match message {
        Msg::Key(_) | Msg::Resized | Msg::Tick | Msg::Bus(_) | Msg::Listed(..) | Msg::Loaded(..) => true,
        Msg::Releases(_, msg) => is_answer(msg),
        _ => false,
    }
}

/// Whether this file can be read only once, like a pipe.
fn is_read_once(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|it| !it.is_file())
}

/// Reads an image. A panic in a parser becomes an error; otherwise the interface would wait for the file forever.
fn read_image(path: &Path) -> Result<Box<Image>, Problem> {
    let read = catch_unwind(|| files::read_image(path));
    read.unwrap_or_else(|_| Err(files::defect(path))).map(Box::new)
}

fn read_demo_state(bus: &SimBus, name: &str) -> Demo {
    let state = bus.with(0, |drone, now| (drone.is_plugged_in(), drone.is_button_held(), drone.leds(now)));
    let (plugged, button, leds) = state.unwrap_or_default();
    let leds = match leds {
        SimLeds::Dark => DemoLeds::Dark,
        SimLeds::Lit => DemoLeds::Ordinary,
        SimLeds::Slow => DemoLeds::OneSlow,
        SimLeds::Fast => DemoLeds::OneFast,
        SimLeds::TwoSlow => DemoLeds::TwoSlow,
        SimLeds::TwoLit => DemoLeds::TwoLit,
        SimLeds::Red => DemoLeds::Red,
    };
    Demo { scenario: name.to_owned(), plugged, button, leds }
}

/// Reports the state of the simulated drone whenever it changes: the scenario may pull the cable, and the LEDs change
/// over time.
fn watch_demo((bus, name): (SimBus, String), clock: Arc<dyn Clock>, messages: Sender<Msg>) {
    thread::spawn(move || {
        let mut last = read_demo_state(&bus, &name);
        loop {
            clock.sleep(POLL);
            let now = read_demo_state(&bus, &name);
            if now != last {
                last.clone_from(&now);
                if messages.send(Msg::Demo(now)).is_err() {
                    return;
                }
            }
        }
    });
}

/// The drones on the bus, and the devices that belong to a drone or could be mistaken for one.
type ScanResult = Result<(Vec<Device>, Vec<Other>), BusError>;

/// Creates a function that reports which of the selected drones are plugged in. That function returns false if the
/// receiver is gone.
fn bus_reporter(selector: Selector, messages: Sender<Msg>) -> impl FnMut(&ScanResult) -> bool {
    // The serial number of a device that cannot be opened is unknown, so any such device may be the selected one.
    let is_selected = move |device: &Device| {
        selector.matches(device) || matches!(selector, Selector::Serial(_)) && device.open_error.is_some()
    };
    let mut last = None;
    move |found| {
        let state = match found {
            Ok((all, others)) => {
                let devices: Vec<Device> = all.iter().filter(|it| is_selected(it)).cloned().collect();
                if devices.is_empty() && !all.is_empty() && last != Some(BusState::Devices(Vec::new())) {
                    let text = "The selected drone is not plugged in, but another drone is.";
                    let _ = messages.send(Msg::Notice(text.to_owned()));
                }
                if devices.is_empty() && !others.is_empty() {
                    BusState::Others(others.clone())
                } else {
                    BusState::Devices(devices)
                }
            }
            Err(error) => BusState::Unavailable(error.to_string()),
        };
        last = Some(state.clone());
        messages.send(Msg::Bus(state)).is_ok()
    }
}

/// Reports other running instances whenever they change, and the result of a job that outlived its terminal.
fn watch_others(record: StateDir, clock: Arc<dyn Clock>, messages: Sender<Msg>) {
    thread::spawn(move || {
        let mut last = Vec::new();
        loop {
            let others = record.other_instances();
            if others != last {
                let ended = others.is_empty();
                last.clone_from(&others);
                if messages.send(Msg::OtherInstances(others)).is_err() {
                    return;
                }
                if ended && let Some(event) = take_unseen_end(&record) {
                    let _ = messages.send(Msg::Job(Box::new(event)));
                }
            }
            clock.sleep(POLL);
        }
    });
}

/// Takes the result of a job that outlived its terminal from the state directory, and returns it as a log entry.
fn take_unseen_end(record: &StateDir) -> Option<Event> {
    let entry = LogEntry::EndedUnseen(record.take_unseen_result()?);
    Some(Event::Log(entry.level(), entry))
}

/// Returns whether standard input and output are a terminal that supports the full-screen interface.
pub(crate) fn has_terminal() -> bool {
    use std::io::IsTerminal;
    // Windows does not set TERM.
    let dumb = std::env::var_os("TERM").map_or(cfg!(unix), |term| term == "dumb" || term.is_empty());
    io::stdin().is_terminal() && io::stdout().is_terminal() && !dumb
}
