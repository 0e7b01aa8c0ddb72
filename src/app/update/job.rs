//! A job from its beginning to its last word, as the interface sees it: started, shown, confirmed, stopped, gone on
//! with after its drone was lost.

use std::time::Duration;

use super::look::on_look;
use super::{mean, notice, wizard_sees_bus};
use crate::app::progress::Progress;
use crate::app::{
    App, Before, Effect, Goal, JobView, Over, Question, Resume, SECTORS, Screen, Slot, Stage, Wizard, keys,
};
use crate::crazyflie::Mode;
use crate::flash::check::{self, Wish};
use crate::flash::undo::{Change, Piece};
use crate::image::{Content, Image};
use crate::job::{
    Confirm, Device, DroneAt, DroneState, Enter, Event, Failure, FlashTask, Headway, Job, Level, Mismatch,
    Outcome, Phase, Preview, Report, Selector, Task,
};
use crate::report;

/// Everything is there: give the job to the worker. It looks first and asks before it writes, unless it goes on with what
/// was confirmed before and `left` the drone like this.
pub(super) fn start(app: &mut App, left: Option<DroneState>) -> Vec<Effect> {
    // The drone that was lost is back in DFU mode at its port: that one and no other.
    let chosen = || app.chosen_device().map(Device::drone);
    let slot = if app.goal == Goal::Restore { &app.loader } else { &app.image };
    let firmware = app.firmware_of_restore();
    let (image, firmware, drone) = match (slot, slot.image()) {
        (Slot::Before(before, _), _) => {
            (Ok(before.image.clone()), before.content.firmware(), Some(before.drone.clone()))
        }
        (_, Some(loader)) if app.goal == Goal::Restore => {
            let image = check::restore(loader, firmware, Wish::default());
            (image, firmware.unwrap_or(loader).content.firmware(), chosen())
        }
        (_, Some(image)) => (check::flash(image, wish_for(image)), image.content.firmware(), chosen()),
        (_, None) => return Vec::new(),
    };
    let task = match image {
        Ok(image) => FlashTask {
            mismatch: mismatch(app, left.is_some()),
            change: app.change(),
            expected: expected(app),
            ..FlashTask::new(image, firmware)
        },
        Err(refusal) => {
            notice(app, refusal.to_string());
            return Vec::new();
        }
    };
    app.meant = app.chosen_device().cloned();
    let (task, confirm) = match left {
        Some(left) => (task.resumed(left), Confirm::Go),
        None => (task, Confirm::Ask),
    };
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
        compared: false,
        confirm,
        was_away: false,
    });
    let job = Job {
        device: Selector::Only,
        serial: None,
        wait: Duration::ZERO,
        enter: Enter::IfRunning,
        task: Task::Flash(task),
    };
    vec![Effect::Start(Box::new(match drone {
        Some(drone) => job.of(drone),
        None => job,
    }))]
}

/// What an undo expects to take the place of.
fn expected(app: &App) -> Vec<Piece> {
    let past = app.past.as_ref().filter(|_| app.change() == Change::Undo);
    past.map(|(_, past)| past.history().expected().to_vec()).unwrap_or_default()
}

/// A board that cannot be read is asked about. A job that carries on asks nothing, so it takes only what was confirmed.
fn mismatch(app: &App, carries_on: bool) -> Mismatch {
    let was_unknown = app.preview.as_ref().is_some_and(|preview| !preview.board.is_passed());
    match (carries_on, was_unknown) {
        (false, _) => Mismatch::Ask,
        (true, true) => Mismatch::Take,
        (true, false) => Mismatch::Refuse,
    }
}

/// An image that is not recognised is taken here, since the plan then asks for a word.
pub(super) fn wish_for(image: &Image) -> Wish {
    let allow_mismatch = matches!(image.content, Content::Unknown { .. });
    Wish { allow_mismatch, ..Wish::default() }
}

/// A held key repeats every 30 ms or so: a key that follows another this soon does not confirm.
const PAUSE: Duration = Duration::from_millis(250);

