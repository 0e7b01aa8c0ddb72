//! What is remembered between runs, in the user's state directory: copies of what was overwritten, the images
//! that were used, and how a job ended that nobody saw the end of.
//!
//! Nothing is written until there is something to remember, and nothing that is asked of this file can stop
//! a flash: its errors are for the log.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use directories::ProjectDirs;

use crate::clock;
use crate::job::{AtWork, Event};
use crate::usb::descriptor::clean;

/// The folder in which runs tell each other what they are at.
const RUNS: &str = "runs";
/// No oftener than this.
const TELL: Duration = Duration::from_millis(250);
/// Images that are remembered.
const RECENT: usize = 5;

mod undo;

pub use undo::{Begun, Kept, Target};

/// The state directory.
#[derive(Clone)]
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

    /// Keeps a file in this folder of the state directory, its name preceded by the time; of the files with
    /// the same ending the oldest go, so that `most` are left. Gives the new file.
    pub fn save(&self, folder: &Path, name: &str, bytes: &[u8], most: usize) -> io::Result<PathBuf> {
        let dir = self.dir.join(folder);
        fs::create_dir_all(&dir)?;
        let ending = Path::new(name).extension();
        let mut others = saved(&dir);
        // A clock that was set back, or runs behind until the network is there, does not make the newest the oldest.
        let newest = others.iter().filter_map(|path| time_of(path)).max();
        let after = newest.map_or(0, |time| time.saturating_add(1).min(9_999_999_999));
        others.retain(|path| path.extension() == ending);
        let path = dir.join(format!("{:010}-{name}", clock::unix_seconds().max(after)));
        let draft = path.with_extension("part");
        let written = File::create(&draft)
            .and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all()))
            .and_then(|()| fs::rename(&draft, &path));
        if let Err(error) = written {
            let _ = fs::remove_file(&draft);
            return Err(error);
        }
        // What cannot be removed, or is removed by another run, is no reason to fail: the file is kept.
        let too_many = (others.len() + 1).saturating_sub(most);
        others.drain(..too_many.min(others.len())).for_each(|old| drop(fs::remove_file(old)));
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

    /// Tells other runs what this one is at.
    fn tell_work(&self, work: &AtWork) -> io::Result<()> {
        fs::create_dir_all(self.dir.join(RUNS))?;
        self.write(&format!("{RUNS}/{}.json", work.pid), &serde_json::json!(work))
    }

    /// What other runs are at, in the order of their numbers. What one left that is no more goes.
    #[must_use]
    pub fn others_at_work(&self) -> Vec<AtWork> {
        let Ok(entries) = fs::read_dir(self.dir.join(RUNS)) else { return Vec::new() };
        let mut others = Vec::new();
        for path in entries.filter_map(|entry| Some(entry.ok()?.path())) {
            let work = fs::read(&path).ok().and_then(|text| serde_json::from_slice::<AtWork>(&text).ok());
            let draft = path.extension().is_some_and(|ending| ending == "part");
            match work {
                _ if is_old(&path) => drop(fs::remove_file(&path)),
                // It is about to be renamed.
                _ if draft => {}
                Some(work) if work.pid == std::process::id() => {}
                Some(work) if is_alive(work.pid) => {
                    others.push(AtWork { place: clean(&work.place), doing: clean(&work.doing), ..work });
                }
                _ => drop(fs::remove_file(&path)),
            }
        }
        others.sort_by_key(|work| work.pid);
        others
    }

    fn write(&self, name: &str, value: &serde_json::Value) -> io::Result<()> {
        fs::create_dir_all(&self.dir)?;
        // Another run may write the same file at the same time.
        let draft = self.dir.join(format!("{name}.{}.part", std::process::id()));
        let written =
            fs::write(&draft, value.to_string()).and_then(|()| fs::rename(&draft, self.dir.join(name)));
        if written.is_err() {
            let _ = fs::remove_file(&draft);
        }
        written
    }
}

/// Whether a file was last written so long ago that it is hardly the run that wrote it which has its number now: while it
/// works it writes a few times a second.
fn is_old(path: &Path) -> bool {
    const LONG: u64 = 3600;
    let written = path.metadata().and_then(|it| it.modified()).ok();
    let written = written.and_then(|time| time.duration_since(SystemTime::UNIX_EPOCH).ok());
    written.is_some_and(|written| clock::unix_seconds().saturating_sub(written.as_secs()) > LONG)
}

