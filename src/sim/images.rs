//! Programs for the simulated drone. These synthetic images imitate the vector table, the start-up code and the strings
//! of real images. In place of other code, they contain noise. A checksum lets the simulator distinguish a complete
//! image from an incomplete one.
//!
//! Real firmware is licensed under the GPL. These images do not contain any part of real firmware.

/// Marks an image made by this module. The length follows, then the CRC-32 of all bytes after the CRC.
const MARK: &[u8; 16] = b"cfdfu synthetic\0";
/// The offset of the mark, directly after the 98 vectors.
const MARK_AT: usize = 0x188;
const LEN_AT: usize = MARK_AT + MARK.len();
const CRC_AT: usize = LEN_AT + 4;
const TEXT_AT: usize = CRC_AT + 4;
/// The offset of the code, after the text. The reset vector points to this offset.
const CODE_AT: usize = 0x800;
/// The copy loop of ST's start-up code, in halfwords. Three of its instructions load literals from the pool at
/// [`POOL_AT`].
const COPY: [u16; 11] =
    [0x2100, 0xE003, 0x4B00, 0x585B, 0x5043, 0x3104, 0x4800, 0x4B00, 0x1842, 0x429A, 0xD3F6];
/// The instruction in place of the loops that clear `.bss` and of the call to `main`.
const NOP: u16 = 0xBF00;
/// The offset of the literal pool, after both copy loops.
const POOL_AT: usize = CODE_AT + 0x60;
/// The sizes in bytes of the initial values at the end of an image. The start-up code copies them to RAM and to the
/// CCM.
const DATA_LEN: usize = 1024;
const CCM_LEN: usize = 64;

/// The version of the firmware in the demo.
pub(crate) const VERSION: &str = "2026.08";

/// The size of the firmware that Bitcraze's DFU documentation flashes, in bytes.
pub const FIRMWARE_LEN: usize = 243_176;
/// The size of the smallest firmware that [`firmware`] makes, in bytes.
pub const FIRMWARE_MIN: usize = 4096;

/// Creates Crazyflie firmware of `len` bytes (at least [`FIRMWARE_MIN`]) for these boards, each given as a code and a
/// name.
pub fn firmware(version: &str, boards: &[(&str, &str)], len: usize) -> Vec<u8> {
    let mut text = Vec::new();
    text.extend_from_slice(b"\0Bitcraze AB\0Crazyflie 2.x\0Raw CRTP interface\0");
    let revision = format!("{:08x}{:04x}", crc32fast::hash(version.as_bytes()), len & 0xFFFF);
    text.extend_from_slice(format!("{version}\0{revision}\0\0").as_bytes());
    for (code, name) in boards {
        text.extend_from_slice(format!("{code}\0{name}\0").as_bytes());
        text.resize(text.len().next_multiple_of(44), 0);
    }
    program(0x0800_4000, 0x2001_FFFF, &text, len.max(FIRMWARE_MIN), crc32fast::hash(version.as_bytes()))
}

/// Creates a bootloader with the size (7256 bytes) and the sector table of `cf2loader-1.0.bin`.
pub fn loader() -> Vec<u8> {
    let table = [0x0800_0000_u32, 0x0800_4000, 0x0800_8000, 0x0800_C000]
        .into_iter()
        .chain((0..8).map(|n| if n == 0 { 0x0801_0000 } else { 0x0800_0000 + n * 0x2_0000 }));
    let text: Vec<u8> = table.flat_map(u32::to_le_bytes).collect();
    program(0x0800_0000, 0x2000_5000, &text, 7256, 1)
}

/// Creates a program for another flight controller, linked to run from the start of flash.
pub fn foreign(len: usize) -> Vec<u8> {
    program(0x0800_0000, 0x2002_0000, b"another flight controller", len, 3)
}

fn program(base: u32, stack: u32, text: &[u8], len: usize, seed: u32) -> Vec<u8> {
    let mut bytes = noise(len, seed);
    let entry = base + u32::try_from(CODE_AT).unwrap_or(0) + 1;
    for n in 0..98 {
        // The Cortex-M4 reserves vectors 7 to 10 and 13, so they are 0, as in the real vector table.
        let word = match n {
            0 => stack,
            7..=10 | 13 => 0,
            _ => entry,
        };
        bytes[n * 4..n * 4 + 4].copy_from_slice(&word.to_le_bytes());
    }
    let mut put = |at: usize, part: &[u8]| bytes[at..at + part.len()].copy_from_slice(part);
    put(MARK_AT, MARK);
    put(LEN_AT, &u32::try_from(len).unwrap_or(0).to_le_bytes());
    put(TEXT_AT, text);
    put(CODE_AT, &start_up(base, len));
    let crc = crc32fast::hash(&bytes[TEXT_AT..]);
    bytes[CRC_AT..CRC_AT + 4].copy_from_slice(&crc.to_le_bytes());
    bytes
}

