//! The table of key bindings. Dispatch, the footer and the help all read this table, so they cannot disagree.
//!
//! An unavailable action stays in the table, together with the reason why it is unavailable.

use super::batch::{BatchStage, BatchView};
use super::log::Log;
use super::releases::{ReleasesView, Request};
use super::update::console;
use super::wizard::{Leds, WizardStep};
use super::{
    App, BusState, ConsoleView, DemoInput, Goal, HAS_RELEASES, JobView, Overlay, Screen, Slot, Stage, Which,
    Wizard,
};
use crate::crazyflie::Mode;
use crate::fleet::Row;
use crate::image::{Content, Loader};
use crate::job::{BoardCheck, Device, Failure, FailureKind, Outcome, Report, WaitFor};

/// A key, independent of the terminal library.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Key {
    /// A character, with shift already applied.
    Char(char),
    Paste(String),
    Enter,
    Esc,
    Tab,
    Backspace,
    Up,
    Down,
    Left,
    Right,
    PageUp,
    PageDown,
    Home,
    End,
    Delete,
    CtrlC,
    CtrlU,
    CtrlW,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    Begin(Goal),
    BeginMarked,
    Batch(BatchAction),
    Choose(Which),
    Move(isize),
    NextDevice,
    ChooseEntry,
    Releases(ReleasesAction),
    /// Open the parent folder.
    Parent,
    /// Complete the typed path.
    Complete,
    StartCountdown,
    /// Answer the question about the LEDs.
    AnswerLeds(Leds),
    RestartWizard,
    Write,
    Retry,
    /// Restore what the last job overwrote.
    Undo,
    AskStop,
    Stop,
    /// Copy the equivalent command line.
    CopyCommand,
    Log,
    /// Explain the selected log line.
    Explain,
    /// Save a bug report.
    BugReport,
    /// Check why no drone is found, or why a drone cannot be opened.
    Doctor,
    /// Show the console output of the running drone.
    Console,
    /// Blink the LEDs of the selected drone.
    Blink,
    StopBlinking,
    Help,
    /// Go back, or close the overlay.
    Back,
    DemoInput(DemoInput),
    /// Open the demo.
    Practise,
    Quit,
}

/// An action on a batch, or on one of its rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BatchAction {
    /// Identify all drones, for the plan.
    Begin,
    /// Confirm the plan.
    Write,
    /// Stop the job of the selected row.
    StopRow,
    /// Run the job of the selected row again.
    RerunRow,
    /// Wait for more drones, and flash each one when it is plugged in.
    WaitForMore,
    /// Open the selected row: its running job, or the outcome once the job has ended.
    Open,
}

/// An action on the page of official releases.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ReleasesAction {
    Open,
    /// Go back to the folder.
    Close,
    /// Request the list.
    List,
    /// Select the file of the selected release, and download it if needed.
    File,
    NextPlatform,
    /// Show or hide pre-releases.
    ShowPre,
    /// Cancel the running request.
    Stop,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Binding {
    pub keys: Vec<Key>,
    /// The key as the footer shows it.
    pub shown: &'static str,
    /// What the key does, in a few words.
    pub label: &'static str,
    pub action: Action,
    /// Why the action is unavailable.
    pub why_not: Option<String>,
}

fn row(keys: &[Key], shown: &'static str, label: &'static str, action: Action) -> Binding {
    Binding { keys: keys.to_vec(), shown, label, action, why_not: None }
}

fn up_down() -> Vec<Binding> {
    vec![
        row(&[Key::Up, Key::Char('k')], "↑", "up", Action::Move(-1)),
        row(&[Key::Down, Key::Char('j')], "↓", "down", Action::Move(1)),
    ]
}

/// Returns the bindings that move the selection by more than one row.
fn paging() -> Vec<Binding> {
    /// More rows than any list has, so the move ends at the first or last row.
    const FAR: isize = 1_000_000;
    vec![
        row(&[Key::PageUp], "PgUp", "page up", Action::Move(-10)),
        row(&[Key::PageDown], "PgDn", "page down", Action::Move(10)),
        row(&[Key::Home], "Home", "first", Action::Move(-FAR)),
        row(&[Key::End], "End", "last", Action::Move(FAR)),
    ]
}

/// Returns the bindings that apply now, available or not, most important first.
pub(crate) fn bindings(app: &App) -> Vec<Binding> {
    match &app.overlay {
        Some(over) => overlay_bindings(app, over),
        None => bindings_below(app),
    }
}

/// Returns the binding of a key, if it has one now.
pub(crate) fn binding_of(app: &App, key: &Key) -> Option<Binding> {
    bindings(app).into_iter().find(|binding| binding.keys.contains(key))
}

