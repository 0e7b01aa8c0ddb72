//! Runs every job with every fault on each of its transfers. In all cases, the job ends in bounded time with one final
//! event; success is never reported for wrong bytes; the bootloader is unchanged unless the job restores it; the image
//! at 0x08004000 is complete, blank in its first word, or not changed yet; a read-only job changes nothing; and running
//! the same job again on the same drone succeeds.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::fault::{Fault, Faults, Script, faulty};
use cfdfu::clock::{Clock, FastClock};
use cfdfu::flash::{FIRMWARE_BASE, LOADER_BASE, Segment, Span};
use cfdfu::job::trial::Trial;
use cfdfu::job::{DroneState, Job, Keep, Leave, Outcome, Report, Selector, Task};
use cfdfu::sim::drone::SimDrone;
use cfdfu::sim::rom::Switch;
use cfdfu::sim::scenario::Scenario;
use cfdfu::sim::{SimBus, images};
use cfdfu::usb::{Bus, CRAZYFLIE, Found, Id, ROM_DFU};

use crate::support::{World, firmware, flash_job, restore_job, run, with};

/// Covers sectors 1 and 2 and 1 KiB of sector 3: every kind of step, but few transfers.
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
    // The states dfuMANIFEST, dfuIDLE and an undefined one; the statuses errVENDOR, errWRITE and errSTALLEDPKT.
    Fault::State(7),
    Fault::State(2),
    Fault::State(0xEE),
    Fault::Status(0x0B),
    Fault::Status(3),
    Fault::Status(0x0F),
];

/// Returns `drone` on port 1 and its twin in DFU mode on port 2, with a clock. In DFU mode both have the same serial
/// number; whatever happens to the first drone, no job may switch to the twin.
fn plugged_in(drone: &SimDrone) -> World {
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

/// The USB IDs of the drone on port 1; empty if it is not on the bus.
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

/// Runs a job, with a fault if one is given. Returns the report, the contents of the flash afterwards, and the number
/// of transfers.
fn run_with_fault(world: &World, job: Job, script: Option<Script>) -> (Report, Vec<u8>, u64) {
    let bus = world.bus.clone();
    let faults = Faults::new(script, move || {
        bus.with(0, |drone, now| drone.cut_power(now));
    });
    let started = world.clock.now();
    let bus = faulty(world.bus.clone(), Arc::clone(&faults));
    let report = run(Arc::new(bus), world.clock.clone(), job).report;
    let took = world.clock.now() - started;
    assert!(took < Duration::from_secs(150), "{script:?} took {took:?}");
    (report, world.flash(), faults.count())
}

/// Runs a job with every fault on each transfer. `holds` returns whether the flash and the report match a reported
/// success; `check` makes further assertions.
fn matrix(
    name: &str,
    drone: &SimDrone,
    job: &Job,
    holds: impl Fn(&[u8], &Report) -> bool,
    check: impl Fn(&[u8], &[u8], &Report, Script),
) {
    let before = bytes(drone);
    let was_running = modes_on_port_1(&plugged_in(drone)) == [CRAZYFLIE];
    let job = &on_port_1(job);
    let (report, after, transfers) = run_with_fault(&plugged_in(drone), job.clone(), None);
    assert!(ended_well(&report.outcome) && holds(&after, &report), "{name}: {:?}", report.outcome);
    let mut outcomes: BTreeMap<&str, u32> = BTreeMap::new();
    for (fault, at) in FAULTS.into_iter().flat_map(|fault| (0..transfers).map(move |at| (fault, at))) {
        let script = Script { at, fault };
        let world = plugged_in(drone);
        let (report, after, _) = run_with_fault(&world, job.clone(), Some(script));
        *outcomes.entry(label(&report.outcome)).or_default() += 1;
        assert!(
            !ended_well(&report.outcome) || holds(&after, &report),
            "{name} {script:?}: success was reported for wrong bytes"
        );
        if let Outcome::Failed(failure) = &report.outcome {
            assert!(
                !failure.drone.is_unchanged() || after == before,
                "{name} {script:?}: the flash has changed"
            );
            // If a running drone ends up in DFU mode, the report must not call it untouched.
            let is_stopped = was_running && modes_on_port_1(&world) == [ROM_DFU];
            assert!(
                !is_stopped || failure.drone != DroneState::Untouched,
                "{name} {script:?}: the drone is in DFU mode"
            );
            let is_running = modes_on_port_1(&world) == [CRAZYFLIE];
            assert!(
                !is_running || failure.drone != DroneState::Stopped,
                "{name} {script:?}: the drone is running"
            );
        }
        check(&before, &after, &report, script);
        assert!(twin_is_untouched(&world, &before), "{name} {script:?}: the twin was written to");
        world.bus.with(0, |drone, now| {
            drone.cut_power(now);
            drone.power_on_by_hand(now);
        });
        let again = world.run(job.clone()).report;
        let well = ended_well(&again.outcome) && holds(&world.flash(), &again);
        assert!(well, "{name} {script:?}: the second run: {:?}", again.outcome);
    }
    println!("{name}: {} cases over {transfers} transfers: {outcomes:?}", outcomes.values().sum::<u32>());
}

fn ended_well(outcome: &Outcome) -> bool {
    !matches!(outcome, Outcome::Failed(_) | Outcome::Cancelled(_))
}

fn label(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::Flashed => "flashed",
        Outcome::Unchanged => "unchanged",
        Outcome::Read(_) => "read",
        Outcome::Identified => "identified",
        Outcome::Failed(failure) => match failure.drone {
            DroneState::Untouched => "failed, untouched",
            DroneState::Stopped => "failed, untouched, no longer running",
            DroneState::WithoutFirmware => "failed, without firmware",
            DroneState::WithoutLoader => "failed, without bootloader",
            DroneState::TestData => "failed, with test data",
            DroneState::Mixed => "failed, mixed",
            DroneState::Flashed => "failed, flashed",
        },
        Outcome::Cancelled(_) => "cancelled",
    }
}

