//! The policies that apply to every job in every front end. The [`Supervisor`] saves a backup for an undo before the
//! worker may write, announces the job to other instances of cfdfu, records the result of a job that outlives its
//! terminal, and decides whether to wait for a lost drone.
//!
//! A front end starts its jobs through the supervisor, passes every worker event through it, and displays what the
//! supervisor returns. The full-screen interface, `--plain`, the console and `--json` all show the same events.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::Duration;

use crate::clock::Clock;
use crate::crazyflie::Mode;
use crate::job::{
    BoardCheck, Command, Device, DeviceInfo, DroneAt, DroneState, Event, Failure, FailureKind, FlashTask,
    Job, LogEntry, Outcome, Preview, Report, Selector, Task,
};
use crate::plan::undo::{Change, NoUndo};
pub use crate::record::RunningInstance;
use crate::record::{Announcement, StateDir};
use crate::report;
use crate::scan;
use crate::usb::Bus;
use crate::worker::retry::RetryingBus;

mod copies;
mod resume;

pub(crate) use copies::UndoTarget;
use copies::{Copies, RecordedChange};
pub use resume::{Headway, Next, Waits};

pub struct Supervisor {
    commands: Sender<Command>,
    record: Option<StateDir>,
    copies: Copies,
    presence: Announcement,
    waits: Waits,
    headway: Headway,
    /// The terminal is closed, so the user will not see the result.
    hung_up: bool,
    /// The number of run logs to keep; 0 disables them.
    logs: usize,
    watched: Option<Watched>,
    /// The drone of the current background identify.
    identified: Option<DroneAt>,
    /// The jobs queued in the worker, oldest first. Every event up to the next `Finished` belongs to the first job. A
    /// background identify may be followed by the job that it yields to, or by another identify.
    queue: VecDeque<Queued>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Queued {
    Job,
    Background,
}

/// The current job.
struct Watched {
    job: Box<Job>,
    /// The job's drone, with the most complete serial number seen so far.
    drone: Option<DroneAt>,
    /// The worker has reported a device for this job.
    has_device: bool,
    planned: Option<Planned>,
    begun: Option<RecordedChange>,
    /// Another instance that is using this drone.
    holder: Option<RunningInstance>,
    log: String,
}

/// Facts from the current job's plan.
#[derive(Clone, Copy)]
struct Planned {
    /// The number of bytes still to write.
    left: u64,
    board: BoardCheck,
}

/// An event after it has passed through the supervisor.
pub enum Observed {
    Event(Event),
    Ended(Box<Ended>),
}

/// Returns the other instance of cfdfu that is using this device, if any. The demo's drones are never in use by another
/// instance.
pub(crate) fn find_instance_using(device: &Device) -> Option<RunningInstance> {
    let record = if device.simulated { None } else { StateDir::of_user() };
    record?.instance_on(&device.location)
}

/// The end of a job, and the next step.
#[derive(Clone, Debug)]
pub struct Ended {
    pub report: Report,
    /// The job was a background identify.
    pub background: bool,
    /// The drone that the job used, if the job found one and its serial number is known.
    pub drone: Option<DroneAt>,
    /// Other instances of cfdfu that may be using the drone, if another program has it open.
    pub others: Vec<RunningInstance>,
    pub next: Next,
    /// The data that an undo of this drone's last change would write. Determined only after a flash or find job.
    pub undo: Result<Box<UndoTarget>, NoUndo>,
}

impl Ended {
    /// Returns the end of a job that has no drone and no next step.
    pub fn of(report: Report, background: bool) -> Ended {
        let undo = Err(NoUndo::default());
        Ended { report, background, drone: None, others: Vec::new(), next: Next::Done, undo }
    }
}

impl Supervisor {
    /// Creates a supervisor for the worker that receives `commands`. The demo uses no state directory and writes no
    /// files.
    pub fn new(commands: Sender<Command>, demo: bool, waits: Waits, logs: usize) -> Supervisor {
        let record = if demo { None } else { StateDir::of_user() };
        Supervisor {
            commands,
            copies: Copies::new(record.clone(), demo),
            presence: Announcement::new(record.clone()),
            record,
            waits,
            headway: Headway::default(),
            hung_up: false,
            logs,
            watched: None,
            identified: None,
            queue: VecDeque::new(),
        }
    }

