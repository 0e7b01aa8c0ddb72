//! Reading an image file: bounded, and with every way in which it can fail told apart from a bad image.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use crate::image::{FILE_MAX, Image, ImageError};
use crate::report::{self, Exit, Problem};

/// Reads and parses an image file.
pub(super) fn read(path: &Path) -> Result<Image, Problem> {
    let bytes = read_bytes(path).map_err(|error| {
        let message = format!("{}: {error}", path.display());
        report::other(
            Exit::NoInput,
            "unreadable",
            &message,
            "Check the name and the permissions. Nothing was touched.",
        )
    })?;
    if bytes.len() as u64 > FILE_MAX {
        return Err(named(path, report::image_error(&ImageError::TooLarge { bytes: bytes.len() as u64 })));
    }
    Image::parse(bytes).map_err(|error| named(path, report::image_error(&error)))
}

fn named(path: &Path, problem: Problem) -> Problem {
    Problem { message: format!("{}: {}", path.display(), problem.message), ..problem }
}

/// At most one byte more than is taken, whatever the file system says of the size (a pipe, /dev/zero).
fn read_bytes(path: &Path) -> io::Result<Vec<u8>> {
    let file = File::open(path)?;
    if file.metadata()?.is_dir() {
        return Err(io::Error::new(io::ErrorKind::IsADirectory, "is a directory"));
    }
    let mut bytes = Vec::new();
    file.take(FILE_MAX + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}
