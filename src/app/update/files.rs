//! Handles the choice of a file: opens the picker, and accepts or refuses the loaded image.

use std::mem;
use std::path::PathBuf;

use crate::app::picker::{EntryKind, Picker};
use crate::app::{App, ChosenFile, Effect, Goal, Screen, Slot, Stage, Which, overrides_for};
use crate::image::Image;
use crate::job::Level;
use crate::plan::admission::{self, Overrides};
use crate::report::{self, Problem};

pub(super) fn open_picker(app: &mut App, which: Which, then: Option<Goal>) -> Vec<Effect> {
    // Skip releases, which are kept in cfdfu's cache and not in one of the user's folders.
    let user_path = |slot: &'_ Slot| slot.path().filter(|_| !slot.is_release()).cloned();
    let chosen_path = user_path(app.slot(which)).or_else(|| user_path(&app.image));
    let chosen_folder = chosen_path.as_deref().and_then(|path| path.parent());
    let default_folder = app.folder.as_deref().unwrap_or(".".as_ref());
    let folder = chosen_folder.filter(|folder| folder.is_absolute()).unwrap_or(default_folder).to_owned();
    // Esc returns to Home, not to an opened row.
    app.behind = None;
    show_folder(app, which, then, folder)
}

pub(super) fn show_folder(app: &mut App, which: Which, then: Option<Goal>, folder: PathBuf) -> Vec<Effect> {
    app.screen = Screen::Pick(which, then, Picker::new(folder.clone()));
    vec![Effect::List(folder)]
}

pub(super) fn choose_entry(app: &mut App) -> Vec<Effect> {
    let Screen::Pick(which, then, picker) = &app.screen else { return Vec::new() };
    let (which, then) = (*which, *then);
    let path = match (picker.typed_path(app.home.as_deref()), picker.selected()) {
        (Some(path), _) => path,
        (None, Some(entry)) if entry.kind == EntryKind::Folder => {
            let folder = entry.path.clone();
            return show_folder(app, which, then, folder);
        }
        (None, Some(entry)) => entry.path.clone(),
        (None, None) => return Vec::new(),
    };
    begin_loading(app, which, path.clone().into());
    vec![Effect::Load(which, path)]
}

/// Marks a file as loading, and remembers the previously chosen file in case the new file is refused.
pub(super) fn begin_loading(app: &mut App, which: Which, file: ChosenFile) {
    let before = mem::replace(slot(app, which), Slot::Loading(file));
    if let (Some(picker), Slot::Ready(..)) = (picker(app, which), &before) {
        picker.before = Some(Box::new(before));
    }
}

/// Returns the picker for this kind of file, on the screen or behind the page of releases.
fn picker(app: &mut App, which: Which) -> Option<&mut Picker> {
    match &mut app.screen {
        Screen::Pick(picking, _, picker) if *picking == which => Some(picker),
        Screen::Releases(view) if view.which == which => Some(&mut view.picker),
        _ => None,
    }
}

pub(super) fn slot(app: &mut App, which: Which) -> &mut Slot {
    match which {
        Which::Image => &mut app.image,
        Which::Loader => &mut app.loader,
    }
}

/// Accepts a file only if it can be flashed, so that a wrong file is refused before any drone is involved. Returns the
/// goal that was waiting for the file.
pub(super) fn on_loaded(
    app: &mut App,
    which: Which,
    path: PathBuf,
    result: Result<Box<Image>, Problem>,
) -> Option<Goal> {
    let file = match slot(app, which) {
        Slot::Loading(file) if file.path == path => file.clone(),
        // Another file has been chosen in the meantime.
        _ => return None,
    };
    let admitted = result.and_then(|image| {
        let refusal = match which {
            // An image that is not recognised is accepted, because the plan then asks for a typed word.
            Which::Image => admission::flash(&image, overrides_for(&image)).err(),
            Which::Loader => admission::restore(&image, None, Overrides::default()).err(),
        };
        refusal.map_or(Ok(image), |refusal| Err(report::refusal(&refusal)))
    });
    let then = match &app.screen {
        Screen::Pick(picking, then, _) if *picking == which => Some(*then),
        // A file that was chosen in the picker and loads late does not close this page.
        Screen::Releases(view) if view.which == which && file.is_release() => Some(view.then),
        _ => None,
    };
    match admitted {
        Ok(image) => {
            *slot(app, which) = Slot::Ready(file, image);
            if let Some(then) = then {
                app.screen = Screen::Home;
                return then;
            }
        }
        Err(problem) => {
            let message = format!("{problem}. {}", problem.advice.on_screen());
            app.log.push(app.now, Level::Warning, &message);
            app.notify(message);
            let before = picker(app, which).and_then(|picker| picker.before.take());
            *slot(app, which) = before.map_or(Slot::Bad(path, problem), |before| *before);
        }
    }
    None
}

/// Replaces an image whose file has changed on disk. Returns the goal of the job to restart with the new content, or
/// `None` if the job was stopped in the meantime or the new content is refused.
pub(super) fn on_changed(
    app: &mut App,
    which: Which,
    path: PathBuf,
    result: Result<Box<Image>, Problem>,
) -> Option<Goal> {
    let is_wanted = app.job().is_some_and(|view| view.stage == Stage::Looking && !view.stopping);
    app.screen = Screen::Home;
    let file = match slot(app, which) {
        Slot::Ready(file, _) => file.clone(),
        _ => path.clone().into(),
    };
    *slot(app, which) = Slot::Loading(file);
    on_loaded(app, which, path, result);
    (is_wanted && app.slot(which).image().is_some()).then_some(app.goal)
}
