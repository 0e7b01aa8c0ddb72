//! Tests of the fleet: fixed scenarios, and random sequences of messages. In these sequences, drones appear, disappear
//! and swap places, and jobs end in different ways.

use std::collections::HashMap;

use proptest::prelude::*;

use super::*;
use crate::job::{Boot, Failure, FailureKind, Task};
use crate::usb::descriptor::Strings;
use crate::usb::{CRAZYFLIE, ROM_DFU, TransferError};

fn device(port: &[u8], serial: u32, mode: Mode) -> Device {
    Device {
        mode,
        id: if mode == Mode::Dfu { ROM_DFU } else { CRAZYFLIE },
        location: Location { bus: 1, ports: port.to_vec() },
        address: 1,
        strings: Strings { serial: format!("{serial:024X}"), ..Strings::default() },
        simulated: true,
        open_error: None,
    }
}

fn policy() -> Policy {
    Policy {
        // The first job of an undo, which only finds the drone.
        job: Job { enter: Enter::Unaided, ..Job::new(Task::Find) },
        selected: Vec::new(),
        planned: Vec::new(),
        expect: None,
        jobs: 32,
        wait: Duration::ZERO,
        require_boot: false,
        station: None,
    }
}

fn report_with(outcome: Outcome) -> Box<Report> {
    Box::new(Report { boot: Boot::StaysUp, ..Report::nothing_done(outcome) })
}

fn failed_report(kind: FailureKind) -> Box<Report> {
    report_with(Outcome::Failed(Failure { kind, place: None, drone: DroneState::Untouched }))
}

/// Returns a fleet that has found these drones and started, and the effects of the start.
fn start_fleet(policy: Policy, devices: Vec<Device>) -> (Fleet, Vec<FleetEffect>) {
    let mut fleet = Fleet::new(policy, Duration::ZERO);
    fleet.update(Duration::ZERO, FleetMsg::Bus(devices));
    let effects = fleet.update(SETTLE, FleetMsg::Tick);
    (fleet, effects)
}

/// Returns the rows whose jobs start.
fn starts(effects: &[FleetEffect]) -> Vec<usize> {
    let start = |effect: &FleetEffect| match effect {
        FleetEffect::Start(id, _) => Some(*id),
        _ => None,
    };
    effects.iter().filter_map(start).collect()
}

#[test]
fn at_most_four_drones_on_a_hub_enter_dfu_mode_at_once() {
    let running = |n: u8| device(&[1, n], n.into(), Mode::Firmware);
    let (mut fleet, effects) = start_fleet(policy(), (1..=10).map(running).collect());
    assert_eq!(starts(&effects), [0, 1, 2, 3]);
    // The first drone is now in DFU mode, so the next drone may enter.
    let effects = fleet.update(SETTLE, FleetMsg::Event(0, Event::Device(device(&[1, 1], 1, Mode::Dfu))));
    assert_eq!(starts(&effects), [4]);
    // Drones that are already in DFU mode need not wait, and each hub has its own limit.
    let mixed =
        (1..=10).map(running).chain([device(&[2, 1], 90, Mode::Firmware), device(&[1, 9, 1], 91, Mode::Dfu)]);
    let (_, effects) = start_fleet(policy(), mixed.collect());
    assert_eq!(starts(&effects).len(), 6);
}

/// Drones that are only identified do not restart, so they need not take turns and must not be shown as entering DFU
/// mode.
#[test]
fn a_batch_that_only_identifies_drones_starts_all_jobs_at_once() {
    let running = (1..=10).map(|n| device(&[1, n], n.into(), Mode::Firmware)).collect();
    let (mut fleet, effects) = start_fleet(Policy { job: Job::new(Task::Identify), ..policy() }, running);
    assert_eq!(starts(&effects).len(), 10);
    let device = fleet.rows[0].device.clone();
    fleet.update(SETTLE, FleetMsg::Event(0, Event::Device(device)));
    assert!(fleet.rows.iter().all(|row| row.state == RowState::Examining));
}

