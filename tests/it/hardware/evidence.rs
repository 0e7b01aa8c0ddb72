//! Extracts the behaviour of a chip from a recording. Each public function returns `None` if the recording does not
//! show that behaviour.

use std::time::Duration;

use cfdfu::recording::{Appearance, ErrorName, Line, Recorded, TransferResult};
use cfdfu::usb::{CRAZYFLIE, Id, ROM_DFU, Setup, TransferError};

/// A value that a recording shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shown {
    Text(String),
    /// One or more measurements of the same duration.
    Times(Vec<Duration>),
}

impl Shown {
    #[allow(clippy::unnecessary_wraps, reason = "every caller returns an option")]
    fn text(text: impl Into<String>) -> Option<Shown> {
        Some(Shown::Text(text.into()))
    }

    fn times(times: impl Iterator<Item = Duration>) -> Option<Shown> {
        let mut times: Vec<Duration> = times.collect();
        times.sort();
        (!times.is_empty()).then_some(Shown::Times(times))
    }
}

impl std::fmt::Display for Shown {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let time = |time: &Duration| match time.as_secs_f64() * 1000.0 {
            ms if ms < 10.0 => format!("{ms:.2} ms"),
            ms if ms < 100.0 => format!("{ms:.1} ms"),
            ms if ms < 1000.0 => format!("{ms:.0} ms"),
            ms => format!("{:.2} s", ms / 1000.0),
        };
        match self {
            Shown::Text(text) => f.write_str(text),
            Shown::Times(times) => {
                let (first, last) = (time(&times[0]), time(&times[times.len() - 1]));
                if first == last { f.write_str(&first) } else { write!(f, "{first} to {last}") }
            }
        }
    }
}

/// The answer to a GETSTATUS request.
#[derive(Clone, Copy, Debug)]
struct Answer {
    at: u64,
    end: u64,
    result: Result<StatusSeen, TransferError>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct StatusSeen {
    status: u8,
    poll: u32,
    state: u8,
}

const IDLE: u8 = 2;
const BUSY: u8 = 4;
const DNLOAD_IDLE: u8 = 5;
const UPLOAD_IDLE: u8 = 9;
const ERROR: u8 = 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    SetAddress(u32),
    Erase(u32),
    Write {
        block: u16,
        address: u32,
    },
    Read {
        block: u16,
        address: u32,
        length: usize,
    },
    Leave(u32),
    Clear,
    Abort,
    GetState,
    /// GETSTATUS before any other DFU request.
    Status,
    Other,
}

/// A DFU request, and the GETSTATUS requests after it.
#[derive(Clone, Debug)]
struct Op {
    kind: Kind,
    at: u64,
    end: u64,
    moved: TransferResult,
    answers: Vec<Answer>,
    /// The state before the request, if it is known.
    before: Option<u8>,
    /// The selected alternate setting.
    alternate: u8,
    /// A programming width of 32 bits has been accepted.
    wide: bool,
}

impl Op {
    fn error(&self) -> Option<TransferError> {
        self.moved.error.map(|ErrorName(error)| error)
    }

    fn first(&self) -> Option<StatusSeen> {
        self.answers.first()?.result.ok()
    }

    fn last(&self) -> Option<StatusSeen> {
        self.answers.last()?.result.ok()
    }

    /// Returns whether a download completed without an error.
    fn succeeded(&self) -> bool {
        let is_done = |answer: &Answer| answer.result.is_ok_and(StatusSeen::is_done);
        self.error().is_none() && self.answers.iter().any(is_done)
    }

    /// Returns the time for which the chip was busy: from the answer dfuDNBUSY to the next answer. Returns `None` if
    /// the download did not complete, or if the host may have paused for longer than the chip was busy.
    fn work(&self) -> Option<Duration> {
        let [busy, done, ..] = self.answers[..] else { return None };
        let is_work = busy.result.ok()?.state == BUSY && done.result.ok()?.is_done();
        let waited_for_chip = done.at.saturating_sub(busy.end) < 5_000 || done.end - done.at > 5_000;
        (is_work && waited_for_chip && done.end > done.at).then(|| micros(done.end.saturating_sub(busy.end)))
    }

    /// Returns the reaction of the device as text: the error, and the answers until the device is no longer busy.
    fn reaction(&self) -> String {
        let is_last = |answer: &Answer| answer.result.is_ok_and(|status| status.state != BUSY);
        let count = self.answers.iter().position(is_last).map_or(self.answers.len(), |last| last + 1);
        let statuses = self.answers[..count].iter().map(|answer| match answer.result {
            Ok(status) => status.describe(),
            Err(error) => error_name(error),
        });
        self.error().map(error_name).into_iter().chain(statuses).collect::<Vec<_>>().join(", then ")
    }
}

impl StatusSeen {
    fn is_done(self) -> bool {
        (self.status, self.state) == (0, DNLOAD_IDLE)
    }

    fn describe(self) -> String {
        match self.status {
            0 => state_name(self.state).to_owned(),
            status => format!("{} with {}", state_name(self.state), status_name(status)),
        }
    }
}

fn error_name(error: TransferError) -> String {
    String::from(ErrorName(error))
}

fn micros(time: u64) -> Duration {
    Duration::from_micros(time)
}

fn state_name(state: u8) -> &'static str {
    match state {
        2 => "dfuIDLE",
        3 => "dfuDNLOAD-SYNC",
        4 => "dfuDNBUSY",
        5 => "dfuDNLOAD-IDLE",
        6 => "dfuMANIFEST-SYNC",
        7 => "dfuMANIFEST",
        9 => "dfuUPLOAD-IDLE",
        10 => "dfuERROR",
        _ => "another state",
    }
}

fn status_name(status: u8) -> &'static str {
    match status {
        0x01 => "errTARGET",
        0x03 => "errWRITE",
        0x0A => "errFIRMWARE",
        0x0B => "errVENDOR",
        0x0F => "errSTALLEDPKT",
        _ => "another status",
    }
}

/// The state of an open device, as far as the recording shows it.
struct Tracker {
    device: u32,
    pointer: u32,
    state: Option<u8>,
    alternate: u8,
    wide: bool,
}

