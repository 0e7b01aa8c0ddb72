//! An image file: its bytes, and what can be known of them without a drone.
//!
//! Reads no file itself and decides nothing about flashing: `flash::check` does that with what is
//! found here. Formats are told apart by content, never by the file's name.

use thiserror::Error;

use crate::flash::{Address, FLASH_END, LOADER_BASE};

mod recognise;

pub use recognise::{Board, Content, Firmware};

/// The largest file that is read at all, in bytes: nothing for a Crazyflie comes near it.
pub const FILE_MAX: u64 = 16 * 1024 * 1024;
/// The largest raw image, in bytes: the whole flash.
const RAW_MAX: u64 = FLASH_END - LOADER_BASE.0 as u64;
/// The 16 bytes at the end of a file made for DFU (DFU 1.1 appendix B).
const SUFFIX_LEN: usize = 16;

/// How the file is packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// The bytes as they stand in flash, without an address.
    Bin,
}

impl Format {
    /// The word that `inspect --json` prints.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Format::Bin => "bin",
        }
    }
}

/// A file that was read and understood as far as it can be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// How it was packed.
    pub format: Format,
    /// What it is.
    pub content: Content,
    /// The bytes to program.
    pub data: Vec<u8>,
    /// CRC-32 (zlib's) of [`Image::data`].
    pub crc32: u32,
}

/// Why a file is no image at all. There is no override for any of these.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ImageError {
    /// No bytes.
    #[error("the file is empty")]
    Empty,
    /// More bytes than the chip has flash.
    #[error("the file has {bytes} bytes, more than the {RAW_MAX} of the Crazyflie's flash")]
    TooLarge {
        /// Size of the file.
        bytes: u64,
    },
    /// Only one value, over and over: a blank dump, not a program.
    #[error("the file holds nothing but 0x{byte:02X}")]
    Blank {
        /// The value.
        byte: u8,
    },
    /// A container that is recognised but not read.
    #[error("this is {what}, not a raw .bin image")]
    Container {
        /// What it is, with its article.
        what: &'static str,
    },
}

impl Image {
    /// Reads `bytes` as an image file.
    pub fn parse(bytes: Vec<u8>) -> Result<Image, ImageError> {
        let Some(&first) = bytes.first() else { return Err(ImageError::Empty) };
        if let Some(what) = container(&bytes) {
            return Err(ImageError::Container { what });
        }
        if bytes.len() as u64 > RAW_MAX {
            return Err(ImageError::TooLarge { bytes: bytes.len() as u64 });
        }
        if bytes.iter().all(|&byte| byte == first) {
            return Err(ImageError::Blank { byte: first });
        }
        let content = recognise::content(&bytes);
        Ok(Image { format: Format::Bin, content, crc32: crc32fast::hash(&bytes), data: bytes })
    }

    /// The types of the boards that the image runs on; none if it does not say.
    #[must_use]
    pub fn boards(&self) -> Vec<String> {
        match &self.content {
            Content::Firmware(firmware) => firmware.boards.iter().map(|board| board.code.clone()).collect(),
            Content::Bootloader | Content::Radio | Content::Unknown { .. } => Vec::new(),
        }
    }

    /// Where the image was linked to run, if that can be told.
    #[must_use]
    pub fn link_address(&self) -> Option<Address> {
        match &self.content {
            Content::Firmware(firmware) => Some(firmware.link),
            Content::Bootloader => Some(LOADER_BASE),
            Content::Radio => None,
            Content::Unknown { link } => *link,
        }
    }
}

/// The name of a well-known file type that is not raw bytes, from its first or last bytes.
fn container(bytes: &[u8]) -> Option<&'static str> {
    const MAGIC: [(&[u8], &str); 4] = [
        (b"\x7fELF", "an ELF file"),
        (b"PK\x03\x04", "a zip archive"),
        (b"DfuSe", "a DfuSe (.dfu) file"),
        (b":02000004", "an Intel HEX file"),
    ];
    let magic = MAGIC.iter().find(|(magic, _)| bytes.starts_with(magic)).map(|(_, what)| *what);
    // A DFU suffix would be flashed as if it were program: bytes 8..11 of it spell "UFD", then its length.
    let suffix = bytes.len() > SUFFIX_LEN && &bytes[bytes.len() - 8..bytes.len() - 4] == b"UFD\x10";
    magic.or(suffix.then_some("a file with a DFU suffix"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_that_are_no_raw_image_are_refused() {
        assert_eq!(Image::parse(vec![]), Err(ImageError::Empty));
        assert_eq!(Image::parse(vec![0xFF; 4096]), Err(ImageError::Blank { byte: 0xFF }));
        let large = vec![1; 1024 * 1024 + 1];
        assert_eq!(Image::parse(large), Err(ImageError::TooLarge { bytes: 1024 * 1024 + 1 }));
        for magic in [&b"\x7fELF"[..], b"PK\x03\x04", b"DfuSe\x01", b":020000040800F2"] {
            let mut file = vec![7; 600];
            file[..magic.len()].copy_from_slice(magic);
            assert!(matches!(Image::parse(file), Err(ImageError::Container { .. })));
        }
        let mut suffixed = vec![7; 600];
        suffixed[592..596].copy_from_slice(b"UFD\x10");
        assert!(matches!(Image::parse(suffixed), Err(ImageError::Container { .. })));
    }

    #[test]
    fn one_byte_is_an_unknown_image_not_a_crash() {
        for len in 1..64 {
            let mut bytes: Vec<u8> = (0..len).collect();
            bytes.push(0x80);
            assert_eq!(Image::parse(bytes).unwrap().content, Content::Unknown { link: None });
        }
    }
}
