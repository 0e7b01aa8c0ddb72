//! Draws scenes of the demo with the real views. Compares the screens with the text snapshots in `tests/screens`
//! (`cargo insta review` shows the differences), and the pictures for the documentation with the files in `screenshots`
//! (`UPDATE=1 cargo test pictures` updates them).
//!
//! Most scenes are the result of real key presses and jobs. A few contain made-up data, for example the rows of the
//! picker, the answers from GitHub and some steps of the wizard.

use std::fs;
use std::path::Path;
use std::time::Duration;

use cfdfu::app::keys::Key;
use cfdfu::app::log::explain;
use cfdfu::app::picker::{Entry, EntryKind, Picker, Usable};
use cfdfu::app::releases::{FetchedFile, ReleaseList, ReleasesMsg};
use cfdfu::app::wizard::{Leds, Wizard, WizardStep};
use cfdfu::app::{Aim, App, BusState, Msg, Overlay, Screen, Source, Which, WizardView};
use cfdfu::dfu::Status;
use cfdfu::doctor;
use cfdfu::image::Sha256;
use cfdfu::job::{Event, LogEntry, WaitFor};
use cfdfu::releases::{ReleaseError, Trust};
use cfdfu::report::release_error;
use cfdfu::scan;
use cfdfu::sim::drone::SimFault;
use cfdfu::sim::images;
use cfdfu::ui::theme::{Colours, Glyphs, Theme};
use cfdfu::usb::TransferError;

use ratatui::buffer::{Buffer, Cell};
use ratatui::style::{Color, Modifier};

use serde_json::json;
use zip::CompressionMethod;

use crate::files::release;
use crate::interface::{Interface, draw, text, theme};
use crate::support::{SEED_LEN, World, firmware, parse};
use crate::svg;

/// Returns the main scenes, whose pictures are in `screenshots`.
fn scenes() -> Vec<(&'static str, App)> {
    let mut scenes = Vec::new();
    let mut ui = Interface::new("healthy");
    ui.choose(Which::Image, "cf2-2026.08.bin", &firmware("2026.08", SEED_LEN));
    scenes.push(("start", ui.app.clone()));
    ui.press('f');
    ui.handle_until_and_scan(|event| matches!(event, Event::Ready(_)));
    scenes.push(("plan", ui.app.clone()));
    ui.press('w');
    let is_half_written = |event: &Event| {
        matches!(event, Event::Progress { phase: cfdfu::job::Phase::Write, done: 150_000.., .. })
    };
    ui.handle_until(is_half_written);
    scenes.push(("flashing", ui.app.clone()));
    ui.handle_until_and_scan(|event| matches!(event, Event::Finished(_)));
    scenes.push(("done", ui.app.clone()));

    let mut ui = Interface::new("dead");
    ui.choose(Which::Image, "cf2-2026.08.bin", &firmware("2026.08", SEED_LEN));
    ui.press('r');
    ui.press_enter();
    ui.wait(Duration::from_millis(3100));
    ui.wait(Duration::from_millis(2500));
    scenes.push(("wizard", ui.app.clone()));

    let mut ui = Interface::new("write-protected");
    ui.choose(Which::Image, "cf2-2026.08.bin", &firmware("2026.08", SEED_LEN));
    ui.press('f');
    ui.handle_until_and_scan(|event| matches!(event, Event::Finished(_)));
    scenes.push(("refused", ui.app.clone()));

    let mut ui = Interface::new("overwritten");
    ui.choose(Which::Loader, "cf2loader-1.0.bin", &images::loader());
    ui.choose(Which::Image, "cf2-2026.08.bin", &firmware("2026.08", SEED_LEN));
    ui.press('b');
    ui.handle_until_and_scan(|event| matches!(event, Event::Ready(_)));
    "rest".chars().for_each(|c| ui.press(c));
    scenes.push(("restore", ui.app.clone()));
    scenes
}

