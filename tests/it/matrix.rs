//! Every job × every transfer of it × every way in which a transfer can go wrong. Whatever happens and when:
//! the job ends, in bounded time, with one last event; nothing is claimed for wrong bytes; the bootloader is as it
//! was unless it is restored; at 0x08004000 is the whole image or a blank first word, or nothing was changed yet;
//! what only reads changes nothing; and the same job on the same drone, done again, succeeds.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::fault::{Fault, Faults, Script, faulty};
use cfdfu::clock::{Clock, FastClock};
use cfdfu::flash::{FIRMWARE_BASE, LOADER_BASE, Segment, Span};
use cfdfu::job::{DroneState, Job, Keep, Leave, Outcome, Report, Selector, Task};
use cfdfu::sim::drone::SimDrone;
use cfdfu::sim::rom::Switch;
use cfdfu::sim::scenario::Scenario;
use cfdfu::sim::{SimBus, images};
use cfdfu::usb::{Bus, CRAZYFLIE, Found, Id, ROM_DFU};

use crate::support::{World, firmware, flash_job, restore_job, run, with};

/// Sectors 1 and 2 and a little of sector 3: every kind of step, in few transfers.
const LEN: usize = 33 * 1024;
const BLANK: [u8; 4] = [0xFF; 4];
const LOADER_LEN: usize = 0x4000;

const FAULTS: [Fault; 12] = [
    Fault::Unplug,
    Fault::Stall,
    Fault::Timeout,
    Fault::LostAnswer,
    Fault::Short,
    Fault::Busy,
    // dfuMANIFEST, dfuIDLE, a number that is no state; errWRITE, errVENDOR, errSTALLEDPKT.
    Fault::State(7),
    Fault::State(2),
    Fault::State(0xEE),
    Fault::Status(0x0B),
    Fault::Status(3),
    Fault::Status(0x0F),
];

/// A drone as it is before the job on port 1, its twin in DFU mode on port 2, and a clock for them. The twin shows the same
/// serial number there: nothing that happens to the first may lead a job to it.
fn plugged_in(drone: &SimDrone) -> World {
    let clock = Arc::new(FastClock::new());
    let mut twin = drone.clone();
    twin.traits.uid[4] ^= 1;
    twin.cut_power(Duration::ZERO);
    twin.power_on_by_hand(Duration::ZERO);
    World { bus: SimBus::new(vec![drone.clone(), twin], clock.clone()), clock }
}

/// The job for the drone on port 1.
fn on_port_1(job: &Job) -> Job {
    Job { device: Selector::At("1-1".parse().unwrap()), ..job.clone() }
}

/// What the drone is on the bus, if it is there.
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

/// A job with this fault; the report, what the drone holds then, and how many transfers there were.
fn cut(world: &World, job: Job, script: Option<Script>) -> (Report, Vec<u8>, u64) {
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

/// All cases of one job: `holds` says whether a success is true, by what the drone holds and what was reported; `check`
/// looks at the rest.
fn matrix(
    name: &str,
    drone: &SimDrone,
    job: &Job,
    holds: impl Fn(&[u8], &Report) -> bool,
    check: impl Fn(&[u8], &[u8], &Report, Script),
) {
    let before = bytes(drone);
    let ran = modes_on_port_1(&plugged_in(drone)) == [CRAZYFLIE];
    let job = &on_port_1(job);
    let (report, after, transfers) = cut(&plugged_in(drone), job.clone(), None);
    assert!(ended_well(&report.outcome) && holds(&after, &report), "{name}: {:?}", report.outcome);
    let mut outcomes: BTreeMap<&str, u32> = BTreeMap::new();
    for (fault, at) in FAULTS.into_iter().flat_map(|fault| (0..transfers).map(move |at| (fault, at))) {
        let script = Script { at, fault };
        let world = plugged_in(drone);
        let (report, after, _) = cut(&world, job.clone(), Some(script));
        *outcomes.entry(word(&report.outcome)).or_default() += 1;
        assert!(
            !ended_well(&report.outcome) || holds(&after, &report),
            "{name} {script:?}: success for wrong bytes"
        );
        if let Outcome::Failed(failure) = &report.outcome {
            assert!(!failure.drone.is_unchanged() || after == before, "{name} {script:?}: not untouched");
            // A drone that ran is never left in DFU mode without a word.
            let is_left = ran && modes_on_port_1(&world) == [ROM_DFU];
            assert!(
                !is_left || failure.drone != DroneState::Untouched,
                "{name} {script:?}: left in DFU mode"
            );
            let runs = modes_on_port_1(&world) == [CRAZYFLIE];
            assert!(!runs || failure.drone != DroneState::Stopped, "{name} {script:?}: it runs");
        }
        check(&before, &after, &report, script);
        assert!(twin_is_untouched(&world, &before), "{name} {script:?}: the twin was written");
        world.bus.with(0, |drone, now| {
            drone.cut_power(now);
            drone.power_on_by_hand(now);
        });
        let again = world.run(job.clone()).report;
        let well = ended_well(&again.outcome) && holds(&world.flash(), &again);
        assert!(well, "{name} {script:?}: then {:?}", again.outcome);
    }
    println!("{name}: {} cases over {transfers} transfers: {outcomes:?}", outcomes.values().sum::<u32>());
}

fn ended_well(outcome: &Outcome) -> bool {
    !matches!(outcome, Outcome::Failed(_) | Outcome::Cancelled(_))
}

fn word(outcome: &Outcome) -> &'static str {
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
            DroneState::Mixed => "failed, mixed",
            DroneState::Flashed => "failed, flashed",
        },
        Outcome::Cancelled(_) => "cancelled",
    }
}

