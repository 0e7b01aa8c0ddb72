//! The worker thread: receives commands, drives devices and posts events. The worker never waits for a front end,
//! except for the confirmation of a plan.
//!
//! [`find`] selects a device and puts it into DFU mode, [`session`] runs DFU operations on it, and [`query_firmware`]
//! queries a running drone over its [`firmware_link`]. [`flash`], [`read`], [`identify`], [`blink`], [`console`] and
//! [`trial`] are the jobs, [`reboot`] restarts a drone, [`watch`] checks a drone that has started, [`port`] opens the
//! device on a port, [`retry`] is the retry policy, and [`timeline`] records how the time was spent. All pauses use the
//! clock passed to [`Worker::spawn`]; only [`Bus::wait`] may use its own.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::clock::{Clock, Member};
use crate::flash::Address;
use crate::job::trial::Measurement;
use crate::job::{
    Command, Device, DroneState, Event, Failure, FailureKind, Job, Level, LogEntry, Outcome, Phase, Place,
    Report, SectorState, Task, WaitFor,
};
use crate::usb::{Bus, Location, TransferError};

mod blink;
mod console;
mod find;
mod firmware_link;
mod flash;
mod identify;
mod port;
mod query_firmware;
mod read;
mod reboot;
pub(crate) mod retry;
mod session;
mod timeline;
mod trial;
mod watch;

use reboot::Restarted;
use retry::RetryingBus;
use timeline::{Part, Share, Timeline};

/// How long an unplugged device may remain in the device list: see [`Ctx::is_gone`].
const DISCONNECT_DELAY: Duration = Duration::from_secs(1);
/// The pause between two reads of the device list.
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// A handle to the worker thread.
///
/// A transfer blocks until the device answers or the time limit passes, and libusb's synchronous transfers cannot be
/// cancelled. The worker therefore runs on its own thread and exchanges only messages with the front end, so a slow or
/// closed terminal never delays a transfer.
///
/// A [`Command::Cancel`] takes effect only at safe points (`Ctx::check_cancelled`), such as before a block is read or
/// written, before a sector is erased, and while waiting for a device or for the user. Stopping in the middle of an
/// operation would put the device into an unknown state, and the worker would have no record of what has changed.
pub struct Worker {
    /// Once this sender and all its clones are dropped, the worker ends after its last job.
    pub commands: Sender<Command>,
    pub events: Receiver<Event>,
    pub thread: JoinHandle<()>,
}

impl Worker {
    /// Starts a worker for the devices on `bus`.
    pub fn spawn(bus: Arc<dyn Bus>, clock: Arc<dyn Clock>) -> Worker {
        let (commands, inbox) = channel();
        let (outbox, events) = channel();
        let bus: Arc<dyn Bus> = Arc::new(RetryingBus::new(bus, Arc::clone(&clock)));
        let thread = thread::spawn(move || {
            // Ignore a `Cancel` or `Proceed` that arrives after its job has ended.
            while let Ok(command) = inbox.recv() {
                let mut next = if let Command::Run(job) = command { Some(job) } else { None };
                while let Some(job) = next {
                    let _member = Member::of(&*clock);
                    let mut ctx = Ctx::new(&*bus, &*clock, &inbox, &outbox);
                    let report = perform(&mut ctx, &job);
                    next = ctx.next.take();
                    ctx.post(Event::Finished(report));
                }
            }
        });
        Worker { commands, events, thread }
    }

    /// Drops [`Worker::commands`] and waits for the thread to end. The caller must have dropped all clones of the
    /// sender.
    pub(crate) fn join(self) {
        drop(self.commands);
        // `perform` has caught and reported any panic.
        let _ = self.thread.join();
    }
}

/// Runs one job and returns its report. A panic becomes a failed job, and the thread survives.
fn perform(ctx: &mut Ctx<'_>, job: &Job) -> Report {
    let result = catch_unwind(AssertUnwindSafe(|| match &job.task {
        Task::Flash(task) => flash::flash(ctx, job, task),
        Task::Verify(segments) => read::verify(ctx, job, segments),
        Task::Backup(span) => read::backup(ctx, job, *span),
        Task::Find => find::find_device(ctx, job).map(|_| Outcome::Identified),
        Task::Identify => identify::identify(ctx, job),
        Task::Blink(length) => blink::blink(ctx, job, *length),
        Task::Console(limit) => console::console(ctx, job, *limit),
        Task::Try(trial) => trial::trial(ctx, job, *trial),
    }));
    let drone = match (&job.task, ctx.drone) {
        (Task::Flash(task), DroneState::Untouched) if task.left != DroneState::Untouched => task.left,
        (_, DroneState::Untouched) if ctx.run_state == RunState::Stopped => DroneState::Stopped,
        (_, drone) => drone,
    };
    let result = result.map(|result| result.map_err(|stop| ctx.reclassify(stop)));
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
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("unknown panic").to_owned()
}