/// Returns scenes with unusual boards, bootloaders and files.
fn board_scenes() -> Vec<(&'static str, App)> {
    let mut scenes = Vec::new();
    let mut ui = Interface::new("overwritten");
    scenes.push(("lost", ui.app.clone()));
    ui.choose(Which::Image, "cf2-2026.08.bin", &firmware("2026.08", SEED_LEN));
    ui.press('f');
    ui.handle_until_and_scan(|event| matches!(event, Event::Ready(_)));
    scenes.push(("lost-plan", ui.app.clone()));
    ui.send(Msg::Key(Key::Esc));
    ui.handle_until_and_scan(|event| matches!(event, Event::Finished(_)));
    ui.choose(Which::Loader, "cf2loader-1.0.bin", &images::loader());
    ui.press('b');
    ui.handle_until_and_scan(|event| matches!(event, Event::Ready(_)));
    ui.confirm_restore();
    scenes.push(("restored", ui.app.clone()));

    let mut ui = Interface::new("dfu");
    ui.choose(Which::Image, "something.bin", &firmware("2026.08", SEED_LEN)[20_000..]);
    scenes.push(("dfu", ui.app.clone()));
    ui.press('f');
    ui.handle_until_and_scan(|event| matches!(event, Event::Ready(_)));
    scenes.push(("strange-plan", ui.app.clone()));

    let mut ui = Interface::new("dfu");
    let boards = [("CF21", "Flapper (CF 2.1)"), ("CB10", "Flapper (Bolt 1.0)")];
    ui.choose(Which::Image, "flapper-2026.08.bin", &images::firmware("2026.08", &boards, SEED_LEN));
    ui.press('f');
    ui.handle_until_and_scan(|event| matches!(event, Event::Ready(_)));
    scenes.push(("flapper-plan", ui.app.clone()));

    let mut ui = Interface::new("dead");
    ui.world.bus.with(0, |drone, now| drone.power_on_by_hand(now));
    ui.scan_bus();
    ui.choose(Which::Image, "cut.bin", &firmware("2026.08", SEED_LEN)[..200_000]);
    scenes.push(("half", ui.app.clone()));

    scenes.push(("relatives", Interface::new("relatives").app.clone()));
    scenes.push(("px4", Interface::new("px4").app.clone()));
    scenes.push(("clone", Interface::new("clone").app.clone()));
    scenes.push(("read-protected", Interface::new("read-protected").app.clone()));
    scenes
}

/// Returns a list of releases, parsed from JSON in GitHub's format.
pub fn releases() -> ReleaseList {
    let asset = |tag: &str, platform: &str| {
        let name = format!("firmware-{platform}-{tag}.zip");
        json!({"name": name, "size": 1_943_412, "digest": null})
    };
    let release = |tag: &str, published: &str| {
        let assets: Vec<_> =
            ["cf2", "cf21bl", "bolt", "tag", "flapper"].map(|platform| asset(tag, platform)).into();
        json!({"tag_name": tag, "published_at": published, "prerelease": tag.ends_with("rc1"), "assets": assets})
    };
    let list = json!([
        release("2026.09-rc1", "2026-09-20T10:00:00Z"),
        release("2026.08", "2026-08-24T10:00:00Z"),
        release("2026.04", "2026-04-16T10:00:00Z"),
        release("2025.12.1", "2026-01-14T10:00:00Z"),
        release("2025.02", "2025-02-20T10:00:00Z"),
    ]);
    let kept = [("2026.08".to_owned(), "firmware-cf2-2026.08.zip".to_owned())].into();
    ReleaseList {
        releases: cfdfu::releases::parse(list.to_string().as_bytes()).unwrap(),
        kept,
        age: Duration::from_secs(720),
        stale_because: None,
    }
}