    /// Returns the other instance that is already using this job's drone, if any. Such a drone must not be asked to
    /// enter DFU mode. The bus is scanned only if another instance is running.
    pub(crate) fn held_by(
        &self,
        bus: &Arc<dyn Bus>,
        clock: &Arc<dyn Clock>,
        job: &Job,
    ) -> Option<RunningInstance> {
        let record = self.record.as_ref().filter(|record| !record.other_instances().is_empty())?;
        // A job that names its port needs no scan.
        if let Selector::At(port) = &job.device {
            return record.instance_on(port);
        }
        let bus = RetryingBus::new(Arc::clone(bus), Arc::clone(clock));
        record.instance_on(&scan::choose_device(&bus, &job.device).ok()?.location)
    }

    /// Starts a job.
    pub fn start(&mut self, job: Box<Job>) {
        self.watch(&job);
        self.send(Command::Run(job));
    }

    /// Starts the job of [`Next::Resume`].
    pub fn resume(&mut self, job: Box<Job>) {
        let headway = self.headway;
        self.start(job);
        self.headway = headway;
    }

    /// Supervises a job that the caller then sends to the worker.
    pub(crate) fn watch(&mut self, job: &Job) {
        self.headway = Headway::default();
        self.queue.push_back(Queued::Job);
        let drone = match (&job.device, &job.serial) {
            (Selector::At(port), Some(serial)) => {
                Some(DroneAt { port: port.clone(), serial: serial.clone() })
            }
            _ => None,
        };
        self.watched = Some(Watched {
            job: Box::new(job.clone()),
            drone,
            has_device: false,
            planned: None,
            begun: None,
            holder: None,
            log: String::new(),
        });
    }

    /// Starts a background identify, which yields to any other job and records only the drone's radio address.
    pub fn start_background(&mut self, job: Box<Job>) {
        self.queue.push_back(Queued::Background);
        self.send(Command::Run(job));
    }

    /// Saves the data that the plan overwrites, lets the worker write, and returns the entry for the log. Call this
    /// method once the plan is confirmed.
    pub fn proceed(&mut self, preview: &Preview) -> Option<LogEntry> {
        let entry = self.keep_copy(preview);
        self.send(Command::Proceed);
        entry
    }

    pub fn cancel(&self) {
        self.send(Command::Cancel);
    }

    /// Makes the supervisor record the result of the job, and no longer wait for a lost drone. Call this method when
    /// the terminal is closed or this process has been asked to exit.
    pub fn detach(&mut self) {
        self.hung_up = true;
    }

    /// Ends the current job, which was stopped before it reached the worker.
    pub(crate) fn abandon(&mut self) -> Box<Ended> {
        self.queue.pop_back();
        self.end(Report::nothing_done(Outcome::Cancelled(DroneState::Untouched)))
    }

    /// Undoes the last [`Supervisor::watch`]: the job will not be sent to the worker.
    pub(crate) fn withdraw(&mut self) {
        self.queue.pop_back();
        self.watched = None;
    }

    pub fn observe(&mut self, now: Duration, event: Event) -> Observed {
        let source = match event {
            Event::Finished(_) => self.queue.pop_front(),
            _ => self.queue.front().copied(),
        };
        if source == Some(Queued::Background) {
            return match event {
                Event::Finished(report) => Observed::Ended(Box::new(Ended::of(report, true))),
                event => {
                    match &event {
                        Event::Device(device) => self.identified = Some(device.drone()),
                        Event::Known(info) => self.remember_name(self.identified.as_ref(), info),
                        _ => {}
                    }
                    Observed::Event(event)
                }
            };
        }
        if let Event::Device(device) = &event {
            // Check before announcing this instance: if two instances start at once, the first one continues.
            self.note_device(device);
        }
        self.presence.follow(now, &event);
        if let Some(watched) = &mut self.watched {
            watched.note(now, &event);
        }
        match event {
            Event::Known(info) => {
                self.remember_name(self.watched.as_ref().and_then(|watched| watched.drone.as_ref()), &info);
                Observed::Event(Event::Known(info))
            }
            Event::Ready(preview) => {
                self.note_preview(&preview);
                Observed::Event(Event::Ready(preview))
            }
            Event::Finished(report) => Observed::Ended(self.end(report)),
            event => Observed::Event(event),
        }
    }

    /// Remembers the job's drone. The full serial number, which only a running drone reports, takes precedence over the
    /// serial number that the drone reports in DFU mode.
    fn note_device(&mut self, device: &Device) {
        let Some(watched) = &mut self.watched else { return };
        watched.has_device = true;
        let is_same_drone = watched.drone.as_ref().is_some_and(|drone| drone.is(device));
        // Once the job has a plan, the job keeps its drone, even if a different drone is plugged into the same port.
        let is_settled = watched.planned.is_some() || device.strings.serial.is_empty();
        if watched.drone.is_none()
            || is_same_drone && device.mode == Mode::Firmware
            || !is_same_drone && !is_settled
        {
            watched.drone = Some(device.drone());
        }
        // Another instance may have claimed the drone first. A background identify in another instance is not
        // announced: when the worker claims the drone, the worker waits for that identify to end.
        if watched.holder.is_none()
            && let Some(record) = &self.record
        {
            watched.holder = record.instance_on(&device.location);
            if watched.holder.is_some() {
                self.cancel();
            }
        }
    }

