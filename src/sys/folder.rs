//! Lists a folder for the picker: its image files, newest first, each with a description of its content, and its
//! subfolders. The number of entries and the number of bytes to read are limited, because a folder may be huge.

use std::fs::{self, Metadata};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::files::read_image;
use crate::app::picker::{Entry, EntryKind, Usable};
use crate::clock::unix_seconds;
use crate::report::ProblemKind;

/// Maximum number of files to list. The same limit applies to folders.
const ROWS: usize = 500;
/// Maximum number of directory entries to examine.
const ENTRIES: usize = 20_000;
/// Maximum number of bytes to read to recognise files. A file that would exceed it is listed without its content.
const RECOGNISED: u64 = 32 * 1024 * 1024;
/// The extensions of image files.
const EXTENSIONS: [&str; 5] = ["bin", "dfu", "hex", "elf", "zip"];

/// Returns recent images from other folders that still exist, then the folder's image files, then its subfolders by
/// name. Of the folder's files, those that cannot be flashed follow the others, and both groups are sorted newest
/// first. The error is the system's message if the folder cannot be read.
pub(crate) fn list(folder: &Path, recent: &[PathBuf]) -> Result<Vec<Entry>, String> {
    let mut budget = RECOGNISED;
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(unix_seconds());
    let elsewhere = recent.iter().filter(|path| path.parent() != Some(folder));
    let recent = elsewhere.filter_map(|path| Some((path.clone(), fs::metadata(path).ok()?)));
    let recent = recent.filter(|(path, metadata)| metadata.is_file() && has_image_extension(path));
    let mut entries: Vec<Entry> =
        recent.map(|(path, metadata)| file_entry(path, &metadata, now, &mut budget)).collect();

    let read = fs::read_dir(folder).map_err(|error| error.to_string())?;
    let paths = read.take(ENTRIES).filter_map(|entry| Some(entry.ok()?.path()));
    let (mut files, mut folders) = (Vec::new(), Vec::new());
    for path in paths.filter(|path| !is_hidden(path)) {
        match fs::metadata(&path) {
            Ok(metadata) if metadata.is_dir() => folders.push(path),
            Ok(metadata) if metadata.is_file() && has_image_extension(&path) => files.push((path, metadata)),
            Ok(_) | Err(_) => {}
        }
    }
    // Sort before truncating the list: the directory order is arbitrary, and the newest files must be kept.
    let modified = |metadata: &Metadata| metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH);
    files.sort_by(|a, b| modified(&b.1).cmp(&modified(&a.1)).then_with(|| a.0.cmp(&b.0)));
    folders.sort();
    let files = files.into_iter().take(ROWS);
    let mut files: Vec<Entry> =
        files.map(|(path, metadata)| file_entry(path, &metadata, now, &mut budget)).collect();
    // Without recent images, Enter chooses the first of these files, so move those that cannot be flashed to the end.
    files.sort_by_key(|entry| matches!(entry.kind, EntryKind::File(_, Usable::No)));
    entries.extend(files);
    let folder_entry = |path| Entry { path, kind: EntryKind::Folder, size: 0, age: None };
    entries.extend(folders.into_iter().take(ROWS).map(folder_entry));
    Ok(entries)
}

/// Returns the text that completes this path: the rest of the longest common prefix of all matching folders and image
/// files, and a separator if the only match is a folder.
pub(crate) fn complete(path: &Path) -> String {
    // A path that ends with a separator names a folder whose entries all match.
    let text = path.to_string_lossy();
    let is_folder = text.ends_with(std::path::is_separator);
    let (folder, typed) = match (path.parent(), path.file_name()) {
        _ if is_folder => (path, String::new()),
        (Some(parent), Some(name)) => (parent, name.to_string_lossy().into_owned()),
        _ => return String::new(),
    };
    let Ok(entries) = fs::read_dir(folder) else { return String::new() };
    let mut matches = entries.take(ENTRIES).filter_map(|entry| {
        let path = entry.ok()?.path();
        let name = path.file_name()?.to_str()?.to_owned();
        let is_folder = path.is_dir();
        let shown = !name.starts_with('.') || typed.starts_with('.');
        let fits = name.starts_with(&typed) && shown && (is_folder || has_image_extension(&path));
        fits.then_some((name, is_folder))
    });
    let Some((mut common, is_folder)) = matches.next() else { return String::new() };
    let mut single = true;
    for (name, _) in matches {
        single = false;
        let same = common.chars().zip(name.chars()).take_while(|(a, b)| a == b).map(|(c, _)| c.len_utf8());
        common.truncate(same.sum());
    }
    let mut rest = common.split_off(typed.len());
    if single && is_folder {
        rest.push(std::path::MAIN_SEPARATOR);
    }
    rest
}

