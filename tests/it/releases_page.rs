//! Tests the picker's page of official releases. Some tests run the real binary, in a pseudo-terminal or with
//! `--plain`, against a server that replaces GitHub. Others send key presses and answers to the interface in the order
//! in which they could arrive with a slow server.
#![cfg(unix)]

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use cfdfu::app::keys::Key;
use cfdfu::app::releases::{FetchedFile, ReleasesEffect, ReleasesMsg, Request};
use cfdfu::app::{Effect, Msg, Screen, Slot, Which};
use cfdfu::job::Event;
use cfdfu::releases::{Part, ReleaseError, Repo, Trust};
use cfdfu::report::release_error;
use cfdfu::sim::images;
use zip::CompressionMethod;

use crate::cli::Folder;
use crate::files::release;
use crate::github::{GitHub, ServerBehaviour};
use crate::interface::Interface;
use crate::pictures::releases;
use crate::pty::Session;
use crate::releases::ReleaseFixture;
use crate::support::{SEED_LEN, firmware, parse};

const LIST: &str = "GET /repos/bitcraze/crazyflie-release/releases?per_page=30";
const FILE: &str = "GET /bitcraze/crazyflie-release/releases/download/2026.08/firmware-cf2-2026.08.zip";

/// Starts the interface with a cache in `folder`.
fn start_session(github: &GitHub, folder: &Folder, arguments: &[&str]) -> Session {
    let cache = folder.path("cache").display().to_string();
    Session::start(arguments, &[("CFDFU_RELEASES_URL", &github.address), ("XDG_CACHE_HOME", &cache)])
}

/// No request is sent until a key press asks for it, and the demo does not keep any files.
#[test]
fn a_release_is_listed_downloaded_and_flashed() {
    let desk = ReleaseFixture::new();
    let mut session = start_session(&desk.github, &desk.folder, &["--demo"]);
    session.wait_for("runs 2025.02");
    session.wait_for("243,176 bytes");
    session.press("i");
    session.wait_for("Choose the firmware");
    session.press("\t");
    let screen = session.wait_for("Press Enter to ask for the list");
    assert!(screen.contains("Official firmware for CF21") && screen.contains("api.github.com"), "{screen}");
    session.press("\t");
    session.wait_for("Choose the firmware");
    session.press("\t");
    session.wait_for("Press Enter to ask for the list");
    assert_eq!(desk.github.take_requests(), Vec::<String>::new());
    session.press("\r");
    let screen = session.wait_for("on the drone");
    assert!(screen.contains("2026.08     2026-08-24  cf2 cf21bl"), "{screen}");
    assert!(screen.contains("Enter downloads firmware-cf2-2026.08.zip"), "{screen}");
    assert_eq!(desk.github.take_requests(), [LIST]);
    session.press("\r");
    session.wait_for("its SHA-256 is the one that GitHub published");
    session.wait_for("firmware 2026.08 for CF20, CF21");
    // The demo does not keep the list and therefore asks for the hash again.
    assert_eq!(desk.github.take_requests(), [LIST, FILE]);
    session.press("f");
    session.confirm_plan();
    session.wait_for("Your Crazyflie is running 2026.08");
    assert!(!desk.folder.path("cache").exists(), "the demo writes nothing");
}

/// The keys work even if the server does not answer.
#[test]
fn esc_stops_a_download_at_once() {
    let desk = ReleaseFixture::new();
    let mut session = start_session(&desk.github, &desk.folder, &["--demo"]);
    session.wait_for("runs 2025.02");
    session.press("i\t");
    session.wait_for("Press Enter");
    session.press("\r");
    session.wait_for("on the drone");
    desk.github.set_file_behaviour(ServerBehaviour::Silent);
    session.press("\r");
    session.wait_for("Downloading firmware-cf2-2026.08.zip");
    let pressed = Instant::now();
    session.press("\u{1b}");
    session.wait_for("Enter downloads");
    assert!(pressed.elapsed() < Duration::from_secs(5), "{:?}", pressed.elapsed());
    // The next request does not wait for the answer to the stopped one.
    desk.github.set_file_behaviour(ServerBehaviour::Good);
    session.press("\r");
    session.wait_for("that GitHub published");
    session.wait_for("What would you like");
    session.press("q");
    assert_eq!(session.wait_for_exit(), 0);
}

