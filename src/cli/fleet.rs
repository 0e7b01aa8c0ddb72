//! Runs a batch: a worker and a supervisor for each drone, one scanner for the bus, and a loop that passes their
//! messages through [`Fleet`] and prints what changes.
//!
//! The drones share nothing but the wire. On Linux each worker has a libusb context of its own: with one context, every
//! completed transfer wakes every waiting worker (libusb, io.c). Elsewhere one context is shared, because libusb
//! supports no more than one on Windows.

use std::collections::HashSet;
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use super::console::Console;
use super::report_file;
use crate::clock::Clock;
use crate::fleet::{Effect, Fleet, Msg, Policy, Row};
use crate::job::{Boot, Command, Device, Event, Job, Level};
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

/// Two drones on one wire cost nothing; from this many on it shows.
const NOTEWORTHY: usize = 4;

/// What the batch runs on.
pub(super) struct World {
    /// The bus that the scanner reads.
    pub bus: Arc<dyn Bus>,
    /// A bus for one more worker.
    pub for_worker: Box<dyn Fn() -> Arc<dyn Bus>>,
    pub clock: Arc<dyn Clock>,
}

/// How a batch ends.
pub(super) struct Options<'a> {
    pub waits: Waits,
    pub logs: usize,
    pub require_boot: bool,
    /// The file of `--report`, already created.
    pub report: Option<(&'a Path, File)>,
    /// The names of the images, in the order of the task.
    pub images: Vec<String>,
    /// A station's journal: a line for each drone that is done.
    pub journal: Option<File>,
}

enum Input {
    Bus(Vec<Device>),
    /// Enter was pressed.
    Go,
    Event(usize, Event),
    Signal(Signal),
}

/// A drone's worker and its supervisor.
struct Crew {
    worker: Worker,
    supervisor: Supervisor,
}

struct Batch<'a> {
    world: &'a World,
    options: &'a Options<'a>,
    fleet: Fleet,
    crews: Vec<Option<Crew>>,
    inputs: Sender<Input>,
    /// The ports whose drones have a job. The scanner leaves them to their workers.
    busy: Arc<Mutex<HashSet<Location>>>,
    hung_up: bool,
    over: bool,
}

