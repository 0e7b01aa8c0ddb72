//! The screens as pictures: scenes of the demo drawn by the real views, compared with the SVG files in `screenshots` and
//! `tests/pictures`, so that those cannot go stale. `UPDATE=1 cargo test screens` writes them anew.
//!
//! The scenes are lived through: keys and bus, worker and simulated chip, with a clock that runs ahead. Only the picker's
//! rows and some steps of the wizard are put together.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use cfdfu::app::keys::Key;
use cfdfu::app::picker::{Entry, EntryKind, Picker};
use cfdfu::app::update::update;
use cfdfu::app::wizard::{Leds, Step, Wizard};
use cfdfu::app::{App, BusState, Demo, Effect, Msg, Over, Person, Screen, Slot, Stage, Which};
use cfdfu::clock::Clock;
use cfdfu::doctor;
use cfdfu::job::{Command, DroneState, Event, Outcome};
use cfdfu::sim::drone::Mishap;
use cfdfu::sim::images;
use cfdfu::ui;
use cfdfu::ui::svg;
use cfdfu::ui::theme::{Glyphs, Theme};
use cfdfu::usb::{Bus, TransferError};
use cfdfu::worker::{Worker, find};
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::buffer::Buffer;

use crate::support::{SEED_LEN, World, firmware, parse};

/// The interface on a simulated drone, without a terminal.
pub struct Stand {
    pub app: App,
    pub world: World,
    worker: Worker,
    pub effects: Vec<Effect>,
    now: Duration,
}

impl Stand {
    pub fn new(scenario: &str) -> Stand {
        let world = World::new(scenario);
        let plugged = world.bus.with(0, |drone, _| drone.plugged()).unwrap_or(false);
        let demo = Demo { scenario: scenario.to_owned(), plugged, button: false };
        let worker = Worker::spawn(Arc::new(world.bus.clone()), world.clock.clone());
        let mut stand =
            Stand { app: App::new(Some(demo)), world, worker, effects: Vec::new(), now: Duration::ZERO };
        stand.look();
        stand
    }

    /// Gives the message, and does of what it causes all that the shell would.
    pub fn send(&mut self, msg: Msg) {
        // Of its own: when the worker's messages arrive is chance, and must not be seen in a picture.
        self.now += Duration::from_millis(20);
        for effect in update(&mut self.app, self.now, msg) {
            match &effect {
                Effect::Start(job) => self.worker.commands.send(Command::Run((**job).clone())).unwrap(),
                Effect::Proceed => self.worker.commands.send(Command::Proceed).unwrap(),
                Effect::Cancel => self.worker.commands.send(Command::Cancel).unwrap(),
                _ => {}
            }
            self.effects.push(effect);
        }
        // A look in passing is over at once: how far it is in a picture must not be chance.
        while self.app.is_looking() {
            let event =
                self.worker.events.recv_timeout(Duration::from_secs(30)).expect("the look never ends");
            update(&mut self.app, self.now, Msg::Job(Box::new(event)));
        }
    }

    pub fn key(&mut self, key: char) {
        self.send(Msg::Key(Key::Char(key)));
    }

    pub fn enter(&mut self) {
        self.send(Msg::Key(Key::Enter));
    }

    /// The bus as it is now.
    pub fn look(&mut self) {
        // Without taking time on the wire from the worker.
        let bus = self.world.bus.on_clock(Arc::new(Frozen(self.world.clock.now())));
        self.send(Msg::Bus(bus_state(&bus)));
    }

    pub fn choose(&mut self, which: Which, name: &str, bytes: &[u8]) {
        let path = Path::new("/images").join(name);
        match which {
            Which::Image => self.app.image = Slot::Loading(path.clone()),
            Which::Loader => self.app.loader = Slot::Loading(path.clone()),
        }
        self.send(Msg::Loaded(which, path, Ok(Box::new(parse(bytes)))));
    }

    /// Takes the worker's events until one is what is waited for. The worker is further on already: what is
    /// plugged in by then is not looked at.
    pub fn take(&mut self, wanted: impl Fn(&Event) -> bool) {
        loop {
            let event =
                self.worker.events.recv_timeout(Duration::from_secs(30)).expect("the event never came");
            let found = wanted(&event);
            self.send(Msg::Job(Box::new(event)));
            if found {
                return;
            }
        }
    }

