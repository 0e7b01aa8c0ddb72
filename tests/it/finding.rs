//! Tests how a job selects its device, switches the device to DFU mode and back, and handles devices that cannot be
//! opened.

use std::collections::HashSet;
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

use crate::bent::InterceptedUsb;
use crate::support::{SEED_LEN, World, firmware, flash_job, parse, run};

#[test]
fn a_job_that_must_not_enter_dfu_mode_does_not_touch_a_running_crazyflie() {
    let world = World::new("healthy");
    let before = world.bus.with(0, |drone, _| drone.enumeration());
    let job = Job { enter: Enter::Never, ..flash_job(&firmware("2026.08", SEED_LEN)) };
    let report = world.run(job).report;
    assert!(matches!(report.outcome, Outcome::Failed(failure) if failure.kind == FailureKind::NotInDfu));
    assert_eq!(world.bus.with(0, |drone, _| drone.enumeration()), before);
}

#[test]
fn one_of_two_drones_is_selected_by_either_form_of_its_serial_number_or_by_its_port() {
    for (name, n) in [("338133873034", 0), ("51004F000551343036333233", 0), ("338133883034", 1), ("1-2", 1)] {
        let world = World::new("two");
        let image = firmware("2026.08", SEED_LEN);
        let selector: Selector = name.parse().unwrap();
        let job = Job { device: selector, ..flash_job(&image) };
        assert_eq!(world.run(job).report.outcome, Outcome::Flashed, "{name}");
        let has_image = |n: usize| {
            world
                .bus
                .with(n, |drone, _| drone.memory.flash.bytes()[0x4000..0x4000 + SEED_LEN] == image)
                .unwrap()
        };
        assert_eq!((has_image(n), has_image(1 - n)), (true, false), "{name}");
    }
}

/// A bus that plugs in the drone, with its button held, during the third wait.
struct LatePlugIn {
    inner: SimBus,
    waits: AtomicU32,
}

