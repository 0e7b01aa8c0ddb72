//! Replays a recorded device: `--demo=replay:FILE`.
//!
//! The recording may come from another host, which sends other requests in another order, so a request is looked up by
//! its effect (erase this sector, read that address), not by its position. A simulated drone runs in parallel and
//! receives every request. It answers requests that the recording does not contain, and supplies the firmware, of which
//! a recording contains only the hash. If the recording has an answer, that answer is returned, and any difference from
//! the simulated drone's answer is reported. One recording thus shows what the host does with this device, and whether
//! the simulator behaves like the device.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::drone::SimDrone;
use super::scenario::Scenario;
use super::{SimBus, scenario};
use crate::clock::Clock;
use crate::recording::{Appearance, Line, Recorded, SetupWords, TransferResult};
use crate::usb::descriptor::Strings;
use crate::usb::{Bus, BusError, Found, Location, Pipe, Setup, TransferError, Transport};

/// wTransferSize of the ROM. Block numbers count blocks of this size (AN3156 §4).
const BLOCK: u32 = 2048;
/// The maximum number of departures, and of differences, to keep as text.
const TEXTS_MAX: usize = 20;
/// The maximum number of ports in a recording.
const PORTS_MAX: usize = 64;
/// The maximum number of stages of one port.
const STAGES_MAX: usize = 1000;
/// The maximum wait for a change on the bus.
const WAIT: Duration = Duration::from_millis(50);

/// The effect of a request. Requests with the same effect have the same key, no matter which host sent them.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum RequestKey {
    /// GETSTATUS before any other request: the state in which the host finds the device.
    Opened,
    SetAddress(u32),
    Erase(u32),
    Write {
        address: u32,
        len: usize,
    },
    Read {
        address: u32,
        len: usize,
    },
    /// DNLOAD without data, which starts the program at the address pointer.
    Leave,
    Abort,
    ClearStatus,
    Select(u8),
    /// GET_DESCRIPTOR and other standard requests.
    Standard(u8, u8, u16, u16),
    /// The request to enter DFU mode.
    EnterDfu,
    PacketIn(u8),
    PacketOut(u8, Vec<u8>),
    /// Any other request, by its setup packet.
    Other(u8, u8, u16, u16),
}

impl RequestKey {
    /// Returns whether the answer is the same each time and no GETSTATUS follows the request.
    fn is_repeatable(&self) -> bool {
        matches!(self, RequestKey::Standard(..) | RequestKey::Select(_))
    }
}

impl fmt::Display for RequestKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RequestKey::Opened => f.write_str("get the status after opening"),
            RequestKey::SetAddress(address) => write!(f, "set the address to {address:#010x}"),
            RequestKey::Erase(address) => write!(f, "erase at {address:#010x}"),
            RequestKey::Write { address, len } => write!(f, "write {len} bytes at {address:#010x}"),
            RequestKey::Read { address, len } => write!(f, "read {len} bytes at {address:#010x}"),
            RequestKey::Leave => f.write_str("leave DFU mode"),
            RequestKey::Abort => f.write_str("abort"),
            RequestKey::ClearStatus => f.write_str("clear the status"),
            RequestKey::Select(alternate) => write!(f, "select alternate setting {alternate}"),
            RequestKey::EnterDfu => f.write_str("enter DFU mode"),
            RequestKey::PacketIn(endpoint) | RequestKey::PacketOut(endpoint, _) => {
                write!(f, "a packet on endpoint {endpoint:02x}")
            }
            RequestKey::Standard(kind, request, value, index)
            | RequestKey::Other(kind, request, value, index) => {
                write!(f, "request {kind:02x} {request:02x} {value:04x} {index:04x}")
            }
        }
    }
}

const GET_STATUS: (u8, u8) = (0xA1, 3);

/// Tracks the address pointer and determines what each request does.
#[derive(Clone, Debug)]
struct RequestTracker {
    pointer: u32,
    /// wTransferSize.
    block: u32,
}

