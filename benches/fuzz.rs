//! Fuzzes the parsers of image files, recordings and most of a drone's answers with random and damaged inputs.
//! `cargo bench --bench fuzz` runs each parser on ten million inputs, and `cargo bench --bench fuzz -- 100000` on
//! 100,000.
//!
//! The run fails on a panic, on an image larger than the flash, or on an input that takes longer than a second to
//! parse. Otherwise, it prints how many inputs each parser accepted and how many it rejected.

#![allow(
    unreachable_pub,
    clippy::cast_possible_truncation,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "failures are panics, as in the tests, and the results are printed"
)]

#[allow(dead_code, reason = "the tests use the other functions")]
#[path = "../tests/it/files.rs"]
mod files;
#[path = "../tests/it/rng.rs"]
mod rng;

use std::time::{Duration, Instant};

use cfdfu::crazyflie::Protection;
use cfdfu::crazyflie::crtp::{CrtpQuestion, Radio};
use cfdfu::crazyflie::parse_board;
use cfdfu::dfu::wire::StatusBlock;
use cfdfu::flash::map::MemoryMap;
use cfdfu::image::Loader;
use cfdfu::image::{Content, Image};
use cfdfu::recording::capture;
use cfdfu::sim::images;
use zip::CompressionMethod;

use rng::Rng;

const INPUTS: u64 = 10_000_000;

impl Rng {
    /// Returns a boundary value, which often exposes errors.
    fn pick_boundary(&mut self) -> u32 {
        [0, 1, 3, 4, 0x7F, 0x80, 0xFF, 0xFFFF, 0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FFFC, 0xFFFF_FFFF]
            [self.below(12)]
    }

    /// Returns the seed with up to six random changes.
    fn damage(&mut self, seed: &[u8]) -> Vec<u8> {
        let mut bytes = seed.to_vec();
        for _ in 0..=self.below(6) {
            let len = bytes.len();
            if len < 8 {
                break;
            }
            let at = self.below(len);
            match self.below(8) {
                0 => bytes[at] ^= 1 << self.below(8),
                1 => bytes[at] = self.roll() as u8,
                2 => bytes[at] = self.pick_boundary() as u8,
                3 => {
                    let at = at.min(len - 4);
                    let number = self.pick_boundary().to_le_bytes();
                    bytes[at..at + 4].copy_from_slice(&number);
                }
                4 => bytes.truncate(at),
                5 => drop(bytes.remove(at)),
                6 => bytes.insert(at, self.roll() as u8),
                _ => {
                    let part = bytes[at..(at + 1 + self.below(40)).min(len)].to_vec();
                    let to = self.below(len);
                    bytes.splice(to..to, part);
                }
            }
        }
        bytes
    }
}

/// Runs one parser on random and damaged inputs, and prints the results. `parse` returns whether it accepts the input.
fn fuzz(name: &str, inputs: u64, seeds: &[Vec<u8>], parse: impl Fn(Vec<u8>, &mut Rng) -> bool) {
    let mut rng = Rng(0x2545_F491_4F6C_DD1D);
    let (mut accepted, mut slowest) = (0, Duration::ZERO);
    let started = Instant::now();
    for n in 0..inputs {
        let seed = &seeds[rng.below(seeds.len())];
        let input = match n % 16 {
            0 => (0..rng.below(300)).map(|_| rng.roll() as u8).collect(),
            _ => rng.damage(seed),
        };
        let before = Instant::now();
        accepted += u64::from(parse(input, &mut rng));
        slowest = slowest.max(before.elapsed());
        assert!(slowest < Duration::from_secs(1), "{name}: input {n} took {slowest:?}");
    }
    let seconds = started.elapsed().as_secs_f64();
    println!(
        "{name:<24} {inputs} inputs, {accepted} accepted, {} rejected, {seconds:.0} s, slowest {slowest:?}",
        inputs - accepted
    );
}

fn parse_image(bytes: Vec<u8>) -> bool {
    match Image::parse(bytes) {
        Ok(image) => {
            assert!(image.payload.len() <= 1024 * 1024);
            true
        }
        Err(_) => false,
    }
}

