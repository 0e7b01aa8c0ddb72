//! Pulls the cable or cancels the job at any moment of a flash, even in the middle of a transfer. Afterwards, either
//! the first word of the firmware is blank, or the whole image is written, or nothing after the first sector of the
//! firmware has changed. Running the same job again succeeds. `matrix` covers faults in single transfers.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use crate::fault::{Fault, Faults, Script, faulty};
use cfdfu::clock::{Clock, FastClock};
use cfdfu::job::{Command, DroneState, Failure, FailureKind, Job, Leave, Outcome, Report, Selector};
use cfdfu::sim::SimBus;
use cfdfu::sim::drone::SimDrone;
use cfdfu::sim::scenario::Scenario;
use cfdfu::usb::trace::{Traced, Transfer};
use cfdfu::worker::Worker;

use crate::support::{World, change_flash_task, firmware, flash_job, run, wait_for_outcome};

/// Length of the image, which covers sectors 1 to 3 and one block of sector 4. A flash of this image has every kind of
/// step, but few transfers.
const LEN: usize = 50 * 1024;
const BLANK: [u8; 4] = [0xFF; 4];

fn keep_in_dfu(job: Job) -> Job {
    change_flash_task(job, |task| task.leave = Leave::Stay)
}

/// If the cable is pulled in the middle of a transfer, an erase or a write, that operation remains incomplete.
#[test]
fn incomplete_firmware_cannot_boot_after_a_cut_at_any_moment_of_a_flash() {
    let (half_erased, incomplete) = cut_everywhere("dfu", 1000, SimDrone::cut_power);
    // Check that the cuts really interrupted erases and writes.
    assert!(half_erased > 20 && incomplete > 500, "{half_erased}, {incomplete}");
    for scenario in ["byte-mode", "no-effect", "blank-otp", "twins"] {
        cut_everywhere(scenario, 100, SimDrone::cut_power);
    }
}

/// Host controllers report transfer errors for a while before they report the disconnect. No matter when the errors
/// begin, the job must recognise that the drone is lost.
#[test]
fn a_cable_that_works_loose_at_any_moment_is_reported_as_a_lost_drone() {
    for (scenario, moments) in [("dfu", 300), ("twins", 60), ("byte-mode", 60)] {
        cut_everywhere(scenario, moments, SimDrone::work_loose);
    }
}

/// Contacts bounce when a drone is plugged in again. If the connection drops a second time, at any of the first 60
/// transfers, the drone is still reported as lost, and the flash can be resumed again once the drone is back.
#[test]
fn a_flash_whose_drone_is_lost_again_while_resuming_can_be_resumed_again() {
    let image = firmware("2026.08", LEN);
    let lost = |report: &Report| match &report.outcome {
        Outcome::Failed(failure) => is_gone(failure).then_some(failure.drone),
        _ => None,
    };
    for transfer in 0..60 {
        let world = World::new("dfu");
        let unplugging_bus = |world: &World, at: u64| {
            let bus = world.bus.clone();
            let script = Script { at, fault: Fault::Unplug };
            let faults = Faults::new(Some(script), move || {
                bus.with(0, |drone, now| drone.cut_power(now));
            });
            Arc::new(faulty(world.bus.clone(), faults))
        };
        let first =
            run(unplugging_bus(&world, 110), world.clock.clone(), keep_in_dfu(flash_job(&image))).report;
        let state = lost(&first).expect("the drone is lost while flashing");
        assert_eq!(state, DroneState::WithoutFirmware);
        world.bus.with(0, |drone, now| drone.power_on_by_hand(now));
        let resumed = || {
            let serial = Some("338133873034".to_owned());
            let job = Job {
                serial,
                device: Selector::At("1-1".parse().unwrap()),
                ..keep_in_dfu(flash_job(&image))
            };
            change_flash_task(job, |task| *task = task.clone().resumed(state))
        };
        let second = run(unplugging_bus(&world, transfer), world.clock.clone(), resumed()).report;
        assert_eq!(lost(&second), Some(state), "at {transfer}: {:?}", second.outcome);
        world.bus.with(0, |drone, now| drone.power_on_by_hand(now));
        assert_eq!(world.run(resumed()).report.outcome, Outcome::Flashed, "at {transfer}");
    }
}

/// Returns whether the drone was lost, or disappeared before it was selected. In the second case, a job with a wait
/// time would keep waiting.
fn is_gone(failure: &Failure) -> bool {
    failure.is_lost() || matches!(failure.kind, FailureKind::NoDevice | FailureKind::NoMatch(_))
}

