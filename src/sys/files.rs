//! Reading image files and folders: bounded, and with every way in which that can fail told apart from a
//! bad image.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use crate::app::picker::{Entry, EntryKind};
use crate::image::{Content, FILE_MAX, Image, ImageError, Sha256};
use crate::report::{self, Exit, Problem, ProblemKind};

/// In place of a file's name: standard input.
const STDIN: &str = "-";

/// Reads and parses an image file, or standard input for `-`.
pub(crate) fn read_image(path: &Path) -> Result<Image, Problem> {
    read_image_of(path, None)
}

/// The same for a file whose SHA-256 is known. The checksum is compared first, since a damaged download may be malformed.
pub(crate) fn read_image_of(path: &Path, expected: Option<Sha256>) -> Result<Image, Problem> {
    let bytes = read_bytes(path).map_err(|error| {
        Problem::new(Exit::NoInput, ProblemKind::Unreadable, &error)
            .about(shown(path))
            .advise("Check the name and the permissions. Nothing was touched.")
    })?;
    if bytes.len() as u64 > FILE_MAX {
        return Err(report::image_error(&ImageError::FileTooLarge).about(shown(path)));
    }
    if let Some(expected) = expected {
        let found = Sha256::of(&bytes);
        if found != expected {
            return Err(report::wrong_checksum(expected, found).about(shown(path)));
        }
    }
    Image::parse(bytes).map_err(|error| report::image_error(&error).about(shown(path)))
}

/// A parser that panicked, which is a defect of this program.
pub(crate) fn defect(path: &Path) -> Problem {
    Problem::new(Exit::Defect, ProblemKind::Defect, "reading it is more than this program can do")
        .about(shown(path))
        .advise("This is a defect of cfdfu: please report it, with the file.")
}

fn shown(path: &Path) -> String {
    if path == Path::new(STDIN) { "standard input".to_owned() } else { path.display().to_string() }
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

/// Files of a folder that a picker shows at most, and as many folders.
const ROWS: usize = 500;
/// Entries of a folder that are looked at at most.
const ENTRIES: usize = 20_000;
/// Bytes of files that are recognised for one list: the rest is shown by its name.
const RECOGNISED: u64 = 32 * 1024 * 1024;
/// Endings of files that are worth recognising.
const ENDINGS: [&str; 5] = ["bin", "dfu", "hex", "elf", "zip"];

/// Recent images that are still there, then a folder's files that could be images with what each of them is,
/// then its folders, each by name. A folder that cannot be read is empty.
pub(crate) fn list(folder: &Path, recent: &[PathBuf]) -> Vec<Entry> {
    let mut left = RECOGNISED;
    let mut entries: Vec<Entry> = Vec::new();
    for path in recent.iter().filter(|path| path.parent() != Some(folder)) {
        if let Some(Listed::File(bytes)) = listed(path)
            && let EntryKind::File(what, good) = kind(path, bytes, &mut left)
        {
            entries
                .push(Entry { path: path.clone(), kind: EntryKind::File(format!("{what} (recent)"), good) });
        }
    }
    let Ok(read) = fs::read_dir(folder) else { return entries };
    let hidden = |path: &Path| path.file_name().is_none_or(|name| name.to_string_lossy().starts_with('.'));
    let mut there: Vec<(Listed, PathBuf)> = read
        .take(ENTRIES)
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| !hidden(path))
        .filter_map(|path| Some((listed(&path)?, path)))
        .collect();
    // By name before it is cut: the first of an alphabet, not of a disk.
    there.sort_by(|a, b| (a.0 == Listed::Folder, &a.1).cmp(&(b.0 == Listed::Folder, &b.1)));
    let folders = there.split_off(there.partition_point(|(what, _)| *what != Listed::Folder));
    there.truncate(ROWS);
    there.extend(folders.into_iter().take(ROWS));
    entries.extend(there.into_iter().map(|(what, path)| {
        let kind = match what {
            Listed::Folder => EntryKind::Folder,
            Listed::File(bytes) => kind(&path, bytes, &mut left),
        };
        Entry { path, kind }
    }));
    entries
}

/// What a picker lists, before anything is read of it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Listed {
    Folder,
    File(u64),
}

fn listed(path: &Path) -> Option<Listed> {
    let metadata = fs::metadata(path).ok()?;
    if metadata.is_dir() {
        return Some(Listed::Folder);
    }
    let ending = path.extension()?.to_str()?.to_ascii_lowercase();
    (metadata.is_file() && ENDINGS.contains(&ending.as_str())).then_some(Listed::File(metadata.len()))
}

/// What a file is; one for which too much was read already is not looked at.
fn kind(path: &Path, bytes: u64, left: &mut u64) -> EntryKind {
    let Some(rest) = left.checked_sub(bytes) else {
        return EntryKind::File(format!("{} KiB, not looked at", bytes.div_ceil(1024)), true);
    };
    *left = rest;
    match read_image(path) {
        Ok(Image { content, extent, .. }) => {
            let whole = extent.complete() != Some(false);
            let good = whole && !matches!(content, Content::Radio | Content::Unknown { .. });
            EntryKind::File(content.to_string(), good)
        }
        Err(_) => EntryKind::File("no image".to_owned(), false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first of the alphabet, whatever order the disk has them in; and no more is read than makes sense.
    #[test]
    fn a_full_folder_is_listed_by_name() {
        let dir = tempfile::tempdir().unwrap();
        for n in (0..600).rev() {
            fs::write(dir.path().join(format!("{n:04}.bin")), b"no image").unwrap();
        }
        fs::create_dir(dir.path().join("0000")).unwrap();
        let names = |entries: &[Entry]| -> Vec<String> {
            entries
                .iter()
                .map(|entry| entry.path.file_name().unwrap().to_string_lossy().into_owned())
                .collect()
        };
        let listed = list(dir.path(), &[]);
        let mut expected: Vec<String> = (0..ROWS).map(|n| format!("{n:04}.bin")).collect();
        expected.push("0000".to_owned());
        assert_eq!(names(&listed), expected);
        let mut left = 10;
        let path = dir.path().join("0001.bin");
        assert_eq!(kind(&path, 8, &mut left), EntryKind::File("no image".to_owned(), false));
        assert_eq!(kind(&path, 8, &mut left), EntryKind::File("1 KiB, not looked at".to_owned(), true));
    }
}
