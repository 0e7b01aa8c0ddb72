//! A batch in the interface: identifies all drones, shows the plan, and flashes them. Each message goes to the pure
//! [`Fleet`], whose effects become those of the interface.

use std::time::Duration;

use crate::app::batch::{BatchStage, BatchView};
use crate::app::keys::BatchAction;
use crate::app::{
    App, Backup, BatchEffect, Effect, Goal, JobFacts, NOTICE, Overlay, Screen, Slot, Source, Undo, Which,
    keys,
};
use crate::fleet::{self, Fleet, FleetEffect, FleetMsg, Policy};
use crate::job::{Device, DroneAt, Enter, Event, FlashTask, Job, Level, Task};
use crate::plan::admission::{self, Overrides};
use crate::plan::undo::NoUndo;
use crate::report;
use crate::supervise::Ended;

/// How many jobs run at the same time.
const JOBS: usize = 32;
/// How long a drone that was lost while flashing may be away. The user may be busy with the other drones.
const LOST: Duration = Duration::from_secs(300);

pub(super) fn act(app: &mut App, action: BatchAction) -> Vec<Effect> {
    match action {
        BatchAction::Begin => begin(app),
        BatchAction::Write => write(app),
        BatchAction::StopRow => on_selected(app, FleetMsg::StopRow),
        BatchAction::Again => on_selected(app, FleetMsg::Again),
        BatchAction::KeepGoing => keep_going(app),
        BatchAction::Open => open(app),
    }
}

/// Identifies all drones, for the plan. The file is read again, because it may have changed since it was chosen.
fn begin(app: &mut App) -> Vec<Effect> {
    if let Some(why) = keys::why_not_all(app) {
        app.notify(why);
        return Vec::new();
    }
    let mut effects = Vec::new();
    if app.devices.is_identifying() {
        // The batch identifies this drone, too.
        effects.push(Effect::Cancel);
    }
    let mut before = None;
    if let (Some(path), true) = (app.image.path().cloned(), !app.files_of_job().is_empty()) {
        before = Some(Box::new(std::mem::replace(&mut app.image, Slot::Loading(path.clone()))));
        effects.push(Effect::Reread(Which::Image, path));
    }
    app.over = None;
    (app.goal, app.goal_is_explicit) = (Goal::Flash, true);
    app.log.follow();
    let drones = fleet::participants(app.devices.list()).iter().map(Device::drone).collect();
    let fleet = Fleet::new(policy(drones, Job::new(Task::Identify)), app.now);
    app.screen = Screen::Batch(Box::new(BatchView::new(fleet, before)));
    effects.extend(see_bus(app));
    effects
}

/// The file could not be read again: the batch flashes what was read when it was chosen.
pub(super) fn not_reread(app: &mut App, which: Which) -> Vec<Effect> {
    if let Screen::Batch(view) = &mut app.screen
        && let Some(before) = view.before.take()
    {
        *super::files::slot(app, which) = *before;
    }
    Vec::new()
}

/// Exactly these drones take part.
fn policy(planned: Vec<DroneAt>, job: Job) -> Policy {
    Policy {
        job,
        selected: Vec::new(),
        expect: Some(planned.len()),
        planned,
        jobs: JOBS,
        wait: Duration::ZERO,
        require_boot: false,
        station: None,
    }
}

/// Confirms the plan: flashes all drones.
fn write(app: &mut App) -> Vec<Effect> {
    if !app.is_asking() || super::job::is_too_soon(app) {
        return Vec::new();
    }
    let Some(image) = app.image.image() else { return Vec::new() };
    let task = match admission::flash(image, Overrides::default()) {
        Ok(approved) => FlashTask::new(approved, image.content.firmware()),
        Err(refusal) => {
            app.notify(refusal.to_string());
            return Vec::new();
        }
    };
    let job = Job { enter: Enter::Unaided, ..Job::new(Task::Flash(task)) };
    let now = app.now;
    let Screen::Batch(view) = &mut app.screen else { return Vec::new() };
    let drones: Vec<DroneAt> = view.fleet.rows.iter().map(|row| row.device.drone()).collect();
    // The rows of the new batch appear once all drones of the plan are on the bus.
    view.planned = drones.iter().cloned().zip(std::mem::take(&mut view.drones)).collect();
    view.fleet = Fleet::new(policy(drones, job), now);
    view.stage = BatchStage::Flashing;
    see_bus(app)
}