/// Why a job ends early.
#[derive(Debug)]
enum Stop {
    Cancelled,
    /// The cause, and the step that failed, if known.
    Failed(FailureKind, Option<Place>),
}

impl<E: Into<FailureKind>> From<E> for Stop {
    fn from(error: E) -> Stop {
        Stop::Failed(error.into(), None)
    }
}

impl Stop {
    /// Returns whether the device may still answer, so that it is worth trying to restart it.
    fn still_answers(&self) -> bool {
        match self {
            Stop::Failed(FailureKind::Dfu(error), _) => !error.ends_session(),
            Stop::Failed(kind, _) => kind.transfer() != Some(TransferError::Disconnected),
            Stop::Cancelled => true,
        }
    }

    /// Adds the step that failed, unless a step is already set.
    fn at(self, place: Place) -> Stop {
        match self {
            Stop::Failed(kind, None) => Stop::Failed(kind, Some(place)),
            other => other,
        }
    }
}

/// The context of a job: the bus, the clock and the channels to the front end.
///
/// The context also records the work done so far and the state of the drone. Both are kept here instead of being
/// returned, because they must survive an early return or a panic anywhere in the job.
struct Ctx<'a> {
    bus: &'a dyn Bus,
    clock: &'a dyn Clock,
    inbox: &'a Receiver<Command>,
    outbox: &'a Sender<Event>,
    cancelled: bool,
    /// Set for an identify job, in the background or not: it logs `Info` entries at detail level and yields to any
    /// other job.
    ///
    /// The interface identifies a drone as soon as it appears, without a request from the user. Reading up to 1 MiB
    /// from a drone in DFU mode takes up to about two seconds. If a job that the user starts in the meantime had to
    /// wait or were refused, the interface would seem slow for no visible reason. Yielding is safe because reading
    /// changes nothing and can stop between any two blocks.
    quiet: bool,
    /// The job to which an identify job has yielded.
    next: Option<Box<Job>>,
    started: Duration,
    /// Time that does not count toward the job: waiting for confirmation, watching a restarted drone, and waiting for
    /// a drone that does not start.
    idle: Duration,
    timeline: Timeline,
    run_state: RunState,
    /// The port and the address of the device in use; `None` before the job uses a device, and after the leave request,
    /// when the device is expected to disconnect.
    at: Option<(Location, u8)>,
    /// The state of the drone after an earlier attempt, once the drone has been found.
    left: DroneState,
    /// The state in which this job would leave the drone if it ended now; `Untouched` until it changes the flash.
    drone: DroneState,
    report: Report,
}