impl RequestTracker {
    fn classify(&mut self, setup: Setup, len: usize, data: Option<&[u8]>) -> RequestKey {
        let Setup { request_type, request, value, index } = setup;
        let place =
            |pointer: u32| pointer.wrapping_add(u32::from(value).saturating_sub(2).wrapping_mul(self.block));
        let number = |bytes: &[u8]| bytes.try_into().map(u32::from_le_bytes).ok();
        match (request_type, request, value, data) {
            (0x21, 1, _, _) if len == 0 => RequestKey::Leave,
            (0x21, 1, 0, Some([0x21, address @ ..])) if address.len() == 4 => {
                self.pointer = number(address).unwrap_or_default();
                RequestKey::SetAddress(self.pointer)
            }
            (0x21, 1, 0, Some([0x41, address @ ..])) if address.len() == 4 => {
                RequestKey::Erase(number(address).unwrap_or_default())
            }
            (0x21, 1, 2.., _) => RequestKey::Write { address: place(self.pointer), len },
            (0xA1, 2, 2.., _) => RequestKey::Read { address: place(self.pointer), len },
            (0x21, 6, ..) => RequestKey::Abort,
            (0x21, 4, ..) => RequestKey::ClearStatus,
            (0x01, 11, alternate, _) => RequestKey::Select(alternate.to_le_bytes()[0]),
            (0x40, 1, 1, _) if index == 2 => RequestKey::EnterDfu,
            (kind, ..) if kind & 0x60 == 0 => RequestKey::Standard(request_type, request, value, index),
            _ => RequestKey::Other(request_type, request, value, index),
        }
    }
}

/// One recorded answer.
#[derive(Clone, Debug)]
struct RecordedAnswer {
    /// The line number in the recording, counted from 1.
    line: usize,
    took: Duration,
    transfer: TransferResult,
    /// Whether the host has already received this answer.
    is_repeated: bool,
}

/// The answer to a request, with the answers to the GETSTATUS requests that followed it.
#[derive(Clone, Debug)]
struct Exchange {
    /// `None` for [`RequestKey::Opened`], which is not a request.
    answer: Option<RecordedAnswer>,
    statuses: VecDeque<RecordedAnswer>,
}

/// The period during which one device with one address was on a port. A restart begins a new stage.
#[derive(Debug)]
struct ReplayStage {
    appearance: Appearance,
    /// The times at which the device appeared, at which it disappeared and at which the last request ended, counted
    /// from the start of the recording.
    began: Duration,
    gone: Option<Duration>,
    last: Duration,
    exchanges: HashMap<RequestKey, VecDeque<Exchange>>,
    /// The number of recorded requests that the host has not sent yet.
    remaining: usize,
    /// wTransferSize.
    block: u32,
    /// The errors of the failed attempts to open the device, in order.
    open_errors: VecDeque<TransferError>,
}

impl ReplayStage {
    fn is_rom(&self) -> bool {
        self.appearance.product.0 == 0xDF11
    }

    /// Returns whether the device was running firmware and disappeared without a request to enter DFU mode. Such a
    /// stage ends at the recorded time.
    fn ends_by_itself(&self) -> bool {
        !self.is_rom() && self.gone.is_some() && !self.exchanges.contains_key(&RequestKey::EnterDfu)
    }
}

/// A port with its stages in order.
#[derive(Debug)]
struct PortReplay {
    location: Location,
    stages: Vec<ReplayStage>,
    /// The index of the current stage. `None` until the first device appears.
    current: Option<usize>,
    /// The times at which the current device disappears and the next one appears.
    gone_at: Option<Duration>,
    next_at: Option<Duration>,
    is_present: bool,
}

/// How the requests of a host compare with a recording.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReplayReport {
    /// The number of requests that were answered as recorded.
    pub as_recorded: usize,
    /// The number of requests that the recording does not contain. The simulated drone answered them.
    pub not_recorded: usize,
    /// The number of recorded requests that the host did not send.
    pub not_sent: usize,
    /// The first requests that the recording does not contain, each with the last line that was replayed before it.
    pub departures: Vec<String>,
    /// The number of recorded answers that differ from the simulated drone's.
    pub different: usize,
    /// Descriptions of the first of these differences.
    pub differences: Vec<String>,
}

impl fmt::Display for ReplayReport {
    /// Writes one line for each count, followed by the requests that the recording does not contain, or by the answers
    /// in which the recorded and the simulated device differ.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let total = self.as_recorded + self.not_recorded;
        write!(f, "Replay: {} of {total} requests answered as recorded", self.as_recorded)?;
        let mut list = |title: &str, count: usize, items: &[String]| {
            if count == 0 {
                return Ok(());
            }
            write!(f, "\n{title}: {count}")?;
            items.iter().try_for_each(|item| write!(f, "\n  {item}"))
        };
        list(
            "Not in the recording, so answered by the simulated drone",
            self.not_recorded,
            &self.departures,
        )?;
        list("In the recording, but not sent", self.not_sent, &[])?;
        list("Recorded answers that differ from the simulated drone's", self.different, &self.differences)
    }
}

