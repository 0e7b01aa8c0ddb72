//! What particular devices do differently from the standard, as named data.

use super::device::DfuDevice;
use crate::usb::{Id, ROM_DFU};

/// How to wait for a download to be carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Polling {
    /// Sleep bwPollTimeout, as the standard asks.
    Obey,
    /// Ask again at once: the device does its work while it lets GETSTATUS wait. A device that answers
    /// otherwise (stall, no answer, busy) is obeyed from then on.
    ///
    /// A firmware has 120 blocks, each of which takes 13 ms; obeyed, the 104 ms that the ROM names for each of them make 12 s
    /// of it. That is what dfu-util does, and most of what there is to win.
    Eager,
}

/// A known kind of device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quirks {
    pub name: &'static str,
    pub polling: Polling,
    /// Whether 0xFFFF0000 (alternate setting 3) sets the programming width (AN2606, "Bootloader memory
    /// management", table 4).
    pub width_switch: bool,
}

/// A device that follows the standard.
pub(crate) const STANDARD: Quirks =
    Quirks { name: "standard DfuSe", polling: Polling::Obey, width_switch: false };

/// The boot ROM of the STM32F405: reports 100 ms for every erase and 104 ms for everything else, however
/// long it takes, and keeps the next GETSTATUS waiting until the work is done.
pub const STM32F405_ROM: Quirks =
    Quirks { name: "STM32F405 boot ROM", polling: Polling::Eager, width_switch: true };

impl Quirks {
    /// The quirks of a device, by everything that it says of itself.
    pub fn of(id: Id, product: &str, device: &DfuDevice) -> Quirks {
        let f405 = device.flash().is_some_and(|flash| flash.map.is_stm32f405());
        // The product has two blanks on the F405; other ROMs have one.
        let rom = product.split_whitespace().eq(["STM32", "BOOTLOADER"]);
        if id == ROM_DFU && rom && f405 { STM32F405_ROM } else { STANDARD }
    }
}