    /// The same, for an event after which the worker waits.
    pub fn until(&mut self, wanted: impl Fn(&Event) -> bool) {
        self.take(wanted);
        self.look();
    }

    pub fn wait(&mut self, time: Duration) {
        self.world.clock.sleep(time);
        self.now += time;
        self.send(Msg::Tick);
        self.look();
    }
}

/// What is plugged in, as the shell tells it.
fn bus_state(bus: &dyn Bus) -> BusState {
    let devices = find::devices(bus).unwrap();
    let others = find::others(bus).unwrap();
    if devices.is_empty() && !others.is_empty() {
        BusState::Others(others)
    } else {
        BusState::Devices(devices)
    }
}

/// A clock that stands still.
struct Frozen(Duration);

impl Clock for Frozen {
    fn now(&self) -> Duration {
        self.0
    }

    fn sleep(&self, _: Duration) {}
}

fn theme() -> Theme {
    Theme::new(Glyphs::Unicode, true)
}

pub fn draw(app: &App, theme: &Theme, width: u16, height: u16) -> Buffer {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| ui::draw(frame, app, theme)).unwrap();
    terminal.backend().buffer().clone()
}

pub fn text(buffer: &Buffer) -> String {
    let row = |y: u16| (0..buffer.area.width).map(|x| buffer[(x, y)].symbol()).collect::<String>();
    (0..buffer.area.height).map(|y| row(y).trim_end().to_owned() + "\n").collect()
}

/// The scenes, each at the moment that its picture shows.
fn scenes() -> Vec<(&'static str, App)> {
    let mut scenes = Vec::new();
    let mut stand = Stand::new("healthy");
    stand.choose(Which::Image, "cf2-2026.08.bin", &firmware("2026.08", SEED_LEN));
    scenes.push(("start", stand.app.clone()));
    stand.key('f');
    stand.until(|event| matches!(event, Event::Ready(_)));
    scenes.push(("plan", stand.app.clone()));
    stand.enter();
    let half = |event: &Event| {
        matches!(event, Event::Progress { phase: cfdfu::job::Phase::Write, done: 150_000.., .. })
    };
    stand.take(half);
    scenes.push(("flashing", stand.app.clone()));
    stand.until(|event| matches!(event, Event::Finished(_)));
    scenes.push(("done", stand.app.clone()));

    let mut stand = Stand::new("dead");
    stand.choose(Which::Image, "cf2-2026.08.bin", &firmware("2026.08", SEED_LEN));
    stand.key('r');
    stand.enter();
    stand.wait(Duration::from_millis(3100));
    stand.wait(Duration::from_millis(2500));
    scenes.push(("wizard", stand.app.clone()));

    let mut stand = Stand::new("write-protected");
    stand.choose(Which::Image, "cf2-2026.08.bin", &firmware("2026.08", SEED_LEN));
    stand.key('f');
    stand.until(|event| matches!(event, Event::Finished(_)));
    scenes.push(("refused", stand.app.clone()));

    let mut stand = Stand::new("overwritten");
    stand.choose(Which::Loader, "cf2loader-1.0.bin", &images::loader());
    stand.choose(Which::Image, "cf2-2026.08.bin", &firmware("2026.08", SEED_LEN));
    stand.key('b');
    stand.until(|event| matches!(event, Event::Ready(_)));
    "rest".chars().for_each(|c| stand.key(c));
    scenes.push(("restore", stand.app.clone()));
    scenes
}

