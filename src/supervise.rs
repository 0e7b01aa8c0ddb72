//! What goes on beside a job, whoever shows it: the copy for an undo is kept before the worker may write, other runs of cfdfu
//! learn what this one does, the result of a job that ended unseen is recorded, and a lost drone is waited for or given up.
//!
//! A front end gives its jobs to a [`Supervisor`], passes each event of the worker through it, and shows what comes out:
//! the screen, the lines of `--plain`, the console and `--json` are reporters of the same events.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::Duration;

use crate::clock::Clock;
use crate::crazyflie::Mode;
use crate::job::{
    BoardCheck, Command, DroneAt, DroneState, Event, Failure, FailureKind, FlashTask, Job, LogEntry, Outcome,
    Preview, Report, Selector, Task,
};
use crate::plan::undo::Change;
pub use crate::record::RunningInstance;
use crate::record::{Presence, StateDir};
use crate::report;
use crate::scan;
use crate::usb::Bus;
use crate::worker::patient::Patient;

mod copies;
mod resume;

use copies::{BegunCopy, Copies};
pub(crate) use copies::{NoUndo, UndoTarget};
pub use resume::{Headway, Next, Waits};

pub struct Supervisor {
    commands: Sender<Command>,
    record: Option<StateDir>,
    copies: Copies,
    presence: Presence,
    waits: Waits,
    headway: Headway,
    /// The terminal is gone: what happens now is seen by nobody.
    hung_up: bool,
    /// Run logs that are kept; none for 0.
    logs: usize,
    watched: Option<Watched>,
    /// What the worker has been given, oldest first: until the end of the first all events are about that. A background
    /// identify may be followed by the job that it yields to, or by another identify.
    given: VecDeque<Given>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Given {
    Job,
    Background,
}

/// The job under way.
struct Watched {
    job: Box<Job>,
    /// Its drone, with the best serial number that it has shown.
    drone: Option<DroneAt>,
    /// The worker has reported a device for this job.
    seen: bool,
    planned: Option<Planned>,
    begun: Option<BegunCopy>,
    /// The other run that has this drone.
    holder: Option<RunningInstance>,
    log: String,
}

/// What the plan of the job under way has come to.
#[derive(Clone, Copy)]
struct Planned {
    /// Bytes to write.
    left: u64,
    board: BoardCheck,
}

/// What an event means once it went through here.
pub enum Observed {
    Event(Event),
    Ended(Box<Ended>),
}

/// How a job ended, and what follows.
#[derive(Clone, Debug)]
pub struct Ended {
    pub report: Report,
    /// It was a background identify.
    pub background: bool,
    /// The drone that it used, if it came to that and its serial number is known.
    pub drone: Option<DroneAt>,
    /// The other runs of cfdfu, where the device was held by another program.
    pub others: Vec<RunningInstance>,
    pub next: Next,
    /// What an undo of this drone's last change would put back.
    pub undo: Result<Box<UndoTarget>, NoUndo>,
}

impl Ended {
    /// A job that came to nothing, with nothing to follow.
    pub fn of(report: Report, background: bool) -> Ended {
        let undo = Err(NoUndo::default());
        Ended { report, background, drone: None, others: Vec::new(), next: Next::Done, undo }
    }
}

impl Supervisor {
    /// For the worker that takes these commands. The demo, which has no record, leaves no trace.
    pub fn new(commands: Sender<Command>, demo: bool, waits: Waits, logs: usize) -> Supervisor {
        let record = if demo { None } else { StateDir::of_user() };
        Supervisor {
            commands,
            copies: Copies::new(record.clone(), demo),
            presence: Presence::new(record.clone()),
            record,
            waits,
            headway: Headway::default(),
            hung_up: false,
            logs,
            watched: None,
            given: VecDeque::new(),
        }
    }

    /// The other run that is at work on the drone of this job: that must not even be asked into DFU mode. Without another
    /// run the bus is left alone.
    pub(crate) fn held_by(
        &self,
        bus: &Arc<dyn Bus>,
        clock: &Arc<dyn Clock>,
        job: &Job,
    ) -> Option<RunningInstance> {
        let record = self.record.as_ref().filter(|record| !record.others_at_work().is_empty())?;
        let bus = Patient::new(Arc::clone(bus), Arc::clone(clock));
        record.at_work_on(&scan::choose(&bus, &job.device).ok()?.location)
    }

    /// Gives the worker this job.
    pub fn start(&mut self, job: Box<Job>) {
        self.watch(&job);
        self.send(Command::Run(job));
    }

