//! Tests that the drones of a batch do not affect each other: a fault at any transfer of one drone changes nothing for
//! the others, and during a drone's job, only the worker of that job opens the drone.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, ThreadId};
use std::time::Duration;

use cfdfu::batch_workers::WorkerBus;
use cfdfu::clock::TeamClock;
use cfdfu::fleet::{FleetEffect, Policy, Row, RowState};
use cfdfu::job::{Confirm, Job, Keep, Outcome, Phase, Selector};
use cfdfu::scan::ScanCache;
use cfdfu::sim::drone::{SimDrone, SimFault};
use cfdfu::sim::{SimBus, images};
use cfdfu::usb::{Bus, Found, Location, TransferError, Transport};

use crate::batch::{Batch, Ran, RowHistory, drones, policy};
use crate::bent::InterceptedUsb;
use crate::fault::{Faults, Script, faulty};
use crate::matrix::FAULTS;
use crate::support::{change_flash_task, firmware, flash_job};

/// Returns the job for each drone of a batch. As on the command line, the job keeps a copy for undo and asks for
/// confirmation.
fn job(image: &[u8]) -> Job {
    change_flash_task(flash_job(image), |task| (task.keep, task.confirm) = (Keep::Copy, Confirm::Ask))
}

/// Everything that a user may see of one drone of a batch. The times in the row are not included: the thread of the
/// front end reads them, and they depend on when that thread is scheduled. The worker's times are included, because the
/// worker reads them from the simulated clock.
#[derive(PartialEq)]
struct EndState {
    flash: Vec<u8>,
    history: RowHistory,
    state: RowState,
    row: (Option<String>, Option<String>, bool),
}

impl EndState {
    fn of(bus: &SimBus, ran: &Ran, n: usize) -> EndState {
        let row: &Row = &ran.fleet.rows[n];
        EndState {
            flash: bus.with(n, |drone, _| drone.memory.flash.bytes().to_vec()).unwrap(),
            history: ran.histories[n].clone(),
            state: row.state.clone(),
            row: (row.board.clone(), row.before.clone(), row.succeeded()),
        }
    }

    /// Describes the first differences between two end states, for the assertion message.
    fn difference(&self, other: &EndState) -> String {
        let (ours, theirs) = (&self.history, &other.history);
        let events = ours.events.iter().zip(&theirs.events).find(|(one, other)| one != other);
        let effects = ours.effects.iter().zip(&theirs.effects).find(|(one, other)| one != other);
        format!(
            "{events:?}\n{effects:?}\n{} and {} events, same flash: {}",
            ours.events.len(),
            theirs.events.len(),
            self.flash == other.flash
        )
    }
}

/// Runs a batch on these three drones. The fault hits the middle drone; the other two drones use a bus without faults.
/// Returns the simulated bus, the ended batch, and the number of transfers of the middle drone.
fn run_with_fault(drones: &[SimDrone], job: &Job, script: Option<Script>) -> (SimBus, Ran, u64) {
    let clock = Arc::new(TeamClock::new());
    let bus = SimBus::new(drones.to_vec(), clock.clone());
    let unplugged = bus.clone();
    let faults = Faults::new(script, move || {
        unplugged.with(1, |drone, now| drone.cut_power(now));
    });
    // The jobs start in the order of the rows.
    let started = AtomicUsize::new(0);
    let (for_bus, for_faults) = (bus.clone(), Arc::clone(&faults));
    let new_bus: WorkerBus = Arc::new(move || -> Arc<dyn Bus> {
        match started.fetch_add(1, Ordering::SeqCst) {
            1 => Arc::new(faulty(for_bus.clone(), Arc::clone(&for_faults))),
            _ => Arc::new(for_bus.clone()),
        }
    });
    let ran = Batch::new(new_bus, &clock, policy(job.clone(), drones.len())).run(&bus);
    (bus, ran, faults.count())
}

