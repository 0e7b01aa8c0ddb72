//! Lists a folder for the picker: its image files with their content, newest first, and its subfolders. The number of
//! entries and of bytes read is limited, because a folder may be huge.

use std::fs::{self, Metadata};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::files::read_image;
use crate::app::picker::{Entry, EntryKind};
use crate::clock::unix_seconds;
use crate::image::{Content, Image};
use crate::report::ProblemKind;

/// The most files listed, and the most folders.
const ROWS: usize = 500;
/// The most directory entries examined.
const ENTRIES: usize = 20_000;
/// The most bytes read to recognise files. Once they are used up, files are listed by name only.
const RECOGNISED: u64 = 32 * 1024 * 1024;
/// The extensions of image files.
const EXTENSIONS: [&str; 5] = ["bin", "dfu", "hex", "elf", "zip"];

/// Returns recent images that still exist, then the folder's image files, then its subfolders by name. Files that can
/// be flashed precede the others, newest first. An error is the system's reason why the folder cannot be read.
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
    // Sort before cutting the list. The directory order is arbitrary, and the newest files must remain.
    let modified = |metadata: &Metadata| metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH);
    files.sort_by(|a, b| modified(&b.1).cmp(&modified(&a.1)).then_with(|| a.0.cmp(&b.0)));
    folders.sort();
    let files = files.into_iter().take(ROWS);
    let mut files: Vec<Entry> =
        files.map(|(path, metadata)| file_entry(path, &metadata, now, &mut budget)).collect();
    // The newest file that can be flashed comes first, because Enter chooses it.
    files.sort_by_key(|entry| !matches!(entry.kind, EntryKind::File(_, true)));
    entries.extend(files);
    let folder_entry = |path| Entry { path, kind: EntryKind::Folder, size: 0, age: None };
    entries.extend(folders.into_iter().take(ROWS).map(folder_entry));
    Ok(entries)
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
    let kind = kind(&path, metadata.len(), budget);
    Entry { path, kind, size: metadata.len(), age }
}

/// Recognises a file, unless the budget of bytes is used up.
fn kind(path: &Path, bytes: u64, budget: &mut u64) -> EntryKind {
    let Some(rest) = budget.checked_sub(bytes) else {
        return EntryKind::File("not examined".to_owned(), true);
    };
    *budget = rest;
    match read_image(path) {
        Ok(Image { content, extent, .. }) => {
            let is_whole = extent.complete() != Some(false);
            let is_usable = is_whole && !matches!(content, Content::Radio | Content::Unknown { .. });
            EntryKind::File(content.to_string(), is_usable)
        }
        Err(problem) if problem.kind == ProblemKind::Unreadable => {
            EntryKind::File(format!("cannot be read: {}", problem.message), false)
        }
        Err(_) => EntryKind::File("not an image".to_owned(), false),
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
    fn a_full_folder_is_listed_newest_first() {
        let dir = tempfile::tempdir().unwrap();
        let epoch = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        for n in (0..600_u64).rev() {
            let file = fs::File::create(dir.path().join(format!("{n:04}.bin"))).unwrap();
            // Three files each have the same time; these are sorted by name.
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
        assert_eq!(kind(&path, 8, &mut budget), EntryKind::File("not an image".to_owned(), false));
        assert_eq!(kind(&path, 8, &mut budget), EntryKind::File("not examined".to_owned(), true));
    }

    /// B6: the picker says why a folder or a file cannot be read.
    #[test]
    fn an_unreadable_folder_or_file_is_reported() {
        let dir = tempfile::tempdir().unwrap();
        assert!(list(&dir.path().join("missing"), &[]).is_err_and(|why| why.contains("No such file")));
        let mut budget = RECOGNISED;
        let gone = kind(&dir.path().join("gone.bin"), 8, &mut budget);
        assert!(
            matches!(&gone, EntryKind::File(why, false) if why.starts_with("cannot be read: ")),
            "{gone:?}"
        );
    }
}