    /// Gives the worker the job of [`Next::Resume`].
    pub fn resume(&mut self, job: Box<Job>) {
        let headway = self.headway;
        self.start(job);
        self.headway = headway;
    }

    /// Watches a job that the caller gives to the worker.
    pub(crate) fn watch(&mut self, job: &Job) {
        self.headway = Headway::default();
        self.given.push_back(Given::Job);
        let drone = match (&job.device, &job.serial) {
            (Selector::At(port), Some(serial)) => {
                Some(DroneAt { port: port.clone(), serial: serial.clone() })
            }
            _ => None,
        };
        self.watched = Some(Watched {
            job: Box::new(job.clone()),
            drone,
            seen: false,
            planned: None,
            begun: None,
            holder: None,
            log: String::new(),
        });
    }

    /// Gives the worker a look at a drone that yields to any job, and of which nothing is recorded.
    pub fn start_background(&mut self, job: Box<Job>) {
        self.given.push_back(Given::Background);
        self.send(Command::Run(job));
    }

    /// This plan is confirmed: what it overwrites is kept, then the worker writes. Gives what the log should say of that.
    pub fn proceed(&mut self, preview: &Preview) -> Option<LogEntry> {
        let entry = self.keep_copy(preview);
        self.send(Command::Proceed);
        entry
    }

    pub fn cancel(&self) {
        self.send(Command::Cancel);
    }

    /// The terminal is gone, or this program is to end. Nobody waits for a lost drone any more, and how the job ends goes on
    /// record.
    pub fn hang_up(&mut self) {
        self.hung_up = true;
    }

    /// The job under way was stopped before the worker had it.
    pub(crate) fn abandon(&mut self) -> Box<Ended> {
        self.given.pop_back();
        self.end(Report::nothing_done(Outcome::Cancelled(DroneState::Untouched)))
    }

    /// The job that was watched last is not given to the worker after all.
    pub(crate) fn withdraw(&mut self) {
        self.given.pop_back();
        self.watched = None;
    }

    pub fn observe(&mut self, now: Duration, event: Event) -> Observed {
        let given = match event {
            Event::Finished(_) => self.given.pop_front(),
            _ => self.given.front().copied(),
        };
        if given == Some(Given::Background) {
            return match event {
                Event::Finished(report) => Observed::Ended(Box::new(Ended::of(report, true))),
                event => Observed::Event(event),
            };
        }
        if let Event::Device(device) = &event {
            // Before this run announces itself there: of two that come at once, the first goes on.
            self.note_device(device);
        }
        self.presence.follow(now, &event);
        if let Some(watched) = &mut self.watched {
            watched.note(now, &event);
        }
        match event {
            Event::Ready(preview) => {
                self.note_preview(&preview);
                Observed::Event(Event::Ready(preview))
            }
            Event::Finished(report) => Observed::Ended(self.end(report)),
            event => Observed::Event(event),
        }
    }

    /// The whole serial number, which a drone shows while it runs, says more than the one of DFU mode.
    fn note_device(&mut self, device: &crate::job::Device) {
        let Some(watched) = &mut self.watched else { return };
        watched.seen = true;
        let is_it = watched.drone.as_ref().is_some_and(|drone| drone.is(device));
        // Once there is a plan it is for that drone, whatever is plugged in there afterwards.
        let is_settled = watched.planned.is_some() || device.strings.serial.is_empty();
        if watched.drone.is_none() || is_it && device.mode == Mode::Firmware || !is_it && !is_settled {
            watched.drone = Some(device.drone());
        }
        // Another run may have come first. A background identify, which announces nothing, is waited for.
        if watched.holder.is_none()
            && let Some(record) = &self.record
        {
            watched.holder = record.at_work_on(&device.location);
            if watched.holder.is_some() {
                self.cancel();
            }
        }
    }

    fn note_preview(&mut self, preview: &Preview) {
        let Some(watched) = &mut self.watched else { return };
        watched.planned = Some(Planned { left: preview.work.bytes(), board: preview.board });
        let (Some(drone), Some(task)) = (&watched.drone, watched.job.flash()) else { return };
        if task.carries_on() {
            watched.begun = Some(self.copies.carry_on(drone));
        } else if preview.work.is_nothing() && task.change == Change::Undo {
            self.copies.undone(drone);
        }
    }

    fn keep_copy(&mut self, preview: &Preview) -> Option<LogEntry> {
        let watched = self.watched.as_mut().filter(|_| !preview.work.is_nothing())?;
        let task = watched.job.flash().filter(|task| !task.carries_on())?;
        let (begun, entry) = self.copies.begin(watched.drone.as_ref()?, preview, task.change);
        watched.begun = begun;
        entry
    }

