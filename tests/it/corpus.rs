//! A corpus of valid and malformed image files in every format. Checks what `inspect` reports for each file, that valid
//! files are flashed, and that malformed ones are refused before the drone is contacted.

use serde_json::{Value, json};
use zip::CompressionMethod;

use cfdfu::flash::map::{MapError, MemoryMap};
use cfdfu::flash::{Address, Span};
use cfdfu::image::{Content, Format, Image, Sha256};
use cfdfu::sim::images;

use crate::cli::{Folder, Ran};
use crate::files::{
    Target, append_suffix, build_changed_dfuse, crc, dfuse, dfuse_body, elf, hex, manifest, release, zip,
};
use crate::support::{SEED_LEN, firmware};

const BASE: u32 = 0x0800_4000;
const LEN: usize = 20_000;

#[test]
fn the_same_firmware_is_recognised_and_flashed_from_every_format() {
    let bin = firmware("2026.04", LEN);
    let (first, second) = bin.split_at(9000);
    let v1 = manifest(1, "cf2");
    let files = [
        ("plain.bin", "bin", bin.clone()),
        ("suffix.bin", "bin", append_suffix(bin.clone(), (0x0483, 0xDF11), 0x0100)),
        ("any-device.bin", "bin", append_suffix(bin.clone(), (0xFFFF, 0xFFFF), 0x0110)),
        ("one.dfu", "dfu", dfuse(&[(0, vec![(BASE, &bin)])])),
        ("parts.dfu", "dfu", dfuse(&[(0, vec![(BASE + 9000, second)]), (0, vec![(BASE, first)])])),
        // The format is recognised from the content, not from the name.
        ("hex.bin", "hex", hex(BASE, &bin).into_bytes()),
        (
            "bom.hex",
            "hex",
            [b"\xEF\xBB\xBF", hex(BASE, &bin).to_lowercase().as_bytes(), b"\x1A\r\n"].concat(),
        ),
        ("any-product.bin", "bin", append_suffix(bin.clone(), (0x0483, 0xFFFF), 0x0100)),
        (
            "dfu-in.zip",
            "zip",
            release("cf2", &dfuse(&[(0, vec![(BASE, &bin)])]), CompressionMethod::Deflated),
        ),
        ("elf.dfu", "elf", elf(BASE, &bin)),
        ("stored.zip", "zip", release("cf2", &bin, CompressionMethod::Stored)),
        ("deflated.zip", "zip", release("cf2", &bin, CompressionMethod::Deflated)),
        (
            "folder-v1.zip",
            "zip",
            zip(
                &[("cf2-2026.04/manifest.json", v1.as_bytes()), ("cf2-2026.04/cf2-2026.04.bin", &bin)],
                CompressionMethod::Stored,
            ),
        ),
    ];
    let folder = Folder::new();
    for (name, format, bytes) in files {
        folder.write_file(name, bytes);
        let ran = folder.json(&format!("inspect {name}"));
        let image = ran.object("image");
        assert_eq!(ran.code, 0, "{name}: {image}");
        let actual =
            (&image["format"], &image["kind"], &image["version"], &image["address"], &image["bytes"]);
        let expected =
            (&json!(format), &json!("firmware"), &json!("2026.04"), &json!("0x08004000"), &json!(LEN));
        assert_eq!(actual, expected, "{name}");
        assert_eq!(image["crc32"], format!("{:08x}", crc32fast::hash(&bin)), "{name}");
        let ran = folder.json(&format!("flash {name} --demo"));
        let result = ran.object("result");
        let actual = (ran.code, &result["verified"], &result["booted"]);
        assert_eq!(actual, (0, &json!(true), &json!(true)), "{name}");
    }
    let Ran { out, .. } = folder.run("inspect stored.zip");
    assert!(out.contains("bcColorLedBot:col, bcColorLedTop:col, nrf51"), "{out}");
}

/// A file name, the file's bytes, and words from the message. `|` separates alternatives.
type Case = (&'static str, Vec<u8>, &'static str);

/// Returns a copy of `file` with one bit of the byte at `at` flipped.
fn flip_bit(file: &[u8], at: usize) -> Vec<u8> {
    let mut file = file.to_vec();
    file[at] ^= 1;
    file
}

/// Returns a copy of `file` with `bytes` written over it at offset `at`.
fn patch(file: &[u8], at: usize, bytes: &[u8]) -> Vec<u8> {
    let mut file = file.to_vec();
    file[at..at + bytes.len()].copy_from_slice(bytes);
    file
}

/// Returns `file` with `change` applied to its DFU suffix, and a valid checksum.
fn reseal(mut file: Vec<u8>, change: impl FnOnce(&mut [u8])) -> Vec<u8> {
    let end = file.len() - 4;
    change(&mut file[end - 12..end]);
    let sum = crc(&file[..end]);
    file[end..].copy_from_slice(&sum.to_le_bytes());
    file
}

/// The byte ranges of bTargetNamed and szTargetName in the first target of a DfuSe file (UM0391).
const NAMED: std::ops::Range<usize> = 18..22;
const NAME: std::ops::Range<usize> = 22..277;