/// Returns the bindings of the screen, even if an overlay covers the screen.
pub(crate) fn bindings_below(app: &App) -> Vec<Binding> {
    let mut rows = match &app.screen {
        Screen::Home => home_bindings(app),
        Screen::Pick(_, _, picker) if picker.typing.is_some() => typing_bindings(),
        Screen::Pick(..) => pick_bindings(),
        Screen::Releases(view) => releases_bindings(app, view),
        Screen::Wizard(view) => wizard_bindings(app, &view.wizard),
        Screen::Job(view) => job_bindings(app, view),
        Screen::Outcome(report, _) => outcome_bindings(app, report),
        Screen::Batch(view) => batch_bindings(app, view),
        Screen::Row(view) => row_bindings(view),
        Screen::Console(view) => console_bindings(view),
    };
    let can_act = !matches!(&app.screen, Screen::Pick(..) | Screen::Releases(_)) && !is_typing_word(app);
    if let Some(demo) = app.demo.as_ref().filter(|_| can_act) {
        let cable = if demo.plugged { "unplug" } else { "plug in" };
        let button = if demo.button { "let go" } else { "hold button" };
        rows.push(row(&[Key::Char('P')], "P", cable, Action::DemoInput(DemoInput::Cable)));
        rows.push(row(&[Key::Char('B')], "B", button, Action::DemoInput(DemoInput::Button)));
    }
    rows
}

/// A reason why a single key press is not enough to confirm a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Danger {
    Bootloader,
    /// The image is not recognised.
    UnknownImage,
    /// The drone's board could not be read.
    UnknownBoard,
    /// The device may not be a Crazyflie.
    MaybeNotACrazyflie,
    /// An undo would overwrite data that another program wrote.
    ChangedSince,
}

impl Danger {
    /// Returns the word that the user must type.
    pub(crate) fn confirmation_word(self) -> &'static str {
        match self {
            Danger::Bootloader => "restore",
            Danger::ChangedSince => "undo",
            Danger::UnknownImage | Danger::UnknownBoard | Danger::MaybeNotACrazyflie => "unknown",
        }
    }
}

/// Returns why the user must type a word before the job may write, or `None` if a key press is enough.
pub(crate) fn danger(app: &App) -> Option<Danger> {
    let board = app.preview().map(|preview| preview.board);
    let changed_since = app.preview().is_some_and(|preview| preview.changed_since);
    match (app.goal, app.content()) {
        (Goal::Restore, _) if app.preview().is_none_or(|preview| preview.work.writes_loader()) => {
            Some(Danger::Bootloader)
        }
        (Goal::Flash | Goal::Recover, Some(Content::Unknown { .. }))
            if app.backup_replacing(Which::Image).is_none() =>
        {
            Some(Danger::UnknownImage)
        }
        (Goal::Flash | Goal::Recover | Goal::Restore, _) if changed_since => Some(Danger::ChangedSince),
        (Goal::Flash | Goal::Recover | Goal::Restore, _) => match board {
            Some(BoardCheck::Unknown) => Some(Danger::UnknownBoard),
            Some(BoardCheck::MaybeNotACrazyflie) => Some(Danger::MaybeNotACrazyflie),
            Some(BoardCheck::Passed) | None => None,
        },
    }
}

/// Returns the word that the user must type before the job may write, or `None` if a key press is enough.
pub(crate) fn required_word(app: &App) -> Option<&'static str> {
    danger(app).map(Danger::confirmation_word)
}

/// Returns whether the user must type the confirmation word now. If so, key presses are letters of that word.
pub(crate) fn is_typing_word(app: &App) -> bool {
    required_word(app).is_some() && matches!(app.job(), Some(JobView { stage: Stage::Asking(_), .. }))
}

fn home_bindings(app: &App) -> Vec<Binding> {
    let begin = |key: char, shown, label, goal| {
        let mut row = row(&[Key::Char(key)], shown, label, Action::Begin(goal));
        row.why_not = why_not(app, goal);
        row
    };
    let mut marked = row(&[Key::Enter], "Enter", "start", Action::BeginMarked);
    marked.why_not = why_not(app, app.goal);
    let mut rows = vec![marked];
    if app.devices.list().len() > 1 {
        let all = row(&[Key::Char('a')], "a", "flash all", Action::Batch(BatchAction::Begin));
        rows.push(Binding { why_not: why_not_all(app), ..all });
        rows.push(row(&[Key::Tab], "Tab", "next drone", Action::NextDevice));
    }
    rows.extend([
        begin('f', "f", "flash", Goal::Flash),
        begin('r', "r", "rescue", Goal::Recover),
        begin('b', "b", "bootloader", Goal::Restore),
    ]);
    if app.goal == Goal::Restore {
        rows.push(row(&[Key::Char('i')], "i", "file", Action::Choose(Which::Loader)));
        rows.push(row(&[Key::Char('o')], "o", "firmware", Action::Choose(Which::Image)));
    } else {
        rows.push(row(&[Key::Char('i')], "i", "image", Action::Choose(Which::Image)));
    }
    if app.demo.is_none() && app.devices.selected().is_none_or(|device| device.open_error.is_some()) {
        rows.push(row(&[Key::Char('d')], "d", "doctor", Action::Doctor));
    }
    if can_practise(app) {
        rows.push(row(&[Key::Char('p')], "p", "practise", Action::Practise));
    }
    let has_several = app.devices.list().len() > 1;
    if has_several {
        rows.push(blink_binding(app));
    }
    if app.why_no_undo().is_none() {
        rows.push(row(&[Key::Char('u')], "u", "undo", Action::Undo));
    }
    if app.devices.list().len() < 2 {
        rows.extend(console_binding(app));
    }
    rows.extend([
        row(&[Key::Char('?')], "?", "keys", Action::Help),
        row(&[Key::Char('q')], "q", "quit", Action::Quit),
        row(&[Key::Char('l')], "l", "log", Action::Log),
    ]);
    if app.devices.list().len() > 1 {
        rows.extend(console_binding(app));
    }
    if !has_several && app.devices.selected().is_some() {
        rows.push(blink_binding(app));
    }
    rows.extend(up_down());
    rows
}

