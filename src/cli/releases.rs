//! The commands for official releases, and the files of `--release`. The file is fetched and checked before the drone is
//! touched: only its board is read first.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::console::Console;
use super::{DeviceArgs, Global, Jobs, job, jobs};
use crate::clock;
use crate::crazyflie::BOARDS;
use crate::job::{DeviceInfo, Enter, Job, Outcome, Selector, Task};
use crate::releases::cache::Cache;
use crate::releases::library::{Fetched, Library, List};
use crate::releases::net::Remote;
use crate::releases::{Part, ReleaseError, Repo, Wanted, platform_of};
use crate::report::{self, Exit, Problem, ProblemKind};
use crate::sys::signals::Signals;

/// Where releases come from.
#[derive(Clone, Debug, Default, clap::Args)]
pub(super) struct SourceArgs {
    /// Use only what this computer has fetched before
    #[arg(long)]
    pub(super) offline: bool,
    /// Use a folder made by `cfdfu fetch --to` instead of the network
    #[arg(long, value_name = "FOLDER", conflicts_with = "offline")]
    pub(super) from: Option<PathBuf>,
}

/// A board's code or a platform, as the platform.
pub(super) fn parse_board(text: &str) -> Result<String, String> {
    let platforms = || {
        let codes = BOARDS.iter().map(|board| board.code);
        codes.chain(BOARDS.iter().map(|board| board.platform)).collect::<Vec<_>>().join(", ")
    };
    crate::releases::platform(text)
        .map(str::to_owned)
        .ok_or_else(|| format!("expected one of {}, flapper", platforms()))
}

fn problem(error: &ReleaseError) -> Problem {
    report::release_error(error, clock::unix_seconds())
}

fn library(global: &Global, source: &SourceArgs, refreshes: bool) -> Library {
    if let Some(folder) = &source.from {
        return Library::new(Some(Cache::at(folder, true)), None, false);
    }
    // The demo writes nothing.
    let cache = Cache::of_user(global.demo.is_some());
    Library::new(cache, (!source.offline).then(Remote::new), refreshes)
}

/// Lists the releases.
pub(super) fn list(
    global: &Global,
    source: &SourceArgs,
    shows_pre: bool,
    refreshes: bool,
    console: &mut Console,
) -> Result<Exit, Problem> {
    let library = library(global, source, refreshes);
    let List { releases, fetched, trouble } =
        library.list(Repo::Firmware).map_err(|error| problem(&error))?;
    if let Some(trouble) = &trouble {
        console.note(&format!("Warning: {}. This is an older list.", problem(trouble)));
    }
    let minutes = clock::unix_seconds().saturating_sub(fetched) / 60;
    if minutes > 0 {
        console.note(&format!("This list is {} old.", age(minutes)));
    }
    for release in releases.iter().filter(|release| shows_pre || !release.prerelease) {
        let kept = |name: &str| library.has(Repo::Firmware, &release.tag, name);
        console.release(release, &kept);
    }
    Ok(Exit::Done)
}

fn age(minutes: u64) -> String {
    match minutes {
        0..120 => report::count(minutes, "minute"),
        120..2880 => report::count(minutes / 60, "hour"),
        _ => report::count(minutes / 1440, "day"),
    }
}

/// Removes everything that was fetched.
pub(super) fn forget(console: &mut Console) -> Result<Exit, Problem> {
    if let Some(cache) = Cache::of_user(false) {
        cache.forget().map_err(|error| {
            problem(&ReleaseError::Disk { place: "the cache".to_owned(), why: error.to_string() })
        })?;
    }
    console.line("Removed all releases from this computer.");
    Ok(Exit::Done)
}

/// What to fetch.
pub(super) struct Order<'a> {
    pub wanted: &'a Wanted,
    /// A platform, or `all`. Otherwise the drone is asked.
    pub board: Option<&'a str>,
    pub loader: bool,
    /// The folder to fetch to, instead of the user's cache.
    pub to: Option<&'a Path>,
}

