//! Measures whole jobs with the clock of the simulated chip, whose times are exact and the same on every machine. A job
//! that exceeds its limit fails the test. docs/speed.md quotes the measured times.

use std::sync::Arc;

use cfdfu::clock::{Clock, TeamClock};
use cfdfu::flash::{FLASH_END, LOADER_BASE, Span};
use cfdfu::job::{Compare, Confirm, FlashTask, Job, Keep, Leave, Outcome, Task, Width};
use cfdfu::sim::SimBus;
use cfdfu::usb::Bus;

use crate::batch::{Batch, drones, policy};
use crate::support::{SEED_LEN, World, change_flash_task, firmware, flash_job};

const FULL_LEN: usize = 1_032_192;

/// Flashes `image` to a drone in DFU mode without restarting the drone. Returns the duration in seconds.
fn measure(world: &World, image: &[u8], change: impl FnOnce(&mut FlashTask)) -> f64 {
    let job = change_flash_task(flash_job(image), |task| {
        task.leave = Leave::Stay;
        change(task);
    });
    let report = world.run(job).report;
    assert!(matches!(report.outcome, Outcome::Flashed | Outcome::Unchanged), "{:?}", report.outcome);
    assert!(report.verified);
    report.took.as_secs_f64()
}

#[test]
fn no_job_takes_longer_than_its_limit_on_the_simulated_chip() {
    let image = firmware("2026.08", SEED_LEN);
    let mut changed = image.clone();
    *changed.last_mut().unwrap() ^= 1;
    let full = firmware("2026.08", FULL_LEN);
    let with_defaults = |task: &mut FlashTask| task.keep = Keep::Copy;
    let without_undo = |_: &mut FlashTask| {};
    let measure_without_undo = |world: &World| measure(world, &image, without_undo);

    let mut rows = vec![
        ("243,176 bytes, by default", 4.8, measure(&World::new("dfu"), &image, with_defaults)),
        ("--no-undo", 4.3, measure_without_undo(&World::new("dfu"))),
        ("--no-undo --byte-mode", 9.2, measure(&World::new("dfu"), &image, |task| task.width = Width::Byte)),
        ("onto erased flash, --no-undo", 2.6, measure_without_undo(&World::new("erased"))),
    ];
    let world = World::new("dfu");
    measure_without_undo(&world);
    rows.push(("the same image again", 0.55, measure(&world, &image, with_defaults)));
    rows.push(("one byte changed at the end", 2.9, measure(&world, &changed, with_defaults)));
    // Overwrite another image of the same size, so that every sector of the image is erased.
    let world = World::new("dfu");
    measure(&world, &firmware("2026.04", FULL_LEN), without_undo);
    rows.push(("1,032,192 bytes, --no-undo", 16.3, measure(&world, &full, without_undo)));
    let backup = Job::new(Task::Backup(Span::between(LOADER_BASE, FLASH_END).unwrap()));
    rows.push(("backup of 1 MiB", 2.0, World::new("dfu").run(backup).report.took.as_secs_f64()));
    for (job, limit, took) in &rows {
        println!("{job:<30} {took:>7.3} s of the simulated chip's time, limit {limit} s");
    }
    for (job, limit, took) in rows {
        assert!(took <= limit, "{job}: {took:.3} s, but the limit is {limit} s");
    }
}

/// The simulated chip takes the maximum times given in its data sheet.
#[test]
fn a_job_waits_for_a_slow_chip() {
    for compare in [Compare::First, Compare::Skip] {
        let took =
            measure(&World::new("slow"), &firmware("2026.08", SEED_LEN), |task| task.compare = compare);
        println!("{took:.1} s on a worn simulated chip");
        assert!(took > 6.0);
    }
}

/// Flashes eight drones, each with its own wire, twice with the same image. Returns the duration of the second batch in
/// seconds, from its start until the last drone is done.
fn measure_same_batch_again(scenario: &str, leave: Leave) -> f64 {
    const COUNT: usize = 8;
    let clock = Arc::new(TeamClock::new());
    let bus = SimBus::new(drones(scenario, COUNT), clock.clone());
    let job = change_flash_task(flash_job(&firmware("2026.08", SEED_LEN)), |task| {
        (task.keep, task.confirm, task.leave) = (Keep::Copy, Confirm::Ask, leave);
    });
    let batch = || {
        let before = clock.now();
        let new_bus = bus.clone();
        let new_bus = Arc::new(move || -> Arc<dyn Bus> { Arc::new(new_bus.clone()) });
        let batch = Batch::new(new_bus, &clock, policy(job.clone(), COUNT));
        let counts = batch.run(&bus).fleet.counts();
        (counts, (clock.now() - before).as_secs_f64())
    };
    assert_eq!(batch().0.flashed, COUNT);
    let (counts, took) = batch();
    assert_eq!(counts.unchanged, COUNT);
    took
}

#[test]
fn flashing_the_same_batch_again_takes_no_longer_than_its_limit() {
    let rows = [
        ("in DFU mode, not restarted", 1.5, measure_same_batch_again("dfu", Leave::Stay)),
        // cfdfu watches each drone until one second after the verdict of its self-test.
        ("running before and after", 8.0, measure_same_batch_again("healthy", Leave::Start)),
    ];
    for (mode, limit, took) in &rows {
        println!("eight drones, the same batch again, {mode}: {took:.2} s, limit {limit} s");
    }
    for (mode, limit, took) in rows {
        assert!(took <= limit, "eight drones, {mode}: {took:.2} s, but the limit is {limit} s");
    }
}
