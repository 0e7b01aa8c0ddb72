//! What the runs of cfdfu on this computer tell each other: who is at work on which port. The file of a run is locked as
//! long as it lives, so the file of a killed run is ignored even if its process number is in use again.

use std::fmt;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{JSON_MAX, StateDir, is_older, read};
use crate::job::{Event, WaitFor};
use crate::usb::Location;
use crate::usb::descriptor::clean;

/// The folder of these files.
const RUNS: &str = "runs";
/// At most one update in this time.
const TELL: Duration = Duration::from_millis(250);
/// The length of a file: it is written in one piece and in place, since its lock stays with it.
const LEN: usize = 512;
/// A file that is not locked was left, unless it is so new that its run may be about to lock it; in seconds.
const NEW: u64 = 2;

/// A job that another cfdfu on this computer is at, as far as it tells.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunningInstance {
    pub pid: u32,
    /// Where its device is plugged in, as in `1-1.2`; empty while it waits for one.
    pub place: String,
    /// What it does, as in `write`; empty before it does anything.
    pub doing: String,
    /// How much of that is done.
    pub percent: u8,
}

impl fmt::Display for RunningInstance {
    /// As in `cfdfu (process 4711) is at work on port 1-1.2: write 42 %`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let RunningInstance { pid, place, doing, percent } = self;
        match (place.is_empty(), doing.is_empty()) {
            (true, _) => write!(f, "cfdfu (process {pid}) waits for a Crazyflie"),
            (false, true) => write!(f, "cfdfu (process {pid}) is at work on port {place}"),
            (false, false) => {
                write!(f, "cfdfu (process {pid}) is at work on port {place}: {doing} {percent} %")
            }
        }
    }
}

/// What this run does, written for other runs a few times a second and removed when it is over.
pub(crate) struct Presence {
    record: Option<StateDir>,
    work: RunningInstance,
    /// When it was last written; `None` while there is nothing to write.
    told: Option<Duration>,
    file: Option<(PathBuf, File)>,
}

impl Presence {
    /// With nothing to announce yet, in this state directory if there is one.
    pub(crate) fn new(record: Option<StateDir>) -> Presence {
        let work = RunningInstance { pid: std::process::id(), ..RunningInstance::default() };
        Presence { record, work, told: None, file: None }
    }

    /// Follows a job by its events, from the moment on that it waits for its drone or chooses it. A device made of software
    /// on the demo's bus is nobody's business.
    pub(crate) fn follow(&mut self, now: Duration, event: &Event) {
        match event {
            Event::Waiting { what, limit }
                if *what == WaitFor::Crazyflie && !limit.is_zero() && self.told.is_none() =>
            {
                self.tell(now);
            }
            Event::Device(device) if !device.simulated => {
                self.work.place = device.location.to_string();
                self.tell(now);
            }
            Event::Progress { phase, done, total } if !self.work.place.is_empty() => {
                let percent = (done.saturating_mul(100) / (*total).max(1)).min(100);
                let other = self.work.doing != phase.word();
                phase.word().clone_into(&mut self.work.doing);
                self.work.percent = u8::try_from(percent).unwrap_or(100);
                if other || self.told.is_none_or(|told| now.saturating_sub(told) >= TELL) {
                    self.tell(now);
                }
            }
            Event::Finished(_) => self.over(),
            _ => {}
        }
    }

    fn tell(&mut self, now: Duration) {
        let Some(record) = &self.record else { return };
        self.told = Some(now);
        if self.file.is_none() {
            self.file = record.open_run(self.work.pid).ok();
        }
        // An unannounced flash is better than none.
        if let Some((_, file)) = &self.file {
            let _ = write_in_place(file, &self.work);
        }
    }

    fn over(&mut self) {
        self.told = None;
        self.work = RunningInstance { pid: self.work.pid, ..RunningInstance::default() };
        if let Some((path, _file)) = self.file.take() {
            let _ = fs::remove_file(path);
        }
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        self.over();
    }
}

impl StateDir {
    /// This run's file, locked. What runs have left that are no more goes.
    fn open_run(&self, pid: u32) -> io::Result<(PathBuf, File)> {
        fs::create_dir_all(self.dir.join(RUNS))?;
        let _ = self.others_at_work();
        let path = self.dir.join(RUNS).join(format!("{}-{pid}.json", host()));
        let file = File::options().create(true).truncate(false).write(true).open(&path)?;
        lock(&file)?;
        Ok((path, file))
    }

    /// The other run that is at work on this port.
    pub(crate) fn at_work_on(&self, port: &Location) -> Option<RunningInstance> {
        let place = port.to_string();
        self.others_at_work().into_iter().find(|work| work.place == place)
    }

    /// What other runs on this computer are at, in the order of their numbers.
    pub(crate) fn others_at_work(&self) -> Vec<RunningInstance> {
        let Ok(entries) = fs::read_dir(self.dir.join(RUNS)) else { return Vec::new() };
        let own = format!("{}-", host());
        let mut others = Vec::new();
        for path in entries.filter_map(|entry| Some(entry.ok()?.path())) {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            // A home may be shared with other computers, whose ports are called the same.
            let Some(pid) = name.strip_prefix(&own).and_then(|rest| rest.strip_suffix(".json")?.parse().ok())
            else {
                continue;
            };
            if pid == std::process::id() {
                continue;
            }
            if !is_locked(&path, pid) {
                if is_older(&path, NEW) {
                    let _ = fs::remove_file(&path);
                }
                continue;
            }
            let work =
                read(&path, JSON_MAX).and_then(|text| serde_json::from_slice::<RunningInstance>(&text).ok());
            if let Some(work) = work {
                others.push(RunningInstance {
                    pid,
                    place: clean(&work.place),
                    doing: clean(&work.doing),
                    ..work
                });
            }
        }
        others.sort_by_key(|work| work.pid);
        others
    }
}