/// Each stopped request may still be waiting for the server, so the number of such requests is limited.
#[test]
fn the_number_of_requests_to_a_silent_server_is_limited() {
    let desk = ReleaseFixture::new();
    desk.github.set_list_behaviour(ServerBehaviour::Silent);
    let mut session = start_session(&desk.github, &desk.folder, &["--demo"]);
    session.wait_for("runs 2025.02");
    session.press("i\t");
    for _ in 0..4 {
        session.wait_for("Press Enter to ask");
        session.press("\r");
        session.wait_for("Asking api.github.com");
        session.press("\u{1b}");
    }
    session.wait_for("Press Enter to ask");
    session.press("\r");
    session.wait_for("GitHub does not answer");
    // On a busy machine, the server may receive the last request only now.
    let (started, mut asked) = (Instant::now(), desk.github.take_requests());
    while asked.len() < 4 && started.elapsed() < Duration::from_secs(10) {
        thread::sleep(Duration::from_millis(20));
        asked.extend(desk.github.take_requests());
    }
    assert_eq!(asked, [LIST; 4]);
}

/// The selected port has no drone. After the first download, the next start needs no network.
#[test]
fn plain_mode_fetches_a_release_and_keeps_it() {
    let desk = ReleaseFixture::new();
    let plain = |input: &str| desk.cfdfu("--plain --device 9-9").input(input).run();
    let first = plain("i\nreleases\nq\nq\n").out;
    assert!(first.contains("cfdfu asks api.github.com for the list"), "{first}");
    assert_eq!(desk.github.take_requests(), Vec::<String>::new());
    let out = plain("i\nreleases\n\n1\nv\n\nq\n").out;
    for words in
        ["1  2026.08, 2026-08-24", "Press v to choose a board", "Enter downloads firmware-cf2-2026.08.zip"]
    {
        assert!(out.contains(words), "{words:?} is not in:\n{out}");
    }
    assert!(out.contains("its SHA-256 is the one that GitHub published"), "{out}");
    assert_eq!(desk.kept(), ["firmware-cf2-2026.08.zip"]);
    assert_eq!(desk.github.take_requests(), [LIST, FILE]);
    let again = plain("i\nreleases\nv\n\nq\n").out;
    assert!(again.contains("Enter picks firmware-cf2-2026.08.zip, which is on this computer"), "{again}");
    assert!(again.contains("Image: ") && again.contains("firmware 2026.08"), "{again}");
    assert_eq!(desk.github.take_requests(), Vec::<String>::new());
}

/// After each of these answers, the page shows a message, and no file is used.
#[test]
fn errors_of_the_server_are_explained_on_the_page() {
    let limit = "x-ratelimit-remaining: 0\r\nx-ratelimit-reset: 99999999999\r\n";
    for (list, file, words) in [
        (ServerBehaviour::Status(403, limit), ServerBehaviour::Good, "allows no more requests"),
        (ServerBehaviour::Page, ServerBehaviour::Good, "not in GitHub's format"),
        (ServerBehaviour::Good, ServerBehaviour::Other, "SHA-256"),
        (ServerBehaviour::Good, ServerBehaviour::Cut(1000), "was lost after"),
        (ServerBehaviour::Good, ServerBehaviour::Status(404, ""), "status 404"),
    ] {
        let desk = ReleaseFixture::new();
        desk.github.set_list_behaviour(list);
        desk.github.set_file_behaviour(file);
        let ran = desk.cfdfu("--plain --demo=none").input("i\nreleases\n\nv\n1\n\nq\nq\n").run();
        assert!(ran.out.contains(words), "{words:?} is not in:\n{}", ran.out);
        assert!(!ran.out.contains("firmware-cf2-2026.08.zip, firmware"), "{}", ran.out);
        assert_eq!(desk.kept(), Vec::<String>::new());
    }
}

