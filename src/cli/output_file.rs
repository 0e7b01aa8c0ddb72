//! Writes an output file either completely or not at all, and replaces an existing file only with `--force`.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use crate::report::{Exit, Problem, ProblemKind};

/// A file to be written. The data is first written to a temporary file in the same folder, and this file is then
/// renamed. After a failure, neither a partial nor a temporary file remains.
pub(super) struct Output {
    path: PathBuf,
    draft: NamedTempFile,
    replace: bool,
}

impl Output {
    /// Creates the temporary file now, so that an unusable path is reported before the flash is read.
    pub(super) fn create(path: &Path, replace: bool) -> Result<Output, Problem> {
        if !replace && path.symlink_metadata().is_ok() {
            let advice = "Choose another file, or add --force if the command accepts it.";
            return Err(problem(path, "the file already exists", advice));
        }
        if path.metadata().is_ok_and(|existing| !existing.is_file()) {
            return Err(problem(path, "not a regular file", "Choose another file."));
        }
        path.file_name().ok_or_else(|| problem(path, "not a file name", "Add a file name to the path."))?;
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        let mut builder = tempfile::Builder::new();
        builder.prefix("cfdfu-").suffix(".part");
        #[cfg(unix)]
        builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
        let draft = builder.tempfile_in(folder.unwrap_or(Path::new(".")));
        let draft = draft.map_err(|error| write_problem(path, &error))?;
        Ok(Output { path: path.to_owned(), draft, replace })
    }

    /// Writes the content and renames the temporary file.
    pub(super) fn write(self, bytes: &[u8]) -> Result<(), Problem> {
        let Output { path, mut draft, replace } = self;
        let written = draft.write_all(bytes).and_then(|()| draft.as_file().sync_all());
        let rename = |draft: NamedTempFile| {
            if replace { draft.persist(&path) } else { draft.persist_noclobber(&path) }
        };
        let renamed = written.and_then(|()| rename(draft).map_err(io::Error::from));
        renamed.map(drop).map_err(|error| write_problem(&path, &error))
    }
}

fn write_problem(path: &Path, error: &io::Error) -> Problem {
    problem(path, &error.to_string(), "Choose a writable folder with at least 1 MiB of free space.")
}

fn problem(path: &Path, cause: &str, advice: &str) -> Problem {
    Problem::new(Exit::CannotCreate, ProblemKind::OutputFile, cause)
        .about(path.display().to_string())
        .advise(advice)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn an_existing_file_is_overwritten_only_on_request() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("backup.bin");
        Output::create(&path, false).unwrap().write(b"one").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"one");
        assert!(Output::create(&path, false).is_err());
        Output::create(&path, true).unwrap().write(b"two").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "no temporary file remains");
    }

    #[test]
    fn a_file_created_in_the_meantime_is_not_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("backup.bin");
        let output = Output::create(&path, false).unwrap();
        fs::write(&path, b"other").unwrap();
        assert_eq!(output.write(b"ours").unwrap_err().exit, Exit::CannotCreate);
        assert_eq!(fs::read(&path).unwrap(), b"other");
    }

    #[test]
    fn no_file_remains_if_an_output_is_never_written() {
        let dir = tempfile::tempdir().unwrap();
        drop(Output::create(&dir.path().join("backup.bin"), false).unwrap());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        assert!(Output::create(&dir.path().join("missing/backup.bin"), false).is_err());
    }
}