#[derive(Debug)]
struct Replay {
    ports: Vec<PortReplay>,
    report: ReplayReport,
    /// The number of the last replayed line.
    line: usize,
}

/// A bus whose devices answer as recorded.
#[derive(Clone)]
pub struct ReplayBus {
    sim: SimBus,
    clock: Arc<dyn Clock>,
    started: Duration,
    /// The time of the first list of devices in the recording. A capture may begin long before that time.
    zero: Duration,
    replay: Arc<Mutex<Replay>>,
}

impl ReplayBus {
    /// Starts a replay. The error explains why these lines cannot be replayed.
    pub fn new(lines: &[Line], clock: Arc<dyn Clock>) -> Result<ReplayBus, &'static str> {
        let ports = group_by_port(lines)?;
        if ports.is_empty() {
            return Err("it contains no device");
        }
        let scenario = lines.iter().find_map(|line| match &line.what {
            Recorded::Start(header) => header.scenario.as_deref().and_then(Scenario::by_name),
            _ => None,
        });
        let now = clock.now();
        let mut drones = scenario.map(|scenario| scenario.drones(now)).unwrap_or_default();
        while drones.len() < ports.len() {
            drones.push(scenario::crazyflie_for_replay());
        }
        for (drone, port) in drones.iter_mut().zip(&ports) {
            drone.cut_power(now);
            copy_memories(drone, port);
        }
        drones.truncate(ports.len());
        let places = ports.iter().map(|port| port.location.clone()).collect();
        let sim = SimBus::at(drones, places, Arc::clone(&clock));
        let replay = Replay { ports, report: ReplayReport::default(), line: 0 };
        let zero = lines.iter().find(|line| matches!(line.what, Recorded::Devices { .. }));
        let zero = zero.map_or(Duration::ZERO, |line| micros(line.at));
        let bus = ReplayBus { sim, clock, started: now, zero, replay: Arc::new(Mutex::new(replay)) };
        bus.advance(&mut bus.lock());
        Ok(bus)
    }

    /// Returns the bus of the simulated drones that run in parallel.
    pub fn sim(&self) -> &SimBus {
        &self.sim
    }

    pub fn report(&self) -> ReplayReport {
        let replay = self.lock();
        let stages = replay.ports.iter().flat_map(|port| &port.stages);
        ReplayReport { not_sent: stages.map(|stage| stage.remaining).sum(), ..replay.report.clone() }
    }

    fn lock(&self) -> MutexGuard<'_, Replay> {
        self.replay.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes devices appear and disappear at their scheduled times.
    fn advance(&self, replay: &mut Replay) {
        let now = self.clock.now();
        for (n, port) in replay.ports.iter_mut().enumerate() {
            if port.gone_at.is_some_and(|at| now >= at) {
                (port.is_present, port.gone_at) = (false, None);
                self.sim.with(n, SimDrone::cut_power);
            }
            let first =
                port.current.is_none().then(|| self.started + port.stages[0].began.saturating_sub(self.zero));
            if first.or(port.next_at).is_some_and(|at| now >= at) {
                let next = port.current.map_or(0, |current| current + 1);
                (port.current, port.next_at, port.gone_at, port.is_present) = (Some(next), None, None, true);
                let is_rom = port.stages[next].is_rom();
                self.sim.with(n, |drone, now| drone.appear(is_rom, now));
                let stage = &port.stages[next];
                if stage.remaining == 0 {
                    port.end_stage(now, stage.last);
                } else if stage.ends_by_itself() {
                    port.end_stage(now, stage.began);
                }
            }
        }
    }

    /// Returns whether the device with this address is on port `n`.
    fn is_present(replay: &Replay, n: usize, address: u8) -> bool {
        let port = &replay.ports[n];
        port.is_present && port.current.is_some_and(|at| port.stages[at].appearance.address == address)
    }
}