impl Tracker {
    fn kind(&self, setup: Setup, length: usize, moved: &TransferResult) -> Option<Kind> {
        let address = |block: u16| self.pointer.wrapping_add((u32::from(block) - 2) * 2048);
        let data = moved.data.as_ref().map_or(&[][..], |data| &data.0);
        let number = |bytes: &[u8]| bytes.try_into().map(u32::from_le_bytes).ok();
        Some(match (setup.request_type, setup.request, setup.value, data) {
            (0x21, 1, _, _) if moved.is_empty() => Kind::Leave(self.pointer),
            (0x21, 1, 0, [0x21, rest @ ..]) => number(rest).map_or(Kind::Other, Kind::SetAddress),
            (0x21, 1, 0, [0x41, rest @ ..]) => number(rest).map_or(Kind::Other, Kind::Erase),
            (0x21, 1, block @ 2.., _) => Kind::Write { block, address: address(block) },
            (0xA1, 2, block @ 2.., _) => Kind::Read { block, address: address(block), length },
            (0x21, 4, ..) => Kind::Clear,
            (0xA1, 5, ..) => Kind::GetState,
            (0x21, 6, ..) => Kind::Abort,
            (0x21, 1, ..) | (0xA1, 2, ..) => Kind::Other,
            _ => return None,
        })
    }
}

/// Returns the DFU requests of a recording, in order.
fn ops(lines: &[Line]) -> Vec<Op> {
    let mut ops: Vec<Op> = Vec::new();
    let mut trackers: Vec<Tracker> = Vec::new();
    for line in lines {
        let (device, setup, length, took, moved) = match &line.what {
            Recorded::In { device, setup, length, took, result } => {
                (*device, setup.0, *length, *took, result.clone())
            }
            Recorded::Out { device, setup, took, result } => (*device, setup.0, 0, *took, result.clone()),
            Recorded::Select { device, alternate, took, error, .. } => {
                let setup = Setup { request_type: 1, request: 11, value: u16::from(*alternate), index: 0 };
                (*device, setup, 0, *took, TransferResult { error: *error, ..TransferResult::default() })
            }
            _ => continue,
        };
        let (at, end) = (line.at, line.at + took);
        let known = trackers.iter().position(|tracker| tracker.device == device);
        let known = known.unwrap_or_else(|| {
            let pointer = 0x0800_0000;
            trackers.push(Tracker { device, pointer, state: None, alternate: 0, wide: false });
            trackers.len() - 1
        });
        let tracker = &mut trackers[known];
        if (setup.request_type, setup.request) == (1, 11) && moved.error.is_none() {
            tracker.alternate = u8::try_from(setup.value).unwrap_or(u8::MAX);
        }
        let new = |kind, tracker: &Tracker| Op {
            kind,
            at,
            end,
            moved: moved.clone(),
            answers: Vec::new(),
            before: tracker.state,
            alternate: tracker.alternate,
            wide: tracker.wide,
        };
        if (setup.request_type, setup.request) == (0xA1, 3) {
            let result = status_seen(&moved);
            if ops.is_empty() {
                ops.push(new(Kind::Status, tracker));
            }
            tracker.state = result.ok().map(|status| status.state);
            let Some(op) = ops.last_mut() else { continue };
            op.answers.push(Answer { at, end, result });
            if op.succeeded() {
                match op.kind {
                    Kind::SetAddress(address) => tracker.pointer = address,
                    Kind::Write { address: 0xFFFF_0000, .. } => tracker.wide = starts_with(op, 3),
                    _ => {}
                }
            }
        } else if let Some(kind) = tracker.kind(setup, length, &moved) {
            ops.push(new(kind, tracker));
            tracker.state = match kind {
                _ if moved.error.is_some() => None,
                Kind::Clear | Kind::Abort => Some(IDLE),
                Kind::Read { .. } if !moved.is_empty() => Some(UPLOAD_IDLE),
                Kind::GetState => moved.data.as_ref().and_then(|data| data.0.first().copied()),
                _ => None,
            };
        }
    }
    ops
}

fn starts_with(op: &Op, byte: u8) -> bool {
    op.moved.data.as_ref().is_some_and(|data| data.0.first() == Some(&byte))
}

fn status_seen(moved: &TransferResult) -> Result<StatusSeen, TransferError> {
    if let Some(ErrorName(error)) = moved.error {
        return Err(error);
    }
    match moved.data.as_ref().map(|data| &data.0[..]) {
        Some(&[status, low, middle, high, state, _]) => {
            Ok(StatusSeen { status, poll: u32::from_le_bytes([low, middle, high, 0]), state })
        }
        _ => Err(TransferError::Short),
    }
}

/// Shows the reaction to the first request that `select` accepts.
fn reaction_to(lines: &[Line], select: impl Fn(&Op) -> bool) -> Option<Shown> {
    let op = ops(lines).into_iter().find(|op| select(op))?;
    let reaction = op.reaction();
    (!reaction.is_empty()).then_some(Shown::Text(reaction))
}

// ---- descriptors

/// Returns the number and the ID of each device that was opened.
fn opened(lines: &[Line]) -> Vec<(u32, Id)> {
    let mut present: &[Appearance] = &[];
    let mut opened = Vec::new();
    for line in lines {
        match &line.what {
            Recorded::Devices { devices } => present = devices,
            Recorded::Open { device, port, address, error: None } => {
                let seen = present.iter().find(|it| it.port == *port && it.address == *address);
                opened.extend(seen.map(|seen| (*device, seen.id())));
            }
            _ => {}
        }
    }
    opened
}

/// Returns the descriptors of this kind that were read from a device with this ID, each with its index.
fn descriptors(lines: &[Line], id: Id, kind: u8) -> Vec<(u8, Vec<u8>)> {
    let opened = opened(lines);
    let read = |line: &Line| match &line.what {
        Recorded::In {
            device, setup, result: TransferResult { data: Some(data), error: None, .. }, ..
        } => {
            let [this, index] = setup.0.value.to_be_bytes();
            let is_wanted = (setup.0.request_type, setup.0.request, this) == (0x80, 6, kind)
                && opened.contains(&(*device, id));
            is_wanted.then(|| (index, data.0.clone()))
        }
        _ => None,
    };
    lines.iter().filter_map(read).collect()
}