/// What is known of boards, bootloaders and files, where it is not as it should be.
fn board_scenes() -> Vec<(&'static str, App)> {
    let mut scenes = Vec::new();
    let mut stand = Stand::new("overwritten");
    scenes.push(("lost", stand.app.clone()));
    stand.choose(Which::Image, "cf2-2026.08.bin", &firmware("2026.08", SEED_LEN));
    stand.key('f');
    stand.until(|event| matches!(event, Event::Ready(_)));
    scenes.push(("lost-plan", stand.app.clone()));
    stand.send(Msg::Key(Key::Esc));
    stand.until(|event| matches!(event, Event::Finished(_)));
    stand.choose(Which::Loader, "cf2loader-1.0.bin", &images::loader());
    stand.key('b');
    stand.until(|event| matches!(event, Event::Ready(_)));
    "restore".chars().for_each(|c| stand.key(c));
    stand.enter();
    stand.until(|event| matches!(event, Event::Finished(_)));
    scenes.push(("restored", stand.app.clone()));

    let mut stand = Stand::new("dfu");
    stand.choose(Which::Image, "something.bin", &firmware("2026.08", SEED_LEN)[20_000..]);
    scenes.push(("dfu", stand.app.clone()));
    stand.key('f');
    stand.until(|event| matches!(event, Event::Ready(_)));
    scenes.push(("strange-plan", stand.app.clone()));

    scenes.push(("relatives", Stand::new("relatives").app.clone()));
    scenes.push(("px4", Stand::new("px4").app.clone()));
    scenes.push(("read-protected", Stand::new("read-protected").app.clone()));
    scenes
}

/// What goes wrong, and what takes long.
fn trouble_scenes() -> Vec<(&'static str, App)> {
    let mut scenes = Vec::new();
    let mut stand = Stand::new("dfu");
    stand.choose(Which::Image, "cf2-2026.08.bin", &firmware("2026.08", SEED_LEN));
    stand.world.bus.with(0, |drone, _| drone.traits.mishap = Some((120, Mishap::Unplugged)));
    stand.key('f');
    stand.until(|event| matches!(event, Event::Ready(_)));
    stand.enter();
    stand.until(|event| matches!(event, Event::Finished(_)));
    stand.look();
    scenes.push(("unplugged", stand.app.clone()));
    stand.send(Msg::Key(Key::Esc));
    scenes.push(("given-up", stand.app.clone()));

    let mut stand = Stand::new("healthy");
    stand.choose(Which::Image, "cf2-2026.08.bin", &firmware("2026.08", SEED_LEN));
    stand.key('f');
    stand.until(|event| matches!(event, Event::Ready(_)));
    stand.enter();
    stand.take(|event| matches!(event, Event::Waiting { what: "the Crazyflie to start", .. }));
    stand.send(Msg::Bus(BusState::Devices(Vec::new())));
    scenes.push(("restarting", stand.app.clone()));

    // A drone without a rule for it, seen over SSH.
    let mut stand = Stand::new("none");
    let mut device = find::devices(&World::new("dfu").bus).unwrap().remove(0);
    device.closed = Some(TransferError::Access);
    let drone = doctor::Drone {
        id: device.id,
        place: device.location.to_string(),
        closed: Some((true, TransferError::Access.to_string())),
        holders: Vec::new(),
    };
    stand.send(Msg::Bus(BusState::Devices(vec![device])));
    scenes.push(("closed", stand.app.clone()));
    let symptoms = doctor::Symptoms {
        program: "cfdfu".to_owned(),
        devices: 4,
        drones: vec![drone],
        rules: Some(Default::default()),
        udev: true,
        ssh: true,
        ..doctor::Symptoms::default()
    };
    stand.send(Msg::Doctor(doctor::diagnose(&symptoms)));
    scenes.push(("doctor", stand.app.clone()));
    scenes
}

#[test]
fn what_is_wrong_with_a_board_looks_as_it_did_when_somebody_looked() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/pictures");
    for (kind, scenes) in [("board", board_scenes()), ("trouble", trouble_scenes())] {
        for (name, app) in scenes {
            for (width, height) in [(80, 24), (60, 16)] {
                let path = folder.join(format!("{kind}-{name}-{width}x{height}.svg"));
                check_picture(&path, &app, &theme(), (width, height));
            }
        }
    }
}

/// Compares a picture with the file that was kept of it, or writes the file anew.
fn check_picture(path: &Path, app: &App, theme: &Theme, size: (u16, u16)) {
    let picture = svg::picture(&draw(app, theme, size.0, size.1));
    if std::env::var_os("UPDATE").is_some() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, &picture).unwrap();
    }
    let kept = fs::read_to_string(path).unwrap_or_default();
    assert!(kept == picture, "{} is not what is drawn now: UPDATE=1 cargo test screens", path.display());
}

#[test]
fn the_pictures_in_the_readme_are_what_the_views_draw() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("screenshots");
    for (name, app) in scenes() {
        check_picture(&folder.join(format!("{name}.svg")), &app, &theme(), (80, 24));
    }
}

