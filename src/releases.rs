//! Bitcraze's releases on GitHub: which releases exist, which file is for which board, and which errors can occur. This
//! file does no I/O: it only parses the server's responses, which are untrusted.
//!
//! `net` is the only file that opens a network connection, `cache` stores lists and files on disk, and `library`
//! decides which of these two to use.

#![cfg_attr(not(feature = "releases"), allow(dead_code, reason = "the interface uses only part of it"))]

use std::fmt;
use std::str::FromStr;

use serde::Deserialize;
use thiserror::Error;

use crate::crazyflie;
use crate::image::Sha256;

#[cfg(feature = "releases")]
pub(crate) mod cache;
#[cfg(feature = "releases")]
pub(crate) mod library;
#[cfg(feature = "releases")]
pub(crate) mod net;

/// Maximum number of releases to keep from a list. cfdfu requests a page of thirty releases.
const RELEASES_MAX: usize = 100;
/// Maximum number of files to keep from a release. Bitcraze's releases have six files.
const ASSETS_MAX: usize = 50;
/// Maximum length of a tag or a file name. Both become parts of paths.
const NAME_MAX: usize = 80;
/// Maximum length of the reason why a list cannot be read, in characters.
const REASON_MAX: usize = 200;
/// Maximum number of names that an error lists.
const LISTED_MAX: usize = 8;

/// A GitHub repository where Bitcraze publishes files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repo {
    /// The tested combination of all parts: one `.zip` for each platform.
    Firmware,
    /// The bootloader of the STM32.
    Loader,
}

impl Repo {
    /// Returns the path of the repository on GitHub.
    pub fn path(self) -> &'static str {
        match self {
            Repo::Firmware => "bitcraze/crazyflie-release",
            Repo::Loader => "bitcraze/crazyflie2-stm-bootloader",
        }
    }

    /// Returns the name of the repository without its owner, for the cache.
    pub(crate) fn name(self) -> &'static str {
        self.path().rsplit('/').next().unwrap_or_default()
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Release {
    pub tag: String,
    /// The date of publication, as in `2026-08-24`.
    pub published: String,
    pub prerelease: bool,
    pub assets: Vec<Asset>,
}

/// A file of a release.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asset {
    pub name: String,
    /// The size in bytes.
    pub size: u64,
    /// The hash that GitHub reports. GitHub reports no hash for files from before June 2025.
    pub sha256: Option<Sha256>,
}

/// The release that the user requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// The newest release that is not a pre-release.
    Latest,
    Tag(String),
}

impl FromStr for Wanted {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Wanted, Self::Err> {
        match text {
            "latest" => Ok(Wanted::Latest),
            tag if is_safe_name(tag) => Ok(Wanted::Tag(tag.to_owned())),
            _ => Err("expected a version such as 2026.08, or latest"),
        }
    }
}

impl fmt::Display for Wanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Wanted::Latest => "latest",
            Wanted::Tag(tag) => tag,
        })
    }
}

/// Returns whether a tag or a file name from a server is safe as part of a path.
fn is_safe_name(text: &str) -> bool {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    !text.is_empty() && text.len() <= NAME_MAX && text.chars().all(is_plain) && !text.starts_with('.')
}

/// The fields of GitHub's response that cfdfu reads.
#[derive(Deserialize)]
struct Entry {
    tag_name: String,
    published_at: Option<String>,
    #[serde(default)]
    prerelease: bool,
    #[serde(default)]
    draft: bool,
    #[serde(default)]
    assets: Vec<AssetEntry>,
}

#[derive(Deserialize)]
struct AssetEntry {
    name: String,
    size: u64,
    digest: Option<String>,
}

