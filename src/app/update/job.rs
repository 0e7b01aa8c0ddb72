//! A job's life cycle in the interface: start, confirmation, events, stop, and resume after a lost connection. This
//! module also runs the wizard for entering DFU mode by hand, because the wizard starts or resumes a job.

use std::time::Duration;

use super::batch;
use super::blink;
use super::files::open_picker;
use crate::app::devices::SectorMap;
use crate::app::progress::Progress;
use crate::app::wizard::Move;
use crate::app::{
    Aim, App, Backup, Confirmation, Effect, Goal, JobFacts, JobView, Overlay, Resume, SECTORS, Screen,
    Source, Stage, Undo, Which, Wizard, WizardView, keys, overrides_for,
};
use crate::crazyflie::Mode;
use crate::job::{
    Confirm, Device, DroneState, Event, FlashTask, Job, Level, Mismatch, Outcome, Phase, Preview, Task,
};
use crate::plan::admission::{self, Overrides};
use crate::plan::undo::{Change, Piece};
use crate::report;
use crate::supervise::{Ended, Next};

/// Begins a job, or first asks for what is missing: a file, or a drone in DFU mode.
pub(super) fn begin(app: &mut App, goal: Goal, source: Source) -> Vec<Effect> {
    app.overlay = None;
    app.goal_is_explicit = true;
    // If the goal is a restore, keep it: the wizard then starts the restore.
    if goal == Goal::Recover {
        if app.goal != Goal::Restore {
            app.goal = Goal::Recover;
        }
        return open_wizard(app, Aim::Begin(source));
    }
    app.goal = goal;
    if let Some(why) = keys::why_not(app, goal) {
        // An outcome stays on the screen until the user closes it.
        if !matches!(app.screen, Screen::Outcome(..)) {
            app.screen = Screen::Home;
        }
        app.notify(why);
        return Vec::new();
    }
    let which = goal.file();
    if source == Source::Chosen && app.slot(which).content().is_none() {
        return open_picker(app, which, Some(goal));
    }
    // A drone without a bootloader appears on USB only if DFU mode is entered by hand.
    if app.devices.list().is_empty() {
        return open_wizard(app, Aim::Begin(source));
    }
    start(app, source)
}

/// Starts a job that writes the backup to the drone from which it was read.
pub(super) fn undo(app: &mut App) -> Vec<Effect> {
    let Some(Undo::Ready(backup)) = app.undo().cloned() else {
        let why = app.why_no_undo().unwrap_or_default();
        app.notify(why);
        return Vec::new();
    };
    let goal = match backup.which() {
        Which::Loader => Goal::Restore,
        Which::Image => Goal::Flash,
    };
    if let Some(why) = keys::why_not(app, goal) {
        app.notify(why);
        return Vec::new();
    }
    if let Some(index) = app.devices.list().iter().position(|device| backup.drone.is(device)) {
        app.devices.select(index);
    }
    begin(app, goal, Source::Undo(backup))
}

/// Starts the same job again.
pub(super) fn retry(app: &mut App) -> Vec<Effect> {
    begin(app, app.goal, source_of(app))
}

/// Returns what the job on the screen writes.
pub(super) fn source_of(app: &App) -> Source {
    match &app.screen {
        Screen::Wizard(WizardView { aim: Aim::Begin(source), .. }) => source.clone(),
        _ => app.facts().map_or(Source::Chosen, |facts| facts.source.clone()),
    }
}

/// Opens the wizard, which continues with `aim` once the drone is in DFU mode.
fn open_wizard(app: &mut App, aim: Aim) -> Vec<Effect> {
    app.behind = None;
    app.screen = Screen::Wizard(WizardView { wizard: Wizard::new(app.now, app.spoken), aim });
    pass_bus_to_wizard(app)
}

pub(super) fn pass_bus_to_wizard(app: &mut App) -> Vec<Effect> {
    let devices = app.devices.list().to_vec();
    advance_wizard(app, |wizard, now| wizard.on_bus(&devices, now))
}