/// The rules of a flash: the bootloader as it was, and no half firmware that would be started.
fn no_half_firmware(image: &[u8]) -> impl Fn(&[u8], &[u8], &Report, Script) {
    move |before, after, _, script| {
        assert!(after[..LOADER_LEN] == before[..LOADER_LEN], "{script:?}: the bootloader was touched");
        let head = &after[LOADER_LEN..LOADER_LEN + 4];
        let whole = after[LOADER_LEN..].starts_with(image);
        assert!(whole || head == BLANK || after == before, "{script:?}: half a firmware would start");
    }
}

fn stay(job: Job) -> Job {
    with(job, |task| task.leave = Leave::Stay)
}

fn flash_matrix(name: &str, drone: &SimDrone, job: &Job, image: &[u8]) {
    matrix(name, drone, job, |after, _| after[LOADER_LEN..].starts_with(image), no_half_firmware(image));
}

#[test]
fn flash() {
    let image = firmware("2026.08", LEN);
    flash_matrix("flash", &drone("dfu"), &stay(flash_job(&image)), &image);
}

/// A drone in DFU mode whose chip has this manner.
fn chip(manner: impl FnOnce(&mut SimDrone)) -> SimDrone {
    let mut drone = drone("dfu");
    manner(&mut drone);
    // The ROM takes its manners when it starts.
    drone.cut_power(Duration::ZERO);
    drone.power_on_by_hand(Duration::ZERO);
    drone
}

/// The manners that real chips have or may have, each with every fault at every transfer.
#[test]
fn flash_on_every_kind_of_chip() {
    let image = firmware("2026.08", images::FIRMWARE_MIN);
    let job = stay(flash_job(&image));
    for switch in
        [Switch::Refused, Switch::NoEffect, Switch::WriteOnly, Switch::LowSupply, Switch::LowSupplyForWords]
    {
        let drone = chip(|drone| drone.traits.switch = switch);
        flash_matrix(&format!("flash, {switch:?}"), &drone, &job, &image);
    }
    let alternates = chip(|drone| drone.traits.refuses_alternates = true);
    flash_matrix("flash, SET_INTERFACE refused", &alternates, &job, &image);
    let nameless = chip(|drone| drone.traits.lost_name = Some(6));
    flash_matrix("flash, a name lost", &nameless, &job, &image);
    let dark = chip(|drone| drone.memory.rom_version = 0x31);
    flash_matrix("flash, a ROM that leaves it dark", &dark, &flash_job(&image), &image);
    let reset = with(flash_job(&image), |task| task.leave = Leave::Reset);
    flash_matrix("flash, left by a reset", &dark, &reset, &image);
}

#[test]
fn flash_with_a_copy_kept() {
    let image = firmware("2026.08", LEN);
    let job = with(stay(flash_job(&image)), |task| task.keep = Keep::Copy);
    flash_matrix("flash with a copy kept", &drone("dfu"), &job, &image);
}

/// From the vendor request to the proof of what runs.
#[test]
fn flash_of_a_running_drone() {
    let image = firmware("2026.08", LEN);
    flash_matrix("flash of a running drone", &drone("healthy"), &flash_job(&image), &image);
}

#[test]
fn resume() {
    let image = firmware("2026.08", LEN);
    let job = stay(flash_job(&image));
    let world = plugged_in(&drone("dfu"));
    cut(&world, on_port_1(&job), Some(Script { at: 110, fault: Fault::Unplug }));
    let half = world
        .bus
        .with(0, |drone, now| {
            drone.power_on_by_hand(now);
            drone.clone()
        })
        .unwrap();
    let there = bytes(&half);
    assert!(there[LOADER_LEN..LOADER_LEN + 4] == BLANK && !there[LOADER_LEN..].starts_with(&image));
    flash_matrix("resume", &half, &job, &image);
}

