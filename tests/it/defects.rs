//! What attacks on the release binary have found, where it can be seen on the simulated bus: each test names its defect
//! as the list of that attack has it (H high, M medium, L low). What needs a kernel's USB stack is in `tests/vm`.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use cfdfu::clock::{Clock, FastClock};
use cfdfu::flash::{FIRMWARE_BASE, FLASH_END, LOADER_BASE, Segment, Span};
use cfdfu::image::Loader;
use cfdfu::job::{
    Command, Compare, DroneState, Enter, Event, FailureKind, FlashTask, Job, Keep, Leave, LogEntry, Mismatch,
    Outcome, Phase, Preview, Selector, Task,
};
use cfdfu::plan::admission::{self, Overrides};
use cfdfu::plan::undo::{Change, History};
use cfdfu::report;
use cfdfu::scan;
use cfdfu::sim::drone::SimDrone;
use cfdfu::sim::scenario::Scenario;
use cfdfu::sim::{SimBus, images, nor};
use cfdfu::supervise::Headway;
use cfdfu::usb::descriptor::Strings;
use cfdfu::usb::{Bus, BusError, CRAZYFLIE, Found, Location, ROM_DFU, Setup, TransferError, Transport};
use cfdfu::worker::Worker;

use crate::bent::{Ask, Bent, BentTransport};
use crate::support::{Run, SEED_LEN, World, firmware, flash_job, job, outcome, restore_job, run, with};

fn changed(scenario: &str, change: impl FnOnce(&mut SimDrone)) -> World {
    let world = World::new(scenario);
    world.bus.with(0, |drone, _| change(drone));
    world
}

fn failure(run: &Run) -> &FailureKind {
    let Outcome::Failed(failure) = &run.report.outcome else { panic!("{:?}", run.report.outcome) };
    &failure.kind
}

fn ready(run: &Run) -> &Preview {
    let preview = run.events.iter().find_map(|event| match event {
        Event::Ready(preview) => Some(&**preview),
        _ => None,
    });
    preview.expect("it came to a plan")
}

fn new_image() -> Vec<u8> {
    firmware("2026.08", SEED_LEN)
}

fn insist(job: Job) -> Job {
    with(job, |task| task.mismatch = Mismatch::Take)
}

// ---- H4: another board with this chip

/// What is on it would be lost, for a firmware that cannot even start there. Not by a flash, nor by a restore.
#[test]
fn h4_another_maker_s_board_is_not_overwritten() {
    let loader = images::loader();
    for make in [|_: &[u8]| flash_job(&new_image()), |loader: &[u8]| restore_job(loader, Some(&new_image()))]
    {
        let world = World::new("foreign");
        let before = world.flash();
        let run = world.run(make(&loader));
        assert!(
            matches!(failure(&run), FailureKind::NotACrazyflie { loader: Loader::Other }),
            "{:?}",
            failure(&run)
        );
        assert!(world.flash() == before);
        assert_eq!(world.run(insist(make(&loader))).report.outcome, Outcome::Flashed);
    }
}

