//! The only function that changes the interface: what happened and when, in; what is to be done, out.
//!
//! Total: no message can make it panic, in any state. It never waits and never looks anything up. [`job`] is what
//! a job and its events do, [`mod@look`] the look in passing, [`files`] the choice of a file.

use std::time::Duration;

use tui_input::InputRequest;

use super::command_line;
use super::keys::{self, Action, Key};
use super::wizard::{Move, Step};
use super::{
    App, BusState, Effect, Goal, JobView, Look, Msg, Over, Question, Resume, SECTORS, Screen, Slot, Stage,
    Which, Wizard,
};
use crate::crazyflie::{self, Mode, Relative};
use crate::flash::check::Purpose;
use crate::job::{Device, Level, Other};
use crate::report;
use crate::usb::descriptor::is_printable;

mod files;
mod job;
mod look;

use files::{on_changed, on_loaded, open_picker, show_folder, slot, take};
use job::{detach, on_event, put_slots_back, require_drone, resume, start, stop, write};
use look::look;

/// How long a notice stays.
const NOTICE: Duration = Duration::from_secs(6);

pub fn update(app: &mut App, now: Duration, msg: Msg) -> Vec<Effect> {
    app.now = app.now.max(now);
    if app.notice.as_ref().is_some_and(|(_, until)| app.now >= *until) {
        app.notice = None;
    }
    let mut effects = handle(app, msg);
    if effects.contains(&Effect::Quit) && app.is_looking() {
        effects.insert(0, Effect::Cancel);
    }
    if app.screen == Screen::Home {
        put_slots_back(app);
    }
    effects.extend(look(app));
    effects
}

fn handle(app: &mut App, msg: Msg) -> Vec<Effect> {
    match msg {
        Msg::Key(key) => on_key(app, &key),
        Msg::Resized => Vec::new(),
        Msg::Tick => tick(app),
        Msg::Notice(text) => {
            notice(app, text);
            Vec::new()
        }
        Msg::Bus(bus) => on_bus(app, bus),
        Msg::Loaded(which, path, result) => on_loaded(app, which, path, result),
        Msg::Listed(folder, entries) => {
            if let Screen::Pick(_, _, picker) = &mut app.screen
                && picker.folder == folder
            {
                picker.entries = Some(entries);
                picker.step(0);
            }
            Vec::new()
        }
        Msg::Changed(which, path, result) => on_changed(app, which, path, result),
        Msg::Elsewhere(others) => {
            app.elsewhere = others;
            Vec::new()
        }
        Msg::Job(event) => on_event(app, *event),
        Msg::Doctor(checks) => {
            // It may have taken a while: only where nobody has gone on meanwhile.
            if app.screen == Screen::Home && app.over.is_none() {
                app.over = Some(Over::Doctor(checks));
            }
            Vec::new()
        }
        Msg::Demo(demo) => {
            app.demo = Some(demo);
            Vec::new()
        }
        Msg::Detached => detach(app),
    }
}

fn notice(app: &mut App, text: impl Into<String>) {
    // As in the log: nothing in it is a command to a terminal.
    let text: String = text.into().chars().filter(|&c| c == '\n' || is_printable(c)).collect();
    app.notice = Some((text, app.now + NOTICE));
}

fn on_key(app: &mut App, key: &Key) -> Vec<Effect> {
    // It was read, or is about what was done before.
    app.notice = None;
    app.quiet = app.now.saturating_sub(app.last_key);
    app.last_key = app.now;
    if let Some(effects) = typed(app, key) {
        return effects;
    }
    let rows = keys::bindings(app);
    match rows.into_iter().find(|row| row.keys.contains(key)) {
        Some(row) => match row.why_not {
            Some(why) => {
                notice(app, why);
                Vec::new()
            }
            None => act(app, row.action),
        },
        None if *key == Key::CtrlC => interrupt(app),
        None => Vec::new(),
    }
}

/// Ctrl-C where it is not a key of its own: asks while something would be lost, else ends.
fn interrupt(app: &mut App) -> Vec<Effect> {
    match app.job() {
        Some(JobView { stage: Stage::Asking(_), .. }) => act(app, Action::Stop),
        Some(_) => {
            app.over = Some(Over::AskStop);
            Vec::new()
        }
        None => vec![Effect::Quit],
    }
}

