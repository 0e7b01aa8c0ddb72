//! An image file: its bytes, where they belong, and what can be known of them without a drone.
//!
//! Reads no file itself and decides nothing about flashing: `flash::check` does that with what is
//! found here. Formats are told apart by content, never by the file's name: [`dfuse`], [`hex`], [`elf`] and
//! [`release`] read the containers, [`recognise`] tells what the bytes are, [`startup`] whether they are all there, and
//! [`foreign`] names files that are not images.

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
use release::{Loose, Packing, Release};

pub use recognise::{BoardKind, Content, Firmware, WholeFlash};
pub(crate) use startup::Extent;

/// The largest file that is read at all, in bytes: nothing for a Crazyflie comes near it.
pub(crate) const FILE_MAX: u64 = 16 * 1024 * 1024;
/// The most bytes that an image may have: the whole flash.
const IMAGE_MAX: u64 = FLASH_END - LOADER_BASE.0 as u64;

/// How the file is packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// The bytes as they stand in flash, without an address.
    Bin,
    Dfu,
    Hex,
    Elf,
    /// A release with a manifest, or an archive of one firmware.
    Zip,
}

impl Format {
    /// The word that `inspect --json` prints.
    pub(crate) fn word(self) -> &'static str {
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
    /// Without an address: where they go follows from what they are.
    Raw(Vec<u8>),
    /// With addresses: ascending, not overlapping, none that follows directly on another; at least one.
    Placed(Vec<Segment>),
}

impl Payload {
    pub fn len(&self) -> usize {
        match self {
            Payload::Raw(bytes) => bytes.len(),
            Payload::Placed(segments) => segments.iter().map(|segment| segment.data.len()).sum(),
        }
    }

    /// Never: an image without bytes is refused.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Where the file itself says that the image starts.
    pub(crate) fn address(&self) -> Option<Address> {
        match self {
            Payload::Raw(_) => None,
            Payload::Placed(segments) => segments.first().map(|segment| segment.address),
        }
    }

    /// The bytes at their addresses; raw ones at `address`.
    pub(crate) fn at(&self, address: Address) -> Vec<Segment> {
        match self {
            Payload::Raw(bytes) => vec![Segment { address, data: bytes.clone() }],
            Payload::Placed(segments) => segments.clone(),
        }
    }
}

/// A file that was read and understood as far as it can be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    pub format: Format,
    pub content: Content,
    /// How much of it is there.
    pub extent: Extent,
    pub payload: Payload,
    /// CRC-32 (zlib's) of all bytes of the payload, in the order of their addresses.
    pub crc32: u32,
    /// SHA-256 of the file as it was given, container and all.
    pub sha256: Sha256,
    /// The vendor and product number that a DFU suffix names, 0xFFFF for any; `None` without a suffix.
    pub made_for: Option<(u16, u16)>,
    /// What else there is to say of the file: what was left out, what is odd.
    pub notes: Vec<String>,
}

/// Why a file is no image at all. There is no override for any of these.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ImageError {
    /// No bytes.
    #[error("the file is empty")]
    Empty,
    /// More bytes than the chip has flash.
    #[error("the file has {bytes} bytes, more than the {IMAGE_MAX} of the Crazyflie's flash")]
    TooLarge {
        /// Size of the image in the file.
        bytes: u64,
    },
    /// Only one value, over and over: a blank dump, not a program.
    #[error("the file holds nothing but 0x{byte:02X}")]
    Blank { byte: u8 },
    /// The file is larger than any that is read.
    #[error("the file is larger than {} MiB", FILE_MAX / 1024 / 1024)]
    FileTooLarge,
    #[error("this is a text file, not an image")]
    Text,
    /// HTML: what a browser saves in place of the file that a page links to.
    #[error("this is a web page (HTML), not an image")]
    WebPage,
    /// Compressed, or an archive of a format that is not read.
    #[error("this is a {0} file, not an image")]
    Packed(&'static str),
    /// Two parts for one address.
    #[error("the file holds {0} twice")]
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
    /// A release whose firmware is not the one that it claims.
    #[error("this release says it is for {claimed}, but its firmware is for {found}")]
    OtherPlatform {
        /// The manifest's `fw_platform`.
        claimed: String,
        found: &'static str,
    },
}

impl Image {
    /// Reads `bytes` as an image file, whatever its format.
    pub fn parse(bytes: Vec<u8>) -> Result<Image, ImageError> {
        let sha256 = Sha256::of(&bytes);
        let image = if release::is_zip(&bytes) { Image::from_zip(&bytes)? } else { Image::unzipped(bytes)? };
        Ok(Image { sha256, ..image })
    }

    /// Reads any format but zip. The caller has the whole file and sets the SHA-256.
    fn unzipped(bytes: Vec<u8>) -> Result<Image, ImageError> {
        if bytes.is_empty() {
            return Err(ImageError::Empty);
        }
        if let Some(name) = foreign::archive(&bytes) {
            return Err(ImageError::Packed(name));
        }
        if bytes.starts_with(dfuse::SIGNATURE) {
            let file = dfuse::parse(&bytes).map_err(ImageError::DfuSe)?;
            let mut image = Image::placed(Format::Dfu, file.segments)?;
            image.is_made_for(file.made_for);
            if file.odd_size {
                image.notes.push(
                    "the size in its prefix is wrong; all other sizes and the checksum are right".into(),
                );
            }
            Ok(image)
        } else if bytes.starts_with(elf::SIGNATURE) {
            Image::placed(Format::Elf, elf::parse(&bytes, IMAGE_MAX)?)
        } else if hex::looks_like(&bytes) {
            Image::placed(Format::Hex, hex::parse(&bytes)?)
        } else {
            Image::raw(bytes)
        }
    }