/// Returns the binding that opens the console, or `None` if no drone is plugged in.
fn console_binding(app: &App) -> Option<Binding> {
    app.devices.selected()?;
    let console = row(&[Key::Char('c')], "c", "console", Action::Console);
    Some(Binding { why_not: console::why_not(app), ..console })
}

/// Returns the binding that explains the selected line of a log.
fn explain_binding(log: &Log) -> Binding {
    let explain = row(&[Key::Char('e'), Key::Enter], "e", "explain", Action::Explain);
    let is_routine = log.explained().is_none();
    let why_not =
        is_routine.then(|| "this line is routine and needs no explanation. Select another line".to_owned());
    Binding { why_not, ..explain }
}

fn console_bindings(view: &ConsoleView) -> Vec<Binding> {
    let mut rows = vec![
        row(&[Key::Esc, Key::Char('q'), Key::Char('c')], "Esc", "close", Action::Back),
        explain_binding(&view.log),
        row(&[Key::Char('?')], "?", "keys", Action::Help),
        row(&[Key::Char('l')], "l", "log", Action::Log),
    ];
    rows.extend(up_down());
    rows.extend(paging());
    rows
}

fn blink_binding(app: &App) -> Binding {
    let why_not = drone_to_blink(app).err();
    Binding { why_not, ..row(&[Key::Char('g')], "g", "blink", Action::Blink) }
}

/// Returns the drone to blink (the selected drone, or the drone of the selected batch row), or why its LEDs cannot
/// blink.
pub(crate) fn drone_to_blink(app: &App) -> Result<&Device, String> {
    let device = match app.batch() {
        None => app.devices.selected().ok_or("no drone is plugged in")?,
        Some(view) => {
            let row = view.fleet.rows.get(view.at).ok_or("no drone is selected")?;
            if !row.is_final() {
                return Err("cfdfu is still using this drone".to_owned());
            }
            let mut devices = app.devices.list().iter();
            devices.find(|it| row.device.may_be_same(it)).ok_or("the drone is not plugged in")?
        }
    };
    let location = &device.location;
    match (device.open_error, app.devices.instance_using(location), device.mode) {
        (Some(error), ..) => Err(error.to_string()),
        (None, Some(other), _) => Err(other.to_string()),
        (None, None, Mode::Dfu) => {
            Err(format!("the boot ROM cannot control the LEDs. The drone is on port {location}"))
        }
        (None, None, Mode::Firmware) => Ok(device),
    }
}

/// Returns whether to offer the demo: only while no drone is plugged in.
pub(crate) fn can_practise(app: &App) -> bool {
    app.demo.is_none() && app.devices.bus != BusState::Scanning && app.devices.list().is_empty()
}

/// Returns why a job cannot start. A missing file is not a reason, because the picker then asks for a file.
pub(crate) fn why_not(app: &App, goal: Goal) -> Option<String> {
    if let BusState::Unavailable(why) = &app.devices.bus {
        return Some(format!("no USB on this computer ({why})"));
    }
    let slot = app.slot(goal.file());
    // The wizard need not wait for the file: entering DFU mode by hand takes longer than reading the file.
    if matches!(slot, Slot::Loading(_)) && goal != Goal::Recover {
        return Some("the file is still being read".to_owned());
    }
    if let Some(other) = app.devices.instance_using_selected() {
        return Some(format!("{other}"));
    }
    // Without a drone, a restore starts the wizard, so only a flash is refused.
    if goal == Goal::Flash && app.devices.list().is_empty() {
        return Some("no Crazyflie found. If yours does not start, press r".to_owned());
    }
    None
}