pub(super) fn write(app: &mut App) -> Vec<Effect> {
    let Some(JobView { stage: Stage::Asking(question), .. }) = app.job() else { return Vec::new() };
    // Typing a word is deliberate enough.
    let by_key = keys::word_asked_for(app).is_none();
    if by_key && (question.until_read(app.now).is_some() || app.quiet < PAUSE) {
        notice(app, "Nothing is written yet: read the plan, then press the key once more.");
        return Vec::new();
    }
    if let Screen::Job(view) = &mut app.screen {
        view.stage = Stage::Working;
    }
    remember_before(app);
    vec![Effect::Proceed]
}

/// The plan is for a drone that is there: if it goes, nothing is left to confirm.
pub(super) fn require_drone(app: &mut App) -> Vec<Effect> {
    let is_it = |device: &&Device| {
        app.device.as_ref().is_some_and(|it| (&it.location, it.address) == (&device.location, device.address))
    };
    let is_there = app.devices().iter().any(|device| is_it(&device));
    let Screen::Job(JobView { stage: Stage::Asking(question), stopping: false, .. }) = &mut app.screen else {
        return Vec::new();
    };
    if is_there || !question.seen {
        question.seen |= is_there;
        return Vec::new();
    }
    app.log.push(app.now, Level::Warning, "The drone was unplugged before anything was written");
    stop(app)
}

/// What is about to be overwritten can be put back.
pub(super) fn remember_before(app: &mut App) {
    let (Some(drone), Some(preview)) = (app.job_drone(), &app.preview) else { return };
    let change = app.change();
    let past = app.past.take().filter(|(of, _)| of.may_be(&drone));
    let mut past = past.map(|(_, past)| past).unwrap_or_default();
    past.begin(preview.plan.pieces(), preview.before.as_ref(), change);
    app.past = Some((drone, past));
    offer_undo(app);
}

/// What can be put back after a job that ended like this.
fn remember_end(app: &mut App, outcome: &Outcome) {
    let undoing = app.change() == Change::Undo;
    let Some((_, past)) = &mut app.past else { return };
    match outcome {
        Outcome::Flashed => past.end(),
        Outcome::Unchanged if undoing => past.undone(),
        Outcome::Cancelled(drone) | Outcome::Failed(Failure { drone, .. }) if drone.is_unchanged() => {
            past.revert();
        }
        _ => past.keep_unfinished(),
    }
    offer_undo(app);
}

fn offer_undo(app: &mut App) {
    let Some((drone, past)) = &app.past else { return };
    app.undo = match past.history().target() {
        // Without a serial number another drone at its port would look the same.
        Ok(_) if drone.serial.is_empty() => Err("the drone shows no serial number".to_owned()),
        Ok(copy) => match (Content::in_flash(&copy.data), check::undo(copy.clone(), Wish::default())) {
            (Some(content), Ok(image)) => Ok(Before { image, content, drone: drone.clone() }),
            _ => Err("what was there before was no Bitcraze bootloader".to_owned()),
        },
        Err(why) => Err(why.to_string()),
    };
}

pub(super) fn stop(app: &mut App) -> Vec<Effect> {
    app.over = None;
    match &mut app.screen {
        Screen::Job(view) if !view.stopping || matches!(view.stage, Stage::Asking(_)) => {
            view.stopping = true;
            vec![Effect::Cancel]
        }
        _ => Vec::new(),
    }
}

/// The drone that was lost is back: on with it. Another one is not.
pub(super) fn resume(app: &mut App) -> Vec<Effect> {
    let Some(Resume { drone, report }) = &app.resume else { return Vec::new() };
    let left = match &report.outcome {
        Outcome::Failed(failure) => failure.drone,
        _ => DroneState::Untouched,
    };
    let dfu = |device: &Device| device.mode == Mode::Dfu;
    let Some(at) = app.devices().iter().position(|device| dfu(device) && drone.is(device)) else {
        notice(
            app,
            "That is another drone, or another port, than the one that was lost. Esc gives up on that one.",
        );
        return Vec::new();
    };
    mean(app, at);
    app.resume = None;
    app.log.push(app.now, Level::Info, "It is back: going on where it was");
    let mut effects = vec![Effect::Bell(1)];
    effects.extend(start(app, Some(left)));
    effects
}