/// Parses a list of releases and sorts it, newest first. Omits drafts, files with a malformed hash, and any release or
/// file whose name is not safe as part of a path.
pub fn parse(json: &[u8]) -> Result<Vec<Release>, ReleaseError> {
    // serde's message quotes the unexpected value, which may be the whole list.
    let bad = |error: serde_json::Error| {
        ReleaseError::BadList(error.to_string().chars().take(REASON_MAX).collect())
    };
    let entries: Vec<Entry> = serde_json::from_slice(json).map_err(bad)?;
    let asset = |entry: AssetEntry| {
        let sha256 = entry.digest.as_deref().map(str::parse).transpose().ok()?;
        is_safe_name(&entry.name).then_some(Asset { name: entry.name, size: entry.size, sha256 })
    };
    let release = |entry: Entry| {
        let published = entry.published_at.as_deref().and_then(|time| time.get(..10)).unwrap_or_default();
        let published = published.chars().filter(|c| c.is_ascii_digit() || *c == '-').collect();
        let is_usable = !entry.draft && is_safe_name(&entry.tag_name);
        let assets = entry.assets.into_iter().filter_map(asset).take(ASSETS_MAX).collect();
        let release = Release { tag: entry.tag_name, published, prerelease: entry.prerelease, assets };
        is_usable.then_some(release)
    };
    let mut releases: Vec<Release> = entries.into_iter().filter_map(release).take(RELEASES_MAX).collect();
    // The sort is stable: releases of the same day stay in GitHub's order.
    releases.sort_by(|one, two| two.published.cmp(&one.published));
    Ok(releases)
}

/// Returns the wanted release from a list.
pub(crate) fn choose<'r>(releases: &'r [Release], wanted: &Wanted) -> Result<&'r Release, ReleaseError> {
    let found = match wanted {
        Wanted::Latest => releases.iter().find(|release| !release.prerelease),
        Wanted::Tag(tag) => releases.iter().find(|release| release.tag == *tag),
    };
    found.ok_or_else(|| ReleaseError::NoSuchRelease {
        wanted: wanted.to_string(),
        available: releases.iter().map(|release| release.tag.clone()).take(LISTED_MAX).collect(),
    })
}

/// The part of the drone's software that a file contains.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// The firmware for this platform, for example `cf2`.
    Firmware(String),
    Loader,
}

impl Part {
    pub(crate) fn repo(&self) -> Repo {
        match self {
            Part::Firmware(_) => Repo::Firmware,
            Part::Loader => Repo::Loader,
        }
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Part::Firmware(platform) => write!(f, "firmware for {platform}"),
            Part::Loader => f.write_str("bootloader"),
        }
    }
}

/// Returns the platform for a board code or a platform name. The Flapper has no board code of its own, so only its name
/// selects it.
pub(crate) fn platform_for(board: &str) -> Option<&'static str> {
    const FLAPPER: &str = "flapper";
    let by_code = crazyflie::platform_of(&board.to_ascii_uppercase());
    let by_name = || crazyflie::BOARDS.iter().map(|it| it.platform).find(|platform| *platform == board);
    by_code.or_else(by_name).or_else(|| (board == FLAPPER).then_some(FLAPPER))
}

/// Returns the platform in the name of a release file, for example `cf2` in `firmware-cf2-2026.08.zip`.
pub(crate) fn platform_of(asset: &Asset) -> Option<&str> {
    let (platform, _) = asset.name.strip_prefix("firmware-")?.strip_suffix(".zip")?.split_once('-')?;
    Some(platform)
}

/// Returns the file of a release that contains this part.
pub(crate) fn asset<'r>(release: &'r Release, part: &Part) -> Result<&'r Asset, ReleaseError> {
    let is_for_part = |asset: &&Asset| match part {
        Part::Firmware(platform) => platform_of(asset) == Some(platform),
        Part::Loader => {
            asset.name.strip_prefix("cf2loader-").and_then(|rest| rest.strip_suffix(".bin")).is_some()
        }
    };
    let mut found = release.assets.iter().filter(is_for_part);
    match (found.next(), found.next()) {
        (Some(asset), None) => Ok(asset),
        (None, _) => Err(ReleaseError::NoAsset {
            tag: release.tag.clone(),
            part: part.to_string(),
            available: release.assets.iter().map(|asset| asset.name.clone()).take(LISTED_MAX).collect(),
        }),
        (Some(_), Some(_)) => {
            Err(ReleaseError::SeveralAssets { tag: release.tag.clone(), part: part.to_string() })
        }
    }
}

