//! Runs a batch of drones: the workers of [`crate::batch_workers`], one scanner for the bus, and a loop that passes
//! their messages to [`Fleet`] and prints what changes.

use std::collections::HashMap;
use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::Duration;

use super::console::Console;
use super::output_file::Output;
use super::report_file;
use crate::batch_workers::{BatchWorkers, WorkerBus};
use crate::clock::Clock;
use crate::fleet::{Fleet, FleetEffect, FleetMsg, Policy, Row};
use crate::job::{
    Boot, Command, Device, DroneAt, DroneState, Enter, Event, Failure, FailureKind, Job, Outcome, Report,
    Selector, Task,
};
use crate::plan::undo::NoUndo;
use crate::record::StateDir;
use crate::report::{self, Exit, Problem, ProblemKind};
use crate::supervise::{Ended, Observed, Waits};
use crate::sys::signals::{Signal, Signals};
use crate::usb::{Bus, times_on_one_wire};
use crate::watch;

/// How often the fleet's time limits are checked.
const TICK: Duration = Duration::from_millis(100);
/// The shortest time between two reports of a drone's progress.
const PROGRESS: Duration = Duration::from_millis(100);

/// The buses and the clock of a batch.
pub(super) struct FleetWorld {
    /// The bus that the scanner reads.
    pub bus: Arc<dyn Bus>,
    pub worker_bus: WorkerBus,
    pub clock: Arc<dyn Clock>,
}

/// The options of a batch, except its [`Policy`].
pub(super) struct Options {
    pub waits: Waits,
    pub logs: usize,
    /// The file of `--report`, and whether it is JSON.
    pub report: Option<(Output, bool)>,
    /// The versions of the images, in the same order as in the task.
    pub images: Vec<String>,
    /// A station's journal, which has a line for each finished drone, and the text that identifies the images in
    /// these lines.
    pub journal: Option<(File, String)>,
    /// The folder for backups, and whether files in it may be overwritten.
    pub folder: Option<(PathBuf, bool)>,
    /// Set if the batch undoes each drone's last flash. For each drone, the first job only finds the drone, and the
    /// second job writes.
    pub undo: Option<Undo>,
    /// Whether to write nothing unless every drone has an image for its board.
    pub strict: bool,
}

/// How a batch undoes the last flash of each drone.
pub(super) struct Undo {
    pub allow_mismatch: bool,
    pub enter: Enter,
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

struct Batch<'a> {
    world: &'a FleetWorld,
    options: &'a Options,
    fleet: Fleet,
    workers: BatchWorkers,
    inputs: Sender<FleetInput>,
    /// When the progress of each row was last printed.
    printed: Vec<Duration>,
    hung_up: bool,
    is_over: bool,
    /// Whether a backup could not be saved.
    lost_backup: bool,
    /// The board code of each identified row.
    boards: HashMap<usize, String>,
}

/// Runs the batch to its end and returns its exit status.
pub(super) fn run(
    world: &FleetWorld,
    policy: Policy,
    mut options: Options,
    console: &mut Console,
) -> Result<Exit, Problem> {
    let started = world.clock.now();
    let mut policy = policy;
    if options.strict {
        match survey(world, &policy, &options, console)? {
            Survey::Refused(exit) => return Ok(exit),
            Survey::Fits(planned) => {
                policy.expect = Some(planned.len()).filter(|n| *n > 0).or(policy.expect);
                policy.planned = planned;
            }
        }
    }
    let report = options.report.take();
    let BatchResult { fleet, lost_backup, hung_up, .. } = run_batch(world, policy, &options, console)?;
    let mut exit = match fleet.exit() {
        Exit::Done if lost_backup => Exit::CannotCreate,
        exit => exit,
    };
    if let Some((output, as_json)) = report {
        let text = report_file::format_report(as_json, &fleet, &options.images, |row| console.radio_of(row));
        if let Err(problem) = output.write(text.as_bytes()) {
            console.line(&format!("{problem}. {}", problem.advice));
            if exit == Exit::Done {
                exit = Exit::CannotCreate;
            }
        }
    }
    conclude(&fleet, world.clock.now().saturating_sub(started), exit, hung_up, console);
    Ok(exit)
}

/// Prints the summary of a batch.
fn conclude(fleet: &Fleet, took: Duration, exit: Exit, hung_up: bool, console: &mut Console) {
    let summary = console.batch(fleet, took, exit);
    if hung_up && let Some(record) = StateDir::of_user() {
        // The terminal may be closed, so the next start shows the summary.
        let _ = record.save_result(&summary, false);
    }
}