/// With a blank OTP any one of these says that it is a Crazyflie.
#[test]
fn h4_a_crazyflie_without_a_board_in_its_chip_is_known_by_what_is_on_it() {
    let blank = |drone: &mut SimDrone| drone.memory.otp = [0xFF; 528];
    let erase = |drone: &mut SimDrone, from: usize, to: usize| {
        drone.memory.flash.place(nor::START + from as u32, &vec![0xFF; to - from]);
    };
    let flashes = |world: &World, job: Job| world.run(job).report.outcome == Outcome::Flashed;
    // Its bootloader alone; a firmware where the bootloader belongs; its firmware alone.
    assert!(flashes(&changed("erased", blank), flash_job(&new_image())));
    assert!(flashes(&changed("overwritten", blank), flash_job(&new_image())));
    let firmware_alone = |drone: &mut SimDrone| {
        blank(drone);
        erase(drone, 0, 0x4000);
    };
    assert!(flashes(&changed("dfu", firmware_alone), flash_job(&new_image())));
    // It was seen running.
    assert!(flashes(&changed("healthy", blank), flash_job(&new_image())));
    // Nothing at all: a firmware alone would not start, the bootloader may go where nothing is.
    let nothing = |drone: &mut SimDrone| {
        blank(drone);
        erase(drone, 0, nor::LEN);
    };
    let world = changed("dfu", nothing);
    let run = world.run(flash_job(&new_image()));
    assert!(matches!(failure(&run), FailureKind::NotACrazyflie { loader: Loader::Erased }));
    assert!(world.flash().iter().all(|&byte| byte == 0xFF));
    assert!(flashes(&world, restore_job(&images::loader(), Some(&new_image()))));
}

/// A copy goes back to where it was, and a try that was lost is carried on, whatever is there by now.
#[test]
fn h4_what_was_allowed_once_is_not_asked_about_again() {
    let copy = Segment { address: LOADER_BASE, data: images::foreign(40_000) };
    let wish = Overrides { allow_mismatch: true, ..Overrides::default() };
    let undo = job(admission::undo(copy, wish).unwrap());
    let undo = with(undo, |task: &mut FlashTask| task.change = Change::Undo);
    assert_eq!(World::new("foreign").run(undo).report.outcome, Outcome::Flashed);
    let resumed = with(flash_job(&new_image()), |task| task.left = DroneState::WithoutFirmware);
    assert_eq!(World::new("foreign").run(resumed).report.outcome, Outcome::Flashed);
}

// ---- H2: an undo of what is not there any more

/// Flashed here, then over radio: the copy is from before both, and does not go over the second without a word.
#[test]
fn an_undo_does_not_overwrite_what_another_program_wrote() {
    let world = World::new("dfu");
    let old = world.flash();
    let kept = |task: &mut FlashTask| (task.keep, task.leave) = (Keep::Copy, Leave::Stay);
    let flashed = world.run(with(flash_job(&new_image()), kept));
    let preview = ready(&flashed);
    let history =
        History::default().begin(preview.plan.pieces(), preview.before.as_ref(), Change::Flash).end();
    let undo = || {
        let copy = history.target().unwrap().clone();
        with(job(admission::undo(copy, Overrides::default()).unwrap()), |task| {
            kept(task);
            (task.change, task.expected) = (Change::Undo, history.expected().to_vec());
        })
    };
    let radio = firmware("2025.12", SEED_LEN);
    let other = || world.bus.with(0, |drone, _| drone.memory.flash.place(FIRMWARE_BASE.0, &radio));
    other();
    let before = world.flash();
    assert_eq!(failure(&world.run(undo())), &FailureKind::ChangedSince);
    assert!(world.flash() == before);
    // Whoever insists, or answers the question, gets it.
    let asked = world.run(with(undo(), |task| task.mismatch = Mismatch::Ask));
    assert!(ready(&asked).changed_since);
    assert!(world.flash() == old);
    other();
    assert_eq!(world.run(insist(undo())).report.outcome, Outcome::Flashed);
    assert!(world.flash() == old);
}

// ---- M1, M2: another program holds the boot ROM, or this user may not open it

/// A flash on a bus on which devices in DFU mode cannot be opened (Access) or taken (Busy) until this time.
fn held(scenario: &str, until: Duration, error: TransferError) -> (World, Run) {
    let world = World::new(scenario);
    let clock = world.clock.clone();
    let open = move |bus: &SimBus, found: &Found| -> Result<Box<dyn Transport>, TransferError> {
        let inner = bus.open(found)?;
        if found.id == ROM_DFU && error == TransferError::Access && clock.now() < until {
            return Err(error);
        }
        let (rom, clock) = (found.id == ROM_DFU, clock.clone());
        let bend = move |ask: Ask<'_>| {
            let is_held = rom && error == TransferError::Busy && clock.now() < until;
            (is_held && matches!(ask, Ask::Select(_))).then_some(Err(error))
        };
        Ok(Box::new(BentTransport { inner, bend }))
    };
    let bus = Bent { bus: world.bus.clone(), open };
    let run = run(Arc::new(bus), world.clock.clone(), flash_job(&new_image()));
    (world, run)
}