/// What a file was checked against. Bitcraze does not sign its files, so no stronger check is possible.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trust {
    /// The file has the SHA-256 that GitHub reports, or reported when the file was first fetched.
    AsPublished,
    /// GitHub has not reported a SHA-256, but the file has not changed since it was first fetched.
    AsBefore,
    /// GitHub reports no SHA-256, and the file was not fetched before. Only the file's structure was checked.
    FirstUse,
    /// GitHub's list is not available, so only the structure of the file was checked.
    NoList,
    /// The file is from a folder, and cfdfu did not ask GitHub for the file's SHA-256.
    FromFolder,
}

impl Trust {
    pub(crate) fn json_name(self) -> &'static str {
        match self {
            Trust::AsPublished => "published",
            Trust::AsBefore => "as-before",
            Trust::FirstUse => "first-use",
            Trust::NoList => "not-asked",
            Trust::FromFolder => "from-folder",
        }
    }
}

impl fmt::Display for Trust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Trust::AsPublished => "its SHA-256 is the one that GitHub published",
            Trust::AsBefore => "no SHA-256 from GitHub; the file has not changed since it was first fetched",
            Trust::FirstUse => "GitHub published no SHA-256, so only the structure could be checked",
            Trust::NoList => "GitHub's SHA-256 is unknown, so only the structure could be checked",
            Trust::FromFolder => {
                "from the folder; GitHub was not asked, so only the structure could be checked"
            }
        })
    }
}