/// Returns files as other tools write them, each with the expected number of notes. Every file contains `bin`.
///
/// The first three use values from fwupd's test files `dfuse.builder.xml` and `dev_VRBRAIN.dfu`.
fn dfu_of_other_tools(bin: &[u8]) -> Vec<(&'static str, Vec<u8>, usize)> {
    let one: &[Target<'_>] = &[(0, vec![(BASE, bin)])];
    let pieces = |len: usize| (BASE..).step_by(len).zip(bin.chunks(len));
    let many = pieces(200).collect();
    let targets: Vec<Target<'_>> = pieces(2000).map(|piece| (0, vec![piece])).collect();
    vec![
        ("bcdDevice 8642", reseal(dfuse(one), |suffix| suffix[..2].copy_from_slice(&[0x42, 0x86])), 0),
        (
            "bytes after the end of the name",
            build_changed_dfuse(one, |file| file[30..NAME.end].fill(0xCC)),
            0,
        ),
        (
            "a short name",
            build_changed_dfuse(one, |file| file[NAME].copy_from_slice(&[&b"two"[..], &[0; 252]].concat())),
            0,
        ),
        ("no name", build_changed_dfuse(one, |file| file[NAMED.start..NAME.end].fill(0)), 0),
        ("a name of 255 bytes", build_changed_dfuse(one, |file| file[NAME].fill(b'x')), 0),
        ("any device", append_suffix(dfuse_body(one), (0xFFFF, 0xFFFF), 0x011A), 0),
        // dfuse-pack.py (since dfu-util 0.10) includes the suffix in the size; some tools write 0.
        ("size with suffix", build_changed_dfuse(one, |file| file[6] += 16), 0),
        ("size 0", build_changed_dfuse(one, |file| file[6..10].fill(0)), 0),
        ("any other size", build_changed_dfuse(one, |file| file[6] += 1), 1),
        ("many elements", dfuse(&[(0, many)]), 0),
        ("many targets", dfuse(&targets), 0),
    ]
}

#[test]
fn a_dfu_file_in_the_layout_of_any_tool_contains_the_same_firmware() {
    for bin in [firmware("2026.04", LEN), firmware("2026.04", 1008 * 1024)] {
        let reference = Image::parse(bin.clone()).unwrap();
        for (name, file, notes) in dfu_of_other_tools(&bin) {
            // A DfuSe file has at most 255 targets.
            if name == "many targets" && bin.len() > LEN {
                continue;
            }
            let image = Image::parse(file).unwrap_or_else(|error| panic!("{name}: {error}"));
            let actual = (image.format, image.crc32, image.payload.len(), &image.content);
            assert_eq!(actual, (Format::Dfu, reference.crc32, bin.len(), &reference.content), "{name}");
            assert_eq!(image.notes.len(), notes, "{name}: {:?}", image.notes);
        }
    }
}

/// The suffix of fwupd's test file `metadata.dfu` begins with a table of keys and values.
#[test]
fn a_suffix_with_additional_fields_is_not_flashed() {
    let bin = firmware("2026.04", LEN);
    let extended = [&bin[..], b"\x01\x03key\x05value"].concat();
    let file = reseal(append_suffix(extended, (0xFFFF, 0xFFFF), 0x0100), |suffix| suffix[11] += 11);
    let image = Image::parse(file).unwrap();
    assert_eq!((image.payload.len(), image.crc32), (LEN, crc32fast::hash(&bin)));
    assert!(image.notes[0].contains("(27 bytes)"), "{:?}", image.notes);
}

/// The memory names are from fwupd's self-test and from a GD32VF103.
#[test]
fn memory_maps_in_the_tests_of_other_tools_are_parsed() {
    // Returns the number of sectors, the span of the last sector, and whether that sector can be erased.
    let sectors = |text: &str| {
        let map = MemoryMap::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        let last = map.sectors().last().unwrap();
        (map.sectors().len(), last.span, last.access.erasable)
    };
    let span = |start: u32, len: u32| Span::new(Address(start), len).unwrap();
    assert_eq!(sectors("@Internal Flash /0x08000000/2*001Ka"), (2, span(0x0800_0400, 1024), false));
    assert_eq!(sectors("@Flash1   /0x08000000/2*001Ka,4*001Kg"), (6, span(0x0800_1400, 1024), true));
    assert_eq!(sectors("@Internal Flash  /0x08000000/128*001Kg"), (128, span(0x0801_FC00, 1024), true));
    assert_eq!(sectors("@Option Bytes  /0x1FFFF800/01*016Be"), (1, span(0x1FFF_F800, 16), false));
    // AT32 chips report a size without a multiplier, which fwupd accepts only from devices with a quirk.
    assert_eq!(sectors("@Internal Flash /0x08000000/12*001a"), (12, span(0x0800_000B, 1), false));
    // fwupd accepts these three zones, although the second covers the first.
    let overlapping = "@Flash2 /0xF000/4*100Ba/0xE000/3*8Kg/0x80000/2*24Kg";
    assert_eq!(MemoryMap::parse(overlapping), Err(MapError::Overlap(Address(0xF000))));
    for text in ["@Flash3", "Flash", "@Internal Flash /0x08000000"] {
        assert!(MemoryMap::parse(text).is_err(), "{text}");
    }
}

fn malformed_dfu() -> Vec<Case> {
    let bin = firmware("2026.04", LEN);
    let one: &[Target<'_>] = &[(0, vec![(BASE, &bin)])];
    let good = dfuse(one);
    let overlapping = dfuse(&[(0, vec![(BASE, &bin[..])]), (0, vec![(BASE + 4, &bin[..8])])]);
    // The values are from fwupd's test file `dfuse.builder.xml`.
    let hello = &b"hello world"[..];
    let builder: &[Target<'_>] =
        &[(1, vec![(0x0800_1234, hello), (0x0800_5678, hello)]), (0, vec![(0x0800_0000, hello)])];
    // zlib's CRC-32 inverts the result at the end.
    let inverted =
        [&good[..good.len() - 4], &crc32fast::hash(&good[..good.len() - 4]).to_le_bytes()].concat();
    vec![
        (
            "fwupd-builder.dfu",
            append_suffix(dfuse_body(builder), (0x1234, 0x5678), 0x011A),
            "target 1 is for alternate setting 1",
        ),
        ("inverted.dfu", inverted, "it is damaged"),
        ("short.dfu", good[..100].to_vec(), "DFU suffix at its end is missing"),
        ("cut.dfu", good[..good.len() - 20].to_vec(), "DFU suffix at its end is missing"),
        ("damaged.dfu", flip_bit(&good, 5000), "it is damaged"),
        ("version.dfu", build_changed_dfuse(one, |file| file[5] = 2), "version 2 of the DfuSe format"),
        ("suffix-version.dfu", append_suffix(dfuse_body(one), (0x0483, 0xDF11), 0x0100), "version 0x0100"),
        ("no-target.dfu", build_changed_dfuse(&[], |_| {}), "contains no target"),
        (
            "missing-target.dfu",
            build_changed_dfuse(one, |file| file[10] = 2),
            "ends in the middle of a target",
        ),
        (
            "bad-target.dfu",
            build_changed_dfuse(one, |file| file[11] = b'X'),
            "target 1 has no valid signature",
        ),
        ("options.dfu", dfuse(&[(1, vec![(0x1FFF_C000, &bin[..16])])]), "alternate setting 1"),
        (
            "no-element.dfu",
            build_changed_dfuse(one, |file| file[281..285].fill(0)),
            "claims to have 0 elements",
        ),
        (
            "elements.dfu",
            build_changed_dfuse(one, |file| file[281..285].fill(0xFF)),
            "claims to have 4294967295 elements",
        ),
        ("empty-element.dfu", dfuse(&[(0, vec![(BASE, &[])])]), "the element for 0x08004000 is empty"),
        (
            "long-element.dfu",
            build_changed_dfuse(one, |file| file[292] = 0x7F),
            "ends in the middle of an element",
        ),
        ("target-size.dfu", build_changed_dfuse(one, |file| file[277] ^= 1), "its elements have 20008"),
        (
            "leftover.dfu",
            build_changed_dfuse(one, |file| file.extend([0; 7])),
            "7 bytes follow its last target",
        ),
        ("overlap.dfu", overlapping, "overlap at 0x08004004"),
        ("suffix.bin", flip_bit(&append_suffix(bin.clone(), (0x0483, 0xDF11), 0x0100), 77), "it is damaged"),
        (
            "suffix-len.bin",
            patch(&append_suffix(bin.clone(), (0x0483, 0xDF11), 0x0100), LEN + 11, &[15]),
            "15 bytes",
        ),
    ]
}

#[allow(clippy::too_many_lines, reason = "a table with one row per file")]
fn malformed_others() -> Vec<Case> {
    let bin = firmware("2026.04", LEN);
    let bolt = images::firmware("2026.04", &[("CB10", "Crazyflie Bolt")], LEN);
    let text = hex(BASE, &bin);
    let zipped = |name: &str, manifest: &str| {
        zip(&[("manifest.json", manifest.as_bytes()), (name, &bin)], CompressionMethod::Stored)
    };
    let bomb = vec![0_u8; 3_000_000];
    let good_elf = elf(BASE, &bin);
    let section = good_elf.len() - b"\0.text\0.data\0.bss\0.shstrtab\0".len() - 5 * 40;
    vec![
        ("line.hex", text.replacen(":10", ":11", 1).into_bytes(), "line 2 is damaged"),
        ("text.hex", text.replacen("\r\n:10", "\r\nhello\r\n:10", 1).into_bytes(), "line 2 is damaged"),
        ("cut.hex", text.as_bytes()[..text.len() / 2].to_vec(), "is damaged"),
        ("no-end.hex", text.replace(":00000001FF\r\n", "").into_bytes(), "last line"),
        ("after.hex", [text.as_bytes(), b":00000001FF\r\n"].concat(), "follows the end-of-file record"),
        ("cut.elf", elf(BASE, &bin)[..9000].to_vec(), "ELF file cannot be used"),
        ("x86.elf", patch(&elf(BASE, &bin), 18, &[0x3E]), "not a linked program for a 32-bit ARM chip"),
        ("object.elf", patch(&elf(BASE, &bin), 16, &[1]), "not a linked program"),
        (
            "section.elf",
            patch(&good_elf, section + 40 + 20, &50_000_u32.to_le_bytes()),
            "a section is not inside any segment",
        ),
        ("shifted.elf", patch(&good_elf, section + 40 + 12, &[0x10]), "a section is not inside any segment"),
        (
            "unflagged.elf",
            patch(&good_elf, section + 80 + 8, &[1]),
            "nothing to flash|bytes outside its sections",
        ),
        (
            "loose.elf",
            patch(&good_elf, section + 40 + 20, &100_u32.to_le_bytes()),
            "a segment holds bytes outside its sections",
        ),
        ("headers.elf", patch(&good_elf, 44, &60_000_u16.to_le_bytes()), "ELF file cannot be used"),
        ("text.bin", b"This is not firmware.\n".repeat(100), "a text file"),
        ("comment.hex", [b"; a comment\r\n", text.as_bytes()].concat(), "line 1 is damaged"),
        (
            "signature.dfu",
            build_changed_dfuse(&[(0, vec![(BASE, &bin)])], |file| file[4] = b'f'),
            "version 0x011A, which is not valid",
        ),
        (
            "nested.zip",
            release("cf2", &release("cf2", &bin, CompressionMethod::Stored), CompressionMethod::Stored),
            "it contains another zip archive, cf2-2026.04.bin",
        ),
        (
            "manifests.zip",
            zip(&[("a/manifest.json", b"{}"), ("b/manifest.json", b"{}")], CompressionMethod::Stored),
            "there are 2 manifests",
        ),
        (
            "number.zip",
            zipped("a", r#"{"version":2,"fw_platform":7,"files":{"a":{"target":"stm32","type":"fw"}}}"#),
            "fw_platform is not a string",
        ),
        (
            "cut.zip",
            release("cf2", &bin, CompressionMethod::Stored)[..9000].to_vec(),
            "zip archive cannot be used",
        ),
        (
            "other.zip",
            zip(&[("readme.txt", b"hello")], CompressionMethod::Stored),
            "no manifest.json and contains no firmware",
        ),
        ("manifest.zip", zipped("a", "{"), "manifest is invalid"),
        ("future.zip", zipped("a", r#"{"version": 3}"#), "version 3; only versions 1 and 2 are supported"),
        (
            "radio.zip",
            zipped("a", r#"{"version":2,"files":{"a":{"target":"nrf51","type":"fw"}}}"#),
            "no firmware for the STM32",
        ),
        (
            "missing.zip",
            zipped("a", r#"{"version":2,"files":{"../../b":{"target":"stm32","type":"fw"}}}"#),
            "lists ../../b, which is not in the archive",
        ),
        (
            "two.zip",
            zipped(
                "a",
                r#"{"version":2,"files":{"a":{"target":"stm32","type":"fw"},"b":{"target":["stm32"],"type":"fw"}}}"#,
            ),
            "several images for the STM32: a, b",
        ),
        (
            "platform.zip",
            release("cf2", &bolt, CompressionMethod::Stored),
            "claims to be for cf2, but its firmware is for bolt",
        ),
        ("bomb.zip", release("cf2", &bomb, CompressionMethod::Deflated), "larger than the Crazyflie's flash"),
        (
            "far.hex",
            hex(BASE, &[&bin[..], &vec![3; 1024 * 1024]].concat()).into_bytes(),
            "more than the 1048576",
        ),
    ]
}

/// A web page that a browser saved instead of the linked file.
const PAGE: &str = "\r\n\t<!DOCTYPE html>\n<html lang=\"sv\"><title>Utgåvor</title></html>\n";

/// Returns files that users mistake for an image. Each is refused with a message that describes the contents.
fn foreign() -> Vec<Case> {
    let bin = firmware("2026.04", LEN);
    let bolt = images::firmware("2026.04", &[("CB10", "Crazyflie Bolt")], LEN);
    let radio = [&[0, 0x40, 0, 0x20, 0xC1, 0xB2, 1, 0][..], &[9; 900]].concat();
    let stored = |files: &[(&str, &[u8])]| zip(files, CompressionMethod::Stored);
    let utf16 = |mark: &[u8], encode: fn(u16) -> [u8; 2]| {
        [mark, &PAGE.encode_utf16().flat_map(encode).collect::<Vec<_>>()].concat()
    };
    let page = "this is a web page (HTML), not an image";
    vec![
        ("page.bin", PAGE.as_bytes().to_vec(), page),
        ("mark.bin", [b"\xEF\xBB\xBF", PAGE.as_bytes()].concat(), page),
        ("little.bin", utf16(b"\xFF\xFE", u16::to_le_bytes), page),
        ("big.bin", utf16(b"\xFE\xFF", u16::to_be_bytes), page),
        ("page.zip", PAGE.as_bytes().to_vec(), page),
        ("in.zip", stored(&[("cf2.bin", PAGE.as_bytes())]), page),
        ("release-in.zip", release("cf2", PAGE.as_bytes(), CompressionMethod::Stored), page),
        ("utf8.txt", "Utgåvor\n".as_bytes().to_vec(), "a text file"),
        ("cf2.bin.gz", [b"\x1F\x8B\x08\0", &bin[..]].concat(), "a packed file (gzip)|Unpack the file first"),
        (
            "zip-in.zip",
            stored(&[("cf2.zip", &stored(&[("cf2.bin", &bin)]))]),
            "it contains another zip archive, cf2.zip",
        ),
        ("empty.zip", stored(&[]), "contains no firmware"),
        ("radio-only.zip", stored(&[("nrf.bin", &radio)]), "nrf.bin is for the radio chip (nRF51)"),
        (
            "two-in.zip",
            stored(&[("cf2.bin", &bin), ("bolt.bin", &bolt)]),
            "several images for the STM32: cf2.bin, bolt.bin",
        ),
    ]
}

/// Returns firmware truncated to 12,000 of its 20,000 bytes in each file format, firmware with a gap, and a truncated
/// bootloader.
fn truncated() -> Vec<Case> {
    const HALF: usize = 12_000;
    let bin = firmware("2026.04", LEN);
    let half = &bin[..HALF];
    let words = "the file is truncated: it ends after 12000 bytes, but its start-up code needs 20000";
    // The data that the start-up code copies to RAM has a gap.
    let holed = dfuse(&[(0, vec![(BASE, &bin[..LEN - 500]), (BASE + LEN as u32 - 400, &bin[LEN - 400..])])]);
    vec![
        ("half.bin", half.to_vec(), words),
        ("half-suffix.bin", append_suffix(half.to_vec(), (0x0483, 0xDF11), 0x0100), words),
        ("half.dfu", dfuse(&[(0, vec![(BASE, half)])]), words),
        ("half.hex", hex(BASE, half).into_bytes(), words),
        ("half.elf", elf(BASE, half), words),
        ("half.zip", release("cf2", half, CompressionMethod::Stored), words),
        ("half-in.zip", zip(&[("cf2.bin", half)], CompressionMethod::Stored), words),
        ("holed.dfu", holed, "the file lacks 100 bytes that its start-up code needs"),
        (
            "half-loader.bin",
            images::loader()[..5000].to_vec(),
            "ends after 5000 bytes, but its start-up code needs 7256",
        ),
    ]
}

/// A single missing byte causes a refusal that no option overrides. Padding is harmless.
#[test]
fn a_truncated_file_is_refused_and_a_padded_one_is_flashed() {
    let folder = Folder::new();
    let bin = firmware("2026.04", SEED_LEN);
    for len in [50_000, 200_000, SEED_LEN - 1] {
        folder.write_file("cut.bin", &bin[..len]);
        let ran = folder.json("inspect cut.bin");
        let image = ran.object("image");
        assert_eq!((ran.code, &image["complete"], &image["bytes"]), (65, &json!(false), &json!(len)));
        for line in [
            "flash cut.bin --demo",
            "flash cut.bin --demo=dfu --allow-mismatch --address 0x08004000",
            "restore-bootloader cut.bin --demo=dfu --allow-mismatch",
            "verify cut.bin --demo=dfu",
        ] {
            let Ran { code, out, .. } = folder.json(line);
            assert_eq!(code, 65, "{line}: {out}");
            assert!(out.contains("\"incomplete_image\""), "{line}: {out}");
            assert!(out.contains(&format!("needs {SEED_LEN}")), "{line}: {out}");
            // The file is refused before cfdfu searches for a drone.
            assert!(!out.contains("\"device\""), "{line}: {out}");
        }
    }
    for (padding, len) in [(0xFF, 1), (0, 4096), (0x55, 60_000)] {
        let mut padded = bin.clone();
        padded.resize(SEED_LEN + len, padding);
        folder.write_file("padded.bin", padded);
        let ran = folder.json("inspect padded.bin");
        let image = ran.object("image");
        assert_eq!((ran.code, &image["complete"]), (0, &json!(true)), "{len} times {padding:#04X}");
        folder.run("flash padded.bin --demo=dfu").success();
    }
    // Without the first load of each copy loop, the start-up code is not recognised and the length of the firmware is
    // unknown, so the file is accepted.
    let other = patch(&bin, 0x800 + 4, &[0, 0xBF]);
    let other = patch(&other, 0x800 + 44, &[0, 0xBF]);
    folder.write_file("other.bin", &other[..200_000]);
    let ran = folder.json("inspect other.bin");
    let image = ran.object("image");
    assert_eq!((ran.code, &image["kind"], &image["complete"]), (0, &json!("firmware"), &Value::Null));
}

/// The vectors point to a handler, as in a real linker's output, but the file is truncated before this handler.
#[test]
fn a_file_whose_vectors_point_past_its_end_is_refused() {
    let folder = Folder::new();
    let mut cut = vec![0x11; 50_000];
    for n in 0..98 {
        let word: u32 = if n == 0 { 0x2001_FFFF } else { 0x0801_77AD };
        cut[n * 4..n * 4 + 4].copy_from_slice(&word.to_le_bytes());
    }
    folder.write_file("cut.bin", cut);
    let ran = folder.json("flash cut.bin --demo --allow-mismatch");
    assert_eq!((ran.code, &ran.object("result")["error"]["kind"]), (65, &json!("incomplete_image")));
}

/// In firmware read back from a drone, blank flash at the end may mean missing bytes or values that really are 0xFF.
#[test]
fn firmware_on_a_drone_is_incomplete_only_if_all_of_its_initial_values_are_blank() {
    const ALL: usize = 1008 * 1024;
    let bin = firmware("2026.04", SEED_LEN);
    let complete = |written: &[u8], read: usize| {
        let mut flash = written.to_vec();
        flash.resize(read, 0xFF);
        let content = Content::in_flash(&flash).unwrap();
        let firmware = content.firmware().unwrap();
        let is_described_as_incomplete = content.to_string().starts_with("incomplete firmware 2026.04");
        assert_eq!(is_described_as_incomplete, firmware.extent.complete() == Some(false));
        firmware.extent.complete()
    };
    assert_eq!(complete(&bin, ALL), Some(true));
    assert_eq!(complete(&bin[..48 * 1024], ALL), Some(false));
    // `identify` stops reading after 16 KiB of blank flash; a copy for undo ends at a sector boundary.
    assert_eq!(complete(&bin[..48 * 1024], 64 * 1024), Some(false));
    assert_eq!(complete(&bin[..48 * 1024], 48 * 1024), None);
    // This may be complete firmware whose last values are 0xFF.
    assert_eq!(complete(&bin[..SEED_LEN - 64], ALL), None);
    // A backup of a drone with incomplete firmware is recognised as a backup and can be inspected.
    let mut backup = images::loader();
    backup.resize(16 * 1024, 0xFF);
    backup.extend(&bin[..48 * 1024]);
    backup.resize(1024 * 1024, 0xFF);
    let folder = Folder::new();
    folder.write_file("mine.bin", backup);
    let ran = folder.json("inspect mine.bin");
    let image = ran.object("image");
    assert_eq!((ran.code, &image["kind"], &image["complete"]), (0, &json!("backup"), &json!(false)));
    let ran = folder.json("restore-bootloader mine.bin --demo=dfu");
    assert_eq!((ran.code, &ran.object("result")["error"]["kind"]), (65, &json!("incomplete_image")));
    folder.write_file("cf2.bin", &bin);
    folder.run("restore-bootloader mine.bin --firmware cf2.bin --demo=overwritten").success();
}

/// CI builds produce archives that have no manifest and contain the same firmware in several formats.
#[test]
fn an_archive_that_contains_firmware_is_flashed_like_the_firmware_itself() {
    let folder = Folder::new();
    let bin = firmware("2026.04", LEN);
    let (hex, elf) = (hex(BASE, &bin), elf(BASE, &bin));
    let files: &[(&str, &[u8])] = &[
        ("build/", b""),
        ("build/cf2.map", b"Memory Configuration"),
        ("build/cf2.bin", &bin),
        ("build/cf2.hex", hex.as_bytes()),
        ("build/cf2.elf", &elf),
        ("__MACOSX/build/._cf2.bin", b"\0\x05\x16\x07"),
    ];
    for (name, files) in [("one.zip", &files[2..3]), ("all.zip", files)] {
        folder.write_file(name, zip(files, CompressionMethod::Deflated));
        let ran = folder.json(&format!("inspect {name}"));
        let image = ran.object("image");
        let actual = (ran.code, &image["format"], &image["version"]);
        assert_eq!(actual, (0, &json!("zip"), &json!("2026.04")), "{name}");
        assert_eq!(folder.run(&format!("flash {name} --demo")).code, 0, "{name}");
    }
    let loader = zip(&[("cf2loader.bin", &images::loader())], CompressionMethod::Deflated);
    folder.write_file("loader.zip", loader);
    folder.run("restore-bootloader loader.zip --demo=overwritten").success();
}

#[test]
fn the_sha_256_of_a_file_is_shown_and_a_file_with_another_sha_256_is_refused() {
    let folder = Folder::new();
    let bin = firmware("2026.04", LEN);
    let file = release("cf2", &bin, CompressionMethod::Stored);
    folder.write_file("cf2.zip", &file);
    let right = Sha256::of(&file).to_string();
    let image = folder.json("inspect cf2.zip").object("image");
    assert_eq!(image["sha256"], json!(right));
    assert!(folder.run("inspect cf2.zip").out.contains(&right));
    for sum in [right.clone(), format!("sha256:{}", right.to_uppercase())] {
        assert_eq!(folder.run(&format!("flash cf2.zip --demo --sha256 {sum}")).code, 0, "{sum}");
    }
    // The checksum of the firmware inside the archive is not accepted. A damaged file is reported as a wrong checksum,
    // not as malformed.
    folder.write_file("damaged.zip", &file[..9000]);
    let inside = Sha256::of(&bin).to_string();
    for (name, sum) in [("cf2.zip", &inside), ("damaged.zip", &right)] {
        let Ran { code, out, .. } = folder.json(&format!("flash {name} --demo --sha256 {sum}"));
        assert!(out.contains("\"wrong_checksum\"") && !out.contains("\"device\""), "{name}: {out}");
        assert_eq!(code, 65, "{name}");
    }
    assert_eq!(folder.run("flash cf2.zip --demo --sha256 abc").code, 2);
    folder.cfdfu(&format!("flash - --demo --sha256 {right}")).fast().input(file).run().success();
}

/// The board matches, but the firmware is for another kind of drone: cfdfu warns and does not refuse.
#[test]
fn firmware_for_another_platform_causes_a_warning_before_it_is_written() {
    let folder = Folder::new();
    let boards = [("CF21", "Flapper (CF 2.1)"), ("CB10", "Flapper (Bolt 1.0)")];
    folder.write_file("flapper.bin", images::firmware("2026.04", &boards, LEN));
    let Ran { code, out, .. } = folder.run("flash flapper.bin --demo=dfu");
    let at = |words: &str| out.find(words).unwrap_or_else(|| panic!("no {words:?} in {out}"));
    let words = "Warning: the drone has firmware for the Crazyflie 2.x (cf2), but this image is for the Flapper (flapper)";
    assert!(at(words) < at("Erase"), "{out}");
    assert_eq!(code, 0);
    folder.write_file("cf2.bin", firmware("2026.04", LEN));
    let Ran { out, .. } = folder.run("flash cf2.bin --demo=dfu");
    assert!(!out.contains("Warning: the drone has"), "{out}");
}

/// The advice also names the page where the file is published.
#[test]
fn advice_about_a_missing_or_wrong_image_names_the_right_file() {
    let folder = Folder::new();
    let releases = "github.com/bitcraze/crazyflie-firmware/releases";
    let (bolt, cf2) = ("bolt-….bin (on a Flapper: flapper-….bin) from ", "cf2-….bin from ");
    let loader = "cf2loader-1.0.bin from github.com/bitcraze/crazyflie2-stm-bootloader/releases";
    for (line, words) in [
        (
            "identify --demo=erased",
            format!("The drone has no firmware. Flash it with `cfdfu flash IMAGE`. IMAGE is {cf2}{releases}"),
        ),
        (
            "identify --demo=dead --wait 30",
            format!("is incomplete: its end is missing|IMAGE is {cf2}{releases}"),
        ),
        ("identify --demo=dead --wait 30", "firmware incomplete, 2025.02 for CF20, CF21".to_owned()),
        ("identify --demo=overwritten", format!("LOADER is {loader}; IMAGE is {cf2}{releases}")),
        ("flash --demo=wrong-board", format!("Use the image for this board: {bolt}{releases}")),
        ("flash --demo=overwritten", loader.to_owned()),
        (
            "flash --demo=dead --wait 30",
            "On the drone: incomplete firmware 2025.02 for CF20, CF21".to_owned(),
        ),
    ] {
        // Join the lines, because long advice is wrapped.
        let text = folder.run(line).combined_output().split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(words.split('|').all(|words| text.contains(words)), "{line}: {words}\n{text}");
    }
}

#[test]
fn every_malformed_file_is_refused_with_a_specific_reason() {
    let folder = Folder::new();
    let cases = malformed_dfu().into_iter().chain(malformed_others()).chain(foreign());
    for (name, bytes, words) in cases.chain(truncated()) {
        folder.write_file(name, bytes);
        for command in ["inspect", "flash --demo"] {
            let Ran { code, out, err } = folder.run(&format!("{command} {name}"));
            assert_eq!(code, 65, "{command} {name}: {err}");
            let has = |words: &str| err.to_lowercase().contains(&words.to_lowercase());
            assert!(words.split('|').any(has), "{name}: {err}");
            // The output need not be empty: `inspect` describes an incomplete image before refusing it.
            assert!(!out.contains("Using"), "{name}: opened a device: {out}");
        }
    }
}

/// A file name, the file's bytes, the command, the exit status, and words from the message.
type Placement = (&'static str, Vec<u8>, &'static str, i32, &'static str);

#[allow(clippy::too_many_lines, reason = "a table with one row per file")]
fn placements() -> Vec<Placement> {
    let bin = firmware("2026.04", LEN);
    let loader = images::loader();
    let ram = dfuse(&[(0, vec![(0x2000_0000, &bin)])]);
    let both = dfuse(&[(0, vec![(0x0800_0000, &loader), (BASE, &bin)])]);
    let vrbrain = append_suffix(dfuse_body(&[(0, vec![(BASE, &bin)])]), (0x0483, 0x0000), 0x011A);
    // Another project's firmware for this chip, linked for the start of the flash.
    let mut linked_low = vec![0x5A; 20_000];
    for (word, at) in [0x2002_0000_u32].into_iter().chain([0x0800_0401; 97]).zip((0..).step_by(4)) {
        linked_low[at..at + 4].copy_from_slice(&word.to_le_bytes());
    }
    let flapper =
        images::firmware("2026.04", &[("CF21", "Flapper (CF 2.1)"), ("CB10", "Flapper (Bolt 1.0)")], LEN);
    vec![
        (
            "low.dfu",
            dfuse(&[(0, vec![(0x0800_0000, &bin)])]),
            "flash",
            65,
            "places this firmware at 0x08000000, but it is linked for 0x08004000",
        ),
        ("ram.dfu", ram, "flash", 65, "linked for 0x08004000"),
        // The USB IDs are from fwupd's test file `dev_VRBRAIN.dfu`.
        ("vrbrain.dfu", vrbrain.clone(), "flash", 65, "USB device 0483:0000"),
        ("vrbrain.dfu", vrbrain, "flash --allow-mismatch", 0, ""),
        (
            "low.hex",
            hex(0x0800_0000, &bin).into_bytes(),
            "flash --address 0x08004000",
            65,
            "packed for the wrong address: use the .bin",
        ),
        (
            "other.bin",
            linked_low,
            "flash --allow-mismatch --address 0x08004000",
            65,
            "Crazyflie firmware is linked for 0x08004000",
        ),
        (
            "noise.dfu",
            dfuse(&[(0, vec![(0x1FFF_7800, &loader[..512])])]),
            "flash --allow-mismatch",
            65,
            "0x1FFF7800 is not in the Crazyflie's flash",
        ),
        (
            "options.hex",
            hex(0x1FFF_C000, &loader[..16]).into_bytes(),
            "flash --allow-mismatch",
            65,
            "0x1FFFC000 is not in",
        ),
        (
            "loader.dfu",
            dfuse(&[(0, vec![(0x0800_0000, &loader)])]),
            "flash",
            65,
            "Bitcraze bootloader, not firmware",
        ),
        ("loader.hex", hex(0x0800_0000, &loader).into_bytes(), "restore-bootloader", 0, ""),
        (
            "loader-high.dfu",
            dfuse(&[(0, vec![(BASE, &loader)])]),
            "restore-bootloader",
            65,
            "belongs at 0x08000000, but the file places it at 0x08004000",
        ),
        ("both.dfu", both.clone(), "flash", 65, "whole-flash backup"),
        ("both.dfu", both, "restore-bootloader", 0, ""),
        (
            "moved.dfu",
            dfuse(&[(0, vec![(BASE, &bin)])]),
            "flash --address 0x08008000",
            65,
            "belongs at 0x08004000",
        ),
        (
            "leaflabs.bin",
            append_suffix(bin.clone(), (0x1EAF, 0x0003), 0x0100),
            "flash",
            65,
            "USB device 1eaf:0003",
        ),
        (
            "leaflabs.bin",
            append_suffix(bin.clone(), (0x1EAF, 0x0003), 0x0100),
            "flash --allow-mismatch",
            0,
            "",
        ),
        (
            "bolt.zip",
            release(
                "bolt",
                &images::firmware("2026.04", &[("CB10", "Crazyflie Bolt")], LEN),
                CompressionMethod::Stored,
            ),
            "flash",
            65,
            "board is CF21 (Crazyflie 2.1), revision B1, but the image is for CB10 (Crazyflie Bolt)",
        ),
        ("flapper.bin", flapper, "flash", 0, "only for a Flapper"),
    ]
}

/// A file must not use up all memory or take long to parse, however many of its headers refer to the same bytes.
#[test]
fn an_elf_with_hundreds_of_overlapping_segments_is_refused_quickly() {
    let bin = firmware("2026.04", LEN);
    let good = elf(BASE, &bin);
    let mut file = good[..52].to_vec();
    // 999 segments that cover the same bytes.
    file[42..46].copy_from_slice(&[32, 0, 0xE7, 0x03]);
    file[48..50].copy_from_slice(&[0, 0]);
    for _ in 0..999 {
        file.extend([1, 0x8000, BASE, BASE, 15_000_000, 15_000_000, 5, 4].map(u32::to_le_bytes).concat());
    }
    file.resize(15_100_000, 7);
    let folder = Folder::new();
    folder.write_file("bomb.elf", file);
    let started = std::time::Instant::now();
    let Ran { code, err, .. } = folder.run("inspect bomb.elf");
    assert_eq!(code, 65, "{err}");
    assert!(started.elapsed().as_secs() < 10);
}

#[test]
fn a_padded_bootloader_is_not_a_backup_and_a_gap_in_a_file_is_reported() {
    let folder = Folder::new();
    for (name, padding) in [("ff.bin", 0xFF), ("zero.bin", 0)] {
        let mut file = images::loader();
        file.resize(20 * 1024, padding);
        folder.write_file(name, file);
        assert_eq!(folder.run(&format!("restore-bootloader {name} --demo=dfu")).code, 65, "{name}");
    }
    let bin = firmware("2026.04", LEN);
    let text = hex(BASE, &bin);
    let line = text.lines().nth(900).unwrap();
    folder.write_file("lost.hex", text.replacen(&format!("{line}\r\n"), "", 1));
    assert!(folder.run("flash lost.hex --demo=dfu").out.contains("leave gaps of 16 bytes"));
}

#[test]
fn a_valid_file_for_the_wrong_address_or_device_is_refused_with_the_reason() {
    let folder = Folder::new();
    for (name, bytes, command, exit, words) in placements() {
        folder.write_file(name, bytes);
        let ran = folder.run(&format!("{command} {name} --demo=dfu"));
        let text = ran.combined_output();
        assert_eq!(ran.code, exit, "{command} {name}: {text}");
        assert!(text.contains(words), "{command} {name}: {text}");
    }
}
