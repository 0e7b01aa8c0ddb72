//! ELF files, the output of the linker. The bytes are placed at the physical addresses of the program headers, as
//! `objcopy -O binary` does.

use object::LittleEndian;
use object::elf::{EM_ARM, ET_EXEC, FileHeader32, PT_LOAD, SHF_ALLOC, SHT_NOBITS};
use object::read::elf::{FileHeader, ProgramHeader, SectionHeader};
use thiserror::Error;

use crate::flash::{Address, Segment};

/// The first bytes of an ELF file.
pub(super) const SIGNATURE: &[u8] = b"\x7fELF";

/// The maximum number of program headers, and of sections. Crazyflie firmware has three program headers and about
/// twenty sections.
const HEADERS_MAX: usize = 1000;

/// The page size, in bytes, to which the linker aligns segments.
const PAGE: u64 = 64 * 1024;

/// A defect in an ELF file.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ElfDefect {
    /// The file contradicts itself or is truncated.
    #[error("it is damaged: {0}")]
    Damaged(String),
    /// The program is for another processor, or it is not linked.
    #[error("it is not a linked program for a 32-bit ARM chip")]
    NotForArm,
    #[error("it contains more than fits in the Crazyflie's flash")]
    TooLarge,
    #[error("it contains nothing to flash")]
    Nothing,
}

impl From<object::Error> for ElfDefect {
    fn from(error: object::Error) -> ElfDefect {
        ElfDefect::Damaged(error.to_string())
    }
}

/// Parses an ELF file. Each returned segment is the part of a loaded segment that sections cover, or the whole segment
/// if the file has no sections.
///
/// Because the linker aligns segments to pages, a segment may begin with the headers of the file; only the sections
/// belong to the program. If a section is not entirely inside a segment, part of the program is missing.
pub(super) fn parse(file: &[u8], max: u64) -> Result<Vec<Segment>, ElfDefect> {
    let header = FileHeader32::<LittleEndian>::parse(file).map_err(|_| ElfDefect::NotForArm)?;
    let endian = header.endian().map_err(|_| ElfDefect::NotForArm)?;
    if header.e_machine(endian) != EM_ARM || header.e_type(endian) != ET_EXEC {
        return Err(ElfDefect::NotForArm);
    }
    let loads = header.program_headers(endian, file)?;
    let sections = header.section_headers(endian, file)?;
    if loads.len() > HEADERS_MAX || sections.len() > HEADERS_MAX {
        return Err(ElfDefect::Damaged("it has too many headers".to_owned()));
    }
    let mut loads: Vec<Load<'_>> = loads
        .iter()
        .filter(|load| load.p_type(endian) == PT_LOAD)
        .map(|load| {
            let data = load
                .data(endian, file)
                .map_err(|()| ElfDefect::Damaged("a segment is cut off".to_owned()))?;
            let (offset, address) = (load.p_offset(endian), load.p_paddr(endian));
            Ok(Load { offset, address, runs_at: load.p_vaddr(endian), data, used: Vec::new() })
        })
        .collect::<Result<_, ElfDefect>>()?;
    // Up to a page of headers may precede the first section. A file that loads more than `max` bytes plus this page is
    // not an image, even if its segments overlap.
    if loads.iter().map(|load| load.data.len() as u64).sum::<u64>() > max + PAGE {
        return Err(ElfDefect::TooLarge);
    }
    let loaded = sections.iter().filter(|section| {
        let kind = section.sh_type(endian);
        section.sh_flags(endian).contains(SHF_ALLOC) && kind != SHT_NOBITS && section.sh_size(endian) > 0
    });
    for section in loaded {
        let (offset, len, runs_at) =
            (section.sh_offset(endian), section.sh_size(endian), section.sh_addr(endian));
        if !loads.iter_mut().any(|load| load.add_section(offset, len, runs_at)) {
            return Err(ElfDefect::Damaged("a section is not inside any segment".to_owned()));
        }
    }
    if sections.is_empty() {
        loads
            .iter_mut()
            .filter(|load| !load.data.is_empty())
            .for_each(|load| load.used.push((0, load.data.len())));
    } else if loads.iter().any(Load::has_bytes_outside_sections) {
        return Err(ElfDefect::Damaged("a segment holds bytes outside its sections".to_owned()));
    }
    let bytes: u64 = loads.iter().filter_map(Load::program).map(|(from, to)| (to - from) as u64).sum();
    match bytes {
        0 => Err(ElfDefect::Nothing),
        bytes if bytes > max => Err(ElfDefect::TooLarge),
        _ => {
            let used = loads.iter().filter(|load| load.program().is_some());
            let beyond = || ElfDefect::Damaged("a segment exceeds the 32-bit address space".to_owned());
            used.map(|load| load.segment().ok_or_else(beyond)).collect()
        }
    }
}

/// A segment that is loaded into memory.
struct Load<'a> {
    offset: u32,
    address: u32,
    runs_at: u32,
    data: &'a [u8],
    /// The start and the end of each part that a section covers.
    used: Vec<(usize, usize)>,
}

impl Load<'_> {
    /// Records the section of `len` bytes at `offset` in the file. Returns `false` if the section is not entirely
    /// inside this segment, or is not at the right address.
    fn add_section(&mut self, offset: u32, len: u32, runs_at: u32) -> bool {
        let Some(from) = offset.checked_sub(self.offset) else { return false };
        let to = from as usize + len as usize;
        let fits = to <= self.data.len() && self.runs_at.checked_add(from) == Some(runs_at);
        if fits {
            self.used.push((from as usize, to));
        }
        fits
    }

    /// Returns the range from the first section to the last, including the fill bytes between them, as in the output of
    /// `objcopy`.
    fn program(&self) -> Option<(usize, usize)> {
        let from = self.used.iter().map(|(from, _)| *from).min()?;
        Some((from, self.used.iter().map(|(_, to)| *to).max()?))
    }

    fn segment(&self) -> Option<Segment> {
        let (from, to) = self.program()?;
        let address = Address(self.address.checked_add(u32::try_from(from).ok()?)?);
        Some(Segment { address, data: self.data.get(from..to)?.to_vec() })
    }

    /// Returns whether the segment has bytes other than zero between or after its sections or, if it has no sections,
    /// anywhere. Bytes before the first section, or at the start of the file, may be the headers of the file.
    fn has_bytes_outside_sections(&self) -> bool {
        let mut used = self.used.clone();
        used.sort_unstable();
        let Some(&(_, mut end)) = used.first() else {
            return self.offset > 0 && self.data.iter().any(|&byte| byte != 0);
        };
        for &(from, to) in &used {
            if self.data.get(end..from).is_some_and(|gap| gap.iter().any(|&byte| byte != 0)) {
                return true;
            }
            end = end.max(to);
        }
        self.data[end..].iter().any(|&byte| byte != 0)
    }
}
