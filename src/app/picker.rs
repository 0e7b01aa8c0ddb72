//! The file picker: the entries of a folder, a description of each file, a filter, and a field for typing a path.

use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use tui_input::{Input, InputRequest};

use super::{Slot, Which};
use crate::image::{Content, Image};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub path: PathBuf,
    pub kind: EntryKind,
    /// The file's size in bytes; 0 for a folder.
    pub size: u64,
    /// The time since the file was written, if known.
    pub age: Option<Duration>,
}

impl Entry {
    /// Formats the size and the age, which the picker shows at the end of a row.
    pub(crate) fn figures(&self) -> String {
        let size = match self.kind {
            EntryKind::Folder => String::new(),
            EntryKind::File(..) => format!("{:>5} KiB", self.size.div_ceil(1024)),
        };
        let age = self.age.map(short_age).unwrap_or_default();
        format!("{size:>9}  {age:>5}")
    }
}

/// Formats an age in at most five characters.
fn short_age(age: Duration) -> String {
    let seconds = age.as_secs();
    let units = [(365 * 86_400, "y"), (86_400, "d"), (3600, "h"), (60, "min")];
    let unit = units.into_iter().find(|(size, _)| seconds >= *size);
    unit.map_or_else(|| "now".to_owned(), |(size, unit)| format!("{}{unit}", seconds / size))
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EntryKind {
    Folder,
    /// A file, with a short description and its possible uses.
    File(String, Usable),
}

/// The possible uses of a file, judging by its content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Usable {
    No,
    /// The file was not read.
    Unknown,
    /// Firmware for the boards with these codes; empty if the firmware does not name a board.
    Firmware(Vec<String>),
    /// A bootloader, or a backup that includes a bootloader.
    Bootloader,
}

impl Usable {
    /// Determines the possible uses of a file with this content.
    pub(crate) fn of(image: &Image) -> Usable {
        match &image.content {
            _ if image.extent.complete() == Some(false) => Usable::No,
            Content::Firmware(firmware) => {
                Usable::Firmware(firmware.boards.iter().map(|board| board.code.clone()).collect())
            }
            Content::Bootloader | Content::WholeFlash(_) => Usable::Bootloader,
            Content::Radio | Content::Unknown { .. } => Usable::No,
        }
    }

    /// Returns whether the file can be used for this purpose and board, or `None` if unknown.
    pub(crate) fn fits(&self, which: Which, board: Option<&str>) -> Option<bool> {
        match (self, which) {
            (Usable::No, _) => Some(false),
            (Usable::Unknown, _) => None,
            (Usable::Firmware(_), Which::Loader) | (Usable::Bootloader, Which::Image) => Some(false),
            (Usable::Bootloader, Which::Loader) => Some(true),
            (Usable::Firmware(codes), Which::Image) => {
                let board = board.filter(|_| !codes.is_empty())?;
                Some(codes.iter().any(|code| code == board))
            }
        }
    }
}

#[derive(Clone, Debug)]
pub struct Picker {
    pub folder: PathBuf,
    /// The folder's content, or the reason why the folder cannot be read; `None` while the folder is being read.
    pub entries: Option<Result<Vec<Entry>, String>>,
    /// The filter. A file or folder matches if its name contains these characters in this order, and a file also if its
    /// description contains this text.
    pub filter: String,
    /// The index of the selected row.
    pub at: usize,
    /// The text and the cursor of the path field, while the field is open.
    pub typing: Option<Input>,
    /// The previously chosen file, which stays chosen if the new file cannot be used.
    pub before: Option<Box<Slot>>,
}

impl PartialEq for Picker {
    fn eq(&self, other: &Picker) -> bool {
        let typed = |picker: &Picker| picker.typing.as_ref().map(|input| input.value().to_owned());
        (&self.folder, &self.entries, &self.filter, self.at)
            == (&other.folder, &other.entries, &other.filter, other.at)
            && typed(self) == typed(other)
    }
}

impl Eq for Picker {}

impl Picker {
    /// Creates a picker for a folder whose content has not been read yet.
    pub fn new(folder: PathBuf) -> Picker {
        Picker { folder, entries: None, filter: String::new(), at: 0, typing: None, before: None }
    }

    fn entries(&self) -> &[Entry] {
        match &self.entries {
            Some(Ok(entries)) => entries,
            Some(Err(_)) | None => &[],
        }
    }

    /// Returns the entries that match the filter.
    pub(crate) fn rows(&self) -> Vec<&Entry> {
        let filter = self.filter.to_lowercase();
        let matches = |entry: &&Entry| {
            let name = entry.path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
            let description = match &entry.kind {
                EntryKind::File(description, _) => description.to_lowercase(),
                EntryKind::Folder => String::new(),
            };
            contains_in_order(&name, &filter) || description.contains(&filter)
        };
        self.entries().iter().filter(matches).collect()
    }

    pub(crate) fn selected(&self) -> Option<&Entry> {
        self.rows().get(self.at).copied()
    }

    pub(crate) fn step(&mut self, by: isize) {
        let last = self.rows().len().saturating_sub(1);
        self.at = self.at.saturating_add_signed(by).min(last);
    }

