//! [`update`] is the only function that changes the state of the interface. It takes a message and the time, and
//! returns effects. It does not panic on any message in any state, never blocks, and does no I/O.
//!
//! [`job`] handles a job and its events, [`batch`] the jobs of several drones, [`background_identify`] the background
//! identify, [`blink`] the blinking of LEDs, [`console`] the lines that a drone prints, [`files`] the choice of a file,
//! and [`releases`] the choice of an official release.

use std::time::Duration;

use tui_input::InputRequest;

use super::batch::BatchView;
use super::command_line;
use super::keys::{self, Action, BatchAction, Key};
use super::wizard::{Wizard, WizardStep};
use super::{
    Aim, App, BusState, Confirmation, Effect, Goal, JobView, Msg, Overlay, Screen, Source, Stage, Then,
    WizardView,
};
use crate::crazyflie::{Mode, RelatedDevice};
use crate::fleet::FleetMsg;
use crate::job::{Event, Level, Other, Outcome};
use crate::report;
use crate::supervise::Ended;

mod background_identify;
mod batch;
mod blink;
pub(super) mod console;
mod files;
mod job;
mod releases;

use files::{choose_entry, on_changed, on_loaded, open_picker, show_folder};

pub fn update(app: &mut App, now: Duration, msg: Msg) -> Vec<Effect> {
    app.now = app.now.max(now);
    if app.notice.as_ref().is_some_and(|(_, until)| app.now >= *until) {
        app.notice = None;
    }
    let mut effects = handle(app, msg);
    if effects.contains(&Effect::Quit) {
        let is_reading = app.devices.is_identifying() || app.console().is_some();
        let stop_reading = is_reading.then_some(Effect::Cancel);
        if let Some(cancel) = blink::stop(app).or(stop_reading) {
            effects.insert(0, cancel);
        }
    }
    effects.extend(background_identify::identify(app));
    effects
}

fn handle(app: &mut App, msg: Msg) -> Vec<Effect> {
    match msg {
        Msg::Key(key) => on_key(app, &key),
        Msg::Resized => Vec::new(),
        Msg::Background(background) => {
            app.background = Some(background);
            Vec::new()
        }
        Msg::Tick => tick(app),
        Msg::Notice(text) => {
            app.notify(text);
            Vec::new()
        }
        Msg::Bus(bus) => on_bus(app, bus),
        Msg::Loaded(which, path, result) => match on_loaded(app, which, path, result) {
            Some(goal) => job::begin(app, goal, Source::Chosen),
            None => Vec::new(),
        },
        Msg::NotReread(which) => batch::on_not_reread(app, which),
        Msg::Listed(folder, entries) => {
            if let Screen::Pick(_, _, picker) = &mut app.screen
                && picker.folder == folder
            {
                picker.entries = Some(entries);
                picker.step(0);
            }
            Vec::new()
        }
        Msg::Changed(..) if app.detached => vec![Effect::Quit],
        Msg::Changed(which, path, result) => {
            let Some(goal) = on_changed(app, which, path, result) else { return Vec::new() };
            let effects = job::begin(app, goal, Source::Chosen);
            let warning = "The file has changed since you chose it. This plan is for the new content.";
            app.log.push(app.now, Level::Warning, warning);
            app.notify(warning);
            effects
        }
        Msg::Completed(typed, rest) => {
            if let Screen::Pick(_, _, picker) = &mut app.screen {
                picker.complete(&typed, &rest);
            }
            Vec::new()
        }
        Msg::Releases(number, msg) => match releases::on_message(app, number, msg) {
            Some(goal) => job::begin(app, goal, Source::Chosen),
            None => Vec::new(),
        },
        Msg::TimeOfDay(time) => {
            // The clock of `now` stops while the computer is suspended, so recompute `started_at` for each job.
            // Wrap at 24 h, because midnight may have passed since startup.
            const DAY: u64 = 24 * 60 * 60;
            let started_at = (time.as_secs() + DAY - app.now.as_secs() % DAY) % DAY;
            app.started_at = Some(Duration::from_secs(started_at));
            Vec::new()
        }
        Msg::OtherInstances(others) => {
            app.devices.other_instances = others;
            Vec::new()
        }
        Msg::Job(event) => on_event(app, *event),
        Msg::Ended(ended) => on_end(app, *ended),
        Msg::OfRow(id, event) => batch::on_event(app, id, *event),
        Msg::RowEnded(id, ended) => batch::on_end(app, id, *ended),
        Msg::Doctor(checks) => {
            // The checks may take a while. Show their results only if Home is still on the screen.
            if app.screen == Screen::Home && app.overlay.is_none() {
                app.overlay = Some(Overlay::Doctor(checks));
            }
            Vec::new()
        }
        Msg::Demo(demo) => {
            app.demo = Some(demo);
            Vec::new()
        }
        Msg::Detached => job::detach(app),
    }
}