/// With `--no-enter --wait`, running drones wait until their buttons are pressed. Drones further down the table must
/// not wait for these drones.
#[test]
fn drones_that_wait_for_a_button_press_do_not_hold_up_other_drones() {
    let running = (1..=10).map(|n| device(&[1, n], n.into(), Mode::Firmware)).collect();
    let job = Job { enter: Enter::Never, ..policy().job };
    let (mut fleet, effects) = start_fleet(Policy { job, ..policy() }, running);
    assert_eq!(starts(&effects).len(), 10);
    let waits = |what| Event::Waiting { what, limit: Duration::from_secs(60) };
    let device = fleet.rows[0].device.clone();
    fleet.update(SETTLE, FleetMsg::Event(0, Event::Device(device.clone())));
    assert_eq!(fleet.rows[0].state, RowState::Examining, "the drone is not asked to enter DFU mode");
    fleet.update(SETTLE, FleetMsg::Event(0, waits(WaitFor::DfuByHand)));
    assert_eq!(fleet.rows[0].state, RowState::ByHand);
    fleet.update(SETTLE, FleetMsg::Event(0, Event::Device(Device { mode: Mode::Dfu, ..device })));
    assert_eq!(fleet.rows[0].state, RowState::Examining);
}

#[test]
fn a_batch_starts_once_the_bus_has_settled_or_all_expected_drones_are_plugged_in() {
    let seconds = Duration::from_secs;
    let mut fleet = Fleet::new(policy(), Duration::ZERO);
    let one = device(&[1], 1, Mode::Dfu);
    let two = device(&[2], 2, Mode::Dfu);
    assert!(starts(&fleet.update(seconds(0), FleetMsg::Bus(vec![one.clone()]))).is_empty());
    assert!(starts(&fleet.update(seconds(1), FleetMsg::Bus(vec![one.clone(), two.clone()]))).is_empty());
    assert!(starts(&fleet.update(Duration::from_millis(2900), FleetMsg::Tick)).is_empty());
    assert_eq!(starts(&fleet.update(seconds(3), FleetMsg::Tick)), [0, 1]);
    // With `--expect`, the batch starts as soon as that many drones are plugged in. After the wait time, it starts
    // without the missing drones.
    let expects = |expect| Policy { expect: Some(expect), wait: seconds(30), ..policy() };
    let mut fleet = Fleet::new(expects(2), Duration::ZERO);
    assert_eq!(starts(&fleet.update(seconds(0), FleetMsg::Bus(vec![one.clone(), two.clone()]))), [0, 1]);
    let mut fleet = Fleet::new(expects(3), Duration::ZERO);
    fleet.update(seconds(0), FleetMsg::Bus(vec![one, two]));
    assert!(starts(&fleet.update(seconds(29), FleetMsg::Tick)).is_empty());
    assert_eq!(starts(&fleet.update(seconds(30), FleetMsg::Tick)), [0, 1]);
    assert_eq!(fleet.counts().missing, 1);
}

#[test]
fn a_batch_without_drones_ends_with_no_device() {
    let (mut fleet, effects) = start_fleet(policy(), Vec::new());
    assert_eq!(effects, [FleetEffect::End]);
    assert_eq!(fleet.exit(), Exit::NoDevice);
    assert!(fleet.update(SETTLE, FleetMsg::Tick).is_empty());
}

#[test]
fn three_failures_of_the_same_kind_stop_the_batch() {
    let drones = (1..=6).map(|n| device(&[n], n.into(), Mode::Dfu)).collect();
    let (mut fleet, effects) = start_fleet(Policy { jobs: 1, ..policy() }, drones);
    assert_eq!(starts(&effects), [0]);
    for id in 0..3 {
        let effects = fleet.update(SETTLE, FleetMsg::Ended(id, failed_report(FailureKind::OtherChip), None));
        assert_eq!(effects.contains(&FleetEffect::Paused), id == 2, "{id}: {effects:?}");
    }
    assert_eq!((fleet.counts().failed, fleet.counts().cancelled), (3, 3));
}

