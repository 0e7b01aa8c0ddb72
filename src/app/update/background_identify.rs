//! Background identify: identifies the selected device while no job is running. If something is wrong with a drone in
//! DFU mode, logs the problem; if the bootloader is missing, also marks the goal that restores it.

use crate::app::{App, BackgroundIdentify, Effect, Goal, Screen};
use crate::image::Loader;
use crate::job::{DeviceInfo, Event, Identity, Job, Level, LogEntry, Selector, Task};
use crate::report;

/// Starts a job that identifies the selected device, unless the device is already identified or in use.
pub(super) fn identify(app: &mut App) -> Option<Effect> {
    let is_blinking = app.is_blinking();
    let devices = &mut app.devices;
    let device = devices.selected().filter(|device| device.open_error.is_none())?;
    let is_identified = devices.identified.as_ref().is_some_and(|it| it.device == *device);
    // Another instance that waits for a drone takes precedence.
    let is_awaited = devices.other_instances.iter().any(|other| other.port.is_empty());
    let is_busy =
        app.detached || devices.is_identifying() || devices.instance_using_selected().is_some() || is_awaited;
    if !needs_board(&app.screen) || is_identified || is_busy || is_blinking {
        return None;
    }
    let device = device.clone();
    let job = Job { device: Selector::At(device.location.clone()), ..Job::new(Task::Identify) };
    devices.console_start = app.log.pushed();
    devices.identified = Some(BackgroundIdentify { device, known: None, is_under_way: true });
    Some(Effect::Identify(Box::new(job)))
}

/// Returns whether the screen needs the drone's board, as the page of releases does to choose the file. On such a
/// screen, the only other job that may be running blinks the LEDs.
fn needs_board(screen: &Screen) -> bool {
    matches!(screen, Screen::Home | Screen::Releases(_))
}

pub(super) fn on_event(app: &mut App, event: Event) {
    match event {
        Event::Known(known) => {
            for (label, text) in report::fact_rows(&known) {
                app.log.push(app.now, Level::Info, &format!("{label:<11} {text}"));
            }
            if let DeviceInfo::InDfu(identity) = &*known {
                diagnose(app, identity);
            }
            if let (Some(it), Some(radio)) = (&app.devices.identified, known.radio()) {
                app.names.insert(&it.device.strings.serial, radio);
            }
            app.devices.record_identity(known);
        }
        Event::Log(level, entry) if level == Level::Warning || matches!(entry, LogEntry::Console(_)) => {
            app.log.record(app.now, level, entry);
        }
        _ => {}
    }
}

/// Handles the end of a background identification. On screens that do not need the board, drops the result, because a job may
/// change the drone.
pub(super) fn ended(app: &mut App) {
    let is_blinking = app.is_blinking();
    match &mut app.devices.identified {
        // An identification that was cancelled so that the LEDs could blink has no result. Drop the entry, so that the device
        // is identified again afterwards.
        Some(identified) if needs_board(&app.screen) && (identified.known.is_some() || !is_blinking) => {
            identified.is_under_way = false;
        }
        identified => *identified = None,
    }
}

/// Logs what is wrong with the drone. If the bootloader is missing, also marks the goal that restores it, unless the
/// user has chosen a goal.
fn diagnose(app: &mut App, identity: &Identity) {
    let Some(diagnosis) = report::diagnosis(identity) else { return };
    app.log.push(app.now, Level::Warning, &diagnosis);
    if identity.loader.is_some_and(Loader::is_missing) && app.screen == Screen::Home {
        if !app.goal_is_explicit {
            app.goal = Goal::Restore;
        }
        app.notify("The bootloader is missing. Press b to restore it and any chosen firmware.");
    }
}
