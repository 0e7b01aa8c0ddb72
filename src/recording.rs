//! A recording: every request to a USB device with its answer and its time, as JSON lines. docs/recordings.md describes
//! the format.
//!
//! A recording comes from [`recorder`] or from a capture by another program ([`capture`]), or is written by hand from a
//! published log. `sim::replay` replays a recording. [`redact`] removes everything that identifies a drone.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::Digest as _;
use thiserror::Error;

use crate::usb::descriptor::Strings;
use crate::usb::{Found, Id, Location, Setup, TransferError};

pub mod capture;
pub mod recorder;
pub mod redact;
pub mod tape;

/// The version of the format. A recording with any other version is refused.
pub const VERSION: u32 = 1;
/// Size limit of a recording, in bytes. Flashing one drone produces about 120 kB.
pub const SIZE_MAX: u64 = 64 * 1024 * 1024;
/// Data longer than this is firmware, so only its length and hash are recorded. The longest other data is the OTP.
const DATA_MAX: usize = 512;

/// One line of a recording.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// The time at which the request was sent, in microseconds since the recording began.
    pub at: u64,
    #[serde(flatten)]
    pub what: Recorded,
}

/// What a line records. Times are in microseconds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Recorded {
    /// The first line.
    Start(Header),
    /// The devices on the bus have changed.
    Devices { devices: Vec<Appearance> },
    /// The list of devices could not be read.
    NoDevices { error: String },
    /// An attempt to open a device. If it succeeded, the following lines refer to the device by this number.
    Open {
        device: u32,
        port: Port,
        address: u8,
        #[serde(skip_serializing_if = "Option::is_none")]
        error: Option<ErrorName>,
    },
    /// A control transfer from the device.
    In {
        device: u32,
        setup: SetupWords,
        /// wLength, in bytes.
        length: usize,
        took: u64,
        #[serde(flatten)]
        result: TransferResult,
    },
    /// A control transfer to the device, with the data that was sent.
    Out {
        device: u32,
        setup: SetupWords,
        took: u64,
        #[serde(flatten)]
        result: TransferResult,
    },
    /// SET_INTERFACE.
    Select {
        device: u32,
        interface: u8,
        alternate: u8,
        took: u64,
        #[serde(skip_serializing_if = "Option::is_none")]
        error: Option<ErrorName>,
    },
    /// A packet from (bit 7 set) or to a bulk endpoint.
    Packet {
        device: u32,
        endpoint: u8,
        took: u64,
        #[serde(flatten)]
        result: TransferResult,
    },
    /// The host waited without sending a request.
    Wait { took: u64 },
    /// Lines are missing here, or from here to the end, because the recording reached its size limit.
    Truncated,
}

/// The origin of a recording.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// The version of the format, [`VERSION`].
    pub recording: u32,
    /// The program and its version, or the source of a published log.
    pub program: String,
    /// The operating system of the host.
    pub system: String,
    /// The scenario, if the device was simulated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scenario: Option<String>,
    /// Whether serial numbers were replaced and packets were reduced to their lengths.
    #[serde(default)]
    pub redacted: bool,
}

/// A device on the bus.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Appearance {
    pub port: Port,
    pub address: u8,
    pub vendor: Hex16,
    pub product: Hex16,
    /// bcdDevice.
    pub release: Hex16,
    /// The names, if the system provides them while the device is not open.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub names: Option<DeviceNames>,
}

/// The manufacturer, product and serial number of a device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceNames {
    pub manufacturer: String,
    pub product: String,
    pub serial: String,
}

impl From<Strings> for DeviceNames {
    fn from(Strings { manufacturer, product, serial }: Strings) -> DeviceNames {
        DeviceNames { manufacturer, product, serial }
    }
}

impl From<DeviceNames> for Strings {
    fn from(DeviceNames { manufacturer, product, serial }: DeviceNames) -> Strings {
        Strings { manufacturer, product, serial }
    }
}

