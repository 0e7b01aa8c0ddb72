//! The ways in which known devices deviate from the DFU standard.

use super::device::DfuDevice;
use crate::usb::{Id, ROM_DFU};

/// How to wait until the device has carried out a download.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Polling {
    /// Sleep for bwPollTimeout before the next GETSTATUS, as the standard requires.
    Obey,
    /// Send the next GETSTATUS at once.
    ///
    /// Eager polling is the main reason for cfdfu's speed. A firmware image has about 120 blocks. Programming a block
    /// at a width of 32 bits takes 13 ms, but the ROM reports a bwPollTimeout of 104 ms for each block. Sleeping that
    /// long for every block, as dfu-util does, takes 12 s in total.
    ///
    /// The F405 does not need the sleep: its ROM is in the flash module that it programs, where instruction fetches
    /// stall until the work is done (RM0090 §3), so the ROM cannot answer the second GETSTATUS before then.
    /// MicroPython's `pydfu.py` has polled the F405 this way since 2016. Other ROMs need the sleep: those of the L4
    /// family stall GETSTATUS while they are busy (dfu-util ticket 40). [`Quirks::of`] therefore selects eager polling
    /// only for the F405's ROM. The first stall, timeout or busy report makes the machine obey bwPollTimeout for the
    /// rest of the session.
    Eager,
}

/// The behaviour of one kind of device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quirks {
    pub name: &'static str,
    pub polling: Polling,
    /// Whether writing to 0xFFFF0000 (alternate setting 3) sets the programming width (AN2606, "Bootloader memory
    /// management", table 4).
    pub width_switch: bool,
}

/// The behaviour of a device that follows the standard.
pub(crate) const STANDARD: Quirks =
    Quirks { name: "standard DfuSe", polling: Polling::Obey, width_switch: false };

/// The boot ROM of the STM32F405. It reports a bwPollTimeout of 100 ms for every erase and 104 ms for everything else,
/// regardless of the actual duration, and does not answer the next GETSTATUS until the work is done.
pub const STM32F405_ROM: Quirks =
    Quirks { name: "STM32F405 boot ROM", polling: Polling::Eager, width_switch: true };

impl Quirks {
    /// Determines the quirks of a device from its ID, product string and memory map.
    pub fn of(id: Id, product: &str, device: &DfuDevice) -> Quirks {
        let f405 = device.flash().is_some_and(|flash| flash.map.is_stm32f405());
        // The product string has two spaces on the F405 and one space on other ROMs.
        let rom = product.split_whitespace().eq(["STM32", "BOOTLOADER"]);
        if id == ROM_DFU && rom && f405 { STM32F405_ROM } else { STANDARD }
    }
}
