//! Tests of single messages. Whole flows are tested in `tests/it/screens.rs`.

use super::*;
use crate::app::command_line::command_line;
use crate::app::picker::{Entry, EntryKind};
use crate::app::{Backup, Demo, DemoLeds, JobFacts, Slot, Which};
use crate::crazyflie::Protection;
use crate::image::Content;
use crate::image::Image;
use crate::image::Loader;
use crate::job::{Confirm, Device, DeviceInfo, DroneState, Enter, Event, Identity, Outcome, Report, Task};
use crate::plan::admission::{self, Overrides};
use crate::plan::undo::Change;
use crate::report::ProblemKind;
use crate::sim::images;
use crate::sim::scenario::CF2_BOARDS;
use crate::supervise::Ended;
use crate::usb::descriptor::Strings;
use crate::usb::{Location, ROM_DFU};

fn device(port: u8) -> Device {
    Device {
        mode: Mode::Dfu,
        id: ROM_DFU,
        location: Location { bus: 1, ports: vec![port] },
        address: 1,
        strings: Strings::default(),
        simulated: true,
        open_error: None,
    }
}

fn app(devices: usize) -> App {
    let mut app = App::new(Some(Demo {
        scenario: "dfu".to_owned(),
        plugged: true,
        button: false,
        leds: DemoLeds::default(),
    }));
    let devices = (0..devices).map(|n| device(u8::try_from(n + 1).unwrap())).collect();
    update(&mut app, Duration::ZERO, Msg::Bus(BusState::Devices(devices)));
    if app.devices.is_identifying() {
        finish_identify(&mut app, None);
    }
    app
}

/// Ends the background identify with this result.
fn finish_identify(app: &mut App, known: Option<DeviceInfo>) {
    let known = known.map(|known| Msg::Job(Box::new(Event::Known(Box::new(known)))));
    for message in known.into_iter().chain([ended(Outcome::Identified, true)]) {
        assert_eq!(update(app, Duration::ZERO, message), []);
    }
}

fn ended(outcome: Outcome, background: bool) -> Msg {
    Msg::Ended(Box::new(Ended::of(Report::nothing_done(outcome), background)))
}

fn press(app: &mut App, key: Key) -> Vec<Effect> {
    update(app, app.now, Msg::Key(key))
}

fn notice_of(app: &App) -> &str {
    app.notice.as_ref().map_or("", |(text, _)| text)
}

/// A file on a slow disk must not delay the wizard.
#[test]
fn the_wizard_opens_while_the_file_is_still_being_read() {
    let mut app = App::new(None);
    update(&mut app, Duration::ZERO, Msg::Bus(BusState::Devices(Vec::new())));
    app.image = Slot::Loading("/nfs/cf2.bin".into());
    press(&mut app, Key::Enter);
    assert!(matches!(app.screen, Screen::Wizard(_)), "{:?}", app.notice);
}

#[test]
fn the_suggested_goal_depends_on_what_is_plugged_in() {
    assert_eq!(app(1).goal, Goal::Flash);
    assert_eq!(app(0).goal, Goal::Recover);
}

#[test]
fn a_drone_is_identified_once_and_restore_is_suggested_if_its_bootloader_is_missing() {
    let mut app = App::new(None);
    let plugged_in = Msg::Bus(BusState::Devices(vec![device(1)]));
    let effects = update(&mut app, Duration::ZERO, plugged_in.clone());
    assert!(
        matches!(&effects[..], [Effect::Identify(job)] if job.task == Task::Identify && job.enter == Enter::Never)
    );
    assert_eq!(update(&mut app, Duration::ZERO, plugged_in.clone()), [], "a drone is identified only once");
    let protection = Some(Protection::default());
    let identity =
        Identity { board: None, loader: Some(Loader::Erased), firmware: None, protection, rom: None };
    finish_identify(&mut app, Some(DeviceInfo::InDfu(identity)));
    assert_eq!(app.goal, Goal::Restore);
    assert!(notice_of(&app).contains("Press b to restore it"));
    assert!(app.devices.known().is_some());
    assert_eq!(update(&mut app, Duration::ZERO, plugged_in.clone()), [], "the drone is already identified");
    // After a reconnect, the device may be a different drone.
    update(&mut app, Duration::ZERO, Msg::Bus(BusState::Devices(vec![])));
    assert!(app.devices.known().is_none());
    assert_eq!(update(&mut app, Duration::ZERO, plugged_in).len(), 1);
}

