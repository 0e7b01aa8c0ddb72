//! Lists and fetches official releases for the interface. Each request runs in its own thread, because opening a
//! connection cannot be interrupted, and the interface must still respond to keys.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::Sender;
use std::thread;
use std::time::Duration;

use super::World;
use crate::app::Msg;
use crate::app::releases::{FetchedFile, ReleaseList, ReleasesEffect, ReleasesMsg};
use crate::clock;
use crate::releases::library::Library;
use crate::releases::net::OnBytes;
use crate::releases::{ReleaseError, Repo, Wanted};
use crate::report::{self, Problem};
use crate::sys::files;

/// How many requests may use the network at the same time.
const RUNNING_MAX: usize = 4;

/// The requests to GitHub, or to the folder that replaces it.
#[derive(Default)]
pub(super) struct Requests {
    /// The number of running threads that use the network. A server that does not answer keeps a thread running for up
    /// to 20 s.
    running: Arc<AtomicUsize>,
    /// Set to cancel the last request.
    stop: Arc<AtomicBool>,
}

impl Requests {
    /// Performs a request in a new thread, and cancels the previous request. The answer is [`Msg::Releases`] with the
    /// same number.
    pub(super) fn perform(
        &mut self,
        world: &World,
        messages: &Sender<Msg>,
        number: u32,
        effect: ReleasesEffect,
    ) {
        self.stop.store(true, Ordering::SeqCst);
        self.stop = Arc::default();
        if effect == ReleasesEffect::Stop {
            return;
        }
        let uses_network = matches!(effect, ReleasesEffect::List(_) | ReleasesEffect::File(..));
        if uses_network && self.running.load(Ordering::SeqCst) >= RUNNING_MAX {
            let error = ReleaseError::NoAnswer { host: "GitHub".to_owned() };
            let answer = failure_answer(&effect, problem(&error));
            let _ = messages.send(Msg::Releases(number, answer));
            return;
        }
        let running = Arc::clone(&self.running);
        running.fetch_add(usize::from(uses_network), Ordering::SeqCst);
        // The demo must not write any files.
        let is_read_only = world.demo.is_some();
        let folder = world.settings.0.releases.source.clone();
        let (messages, stop) = (messages.clone(), Arc::clone(&self.stop));
        let requested = effect.clone();
        thread::spawn(move || {
            let mut on_bytes = |done, total| {
                let is_wanted = !stop.load(Ordering::SeqCst);
                is_wanted && messages.send(Msg::Releases(number, ReleasesMsg::Bytes(done, total))).is_ok()
            };
            // A panic in a parser must not make the page wait forever.
            let answer = catch_unwind(AssertUnwindSafe(|| {
                answer(effect, folder.as_deref(), is_read_only, &mut on_bytes)
            }));
            let answer = answer
                .unwrap_or_else(|_| failure_answer(&requested, files::defect(Path::new("the release"))));
            running.fetch_sub(usize::from(uses_network), Ordering::SeqCst);
            let _ = messages.send(Msg::Releases(number, answer));
        });
    }
}

fn answer(
    effect: ReleasesEffect,
    folder: Option<&Path>,
    is_read_only: bool,
    on_bytes: OnBytes<'_>,
) -> ReleasesMsg {
    let library = match (folder, &effect) {
        (Some(folder), _) => Library::of_folder(folder),
        (None, ReleasesEffect::KeptList(_) | ReleasesEffect::KeptFile(..)) => Library::offline(is_read_only),
        (None, effect) => Library::online(is_read_only, matches!(effect, ReleasesEffect::List(_))),
    };
    match effect {
        ReleasesEffect::KeptList(repo) | ReleasesEffect::List(repo) => {
            ReleasesMsg::Listed(match list(&library, repo) {
                // If no list has been fetched yet, the page offers to fetch one.
                Err(ReleaseError::NotKept { .. }) if folder.is_none() => Ok(None),
                result => result.map(Some).map_err(|error| problem(&error)),
            })
        }
        ReleasesEffect::File(tag, part) | ReleasesEffect::KeptFile(tag, part) => {
            let file = library.file(&Wanted::Tag(tag), &part, on_bytes).map_err(|error| problem(&error));
            ReleasesMsg::Fetched(file.map(|file| {
                let image = Box::new(file.image);
                Box::new(FetchedFile { path: file.path.ok(), trust: file.trust, image })
            }))
        }
        // Not reached: `perform` handles this effect.
        ReleasesEffect::Stop => ReleasesMsg::Listed(Ok(None)),
    }
}

/// Returns the answer to a request that failed.
fn failure_answer(effect: &ReleasesEffect, problem: Problem) -> ReleasesMsg {
    match effect {
        ReleasesEffect::File(..) | ReleasesEffect::KeptFile(..) => ReleasesMsg::Fetched(Err(problem)),
        _ => ReleasesMsg::Listed(Err(problem)),
    }
}

fn list(library: &Library, repo: Repo) -> Result<ReleaseList, ReleaseError> {
    let list = library.list(repo)?;
    let files = list
        .releases
        .iter()
        .flat_map(|release| release.assets.iter().map(|asset| (&release.tag, &asset.name)));
    let kept = files.filter(|(tag, name)| library.has(repo, tag, name));
    let kept = kept.map(|(tag, name)| (tag.clone(), name.clone())).collect();
    let age = Duration::from_secs(clock::unix_seconds().saturating_sub(list.fetched));
    let stale_because = list.stale_because.as_ref().map(problem);
    Ok(ReleaseList { releases: list.releases, kept, age, stale_because })
}

fn problem(error: &ReleaseError) -> Problem {
    report::release_error(error, clock::unix_seconds())
}
