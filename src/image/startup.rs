//! Determines from the start-up code whether an image is complete.
//!
//! A raw image has no header, length or checksum. A truncated download would be flashed, would verify without an
//! error, and would then be started, because the bootloader checks only the first word. A plausible vector table is
//! therefore not enough: cfdfu needs positive evidence that the end of the program is present.
//!
//! The linker layout provides this evidence. The initial values of `.data` (and of `.ccmdata` in the Crazyflie's
//! linker script) are at the end of the image, and the reset handler copies them to RAM. The addresses `_sidata`,
//! `_sdata` and `_edata` are in the handler's literal pool, so an image that ends before the last initial value was cut
//! off (crazyflie-firmware, `startup_stm32f40xx.S` and `sections_FLASH.ld`).

use std::ops::Range;

use crate::flash::{Address, FLASH_END};

/// Whether an image has all bytes that its own start-up code reads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Extent {
    /// The start-up code is not recognised, or blank flash at the end cannot be distinguished from values of 0xFF.
    #[default]
    Unknown,
    /// All initial values that are copied to RAM are present.
    Complete,
    Cut {
        /// The size of the image, in bytes.
        bytes: usize,
        /// The minimum size of the complete image, in bytes.
        needs: usize,
    },
    /// A file with addresses lacks some of the initial values that are copied to RAM.
    Gap {
        /// The number of missing bytes.
        bytes: usize,
    },
}

impl Extent {
    /// Returns the value of `complete` in the output of `inspect --json`.
    pub fn complete(self) -> Option<bool> {
        match self {
            Extent::Unknown => None,
            Extent::Complete => Some(true),
            Extent::Cut { .. } | Extent::Gap { .. } => Some(false),
        }
    }
}

/// Both copy loops start within this many bytes of the reset handler. The second loop starts at byte 40.
const CODE_LEN: usize = 128;
/// The copy loop as opcodes and masks. The low byte of an `ldr` from the literal pool is the literal's offset, which
/// varies.
const LOOP: [(u16, u16); 11] = [
    (0x2100, 0xFFFF), // movs r1, #0
    (0xE003, 0xFFFF), // b    1f
    (0x4B00, 0xFF00), // 0: ldr r3, =_sidata
    (0x585B, 0xFFFF), // ldr  r3, [r3, r1]
    (0x5043, 0xFFFF), // str  r3, [r0, r1]
    (0x3104, 0xFFFF), // adds r1, #4
    (0x4800, 0xFF00), // 1: ldr r0, =_sdata
    (0x4B00, 0xFF00), // ldr  r3, =_edata
    (0x1842, 0xFFFF), // adds r2, r0, r1
    (0x429A, 0xFFFF), // cmp  r2, r3
    (0xD3F6, 0xFFFF), // bcc  0b
];
/// The instructions in [`LOOP`] that load `_sidata`, `_sdata` and `_edata`.
const LITERALS: [usize; 3] = [2, 6, 7];

/// Returns the parts that the reset handler at `reset` copies to RAM, as offsets into an image linked for `base`. The
/// ranges may extend past the end of the image. Returns an empty list if no copy loop of the known form with valid
/// addresses is found.
pub(super) fn find_copied_parts(bytes: &[u8], base: Address, reset: u32) -> Vec<Range<usize>> {
    let Some(start) = (reset & !1).checked_sub(base.0).map(|offset| offset as usize) else {
        return Vec::new();
    };
    (start..start.saturating_add(CODE_LEN))
        .step_by(2)
        .filter_map(|at| find_source(read_literals(bytes, at)?, base))
        .filter(|part| !part.is_empty())
        .collect()
}

/// Returns `_sidata`, `_sdata` and `_edata` of the copy loop at this offset, if there is a copy loop.
fn read_literals(bytes: &[u8], at: usize) -> Option<[u32; 3]> {
    let code = bytes.get(at..at.checked_add(LOOP.len() * 2)?)?;
    let code = code.as_chunks::<2>().0.iter().map(|&half| u16::from_le_bytes(half));
    let code: Vec<u16> = code.collect();
    if code.iter().zip(LOOP).any(|(half, (opcode, mask))| half & mask != opcode) {
        return None;
    }
    let literal = |index: usize| {
        // ARMv7-M ARM A7.7.43, encoding T1: relative to the address of the instruction plus 4, rounded down to a word.
        // The base is a multiple of 4, so offsets can be used instead of addresses.
        let place = ((at + index * 2 + 4) & !3) + usize::from(code[index] & 0xFF) * 4;
        let word = bytes.get(place..place + 4)?;
        Some(u32::from_le_bytes(word.try_into().ok()?))
    };
    let [from, start, end] = LITERALS;
    Some([literal(from)?, literal(start)?, literal(end)?])
}