/// For a moment: it is waited for. For good: the drone stays in DFU mode, and the outcome says so and what helps.
#[test]
fn m1_a_drone_that_cannot_be_opened_in_dfu_mode_is_not_left_there_without_a_word() {
    for error in [TransferError::Busy, TransferError::Access] {
        for scenario in ["healthy", "dfu"] {
            let (_, run) = held(scenario, Duration::from_secs(2), error);
            assert_eq!(run.report.outcome, Outcome::Flashed, "{scenario} {error:?}");
            let (world, run) = held(scenario, Duration::MAX, error);
            let Outcome::Failed(failure) = &run.report.outcome else { panic!("{:?}", run.report.outcome) };
            let left = if scenario == "healthy" { DroneState::Stopped } else { DroneState::Untouched };
            assert_eq!(failure.drone, left, "{scenario} {error:?}: {failure}");
            let advice = report::failed(failure).advice;
            assert_eq!(
                advice.to_string().contains("Unplug USB and battery, and it runs again"),
                scenario == "healthy",
                "{advice}"
            );
            assert!(world.bus.list().unwrap().iter().all(|found| found.id == ROM_DFU));
        }
    }
}

/// Who may not open the boot ROM is told before the drone is asked to go there.
#[test]
fn m1_a_drone_is_not_asked_into_a_boot_rom_that_may_not_be_opened() {
    let world = World::new("healthy");
    let run = world.run(Job { enter: Enter::NotAllowed, ..flash_job(&new_image()) });
    assert!(matches!(failure(&run), FailureKind::NoAccess(ROM_DFU)));
    assert!(world.bus.list().unwrap().iter().all(|found| found.id == CRAZYFLIE));
}

// ---- M9: a signal while a flash is carried on

#[test]
fn m9_a_flash_that_is_carried_on_is_not_stopped_by_a_hang_up() {
    let world = World::new("dfu");
    let resumed = with(flash_job(&new_image()), |task| task.left = DroneState::WithoutFirmware);
    let worker = Worker::spawn(Arc::new(world.bus.clone()), world.clock.clone());
    worker.commands.send(Command::Run(Box::new(resumed))).unwrap();
    let report = loop {
        match worker.events.recv().unwrap() {
            Event::Finished(report) => break report,
            // While it compares: nothing is written in this session yet.
            Event::Progress { phase: Phase::Compare, .. } => {
                worker.commands.send(Command::CancelIfUntouched).unwrap();
            }
            _ => {}
        }
    };
    assert_eq!(report.outcome, Outcome::Flashed);
}

// ---- M7: a cable that loses the drone again and again

#[test]
fn m7_a_flash_that_gets_no_further_is_given_up() {
    let mut headway = Headway::default();
    let stuck: Vec<bool> =
        [900, 500, 500, 400, 400, 400, 400].map(|left| headway.is_stuck(Some(left))).into();
    assert_eq!(stuck, [false, false, false, false, false, false, true]);
    // What was written is compared, not written again, whatever was asked for at first.
    let full = with(flash_job(&new_image()), |task| task.compare = Compare::Skip);
    let Task::Flash(task) = full.task else { panic!() };
    assert_eq!(task.resumed(DroneState::WithoutFirmware).compare, Compare::First);
}

// ---- M14: the process is stopped in mid-flash

/// A clock that jumps while a transfer is under way, as it does over Ctrl-Z and `fg`.
struct Jumping {
    time: FastClock,
    at: Duration,
    by: Duration,
}