/// The name of this computer, as far as it can be part of a file's name.
fn host() -> String {
    #[cfg(unix)]
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    #[cfg(not(unix))]
    let name = std::env::var("COMPUTERNAME").unwrap_or_default();
    name.chars().filter(char::is_ascii_alphanumeric).take(32).collect()
}

fn write_in_place(mut file: &File, work: &RunningInstance) -> io::Result<()> {
    use std::io::{Seek, Write};
    let mut text = serde_json::json!(work).to_string().into_bytes();
    text.resize(text.len().max(LEN), b' ');
    file.rewind()?;
    file.write_all(&text)
}

/// The standard library's own file locks need Rust 1.89, and 1.88 is promised.
#[cfg(unix)]
fn lock(file: &File) -> io::Result<()> {
    Ok(rustix::fs::flock(file, rustix::fs::FlockOperation::NonBlockingLockExclusive)?)
}

/// Whether the run lives that this file is of. Where files cannot be locked, its number is all there is to go by.
#[cfg(unix)]
fn is_locked(path: &Path, pid: u32) -> bool {
    use rustix::fs::{FlockOperation, flock};
    use rustix::io::Errno;
    use rustix::process::{Pid, test_kill_process};
    if !path.symlink_metadata().is_ok_and(|it| it.is_file()) {
        return false;
    }
    let Ok(file) = File::open(path) else { return false };
    match flock(&file, FlockOperation::NonBlockingLockShared) {
        Ok(()) => false,
        Err(Errno::WOULDBLOCK) => true,
        Err(_) => {
            let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
            pid.is_some_and(|pid| test_kill_process(pid) != Err(Errno::SRCH))
        }
    }
}

#[cfg(not(unix))]
#[allow(clippy::unnecessary_wraps, reason = "as where there are locks")]
fn lock(_: &File) -> io::Result<()> {
    Ok(())
}

/// A live run updates its file a few times a second, so an older file was left behind.
#[cfg(not(unix))]
fn is_locked(path: &Path, _: u32) -> bool {
    const MINUTE: u64 = 60;
    !is_older(path, MINUTE)
}

#[cfg(test)]
#[cfg(unix)]
mod tests {
    use super::*;

    /// Another process, as far as files can tell: a number of its own, and its lock on its file.
    fn other(record: &StateDir, pid: u32, work: &RunningInstance) -> io::Result<(PathBuf, File)> {
        let (path, file) = record.open_run(pid)?;
        write_in_place(&file, work)?;
        Ok((path, file))
    }

    #[test]
    fn a_run_is_seen_by_others_as_long_as_it_lives_whatever_its_number() {
        let dir = tempfile::tempdir().unwrap();
        let record = StateDir { dir: dir.path().to_owned() };
        let runs = || fs::read_dir(dir.path().join(RUNS)).unwrap().count();
        let work = RunningInstance { pid: 7, place: "1-2".into(), doing: "write".into(), percent: 42 };
        // The number of a process that lives for certain: that alone is not believed.
        let parent = std::os::unix::process::parent_id();
        let (path, file) = other(&record, parent, &work).unwrap();
        assert_eq!(record.others_at_work(), [RunningInstance { pid: parent, ..work.clone() }]);
        assert!(record.others_at_work()[0].to_string().ends_with("on port 1-2: write 42 %"));
        // Shorter than before, in place; and this run's own is not another's.
        write_in_place(&file, &RunningInstance { doing: String::new(), ..work.clone() }).unwrap();
        assert!(record.others_at_work()[0].to_string().ends_with("on port 1-2"));
        let own = other(&record, std::process::id(), &work).unwrap();
        assert_eq!(record.others_at_work().len(), 1);
        // Killed: the lock is gone, the file is not, and is removed once it is not new. (A child of another test has the file
        // open from its fork to its exec.)
        drop((file, own));
        while !record.others_at_work().is_empty() {
            std::thread::yield_now();
        }
        assert_eq!(runs(), 2);
        let old = std::time::SystemTime::now() - Duration::from_secs(60);
        for entry in fs::read_dir(dir.path().join(RUNS)).unwrap() {
            File::options().write(true).open(entry.unwrap().path()).unwrap().set_modified(old).unwrap();
        }
        assert_eq!(record.others_at_work(), []);
        assert!(!path.exists());
        // What is not a file, what is not a run's, and what another computer has put there.
        fs::create_dir(dir.path().join(RUNS).join(format!("{}-9.json", host()))).unwrap();
        fs::write(dir.path().join("runs/x.json"), b"{").unwrap();
        fs::write(dir.path().join("runs/otherhost-9.json"), b"{").unwrap();
        assert_eq!(record.others_at_work(), []);
    }
}
