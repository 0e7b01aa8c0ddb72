//! The state directory: copies for undo, recent images, radio addresses, run logs, bug reports, a station's journal,
//! the announcements of running instances, and the result of a job that outlived its terminal.
//!
//! The directory is created only when there is something to save. Errors in this module never stop a flash.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use directories::ProjectDirs;

use crate::clock;
use crate::crazyflie::crtp::Radio;
use crate::crazyflie::names::RadioNames;

/// The maximum size of a JSON file, in bytes.
const JSON_MAX: u64 = 64 * 1024;
/// The file name of a station's journal.
const JOURNAL: &str = "station.txt";
/// The maximum size of the journal in bytes, enough for 11,000 drones.
const JOURNAL_MAX: u64 = 1024 * 1024;
/// The maximum number of recent images to remember.
const RECENT: usize = 5;
/// The maximum number of radio addresses to remember. Their file must stay smaller than [`JSON_MAX`].
const NAMES: usize = 500;

mod presence;
mod undo;

pub(crate) use presence::Announcement;
pub use presence::RunningInstance;
pub(crate) use undo::{BegunChange, Target, begin};

#[derive(Clone)]
pub(crate) struct StateDir {
    dir: PathBuf,
}

impl StateDir {
    /// Returns the current user's state directory, or `None` if the user has no home directory.
    pub(crate) fn of_user() -> Option<StateDir> {
        let dirs = ProjectDirs::from("", "", "cfdfu")?;
        Some(StateDir { dir: dirs.state_dir().unwrap_or_else(|| dirs.data_local_dir()).to_owned() })
    }

    #[cfg(test)]
    pub(crate) fn at(dir: &Path) -> StateDir {
        StateDir { dir: dir.to_owned() }
    }

    /// Opens the journal of a station, which has a line for each drone that is done. Unless the station resumes the
    /// last run, the journal is emptied first.
    pub(crate) fn open_journal(&self, resumes: bool) -> io::Result<File> {
        fs::create_dir_all(&self.dir)?;
        let path = self.dir.join(JOURNAL);
        if !resumes {
            File::create(&path)?;
        }
        File::options().create(true).append(true).open(path)
    }

    /// Returns the serial numbers of the drones that already have these images, according to the journal. Ignores a
    /// last line that was truncated by a crash.
    pub(crate) fn journal(&self, images: &str) -> Vec<String> {
        let text = read(&self.dir.join(JOURNAL), JOURNAL_MAX).unwrap_or_default();
        let whole = text.iter().rposition(|&byte| byte == b'\n').map_or(0, |end| end + 1);
        let serial = |line: &str| {
            let (serial, flashed) = line.split_once(' ')?;
            let is_serial = !serial.is_empty() && serial.chars().all(|c| c.is_ascii_hexdigit());
            (is_serial && flashed == images).then(|| serial.to_owned())
        };
        let text = String::from_utf8_lossy(&text[..whole]);
        let mut serials: Vec<String> = text.lines().filter_map(serial).collect();
        serials.sort();
        serials.dedup();
        serials
    }

    /// Saves a file in a folder of the state directory and returns its path. The file name starts with the time. The
    /// oldest files with the same extension are removed until at most `most` remain.
    pub(crate) fn save(&self, folder: &Path, name: &str, bytes: &[u8], most: usize) -> io::Result<PathBuf> {
        self.save_after(folder, name, bytes, most, None)
    }

