//! Zip archives: Bitcraze's releases, which have a manifest and an image for each chip, and CI artifacts without a
//! manifest. From a release, the image for the STM32 is used. The other parts cannot be updated over USB DFU and are
//! listed for the user.
//!
//! Nothing is unpacked to disk, so a path in the archive cannot do harm. Size limits apply to the unpacked bytes, not
//! to the sizes that the archive claims.

use std::io::{Cursor, Read};

use serde_json::{Map, Value};
use thiserror::Error;
use zip::ZipArchive;
use zip::result::ZipError;

/// Returns whether this is a zip archive, possibly an empty one.
pub(super) fn is_zip(file: &[u8]) -> bool {
    file.starts_with(b"PK\x03\x04") || file.starts_with(b"PK\x05\x06")
}

const MANIFEST: &str = "manifest.json";
/// Maximum number of files. A release has about fifteen.
const FILES_MAX: usize = 256;
/// Maximum total size of an archive without a manifest, in bytes. A CI artifact may contain an ELF file with debug
/// information, about 6 MB.
const LOOSE_MAX: u64 = 32 * 1024 * 1024;
/// Maximum size of a manifest, in bytes. A real manifest is about 3 kB long.
const MANIFEST_MAX: u64 = 256 * 1024;
const OTHERS_MAX: usize = 20;
/// Longer strings from the archive are truncated for display.
const TEXT_MAX: usize = 60;

/// A defect in a zip archive.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ReleaseDefect {
    #[error("it cannot be read: {0}")]
    Archive(String),
    #[error("it contains {0} files, more than any release does")]
    TooManyFiles(usize),
    #[error("it contains another zip archive, {0}")]
    Nested(String),
    /// The archive has neither a manifest nor firmware. The field has a description of each file.
    #[error("it has no manifest.json and contains no firmware{}", describe_files(.0))]
    NothingKnown(Vec<String>),
    /// Only for an archive without a manifest, because every file in such an archive is examined.
    #[error("its files are larger than {} MiB in total", LOOSE_MAX / 1024 / 1024)]
    TooLargeInTotal,
    #[error("its manifest is invalid: {0}")]
    Manifest(String),
    /// A manifest in a newer format.
    #[error("its manifest has version {0}; only versions 1 and 2 are supported")]
    Version(String),
    #[error("it contains no firmware for the STM32")]
    NoFirmware,
    #[error("it contains several images for the STM32: {0}")]
    Several(String),
    #[error("its manifest lists {0}, which is not in the archive")]
    Missing(String),
    #[error("its file {0} is larger than the Crazyflie's flash")]
    TooLarge(String),
}

/// Formats the descriptions of the files as the end of a sentence.
fn describe_files(others: &[String]) -> String {
    match others {
        [] => String::new(),
        others => format!(": {}", others.iter().take(OTHERS_MAX).cloned().collect::<Vec<_>>().join("; ")),
    }
}

/// The content of a zip archive.
pub(super) enum ArchiveContent {
    /// A release with its manifest.
    Release(ReleaseFirmware),
    LooseFiles(Vec<LooseFile>),
}

/// A file in an archive without a manifest.
pub(super) struct LooseFile {
    pub(super) name: String,
    pub(super) bytes: Vec<u8>,
}

/// The firmware of a release.
pub(super) struct ReleaseFirmware {
    /// The name of the file for the STM32.
    pub(super) name: String,
    /// The image file for the STM32.
    pub(super) file: Vec<u8>,
    /// The platform of the whole release, such as `cf2` or `bolt`, from `fw_platform`. The `platform` of each file is
    /// not used, because it is always `cf2`.
    pub(super) platform: Option<String>,
    /// The targets that USB DFU cannot reach.
    pub(super) others: Vec<String>,
}

