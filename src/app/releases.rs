//! The state of the picker's page of official releases: the list, and the download of one file. The shell makes the
//! requests, and uses the network only after a key press that requests a list or a file.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use super::picker::Picker;
use super::{Goal, Which};
use crate::image::Image;
use crate::releases::{self, Asset, Part, Release, Repo, Trust};
use crate::report::Problem;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReleasesView {
    pub which: Which,
    /// The goal that starts once a file is chosen.
    pub then: Option<Goal>,
    /// The picker to which Tab returns.
    pub picker: Picker,
    /// The folder that replaces GitHub as the source.
    pub folder: Option<PathBuf>,
    /// The list, fetched now or in an earlier run; `None` until it has been loaded.
    pub list: Option<ReleaseList>,
    pub request: Request,
    /// Why the last request failed.
    pub problem: Option<Problem>,
    /// The index of the selected row.
    pub at: usize,
    pub shows_pre: bool,
    /// The platform that the user chose, which overrides the platform of the selected drone.
    pub platform: Option<String>,
}

/// The pending request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    Nothing,
    /// The list that was fetched earlier and is kept on this computer.
    KeptList,
    List,
    File {
        tag: String,
        name: String,
        part: Part,
        /// The number of bytes that have arrived.
        done: u64,
        /// The size of the file in bytes; `None` if it is not known.
        total: Option<u64>,
    },
}

/// A list of releases, the newest first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReleaseList {
    pub releases: Vec<Release>,
    /// The files that are kept on this computer, as tag and name.
    pub kept: BTreeSet<(String, String)>,
    /// The age of the list when it arrived.
    pub age: Duration,
    /// Why the request for a newer list failed; `None` if no such request has failed.
    pub stale_because: Option<Problem>,
}

/// A release file that has been fetched.
#[derive(Clone, Debug)]
pub struct FetchedFile {
    /// The path at which the file is kept; `None` if the file is only in memory.
    pub path: Option<PathBuf>,
    pub trust: Trust,
    pub image: Box<Image>,
}

/// An answer to a request.
#[derive(Clone, Debug)]
pub enum ReleasesMsg {
    /// `None` if no list was fetched earlier.
    Listed(Result<Option<ReleaseList>, Problem>),
    /// The number of bytes that have arrived, and the size of the file if it is known.
    Bytes(u64, Option<u64>),
    Fetched(Result<Box<FetchedFile>, Problem>),
}

/// A request to the shell. Only [`ReleasesEffect::List`] and [`ReleasesEffect::File`] may use the network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReleasesEffect {
    KeptList(Repo),
    List(Repo),
    /// A file of the release with this tag.
    File(String, Part),
    /// A file of the release with this tag, from this computer only.
    KeptFile(String, Part),
    /// Cancel the last request.
    Stop,
}

impl ReleasesView {
    /// Creates the page, which waits for the list that is kept on this computer.
    pub fn new(which: Which, then: Option<Goal>, picker: Picker, folder: Option<PathBuf>) -> ReleasesView {
        ReleasesView {
            which,
            then,
            picker,
            folder,
            list: None,
            request: Request::KeptList,
            problem: None,
            at: 0,
            shows_pre: false,
            platform: None,
        }
    }

    pub(crate) fn repo(&self) -> Repo {
        match self.which {
            Which::Image => Repo::Firmware,
            Which::Loader => Repo::Loader,
        }
    }

    /// Returns the releases that have a usable file, including pre-releases only if the user shows them.
    pub(crate) fn rows(&self) -> Vec<&Release> {
        let releases = self.list.iter().flat_map(|list| &list.releases);
        releases.filter(|it| (self.shows_pre || !it.prerelease) && self.has_files(it)).collect()
    }

    fn has_files(&self, release: &Release) -> bool {
        match self.which {
            Which::Image => release.assets.iter().any(|asset| releases::platform_of(asset).is_some()),
            Which::Loader => releases::asset(release, &Part::Loader).is_ok(),
        }
    }

    pub(crate) fn has_pre(&self) -> bool {
        self.list.as_ref().is_some_and(|list| list.releases.iter().any(|release| release.prerelease))
    }

    pub(crate) fn selected(&self) -> Option<&Release> {
        self.rows().get(self.at).copied()
    }

    pub(crate) fn step(&mut self, by: isize) {
        self.problem = None;
        let last = self.rows().len().saturating_sub(1);
        self.at = self.at.saturating_add_signed(by).min(last);
    }

    /// Returns the platform of the file to fetch: the platform that the user chose, or else that of the drone's board.
    pub(crate) fn platform<'a>(&'a self, board: Option<&str>) -> Option<&'a str> {
        self.platform.as_deref().or_else(|| releases::platform_for(board?))
    }

    /// Returns the part to fetch, or why the part is not known yet.
    pub(crate) fn part(&self, board: Option<&str>) -> Result<Part, &'static str> {
        match self.which {
            Which::Loader => Ok(Part::Loader),
            Which::Image => self
                .platform(board)
                .map(|platform| Part::Firmware(platform.to_owned()))
                .ok_or("the drone's board is not known. Press v to choose a board"),
        }
    }

    /// Returns the file of a release for the chosen platform, or why the release does not have such a file.
    pub(crate) fn asset<'r>(&self, release: &'r Release, board: Option<&str>) -> Result<&'r Asset, String> {
        releases::asset(release, &self.part(board)?).map_err(|error| error.to_string())
    }

    /// Returns the file to fetch, or why no file can be fetched.
    pub(crate) fn file(&self, board: Option<&str>) -> Result<(&Release, &Asset), String> {
        let release = self.selected().ok_or("there are no releases to choose from")?;
        let asset = self.asset(release, board)?;
        match &self.folder {
            Some(folder) if !self.is_kept(release, asset) => {
                Err(format!("{} is not in {}", asset.name, folder.display()))
            }
            _ => Ok((release, asset)),
        }
    }

    pub(crate) fn is_kept(&self, release: &Release, asset: &Asset) -> bool {
        let file = (release.tag.clone(), asset.name.clone());
        self.list.as_ref().is_some_and(|list| list.kept.contains(&file))
    }

    /// Chooses the next platform of the selected release.
    pub(crate) fn next_platform(&mut self, board: Option<&str>) {
        let Some(release) = self.selected() else { return };
        let mut platforms: Vec<&str> = release.assets.iter().filter_map(releases::platform_of).collect();
        platforms.dedup();
        let at = self.platform(board).and_then(|current| platforms.iter().position(|it| *it == current));
        let next = at.map_or(0, |at| (at + 1) % platforms.len().max(1));
        self.platform = platforms.get(next).map(|platform| (*platform).to_owned());
    }

    /// Changes the rows. If the selected release is still listed, it stays selected; otherwise, the first row
    /// is selected.
    pub(crate) fn change_rows(&mut self, change: impl FnOnce(&mut ReleasesView)) {
        let tag = self.selected().map(|release| release.tag.clone());
        change(self);
        let at = tag.and_then(|tag| self.rows().iter().position(|release| release.tag == tag));
        self.at = at.unwrap_or(0);
    }
}
