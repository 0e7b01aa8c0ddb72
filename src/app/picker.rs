//! The file picker: the folder's entries with the content of each image, a filter, and a field for typing a path.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tui_input::{Input, InputRequest};

use super::Slot;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub path: PathBuf,
    pub kind: EntryKind,
    /// In bytes; 0 for a folder.
    pub size: u64,
    /// The time since the file was written, if known.
    pub age: Option<Duration>,
}

impl Entry {
    /// Size and age, for the end of a row.
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
    /// A short description of the file, and whether it can be flashed.
    File(String, bool),
}

#[derive(Clone, Debug)]
pub struct Picker {
    pub folder: PathBuf,
    /// The folder's content, or why it cannot be read; `None` while it is being read.
    pub entries: Option<Result<Vec<Entry>, String>>,
    /// The letters that a name must contain, in this order.
    pub filter: String,
    /// The index of the marked row.
    pub at: usize,
    /// The path field, while it is open.
    pub typing: Option<Input>,
    /// The file that was chosen before. It stays chosen if the next one cannot be used.
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
    /// Opens a folder whose content has not been read yet.
    pub fn new(folder: PathBuf) -> Picker {
        Picker { folder, entries: None, filter: String::new(), at: 0, typing: None, before: None }
    }

    fn entries(&self) -> &[Entry] {
        match &self.entries {
            Some(Ok(entries)) => entries,
            Some(Err(_)) | None => &[],
        }
    }

    /// The entries that match the filter.
    pub(crate) fn rows(&self) -> Vec<&Entry> {
        let filter = self.filter.to_lowercase();
        let matches = |entry: &&Entry| {
            let name = entry.path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
            let what = match &entry.kind {
                EntryKind::File(what, _) => what.to_lowercase(),
                EntryKind::Folder => String::new(),
            };
            contains_in_order(&name, &filter) || what.contains(&filter)
        };
        self.entries().iter().filter(matches).collect()
    }

    pub(crate) fn marked(&self) -> Option<&Entry> {
        self.rows().get(self.at).copied()
    }

    pub(crate) fn step(&mut self, by: isize) {
        let last = self.rows().len().saturating_sub(1);
        self.at = self.at.saturating_add_signed(by).min(last);
    }

    /// Adds a letter to the filter; `None` removes the last one.
    pub(crate) fn narrow(&mut self, letter: Option<char>) {
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

    pub(crate) fn request(&mut self, request: InputRequest) {
        if let Some(input) = &mut self.typing {
            input.handle(request);
        }
    }

    /// Completes the typed name to the longest common prefix of the matching entries.
    pub(crate) fn complete(&mut self) {
        let Some(input) = &self.typing else { return };
        let typed = input.value().to_owned();
        // Recent files from other folders are entries, too.
        let here = self.entries().iter().filter(|entry| entry.path.parent() == Some(&self.folder));
        let names = here.filter_map(|entry| {
            let name = entry.path.file_name()?.to_str()?;
            name.starts_with(&typed).then_some(name)
        });
        let common = names.fold(None::<String>, |common, name| match common {
            None => Some(name.to_owned()),
            Some(common) => {
                let len = common.char_indices().zip(name.chars()).take_while(|((_, a), b)| a == b).count();
                Some(common.chars().take(len).collect())
            }
        });
        if let Some(common) = common {
            self.start_typing(&common);
        }
    }

    /// The typed path, relative to the folder.
    pub(crate) fn typed_path(&self) -> Option<PathBuf> {
        let text = self.typing.as_ref()?.value().trim();
        // A terminal may quote a path that is dragged into it.
        let text = text.trim_matches(['\'', '"']);
        (!text.is_empty()).then(|| self.folder.join(Path::new(text)))
    }
}

/// Whether the letters of `wanted` occur in `text` in the same order.
fn contains_in_order(text: &str, wanted: &str) -> bool {
    let mut letters = text.chars();
    wanted.chars().all(|wanted| letters.any(|letter| letter == wanted))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_completed_to_the_common_prefix() {
        let mut picker = Picker::new(PathBuf::from("/images"));
        let row = |name: &str| Entry {
            path: PathBuf::from("/images").join(name),
            kind: EntryKind::Folder,
            size: 0,
            age: None,
        };
        picker.entries = Some(Ok(vec![row("cf2-2026.04.bin"), row("cf2-2026.08.bin"), row("bolt.bin")]));
        picker.start_typing("c");
        picker.complete();
        assert_eq!(picker.typed_path(), Some(PathBuf::from("/images/cf2-2026.0")));
        picker.request(InputRequest::InsertChar('8'));
        picker.complete();
        assert_eq!(picker.typed_path(), Some(PathBuf::from("/images/cf2-2026.08.bin")));
        picker.start_typing(" '/other/x.bin' ");
        assert_eq!(picker.typed_path(), Some(PathBuf::from("/other/x.bin")));
        picker.step(-1);
        picker.step(99);
        assert_eq!(picker.at, 2);
    }

    #[test]
    fn the_filter_matches_letters_in_order() {
        let mut picker = Picker::new(PathBuf::from("/images"));
        let row = |name: &str, what: &str| Entry {
            path: PathBuf::from("/images").join(name),
            kind: EntryKind::File(what.to_owned(), true),
            size: 243_176,
            age: Some(Duration::from_secs(7200)),
        };
        picker.entries =
            Some(Ok(vec![row("cf2-2026.04.bin", "firmware"), row("bolt-2026.08.bin", "for Bolt")]));
        picker.step(1);
        "c26".chars().for_each(|letter| picker.narrow(Some(letter)));
        assert_eq!((picker.rows().len(), picker.entries().len(), picker.at), (1, 2, 0));
        assert_eq!(picker.marked().map(Entry::figures), Some("  238 KiB     2h".to_owned()));
        picker.narrow(Some('x'));
        assert_eq!(picker.marked(), None);
        (0..4).for_each(|_| picker.narrow(None));
        assert_eq!(picker.rows().len(), 2);
    }
}
