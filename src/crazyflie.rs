//! Facts about the Crazyflie: how to recognise it on USB and across re-enumerations, how to make it enter DFU mode,
//! and how to read its board, version and protection. Pure data and parsing; the worker performs the transfers.

use std::fmt;

use crate::flash::map::SECTORS_KIB;
use crate::usb::descriptor::{Strings, clean};
use crate::usb::{CRAZYFLIE, Id, ROM_DFU, Setup};

pub mod console;
pub mod crtp;
pub mod names;
pub mod symptoms;

/// The request that makes a running Crazyflie restart in its boot ROM (crazyflie-firmware 2022.03 and later).
///
/// The request works only with exactly these values. The firmware's USB stack ignores the type bits of bmRequestType,
/// so the request reaches the firmware's handler only as CLEAR_FEATURE (request 1) of the remote wakeup feature (value
/// 1), and the handler interprets wIndex as the command. The firmware resets without answering, so a failed transfer
/// means success. Older firmware acknowledges the request and keeps running.
pub(crate) const ENTER_DFU: Setup = Setup { request_type: 0x40, request: 1, value: 1, index: 2 };

/// A firmware release, identified by year and month, for example `2024.10`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Release(u16, u8);

impl Release {
    /// The first release with [`ENTER_DFU`].
    pub(crate) const ENTERS_DFU: Release = Release(2022, 3);
    /// The first release known to ask the radio chip for its version.
    pub(crate) const ASKS_RADIO_CHIP: Release = Release(2022, 1);
    /// The first release that requires the radio chip's new softdevice (crazyflie2-nrf-firmware issue 95).
    pub(crate) const NEEDS_SOFTDEVICE: Release = Release(2024, 2);

    /// Parses a version such as `2025.02`, `2024.10.1` or `2025.02 +12`. Returns `None` if `version` does not
    /// start with a release.
    pub(crate) fn of(version: &str) -> Option<Release> {
        let (year, rest) = version.split_once('.')?;
        let month: String = rest.chars().take_while(char::is_ascii_digit).collect();
        let (year, month) = (year.parse().ok()?, month.parse().ok()?);
        ((2000..=2999).contains(&year) && (1..=12).contains(&month)).then_some(Release(year, month))
    }
}

/// The mode of a device that may be a Crazyflie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// A Crazyflie running its firmware.
    Firmware,
    /// The boot ROM of an STM32, possibly a Crazyflie's.
    Dfu,
}

impl Mode {
    /// Returns the mode of a device with this ID and these names, or `None` if the device cannot be a Crazyflie.
    ///
    /// 0483:5740 is also the ID of ST's generic serial port and of Bitcraze's Loco Positioning Node. The manufacturer
    /// and the product must match, so that [`ENTER_DFU`] is never sent to such a device.
    pub(crate) fn of(id: Id, strings: &Strings) -> Option<Mode> {
        let crazyflie = strings.manufacturer == "Bitcraze AB" && strings.product.starts_with("Crazyflie");
        match id {
            ROM_DFU => Some(Mode::Dfu),
            CRAZYFLIE if crazyflie => Some(Mode::Firmware),
            _ => None,
        }
    }

    /// Returns the name of the mode in `list --json`.
    pub(crate) fn json_name(self) -> &'static str {
        match self {
            Mode::Firmware => "firmware",
            Mode::Dfu => "dfu",
        }
    }
}

/// A device that is neither a running Crazyflie nor an STM32's boot ROM, but belongs to a Crazyflie or is easily
/// mistaken for one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RelatedDevice {
    /// A radio dongle of either generation.
    Crazyradio,
    CrazyradioBootloader,
    /// A node of the Loco Positioning System, with the same USB IDs as a Crazyflie, both while running and in DFU mode.
    LocoNode,
    /// A Crazyflie whose Bitcraze bootloader was replaced with PX4's.
    Px4Bootloader,
    /// A bootloader in DFU mode that is easily mistaken for an STM32's boot ROM.
    Foreign(&'static ForeignLoader),
}

impl RelatedDevice {
    /// Returns the related device with this ID. `names` opens the device to read its names and is therefore called only
    /// for the Crazyflie's own ID, which the Loco Positioning Node shares.
    pub(crate) fn of(id: Id, names: impl FnOnce() -> Strings) -> Option<RelatedDevice> {
        if id == CRAZYFLIE {
            return names().product.starts_with("Loco Positioning").then_some(RelatedDevice::LocoNode);
        }
        let by_id = RELATED_DEVICES.iter().find(|(known, _)| *known == id).map(|&(_, device)| device);
        let foreign = || FOREIGN_LOADERS.iter().find(|loader| loader.id == id).map(RelatedDevice::Foreign);
        by_id.or_else(foreign)
    }

