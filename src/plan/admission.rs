//! Decides whether and where an image may be written, before cfdfu changes any drone.
//!
//! Only this module can create an [`ApprovedImage`], and the plan accepts nothing else, so no code path can bypass
//! these rules.

use std::sync::Arc;

use thiserror::Error;

use crate::flash::{Address, FIRMWARE_BASE, FLASH_END, LOADER_BASE, Segment, Span, is_blank};
use crate::image::{Content, Extent, Image, WholeFlash};

/// Overrides that the user requested.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Overrides {
    /// Write to this address instead of the one that the image is linked for.
    pub address: Option<Address>,
    /// Accept an image that is not recognised, or whose DFU suffix names a different device. For a restore or an undo,
    /// also accept a bootloader that is not Bitcraze's. A flash never writes to sector 0, even with this override.
    pub allow_mismatch: bool,
}

/// Which part of flash a job may change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Everything except the bootloader's sector.
    Flash,
    /// The bootloader, with or without firmware.
    RestoreBootloader,
}

/// An image that passed every check that does not need a drone. Clones share the segments, so cloning a job or an undo
/// is cheap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApprovedImage {
    purpose: Purpose,
    segments: Arc<[Segment]>,
}

impl ApprovedImage {
    fn new(purpose: Purpose, segments: Vec<Segment>) -> ApprovedImage {
        ApprovedImage { purpose, segments: segments.into() }
    }

    /// Returns the purpose, which determines whether the job may change the bootloader's sector.
    pub(crate) fn purpose(&self) -> Purpose {
        self.purpose
    }

    /// Returns the segments, in ascending order.
    pub fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// Returns the total size in bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.segments.iter().map(|segment| segment.data.len()).sum()
    }
}

/// Why an image is refused. The message gives the cause; the remedy is in `report`.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Refusal {
    #[error("this image is for the radio chip (nRF51), which USB DFU cannot reach")]
    Radio,
    /// The user passed `cf2loader` as the firmware.
    #[error("this is the Bitcraze bootloader, not firmware")]
    LoaderAsFirmware,
    /// The user passed something other than a bootloader as the bootloader.
    #[error("this is {what}, not the Bitcraze bootloader")]
    NotALoader {
        /// A description of the image, including its article, for example "an image that is not recognised".
        what: &'static str,
        /// Whether the user may override the refusal.
        may_override: bool,
    },
    /// The file places the bootloader outside sector 0.
    #[error("the bootloader belongs at 0x08000000, but the file places it at {address}")]
    LoaderElsewhere { address: Address },
    /// A backup whose bootloader was not Bitcraze's.
    #[error("the previous bootloader was not Bitcraze's")]
    NoLoaderBefore,
    #[error("the flash was blank before the last change")]
    NothingBefore,
    /// The file ends before the last byte that its own start-up code reads.
    #[error("the file is truncated: it ends after {bytes} bytes, but its start-up code needs {needs}")]
    CutOff {
        bytes: usize,
        /// The minimum size in bytes.
        needs: usize,
    },
    /// The file has a gap where its own start-up code reads.
    #[error("the file lacks {bytes} bytes that its start-up code needs")]
    LeavesOut { bytes: usize },
    /// A backup that contains incomplete firmware.
    #[error("the firmware in this whole-flash backup is incomplete")]
    IncompleteCopy,
    /// An image that cfdfu does not recognise.
    #[error("this image is not recognised as Crazyflie firmware")]
    Unknown,
    /// The user passed a backup as the firmware.
    #[error("this is a whole-flash backup ({0}), not firmware")]
    WholeFlash(Content),
    /// The file specifies an address, and the user requested a different one.
    #[error("the file belongs at {placed}, not at {asked}")]
    Placed { placed: Address, asked: Address },
    /// The file's DFU suffix names a different USB device.
    #[error(
        "this file is made for the USB device {vendor:04x}:{product:04x}, not for a Crazyflie (0483:df11)"
    )]
    OtherDevice { vendor: u16, product: u16 },
    /// The file places the firmware at an address where it would not run.
    #[error(
        "the file places this firmware at {placed}, but it is linked for {linked} and would not run there"
    )]
    Misplaced { linked: Address, placed: Address },
    /// An unrecognised image that is linked for the address of the bootloader.
    #[error("this image is linked for 0x08000000, where the bootloader is, and would not run at {address}")]
    Foreign { address: Address },
    /// Firmware that is linked for an address other than the one to write to.
    #[error("this image is linked for {linked} and would not run at {address}")]
    WrongAddress {
        linked: Address,
        /// The address to write to.
        address: Address,
    },
    /// A job that does not restore the bootloader would write to sector 0.
    #[error("{address} is in the bootloader's sector (0x08000000 … 0x08003FFF)")]
    BootloaderSector {
        /// The start of the segment.
        address: Address,
    },
    /// The image does not fit between its address and the end of flash.
    #[error("the image is {bytes} bytes long, but only {room} fit between {address} and the end of flash")]
    PastTheEnd {
        /// The start of the segment.
        address: Address,
        bytes: usize,
        room: u64,
    },
    /// An address outside the flash.
    #[error("{address} is not in the Crazyflie's flash (0x08000000 … 0x080FFFFF)")]
    NotFlash {
        /// The start of the segment.
        address: Address,
    },
    /// The chip programs whole words, so an image cannot start inside a word.
    #[error("{address} is not a multiple of 4")]
    Unaligned {
        /// The start of the segment.
        address: Address,
    },
}