/// Returns why the drones cannot be flashed together.
pub(crate) fn why_not_all(app: &App) -> Option<String> {
    match &app.image {
        Slot::Ready(_, image) if matches!(image.content, Content::Unknown { .. }) => {
            Some("cfdfu does not recognise this image. Flash one drone first".to_owned())
        }
        Slot::Ready(..) => why_not(app, Goal::Flash),
        Slot::Loading(_) => Some("the file is still being read".to_owned()),
        Slot::Bad(..) if app.batch().is_some() => {
            Some("the file cannot be used. Press Esc, then i".to_owned())
        }
        Slot::Empty | Slot::Bad(..) => Some("no image is chosen. Press i".to_owned()),
    }
}

/// Returns the binding that opens the selected row.
fn open_row_binding(view: &BatchView) -> Binding {
    let why_not = view.why_not_open().map(str::to_owned);
    Binding { why_not, ..row(&[Key::Enter], "Enter", "open", Action::Batch(BatchAction::Open)) }
}

fn stop_all_binding() -> Binding {
    row(&[Key::Char('q'), Key::CtrlC], "q", "stop all", Action::AskStop)
}

fn stop_row_binding() -> Binding {
    row(&[Key::Char('x')], "x", "stop this", Action::Batch(BatchAction::StopRow))
}

/// Returns the bindings of an opened row whose job is running.
fn row_bindings(view: &BatchView) -> Vec<Binding> {
    let mut rows = vec![row(&[Key::Esc, Key::Enter], "Esc", "all drones", Action::Back)];
    if view.job().is_some_and(|job| !job.view.stopping) {
        rows.push(stop_row_binding());
    }
    rows.extend([
        stop_all_binding(),
        row(&[Key::Char('?')], "?", "keys", Action::Help),
        row(&[Key::Char('l')], "l", "log", Action::Log),
    ]);
    rows
}

fn batch_bindings(app: &App, view: &BatchView) -> Vec<Binding> {
    let selected = view.fleet.rows.get(view.at);
    let is_final = selected.is_some_and(Row::is_final);
    let mut rows = match view.stage {
        BatchStage::Identifying => vec![row(&[Key::Esc, Key::Char('q')], "Esc", "back", Action::Back)],
        BatchStage::Asking(_) => {
            let write = row(&[Key::Char('w')], "w", "write all", Action::Batch(BatchAction::Write));
            vec![
                Binding { why_not: why_not_all(app), ..write },
                row(&[Key::Esc, Key::Char('q')], "Esc", "back", Action::Back),
                row(&[Key::Char('m')], "m", "copy as a command", Action::CopyCommand),
            ]
        }
        BatchStage::Flashing => {
            let mut rows = vec![open_row_binding(view), stop_all_binding()];
            if !is_final {
                rows.push(stop_row_binding());
            }
            rows
        }
        BatchStage::Over => {
            vec![open_row_binding(view), row(&[Key::Esc, Key::Char('q')], "Esc", "home", Action::Back)]
        }
    };
    let can_repeat = is_final && !view.stopping && view.fleet.rows[view.at].report.is_some();
    if matches!(view.stage, BatchStage::Flashing | BatchStage::Over) {
        if can_repeat {
            let keys = [Key::Char('r'), Key::Char('t')];
            let again = row(&keys, "r", "again", Action::Batch(BatchAction::RerunRow));
            let why_not =
                selected.is_some_and(Row::was_unplugged).then(|| "the drone was unplugged".to_owned());
            rows.push(Binding { why_not, ..again });
        }
        if view.fleet.station().is_none() && !view.stopping {
            rows.push(row(&[Key::Char('n')], "n", "wait for more", Action::Batch(BatchAction::WaitForMore)));
        }
    }
    if is_final && view.stage != BatchStage::Identifying {
        rows.push(blink_binding(app));
    }
    // The advice for a refused image names the i key.
    let is_refused =
        selected.and_then(|row| row.report.as_deref()).map(next_step) == Some(NextStep::OtherFile);
    if view.stage == BatchStage::Over || view.stage == BatchStage::Flashing && is_refused {
        let image = row(&[Key::Char('i')], "i", "image", Action::Choose(Which::Image));
        rows.push(Binding { why_not: why_batch_blocks(app), ..image });
    }
    rows.extend([
        row(&[Key::Char('?')], "?", "keys", Action::Help),
        row(&[Key::Char('l')], "l", "log", Action::Log),
    ]);
    rows.extend(up_down());
    rows.extend(paging());
    rows
}

