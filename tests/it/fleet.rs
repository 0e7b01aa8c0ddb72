//! Flashes many drones at once, with workers alone and with the real binary. Checks the result of each drone and the
//! total time.

use std::sync::Arc;

use cfdfu::clock::{Clock, TeamClock};
use cfdfu::job::{Command, Event, FlashTask, Job, Keep, Leave, Outcome, Report, Selector};
use cfdfu::sim::drone::{SimDrone, SimFault};
use cfdfu::sim::scenario::Scenario;
use cfdfu::sim::{SimBus, images};
use cfdfu::usb::Location;
use cfdfu::worker::Worker;

use crate::cli::{Folder, Ran};
use crate::support::{SEED_LEN, change_flash_task, firmware, flash_job};

/// Returns drones in DFU mode, each with its own serial number.
fn drones(count: usize) -> Vec<SimDrone> {
    let one = Scenario::by_name("dfu").unwrap().drones(std::time::Duration::ZERO).remove(0);
    let numbered = |n: usize| {
        let mut drone = one.clone();
        drone.traits.uid[0] = n as u8;
        drone
    };
    (0..count).map(numbered).collect()
}

/// Returns ports 1 to `count` of the root hub, each with its own wire. With `hubs`, the ports are spread evenly over
/// that many hubs instead, and all drones on one hub share a wire.
fn locations(count: usize, hubs: Option<usize>) -> Vec<Location> {
    let ports = |n: usize| match hubs {
        None => vec![n as u8 + 1],
        Some(hubs) => vec![(n % hubs) as u8 + 1, (n / hubs) as u8 + 1],
    };
    (0..count).map(|n| Location { bus: 1, ports: ports(n) }).collect()
}

/// Flashes all drones at the same time, and returns the time in seconds until the last drone is done.
fn time_flash(count: usize, hubs: Option<usize>, change: impl Fn(&mut FlashTask)) -> f64 {
    let clock = Arc::new(TeamClock::new());
    let locations = locations(count, hubs);
    let bus = Arc::new(SimBus::at(drones(count), locations.clone(), clock.clone()));
    let reports = run_jobs(&bus, &clock, &locations, &firmware("2026.08", SEED_LEN), change);
    assert!(reports.iter().all(|report| report.outcome == Outcome::Flashed && report.verified));
    clock.now().as_secs_f64()
}

fn run_all(bus: &Arc<SimBus>, clock: &Arc<TeamClock>, locations: &[Location], image: &[u8]) -> Vec<Report> {
    run_jobs(bus, clock, locations, image, |_| {})
}

/// Runs a job for each drone at the same time, and returns the reports.
fn run_jobs(
    bus: &Arc<SimBus>,
    clock: &Arc<TeamClock>,
    locations: &[Location],
    image: &[u8],
    change: impl Fn(&mut FlashTask),
) -> Vec<Report> {
    // This thread is also a member of the clock's team, so the clock does not advance until every worker has its job.
    clock.begin_work();
    let workers: Vec<Worker> = locations
        .iter()
        .map(|location| {
            let worker = Worker::spawn(bus.clone(), clock.clone());
            let job = change_flash_task(flash_job(image), |task| {
                (task.keep, task.leave) = (Keep::Copy, Leave::Stay);
                change(task);
            });
            let job = Job { device: Selector::At(location.clone()), ..job };
            worker.commands.send(Command::Run(Box::new(job))).unwrap();
            worker
        })
        .collect();
    // The first event of a worker shows that the worker has also joined the team.
    for worker in &workers {
        worker.events.recv().unwrap();
    }
    clock.end_work();
    let report = |worker: Worker| -> Report {
        let finished = worker.events.iter().find_map(|event| match event {
            Event::Finished(report) => Some(report),
            _ => None,
        });
        finished.unwrap()
    };
    workers.into_iter().map(report).collect()
}

