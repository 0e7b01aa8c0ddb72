//! One job from the command line: the worker started, its events shown, signals passed on.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::console::Console;
use crate::clock::Clock;
use crate::crazyflie::Mode;
use crate::flash::undo::{Change, NoCopy};
use crate::job::{
    AtWork, Command, DroneAt, DroneState, Event, Failure, FailureKind, Job, Keep, Outcome, Preview, Report,
    Task,
};
use crate::record::{Begun, Kept, Presence, Record};
use crate::report::{self, Exit, Problem};
use crate::run::signals::{Signal, Signals};
use crate::usb::Bus;
use crate::worker::patient::Patient;
use crate::worker::{Worker, find};

/// How a job ended.
pub(super) struct Ended {
    pub(super) report: Report,
    /// The drone that it used, if it came to that.
    pub(super) drone: Option<DroneAt>,
    /// What was left to write at its start, in bytes.
    pub(super) left: Option<u64>,
    /// The terminal went, or the system asked to end.
    pub(super) hung_up: bool,
}

/// Runs the job to its end.
pub(super) fn run(
    bus: Arc<dyn Bus>,
    clock: Arc<dyn Clock>,
    job: Job,
    console: &mut Console,
) -> Result<Ended, Problem> {
    let now = Arc::clone(&clock);
    if let Some(ended) = held(&bus, &clock, &job, console) {
        return Ok(ended);
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
    .map_err(|error| report::other(Exit::Defect, "signals", &error.to_string(), ""))?;
    // The worker was started just now; if it is gone already, the events say so.
    let task = job.task.clone();
    let _ = worker.commands.send(Command::Run(job));
    let mut presence = Presence::new(console.is_demo());
    let record = Record::of_user().filter(|_| !console.is_demo());
    let (mut begun, mut left, mut held_by) = (None, None, None);
    let mut last = None;
    let (mut drone, mut simulated): (Option<DroneAt>, _) = (None, false);
    for mut event in &worker.events {
        // Another run that is at work on this drone has it; a look in passing, which tells nobody, is waited for.
        if let Event::Device(device) = &event
            && held_by.is_none()
            && let Some(record) = &record
        {
            let place = device.location.to_string();
            held_by = record.others_at_work().into_iter().find(|work| work.place == place);
            if held_by.is_some() {
                let _ = worker.commands.send(Command::Cancel);
            }
        }
        if let (Event::Finished(Report { outcome, .. }), Some(_)) = (&mut event, &held_by)
            && let Outcome::Cancelled(drone) = *outcome
        {
            *outcome = Outcome::Failed(Failure { kind: FailureKind::Held, place: None, drone });
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
                if !simulated && let Some(drone) = &drone {
                    begun = begin(&task, preview, drone, console);
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
        remember(report, hung_up, held_by.as_ref(), console);
    }
    let drone = drone.filter(|drone| !drone.serial.is_empty());
    Ok(Ended { report: last.unwrap_or_else(died), drone, left, hung_up })
}

/// The end of a job whose drone another run is at work on: a running one must not even be asked into DFU mode.
fn held(bus: &Arc<dyn Bus>, clock: &Arc<dyn Clock>, job: &Job, console: &mut Console) -> Option<Ended> {
    let others = Record::of_user().filter(|_| !console.is_demo())?.others_at_work();
    if others.is_empty() {
        return None;
    }
    let bus = Patient::new(Arc::clone(bus), Arc::clone(clock));
    let device = find::choose(&bus, &job.device).ok()?;
    let place = device.location.to_string();
    let work = others.into_iter().find(|work| work.place == place)?;
    console.line(&work.to_string());
    let failure = Failure { kind: FailureKind::Held, place: None, drone: DroneState::Untouched };
    let report = Report::nothing_done(Outcome::Failed(failure));
    Some(Ended { report, drone: None, left: None, hung_up: false })
}

/// How a job ended that changed something, for the next start; and who has the device that this one did not get.
fn remember(report: &Report, hung_up: bool, held_by: Option<&AtWork>, console: &mut Console) {
    let Some(record) = Record::of_user() else { return };
    match &report.outcome {
        Outcome::Failed(Failure { kind: FailureKind::Held, .. }) => match held_by {
            Some(work) => console.line(&work.to_string()),
            None => record.others_at_work().iter().for_each(|work| console.line(&work.to_string())),
        },
        // Whoever reads it here has seen it.
        Outcome::Identified | Outcome::Read(_) => {}
        _ if hung_up => drop(record.ended(&report::headline(report), false)),
        _ => {}
    }
}

/// What will be overwritten goes to the state directory. If that fails, the flash goes on all the same.
fn begin(task: &Task, preview: &Preview, drone: &DroneAt, console: &mut Console) -> Option<Begun> {
    let Task::Flash(task) = task else { return None };
    let no_copy =
        |why: &str| format!("Warning: no copy is kept of what is there, so it cannot be undone: {why}");
    let Some(record) = Record::of_user() else {
        if !preview.work.is_nothing() && task.keep == Keep::Copy {
            console.line(&no_copy("there is no home directory"));
        }
        return None;
    };
    if task.left != DroneState::Untouched {
        return Some(record.carry_on(drone));
    }
    if preview.work.is_nothing() {
        if task.change == Change::Undo {
            record.undone(drone);
        }
        return None;
    }
    match record.begin(drone, preview.plan.pieces(), preview.before.as_ref(), task.change) {
        Ok(begun) => {
            match (&begun.problem, &begun.kept) {
                (Some(error), _) => console.line(&no_copy(&error.to_string())),
                (None, kept) => match kept {
                    Kept::Copy(path) => console.line(&format!("Kept what was there: {}", path.display())),
                    Kept::Earlier => {
                        console.line("An interrupted flash left what is there: undo goes back to before it.");
                    }
                    Kept::None(NoCopy::WasIncomplete) => console.line(&no_copy("it is not complete")),
                    Kept::None(_) => {}
                },
            }
            Some(begun)
        }
        Err(error) => {
            console.line(&no_copy(&error.to_string()));
            None
        }
    }
}

/// The worker's thread ended without its last word: that is a failed job, too.
fn died() -> Report {
    let kind = FailureKind::WorkerDied("no report".to_owned());
    let failure = Failure { kind, place: None, drone: DroneState::WithoutFirmware };
    Report::nothing_done(Outcome::Failed(failure))
}