/// Returns the Crazyflie's variant of ST's start-up code: the loops that copy `.data` and `.ccmdata`, and their literal
/// pool.
fn start_up(base: u32, len: usize) -> Vec<u8> {
    let address = |offset: usize| base + u32::try_from(offset).unwrap_or(0);
    let copied = |ram: u32, len: usize| [ram, ram + u32::try_from(len).unwrap_or(0)];
    let [data, ccm] = [len - CCM_LEN - DATA_LEN, len - CCM_LEN];
    let pool = [
        [&[address(data)][..], &copied(0x2000_0000, DATA_LEN)].concat(),
        [&[address(ccm)][..], &copied(0x1000_0000, CCM_LEN)].concat(),
    ]
    .concat();
    let mut code = vec![NOP; (POOL_AT - CODE_AT) / 2];
    for (nth, at) in [0, 20].into_iter().enumerate() {
        code[at..at + COPY.len()].copy_from_slice(&COPY);
        for (literal, index) in [2, 6, 7].into_iter().enumerate() {
            let place = POOL_AT + (nth * 3 + literal) * 4;
            let counter = (CODE_AT + (at + index) * 2 + 4) & !3;
            code[at + index] |= u16::try_from((place - counter) / 4).unwrap_or(0);
        }
    }
    code.into_iter().flat_map(u16::to_le_bytes).chain(pool.into_iter().flat_map(u32::to_le_bytes)).collect()
}

/// Returns pseudo-random bytes without 0xFF, in place of code. Each seed gives different bytes.
fn noise(len: usize, seed: u32) -> Vec<u8> {
    let mut state = 0x9E37_79B9 ^ seed;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        (state >> 24) as u8 & 0xFE
    };
    (0..len).map(|_| next()).collect()
}

/// Returns the initial stack pointer and the reset vector, if the first eight bytes can be the start of a vector table.
pub(crate) fn parse_vectors(bytes: &[u8]) -> Option<(u32, u32)> {
    let word = |at: usize| Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
    let (stack, start) = (word(0)?, word(4)?);
    (stack > 0x2000_0000 && stack <= 0x2002_0000 && start & 1 == 1).then_some((stack, start))
}

/// Returns up to 60 bytes of the text after `mark` in the program at `address`, without the NUL that ends it. Returns
/// no bytes if `mark` is not found.
pub(crate) fn text_after(flash: &[u8], address: u32, mark: &[u8]) -> Vec<u8> {
    let from = address.saturating_sub(0x0800_0000) as usize;
    let program = flash.get(from..).unwrap_or_default();
    let at = program.windows(mark.len()).position(|window| window == mark);
    let text = at.map(|at| &program[at + mark.len()..]).unwrap_or_default();
    text.iter().copied().take_while(|&byte| byte != 0).take(60).collect()
}

/// Returns whether the program at `address` would run on `board`: its initial stack pointer is valid, its reset vector
/// points to code, its checksum is correct if this module made the program, and its text lists the board.
pub(crate) fn can_run(flash: &[u8], address: u32, board: &str) -> bool {
    let Some(image) = address.checked_sub(0x0800_0000).and_then(|from| flash.get(from as usize..)) else {
        return false;
    };
    let Some((_, start)) = parse_vectors(image) else { return false };
    let Some(entry) = (start & !1).checked_sub(address).map(|at| at as usize) else { return false };
    if image.get(entry..entry + 4).is_none_or(|code| code == [0xFF; 4]) {
        return false;
    }
    let mut end = image.len();
    if image.get(MARK_AT..).is_some_and(|rest| rest.starts_with(MARK)) {
        let word = |at: usize| u32::from_le_bytes([image[at], image[at + 1], image[at + 2], image[at + 3]]);
        end = word(LEN_AT) as usize;
        match image.get(TEXT_AT..end) {
            Some(body) if crc32fast::hash(body) == word(CRC_AT) => {}
            _ => return false,
        }
    }
    let name = [board.as_bytes(), b"\0"].concat();
    image[..end].windows(name.len()).any(|window| window == name)
}
