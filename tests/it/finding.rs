//! Which device a job uses, and how it comes to it: the way into DFU mode and back, and devices that may not be opened.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cfdfu::crazyflie::Mode;
use cfdfu::flash::{LOADER_BASE, Span};
use cfdfu::job::{
    Command, DeviceInfo, DroneState, Enter, Event, FailureKind, Job, Outcome, Running, Selector, Task,
};
use cfdfu::plan::admission::{self, Overrides};
use cfdfu::scan;
use cfdfu::sim::{SimBus, images};
use cfdfu::usb::trace::{Traced, Transfer};
use cfdfu::usb::{Bus, BusError, Found, Id, ROM_DFU, TransferError, Transport};
use cfdfu::worker::Worker;

use crate::bent::Bent;
use crate::support::{SEED_LEN, World, firmware, flash_job, parse, run};

#[test]
fn no_enter_leaves_a_running_crazyflie_alone() {
    let world = World::new("healthy");
    let guise = world.bus.with(0, |drone, _| drone.guise());
    let job = Job { enter: Enter::Never, ..flash_job(&firmware("2026.08", SEED_LEN)) };
    let report = world.run(job).report;
    assert!(matches!(report.outcome, Outcome::Failed(failure) if failure.kind == FailureKind::NotInDfu));
    assert_eq!(world.bus.with(0, |drone, _| drone.guise()), guise);
}

#[test]
fn one_of_two_drones_is_flashed_by_serial_number_in_either_form_or_by_place() {
    for (name, n) in [("338133873034", 0), ("51004F000551343036333233", 0), ("338133883034", 1), ("1-2", 1)] {
        let world = World::new("two");
        let image = firmware("2026.08", SEED_LEN);
        let selector: Selector = name.parse().unwrap();
        let job = Job { device: selector, ..flash_job(&image) };
        assert_eq!(world.run(job).report.outcome, Outcome::Flashed, "{name}");
        let holds = |n: usize| {
            world
                .bus
                .with(n, |drone, _| drone.memory.flash.bytes()[0x4000..0x4000 + SEED_LEN] == image)
                .unwrap()
        };
        assert_eq!((holds(n), holds(1 - n)), (true, false), "{name}");
    }
}

/// Somebody plugs the drone in, with the button held, when it is waited for the third time.
struct Late {
    inner: SimBus,
    waits: AtomicU32,
}

impl Bus for Late {
    fn list(&self) -> Result<Vec<Found>, BusError> {
        self.inner.list()
    }

    fn open(&self, found: &Found) -> Result<Box<dyn Transport>, TransferError> {
        self.inner.open(found)
    }

    fn wait(&self, limit: Duration) {
        if self.waits.fetch_add(1, Ordering::SeqCst) == 2 {
            self.inner.with(0, |drone, now| drone.power_on_by_hand(now));
        }
        self.inner.wait(limit);
    }
}

#[test]
fn a_device_that_comes_late_is_waited_for_as_long_as_was_asked() {
    let late = |wait: Duration| {
        let world = World::new("dfu");
        world.bus.with(0, |drone, now| drone.cut_power(now));
        let bus = Late { inner: world.bus.clone(), waits: AtomicU32::new(0) };
        let job = Job { wait, ..flash_job(&firmware("2026.08", SEED_LEN)) };
        run(Arc::new(bus), world.clock.clone(), job).report.outcome
    };
    assert_eq!(late(Duration::from_secs(30)), Outcome::Flashed);
    let Outcome::Failed(failure) = late(Duration::from_millis(30)) else { panic!("flashed nothing") };
    assert_eq!(failure.kind, FailureKind::NoDevice);
}