/// Other sizes and poorer terminals, of the scenes with the most in them; and what lies on top.
#[test]
fn other_sizes_and_tiers_look_as_they_did_when_somebody_looked() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/pictures");
    let scenes = scenes();
    let main = scenes.iter().filter(|(name, _)| ["start", "plan", "flashing", "wizard"].contains(name));
    for (name, app) in main {
        for (width, height) in [(120, 40), (60, 16), (59, 16)] {
            check_picture(
                &folder.join(format!("{name}-{width}x{height}.svg")),
                app,
                &theme(),
                (width, height),
            );
        }
        for (tier, glyphs, colour) in [("cp437", Glyphs::Cp437, true), ("ascii-mono", Glyphs::Ascii, false)] {
            check_picture(
                &folder.join(format!("{name}-{tier}.svg")),
                app,
                &Theme::new(glyphs, colour),
                (80, 24),
            );
        }
    }
    let mut wizard = Wizard { step: Step::AskLeds, since: Duration::ZERO };
    let row = |name: &str, kind: EntryKind| Entry { path: Path::new("/images").join(name), kind };
    let entries = vec![
        row("cf2-2026.08.bin", EntryKind::File("firmware 2026.08 for CF20, CF21".to_owned(), true)),
        row("cf2_nrf-2026.08.bin", EntryKind::File("for the radio chip".to_owned(), false)),
        row("old", EntryKind::Folder),
    ];
    let start = &scenes[0].1;
    let picker = Picker { entries: Some(entries), ..Picker::new("/images".into()) };
    let mut screens = vec![("picker", Screen::Pick(Which::Image, None, picker))];
    for (name, step) in
        [("leds", Step::AskLeds), ("answer", Step::Answer(Leds::OneFast)), ("early", Step::Early)]
    {
        wizard.step = step;
        screens.push((name, Screen::Wizard(wizard.clone())));
    }
    for (name, screen) in screens {
        let app = App { screen, ..start.clone() };
        check_picture(&folder.join(format!("{name}.svg")), &app, &theme(), (80, 24));
    }
    let flashing = &scenes.iter().find(|(name, _)| *name == "flashing").unwrap().1;
    let meaning =
        format!("{}\n\n{}", "dfuERROR, status(10)", cfdfu::app::log::explain("dfuERROR, status(10)"));
    let overs = [
        ("help", Over::Help),
        ("stop", Over::AskStop),
        ("log", Over::Log),
        ("explain", Over::Explain(meaning)),
    ];
    for (name, over) in overs {
        let app = App { over: Some(over), ..flashing.clone() };
        check_picture(&folder.join(format!("over-{name}.svg")), &app, &theme(), (80, 24));
    }
}

#[test]
fn every_scene_can_be_drawn_at_any_size_in_every_tier() {
    for (name, app) in scenes() {
        for glyphs in [Glyphs::Unicode, Glyphs::Cp437, Glyphs::Ascii] {
            for colour in [true, false] {
                let theme = Theme::new(glyphs, colour);
                for (width, height) in
                    [(80, 24), (120, 40), (60, 16), (59, 16), (200, 60), (1, 1), (3, 10), (80, 5)]
                {
                    let shown = text(&draw(&app, &theme, width, height));
                    let too_small = width < 60 || height < 16;
                    if too_small && width > 20 {
                        assert!(shown.contains("needs 60"), "{name} at {width}×{height}:\n{shown}");
                    }
                    if !too_small {
                        assert!(shown.contains("SIMULATED"), "{name} at {width}×{height}:\n{shown}");
                    }
                    if glyphs == Glyphs::Ascii {
                        assert!(shown.is_ascii(), "{name} at {width}×{height}:\n{shown}");
                    }
                }
            }
        }
    }
}

