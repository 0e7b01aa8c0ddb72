//! Returns releases from this computer if they are in the cache, otherwise from the network. Every file is checked
//! before it is used: its size and hash against the published or previously fetched values, and its structure.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::cache::{Cache, KeptList, PartialDownload, Pin, Place};
use super::net::{FileRequest, ListAnswer, OnBytes, Remote, Sink};
use super::{Asset, Part, Release, ReleaseError, Repo, Trust, Wanted, asset, choose, parse};
use crate::clock;
use crate::image::{FILE_MAX, Image, Sha256};

/// How long a list is used before it is requested again, in seconds. GitHub allows 60 requests per hour from one
/// address.
const LIST_AGE: u64 = 3600;

pub(crate) struct Library {
    /// `None` without a home directory.
    cache: Option<Cache>,
    /// `None` if the network must not be used.
    remote: Option<Remote>,
    /// Whether to request the list even if the cached list is recent.
    refreshes: bool,
}

/// A list of releases.
pub(crate) struct List {
    pub releases: Vec<Release>,
    /// When the list was fetched, in seconds since 1970.
    pub fetched: u64,
    /// Whether the list was just fetched.
    is_fresh: bool,
    /// Why the list could not be refreshed; `None` if it is recent or must not be requested.
    pub stale_because: Option<ReleaseError>,
}

/// A file of a release.
pub(crate) struct Fetched {
    pub tag: String,
    pub name: String,
    pub image: Image,
    /// The path of the file, or why the file could not be saved.
    pub path: io::Result<PathBuf>,
    pub sha256: Sha256,
    pub trust: Trust,
    /// Why the list from which the release was chosen could not be refreshed.
    pub stale_because: Option<ReleaseError>,
}

/// The content of a file, and why the file could not be saved.
struct Download {
    bytes: Vec<u8>,
    sha256: Sha256,
    saved: io::Result<()>,
}

impl Library {
    /// Creates a library of the releases in a folder, such as one that `fetch --to` filled on another computer.
    pub(crate) fn of_folder(folder: &Path) -> Library {
        Library { cache: Some(Cache::at(folder, true)), remote: None, refreshes: false }
    }

    /// Creates a library that fetches releases to a folder.
    pub(crate) fn to_folder(folder: &Path) -> Library {
        Library { cache: Some(Cache::at(folder, false)), remote: Some(Remote::new()), refreshes: false }
    }

    /// Creates a library of the current user's releases that does not use the network.
    pub(crate) fn offline(is_read_only: bool) -> Library {
        Library { cache: Cache::of_user(is_read_only), remote: None, refreshes: false }
    }

    /// Creates a library of the current user's releases that fetches any other release from the network. If `refreshes`
    /// is true, the library requests the list even if the cached list is recent.
    pub(crate) fn online(is_read_only: bool, refreshes: bool) -> Library {
        Library { cache: Cache::of_user(is_read_only), remote: Some(Remote::new()), refreshes }
    }

    /// Returns the releases, newest first. If the network fails, returns the cached list, if any.
    pub(crate) fn list(&self, repo: Repo) -> Result<List, ReleaseError> {
        self.list_now(repo, self.refreshes)
    }