#[test]
fn the_end_of_a_background_identify_does_not_end_a_later_job() {
    let mut app = App::new(None);
    update(&mut app, Duration::ZERO, Msg::Bus(BusState::Devices(vec![device(1)])));
    app.image = Slot::Ready("x.bin".into(), Box::new(Image::parse(vec![1, 2, 3, 4, 5]).unwrap()));
    assert!(
        matches!(&press(&mut app, Key::Char('f'))[..], [Effect::Start(job)] if job.task != Task::Identify)
    );
    update(&mut app, Duration::ZERO, ended(Outcome::Cancelled(DroneState::Untouched), true));
    assert!(app.job().is_some(), "the job continues");
    update(&mut app, Duration::ZERO, ended(Outcome::Flashed, false));
    assert!(matches!(app.screen, Screen::Outcome(..)));
}

#[test]
fn an_unrecognised_image_requires_a_typed_word() {
    let mut app = app(1);
    let image = Image::parse(vec![1, 2, 3, 4, 5]).unwrap();
    let loaded = |name: &str| Msg::Loaded(Which::Image, name.into(), Ok(Box::new(image.clone())));
    app.image = Slot::Loading("x.bin".into());
    update(&mut app, Duration::ZERO, loaded("chosen-before.bin"));
    assert!(matches!(app.image, Slot::Loading(_)), "a file chosen earlier is ignored");
    update(&mut app, Duration::ZERO, loaded("x.bin"));
    assert!(matches!(app.image, Slot::Ready(..)));
    press(&mut app, Key::Char('f'));
    if let Screen::Job(view) = &mut app.screen {
        view.stage = Stage::Asking(Confirmation::default());
    }
    assert_eq!(press(&mut app, Key::Enter), []);
    assert!(notice_of(&app).contains("type \"unknown\" first"));
    assert!(command_line(&app).starts_with("cfdfu flash x.bin --allow-mismatch"));
    for letter in "unknown".chars() {
        press(&mut app, Key::Char(letter));
    }
    assert_eq!(press(&mut app, Key::Enter), [Effect::Proceed]);
}

#[test]
fn an_unavailable_key_shows_the_reason_and_does_nothing() {
    let mut app = app(0);
    assert_eq!(press(&mut app, Key::Char('f')), []);
    assert!(notice_of(&app).contains("no Crazyflie found"));
    assert_eq!(app.screen, Screen::Home);
    // The reason disappears after a while.
    let later = app.now + Duration::from_secs(6);
    update(&mut app, later, Msg::Tick);
    assert_eq!(app.notice, None);
}

#[test]
fn starting_a_job_without_a_file_opens_the_picker() {
    let mut app = app(1);
    assert!(matches!(press(&mut app, Key::Char('f'))[..], [Effect::List(_)]));
    assert!(matches!(app.screen, Screen::Pick(Which::Image, Some(Goal::Flash), _)));
    press(&mut app, Key::Esc);
    assert_eq!(app.screen, Screen::Home);
    press(&mut app, Key::Char('b'));
    assert!(matches!(app.screen, Screen::Pick(Which::Loader, Some(Goal::Restore), _)));
}

#[test]
fn a_pasted_path_is_loaded() {
    let mut app = app(1);
    press(&mut app, Key::Char('i'));
    press(&mut app, Key::Paste("/tmp/cf2.bin\nrm -rf /".to_owned()));
    let effects = press(&mut app, Key::Enter);
    assert_eq!(effects, [Effect::Load(Which::Image, "/tmp/cf2.bin".into())]);
}

#[test]
fn a_late_listing_of_a_different_folder_is_ignored() {
    let mut app = app(1);
    press(&mut app, Key::Char('i'));
    let entry = Entry { path: "/elsewhere/x.bin".into(), kind: EntryKind::Folder, size: 0, age: None };
    update(&mut app, Duration::ZERO, Msg::Listed("/elsewhere".into(), Ok(vec![entry])));
    assert!(matches!(&app.screen, Screen::Pick(_, _, picker) if picker.entries.is_none()));
}

#[test]
fn an_image_that_cannot_be_flashed_is_refused_when_it_is_chosen() {
    let mut app = app(1);
    let radio = Image::parse([&[0, 0x40, 0, 0x20, 0xC1, 0xB2, 1, 0][..], &[9; 900]].concat()).unwrap();
    app.image = Slot::Loading("nrf.bin".into());
    update(&mut app, Duration::ZERO, Msg::Loaded(Which::Image, "nrf.bin".into(), Ok(Box::new(radio))));
    assert!(matches!(&app.image, Slot::Bad(_, problem) if problem.kind == ProblemKind::RadioImage));
    assert!(notice_of(&app).contains("radio chip"));
}

