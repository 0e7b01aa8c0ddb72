//! Runs a batch: a worker and a supervisor for each drone, one scanner for the bus, and a loop that passes their
//! messages through [`Fleet`] and prints what changes.
//!
//! The drones share nothing but the wire. On Linux each worker has a libusb context of its own: with one context, every
//! completed transfer wakes every waiting worker (libusb, io.c). Elsewhere one context is shared, because libusb
//! supports no more than one on Windows.

use std::collections::HashSet;
use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use super::console::Console;
use super::output_file::Output;
use super::report_file;
use crate::clock::Clock;
use crate::fleet::{Fleet, FleetEffect, FleetMsg, Policy, Row};
use crate::job::{Boot, Command, Device, DroneState, Event, Job, Level, Outcome, Report};
use crate::record::StateDir;
use crate::report::{Exit, Problem, ProblemKind};
use crate::scan::ScanCache;
use crate::supervise::{Next, Observed, Supervisor, Waits};
use crate::sys::signals::{Signal, Signals};
use crate::usb::{Bus, Location};
use crate::worker::Worker;
use crate::worker::retry::RetryingBus;

/// How often the fleet's limits in time are checked.
const TICK: Duration = Duration::from_millis(100);
/// How long the scanner waits for a change of the bus.
const SCAN: Duration = Duration::from_millis(500);

/// After this many failed scans the bus counts as empty.
const ERRORS: u32 = 6;
/// The shortest time between two reports of a drone's progress.
const PROGRESS: Duration = Duration::from_millis(100);
/// Two drones on one wire cost nothing; from this many on it shows.
const NOTEWORTHY: usize = 4;

/// What the batch runs on.
pub(super) struct FleetWorld {
    /// The bus that the scanner reads.
    pub bus: Arc<dyn Bus>,
    /// A bus for one more worker.
    pub for_worker: Box<dyn Fn() -> Arc<dyn Bus>>,
    pub clock: Arc<dyn Clock>,
}

/// How a batch ends.
pub(super) struct Options {
    pub waits: Waits,
    pub logs: usize,
    /// The file of `--report`, and whether it is JSON.
    pub report: Option<(Output, bool)>,
    /// The names of the images, in the order of the task.
    pub images: Vec<String>,
    /// A station's journal, with a line for each drone that is done, and what identifies the images in it.
    pub journal: Option<(File, String)>,
    /// The folder for backups, and whether files in it may be overwritten.
    pub folder: Option<(PathBuf, bool)>,
}

enum FleetInput {
    Bus(Vec<Device>),
    /// Enter was pressed.
    Go,
    Event(usize, Event),
    /// Another instance of cfdfu is using this row's drone.
    Held(usize),
    Signal(Signal),
}

/// The workers that have a job, by row.
type RunningWorkers = Arc<Mutex<Vec<(usize, Sender<Command>)>>>;

/// A drone's worker and its supervisor.
struct Crew {
    worker: Worker,
    supervisor: Supervisor,
}

struct Batch<'a> {
    world: &'a FleetWorld,
    options: &'a Options,
    fleet: Fleet,
    crews: Vec<Option<Crew>>,
    inputs: Sender<FleetInput>,
    /// The ports whose drones have a job. The scanner leaves them to their workers.
    busy: Arc<Mutex<HashSet<Location>>>,
    running: RunningWorkers,
    /// When the progress of each row was printed last.
    printed: Vec<Duration>,
    hung_up: bool,
    over: bool,
    /// A backup could not be saved.
    lost_backup: bool,
}