impl Clock for Jumping {
    fn now(&self) -> Duration {
        let now = self.time.now();
        if now < self.at { now } else { now + self.by }
    }

    fn sleep(&self, time: Duration) {
        self.time.sleep(time);
    }
}

#[test]
fn m14_a_process_that_was_stopped_for_minutes_carries_on() {
    for millis in [100, 300, 600, 1500, 2500, 3500] {
        let by = Duration::from_secs(300);
        let clock = Arc::new(Jumping { time: FastClock::new(), at: Duration::from_millis(millis), by });
        let bus = SimBus::new(Scenario::by_name("dfu").unwrap().drones(Duration::ZERO), clock.clone());
        let run = run(Arc::new(bus), clock, flash_job(&new_image()));
        assert_eq!(run.report.outcome, Outcome::Flashed, "at {millis} ms");
    }
}

// ---- M8: what a killed session had sent and not started

/// An erase of the firmware's first sector waits for the GETSTATUS that starts it; nothing that only looks may send that.
#[test]
fn m8_a_look_does_not_carry_out_what_a_killed_session_left() {
    let erase = [0x41, 0x00, 0x40, 0x00, 0x08];
    let jobs: [fn() -> Task; 3] = [
        || Task::Identify,
        || Task::Backup(Span::between(LOADER_BASE, FLASH_END).unwrap()),
        || Task::Verify(vec![Segment { address: FIRMWARE_BASE, data: vec![0xFF; 4] }]),
    ];
    for (n, task) in jobs.into_iter().enumerate() {
        let world = World::new("dfu");
        let before = world.flash();
        let found = world.bus.list().unwrap().remove(0);
        let mut transport = world.bus.open(&found).unwrap();
        // The state is dfuERROR after a start; CLRSTATUS, then the erase, then nothing more.
        let limit = Duration::from_secs(1);
        transport.select(0, 0).unwrap();
        for (request, data) in [(4, &[][..]), (1, &erase[..])] {
            let setup = Setup { request_type: 0x21, request, value: 0, index: 0 };
            transport.control_out(setup, data, limit).unwrap();
        }
        drop(transport);
        let job = Job { enter: Enter::Never, task: task(), ..flash_job(&new_image()) };
        let run = world.run(job);
        let differs = matches!(&run.report.outcome, Outcome::Failed(it) if matches!(it.kind, FailureKind::Differs { .. }));
        assert!(differs == (n == 2), "{:?}", run.report.outcome);
        assert!(world.flash() == before, "job {n}");
        // Written to, it is flashed like any other.
        assert_eq!(world.run(flash_job(&new_image())).report.outcome, Outcome::Flashed);
    }
}

// ---- M3: a foreign 0483:5740 that this user may not open

/// A bus with a board of ST's in front of the drones: it cannot be opened, and what it is called only the system may know.
struct Beside {
    bus: SimBus,
    names: Option<Strings>,
}

impl Bus for Beside {
    fn list(&self) -> Result<Vec<Found>, BusError> {
        let location: Location = "2-1".parse().unwrap();
        let names = self.names.clone();
        let board = Found { id: CRAZYFLIE, release: 0x0200, location, address: 9, names, simulated: true };
        Ok([vec![board], self.bus.list()?].concat())
    }

    fn open(&self, found: &Found) -> Result<Box<dyn Transport>, TransferError> {
        if found.location.bus == 2 {
            assert!(self.names.is_none(), "a board that is known to be another was opened");
            return Err(TransferError::Access);
        }
        self.bus.open(found)
    }

    fn wait(&self, limit: Duration) {
        self.bus.wait(limit);
    }
}

