//! The Crazyflie on USB: how it is told from its namesakes, followed through a re-enumeration, and asked
//! to start its boot ROM. Pure facts; the worker acts on them.

use std::fmt;

use crate::flash::map::SECTORS_KIB;
use crate::usb::descriptor::{Strings, clean};
use crate::usb::{CRAZYFLIE, Id, Pipe, ROM_DFU, Setup};

/// Asks a running Crazyflie to restart in the boot ROM (crazyflie-firmware 2022.03 and later).
///
/// Every number is forced: only a device recipient with CLEAR_FEATURE's number and value 1 gets through
/// the firmware's USB stack to its handler, which takes wIndex as the command. It resets without an
/// answer, so an error is the good sign. An older firmware answers, and stays as it is.
pub(crate) const ENTER_DFU: Setup = Setup { request_type: 0x40, request: 1, value: 1, index: 2 };

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
    pub(crate) fn of(id: Id, strings: &Strings) -> Option<Mode> {
        let crazyflie = strings.manufacturer == "Bitcraze AB" && strings.product.starts_with("Crazyflie");
        match id {
            ROM_DFU => Some(Mode::Dfu),
            CRAZYFLIE if crazyflie => Some(Mode::Firmware),
            _ => None,
        }
    }

    /// The word that `list --json` prints.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Mode::Firmware => "firmware",
            Mode::Dfu => "dfu",
        }
    }
}

/// What is on USB and is no Crazyflie, but belongs to one or is taken for one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Relative {
    /// The radio dongle, either generation.
    Crazyradio,
    CrazyradioBootloader,
    /// A node of the positioning system: shares both of the Crazyflie's numbers.
    LocoNode,
    /// A Crazyflie on which PX4's bootloader took the place of Bitcraze's.
    Px4Bootloader,
    /// A loader of another make in DFU mode, taken for the STM32's boot ROM.
    Foreign(&'static ForeignLoader),
}

impl Relative {
    /// The relative with these numbers. `names` reads the names of the device and is called only for the
    /// Crazyflie's own numbers, which the Loco Positioning Node shares: all others need not be opened.
    pub(crate) fn of(id: Id, names: impl FnOnce() -> Strings) -> Option<Relative> {
        if id == CRAZYFLIE {
            return names().product.starts_with("Loco Positioning").then_some(Relative::LocoNode);
        }
        let by_numbers = RELATIVES.iter().find(|(known, _)| *known == id).map(|&(_, relative)| relative);
        let foreign = || FOREIGN_LOADERS.iter().find(|loader| loader.id == id).map(Relative::Foreign);
        by_numbers.or_else(foreign)
    }

    /// A device with these numbers can be a relative.
    pub(crate) fn is_possible(id: Id) -> bool {
        id == CRAZYFLIE || Relative::of(id, Strings::default).is_some()
    }

    /// The loader of another make, if this is one.
    pub fn foreign(self) -> Option<&'static ForeignLoader> {
        match self {
            Relative::Foreign(loader) => Some(loader),
            _ => None,
        }
    }
}

const fn id(vendor: u16, product: u16) -> Id {
    Id { vendor, product }
}

/// Relatives with numbers of their own.
const RELATIVES: &[(Id, Relative)] = &[
    (id(0x1915, 0x7777), Relative::Crazyradio),
    (id(0x35F0, 0xAD20), Relative::Crazyradio),
    (id(0x1915, 0x0101), Relative::CrazyradioBootloader),
    (id(0x26AC, 0x0016), Relative::Px4Bootloader),
];

/// A loader in DFU mode that is not an STM32's boot ROM. Most of them follow DfuSe, so a write would succeed:
/// they are named, and never opened.
#[derive(Debug, PartialEq, Eq)]
pub struct ForeignLoader {
    pub id: Id,
    pub name: &'static str,
    /// The subject of `meaning`.
    subject: &'static str,
    meaning: &'static str,
}

impl ForeignLoader {
    /// What it means that this device is plugged in, in sentences.
    pub(crate) fn meaning(&self) -> String {
        format!("{} {}", self.subject, self.meaning)
    }
}