#[test]
fn the_same_image_again() {
    let image = firmware("2026.08", LEN);
    let world = plugged_in(&drone("dfu"));
    let flashed = world.run(on_port_1(&stay(flash_job(&image)))).report.outcome;
    assert_eq!(flashed, Outcome::Flashed);
    let flashed = world.bus.with(0, |drone, _| drone.clone()).unwrap();
    let job = stay(flash_job(&image));
    let is_there = |after: &[u8], _: &Report| after[LOADER_LEN..].starts_with(&image);
    matrix("the same image again", &flashed, &job, is_there, |before, after, _, script| {
        assert!(after == before, "{script:?}");
    });
}

/// The rules of a restore: bootloader and firmware are each whole, or blank in their first word, or as before.
fn restore_matrix(name: &str, image: Option<&[u8]>) {
    let loader = images::loader();
    let job = stay(restore_job(&loader, image));
    let holds = |after: &[u8], _: &Report| {
        after.starts_with(&loader) && image.is_none_or(|image| after[LOADER_LEN..].starts_with(image))
    };
    matrix(name, &drone("overwritten"), &job, holds, |before, after, _, script| {
        let sound = |from: usize, to: usize, part: &[u8]| {
            let (there, then) = (&after[from..to], &before[from..to]);
            there.starts_with(part) || there[..4] == BLANK || there == then
        };
        assert!(sound(0, LOADER_LEN, &loader), "{script:?}: half a bootloader");
        match image {
            Some(image) => assert!(sound(LOADER_LEN, after.len(), image), "{script:?}: half a firmware"),
            None => assert!(after[LOADER_LEN..] == before[LOADER_LEN..], "{script:?}: firmware touched"),
        }
    });
}

#[test]
fn restore() {
    restore_matrix("restore", None);
}

#[test]
fn restore_with_firmware() {
    restore_matrix("restore with firmware", Some(&firmware("2026.08", images::FIRMWARE_MIN)));
}

/// What only reads changes nothing, whatever happens to it, and tells nothing that is not so.
fn looking_matrix(name: &str, scenario: &str, task: Task, told: impl Fn(&Outcome) -> bool) {
    let job = Job::new(task);
    matrix(
        name,
        &drone(scenario),
        &job,
        |_, report| told(&report.outcome),
        |before, after, _, script| {
            assert!(after == before, "{script:?}");
        },
    );
}

#[test]
fn backup() {
    // The first 64 KiB: a longer one is only more of the same transfers.
    let span = Span::between(LOADER_BASE, LOADER_BASE.wide() + 0x1_0000).unwrap();
    let there = bytes(&drone("dfu"))[..0x1_0000].to_vec();
    looking_matrix("backup", "dfu", Task::Backup(span), |outcome| *outcome == Outcome::Read(there.clone()));
}

#[test]
fn verify() {
    let there = bytes(&drone("dfu"))[LOADER_LEN..LOADER_LEN + LEN].to_vec();
    let segment = Segment { address: FIRMWARE_BASE, data: there };
    looking_matrix("verify", "dfu", Task::Verify(vec![segment]), |outcome| *outcome == Outcome::Unchanged);
}

/// Another image is never said to be there: not once, whatever goes wrong.
#[test]
fn verify_of_another_image() {
    let mut other = bytes(&drone("dfu"))[LOADER_LEN..LOADER_LEN + LEN].to_vec();
    other[LEN - 1] ^= 1;
    let segments = vec![Segment { address: FIRMWARE_BASE, data: other }];
    let at = Selector::At("1-1".parse().unwrap());
    let job = |segments| Job { device: at.clone(), ..Job::new(Task::Verify(segments)) };
    let (_, _, transfers) = cut(&plugged_in(&drone("dfu")), job(segments.clone()), None);
    for (fault, at) in FAULTS.into_iter().flat_map(|fault| (0..transfers).map(move |at| (fault, at))) {
        let script = Script { at, fault };
        let (report, ..) = cut(&plugged_in(&drone("dfu")), job(segments.clone()), Some(script));
        assert!(matches!(report.outcome, Outcome::Failed(_)), "{script:?}: {:?}", report.outcome);
    }
}

#[test]
fn identify() {
    let told = |outcome: &Outcome| *outcome == Outcome::Identified;
    looking_matrix("identify", "erased", Task::Identify, told);
    looking_matrix("identify, overwritten", "overwritten", Task::Identify, told);
}

#[test]
fn identify_a_running_drone() {
    let told = |outcome: &Outcome| *outcome == Outcome::Identified;
    looking_matrix("identify a running drone", "healthy", Task::Identify, told);
}