#[test]
fn a_drone_that_starts_its_firmware_again_is_asked_eight_times_and_no_oftener() {
    let image = firmware("2026.08", images::FIRMWARE_MIN);
    let outcome = |missed: u8| {
        let world = World::new("healthy");
        world.bus.with(0, |drone, _| drone.traits.missed_entries = missed);
        let report = world.run(flash_job(&image)).report;
        // Each miss is over as soon as the firmware is back: a start takes 1.2 s, not the 10 s that DFU mode may take.
        assert!(report.took < Duration::from_secs(30), "{missed} missed: {:?}", report.took);
        report.outcome
    };
    for missed in [1, 4, 7] {
        assert_eq!(outcome(missed), Outcome::Flashed, "{missed} missed");
    }
    let Outcome::Failed(failure) = outcome(8) else { panic!("asked a ninth time") };
    assert!(
        matches!(failure.kind, FailureKind::DidNotEnter { tries: 8, now: Some(Mode::Firmware), .. }),
        "{failure}"
    );
    assert_eq!(failure.drone, DroneState::Untouched);
}

/// The vendor request that starts the boot ROM, or turns the link, goes to a Crazyflie and to nothing else.
#[test]
fn nothing_but_a_crazyflie_is_ever_sent_a_request() {
    for scenario in ["relatives", "px4", "clone", "none"] {
        for task in [flash_job(&firmware("2026.08", SEED_LEN)).task, Task::Identify] {
            let world = World::new(scenario);
            let sent = Arc::new(AtomicU32::new(0));
            let counter = Arc::clone(&sent);
            let listener = Arc::new(move |transfer: &Transfer| {
                let asks = matches!(transfer, Transfer::In(setup, _) if setup.request_type == 0x80);
                counter.fetch_add(u32::from(!asks), Ordering::SeqCst);
            });
            let bus = Arc::new(Traced::new(world.bus.clone(), listener));
            let job = Job::new(task);
            let report = run(bus, world.clock.clone(), job).report;
            let Outcome::Failed(failure) = report.outcome else { panic!("{scenario}") };
            assert_eq!(scenario == "none", failure.kind == FailureKind::NoDevice);
            assert_eq!(sent.load(Ordering::SeqCst), 0, "{scenario}");
        }
    }
}

/// A GD32 follows DfuSe, so every write would succeed: its numbers alone must keep cfdfu away from it.
#[test]
fn a_foreign_boot_rom_is_named_and_never_opened() {
    let image = firmware("2026.08", SEED_LEN);
    let read_whole = Task::Backup(Span::new(LOADER_BASE, 4096).unwrap());
    for task in [flash_job(&image).task, Task::Identify, read_whole] {
        for device in [Selector::Only, "1-1".parse().unwrap()] {
            let world = World::new("clone");
            let before = world.flash();
            let opened = Arc::new(AtomicU32::new(0));
            let bus = Arc::new(Counting(world.bus.clone(), Arc::clone(&opened)));
            let job = Job { device, task: task.clone(), ..flash_job(&image) };
            let Outcome::Failed(failure) = run(bus, world.clock.clone(), job).report.outcome else {
                panic!("{task:?} did not fail")
            };
            let FailureKind::OnlyOthers(others) = &failure.kind else { panic!("{failure:?}") };
            let [other] = others.as_slice() else { panic!("{others:?}") };
            let gd32 = Id { vendor: 0x28E9, product: 0x0189 };
            assert_eq!((other.id, other.what.foreign().map(|loader| loader.id)), (gd32, Some(gd32)));
            assert_eq!((opened.load(Ordering::SeqCst), world.flash() == before), (0, true), "{task:?}");
        }
    }
}

#[test]
fn a_crazyflie_beside_a_foreign_boot_rom_is_flashed() {
    let image = firmware("2026.08", SEED_LEN);
    let world = World::new("beside");
    let before = world.flash();
    for mode in ["running", "in DFU mode by hand"] {
        let report = world.run(flash_job(&image)).report;
        assert_eq!((report.outcome, report.written > 0), (Outcome::Flashed, true), "{mode}");
        assert!(world.flash() == before, "{mode}: the GD32 was written");
        world.bus.with(1, |drone, now| {
            drone.memory.flash.erase(1, 1.0);
            drone.cut_power(now);
            drone.power_on_by_hand(now);
        });
    }
}

