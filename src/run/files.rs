//! Reading image files and folders: bounded, and with every way in which that can fail told apart from a
//! bad image.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use crate::app::picker::{Entry, EntryKind};
use crate::image::{Content, FILE_MAX, Image, ImageError, Sha256};
use crate::report::{self, Exit, Problem};

/// In place of a file's name: standard input.
const STDIN: &str = "-";

/// Reads and parses an image file, or standard input for `-`.
pub fn read_image(path: &Path) -> Result<Image, Problem> {
    read_image_of(path, None)
}

/// The same for a file whose SHA-256 is known. The checksum is compared first, since a damaged download may be malformed.
pub fn read_image_of(path: &Path, expected: Option<Sha256>) -> Result<Image, Problem> {
    let bytes = read_bytes(path).map_err(|error| {
        let message = format!("{}: {error}", shown(path));
        report::other(
            Exit::NoInput,
            "unreadable",
            &message,
            "Check the name and the permissions. Nothing was touched.",
        )
    })?;
    if bytes.len() as u64 > FILE_MAX {
        return Err(named(path, report::image_error(&ImageError::FileTooLarge)));
    }
    if let Some(expected) = expected {
        let found = Sha256::of(&bytes);
        if found != expected {
            return Err(named(path, report::wrong_checksum(expected, found)));
        }
    }
    Image::parse(bytes).map_err(|error| named(path, report::image_error(&error)))
}

/// A parser that panicked, which is a defect of this program.
#[must_use]
pub fn defect(path: &Path) -> Problem {
    let message = format!("{}: reading it is more than this program can do", path.display());
    report::other(
        Exit::Defect,
        "defect",
        &message,
        "This is a defect of cfdfu: please report it, with the file.",
    )
}

fn shown(path: &Path) -> String {
    if path == Path::new(STDIN) { "standard input".to_owned() } else { path.display().to_string() }
}

fn named(path: &Path, problem: Problem) -> Problem {
    Problem { message: format!("{}: {}", shown(path), problem.message), ..problem }
}

/// The whole file, or standard input for `-`. At most one byte more than is taken, whatever the file system says of the
/// size (a pipe, /dev/zero).
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

/// Rows of a folder that a picker shows at most.
const ROWS: usize = 500;
/// Endings of files that are worth recognising.
const ENDINGS: [&str; 5] = ["bin", "dfu", "hex", "elf", "zip"];

/// Recent images that are still there, then a folder's files that could be images with what each of them is,
/// then its folders. A folder that cannot be read is empty.
#[must_use]
pub fn list(folder: &Path, recent: &[PathBuf]) -> Vec<Entry> {
    let again =
        recent.iter().filter(|path| path.parent() != Some(folder)).filter_map(|path| match kind(path)? {
            EntryKind::File(what, good) => {
                Some(Entry { path: path.clone(), kind: EntryKind::File(format!("{what} (recent)"), good) })
            }
            EntryKind::Folder => None,
        });
    let again: Vec<Entry> = again.collect();
    let Ok(read) = fs::read_dir(folder) else { return again };
    let hidden = |path: &Path| path.file_name().is_none_or(|name| name.to_string_lossy().starts_with('.'));
    let mut entries: Vec<Entry> = read
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| !hidden(path))
        .filter_map(|path| Some(Entry { kind: kind(&path)?, path }))
        .take(ROWS)
        .collect();
    entries
        .sort_by(|a, b| (a.kind == EntryKind::Folder, &a.path).cmp(&(b.kind == EntryKind::Folder, &b.path)));
    again.into_iter().chain(entries).collect()
}

fn kind(path: &Path) -> Option<EntryKind> {
    let metadata = fs::metadata(path).ok()?;
    if metadata.is_dir() {
        return Some(EntryKind::Folder);
    }
    let ending = path.extension()?.to_str()?.to_ascii_lowercase();
    if !metadata.is_file() || !ENDINGS.contains(&ending.as_str()) {
        return None;
    }
    Some(match read_image(path) {
        Ok(Image { content, extent, .. }) => {
            let whole = extent.complete() != Some(false);
            let good = whole && !matches!(content, Content::Radio | Content::Unknown { .. });
            EntryKind::File(content.to_string(), good)
        }
        Err(_) => EntryKind::File("no image".to_owned(), false),
    })
}
