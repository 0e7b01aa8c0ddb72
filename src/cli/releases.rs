//! The commands for official releases, and the files for `--release`. With `--release`, cfdfu reads the drone's board,
//! then fetches and checks the file, and only then changes the drone.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use super::console::Console;
use super::{DeviceArgs, Global, Jobs, build_job, start_jobs};
use crate::clock;
use crate::crazyflie::BOARDS;
use crate::job::{DeviceInfo, Enter, Job, Outcome, Selector, Task};
use crate::releases::cache::Cache;
use crate::releases::library::{Fetched, Library, List};
use crate::releases::net::OnBytes;
use crate::releases::{Part, ReleaseError, Repo, Wanted, choose, platform_of};
use crate::report::{self, Exit, Problem, ProblemKind};
use crate::settings::Settings;
use crate::sys::signals::Signals;

/// Where releases come from.
#[derive(Clone, Debug, Default, clap::Args)]
pub(super) struct SourceArgs {
    /// Use only releases that are already on this computer
    #[arg(long)]
    pub(super) offline: bool,
    /// Use a folder made by `cfdfu fetch --to` instead of the network
    #[arg(long, value_name = "FOLDER", conflicts_with = "offline")]
    pub(super) from: Option<PathBuf>,
}

/// Parses a board's code or a platform, and returns the platform.
pub(super) fn parse_board(text: &str) -> Result<String, String> {
    let platforms = || {
        let codes = BOARDS.iter().map(|board| board.code);
        codes.chain(BOARDS.iter().map(|board| board.platform)).collect::<Vec<_>>().join(", ")
    };
    crate::releases::platform_for(text)
        .map(str::to_owned)
        .ok_or_else(|| format!("expected one of {}, flapper", platforms()))
}

fn problem(error: &ReleaseError) -> Problem {
    report::release_error(error, clock::unix_seconds())
}

fn library(global: &Global, source: &SourceArgs, refreshes: bool) -> Library {
    let settings = || Settings::load().0.releases.source;
    // The demo must not change the cache.
    let is_read_only = global.demo.is_some();
    match source.from.clone().or_else(settings) {
        Some(folder) => Library::of_folder(&folder),
        None if source.offline => Library::offline(is_read_only),
        None => Library::online(is_read_only, refreshes),
    }
}

/// Lists the releases.
pub(super) fn list(
    global: &Global,
    source: &SourceArgs,
    shows_prereleases: bool,
    refreshes: bool,
    console: &mut Console,
) -> Result<Exit, Problem> {
    let library = Arc::new(library(global, source, refreshes));
    let shared = Arc::clone(&library);
    let list = run_interruptibly(console, move |_| shared.list(Repo::Firmware))?;
    let List { releases, fetched, stale_because, .. } = list;
    if let Some(stale_because) = &stale_because {
        console.note(&format!("Warning: {stale_because}. This is an older list."));
    }
    let minutes = clock::unix_seconds().saturating_sub(fetched) / 60;
    if minutes > 0 {
        console.note(&format!("This list is {} old.", age(minutes)));
    }
    for release in releases.iter().filter(|release| shows_prereleases || !release.prerelease) {
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

/// Removes all lists and files that were fetched. The demo removes nothing.
pub(super) fn forget(global: &Global, console: &mut Console) -> Result<Exit, Problem> {
    if global.demo.is_some() {
        console.line("Nothing was removed: the demo does not change the releases on this computer.");
        return Ok(Exit::Done);
    }
    if let Some(cache) = Cache::of_user(false) {
        cache.forget().map_err(|error| {
            Problem::new(
                Exit::CannotCreate,
                ProblemKind::OutputFile,
                format!("cannot remove the cache: {error}"),
            )
        })?;
    }
    console.line("Removed all releases from this computer.");
    Ok(Exit::Done)
}

/// The files to fetch, and the folder for them.
pub(super) struct Order<'a> {
    pub wanted: &'a Wanted,
    /// A platform, or `all`. If `None`, the connected drone determines the platform.
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
    let library = Arc::new(match order.to {
        Some(folder) => Library::to_folder(folder),
        None => library(global, source, false),
    });
    let mut wanted = order.wanted.clone();
    let parts = match (order.loader, order.board) {
        (true, _) => vec![Part::Loader],
        (false, Some("all")) => {
            let shared = Arc::clone(&library);
            let list = run_interruptibly(console, move |_| shared.list(Repo::Firmware))?;
            let release = choose(&list.releases, &wanted).map_err(|error| problem(&error))?;
            let platforms = release.assets.iter().filter_map(platform_of);
            let parts: Vec<Part> = platforms.map(|platform| Part::Firmware(platform.to_owned())).collect();
            if parts.is_empty() {
                let (tag, part) = (release.tag.clone(), "firmware".to_owned());
                return Err(problem(&ReleaseError::NoAsset { tag, part, available: Vec::new() }));
            }
            // Fetch every file from this release, even if a newer "latest" appears in the meantime.
            wanted = Wanted::Tag(release.tag.clone());
            parts
        }
        (false, Some(platform)) => vec![Part::Firmware(platform.to_owned())],
        (false, None) => {
            let device = DeviceArgs { wait: 0, no_enter: true };
            vec![Part::Firmware(connected_platform(global, &device, console)?)]
        }
    };
    for part in &parts {
        let fetched = fetch_part(&library, &wanted, part, console)?;
        if let (Err(why), None) = (fetched.path, &global.demo) {
            return Err(problem(&ReleaseError::Disk { place: fetched.name, why: why.to_string() }));
        }
    }
    Ok(Exit::Done)
}

/// Fetches the files of a release for `platform`, or for the connected drones if `platform` is `None`.
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
        None if all => connected_platforms(global, device, console)?,
        None => vec![connected_platform(global, device, console)?],
    };
    let library = Arc::new(library(global, source, false));
    let mut files: Vec<Fetched> = Vec::new();
    for platform in platforms {
        // All drones get the same release, even if a newer "latest" appears in the meantime.
        let tag = files.first().map(|file| Wanted::Tag(file.tag.clone()));
        let part = Part::Firmware(platform);
        files.push(fetch_part(&library, tag.as_ref().unwrap_or(wanted), &part, console)?);
    }
    Ok(files)
}