/// Runs the batch to its end and returns its exit status.
pub(super) fn run(
    world: &World,
    policy: Policy,
    mut options: Options<'_>,
    console: &mut Console,
) -> Result<Exit, Problem> {
    let (inputs, inbox) = channel();
    let busy = Arc::new(Mutex::new(HashSet::new()));
    watch_bus(world, Arc::clone(&busy), inputs.clone());
    let outbox = inputs.clone();
    let signals = Signals::listen(move |signal| drop(outbox.send(Input::Signal(signal))))
        .map_err(|error| Problem::new(Exit::Defect, ProblemKind::Signals, error))?;
    if policy.station.as_ref().is_some_and(|station| station.hold) {
        console.line("Drones that are plugged in from now on are flashed. Press Enter to flash those that are plugged in.");
        let outbox = inputs.clone();
        thread::spawn(move || {
            let mut line = String::new();
            if std::io::stdin().read_line(&mut line).is_ok_and(|bytes| bytes > 0) {
                let _ = outbox.send(Input::Go);
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
        hung_up: false,
        over: false,
    };
    batch.follow(&inbox, console);
    signals.stop();
    let Batch { fleet, crews, .. } = batch;
    for crew in crews.into_iter().flatten() {
        drop(crew.supervisor);
        crew.worker.join();
    }
    let exit = fleet.exit(options.require_boot);
    console.batch(&fleet, world.clock.now().saturating_sub(started), exit);
    if let Some((path, mut file)) = report {
        let text = report_file::text(path, &fleet, &options.images);
        file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(|error| {
            let message = format!("cannot write the report {}: {error}", path.display());
            Problem::new(Exit::CannotCreate, ProblemKind::OutputFile, message)
                .advise("The drones are as printed above. Free some disk space.")
        })?;
    }
    Ok(exit)
}

impl Batch<'_> {
    fn follow(&mut self, inbox: &Receiver<Input>, console: &mut Console) {
        while !self.over {
            let msg = match inbox.recv_timeout(TICK) {
                Err(RecvTimeoutError::Timeout) => Msg::Tick,
                Err(RecvTimeoutError::Disconnected) => return,
                Ok(Input::Bus(devices)) => Msg::Bus(devices),
                Ok(Input::Go) => Msg::Go,
                Ok(Input::Signal(Signal::Stop)) => {
                    console.line("Stopping each drone at its next safe point ...");
                    Msg::Stop
                }
                Ok(Input::Signal(Signal::HangUp)) => {
                    self.hung_up = true;
                    Msg::HangUp
                }
                Ok(Input::Event(id, event)) => match self.observe(id, event, console) {
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
    fn observe(&mut self, id: usize, event: Event, console: &mut Console) -> Option<Msg> {
        let now = self.world.clock.now();
        let crew = self.crews.get_mut(id)?.as_mut()?;
        if self.hung_up {
            crew.supervisor.hang_up();
        }
        let event = match crew.supervisor.observe(now, event) {
            Observed::Event(event) => event,
            Observed::Ended(ended) => {
                let next = match ended.next {
                    Next::Resume(job) => Some(job),
                    Next::Done | Next::GiveUp => None,
                };
                self.busy
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .remove(&self.fleet.rows[id].device.location);
                return Some(Msg::Ended(id, Box::new(ended.report), next));
            }
        };
        let drone = self.fleet.rows.get(id)?;
        console.of_drone(id, drone, &event);
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
        Some(Msg::Event(id, event))
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

    fn perform(&mut self, effect: Effect, console: &mut Console) {
        match effect {
            Effect::Start(id, job) => {
                let location = self.fleet.rows[id].device.location.clone();
                self.busy.lock().unwrap_or_else(PoisonError::into_inner).insert(location);
                let crew = self.hire(id);
                crew.supervisor.start(job);
            }
            Effect::Resume(id, job) => self.resume(id, job),
            Effect::Cancel(id) => self.send(id, Command::Cancel),
            Effect::CancelIfUntouched(id) => self.send(id, Command::CancelIfUntouched),
            Effect::Joined(id) => {
                console.joins(id, &self.fleet.rows[id]);
                if id + 1 == self.fleet.rows.len() {
                    self.announce(console);
                }
            }
            Effect::Show(id) => {
                let row = &self.fleet.rows[id];
                console.row(id, row, self.options.require_boot);
                if let (Some(station), true) = (self.fleet.station(), row.is_final()) {
                    let done = self.fleet.done();
                    let of = station.count.map(|count| format!(" of {count}")).unwrap_or_default();
                    console.line(&format!("{done}{of} done"));
                    console.beep(beeps(row));
                    self.note(row, console);
                }
            }
            Effect::DoneAlready(device) => console.done_already(&device),
            Effect::Paused => console.line(
                "The first three drones failed in the same way, so the others were not started. Check the image, the hub \
                 and the cables, then run the batch again.",
            ),
            Effect::End => self.over = true,
        }
    }

    /// Adds a drone that is done to the journal, so that `--resume` does not flash it again.
    fn note(&self, row: &Row, console: &mut Console) {
        let Some(mut journal) = self.options.journal.as_ref().filter(|_| row.succeeded()) else { return };
        let line = format!("{}\n", row.device.strings.serial);
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
        thread::spawn(move || events.iter().all(|event| inputs.send(Input::Event(id, event)).is_ok()));
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
fn watch_bus(world: &World, busy: Arc<Mutex<HashSet<Location>>>, inputs: Sender<Input>) {
    let bus = RetryingBus::new(Arc::clone(&world.bus), Arc::clone(&world.clock));
    thread::spawn(move || {
        let mut cache = ScanCache::default();
        let mut last = None;
        loop {
            let skipped = busy.lock().unwrap_or_else(PoisonError::into_inner).clone();
            // A bus that cannot be read has no drones. The batch then ends with "no device".
            let devices = cache.drones(&bus, &skipped).unwrap_or_default();
            if last.as_ref() != Some(&devices) {
                last = Some(devices.clone());
                if inputs.send(Input::Bus(devices)).is_err() {
                    return;
                }
            }
            bus.wait(SCAN);
        }
    });
}
