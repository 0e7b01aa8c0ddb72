//! Converts captures by other programs into recordings: Linux usbmon text, and pcap and pcapng files of usbmon or
//! USBPcap. A capture of dfu-util on a real chip can then be replayed against cfdfu.
//!
//! The parser of each format reports submissions and completions as [`CaptureEvent`]s. [`Pairing`] joins a submission
//! and its completion into a transfer, skips devices that are neither a Crazyflie nor in DFU mode, and creates the
//! recording's lines. Captures are untrusted input: every length is checked, and memory use grows only with the size of
//! the file.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};

use super::{
    Appearance, ErrorName, Header, Hex16, Line, Port, Recorded, RecordingError, SIZE_MAX, SetupWords,
    TransferResult,
};
use super::{VERSION, parse as parse_recording};
use crate::usb::{CRAZYFLIE, Id, Location, ROM_DFU, Setup, TransferError};

mod pcap;
mod usbmon;
mod usbpcap;

const NO_DEVICES: &str = "it contains no Crazyflie and no device in DFU mode";
/// bcdDevice of the boot ROM of an STM32F405, for captures without the device descriptor.
const ROM_RELEASE: u16 = 0x2200;
/// The largest number of enumerations in a recording. Each one adds a list of all devices, so the size of the recording
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

/// Parses a recording, or a capture in any of the supported formats. The format is recognised from the contents.
pub fn parse(bytes: &[u8]) -> Result<Vec<Line>, RecordingError> {
    if u64::try_from(bytes.len()).map_or(true, |size| size > SIZE_MAX) {
        return Err(RecordingError::Capture(format!("it is larger than {} MiB", SIZE_MAX / 1024 / 1024)));
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
        CaptureSource { program: "usbmon capture", system: "linux" }
    };
    pairing.finish(source)
}

fn unknown_format() -> RecordingError {
    let text = "it is not a recording, usbmon text, or a pcap or pcapng file of USB transfers";
    RecordingError::Capture(text.to_owned())
}

/// The origin of a capture.
#[derive(Clone, Copy)]
struct CaptureSource {
    program: &'static str,
    system: &'static str,
}

/// A submission or a completion.
struct CaptureEvent<'a> {
    /// The tag of the transfer, which its submission and its completion share.
    tag: &'a [u8],
    /// Microseconds since an arbitrary point in time.
    at: u64,
    bus: u8,
    /// The address of the device.
    device: u8,
    /// bEndpointAddress. For a control transfer, the direction bit is ignored.
    endpoint: u8,
    phase: CapturePhase,
    payload: CapturedData<'a>,
}

enum CapturePhase {
    /// The submission of a control transfer, with its wLength.
    Control(Setup, usize),
    /// The submission of a bulk transfer.
    Bulk,
    /// The data of a control transfer, if the capture contains the data in a separate packet.
    Data,
    Complete(Result<(), TransferError>),
}

/// The data of an event, to the extent that it was captured.
#[derive(Clone, Default)]
struct CapturedData<'a> {
    bytes: Cow<'a, [u8]>,
    /// The number of transferred bytes, if the capture contains it.
    length: Option<usize>,
}

impl CapturedData<'_> {
    fn is_empty(&self) -> bool {
        self.bytes.is_empty() && self.length.unwrap_or(0) == 0
    }

    /// Returns the data, or only its length if the data was not captured completely.
    fn to_result(&self) -> TransferResult {
        match self.length {
            Some(length) if length > self.bytes.len() => {
                TransferResult { bytes: Some(length), ..TransferResult::default() }
            }
            _ => {
                TransferResult::of(self.bytes.get(..self.length.unwrap_or(usize::MAX)).unwrap_or(&self.bytes))
            }
        }
    }
}

/// The byte order of the numbers in a binary capture.
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

    /// Reads a length or an offset.
    fn size(self, bytes: &[u8], at: usize) -> Option<usize> {
        usize::try_from(self.u32(bytes, at)?).ok()
    }
}

/// Parses a setup packet, which is little-endian in every capture. Returns wLength separately.
fn setup_packet(bytes: &[u8]) -> Option<(Setup, usize)> {
    let word = |at| ByteOrder::Little.u16(bytes, at);
    let (request_type, request) = (*bytes.first()?, *bytes.get(1)?);
    let length = usize::from(word(6)?);
    Some((Setup { request_type, request, value: word(2)?, index: word(4)? }, length))
}