#[test]
fn a_station_flashes_each_drone_once_but_retries_a_failed_drone() {
    let station = Some(Station { count: Some(3), ..Station::default() });
    let mut fleet = Fleet::new(Policy { station, ..policy() }, Duration::ZERO);
    let seconds = Duration::from_secs;
    let (one, two) = (device(&[1], 1, Mode::Dfu), device(&[1], 2, Mode::Dfu));
    assert_eq!(starts(&fleet.update(seconds(0), FleetMsg::Bus(vec![one.clone()]))), [0]);
    fleet.update(seconds(5), FleetMsg::Ended(0, report_with(Outcome::Flashed), None));
    // The drone restarts and stays plugged in. The station must not mistake it for a new drone.
    assert!(fleet.update(seconds(6), FleetMsg::Bus(Vec::new())).is_empty());
    assert!(fleet.update(seconds(8), FleetMsg::Bus(vec![Device { address: 2, ..one.clone() }])).is_empty());
    // A different drone is plugged into the same port, fails, and is plugged in again.
    assert_eq!(starts(&fleet.update(seconds(20), FleetMsg::Bus(vec![two.clone()]))), [1]);
    fleet.update(seconds(25), FleetMsg::Ended(1, failed_report(FailureKind::OtherChip), None));
    fleet.update(seconds(26), FleetMsg::Bus(Vec::new()));
    assert_eq!(starts(&fleet.update(seconds(36), FleetMsg::Bus(vec![two]))), [2]);
    fleet.update(seconds(40), FleetMsg::Ended(2, report_with(Outcome::Unchanged), None));
    // The first drone is moved to a different port and is running now. The station has already flashed this drone.
    let moved = device(&[4], 1, Mode::Firmware);
    assert_eq!(
        fleet.update(seconds(41), FleetMsg::Bus(vec![moved.clone()])),
        [FleetEffect::AlreadyDone(moved.clone())]
    );
    assert!(fleet.update(seconds(42), FleetMsg::Bus(vec![moved])).is_empty());
    assert_eq!(starts(&fleet.update(seconds(50), FleetMsg::Bus(vec![device(&[5], 3, Mode::Dfu)]))), [3]);
    let effects = fleet.update(seconds(55), FleetMsg::Ended(3, report_with(Outcome::Flashed), None));
    assert!(effects.contains(&FleetEffect::End), "three drones are done: {effects:?}");
    assert_eq!(fleet.exit(), Exit::Done);
}

fn new_station(count: Option<usize>, hold: bool) -> Fleet {
    let station = Some(Station { count, hold, ..Station::default() });
    Fleet::new(Policy { station, ..policy() }, Duration::ZERO)
}

#[test]
fn a_failed_scan_or_a_restart_does_not_release_a_held_drone() {
    let seconds = Duration::from_secs;
    let mut fleet = new_station(None, true);
    let one = device(&[1], 1, Mode::Firmware);
    fleet.update(seconds(0), FleetMsg::Bus(vec![one.clone()]));
    fleet.update(seconds(1), FleetMsg::Bus(Vec::new()));
    assert!(
        starts(&fleet.update(seconds(3), FleetMsg::Bus(vec![Device { address: 2, ..one.clone() }])))
            .is_empty()
    );
    // An unreadable serial number does not prove that the drone was replaced.
    let nameless = Device { strings: Strings::default(), address: 3, ..one.clone() };
    assert!(starts(&fleet.update(seconds(4), FleetMsg::Bus(vec![nameless]))).is_empty());
    // The drone is away for longer than a restart takes, so the user has plugged it in again to have it flashed.
    fleet.update(seconds(5), FleetMsg::Bus(Vec::new()));
    assert_eq!(starts(&fleet.update(seconds(20), FleetMsg::Bus(vec![one]))).len(), 1);
}

#[test]
fn a_drone_without_a_serial_number_is_flashed_once() {
    let seconds = Duration::from_secs;
    let mut fleet = new_station(Some(2), false);
    let nameless = Device { strings: Strings::default(), ..device(&[1], 1, Mode::Dfu) };
    assert_eq!(starts(&fleet.update(seconds(0), FleetMsg::Bus(vec![nameless.clone()]))), [0]);
    fleet.update(seconds(5), FleetMsg::Ended(0, report_with(Outcome::Flashed), None));
    for n in 6..9 {
        assert!(starts(&fleet.update(seconds(n), FleetMsg::Bus(vec![nameless.clone()]))).is_empty());
        assert!(
            starts(&fleet.update(seconds(n), FleetMsg::Bus(vec![device(&[1], 1, Mode::Dfu)]))).is_empty()
        );
    }
    assert_eq!(fleet.done(), 1);
}