/// Fetches the bootloader of a release.
pub(super) fn loader(
    global: &Global,
    source: &SourceArgs,
    wanted: &Wanted,
    console: &mut Console,
) -> Result<Fetched, Problem> {
    fetch_part(&Arc::new(library(global, source, false)), wanted, &Part::Loader, console)
}

/// Fetches one file of a release and prints its name.
fn fetch_part(
    library: &Arc<Library>,
    wanted: &Wanted,
    part: &Part,
    console: &mut Console,
) -> Result<Fetched, Problem> {
    let (shared, wanted, part) = (Arc::clone(library), wanted.clone(), part.clone());
    let fetched = run_interruptibly(console, move |on_bytes| shared.file(&wanted, &part, on_bytes))?;
    if let Some(stale_because) = &fetched.stale_because {
        console.note(&format!("Warning: {stale_because}. The release was chosen from an older list."));
    }
    console.fetched(&fetched);
    Ok(fetched)
}

/// How long a stopped download may take to save the bytes that have arrived, so that the next run can resume the
/// download.
const KEEP_LIMIT: Duration = Duration::from_millis(500);

/// Runs `work`, which uses the network, on a separate thread, because opening a connection cannot be interrupted.
fn run_interruptibly<T: Send + 'static>(
    console: &mut Console,
    work: impl FnOnce(OnBytes<'_>) -> Result<T, ReleaseError> + Send + 'static,
) -> Result<T, Problem> {
    let stopped = Arc::new(AtomicBool::new(false));
    let (stop, is_stopped) = (Arc::clone(&stopped), Arc::clone(&stopped));
    let (bytes, arrived) = channel();
    let (results, result) = channel();
    let signals = Signals::listen(move |_| stop.store(true, Ordering::SeqCst));
    thread::spawn(move || {
        let answer =
            work(&mut |done, total| bytes.send((done, total)).is_ok() && !is_stopped.load(Ordering::SeqCst));
        // The receiver is gone if the user stopped the command.
        let _ = results.send(answer);
    });
    let answer = loop {
        match arrived.recv_timeout(Duration::from_millis(100)) {
            Ok((done, total)) => console.download(done, total),
            Err(RecvTimeoutError::Disconnected) => break result.recv().ok(),
            Err(RecvTimeoutError::Timeout) if stopped.load(Ordering::SeqCst) => {
                break result.recv_timeout(KEEP_LIMIT).ok();
            }
            Err(RecvTimeoutError::Timeout) => {}
        }
    };
    let _ = signals.map(Signals::stop);
    console.end_bar();
    // If the user stops the command while the last bytes are arriving, the file must not be flashed.
    let answer = answer.filter(|_| !stopped.load(Ordering::SeqCst));
    answer.unwrap_or(Err(ReleaseError::Stopped)).map_err(|error| problem(&error))
}

/// Returns the platform of the connected drone, without changing the drone. A running drone reports its board; in DFU
/// mode, cfdfu reads the board from the OTP.
fn connected_platform(
    global: &Global,
    device: &DeviceArgs,
    console: &mut Console,
) -> Result<String, Problem> {
    let mut jobs = start_jobs(global, device, console)?;
    let job = Job { enter: Enter::Never, ..build_job(global, device, Task::Identify) };
    let found = platform_of_drone(&mut jobs, job, console);
    jobs.finish();
    found
}

/// Returns the platforms of all connected drones, without duplicates.
fn connected_platforms(
    global: &Global,
    device: &DeviceArgs,
    console: &mut Console,
) -> Result<Vec<String>, Problem> {
    let mut jobs = start_jobs(global, device, console)?;
    let ports = jobs.ports(&global.device)?;
    let mut platforms = Vec::new();
    for port in ports {
        let base = build_job(global, device, Task::Identify);
        let job = Job { enter: Enter::Never, device: Selector::At(port.clone()), ..base };
        match platform_of_drone(&mut jobs, job, console) {
            Ok(platform) => platforms.push(platform),
            Err(problem) if problem.exit == Exit::Interrupted => {
                jobs.finish();
                return Err(problem);
            }
            // A warning is enough, because the drone's own job reports the problem, too.
            Err(problem) => {
                console.note(&format!("Warning: no file for the drone on port {port}: {problem}"));
            }
        }
    }
    jobs.finish();
    platforms.sort();
    platforms.dedup();
    if platforms.is_empty() { Err(unknown_board()) } else { Ok(platforms) }
}

fn platform_of_drone(jobs: &mut Jobs, job: Job, console: &mut Console) -> Result<String, Problem> {
    let (report, known) = jobs.identify(job, console);
    if let Outcome::Failed(failure) = &report.outcome {
        return Err(report::failure_problem(failure));
    }
    if matches!(report.outcome, Outcome::Cancelled(_)) {
        return Err(problem(&ReleaseError::Stopped));
    }
    let platform = known.as_deref().and_then(DeviceInfo::board).and_then(crate::releases::platform_for);
    platform.map(str::to_owned).ok_or_else(unknown_board)
}

fn unknown_board() -> Problem {
    let message = "the drone's board is unknown, so cfdfu cannot choose a file";
    Problem::new(Exit::NoDevice, ProblemKind::NoRelease, message)
        .advise("Pass the board, for example `--board CF21`.")
}
