//! The cable pulled at any moment, also in the middle of a transfer, and a cancel at any moment: the first word
//! of the firmware is blank, or the whole image is there, or nothing was changed yet, and the job simply done
//! again succeeds. Faults of single transfers are in `matrix`.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use cfdfu::clock::{Clock, FastClock};
use cfdfu::job::{Command, DroneState, Event, Job, Leave, Outcome};
use cfdfu::sim::SimBus;
use cfdfu::sim::drone::Drone;
use cfdfu::sim::scenario::Scenario;
use cfdfu::usb::trace::{Traced, Transfer};
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
    let (half_erased, incomplete) = cut_everywhere("dfu", 1000);
    // The cuts do hit the middle of things.
    assert!(half_erased > 20 && incomplete > 500, "{half_erased}, {incomplete}");
    for scenario in ["byte-mode", "no-effect", "blank-otp"] {
        cut_everywhere(scenario, 100);
    }
}

/// How many cuts left half a sector erased, and how many an incomplete image.
fn cut_everywhere(scenario: &str, moments: u32) -> (u32, u32) {
    let image = firmware("2026.08", LEN);
    let whole_job = World::new(scenario).run(stay(flash_job(&image))).report.took;
    let before = World::new(scenario).flash();
    let (mut half_erased, mut incomplete) = (0, 0);
    for moment in (0..moments).map(|n| whole_job * n / moments) {
        let (clock, bus) = Guillotine::at(moment, scenario, Drone::cut_power);
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
        bus.with(0, |drone, now| {
            drone.cut_power(now);
            drone.power_on_by_hand(now);
        });
        let again = run(Arc::new(bus), clock, stay(flash_job(&image))).report.outcome;
        assert!(matches!(again, Outcome::Flashed | Outcome::Unchanged), "at {moment:?}: then {again:?}");
    }
    println!("{scenario}: {half_erased} with half a sector erased, {incomplete} of {moments} incomplete");
    (half_erased, incomplete)
}

/// A clock that does something to the drone at a moment, whoever is waiting.
pub struct Guillotine {
    time: FastClock,
    moment: Duration,
    blow: fn(&mut Drone, Duration),
    bus: OnceLock<SimBus>,
}

impl Guillotine {
    /// With the drones of a scenario, the first of which is hit.
    pub fn at(moment: Duration, scenario: &str, blow: fn(&mut Drone, Duration)) -> (Arc<Guillotine>, SimBus) {
        let clock = Arc::new(Guillotine { time: FastClock::new(), moment, blow, bus: OnceLock::new() });
        let bus = SimBus::new(Scenario::by_name(scenario).unwrap().drones(Duration::ZERO), clock.clone());
        assert!(clock.bus.set(bus.clone()).is_ok());
        (clock, bus)
    }
}

impl Clock for Guillotine {
    fn now(&self) -> Duration {
        self.time.now()
    }

    fn sleep(&self, time: Duration) {
        let now = self.time.now();
        if now < self.moment && now + time >= self.moment {
            self.time.sleep(self.moment - now);
            self.bus.get().unwrap().with(0, self.blow);
            self.time.sleep(now + time - self.moment);
        } else {
            self.time.sleep(time);
        }
    }
}

/// Said in the middle of a transfer, which is when somebody says it.
#[test]
fn a_cancel_stops_at_a_safe_point_and_the_job_can_be_done_again() {
    let image = firmware("2026.08", LEN);
    let mut outcomes = [0; 3];
    for wanted in 0..120 {
        let world = World::new("dfu");
        let says = Arc::new(OnceLock::<Mutex<Sender<Command>>>::new());
        let (seen, voice) = (AtomicU32::new(0), Arc::clone(&says));
        let listener = Arc::new(move |_: &Transfer| {
            if seen.fetch_add(1, Ordering::SeqCst) == wanted * 2 {
                let _ = voice.get().unwrap().lock().unwrap().send(Command::Cancel);
            }
        });
        let bus = Arc::new(Traced::new(world.bus.clone(), listener));
        let worker = Worker::spawn(bus, world.clock.clone());
        assert!(says.set(Mutex::new(worker.commands.clone())).is_ok());
        worker.commands.send(Command::Run(stay(flash_job(&image)))).unwrap();
        let report = worker.events.iter().find_map(|event| match event {
            Event::Finished(report) => Some(report),
            _ => None,
        });
        let after = world.flash();
        let whole = after[0x4000..0x4000 + LEN] == image;
        match report.unwrap().outcome {
            Outcome::Flashed => {
                outcomes[0] += 1;
                assert!(whole);
            }
            Outcome::Cancelled(DroneState::Untouched) => {
                outcomes[1] += 1;
                assert_eq!(after, World::new("dfu").flash());
            }
            Outcome::Cancelled(_) => {
                outcomes[2] += 1;
                assert_eq!(after[0x4000..0x4004], BLANK);
            }
            other => panic!("{other:?}"),
        }
        // Without a replug: the session was left in order.
        let again = world.run(stay(flash_job(&image))).report.outcome;
        assert!(matches!(again, Outcome::Flashed | Outcome::Unchanged));
    }
    let [flashed, untouched, halfway] = outcomes;
    println!("{flashed} flashed, {untouched} stopped before anything, {halfway} stopped halfway");
    assert!(untouched > 10 && halfway > 40, "{outcomes:?}");
}