/// What is about to be overwritten is named on the page that asks.
#[test]
fn the_page_before_writing_names_file_boards_and_what_goes() {
    for (name, app) in scenes().into_iter().filter(|(name, _)| ["plan", "restore"].contains(name)) {
        for (width, height) in [(80, 24), (120, 40), (60, 16)] {
            let shown = text(&draw(&app, &theme(), width, height));
            let there = if name == "plan" { "firmware 2025.02" } else { "not recognised" };
            let (question, typed) = match name {
                "plan" => ("Nothing is changed yet", "Enter"),
                _ => ("Type restore, then Enter:", "rest_"),
            };
            for words in [there, "firmware 2026.08", "cfdfu ", "erase 1", question, typed] {
                assert!(shown.contains(words), "{name} at {width}×{height} does not say {words:?}:\n{shown}");
            }
        }
    }
}

#[test]
fn nothing_is_written_before_the_plan_is_confirmed() {
    let mut stand = Stand::new("dfu");
    let before = stand.world.flash();
    stand.choose(Which::Image, "cf2.bin", &firmware("2026.08", SEED_LEN));
    stand.key('f');
    stand.until(|event| matches!(event, Event::Ready(_)));
    assert!(matches!(&stand.app.screen, Screen::Job(view) if view.stage == Stage::Asking(String::new())));
    assert_eq!(stand.world.flash(), before);
    stand.send(Msg::Key(Key::Esc));
    stand.until(|event| matches!(event, Event::Finished(_)));
    assert_eq!(stand.app.screen, Screen::Home);
    assert_eq!(stand.world.flash(), before);
}

#[test]
fn a_restore_asks_for_a_word_and_then_brings_back_both() {
    let mut stand = Stand::new("overwritten");
    let image = firmware("2026.08", SEED_LEN);
    stand.choose(Which::Loader, "loader.bin", &images::loader());
    stand.choose(Which::Image, "cf2.bin", &image);
    stand.key('b');
    stand.until(|event| matches!(event, Event::Ready(_)));
    stand.enter();
    assert!(stand.app.notice.as_ref().is_some_and(|(text, _)| text.contains("type the word")));
    "restore".chars().for_each(|c| stand.key(c));
    stand.enter();
    stand.until(|event| matches!(event, Event::Finished(_)));
    assert!(matches!(&stand.app.screen, Screen::Outcome(report) if report.verified));
    assert_eq!(stand.world.flash()[0x4000..0x4000 + SEED_LEN], image);
}

/// The whole way by hand, with an early release first.
#[test]
fn the_wizard_is_lived_through_with_the_hands_of_a_beginner() {
    let mut stand = Stand::new("dead");
    let hands = |stand: &mut Stand, what: char| {
        stand.world.bus.with(0, |drone, now| match what {
            'P' => drone.plug_or_unplug(now),
            _ => drone.press_or_release(now),
        });
        stand.look();
    };
    stand.choose(Which::Image, "cf2.bin", &firmware("2026.08", SEED_LEN));
    stand.key('r');
    stand.enter();
    stand.wait(Duration::from_secs(1));
    hands(&mut stand, 'B');
    stand.wait(Duration::from_secs(2));
    hands(&mut stand, 'P');
    // Too early: the radio bootloader, of which USB shows nothing.
    stand.wait(Duration::from_secs(3));
    hands(&mut stand, 'B');
    for _ in 0..16 {
        stand.wait(Duration::from_secs(1));
    }
    let shown = text(&draw(&stand.app, &theme(), 80, 24));
    assert!(shown.contains("What do the LEDs do?"), "{shown}");
    stand.key('1');
    let shown = text(&draw(&stand.app, &theme(), 80, 24));
    assert!(shown.contains("held too short"), "{shown}");
    stand.enter();
    hands(&mut stand, 'P');
    stand.enter();
    hands(&mut stand, 'B');
    stand.wait(Duration::from_secs(3));
    hands(&mut stand, 'P');
    let beeps = |stand: &Stand| stand.effects.iter().filter(|e| matches!(e, Effect::Bell(_))).count();
    let before = beeps(&stand);
    stand.wait(Duration::from_secs(6));
    assert_eq!(beeps(&stand), before + 1, "told to let go");
    hands(&mut stand, 'B');
    stand.wait(Duration::from_secs(1));
    // Without another key: the plan is on its way.
    stand.until(|event| matches!(event, Event::Ready(_)));
    stand.enter();
    stand.until(|event| matches!(event, Event::Finished(_)));
    let shown = text(&draw(&stand.app, &theme(), 80, 24));
    assert!(shown.contains("Flashed and verified"), "{shown}");
}