/// Passes an event from the worker to the module that started the job.
fn on_event(app: &mut App, event: Event) -> Vec<Effect> {
    if app.devices.is_identifying() {
        background_identify::on_event(app, event);
    } else if app.console().is_some() {
        console::on_event(app, event);
    } else if app.is_blinking() {
        blink::on_event(app, event);
    } else {
        return job::on_event(app, event);
    }
    Vec::new()
}

/// Passes the end of a job to the module that started it.
fn on_end(app: &mut App, ended: Ended) -> Vec<Effect> {
    match ended.background {
        true if app.devices.is_identifying() => background_identify::ended(app),
        true => return console::on_end(app, &ended.report),
        false if app.is_blinking() => blink::on_end(app, ended),
        false => return job::ended(app, ended),
    }
    Vec::new()
}

/// Some key presses are ignored for this long after an outcome or a question has been closed.
const ACCIDENT_LIMIT: Duration = Duration::from_millis(500);

/// No overlay has more rows than this.
const OVERLAY_ROWS_MAX: usize = 200;

fn on_key(app: &mut App, key: &Key) -> Vec<Effect> {
    if app.overlay.is_none() {
        app.overlay_scroll = 0;
    }
    // Any key press dismisses the notice.
    app.notice = None;
    app.rhythm.record_key_press(app.now);
    if let Some(effects) = type_text(app, key) {
        return effects;
    }
    match keys::binding_of(app, key) {
        Some(row) => match row.why_not {
            Some(why) => {
                app.notify(format!("Not now: {why}"));
                Vec::new()
            }
            None => act(app, row.action),
        },
        None if app.is_blinking() => act(app, Action::StopBlinking),
        None if *key == Key::CtrlC => interrupt(app),
        // Enter starts most things, but a plan has its own key.
        None if *key == Key::Enter && app.is_asking() && can_write(app) => {
            let back = if app.spoken { "q" } else { "Esc" };
            app.notify(format!("Press w to write, or {back} to go back."));
            Vec::new()
        }
        None => Vec::new(),
    }
}

fn can_write(app: &App) -> bool {
    keys::binding_of(app, &Key::Char('w')).is_some_and(|binding| binding.why_not.is_none())
}

/// Handles Ctrl-C if the key has no binding: stops a request for releases, cancels a job that is waiting for
/// confirmation, asks before stopping running jobs, and otherwise quits.
fn interrupt(app: &mut App) -> Vec<Effect> {
    if let Some(stop) = releases::stop(app) {
        return vec![stop];
    }
    let is_running = app.job().is_some() || app.batch().is_some_and(BatchView::is_active);
    match app.job() {
        Some(JobView { stage: Stage::Asking(_), .. }) => act(app, Action::Stop),
        _ if !is_running => vec![Effect::Quit],
        _ => {
            app.overlay = Some(Overlay::AskStop);
            Vec::new()
        }
    }
}

