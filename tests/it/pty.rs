//! Runs the real binary or a shell in a pseudo-terminal, so that tests can press keys and read the screen.
#![cfg(unix)]

use std::io::{Read, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use portable_pty::{Child, CommandBuilder, MasterPty, PtySize, native_pty_system};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::support::{SEED_LEN, firmware};

/// The time to wait before confirming a plan, because the interface ignores keys until the plan has been shown for a
/// while.
pub const PLAN_DELAY: Duration = Duration::from_secs(1);
/// The timeout for each wait. A whole flash takes about 7 s.
pub const TIMEOUT: Duration = Duration::from_secs(120);

pub struct Session {
    pub child: Box<dyn Child + Send + Sync>,
    pub master: Option<Box<dyn MasterPty + Send>>,
    pub keys: Option<Box<dyn Write + Send>>,
    pub bytes: Arc<Mutex<Vec<u8>>>,
    pub size: (u16, u16),
    pub dir: TempDir,
    /// Stops the reader thread after its next read. Until then, the thread keeps the terminal open.
    pub closing: Arc<AtomicBool>,
}

impl Session {
    pub fn start(arguments: &[&str], env: &[(&str, &str)]) -> Session {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("cf2.bin"), firmware("2026.08", SEED_LEN)).unwrap();
        let mut command = CommandBuilder::new(assert_cmd::cargo::cargo_bin!("cfdfu"));
        command.args(arguments);
        command.cwd(dir.path());
        // Hide the settings and the earlier jobs of the user who runs the tests.
        let home = dir.path().join("home").display().to_string();
        let folders = ["XDG_CONFIG_HOME", "XDG_STATE_HOME"].map(|name| (name, home.as_str()));
        let terminal = [("TERM", "xterm-256color"), ("LC_ALL", "C.UTF-8")];
        for (name, value) in folders.iter().chain(&terminal).chain(env) {
            command.env(name, value);
        }
        if !env.iter().any(|(name, _)| *name == "NO_COLOR") {
            command.env_remove("NO_COLOR");
        }
        Session::spawn(command, dir)
    }

    /// Runs `command` in a new pseudo-terminal, and keeps `dir` until the session ends.
    pub fn spawn(command: CommandBuilder, dir: TempDir) -> Session {
        let size = PtySize { rows: 24, cols: 80, pixel_width: 0, pixel_height: 0 };
        let pair = native_pty_system().openpty(size).unwrap();
        let child = pair.slave.spawn_command(command).unwrap();
        drop(pair.slave);
        let mut reader = pair.master.try_clone_reader().unwrap();
        let keys = pair.master.take_writer().unwrap();
        let bytes = Arc::new(Mutex::new(Vec::new()));
        let closing = Arc::new(AtomicBool::new(false));
        let (sink, close) = (Arc::clone(&bytes), Arc::clone(&closing));
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(n @ 1..) = reader.read(&mut buffer) {
                sink.lock().unwrap().extend_from_slice(&buffer[..n]);
                if close.load(Ordering::SeqCst) {
                    break;
                }
            }
        });
        Session { child, master: Some(pair.master), keys: Some(keys), bytes, size: (24, 80), dir, closing }
    }

    /// Starts the interface with an image and a drone in DFU mode, and confirms the plan.
    pub fn flashing(scenario: &str) -> Session {
        let mut session = Session::start(&["cf2.bin", &format!("--demo={scenario}")], &[]);
        session.wait_for("in DFU mode");
        session.wait_for("243,176 bytes");
        session.press("f");
        session.confirm_plan();
        session
    }

    /// Waits for the plan and confirms it.
    pub fn confirm_plan(&mut self) {
        self.wait_for("Nothing is written until you confirm");
        thread::sleep(PLAN_DELAY);
        self.press("w");
    }

    pub fn press(&mut self, keys: &str) {
        let writer = self.keys.as_mut().unwrap();
        writer.write_all(keys.as_bytes()).unwrap();
        writer.flush().unwrap();
    }

    /// Sends a signal without the `kill` program, which is not installed on every machine.
    pub fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.process_id().unwrap()).unwrap();
        kill_process(Pid::from_raw(pid).unwrap(), signal).unwrap();
    }

    pub fn sent(&self) -> usize {
        self.bytes.lock().unwrap().len()
    }

    pub fn parser(&self) -> vt100::Parser {
        let mut parser =
            vt100::Parser::new(self.size.0.try_into().unwrap(), self.size.1.try_into().unwrap(), 0);
        parser.process(&self.bytes.lock().unwrap());
        parser
    }

    pub fn screen(&self) -> String {
        self.parser().screen().contents()
    }

    /// Waits until the screen shows these words, and returns the screen.
    pub fn wait_for(&self, words: &str) -> String {
        let start = Instant::now();
        loop {
            let screen = self.screen();
            if screen.contains(words) {
                return screen;
            }
            assert!(start.elapsed() < TIMEOUT, "{words:?} never appeared:\n{screen}");
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits until the program ends and returns its exit status.
    pub fn wait_for_exit(&mut self) -> u32 {
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                thread::sleep(Duration::from_millis(100));
                return status.exit_code();
            }
            assert!(start.elapsed() < TIMEOUT, "the program is still running");
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Checks that the alternate screen and bracketed paste are off and that the cursor is visible.
    pub fn assert_terminal_restored(&self) {
        let parser = self.parser();
        let screen = parser.screen();
        assert!(!screen.alternate_screen() && !screen.hide_cursor() && !screen.bracketed_paste());
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let _ = self.child.kill();
    }
}

/// Returns the processor time that a process has used, in hundredths of a second.
pub fn processor_time(pid: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let after = stat.rsplit(')').next().unwrap_or_default().to_owned();
    after.split_whitespace().skip(11).take(2).filter_map(|n| n.parse::<u64>().ok()).sum::<u64>()
}