/// Returns scenes of the page of official releases: before the first request, with the list, during a download, and
/// after errors.
fn release_scenes() -> Vec<(&'static str, App)> {
    let mut scenes = Vec::new();
    let page = |scenario: &str, list: Option<ReleaseList>| {
        let mut ui = Interface::new(scenario);
        ui.kept_list = list;
        ui.press('i');
        ui.send(Msg::Key(Key::Tab));
        ui
    };
    // Noon (UTC) on 1 December 2026.
    let problem = |error: &ReleaseError| release_error(error, 1_796_126_400);
    let host = || "api.github.com".to_owned();
    let mut ui = page("healthy", None);
    scenes.push(("releases-first", ui.app.clone()));
    ui.press_enter();
    let limit = ReleaseError::RateLimited { host: host(), until: Some(1_796_126_400 + 1500) };
    ui.answer(ReleasesMsg::Listed(Err(problem(&limit))));
    scenes.push(("releases-limit", ui.app.clone()));

    let mut ui = page("healthy", Some(releases()));
    scenes.push(("releases", ui.app.clone()));
    ui.press('j');
    ui.press_enter();
    ui.answer(ReleasesMsg::Bytes(720_000, Some(1_943_412)));
    scenes.push(("releases-download", ui.app.clone()));
    let digest = ReleaseError::OtherDigest {
        name: "firmware-cf2-2026.04.zip".to_owned(),
        expected: Sha256::of(b"published"),
        found: Sha256::of(b"other"),
    };
    ui.answer(ReleasesMsg::Fetched(Err(problem(&digest))));
    scenes.push(("releases-digest", ui.app.clone()));
    ui.press('k');
    ui.press_enter();
    let image = parse(&release("cf2", &firmware("2026.08", SEED_LEN), CompressionMethod::Stored));
    ui.answer(ReleasesMsg::Fetched(Ok(Box::new(FetchedFile {
        path: Some("/cache/firmware-cf2-2026.08.zip".into()),
        trust: Trust::AsPublished,
        image: Box::new(image),
    }))));
    scenes.push(("releases-taken", ui.app.clone()));

    let unreachable =
        ReleaseError::Unreachable { host: host(), why: "the host name could not be resolved".to_owned() };
    let stale = ReleaseList {
        age: Duration::from_secs(3 * 86_400),
        stale_because: Some(problem(&unreachable)),
        ..releases()
    };
    let mut ui = page("dead", Some(releases()));
    ui.press('p');
    scenes.push(("releases-no-board", ui.app.clone()));
    ui.press('v');
    ui.press('u');
    ui.answer(ReleasesMsg::Listed(Ok(Some(stale))));
    scenes.push(("releases-offline", ui.app.clone()));
    scenes
}

/// Returns scenes with many drones.
fn batch_scenes() -> Vec<(&'static str, App)> {
    let mut scenes = Vec::new();
    let mut ui = Interface::new("fleet");
    ui.choose(Which::Image, "cf2-2026.08.bin", &firmware("2026.08", SEED_LEN));
    scenes.push(("drones", ui.app.clone()));
    ui.press('a');
    ui.run_all_rows();
    scenes.push(("batch-plan", ui.app.clone()));
    ui.wait(Duration::from_secs(2));
    ui.press('w');
    // The rows are at different stages: done, writing, erasing, entering DFU mode, and checking.
    ui.run_row(0, |_| false);
    ui.run_row(1, |event| {
        matches!(event, Event::Progress { phase: cfdfu::job::Phase::Write, done: 150_000.., .. })
    });
    ui.run_row(2, |event| {
        matches!(event, Event::Progress { phase: cfdfu::job::Phase::Erase, done: 40_000.., .. })
    });
    ui.run_row(3, |_| false);
    scenes.push(("batch-flashing", ui.app.clone()));
    ui.press('j');
    ui.press_enter();
    scenes.push(("batch-row-writing", ui.app.clone()));
    ui.send(Msg::Key(Key::Esc));
    ui.send(Msg::Key(Key::Home));
    ui.press_enter();
    scenes.push(("batch-row-done", ui.app.clone()));
    ui.send(Msg::Key(Key::Esc));
    ui.press('q');
    scenes.push(("batch-stop", ui.app.clone()));

    let mut ui = Interface::new("fleet");
    ui.choose(Which::Image, "cf2-2026.08.bin", &firmware("2026.08", SEED_LEN));
    ui.press('a');
    ui.run_all_rows();
    ui.wait(Duration::from_secs(2));
    ui.press('w');
    ui.world.bus.with(1, |drone, _| drone.traits.fault = Some((80, SimFault::Unplugged)));
    ui.run_all_rows();
    (0..5).for_each(|_| ui.press('j'));
    scenes.push(("batch-done", ui.app.clone()));
    ui.press_enter();
    scenes.push(("batch-row", ui.app.clone()));
    ui.send(Msg::Key(Key::Esc));
    ui.press('n');
    scenes.push(("batch-station", ui.app.clone()));
    (0..8).for_each(|n| ui.world.bus.with(n, |drone, now| drone.cut_power(now)).unwrap());
    ui.scan_bus();
    ui.wait(Duration::from_secs(20));
    scenes.push(("batch-idle", ui.app.clone()));

    let mut ui = Interface::new("fleet");
    ui.choose(Which::Image, "cf2-2026.08.bin", &firmware("2026.08", SEED_LEN));
    ui.press('g');
    scenes.push(("blinking", ui.app.clone()));
    ui.press('g');
    scenes.push(("blinking-stopped", ui.app.clone()));

    // The names of two drones are known, because these drones were running earlier.
    let mut ui = Interface::new("fleet-dfu");
    for (serial, number) in [("52004F000551343036333233", 52), ("53004F000551343036333233", 53)] {
        ui.app.names.insert(serial, format!("radio://0/80/2M/E7E7E7E7{number}").parse().unwrap());
    }
    // The last drone could be a board from another manufacturer.
    ui.world.bus.with(7, |drone, _| {
        drone.memory.otp = [0xFF; 528];
        drone.memory.flash.place(0x0800_0000, &images::foreign(500_000));
    });
    ui.choose(Which::Image, "cf2-2026.08.bin", &firmware("2026.08", SEED_LEN));
    scenes.push(("drones-in-dfu", ui.app.clone()));
    ui.press('a');
    ui.run_all_rows();
    ui.send(Msg::Key(Key::End));
    scenes.push(("batch-stranger-plan", ui.app.clone()));
    ui.wait(Duration::from_secs(2));
    ui.press('w');
    ui.run_all_rows();
    ui.send(Msg::Key(Key::End));
    ui.press_enter();
    scenes.push(("batch-stranger", ui.app.clone()));
    scenes
}