/// The result of [`survey`].
enum Survey {
    /// Each of these drones has an image for its board.
    Fits(Vec<DroneAt>),
    Refused(Exit),
}

/// Identifies every drone for `--strict`. Refuses the batch if a drone has no matching image, was not identified, or is
/// missing.
fn survey(
    world: &FleetWorld,
    policy: &Policy,
    options: &Options,
    console: &mut Console,
) -> Result<Survey, Problem> {
    let Task::Flash(task) = &policy.job.task else { return Ok(Survey::Fits(Vec::new())) };
    let job = Job { enter: Enter::Never, task: Task::Identify, ..policy.job.clone() };
    let identify = Policy { job, require_boot: false, ..policy.clone() };
    let started = world.clock.now();
    let BatchResult { fleet, boards, stopped, hung_up, .. } = run_batch(world, identify, options, console)?;
    let misfits = |id: &usize| !boards.get(id).is_some_and(|code| task.fits(code));
    let misfits: Vec<usize> = (0..fleet.rows.len()).filter(misfits).collect();
    for id in &misfits {
        let reason = match boards.get(id) {
            Some(code) => format!("no image for its board, {code}"),
            None => "unknown board: put the drone into DFU mode, or omit --strict".to_owned(),
        };
        console.print_row_line(*id, &fleet.rows[*id], &reason);
    }
    let exit = match fleet.exit() {
        // Every drone may have been identified although the user stopped the batch.
        _ if stopped => Exit::Interrupted,
        Exit::Done if misfits.is_empty() => {
            return Ok(Survey::Fits(fleet.rows.iter().map(|row| row.device.drone()).collect()));
        }
        Exit::Done => Exit::Image,
        exit => exit,
    };
    console.line("Nothing was written to any drone (--strict).");
    conclude(&fleet, world.clock.now().saturating_sub(started), exit, hung_up, console);
    Ok(Survey::Refused(exit))
}

/// The result of [`run_batch`].
struct BatchResult {
    fleet: Fleet,
    boards: HashMap<usize, String>,
    lost_backup: bool,
    hung_up: bool,
    /// Whether a signal has stopped the batch.
    stopped: bool,
}

fn run_batch(
    world: &FleetWorld,
    policy: Policy,
    options: &Options,
    console: &mut Console,
) -> Result<BatchResult, Problem> {
    let (inputs, inbox) = channel();
    let events = inputs.clone();
    let workers = BatchWorkers::new(
        Arc::clone(&world.worker_bus),
        Arc::clone(&world.clock),
        move |id, event| events.send(FleetInput::Event(id, event)).is_ok(),
        options.waits,
        options.logs,
    );
    let devices = inputs.clone();
    // To match serial numbers, the scanner must also open the drones that other instances are using.
    let by_serial = policy.selected.iter().any(|selector| matches!(selector, Selector::Serial(_)));
    let record = if console.is_demo() || by_serial { None } else { StateDir::of_user() };
    let _watcher = watch::watch_drones(
        Arc::clone(&world.bus),
        Arc::clone(&world.clock),
        workers.busy.clone(),
        move || record.as_ref().map(StateDir::used_ports).unwrap_or_default(),
        move |found| devices.send(FleetInput::Bus(found)).is_ok(),
    );
    let (outbox, running) = (inputs.clone(), workers.running.clone());
    let signals = Signals::listen(move |signal| {
        running.send(&match signal {
            Signal::Stop => Command::Cancel,
            Signal::HangUp => Command::CancelIfUntouched,
        });
        let _ = outbox.send(FleetInput::Signal(signal));
    })
    .map_err(|error| Problem::new(Exit::Defect, ProblemKind::Signals, error))?;
    if policy.station.as_ref().is_some_and(|station| station.hold) {
        console.line(
            "Drones plugged in from now on are flashed. Press Enter to flash those already plugged in.",
        );
        let outbox = inputs.clone();
        thread::spawn(move || {
            let mut line = String::new();
            if std::io::stdin().read_line(&mut line).is_ok_and(|bytes| bytes > 0) {
                let _ = outbox.send(FleetInput::Go);
            }
        });
    }
    let mut batch = Batch {
        world,
        options,
        fleet: Fleet::new(policy, world.clock.now()),
        workers,
        inputs,
        printed: Vec::new(),
        hung_up: false,
        is_over: false,
        lost_backup: false,
        boards: HashMap::new(),
    };
    batch.follow(&inbox, console);
    signals.stop();
    let Batch { fleet, workers, boards, lost_backup, hung_up, .. } = batch;
    workers.end();
    let stopped = fleet.is_stopped();
    Ok(BatchResult { fleet, boards, lost_backup, hung_up, stopped })
}