#[test]
fn m3_a_foreign_board_that_may_not_be_opened_is_in_nobody_s_way() {
    let names = |manufacturer: &str, product: &str| {
        Some(Strings { manufacturer: manufacturer.into(), product: product.into(), serial: "7".into() })
    };
    for names in
        [None, names("Betaflight", "Betaflight STM32F405"), names("Flipper Devices Inc.", "Flipper Zero")]
    {
        for scenario in ["healthy", "dfu"] {
            let world = World::new(scenario);
            let bus = Arc::new(Beside { bus: world.bus.clone(), names: names.clone() });
            assert_eq!(scan::devices(&bus).unwrap().len(), 1 + usize::from(names.is_none()));
            let run = run(bus, world.clock.clone(), flash_job(&new_image()));
            assert_eq!(run.report.outcome, Outcome::Flashed, "{scenario} {names:?}");
        }
        // The drone comes later: waited for to the end, by its number, too.
        for device in [Selector::Only, Selector::Serial("51004F000551343036333233".to_owned())] {
            let comes = Duration::from_secs(10);
            let (clock, bus) = crate::cuts::PowerCut::at(comes, "healthy", SimDrone::plug_or_unplug);
            bus.with(0, |drone, now| drone.plug_or_unplug(now));
            let bus = Arc::new(Beside { bus, names: names.clone() });
            let job = Job { device, wait: Duration::from_secs(30), ..flash_job(&new_image()) };
            let outcome = run(bus, clock, job).report.outcome;
            assert_eq!(outcome, Outcome::Flashed, "{names:?}");
        }
    }
    // Alone, it is not taken for a Crazyflie whose rules are missing, unless it may be one.
    let world = World::new("none");
    let bus = Beside { bus: world.bus, names: names("Betaflight", "STM32F405") };
    assert!(matches!(scan::choose(&bus, &Selector::Only), Err(FailureKind::NoDevice)));
}

// ---- M12, L7: a device that makes everything slow

/// Hundreds of memories whose names never come: it ends by itself, and a cancel is heard in between.
#[test]
fn m12_names_that_never_come_do_not_hold_the_job() {
    let world = World::new("dfu");
    let clock = world.clock.clone();
    let open = move |bus: &SimBus, found: &Found| -> Result<Box<dyn Transport>, TransferError> {
        let clock = clock.clone();
        let bend = move |ask: Ask<'_>| match ask {
            Ask::In(Setup { value: 0x0200, .. }, _) => {
                let settings = (0..250u8).flat_map(|n| [9, 4, 0, n, 0, 0xFE, 1, 2, 4]);
                let [low, high] = u16::to_le_bytes(9 + 250 * 9 + 9);
                let mut bytes = vec![9, 2, low, high, 1, 1, 0, 0xC0, 50];
                bytes.extend(settings);
                bytes.extend([9, 0x21, 0x0B, 0xFF, 0, 0, 8, 0x1A, 1]);
                Some(Ok(bytes))
            }
            Ask::In(Setup { value: 0x0100, .. }, _) => {
                Some(Ok(vec![18, 1, 0, 1, 0, 0, 0, 64, 0x83, 4, 0x11, 0xDF, 0, 0x22, 0, 0, 0, 1]))
            }
            Ask::In(_, limit) => {
                clock.sleep(limit);
                Some(Err(TransferError::Timeout))
            }
            Ask::Out(..) | Ask::Select(_) => Some(Ok(Vec::new())),
            Ask::BulkIn | Ask::BulkOut => None,
        };
        Ok(Box::new(BentTransport { inner: bus.open(found)?, bend }))
    };
    let bus = Bent { bus: world.bus.clone(), open };
    let run = run(Arc::new(bus), world.clock.clone(), flash_job(&new_image()));
    assert!(matches!(run.report.outcome, Outcome::Failed(_)));
    assert!(world.clock.now() < Duration::from_secs(15), "{:?}", world.clock.now());
}

// ---- L1: an image that ends on an odd byte