/// Handles a key that is part of typed text: a path, a filter, or the confirmation word. Returns `None` for other keys.
fn type_text(app: &mut App, key: &Key) -> Option<Vec<Effect>> {
    match (&mut app.overlay, key) {
        // q closes the help, unless the filter already contains text.
        (Some(Overlay::Help(filter)), Key::Char(letter))
            if *letter != '?' && (*letter != 'q' || !filter.is_empty()) =>
        {
            filter.push(*letter);
        }
        (Some(Overlay::Help(filter)), Key::Backspace) => drop(filter.pop()),
        (Some(_), _) => return None,
        (None, _) => return type_text_on_screen(app, key),
    }
    app.overlay_scroll = 0;
    Some(Vec::new())
}

fn type_text_on_screen(app: &mut App, key: &Key) -> Option<Vec<Effect>> {
    let is_typing = keys::is_typing_word(app);
    match (&mut app.screen, key) {
        (Screen::Pick(_, _, picker), Key::Paste(text)) => {
            picker.start_typing(text.lines().next().unwrap_or_default());
            Some(Vec::new())
        }
        (Screen::Pick(_, _, picker), _) if picker.typing.is_some() => {
            let request = match key {
                Key::Char(c) => InputRequest::InsertChar(*c),
                Key::Backspace => InputRequest::DeletePrevChar,
                Key::Left => InputRequest::GoToPrevChar,
                Key::Right => InputRequest::GoToNextChar,
                Key::Home => InputRequest::GoToStart,
                Key::End => InputRequest::GoToEnd,
                Key::Delete => InputRequest::DeleteNextChar,
                Key::CtrlU => InputRequest::DeleteLine,
                Key::CtrlW => InputRequest::DeletePrevWord,
                _ => return None,
            };
            picker.handle_input(request);
            Some(Vec::new())
        }
        // These characters start a path. No useful filter starts with them.
        (Screen::Pick(_, _, picker), Key::Char('/' | '~')) if picker.filter.is_empty() => {
            picker.start_typing(if *key == Key::Char('/') { "/" } else { "~/" });
            Some(Vec::new())
        }
        (Screen::Pick(_, _, picker), Key::Char(letter)) if *letter != '?' => {
            picker.edit_filter(Some(*letter));
            Some(Vec::new())
        }
        (Screen::Pick(_, _, picker), Key::Backspace) if !picker.filter.is_empty() => {
            picker.edit_filter(None);
            Some(Vec::new())
        }
        (Screen::Job(JobView { stage: Stage::Asking(Confirmation { word, .. }), .. }), _) if is_typing => {
            match key {
                Key::Char(c) if word.len() < 20 && c.is_ascii() => word.push(*c),
                Key::Backspace => drop(word.pop()),
                _ => return None,
            }
            Some(Vec::new())
        }
        _ => None,
    }
}

/// Returns whether a key press is accidental: it comes within [`ACCIDENT_LIMIT`] of the key press that closed an
/// outcome, or of the end of all jobs, which closed the stop confirmation.
fn is_accidental(app: &App, action: Action) -> bool {
    let closed = match action {
        Action::BeginMarked => app.rhythm.closed_outcome,
        Action::Batch(BatchAction::WaitForMore) => app.rhythm.closed_question,
        _ => None,
    };
    closed.is_some_and(|at| app.now < at + ACCIDENT_LIMIT)
}

