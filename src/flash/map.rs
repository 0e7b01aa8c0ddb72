//! Parses the memory map that a DfuSe device reports as the name of an alternate setting:
//! `@Internal Flash  /0x08000000/04*016Kg,01*064Kg,07*128Kg` (UM0424 §4.3.2).
//!
//! The parser accepts the known deviations of real devices. It also limits every number, because the string comes from
//! the device and may be corrupt.

use thiserror::Error;

use super::{Access, Address, Sector, Span};

/// The maximum count or size in a map. No known device reports a number with more than three digits.
const MAX_FIELD: u32 = 999;
/// The sector sizes of an STM32F405 with 1 MiB of flash, in KiB (RM0090 table 5).
pub(crate) const SECTORS_KIB: [u16; 12] = [16, 16, 16, 16, 64, 128, 128, 128, 128, 128, 128, 128];
/// The maximum number of sectors. No known chip has that many.
const MAX_SECTORS: usize = 4096;

/// A named memory and its sectors, in ascending order and without overlaps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemoryMap {
    /// The text between `@` and the first `/`, without surrounding spaces.
    pub name: String,
    sectors: Vec<Sector>,
}

/// Why a string is not a memory map.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum MapError {
    /// The string has no leading `@`: it is an ordinary interface name, or the device supports only plain DFU.
    #[error("the name of the alternate setting is not a memory map")]
    NotAMap,
    /// A part of the string does not follow the grammar.
    #[error("the memory map contains {0:?}, which cannot be parsed")]
    Malformed(String),
    /// The map has more than `MAX_SECTORS` sectors, or a sector extends beyond the 32-bit address space.
    #[error("the memory map is larger than that of any known chip")]
    TooLarge,
    /// Two sectors contain the same address.
    #[error("the memory map lists {0} twice")]
    Overlap(Address),
}

impl MemoryMap {
    /// Parses the name of an alternate setting.
    ///
    /// Tolerates spaces around every part, several `/address/sectors` zones (STM32G4), a missing multiplier
    /// (`01*512g`), `B` or a space as the unit for bytes, and non-ASCII characters (some ROMs pad with 0xFF).
    pub fn parse(text: &str) -> Result<MemoryMap, MapError> {
        let ascii: String = text.chars().filter(|c| (' '..='~').contains(c)).collect();
        let body = ascii.trim().strip_prefix('@').ok_or(MapError::NotAMap)?;
        let mut parts = body.split('/');
        let name = parts.next().unwrap_or_default().trim().to_owned();

        let mut sectors = Vec::new();
        while let Some(address) = parts.next() {
            let layout = parts.next().ok_or_else(|| MapError::Malformed(address.to_owned()))?;
            parse_zone(parse_address(address)?, layout, &mut sectors)?;
        }
        if sectors.is_empty() {
            return Err(MapError::Malformed(body.to_owned()));
        }
        sectors.sort_by_key(|sector| sector.span.start());
        if let Some(pair) = sectors.windows(2).find(|pair| pair[0].span.end() > pair[1].span.start().wide()) {
            return Err(MapError::Overlap(pair[1].span.start()));
        }
        for (index, sector) in sectors.iter_mut().enumerate() {
            sector.index = index;
        }
        Ok(MemoryMap { name, sectors })
    }

    /// Returns the map of an STM32F405 with 1 MiB of flash, to check an image before a device is connected.
    pub fn stm32f405() -> MemoryMap {
        let access = Access { readable: true, erasable: true, writable: true };
        let mut start = 0x0800_0000;
        let sizes = SECTORS_KIB.map(|kib| u32::from(kib) * 1024);
        let sectors = sizes.iter().enumerate().filter_map(|(index, &len)| {
            let span = Span::new(Address(start), len)?;
            start += len;
            Some(Sector { index, span, access })
        });
        MemoryMap { name: "Internal Flash".to_owned(), sectors: sectors.collect() }
    }

