//! Advice for files that are not images and for refused images (what is wrong and which file to use instead), and
//! warnings about accepted images.

use super::health::warn_without_entry;
use super::right_file::{RIGHT_LOADER, any_image, drone_name};
use super::{Exit, Problem, ProblemKind};
use crate::flash::{FIRMWARE_BASE, LOADER_BASE, LOADER_MAX};
use crate::image::{Image, ImageError, Sha256};
use crate::job::PlatformChange;
use crate::plan::admission::Refusal;

/// Returns a warning about an image that cfdfu accepts, if the image needs one.
pub(crate) fn warn_about_image(image: &Image) -> Option<String> {
    let firmware = image.content.firmware()?;
    if firmware.platform() == Some("flapper") {
        return Some("only for a Flapper, although other drones use the same type of board".to_owned());
    }
    warn_without_entry(firmware.version.as_deref()?)
}

/// Warns that the drone's firmware and the image are for different platforms.
pub(crate) fn platform_change(change: PlatformChange) -> String {
    let PlatformChange { from, to } = change;
    format!(
        "the drone has firmware for the {} ({from}), but this image is for the {} ({to})",
        drone_name(from),
        drone_name(to)
    )
}

/// Returns the problem with a file whose SHA-256 is not the expected one.
pub(crate) fn wrong_checksum(expected: Sha256, found: Sha256) -> Problem {
    let message = format!("its SHA-256 is {found}, not {expected}");
    let advice = "Nothing was changed. The file is damaged or not the one you expected: download it again.";
    Problem::new(Exit::Image, ProblemKind::WrongChecksum, &message).advise(advice)
}

/// Returns the problem with a file that is not an image.
pub fn image_error(error: &ImageError) -> Problem {
    let right = format!("Use {}.", any_image());
    let advice = match error {
        ImageError::Empty => "Build or download the file again.",
        ImageError::Text => &right,
        ImageError::WebPage => {
            &format!("The browser saved the web page instead of the file it links to. {right}")
        }
        ImageError::Packed(_) => &format!("Unpack the file first. {right}"),
        ImageError::TooLarge { .. } | ImageError::FileTooLarge => {
            &format!("This is not a Crazyflie image: firmware is 240 to 310 kB. {right}")
        }
        ImageError::Blank { .. } => "A dump of blank memory looks like this. There is nothing to flash.",
        ImageError::OtherPlatform { .. } => "Download the release for your board again.",
        ImageError::Release(_) => {
            "Use a release such as firmware-cf2-….zip (github.com/bitcraze/crazyflie-release/releases), or unpack one and \
             use the STM32's .bin from it."
        }
        ImageError::Overlap(_)
        | ImageError::DfuSe(_)
        | ImageError::Suffix(_)
        | ImageError::Hex(_)
        | ImageError::Elf(_) => "Build or download the file again.",
    };
    Problem::new(Exit::Image, ProblemKind::MalformedImage, error)
        .advise(format!("Nothing was changed. {advice}"))
}