#[test]
fn a_running_drone_is_asked_and_its_link_given_back() {
    let world = World::new("healthy");
    let seen = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&seen);
    let listener = Arc::new(move |transfer: &Transfer| log.lock().unwrap().push(transfer.clone()));
    let bus = Arc::new(Traced::new(world.bus.clone(), listener));
    let ask = Job::new(Task::Identify);
    let asked = run(bus, world.clock.clone(), ask);
    assert_eq!(asked.report.outcome, Outcome::Identified);
    let known = asked.events.iter().find_map(|event| match event {
        Event::Known(known) => Some((**known).clone()),
        _ => None,
    });
    let running = Running { version: Some("2025.02".to_owned()), board: Some("Crazyflie 2.1".to_owned()) };
    assert_eq!(known, Some(DeviceInfo::Running(running)));
    let seen = seen.lock().unwrap();
    let commands: Vec<u16> = seen
        .iter()
        .filter_map(|transfer| match transfer {
            Transfer::Out(setup, ..) => Some(setup.index),
            _ => None,
        })
        .collect();
    assert_eq!(commands, [1, 0], "to USB, and back to the radio");
    let report = world.run(flash_job(&firmware("2026.08", SEED_LEN))).report;
    assert_eq!(report.runs.as_deref(), Some("2026.08"), "what was flashed is what runs");
}

/// A bus on which a device that has gone is still listed for a while, and fails when it is opened: at first as
/// gone, then with any error. So does Linux' when a device leaves.
struct Lingering {
    inner: SimBus,
    last: Mutex<Option<Found>>,
    looks: AtomicU32,
}

impl Bus for Lingering {
    fn list(&self) -> Result<Vec<Found>, BusError> {
        let mut there = self.inner.list()?;
        let mut last = self.last.lock().unwrap();
        match (there.first(), last.clone()) {
            (Some(found), _) => *last = Some(found.clone()),
            (None, Some(gone)) if self.looks.load(Ordering::SeqCst) < 6 => there.push(gone),
            _ => {}
        }
        Ok(there)
    }

    fn open(&self, found: &Found) -> Result<Box<dyn Transport>, TransferError> {
        if self.inner.list().unwrap().contains(found) {
            self.looks.store(0, Ordering::SeqCst);
            return self.inner.open(found);
        }
        match self.looks.fetch_add(1, Ordering::SeqCst) {
            0 => Err(TransferError::Disconnected),
            _ => Err(TransferError::Other { code: -1 }),
        }
    }

    fn wait(&self, limit: Duration) {
        self.inner.wait(limit.min(Duration::from_millis(5)));
    }
}

#[test]
fn a_device_that_lingers_on_the_bus_is_not_taken_for_one_that_came_back() {
    let world = World::new("healthy");
    let bus = Lingering { inner: world.bus.clone(), last: Mutex::new(None), looks: AtomicU32::new(0) };
    let report = run(Arc::new(bus), world.clock.clone(), flash_job(&firmware("2026.08", SEED_LEN))).report;
    assert_eq!((report.booted(), report.outcome), (Some(true), Outcome::Flashed));
}

/// A bus on which no device opens.
fn locked(bus: &SimBus) -> impl Bus + use<> {
    Bent { bus: bus.clone(), open: |_: &SimBus, _: &Found| Err(TransferError::Access) }
}

#[test]
fn a_panic_of_the_worker_is_a_failed_job_and_the_worker_lives() {
    let world = World::new("dfu");
    let worker = Worker::spawn(
        Arc::new(Bent { bus: world.bus.clone(), open: |_: &SimBus, _: &Found| panic!("a defect") }),
        world.clock.clone(),
    );
    for _ in 0..2 {
        worker.commands.send(Command::Run(Box::new(flash_job(&firmware("2026.08", SEED_LEN))))).unwrap();
        let report = loop {
            if let Event::Finished(report) = worker.events.recv_timeout(Duration::from_secs(20)).unwrap() {
                break report;
            }
        };
        let Outcome::Failed(failure) = report.outcome else { panic!("{:?}", report.outcome) };
        assert_eq!(failure.kind, FailureKind::WorkerDied("a defect".to_owned()));
    }
}

