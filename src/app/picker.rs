//! Choosing a file: the folder's content with what each image is, and a field for a path.

use std::path::{Path, PathBuf};

use tui_input::{Input, InputRequest};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The file or folder.
    pub path: PathBuf,
    pub kind: EntryKind,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EntryKind {
    /// A folder to go into.
    Folder,
    /// A file, in a few words, and whether it can be used.
    File(String, bool),
}

#[derive(Clone, Debug)]
pub struct Picker {
    /// The folder.
    pub folder: PathBuf,
    /// Its content; `None` while it is being read.
    pub entries: Option<Vec<Entry>>,
    /// The row that is marked.
    pub at: usize,
    /// The path that is being typed, if one is.
    pub typing: Option<Input>,
}

impl PartialEq for Picker {
    fn eq(&self, other: &Picker) -> bool {
        let typed = |picker: &Picker| picker.typing.as_ref().map(|input| input.value().to_owned());
        (&self.folder, &self.entries, self.at) == (&other.folder, &other.entries, other.at)
            && typed(self) == typed(other)
    }
}

impl Eq for Picker {}

impl Picker {
    /// In a folder whose content is still to come.
    pub fn new(folder: PathBuf) -> Picker {
        Picker { folder, entries: None, at: 0, typing: None }
    }

    pub(crate) fn rows(&self) -> &[Entry] {
        self.entries.as_deref().unwrap_or_default()
    }

    pub(crate) fn marked(&self) -> Option<&Entry> {
        self.rows().get(self.at)
    }

    pub(crate) fn step(&mut self, by: isize) {
        let last = self.rows().len().saturating_sub(1);
        self.at = self.at.saturating_add_signed(by).min(last);
    }

    /// Starts to type a path, with this before it.
    pub(crate) fn start_typing(&mut self, text: &str) {
        self.typing = Some(Input::new(text.to_owned()));
    }

    pub(crate) fn request(&mut self, request: InputRequest) {
        if let Some(input) = &mut self.typing {
            input.handle(request);
        }
    }

    /// Completes the typed name from the folder's rows, as far as they agree.
    pub(crate) fn complete(&mut self) {
        let Some(input) = &self.typing else { return };
        let typed = input.value().to_owned();
        // Recent files of other folders are rows, too.
        let here = self.rows().iter().filter(|entry| entry.path.parent() == Some(&self.folder));
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

    /// The path that was typed, from the folder on.
    pub(crate) fn typed_path(&self) -> Option<PathBuf> {
        let text = self.typing.as_ref()?.value().trim();
        // A path that was dragged or pasted may come in quotes.
        let text = text.trim_matches(['\'', '"']);
        (!text.is_empty()).then(|| self.folder.join(Path::new(text)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_completed_as_far_as_the_rows_agree() {
        let mut picker = Picker::new(PathBuf::from("/images"));
        let row = |name: &str| Entry { path: PathBuf::from("/images").join(name), kind: EntryKind::Folder };
        picker.entries = Some(vec![row("cf2-2026.04.bin"), row("cf2-2026.08.bin"), row("bolt.bin")]);
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
}