pub(super) fn advance_wizard(
    app: &mut App,
    change: impl FnOnce(&mut Wizard, Duration) -> Move,
) -> Vec<Effect> {
    let now = app.now;
    let Screen::Wizard(view) = &mut app.screen else { return Vec::new() };
    match (change(&mut view.wizard, now), &view.aim) {
        (Move::Stay, _) => Vec::new(),
        (Move::Beep(times), _) => vec![Effect::Bell(times)],
        (Move::Arrived, Aim::Resume(resume)) => {
            let resume = (**resume).clone();
            resume_job(app, resume)
        }
        (Move::Arrived, Aim::Begin(source)) => {
            let source = source.clone();
            let is_in_dfu = |device: &Device| device.mode == Mode::Dfu;
            let index = app.devices.list().iter().position(is_in_dfu).unwrap_or(0);
            app.devices.select(index);
            let goal = app.goal_of_wizard();
            let mut effects = vec![Effect::Bell(1)];
            effects.extend(begin(app, goal, source));
            effects
        }
    }
}

/// Starts the job. The worker reads the drone first and asks for confirmation before it writes.
fn start(app: &mut App, source: Source) -> Vec<Effect> {
    let selected = app.devices.selected().map(Device::drone);
    let firmware = app.firmware_of_restore();
    let chosen = app.slot(app.goal.file()).image();
    let (image, firmware, drone) = match (&source, chosen) {
        (Source::Undo(backup), _) => {
            (Ok(backup.image.clone()), backup.content.firmware(), Some(backup.drone.clone()))
        }
        (Source::Chosen, Some(loader)) if app.goal == Goal::Restore => {
            let image = admission::restore(loader, firmware, Overrides::default());
            (image, firmware.unwrap_or(loader).content.firmware(), selected)
        }
        (Source::Chosen, Some(image)) => {
            (admission::flash(image, overrides_for(image)), image.content.firmware(), selected)
        }
        (Source::Chosen, None) => return Vec::new(),
    };
    let (change, expected) = match &source {
        Source::Chosen => (Change::Flash, Vec::new()),
        Source::Undo(backup) => (Change::Undo, expected_pieces(app, backup)),
    };
    let task = match image {
        Ok(image) => {
            FlashTask { mismatch: Mismatch::Ask, change, expected, ..FlashTask::new(image, firmware) }
        }
        Err(refusal) => {
            app.notify(refusal.to_string());
            return Vec::new();
        }
    };
    let job = Job::new(Task::Flash(task));
    let job = Box::new(match drone {
        Some(drone) => job.of(drone),
        None => job,
    });
    show_job(app, JobFacts::new(source), Confirm::Ask);
    vec![Effect::Start(job)]
}

/// Returns what must still be on the drone for this undo to be safe. After an interrupted undo, nothing is required.
fn expected_pieces(app: &App, backup: &Backup) -> Vec<Piece> {
    match app.undo() {
        Some(Undo::Ready(last)) if last.image == backup.image && last.drone.may_be(&backup.drone) => {
            last.expected.clone()
        }
        _ => backup.expected.clone(),
    }
}

/// Resumes the job that lost its drone, once that drone is in DFU mode again. Refuses any other drone.
fn resume_job(app: &mut App, resume: Resume) -> Vec<Effect> {
    let Resume { drone, job, facts, .. } = resume;
    let is_back = |device: &Device| device.mode == Mode::Dfu && drone.is(device);
    let Some(index) = app.devices.list().iter().position(is_back) else {
        app.notify(
            "This is a different drone or port. Plug the first drone back into its port, or press Esc.",
        );
        return Vec::new();
    };
    app.devices.select(index);
    app.log.push(app.now, Level::Info, "The drone is in DFU mode again. Carrying on");
    show_job(app, facts, Confirm::Go);
    vec![Effect::Bell(1), Effect::Resume(job)]
}