/// Keys that are text: a path, or the word that a restore asks for.
fn typed(app: &mut App, key: &Key) -> Option<Vec<Effect>> {
    if app.over.is_some() {
        return None;
    }
    let asks = keys::typing_a_word(app);
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
                _ => return None,
            };
            picker.request(request);
            Some(Vec::new())
        }
        (Screen::Job(JobView { stage: Stage::Asking(Question { word, .. }), .. }), _) if asks => {
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

fn act(app: &mut App, action: Action) -> Vec<Effect> {
    match action {
        Action::Begin(goal) => begin(app, goal),
        Action::BeginMarked => begin(app, app.goal),
        Action::Choose(which) => open_picker(app, which, None),
        Action::Step(by) => step(app, by),
        Action::NextDevice => {
            mean(app, (app.chosen + 1) % app.devices().len().max(1));
            Vec::new()
        }
        Action::Take => take(app),
        Action::Parent => match &app.screen {
            Screen::Pick(which, then, picker) => match picker.folder.parent() {
                Some(parent) => show_folder(app, *which, *then, parent.to_owned()),
                None => Vec::new(),
            },
            _ => Vec::new(),
        },
        Action::Type => {
            if let Screen::Pick(_, _, picker) = &mut app.screen {
                if picker.typing.is_some() { picker.complete() } else { picker.start_typing("") }
            }
            Vec::new()
        }
        Action::Count => {
            if app.devices().iter().any(|device| device.mode == Mode::Firmware) {
                notice(app, "It still runs: unplug USB and the battery first.");
            }
            go(app, Step::Count)
        }
        Action::Say(leds) => go(app, Step::Answer(leds)),
        Action::Again => go(app, Step::Prepare),
        Action::Write => write(app),
        Action::Retry => begin(app, app.goal),
        Action::Undo => undo(app),
        Action::AskStop => {
            app.over = Some(Over::AskStop);
            Vec::new()
        }
        Action::Stop => stop(app),
        Action::CopyCommand => {
            let command = command_line::command_line(app);
            notice(app, format!("for the clipboard: {command}"));
            vec![Effect::Copy(command)]
        }
        Action::Log => {
            app.over = Some(Over::Log);
            Vec::new()
        }
        Action::Explain => {
            let line = app.log.selected().and_then(|at| app.log.lines().get(at));
            let explained = |line: &super::log::Line| {
                let text = line.entry.as_ref().and_then(super::log::explain);
                format!(
                    "{}\n\n{}",
                    line.text,
                    text.unwrap_or("There is nothing more to say about this line.")
                )
            };
            let text = line.map(explained);
            app.over = text.map(Over::Explain);
            Vec::new()
        }
        Action::Bundle => vec![Effect::Bundle],
        Action::Doctor => vec![Effect::Doctor],
        Action::Help => {
            app.over = Some(Over::Help);
            Vec::new()
        }
        Action::Back => back(app),
        Action::Person(person) => vec![Effect::Person(person)],
        Action::Quit => vec![Effect::Quit],
    }
}

/// What was there before takes the place of what was chosen, until somebody goes back to the start.
fn undo(app: &mut App) -> Vec<Effect> {
    let before = match app.undo.clone() {
        Ok(before) => before,
        Err(why) => {
            notice(app, why);
            return Vec::new();
        }
    };
    let (goal, which) = match before.image.purpose() {
        Purpose::RestoreBootloader => (Goal::Restore, Which::Loader),
        Purpose::Flash => (Goal::Flash, Which::Image),
    };
    if let Some(why) = keys::why_not(app, goal) {
        notice(app, why);
        return Vec::new();
    }
    if let Some(at) = app.devices().iter().position(|device| before.drone.is(device)) {
        mean(app, at);
    }
    let slot = slot(app, which);
    let instead = match std::mem::replace(slot, Slot::Empty) {
        Slot::Before(_, instead) => instead,
        chosen => Box::new(chosen),
    };
    *slot = Slot::Before(Box::new(before), instead);
    begin(app, goal)
}

/// The device that is meant from now on.
fn mean(app: &mut App, at: usize) {
    if at != app.chosen {
        app.map = [None; SECTORS];
    }
    app.chosen = at;
    app.meant = app.chosen_device().cloned();
}

fn step(app: &mut App, by: isize) -> Vec<Effect> {
    if app.over == Some(Over::Log) {
        app.log.scroll(by);
        return Vec::new();
    }
    match &mut app.screen {
        Screen::Pick(_, _, picker) => picker.step(by),
        Screen::Home => {
            let at = Goal::ALL.iter().position(|goal| *goal == app.goal).unwrap_or(0);
            app.goal = Goal::ALL[at.saturating_add_signed(by).min(Goal::ALL.len() - 1)];
            app.chose = true;
        }
        _ => {}
    }
    Vec::new()
}

fn back(app: &mut App) -> Vec<Effect> {
    match app.over.take() {
        // From the explanation back to the line.
        Some(Over::Explain(_)) => app.over = Some(Over::Log),
        Some(Over::Log) => app.log.follow(),
        Some(_) => {}
        None if matches!(&app.screen, Screen::Wizard(Wizard { step: Step::Answer(_), .. })) => {
            return go(app, Step::AskLeds);
        }
        None => match (&mut app.screen, app.resume.take()) {
            (Screen::Pick(_, _, picker), _) if picker.typing.is_some() => picker.typing = None,
            (Screen::Job(_), _) => {}
            (Screen::Wizard(_), Some(Resume { report, .. })) => app.screen = Screen::Outcome(report),
            _ => app.screen = Screen::Home,
        },
    }
    Vec::new()
}

/// Begins a job, or asks first for what is missing.
fn begin(app: &mut App, goal: Goal) -> Vec<Effect> {
    app.over = None;
    app.resume = None;
    app.chose = true;
    // The wizard keeps what is to be done afterwards.
    if goal == Goal::Recover {
        if app.goal != Goal::Restore {
            app.goal = Goal::Recover;
        }
        return into_dfu_mode(app);
    }
    app.goal = goal;
    if let Some(why) = keys::why_not(app, goal) {
        // An outcome stays until somebody has acknowledged it.
        if !matches!(app.screen, Screen::Outcome(_)) {
            app.screen = Screen::Home;
        }
        notice(app, why);
        return Vec::new();
    }
    let missing = match goal {
        Goal::Restore => app.loader.content().is_none().then_some(Which::Loader),
        Goal::Flash | Goal::Recover => app.image.content().is_none().then_some(Which::Image),
    };
    match missing {
        Some(which) => open_picker(app, which, Some(goal)),
        // Without a bootloader it never comes by itself.
        None if app.devices().is_empty() => into_dfu_mode(app),
        None => start(app, None),
    }
}

/// The wizard, which goes on with what is to be done as soon as the drone is there.
fn into_dfu_mode(app: &mut App) -> Vec<Effect> {
    app.screen = Screen::Wizard(Wizard::new(app.now));
    wizard_sees_bus(app)
}

fn on_bus(app: &mut App, bus: BusState) -> Vec<Effect> {
    let changed = app.bus != bus;
    let before = Some(&app.bus).filter(|bus| **bus != BusState::Asking).map(sensible);
    if let BusState::Others(others) = &bus
        && changed
    {
        app.log.push(app.now, Level::Warning, &report::about_others(others));
    }
    app.bus = bus;
    app.chosen = app.chosen.min(app.devices().len().saturating_sub(1));
    // The drone that was meant, in whatever mode it is now, stays chosen at its port. Elsewhere only if it can be no other.
    if let Some(meant) = &app.meant {
        let serial = &meant.strings.serial;
        let same = |device: &&Device| crazyflie::is_same_serial(serial, &device.strings.serial);
        let here = |device: &Device| device.location == meant.location;
        let only = app.devices().iter().filter(same).count() == 1;
        let elsewhere = || app.devices().iter().position(|device| only && same(&device));
        let at = app.devices().iter().position(here).or_else(elsewhere);
        app.chosen = at.unwrap_or(app.chosen);
        if let Screen::Job(view) = &mut app.screen {
            view.was_away |= at.is_none();
        }
    }
    // A drone that was unplugged may come back with something else on it.
    let is_there = |look: &Look| app.devices().contains(&look.device);
    if !app.is_looking() && !app.look.as_ref().is_some_and(is_there) {
        app.look = None;
    }
    // Until somebody chooses, the sensible job is marked.
    let now = sensible(&app.bus);
    if before != Some(now) && !app.chose && app.screen == Screen::Home {
        app.goal = now;
    }
    let mut effects = require_drone(app);
    effects.extend(wizard_sees_bus(app));
    effects
}

/// The job that makes sense by what is plugged in.
fn sensible(bus: &BusState) -> Goal {
    let is_px4 = |other: &Other| other.what == Relative::Px4Bootloader;
    match bus {
        BusState::Devices(devices) if !devices.is_empty() => Goal::Flash,
        BusState::Others(others) if others.iter().any(is_px4) => Goal::Restore,
        _ => Goal::Recover,
    }
}

fn tick(app: &mut App) -> Vec<Effect> {
    if let Screen::Job(view) = &mut app.screen {
        view.progress.tick(app.now);
    }
    let mut effects = wizard_moved(app, Wizard::tick);
    // Nothing new came; one that was there all the time runs.
    if matches!(&app.screen, Screen::Wizard(Wizard { step: Step::AskLeds, .. })) {
        effects.extend(wizard_sees_bus(app));
    }
    effects
}

fn go(app: &mut App, step: Step) -> Vec<Effect> {
    let now = app.now;
    if let Screen::Wizard(wizard) = &mut app.screen {
        wizard.go(step, now);
    }
    Vec::new()
}

fn wizard_sees_bus(app: &mut App) -> Vec<Effect> {
    let devices = app.devices().to_vec();
    wizard_moved(app, |wizard, now| wizard.bus(&devices, now))
}

fn wizard_moved(app: &mut App, change: impl FnOnce(&mut Wizard, Duration) -> Move) -> Vec<Effect> {
    let now = app.now;
    let Screen::Wizard(wizard) = &mut app.screen else { return Vec::new() };
    match change(wizard, now) {
        Move::Stay => Vec::new(),
        Move::Beep(times) => vec![Effect::Bell(times)],
        Move::Arrived if app.resume.is_some() => resume(app),
        Move::Arrived => {
            let goal = app.goal_of_wizard();
            let dfu = |device: &Device| device.mode == Mode::Dfu;
            let at = app.devices().iter().position(dfu).unwrap_or(0);
            mean(app, at);
            let mut effects = vec![Effect::Bell(1)];
            effects.extend(begin(app, goal));
            effects
        }
    }
}

/// Whether an image is taken only by somebody who insists.
pub(super) fn needs_insisting(image: &crate::image::Image) -> bool {
    job::wish_for(image).allow_mismatch
}

#[cfg(test)]
mod tests;