fn strings(lines: &[Line], id: Id) -> Vec<(u8, String)> {
    let text = |(index, bytes): (u8, Vec<u8>)| {
        let units = bytes.get(2..).unwrap_or_default().as_chunks().0.iter();
        (index, String::from_utf16_lossy(&units.map(|&unit| u16::from_le_bytes(unit)).collect::<Vec<_>>()))
    };
    descriptors(lines, id, 3).into_iter().filter(|(index, _)| *index > 0).map(text).collect()
}

/// Returns the DFU functional descriptor.
fn functional(lines: &[Line]) -> Option<[u8; 9]> {
    descriptors(lines, ROM_DFU, 2).iter().find_map(|(_, bytes)| {
        let mut rest = &bytes[..];
        while let &[len, kind, ..] = rest {
            // With a length of less than 2, the loop might never end.
            let (this, after) = rest.split_at_checked(usize::from(len).max(2))?;
            if kind == 0x21 {
                return this.try_into().ok();
            }
            rest = after;
        }
        None
    })
}

pub fn release(lines: &[Line]) -> Option<Shown> {
    let devices = lines.iter().filter_map(|line| match &line.what {
        Recorded::Devices { devices } => devices.iter().find(|it| it.id() == ROM_DFU),
        _ => None,
    });
    let [major, minor] = devices.map(|seen| seen.release.0.to_be_bytes()).next()?;
    Shown::text(format!("{major:x}.{minor:02x}"))
}

pub fn transfer_size(lines: &[Line]) -> Option<Shown> {
    functional(lines).and_then(|it| Shown::text(u16::from_le_bytes([it[5], it[6]]).to_string()))
}

pub fn dfu_version(lines: &[Line]) -> Option<Shown> {
    functional(lines).and_then(|it| Shown::text(format!("{:02x}{:02x}", it[8], it[7])))
}

pub fn attributes(lines: &[Line]) -> Option<Shown> {
    functional(lines).and_then(|it| Shown::text(format!("0x{:02x}", it[2])))
}

pub fn alternate_names(lines: &[Line]) -> Option<Shown> {
    let mut names = strings(lines, ROM_DFU);
    names.retain(|(_, name)| name.starts_with('@'));
    names.sort();
    names.dedup();
    let names: Vec<String> = names.into_iter().map(|(_, name)| format!("`{name}`")).collect();
    (!names.is_empty()).then(|| Shown::Text(names.join(", ")))
}

/// Shows the product string. The system trims the names that it provides, but keeps inner spaces.
pub fn product(lines: &[Line]) -> Option<Shown> {
    let read = strings(lines, ROM_DFU).into_iter().find(|(index, _)| *index == 2).map(|(_, text)| text);
    let product = read.or_else(|| names(lines, ROM_DFU).map(|names| names.0))?;
    let spaces = product.chars().filter(|&c| c == ' ').count();
    Shown::text(format!("`{product}`, {spaces} spaces"))
}

/// Returns the product and the serial number that the system provides.
fn names(lines: &[Line], id: Id) -> Option<(String, String)> {
    lines.iter().find_map(|line| match &line.what {
        Recorded::Devices { devices } => {
            let seen = devices.iter().find(|seen| seen.id() == id)?.names.as_ref()?;
            Some((seen.product.clone(), seen.serial.clone()))
        }
        _ => None,
    })
}

fn serial(lines: &[Line], id: Id) -> Option<String> {
    let read = strings(lines, id).into_iter().find(|(index, _)| *index == 3).map(|(_, text)| text);
    read.or_else(|| names(lines, id).map(|names| names.1)).filter(|serial| !serial.is_empty())
}

/// Shows whether the serial number in DFU mode is computed from the unique ID. A redacted recording is not evidence,
/// because its serial numbers were replaced.
pub fn serials(lines: &[Line]) -> Option<Shown> {
    if matches!(&lines.first()?.what, Recorded::Start(header) if header.redacted) {
        return None;
    }
    let ports = lines.iter().filter_map(|line| match &line.what {
        Recorded::Devices { devices } => Some(devices),
        _ => None,
    });
    // With several ports, the two serial numbers may belong to different drones.
    let ports: Vec<String> = ports.flatten().map(|device| device.port.0.to_string()).collect();
    if ports.iter().any(|port| *port != ports[0]) {
        return None;
    }
    let (running, in_dfu) = (serial(lines, CRAZYFLIE)?, serial(lines, ROM_DFU)?);
    let word = |at: usize| u32::from_str_radix(running.get(at..at + 8)?, 16).ok().map(u32::swap_bytes);
    let folded = format!("{:08X}{:04X}", word(0)?.wrapping_add(word(16)?), word(8)? >> 16);
    let relation = if folded == in_dfu { "is" } else { "is not" };
    Shown::text(format!("{in_dfu} {relation} the number computed from {running}"))
}

pub fn protected_serial(lines: &[Line]) -> Option<Shown> {
    protection(lines)?;
    Shown::text(serial(lines, ROM_DFU)?)
}

// ---- requests

/// Shows the answer to the first GETSTATUS, if no DFU request other than one GETSTATE precedes it.
pub fn first_status(lines: &[Line]) -> Option<Shown> {
    let ops = ops(lines);
    let first = ops.first().filter(|op| matches!(op.kind, Kind::Status | Kind::GetState))?;
    Shown::text(first.first()?.describe())
}

pub fn clear_in_error(lines: &[Line]) -> Option<Shown> {
    reaction_to(lines, |op| op.kind == Kind::Clear && op.before == Some(ERROR) && !op.answers.is_empty())
}

pub fn clear_elsewhere(lines: &[Line]) -> Option<Shown> {
    reaction_to(lines, |op| op.kind == Kind::Clear && op.before.is_some_and(|state| state != ERROR))
}

pub fn abort(lines: &[Line]) -> Option<Shown> {
    let from = [Some(DNLOAD_IDLE), Some(UPLOAD_IDLE)];
    reaction_to(lines, |op| op.kind == Kind::Abort && from.contains(&op.before) && !op.answers.is_empty())
}