    fn list_now(&self, repo: Repo, refreshes: bool) -> Result<List, ReleaseError> {
        let now = clock::unix_seconds();
        // If cfdfu can ask GitHub, ignore the list in a folder that the user named, because this list is not trusted.
        let kept = self.cache.as_ref().filter(|cache| !(cache.is_foreign() && self.remote.is_some()));
        let kept = kept.and_then(|cache| cache.list(repo));
        let kept = kept.and_then(|list| Some((parse(list.json.as_bytes()).ok()?, list)));
        // A list with a time in the future is not recent: the list was saved while the clock was wrong.
        let is_recent = |list: &KeptList| list.fetched <= now && now - list.fetched < LIST_AGE;
        if let Some((releases, list)) = &kept
            && (self.remote.is_none() || is_recent(list) && !refreshes)
        {
            let (releases, fetched) = (releases.clone(), list.fetched);
            return Ok(List { releases, fetched, is_fresh: false, stale_because: None });
        }
        let Some(remote) = &self.remote else {
            return Err(ReleaseError::NotKept { name: "the list of releases".to_owned() });
        };
        let etag = kept.as_ref().and_then(|(_, list)| list.etag.as_deref());
        let answer = remote.list(repo, etag).and_then(|answer| match answer {
            ListAnswer::New { json, etag } => {
                let releases = parse(json.as_bytes())?;
                Ok((releases, KeptList { fetched: now, etag, json }))
            }
            ListAnswer::Same => {
                let same = kept.clone().map(|(releases, list)| (releases, KeptList { fetched: now, ..list }));
                same.ok_or_else(|| ReleaseError::BadList("it is empty".to_owned()))
            }
        });
        match (answer, kept) {
            (Ok((releases, list)), _) => {
                if let Some(cache) = self.cache.as_ref().filter(|cache| !cache.is_read_only()) {
                    // If this fails, the next command requests the list again.
                    let _ = cache.keep_list(repo, &list);
                }
                Ok(List { releases, fetched: now, is_fresh: true, stale_because: None })
            }
            // The response may have been changed on its way from GitHub, so report the error.
            (
                Err(
                    error @ (ReleaseError::ForeignHost { .. }
                    | ReleaseError::Certificate { .. }
                    | ReleaseError::BadList(_)
                    | ReleaseError::TooLong { .. }),
                ),
                _,
            )
            | (Err(error), None) => Err(error),
            (Err(stale_because), Some((releases, list))) => Ok(List {
                releases,
                fetched: list.fetched,
                is_fresh: false,
                stale_because: Some(stale_because),
            }),
        }
    }

    /// Whether files are fetched to a folder that the user named, which may already contain unknown files.
    fn is_target(&self) -> bool {
        self.remote.is_some() && self.cache.as_ref().is_some_and(Cache::is_foreign)
    }

    /// Whether this file of a release is in the cache.
    pub(crate) fn has(&self, repo: Repo, tag: &str, name: &str) -> bool {
        let place = Place { repo, tag, name };
        self.cache.as_ref().is_some_and(|cache| cache.pin(place).is_some() && cache.path(place).is_file())
    }

    /// Returns the file of a release for this part. If the user named the release and its file is in the cache, no
    /// request is sent, unless the library refreshes the list or fetches to a folder.
    pub(crate) fn file(
        &self,
        wanted: &Wanted,
        part: &Part,
        on_bytes: OnBytes<'_>,
    ) -> Result<Fetched, ReleaseError> {
        if let (Wanted::Tag(tag), false, false) = (wanted, self.refreshes, self.is_target())
            && let Some(fetched) = self.file_in_cache(tag, part)?
        {
            return Ok(fetched);
        }
        let list = self.list(part.repo());
        // The release may be newer than the cached list.
        let list = match list {
            Ok(list)
                if choose(&list.releases, wanted).is_err()
                    && !list.is_fresh
                    && list.stale_because.is_none() =>
            {
                self.list_now(part.repo(), true)
            }
            list => list,
        };
        let (tag, asset, stale_because, has_list) = match list {
            Ok(list) => {
                let release = choose(&list.releases, wanted)?;
                (release.tag.clone(), asset(release, part)?.clone(), list.stale_because, true)
            }
            // Without the API, a file can still be fetched by its name.
            Err(error) if is_overloaded(&error) => {
                let Some(remote) = &self.remote else { return Err(error) };
                let tag = match wanted {
                    Wanted::Tag(tag) => tag.clone(),
                    Wanted::Latest => remote.latest(part.repo()).map_err(|_| error.clone())?,
                };
                let name = match part {
                    Part::Firmware(platform) => format!("firmware-{platform}-{tag}.zip"),
                    Part::Loader => format!("cf2loader-{tag}.bin"),
                };
                (tag, Asset { name, size: 0, sha256: None }, None, false)
            }
            Err(error) => return Err(error),
        };
        let place = Place { repo: part.repo(), tag: &tag, name: &asset.name };
        let fetched = self.fetch(place, &asset, has_list, on_bytes)?;
        Ok(Fetched { stale_because, ..fetched })
    }

