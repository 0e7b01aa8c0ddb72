//! What a drone is and what is on it, as far as it can be told without changing anything.

use crate::crazyflie::{Board, Protection, RomVersion};
use crate::image::{Content, Loader};

/// What was found out about a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeviceInfo {
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
    pub(crate) fn is_read_protected(&self) -> bool {
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