/// Each of the three drones has its own wire, and each fault hits each transfer of the middle drone in turn. The other
/// two end with the same flash, the same events and the same report as without a fault, to the nanosecond on the
/// simulated clock: the workers start together, and no worker may delay another.
///
/// The drones are running at first, so every kind of transfer occurs: the request for DFU mode, the flash, the restart
/// and the query for the version. The image is the smallest possible firmware, because a longer image only repeats the
/// same transfers. On a shared wire, a fault changes the times at which the other drones can use the wire, so only
/// their results stay the same (`fleet::a_fault_on_one_drone_does_not_touch_the_others`).
#[test]
fn a_fault_on_one_drone_changes_nothing_for_the_others() {
    let job = job(&firmware("2026.08", images::FIRMWARE_MIN));
    let drones = drones("healthy", 3);
    let others = |bus: &SimBus, ran: &Ran| [0, 2].map(|n| EndState::of(bus, ran, n));
    let (bus, ran, transfers) = run_with_fault(&drones, &job, None);
    assert_eq!(ran.fleet.counts().flashed, 3);
    assert!(ran.fleet.rows.iter().all(Row::succeeded));
    let expected = others(&bus, &ran);
    let mut middle: BTreeMap<&str, u32> = BTreeMap::new();
    let mut check = |case: &str, bus: &SimBus, ran: &Ran| {
        for (end, expected) in others(bus, ran).iter().zip(&expected) {
            assert!(end == expected, "{case}: {}", end.difference(expected));
        }
        let failed = matches!(ran.fleet.rows[1].report.as_ref().unwrap().outcome, Outcome::Failed(_));
        *middle.entry(if failed { "failed" } else { "succeeded" }).or_default() += 1;
    };
    for (fault, at) in FAULTS.into_iter().flat_map(|fault| (0..transfers).map(move |at| (fault, at))) {
        let script = Script { at, fault };
        let (bus, ran, _) = run_with_fault(&drones, &job, Some(script));
        check(&format!("{script:?}"), &bus, &ran);
    }
    // A `SimFault` occurs after a number of DFU requests, of which there are fewer than transfers.
    for fault in [SimFault::Loose, SimFault::Hung] {
        for at in 0..transfers as u32 / 2 {
            let mut drones = drones.clone();
            drones[1].traits.fault = Some((at, fault));
            let (bus, ran, _) = run_with_fault(&drones, &job, None);
            check(&format!("{fault:?} at {at}"), &bus, &ran);
        }
    }
    println!("every fault at each of {transfers} transfers of the middle drone: {middle:?}");
    assert!(middle.values().all(|count| *count > 100), "{middle:?}");
}

/// The start or end of a drone's job, or the opening of a drone.
#[derive(Clone, Debug)]
enum Mark {
    Started(Location),
    Ended(Location),
    Opened(Location, ThreadId),
}

/// The marks of a batch, in chronological order.
#[derive(Clone, Default)]
struct Marks(Arc<Mutex<Vec<Mark>>>);

impl Marks {
    fn push(&self, mark: Mark) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(mark);
    }

    /// Returns a bus that records which thread opens which drone.
    fn recording_bus(&self, bus: SimBus) -> Arc<dyn Bus> {
        let marks = self.clone();
        let open = move |bus: &SimBus, found: &Found| -> Result<Box<dyn Transport>, TransferError> {
            marks.push(Mark::Opened(found.location.clone(), thread::current().id()));
            bus.open(found)
        };
        Arc::new(InterceptedUsb { bus, open })
    }
}

/// For each drone, counts how often each thread opened the drone during its job. Also counts how often drones without a
/// running job were opened.
fn count_opens(marks: &[Mark]) -> (BTreeMap<Location, Vec<(ThreadId, usize)>>, usize) {
    let (mut running, mut idle) = (BTreeSet::new(), 0);
    let mut opens: BTreeMap<Location, Vec<(ThreadId, usize)>> = BTreeMap::new();
    for mark in marks {
        match mark {
            Mark::Started(port) => _ = running.insert(port),
            Mark::Ended(port) => _ = running.remove(port),
            Mark::Opened(port, thread) if running.contains(port) => {
                let by = opens.entry(port.clone()).or_default();
                match by.iter_mut().find(|(known, _)| known == thread) {
                    Some((_, count)) => *count += 1,
                    None => by.push((*thread, 1)),
                }
            }
            Mark::Opened(..) => idle += 1,
        }
    }
    (opens, idle)
}

