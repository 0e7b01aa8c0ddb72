//! Identifies a raw image: Crazyflie firmware, the Bitcraze bootloader, an image for the radio chip, or something else.
//!
//! These files have no header, magic number or checksum. The rules use the vector table and the strings of a build.
//! They correctly identify eleven builds from five platforms and five releases. The initial stack pointer of valid
//! firmware is 0x2001FFFF, which is odd, so the alignment of the stack pointer is not checked.

use std::fmt;
use std::ops::Range;

use super::startup::{self, Extent};
use crate::crazyflie;
use crate::flash::{Address, BLANK, FIRMWARE_BASE, FIRMWARE_MAX, FLASH_END, LOADER_BASE, LOADER_MAX, Span};

/// Number of words in the vector table: 16 for the core and 82 for interrupts (RM0090 table 62).
const VECTORS: usize = 98;
/// Length of the vector table, in bytes.
const VECTORS_LEN: usize = VECTORS * 4;
/// Maximum length of a version, in bytes.
const VERSION_MAX: usize = 40;
/// Maximum number of boards to read. Real platforms have at most three.
const BOARDS_MAX: usize = 16;
/// Length of the abbreviated git hash that follows the version, in characters.
const REVISION_LEN: usize = 12;
/// The firmware's platform table has 30 bytes for a board name, including the NUL.
const BOARD_NAME_MAX: usize = 29;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// Crazyflie firmware for the STM32.
    Firmware(Firmware),
    /// The Bitcraze bootloader for the STM32 (`cf2loader`).
    Bootloader,
    /// An image for the nRF51 radio chip, which USB DFU cannot reach.
    Radio,
    /// A copy of the flash, or a file that contains both the bootloader and firmware.
    WholeFlash(WholeFlash),
    /// Any other content. The link address is known if the vectors point into the image.
    Unknown {
        /// [`FIRMWARE_BASE`] or [`LOADER_BASE`].
        link: Option<Address>,
    },
}

/// The content of a copy of the flash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WholeFlash {
    /// Whether the copy starts with the Bitcraze bootloader.
    pub loader: bool,
    /// The firmware after the bootloader's sector, if recognised.
    pub firmware: Option<Firmware>,
}

/// The identity of firmware, as read from its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Firmware {
    /// The git tag and the number of commits after it, for example `2026.04` or `2025.02 +12`.
    pub version: Option<String>,
    /// The first twelve digits of the git commit hash.
    pub revision: Option<String>,
    /// The boards that the firmware supports. On any other board, the firmware halts silently.
    pub boards: Vec<BoardKind>,
    /// The address that the firmware is linked for.
    pub link: Address,
    /// Whether the firmware is complete.
    pub extent: Extent,
}

/// An entry in the firmware's table of supported boards.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BoardKind {
    /// Four characters, for example `CF21`.
    pub code: String,
    /// For example `Crazyflie 2.1`.
    pub name: String,
}

impl Firmware {
    /// Returns the platform of the build, as named in releases, or `None` if cfdfu knows none of the boards.
    ///
    /// The Flapper uses the boards of other platforms, so only the board names identify a Flapper.
    pub fn platform(&self) -> Option<&'static str> {
        if self.boards.iter().any(|board| board.name.starts_with("Flapper")) {
            return Some("flapper");
        }
        self.boards.iter().find_map(|board| crazyflie::platform_of(&board.code))
    }
}

impl fmt::Display for Firmware {
    /// Writes a description such as "firmware 2026.04 for CF20, CF21" or "incomplete firmware …".
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let incomplete = if self.is_incomplete() { "incomplete " } else { "" };
        write!(f, "{incomplete}firmware {}", self.version_and_boards())
    }
}

impl Firmware {
    /// Describes the firmware for a row that is labelled "firmware": "2026.04 for CF20, CF21" or "incomplete, …".
    pub(crate) fn details(&self) -> String {
        let incomplete = if self.is_incomplete() { "incomplete, " } else { "" };
        format!("{incomplete}{}", self.version_and_boards())
    }

    fn is_incomplete(&self) -> bool {
        self.extent.complete() == Some(false)
    }

    fn version_and_boards(&self) -> String {
        let version = self.version.as_deref().unwrap_or("of unknown version");
        let codes: Vec<&str> = self.boards.iter().map(|board| board.code.as_str()).collect();
        let boards = match self.platform() {
            _ if codes.is_empty() => "unknown boards".to_owned(),
            Some("flapper") => format!("the Flapper ({})", codes.join(", ")),
            _ => codes.join(", "),
        };
        format!("{version} for {boards}")
    }
}

