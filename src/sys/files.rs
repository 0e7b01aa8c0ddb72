//! Reads image files, up to a maximum size. Unreadable files and invalid images are reported as different problems.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use crate::image::{FILE_MAX, Image, ImageError, Sha256};
use crate::report::{self, Exit, Problem, ProblemKind};

/// The file name that stands for standard input.
const STDIN: &str = "-";

/// Reads and parses an image file, or standard input for `-`.
pub(crate) fn read_image(path: &Path) -> Result<Image, Problem> {
    read_image_checked(path, None)
}

/// Like [`read_image`], but refuses a file whose SHA-256 differs from `expected`, if given. The SHA-256 is checked
/// before the file is parsed, because a damaged download may not parse.
pub(crate) fn read_image_checked(path: &Path, expected: Option<Sha256>) -> Result<Image, Problem> {
    let bytes = read_bytes(path).map_err(|error| {
        Problem::new(Exit::NoInput, ProblemKind::Unreadable, &error)
            .about(display_name(path))
            .advise("Check the name and the permissions. Nothing was changed.")
    })?;
    if bytes.len() as u64 > FILE_MAX {
        return Err(report::image_error(&ImageError::FileTooLarge).about(display_name(path)));
    }
    if let Some(expected) = expected {
        let found = Sha256::of(&bytes);
        if found != expected {
            return Err(report::wrong_checksum(expected, found).about(display_name(path)));
        }
    }
    Image::parse(bytes).map_err(|error| report::image_error(&error).about(display_name(path)))
}

/// Returns the problem to report if the parser panics, which is a bug in cfdfu.
pub(crate) fn defect(path: &Path) -> Problem {
    Problem::new(Exit::Defect, ProblemKind::Defect, "cfdfu crashed while reading this file")
        .about(display_name(path))
        .advise("This is a bug in cfdfu. Please report it and attach the file.")
}

fn display_name(path: &Path) -> String {
    if path == Path::new(STDIN) { "standard input".to_owned() } else { path.display().to_string() }
}

/// Reads a file, or standard input for `-`. Stops one byte past the maximum size, because the size that the system
/// reports may be wrong, for example for a pipe or /dev/zero.
fn read_bytes(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    if path == Path::new(STDIN) {
        io::stdin().take(FILE_MAX + 1).read_to_end(&mut bytes)?;
        return Ok(bytes);
    }
    let file = File::open(path)?;
    if file.metadata()?.is_dir() {
        return Err(io::Error::new(io::ErrorKind::IsADirectory, "is a directory"));
    }
    file.take(FILE_MAX + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}
