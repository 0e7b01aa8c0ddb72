//! Intel HEX: lines of addresses and bytes, each with its checksum.

use ihex::{ReaderError, Record};
use thiserror::Error;

use crate::flash::{Address, Segment};

/// What is wrong with a HEX file.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum HexDefect {
    /// A line is not sound.
    #[error("line {line} is damaged: {why}")]
    Line {
        /// Counted from 1.
        line: usize,
        /// In the words of the reader.
        why: String,
    },
    #[error("its last line is not that of a complete file")]
    NoEnd,
    #[error("line {0} follows the end of the file")]
    AfterEnd(usize),
    /// Parts all over the place.
    #[error("it is strewn over {0} places")]
    Strewn(usize),
    /// Addresses run past the 32-bit space.
    #[error("line {0} runs out of the address space")]
    Address(usize),
}

/// What some editors put before a text.
const BYTE_ORDER_MARK: &[u8] = b"\xEF\xBB\xBF";
/// Within so many bytes a text shows whether it is a HEX file.
const BEGINNING: usize = 1000;
/// More separate parts than this are no image.
const PARTS_MAX: usize = 10_000;

/// Whether this is a HEX file, if a damaged one: near its beginning a line has a colon and the digits of the
/// shortest record.
pub(super) fn looks_like(file: &[u8]) -> bool {
    let text = file.strip_prefix(BYTE_ORDER_MARK).unwrap_or(file);
    let record = |line: &[u8]| match line.trim_ascii() {
        [b':', digits @ ..] => digits.len() >= 10 && digits[..10].iter().all(u8::is_ascii_hexdigit),
        _ => false,
    };
    text[..text.len().min(BEGINNING)].split(|&byte| byte == b'\n').any(record)
}

/// Reads a HEX file: one segment for each run of lines that follow one another.
pub(super) fn parse(file: &[u8]) -> Result<Vec<Segment>, HexDefect> {
    let mut segments: Vec<Segment> = Vec::new();
    let mut base = 0_u32;
    let mut ended = false;
    let text = file.strip_prefix(BYTE_ORDER_MARK).unwrap_or(file);
    for (n, line) in text.split(|&byte| byte == b'\n').enumerate() {
        let (line, at) = (line.trim_ascii(), n + 1);
        // DOS ends a text with ^Z.
        if line.iter().all(|&byte| matches!(byte, 0 | 0x1A)) {
            continue;
        }
        if ended {
            return Err(HexDefect::AfterEnd(at));
        }
        let damaged = |why: String| HexDefect::Line { line: at, why };
        let text = std::str::from_utf8(line).map_err(|_| damaged("it is not text".to_owned()))?;
        match Record::from_record_string(text).map_err(|error| damaged(why(error)))? {
            Record::Data { offset, value } => {
                let address = base.checked_add(offset.into()).ok_or(HexDefect::Address(at))?;
                append(&mut segments, address, value);
            }
            Record::ExtendedLinearAddress(high) => base = u32::from(high) << 16,
            Record::ExtendedSegmentAddress(segment) => base = u32::from(segment) << 4,
            Record::EndOfFile => ended = true,
            // Where a program starts: the vector table says that.
            Record::StartLinearAddress(_) | Record::StartSegmentAddress { .. } => {}
        }
    }
    match segments.len() {
        _ if !ended => Err(HexDefect::NoEnd),
        parts if parts > PARTS_MAX => Err(HexDefect::Strewn(parts)),
        _ => Ok(segments),
    }
}

fn why(error: ReaderError) -> String {
    match error {
        ReaderError::ChecksumMismatch(right, found) => {
            format!("its checksum is {found:02X}, that of its bytes is {right:02X}")
        }
        other => other.to_string(),
    }
}

fn append(segments: &mut Vec<Segment>, address: u32, bytes: Vec<u8>) {
    match segments.last_mut() {
        Some(last) if last.address.wide() + last.data.len() as u64 == u64::from(address) => {
            last.data.extend(bytes);
        }
        _ if bytes.is_empty() => {}
        _ => segments.push(Segment { address: Address(address), data: bytes }),
    }
}