/// Passes the list of drones to the batch.
pub(super) fn see_bus(app: &mut App) -> Vec<Effect> {
    let devices = app.devices.list().to_vec();
    apply(app, FleetMsg::Bus(devices))
}

/// Stops all jobs at their next safe points.
pub(super) fn stop(app: &mut App) -> Vec<Effect> {
    app.over = None;
    if let Screen::Batch(view) = &mut app.screen {
        view.stopping = true;
    }
    apply(app, FleetMsg::Stop)
}

/// The message for the selected row.
fn on_selected(app: &mut App, msg: fn(usize) -> FleetMsg) -> Vec<Effect> {
    let Screen::Batch(view) = &mut app.screen else { return Vec::new() };
    let msg = msg(view.at);
    if let FleetMsg::Again(_) = &msg {
        view.stopping = false;
    }
    apply(app, msg)
}

/// Waits for drones that are plugged in from now on.
fn keep_going(app: &mut App) -> Vec<Effect> {
    if let Screen::Batch(view) = &mut app.screen {
        view.stopping = false;
    }
    let devices = app.devices.list().to_vec();
    apply(app, FleetMsg::KeepGoing(devices))
}

/// Opens the outcome of the selected row. Esc returns to the table.
fn open(app: &mut App) -> Vec<Effect> {
    let Screen::Batch(view) = &app.screen else { return Vec::new() };
    let Some(row) = view.fleet.rows.get(view.at) else { return Vec::new() };
    let Some(report) = row.report.clone() else { return Vec::new() };
    let facts = JobFacts {
        device: Some(row.device.clone()),
        ended: row.ended.unwrap_or(app.now),
        ..JobFacts::new(Source::Chosen)
    };
    if let Some(at) = app.devices.list().iter().position(|it| it.location == row.device.location) {
        app.devices.select(at);
    }
    if let Screen::Batch(view) = std::mem::replace(&mut app.screen, Screen::Outcome(report, facts)) {
        app.behind = Some(view);
    }
    Vec::new()
}

/// An event of a row's job.
pub(super) fn on_event(app: &mut App, id: usize, event: Event) -> Vec<Effect> {
    let Screen::Batch(view) = &mut app.screen else { return Vec::new() };
    match &event {
        Event::Known(info) => {
            if let (Some(row), Some(radio)) = (view.fleet.rows.get(id), info.radio()) {
                app.names.insert(&row.device.strings.serial, radio);
            }
            view.facts_mut(id).info = Some(info.clone());
        }
        Event::Log(level @ Level::Warning, entry) => {
            if let Some(row) = view.fleet.rows.get(id) {
                let line = format!("{}  {entry}", row.device.location);
                app.log.push(app.now, *level, &line);
            }
        }
        _ => {}
    }
    apply(app, FleetMsg::Event(id, event))
}

/// A row's job has ended.
pub(super) fn ended(app: &mut App, id: usize, ended: Ended) -> Vec<Effect> {
    let Ended { report, next, undo, others, .. } = ended;
    for other in others {
        app.log.push(app.now, Level::Warning, &other.to_string());
    }
    if let Screen::Batch(view) = &mut app.screen
        && view.stage == BatchStage::Flashing
    {
        view.facts_mut(id).undo = Some(Undo::of(undo));
        // What an earlier job of this drone kept is no longer its last change.
        let is_of_row =
            |before: &Backup| view.fleet.rows.get(id).is_some_and(|row| before.drone.is(&row.device));
        if matches!(&app.undo, Undo::Ready(before) if is_of_row(before)) {
            app.undo = Undo::Nothing(NoUndo::default());
        }
    }
    let rest = next.rest().map(|job| Box::new(Job { wait: LOST, ..*job }));
    apply(app, FleetMsg::Ended(id, Box::new(report), rest))
}

