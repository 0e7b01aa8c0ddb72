//! The console of the running drone in the interface: opens the console, collects its lines, and closes it. The console
//! starts with the lines that earlier jobs have read, because the drone sends each line only once. Before the console's
//! job ends, it switches the drone's link back to the radio, so the screen stays open until the job has ended.

use crate::app::log::Log;
use crate::app::{App, ConsoleView, Effect, Screen, log};
use crate::crazyflie::Mode;
use crate::job::{Device, Event, Job, Level, LogEntry, Outcome, Report, Task};
use crate::report;

/// Opens the console of the selected drone.
pub(super) fn open(app: &mut App) -> Vec<Effect> {
    let Some(device) = app.devices.selected().filter(|device| device.mode == Mode::Firmware).cloned() else {
        return Vec::new();
    };
    let closed = app.closed_console.take().filter(|(_, view)| view.device == device);
    let (from, opened, mut log) = match closed {
        Some((from, view)) => (from, view.opened, view.log),
        None => (app.devices.console_start, app.now, Log::default()),
    };
    log.follow();
    let dropped = app.log.pushed() - app.log.lines().len();
    for line in app.log.lines().iter().skip(from.saturating_sub(dropped)) {
        if let Some(entry @ LogEntry::Console(text)) = &line.entry {
            log.record(line.at.saturating_sub(opened), level(text), entry.clone());
        }
    }
    let behind = Box::new(std::mem::replace(&mut app.screen, Screen::Home));
    let job = Job::new(Task::Console(None)).of(device.drone());
    app.screen = Screen::Console(Box::new(ConsoleView { device, opened, log, behind, closing: false }));
    vec![Effect::Listen(Box::new(job))]
}

fn level(line: &str) -> Level {
    if log::is_error(line) { Level::Warning } else { Level::Info }
}

/// Ends the console's job. The screen closes once the job has ended.
pub(super) fn close(app: &mut App) -> Vec<Effect> {
    match &mut app.screen {
        Screen::Console(view) if !view.closing => {
            view.closing = true;
            vec![Effect::Cancel]
        }
        _ => Vec::new(),
    }
}

pub(super) fn on_event(app: &mut App, event: Event) {
    let Screen::Console(view) = &mut app.screen else { return };
    let at = app.now.saturating_sub(view.opened);
    match event {
        Event::Console { line, .. } => {
            view.log.record(at, level(&line.text), LogEntry::Console(line.text));
            if line.cut {
                view.log.push(
                    at,
                    Level::Warning,
                    "(lines are missing: the drone printed more than it can keep)",
                );
            }
        }
        Event::Device(device) => view.device = device,
        Event::Log(Level::Info | Level::Warning, entry) => {
            view.log.record(at, Level::Warning, entry);
        }
        _ => {}
    }
}

/// Returns to the screen from which the console was opened. If the console could not be read, notifies the user.
pub(super) fn on_end(app: &mut App, report: &Report) -> Vec<Effect> {
    match std::mem::replace(&mut app.screen, Screen::Home) {
        Screen::Console(mut view) => {
            app.screen = std::mem::replace(&mut view.behind, Screen::Home);
            app.closed_console = Some((app.log.pushed(), view));
        }
        screen => {
            app.screen = screen;
            return Vec::new();
        }
    }
    if let Outcome::Failed(failure) = &report.outcome {
        let problem = report::failure_problem(failure);
        app.log.push(app.now, Level::Warning, &problem.to_string());
        app.notify(format!("{problem}. {}", problem.advice.on_screen()));
    }
    if app.detached { vec![Effect::Quit] } else { Vec::new() }
}

/// Returns why the console of the selected drone cannot be opened; `None` if it can be opened.
pub(in crate::app) fn why_not(app: &App) -> Option<String> {
    match app.devices.selected() {
        None => Some("no running Crazyflie".to_owned()),
        Some(Device { mode: Mode::Dfu, .. }) => {
            Some("the drone is in DFU mode, where its firmware does not run".to_owned())
        }
        Some(Device { open_error: Some(error), .. }) => Some(error.to_string()),
        Some(_) => app.devices.instance_using_selected().map(ToString::to_string),
    }
}
