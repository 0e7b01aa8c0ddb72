//! Runs jobs that flash, restore, read, identify or qualify a drone, with every fault at each of the job's transfers.
//! In all cases, the job ends in bounded time with a single report, and never reports success for wrong bytes. The
//! bootloader is unchanged unless the job restores it. The firmware at 0x08004000 is complete, blank in its first word,
//! or still unchanged. A read-only job changes nothing. Once the drone is in DFU mode again, a second run of the same
//! job succeeds.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use cfdfu::clock::{Clock, FastClock};
use cfdfu::flash::{FIRMWARE_BASE, LOADER_BASE, Segment, Span};
use cfdfu::job::trial::Trial;
use cfdfu::job::{DroneState, Event, Job, Keep, Leave, LogEntry, Outcome, Report, Selector, Task};
use cfdfu::sim::drone::SimDrone;
use cfdfu::sim::rom::Switch;
use cfdfu::sim::scenario::Scenario;
use cfdfu::sim::{SimBus, images};
use cfdfu::usb::{Bus, CRAZYFLIE, Found, Id, ROM_DFU};

use crate::fault::{Fault, Faults, Script, faulty};
use crate::support::{Run, World, change_flash_task, firmware, flash_job, restore_job, run};

/// The length of the image, which covers sectors 1 and 2 and 1 KiB of sector 3: enough for every kind of step, with few
/// transfers.
const LEN: usize = 33 * 1024;
const BLANK: [u8; 4] = [0xFF; 4];
const LOADER_LEN: usize = 0x4000;

pub const FAULTS: [Fault; 12] = [
    Fault::Unplug,
    Fault::Stall,
    Fault::Timeout,
    Fault::LostAnswer,
    Fault::Short,
    Fault::Busy,
    // The states dfuMANIFEST, dfuIDLE and an undefined state; the statuses errVENDOR, errWRITE and errSTALLEDPKT.
    Fault::State(7),
    Fault::State(2),
    Fault::State(0xEE),
    Fault::Status(0x0B),
    Fault::Status(3),
    Fault::Status(0x0F),
];

/// Returns a world with `drone` on port 1 and its twin in DFU mode on port 2. In DFU mode, both drones have the same
/// serial number, but no job may switch to the twin, whatever happens to the first drone.
fn with_twin(drone: &SimDrone) -> World {
    let clock = Arc::new(FastClock::new());
    let mut twin = drone.clone();
    twin.traits.uid[4] ^= 1;
    twin.cut_power(Duration::ZERO);
    twin.power_on_by_hand(Duration::ZERO);
    World { bus: SimBus::new(vec![drone.clone(), twin], clock.clone()), clock }
}

/// Restricts the job to the drone on port 1.
fn on_port_1(job: &Job) -> Job {
    Job { device: Selector::At("1-1".parse().unwrap()), ..job.clone() }
}

/// Returns the USB ID of the drone on port 1, or no ID if the drone is not on the bus.
fn modes_on_port_1(world: &World) -> Vec<Id> {
    let port_1 = |found: &Found| found.location == "1-1".parse().unwrap();
    world.bus.list().unwrap().iter().filter(|found| port_1(found)).map(|found| found.id).collect()
}

fn twin_is_untouched(world: &World, before: &[u8]) -> bool {
    world.bus.with(1, |twin, _| twin.memory.flash.bytes() == before).unwrap()
}

fn drone(scenario: &str) -> SimDrone {
    Scenario::by_name(scenario).unwrap().drones(Duration::ZERO).remove(0)
}

fn bytes(drone: &SimDrone) -> Vec<u8> {
    drone.memory.flash.bytes().to_vec()
}