/// One enumeration of a device. An enumeration ends when the host reads the descriptor of a different device at the
/// same address.
struct CapturedEnumeration {
    bus: u8,
    address: u8,
    /// The times at which the first and the last transfer were submitted.
    first: u64,
    last: u64,
    /// The ID and bcdDevice, from the device descriptor.
    identity: Option<(Id, u16)>,
    speaks_dfu: bool,
}

impl CapturedEnumeration {
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

/// A transfer that is not complete yet.
struct Submission<'a> {
    enumeration: usize,
    at: u64,
    endpoint: u8,
    /// `None` for a bulk transfer.
    setup: Option<(Setup, usize)>,
    payload: CapturedData<'a>,
}

struct CapturedTransfer {
    enumeration: usize,
    at: u64,
    took: u64,
    request: CapturedRequest,
}

/// The contents of a line, without the device number.
enum CapturedRequest {
    In { setup: Setup, length: usize, result: TransferResult },
    Out { setup: Setup, result: TransferResult },
    Select { interface: u8, alternate: u8, error: Option<ErrorName> },
    Packet { endpoint: u8, result: TransferResult },
}

/// Joins the submissions and completions of a capture.
#[derive(Default)]
struct Pairing<'a> {
    began: Option<u64>,
    sent: HashMap<&'a [u8], Submission<'a>>,
    /// The index of the current enumeration, by bus and address.
    current: HashMap<(u8, u8), usize>,
    enumerations: Vec<CapturedEnumeration>,
    /// The completed transfers, in the order in which they ended.
    transfers: Vec<CapturedTransfer>,
}

impl<'a> Pairing<'a> {
    /// Converts a time to microseconds since the first event.
    fn since_start(&mut self, at: u64) -> u64 {
        at.saturating_sub(*self.began.get_or_insert(at))
    }

    fn report(&mut self, event: CaptureEvent<'a>) {
        let at = self.since_start(event.at);
        // Address 0 is temporary: the host assigns another address during the enumeration.
        if event.device == 0 {
            return;
        }
        let setup = match event.phase {
            CapturePhase::Control(setup, length) => Some((setup, length)),
            CapturePhase::Bulk => None,
            CapturePhase::Data => {
                if let Some(sent) = self.sent.get_mut(event.tag) {
                    sent.payload = event.payload;
                }
                return;
            }
            CapturePhase::Complete(result) => {
                if let Some(sent) = self.sent.remove(event.tag) {
                    self.complete(sent, at, result, event.payload);
                }
                return;
            }
        };
        let place = (event.bus, event.device);
        let enumeration =
            self.current.get(&place).copied().unwrap_or_else(|| self.add_enumeration(place, at));
        if let Some(it) = self.enumerations.get_mut(enumeration) {
            it.last = at;
            it.speaks_dfu |= setup.is_some_and(|(setup, length)| is_get_status(setup, length));
        }
        let (endpoint, payload) = (event.endpoint, event.payload);
        self.sent.insert(event.tag, Submission { enumeration, at, endpoint, setup, payload });
    }

    /// Adds an enumeration and returns its index.
    fn add_enumeration(&mut self, (bus, address): (u8, u8), at: u64) -> usize {
        let index = self.enumerations.len();
        let (identity, speaks_dfu) = (None, false);
        self.enumerations.push(CapturedEnumeration {
            bus,
            address,
            first: at,
            last: at,
            identity,
            speaks_dfu,
        });
        self.current.insert((bus, address), index);
        index
    }

    fn complete(
        &mut self,
        mut sent: Submission<'a>,
        at: u64,
        result: Result<(), TransferError>,
        answer: CapturedData<'a>,
    ) {
        if result.is_ok() && sent.setup.is_some_and(|(setup, _)| is_get_device_descriptor(setup)) {
            let descriptor = if answer.is_empty() { &sent.payload } else { &answer };
            sent.enumeration = self.identify(sent.enumeration, sent.at, &descriptor.bytes);
        }
        let (enumeration, at, took) = (sent.enumeration, sent.at, at.saturating_sub(sent.at));
        self.transfers.push(CapturedTransfer {
            enumeration,
            at,
            took,
            request: sent.request(result, answer),
        });
    }