    /// A raw image, with a DFU suffix or without.
    fn raw(mut bytes: Vec<u8>) -> Result<Image, ImageError> {
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
        let look = recognise::look(&bytes, &[]);
        let mut image = Image::new(Format::Bin, look, Payload::Raw(bytes))?;
        if let Some(suffix) = suffix {
            image.is_made_for(suffix.made_for);
            image.notes.push(format!("its DFU suffix ({} bytes) was checked and is not flashed", suffix.len));
        }
        Ok(image)
    }

    /// Vendor and product of the device that the file is made for, if that is neither this boot ROM nor any.
    pub(crate) fn other_device(&self) -> Option<(u16, u16)> {
        const ANY: u16 = 0xFFFF;
        let ours = |&(vendor, product): &(u16, u16)| {
            [0x0483, ANY].contains(&vendor) && [0xDF11, ANY].contains(&product)
        };
        self.made_for.filter(|made_for| !ours(made_for))
    }

    /// Remembers the device that the file is made for; one that is not ours is worth a note.
    fn is_made_for(&mut self, made_for: (u16, u16)) {
        self.made_for = Some(made_for);
        if let Some((vendor, product)) = self.other_device() {
            self.notes.push(format!("it is made for the USB device {vendor:04x}:{product:04x}"));
        }
    }

    fn from_zip(bytes: &[u8]) -> Result<Image, ImageError> {
        let image = match release::parse(bytes, IMAGE_MAX)? {
            Packing::Release(release) => Image::from_release(release)?,
            Packing::Loose(files) => Image::only_one(files)?,
        };
        Ok(Image { format: Format::Zip, ..image })
    }

    fn from_release(release: Release) -> Result<Image, ImageError> {
        if release::is_zip(&release.file) {
            return Err(release::ReleaseDefect::Nested(release.name).into());
        }
        let mut image = Image::unzipped(release.file)?;
        if let (Some(claimed), Content::Firmware(firmware)) = (&release.platform, &image.content)
            && let Some(found) = firmware.platform()
            && found != claimed
        {
            return Err(ImageError::OtherPlatform { claimed: claimed.clone(), found });
        }
        if !release.others.is_empty() {
            let others = release.others.join(", ");
            image.notes.push(format!("not updated over USB, though in the release: {others}"));
        }
        Ok(image)
    }

    /// The only firmware among these files, as a build in CI packs it: without a manifest, and often in several formats.
    fn only_one(files: Vec<Loose>) -> Result<Image, ImageError> {
        let mut found: Vec<(String, Image)> = Vec::new();
        let mut others = Vec::new();
        let mut nested = None;
        for Loose { name, bytes } in files {
            if release::is_zip(&bytes) {
                nested = nested.or(Some(name));
                continue;
            }
            match Image::unzipped(bytes) {
                // The same in another format.
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

    /// Something for the STM32 of a Crazyflie, or what is left of it.
    fn is_known(&self) -> bool {
        let known =
            matches!(self.content, Content::Firmware(_) | Content::Bootloader | Content::WholeFlash(_));
        known || self.extent.complete() == Some(false)
    }

    /// Whether both are the same program, be it in different formats. What one of them leaves out between its parts, the
    /// other may fill in as it likes.
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

    /// An image of parts with addresses, in any order.
    fn placed(format: Format, segments: Vec<Segment>) -> Result<Image, ImageError> {
        let segments = joined(segments)?;
        let holes = holes(&segments);
        let gaps: u64 = segments.windows(2).map(|pair| pair[1].address.wide() - pair[0].end()).sum();
        let look = recognise::look(&flattened(&segments), &holes);
        let mut image = Image::new(format, look, Payload::Placed(segments))?;
        if matches!(image.content, Content::Firmware(_)) && gaps > 0 {
            image.notes.push(format!(
                "its parts leave out {gaps} bytes between them, which will be blank: usual where a linker aligns, but \
                 a lost line looks the same"
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
            made_for: None,
            notes: Vec::new(),
        })
    }

    /// The types of the boards that the image runs on; none if it does not say.
    pub fn boards(&self) -> Vec<String> {
        let firmware = self.content.firmware();
        firmware.into_iter().flat_map(|it| &it.boards).map(|board| board.code.clone()).collect()
    }

    /// Where the image belongs: where its file says, or else where it was linked to run.
    pub(crate) fn address(&self) -> Option<Address> {
        self.payload.address().or(self.content.link())
    }
}

/// Ascending, and what follows directly on another joined to it.
fn joined(mut segments: Vec<Segment>) -> Result<Vec<Segment>, ImageError> {
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

/// What lies between the segments, counted from the start of the first.
fn holes(segments: &[Segment]) -> Vec<Range<usize>> {
    let start = segments.first().map_or(0, |first| first.address.wide());
    let offset = |at: u64| usize::try_from(at.saturating_sub(start)).unwrap_or(usize::MAX);
    segments.windows(2).map(|pair| offset(pair[0].end())..offset(pair[1].address.wide())).collect()
}

/// The bytes as they would stand in erased flash, to be recognised; nothing if they are strewn farther than
/// flash is long.
fn flattened(segments: &[Segment]) -> Vec<u8> {
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
