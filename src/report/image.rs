//! Why a file is no image, or may not go where it would, and what to take instead.

use super::right_file::{RIGHT_LOADER, any_image, called};
use super::{Exit, Problem, ProblemKind};
use crate::flash::{FIRMWARE_BASE, LOADER_BASE, LOADER_MAX};
use crate::image::{Firmware, Image, ImageError, Sha256};
use crate::job::PlatformChange;
use crate::plan::admission::Refusal;

/// What somebody should know of an image that may be flashed.
pub(crate) fn caution(image: &Image) -> Option<String> {
    let flapper = image.content.firmware().and_then(Firmware::platform) == Some("flapper");
    flapper.then(|| "only for a Flapper: other drones have this type of board, too".to_owned())
}

/// What a drone runs and what it is about to get, if these are for different kinds of drones.
pub(crate) fn platform_change(change: PlatformChange) -> String {
    let PlatformChange { from, to } = change;
    format!(
        "the drone has a firmware for the {} ({from}), this one is for the {} ({to})",
        called(from),
        called(to)
    )
}

/// A file that is not the one that was published.
pub(crate) fn wrong_checksum(expected: Sha256, found: Sha256) -> Problem {
    let message = format!("its SHA-256 is {found}, not {expected}");
    let advice =
        "It is damaged, or another file than the one that was meant: download it again. Nothing was touched.";
    Problem::new(Exit::Image, ProblemKind::WrongChecksum, &message).advise(advice)
}

/// A file that is no image.
pub(crate) fn image_error(error: &ImageError) -> Problem {
    let right = format!("Take {}.", any_image());
    let advice = match error {
        ImageError::Empty => "Build or download it again.",
        ImageError::Text => &right,
        ImageError::WebPage => &format!("The browser saved the page, not the file that it links to. {right}"),
        ImageError::Packed(_) => &format!("Unpack it first. {right}"),
        ImageError::TooLarge { .. } | ImageError::FileTooLarge => {
            &format!("This is not a Crazyflie image; firmware has 240 to 310 kB. {right}")
        }
        ImageError::Blank { .. } => {
            "A dump of an erased chip looks like this; there is nothing to flash in it."
        }
        ImageError::OtherPlatform { .. } => "Download the release for your board again.",
        ImageError::Release(_) => {
            "Releases are named firmware-cf2-….zip (github.com/bitcraze/crazyflie-release/releases); the .bin of the STM32 \
             in one can be given alone, too."
        }
        ImageError::Overlap(_)
        | ImageError::DfuSe(_)
        | ImageError::Suffix(_)
        | ImageError::Hex(_)
        | ImageError::Elf(_) => "Build or download it again.",
    };
    Problem::new(Exit::Image, ProblemKind::MalformedImage, error)
        .advise(format!("{advice} Nothing was touched."))
}

/// An image that may not go where it would.
#[allow(clippy::too_many_lines, reason = "a table, one row a refusal")]
pub(crate) fn refusal(refusal: &Refusal) -> Problem {
    let (kind, advice) = match refusal {
        // No firmware fits into the bootloader's sector.
        Refusal::CutOff { needs, .. } if *needs <= LOADER_MAX => {
            (ProblemKind::IncompleteImage, format!("Download it again: {RIGHT_LOADER}."))
        }
        Refusal::CutOff { .. } => {
            (ProblemKind::IncompleteImage, format!("Download or build it again: {}.", any_image()))
        }
        Refusal::LeavesOut { .. } => (
            ProblemKind::IncompleteImage,
            "A part of it was lost: build it again, or take the .bin.".to_owned(),
        ),
        Refusal::IncompleteCopy => (
            ProblemKind::IncompleteImage,
            "Give a complete firmware with it: cfdfu restore-bootloader FILE --firmware IMAGE.".to_owned(),
        ),
        Refusal::Radio => (
            ProblemKind::RadioImage,
            format!("The radio chip is updated by cfclient over radio. For the STM32 take {}.", any_image()),
        ),
        Refusal::LoaderAsFirmware => (
            ProblemKind::BootloaderImage,
            format!(
                "To restore a bootloader: cfdfu restore-bootloader FILE. To flash a firmware, take {}.",
                any_image()
            ),
        ),
        Refusal::LoaderElsewhere { .. } => (
            ProblemKind::WrongAddress,
            format!("Take the original file, which goes to {LOADER_BASE}: {RIGHT_LOADER}."),
        ),
        Refusal::NoLoaderBefore => (
            ProblemKind::NotABootloader,
            "A restored bootloader stays, unless you insist: cfdfu undo --allow-mismatch.".to_owned(),
        ),
        Refusal::NothingBefore => (ProblemKind::NoCopy, "There is nothing to put back.".to_owned()),
        Refusal::NotALoader { .. } => (
            ProblemKind::NotABootloader,
            format!(
                "Take {RIGHT_LOADER}. To flash a firmware: cfdfu \
                 flash FILE, or restore-bootloader LOADER --firmware FILE. If you are sure of it: --allow-mismatch."
            ),
        ),
        Refusal::Unknown => (
            ProblemKind::UnknownImage,
            format!(
                "Take {}. If you are sure of this one: --allow-mismatch (and --address, if not 0x08004000).",
                any_image()
            ),
        ),
        Refusal::WholeFlash(_) => (
            ProblemKind::BackupImage,
            "To put it back, bootloader included: cfdfu restore-bootloader FILE.".to_owned(),
        ),
        Refusal::Placed { placed, .. } => {
            (ProblemKind::WrongAddress, format!("Leave out --address: it goes to {placed} by itself."))
        }
        Refusal::OtherDevice { .. } => (
            ProblemKind::OtherDevice,
            format!("Take {}. If you are sure of this one: --allow-mismatch.", any_image()),
        ),
        Refusal::WrongAddress { linked, .. } if *linked == FIRMWARE_BASE => (
            ProblemKind::WrongAddress,
            format!(
                "Leave out --address: it goes to {FIRMWARE_BASE} by itself. --allow-mismatch does not change that."
            ),
        ),
        Refusal::Misplaced { .. } => (
            ProblemKind::WrongAddress,
            "This file was packed for the wrong address: take the .bin, or pack it again.".to_owned(),
        ),
        Refusal::Foreign { .. } => (
            ProblemKind::WrongAddress,
            format!(
                "It is not a Crazyflie firmware, which is linked for {FIRMWARE_BASE}. Take {}.",
                any_image()
            ),
        ),
        Refusal::WrongAddress { .. } => (
            ProblemKind::WrongAddress,
            format!(
                "It was built with CLOAD=0 and would overwrite the bootloader. Build it again without, for \
                 {FIRMWARE_BASE}."
            ),
        ),
        Refusal::BootloaderSector { .. } => (
            ProblemKind::BootloaderSector,
            format!("Only restore-bootloader writes there; firmware goes to {FIRMWARE_BASE}."),
        ),
        Refusal::PastTheEnd { .. } => {
            (ProblemKind::TooLarge, format!("It cannot be a Crazyflie firmware. Take {}.", any_image()))
        }
        Refusal::NotFlash { .. } => (ProblemKind::NotFlash, format!("Firmware goes to {FIRMWARE_BASE}.")),
        Refusal::Unaligned { .. } => (ProblemKind::Unaligned, format!("Firmware goes to {FIRMWARE_BASE}.")),
    };
    Problem::new(Exit::Image, kind, refusal).advise(format!("{advice} Nothing was touched."))
}