/// Returns the source of the copy, as offsets into the image. Returns `None` if the source is not in flash, or the
/// destination is not in RAM or CCM.
fn find_source([from, start, end]: [u32; 3], base: Address) -> Option<Range<usize>> {
    let within = |low: u32, high: u32| (low..=high).contains(&start) && (start..=high).contains(&end);
    let ram = within(0x2000_0000, 0x2002_0000) || within(0x1000_0000, 0x1001_0000);
    let len = end.checked_sub(start)?;
    let from_flash = from >= base.0 && u64::from(from) + u64::from(len) <= FLASH_END;
    let offset = from.checked_sub(base.0)? as usize;
    (ram && from_flash).then(|| offset..offset + len as usize)
}

/// Returns the extent of a file of `len` bytes with these gaps. Padding at the end is allowed.
pub(super) fn extent_of_file(copied: &[Range<usize>], len: usize, gaps: &[Range<usize>]) -> Extent {
    let Some(needs) = copied.iter().map(|part| part.end).max() else { return Extent::Unknown };
    if len < needs {
        return Extent::Cut { bytes: len, needs };
    }
    let shared = |part: &Range<usize>, gap: &Range<usize>| {
        part.end.min(gap.end).saturating_sub(part.start.max(gap.start))
    };
    let bytes = copied.iter().flat_map(|part| gaps.iter().map(move |gap| shared(part, gap))).sum();
    if bytes > 0 { Extent::Gap { bytes } } else { Extent::Complete }
}

/// No program contains this many consecutive blank bytes.
const BLANK_RUN: usize = 16 * 1024;