    /// Remembers a running drone's radio address, so that `list` shows the address when the drone is not running.
    /// Ignores errors.
    fn remember_name(&self, drone: Option<&DroneAt>, info: &DeviceInfo) {
        if let (Some(record), Some(radio), Some(drone)) = (&self.record, info.radio(), drone) {
            let _ = record.save_radio_address(&drone.serial, radio);
        }
    }

    fn note_preview(&mut self, preview: &Preview) {
        let Some(watched) = &mut self.watched else { return };
        watched.planned = Some(Planned { left: preview.work.bytes(), board: preview.board });
        let (Some(drone), Some(task)) = (&watched.drone, watched.job.flash()) else { return };
        if task.is_resumed() {
            watched.begun = Some(self.copies.resume_change(drone));
        } else if preview.work.is_empty() && task.change == Change::Undo {
            self.copies.finish_undo(drone);
        }
    }

    fn keep_copy(&mut self, preview: &Preview) -> Option<LogEntry> {
        let watched = self.watched.as_mut().filter(|_| !preview.work.is_empty())?;
        let task = watched.job.flash().filter(|task| !task.is_resumed())?;
        let (begun, entry) = self.copies.begin(watched.drone.as_ref()?, preview, task.change);
        watched.begun = begun;
        entry
    }

    /// Ends the current job.
    fn end(&mut self, mut report: Report) -> Box<Ended> {
        let Some(watched) = self.watched.take() else { return Box::new(Ended::of(report, false)) };
        let Watched { job, drone, has_device, planned, begun, holder, log } = watched;
        if let (Some(_), Outcome::Cancelled(drone)) = (&holder, &report.outcome) {
            report.outcome = Outcome::held(*drone);
        }
        if let Some(begun) = begun {
            self.copies.end(begun, &report.outcome);
        }
        let is_held = matches!(&report.outcome, Outcome::Failed(Failure { kind: FailureKind::Held, .. }));
        let others = match (holder, &self.record) {
            (Some(holder), _) if is_held => vec![holder],
            (None, Some(record)) if is_held => record.other_instances(),
            _ => Vec::new(),
        };
        let is_resumed = job.flash().is_some_and(FlashTask::is_resumed);
        if has_device && !is_held || is_resumed {
            self.record_end(&job, &report, &log);
        }
        // Skip jobs that only read: their front ends do not need the undo target, and finding the target reads files.
        let undoable = drone.as_ref().filter(|_| matches!(job.task, Task::Flash(_) | Task::Find));
        let undo = undoable.map_or(Err(NoUndo::default()), |drone| self.copies.find_undo_target(drone));
        let drone = drone.filter(|drone| has_device && !drone.serial.is_empty());
        let waits = if self.hung_up { Waits::No } else { self.waits };
        let next = resume::decide_next(waits, &mut self.headway, &job, &report, drone.as_ref(), planned);
        Box::new(Ended { report, background: false, drone, others, next, undo: undo.map(Box::new) })
    }

    /// Saves the log of a flash, verify, backup or trial job. If the user cannot see the job's result now, also saves
    /// the result for the next start of cfdfu. Ignores errors.
    fn record_end(&self, job: &Job, report: &Report, log: &str) {
        let Some(record) = self
            .record
            .as_ref()
            .filter(|_| !matches!(job.task, Task::Find | Task::Identify | Task::Blink(_) | Task::Console(_)))
        else {
            return;
        };
        let headline = report::headline(report);
        if self.hung_up {
            let _ = record.save_result(&headline, false);
        }
        if self.logs > 0 {
            let _ = record.save_log(&format!("{log}{headline}\n"), self.logs);
        }
    }