#[test]
fn many_drones_at_once_are_flashed_within_their_time_limits() {
    let defaults = |_: &mut FlashTask| {};
    let no_undo = |task: &mut FlashTask| task.keep = Keep::No;
    let one = time_flash(1, None, defaults);
    let rows = [
        ("8 drones, a wire for each", 1.03, time_flash(8, None, defaults)),
        ("32 drones, a wire for each", 1.03, time_flash(32, None, defaults)),
        ("8 drones on one wire", 1.6, time_flash(8, Some(1), defaults)),
        ("8 drones on two wires", 1.3, time_flash(8, Some(2), defaults)),
        ("16 drones on one wire", 2.7, time_flash(16, Some(1), defaults)),
        ("32 drones on one wire", 4.9, time_flash(32, Some(1), defaults)),
        ("8 drones on one wire, --no-undo", 1.3, time_flash(8, Some(1), no_undo)),
    ];
    println!("one drone: {one:.2} s of the simulated chip's time");
    for (name, limit, took) in &rows {
        println!("{name:<34} {took:>6.2} s, {:.2} times as long, limit {limit}", took / one);
    }
    for (name, limit, took) in rows {
        assert!(took <= limit * one, "{name}: {took:.2} s, {:.2} times as long", took / one);
    }
}

/// Checks that the exit status, the report and the JSON of the real binary agree.
#[test]
fn each_drone_gets_the_image_for_its_board() {
    let folder = Folder::with_image();
    folder
        .write_file("bl.bin", images::firmware("2026.08", &[("C21B", "Crazyflie 2.1 Brushless")], SEED_LEN));
    let ran = folder.json("flash cf2.bin bl.bin --demo=fleet --all --report report.csv");
    let objects = ran.objects();
    let batch = objects.last().unwrap();
    assert_eq!((ran.code, &batch["flashed"], &batch["unchanged"]), (0, &7.into(), &1.into()), "{}", ran.out);
    // Every object but the last names its drone, and each drone has one result.
    let numbers = |event: &str| -> Vec<u64> {
        let matching = objects.iter().filter(|object| object["event"] == event);
        let mut all: Vec<u64> = matching.map(|object| object["drone"].as_u64().unwrap()).collect();
        all.sort_unstable();
        all
    };
    let all: Vec<u64> = (1..=8).collect();
    assert_eq!((numbers("drone"), numbers("result")), (all.clone(), all));
    let report = std::fs::read_to_string(folder.path("report.csv")).unwrap();
    let rows: Vec<Vec<&str>> = report.lines().map(|line| line.split(',').collect()).collect();
    assert_eq!(rows.len(), 9);
    let column = |name: &str| rows[0].iter().position(|title| *title == name).unwrap();
    let brushless = &rows[6];
    assert_eq!(brushless[column("board")], "C21B");
    assert!(rows[1..].iter().all(|row| row[column("runs")] == "2026.08"), "{report}");
    assert_eq!(rows[1..].iter().filter(|row| row[column("outcome")] == "unchanged").count(), 1, "{report}");
}

/// The refused drone runs its old firmware again.
#[test]
fn a_drone_without_a_matching_image_is_refused_and_the_others_are_flashed() {
    let folder = Folder::with_image();
    let ran = folder.json("flash cf2.bin --demo=fleet --all --expect 9");
    let batch = ran.objects().pop().unwrap();
    let count = |name: &str| batch[name].as_u64().unwrap();
    assert_eq!((count("flashed"), count("unchanged"), count("refused"), count("missing")), (6, 1, 1, 1));
    // 65 (refused) takes precedence over 69 (a drone is missing).
    assert_eq!(ran.code, 65);
    let refused = ran.objects().into_iter().find(|object| object["error"]["kind"] == "other_board").unwrap();
    assert_eq!((&refused["written"], &refused["booted"]), (&0.into(), &true.into()), "{refused}");
}

#[test]
fn two_images_for_one_board_are_refused_before_any_drone_is_touched() {
    let folder = Folder::with_image();
    folder.write_file("other.bin", firmware("2026.04", SEED_LEN));
    let ran = folder.run("flash cf2.bin other.bin --demo=fleet --all");
    assert_eq!(ran.code, 65);
    assert!(ran.err.contains("two images are for CF20"), "{}", ran.err);
    assert!(!ran.out.contains("1-1.1"), "{}", ran.out);
}

