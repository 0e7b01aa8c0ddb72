//! Lets the instances of cfdfu on this computer see which ports the other instances are using.
//!
//! Each instance writes a file and, on Unix, keeps it locked while its job is running. The kernel releases the lock
//! when a process dies, so a stale file is recognised even if its process id has been reused.

use std::collections::HashSet;
use std::fmt;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{JSON_MAX, StateDir, is_older, read};
use crate::job::{Event, WaitFor};
use crate::usb::Location;
use crate::usb::descriptor::clean;

/// The folder of the instance files.
const RUNS: &str = "runs";
/// Minimum time between two progress updates.
const UPDATE_INTERVAL: Duration = Duration::from_millis(250);
/// Minimum length of an instance file in bytes. The file is updated in place with a single write, because a replaced
/// file would lose its lock. Shorter text is padded with spaces to overwrite the rest of the previous text.
const LEN: usize = 512;
/// Unlocked files older than this many seconds are stale. A newer file may belong to an instance that has not locked
/// it yet.
const STALE: u64 = 2;

/// What another instance of cfdfu on this computer reports about its job.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunningInstance {
    pub pid: u32,
    /// The port of the instance's device, such as `1-1.2`; empty while the instance waits for a device.
    pub port: String,
    /// The current phase, such as `write`; empty before the first phase.
    pub phase: String,
    /// The progress of the current phase, in percent.
    pub percent: u8,
}

impl fmt::Display for RunningInstance {
    /// Writes, for example, `Another cfdfu is using port 1-1.2: writing, 42 % (pid 4711)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let RunningInstance { pid, port, phase, percent } = self;
        match (port.is_empty(), phase.is_empty()) {
            (true, _) => write!(f, "Another cfdfu is waiting for a Crazyflie (pid {pid})"),
            (false, true) => write!(f, "Another cfdfu is using port {port} (pid {pid})"),
            (false, false) => {
                let phase = in_progress(phase);
                write!(f, "Another cfdfu is using port {port}: {phase}, {percent} % (pid {pid})")
            }
        }
    }
}

/// Turns the name of a phase, such as `write`, into the form used in a sentence, such as `writing`. A newer version of
/// cfdfu may have other phases.
fn in_progress(phase: &str) -> &str {
    match phase {
        "compare" => "comparing",
        "erase" => "erasing",
        "write" => "writing",
        "verify" => "verifying",
        "read" => "reading",
        other => other,
    }
}

/// Announces this instance's job to other instances, in a file that is updated a few times a second and removed after
/// the job.
pub(crate) struct Announcement {
    record: Option<StateDir>,
    work: RunningInstance,
    /// When the file was last written; `None` while there is nothing to announce.
    announced: Option<Duration>,
    file: Option<(PathBuf, File)>,
    /// Distinguishes the files of jobs that run at the same time in the same process.
    number: usize,
}

impl Announcement {
    /// Creates an announcement without a job. Without a state directory, no job is ever announced.
    pub(crate) fn new(record: Option<StateDir>) -> Announcement {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let work = RunningInstance { pid: std::process::id(), ..RunningInstance::default() };
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        Announcement { record, work, announced: None, file: None, number }
    }

    /// Updates the announcement from a job's events, starting when the job waits for a drone or has selected one.
    /// Simulated devices are not announced.
    pub(crate) fn follow(&mut self, now: Duration, event: &Event) {
        match event {
            Event::Waiting { what, limit }
                if *what == WaitFor::Crazyflie && !limit.is_zero() && self.announced.is_none() =>
            {
                self.announce(now);
            }
            Event::Device(device) if !device.simulated => {
                self.work.port = device.location.to_string();
                self.announce(now);
            }
            Event::Progress { phase, done, total } if !self.work.port.is_empty() => {
                let percent = (done.saturating_mul(100) / (*total).max(1)).min(100);
                let is_new_phase = self.work.phase != phase.json_name();
                phase.json_name().clone_into(&mut self.work.phase);
                self.work.percent = u8::try_from(percent).unwrap_or(100);
                if is_new_phase
                    || self.announced.is_none_or(|last| now.saturating_sub(last) >= UPDATE_INTERVAL)
                {
                    self.announce(now);
                }
            }
            Event::Finished(_) => self.withdraw(),
            _ => {}
        }
    }

    fn announce(&mut self, now: Duration) {
        let Some(record) = &self.record else { return };
        self.announced = Some(now);
        if self.file.is_none() {
            self.file = record.open_run(self.work.pid, self.number).ok();
        }
        // A failure to announce a job must not stop the job.
        if let Some((_, file)) = &self.file {
            let _ = write_in_place(file, &self.work);
        }
    }

    fn withdraw(&mut self) {
        self.announced = None;
        self.work = RunningInstance { pid: self.work.pid, ..RunningInstance::default() };
        if let Some((path, _file)) = self.file.take() {
            let _ = fs::remove_file(path);
        }
    }
}

impl Drop for Announcement {
    fn drop(&mut self) {
        self.withdraw();
    }
}

impl StateDir {
    /// Creates and locks this instance's file, and removes stale files.
    fn open_run(&self, pid: u32, number: usize) -> io::Result<(PathBuf, File)> {
        fs::create_dir_all(self.dir.join(RUNS))?;
        let _ = self.other_instances();
        let path = self.dir.join(RUNS).join(format!("{}-{pid}-{number}.json", host()));
        let file = File::options().create(true).truncate(false).write(true).open(&path)?;
        lock(&file)?;
        Ok((path, file))
    }