/// Returns scenes with failures and long waits.
fn trouble_scenes() -> Vec<(&'static str, App)> {
    let mut scenes = Vec::new();
    let mut ui = Interface::new("dfu");
    ui.choose(Which::Image, "cf2-2026.08.bin", &firmware("2026.08", SEED_LEN));
    ui.world.bus.with(0, |drone, _| drone.traits.fault = Some((120, SimFault::Unplugged)));
    ui.confirm('f');
    ui.scan_bus();
    scenes.push(("unplugged", ui.app.clone()));
    ui.send(Msg::Key(Key::Esc));
    scenes.push(("given-up", ui.app.clone()));

    let mut ui = Interface::new("healthy");
    ui.choose(Which::Image, "cf2-2026.08.bin", &firmware("2026.08", SEED_LEN));
    ui.press('f');
    ui.handle_until_and_scan(|event| matches!(event, Event::Ready(_)));
    ui.press('w');
    ui.handle_until(|event| matches!(event, Event::Waiting { what: WaitFor::Start, .. }));
    ui.send(Msg::Bus(BusState::Devices(Vec::new())));
    scenes.push(("restarting", ui.app.clone()));

    for scenario in ["unknown-board", "restarting"] {
        let mut ui = Interface::new(scenario);
        ui.choose(Which::Image, "cf2-2026.08.bin", &firmware("2026.08", SEED_LEN));
        ui.press('f');
        ui.handle_until_and_scan(|event| matches!(event, Event::Ready(_)));
        if scenario == "unknown-board" {
            scenes.push(("unknown-board-plan", ui.app.clone()));
            continue;
        }
        ui.press('w');
        ui.handle_until(|event| matches!(event, Event::Waiting { what: WaitFor::StayUp, .. }));
        scenes.push(("watching", ui.app.clone()));
        ui.handle_until_and_scan(|event| matches!(event, Event::Finished(_)));
        scenes.push(("keeps-restarting", ui.app.clone()));
    }

    // No udev rule is installed, and the user is connected over SSH.
    let mut ui = Interface::new("none");
    let mut device = scan::list_devices(&World::new("dfu").bus).unwrap().remove(0);
    device.open_error = Some(TransferError::Access);
    let drone = doctor::SeenDrone {
        id: device.id,
        place: device.location.to_string(),
        open_error: Some((true, TransferError::Access.to_string())),
        holders: Vec::new(),
    };
    ui.send(Msg::Bus(BusState::Devices(vec![device])));
    scenes.push(("closed", ui.app.clone()));
    let symptoms = doctor::Symptoms {
        program: "cfdfu".to_owned(),
        devices: 4,
        drones: vec![drone],
        rules: Some(Default::default()),
        udev: true,
        ssh: true,
        ..doctor::Symptoms::default()
    };
    ui.send(Msg::Doctor(doctor::diagnose(&symptoms)));
    scenes.push(("doctor", ui.app.clone()));
    scenes
}

