//! Regression tests for defects that were found by attacking the release binary and that the simulated bus can
//! reproduce. Test names start with the number of the defect: H means high, M medium and L low severity; S means that
//! the defect was suspected after reading the code. `tests/vm` tests defects that need the USB stack of a kernel.

use std::slice;
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
use cfdfu::plan::undo::{Change, History, Last, NoCopy};
use cfdfu::report;
use cfdfu::scan;
use cfdfu::sim::drone::SimDrone;
use cfdfu::sim::scenario::Scenario;
use cfdfu::sim::{SimBus, images, nor};
use cfdfu::supervise::Headway;
use cfdfu::usb::descriptor::Strings;
use cfdfu::usb::{Bus, BusError, CRAZYFLIE, Found, Location, ROM_DFU, Setup, TransferError, Transport};
use cfdfu::worker::Worker;

use crate::bent::{Ask, BentTransport, InterceptedUsb};
use crate::support::{
    Run, SEED_LEN, World, change_flash_task, firmware, flash_job, job, restore_job, run, wait_for_outcome,
};

/// Returns the drones of a scenario, with `change` applied to the first drone.
fn changed(scenario: &str, change: impl FnOnce(&mut SimDrone)) -> World {
    let world = World::new(scenario);
    world.bus.with(0, |drone, _| change(drone));
    world
}

fn failure(run: &Run) -> &FailureKind {
    let Outcome::Failed(failure) = &run.report.outcome else { panic!("{:?}", run.report.outcome) };
    &failure.kind
}

fn reported_plan(run: &Run) -> &Preview {
    let preview = run.events.iter().find_map(|event| match event {
        Event::Ready(preview) => Some(&**preview),
        _ => None,
    });
    preview.expect("no plan was reported")
}

fn new_image() -> Vec<u8> {
    firmware("2026.08", SEED_LEN)
}

fn with_mismatch_allowed(job: Job) -> Job {
    change_flash_task(job, |task| task.mismatch = Mismatch::Allow)
}

// ---- H4: a different board with the same chip

/// Crazyflie firmware cannot even start on such a board, so neither a flash nor a restore overwrites the board's
/// contents.
#[test]
fn h4_a_board_from_another_maker_is_overwritten_only_with_allow_mismatch() {
    let loader = images::loader();
    for make_job in
        [|_: &[u8]| flash_job(&new_image()), |loader: &[u8]| restore_job(loader, Some(&new_image()))]
    {
        let world = World::new("foreign");
        let before = world.flash();
        let run = world.run(make_job(&loader));
        assert!(
            matches!(failure(&run), FailureKind::NotACrazyflie { loader: Loader::Other }),
            "{:?}",
            failure(&run)
        );
        assert!(world.flash() == before);
        assert_eq!(world.run(with_mismatch_allowed(make_job(&loader))).report.outcome, Outcome::Flashed);
    }
}