impl PortReplay {
    /// Schedules the end of the current stage and the start of the next one. `since` is the time in the recording that
    /// corresponds to `now`.
    fn end_stage(&mut self, now: Duration, since: Duration) {
        let Some(current) = self.current else { return };
        let after = |time: Duration| now + time.saturating_sub(since);
        self.gone_at = self.stages[current].gone.map(after);
        self.next_at = self.stages.get(current + 1).map(|next| after(next.began));
    }
}

/// Initialises the memories of the simulated drone with the contents that were recorded before the first change: the
/// OTP, the option bytes, the ROM's version and the beginnings of the programs.
fn copy_memories(drone: &mut SimDrone, port: &PortReplay) {
    let all = || port.stages.iter().flat_map(|stage| &stage.exchanges);
    let first = |exchanges: &VecDeque<Exchange>| {
        exchanges.iter().filter_map(|exchange| exchange.answer.clone()).min_by_key(|answer| answer.line)
    };
    let writes = all().filter(|(key, _)| matches!(key, RequestKey::Erase(_) | RequestKey::Write { .. }));
    let changed = writes.filter_map(|(_, exchanges)| Some(first(exchanges)?.line)).min();
    for (key, exchanges) in all() {
        let RequestKey::Read { address, .. } = key else { continue };
        let before = first(exchanges).filter(|answer| changed.is_none_or(|line| answer.line < line));
        let data = before.as_ref().and_then(|answer| answer.transfer.data.as_ref());
        if let Some(data) = data.filter(|data| !data.0.is_empty()) {
            drone.memory.set_initial(*address, &data.0);
        }
    }
}

fn micros(time: u64) -> Duration {
    Duration::from_micros(time)
}

/// Groups the devices and the requests of a recording by port and stage.
fn group_by_port(lines: &[Line]) -> Result<Vec<PortReplay>, &'static str> {
    let mut ports: Vec<PortReplay> = Vec::new();
    for line in lines {
        let Recorded::Devices { devices } = &line.what else { continue };
        let at = micros(line.at);
        for port in &mut ports {
            let present = devices.iter().find(|device| device.port.0 == port.location);
            if let Some(stage) = port.stages.last_mut()
                && present.is_none_or(|device| device.address != stage.appearance.address)
            {
                stage.gone.get_or_insert(at);
            }
        }
        for device in devices {
            let place = ports.iter().position(|port| port.location == device.port.0);
            let place = place.unwrap_or_else(|| {
                let location = device.port.0.clone();
                let (stages, gone_at, next_at) = (Vec::new(), None, None);
                ports.push(PortReplay {
                    location,
                    stages,
                    current: None,
                    gone_at,
                    next_at,
                    is_present: false,
                });
                ports.len() - 1
            });
            // Limit the memory usage: each port has a simulated drone with 1 MiB of flash.
            if ports.len() > PORTS_MAX || ports[place].stages.len() > STAGES_MAX {
                return Err("it contains too many devices");
            }
            let stages = &mut ports[place].stages;
            if stages.last().is_none_or(|it| it.gone.is_some() || it.appearance.address != device.address) {
                let (appearance, exchanges) = (device.clone(), HashMap::new());
                stages.push(ReplayStage {
                    appearance,
                    began: at,
                    gone: None,
                    last: at,
                    exchanges,
                    remaining: 0,
                    block: BLOCK,
                    open_errors: VecDeque::new(),
                });
            }
        }
    }
    ports.sort_by(|one, other| one.location.cmp(&other.location));
    add_requests(&mut ports, lines);
    Ok(ports)
}

/// An open device in the recording: its port, its stage and the request in progress.
struct RecordedSession {
    port: usize,
    stage: usize,
    tracker: RequestTracker,
    key: RequestKey,
}