/// Fetches files of a release.
pub(super) fn fetch(
    global: &Global,
    source: &SourceArgs,
    order: &Order<'_>,
    console: &mut Console,
) -> Result<Exit, Problem> {
    let library = match order.to {
        Some(folder) => Library::new(Some(Cache::at(folder, false)), Some(Remote::new()), false),
        None => library(global, source, false),
    };
    let parts = match (order.loader, order.board) {
        (true, _) => vec![Part::Loader],
        (false, Some("all")) => {
            let list = library.list(Repo::Firmware).map_err(|error| problem(&error))?;
            let release = crate::releases::choose(&list.releases, order.wanted);
            let release = release.map_err(|error| problem(&error))?;
            let platforms = release.assets.iter().filter_map(platform_of);
            platforms.map(|platform| Part::Firmware(platform.to_owned())).collect()
        }
        (false, Some(platform)) => vec![Part::Firmware(platform.to_owned())],
        (false, None) => {
            let device = DeviceArgs { wait: 0, no_enter: true };
            vec![Part::Firmware(platform_on_cable(global, &device, console)?)]
        }
    };
    for part in &parts {
        let fetched = get(&library, order.wanted, part, console)?;
        console.fetched(&fetched);
    }
    Ok(Exit::Done)
}

/// Fetches the files of a release for the drones that are plugged in, or for this platform.
pub(super) fn files(
    global: &Global,
    source: &SourceArgs,
    wanted: &Wanted,
    platform: Option<&str>,
    (device, all): (&DeviceArgs, bool),
    console: &mut Console,
) -> Result<Vec<Fetched>, Problem> {
    let platforms = match platform {
        Some(platform) => vec![platform.to_owned()],
        None if all => platforms_on_cables(global, device, console)?,
        None => vec![platform_on_cable(global, device, console)?],
    };
    let library = library(global, source, false);
    let mut files: Vec<Fetched> = Vec::new();
    for platform in platforms {
        // "latest" is one release for all drones, even if a newer one appears meanwhile.
        let tag = files.first().map(|file| Wanted::Tag(file.tag.clone()));
        let part = Part::Firmware(platform);
        let fetched = get(&library, tag.as_ref().unwrap_or(wanted), &part, console)?;
        console.fetched(&fetched);
        files.push(fetched);
    }
    Ok(files)
}

/// Fetches the bootloader.
pub(super) fn loader(
    global: &Global,
    source: &SourceArgs,
    wanted: &Wanted,
    console: &mut Console,
) -> Result<Fetched, Problem> {
    let fetched = get(&library(global, source, false), wanted, &Part::Loader, console)?;
    console.fetched(&fetched);
    Ok(fetched)
}

/// Fetches one file. Ctrl-C keeps what has arrived.
fn get(library: &Library, wanted: &Wanted, part: &Part, console: &mut Console) -> Result<Fetched, Problem> {
    let stopped = Arc::new(AtomicBool::new(false));
    let stop = Arc::clone(&stopped);
    let signals = Signals::listen(move |_| stop.store(true, Ordering::SeqCst));
    let fetched = library.file(wanted, part, &mut |done, total| {
        console.download(done, total);
        !stopped.load(Ordering::SeqCst)
    });
    let _ = signals.map(Signals::stop);
    console.end_bar();
    fetched.map_err(|error| problem(&error))
}

/// The platform of the drone, which is asked or whose OTP is read. It is not changed.
fn platform_on_cable(global: &Global, device: &DeviceArgs, console: &mut Console) -> Result<String, Problem> {
    let mut jobs = jobs(global, device, console)?;
    let job = Job { enter: Enter::Never, ..job(global, device, Task::Identify) };
    let found = platform_of_drone(&mut jobs, job, console);
    jobs.finish();
    found
}

/// The platforms of all drones, each once.
fn platforms_on_cables(
    global: &Global,
    device: &DeviceArgs,
    console: &mut Console,
) -> Result<Vec<String>, Problem> {
    let mut jobs = jobs(global, device, console)?;
    let ports = jobs.ports(&global.device)?;
    let mut platforms = Vec::new();
    for location in ports {
        let base = job(global, device, Task::Identify);
        let job = Job { enter: Enter::Never, device: Selector::At(location), ..base };
        platforms.push(platform_of_drone(&mut jobs, job, console)?);
    }
    jobs.finish();
    platforms.sort();
    platforms.dedup();
    Ok(platforms)
}

fn platform_of_drone(jobs: &mut Jobs, job: Job, console: &mut Console) -> Result<String, Problem> {
    let (report, known) = jobs.identify(job, console);
    if let Outcome::Failed(failure) = &report.outcome {
        return Err(report::failed(failure));
    }
    let code = known.as_deref().and_then(DeviceInfo::board).and_then(crate::releases::platform);
    code.map(str::to_owned).ok_or_else(|| {
        let message = "the board of the drone is not known, so cfdfu cannot choose a file";
        Problem::new(Exit::NoDevice, ProblemKind::NoRelease, message)
            .advise("Name the board: --board CF21, for example.")
    })
}