/// How the drone was found, and whether its firmware is known to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum RunState {
    /// Found in DFU mode.
    InDfu,
    /// Found in DFU mode, but an earlier job or scan saw the drone running.
    Seen,
    Running,
    /// Found running, then asked to enter DFU mode, and not seen running since.
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
            run_state: RunState::InDfu,
            at: None,
            left: DroneState::Untouched,
            drone: DroneState::Untouched,
            report,
        }
    }

    /// Adds the result of a restart to the report.
    fn report_restart(&mut self, Restarted { rom, boot, runs, health }: Restarted) {
        self.report.rom = rom;
        self.report.boot = boot;
        self.report.runs = runs;
        *self.report.health = health;
    }

    /// Records and reports that the job uses this device from now on.
    fn use_device(&mut self, device: Device) {
        self.at = Some((device.location.clone(), device.address));
        self.post(Event::Device(device));
    }

    fn post(&self, event: Event) {
        // If the receiver is gone, finish the job anyway.
        let _ = self.outbox.send(event);
    }

    /// Returns whether the device in use has disconnected, or disconnects within [`DISCONNECT_DELAY`]. Use this method
    /// after any transfer error except [`TransferError::Disconnected`].
    ///
    /// Such an error alone does not prove a disconnect. The transfers of an unplugged drone may fail in any way until
    /// the hub reports the disconnect, and a drone that is still plugged in may fail in exactly the same ways. A wrong
    /// answer is costly either way: after a disconnect, the job resumes when the drone is plugged in again, while a
    /// device error ends the job. Only the device list distinguishes the two cases, so this method reads the list until
    /// the device disappears or the time is up.
    fn is_gone(&self) -> bool {
        let Some((location, address)) = self.at.clone() else { return false };
        let asked = self.clock.now();
        loop {
            // Without a list, there is no evidence of a disconnect.
            let Ok(list) = self.bus.list() else { return false };
            if !list.iter().any(|found| (&found.location, found.address) == (&location, address)) {
                return true;
            }
            if self.clock.now().saturating_sub(asked) >= DISCONNECT_DELAY {
                return false;
            }
            self.clock.sleep(POLL_INTERVAL);
        }
    }

    /// Turns a transient transfer error into a disconnect if the drone is lost: see [`Ctx::is_gone`].
    fn reclassify(&self, stop: Stop) -> Stop {
        match stop {
            Stop::Failed(kind, place)
                if kind.transfer().is_some_and(TransferError::is_transient) && self.is_gone() =>
            {
                Stop::Failed(kind.into_disconnect(), place)
            }
            other => other,
        }
    }

    /// Starts the next part of the job, for the timeline.
    fn enter_part(&mut self, part: Part) {
        self.timeline.enter(part, self.clock.now());
    }

    /// Calls `act` and records in the timeline how long it takes.
    fn spend<T>(&mut self, share: Share, act: impl FnOnce() -> T) -> T {
        let before = self.clock.now();
        let result = act();
        self.timeline.spend(share, self.clock.now().saturating_sub(before));
        result
    }

    fn post_measurement(&self, measurement: Measurement) {
        self.post(Event::Measured(Box::new(measurement)));
    }

    fn log(&self, entry: LogEntry) {
        let level = match entry.level() {
            Level::Info if self.quiet => Level::Detail,
            level => level,
        };
        self.post(Event::Log(level, entry));
    }

    fn post_sector(&self, index: usize, state: SectorState) {
        self.post(Event::Sector { index, state });
    }

    /// Waits until the user confirms the plan. Returns [`Stop::Cancelled`] if the user cancels or the sender is gone.
    fn wait_for_confirmation(&mut self) -> Result<(), Stop> {
        let asked = self.clock.now();
        let answer = loop {
            match self.inbox.recv() {
                Ok(Command::Proceed) => break Ok(()),
                Ok(Command::Run(_)) => self.log(LogEntry::JobRefused),
                Ok(Command::Cancel | Command::CancelIfUntouched) | Err(_) => break Err(Stop::Cancelled),
            }
        };
        // The time the user takes to decide does not count toward the job.
        self.idle += self.clock.now().saturating_sub(asked);
        answer
    }

    /// Marks a safe point, where a running job can be cancelled. Also processes the other pending commands, up to the
    /// command to which an identify job yields.
    fn check_cancelled(&mut self) -> Result<(), Stop> {
        while self.next.is_none() {
            match self.inbox.try_recv() {
                Ok(Command::Cancel) => self.cancelled = true,
                Ok(Command::CancelIfUntouched) => {
                    let untouched = (self.drone, self.left) == (DroneState::Untouched, DroneState::Untouched);
                    self.cancelled |= untouched;
                }
                // Ignore a stray `Proceed`.
                Ok(Command::Proceed) => {}
                // Keep later commands in the queue: they are for the new job.
                Ok(Command::Run(job)) if self.quiet => {
                    self.next = Some(job);
                    self.cancelled = true;
                    break;
                }
                // Report the refusal; only one job can run at a time.
                Ok(Command::Run(_)) => self.log(LogEntry::JobRefused),
                // A sender that is gone, for example because the terminal was closed, does not stop the job.
                Err(TryRecvError::Empty | TryRecvError::Disconnected) => break,
            }
        }
        if self.cancelled { Err(Stop::Cancelled) } else { Ok(()) }
    }

    /// Calls `found` whenever the bus may have changed, until `found` returns a value. Returns `None` after `limit`.
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
            if let Some(value) = found(self)? {
                return Ok(Some(value));
            }
            let waited = self.clock.now().saturating_sub(start);
            if waited >= limit {
                return Ok(None);
            }
            self.bus.wait(limit.saturating_sub(waited));
        }
    }
}

/// Compares the bytes read at `start` with `expected` and fails at the first difference. Ignores any bytes beyond the
/// end of `expected`.
fn require_same(start: Address, actual: &[u8], expected: &[u8]) -> Result<(), FailureKind> {
    let pairs = actual.iter().zip(expected).zip(start.0..);
    match pairs.into_iter().find(|((found, expected), _)| found != expected) {
        Some(((&found, &expected), address)) => {
            Err(FailureKind::Mismatch { address: Address(address), expected, found })
        }
        None => Ok(()),
    }
}

/// Counts the bytes processed in a phase and posts them as progress.
struct Meter {
    phase: Phase,
    done: u64,
    total: u64,
}

impl Meter {
    fn start(ctx: &Ctx<'_>, phase: Phase, total: u64) -> Meter {
        let meter = Meter { phase, done: 0, total };
        meter.report(ctx);
        meter
    }

    fn add(&mut self, ctx: &Ctx<'_>, bytes: u64) {
        self.done = (self.done + bytes).min(self.total);
        self.report(ctx);
    }

    fn report(&self, ctx: &Ctx<'_>) {
        ctx.post(Event::Progress { phase: self.phase, done: self.done, total: self.total });
    }
}
