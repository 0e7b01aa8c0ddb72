//! The jobs of one command: a worker, what is supervised of them, signals, and the console that shows their events.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::console::Console;
use crate::clock::Clock;
use crate::job::{Command, DroneState, Event, Failure, FailureKind, Job, Outcome, Report};
use crate::report::{self, Exit, Problem, ProblemKind};
use crate::settings::Settings;
use crate::supervise::{Ended, Next, Observed, Supervisor, Waits};
use crate::sys::signals::{Signal, Signals};
use crate::usb::Bus;
use crate::worker::Worker;

pub(super) struct Jobs {
    bus: Arc<dyn Bus>,
    clock: Arc<dyn Clock>,
    worker: Worker,
    supervisor: Supervisor,
    signals: Signals,
    /// SIGINT, which may come between two jobs.
    stopped: Arc<AtomicBool>,
    /// The terminal went, or the system asked to end.
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
        // SIGINT stops at the next safe point. SIGHUP and SIGTERM let a flash finish that has begun to write: half a
        // flash helps nobody, and it takes seconds. Before that, and a job that only reads, they stop, too.
        let (stopped, hung_up) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let commands = worker.commands.clone();
        let (stop, leave_alone) = (Arc::clone(&stopped), Arc::clone(&hung_up));
        let signals = Signals::listen(move |signal| {
            let command = match signal {
                Signal::Stop => {
                    stop.store(true, Ordering::SeqCst);
                    Command::Cancel
                }
                Signal::Alone => {
                    leave_alone.store(true, Ordering::SeqCst);
                    Command::CancelIfUntouched
                }
            };
            let _ = commands.send(command);
        })
        .map_err(|error| Problem::new(Exit::Defect, ProblemKind::Signals, error))?;
        Ok(Jobs { bus, clock, worker, supervisor, signals, stopped, hung_up })
    }

    /// Runs one job. Whoever typed the command has confirmed its plan.
    pub(super) fn run(&mut self, job: Job, console: &mut Console) -> Ended {
        let report = if self.is_stopped() {
            Report::nothing_done(Outcome::Cancelled(DroneState::Untouched))
        } else if let Some(other) = self.supervisor.held_by(&self.bus, &self.clock, &job) {
            console.line(&other.to_string());
            Report::nothing_done(Outcome::held(DroneState::Untouched))
        } else {
            self.supervisor.start(Box::new(job));
            return self.follow(console);
        };
        Ended::of(report, false)
    }

    fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::SeqCst) || self.hung_up.load(Ordering::SeqCst)
    }

    fn follow(&mut self, console: &mut Console) -> Ended {
        while let Ok(event) = self.worker.events.recv() {
            if self.hung_up.load(Ordering::SeqCst) {
                self.supervisor.hang_up();
            }
            match self.supervisor.observe(self.clock.now(), event) {
                Observed::Event(event) => {
                    console.event(&event);
                    if let Event::Ready(preview) = event
                        && let Some(entry) = self.supervisor.proceed(&preview)
                    {
                        let event = Event::Log(entry.level(), entry);
                        console.event(&event);
                        // For the log of the run.
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
        // The worker's thread ended without its last word: that is a failed job, too.
        let kind = FailureKind::WorkerDied("no report".to_owned());
        let failure = Failure { kind, place: None, drone: DroneState::WithoutFirmware };
        Ended::of(Report::nothing_done(Outcome::Failed(failure)), false)
    }

    /// Runs a job and, as long as that is of use, once more each time that its drone is lost and comes back.
    pub(super) fn run_to_the_end(&mut self, job: Job, console: &mut Console) -> Report {
        let mut ended = self.run(job, console);
        loop {
            let job = match ended.next {
                Next::Done => return ended.report,
                // It came when the drone was gone already, where no job hears it.
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
            ended = self.follow(console);
            if ended.drone.is_none() && matches!(ended.report.outcome, Outcome::Failed(_)) {
                // It did not come back: what it was left as is what there is to say.
                return lost;
            }
        }
    }

    /// Lets the worker end.
    pub(super) fn finish(self) {
        self.signals.stop();
        let Jobs { worker, supervisor, .. } = self;
        drop(supervisor);
        worker.join();
    }
}
