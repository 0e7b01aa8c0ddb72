//! Why a file is no image, or may not go where it would, and what to take instead.

use super::{Exit, Problem};
use crate::flash::check::Refusal;
use crate::flash::{FIRMWARE_BASE, LOADER_BASE};
use crate::image::{Firmware, Image, ImageError};

/// What somebody should know of an image that may be flashed.
#[must_use]
pub fn caution(image: &Image) -> Option<String> {
    let flapper = image.content.firmware().and_then(Firmware::platform) == Some("flapper");
    flapper.then(|| "only for a Flapper: other drones have this type of board, too".to_owned())
}

/// A file that is no image.
#[must_use]
pub fn image_error(error: &ImageError) -> Problem {
    let advice = match error {
        ImageError::Empty | ImageError::Text => "Build or download it again.",
        ImageError::TooLarge { .. } | ImageError::FileTooLarge => {
            "This is no Crazyflie image; firmware has 240 to 310 kB."
        }
        ImageError::Blank { .. } => {
            "A dump of an erased chip looks like this; there is nothing to flash in it."
        }
        ImageError::OtherPlatform { .. } => "Download the release for your board again.",
        ImageError::Release(_) => {
            "Releases are named firmware-cf2-….zip; the .bin of the STM32 in one can be given alone, too."
        }
        ImageError::Overlap(_)
        | ImageError::DfuSe(_)
        | ImageError::Suffix(_)
        | ImageError::Hex(_)
        | ImageError::Elf(_) => "Build or download it again.",
    };
    Problem::new(Exit::Image, "malformed_image", error, format!("{advice} Nothing was touched."))
}

/// An image that may not go where it would.
#[must_use]
pub fn refusal(refusal: &Refusal) -> Problem {
    let (kind, advice) = match refusal {
        Refusal::Radio => (
            "radio_image",
            "Take the file for the STM32 (cf2-….bin); the radio chip is updated by cfclient over radio."
                .to_owned(),
        ),
        Refusal::LoaderAsFirmware => {
            ("bootloader_image", "To restore a bootloader: cfdfu restore-bootloader FILE.".to_owned())
        }
        Refusal::LoaderElsewhere { .. } => {
            ("wrong_address", format!("Take the original file, which goes to {LOADER_BASE}."))
        }
        Refusal::NoLoaderBefore => (
            "not_a_bootloader",
            "A restored bootloader stays, unless you insist: cfdfu undo --allow-mismatch.".to_owned(),
        ),
        Refusal::NothingBefore => ("no_copy", "There is nothing to put back.".to_owned()),
        Refusal::NotALoader { .. } => (
            "not_a_bootloader",
            format!(
                "The bootloader is cf2loader-1.0.bin, linked for {LOADER_BASE}. To flash a firmware: cfdfu \
                 flash FILE, or restore-bootloader LOADER --firmware FILE. If you are sure of it: --allow-mismatch."
            ),
        ),
        Refusal::Unknown => (
            "unknown_image",
            "If you are sure of it: --allow-mismatch (and --address, if not 0x08004000).".to_owned(),
        ),
        Refusal::WholeFlash(_) => {
            ("backup_image", "To put it back, bootloader included: cfdfu restore-bootloader FILE.".to_owned())
        }
        Refusal::Placed { placed, .. } => {
            ("wrong_address", format!("Leave out --address: it goes to {placed} by itself."))
        }
        Refusal::OtherDevice { .. } => (
            "other_device",
            "Take the file for the Crazyflie. If you are sure of it: --allow-mismatch.".to_owned(),
        ),
        Refusal::WrongAddress { linked, .. } if *linked == FIRMWARE_BASE => {
            ("wrong_address", format!("Leave out --address: it goes to {FIRMWARE_BASE} by itself."))
        }
        Refusal::Misplaced { .. } => (
            "wrong_address",
            "This file was packed for the wrong address: take the .bin, or pack it again.".to_owned(),
        ),
        Refusal::Foreign { .. } => {
            ("wrong_address", format!("It is no Crazyflie firmware, which is linked for {FIRMWARE_BASE}."))
        }
        Refusal::WrongAddress { .. } => (
            "wrong_address",
            format!(
                "It was built with CLOAD=0 and would overwrite the bootloader. Build it again without, for \
                 {FIRMWARE_BASE}."
            ),
        ),
        Refusal::BootloaderSector { .. } => (
            "bootloader_sector",
            format!("Only restore-bootloader writes there; firmware goes to {FIRMWARE_BASE}."),
        ),
        Refusal::PastTheEnd { .. } => ("too_large", "It cannot be a Crazyflie firmware.".to_owned()),
        Refusal::NotFlash { .. } => ("not_flash", format!("Firmware goes to {FIRMWARE_BASE}.")),
        Refusal::Unaligned { .. } => ("unaligned", format!("Firmware goes to {FIRMWARE_BASE}.")),
    };
    Problem::new(Exit::Image, kind, refusal, format!("{advice} Nothing was touched."))
}
