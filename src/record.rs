//! What is remembered between runs, in the user's state directory: copies of what was overwritten.
//!
//! Nothing is written until there is something to remember, and nothing that is asked of this file can stop
//! a flash: its errors are for the log.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use directories::ProjectDirs;

use crate::clock;
use crate::flash::check::Segment;
use crate::flash::plan::BLANK;

/// Copies of one drone's flash that are kept.
const COPIES: usize = 5;

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
        let dir = self.dir.join("undo").join(if serial.is_empty() { "unknown" } else { &serial });
        fs::create_dir_all(&dir)?;
        let path = dir.join(format!("{:010}-{:08X}.bin", clock::unix_seconds(), before.address.0));
        let draft = path.with_extension("part");
        let mut file = File::create(&draft)?;
        file.write_all(&before.data[..len])?;
        file.sync_all()?;
        fs::rename(&draft, &path)?;
        forget_oldest(&dir)?;
        Ok(path)
    }
}

/// The names start with the time, so their order is that of age.
fn forget_oldest(dir: &Path) -> io::Result<()> {
    let mut copies: Vec<PathBuf> = fs::read_dir(dir)?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "bin"))
        .collect();
    copies.sort();
    let too_many = copies.len().saturating_sub(COPIES);
    copies[..too_many].iter().try_for_each(fs::remove_file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flash::FIRMWARE_BASE;

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
        forget_oldest(folder).unwrap();
        let left = fs::read_dir(folder).unwrap().count();
        assert_eq!(left, COPIES);
        assert!(path.exists(), "the newest is among them");
    }
}
