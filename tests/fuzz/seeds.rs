//! Writes the seed files for the fuzz target `image` to the given folder.

#[allow(dead_code, reason = "the tests use the rest")]
#[path = "../it/files.rs"]
mod files;

use std::path::PathBuf;

use cfdfu::sim::images;
use zip::CompressionMethod;

fn main() {
    let folder = PathBuf::from(std::env::args().nth(1).expect("usage: seeds FOLDER"));
    let part: Vec<u8> = (0..200_u8).collect();
    let base = 0x0800_4000;
    let firmware = images::firmware("2026.08", &[("CF21", "Crazyflie 2.1")], 4096);
    let seeds = [
        ("bin", firmware.clone()),
        ("loader", images::loader()),
        ("suffix", files::append_suffix(firmware.clone(), (0x0483, 0xDF11), 0x0100)),
        ("dfuse", files::dfuse(&[(0, vec![(base, &part)]), (0, vec![(base + 800, &part)])])),
        ("hex", files::hex(base, &part).into_bytes()),
        ("elf", files::elf(base, &part)),
        ("stored", files::release("cf2", &firmware, CompressionMethod::Stored)),
        ("deflated", files::release("cf2", &firmware, CompressionMethod::Deflated)),
    ];
    for (name, bytes) in seeds {
        std::fs::write(folder.join(name), bytes).expect("cannot write a seed file");
    }
}