fn pick_bindings() -> Vec<Binding> {
    let mut rows = vec![row(&[Key::Enter, Key::Right], "Enter", "choose", Action::ChooseEntry)];
    if HAS_RELEASES {
        rows.push(row(&[Key::Tab], "Tab", "releases", Action::Releases(ReleasesAction::Open)));
    }
    rows.extend([
        row(&[Key::Esc], "Esc", "back", Action::Back),
        row(&[Key::Backspace, Key::Left], "←", "parent folder", Action::Parent),
        row(&[Key::Char('/')], "/", "type a path", Action::Complete),
        row(&[Key::Char('?')], "?", "keys", Action::Help),
    ]);
    // Letters filter the list, so j and k do not move the selection.
    rows.extend([
        row(&[Key::Up], "↑", "up", Action::Move(-1)),
        row(&[Key::Down], "↓", "down", Action::Move(1)),
    ]);
    rows.extend(paging());
    rows
}

fn releases_bindings(app: &App, view: &ReleasesView) -> Vec<Binding> {
    let on_page = |keys: &[Key], shown, label, action| row(keys, shown, label, Action::Releases(action));
    let board = app.devices.board_code();
    let mut rows = Vec::new();
    match (&view.request, &view.list) {
        (Request::Nothing, None) => {
            let label = if view.folder.is_some() { "read again" } else { "ask GitHub" };
            rows.push(on_page(&[Key::Enter], "Enter", label, ReleasesAction::List));
        }
        (Request::Nothing, Some(_)) => {
            let file = view.file(board);
            let is_kept = file.as_ref().is_ok_and(|(release, asset)| view.is_kept(release, asset));
            let label = if is_kept { "use it" } else { "download" };
            let fetch = on_page(&[Key::Enter, Key::Right], "Enter", label, ReleasesAction::File);
            rows.push(Binding { why_not: file.err(), ..fetch });
        }
        (Request::KeptList, _) => {}
        (Request::List | Request::File { .. }, _) => {
            let keys = [Key::Esc, Key::CtrlC, Key::Char('q')];
            rows.push(on_page(&keys, "Esc", "stop", ReleasesAction::Stop));
        }
    }
    rows.push(on_page(&[Key::Tab], "Tab", "files", ReleasesAction::Close));
    if let (Request::Nothing, Some(_)) = (&view.request, &view.list) {
        if view.which == Which::Image {
            rows.push(on_page(&[Key::Char('v')], "v", "other board", ReleasesAction::NextPlatform));
        }
        if view.folder.is_none() {
            rows.push(on_page(&[Key::Char('u')], "u", "update the list", ReleasesAction::List));
        }
        if view.has_pre() {
            let label = if view.shows_pre { "hide pre-releases" } else { "pre-releases" };
            rows.push(on_page(&[Key::Char('p')], "p", label, ReleasesAction::ShowPre));
        }
    }
    if matches!(view.request, Request::Nothing | Request::KeptList) {
        rows.push(row(&[Key::Esc, Key::Char('q')], "Esc", "back", Action::Back));
    }
    rows.push(row(&[Key::Char('?')], "?", "keys", Action::Help));
    rows.push(row(&[Key::Char('l')], "l", "log", Action::Log));
    rows.extend(up_down());
    rows.extend(paging());
    rows
}

fn typing_bindings() -> Vec<Binding> {
    vec![
        row(&[Key::Enter], "Enter", "choose", Action::ChooseEntry),
        row(&[Key::Tab], "Tab", "complete", Action::Complete),
        row(&[Key::Esc], "Esc", "back to the list", Action::Back),
    ]
}

fn wizard_bindings(app: &App, wizard: &Wizard) -> Vec<Binding> {
    let mut rows = match wizard.step {
        WizardStep::Prepare => {
            vec![row(&[Key::Enter], "Enter", "start the countdown", Action::StartCountdown)]
        }
        WizardStep::AskLeds => {
            let answer = |key: char, shown, label, leds| {
                row(&[Key::Char(key)], shown, label, Action::AnswerLeds(leds))
            };
            vec![
                answer('1', "1", "slow", Leds::TwoSlow),
                answer('2', "2", "fast", Leds::OneFast),
                answer('3', "3", "flicker", Leds::Flicker),
                answer('4', "4", "lit", Leds::Solid),
                answer('5', "5", "dark", Leds::Dark),
                answer('6', "6", "two lit", Leds::TwoLit),
                answer('7', "7", "red", Leds::Red),
                answer('8', "8", "other", Leds::Other),
            ]
        }
        WizardStep::Answer(_) => {
            vec![row(&[Key::Enter, Key::Char('t')], "Enter", "try again", Action::RestartWizard)]
        }
        WizardStep::Early => vec![
            row(&[Key::Enter], "Enter", "continue", Action::Begin(app.goal_of_wizard())),
            row(&[Key::Char('t')], "t", "try again", Action::RestartWizard),
        ],
        WizardStep::Count | WizardStep::Hold | WizardStep::Release => Vec::new(),
    };
    let back = row(&[Key::Esc, Key::Char('q')], "Esc", "back", Action::Back);
    // The panel also lists the answers, so put Esc first in case the footer is too narrow for all keys.
    let at = if wizard.step == WizardStep::AskLeds { 0 } else { rows.len() };
    rows.insert(at, back);
    rows.push(row(&[Key::Char('?')], "?", "keys", Action::Help));
    rows
}

