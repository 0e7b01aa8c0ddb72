//! Lists and fetches official releases for the interface, each on a thread of its own: a connection that is being opened
//! cannot be interrupted, and no key may wait for it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;
use std::thread;
use std::time::Duration;

use super::World;
use crate::app::Msg;
use crate::app::releases::{ArrivedFile, ReleaseList, ReleasesEffect, ReleasesMsg};
use crate::clock;
use crate::releases::library::Library;
use crate::releases::net::OnBytes;
use crate::releases::{ReleaseError, Repo, Wanted};
use crate::report::{self, Problem};
use crate::sys::files;

/// The requests to GitHub, or to the folder that takes its place.
#[derive(Default)]
pub(super) struct Requests {
    /// Set to give up the last request.
    stop: Arc<AtomicBool>,
}

impl Requests {
    /// Carries out a request. The answer is [`Msg::Releases`] with the same number.
    pub(super) fn perform(
        &mut self,
        world: &World,
        messages: &Sender<Msg>,
        number: u32,
        effect: ReleasesEffect,
    ) {
        self.stop.store(true, Ordering::SeqCst);
        self.stop = Arc::default();
        // The demo writes nothing.
        let is_read_only = world.demo.is_some();
        let folder = world.settings.0.releases.source.clone();
        let (messages, stop) = (messages.clone(), Arc::clone(&self.stop));
        thread::spawn(move || {
            let mut on_bytes = |done, total| {
                let is_wanted = !stop.load(Ordering::SeqCst);
                is_wanted && messages.send(Msg::Releases(number, ReleasesMsg::Bytes(done, total))).is_ok()
            };
            // A panic in a parser must not leave the page waiting forever.
            let answer = catch_unwind(AssertUnwindSafe(|| {
                answer(effect, folder.as_deref(), is_read_only, &mut on_bytes)
            }));
            let answer = answer
                .unwrap_or_else(|_| Some(ReleasesMsg::Listed(Err(files::defect(Path::new("the release"))))));
            if let Some(answer) = answer {
                let _ = messages.send(Msg::Releases(number, answer));
            }
        });
    }
}

fn answer(
    effect: ReleasesEffect,
    folder: Option<&Path>,
    is_read_only: bool,
    on_bytes: OnBytes<'_>,
) -> Option<ReleasesMsg> {
    let online = |refreshes: bool| match folder {
        Some(folder) => Library::of_folder(folder),
        None => Library::online(is_read_only, refreshes),
    };
    Some(match effect {
        ReleasesEffect::KeptList(repo) => {
            let library = folder.map_or_else(|| Library::offline(is_read_only), Library::of_folder);
            ReleasesMsg::Listed(match list(&library, repo, folder) {
                Err(ReleaseError::NotKept { .. }) if folder.is_none() => Ok(None),
                result => result.map(Some).map_err(|error| problem(&error)),
            })
        }
        ReleasesEffect::List(repo) => {
            ReleasesMsg::Listed(list(&online(true), repo, folder).map(Some).map_err(|error| problem(&error)))
        }
        ReleasesEffect::File(tag, part) => {
            let file = online(false).file(&Wanted::Tag(tag), &part, on_bytes);
            let file = file.map(|file| {
                let image = Box::new(file.image);
                Box::new(ArrivedFile {
                    tag: file.tag,
                    name: file.name,
                    path: file.path,
                    trust: file.trust,
                    image,
                })
            });
            ReleasesMsg::Arrived(file.map_err(|error| problem(&error)))
        }
        ReleasesEffect::Stop => return None,
    })
}

fn list(library: &Library, repo: Repo, folder: Option<&Path>) -> Result<ReleaseList, ReleaseError> {
    let list = library.list(repo)?;
    let files = list
        .releases
        .iter()
        .flat_map(|release| release.assets.iter().map(|asset| (&release.tag, &asset.name)));
    let kept = files.filter(|(tag, name)| library.has(repo, tag, name));
    let kept = kept.map(|(tag, name)| (tag.clone(), name.clone())).collect();
    let age = Duration::from_secs(clock::unix_seconds().saturating_sub(list.fetched));
    let stale_because = list.stale_because.as_ref().map(problem);
    Ok(ReleaseList { releases: list.releases, kept, age, folder: folder.map(Path::to_owned), stale_because })
}

fn problem(error: &ReleaseError) -> Problem {
    report::release_error(error, clock::unix_seconds())
}
