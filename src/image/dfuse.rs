//! DFU files: the DfuSe container (ST UM0391), and the 16-byte suffix of DFU 1.1 (appendix B), which ends every DfuSe
//! file and some `.bin` files.
//!
//! The lengths in the file are checked against each other. An inconsistent file is refused, because none of it can be
//! trusted; dfu-util only warns and flashes the rest. The size in the prefix is an exception, because tools disagree on
//! its meaning: a wrong size only adds a note.

use thiserror::Error;

use crate::flash::{Address, Segment};

/// The first bytes of a DfuSe file.
pub(super) const SIGNATURE: &[u8] = b"DfuSe";
/// Length of the prefix in bytes: signature, version, image size and number of targets.
const PREFIX: usize = 11;
/// Length of a target's name in bytes.
const TARGET_NAME: usize = 255;
/// Length of the shortest suffix in bytes. A suffix contains its own length, so later versions may be longer.
const SUFFIX_MIN: usize = 16;
/// The maximum number of elements in an image. No real image has more.
const ELEMENTS_MAX: u32 = 10_000;
/// The value of bcdDFU in the suffix of a DfuSe file.
const DFUSE_VERSION: u16 = 0x011A;

/// A defect in a DFU file.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum DfuSeDefect {
    #[error("it ends in the middle of {0}")]
    Short(&'static str),
    #[error("version {0} of the DfuSe format is not supported")]
    Version(u8),
    #[error("its checksum is 0x{stored:08X}, but its bytes give 0x{computed:08X}: it is damaged")]
    Checksum { stored: u32, computed: u32 },
    /// Every DfuSe file must have a suffix.
    #[error("the DFU suffix at its end is missing")]
    NoSuffix,
    #[error("its DFU suffix claims a length of {0} bytes")]
    SuffixLength(u8),
    /// The version of the suffix belongs to a different kind of file.
    #[error("its DFU suffix has version 0x{0:04X}, which is not valid here")]
    SuffixVersion(u16),
    #[error("it contains no target")]
    NoTargets,
    #[error("target {0} has no valid signature")]
    NoTarget(usize),
    /// The target has no elements, or more than any real image has.
    #[error("target {target} claims to have {count} elements")]
    Elements {
        /// Counted from 1.
        target: usize,
        count: u32,
    },
    #[error("target {target} is for alternate setting {alternate}, which is not the flash")]
    Alternate {
        /// Counted from 1.
        target: usize,
        alternate: u8,
    },
    #[error("the element for {0} is empty")]
    EmptyElement(Address),
    #[error("target {target} claims to have {claimed} bytes, but its elements have {found}")]
    TargetSize {
        /// Counted from 1.
        target: usize,
        claimed: u32,
        found: usize,
    },
    #[error("{0} bytes follow its last target")]
    Leftover(usize),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Suffix {
    /// Length in bytes.
    pub(super) len: usize,
    /// Vendor and product ID of the device that the file is made for; 0xFFFF means any ID.
    pub(super) target_device: (u16, u16),
    version: u16,
}

/// The content of a DfuSe file.
pub(super) struct DfuSe {
    pub(super) segments: Vec<Segment>,
    pub(super) target_device: (u16, u16),
    /// Whether the size in the prefix is a value that no known tool writes.
    pub(super) odd_size: bool,
}

/// Parses the suffix at the end of `file`. Returns `None` if the file has no suffix. A suffix signature with a wrong
/// checksum is an error: the file is damaged, not raw.
pub(super) fn parse_suffix(file: &[u8]) -> Result<Option<Suffix>, DfuSeDefect> {
    let Some((rest, tail)) = file.split_last_chunk::<SUFFIX_MIN>() else { return Ok(None) };
    // From the end: CRC (4), length (1), "UFD" (3), bcdDFU, vendor, product, bcdDevice (2 each).
    let [_, _, p0, p1, v0, v1, d0, d1, b'U', b'F', b'D', len, c0, c1, c2, c3] = *tail else {
        return Ok(None);
    };
    if usize::from(len) < SUFFIX_MIN || usize::from(len) > rest.len() + SUFFIX_MIN {
        return Err(DfuSeDefect::SuffixLength(len));
    }
    let stored = u32::from_le_bytes([c0, c1, c2, c3]);
    // The CRC of DFU 1.1 omits the final inversion.
    let computed = !crc32fast::hash(&file[..file.len() - 4]);
    if stored != computed {
        return Err(DfuSeDefect::Checksum { stored, computed });
    }
    let (vendor, product) = (u16::from_le_bytes([v0, v1]), u16::from_le_bytes([p0, p1]));
    Ok(Some(Suffix {
        len: len.into(),
        target_device: (vendor, product),
        version: u16::from_le_bytes([d0, d1]),
    }))
}

/// Splits a plain DFU suffix off the end of `file`. Returns `None` if the file has no suffix.
pub(super) fn without_suffix(file: &[u8]) -> Result<Option<(&[u8], Suffix)>, DfuSeDefect> {
    let Some(suffix) = parse_suffix(file)? else { return Ok(None) };
    if ![0x0100, 0x0110].contains(&suffix.version) {
        return Err(DfuSeDefect::SuffixVersion(suffix.version));
    }
    Ok(Some((&file[..file.len() - suffix.len], suffix)))
}

/// Parses a DfuSe file. The segments are the elements of all targets, in the order of the file.
pub(super) fn parse(file: &[u8]) -> Result<DfuSe, DfuSeDefect> {
    let suffix = parse_suffix(file)?.ok_or(DfuSeDefect::NoSuffix)?;
    if suffix.version != DFUSE_VERSION {
        return Err(DfuSeDefect::SuffixVersion(suffix.version));
    }
    let mut rest = Reader(&file[..file.len() - suffix.len]);
    let prefix = rest.take(PREFIX, "the prefix")?;
    let (version, size, targets) = (prefix[5], &prefix[6..10], prefix[10]);
    if version != 1 {
        return Err(DfuSeDefect::Version(version));
    }
    if targets == 0 {
        return Err(DfuSeDefect::NoTargets);
    }
    let mut segments = Vec::new();
    for target in 1..=usize::from(targets) {
        read_target(&mut rest, target, &mut segments)?;
        if segments.len() > ELEMENTS_MAX as usize {
            return Err(DfuSeDefect::Elements {
                target,
                count: u32::try_from(segments.len()).unwrap_or(u32::MAX),
            });
        }
    }
    if !rest.0.is_empty() {
        return Err(DfuSeDefect::Leftover(rest.0.len()));
    }
    let size = u32::from_le_bytes([size[0], size[1], size[2], size[3]]) as usize;
    // According to UM0391, the size excludes the suffix. dfuse-pack.py includes the suffix, and some tools write 0.
    let odd_size = ![0, file.len(), file.len() - suffix.len].contains(&size);
    Ok(DfuSe { segments, target_device: suffix.target_device, odd_size })
}

fn read_target(rest: &mut Reader<'_>, target: usize, segments: &mut Vec<Segment>) -> Result<(), DfuSeDefect> {
    if rest.take(6, "a target")? != b"Target" {
        return Err(DfuSeDefect::NoTarget(target));
    }
    let alternate = rest.take(1, "a target")?[0];
    rest.take(4 + TARGET_NAME, "a target's name")?;
    let (claimed, count) = (rest.read_u32("a target")?, rest.read_u32("a target")?);
    if count == 0 || count > ELEMENTS_MAX {
        return Err(DfuSeDefect::Elements { target, count });
    }
    if alternate != 0 {
        return Err(DfuSeDefect::Alternate { target, alternate });
    }
    let before = rest.0.len();
    for _ in 0..count {
        let (address, len) = (Address(rest.read_u32("an element")?), rest.read_u32("an element")?);
        if len == 0 {
            return Err(DfuSeDefect::EmptyElement(address));
        }
        segments.push(Segment { address, data: rest.take(len as usize, "an element")?.to_vec() });
    }
    let found = before - rest.0.len();
    if claimed as usize == found { Ok(()) } else { Err(DfuSeDefect::TargetSize { target, claimed, found }) }
}

/// The unread rest of the file.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, len: usize, part: &'static str) -> Result<&'a [u8], DfuSeDefect> {
        let (taken, rest) = self.0.split_at_checked(len).ok_or(DfuSeDefect::Short(part))?;
        self.0 = rest;
        Ok(taken)
    }

    fn read_u32(&mut self, part: &'static str) -> Result<u32, DfuSeDefect> {
        let bytes = self.take(4, part)?;
        Ok(u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
    }
}
