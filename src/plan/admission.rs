//! May this image be written at all, and where? Answered before any drone is touched.
//!
//! [`ApprovedImage`] can only be made here, and the plan takes nothing else: no way around these rules exists.

use std::sync::Arc;

use thiserror::Error;

use crate::flash::{Address, FIRMWARE_BASE, FLASH_END, LOADER_BASE, Segment, Span, is_blank};
use crate::image::{Content, Extent, Image, WholeFlash};

/// What the user wants otherwise than the image says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Overrides {
    /// An address given by hand instead of the one that the image is linked for.
    pub address: Option<Address>,
    /// Take an image that is not recognised, or whose DFU suffix names another device; and, for sector 0, a bootloader that
    /// is not Bitcraze's, if a restore or an undo is asked for. A flash never reaches sector 0, whoever insists.
    pub allow_mismatch: bool,
}

/// Which part of flash a job may change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Everything but the bootloader's sector.
    Flash,
    /// The bootloader, and firmware with it.
    RestoreBootloader,
}

/// Segments that passed every check which needs no drone. They are shared by all copies: a job is copied for its
/// resumption, an undo for its screen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApprovedImage {
    purpose: Purpose,
    segments: Arc<[Segment]>,
}

impl ApprovedImage {
    fn new(purpose: Purpose, segments: Vec<Segment>) -> ApprovedImage {
        ApprovedImage { purpose, segments: segments.into() }
    }

    /// Whether the bootloader's sector is meant.
    pub(crate) fn purpose(&self) -> Purpose {
        self.purpose
    }

    /// Ascending, not overlapping.
    pub(crate) fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// All bytes of all segments.
    pub(crate) fn bytes(&self) -> usize {
        self.segments.iter().map(|segment| segment.data.len()).sum()
    }
}

/// Why an image is not written. Says what the file is and why not; what would be right is in `report`.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Refusal {
    /// For the nRF51.
    #[error("this image is for the radio chip (nRF51), which USB DFU cannot reach")]
    Radio,
    /// `cf2loader` given as firmware.
    #[error("this is the Bitcraze bootloader, not a firmware")]
    LoaderAsFirmware,
    /// Something else given as bootloader.
    #[error("this is {what}, not the Bitcraze bootloader")]
    NotALoader {
        /// What it is, with its article.
        what: &'static str,
    },
    /// Something for sector 0 that its file puts somewhere else.
    #[error("it belongs at 0x08000000, but the file puts it at {address}")]
    LoaderElsewhere {
        /// Where the file puts it.
        address: Address,
    },
    /// A copy of a flash whose bootloader was not Bitcraze's.
    #[error("what was there before had no Bitcraze bootloader")]
    NoLoaderBefore,
    #[error("the copy is blank: there was nothing before")]
    NothingBefore,
    /// Ends before the last byte that its own start-up code reads.
    #[error("the file ends after {bytes} bytes, but its own start-up code needs {needs}: it was cut off")]
    CutOff {
        bytes: usize,
        /// The least that it would need.
        needs: usize,
    },
    /// Has a gap where its own start-up code reads.
    #[error("the file leaves out {bytes} bytes that its own start-up code needs")]
    LeavesOut { bytes: usize },
    /// A backup of a flash with an incomplete firmware.
    #[error("the firmware in this copy of a flash is incomplete")]
    IncompleteCopy,
    /// Neither firmware nor anything else that is known.
    #[error("this image is not recognised as Crazyflie firmware")]
    Unknown,
    /// A copy of the whole flash given as firmware.
    #[error("this is a copy of a whole flash ({0}), not a firmware")]
    WholeFlash(Content),
    /// The file says where it belongs, and somebody said otherwise.
    #[error("the file says itself that it belongs at {placed}, not at {asked}")]
    Placed { placed: Address, asked: Address },
    /// The file is made for another USB device.
    #[error(
        "this file is made for the USB device {vendor:04x}:{product:04x}, not for a Crazyflie (0483:df11)"
    )]
    OtherDevice {
        /// idVendor.
        vendor: u16,
        /// idProduct.
        product: u16,
    },
    /// The file puts a firmware where it would not run.
    #[error("the file puts this firmware at {placed}, but it is linked for {linked} and would not run there")]
    Misplaced {
        linked: Address,
        /// Where the file puts it.
        placed: Address,
    },
    /// No firmware that is known, linked for the place of the bootloader.
    #[error("this image is linked for 0x08000000, where the bootloader is, and would not run at {address}")]
    Foreign { address: Address },
    /// A firmware linked for another address than it would be written to.
    #[error("this image is linked for {linked} and would not run at {address}")]
    WrongAddress {
        linked: Address,
        /// Where it was asked to go.
        address: Address,
    },
    /// Sector 0 without a bootloader restore.
    #[error("{address} is in the bootloader's sector (0x08000000 … 0x08003FFF)")]
    BootloaderSector {
        /// Where it was asked to go.
        address: Address,
    },
    /// Longer than the room there.
    #[error("the image has {bytes} bytes, but only {room} fit from {address} to the end of flash")]
    PastTheEnd {
        /// Where it was asked to go.
        address: Address,
        bytes: usize,
        room: u64,
    },
    /// An address that is no flash.
    #[error("{address} is not in the Crazyflie's flash (0x08000000 … 0x080FFFFF)")]
    NotFlash {
        /// Where it was asked to go.
        address: Address,
    },
    /// An address at which the chip's program unit does not start.
    #[error("{address} is not a multiple of 4")]
    Unaligned {
        /// Where it was asked to go.
        address: Address,
    },
}