/// Runs the batch to its end and returns its exit status.
pub(super) fn run(
    world: &FleetWorld,
    policy: Policy,
    mut options: Options,
    console: &mut Console,
) -> Result<Exit, Problem> {
    let (inputs, inbox) = channel();
    let busy = Arc::new(Mutex::new(HashSet::new()));
    watch_bus(world, Arc::clone(&busy), inputs.clone());
    // A signal goes to the workers directly as well: the loop may be waiting for a terminal that takes no output.
    let running: RunningWorkers = Arc::default();
    let (outbox, hears) = (inputs.clone(), Arc::clone(&running));
    let signals = Signals::listen(move |signal| {
        for (_, worker) in hears.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            let _ = worker.send(match signal {
                Signal::Stop => Command::Cancel,
                Signal::HangUp => Command::CancelIfUntouched,
            });
        }
        let _ = outbox.send(FleetInput::Signal(signal));
    })
    .map_err(|error| Problem::new(Exit::Defect, ProblemKind::Signals, error))?;
    if policy.station.as_ref().is_some_and(|station| station.hold) {
        console.line("Drones that are plugged in from now on are flashed. Press Enter to flash those that are plugged in.");
        let outbox = inputs.clone();
        thread::spawn(move || {
            let mut line = String::new();
            if std::io::stdin().read_line(&mut line).is_ok_and(|bytes| bytes > 0) {
                let _ = outbox.send(FleetInput::Go);
            }
        });
    }
    let started = world.clock.now();
    let report = options.report.take();
    let mut batch = Batch {
        world,
        options: &options,
        fleet: Fleet::new(policy, started),
        crews: Vec::new(),
        inputs,
        busy,
        running,
        printed: Vec::new(),
        hung_up: false,
        over: false,
        lost_backup: false,
    };
    batch.follow(&inbox, console);
    signals.stop();
    let Batch { fleet, crews, lost_backup, hung_up, .. } = batch;
    for crew in crews.into_iter().flatten() {
        drop(crew.supervisor);
        crew.worker.join();
    }
    let mut exit = match fleet.exit() {
        Exit::Done if lost_backup => Exit::CannotCreate,
        exit => exit,
    };
    if let Some((output, as_json)) = report {
        let text = report_file::text(as_json, &fleet, &options.images);
        if let Err(problem) = output.write(text.as_bytes()) {
            console.line(&format!("{problem}. {}", problem.advice));
            if exit == Exit::Done {
                exit = Exit::CannotCreate;
            }
        }
    }
    let words = console.batch(&fleet, world.clock.now().saturating_sub(started), exit);
    if hung_up && let Some(record) = StateDir::of_user() {
        // Nobody saw the results, so the next start shows them.
        let _ = record.ended(&words, false);
    }
    Ok(exit)
}

