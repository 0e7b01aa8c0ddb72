//! The state of a batch of drones: which drones take part, which job runs on which port, and how the batch ends. This
//! module performs no I/O: [`Fleet::update`] takes a message and the time, and returns effects; the front end runs the
//! workers.
//!
//! Each drone has its own worker, so a slow or failed job does not affect the running jobs of the others. The fleet
//! tracks a drone by its port, because several drones of a batch may have the same serial number in DFU mode (RM0090
//! §39.1). The job also checks the serial number.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use crate::crazyflie::{self, Mode};
use crate::job::{
    Device, DroneAt, DroneState, Enter, Event, Failure, FailureKind, Job, LogEntry, Outcome, Phase, Report,
    Selector, Task, WaitFor,
};
use crate::report::{self, Exit};
use crate::usb::{Location, TransferError, UDEV};

/// The maximum number of drones that enter DFU mode at once, per hub and per USB controller. The kernel enumerates the
/// ports of a hub one after the other, each in 0.25 to 0.33 s (linux/drivers/usb/core/hub.c). If more drones restarted
/// at once, the last drone would appear to be lost.
const ENTERING_PER_HUB: usize = 4;
const ENTERING_PER_CONTROLLER: usize = 8;
/// The batch starts once no drone has appeared or disappeared for this long, or all expected drones are plugged in.
const SETTLE: Duration = Duration::from_secs(2);
/// The shortest time that `--expect` waits for the expected drones.
const EXPECT: Duration = Duration::from_secs(10);
/// The batch starts no more jobs if its first jobs, as many as this, have all failed in the same way, because the
/// drones are then probably not the cause.
const SAME_FAILURE_LIMIT: usize = 3;

/// The settings of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// The job for each drone.
    pub job: Job,
    /// The drones that take part; empty means all.
    pub selected: Vec<Selector>,
    /// The drones for which a plan was confirmed; empty if no plan was made. If a plan was made, no other drone takes
    /// part, not even on the same port.
    pub planned: Vec<DroneAt>,
    /// The number of drones that must take part.
    pub expect: Option<usize>,
    /// The maximum number of jobs that run at the same time.
    pub jobs: usize,
    /// The time to wait for drones to appear.
    pub wait: Duration,
    /// Whether a drone counts as a success only if it runs afterwards.
    pub require_boot: bool,
    /// The settings of a station, where every drone that is plugged in later also takes part; `None` for a batch that
    /// is not a station.
    pub station: Option<Station>,
}

/// The settings of a station, where drones are plugged in one after the other.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Station {
    /// The number of drones that must have the image before the station ends.
    pub count: Option<usize>,
    /// Whether the drones that are plugged in at the start wait for [`FleetMsg::Go`].
    pub hold: bool,
    /// The serial numbers of the drones that are already done.
    pub done: Vec<String>,
}

/// How long a drone must be absent before its port counts as free. A restart takes less time.
const AWAY: Duration = Duration::from_secs(8);

#[derive(Clone, Debug)]
pub enum FleetMsg {
    /// The drones on the bus.
    Bus(Vec<Device>),
    /// An event of a row's job.
    Event(usize, Event),
    /// A row's job has ended. `Some` contains the rest of the job, which runs once the drone has reconnected.
    Ended(usize, Box<Report>, Option<Box<Job>>),
    /// Time has passed.
    Tick,
    /// Start the jobs of the drones that were already plugged in at the start.
    Go,
    /// Stop every job at its next safe point.
    Stop,
    /// Stop the jobs that have not changed their drones; the others finish.
    HangUp,
    /// Stop this row's job at its next safe point.
    StopRow(usize),
    /// Run this row's job again. Ignored unless it has ended.
    Rerun(usize),
    /// Continue as a station: flash every drone that is plugged in from now on. The message lists the devices that are
    /// already on the bus.
    WaitForMore(Vec<Device>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FleetEffect {
    Start(usize, Box<Job>),
    /// Run the rest of an interrupted job.
    Resume(usize, Box<Job>),
    Cancel(usize),
    CancelIfUntouched(usize),
    /// A drone has joined the batch.
    Joined(usize),
    /// The state of this row has changed.
    Show(usize),
    /// For a station: the drone that was plugged in is already done.
    AlreadyDone(Device),
    /// The remaining jobs are not started, because the first jobs all failed in the same way.
    Paused,
    /// All rows are final.
    End,
}

/// A drone of the batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// The drone as it was first seen. The port of the drone stays the same.
    pub device: Device,
    pub state: RowState,
    /// The time at which the job started.
    pub started: Option<Duration>,
    /// The time at which the row became final.
    pub ended: Option<Duration>,
    pub board: Option<String>,
    /// The firmware that was on the drone.
    pub before: Option<String>,
    /// The job's report, once it has ended.
    pub report: Option<Box<Report>>,
    /// The report of the job that lost the drone.
    lost: Option<Box<Report>>,
    /// Whether the drone is running, or the policy does not require a running drone.
    runs: bool,
    /// For a station: the time since which the drone has not been seen, at the earliest the end of its job.
    away: Option<Duration>,
    /// Whether the port is free for a different drone, or for this drone again.
    freed: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RowState {
    /// The job is waiting for [`FleetMsg::Go`].
    Held,
    /// The job has not started.
    Queued,
    /// The drone was asked to enter DFU mode.
    Entering,
    /// The drone is running, and the user has to bring it into DFU mode by hand.
    ByHand,
    /// The worker is examining the drone.
    Examining,
    Working(Phase, u64, u64),
    /// The drone is restarting, or the job is watching whether it keeps running.
    Starting,
    /// The drone was lost, and the job resumes when the drone reconnects.
    Lost,
    /// The job has ended, with the outcome in [`Row::report`].
    Ended(End),
}

/// How a row ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Flashed,
    Unchanged,
    /// The image or the drone was refused before anything was changed.
    Refused,
    Failed,
    /// The job was stopped, or never started.
    Cancelled,
}

impl End {
    pub(crate) fn json_name(self) -> &'static str {
        match self {
            End::Flashed => "flashed",
            End::Unchanged => "unchanged",
            End::Refused => "refused",
            End::Failed => "failed",
            End::Cancelled => "cancelled",
        }
    }
}