    /// Returns whether a device with this ID may be a related device.
    pub(crate) fn is_possible(id: Id) -> bool {
        id == CRAZYFLIE || RelatedDevice::of(id, Strings::default).is_some()
    }

    /// Returns the foreign bootloader, or `None` for any other related device.
    pub fn foreign(self) -> Option<&'static ForeignLoader> {
        match self {
            RelatedDevice::Foreign(loader) => Some(loader),
            _ => None,
        }
    }
}

const fn id(vendor: u16, product: u16) -> Id {
    Id { vendor, product }
}

/// Related devices that are identified by their ID alone.
const RELATED_DEVICES: &[(Id, RelatedDevice)] = &[
    (id(0x1915, 0x7777), RelatedDevice::Crazyradio),
    (id(0x35F0, 0xAD20), RelatedDevice::Crazyradio),
    (id(0x1915, 0x0101), RelatedDevice::CrazyradioBootloader),
    (id(0x26AC, 0x0016), RelatedDevice::Px4Bootloader),
];

/// A bootloader in DFU mode that is not an STM32's boot ROM. Most such bootloaders support DfuSe, so a write would
/// succeed. cfdfu therefore reports these devices by name and never opens them.
#[derive(Debug, PartialEq, Eq)]
pub struct ForeignLoader {
    pub id: Id,
    pub name: &'static str,
    /// The subject of the first sentence that [`ForeignLoader::meaning`] returns.
    subject: &'static str,
    /// The rest of that sentence, and any further sentences.
    meaning: &'static str,
}

impl ForeignLoader {
    /// Explains in full sentences why this device cannot be flashed.
    pub(crate) fn meaning(&self) -> String {
        format!("{} {}", self.subject, self.meaning)
    }
}

const CLONE: &str = "is not a Crazyflie's STM32, and cfdfu does not write to it. If you expected your Crazyflie here, \
    another board is plugged in, or your drone has a clone of ST's chip.";
const MAPLE: &str = "runs on small STM32F103 boards, never on a Crazyflie, and cfdfu does not write to it. If you \
    expected your Crazyflie here, another board is plugged in.";

const fn foreign(id: Id, name: &'static str, subject: &'static str, meaning: &'static str) -> ForeignLoader {
    ForeignLoader { id, name, subject, meaning }
}

/// Bootloaders that users encounter instead of an STM32's boot ROM. Sources: riscv-mcu/gd32-dfu-utils#5,
/// qmk/qmk_toolbox#238 (APM32) and #481 (AT32), QMK's bootloader tables (WB32, Maple).
pub(crate) const FOREIGN_LOADERS: &[ForeignLoader] = &[
    foreign(id(0x28E9, 0x0189), "a GigaDevice GD32 in DFU mode", "A GD32", CLONE),
    foreign(id(0x314B, 0x0106), "a Geehy APM32 in DFU mode", "An APM32", CLONE),
    foreign(id(0x2E3C, 0xDF11), "an Artery AT32 in DFU mode", "An AT32", CLONE),
    foreign(id(0x342D, 0xDFA0), "a Westberry WB32 in DFU mode", "A WB32", CLONE),
    foreign(id(0x1EAF, 0x0003), "a board in the Maple bootloader", "The Maple bootloader", MAPLE),
];

impl fmt::Display for RelatedDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            RelatedDevice::Crazyradio => "a Crazyradio",
            RelatedDevice::CrazyradioBootloader => "a Crazyradio in its bootloader",
            RelatedDevice::LocoNode => "a Loco Positioning Node",
            RelatedDevice::Px4Bootloader => "a Crazyflie with PX4's bootloader",
            RelatedDevice::Foreign(loader) => loader.name,
        })
    }
}

/// Converts the 24-digit serial number that the firmware reports to the chip's serial number in DFU mode. Returns
/// `None` if `running` is not a 24-digit hexadecimal number.
///
/// A chip has two serial numbers, because the firmware and the boot ROM derive them from its 96-bit unique ID in
/// different ways. The firmware reports all twelve bytes in memory order. The ROM reports the sum of the first and
/// third words and the upper half of the second word (ST's `Get_SerialNum`), which cannot be reversed.
/// Without this conversion, cfdfu could not recognise a drone after the drone enters or leaves DFU mode.
pub(crate) fn dfu_serial(running: &str) -> Option<String> {
    if running.len() != 24 || !running.is_ascii() {
        return None;
    }
    let word = |at: usize| u32::from_str_radix(running.get(at..at + 8)?, 16).ok().map(u32::swap_bytes);
    let (first, second, third) = (word(0)?, word(8)?, word(16)?);
    Some(format!("{:08X}{:04X}", first.wrapping_add(third), second >> 16))
}