/// A firmware for its usual place, or an unknown image if the user insists.
pub fn flash(image: &Image, wish: Overrides) -> Result<ApprovedImage, Refusal> {
    Ok(ApprovedImage::new(Purpose::Flash, firmware_segments(image, wish)?))
}

/// The bootloader for sector 0 and, in the same job, a firmware behind it; or a copy of the whole flash, of
/// which a `firmware` takes the place of the one in it.
pub fn restore(loader: &Image, firmware: Option<&Image>, wish: Overrides) -> Result<ApprovedImage, Refusal> {
    match loader.content {
        // Its firmware is not written.
        Content::WholeFlash(_) if firmware.is_some() => {}
        Content::WholeFlash(_) if loader.extent.complete() == Some(false) => {
            return Err(Refusal::IncompleteCopy);
        }
        _ => all_there(loader)?,
    }
    let what = match &loader.content {
        Content::Bootloader | Content::WholeFlash(WholeFlash { loader: true, .. }) => None,
        Content::WholeFlash(_) | Content::Unknown { link: Some(LOADER_BASE) } if wish.allow_mismatch => None,
        Content::WholeFlash(_) => Some("a copy of a flash without the Bitcraze bootloader"),
        Content::Firmware(_) => Some("a Crazyflie firmware"),
        Content::Radio => Some("an image for the radio chip (nRF51)"),
        Content::Unknown { .. } => Some("an image that is not recognised"),
    };
    if let Some(what) = what {
        return Err(Refusal::NotALoader { what });
    }
    made_for_dfu(loader, wish)?;
    if let Some(address) = loader.payload.address().filter(|&address| address != LOADER_BASE) {
        return Err(Refusal::LoaderElsewhere { address });
    }
    let mut segments = loader.payload.at(LOADER_BASE);
    if matches!(loader.content, Content::WholeFlash(_)) {
        segments = segments.into_iter().flat_map(split).collect();
        if firmware.is_some() {
            segments.retain(|segment| segment.address < FIRMWARE_BASE);
        }
    } else if segments.iter().any(|segment| segment.end() > FIRMWARE_BASE.wide()) {
        return Err(Refusal::NotALoader { what: "an image larger than the bootloader's sector" });
    }
    if let Some(firmware) = firmware {
        segments.extend(firmware_segments(firmware, wish)?);
    }
    segments.iter().try_for_each(fits_flash)?;
    Ok(ApprovedImage::new(Purpose::RestoreBootloader, segments))
}

