//! The background identify: while nothing else is to be done, the selected device is identified, and what is wrong with it
//! marks the job that helps.

use crate::app::{App, BackgroundIdentify, Effect, Goal, Screen};
use crate::image::Loader;
use crate::job::{DeviceInfo, Event, Identity, Job, Level, Selector, Task};
use crate::report;

/// The job that identifies the selected device, if nothing speaks against it.
pub(super) fn identify(app: &mut App) -> Option<Effect> {
    let devices = &mut app.devices;
    let device = devices.selected().filter(|device| device.closed.is_none())?;
    let seen = devices.identified.as_ref().is_some_and(|it| it.device == *device);
    // Another run that waits for a drone is to have it first.
    let is_awaited = devices.others_at_work.iter().any(|work| work.place.is_empty());
    let busy = app.detached || devices.is_identifying() || devices.held_by().is_some() || is_awaited;
    if app.screen != Screen::Home || seen || busy {
        return None;
    }
    let device = device.clone();
    let job = Job { device: Selector::At(device.location.clone()), ..Job::new(Task::Identify) };
    devices.identified = Some(BackgroundIdentify { device, known: None, is_under_way: true });
    Some(Effect::Identify(Box::new(job)))
}

/// An event of the background identify.
pub(super) fn on_event(app: &mut App, event: Event) {
    match event {
        Event::Known(known) => {
            for (label, text) in report::known(&known) {
                app.log.push(app.now, Level::Info, &format!("{label:<11} {text}"));
            }
            if let DeviceInfo::InDfu(identity) = &*known {
                diagnose(app, identity);
            }
            if let Some(identified) = &mut app.devices.identified {
                identified.known = Some(known);
            }
        }
        Event::Log(level @ Level::Warning, entry) => app.log.record(app.now, level, entry),
        _ => {}
    }
}

/// Its end. What was seen before a job is not what is there after it.
pub(super) fn ended(app: &mut App) {
    match &mut app.devices.identified {
        Some(identified) if app.screen == Screen::Home => identified.is_under_way = false,
        identified => *identified = None,
    }
}

/// What is wrong with the drone is told, and the job that helps is marked.
fn diagnose(app: &mut App, identity: &Identity) {
    let Some(words) = report::diagnosis(identity) else { return };
    app.log.push(app.now, Level::Warning, &words);
    if identity.loader.is_some_and(Loader::is_gone) && app.screen == Screen::Home {
        if !app.goal_is_explicit {
            app.goal = Goal::Restore;
        }
        app.notify("The bootloader is gone: b puts it back, with a firmware if one is chosen.");
    }
}
