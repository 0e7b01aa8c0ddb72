//! The flash memory of the STM32F405. Erasing sets all bits, programming only clears bits, and both operations take
//! time. A write-protected sector cannot be programmed, and reports no error (AN3156 §5.1 note 2); the ROM's sector
//! erase skips it.

use std::time::Duration;

pub const START: u32 = 0x0800_0000;
/// The length of the flash: 1 MiB.
pub const LEN: usize = 0x10_0000;

/// The start and length of each of the twelve sectors (RM0090 table 5).
pub const SECTORS: [(u32, u32); 12] = [
    (0x0800_0000, 0x4000),
    (0x0800_4000, 0x4000),
    (0x0800_8000, 0x4000),
    (0x0800_C000, 0x4000),
    (0x0801_0000, 0x1_0000),
    (0x0802_0000, 0x2_0000),
    (0x0804_0000, 0x2_0000),
    (0x0806_0000, 0x2_0000),
    (0x0808_0000, 0x2_0000),
    (0x080A_0000, 0x2_0000),
    (0x080C_0000, 0x2_0000),
    (0x080E_0000, 0x2_0000),
];

/// The number of bits per program operation, which depends on the supply voltage that the host declares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProgramWidth {
    /// 8 bits, for 1.8 to 2.1 V. The ROM starts in this mode.
    Byte,
    /// 16 bits, for 2.1 to 2.7 V.
    Half,
    /// 32 bits, for 2.7 to 3.6 V.
    Word,
}

/// The speed of the flash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// The times in byte mode are computed from public logs of real F405 boards. The times in wider modes are scaled by
    /// the ratio of the typical times in the data sheet.
    Typical,
    /// The maximum times in the data sheet (DS8626 table 40), which a chip reaches at the end of its life.
    Worst,
}

impl Pace {
    /// Returns the time to erase a sector of `len` bytes, in microseconds.
    fn erase_micros(self, len: u32, width: ProgramWidth) -> u64 {
        let (byte, by_width) = match (self, len) {
            (Pace::Typical, 0..=0x4000) => (364_000, [400, 300, 250]),
            (Pace::Typical, 0x4001..=0x1_0000) => (1_130_000, [1200, 700, 550]),
            (Pace::Typical, _) => (1_850_000, [2000, 1300, 1000]),
            (Pace::Worst, 0..=0x4000) => (800_000, [800, 600, 500]),
            (Pace::Worst, 0x4001..=0x1_0000) => (2_400_000, [2400, 1400, 1100]),
            (Pace::Worst, _) => (4_000_000, [4000, 2600, 2000]),
        };
        byte * by_width[width as usize] / by_width[0]
    }

    /// Returns the time of one program operation of any width, in microseconds.
    fn program_micros(self) -> u64 {
        match self {
            Pace::Typical => 16,
            Pace::Worst => 100,
        }
    }
}

/// The flash of one chip.
#[derive(Clone, Debug)]
pub struct Nor {
    bytes: Vec<u8>,
    pub pace: Pace,
    /// The number of erases of each sector.
    pub erases: [u32; SECTORS.len()],
    /// The address of a worn byte, and the bits in it that can no longer be cleared.
    pub worn: Option<(u32, u8)>,
}

impl Nor {
    pub fn new(pace: Pace) -> Nor {
        Nor { bytes: vec![0xFF; LEN], pace, erases: [0; SECTORS.len()], worn: None }
    }

    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Returns `len` bytes starting at `address`, or `None` if not all of these bytes are in flash.
    pub fn read(&self, address: u32, len: usize) -> Option<&[u8]> {
        let from = address.checked_sub(START)? as usize;
        self.bytes.get(from..from.checked_add(len)?)
    }

    /// Returns the index of the sector that contains `address`.
    pub(crate) fn sector_of(address: u32) -> Option<usize> {
        SECTORS.iter().position(|&(start, len)| address >= start && address - start < len)
    }

