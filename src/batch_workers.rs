//! The workers of a batch: a worker thread and a supervisor for each drone that has a job. Batches on the command line
//! and batches in the interface both use this module.
//!
//! On Linux each worker has its own libusb context: with a shared context, every completed transfer wakes every waiting
//! worker (libusb, io.c). Elsewhere all workers share one context, because libusb supports only one on Windows.

use std::collections::HashSet;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use crate::clock::Clock;
use crate::job::{Command, Device, Event, Job};
use crate::supervise::{self, Observed, RunningInstance, Supervisor, Waits};
use crate::usb::{Bus, Location};
use crate::worker::Worker;

/// A function that creates the bus for a new worker.
pub type WorkerBus = Arc<dyn Fn() -> Arc<dyn Bus>>;

/// The ports whose drones have a job. The scanner does not open these drones: a query might have to wait until
/// an erase ends.
#[derive(Clone, Default)]
pub struct BusyPorts(Arc<Mutex<HashSet<Location>>>);

impl BusyPorts {
    pub fn list(&self) -> HashSet<Location> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn update(&self, update: impl FnOnce(&mut HashSet<Location>)) {
        update(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

/// The workers that have a job, by row. The signal handler sends commands to them directly, because a terminal that
/// does not accept output may block the main loop.
#[derive(Clone, Default)]
pub(crate) struct RunningWorkers(Arc<Mutex<Vec<RowWorker>>>);

type RowWorker = (usize, Sender<Command>);

impl RunningWorkers {
    pub(crate) fn send(&self, command: &Command) {
        for (_, worker) in self.0.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            // A worker that has ended has already reported why.
            let _ = worker.send(command.clone());
        }
    }

    fn update(&self, update: impl FnOnce(&mut Vec<RowWorker>)) {
        update(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

pub struct BatchWorkers {
    new_bus: WorkerBus,
    clock: Arc<dyn Clock>,
    /// Forwards an event from a row's worker. Returns false if the receiver is gone.
    outbox: Arc<dyn Fn(usize, Event) -> bool + Send + Sync>,
    waits: Waits,
    /// The number of run logs to keep.
    logs: usize,
    rows: Vec<Option<SupervisedWorker>>,
    pub busy: BusyPorts,
    pub(crate) running: RunningWorkers,
}

struct SupervisedWorker {
    worker: Worker,
    supervisor: Supervisor,
}

impl SupervisedWorker {
    /// Waits for the worker to end. A worker ends once all senders of its commands are dropped.
    fn end(self) {
        drop(self.supervisor);
        self.worker.join();
    }
}

impl BatchWorkers {
    /// `logs` is the number of run logs to keep.
    pub fn new(
        new_bus: WorkerBus,
        clock: Arc<dyn Clock>,
        outbox: impl Fn(usize, Event) -> bool + Send + Sync + 'static,
        waits: Waits,
        logs: usize,
    ) -> BatchWorkers {
        let (busy, running) = (BusyPorts::default(), RunningWorkers::default());
        let outbox = Arc::new(outbox);
        BatchWorkers { new_bus, clock, outbox, waits, logs, rows: Vec::new(), busy, running }
    }

    /// Starts a row's job. If another instance of cfdfu is using the drone, starts nothing and returns that instance:
    /// the drone must not be asked to enter DFU mode.
    pub fn start(&mut self, id: usize, device: &Device, job: Box<Job>) -> Option<RunningInstance> {
        if let Some(other) = supervise::find_instance_using(device) {
            return Some(other);
        }
        let mut worker = Worker::spawn((self.new_bus)(), Arc::clone(&self.clock));
        let mut supervisor =
            Supervisor::new(worker.commands.clone(), device.simulated, self.waits, self.logs);
        let (_, no_events) = channel();
        let events = std::mem::replace(&mut worker.events, no_events);
        let outbox = Arc::clone(&self.outbox);
        thread::spawn(move || events.iter().all(|event| outbox(id, event)));
        // The scanner must not open the drone while the job runs.
        self.busy.update(|ports| {
            ports.insert(device.location.clone());
        });
        supervisor.start(job);
        self.running.update(|all| all.push((id, worker.commands.clone())));
        self.rows.resize_with(self.rows.len().max(id + 1), || None);
        self.rows[id] = Some(SupervisedWorker { worker, supervisor });
        None
    }

    /// Starts another job on the row's worker: the rest of an interrupted job, or an undo whose drone has been found.
    pub fn resume(&mut self, id: usize, job: Box<Job>) {
        if let Some(row) = self.row(id) {
            row.supervisor.resume(job);
        }
    }

    pub(crate) fn send(&mut self, id: usize, command: Command) {
        if let Some(row) = self.row(id) {
            let _ = row.worker.commands.send(command);
        }
    }

    /// Passes an event from a row's worker through its supervisor. Once the plan is ready, saves the backup and starts
    /// writing without asking: the user has already confirmed the batch. Returns `None` if the row no longer has a
    /// worker.
    pub fn observe(&mut self, now: Duration, id: usize, event: Event) -> Option<Observed> {
        let SupervisedWorker { supervisor, .. } = self.rows.get_mut(id)?.as_mut()?;
        let observed = supervisor.observe(now, event);
        if let Observed::Event(Event::Ready(preview)) = &observed
            && let Some(entry) = supervisor.proceed(preview)
        {
            (self.outbox)(id, Event::Log(entry.level(), entry));
        }
        Some(observed)
    }

    /// Handles a closed terminal: the jobs record their results for the next start of cfdfu.
    pub(crate) fn detach(&mut self) {
        for row in self.rows.iter_mut().flatten() {
            row.supervisor.detach();
        }
    }

    /// Frees the port and the worker of a row that has ended. Otherwise a station would keep a thread and a USB context
    /// for every drone that it has ever flashed.
    pub fn finish(&mut self, id: usize, port: &Location) {
        self.busy.update(|ports| {
            ports.remove(port);
        });
        self.running.update(|all| all.retain(|(n, _)| *n != id));
        if let Some(row) = self.rows.get_mut(id).and_then(Option::take) {
            row.end();
        }
    }

    /// Waits for all workers to end.
    pub fn end(self) {
        // `running` also has a sender for each worker. A worker ends only once all of its senders are dropped.
        self.running.update(Vec::clear);
        self.rows.into_iter().flatten().for_each(SupervisedWorker::end);
    }

    fn row(&mut self, id: usize) -> Option<&mut SupervisedWorker> {
        self.rows.get_mut(id)?.as_mut()
    }
}
