//! Writing a file: whole or not at all, and never over one that exists unless that is asked for.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use crate::report::{Exit, Problem, ProblemKind};

/// A file to come: written beside its place under another name, then moved there. Whatever happens, no draft is left.
pub(super) struct Output {
    path: PathBuf,
    draft: NamedTempFile,
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
        path.file_name().ok_or_else(|| problem(path, "is not a file name", "Name a file."))?;
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        let mut builder = tempfile::Builder::new();
        builder.prefix("cfdfu-").suffix(".part");
        #[cfg(unix)]
        builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
        let draft = builder.tempfile_in(folder.unwrap_or(Path::new(".")));
        let draft = draft.map_err(|error| failed(path, &error))?;
        Ok(Output { path: path.to_owned(), draft, replace })
    }

    /// Writes the content and puts the file in its place.
    pub(super) fn write(self, bytes: &[u8]) -> Result<(), Problem> {
        let Output { path, mut draft, replace } = self;
        let written = draft.write_all(bytes).and_then(|()| draft.as_file().sync_all());
        let put = |draft: NamedTempFile| {
            if replace { draft.persist(&path) } else { draft.persist_noclobber(&path) }
        };
        let put = written.and_then(|()| put(draft).map_err(io::Error::from));
        put.map(drop).map_err(|error| failed(&path, &error))
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
    use std::fs;

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