#[test]
fn two_flashes_in_a_row_and_the_second_finds_nothing_to_do() {
    let mut stand = Stand::new("healthy");
    stand.choose(Which::Image, "cf2.bin", &firmware("2026.08", SEED_LEN));
    for words in ["Flashed and verified", "Unchanged"] {
        stand.key('f');
        if words == "Flashed and verified" {
            stand.until(|event| matches!(event, Event::Ready(_)));
            stand.enter();
        }
        stand.until(|event| matches!(event, Event::Finished(_)));
        let shown = text(&draw(&stand.app, &theme(), 80, 24));
        assert!(shown.contains(words), "{shown}");
        stand.enter();
        assert_eq!(stand.app.screen, Screen::Home);
    }
}

#[test]
fn a_cable_pulled_while_writing_is_told_and_the_job_goes_on_by_itself_when_it_is_back() {
    let mut stand = Stand::new("dfu");
    let before = stand.world.flash();
    let image = firmware("2026.08", SEED_LEN);
    stand.choose(Which::Image, "cf2.bin", &image);
    stand.key('f');
    stand.until(|event| matches!(event, Event::Ready(_)));
    // At a transfer in the middle of writing: when the worker gets there is not left to chance.
    stand.world.bus.with(0, |drone, _| drone.traits.mishap = Some((120, Mishap::Unplugged)));
    stand.enter();
    stand.until(|event| matches!(event, Event::Finished(_)));
    let shown = text(&draw(&stand.app, &theme(), 80, 24));
    assert!(shown.contains("lost in mid-flash") && shown.contains("Unplug USB"), "{shown}");

    // Another drone is not taken for it.
    let mut other = find::devices(&World::new("two").bus).unwrap().remove(1);
    other.location.ports = vec![7];
    stand.send(Msg::Bus(BusState::Devices(vec![other])));
    assert!(stand.app.job().is_none() && stand.app.notice.as_ref().unwrap().0.contains("another drone"));

    stand.world.bus.with(0, |drone, now| drone.power_on_by_hand(now));
    stand.look();
    stand.until(|event| matches!(event, Event::Finished(_)));
    assert!(matches!(stand.app.screen, Screen::Outcome(_)), "no key was needed");
    assert_eq!(stand.world.flash()[0x4000..0x4000 + SEED_LEN], image);

    // What was there before the first try is what can be put back, not what the interruption left.
    stand.world.bus.with(0, |drone, now| drone.power_on_by_hand(now));
    stand.look();
    stand.key('u');
    stand.until(|event| matches!(event, Event::Ready(_)));
    stand.enter();
    stand.until(|event| matches!(event, Event::Finished(_)));
    assert!(stand.world.flash() == before);
}

/// With several drones plugged in, a job and its undo stay with the one that was chosen, though it leaves the
/// bus and comes back.
#[test]
fn an_undo_goes_to_the_drone_that_it_is_of() {
    let mut stand = Stand::new("two");
    let flash = |stand: &Stand, n: usize| {
        stand.world.bus.with(n, |drone, _| drone.memory.flash.bytes().to_vec()).unwrap()
    };
    let before = [flash(&stand, 0), flash(&stand, 1)];
    stand.choose(Which::Image, "cf2.bin", &firmware("2026.08", SEED_LEN));
    stand.send(Msg::Key(Key::Tab));
    for key in ['f', 'u'] {
        stand.key(key);
        stand.until(|event| matches!(event, Event::Ready(_)));
        stand.enter();
        stand.until(|event| matches!(event, Event::Finished(_)));
        assert!(flash(&stand, 0) == before[0], "{key}: the other drone was touched");
        assert_eq!(flash(&stand, 1) == before[1], key == 'u');
        // While it restarts it is away; then it is back.
        stand.look();
        stand.world.bus.with(1, |drone, now| drone.power_on_by_hand(now));
        stand.look();
        assert_eq!(stand.app.chosen, 1);
    }
    // Again it is put back what is there already; home, the file is chosen again.
    stand.key('r');
    stand.until(|event| matches!(event, Event::Finished(_)));
    assert_eq!(flash(&stand, 1), before[1]);
    stand.enter();
    assert!(matches!(stand.app.image, Slot::Ready(..)), "the file is chosen again");
}