pub fn selects(lines: &[Line]) -> Option<Shown> {
    let opened = opened(lines);
    let select = |line: &Line| match &line.what {
        Recorded::Select { device, alternate, error, .. } if opened.contains(&(*device, ROM_DFU)) => {
            Some((*alternate, error.is_some()))
        }
        _ => None,
    };
    let selects: Vec<(u8, bool)> = lines.iter().filter_map(select).collect();
    let refused = |(alternate, refused): &(u8, bool)| refused.then(|| alternate.to_string());
    let refused: Vec<String> = selects.iter().filter_map(refused).collect();
    match &refused[..] {
        _ if selects.is_empty() => None,
        [] => Shown::text("accepted"),
        refused => Shown::text(format!("refused for {}", refused.join(", "))),
    }
}

/// Shows the answer to a GETSTATE between a DNLOAD and its first GETSTATUS. After an erase command, also shows whether
/// the flash was erased.
pub fn get_state(lines: &[Line]) -> Option<Shown> {
    let ops = ops(lines);
    let pair = ops.windows(2).find(|pair| {
        matches!(pair[0].kind, Kind::Erase(_) | Kind::Write { .. } | Kind::SetAddress(_))
            && pair[0].answers.is_empty()
            && pair[1].kind == Kind::GetState
    })?;
    let state = pair[1].moved.data.as_ref()?.0.first().copied()?;
    let Kind::Erase(address) = pair[0].kind else { return Shown::text(state_name(state)) };
    let read = ops.iter().find(|op| op.at > pair[1].at && read_from(op, address))?;
    let blank = read.moved.data.as_ref()?.0.iter().all(|&byte| byte == 0xFF);
    let effect = if blank { "erased after ABORT" } else { "not erased after ABORT" };
    Shown::text(format!("{}, {effect}", state_name(state)))
}

fn read_from(op: &Op, from: u32) -> bool {
    matches!(op.kind, Kind::Read { address, .. } if address == from) && op.error().is_none()
}

fn polls(lines: &[Line], select: impl Fn(Kind) -> bool) -> Option<Shown> {
    let ops = ops(lines);
    let first = ops.iter().filter(|op| select(op.kind)).find_map(Op::first)?;
    Shown::text(format!("{}, {} ms", state_name(first.state), first.poll))
}

pub fn erase_poll(lines: &[Line]) -> Option<Shown> {
    polls(lines, |kind| matches!(kind, Kind::Erase(_)))
}

pub fn write_poll(lines: &[Line]) -> Option<Shown> {
    polls(lines, |kind| matches!(kind, Kind::Write { .. }))
}

pub fn address_poll(lines: &[Line]) -> Option<Shown> {
    polls(lines, |kind| matches!(kind, Kind::SetAddress(_)))
}

/// Shows the answers to the second GETSTATUS after an erase or a write, if that request was sent without a pause.
pub fn eager_status(lines: &[Line]) -> Option<Shown> {
    let ops = ops(lines);
    let downloads = ops.iter().filter(|op| matches!(op.kind, Kind::Erase(_) | Kind::Write { .. }));
    let second = downloads.filter_map(|op| {
        let [busy, next, ..] = op.answers[..] else { return None };
        (busy.result.ok()?.state == BUSY && next.at.saturating_sub(busy.end) < 5_000).then_some(next)
    });
    let answers = second.map(|next| match next.result {
        Ok(status) => status.describe(),
        Err(error) => error_name(error),
    });
    let mut answers: Vec<String> = answers.collect();
    answers.sort();
    answers.dedup();
    (!answers.is_empty()).then(|| Shown::Text(answers.join(" or ")))
}

pub fn upload_after_download(lines: &[Line]) -> Option<Shown> {
    reaction_to(lines, |op| matches!(op.kind, Kind::Read { .. }) && op.before == Some(DNLOAD_IDLE))
}

pub fn short_upload(lines: &[Line]) -> Option<Shown> {
    reaction_to(lines, |op| {
        matches!(op.kind, Kind::Read { length: ..2048, .. }) && !op.moved.is_empty() && !op.answers.is_empty()
    })
}

pub fn address_zero(lines: &[Line]) -> Option<Shown> {
    reaction_to(lines, |op| op.kind == Kind::SetAddress(0))
}

/// Shows that blocks of this length are written to the address in the formula: the written bytes are read back from the
/// same address under another block number.
fn numbering(lines: &[Line], is_len: impl Fn(usize) -> bool) -> Option<Shown> {
    let ops = ops(lines);
    let found = ops.iter().any(|write| {
        let Kind::Write { block: block @ 3.., address } = write.kind else { return false };
        let is_same = |read: &Op| {
            let Kind::Read { block: other, address: from, .. } = read.kind else { return false };
            let known = write.moved.data.is_some() || write.moved.sha256.is_some();
            (other != block && from == address && read.at > write.at && known)
                && (&read.moved.data, read.moved.len(), &read.moved.sha256)
                    == (&write.moved.data, write.moved.len(), &write.moved.sha256)
        };
        write.succeeded() && is_len(write.moved.len()) && ops.iter().any(is_same)
    });
    found.then(|| Shown::Text("at pointer + (block - 2) × 2048".to_owned()))
}

pub fn full_blocks(lines: &[Line]) -> Option<Shown> {
    numbering(lines, |len| len == 2048)
}

pub fn short_blocks(lines: &[Line]) -> Option<Shown> {
    numbering(lines, |len| len < 2048)
}

fn in_flash(address: u32) -> bool {
    (0x0800_0000..0x0810_0000).contains(&address)
}

fn write_of(lines: &[Line], len: usize) -> Option<Shown> {
    reaction_to(lines, |op| {
        matches!(op.kind, Kind::Write { address, .. } if in_flash(address)) && op.moved.len() == len
    })
}

pub fn write_of_12(lines: &[Line]) -> Option<Shown> {
    write_of(lines, 12)
}

pub fn write_of_4(lines: &[Line]) -> Option<Shown> {
    write_of(lines, 4)
}