/// Runs a job, with a fault if a script is given. Returns the report, the contents of the flash afterwards, and the
/// number of transfers.
fn run_with_fault(world: &World, job: Job, script: Option<Script>) -> (Report, Vec<u8>, u64) {
    let bus = world.bus.clone();
    let faults = Faults::new(script, move || {
        bus.with(0, |drone, now| drone.cut_power(now));
    });
    let started = world.clock.now();
    let bus = faulty(world.bus.clone(), Arc::clone(&faults));
    let Run { report, events } = run(Arc::new(bus), world.clock.clone(), job);
    let took = world.clock.now() - started;
    assert!(took < Duration::from_secs(150), "{script:?} took {took:?}");
    // A drone that is lost cannot be restarted.
    let is_lost = matches!(&report.outcome, Outcome::Failed(failure) if failure.is_lost());
    let has_left = events.iter().any(|event| matches!(event, Event::Log(_, LogEntry::Leaving)));
    assert!(!is_lost || !has_left, "{script:?}: cfdfu tried to restart a drone that it had lost");
    (report, world.flash(), faults.count())
}

/// Runs a job with every fault at each transfer. `is_correct` returns whether the contents of the flash and the report
/// are correct for a successful job; `check` makes further assertions.
fn run_matrix(
    name: &str,
    drone: &SimDrone,
    job: &Job,
    is_correct: impl Fn(&[u8], &Report) -> bool,
    check: impl Fn(&[u8], &[u8], &Report, Script),
) {
    let before = bytes(drone);
    let was_running = modes_on_port_1(&with_twin(drone)) == [CRAZYFLIE];
    let job = &on_port_1(job);
    let (report, after, transfers) = run_with_fault(&with_twin(drone), job.clone(), None);
    assert!(succeeded(&report.outcome) && is_correct(&after, &report), "{name}: {:?}", report.outcome);
    let mut outcomes: BTreeMap<&str, u32> = BTreeMap::new();
    for (fault, at) in FAULTS.into_iter().flat_map(|fault| (0..transfers).map(move |at| (fault, at))) {
        let script = Script { at, fault };
        let world = with_twin(drone);
        let (report, after, _) = run_with_fault(&world, job.clone(), Some(script));
        *outcomes.entry(describe(&report.outcome)).or_default() += 1;
        assert!(
            !succeeded(&report.outcome) || is_correct(&after, &report),
            "{name} {script:?}: success was reported for wrong bytes"
        );
        if let Outcome::Failed(failure) = &report.outcome {
            assert!(
                !failure.drone.is_unchanged() || after == before,
                "{name} {script:?}: reported as unchanged, but the flash has changed"
            );
            // If a running drone ends up in DFU mode, the report must not call the drone untouched.
            let is_stopped = was_running && modes_on_port_1(&world) == [ROM_DFU];
            assert!(
                !is_stopped || failure.drone != DroneState::Untouched,
                "{name} {script:?}: reported as untouched, but the drone is in DFU mode"
            );
            let is_running = modes_on_port_1(&world) == [CRAZYFLIE];
            assert!(
                !is_running || failure.drone != DroneState::Stopped,
                "{name} {script:?}: reported as stopped, but the drone is running"
            );
        }
        check(&before, &after, &report, script);
        assert!(twin_is_untouched(&world, &before), "{name} {script:?}: the twin was written to");
        world.bus.with(0, |drone, now| {
            drone.cut_power(now);
            drone.power_on_by_hand(now);
        });
        let again = world.run(job.clone()).report;
        let is_well = succeeded(&again.outcome) && is_correct(&world.flash(), &again);
        assert!(is_well, "{name} {script:?}: the second run did not succeed: {:?}", again.outcome);
    }
    println!("{name}: {} cases over {transfers} transfers: {outcomes:?}", outcomes.values().sum::<u32>());
}

fn succeeded(outcome: &Outcome) -> bool {
    !matches!(outcome, Outcome::Failed(_) | Outcome::Cancelled(_))
}