/// Adds the requests to their stages.
fn add_requests(ports: &mut [PortReplay], lines: &[Line]) {
    let mut sessions: HashMap<u32, RecordedSession> = HashMap::new();
    for (n, line) in lines.iter().enumerate() {
        let at = micros(line.at);
        if let Recorded::Open { device, port, address, error } = &line.what {
            let Some(port) = ports.iter().position(|known| known.location == port.0) else { continue };
            let is_opened = |stage: &ReplayStage| {
                stage.appearance.address == *address
                    && stage.began <= at
                    && stage.gone.is_none_or(|gone| at <= gone)
            };
            let Some(stage) = ports[port].stages.iter().position(is_opened) else { continue };
            if let Some(error) = error {
                ports[port].stages[stage].open_errors.push_back(error.0);
            } else {
                let tracker = RequestTracker { pointer: 0, block: ports[port].stages[stage].block };
                sessions.insert(*device, RecordedSession { port, stage, tracker, key: RequestKey::Opened });
            }
            continue;
        }
        let Some((device, took)) = device_and_duration(&line.what) else { continue };
        let Some(session) = sessions.get_mut(&device) else { continue };
        let Some((key, transfer)) = classify_line(&line.what, &mut session.tracker) else { continue };
        let answer = RecordedAnswer { line: n + 1, took: micros(took), transfer, is_repeated: false };
        let stage = &mut ports[session.port].stages[session.stage];
        if let Recorded::In { setup: SetupWords(Setup { request: 6, value: 0x0200, .. }), result, .. } =
            &line.what
            && let Some(size) = result.data.as_ref().and_then(|data| find_transfer_size(&data.0))
        {
            (stage.block, session.tracker.block) = (size, size);
        }
        stage.remaining += 1;
        stage.last = at + micros(took);
        let Some(key) = key else {
            let exchanges = stage.exchanges.entry(session.key.clone()).or_default();
            if exchanges.is_empty()
                || session.key == RequestKey::Opened
                    && exchanges.back().is_some_and(|last| last.statuses.len() >= 2)
            {
                exchanges.push_back(Exchange { answer: None, statuses: VecDeque::new() });
            }
            if let Some(exchange) = exchanges.back_mut() {
                exchange.statuses.push_back(answer);
            }
            continue;
        };
        let exchange = Exchange { answer: Some(answer), statuses: VecDeque::new() };
        stage.exchanges.entry(key.clone()).or_default().push_back(exchange);
        if !key.is_repeatable() {
            session.key = key;
        }
    }
}

/// Returns the key of the request in a line (`None` for GETSTATUS) and the result of the request. Returns `None` for a
/// line without a request.
fn classify_line(
    what: &Recorded,
    tracker: &mut RequestTracker,
) -> Option<(Option<RequestKey>, TransferResult)> {
    match what {
        Recorded::In { setup, result, .. } if (setup.0.request_type, setup.0.request) == GET_STATUS => {
            Some((None, result.clone()))
        }
        Recorded::In { setup, length, result, .. } => {
            Some((Some(tracker.classify(setup.0, *length, None)), result.clone()))
        }
        Recorded::Out { setup, result, .. } => {
            let data = result.data.as_ref().map(|data| data.0.as_slice());
            Some((Some(tracker.classify(setup.0, result.len(), data)), result.clone()))
        }
        Recorded::Select { alternate, error, .. } => {
            let result = TransferResult { error: *error, ..TransferResult::default() };
            Some((Some(RequestKey::Select(*alternate)), result))
        }
        Recorded::Packet { endpoint, result, .. } => {
            let sent = || result.data.as_ref().map(|data| data.0.clone()).unwrap_or_default();
            let key = match endpoint & 0x80 {
                0 => RequestKey::PacketOut(*endpoint, sent()),
                _ => RequestKey::PacketIn(*endpoint),
            };
            Some((Some(key), result.clone()))
        }
        _ => None,
    }
}

/// Finds wTransferSize in a configuration descriptor (DFU 1.1 §4.1.3).
fn find_transfer_size(mut bytes: &[u8]) -> Option<u32> {
    while let [len, kind, ..] = *bytes {
        let (descriptor, rest) = bytes.split_at_checked(usize::from(len.max(2)))?;
        if let (0x21, &[_, _, _, _, _, low, high, ..]) = (kind, descriptor) {
            return Some(u32::from(u16::from_le_bytes([low, high])));
        }
        bytes = rest;
    }
    None
}

/// Returns the device number of a request and its duration in microseconds.
fn device_and_duration(what: &Recorded) -> Option<(u32, u64)> {
    match what {
        Recorded::In { device, took, .. }
        | Recorded::Out { device, took, .. }
        | Recorded::Select { device, took, .. }
        | Recorded::Packet { device, took, .. } => Some((*device, *took)),
        _ => None,
    }
}