    fn send(&self, command: Command) {
        // If the worker has ended, its last event has already reported why.
        let _ = self.commands.send(command);
    }
}

impl Watched {
    /// Appends an event to the run log, if the event belongs in it.
    fn note(&mut self, now: Duration, event: &Event) {
        use std::fmt::Write;
        let at = now.as_secs_f64();
        // Writing to a string cannot fail.
        let _ = match event {
            Event::Log(level, entry) => writeln!(self.log, "{at:9.3}  {level:?}  {entry}"),
            Event::Device(device) => {
                writeln!(self.log, "{at:9.3}  Info  {} on port {}", device.id, device.location)
            }
            Event::Waiting { what, limit } if !limit.is_zero() => {
                writeln!(self.log, "{at:9.3}  Info  waiting for {what}")
            }
            _ => Ok(()),
        };
    }
}

impl Job {
    fn flash(&self) -> Option<&FlashTask> {
        match &self.task {
            Task::Flash(task) => Some(task),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, channel};

    use super::*;
    use crate::job::{Enter, Running};
    use crate::usb::descriptor::Strings;
    use crate::usb::{CRAZYFLIE, ROM_DFU};

    fn job(task: Task) -> Box<Job> {
        Box::new(Job { enter: Enter::Never, ..Job::new(task) })
    }

    fn supervisor() -> (Supervisor, Receiver<Command>) {
        let (commands, worker) = channel();
        (Supervisor::new(commands, true, Waits::Interrupted, 0), worker)
    }

    /// Finishes the worker's current job. Returns whether the supervisor reports the end of a background identify.
    fn ends_background(supervisor: &mut Supervisor) -> bool {
        let finished = Event::Finished(Report::nothing_done(Outcome::Identified));
        match supervisor.observe(Duration::ZERO, finished) {
            Observed::Ended(ended) => ended.background,
            Observed::Event(event) => panic!("not the end of a job: {event:?}"),
        }
    }

    #[test]
    fn each_finished_event_belongs_to_the_oldest_queued_job() {
        let (mut supervisor, _worker) = supervisor();
        // A background identify, followed by the job that it yields to.
        supervisor.start_background(job(Task::Identify));
        supervisor.start(job(Task::Find));
        assert_eq!([(); 2].map(|()| ends_background(&mut supervisor)), [true, false]);
        // The first job is withdrawn, for example because its file has changed, and is never sent to the worker.
        supervisor.watch(&job(Task::Find));
        supervisor.withdraw();
        supervisor.start(job(Task::Find));
        assert!(!ends_background(&mut supervisor));
        // A job is stopped before it reaches the worker while an identify is running; another identify follows.
        supervisor.start_background(job(Task::Identify));
        supervisor.watch(&job(Task::Find));
        assert!(!supervisor.abandon().background);
        supervisor.start_background(job(Task::Identify));
        supervisor.start(job(Task::Find));
        assert_eq!([(); 3].map(|()| ends_background(&mut supervisor)), [true, true, false]);
    }

    /// If only one drone is running, no other job of the interface asks the drone for its address.
    #[test]
    fn a_background_identify_remembers_the_radio_address_of_its_drone() {
        let dir = tempfile::tempdir().unwrap();
        let (mut supervisor, _worker) = supervisor();
        supervisor.record = Some(StateDir::at(dir.path()));
        let strings = Strings { serial: "51004F000551343036333233".to_owned(), ..Strings::default() };
        let device = Device {
            mode: Mode::Firmware,
            id: CRAZYFLIE,
            location: "1-1".parse().unwrap(),
            address: 1,
            strings,
            simulated: true,
            open_error: None,
        };
        let radio = "radio://0/80/2M/E7E7E7E705".parse().ok();
        let known = DeviceInfo::Running(Running { radio, ..Running::default() });
        supervisor.start_background(job(Task::Identify));
        for event in [Event::Device(device), Event::Known(Box::new(known))] {
            let _ = supervisor.observe(Duration::ZERO, event);
        }
        assert_eq!(StateDir::at(dir.path()).names().of("338133873034", []), radio);
    }

    #[test]
    fn a_job_keeps_the_most_complete_serial_number_of_its_drone() {
        let device = |serial: &str, mode: Mode| Device {
            mode,
            id: ROM_DFU,
            location: "1-1".parse().unwrap(),
            address: 1,
            strings: Strings { serial: serial.to_owned(), ..Strings::default() },
            simulated: true,
            open_error: None,
        };
        let (whole, dfu) = ("51004F000551343036333233", "338133873034");
        let (mut supervisor, _worker) = supervisor();
        supervisor.start(job(Task::Find));
        for (serial, mode) in [(dfu, Mode::Dfu), (whole, Mode::Firmware), (dfu, Mode::Dfu), ("", Mode::Dfu)] {
            let _ = supervisor.observe(Duration::ZERO, Event::Device(device(serial, mode)));
        }
        let ended = supervisor.end(Report::nothing_done(Outcome::Unchanged));
        assert_eq!(ended.drone.map(|drone| drone.serial).as_deref(), Some(whole));
    }
}