/// Returns the problem with a refused image.
#[allow(clippy::too_many_lines, reason = "a table, one row per refusal")]
pub(crate) fn refusal(refusal: &Refusal) -> Problem {
    let (kind, advice) = match refusal {
        // Firmware never fits in the bootloader's sector, so this must be a bootloader.
        Refusal::CutOff { needs, .. } if *needs <= LOADER_MAX => {
            (ProblemKind::IncompleteImage, format!("Download the file again: {RIGHT_LOADER}."))
        }
        Refusal::CutOff { .. } => {
            (ProblemKind::IncompleteImage, format!("Download or build the file again: {}.", any_image()))
        }
        Refusal::LeavesOut { .. } => {
            (ProblemKind::IncompleteImage, "Build the file again, or use the .bin.".to_owned())
        }
        Refusal::IncompleteCopy => (
            ProblemKind::IncompleteImage,
            "Add a complete firmware file: `cfdfu restore-bootloader FILE --firmware IMAGE`.".to_owned(),
        ),
        Refusal::Radio => (
            ProblemKind::RadioImage,
            format!("cfclient updates the radio chip over radio. For the STM32, use {}.", any_image()),
        ),
        Refusal::LoaderAsFirmware => (
            ProblemKind::BootloaderImage,
            format!(
                "To restore a bootloader: `cfdfu restore-bootloader FILE`. To flash firmware, use {}.",
                any_image()
            ),
        ),
        Refusal::LoaderElsewhere { .. } => (
            ProblemKind::WrongAddress,
            format!("Use the original file, which goes to {LOADER_BASE}: {RIGHT_LOADER}."),
        ),
        Refusal::NoLoaderBefore => (
            ProblemKind::NotABootloader,
            "An undo does not remove a restored bootloader. To undo anyway: `cfdfu undo --allow-mismatch`."
                .to_owned(),
        ),
        Refusal::NothingBefore => (ProblemKind::NoCopy, "There is nothing to restore.".to_owned()),
        Refusal::NotALoader { may_override, .. } => {
            let mut advice = format!(
                "Use {RIGHT_LOADER}. To flash firmware: `cfdfu flash FILE`, or `cfdfu restore-bootloader LOADER \
                 --firmware FILE`."
            );
            if *may_override {
                advice += " If you are sure that this file contains a bootloader, use --allow-mismatch.";
            }
            (ProblemKind::NotABootloader, advice)
        }
        Refusal::Unknown => (
            ProblemKind::UnknownImage,
            format!(
                "Use {}. If you are sure about this image, use --allow-mismatch (and --address, if it does not go to \
                 0x08004000).",
                any_image()
            ),
        ),
        Refusal::WholeFlash(_) => (
            ProblemKind::BackupImage,
            "To restore the backup, including the bootloader: `cfdfu restore-bootloader FILE`.".to_owned(),
        ),
        Refusal::Placed { placed, .. } => {
            (ProblemKind::WrongAddress, format!("Omit --address: the file goes to {placed} by default."))
        }
        Refusal::OtherDevice { .. } => (
            ProblemKind::OtherDevice,
            format!("Use {}. If you are sure about this image, use --allow-mismatch.", any_image()),
        ),
        Refusal::WrongAddress { linked, .. } if *linked == FIRMWARE_BASE => (
            ProblemKind::WrongAddress,
            format!(
                "Omit --address: the image goes to {FIRMWARE_BASE} by default. --allow-mismatch does not override this."
            ),
        ),
        Refusal::Misplaced { .. } => (
            ProblemKind::WrongAddress,
            "This file was packed for the wrong address: use the .bin, or pack it again.".to_owned(),
        ),
        Refusal::Foreign { .. } => (
            ProblemKind::WrongAddress,
            format!("Crazyflie firmware is linked for {FIRMWARE_BASE}. Use {}.", any_image()),
        ),
        Refusal::WrongAddress { .. } => (
            ProblemKind::WrongAddress,
            format!(
                "The image was built with CLOAD=0 and would overwrite the bootloader. Build it again without CLOAD=0, \
                 for {FIRMWARE_BASE}."
            ),
        ),
        Refusal::BootloaderSector { .. } => (
            ProblemKind::BootloaderSector,
            format!("Only `restore-bootloader` writes there; firmware goes to {FIRMWARE_BASE}."),
        ),
        Refusal::PastTheEnd { .. } => {
            (ProblemKind::TooLarge, format!("The image cannot be Crazyflie firmware. Use {}.", any_image()))
        }
        Refusal::NotFlash { .. } => (ProblemKind::NotFlash, format!("Firmware goes to {FIRMWARE_BASE}.")),
        Refusal::Unaligned { .. } => (ProblemKind::Unaligned, format!("Firmware goes to {FIRMWARE_BASE}.")),
    };
    let problem = Problem::new(Exit::Image, kind, refusal).advise(format!("Nothing was changed. {advice}"));
    match in_interface(refusal) {
        Some(advice) => problem.in_interface(advice),
        None => problem,
    }
}

/// Returns the advice for the interface, if it differs from the general advice, which may name a command or an option.
fn in_interface(refusal: &Refusal) -> Option<String> {
    let text = match refusal {
        Refusal::IncompleteCopy => "Choose another file.".to_owned(),
        Refusal::LoaderAsFirmware => {
            format!("To restore a bootloader: Esc, then b. To flash firmware, choose {}.", any_image())
        }
        Refusal::NoLoaderBefore => "An undo does not remove a restored bootloader.".to_owned(),
        Refusal::NotALoader { .. } => {
            format!("Choose {RIGHT_LOADER}. To flash firmware: Esc, then f.")
        }
        Refusal::Unknown | Refusal::OtherDevice { .. } => format!("Choose {}.", any_image()),
        Refusal::WholeFlash(_) => {
            "To restore it, including the bootloader: Esc, then b, and choose it there.".to_owned()
        }
        Refusal::BootloaderSector { .. } => "Only a bootloader goes there: Esc, then b.".to_owned(),
        _ => return None,
    };
    Some(text)
}