impl From<&Found> for Appearance {
    fn from(found: &Found) -> Appearance {
        Appearance {
            port: Port(found.location.clone()),
            address: found.address,
            vendor: Hex16(found.id.vendor),
            product: Hex16(found.id.product),
            release: Hex16(found.release),
            names: found.names.clone().map(DeviceNames::from),
        }
    }
}

impl Appearance {
    pub fn id(&self) -> Id {
        Id { vendor: self.vendor.0, product: self.product.0 }
    }
}

/// The result of a transfer. If the transfer failed, `error` is set, and the data is the data that the host tried to
/// send.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TransferResult {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<HexBytes>,
    /// The number of bytes, if the data is hashed or redacted, or is missing from a capture.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<usize>,
    /// The SHA-256 of data longer than `DATA_MAX`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<HexBytes>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<ErrorName>,
}

impl TransferResult {
    /// Records these bytes, or only their number and hash if there are more than `DATA_MAX`.
    pub fn of(bytes: &[u8]) -> TransferResult {
        if bytes.len() > DATA_MAX { TransferResult::hashed(bytes) } else { TransferResult::data(bytes) }
    }

    pub fn data(bytes: &[u8]) -> TransferResult {
        TransferResult { data: Some(HexBytes(bytes.to_vec())), ..TransferResult::default() }
    }

    pub fn hashed(bytes: &[u8]) -> TransferResult {
        let sha256 = Some(hash(bytes));
        TransferResult { bytes: Some(bytes.len()), sha256, ..TransferResult::default() }
    }

    pub fn failed(error: TransferError) -> TransferResult {
        TransferResult { error: Some(ErrorName(error)), ..TransferResult::default() }
    }

    /// Returns the length of the data in bytes.
    pub fn len(&self) -> usize {
        self.data.as_ref().map(|data| data.0.len()).or(self.bytes).unwrap_or(0)
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns whether `bytes` can be the recorded data. Compares only the length if nothing else was recorded.
    pub fn matches(&self, bytes: &[u8]) -> bool {
        match (&self.data, &self.sha256) {
            (Some(data), _) => data.0 == bytes,
            (None, Some(sha256)) => self.bytes == Some(bytes.len()) && *sha256 == hash(bytes),
            (None, None) => bytes.len() == self.len(),
        }
    }
}

fn hash(bytes: &[u8]) -> HexBytes {
    HexBytes(sha2::Sha256::digest(bytes).to_vec())
}

/// Bytes, written as hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct HexBytes(pub Vec<u8>);

impl From<HexBytes> for String {
    fn from(bytes: HexBytes) -> String {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let digits = |byte: &u8| [byte >> 4, byte & 15].map(|digit| char::from(DIGITS[usize::from(digit)]));
        bytes.0.iter().flat_map(digits).collect()
    }
}

impl TryFrom<String> for HexBytes {
    type Error = &'static str;

    fn try_from(text: String) -> Result<HexBytes, Self::Error> {
        let (pairs, rest) = text.as_bytes().as_chunks::<2>();
        let digit = |digit: u8| char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok());
        let byte = |&[high, low]: &[u8; 2]| Some(digit(high)? << 4 | digit(low)?);
        let bytes: Option<Vec<u8>> = pairs.iter().map(byte).collect();
        bytes.filter(|_| rest.is_empty()).map(HexBytes).ok_or("not pairs of hexadecimal digits")
    }
}

/// A 16-bit number, written as four hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Hex16(pub u16);

impl From<Hex16> for String {
    fn from(number: Hex16) -> String {
        format!("{:04x}", number.0)
    }
}

impl TryFrom<String> for Hex16 {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Hex16, Self::Error> {
        u16::from_str_radix(&text, 16).map(Hex16).map_err(|_| "not a 16-bit hexadecimal number")
    }
}

/// bmRequestType, bRequest, wValue and wIndex, as in `a1 03 0000 0000`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct SetupWords(pub Setup);