/// Approves firmware for 0x08004000. Also approves an unrecognised image if the user overrides the refusal.
pub fn flash(image: &Image, overrides: Overrides) -> Result<ApprovedImage, Refusal> {
    Ok(ApprovedImage::new(Purpose::Flash, firmware_segments(image, overrides)?))
}

/// Approves the bootloader for sector 0 and, if given, firmware to be written in the same job. `loader` may also be a
/// whole-flash backup, in which case `firmware` replaces the firmware in the backup.
pub fn restore(
    loader: &Image,
    firmware: Option<&Image>,
    overrides: Overrides,
) -> Result<ApprovedImage, Refusal> {
    match loader.content {
        // The firmware in the backup is not used, so it may be incomplete.
        Content::WholeFlash(_) if firmware.is_some() => {}
        Content::WholeFlash(_) if loader.extent.complete() == Some(false) => {
            return Err(Refusal::IncompleteCopy);
        }
        _ => check_complete(loader)?,
    }
    let mut segments = loader.payload.at(LOADER_BASE);
    let is_too_large = segments.iter().any(|segment| segment.end() > FIRMWARE_BASE.wide());
    let may_override = match loader.content {
        Content::WholeFlash(_) => true,
        Content::Unknown { link: Some(LOADER_BASE) } => !is_too_large,
        _ => false,
    };
    let what = match &loader.content {
        Content::Bootloader | Content::WholeFlash(WholeFlash { loader: true, .. }) => None,
        _ if may_override && overrides.allow_mismatch => None,
        Content::WholeFlash(_) => Some("a whole-flash backup without the Bitcraze bootloader"),
        Content::Firmware(_) => Some("Crazyflie firmware"),
        Content::Radio => Some("an image for the radio chip (nRF51)"),
        Content::Unknown { .. } => Some("an image that is not recognised"),
    };
    if let Some(what) = what {
        return Err(Refusal::NotALoader { what, may_override });
    }
    check_target_device(loader, overrides)?;
    if let Some(address) = loader.payload.address().filter(|&address| address != LOADER_BASE) {
        return Err(Refusal::LoaderElsewhere { address });
    }
    if matches!(loader.content, Content::WholeFlash(_)) {
        segments = segments.into_iter().flat_map(split).collect();
        if firmware.is_some() {
            segments.retain(|segment| segment.address < FIRMWARE_BASE);
        }
    } else if is_too_large {
        return Err(Refusal::NotALoader {
            what: "an image larger than the bootloader's sector",
            may_override: false,
        });
    }
    if let Some(firmware) = firmware {
        segments.extend(firmware_segments(firmware, overrides)?);
    }
    segments.iter().try_for_each(check_fits_flash)?;
    Ok(ApprovedImage::new(Purpose::RestoreBootloader, segments))
}

/// Approves restoring a copy of a drone's flash to its original address. Any content that is not blank is accepted,
/// because it was on the drone before, except in sector 0: without the override, only Bitcraze's bootloader is restored
/// there.
pub fn undo(copy: Segment, overrides: Overrides) -> Result<ApprovedImage, Refusal> {
    check_fits_flash(&copy)?;
    if is_blank(&copy.data) {
        return Err(Refusal::NothingBefore);
    }
    let segments = split(copy);
    let loader = segments.iter().find(|segment| segment.address < FIRMWARE_BASE);
    match loader.map(|loader| Content::of(&loader.data)) {
        None => Ok(ApprovedImage::new(Purpose::Flash, segments)),
        Some(content) if content == Content::Bootloader || overrides.allow_mismatch => {
            Ok(ApprovedImage::new(Purpose::RestoreBootloader, segments))
        }
        Some(_) => Err(Refusal::NoLoaderBefore),
    }
}

