//! Tests what happens if cfdfu receives an error instead of an answer that a check depends on, once or always. A check
//! that could not run must not count as passed: the drone either receives the right image or remains unchanged.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use cfdfu::clock::FastClock;
use cfdfu::job::{Event, FailureKind, FlashTask, Level, Mismatch, Outcome};
use cfdfu::sim::SimBus;
use cfdfu::sim::images;
use cfdfu::sim::scenario::Scenario;
use cfdfu::usb::{Bus, Found, Setup, TransferError, Transport};

use crate::bent::{Ask, BentTransport, InterceptedUsb};
use crate::support::{Run, change_flash_task, firmware, flash_job, run};

/// The answer that is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    /// The string descriptor with this index. In the boot ROM, 1 is the manufacturer, 2 the product, 3 the serial
    /// number, and 4 to 7 are the alternate settings.
    Name(u8),
    /// SET_INTERFACE with this alternate setting.
    Select(u8),
    /// UPLOAD after the address pointer was set to this address.
    Read(u32),
    /// DNLOAD of a Set Address Pointer command with this address.
    Point(u32),
}

const OPTIONS: u32 = 0x1FFF_C000;
const OTP: u32 = 0x1FFF_7800;

/// Returns a bus that reports `error` instead of the answer `lost`, at most `remaining` times.
fn lossy_bus(bus: SimBus, lost: Answer, remaining: Arc<AtomicU32>, error: TransferError) -> impl Bus {
    let open = move |bus: &SimBus, found: &Found| -> Result<Box<dyn Transport>, TransferError> {
        let (mut pointer, remaining) = (0, Arc::clone(&remaining));
        let bend = move |ask: Ask<'_>| {
            let answer = match ask {
                Ask::In(setup, _) => match (setup.request_type, setup.request, setup.value.to_be_bytes()) {
                    (0x80, 6, [3, index]) => Answer::Name(index),
                    (0xA1, 2, _) => Answer::Read(pointer),
                    _ => return None,
                },
                Ask::Out(Setup { request_type: 0x21, request: 1, value: 0, .. }, [0x21, address @ ..]) => {
                    pointer = u32::from_le_bytes(address.try_into().unwrap());
                    Answer::Point(pointer)
                }
                Ask::Out(..) | Ask::BulkIn | Ask::BulkOut => return None,
                Ask::Select(alternate) => Answer::Select(alternate),
            };
            let take = |count: u32| count.checked_sub(1);
            let is_lost =
                answer == lost && remaining.fetch_update(Ordering::SeqCst, Ordering::SeqCst, take).is_ok();
            is_lost.then_some(Err(error))
        };
        Ok(Box::new(BentTransport { inner: bus.open(found)?, bend }))
    };
    InterceptedUsb { bus, open }
}

/// The drone's flash before and after a job on a lossy bus, and the job's events and report.
struct Flashed {
    before: Vec<u8>,
    after: Vec<u8>,
    run: Run,
}

fn flash(
    scenario: &str,
    answer: Answer,
    times: u32,
    error: TransferError,
    change: fn(&mut FlashTask),
) -> Flashed {
    let clock = Arc::new(FastClock::new());
    let drones = Scenario::by_name(scenario).unwrap().drones(Duration::ZERO);
    let inner = SimBus::new(drones, clock.clone());
    let bytes = |bus: &SimBus| bus.with(0, |drone, _| drone.memory.flash.bytes().to_vec()).unwrap();
    let before = bytes(&inner);
    let bus = lossy_bus(inner.clone(), answer, Arc::new(AtomicU32::new(times)), error);
    let job = change_flash_task(flash_job(&firmware("2026.08", images::FIRMWARE_MIN)), change);
    let run = run(Arc::new(bus), clock, job);
    assert!(run.report.took < Duration::from_secs(40), "{answer:?} {times} {error:?}: {:?}", run.report.took);
    Flashed { before, after: bytes(&inner), run }
}

impl Flashed {
    fn is_untouched(&self) -> bool {
        self.before == self.after
    }

    fn has_image(&self) -> bool {
        self.after[0x4000..].starts_with(&firmware("2026.08", images::FIRMWARE_MIN))
    }

    fn warns(&self, words: &str) -> bool {
        let is_match = |event: &Event| matches!(event, Event::Log(Level::Warning, entry) if entry.to_string().contains(words));
        self.run.events.iter().any(is_match)
    }
}

