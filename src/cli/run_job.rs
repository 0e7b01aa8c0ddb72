//! One job from the command line: the worker started, its events shown, signals passed on.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::console::Console;
use crate::clock::Clock;
use crate::crazyflie::Mode;
use crate::flash::undo::Change;
use crate::job::{
    AtWork, Command, DroneAt, DroneState, Event, Failure, FailureKind, Job, Outcome, Preview, Report, Task,
};
use crate::record::{self, Begun, Presence, Record};
use crate::report::{self, Exit, Problem, ProblemKind};
use crate::run::signals::{Signal, Signals};
use crate::usb::Bus;
use crate::worker::patient::Patient;
use crate::worker::{Worker, find};

pub(super) struct Ended {
    pub(super) report: Report,
    /// The drone that it used, if it came to that.
    pub(super) drone: Option<DroneAt>,
    /// What was left to write at its start, in bytes.
    pub(super) left: Option<u64>,
    /// The terminal went, or the system asked to end.
    pub(super) hung_up: bool,
}

/// What is to go on record of a job that writes.
struct Begins {
    change: Change,
    /// An earlier session of it is on record.
    carries_on: bool,
}

/// Runs the job to its end.
pub(super) fn run(
    bus: Arc<dyn Bus>,
    clock: Arc<dyn Clock>,
    job: Job,
    console: &mut Console,
) -> Result<Ended, Problem> {
    let now = Arc::clone(&clock);
    let record = Record::of_user().filter(|_| !console.is_demo());
    // A running drone that another run is at work on must not even be asked into DFU mode.
    if let Some(work) = record.as_ref().and_then(|record| held_by(record, &bus, &clock, &job)) {
        console.line(&work.to_string());
        let report = Report::nothing_done(held(DroneState::Untouched));
        return Ok(Ended { report, drone: None, left: None, hung_up: false });
    }
    let worker = Worker::spawn(bus, clock);
    // SIGINT stops at the next safe point. SIGHUP and SIGTERM let a flash finish that has begun to write: half a
    // flash helps nobody, and it takes seconds. Before that, and a job that only reads, they stop, too.
    let hung_up = Arc::new(AtomicBool::new(false));
    let (commands, noted) = (worker.commands.clone(), Arc::clone(&hung_up));
    let signals = Signals::listen(move |signal| {
        noted.fetch_or(signal == Signal::Alone, Ordering::SeqCst);
        let _ = commands.send(match signal {
            Signal::Stop => Command::Cancel,
            Signal::Alone => Command::CancelIfUntouched,
        });
    })
    .map_err(|error| Problem::new(Exit::Defect, ProblemKind::Signals, error))?;
    // The worker was started just now; if it is gone already, the events say so.
    let begins = match &job.task {
        Task::Flash(task) => {
            Some(Begins { change: task.change, carries_on: task.left != DroneState::Untouched })
        }
        _ => None,
    };
    let _ = worker.commands.send(Command::Run(Box::new(job)));
    let mut presence = Presence::new(console.is_demo());
    let (mut begun, mut left, mut holder) = (None, None, None);
    let mut last = None;
    let (mut drone, mut simulated): (Option<DroneAt>, _) = (None, false);
    for mut event in &worker.events {
        // Another run may have come first; a background identify, which announces nothing, is waited for.
        if let (Event::Device(device), Some(record), None) = (&event, &record, &holder) {
            holder = record.at_work_on(&device.location);
            if holder.is_some() {
                let _ = worker.commands.send(Command::Cancel);
            }
        }
        if let (Event::Finished(Report { outcome, .. }), Some(_)) = (&mut event, &holder)
            && let Outcome::Cancelled(drone) = *outcome
        {
            *outcome = held(drone);
        }
        console.event(&event);
        presence.follow(now.now(), &event);
        match &event {
            Event::Device(device) => {
                // The whole serial number, which it shows while it runs, says more than the one of DFU mode.
                if !drone.as_ref().is_some_and(|drone| drone.is(device) && device.mode == Mode::Dfu) {
                    drone = Some(device.drone());
                }
                simulated = device.simulated;
            }
            // Whoever typed the command has made up his mind; only the copy is kept first.
            Event::Ready(preview) => {
                left = Some(preview.work.bytes());
                if let (false, Some(begins), Some(drone)) = (simulated, &begins, &drone) {
                    begun = begin(begins, preview, drone, console);
                }
                let _ = worker.commands.send(Command::Proceed);
            }
            _ => {}
        }
        if let Event::Finished(report) = event {
            if let Some(begun) = begun {
                begun.end(&report.outcome);
            }
            last = Some(report);
            break;
        }
    }
    signals.stop();
    worker.join();
    let hung_up = hung_up.load(Ordering::SeqCst);
    if let (Some(report), false) = (&last, simulated || drone.is_none()) {
        remember(report, hung_up, holder.as_ref(), console);
    }
    let drone = drone.filter(|drone| !drone.serial.is_empty());
    Ok(Ended { report: last.unwrap_or_else(died), drone, left, hung_up })
}

/// The other run that is at work on the drone that this job means.
fn held_by(record: &Record, bus: &Arc<dyn Bus>, clock: &Arc<dyn Clock>, job: &Job) -> Option<AtWork> {
    // Without another run nothing is looked at.
    if record.others_at_work().is_empty() {
        return None;
    }
    let bus = Patient::new(Arc::clone(bus), Arc::clone(clock));
    record.at_work_on(&find::choose(&bus, &job.device).ok()?.location)
}

fn held(drone: DroneState) -> Outcome {
    Outcome::Failed(Failure { kind: FailureKind::Held, place: None, drone })
}

/// How a job ended that changed something, for the next start; and who has the device that this one did not get.
fn remember(report: &Report, hung_up: bool, holder: Option<&AtWork>, console: &mut Console) {
    let Some(record) = Record::of_user() else { return };
    match &report.outcome {
        Outcome::Failed(Failure { kind: FailureKind::Held, .. }) => match holder {
            Some(work) => console.line(&work.to_string()),
            None => record.others_at_work().iter().for_each(|work| console.line(&work.to_string())),
        },
        // Whoever reads it here has seen it.
        Outcome::Identified | Outcome::Read(_) => {}
        _ if hung_up => drop(record.ended(&report::headline(report), false)),
        _ => {}
    }
}

/// Puts on record what the job does to the drone, before it writes.
fn begin(task: &Begins, preview: &Preview, drone: &DroneAt, console: &mut Console) -> Option<Begun> {
    let record = Record::of_user();
    if let Some(record) = &record {
        if task.carries_on {
            return Some(record.carry_on(drone));
        }
        if preview.work.is_nothing() && task.change == Change::Undo {
            record.undone(drone);
        }
    }
    if task.carries_on || preview.work.is_nothing() {
        return None;
    }
    let (begun, line) = record::begin(record.as_ref(), drone, preview, task.change);
    if let Some(entry) = line {
        console.event(&Event::Log(entry.level(), entry));
    }
    begun
}

/// The worker's thread ended without its last word: that is a failed job, too.
fn died() -> Report {
    let kind = FailureKind::WorkerDied("no report".to_owned());
    let failure = Failure { kind, place: None, drone: DroneState::WithoutFirmware };
    Report::nothing_done(Outcome::Failed(failure))
}