/// Returns the extent of a program in flash. `read` bytes were read, and the bytes from `end` onwards are blank.
///
/// Initial values of 0xFF look like flash that was never written. The program therefore counts as incomplete only if
/// all of the initial values are blank, which never happens in complete firmware because the initial values include
/// pointers. If the blank range begins among the initial values, or if reading may have stopped before the end of the
/// program, the result is [`Extent::Unknown`].
pub(super) fn extent_in_flash(copied: &[Range<usize>], end: usize, read: usize) -> Extent {
    let needs = copied.iter().map(|part| part.end).max();
    let (Some(needs), Some(first)) = (needs, copied.iter().map(|part| part.start).min()) else {
        return Extent::Unknown;
    };
    let blank = read.saturating_sub(end);
    match () {
        () if end >= needs => Extent::Complete,
        () if end <= first && (read >= needs || blank >= BLANK_RUN) => Extent::Cut { bytes: end, needs },
        () => Extent::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flash::FIRMWARE_BASE;

    /// The offset of the reset handler.
    const RESET: usize = 0x800;
    const RESET_VECTOR: u32 = FIRMWARE_BASE.0 + 0x801;

    /// Writes a copy loop at `at`, with its three literals at `pool`.
    fn copy_loop(bytes: &mut [u8], at: usize, pool: usize, literals: [u32; 3]) {
        for (n, (opcode, _)) in LOOP.into_iter().enumerate() {
            let literal = LITERALS.iter().position(|&index| index == n);
            let offset = literal.map_or(0, |index| (pool + index * 4 - ((at + n * 2 + 4) & !3)) / 4);
            let half = opcode | u16::try_from(offset).unwrap();
            bytes[at + n * 2..at + n * 2 + 2].copy_from_slice(&half.to_le_bytes());
        }
        for (n, word) in literals.into_iter().enumerate() {
            bytes[pool + n * 4..pool + n * 4 + 4].copy_from_slice(&word.to_le_bytes());
        }
    }

    fn image(literals: [u32; 3]) -> Vec<u8> {
        let mut bytes = vec![0; 4096];
        copy_loop(&mut bytes, RESET, 0x880, literals);
        bytes
    }

    fn found(bytes: &[u8]) -> Vec<Range<usize>> {
        find_copied_parts(bytes, FIRMWARE_BASE, RESET_VECTOR)
    }

    #[test]
    fn the_literals_of_both_copy_loops_are_found() {
        let mut bytes = image([0x0800_5000, 0x2000_0000, 0x2000_0400]);
        assert_eq!(found(&bytes), vec![0x1000..0x1400; 1]);
        // The second loop is not at a multiple of four: the offset to the pool is relative to the rounded address.
        copy_loop(&mut bytes, RESET + 42, 0x8A0, [0x0800_5400, 0x1000_0000, 0x1000_0010]);
        assert_eq!(found(&bytes), [0x1000..0x1400, 0x1400..0x1410]);
    }

    #[test]
    fn an_empty_data_section_is_not_copied() {
        assert_eq!(found(&image([0x0800_5000, 0x2000_0000, 0x2000_0000])), []);
    }

    #[test]
    fn invalid_addresses_are_ignored() {
        for literals in [
            [0x0800_3000, 0x2000_0000, 0x2000_0400],
            [0x0810_0000, 0x2000_0000, 0x2000_0400],
            [0xFFFF_FFFC, 0x2000_0000, 0x2000_0400],
            [0x0800_5000, 0x2000_0400, 0x2000_0000],
            [0x0800_5000, 0x2000_0000, 0x2002_0004],
            [0x0800_5000, 0x1000_0000, 0x2000_0000],
            [0x0800_5000, 0x4000_0000, 0x4000_0400],
            [0; 3],
            [u32::MAX; 3],
        ] {
            assert_eq!(found(&image(literals)), [], "{literals:X?}");
        }
    }

    #[test]
    fn changed_or_truncated_code_is_not_a_copy_loop() {
        let good = image([0x0800_5000, 0x2000_0000, 0x2000_0400]);
        for (n, (_, mask)) in LOOP.into_iter().enumerate() {
            let mut changed = good.clone();
            changed[RESET + n * 2 + 1] ^= 0x40;
            assert_eq!(found(&changed), [], "high byte of {n}");
            if mask == 0xFFFF {
                let mut changed = good.clone();
                changed[RESET + n * 2] ^= 1;
                assert_eq!(found(&changed), [], "low byte of {n}");
            }
        }
        // Truncated in the code and in the literal pool.
        for len in (0..RESET + 22).chain(0x880..0x88C) {
            assert_eq!(found(&good[..len]), [], "{len}");
        }
        for reset in [0, 1, 0x0800_3FFF, u32::MAX] {
            assert_eq!(find_copied_parts(&good, FIRMWARE_BASE, reset), [], "{reset:X}");
        }
    }

    #[test]
    fn a_complete_file_contains_all_bytes_that_are_copied() {
        let parts = [1000..1400, 1400..1416];
        assert_eq!(extent_of_file(&[], 7, &[]), Extent::Unknown);
        assert_eq!(extent_of_file(&parts, 1415, &[]), Extent::Cut { bytes: 1415, needs: 1416 });
        assert_eq!(extent_of_file(&parts, 1416, &[]), Extent::Complete);
        assert_eq!(extent_of_file(&parts, 100_000, &[]), Extent::Complete);
        let gap = |gap: Range<usize>| extent_of_file(&parts, 2000, &[gap]);
        assert_eq!(gap(900..1000), Extent::Complete);
        assert_eq!(gap(900..1010), Extent::Gap { bytes: 10 });
        assert_eq!(gap(1390..1500), Extent::Gap { bytes: 26 });
        assert_eq!(gap(1416..1500), Extent::Complete);
    }

    #[test]
    fn blank_flash_counts_as_missing_only_if_all_initial_values_are_blank() {
        let parts = [100_000..100_400, 100_400..100_416];
        let cut = |bytes| Extent::Cut { bytes, needs: 100_416 };
        assert_eq!(extent_in_flash(&parts, 100_416, 100_416), Extent::Complete);
        assert_eq!(extent_in_flash(&parts, 100_416, 200_000), Extent::Complete);
        // All initial values were read, and all are blank.
        assert_eq!(extent_in_flash(&parts, 50_000, 200_000), cut(50_000));
        assert_eq!(extent_in_flash(&parts, 100_000, 100_416), cut(100_000));
        // The firmware may be complete and end in values of 0xFF.
        assert_eq!(extent_in_flash(&parts, 100_415, 200_000), Extent::Unknown);
        assert_eq!(extent_in_flash(&parts, 100_001, 200_000), Extent::Unknown);
        // Reading stopped after a blank range, first of a length that no program contains, then shorter.
        assert_eq!(extent_in_flash(&parts, 50_000, 50_000 + BLANK_RUN), cut(50_000));
        assert_eq!(extent_in_flash(&parts, 50_000, 50_000 + BLANK_RUN - 1), Extent::Unknown);
        assert_eq!(extent_in_flash(&parts, 50_000, 50_000), Extent::Unknown);
        assert_eq!(extent_in_flash(&[], 50_000, 200_000), Extent::Unknown);
    }
}