const CLONE: &str = "is not the STM32 of a Crazyflie, and cfdfu does not write to it. If you expected your Crazyflie \
    here, another board is plugged in, or its chip is a clone and not made by ST.";
const MAPLE: &str = "runs on small boards with an STM32F103, never on a Crazyflie, and cfdfu does not write to it. If \
    you expected your Crazyflie here, another board is plugged in.";

const fn foreign(id: Id, name: &'static str, subject: &'static str, meaning: &'static str) -> ForeignLoader {
    ForeignLoader { id, name, subject, meaning }
}

/// Loaders that users meet in the place of an STM32's boot ROM. Sources: riscv-mcu/gd32-dfu-utils#5,
/// qmk/qmk_toolbox#238 (APM32) and #481 (AT32), QMK's tables of bootloaders (WB32, Maple).
pub(crate) const FOREIGN_LOADERS: &[ForeignLoader] = &[
    foreign(id(0x28E9, 0x0189), "a GigaDevice GD32 in DFU mode", "A GD32", CLONE),
    foreign(id(0x314B, 0x0106), "a Geehy APM32 in DFU mode", "An APM32", CLONE),
    foreign(id(0x2E3C, 0xDF11), "an Artery AT32 in DFU mode", "An AT32", CLONE),
    foreign(id(0x342D, 0xDFA0), "a Westberry WB32 in DFU mode", "A WB32", CLONE),
    foreign(id(0x1EAF, 0x0003), "a board in the Maple bootloader", "The Maple bootloader", MAPLE),
];

impl fmt::Display for Relative {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Relative::Crazyradio => "a Crazyradio",
            Relative::CrazyradioBootloader => "a Crazyradio in its bootloader",
            Relative::LocoNode => "a Loco Positioning Node",
            Relative::Px4Bootloader => "a Crazyflie with PX4's bootloader",
            Relative::Foreign(loader) => loader.name,
        })
    }
}

/// The serial number that the same chip shows in its boot ROM, from the 24 digits that the firmware
/// shows; `None` if `running` is not of that form.
///
/// The firmware shows the twelve bytes of the unique number in memory order; the ROM shows the sum of the
/// first and third word and the upper half of the second (ST's `Get_SerialNum`).
pub(crate) fn dfu_serial(running: &str) -> Option<String> {
    if running.len() != 24 || !running.is_ascii() {
        return None;
    }
    let word = |at: usize| u32::from_str_radix(running.get(at..at + 8)?, 16).ok().map(u32::swap_bytes);
    let (first, second, third) = (word(0)?, word(8)?, word(16)?);
    Some(format!("{:08X}{:04X}", first.wrapping_add(third), second >> 16))
}

/// Whether two serial numbers, in whatever mode each was shown, can be those of one chip. An unknown one is not. The
/// other way round, equal numbers in DFU mode prove nothing: chips of one batch may share theirs (RM0090 §39.1).
pub fn is_same_serial(one: &str, other: &str) -> bool {
    let folded = |serial: &str| dfu_serial(serial).unwrap_or_else(|| serial.to_ascii_uppercase());
    let both_running = one.len() == 24 && other.len() == 24;
    let same = if both_running { one.eq_ignore_ascii_case(other) } else { folded(one) == folded(other) };
    same && !one.is_empty() && !other.is_empty()
}

/// What every read-protected chip shows in place of its serial number, as the ROM cannot read it.
pub(crate) const HIDDEN_SERIAL: &str = "FFFFFFFEFFFF";

/// Turns the firmware's CRTP link from the radio to USB: from then on it answers on [`CRTP_OUT`] and
/// [`CRTP_IN`].
pub(crate) const LINK_TO_USB: Setup = Setup { request_type: 0x40, request: 1, value: 1, index: 1 };
/// Gives the link back to the radio.
pub(crate) const LINK_TO_RADIO: Setup = Setup { request_type: 0x40, request: 1, value: 1, index: 0 };
/// Where CRTP packets go.
pub(crate) const CRTP_OUT: Pipe = Pipe { interface: 0, endpoint: 0x01 };
/// Where CRTP packets come from.
pub(crate) const CRTP_IN: Pipe = Pipe { interface: 0, endpoint: 0x81 };
/// The longest CRTP packet, in bytes.
pub(crate) const CRTP_MAX: usize = 64;