/// An undo that cannot begin leaves everything as it is; one of an undo puts back what the first took.
#[test]
fn an_undo_is_undone_and_one_that_cannot_begin_changes_nothing() {
    let mut stand = Stand::new("dfu");
    stand.choose(Which::Image, "cf2.bin", &firmware("2026.08", SEED_LEN));
    let before = stand.world.flash();
    stand.key('f');
    stand.until(|event| matches!(event, Event::Ready(_)));
    stand.enter();
    stand.until(|event| matches!(event, Event::Finished(_)));
    let flashed = stand.world.flash();
    stand.world.bus.with(0, |drone, now| drone.cut_power(now));
    stand.look();
    stand.key('u');
    assert!(matches!((&stand.app.screen, &stand.app.image), (Screen::Outcome(_), Slot::Ready(..))));
    for expected in [&before, &flashed, &before] {
        stand.world.bus.with(0, |drone, now| drone.power_on_by_hand(now));
        stand.look();
        stand.key('u');
        stand.until(|event| matches!(event, Event::Ready(_)));
        stand.enter();
        stand.until(|event| matches!(event, Event::Finished(_)));
        assert!(stand.world.flash() == *expected);
    }
    stand.enter();
    assert!(matches!(&stand.app.image, Slot::Ready(path, _) if path.ends_with("cf2.bin")));
}

/// The drone's own restart into DFU mode is no coming back: a cable that is pulled later is waited for.
#[test]
fn a_running_drone_that_is_pulled_in_mid_flash_is_waited_for() {
    let mut stand = Stand::new("healthy");
    stand.choose(Which::Image, "cf2.bin", &firmware("2026.08", SEED_LEN));
    stand.key('f');
    // The bus is seen while the drone restarts, and when it is there in DFU mode.
    stand.send(Msg::Bus(BusState::Devices(Vec::new())));
    stand.until(|event| matches!(event, Event::Ready(_)));
    stand.look();
    stand.world.bus.with(0, |drone, _| drone.traits.mishap = Some((120, Mishap::Unplugged)));
    stand.enter();
    stand.until(|event| matches!(event, Event::Finished(_)));
    // The bus was not looked at since: the drone that is on the list is the one that is gone.
    assert!(
        matches!(stand.app.screen, Screen::Wizard(_)) && stand.app.resume.is_some(),
        "{:?}",
        stand.app.screen
    );
    stand.look();
    // Stopped while it is gone on with, it is still half flashed.
    stand.world.bus.with(0, |drone, now| drone.power_on_by_hand(now));
    stand.look();
    assert!(stand.app.job().is_some());
    stand.key('q');
    stand.key('y');
    stand.until(|event| matches!(event, Event::Finished(_)));
    let Screen::Outcome(report) = &stand.app.screen else { panic!("{:?}", stand.app.screen) };
    assert!(
        matches!(report.outcome, Outcome::Cancelled(DroneState::WithoutFirmware) | Outcome::Flashed),
        "{report:?}"
    );
}

/// A backup brings its own firmware, and its boards are checked as a firmware's are.
#[test]
fn a_backup_is_restored_as_it_is_and_only_to_its_kind_of_board() {
    let whole = |firmware: &[u8]| {
        let mut whole = images::loader();
        whole.resize(0x4000, 0xFF);
        whole.extend(firmware);
        whole.resize(1024 * 1024, 0xFF);
        whole
    };
    let restore = |firmware_in_it: &[u8]| {
        let mut stand = Stand::new("overwritten");
        stand.choose(Which::Image, "cf2.bin", &firmware("2026.08", SEED_LEN));
        stand.choose(Which::Loader, "backup.bin", &whole(firmware_in_it));
        stand.key('b');
        stand.until(|event| matches!(event, Event::Ready(_) | Event::Finished(_)));
        stand
    };
    let mut stand = restore(&firmware("2024.10", SEED_LEN));
    let shown = text(&draw(&stand.app, &theme(), 80, 24));
    assert!(!shown.contains("2026.08"), "{shown}");
    "restore".chars().for_each(|c| stand.key(c));
    stand.enter();
    stand.until(|event| matches!(event, Event::Finished(_)));
    assert_eq!(stand.world.flash()[0x4000..0x4000 + SEED_LEN], firmware("2024.10", SEED_LEN));
    let bolt = images::firmware("2024.10", &[("CB10", "Crazyflie Bolt")], SEED_LEN);
    let shown = text(&draw(&restore(&bolt).app, &theme(), 80, 24));
    assert!(shown.contains("this drone's board is CF21"), "{shown}");
}

