//! Updates the page of official releases: asks the shell for a list or a file, and handles the answers.

use std::mem;
use std::path::PathBuf;

use super::files;
use crate::app::keys::ReleasesAction;
use crate::app::releases::{FetchedFile, ReleasesEffect, ReleasesMsg, ReleasesView, Request};
use crate::app::{App, ChosenFile, Effect, Goal, Origin, Screen};
use crate::job::Level;
use crate::releases::Part;
use crate::report::{Problem, ProblemKind};

pub(super) fn act(app: &mut App, action: ReleasesAction) -> Vec<Effect> {
    match action {
        ReleasesAction::Open => open(app),
        ReleasesAction::Close => close(app),
        ReleasesAction::Stop => stop(app).into_iter().collect(),
        action => act_on_page(app, action).map(|effect| ask(app, effect)).into_iter().collect(),
    }
}

/// Replaces the picker with the page of releases, which first shows the list kept on this computer.
fn open(app: &mut App) -> Vec<Effect> {
    match mem::replace(&mut app.screen, Screen::Home) {
        Screen::Pick(which, then, picker) => {
            let view = ReleasesView::new(which, then, picker, app.release_folder.clone());
            let effect = ReleasesEffect::KeptList(view.repo());
            app.screen = Screen::Releases(Box::new(view));
            vec![ask(app, effect)]
        }
        screen => {
            app.screen = screen;
            Vec::new()
        }
    }
}

/// Returns to the picker. The folder is read again if its content had not arrived when the page was opened, because the
/// page drops the answer.
fn close(app: &mut App) -> Vec<Effect> {
    let mut effects: Vec<Effect> = stop(app).into_iter().collect();
    match mem::replace(&mut app.screen, Screen::Home) {
        Screen::Releases(view) => {
            let ReleasesView { which, then, picker, .. } = *view;
            effects.extend(picker.entries.is_none().then(|| Effect::List(picker.folder.clone())));
            app.screen = Screen::Pick(which, then, picker);
        }
        screen => app.screen = screen,
    }
    effects
}

/// Cancels the running request, if any.
pub(super) fn stop(app: &mut App) -> Option<Effect> {
    let Screen::Releases(view) = &mut app.screen else { return None };
    let is_running = mem::replace(&mut view.request, Request::Nothing) != Request::Nothing;
    is_running.then(|| ask(app, ReleasesEffect::Stop))
}

fn act_on_page(app: &mut App, action: ReleasesAction) -> Option<ReleasesEffect> {
    let board = app.devices.board_code().map(str::to_owned);
    let Screen::Releases(view) = &mut app.screen else { return None };
    match action {
        ReleasesAction::Open | ReleasesAction::Close | ReleasesAction::Stop => None,
        ReleasesAction::List => {
            view.problem = None;
            let repo = view.repo();
            let (request, effect) = match view.folder {
                Some(_) => (Request::KeptList, ReleasesEffect::KeptList(repo)),
                None => (Request::List, ReleasesEffect::List(repo)),
            };
            view.request = request;
            Some(effect)
        }
        ReleasesAction::File => {
            let (release, asset) = view.file(board.as_deref()).ok()?;
            let (tag, name, is_kept) =
                (release.tag.clone(), asset.name.clone(), view.is_kept(release, asset));
            let part = view.part(board.as_deref()).ok()?;
            let request = Request::File { tag: tag.clone(), name, part: part.clone(), done: 0, total: None };
            (view.request, view.problem) = (request, None);
            // A request for a kept file must not use the network, even if the file has been removed in the meantime.
            Some(if is_kept { ReleasesEffect::KeptFile(tag, part) } else { ReleasesEffect::File(tag, part) })
        }
        ReleasesAction::NextPlatform => {
            view.next_platform(board.as_deref());
            view.problem = None;
            None
        }
        ReleasesAction::ShowPre => {
            view.change_rows(|view| view.shows_pre = !view.shows_pre);
            view.problem = None;
            None
        }
    }
}

/// Numbers a request, so that a late answer to an earlier request is not mistaken for the answer to this request.
fn ask(app: &mut App, effect: ReleasesEffect) -> Effect {
    app.release_requests += 1;
    Effect::Releases(app.release_requests, effect)
}

/// Handles an answer. Returns the goal that was waiting for the file, if any.
pub(super) fn on_message(app: &mut App, number: u32, msg: ReleasesMsg) -> Option<Goal> {
    let Screen::Releases(view) = &mut app.screen else { return None };
    if number != app.release_requests {
        return None;
    }
    match msg {
        ReleasesMsg::Bytes(arrived, size) => {
            if let Request::File { done, total, .. } = &mut view.request {
                (*done, *total) = (arrived, size);
            }
            None
        }
        ReleasesMsg::Listed(result) => {
            view.request = Request::Nothing;
            match result {
                Ok(Some(list)) => view.change_rows(|view| view.list = Some(list)),
                Ok(None) => {}
                Err(problem) => on_failed(app, problem),
            }
            None
        }
        ReleasesMsg::Fetched(result) => {
            let request = mem::replace(&mut view.request, Request::Nothing);
            let Request::File { tag, name, part, .. } = request else { return None };
            match result {
                Ok(file) => on_arrived(app, (tag, name, part), *file),
                Err(problem) => {
                    if problem.kind == ProblemKind::NoRelease
                        && let Some(list) = &mut view.list
                    {
                        list.kept.remove(&(tag, name));
                    }
                    on_failed(app, problem);
                    None
                }
            }
        }
    }
}

fn on_failed(app: &mut App, problem: Problem) {
    // The plain interface prints both the page and the log's warnings, so a log line would repeat the problem.
    if !app.spoken {
        app.log.push(app.now, Level::Warning, &format!("{problem}. {}", problem.advice.on_screen()));
    }
    if let Screen::Releases(view) = &mut app.screen {
        view.problem = Some(problem);
    }
}

/// Handles a fetched file like a file chosen in the picker: a file that cannot be flashed is refused. Returns the goal
/// that was waiting for the file, if any.
fn on_arrived(app: &mut App, (tag, name, part): (String, String, Part), file: FetchedFile) -> Option<Goal> {
    let Screen::Releases(view) = &mut app.screen else { return None };
    let which = view.which;
    let is_kept = file.path.is_some();
    if let Some(list) = view.list.as_mut().filter(|_| is_kept) {
        list.kept.insert((tag.clone(), name.clone()));
    }
    let platform = match part {
        Part::Firmware(platform) => Some(platform),
        Part::Loader => None,
    };
    let path = file.path.unwrap_or_else(|| PathBuf::from(&name));
    let origin = Origin::Release { tag, platform, is_kept };
    files::begin_loading(app, which, ChosenFile { path: path.clone(), origin });
    let trust = format!("{name}: {}.", file.trust);
    app.log.push(app.now, Level::Info, &trust);
    app.notify(trust);
    files::on_loaded(app, which, path, Ok(file.image))
}