    /// Records the identity from a device descriptor (USB 2.0, table 9-8). Returns the index of the enumeration,
    /// which is a new one if the address belonged to a different device before.
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
        let new = self.add_enumeration(place, at);
        if let Some(it) = self.enumerations.get_mut(new) {
            it.identity = Some(identity);
        }
        new
    }

    /// Returns the lines of the recording.
    fn finish(self, source: CaptureSource) -> Result<Vec<Line>, RecordingError> {
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
                // A capture does not show when a device disappears, so keep it until another appears on its port.
                present.insert(port.clone(), it.appearance(Port(port.clone())));
                let devices = present.values().cloned().collect();
                let (port, address) = (Port(port.clone()), it.address);
                lines.push(Line { at: it.first, what: Recorded::Devices { devices } });
                let open = Recorded::Open { device: next, port, address, error: None };
                lines.push(Line { at: it.first, what: open });
                next
            });
            lines.push(Line { at: transfer.at, what: transfer.request.into_recorded(device, transfer.took) });
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

/// Assigns a port to each device in the recording, because a capture does not contain ports. A drone that restarts
/// stays on its port, so the devices of a bus share port 1 unless they are used at the same time.
fn assign_ports(enumerations: &[CapturedEnumeration]) -> Vec<Option<Location>> {
    // For each bus, the times until which its ports are in use.
    let mut in_use: HashMap<u8, Vec<u64>> = HashMap::new();
    let mut assign = |it: &CapturedEnumeration| {
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

impl Submission<'_> {
    fn request(self, result: Result<(), TransferError>, answer: CapturedData<'_>) -> CapturedRequest {
        let Some((setup, length)) = self.setup else {
            let from_device = self.endpoint & 0x80 != 0;
            let result = if from_device { self.received(result, answer) } else { self.sent(result, &answer) };
            return CapturedRequest::Packet { endpoint: self.endpoint, result };
        };
        if (setup.request_type, setup.request) == (TO_INTERFACE, SET_INTERFACE) {
            let [interface, _] = setup.index.to_le_bytes();
            let [alternate, _] = setup.value.to_le_bytes();
            return CapturedRequest::Select { interface, alternate, error: result.err().map(ErrorName) };
        }
        if setup.request_type & 0x80 != 0 {
            return CapturedRequest::In { setup, length, result: self.received(result, answer) };
        }
        CapturedRequest::Out { setup, result: self.sent(result, &answer) }
    }

    /// Returns the result of a transfer from the device.
    fn received(&self, result: Result<(), TransferError>, answer: CapturedData<'_>) -> TransferResult {
        let data = if answer.is_empty() { None } else { Some(answer) };
        match (result, data) {
            (Err(error), _) => TransferResult::failed(error),
            (Ok(()), Some(answer)) => answer.to_result(),
            // The data of a control transfer may have preceded its completion.
            (Ok(()), None) if !self.payload.bytes.is_empty() => self.payload.to_result(),
            (Ok(()), None) => TransferResult::data(&[]),
        }
    }

    /// Returns the result of a transfer to the device: the submitted data, and an error unless all of it was sent.
    fn sent(&self, result: Result<(), TransferError>, answer: &CapturedData<'_>) -> TransferResult {
        let sent = self.payload.to_result();
        let is_short = answer.length.is_some_and(|length| length < sent.len());
        let error = result.err().or(is_short.then_some(TransferError::Short)).map(ErrorName);
        TransferResult { error, ..sent }
    }
}

impl CapturedRequest {
    fn into_recorded(self, device: u32, took: u64) -> Recorded {
        match self {
            CapturedRequest::In { setup, length, result } => {
                Recorded::In { device, setup: SetupWords(setup), length, took, result }
            }
            CapturedRequest::Out { setup, result } => {
                Recorded::Out { device, setup: SetupWords(setup), took, result }
            }
            CapturedRequest::Select { interface, alternate, error } => {
                Recorded::Select { device, interface, alternate, took, error }
            }
            CapturedRequest::Packet { endpoint, result } => {
                Recorded::Packet { device, endpoint, took, result }
            }
        }
    }
}

#[cfg(test)]
mod tests;
