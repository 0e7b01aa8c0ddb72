//! Flashes many drones at once: checks that every flash succeeds, and how long all of them take together.

use std::sync::Arc;

use cfdfu::clock::{Clock, TeamClock};
use cfdfu::job::{Command, Event, FlashTask, Keep, Leave, Outcome, Report, Selector};
use cfdfu::sim::SimBus;
use cfdfu::sim::drone::SimDrone;
use cfdfu::sim::scenario::Scenario;
use cfdfu::usb::Location;
use cfdfu::worker::Worker;

use crate::support::{SEED_LEN, firmware, flash_job, with};

/// Drones in DFU mode, each with its own serial number.
fn drones(count: usize) -> Vec<SimDrone> {
    let one = Scenario::by_name("dfu").unwrap().drones(std::time::Duration::ZERO).remove(0);
    let numbered = |n: usize| {
        let mut drone = one.clone();
        drone.traits.uid[0] = n as u8;
        drone
    };
    (0..count).map(numbered).collect()
}

/// Ports 1 to `count` of the root hub, or spread evenly over this many hubs with one wire each.
fn places(count: usize, hubs: Option<usize>) -> Vec<Location> {
    let place = |n: usize| match hubs {
        None => vec![n as u8 + 1],
        Some(hubs) => vec![(n % hubs) as u8 + 1, (n / hubs) as u8 + 1],
    };
    (0..count).map(|n| Location { bus: 1, ports: place(n) }).collect()
}

/// Flashes all drones at the same time, and returns the seconds until the last one is done.
fn seconds(count: usize, hubs: Option<usize>, change: impl Fn(&mut FlashTask)) -> f64 {
    let clock = Arc::new(TeamClock::new());
    let places = places(count, hubs);
    let bus = Arc::new(SimBus::at(drones(count), places.clone(), clock.clone()));
    // Stop the clock until every worker has its job.
    clock.join();
    let image = firmware("2026.08", SEED_LEN);
    let workers: Vec<Worker> = places
        .iter()
        .map(|place| {
            let worker = Worker::spawn(bus.clone(), clock.clone());
            let job = with(flash_job(&image), |task| {
                (task.keep, task.leave) = (Keep::Copy, Leave::Stay);
                change(task);
            });
            let job = cfdfu::job::Job { device: Selector::At(place.clone()), ..job };
            worker.commands.send(Command::Run(Box::new(job))).unwrap();
            worker
        })
        .collect();
    // The first event shows that the worker is a member of the clock's team.
    for worker in &workers {
        worker.events.recv().unwrap();
    }
    clock.leave();
    let report = |worker: Worker| -> Report {
        let finished = worker.events.iter().find_map(|event| match event {
            Event::Finished(report) => Some(report),
            _ => None,
        });
        finished.unwrap()
    };
    let reports: Vec<Report> = workers.into_iter().map(report).collect();
    assert!(reports.iter().all(|report| report.outcome == Outcome::Flashed && report.verified));
    clock.now().as_secs_f64()
}

/// The limits are multiples of the time for one drone. Drones on one wire share it: each flash occupies it for 0.6 s.
#[test]
fn many_drones_at_once_are_flashed_within_their_time_limits() {
    let defaults = |_: &mut FlashTask| {};
    let no_undo = |task: &mut FlashTask| task.keep = Keep::No;
    let one = seconds(1, None, defaults);
    let rows = [
        ("8 drones, a wire for each", 1.03, seconds(8, None, defaults)),
        ("32 drones, a wire for each", 1.03, seconds(32, None, defaults)),
        ("8 drones on one wire", 1.6, seconds(8, Some(1), defaults)),
        ("8 drones on two wires", 1.3, seconds(8, Some(2), defaults)),
        ("16 drones on one wire", 2.7, seconds(16, Some(1), defaults)),
        ("32 drones on one wire", 4.9, seconds(32, Some(1), defaults)),
        ("8 drones on one wire, --no-undo", 1.3, seconds(8, Some(1), no_undo)),
    ];
    println!("one drone: {one:.2} s of the simulated chip's time");
    for (what, limit, took) in &rows {
        println!("{what:<34} {took:>6.2} s, {:.2} times as long, limit {limit}", took / one);
    }
    for (what, limit, took) in rows {
        assert!(took <= limit * one, "{what}: {took:.2} s, {:.2} times as long", took / one);
    }
}
