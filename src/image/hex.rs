//! Intel HEX: lines of addresses and bytes, each with its checksum.

use ihex::Record;
use thiserror::Error;

use crate::flash::{Address, Segment};

/// What is wrong with a HEX file.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Defect {
    /// A line is not sound.
    #[error("line {line} is damaged: {why}")]
    Line {
        /// Counted from 1.
        line: usize,
        /// In the words of the reader.
        why: String,
    },
    /// It is cut off.
    #[error("its last line is not that of a complete file")]
    NoEnd,
    /// Something follows the end.
    #[error("line {0} follows the end of the file")]
    AfterEnd(usize),
    /// Addresses run past the 32-bit space.
    #[error("line {0} runs out of the address space")]
    Address(usize),
}

/// Whether this starts as a HEX file: a colon and the digits of the shortest record.
pub(super) fn looks_like(file: &[u8]) -> bool {
    let text = file.trim_ascii_start();
    text.first() == Some(&b':')
        && text.get(1..11).is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
}

/// Reads a HEX file: one segment for each run of lines that follow one another.
pub(super) fn parse(file: &[u8]) -> Result<Vec<Segment>, Defect> {
    let mut segments: Vec<Segment> = Vec::new();
    let mut base = 0_u32;
    let mut ended = false;
    for (n, line) in file.split(|&byte| byte == b'\n').enumerate() {
        let (line, at) = (line.trim_ascii(), n + 1);
        if line.is_empty() {
            continue;
        }
        if ended {
            return Err(Defect::AfterEnd(at));
        }
        let damaged = |why: String| Defect::Line { line: at, why };
        let text = std::str::from_utf8(line).map_err(|_| damaged("it is not text".to_owned()))?;
        match Record::from_record_string(text).map_err(|error| damaged(error.to_string()))? {
            Record::Data { offset, value } => {
                let address = base.checked_add(offset.into()).ok_or(Defect::Address(at))?;
                append(&mut segments, address, value);
            }
            Record::ExtendedLinearAddress(high) => base = u32::from(high) << 16,
            Record::ExtendedSegmentAddress(segment) => base = u32::from(segment) << 4,
            Record::EndOfFile => ended = true,
            // Where a program starts: the vector table says that.
            Record::StartLinearAddress(_) | Record::StartSegmentAddress { .. } => {}
        }
    }
    if ended { Ok(segments) } else { Err(Defect::NoEnd) }
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