const ERRORS: [TransferError; 3] = [TransferError::Stall, TransferError::Timeout, TransferError::Io];
const ONCE: u32 = 1;
const ALWAYS: u32 = u32::MAX;

const ANSWERS: [Answer; 13] = [
    Answer::Name(1),
    Answer::Name(2),
    Answer::Name(4),
    Answer::Name(5),
    Answer::Name(6),
    Answer::Name(7),
    Answer::Select(1),
    Answer::Select(2),
    Answer::Select(3),
    Answer::Read(OPTIONS),
    Answer::Read(OTP),
    Answer::Point(OPTIONS),
    Answer::Point(OTP),
];

/// If an answer is lost once, cfdfu requests it again, and nothing else changes. If an answer is always lost, the
/// outcome depends on the kind of answer.
#[test]
fn a_lost_answer_is_requested_again_and_then_treated_as_unknown() {
    for error in ERRORS {
        for answer in ANSWERS {
            let once = flash("dfu", answer, ONCE, error, |_| {});
            assert_eq!(once.run.report.outcome, Outcome::Flashed, "{answer:?} once {error:?}");
            assert!(once.has_image(), "{answer:?} once {error:?}");
            assert!(
                !once.warns("could not be read"),
                "{answer:?} once {error:?}: warned although the second read succeeded"
            );

            let always = flash("dfu", answer, ALWAYS, error, |_| {});
            let outcome = &always.run.report.outcome;
            let is_unknown = matches!(outcome, Outcome::Failed(failure) if matches!(failure.kind, FailureKind::UnknownBoard { .. }));
            match answer {
                // The board cannot be read, so the job fails.
                Answer::Read(OTP) | Answer::Point(OTP) => {
                    assert!(is_unknown && always.is_untouched(), "{answer:?} {error:?}: {outcome:?}");
                }
                // Without the memory map, the layout of the flash is unknown.
                Answer::Name(4) => {
                    assert!(matches!(outcome, Outcome::Failed(_)), "{answer:?} {error:?}: {outcome:?}");
                    assert!(always.is_untouched(), "{answer:?} {error:?}");
                }
                // The protection is unknown, so each erase is checked instead.
                Answer::Read(OPTIONS) | Answer::Point(OPTIONS) => {
                    assert_eq!(*outcome, Outcome::Flashed, "{answer:?} {error:?}");
                    assert!(always.has_image() && always.warns("The write protection could not be read"));
                }
                // All alternate settings share the address pointer, so a memory can be read without its name or its
                // alternate setting.
                _ => {
                    assert_eq!(*outcome, Outcome::Flashed, "{answer:?} {error:?}");
                    assert!(always.has_image(), "{answer:?} {error:?}");
                }
            }
        }
    }
}

/// The drone is a Bolt, but the image is for the Crazyflie 2.x.
#[test]
fn an_image_for_another_board_is_refused_whichever_answer_is_lost() {
    for error in ERRORS {
        for answer in ANSWERS {
            for times in [ONCE, ALWAYS] {
                let bolt = flash("wrong-board", answer, times, error, |_| {});
                let outcome = &bolt.run.report.outcome;
                assert!(matches!(outcome, Outcome::Failed(_)), "{answer:?} {times} {error:?}: {outcome:?}");
                assert!(bolt.is_untouched(), "{answer:?} {times} {error:?}");
            }
        }
    }
}

/// One sector that the image covers is write-protected. The job fails before it erases anything or, if the write
/// protection cannot be read, at the first erase that has no effect.
#[test]
fn a_write_protected_drone_keeps_its_firmware_whichever_answer_is_lost() {
    for error in ERRORS {
        for answer in ANSWERS {
            for times in [ONCE, ALWAYS] {
                let clock = Arc::new(FastClock::new());
                let mut drones = Scenario::by_name("dfu").unwrap().drones(Duration::ZERO);
                // Protect sector 1, which contains the first word of the firmware.
                drones[0].memory.options[8] &= !(1 << 1);
                let inner = SimBus::new(drones, clock.clone());
                let bytes =
                    |bus: &SimBus| bus.with(0, |drone, _| drone.memory.flash.bytes().to_vec()).unwrap();
                let before = bytes(&inner);
                let remaining = Arc::new(AtomicU32::new(times));
                let bus = lossy_bus(inner.clone(), answer, remaining, error);
                let job = flash_job(&firmware("2026.08", images::FIRMWARE_MIN));
                let outcome = run(Arc::new(bus), clock, job).report.outcome;
                assert!(matches!(outcome, Outcome::Failed(_)), "{answer:?} {times} {error:?}: {outcome:?}");
                assert!(bytes(&inner) == before, "{answer:?} {times} {error:?}: the drone lost its firmware");
            }
        }
    }
}