    /// Adds a character to the filter; `None` removes the last one.
    pub(crate) fn edit_filter(&mut self, letter: Option<char>) {
        match letter {
            Some(letter) => self.filter.push(letter),
            None => drop(self.filter.pop()),
        }
        self.at = 0;
    }

    /// Opens the path field with this text.
    pub(crate) fn start_typing(&mut self, text: &str) {
        self.typing = Some(Input::new(text.to_owned()));
    }

    pub(crate) fn handle_input(&mut self, request: InputRequest) {
        if let Some(input) = &mut self.typing {
            input.handle(request);
        }
    }

    /// Appends `rest` to the path field if its text is still `typed`.
    pub(crate) fn complete(&mut self, typed: &str, rest: &str) {
        if self.typing.as_ref().is_some_and(|input| input.value() == typed) {
            self.start_typing(&format!("{typed}{rest}"));
        }
    }

    /// Returns the text of the path field, if the field is open.
    pub(crate) fn typed(&self) -> Option<&str> {
        self.typing.as_ref().map(Input::value)
    }

    /// Returns the typed path, resolved against the home directory if it starts with `~/`, otherwise against the
    /// folder.
    pub(crate) fn typed_path(&self, home: Option<&Path>) -> Option<PathBuf> {
        // Some terminals quote a path that is dragged into the window.
        let text = self.typed()?.trim().trim_matches(['\'', '"']);
        let mut parts = Path::new(text).components();
        let in_home = (parts.next() == Some(Component::Normal("~".as_ref())))
            .then(|| Some(home?.join(parts.as_path())))
            .flatten();
        (!text.is_empty()).then(|| in_home.unwrap_or_else(|| self.folder.join(text)))
    }
}

/// Returns whether the characters of `wanted` occur in `text` in the same order.
fn contains_in_order(text: &str, wanted: &str) -> bool {
    let mut letters = text.chars();
    wanted.chars().all(|wanted| letters.any(|letter| letter == wanted))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_typed_path_is_absolute_or_relative_to_the_folder_or_the_home_directory() {
        let mut picker = Picker::new(PathBuf::from("/images"));
        let home = Some(Path::new("/home/student"));
        for (typed, path) in [
            ("x.bin", "/images/x.bin"),
            (" '/other/x.bin' ", "/other/x.bin"),
            ("~/x.bin", "/home/student/x.bin"),
            ("~x.bin", "/images/~x.bin"),
        ] {
            picker.start_typing(typed);
            assert_eq!(picker.typed_path(home), Some(PathBuf::from(path)));
        }
        picker.start_typing("~/x.bin");
        assert_eq!(picker.typed_path(None), Some(PathBuf::from("/images/~/x.bin")));
        picker.start_typing(" ");
        assert_eq!(picker.typed_path(home), None);
        // A late completion does not change text that was typed in the meantime.
        picker.start_typing("/im");
        picker.complete("/i", "mages/");
        assert_eq!(picker.typed(), Some("/im"));
        picker.complete("/im", "ages/");
        assert_eq!(picker.typed(), Some("/images/"));
    }

    #[test]
    fn a_file_fits_only_its_own_purpose_and_board() {
        let firmware = Usable::Firmware(vec!["CF20".to_owned(), "CF21".to_owned()]);
        assert_eq!(firmware.fits(Which::Image, Some("CF21")), Some(true));
        assert_eq!(firmware.fits(Which::Image, Some("CB10")), Some(false));
        assert_eq!(firmware.fits(Which::Image, None), None);
        assert_eq!(firmware.fits(Which::Loader, Some("CF21")), Some(false));
        assert_eq!(Usable::Bootloader.fits(Which::Loader, None), Some(true));
        assert_eq!(Usable::Bootloader.fits(Which::Image, None), Some(false));
        assert_eq!(Usable::No.fits(Which::Image, None), Some(false));
        assert_eq!(Usable::Unknown.fits(Which::Image, Some("CF21")), None);
    }

    #[test]
    fn the_filter_matches_characters_of_a_name_in_order() {
        let mut picker = Picker::new(PathBuf::from("/images"));
        let row = |name: &str, description: &str| Entry {
            path: PathBuf::from("/images").join(name),
            kind: EntryKind::File(description.to_owned(), Usable::Unknown),
            size: 243_176,
            age: Some(Duration::from_secs(7200)),
        };
        picker.entries =
            Some(Ok(vec![row("cf2-2026.04.bin", "firmware"), row("bolt-2026.08.bin", "for Bolt")]));
        picker.step(1);
        "c26".chars().for_each(|letter| picker.edit_filter(Some(letter)));
        assert_eq!((picker.rows().len(), picker.entries().len(), picker.at), (1, 2, 0));
        assert_eq!(picker.selected().map(Entry::figures), Some("  238 KiB     2h".to_owned()));
        picker.edit_filter(Some('x'));
        assert_eq!(picker.selected(), None);
        (0..4).for_each(|_| picker.edit_filter(None));
        assert_eq!(picker.rows().len(), 2);
    }
}