fn is_hidden(path: &Path) -> bool {
    path.file_name().is_none_or(|name| name.to_string_lossy().starts_with('.'))
}

fn has_image_extension(path: &Path) -> bool {
    let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
    EXTENSIONS.contains(&extension.to_ascii_lowercase().as_str())
}

fn file_entry(path: PathBuf, metadata: &Metadata, now: SystemTime, budget: &mut u64) -> Entry {
    let age: Option<Duration> =
        metadata.modified().ok().and_then(|modified| now.duration_since(modified).ok());
    let kind = recognise(&path, metadata.len(), budget);
    Entry { path, kind, size: metadata.len(), age }
}

/// Recognises a file, unless the budget of bytes is used up.
fn recognise(path: &Path, bytes: u64, budget: &mut u64) -> EntryKind {
    let Some(rest) = budget.checked_sub(bytes) else {
        return EntryKind::File("not examined".to_owned(), Usable::Unknown);
    };
    *budget = rest;
    match read_image(path) {
        Ok(image) => EntryKind::File(image.content.to_string(), Usable::of(&image)),
        Err(problem) if problem.kind == ProblemKind::Unreadable => {
            EntryKind::File(format!("cannot be read: {}", problem.message), Usable::No)
        }
        Err(_) => EntryKind::File("not an image".to_owned(), Usable::No),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(entries: &[Entry]) -> Vec<String> {
        let name = |entry: &Entry| entry.path.file_name().unwrap().to_string_lossy().into_owned();
        entries.iter().map(name).collect()
    }

    /// The directory order does not matter, and files beyond the budget are not read.
    #[test]
    fn a_large_folder_is_listed_newest_first() {
        let dir = tempfile::tempdir().unwrap();
        let epoch = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        for n in (0..600_u64).rev() {
            let file = fs::File::create(dir.path().join(format!("{n:04}.bin"))).unwrap();
            // Each group of three files has the same time and is sorted by name.
            file.set_modified(epoch + Duration::from_secs(n / 3)).unwrap();
        }
        fs::create_dir(dir.path().join("0000")).unwrap();
        let entries = list(dir.path(), &[]).unwrap();
        let of_a_second = |second: u64| (0..3).map(move |n| format!("{:04}.bin", second * 3 + n));
        let mut expected: Vec<String> = (0..200).rev().flat_map(of_a_second).take(ROWS).collect();
        expected.push("0000".to_owned());
        assert_eq!(names(&entries), expected);
        assert!(entries[0].age.is_some());
        let mut budget = 10;
        let path = dir.path().join("0001.bin");
        assert_eq!(recognise(&path, 8, &mut budget), EntryKind::File("not an image".to_owned(), Usable::No));
        assert_eq!(
            recognise(&path, 8, &mut budget),
            EntryKind::File("not examined".to_owned(), Usable::Unknown)
        );
    }

    #[test]
    fn a_path_is_completed_to_the_longest_common_prefix() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("firmware/new")).unwrap();
        for name in ["cf2-2026.04.bin", "cf2-2026.08.bin", "notes.txt"] {
            fs::write(dir.path().join("firmware").join(name), b"").unwrap();
        }
        let rest = |typed: &str| complete(Path::new(&format!("{}/{typed}", dir.path().display())));
        assert_eq!(rest("fi"), format!("rmware{}", std::path::MAIN_SEPARATOR));
        assert_eq!(rest("firmware/c"), "f2-2026.0");
        assert_eq!(rest("firmware/cf2-2026.08"), ".bin");
        // Nothing is appended if the matching names have no common prefix, or if the only match is not an image.
        assert_eq!(rest("firmware/"), "");
        assert_eq!(rest("firmware/no"), "");
        assert_eq!(rest("missing/x"), "");
    }

    /// The picker shows why a folder or a file cannot be read.
    #[test]
    fn an_unreadable_folder_or_file_is_reported() {
        let dir = tempfile::tempdir().unwrap();
        assert!(list(&dir.path().join("missing"), &[]).is_err_and(|why| why.contains("No such file")));
        let mut budget = RECOGNISED;
        let gone = recognise(&dir.path().join("gone.bin"), 8, &mut budget);
        assert!(
            matches!(&gone, EntryKind::File(why, Usable::No) if why.starts_with("cannot be read: ")),
            "{gone:?}"
        );
    }
}