/// Runs a job `moments` times, and applies `action` at a later moment each time. Returns how many runs left the first
/// sector of the firmware half erased, and how many ended without the whole image in flash.
fn cut_everywhere(scenario: &str, moments: u32, action: fn(&mut SimDrone, Duration)) -> (u32, u32) {
    let image = firmware("2026.08", LEN);
    let job = || Job { device: Selector::At("1-1".parse().unwrap()), ..keep_in_dfu(flash_job(&image)) };
    let twin = |bus: &SimBus| bus.with(1, |drone, _| drone.memory.flash.bytes().to_vec());
    let whole_job = World::new(scenario).run(job()).report.took;
    let twin_before = twin(&World::new(scenario).bus);
    let before = World::new(scenario).flash();
    let (mut half_erased, mut incomplete) = (0, 0);
    for moment in (0..moments).map(|n| whole_job * n / moments) {
        let (clock, bus) = PowerCutClock::at(moment, scenario, action);
        let outcome = run(Arc::new(bus.clone()), clock.clone(), job()).report.outcome;
        assert!(
            !matches!(&outcome, Outcome::Failed(failure) if !is_gone(failure)),
            "at {moment:?}: {outcome:?}"
        );
        assert!(twin(&bus) == twin_before, "at {moment:?}: the twin has changed");
        let after = bus.with(0, |drone, _| drone.memory.flash.bytes().to_vec()).unwrap();
        let is_whole = after[0x4000..0x4000 + LEN] == image;
        let head = &after[0x4000..0x4004];
        // The first sector of the firmware is erased first. Until its first word is blank, no later sector may change.
        let erasing_head = head == &before[0x4000..0x4004] && after[0x8000..] == before[0x8000..];
        assert!(is_whole || head == BLANK || erasing_head, "at {moment:?}: incomplete firmware would boot");
        assert_eq!(after[..0x4000], before[..0x4000], "at {moment:?}: the bootloader has changed");
        assert!(outcome != Outcome::Flashed || is_whole);
        half_erased += u32::from(after[0x4000] == 0xFF && after[0x7FFF] == before[0x7FFF]);
        incomplete += u32::from(!is_whole);
        bus.with(0, |drone, now| {
            drone.cut_power(now);
            drone.power_on_by_hand(now);
        });
        let again = run(Arc::new(bus), clock, job()).report.outcome;
        assert!(
            matches!(again, Outcome::Flashed | Outcome::Unchanged),
            "at {moment:?}: the second run: {again:?}"
        );
    }
    println!(
        "{scenario}: {half_erased} with half a sector erased, {incomplete} of {moments} without the whole image"
    );
    (half_erased, incomplete)
}

/// A clock that applies `action` to the first drone at `moment`, no matter which thread is waiting.
pub struct PowerCutClock {
    time: FastClock,
    moment: Duration,
    action: fn(&mut SimDrone, Duration),
    bus: OnceLock<SimBus>,
}

impl PowerCutClock {
    /// Returns the clock and a bus with the drones of `scenario`.
    pub fn at(
        moment: Duration,
        scenario: &str,
        action: fn(&mut SimDrone, Duration),
    ) -> (Arc<PowerCutClock>, SimBus) {
        let clock = Arc::new(PowerCutClock { time: FastClock::new(), moment, action, bus: OnceLock::new() });
        let bus = SimBus::new(Scenario::by_name(scenario).unwrap().drones(Duration::ZERO), clock.clone());
        assert!(clock.bus.set(bus.clone()).is_ok());
        (clock, bus)
    }
}

impl Clock for PowerCutClock {
    fn now(&self) -> Duration {
        self.time.now()
    }

    fn sleep(&self, time: Duration) {
        let now = self.time.now();
        if now < self.moment && now + time >= self.moment {
            self.time.sleep(self.moment - now);
            self.bus.get().unwrap().with(0, self.action);
            self.time.sleep(now + time - self.moment);
        } else {
            self.time.sleep(time);
        }
    }
}

/// Each run sends the cancel command at the end of a different transfer, before the worker continues.
#[test]
fn a_cancelled_job_stops_at_a_safe_point_and_can_be_run_again() {
    let image = firmware("2026.08", LEN);
    let mut outcomes = [0; 3];
    for wanted in 0..120 {
        let world = World::new("dfu");
        let commands = Arc::new(OnceLock::<Mutex<Sender<Command>>>::new());
        let (seen, to_worker) = (AtomicU32::new(0), Arc::clone(&commands));
        let listener = Arc::new(move |_: &Transfer| {
            if seen.fetch_add(1, Ordering::SeqCst) == wanted * 2 {
                let _ = to_worker.get().unwrap().lock().unwrap().send(Command::Cancel);
            }
        });
        let bus = Arc::new(Traced::new(world.bus.clone(), listener));
        let worker = Worker::spawn(bus, world.clock.clone());
        assert!(commands.set(Mutex::new(worker.commands.clone())).is_ok());
        worker.commands.send(Command::Run(Box::new(keep_in_dfu(flash_job(&image))))).unwrap();
        let outcome = wait_for_outcome(&worker).unwrap();
        let after = world.flash();
        let is_whole = after[0x4000..0x4000 + LEN] == image;
        match outcome {
            Outcome::Flashed => {
                outcomes[0] += 1;
                assert!(is_whole);
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
        // The drone need not be plugged in again, because the worker has closed the session properly.
        let again = world.run(keep_in_dfu(flash_job(&image))).report.outcome;
        assert!(matches!(again, Outcome::Flashed | Outcome::Unchanged));
    }
    let [flashed, untouched, halfway] = outcomes;
    println!("{flashed} flashed, {untouched} cancelled before any change, {halfway} cancelled halfway");
    assert!(untouched > 10 && halfway > 40, "{outcomes:?}");
}