    /// Returns the file of this release for this part from the cache, if any.
    fn file_in_cache(&self, tag: &str, part: &Part) -> Result<Option<Fetched>, ReleaseError> {
        let Some(cache) = &self.cache else { return Ok(None) };
        let names = cache.names(part.repo(), tag);
        let assets = names.into_iter().map(|name| Asset { name, size: 0, sha256: None }).collect();
        let release = Release { tag: tag.to_owned(), published: String::new(), prerelease: false, assets };
        let Ok(asset) = asset(&release, part) else { return Ok(None) };
        let place = Place { repo: part.repo(), tag, name: &asset.name };
        let Some((bytes, pin)) = cache.file(place) else { return Ok(None) };
        let trust = match pin.is_published {
            _ if cache.is_foreign() => Trust::FromFolder,
            true => Trust::AsPublished,
            false => Trust::AsBefore,
        };
        self.parse_or_remove(place, bytes, pin.sha256, trust).map(Some)
    }

    /// Returns a file from the cache, or fetches it.
    fn fetch(
        &self,
        place: Place<'_>,
        asset: &Asset,
        has_list: bool,
        on_bytes: OnBytes<'_>,
    ) -> Result<Fetched, ReleaseError> {
        let cache = self.cache.as_ref();
        let pin = cache.filter(|cache| !cache.is_foreign()).and_then(|cache| cache.pin(place));
        // A published file should never change. If GitHub now reports a different hash, the user must decide.
        if let (Some(pin), Some(now)) = (pin, asset.sha256)
            && pin.sha256 != now
        {
            return Err(ReleaseError::Replaced {
                name: place.name.to_owned(),
                before: pin.sha256,
                found: now,
            });
        }
        // A target folder may contain any file, so a file in this folder is usable only if GitHub reports its hash.
        let is_usable = |(_, kept): &(Vec<u8>, Pin)| match asset.sha256 {
            Some(expected) => kept.sha256 == expected,
            None => !self.is_target(),
        };
        let Download { bytes, sha256: found, mut saved } =
            match cache.and_then(|cache| cache.file(place)).filter(is_usable) {
                Some((bytes, kept)) => Download { bytes, sha256: kept.sha256, saved: Ok(()) },
                None => self.download(place, asset, has_list, on_bytes)?,
            };
        let name = place.name.to_owned();
        let trust = match (asset.sha256, pin) {
            (Some(expected), _) if expected != found => {
                self.forget(place);
                return Err(ReleaseError::OtherDigest { name, expected, found });
            }
            _ if self.remote.is_none() && cache.is_some_and(Cache::is_foreign) => Trust::FromFolder,
            (Some(_), _) => Trust::AsPublished,
            (None, Some(pin)) if pin.sha256 != found => {
                self.forget(place);
                return Err(ReleaseError::Replaced { name, before: pin.sha256, found });
            }
            (None, Some(pin)) if pin.is_published => Trust::AsPublished,
            (None, Some(_)) => Trust::AsBefore,
            (None, None) if has_list => Trust::FirstUse,
            (None, None) => Trust::NoList,
        };
        let fetched = self.parse_or_remove(place, bytes, found, trust)?;
        let pin = Pin { sha256: found, is_published: trust == Trust::AsPublished };
        if let Some(cache) = cache.filter(|cache| !cache.is_read_only()) {
            // Without its hash, a file does not count as saved.
            saved = saved.and(cache.keep_pin(place, pin));
        }
        Ok(Fetched { path: saved.and(fetched.path), ..fetched })
    }

    /// Parses the file, and removes it if it is not an image.
    fn parse_or_remove(
        &self,
        place: Place<'_>,
        bytes: Vec<u8>,
        sha256: Sha256,
        trust: Trust,
    ) -> Result<Fetched, ReleaseError> {
        let image = Image::parse(bytes).map_err(|error| {
            self.forget(place);
            ReleaseError::NotAnImage { name: place.name.to_owned(), why: error.to_string() }
        })?;
        let path = self.cache.as_ref().map(|cache| cache.path(place)).filter(|path| path.is_file());
        let path = path.ok_or_else(|| io::Error::other("the file is only in memory"));
        Ok(Fetched {
            tag: place.tag.to_owned(),
            name: place.name.to_owned(),
            image,
            path,
            sha256,
            trust,
            stale_because: None,
        })
    }

