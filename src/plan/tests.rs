//! Compares plans with tables of literal sector addresses, and checks the rules of a plan with property tests.

use proptest::prelude::*;

use super::Comparison::{Blank, Differs, Same};
use super::*;
use crate::image::{Content, Extent, Firmware, Format, Image, Payload, Sha256};
use crate::plan::admission::{self, Overrides};

const BLOCK: u32 = 2048;
const KIB: u32 = 1024;

fn image(content: Content, data: Vec<u8>) -> Image {
    Image {
        format: Format::Bin,
        content,
        extent: Extent::Unknown,
        payload: Payload::Raw(data),
        crc32: 0,
        sha256: Sha256::default(),
        target_device: None,
        notes: vec![],
    }
}

/// Returns firmware of `len` bytes, none of which is 0xFF.
fn firmware(len: usize) -> Image {
    let extent = Extent::Unknown;
    let identity = Firmware { version: None, revision: None, boards: vec![], link: FIRMWARE_BASE, extent };
    image(Content::Firmware(identity), vec![0xA5; len])
}

fn loader(len: usize) -> Image {
    image(Content::Bootloader, vec![0x5A; len])
}

fn plan(len: usize) -> Plan {
    Plan::new(&admission::flash(&firmware(len), Overrides::default()).unwrap(), &MemoryMap::stm32f405())
        .unwrap()
}

fn restore_both(len: usize) -> Plan {
    let approved = admission::restore(&loader(7256), Some(&firmware(len)), Overrides::default()).unwrap();
    Plan::new(&approved, &MemoryMap::stm32f405()).unwrap()
}

fn starts(plan: &Plan) -> Vec<u32> {
    plan.sectors().iter().map(|planned| planned.sector.span.start().0).collect()
}

fn all_differ(plan: &Plan) -> Work {
    plan.work(&vec![Differs; plan.sectors().len()], BLOCK)
}

/// Converts the spans to pairs of start and length, for comparison with literals.
fn pairs(spans: &[Span]) -> Vec<(u32, u32)> {
    spans.iter().map(|span| (span.start().0, span.len())).collect()
}

#[test]
fn a_plan_has_exactly_the_sectors_that_the_image_intersects() {
    let first_five = [0x0800_4000, 0x0800_8000, 0x0800_C000, 0x0801_0000, 0x0802_0000];
    let table: &[(usize, &[u32])] = &[
        (1, &[0x0800_4000]),
        (16 * 1024, &[0x0800_4000]),
        (16 * 1024 + 1, &[0x0800_4000, 0x0800_8000]),
        (48 * 1024, &first_five[..3]),
        (48 * 1024 + 1, &first_five[..4]),
        // Sizes for which dfu-core computes a wrong sector list.
        (120_000, &first_five),
        (253_952, &[0x0800_4000, 0x0800_8000, 0x0800_C000, 0x0801_0000, 0x0802_0000, 0x0804_0000]),
        // Images that end exactly at the end of sector 4 or 5, or one byte beyond it.
        (112 * 1024, &first_five[..4]),
        (112 * 1024 + 1, &first_five),
        (240 * 1024, &first_five),
        (240 * 1024 + 1, &[0x0800_4000, 0x0800_8000, 0x0800_C000, 0x0801_0000, 0x0802_0000, 0x0804_0000]),
        // A release, and the largest image that fits.
        (243_176, &first_five),
        (
            1_032_192,
            &[
                0x0800_4000,
                0x0800_8000,
                0x0800_C000,
                0x0801_0000,
                0x0802_0000,
                0x0804_0000,
                0x0806_0000,
                0x0808_0000,
                0x080A_0000,
                0x080C_0000,
                0x080E_0000,
            ],
        ),
    ];
    for (len, expected) in table {
        assert_eq!(starts(&plan(*len)), *expected, "{len} bytes");
    }
}

#[test]
fn the_head_sector_is_erased_first_and_its_commit_word_written_last() {
    let plan = plan(40_000);
    let work = all_differ(&plan);
    let erased: Vec<_> = work.erase.iter().map(|s| s.span.start().0).collect();
    assert_eq!(erased, [0x0800_4000, 0x0800_8000, 0x0800_C000]);
    assert_eq!(pairs(&work.write[..2]), [(0x0800_4004, 2044), (0x0800_4800, 2048)]);
    assert_eq!(pairs(&work.write[work.write.len() - 1..]), [(0x0800_D800, 40_000 - 0x9800)]);
    assert_eq!(pairs(&work.commit), [(0x0800_4000, 4)]);
    assert_eq!(work.bytes(), 40_000);
}

#[test]
fn a_short_tail_is_padded_to_a_word_with_blank_bytes() {
    let plan = plan(4097);
    let work = all_differ(&plan);
    let last = *work.write.last().unwrap();
    assert_eq!(pairs(&[last]), [(0x0800_5000, 4)]);
    assert_eq!(plan.data(last), [0xA5, 0xFF, 0xFF, 0xFF]);
    assert_eq!(plan.bytes, 4097);
}

#[test]
fn only_differing_sectors_and_the_head_sector_are_rewritten() {
    let plan = plan(120_000);
    assert!(plan.work(&[Same; 5], BLOCK).is_empty());

    let work = plan.work(&[Same, Same, Same, Same, Differs], BLOCK);
    let erased: Vec<_> = work.erase.iter().map(|s| s.index).collect();
    assert_eq!(erased, [1, 5]);
    assert_eq!(pairs(&work.verify), [(0x0800_4004, 16 * KIB - 4), (0x0802_0000, 120_000 - 112 * KIB)]);

    let work = plan.work(&[Blank, Same, Same, Differs, Same], BLOCK);
    assert_eq!(work.erase.iter().map(|s| s.index).collect::<Vec<_>>(), [4]);
    assert_eq!(pairs(&work.commit), [(0x0800_4000, 4)]);
}

