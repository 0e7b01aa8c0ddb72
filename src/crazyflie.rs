//! The Crazyflie on USB: how it is told from its namesakes, followed through a re-enumeration, and asked
//! to start its boot ROM. Pure facts; the worker acts on them.

use crate::usb::descriptor::Strings;
use crate::usb::{CRAZYFLIE, Id, ROM_DFU, Setup};

/// Asks a running Crazyflie to restart in the boot ROM (crazyflie-firmware 2022.03 and later).
///
/// Every number is forced: only a device recipient with CLEAR_FEATURE's number and value 1 gets through
/// the firmware's USB stack to its handler, which takes wIndex as the command. It resets without an
/// answer, so an error is the good sign. An older firmware answers, and stays as it is.
pub const ENTER_DFU: Setup = Setup { request_type: 0x40, request: 1, value: 1, index: 2 };

/// What a device on USB is to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// A Crazyflie with its firmware running.
    Firmware,
    /// The boot ROM of an STM32, maybe a Crazyflie's.
    Dfu,
}

impl Mode {
    /// The mode of a device with these names; `None` for everything that is neither.
    ///
    /// 0483:5740 is also every other ST serial port and Bitcraze's Loco Positioning Node, which must never
    /// be sent the request: the names decide.
    #[must_use]
    pub fn of(id: Id, strings: &Strings) -> Option<Mode> {
        let crazyflie = strings.manufacturer == "Bitcraze AB" && strings.product.starts_with("Crazyflie");
        match id {
            ROM_DFU => Some(Mode::Dfu),
            CRAZYFLIE if crazyflie => Some(Mode::Firmware),
            _ => None,
        }
    }

    /// The word that `list --json` prints.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Mode::Firmware => "firmware",
            Mode::Dfu => "dfu",
        }
    }
}

/// The serial number that the same chip shows in its boot ROM, from the 24 digits that the firmware
/// shows; `None` if `running` is not of that form.
///
/// The firmware shows the twelve bytes of the unique number in memory order; the ROM shows the sum of the
/// first and third word and the upper half of the second (ST's `Get_SerialNum`).
#[must_use]
pub fn dfu_serial(running: &str) -> Option<String> {
    if running.len() != 24 || !running.is_ascii() {
        return None;
    }
    let word = |at: usize| u32::from_str_radix(running.get(at..at + 8)?, 16).ok().map(u32::swap_bytes);
    let (first, second, third) = (word(0)?, word(8)?, word(16)?);
    Some(format!("{:08X}{:04X}", first.wrapping_add(third), second >> 16))
}

/// Bytes of the OTP that hold the board's name: 16 blocks of 32.
pub const OTP_LEN: u16 = 512;

/// The four characters of the board's type, from the OTP of its chip.
///
/// The firmware takes the first block of 32 bytes that does not start with 0 and looks for
/// `0;TYPE;KEY=VALUE…`; blank OTP stands for a Crazyflie 2.0 (crazyflie-firmware, `platform_stm32f4.c`).
/// `None` if what is there is of no known form: then nothing can be said.
#[must_use]
pub fn board_type(otp: &[u8]) -> Option<String> {
    let block = otp.chunks(32).find(|block| block[0] != 0)?;
    if block.iter().all(|&byte| byte == 0xFF) {
        return Some("CF20".to_owned());
    }
    let text: Vec<u8> = block.iter().copied().take_while(|&byte| byte != 0).collect();
    let text = String::from_utf8(text).ok()?;
    let mut fields = text.split(';');
    let known =
        |code: &&str| code.len() == 4 && code.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit());
    (fields.next()? == "0").then(|| fields.next().filter(known).map(str::to_owned))?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rom_s_serial_follows_from_the_firmware_s() {
        // A real drone, from the documentation of bitcraze/cfcli.
        assert_eq!(dfu_serial("51004F000551343036333233").as_deref(), Some("338133873034"));
        assert_eq!(dfu_serial("51004f000551343036333233").as_deref(), Some("338133873034"));
        for other in ["", "338133873034", "51004F00055134303633323Z", "éééééééééééé"] {
            assert_eq!(dfu_serial(other), None);
        }
    }

    #[test]
    fn the_otp_tells_the_board() {
        let otp = |blocks: &[&[u8]]| {
            let mut otp = [0xFF; 512];
            for (n, block) in blocks.iter().enumerate() {
                otp[n * 32..n * 32 + block.len()].copy_from_slice(block);
            }
            board_type(&otp)
        };
        assert_eq!(otp(&[b"0;CF21;R=B1\0"]).as_deref(), Some("CF21"));
        assert_eq!(otp(&[b"0;CB10\0"]).as_deref(), Some("CB10"));
        assert_eq!(otp(&[]).as_deref(), Some("CF20"));
        // A block that was given up is all zeros; the next one counts.
        assert_eq!(otp(&[&[0; 32], b"0;RR10;R=B\0"]).as_deref(), Some("RR10"));
        assert_eq!(otp(&[b"1;CF21\0"]), None);
        assert_eq!(otp(&[b"0;cf\x1b[2J\0"]), None);
        assert_eq!(otp(&[&[0xC3; 32]]), None);
        assert_eq!(board_type(&[]), None);
        assert_eq!(board_type(&[0; 512]), None);
    }

    #[test]
    fn only_a_crazyflie_is_a_crazyflie() {
        let names = |manufacturer: &str, product: &str| Strings {
            manufacturer: manufacturer.to_owned(),
            product: product.to_owned(),
            serial: String::new(),
        };
        let running = |strings| Mode::of(CRAZYFLIE, &strings);
        assert_eq!(running(names("Bitcraze AB", "Crazyflie 2.x")), Some(Mode::Firmware));
        assert_eq!(running(names("Bitcraze AB", "Crazyflie 2.0")), Some(Mode::Firmware));
        assert_eq!(running(names("Bitcraze AB", "Loco Positioning Node")), None);
        assert_eq!(running(names("Betaflight", "Crazyflie")), None);
        assert_eq!(running(names("", "")), None);
        assert_eq!(Mode::of(ROM_DFU, &Strings::default()), Some(Mode::Dfu));
    }
}
