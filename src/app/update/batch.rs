//! Runs a batch in the interface: identifies the drones, shows the plan, and flashes the drones. This module passes
//! each message to the [`Fleet`] and translates the fleet's effects into the interface's effects.

use std::time::Duration;

use super::job::apply_event;
use crate::app::batch::{BatchStage, BatchView, RowJob};
use crate::app::keys::BatchAction;
use crate::app::progress::Progress;
use crate::app::{
    App, Backup, BatchEffect, Effect, Goal, JobFacts, NOTICE, Overlay, Screen, Slot, Source, Undo, Which,
    keys,
};
use crate::fleet::{self, Fleet, FleetEffect, FleetMsg, Policy};
use crate::job::{Device, DroneAt, Enter, Event, FlashTask, Job, Level, Preview, Report, Task};
use crate::plan::admission::{self, Overrides};
use crate::plan::undo::NoUndo;
use crate::report;
use crate::supervise::Ended;

/// The maximum number of jobs that run at the same time.
const JOBS: usize = 32;
/// How long to wait for a drone that was lost while flashing. The user may be busy with the other drones.
const LOST_WAIT: Duration = Duration::from_secs(300);

pub(super) fn act(app: &mut App, action: BatchAction) -> Vec<Effect> {
    match action {
        BatchAction::Begin => begin(app),
        BatchAction::Write => write(app),
        BatchAction::StopRow => send_for_selected(app, FleetMsg::StopRow),
        BatchAction::RerunRow => send_for_selected(app, FleetMsg::Rerun),
        BatchAction::WaitForMore => wait_for_more(app),
        BatchAction::Open => open(app),
    }
}

/// Identifies the drones for the plan. Reads the image file again, because it may have changed since it was chosen.
fn begin(app: &mut App) -> Vec<Effect> {
    if let Some(why) = keys::why_not_all(app) {
        app.notify(why);
        return Vec::new();
    }
    let mut effects = Vec::new();
    if app.devices.is_identifying() {
        // The batch identifies this drone, too, so the background identify is not needed.
        effects.push(Effect::Cancel);
    }
    let mut before = None;
    if let (Some((which, path, _)), Slot::Ready(file, _)) = (app.file_on_disk(Which::Image), &app.image) {
        let loading = Slot::Loading(file.clone());
        before = Some(Box::new(std::mem::replace(&mut app.image, loading)));
        effects.push(Effect::Reread(which, path));
    }
    app.overlay = None;
    (app.goal, app.goal_is_explicit) = (Goal::Flash, true);
    app.log.follow();
    let drones = fleet::participants(app.devices.list()).iter().map(Device::drone).collect();
    let fleet = Fleet::new(policy(drones, Job::new(Task::Identify)), app.now);
    app.screen = Screen::Batch(Box::new(BatchView::new(fleet, before)));
    effects.extend(pass_devices(app));
    effects
}

/// Handles an image file that cannot be read again: the batch flashes the image that was read when the file was chosen.
pub(super) fn on_not_reread(app: &mut App, which: Which) -> Vec<Effect> {
    if let Screen::Batch(view) = &mut app.screen
        && let Some(before) = view.before.take()
    {
        *super::files::slot(app, which) = *before;
    }
    Vec::new()
}

/// Returns the policy of a fleet that consists of exactly these drones.
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

/// Confirms the plan and flashes all drones.
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
    // The new fleet creates its rows once all planned drones are on the bus, or after a time limit.
    view.planned = drones.iter().cloned().zip(std::mem::take(&mut view.drones)).collect();
    view.fleet = Fleet::new(policy(drones, job), now);
    view.stage = BatchStage::Flashing;
    pass_devices(app)
}

/// Passes the list of drones to the batch.
pub(super) fn pass_devices(app: &mut App) -> Vec<Effect> {
    let devices = app.devices.list().to_vec();
    apply(app, FleetMsg::Bus(devices))
}

/// Stops all jobs at their next safe points.
pub(super) fn stop(app: &mut App) -> Vec<Effect> {
    app.overlay = None;
    if let Some(view) = app.batch_mut() {
        view.stopping = true;
    }
    apply(app, FleetMsg::Stop)
}