/// Compares the bytes read from an address with the AND of two writes to that address, without an erase in between.
pub fn second_write(lines: &[Line]) -> Option<Shown> {
    let ops = ops(lines);
    let data = |op: &Op| op.moved.data.as_ref().map(|data| data.0.clone()).filter(|data| !data.is_empty());
    ops.iter().enumerate().find_map(|(n, one)| {
        let Kind::Write { address, .. } = one.kind else { return None };
        let rest = ops[n + 1..].iter().take_while(|op| !matches!(op.kind, Kind::Erase(_)));
        let same = rest.filter(|op| match op.kind {
            Kind::Write { address: at, .. } | Kind::Read { address: at, .. } => at == address,
            _ => false,
        });
        let [two, read] = same.take(2).collect::<Vec<_>>()[..] else { return None };
        let (one, other, now) = (data(one)?, data(two)?, data(read)?);
        let is_read = matches!(two.kind, Kind::Write { .. }) && matches!(read.kind, Kind::Read { .. });
        let and: Vec<u8> = one.iter().zip(&other).map(|(one, other)| one & other).collect();
        let relation = if now == and { "the AND of both" } else { "not the AND of both" };
        (is_read && in_flash(address)).then(|| Shown::Text(relation.to_owned()))
    })
}

// ---- times

fn sector_len(address: u32) -> u32 {
    match address {
        0x0800_0000..0x0801_0000 => 16,
        0x0801_0000..0x0802_0000 => 64,
        _ => 128,
    }
}

/// Shows the times to erase sectors of `KIB` KiB, at 32 bits if `WIDE`, otherwise at 8 bits.
pub fn erases<const KIB: u32, const WIDE: bool>(lines: &[Line]) -> Option<Shown> {
    let is_wanted = |op: &&Op| {
        matches!(op.kind, Kind::Erase(at) if in_flash(at) && sector_len(at) == KIB) && op.wide == WIDE
    };
    Shown::times(ops(lines).iter().filter(is_wanted).filter_map(Op::work))
}

/// Shows the times to write blocks of 2048 bytes, from the DNLOAD to the answer dfuDNLOAD-IDLE.
pub fn blocks<const WIDE: bool>(lines: &[Line]) -> Option<Shown> {
    let is_wanted = |op: &&Op| {
        matches!(op.kind, Kind::Write { address, .. } if in_flash(address))
            && (op.moved.len(), op.wide) == (2048, WIDE)
    };
    let time = |op: &Op| op.work().map(|_| micros(op.answers[1].end - op.at));
    Shown::times(ops(lines).iter().filter(is_wanted).filter_map(time))
}

pub fn reads(lines: &[Line]) -> Option<Shown> {
    let is_wanted = |op: &&Op| {
        matches!(op.kind, Kind::Read { length: 2048, .. }) && op.moved.len() == 2048 && op.end > op.at
    };
    Shown::times(ops(lines).iter().filter(is_wanted).map(|op| micros(op.end - op.at)))
}

// ---- memories

/// Shows the reaction to a write of 03FFFFFF to 0xFFFF0000, and the bytes that are read back.
pub fn width(lines: &[Line]) -> Option<Shown> {
    let ops = ops(lines);
    let is_cell = |kind: Kind| {
        matches!(kind, Kind::Write { address: 0xFFFF_0000, .. } | Kind::Read { address: 0xFFFF_0000, .. })
    };
    let n = ops.iter().position(|op| is_cell(op.kind) && starts_with(op, 3) && !op.answers.is_empty())?;
    if !ops[n].succeeded() {
        return Shown::text(ops[n].reaction());
    }
    let read = ops[n + 1..].iter().find(|op| is_cell(op.kind))?;
    match (&read.moved.data, read.error()) {
        (Some(data), None) => Shown::text(format!("accepted, reads back {}", String::from(data.clone()))),
        _ => Shown::text(format!("accepted, not read back: {}", read.reaction())),
    }
}

fn bytes_at(lines: &[Line], start: u32, select: impl Fn(&Op) -> bool) -> Option<Shown> {
    let is_wanted = |op: &Op| matches!(op.kind, Kind::Read { address, .. } if address == start) && select(op);
    let op = ops(lines).into_iter().find(is_wanted)?;
    match op.error() {
        Some(_) => Shown::text(op.reaction()),
        None => Shown::text(format!("{} bytes", op.moved.len())),
    }
}

pub fn otp_alternate_2(lines: &[Line]) -> Option<Shown> {
    bytes_at(lines, 0x1FFF_7800, |op| op.alternate == 2)
}

pub fn otp_alternate_0(lines: &[Line]) -> Option<Shown> {
    bytes_at(lines, 0x1FFF_7800, |op| op.alternate == 0)
}

pub fn options_alternate_0(lines: &[Line]) -> Option<Shown> {
    bytes_at(lines, 0x1FFF_C000, |op| op.alternate == 0)
}

pub fn after_otp(lines: &[Line]) -> Option<Shown> {
    bytes_at(lines, 0x1FFF_7A10, |_| true)
}

pub fn past_the_end(lines: &[Line]) -> Option<Shown> {
    let crosses_end = |address: u32, len: usize| address as usize + len > 0x0810_0000;
    let is_wanted = |op: &Op| matches!(op.kind, Kind::Read { address, length, .. } if (0x0800_0000..=0x0810_0000).contains(&address) && crosses_end(address, length));
    let op = ops(lines).into_iter().find(is_wanted)?;
    let reaction = op.reaction();
    Shown::text(if reaction.is_empty() { format!("{} bytes", op.moved.len()) } else { reaction })
}

fn options(lines: &[Line]) -> Option<[u8; 16]> {
    let ops = ops(lines);
    let read = |op: &Op| op.moved.data.as_ref().and_then(|data| data.0.clone().try_into().ok());
    ops.iter().filter(|op| read_from(op, 0x1FFF_C000)).find_map(read)
}

pub fn option_bytes(lines: &[Line]) -> Option<Shown> {
    let it = options(lines)?;
    let pairs = [(0, 2), (1, 3), (8, 10), (9, 11)];
    let complements = pairs.iter().all(|&(value, complement)| it[value] == !it[complement]);
    let twice = it[..4] == it[4..8] && it[8..12] == it[12..];
    Shown::text(match (complements, twice) {
        (true, true) => "with complements, twice".to_owned(),
        _ => it.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().concat(),
    })
}

/// Shows the first request that is answered with errVENDOR.
pub fn protection(lines: &[Line]) -> Option<Shown> {
    let ops = ops(lines);
    let op = ops.iter().find(|op| op.last().is_some_and(|last| last.status == 0x0B))?;
    let request = match op.kind {
        Kind::SetAddress(_) => "Set Address",
        Kind::Read { .. } => "UPLOAD",
        _ => "another request",
    };
    Shown::text(format!("{request}: {}", op.last()?.describe()))
}

