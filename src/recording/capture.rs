//! Converts captures by other programs into recordings: Linux usbmon text, and pcap and pcapng files of usbmon or
//! USBPcap. A capture of dfu-util on a real chip can then be replayed against cfdfu.
//!
//! The parsers of the formats report each submission and each completion as an [`Event`]. [`Pairing`] joins the two to
//! a transfer, leaves out the devices that are not a Crazyflie, and writes the lines. Captures come from strangers:
//! every length is checked, and memory grows only with the size of the file.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};

use super::{
    Appearance, Fault, Header, Hex16, Line, Moved, Port, Recorded, RecordingError, SIZE_MAX, SetupWords,
};
use super::{VERSION, parse as parse_recording};
use crate::usb::{CRAZYFLIE, Id, Location, ROM_DFU, Setup, TransferError};

mod pcap;
mod usbmon;
mod usbpcap;

const NO_DEVICES: &str = "it contains no Crazyflie and no device in DFU mode";
/// bcdDevice of the boot ROM of an STM32F405, for captures without the device descriptor.
const ROM_RELEASE: u16 = 0x2200;
/// The largest number of enumerations in a recording. Every one adds a list of devices, so that their total length
/// grows with the square of this number.
const DEVICES_MAX: usize = 500;
/// bmRequestType of a standard request: device to host, and host to interface.
const FROM_DEVICE: u8 = 0x80;
const TO_INTERFACE: u8 = 0x01;
/// bmRequestType of a class request, interface to host.
const CLASS_FROM_INTERFACE: u8 = 0xA1;
const GET_DESCRIPTOR: u8 = 0x06;
const SET_INTERFACE: u8 = 0x0B;
/// Descriptor type 1 and index 0, as wValue of GET_DESCRIPTOR.
const DEVICE_DESCRIPTOR: u16 = 0x0100;
/// DFU_GETSTATUS and the length of its answer (DFU 1.1 §6.1.2). HID's GET_PROTOCOL has the same number, but its answer
/// is one byte long.
const GETSTATUS: u8 = 0x03;
const STATUS_LENGTH: usize = 6;
/// LIBUSB_ERROR_OVERFLOW and LIBUSB_ERROR_OTHER.
const OVERFLOW: TransferError = TransferError::Other { code: -8 };
const UNKNOWN: TransferError = TransferError::Other { code: -99 };

/// Parses a recording, or a capture in any of the supported formats. The format is recognised by its contents.
pub fn parse(bytes: &[u8]) -> Result<Vec<Line>, RecordingError> {
    if u64::try_from(bytes.len()).map_or(true, |size| size > SIZE_MAX) {
        return Err(RecordingError::Capture(format!("it is larger than {} MB", SIZE_MAX / 1024 / 1024)));
    }
    let mut pairing = Pairing::default();
    let source = if pcap::is_pcap(bytes) {
        pcap::read_pcap(bytes, &mut pairing)?
    } else if pcap::is_pcapng(bytes) {
        pcap::read_pcapng(bytes, &mut pairing)?
    } else {
        let text = str::from_utf8(bytes).map_err(|_| unknown_format())?;
        let first = text.lines().find(|line| !line.trim().is_empty()).ok_or(RecordingError::Empty)?;
        if first.trim_start().starts_with('{') {
            return parse_recording(text);
        }
        if !usbmon::is_text(first) {
            return Err(unknown_format());
        }
        usbmon::read_text(text, &mut pairing)?;
        Source { program: "usbmon capture", system: "linux" }
    };
    pairing.finish(source)
}

fn unknown_format() -> RecordingError {
    let text = "it is not a recording, usbmon text, or a pcap or pcapng file of USB transfers";
    RecordingError::Capture(text.to_owned())
}

/// What made a capture.
#[derive(Clone, Copy)]
struct Source {
    program: &'static str,
    system: &'static str,
}

/// A submission or a completion.
struct Event<'a> {
    /// The same in the submission and the completion of a transfer.
    tag: &'a [u8],
    /// Microseconds since any moment.
    at: u64,
    bus: u8,
    /// The address of the device.
    device: u8,
    /// bEndpointAddress. For a control transfer, the direction bit is not used.
    endpoint: u8,
    phase: Phase,
    payload: Payload<'a>,
}

enum Phase {
    /// A control transfer is sent, with this wLength.
    Control(Setup, usize),
    /// A packet is sent, or requested.
    Bulk,
    /// The data of a control transfer, if it is separate from the submission and the completion.
    Data,
    Complete(Result<(), TransferError>),
}