/// Corrects the checksum at the end of half of the inputs. An input with a wrong checksum does not reach the rest of
/// the parser.
fn fix_some_checksums(mut bytes: Vec<u8>, rng: &mut Rng) -> Vec<u8> {
    if bytes.len() > 16 && rng.below(2) == 0 {
        let end = bytes.len() - 4;
        let crc = !crc32fast::hash(&bytes[..end]);
        bytes[end..].copy_from_slice(&crc.to_le_bytes());
    }
    bytes
}

fn main() {
    let inputs = std::env::args().find_map(|argument| argument.parse().ok()).unwrap_or(INPUTS);
    let part: Vec<u8> = (0..200_u32).map(|n| (n * 37 % 251) as u8).collect();
    let base = 0x0800_4000;
    let firmware = images::firmware("2026.08", &[("CF21", "Crazyflie 2.1")], 4096);
    let head = firmware[..1200].to_vec();

    fuzz("raw image", inputs, &[firmware.clone(), head.clone()], |bytes, _| parse_image(bytes));
    let suffixed = files::append_suffix(part.clone(), (0x0483, 0xDF11), 0x0100);
    fuzz("DFU suffix", inputs, &[suffixed], |bytes, rng| parse_image(fix_some_checksums(bytes, rng)));
    let one = files::dfuse(&[(0, vec![(base, &part)])]);
    let two = files::dfuse(&[(0, vec![(base, &part), (base + 200, &part)]), (0, vec![(base + 800, &part)])]);
    fuzz("DfuSe", inputs, &[one, two], |bytes, rng| parse_image(fix_some_checksums(bytes, rng)));
    let hex = files::hex(base, &part).into_bytes();
    fuzz("Intel HEX", inputs, &[hex], |bytes, _| parse_image(bytes));
    let elf = files::elf(base, &part);
    fuzz("ELF", inputs, &[elf], |bytes, _| parse_image(bytes));
    let zips =
        [CompressionMethod::Stored, CompressionMethod::Deflated].map(|way| files::release("cf2", &part, way));
    fuzz("release", inputs, &zips, |bytes, _| parse_image(bytes));

    let maps =
        ["@Internal Flash  /0x08000000/04*016Kg,01*064Kg,07*128Kg", "@x/0x0/1*1 e,2*2Be/0xFFFFFFF0/1*16 a"];
    let maps = maps.map(|text| text.as_bytes().to_vec());
    fuzz("memory map", inputs, &maps, |bytes, _| MemoryMap::parse(&String::from_utf8_lossy(&bytes)).is_ok());
    fuzz("GETSTATUS", inputs, &[vec![0, 100, 0, 0, 4, 0, 0, 0]], |bytes, _| {
        StatusBlock::parse(&bytes).is_some()
    });
    fuzz("OTP", inputs, &[b"0;CF21;R=B1\0".to_vec()], |bytes, _| parse_board(&bytes).is_some());
    fuzz("CRTP answer", inputs, &[b"\xDD\x012026.04\0".to_vec()], |bytes, _| {
        CrtpQuestion::Version.answer(&bytes).is_some() || Radio::of(&bytes).is_some()
    });
    // The first lines are enough: a line is parsed in the same way wherever it is in the file.
    let lines: Vec<&str> = include_str!("../tests/recordings/simulated-dark.jsonl").lines().take(5).collect();
    let text: Vec<&str> =
        include_str!("../tests/recordings/dfu-util-linux.usbmon.txt").lines().take(8).collect();
    let binary = &include_bytes!("../tests/recordings/dfu-util-linux.pcap")[..600];
    let captures = [lines.join("\n").into_bytes(), text.join("\n").into_bytes(), binary.to_vec()];
    fuzz("recording", inputs, &captures, |bytes, _| capture::parse(&bytes).is_ok());
    fuzz("option bytes and loader", inputs, &[head[..64].to_vec()], |bytes, _| {
        let _ = Loader::of(&bytes);
        Protection::parse(&bytes).is_some()
    });
    fuzz("firmware in flash", inputs, &[firmware], |bytes, _| {
        matches!(Content::of(&bytes), Content::Firmware(_))
    });
}
