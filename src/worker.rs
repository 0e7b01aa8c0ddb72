//! The thread that does the work: takes commands, drives devices, posts events, and never waits for
//! whoever shows them.
//!
//! [`find`] chooses a device and brings it into DFU mode, [`session`] talks to it there and [`running`]
//! where it runs; [`flash`], [`read`] and [`identify`] are the jobs, [`patient`] is the retry policy, and [`timeline`]
//! tells where their time went. Whatever it waits for, it waits by the clock that it is given.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::clock::Clock;
use crate::flash::Address;
use crate::job::{
    Command, Device, DroneState, Event, Failure, FailureKind, Job, Level, LogEntry, Outcome, Phase, Place,
    Report, SectorState, Task, WaitFor,
};
use crate::usb::{Bus, Location, TransferError};

mod find;
mod flash;
mod identify;
pub(crate) mod patient;
mod port;
mod read;
mod reboot;
mod running;
mod session;
mod timeline;

use patient::Patient;
use reboot::Restarted;
use timeline::{Part, Share, Timeline};

/// A pulled device may fail in any way before the hub notices that it is gone.
const GOING: Duration = Duration::from_secs(1);
/// Between two looks at the list of devices.
const GLANCE: Duration = Duration::from_millis(50);

pub struct Worker {
    /// Where commands go. When it is dropped, the worker ends after the job under way.
    pub commands: Sender<Command>,
    pub events: Receiver<Event>,
    pub thread: JoinHandle<()>,
}

impl Worker {
    /// Starts a worker for the devices of `bus`.
    pub fn spawn(bus: Arc<dyn Bus>, clock: Arc<dyn Clock>) -> Worker {
        let (commands, inbox) = channel();
        let (outbox, events) = channel();
        let bus: Arc<dyn Bus> = Arc::new(Patient::new(bus, Arc::clone(&clock)));
        let thread = thread::spawn(move || {
            // A cancel that comes when its job is already over means nothing.
            while let Ok(command) = inbox.recv() {
                let mut next = if let Command::Run(job) = command { Some(job) } else { None };
                while let Some(job) = next {
                    let mut ctx = Ctx::new(&*bus, &*clock, &inbox, &outbox);
                    let report = perform(&mut ctx, &job);
                    next = ctx.next.take();
                    ctx.post(Event::Finished(report));
                }
            }
        });
        Worker { commands, events, thread }
    }

    /// Lets the worker end after the job under way, and waits for that.
    pub(crate) fn join(self) {
        drop(self.commands);
        // A panic was caught and reported already.
        let _ = self.thread.join();
    }
}

/// One job, with whatever happens turned into its report: a panic is a failed job, not a dead thread.
fn perform(ctx: &mut Ctx<'_>, job: &Job) -> Report {
    let result = catch_unwind(AssertUnwindSafe(|| match &job.task {
        Task::Flash(task) => flash::flash(ctx, job, task),
        Task::Verify(segments) => read::verify(ctx, job, segments),
        Task::Backup(span) => read::backup(ctx, job, *span),
        Task::Find => find::device(ctx, job).map(|_| Outcome::Identified),
        Task::Identify => identify::identify(ctx, job),
    }));
    let drone = match (&job.task, ctx.drone) {
        (Task::Flash(task), DroneState::Untouched) if task.left != DroneState::Untouched => task.left,
        (_, DroneState::Untouched) if ctx.was == Was::Stopped => DroneState::Stopped,
        (_, drone) => drone,
    };
    let result = result.map(|result| result.map_err(|stop| ctx.verdict(stop)));
    let outcome = match result {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(Stop::Cancelled)) => Outcome::Cancelled(drone),
        Ok(Err(Stop::Failed(kind, place))) => Outcome::Failed(Failure { kind, place, drone }),
        Err(panic) => {
            let kind = FailureKind::WorkerDied(panic_text(&*panic));
            Outcome::Failed(Failure { kind, place: None, drone })
        }
    };
    let now = ctx.clock.now();
    let timeline = std::mem::replace(&mut ctx.timeline, Timeline::new(now));
    timeline.rows(now).into_iter().for_each(|row| ctx.log(row));
    Report { outcome, took: now.saturating_sub(ctx.started + ctx.idle), ..ctx.report.clone() }
}

fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("a panic").to_owned()
}

/// Why a job ends early.
#[derive(Debug)]
enum Stop {
    Cancelled,
    /// It does not work; with what was being done.
    Failed(FailureKind, Option<Place>),
}