/// A serial number that cannot be read at first, but is read when the job opens the device, must be reported.
/// Otherwise, cfdfu could not store the copy under this number or resume the flash.
#[test]
fn a_serial_number_that_is_readable_only_later_is_reported() {
    let flashed = flash("dfu", Answer::Name(3), 4, TransferError::Timeout, |_| {});
    let serial = |event: &Event| match event {
        Event::Device(device) => Some(device.strings.serial.clone()),
        _ => None,
    };
    let serials: Vec<String> = flashed.run.events.iter().filter_map(serial).collect();
    assert_eq!(serials.first().map(String::as_str), Some(""), "{serials:?}");
    assert!(serials.iter().any(|serial| serial == "338133873034"), "{serials:?}");
    assert_eq!(flashed.run.report.outcome, Outcome::Flashed);
}

/// The log warns that the board is unknown.
#[test]
fn a_drone_with_an_unreadable_otp_is_flashed_with_allow_mismatch() {
    let allow_mismatch = |task: &mut FlashTask| task.mismatch = Mismatch::Allow;
    for error in ERRORS {
        let flashed = flash("dfu", Answer::Read(OTP), ALWAYS, error, allow_mismatch);
        assert_eq!(flashed.run.report.outcome, Outcome::Flashed, "{error:?}");
        assert!(flashed.has_image() && flashed.warns("writing it anyway (--allow-mismatch)"), "{error:?}");
    }
}

/// The contents of the bootloader show whether the device is a Crazyflie. If the answer is lost once, cfdfu reads the
/// bootloader again. If the bootloader can never be read, cfdfu writes nothing.
#[test]
fn a_device_that_cannot_be_recognised_is_not_written_to() {
    for error in ERRORS {
        for scenario in ["blank-otp", "foreign"] {
            let once = flash(scenario, Answer::Read(0x0800_0000), 1, error, |_| {});
            assert_eq!(once.has_image(), scenario == "blank-otp", "{scenario} {error:?}");
            let always = flash(scenario, Answer::Read(0x0800_0000), ALWAYS, error, |_| {});
            assert!(always.is_untouched(), "{scenario} {error:?}");
            assert!(matches!(always.run.report.outcome, Outcome::Failed(_)), "{scenario} {error:?}");
        }
    }
}

#[test]
fn an_otp_in_an_unknown_format_counts_as_an_unknown_board() {
    let world = crate::support::World::new("dfu");
    world.bus.with(0, |drone, _| drone.memory.otp[..8].copy_from_slice(b"9;XXXX;?"));
    let before = world.flash();
    let job = || flash_job(&firmware("2026.08", images::FIRMWARE_MIN));
    let Outcome::Failed(failure) = world.run(job()).report.outcome else { panic!("the job did not fail") };
    assert!(matches!(failure.kind, FailureKind::UnknownBoard { .. }), "{failure}");
    assert!(world.flash() == before);
    let allowed = world.run(change_flash_task(job(), |task| task.mismatch = Mismatch::Allow));
    assert_eq!(allowed.report.outcome, Outcome::Flashed);
}

/// The drone is still listed, but while a name is unknown, cfdfu must not ask the drone to enter DFU mode.
#[test]
fn a_running_drone_whose_name_is_unreadable_is_not_sent_into_dfu_mode() {
    for error in ERRORS {
        for name in [1, 2] {
            let once = flash("healthy", Answer::Name(name), ONCE, error, |_| {});
            assert_eq!(once.run.report.outcome, Outcome::Flashed, "name {name} once {error:?}");
            let always = flash("healthy", Answer::Name(name), ALWAYS, error, |_| {});
            let Outcome::Failed(failure) = &always.run.report.outcome else {
                panic!("name {name} {error:?}: the drone was sent into DFU mode")
            };
            assert_eq!(failure.kind, FailureKind::Open(error), "name {name}");
            assert!(always.is_untouched());
        }
        // Only the serial number shows that the drone that appears in DFU mode is the same drone.
        let serial = flash("healthy", Answer::Name(3), ONCE, error, |_| {});
        assert_eq!(serial.run.report.outcome, Outcome::Flashed, "{error:?}");
    }
}