pub fn rom_version(lines: &[Line]) -> Option<Shown> {
    rom_byte(lines).and_then(|byte| Shown::text(format!("0x{byte:02x}")))
}

fn rom_byte(lines: &[Line]) -> Option<u8> {
    ops(lines).iter().find_map(|op| match op.kind {
        Kind::Read { address, .. } if op.error().is_none() => {
            let at = 0x1FFF_77DE_u32.checked_sub(address)? as usize;
            op.moved.data.as_ref()?.0.get(at).copied()
        }
        _ => None,
    })
}

/// Shows whether an erase and a write in a write-protected sector (0 to 4) report an error, and whether reads before
/// and after them differ.
pub fn write_protection(lines: &[Line]) -> Option<Shown> {
    const STARTS: [u32; 5] = [0x0800_0000, 0x0800_4000, 0x0800_8000, 0x0800_C000, 0x0801_0000];
    let options = options(lines)?;
    let mask = u16::from_le_bytes([options[8], options[9]]);
    let ops = ops(lines);
    STARTS.iter().enumerate().filter(|(sector, _)| mask >> sector & 1 == 0).find_map(|(_, &start)| {
        let n = ops.iter().position(|op| op.kind == Kind::Erase(start))?;
        let write =
            ops.iter().find(|op| matches!(op.kind, Kind::Write { address, .. } if address == start))?;
        let mut reads = ops.iter().filter(|op| read_from(op, start));
        let (before, after) = (reads.next()?, reads.next_back()?);
        let changed = if before.moved == after.moved { "unchanged" } else { "changed" };
        let reported = if ops[n].succeeded() && write.succeeded() { "no error" } else { "an error" };
        (before.at < ops[n].at && after.at > write.at).then(|| Shown::Text(format!("{reported}, {changed}")))
    })
}

// ---- entering and leaving

/// Returns the requests to enter DFU mode: the time at which each request was sent, and its error.
fn entries(lines: &[Line]) -> Vec<(u64, Option<ErrorName>)> {
    let entry = |line: &Line| match &line.what {
        Recorded::Out { setup, result, .. } => {
            let Setup { request_type, request, value, index } = setup.0;
            ((request_type, request, value, index) == (0x40, 1, 1, 2)).then_some((line.at, result.error))
        }
        _ => None,
    };
    lines.iter().filter_map(entry).collect()
}

/// Returns the devices that appear after this time and were not present before, each with its time.
fn appearances(lines: &[Line], after: u64) -> Vec<(u64, Appearance)> {
    let mut before: Vec<Appearance> = Vec::new();
    let mut new = Vec::new();
    for line in lines {
        if let Recorded::Devices { devices } = &line.what {
            let is_new = |it: &&Appearance| {
                line.at > after && !before.iter().any(|old| old.id() == it.id() && old.address == it.address)
            };
            new.extend(devices.iter().filter(is_new).map(|it| (line.at, it.clone())));
            before.clone_from(devices);
        }
    }
    new
}

fn first_of(lines: &[Line], after: u64, id: Id) -> Option<(u64, Appearance)> {
    appearances(lines, after).into_iter().find(|(_, it)| it.id() == id)
}

pub fn entry_answer(lines: &[Line]) -> Option<Shown> {
    let entries = entries(lines);
    let (_, error) = entries.first()?;
    Shown::text(error.map_or_else(|| "acknowledged".to_owned(), String::from))
}

pub fn entry_time(lines: &[Line]) -> Option<Shown> {
    let (sent, _) = *entries(lines).last()?;
    let (at, _) = first_of(lines, sent, ROM_DFU)?;
    Some(Shown::Times(vec![micros(at - sent)]))
}

pub fn entry_requests(lines: &[Line]) -> Option<Shown> {
    let entries = entries(lines);
    let (at, _) = first_of(lines, entries.first()?.0, ROM_DFU)?;
    let sent = entries.iter().filter(|(sent, _)| *sent < at).count();
    Shown::text(format!("{sent} {}", if sent == 1 { "request" } else { "requests" }))
}

pub fn entry_place(lines: &[Line]) -> Option<Shown> {
    let (sent, _) = *entries(lines).first()?;
    let mut running = lines.iter().filter(|line| line.at <= sent).filter_map(|line| match &line.what {
        Recorded::Devices { devices } => devices.iter().find(|it| it.id() == CRAZYFLIE),
        _ => None,
    });
    let running = running.next_back()?;
    let (_, rom) = first_of(lines, sent, ROM_DFU)?;
    let port = if running.port == rom.port { "same port" } else { "different port" };
    let address = if running.address == rom.address { "same address" } else { "new address" };
    Shown::text(format!("{port}, {address}"))
}

/// Returns the time at which the recording ends.
fn end(lines: &[Line]) -> Option<u64> {
    lines.last().map(|line| match line.what {
        Recorded::Wait { took } => line.at + took,
        _ => line.at,
    })
}

/// Shows that a request to enter DFU mode was acknowledged, but no boot ROM appeared. The recording must continue for
/// more than 5 s after the request.
pub fn ignored_entry(lines: &[Line]) -> Option<Shown> {
    let entries = entries(lines);
    let (sent, error) = *entries.first()?;
    let watched = end(lines)?.saturating_sub(sent) > 5_000_000;
    let ignored = error.is_none() && first_of(lines, sent, ROM_DFU).is_none();
    (ignored && watched).then(|| Shown::Text("acknowledged, no DFU mode".to_owned()))
}

pub fn leave_answer(lines: &[Line]) -> Option<Shown> {
    reaction_to(lines, |op| matches!(op.kind, Kind::Leave(_)))
}

const FIRMWARE: u32 = 0x0800_4000;

/// Returns the last request to leave: the time of the last answer or else of the request, and the requested address.
fn leave(lines: &[Line]) -> Option<(u64, u32)> {
    ops(lines).iter().rev().find_map(|op| match op.kind {
        Kind::Leave(address) => Some((op.answers.last().map_or(op.end, |answer| answer.end), address)),
        _ => None,
    })
}

