//! A corpus of image files, good and malformed, in every format: what `inspect` says of each, and that a good
//! one is flashed while a bad one is refused before a drone is touched.

use std::fs;
use std::process::Output;

use assert_cmd::Command;
use serde_json::{Value, json};
use tempfile::TempDir;
use zip::CompressionMethod;

use cfdfu::sim::images;

use crate::files::{Target, bent, dfuse, dfuse_body, elf, hex, manifest, release, suffixed, zip};
use crate::support::firmware;

const BASE: u32 = 0x0800_4000;
const LEN: usize = 20_000;

struct Desk(TempDir);

impl Desk {
    fn new() -> Desk {
        Desk(tempfile::tempdir().unwrap())
    }

    fn run(&self, line: &str) -> Output {
        let mut command = Command::cargo_bin("cfdfu").unwrap();
        command.current_dir(self.0.path()).args(line.split_whitespace()).arg("--demo-fast").output().unwrap()
    }

    /// The last object of this event.
    fn object(&self, line: &str, event: &str) -> (i32, Value) {
        let output = self.run(&format!("{line} --json"));
        let text = String::from_utf8(output.stdout).unwrap();
        let objects = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        (output.status.code().unwrap(), objects.rev().find(|object| object["event"] == event).unwrap())
    }
}

