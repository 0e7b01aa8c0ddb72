//! The releases on this computer: lists with their age, and files with their hashes. A folder with the same layout, for
//! example on a USB stick, can replace the network.
//!
//! The cache is untrusted: cfdfu hashes a file again each time it is used. Each file is written under a temporary name
//! and then renamed, so a reader never sees a partial file. An interrupted download is kept. The process that continues
//! the download claims the partial file by renaming it, because a lock could become stale.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use directories::ProjectDirs;
use serde::{Deserialize, Serialize};

use super::Repo;
use crate::clock;
use crate::image::{FILE_MAX, Sha256};

/// Maximum size of a list of releases, in bytes. A page of thirty releases is about 200 kB.
pub(crate) const LIST_MAX: u64 = 4 * 1024 * 1024;
/// Maximum size of the record of a file, in bytes.
const RECORD_MAX: u64 = 4096;
/// A partial download counts as abandoned if nothing was written to it for this many seconds. A running download fails
/// earlier if the server sends nothing.
const ABANDONED: u64 = 120;

pub(crate) struct Cache {
    dir: PathBuf,
    is_read_only: bool,
    /// Whether the user named the folder. The lists and hashes in such a folder may be from a different computer, so
    /// they do not prove that a file is genuine.
    is_foreign: bool,
}

/// A list of releases as the server sent it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct KeptList {
    /// When the list was fetched, in seconds since 1970.
    pub fetched: u64,
    pub etag: Option<String>,
    pub json: String,
}

/// The hash of a fetched file, as stored on disk. The record is kept when the file is removed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Record {
    sha256: String,
    /// Whether GitHub has reported this hash. If `false`, the hash was computed from the first download.
    published: bool,
}

/// The recorded hash of a file that was fetched before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pin {
    pub sha256: Sha256,
    pub is_published: bool,
}

/// Identifies a file of a release.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place<'a> {
    pub repo: Repo,
    pub tag: &'a str,
    pub name: &'a str,
}

/// A download in progress, with its own file.
pub(crate) struct PartialDownload {
    path: PathBuf,
    /// Where an interrupted download is kept, so that the next download can continue it.
    resumable: PathBuf,
    pub file: File,
    /// The number of bytes that are already in the file, from an earlier download.
    pub len: u64,
}

impl Cache {
    /// Returns the current user's cache, or `None` without a home directory.
    pub(crate) fn of_user(is_read_only: bool) -> Option<Cache> {
        let dirs = ProjectDirs::from("", "", "cfdfu")?;
        Some(Cache { dir: dirs.cache_dir().join("releases"), is_read_only, is_foreign: false })
    }

    /// Returns the cache in a folder that the user named.
    pub(crate) fn at(dir: &Path, is_read_only: bool) -> Cache {
        Cache { dir: dir.to_owned(), is_read_only, is_foreign: true }
    }

    pub(crate) fn is_foreign(&self) -> bool {
        self.is_foreign
    }

    pub(crate) fn is_read_only(&self) -> bool {
        self.is_read_only
    }

    fn list_path(&self, repo: Repo) -> PathBuf {
        self.dir.join(format!("{}.json", repo.name()))
    }

    fn folder(&self, repo: Repo, tag: &str) -> PathBuf {
        self.dir.join(repo.name()).join(tag)
    }

    pub(crate) fn path(&self, place: Place<'_>) -> PathBuf {
        self.folder(place.repo, place.tag).join(place.name)
    }

    fn record_path(&self, place: Place<'_>) -> PathBuf {
        self.folder(place.repo, place.tag).join(format!("{}.json", place.name))
    }

    pub(crate) fn list(&self, repo: Repo) -> Option<KeptList> {
        serde_json::from_slice(&read(&self.list_path(repo), LIST_MAX * 2)?).ok()
    }

    pub(crate) fn keep_list(&self, repo: Repo, list: &KeptList) -> io::Result<()> {
        self.write(&self.list_path(repo), &serde_json::to_vec(list)?)
    }

    /// Returns the names of all files in the folder of a release, except for unsafe names.
    pub(crate) fn names(&self, repo: Repo, tag: &str) -> Vec<String> {
        let entries = fs::read_dir(self.folder(repo, tag)).into_iter().flatten().flatten();
        let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
        let mut names: Vec<String> = names.filter(|name| super::is_safe_name(name)).collect();
        names.sort();
        names
    }

    /// Returns the tags of all releases that have a record of a fetched file, newest first.
    pub(crate) fn tags(&self, repo: Repo) -> Vec<String> {
        let entries = fs::read_dir(self.dir.join(repo.name())).into_iter().flatten().flatten();
        let tags = entries.filter_map(|entry| entry.file_name().into_string().ok());
        let has_file = |tag: &String| {
            let names = self.names(repo, tag);
            names.iter().any(|name| self.pin(Place { repo, tag, name }).is_some())
        };
        let mut tags: Vec<String> = tags.filter(|tag| super::is_safe_name(tag) && has_file(tag)).collect();
        tags.sort_by(|one, two| two.cmp(one));
        tags
    }

    /// Returns the hash that this file must have, or `None` if the file was never fetched.
    pub(crate) fn pin(&self, place: Place<'_>) -> Option<Pin> {
        let record: Record = serde_json::from_slice(&read(&self.record_path(place), RECORD_MAX)?).ok()?;
        Some(Pin { sha256: record.sha256.parse().ok()?, is_published: record.published })
    }