impl<E: Into<FailureKind>> From<E> for Stop {
    fn from(error: E) -> Stop {
        Stop::Failed(error.into(), None)
    }
}

impl Stop {
    /// Whether the device is there and talks after this, so that it can be asked to restart.
    fn still_answers(&self) -> bool {
        match self {
            Stop::Failed(FailureKind::Dfu(error), _) => !error.ends_session(),
            Stop::Failed(..) | Stop::Cancelled => true,
        }
    }

    /// Says what was being done, unless somebody closer to it did.
    fn at(self, place: Place) -> Stop {
        match self {
            Stop::Failed(kind, None) => Stop::Failed(kind, Some(place)),
            other => other,
        }
    }
}

/// What every part of a job needs: the bus, the clock, and the way to the front end. And what has to be known however the
/// job ends, by an error from anywhere or a panic: what was done so far and what the drone is left as. That is kept here,
/// not returned.
struct Ctx<'a> {
    bus: &'a dyn Bus,
    clock: &'a dyn Clock,
    inbox: &'a Receiver<Command>,
    outbox: &'a Sender<Event>,
    cancelled: bool,
    /// Background identify: logs at detail level only and yields to any other job. It reads up to 1 MiB, which takes two
    /// seconds, and the user who presses a key meanwhile did not ask for it. A read can be cut anywhere without harm.
    quiet: bool,
    /// The job that it made way for.
    next: Option<Box<Job>>,
    started: Duration,
    /// Time spent waiting for the confirmation.
    idle: Duration,
    timeline: Timeline,
    /// Whether the device that is used runs, or ran.
    was: Was,
    /// Where it is plugged in, and its number there.
    at: Option<(Location, u8)>,
    /// What an earlier try has left the drone as, once it is there again.
    left: DroneState,
    /// What this job leaves the drone as if it ends now.
    drone: DroneState,
    report: Report,
}

/// What is known of a drone's running.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Was {
    /// It was in DFU mode when it was found.
    InDfu,
    /// The same, and an earlier job saw it running.
    Seen,
    Running,
    /// It ran, was brought into DFU mode, and was not seen running again.
    Stopped,
}