/// Returns scenes that show the health that a drone reports.
fn health_scenes() -> Vec<(&'static str, App)> {
    let mut scenes = Vec::new();
    for scenario in ["bad-deck", "asserting", "hung-start", "radio-silent"] {
        let mut ui = Interface::new(scenario);
        ui.choose(Which::Image, "cf2-2026.08.bin", &firmware("2026.08", SEED_LEN));
        ui.confirm('f');
        scenes.push((scenario, ui.app.clone()));
    }
    let mut ui = Interface::new("bad-sensor");
    scenes.push(("found", ui.app.clone()));
    // The background identify has already read the lines of the last start, so restart the drone to get new lines.
    ui.press('c');
    ui.handle_until_and_scan(|event| matches!(event, Event::Log(_, LogEntry::Listening)));
    ui.world.bus.with(0, |drone, now| drone.cut_power(now));
    ui.handle_until_and_scan(|event| matches!(event, Event::Log(_, LogEntry::ConsoleLost(_))));
    ui.world.bus.with(0, |drone, now| drone.power_on(now));
    ui.handle_until_and_scan(
        |event| matches!(event, Event::Console { line, .. } if line.text == "SYS: stabilizer [FAIL]"),
    );
    scenes.push(("console", ui.app.clone()));
    ui.press('e');
    scenes.push(("console-explain", ui.app.clone()));
    let mut ui = Interface::new("console-read");
    ui.press('c');
    scenes.push(("console-empty", ui.app.clone()));
    scenes
}

#[test]
fn all_scenes_except_the_main_ones_match_their_snapshots() {
    for (kind, scenes) in [
        ("board", board_scenes()),
        ("fleet", batch_scenes()),
        ("trouble", trouble_scenes()),
        ("health", health_scenes()),
        ("picker", release_scenes()),
    ] {
        for (name, app) in scenes {
            for (width, height) in [(80, 24), (60, 16)] {
                check_screen(&format!("{kind}-{name}-{width}x{height}"), &app, &theme(), (width, height));
            }
        }
    }
}

/// Compares a screen with its snapshot in `tests/screens`; `cargo insta review` shows the differences.
fn check_screen(name: &str, app: &App, theme: &Theme, (width, height): (u16, u16)) {
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path("../screens");
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    let buffer = draw(app, theme, width, height);
    settings.bind(|| insta::assert_snapshot!(name, format!("{}{}", text(&buffer), style_map(&buffer))));
}

/// Returns a map of the screen's styles, one letter per style, followed by a legend.
fn style_map(buffer: &Buffer) -> String {
    let mut styles: Vec<(Color, Color, Modifier)> = Vec::new();
    let mut letter = |cell: &Cell| {
        let style = (cell.fg, cell.bg, cell.modifier);
        // A space on the default background looks the same in nearly every style.
        if cell.symbol() == " " && style.1 == Color::Reset && !style.2.contains(Modifier::REVERSED) {
            return ' ';
        }
        let index = styles.iter().position(|known| *known == style);
        let n = index.unwrap_or_else(|| {
            styles.push(style);
            styles.len() - 1
        });
        char::from(b'a' + u8::try_from(n).unwrap())
    };
    let (columns, rows) = (buffer.area.width, buffer.area.height);
    let row = |y: u16| {
        (0..columns).map(|x| letter(&buffer[(x, y)])).collect::<String>().trim_end().to_owned() + "\n"
    };
    let map: String = (0..rows).map(row).collect();
    let named = |(letter, (ink, paper, modifier)): (u8, &(Color, Color, Modifier))| {
        format!("{} {ink} on {paper} {modifier:?}", char::from(letter))
    };
    let legend: Vec<String> = (b'a'..).zip(&styles).map(named).collect();
    let legend = legend.join("\n");
    format!("\n{map}\n{legend}")
}

/// Compares a picture with its file. With `UPDATE=1`, writes the file first.
fn check_picture(path: &Path, app: &App) {
    let picture = svg::draw_svg(&draw(app, &theme(), 80, 24), svg::DARK);
    if std::env::var_os("UPDATE").is_some() {
        fs::write(path, &picture).unwrap();
    }
    let kept = fs::read_to_string(path).unwrap_or_default();
    assert!(kept == picture, "{} is out of date: run UPDATE=1 cargo test pictures", path.display());
}