/// The folder is used instead of GitHub.
#[test]
fn a_folder_in_the_settings_is_listed_without_a_request() {
    let desk = ReleaseFixture::new();
    desk.run("fetch 2025.02 --board all --to mirror").success();
    desk.github.take_requests();
    let mirror = desk.folder.path("mirror");
    fs::create_dir_all(desk.folder.path("config/cfdfu")).unwrap();
    let source = format!("[releases]\nsource = {:?}\n", mirror.display().to_string());
    desk.folder.write_file("config/cfdfu/config.toml", source);
    let line = desk.cfdfu("--plain --demo").env("XDG_CONFIG_HOME", desk.folder.path("config"));
    let out = line.input("i\nreleases\n\n2\nv\n\nf\nw\n").run().out;
    assert!(out.contains("Official firmware for cf2, from /"), "{out}");
    assert!(out.contains("from the folder; GitHub was not asked"), "{out}");
    assert!(out.contains("Flashed and verified"), "{out}");
    assert_eq!(desk.github.take_requests(), Vec::<String>::new());
}

/// Opens the page with a list, and clears the recorded effects.
fn open_page(scenario: &str) -> Interface {
    let mut ui = Interface::new(scenario);
    ui.kept_list = Some(releases());
    ui.press('i');
    ui.send(Msg::Key(Key::Tab));
    ui.effects.clear();
    ui
}

fn request(ui: &Interface) -> Option<&Request> {
    match &ui.app.screen {
        Screen::Releases(view) => Some(&view.request),
        _ => None,
    }
}

pub fn arrived(image: &[u8]) -> ReleasesMsg {
    ReleasesMsg::Fetched(Ok(Box::new(FetchedFile {
        path: None,
        trust: Trust::AsPublished,
        image: Box::new(parse(image)),
    })))
}

#[test]
fn an_answer_to_an_earlier_request_is_ignored() {
    let mut ui = open_page("healthy");
    ui.press_enter();
    let file =
        Effect::Releases(2, ReleasesEffect::KeptFile("2026.08".to_owned(), Part::Firmware("cf2".to_owned())));
    assert_eq!(ui.effects, [file]);
    ui.send(Msg::Key(Key::Esc));
    assert_eq!(ui.effects.last(), Some(&Effect::Releases(3, ReleasesEffect::Stop)));
    let archive = release("cf2", &firmware("2026.08", SEED_LEN), CompressionMethod::Stored);
    ui.send(Msg::Releases(2, arrived(&archive)));
    assert_eq!((request(&ui), &ui.app.image), (Some(&Request::Nothing), &Slot::Empty));
    // Request the same file again. The progress of the stopped request is ignored.
    ui.press_enter();
    ui.send(Msg::Releases(2, ReleasesMsg::Bytes(5, Some(5))));
    assert!(matches!(request(&ui), Some(Request::File { done: 0, .. })));
    ui.send(Msg::Releases(4, arrived(&archive)));
    assert!(matches!((&ui.app.screen, &ui.app.image), (Screen::Home, Slot::Ready(..))));
}

/// The list shows the file as kept, but the file has been removed since. The first Enter must not start a download,
/// because the page showed that the file is on this computer.
#[test]
fn a_kept_file_that_is_gone_is_downloaded_only_by_the_next_key_press() {
    let mut ui = open_page("healthy");
    ui.press_enter();
    let gone = ReleaseError::NotKept { name: "firmware-cf2-2026.08.zip".to_owned() };
    ui.answer(ReleasesMsg::Fetched(Err(release_error(&gone, 0))));
    ui.press_enter();
    assert!(
        matches!(ui.effects.last(), Some(Effect::Releases(_, ReleasesEffect::File(..)))),
        "{:?}",
        ui.effects
    );
}

/// A file that was chosen in the picker and loads slowly neither closes the page nor starts a job.
#[test]
fn a_file_that_loads_late_does_not_close_the_page() {
    let mut ui = Interface::new("dfu");
    ui.kept_list = Some(releases());
    ui.press('f');
    "/slow.bin".chars().for_each(|letter| ui.press(letter));
    ui.press_enter();
    ui.send(Msg::Key(Key::Esc));
    ui.send(Msg::Key(Key::Tab));
    let image = Box::new(parse(&firmware("2026.08", SEED_LEN)));
    ui.send(Msg::Loaded(Which::Image, "/slow.bin".into(), Ok(image)));
    assert!(matches!(ui.app.screen, Screen::Releases(_)), "{:?}", ui.app.screen);
    // The picker has no contents of the folder, so the folder is read again.
    ui.send(Msg::Key(Key::Tab));
    assert!(matches!(ui.effects.last(), Some(Effect::List(_))), "{:?}", ui.effects);
}