    /// Like [`StateDir::save`], with a time stamp later than `newest`.
    fn save_after(
        &self,
        folder: &Path,
        name: &str,
        bytes: &[u8],
        most: usize,
        newest: Option<u64>,
    ) -> io::Result<PathBuf> {
        let dir = self.dir.join(folder);
        fs::create_dir_all(&dir)?;
        remove_old_drafts(&dir);
        let extension = Path::new(name).extension();
        let mut others = saved(&dir);
        // The clock may have been set back, or may be wrong until the network is up. The new file must still sort last.
        let newest = others.iter().filter_map(|path| time_of(path)).chain(newest).max();
        let after = newest.map_or(0, |time| time.saturating_add(1).min(9_999_999_999));
        others.retain(|path| path.extension() == extension);
        let path = dir.join(format!("{:010}-{name}", clock::unix_seconds().max(after)));
        let draft = path.with_extension("part");
        let written = File::create(&draft)
            .and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all()))
            .and_then(|()| fs::rename(&draft, &path));
        if let Err(error) = written {
            let _ = fs::remove_file(&draft);
            return Err(error);
        }
        // The new file is saved. Failing to remove an old file is not an error: another process may have removed it.
        let too_many = (others.len() + 1).saturating_sub(most);
        others.drain(..too_many.min(others.len())).for_each(|old| drop(fs::remove_file(old)));
        Ok(path)
    }

    /// Saves the log of a job and keeps the newest `most` logs.
    pub(crate) fn save_log(&self, log: &str, most: usize) -> io::Result<PathBuf> {
        // The process id keeps the names distinct if two jobs end in the same second.
        let name = format!("{}-run.log", std::process::id());
        self.save(Path::new("logs"), &name, log.as_bytes(), most)
    }

    /// Adds an image to the list of recent images.
    pub(crate) fn add_recent(&self, image: &Path) -> io::Result<()> {
        let mut recent = self.recent();
        recent.retain(|path| path != image);
        recent.insert(0, image.to_owned());
        recent.truncate(RECENT);
        self.write("recent.json", &serde_json::json!(recent))
    }

    /// Returns the recent images, newest first. An unreadable list counts as empty.
    pub(crate) fn recent(&self) -> Vec<PathBuf> {
        let text = read(&self.dir.join("recent.json"), JSON_MAX).unwrap_or_default();
        serde_json::from_slice(&text).unwrap_or_default()
    }

    /// Remembers a drone's radio address under the serial number that its firmware reports.
    pub(crate) fn save_radio_address(&self, serial: &str, radio: Radio) -> io::Result<()> {
        let (mut names, radio) = (self.read_names(), radio.to_string());
        if names.get(serial) == Some(&radio) {
            return Ok(());
        }
        if names.len() >= NAMES {
            names.clear();
        }
        names.insert(serial.to_owned(), radio);
        self.write("names.json", &serde_json::json!(names))
    }

    /// Returns the remembered radio addresses of drones. Ignores malformed entries.
    pub(crate) fn names(&self) -> RadioNames {
        let radio = |(serial, radio): (String, String)| Some((serial, radio.parse().ok()?));
        self.read_names().into_iter().filter_map(radio).collect()
    }

    /// Reads the radio addresses of drones, by serial number. An unreadable list counts as empty.
    fn read_names(&self) -> BTreeMap<String, String> {
        let text = read(&self.dir.join("names.json"), JSON_MAX).unwrap_or_default();
        serde_json::from_slice(&text).unwrap_or_default()
    }

    /// Records the result of a job. `seen` is false if the terminal was already closed when the job ended.
    pub(crate) fn save_result(&self, result: &str, seen: bool) -> io::Result<()> {
        let record = serde_json::json!({"time": clock::unix_seconds(), "outcome": result, "seen": seen});
        self.write("last-run.json", &record)
    }

    /// Returns the result of the last job if the user has not seen it yet, and marks it as seen.
    pub(crate) fn take_unseen_result(&self) -> Option<String> {
        let text = read(&self.dir.join("last-run.json"), JSON_MAX)?;
        let record: serde_json::Value = serde_json::from_slice(&text).ok()?;
        let result = record["outcome"].as_str().filter(|_| record["seen"] == false)?.to_owned();
        // If writing fails, the result is reported again at the next start.
        let _ = self.save_result(&result, true);
        Some(result)
    }

    fn write(&self, name: &str, value: &serde_json::Value) -> io::Result<()> {
        fs::create_dir_all(&self.dir)?;
        remove_old_drafts(&self.dir);
        // Another process may write the same file at the same time.
        let draft = self.dir.join(format!("{name}.{}.part", std::process::id()));
        let written =
            fs::write(&draft, value.to_string()).and_then(|()| fs::rename(&draft, self.dir.join(name)));
        if written.is_err() {
            let _ = fs::remove_file(&draft);
        }
        written
    }
}

/// Returns whether the file was last modified more than `seconds` seconds ago.
fn is_older(path: &Path, seconds: u64) -> bool {
    let written = path.metadata().and_then(|it| it.modified()).ok();
    let written = written.and_then(|time| time.duration_since(SystemTime::UNIX_EPOCH).ok());
    written.is_some_and(|written| clock::unix_seconds().saturating_sub(written.as_secs()) > seconds)
}

/// Removes the temporary files of processes that were killed.
fn remove_old_drafts(dir: &Path) {
    const HOUR: u64 = 3600;
    let is_draft = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "part");
    saved(dir)
        .iter()
        .filter(|path| is_draft(path) && is_older(path, HOUR))
        .for_each(|path| drop(fs::remove_file(path)));
}