/// If the OTP is blank, other evidence is enough to show that the drone is a Crazyflie.
#[test]
fn h4_a_crazyflie_with_a_blank_otp_is_still_recognised() {
    let blank = |drone: &mut SimDrone| drone.memory.otp = [0xFF; 528];
    let erase = |drone: &mut SimDrone, from: usize, to: usize| {
        drone.memory.flash.place(nor::START + from as u32, &vec![0xFF; to - from]);
    };
    let flashes = |world: &World, job: Job| world.run(job).report.outcome == Outcome::Flashed;
    // The flash contains only the bootloader, firmware in the bootloader's place, or only the firmware.
    assert!(flashes(&changed("erased", blank), flash_job(&new_image())));
    assert!(flashes(&changed("overwritten", blank), flash_job(&new_image())));
    let firmware_alone = |drone: &mut SimDrone| {
        blank(drone);
        erase(drone, 0, 0x4000);
    };
    assert!(flashes(&changed("dfu", firmware_alone), flash_job(&new_image())));
    // The drone was running when the job started.
    assert!(flashes(&changed("healthy", blank), flash_job(&new_image())));
    // The flash is blank: firmware alone would not start, but the bootloader may be written.
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

/// Undo restores a copy that cfdfu kept, and an interrupted flash resumes, no matter what the flash contains by then.
#[test]
fn h4_undo_and_resume_do_not_check_for_a_crazyflie_again() {
    let copy = Segment { address: LOADER_BASE, data: images::foreign(40_000) };
    let overrides = Overrides { allow_mismatch: true, ..Overrides::default() };
    let undo = job(admission::undo(copy, overrides).unwrap());
    let undo = change_flash_task(undo, |task: &mut FlashTask| task.change = Change::Undo);
    assert_eq!(World::new("foreign").run(undo).report.outcome, Outcome::Flashed);
    let resumed = change_flash_task(flash_job(&new_image()), |task| task.left = DroneState::WithoutFirmware);
    assert_eq!(World::new("foreign").run(resumed).report.outcome, Outcome::Flashed);
}

// ---- H2: an undo after another program has flashed the drone

/// cfdfu flashes the drone, which is then flashed again over radio. The copy for undo is older than both flashes and
/// must not replace the second firmware without confirmation.
#[test]
fn h2_an_undo_overwrites_firmware_from_another_program_only_if_allowed() {
    let world = World::new("dfu");
    let old = world.flash();
    let keep_copy = |task: &mut FlashTask| (task.keep, task.leave) = (Keep::Copy, Leave::Stay);
    let flashed = world.run(change_flash_task(flash_job(&new_image()), keep_copy));
    let preview = reported_plan(&flashed);
    let history =
        History::default().begin(preview.plan.pieces(), preview.before.as_ref(), Change::Flash).end();
    let undo = || {
        let copy = history.target().unwrap().clone();
        change_flash_task(job(admission::undo(copy, Overrides::default()).unwrap()), |task| {
            keep_copy(task);
            (task.change, task.expected) = (Change::Undo, history.expected().to_vec());
        })
    };
    let second = firmware("2025.12", SEED_LEN);
    let flash_over_radio =
        || world.bus.with(0, |drone, _| drone.memory.flash.place(FIRMWARE_BASE.0, &second));
    flash_over_radio();
    let before = world.flash();
    assert_eq!(failure(&world.run(undo())), &FailureKind::ChangedSince);
    assert!(world.flash() == before);
    // With confirmation or --allow-mismatch, the undo replaces the second firmware.
    let asked = world.run(change_flash_task(undo(), |task| task.mismatch = Mismatch::Ask));
    assert!(reported_plan(&asked).changed_since);
    assert!(world.flash() == old);
    flash_over_radio();
    assert_eq!(world.run(with_mismatch_allowed(undo())).report.outcome, Outcome::Flashed);
    assert!(world.flash() == old);
}

// ---- M1, M2: another program is using the boot ROM, or the user has no access to it

/// Flashes on a bus where devices in DFU mode cannot be opened (`Access`) or claimed (`Busy`) before the time `until`.
fn flash_while_inaccessible(scenario: &str, until: Duration, error: TransferError) -> (World, Run) {
    let world = World::new(scenario);
    let clock = world.clock.clone();
    let open = move |bus: &SimBus, found: &Found| -> Result<Box<dyn Transport>, TransferError> {
        let inner = bus.open(found)?;
        if found.id == ROM_DFU && error == TransferError::Access && clock.now() < until {
            return Err(error);
        }
        let (rom, clock) = (found.id == ROM_DFU, clock.clone());
        let bend = move |ask: Ask<'_>| {
            let is_claimed = rom && error == TransferError::Busy && clock.now() < until;
            (is_claimed && matches!(ask, Ask::Select(_))).then_some(Err(error))
        };
        Ok(Box::new(BentTransport { inner, bend }))
    };
    let bus = InterceptedUsb { bus: world.bus.clone(), open };
    let run = run(Arc::new(bus), world.clock.clone(), flash_job(&new_image()));
    (world, run)
}