fn describe(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::Flashed => "flashed",
        Outcome::Unchanged => "unchanged",
        Outcome::Read(_) => "read",
        Outcome::Identified => "identified",
        Outcome::Failed(failure) => match failure.drone {
            DroneState::Untouched => "failed, untouched",
            DroneState::Stopped => "failed, unchanged, no longer running",
            DroneState::WithoutFirmware => "failed, without firmware",
            DroneState::WithoutLoader => "failed, without bootloader",
            DroneState::TestData => "failed, with test data",
            DroneState::Mixed => "failed, mixed",
            DroneState::Flashed => "failed, flashed",
        },
        Outcome::Cancelled(_) => "cancelled",
    }
}

/// Returns a check that the bootloader is unchanged and that incomplete firmware cannot boot.
fn incomplete_firmware_cannot_boot(image: &[u8]) -> impl Fn(&[u8], &[u8], &Report, Script) {
    move |before, after, _, script| {
        assert!(after[..LOADER_LEN] == before[..LOADER_LEN], "{script:?}: the bootloader has changed");
        let head = &after[LOADER_LEN..LOADER_LEN + 4];
        let is_whole = after[LOADER_LEN..].starts_with(image);
        assert!(is_whole || head == BLANK || after == before, "{script:?}: incomplete firmware would boot");
    }
}

fn keep_in_dfu(job: Job) -> Job {
    change_flash_task(job, |task| task.leave = Leave::Stay)
}

fn run_flash_matrix(name: &str, drone: &SimDrone, job: &Job, image: &[u8]) {
    run_matrix(
        name,
        drone,
        job,
        |after, _| after[LOADER_LEN..].starts_with(image),
        incomplete_firmware_cannot_boot(image),
    );
}

#[test]
fn incomplete_firmware_cannot_boot_after_any_fault_in_a_flash() {
    let image = firmware("2026.08", LEN);
    run_flash_matrix("flash", &drone("dfu"), &keep_in_dfu(flash_job(&image)), &image);
}

/// Returns a drone in DFU mode to which `change` has been applied.
fn drone_with(change: impl FnOnce(&mut SimDrone)) -> SimDrone {
    let mut drone = drone("dfu");
    change(&mut drone);
    // Some traits take effect only when the simulated ROM starts, so restart the drone.
    drone.cut_power(Duration::ZERO);
    drone.power_on_by_hand(Duration::ZERO);
    drone
}

/// Covers behaviours that real chips have or may have.
#[test]
fn incomplete_firmware_cannot_boot_on_any_kind_of_chip_after_any_fault_in_a_flash() {
    let image = firmware("2026.08", images::FIRMWARE_MIN);
    let job = keep_in_dfu(flash_job(&image));
    for switch in
        [Switch::Refused, Switch::NoEffect, Switch::WriteOnly, Switch::LowSupply, Switch::LowSupplyForWords]
    {
        let drone = drone_with(|drone| drone.traits.switch = switch);
        run_flash_matrix(&format!("flash, {switch:?}"), &drone, &job, &image);
    }
    let alternates = drone_with(|drone| drone.traits.refuses_alternates = true);
    run_flash_matrix("flash, SET_INTERFACE refused", &alternates, &job, &image);
    let nameless = drone_with(|drone| drone.traits.lost_name = Some(6));
    run_flash_matrix("flash, one name missing", &nameless, &job, &image);
    let does_not_start = drone_with(|drone| drone.memory.rom_version = 0x31);
    run_flash_matrix(
        "flash, a ROM that does not start the firmware",
        &does_not_start,
        &flash_job(&image),
        &image,
    );
    let reset = change_flash_task(flash_job(&image), |task| task.leave = Leave::Reset);
    run_flash_matrix("flash, restart by reset", &does_not_start, &reset, &image);
}

#[test]
fn incomplete_firmware_cannot_boot_after_any_fault_in_a_flash_that_keeps_a_copy() {
    let image = firmware("2026.08", LEN);
    let job = change_flash_task(keep_in_dfu(flash_job(&image)), |task| task.keep = Keep::Copy);
    run_flash_matrix("flash that keeps a copy", &drone("dfu"), &job, &image);
}

