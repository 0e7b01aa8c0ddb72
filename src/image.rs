//! An image file: its bytes, their address and the program that the bytes contain.
//!
//! [`dfuse`], [`hex`], [`elf`] and [`release`] read the containers, [`recognise`] identifies the program, [`startup`]
//! checks whether the program is complete, and [`foreign`] names files that are not images. `plan::admission` decides
//! whether an image may be flashed.
//!
//! A file is identified by its content, never by its name. A release contains `.bin` images for both the STM32 and the
//! radio chip; the bootloader and the firmware are both raw `.bin` files; a browser may save a web page under the name
//! of the file that the page links to. A wrong guess is expensive: the bootloader starts any image whose first word is
//! not blank, and firmware for a different board halts silently.

use std::ops::Range;

use thiserror::Error;

use crate::flash::{Address, BLANK, FIRMWARE_BASE, FLASH_END, LOADER_BASE, Segment};

mod dfuse;
mod digest;
mod elf;
mod foreign;
mod hex;
mod loader;
mod recognise;
mod release;
mod startup;

pub use digest::Sha256;
pub use loader::Loader;
use release::{ArchiveContent, LooseFile, ReleaseFirmware};

pub use recognise::{BoardKind, Content, Firmware, WholeFlash};
pub(crate) use startup::Extent;

/// The maximum size of a file, in bytes. Files for a Crazyflie are much smaller.
pub(crate) const FILE_MAX: u64 = 16 * 1024 * 1024;
/// The largest possible image, in bytes: the whole flash.
const IMAGE_MAX: u64 = FLASH_END - LOADER_BASE.0 as u64;

/// The format of an image file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// The raw content of the flash, without an address.
    Bin,
    Dfu,
    Hex,
    Elf,
    /// A release with a manifest, or an archive that contains exactly one program for the STM32, possibly in several
    /// formats.
    Zip,
}

impl Format {
    /// Returns the value in the output of `inspect --json`.
    pub(crate) fn json_name(self) -> &'static str {
        match self {
            Format::Bin => "bin",
            Format::Dfu => "dfu",
            Format::Hex => "hex",
            Format::Elf => "elf",
            Format::Zip => "zip",
        }
    }
}

/// The bytes of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Payload {
    /// Bytes without an address. The address follows from the program that they contain.
    Raw(Vec<u8>),
    /// Bytes with addresses: at least one segment, in ascending order, neither overlapping nor adjacent.
    Placed(Vec<Segment>),
}

impl Payload {
    pub fn len(&self) -> usize {
        match self {
            Payload::Raw(bytes) => bytes.len(),
            Payload::Placed(segments) => segments.iter().map(|segment| segment.data.len()).sum(),
        }
    }

    /// Returns whether the image has no bytes. Always returns false, because an image without bytes is refused.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the start address, if the file contains one.
    pub(crate) fn address(&self) -> Option<Address> {
        match self {
            Payload::Raw(_) => None,
            Payload::Placed(segments) => segments.first().map(|segment| segment.address),
        }
    }

    /// Returns the bytes as segments. Raw bytes are placed at `address`.
    pub(crate) fn at(&self, address: Address) -> Vec<Segment> {
        match self {
            Payload::Raw(bytes) => vec![Segment { address, data: bytes.clone() }],
            Payload::Placed(segments) => segments.clone(),
        }
    }
}

/// A parsed image file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    pub format: Format,
    pub content: Content,
    /// Whether the image is complete.
    pub extent: Extent,
    pub payload: Payload,
    /// CRC-32 (as in zlib) of the payload, in ascending order of addresses.
    pub crc32: u32,
    /// SHA-256 of the whole file, including its container.
    pub sha256: Sha256,
    /// Vendor and product ID in the DFU suffix, where 0xFFFF means any ID; `None` if the file has no suffix.
    pub target_device: Option<(u16, u16)>,
    /// Notes for the user about oddities of the file and about parts that are not flashed.
    pub notes: Vec<String>,
}

