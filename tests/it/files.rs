//! Builds image files for the test corpus and for the fuzzing seeds. The functions share no code with the program's
//! parsers.

use std::io::{Cursor, Write};

use serde_json::json;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

/// Computes the CRC of a DFU suffix bit by bit, as in appendix B of DFU 1.1.
pub fn crc(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0xFFFF_FFFF, |crc, &byte| {
        (0..8).fold(
            crc ^ u32::from(byte),
            |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0xEDB8_8320 } else { crc >> 1 },
        )
    })
}

/// Appends a DFU suffix for the given USB device to `bytes`.
pub fn append_suffix(mut bytes: Vec<u8>, (vendor, product): (u16, u16), version: u16) -> Vec<u8> {
    for number in [0_u16, product, vendor, version] {
        bytes.extend(number.to_le_bytes());
    }
    bytes.extend(b"UFD\x10");
    let crc = crc(&bytes);
    bytes.extend(crc.to_le_bytes());
    bytes
}

/// A target of a DfuSe file: its alternate setting and its elements.
pub type Target<'a> = (u8, Vec<(u32, &'a [u8])>);

/// Builds a DfuSe file without its suffix.
pub fn dfuse_body(targets: &[Target<'_>]) -> Vec<u8> {
    let mut body = Vec::new();
    for (alternate, elements) in targets {
        let elements_len: usize = elements.iter().map(|(_, data)| 8 + data.len()).sum();
        body.extend(b"Target");
        body.push(*alternate);
        body.extend(1_u32.to_le_bytes());
        let mut name = [0; 255];
        name[..5].copy_from_slice(b"ST...");
        body.extend(name);
        body.extend((elements_len as u32).to_le_bytes());
        body.extend((elements.len() as u32).to_le_bytes());
        for (address, data) in elements {
            body.extend(address.to_le_bytes());
            body.extend((data.len() as u32).to_le_bytes());
            body.extend(*data);
        }
    }
    let mut file = b"DfuSe\x01".to_vec();
    file.extend((11 + body.len() as u32).to_le_bytes());
    file.push(targets.len() as u8);
    file.extend(body);
    file
}

pub fn dfuse(targets: &[Target<'_>]) -> Vec<u8> {
    append_suffix(dfuse_body(targets), (0x0483, 0xDF11), 0x011A)
}

/// Builds a DfuSe file, applies `change` to its body, and appends a suffix with a valid checksum.
pub fn build_changed_dfuse(targets: &[Target<'_>], change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut body = dfuse_body(targets);
    change(&mut body);
    append_suffix(body, (0x0483, 0xDF11), 0x011A)
}

/// Builds an Intel HEX file with 16 bytes per line.
pub fn hex(address: u32, bytes: &[u8]) -> String {
    let line = |kind: u8, offset: u16, data: &[u8]| {
        let [high, low] = offset.to_be_bytes();
        let record = [&[data.len() as u8, high, low, kind][..], data].concat();
        let sum = record.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte)).wrapping_neg();
        let digits: Vec<String> = record.iter().chain([&sum]).map(|byte| format!("{byte:02X}")).collect();
        format!(":{}\r\n", digits.concat())
    };
    let mut text = String::new();
    let mut high = None;
    for (n, data) in bytes.chunks(16).enumerate() {
        let at = address + n as u32 * 16;
        if high != Some(at >> 16) {
            high = Some(at >> 16);
            text += &line(4, 0, &((at >> 16) as u16).to_be_bytes());
        }
        text += &line(0, at as u16, data);
    }
    text + &line(5, 0, &[8, 0, 0x4A, 0x01]) + ":00000001FF\r\n"
}

/// Builds the ELF file of a linked ARM program with code and data. As in files from the GNU linker, the first segment
/// starts with the file's headers.
pub fn elf(address: u32, bytes: &[u8]) -> Vec<u8> {
    const OFFSET: u32 = 0x1000;
    let (text, data) = bytes.split_at((bytes.len() / 2) & !3);
    let mut file = vec![0; OFFSET as usize];
    let sections_at = OFFSET + bytes.len() as u32;
    let header = [
        &b"\x7fELF\x01\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\x28\0"[..],
        &1_u32.to_le_bytes(),
        &(address + 1).to_le_bytes(),
        &52_u32.to_le_bytes(),
        &sections_at.to_le_bytes(),
        &0x0500_0000_u32.to_le_bytes(),
        &[52, 0, 32, 0, 2, 0, 40, 0, 5, 0, 4, 0],
    ];
    let load = |offset: u32, memory: u32, physical: u32, len: u32| {
        [1, offset, memory, physical, len, len, 5, 4].map(u32::to_le_bytes).concat()
    };
    let split = address + text.len() as u32;
    let headers = [
        header.concat(),
        load(0, address - OFFSET, address - OFFSET, OFFSET + text.len() as u32),
        // Initialised data, stored after the code and copied to RAM at start-up.
        load(OFFSET + text.len() as u32, 0x2000_0000, split, data.len() as u32),
    ]
    .concat();
    file[..headers.len()].copy_from_slice(&headers);
    file.extend(bytes);
    let names = b"\0.text\0.data\0.bss\0.shstrtab\0";
    let names_at = sections_at + 5 * 40;
    let section = |name: u32, kind: u32, flags: u32, address: u32, offset: u32, len: u32| {
        [name, kind, flags, address, offset, len, 0, 0, 4, 0].map(u32::to_le_bytes).concat()
    };
    file.extend(section(0, 0, 0, 0, 0, 0));
    file.extend(section(1, 1, 6, address, OFFSET, text.len() as u32));
    file.extend(section(7, 1, 3, 0x2000_0000, OFFSET + text.len() as u32, data.len() as u32));
    file.extend(section(13, 8, 3, 0x2001_0000, OFFSET, 5000));
    file.extend(section(18, 3, 0, 0, names_at, names.len() as u32));
    file.extend(names);
    file
}

pub fn zip(files: &[(&str, &[u8])], method: CompressionMethod) -> Vec<u8> {
    let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, bytes) in files {
        let options = SimpleFileOptions::default().compression_method(method);
        writer.start_file(*name, options).unwrap();
        writer.write_all(bytes).unwrap();
    }
    writer.finish().unwrap().into_inner()
}

/// Builds a manifest like those that Bitcraze's release tool writes.
pub fn manifest(version: u32, platform: &str) -> String {
    let stm32 = json!({"platform": "cf2", "target": "stm32", "type": "fw", "release": "2026.04"});
    let nrf51 = json!({"platform": "cf2", "target": "nrf51", "type": "fw", "requires": ["sd-s130"]});
    let deck =
        json!({"platform": "deck", "target": ["bcColorLedBot:col", "bcColorLedTop:col"], "type": "fw"});
    let files = json!({"cf2-2026.04.bin": stm32, "cf2_nrf-2026.04.bin": nrf51, "color-led.bin": deck});
    json!({"version": version, "subversion": 1, "fw_platform": platform, "release": "2026.04", "files": files})
        .to_string()
}

pub fn release(platform: &str, stm32: &[u8], method: CompressionMethod) -> Vec<u8> {
    let manifest = manifest(2, platform);
    let files = [
        ("manifest.json", manifest.as_bytes()),
        ("cf2_nrf-2026.04.bin", b"radio"),
        ("color-led.bin", b"led"),
    ];
    zip(&[&files[..], &[("cf2-2026.04.bin", stm32)]].concat(), method)
}