impl Bus for ReplayBus {
    fn list(&self) -> Result<Vec<Found>, BusError> {
        let mut replay = self.lock();
        self.advance(&mut replay);
        let found = replay.ports.iter().filter(|port| port.is_present).filter_map(|port| {
            let appearance = &port.stages[port.current?].appearance;
            let names = appearance.names.clone().map(Strings::from);
            Some(Found {
                id: appearance.id(),
                release: appearance.release.0,
                location: port.location.clone(),
                address: appearance.address,
                names,
                simulated: true,
            })
        });
        Ok(found.collect())
    }

    fn open(&self, found: &Found) -> Result<Box<dyn Transport>, TransferError> {
        let mut replay = self.lock();
        self.advance(&mut replay);
        let n = replay.ports.iter().position(|port| port.location == found.location);
        let n = n.filter(|&n| ReplayBus::is_present(&replay, n, found.address));
        let n = n.ok_or(TransferError::Disconnected)?;
        let port = &mut replay.ports[n];
        let stage = port.current.and_then(|at| port.stages.get_mut(at)).ok_or(TransferError::Disconnected)?;
        if let Some(error) = stage.open_errors.pop_front() {
            return Err(error);
        }
        let block = stage.block;
        let tracker = RequestTracker { pointer: 0, block };
        Ok(Box::new(ReplayTransport { bus: self.clone(), n, stage: port.current, tracker, statuses: None }))
    }

    fn wait(&self, limit: Duration) {
        self.clock.sleep(limit.min(WAIT));
    }
}

struct ReplayTransport {
    bus: ReplayBus,
    n: usize,
    /// The stage in which the device was opened.
    stage: Option<usize>,
    tracker: RequestTracker,
    /// The recorded answers to GETSTATUS for the request in progress. `None` before the first request.
    statuses: Option<VecDeque<RecordedAnswer>>,
}

/// The answer of the simulated drone and its duration.
type SimulatedAnswer = (Result<Vec<u8>, TransferError>, Duration);

impl ReplayTransport {
    /// Fails if the device has disappeared or restarted since it was opened.
    fn require_present(&self, replay: &Replay) -> Result<(), TransferError> {
        let port = &replay.ports[self.n];
        let is_same = port.is_present && port.current == self.stage;
        is_same.then_some(()).ok_or(TransferError::Disconnected)
    }

    /// Looks up the recorded answer to a request, and keeps the answers to the GETSTATUS requests that followed the
    /// request.
    fn look_up(&mut self, replay: &mut Replay, key: &RequestKey) -> Option<RecordedAnswer> {
        let port = &mut replay.ports[self.n];
        let stage = &mut port.stages[port.current?];
        let exchanges = stage.exchanges.get_mut(key)?;
        // Descriptors do not change, so the last answer may be returned any number of times.
        let is_last = exchanges.len() == 1;
        let exchange = if is_last && key.is_repeatable() {
            let answered = exchanges.front()?.clone();
            if let Some(answer) = exchanges.front_mut().and_then(|front| front.answer.as_mut()) {
                stage.remaining = stage.remaining.saturating_sub(usize::from(!answer.is_repeated));
                answer.is_repeated = true;
            }
            answered
        } else {
            let exchange = exchanges.pop_front()?;
            stage.remaining = stage.remaining.saturating_sub(usize::from(exchange.answer.is_some()));
            exchange
        };
        if !key.is_repeatable() {
            self.statuses = Some(exchange.statuses);
        }
        exchange.answer
    }

    /// Answers a control request from the recording or from the simulated drone.
    fn control(
        &mut self,
        setup: Setup,
        len: usize,
        data: &[u8],
        limit: Duration,
    ) -> Result<Vec<u8>, TransferError> {
        let simulated = self.simulate(setup, len, data)?;
        let is_status = (setup.request_type, setup.request) == GET_STATUS;
        let sent = (setup.request_type & 0x80 == 0).then_some(data);
        let key = if is_status { RequestKey::Opened } else { self.tracker.classify(setup, len, sent) };
        let bus = self.bus.clone();
        let mut replay = bus.lock();
        let answer = if is_status {
            if self.statuses.is_none() {
                // The host's first GETSTATUS reads the state in which the host finds the device.
                self.statuses = Some(VecDeque::new());
                self.look_up(&mut replay, &RequestKey::Opened);
            }
            let answer = self.statuses.as_mut().and_then(VecDeque::pop_front);
            if answer.is_some() {
                let port = &mut replay.ports[self.n];
                if let Some(at) = port.current {
                    port.stages[at].remaining = port.stages[at].remaining.saturating_sub(1);
                }
            }
            answer
        } else {
            let answer = self.look_up(&mut replay, &key);
            if answer.is_none() && !matches!(key, RequestKey::Standard(..)) {
                self.statuses = Some(VecDeque::new());
            }
            answer
        };
        self.reply(replay, &key, is_status, answer, simulated, limit)
    }