/// A question to the running firmware's platform service (CRTP port 13, channel 1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CrtpQuestion {
    /// The version, as in `2026.04` or `2025.02 +12`.
    Version = 1,
    /// The name of the board, as in `Crazyflie 2.1`; older firmware does not answer.
    BoardName = 2,
}

impl CrtpQuestion {
    /// The packet to send. The two bits between port and channel are set by everybody.
    pub(crate) fn packet(self) -> [u8; 2] {
        [0xDD, self as u8]
    }

    /// The text in a packet that answers this question; `None` for every other packet.
    pub fn answer(self, packet: &[u8]) -> Option<String> {
        let (&[header, command], text) = packet.split_first_chunk::<2>()?;
        let ours = header & 0xF3 == 0xD1 && command == self as u8;
        let text: Vec<u8> = text.iter().copied().take_while(|&byte| byte != 0).collect();
        let text = clean(&String::from_utf8_lossy(&text));
        (ours && !text.is_empty()).then_some(text)
    }
}

/// How somebody brings a Crazyflie into DFU mode, as an order (§4.2 of Bitcraze's DFU page): works whatever is on it.
pub(crate) const ENTER_BY_HAND: &str = "unplug USB and battery, hold the button while plugging in USB until the slow blink of the \
    blue LED becomes clearly faster (about 5 s), let go";

/// The version of the chip's boot ROM, two digits (AN2606).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RomVersion(u8);

impl RomVersion {
    /// From the byte in system memory; `None` for one that is no version.
    pub fn of(byte: u8) -> Option<RomVersion> {
        (!matches!(byte, 0 | 0xFF)).then_some(RomVersion(byte))
    }

    /// Whether the ROM leaves the CCM memory switched off (AN2606 tables 74 and 76: all of V3, and V9.0). The
    /// Crazyflie's start-up code writes there first, faults, and shows nothing on USB until the power was cut.
    pub fn leaves_drone_dark(self) -> bool {
        self.0 >> 4 == 3 || self.0 == 0x90
    }
}

impl fmt::Display for RomVersion {
    /// As in `9.1`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.0 >> 4, self.0 & 0x0F)
    }
}

/// Bytes of the OTP that hold the board's name: 16 blocks of 32.
pub(crate) const OTP_LEN: u16 = 512;

/// A board as the OTP of its chip names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Board {
    /// Four characters, as in `CF21`.
    pub code: String,
    /// As in `B1`, if it says.
    pub revision: Option<String>,
    /// The OTP is blank, and the firmware takes the board for this one.
    pub assumed: bool,
}

impl Board {
    /// A board of this type, of any revision.
    pub fn named(code: &str) -> Board {
        Board { code: code.to_owned(), revision: None, assumed: false }
    }

    /// What people call it; the code itself if it is not known.
    pub(crate) fn name(&self) -> &str {
        BOARDS.iter().find(|board| board.code == self.code).map_or(&self.code, |board| board.name)
    }
}

impl fmt::Display for Board {
    /// As in `CF21 (Crazyflie 2.1), revision B1`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.code)?;
        if self.name() != self.code {
            write!(f, " ({})", self.name())?;
        }
        if self.assumed {
            f.write_str(", assumed since no board is in the OTP")?;
        }
        self.revision.iter().try_for_each(|revision| write!(f, ", revision {revision}"))
    }
}

/// A type of board that Bitcraze makes.
#[derive(Clone, Copy, Debug)]
pub struct BoardType {
    /// As the OTP has it.
    pub code: &'static str,
    /// As the firmware calls it.
    pub name: &'static str,
    /// The platform whose firmware runs on it, as in the names of releases. The Flapper's runs on types of others.
    pub platform: &'static str,
}

const fn board_type(code: &'static str, name: &'static str, platform: &'static str) -> BoardType {
    BoardType { code, name, platform }
}