/// With `SHOW=folder`, writes every scene to that folder for review, in four sizes and in dark and light colours.
#[test]
fn every_scene_can_be_written_to_a_folder() {
    let Some(folder) = std::env::var_os("SHOW") else { return };
    let all = scenes()
        .into_iter()
        .chain(board_scenes())
        .chain(batch_scenes())
        .chain(trouble_scenes())
        .chain(health_scenes())
        .chain(release_scenes());
    for (name, app) in all {
        for (width, height) in [(80, 24), (120, 40), (200, 60), (60, 16)] {
            for (tone, colours, paper) in
                [("dark", Colours::Dark { auto: false }, svg::DARK), ("light", Colours::Light, svg::LIGHT)]
            {
                let buffer = draw(&app, &Theme::new(Glyphs::Unicode, colours), width, height);
                let file = Path::new(&folder).join(format!("{name}-{width}-{tone}.svg"));
                fs::write(file, svg::draw_svg(&buffer, paper)).unwrap();
            }
        }
    }
}

#[test]
fn the_pictures_are_up_to_date() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("screenshots");
    let batch = batch_scenes().into_iter().filter(|(name, _)| *name == "batch-flashing");
    for (name, app) in scenes().into_iter().chain(batch) {
        check_picture(&folder.join(format!("{name}.svg")), &app);
    }
}

/// Covers the main scenes with the most content, in other sizes and on simpler terminals. Also covers the picker, the
/// wizard and the overlays.
#[test]
fn other_sizes_terminals_and_overlays_match_their_snapshots() {
    let scenes = scenes();
    let main = scenes.iter().filter(|(name, _)| ["start", "plan", "flashing", "wizard"].contains(name));
    for (name, app) in main {
        for (width, height) in [(120, 40), (60, 16), (59, 16)] {
            check_screen(&format!("{name}-{width}x{height}"), app, &theme(), (width, height));
        }
        for (tier, glyphs, colours) in
            [("cp437", Glyphs::Cp437, Colours::Sixteen), ("ascii-mono", Glyphs::Ascii, Colours::None)]
        {
            check_screen(&format!("{name}-{tier}"), app, &Theme::new(glyphs, colours), (80, 24));
        }
    }
    let mut wizard = Wizard { step: WizardStep::AskLeds, since: Duration::ZERO, spoken: false };
    let row = |name: &str, kind: EntryKind| Entry {
        path: Path::new("/images").join(name),
        kind,
        size: 243_176,
        age: Some(Duration::from_secs(7200)),
    };
    let fits = Usable::Firmware(vec!["CF20".to_owned(), "CF21".to_owned()]);
    let entries = vec![
        row("cf2-2026.08.bin", EntryKind::File("firmware 2026.08 for CF20, CF21".to_owned(), fits)),
        row("cf2_nrf-2026.08.bin", EntryKind::File("for the radio chip".to_owned(), Usable::No)),
        row("old", EntryKind::Folder),
    ];
    let start = &scenes[0].1;
    let picker = Picker { entries: Some(Ok(entries)), ..Picker::new("/images".into()) };
    let mut screens = vec![("picker", Screen::Pick(Which::Image, None, picker))];
    for (name, step) in [
        ("leds", WizardStep::AskLeds),
        ("answer", WizardStep::Answer(Leds::OneFast)),
        ("early", WizardStep::Early),
    ] {
        wizard.step = step;
        let view = WizardView { wizard: wizard.clone(), aim: Aim::Begin(Source::Chosen) };
        screens.push((name, Screen::Wizard(view)));
    }
    for (name, screen) in screens {
        let app = App { screen, ..start.clone() };
        check_screen(name, &app, &theme(), (80, 24));
    }
    let flashing = &scenes.iter().find(|(name, _)| *name == "flashing").unwrap().1;
    let meaning = explain(&LogEntry::InError(Status::FIRMWARE)).unwrap();
    let meaning = format!("dfuERROR, status(10)\n\n{meaning}");
    let overlays = [
        ("help", Overlay::Help(String::new())),
        ("stop", Overlay::AskStop),
        ("log", Overlay::Log),
        ("explain", Overlay::Explain(meaning)),
    ];
    for (name, overlay) in overlays {
        let app = App { overlay: Some(overlay), ..flashing.clone() };
        check_screen(&format!("over-{name}"), &app, &theme(), (80, 24));
    }
}