pub(super) fn on_event(app: &mut App, event: Event) -> Vec<Effect> {
    if app.is_looking() {
        on_look(app, event);
        return Vec::new();
    }
    match event {
        Event::Log(level, entry) => app.log.record(app.now, level, entry),
        Event::Device(device) => {
            app.device = Some(device);
            is_here(app);
        }
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

pub(super) fn ready(app: &mut App, mut preview: Box<Preview>) -> Vec<Effect> {
    let now = app.now;
    let (mut resumed, mut stopping) = (false, app.detached);
    if let Screen::Job(view) = &mut app.screen {
        stopping |= view.stopping;
        view.waiting = None;
        view.compared = true;
        view.progress.plan(&preview.work, now);
        resumed = view.confirm == Confirm::Go;
        if !resumed && !preview.work.is_nothing() {
            view.stage = Stage::Asking(Question { shown: now, ..Question::default() });
        }
    }
    // What was confirmed of the board stays confirmed.
    if let Some(confirmed) = app.preview.as_ref().filter(|_| resumed) {
        preview.board = confirmed.board;
    }
    app.preview = Some(preview);
    require_drone(app);
    // Nobody is there to ask, or it was to stop already: nothing was changed, and nothing will be.
    if stopping && !resumed { stop(app) } else { Vec::new() }
}

/// The worker has the device: whatever was seen of its going is over, and was maybe its own restart.
fn is_here(app: &mut App) {
    if let Screen::Job(view) = &mut app.screen {
        view.was_away = false;
    }
}

pub(super) fn progress(app: &mut App, phase: Phase, done: u64, total: u64) {
    let now = app.now;
    is_here(app);
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
pub(super) fn finished(app: &mut App, report: Report) -> Vec<Effect> {
    if app.over == Some(Over::AskStop) {
        app.over = None;
    }
    app.look = None;
    app.ended = Some(report::exit(&report));
    remember_end(app, &report.outcome);
    let lost = interrupted(app, &report).filter(|_| !app.detached);
    app.resume = None;
    let untouched = matches!(report.outcome, Outcome::Cancelled(DroneState::Untouched));
    if untouched {
        app.map = [None; SECTORS];
        app.log.push(app.now, Level::Info, "Stopped. Nothing was changed on the drone.");
        notice(app, "Stopped. Nothing was changed on the drone.");
        app.screen = Screen::Home;
    } else if let Some(drone) = lost.filter(|_| !is_stuck(app)) {
        app.log.push(app.now, Level::Warning, &report::headline(&report));
        app.resume = Some(Resume { drone, report: Box::new(report) });
        let is_back = app.job().is_some_and(|view| view.was_away);
        app.screen = Screen::Wizard(Wizard::new(app.now));
        // Else the list is older than the loss.
        return if is_back { wizard_sees_bus(app) } else { Vec::new() };
    } else {
        app.screen = Screen::Outcome(Box::new(report));
    }
    if app.detached { vec![Effect::Quit] } else { Vec::new() }
}

/// Nobody goes on with an undo from here: what was chosen before it is chosen again.
pub(super) fn put_slots_back(app: &mut App) {
    for slot in [&mut app.image, &mut app.loader] {
        if let Slot::Before(_, instead) = slot {
            *slot = std::mem::replace(instead, Slot::Empty);
        }
    }
}

/// Whether a flash that is lost again and again gets no further.
fn is_stuck(app: &mut App) -> bool {
    let compared = app.job().is_some_and(|view| view.compared);
    let left = app.preview.as_ref().filter(|_| compared).map(|preview| preview.work.bytes());
    if app.job().is_some_and(|view| view.confirm == Confirm::Ask) {
        app.headway = Headway::default();
    }
    let stuck = app.headway.is_stuck(left);
    if stuck {
        app.log.push(app.now, Level::Warning, report::STUCK);
    }
    stuck
}

/// The drone that was lost in the middle of a flash, if that is how it ended.
pub(super) fn interrupted(app: &App, report: &Report) -> Option<DroneAt> {
    let Outcome::Failed(failure) = &report.outcome else { return None };
    let drone = app.job_drone()?;
    (failure.is_interruption() && !drone.serial.is_empty()).then_some(drone)
}

/// The terminal is gone. A flash that writes is finished without it; everything else ends.
pub(super) fn detach(app: &mut App) -> Vec<Effect> {
    app.detached = true;
    match app.job() {
        // One that is carried on has begun to write before.
        Some(JobView { stage: Stage::Working, .. } | JobView { confirm: Confirm::Go, .. }) => Vec::new(),
        Some(_) => stop(app),
        None => vec![Effect::Quit],
    }
}