#[test]
fn a_station_ends_even_if_more_drones_are_plugged_in_than_it_needs() {
    let mut fleet = new_station(Some(1), false);
    let drones = (1..=3).map(|n| device(&[n], n.into(), Mode::Dfu)).collect();
    assert_eq!(starts(&fleet.update(Duration::ZERO, FleetMsg::Bus(drones))), [0]);
    let effects = fleet.update(Duration::ZERO, FleetMsg::Ended(0, report_with(Outcome::Flashed), None));
    assert!(effects.contains(&FleetEffect::End), "{effects:?}");
}

/// The list of devices does not contain the port of a running job, so the station cannot notice that the drone was
/// unplugged during the job.
#[test]
fn a_drone_that_was_unplugged_during_its_job_is_flashed_again() {
    let seconds = Duration::from_secs;
    let mut fleet = new_station(None, false);
    let one = device(&[1], 1, Mode::Dfu);
    assert_eq!(starts(&fleet.update(seconds(0), FleetMsg::Bus(vec![one.clone()]))), [0]);
    fleet.update(seconds(5), FleetMsg::Ended(0, failed_report(FailureKind::OtherChip), None));
    assert_eq!(starts(&fleet.update(seconds(30), FleetMsg::Bus(vec![one]))), [1]);
}

#[test]
fn a_station_reports_why_it_cannot_open_a_drone() {
    let seconds = Duration::from_secs;
    let mut fleet = new_station(None, false);
    let closed = Device { open_error: Some(TransferError::Access), ..device(&[1], 1, Mode::Dfu) };
    fleet.update(seconds(0), FleetMsg::Bus(vec![closed.clone()]));
    assert!(fleet.update(seconds(1), FleetMsg::Tick).is_empty(), "udev may not have granted access yet");
    assert_eq!(fleet.update(seconds(3), FleetMsg::Tick), [FleetEffect::Joined(0), FleetEffect::Show(0)]);
    assert!(fleet.update(seconds(4), FleetMsg::Tick).is_empty());
    assert_eq!(fleet.exit(), Exit::NoPermission);
    // Once the udev rules are installed, the drone is flashed.
    assert_eq!(starts(&fleet.update(seconds(9), FleetMsg::Bus(vec![device(&[1], 1, Mode::Dfu)]))), [1]);
}

/// The other instance may have flashed the drone, and the station must not overwrite that firmware.
#[test]
fn a_station_does_not_flash_a_drone_that_another_instance_has_used() {
    let seconds = Duration::from_secs;
    let mut fleet = new_station(None, false);
    let used = Device { open_error: Some(TransferError::Busy), ..device(&[1], 1, Mode::Dfu) };
    fleet.update(seconds(0), FleetMsg::Bus(vec![used]));
    assert_eq!(fleet.update(seconds(3), FleetMsg::Tick), [FleetEffect::Joined(0), FleetEffect::Show(0)]);
    assert!(starts(&fleet.update(seconds(9), FleetMsg::Bus(vec![device(&[1], 1, Mode::Dfu)]))).is_empty());
    // The used drone is unplugged, and a different drone is plugged into its port.
    fleet.update(seconds(10), FleetMsg::Bus(Vec::new()));
    let later = fleet.update(seconds(30), FleetMsg::Bus(vec![device(&[1], 2, Mode::Dfu)]));
    assert_eq!(starts(&later), [1]);
}

