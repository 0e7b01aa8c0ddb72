//! The picker's page of official releases: the list, and the download of one file. This is only state. The network is
//! asked by the shell, and only after a key that says so.

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
    /// The folder to which Tab returns.
    pub picker: Picker,
    /// `None` until GitHub was asked, now or earlier.
    pub list: Option<ReleaseList>,
    pub request: Request,
    /// Why the last request failed.
    pub problem: Option<Problem>,
    /// The index of the selected row.
    pub at: usize,
    pub shows_pre: bool,
    /// The platform that the user chose, instead of that of the selected drone.
    pub platform: Option<String>,
}

/// What has been asked for and has not arrived yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    Nothing,
    /// The list that was fetched earlier, from this computer.
    KeptList,
    List,
    File {
        name: String,
        /// In bytes.
        done: u64,
        /// In bytes; `None` if it is not known.
        total: Option<u64>,
    },
}

/// A list of releases, the newest first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReleaseList {
    pub releases: Vec<Release>,
    /// The files that are on this computer, as tag and name.
    pub kept: BTreeSet<(String, String)>,
    /// How old the list was when it arrived.
    pub age: Duration,
    /// The folder that it is from, instead of GitHub.
    pub folder: Option<PathBuf>,
    /// Why it is an older list.
    pub stale_because: Option<Problem>,
}

/// A file of a release that has arrived.
#[derive(Clone, Debug)]
pub struct ArrivedFile {
    pub tag: String,
    pub name: String,
    /// Where it is kept, if it is.
    pub path: Option<PathBuf>,
    pub trust: Trust,
    pub image: Box<Image>,
}

/// Where a chosen file came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReleaseFile {
    pub path: PathBuf,
    pub tag: String,
    /// Otherwise the file is only in memory and cannot be read again.
    pub is_kept: bool,
}

/// The answer to a request.
#[derive(Clone, Debug)]
pub enum ReleasesMsg {
    /// `None` if no list was fetched earlier.
    Listed(Result<Option<ReleaseList>, Problem>),
    /// How many bytes of a file have arrived, and how many there are.
    Bytes(u64, Option<u64>),
    Arrived(Result<Box<ArrivedFile>, Problem>),
}

/// A request to the shell. Only [`ReleasesEffect::List`] and [`ReleasesEffect::File`] may use the network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReleasesEffect {
    KeptList(Repo),
    List(Repo),
    /// A file of the release with this tag.
    File(String, Part),
    /// Give up the last request.
    Stop,
}

impl ReleasesView {
    /// The page as it opens, while the kept list is being read.
    pub fn new(which: Which, then: Option<Goal>, picker: Picker) -> ReleasesView {
        ReleasesView {
            which,
            then,
            picker,
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

    /// The releases that have a file for some board.
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

    pub(crate) fn marked(&self) -> Option<&Release> {
        self.rows().get(self.at).copied()
    }

    pub(crate) fn step(&mut self, by: isize) {
        let last = self.rows().len().saturating_sub(1);
        self.at = self.at.saturating_add_signed(by).min(last);
    }

    /// The platform of the file to take: the chosen one, or that of the drone's board.
    pub(crate) fn platform<'a>(&'a self, board: Option<&str>) -> Option<&'a str> {
        self.platform.as_deref().or_else(|| releases::platform(board?))
    }

    /// The part to take, or why there is none yet.
    pub(crate) fn part(&self, board: Option<&str>) -> Result<Part, &'static str> {
        match self.which {
            Which::Loader => Ok(Part::Loader),
            Which::Image => self
                .platform(board)
                .map(|platform| Part::Firmware(platform.to_owned()))
                .ok_or("the drone's board is not known. Press v to choose a board"),
        }
    }

    /// The file to take, or why there is none.
    pub(crate) fn file(&self, board: Option<&str>) -> Result<(&Release, &Asset), String> {
        let release = self.marked().ok_or("no release is listed")?;
        let part = self.part(board)?;
        let asset = releases::asset(release, &part).map_err(|error| error.to_string())?;
        Ok((release, asset))
    }

    pub(crate) fn is_kept(&self, release: &Release, asset: &Asset) -> bool {
        let file = (release.tag.clone(), asset.name.clone());
        self.list.as_ref().is_some_and(|list| list.kept.contains(&file))
    }

    /// Chooses the next platform of the selected release.
    pub(crate) fn next_platform(&mut self, board: Option<&str>) {
        let Some(release) = self.marked() else { return };
        let platforms: Vec<&str> = release.assets.iter().filter_map(releases::platform_of).collect();
        let now = self.platform(board).and_then(|now| platforms.iter().position(|it| *it == now));
        let next = now.map_or(0, |now| (now + 1) % platforms.len().max(1));
        self.platform = platforms.get(next).map(|platform| (*platform).to_owned());
    }

    /// Puts a list on the page, and keeps the selected release selected.
    pub(crate) fn show(&mut self, list: ReleaseList) {
        let tag = self.marked().map(|release| release.tag.clone());
        self.list = Some(list);
        let at = tag.and_then(|tag| self.rows().iter().position(|release| release.tag == tag));
        self.at = at.unwrap_or(0);
    }
}
