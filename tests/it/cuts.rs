//! A fault at every single transfer of a job. Whatever happens and when: the first word of the firmware is
//! blank, or the whole image is there, or nothing was changed yet; the bootloader is as it was; success is
//! claimed for nothing but the whole image; and the job simply done again succeeds.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use cfdfu::clock::{Clock, FastClock};
use cfdfu::job::{Command, DroneState, Event, Job, Leave, Outcome};
use cfdfu::sim::scenario::Scenario;
use cfdfu::sim::{SimBus, images};
use cfdfu::usb::fault::{Fault, Faults, Faulty, Script};
use cfdfu::worker::Worker;

use crate::support::{World, firmware, flash_job, restore_job, run, with};

/// Sectors 1 to 3 and one block of 4: every kind of step, in few transfers.
const LEN: usize = 50 * 1024;
const BLANK: [u8; 4] = [0xFF; 4];

fn stay(job: Job) -> Job {
    with(job, |task| task.leave = Leave::Stay)
}

/// A job on a fresh drone with this fault; the drone is in DFU mode again afterwards.
fn cut(scenario: &str, job: Job, script: Option<Script>) -> (World, Outcome, u64) {
    let world = World::new(scenario);
    let bus = world.bus.clone();
    let faults = Faults::new(script, move || {
        bus.with(0, |drone, now| drone.cut_power(now));
    });
    let run = run(Arc::new(Faulty::new(world.bus.clone(), Arc::clone(&faults))), world.clock.clone(), job);
    assert!(run.report.took < Duration::from_secs(120), "{script:?} took {:?}", run.report.took);
    world.bus.with(0, |drone, now| {
        drone.cut_power(now);
        drone.power_on_by_hand(now);
    });
    (world, run.report.outcome, faults.count())
}

fn faults() -> impl Iterator<Item = Fault> {
    [Fault::Unplug, Fault::Stall, Fault::Timeout, Fault::LostAnswer, Fault::Short].into_iter().chain([
        Fault::Busy,
        Fault::State(7),
        Fault::Status(3),
        Fault::Status(0x0F),
    ])
}

#[test]
fn a_flash_cut_at_any_transfer_leaves_no_half_firmware_that_would_start() {
    let image = firmware("2026.08", LEN);
    let (_, outcome, transfers) = cut("dfu", stay(flash_job(&image)), None);
    assert_eq!(outcome, Outcome::Flashed);

    let before = World::new("dfu").flash();
    let (mut cases, mut flashed) = (0, 0);
    for fault in faults() {
        for at in 0..transfers {
            let script = Some(Script { at, fault });
            let (world, outcome, _) = cut("dfu", stay(flash_job(&image)), script);
            let after = world.flash();
            let whole = after[0x4000..0x4000 + LEN] == image;
            assert!(
                whole || after[0x4000..0x4004] == BLANK || after == before,
                "{script:?}: half a firmware would start"
            );
            assert_eq!(after[..0x4000], before[..0x4000], "{script:?}: the bootloader was touched");
            match &outcome {
                Outcome::Flashed => assert!(whole, "{script:?}: success claimed for wrong bytes"),
                Outcome::Failed(failure) => match failure.drone {
                    DroneState::Untouched => assert_eq!(after, before, "{script:?}"),
                    DroneState::Flashed => assert!(whole, "{script:?}"),
                    _ => {}
                },
                other => panic!("{script:?}: {other:?}"),
            }
            let again = world.run(stay(flash_job(&image))).report.outcome;
            assert!(matches!(again, Outcome::Flashed | Outcome::Unchanged), "{script:?}: then {again:?}");
            assert_eq!(world.flash()[0x4000..0x4000 + LEN], image);
            cases += 1;
            flashed += u32::from(outcome == Outcome::Flashed);
        }
    }
    println!("{cases} cases, {flashed} of them flashed in spite of the fault");
}

#[test]
fn a_restore_cut_at_any_transfer_can_be_done_again() {
    let (loader, image) = (images::loader(), firmware("2026.08", images::FIRMWARE_MIN));
    let job = || stay(restore_job(&loader, Some(&image)));
    let (_, outcome, transfers) = cut("overwritten", job(), None);
    assert_eq!(outcome, Outcome::Flashed);
    for fault in [Fault::Unplug, Fault::LostAnswer] {
        for at in 0..transfers {
            let script = Some(Script { at, fault });
            let (world, outcome, _) = cut("overwritten", job(), script);
            let after = world.flash();
            let whole = after[..loader.len()] == loader && after[0x4000..0x4000 + image.len()] == image;
            assert!(outcome != Outcome::Flashed || whole, "{script:?}");
            let loader_whole = after[..loader.len()] == loader;
            let firmware_whole = after[0x4000..0x4000 + image.len()] == image;
            let erased = world.bus.with(0, |drone, _| drone.memory.flash.erases[0] > 0).unwrap();
            assert!(!erased || loader_whole || after[..4] == BLANK, "{script:?}: half a bootloader");
            assert!(
                !erased || firmware_whole || after[0x4000..0x4004] == BLANK,
                "{script:?}: half a firmware"
            );
            let again = world.run(job()).report.outcome;
            assert!(matches!(again, Outcome::Flashed | Outcome::Unchanged), "{script:?}: then {again:?}");
        }
    }
}