/// The job waits briefly until the drone can be opened and claimed. If that fails, the drone stays in DFU mode.
#[test]
fn m1_a_drone_that_cannot_be_opened_is_reported_as_still_in_dfu_mode() {
    for error in [TransferError::Busy, TransferError::Access] {
        for scenario in ["healthy", "dfu"] {
            let (_, run) = flash_while_inaccessible(scenario, Duration::from_secs(2), error);
            assert_eq!(run.report.outcome, Outcome::Flashed, "{scenario} {error:?}");
            let (world, run) = flash_while_inaccessible(scenario, Duration::MAX, error);
            let Outcome::Failed(failure) = &run.report.outcome else { panic!("{:?}", run.report.outcome) };
            let state = if scenario == "healthy" { DroneState::Stopped } else { DroneState::Untouched };
            assert_eq!(failure.drone, state, "{scenario} {error:?}: {failure}");
            let advice = report::failure_problem(failure).advice;
            assert_eq!(
                advice.to_string().contains("Unplug USB and the battery, then switch the drone on again"),
                scenario == "healthy",
                "{advice}"
            );
            assert!(world.bus.list().unwrap().iter().all(|found| found.id == ROM_DFU));
        }
    }
}

/// Missing access to the boot ROM is reported before the drone enters DFU mode.
#[test]
fn m1_a_drone_does_not_enter_dfu_mode_if_the_user_has_no_access_to_its_boot_rom() {
    let world = World::new("healthy");
    let run = world.run(Job { enter: Enter::NotAllowed, ..flash_job(&new_image()) });
    assert!(matches!(failure(&run), FailureKind::NoAccess(ROM_DFU)));
    assert!(world.bus.list().unwrap().iter().all(|found| found.id == CRAZYFLIE));
}

// ---- M9: a signal while a flash resumes

#[test]
fn m9_a_resumed_flash_is_not_stopped_by_a_hang_up_signal() {
    let world = World::new("dfu");
    let resumed = change_flash_task(flash_job(&new_image()), |task| task.left = DroneState::WithoutFirmware);
    let worker = Worker::spawn(Arc::new(world.bus.clone()), world.clock.clone());
    worker.commands.send(Command::Run(Box::new(resumed))).unwrap();
    let report = loop {
        match worker.events.recv().unwrap() {
            Event::Finished(report) => break report,
            // During the comparison, the resumed flash has not written anything yet.
            Event::Progress { phase: Phase::Compare, .. } => {
                worker.commands.send(Command::CancelIfUntouched).unwrap();
            }
            _ => {}
        }
    };
    assert_eq!(report.outcome, Outcome::Flashed);
}

// ---- M7: a cable that drops the connection repeatedly

#[test]
fn m7_resuming_stops_when_a_flash_makes_no_progress() {
    let mut headway = Headway::default();
    let stuck: Vec<bool> =
        [900, 500, 500, 400, 400, 400, 400].map(|left| headway.count_attempt(Some(left))).into();
    assert_eq!(stuck, [false, false, false, false, false, false, true]);
    // A resumed job compares first and skips what is already written, even if the user asked for a full rewrite.
    let full = change_flash_task(flash_job(&new_image()), |task| task.compare = Compare::Skip);
    let Task::Flash(task) = full.task else { panic!() };
    assert_eq!(task.resumed(DroneState::WithoutFirmware).compare, Compare::First);
}

// ---- M14: the process is suspended while flashing

/// A clock that jumps forward during a transfer, as if the process were suspended with Ctrl-Z and continued with `fg`.
struct JumpingClock {
    time: FastClock,
    at: Duration,
    by: Duration,
}

impl Clock for JumpingClock {
    fn now(&self) -> Duration {
        let now = self.time.now();
        if now < self.at { now } else { now + self.by }
    }

    fn sleep(&self, time: Duration) {
        self.time.sleep(time);
    }
}

