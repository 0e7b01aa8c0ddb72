//! Runs the jobs of one command: connects the worker, the supervisor and the signal handler, and prints events on the
//! console.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::console::Console;
use crate::clock::Clock;
#[cfg(feature = "releases")]
use crate::fleet;
use crate::job::{Command, DroneState, Event, Failure, FailureKind, Job, Outcome, Report};
#[cfg(feature = "releases")]
use crate::job::{Device, DeviceInfo, Level, Selector};
use crate::report::{self, Exit, Problem, ProblemKind};
#[cfg(feature = "releases")]
use crate::scan;
use crate::settings::Settings;
use crate::supervise::{Ended, Next, Observed, Supervisor, Waits};
use crate::sys::keypress::KeyPress;
use crate::sys::signals::{Signal, Signals};
use crate::usb::Bus;
#[cfg(feature = "releases")]
use crate::usb::Location;
use crate::worker::Worker;

/// What to do when a job has passed its checks and is ready to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ready {
    Proceed,
    Cancel,
}

pub(super) struct Jobs {
    bus: Arc<dyn Bus>,
    clock: Arc<dyn Clock>,
    worker: Worker,
    supervisor: Supervisor,
    signals: Signals,
    /// Whether SIGINT was received, possibly between two jobs.
    stopped: Arc<AtomicBool>,
    /// Whether SIGHUP or SIGTERM was received: the terminal closed, or the system asked this process to end.
    hung_up: Arc<AtomicBool>,
}

impl Jobs {
    pub(super) fn new(
        (bus, clock): (Arc<dyn Bus>, Arc<dyn Clock>),
        waits: Waits,
        console: &Console,
    ) -> Result<Jobs, Problem> {
        let worker = Worker::spawn(Arc::clone(&bus), Arc::clone(&clock));
        let logs = Settings::load().0.logs();
        let supervisor = Supervisor::new(worker.commands.clone(), console.is_demo(), waits, logs);
        // SIGINT stops a job at its next safe point. SIGHUP and SIGTERM stop only a job that has not written anything.
        // A flash that has begun to write finishes, because the rest takes only seconds and half-written firmware is
        // useless.
        let (stopped, hung_up) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let commands = worker.commands.clone();
        let (set_stopped, set_hung_up) = (Arc::clone(&stopped), Arc::clone(&hung_up));
        let signals = Signals::listen(move |signal| {
            let command = match signal {
                Signal::Stop => {
                    set_stopped.store(true, Ordering::SeqCst);
                    Command::Cancel
                }
                Signal::HangUp => {
                    set_hung_up.store(true, Ordering::SeqCst);
                    Command::CancelIfUntouched
                }
            };
            let _ = commands.send(command);
        })
        .map_err(|error| Problem::new(Exit::Defect, ProblemKind::Signals, error))?;
        Ok(Jobs { bus, clock, worker, supervisor, signals, stopped, hung_up })
    }

    /// Runs one job. Typing the command counts as confirmation of its plan.
    pub(super) fn run(&mut self, job: Job, console: &mut Console) -> Ended {
        self.run_observed(job, Ready::Proceed, console, &mut |_| {})
    }

    /// Like [`Jobs::run`], but also calls `observe` with each event.
    pub(super) fn run_observed(
        &mut self,
        job: Job,
        ready: Ready,
        console: &mut Console,
        observe: &mut dyn FnMut(&Event),
    ) -> Ended {
        let report = if self.is_stopped() {
            Report::nothing_done(Outcome::Cancelled(DroneState::Untouched))
        } else if let Some(other) = self.supervisor.held_by(&self.bus, &self.clock, &job) {
            console.line(&other.to_string());
            Report::held()
        } else {
            self.supervisor.start(Box::new(job));
            self.repeat_signal();
            return self.follow(ready, console, observe);
        };
        Ended::of(report, false)
    }

    /// Runs an identify job for another command and returns what the job found. Prints only waits and warnings.
    #[cfg(feature = "releases")]
    pub(super) fn identify(&mut self, job: Job, console: &mut Console) -> (Report, Option<Box<DeviceInfo>>) {
        let mut known = None;
        if let Some(other) = self.supervisor.held_by(&self.bus, &self.clock, &job) {
            console.line(&other.to_string());
            return (Report::held(), None);
        }
        self.supervisor.start_background(Box::new(job));
        self.repeat_signal();
        while let Ok(event) = self.worker.events.recv() {
            match self.supervisor.observe(self.clock.now(), event) {
                Observed::Event(Event::Known(info)) => known = Some(info),
                Observed::Event(event @ (Event::Waiting { .. } | Event::Log(Level::Warning, _))) => {
                    console.event(&event);
                }
                Observed::Event(_) => {}
                Observed::Ended(ended) => {
                    console.end_bar();
                    return (ended.report, known);
                }
            }
        }
        (Report::nothing_done(Outcome::Cancelled(DroneState::Untouched)), known)
    }

