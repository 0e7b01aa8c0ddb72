//! What a drone is and what is on it, as far as it can be told without changing anything.

use crate::crazyflie::{Board, RomVersion};
use crate::flash::{LOADER_BASE, LOADER_MAX, Span, is_blank};
use crate::image::Content;

/// What was found out about a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Known {
    /// In DFU mode its memory can be read.
    InDfu(Identity),
    /// Running, it says a little of itself.
    Running(Running),
}

/// What a drone in DFU mode is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// From the OTP; `None` if it could not be read, or says nothing that is known.
    pub board: Option<Board>,
    /// What is at 0x08000000; `None` if the chip may not be read.
    pub loader: Option<Loader>,
    /// What is at 0x08004000; `None` if nothing is, or the chip may not be read.
    pub firmware: Option<Content>,
    /// What the option bytes forbid; `None` if they could not be read.
    pub protection: Option<Protection>,
    /// Version of the boot ROM.
    pub rom: Option<RomVersion>,
}

impl Identity {
    /// Read protection is set: nothing can be read or written.
    pub fn is_read_protected(&self) -> bool {
        self.protection.as_ref().is_some_and(|protection| protection.read)
    }
}

/// What a running Crazyflie says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Running {
    /// As in `2026.04`; `None` if it did not answer.
    pub version: Option<String>,
    /// The name of its board, as in `Crazyflie 2.1`; older firmware does not tell.
    pub board: Option<String>,
}

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
    pub fn is_gone(self) -> bool {
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
                .is_some_and(|span| span.contains(crate::flash::Address(reset & !1)))
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
    pub fn word(self) -> &'static str {
        match self {
            Loader::Bitcraze => "bitcraze",
            Loader::Overwritten => "overwritten",
            Loader::Erased => "erased",
            Loader::Other => "other",
        }
    }

    /// What is in its place.
    pub fn instead(self) -> &'static str {
        match self {
            Loader::Bitcraze => "the Bitcraze bootloader",
            Loader::Overwritten => "a Crazyflie firmware",
            Loader::Erased => "nothing",
            Loader::Other => "another program",
        }
    }

    pub fn describe(self) -> &'static str {
        match self {
            Loader::Bitcraze => "the Bitcraze bootloader",
            Loader::Overwritten => "overwritten by a firmware",
            Loader::Erased => "erased",
            Loader::Other => "not Bitcraze's (PX4, Betaflight, or damaged)",
        }
    }
}

/// What the option bytes forbid (RM0090 §3.7).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Protection {
    /// Level 1 (level 2 has no boot ROM to ask).
    pub read: bool,
    /// Sectors that ignore erase and write.
    pub sectors: Vec<usize>,
}

impl Protection {
    /// Byte 1: 0xAA is no read protection. Bytes 8 and 9: a bit for each sector, 0 is protected.
    pub fn parse(options: &[u8]) -> Option<Protection> {
        let (rdp, low, high) = (*options.get(1)?, *options.get(8)?, *options.get(9)?);
        let free = u16::from_le_bytes([low, high]);
        let sectors = (0..12).filter(|sector| (free >> sector) & 1 == 0).collect();
        Some(Protection { read: rdp != 0xAA, sectors })
    }
}