#[test]
fn a_single_drone_gets_the_image_for_its_board_out_of_several_images() {
    let folder = Folder::with_image();
    folder
        .write_file("bl.bin", images::firmware("2026.08", &[("C21B", "Crazyflie 2.1 Brushless")], SEED_LEN));
    let ran = folder.run("flash bl.bin cf2.bin --demo=dfu");
    assert_eq!(ran.code, 0, "{}", ran.err);
    let ran = folder.run("flash bl.bin cf2.bin --demo=wrong-board");
    assert_eq!(ran.code, 65);
    assert!(ran.err.contains("C21B") && ran.err.contains("CF21"), "{}", ran.err);
    // If the board is unknown, cfdfu cannot choose an image.
    let ran = folder.run("flash bl.bin cf2.bin --demo=unknown-board");
    assert_eq!(ran.code, 65, "{}", ran.err);
    assert!(ran.err.contains("C21B") && ran.err.contains("CF21"), "{}", ran.err);
}

#[test]
fn a_batch_includes_only_the_selected_drones() {
    let folder = Folder::with_image();
    let ran = folder.json("flash cf2.bin --demo=fleet --all --device 1-1.2 --device 1-2.1 --device 1-9");
    let batch = ran.objects().pop().unwrap();
    assert_eq!((ran.code, &batch["drones"], &batch["flashed"]), (69, &2.into(), &2.into()), "{}", ran.out);
    assert_eq!(batch["missing"], 1, "no drone is on port 1-9");
    let ran = folder.run("flash cf2.bin --demo=fleet --device 1-1.2 --device 1-2.1");
    assert_eq!(ran.code, 2, "{}", ran.err);
}

/// A second backup does not overwrite the first.
#[test]
fn every_drone_is_backed_up_to_its_own_file() {
    let folder = Folder::with_image();
    std::fs::create_dir(folder.path("backups")).unwrap();
    let ran = folder.run("backup backups --demo=fleet --all");
    assert_eq!(ran.code, 0, "{}", ran.err);
    let files = || std::fs::read_dir(folder.path("backups")).unwrap().map(|file| file.unwrap().path());
    let bytes: Vec<Vec<u8>> = files().map(|path| std::fs::read(path).unwrap()).collect();
    assert!(bytes.len() == 8 && bytes.iter().all(|bytes| bytes.len() == 1 << 20));
    // The Brushless has different firmware, so not all backups are equal.
    assert!(bytes.iter().any(|other| *other != bytes[0]));
    let ran = folder.run("backup backups --demo=fleet --all");
    assert_eq!(ran.code, 73, "{}", ran.out);
}

/// After Enter or with `--yes`, the station flashes each drone that is plugged in, and counts the finished drones.
#[test]
fn a_station_ends_after_the_given_number_of_drones() {
    let folder = Folder::with_image();
    let ran = folder.run("station cf2.bin --demo=fleet --yes --count 7 --report report.json");
    // The image is not for the Brushless, so the Brushless is refused.
    assert_eq!(ran.code, 65, "{}", ran.err);
    assert!(
        ran.out.contains("7 of 7 done") && ran.out.contains("6 flashed, 1 unchanged, 1 refused"),
        "{}",
        ran.out
    );
    let report = std::fs::read_to_string(folder.path("report.json")).unwrap();
    let rows: Vec<serde_json::Value> = serde_json::from_str(&report).unwrap();
    assert_eq!(rows.iter().filter(|row| row["outcome"] == "flashed").count(), 6, "{report}");
    let ran = folder.cfdfu("station cf2.bin --demo=dfu --count 1").input("\n").run();
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert!(ran.out.contains("Press Enter") && ran.out.contains("1 of 1 done"), "{}", ran.out);
}