impl<'a> Ctx<'a> {
    fn new(
        bus: &'a dyn Bus,
        clock: &'a dyn Clock,
        inbox: &'a Receiver<Command>,
        outbox: &'a Sender<Event>,
    ) -> Ctx<'a> {
        let report = Report::nothing_done(Outcome::Unchanged);
        Ctx {
            bus,
            clock,
            inbox,
            outbox,
            cancelled: false,
            quiet: false,
            next: None,
            started: clock.now(),
            idle: Duration::ZERO,
            timeline: Timeline::new(clock.now()),
            was: Was::InDfu,
            at: None,
            left: DroneState::Untouched,
            drone: DroneState::Untouched,
            report,
        }
    }

    /// What came of asking the drone to start.
    fn report_restart(&mut self, Restarted { rom, boot, runs }: Restarted) {
        self.report.rom = rom;
        self.report.boot = boot;
        self.report.runs = runs;
    }

    /// From now on the job uses this device.
    fn use_device(&mut self, device: Device) {
        self.at = Some((device.location.clone(), device.address));
        self.post(Event::Device(device));
    }

    fn post(&self, event: Event) {
        // Nobody listens any more: the job goes on all the same.
        let _ = self.outbox.send(event);
    }

    /// Whether the device that is used is not on the bus any more, or goes within [`GOING`]: what the wire showed before
    /// that means nothing. The one definition of a lost drone, by what the bus lists.
    fn is_gone(&self) -> bool {
        let Some((location, address)) = self.at.clone() else { return false };
        let asked = self.clock.now();
        loop {
            // A list that cannot be had says nothing.
            let Ok(list) = self.bus.list() else { return false };
            if !list.iter().any(|found| (&found.location, found.address) == (&location, address)) {
                return true;
            }
            if self.clock.now().saturating_sub(asked) >= GOING {
                return false;
            }
            self.clock.sleep(GLANCE);
        }
    }

    /// What a failure means in the end: one of the wire is a lost drone, if that is gone.
    fn verdict(&self, stop: Stop) -> Stop {
        match stop {
            Stop::Failed(kind, place)
                if kind.transfer().is_some_and(TransferError::is_transient) && self.is_gone() =>
            {
                Stop::Failed(kind.of_a_gone_device(), place)
            }
            other => other,
        }
    }

    /// The job enters another part.
    fn enters(&mut self, part: Part) {
        self.timeline.enter(part, self.clock.now());
    }

    /// Does something and notes what its time was spent on.
    fn spend<T>(&mut self, share: Share, act: impl FnOnce() -> T) -> T {
        let before = self.clock.now();
        let result = act();
        self.timeline.spend(share, self.clock.now().saturating_sub(before));
        result
    }

    fn log(&self, entry: LogEntry) {
        let level = match entry.level() {
            Level::Info if self.quiet => Level::Detail,
            level => level,
        };
        self.post(Event::Log(level, entry));
    }

    fn sector(&self, index: usize, state: SectorState) {
        self.post(Event::Sector { index, state });
    }

    /// Waits for the confirmation of the plan; if its sender is gone, none comes. Reads the commands itself: the answer may
    /// be there before the wait begins.
    fn wait_for_confirmation(&mut self) -> Result<(), Stop> {
        let asked = self.clock.now();
        let answer = loop {
            match self.inbox.recv() {
                Ok(Command::Proceed) => break Ok(()),
                Ok(Command::Run(_)) => self.log(LogEntry::JobRefused),
                Ok(Command::Cancel | Command::CancelIfUntouched) | Err(_) => break Err(Stop::Cancelled),
            }
        };
        // Somebody's thinking is not the job's time.
        self.idle += self.clock.now().saturating_sub(asked);
        answer
    }

    /// A safe point: here, and only here, a job can be stopped.
    fn check_cancelled(&mut self) -> Result<(), Stop> {
        while self.next.is_none() {
            match self.inbox.try_recv() {
                Ok(Command::Cancel) => self.cancelled = true,
                Ok(Command::CancelIfUntouched) => {
                    let untouched = (self.drone, self.left) == (DroneState::Untouched, DroneState::Untouched);
                    self.cancelled |= untouched;
                }
                // Said once too often.
                Ok(Command::Proceed) => {}
                // What is said after that is said to the new job.
                Ok(Command::Run(job)) if self.quiet => {
                    self.next = Some(job);
                    self.cancelled = true;
                    break;
                }
                // One job at a time: another is not lost silently but told.
                Ok(Command::Run(_)) => self.log(LogEntry::JobRefused),
                // Whoever sent commands is gone: that is no reason to stop (a lost terminal).
                Err(TryRecvError::Empty | TryRecvError::Disconnected) => break,
            }
        }
        if self.cancelled { Err(Stop::Cancelled) } else { Ok(()) }
    }

    /// Waits until `found` gives something, looking whenever the bus changes; `None` after `limit`.
    fn wait_for<T>(
        &mut self,
        what: WaitFor,
        limit: Duration,
        mut found: impl FnMut(&mut Self) -> Result<Option<T>, Stop>,
    ) -> Result<Option<T>, Stop> {
        let start = self.clock.now();
        self.post(Event::Waiting { what, limit });
        loop {
            self.check_cancelled()?;
            if let Some(it) = found(self)? {
                return Ok(Some(it));
            }
            let waited = self.clock.now().saturating_sub(start);
            if waited >= limit {
                return Ok(None);
            }
            self.bus.wait(limit.saturating_sub(waited));
        }
    }
}

/// What was read at `start` against what should be there: the first byte that differs is the failure.
fn require_same(start: Address, there: &[u8], expected: &[u8]) -> Result<(), FailureKind> {
    let pairs = there.iter().zip(expected).zip(start.0..);
    match pairs.into_iter().find(|((found, expected), _)| found != expected) {
        Some(((&found, &expected), address)) => {
            Err(FailureKind::Mismatch { address: Address(address), expected, found })
        }
        None => Ok(()),
    }
}

/// Bytes done of a phase, told as they grow.
struct Meter {
    phase: Phase,
    done: u64,
    total: u64,
}

impl Meter {
    fn start(ctx: &Ctx<'_>, phase: Phase, total: u64) -> Meter {
        let meter = Meter { phase, done: 0, total };
        meter.tell(ctx);
        meter
    }

    fn add(&mut self, ctx: &Ctx<'_>, bytes: u64) {
        self.done = (self.done + bytes).min(self.total);
        self.tell(ctx);
    }

    fn tell(&self, ctx: &Ctx<'_>) {
        ctx.post(Event::Progress { phase: self.phase, done: self.done, total: self.total });
    }
}