#[test]
fn m14_a_flash_continues_after_the_process_was_suspended_for_minutes() {
    for millis in [100, 300, 600, 1500, 2500, 3500] {
        let by = Duration::from_secs(300);
        let clock = Arc::new(JumpingClock { time: FastClock::new(), at: Duration::from_millis(millis), by });
        let bus = SimBus::new(Scenario::by_name("dfu").unwrap().drones(Duration::ZERO), clock.clone());
        let run = run(Arc::new(bus), clock, flash_job(&new_image()));
        assert_eq!(run.report.outcome, Outcome::Flashed, "at {millis} ms");
    }
}

// ---- M8: a command that a killed session sent but did not start

/// An erase of the firmware's first sector is pending, and the next GETSTATUS would start the erase. A job that only
/// reads must abort the erase before it sends GETSTATUS.
#[test]
fn m8_a_job_that_only_reads_does_not_start_the_pending_erase_of_a_killed_session() {
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
        // The ROM starts in dfuERROR: send CLRSTATUS, then the erase, then nothing else.
        let limit = Duration::from_secs(1);
        transport.select(0, 0).unwrap();
        for (request, data) in [(4, &[][..]), (1, &erase[..])] {
            let setup = Setup { request_type: 0x21, request, value: 0, index: 0 };
            transport.control_out(setup, data, limit).unwrap();
        }
        drop(transport);
        let job = Job { enter: Enter::Never, task: task(), ..flash_job(&new_image()) };
        let run = world.run(job);
        let result = &run.report.outcome;
        let differs =
            matches!(result, Outcome::Failed(failure) if matches!(failure.kind, FailureKind::Differs { .. }));
        assert!(differs == (n == 2), "{:?}", run.report.outcome);
        assert!(world.flash() == before, "job {n}");
        // A job that writes succeeds as on any other drone.
        assert_eq!(world.run(flash_job(&new_image())).report.outcome, Outcome::Flashed);
    }
}

// ---- M3: a foreign 0483:5740 device that the user has no access to

/// A bus that lists a foreign STM32 board before the drones. The board cannot be opened; the system may know its names.
struct ForeignBoardBus {
    bus: SimBus,
    names: Option<Strings>,
}

impl Bus for ForeignBoardBus {
    fn list(&self) -> Result<Vec<Found>, BusError> {
        let location: Location = "2-1".parse().unwrap();
        let names = self.names.clone();
        let board = Found { id: CRAZYFLIE, release: 0x0200, location, address: 9, names, simulated: true };
        Ok([vec![board], self.bus.list()?].concat())
    }

    fn open(&self, found: &Found) -> Result<Box<dyn Transport>, TransferError> {
        if found.location.bus == 2 {
            assert!(self.names.is_none(), "opened a board that is known to be foreign");
            return Err(TransferError::Access);
        }
        self.bus.open(found)
    }

    fn wait(&self, limit: Duration) {
        self.bus.wait(limit);
    }
}

#[test]
fn m3_a_foreign_board_that_cannot_be_opened_does_not_prevent_a_flash() {
    let names = |manufacturer: &str, product: &str| {
        Some(Strings { manufacturer: manufacturer.into(), product: product.into(), serial: "7".into() })
    };
    for names in
        [None, names("Betaflight", "Betaflight STM32F405"), names("Flipper Devices Inc.", "Flipper Zero")]
    {
        for scenario in ["healthy", "dfu"] {
            let world = World::new(scenario);
            let bus = Arc::new(ForeignBoardBus { bus: world.bus.clone(), names: names.clone() });
            assert_eq!(scan::list_devices(&bus).unwrap().len(), 1 + usize::from(names.is_none()));
            let run = run(bus, world.clock.clone(), flash_job(&new_image()));
            assert_eq!(run.report.outcome, Outcome::Flashed, "{scenario} {names:?}");
        }
        // The drone is plugged in later: the job waits for the drone, even if a serial number selects it.
        for device in [Selector::Only, Selector::Serial("51004F000551343036333233".to_owned())] {
            let plugged_in = Duration::from_secs(10);
            let (clock, bus) =
                crate::cuts::PowerCutClock::at(plugged_in, "healthy", SimDrone::plug_or_unplug);
            bus.with(0, |drone, now| drone.plug_or_unplug(now));
            let bus = Arc::new(ForeignBoardBus { bus, names: names.clone() });
            let job = Job { device, wait: Duration::from_secs(30), ..flash_job(&new_image()) };
            let outcome = run(bus, clock, job).report.outcome;
            assert_eq!(outcome, Outcome::Flashed, "{names:?}");
        }
    }
    // A board that is alone on the bus and has foreign names is not reported as a Crazyflie with missing udev rules.
    let world = World::new("none");
    let bus = ForeignBoardBus { bus: world.bus, names: names("Betaflight", "STM32F405") };
    assert!(matches!(scan::choose_device(&bus, &Selector::Only), Err(FailureKind::NoDevice)));
}