    /// Returns all sectors, in ascending order.
    pub fn sectors(&self) -> &[Sector] {
        &self.sectors
    }

    /// Returns whether the sector bounds match an STM32F405 with 1 MiB of flash. The name is ignored.
    pub fn is_stm32f405(&self) -> bool {
        let spans = |map: &MemoryMap| map.sectors.iter().map(|s| s.span).collect::<Vec<_>>();
        spans(self) == spans(&MemoryMap::stm32f405())
    }

    /// Returns the sectors that share a byte with `span`.
    pub(crate) fn intersecting(&self, span: Span) -> impl Iterator<Item = &Sector> {
        self.sectors.iter().filter(move |sector| sector.span.intersection(span).is_some())
    }

    /// Returns whether the sectors cover every byte of `span`.
    pub(crate) fn covers(&self, span: Span) -> bool {
        let covered: u64 = self
            .intersecting(span)
            .filter_map(|sector| sector.span.intersection(span))
            .map(|part| u64::from(part.len()))
            .sum();
        covered == u64::from(span.len())
    }
}

fn parse_address(text: &str) -> Result<u32, MapError> {
    let malformed = || MapError::Malformed(text.to_owned());
    let digits = text.trim();
    let digits = digits.strip_prefix("0x").or_else(|| digits.strip_prefix("0X")).ok_or_else(malformed)?;
    u32::from_str_radix(digits, 16).map_err(|_| malformed())
}

fn parse_zone(start: u32, layout: &str, sectors: &mut Vec<Sector>) -> Result<(), MapError> {
    let mut next = u64::from(start);
    for group in layout.split(',').map(str::trim).filter(|group| !group.is_empty()) {
        let (count, len, access) = parse_group(group)?;
        for _ in 0..count {
            let start = u32::try_from(next).map_err(|_| MapError::TooLarge)?;
            let span = Span::new(Address(start), len).ok_or(MapError::TooLarge)?;
            next = span.end();
            if sectors.len() == MAX_SECTORS {
                return Err(MapError::TooLarge);
            }
            sectors.push(Sector { index: sectors.len(), span, access });
        }
    }
    Ok(())
}