/// The data of an event, if it was captured.
#[derive(Clone, Default)]
struct Payload<'a> {
    bytes: Cow<'a, [u8]>,
    /// The number of bytes that were transferred, if the capture contains it.
    length: Option<usize>,
}

impl Payload<'_> {
    fn is_empty(&self) -> bool {
        self.bytes.is_empty() && self.length.unwrap_or(0) == 0
    }

    /// Data that was not captured completely has only a length.
    fn moved(&self) -> Moved {
        match self.length {
            Some(length) if length > self.bytes.len() => Moved { bytes: Some(length), ..Moved::default() },
            _ => Moved::of(self.bytes.get(..self.length.unwrap_or(usize::MAX)).unwrap_or(&self.bytes)),
        }
    }
}

/// Reads the numbers of binary captures.
#[derive(Clone, Copy)]
enum ByteOrder {
    Little,
    Big,
}

impl ByteOrder {
    fn u16(self, bytes: &[u8], at: usize) -> Option<u16> {
        let raw = *bytes.get(at..)?.first_chunk()?;
        Some(if matches!(self, ByteOrder::Big) { u16::from_be_bytes(raw) } else { u16::from_le_bytes(raw) })
    }

    fn u32(self, bytes: &[u8], at: usize) -> Option<u32> {
        let raw = *bytes.get(at..)?.first_chunk()?;
        Some(if matches!(self, ByteOrder::Big) { u32::from_be_bytes(raw) } else { u32::from_le_bytes(raw) })
    }

    fn u64(self, bytes: &[u8], at: usize) -> Option<u64> {
        let raw = *bytes.get(at..)?.first_chunk()?;
        Some(if matches!(self, ByteOrder::Big) { u64::from_be_bytes(raw) } else { u64::from_le_bytes(raw) })
    }

    /// A length or an offset.
    fn size(self, bytes: &[u8], at: usize) -> Option<usize> {
        usize::try_from(self.u32(bytes, at)?).ok()
    }
}

/// The setup packet and wLength. They are little-endian in every capture.
fn setup_packet(bytes: &[u8]) -> Option<(Setup, usize)> {
    let word = |at| ByteOrder::Little.u16(bytes, at);
    let (request_type, request) = (*bytes.first()?, *bytes.get(1)?);
    let length = usize::from(word(6)?);
    Some((Setup { request_type, request, value: word(2)?, index: word(4)? }, length))
}

/// One enumeration of a device: the transfers of one address, until the descriptor of another device is read there.
struct Enumeration {
    bus: u8,
    address: u8,
    /// When the first and the last transfer were sent.
    first: u64,
    last: u64,
    /// The ID and bcdDevice, from the device descriptor.
    identity: Option<(Id, u16)>,
    speaks_dfu: bool,
}

impl Enumeration {
    fn is_wanted(&self) -> bool {
        self.speaks_dfu || self.identity.is_some_and(|(id, _)| id == ROM_DFU || id == CRAZYFLIE)
    }

    fn appearance(&self, port: Port) -> Appearance {
        let (id, release) = self.identity.unwrap_or((ROM_DFU, ROM_RELEASE));
        Appearance {
            port,
            address: self.address,
            vendor: Hex16(id.vendor),
            product: Hex16(id.product),
            release: Hex16(release),
            names: None,
        }
    }
}

/// A transfer that has not been completed yet.
struct Sent<'a> {
    enumeration: usize,
    at: u64,
    endpoint: u8,
    /// `None` for a packet.
    setup: Option<(Setup, usize)>,
    payload: Payload<'a>,
}

struct Transfer {
    enumeration: usize,
    at: u64,
    took: u64,
    request: Request,
}

/// What a line contains, except for the number of the device.
enum Request {
    In { setup: Setup, length: usize, result: Moved },
    Out { setup: Setup, result: Moved },
    Select { interface: u8, alternate: u8, error: Option<Fault> },
    Packet { endpoint: u8, result: Moved },
}

/// Joins the submissions and completions of a capture.
#[derive(Default)]
struct Pairing<'a> {
    began: Option<u64>,
    sent: HashMap<&'a [u8], Sent<'a>>,
    /// The enumeration that uses a bus and address now.
    current: HashMap<(u8, u8), usize>,
    enumerations: Vec<Enumeration>,
    /// In the order in which they ended.
    transfers: Vec<Transfer>,
}