/// Shows the first device that appears after the request to leave. Shows that no device appears only if the recording
/// continues for more than 10 s.
fn device_after(lines: &[Line], left: u64) -> Option<Shown> {
    match appearances(lines, left).first() {
        Some((_, seen)) => Shown::text(seen.id().to_string()),
        None if end(lines)?.saturating_sub(left) > 10_000_000 => Shown::text("nothing on USB"),
        None => None,
    }
}

/// Shows the device that appears after the request to start the firmware. Ignores recordings of other ROM versions.
pub fn start<const VERSION: u8>(lines: &[Line]) -> Option<Shown> {
    let (left, address) = leave(lines)?;
    let is_wanted = address == FIRMWARE && rom_byte(lines) == Some(VERSION);
    if is_wanted { device_after(lines, left) } else { None }
}

pub fn start_time(lines: &[Line]) -> Option<Shown> {
    let (left, address) = leave(lines)?;
    let (at, _) = first_of(lines, left, CRAZYFLIE).filter(|_| address == FIRMWARE)?;
    Some(Shown::Times(vec![micros(at - left)]))
}

/// Shows the device that appears after a request to leave for an address other than the start of the firmware. If
/// `BY_HAND`, ignores recordings with a request to enter DFU mode; otherwise, ignores recordings without one.
pub fn reset<const BY_HAND: bool>(lines: &[Line]) -> Option<Shown> {
    let (left, address) = leave(lines)?;
    let is_wanted =
        address != FIRMWARE && entries(lines).is_empty() == BY_HAND && !first_word_is_blank(lines);
    if is_wanted { device_after(lines, left) } else { None }
}

/// Returns whether the first sector of the firmware was erased and its first word has not been written since.
fn first_word_is_blank(lines: &[Line]) -> bool {
    let change = |op: &Op| match op.kind {
        Kind::Erase(FIRMWARE) => Some(true),
        Kind::Write { address: FIRMWARE, .. } => Some(false),
        _ => None,
    };
    ops(lines).iter().filter_map(change).next_back() == Some(true)
}