    /// Returns the ports of the selected drones, or of all drones if `selected` is empty.
    #[cfg(feature = "releases")]
    pub(super) fn ports(&self, selected: &[Selector]) -> Result<Vec<Location>, Problem> {
        let failed =
            |kind| report::failure_problem(&Failure { kind, place: None, drone: DroneState::Untouched });
        let devices = scan::list_devices(&*self.bus).map_err(|error| failed(FailureKind::Bus(error)))?;
        let is_selected =
            |device: &Device| selected.is_empty() || selected.iter().any(|selector| selector.matches(device));
        let devices = fleet::participants(&devices).into_iter().filter(is_selected);
        let ports: Vec<Location> = devices.map(|device| device.location).collect();
        if ports.is_empty() { Err(failed(FailureKind::NoDevice)) } else { Ok(ports) }
    }

    /// Runs a job that only listens, until a key is pressed or a signal arrives. The job does not claim its drone, so
    /// another cfdfu can flash the drone in the meantime.
    pub(super) fn watch(&mut self, job: Job, console: &mut Console) -> Report {
        if self.is_stopped() {
            return Report::nothing_done(Outcome::Cancelled(DroneState::Untouched));
        }
        self.supervisor.start_background(Box::new(job));
        self.repeat_signal();
        let commands = self.worker.commands.clone();
        let key = KeyPress::listen(move || drop(commands.send(Command::Cancel)));
        let keys = if key.is_some() { "any key or Ctrl-C" } else { "Ctrl-C" };
        console.note(&format!("Showing the drone's console. Press {keys} to stop."));
        while let Ok(event) = self.worker.events.recv() {
            match self.supervisor.observe(self.clock.now(), event) {
                Observed::Event(event) => console.event(&event),
                Observed::Ended(ended) => return ended.report,
            }
            // The reader of standard output is gone, as with `| head`. Other jobs finish anyway, but this job would
            // run forever.
            if console.is_closed() {
                let _ = self.worker.commands.send(Command::Cancel);
            }
        }
        Report::nothing_done(Outcome::Cancelled(DroneState::Untouched))
    }

    /// Sends the command for an earlier signal again: if the signal arrived between two jobs, the idle worker ignored
    /// the command.
    fn repeat_signal(&self) {
        let command = match (self.stopped.load(Ordering::SeqCst), self.hung_up.load(Ordering::SeqCst)) {
            (true, _) => Command::Cancel,
            (false, true) => Command::CancelIfUntouched,
            (false, false) => return,
        };
        let _ = self.worker.commands.send(command);
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::SeqCst) || self.hung_up.load(Ordering::SeqCst)
    }

    fn follow(&mut self, ready: Ready, console: &mut Console, observe: &mut dyn FnMut(&Event)) -> Ended {
        while let Ok(event) = self.worker.events.recv() {
            if self.hung_up.load(Ordering::SeqCst) {
                self.supervisor.detach();
            }
            match self.supervisor.observe(self.clock.now(), event) {
                Observed::Event(event) => {
                    observe(&event);
                    console.event(&event);
                    let Event::Ready(preview) = event else { continue };
                    if ready == Ready::Cancel {
                        // A job with nothing to write does not wait for confirmation, so `Cancel` would skip the
                        // restart of the drone.
                        if !preview.work.is_empty() {
                            let _ = self.worker.commands.send(Command::Cancel);
                        }
                    } else if let Some(entry) = self.supervisor.proceed(&preview) {
                        let event = Event::Log(entry.level(), entry);
                        console.event(&event);
                        // The supervisor adds the entry to the run log.
                        let _ = self.supervisor.observe(self.clock.now(), event);
                    }
                }
                Observed::Ended(ended) => {
                    console.end_bar();
                    ended.others.iter().for_each(|other| console.line(&other.to_string()));
                    return *ended;
                }
            }
        }
        // The worker thread ended without reporting a result, so the job failed.
        let kind = FailureKind::WorkerDied("no report".to_owned());
        let failure = Failure { kind, place: None, drone: DroneState::WithoutFirmware };
        Ended::of(Report::nothing_done(Outcome::Failed(failure)), false)
    }

    /// Runs a job and resumes it each time its drone is lost and reconnects, until the job finishes or stops making
    /// progress.
    pub(super) fn run_to_completion(&mut self, job: Job, console: &mut Console) -> Report {
        let mut ended = self.run(job, console);
        loop {
            let job = match ended.next {
                Next::Done => return ended.report,
                // A signal arrived while the drone was disconnected and no job was running to receive it.
                Next::Resume(_) if self.is_stopped() => return ended.report,
                Next::GiveUp => {
                    console.line(report::STUCK);
                    return ended.report;
                }
                Next::Resume(job) => job,
            };
            if let Outcome::Failed(failure) = &ended.report.outcome {
                console.interrupted(failure);
            }
            let lost = ended.report;
            self.supervisor.resume(job);
            ended = self.follow(Ready::Proceed, console, &mut |_| {});
            if ended.drone.is_none() && matches!(ended.report.outcome, Outcome::Failed(_)) {
                // The drone did not reconnect. Report the state in which it was lost, not the failed search.
                return lost;
            }
        }
    }

    /// Stops the signal handler and waits for the worker to end.
    pub(super) fn finish(self) {
        self.signals.stop();
        let Jobs { worker, supervisor, .. } = self;
        drop(supervisor);
        worker.join();
    }
}