fn job_bindings(app: &App, view: &JobView) -> Vec<Binding> {
    match &view.stage {
        Stage::Asking(_) => {
            let word = required_word(app);
            // Do not use the key that started the job: holding that key down, or pressing it twice, would confirm a
            // plan that the user has not read.
            let mut write = match word {
                Some(_) => row(&[Key::Enter], "Enter", "write", Action::Write),
                None => row(&[Key::Char('w')], "w", "write", Action::Write),
            };
            write.why_not = match word {
                _ if view.stopping => Some("cfdfu is stopping. Nothing will be written".to_owned()),
                Some(word) if !has_typed_word(app) => Some(format!("type \"{word}\" first")),
                _ => None,
            };
            let mut rows = vec![write];
            if word.is_some() {
                rows.push(row(&[Key::Esc], "Esc", "back", Action::Stop));
            } else {
                rows.push(row(&[Key::Esc, Key::Char('q')], "Esc", "back", Action::Stop));
                rows.push(row(&[Key::Char('m')], "m", "copy as a command", Action::CopyCommand));
                rows.push(row(&[Key::Char('l')], "l", "log", Action::Log));
                rows.push(row(&[Key::Char('?')], "?", "keys", Action::Help));
            }
            rows
        }
        // The flash has been written and verified. The job now only checks whether the drone keeps running.
        Stage::Working if view.waiting.is_some_and(|(what, ..)| what == WaitFor::StayUp) => vec![
            row(&[Key::Enter, Key::Esc, Key::Char('q')], "Enter", "skip the wait", Action::Stop),
            row(&[Key::Char('l')], "l", "log", Action::Log),
            row(&[Key::Char('?')], "?", "keys", Action::Help),
        ],
        Stage::Looking | Stage::Working => vec![
            row(&[Key::Char('q'), Key::CtrlC], "q", "stop", Action::AskStop),
            row(&[Key::Char('l')], "l", "log", Action::Log),
            row(&[Key::Char('?')], "?", "keys", Action::Help),
        ],
    }
}

/// Returns whether the user has typed the confirmation word.
pub(crate) fn has_typed_word(app: &App) -> bool {
    matches!(app.job(), Some(JobView { stage: Stage::Asking(question), .. })
        if required_word(app).is_some_and(|word| question.word.eq_ignore_ascii_case(word)))
}

/// Returns why no other job can start while the batch is running, or `None` if the batch is not running.
fn why_batch_blocks(app: &App) -> Option<String> {
    let runs = app.batch().is_some_and(BatchView::is_active);
    runs.then(|| "the batch is still running. In the table, q stops it".to_owned())
}

/// Returns the bindings for an outcome, most helpful first.
fn outcome_bindings(app: &App, report: &Report) -> Vec<Binding> {
    let back = if app.batch().is_some() { "all drones" } else { "home" };
    let mut home = row(&[Key::Esc, Key::Enter], "Esc", back, Action::Back);
    if app.batch().is_some() {
        // Quitting would discard the table, including the undo of its rows, so q goes back instead.
        home.keys.push(Key::Char('q'));
    }
    let again = |label| {
        let why_not = why_not_again(app);
        Binding { why_not, ..row(&[Key::Char('t')], "t", label, Action::Retry) }
    };
    let mut by_hand = row(&[Key::Char('r')], "r", "DFU mode by hand", Action::Begin(Goal::Recover));
    let which = app.goal.file();
    let label = if which == Which::Image { "another image" } else { "another file" };
    let file = row(&[Key::Char('i')], "i", label, Action::Choose(which));
    let mut loader = row(&[Key::Char('b')], "b", "restore the bootloader", Action::Begin(Goal::Restore));
    loader.why_not = why_not(app, Goal::Restore).or_else(|| why_not_again(app));
    by_hand.why_not = why_not_by_hand(app);
    let mut rows = match next_step(report) {
        NextStep::None => vec![home],
        NextStep::RestoreLoader => vec![loader, home],
        NextStep::TryAgain => vec![again("try again"), by_hand, home],
        NextStep::EnterByHand => vec![by_hand, again("try again"), home],
        NextStep::OtherFile => vec![file, home],
    };
    let why_no_undo = app.why_no_undo();
    let has_succeeded = !matches!(report.outcome, Outcome::Failed(_) | Outcome::Cancelled(_));
    if has_succeeded || why_no_undo.is_none() {
        let undo = row(&[Key::Char('u')], "u", "undo", Action::Undo);
        rows.push(Binding { why_not: why_no_undo, ..undo });
    }
    if has_succeeded {
        rows.push(again("again"));
        // An opened batch row may belong to a drone that is not selected, so it does not offer the console.
        let console = console_binding(app).filter(|row| row.why_not.is_none() && app.behind.is_none());
        rows.extend(console);
    }
    rows.extend([
        row(&[Key::Char('?')], "?", "keys", Action::Help),
        row(&[Key::Char('l')], "l", "log", Action::Log),
        row(&[Key::Char('s')], "s", "save a report", Action::BugReport),
    ]);
    if app.batch().is_none() {
        rows.insert(rows.len() - 1, row(&[Key::Char('q')], "q", "quit", Action::Quit));
    }
    if let Some(why) = why_batch_blocks(app) {
        let starts = |row: &&mut Binding| {
            matches!(row.action, Action::Retry | Action::Begin(_) | Action::Undo | Action::Choose(_))
        };
        rows.iter_mut().filter(starts).for_each(|row| row.why_not = Some(why.clone()));
        // The keys that start a job do not work now, so list Back first.
        rows.sort_by_key(|row| row.action != Action::Back);
    }
    rows
}