// ---- M12: a device that delays every job

/// The device has hundreds of memories and never answers requests for their names.
#[test]
fn m12_a_job_on_a_device_that_never_sends_its_names_ends_in_time() {
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
    let bus = InterceptedUsb { bus: world.bus.clone(), open };
    let run = run(Arc::new(bus), world.clock.clone(), flash_job(&new_image()));
    assert!(matches!(run.report.outcome, Outcome::Failed(_)));
    assert!(world.clock.now() < Duration::from_secs(15), "{:?}", world.clock.now());
}

// ---- L1: an image of odd length

/// A boot ROM need not support a read of a single byte (AN3156 §4).
#[test]
fn l1_an_image_with_an_odd_length_is_verified_to_its_last_byte() {
    for odd in [1, 2, 3, 5] {
        let image = firmware("2026.08", 60 * 2048 + odd);
        let world = World::new("dfu");
        let flash = change_flash_task(flash_job(&image), |task| task.leave = Leave::Stay);
        assert_eq!(world.run(flash).report.outcome, Outcome::Flashed);
        let verify = Task::Verify(vec![Segment { address: FIRMWARE_BASE, data: image.clone() }]);
        let run = world.run(Job { enter: Enter::Never, task: verify, ..flash_job(&image) });
        assert_eq!(run.report.outcome, Outcome::Unchanged, "{odd}");
        // A wrong last byte is detected.
        let mut other = image;
        *other.last_mut().unwrap() ^= 1;
        let verify = Task::Verify(vec![Segment { address: FIRMWARE_BASE, data: other.clone() }]);
        let run = world.run(Job { enter: Enter::Never, task: verify, ..flash_job(&other) });
        assert!(matches!(failure(&run), FailureKind::Differs { .. }), "{odd}");
    }
}

// ---- S1: a device that describes a sector of nearly a gigabyte

/// The sector is not read into memory, and the log reports that no copy is kept.
#[test]
fn s1_no_copy_of_a_huge_sector_is_kept() {
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
    let bus = InterceptedUsb { bus: world.bus.clone(), open };
    let job =
        change_flash_task(with_mismatch_allowed(flash_job(&new_image())), |task| task.keep = Keep::Copy);
    let run = run(Arc::new(bus), world.clock.clone(), job);
    let is_logged = |event: &Event| matches!(event, Event::Log(_, LogEntry::NoCopyOfHugeSectors));
    assert!(run.events.iter().any(is_logged), "{:?}", run.report);
    assert!(uploads.load(Ordering::Relaxed) < 1024, "{uploads:?} blocks were read");
}

// ---- L7: a device that does not answer, or is busy for hours

