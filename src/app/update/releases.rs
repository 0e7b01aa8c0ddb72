//! The page of official releases: asks the shell for a list or a file, and takes what arrives.

use std::mem;
use std::path::PathBuf;

use super::files;
use crate::app::keys::ReleasesAction;
use crate::app::releases::{ArrivedFile, ReleaseFile, ReleasesEffect, ReleasesMsg, ReleasesView, Request};
use crate::app::{App, Effect, Goal, Screen, Slot};
use crate::job::Level;
use crate::report::Problem;

pub(super) fn act(app: &mut App, action: ReleasesAction) -> Vec<Effect> {
    match action {
        ReleasesAction::Open => open(app),
        action => on_page(app, action).map(|effect| ask(app, effect)).into_iter().collect(),
    }
}

/// Replaces the folder with the releases. Only what this computer keeps is read.
fn open(app: &mut App) -> Vec<Effect> {
    match mem::replace(&mut app.screen, Screen::Home) {
        Screen::Pick(which, then, picker) => {
            let view = ReleasesView::new(which, then, picker);
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

fn on_page(app: &mut App, action: ReleasesAction) -> Option<ReleasesEffect> {
    let board = app.devices.board().map(|board| board.code.clone());
    let Screen::Releases(view) = &mut app.screen else { return None };
    match action {
        ReleasesAction::Open => None,
        ReleasesAction::Close => {
            let (which, then, picker) = (view.which, view.then, view.picker.clone());
            let stop = (view.request != Request::Nothing).then_some(ReleasesEffect::Stop);
            app.screen = Screen::Pick(which, then, picker);
            stop
        }
        ReleasesAction::List => {
            (view.request, view.problem) = (Request::List, None);
            Some(ReleasesEffect::List(view.repo()))
        }
        ReleasesAction::File => {
            let (tag, name) = match view.file(board.as_deref()) {
                Ok((release, asset)) => (release.tag.clone(), asset.name.clone()),
                Err(_) => return None,
            };
            let part = view.part(board.as_deref()).ok()?;
            (view.request, view.problem) = (Request::File { name, done: 0, total: None }, None);
            Some(ReleasesEffect::File(tag, part))
        }
        ReleasesAction::NextPlatform => {
            view.next_platform(board.as_deref());
            None
        }
        ReleasesAction::ShowPre => {
            let tag = view.marked().map(|release| release.tag.clone());
            view.shows_pre = !view.shows_pre;
            let at = tag.and_then(|tag| view.rows().iter().position(|release| release.tag == tag));
            view.at = at.unwrap_or(0);
            None
        }
        ReleasesAction::Stop => {
            view.request = Request::Nothing;
            Some(ReleasesEffect::Stop)
        }
    }
}

/// Numbers a request, so that a late answer to an earlier one is not mistaken for its answer.
fn ask(app: &mut App, effect: ReleasesEffect) -> Effect {
    app.release_requests += 1;
    Effect::Releases(app.release_requests, effect)
}

/// Takes an answer. Returns the goal that was waiting for the file.
pub(super) fn on_message(app: &mut App, number: u32, msg: ReleasesMsg) -> Option<Goal> {
    let Screen::Releases(view) = &mut app.screen else { return None };
    if number != app.release_requests {
        return None;
    }
    match msg {
        ReleasesMsg::Bytes(arrived, of) => {
            if let Request::File { done, total, .. } = &mut view.request {
                (*done, *total) = (arrived, of);
            }
            None
        }
        ReleasesMsg::Listed(result) => {
            view.request = Request::Nothing;
            match result {
                Ok(Some(list)) => view.show(list),
                Ok(None) => {}
                Err(problem) => failed(app, problem),
            }
            None
        }
        ReleasesMsg::Arrived(Ok(file)) => {
            view.request = Request::Nothing;
            arrived(app, *file)
        }
        ReleasesMsg::Arrived(Err(problem)) => {
            view.request = Request::Nothing;
            failed(app, problem);
            None
        }
    }
}

fn failed(app: &mut App, problem: Problem) {
    app.log.push(app.now, Level::Warning, &format!("{problem}. {}", problem.advice.on_screen()));
    if let Screen::Releases(view) = &mut app.screen {
        view.problem = Some(problem);
    }
}

/// Takes a file like one from the picker: it is refused if it cannot be flashed.
fn arrived(app: &mut App, file: ArrivedFile) -> Option<Goal> {
    let Screen::Releases(view) = &mut app.screen else { return None };
    let which = view.which;
    let is_kept = file.path.is_some();
    if let Some(list) = view.list.as_mut().filter(|_| is_kept) {
        list.kept.insert((file.tag.clone(), file.name.clone()));
    }
    let path = file.path.unwrap_or_else(|| PathBuf::from(&file.name));
    let before = mem::replace(files::slot(app, which), Slot::Loading(path.clone()));
    if let (Screen::Releases(view), Slot::Ready(..)) = (&mut app.screen, &before) {
        view.picker.before = Some(Box::new(before));
    }
    app.fetched.retain(|other| other.path != path);
    app.fetched.push(ReleaseFile { path: path.clone(), tag: file.tag.clone(), is_kept });
    let trust = format!("{}: {}.", file.name, file.trust);
    app.log.push(app.now, Level::Info, &trust);
    app.notify(trust);
    files::on_loaded(app, which, path, Ok(file.image))
}