/// Parses an archive. The firmware that the manifest lists may have at most `max` bytes.
pub(super) fn parse(bytes: &[u8], max: u64) -> Result<ArchiveContent, ReleaseDefect> {
    let mut archive = ZipArchive::new(Cursor::new(bytes)).map_err(|error| damaged(&error))?;
    if archive.len() > FILES_MAX {
        return Err(ReleaseDefect::TooManyFiles(archive.len()));
    }
    // In a repacked archive, all files may be in one folder.
    let names = archive.file_names().filter_map(|name| Some(name.ok()?.into_owned()));
    let manifests: Vec<String> = names.filter(|name| name.rsplit('/').next() == Some(MANIFEST)).collect();
    let name = match manifests.as_slice() {
        [] => return read_loose_files(&mut archive).map(ArchiveContent::LooseFiles),
        [name] => name.clone(),
        many => return Err(ReleaseDefect::Manifest(format!("there are {} manifests", many.len()))),
    };
    let folder = name.strip_suffix(MANIFEST).unwrap_or_default();
    let text = read(&mut archive, &name, MANIFEST_MAX)?;
    let text = text.ok_or_else(|| ReleaseDefect::Manifest("it is too long".to_owned()))?;
    let manifest: Value =
        serde_json::from_slice(&text).map_err(|error| ReleaseDefect::Manifest(error.to_string()))?;
    if !matches!(manifest["version"].as_u64(), Some(1 | 2)) {
        return Err(ReleaseDefect::Version(sanitize(&manifest["version"].to_string())));
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
            others.extend(targets.iter().map(|target| sanitize(target)));
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
                many.iter().map(|name| sanitize(name)).collect::<Vec<_>>().join(", "),
            ));
        }
    };
    let platform = match &manifest["fw_platform"] {
        Value::Null => None,
        Value::String(platform) => Some(sanitize(platform)),
        _ => return Err(ReleaseDefect::Manifest("fw_platform is not a string".to_owned())),
    };
    let name = format!("{folder}{file}");
    let file = read(&mut archive, &name, max)?.ok_or_else(|| ReleaseDefect::TooLarge(sanitize(&name)))?;
    Ok(ArchiveContent::Release(ReleaseFirmware { name: sanitize(&name), file, platform, others }))
}

/// Reads all files of an archive without a manifest, except the files in which macOS stores file attributes.
fn read_loose_files(archive: &mut ZipArchive<Cursor<&[u8]>>) -> Result<Vec<LooseFile>, ReleaseDefect> {
    let names: Vec<String> = archive.file_names().filter_map(|name| Some(name.ok()?.into_owned())).collect();
    let mut room = LOOSE_MAX;
    let mut files = Vec::new();
    for name in names.iter().filter(|name| !name.ends_with('/') && !name.starts_with("__MACOSX/")) {
        let bytes = read(archive, name, room)?.ok_or(ReleaseDefect::TooLargeInTotal)?;
        room -= bytes.len() as u64;
        files.push(LooseFile { name: sanitize(name), bytes });
    }
    Ok(files)
}

/// Returns the targets of a file. The manifest has either a single target or a list of targets.
fn targets(value: &Value) -> Vec<&str> {
    match value {
        Value::Array(list) => list.iter().filter_map(Value::as_str).collect(),
        one => one.as_str().into_iter().collect(),
    }
}

/// Unpacks a file of the archive. Returns `None` if the file has more than `max` bytes.
fn read(
    archive: &mut ZipArchive<Cursor<&[u8]>>,
    name: &str,
    max: u64,
) -> Result<Option<Vec<u8>>, ReleaseDefect> {
    let file = match archive.by_name(name) {
        Ok(file) => file,
        Err(ZipError::FileNotFound) => return Err(ReleaseDefect::Missing(sanitize(name))),
        Err(error) => return Err(damaged(&error)),
    };
    let mut bytes = Vec::new();
    file.take(max + 1).read_to_end(&mut bytes).map_err(|error| ReleaseDefect::Archive(error.to_string()))?;
    Ok(Some(bytes).filter(|bytes| bytes.len() as u64 <= max))
}

fn damaged(error: &ZipError) -> ReleaseDefect {
    ReleaseDefect::Archive(error.to_string())
}

/// Makes text from the archive safe to display: ASCII, without control characters, and short.
fn sanitize(text: &str) -> String {
    text.chars().filter(|c| c.is_ascii() && !c.is_control()).take(TEXT_MAX).collect()
}