fn act(app: &mut App, action: Action) -> Vec<Effect> {
    match action {
        _ if is_accidental(app, action) => Vec::new(),
        Action::Begin(goal) => job::begin(app, goal, job::source_of(app)),
        Action::BeginMarked => job::begin(app, app.goal, Source::Chosen),
        Action::Choose(which) => open_picker(app, which, None),
        Action::Move(by) => move_selection(app, by),
        Action::NextDevice => {
            app.devices.select_next();
            Vec::new()
        }
        Action::ChooseEntry => choose_entry(app),
        Action::Releases(action) => releases::act(app, action),
        Action::Parent => match &app.screen {
            Screen::Pick(which, then, picker) => match picker.folder.parent() {
                Some(parent) => show_folder(app, *which, *then, parent.to_owned()),
                None => Vec::new(),
            },
            _ => Vec::new(),
        },
        Action::Complete => {
            let Screen::Pick(_, _, picker) = &mut app.screen else { return Vec::new() };
            let path = picker.typed_path(app.home.as_deref());
            let typed = picker.typed().unwrap_or_default().to_owned();
            path.map(|path| Effect::Complete(path, typed)).into_iter().collect()
        }
        Action::StartCountdown => {
            // With several drones, the others may stay plugged in.
            if let [device] = app.devices.list()
                && device.mode == Mode::Firmware
            {
                app.notify("The drone is still on. Unplug USB and the battery first.");
                return Vec::new();
            }
            go_to_step(app, WizardStep::Count)
        }
        Action::AnswerLeds(leds) => go_to_step(app, WizardStep::Answer(leds)),
        Action::RestartWizard => go_to_step(app, WizardStep::Prepare),
        Action::Write => job::write(app),
        Action::Retry => job::retry(app),
        Action::Undo => job::undo(app),
        Action::AskStop => {
            app.overlay = Some(Overlay::AskStop);
            Vec::new()
        }
        Action::Stop if app.batch().is_some() => batch::stop(app),
        Action::Stop => job::stop(app),
        Action::Batch(action) => batch::act(app, action),
        Action::CopyCommand => {
            let command = command_line::command_line(app);
            // The notice does not claim that the command was copied, because a terminal may ignore the request.
            app.notify(format!("Sent to your clipboard: {command}"));
            vec![Effect::Copy(command)]
        }
        Action::Log => {
            app.overlay = Some(Overlay::Log);
            Vec::new()
        }
        Action::Explain => {
            if let Some((line, meaning)) = app.scrolled_log().explained() {
                app.overlay = Some(Overlay::Explain(format!("{}\n\n{meaning}", line.text)));
            }
            Vec::new()
        }
        Action::BugReport => vec![Effect::BugReport],
        Action::Doctor => vec![Effect::Doctor],
        Action::Console => console::open(app),
        Action::Blink => blink::start(app),
        Action::StopBlinking => blink::stop(app).into_iter().collect(),
        Action::Help => {
            app.overlay = Some(Overlay::Help(String::new()));
            Vec::new()
        }
        Action::Back => go_back(app),
        Action::DemoInput(input) => vec![Effect::DemoInput(input)],
        Action::Practise => {
            app.after_quit = Then::Practise;
            vec![Effect::Quit]
        }
        Action::Quit => vec![Effect::Quit],
    }
}

fn move_selection(app: &mut App, by: isize) -> Vec<Effect> {
    match app.overlay {
        Some(Overlay::Log) => {
            app.log_on_screen_mut().scroll(by);
            return Vec::new();
        }
        Some(_) => {
            app.overlay_scroll = app.overlay_scroll.saturating_add_signed(by).min(OVERLAY_ROWS_MAX);
            return Vec::new();
        }
        None => {}
    }
    match &mut app.screen {
        Screen::Pick(_, _, picker) => picker.step(by),
        Screen::Releases(view) => view.step(by),
        Screen::Console(view) => view.log.scroll(by),
        Screen::Batch(view) => {
            let last = view.fleet.rows.len().saturating_sub(1);
            view.at = view.at.saturating_add_signed(by).min(last);
        }
        Screen::Home => {
            let index = Goal::ALL.iter().position(|goal| *goal == app.goal).unwrap_or(0);
            app.goal = Goal::ALL[index.saturating_add_signed(by).min(Goal::ALL.len() - 1)];
            app.goal_is_explicit = true;
        }
        _ => {}
    }
    Vec::new()
}

