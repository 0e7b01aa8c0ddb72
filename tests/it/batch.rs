//! Runs a whole batch on simulated drones, as both front ends do: `Fleet` decides what to do, and `BatchWorkers` runs a
//! worker and a supervisor for each drone. `Batch` records the events and effects of each drone. Used by `isolation`
//! and `speed`.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use cfdfu::batch_workers::{BatchWorkers, BusyPorts, WorkerBus};
use cfdfu::clock::{Clock, TeamClock};
use cfdfu::fleet::{Fleet, FleetEffect, FleetMsg, Policy};
use cfdfu::job::{Device, Event, Job};
use cfdfu::scan;
use cfdfu::sim::drone::SimDrone;
use cfdfu::sim::scenario::Scenario;
use cfdfu::supervise::{Next, Observed, Waits};
use cfdfu::usb::{Bus, Location};
use cfdfu::watch::watch_drones;

/// Returns copies of a scenario's first drone, each with its own serial number.
pub fn drones(scenario: &str, count: usize) -> Vec<SimDrone> {
    let first = Scenario::by_name(scenario).unwrap().drones(Duration::ZERO).remove(0);
    let mut all = vec![first; count];
    all.iter_mut().zip(1..).for_each(|(drone, n)| drone.traits.uid[0] = n);
    all
}

/// Returns the policy of a batch that runs `job` on the given number of drones at once.
pub fn policy(job: Job, drones: usize) -> Policy {
    Policy {
        job,
        selected: Vec::new(),
        planned: Vec::new(),
        expect: Some(drones),
        jobs: 32,
        wait: Duration::ZERO,
        require_boot: false,
        station: None,
    }
}

/// The events and effects of one drone of a batch, in order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RowHistory {
    /// The events from the drone's worker; the last one is the report.
    pub events: Vec<Event>,
    /// The effects that the fleet returned for the drone.
    pub effects: Vec<FleetEffect>,
}

/// A batch that has ended.
pub struct Ran {
    pub fleet: Fleet,
    pub histories: Vec<RowHistory>,
}

enum Input {
    Bus(Vec<Device>),
    Event(usize, Event),
}

pub struct Batch {
    clock: Arc<TeamClock>,
    fleet: Fleet,
    workers: BatchWorkers,
    inputs: Sender<Input>,
    inbox: Receiver<Input>,
    histories: Vec<RowHistory>,
    /// The rows whose workers have not sent an event yet; `None` once the clock may advance.
    silent: Option<HashSet<usize>>,
}

impl Batch {
    pub fn new(new_bus: WorkerBus, clock: &Arc<TeamClock>, policy: Policy) -> Batch {
        let (inputs, inbox) = channel();
        let outbox = inputs.clone();
        let send = move |id, event| outbox.send(Input::Event(id, event)).is_ok();
        let workers = BatchWorkers::new(new_bus, clock.clone(), send, Waits::No, 0);
        let fleet = Fleet::new(policy, clock.now());
        Batch { clock: clock.clone(), fleet, workers, inputs, inbox, histories: Vec::new(), silent: None }
    }

    /// Returns the ports whose drones have a job.
    pub fn busy(&self) -> BusyPorts {
        self.workers.busy.clone()
    }

    /// Runs the batch without a scanner, on the drones that `bus` currently lists. All workers start at the same time
    /// on the clock, so every run of the same batch produces the same events.
    pub fn run(mut self, bus: &dyn Bus) -> Ran {
        // The clock does not advance while this thread is a member of its team.
        self.clock.begin_work();
        self.silent = Some(HashSet::new());
        let devices = scan::list_devices(bus).unwrap();
        self.inputs.send(Input::Bus(devices)).unwrap();
        self.follow(&mut |_, _| {})
    }

    /// Runs the batch with the scanner of the command line. The ports in `used` count as used by another cfdfu. `watch`
    /// is called with each effect before the effect is performed.
    pub fn run_with_scanner(
        self,
        bus: Arc<dyn Bus>,
        used: HashSet<Location>,
        watch: &mut dyn FnMut(&Fleet, &FleetEffect),
    ) -> Ran {
        let outbox = self.inputs.clone();
        let send = move |devices| outbox.send(Input::Bus(devices)).is_ok();
        let _watcher =
            watch_drones(bus, self.clock.clone(), self.workers.busy.clone(), move || used.clone(), send);
        self.follow(watch)
    }

    fn follow(mut self, watch: &mut dyn FnMut(&Fleet, &FleetEffect)) -> Ran {
        while !self.fleet.is_over() {
            let Ok(input) = self.inbox.recv_timeout(INPUT_TIMEOUT) else {
                panic!("the batch did not end: {:?}", self.fleet.rows);
            };
            let msg = match input {
                Input::Bus(devices) => FleetMsg::Bus(devices),
                Input::Event(id, event) => match self.observe(id, event) {
                    Some(msg) => msg,
                    None => continue,
                },
            };
            for effect in self.fleet.update(self.clock.now(), msg) {
                watch(&self.fleet, &effect);
                self.perform(effect);
            }
            if self.silent.as_ref().is_some_and(HashSet::is_empty) {
                self.silent = None;
                self.clock.end_work();
            }
        }
        let Batch { fleet, workers, histories, .. } = self;
        workers.end();
        Ran { fleet, histories }
    }

    fn observe(&mut self, id: usize, event: Event) -> Option<FleetMsg> {
        if let Some(silent) = &mut self.silent {
            silent.remove(&id);
        }
        self.histories[id].events.push(event.clone());
        Some(match self.workers.observe(self.clock.now(), id, event)? {
            Observed::Event(event) => FleetMsg::Event(id, event),
            Observed::Ended(ended) => {
                let resume = if let Next::Resume(job) = ended.next { Some(job) } else { None };
                FleetMsg::Ended(id, Box::new(ended.report), resume)
            }
        })
    }

    fn perform(&mut self, effect: FleetEffect) {
        let rows = self.fleet.rows.len();
        self.histories.resize_with(rows, RowHistory::default);
        let id = match &effect {
            FleetEffect::Start(id, _)
            | FleetEffect::Resume(id, _)
            | FleetEffect::Cancel(id)
            | FleetEffect::CancelIfUntouched(id)
            | FleetEffect::Joined(id)
            | FleetEffect::Show(id) => *id,
            FleetEffect::AlreadyDone(_) | FleetEffect::Paused | FleetEffect::End => return,
        };
        self.histories[id].effects.push(effect.clone());
        let row = &self.fleet.rows[id];
        match effect {
            FleetEffect::Start(id, job) => {
                let other = self.workers.start(id, &row.device, job);
                assert_eq!(other, None, "no other cfdfu uses a simulated drone");
                if let Some(silent) = &mut self.silent {
                    silent.insert(id);
                }
            }
            FleetEffect::Resume(id, job) => self.workers.resume(id, job),
            FleetEffect::Show(id) if row.is_final() => self.workers.finish(id, &row.device.location),
            _ => {}
        }
    }
}

/// How long to wait for the next input, in real time, before the test fails.
const INPUT_TIMEOUT: Duration = Duration::from_secs(30);