/// Returns whether two serial numbers, each from either mode, may belong to the same chip. An empty serial number does
/// not match any other.
///
/// A match is not proof: chips from one batch may have the same serial number in DFU mode (RM0090 §39.1). The worker
/// therefore also identifies a drone by its port.
pub fn is_same_serial(one: &str, other: &str) -> bool {
    let in_dfu = |serial: &str| dfu_serial(serial).unwrap_or_else(|| serial.to_ascii_uppercase());
    let both_running = one.len() == 24 && other.len() == 24;
    let same = if both_running { one.eq_ignore_ascii_case(other) } else { in_dfu(one) == in_dfu(other) };
    same && !one.is_empty() && !other.is_empty()
}

/// The serial number that every read-protected chip reports in DFU mode, because its ROM cannot read the unique ID.
pub(crate) const HIDDEN_SERIAL: &str = "FFFFFFFEFFFF";

/// Instructions for entering DFU mode by hand (§4.2 of Bitcraze's DFU page). They work regardless of the flash
/// contents.
pub(crate) const ENTER_BY_HAND: &str = "unplug USB and the battery, hold the button while you plug in USB, keep holding it \
    until the slow blink of the blue LED becomes clearly faster (about 5 s), then let go";

/// The version of the chip's boot ROM: two digits in one byte (AN2606).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RomVersion(u8);

impl RomVersion {
    /// Converts the version byte in system memory. Returns `None` if the byte is not a version.
    pub fn of(byte: u8) -> Option<RomVersion> {
        (!matches!(byte, 0 | 0xFF)).then_some(RomVersion(byte))
    }

    /// Returns whether the ROM starts a program without switching CCM RAM back on (AN2606 tables 74 and 76: all V3.x
    /// versions and V9.0). The Crazyflie's start-up code writes to CCM RAM first and faults, so the drone does not
    /// appear on USB until its power is cycled.
    pub fn starts_without_ccm(self) -> bool {
        self.0 >> 4 == 3 || self.0 == 0x90
    }
}

impl fmt::Display for RomVersion {
    /// Writes the version, for example `9.1`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.0 >> 4, self.0 & 0x0F)
    }
}

/// The length in bytes of the OTP area that may contain the board's code: 16 blocks of 32 bytes.
pub(crate) const OTP_LEN: u16 = 512;

/// A board, as described by its chip's OTP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Board {
    /// The board type in four characters, for example `CF21`.
    pub code: String,
    /// The revision, if the OTP contains one, for example `B1`.
    pub revision: Option<String>,
    /// The OTP is blank, so the firmware assumes this board type.
    pub assumed: bool,
}

impl Board {
    /// Creates a board with this code and no revision.
    pub fn named(code: &str) -> Board {
        Board { code: code.to_owned(), revision: None, assumed: false }
    }

    /// Returns the product name, or the code if the board is unknown.
    pub(crate) fn name(&self) -> &str {
        BOARDS.iter().find(|board| board.code == self.code).map_or(&self.code, |board| board.name)
    }
}

impl fmt::Display for Board {
    /// Writes the board, for example `CF21 (Crazyflie 2.1), revision B1`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.code)?;
        if self.name() != self.code {
            write!(f, " ({})", self.name())?;
        }
        if self.assumed {
            f.write_str(", assumed because the OTP is blank")?;
        }
        self.revision.iter().try_for_each(|revision| write!(f, ", revision {revision}"))
    }
}

/// A board type made by Bitcraze.
#[derive(Clone, Copy, Debug)]
pub struct BoardType {
    /// The code in the OTP.
    pub code: &'static str,
    /// The name that the firmware reports.
    pub name: &'static str,
    /// The platform whose firmware runs on the board, as named in release files. The Flapper has no board type of its
    /// own.
    pub platform: &'static str,
}

const fn board_type(code: &'static str, name: &'static str, platform: &'static str) -> BoardType {
    BoardType { code, name, platform }
}

/// All board types (crazyflie-firmware, `platform_*.c`).
pub const BOARDS: &[BoardType] = &[
    board_type("CF20", "Crazyflie 2.0", "cf2"),
    board_type("CF21", "Crazyflie 2.1", "cf2"),
    board_type("C21B", "Crazyflie 2.1 Brushless", "cf21bl"),
    board_type("RZ10", "Crazyflie Bolt", "bolt"),
    board_type("CB10", "Crazyflie Bolt", "bolt"),
    board_type("CB11", "Crazyflie Bolt 1.1", "bolt"),
    board_type("RR10", "Roadrunner 1.0", "tag"),
];

/// Returns the code of the board with this name, or `None` if no board or several boards have this name.
pub(crate) fn code_of(name: &str) -> Option<&'static str> {
    let mut codes = BOARDS.iter().filter(|board| board.name == name).map(|board| board.code);
    codes.next().filter(|_| codes.next().is_none())
}

/// Returns the platform of the board with this code, or `None` if the code is unknown.
pub(crate) fn platform_of(code: &str) -> Option<&'static str> {
    BOARDS.iter().find(|board| board.code == code).map(|board| board.platform)
}