/// The command that `m` copies flashes the same file as the interface, for the same board.
#[test]
fn the_copied_command_names_the_release_and_its_board() {
    let mut ui = Interface::new("dfu");
    ui.kept_list = Some(releases());
    ui.press('f');
    ui.send(Msg::Key(Key::Tab));
    ui.press_enter();
    ui.answer(arrived(&release("cf2", &firmware("2026.08", SEED_LEN), CompressionMethod::Stored)));
    ui.handle_until_and_scan(|event| matches!(event, Event::Ready(_)));
    ui.press('m');
    let copied = ui.effects.iter().find_map(|effect| match effect {
        Effect::Copy(text) => Some(text.clone()),
        _ => None,
    });
    assert_eq!(copied.as_deref(), Some("cfdfu flash --release 2026.08 --board cf2 --demo=dfu"));
}

/// Ctrl-C stops a running request even while the help covers the page, and does not quit.
#[test]
fn ctrl_c_stops_a_request_below_an_overlay() {
    let mut ui = open_page("healthy");
    ui.press('u');
    ui.press('?');
    ui.send(Msg::Key(Key::CtrlC));
    assert!(matches!(ui.effects.last(), Some(Effect::Releases(_, ReleasesEffect::Stop))), "{:?}", ui.effects);
    assert_eq!(request(&ui), Some(&Request::Nothing));
}

/// The previously chosen file stays chosen.
#[test]
fn a_file_that_cannot_be_flashed_is_refused_on_the_page() {
    let mut ui = Interface::new("healthy");
    ui.kept_list = Some(releases());
    ui.choose(Which::Image, "cf2.bin", &firmware("2026.04", SEED_LEN));
    ui.press('i');
    ui.send(Msg::Key(Key::Tab));
    ui.press_enter();
    ui.answer(arrived(&images::loader()));
    assert!(matches!(ui.app.screen, Screen::Releases(_)));
    assert!(ui.notice().contains("bootloader"), "{}", ui.notice());
    assert!(
        matches!(&ui.app.image, Slot::Ready(file, _) if file.path.ends_with("cf2.bin")),
        "{:?}",
        ui.app.image
    );
}

#[test]
fn a_flash_that_waits_for_its_file_starts_when_the_file_arrives() {
    let mut ui = Interface::new("dfu");
    ui.kept_list = Some(releases());
    ui.press('f');
    ui.send(Msg::Key(Key::Tab));
    ui.press_enter();
    let archive = release("cf2", &firmware("2026.08", SEED_LEN), CompressionMethod::Stored);
    ui.answer(arrived(&archive));
    assert!(matches!(ui.app.screen, Screen::Job(_)), "{:?}", ui.app.screen);
}

#[test]
fn if_the_board_is_unknown_the_user_chooses_one_and_the_bootloader_has_its_own_list() {
    let mut ui = open_page("dead");
    ui.press_enter();
    assert_eq!((ui.effects.len(), request(&ui)), (0, Some(&Request::Nothing)));
    let mut files = Vec::new();
    for _ in 0..6 {
        ui.press('v');
        ui.press_enter();
        if let Some(Effect::Releases(_, ReleasesEffect::File(_, part) | ReleasesEffect::KeptFile(_, part))) =
            ui.effects.pop()
        {
            files.push(part);
        }
        ui.send(Msg::Key(Key::Esc));
    }
    let names = ["cf2", "cf21bl", "bolt", "tag", "flapper", "cf2"];
    assert_eq!(files, names.map(|name| Part::Firmware(name.to_owned())));
    // The bootloader has its own list.
    ui.send(Msg::Key(Key::Esc));
    ui.send(Msg::Key(Key::Down));
    ui.kept_list = None;
    ui.press('i');
    ui.send(Msg::Key(Key::Tab));
    let asked = Effect::Releases(ui.app.release_requests, ReleasesEffect::KeptList(Repo::Loader));
    assert_eq!(ui.effects.last(), Some(&asked));
}
