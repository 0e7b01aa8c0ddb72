//! A release of Bitcraze's: a zip archive with a manifest and an image for each chip. The one for the STM32
//! is taken; what else is in it cannot be updated over USB DFU, and is named.
//!
//! Nothing is unpacked to disk, so no name in the archive can lead anywhere. Sizes are those of the bytes
//! that come out, not those that the archive claims.

use std::io::{Cursor, Read};

use serde_json::{Map, Value};
use thiserror::Error;
use zip::ZipArchive;
use zip::result::ZipError;

/// What a zip archive starts with.
pub(super) const SIGNATURE: &[u8] = b"PK\x03\x04";
const MANIFEST: &str = "manifest.json";
/// A release has about fifteen files.
const FILES_MAX: usize = 256;
/// A manifest has about 3 kB.
const MANIFEST_MAX: u64 = 256 * 1024;
/// Targets that are named.
const OTHERS_MAX: usize = 20;
/// Longest text of the manifest that is shown.
const TEXT_MAX: usize = 60;

/// What is wrong with a release.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Defect {
    /// The archive itself.
    #[error("it cannot be read: {0}")]
    Archive(String),
    /// Far too many files.
    #[error("it holds {0} files, more than any release")]
    Crowded(usize),
    /// Another archive.
    #[error("it has no manifest.json, so it is no release of Bitcraze's")]
    NoManifest,
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

/// The firmware of a release.
pub(super) struct Release {
    /// The image file for the STM32.
    pub(super) file: Vec<u8>,
    /// `cf2`, `bolt`, …: what the whole release is for (`fw_platform`; the `platform` of the files is `cf2`
    /// for all of them).
    pub(super) platform: Option<String>,
    /// Targets in it that USB DFU does not reach.
    pub(super) others: Vec<String>,
}

/// Reads a release; no file of it longer than `most` bytes.
pub(super) fn parse(bytes: &[u8], most: u64) -> Result<Release, Defect> {
    let mut archive = ZipArchive::new(Cursor::new(bytes)).map_err(|error| damaged(&error))?;
    if archive.len() > FILES_MAX {
        return Err(Defect::Crowded(archive.len()));
    }
    // Archives that were packed again may have everything in a folder.
    let names = archive.file_names().filter_map(|name| Some(name.ok()?.into_owned()));
    let manifests: Vec<String> = names.filter(|name| name.rsplit('/').next() == Some(MANIFEST)).collect();
    let name = match manifests.as_slice() {
        [] => return Err(Defect::NoManifest),
        [name] => name.clone(),
        many => return Err(Defect::Manifest(format!("there are {} of them", many.len()))),
    };
    let folder = name.strip_suffix(MANIFEST).unwrap_or_default();
    let text = read(&mut archive, &name, MANIFEST_MAX)?;
    let text = text.ok_or_else(|| Defect::Manifest("it is longer than any".to_owned()))?;
    let manifest: Value =
        serde_json::from_slice(&text).map_err(|error| Defect::Manifest(error.to_string()))?;
    if !matches!(manifest["version"].as_u64(), Some(1 | 2)) {
        return Err(Defect::Version(shown(&manifest["version"].to_string())));
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
        [] => return Err(Defect::NoFirmware),
        many => {
            return Err(Defect::Several(many.iter().map(|name| shown(name)).collect::<Vec<_>>().join(", ")));
        }
    };
    let platform = match &manifest["fw_platform"] {
        Value::Null => None,
        Value::String(platform) => Some(shown(platform)),
        _ => return Err(Defect::Manifest("its fw_platform is no text".to_owned())),
    };
    let name = format!("{folder}{file}");
    let file = read(&mut archive, &name, most)?.ok_or_else(|| Defect::TooLarge(shown(&name)))?;
    Ok(Release { file, platform, others })
}

/// A target is a name or a list of names.
fn targets(value: &Value) -> Vec<&str> {
    match value {
        Value::Array(list) => list.iter().filter_map(Value::as_str).collect(),
        one => one.as_str().into_iter().collect(),
    }
}

/// A file of the archive; `None` if it is longer than `most` bytes.
fn read(archive: &mut ZipArchive<Cursor<&[u8]>>, name: &str, most: u64) -> Result<Option<Vec<u8>>, Defect> {
    let file = match archive.by_name(name) {
        Ok(file) => file,
        Err(ZipError::FileNotFound) => return Err(Defect::Missing(shown(name))),
        Err(error) => return Err(damaged(&error)),
    };
    let mut bytes = Vec::new();
    file.take(most + 1).read_to_end(&mut bytes).map_err(|error| Defect::Archive(error.to_string()))?;
    Ok(Some(bytes).filter(|bytes| bytes.len() as u64 <= most))
}

fn damaged(error: &ZipError) -> Defect {
    Defect::Archive(error.to_string())
}

/// A text of the manifest as it may be shown: ASCII, and short.
fn shown(text: &str) -> String {
    text.chars().filter(|c| c.is_ascii() && !c.is_control()).take(TEXT_MAX).collect()
}