/// Whether there is such a process; where that cannot be asked, there is.
#[cfg(unix)]
fn is_alive(pid: u32) -> bool {
    use rustix::process::{Pid, test_kill_process};
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    pid.is_some_and(|pid| !matches!(test_kill_process(pid), Err(rustix::io::Errno::SRCH)))
}

#[cfg(not(unix))]
fn is_alive(_: u32) -> bool {
    true
}

/// What this run is at, told to others a few times a second; taken back when it is over.
pub struct Presence {
    record: Option<Record>,
    work: AtWork,
    /// When it was told last; `None` while there is nothing to tell.
    told: Option<Duration>,
}

impl Presence {
    /// With nothing to tell yet. The demo has nobody to tell.
    #[must_use]
    pub fn new(demo: bool) -> Presence {
        let record = if demo { None } else { Record::of_user() };
        Presence { record, work: AtWork { pid: std::process::id(), ..AtWork::default() }, told: None }
    }

    /// Follows a job by its events. A device made of software on the demo's bus is nobody's business.
    pub fn follow(&mut self, now: Duration, event: &Event) {
        match event {
            Event::Device(device) if !device.simulated => self.work.place = device.location.to_string(),
            Event::Progress { phase, done, total } if !self.work.place.is_empty() => {
                let percent = (done.saturating_mul(100) / (*total).max(1)).min(100);
                let percent = u8::try_from(percent).unwrap_or(100);
                let other = self.work.doing != phase.word();
                let due = self.told.is_none_or(|told| now.saturating_sub(told) >= TELL);
                if other || due {
                    self.work = AtWork { doing: phase.word().to_owned(), percent, ..self.work.clone() };
                    self.told = Some(now);
                    // Nobody is told then: no reason to stop.
                    let _ = self.record.as_ref().map(|record| record.tell_work(&self.work));
                }
            }
            Event::Finished(_) => self.over(),
            _ => {}
        }
    }

    fn over(&mut self) {
        if let (Some(record), Some(_)) = (&self.record, self.told.take()) {
            let _ = fs::remove_file(record.dir.join(format!("{RUNS}/{}.json", self.work.pid)));
        }
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        self.over();
    }
}

/// The files in a folder, the oldest first: their names start with the time.
fn saved(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten();
    let mut files: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    files.sort();
    files
}

/// The time in a name, in seconds since 1970.
fn time_of(path: &Path) -> Option<u64> {
    path.file_name()?.to_str()?.split_once('-')?.0.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn a_run_is_seen_by_others_until_it_is_over_or_dead() {
        let dir = tempfile::tempdir().unwrap();
        let record = || Record { dir: dir.path().to_owned() };
        let alive = AtWork {
            pid: std::os::unix::process::parent_id(),
            place: "1-2".into(),
            doing: "write".into(),
            percent: 42,
        };
        record().tell_work(&alive).unwrap();
        record().tell_work(&AtWork { pid: 0x3FFF_FFFF, ..alive.clone() }).unwrap();
        record().tell_work(&AtWork { pid: std::process::id(), ..alive.clone() }).unwrap();
        fs::write(dir.path().join("runs/x.json"), b"{").unwrap();
        assert_eq!(record().others_at_work(), std::slice::from_ref(&alive));
        assert_eq!(fs::read_dir(dir.path().join("runs")).unwrap().count(), 2, "what the dead left is gone");
        // Another process has the number of one that is long dead; a draft is nobody's run.
        let file = |name: &str| dir.path().join("runs").join(name);
        fs::copy(file(&format!("{}.json", alive.pid)), file("9.json.9.part")).unwrap();
        assert_eq!(record().others_at_work().len(), 1);
        let long_ago = SystemTime::now() - Duration::from_secs(7200);
        for entry in fs::read_dir(dir.path().join("runs")).unwrap() {
            File::options().write(true).open(entry.unwrap().path()).unwrap().set_modified(long_ago).unwrap();
        }
        assert_eq!(record().others_at_work(), []);
        assert_eq!(fs::read_dir(dir.path().join("runs")).unwrap().count(), 0);
        assert!(alive.to_string().ends_with("on port 1-2: write 42 %"));
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
}