#[test]
fn the_same_firmware_is_the_same_in_every_format_and_is_flashed() {
    let bin = firmware("2026.04", LEN);
    let (first, second) = bin.split_at(9000);
    let v1 = manifest(1, "cf2");
    let files = [
        ("plain.bin", "bin", bin.clone()),
        ("suffix.bin", "bin", suffixed(bin.clone(), (0x0483, 0xDF11), 0x0100)),
        ("any-device.bin", "bin", suffixed(bin.clone(), (0xFFFF, 0xFFFF), 0x0110)),
        ("one.dfu", "dfu", dfuse(&[(0, vec![(BASE, &bin)])])),
        ("parts.dfu", "dfu", dfuse(&[(0, vec![(BASE + 9000, second)]), (0, vec![(BASE, first)])])),
        // Found by content: a name means nothing.
        ("hex.bin", "hex", hex(BASE, &bin).into_bytes()),
        (
            "bom.hex",
            "hex",
            [b"\xEF\xBB\xBF", hex(BASE, &bin).to_lowercase().as_bytes(), b"\x1A\r\n"].concat(),
        ),
        ("any-product.bin", "bin", suffixed(bin.clone(), (0x0483, 0xFFFF), 0x0100)),
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
    let desk = Desk::new();
    for (name, format, bytes) in files {
        fs::write(desk.0.path().join(name), bytes).unwrap();
        let (exit, image) = desk.object(&format!("inspect {name}"), "image");
        assert_eq!(exit, 0, "{name}: {image}");
        let told = (&image["format"], &image["kind"], &image["version"], &image["address"], &image["bytes"]);
        let expected =
            (&json!(format), &json!("firmware"), &json!("2026.04"), &json!("0x08004000"), &json!(LEN));
        assert_eq!(told, expected, "{name}");
        assert_eq!(image["crc32"], format!("{:08x}", crc32fast::hash(&bin)), "{name}");
        let (exit, result) = desk.object(&format!("flash {name} --demo"), "result");
        assert_eq!((exit, &result["verified"], &result["booted"]), (0, &json!(true), &json!(true)), "{name}");
    }
    let text = String::from_utf8(desk.run("inspect stored.zip").stdout).unwrap();
    assert!(text.contains("bcColorLedBot:col, bcColorLedTop:col, nrf51"), "{text}");
}

/// A file's name, its bytes, and what is said of it.
type Case = (&'static str, Vec<u8>, &'static str);

/// A file with one bit changed.
fn damaged(file: &[u8], at: usize) -> Vec<u8> {
    let mut file = file.to_vec();
    file[at] ^= 1;
    file
}

/// A file with other bytes from `at` on.
fn with(file: &[u8], at: usize, bytes: &[u8]) -> Vec<u8> {
    let mut file = file.to_vec();
    file[at..at + bytes.len()].copy_from_slice(bytes);
    file
}

fn malformed_dfu() -> Vec<Case> {
    let bin = firmware("2026.04", LEN);
    let one: &[Target<'_>] = &[(0, vec![(BASE, &bin)])];
    let good = dfuse(one);
    let overlapping = dfuse(&[(0, vec![(BASE, &bin[..])]), (0, vec![(BASE + 4, &bin[..8])])]);
    vec![
        ("short.dfu", good[..100].to_vec(), "DFU suffix at its end is missing"),
        ("cut.dfu", good[..good.len() - 20].to_vec(), "DFU suffix at its end is missing"),
        ("damaged.dfu", damaged(&good, 5000), "it is damaged"),
        ("version.dfu", bent(one, |file| file[5] = 2), "version 2 of the DfuSe format"),
        ("suffix-version.dfu", suffixed(dfuse_body(one), (0x0483, 0xDF11), 0x0100), "version 0x0100"),
        ("no-target.dfu", bent(&[], |_| {}), "holds no target"),
        ("missing-target.dfu", bent(one, |file| file[10] = 2), "ends in the middle of a target"),
        ("bad-target.dfu", bent(one, |file| file[11] = b'X'), "target 1 does not start as a target"),
        ("options.dfu", dfuse(&[(1, vec![(0x1FFF_C000, &bin[..16])])]), "alternate setting 1"),
        ("no-element.dfu", bent(one, |file| file[281..285].fill(0)), "claims to have 0 elements"),
        ("elements.dfu", bent(one, |file| file[281..285].fill(0xFF)), "claims to have 4294967295 elements"),
        ("empty-element.dfu", dfuse(&[(0, vec![(BASE, &[])])]), "the element for 0x08004000 is empty"),
        ("long-element.dfu", bent(one, |file| file[292] = 0x7F), "ends in the middle of an element"),
        ("target-size.dfu", bent(one, |file| file[277] ^= 1), "its elements have 20008"),
        ("leftover.dfu", bent(one, |file| file.extend([0; 7])), "7 bytes follow its last target"),
        ("overlap.dfu", overlapping, "holds 0x08004004 twice"),
        ("suffix.bin", damaged(&suffixed(bin.clone(), (0x0483, 0xDF11), 0x0100), 77), "it is damaged"),
        (
            "suffix-len.bin",
            with(&suffixed(bin.clone(), (0x0483, 0xDF11), 0x0100), LEN + 11, &[15]),
            "15 bytes",
        ),
    ]
}

#[allow(clippy::too_many_lines, reason = "a table, one row a file")]
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
        ("after.hex", [text.as_bytes(), b":00000001FF\r\n"].concat(), "follows the end of the file"),
        ("cut.elf", elf(BASE, &bin)[..9000].to_vec(), "ELF file cannot be used"),
        ("x86.elf", with(&elf(BASE, &bin), 18, &[0x3E]), "not a linked program for a 32-bit ARM chip"),
        ("object.elf", with(&elf(BASE, &bin), 16, &[1]), "not a linked program"),
        (
            "section.elf",
            with(&good_elf, section + 40 + 20, &50_000_u32.to_le_bytes()),
            "a section is in no segment",
        ),
        ("shifted.elf", with(&good_elf, section + 40 + 12, &[0x10]), "a section is in no segment"),
        ("unflagged.elf", with(&good_elf, section + 80 + 8, &[1]), "nothing to flash|bytes of no section"),
        (
            "loose.elf",
            with(&good_elf, section + 40 + 20, &100_u32.to_le_bytes()),
            "a segment holds bytes of no section",
        ),
        ("headers.elf", with(&good_elf, 44, &60_000_u16.to_le_bytes()), "ELF file cannot be used"),
        ("text.bin", b"This is not a firmware.\n".repeat(100), "a text file"),
        ("comment.hex", [b"; a comment\r\n", text.as_bytes()].concat(), "line 1 is damaged"),
        (
            "signature.dfu",
            bent(&[(0, vec![(BASE, &bin)])], |file| file[4] = b'f'),
            "version 0x011A, which does not belong",
        ),
        (
            "nested.zip",
            release("cf2", &release("cf2", &bin, CompressionMethod::Stored), CompressionMethod::Stored),
            "another archive",
        ),
        (
            "manifests.zip",
            zip(&[("a/manifest.json", b"{}"), ("b/manifest.json", b"{}")], CompressionMethod::Stored),
            "there are 2 of them",
        ),
        (
            "number.zip",
            zipped("a", r#"{"version":2,"fw_platform":7,"files":{"a":{"target":"stm32","type":"fw"}}}"#),
            "fw_platform is no text",
        ),
        (
            "cut.zip",
            release("cf2", &bin, CompressionMethod::Stored)[..9000].to_vec(),
            "zip archive cannot be used",
        ),
        ("other.zip", zip(&[("readme.txt", b"hello")], CompressionMethod::Stored), "no manifest.json"),
        ("manifest.zip", zipped("a", "{"), "manifest is damaged"),
        ("future.zip", zipped("a", r#"{"version": 3}"#), "version 3; versions 1 and 2 are known"),
        (
            "radio.zip",
            zipped("a", r#"{"version":2,"files":{"a":{"target":"nrf51","type":"fw"}}}"#),
            "no firmware for the STM32",
        ),
        (
            "missing.zip",
            zipped("a", r#"{"version":2,"files":{"../../b":{"target":"stm32","type":"fw"}}}"#),
            "names ../../b, which is not in it",
        ),
        (
            "two.zip",
            zipped(
                "a",
                r#"{"version":2,"files":{"a":{"target":"stm32","type":"fw"},"b":{"target":["stm32"],"type":"fw"}}}"#,
            ),
            "several firmwares for the STM32: a, b",
        ),
        (
            "platform.zip",
            release("cf2", &bolt, CompressionMethod::Stored),
            "says it is for cf2, but its firmware is for bolt",
        ),
        ("bomb.zip", release("cf2", &bomb, CompressionMethod::Deflated), "larger than the Crazyflie's flash"),
        (
            "far.hex",
            hex(BASE, &[&bin[..], &vec![3; 1024 * 1024]].concat()).into_bytes(),
            "more than the 1048576",
        ),
    ]
}

#[test]
fn every_malformed_file_is_refused_with_its_own_reason() {
    let desk = Desk::new();
    for (name, bytes, words) in malformed_dfu().into_iter().chain(malformed_others()) {
        fs::write(desk.0.path().join(name), bytes).unwrap();
        for command in ["inspect", "flash --demo"] {
            let output = desk.run(&format!("{command} {name}"));
            let text = String::from_utf8(output.stderr).unwrap();
            assert_eq!(output.status.code(), Some(65), "{command} {name}: {text}");
            let said = |words: &str| text.to_lowercase().contains(&words.to_lowercase());
            assert!(words.split('|').any(said), "{name}: {text}");
            assert!(output.stdout.is_empty(), "{name}: nothing was begun");
        }
    }
}

/// Name, bytes, command, exit status, and what is said.
type Placement = (&'static str, Vec<u8>, &'static str, i32, &'static str);

#[allow(clippy::too_many_lines, reason = "a table, one row a file")]
fn placements() -> Vec<Placement> {
    let bin = firmware("2026.04", LEN);
    let loader = images::loader();
    let ram = dfuse(&[(0, vec![(0x2000_0000, &bin)])]);
    let both = dfuse(&[(0, vec![(0x0800_0000, &loader), (BASE, &bin)])]);
    // Another project's firmware for this chip: vectors into itself, from the start of flash.
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
            "puts this firmware at 0x08000000, but it is linked for 0x08004000",
        ),
        ("ram.dfu", ram, "flash", 65, "linked for 0x08004000"),
        (
            "low.hex",
            hex(0x0800_0000, &bin).into_bytes(),
            "flash --address 0x08004000",
            65,
            "packed for the wrong address: take the .bin",
        ),
        (
            "other.bin",
            linked_low,
            "flash --allow-mismatch --address 0x08004000",
            65,
            "It is no Crazyflie firmware",
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
            "Bitcraze bootloader, not a firmware",
        ),
        ("loader.hex", hex(0x0800_0000, &loader).into_bytes(), "restore-bootloader", 0, ""),
        (
            "loader-high.dfu",
            dfuse(&[(0, vec![(BASE, &loader)])]),
            "restore-bootloader",
            65,
            "belongs at 0x08000000, but the file puts it at 0x08004000",
        ),
        ("both.dfu", both.clone(), "flash", 65, "copy of a whole flash"),
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
            suffixed(bin.clone(), (0x1EAF, 0x0003), 0x0100),
            "flash",
            65,
            "USB device 1eaf:0003",
        ),
        ("leaflabs.bin", suffixed(bin.clone(), (0x1EAF, 0x0003), 0x0100), "flash --allow-mismatch", 0, ""),
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

/// A small file must not take all memory or a long time, however often it names its bytes.
#[test]
fn an_elf_with_absurdly_many_headers_costs_nothing() {
    let bin = firmware("2026.04", LEN);
    let good = elf(BASE, &bin);
    let mut file = good[..52].to_vec();
    // A thousand segments over the same bytes.
    file[42..46].copy_from_slice(&[32, 0, 0xE7, 0x03]);
    file[48..50].copy_from_slice(&[0, 0]);
    for _ in 0..999 {
        file.extend([1, 0x8000, BASE, BASE, 15_000_000, 15_000_000, 5, 4].map(u32::to_le_bytes).concat());
    }
    file.resize(15_100_000, 7);
    let desk = Desk::new();
    fs::write(desk.0.path().join("bomb.elf"), file).unwrap();
    let started = std::time::Instant::now();
    let output = desk.run("inspect bomb.elf");
    assert_eq!(output.status.code(), Some(65), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(started.elapsed().as_secs() < 10);
}

#[test]
fn a_padded_bootloader_is_no_backup_and_a_gap_is_told() {
    let desk = Desk::new();
    for (name, padding) in [("ff.bin", 0xFF), ("zero.bin", 0)] {
        let mut file = images::loader();
        file.resize(20 * 1024, padding);
        fs::write(desk.0.path().join(name), file).unwrap();
        assert_eq!(
            desk.run(&format!("restore-bootloader {name} --demo=dfu")).status.code(),
            Some(65),
            "{name}"
        );
    }
    let bin = firmware("2026.04", LEN);
    let text = hex(BASE, &bin);
    let lost = text.lines().nth(900).unwrap();
    fs::write(desk.0.path().join("lost.hex"), text.replacen(&format!("{lost}\r\n"), "", 1)).unwrap();
    let output = desk.run("flash lost.hex --demo=dfu");
    assert!(String::from_utf8_lossy(&output.stdout).contains("leave out 16 bytes"));
}

#[test]
fn a_good_file_for_the_wrong_place_or_device_is_refused_by_name() {
    let desk = Desk::new();
    for (name, bytes, command, exit, words) in placements() {
        fs::write(desk.0.path().join(name), bytes).unwrap();
        let output = desk.run(&format!("{command} {name} --demo=dfu"));
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8(text).unwrap();
        assert_eq!(output.status.code(), Some(exit), "{command} {name}: {text}");
        assert!(text.contains(words), "{command} {name}: {text}");
    }
}
