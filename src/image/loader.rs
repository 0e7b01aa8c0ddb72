//! Classifies the content of the bootloader's sector.

use super::Content;
use crate::flash::{Address, LOADER_BASE, LOADER_MAX, Span, is_blank};

/// The content of the bootloader's sector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loader {
    Bitcraze,
    /// Crazyflie firmware that was flashed over the bootloader.
    Overwritten,
    Erased,
    /// Any other program: the bootloader of PX4 or Betaflight, or an incomplete Bitcraze bootloader.
    Other,
}

impl Loader {
    /// Returns whether the Bitcraze bootloader is missing. Without it, firmware at 0x08004000 does not start when the
    /// drone is switched on, and cannot be updated over radio.
    pub(crate) fn is_missing(self) -> bool {
        self != Loader::Bitcraze
    }

    /// Classifies the bytes from 0x08000000 onwards. The first eight bytes are enough to tell the kinds apart, but
    /// only the whole sector reveals an incomplete bootloader.
    pub fn of(sector: &[u8]) -> Loader {
        let word = |at: usize| {
            let bytes = sector.get(at..at + 4)?;
            Some(u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
        };
        let starts_in_sector = |reset: u32| {
            Span::between(LOADER_BASE, LOADER_BASE.wide() + LOADER_MAX as u64)
                .is_some_and(|span| span.contains(Address(reset & !1)))
        };
        match (word(0), word(4)) {
            (Some(0x2000_5000), Some(reset)) if starts_in_sector(reset) => {
                let is_bitcraze = sector.len() < LOADER_MAX || Content::of(sector) == Content::Bootloader;
                if is_bitcraze { Loader::Bitcraze } else { Loader::Other }
            }
            (Some(0x2001_FFFF), _) => Loader::Overwritten,
            _ if is_blank(sector) => Loader::Erased,
            _ => Loader::Other,
        }
    }

    /// Returns the value in the output of `identify --json`.
    pub(crate) fn json_name(self) -> &'static str {
        match self {
            Loader::Bitcraze => "bitcraze",
            Loader::Overwritten => "overwritten",
            Loader::Erased => "erased",
            Loader::Other => "other",
        }
    }

    /// Returns the sector's content as a noun phrase.
    pub(crate) fn noun_phrase(self) -> &'static str {
        match self {
            Loader::Bitcraze => "the Bitcraze bootloader",
            Loader::Overwritten => "Crazyflie firmware",
            Loader::Erased => "nothing",
            Loader::Other => "another program",
        }
    }

    pub(crate) fn describe(self) -> &'static str {
        match self {
            Loader::Bitcraze => "the Bitcraze bootloader",
            Loader::Overwritten => "overwritten by firmware",
            Loader::Erased => "erased",
            Loader::Other => "not Bitcraze's (PX4, Betaflight, or damaged)",
        }
    }
}
