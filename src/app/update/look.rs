//! The look in passing: while nothing else is to be done, the device that is meant is identified, and what is wrong
//! with it marks the job that helps.

use std::time::Duration;

use super::notice;
use crate::app::{App, Effect, Goal, Look, LookState, Screen};
use crate::job::{Enter, Event, Identity, Job, Known, Level, Loader, Selector, Task};
use crate::report;

/// While nothing else is to be done, the device that is meant is looked at: what it is and what is on it.
pub(super) fn look(app: &mut App) -> Option<Effect> {
    let device = app.chosen_device().filter(|device| device.closed.is_none())?;
    let seen = app.look.as_ref().is_some_and(|look| look.device == *device);
    // Another run that waits for a drone is to have it first.
    let is_awaited = app.elsewhere.iter().any(|work| work.place.is_empty());
    let busy = app.detached || app.is_looking() || app.held_by().is_some() || is_awaited;
    if app.screen != Screen::Home || seen || busy {
        return None;
    }
    let device = device.clone();
    let job = Job {
        device: Selector::At(device.location.clone()),
        serial: None,
        wait: Duration::ZERO,
        enter: Enter::Never,
        task: Task::Identify,
    };
    app.look = Some(Look { device, state: LookState::UnderWay(None) });
    Some(Effect::Start(Box::new(job)))
}

/// An event of the look in passing.
pub(super) fn on_look(app: &mut App, event: Event) {
    match event {
        Event::Known(known) => {
            for (label, text) in report::known(&known) {
                app.log.push(app.now, Level::Info, &format!("{label:<11} {text}"));
            }
            if let Known::InDfu(identity) = &*known {
                diagnose(app, identity);
            }
            if let Some(look) = &mut app.look {
                look.state = LookState::UnderWay(Some(known));
            }
        }
        // What was seen before a job is not what is there after it.
        Event::Finished(_) if app.screen != Screen::Home => app.look = None,
        Event::Finished(_) => {
            if let Some(Look { state, .. }) = &mut app.look
                && let LookState::UnderWay(known) = state
            {
                *state = LookState::Over(known.take());
            }
        }
        Event::Log(level @ Level::Warning, entry) => app.log.record(app.now, level, entry),
        _ => {}
    }
}

/// What is wrong with the drone is told, and the job that helps is marked.
fn diagnose(app: &mut App, identity: &Identity) {
    let Some(words) = report::diagnosis(identity) else { return };
    app.log.push(app.now, Level::Warning, &words);
    if identity.loader.is_some_and(Loader::is_gone) && app.screen == Screen::Home {
        if !app.chose {
            app.goal = Goal::Restore;
        }
        notice(app, "The bootloader is gone: b puts it back, with a firmware if one is chosen.");
    }
}