/// Sends a message about the selected row to the fleet.
fn send_for_selected(app: &mut App, msg: fn(usize) -> FleetMsg) -> Vec<Effect> {
    let Some(view) = app.batch_mut() else { return Vec::new() };
    let msg = msg(view.at);
    if let FleetMsg::Rerun(_) = &msg {
        view.stopping = false;
    }
    apply(app, msg)
}

/// Waits for more drones to be plugged in.
fn wait_for_more(app: &mut App) -> Vec<Effect> {
    if let Screen::Batch(view) = &mut app.screen {
        view.stopping = false;
    }
    let devices = app.devices.list().to_vec();
    apply(app, FleetMsg::WaitForMore(devices))
}

/// Opens the selected row: shows the running job, or the outcome once the job has ended. Esc returns to the table.
fn open(app: &mut App) -> Vec<Effect> {
    let Screen::Batch(view) = &app.screen else { return Vec::new() };
    if view.why_not_open().is_some() {
        return Vec::new();
    }
    if let Some(row) = view.fleet.rows.get(view.at) {
        app.devices.select_drone(&row.device);
    }
    if let Screen::Batch(view) = std::mem::replace(&mut app.screen, Screen::Home) {
        app.screen = Screen::Row(view);
    }
    follow_row(app);
    Vec::new()
}

/// Replaces the screen of the opened row: with the outcome once the job has ended, or with the table if the row can no
/// longer be opened, for example because the drone is lost.
fn follow_row(app: &mut App) {
    match std::mem::replace(&mut app.screen, Screen::Home) {
        Screen::Row(mut view) if view.why_not_open().is_some() => {
            if let Some(job) = view.job_mut(view.at) {
                job.log.follow();
            }
            app.screen = Screen::Batch(view);
        }
        Screen::Row(view) => match outcome(&view, app.now) {
            Some((report, facts)) => {
                app.screen = Screen::Outcome(report, facts);
                app.behind = Some(view);
            }
            None => app.screen = Screen::Row(view),
        },
        screen => app.screen = screen,
    }
}

/// Returns the outcome of the selected row, or `None` until the row's job has ended.
fn outcome(view: &BatchView, now: Duration) -> Option<(Box<Report>, JobFacts)> {
    let row = view.fleet.rows.get(view.at).filter(|row| row.is_final())?;
    let facts = view.job().map_or_else(|| JobFacts::new(Source::Chosen), |job| job.view.facts.clone());
    let (device, ended) = (Some(row.device.clone()), row.ended.unwrap_or(now));
    Some((row.report.clone()?, JobFacts { device, ended, ..facts }))
}

/// Handles an event of a row's job.
pub(super) fn on_event(app: &mut App, id: usize, event: Event) -> Vec<Effect> {
    let now = app.now;
    let Some(view) = app.batch_mut() else { return Vec::new() };
    let device = view.fleet.rows.get(id).map(|row| row.device.clone());
    if let Event::Known(info) = &event {
        view.facts_mut(id).info = Some(info.clone());
    }
    if let Some(job) = view.job_mut(id) {
        match event.clone() {
            Event::Log(level, entry) => job.log.record(now, level, entry),
            // Drop the flash contents: keeping the contents of many drones would take too much memory.
            Event::Ready(preview) => {
                let preview = Box::new(Preview { before: None, ..*preview });
                apply_event(&mut job.view, &mut job.map, now, Event::Ready(preview));
            }
            event => apply_event(&mut job.view, &mut job.map, now, event),
        }
    }
    match (&event, device) {
        (Event::Known(info), Some(device)) => {
            if let Some(radio) = info.radio() {
                app.names.insert(&device.strings.serial, radio);
            }
        }
        (Event::Log(level @ Level::Warning, entry), Some(device)) => {
            app.log.push(now, *level, &format!("{}  {entry}", device.location));
        }
        _ => {}
    }
    apply(app, FleetMsg::Event(id, event))
}