fn app_while_writing() -> App {
    let mut app = app(1);
    app.screen = Screen::Job(JobView {
        facts: JobFacts::new(Source::Chosen),
        stage: Stage::Working,
        waiting: None,
        stopping: false,
        confirm: Confirm::Ask,
        was_away: false,
    });
    app
}

#[test]
fn a_job_that_is_writing_is_stopped_only_after_confirmation() {
    for key in [Key::Char('q'), Key::CtrlC] {
        let mut app = app_while_writing();
        assert_eq!(press(&mut app, key), []);
        assert_eq!(app.overlay, Some(Overlay::AskStop));
        // Further key presses change nothing.
        assert_eq!(press(&mut app, Key::CtrlC), []);
        assert_eq!(press(&mut app, Key::Char('q')), []);
        assert_eq!(press(&mut app, Key::Char('y')), [Effect::Cancel]);
        assert_eq!(press(&mut app, Key::Char('q')), []);
        assert_eq!(press(&mut app, Key::Char('y')), [], "the job is already stopping");
    }
    let mut app = app_while_writing();
    assert_eq!(press(&mut app, Key::Esc), []);
    assert_eq!(app.overlay, None);
}

#[test]
fn the_stop_question_closes_when_the_job_ends() {
    let mut app = app_while_writing();
    press(&mut app, Key::Char('q'));
    update(&mut app, Duration::ZERO, ended(Outcome::Flashed, false));
    assert_eq!(app.overlay, None);
    assert!(matches!(app.screen, Screen::Outcome(..)));
}

#[test]
fn a_lost_terminal_lets_a_flash_finish_and_ends_everything_else() {
    let mut idle = app(1);
    assert_eq!(update(&mut idle, Duration::ZERO, Msg::Detached), [Effect::Quit]);

    let mut app = app_while_writing();
    assert_eq!(update(&mut app, Duration::ZERO, Msg::Detached), []);
    assert_eq!(update(&mut app, Duration::ZERO, ended(Outcome::Flashed, false)), [Effect::Quit]);

    let mut asking = app_while_writing();
    if let Screen::Job(view) = &mut asking.screen {
        view.stage = Stage::Asking(Confirmation::default());
    }
    assert_eq!(update(&mut asking, Duration::ZERO, Msg::Detached), [Effect::Cancel]);
    let cancelled = ended(Outcome::Cancelled(DroneState::Untouched), false);
    assert_eq!(update(&mut asking, Duration::ZERO, cancelled), [Effect::Quit]);
}

#[test]
fn the_command_line_names_the_selected_drone_if_there_are_several() {
    let mut app = app(2);
    // The newly selected drone is identified, too.
    assert!(matches!(press(&mut app, Key::Tab)[..], [Effect::Identify(_)]));
    finish_identify(&mut app, None);
    assert_eq!(app.devices.selected().map(|device| device.location.to_string()).as_deref(), Some("1-2"));
    assert!(command_line(&app).ends_with("--device 1-2 --demo=dfu"), "{}", command_line(&app));
    press(&mut app, Key::Tab);
    assert_eq!(app.devices.position(), 0);
    update(&mut app, Duration::ZERO, Msg::Bus(BusState::Devices(vec![device(1)])));
    assert!(!command_line(&app).contains("--device"));
}

/// After the user releases the button too early, Enter starts the job, and the drone enters DFU mode by itself. The
/// job must still be an undo, not a flash of the chosen file.
#[test]
fn an_undo_remains_an_undo_after_the_wizard() {
    let mut app = app(1);
    let data = images::firmware("2026.08", &CF2_BOARDS, images::FIRMWARE_MIN);
    let copy = crate::flash::Segment { address: crate::flash::FIRMWARE_BASE, data };
    let content = Content::in_flash(&copy.data).unwrap();
    let image = admission::undo(copy, Overrides { allow_mismatch: true, ..Overrides::default() }).unwrap();
    let backup = Box::new(Backup { image, content, drone: device(1).drone(), expected: Vec::new() });
    let aim = Aim::Begin(Source::Undo(backup.clone()));
    let wizard = Wizard { step: WizardStep::Early, since: Duration::ZERO, spoken: false };
    app.screen = Screen::Wizard(WizardView { wizard, aim });
    let effects = press(&mut app, Key::Enter);
    let [Effect::Start(job)] = &effects[..] else { panic!("{effects:?}") };
    let Task::Flash(task) = &job.task else { panic!("{job:?}") };
    assert_eq!((task.change, &task.image), (Change::Undo, &backup.image));
    assert!(app.backup_replacing(Which::Image).is_some());
}
