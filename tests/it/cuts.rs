//! The cable pulled at any moment, also in the middle of a transfer, and a cancel at any moment: the first word
//! of the firmware is blank, or the whole image is there, or nothing was changed yet, and the job simply done
//! again succeeds. Faults of single transfers are in `matrix`.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use cfdfu::clock::{Clock, FastClock};
use cfdfu::job::{Command, DroneState, Event, Job, Leave, Outcome};
use cfdfu::sim::SimBus;
use cfdfu::sim::scenario::Scenario;
use cfdfu::worker::Worker;

use crate::support::{World, firmware, flash_job, run, with};

/// Sectors 1 to 3 and one block of 4: every kind of step, in few transfers.
const LEN: usize = 50 * 1024;
const BLANK: [u8; 4] = [0xFF; 4];

fn stay(job: Job) -> Job {
    with(job, |task| task.leave = Leave::Stay)
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