impl From<SetupWords> for String {
    fn from(SetupWords(it): SetupWords) -> String {
        format!("{:02x} {:02x} {:04x} {:04x}", it.request_type, it.request, it.value, it.index)
    }
}

impl TryFrom<String> for SetupWords {
    type Error = &'static str;

    fn try_from(text: String) -> Result<SetupWords, Self::Error> {
        const WRONG: &str = "not the four hexadecimal numbers of a setup packet";
        let words: Result<Vec<u16>, _> = text.split(' ').map(|word| u16::from_str_radix(word, 16)).collect();
        let Ok(&[request_type, request, value, index]) = words.as_deref() else { return Err(WRONG) };
        let byte = |word: u16| u8::try_from(word).map_err(|_| WRONG);
        Ok(SetupWords(Setup { request_type: byte(request_type)?, request: byte(request)?, value, index }))
    }
}

/// Where a device is plugged in, as in `1-1.2`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Port(pub Location);

impl From<Port> for String {
    fn from(port: Port) -> String {
        port.0.to_string()
    }
}

impl TryFrom<String> for Port {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Port, Self::Error> {
        let root = text.parse().ok().map(|bus| Location { bus, ports: Vec::new() });
        Location::from_str(&text).ok().or(root).map(Port).ok_or("not a port such as 1-1.2")
    }
}

/// The error of a failed transfer, written as its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct ErrorName(pub TransferError);

const ERROR_NAMES: [(TransferError, &str); 9] = [
    (TransferError::Stall, "stall"),
    (TransferError::Timeout, "timeout"),
    (TransferError::Disconnected, "disconnected"),
    (TransferError::Access, "access"),
    (TransferError::Busy, "busy"),
    (TransferError::Io, "io"),
    (TransferError::Short, "short"),
    (TransferError::NotSupported, "not supported"),
    (TransferError::NotFound, "not found"),
];

impl From<ErrorName> for String {
    fn from(ErrorName(error): ErrorName) -> String {
        match (ERROR_NAMES.iter().find(|(it, _)| *it == error), error) {
            (Some((_, name)), _) => (*name).to_owned(),
            (None, TransferError::Other { code }) => format!("libusb {code}"),
            (None, other) => other.to_string(),
        }
    }
}

impl TryFrom<String> for ErrorName {
    type Error = &'static str;

    fn try_from(text: String) -> Result<ErrorName, Self::Error> {
        let named = ERROR_NAMES.iter().find(|(_, name)| *name == text).map(|(error, _)| *error);
        let code = || text.strip_prefix("libusb ")?.parse().ok();
        let error = named.or_else(|| code().map(|code| TransferError::Other { code }));
        error.map(ErrorName).ok_or("not the name of a transfer error")
    }
}

/// Why a file is not a usable recording. Line numbers start at 1.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum RecordingError {
    #[error("it is empty")]
    Empty,
    #[error("line {line}: {error}")]
    Line { line: usize, error: String },
    #[error("line 1 is not the start of a recording")]
    NoStart,
    #[error("it has format version {0}, but this version of cfdfu reads only format {VERSION}")]
    Version(u32),
    /// A capture by another program.
    #[error("{0}")]
    Capture(String),
}

/// Parses a recording.
pub fn parse(text: &str) -> Result<Vec<Line>, RecordingError> {
    let numbered = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let parse = |(n, line): (usize, &str)| {
        serde_json::from_str(line)
            .map_err(|error| RecordingError::Line { line: n + 1, error: error.to_string() })
    };
    let lines: Vec<Line> = numbered.map(parse).collect::<Result<_, _>>()?;
    match lines.first().map(|line| &line.what) {
        None => Err(RecordingError::Empty),
        Some(Recorded::Start(start)) if start.recording == VERSION => Ok(lines),
        Some(Recorded::Start(start)) => Err(RecordingError::Version(start.recording)),
        Some(_) => Err(RecordingError::NoStart),
    }
}

impl fmt::Display for Line {
    /// Formats the line as in the file, without the newline.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&serde_json::to_string(self).map_err(|_| fmt::Error)?)
    }
}