/// Parses a group of sectors. `04*016Kg` means four sectors of 16 KiB that are readable, erasable and writable.
fn parse_group(group: &str) -> Result<(u32, u32, Access), MapError> {
    let malformed = || MapError::Malformed(group.to_owned());
    let (count, rest) = group.split_once('*').ok_or_else(malformed)?;
    let rest = rest.trim_start();
    let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(malformed)?;
    let (size, suffix) = rest.split_at(digits);

    let field = |text: &str| text.trim().parse::<u32>().ok().filter(|n| *n <= MAX_FIELD);
    let count = field(count).filter(|n| *n > 0).ok_or_else(malformed)?;
    let size = field(size).filter(|n| *n > 0).ok_or_else(malformed)?;

    let suffix: Vec<char> = suffix.chars().filter(|c| *c != ' ').collect();
    let (multiplier, letter) = match suffix[..] {
        [letter] | ['B', letter] => (1, letter),
        ['K', letter] => (1024, letter),
        ['M', letter] => (1024 * 1024, letter),
        _ => return Err(malformed()),
    };
    if !('a'..='g').contains(&letter) {
        return Err(malformed());
    }
    let bits = letter as u32;
    let access = Access { readable: bits & 1 != 0, erasable: bits & 2 != 0, writable: bits & 4 != 0 };
    Ok((count, size * multiplier, access))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The names of the four alternate settings of the STM32F405's ROM, exactly as `dfu-util -l` prints them.
    const F405: [&str; 4] = [
        "@Internal Flash  /0x08000000/04*016Kg,01*064Kg,07*128Kg",
        "@Option Bytes  /0x1FFFC000/01*016 e",
        "@OTP Memory /0x1FFF7800/01*512 e,01*016 e",
        "@Device Feature/0xFFFF0000/01*004 e",
    ];

    fn bounds(text: &str) -> Vec<(u32, u32)> {
        MemoryMap::parse(text).unwrap().sectors().iter().map(|s| (s.span.start().0, s.span.len())).collect()
    }

    #[test]
    fn the_f405_memory_maps_match_the_reference_manual() {
        let flash = MemoryMap::parse(F405[0]).unwrap();
        assert_eq!(flash.name, "Internal Flash");
        assert_eq!(flash, MemoryMap::stm32f405());
        assert!(flash.is_stm32f405());
        let starts: Vec<_> = flash.sectors().iter().map(|s| s.span.start().0 >> 12).collect();
        assert_eq!(
            starts,
            [0x8000, 0x8004, 0x8008, 0x800C, 0x8010, 0x8020, 0x8040, 0x8060, 0x8080, 0x80A0, 0x80C0, 0x80E0]
        );
        assert_eq!(bounds(F405[1]), [(0x1FFF_C000, 16)]);
        assert_eq!(bounds(F405[2]), [(0x1FFF_7800, 512), (0x1FFF_7A00, 16)]);
        assert_eq!(bounds(F405[3]), [(0xFFFF_0000, 4)]);
    }

    #[test]
    fn a_type_letter_encodes_three_access_bits() {
        let access = |letter: char| {
            let access = MemoryMap::parse(&format!("@X/0x0/1*4{letter}")).unwrap().sectors()[0].access;
            (access.readable, access.erasable, access.writable)
        };
        assert_eq!(access('a'), (true, false, false));
        assert_eq!(access('b'), (false, true, false));
        assert_eq!(access('e'), (true, false, true));
        assert_eq!(access('f'), (false, true, true));
        assert_eq!(access('g'), (true, true, true));
    }

    #[test]
    fn known_deviations_of_real_devices_are_accepted() {
        // Two zones (STM32G4), a missing multiplier (AT32), 0xFF padding, `B` for bytes and spaces around the parts.
        assert_eq!(
            bounds("@Option Bytes   /0x1FFF7800/01*048 e/0x1FFFF800/01*048 e"),
            [(0x1FFF_7800, 48), (0x1FFF_F800, 48)]
        );
        assert_eq!(bounds("@Option byte /0x1FFFC000/01*512g"), [(0x1FFF_C000, 512)]);
        assert_eq!(bounds("@Flash/0x08000000/16*1Ka,48*1Kg\u{ff}\u{ff}").len(), 64);
        assert_eq!(bounds("@Flash /0x08000000/2*4Bg , 1 * 1Mg")[2], (0x0800_0008, 1024 * 1024));
    }

    #[test]
    fn malformed_maps_are_rejected_with_a_reason() {
        let error = |text: &str| MemoryMap::parse(text).unwrap_err();
        assert_eq!(error("STM32 BOOTLOADER"), MapError::NotAMap);
        assert_eq!(error(""), MapError::NotAMap);
        for text in [
            "@",
            "@Flash",
            "@Flash/0x08000000",
            "@Flash/08000000/1*1Kg",
            "@Flash/0x08000000/1*1K",
            "@Flash/0x08000000/0*1Kg",
            "@Flash/0x08000000/1*0Kg",
            "@Flash/0x08000000/1000*1Kg",
            "@Flash/0x08000000/1*1Xg",
            "@Flash/0x08000000/1*1K7",
            "@Flash/0x108000000/1*1Kg",
        ] {
            assert!(matches!(error(text), MapError::Malformed(_)), "{text}");
        }
        assert_eq!(error("@F/0xFFFFFF00/2*128 g,1*1Kg"), MapError::TooLarge);
        assert_eq!(error("@F/0x0/999*1Bg,999*1Bg,999*1Bg,999*1Bg,999*1Bg"), MapError::TooLarge);
        assert_eq!(error("@F/0x0/2*1Kg/0x400/1*1Kg"), MapError::Overlap(Address(0x400)));
    }
}