impl fmt::Display for Content {
    /// Writes a short description without a full stop.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Content::Firmware(firmware) => firmware.fmt(f),
            Content::Bootloader => f.write_str("the Bitcraze bootloader"),
            Content::Radio => f.write_str("for the radio chip (nRF51)"),
            Content::WholeFlash(WholeFlash { loader, firmware }) => {
                f.write_str(if *loader {
                    "bootloader and "
                } else {
                    "a copy of the flash without a bootloader, "
                })?;
                match firmware {
                    Some(firmware) => firmware.fmt(f),
                    None => f.write_str("no firmware"),
                }
            }
            Content::Unknown { .. } => f.write_str("not recognised"),
        }
    }
}

impl Content {
    pub fn firmware(&self) -> Option<&Firmware> {
        match self {
            Content::Firmware(firmware) => Some(firmware),
            Content::WholeFlash(whole) => whole.firmware.as_ref(),
            Content::Bootloader | Content::Radio | Content::Unknown { .. } => None,
        }
    }

    /// Returns the address that the program is linked for, if known.
    pub(crate) fn link(&self) -> Option<Address> {
        match self {
            Content::Firmware(firmware) => Some(firmware.link),
            Content::Bootloader | Content::WholeFlash(_) => Some(LOADER_BASE),
            Content::Radio => None,
            Content::Unknown { link } => *link,
        }
    }

    /// Identifies the content of a file or of a part of a file.
    pub fn of(bytes: &[u8]) -> Content {
        classify(bytes, &[]).0
    }

    /// Identifies the content of a part of flash, ignoring the blank bytes at its end. Returns `None` if every byte is
    /// blank.
    pub fn in_flash(bytes: &[u8]) -> Option<Content> {
        let written = without_blank_end(bytes);
        (!written.is_empty()).then(|| recognise(written, &ReadFrom::Flash { read: bytes.len() }).0)
    }

    /// Returns the value in the output of `inspect --json`.
    pub(crate) fn json_name(&self) -> &'static str {
        match self {
            Content::Firmware(_) => "firmware",
            Content::Bootloader => "bootloader",
            Content::Radio => "radio",
            Content::WholeFlash(_) => "backup",
            Content::Unknown { .. } => "unknown",
        }
    }
}

/// The source of the bytes of a program. The missing end of a program looks different in a file and in flash.
enum ReadFrom<'a> {
    /// A file, with the gaps between its segments.
    File { gaps: &'a [Range<usize>] },
    /// Flash, of which `read` bytes were read before the blank bytes at the end were removed.
    Flash { read: usize },
}

/// Identifies the bytes of an image file and checks whether the program in it is complete. `gaps` are the gaps between
/// the segments of the file, if the file has addresses.
pub(super) fn classify(bytes: &[u8], gaps: &[Range<usize>]) -> (Content, Extent) {
    recognise(bytes, &ReadFrom::File { gaps })
}

fn recognise(bytes: &[u8], read_from: &ReadFrom<'_>) -> (Content, Extent) {
    match whole_flash(bytes, read_from) {
        Some((whole, extent)) => (Content::WholeFlash(whole), extent),
        None => program(bytes, read_from),
    }
}

/// Recognises a bootloader followed by firmware, and any content that is exactly as large as the flash. The returned
/// extent describes the firmware.
fn whole_flash(bytes: &[u8], read_from: &ReadFrom<'_>) -> Option<(WholeFlash, Extent)> {
    let (first, rest) = bytes.split_at_checked(LOADER_MAX)?;
    let loader = program(first, &ReadFrom::File { gaps: &[] }).0 == Content::Bootloader;
    let whole = rest.len() == FIRMWARE_MAX;
    if !loader && !whole {
        return None;
    }
    let after_loader = |at: usize| at.saturating_sub(LOADER_MAX);
    let (content, extent) = match read_from {
        // In a copy of the flash, the blank end was never written and is not padding.
        ReadFrom::File { .. } if whole => {
            program(without_blank_end(rest), &ReadFrom::Flash { read: rest.len() })
        }
        ReadFrom::File { gaps } => {
            let gaps = gaps.iter().map(|gap| after_loader(gap.start)..after_loader(gap.end));
            program(rest, &ReadFrom::File { gaps: &gaps.collect::<Vec<_>>() })
        }
        ReadFrom::Flash { read } => program(rest, &ReadFrom::Flash { read: after_loader(*read) }),
    };
    let (firmware, extent) = match content {
        Content::Firmware(firmware) if firmware.link == FIRMWARE_BASE => (Some(firmware), extent),
        _ => (None, Extent::Unknown),
    };
    // A bootloader followed by padding is not a copy of the flash: the padding would be written.
    (whole || firmware.is_some()).then_some((WholeFlash { loader, firmware }, extent))
}