/// Covers every transfer, including the request to enter DFU mode and the queries after the restart.
#[test]
fn incomplete_firmware_cannot_boot_after_any_fault_in_a_flash_of_a_running_drone() {
    let image = firmware("2026.08", LEN);
    run_flash_matrix("flash of a running drone", &drone("healthy"), &flash_job(&image), &image);
}

#[test]
fn incomplete_firmware_cannot_boot_after_any_fault_in_a_resumed_flash() {
    let image = firmware("2026.08", LEN);
    let job = keep_in_dfu(flash_job(&image));
    let world = with_twin(&drone("dfu"));
    run_with_fault(&world, on_port_1(&job), Some(Script { at: 110, fault: Fault::Unplug }));
    let half = world
        .bus
        .with(0, |drone, now| {
            drone.power_on_by_hand(now);
            drone.clone()
        })
        .unwrap();
    let before = bytes(&half);
    assert!(before[LOADER_LEN..LOADER_LEN + 4] == BLANK && !before[LOADER_LEN..].starts_with(&image));
    run_flash_matrix("resume", &half, &job, &image);
}

#[test]
fn flashing_the_same_image_again_changes_nothing_whatever_the_fault() {
    let image = firmware("2026.08", LEN);
    let world = with_twin(&drone("dfu"));
    let flashed = world.run(on_port_1(&keep_in_dfu(flash_job(&image)))).report.outcome;
    assert_eq!(flashed, Outcome::Flashed);
    let flashed = world.bus.with(0, |drone, _| drone.clone()).unwrap();
    let job = keep_in_dfu(flash_job(&image));
    let is_correct = |after: &[u8], _: &Report| after[LOADER_LEN..].starts_with(&image);
    run_matrix("the same image again", &flashed, &job, is_correct, |before, after, _, script| {
        assert!(after == before, "{script:?}");
    });
}

/// Runs a restore with every fault. Afterwards, the bootloader must be complete, blank in its first word, or unchanged.
/// The same applies to the firmware if the job writes it; otherwise, the firmware must be unchanged.
fn run_restore_matrix(name: &str, image: Option<&[u8]>) {
    let loader = images::loader();
    let job = keep_in_dfu(restore_job(&loader, image));
    let is_correct = |after: &[u8], _: &Report| {
        after.starts_with(&loader) && image.is_none_or(|image| after[LOADER_LEN..].starts_with(image))
    };
    run_matrix(name, &drone("overwritten"), &job, is_correct, |before, after, _, script| {
        let is_sound = |from: usize, to: usize, part: &[u8]| {
            let (after, before) = (&after[from..to], &before[from..to]);
            after.starts_with(part) || after[..4] == BLANK || after == before
        };
        assert!(is_sound(0, LOADER_LEN, &loader), "{script:?}: an incomplete bootloader would start");
        match image {
            Some(image) => assert!(
                is_sound(LOADER_LEN, after.len(), image),
                "{script:?}: incomplete firmware would boot"
            ),
            None => {
                assert!(after[LOADER_LEN..] == before[LOADER_LEN..], "{script:?}: the firmware has changed");
            }
        }
    });
}

#[test]
fn an_incomplete_bootloader_cannot_start_after_any_fault_in_a_restore() {
    run_restore_matrix("restore", None);
}

#[test]
fn no_incomplete_image_can_start_after_any_fault_in_a_restore_with_firmware() {
    run_restore_matrix("restore with firmware", Some(&firmware("2026.08", images::FIRMWARE_MIN)));
}

/// Runs a read-only job with every fault. The job must not change the flash, and `is_correct` must accept the outcome
/// of every successful run.
fn run_read_only_matrix(name: &str, scenario: &str, task: Task, is_correct: impl Fn(&Outcome) -> bool) {
    let job = Job::new(task);
    run_matrix(
        name,
        &drone(scenario),
        &job,
        |_, report| is_correct(&report.outcome),
        |before, after, _, script| {
            assert!(after == before, "{script:?}");
        },
    );
}

