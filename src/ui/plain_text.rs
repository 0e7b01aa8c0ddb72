//! The interface as plain text, for dumb terminals, pipes and screen readers.
//!
//! The state of the screen becomes lines, and the keys become choices. `tui::plain` reprints the lines and the choices
//! whenever they change.

use super::batch_panel;
use super::main_panel::{PlanRow, PlanRowKind, danger_reason, entry_name, loader_note, plan_rows};
use super::releases_panel;
use crate::app::batch::BatchStage;
use crate::app::keys::{Action, Key};
use crate::app::picker::EntryKind;
use crate::app::releases::{ReleasesView, Request};
use crate::app::wizard::{Leds, WizardStep};
use crate::app::{App, BusState, HAS_RELEASES, JobView, Overlay, Screen, Slot, Stage, WizardView, keys};
use crate::crazyflie::symptoms::SYMPTOMS;
use crate::doctor::Check;
use crate::job::Outcome;
use crate::report;
use crate::usb::descriptor::{clean, is_printable};

/// Returns the lines of the overlay, or the lines of the screen if no overlay is open.
pub(crate) fn screen_lines(app: &App) -> Vec<String> {
    if let Some(over) = &app.overlay {
        return overlay_lines(app, over);
    }
    match &app.screen {
        Screen::Home => home(app),
        // Print nothing until the folder has been read.
        Screen::Pick(_, _, picker) if picker.entries.is_none() => Vec::new(),
        Screen::Pick(_, _, picker) => {
            let or = if HAS_RELEASES { ", or `releases` for Bitcraze's releases" } else { "" };
            let folder = clean(&picker.folder.display().to_string());
            let mut lines = vec![format!("Choose a file in {folder}. Type its path, or just its name{or}:")];
            lines.extend(picker.rows().iter().map(|entry| {
                let name = entry_name(picker, entry);
                match &entry.kind {
                    EntryKind::Folder => format!("  {name}/"),
                    EntryKind::File(what, _) => format!("  {name}   {what}"),
                }
            }));
            lines
        }
        Screen::Releases(view) => releases(app, view),
        Screen::Wizard(WizardView { wizard, .. }) => {
            if let Some(words) = wizard.spoken_words(app.now) {
                return vec![words];
            }
            let (head, detail) = wizard.instruction(app.now);
            let mut lines = vec![head.to_owned()];
            if app.resume().is_some() && wizard.step == WizardStep::Prepare {
                lines.insert(0, super::wizard_panel::LOST.to_owned());
            }
            lines.push(detail.into_owned());
            if wizard.step == WizardStep::AskLeds {
                lines.extend(app.demo.as_ref().map(|demo| format!("({})", super::describe_demo(demo))));
                lines.extend(
                    Leds::ALL
                        .iter()
                        .enumerate()
                        .map(|(n, leds)| format!("  {}  {}", n + 1, leds.answer_text())),
                );
            }
            lines.retain(|line| !line.is_empty());
            lines
        }
        Screen::Job(JobView { stage: Stage::Asking(_), .. }) => asking(app),
        Screen::Job(_) => Vec::new(),
        Screen::Row(view) => {
            view.fleet.rows.get(view.at).map(|row| batch_panel::row_title(app, row)).into_iter().collect()
        }
        // The console's lines are printed as they arrive.
        Screen::Console(view) => {
            vec![format!("The console of the Crazyflie on port {}:", view.device.location)]
        }
        // While a batch is running, the log has a line for each finished drone.
        Screen::Batch(view) if view.is_active() => Vec::new(),
        Screen::Batch(view) => {
            let head = match view.stage {
                BatchStage::Asking(_) => "The plan (nothing is written until you confirm):".to_owned(),
                _ => batch_panel::counts(view),
            };
            let mut lines = vec![head];
            lines.extend(batch_panel::plain_rows(app, view));
            if let Some(row) = view.fleet.rows.get(view.at).filter(|_| view.stage == BatchStage::Over) {
                lines.extend(batch_panel::details(view, row));
            }
            lines
        }
        Screen::Outcome(report, _) => match &report.outcome {
            Outcome::Failed(failure) => {
                let problem = report::failure_problem(failure);
                vec![problem.to_string(), problem.advice.on_screen()]
            }
            Outcome::Cancelled(_) => vec![report::headline(report)],
            _ => {
                let loader = loader_note(app).map(|(words, _)| words);
                let words = [Some(report::headline(report)), app.describe_restart(report), loader];
                words.into_iter().flatten().collect()
            }
        },
    }
}

/// Returns the phase, the percentage and the estimated time left.
pub(crate) fn progress(app: &App) -> String {
    let Some(view) = app.job() else { return String::new() };
    let left = view.facts.progress.left().filter(|left| !left.is_zero());
    let left = left.map(|left| format!(", about {} s left", left.as_secs() + 1)).unwrap_or_default();
    format!("{}{left}", super::bar::summarise(view))
}