/// Reads at most `most` bytes of a file. Other programs can write to the state directory, so anything except a regular
/// file is ignored: opening a pipe would block.
fn read(path: &Path, most: u64) -> Option<Vec<u8>> {
    if !path.symlink_metadata().ok()?.is_file() {
        return None;
    }
    let mut data = Vec::new();
    File::open(path).ok()?.take(most).read_to_end(&mut data).ok()?;
    Some(data)
}

/// Returns the files in a folder, oldest first, because their names start with the time.
fn saved(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten();
    let mut files: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    files.sort();
    files
}

/// Returns the time in a file name, in seconds since 1970.
fn time_of(path: &Path) -> Option<u64> {
    path.file_name()?.to_str()?.split_once('-')?.0.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recent_images_are_sorted_newest_first_and_a_malformed_list_counts_as_empty() {
        let dir = tempfile::tempdir().unwrap();
        let record = StateDir { dir: dir.path().join("state") };
        assert_eq!(record.recent(), Vec::<PathBuf>::new());
        for name in ["a", "b", "c", "a", "d", "e", "f"] {
            record.add_recent(Path::new(name)).unwrap();
        }
        assert_eq!(record.recent(), ["f", "e", "d", "a", "c"].map(PathBuf::from));
        fs::write(dir.path().join("state/recent.json"), b"[1, {").unwrap();
        assert_eq!(record.recent(), Vec::<PathBuf>::new());
    }

    #[test]
    fn a_radio_address_is_remembered_for_both_modes_and_other_text_is_ignored() {
        let dir = tempfile::tempdir().unwrap();
        let record = StateDir::at(&dir.path().join("state"));
        let name_of = |serial: &str| record.names().of(serial, []).map(|radio| radio.to_string());
        let radio = |text: &str| text.parse().unwrap();
        assert_eq!(name_of("51004F000551343036333233"), None);
        record.save_radio_address("51004F000551343036333233", radio("radio://0/80/2M/E7E7E7E701")).unwrap();
        for serial in ["51004F000551343036333233", "338133873034"] {
            assert_eq!(name_of(serial).as_deref(), Some("radio://0/80/2M/E7E7E7E701"));
        }
        assert_eq!(name_of(""), None);
        // Another chip with the same serial number in DFU mode: two words are changed so that their sum is the same.
        record.save_radio_address("52004F000551343035333233", radio("radio://0/80/2M/E7E7E7E702")).unwrap();
        assert_eq!(name_of("338133873034"), None);
        assert!(name_of("52004F000551343035333233").is_some());
        // Another program may have changed the file. Only radio addresses are shown, never escape sequences.
        let text = "{\"AB\":\"\\u001b[2Jx\",\"CD\":\"radio://0/80/2M/E7E7E7E703\"}";
        fs::write(dir.path().join("state/names.json"), text).unwrap();
        assert_eq!((name_of("AB"), name_of("CD").is_some()), (None, true));
    }

    /// A pipe must not block cfdfu, and a large file must not be read completely.
    #[cfg(unix)]
    #[test]
    fn pipes_and_large_files_in_the_state_directory_are_ignored() {
        let dir = tempfile::tempdir().unwrap();
        let record = StateDir { dir: dir.path().to_owned() };
        for name in ["last-run.json", "recent.json"] {
            let made = std::process::Command::new("mkfifo").arg(dir.path().join(name)).status().unwrap();
            assert!(made.success());
        }
        assert_eq!((record.take_unseen_result(), record.recent()), (None, Vec::<PathBuf>::new()));
        for name in ["last-run.json", "recent.json"] {
            fs::remove_file(dir.path().join(name)).unwrap();
            fs::write(dir.path().join(name), vec![b'['; 1 << 20]).unwrap();
        }
        assert_eq!((record.take_unseen_result(), record.recent()), (None, Vec::<PathBuf>::new()));
    }

    #[test]
    fn an_unseen_result_is_reported_once() {
        let dir = tempfile::tempdir().unwrap();
        let record = StateDir { dir: dir.path().to_owned() };
        assert_eq!(record.take_unseen_result(), None);
        record.save_result("Flashed", true).unwrap();
        assert_eq!(record.take_unseen_result(), None);
        record.save_result("Flashed", false).unwrap();
        assert_eq!(record.take_unseen_result().as_deref(), Some("Flashed"));
        assert_eq!(record.take_unseen_result(), None);
    }
}
