//! Intel HEX files: each line has an address, bytes and a checksum.

use ihex::{ReaderError, Record};
use thiserror::Error;

use crate::flash::{Address, Segment};

/// A defect in a HEX file.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum HexDefect {
    #[error("line {line} is damaged: {why}")]
    Line {
        /// Counted from 1.
        line: usize,
        /// The message of the `ihex` crate.
        why: String,
    },
    #[error("its last line is not an end-of-file record")]
    NoEnd,
    #[error("line {0} follows the end-of-file record")]
    AfterEnd(usize),
    #[error("its data is scattered over {0} separate parts")]
    Scattered(usize),
    #[error("line {0} exceeds the 32-bit address space")]
    Address(usize),
}

/// The mark that some editors write at the start of a text file.
const BYTE_ORDER_MARK: &[u8] = b"\xEF\xBB\xBF";
/// Only this many bytes at the start of a file are searched for a record.
const BEGINNING: usize = 1000;
/// No real image has more separate parts than this.
const PARTS_MAX: usize = 10_000;

/// Returns whether `file` is a HEX file, even a damaged one: a line near the start of the file begins with a colon and
/// the digits of the shortest record.
pub(super) fn is_hex(file: &[u8]) -> bool {
    let text = file.strip_prefix(BYTE_ORDER_MARK).unwrap_or(file);
    let record = |line: &[u8]| match line.trim_ascii() {
        [b':', digits @ ..] => digits.len() >= 10 && digits[..10].iter().all(u8::is_ascii_hexdigit),
        _ => false,
    };
    text[..text.len().min(BEGINNING)].split(|&byte| byte == b'\n').any(record)
}

/// Parses a HEX file. Consecutive records with adjacent addresses form one segment.
pub(super) fn parse(file: &[u8]) -> Result<Vec<Segment>, HexDefect> {
    let mut segments: Vec<Segment> = Vec::new();
    let mut base = 0_u32;
    let mut ended = false;
    let text = file.strip_prefix(BYTE_ORDER_MARK).unwrap_or(file);
    for (n, line) in text.split(|&byte| byte == b'\n').enumerate() {
        let (line, number) = (line.trim_ascii(), n + 1);
        // DOS marks the end of a text file with ^Z.
        if line.iter().all(|&byte| matches!(byte, 0 | 0x1A)) {
            continue;
        }
        if ended {
            return Err(HexDefect::AfterEnd(number));
        }
        let damaged = |why: String| HexDefect::Line { line: number, why };
        let text = std::str::from_utf8(line).map_err(|_| damaged("it is not text".to_owned()))?;
        match Record::from_record_string(text).map_err(|error| damaged(describe(error)))? {
            Record::Data { offset, value } => {
                let address = base.checked_add(offset.into()).ok_or(HexDefect::Address(number))?;
                append(&mut segments, address, value);
            }
            Record::ExtendedLinearAddress(high) => base = u32::from(high) << 16,
            Record::ExtendedSegmentAddress(segment) => base = u32::from(segment) << 4,
            Record::EndOfFile => ended = true,
            // The start address is not needed, because the vector table contains it.
            Record::StartLinearAddress(_) | Record::StartSegmentAddress { .. } => {}
        }
    }
    match segments.len() {
        _ if !ended => Err(HexDefect::NoEnd),
        parts if parts > PARTS_MAX => Err(HexDefect::Scattered(parts)),
        _ => Ok(segments),
    }
}

fn describe(error: ReaderError) -> String {
    match error {
        ReaderError::ChecksumMismatch(right, found) => {
            format!("its checksum is {found:02X}, but its bytes give {right:02X}")
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
