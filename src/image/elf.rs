//! ELF: what the linker made, before it was turned into a `.bin`. The bytes go where the program headers load
//! them (physical addresses), as `objcopy -O binary` takes them.

use object::LittleEndian;
use object::elf::{EM_ARM, ET_EXEC, FileHeader32, PT_LOAD, SHF_ALLOC, SHT_NOBITS};
use object::read::elf::{FileHeader, ProgramHeader, SectionHeader};
use thiserror::Error;

use crate::flash::{Address, Segment};

/// What an ELF file starts with.
pub(super) const SIGNATURE: &[u8] = b"\x7fELF";

/// What is wrong with an ELF file.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Defect {
    /// It contradicts itself, or is cut off.
    #[error("it is damaged: {0}")]
    Damaged(String),
    /// For another processor, or not linked.
    #[error("it is not a linked program for a 32-bit ARM chip")]
    NotForArm,
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
pub(super) fn parse(file: &[u8]) -> Result<Vec<Segment>, Defect> {
    let header = FileHeader32::<LittleEndian>::parse(file).map_err(|_| Defect::NotForArm)?;
    let endian = header.endian().map_err(|_| Defect::NotForArm)?;
    if header.e_machine(endian) != EM_ARM || header.e_type(endian) != ET_EXEC {
        return Err(Defect::NotForArm);
    }
    let sections = sections(header, file)?;
    let mut segments = Vec::new();
    for load in header.program_headers(endian, file)?.iter().filter(|load| load.p_type(endian) == PT_LOAD) {
        let data =
            load.data(endian, file).map_err(|()| Defect::Damaged("a segment is cut off".to_owned()))?;
        let (start, offset) = (load.p_paddr(endian), load.p_offset(endian));
        if sections.is_empty() && !data.is_empty() {
            segments.push(Segment { address: Address(start), data: data.to_vec() });
        }
        // A segment may begin with the file's own headers, for the linker aligns it by pages: only what the
        // sections in it hold is program.
        for &(at, len) in &sections {
            let Some(from) = at.checked_sub(offset).map(|from| from as usize) else { continue };
            let bytes = data.get(from..).and_then(|data| data.get(..len as usize));
            let address = start.checked_add(at - offset);
            if let (Some(bytes), Some(address)) = (bytes.filter(|bytes| !bytes.is_empty()), address) {
                segments.push(Segment { address: Address(address), data: bytes.to_vec() });
            }
        }
    }
    if segments.is_empty() { Err(Defect::Nothing) } else { Ok(segments) }
}

/// Offset and length in the file of every section that is loaded.
fn sections(header: &FileHeader32<LittleEndian>, file: &[u8]) -> Result<Vec<(u32, u32)>, Defect> {
    let endian = header.endian().unwrap_or_default();
    let sections = header.section_headers(endian, file)?.iter();
    let loaded = sections.filter(|section| {
        section.sh_flags(endian).contains(SHF_ALLOC) && section.sh_type(endian) != SHT_NOBITS
    });
    Ok(loaded.map(|section| (section.sh_offset(endian), section.sh_size(endian))).collect())
}
