//! The identity and the contents of a drone, read without changing anything.

use crate::crazyflie::console::Health;
use crate::crazyflie::crtp::Radio;
use crate::crazyflie::{self, Board, Protection, RomVersion};
use crate::image::{Content, Loader};

/// Information about a drone, which depends on the drone's mode.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeviceInfo {
    /// Read from the memory of a drone in DFU mode.
    InDfu(Identity),
    /// Reported by the running firmware.
    Running(Running),
}

impl DeviceInfo {
    /// Returns the board's code, if known.
    pub fn board(&self) -> Option<&str> {
        match self {
            DeviceInfo::InDfu(identity) => identity.board.as_ref().map(|board| board.code.as_str()),
            DeviceInfo::Running(running) => running.board.as_deref().and_then(crazyflie::code_of),
        }
    }

    /// Returns the radio settings, which only a running drone reports.
    pub fn radio(&self) -> Option<Radio> {
        match self {
            DeviceInfo::InDfu(_) => None,
            DeviceInfo::Running(running) => running.radio,
        }
    }
}

/// Information from the memory of a drone in DFU mode.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The board from the OTP; `None` if the OTP could not be read or its format is not known.
    pub board: Option<Board>,
    /// The contents at 0x08000000; `None` if the chip is read-protected.
    pub loader: Option<Loader>,
    /// The contents at 0x08004000; `None` if the flash there is blank or the chip is read-protected.
    pub firmware: Option<Content>,
    /// The protection set in the option bytes; `None` if they could not be read.
    pub protection: Option<Protection>,
    /// The version of the boot ROM; `None` if it could not be read.
    pub rom: Option<RomVersion>,
}

impl Identity {
    /// Returns whether the board, the bootloader or the firmware is evidence that this is a Crazyflie. A flash job
    /// looks for similar evidence before it writes.
    pub(crate) fn has_evidence(&self) -> bool {
        self.board.as_ref().is_some_and(|board| !board.assumed)
            || matches!(self.loader, Some(Loader::Bitcraze | Loader::Overwritten))
            || self.firmware.as_ref().and_then(Content::firmware).is_some()
    }

    /// Returns whether the chip is read-protected, so that nothing can be read or written.
    pub(crate) fn is_read_protected(&self) -> bool {
        self.protection.as_ref().is_some_and(|protection| protection.read)
    }

    /// Returns the write-protected sectors; empty if the protection could not be read.
    pub(crate) fn protected_sectors(&self) -> &[usize] {
        self.protection.as_ref().map_or(&[], |protection| &protection.sectors)
    }
}

/// Information that a running Crazyflie reports about itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Running {
    /// The firmware version, for example `2026.04`; `None` if there was no reply.
    pub version: Option<String>,
    /// The name of the board, for example `Crazyflie 2.1`; `None` if the firmware is too old to report the name or
    /// there was no reply.
    pub board: Option<String>,
    /// The radio settings from the EEPROM; `None` if they are not valid or there was no reply.
    pub radio: Option<Radio>,
    /// The drone's health, according to its console and its parameters.
    pub health: Health,
}
