//! Fuzzes the parsers of image files. Every file must be accepted or refused without a panic, and an image that
//! is approved for a flash must never extend into sector 0 or beyond the end of the flash.
#![no_main]

use cfdfu::flash::{FIRMWARE_BASE, FLASH_END};
use cfdfu::image::{Image, Payload};
use cfdfu::plan::admission::{self, Overrides};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(image) = Image::parse(bytes.to_vec()) else { return };
    assert!(image.payload.len() <= 1024 * 1024);
    for allow_mismatch in [false, true] {
        let overrides = Overrides { allow_mismatch, ..Overrides::default() };
        if let Ok(approved) = admission::flash(&image, overrides) {
            for segment in approved.segments() {
                assert!(segment.address >= FIRMWARE_BASE && segment.end() <= FLASH_END);
            }
        }
        let _ = admission::restore(&image, None, overrides);
        if let Payload::Placed(segments) = &image.payload {
            let _ = admission::undo(segments[0].clone(), overrides);
        }
    }
});