#[test]
fn one_key_puts_back_what_was_there_before() {
    let mut stand = Stand::new("dfu");
    let before = stand.world.flash();
    stand.choose(Which::Image, "cf2.bin", &firmware("2026.08", SEED_LEN));
    for key in ['f', 'u'] {
        stand.key(key);
        stand.until(|event| matches!(event, Event::Ready(_)));
        stand.enter();
        stand.until(|event| matches!(event, Event::Finished(_)));
        // The drone runs now; by hand into DFU mode again.
        stand.world.bus.with(0, |drone, now| drone.power_on_by_hand(now));
        stand.look();
    }
    assert_eq!(stand.world.flash(), before);
}

/// A whole recovery as pictures with the time that each is shown, in hundredths of a second.
fn film() -> Vec<(u32, App)> {
    let mut frames = Vec::new();
    let mut stand = Stand::new("dead");
    let hands = |stand: &mut Stand, what: Person| {
        stand.world.bus.with(0, |drone, now| match what {
            Person::Cable => drone.plug_or_unplug(now),
            Person::Button => drone.press_or_release(now),
        });
        let (plugged, button) =
            stand.world.bus.with(0, |drone, _| (drone.plugged(), drone.button())).unwrap();
        stand.send(Msg::Demo(Demo { scenario: "dead".to_owned(), plugged, button }));
        stand.look();
    };
    stand.choose(Which::Image, "cf2-2026.08.bin", &firmware("2026.08", SEED_LEN));
    frames.push((150, stand.app.clone()));
    stand.key('r');
    frames.push((200, stand.app.clone()));
    stand.enter();
    frames.push((100, stand.app.clone()));
    hands(&mut stand, Person::Button);
    for _ in 0..2 {
        stand.wait(Duration::from_secs(1));
        frames.push((100, stand.app.clone()));
    }
    stand.wait(Duration::from_millis(950));
    hands(&mut stand, Person::Cable);
    for _ in 0..12 {
        stand.wait(Duration::from_millis(480));
        frames.push((48, stand.app.clone()));
    }
    stand.wait(Duration::from_millis(300));
    frames.push((70, stand.app.clone()));
    hands(&mut stand, Person::Button);
    stand.wait(Duration::from_secs(1));
    stand.until(|event| matches!(event, Event::Ready(_)));
    frames.push((250, stand.app.clone()));
    stand.enter();
    let tenth = |event: &Event| matches!(event, Event::Sector { .. } | Event::Progress { .. });
    let mut last = String::new();
    while matches!(stand.app.screen, Screen::Job(_)) {
        stand.take(|event| tenth(event) || matches!(event, Event::Finished(_)));
        let shown = text(&draw(&stand.app, &theme(), 80, 24));
        // A picture whenever the bar has gone on by a twelfth.
        let bar: String = shown
            .lines()
            .filter(|line| line.contains(" %"))
            .map(|line| line.matches('█').count() / 4)
            .map(|n| n.to_string())
            .collect();
        if bar != last {
            last = bar;
            frames.push((25, stand.app.clone()));
        }
    }
    stand.look();
    frames.push((400, stand.app.clone()));
    frames
}

/// `FRAMES=folder` keeps the pictures, of which `screenshots/make` makes the film in the README.
#[test]
fn a_whole_recovery_makes_a_film() {
    let frames = film();
    assert!(frames.len() > 25, "{} frames", frames.len());
    let last = text(&draw(&frames.last().unwrap().1, &theme(), 80, 24));
    assert!(last.contains("Flashed and verified"), "{last}");
    if let Some(folder) = std::env::var_os("FRAMES") {
        fs::create_dir_all(&folder).unwrap();
        for (n, (time, app)) in frames.iter().enumerate() {
            let name = format!("{n:03}-{time}.svg");
            fs::write(Path::new(&folder).join(name), svg::picture(&draw(app, &theme(), 80, 24))).unwrap();
        }
    }
}