fn without_blank_end(bytes: &[u8]) -> &[u8] {
    let len = bytes.iter().rposition(|&byte| byte != BLANK).map_or(0, |last| last + 1);
    &bytes[..len]
}

/// Identifies a single program and checks whether it is complete.
fn program(bytes: &[u8], read_from: &ReadFrom<'_>) -> (Content, Extent) {
    let unknown = |extent| (Content::Unknown { link: None }, extent);
    let Some(vectors) = Vectors::read(bytes) else { return unknown(Extent::Unknown) };
    if vectors.fit_nrf51() {
        return (Content::Radio, Extent::Unknown);
    }
    let Some(link) = vectors.link(bytes) else {
        let is_file = matches!(read_from, ReadFrom::File { .. });
        return unknown(if is_file { vectors.extent(bytes.len()) } else { Extent::Unknown });
    };
    let copied = startup::find_copied_parts(bytes, link, vectors.reset);
    let extent = match read_from {
        ReadFrom::File { gaps } => startup::extent_of_file(&copied, bytes.len(), gaps),
        ReadFrom::Flash { read } => startup::extent_in_flash(&copied, bytes.len(), *read),
    };
    if link == LOADER_BASE && bytes.len() <= LOADER_MAX && has_sector_table(bytes) {
        return (Content::Bootloader, extent);
    }
    let (version, revision) = version(bytes).unzip();
    let boards = boards(bytes);
    let crazyflie = !boards.is_empty() || (revision.is_some() && find(bytes, b"Bitcraze").is_some());
    let content = if crazyflie && bytes.len() <= FIRMWARE_MAX {
        Content::Firmware(Firmware { version, revision, boards, link, extent })
    } else {
        Content::Unknown { link: Some(link) }
    };
    (content, extent)
}

/// The first words of an image: initial stack pointer, reset vector, exception and interrupt handlers.
struct Vectors {
    stack: u32,
    reset: u32,
    handlers: Vec<u32>,
}

impl Vectors {
    fn read(bytes: &[u8]) -> Option<Vectors> {
        let table = &bytes[..bytes.len().min(VECTORS_LEN)];
        let mut words = words(table);
        let (stack, reset) = (words.next()?, words.next()?);
        Some(Vectors { stack, reset, handlers: words.filter(|&word| word != 0).collect() })
    }

    /// Returns whether the vectors are valid for the nRF51822, which has 256 KiB of flash at 0 and 16 or 32 KiB of RAM.
    fn fit_nrf51(&self) -> bool {
        (0x2000_0001..=0x2000_8000).contains(&self.stack)
            && self.reset & 1 == 1
            && (0x100..0x0004_0000).contains(&self.reset)
    }

    /// Returns the base address for which the stack, the reset vector and all handlers are valid, if any.
    ///
    /// The addresses of a long image may be valid for both bases. The start-up code then decides, because the reset
    /// vector points to the start-up code for only one of the bases. If no start-up code is found, the higher base is
    /// chosen: an image for the lower base is unlikely to have all of its handlers outside its first 16 KiB.
    fn link(&self, bytes: &[u8]) -> Option<Address> {
        if bytes.len() < VECTORS_LEN || !(0x2000_0001..=0x2002_0000).contains(&self.stack) {
            return None;
        }
        let fits = |base: Address| {
            let code = u32::try_from(bytes.len()).ok().and_then(|len| Span::new(base, len));
            let inside =
                |word: u32| code.is_some_and(|code| word & 1 == 1 && code.contains(Address(word & !1)));
            inside(self.reset) && self.handlers.iter().all(|&word| inside(word))
        };
        let mut bases = [FIRMWARE_BASE, LOADER_BASE].into_iter().filter(|&base| fits(base)).peekable();
        let highest = *bases.peek()?;
        bases.find(|&base| self.starts_at(bytes, base)).or(Some(highest))
    }

    /// Detects Crazyflie firmware that ends before its last handler: the initial stack pointer is the value from the
    /// linker script (crazyflie-firmware, `DEF_CLOAD.ld`), and all handlers are after the bootloader. `needs` is only
    /// a lower bound here, because the start-up code with the exact size may be missing.
    fn extent(&self, bytes: usize) -> Extent {
        let sound = |word: u32| {
            word & 1 == 1 && (FIRMWARE_BASE.wide() + VECTORS_LEN as u64..FLASH_END).contains(&u64::from(word))
        };
        let all = || std::iter::once(self.reset).chain(self.handlers.iter().copied());
        let needs = all().max().map_or(0, |last| last.saturating_sub(FIRMWARE_BASE.0) as usize + 1);
        if self.stack == 0x2001_FFFF && bytes >= VECTORS_LEN && all().all(sound) && needs > bytes {
            Extent::Cut { bytes, needs }
        } else {
            Extent::Unknown
        }
    }

