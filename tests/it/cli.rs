//! Runs the real binary in a temporary folder with piped input and output, for every test that needs no terminal, shell
//! or signal. Sets a timeout and returns the output as text or JSON.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use assert_cmd::Command;
use serde_json::Value;
use tempfile::TempDir;

use crate::support::{SEED_LEN, firmware};

/// A command that is still running after this time is killed. A complete flash takes about 7 s in real time.
const PATIENCE: Duration = Duration::from_secs(60);

pub struct Folder(pub TempDir);

impl Folder {
    pub fn new() -> Folder {
        Folder(tempfile::tempdir().unwrap())
    }

    /// Creates a folder that contains a valid image, `cf2.bin`.
    pub fn with_image() -> Folder {
        let folder = Folder::new();
        folder.write_file("cf2.bin", firmware("2026.08", SEED_LEN));
        folder
    }

    pub fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.0.path().join(name)
    }

    pub fn write_file(&self, name: impl AsRef<Path>, bytes: impl AsRef<[u8]>) {
        fs::write(self.path(name), bytes).unwrap();
    }

    /// Returns a command that runs the binary in this folder with the words of `line` as its arguments.
    pub fn cfdfu(&self, line: &str) -> Line {
        let mut command = Command::cargo_bin("cfdfu").unwrap();
        command.current_dir(self.0.path()).timeout(PATIENCE);
        Line(command).args(line.split_whitespace())
    }

    /// Runs the command on the demo's fast clock.
    pub fn run(&self, line: &str) -> Ran {
        self.cfdfu(line).fast().run()
    }

    pub fn json(&self, line: &str) -> Ran {
        self.cfdfu(line).arg("--json").fast().run()
    }
}

/// A command line that has not been run yet.
pub struct Line(Command);

impl Line {
    pub fn arg(self, argument: impl AsRef<OsStr>) -> Line {
        self.args([argument])
    }

    pub fn args<A: AsRef<OsStr>>(mut self, arguments: impl IntoIterator<Item = A>) -> Line {
        self.0.args(arguments);
        self
    }

    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Line {
        self.0.env(name, value);
        self
    }

    /// Sets standard input, which is empty by default.
    pub fn input(mut self, bytes: impl Into<Vec<u8>>) -> Line {
        self.0.write_stdin(bytes);
        self
    }

    /// Runs the demo on a fast clock instead of in real time.
    pub fn fast(self) -> Line {
        self.arg("--demo-fast")
    }

    pub fn run(mut self) -> Ran {
        let output = self.0.output().unwrap();
        Ran {
            code: output.status.code().unwrap_or(-1),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

/// The exit status and the output of a command.
pub struct Ran {
    /// The exit status, or -1 if a signal ended the command.
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Ran {
    /// Checks that the command succeeded, and returns its standard output.
    pub fn success(self) -> String {
        assert_eq!(self.code, 0, "{}", self.err);
        self.out
    }

    /// Parses each line of standard output as JSON.
    pub fn objects(&self) -> Vec<Value> {
        self.out
            .lines()
            .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
            .collect()
    }

    /// Returns the last JSON object with this `event`.
    pub fn object(&self, event: &str) -> Value {
        let last = self.objects().into_iter().rfind(|object| object["event"] == event);
        last.unwrap_or_else(|| panic!("no {event:?} in: {}{}", self.out, self.err))
    }

    /// Returns standard output followed by standard error.
    pub fn combined_output(&self) -> String {
        format!("{}{}", self.out, self.err)
    }
}