/// Parses the board from its chip's OTP. Returns `None` if the OTP does not have the expected format.
///
/// Like the firmware, this function uses the first 32-byte block that does not start with a NUL byte and expects
/// `0;TYPE;KEY=VALUE…` there. A blank OTP means a Crazyflie 2.0 (crazyflie-firmware, `platform_stm32f4.c`).
pub fn parse_board(otp: &[u8]) -> Option<Board> {
    let block = otp.chunks(32).find(|block| block[0] != 0)?;
    if block.iter().all(|&byte| byte == 0xFF) {
        return Some(Board { code: "CF20".to_owned(), revision: None, assumed: true });
    }
    let text: Vec<u8> = block.iter().copied().take_while(|&byte| byte != 0 && byte != 0xFF).collect();
    let text = String::from_utf8(text).ok()?;
    let mut fields = text.split(';');
    let known =
        |code: &&str| code.len() == 4 && code.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit());
    let code = (fields.next()? == "0").then(|| fields.next().filter(known).map(str::to_owned))??;
    let revision = fields.find_map(|field| field.strip_prefix("R=")).map(clean);
    Some(Board { code, revision, assumed: false })
}

/// Flash protection according to the option bytes (RM0090 §3.7).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Protection {
    /// Read protection level 1 is active. At level 2, the boot ROM does not start.
    pub read: bool,
    /// The write-protected sectors, which ignore erases and writes.
    pub sectors: Vec<usize>,
}

impl Protection {
    /// Parses the option bytes. Byte 1 is 0xAA if read protection is off. Bytes 8 and 9 contain one bit per sector,
    /// which is 0 if the sector is write-protected.
    pub fn parse(options: &[u8]) -> Option<Protection> {
        let (rdp, low, high) = (*options.get(1)?, *options.get(8)?, *options.get(9)?);
        let free = u16::from_le_bytes([low, high]);
        let sectors = (0..SECTORS_KIB.len()).filter(|sector| (free >> sector) & 1 == 0).collect();
        Some(Protection { read: rdp != 0xAA, sectors })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_dfu_serial_is_computed_from_the_running_serial() {
        // The serial numbers of a real drone, from the documentation of bitcraze/cfcli.
        assert_eq!(dfu_serial("51004F000551343036333233").as_deref(), Some("338133873034"));
        assert_eq!(dfu_serial("51004f000551343036333233").as_deref(), Some("338133873034"));
        for other in ["", "338133873034", "51004F00055134303633323Z", "éééééééééééé"] {
            assert_eq!(dfu_serial(other), None);
        }
    }

    #[test]
    fn the_board_is_read_from_the_otp() {
        let otp = |blocks: &[&[u8]]| {
            let mut otp = [0xFF; 512];
            for (n, block) in blocks.iter().enumerate() {
                otp[n * 32..n * 32 + block.len()].copy_from_slice(block);
            }
            parse_board(&otp).map(|board| board.code)
        };
        assert_eq!(otp(&[b"0;CF21;R=B1\0"]).as_deref(), Some("CF21"));
        assert_eq!(otp(&[b"0;CB10\0"]).as_deref(), Some("CB10"));
        assert_eq!(otp(&[]).as_deref(), Some("CF20"));
        // A discarded block is all zeros, so the next block is used.
        assert_eq!(otp(&[&[0; 32], b"0;RR10;R=B\0"]).as_deref(), Some("RR10"));
        assert_eq!(otp(&[b"1;CF21\0"]), None);
        assert_eq!(otp(&[b"0;cf\x1b[2J\0"]), None);
        assert_eq!(otp(&[&[0xC3; 32]]), None);
        assert_eq!(parse_board(&[]), None);
        assert_eq!(parse_board(&[0; 512]), None);
        let board = parse_board(b"0;CF21;R=B1\0").unwrap();
        assert_eq!(board.to_string(), "CF21 (Crazyflie 2.1), revision B1");
    }

    #[test]
    fn foreign_loaders_are_recognised_by_id_alone() {
        for loader in FOREIGN_LOADERS {
            let related = RelatedDevice::of(loader.id, || panic!("opened {}", loader.id));
            assert_eq!(related.and_then(RelatedDevice::foreign), Some(loader));
            assert_eq!(Mode::of(loader.id, &Strings::default()), None, "{}", loader.name);
        }
        assert_eq!(RelatedDevice::of(ROM_DFU, Strings::default), None);
        assert_eq!(RelatedDevice::of(CRAZYFLIE, Strings::default), None);
        assert!(!RelatedDevice::is_possible(ROM_DFU) && RelatedDevice::is_possible(CRAZYFLIE));
    }

    #[test]
    fn a_crazyflie_is_recognised_by_its_names() {
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