/// Returns a bus whose boot ROM always reports that it will be busy for hours. Calls `on_answer` before each such
/// answer.
fn always_busy(bus: SimBus, on_answer: impl Fn() + Send + Sync + 'static) -> impl Bus {
    let on_answer = Arc::new(on_answer);
    let open = move |bus: &SimBus, found: &Found| -> Result<Box<dyn Transport>, TransferError> {
        let on_answer = Arc::clone(&on_answer);
        let bend = move |ask: Ask<'_>| {
            let Ask::In(Setup { request_type: 0xA1, request, .. }, _) = ask else { return None };
            let answer = match request {
                3 => vec![0, 0xFF, 0xFF, 0xFF, 4, 0],
                5 => vec![4],
                _ => return None,
            };
            on_answer();
            Some(Ok(answer))
        };
        Ok(Box::new(BentTransport { inner: bus.open(found)?, bend }))
    };
    InterceptedUsb { bus, open }
}

/// Flashes on the bus that `bus` builds, and returns the outcome. The function passed to `bus` cancels the job.
fn flash_and_cancel<B: Bus + 'static>(
    world: &World,
    bus: impl FnOnce(Box<dyn Fn() + Send + Sync>) -> B,
) -> Outcome {
    let commands = Arc::new(OnceLock::<Mutex<Sender<Command>>>::new());
    let to_worker = Arc::clone(&commands);
    let cancel = move || drop(to_worker.get().unwrap().lock().unwrap().send(Command::Cancel));
    let worker = Worker::spawn(Arc::new(bus(Box::new(cancel))), world.clock.clone());
    assert!(commands.set(Mutex::new(worker.commands.clone())).is_ok());
    worker.commands.send(Command::Run(Box::new(flash_job(&new_image())))).unwrap();
    wait_for_outcome(&worker).expect("the job did not end")
}