    /// Returns the time to erase a sector.
    pub fn erase_time(&self, sector: usize, width: ProgramWidth) -> Duration {
        Duration::from_micros(self.pace.erase_micros(SECTORS[sector].1, width))
    }

    /// Returns the time to program `len` bytes.
    pub(crate) fn program_time(&self, len: usize, width: ProgramWidth) -> Duration {
        let operations = len.div_ceil(1 << width as usize);
        Duration::from_micros(self.pace.program_micros() * operations as u64)
    }

    /// Erases a sector, even if it is write-protected, or only the first `share` of it (0.0 to 1.0) if the power fails.
    pub fn erase(&mut self, sector: usize, share: f64) {
        let (start, len) = SECTORS[sector];
        let from = (start - START) as usize;
        let end = from + part(len as usize, share);
        self.bytes[from..end].fill(0xFF);
        self.erases[sector] += 1;
    }

    /// Programs bytes in ascending order, or only the first `share` of them if the power fails. Programming only clears
    /// bits, so the result is the AND of the old and new bytes. Protected sectors do not change.
    pub(crate) fn program(
        &mut self,
        address: u32,
        data: &[u8],
        share: f64,
        protected: impl Fn(usize) -> bool,
    ) {
        for (&byte, at) in data[..part(data.len(), share)].iter().zip(address..) {
            if Nor::sector_of(at).is_some_and(|sector| !protected(sector)) {
                let worn = self.worn.filter(|(address, _)| *address == at).map_or(0, |(_, bits)| bits);
                self.bytes[(at - START) as usize] &= byte | worn;
            }
        }
    }

    /// Sets bytes directly, ignoring the rules of flash memory.
    pub fn place(&mut self, address: u32, data: &[u8]) {
        let from = (address - START) as usize;
        self.bytes[from..from + data.len()].copy_from_slice(data);
    }
}

#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "0 ≤ share ≤ 1, len ≤ 1 MiB"
)]
fn part(len: usize, share: f64) -> usize {
    ((len as f64 * share.clamp(0.0, 1.0)) as usize).min(len)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sectors_fill_the_flash_without_a_gap() {
        let mut at = START;
        for (start, len) in SECTORS {
            assert_eq!(start, at);
            at += len;
        }
        assert_eq!((at - START) as usize, LEN);
    }

    #[test]
    fn programming_without_an_erase_gives_the_and_of_old_and_new_bytes() {
        let mut nor = Nor::new(Pace::Typical);
        nor.program(START, &[0b1100], 1.0, |_| false);
        nor.program(START, &[0b1010], 1.0, |_| false);
        assert_eq!(nor.read(START, 2), Some(&[0b1000, 0xFF][..]));
        nor.program(START + 1, &[0], 1.0, |sector| sector == 0);
        assert_eq!(nor.read(START, 2), Some(&[0b1000, 0xFF][..]));
        nor.erase(0, 1.0);
        assert_eq!(nor.read(START, 1), Some(&[0xFF][..]));
        assert_eq!(nor.read(START + 0xF_FFFF, 2), None);
    }

    #[test]
    fn erase_and_program_times_match_their_sources() {
        let nor = Nor::new(Pace::Typical);
        assert_eq!(nor.erase_time(1, ProgramWidth::Byte).as_millis(), 364);
        assert_eq!(nor.erase_time(4, ProgramWidth::Byte).as_millis(), 1130);
        assert_eq!(nor.erase_time(5, ProgramWidth::Byte).as_millis(), 1850);
        assert_eq!(nor.erase_time(1, ProgramWidth::Word).as_micros(), 227_500);
        assert_eq!(nor.erase_time(5, ProgramWidth::Word).as_millis(), 925);
        assert_eq!(nor.program_time(2048, ProgramWidth::Byte).as_micros(), 32_768);
        assert_eq!(nor.program_time(2048, ProgramWidth::Word).as_micros(), 8192);
        assert_eq!(Nor::new(Pace::Worst).erase_time(11, ProgramWidth::Byte).as_secs(), 4);
    }
}