/// The serial number that running firmware reports corresponds to the one that two drones report in DFU mode.
#[test]
fn a_serial_number_that_matches_two_drones_selects_neither() {
    let dfu = |port: u8, serial: &str| {
        let strings = Strings { serial: serial.to_owned(), ..Strings::default() };
        Device { strings, ..device(&[port], 0, Mode::Dfu) }
    };
    let full = "51004F000551343036333233";
    let in_dfu = crazyflie::dfu_serial(full).unwrap();
    let selects = |devices: Vec<Device>| {
        let selected = vec![Selector::Serial(full.to_owned())];
        start_fleet(Policy { selected, ..policy() }, devices)
    };
    let (fleet, effects) = selects(vec![dfu(1, &in_dfu), dfu(2, &in_dfu), dfu(3, "0123456789AB")]);
    assert!(starts(&effects).is_empty() && effects.contains(&FleetEffect::End), "{effects:?}");
    assert_eq!((fleet.rows.len(), fleet.exit()), (2, Exit::NoDevice));
    // If one of the two drones is running, the selection is unambiguous.
    let running = Device { mode: Mode::Firmware, id: CRAZYFLIE, ..dfu(1, full) };
    let (fleet, effects) = selects(vec![running, dfu(2, &in_dfu)]);
    assert_eq!((starts(&effects), fleet.rows.len()), (vec![0], 1));
    let (fleet, _) = selects(vec![dfu(3, "0123456789AB")]);
    assert_eq!(fleet.counts().missing, 1);
}

/// Drones that do not answer can delay the first scan.
#[test]
fn a_batch_does_not_end_before_the_bus_has_been_read() {
    let mut fleet = Fleet::new(policy(), Duration::ZERO);
    assert!(fleet.update(Duration::from_secs(9), FleetMsg::Tick).is_empty());
    fleet.update(Duration::from_secs(10), FleetMsg::Bus(vec![device(&[1], 1, Mode::Dfu)]));
    assert_eq!(starts(&fleet.update(Duration::from_secs(12), FleetMsg::Tick)), [0]);
}

#[test]
fn a_drone_that_does_not_reappear_keeps_the_report_of_the_job_that_lost_it() {
    let (mut fleet, _) = start_fleet(policy(), vec![device(&[1], 1, Mode::Dfu)]);
    let job = Box::new(policy().job);
    let lost = Outcome::Failed(Failure {
        kind: FailureKind::ReadProtected,
        place: None,
        drone: DroneState::WithoutFirmware,
    });
    fleet.update(SETTLE, FleetMsg::Ended(0, report_with(lost.clone()), Some(job)));
    fleet.update(SETTLE, FleetMsg::Ended(0, failed_report(FailureKind::NoMatch("1-1".to_owned())), None));
    assert_eq!(fleet.rows[0].report.as_ref().map(|report| report.outcome.clone()), Some(lost));
}

#[test]
fn a_station_holds_the_drones_that_are_plugged_in_at_the_start() {
    let station =
        Some(Station { hold: true, done: vec!["00000000000000000000000A".to_owned()], ..Station::default() });
    let mut fleet = Fleet::new(Policy { station, ..policy() }, Duration::ZERO);
    let at = |port: u8, serial| device(&[port], serial, Mode::Dfu);
    assert!(starts(&fleet.update(Duration::ZERO, FleetMsg::Bus(vec![at(1, 1)]))).is_empty());
    // The job of a drone that is plugged in later starts at once, unless an earlier run has already flashed the drone.
    assert_eq!(
        starts(&fleet.update(Duration::ZERO, FleetMsg::Bus(vec![at(1, 1), at(2, 2), at(3, 10)]))),
        [1]
    );
    assert_eq!(starts(&fleet.update(Duration::ZERO, FleetMsg::Go)), [0]);
    // `Go` may arrive before the bus has been read.
    let station = Some(Station { hold: true, ..Station::default() });
    let mut fleet = Fleet::new(Policy { station, ..policy() }, Duration::ZERO);
    fleet.update(Duration::ZERO, FleetMsg::Go);
    assert_eq!(starts(&fleet.update(Duration::ZERO, FleetMsg::Bus(vec![at(1, 1)]))), [0]);
}