fn show_job(app: &mut App, facts: JobFacts, confirm: Confirm) {
    let facts = JobFacts { progress: Progress::default(), ..facts };
    app.devices.remember();
    app.devices.map = [None; SECTORS];
    // From here on, the rows of a batch no longer show what is on the drones.
    app.behind = None;
    app.log.follow();
    app.screen = Screen::Job(JobView { facts, ..JobView::new(confirm) });
}

/// A key press that follows another within this time does not confirm a plan. A held key repeats about every 30 ms.
const PAUSE: Duration = Duration::from_millis(250);

/// Returns whether a key press comes too early to confirm the plan on the screen, and notifies the user in that case.
pub(super) fn is_too_soon(app: &mut App) -> bool {
    let is_too_soon = app.until_read(app.now).is_some() || app.rhythm.gap < PAUSE;
    if is_too_soon {
        app.notify("Nothing has been written. Read the plan, then press the key again.");
    }
    is_too_soon
}

pub(super) fn write(app: &mut App) -> Vec<Effect> {
    let is_asking = app.job().is_some() && app.is_asking();
    // A typed word is deliberate, so it needs no delay.
    if !is_asking || keys::required_word(app).is_none() && is_too_soon(app) {
        return Vec::new();
    }
    if let Screen::Job(view) = &mut app.screen {
        view.stage = Stage::Working;
    }
    vec![Effect::Proceed]
}

/// Stops a job that is waiting for confirmation if its drone has been unplugged.
pub(super) fn require_drone(app: &mut App) -> Vec<Effect> {
    let Screen::Job(JobView { stage: Stage::Asking(question), stopping: false, facts, .. }) = &mut app.screen
    else {
        return Vec::new();
    };
    let is_of_job = |device: &Device| {
        facts
            .device
            .as_ref()
            .is_some_and(|it| (&it.location, it.address) == (&device.location, device.address))
    };
    let is_there = app.devices.list().iter().any(is_of_job);
    if is_there || !question.seen {
        question.seen |= is_there;
        return Vec::new();
    }
    app.log.push(app.now, Level::Warning, "The drone was unplugged before anything was written");
    stop(app)
}

pub(super) fn stop(app: &mut App) -> Vec<Effect> {
    app.overlay = None;
    match &mut app.screen {
        Screen::Job(view) if !view.stopping || matches!(view.stage, Stage::Asking(_)) => {
            view.stopping = true;
            vec![Effect::Cancel]
        }
        _ => Vec::new(),
    }
}

pub(super) fn on_event(app: &mut App, event: Event) -> Vec<Effect> {
    match event {
        Event::Log(level, entry) => app.log.record(app.now, level, entry),
        Event::Ready(preview) => return on_ready(app, preview),
        event => {
            if let Screen::Job(view) = &mut app.screen {
                if matches!(event, Event::Progress { phase: Phase::Erase | Phase::Write, .. }) {
                    // From here on, the flash no longer matches what was identified.
                    app.devices.identified = None;
                }
                apply_event(view, &mut app.devices.map, app.now, event);
            }
        }
    }
    Vec::new()
}

/// Applies an event to the view of its job, which may be the job of a batch row.
pub(super) fn apply_event(view: &mut JobView, map: &mut SectorMap, now: Duration, event: Event) {
    match event {
        Event::Sector { index, state } => {
            if let Some(sector) = map.get_mut(index) {
                *sector = Some(state);
            }
        }
        Event::Ready(preview) => {
            view.waiting = None;
            view.facts.progress.plan(&preview.work, now);
            view.facts.preview = Some(preview);
        }
        Event::Progress { phase, done, total } => {
            (view.was_away, view.waiting) = (false, None);
            view.facts.progress.set(phase, done, total, now);
            if matches!(phase, Phase::Erase | Phase::Write) {
                view.stage = Stage::Working;
            }
        }
        // Clear `was_away`: the worker has the device again, and may itself have reset the device.
        Event::Device(device) => (view.facts.device, view.was_away) = (Some(device), false),
        Event::Waiting { what, limit } if !limit.is_zero() => view.waiting = Some((what, now, limit)),
        // The end of the job arrives as `Msg::Ended`.
        Event::Waiting { .. }
        | Event::Log(..)
        | Event::Planned(_)
        | Event::Known(_)
        | Event::Console { .. }
        | Event::Measured(_)
        | Event::Finished(_) => {}
    }
}

