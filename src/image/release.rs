//! A zip archive: a release of Bitcraze's, which has a manifest and an image for each chip, or what a build in CI leaves,
//! which has no manifest. Of a release the image for the STM32 is taken; what else is in it cannot be updated over USB
//! DFU, and is named.
//!
//! Nothing is unpacked to disk, so no name in the archive can lead anywhere. Sizes are those of the bytes
//! that come out, not those that the archive claims.

use std::io::{Cursor, Read};

use serde_json::{Map, Value};
use thiserror::Error;
use zip::ZipArchive;
use zip::result::ZipError;

/// Whether this is a zip archive, even one without files.
pub(super) fn is_zip(file: &[u8]) -> bool {
    file.starts_with(b"PK\x03\x04") || file.starts_with(b"PK\x05\x06")
}

const MANIFEST: &str = "manifest.json";
/// A release has about fifteen files.
const FILES_MAX: usize = 256;
/// A build in CI may pack its ELF file with everything for the debugger: about 6 MB.
const LOOSE_MAX: u64 = 32 * 1024 * 1024;
/// A manifest has about 3 kB.
const MANIFEST_MAX: u64 = 256 * 1024;
const OTHERS_MAX: usize = 20;
/// Longest text of the manifest that is shown.
const TEXT_MAX: usize = 60;

/// What is wrong with a release.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ReleaseDefect {
    #[error("it cannot be read: {0}")]
    Archive(String),
    #[error("it holds {0} files, more than any release")]
    Crowded(usize),
    /// An archive in the archive.
    #[error("{0} in it is another zip archive")]
    Nested(String),
    /// Neither a manifest nor a firmware.
    #[error("it has no manifest.json and holds no firmware{}", explained(.0))]
    NothingKnown(Vec<String>),
    /// Without a manifest all files are looked at.
    #[error("its files have more than {} MiB", LOOSE_MAX / 1024 / 1024)]
    Swollen,
    /// The manifest cannot be read.
    #[error("its manifest is damaged: {0}")]
    Manifest(String),
    /// A manifest of the future.
    #[error("its manifest is of version {0}; versions 1 and 2 are known")]
    Version(String),
    /// Nothing for the STM32.
    #[error("it holds no firmware for the STM32")]
    NoFirmware,
    /// More than one for the STM32.
    #[error("it holds several firmwares for the STM32: {0}")]
    Several(String),
    /// The manifest names a file that is not there.
    #[error("its manifest names {0}, which is not in it")]
    Missing(String),
    /// A file is larger than the flash.
    #[error("{0} in it is larger than the Crazyflie's flash")]
    TooLarge(String),
}

/// What the files are instead, as the end of a sentence.
fn explained(others: &[String]) -> String {
    match others {
        [] => String::new(),
        others => format!(": {}", others.iter().take(OTHERS_MAX).cloned().collect::<Vec<_>>().join("; ")),
    }
}

/// What a zip archive holds.
pub(super) enum Packing {
    /// A release with its manifest.
    Release(Release),
    Loose(Vec<Loose>),
}

/// A file that no manifest describes.
pub(super) struct Loose {
    /// As in the archive.
    pub(super) name: String,
    pub(super) bytes: Vec<u8>,
}

/// The firmware of a release.
pub(super) struct Release {
    /// The name of the file for the STM32.
    pub(super) name: String,
    /// The image file for the STM32.
    pub(super) file: Vec<u8>,
    /// `cf2`, `bolt`, …: what the whole release is for (`fw_platform`; the `platform` of the files is `cf2`
    /// for all of them).
    pub(super) platform: Option<String>,
    /// Targets in it that USB DFU does not reach.
    pub(super) others: Vec<String>,
}

