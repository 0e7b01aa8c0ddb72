//! The only function that changes the interface: what happened and when, in; what is to be done, out.
//!
//! Total: no message can make it panic, in any state. It never waits and never looks anything up.

use std::time::Duration;

use tui_input::InputRequest;

use super::keys::{self, Action, Key};
use super::picker::{EntryKind, Picker};
use super::progress::Progress;
use super::wizard::{Move, Step};
use super::{
    App, Before, BusState, Effect, Goal, JobView, Look, LookState, Msg, Over, Resume, SECTORS, Screen, Slot,
    Stage, Which, Wizard,
};
use crate::flash::FIRMWARE_BASE;
use crate::flash::check::{self, Wish};
use crate::flash::plan::BLANK;
use crate::image::{Content, Image};
use crate::job::{
    Confirm, Device, Enter, Event, FlashTask, Identity, Job, Known, Level, Loader, Outcome, Phase, Report,
    Selector, Task,
};
use crate::report;

/// How long a notice stays.
const NOTICE: Duration = Duration::from_secs(6);

/// Takes one message.
pub fn update(app: &mut App, now: Duration, msg: Msg) -> Vec<Effect> {
    app.now = app.now.max(now);
    if app.notice.as_ref().is_some_and(|(_, until)| app.now >= *until) {
        app.notice = None;
    }
    let mut effects = handle(app, msg);
    if effects.contains(&Effect::Quit) && is_looking(app) {
        effects.insert(0, Effect::Cancel);
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

/// While nothing else is to be done, the device that is meant is looked at: what it is and what is on it.
fn look(app: &mut App) -> Option<Effect> {
    let device = app.chosen_device().filter(|device| device.closed.is_none())?;
    let seen = app.look.as_ref().is_some_and(|look| look.device == *device);
    let busy = app.detached || is_looking(app) || app.held_by().is_some();
    if app.screen != Screen::Home || seen || busy {
        return None;
    }
    let device = device.clone();
    let job = Job {
        device: Selector::At(device.location.clone()),
        wait: Duration::ZERO,
        enter: Enter::Never,
        task: Task::Identify,
    };
    app.look = Some(Look { device, state: LookState::UnderWay(None) });
    Some(Effect::Start(Box::new(job)))
}

fn is_looking(app: &App) -> bool {
    app.look.as_ref().is_some_and(|look| matches!(look.state, LookState::UnderWay(_)))
}

/// An event of the look in passing.
fn on_look(app: &mut App, event: Event) {
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
        Event::Log(level @ Level::Warning, text) => app.log.push(app.now, level, &text),
        _ => {}
    }
}

/// What is wrong with the drone is told, and the job that helps is marked.
fn diagnose(app: &mut App, identity: &Identity) {
    let Some(words) = report::diagnosis(identity) else { return };
    app.log.push(app.now, Level::Warning, &words);
    if identity.loader.is_some_and(|loader| loader != Loader::Bitcraze) && app.screen == Screen::Home {
        app.goal = Goal::Restore;
        notice(app, "The bootloader is gone: b puts it back, with a firmware if one is chosen.");
    }
}

fn notice(app: &mut App, text: impl Into<String>) {
    app.notice = Some((text.into(), app.now + NOTICE));
}

fn on_key(app: &mut App, key: &Key) -> Vec<Effect> {
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
    let word = keys::typing_a_word(app);
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
        (Screen::Job(JobView { stage: Stage::Asking(text), .. }), _) if word => {
            match key {
                Key::Char(c) if text.len() < 20 && c.is_ascii() => text.push(*c),
                Key::Backspace => drop(text.pop()),
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
            app.chosen = (app.chosen + 1) % app.devices().len().max(1);
            app.meant = app.chosen_device().cloned();
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
        Action::Count => go(app, Step::Count),
        Action::Say(leds) => go(app, Step::Answer(leds)),
        Action::Again => go(app, Step::Prepare),
        Action::Write => write(app),
        Action::Retry => begin(app, app.goal),
        Action::Undo => match app.before() {
            Ok(before) => {
                let before = Box::new(before.clone());
                let goal = if before.copy.address < FIRMWARE_BASE { Goal::Restore } else { Goal::Flash };
                let which = if goal == Goal::Restore { Which::Loader } else { Which::Image };
                let slot = slot(app, which);
                let instead = Box::new(std::mem::replace(slot, Slot::Empty));
                *slot = Slot::Before(before, instead);
                begin(app, goal)
            }
            Err(why) => {
                notice(app, why);
                Vec::new()
            }
        },
        Action::AskStop => {
            app.over = Some(Over::AskStop);
            Vec::new()
        }
        Action::Stop => stop(app),
        Action::CopyCommand => {
            notice(app, "the command was sent to your terminal's clipboard");
            vec![Effect::Copy(command_line(app))]
        }
        Action::Log => {
            app.over = Some(Over::Log);
            Vec::new()
        }
        Action::Explain => {
            let line = app.log.selected().and_then(|at| app.log.lines().get(at));
            let text = line.map(|line| format!("{}\n\n{}", line.text, super::log::explain(&line.text)));
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
    // The wizard keeps what is to be done afterwards.
    if goal == Goal::Recover {
        if app.goal != Goal::Restore {
            app.goal = Goal::Recover;
        }
        app.screen = Screen::Wizard(Wizard::new(app.now));
        let devices = app.devices().to_vec();
        return wizard_moved(app, |wizard, now| wizard.bus(&devices, now));
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
        None => start(app, Confirm::Ask),
    }
}

/// Everything is there: give the job to the worker. It looks first and, unless it goes on with what was confirmed
/// before, asks before it writes.
fn start(app: &mut App, confirm: Confirm) -> Vec<Effect> {
    let chosen =
        || app.chosen_device().map_or(Selector::Only, |device| Selector::At(device.location.clone()));
    let slot = if app.goal == Goal::Restore { &app.loader } else { &app.image };
    let firmware = app.firmware_of_restore();
    let (image, firmware, device) = match (slot, slot.image()) {
        (Slot::Before(before, _), _) => {
            let image = check::undo(before.copy.clone(), Wish::default());
            (image, before.content.firmware(), before.drone.clone())
        }
        (_, Some(loader)) if app.goal == Goal::Restore => {
            let image = check::restore(loader, firmware, Wish::default());
            (image, firmware.unwrap_or(loader).content.firmware(), chosen())
        }
        (_, Some(image)) => (check::flash(image, wish_for(image)), image.content.firmware(), chosen()),
        (_, None) => return Vec::new(),
    };
    let task = match image {
        Ok(image) => FlashTask::new(image, firmware),
        Err(refusal) => {
            notice(app, refusal.to_string());
            return Vec::new();
        }
    };
    app.meant = app.chosen_device().cloned();
    let task = if confirm == Confirm::Go { task.resumed() } else { task };
    app.map = [None; SECTORS];
    if confirm == Confirm::Ask {
        app.preview = None;
    }
    app.log.follow();
    app.screen = Screen::Job(JobView {
        stage: Stage::Looking,
        progress: Progress::default(),
        waiting: None,
        stopping: false,
        confirm,
        was_away: false,
    });
    let job = Job { device, wait: Duration::ZERO, enter: Enter::IfRunning, task: Task::Flash(task) };
    vec![Effect::Start(Box::new(job))]
}

/// An image that is not recognised is taken here, since the plan then asks for a word.
fn wish_for(image: &Image) -> Wish {
    let allow_mismatch = matches!(image.content, Content::Unknown { .. });
    Wish { allow_mismatch, ..Wish::default() }
}

fn write(app: &mut App) -> Vec<Effect> {
    match &mut app.screen {
        Screen::Job(view) if matches!(view.stage, Stage::Asking(_)) => {
            view.stage = Stage::Working;
            remember_before(app);
            vec![Effect::Proceed]
        }
        _ => Vec::new(),
    }
}

/// What is about to be overwritten can be put back. Nothing worth that: then what was there before, on the same
/// drone, still is.
fn remember_before(app: &mut App) {
    let Some(drone) = app.device.as_ref().map(|device| Selector::Serial(device.strings.serial.clone()))
    else {
        return;
    };
    let copy = app.preview.as_ref().and_then(|preview| preview.before.clone());
    match copy {
        Some(copy) => {
            let len = copy.data.iter().rposition(|&byte| byte != BLANK).map_or(0, |last| last + 1);
            let content = Content::of(&copy.data[..len]);
            app.undo = Some(Before { copy, content, drone });
        }
        None if app.undo.as_ref().is_some_and(|before| before.drone != drone) => app.undo = None,
        None => {}
    }
}

fn stop(app: &mut App) -> Vec<Effect> {
    app.over = None;
    match &mut app.screen {
        Screen::Job(view) if !view.stopping || matches!(view.stage, Stage::Asking(_)) => {
            view.stopping = true;
            vec![Effect::Cancel]
        }
        _ => Vec::new(),
    }
}

fn open_picker(app: &mut App, which: Which, then: Option<Goal>) -> Vec<Effect> {
    let slot = if which == Which::Image { &app.image } else { &app.loader };
    let beside = slot.path().or(app.image.path()).and_then(|path| path.parent());
    let usual = app.folder.as_deref().unwrap_or(".".as_ref());
    let folder = beside.filter(|folder| folder.is_absolute()).unwrap_or(usual).to_owned();
    show_folder(app, which, then, folder)
}

fn show_folder(app: &mut App, which: Which, then: Option<Goal>, folder: std::path::PathBuf) -> Vec<Effect> {
    app.screen = Screen::Pick(which, then, Picker::new(folder.clone()));
    vec![Effect::List(folder)]
}

fn take(app: &mut App) -> Vec<Effect> {
    let Screen::Pick(which, then, picker) = &app.screen else { return Vec::new() };
    let (which, then) = (*which, *then);
    let path = match (picker.typed_path(), picker.marked()) {
        (Some(path), _) => path,
        (None, Some(entry)) if entry.kind == EntryKind::Folder => {
            let folder = entry.path.clone();
            return show_folder(app, which, then, folder);
        }
        (None, Some(entry)) => entry.path.clone(),
        (None, None) => return Vec::new(),
    };
    *slot(app, which) = Slot::Loading(path.clone());
    vec![Effect::Load(which, path)]
}

fn slot(app: &mut App, which: Which) -> &mut Slot {
    match which {
        Which::Image => &mut app.image,
        Which::Loader => &mut app.loader,
    }
}

/// A file is taken only if it may be flashed: what cannot be is refused here, before any drone is asked.
fn on_loaded(
    app: &mut App,
    which: Which,
    path: std::path::PathBuf,
    result: Result<Box<Image>, report::Problem>,
) -> Vec<Effect> {
    let admitted = result.and_then(|image| {
        let refusal = match which {
            // What is not recognised may be flashed by whoever types a word.
            Which::Image => check::flash(&image, wish_for(&image)).err(),
            Which::Loader => check::restore(&image, None, Wish::default()).err(),
        };
        refusal.map_or(Ok(image), |refusal| Err(report::refusal(&refusal)))
    });
    let then = match &app.screen {
        Screen::Pick(picking, then, _) if *picking == which => Some(*then),
        _ => None,
    };
    match admitted {
        Ok(image) => {
            *slot(app, which) = Slot::Ready(path, image);
            if let Some(then) = then {
                app.screen = Screen::Home;
                return then.map_or_else(Vec::new, |goal| begin(app, goal));
            }
        }
        Err(problem) => {
            notice(app, format!("{}. {}", problem.message, problem.advice));
            *slot(app, which) = Slot::Bad(path, problem);
        }
    }
    Vec::new()
}

fn on_bus(app: &mut App, bus: BusState) -> Vec<Effect> {
    let first = app.bus == BusState::Asking;
    if let BusState::Others(others) = &bus
        && app.bus != bus
    {
        app.log.push(app.now, Level::Warning, &report::about_others(others));
    }
    app.bus = bus;
    app.chosen = app.chosen.min(app.devices().len().saturating_sub(1));
    // The drone that was meant, in whatever mode it is now: by its serial number, or else by its place.
    if let Some(meant) = &app.meant {
        let serial = Selector::Serial(meant.strings.serial.clone());
        let same = |device: &Device| !meant.strings.serial.is_empty() && serial.matches(device);
        let here = |device: &Device| device.location == meant.location;
        let at = app.devices().iter().position(same).or_else(|| app.devices().iter().position(here));
        app.chosen = at.unwrap_or(app.chosen);
        if let Screen::Job(view) = &mut app.screen {
            view.was_away |= at.is_none();
        }
    }
    // A drone that was unplugged may come back with something else on it.
    let is_there = |look: &Look| app.devices().contains(&look.device);
    if !is_looking(app) && !app.look.as_ref().is_some_and(is_there) {
        app.look = None;
    }
    // Until somebody chooses, the sensible job is marked.
    if first && app.screen == Screen::Home {
        app.goal = if app.devices().is_empty() { Goal::Recover } else { Goal::Flash };
    }
    let devices = app.devices().to_vec();
    wizard_moved(app, |wizard, now| wizard.bus(&devices, now))
}

fn tick(app: &mut App) -> Vec<Effect> {
    if let Screen::Job(view) = &mut app.screen {
        view.progress.tick(app.now);
    }
    wizard_moved(app, Wizard::tick)
}

fn go(app: &mut App, step: Step) -> Vec<Effect> {
    let now = app.now;
    if let Screen::Wizard(wizard) = &mut app.screen {
        wizard.go(step, now);
    }
    Vec::new()
}

fn wizard_moved(app: &mut App, change: impl FnOnce(&mut Wizard, Duration) -> Move) -> Vec<Effect> {
    let now = app.now;
    let Screen::Wizard(wizard) = &mut app.screen else { return Vec::new() };
    match change(wizard, now) {
        Move::Stay => Vec::new(),
        Move::Beep(times) => vec![Effect::Bell(times)],
        Move::Arrived if app.resume.is_some() => resume(app),
        Move::Arrived => {
            let goal = if app.goal == Goal::Restore { Goal::Restore } else { Goal::Flash };
            let dfu = |device: &Device| device.mode == crate::crazyflie::Mode::Dfu;
            app.chosen = app.devices().iter().position(dfu).unwrap_or(0);
            let mut effects = vec![Effect::Bell(1)];
            effects.extend(begin(app, goal));
            effects
        }
    }
}

/// The drone that was lost is back: on with it. Another one is not.
fn resume(app: &mut App) -> Vec<Effect> {
    let Some(Resume { serial, .. }) = &app.resume else { return Vec::new() };
    let dfu = |device: &Device| device.mode == crate::crazyflie::Mode::Dfu;
    let Some(at) = app.devices().iter().position(|device| dfu(device) && serial.matches(device)) else {
        notice(app, "That is another drone than the one that was lost. Esc gives up on that one.");
        return Vec::new();
    };
    app.chosen = at;
    app.resume = None;
    app.log.push(app.now, Level::Info, "It is back: going on where it was");
    let mut effects = vec![Effect::Bell(1)];
    effects.extend(start(app, Confirm::Go));
    effects
}

fn on_event(app: &mut App, event: Event) -> Vec<Effect> {
    if is_looking(app) {
        on_look(app, event);
        return Vec::new();
    }
    match event {
        Event::Log(level, text) => app.log.push(app.now, level, &text),
        Event::Device(device) => app.device = Some(device),
        Event::Planned(_) | Event::Known(_) => {}
        Event::Sector { index, state } => {
            if let Some(sector) = app.map.get_mut(index) {
                *sector = Some(state);
            }
        }
        Event::Ready(preview) => return ready(app, preview),
        Event::Progress { phase, done, total } => progress(app, phase, done, total),
        Event::Waiting { what, limit } => {
            if let Screen::Job(view) = &mut app.screen
                && !limit.is_zero()
            {
                view.waiting = Some((what, app.now, limit));
            }
        }
        Event::Finished(report) => return finished(app, report),
    }
    Vec::new()
}

fn ready(app: &mut App, preview: Box<crate::job::Preview>) -> Vec<Effect> {
    let now = app.now;
    let (mut resumed, mut stopping) = (false, app.detached);
    if let Screen::Job(view) = &mut app.screen {
        stopping |= view.stopping;
        view.waiting = None;
        view.progress.plan(&preview.work, now);
        resumed = view.confirm == Confirm::Go;
        if !resumed && !preview.work.is_nothing() {
            view.stage = Stage::Asking(String::new());
        }
    }
    app.preview = Some(preview);
    // Nobody is there to ask, or it was to stop already: nothing was changed, and nothing will be.
    if stopping && !resumed { stop(app) } else { Vec::new() }
}

fn progress(app: &mut App, phase: Phase, done: u64, total: u64) {
    let now = app.now;
    if let Screen::Job(view) = &mut app.screen {
        view.waiting = None;
        view.progress.set(phase, done, total, now);
        if matches!(phase, Phase::Erase | Phase::Write) {
            view.stage = Stage::Working;
            // What was seen before is not what is there from now on.
            app.look = None;
        }
    }
}

/// The last word of a job. A question about stopping it has become pointless.
fn finished(app: &mut App, report: Report) -> Vec<Effect> {
    if app.over == Some(Over::AskStop) {
        app.over = None;
    }
    app.look = None;
    let lost = interrupted(app, &report).filter(|_| !app.detached);
    if lost.is_none() {
        put_slots_back(app);
    }
    let untouched = matches!(report.outcome, Outcome::Cancelled(crate::job::DroneState::Untouched));
    if untouched {
        app.log.push(app.now, Level::Info, "Stopped. Nothing was changed on the drone.");
        notice(app, "Stopped. Nothing was changed on the drone.");
        app.screen = Screen::Home;
    } else if let Some(serial) = lost {
        app.log.push(app.now, Level::Warning, &report::headline(&report));
        app.resume = Some(Resume { serial, report: Box::new(report) });
        let is_back = app.job().is_some_and(|view| view.was_away);
        app.screen = Screen::Wizard(Wizard::new(app.now));
        let devices = if is_back { app.devices().to_vec() } else { Vec::new() };
        return wizard_moved(app, |wizard, now| wizard.bus(&devices, now));
    } else {
        app.screen = Screen::Outcome(Box::new(report));
    }
    if app.detached { vec![Effect::Quit] } else { Vec::new() }
}

/// An undo is over: what was chosen before is chosen again.
fn put_slots_back(app: &mut App) {
    for slot in [&mut app.image, &mut app.loader] {
        if let Slot::Before(_, instead) = slot {
            *slot = std::mem::replace(instead, Slot::Empty);
        }
    }
}

/// The drone that was lost in the middle of a flash, if that is how it ended.
fn interrupted(app: &App, report: &Report) -> Option<Selector> {
    let Outcome::Failed(failure) = &report.outcome else { return None };
    let serial = app.device.as_ref().map(|device| device.strings.serial.clone())?;
    (failure.is_interruption() && !serial.is_empty()).then_some(Selector::Serial(serial))
}

/// The terminal is gone. A flash that writes is finished without it; everything else ends.
fn detach(app: &mut App) -> Vec<Effect> {
    app.detached = true;
    match app.job() {
        Some(JobView { stage: Stage::Working, .. }) => Vec::new(),
        Some(_) => stop(app),
        None => vec![Effect::Quit],
    }
}

/// The command without interface that does the same as the job that is planned.
#[must_use]
pub fn command_line(app: &App) -> String {
    let name = |slot: &Slot| slot.path().map(|path| quoted(&path.display().to_string())).unwrap_or_default();
    let device = match app.chosen_device() {
        Some(device) if app.devices().len() > 1 => format!(" --device {}", device.location),
        _ => String::new(),
    };
    let meant = if app.goal == Goal::Restore { &app.loader } else { &app.image };
    match app.goal {
        _ if matches!(meant, Slot::Before(..)) => format!("cfdfu undo{device}"),
        Goal::Restore => {
            let firmware = app.firmware_of_restore().map(|_| format!(" --firmware {}", name(&app.image)));
            format!("cfdfu restore-bootloader {}{}{device}", name(&app.loader), firmware.unwrap_or_default())
        }
        Goal::Flash | Goal::Recover => {
            let insist = app.image.image().is_some_and(|image| wish_for(image).allow_mismatch);
            let insist = if insist { " --allow-mismatch" } else { "" };
            format!("cfdfu flash {}{insist}{device}", name(&app.image))
        }
    }
}

/// A path as a shell takes it for one word.
fn quoted(path: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "./_-+=@:,%".contains(c);
    match path {
        _ if path.chars().all(plain) => path.to_owned(),
        _ if path.chars().all(crate::usb::descriptor::is_printable) => {
            format!("'{}'", path.replace('\'', r"'\''"))
        }
        // A command with such a name in it could not be copied.
        _ => "IMAGE".to_owned(),
    }
}

#[cfg(test)]
mod tests;