/// Between the plan and its confirmation, one drone is swapped, one is unplugged, and one is plugged in.
#[test]
fn only_the_drones_of_the_plan_are_flashed() {
    let seconds = Duration::from_secs;
    let drone = |port: u8, serial| device(&[port], serial, Mode::Dfu);
    let planned = [drone(1, 1), drone(2, 2), drone(3, 3)].map(|device| device.drone()).to_vec();
    let mut fleet = Fleet::new(Policy { planned, expect: Some(3), ..policy() }, Duration::ZERO);
    let now = vec![drone(1, 1), drone(2, 9), drone(4, 4)];
    assert!(starts(&fleet.update(seconds(0), FleetMsg::Bus(now))).is_empty(), "the third drone may reappear");
    assert_eq!(starts(&fleet.update(seconds(11), FleetMsg::Tick)), [0]);
    fleet.update(seconds(20), FleetMsg::Ended(0, report_with(Outcome::Flashed), None));
    let counts = fleet.counts();
    assert_eq!((fleet.rows.len(), counts.flashed, counts.missing), (2, 1, 1));
    assert!(matches!(fleet.rows[1].state, RowState::Ended(End::Failed | End::Refused)));
    assert_ne!(fleet.exit(), Exit::Done);
}

#[test]
fn drones_without_a_backup_do_not_pause_an_undo_of_all_drones() {
    let drones = (1..=6).map(|n| device(&[n], n.into(), Mode::Dfu)).collect();
    let (mut fleet, _) = start_fleet(Policy { jobs: 1, ..policy() }, drones);
    for id in 0..3 {
        let kind = FailureKind::NothingToUndo(crate::plan::undo::NoUndo::default());
        let effects = fleet.update(SETTLE, FleetMsg::Ended(id, failed_report(kind), None));
        assert_eq!(starts(&effects), [id + 1]);
    }
}

#[test]
fn a_batch_can_continue_as_a_station() {
    let seconds = Duration::from_secs;
    let (one, two) = (device(&[1], 1, Mode::Dfu), device(&[2], 2, Mode::Dfu));
    let (mut fleet, _) = start_fleet(policy(), vec![one.clone()]);
    let effects = fleet.update(seconds(3), FleetMsg::Ended(0, report_with(Outcome::Flashed), None));
    assert!(effects.contains(&FleetEffect::End) && fleet.is_over());
    assert!(fleet.update(seconds(4), FleetMsg::WaitForMore(Vec::new())).is_empty() && !fleet.is_over());
    // The finished drone is not flashed again, even after it restarts. A new drone is flashed.
    let restarted = Device { address: 2, ..one };
    assert_eq!(starts(&fleet.update(seconds(5), FleetMsg::Bus(vec![restarted, two]))), [1]);
    fleet.update(seconds(9), FleetMsg::Ended(1, failed_report(FailureKind::OtherChip), None));
    // A drone that was plugged in during the batch is flashed only after it has been plugged in again.
    let (mut other, _) = start_fleet(policy(), vec![device(&[1], 1, Mode::Dfu)]);
    let late = device(&[3], 3, Mode::Dfu);
    other.update(seconds(3), FleetMsg::WaitForMore(vec![late.clone()]));
    assert!(starts(&other.update(seconds(4), FleetMsg::Bus(vec![late.clone()]))).is_empty());
    other.update(seconds(5), FleetMsg::Bus(Vec::new()));
    assert_eq!(starts(&other.update(seconds(20), FleetMsg::Bus(vec![late]))).len(), 1);
    // The failed job runs again when the user requests a rerun, and the station ends when the user stops it.
    assert_eq!(starts(&fleet.update(seconds(10), FleetMsg::Rerun(1))), [1]);
    fleet.update(seconds(11), FleetMsg::Ended(1, report_with(Outcome::Flashed), None));
    assert_eq!((fleet.done(), fleet.exit()), (2, Exit::Done));
    assert!(fleet.update(seconds(12), FleetMsg::Stop).contains(&FleetEffect::End));
}

#[derive(Clone, Debug)]
enum FleetStep {
    /// A drone appears, or replaces the drone on its port.
    Plug(u8, u32, bool),
    Unplug(u8),
    Wait(u64),
    Progress(usize),
    End(usize, u8),
    Stop,
    HangUp,
    StopRow(usize),
    Rerun(usize),
}