/// The types of boards (crazyflie-firmware, `platform_*.c`).
pub const BOARDS: &[BoardType] = &[
    board_type("CF20", "Crazyflie 2.0", "cf2"),
    board_type("CF21", "Crazyflie 2.1", "cf2"),
    board_type("C21B", "Crazyflie 2.1 Brushless", "cf21bl"),
    board_type("RZ10", "Crazyflie Bolt", "bolt"),
    board_type("CB10", "Crazyflie Bolt", "bolt"),
    board_type("CB11", "Crazyflie Bolt 1.1", "bolt"),
    board_type("RR10", "Roadrunner 1.0", "tag"),
];

/// The code of the board that the firmware calls by this name; `None` if none or several are called so.
pub(crate) fn code_of(name: &str) -> Option<&'static str> {
    let mut codes = BOARDS.iter().filter(|board| board.name == name).map(|board| board.code);
    codes.next().filter(|_| codes.next().is_none())
}

/// The platform of the board with this code.
pub(crate) fn platform_of(code: &str) -> Option<&'static str> {
    BOARDS.iter().find(|board| board.code == code).map(|board| board.platform)
}

/// The board, from the OTP of its chip.
///
/// The firmware takes the first block of 32 bytes that does not start with 0 and looks for
/// `0;TYPE;KEY=VALUE…`; blank OTP stands for a Crazyflie 2.0 (crazyflie-firmware, `platform_stm32f4.c`).
/// `None` if what is there is of no known form: then nothing can be said.
pub fn board(otp: &[u8]) -> Option<Board> {
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
        let sectors = (0..SECTORS_KIB.len()).filter(|sector| (free >> sector) & 1 == 0).collect();
        Some(Protection { read: rdp != 0xAA, sectors })
    }
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
            board(&otp).map(|board| board.code)
        };
        assert_eq!(otp(&[b"0;CF21;R=B1\0"]).as_deref(), Some("CF21"));
        assert_eq!(otp(&[b"0;CB10\0"]).as_deref(), Some("CB10"));
        assert_eq!(otp(&[]).as_deref(), Some("CF20"));
        // A block that was given up is all zeros; the next one counts.
        assert_eq!(otp(&[&[0; 32], b"0;RR10;R=B\0"]).as_deref(), Some("RR10"));
        assert_eq!(otp(&[b"1;CF21\0"]), None);
        assert_eq!(otp(&[b"0;cf\x1b[2J\0"]), None);
        assert_eq!(otp(&[&[0xC3; 32]]), None);
        assert_eq!(board(&[]), None);
        assert_eq!(board(&[0; 512]), None);
        let board = board(b"0;CF21;R=B1\0").unwrap();
        assert_eq!(board.to_string(), "CF21 (Crazyflie 2.1), revision B1");
    }

    #[test]
    fn an_answer_is_told_from_the_packets_around_it() {
        let version = |packet: &[u8]| CrtpQuestion::Version.answer(packet);
        assert_eq!(version(b"\xDD\x012026.04\0").as_deref(), Some("2026.04"));
        assert_eq!(version(b"\xD1\x012025.02 +12").as_deref(), Some("2025.02 +12"));
        for other in
            [&b""[..], b"\xDD", b"\xDD\x01", b"\x00SYS: ok", b"\xDD\x02Crazyflie 2.1", b"\xDC\x012026.04"]
        {
            assert_eq!(version(other), None, "{other:?}");
        }
        assert_eq!(version(b"\xDD\x01\x1b[2J\xFF").as_deref().map(|text| text.contains('\x1b')), Some(false));
    }

    #[test]
    fn foreign_loaders_are_known_by_their_numbers_alone() {
        for loader in FOREIGN_LOADERS {
            let relative = Relative::of(loader.id, || panic!("opened {}", loader.id));
            assert_eq!(relative.and_then(Relative::foreign), Some(loader));
            assert_eq!(Mode::of(loader.id, &Strings::default()), None, "{}", loader.name);
        }
        assert_eq!(Relative::of(ROM_DFU, Strings::default), None);
        assert_eq!(Relative::of(CRAZYFLIE, Strings::default), None);
        assert!(!Relative::is_possible(ROM_DFU) && Relative::is_possible(CRAZYFLIE));
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