#[test]
fn every_main_scene_can_be_drawn_at_several_sizes_on_every_kind_of_terminal() {
    for (name, app) in scenes() {
        for glyphs in [Glyphs::Unicode, Glyphs::Cp437, Glyphs::Ascii] {
            for colours in [Colours::None, Colours::Sixteen, Colours::Dark { auto: true }, Colours::Light] {
                let theme = Theme::new(glyphs, colours);
                for (width, height) in
                    [(80, 24), (120, 40), (60, 16), (59, 16), (200, 60), (1, 1), (3, 10), (80, 5)]
                {
                    let shown = text(&draw(&app, &theme, width, height));
                    let is_too_small = width < 60 || height < 16;
                    if is_too_small && width > 20 {
                        assert!(
                            shown.contains("needs 60") || shown.contains("Do not unplug"),
                            "{name} at {width}×{height}:\n{shown}"
                        );
                    }
                    if !is_too_small {
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

#[test]
fn the_plan_names_the_new_and_the_overwritten_firmware() {
    for (name, app) in scenes().into_iter().filter(|(name, _)| ["plan", "restore"].contains(name)) {
        for (width, height) in [(80, 24), (120, 40), (60, 16)] {
            // Long rows are wrapped, so join the lines.
            let shown = text(&draw(&app, &theme(), width, height)).replace('│', " ");
            let shown = shown.split_whitespace().collect::<Vec<_>>().join(" ");
            let overwritten = if name == "plan" { "firmware 2025.02" } else { "not recognised" };
            let (question, sectors) = match name {
                "plan" => ("w Write it", "erase 1-5"),
                _ => ("rest_", "erase 0-5"),
            };
            for words in
                [overwritten, "firmware 2026.08", "Nothing is written until you confirm", sectors, question]
            {
                assert!(
                    shown.contains(words),
                    "{name} at {width}×{height} does not show {words:?}:\n{shown}"
                );
            }
        }
    }
}

/// Returns the frames of a whole recovery, each with its duration in hundredths of a second.
fn recovery_frames() -> Vec<(u32, App)> {
    let mut frames = Vec::new();
    let mut ui = Interface::new("dead");
    ui.choose(Which::Image, "cf2-2026.08.bin", &firmware("2026.08", SEED_LEN));
    frames.push((150, ui.app.clone()));
    ui.press('r');
    frames.push((200, ui.app.clone()));
    ui.press_enter();
    frames.push((100, ui.app.clone()));
    ui.press('B');
    for _ in 0..2 {
        ui.wait(Duration::from_secs(1));
        frames.push((100, ui.app.clone()));
    }
    ui.wait(Duration::from_millis(950));
    ui.press('P');
    for _ in 0..12 {
        ui.wait(Duration::from_millis(480));
        frames.push((48, ui.app.clone()));
    }
    ui.wait(Duration::from_millis(300));
    frames.push((70, ui.app.clone()));
    ui.press('B');
    ui.wait(Duration::from_secs(1));
    ui.handle_until_and_scan(|event| matches!(event, Event::Ready(_)));
    frames.push((250, ui.app.clone()));
    ui.press('w');
    let is_progress = |event: &Event| matches!(event, Event::Sector { .. } | Event::Progress { .. });
    let mut last = None;
    while matches!(ui.app.screen, Screen::Job(_)) {
        ui.handle_until(|event| is_progress(event) || matches!(event, Event::Finished(_)));
        let shown = text(&draw(&ui.app, &theme(), 80, 24));
        // Add a frame whenever the job has advanced by five percent.
        let percent =
            shown.lines().find_map(|line| line.split_once(" %")?.0.rsplit(' ').next()?.parse::<u32>().ok());
        if let Some(percent) = percent
            && last != Some(percent / 5)
        {
            last = Some(percent / 5);
            frames.push((25, ui.app.clone()));
        }
    }
    ui.scan_bus();
    frames.push((400, ui.app.clone()));
    frames
}

/// With `FRAMES=folder`, writes the frames to that folder. `screenshots/make` turns them into the README's animation.
#[test]
fn the_animation_of_a_recovery_ends_with_a_verified_flash() {
    let frames = recovery_frames();
    assert!(frames.len() > 30, "only {} frames", frames.len());
    let last = text(&draw(&frames.last().unwrap().1, &theme(), 80, 24));
    assert!(last.contains("Flashed and verified"), "{last}");
    if let Some(folder) = std::env::var_os("FRAMES") {
        fs::create_dir_all(&folder).unwrap();
        for (n, (time, app)) in frames.iter().enumerate() {
            let name = format!("{n:03}-{time}.svg");
            fs::write(Path::new(&folder).join(name), svg::draw_svg(&draw(app, &theme(), 80, 24), svg::DARK))
                .unwrap();
        }
    }
}