impl<'a> Pairing<'a> {
    /// The moment in microseconds since the first event.
    fn since_start(&mut self, at: u64) -> u64 {
        at.saturating_sub(*self.began.get_or_insert(at))
    }

    fn report(&mut self, event: Event<'a>) {
        let at = self.since_start(event.at);
        // A device has address 0 only until the host has given it another.
        if event.device == 0 {
            return;
        }
        let setup = match event.phase {
            Phase::Control(setup, length) => Some((setup, length)),
            Phase::Bulk => None,
            Phase::Data => {
                if let Some(sent) = self.sent.get_mut(event.tag) {
                    sent.payload = event.payload;
                }
                return;
            }
            Phase::Complete(result) => {
                if let Some(sent) = self.sent.remove(event.tag) {
                    self.complete(sent, at, result, event.payload);
                }
                return;
            }
        };
        let place = (event.bus, event.device);
        let enumeration = self.current.get(&place).copied().unwrap_or_else(|| self.appear(place, at));
        if let Some(it) = self.enumerations.get_mut(enumeration) {
            it.last = at;
            it.speaks_dfu |= setup.is_some_and(|(setup, length)| is_get_status(setup, length));
        }
        let (endpoint, payload) = (event.endpoint, event.payload);
        self.sent.insert(event.tag, Sent { enumeration, at, endpoint, setup, payload });
    }

    /// Adds an enumeration, and returns its index.
    fn appear(&mut self, (bus, address): (u8, u8), at: u64) -> usize {
        let index = self.enumerations.len();
        let (identity, speaks_dfu) = (None, false);
        self.enumerations.push(Enumeration { bus, address, first: at, last: at, identity, speaks_dfu });
        self.current.insert((bus, address), index);
        index
    }

    fn complete(
        &mut self,
        mut sent: Sent<'a>,
        at: u64,
        result: Result<(), TransferError>,
        answer: Payload<'a>,
    ) {
        if result.is_ok() && sent.setup.is_some_and(|(setup, _)| is_get_device_descriptor(setup)) {
            let descriptor = if answer.is_empty() { &sent.payload } else { &answer };
            sent.enumeration = self.identify(sent.enumeration, sent.at, &descriptor.bytes);
        }
        let (enumeration, at, took) = (sent.enumeration, sent.at, at.saturating_sub(sent.at));
        self.transfers.push(Transfer { enumeration, at, took, request: sent.request(result, answer) });
    }

    /// Records the identity in a device descriptor (USB 2.0, table 9-8). Returns the index of the enumeration, which is
    /// a new one if another device had the address before.
    fn identify(&mut self, index: usize, at: u64, descriptor: &[u8]) -> usize {
        let word = |at| ByteOrder::Little.u16(descriptor, at);
        let (Some(1), Some(vendor), Some(product), Some(release)) =
            (descriptor.get(1), word(8), word(10), word(12))
        else {
            return index;
        };
        let identity = (Id { vendor, product }, release);
        let Some(it) = self.enumerations.get_mut(index) else { return index };
        if *it.identity.get_or_insert(identity) == identity {
            return index;
        }
        let place = (it.bus, it.address);
        let new = self.appear(place, at);
        if let Some(it) = self.enumerations.get_mut(new) {
            it.identity = Some(identity);
        }
        new
    }

    /// Writes the lines of the recording.
    fn finish(self, source: Source) -> Result<Vec<Line>, RecordingError> {
        let count = self.enumerations.iter().filter(|it| it.is_wanted()).count();
        if count == 0 || count > DEVICES_MAX {
            let text = if count == 0 { NO_DEVICES } else { "it contains too many devices" };
            return Err(RecordingError::Capture(text.to_owned()));
        }
        let ports = assign_ports(&self.enumerations);
        let start = Header {
            recording: VERSION,
            program: source.program.to_owned(),
            system: source.system.to_owned(),
            scenario: None,
            redacted: false,
        };
        let mut lines = vec![Line { at: 0, what: Recorded::Start(start) }];
        let mut opened: HashMap<usize, u32> = HashMap::new();
        let mut present: BTreeMap<Location, Appearance> = BTreeMap::new();
        for transfer in self.transfers {
            let index = transfer.enumeration;
            let (Some(it), Some(Some(port))) = (self.enumerations.get(index), ports.get(index)) else {
                continue;
            };
            let next = u32::try_from(opened.len()).unwrap_or(u32::MAX);
            let device = *opened.entry(index).or_insert_with(|| {
                // A capture does not show when a device disappears: it is replaced by the next one on its port.
                present.insert(port.clone(), it.appearance(Port(port.clone())));
                let devices = present.values().cloned().collect();
                let (port, address) = (Port(port.clone()), it.address);
                lines.push(Line { at: it.first, what: Recorded::Devices { devices } });
                let open = Recorded::Open { device: next, port, address, error: None };
                lines.push(Line { at: it.first, what: open });
                next
            });
            lines.push(Line { at: transfer.at, what: transfer.request.recorded(device, transfer.took) });
        }
        if opened.is_empty() {
            return Err(RecordingError::Capture(NO_DEVICES.to_owned()));
        }
        Ok(lines)
    }
}

