//! The workers of a batch: a worker thread and a supervisor for each drone that has a job. Batches of the command line
//! and of the interface use the same code.
//!
//! The drones share nothing but the wire. On Linux each worker has a libusb context of its own: with one context, every
//! completed transfer wakes every waiting worker (libusb, io.c). Elsewhere one context is shared, because libusb
//! supports only one on Windows.

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

/// Creates a bus for one more worker.
pub type WorkerBus = Arc<dyn Fn() -> Arc<dyn Bus>>;

/// The ports whose drones have a job. The scanner does not open these drones: a query would wait behind an erase.
#[derive(Clone, Default)]
pub struct BusyPorts(Arc<Mutex<HashSet<Location>>>);

impl BusyPorts {
    pub fn list(&self) -> HashSet<Location> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn change(&self, change: impl FnOnce(&mut HashSet<Location>)) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

/// The workers that have a job, by row. A signal handler sends to them directly, because the main loop may be
/// blocked by a terminal that accepts no output.
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

    fn change(&self, change: impl FnOnce(&mut Vec<RowWorker>)) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

pub struct Crews {
    for_worker: WorkerBus,
    clock: Arc<dyn Clock>,
    /// Passes on an event of a row's worker. Returns false if the receiver is gone.
    outbox: Arc<dyn Fn(usize, Event) -> bool + Send + Sync>,
    waits: Waits,
    logs: usize,
    rows: Vec<Option<Crew>>,
    pub busy: BusyPorts,
    pub(crate) running: RunningWorkers,
}

struct Crew {
    worker: Worker,
    supervisor: Supervisor,
}

impl Crew {
    /// Waits for the worker to end, which it does once all senders of its commands are dropped.
    fn end(self) {
        drop(self.supervisor);
        self.worker.join();
    }
}

impl Crews {
    /// `logs` is the number of run logs to keep.
    pub fn new(
        for_worker: WorkerBus,
        clock: Arc<dyn Clock>,
        outbox: impl Fn(usize, Event) -> bool + Send + Sync + 'static,
        waits: Waits,
        logs: usize,
    ) -> Crews {
        let (busy, running) = (BusyPorts::default(), RunningWorkers::default());
        let outbox = Arc::new(outbox);
        Crews { for_worker, clock, outbox, waits, logs, rows: Vec::new(), busy, running }
    }

    /// Starts a row's job. If another instance of cfdfu is using the drone, starts nothing and returns that instance:
    /// such a drone must not be asked to enter DFU mode.
    pub fn start(&mut self, id: usize, device: &Device, job: Box<Job>) -> Option<RunningInstance> {
        if let Some(other) = supervise::user_of(device) {
            return Some(other);
        }
        let mut worker = Worker::spawn((self.for_worker)(), Arc::clone(&self.clock));
        let mut supervisor =
            Supervisor::new(worker.commands.clone(), device.simulated, self.waits, self.logs);
        let (_, no_events) = channel();
        let events = std::mem::replace(&mut worker.events, no_events);
        let outbox = Arc::clone(&self.outbox);
        thread::spawn(move || events.iter().all(|event| outbox(id, event)));
        // The scanner must not open the drone once its job runs.
        self.busy.change(|ports| {
            ports.insert(device.location.clone());
        });
        supervisor.start(job);
        self.running.change(|all| all.push((id, worker.commands.clone())));
        self.rows.resize_with(self.rows.len().max(id + 1), || None);
        self.rows[id] = Some(Crew { worker, supervisor });
        None
    }

    /// Starts another job on the row's worker: the rest of an interrupted job, or an undo whose drone has been found.
    pub fn resume(&mut self, id: usize, job: Box<Job>) {
        if let Some(crew) = self.crew(id) {
            crew.supervisor.resume(job);
        }
    }

    pub(crate) fn send(&mut self, id: usize, command: Command) {
        if let Some(crew) = self.crew(id) {
            let _ = crew.worker.commands.send(command);
        }
    }

    /// Passes an event of a row's worker through its supervisor. Saves the backup of a plan and starts writing without
    /// asking: the user has already confirmed the batch. Returns `None` if the row no longer has a worker.
    pub fn observe(&mut self, now: Duration, id: usize, event: Event) -> Option<Observed> {
        let Crew { supervisor, .. } = self.rows.get_mut(id)?.as_mut()?;
        let observed = supervisor.observe(now, event);
        if let Observed::Event(Event::Ready(preview)) = &observed
            && let Some(entry) = supervisor.proceed(preview)
        {
            (self.outbox)(id, Event::Log(entry.level(), entry));
        }
        Some(observed)
    }

    /// Call this when the terminal is closed. The jobs then record their results for the next start.
    pub(crate) fn hang_up(&mut self) {
        for crew in self.rows.iter_mut().flatten() {
            crew.supervisor.hang_up();
        }
    }

    /// Frees the port and the worker of a row that has ended. Otherwise a station would keep a thread and a USB context
    /// for every drone that it has ever flashed.
    pub fn finish(&mut self, id: usize, port: &Location) {
        self.busy.change(|ports| {
            ports.remove(port);
        });
        self.running.change(|all| all.retain(|(n, _)| *n != id));
        if let Some(crew) = self.rows.get_mut(id).and_then(Option::take) {
            crew.end();
        }
    }

    /// Waits for all workers to end.
    pub fn end(self) {
        // `running` also holds senders of commands: see `Crew::end`.
        self.running.change(Vec::clear);
        self.rows.into_iter().flatten().for_each(Crew::end);
    }

    fn crew(&mut self, id: usize) -> Option<&mut Crew> {
        self.rows.get_mut(id)?.as_mut()
    }
}