impl Bus for LatePlugIn {
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
fn a_job_waits_for_a_late_device_until_its_wait_time_is_over() {
    let flash_within = |wait: Duration| {
        let world = World::new("dfu");
        world.bus.with(0, |drone, now| drone.cut_power(now));
        let bus = LatePlugIn { inner: world.bus.clone(), waits: AtomicU32::new(0) };
        let job = Job { wait, ..flash_job(&firmware("2026.08", SEED_LEN)) };
        run(Arc::new(bus), world.clock.clone(), job).report.outcome
    };
    assert_eq!(flash_within(Duration::from_secs(30)), Outcome::Flashed);
    let Outcome::Failed(failure) = flash_within(Duration::from_millis(30)) else {
        panic!("the job did not fail")
    };
    assert_eq!(failure.kind, FailureKind::NoDevice);
}

#[test]
fn a_drone_that_restarts_its_firmware_instead_of_the_rom_is_asked_to_enter_dfu_mode_at_most_eight_times() {
    let image = firmware("2026.08", images::FIRMWARE_MIN);
    let outcome = |missed: u8| {
        let world = World::new("healthy");
        world.bus.with(0, |drone, _| drone.traits.missed_entries = missed);
        let report = world.run(flash_job(&image)).report;
        // A failed attempt ends as soon as the firmware is back, after 1.2 s, not after the 10 s that are allowed for
        // DFU mode.
        assert!(report.took < Duration::from_secs(30), "{missed} missed: {:?}", report.took);
        report.outcome
    };
    for missed in [1, 4, 7] {
        assert_eq!(outcome(missed), Outcome::Flashed, "{missed} missed");
    }
    let Outcome::Failed(failure) = outcome(8) else { panic!("the job did not fail after eight requests") };
    assert!(
        matches!(failure.kind, FailureKind::DidNotEnter { tries: 8, now: Some(Mode::Firmware), .. }),
        "{failure}"
    );
    assert_eq!(failure.drone, DroneState::Untouched);
}

/// The vendor requests that start the boot ROM or switch the link to USB are sent only to a Crazyflie.
#[test]
fn devices_other_than_a_crazyflie_receive_only_descriptor_requests() {
    for scenario in ["relatives", "px4", "clone", "none"] {
        for task in [flash_job(&firmware("2026.08", SEED_LEN)).task, Task::Identify] {
            let world = World::new(scenario);
            let other_requests = Arc::new(AtomicU32::new(0));
            let counter = Arc::clone(&other_requests);
            let listener = Arc::new(move |transfer: &Transfer| {
                let is_descriptor_request =
                    matches!(transfer, Transfer::In(setup, _) if setup.request_type == 0x80);
                counter.fetch_add(u32::from(!is_descriptor_request), Ordering::SeqCst);
            });
            let bus = Arc::new(Traced::new(world.bus.clone(), listener));
            let job = Job::new(task);
            let report = run(bus, world.clock.clone(), job).report;
            let Outcome::Failed(failure) = report.outcome else { panic!("{scenario}") };
            assert_eq!(scenario == "none", failure.kind == FailureKind::NoDevice);
            assert_eq!(other_requests.load(Ordering::SeqCst), 0, "{scenario}");
        }
    }
}

/// A GD32 supports DfuSe, so every write would succeed. cfdfu must refuse a GD32 because of its vendor and product IDs
/// alone.
#[test]
fn a_foreign_boot_rom_is_reported_and_never_opened() {
    let image = firmware("2026.08", SEED_LEN);
    let backup = Task::Backup(Span::new(LOADER_BASE, 4096).unwrap());
    for task in [flash_job(&image).task, Task::Identify, backup] {
        for device in [Selector::Only, "1-1".parse().unwrap()] {
            let world = World::new("clone");
            let before = world.flash();
            let opened = Arc::new(AtomicU32::new(0));
            let bus = Arc::new(OpenCounter(world.bus.clone(), Arc::clone(&opened)));
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
fn identify_queries_a_running_drone_over_usb_and_switches_its_link_back_to_the_radio() {
    let world = World::new("healthy");
    let seen = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&seen);
    let listener = Arc::new(move |transfer: &Transfer| log.lock().unwrap().push(transfer.clone()));
    let bus = Arc::new(Traced::new(world.bus.clone(), listener));
    let identify = Job::new(Task::Identify);
    let identified = run(bus, world.clock.clone(), identify);
    assert_eq!(identified.report.outcome, Outcome::Identified);
    let info = identified.events.iter().find_map(|event| match event {
        Event::Known(info) => Some((**info).clone()),
        _ => None,
    });
    let Some(DeviceInfo::Running(Running { version, board, radio, .. })) = info else { panic!("{info:?}") };
    assert_eq!((version.as_deref(), board.as_deref()), (Some("2025.02"), Some("Crazyflie 2.1")));
    assert_eq!(radio.map(|radio| radio.to_string()).as_deref(), Some("radio://0/80/2M/E7E7E7E751"));
    let seen = seen.lock().unwrap();
    let commands: Vec<u16> = seen
        .iter()
        .filter_map(|transfer| match transfer {
            Transfer::Out(setup, ..) => Some(setup.index),
            _ => None,
        })
        .collect();
    assert_eq!(commands, [1, 0], "to USB, then back to the radio");
    let report = world.run(flash_job(&firmware("2026.08", SEED_LEN))).report;
    assert_eq!(report.runs.as_deref(), Some("2026.08"), "the drone runs the new firmware");
}

/// A bus that keeps listing a disconnected device for a while. As on Linux, opening that device fails, first with a
/// disconnect, then with a different error.
struct LingeringBus {
    inner: SimBus,
    last: Mutex<Option<Found>>,
    failed_opens: AtomicU32,
}

impl Bus for LingeringBus {
    fn list(&self) -> Result<Vec<Found>, BusError> {
        let mut list = self.inner.list()?;
        let mut previous = self.last.lock().unwrap();
        match (list.first(), previous.clone()) {
            (Some(found), _) => *previous = Some(found.clone()),
            (None, Some(gone)) if self.failed_opens.load(Ordering::SeqCst) < 6 => list.push(gone),
            _ => {}
        }
        Ok(list)
    }

    fn open(&self, found: &Found) -> Result<Box<dyn Transport>, TransferError> {
        if self.inner.list().unwrap().contains(found) {
            self.failed_opens.store(0, Ordering::SeqCst);
            return self.inner.open(found);
        }
        match self.failed_opens.fetch_add(1, Ordering::SeqCst) {
            0 => Err(TransferError::Disconnected),
            _ => Err(TransferError::Other { code: -1 }),
        }
    }

    fn wait(&self, limit: Duration) {
        self.inner.wait(limit.min(Duration::from_millis(5)));
    }
}

#[test]
fn a_disconnected_device_that_is_still_listed_is_not_mistaken_for_a_reconnected_one() {
    let world = World::new("healthy");
    let bus =
        LingeringBus { inner: world.bus.clone(), last: Mutex::new(None), failed_opens: AtomicU32::new(0) };
    let report = run(Arc::new(bus), world.clock.clone(), flash_job(&firmware("2026.08", SEED_LEN))).report;
    assert_eq!((report.booted(), report.outcome), (Some(true), Outcome::Flashed));
}

/// A bus on which no device can be opened.
fn locked(bus: &SimBus) -> impl Bus + use<> {
    InterceptedUsb { bus: bus.clone(), open: |_: &SimBus, _: &Found| Err(TransferError::Access) }
}

#[test]
fn a_panic_in_a_job_fails_that_job_and_the_worker_runs_the_next() {
    let world = World::new("dfu");
    let worker = Worker::spawn(
        Arc::new(InterceptedUsb { bus: world.bus.clone(), open: |_: &SimBus, _: &Found| panic!("a defect") }),
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
fn missing_access_is_reported_even_if_the_drone_is_selected_by_serial_number() {
    let world = World::new("dfu");
    for serial in ["338133873034", "51004F000551343036333233"] {
        let device = Selector::Serial(serial.to_owned());
        let job = Job { device, ..flash_job(&firmware("2026.08", SEED_LEN)) };
        let report = run(Arc::new(locked(&world.bus)), world.clock.clone(), job).report;
        let Outcome::Failed(failure) = report.outcome else { panic!("{:?}", report.outcome) };
        assert_eq!(failure.kind, FailureKind::NoAccess(ROM_DFU));
    }
}

/// Only a drone that was put into DFU mode by hand may need to be power-cycled afterwards.
#[test]
fn every_job_reports_whether_dfu_mode_was_entered_by_hand() {
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

/// Reading a name opens the device, and a device that is being flashed must not be opened again.
#[test]
fn repeated_scans_of_the_bus_open_each_device_once() {
    let opened = Arc::new(AtomicU32::new(0));
    for (scenario, drones) in [("two", 2), ("relatives", 0), ("px4", 0), ("clone", 0), ("other-chip", 1)] {
        let world = World::new(scenario);
        let bus = OpenCounter(world.bus.clone(), Arc::clone(&opened));
        let mut cache = scan::ScanCache::default();
        opened.store(0, Ordering::SeqCst);
        let first = cache.refresh(&bus, HashSet::new).unwrap();
        assert_eq!(first.0, scan::list_devices(&world.bus).unwrap(), "{scenario}");
        assert_eq!(
            (first.0.len(), &first.1),
            (drones, &scan::list_related_devices(&world.bus).unwrap()),
            "{scenario}"
        );
        let opens = opened.load(Ordering::SeqCst);
        assert_eq!(cache.refresh(&bus, HashSet::new).unwrap(), first);
        assert_eq!(opened.load(Ordering::SeqCst), opens, "{scenario}: opened again");
        world.bus.with(0, |drone, now| drone.cut_power(now));
        let (remaining, _) = cache.refresh(&bus, HashSet::new).unwrap();
        assert_eq!(remaining, scan::list_devices(&world.bus).unwrap(), "{scenario}");
    }
    // The scan retries a device that could not be opened.
    let world = World::new("dfu");
    let mut cache = scan::ScanCache::default();
    let locked = locked(&world.bus);
    assert_eq!(cache.refresh(&locked, HashSet::new).unwrap().0[0].open_error, Some(TransferError::Access));
    assert_eq!(cache.refresh(&world.bus, HashSet::new).unwrap().0[0].open_error, None);
}

/// A bus that counts how often its devices are opened.
struct OpenCounter(SimBus, Arc<AtomicU32>);

impl Bus for OpenCounter {
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

/// The job may wait for a minute, but waiting does not help if access is missing.
#[test]
fn missing_access_is_reported_long_before_the_wait_is_over() {
    let world = World::new("dfu");
    let device = Selector::Serial("338133873034".to_owned());
    let job = Job { device, wait: Duration::from_secs(60), ..flash_job(&firmware("2026.08", 4096)) };
    let bus = locked(&world.bus);
    let report = run(Arc::new(bus), world.clock.clone(), job).report;
    let kind = match &report.outcome {
        Outcome::Failed(failure) => &failure.kind,
        outcome => panic!("{outcome:?}"),
    };
    assert!(matches!(kind, FailureKind::NoAccess(_)), "{kind:?}");
    assert!(report.took < Duration::from_secs(10), "{report:?}");
}

#[test]
fn blink_returns_the_leds_to_the_firmware_and_the_link_to_the_radio() {
    let world = World::new("healthy");
    let blink = |length| world.run(Job::new(Task::Blink(length))).report;
    assert_eq!(blink(Duration::from_secs(10)).outcome, Outcome::Identified);
    let (leds, times) = world.bus.with(0, |drone, _| drone.led_parameter()).unwrap();
    assert_eq!(leds, 0, "the firmware controls its LEDs again");
    assert!((38..=43).contains(&times), "on and off twice a second for ten seconds: {times}");
    // The link is back on the radio: the drone does not answer packets over USB.
    assert!(world.bus.with(0, |drone, _| drone.packet_out(&[0xDD, 1]).is_none()).unwrap());
    // A job that is cancelled early also returns the LEDs to the firmware.
    let worker = Worker::spawn(Arc::new(world.bus.clone()), world.clock.clone());
    worker.commands.send(Command::Run(Box::new(Job::new(Task::Blink(Duration::from_secs(3600)))))).unwrap();
    worker.commands.send(Command::Cancel).unwrap();
    assert!(matches!(
        crate::support::wait_for_outcome(&worker),
        Some(Outcome::Cancelled(DroneState::Untouched))
    ));
    assert_eq!(world.bus.with(0, |drone, _| drone.led_parameter().0), Some(0));
    // The job fails on a drone in DFU mode, and without a drone.
    let kind = |scenario: &str| {
        let job = Job::new(Task::Blink(Duration::from_secs(1)));
        match World::new(scenario).run(job).report.outcome {
            Outcome::Failed(failure) => failure.kind,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(kind("dfu"), FailureKind::CannotBlink);
    assert_eq!(kind("none"), FailureKind::NoDevice);
}