/// Why a release cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ReleaseError {
    #[error("{host} cannot be reached: {why}")]
    Unreachable { host: String, why: String },
    #[error("{host} does not answer")]
    NoAnswer { host: String },
    #[error("the proxy {proxy} does not work: {why}")]
    Proxy { proxy: String, why: String },
    #[error("the certificate of {host} is not accepted: {why}")]
    Certificate { host: String, why: String },
    /// `until` is in seconds since 1970, if the server reports it.
    #[error("{host} allows no more requests from this address for now")]
    RateLimited { host: String, until: Option<u64> },
    #[error("{host} answered with status {status}")]
    Status { host: String, status: u16 },
    #[error("{from} redirects to {to}, which does not belong to GitHub")]
    ForeignHost { from: String, to: String },
    #[error("{host} redirects too often")]
    TooManyRedirects { host: String },
    #[error("the list of releases is not in GitHub's format: {0}")]
    BadList(String),
    #[error("the response from {host} exceeds {most} bytes")]
    TooLong { host: String, most: u64 },
    #[error("the connection to {host} was lost after {done} bytes")]
    Cut { host: String, done: u64 },
    #[error("no release matches {wanted}")]
    NoSuchRelease { wanted: String, available: Vec<String> },
    #[error("release {tag} has no {part}")]
    NoAsset { tag: String, part: String, available: Vec<String> },
    #[error("release {tag} has more than one file of this kind: {part}")]
    SeveralAssets { tag: String, part: String },
    #[error("{name} is {found} bytes long, but {expected} were published")]
    OtherSize { name: String, expected: u64, found: u64 },
    #[error("{name} has the SHA-256 {}, but {} was published", found.in_short(), expected.in_short())]
    OtherDigest { name: String, expected: Sha256, found: Sha256 },
    #[error("{name} has changed since it was first fetched: its SHA-256 was {} and is now {}", before.in_short(), found.in_short())]
    Replaced { name: String, before: Sha256, found: Sha256 },
    #[error("{name} is not an image: {why}")]
    NotAnImage { name: String, why: String },
    #[error("there is no saved copy of {name}")]
    NotKept { name: String },
    #[error("{place} could not be saved: {why}")]
    Disk { place: String, why: String },
    #[error("stopped")]
    Stopped,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(tag: &str, published: &str, more: &str, assets: &[&str]) -> String {
        let asset = |name: &&str| format!(r#"{{"name":"{name}","size":5,"digest":null}}"#);
        let assets: Vec<String> = assets.iter().map(asset).collect();
        format!(
            r#"{{"tag_name":"{tag}","published_at":"{published}"{more},"assets":[{}],"unknown":1}}"#,
            assets.join(",")
        )
    }

    #[test]
    fn a_list_is_sorted_and_unsafe_names_are_omitted() {
        let hostile = [
            "../evil.zip",
            "a/b.zip",
            "a\\\\b.zip",
            ".hidden",
            "",
            "a b.zip",
            "ä.zip",
            "\\u001b[31m.zip",
            &"x".repeat(NAME_MAX + 1),
        ];
        let entries = [
            list("2025.02", "2025-02-20T10:00:00Z", "", &["firmware-cf2-2025.02.zip"]),
            list("2026.09-rc", "2026-09-01T10:00:00Z", r#","prerelease":true"#, &[]),
            list("2026.08", "2026-08-24T10:00:00Z", "", &hostile),
            list("2099.01", "2099-01-01T10:00:00Z", r#","draft":true"#, &[]),
            list("../..", "2098-01-01T10:00:00Z", "", &[]),
        ];
        let releases = parse(format!("[{}]", entries.join(",")).as_bytes()).unwrap();
        let tags: Vec<&str> = releases.iter().map(|release| release.tag.as_str()).collect();
        assert_eq!(tags, ["2026.09-rc", "2026.08", "2025.02"]);
        assert_eq!(releases[1].assets, []);
        // `latest` does not select the pre-release, although the pre-release is newer.
        assert_eq!(choose(&releases, &Wanted::Latest).unwrap().tag, "2026.08");
        assert_eq!(choose(&releases, &Wanted::Tag("2026.09-rc".to_owned())).unwrap().tag, "2026.09-rc");
        let long = format!("\"{}\"", "A".repeat(100_000));
        for text in ["", "{}", "[{}]", "[1]", "<html>", &"[".repeat(100_000), &long] {
            let Err(ReleaseError::BadList(why)) = parse(text.as_bytes()) else { panic!("{text:.20}") };
            assert!(why.len() <= REASON_MAX, "{text:.20}");
        }
    }

    #[test]
    fn each_board_has_one_file_and_the_flapper_is_selected_by_name() {
        let names =
            ["firmware-cf2-2026.08.zip", "firmware-cf21bl-2026.08.zip", "firmware-flapper-2026.08.zip"];
        let releases = parse(format!("[{}]", list("2026.08", "", "", &names)).as_bytes()).unwrap();
        let file = |board: &str| {
            let part = Part::Firmware(platform_for(board).unwrap().to_owned());
            asset(&releases[0], &part).map(|asset| asset.name.clone())
        };
        for (board, name) in
            [("CF20", names[0]), ("cf21", names[0]), ("C21B", names[1]), ("flapper", names[2])]
        {
            assert_eq!(file(board).as_deref(), Ok(name), "{board}");
        }
        assert!(matches!(file("CB10"), Err(ReleaseError::NoAsset { .. })));
        assert_eq!(platform_for("X999"), None);
        let twice =
            parse(format!("[{}]", list("1", "", "", &["cf2loader-1.0.bin", "cf2loader-1.bin"])).as_bytes());
        assert!(matches!(asset(&twice.unwrap()[0], &Part::Loader), Err(ReleaseError::SeveralAssets { .. })));
    }

    #[test]
    fn a_version_is_latest_or_a_tag() {
        assert_eq!("latest".parse(), Ok(Wanted::Latest));
        assert_eq!("2026.08".parse(), Ok(Wanted::Tag("2026.08".to_owned())));
        for text in ["", "..", "../2026.08", "a/b", "2026 08"] {
            assert!(text.parse::<Wanted>().is_err(), "{text}");
        }
    }
}
