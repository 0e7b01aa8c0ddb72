//! What is remembered between runs, in the user's state directory: copies of what was overwritten, the images
//! that were used, and how a job ended that nobody saw the end of.
//!
//! Nothing is written until there is something to remember, and nothing that is asked of this file can stop
//! a flash: its errors are for the log.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use directories::ProjectDirs;

use crate::clock;
use crate::flash::Segment;
use crate::flash::plan::BLANK;

/// Copies of one drone's flash that are kept.
const COPIES: usize = 5;
/// Images that are remembered.
const RECENT: usize = 5;

/// The state directory.
pub struct Record {
    dir: PathBuf,
}

impl Record {
    /// The user's; `None` where there is no home.
    #[must_use]
    pub fn of_user() -> Option<Record> {
        let dirs = ProjectDirs::from("", "", "cfdfu")?;
        Some(Record { dir: dirs.state_dir().unwrap_or_else(|| dirs.data_local_dir()).to_owned() })
    }

    /// Keeps what a flash is about to overwrite on the drone with this serial number, without the blank
    /// flash at its end; the oldest copies of that drone go. Gives the new file.
    pub fn keep(&self, before: &Segment, serial: &str) -> io::Result<PathBuf> {
        let len = before.data.iter().rposition(|&byte| byte != BLANK).map_or(0, |last| last + 1);
        let serial: String = serial.chars().filter(char::is_ascii_alphanumeric).take(24).collect();
        let folder = Path::new("undo").join(if serial.is_empty() { "unknown" } else { &serial });
        self.save(&folder, &format!("{:08X}.bin", before.address.0), &before.data[..len], COPIES)
    }

    /// Keeps a file in this folder of the state directory, its name preceded by the time; of the files with
    /// the same ending the oldest go, so that `most` are left. Gives the new file.
    pub fn save(&self, folder: &Path, name: &str, bytes: &[u8], most: usize) -> io::Result<PathBuf> {
        let dir = self.dir.join(folder);
        fs::create_dir_all(&dir)?;
        let path = dir.join(format!("{:010}-{name}", clock::unix_seconds()));
        let draft = path.with_extension("part");
        let mut file = File::create(&draft)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&draft, &path)?;
        forget_oldest(&path, most)?;
        Ok(path)
    }

    /// Remembers an image that was chosen.
    pub fn used(&self, image: &Path) -> io::Result<()> {
        let mut recent = self.recent();
        recent.retain(|path| path != image);
        recent.insert(0, image.to_owned());
        recent.truncate(RECENT);
        self.write("recent.json", &serde_json::json!(recent))
    }

    /// The images that were chosen, the last first. A broken file is as good as none.
    #[must_use]
    pub fn recent(&self) -> Vec<PathBuf> {
        let text = fs::read(self.dir.join("recent.json")).unwrap_or_default();
        serde_json::from_slice(&text).unwrap_or_default()
    }

    /// Remembers how a job ended; `seen` if somebody was there to see it.
    pub fn ended(&self, words: &str, seen: bool) -> io::Result<()> {
        let record = serde_json::json!({"time": clock::unix_seconds(), "outcome": words, "seen": seen});
        self.write("last-run.json", &record)
    }

    /// How the last job ended, if nobody saw it; after this call somebody has.
    #[must_use]
    pub fn unseen_end(&self) -> Option<String> {
        let text = fs::read(self.dir.join("last-run.json")).ok()?;
        let record: serde_json::Value = serde_json::from_slice(&text).ok()?;
        let words = record["outcome"].as_str().filter(|_| record["seen"] == false)?.to_owned();
        // If this fails it is told once more.
        let _ = self.ended(&words, true);
        Some(words)
    }

    fn write(&self, name: &str, value: &serde_json::Value) -> io::Result<()> {
        fs::create_dir_all(&self.dir)?;
        let draft = self.dir.join(format!("{name}.part"));
        fs::write(&draft, value.to_string())?;
        fs::rename(draft, self.dir.join(name))
    }
}

/// The names start with the time, so their order is that of age.
fn forget_oldest(newest: &Path, most: usize) -> io::Result<()> {
    let Some(dir) = newest.parent() else { return Ok(()) };
    let mut files: Vec<PathBuf> = fs::read_dir(dir)?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension() == newest.extension())
        .collect();
    files.sort();
    let too_many = files.len().saturating_sub(most);
    files[..too_many].iter().try_for_each(fs::remove_file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flash::FIRMWARE_BASE;

    #[test]
    fn recent_images_come_last_first_and_a_broken_file_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let record = Record { dir: dir.path().join("state") };
        assert_eq!(record.recent(), Vec::<PathBuf>::new());
        for name in ["a", "b", "c", "a", "d", "e", "f"] {
            record.used(Path::new(name)).unwrap();
        }
        assert_eq!(record.recent(), ["f", "e", "d", "a", "c"].map(PathBuf::from));
        fs::write(dir.path().join("state/recent.json"), b"[1, {").unwrap();
        assert_eq!(record.recent(), Vec::<PathBuf>::new());
    }

    #[test]
    fn an_end_that_nobody_saw_is_told_once() {
        let dir = tempfile::tempdir().unwrap();
        let record = Record { dir: dir.path().to_owned() };
        assert_eq!(record.unseen_end(), None);
        record.ended("Flashed", true).unwrap();
        assert_eq!(record.unseen_end(), None);
        record.ended("Flashed", false).unwrap();
        assert_eq!(record.unseen_end().as_deref(), Some("Flashed"));
        assert_eq!(record.unseen_end(), None);
    }

    #[test]
    fn the_last_copies_are_kept_without_their_blank_tail() {
        let dir = tempfile::tempdir().unwrap();
        let record = Record { dir: dir.path().join("state") };
        let mut data = vec![7; 3000];
        data.resize(5000, 0xFF);
        let path = record.keep(&Segment { address: FIRMWARE_BASE, data }, "../33813387\u{1b}3034").unwrap();
        assert!(path.starts_with(dir.path().join("state/undo/338133873034")), "{}", path.display());
        assert_eq!(fs::read(&path).unwrap(), vec![7; 3000]);
        let folder = path.parent().unwrap();
        for n in 0..7 {
            fs::write(folder.join(format!("000000000{n}-08004000.bin")), [n]).unwrap();
        }
        forget_oldest(&path, COPIES).unwrap();
        let left = fs::read_dir(folder).unwrap().count();
        assert_eq!(left, COPIES);
        assert!(path.exists(), "the newest is among them");
    }
}