/// A copy of what a drone held, to be put back where it was. What it is does not matter, since it was there;
/// but a bootloader's sector is put back only if it held Bitcraze's, or if the user insists.
pub fn undo(copy: Segment, wish: Overrides) -> Result<ApprovedImage, Refusal> {
    fits_flash(&copy)?;
    if is_blank(&copy.data) {
        return Err(Refusal::NothingBefore);
    }
    let segments = split(copy);
    let loader = segments.iter().find(|segment| segment.address < FIRMWARE_BASE);
    match loader.map(|loader| Content::of(&loader.data)) {
        None => Ok(ApprovedImage::new(Purpose::Flash, segments)),
        Some(content) if content == Content::Bootloader || wish.allow_mismatch => {
            Ok(ApprovedImage::new(Purpose::RestoreBootloader, segments))
        }
        Some(_) => Err(Refusal::NoLoaderBefore),
    }
}

/// Where an image would be looked for when it is only compared: its own place or the one asked for.
pub fn compare(image: &Image, wish: Overrides) -> Result<Vec<Segment>, Refusal> {
    if !matches!(image.content, Content::WholeFlash(_)) {
        all_there(image)?;
    }
    let segments = image.payload.at(place(image, wish)?);
    segments.iter().try_for_each(fits_flash)?;
    Ok(segments)
}

/// Where an image goes: where it was asked to, or where it belongs.
fn place(image: &Image, wish: Overrides) -> Result<Address, Refusal> {
    match (image.payload.address(), wish.address) {
        (Some(placed), Some(asked)) if placed != asked => Err(Refusal::Placed { placed, asked }),
        (_, asked) => Ok(asked.or(image.address()).unwrap_or(FIRMWARE_BASE)),
    }
}

/// An incomplete image has no override: it would be flashed and verified, and the drone would not start.
pub(crate) fn all_there(image: &Image) -> Result<(), Refusal> {
    match image.extent {
        Extent::Cut { bytes, needs } => Err(Refusal::CutOff { bytes, needs }),
        Extent::Gap { bytes } => Err(Refusal::LeavesOut { bytes }),
        Extent::Unknown | Extent::Complete => Ok(()),
    }
}

fn made_for_dfu(image: &Image, wish: Overrides) -> Result<(), Refusal> {
    match image.other_device() {
        Some((vendor, product)) if !wish.allow_mismatch => Err(Refusal::OtherDevice { vendor, product }),
        _ => Ok(()),
    }
}

fn firmware_segments(image: &Image, wish: Overrides) -> Result<Vec<Segment>, Refusal> {
    // A copy of a flash is refused for what it is.
    if !matches!(image.content, Content::WholeFlash(_)) {
        all_there(image)?;
    }
    made_for_dfu(image, wish)?;
    if let (Content::Firmware(firmware), Some(placed)) = (&image.content, image.payload.address())
        && firmware.link == FIRMWARE_BASE
        && firmware.link != placed
    {
        return Err(Refusal::Misplaced { linked: firmware.link, placed });
    }
    let address = place(image, wish)?;
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
        Content::Unknown { .. } if !wish.allow_mismatch => return Err(Refusal::Unknown),
        // Its vectors lead elsewhere: it cannot run there, whoever insists.
        Content::Unknown { link: Some(linked) } if *linked == LOADER_BASE && address >= FIRMWARE_BASE => {
            return Err(Refusal::Foreign { address });
        }
        Content::Firmware(_) | Content::Unknown { .. } => {}
    }
    let segments = image.payload.at(address);
    for segment in &segments {
        fits_flash(segment)?;
        if segment.address < FIRMWARE_BASE {
            return Err(Refusal::BootloaderSector { address: segment.address });
        }
    }
    Ok(segments)
}