/// Returns why the job of an opened row cannot be repeated while the row's drone is not selected. The job would flash
/// the selected drone instead.
fn why_not_again(app: &App) -> Option<String> {
    let drone = app.facts()?.device.as_ref().filter(|_| app.behind.is_some())?;
    let is_selected = app.devices.selected().is_some_and(|device| drone.may_be_same(device));
    (!is_selected).then(|| format!("the drone from port {} is not plugged in", drone.location))
}

/// Returns why the wizard cannot start from an opened row while another drone is in DFU mode. The wizard would select
/// that drone instead.
fn why_not_by_hand(app: &App) -> Option<String> {
    let drone = app.facts()?.device.as_ref().filter(|_| app.behind.is_some())?;
    let is_another = |it: &&Device| it.mode == Mode::Dfu && !drone.may_be_same(it);
    let other = app.devices.list().iter().find(is_another)?;
    Some(format!("another drone is in DFU mode on port {}. Unplug it first", other.location))
}

/// The step that helps most after an outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NextStep {
    None,
    RestoreLoader,
    TryAgain,
    EnterByHand,
    OtherFile,
}

pub(crate) fn next_step(report: &Report) -> NextStep {
    match &report.outcome {
        Outcome::Cancelled(_) => NextStep::TryAgain,
        Outcome::Failed(Failure { kind, .. }) => match kind {
            FailureKind::OtherBoard { .. } | FailureKind::Plan(_) | FailureKind::OutOfRange(_) => {
                NextStep::OtherFile
            }
            FailureKind::TooOld | FailureKind::DidNotEnter { .. } => NextStep::EnterByHand,
            // Neither a retry nor DFU mode by hand helps with these failures.
            FailureKind::ReadProtected
            | FailureKind::WriteProtected(_)
            | FailureKind::NotErased(_)
            | FailureKind::OtherChip => NextStep::None,
            _ => NextStep::TryAgain,
        },
        Outcome::Flashed | Outcome::Unchanged if report.loader.is_some_and(Loader::is_missing) => {
            NextStep::RestoreLoader
        }
        Outcome::Flashed | Outcome::Unchanged | Outcome::Read(_) | Outcome::Identified => NextStep::None,
    }
}