/// Returns the segments to compare with the drone's flash, at the requested address or else at the image's own address.
pub fn compare(image: &Image, overrides: Overrides) -> Result<Vec<Segment>, Refusal> {
    if !matches!(image.content, Content::WholeFlash(_)) {
        check_complete(image)?;
    }
    let segments = image.payload.at(target_address(image, overrides)?);
    segments.iter().try_for_each(check_fits_flash)?;
    Ok(segments)
}

/// Returns the address to write an image to: the requested address, or else the image's own address.
fn target_address(image: &Image, overrides: Overrides) -> Result<Address, Refusal> {
    match (image.payload.address(), overrides.address) {
        (Some(placed), Some(asked)) if placed != asked => Err(Refusal::Placed { placed, asked }),
        (_, asked) => Ok(asked.or(image.address()).unwrap_or(FIRMWARE_BASE)),
    }
}

/// Refuses an incomplete image. There is no override: such an image could be flashed and verified, but would not
/// start.
pub(crate) fn check_complete(image: &Image) -> Result<(), Refusal> {
    match image.extent {
        Extent::Cut { bytes, needs } => Err(Refusal::CutOff { bytes, needs }),
        Extent::Gap { bytes } => Err(Refusal::LeavesOut { bytes }),
        Extent::Unknown | Extent::Complete => Ok(()),
    }
}

fn check_target_device(image: &Image, overrides: Overrides) -> Result<(), Refusal> {
    match image.other_device() {
        Some((vendor, product)) if !overrides.allow_mismatch => Err(Refusal::OtherDevice { vendor, product }),
        _ => Ok(()),
    }
}

fn firmware_segments(image: &Image, overrides: Overrides) -> Result<Vec<Segment>, Refusal> {
    // A whole-flash backup is refused below, with a more useful error.
    if !matches!(image.content, Content::WholeFlash(_)) {
        check_complete(image)?;
    }
    check_target_device(image, overrides)?;
    if let (Content::Firmware(firmware), Some(placed)) = (&image.content, image.payload.address())
        && firmware.link == FIRMWARE_BASE
        && firmware.link != placed
    {
        return Err(Refusal::Misplaced { linked: firmware.link, placed });
    }
    let address = target_address(image, overrides)?;
    match &image.content {
        Content::Radio => return Err(Refusal::Radio),
        Content::Bootloader => return Err(Refusal::LoaderAsFirmware),
        Content::WholeFlash(_) => return Err(Refusal::WholeFlash(image.content.clone())),
        Content::Firmware(firmware) if firmware.link != FIRMWARE_BASE => {
            return Err(Refusal::WrongAddress { linked: firmware.link, address: FIRMWARE_BASE });
        }
        Content::Firmware(firmware) if firmware.link != address => {
            return Err(Refusal::WrongAddress { linked: firmware.link, address });
        }
        Content::Unknown { .. } if !overrides.allow_mismatch => return Err(Refusal::Unknown),
        // This refusal has no override: the vectors point to a different address, so the image cannot run here.
        Content::Unknown { link: Some(linked) } if *linked == LOADER_BASE && address >= FIRMWARE_BASE => {
            return Err(Refusal::Foreign { address });
        }
        Content::Firmware(_) | Content::Unknown { .. } => {}
    }
    let segments = image.payload.at(address);
    for segment in &segments {
        check_fits_flash(segment)?;
        if segment.address < FIRMWARE_BASE {
            return Err(Refusal::BootloaderSector { address: segment.address });
        }
    }
    Ok(segments)
}

/// Splits a segment into the bootloader's sector and the rest.
fn split(segment: Segment) -> Vec<Segment> {
    let Segment { address, mut data } = segment;
    let room = FIRMWARE_BASE.0.saturating_sub(address.0) as usize;
    if room == 0 || data.len() <= room {
        return vec![Segment { address, data }];
    }
    let rest = data.split_off(room);
    vec![Segment { address, data }, Segment { address: FIRMWARE_BASE, data: rest }]
}