    /// Reads a cached file and checks its hash. A damaged file is removed.
    pub(crate) fn file(&self, place: Place<'_>) -> Option<(Vec<u8>, Pin)> {
        let pin = self.pin(place)?;
        let bytes = read(&self.path(place), FILE_MAX)?;
        if Sha256::of(&bytes) == pin.sha256 {
            return Some((bytes, pin));
        }
        self.remove(place);
        None
    }

    /// Removes a file, but keeps its record.
    pub(crate) fn remove(&self, place: Place<'_>) {
        if !self.is_read_only {
            let _ = fs::remove_file(self.path(place));
        }
    }

    /// Records the hash of a file.
    pub(crate) fn keep_pin(&self, place: Place<'_>, pin: Pin) -> io::Result<()> {
        let record = Record { sha256: pin.sha256.to_string(), published: pin.is_published };
        self.write(&self.record_path(place), &serde_json::to_vec(&record)?)
    }

    /// Begins a download, or continues an interrupted download if `resumes` is true.
    pub(crate) fn begin(&self, place: Place<'_>, resumes: bool) -> io::Result<PartialDownload> {
        let folder = self.folder(place.repo, place.tag);
        fs::create_dir_all(&folder)?;
        // No release file can have this name, because `is_safe_name` rejects names that start with a dot.
        let resumable = folder.join(format!(".{}.part", place.name));
        let draft = tempfile::Builder::new()
            .prefix(&format!(".{}.", place.name))
            .suffix(".part")
            .make_in(&folder, |path| File::options().create_new(true).append(true).open(path))?;
        let (_, own) = draft.keep().map_err(|error| error.error)?;
        if resumes {
            let is_claimed = fs::rename(&resumable, &own).is_ok();
            if !is_claimed && let Some(abandoned) = find_abandoned(&folder, place.name) {
                let _ = fs::rename(abandoned, &own);
            }
        }
        let file = File::options().append(true).read(true).open(&own)?;
        let len = file.metadata()?.len();
        Ok(PartialDownload { path: own, resumable, file, len })
    }

    /// Moves a complete download to its final path.
    pub(crate) fn finish(&self, part: PartialDownload, place: Place<'_>) -> io::Result<()> {
        part.file.sync_all()?;
        drop(part.file);
        fs::rename(&part.path, self.path(place))
    }

    /// Removes the whole cache.
    pub(crate) fn forget(&self) -> io::Result<()> {
        match fs::remove_dir_all(&self.dir) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    fn write(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let folder = path.parent().unwrap_or(&self.dir);
        fs::create_dir_all(folder)?;
        let mut draft = create_draft(folder)?;
        io::Write::write_all(&mut draft, bytes)?;
        draft.persist(path)?;
        Ok(())
    }
}

/// Creates a temporary file that other users will be able to read, because a whole lab may share the folder. The umask
/// applies.
#[cfg(unix)]
fn create_draft(folder: &Path) -> io::Result<tempfile::NamedTempFile> {
    let readable = std::os::unix::fs::PermissionsExt::from_mode(0o666);
    tempfile::Builder::new().permissions(readable).tempfile_in(folder)
}

#[cfg(not(unix))]
fn create_draft(folder: &Path) -> io::Result<tempfile::NamedTempFile> {
    tempfile::NamedTempFile::new_in(folder)
}

impl PartialDownload {
    /// Keeps an interrupted download, so that the next download can continue it. An empty file is removed.
    pub(crate) fn keep_for_resume(self) {
        let is_empty = self.file.metadata().is_ok_and(|file| file.len() == 0);
        drop(self.file);
        let _ = if is_empty { fs::remove_file(&self.path) } else { fs::rename(&self.path, &self.resumable) };
    }

    /// Removes a failed download that must not be continued.
    pub(crate) fn discard(self) {
        drop(self.file);
        let _ = fs::remove_file(&self.path);
    }
}

/// Finds a partial download that a killed process has left behind.
fn find_abandoned(folder: &Path, name: &str) -> Option<PathBuf> {
    let is_part = |path: &PathBuf| {
        let file = path.file_name().and_then(|file| file.to_str()).unwrap_or_default();
        file.strip_prefix(&format!(".{name}.")).and_then(|rest| rest.strip_suffix(".part")).is_some()
    };
    let is_old = |path: &PathBuf| {
        let written = path.metadata().and_then(|file| file.modified()).ok();
        let written = written.and_then(|time| time.duration_since(SystemTime::UNIX_EPOCH).ok());
        written.is_some_and(|written| clock::unix_seconds().saturating_sub(written.as_secs()) > ABANDONED)
    };
    let paths = fs::read_dir(folder).ok()?.flatten().map(|entry| entry.path());
    paths.filter(is_part).find(is_old)
}

/// Reads a file. Returns `None` if the file cannot be read or has more than `most` bytes.
fn read(path: &Path, most: u64) -> Option<Vec<u8>> {
    // Opening a pipe would block until its other end is opened.
    if !fs::metadata(path).is_ok_and(|file| file.is_file()) {
        return None;
    }
    let mut bytes = Vec::new();
    File::open(path).ok()?.take(most + 1).read_to_end(&mut bytes).ok()?;
    (bytes.len() as u64 <= most).then_some(bytes)
}