fn go_back(app: &mut App) -> Vec<Effect> {
    match app.overlay.take() {
        // An explanation is opened from the console or from the log. Without a console, return to the log.
        Some(Overlay::Explain(_)) if app.console().is_none() => app.overlay = Some(Overlay::Log),
        Some(Overlay::Log) => app.log_on_screen_mut().follow(),
        Some(Overlay::Help(filter)) if !filter.is_empty() => app.overlay = Some(Overlay::Help(String::new())),
        Some(_) => {}
        None if wizard_step(app).is_some_and(|step| matches!(step, WizardStep::Answer(_))) => {
            return go_to_step(app, WizardStep::AskLeds);
        }
        None => match &mut app.screen {
            Screen::Pick(_, _, picker) if picker.typing.is_some() => picker.typing = None,
            Screen::Pick(_, _, picker) if !picker.filter.is_empty() => {
                picker.filter.clear();
                picker.at = 0;
            }
            Screen::Job(_) => {}
            Screen::Row(_) => {
                if let Screen::Row(view) = std::mem::replace(&mut app.screen, Screen::Home) {
                    app.screen = Screen::Batch(view);
                }
            }
            Screen::Console(_) => return console::close(app),
            Screen::Batch(view) if view.is_active() => return batch::stop(app),
            Screen::Wizard(WizardView { aim: Aim::Resume(resume), .. }) => {
                app.screen = Screen::Outcome(resume.report.clone(), resume.facts.clone());
            }
            Screen::Outcome(report, _) => {
                // The chosen goal has been achieved. A batch keeps its own goal.
                if app.behind.is_none()
                    && matches!(report.outcome, Outcome::Flashed | Outcome::Unchanged)
                    && keys::next_step(report) != keys::NextStep::RestoreLoader
                {
                    (app.goal, app.goal_is_explicit) = (suggested_goal(&app.devices.bus), false);
                }
                app.rhythm.closed_outcome = Some(app.now);
                app.screen = app.behind.take().map_or(Screen::Home, Screen::Batch);
            }
            _ => app.screen = Screen::Home,
        },
    }
    Vec::new()
}

fn wizard_step(app: &App) -> Option<WizardStep> {
    match &app.screen {
        Screen::Wizard(view) => Some(view.wizard.step),
        _ => None,
    }
}

fn on_bus(app: &mut App, bus: BusState) -> Vec<Effect> {
    let has_changed = app.devices.bus != bus;
    let before = Some(&app.devices.bus).filter(|bus| **bus != BusState::Scanning).map(suggested_goal);
    if let BusState::Others(others) = &bus
        && has_changed
    {
        app.log.push(app.now, Level::Warning, &report::about_others(others));
    }
    let is_there = app.devices.set_bus(bus);
    if let (Screen::Job(view), Some(false)) = (&mut app.screen, is_there) {
        view.was_away = true;
    }
    // Mark the suggested goal until the user chooses a goal.
    let suggested = suggested_goal(&app.devices.bus);
    if before != Some(suggested) && !app.goal_is_explicit && app.screen == Screen::Home {
        app.goal = suggested;
    }
    let mut effects = job::require_drone(app);
    effects.extend(job::pass_bus_to_wizard(app));
    effects.extend(batch::pass_devices(app));
    effects
}

/// Returns the goal that suits the devices that are plugged in.
fn suggested_goal(bus: &BusState) -> Goal {
    let is_px4 = |other: &Other| other.what == RelatedDevice::Px4Bootloader;
    match bus {
        BusState::Devices(devices) if !devices.is_empty() => Goal::Flash,
        BusState::Others(others) if others.iter().any(is_px4) => Goal::Restore,
        _ => Goal::Recover,
    }
}

fn tick(app: &mut App) -> Vec<Effect> {
    let now = app.now;
    match &mut app.screen {
        Screen::Job(view) => view.facts.progress.tick(now),
        Screen::Row(view) => {
            if let Some(job) = view.job_mut(view.at) {
                job.view.facts.progress.tick(now);
            }
        }
        _ => {}
    }
    let mut effects = job::advance_wizard(app, Wizard::tick);
    effects.extend(batch::apply(app, FleetMsg::Tick));
    // The wizard checks the devices only when the bus changes. A drone that has been running all along causes no
    // change, so check the devices here, too.
    if wizard_step(app) == Some(WizardStep::AskLeds) {
        effects.extend(job::pass_bus_to_wizard(app));
    }
    effects
}

fn go_to_step(app: &mut App, step: WizardStep) -> Vec<Effect> {
    let now = app.now;
    if let Screen::Wizard(view) = &mut app.screen {
        view.wizard.go_to(step, now);
    }
    Vec::new()
}

#[cfg(test)]
mod tests;