/// Three drones share one wire. Each fault affects the middle drone, once at every third of its first 60 DFU requests.
/// The other two drones are flashed, with the same result each time.
#[test]
fn a_fault_on_one_drone_does_not_touch_the_others() {
    let image = firmware("2026.08", 20_000);
    let mut expected = None;
    let mut cases = 0;
    for fault in [SimFault::Unplugged, SimFault::Loose, SimFault::Hung, SimFault::Panic] {
        // In the first run, the fault never occurs, because no job has that many requests.
        let first = expected.is_none().then_some(u32::MAX);
        for at in first.into_iter().chain((0..60).step_by(3)) {
            let clock = Arc::new(TeamClock::new());
            let locations = locations(3, Some(1));
            let mut drones = drones(3);
            drones[1].traits.fault = Some((at, fault));
            let bus = Arc::new(SimBus::at(drones, locations.clone(), clock.clone()));
            let reports = run_all(&bus, &clock, &locations, &image);
            let flash = |n: usize| bus.with(n, |drone, _| drone.memory.flash.bytes().to_vec()).unwrap();
            let others: Vec<_> =
                [0, 2].map(|n| (flash(n), reports[n].outcome.clone(), reports[n].written)).into();
            let expected = expected.get_or_insert_with(|| others.clone());
            assert!(
                others == *expected,
                "{fault:?} at {at}: {:?}",
                [&reports[0].outcome, &reports[2].outcome]
            );
            assert!(others.iter().all(|(_, outcome, _)| *outcome == Outcome::Flashed));
            cases += 1;
        }
    }
    println!("{cases} runs, of which all but the first have a fault on the middle drone of three");
}

#[test]
fn a_strict_batch_writes_nothing_if_one_drone_has_no_image() {
    let folder = Folder::with_image();
    let Ran { code, out, .. } = folder.cfdfu("flash cf2.bin --all --strict --demo=fleet").fast().run();
    assert_eq!(code, 65, "{out}");
    assert!(out.contains("1-1.6  E7E7E7E756  no image for its board, C21B"), "{out}");
    assert!(out.contains("Nothing was written to any drone"), "{out}");
    assert!(!out.contains("asked to enter DFU mode"), "{out}");
    assert!(!out.contains("  erase ") && !out.contains("  write "), "{out}");
    let Ran { code, out, .. } = folder.cfdfu("flash cf2.bin --all --strict --demo=fleet-dfu").fast().run();
    assert!(code == 0 && out.contains("8 drones: 8 flashed"), "{out}");
}

/// `--strict` reads the radio address of each running drone, so the later output and the report include the address.
#[test]
fn the_output_and_the_report_of_a_batch_include_the_radio_addresses() {
    let folder = Folder::with_image();
    let line = "flash cf2.bin --all --strict --demo=fleet-running --report report.csv";
    let Ran { code, out, err } = folder.cfdfu(line).fast().run();
    assert_eq!(code, 0, "{out}{err}");
    assert!(out.contains("1-1.2  E7E7E7E752  Flashed"), "{out}");
    let report = std::fs::read_to_string(folder.path("report.csv")).unwrap();
    assert!(report.contains("2,1-1.2,52004F000551343036333233,radio://0/80/2M/E7E7E7E752,"), "{report}");
    let ran = folder.json("flash cf2.bin --all --strict --demo=fleet-running");
    let named = |object: &&serde_json::Value| object["event"] == "drone" && !object["radio"].is_null();
    assert_eq!(ran.objects().iter().filter(named).count(), 15, "{}", ran.out);
}

/// The demo keeps no copies, so there is nothing to restore; the VM test restores eight drones.
#[test]
fn undo_all_refuses_drones_without_a_copy() {
    let folder = Folder::with_image();
    let Ran { code, out, .. } = folder.cfdfu("undo --all --demo=fleet-dfu --jobs 8").fast().run();
    assert_eq!(code, 66, "{out}");
    assert!(out.contains("nothing to undo: no saved firmware to restore"), "{out}");
    assert!(out.contains("8 drones: 8 refused"), "{out}");
}