#[test]
fn a_backup_with_any_fault_reads_the_correct_contents_or_fails() {
    // Read only the first 64 KiB: a longer backup only repeats the same transfers.
    let span = Span::between(LOADER_BASE, LOADER_BASE.wide() + 0x1_0000).unwrap();
    let content = bytes(&drone("dfu"))[..0x1_0000].to_vec();
    let is_correct = |outcome: &Outcome| *outcome == Outcome::Read(content.clone());
    run_read_only_matrix("backup", "dfu", Task::Backup(span), is_correct);
}

#[test]
fn a_verify_with_any_fault_changes_nothing() {
    let content = bytes(&drone("dfu"))[LOADER_LEN..LOADER_LEN + LEN].to_vec();
    let segment = Segment { address: FIRMWARE_BASE, data: content };
    let is_correct = |outcome: &Outcome| *outcome == Outcome::Unchanged;
    run_read_only_matrix("verify", "dfu", Task::Verify(vec![segment]), is_correct);
}

#[test]
fn a_verify_of_a_different_image_fails_whatever_the_fault() {
    let mut other = bytes(&drone("dfu"))[LOADER_LEN..LOADER_LEN + LEN].to_vec();
    other[LEN - 1] ^= 1;
    let segments = vec![Segment { address: FIRMWARE_BASE, data: other }];
    let at = Selector::At("1-1".parse().unwrap());
    let job = |segments| Job { device: at.clone(), ..Job::new(Task::Verify(segments)) };
    let (_, _, transfers) = run_with_fault(&with_twin(&drone("dfu")), job(segments.clone()), None);
    for (fault, at) in FAULTS.into_iter().flat_map(|fault| (0..transfers).map(move |at| (fault, at))) {
        let script = Script { at, fault };
        let (report, ..) = run_with_fault(&with_twin(&drone("dfu")), job(segments.clone()), Some(script));
        assert!(matches!(report.outcome, Outcome::Failed(_)), "{script:?}: {:?}", report.outcome);
    }
}

/// The trials of `qualify` that only read or restart do not change the flash. The write trial never changes the
/// firmware, and if test data remains in the last sector, its report shows this.
#[test]
fn trials_with_any_fault_keep_the_firmware_and_report_test_data() {
    let is_correct = |outcome: &Outcome| *outcome == Outcome::Identified;
    run_read_only_matrix("trial, read", "dfu", Task::Try(Trial::Read), is_correct);
    run_read_only_matrix("trial, restart", "healthy", Task::Try(Trial::Restart(Leave::Reset)), is_correct);
    let check = |before: &[u8], after: &[u8], report: &Report, script: Script| {
        let last = before.len() - 128 * 1024;
        assert!(after[..last] == before[..last], "{script:?}: the firmware has changed");
        let state = match &report.outcome {
            Outcome::Failed(failure) => failure.drone,
            Outcome::Cancelled(state) => *state,
            _ => DroneState::Untouched,
        };
        let is_blank = after[last..].iter().all(|&byte| byte == 0xFF);
        assert!(is_blank || state == DroneState::TestData, "{script:?}: {:?}", report.outcome);
    };
    let job = Job::new(Task::Try(Trial::Write));
    run_matrix("trial, write", &drone("dfu"), &job, |_, report| is_correct(&report.outcome), check);
}

#[test]
fn an_identify_with_any_fault_changes_nothing() {
    let is_correct = |outcome: &Outcome| *outcome == Outcome::Identified;
    run_read_only_matrix("identify", "erased", Task::Identify, is_correct);
    run_read_only_matrix("identify, overwritten", "overwritten", Task::Identify, is_correct);
}

#[test]
fn an_identify_of_a_running_drone_with_any_fault_changes_nothing() {
    let is_correct = |outcome: &Outcome| *outcome == Outcome::Identified;
    run_read_only_matrix("identify a running drone", "healthy", Task::Identify, is_correct);
}