    /// Sends a request to the simulated drone.
    fn simulate(&self, setup: Setup, len: usize, data: &[u8]) -> Result<SimulatedAnswer, TransferError> {
        let mut replay = self.bus.lock();
        self.bus.advance(&mut replay);
        self.require_present(&replay)?;
        drop(replay);
        let (answer, took) = self
            .bus
            .sim
            .with(self.n, |drone, now| drone.control(setup, len, data, now))
            .ok_or(TransferError::Disconnected)?;
        Ok((answer.into_result(), took))
    }

    /// Compares the recorded answer with the simulated one, and returns the recorded answer, or the simulated one if no
    /// answer was recorded. Ends the stage after its last request.
    fn reply(
        &self,
        mut replay: MutexGuard<'_, Replay>,
        key: &RequestKey,
        is_status: bool,
        answer: Option<RecordedAnswer>,
        (model, model_took): SimulatedAnswer,
        limit: Duration,
    ) -> Result<Vec<u8>, TransferError> {
        let name = || if is_status { "get the status".to_owned() } else { key.to_string() };
        let line = replay.line;
        let simulated = model.clone();
        let (result, took) = match answer {
            None => {
                // The number of GETSTATUS requests depends on the host's speed.
                if !is_status {
                    replay.report.not_recorded += 1;
                    if replay.report.departures.len() < TEXTS_MAX {
                        replay.report.departures.push(match line {
                            0 => format!("at the start: {}", name()),
                            _ => format!("after line {line}: {}", name()),
                        });
                    }
                }
                (model, model_took)
            }
            Some(RecordedAnswer { line, took, transfer, is_repeated }) => {
                replay.report.as_recorded += 1;
                replay.line = line;
                // Which packets the firmware sends depends on timing.
                let is_packet = matches!(key, RequestKey::PacketIn(_) | RequestKey::PacketOut(..));
                let difference =
                    difference(&transfer, &model, is_status).filter(|_| !is_packet && !is_repeated);
                if let Some(difference) = difference {
                    replay.report.different += 1;
                    if replay.report.differences.len() < TEXTS_MAX {
                        replay.report.differences.push(format!("line {line}: {}: {difference}", name()));
                    }
                }
                (complete_answer(&transfer, model), took)
            }
        };
        if is_status
            && result != simulated
            && let Ok(&[status, _, _, _, state, _]) = result.as_deref()
        {
            // The simulated drone continues from the state that the host received.
            self.bus.sim.with(self.n, |drone, _| drone.adopt(status, state));
        }
        let now = self.bus.clock.now();
        let port = &mut replay.ports[self.n];
        let is_over = port.current.is_some_and(|at| {
            let restarts = matches!(key, RequestKey::EnterDfu) || is_leaving(is_status, result.as_deref());
            restarts || result == Err(TransferError::Disconnected) || port.stages[at].remaining == 0
        });
        if is_over && port.next_at.is_none() && port.gone_at.is_none() {
            let since = port.current.map_or(Duration::ZERO, |at| port.stages[at].last);
            port.end_stage(now + took, since);
        }
        if result == Err(TransferError::Disconnected) {
            // A capture by another program does not show when the device disappeared.
            port.gone_at = Some(now + took);
        }
        drop(replay);
        if took > limit && result != Err(TransferError::Timeout) {
            self.bus.clock.sleep(limit);
            return Err(TransferError::Timeout);
        }
        // A damaged recording may contain any duration.
        self.bus.clock.sleep(took.min(limit));
        result
    }
}

/// Returns whether this is the last status before the device leaves DFU mode: dfuMANIFEST.
fn is_leaving(is_status: bool, result: Result<&[u8], &TransferError>) -> bool {
    const MANIFEST: u8 = 7;
    is_status && matches!(result, Ok(&[_, _, _, _, MANIFEST, _]))
}

