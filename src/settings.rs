//! The user's settings, from `config.toml` in the configuration directory. cfdfu never writes this file. If any part of
//! the file is invalid, cfdfu reports the problem and ignores the whole file.

use std::fs;
use std::path::{Path, PathBuf};

use directories::{BaseDirs, ProjectDirs};
use serde::Deserialize;

/// Maximum size of the settings file, in bytes.
const FILE_MAX: u64 = 64 * 1024;

/// The settings. A setting that is not in the file is detected from the terminal or has a built-in default.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Settings {
    /// The characters to draw the screen with; detected from the terminal if not set.
    pub glyphs: Option<GlyphSet>,
    /// When to use colour; `--color` and `NO_COLOR` take precedence.
    pub color: Option<Color>,
    /// The background to choose colours for; detected from the terminal if not set.
    pub theme: Option<ThemeChoice>,
    /// The folder in which the file picker starts; `~/` is the home directory.
    pub images: Option<PathBuf>,
    /// How many run logs to keep.
    pub logs: Option<usize>,
    /// Where official releases come from.
    pub releases: ReleaseSettings,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct ReleaseSettings {
    /// A folder made by `cfdfu fetch --to`, to use instead of the network.
    #[cfg_attr(
        not(feature = "releases"),
        allow(dead_code, reason = "accepted but ignored without the `releases` feature")
    )]
    pub source: Option<PathBuf>,
}

/// The set of characters to draw the screen with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum GlyphSet {
    /// Characters that any modern font contains.
    Unicode,
    /// The characters in the fonts of the Linux console.
    Cp437,
    Ascii,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum ThemeChoice {
    Auto,
    Dark,
    Light,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Color {
    Always,
    Never,
}

impl Settings {
    /// Returns how many run logs to keep; at least one.
    pub(crate) fn logs(&self) -> usize {
        const LOGS: usize = 50;
        self.logs.unwrap_or(LOGS).max(1)
    }

    /// Loads the user's settings. If the file is ignored, the second value is the reason.
    pub(crate) fn load() -> (Settings, Option<String>) {
        let Some(dirs) = ProjectDirs::from("", "", "cfdfu") else { return (Settings::default(), None) };
        let home = BaseDirs::new().map(|dirs| dirs.home_dir().to_owned());
        Settings::from_file(&dirs.config_dir().join("config.toml"), home.as_deref())
    }

    fn from_file(path: &Path, home: Option<&Path>) -> (Settings, Option<String>) {
        let ignore =
            |why: String| (Settings::default(), Some(format!("{} is ignored: {why}", path.display())));
        match fs::metadata(path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return (Settings::default(), None),
            Err(error) => return ignore(error.to_string()),
            Ok(file) if !file.is_file() || file.len() > FILE_MAX => {
                return ignore("it is not a regular file or is larger than 64 KiB".into());
            }
            Ok(_) => {}
        }
        let text = match fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) => return ignore(error.to_string()),
        };
        match toml::from_str::<Settings>(&text) {
            Ok(mut settings) => {
                let expand_home = |path: PathBuf| match (path.strip_prefix("~"), home) {
                    (Ok(rest), Some(home)) => home.join(rest),
                    _ => path,
                };
                settings.images = settings.images.map(expand_home);
                settings.releases.source = settings.releases.source.map(expand_home);
                (settings, None)
            }
            Err(error) => {
                let line = error.span().map_or(1, |span| text[..span.start].matches('\n').count() + 1);
                ignore(format!("line {line}: {}", error.message()))
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
    fn settings_are_read_and_missing_settings_keep_their_defaults() {
        let (settings, warning) = load(
            "glyphs = \"ascii\"\ncolor = \"never\"\ntheme = \"light\"\nimages = \"~/crazyflie\"\nlogs = 5\n\
             [releases]\nsource = \"~/stick\"\n",
        );
        assert_eq!(warning, None);
        let images = Some(PathBuf::from("/home/u/crazyflie"));
        let expected = Settings {
            glyphs: Some(GlyphSet::Ascii),
            color: Some(Color::Never),
            theme: Some(ThemeChoice::Light),
            images,
            logs: Some(5),
            releases: ReleaseSettings { source: Some(PathBuf::from("/home/u/stick")) },
        };
        assert_eq!(settings, expected);
        assert_eq!(load(""), (Settings::default(), None));
        assert_eq!(Settings::from_file(Path::new("/nowhere/config.toml"), None), (Settings::default(), None));
    }

    #[test]
    fn an_invalid_file_is_reported_and_ignored() {
        for text in ["glyphs = \"runes\"", "color = 7", "glyphs", "colour = \"never\"", "logs = -1", "\u{0}"]
        {
            let (settings, warning) = load(&format!("logs = 5\n{text}\n"));
            assert_eq!(settings, Settings::default(), "{text}");
            assert!(warning.unwrap().contains("config.toml is ignored"), "{text}");
        }
    }
}