impl Batch<'_> {
    fn follow(&mut self, inbox: &Receiver<FleetInput>, console: &mut Console) {
        while !self.is_over {
            let msg = match inbox.recv_timeout(TICK) {
                Err(RecvTimeoutError::Timeout) => FleetMsg::Tick,
                Err(RecvTimeoutError::Disconnected) => return,
                Ok(FleetInput::Bus(devices)) => FleetMsg::Bus(devices),
                Ok(FleetInput::Go) => FleetMsg::Go,
                Ok(FleetInput::Held(id)) => FleetMsg::Ended(id, Box::new(Report::held()), None),
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

    /// Passes an event through the drone's supervisor, and prints the event if the supervisor returns it. Returns the
    /// message for the fleet, if any.
    fn observe(&mut self, id: usize, event: Event, console: &mut Console) -> Option<FleetMsg> {
        let now = self.world.clock.now();
        let is_due = self.is_due(now, id, &event);
        let event = match self.workers.observe(now, id, event)? {
            Observed::Event(event) => event,
            Observed::Ended(ended)
                if ended.report.outcome == Outcome::Identified && self.options.undo.is_some() =>
            {
                return self.undo(id, *ended, console);
            }
            Observed::Ended(ended) => {
                return Some(FleetMsg::Ended(id, Box::new(ended.report), ended.next.rest()));
            }
        };
        if let Event::Known(info) = &event
            && let Some(board) = info.board()
        {
            self.boards.insert(id, board.to_owned());
        }
        let row = self.fleet.rows.get(id)?;
        if is_due {
            console.row_event(id, row, &event);
        }
        Some(FleetMsg::Event(id, event))
    }

    /// Starts the undo of a row whose drone has been found. If the undo cannot start, returns the message that ends the
    /// row.
    fn undo(&mut self, id: usize, found: Ended, console: &mut Console) -> Option<FleetMsg> {
        let Undo { allow_mismatch, enter } = self.options.undo.as_ref()?;
        if self.fleet.is_stopped() {
            // A signal arrived after the drone was found.
            let report = Report::nothing_done(Outcome::Cancelled(DroneState::Untouched));
            return Some(FleetMsg::Ended(id, Box::new(report), None));
        }
        let row = self.fleet.rows.get(id)?;
        let target = match found.drone.as_ref() {
            Some(_) => found.undo,
            None => Err(NoUndo::NoSerial),
        };
        let task = target.map_err(FailureKind::NothingToUndo).and_then(|target| {
            if let (Some(content), Some((path, age))) = (&target.content, &target.file) {
                let age = report::format_age(*age);
                console.print_row_line(
                    id,
                    row,
                    &format!("previous firmware, saved {age} ago: {content}, {}", path.display()),
                );
            }
            super::undo_task(*target, *allow_mismatch)
                .map_err(|refusal| FailureKind::Refused(Box::new(refusal)))
        });
        match (task, found.drone) {
            (Ok(task), Some(drone)) => {
                let job = Job { enter: *enter, ..Job::new(Task::Flash(task)) };
                self.workers.resume(id, Box::new(job.of(drone)));
                None
            }
            (Err(kind), _) => {
                let failure = Failure { kind, place: None, drone: DroneState::Untouched };
                let report = Report::nothing_done(Outcome::Failed(failure));
                Some(FleetMsg::Ended(id, Box::new(report), None))
            }
            (Ok(_), None) => None,
        }
    }

    /// Whether to print this event. Progress is printed at the start and the end of each phase, and in between at most
    /// ten times a second.
    fn is_due(&mut self, now: Duration, id: usize, event: &Event) -> bool {
        let Event::Progress { done, total, .. } = event else { return true };
        self.printed.resize(self.printed.len().max(id + 1), Duration::ZERO);
        let is_due = *done == 0 || done == total || now.saturating_sub(self.printed[id]) >= PROGRESS;
        if is_due {
            self.printed[id] = now;
        }
        is_due
    }

    /// Warns about a shared hub and about duplicate serial numbers.
    fn print_warnings(&self, console: &mut Console) {
        let shared = self.fleet.most_on_one_hub();
        if let Some(times) = times_on_one_wire(shared) {
            console.line(&format!(
                "{shared} drones share one hub and its full-speed link: together they take about {times:.1} times as long as \
                 one. Spread them over several hubs to save time."
            ));
        }
        for serial in self.fleet.shared_serials() {
            console.line(&format!(
                "Several drones report the serial number {serial}. cfdfu distinguishes them by their ports."
            ));
        }
    }

    fn perform(&mut self, effect: FleetEffect, console: &mut Console) {
        match effect {
            FleetEffect::Start(id, job) => {
                let device = &self.fleet.rows[id].device;
                if let Some(other) = self.workers.start(id, device, job) {
                    console.line(&other.to_string());
                    let _ = self.inputs.send(FleetInput::Held(id));
                }
            }
            FleetEffect::Resume(id, job) => self.workers.resume(id, job),
            FleetEffect::Cancel(id) => self.workers.send(id, Command::Cancel),
            FleetEffect::CancelIfUntouched(id) => self.workers.send(id, Command::CancelIfUntouched),
            FleetEffect::Joined(id) => {
                console.use_serials(&self.fleet);
                console.announce_drone(id, &self.fleet.rows[id]);
                if id + 1 == self.fleet.rows.len() {
                    self.print_warnings(console);
                }
            }
            FleetEffect::Show(id) if self.fleet.rows[id].is_final() => self.finish(id, console),
            FleetEffect::Show(id) => {
                console.row(id, &self.fleet.rows[id], self.fleet.requires_boot(), None);
            }
            FleetEffect::AlreadyDone(device) => console.already_done(&device),
            FleetEffect::Paused => console.line(report::FAILED_ALIKE),
            FleetEffect::End => self.is_over = true,
        }
    }

    /// Saves the backup of a row that has just ended, prints the row, and frees the drone's port and worker.
    fn finish(&mut self, id: usize, console: &mut Console) {
        let row = &self.fleet.rows[id];
        let saved = self.save_backup(row);
        if let Some(Err(problem)) = &saved {
            console.line(&format!("{problem}. {}", problem.advice));
            self.lost_backup = true;
        }
        let file = saved.and_then(Result::ok);
        console.row(id, row, self.fleet.requires_boot(), file.as_deref());
        if let Some(station) = self.fleet.station() {
            let done = self.fleet.done();
            let of_count = station.count.map(|count| format!(" of {count}")).unwrap_or_default();
            console.line(&format!("{done}{of_count} done"));
            console.beep(beeps(row));
            self.add_to_journal(row, console);
        }
        self.workers.finish(id, &row.device.location);
    }

    /// Saves the backup of a row that has just ended. Returns `None` if the row has no backup.
    fn save_backup(&self, row: &Row) -> Option<Result<PathBuf, Problem>> {
        let (folder, force) = self.options.folder.as_ref()?;
        let Outcome::Read(bytes) = &row.report.as_ref()?.outcome else { return None };
        let Device { location, strings, .. } = &row.device;
        let serial: String = strings.serial.chars().filter(char::is_ascii_alphanumeric).collect();
        let file = folder.join(format!("{location}-{serial}.bin"));
        Some(Output::create(&file, *force).and_then(|output| output.write(bytes)).map(|()| file))
    }

    /// Adds a finished drone to the journal, so that `--resume` does not flash it again.
    fn add_to_journal(&self, row: &Row, console: &mut Console) {
        let journal = self.options.journal.as_ref();
        let Some((mut journal, images)) =
            journal.filter(|_| row.succeeded()).map(|(file, text)| (file, text))
        else {
            return;
        };
        let line = format!("{} {images}\n", row.device.strings.serial);
        if let Err(error) = journal.write_all(line.as_bytes()).and_then(|()| journal.sync_all()) {
            console.line(&format!(
                "Warning: cannot record that this drone is done ({error}). --resume may flash it again."
            ));
        }
    }
}

/// Returns the number of beeps: one for success, two if the drone needs a power cycle or has not reported the result of
/// its self-test, three if the flash or the self-test failed.
fn beeps(row: &Row) -> usize {
    match &row.report {
        Some(report) if report.health.has_failed() => 3,
        Some(report)
            if row.succeeded()
                && (report.boot == Boot::NotSeen
                    || report.boot == Boot::StaysUp && report.health.is_unproven()) =>
        {
            2
        }
        Some(_) if row.succeeded() => 1,
        _ => 3,
    }
}