fn any_step() -> impl Strategy<Value = FleetStep> {
    prop_oneof![
        6 => (1..12u8, 1..20u32, any::<bool>()).prop_map(|(port, serial, dfu)| FleetStep::Plug(port, serial, dfu)),
        1 => (1..12u8).prop_map(FleetStep::Unplug),
        4 => (1..3000u64).prop_map(FleetStep::Wait),
        4 => (0..12usize).prop_map(FleetStep::Progress),
        8 => (0..12usize, 0..6u8).prop_map(|(row, how)| FleetStep::End(row, how)),
        1 => Just(FleetStep::Stop),
        1 => Just(FleetStep::HangUp),
        1 => (0..12usize).prop_map(FleetStep::StopRow),
        2 => (0..12usize).prop_map(FleetStep::Rerun),
    ]
}

/// Drives a fleet and checks each effect against the state of a simulated front end.
struct Model {
    fleet: Fleet,
    now: Duration,
    bus: HashMap<u8, Device>,
    /// The job that is running for each row.
    running: HashMap<usize, Job>,
    ended: Vec<usize>,
    /// For a station: the serial numbers of the drones that have the image.
    succeeded: Vec<String>,
    is_over: bool,
    is_station: bool,
}

impl Model {
    fn send(&mut self, msg: FleetMsg) {
        let effects = self.fleet.update(self.now, msg);
        assert!(!self.is_over || effects.is_empty(), "the fleet returned effects after its end");
        for effect in effects {
            match effect {
                FleetEffect::Start(id, job) => {
                    let row = &self.fleet.rows[id];
                    assert!(!self.ended.contains(&id), "row {id} started again after its job had ended");
                    assert_eq!(job.device, Selector::At(row.device.location.clone()));
                    assert_eq!(job.serial.as_ref(), Some(&row.device.strings.serial));
                    let same_port = |job: &Job| job.device == Selector::At(row.device.location.clone());
                    assert!(!self.running.values().any(same_port), "two jobs on one port");
                    let serial = &row.device.strings.serial;
                    assert!(!self.succeeded.contains(serial), "a finished drone started again");
                    self.running.insert(id, *job);
                }
                FleetEffect::Resume(id, job) => {
                    assert!(!self.ended.contains(&id));
                    assert_eq!(job.device, Selector::At(self.fleet.rows[id].device.location.clone()));
                    assert!(self.running.insert(id, *job).is_none());
                }
                FleetEffect::Cancel(id) | FleetEffect::CancelIfUntouched(id) => {
                    assert!(self.running.contains_key(&id), "row {id} is cancelled, but has no running job");
                }
                FleetEffect::AlreadyDone(device) => assert!(self.succeeded.contains(&device.strings.serial)),
                FleetEffect::Joined(_) | FleetEffect::Show(_) | FleetEffect::Paused => {}
                FleetEffect::End => {
                    assert!(self.running.is_empty());
                    self.is_over = true;
                }
            }
        }
        let entering = |row: &&Row| row.state == RowState::Entering;
        assert!(self.fleet.rows.iter().filter(entering).count() <= ENTERING_PER_CONTROLLER);
        let final_rows = self.fleet.rows.iter().filter(|row| row.is_final()).count();
        let counts = self.fleet.counts();
        let Counts { flashed, unchanged, refused, failed, cancelled, .. } = counts;
        assert_eq!(flashed + unchanged + refused + failed + cancelled, final_rows);
        if self.is_over {
            assert_eq!(final_rows, self.fleet.rows.len());
            let have_all_succeeded = flashed + unchanged == self.fleet.rows.len() && counts.missing == 0;
            let is_done = self.fleet.exit() == Exit::Done;
            // A station without drones also exits with `Done`, and a drone that failed may have succeeded later.
            assert!(is_done || !have_all_succeeded || final_rows == 0);
            assert!(!is_done || have_all_succeeded && final_rows > 0 || self.is_station);
        }
    }