fn overlay_lines(app: &App, over: &Overlay) -> Vec<String> {
    match over {
        Overlay::Help(_) => {
            let row = |row: &keys::Binding| {
                let why = row.why_not.as_ref().map(|why| format!(" ({why})")).unwrap_or_default();
                format!("  {:<6} {}{why}", key_to_type(row), row.label)
            };
            let keys = keys::bindings_below(app);
            let leds = SYMPTOMS.iter().filter(|row| row.in_readme);
            let leds = leds.map(|row| format!("  {}: {}", row.leds, row.meaning));
            let head = "The drone's LEDs (M1 is red, M2 and M3 are blue):".to_owned();
            keys.iter().filter(|row| is_choice(row)).map(row).chain([head]).chain(leds).collect()
        }
        Overlay::AskStop => {
            vec!["Stop at the next safe point?".to_owned(), super::over::stop_consequence(app).to_owned()]
        }
        // The log of a batch row is not printed as it grows, so print the whole log here.
        Overlay::Log if app.batch_of_row().is_some() => {
            app.log_on_screen().lines().iter().map(|line| line.text.clone()).collect()
        }
        Overlay::Log => vec!["The log has already been printed above.".to_owned()],
        Overlay::Blink(blink) => {
            vec![format!("The LEDs of the drone on port {} are blinking.", blink.drone.port)]
        }
        Overlay::Explain(text) => text.lines().map(str::to_owned).collect(),
        Overlay::Doctor(checks) => {
            let row = |check: &Check| {
                let head = format!("{}: {}: {}", check.name, check.verdict.json_name(), check.found);
                let remedy = (!check.remedy.is_empty()).then(|| format!("  {}", check.remedy));
                [Some(head), remedy]
            };
            checks.iter().flat_map(row).flatten().collect()
        }
    }
}

fn releases(app: &App, view: &ReleasesView) -> Vec<String> {
    match (&view.request, &view.list) {
        (Request::KeptList, _) => return Vec::new(),
        (Request::List, _) => return vec!["Asking api.github.com for the list.".to_owned()],
        (Request::File { name, .. }, _) => return vec![format!("Downloading {}.", clean(name))],
        (Request::Nothing, _) => {}
    }
    let mut lines = Vec::new();
    if let Some(problem) = &view.problem {
        lines.push(printable(&releases_panel::sentence(&problem.to_string())));
        lines.push(printable(&problem.advice.on_screen()));
    }
    let Some(list) = &view.list else {
        if view.problem.is_none() {
            lines.extend(releases_panel::invitation(view));
        }
        return lines;
    };
    if let Some(stale) = &list.stale_because {
        lines.push(format!("This is an older list: {}.", printable(&stale.to_string())));
    }
    lines.push(format!("{}, {}:", releases_panel::title(app, view), releases_panel::source(view, list)));
    lines.extend(view.rows().into_iter().enumerate().map(|(n, release)| {
        let state = releases_panel::row_state(app, view, release);
        let state = if state.is_empty() { state } else { format!(", {state}") };
        format!("  {}  {}, {}{state}", n + 1, release.tag, release.published)
    }));
    lines.push("Type the number of a release to select it.".to_owned());
    lines.push(releases_panel::choice(app, view));
    lines
}

/// Removes unprintable characters from a message, which may contain text from a server.
fn printable(text: &str) -> String {
    text.chars().filter(|&c| is_printable(c)).collect()
}

fn home(app: &App) -> Vec<String> {
    let device = match (&app.devices.bus, app.devices.selected()) {
        (BusState::Scanning, _) => return Vec::new(),
        (BusState::Unavailable(why), _) => format!("No USB: {why}."),
        (BusState::Devices(_), None) => "No drone found on USB.".to_owned(),
        (BusState::Others(others), _) => {
            let names: Vec<String> = others.iter().map(|other| other.what.to_string()).collect();
            format!("No Crazyflie is plugged in, only {}.", names.join(" and "))
        }
        (BusState::Devices(_), Some(device)) => {
            format!("Device: {} {} on port {}", device.id, device.strings.product, device.location)
        }
    };
    let image = match &app.image {
        Slot::Empty => "Image: none chosen".to_owned(),
        Slot::Loading(_) => return Vec::new(),
        Slot::Bad(_, problem) => format!("Image: {}", clean(&problem.to_string())),
        Slot::Ready(file, image) => {
            format!("Image: {}, {}", clean(&file.path.display().to_string()), image.content)
        }
    };
    let simulated = app.demo.as_ref().map(|demo| format!("SIMULATED: {}", demo.scenario));
    let others = app.devices.other_instances.iter().map(ToString::to_string);
    [simulated, Some(device), Some(image)].into_iter().flatten().chain(others).collect()
}

/// Returns whether this line of a plan contains the equivalent command.
pub(crate) fn is_command(line: &str) -> bool {
    line.trim_start().starts_with(PlanRowKind::Command.label())
}

fn asking(app: &App) -> Vec<String> {
    let rows = app.preview().map(|preview| plan_rows(app, preview)).unwrap_or_default();
    let mut lines: Vec<String> =
        rows.into_iter().map(|PlanRow { what, text }| format!("  {}: {text}", what.label())).collect();
    lines.insert(0, "The plan (nothing is written until you confirm):".to_owned());
    if let Some(why) = keys::danger(app) {
        lines.push(format!("{}. Type {} to confirm.", danger_reason(why), why.confirmation_word()));
    }
    lines
}

/// Returns whether a key makes sense in plain text, where nothing is marked or scrolled.
fn is_choice(row: &keys::Binding) -> bool {
    !matches!(row.action, Action::Move(_) | Action::Parent | Action::Complete | Action::Log)
}

/// Returns the key to type on an input line. Esc cannot be typed there, so `q` or Enter replaces it.
fn key_to_type(row: &keys::Binding) -> &'static str {
    match row.keys.first() {
        Some(Key::Esc) if row.keys.contains(&Key::Char('q')) => "q",
        Some(Key::Esc) if row.keys.contains(&Key::Enter) => "Enter",
        Some(Key::Esc) => "q",
        _ => row.shown,
    }
}

/// Returns the available keys, as one line.
pub(crate) fn choices(app: &App) -> String {
    let rows = keys::bindings(app).into_iter().filter(|row| row.why_not.is_none() && is_choice(row));
    let all: Vec<String> = rows.map(|row| format!("{}: {}", key_to_type(&row), row.label)).collect();
    format!("[{}; then press Enter]", all.join(", "))
}