/// Returns the recorded answer, with the simulated drone's bytes if the recording contains only their length.
fn complete_answer(
    transfer: &TransferResult,
    model: Result<Vec<u8>, TransferError>,
) -> Result<Vec<u8>, TransferError> {
    match (transfer.error, &transfer.data) {
        (Some(error), _) => Err(error.0),
        (None, Some(data)) => Ok(data.0.clone()),
        (None, None) => {
            let mut bytes = model.unwrap_or_default();
            // A damaged recording may contain any length.
            bytes.resize(transfer.len().min(usize::from(u16::MAX)), 0xFF);
            Ok(bytes)
        }
    }
}

/// Describes how the simulated drone's answer differs from the recorded one.
fn difference(
    transfer: &TransferResult,
    model: &Result<Vec<u8>, TransferError>,
    is_status: bool,
) -> Option<String> {
    let shown = |bytes: &[u8]| {
        let bytes: Vec<String> = bytes.iter().take(16).map(|byte| format!("{byte:02x}")).collect();
        bytes.join(" ")
    };
    match (transfer.error, model) {
        (Some(error), Err(model)) if error.0 == *model => None,
        (Some(error), Err(model)) => Some(format!("{}, simulated: {model}", error.0)),
        (Some(error), Ok(_)) => Some(format!("{}, simulated: accepted", error.0)),
        (None, Err(model)) => Some(format!("accepted, simulated: {model}")),
        // For a transfer to the device, the recording contains the host's data, not an answer.
        (None, Ok(bytes)) if bytes.is_empty() && !is_status => None,
        (None, Ok(bytes)) if transfer.matches(bytes) => None,
        (None, Ok(bytes)) => {
            let recorded =
                transfer.data.as_ref().map_or_else(|| "other bytes".to_owned(), |data| shown(&data.0));
            Some(format!("{recorded}, simulated: {}", shown(bytes)))
        }
    }
}

impl Transport for ReplayTransport {
    fn control_in(
        &mut self,
        setup: Setup,
        buffer: &mut [u8],
        limit: Duration,
    ) -> Result<usize, TransferError> {
        let bytes = self.control(setup, buffer.len(), &[], limit)?;
        let len = bytes.len().min(buffer.len());
        buffer[..len].copy_from_slice(&bytes[..len]);
        Ok(len)
    }

    fn control_out(&mut self, setup: Setup, data: &[u8], limit: Duration) -> Result<usize, TransferError> {
        self.control(setup, data.len(), data, limit)?;
        Ok(data.len())
    }

    fn select(&mut self, interface: u8, alternate: u8) -> Result<(), TransferError> {
        let (value, index) = (u16::from(alternate), u16::from(interface));
        let setup = Setup { request_type: 0x01, request: 11, value, index };
        self.control(setup, 0, &[], Duration::from_secs(1)).map(drop)
    }

    fn bulk_in(&mut self, pipe: Pipe, buffer: &mut [u8], limit: Duration) -> Result<usize, TransferError> {
        let packet = self.bus.sim.with(self.n, |drone, _| drone.packet_in()).flatten();
        let model = match packet {
            Some((packet, took)) => (Ok(packet), took),
            None => (Err(TransferError::Timeout), limit),
        };
        let key = RequestKey::PacketIn(pipe.endpoint);
        let bytes = self.packet(&key, model, limit)?;
        let len = bytes.len().min(buffer.len());
        buffer[..len].copy_from_slice(&bytes[..len]);
        Ok(len)
    }

    fn bulk_out(&mut self, pipe: Pipe, data: &[u8], limit: Duration) -> Result<usize, TransferError> {
        let took = self.bus.sim.with(self.n, |drone, _| drone.packet_out(data)).flatten();
        let model = match took {
            Some(took) => (Ok(Vec::new()), took),
            None => (Err(TransferError::Timeout), limit),
        };
        let key = RequestKey::PacketOut(pipe.endpoint, data.to_vec());
        self.packet(&key, model, limit)?;
        Ok(data.len())
    }
}

impl ReplayTransport {
    fn packet(
        &mut self,
        key: &RequestKey,
        model: SimulatedAnswer,
        limit: Duration,
    ) -> Result<Vec<u8>, TransferError> {
        let bus = self.bus.clone();
        let mut replay = bus.lock();
        bus.advance(&mut replay);
        self.require_present(&replay)?;
        let answer = self.look_up(&mut replay, key);
        self.reply(replay, key, false, answer, model, limit)
    }
}