impl Batch<'_> {
    fn follow(&mut self, inbox: &Receiver<FleetInput>, console: &mut Console) {
        while !self.over {
            let msg = match inbox.recv_timeout(TICK) {
                Err(RecvTimeoutError::Timeout) => FleetMsg::Tick,
                Err(RecvTimeoutError::Disconnected) => return,
                Ok(FleetInput::Bus(devices)) => FleetMsg::Bus(devices),
                Ok(FleetInput::Go) => FleetMsg::Go,
                Ok(FleetInput::Held(id)) => FleetMsg::Ended(
                    id,
                    Box::new(Report::nothing_done(Outcome::held(DroneState::Untouched))),
                    None,
                ),
                Ok(FleetInput::Signal(Signal::Stop)) => {
                    console.line("Stopping each drone at its next safe point ...");
                    FleetMsg::Stop
                }
                Ok(FleetInput::Signal(Signal::HangUp)) => {
                    self.hung_up = true;
                    FleetMsg::HangUp
                }
                Ok(FleetInput::Event(id, event)) => match self.observe(id, event, console) {
                    Some(msg) => msg,
                    None => continue,
                },
            };
            let now = self.world.clock.now();
            for effect in self.fleet.update(now, msg) {
                self.perform(effect, console);
            }
        }
    }

    /// Passes an event through the drone's supervisor, and prints it.
    fn observe(&mut self, id: usize, event: Event, console: &mut Console) -> Option<FleetMsg> {
        let now = self.world.clock.now();
        let due = self.is_due(now, id, &event);
        let crew = self.crews.get_mut(id)?.as_mut()?;
        let event = match crew.supervisor.observe(now, event) {
            Observed::Event(event) => event,
            Observed::Ended(ended) => {
                let next = match ended.next {
                    Next::Resume(job) => Some(job),
                    Next::Done | Next::GiveUp => None,
                };
                return Some(FleetMsg::Ended(id, Box::new(ended.report), next));
            }
        };
        let drone = self.fleet.rows.get(id)?;
        if due {
            console.of_drone(id, drone, &event);
        }
        if let Event::Ready(preview) = &event
            && let Some(entry) = crew.supervisor.proceed(preview)
        {
            let log = Event::Log(entry.level(), entry);
            if matches!(&log, Event::Log(Level::Warning, _)) {
                console.of_drone(id, drone, &log);
            }
            // The supervisor adds the entry to the run log.
            let _ = crew.supervisor.observe(now, log);
        }
        Some(FleetMsg::Event(id, event))
    }

    /// Whether to print this event: of the progress, ten times a second and the end of each phase are enough.
    fn is_due(&mut self, now: Duration, id: usize, event: &Event) -> bool {
        let Event::Progress { done, total, .. } = event else { return true };
        self.printed.resize(self.printed.len().max(id + 1), Duration::ZERO);
        let is_due = *done == 0 || done == total || now.saturating_sub(self.printed[id]) >= PROGRESS;
        if is_due {
            self.printed[id] = now;
        }
        is_due
    }

    /// What the user should know before the first drone is touched.
    fn announce(&self, console: &mut Console) {
        let shared = self.fleet.most_on_one_wire();
        if shared >= NOTEWORTHY {
            console.line(&format!(
                "{shared} drones share one hub, and with it one full-speed wire: together they take longer. Drones on \
                 another hub do not."
            ));
        }
        for serial in self.fleet.shared_serials() {
            console.line(&format!(
                "Several drones show the serial number {serial}. cfdfu tells them apart by their ports."
            ));
        }
    }

    fn perform(&mut self, effect: FleetEffect, console: &mut Console) {
        match effect {
            FleetEffect::Start(id, job) => {
                let location = self.fleet.rows[id].device.location.clone();
                let inputs = self.inputs.clone();
                let crew = self.hire(id);
                // Such a drone must not be asked to enter DFU mode.
                if let Some(other) = crew.supervisor.user_of(&location) {
                    console.line(&other.to_string());
                    let _ = inputs.send(FleetInput::Held(id));
                    return;
                }
                crew.supervisor.start(job);
                let commands = crew.worker.commands.clone();
                self.running.lock().unwrap_or_else(PoisonError::into_inner).push((id, commands));
                self.busy.lock().unwrap_or_else(PoisonError::into_inner).insert(location);
            }
            FleetEffect::Resume(id, job) => self.resume(id, job),
            FleetEffect::Cancel(id) => self.send(id, Command::Cancel),
            FleetEffect::CancelIfUntouched(id) => self.send(id, Command::CancelIfUntouched),
            FleetEffect::Joined(id) => {
                console.joins(id, &self.fleet.rows[id]);
                if id + 1 == self.fleet.rows.len() {
                    self.announce(console);
                }
            }
            FleetEffect::Show(id) if self.fleet.rows[id].is_final() => self.finish(id, console),
            FleetEffect::Show(id) => {
                console.row(id, &self.fleet.rows[id], self.fleet.requires_boot(), None);
            }
            FleetEffect::DoneAlready(device) => console.done_already(&device),
            FleetEffect::Paused => console.line(
                "The first three drones failed in the same way, so the others were not started. Check the image, the hub \
                 and the cables, then run the batch again.",
            ),
            FleetEffect::End => self.over = true,
        }
    }

    /// Prints a row that has just ended, saves what it read, and frees its port and its worker.
    fn finish(&mut self, id: usize, console: &mut Console) {
        let row = &self.fleet.rows[id];
        let saved = self.save(row);
        if let Some(Err(problem)) = &saved {
            console.line(&format!("{problem}. {}", problem.advice));
            self.lost_backup = true;
        }
        let file = saved.and_then(Result::ok);
        console.row(id, row, self.fleet.requires_boot(), file.as_deref());
        if let Some(station) = self.fleet.station() {
            let done = self.fleet.done();
            let of = station.count.map(|count| format!(" of {count}")).unwrap_or_default();
            console.line(&format!("{done}{of} done"));
            console.beep(beeps(row));
            self.note(row, console);
        }
        self.busy.lock().unwrap_or_else(PoisonError::into_inner).remove(&row.device.location);
        self.running.lock().unwrap_or_else(PoisonError::into_inner).retain(|(n, _)| *n != id);
        if let Some(Crew { worker, supervisor }) = self.crews.get_mut(id).and_then(Option::take) {
            // A station must not keep a thread and a USB context for every drone of the day.
            drop(supervisor);
            worker.join();
        }
    }

    /// Saves the backup of a row that has just ended.
    fn save(&self, row: &Row) -> Option<Result<PathBuf, Problem>> {
        let (folder, force) = self.options.folder.as_ref()?;
        let Outcome::Read(bytes) = &row.report.as_ref()?.outcome else { return None };
        let Device { location, strings, .. } = &row.device;
        let serial: String = strings.serial.chars().filter(char::is_ascii_alphanumeric).collect();
        let file = folder.join(format!("{location}-{serial}.bin"));
        Some(Output::create(&file, *force).and_then(|output| output.write(bytes)).map(|()| file))
    }

    /// Adds a drone that is done to the journal, so that `--resume` does not flash it again.
    fn note(&self, row: &Row, console: &mut Console) {
        let journal = self.options.journal.as_ref();
        let Some((mut journal, images)) =
            journal.filter(|_| row.succeeded()).map(|(file, text)| (file, text))
        else {
            return;
        };
        let line = format!("{} {images}\n", row.device.strings.serial);
        if let Err(error) = journal.write_all(line.as_bytes()).and_then(|()| journal.sync_all()) {
            console.line(&format!(
                "Warning: the journal cannot be written ({error}): --resume will not know this drone."
            ));
        }
    }

    /// Starts a worker for this row.
    fn hire(&mut self, id: usize) -> &mut Crew {
        let mut worker = Worker::spawn((self.world.for_worker)(), Arc::clone(&self.world.clock));
        let (_, none) = channel();
        let events = std::mem::replace(&mut worker.events, none);
        let inputs = self.inputs.clone();
        thread::spawn(move || events.iter().all(|event| inputs.send(FleetInput::Event(id, event)).is_ok()));
        let demo = self.fleet.rows[id].device.simulated;
        let supervisor =
            Supervisor::new(worker.commands.clone(), demo, self.options.waits, self.options.logs);
        self.crews.resize_with(self.fleet.rows.len(), || None);
        self.crews[id].insert(Crew { worker, supervisor })
    }

    fn resume(&mut self, id: usize, job: Box<Job>) {
        if let Some(crew) = self.crews.get_mut(id).and_then(Option::as_mut) {
            crew.supervisor.resume(job);
        }
    }

    fn send(&self, id: usize, command: Command) {
        if let Some(Some(crew)) = self.crews.get(id) {
            let _ = crew.worker.commands.send(command);
        }
    }
}