pub fn reset_without_first_word(lines: &[Line]) -> Option<Shown> {
    let (left, _) = leave(lines)?;
    let is_wanted = first_word_is_blank(lines) && !entries(lines).is_empty();
    if is_wanted { device_after(lines, left) } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Parses a recording that opens a chip in DFU mode on port 1-1 and continues with these lines.
    fn recording(lines: &str) -> Vec<Line> {
        const HEAD: &str = r#"
{"at":0,"event":"start","recording":1,"program":"a published log","system":"unknown"}
{"at":0,"event":"devices","devices":[{"port":"1-1","address":5,"vendor":"0483","product":"df11","release":"2200"}]}
{"at":0,"event":"open","device":0,"port":"1-1","address":5}
"#;
        cfdfu::recording::parse(&format!("{HEAD}{lines}")).unwrap()
    }

    fn text(shown: Option<Shown>) -> String {
        shown.map_or_else(|| "nothing".to_owned(), |shown| shown.to_string())
    }

    #[test]
    fn a_recording_without_requests_shows_nothing_about_them() {
        let lines = recording("");
        assert_eq!(text(release(&lines)), "22.00");
        for show in [first_status, transfer_size, product, serials, selects, erases::<16, false>, width] {
            assert_eq!(show(&lines), None);
        }
    }

    /// The host did not pause after the first answer, so the chip sent the second answer as soon as the erase was done.
    #[test]
    fn the_time_of_an_erase_is_measured_between_two_answers() {
        let erase = r#"
{"at":1000,"event":"in","device":0,"setup":"a1 03 0000 0000","length":6,"took":500,"data":"0a0000000a00"}
{"at":2000,"event":"out","device":0,"setup":"21 04 0000 0000","took":500,"data":""}
{"at":3000,"event":"out","device":0,"setup":"21 01 0000 0000","took":500,"data":"4100400008"}
{"at":4000,"event":"in","device":0,"setup":"a1 03 0000 0000","length":6,"took":500,"data":"006400000400"}
{"at":4500,"event":"in","device":0,"setup":"a1 03 0000 0000","length":6,"took":390000,"data":"000000000500"}
"#;
        let lines = recording(erase);
        assert_eq!(text(first_status(&lines)), "dfuERROR with errFIRMWARE");
        assert_eq!(text(erase_poll(&lines)), "dfuDNBUSY, 100 ms");
        assert_eq!(text(erases::<16, false>(&lines)), "390 ms");
        assert_eq!(text(erases::<16, true>(&lines)), "nothing");
        assert_eq!(text(erases::<64, false>(&lines)), "nothing");
        assert_eq!(text(eager_status(&lines)), "dfuDNLOAD-IDLE");
        let two = format!("{erase}{}", erase.replace("390000", "410000"));
        assert_eq!(text(erases::<16, false>(&recording(&two))), "390 ms to 410 ms");
    }

    /// A host that sleeps longer than the chip works measures its own sleep.
    #[test]
    fn a_pause_of_the_host_is_not_counted_as_time_of_the_chip() {
        let lines = recording(
            r#"
{"at":1000,"event":"out","device":0,"setup":"21 01 0002 0000","took":4000,"bytes":2048}
{"at":5000,"event":"in","device":0,"setup":"a1 03 0000 0000","length":6,"took":500,"data":"006800000400"}
{"at":5500,"event":"wait","took":104000}
{"at":109500,"event":"in","device":0,"setup":"a1 03 0000 0000","length":6,"took":500,"data":"000000000500"}
"#,
        );
        assert_eq!(text(write_poll(&lines)), "dfuDNBUSY, 104 ms");
        assert_eq!(text(blocks::<false>(&lines)), "nothing");
        assert_eq!(text(eager_status(&lines)), "nothing");
    }

    #[test]
    fn the_address_pointer_and_the_programming_width_are_derived_from_earlier_requests() {
        let lines = recording(
            r#"
{"at":1000,"event":"select","device":0,"interface":0,"alternate":3,"took":500}
{"at":2000,"event":"out","device":0,"setup":"21 01 0000 0000","took":500,"data":"210000ffff"}
{"at":3000,"event":"in","device":0,"setup":"a1 03 0000 0000","length":6,"took":500,"data":"006800000400"}
{"at":4000,"event":"in","device":0,"setup":"a1 03 0000 0000","length":6,"took":500,"data":"000000000500"}
{"at":5000,"event":"out","device":0,"setup":"21 01 0002 0000","took":500,"data":"03ffffff"}
{"at":6000,"event":"in","device":0,"setup":"a1 03 0000 0000","length":6,"took":500,"data":"006800000400"}
{"at":7000,"event":"in","device":0,"setup":"a1 03 0000 0000","length":6,"took":500,"data":"000000000500"}
{"at":8000,"event":"out","device":0,"setup":"21 06 0000 0000","took":500,"data":""}
{"at":9000,"event":"in","device":0,"setup":"a1 02 0002 0000","length":4,"took":500,"data":"03ffffff"}
{"at":10000,"event":"out","device":0,"setup":"21 06 0000 0000","took":500,"data":""}
{"at":11000,"event":"out","device":0,"setup":"21 01 0000 0000","took":500,"data":"4100400008"}
{"at":12000,"event":"in","device":0,"setup":"a1 03 0000 0000","length":6,"took":500,"data":"006400000400"}
{"at":12500,"event":"in","device":0,"setup":"a1 03 0000 0000","length":6,"took":230000,"data":"000000000500"}
"#,
        );
        assert_eq!(text(selects(&lines)), "accepted");
        assert_eq!(text(width(&lines)), "accepted, reads back 03ffffff");
        assert_eq!(text(erases::<16, true>(&lines)), "230 ms");
        assert_eq!(text(address_poll(&lines)), "dfuDNBUSY, 104 ms");
    }

    /// The lines contain the requests from the thread td-p/341906, and a refused CLRSTATUS.
    #[test]
    fn refusals_are_shown_with_the_status_that_follows() {
        let lines = recording(
            r#"
{"at":1000,"event":"in","device":0,"setup":"a1 03 0000 0000","length":6,"took":500,"data":"000000000200"}
{"at":2000,"event":"out","device":0,"setup":"21 04 0000 0000","took":500,"data":"","error":"stall"}
{"at":3000,"event":"out","device":0,"setup":"21 01 0000 0000","took":500,"data":"2100000000"}
{"at":4000,"event":"in","device":0,"setup":"a1 03 0000 0000","length":6,"took":500,"data":"006800000400"}
{"at":5000,"event":"in","device":0,"setup":"a1 03 0000 0000","length":6,"took":500,"data":"010000000a00"}
{"at":6000,"event":"out","device":0,"setup":"21 04 0000 0000","took":500,"data":""}
{"at":7000,"event":"in","device":0,"setup":"a1 03 0000 0000","length":6,"took":500,"data":"000000000200"}
"#,
        );
        assert_eq!(text(first_status(&lines)), "dfuIDLE");
        assert_eq!(text(clear_elsewhere(&lines)), "stall");
        assert_eq!(text(address_zero(&lines)), "dfuDNBUSY, then dfuERROR with errTARGET");
        assert_eq!(text(clear_in_error(&lines)), "dfuIDLE");
    }

    /// The first of the two requests restarts the firmware.
    #[test]
    fn the_requests_to_enter_dfu_mode_are_counted_and_timed() {
        let running = r#"{"port":"1-2","address":ADDRESS,"vendor":"0483","product":"5740","release":"0200"}"#;
        let rom = running.replace("5740", "df11").replace("0200", "2200");
        let request = r#""event":"out","device":1,"setup":"40 01 0001 0002","took":1000,"data":"","error":"disconnected"}"#;
        let at = |at: u32, device: &str, address: &str| {
            format!(r#"{{"at":{at},"event":"devices","devices":[{}]}}"#, device.replace("ADDRESS", address))
        };
        let lines = [
            at(1000, running, "7"),
            r#"{"at":1500,"event":"open","device":1,"port":"1-2","address":7}"#.to_owned(),
            format!(r#"{{"at":2000,{request}"#),
            at(1_300_000, running, "8"),
            format!(r#"{{"at":1400000,{request}"#),
            at(2_000_000, &rom, "9"),
        ];
        let lines = recording(&lines.join("\n"));
        assert_eq!(text(entry_answer(&lines)), "disconnected");
        assert_eq!(text(entry_requests(&lines)), "2 requests");
        assert_eq!(text(entry_time(&lines)), "600 ms");
        assert_eq!(text(entry_place(&lines)), "same port, new address");
    }

    /// The answer to the request to leave is dfuMANIFEST. In one recording, the firmware appears after 1.5 s. In
    /// another, nothing appears for 20 s. The third ends too early to show either.
    #[test]
    fn the_answer_to_a_request_to_leave_and_the_next_device_are_shown() {
        let leave = r#"
{"at":1000,"event":"out","device":0,"setup":"21 01 0000 0000","took":500,"data":"2100400008"}
{"at":2000,"event":"in","device":0,"setup":"a1 03 0000 0000","length":6,"took":500,"data":"006800000400"}
{"at":3000,"event":"in","device":0,"setup":"a1 03 0000 0000","length":6,"took":500,"data":"000000000500"}
{"at":4000,"event":"out","device":0,"setup":"21 01 0002 0000","took":500,"data":""}
{"at":5000,"event":"in","device":0,"setup":"a1 03 0000 0000","length":6,"took":500,"data":"000100000700"}
{"at":6000,"event":"devices","devices":[]}
"#;
        let starts = r#"
{"at":1505500,"event":"devices","devices":[{"port":"1-1","address":6,"vendor":"0483","product":"5740","release":"0200"}]}
"#;
        let lines = recording(&format!("{leave}{starts}"));
        assert_eq!(text(leave_answer(&lines)), "dfuMANIFEST");
        assert_eq!(text(start_time(&lines)), "1.50 s");
        assert_eq!(text(device_after(&lines, 5500)), "0483:5740");
        // The version of the ROM was not read, so the recording is not evidence for any version.
        assert_eq!(text(start::<0x91>(&lines)), "nothing");
        let dark = recording(&format!("{leave}{}", r#"{"at":20000000,"event":"devices","devices":[]}"#));
        assert_eq!(text(device_after(&dark, 5500)), "nothing on USB");
        assert_eq!(text(device_after(&recording(leave), 5500)), "nothing");
    }
}