/// A boot ROM need not give a single byte (AN3156 §4).
#[test]
fn l1_an_image_of_one_byte_more_than_blocks_is_verified() {
    for odd in [1, 2, 3, 5] {
        let image = firmware("2026.08", 60 * 2048 + odd);
        let world = World::new("dfu");
        let flash = with(flash_job(&image), |task| task.leave = Leave::Stay);
        assert_eq!(world.run(flash).report.outcome, Outcome::Flashed);
        let verify = Task::Verify(vec![Segment { address: FIRMWARE_BASE, data: image.clone() }]);
        let run = world.run(Job { enter: Enter::Never, task: verify, ..flash_job(&image) });
        assert_eq!(run.report.outcome, Outcome::Unchanged, "{odd}");
        // The last byte is compared all the same.
        let mut other = image;
        *other.last_mut().unwrap() ^= 1;
        let verify = Task::Verify(vec![Segment { address: FIRMWARE_BASE, data: other.clone() }]);
        let run = world.run(Job { enter: Enter::Never, task: verify, ..flash_job(&other) });
        assert!(matches!(failure(&run), FailureKind::Differs { .. }), "{odd}");
    }
}

// ---- S1: a device that describes a sector of nearly a gigabyte

/// It is not read into memory for a copy, and that there is none is said.
#[test]
fn s1_a_huge_sector_is_not_copied() {
    let world = World::new("dfu");
    let uploads = Arc::new(AtomicU32::new(0));
    let counter = Arc::clone(&uploads);
    let open = move |bus: &SimBus, found: &Found| -> Result<Box<dyn Transport>, TransferError> {
        let counter = Arc::clone(&counter);
        let bend = move |ask: Ask<'_>| match ask {
            Ask::In(Setup { request_type: 0x80, request: 6, value: 0x0304, .. }, _) => {
                let text = "@Internal Flash  /0x08000000/01*016Kg,01*999Mg";
                let units: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
                Some(Ok([&[units.len() as u8 + 2, 3][..], &units].concat()))
            }
            Ask::In(Setup { request_type: 0xA1, request: 2, .. }, _) => {
                counter.fetch_add(1, Ordering::Relaxed);
                None
            }
            _ => None,
        };
        Ok(Box::new(BentTransport { inner: bus.open(found)?, bend }))
    };
    let bus = Bent { bus: world.bus.clone(), open };
    let job = with(insist(flash_job(&new_image())), |task| task.keep = Keep::Copy);
    let run = run(Arc::new(bus), world.clock.clone(), job);
    let said = |event: &Event| matches!(event, Event::Log(_, LogEntry::NoCopyOfHugeSectors));
    assert!(run.events.iter().any(said), "{:?}", run.report);
    assert!(uploads.load(Ordering::Relaxed) < 1024, "{uploads:?} blocks were read");
}

// ---- L7: a device that is busy for hours

/// A boot ROM that says that it is busy, for hours, whenever it is asked; `asked` hears of it.
fn busy(bus: SimBus, asked: impl Fn() + Send + Sync + 'static) -> impl Bus {
    let asked = Arc::new(asked);
    let open = move |bus: &SimBus, found: &Found| -> Result<Box<dyn Transport>, TransferError> {
        let asked = Arc::clone(&asked);
        let bend = move |ask: Ask<'_>| {
            let Ask::In(Setup { request_type: 0xA1, request, .. }, _) = ask else { return None };
            let answer = match request {
                3 => vec![0, 0xFF, 0xFF, 0xFF, 4, 0],
                5 => vec![4],
                _ => return None,
            };
            asked();
            Some(Ok(answer))
        };
        Ok(Box::new(BentTransport { inner: bus.open(found)?, bend }))
    };
    Bent { bus, open }
}