    /// Returns the other instance that is using this port, if any.
    pub(crate) fn instance_on(&self, port: &Location) -> Option<RunningInstance> {
        let port = port.to_string();
        self.other_instances().into_iter().find(|work| work.port == port)
    }

    /// Returns the ports that other instances are using.
    pub(crate) fn used_ports(&self) -> HashSet<Location> {
        self.other_instances().iter().filter_map(|work| work.port.parse().ok()).collect()
    }

    /// Returns the other instances on this computer, sorted by process id. Removes stale files.
    pub(crate) fn other_instances(&self) -> Vec<RunningInstance> {
        let Ok(entries) = fs::read_dir(self.dir.join(RUNS)) else { return Vec::new() };
        let prefix = format!("{}-", host());
        let mut others = Vec::new();
        for path in entries.filter_map(|entry| Some(entry.ok()?.path())) {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            // Other computers, whose ports have the same names, may share this home directory.
            let pid =
                name.strip_prefix(&prefix).and_then(|rest| rest.strip_suffix(".json")?.split('-').next());
            let Some(pid) = pid.and_then(|pid| pid.parse().ok()) else { continue };
            if pid == std::process::id() {
                continue;
            }
            if !is_locked(&path, pid) {
                if is_older(&path, STALE) {
                    let _ = fs::remove_file(&path);
                }
                continue;
            }
            let work =
                read(&path, JSON_MAX).and_then(|text| serde_json::from_slice::<RunningInstance>(&text).ok());
            if let Some(work) = work {
                others.push(RunningInstance {
                    pid,
                    port: clean(&work.port),
                    phase: clean(&work.phase),
                    ..work
                });
            }
        }
        others.sort_by_key(|work| work.pid);
        others
    }
}

/// Returns the name of this computer, reduced to characters that are safe in a file name.
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

/// Locks a file with `flock`: the file locks of the standard library require Rust 1.89, but cfdfu supports 1.88.
#[cfg(unix)]
fn lock(file: &File) -> io::Result<()> {
    Ok(rustix::fs::flock(file, rustix::fs::FlockOperation::NonBlockingLockExclusive)?)
}

/// Returns whether the instance that wrote this file is still running. If the file system does not support locks,
/// checks whether the instance's process exists.
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
#[allow(clippy::unnecessary_wraps, reason = "same signature as on Unix")]
fn lock(_: &File) -> io::Result<()> {
    Ok(())
}

/// Returns whether the file was updated within the last minute. Without file locks, an older file counts as stale.
#[cfg(not(unix))]
fn is_locked(path: &Path, _: u32) -> bool {
    const MINUTE: u64 = 60;
    !is_older(path, MINUTE)
}

#[cfg(test)]
#[cfg(unix)]
mod tests {
    use super::*;

    /// Imitates another instance: writes and locks a file for this process id.
    fn other_instance(record: &StateDir, pid: u32, work: &RunningInstance) -> io::Result<(PathBuf, File)> {
        let (path, file) = record.open_run(pid, 0)?;
        write_in_place(&file, work)?;
        Ok((path, file))
    }

    #[test]
    fn an_instance_is_visible_to_others_while_its_file_is_locked() {
        let dir = tempfile::tempdir().unwrap();
        let record = StateDir { dir: dir.path().to_owned() };
        let runs = || fs::read_dir(dir.path().join(RUNS)).unwrap().count();
        let work = RunningInstance { pid: 7, port: "1-2".into(), phase: "write".into(), percent: 42 };
        // The process with this id is alive, so only the lock can show that the file is stale.
        let parent = std::os::unix::process::parent_id();
        let (path, file) = other_instance(&record, parent, &work).unwrap();
        assert_eq!(record.other_instances(), [RunningInstance { pid: parent, ..work.clone() }]);
        assert!(record.other_instances()[0].to_string().contains("using port 1-2: writing, 42 %"));
        // Shorter text overwrites longer text in place. This instance's own file is not listed.
        write_in_place(&file, &RunningInstance { phase: String::new(), ..work.clone() }).unwrap();
        assert!(record.other_instances()[0].to_string().contains("using port 1-2 ("));
        let own = other_instance(&record, std::process::id(), &work).unwrap();
        assert_eq!(record.other_instances().len(), 1);
        // When an instance is killed, its lock is released, but the file remains until it is old enough to be stale.
        // (The lock may briefly outlive the drop: a child process of another test has the file open between fork and
        // exec.)
        drop((file, own));
        while !record.other_instances().is_empty() {
            std::thread::yield_now();
        }
        assert_eq!(runs(), 2);
        let old = std::time::SystemTime::now() - Duration::from_secs(60);
        for entry in fs::read_dir(dir.path().join(RUNS)).unwrap() {
            File::options().write(true).open(entry.unwrap().path()).unwrap().set_modified(old).unwrap();
        }
        assert_eq!(record.other_instances(), []);
        assert!(!path.exists());
        // A folder, a file whose name has a different format, and a file from a different computer are ignored.
        fs::create_dir(dir.path().join(RUNS).join(format!("{}-9.json", host()))).unwrap();
        fs::write(dir.path().join("runs/x.json"), b"{").unwrap();
        fs::write(dir.path().join("runs/otherhost-9.json"), b"{").unwrap();
        assert_eq!(record.other_instances(), []);
    }
}