/// Returns the check for a flash: the bootloader is unchanged, and incomplete firmware would not boot.
fn incomplete_firmware_cannot_boot(image: &[u8]) -> impl Fn(&[u8], &[u8], &Report, Script) {
    move |before, after, _, script| {
        assert!(after[..LOADER_LEN] == before[..LOADER_LEN], "{script:?}: the bootloader has changed");
        let head = &after[LOADER_LEN..LOADER_LEN + 4];
        let whole = after[LOADER_LEN..].starts_with(image);
        assert!(whole || head == BLANK || after == before, "{script:?}: incomplete firmware would boot");
    }
}

fn keep_in_dfu(job: Job) -> Job {
    with(job, |task| task.leave = Leave::Stay)
}

fn flash_matrix(name: &str, drone: &SimDrone, job: &Job, image: &[u8]) {
    matrix(
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
    flash_matrix("flash", &drone("dfu"), &keep_in_dfu(flash_job(&image)), &image);
}

/// Returns a drone in DFU mode after `change` was applied to it.
fn changed(change: impl FnOnce(&mut SimDrone)) -> SimDrone {
    let mut drone = drone("dfu");
    change(&mut drone);
    // The ROM reads its traits when it starts.
    drone.cut_power(Duration::ZERO);
    drone.power_on_by_hand(Duration::ZERO);
    drone
}

/// Covers the traits that real chips have or may have.
#[test]
fn incomplete_firmware_cannot_boot_on_any_kind_of_chip_after_any_fault_in_a_flash() {
    let image = firmware("2026.08", images::FIRMWARE_MIN);
    let job = keep_in_dfu(flash_job(&image));
    for switch in
        [Switch::Refused, Switch::NoEffect, Switch::WriteOnly, Switch::LowSupply, Switch::LowSupplyForWords]
    {
        let drone = changed(|drone| drone.traits.switch = switch);
        flash_matrix(&format!("flash, {switch:?}"), &drone, &job, &image);
    }
    let alternates = changed(|drone| drone.traits.refuses_alternates = true);
    flash_matrix("flash, SET_INTERFACE refused", &alternates, &job, &image);
    let nameless = changed(|drone| drone.traits.lost_name = Some(6));
    flash_matrix("flash, one name missing", &nameless, &job, &image);
    let does_not_start = changed(|drone| drone.memory.rom_version = 0x31);
    flash_matrix(
        "flash, a ROM that does not start the firmware",
        &does_not_start,
        &flash_job(&image),
        &image,
    );
    let reset = with(flash_job(&image), |task| task.leave = Leave::Reset);
    flash_matrix("flash, restart by reset", &does_not_start, &reset, &image);
}

#[test]
fn incomplete_firmware_cannot_boot_after_any_fault_in_a_flash_that_keeps_a_copy() {
    let image = firmware("2026.08", LEN);
    let job = with(keep_in_dfu(flash_job(&image)), |task| task.keep = Keep::Copy);
    flash_matrix("flash with a copy kept", &drone("dfu"), &job, &image);
}

/// Covers every transfer from the vendor request for DFU mode to the query of the running version.
#[test]
fn incomplete_firmware_cannot_boot_after_any_fault_in_a_flash_of_a_running_drone() {
    let image = firmware("2026.08", LEN);
    flash_matrix("flash of a running drone", &drone("healthy"), &flash_job(&image), &image);
}

#[test]
fn incomplete_firmware_cannot_boot_after_any_fault_in_a_resumed_flash() {
    let image = firmware("2026.08", LEN);
    let job = keep_in_dfu(flash_job(&image));
    let world = plugged_in(&drone("dfu"));
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
    flash_matrix("resume", &half, &job, &image);
}

#[test]
fn flashing_the_same_image_again_changes_nothing_with_any_fault() {
    let image = firmware("2026.08", LEN);
    let world = plugged_in(&drone("dfu"));
    let flashed = world.run(on_port_1(&keep_in_dfu(flash_job(&image)))).report.outcome;
    assert_eq!(flashed, Outcome::Flashed);
    let flashed = world.bus.with(0, |drone, _| drone.clone()).unwrap();
    let job = keep_in_dfu(flash_job(&image));
    let holds = |after: &[u8], _: &Report| after[LOADER_LEN..].starts_with(&image);
    matrix("the same image again", &flashed, &job, holds, |before, after, _, script| {
        assert!(after == before, "{script:?}");
    });
}

/// Runs a restore with every fault. Afterwards, the bootloader and the firmware must each be complete, blank in the
/// first word, or unchanged.
fn restore_matrix(name: &str, image: Option<&[u8]>) {
    let loader = images::loader();
    let job = keep_in_dfu(restore_job(&loader, image));
    let holds = |after: &[u8], _: &Report| {
        after.starts_with(&loader) && image.is_none_or(|image| after[LOADER_LEN..].starts_with(image))
    };
    matrix(name, &drone("overwritten"), &job, holds, |before, after, _, script| {
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
    restore_matrix("restore", None);
}

#[test]
fn nothing_incomplete_can_start_after_any_fault_in_a_restore_with_firmware() {
    restore_matrix("restore with firmware", Some(&firmware("2026.08", images::FIRMWARE_MIN)));
}

/// Runs a read-only job with every fault. It must change nothing, and `is_correct` must accept every reported success.
fn read_only_matrix(name: &str, scenario: &str, task: Task, is_correct: impl Fn(&Outcome) -> bool) {
    let job = Job::new(task);
    matrix(
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
fn a_backup_with_any_fault_reads_the_true_content_or_fails() {
    // The first 64 KiB: a longer backup only repeats the same transfers.
    let span = Span::between(LOADER_BASE, LOADER_BASE.wide() + 0x1_0000).unwrap();
    let content = bytes(&drone("dfu"))[..0x1_0000].to_vec();
    let is_correct = |outcome: &Outcome| *outcome == Outcome::Read(content.clone());
    read_only_matrix("backup", "dfu", Task::Backup(span), is_correct);
}

#[test]
fn a_verify_with_any_fault_changes_nothing() {
    let content = bytes(&drone("dfu"))[LOADER_LEN..LOADER_LEN + LEN].to_vec();
    let segment = Segment { address: FIRMWARE_BASE, data: content };
    read_only_matrix("verify", "dfu", Task::Verify(vec![segment]), |outcome| *outcome == Outcome::Unchanged);
}

#[test]
fn a_verify_of_another_image_fails_with_any_fault() {
    let mut other = bytes(&drone("dfu"))[LOADER_LEN..LOADER_LEN + LEN].to_vec();
    other[LEN - 1] ^= 1;
    let segments = vec![Segment { address: FIRMWARE_BASE, data: other }];
    let at = Selector::At("1-1".parse().unwrap());
    let job = |segments| Job { device: at.clone(), ..Job::new(Task::Verify(segments)) };
    let (_, _, transfers) = run_with_fault(&plugged_in(&drone("dfu")), job(segments.clone()), None);
    for (fault, at) in FAULTS.into_iter().flat_map(|fault| (0..transfers).map(move |at| (fault, at))) {
        let script = Script { at, fault };
        let (report, ..) = run_with_fault(&plugged_in(&drone("dfu")), job(segments.clone()), Some(script));
        assert!(matches!(report.outcome, Outcome::Failed(_)), "{script:?}: {:?}", report.outcome);
    }
}

/// The trials of `qualify` that only read or restart change nothing. The one that writes never touches the firmware, and
/// the flash differs only if the report says so.
#[test]
fn trials_with_any_fault_keep_the_firmware_and_report_test_data() {
    let is_correct = |outcome: &Outcome| *outcome == Outcome::Identified;
    read_only_matrix("trial, read", "dfu", Task::Try(Trial::Read), is_correct);
    read_only_matrix("trial, restart", "healthy", Task::Try(Trial::Restart(Leave::Reset)), is_correct);
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
    matrix("trial, write", &drone("dfu"), &job, |_, report| is_correct(&report.outcome), check);
}

#[test]
fn an_identify_with_any_fault_changes_nothing() {
    let is_correct = |outcome: &Outcome| *outcome == Outcome::Identified;
    read_only_matrix("identify", "erased", Task::Identify, is_correct);
    read_only_matrix("identify, overwritten", "overwritten", Task::Identify, is_correct);
}

#[test]
fn an_identify_of_a_running_drone_with_any_fault_changes_nothing() {
    let is_correct = |outcome: &Outcome| *outcome == Outcome::Identified;
    read_only_matrix("identify a running drone", "healthy", Task::Identify, is_correct);
}