#[test]
fn blank_blocks_are_verified_but_not_written() {
    let mut image = firmware(16 * 1024);
    let Payload::Raw(data) = &mut image.payload else { panic!("the payload is not raw") };
    data[4096..8192].fill(0xFF);
    let approved = admission::flash(&image, Overrides::default()).unwrap();
    let plan = Plan::new(&approved, &MemoryMap::stm32f405()).unwrap();
    let work = all_differ(&plan);
    assert_eq!(work.write.len(), 6);
    assert_eq!(pairs(&work.verify), [(0x0800_4004, 16 * KIB - 4)]);
}

#[test]
fn a_restore_erases_the_head_sector_of_the_firmware_first_and_commits_the_bootloader_first() {
    let plan = restore_both(40_000);
    let work = all_differ(&plan);
    assert_eq!(work.erase.iter().map(|s| s.index).collect::<Vec<_>>(), [1, 0, 2, 3]);
    assert_eq!(pairs(&work.commit), [(0x0800_0000, 4), (0x0800_4000, 4)]);

    // Only the bootloader differs, so the firmware is not touched.
    let work = plan.work(&[Differs, Same, Same, Same], BLOCK);
    assert_eq!(work.erase.iter().map(|s| s.index).collect::<Vec<_>>(), [0]);
    assert_eq!(pairs(&work.commit), [(0x0800_0000, 4)]);
}

#[test]
fn the_plan_follows_the_memory_map_of_the_device() {
    let approved = admission::flash(&firmware(3000), Overrides::default()).unwrap();
    let fine = MemoryMap::parse("@Flash/0x08000000/16*1Ka,48*1Kg").unwrap();
    let plan = Plan::new(&approved, &fine).unwrap();
    assert_eq!(starts(&plan), [0x0800_4000, 0x0800_4400, 0x0800_4800]);

    let coarse = MemoryMap::parse("@Flash/0x08000000/4*128Kg").unwrap();
    assert!(matches!(Plan::new(&approved, &coarse), Err(PlanError::TouchesBootloader(_))));
    let read_only = MemoryMap::parse("@Flash/0x08000000/64*1Ka").unwrap();
    assert!(matches!(Plan::new(&approved, &read_only), Err(PlanError::NotWritable { index: 16, .. })));
    let small = MemoryMap::parse("@Flash/0x08000000/18*1Kg").unwrap();
    assert!(matches!(Plan::new(&approved, &small), Err(PlanError::OutsideMap(_))));
}

proptest! {
    #[test]
    fn every_written_byte_is_erased_or_blank_and_every_byte_of_the_image_is_verified_or_unchanged(
        len in 1..=1_032_192_usize,
        answers in prop::collection::vec(0..3_u8, 11),
        block in prop::sample::select(vec![64_u32, 128, 1024, 2048]),
        with_loader: bool,
    ) {
        let plan = if with_loader { restore_both(len) } else { plan(len) };
        let found: Vec<_> = (0..plan.sectors().len())
            .map(|n| [Same, Differs, Blank][answers[n % 11] as usize])
            .collect();
        let work = plan.work(&found, block);

        let erased_or_blank = |span: &Span| {
            plan.sectors().iter().zip(&found).any(|(planned, &found)| {
                let was_blank = found == Blank;
                planned.sector.span.covers(*span) && (was_blank || work.erase.contains(&planned.sector))
            })
        };
        for span in work.write.iter().chain(&work.commit) {
            prop_assert!(erased_or_blank(span), "{span} is written but is neither erased nor blank");
            prop_assert!(span.start().0 % 4 == 0 && span.len() % 4 == 0);
            prop_assert!(span.len() <= block);
        }
        // Nothing is written twice, and everything that is written, except the commit words, is verified.
        let mut written: Vec<Span> = work.write.iter().chain(&work.commit).copied().collect();
        written.sort();
        prop_assert!(written.windows(2).all(|pair| pair[0].end() <= pair[1].start().wide()));
        for span in &work.write {
            prop_assert!(work.verify.iter().any(|verify| verify.covers(*span)));
        }
        // Every byte of the image is unchanged, verified or part of a commit word.
        let same: u64 = plan.sectors().iter().zip(&found)
            .filter(|(planned, _)| !work.verify.iter().any(|v| planned.sector.span.covers(*v))
                && !work.commit.iter().any(|c| planned.sector.span.covers(*c)))
            .inspect(|(_, found)| assert_eq!(**found, Same))
            .flat_map(|(planned, _)| &planned.filled)
            .map(|span| u64::from(span.len())).sum();
        let done: u64 = work.verify.iter().chain(&work.commit).map(|span| u64::from(span.len())).sum();
        let padded: usize = plan.pieces.iter().map(|piece| piece.data.len()).sum();
        prop_assert_eq!(same + done, padded as u64);
        // Only a restore touches the bootloader's sector.
        if !with_loader {
            prop_assert!(work.erase.iter().all(|sector| sector.index != 0));
            prop_assert!(written.iter().all(|span| span.start() >= FIRMWARE_BASE));
        }
        // If any of the firmware is written, its commit word is written last.
        if work.erase.iter().any(|s| s.index > 0) || work.write.iter().any(|s| s.start() > FIRMWARE_BASE) {
            prop_assert_eq!(work.commit.last().map(|head| head.start()), Some(FIRMWARE_BASE));
        }
    }
}