/// What becomes of a flash that is cancelled when its bus, made by `bus`, calls what it is given; and when it has ended.
fn cancelled_from<B: Bus + 'static>(
    world: &World,
    bus: impl FnOnce(Box<dyn Fn() + Send + Sync>) -> B,
) -> Outcome {
    let says = Arc::new(OnceLock::<Mutex<Sender<Command>>>::new());
    let voice = Arc::clone(&says);
    let cancel = move || drop(voice.get().unwrap().lock().unwrap().send(Command::Cancel));
    let worker = Worker::spawn(Arc::new(bus(Box::new(cancel))), world.clock.clone());
    assert!(says.set(Mutex::new(worker.commands.clone())).is_ok());
    worker.commands.send(Command::Run(Box::new(flash_job(&new_image())))).unwrap();
    outcome(&worker).expect("the job ends")
}

/// Devices that say who they are and no more: neither one nor several of them hold a cancel, whenever it comes.
#[test]
fn l7_a_cancel_is_heard_while_names_do_not_come() {
    const GET_DESCRIPTOR: u8 = 6;
    for scenario in ["dfu", "healthy", "two"] {
        for silent_from in [0x0100, 0x0300] {
            for first in [0, 1, 4, 5, 9, 13] {
                let world = World::new(scenario);
                let (clock, asked) = (world.clock.clone(), Arc::new(OnceLock::new()));
                let cancelled = Arc::clone(&asked);
                let outcome = cancelled_from(&world, |cancel| {
                    let (cancel, count) = (Arc::new(cancel), Arc::new(AtomicU32::new(0)));
                    let open = move |bus: &SimBus,
                                     found: &Found|
                          -> Result<Box<dyn Transport>, TransferError> {
                        let (clock, asked, cancel) = (clock.clone(), Arc::clone(&asked), Arc::clone(&cancel));
                        let count = Arc::clone(&count);
                        let bend = move |ask: Ask<'_>| match ask {
                            Ask::In(
                                Setup { request_type: 0x80, request: GET_DESCRIPTOR, value, .. },
                                limit,
                            ) if value >= silent_from => {
                                if count.fetch_add(1, Ordering::Relaxed) == first {
                                    asked.set(clock.now()).unwrap();
                                    cancel();
                                }
                                clock.sleep(limit);
                                Some(Err(TransferError::Timeout))
                            }
                            _ => None,
                        };
                        Ok(Box::new(BentTransport { inner: bus.open(found)?, bend }))
                    };
                    Bent { bus: world.bus.clone(), open }
                });
                // The job may have ended before, in its own way.
                let Some(cancelled) = cancelled.get() else { continue };
                assert_eq!(
                    outcome,
                    Outcome::Cancelled(DroneState::Untouched),
                    "{scenario} {silent_from:x} {first}"
                );
                let took = world.clock.now() - *cancelled;
                assert!(took < Duration::from_secs(2), "{scenario} {silent_from:x} {first}: {took:?}");
            }
        }
    }
}

/// It ends by itself within 15 s, and a cancel is heard within 2 s.
#[test]
fn l7_a_cancel_is_heard_while_a_device_says_that_it_is_busy() {
    let world = World::new("dfu");
    let alone = run(Arc::new(busy(world.bus.clone(), || {})), world.clock.clone(), flash_job(&new_image()));
    assert!(matches!(alone.report.outcome, Outcome::Failed(_)));
    assert!(world.clock.now() < Duration::from_secs(15), "{:?}", world.clock.now());

    let world = World::new("dfu");
    let outcome = cancelled_from(&world, |cancel| busy(world.bus.clone(), cancel));
    assert_eq!(outcome, Outcome::Cancelled(DroneState::Untouched));
    assert!(world.clock.now() < Duration::from_secs(2), "{:?}", world.clock.now());
}

// ---- H3: a restore that is interrupted, and undone