fn on_ready(app: &mut App, mut preview: Box<Preview>) -> Vec<Effect> {
    let now = app.now;
    let detached = app.detached;
    let Screen::Job(view) = &mut app.screen else { return Vec::new() };
    let is_resumed = view.confirm == Confirm::Go;
    if is_resumed && let Some(confirmed) = &view.facts.preview {
        // The user has already confirmed the board.
        preview.board = confirmed.board;
    }
    if !is_resumed && !preview.work.is_empty() {
        view.stage = Stage::Asking(Confirmation { shown: now, ..Confirmation::default() });
    }
    let stopping = view.stopping || detached;
    apply_event(view, &mut app.devices.map, now, Event::Ready(preview));
    require_drone(app);
    // The user has already stopped the job, or the terminal is gone. Nothing has been written, so stop here.
    if stopping && !is_resumed { stop(app) } else { Vec::new() }
}

/// Handles the end of a job, and closes the stop confirmation.
pub(super) fn ended(app: &mut App, ended: Ended) -> Vec<Effect> {
    let Ended { report, drone, others, next, undo, .. } = ended;
    if app.overlay == Some(Overlay::AskStop) {
        app.overlay = None;
    }
    // If an identify is still running, `background_identify::ended` decides whether its result is kept.
    if !app.devices.is_identifying() {
        app.devices.identified = None;
    }
    app.exit = Some(report::exit_status(&report));
    app.devices.record_radio_chip(&report.health.radio_chip);
    app.undo = Undo::of(undo);
    for other in others {
        app.log.push(app.now, Level::Warning, &other.to_string());
    }
    let (mut facts, was_away) = match &app.screen {
        Screen::Job(view) => (view.facts.clone(), view.was_away),
        _ => (JobFacts::new(Source::Chosen), false),
    };
    facts.ended = app.now;
    match (next, drone) {
        _ if report.outcome == Outcome::Cancelled(DroneState::Untouched) => {
            const STOPPED: &str = "Stopped. Nothing was changed on the drone.";
            app.devices.map = [None; SECTORS];
            app.log.push(app.now, Level::Info, STOPPED);
            app.notify(STOPPED);
            app.screen = Screen::Home;
        }
        (Next::Resume(job), Some(drone)) if !app.detached => {
            app.log.push(app.now, Level::Warning, &report::headline(&report));
            let resume = Box::new(Resume { drone, report: Box::new(report), job, facts });
            app.screen = Screen::Wizard(WizardView {
                wizard: Wizard::new(app.now, app.spoken),
                aim: Aim::Resume(resume),
            });
            // If the drone was not away, the device list may predate the disconnect.
            return if was_away { pass_bus_to_wizard(app) } else { Vec::new() };
        }
        (next, _) => {
            if next == Next::GiveUp {
                app.log.push(app.now, Level::Warning, report::STUCK);
            }
            if keys::next_step(&report) == keys::NextStep::RestoreLoader {
                app.goal = Goal::Restore;
            }
            app.screen = Screen::Outcome(Box::new(report), facts);
        }
    }
    if app.detached { vec![Effect::Quit] } else { Vec::new() }
}

/// Handles the loss of the terminal. A job that is writing finishes without the terminal; everything else ends.
pub(super) fn detach(app: &mut App) -> Vec<Effect> {
    app.detached = true;
    if app.batch().is_some() {
        return blink::stop(app).into_iter().chain(batch::detach(app)).collect();
    }
    match app.job() {
        // A resumed job (`Confirm::Go`) has already written.
        Some(JobView { stage: Stage::Working, .. } | JobView { confirm: Confirm::Go, .. }) => Vec::new(),
        Some(_) => stop(app),
        // The console's job first switches the drone's link back to the radio.
        None if app.console().is_some() => super::console::close(app),
        None => vec![Effect::Quit],
    }
}