/// The devices ignore every descriptor request, or only requests for strings. Each run cancels the job during a
/// different request.
#[test]
fn l7_a_job_can_be_cancelled_while_devices_do_not_send_their_names() {
    const GET_DESCRIPTOR: u8 = 6;
    for scenario in ["dfu", "healthy", "two"] {
        for silent_from in [0x0100, 0x0300] {
            for cancel_at in [0, 1, 4, 5, 9, 13] {
                let world = World::new(scenario);
                let (clock, asked) = (world.clock.clone(), Arc::new(OnceLock::new()));
                let cancelled = Arc::clone(&asked);
                let outcome = flash_and_cancel(&world, |cancel| {
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
                                if count.fetch_add(1, Ordering::Relaxed) == cancel_at {
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
                    InterceptedUsb { bus: world.bus.clone(), open }
                });
                // The job may have ended before it was cancelled.
                let Some(cancelled) = cancelled.get() else { continue };
                assert_eq!(
                    outcome,
                    Outcome::Cancelled(DroneState::Untouched),
                    "{scenario} {silent_from:x} {cancel_at}"
                );
                let took = world.clock.now() - *cancelled;
                assert!(took < Duration::from_secs(2), "{scenario} {silent_from:x} {cancel_at}: {took:?}");
            }
        }
    }
}

/// The job fails within 15 s, or ends within 2 s if it is cancelled.
#[test]
fn l7_a_job_can_be_cancelled_while_a_device_reports_that_it_is_busy() {
    let world = World::new("dfu");
    let bus = always_busy(world.bus.clone(), || {});
    let uncancelled = run(Arc::new(bus), world.clock.clone(), flash_job(&new_image()));
    assert!(matches!(uncancelled.report.outcome, Outcome::Failed(_)));
    assert!(world.clock.now() < Duration::from_secs(15), "{:?}", world.clock.now());

    let world = World::new("dfu");
    let outcome = flash_and_cancel(&world, |cancel| always_busy(world.bus.clone(), cancel));
    assert_eq!(outcome, Outcome::Cancelled(DroneState::Untouched));
    assert!(world.clock.now() < Duration::from_secs(2), "{:?}", world.clock.now());
}

// ---- H3: a restore that is interrupted and then undone

/// Each of 60 restores is interrupted at a different moment, run again to its end, and then undone.
#[test]
fn h3_undo_after_an_interrupted_restore_restores_the_contents_from_before_the_first_attempt() {
    const LEN: usize = 50 * 1024;
    let (image, loader) = (firmware("2026.08", LEN), images::loader());
    let restore = || {
        change_flash_task(restore_job(&loader, Some(&image)), |task| {
            task.leave = Leave::Stay;
            task.keep = Keep::Copy;
        })
    };
    // The drone has a different bootloader, so the restore writes the whole bootloader.
    let other_loader = |drone: &mut SimDrone| drone.memory.flash.place(nor::START + 0x1000, &[0x55; 64]);
    let begin = |history: &History, run: &Run, change: Change| {
        let preview = run.events.iter().find_map(|event| match event {
            Event::Ready(preview) => Some(preview),
            _ => None,
        });
        let preview = preview.filter(|preview| !preview.work.is_empty());
        preview.map(|preview| history.begin(preview.plan.pieces(), preview.before.as_ref(), change))
    };
    let whole_job = changed("dfu", other_loader).run(restore()).report.took;
    let before = changed("dfu", other_loader).flash();
    for moment in (0..60).map(|n| whole_job * n / 60) {
        let (clock, bus) = crate::cuts::PowerCutClock::at(moment, "dfu", SimDrone::cut_power);
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
        let undo = change_flash_task(undo, |task| {
            task.leave = Leave::Stay;
            task.change = Change::Undo;
        });
        assert_eq!(run(Arc::new(bus.clone()), clock, undo).report.outcome, Outcome::Flashed, "at {moment:?}");
        assert!(flash() == before, "at {moment:?}: the undo did not restore the flash");
    }
}

/// A bus that calls a function whenever its list of devices is empty.
struct EmptyListNotifier<F>(SimBus, F);

impl<F: Fn() + Send + Sync> Bus for EmptyListNotifier<F> {
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

/// The job is cancelled while the drone restarts into DFU mode, so the outcome must not report the drone as running.
#[test]
fn m1_a_job_cancelled_while_the_drone_enters_dfu_mode_does_not_report_an_untouched_drone() {
    let world = World::new("late");
    let commands = Arc::new(OnceLock::<Mutex<Sender<Command>>>::new());
    let to_worker = Arc::clone(&commands);
    let cancel = move || drop(to_worker.get().unwrap().lock().unwrap().send(Command::Cancel));
    let worker = Worker::spawn(Arc::new(EmptyListNotifier(world.bus.clone(), cancel)), world.clock.clone());
    assert!(commands.set(Mutex::new(worker.commands.clone())).is_ok());
    let wait = Duration::from_secs(60);
    worker.commands.send(Command::Run(Box::new(Job { wait, ..flash_job(&new_image()) }))).unwrap();
    assert_eq!(wait_for_outcome(&worker), Some(Outcome::Cancelled(DroneState::Stopped)));
}

// ---- H2, H5: incomplete firmware is not kept as a copy, no matter which program wrote it

/// Incomplete firmware from another program's interrupted flash never ran. If cfdfu kept a copy of this firmware, an
/// undo would break a drone that has just been repaired.
#[test]
fn h2_incomplete_firmware_from_another_program_is_not_kept_as_a_copy() {
    let whole = new_image();
    let sectors = 240 * 1024;
    let before = |kept: usize, read: usize| {
        let mut data = whole[..kept].to_vec();
        data.resize(sectors, 0xFF);
        data.truncate(read);
        Segment { address: FIRMWARE_BASE, data }
    };
    let last = |before: &Segment| {
        History::default().begin(slice::from_ref(before), Some(before), Change::Flash).last
    };
    assert!(last(&before(whole.len() / 2, sectors)) == Last::None(NoCopy::WasIncomplete));
    // A smaller image overwrites only the start of complete firmware. The end of the firmware is not read but is still
    // in the flash.
    for part in [before(whole.len(), sectors), before(whole.len(), 64 * 1024)] {
        assert!(last(&part) == Last::Copy(part));
    }
}