#[test]
fn a_drone_that_may_not_be_opened_is_told_so_also_when_it_is_named_by_serial() {
    let world = World::new("dfu");
    for serial in ["338133873034", "51004F000551343036333233"] {
        let device = Selector::Serial(serial.to_owned());
        let job = Job { device, ..flash_job(&firmware("2026.08", SEED_LEN)) };
        let report = run(Arc::new(locked(&world.bus)), world.clock.clone(), job).report;
        let Outcome::Failed(failure) = report.outcome else { panic!("{:?}", report.outcome) };
        assert_eq!(failure.kind, FailureKind::NoAccess(ROM_DFU));
    }
}

/// Only a drone that was put into DFU mode by hand may need its power cut afterwards.
#[test]
fn every_job_knows_how_dfu_mode_was_entered() {
    let image = firmware("2026.08", 4096);
    let segments = admission::compare(&parse(&image), Overrides::default()).unwrap();
    for task in
        [Task::Verify(segments), Task::Backup(Span::new(LOADER_BASE, 4096).unwrap()), flash_job(&image).task]
    {
        for (scenario, by_hand) in [("healthy", false), ("dfu", true)] {
            let job = Job { task: task.clone(), ..flash_job(&image) };
            let report = World::new(scenario).run(job).report;
            assert_eq!(report.by_hand, by_hand, "{scenario}: {report:?}");
        }
    }
}

/// Reading a name opens the device: not again and again, and not one that is being flashed.
#[test]
fn whoever_looks_at_the_bus_again_and_again_opens_each_device_once() {
    let opened = Arc::new(AtomicU32::new(0));
    for (scenario, drones) in [("two", 2), ("relatives", 0), ("px4", 0), ("clone", 0), ("other-chip", 1)] {
        let world = World::new(scenario);
        let bus = Counting(world.bus.clone(), Arc::clone(&opened));
        let mut known = scan::ScanCache::default();
        opened.store(0, Ordering::SeqCst);
        let first = known.look(&bus).unwrap();
        assert_eq!(first.0, scan::devices(&world.bus).unwrap(), "{scenario}");
        assert_eq!((first.0.len(), &first.1), (drones, &scan::others(&world.bus).unwrap()), "{scenario}");
        let once = opened.load(Ordering::SeqCst);
        assert_eq!(known.look(&bus).unwrap(), first);
        assert_eq!(opened.load(Ordering::SeqCst), once, "{scenario}: opened again");
        world.bus.with(0, |drone, now| drone.cut_power(now));
        let (left, _) = known.look(&bus).unwrap();
        assert_eq!(left, scan::devices(&world.bus).unwrap(), "{scenario}");
    }
    // One that may not be opened yet is tried again.
    let world = World::new("dfu");
    let mut known = scan::ScanCache::default();
    let locked = locked(&world.bus);
    assert_eq!(known.look(&locked).unwrap().0[0].closed, Some(TransferError::Access));
    assert_eq!(known.look(&world.bus).unwrap().0[0].closed, None);
}

/// A bus that counts how often a device is opened.
struct Counting(SimBus, Arc<AtomicU32>);

impl Bus for Counting {
    fn list(&self) -> Result<Vec<Found>, BusError> {
        self.0.list()
    }

    fn open(&self, found: &Found) -> Result<Box<dyn Transport>, TransferError> {
        self.1.fetch_add(1, Ordering::SeqCst);
        self.0.open(found)
    }

    fn wait(&self, limit: Duration) {
        self.0.wait(limit);
    }
}

/// With a time to wait, one that may not be opened is told soon, and not when the time is over.
#[test]
fn no_right_is_told_long_before_the_wait_is_over() {
    let world = World::new("dfu");
    let device = Selector::Serial("338133873034".to_owned());
    let job = Job { device, wait: Duration::from_secs(60), ..flash_job(&firmware("2026.08", 4096)) };
    let bus = locked(&world.bus);
    let report = run(Arc::new(bus), world.clock.clone(), job).report;
    assert!(report.took < Duration::from_secs(10), "{report:?}");
}
