//! USB descriptors of the simulated devices: the boot ROM (from AN3156 and listings of real boards), the firmware's
//! composite device, and other devices that may be plugged in instead of a Crazyflie or next to it.

use super::rom::RomAnswer;
use crate::usb::Setup;

/// The descriptors of one device.
#[derive(Debug)]
pub struct UsbIdentity {
    device: [u8; 18],
    configuration: &'static [&'static [u8]],
    /// The strings by index. An empty serial number (index 3) is replaced by the serial number of the simulated device.
    strings: &'static [&'static str],
}

impl UsbIdentity {
    /// Returns the vendor and product IDs, and the release number.
    pub fn identity(&self) -> ((u16, u16), u16) {
        let word = |offset: usize| u16::from_le_bytes([self.device[offset], self.device[offset + 1]]);
        ((word(8), word(10)), word(12))
    }

    /// Returns whether the device is a boot ROM: its first interface is a DFU interface in DFU mode (DFU 1.1 §4.2.3).
    pub(crate) fn is_rom(&self) -> bool {
        self.configuration.get(1).is_some_and(|interface| interface.get(5..8) == Some(&[0xFE, 1, 2]))
    }

    pub(crate) fn answer(&self, setup: Setup, len: usize, serial: &str) -> RomAnswer {
        const GET_STATUS: u8 = 0;
        const GET_DESCRIPTOR: u8 = 6;
        const GET_CONFIGURATION: u8 = 8;
        const GET_INTERFACE: u8 = 10;
        match (setup.request_type & 0x80 != 0, setup.request) {
            (true, GET_DESCRIPTOR) => match self.descriptor(setup.value, serial) {
                Some(mut bytes) => {
                    bytes.truncate(len);
                    RomAnswer::Data(bytes)
                }
                None => RomAnswer::Stall,
            },
            (true, GET_STATUS) => RomAnswer::Data(vec![1, 0]),
            (true, GET_CONFIGURATION) => RomAnswer::Data(vec![1]),
            (true, GET_INTERFACE) => RomAnswer::Data(vec![0]),
            (true, _) => RomAnswer::Stall,
            (false, _) => RomAnswer::Ack,
        }
    }

    fn descriptor(&self, value: u16, serial: &str) -> Option<Vec<u8>> {
        let [kind, index] = value.to_be_bytes();
        match (kind, index) {
            (1, _) => Some(self.device.to_vec()),
            (2, 0) => Some(self.configuration.concat()),
            (3, 0) => Some(vec![4, 3, 0x09, 0x04]),
            (3, 3) if self.strings[3].is_empty() => Some(string_descriptor(serial)),
            (3, _) => self.strings.get(usize::from(index)).map(|text| string_descriptor(text)),
            _ => None,
        }
    }
}

fn string_descriptor(text: &str) -> Vec<u8> {
    let units: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
    let len = u8::try_from(units.len() + 2).unwrap_or(u8::MAX);
    [&[len, 3][..], &units].concat()
}

/// Returns a device descriptor with string indices 1, 2 and 3.
const fn device(usb: u8, vendor: u16, product: u16, release: u16) -> [u8; 18] {
    let ([v0, v1], [p0, p1], [r0, r1]) = (vendor.to_le_bytes(), product.to_le_bytes(), release.to_le_bytes());
    [18, 1, 0x00, usb, 0, 0, 0, 64, v0, v1, p0, p1, r0, r1, 1, 2, 3, 1]
}

/// The boot ROM of an STM32F405. The functional descriptor follows only the last alternate setting.
pub static ROM: UsbIdentity = UsbIdentity {
    device: device(1, 0x0483, 0xDF11, 0x2200),
    configuration: ROM_CONFIGURATION,
    strings: &[
        "",
        "STMicroelectronics",
        "STM32  BOOTLOADER",
        "",
        "@Internal Flash  /0x08000000/04*016Kg,01*064Kg,07*128Kg",
        "@Option Bytes  /0x1FFFC000/01*016 e",
        "@OTP Memory /0x1FFF7800/01*512 e,01*016 e",
        "@Device Feature/0xFFFF0000/01*004 e",
    ],
};

/// An early boot ROM of the STM32F405, V3.0. Its bcdDevice is 21.00, and it reports the type letter g for every memory,
/// as if every memory were erasable (dfu-util's `stm32f4discovery.lsusb`; AN2606 table 74).
pub static OLD_ROM: UsbIdentity = UsbIdentity {
    device: device(1, 0x0483, 0xDF11, 0x2100),
    configuration: ROM_CONFIGURATION,
    strings: &[
        "",
        "STMicroelectronics",
        "STM32  BOOTLOADER",
        "",
        "@Internal Flash  /0x08000000/04*016Kg,01*064Kg,07*128Kg",
        "@Option Bytes  /0x1FFFC000/01*016 g",
        "@OTP Memory /0x1FFF7800/01*512 g,01*016 g",
        "@Device Feature/0xFFFF0000/01*004 g",
    ],
};

/// The boot ROM of a different STM32: an F072, as in the Loco Positioning Node. It has the same IDs and product name as
/// [`ROM`].
pub(crate) static OTHER_ROM: UsbIdentity = UsbIdentity {
    device: device(1, 0x0483, 0xDF11, 0x2200),
    configuration: ROM_CONFIGURATION,
    strings: &[
        "",
        "STMicroelectronics",
        "STM32  BOOTLOADER",
        "",
        "@Internal Flash  /0x08000000/064*0002Kg",
        "@Option Bytes  /0x1FFFF800/01*016 e",
        "@OTP Memory /0x1FFF7800/01*512 e,01*016 e",
        "@Device Feature/0xFFFF0000/01*004 e",
    ],
};