fn overlay_bindings(app: &App, over: &Overlay) -> Vec<Binding> {
    let close = row(&[Key::Esc, Key::Enter, Key::Char('q'), Key::Char('?')], "Esc", "close", Action::Back);
    match over {
        // Letters filter the help, so j and k do not scroll.
        Overlay::Help(_) => {
            let mut rows = vec![
                row(&[Key::Esc, Key::Enter, Key::Char('q'), Key::Char('?')], "Esc", "close", Action::Back),
                row(&[Key::Up], "↑", "up", Action::Move(-1)),
                row(&[Key::Down], "↓", "down", Action::Move(1)),
            ];
            rows.extend(paging());
            rows
        }
        Overlay::Explain(_) | Overlay::Doctor(_) => {
            let mut rows = vec![close];
            rows.extend(up_down());
            rows.extend(paging());
            rows
        }
        // Any other key also stops the blinking; see `update`.
        Overlay::Blink(_) => {
            let keys = [Key::Char('g'), Key::Esc, Key::Enter, Key::Char('q'), Key::CtrlC];
            vec![row(&keys, "g", "stop", Action::StopBlinking)]
        }
        Overlay::AskStop => vec![
            row(&[Key::Char('y')], "y", "stop", Action::Stop),
            row(&[Key::Char('n'), Key::Esc], "n", "keep flashing", Action::Back),
        ],
        Overlay::Log => {
            let mut rows = vec![
                row(&[Key::Esc, Key::Char('q'), Key::Char('l')], "Esc", "close", Action::Back),
                explain_binding(app.log_on_screen()),
                row(&[Key::Char('s')], "s", "save a report", Action::BugReport),
            ];
            rows.extend(up_down());
            rows.extend(paging());
            rows
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::app::{Aim, Blink, Confirmation, DemoLeds, JobFacts, Source, WizardView};
    use crate::fleet::{Fleet, FleetMsg, Policy};
    use crate::job::{DroneAt, Job, Task};
    use crate::usb::CRAZYFLIE;
    use crate::usb::descriptor::Strings;

    /// Returns a batch whose only drone has been identified.
    fn batch(stage: BatchStage) -> Box<BatchView> {
        let policy = Policy {
            job: Job::new(Task::Identify),
            selected: Vec::new(),
            planned: Vec::new(),
            expect: None,
            jobs: 1,
            wait: Duration::ZERO,
            require_boot: false,
            station: None,
        };
        let device = Device {
            mode: Mode::Firmware,
            id: CRAZYFLIE,
            location: "1-1".parse().unwrap(),
            address: 1,
            strings: Strings::default(),
            simulated: true,
            open_error: None,
        };
        let mut fleet = Fleet::new(policy, Duration::ZERO);
        fleet.update(Duration::ZERO, FleetMsg::Bus(vec![device]));
        fleet.update(Duration::from_secs(3), FleetMsg::Tick);
        let report = Box::new(Report::nothing_done(Outcome::Identified));
        fleet.update(Duration::from_secs(4), FleetMsg::Ended(0, report, None));
        assert!(fleet.is_over());
        Box::new(BatchView { stage, ..BatchView::new(fleet, None) })
    }

    #[test]
    fn no_key_has_two_meanings_on_one_screen() {
        let mut app = App::new(Some(super::super::Demo {
            scenario: "healthy".to_owned(),
            plugged: true,
            button: false,
            leds: DemoLeds::default(),
        }));
        let wizard = |step| {
            let wizard = Wizard { step, since: Duration::ZERO, spoken: false };
            Screen::Wizard(WizardView { wizard, aim: Aim::Begin(Source::Chosen) })
        };
        let picker = |typing: bool| {
            let mut picker = super::super::picker::Picker::new("/".into());
            if typing {
                picker.start_typing("");
            }
            Screen::Pick(Which::Image, None, picker)
        };
        let releases = |request| {
            let picker = super::super::picker::Picker::new("/".into());
            Screen::Releases(Box::new(ReleasesView {
                request,
                ..ReleasesView::new(Which::Image, None, picker, None)
            }))
        };
        let job = |stage| Screen::Job(JobView { stage, ..JobView::new(crate::job::Confirm::Ask) });
        let screens = [
            Screen::Home,
            Screen::Batch(batch(BatchStage::Identifying)),
            Screen::Batch(batch(BatchStage::Asking(Duration::ZERO))),
            Screen::Batch(batch(BatchStage::Flashing)),
            Screen::Batch(batch(BatchStage::Over)),
            picker(false),
            picker(true),
            releases(Request::Nothing),
            releases(Request::List),
            wizard(WizardStep::Prepare),
            wizard(WizardStep::AskLeds),
            wizard(WizardStep::Answer(Leds::Dark)),
            wizard(WizardStep::Early),
            Screen::Row(batch(BatchStage::Flashing)),
            job(Stage::Looking),
            job(Stage::Asking(Confirmation::default())),
            job(Stage::Working),
            Screen::Outcome(
                Box::new(Report::nothing_done(Outcome::Unchanged)),
                JobFacts::new(Source::Chosen),
            ),
        ];
        let overlays = [
            Overlay::Help(String::new()),
            Overlay::AskStop,
            Overlay::Log,
            Overlay::Explain(String::new()),
            Overlay::Doctor(Vec::new()),
            Overlay::Blink(Blink {
                drone: DroneAt { port: "1-1".parse().unwrap(), serial: String::new() },
                until: Duration::ZERO,
                stopping: false,
            }),
        ];
        let all = screens.into_iter().flat_map(|screen| {
            let over = overlays.iter().cloned().map(Some).chain([None]);
            over.map(move |over| (screen.clone(), over)).collect::<Vec<_>>()
        });
        let all = all.flat_map(|it| Goal::ALL.map(|goal| (it.clone(), goal)));
        let behind = [None, Some(BatchStage::Flashing), Some(BatchStage::Over)];
        for (((screen, over), goal), stage) in all.flat_map(|it| behind.map(|stage| (it.clone(), stage))) {
            (app.screen, app.overlay, app.goal) = (screen, over, goal);
            app.behind = stage.map(batch);
            let rows = bindings(&app);
            let keys: Vec<&Key> = rows.iter().flat_map(|row| &row.keys).collect();
            for (n, key) in keys.iter().enumerate() {
                assert!(
                    !keys[..n].contains(key),
                    "{key:?} is bound twice on {:?} {:?}",
                    app.screen,
                    app.overlay
                );
            }
        }
    }
}