/// Why a file is not an image. None of these errors can be overridden.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ImageError {
    #[error("the file is empty")]
    Empty,
    #[error("the image has {bytes} bytes, more than the {IMAGE_MAX} bytes of the Crazyflie's flash")]
    TooLarge { bytes: u64 },
    /// All bytes are equal: a dump of blank memory, not a program.
    #[error("every byte of the file is 0x{byte:02X}")]
    Blank { byte: u8 },
    #[error("the file is larger than {} MiB", FILE_MAX / 1024 / 1024)]
    FileTooLarge,
    #[error("this is a text file, not an image")]
    Text,
    /// HTML, saved by a browser in place of the file that the page links to.
    #[error("this is a web page (HTML), not an image")]
    WebPage,
    /// A compressed file, or an archive in an unsupported format.
    #[error("this is a packed file ({0}), not an image")]
    Packed(&'static str),
    #[error("two parts of the file overlap at {0}")]
    Overlap(Address),
    #[error("this DfuSe file cannot be used: {0}")]
    DfuSe(dfuse::DfuSeDefect),
    /// A `.bin` with a DFU suffix.
    #[error("this file with a DFU suffix cannot be used: {0}")]
    Suffix(dfuse::DfuSeDefect),
    #[error("this Intel HEX file cannot be used: {0}")]
    Hex(#[from] hex::HexDefect),
    #[error("this ELF file cannot be used: {0}")]
    Elf(#[from] elf::ElfDefect),
    #[error("this zip archive cannot be used: {0}")]
    Release(#[from] release::ReleaseDefect),
    /// A release whose firmware is not for the platform in its manifest.
    #[error("this release claims to be for {claimed}, but its firmware is for {found}")]
    OtherPlatform {
        /// The manifest's `fw_platform`.
        claimed: String,
        found: &'static str,
    },
}

impl Image {
    /// Parses an image file of any supported format.
    pub fn parse(bytes: Vec<u8>) -> Result<Image, ImageError> {
        let sha256 = Sha256::of(&bytes);
        let image =
            if release::is_zip(&bytes) { Image::from_zip(&bytes)? } else { Image::parse_unzipped(bytes)? };
        Ok(Image { sha256, ..image })
    }

    /// Parses any format except zip. The caller adds the SHA-256, because only the caller has the whole file.
    fn parse_unzipped(bytes: Vec<u8>) -> Result<Image, ImageError> {
        if bytes.is_empty() {
            return Err(ImageError::Empty);
        }
        if let Some(name) = foreign::archive_format(&bytes) {
            return Err(ImageError::Packed(name));
        }
        if bytes.starts_with(dfuse::SIGNATURE) {
            let file = dfuse::parse(&bytes).map_err(ImageError::DfuSe)?;
            let mut image = Image::from_segments(Format::Dfu, file.segments)?;
            image.set_target_device(file.target_device);
            if file.odd_size {
                image.notes.push(
                    "the size in its prefix is wrong; the other sizes and the checksum are correct".into(),
                );
            }
            Ok(image)
        } else if bytes.starts_with(elf::SIGNATURE) {
            Image::from_segments(Format::Elf, elf::parse(&bytes, IMAGE_MAX)?)
        } else if hex::is_hex(&bytes) {
            Image::from_segments(Format::Hex, hex::parse(&bytes)?)
        } else {
            Image::parse_raw(bytes)
        }
    }

    /// Parses a raw image, with or without a DFU suffix.
    fn parse_raw(mut bytes: Vec<u8>) -> Result<Image, ImageError> {
        if foreign::is_web_page(&bytes) {
            return Err(ImageError::WebPage);
        }
        if foreign::is_text(&bytes) {
            return Err(ImageError::Text);
        }
        let found = dfuse::without_suffix(&bytes).map_err(ImageError::Suffix)?;
        let suffix = found.map(|(_, suffix)| suffix);
        bytes.truncate(found.map_or(bytes.len(), |(rest, _)| rest.len()));
        if bytes.len() as u64 > IMAGE_MAX {
            return Err(ImageError::TooLarge { bytes: bytes.len() as u64 });
        }
        let classified = recognise::classify(&bytes, &[]);
        let mut image = Image::new(Format::Bin, classified, Payload::Raw(bytes))?;
        if let Some(suffix) = suffix {
            image.set_target_device(suffix.target_device);
            image.notes.push(format!("its DFU suffix ({} bytes) was checked and is not flashed", suffix.len));
        }
        Ok(image)
    }

    /// Returns the vendor and product ID in the DFU suffix, unless they match the boot ROM of a Crazyflie.
    pub(crate) fn other_device(&self) -> Option<(u16, u16)> {
        const ANY: u16 = 0xFFFF;
        let is_ours = |&(vendor, product): &(u16, u16)| {
            [0x0483, ANY].contains(&vendor) && [0xDF11, ANY].contains(&product)
        };
        self.target_device.filter(|target_device| !is_ours(target_device))
    }

    /// Records the device that the file is made for, and adds a note if the device cannot be a Crazyflie.
    fn set_target_device(&mut self, target_device: (u16, u16)) {
        self.target_device = Some(target_device);
        if let Some((vendor, product)) = self.other_device() {
            self.notes.push(format!("it is made for the USB device {vendor:04x}:{product:04x}"));
        }
    }

    fn from_zip(bytes: &[u8]) -> Result<Image, ImageError> {
        let image = match release::parse(bytes, IMAGE_MAX)? {
            ArchiveContent::Release(release) => Image::from_release(release)?,
            ArchiveContent::LooseFiles(files) => Image::from_loose_files(files)?,
        };
        Ok(Image { format: Format::Zip, ..image })
    }

    fn from_release(release: ReleaseFirmware) -> Result<Image, ImageError> {
        if release::is_zip(&release.file) {
            return Err(release::ReleaseDefect::Nested(release.name).into());
        }
        let mut image = Image::parse_unzipped(release.file)?;
        if let (Some(claimed), Content::Firmware(firmware)) = (&release.platform, &image.content)
            && let Some(found) = firmware.platform()
            && found != claimed
        {
            return Err(ImageError::OtherPlatform { claimed: claimed.clone(), found });
        }
        if !release.others.is_empty() {
            let others = release.others.join(", ");
            image.notes.push(format!("in the release, but not updated over USB: {others}"));
        }
        Ok(image)
    }

    /// Finds the firmware in an archive without a manifest. CI builds often contain the same firmware in several
    /// formats, but an archive with several different programs is refused.
    fn from_loose_files(files: Vec<LooseFile>) -> Result<Image, ImageError> {
        let mut found: Vec<(String, Image)> = Vec::new();
        let mut others = Vec::new();
        let mut nested = None;
        for LooseFile { name, bytes } in files {
            if release::is_zip(&bytes) {
                nested = nested.or(Some(name));
                continue;
            }
            match Image::parse_unzipped(bytes) {
                // This file contains the same program in a different format.
                Ok(image) if found.iter().any(|(_, first)| first.is_same_program(&image)) => {}
                Ok(image) if image.is_known() => found.push((name, image)),
                Ok(image) => others.push(format!("{name} is {}", image.content)),
                Err(ImageError::Empty | ImageError::Text | ImageError::Blank { .. }) => {}
                Err(error @ ImageError::WebPage) => return Err(error),
                Err(error) => others.push(format!("{name}: {error}")),
            }
        }
        match (found.len(), nested) {
            (0, Some(name)) => Err(release::ReleaseDefect::Nested(name).into()),
            (0, None) => Err(release::ReleaseDefect::NothingKnown(others).into()),
            (1, _) => found.pop().map(|(_, image)| image).ok_or(ImageError::Empty),
            _ => {
                let names: Vec<String> = found.into_iter().map(|(name, _)| name).collect();
                Err(release::ReleaseDefect::Several(names.join(", ")).into())
            }
        }
    }

    /// Returns whether the image is a program for the STM32 of a Crazyflie, complete or not.
    fn is_known(&self) -> bool {
        let known =
            matches!(self.content, Content::Firmware(_) | Content::Bootloader | Content::WholeFlash(_));
        known || self.extent.complete() == Some(false)
    }

    /// Returns whether both images are the same program, possibly in different formats. Bytes that only one image
    /// contains are not compared, because each format fills the gaps between parts differently.
    fn is_same_program(&self, other: &Image) -> bool {
        let [mine, theirs] = [self, other].map(|it| it.payload.at(it.address().unwrap_or(FIRMWARE_BASE)));
        let agree = |a: &Segment, b: &Segment| {
            let (start, end) = (a.address.max(b.address).wide(), a.end().min(b.end()));
            let part = |it: &Segment| {
                let offset = |at: u64| usize::try_from(at - it.address.wide()).ok();
                it.data.get(offset(start)?..offset(end)?).map(<[u8]>::to_vec)
            };
            start >= end || part(a) == part(b)
        };
        let ends = |segments: &[Segment]| Some((segments.first()?.address, segments.last()?.end()));
        self.content == other.content
            && ends(&mine) == ends(&theirs)
            && mine.iter().all(|a| theirs.iter().all(|b| agree(a, b)))
    }

    /// Creates an image from segments in any order.
    fn from_segments(format: Format, segments: Vec<Segment>) -> Result<Image, ImageError> {
        let segments = sort_and_join(segments)?;
        let gaps = find_gaps(&segments);
        let gap_bytes: u64 = segments.windows(2).map(|pair| pair[1].address.wide() - pair[0].end()).sum();
        let classified = recognise::classify(&flatten(&segments), &gaps);
        let mut image = Image::new(format, classified, Payload::Placed(segments))?;
        if matches!(image.content, Content::Firmware(_)) && gap_bytes > 0 {
            image.notes.push(format!(
                "its parts leave gaps of {gap_bytes} bytes in total, which stay blank: linkers leave gaps when they \
                 align sections, but lost data looks the same"
            ));
        }
        Ok(image)
    }

    fn new(
        format: Format,
        (content, extent): (Content, Extent),
        payload: Payload,
    ) -> Result<Image, ImageError> {
        let bytes = payload.len() as u64;
        if bytes > IMAGE_MAX {
            return Err(ImageError::TooLarge { bytes });
        }
        let parts: Vec<&[u8]> = match &payload {
            Payload::Raw(bytes) => vec![bytes],
            Payload::Placed(segments) => segments.iter().map(|segment| &segment.data[..]).collect(),
        };
        let &first = parts.first().and_then(|part| part.first()).ok_or(ImageError::Empty)?;
        if parts.iter().all(|part| part.iter().all(|&byte| byte == first)) {
            return Err(ImageError::Blank { byte: first });
        }
        let mut crc = crc32fast::Hasher::new();
        for part in &parts {
            crc.update(part);
        }
        Ok(Image {
            format,
            content,
            extent,
            crc32: crc.finalize(),
            sha256: Sha256::default(),
            payload,
            target_device: None,
            notes: Vec::new(),
        })
    }

    /// Returns the codes of the boards that the image supports, or an empty list if the boards are unknown.
    pub fn boards(&self) -> Vec<String> {
        let firmware = self.content.firmware();
        firmware.into_iter().flat_map(|it| &it.boards).map(|board| board.code.clone()).collect()
    }

    /// Returns the address of the image: the address in the file or, if the file has none, the program's link address.
    pub(crate) fn address(&self) -> Option<Address> {
        self.payload.address().or(self.content.link())
    }
}

/// Sorts the segments and joins adjacent ones.
fn sort_and_join(mut segments: Vec<Segment>) -> Result<Vec<Segment>, ImageError> {
    segments.sort_by_key(|segment| segment.address);
    let mut joined: Vec<Segment> = Vec::new();
    for segment in segments {
        match joined.last_mut() {
            Some(last) if last.end() > segment.address.wide() => {
                return Err(ImageError::Overlap(segment.address));
            }
            Some(last) if last.end() == segment.address.wide() => last.data.extend(segment.data),
            _ => joined.push(segment),
        }
    }
    if joined.is_empty() { Err(ImageError::Empty) } else { Ok(joined) }
}

/// Returns the gaps between the segments, as offsets from the start of the first segment.
fn find_gaps(segments: &[Segment]) -> Vec<Range<usize>> {
    let start = segments.first().map_or(0, |first| first.address.wide());
    let offset = |at: u64| usize::try_from(at.saturating_sub(start)).unwrap_or(usize::MAX);
    segments.windows(2).map(|pair| offset(pair[0].end())..offset(pair[1].address.wide())).collect()
}

/// Returns the segments as one block with blank gaps, for recognition, or an empty block if the block would be larger
/// than the flash.
fn flatten(segments: &[Segment]) -> Vec<u8> {
    let (Some(first), Some(last)) = (segments.first(), segments.last()) else { return Vec::new() };
    let len = last.end() - first.address.wide();
    if len > IMAGE_MAX {
        return Vec::new();
    }
    let mut bytes = Vec::new();
    for segment in segments {
        bytes.resize((segment.address.0 - first.address.0) as usize, BLANK);
        bytes.extend(&segment.data);
    }
    bytes
}

#[cfg(test)]
mod tests;