/// Reads an archive. No file of a release may be longer than `most` bytes.
pub(super) fn parse(bytes: &[u8], most: u64) -> Result<Packing, ReleaseDefect> {
    let mut archive = ZipArchive::new(Cursor::new(bytes)).map_err(|error| damaged(&error))?;
    if archive.len() > FILES_MAX {
        return Err(ReleaseDefect::Crowded(archive.len()));
    }
    // Archives that were packed again may have everything in a folder.
    let names = archive.file_names().filter_map(|name| Some(name.ok()?.into_owned()));
    let manifests: Vec<String> = names.filter(|name| name.rsplit('/').next() == Some(MANIFEST)).collect();
    let name = match manifests.as_slice() {
        [] => return loose(&mut archive).map(Packing::Loose),
        [name] => name.clone(),
        many => return Err(ReleaseDefect::Manifest(format!("there are {} of them", many.len()))),
    };
    let folder = name.strip_suffix(MANIFEST).unwrap_or_default();
    let text = read(&mut archive, &name, MANIFEST_MAX)?;
    let text = text.ok_or_else(|| ReleaseDefect::Manifest("it is longer than any".to_owned()))?;
    let manifest: Value =
        serde_json::from_slice(&text).map_err(|error| ReleaseDefect::Manifest(error.to_string()))?;
    if !matches!(manifest["version"].as_u64(), Some(1 | 2)) {
        return Err(ReleaseDefect::Version(shown(&manifest["version"].to_string())));
    }
    let nothing = Map::new();
    let files = manifest["files"].as_object().unwrap_or(&nothing);
    let mut ours = Vec::new();
    let mut others = Vec::new();
    for (file, entry) in files.iter().take(FILES_MAX) {
        let targets = targets(&entry["target"]);
        if entry["type"] == "fw" && targets.contains(&"stm32") {
            ours.push(file);
        } else {
            others.extend(targets.iter().map(|target| shown(target)));
        }
    }
    others.sort();
    others.dedup();
    let more = others.len().saturating_sub(OTHERS_MAX);
    others.truncate(OTHERS_MAX);
    if more > 0 {
        others.push(format!("{more} more"));
    }
    let file = match ours.as_slice() {
        [file] => file.as_str(),
        [] => return Err(ReleaseDefect::NoFirmware),
        many => {
            return Err(ReleaseDefect::Several(
                many.iter().map(|name| shown(name)).collect::<Vec<_>>().join(", "),
            ));
        }
    };
    let platform = match &manifest["fw_platform"] {
        Value::Null => None,
        Value::String(platform) => Some(shown(platform)),
        _ => return Err(ReleaseDefect::Manifest("its fw_platform is no text".to_owned())),
    };
    let name = format!("{folder}{file}");
    let file = read(&mut archive, &name, most)?.ok_or_else(|| ReleaseDefect::TooLarge(shown(&name)))?;
    Ok(Packing::Release(Release { name: shown(&name), file, platform, others }))
}

/// All files of an archive without a manifest, but for those that a Mac adds to hold a file's attributes.
fn loose(archive: &mut ZipArchive<Cursor<&[u8]>>) -> Result<Vec<Loose>, ReleaseDefect> {
    let names: Vec<String> = archive.file_names().filter_map(|name| Some(name.ok()?.into_owned())).collect();
    let mut room = LOOSE_MAX;
    let mut files = Vec::new();
    for name in names.iter().filter(|name| !name.ends_with('/') && !name.starts_with("__MACOSX/")) {
        let bytes = read(archive, name, room)?.ok_or(ReleaseDefect::Swollen)?;
        room -= bytes.len() as u64;
        files.push(Loose { name: shown(name), bytes });
    }
    Ok(files)
}

/// A target is a name or a list of names.
fn targets(value: &Value) -> Vec<&str> {
    match value {
        Value::Array(list) => list.iter().filter_map(Value::as_str).collect(),
        one => one.as_str().into_iter().collect(),
    }
}

/// A file of the archive; `None` if it is longer than `most` bytes.
fn read(
    archive: &mut ZipArchive<Cursor<&[u8]>>,
    name: &str,
    most: u64,
) -> Result<Option<Vec<u8>>, ReleaseDefect> {
    let file = match archive.by_name(name) {
        Ok(file) => file,
        Err(ZipError::FileNotFound) => return Err(ReleaseDefect::Missing(shown(name))),
        Err(error) => return Err(damaged(&error)),
    };
    let mut bytes = Vec::new();
    file.take(most + 1).read_to_end(&mut bytes).map_err(|error| ReleaseDefect::Archive(error.to_string()))?;
    Ok(Some(bytes).filter(|bytes| bytes.len() as u64 <= most))
}

fn damaged(error: &ZipError) -> ReleaseDefect {
    ReleaseDefect::Archive(error.to_string())
}

/// A text of the manifest as it may be shown: ASCII, and short.
fn shown(text: &str) -> String {
    text.chars().filter(|c| c.is_ascii() && !c.is_control()).take(TEXT_MAX).collect()
}
