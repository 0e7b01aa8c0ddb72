//! The basic types for flash memory: addresses, spans, segments and sectors, shared by the image checks and the plan.
//!
//! [`map`] parses the sector layout that a device reports.

use std::fmt;

pub mod map;

/// The start of the Bitcraze bootloader: sector 0, 16 KiB.
pub const LOADER_BASE: Address = Address(0x0800_0000);
/// The start of the Crazyflie firmware: sector 1 (crazyflie-firmware, `DEF_CLOAD.ld`).
pub const FIRMWARE_BASE: Address = Address(0x0800_4000);
/// One past the last byte of the STM32F405's 1 MiB of flash.
pub const FLASH_END: u64 = 0x0810_0000;
/// The largest firmware that fits after the bootloader, in bytes (1008 KiB).
pub(crate) const FIRMWARE_MAX: usize = 1_032_192;
/// The size of sector 0, and therefore of the largest possible bootloader, in bytes.
pub(crate) const LOADER_MAX: usize = 16 * 1024;

/// The value of an erased byte.
pub(crate) const BLANK: u8 = 0xFF;

/// Whether all of these bytes read as erased flash.
pub fn is_blank(bytes: &[u8]) -> bool {
    bytes.iter().all(|&byte| byte == BLANK)
}

/// A byte address in the chip's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address(pub u32);

impl Address {
    /// Returns the address as 64 bits, so that adding a length cannot overflow.
    pub fn wide(self) -> u64 {
        u64::from(self.0)
    }

    /// Returns the address plus `bytes`; `None` if the result exceeds the 32-bit address space.
    pub(crate) fn checked_add(self, bytes: u32) -> Option<Address> {
        self.0.checked_add(bytes).map(Address)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "0x{:08X}", self.0)
    }
}

/// A contiguous range of the chip's memory. A span is never empty and never exceeds the 32-bit address space, because
/// [`Span::new`] rejects such ranges.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span {
    start: Address,
    len: u32,
}

impl Span {
    /// Creates a span of `len` bytes from `start`. Returns `None` if `len` is 0 or the range exceeds the 32-bit address
    /// space.
    pub fn new(start: Address, len: u32) -> Option<Span> {
        (len > 0 && start.wide() + u64::from(len) <= 1 << 32).then_some(Span { start, len })
    }

    /// Creates a span from `start` up to but not including `end`. Returns `None` if the range is empty or exceeds the
    /// 32-bit address space.
    pub fn between(start: Address, end: u64) -> Option<Span> {
        let len = u32::try_from(end.checked_sub(start.wide())?).ok()?;
        Span::new(start, len)
    }

    pub(crate) fn start(self) -> Address {
        self.start
    }

    /// Returns the length in bytes, which is at least one.
    #[allow(clippy::len_without_is_empty, reason = "a span is never empty")]
    pub(crate) fn len(self) -> u32 {
        self.len
    }

    /// Returns the length in bytes as a `usize`, for the size of a slice.
    pub(crate) fn size(self) -> usize {
        self.len as usize
    }

    /// Returns the address one past the last byte.
    pub(crate) fn end(self) -> u64 {
        self.start.wide() + u64::from(self.len)
    }

    pub(crate) fn contains(self, address: Address) -> bool {
        address >= self.start && address.wide() < self.end()
    }

    /// Whether the span contains all of `other`.
    pub(crate) fn covers(self, other: Span) -> bool {
        other.start >= self.start && other.end() <= self.end()
    }

    /// Returns the bytes that both spans share; `None` if the spans do not overlap.
    pub(crate) fn intersection(self, other: Span) -> Option<Span> {
        Span::between(self.start.max(other.start), self.end().min(other.end()))
    }

    /// Splits the span at every multiple of `size` bytes. No block crosses a sector boundary if all sector boundaries
    /// are multiples of `size`.
    pub(crate) fn blocks(self, size: u32) -> impl Iterator<Item = Span> {
        let size = u64::from(size.max(1));
        let mut at = self.start.wide();
        std::iter::from_fn(move || {
            let end = ((at / size + 1) * size).min(self.end());
            let block = Span::between(Address(u32::try_from(at).ok()?), end)?;
            at = end;
            Some(block)
        })
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} … 0x{:08X}", self.start, self.end() - 1)
    }
}

/// A sequence of bytes and its address in flash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// The address of the first byte.
    pub address: Address,
    pub data: Vec<u8>,
}

impl Segment {
    /// Returns the address one past the last byte.
    pub fn end(&self) -> u64 {
        self.address.wide() + self.data.len() as u64
    }
}

/// The operations that the device's memory map allows on a sector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access {
    /// The host may read the sector (bit 0 of the type letter).
    pub readable: bool,
    /// The host may erase the sector (bit 1).
    pub erasable: bool,
    /// The host may write the sector (bit 2).
    pub writable: bool,
}

/// A sector: the smallest unit of flash that can be erased, as described by the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sector {
    /// The position in the memory map, counted from 0.
    pub index: usize,
    pub span: Span,
    pub access: Access,
}

impl fmt::Display for Sector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sector {} ({})", self.index, self.span.start())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_aligned_and_cover_the_span() {
        let span = Span::new(Address(0x0800_4004), 0x1000).unwrap();
        let blocks: Vec<_> = span.blocks(2048).map(|b| (b.start().0, b.len())).collect();
        assert_eq!(blocks, [(0x0800_4004, 2044), (0x0800_4800, 2048), (0x0800_5000, 4)]);
    }

    #[test]
    fn a_span_may_end_at_the_top_of_the_address_space_but_not_beyond_it() {
        assert!(Span::new(Address(0xFFFF_FFFC), 4).is_some());
        assert!(Span::new(Address(0xFFFF_FFFC), 5).is_none());
        assert!(Span::new(Address(0), 0).is_none());
        let top = Span::new(Address(0xFFFF_FFFC), 4).unwrap();
        assert_eq!(top.blocks(2048).count(), 1);
    }
}
