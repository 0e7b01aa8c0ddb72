//! Tests of the behaviour that all image formats share. The formats themselves are tested with a corpus of files in
//! `tests/it/corpus.rs`.

use super::*;
use crate::flash::FIRMWARE_BASE;

fn segment(address: u32, len: usize) -> Segment {
    Segment { address: Address(address), data: (0..=250).cycle().take(len).collect() }
}

#[test]
fn empty_blank_and_oversized_files_are_refused() {
    assert_eq!(Image::parse(vec![]), Err(ImageError::Empty));
    assert_eq!(Image::parse(vec![0xFF; 4096]), Err(ImageError::Blank { byte: 0xFF }));
    let large = vec![1; 1024 * 1024 + 1];
    assert_eq!(Image::parse(large), Err(ImageError::TooLarge { bytes: 1024 * 1024 + 1 }));
}

#[test]
fn a_tiny_file_is_an_unknown_image() {
    for len in 1..64 {
        let mut bytes: Vec<u8> = (0..len).collect();
        bytes.push(0x80);
        assert_eq!(Image::parse(bytes).unwrap().content, Content::Unknown { link: None });
    }
}

#[test]
fn segments_are_sorted_and_joined_and_must_not_overlap() {
    let parts = vec![segment(0x0800_5000, 16), segment(0x0800_4000, 0x1000), segment(0x0800_8000, 4)];
    let image = Image::from_segments(Format::Hex, parts).unwrap();
    let Payload::Placed(joined) = &image.payload else { panic!("not placed") };
    let found: Vec<_> = joined.iter().map(|part| (part.address.0, part.data.len())).collect();
    assert_eq!(found, [(0x0800_4000, 0x1010), (0x0800_8000, 4)]);
    assert_eq!((image.address(), image.payload.len()), (Some(FIRMWARE_BASE), 0x1014));
    let twice = vec![segment(0x0800_4000, 8), segment(0x0800_4004, 8)];
    assert_eq!(Image::from_segments(Format::Dfu, twice), Err(ImageError::Overlap(Address(0x0800_4004))));
    // Segments at both ends of the address space are not recognised, and no memory is allocated for the gap between
    // them.
    let far = vec![segment(0, 8), segment(0xFFFF_FFF0, 8)];
    assert_eq!(Image::from_segments(Format::Elf, far).unwrap().content, Content::Unknown { link: None });
}

#[test]
fn the_checksum_does_not_depend_on_the_format() {
    let bytes: Vec<u8> = (0..9000_u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    let halves = vec![
        Segment { address: Address(0x0800_5000), data: bytes[4096..].to_vec() },
        Segment { address: Address(0x0800_4000), data: bytes[..4096].to_vec() },
    ];
    let raw = Image::parse(bytes).unwrap();
    assert_eq!(Image::from_segments(Format::Hex, halves).unwrap().crc32, raw.crc32);
}