/// Eight drones have jobs. During its job, each drone is opened only by its own worker, and that worker opens no other
/// drone. Meanwhile, the scanners of both front ends keep scanning the bus. The eight drones restart during their jobs,
/// so a scanner that did not skip them would open them as new devices. Both scanners open a ninth drone, which is
/// plugged in during the jobs. A tenth drone has a job in another cfdfu, so the scanner of the command line skips this
/// drone.
#[test]
fn a_drone_is_opened_only_by_its_worker_during_its_job() {
    const COUNT: usize = 8;
    let clock = Arc::new(TeamClock::new());
    let mut all = drones("healthy", COUNT + 2);
    all[COUNT].cut_power(Duration::ZERO);
    let port = |n: usize| Location { bus: 1, ports: vec![n as u8 + 1] };
    let sim = SimBus::new(all, clock.clone());
    let marks = Marks::default();
    let bus = marks.recording_bus(sim.clone());
    let shared = Arc::clone(&bus);
    let job = job(&firmware("2026.08", images::FIRMWARE_MIN));
    let batch = Batch::new(
        Arc::new(move || Arc::clone(&shared)),
        &clock,
        Policy { selected: (0..COUNT).map(|n| Selector::At(port(n))).collect(), ..policy(job, COUNT) },
    );
    // Simulates the scanner of the interface, which also lists related devices.
    let (for_interface, busy) = (Arc::clone(&bus), batch.busy());
    let over = Arc::new(AtomicUsize::new(0));
    let (is_over, scans) = (Arc::clone(&over), Arc::new(AtomicUsize::new(0)));
    let counted = Arc::clone(&scans);
    let interface = thread::spawn(move || {
        let mut cache = ScanCache::default();
        while is_over.load(Ordering::SeqCst) == 0 {
            cache.refresh(&*for_interface, || busy.list()).unwrap();
            counted.fetch_add(1, Ordering::SeqCst);
            for_interface.wait(Duration::from_millis(500));
        }
    });
    // Wait for the first scan: the interface can start a batch only with drones that it has listed.
    while scans.load(Ordering::SeqCst) == 0 {
        thread::yield_now();
    }
    let mut first_scan = 0;
    let ran =
        batch.run_with_scanner(bus, HashSet::from([port(COUNT + 1)]), &mut |fleet, effect| match effect {
            FleetEffect::Start(id, _) => {
                first_scan = first_scan.max(scans.load(Ordering::SeqCst));
                marks.push(Mark::Started(fleet.rows[*id].device.location.clone()));
            }
            FleetEffect::Show(id) if fleet.rows[*id].is_final() => {
                marks.push(Mark::Ended(fleet.rows[*id].device.location.clone()));
            }
            FleetEffect::Show(id) if matches!(fleet.rows[*id].state, RowState::Working(Phase::Write, ..)) => {
                sim.with(COUNT, |drone, now| {
                    if !drone.is_plugged_in() {
                        drone.power_on_by_hand(now);
                    }
                });
            }
            _ => {}
        });
    let scanned = scans.load(Ordering::SeqCst) - first_scan;
    over.store(1, Ordering::SeqCst);
    interface.join().unwrap();
    assert_eq!(ran.fleet.counts().flashed, COUNT);
    let marks = marks.0.lock().unwrap().clone();
    let (during_jobs, idle) = count_opens(&marks);
    println!(
        "{during_jobs:?}\n{idle} times, a drone without a job was opened; {scanned} scans during the jobs"
    );
    let foreign: usize = during_jobs
        .values()
        .map(|by| by.iter().map(|(_, n)| n).sum::<usize>() - by.iter().map(|(_, n)| n).max().unwrap())
        .sum();
    assert_eq!(foreign, 0, "a thread other than the worker opened a drone: {during_jobs:?}");
    assert_eq!(during_jobs.len(), COUNT);
    let workers: BTreeSet<String> = during_jobs.values().map(|by| format!("{:?}", by[0].0)).collect();
    assert_eq!(workers.len(), COUNT, "a worker opened several drones: {during_jobs:?}");
    assert!(scanned > 20, "only {scanned} scans during the jobs");
    let opened = |n: usize| {
        marks.iter().filter(|mark| matches!(mark, Mark::Opened(location, _) if *location == port(n))).count()
    };
    assert_eq!(opened(COUNT), 2, "each scanner opens a new drone once");
    assert_eq!(
        opened(COUNT + 1),
        1,
        "only the interface's scanner opens the drone that another cfdfu is using"
    );
}