/// The number of rows that ended in each way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub flashed: usize,
    pub unchanged: usize,
    pub refused: usize,
    pub failed: usize,
    pub cancelled: usize,
    /// Drones that were expected but never seen.
    pub missing: usize,
}

impl Counts {
    /// Returns the counts as text, for example `6 flashed, 1 refused`, or an empty string if all counts are zero.
    /// `unchanged` is the word for drones that did not change.
    pub(crate) fn in_words(self, unchanged: &str) -> String {
        let parts = [
            (self.flashed, "flashed"),
            (self.unchanged, unchanged),
            (self.refused, "refused"),
            (self.failed, "failed"),
            (self.cancelled, "stopped"),
            (self.missing, "missing"),
        ];
        let parts = parts.iter().filter(|(n, _)| *n > 0).map(|(n, word)| format!("{n} {word}"));
        parts.collect::<Vec<_>>().join(", ")
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FleetStage {
    /// Drones may still appear.
    Gathering,
    Running,
    Over,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fleet {
    pub rows: Vec<Row>,
    policy: Policy,
    stage: FleetStage,
    /// The drones on the bus.
    seen: Vec<Device>,
    /// The time at which the bus was first read.
    began: Option<Duration>,
    /// The time at which the list of drones last changed before the batch started.
    changed: Duration,
    /// The number of `--device` options without a matching drone.
    unmatched: usize,
    /// Whether the batch starts no more jobs.
    stopped: bool,
    /// For a station: the ports that were in use at the start and whose drones wait for [`FleetMsg::Go`], and the time
    /// since which each port has been empty.
    held: Vec<(Location, Option<Duration>)>,
    /// For a station: the devices that cannot be opened, and the time at which each was first seen. udev may not have
    /// granted access yet.
    closed: HashMap<Enumeration, Duration>,
    /// For a station: the devices that were already reported as done.
    noted: HashSet<Enumeration>,
    /// For a station: the number of drones that have the image now.
    done: usize,
}

/// A port and the USB address of the device on that port. A different address means that the device was plugged in
/// again or restarted.
type Enumeration = (Location, u8);

impl Fleet {
    pub fn new(policy: Policy, now: Duration) -> Fleet {
        // A station does not wait until the bus has settled.
        let stage = if policy.station.is_some() { FleetStage::Running } else { FleetStage::Gathering };
        let done = policy.station.as_ref().map_or(0, |station| station.done.len());
        Fleet {
            rows: Vec::new(),
            policy,
            stage,
            seen: Vec::new(),
            began: None,
            changed: now,
            unmatched: 0,
            stopped: false,
            held: Vec::new(),
            closed: HashMap::new(),
            noted: HashSet::new(),
            done,
        }
    }

    pub fn update(&mut self, now: Duration, msg: FleetMsg) -> Vec<FleetEffect> {
        if self.stage == FleetStage::Over && !matches!(msg, FleetMsg::Rerun(_) | FleetMsg::WaitForMore(_)) {
            return Vec::new();
        }
        let mut effects = match msg {
            FleetMsg::Bus(devices) if self.policy.station.is_some() => self.on_arrivals(now, devices),
            FleetMsg::Bus(devices) => {
                self.on_bus(now, devices);
                Vec::new()
            }
            FleetMsg::Go => self.release_held(),
            FleetMsg::Event(id, event) => self.on_event(id, event),
            FleetMsg::Ended(id, report, next) => self.on_end(now, id, report, next),
            FleetMsg::Tick => self.report_closed(now),
            FleetMsg::Stop => self.stop(now, FleetEffect::Cancel),
            FleetMsg::HangUp => self.stop(now, FleetEffect::CancelIfUntouched),
            FleetMsg::StopRow(id) => self.stop_row(now, id),
            FleetMsg::Rerun(id) => self.rerun_row(id),
            FleetMsg::WaitForMore(devices) => self.continue_as_station(now, &devices),
        };
        if self.stage == FleetStage::Gathering {
            effects.extend(self.start_batch_if_ready(now));
        }
        if self.stage == FleetStage::Running {
            effects.extend(self.start_next(now));
            if self.has_enough(0) && !self.rows.iter().any(Row::is_active) {
                self.stopped = true;
                effects.extend(self.cancel_unstarted(now));
            }
            let is_last = self.policy.station.is_none() || self.stopped;
            if is_last && self.rows.iter().all(Row::is_final) {
                self.stage = FleetStage::Over;
                effects.push(FleetEffect::End);
            }
        }
        effects
    }

    /// Returns whether a station may flash this drone. A selector must name the drone exactly: a serial number from the
    /// other mode may belong to a different drone.
    fn takes_part(&self, device: &Device) -> bool {
        let selected = &self.policy.selected;
        selected.is_empty() || selected.iter().any(|selector| names_exactly(selector, device))
    }

    fn on_bus(&mut self, now: Duration, devices: Vec<Device>) {
        self.began.get_or_insert(now);
        if self.stage == FleetStage::Gathering && devices != self.seen {
            (self.seen, self.changed) = (devices, now);
        }
    }

    /// Adds the drones that were plugged in since the last scan. `devices` omits the drones on the ports of running
    /// jobs.
    fn on_arrivals(&mut self, now: Duration, devices: Vec<Device>) -> Vec<FleetEffect> {
        let holds = self.policy.station.as_ref().is_some_and(|station| station.hold);
        if self.began.is_none() && holds {
            self.held = devices.iter().map(|device| (device.location.clone(), None)).collect();
        }
        self.began.get_or_insert(now);
        let here = |location: &Location| devices.iter().find(|it| it.location == *location);
        // A port that has been empty for a while is no longer held: the next drone on that port does not wait for `Go`.
        self.held.retain(|(_, empty)| empty.is_none_or(|since| now.saturating_sub(since) < AWAY));
        for (location, empty) in &mut self.held {
            *empty = if here(location).is_some() { None } else { empty.or(Some(now)) };
        }
        let mut effects = Vec::new();
        for (id, row) in self.rows.iter_mut().enumerate().filter(|(_, row)| !row.freed && !row.is_active()) {
            let device = here(&row.device.location);
            let is_free = row.away.is_some_and(|since| now.saturating_sub(since) >= AWAY)
                || device.is_some_and(|device| row.is_replaced_by(device));
            row.away = if device.is_some() { None } else { row.away.or(Some(now)) };
            row.freed = is_free;
            // A drone that was unplugged before its turn gets a new row if it is plugged in again.
            if is_free && !row.is_final() {
                (row.state, row.ended) = (RowState::Ended(End::Cancelled), Some(now));
                effects.push(FleetEffect::Show(id));
            }
        }
        let is_here = |it: &Enumeration, closed| {
            devices.iter().any(|device| enumeration(device) == *it && device.open_error.is_some() == closed)
        };
        self.closed.retain(|it, _| is_here(it, true));
        self.noted.retain(|it| is_here(it, false));
        for device in &devices {
            let is_taken = |row: &Row| row.device.location == device.location && !row.freed;
            if self.stopped || !self.takes_part(device) || self.rows.iter().any(is_taken) {
                continue;
            }
            if device.open_error.is_some() {
                self.closed.entry(enumeration(device)).or_insert(now);
                continue;
            }
            if self.is_done(device) {
                if self.noted.insert(enumeration(device)) {
                    effects.push(FleetEffect::AlreadyDone(device.clone()));
                }
                continue;
            }
            let mut row = Row::new(device.clone());
            if self.held.iter().any(|(location, _)| *location == device.location) {
                row.state = RowState::Held;
            }
            self.rows.push(row);
            effects.push(FleetEffect::Joined(self.rows.len() - 1));
        }
        self.seen = devices;
        effects
    }

    /// For a station: adds a failed row for each device that still cannot be opened after [`UDEV`].
    fn report_closed(&mut self, now: Duration) -> Vec<FleetEffect> {
        let since = |device: &Device| self.closed.get(&enumeration(device));
        let is_due = |device: &&Device| since(device).is_some_and(|since| now.saturating_sub(*since) >= UDEV);
        let due: Vec<Device> = self.seen.iter().filter(is_due).cloned().collect();
        let mut effects = Vec::new();
        for device in due {
            let Some(error) = device.open_error else { continue };
            self.closed.remove(&enumeration(&device));
            let kind = FailureKind::cannot_open(device.id, error);
            self.rows.push(Row::failed(device, kind, now));
            let id = self.rows.len() - 1;
            effects.extend([FleetEffect::Joined(id), FleetEffect::Show(id)]);
        }
        effects
    }

    /// Returns whether this drone has certainly been flashed already. The serial number of a drone in DFU mode may
    /// belong to a different drone of the batch, so a drone in DFU mode always gets a job. If the drone was already
    /// flashed, the job finds nothing to write.
    fn is_done(&self, device: &Device) -> bool {
        let serial = &device.strings.serial;
        let before = self.policy.station.iter().flat_map(|station| &station.done);
        let now = self.rows.iter().filter(|row| row.succeeded()).map(|row| &row.device.strings.serial);
        before.chain(now).any(|done| is_certainly_same(done, serial))
    }

    /// Returns, for a station, whether this row's job adds one to the number of drones that have the image. A drone
    /// that is plugged in again is not counted again, unless it had to be flashed again.
    fn adds_to_count(&self, id: usize) -> bool {
        let row = &self.rows[id];
        let earlier =
            self.rows.iter().enumerate().any(|(n, it)| n != id && it.succeeded() && it.is(&row.device));
        let before = self.policy.station.iter().flat_map(|station| &station.done);
        let is_known = earlier || before.into_iter().any(|done| row.has_serial(done));
        row.succeeded() && (row.state == RowState::Ended(End::Flashed) || !is_known)
    }

    fn release_held(&mut self) -> Vec<FleetEffect> {
        // `Go` may arrive before the bus has been read.
        if let Some(station) = &mut self.policy.station {
            station.hold = false;
        }
        self.held.clear();
        for row in self.rows.iter_mut().filter(|row| row.state == RowState::Held) {
            row.state = RowState::Queued;
        }
        Vec::new()
    }

    /// Returns whether the drones done so far and the `active` jobs together reach the station's count.
    fn has_enough(&self, active: usize) -> bool {
        let count = self.policy.station.as_ref().and_then(|station| station.count);
        count.is_some_and(|count| self.done + active >= count)
    }

    /// Starts the batch once all expected drones are plugged in. Otherwise, starts it once the bus has settled and the
    /// wait time is over; without `expect`, the wait also ends once at least one drone is plugged in and every selector
    /// has a match.
    fn start_batch_if_ready(&mut self, now: Duration) -> Vec<FleetEffect> {
        let Policy { expect, wait, .. } = self.policy;
        let Some(began) = self.began else { return Vec::new() };
        let settled = now.saturating_sub(self.changed) >= SETTLE;
        let waited = now.saturating_sub(began);
        let (chosen, ambiguous, unmatched) = self.select_drones();
        let found = chosen.len() + ambiguous.len();
        let enough = match expect {
            Some(expect) => found >= expect || waited >= wait.max(EXPECT),
            None => waited >= wait || found > 0 && unmatched == 0,
        };
        if !settled && expect.is_none_or(|expect| found < expect) || !enough {
            return Vec::new();
        }
        let all = ambiguous.clone();
        let refused = ambiguous.into_iter().map(|device| {
            let kind = FailureKind::Several(all.clone());
            Row::failed(device, kind, now)
        });
        let planned = &self.policy.planned;
        let row_for = |device: Device| {
            if planned.is_empty() || planned.iter().any(|drone| is_planned(drone, &device)) {
                return Row::new(device);
            }
            let found = Some(device.strings.serial.clone()).filter(|serial| !serial.is_empty());
            let port = device.location.clone();
            Row::failed(device, FailureKind::OtherDrone { port, found }, now)
        };
        self.rows = chosen.into_iter().map(row_for).chain(refused).collect();
        self.rows.sort_by(|a, b| a.device.location.cmp(&b.device.location));
        self.unmatched = unmatched;
        self.stage = FleetStage::Running;
        let mut effects: Vec<FleetEffect> = (0..self.rows.len()).map(FleetEffect::Joined).collect();
        let is_final = |(id, row): (usize, &Row)| row.is_final().then_some(FleetEffect::Show(id));
        effects.extend(self.rows.iter().enumerate().filter_map(is_final));
        effects
    }

    /// Returns the drones that take part, the drones that a selector cannot distinguish, and the number of selectors
    /// without a match.
    fn select_drones(&self) -> (Vec<Device>, Vec<Device>, usize) {
        let mut devices = participants(&self.seen);
        let planned = &self.policy.planned;
        devices.retain(|it| planned.is_empty() || planned.iter().any(|drone| drone.port == it.location));
        if self.policy.selected.is_empty() {
            return (devices, Vec::new(), 0);
        }
        let (mut chosen, mut ambiguous, mut unmatched) = (Vec::new(), Vec::new(), 0);
        for selector in &self.policy.selected {
            let exact: Vec<&Device> = devices.iter().filter(|it| names_exactly(selector, it)).collect();
            let found: Vec<&Device> = if exact.is_empty() {
                devices.iter().filter(|it| selector.matches(it)).collect()
            } else {
                exact
            };
            match found.as_slice() {
                [] => unmatched += 1,
                [one] => chosen.push((*one).clone()),
                several => ambiguous.extend(several.iter().map(|device| (*device).clone())),
            }
        }
        let sort_by_port = |devices: &mut Vec<Device>| {
            devices.sort_by(|a, b| a.location.cmp(&b.location));
            devices.dedup_by(|a, b| a.location == b.location);
        };
        sort_by_port(&mut chosen);
        sort_by_port(&mut ambiguous);
        // A different selector may name an ambiguous drone exactly, for example by its port.
        ambiguous.retain(|device| !chosen.iter().any(|other| other.location == device.location));
        (chosen, ambiguous, unmatched)
    }

    /// Starts the jobs that may run now.
    fn start_next(&mut self, now: Duration) -> Vec<FleetEffect> {
        let mut effects = Vec::new();
        let enters_dfu = self.enters_dfu();
        for id in 0..self.rows.len() {
            if self.stopped || self.rows[id].state != RowState::Queued || !self.may_start(id) {
                continue;
            }
            // The drone may have been moved to this port while its job on another port was still ending.
            if self.policy.station.is_some() && self.is_done(&self.rows[id].device) {
                let row = &mut self.rows[id];
                (row.state, row.ended) = (RowState::Ended(End::Cancelled), Some(now));
                effects.push(FleetEffect::AlreadyDone(row.device.clone()));
                continue;
            }
            let row = &mut self.rows[id];
            row.started = Some(now);
            row.state = if row.device.mode == Mode::Firmware && enters_dfu {
                RowState::Entering
            } else {
                RowState::Examining
            };
            let job = self.policy.job.clone().of(row.device.drone());
            effects.extend([FleetEffect::Start(id, Box::new(job)), FleetEffect::Show(id)]);
        }
        effects
    }

    /// Returns whether the job asks a running drone to enter DFU mode. [`Task::Find`] counts too, because an undo
    /// follows.
    fn enters_dfu(&self) -> bool {
        let Job { task, enter, .. } = &self.policy.job;
        !matches!(task, Task::Identify | Task::Blink(_) | Task::Console(_))
            && matches!(enter, Enter::IfRunning | Enter::Unaided)
    }

    fn may_start(&self, id: usize) -> bool {
        let active = self.rows.iter().filter(|row| row.is_active()).count();
        if active >= self.policy.jobs.max(1) || self.has_enough(active) {
            return false;
        }
        let device = &self.rows[id].device;
        if device.mode == Mode::Dfu {
            return true;
        }
        let entering = self.rows.iter().filter(|row| row.state == RowState::Entering);
        let (mut on_hub, mut on_controller) = (0, 0);
        for row in entering {
            on_hub += usize::from(row.device.location.hub() == device.location.hub());
            on_controller += usize::from(row.device.location.bus == device.location.bus);
        }
        on_hub < ENTERING_PER_HUB && on_controller < ENTERING_PER_CONTROLLER
    }

    fn on_event(&mut self, id: usize, event: Event) -> Vec<FleetEffect> {
        let enters_dfu = self.enters_dfu();
        let Some(row) = self.rows.get_mut(id).filter(|row| !row.is_final()) else { return Vec::new() };
        let state = match event {
            Event::Device(device) => {
                let has_begun = matches!(row.state, RowState::Working(..) | RowState::Starting);
                match device.mode {
                    Mode::Firmware if has_begun => RowState::Starting,
                    Mode::Firmware if enters_dfu => RowState::Entering,
                    Mode::Firmware | Mode::Dfu => RowState::Examining,
                }
            }
            Event::Progress { phase, done, total } => {
                // The first word is written last, after the rest has been verified. This write is not a separate phase.
                let is_new = !matches!(row.state, RowState::Working(now, ..) if now >= phase);
                row.state = RowState::Working(phase, done, total);
                return if is_new { vec![FleetEffect::Show(id)] } else { Vec::new() };
            }
            Event::Ready(preview) => {
                row.before = preview.firmware.as_ref().map(|firmware| match firmware.firmware() {
                    Some(it) => it.version.clone().unwrap_or_else(|| "unknown version".to_owned()),
                    None => firmware.to_string(),
                });
                return Vec::new();
            }
            Event::Waiting { what: WaitFor::Start | WaitFor::StayUp, .. } => RowState::Starting,
            Event::Waiting { what: WaitFor::DfuByHand, .. } => RowState::ByHand,
            Event::Log(_, LogEntry::Board(board)) => {
                row.board = Some(board.code);
                return Vec::new();
            }
            _ => return Vec::new(),
        };
        if row.state == state {
            return Vec::new();
        }
        row.state = state;
        vec![FleetEffect::Show(id)]
    }

    fn on_end(
        &mut self,
        now: Duration,
        id: usize,
        report: Box<Report>,
        next: Option<Box<Job>>,
    ) -> Vec<FleetEffect> {
        let stopped = self.stopped;
        let require_boot = self.policy.require_boot;
        let Some(row) = self.rows.get_mut(id).filter(|row| !row.is_final()) else { return Vec::new() };
        if let Some(job) = next.filter(|_| !stopped) {
            (row.state, row.lost) = (RowState::Lost, Some(report));
            return vec![FleetEffect::Show(id), FleetEffect::Resume(id, job)];
        }
        // If the drone did not reappear, keep the report of the job that lost the drone.
        let found = !matches!(&report.outcome, Outcome::Failed(failure) if is_not_found(&failure.kind))
            && !matches!(report.outcome, Outcome::Cancelled(DroneState::Untouched));
        let report = row.lost.take().filter(|_| !found).unwrap_or(report);
        row.state = RowState::Ended(end_of(&report));
        row.runs = !require_boot || report.is_well();
        (row.report, row.ended) = (Some(report), Some(now));
        // A drone counts as unplugged only once it has been away for `AWAY`: it may be restarting now.
        row.away = Some(now);
        self.done += usize::from(self.adds_to_count(id));
        let mut effects = vec![FleetEffect::Show(id)];
        if !self.stopped && self.first_jobs_failed_alike() {
            self.stopped = true;
            effects.push(FleetEffect::Paused);
            effects.extend(self.cancel_unstarted(now));
        }
        effects
    }

    /// Returns whether the first jobs of a batch that is not a station all failed in the same way, while other jobs
    /// have not started.
    fn first_jobs_failed_alike(&self) -> bool {
        let ended: Vec<&Row> = self.rows.iter().filter(|row| row.is_final()).collect();
        // A missing backup for undo does not indicate a common cause.
        let kinds = ended.iter().filter_map(|row| row.problem_kind());
        let kinds: Vec<_> = kinds.filter(|kind| *kind != report::ProblemKind::NoCopy).collect();
        self.policy.station.is_none()
            && ended.len() == SAME_FAILURE_LIMIT
            && kinds.len() == SAME_FAILURE_LIMIT
            && kinds.iter().all(|kind| *kind == kinds[0])
            && self.rows.iter().any(|row| row.state == RowState::Queued)
    }

    fn stop(&mut self, now: Duration, cancel: fn(usize) -> FleetEffect) -> Vec<FleetEffect> {
        let mut effects = Vec::new();
        self.stopped = true;
        if self.stage == FleetStage::Gathering {
            let (chosen, ambiguous, _) = self.select_drones();
            self.rows = chosen.into_iter().chain(ambiguous).map(Row::new).collect();
            self.stage = FleetStage::Running;
            effects.extend((0..self.rows.len()).map(FleetEffect::Joined));
        }
        effects.extend(self.cancel_unstarted(now));
        let is_running = |(_, row): &(usize, &Row)| !row.is_final();
        effects.extend(self.rows.iter().enumerate().filter(is_running).map(|(id, _)| cancel(id)));
        effects
    }

    fn stop_row(&mut self, now: Duration, id: usize) -> Vec<FleetEffect> {
        match self.rows.get_mut(id) {
            Some(row) if row.is_active() => vec![FleetEffect::Cancel(id)],
            Some(row) if !row.is_final() => {
                (row.state, row.ended) = (RowState::Ended(End::Cancelled), Some(now));
                vec![FleetEffect::Show(id)]
            }
            Some(_) | None => Vec::new(),
        }
    }

    /// Runs a row's job again, unless the drone has been unplugged or another row has an unfinished job on the same
    /// port. In both cases the job could find a different drone.
    fn rerun_row(&mut self, id: usize) -> Vec<FleetEffect> {
        let Some(row) = self.rows.get(id).filter(|row| row.is_final() && !row.freed) else {
            return Vec::new();
        };
        let is_here = |other: &Row| other.device.location == row.device.location && !other.is_final();
        if self.rows.iter().any(is_here) {
            return Vec::new();
        }
        self.done -= usize::from(self.adds_to_count(id)).min(self.done);
        let device = self.rows[id].device.clone();
        self.rows[id] = Row::new(device);
        (self.stage, self.stopped) = (FleetStage::Running, false);
        vec![FleetEffect::Show(id)]
    }

    fn continue_as_station(&mut self, now: Duration, devices: &[Device]) -> Vec<FleetEffect> {
        if self.stage == FleetStage::Gathering || self.policy.station.is_some() {
            return Vec::new();
        }
        self.policy.station = Some(Station::default());
        // A drone that was not part of the batch waits until it is plugged in again.
        let has_row = |device: &&Device| self.rows.iter().any(|row| row.device.location == device.location);
        let held = devices.iter().filter(|device| !has_row(device));
        self.held = held.map(|device| (device.location.clone(), None)).collect();
        (self.stage, self.stopped) = (FleetStage::Running, false);
        self.done = self.rows.iter().filter(|row| row.succeeded()).count();
        // The ports stay occupied until their drones are unplugged, so no drone is flashed twice.
        for row in self.rows.iter_mut().filter(|row| row.is_final()) {
            row.away = Some(now);
        }
        Vec::new()
    }

    /// Ends the rows whose jobs have not started.
    fn cancel_unstarted(&mut self, now: Duration) -> Vec<FleetEffect> {
        let mut effects = Vec::new();
        let waits = |row: &Row| matches!(row.state, RowState::Held | RowState::Queued);
        for (id, row) in self.rows.iter_mut().enumerate().filter(|(_, row)| waits(row)) {
            (row.state, row.ended) = (RowState::Ended(End::Cancelled), Some(now));
            effects.push(FleetEffect::Show(id));
        }
        effects
    }

    /// Returns the station's settings, or `None` for a batch that is not a station.
    pub fn station(&self) -> Option<&Station> {
        self.policy.station.as_ref()
    }

    /// Returns whether the batch starts no more jobs.
    pub fn is_stopped(&self) -> bool {
        self.stopped
    }

    /// Returns whether all rows are final and no more drones are expected.
    pub fn is_over(&self) -> bool {
        self.stage == FleetStage::Over
    }

    /// Returns whether a drone counts as a success only if it runs afterwards.
    pub fn requires_boot(&self) -> bool {
        self.policy.require_boot
    }

    /// Returns, for a station, the number of drones that have the image now.
    pub fn done(&self) -> usize {
        self.done
    }

    pub fn counts(&self) -> Counts {
        let count = |end| self.rows.iter().filter(|row| row.state == RowState::Ended(end)).count();
        Counts {
            flashed: count(End::Flashed),
            unchanged: count(End::Unchanged),
            refused: count(End::Refused),
            failed: count(End::Failed),
            cancelled: count(End::Cancelled),
            missing: self.policy.expect.unwrap_or(0).saturating_sub(self.rows.len()).max(self.unmatched),
        }
    }

    /// Returns the exit status of the batch: the most important status among its rows and any missing drones.
    pub fn exit(&self) -> Exit {
        use Exit::{Defect, Device, Done, Image, Interrupted, NoDevice, NoInput, NoPermission, NotRunning};
        let of_row = |row: &Row| match &row.report {
            Some(report) => match report::exit_status(report) {
                Done if !row.runs => NotRunning,
                exit => exit,
            },
            None => Interrupted,
        };
        let counts = self.counts();
        let is_station = self.policy.station.is_some();
        // On a station, a drone that was plugged in several times counts as a success if any of its jobs succeeded.
        // If none succeeded, its last job counts.
        let is_last = |(n, row): &(usize, &Row)| {
            let is_same = |other: &Row| {
                other.is(&row.device)
                    && (other.device.location == row.device.location
                        || is_certainly_same(&other.device.strings.serial, &row.device.strings.serial))
            };
            let counts_instead = |(m, other): (usize, &Row)| {
                is_same(other) && !row.succeeded() && (other.succeeded() || m > *n)
            };
            !is_station || !self.rows.iter().enumerate().any(counts_instead)
        };
        let last = self.rows.iter().enumerate().filter(is_last);
        let mut exits: Vec<Exit> = last.map(|(_, row)| of_row(row)).collect();
        if counts.missing > 0 || self.rows.is_empty() && !is_station {
            exits.push(if self.stopped { Interrupted } else { NoDevice });
        }
        let order =
            [Defect, Device, NoPermission, Image, NoInput, NoDevice, NotRunning, Interrupted, Exit::Differs];
        order.into_iter().find(|exit| exits.contains(exit)).unwrap_or(Done)
    }

    /// Returns the largest number of drones on one hub. These drones share the full-speed bandwidth of the hub. Drones
    /// that are plugged into the computer itself do not count.
    pub fn most_on_one_hub(&self) -> usize {
        let behind_hub = |row: &&Row| row.device.location.ports.len() > 1;
        let hubs = self.rows.iter().filter(behind_hub).map(|row| row.device.location.hub());
        let mut hubs: Vec<Location> = hubs.collect();
        hubs.sort();
        hubs.chunk_by(|a, b| a == b).map(<[Location]>::len).max().unwrap_or(0)
    }

    /// Returns the serial numbers that more than one drone reports. Drones with the same serial number differ only in
    /// their ports.
    pub fn shared_serials(&self) -> Vec<String> {
        let serials = || self.rows.iter().map(|row| &row.device.strings.serial);
        let shared =
            |serial: &&String| serials().filter(|it| crazyflie::is_same_serial(it, serial)).count() > 1;
        let mut shared: Vec<String> = serials().filter(shared).cloned().collect();
        shared.sort();
        shared.dedup();
        shared
    }
}

impl Row {
    fn new(device: Device) -> Row {
        Row {
            device,
            state: RowState::Queued,
            started: None,
            ended: None,
            board: None,
            before: None,
            report: None,
            lost: None,
            runs: true,
            away: None,
            freed: false,
        }
    }

    /// Creates a row that is final from the start.
    fn failed(device: Device, kind: FailureKind, now: Duration) -> Row {
        let failure = Failure { kind, place: None, drone: DroneState::Untouched };
        let report = Box::new(Report::nothing_done(Outcome::Failed(failure)));
        let state = RowState::Ended(end_of(&report));
        Row { state, ended: Some(now), report: Some(report), ..Row::new(device) }
    }

    /// Returns whether a worker is busy with the drone.
    fn is_active(&self) -> bool {
        !matches!(self.state, RowState::Held | RowState::Queued | RowState::Ended(_))
    }

    /// Returns whether `device`, which is on the row's port, takes the place of the row's drone: either it is certainly
    /// a different drone, or the row's device could not be opened and `device` can. An unreadable serial number proves
    /// nothing.
    fn is_replaced_by(&self, device: &Device) -> bool {
        let is_known = |device: &Device| device.open_error.is_none() && !device.strings.serial.is_empty();
        let is_other = is_known(&self.device) && is_known(device) && !self.is(device);
        // `Busy` means that another program was using the drone and may have flashed it, so the station does not flash
        // the drone until it has been unplugged.
        let was_closed = self.device.open_error.is_some_and(|error| error != TransferError::Busy);
        is_other || was_closed && device.open_error.is_none()
    }

    /// Returns whether this device is the row's drone, in either mode.
    fn is(&self, device: &Device) -> bool {
        self.has_serial(&device.strings.serial)
    }

    /// Returns whether the row's drone reports this serial number in one of its modes.
    fn has_serial(&self, serial: &str) -> bool {
        crazyflie::is_same_serial(&self.device.strings.serial, serial)
    }

    /// Returns whether the drone has the image now and, if the policy requires it, runs.
    pub fn succeeded(&self) -> bool {
        self.runs && matches!(self.state, RowState::Ended(End::Flashed | End::Unchanged))
    }

    /// Returns the completed share of the row's job, from 0 to 1, for a progress bar. The weights of the phases
    /// approximate a first flash.
    pub(crate) fn ratio(&self) -> f64 {
        #[allow(clippy::cast_precision_loss, reason = "an approximation for a progress bar")]
        let share = |done: u64, total: u64| if total == 0 { 0.0 } else { done as f64 / total as f64 };
        match self.state {
            RowState::Held | RowState::Queued => 0.0,
            RowState::Entering | RowState::ByHand => 0.02,
            RowState::Examining | RowState::Lost => 0.05,
            RowState::Working(phase, done, total) => {
                let (from, part) = match phase {
                    Phase::Compare | Phase::Read => (0.05, 0.1),
                    Phase::Erase => (0.15, 0.25),
                    Phase::Write => (0.4, 0.35),
                    Phase::Verify => (0.75, 0.1),
                };
                from + part * share(done, total)
            }
            RowState::Starting => 0.9,
            RowState::Ended(_) => 1.0,
        }
    }

    /// Returns whether the row's drone was unplugged or replaced, so that the port is free.
    pub(crate) fn was_unplugged(&self) -> bool {
        self.freed
    }

    pub fn is_final(&self) -> bool {
        matches!(self.state, RowState::Ended(_))
    }

    fn problem_kind(&self) -> Option<report::ProblemKind> {
        match &self.report.as_ref()?.outcome {
            Outcome::Failed(failure) => Some(report::failure_problem(failure).kind),
            _ => None,
        }
    }
}

fn enumeration(device: &Device) -> Enumeration {
    (device.location.clone(), device.address)
}

/// Returns the devices that take part in a batch without a selection. A doubtful device, which may be a board from a
/// different maker, takes part only if all devices are doubtful. The selection of a single drone follows the same rule.
pub(crate) fn participants(devices: &[Device]) -> Vec<Device> {
    let mut devices = devices.to_vec();
    if devices.iter().any(|device| !device.is_doubtful()) {
        devices.retain(|device| !device.is_doubtful());
    }
    devices
}

/// Returns whether the plan was made for this device. A drone without a serial number is known only by its port.
fn is_planned(drone: &DroneAt, device: &Device) -> bool {
    let both_unknown = drone.serial.is_empty() && device.strings.serial.is_empty();
    drone.is(device) || drone.port == device.location && both_unknown
}

/// Returns whether the selector names exactly this device, by its port or by its serial number as the device reports
/// it.
fn names_exactly(selector: &Selector, device: &Device) -> bool {
    match selector {
        Selector::Serial(serial) => serial.eq_ignore_ascii_case(&device.strings.serial),
        Selector::Only | Selector::At(_) => selector.matches(device),
    }
}

/// Returns whether a job failed because it did not find its drone.
fn is_not_found(kind: &FailureKind) -> bool {
    matches!(
        kind,
        FailureKind::NoDevice
            | FailureKind::NoMatch(_)
            | FailureKind::OnlyOthers(_)
            | FailureKind::OtherDrone { .. }
    )
}

/// Returns whether two serial numbers certainly belong to the same drone: they are equal, and both are the full
/// 24-digit number of a running drone.
fn is_certainly_same(one: &str, other: &str) -> bool {
    one.len() == 24 && other.len() == 24 && crazyflie::is_same_serial(one, other)
}

fn end_of(report: &Report) -> End {
    match &report.outcome {
        Outcome::Flashed => End::Flashed,
        Outcome::Unchanged | Outcome::Read(_) | Outcome::Identified => End::Unchanged,
        Outcome::Cancelled(_) => End::Cancelled,
        Outcome::Failed(failure) => match report::failure_problem(failure).exit {
            Exit::Image | Exit::NoInput
                if matches!(failure.drone, DroneState::Untouched | DroneState::Stopped) =>
            {
                End::Refused
            }
            _ => End::Failed,
        },
    }
}

#[cfg(test)]
mod tests;