/// The terminal is gone: jobs that have changed their drones finish, everything else ends.
pub(super) fn detach(app: &mut App) -> Vec<Effect> {
    let active = matches!(&app.screen, Screen::Batch(view) if view.is_active());
    if active { apply(app, FleetMsg::HangUp) } else { vec![Effect::Quit] }
}

pub(super) fn apply(app: &mut App, msg: FleetMsg) -> Vec<Effect> {
    let now = app.now;
    let Screen::Batch(view) = &mut app.screen else { return Vec::new() };
    let mut effects = Vec::new();
    for effect in view.fleet.update(now, msg) {
        match effect {
            FleetEffect::Start(id, job) => {
                let device = view.fleet.rows[id].device.clone();
                effects.push(Effect::Batch(BatchEffect::Start(id, Box::new(device), job)));
            }
            FleetEffect::Resume(id, job) => effects.push(Effect::Batch(BatchEffect::Resume(id, job))),
            FleetEffect::Cancel(id) => effects.push(Effect::Batch(BatchEffect::Cancel(id))),
            FleetEffect::CancelIfUntouched(id) => {
                effects.push(Effect::Batch(BatchEffect::CancelIfUntouched(id)));
            }
            FleetEffect::Show(id) if view.fleet.rows[id].is_final() => {
                let row = &view.fleet.rows[id];
                if view.stage == BatchStage::Flashing
                    && let Some(report) = &row.report
                {
                    let level = if row.succeeded() { Level::Info } else { Level::Warning };
                    let line = format!("{}  {}", row.device.location, report::headline(report));
                    app.log.push(now, level, &line);
                }
                effects.push(Effect::Batch(BatchEffect::Finish(id, row.device.location.clone())));
            }
            FleetEffect::Joined(id) => view.take_planned(id),
            FleetEffect::Show(_) => {}
            FleetEffect::DoneAlready(device) => {
                let line = format!("{}  {}  already done", device.location, device.strings.serial);
                app.log.push(now, Level::Info, &line);
            }
            FleetEffect::Paused => {
                app.log.push(now, Level::Warning, report::FAILED_ALIKE);
                app.notice = Some((report::FAILED_ALIKE.to_owned(), now + NOTICE));
            }
            FleetEffect::End => {
                if app.over == Some(Overlay::AskStop) {
                    app.over = None;
                }
                effects.extend(over(view, app.detached, now, &mut app.ended));
                if view.stage == BatchStage::Identifying {
                    app.screen = Screen::Home;
                }
                return effects;
            }
        }
    }
    // A repeated job, or waiting for more drones, resumes the batch.
    if view.stage == BatchStage::Over && !view.fleet.is_over() {
        view.stage = BatchStage::Flashing;
    }
    effects
}

/// Handles the end of all jobs.
fn over(view: &mut BatchView, detached: bool, now: Duration, exit: &mut Option<report::Exit>) -> Vec<Effect> {
    match view.stage {
        BatchStage::Identifying if detached => vec![Effect::Quit],
        BatchStage::Identifying if !view.stopping => {
            view.stage = BatchStage::Asking(now);
            Vec::new()
        }
        BatchStage::Identifying => Vec::new(),
        BatchStage::Asking(_) | BatchStage::Flashing | BatchStage::Over => {
            (view.stage, view.stopping) = (BatchStage::Over, false);
            *exit = Some(view.fleet.exit());
            if detached { vec![Effect::Quit] } else { vec![Effect::Bell(1)] }
        }
    }
}
