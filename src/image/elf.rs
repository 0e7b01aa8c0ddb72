//! ELF: what the linker made, before it was turned into a `.bin`. The bytes go where the program headers load
//! them (physical addresses), as `objcopy -O binary` takes them.

use object::LittleEndian;
use object::elf::{EM_ARM, ET_EXEC, FileHeader32, PT_LOAD, SHF_ALLOC, SHT_NOBITS};
use object::read::elf::{FileHeader, ProgramHeader, SectionHeader};
use thiserror::Error;

use crate::flash::{Address, Segment};

/// What an ELF file starts with.
pub(super) const SIGNATURE: &[u8] = b"\x7fELF";

/// A firmware has three program headers and about twenty sections.
const HEADERS_MAX: usize = 1000;

/// What is wrong with an ELF file.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Defect {
    /// It contradicts itself, or is cut off.
    #[error("it is damaged: {0}")]
    Damaged(String),
    /// For another processor, or not linked.
    #[error("it is not a linked program for a 32-bit ARM chip")]
    NotForArm,
    /// More than the chip has flash.
    #[error("it holds more than the Crazyflie's flash")]
    TooLarge,
    /// Nothing to load.
    #[error("it holds nothing to flash")]
    Nothing,
}

impl From<object::Error> for Defect {
    fn from(error: object::Error) -> Defect {
        Defect::Damaged(error.to_string())
    }
}

/// Reads an ELF file: the bytes of its sections, at the addresses that they are loaded to.
///
/// A segment may begin with the file's own headers, for the linker aligns it by pages: only what the sections
/// hold is program. And all that they hold is: one that is not wholly in a segment is missing from the file.
pub(super) fn parse(file: &[u8], most: u64) -> Result<Vec<Segment>, Defect> {
    let header = FileHeader32::<LittleEndian>::parse(file).map_err(|_| Defect::NotForArm)?;
    let endian = header.endian().map_err(|_| Defect::NotForArm)?;
    if header.e_machine(endian) != EM_ARM || header.e_type(endian) != ET_EXEC {
        return Err(Defect::NotForArm);
    }
    let loads = header.program_headers(endian, file)?;
    let sections = header.section_headers(endian, file)?;
    if loads.len() > HEADERS_MAX || sections.len() > HEADERS_MAX {
        return Err(Defect::Damaged("it has far too many headers".to_owned()));
    }
    let mut loads: Vec<Load<'_>> = loads
        .iter()
        .filter(|load| load.p_type(endian) == PT_LOAD)
        .map(|load| {
            let data =
                load.data(endian, file).map_err(|()| Defect::Damaged("a segment is cut off".to_owned()))?;
            let (offset, address) = (load.p_offset(endian), load.p_paddr(endian));
            Ok(Load { offset, address, runs_at: load.p_vaddr(endian), data, used: Vec::new() })
        })
        .collect::<Result<_, Defect>>()?;
    let loaded = sections.iter().filter(|section| {
        let kind = section.sh_type(endian);
        section.sh_flags(endian).contains(SHF_ALLOC) && kind != SHT_NOBITS && section.sh_size(endian) > 0
    });
    let mut segments = Vec::new();
    let mut bytes = 0;
    for section in loaded {
        let (offset, len, runs_at) =
            (section.sh_offset(endian), section.sh_size(endian), section.sh_addr(endian));
        let segment = loads.iter_mut().find_map(|load| load.take(offset, len, runs_at));
        let segment = segment.ok_or_else(|| Defect::Damaged("a section is in no segment".to_owned()))?;
        bytes += segment.data.len() as u64;
        segments.push(segment);
        if bytes > most {
            return Err(Defect::TooLarge);
        }
    }
    if sections.is_empty() {
        bytes = loads.iter().map(|load| load.data.len() as u64).sum();
        if bytes > most {
            return Err(Defect::TooLarge);
        }
        segments.extend(loads.iter().filter(|load| !load.data.is_empty()).map(Load::whole));
    } else if loads.iter().any(Load::has_more) {
        return Err(Defect::Damaged("a segment holds bytes of no section".to_owned()));
    }
    if bytes == 0 { Err(Defect::Nothing) } else { Ok(segments) }
}

/// A segment of the file with the address that it is loaded to.
struct Load<'a> {
    offset: u32,
    address: u32,
    runs_at: u32,
    data: &'a [u8],
    /// What its sections hold of it: from and to.
    used: Vec<(usize, usize)>,
}

impl Load<'_> {
    /// The section of `len` bytes at `offset` in the file, if it is wholly in here and in its place.
    fn take(&mut self, offset: u32, len: u32, runs_at: u32) -> Option<Segment> {
        let from = offset.checked_sub(self.offset)?;
        let data = self.data.get(from as usize..)?.get(..len as usize)?;
        let address = Address(self.address.checked_add(from)?);
        if self.runs_at.checked_add(from) != Some(runs_at) {
            return None;
        }
        self.used.push((from as usize, from as usize + data.len()));
        Some(Segment { address, data: data.to_vec() })
    }

    fn whole(&self) -> Segment {
        Segment { address: Address(self.address), data: self.data.to_vec() }
    }

    /// Whether something other than fill stands between and behind its sections. Before the first there may be
    /// the file's own headers.
    fn has_more(&self) -> bool {
        let mut used = self.used.clone();
        used.sort_unstable();
        let Some(&(_, mut at)) = used.first() else {
            return self.offset > 0 && self.data.iter().any(|&byte| byte != 0);
        };
        for &(from, to) in &used {
            if self.data.get(at..from).is_some_and(|gap| gap.iter().any(|&byte| byte != 0)) {
                return true;
            }
            at = at.max(to);
        }
        self.data[at..].iter().any(|&byte| byte != 0)
    }
}