/// The bootloader's sector and what follows it, as two segments.
fn split(segment: Segment) -> Vec<Segment> {
    let Segment { address, mut data } = segment;
    let room = FIRMWARE_BASE.0.saturating_sub(address.0) as usize;
    if room == 0 || data.len() <= room {
        return vec![Segment { address, data }];
    }
    let rest = data.split_off(room);
    vec![Segment { address, data }, Segment { address: FIRMWARE_BASE, data: rest }]
}

fn fits_flash(segment: &Segment) -> Result<(), Refusal> {
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
            made_for: None,
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

    const INSIST: Overrides = Overrides { address: None, allow_mismatch: true };

    #[test]
    fn a_firmware_goes_where_it_is_linked_and_nowhere_else() {
        let good = firmware(FIRMWARE_BASE);
        let admitted = flash(&good, Overrides::default()).unwrap();
        assert_eq!(admitted.segments()[0].address, FIRMWARE_BASE);
        assert_eq!(flash(&good, at(0x0800_4000)).unwrap(), admitted);
        for address in [0x0800_0000, 0x0800_8000, 0x0800_2000] {
            let refusal = Refusal::WrongAddress { linked: FIRMWARE_BASE, address: Address(address) };
            assert_eq!(flash(&good, at(address)), Err(refusal.clone()));
            let insist = Overrides { allow_mismatch: true, ..at(address) };
            assert_eq!(flash(&good, insist), Err(refusal));
        }
        let old = firmware(LOADER_BASE);
        for wish in [Overrides::default(), INSIST, at(0x0800_0000), at(0x0800_4000)] {
            assert!(matches!(flash(&old, wish), Err(Refusal::WrongAddress { linked: LOADER_BASE, .. })));
        }
    }

    #[test]
    fn sector_0_is_out_of_reach_of_a_flash_whatever_is_insisted_on() {
        let unknown = image(Content::Unknown { link: None }, 1000);
        for address in [0x0800_0000, 0x0800_1000, 0x0800_3FFC] {
            let insist = Overrides { allow_mismatch: true, ..at(address) };
            let refusal = Refusal::BootloaderSector { address: Address(address) };
            assert_eq!(flash(&unknown, insist), Err(refusal));
        }
        let linked_low = image(Content::Unknown { link: Some(LOADER_BASE) }, 1000);
        assert!(matches!(flash(&linked_low, INSIST), Err(Refusal::BootloaderSector { .. })));
        assert_eq!(flash(&image(Content::Bootloader, 7256), INSIST), Err(Refusal::LoaderAsFirmware));
    }

    #[test]
    fn unknown_images_need_the_override_and_radio_images_have_none() {
        let unknown = image(Content::Unknown { link: None }, 1000);
        assert_eq!(flash(&unknown, Overrides::default()), Err(Refusal::Unknown));
        assert_eq!(flash(&unknown, INSIST).unwrap().segments()[0].address, FIRMWARE_BASE);
        assert_eq!(flash(&image(Content::Radio, 1000), INSIST), Err(Refusal::Radio));
    }

    #[test]
    fn an_incomplete_image_has_no_override() {
        let half =
            |content| Image { extent: Extent::Cut { bytes: 1000, needs: 2000 }, ..image(content, 1000) };
        let refusal = Refusal::CutOff { bytes: 1000, needs: 2000 };
        let unknown = half(Content::Unknown { link: Some(LOADER_BASE) });
        let good = firmware(FIRMWARE_BASE);
        let bad = half(good.content.clone());
        for it in [&unknown, &bad] {
            assert_eq!(flash(it, INSIST), Err(refusal.clone()));
            assert_eq!(compare(it, INSIST), Err(refusal.clone()));
            assert_eq!(restore(it, Some(&good), INSIST), Err(refusal.clone()));
        }
        let loader = image(Content::Bootloader, 7256);
        assert_eq!(restore(&loader, Some(&bad), INSIST), Err(refusal));
        let gap = Image { extent: Extent::Gap { bytes: 16 }, ..good.clone() };
        assert_eq!(flash(&gap, INSIST), Err(Refusal::LeavesOut { bytes: 16 }));
        // A backup of a drone with half a firmware: its bootloader is good, with another firmware.
        let copy = half(Content::WholeFlash(WholeFlash { loader: true, firmware: None }));
        assert_eq!(restore(&copy, None, INSIST), Err(Refusal::IncompleteCopy));
        assert!(restore(&copy, Some(&good), Overrides::default()).is_ok());
        assert!(compare(&copy, Overrides::default()).is_ok());
    }

    #[test]
    fn an_image_ends_where_the_flash_ends() {
        let unknown = |len| image(Content::Unknown { link: None }, len);
        assert!(flash(&unknown(1_032_192), INSIST).is_ok());
        let refusal = Refusal::PastTheEnd { address: FIRMWARE_BASE, bytes: 1_032_193, room: 1_032_192 };
        assert_eq!(flash(&unknown(1_032_193), INSIST), Err(refusal));
        let off = |address| flash(&unknown(8), Overrides { allow_mismatch: true, ..at(address) });
        assert_eq!(off(0x2000_0000), Err(Refusal::NotFlash { address: Address(0x2000_0000) }));
        assert_eq!(off(0x0810_0000), Err(Refusal::NotFlash { address: Address(0x0810_0000) }));
        assert_eq!(off(0x0800_4002), Err(Refusal::Unaligned { address: Address(0x0800_4002) }));
    }

    #[test]
    fn a_restore_takes_a_bootloader_and_a_firmware_in_that_order_only() {
        let loader = image(Content::Bootloader, 7256);
        let good = firmware(FIRMWARE_BASE);
        let both = restore(&loader, Some(&good), Overrides::default()).unwrap();
        let starts: Vec<_> = both.segments().iter().map(|s| s.address).collect();
        assert_eq!(starts, [LOADER_BASE, FIRMWARE_BASE]);
        assert!(matches!(restore(&good, None, INSIST), Err(Refusal::NotALoader { .. })));
        assert_eq!(restore(&loader, Some(&loader), INSIST), Err(Refusal::LoaderAsFirmware));
        let large = image(Content::Unknown { link: Some(LOADER_BASE) }, 16 * 1024 + 1);
        assert!(matches!(restore(&large, None, INSIST), Err(Refusal::NotALoader { .. })));
    }

    #[test]
    fn what_was_there_goes_back_but_a_strange_bootloader_only_by_insisting() {
        let copy = |address, data| Segment { address, data };
        assert_eq!(undo(copy(FIRMWARE_BASE, vec![0xFF; 64]), INSIST), Err(Refusal::NothingBefore));
        let strange = copy(LOADER_BASE, vec![0x5A; 0x4000 + 64]);
        assert_eq!(undo(strange.clone(), Overrides::default()), Err(Refusal::NoLoaderBefore));
        let admitted = undo(strange, INSIST).unwrap();
        assert_eq!(admitted.purpose(), Purpose::RestoreBootloader);
        let parts: Vec<_> = admitted.segments().iter().map(|part| (part.address, part.data.len())).collect();
        assert_eq!(parts, [(LOADER_BASE, 0x4000), (FIRMWARE_BASE, 64)]);
        // What stood behind the bootloader goes back whatever it was: a user had it there.
        let admitted = undo(copy(Address(0x0800_8000), vec![1; 64]), Overrides::default()).unwrap();
        assert_eq!(admitted.purpose(), Purpose::Flash);
        let past = undo(copy(Address(0x080F_FFF0), vec![1; 64]), INSIST);
        assert!(matches!(past, Err(Refusal::PastTheEnd { .. })));
    }
}