    /// Returns whether the reset vector points to `movs r1, #0` and a branch. All builds share these first instructions
    /// of ST's start-up file.
    fn starts_at(&self, bytes: &[u8], base: Address) -> bool {
        let offset = (self.reset & !1).checked_sub(base.0).map(|offset| offset as usize);
        offset.and_then(|at| bytes.get(at..at + 4)) == Some(&[0x00, 0x21, 0x03, 0xE0])
    }
}

fn words(bytes: &[u8]) -> impl Iterator<Item = u32> {
    bytes.as_chunks().0.iter().map(|&word| u32::from_le_bytes(word))
}

/// Returns whether the image contains the table of sector addresses that the bootloader uses.
fn has_sector_table(bytes: &[u8]) -> bool {
    let table: Vec<u8> =
        [0x0800_0000_u32, 0x0800_4000, 0x0800_8000, 0x0800_C000, 0x0801_0000, 0x0802_0000, 0x0804_0000]
            .iter()
            .flat_map(|address| address.to_le_bytes())
            .collect();
    find(bytes, &table).is_some()
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}

/// Reads the version and the revision, which every build stores as `<tag>\0<12 hex digits>\0`.
fn version(bytes: &[u8]) -> Option<(String, String)> {
    bytes
        .windows(REVISION_LEN + 2)
        .enumerate()
        .filter(|(_, window)| {
            window[0] == 0
                && window[REVISION_LEN + 1] == 0
                && window[1..=REVISION_LEN].iter().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(b))
        })
        .find_map(|(at, window)| {
            let revision = String::from_utf8(window[1..=REVISION_LEN].to_vec()).ok()?;
            Some((version_before(&bytes[..at])?, revision))
        })
}

/// Returns the text at the end of `bytes`, if the text is a release tag such as `2025.02 +12`.
fn version_before(bytes: &[u8]) -> Option<String> {
    let end = bytes.iter().rposition(|&b| b != 0)? + 1;
    let printable = |b: &&u8| b.is_ascii_alphanumeric() || b". +-".contains(*b);
    let len = bytes[..end].iter().rev().take(VERSION_MAX).take_while(printable).count();
    let text = std::str::from_utf8(&bytes[end - len..end]).ok()?;
    // Other text may precede the tag without a NUL in between, so the last year in the text starts the tag.
    text.char_indices().rev().map(|(at, _)| &text[at..]).find(|tag| is_release(tag)).map(str::to_owned)
}

/// Returns whether `tag` has the form of `2025.02` or `2025.02 +12`: a year from 1900 to 2099, a dot and at least one
/// letter or digit, optionally followed by a space, a plus sign and the number of commits.
fn is_release(tag: &str) -> bool {
    let (tag, commits) = tag.split_once(' ').unwrap_or((tag, "+0"));
    let year = tag.split_once('.').map(|(year, rest)| (year.as_bytes(), rest));
    let year = matches!(year, Some((&[b'1', b'9', c, d] | &[b'2', b'0', c, d], rest))
        if c.is_ascii_digit() && d.is_ascii_digit() && rest.starts_with(|c: char| c.is_ascii_alphanumeric()));
    let digits =
        commits.strip_prefix('+').is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()));
    year && digits
}