fn check_fits_flash(segment: &Segment) -> Result<(), Refusal> {
    let Segment { address, data } = segment;
    if !(LOADER_BASE.wide()..FLASH_END).contains(&address.wide()) {
        return Err(Refusal::NotFlash { address: *address });
    }
    if address.0 % 4 != 0 {
        return Err(Refusal::Unaligned { address: *address });
    }
    let room = FLASH_END - address.wide();
    let span = u32::try_from(data.len()).ok().and_then(|len| Span::new(*address, len));
    match span {
        Some(span) if span.end() <= FLASH_END => Ok(()),
        _ => Err(Refusal::PastTheEnd { address: *address, bytes: data.len(), room }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::{Firmware, Format, Payload, Sha256};

    fn image(content: Content, len: usize) -> Image {
        let payload = Payload::Raw(vec![1; len]);
        Image {
            format: Format::Bin,
            content,
            extent: Extent::Unknown,
            payload,
            crc32: 0,
            sha256: Sha256::default(),
            target_device: None,
            notes: vec![],
        }
    }

    fn firmware(link: Address) -> Image {
        let extent = Extent::Unknown;
        let content =
            Content::Firmware(Firmware { version: None, revision: None, boards: vec![], link, extent });
        image(content, 1000)
    }

    fn at(address: u32) -> Overrides {
        Overrides { address: Some(Address(address)), allow_mismatch: false }
    }

    const OVERRIDE: Overrides = Overrides { address: None, allow_mismatch: true };

    #[test]
    fn firmware_is_approved_only_for_the_address_that_it_is_linked_for() {
        let good = firmware(FIRMWARE_BASE);
        let approved = flash(&good, Overrides::default()).unwrap();
        assert_eq!(approved.segments()[0].address, FIRMWARE_BASE);
        assert_eq!(flash(&good, at(0x0800_4000)).unwrap(), approved);
        for address in [0x0800_0000, 0x0800_8000, 0x0800_2000] {
            let refusal = Refusal::WrongAddress { linked: FIRMWARE_BASE, address: Address(address) };
            assert_eq!(flash(&good, at(address)), Err(refusal.clone()));
            let overridden = Overrides { allow_mismatch: true, ..at(address) };
            assert_eq!(flash(&good, overridden), Err(refusal));
        }
        let old = firmware(LOADER_BASE);
        for overrides in [Overrides::default(), OVERRIDE, at(0x0800_0000), at(0x0800_4000)] {
            assert!(matches!(flash(&old, overrides), Err(Refusal::WrongAddress { linked: LOADER_BASE, .. })));
        }
    }

    #[test]
    fn a_flash_cannot_write_sector_0_even_with_the_override() {
        let unknown = image(Content::Unknown { link: None }, 1000);
        for address in [0x0800_0000, 0x0800_1000, 0x0800_3FFC] {
            let overridden = Overrides { allow_mismatch: true, ..at(address) };
            let refusal = Refusal::BootloaderSector { address: Address(address) };
            assert_eq!(flash(&unknown, overridden), Err(refusal));
        }
        let linked_low = image(Content::Unknown { link: Some(LOADER_BASE) }, 1000);
        assert!(matches!(flash(&linked_low, OVERRIDE), Err(Refusal::BootloaderSector { .. })));
        assert_eq!(flash(&image(Content::Bootloader, 7256), OVERRIDE), Err(Refusal::LoaderAsFirmware));
    }

    #[test]
    fn unknown_images_need_the_override_and_radio_images_are_always_refused() {
        let unknown = image(Content::Unknown { link: None }, 1000);
        assert_eq!(flash(&unknown, Overrides::default()), Err(Refusal::Unknown));
        assert_eq!(flash(&unknown, OVERRIDE).unwrap().segments()[0].address, FIRMWARE_BASE);
        assert_eq!(flash(&image(Content::Radio, 1000), OVERRIDE), Err(Refusal::Radio));
    }

    #[test]
    fn an_incomplete_image_is_refused_even_with_the_override() {
        let half =
            |content| Image { extent: Extent::Cut { bytes: 1000, needs: 2000 }, ..image(content, 1000) };
        let refusal = Refusal::CutOff { bytes: 1000, needs: 2000 };
        let unknown = half(Content::Unknown { link: Some(LOADER_BASE) });
        let good = firmware(FIRMWARE_BASE);
        let bad = half(good.content.clone());
        for incomplete in [&unknown, &bad] {
            assert_eq!(flash(incomplete, OVERRIDE), Err(refusal.clone()));
            assert_eq!(compare(incomplete, OVERRIDE), Err(refusal.clone()));
            assert_eq!(restore(incomplete, Some(&good), OVERRIDE), Err(refusal.clone()));
        }
        let loader = image(Content::Bootloader, 7256);
        assert_eq!(restore(&loader, Some(&bad), OVERRIDE), Err(refusal));
        let gap = Image { extent: Extent::Gap { bytes: 16 }, ..good.clone() };
        assert_eq!(flash(&gap, OVERRIDE), Err(Refusal::LeavesOut { bytes: 16 }));
        // A backup of a drone with incomplete firmware. Its bootloader may be restored together with other firmware.
        let copy = half(Content::WholeFlash(WholeFlash { loader: true, firmware: None }));
        assert_eq!(restore(&copy, None, OVERRIDE), Err(Refusal::IncompleteCopy));
        assert!(restore(&copy, Some(&good), Overrides::default()).is_ok());
        assert!(compare(&copy, Overrides::default()).is_ok());
    }

    #[test]
    fn an_image_that_exceeds_the_flash_is_refused() {
        let unknown = |len| image(Content::Unknown { link: None }, len);
        assert!(flash(&unknown(1_032_192), OVERRIDE).is_ok());
        let refusal = Refusal::PastTheEnd { address: FIRMWARE_BASE, bytes: 1_032_193, room: 1_032_192 };
        assert_eq!(flash(&unknown(1_032_193), OVERRIDE), Err(refusal));
        let flash_at = |address| flash(&unknown(8), Overrides { allow_mismatch: true, ..at(address) });
        assert_eq!(flash_at(0x2000_0000), Err(Refusal::NotFlash { address: Address(0x2000_0000) }));
        assert_eq!(flash_at(0x0810_0000), Err(Refusal::NotFlash { address: Address(0x0810_0000) }));
        assert_eq!(flash_at(0x0800_4002), Err(Refusal::Unaligned { address: Address(0x0800_4002) }));
    }

    #[test]
    fn a_restore_accepts_a_bootloader_and_firmware() {
        let loader = image(Content::Bootloader, 7256);
        let good = firmware(FIRMWARE_BASE);
        let both = restore(&loader, Some(&good), Overrides::default()).unwrap();
        let starts: Vec<_> = both.segments().iter().map(|s| s.address).collect();
        assert_eq!(starts, [LOADER_BASE, FIRMWARE_BASE]);
        // The override applies only to a file that could be a bootloader.
        let result = restore(&good, None, OVERRIDE);
        assert!(matches!(result, Err(Refusal::NotALoader { may_override: false, .. })));
        let maybe = image(Content::Unknown { link: Some(LOADER_BASE) }, 7256);
        let result = restore(&maybe, None, Overrides::default());
        assert!(matches!(result, Err(Refusal::NotALoader { may_override: true, .. })));
        assert!(restore(&maybe, None, OVERRIDE).is_ok());
        assert_eq!(restore(&loader, Some(&loader), OVERRIDE), Err(Refusal::LoaderAsFirmware));
        let large = image(Content::Unknown { link: Some(LOADER_BASE) }, 16 * 1024 + 1);
        assert!(matches!(
            restore(&large, None, OVERRIDE),
            Err(Refusal::NotALoader { may_override: false, .. })
        ));
    }

    #[test]
    fn an_undo_needs_the_override_only_for_a_foreign_bootloader() {
        let copy = |address, data| Segment { address, data };
        assert_eq!(undo(copy(FIRMWARE_BASE, vec![0xFF; 64]), OVERRIDE), Err(Refusal::NothingBefore));
        let foreign = copy(LOADER_BASE, vec![0x5A; 0x4000 + 64]);
        assert_eq!(undo(foreign.clone(), Overrides::default()), Err(Refusal::NoLoaderBefore));
        let approved = undo(foreign, OVERRIDE).unwrap();
        assert_eq!(approved.purpose(), Purpose::RestoreBootloader);
        let parts: Vec<_> = approved.segments().iter().map(|part| (part.address, part.data.len())).collect();
        assert_eq!(parts, [(LOADER_BASE, 0x4000), (FIRMWARE_BASE, 64)]);
        // Beyond the bootloader's sector, any content is restored.
        let approved = undo(copy(Address(0x0800_8000), vec![1; 64]), Overrides::default()).unwrap();
        assert_eq!(approved.purpose(), Purpose::Flash);
        let past = undo(copy(Address(0x080F_FFF0), vec![1; 64]), OVERRIDE);
        assert!(matches!(past, Err(Refusal::PastTheEnd { .. })));
    }
}
