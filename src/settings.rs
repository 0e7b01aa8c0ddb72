//! What a user has set for good, in `config.toml` of the configuration directory. Read once at the start, never
//! written. A file that cannot be used is reported, and everything is as without it.

use std::fs;
use std::path::{Path, PathBuf};

use directories::{BaseDirs, ProjectDirs};
use serde::Deserialize;

/// Larger is no file of settings, in bytes.
const FILE_MAX: u64 = 64 * 1024;

/// The settings; each is what the terminal or the program says if it is not given.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Settings {
    /// Which characters the screen is drawn with, if not those that the terminal seems to have.
    pub glyphs: Option<GlyphSet>,
    /// When to use colour; `--color` and `NO_COLOR` come first.
    pub color: Option<Color>,
    /// The folder in which images are chosen; `~/` is the home directory.
    pub images: Option<PathBuf>,
    /// How many logs of runs are kept.
    pub logs: Option<usize>,
}

/// The characters of a screen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum GlyphSet {
    /// Any font of today.
    Unicode,
    /// What the Linux console's fonts have.
    Cp437,
    /// Seven bits.
    Ascii,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Color {
    Always,
    Never,
}

impl Settings {
    /// How many logs of jobs are kept.
    pub(crate) fn logs(&self) -> usize {
        const LOGS: usize = 50;
        self.logs.unwrap_or(LOGS).max(1)
    }

    /// The user's, and what is wrong with the file if it cannot be used.
    pub(crate) fn load() -> (Settings, Option<String>) {
        let Some(dirs) = ProjectDirs::from("", "", "cfdfu") else { return (Settings::default(), None) };
        let home = BaseDirs::new().map(|dirs| dirs.home_dir().to_owned());
        Settings::from_file(&dirs.config_dir().join("config.toml"), home.as_deref())
    }

    fn from_file(path: &Path, home: Option<&Path>) -> (Settings, Option<String>) {
        let complaint =
            |why: String| (Settings::default(), Some(format!("{} is not used: {why}", path.display())));
        match fs::metadata(path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return (Settings::default(), None),
            Err(error) => return complaint(error.to_string()),
            Ok(file) if !file.is_file() || file.len() > FILE_MAX => {
                return complaint("it is no file of settings".into());
            }
            Ok(_) => {}
        }
        let text = match fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) => return complaint(error.to_string()),
        };
        match toml::from_str::<Settings>(&text) {
            Ok(mut settings) => {
                settings.images = settings.images.map(|images| match (images.strip_prefix("~"), home) {
                    (Ok(rest), Some(home)) => home.join(rest),
                    _ => images,
                });
                (settings, None)
            }
            Err(error) => {
                let line = error.span().map_or(1, |span| text[..span.start].matches('\n').count() + 1);
                complaint(format!("line {line}: {}", error.message()))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str) -> (Settings, Option<String>) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.toml");
        fs::write(&path, text).unwrap();
        Settings::from_file(&path, Some(Path::new("/home/u")))
    }

    #[test]
    fn what_is_set_is_read_and_what_is_not_is_left_to_the_terminal() {
        let (settings, complaint) =
            load("glyphs = \"ascii\"\ncolor = \"never\"\nimages = \"~/crazyflie\"\nlogs = 5\n");
        assert_eq!(complaint, None);
        let images = Some(PathBuf::from("/home/u/crazyflie"));
        let set =
            Settings { glyphs: Some(GlyphSet::Ascii), color: Some(Color::Never), images, logs: Some(5) };
        assert_eq!(settings, set);
        assert_eq!(load(""), (Settings::default(), None));
        assert_eq!(Settings::from_file(Path::new("/nowhere/config.toml"), None), (Settings::default(), None));
    }

    #[test]
    fn a_broken_file_is_told_and_nothing_of_it_is_used() {
        for text in ["glyphs = \"runes\"", "color = 7", "glyphs", "colour = \"never\"", "logs = -1", "\u{0}"]
        {
            let (settings, complaint) = load(&format!("logs = 5\n{text}\n"));
            assert_eq!(settings, Settings::default(), "{text}");
            assert!(complaint.unwrap().contains("config.toml is not used"), "{text}");
        }
    }
}
