//! What stands where the bootloader belongs, by its bytes.

use super::Content;
use crate::flash::{Address, LOADER_BASE, LOADER_MAX, Span, is_blank};

/// What stands where the bootloader belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loader {
    Bitcraze,
    /// A Crazyflie firmware that was flashed over it.
    Overwritten,
    Erased,
    /// Something else: PX4's or Betaflight's, or half a bootloader.
    Other,
}

impl Loader {
    /// Whether what the drone starts with, and is updated over radio by, is not there.
    pub(crate) fn is_gone(self) -> bool {
        self != Loader::Bitcraze
    }

    /// What these bytes from 0x08000000 on are: at least the first eight, which suffice for a glance, or the
    /// whole sector for certainty.
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
                let whole = sector.len() < LOADER_MAX || Content::of(sector) == Content::Bootloader;
                if whole { Loader::Bitcraze } else { Loader::Other }
            }
            (Some(0x2001_FFFF), _) => Loader::Overwritten,
            _ if is_blank(sector) => Loader::Erased,
            _ => Loader::Other,
        }
    }

    /// The word that `identify --json` prints.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Loader::Bitcraze => "bitcraze",
            Loader::Overwritten => "overwritten",
            Loader::Erased => "erased",
            Loader::Other => "other",
        }
    }

    /// What is in its place.
    pub(crate) fn instead(self) -> &'static str {
        match self {
            Loader::Bitcraze => "the Bitcraze bootloader",
            Loader::Overwritten => "a Crazyflie firmware",
            Loader::Erased => "nothing",
            Loader::Other => "another program",
        }
    }

    pub(crate) fn describe(self) -> &'static str {
        match self {
            Loader::Bitcraze => "the Bitcraze bootloader",
            Loader::Overwritten => "overwritten by a firmware",
            Loader::Erased => "erased",
            Loader::Other => "not Bitcraze's (PX4, Betaflight, or damaged)",
        }
    }
}