/// Cut at any moment, done again to its end, and undone: what comes back is what was there before the first try.
#[test]
fn h3_a_restore_that_was_cut_is_undone_to_what_was_there_before_it() {
    const LEN: usize = 50 * 1024;
    let (image, loader) = (firmware("2026.08", LEN), images::loader());
    let restore = || {
        with(restore_job(&loader, Some(&image)), |task| {
            task.leave = Leave::Stay;
            task.keep = Keep::Copy;
        })
    };
    // With another bootloader, so that all of it is written.
    let other_loader = |drone: &mut SimDrone| drone.memory.flash.place(nor::START + 0x1000, &[0x55; 64]);
    let begin = |history: &History, run: &Run, change: Change| {
        let preview = run.events.iter().find_map(|event| match event {
            Event::Ready(preview) => Some(preview),
            _ => None,
        });
        let preview = preview.filter(|preview| !preview.work.is_nothing());
        preview.map(|preview| history.begin(preview.plan.pieces(), preview.before.as_ref(), change))
    };
    let whole_job = changed("dfu", other_loader).run(restore()).report.took;
    let before = changed("dfu", other_loader).flash();
    for moment in (0..60).map(|n| whole_job * n / 60) {
        let (clock, bus) = crate::cuts::PowerCut::at(moment, "dfu", SimDrone::cut_power);
        bus.with(0, |drone, _| other_loader(drone));
        let flash = || bus.with(0, |drone, _| drone.memory.flash.bytes().to_vec()).unwrap();
        let mut history = History::default();
        let first = run(Arc::new(bus.clone()), clock.clone(), restore());
        history = begin(&history, &first, Change::Flash).unwrap_or(history);
        bus.with(0, |drone, now| {
            drone.cut_power(now);
            drone.power_on_by_hand(now);
        });
        let second = run(Arc::new(bus.clone()), clock.clone(), restore());
        let again = begin(&history, &second, Change::Flash);
        assert!(matches!(second.report.outcome, Outcome::Flashed | Outcome::Unchanged), "at {moment:?}");
        history = again.unwrap_or(history).end();
        let copy = history.target().unwrap_or_else(|why| panic!("at {moment:?}: {why}")).clone();
        let undo =
            job(admission::undo(copy, Overrides { allow_mismatch: true, ..Overrides::default() }).unwrap());
        let undo = with(undo, |task| {
            task.leave = Leave::Stay;
            task.change = Change::Undo;
        });
        assert_eq!(run(Arc::new(bus.clone()), clock, undo).report.outcome, Outcome::Flashed, "at {moment:?}");
        assert!(flash() == before, "at {moment:?}: something else came back");
    }
}

/// A bus that tells when nothing is on it.
struct Watched<F>(SimBus, F);

impl<F: Fn() + Send + Sync> Bus for Watched<F> {
    fn list(&self) -> Result<Vec<Found>, BusError> {
        let list = self.0.list()?;
        if list.is_empty() {
            (self.1)();
        }
        Ok(list)
    }

    fn open(&self, found: &Found) -> Result<Box<dyn Transport>, TransferError> {
        self.0.open(found)
    }

    fn wait(&self, limit: Duration) {
        self.0.wait(limit);
    }
}

/// A cancel while the drone is on its way into DFU mode: that it does not run any more is said.
#[test]
fn m1_a_drone_that_was_sent_on_its_way_is_not_called_untouched() {
    let world = World::new("late");
    let says = Arc::new(OnceLock::<Mutex<Sender<Command>>>::new());
    let voice = Arc::clone(&says);
    let cancel = move || drop(voice.get().unwrap().lock().unwrap().send(Command::Cancel));
    let worker = Worker::spawn(Arc::new(Watched(world.bus.clone(), cancel)), world.clock.clone());
    assert!(says.set(Mutex::new(worker.commands.clone())).is_ok());
    let wait = Duration::from_secs(60);
    worker.commands.send(Command::Run(Box::new(Job { wait, ..flash_job(&new_image()) }))).unwrap();
    assert_eq!(outcome(&worker), Some(Outcome::Cancelled(DroneState::Stopped)));
}