/// The boot ROM of a GigaDevice GD32VF103, as listed by dfu-util (riscv-mcu/gd32-dfu-utils#5 and dfu-util's ticket
/// 148). The serial number is the same on every chip.
pub(crate) static GD32_ROM: UsbIdentity = UsbIdentity {
    device: device(2, 0x28E9, 0x0189, 0x1000),
    configuration: &[
        &[9, 2, 36, 0, 1, 1, 0, 0x80, 50],
        &[9, 4, 0, 0, 0, 0xFE, 1, 2, 4],
        &[9, 4, 0, 1, 0, 0xFE, 1, 2, 5],
        &[9, 0x21, 0x0B, 0xFF, 0x00, 0x00, 0x08, 0x1A, 0x01],
    ],
    strings: &[
        "",
        "GDMicroelectronics",
        "GD32 DFU Bootloader",
        "3CBJ",
        "@Internal Flash  /0x08000000/512*002Kg",
        "@Option Bytes  /0x1FFFF800/01*016 g",
    ],
};

const ROM_CONFIGURATION: &[&[u8]] = &[
    &[9, 2, 54, 0, 1, 1, 0, 0xC0, 50],
    &[9, 4, 0, 0, 0, 0xFE, 1, 2, 4],
    &[9, 4, 0, 1, 0, 0xFE, 1, 2, 5],
    &[9, 4, 0, 2, 0, 0xFE, 1, 2, 6],
    &[9, 4, 0, 3, 0, 0xFE, 1, 2, 7],
    &[9, 0x21, 0x0B, 0xFF, 0x00, 0x00, 0x08, 0x1A, 0x01],
];

/// The firmware: a vendor interface with bulk endpoint 1 in both directions, and a CDC serial port.
pub(crate) static FIRMWARE: UsbIdentity = UsbIdentity {
    device: device(2, 0x0483, 0x5740, 0x0200),
    configuration: &[
        &[9, 2, 98, 0, 3, 1, 0, 0x80, 50],
        &[9, 4, 0, 0, 2, 0xFF, 0xFF, 0, 0],
        &[7, 5, 0x81, 2, 64, 0, 0],
        &[7, 5, 0x01, 2, 64, 0, 0],
        &[8, 11, 1, 2, 2, 2, 1, 0],
        &[9, 4, 1, 0, 1, 2, 2, 1, 0],
        &[5, 0x24, 0, 0x10, 1],
        &[5, 0x24, 1, 0, 2],
        &[4, 0x24, 2, 2],
        &[5, 0x24, 6, 1, 2],
        &[7, 5, 0x83, 3, 8, 0, 255],
        &[9, 4, 2, 0, 2, 10, 0, 0, 0],
        &[7, 5, 0x82, 2, 64, 0, 0],
        &[7, 5, 0x02, 2, 64, 0, 0],
    ],
    strings: &["", "Bitcraze AB", "Crazyflie 2.x", ""],
};

/// One vendor interface with two bulk endpoints.
const SIMPLE_CONFIGURATION: &[&[u8]] = &[
    &[9, 2, 32, 0, 1, 1, 0, 0x80, 50],
    &[9, 4, 0, 0, 2, 0xFF, 0xFF, 0, 0],
    &[7, 5, 0x81, 2, 64, 0, 0],
    &[7, 5, 0x01, 2, 64, 0, 0],
];

pub(crate) static CRAZYRADIO: UsbIdentity = UsbIdentity {
    device: device(2, 0x1915, 0x7777, 0x0054),
    configuration: SIMPLE_CONFIGURATION,
    strings: &["", "Bitcraze", "Crazyradio PA USB Dongle", ""],
};

/// A Loco Positioning Node, which has the same vendor and product IDs as a Crazyflie.
pub(crate) static LOCO_NODE: UsbIdentity = UsbIdentity {
    device: device(2, 0x0483, 0x5740, 0x0200),
    configuration: SIMPLE_CONFIGURATION,
    strings: &["", "Bitcraze AB", "Loco Positioning Node", ""],
};

/// A running flight controller from a different manufacturer, with ST's generic IDs for a virtual serial port.
pub(crate) static FLIGHT_CONTROLLER: UsbIdentity = UsbIdentity {
    device: device(2, 0x0483, 0x5740, 0x0200),
    configuration: SIMPLE_CONFIGURATION,
    strings: &["", "Betaflight", "Betaflight STM32F405", "0x8000000"],
};

/// A Crazyflie that runs PX4's bootloader.
pub(crate) static PX4_BOOTLOADER: UsbIdentity = UsbIdentity {
    device: device(2, 0x26AC, 0x0016, 0x0101),
    configuration: SIMPLE_CONFIGURATION,
    strings: &["", "Bitcraze AB", "Crazyflie BL", ""],
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lengths_in_the_descriptors_are_correct() {
        for identity in [
            &ROM,
            &OLD_ROM,
            &OTHER_ROM,
            &GD32_ROM,
            &FIRMWARE,
            &CRAZYRADIO,
            &LOCO_NODE,
            &FLIGHT_CONTROLLER,
            &PX4_BOOTLOADER,
        ] {
            let bytes = identity.configuration.concat();
            assert_eq!(usize::from(u16::from_le_bytes([bytes[2], bytes[3]])), bytes.len());
            assert!(identity.configuration.iter().all(|part| usize::from(part[0]) == part.len()));
        }
    }
}