    /// The last word of the job.
    fn end(&mut self, mut report: Report) -> Box<Ended> {
        let Some(watched) = self.watched.take() else { return Box::new(Ended::of(report, false)) };
        let Watched { job, drone, seen, planned, begun, holder, log } = watched;
        if let (Some(_), Outcome::Cancelled(drone)) = (&holder, &report.outcome) {
            report.outcome = Outcome::held(*drone);
        }
        if let Some(begun) = begun {
            self.copies.end(begun, &report.outcome);
        }
        let is_held = matches!(&report.outcome, Outcome::Failed(Failure { kind: FailureKind::Held, .. }));
        let others = match (holder, &self.record) {
            (Some(holder), _) if is_held => vec![holder],
            (None, Some(record)) if is_held => record.others_at_work(),
            _ => Vec::new(),
        };
        let carries_on = job.flash().is_some_and(FlashTask::carries_on);
        if seen && !is_held || carries_on {
            self.record_end(&job, &report, &log);
        }
        // Of a job that only reads nobody asks for it, and the copies are files.
        let undoable = drone.as_ref().filter(|_| matches!(job.task, Task::Flash(_) | Task::Find));
        let undo = undoable.map_or(Err(NoUndo::default()), |drone| self.copies.target(drone));
        let drone = drone.filter(|drone| seen && !drone.serial.is_empty());
        let waits = if self.hung_up { Waits::No } else { self.waits };
        let next = resume::next(waits, &mut self.headway, &job, &report, drone.as_ref(), planned);
        Box::new(Ended { report, background: false, drone, others, next, undo: undo.map(Box::new) })
    }

    /// How a job ended that was to change or read the flash: its log, and for the next start its end if nobody saw it. No
    /// failure here matters.
    fn record_end(&self, job: &Job, report: &Report, log: &str) {
        let Some(record) = self.record.as_ref().filter(|_| !matches!(job.task, Task::Find | Task::Identify))
        else {
            return;
        };
        let words = report::headline(report);
        if self.hung_up {
            let _ = record.ended(&words, false);
        }
        if self.logs > 0 {
            let _ = record.save_log(&format!("{log}{words}\n"), self.logs);
        }
    }

    fn send(&self, command: Command) {
        // A worker that is gone has said so in its last event.
        let _ = self.commands.send(command);
    }
}

impl Watched {
    /// A line of the run's log.
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
    use crate::job::{Device, Enter};
    use crate::usb::ROM_DFU;
    use crate::usb::descriptor::Strings;

    fn job(task: Task) -> Box<Job> {
        Box::new(Job { enter: Enter::Never, ..Job::new(task) })
    }

    fn supervisor() -> (Supervisor, Receiver<Command>) {
        let (commands, worker) = channel();
        (Supervisor::new(commands, true, Waits::Interrupted, 0), worker)
    }

    /// The end of what the worker was at: whether it is taken for a background identify.
    fn ends_background(supervisor: &mut Supervisor) -> bool {
        let finished = Event::Finished(Report::nothing_done(Outcome::Identified));
        match supervisor.observe(Duration::ZERO, finished) {
            Observed::Ended(ended) => ended.background,
            Observed::Event(event) => panic!("{event:?} is no end"),
        }
    }

    #[test]
    fn each_end_is_that_of_what_the_worker_was_given() {
        let (mut supervisor, _worker) = supervisor();
        // A job, to which the identify before it yields.
        supervisor.start_background(job(Task::Identify));
        supervisor.start(job(Task::Find));
        assert_eq!([(); 2].map(|()| ends_background(&mut supervisor)), [true, false]);
        // Its file had changed, so that the worker never had the first.
        supervisor.watch(&job(Task::Find));
        supervisor.withdraw();
        supervisor.start(job(Task::Find));
        assert!(!ends_background(&mut supervisor));
        // Stopped before the worker had it, while an identify was under way, which another one follows.
        supervisor.start_background(job(Task::Identify));
        supervisor.watch(&job(Task::Find));
        assert!(!supervisor.abandon().background);
        supervisor.start_background(job(Task::Identify));
        supervisor.start(job(Task::Find));
        assert_eq!([(); 3].map(|()| ends_background(&mut supervisor)), [true, true, false]);
    }

    #[test]
    fn the_drone_of_a_job_keeps_its_best_serial_number() {
        let device = |serial: &str, mode: Mode| Device {
            mode,
            id: ROM_DFU,
            location: "1-1".parse().unwrap(),
            address: 1,
            strings: Strings { serial: serial.to_owned(), ..Strings::default() },
            simulated: true,
            closed: None,
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