/// Handles the end of a row's job.
pub(super) fn on_end(app: &mut App, id: usize, ended: Ended) -> Vec<Effect> {
    let Ended { report, next, undo, others, .. } = ended;
    let now = app.now;
    for other in &others {
        app.log.push(now, Level::Warning, &other.to_string());
    }
    let mut rest = next.rest().map(|job| Box::new(Job { wait: LOST_WAIT, ..*job }));
    if let Some(view) = app.batch_mut().filter(|view| view.stage == BatchStage::Flashing) {
        view.facts_mut(id).undo = Some(Undo::of(undo));
        if let Some(job) = view.job_mut(id) {
            // Free memory: the preview may hold the last reference to the plan's bytes.
            (job.view.facts.preview, job.view.waiting) = (None, None);
            for other in &others {
                job.log.push(now, Level::Warning, &other.to_string());
            }
            // A job that the user has stopped is not resumed.
            rest = rest.filter(|_| !job.view.stopping);
            if rest.is_some() {
                job.log.push(now, Level::Warning, &report::headline(&report));
            }
        }
        view.forget_old_rows();
        // A backup from an earlier job of this drone no longer undoes the drone's last change.
        let device = view.fleet.rows.get(id).map(|row| row.device.clone());
        let is_of_row = |backup: &Backup| device.is_some_and(|device| backup.drone.is(&device));
        if matches!(&app.undo, Undo::Ready(backup) if is_of_row(backup)) {
            app.undo = Undo::Nothing(NoUndo::default());
        }
    }
    apply(app, FleetMsg::Ended(id, Box::new(report), rest))
}

/// Handles the loss of the terminal. Jobs that have changed their drones finish; everything else ends.
pub(super) fn detach(app: &mut App) -> Vec<Effect> {
    if app.batch().is_some_and(BatchView::is_active) {
        apply(app, FleetMsg::HangUp)
    } else {
        vec![Effect::Quit]
    }
}

pub(super) fn apply(app: &mut App, msg: FleetMsg) -> Vec<Effect> {
    let effects = update_fleet(app, msg);
    follow_row(app);
    effects
}

fn update_fleet(app: &mut App, msg: FleetMsg) -> Vec<Effect> {
    let now = app.now;
    // `App::batch_mut` would borrow all of `app`, but this function also changes the log.
    let ((Screen::Batch(view) | Screen::Row(view), _) | (Screen::Outcome(..), Some(view))) =
        (&mut app.screen, &mut app.behind)
    else {
        return Vec::new();
    };
    let mut effects = Vec::new();
    for effect in view.fleet.update(now, msg) {
        match effect {
            FleetEffect::Start(id, job) => {
                let device = view.fleet.rows[id].device.clone();
                if view.stage != BatchStage::Identifying {
                    view.facts_mut(id).job = Some(Box::new(RowJob::new(device.clone())));
                }
                effects.push(Effect::Batch(BatchEffect::Start(id, Box::new(device), job)));
            }
            FleetEffect::Resume(id, job) => {
                if let Some(job) = view.job_mut(id) {
                    job.view.facts.progress = Progress::default();
                }
                effects.push(Effect::Batch(BatchEffect::Resume(id, job)));
            }
            FleetEffect::Cancel(id) => {
                if let Some(job) = view.job_mut(id) {
                    job.view.stopping = true;
                }
                effects.push(Effect::Batch(BatchEffect::Cancel(id)));
            }
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
            FleetEffect::AlreadyDone(device) => {
                let line = format!("{}  {}  already done", device.location, device.strings.serial);
                app.log.push(now, Level::Info, &line);
            }
            FleetEffect::Paused => {
                app.log.push(now, Level::Warning, report::FAILED_ALIKE);
                app.notice = Some((report::FAILED_ALIKE.to_owned(), now + NOTICE));
            }
            FleetEffect::End => {
                if app.overlay == Some(Overlay::AskStop) {
                    app.overlay = None;
                    app.rhythm.closed_question = Some(now);
                }
                effects.extend(end(view, app.detached, now, &mut app.exit));
                if view.stage == BatchStage::Identifying {
                    app.screen = Screen::Home;
                }
                return effects;
            }
        }
    }
    // Repeating a job or waiting for more drones makes the batch active again.
    if view.stage == BatchStage::Over && !view.fleet.is_over() {
        view.stage = BatchStage::Flashing;
    }
    effects
}

/// Ends the current stage of the batch. Called once all jobs of the stage have ended.
fn end(view: &mut BatchView, detached: bool, now: Duration, exit: &mut Option<report::Exit>) -> Vec<Effect> {
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
