//! Writing a file: whole or not at all, and never over one that exists unless that is asked for.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::report::{Exit, Problem, ProblemKind};

/// A file to come: written beside its place under another name, then moved there.
pub(super) struct Output {
    path: PathBuf,
    draft: PathBuf,
    file: File,
    replace: bool,
}

impl Output {
    /// Makes sure that the file can be made, before anything costly is done.
    pub(super) fn create(path: &Path, replace: bool) -> Result<Output, Problem> {
        if !replace && path.symlink_metadata().is_ok() {
            return Err(problem(path, "it exists already", "Name another file, or add --force."));
        }
        if path.metadata().is_ok_and(|existing| !existing.is_file()) {
            return Err(problem(path, "it is not a regular file", "Name another file."));
        }
        let mut name =
            path.file_name().ok_or_else(|| problem(path, "is not a file name", "Name a file."))?.to_owned();
        name.push(format!(".{}.part", std::process::id()));
        let draft = path.with_file_name(name);
        let file = OpenOptions::new().write(true).create_new(true).open(&draft);
        let file = file.map_err(|error| failed(path, &error))?;
        Ok(Output { path: path.to_owned(), draft, file, replace })
    }

    /// Writes the content and puts the file in its place.
    pub(super) fn write(mut self, bytes: &[u8]) -> Result<(), Problem> {
        let written = self.file.write_all(bytes).and_then(|()| self.file.sync_all());
        written.and_then(|()| self.put_in_place()).map_err(|error| failed(&self.path, &error))
    }

    /// A hard link fails where a file has come up in the meantime; renaming would replace it.
    fn put_in_place(&self) -> io::Result<()> {
        if self.replace {
            return fs::rename(&self.draft, &self.path);
        }
        match fs::hard_link(&self.draft, &self.path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                // A file system without links (FAT on a USB stick).
                if self.path.symlink_metadata().is_ok() {
                    return Err(io::ErrorKind::AlreadyExists.into());
                }
                fs::rename(&self.draft, &self.path)
            }
            other => other,
        }
    }
}

impl Drop for Output {
    /// Whatever happened, no draft is left behind.
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.draft);
    }
}

fn failed(path: &Path, error: &io::Error) -> Problem {
    problem(path, &error.to_string(), "Name a file in a folder that you may write to, with room for 1 MiB.")
}

fn problem(path: &Path, what: &str, advice: &str) -> Problem {
    Problem::new(Exit::CannotCreate, ProblemKind::OutputFile, what)
        .about(path.display().to_string())
        .advise(advice)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_made_whole_and_not_over_another() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("backup.bin");
        Output::create(&path, false).unwrap().write(b"one").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"one");
        assert!(Output::create(&path, false).is_err());
        Output::create(&path, true).unwrap().write(b"two").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "no draft is left");
    }

    #[test]
    fn a_file_that_came_up_meanwhile_is_not_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("backup.bin");
        let output = Output::create(&path, false).unwrap();
        fs::write(&path, b"other").unwrap();
        assert_eq!(output.write(b"ours").unwrap_err().exit, Exit::CannotCreate);
        assert_eq!(fs::read(&path).unwrap(), b"other");
    }

    #[test]
    fn an_abandoned_file_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        drop(Output::create(&dir.path().join("backup.bin"), false).unwrap());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        assert!(Output::create(&dir.path().join("missing/backup.bin"), false).is_err());
    }
}