/// One beep for a drone that is done, two if it needs its power cut, three if it failed.
fn beeps(row: &Row) -> usize {
    match &row.report {
        Some(report) if row.succeeded() && report.boot == Boot::NotSeen => 2,
        Some(_) if row.succeeded() => 1,
        _ => 3,
    }
}

/// Reports the drones on the bus whenever they change. Opens each drone once per enumeration, and no drone that has a
/// job: the query would wait behind an erase.
fn watch_bus(world: &FleetWorld, busy: Arc<Mutex<HashSet<Location>>>, inputs: Sender<FleetInput>) {
    let bus = RetryingBus::new(Arc::clone(&world.bus), Arc::clone(&world.clock));
    thread::spawn(move || {
        let mut cache = ScanCache::default();
        let (mut last, mut errors) = (None, 0);
        loop {
            let skipped = busy.lock().unwrap_or_else(PoisonError::into_inner).clone();
            let devices = cache.drones(&bus, &skipped);
            errors = if devices.is_ok() { 0 } else { errors + 1 };
            // One failed scan does not mean that all drones are gone. A bus that cannot be read at all has no drones.
            let devices = if errors < ERRORS { devices.ok() } else { Some(Vec::new()) };
            // The end of a job is a change, too: its drone may have been unplugged during the job.
            if let Some(devices) = devices
                && last.as_ref() != Some(&(devices.clone(), skipped.clone()))
            {
                last = Some((devices.clone(), skipped));
                if inputs.send(FleetInput::Bus(devices)).is_err() {
                    return;
                }
            }
            bus.wait(SCAN);
        }
    });
}