    fn end_job(&mut self, id: usize, how: u8) {
        let Some(job) = self.running.remove(&id) else { return };
        let (report, next) = match how {
            0 | 1 => (report_with(Outcome::Flashed), None),
            2 => (report_with(Outcome::Unchanged), None),
            3 => (failed_report(FailureKind::OtherChip), None),
            4 => (failed_report(FailureKind::ReadProtected), Some(Box::new(job))),
            _ => (report_with(Outcome::Cancelled(DroneState::Untouched)), None),
        };
        if next.is_none() {
            self.ended.push(id);
        }
        if matches!(report.outcome, Outcome::Flashed | Outcome::Unchanged) && self.is_station {
            self.succeeded.push(self.fleet.rows[id].device.strings.serial.clone());
        }
        self.send(FleetMsg::Ended(id, report, next));
        if self.fleet.rows[id].is_final() && !self.ended.contains(&id) {
            self.ended.push(id);
        }
    }

    /// Requests a rerun of a finished row, and allows the row's job to start again.
    fn rerun_row(&mut self, id: usize) {
        let Some(row) = self.fleet.rows.get(id).filter(|row| row.is_final()).cloned() else { return };
        let before = (self.ended.clone(), self.succeeded.clone());
        self.ended.retain(|other| *other != id);
        if row.succeeded() {
            let index = self.succeeded.iter().position(|serial| *serial == row.device.strings.serial);
            index.map(|index| self.succeeded.remove(index));
        }
        self.is_over = false;
        self.send(FleetMsg::Rerun(id));
        if self.fleet.rows[id] == row {
            (self.ended, self.succeeded) = before;
            // The job did not start, for example because the station has already flashed this drone. The fleet may
            // nevertheless be running again.
            self.is_over = self.fleet.is_over();
        }
    }

    fn scan_bus(&mut self) {
        let devices = self.bus.values().cloned().collect();
        self.send(FleetMsg::Bus(devices));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100_000))]

    #[test]
    fn no_sequence_of_messages_violates_the_rules_of_a_batch(
        steps in prop::collection::vec(any_step(), 1..60),
        expect in prop::option::of(0..6usize),
        jobs in 1..10usize,
        is_station in any::<bool>(),
        count in prop::option::of(1..6usize),
    ) {
        let station = is_station.then(|| Station { count, ..Station::default() });
        let policy = Policy { expect: expect.filter(|_| !is_station), jobs, station, ..policy() };
        let mut model = Model {
            fleet: Fleet::new(policy, Duration::ZERO),
            now: Duration::ZERO,
            bus: HashMap::new(),
            running: HashMap::new(),
            ended: Vec::new(),
            succeeded: Vec::new(),
            is_over: false,
            is_station,
        };
        for step in steps {
            match step {
                FleetStep::Plug(port, serial, dfu) => {
                    let mode = if dfu { Mode::Dfu } else { Mode::Firmware };
                    let plugged = device(&[port], serial, mode);
                    // A drone can be on one port only.
                    model.bus.retain(|_, other| other.strings.serial != plugged.strings.serial);
                    model.bus.insert(port, plugged);
                    model.scan_bus();
                }
                FleetStep::Unplug(port) => {
                    model.bus.remove(&port);
                    model.scan_bus();
                }
                FleetStep::Wait(millis) => {
                    model.now += Duration::from_millis(millis);
                    model.send(FleetMsg::Tick);
                }
                FleetStep::Progress(id) => {
                    if model.running.contains_key(&id) {
                        let device = Device { mode: Mode::Dfu, ..model.fleet.rows[id].device.clone() };
                        model.send(FleetMsg::Event(id, Event::Device(device)));
                        model.send(FleetMsg::Event(id, Event::Progress { phase: Phase::Write, done: 1, total: 2 }));
                    }
                }
                FleetStep::End(id, how) => model.end_job(id, how),
                FleetStep::Stop => model.send(FleetMsg::Stop),
                FleetStep::HangUp => model.send(FleetMsg::HangUp),
                FleetStep::StopRow(id) => model.send(FleetMsg::StopRow(id)),
                FleetStep::Rerun(id) => model.rerun_row(id),
            }
        }
        // A batch ends once its jobs have ended; a station ends once it is stopped.
        model.scan_bus();
        model.now += Duration::from_secs(60);
        model.send(if is_station { FleetMsg::Stop } else { FleetMsg::Tick });
        while let Some(id) = model.running.keys().next().copied() {
            model.end_job(id, 0);
        }
        prop_assert!(model.is_over);
    }
}