/// Reads the platform table, whose entries are a four-character code, a NUL and the name of the board.
fn boards(bytes: &[u8]) -> Vec<BoardKind> {
    const FAMILIES: [&[u8]; 3] = [b"Crazyflie", b"Flapper", b"Roadrunner"];
    let mut boards: Vec<BoardKind> = Vec::new();
    for at in 5..bytes.len() {
        if boards.len() >= BOARDS_MAX {
            break;
        }
        let (before, name) = bytes.split_at(at);
        if before[at - 1] != 0 || !FAMILIES.iter().any(|family| name.starts_with(family)) {
            continue;
        }
        let code = &before[at - 5..at - 1];
        let len = name.iter().take(BOARD_NAME_MAX + 1).take_while(|b| (b' '..=b'~').contains(b)).count();
        let terminated = len <= BOARD_NAME_MAX && name.get(len) == Some(&0);
        if terminated && code.iter().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit()) {
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            let board = BoardKind { code: text(code), name: text(&name[..len]) };
            if !boards.contains(&board) {
                boards.push(board);
            }
        }
    }
    boards
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns an image with the strings, stack pointer and reset vector of a real build, cf2 2026.04.
    fn cf2(base: u32, len: u32) -> Vec<u8> {
        let mut bytes: Vec<u8> =
            (0..len).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8 | 1).collect();
        for (n, word) in [0x2001_FFFF, base + 0x1_5CBD].into_iter().enumerate() {
            bytes[n * 4..n * 4 + 4].copy_from_slice(&u32::to_le_bytes(word));
        }
        for n in 2..VECTORS {
            let word = if n % 20 == 7 { 0 } else { base + 0x1_5D01 };
            bytes[n * 4..n * 4 + 4].copy_from_slice(&u32::to_le_bytes(word));
        }
        bytes[0x1_5CBC..0x1_5CC0].copy_from_slice(&[0x00, 0x21, 0x03, 0xE0]);
        let text =
            b"\0Bitcraze AB\x002026.04\x00992fe7c2e9b0\0\0CF20\0Crazyflie 2.0\0\0\0CF21\0Crazyflie 2.1\0";
        bytes[0x2_0000..0x2_0000 + text.len()].copy_from_slice(text);
        bytes
    }

    fn firmware(bytes: &[u8]) -> Firmware {
        match Content::of(bytes) {
            Content::Firmware(firmware) => firmware,
            other => panic!("not firmware: {other:?}"),
        }
    }

    #[test]
    fn the_version_revision_boards_and_link_address_of_firmware_are_read() {
        let found = firmware(&cf2(0x0800_4000, 291_324));
        assert_eq!(found.version.as_deref(), Some("2026.04"));
        assert_eq!(found.revision.as_deref(), Some("992fe7c2e9b0"));
        let boards: Vec<_> = found.boards.iter().map(|b| (b.code.as_str(), b.name.as_str())).collect();
        assert_eq!(boards, [("CF20", "Crazyflie 2.0"), ("CF21", "Crazyflie 2.1")]);
        assert_eq!(found.link, FIRMWARE_BASE);
    }

    #[test]
    fn firmware_linked_for_the_bootloader_address_is_recognised() {
        assert_eq!(firmware(&cf2(0x0800_0000, 291_324)).link, LOADER_BASE);
    }

    #[test]
    fn only_versions_in_the_form_of_a_release_tag_are_read() {
        let read = |text: &[u8]| version(text).map(|(version, _)| version);
        assert_eq!(read(b"x\x002025.02 +12\x0080ee72ad480a\0").as_deref(), Some("2025.02 +12"));
        assert_eq!(read(b"x\x002025.09.1\0\0\x0080ee72ad480a\0").as_deref(), Some("2025.09.1"));
        assert_eq!(read(b"x\x002022.12-rc1\x0080ee72ad480a\0").as_deref(), Some("2022.12-rc1"));
        assert_eq!(read(b"v2024.2\x0080ee72ad480a\0").as_deref(), Some("2024.2"));
        assert_eq!(read(b"x\0NA\x0080ee72ad480a\0"), None);
        assert_eq!(read(b"x\x002025.02\x0080EE72AD480A\0"), None);
        assert_eq!(read(b"\x0080ee72ad480a\0"), None);
    }

    #[test]
    fn the_bootloader_is_recognised_by_its_sector_table() {
        let mut loader = vec![0x55; 7256];
        for n in 0..VECTORS {
            loader[n * 4..n * 4 + 4].copy_from_slice(&0x0800_02BD_u32.to_le_bytes());
        }
        loader[..4].copy_from_slice(&0x2000_5000_u32.to_le_bytes());
        assert_eq!(Content::of(&loader), Content::Unknown { link: Some(LOADER_BASE) });
        for (n, k) in [0, 0x4, 0x8, 0xC, 0x10, 0x20, 0x40].into_iter().enumerate() {
            let word = 0x0800_0000_u32 + k * 0x1000;
            loader[0x1C0C + n * 4..0x1C10 + n * 4].copy_from_slice(&word.to_le_bytes());
        }
        assert_eq!(Content::of(&loader), Content::Bootloader);
    }

    #[test]
    fn an_image_for_the_radio_chip_is_recognised_by_its_vectors() {
        let mut radio = vec![0x11; 60_000];
        radio[..4].copy_from_slice(&0x2000_4000_u32.to_le_bytes());
        radio[4..8].copy_from_slice(&0x0001_B2C1_u32.to_le_bytes());
        assert_eq!(Content::of(&radio), Content::Radio);
    }
}