fn is_get_device_descriptor(setup: Setup) -> bool {
    let Setup { request_type, request, value, index: _ } = setup;
    (request_type, request, value) == (FROM_DEVICE, GET_DESCRIPTOR, DEVICE_DESCRIPTOR)
}

fn is_get_status(setup: Setup, length: usize) -> bool {
    let Setup { request_type, request, value, index: _ } = setup;
    (request_type, request, value, length) == (CLASS_FROM_INTERFACE, GETSTATUS, 0, STATUS_LENGTH)
}

/// Assigns a port to each device that belongs in the recording. A capture does not contain the port. A drone that
/// restarts stays on its port, so all devices of a bus are on port 1, except for those that are used at the same time.
fn assign_ports(enumerations: &[Enumeration]) -> Vec<Option<Location>> {
    // The moment until which each port of each bus is in use.
    let mut in_use: HashMap<u8, Vec<u64>> = HashMap::new();
    let mut assign = |it: &Enumeration| {
        let ports = in_use.entry(it.bus).or_default();
        let free = ports.iter().position(|&until| until < it.first).unwrap_or(ports.len());
        let number = u8::try_from(free + 1).ok()?;
        match ports.get_mut(free) {
            Some(until) => *until = it.last,
            None => ports.push(it.last),
        }
        Some(Location { bus: it.bus, ports: vec![number] })
    };
    enumerations.iter().map(|it| if it.is_wanted() { assign(it) } else { None }).collect()
}

impl Sent<'_> {
    fn request(self, result: Result<(), TransferError>, answer: Payload<'_>) -> Request {
        let Some((setup, length)) = self.setup else {
            let from_device = self.endpoint & 0x80 != 0;
            let result = if from_device { self.received(result, answer) } else { self.sent(result, &answer) };
            return Request::Packet { endpoint: self.endpoint, result };
        };
        if (setup.request_type, setup.request) == (TO_INTERFACE, SET_INTERFACE) {
            let [interface, _] = setup.index.to_le_bytes();
            let [alternate, _] = setup.value.to_le_bytes();
            return Request::Select { interface, alternate, error: result.err().map(Fault) };
        }
        if setup.request_type & 0x80 != 0 {
            return Request::In { setup, length, result: self.received(result, answer) };
        }
        Request::Out { setup, result: self.sent(result, &answer) }
    }

    /// What the device sent.
    fn received(&self, result: Result<(), TransferError>, answer: Payload<'_>) -> Moved {
        let data = if answer.is_empty() { None } else { Some(answer) };
        match (result, data) {
            (Err(error), _) => Moved::failed(error),
            (Ok(()), Some(answer)) => answer.moved(),
            // The data of a control transfer may have preceded its completion.
            (Ok(()), None) if !self.payload.bytes.is_empty() => self.payload.moved(),
            (Ok(()), None) => Moved::data(&[]),
        }
    }

    /// What the host sent, and the error if it was not sent completely.
    fn sent(&self, result: Result<(), TransferError>, answer: &Payload<'_>) -> Moved {
        let sent = self.payload.moved();
        let is_short = answer.length.is_some_and(|length| length < sent.len());
        let error = result.err().or(is_short.then_some(TransferError::Short)).map(Fault);
        Moved { error, ..sent }
    }
}

impl Request {
    fn recorded(self, device: u32, took: u64) -> Recorded {
        match self {
            Request::In { setup, length, result } => {
                Recorded::In { device, setup: SetupWords(setup), length, took, result }
            }
            Request::Out { setup, result } => {
                Recorded::Out { device, setup: SetupWords(setup), took, result }
            }
            Request::Select { interface, alternate, error } => {
                Recorded::Select { device, interface, alternate, took, error }
            }
            Request::Packet { endpoint, result } => Recorded::Packet { device, endpoint, took, result },
        }
    }
}

#[cfg(test)]
mod tests;
