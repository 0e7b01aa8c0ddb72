//! Image files: whatever a file holds, it is taken or refused, and what is taken is never for sector 0 of a flash.
#![no_main]

use cfdfu::flash::{FIRMWARE_BASE, FLASH_END};
use cfdfu::image::{Image, Payload};
use cfdfu::plan::admission::{self, Overrides};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(image) = Image::parse(bytes.to_vec()) else { return };
    assert!(image.payload.len() <= 1024 * 1024);
    for allow_mismatch in [false, true] {
        let wish = Overrides { allow_mismatch, ..Overrides::default() };
        if let Ok(approved) = admission::flash(&image, wish) {
            for segment in approved.segments() {
                assert!(segment.address >= FIRMWARE_BASE && segment.end() <= FLASH_END);
            }
        }
        let _ = admission::restore(&image, None, wish);
        if let Payload::Placed(segments) = &image.payload {
            let _ = admission::undo(segments[0].clone(), wish);
        }
    }
});