    fn forget(&self, place: Place<'_>) {
        if let Some(cache) = &self.cache {
            cache.remove(place);
        }
    }

    /// Downloads a file into the cache, or into memory if it cannot be saved. Returns its content, its hash, and the
    /// reason if it could not be saved.
    fn download(
        &self,
        place: Place<'_>,
        asset: &Asset,
        has_list: bool,
        on_bytes: OnBytes<'_>,
    ) -> Result<Download, ReleaseError> {
        let Some(remote) = &self.remote else {
            return Err(ReleaseError::NotKept { name: place.name.to_owned() });
        };
        let request = |from: u64| FileRequest {
            repo: place.repo,
            tag: place.tag,
            name: place.name,
            from,
            size: has_list.then_some(asset.size),
            most: FILE_MAX,
        };
        let cache = self.cache.as_ref().filter(|cache| !cache.is_read_only());
        // Continue a partial download only if the hash of the whole file is known.
        let download = match cache {
            Some(cache) => cache.begin(place, asset.sha256.is_some()),
            None => Err(io::Error::other("there is no folder for releases")),
        };
        // Without a usable cache, the file can still be flashed from memory.
        let in_memory = |why: io::Error, on_bytes: OnBytes<'_>| {
            let mut bytes = Vec::new();
            remote.file(&request(0), &mut bytes, on_bytes)?;
            let sha256 = Sha256::of(&bytes);
            Ok(Download { bytes, sha256, saved: Err(why) })
        };
        let mut download = match download {
            Ok(download) => download,
            Err(why) => return in_memory(why, on_bytes),
        };
        if has_list
            && download.len > asset.size
            && let Err(error) = restart(&mut download)
        {
            return in_memory(error, on_bytes);
        }
        let from = download.len;
        match remote.file(&request(from), &mut download, on_bytes) {
            Ok(()) => {}
            Err(ReleaseError::Disk { why, .. }) => {
                // A full disk must not prevent a flash.
                download.discard();
                return in_memory(io::Error::other(why), on_bytes);
            }
            Err(error @ (ReleaseError::TooLong { .. } | ReleaseError::OtherSize { .. })) => {
                download.discard();
                return Err(error);
            }
            Err(error) => {
                download.keep_for_resume();
                return Err(error);
            }
        }
        let bytes = match read_contents(&mut download) {
            Ok(bytes) => bytes,
            Err(error) => return in_memory(error, on_bytes),
        };
        let found = Sha256::of(&bytes);
        match asset.sha256 {
            Some(expected) if expected != found => {
                download.discard();
                // The earlier part may be from a different file, so start over once.
                if from > 0 {
                    return self.download(place, asset, has_list, on_bytes);
                }
                Err(ReleaseError::OtherDigest { name: place.name.to_owned(), expected, found })
            }
            _ => {
                let saved = cache.map_or(Ok(()), |cache| cache.finish(download, place));
                Ok(Download { bytes, sha256: found, saved })
            }
        }
    }
}

/// Whether GitHub's API has refused a request that GitHub's website may still answer.
fn is_overloaded(error: &ReleaseError) -> bool {
    matches!(error, ReleaseError::RateLimited { .. } | ReleaseError::Status { status: 500.., .. })
}

fn restart(download: &mut PartialDownload) -> io::Result<()> {
    download.file.set_len(0)?;
    download.len = 0;
    Ok(())
}

fn read_contents(download: &mut PartialDownload) -> io::Result<Vec<u8>> {
    use std::io::{Read, Seek};
    let mut bytes = Vec::new();
    download.file.rewind()?;
    Read::by_ref(&mut download.file).take(FILE_MAX + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

impl Sink for PartialDownload {
    fn restart(&mut self) -> io::Result<()> {
        restart(self)
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)
    }
}

impl Sink for Vec<u8> {
    fn restart(&mut self) -> io::Result<()> {
        self.clear();
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.extend_from_slice(bytes);
        Ok(())
    }
}