/// The cable pulled in the middle of a transfer, an erase or a write leaves them half done.
#[test]
fn a_flash_cut_at_any_moment_leaves_no_half_firmware_that_would_start() {
    const MOMENTS: u32 = 1000;
    let image = firmware("2026.08", LEN);
    let whole_job = World::new("dfu").run(stay(flash_job(&image))).report.took;
    let before = World::new("dfu").flash();
    let (mut half_erased, mut incomplete) = (0, 0);
    for moment in (0..MOMENTS).map(|n| whole_job * n / MOMENTS) {
        let clock = Arc::new(Guillotine { time: FastClock::new(), moment, bus: OnceLock::new() });
        let bus = SimBus::new(Scenario::by_name("dfu").unwrap().drones(Duration::ZERO), clock.clone());
        assert!(clock.bus.set(bus.clone()).is_ok());
        let outcome = run(Arc::new(bus.clone()), clock.clone(), stay(flash_job(&image))).report.outcome;
        let after = bus.with(0, |drone, _| drone.memory.flash.bytes().to_vec()).unwrap();
        let whole = after[0x4000..0x4000 + LEN] == image;
        let head = &after[0x4000..0x4004];
        // Only while the head sector is being erased is its first word still the old one's.
        let erasing_head = head == &before[0x4000..0x4004] && after[0x8000..] == before[0x8000..];
        assert!(whole || head == BLANK || erasing_head, "at {moment:?}: half a firmware would start");
        assert_eq!(after[..0x4000], before[..0x4000], "at {moment:?}");
        assert!(outcome != Outcome::Flashed || whole);
        half_erased += u32::from(after[0x4000] == 0xFF && after[0x7FFF] == before[0x7FFF]);
        incomplete += u32::from(!whole);
    }
    // The cuts do hit the middle of things.
    println!("{half_erased} with half a sector erased, {incomplete} of {MOMENTS} incomplete");
    assert!(half_erased > 20 && incomplete > 500);
}

/// A clock that pulls the cable at a moment, whoever is waiting.
struct Guillotine {
    time: FastClock,
    moment: Duration,
    bus: OnceLock<SimBus>,
}

impl Clock for Guillotine {
    fn now(&self) -> Duration {
        self.time.now()
    }

    fn sleep(&self, time: Duration) {
        let now = self.time.now();
        if now < self.moment && now + time >= self.moment {
            self.time.sleep(self.moment - now);
            self.bus.get().unwrap().with(0, |drone, now| drone.cut_power(now));
            self.time.sleep(now + time - self.moment);
        } else {
            self.time.sleep(time);
        }
    }
}

#[test]
fn a_cancel_stops_at_a_safe_point_and_the_job_can_be_done_again() {
    let image = firmware("2026.08", LEN);
    for wanted in 0..60 {
        let world = World::new("dfu");
        let worker = Worker::spawn(Arc::new(world.bus.clone()), world.clock.clone());
        worker.commands.send(Command::Run(stay(flash_job(&image)))).unwrap();
        let mut seen = 0;
        let report = loop {
            match worker.events.recv().unwrap() {
                Event::Finished(report) => break report,
                _ if seen == wanted => worker.commands.send(Command::Cancel).unwrap(),
                _ => {}
            }
            seen += 1;
        };
        worker.join();
        let after = world.flash();
        let whole = after[0x4000..0x4000 + LEN] == image;
        match report.outcome {
            Outcome::Flashed => assert!(whole),
            Outcome::Cancelled(DroneState::Untouched) => assert_eq!(after, World::new("dfu").flash()),
            Outcome::Cancelled(_) => assert_eq!(after[0x4000..0x4004], BLANK),
            other => panic!("{other:?}"),
        }
        // Without a replug: the session was left in order.
        let again = world.run(stay(flash_job(&image))).report.outcome;
        assert!(matches!(again, Outcome::Flashed | Outcome::Unchanged));
    }
}
